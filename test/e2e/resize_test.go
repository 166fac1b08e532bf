package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var _ = Describe("A cluster that is resized while clients write", func() {
	It("goes from 1 to 3, 5, 3 and 1 by kubectl scale, with TLS, and keeps the volumes", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), managed, ofSize(1)))
		writers := appendOn(ctx, c)
		story := follow(ctx, c)
		for _, step := range []struct{ size, volumes int }{{3, 3}, {5, 5}, {3, 5}, {1, 5}} {
			scale(ctx, c, step.size)
			awaitSize(ctx, c, step.size)
			Expect(volumeObjects(ctx, c)).To(HaveLen(step.volumes), "a volume is missing, or a member too many was made")
		}
		writers.end(ctx, c)
		for name, v := range volumeObjects(ctx, c) {
			retired := v.Annotations[cluster.AnnotationMembership] == cluster.MembershipRetired
			Expect(retired).To(Equal(name != cluster.VolumeName(c.Status.Members[0].Name)), name)
		}
		story.expectTold(ctx, c, writers)
		// The next step may replace it in the condition before anybody has seen it there.
		Expect(notes(eventsOf(ctx, c), v1beta1.EventMemberAdded)).To(ContainElement(ContainSubstring("Adding prod-4: 4 voters of 5.")))
	})

	It("deletes the volumes of removed members where the spec says so, and uses no name again", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), ofSize(1), func(c *v1beta1.EtcdCluster) {
			c.Spec.Storage.RetentionPolicy = &v1beta1.RetentionPolicy{WhenScaled: v1beta1.RetentionDelete}
		}))
		writers := appendOn(ctx, c)
		for _, size := range []int{3, 1, 3} {
			scale(ctx, c, size)
			awaitSize(ctx, c, size)
			Eventually(ctx, func() int { return len(volumeObjects(ctx, c)) }).Should(Equal(size))
		}
		writers.end(ctx, c)
		numbers := map[string]bool{}
		for _, m := range c.Status.Members {
			numbers[m.Name] = true
		}
		Expect(numbers).To(SatisfyAll(HaveKey("prod-3"), HaveKey("prod-4")), "a name was used again, or skipped")
	})

	It("ends right when its size is changed in the middle", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		scale(ctx, c, 5)
		awaitOperation(ctx, c, v1beta1.OperationAddMember)
		Eventually(ctx, func() bool { return exists(ctx, c.Namespace, "prod-3", &appsv1.StatefulSet{}) }).Should(BeTrue(), "no learner was started")
		scale(ctx, c, 1)
		awaitSize(ctx, c, 1)
		writers.end(ctx, c)
		Expect(exists(ctx, c.Namespace, "data-prod-4", &corev1.PersistentVolumeClaim{})).To(BeFalse(), "it grew on to five")
	})

	It("ends right when its spec changes ten times a second", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), ofSize(1)))
		writers := appendOn(ctx, c)
		sizes := []int32{3, 1, 5, 3, 1, 7}
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := range 50 {
			<-tick.C
			edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
				s.Replicas = sizes[i%len(sizes)]
				s.PodTemplate = labelled("edit", fmt.Sprint(i))
			})
		}
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 3 })
		awaitSize(ctx, c, 3)
		writers.end(ctx, c)
		for _, pod := range podsOf(ctx, c) {
			Expect(pod.Labels).To(HaveKeyWithValue("edit", "49"), pod.Name)
		}
	})

	It("tells what a stuck step waits for, and that its deadline has passed, and goes on once the spec is corrected", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), ofSize(1), func(c *v1beta1.EtcdCluster) {
			c.Spec.UpdateStrategy = &v1beta1.UpdateStrategy{ProgressDeadlineSeconds: 60}
		}))
		writers := appendOn(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
			s.Replicas = 3
			s.Resources.Requests = tooMuch
		})
		awaitConditions(ctx, c, progressing(metav1.ConditionTrue, v1beta1.ReasonScaling).saying("prod-1", v1beta1.ReasonUnschedulable, "Insufficient cpu"))
		Expect(c.Status.Operation).To(HaveValue(SatisfyAll(HaveField("Member", "prod-1"), HaveField("Reason", v1beta1.ReasonScaling),
			HaveField("WaitingFor", ContainSubstring("Insufficient cpu")))))
		out, err := lab.Kubectl(ctx, "-n", c.Namespace, "get", "etcd", c.Name, "-o", "wide")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(out).To(MatchRegexp(`prod +[0-9.]+ +[0-9.]+ +1/3 +True +Scaling +AddMember +prod-1 `))

		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonDeadlineExceeded).saying("prod-1", "Insufficient cpu", "set spec.replicas lower"))
		expectEvent(ctx, c, v1beta1.EventOperationAbandoned, "AddMember of prod-1", "1m0s")
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Resources.Requests = nil })
		awaitSize(ctx, c, 3)
		writers.end(ctx, c)
	})
})

// tooMuch is more than any node has.
var tooMuch = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1000")}

// scale changes the size as users do.
func scale(ctx context.Context, c *v1beta1.EtcdCluster, size int) {
	GinkgoHelper()
	out, err := lab.Kubectl(ctx, "-n", c.Namespace, "scale", "etcd/"+c.Name, fmt.Sprintf("--replicas=%d", size))
	Expect(err).NotTo(HaveOccurred(), out)
}

// awaitSize waits until the cluster is as its spec says, with so many voters in etcd's own list, and as many of
// everything that a member has.
func awaitSize(ctx context.Context, c *v1beta1.EtcdCluster, size int) {
	GinkgoHelper()
	awaitHealthy(ctx, c)
	Expect(c.Spec.Replicas).To(Equal(int32(size)))
	Expect(c.Status.Members).To(HaveLen(size))
	Expect(c.Status.Ready).To(Equal(fmt.Sprintf("%d/%d", size, size)))
	out, err := etcdctl(ctx, c, c.Status.Members[0].Name, "member", "list")
	Expect(err).NotTo(HaveOccurred())
	Expect(strings.Count(out, "started")).To(Equal(size), out)
	Expect(strings.Count(out, "false")).To(Equal(size), "a learner is left: "+out)
	// The pod of a removed member stays for a moment after it has ended.
	Eventually(ctx, func() int { return len(podsOf(ctx, c)) }).Should(Equal(size))
	var sets appsv1.StatefulSetList
	Expect(kube.List(ctx, &sets, client.InNamespace(c.Namespace))).To(Succeed())
	Expect(sets.Items).To(HaveLen(size))
	if size > 1 {
		expectBudget(ctx, c, size/2+1)
	}
}
