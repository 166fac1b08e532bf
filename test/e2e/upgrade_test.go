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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/test/world"
)

var _ = Describe("The version of etcd in a running cluster", SpecPriority(10), func() {
	It("goes up and down by minor versions, member by member, the leader last, while clients write", func(ctx SpecContext) {
		c, writers := createAndWrite(ctx, managed, ofVersion(versionOf("3.5")))
		steps := []string{versionOf("3.6"), versionOf("3.7"), versionOf("3.6"), versionOf("3.5")}
		if world.Full() {
			steps = []string{secondPatch("3.6"), versionOf("3.6"), secondPatch("3.7"), versionOf("3.6"), versionOf("3.7"), versionOf("3.6"), versionOf("3.5")}
		}
		for i, version := range steps {
			By("version " + version)
			story := follow(ctx, c)
			toVersion(ctx, c, version)
			awaitVersion(ctx, c, version)
			if operations := story.end(); i == 0 && !world.Full() { // a patch comes first in the whole matrix
				Expect(operations[0].Type).To(Equal(v1beta1.OperationCheckConsistency), "the data were not compared before")
			}
			expectEachReplaced(story, 1)
			story.expectTold(ctx, c, writers)
			story.expectQuorumOfPods(2)
			Expect(story.progress("2 of 3 members have been restarted")).NotTo(BeEmpty())
			awaitNoImageCheck(ctx, c)
		}
		writers.end(ctx, c)
	})

	for fault, f := range map[string]struct {
		change func(*v1beta1.EtcdClusterSpec) // the settings are read later than this table
		says   string
	}{
		"of another version does not exist":  {func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.6.97" }, "cannot be pulled"},
		"has another version of it":          {func(s *v1beta1.EtcdClusterSpec) { s.Version = settings["MISLABELLED_ETCD_VERSION"] }, "and spec.version is"},
		"is another one and does not exist":  {func(s *v1beta1.EtcdClusterSpec) { s.Image.Repository = "localhost/no/such/image" }, "localhost/no/such/image"},
		"is another one, of another version": {func(s *v1beta1.EtcdClusterSpec) { s.Image.Tag = "v" + versionOf("3.7") }, "and spec.version is"},
	} {
		It("does not change where the image "+fault+", and no member is touched", func(ctx SpecContext) {
			from := versionOf("3.6")
			c, writers := createAndWrite(ctx, ofVersion(from))
			before := uidsOfPods(ctx, c)
			edit(ctx, c, f.change)
			awaitConditions(ctx, c, wanted{kind: v1beta1.ConditionUpgradeBlocked, status: metav1.ConditionTrue, reason: v1beta1.ReasonImageNotUsable}.saying(f.says),
				available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing))
			Expect(uidsOfPods(ctx, c)).To(Equal(before))
			Expect(c.Status.Version).To(Equal(from))
			edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Version, s.Image = from, v1beta1.Image{} })
			awaitVersion(ctx, c, from)
			awaitNoImageCheck(ctx, c)
			Expect(uidsOfPods(ctx, c)).To(Equal(before))
			writers.end(ctx, c)
		})
	}

	It("adds no member with an image that has another version, and adds it once the image is right", func(ctx SpecContext) {
		from := versionOf("3.6")
		c := create(ctx, makeCluster(newNamespace(ctx), ofSize(1), ofVersion(from)))
		writers := appendOn(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Replicas, s.Image.Tag = 3, "v"+versionOf("3.7") })
		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonImageNotUsable), available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing))
		Expect(exists(ctx, c.Namespace, "data-prod-1", &corev1.PersistentVolumeClaim{})).To(BeFalse(), "a member was made")
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Image.Tag = "" })
		awaitSize(ctx, c, 3)
		writers.end(ctx, c)
	})

	It("takes the first member back where the new etcd crashes at its start, leaves the others, and goes on to an image that works", func(ctx SpecContext) {
		from := versionOf("3.6")
		c, writers := createAndWrite(ctx, ofVersion(from))
		for _, m := range c.Status.Members {
			failAfter(ctx, c, m.Name, 0)
		}
		before := uidsOfPods(ctx, c)
		toFailingImage(ctx, c)
		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonRolledBack),
			wanted{kind: v1beta1.ConditionUpgradeBlocked, status: metav1.ConditionTrue, reason: v1beta1.ReasonRolledBack},
			available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing))
		touched := 0
		for pod, uid := range uidsOfPods(ctx, c) {
			if uid != before[pod] {
				touched++
			}
		}
		Expect(touched).To(Equal(1))
		Expect(c.Status.Version).To(Equal(from))
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Image = v1beta1.Image{} })
		awaitVersion(ctx, c, versionOf("3.7"))
		writers.end(ctx, c)
	})

	It("takes the last old member back where the new etcd fails at once: the cluster still works as the old version", func(ctx SpecContext) {
		from, to := versionOf("3.6"), versionOf("3.7")
		c, writers := createAndWrite(ctx, ofVersion(from))
		last := failLast(ctx, c, 0)
		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonRolledBack).saying(last),
			wanted{kind: v1beta1.ConditionUpgradeBlocked, status: metav1.ConditionTrue, reason: v1beta1.ReasonRolledBack},
			available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing))
		for _, m := range c.Status.Members {
			Expect(m.Version == from).To(Equal(m.Name == last), m.Name+" runs "+m.Version)
		}
		Expect(runningVersion(ctx, c, to)).To(Equal(2))
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Image = v1beta1.Image{} })
		awaitVersion(ctx, c, to)
		writers.end(ctx, c)
	})

	It("starts no older etcd where the last old member fails after it has answered, and goes on once it is mended", func(ctx SpecContext) {
		from, to := versionOf("3.6"), versionOf("3.7")
		c, writers := createAndWrite(ctx, ofVersion(from))
		story := follow(ctx, c)
		last := failLast(ctx, c, 10)
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying(last, "this etcd fails 10 seconds after its start"),
			available(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk))
		expectEvent(ctx, c, v1beta1.EventMemberRolledBack, last, "The cluster works as etcd 3.7 by now")
		failAfter(ctx, c, last, never)
		awaitVersion(ctx, c, to)
		story.end()
		Expect(story.images[cluster.PodName(last)]).To(HaveExactElements(HaveSuffix("v"+from), HaveSuffix(settings["FAILING_ETCD_TAG"])), "an older etcd was started")
		writers.end(ctx, c)
	})

	It("cancels a downgrade in the middle of which a voter is lost, and ends it once the voter is back", func(ctx SpecContext) {
		c, writers := createAndWrite(ctx, ofVersion(versionOf("3.7")), failingImage)
		lost := lastToRestart(ctx, c)
		failAfter(ctx, c, lost, 0)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Version, s.Image = versionOf("3.6"), v1beta1.Image{} })
		Eventually(ctx, func() int { return runningVersion(ctx, c, versionOf("3.6")) }).Should(BeNumerically(">=", 1))
		killContainers(ctx, c, lost)
		expectEvent(ctx, c, v1beta1.ReasonCancellingDowngrade, lost)
		failAfter(ctx, c, lost, never)
		awaitVersion(ctx, c, versionOf("3.6"))
		writers.end(ctx, c)
	})

	It("changes together with the size and the pod template, in one edit", func(ctx SpecContext) {
		c, writers := createAndWrite(ctx, ofVersion(secondPatch("3.7")))
		story := follow(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
			s.Version, s.Replicas, s.PodTemplate = versionOf("3.7"), 5, labelled("team", "a")
		})
		awaitSize(ctx, c, 5)
		awaitVersion(ctx, c, versionOf("3.7"))
		operations := story.end()
		rolls := slices.IndexFunc(operations, func(op v1beta1.Operation) bool { return op.Type == v1beta1.OperationRollMember })
		Expect(operations[rolls:]).To(HaveEach(HaveField("Type", v1beta1.OperationRollMember)), "it grew after the first restart")
		story.expectTold(ctx, c, writers)
		story.expectQuorumOfPods(2)
		for _, pod := range podsOf(ctx, c) {
			Expect(pod.Labels).To(HaveKeyWithValue("team", "a"))
			Expect(story.replaced[pod.Name]).To(BeNumerically("<=", 2), pod.Name) // once for each of both
		}
		writers.end(ctx, c)
	})

	for rolled, count := range map[string]int{"one member has": 1, "two members have": 2, "all members have": 3} {
		It("goes back where the old version is set again after "+rolled+" been rolled", func(ctx SpecContext) {
			if count != 2 && !world.Full() {
				Skip("one number is enough but for the whole matrix")
			}
			from, to := versionOf("3.6"), versionOf("3.7")
			c, writers := createAndWrite(ctx, ofVersion(from))
			toVersion(ctx, c, to)
			Eventually(ctx, func() int { return runningVersion(ctx, c, to) }).WithTimeout(upgradeTime).Should(BeNumerically(">=", count))
			toVersion(ctx, c, from)
			awaitVersion(ctx, c, from)
			writers.end(ctx, c)
		})
	}

	It("goes up and down in a cluster of one member", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), ofSize(1), ofVersion(versionOf("3.5"))))
		writers := appendOn(ctx, c)
		for _, version := range []string{versionOf("3.6"), secondPatch("3.7"), versionOf("3.6")} {
			toVersion(ctx, c, version)
			awaitVersion(ctx, c, version)
		}
		writers.end(ctx, c)
	})
})

// createAndWrite creates a cluster to which clients write, and waits until one of its pods may be evicted.
func createAndWrite(ctx context.Context, options ...option) (*v1beta1.EtcdCluster, *appending) {
	GinkgoHelper()
	c := create(ctx, makeCluster(newNamespace(ctx), options...))
	writers := appendOn(ctx, c)
	awaitDisruptionsAllowed(ctx, c, 1)
	return c, writers
}

func toVersion(ctx context.Context, c *v1beta1.EtcdCluster, version string) {
	GinkgoHelper()
	edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Version = version })
}

// failingImage has the cluster's etcd fail where failAfter says so.
func failingImage(c *v1beta1.EtcdCluster) { c.Spec.Image.Tag = settings["FAILING_ETCD_TAG"] }

// toFailingImage upgrades etcd to an image whose etcd fails where failAfter says so.
func toFailingImage(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
		s.Version, s.Image.Tag = versionOf("3.7"), settings["FAILING_ETCD_TAG"]
	})
}

// failLast upgrades etcd to an image whose etcd fails in the last member, so many seconds after each start. It returns
// that member once it restarts.
func failLast(ctx context.Context, c *v1beta1.EtcdCluster, seconds int) string {
	GinkgoHelper()
	last := lastToRestart(ctx, c)
	failAfter(ctx, c, last, seconds)
	toFailingImage(ctx, c)
	awaitRestart(ctx, c, last)
	return last
}

// lastToRestart returns the leader. The data are compared now, so that no comparison before a minor version moves it.
func lastToRestart(ctx context.Context, c *v1beta1.EtcdCluster) string {
	GinkgoHelper()
	annotate(ctx, c, v1beta1.CheckConsistencyAnnotation+"=before")
	awaitObeyed(ctx, c, v1beta1.CheckConsistencyAnnotation)
	awaitConditions(ctx, c, wanted{kind: v1beta1.ConditionDataConsistent, status: metav1.ConditionTrue, reason: v1beta1.ReasonDataAgrees})
	Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
	return c.Status.Leader
}

const never = -1

// failAfter says on a member's volume how many seconds after its start the etcd of the failing image ends.
func failAfter(ctx context.Context, c *v1beta1.EtcdCluster, member string, seconds int) {
	GinkgoHelper()
	script := fmt.Sprintf("echo %d > /volume/fail", seconds)
	if seconds == never {
		script = "rm /volume/fail"
	}
	runOnVolume(ctx, c, member, script)
}

// upgradeTime is how long an upgrade by a minor version may take: the last member alone waits for a minute.
const upgradeTime = 8 * time.Minute

// awaitRestart waits until a member restarts.
func awaitRestart(ctx context.Context, c *v1beta1.EtcdCluster, member string) {
	GinkgoHelper()
	before := uidsOfPods(ctx, c)[cluster.PodName(member)]
	Eventually(ctx, func() string { return uidsOfPods(ctx, c)[cluster.PodName(member)] }).WithTimeout(upgradeTime).ShouldNot(BeElementOf("", before))
}

// awaitVersion waits until every member runs a version, and nothing is left to do.
func awaitVersion(ctx context.Context, c *v1beta1.EtcdCluster, version string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		g.Expect(c.Status.Version).To(Equal(version))
	}).WithTimeout(upgradeTime).Should(Succeed())
	awaitHealthy(ctx, c)
	Expect(c.Status.TargetVersion).To(Equal(version))
}

// runningVersion counts the members that run a version.
func runningVersion(ctx context.Context, c *v1beta1.EtcdCluster, version string) int {
	now := c.DeepCopy()
	if err := kube.Get(ctx, client.ObjectKeyFromObject(c), now); err != nil {
		return 0
	}
	count := 0
	for _, m := range now.Status.Members {
		if m.Version == version && m.Ready {
			count++
		}
	}
	return count
}

// awaitNoImageCheck waits until the pod that looked at the image is gone.
func awaitNoImageCheck(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	Eventually(ctx, func() bool {
		pod := &corev1.Pod{}
		return apierrors.IsNotFound(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: cluster.ImageCheckPodName(c.Name)}, pod))
	}).Should(BeTrue())
}

// secondPatch returns the second patch of a minor version that there is an image of.
func secondPatch(minor string) string {
	GinkgoHelper()
	for _, version := range strings.Fields(settings["ETCD_SECOND_PATCHES"]) {
		if strings.HasPrefix(version, minor+".") {
			return version
		}
	}
	Fail("there is no image of a second patch of etcd " + minor)
	return ""
}
