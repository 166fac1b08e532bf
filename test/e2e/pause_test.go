package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var _ = Describe("A pause in the middle, while clients write", func() {
	It("of growth and of shrinking begins nothing new, and both end right afterwards", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), ofSize(1)))
		writers := appendOn(ctx, c)
		for _, step := range []struct {
			operation v1beta1.OperationType
			size      int
		}{{v1beta1.OperationAddMember, 3}, {v1beta1.OperationRemoveMember, 1}} {
			scale(ctx, c, step.size)
			awaitOperation(ctx, c, step.operation)
			expectStill(ctx, c)
			resume(ctx, c)
			awaitSize(ctx, c, step.size)
		}
		writers.end(ctx, c)
	})

	It("of a roll leaves the member that restarts, and no other one restarts", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)
		before := uidsOfPods(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.PodTemplate = labelled("team", "a") })
		awaitOperation(ctx, c, v1beta1.OperationRollMember)
		expectStill(ctx, c)
		resume(ctx, c)
		awaitReplaced(ctx, c, before)
		writers.end(ctx, c)
	})

	It("of a roll back ends with the member back", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		edit(ctx, c, func(*v1beta1.EtcdClusterSpec) { withMemory(tooLittleMemory)(c) })
		awaitOperation(ctx, c, v1beta1.OperationRollBack)
		expectStill(ctx, c)
		resume(ctx, c)
		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonRolledBack), available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing))
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Resources.Limits = nil })
		awaitHealthy(ctx, c)
		writers.end(ctx, c)
	})
})

// expectStill pauses the cluster and checks for a while that no operation begins or ends, and that etcd's list, the
// volumes, and what the StatefulSets ask for stay as they are.
func expectStill(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Paused = true })
	awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonPaused))
	seen := func() map[string]any {
		now := map[string]any{"volumes": volumesOf(ctx, c)} // not the pods: one that is deleted comes back
		var sets appsv1.StatefulSetList
		Expect(kube.List(ctx, &sets, client.InNamespace(c.Namespace))).To(Succeed())
		for _, set := range sets.Items {
			now[set.Name] = set.Annotations[cluster.AnnotationIntentHash]
		}
		Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		op := cmp.Or(c.Status.Operation, &v1beta1.Operation{})
		now["operation"] = fmt.Sprint(op.Type, op.Member, op.StartedAt)
		i := slices.IndexFunc(c.Status.Members, func(m v1beta1.MemberStatus) bool { return m.Ready && m.Name != op.Member })
		Expect(i).To(BeNumerically(">=", 0), "no other member is ready")
		id, err := identityOf(ctx, c, c.Status.Members[i].Name)
		Expect(err).NotTo(HaveOccurred())
		now["members"] = slices.Sorted(maps.Values(id.Members))
		return now
	}
	before := seen()
	Consistently(ctx, seen).WithTimeout(5 * time.Second).Should(Equal(before))
}

func resume(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Paused = false })
}
