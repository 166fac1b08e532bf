package simulation_test

import (
	"testing"
	"testing/cryptotest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// dataFaults are what the oracle knows of data that are not what their member wrote.
type dataFaults struct {
	// spoilt is how many members got wrong data, and cured how many such members the operator replaced.
	spoilt, cured int
	// undecided tells that no majority of all voters runs with the right data: only a user can tell whose are right.
	undecided bool
}

// isSpoilable reports whether the data of a voter may become wrong: all voters run, and have the right data.
func (h *history) isSpoilable(pod *corev1.Pod) bool {
	claim := h.claimOf(memberOf(pod))
	voters, right, _ := h.Etcd.RightVoters(h.clusterID(pod))
	return claim != nil && h.isSettled(claim) && h.Etcd.Serves(h.Address(pod)) && voters >= 3 && right == voters
}

// spoil makes the data of one voter wrong. Perhaps etcd's own check finds it at once, or the member starts again.
func (h *history) spoil(t *rapid.T, pod *corev1.Pod) {
	if !h.isSpoilable(pod) {
		t.Skip("it is no voter, or not all of them run with the right data")
	}
	h.spoilt++
	claim := h.claimOf(memberOf(pod))
	switch rapid.SampledFrom([]string{"nobody sees it", "it starts again", "it cannot be opened", "an alarm", "an alarm"}).Draw(t, "how") {
	case "nobody sees it":
		h.Etcd.Corrupt(h.Disk(claim))
	case "it starts again":
		h.Etcd.Corrupt(h.Disk(claim))
		h.forgive(pod)
		h.KillContainer(pod)
	case "it cannot be opened":
		h.Etcd.Break(h.Disk(claim))
		h.forgive(pod)
		h.KillContainer(pod)
	default:
		h.Etcd.Corrupt(h.Disk(claim))
		h.raise(rapid.SampledFrom([]cluster.ID{0, h.idOf(claim), h.idOf(h.claims()[0])}).Draw(t, "of member"))
	}
}

// workSome has the operator work for some time, with a pass each second, or each minute.
func (h *history) workSome(t *rapid.T) {
	step := rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(t, "a round takes")
	for range rapid.IntRange(1, 25).Draw(t, "rounds") {
		h.quickWork()
		h.wait(step)
	}
}

// dataEvents are what disks do to data, what etcd's own checks say of them, and users who ask for a comparison.
func (h *history) dataEvents() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"a voter's data become wrong":        func(t *rapid.T) { h.spoil(t, pick(t, h.pods())) },
		"a voter's data become wrong again":  func(t *rapid.T) { h.spoil(t, pick(t, h.pods())) },
		"the operator works without a break": h.workSome,
		"etcd raises an alarm for corrupt data": func(t *rapid.T) {
			claim := pick(t, h.claims())
			h.raise(rapid.SampledFrom([]cluster.ID{0, h.idOf(claim)}).Draw(t, "member"))
		},
		"a user asks to compare the data": func(t *rapid.T) {
			h.needsCluster(t)
			h.annotate(v1beta1.CheckConsistencyAnnotation, "wish-"+h.Next())
		},
	}
}

func (h *history) idOf(claim *corev1.PersistentVolumeClaim) cluster.ID {
	return cluster.ParseID(claim.Annotations[cluster.AnnotationMemberID])
}

// raise has a member of a cluster of several voters raise an alarm. One that is alone has nobody to compare with.
func (h *history) raise(member cluster.ID) {
	for _, pod := range h.pods() {
		if h.Etcd.Serves(h.Address(pod)) && len(h.Etcd.Voters(h.Address(pod))) > 1 {
			_ = h.Etcd.Raise(h.Address(pod), cluster.Alarm{Member: member, Kind: cluster.AlarmCorrupt})
			return
		}
	}
}

// findWrongData is etcd's check after a compaction, which finds what nobody found yet. Where only one voter is left,
// its user ends the alarms.
func (h *history) findWrongData() {
	for _, pod := range h.pods() {
		if !h.Etcd.Serves(h.Address(pod)) {
			continue
		}
		voters, _, wrong := h.Etcd.RightVoters(h.clusterID(pod))
		if wrong > 0 && h.Etcd.CorruptAlarms(h.clusterID(pod)) == 0 {
			h.raise(0)
		}
		if voters == 1 {
			h.Etcd.EndAlarms(h.Address(pod))
		}
		return
	}
}

// judgeData fails where the members that run at rest do not agree, or an alarm or a wish to compare them is left. Where
// too few run with the right data, nobody but a user can tell who is right.
func (h *history) judgeData() {
	for _, pod := range h.pods() {
		id := h.clusterID(pod)
		voters, right, wrong := h.Etcd.RightVoters(id)
		if id == 0 || voters == 0 {
			continue
		}
		if wrong > 0 && right < cluster.Quorum(voters) {
			h.harmed, h.undecided = true, true
		}
		if h.harmed {
			return
		}
		if alarms := h.Etcd.CorruptAlarms(id); wrong > 0 || alarms > 0 {
			h.wrong("at rest %d of %d voters have wrong data, and there are %d alarms", wrong, voters, alarms)
		}
		if h.cluster().Annotations[v1beta1.CheckConsistencyAnnotation] != "" && voters > 1 {
			h.wrong("at rest the wish to compare the data is not fulfilled")
		}
		return
	}
}

// The spec grows while a member has wrong data. None is added beside it, so it is replaced first, and then they grow.
func TestAClusterGrowsOnceItsWrongDataAreReplaced(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, spoil := range map[string]func(*history){
		"they differ": func(h *history) { h.corrupt("prod-1", true) },
		"they cannot be opened": func(h *history) {
			h.Etcd.Break(h.Disk(h.claimOf("prod-1")))
			h.KillContainer(h.podOf("prod-1"))
		},
	} {
		h := afterLoss(t, 3, false)
		spoil(h)
		h.resize(5)
		h.settled(t)
		if h.harmed || h.claimOf("prod-1") == nil || h.podOf("prod-1") != nil {
			t.Errorf("%s: prod-1 was not replaced: %v", name, h.podStates())
		}
	}
}
