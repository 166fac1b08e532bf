package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/test/world"
)

// managed leaves TLS out, which has the operator manage it.
func managed(c *v1beta1.EtcdCluster) { c.Spec.TLS = nil }

var _ = Describe("A cluster whose certificates the operator manages", func() {
	for _, minor := range []string{"3.5", "3.6", "3.7"} {
		It("of etcd "+minor+" serves those who have the Secret for clients, and nobody else", func(ctx SpecContext) {
			ns := newNamespace(ctx)
			c := create(ctx, makeCluster(ns, managed, ofVersion(versionOf(minor))))
			kept := bury(ctx, c)
			kept.expectFound(ctx, c)
			for _, m := range c.Status.Members {
				expectNoComplaint(ctx, c, m.Name)
			}
			Expect(c.Status.ClientSecretName).To(Equal("prod-client-tls"))

			for _, service := range []string{"prod-client", "prod-client." + ns, "prod-client." + ns + ".svc", "prod-client." + ns + ".svc.cluster.local"} {
				got, ok := askAsClient(ctx, c, c.Status.ClientSecretName, "--endpoints=https://"+service+":2379", "get", "treasure", "--print-value-only")
				Expect(ok).To(BeTrue(), got)
				Expect(strings.TrimSpace(got)).To(Equal(kept.value))
			}
			got, ok := askAsClient(ctx, c, "", "--endpoints=https://prod-client."+ns+".svc:2379", "--insecure-skip-tls-verify", "get", "treasure")
			Expect(ok).To(BeFalse(), got)
			got, ok = askAsClient(ctx, c, c.Status.ClientSecretName, "--endpoints=https://prod-0-0.prod."+ns+".svc:2380", "get", "treasure")
			Expect(ok).To(BeFalse(), "a client passes for a peer: "+got)
		})
	}

	It("takes new authorities up member by member, while clients write, and issues a deleted certificate again", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), managed))
		kept := bury(ctx, c)
		before := uidsOfPods(ctx, c)
		writing := writeOn(ctx, c)

		rotate(ctx, c, "at once")
		awaitConditions(ctx, c, progressing(metav1.ConditionTrue, v1beta1.ReasonRotatingAuthorities).saying("Every member trusts the new certificate authorities"))
		for pod, uid := range uidsOfPods(ctx, c) {
			Expect(uid).NotTo(Equal(before[pod]), pod+" was not restarted")
		}
		expectEvent(ctx, c, v1beta1.EventMemberRolled, "prod-")
		writing.end()
		kept.expectFound(ctx, c)
		Expect(c.Status.Operation).To(BeNil())
		awaitConditions(ctx, c, available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing), degraded(metav1.ConditionFalse, v1beta1.ReasonAsExpected))

		rolled := uidsOfPods(ctx, c)
		Expect(kube.Delete(ctx, secretOf(ctx, c, cluster.RoleServer))).To(Succeed())
		deletePods(ctx, c, "prod-1") // it cannot start without the Secret, and the operator sees that
		Eventually(ctx, func(g Gomega) {
			g.Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: cluster.CertificateName(c.Name, cluster.RoleServer)}, &corev1.Secret{})).To(Succeed())
		}).Should(Succeed())
		awaitConditions(ctx, c, available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing), degraded(metav1.ConditionFalse, v1beta1.ReasonAsExpected))
		for pod, uid := range uidsOfPods(ctx, c) {
			if pod != cluster.PodName("prod-1") {
				Expect(uid).To(Equal(rolled[pod]), pod+" was restarted")
			}
		}
		kept.expectFound(ctx, c)
	})

	It("refuses somebody else's Secret, and starts once it is gone", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "prod-peer-ca"}, Data: map[string][]byte{"precious": []byte("yes")}}
		Expect(kube.Create(ctx, foreign)).To(Succeed())
		c := makeCluster(ns, managed)
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitRefusal(ctx, c, v1beta1.ReasonForeignObject, "Secret prod-peer-ca exists and has no owner")
		Consistently(ctx, func(g Gomega) { expectNoMembers(g, ctx, c) }).WithTimeout(3 * time.Second).Should(Succeed())
		Expect(kube.Delete(ctx, foreign)).To(Succeed())
		awaitHealthy(ctx, c)
	})
})

var _ = Describe("With certificates of a short life", Serial, func() {
	const overlap = 2 * time.Minute // the least that is allowed: the kubelet takes as long to bring a Secret into a pod

	It("a cluster outlives them without a restart, and a rotation ends with the old authorities forgotten", func(ctx SpecContext) {
		if !world.Full() {
			Skip("takes ten minutes")
		}
		scaleOperator(ctx, 0)
		DeferCleanup(func(ctx SpecContext) { scaleOperator(ctx, 1) })
		ns := newNamespace(ctx)
		startOperator(ctx, ns, "", "--certificate-lifetime=6m", "--authority-lifetime=2h", "--authority-overlap="+overlap.String())
		c := create(ctx, makeCluster(ns, managed))
		kept := bury(ctx, c)
		before := uidsOf(podsOf(ctx, c))
		first, err := servedCertificate(ctx, c, "prod-1")
		Expect(err).NotTo(HaveOccurred())
		writing := writeOn(ctx, c)
		Eventually(ctx, func(g Gomega) {
			served, err := servedCertificate(ctx, c, "prod-1")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(served.SerialNumber).NotTo(Equal(first.SerialNumber))
			g.Expect(time.Now()).To(BeTemporally(">", first.NotAfter))
		}).WithTimeout(5 * world.Patience).Should(Succeed())
		awaitHealthy(ctx, c)
		Expect(uidsOf(podsOf(ctx, c))).To(Equal(before), "a renewal restarted a member")

		old := secretOf(ctx, c, cluster.RoleClient)
		rotate(ctx, c, "to the end")
		awaitConditions(ctx, c, progressing(metav1.ConditionTrue, v1beta1.ReasonRotatingAuthorities))
		Eventually(ctx, func(g Gomega) {
			g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
			done := meta.FindStatusCondition(c.Status.Conditions, v1beta1.ConditionProgressing)
			g.Expect(done.Reason).To(Equal(v1beta1.ReasonUpToDate), done.Message)
		}).WithTimeout(10 * world.Patience).Should(Succeed())
		writing.end()
		awaitHealthy(ctx, c)
		kept.expectFound(ctx, c)
		Expect(string(secretOf(ctx, c, cluster.RoleClient).Data["ca.crt"])).NotTo(ContainSubstring(string(old.Data["ca.crt"])))
		got, ok := askAsClient(ctx, c, c.Status.ClientSecretName, "--endpoints=https://prod-client."+ns+".svc:2379", "get", "treasure", "--print-value-only")
		Expect(ok).To(BeTrue(), got)
		former := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "former"}, Data: map[string][]byte{
			"etcd-client.crt": old.Data["tls.crt"], "etcd-client.key": old.Data["tls.key"], "etcd-client-ca.crt": secretOf(ctx, c, cluster.RoleClient).Data["ca.crt"],
		}}
		Expect(kube.Create(ctx, former)).To(Succeed())
		got, ok = askAsClient(ctx, c, "former", "--endpoints=https://prod-client."+ns+".svc:2379", "get", "treasure")
		Expect(ok).To(BeFalse(), "a certificate of the old authority still opens the cluster: "+got)
	}, NodeTimeout(40*time.Minute))
})

// rotate asks for new authorities.
func rotate(ctx context.Context, c *v1beta1.EtcdCluster, wish string) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1beta1.RotateAuthoritiesAnnotation, wish)
	Expect(kube.Patch(ctx, c, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}

func secretOf(ctx context.Context, c *v1beta1.EtcdCluster, role cluster.Role) *corev1.Secret {
	GinkgoHelper()
	var secret corev1.Secret
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: cluster.CertificateName(c.Name, role)}, &secret)).To(Succeed())
	return &secret
}

// writing is a client that writes without a break.
type writing struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	writes int
	failed error
}

// longestRetry is how long a write may be tried again: many times what an election and the restart of a member take.
const longestRetry = time.Minute

// writeOn writes until it is ended, through whichever member takes the write.
func writeOn(ctx context.Context, c *v1beta1.EtcdCluster) *writing {
	GinkgoHelper()
	c = c.DeepCopy()
	bounded, stop := context.WithCancel(ctx)
	w := &writing{stop: stop}
	w.done.Go(func() {
		for bounded.Err() == nil && w.failed == nil {
			w.failed = w.write(bounded, c)
		}
	})
	return w
}

func (w *writing) write(ctx context.Context, c *v1beta1.EtcdCluster) error {
	var err error
	for end := time.Now().Add(longestRetry); time.Now().Before(end); {
		for _, m := range c.Status.Members {
			if _, err = etcdctl(ctx, c, m.Name, "put", "written", fmt.Sprint(w.writes)); err == nil {
				w.writes++
				return nil
			}
			if ctx.Err() != nil {
				return nil
			}
		}
	}
	return fmt.Errorf("after %d writes: %w", w.writes, err)
}

// end fails where a write failed for good, or none was done.
func (w *writing) end() {
	GinkgoHelper()
	w.stop()
	w.done.Wait()
	Expect(w.failed).NotTo(HaveOccurred())
	Expect(w.writes).To(BeNumerically(">", 0))
}
