package simulation_test

import (
	"errors"
	"testing"
	"testing/cryptotest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// losses are the ways in which members of a healthy cluster are lost for good.
var losses = map[string]struct {
	size  int32
	local bool
	lose  func(*history)
}{
	"a claim":               {3, false, func(h *history) { h.loseVolume(h.claimOf("prod-1")) }},
	"the claim of a leader": {3, false, func(h *history) { h.loseVolume(h.claimOf("prod-0")) }},
	"two claims of five": {5, false, func(h *history) {
		h.loseVolume(h.claimOf("prod-1"))
		h.loseVolume(h.claimOf("prod-3"))
	}},
	"a node without power, with a local disk": {3, true, func(h *history) { h.loseNodeOf("prod-1", true) }},
	"a node that was deleted, with a local disk": {3, true, func(h *history) {
		h.loseNodeOf("prod-1", true)
		h.DeleteNode(h.nodeOf("prod-1"))
	}},
	"a node that is cut off and lives on, and was deleted": {3, true, func(h *history) {
		node := h.nodeOf("prod-1")
		_ = h.Etcd.MoveLeader(h.Address(h.podOf("prod-1")), cluster.ParseID(h.claimOf("prod-0").Annotations[cluster.AnnotationMemberID]))
		h.Etcd.Fail(h.Address(h.podOf("prod-1")), errors.New("connection timed out"))
		h.loseNodeOf("prod-1", false)
		h.DeleteNode(node)
	}},
	"the data of a follower": {3, false, func(h *history) { h.corrupt("prod-1", true) }},
	"the data of the leader": {3, false, func(h *history) { h.corrupt("prod-0", true) }},
	"the data of one of five, whose etcd finds other data at its peers when it starts again": {5, false, func(h *history) {
		h.corrupt("prod-3", false)
		h.forgive(h.podOf("prod-3"))
		h.KillPod(h.podOf("prod-3"))
	}},
	"a copy in the place of a volume": {3, false, func(h *history) {
		h.backUp(h.claimOf("prod-1"))
		h.replaceByHand()
		h.loseVolume(h.claimOf("prod-1"))
		h.workFor(time.Minute)
		h.restoreCopy(h.backups["prod-1"], true, true)
		h.editCluster(func(c *v1beta1.EtcdCluster) { c.Spec.Recovery = nil })
	}},
}

// corrupt changes what lies on a member's disk. With an alarm, etcd's check after a compaction has found it: it names
// no member.
func (h *history) corrupt(member string, alarm bool) {
	h.Etcd.Corrupt(h.Disk(h.claimOf(member)))
	if alarm {
		_ = h.Etcd.Raise(h.Address(h.podOf("prod-2")), cluster.Alarm{Kind: cluster.AlarmCorrupt})
	}
}

// replaceByHand leaves lost members to the user.
func (h *history) replaceByHand() {
	h.editCluster(func(c *v1beta1.EtcdCluster) {
		c.Spec.Recovery = &v1beta1.Recovery{MemberReplacement: &v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually}}
	})
}

func (h *history) podOf(member string) *corev1.Pod {
	pod, _ := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(member))
	return pod
}

func (h *history) nodeOf(member string) string { return h.podOf(member).Spec.NodeName }

func (h *history) loseNodeOf(member string, down bool) {
	pod := h.podOf(member)
	h.forgive(pod)
	h.LoseNode(pod, down)
}

// settledWithLosses lets the cluster come to rest without bringing back what is lost. It must have all its members
// then.
func (h *history) settledWithLosses(t *testing.T, at string) {
	t.Helper()
	for range 12 { // a comparison of data takes a pass for each member
		h.workFor(30 * time.Second)
		h.CollectGarbage(1 << 10)
	}
	for range 60 {
		h.work()
		h.CollectGarbage(1 << 10)
	}
	serving := 0
	for _, pod := range h.pods() {
		if h.Etcd.Ready(h.Address(pod)) {
			serving++
		}
	}
	c, decided := h.cluster(), h.progressing()
	if len(h.broken) > 0 || serving != int(c.Spec.Replicas) || decided.Reason != v1beta1.ReasonUpToDate || c.Status.Operation != nil || !h.isAsWanted(serving) {
		t.Fatalf("%s: %d of %d members serve, %v: %s: %s; %v\n%s", at, serving, c.Spec.Replicas, c.Status.Operation, decided.Reason, decided.Message, h.podStates(), h.failure())
	}
}

func afterLoss(t *testing.T, size int32, local bool) *history {
	t.Helper()
	h := newHistory(size, false)
	h.LocalVolumes, h.seesVolumes = local, true
	h.operator = h.startOperator()
	h.settled(t)
	h.put()
	return h
}

// A node that comes back later does no harm.
func TestLostMembersAreReplaced(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			h := afterLoss(t, loss.size, loss.local)
			loss.lose(h)
			h.settledWithLosses(t, name)
			h.put()
			h.RecoverNodes()
			h.settledWithLosses(t, name+", and back")
			h.put()
			if corrupt := h.Etcd.CorruptMembers(); len(corrupt) > 0 {
				t.Errorf("%s: the data of %v are wrong still", name, corrupt)
			}
		})
	}
}

// The operator is killed before or after each write and each call to etcd, and its answer is lost.
func TestEveryKillOfAReplacementLeadsToAHealthyCluster(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			for at, more := 0, true; more; at += stride() {
				for _, kill := range kills {
					h := afterLoss(t, loss.size, loss.local)
					loss.lose(h)
					h.wait(6 * time.Minute)
					more = h.workUntilKilled(at, kill)
					h.settledWithLosses(t, name)
				}
			}
		})
	}
}

// A member that returns before it is removed keeps its place, whenever that is.
func TestAMemberThatReturnsBeforeItsTurnKeepsItsPlace(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, minutes := range []time.Duration{0, 1, 4} {
		h := afterLoss(t, 3, true)
		before := h.podOf("prod-1").UID
		h.loseNodeOf("prod-1", true)
		h.workFor(minutes * time.Minute)
		h.RecoverNodes()
		h.settledWithLosses(t, "back in time")
		if pod := h.podOf("prod-1"); pod == nil || pod.UID != before {
			t.Errorf("after %d minutes the pod is %v", minutes, pod)
		}
	}
}

// workFor works for some time, with a pass every ten seconds.
func (h *history) workFor(d time.Duration) {
	for end := h.Now.Add(d); h.Now.Before(end); h.wait(10 * time.Second) {
		_ = h.pass(nil)
		h.runKubernetes()
		h.observe()
	}
}
