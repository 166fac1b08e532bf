//go:build integration

package integration

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// TestAFoundersVolumeThatIsEmptiedFailsClosed empties volumes without the operator's knowledge.
// No member may come back under its old ID without its data, whether its peers run or not.
func TestAFoundersVolumeThatIsEmptiedFailsClosed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		// emptied are the pods whose volumes are emptied; down those that are down meanwhile.
		emptied, down []string
		recreate      bool
	}{
		{name: "in place with its peers up", emptied: []string{"prod-1-0"}},
		{name: "with a new pod and its peers up", emptied: []string{"prod-1-0"}, recreate: true},
		{name: "in place with its peers down", emptied: []string{"prod-1-0"}, down: []string{"prod-0-0", "prod-2-0"}},
		{name: "with a new pod and its peers down", emptied: []string{"prod-1-0"}, down: []string{"prod-0-0", "prod-2-0"}, recreate: true},
		{name: "two in place", emptied: []string{"prod-0-0", "prod-1-0"}},
		{name: "all in place", emptied: []string{"prod-0-0", "prod-1-0", "prod-2-0"}},
		{name: "all with new pods", emptied: []string{"prod-0-0", "prod-1-0", "prod-2-0"}, recreate: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData()
			before := l.versionsOf("PersistentVolumeClaim", "StatefulSet")
			clusterID := l.get().Status.ClusterID
			l.kubernetes.hold(c.down...)
			for _, pod := range c.down {
				l.kubernetes.restart(pod)
			}
			for _, pod := range c.emptied {
				l.kubernetes.empty(pod)
				if c.recreate {
					l.delete(&corev1.Pod{}, pod)
				}
			}
			l.settle()
			for _, pod := range c.emptied {
				if l.kubernetes.address(pod) != "" {
					t.Fatalf("%s runs over an empty volume", pod)
				}
			}
			l.kubernetes.release()
			l.settle()
			l.expectLost(c.emptied, v1beta1.ReasonCrashLooping)
			l.expectVersions(before)
			if have := l.get().Status.ClusterID; have != clusterID {
				t.Errorf("cluster ID = %s, want %s", have, clusterID)
			}
		})
	}
}

// expectLost fails unless the status names the pods whose members are lost,
// and the others serve all data if they have a quorum.
func (l *lab) expectLost(lost []string, reason string) {
	l.Helper()
	c := l.get()
	left := 3 - len(lost)
	if left >= cluster.Quorum(3) {
		expectCondition(l.T, c, v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk)
		l.put("acknowledged after", "yes")
		l.checkData(left)
	} else {
		expectCondition(l.T, c, v1beta1.ConditionAvailable, metav1.ConditionFalse, v1beta1.ReasonNoQuorum)
		expectCondition(l.T, c, v1beta1.ConditionQuorumLost, metav1.ConditionTrue, v1beta1.ReasonNoQuorum)
	}
	degraded := expectCondition(l.T, c, v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonMembersNotReady)
	for _, pod := range lost {
		member := strings.TrimSuffix(pod, "-0")
		i := slices.IndexFunc(c.Status.Members, func(m v1beta1.MemberStatus) bool { return m.Name == member })
		if i < 0 || c.Status.Members[i].Ready || c.Status.Members[i].Reason != reason {
			l.Errorf("members = %+v, want %s not ready with reason %s", c.Status.Members, member, reason)
		}
		if !strings.Contains(degraded.Message, member) {
			l.Errorf("the message %q does not tell of %s", degraded.Message, member)
		}
	}
}

func TestAVolumeThatSomebodyDeletedIsNeverMadeAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		members []string
		sets    bool
	}{
		{name: "one", members: []string{"prod-1"}},
		{name: "two", members: []string{"prod-0", "prod-2"}},
		{name: "one with its StatefulSet", members: []string{"prod-1"}, sets: true},
		{name: "all", members: []string{"prod-0", "prod-1", "prod-2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData(replacedByHand)
			var lost []string
			for _, member := range c.members {
				l.delete(&corev1.PersistentVolumeClaim{}, cluster.VolumeName(member))
			}
			l.settle()
			l.checkData(3) // Kubernetes keeps a volume that a pod uses
			for _, member := range c.members {
				if c.sets {
					set := l.set(member)
					l.delete(set, member)
				}
				l.delete(&corev1.Pod{}, cluster.PodName(member))
				lost = append(lost, cluster.PodName(member))
			}
			l.settle()
			l.expectLost(lost, v1beta1.ReasonVolumeLost)
			for _, member := range c.members {
				if slices.Contains(l.objectNames(), "PersistentVolumeClaim/"+cluster.VolumeName(member)) {
					t.Errorf("the volume of %s was made again", member)
				}
			}
			for _, member := range c.members {
				l.restoreUnlabelled(member)
			}
			l.settle()
			l.expectLost(lost, v1beta1.ReasonVolumeLost)
			for _, member := range c.members {
				if slices.Contains(l.objectNames(), "Pod/"+cluster.PodName(member)) {
					t.Errorf("the pod of %s waits for a claim of its name, or has started over it", member)
				}
			}
		})
	}
}

// restoreUnlabelled creates a claim of a member's name, as a user does who restores a snapshot.
// It lacks the operator's labels, so the operator's caches do not hold it.
func (l *lab) restoreUnlabelled(member string) {
	l.Helper()
	must(l.T, admin.Create(l.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: cluster.VolumeName(member)},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("8Gi")},
			},
		},
	}))
}

func TestAFoundingThatIsCutShortMakesAMissingVolumeOnlyBeforeAnyMemberStarts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.kubernetes.hold("prod-0-0", "prod-1-0", "prod-2-0")
	l.create(3)
	l.settle()
	l.delete(&corev1.PersistentVolumeClaim{}, "data-prod-1")
	l.delete(&corev1.Pod{}, "prod-1-0")
	l.settle()
	l.kubernetes.release()
	l.settle()
	if slices.Contains(l.objectNames(), "PersistentVolumeClaim/data-prod-1") {
		t.Error("a volume was made again although its StatefulSet existed")
	}
	expectCondition(t, l.get(), v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
	if numbers := l.runningNumbers(); !slices.Equal(numbers, []int{0, 2, 3}) {
		t.Errorf("the members %v run", numbers)
	}
}

func TestAllPodsKilledAtOnceComeBackWithTheirDataAndIDs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	before := l.get().Status
	for n := range 3 {
		l.delete(&corev1.Pod{}, cluster.PodName(cluster.MemberName(name, n)))
	}
	l.settleUntilAvailable()
	l.expectFounded(3)
	l.checkData(3)
	after := l.get().Status
	if after.ClusterID != before.ClusterID {
		t.Errorf("cluster ID = %s, want %s", after.ClusterID, before.ClusterID)
	}
	for i := range after.Members {
		if after.Members[i].ID != before.Members[i].ID {
			t.Errorf("member %s has the ID %s, want %s", after.Members[i].Name, after.Members[i].ID, before.Members[i].ID)
		}
	}
}

// TestStartsASecondAttemptBesideTheClaimsOfAFailedOne creates a cluster whose pods never start, deletes it and creates
// it again.
func TestStartsASecondAttemptBesideTheClaimsOfAFailedOne(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.kubernetes.hold("prod-0-0", "prod-1-0", "prod-2-0")
	l.create(3)
	l.settle()
	bound := l.volume("prod-0")
	bound.Status.Phase = corev1.ClaimBound
	must(t, admin.Status().Update(t.Context(), bound))
	pending := l.volume("prod-1").UID
	l.remove()
	l.kubernetes.release()
	l.create(3)
	l.settleUntilAvailable()
	if again := l.volume("prod-1"); again.UID == pending {
		t.Error("the claim of prod-1, which was never bound, was not made again")
	}
	if kept := l.volume("prod-0"); kept.UID != bound.UID {
		t.Error("the claim of prod-0, which was bound, was made again")
	}
	for n := 1; n <= 3; n++ { // numbered above the volume that is left aside
		l.set(cluster.MemberName(name, n))
	}
}
