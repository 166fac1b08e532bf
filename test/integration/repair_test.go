//go:build integration

package integration

import (
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

func init() {
	twiceTheTime := 11 * time.Minute
	scenarios = append(scenarios,
		scenario{name: "replace a member whose claim is gone", prepare: ofSize(3), begin: loseClaims("prod-1"), resized: 3, claimsGone: true, statusesVary: true, pairs: 5},
		scenario{name: "replace two of five whose claims are gone", prepare: ofSize(5), begin: loseClaims("prod-1", "prod-3"), resized: 5, claimsGone: true, statusesVary: true, every: 5, pairs: 9},
		scenario{name: "replace a member whose node is gone", prepare: ofSize(3), begin: loseNode("prod-1"), resized: 3, statusesVary: true, leftPods: []string{"prod-1-0"}, patience: twiceTheTime, every: 3, pairs: 7},
		scenario{name: "replace a leader that answers, for its user", prepare: ofSize(3), begin: askToReplace("prod-0"), resized: 3, statusesVary: true, every: 3, pairs: 9},
		scenario{name: "replace a follower whose data differ", prepare: ofSize(3), begin: corrupt("prod-1"), resized: 3, statusesVary: true, every: 3, pairs: 9},
		scenario{name: "replace the leader whose data differ", prepare: ofSize(3), begin: corrupt("prod-0"), resized: 3, statusesVary: true, every: 3, pairs: 9},
		scenario{name: "compare the data for their user", prepare: ofSize(3), begin: ask(v1beta1.CheckConsistencyAnnotation, "now"), numbers: []int{0, 1, 2}, samePods: true, pairs: 3},
		scenario{name: "replace a member whose claim came back over a copy of its volume", prepare: ofSize(3), begin: restoreUnder("prod-1"), resized: 3, returnsLate: true, statusesVary: true, every: 5},
		scenario{name: "leave a voter that a user added to the user", prepare: ofSize(3), begin: addAndRemoveVoter, numbers: []int{0, 1, 2}, samePods: true, statusesVary: true, pairs: 1},
		scenario{name: "replace a member that a user removed", prepare: ofSize(3), begin: removeByHand("prod-1"), resized: 3, statusesVary: true, every: 3, pairs: 7},
	)
}

// corrupt changes the data of a member on its volume. etcd's check after a compaction has found that: the alarm names
// no member.
func corrupt(member string) func(*lab) {
	return func(l *lab) {
		l.lead("prod-0")
		l.kubernetes.world.Corrupt(string(l.volume(member).UID))
		must(l.T, l.kubernetes.world.Raise(l.kubernetes.address("prod-2-0"), cluster.Alarm{Kind: cluster.AlarmCorrupt}))
	}
}

// addAndRemoveVoter adds a voter that nothing runs for, as a user may with etcdctl, and removes it later.
func addAndRemoveVoter(l *lab) {
	id, err := l.kubernetes.world.AddVoter(l.kubernetes.address("prod-0-0"), "http://192.0.2.1:2380")
	must(l.T, err)
	l.settle()
	must(l.T, l.kubernetes.world.Remove(l.kubernetes.address("prod-0-0"), id))
}

// removeByHand removes a member as a user may with etcdctl, who then deletes what is left of it.
func removeByHand(member string) func(*lab) {
	return func(l *lab) {
		l.lead("prod-0")
		must(l.T, l.kubernetes.world.Remove(l.kubernetes.address("prod-0-0"), cluster.ParseID(l.volume(member).Annotations[cluster.AnnotationMemberID])))
		l.round()
		l.delete(&appsv1.StatefulSet{}, member)
		l.delete(&corev1.PersistentVolumeClaim{}, cluster.VolumeName(member))
	}
}

// replacedByHand leaves lost members to the user.
func replacedByHand(c *v1beta1.EtcdCluster) {
	c.Spec.Recovery = &v1beta1.Recovery{MemberReplacement: &v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually}}
}

// loseClaims deletes the claims of members and the pods that use them, at once.
func loseClaims(members ...string) func(*lab) {
	return func(l *lab) {
		l.lead("prod-0") // else the writes differ from run to run
		for _, m := range members {
			l.delete(&corev1.PersistentVolumeClaim{}, cluster.VolumeName(m))
			l.delete(&corev1.Pod{}, cluster.PodName(m))
		}
	}
}

func loseNode(member string) func(*lab) {
	return func(l *lab) {
		l.lead("prod-0")
		must(l.T, l.kubernetes.loseNode(l.Context(), l.pod(member)))
	}
}

func askToReplace(member string) func(*lab) {
	return func(l *lab) {
		l.lead(member)
		id := l.volume(member).Annotations[cluster.AnnotationMemberID]
		l.change(func(c *v1beta1.EtcdCluster) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1beta1.ReplaceMemberAnnotation, member+"/"+id)
		})
	}
}

// What names no member is told, and changes nothing. What names one is removed when it is obeyed.
func TestTheAnnotationThatReplacesAMember(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ofSize(3)(l)
	before := l.versionsOf("Pod", "StatefulSet", "PersistentVolumeClaim")
	for _, value := range []string{"prod-1", "prod-1/", "prod-1/1", "prod-9/8e9e05c52164694d", "/", "prod-1/" + l.volume("prod-2").Annotations[cluster.AnnotationMemberID]} {
		l.change(func(c *v1beta1.EtcdCluster) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1beta1.ReplaceMemberAnnotation, value)
		})
		l.settle()
		expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonNoSuchMember)
		l.expectVersions(before)
	}
	askToReplace("prod-1")(l)
	l.settle()
	if numbers := l.runningNumbers(); !slices.Equal(numbers, []int{0, 2, 3}) {
		t.Errorf("the members %v run", numbers)
	}
	if value, is := l.get().Annotations[v1beta1.ReplaceMemberAnnotation]; is {
		t.Errorf("the annotation %q was left", value)
	}
	expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionFalse, v1beta1.ReasonAsExpected)
}

// A claim that was made again under the name of a lost one is never deleted, whatever its annotations say.
func TestOnlyTheVolumeThatTheOperatorSawIsDeletedWithALostMember(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lose func(*lab)
		kept bool
	}{
		"of a lost node":    {loseNode("prod-1"), false},
		"that was replaced": {restoreUnder("prod-1"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			ofSize(3, func(c *v1beta1.EtcdCluster) {
				c.Spec.Storage = &v1beta1.Storage{RetentionPolicy: &v1beta1.RetentionPolicy{WhenReplaced: v1beta1.RetentionDelete}}
			})(l)
			c.lose(l)
			l.settle()
			l.later(11 * time.Minute)
			l.settle()
			if numbers := l.runningNumbers(); !slices.Equal(numbers, []int{0, 2, 3}) {
				t.Fatalf("the members %v run", numbers)
			}
			if is := l.volume("prod-1").DeletionTimestamp == nil; is != c.kept { // Kubernetes keeps it for a pod on a lost node
				t.Errorf("its claim is kept: %t", is)
			}
		})
	}
}

// restoreUnder makes the claim of a member again with all that stood on it, over another volume.
func restoreUnder(member string) func(*lab) {
	return func(l *lab) {
		claim := l.volume(member)
		loseClaims(member)(l)
		l.kubernetes.hold(cluster.PodName(member))
		for range 3 {
			l.round()
		}
		claim.UID, claim.ResourceVersion, claim.DeletionTimestamp, claim.Finalizers = "", "", nil, nil
		claim.Spec.VolumeName = "restored"
		must(l.T, admin.Create(l.Context(), claim))
	}
}
