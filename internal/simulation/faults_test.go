package simulation_test

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// backup is a copy of a volume, and its claim as it was then.
type backup struct {
	claim *corev1.PersistentVolumeClaim
	disk  string
}

// volumeFaults are what the oracle knows of volumes that were replaced.
type volumeFaults struct {
	// backups are the last copies of volumes, by the member's name.
	backups map[string]backup
	// replaced are the claims that stand for another volume than their member's, and that no user has accepted.
	replaced map[types.UID]bool
	// unknown are the claims that were made again over their own volume, which the operator cannot know.
	unknown map[types.UID]bool
	// missing is how many passes saw, undisturbed, that a member's claim is gone, by the member's name.
	missing map[string]int
}

func newVolumeFaults() volumeFaults {
	return volumeFaults{backups: map[string]backup{}, replaced: map[types.UID]bool{}, unknown: map[types.UID]bool{}, missing: map[string]int{}}
}

// countMissing counts a pass in which nothing kept the operator from stopping the members whose claims are gone.
func (h *history) countMissing(undisturbed bool) {
	for _, set := range h.sets() {
		switch {
		case h.claimOf(set.Name) != nil:
			delete(h.missing, set.Name)
		case undisturbed:
			h.missing[set.Name]++
		}
	}
}

// isUndisturbed reports whether nothing keeps the operator from acting on what is true now.
func (h *history) isUndisturbed() bool {
	c := h.cluster()
	return c != nil && c.DeletionTimestamp == nil && !c.Spec.Paused && len(h.refused) == 0 && len(h.marked) == 0 && !h.operator.cache.Behind()
}

// isSettled reports whether the member of a claim can only start over its data, and the operator recorded its volume.
func (h *history) isSettled(claim *corev1.PersistentVolumeClaim) bool {
	return h.closes(claim) && claim.Annotations[cluster.AnnotationVolume] != "" && claim.DeletionTimestamp == nil &&
		h.marked[claim.UID] == "" && !h.replaced[claim.UID]
}

// backUp copies the volume of a member.
func (h *history) backUp(claim *corev1.PersistentVolumeClaim) bool {
	if !h.isSettled(claim) {
		return false
	}
	h.backups[memberOf(claim)] = backup{claim.DeepCopy(), h.CopyDisk(claim)}
	return true
}

// awaitsCopy reports whether a copy may take the place of a member's volume: its claim is gone, and the operator had
// the time to stop the member. What etcd has removed is stopped once no operation is under way: it harms nobody.
func (h *history) awaitsCopy(member string) bool {
	_, hasSet := simulation.Object[*appsv1.StatefulSet](h.World, key.Namespace, member)
	_, hasPod := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(member))
	return h.claimOf(member) == nil && (!hasSet && !hasPod || h.missing[member] >= 2 && h.isVoter(member))
}

// isVoter reports whether a member is a voter, as far as anybody can tell.
func (h *history) isVoter(member string) bool {
	address := h.servingAddress()
	return address == "" || slices.ContainsFunc(h.Etcd.Voters(address), func(v fake.Voter) bool { return v.Name == member })
}

// restoreCopy puts a copy in the place of a member's volume. Without labels the operator does not see the claim.
func (h *history) restoreCopy(b backup, sameName, labelled bool) *corev1.PersistentVolumeClaim {
	h.harmed = true
	h.RunStatefulSets() // they saw what the operator wrote long ago
	h.RunKubelets()
	name := ""
	if sameName {
		name = b.claim.Spec.VolumeName
	}
	earlier := b.claim.DeepCopy()
	if !labelled {
		earlier.Labels, earlier.Annotations = nil, nil
	}
	disk := "disk-" + h.Next()
	h.Etcd.Copy(b.disk, disk)
	claim := h.Restore(earlier, disk, name)
	h.replaced[claim.UID] = true
	return claim
}

// volumeEvents are what users do with copies of volumes.
func (h *history) volumeEvents() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"a volume is copied": func(t *rapid.T) {
			if !h.backUp(pick(t, h.claims())) {
				t.Skip("nobody has seen it start")
			}
		},
		"a volume is lost, and a copy takes its place": func(t *rapid.T) {
			claim := h.losableClaim(t)
			b, ok := h.backups[memberOf(claim)]
			if !ok || !h.isUndisturbed() || h.cluster().Status.ClusterID == "" {
				t.Skip("there is no copy, or nobody would notice")
			}
			h.loseVolume(claim)
			for range 2 {
				_ = h.pass(nil)
				h.RunStatefulSets()
			}
			if h.awaitsCopy(memberOf(claim)) {
				h.restoreCopy(b, rapid.Bool().Draw(t, "under its name"), rapid.Bool().Draw(t, "with its labels"))
			}
		},
		"a copy takes the place of a lost volume": func(t *rapid.T) {
			for _, member := range []string{"prod-0", "prod-1", "prod-2", "prod-3", "prod-4"} {
				if b, ok := h.backups[member]; ok && h.awaitsCopy(member) {
					h.restoreCopy(b, rapid.Bool().Draw(t, "under its name"), rapid.Bool().Draw(t, "with its labels"))
					return
				}
			}
			t.Skip("no volume is lost of which there is a copy")
		},
		"a claim is made again over its own volume": func(t *rapid.T) {
			claim := h.losableClaim(t)
			if !h.isSettled(claim) {
				t.Skip("nobody has seen it start")
			}
			h.forgiveMember(memberOf(claim))
			known := h.seesVolumes && claim.Annotations[cluster.AnnotationVolumeUID] != ""
			if again := h.Rebind(claim); !known {
				h.harmed, h.unknown[again.UID] = true, true
			}
		},
		"a replaced volume is accepted by its old name": func(t *rapid.T) {
			claim := pick(t, h.claims())
			if !h.replaced[claim.UID] {
				t.Skip("it was not replaced")
			}
			h.accept(claim, "uid-0/"+claim.Spec.VolumeName)
		},
	}
}

// accept is the user's approval of a volume.
func (h *history) accept(claim *corev1.PersistentVolumeClaim, text string) {
	simulation.Edit(h.World, claim, func(c *corev1.PersistentVolumeClaim) {
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[v1beta1.AcceptVolumeAnnotation] = text
	})
}

func (h *history) forgiveMember(member string) { delete(h.restarted, cluster.PodName(member)) }

// loseVolume deletes a claim, the pod that uses it, and the data.
func (h *history) loseVolume(claim *corev1.PersistentVolumeClaim) {
	h.harmed = true
	h.userDeletes(claim)
	for _, pod := range h.pods() {
		if memberOf(pod) == memberOf(claim) {
			h.forgive(pod)
			h.KillPod(pod)
		}
	}
	h.RemoveClaims()
}

// nodeEvents are what happens to nodes. Their processes may live on.
func (h *history) nodeEvents() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"a node is lost": func(t *rapid.T) {
			pod := pick(t, h.pods())
			h.forgive(pod)
			h.LoseNode(pod, rapid.Bool().Draw(t, "with its processes"))
		},
		"Kubernetes deletes the pods of lost nodes": func(*rapid.T) {
			for _, pod := range h.pods() {
				if h.IsLost(pod) {
					h.forgive(pod)
				}
			}
			h.EvictFromLostNodes()
		},
		"a pod of a lost node is deleted by force": func(t *rapid.T) {
			pod := pick(t, h.pods())
			if !h.IsLost(pod) {
				t.Skip("its node is there")
			}
			h.forgive(pod)
			h.ForceDelete(pod)
		},
		"the Node of a lost node is deleted": func(t *rapid.T) {
			nodes := h.LostNodes()
			if len(nodes) == 0 {
				t.Skip("all are there")
			}
			node := rapid.SampledFrom(nodes).Draw(t, "node")
			for _, pod := range h.pods() {
				if pod.Spec.NodeName == node {
					h.forgive(pod)
				}
			}
			h.DeleteNode(node)
		},
		"all nodes come back": func(*rapid.T) { h.RecoverNodes() },
		"ten minutes pass":    func(*rapid.T) { h.wait(10 * time.Minute) },
	}
}
