package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/test/appendlog"
)

// writeEvery is the time between two attempts of a writer. Several clusters are written to at once on a small machine.
const writeEvery = 100 * time.Millisecond

// lookEvery is the time between two looks at where the members are: each lists pods.
const lookEvery = time.Second

// appending is an append log with a writer at each member.
type appending struct {
	log   *appendlog.Log
	began time.Time
	kept  treasure
}

// appendOn writes entries through every member, those that are added later included, until it is ended.
// It also notes the cluster's identity.
func appendOn(ctx context.Context, c *v1beta1.EtcdCluster) *appending {
	GinkgoHelper()
	onLocalCluster() // pods are reached by their addresses
	a := &appending{kept: bury(ctx, c), began: time.Now()}
	options := appendlog.Options{Prefix: "log", Every: writeEvery, Writers: 1, Members: addressesOf(c)}
	if c.Status.ClientSecretName != "" {
		options.TLS = clientTLS(ctx, c)
	}
	var err error
	a.log, err = appendlog.Start(ctx, options)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		if CurrentSpecReport().Failed() {
			a.tellLongestGap(a.log.Entries())
		}
	})
	return a
}

// tellLongestGap tells the longest time without an acknowledged write until the last attempt.
func (a *appending) tellLongestGap(entries []appendlog.Entry) {
	gap, at := appendlog.LongestGap(entries, a.began, a.lastSent(entries))
	AddReportEntry("longest gap between acknowledged writes", fmt.Sprintf("%s, from %s, %s after the first of %d",
		gap, at.UTC().Format(time.TimeOnly), at.Sub(a.began), appendlog.Acknowledged(entries)))
}

// lastSent returns when the last attempt began. Without one it returns when the writers were started.
func (a *appending) lastSent(entries []appendlog.Entry) time.Time {
	if n := len(entries); n > 0 {
		return entries[n-1].Sent
	}
	return a.began
}

// expectStopped checks that no write was acknowledged for an election's time-out when the quorum was reported as lost,
// and that the report ended soon after writes went on. The time of the report is when the pass began: it asked the
// members after that.
func (a *appending) expectStopped(lost *metav1.Condition, until time.Time) {
	GinkgoHelper()
	reported, entries := lost.LastTransitionTime.Time, a.log.Entries()
	from, to := reported.Add(-5*time.Second), reported.Add(6*time.Second) // with the time-out of a question to a member
	if from.Before(a.began) {
		from = a.began
	}
	if last := a.lastSent(entries); to.After(last) {
		to = last
	}
	Expect(to).To(BeTemporally(">", from), "there were no writers")
	gap, at := appendlog.LongestGap(entries, from, to)
	told := fmt.Sprintf("QuorumLost from %s to %s (%s), no write acknowledged for %s from %s", reported.UTC().Format(time.TimeOnly),
		until.UTC().Format(time.TimeOnly), lost.Message, gap, at.UTC().Format(time.TimeOnly))
	AddReportEntry(told)
	Expect(gap).To(BeNumerically(">=", time.Second), told)
	longest, began := appendlog.LongestGap(entries, at, until)
	Expect(until.Sub(began.Add(longest))).To(BeNumerically("<", 30*time.Second), told)
}

// addressesOf returns where the cluster's pods serve clients.
func addressesOf(c *v1beta1.EtcdCluster) func(context.Context) (map[string]string, error) {
	namespace, labels := c.Namespace, client.MatchingLabels{cluster.LabelCluster: c.Name}
	var last map[string]string
	var lookedAt time.Time
	return func(ctx context.Context) (map[string]string, error) {
		if time.Since(lookedAt) < lookEvery {
			return last, nil
		}
		var list corev1.PodList
		if err := kube.List(ctx, &list, client.InNamespace(namespace), labels); err != nil {
			return nil, err
		}
		addresses := map[string]string{}
		for _, pod := range list.Items {
			if pod.Status.PodIP != "" {
				addresses[strings.TrimSuffix(pod.Name, "-0")] = net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(cluster.ClientPort))
			}
		}
		last, lookedAt = addresses, time.Now()
		return addresses, nil
	}
}

// clientTLS is what the users of a cluster have whose certificates the operator manages.
func clientTLS(ctx context.Context, c *v1beta1.EtcdCluster) *tls.Config {
	GinkgoHelper()
	secret := secretOf(ctx, c, cluster.RoleClient)
	certificate, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	Expect(err).NotTo(HaveOccurred())
	authorities := x509.NewCertPool()
	Expect(authorities.AppendCertsFromPEM(secret.Data["ca.crt"])).To(BeTrue())
	return &tls.Config{
		Certificates: []tls.Certificate{certificate}, RootCAs: authorities,
		ServerName: fmt.Sprintf("%s.%s.svc", c.Status.ServiceName, c.Namespace),
	}
}

// end checks that the log is complete: it has every acknowledged entry, once and in order. The cluster ID and the IDs
// of the members that stay are those of before.
func (a *appending) end(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	entries := a.log.Stop()
	a.tellLongestGap(entries)
	Expect(appendlog.Acknowledged(entries)).To(BeNumerically(">", 0))
	Expect(a.log.Verify(ctx, entries)).To(Succeed())

	id, err := identityOf(ctx, c, firstReady(ctx, c))
	Expect(err).NotTo(HaveOccurred())
	Expect(id.ClusterID).To(Equal(a.kept.ClusterID))
	Expect(id.Members).To(HaveLen(int(c.Spec.Replicas)))
	for name, member := range a.kept.Members {
		Expect(id.Members[name]).To(BeElementOf(member, uint64(0)), name+" is another member now")
	}
	a.kept.Members = id.Members
	a.kept.expectFound(ctx, c)
}
