package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// etcdctl runs etcdctl in a member's pod, against that member alone.
func etcdctl(ctx context.Context, c *v1beta1.EtcdCluster, member string, args ...string) (string, error) {
	command := []string{"etcdctl", "--command-timeout=5s"}
	if intent := cluster.IntentOf(c); intent.ServerSecret != "" {
		keys := pki.ServerKeys
		if intent.ServerCertificates != cluster.SourceEtcdOperator {
			keys = pki.TLSKeys
		}
		command = append(command, "--endpoints=https://localhost:2379", "--cert=/etc/etcd/server/"+keys.Certificate,
			"--key=/etc/etcd/server/"+keys.Key, "--cacert=/etc/etcd/server/"+keys.Authorities)
	}
	return lab.Execute(ctx, c.Namespace, cluster.PodName(member), append(command, args...)...)
}

// identity is what must never change of a cluster: its ID and its members' IDs by name.
type identity struct {
	ClusterID uint64
	Members   map[string]uint64
}

// identityOf asks etcd itself.
func identityOf(ctx context.Context, c *v1beta1.EtcdCluster, member string) (identity, error) {
	out, err := etcdctl(ctx, c, member, "member", "list", "-w", "json")
	if err != nil {
		return identity{}, err
	}
	var list struct {
		Header struct {
			ClusterID uint64 `json:"cluster_id"`
		} `json:"header"`
		Members []struct {
			ID   uint64 `json:"ID"`
			Name string `json:"name"`
		} `json:"members"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return identity{}, fmt.Errorf("reading the member list %q: %w", out, err)
	}
	id := identity{ClusterID: list.Header.ClusterID, Members: map[string]uint64{}}
	for _, m := range list.Members {
		id.Members[m.Name] = m.ID
	}
	return id, nil
}

// treasure is a cluster's identity and a key, noted before a fault.
type treasure struct {
	identity
	value string
}

// bury notes the cluster's identity and writes a key. It checks that the status tells the same identity.
func bury(ctx context.Context, c *v1beta1.EtcdCluster) treasure {
	GinkgoHelper()
	kept := treasure{value: "buried in " + string(c.UID)}
	member := firstReady(ctx, c)
	write(ctx, c, member, "treasure", kept.value)
	id, err := identityOf(ctx, c, member)
	Expect(err).NotTo(HaveOccurred())
	kept.identity = id
	Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
	Expect(c.Status.ClusterID).To(Equal(fmt.Sprintf("%x", id.ClusterID)))
	for _, m := range c.Status.Members {
		Expect(m.ID).To(Equal(fmt.Sprintf("%x", id.Members[m.Name])), m.Name)
	}
	return kept
}

// expectFound checks that every given member, all ready ones where none is given, still has the key and the identity.
func (t treasure) expectFound(ctx context.Context, c *v1beta1.EtcdCluster, members ...string) {
	GinkgoHelper()
	if len(members) == 0 {
		Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		for _, m := range c.Status.Members {
			members = append(members, m.Name)
		}
	}
	for _, member := range members {
		Eventually(ctx, func(g Gomega) {
			out, err := etcdctl(ctx, c, member, "get", "treasure", "--print-value-only")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(strings.TrimSpace(out)).To(Equal(t.value))
			id, err := identityOf(ctx, c, member)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(id).To(Equal(t.identity))
		}).Should(Succeed())
	}
	Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
	Expect(c.Status.ClusterID).To(Equal(fmt.Sprintf("%x", t.ClusterID)))
}

// write puts a key through one member; a leader may have to be elected first.
func write(ctx context.Context, c *v1beta1.EtcdCluster, member, key, value string) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		_, err := etcdctl(ctx, c, member, "put", key, value)
		return err
	}).Should(Succeed())
}

// firstReady names a member that the operator calls ready. It waits for one: the operator may not have seen yet that
// members are back after a fault.
func firstReady(ctx context.Context, c *v1beta1.EtcdCluster) string {
	GinkgoHelper()
	var ready string
	Eventually(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		i := slices.IndexFunc(c.Status.Members, func(m v1beta1.MemberStatus) bool { return m.Ready })
		g.Expect(i).To(BeNumerically(">=", 0), "no member is ready")
		ready = c.Status.Members[i].Name
	}).Should(Succeed())
	return ready
}
