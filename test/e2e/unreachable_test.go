package e2e

import (
	"context"
	"os/exec"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/test/world"
)

var _ = Describe("A cluster whose pods cannot be created", SpecPriority(5), func() {
	It("tells the quota that is too small", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		Expect(kube.Create(ctx, &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "small"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceRequestsCPU: resource.MustParse("1m")}},
		})).To(Succeed())
		c := makeCluster(ns, func(c *v1beta1.EtcdCluster) {
			c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")}
		})
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("prod-0", "exceeded quota: small"))
		Expect(kube.Delete(ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "small"}})).To(Succeed())
		awaitHealthy(ctx, c)
	})

	It("tells the PriorityClass that does not exist", func(ctx SpecContext) {
		c := makeCluster(newNamespace(ctx), ofSize(1), func(c *v1beta1.EtcdCluster) {
			c.Spec.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{PriorityClassName: "does-not-exist"}}
		})
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).
			saying("prod-0", "no PriorityClass with name does-not-exist was found"))
	})
})

var _ = Describe("An operator that cannot reach the members", Serial, func() {
	It("takes the kubelet's word that they started, and tells why it cannot ask them", func(ctx SpecContext) {
		onLocalCluster()
		mend := cutOperatorOff(ctx)
		c := makeCluster(newNamespace(ctx))
		Expect(kube.Create(ctx, c)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			pods := podsOf(ctx, c)
			g.Expect(pods).To(HaveLen(3))
			for _, pod := range pods {
				g.Expect(pod.Annotations).To(HaveKeyWithValue(cluster.AnnotationInitialClusterState, "existing"), pod.Name)
			}
		}).Should(Succeed())
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, "").saying("on port 2379: the connection timed out"),
			available(metav1.ConditionUnknown, v1beta1.ReasonUnobservable), quorumLost(metav1.ConditionUnknown, v1beta1.ReasonUnobservable))
		mend()
		awaitHealthy(ctx, c)
		bury(ctx, c).expectFound(ctx, c)
	})
})

// cutOperatorOff drops the operator's packets to the members' client port until mend is called, or the spec ends.
func cutOperatorOff(ctx context.Context) (mend func()) {
	GinkgoHelper()
	return drop(ctx, operatorPod(ctx), "OUTPUT", "-p", "tcp", "--dport", "2379")
}

// drop drops packets of a pod until mend is called, or the spec ends.
func drop(ctx context.Context, pod *corev1.Pod, rule ...string) (mend func()) {
	GinkgoHelper()
	id := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
	out, err := exec.CommandContext(ctx, "ctr", "--address", world.LocalState+"/"+pod.Spec.NodeName+"/containerd.sock",
		"--namespace", "k8s.io", "task", "ls").CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	pid := ""
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == id {
			pid = fields[1]
		}
	}
	Expect(pid).NotTo(BeEmpty(), string(out))
	change := func(ctx context.Context, change string) {
		GinkgoHelper()
		args := append(append([]string{"--target", pid, "--net", "iptables", "-w", change}, rule...), "-j", "DROP")
		out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
	}
	change(ctx, "-A")
	mended := false
	mend = func() {
		if !mended {
			change(context.WithoutCancel(ctx), "-D")
			mended = true
		}
	}
	DeferCleanup(mend)
	return mend
}
