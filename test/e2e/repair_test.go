package e2e

import (
	"context"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var _ = Describe("A member that is lost, while clients write", func() {
	It("is replaced where its volume was deleted behind the operator's back, and the leader's as well", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		deleteVolumes(ctx, c, "prod-1")
		awaitMembers(ctx, c, "prod-0", "prod-2", "prod-3")
		expectEvent(ctx, c, v1beta1.EventMemberRemoved, "The volume of prod-1 is gone", "a new member takes its place")
		expectEvent(ctx, c, v1beta1.EventMemberAdded, "prod-3")
		leader := c.Status.Leader
		deleteVolumes(ctx, c, leader)
		awaitMembers(ctx, c, append(without([]string{"prod-0", "prod-2", "prod-3"}, leader), "prod-4")...)
		writers.end(ctx, c)
	})

	It("is replaced where two of five are lost: both are removed first", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), ofSize(5)))
		writers := appendOn(ctx, c)
		story := follow(ctx, c)
		deleteVolumes(ctx, c, "prod-1", "prod-3")
		awaitMembers(ctx, c, "prod-0", "prod-2", "prod-4", "prod-5", "prod-6")
		var steps []v1beta1.OperationType
		for _, op := range story.end() {
			steps = append(steps, op.Type)
		}
		Expect(steps).To(HaveExactElements(v1beta1.OperationReplaceMember, v1beta1.OperationReplaceMember, v1beta1.OperationAddMember, v1beta1.OperationAddMember))
		story.expectTold(ctx, c)
		writers.end(ctx, c)
	})

	It("never starts on a copy of its volume: it is refused, and replaced later", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), replacedByHand))
		writers := appendOn(ctx, c)
		earlier := volumeObject(ctx, c, "data-prod-1")
		deleteVolumes(ctx, c, "prod-1")
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("prod-1", v1beta1.ReplaceMemberAnnotation))
		Expect(kube.Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: earlier.Name, Labels: earlier.Labels, Annotations: earlier.Annotations},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: earlier.Spec.AccessModes, Resources: earlier.Spec.Resources, StorageClassName: earlier.Spec.StorageClassName,
			},
		})).To(Succeed())
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("prod-1", v1beta1.ReasonVolumeReplaced))
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
			s.Recovery.MemberReplacement = &v1beta1.MemberReplacement{After: "10s"}
		})
		awaitMembers(ctx, c, "prod-0", "prod-2", "prod-3")
		Expect(volumeObject(ctx, c, "data-prod-1").Annotations).To(HaveKeyWithValue(cluster.AnnotationMembership, cluster.MembershipRetired))
		writers.end(ctx, c)
	})

	It("is replaced where its user says so, a leader that answers too, and where the annotation names nobody nothing is", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		annotate(ctx, c, v1beta1.ReplaceMemberAnnotation+"=prod-9/1")
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonNoSuchMember).saying("prod-9/1", "prod-0/"))
		Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		leader, id := c.Status.Leader, ""
		for _, m := range c.Status.Members {
			if m.Name == leader {
				id = m.ID
			}
		}
		annotate(ctx, c, v1beta1.ReplaceMemberAnnotation+"="+leader+"/"+id)
		awaitMembers(ctx, c, append(without([]string{"prod-0", "prod-1", "prod-2"}, leader), "prod-3")...)
		Eventually(ctx, func(g Gomega) {
			g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
			g.Expect(c.Annotations).NotTo(HaveKey(v1beta1.ReplaceMemberAnnotation))
		}).Should(Succeed())
		writers.end(ctx, c)
	})
})

var _ = Describe("A member whose node is cut off for good", Serial, func() {
	It("is replaced after the time that the spec gives, and its node does no harm when it returns", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), func(c *v1beta1.EtcdCluster) {
			c.Spec.Recovery = &v1beta1.Recovery{MemberReplacement: &v1beta1.MemberReplacement{After: "10s"}}
			c.Spec.PodTemplate = &v1beta1.PodTemplate{MemberAntiAffinity: v1beta1.MemberAntiAffinityPreferred}
		}))
		writers := appendOn(ctx, c)
		node := nodeAwayFromTheOperator(ctx, c)
		lost := memberOn(ctx, c, node)
		DeferCleanup(func(ctx SpecContext) { clusterScript(ctx, "node-start", number(node)) })
		clusterScript(ctx, "node-stop", number(node))
		awaitMembers(ctx, c, append(without([]string{"prod-0", "prod-1", "prod-2"}, lost), "prod-3")...)
		expectEvent(ctx, c, v1beta1.EventMemberRemoved, "Node "+node+" is not ready since", lost)
		clusterScript(ctx, "node-start", number(node))
		Eventually(ctx, func(g Gomega) {
			g.Expect(exists(ctx, c.Namespace, cluster.PodName(lost), &corev1.Pod{})).To(BeFalse())
		}).WithTimeout(5 * time.Minute).Should(Succeed())
		awaitMembers(ctx, c, append(without([]string{"prod-0", "prod-1", "prod-2"}, lost), "prod-3")...)
		writers.end(ctx, c)
	})
})

func replacedByHand(c *v1beta1.EtcdCluster) {
	c.Spec.Recovery = &v1beta1.Recovery{MemberReplacement: &v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually}}
}

// deleteVolumes deletes the claims of members and the pods that use them.
func deleteVolumes(ctx context.Context, c *v1beta1.EtcdCluster, members ...string) {
	GinkgoHelper()
	for _, m := range members {
		Expect(kube.Delete(ctx, volumeObject(ctx, c, cluster.VolumeName(m)))).To(Succeed())
	}
	deletePods(ctx, c, members...)
}

// awaitMembers waits until exactly these members are there, and all is well.
func awaitMembers(ctx context.Context, c *v1beta1.EtcdCluster, names ...string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		var have []string
		for _, m := range c.Status.Members {
			have = append(have, m.Name)
			g.Expect(m.Ready).To(BeTrue(), m.Name+" "+m.Reason)
		}
		g.Expect(have).To(ConsistOf(names), strings.Join(have, " "))
	}).WithTimeout(5 * time.Minute).Should(Succeed())
	awaitHealthy(ctx, c)
}

// without returns the names but one.
func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}
