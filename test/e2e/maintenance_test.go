package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

var _ = Describe("What an administrator asks of a cluster, while clients write", func() {
	It("is done: members are defragmented one by one, the leader last, and the leader moves, and no pod restarts", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		pods := uidsOfPods(ctx, c)
		fragment(ctx, c)
		before := databasesOf(ctx, c)
		leader := leaderOf(ctx, c)
		story := follow(ctx, c)
		annotate(ctx, c, v1beta1.DefragmentAnnotation+"=now")
		awaitObeyed(ctx, c, v1beta1.DefragmentAnnotation)
		operations := story.end()
		Expect(operations).To(HaveLen(3))
		for _, op := range operations {
			Expect(op.Type).To(Equal(v1beta1.OperationDefragment))
		}
		Expect(operations[2].Member).To(Equal(leader), "the leader was not the last")
		story.expectTold(ctx, c, writers)
		for member, bytes := range databasesOf(ctx, c) {
			Expect(bytes).To(BeNumerically("<", before[member]/2), member)
		}

		now := leaderOf(ctx, c)
		Expect(now).NotTo(Equal(leader), "the leader did not hand over before it was defragmented")
		story = follow(ctx, c)
		annotate(ctx, c, v1beta1.MoveLeaderAnnotation+"="+leader)
		awaitObeyed(ctx, c, v1beta1.MoveLeaderAnnotation)
		Expect(leaderOf(ctx, c)).To(Equal(leader))
		Expect(story.end()).To(HaveExactElements(SatisfyAll(HaveField("Type", v1beta1.OperationMoveLeader), HaveField("Member", now))))
		story.expectTold(ctx, c, writers)
		annotate(ctx, c, v1beta1.MoveLeaderAnnotation+"=prod-9")
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonNoSuchMember).saying("prod-9", "prod-0"))
		annotate(ctx, c, v1beta1.MoveLeaderAnnotation+"-")
		awaitHealthy(ctx, c)
		Expect(uidsOfPods(ctx, c)).To(Equal(pods), "a pod was restarted")
		writers.end(ctx, c)
	})
})

// fragment writes some MiB, deletes them, and compacts.
func fragment(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	member, value := firstReady(ctx, c), strings.Repeat("x", 64<<10)
	for n := range 200 {
		write(ctx, c, member, fmt.Sprintf("ballast/%d", n), value)
	}
	out, err := etcdctl(ctx, c, member, "del", "--prefix", "ballast/", "-w", "json")
	Expect(err).NotTo(HaveOccurred())
	var deleted struct {
		Header struct {
			Revision int64 `json:"revision"`
		} `json:"header"`
	}
	Expect(json.Unmarshal([]byte(out), &deleted)).To(Succeed(), out)
	_, err = etcdctl(ctx, c, member, "compact", "--physical", fmt.Sprint(deleted.Header.Revision))
	Expect(err).NotTo(HaveOccurred())
}

// databasesOf returns the sizes of the members' databases.
func databasesOf(ctx context.Context, c *v1beta1.EtcdCluster) map[string]int64 {
	GinkgoHelper()
	sizes := map[string]int64{}
	for _, member := range []string{"prod-0", "prod-1", "prod-2"} {
		out, err := etcdctl(ctx, c, member, "endpoint", "status", "-w", "json")
		Expect(err).NotTo(HaveOccurred())
		var list []struct {
			Status struct {
				Size int64 `json:"dbSize"`
			} `json:"Status"`
		}
		Expect(json.Unmarshal([]byte(out), &list)).To(Succeed(), out)
		sizes[member] = list[0].Status.Size
	}
	return sizes
}

func leaderOf(ctx context.Context, c *v1beta1.EtcdCluster) string {
	GinkgoHelper()
	Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
	return c.Status.Leader
}

// awaitObeyed waits until the operator has removed an annotation, and the cluster is at rest.
func awaitObeyed(ctx context.Context, c *v1beta1.EtcdCluster, annotation string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		g.Expect(c.Annotations).NotTo(HaveKey(annotation))
	}).Should(Succeed())
	awaitHealthy(ctx, c)
}
