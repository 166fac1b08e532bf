package e2e

import (
	"context"
	"os/exec"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

var _ = Describe("A node that loses its power", Serial, func() {
	It("takes one member with it: the others serve, the status says why, an upgrade waits, and all is well when it is back", func(ctx SpecContext) {
		onLocalCluster()
		c := create(ctx, makeCluster(newNamespace(ctx), ofVersion(secondPatch("3.6"))))
		kept := bury(ctx, c)
		node := nodeAwayFromTheOperator(ctx, c)
		lost := memberOn(ctx, c, node)
		Eventually(ctx, func() []corev1.PodCondition { return podOf(ctx, c, lost).Status.Conditions }).Should(ContainElement(
			And(HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))), "only of a pod that was ready can its node be blamed")
		DeferCleanup(func(ctx SpecContext) { clusterScript(ctx, "node-start", number(node)) })
		clusterScript(ctx, "node-stop", number(node))

		var others []string
		for _, m := range c.Status.Members {
			if m.Name != lost {
				others = append(others, m.Name)
			}
		}
		write(ctx, c, others[0], "meanwhile", "served")
		awaitConditions(ctx, c, available(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk).saying("2 of 3 voters"),
			degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("2 of 3 members are ready", lost+" ("+v1beta1.ReasonNodeLost+")", "node "+node))
		expectEvent(ctx, c, v1beta1.ReasonMembersNotReady, lost)
		kept.expectFound(ctx, c, others...)

		running := uidsOfPods(ctx, c)
		toVersion(ctx, c, versionOf("3.6"))
		awaitConditions(ctx, c, wanted{kind: v1beta1.ConditionUpgradeBlocked, status: metav1.ConditionTrue, reason: v1beta1.ReasonMembersNotHealthy}.saying(lost))
		Expect(uidsOfPods(ctx, c)).To(Equal(running))
		clusterScript(ctx, "node-start", number(node))
		awaitVersion(ctx, c, versionOf("3.6"))
		kept.expectFound(ctx, c)
	})
})

// nodeAwayFromTheOperator is a member's node that the operator does not run on.
func nodeAwayFromTheOperator(ctx context.Context, c *v1beta1.EtcdCluster) string {
	GinkgoHelper()
	operator := operatorPod(ctx).Spec.NodeName
	for _, pod := range podsOf(ctx, c) {
		if pod.Spec.NodeName != operator {
			return pod.Spec.NodeName
		}
	}
	Fail("every member runs beside the operator")
	return ""
}

func memberOn(ctx context.Context, c *v1beta1.EtcdCluster, node string) string {
	GinkgoHelper()
	for _, pod := range podsOf(ctx, c) {
		if pod.Spec.NodeName == node {
			return strings.TrimSuffix(pod.Name, "-0")
		}
	}
	Fail("no member runs on " + node)
	return ""
}

func number(node string) string { return strings.TrimPrefix(node, "node-") }

// clusterScript breaks and mends the local cluster.
func clusterScript(ctx context.Context, args ...string) {
	GinkgoHelper()
	out, err := exec.CommandContext(ctx, "../../hack/cluster/cluster.sh", args...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}
