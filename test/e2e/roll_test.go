package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var _ = Describe("A cluster whose members are restarted while clients write", func() {
	It("takes changed options and labels member by member, the leader last, and restarts once for a value of the annotation", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), ofVersion(versionOf("3.7")), withMemory("1Gi")))
		writers := appendOn(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)

		story := follow(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
			s.Config = &v1beta1.Config{ExtraArgs: map[string]string{"max-txn-ops": "256"}}
			s.PodTemplate = labelled("team", "a")
		})
		awaitHealthy(ctx, c)
		story.end()
		expectEachReplaced(story, 1)
		story.expectTold(ctx, c, writers)
		story.expectQuorumOfPods(2)
		Expect(story.progress("2 of 3 members have been restarted")).NotTo(BeEmpty())
		expectLeaderLast(eventsOf(ctx, c))
		for _, pod := range podsOf(ctx, c) {
			Expect(pod.Labels).To(HaveKeyWithValue("team", "a"))
			Expect(pod.Spec.Containers[0].Args).To(ContainElement("--max-txn-ops=256"))
		}

		story, before := follow(ctx, c), uidsOfPods(ctx, c)
		annotate(ctx, c, v1beta1.RestartAnnotation+"=monday")
		awaitReplaced(ctx, c, before)
		annotate(ctx, c, v1beta1.RestartAnnotation+"=monday", "note=another")
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { // the same, in other words
			s.Config.ExtraArgs["max-txn-ops"] = "0x100"
			s.Resources.Limits[corev1.ResourceMemory] = resource.MustParse("1073741824")
			s.Image = v1beta1.Image{Repository: "gcr.io/etcd-development/etcd", PullPolicy: v1beta1.PullIfNotPresent}
			s.UpdateStrategy = &v1beta1.UpdateStrategy{ProgressDeadlineSeconds: 600}
		})
		annotate(ctx, c, v1beta1.RestartAnnotation+"-")
		awaitHealthy(ctx, c)
		settled := uidsOfPods(ctx, c)
		Consistently(ctx, func() map[string]string { return uidsOfPods(ctx, c) }).WithTimeout(3 * time.Second).Should(Equal(settled))
		story.end()
		expectEachReplaced(story, 1)
		story.expectQuorumOfPods(2)
		writers.end(ctx, c)
	})

	It("takes a member back that does not come back, once, leaves the others, and rolls on when the spec is corrected", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)
		before := uidsOfPods(ctx, c)

		story := follow(ctx, c)
		edit(ctx, c, func(*v1beta1.EtcdClusterSpec) { withMemory(tooLittleMemory)(c) })
		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonRolledBack).saying("used more memory than its limit", "Correct the spec"),
			available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing))
		operations := story.end()
		Expect(operations).To(HaveExactElements(HaveField("Type", v1beta1.OperationRollMember), HaveField("Type", v1beta1.OperationRollBack)))
		failed := operations[0].Member
		Expect(operations[1].Member).To(Equal(failed))
		story.expectTold(ctx, c, writers)
		expectEvent(ctx, c, v1beta1.EventMemberRolledBack, failed, "used more memory than its limit")
		awaitReady(ctx, c, failed)
		restored := uidsOfPods(ctx, c)
		for pod, uid := range restored {
			Expect(uid == before[pod]).To(Equal(pod != cluster.PodName(failed)), pod)
		}
		Consistently(ctx, func() map[string]string { return uidsOfPods(ctx, c) }).WithTimeout(3*time.Second).Should(Equal(restored), "what failed was tried again")

		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
			s.Resources.Limits, s.PodTemplate = nil, labelled("team", "a")
		})
		awaitHealthy(ctx, c)
		for _, pod := range podsOf(ctx, c) {
			Expect(pod.Labels).To(HaveKeyWithValue("team", "a"))
		}
		writers.end(ctx, c)
	})

	It("cures a member that is killed for want of memory before it grows, where one edit asks for both", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		story := follow(ctx, c)
		edit(ctx, c, func(*v1beta1.EtcdClusterSpec) { withMemory(tooLittleMemory)(c) })
		failed := awaitCrashLooping(ctx, c)
		awaitConditions(ctx, c, available(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk), degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady))
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { withMemory("512Mi")(c); s.Replicas = 5 })
		awaitSize(ctx, c, 5)
		operations := story.end()
		added := slices.IndexFunc(operations, func(op v1beta1.Operation) bool { return op.Type == v1beta1.OperationAddMember })
		Expect(added).To(BeNumerically(">", 0))
		for _, op := range operations[:added] {
			Expect(op.Member).To(Equal(failed), "another member was restarted before the failed one was cured")
		}
		Expect(operations[1]).To(SatisfyAll(HaveField("Type", v1beta1.OperationRollMember), HaveField("Member", failed)), "it was not cured first")
		story.expectTold(ctx, c, writers)
		for _, pod := range podsOf(ctx, c) {
			Expect(pod.Spec.Containers[0].Resources.Limits.Memory().String()).To(Equal("512Mi"), pod.Name)
		}
		writers.end(ctx, c)
	})
})

// tooLittleMemory is what etcd is killed with before it ever answers.
const tooLittleMemory = "8Mi"

// withMemory limits the memory of each member's container.
func withMemory(size string) option {
	return func(c *v1beta1.EtcdCluster) {
		c.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(size)}
	}
}

// awaitCrashLooping waits until a member's container crashes again and again, and returns the member's name.
func awaitCrashLooping(ctx context.Context, c *v1beta1.EtcdCluster) (name string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		crashes := func(m v1beta1.MemberStatus) bool { return m.Reason == v1beta1.ReasonCrashLooping }
		i := slices.IndexFunc(c.Status.Members, crashes)
		g.Expect(i).To(BeNumerically(">=", 0), "no member crashes")
		name = c.Status.Members[i].Name
	}).Should(Succeed())
	return name
}

func annotate(ctx context.Context, c *v1beta1.EtcdCluster, annotations ...string) {
	GinkgoHelper()
	out, err := lab.Kubectl(ctx, append([]string{"-n", c.Namespace, "annotate", "--overwrite", "etcd/" + c.Name}, annotations...)...)
	Expect(err).NotTo(HaveOccurred(), out)
}

// expectEachReplaced checks that each member's pod was made anew so many times.
func expectEachReplaced(s *story, times int) {
	GinkgoHelper()
	Expect(s.pods).To(HaveLen(3))
	for pod := range s.pods {
		Expect(s.replaced[pod]).To(Equal(times), pod)
	}
}

// awaitReplaced waits until each pod is another one than those of now, and the cluster is at rest.
func awaitReplaced(ctx context.Context, c *v1beta1.EtcdCluster, before map[string]string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		now := uidsOfPods(ctx, c)
		for pod, uid := range before {
			g.Expect(now).To(HaveKeyWithValue(pod, Not(Equal(uid))))
		}
	}).Should(Succeed())
	awaitHealthy(ctx, c)
}

// expectLeaderLast checks that the last member to restart led before, and handed over right before its restart.
func expectLeaderLast(events []eventsv1.Event) {
	GinkgoHelper()
	var restarted, told []string
	for _, e := range events {
		switch e.Reason {
		case v1beta1.EventMemberRolled:
			restarted = append(restarted, strings.Fields(e.Note)[1]) // Restarting prod-1 ...
			told = append(told, e.Reason)
		case v1beta1.EventLeaderMoved:
			told = append(told, e.Reason)
			Expect(e.Note).To(ContainSubstring("before prod-"))
		}
	}
	Expect(told).To(Equal([]string{v1beta1.EventMemberRolled, v1beta1.EventMemberRolled, v1beta1.EventLeaderMoved, v1beta1.EventMemberRolled}))
	moved := slices.IndexFunc(events, func(e eventsv1.Event) bool { return e.Reason == v1beta1.EventLeaderMoved })
	Expect(events[moved].Note).To(HavePrefix(fmt.Sprintf("Moving the leader from %s to ", restarted[2])))
}

// awaitReady waits until a member's pod is ready.
func awaitReady(ctx context.Context, c *v1beta1.EtcdCluster, member string) {
	GinkgoHelper()
	Eventually(ctx, func() bool { return isUp(podOf(ctx, c, member)) }).Should(BeTrue())
}
