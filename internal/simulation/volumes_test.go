package simulation_test

import (
	"testing"
	"testing/cryptotest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// servingMembers counts the pods whose etcd is ready.
func (h *history) servingMembers() int {
	n := 0
	for _, pod := range h.pods() {
		if h.Etcd.Ready(h.Address(pod)) {
			n++
		}
	}
	return n
}

// backedUp is a cluster at rest of which a volume was copied, and written to afterwards.
func backedUp(t *testing.T, seesVolumes bool) *history {
	t.Helper()
	h := newHistory(3, false)
	h.seesVolumes = seesVolumes
	h.operator = h.startOperator()
	h.settled(t)
	h.replaceByHand()
	h.put()
	if !h.backUp(h.claimOf("prod-1")) {
		t.Fatal("the volume is not recorded")
	}
	h.put()
	return h
}

func (h *history) rounds(t *testing.T, n int) {
	t.Helper()
	for range n {
		h.work()
	}
	if len(h.broken) > 0 {
		t.Fatal(h.failure())
	}
}

func TestAMemberNeverStartsOnACopyOfItsVolume(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, seesVolumes := range []bool{true, false} {
		for name, c := range map[string]struct{ sameName, labelled bool }{
			"of the same PersistentVolume name": {true, true}, "of another name": {false, true}, "without labels": {true, false},
		} {
			t.Run(name, func(t *testing.T) {
				h := backedUp(t, seesVolumes)
				h.loseVolume(h.claimOf("prod-1"))
				h.rounds(t, 2)
				copied := h.restoreCopy(h.backups["prod-1"], c.sameName, c.labelled)
				h.rounds(t, 6)
				h.accept(copied, "uid-0/"+copied.Spec.VolumeName)
				h.rounds(t, 6)
				set, ok := simulation.Object[*appsv1.StatefulSet](h.World, key.Namespace, "prod-1")
				if !ok || !stops(set) || h.servingMembers() != 2 {
					t.Errorf("stopped %t, %d members serve: %s", ok && stops(set), h.servingMembers(), h.failure())
				}
			})
		}
	}
}

func TestAMemberStartsOnTheVolumeThatItsUserAccepts(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	h := backedUp(t, true)
	original := h.claimOf("prod-1")
	disk := h.Disk(original)
	h.Etcd.Copy(disk, "aside") // the volume outlives its PersistentVolume
	h.loseVolume(original)
	h.rounds(t, 2)
	h.backups["prod-1"] = backup{original, "aside"}
	claim := h.restoreCopy(h.backups["prod-1"], true, true)
	h.rounds(t, 3)
	if h.servingMembers() != 2 {
		t.Fatal("it started before the user accepted the volume")
	}
	delete(h.replaced, claim.UID)
	h.accept(h.claimOf("prod-1"), cluster.VolumeIdentity{Claim: claim.UID, Name: claim.Spec.VolumeName}.String())
	h.rounds(t, 6)
	if h.servingMembers() != 3 {
		t.Errorf("%d members serve: %s", h.servingMembers(), h.progressing().Message)
	}
}

func TestAMemberStartsOnItsOwnVolumeUnderANewClaim(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	h := backedUp(t, true)
	h.Rebind(h.claimOf("prod-1"))
	h.settled(t)
	if h.servingMembers() != 3 {
		t.Errorf("%d members serve", h.servingMembers())
	}
}

// The cluster is deleted, one of its kept volumes is lost, and a copy stands there when it is created again.
func TestACopyIsNotTakenBack(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, copied := range map[string]bool{"with all its own volumes it is taken back": false, "with a copy it is refused": true} {
		t.Run(name, func(t *testing.T) {
			h := backedUp(t, true)
			h.userDeletes(h.cluster())
			for range 3 {
				h.CollectGarbage(1 << 10)
				h.RunKubelets()
			}
			if copied {
				h.loseVolume(h.claimOf("prod-1"))
				h.restoreCopy(h.backups["prod-1"], true, true)
			}
			h.createCluster()
			h.rounds(t, 8)
			if want := map[bool]int{false: 3, true: 0}[copied]; h.servingMembers() != want {
				t.Errorf("%d members serve: %s", h.servingMembers(), h.progressing().Message)
			}
		})
	}
}

// A node that only the API server cannot reach keeps its process, so the volume is in use although the pod is gone.
func TestNoMemberRunsTwiceWhileItsNodeIsLost(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, down := range map[string]bool{"the process lives on": false, "the process is gone": true} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(3, true)
			h.settled(t)
			h.replaceByHand()
			h.put()
			pod, _ := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName("prod-1"))
			h.LoseNode(pod, down)
			h.rotate() // the operator would restart members now
			h.rounds(t, 4)
			h.EvictFromLostNodes()
			h.rounds(t, 4)
			if gone, ok := simulation.Object[*corev1.Pod](h.World, key.Namespace, pod.Name); ok {
				h.ForceDelete(gone)
			}
			h.rounds(t, 4)
			next, ok := simulation.Object[*corev1.Pod](h.World, key.Namespace, pod.Name)
			if !ok || h.Runs(next) != down {
				t.Errorf("the next pod exists: %t, runs: %t", ok, ok && h.Runs(next))
			}
			h.put()
			h.settled(t)
		})
	}
}
