package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// These cordon nodes that all other specs need, and evict the operator with everything else.
var _ = Describe("Every node drained, back to back, while clients write", Serial, func() {
	It("costs neither the quorum nor a write", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)
		story := follow(ctx, c)
		drainEveryNode(ctx)
		awaitHealthy(ctx, c)
		story.expectQuorumOfPods(2)
		expectEachReplaced(story, 1)
		writers.end(ctx, c)
	})

	It("costs neither in the middle of the operator's own roll, to another version of etcd and another pod template", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), managed, ofVersion(versionOf("3.6"))))
		writers := appendOn(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)
		story := follow(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Version, s.PodTemplate = versionOf("3.7"), labelled("team", "a") })
		awaitOperation(ctx, c, v1beta1.OperationRollMember)
		drainEveryNode(ctx)
		awaitVersion(ctx, c, versionOf("3.7"))
		story.expectQuorumOfPods(2)
		for _, pod := range podsOf(ctx, c) {
			Expect(pod.Labels).To(HaveKeyWithValue("team", "a"))
		}
		writers.end(ctx, c)
	})

	It("costs neither while the cluster cannot grow, because no node has room for the new member", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
			s.Replicas = 5
			s.Resources.Requests = tooMuch
		})
		Eventually(ctx, func(g Gomega) {
			g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
			g.Expect(c.Status.Operation).To(HaveValue(SatisfyAll(HaveField("Type", v1beta1.OperationAddMember), HaveField("Member", "prod-3"),
				HaveField("WaitingFor", ContainSubstring(v1beta1.ReasonUnschedulable)))))
		}).Should(Succeed())
		story := follow(ctx, c)
		drainEveryNode(ctx)
		awaitDisruptionsAllowed(ctx, c, 1)
		story.expectQuorumOfPods(2)
		Expect(story.replaced).To(HaveLen(3))

		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Resources.Requests = nil })
		awaitSize(ctx, c, 5)
		writers.end(ctx, c)
	})
})

var _ = Describe("A leader whose pod is deleted from outside", func() {
	for _, minor := range []string{"3.5", "3.6", "3.7"} {
		It("hands over before it stops, with etcd "+minor, func(ctx SpecContext) {
			c := create(ctx, makeCluster(newNamespace(ctx), ofVersion(versionOf(minor))))
			writers := appendOn(ctx, c)
			leader := c.Status.Leader
			before := podOf(ctx, c, leader)
			out, err := lab.Kubectl(ctx, "-n", c.Namespace, "delete", "pod", before.Name)
			Expect(err).NotTo(HaveOccurred(), out)
			awaitSuccessor(ctx, before)
			awaitHealthy(ctx, c)
			Eventually(ctx, func(g Gomega) {
				g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
				g.Expect(c.Status.Leader).NotTo(Equal(leader))
			}).Should(Succeed())
			expectHandedOver(ctx, c, writers.kept.Members[leader])
			writers.end(ctx, c)
		})
	}
})

func labelled(key, value string) *v1beta1.PodTemplate {
	return &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{key: value}}}
}

// drainEveryNode drains the nodes as an administrator does who updates them. The next drain does not wait for anything
// but what kubectl itself waits for.
func drainEveryNode(ctx context.Context) {
	GinkgoHelper()
	onLocalCluster()
	var nodes corev1.NodeList
	Expect(kube.List(ctx, &nodes)).To(Succeed())
	for _, node := range nodes.Items {
		DeferCleanup(kubectl, "uncordon", node.Name)
	}
	for _, node := range nodes.Items {
		kubectl(ctx, "drain", node.Name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=180s")
		kubectl(ctx, "uncordon", node.Name)
	}
}

func kubectl(ctx context.Context, args ...string) {
	GinkgoHelper()
	out, err := lab.Kubectl(ctx, args...)
	Expect(err).NotTo(HaveOccurred(), out)
}

// expectHandedOver checks in etcd's own logs that the member which leads now was told by the former leader to take
// over at once. After a leader that was killed, it would start an election once its timeout has passed.
func expectHandedOver(ctx context.Context, c *v1beta1.EtcdCluster, from uint64) {
	GinkgoHelper()
	log, err := clientset.CoreV1().Pods(c.Namespace).GetLogs(cluster.PodName(c.Status.Leader), &corev1.PodLogOptions{}).DoRaw(ctx)
	Expect(err).NotTo(HaveOccurred())
	lines := slices.Collect(strings.Lines(string(log)))
	elected := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, "became leader at term") })
	Expect(elected).To(BeNumerically(">", 0), string(log))
	Expect(strings.Join(lines[:elected], "")).To(ContainSubstring(fmt.Sprintf("received MsgTimeoutNow from %x and starts an election to get leadership", from)))
}
