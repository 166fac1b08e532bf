package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
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
		story.expectTold(ctx, c, writers)
		writers.end(ctx, c)
	})

	It("never starts on a copy of its volume: it is refused, and replaced later", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), replacedByHand))
		writers := appendOn(ctx, c)
		earlier := volumeObject(ctx, c, "data-prod-1")
		snapshot := copyVolume(ctx, c, "prod-1")
		deleteVolumes(ctx, c, "prod-1")
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("prod-1", v1beta1.ReplaceMemberAnnotation))
		again := claimLike(earlier, earlier.Name)
		again.Labels, again.Annotations, again.Spec.VolumeName = earlier.Labels, earlier.Annotations, snapshot
		delete(again.Annotations, "pv.kubernetes.io/bind-completed") // that was the first volume
		Expect(kube.Create(ctx, again)).To(Succeed())
		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("prod-1", v1beta1.ReasonVolumeReplaced))
		Eventually(ctx, func() corev1.PersistentVolumeClaimPhase { return volumeObject(ctx, c, again.Name).Status.Phase }).Should(Equal(corev1.ClaimBound))
		for _, pod := range podsOf(ctx, c) {
			Expect(pod.Name == "prod-1-0" && pod.Status.Phase == corev1.PodRunning).To(BeFalse(), "it started on the copy")
		}
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

var _ = Describe("A member list that somebody changes with etcdctl, while clients write", func() {
	It("keeps a member that was added, and the status says how to remove it", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		before := uidsOfPods(ctx, c)
		changeList(ctx, c, "add", "mine", "--peer-urls=http://192.0.2.1:2380")
		list, err := identityOf(ctx, c, "prod-0")
		Expect(err).NotTo(HaveOccurred())
		id := fmt.Sprintf("%x", list.Members[""])
		advice := "etcdctl member remove " + id
		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonMembersNotHealthy).saying("the voter http://192.0.2.1:2380", advice),
			degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("another client registered it", advice),
			available(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk).saying("3 of 4 voters"))
		scale(ctx, c, 5)
		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonMembersNotHealthy).saying(advice))
		Consistently(ctx, func(g Gomega) {
			now, err := identityOf(ctx, c, "prod-0")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(now).To(Equal(list))
		}).WithTimeout(10 * time.Second).WithPolling(time.Second).Should(Succeed())
		scale(ctx, c, 3)
		Expect(uidsOfPods(ctx, c)).To(Equal(before))
		changeList(ctx, c, "remove", id)
		awaitMembers(ctx, c, "prod-0", "prod-1", "prod-2")
		writers.end(ctx, c)
	})

	It("gets a new member for one that was removed, whose volume stays, and the status says what to do with what is left", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		removed := without([]string{"prod-1", "prod-2"}, c.Status.Leader)[0]
		volume := volumeObject(ctx, c, cluster.VolumeName(removed))
		changeList(ctx, c, "remove", fmt.Sprintf("%x", writers.kept.Members[removed]))
		stay := without([]string{"prod-0", "prod-1", "prod-2", "prod-3"}, removed)
		Eventually(ctx, func(g Gomega) {
			list, err := identityOf(ctx, c, stay[0])
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(slices.Collect(maps.Keys(list.Members))).To(ConsistOf(stay))
		}).Should(Succeed())
		awaitConditions(ctx, c, available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing).saying("3 of 3 voters"),
			progressing(metav1.ConditionFalse, v1beta1.ReasonUpToDate),
			degraded(metav1.ConditionTrue, v1beta1.ReasonLeftOver).
				saying("StatefulSet "+removed, "Delete the StatefulSet.", "kubectl annotate --overwrite pvc "+volume.Name))
		Expect(exists(ctx, c.Namespace, removed, &appsv1.StatefulSet{})).To(BeTrue(), "the operator deletes nothing of it")

		out, err := lab.Kubectl(ctx, "-n", c.Namespace, "delete", "statefulset", removed)
		Expect(err).NotTo(HaveOccurred(), out)
		retired := cluster.AnnotationMembership + "=" + cluster.MembershipRetired
		out, err = lab.Kubectl(ctx, "-n", c.Namespace, "annotate", "--overwrite", "pvc", volume.Name, retired)
		Expect(err).NotTo(HaveOccurred(), out)
		awaitMembers(ctx, c, stay...)
		Expect(volumeObject(ctx, c, volume.Name).UID).To(Equal(volume.UID))
		writers.end(ctx, c)
	})
})

func replacedByHand(c *v1beta1.EtcdCluster) {
	c.Spec.Recovery = &v1beta1.Recovery{MemberReplacement: &v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually}}
}

// deleteVolumes deletes the claims of members and the pods that use them, and waits until the claims are gone.
func deleteVolumes(ctx context.Context, c *v1beta1.EtcdCluster, members ...string) {
	GinkgoHelper()
	for _, m := range members {
		Expect(kube.Delete(ctx, volumeObject(ctx, c, cluster.VolumeName(m)))).To(Succeed())
	}
	deletePods(ctx, c, members...)
	for _, m := range members {
		Eventually(ctx, func() bool { return exists(ctx, c.Namespace, cluster.VolumeName(m), &corev1.PersistentVolumeClaim{}) }).Should(BeFalse())
	}
}

// copyVolume copies the data of a member to another PersistentVolume, as a restored snapshot of it, which only a claim
// of the same name can use. It returns its name.
func copyVolume(ctx context.Context, c *v1beta1.EtcdCluster, member string) string {
	GinkgoHelper()
	data := volumeObject(ctx, c, cluster.VolumeName(member))
	claim := claimLike(data, "copy")
	Expect(kube.Create(ctx, claim)).To(Succeed())
	runOnVolumes(ctx, c, member, "cp -r /volume/. /copy/ && find /copy -name db | grep .", map[string]string{"volume": data.Name, "copy": claim.Name})
	Expect(kube.Get(ctx, client.ObjectKeyFromObject(claim), claim)).To(Succeed())
	volume := &corev1.PersistentVolume{}
	change := func(ctx context.Context, change func()) {
		GinkgoHelper()
		Expect(kube.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, volume)).To(Succeed())
		before := volume.DeepCopy()
		change()
		Expect(kube.Patch(ctx, volume, client.MergeFrom(before))).To(Succeed())
	}
	change(ctx, func() { volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain })
	Expect(kube.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(c.Namespace), client.MatchingFields{"status.phase": "Succeeded"})).To(Succeed())
	Expect(kube.Delete(ctx, claim)).To(Succeed())
	Eventually(ctx, func() bool { return exists(ctx, c.Namespace, claim.Name, &corev1.PersistentVolumeClaim{}) }).Should(BeFalse())
	// Without the reservation it would go to any claim in the cluster that waits for a volume.
	change(ctx, func() {
		volume.Spec.ClaimRef = &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: data.Namespace, Name: data.Name}
	})
	DeferCleanup(func(ctx SpecContext) {
		change(ctx, func() { volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete })
	})
	return volume.Name
}

// claimLike returns a claim for a volume as another claim has it.
func claimLike(claim *corev1.PersistentVolumeClaim, name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: claim.Spec.AccessModes, Resources: claim.Spec.Resources, StorageClassName: claim.Spec.StorageClassName,
		},
	}
}

// changeList runs etcdctl member in prod-0. etcd accepts it once all members have been connected for some seconds.
func changeList(ctx context.Context, c *v1beta1.EtcdCluster, args ...string) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		out, err := etcdctl(ctx, c, "prod-0", append([]string{"member"}, args...)...)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}).Should(Succeed())
}

// loseLeader deletes the volume of the leader behind the operator's back, and waits until another member has replaced
// it.
func loseLeader(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
	lost, size := c.Status.Leader, len(c.Status.Members)
	deleteVolumes(ctx, c, lost)
	expectEvent(ctx, c, v1beta1.EventMemberRemoved, "The volume of "+lost+" is gone")
	awaitHealthy(ctx, c)
	for _, m := range c.Status.Members {
		Expect(m.Name).NotTo(Equal(lost))
	}
	Expect(c.Status.Members).To(HaveLen(size))
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
