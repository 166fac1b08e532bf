package simulation_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// etcdKind is the kind of calls that change etcd. They count as writes: the operator is killed around them as well.
const etcdKind = "Etcd"

// The verbs of calls to etcd.
const (
	addLearner   simulation.Verb = "add learner"
	promote      simulation.Verb = "promote"
	removeMember simulation.Verb = "remove member"
	moveLeader   simulation.Verb = "move leader"
	appendEntry  simulation.Verb = "append entry"
	defragment   simulation.Verb = "defragment"

	enableDowngrade simulation.Verb = "enable downgrade"
	cancelDowngrade simulation.Verb = "cancel downgrade"
	disarm          simulation.Verb = "disarm"
)

// membership is what the oracle knows of etcd's members.
type membership struct {
	// ids are the members that had each peer URL, by cluster ID and URL.
	ids map[string]cluster.ID
	// forgot tells that a user deleted the Service that has the number of the next member.
	forgot bool
	// byHand tells that a user removed a member: what is left of it is reported, and stays.
	byHand bool
}

// changer is the operator's port to change etcd.
type changer struct {
	simulation.Port
	o *operator
}

func (c changer) call(verb simulation.Verb, what string, target etcd.Target, change func() error) error {
	h, call := c.o.h, &simulation.Call{Verb: verb, Kind: etcdKind, Key: types.NamespacedName{Name: what}}
	h.checkJoin(c.o, call, target.ClusterID)
	if err := c.o.before(call); err != nil {
		return err
	}
	voters, alive := h.Etcd.Quorum(target.ClusterID)
	if err := change(); err != nil {
		return err
	}
	h.checkChanged(call, target.ClusterID, voters, alive)
	return c.o.after(call)
}

func (c changer) AddLearner(ctx context.Context, target etcd.Target, peerURL string) (id cluster.ID, list []cluster.EtcdMember, err error) {
	err = c.call(addLearner, peerURL, target, func() error {
		id, list, err = c.Port.AddLearner(ctx, target, peerURL)
		return err
	})
	return id, list, err
}

func (c changer) Promote(ctx context.Context, target etcd.Target, id cluster.ID) error {
	return c.call(promote, id.String(), target, func() error { return c.Port.Promote(ctx, target, id) })
}

func (c changer) RemoveMember(ctx context.Context, target etcd.Target, id cluster.ID) error {
	return c.call(removeMember, id.String(), target, func() error { return c.Port.RemoveMember(ctx, target, id) })
}

func (c changer) AppendEntry(ctx context.Context, target etcd.Target) error {
	return c.call(appendEntry, "", target, func() error { return c.Port.AppendEntry(ctx, target) })
}

func (c changer) Defragment(ctx context.Context, target etcd.Target) error {
	return c.call(defragment, target.MemberID.String(), target, func() error { return c.Port.Defragment(ctx, target) })
}

func (c changer) EnableDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	return c.call(enableDowngrade, minor, target, func() error { return c.Port.EnableDowngrade(ctx, target, minor) })
}

func (c changer) CancelDowngrade(ctx context.Context, target etcd.Target) error {
	return c.call(cancelDowngrade, "", target, func() error { return c.Port.CancelDowngrade(ctx, target) })
}

func (c changer) Disarm(ctx context.Context, target etcd.Target, alarm cluster.Alarm) error {
	return c.call(disarm, string(alarm.Kind), target, func() error { return c.Port.Disarm(ctx, target, alarm) })
}

func (c changer) MoveLeader(ctx context.Context, target etcd.Target, to cluster.ID) error {
	return c.call(moveLeader, to.String(), target, func() error { return c.Port.MoveLeader(ctx, target, to) })
}

// checkChange holds a change of etcd that the operator is about to ask for against the other steps under way.
func (h *history) checkChange(o *operator, call *simulation.Call) {
	if c := h.cluster(); call.Verb != appendEntry && call.Verb != disarm && !o.late && !h.wiped && (c == nil || c.Status.Operation == nil) {
		h.wrong("%s without a claim", call)
	}
	h.checkRemoval(o, call)
	h.checkDefragmentation(o, call)
	h.forgiveRemoved()
	for pod := range h.restarted { // a promotion that tolerates no fewer losses is allowed beside it
		if call.Verb == addLearner && !o.late && !h.wiped {
			h.wrong("%s while %s, which the operator restarted, does not serve again", call, pod)
		}
	}
}

// checkRemoval fails where a voter is about to be removed that lives, and that neither the spec nor a user wants gone.
func (h *history) checkRemoval(o *operator, call *simulation.Call) {
	c := h.cluster()
	if call.Verb != removeMember || o.late || c == nil || c.Status.Operation == nil || c.Status.Operation.Type != v1beta1.OperationReplaceMember {
		return
	}
	member := c.Status.Operation.Member
	claim := h.claimOf(member)
	pod, hasPod := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(member))
	isGone := claim == nil || claim.DeletionTimestamp != nil || h.replaced[claim.UID] || h.unknown[claim.UID]
	isWrong := claim != nil && h.Etcd.IsWrong(h.Disk(claim))
	if isWrong {
		h.cured++
	}
	if hasPod && h.Etcd.Serves(h.Address(pod)) && !h.IsLost(pod) && !isGone && !isWrong {
		h.wrong("%s, which serves on its own volume with the right data", call)
	}
}

// checkChanged holds a change of etcd that was made against the truth: it cost no quorum.
func (h *history) checkChanged(call *simulation.Call, id cluster.ID, voters, alive int) {
	votersNow, aliveNow := h.Etcd.Quorum(id)
	if alive >= cluster.Quorum(voters) && aliveNow < cluster.Quorum(votersNow) {
		h.wrong("%s: %d of %d voters lived, and then %d of %d", call, alive, voters, aliveNow, votersNow)
	}
	if call.Verb == promote && aliveNow-cluster.Quorum(votersNow) < alive-cluster.Quorum(voters) {
		h.wrong("%s: %d of %d voters lived, and then %d of %d, so that fewer may be lost", call, alive, voters, aliveNow, votersNow)
	}
	h.checkNames()
	h.checkWrites()
}

// forgiveRemoved forgets the pods that the operator restarted and whose members are none any more.
func (h *history) forgiveRemoved() {
	for pod := range h.restarted {
		if !h.isListedWhereOneRuns(strings.TrimSuffix(pod, "-0")) {
			delete(h.restarted, pod)
		}
	}
}

// isListedWhereOneRuns reports whether the newest log of a cluster of which a member runs has a member of the name. An
// earlier cluster that lost its data may list it still.
func (h *history) isListedWhereOneRuns(member string) bool {
	all := h.Etcd.Clusters()
	for _, pod := range h.pods() {
		for _, m := range all[h.clusterID(pod)] {
			if slices.ContainsFunc(m.PeerURLs, func(url string) bool { return isURLOf(url, member) }) {
				return true
			}
		}
	}
	return false
}

// isListed reports whether the newest log of any cluster has a member of the name.
func (h *history) isListed(member string) bool {
	for _, members := range h.Etcd.Clusters() {
		for _, m := range members {
			if slices.ContainsFunc(m.PeerURLs, func(url string) bool { return isURLOf(url, member) }) {
				return true
			}
		}
	}
	return false
}

// checkNames fails where a peer URL of the operator's belongs to another member than before.
func (h *history) checkNames() {
	for id, members := range h.Etcd.Clusters() {
		for _, m := range members {
			for _, url := range m.PeerURLs {
				k := id.String() + " " + url
				if before, known := h.ids[k]; known && before != m.ID && !h.forgot && !isForeign(&m) {
					h.wrong("%s was the member %s, and is used again by %s", url, before, m.ID)
				}
				h.ids[k] = m.ID
			}
		}
	}
}

func isForeign(m *cluster.EtcdMember) bool {
	return slices.ContainsFunc(m.PeerURLs, func(url string) bool { return strings.Contains(url, "foreign") })
}

// isURLOf reports whether a peer URL is that of a member.
func isURLOf(url, member string) bool {
	return strings.Contains(url, "://"+cluster.PodName(member)+".")
}

// isInEtcd reports whether the newest log of the cluster of a member's volume has the member.
func (h *history) isInEtcd(member string) bool {
	claim := h.claimOf(member)
	for id, members := range h.Etcd.Clusters() {
		if claim == nil || claim.Annotations[cluster.AnnotationClusterID] != id.String() {
			continue
		}
		for _, m := range members {
			if slices.ContainsFunc(m.PeerURLs, func(url string) bool { return isURLOf(url, member) }) {
				return true
			}
		}
	}
	return false
}

// checkDataDeletion holds the deletion of data against what the user said: only what a removed member left.
func (h *history) checkDataDeletion(call *simulation.Call, claim *corev1.PersistentVolumeClaim) {
	isRetired := claim.Annotations[cluster.AnnotationMembership] == cluster.MembershipRetired
	if !isRetired || h.isInEtcd(memberOf(claim)) || whenScaled(&h.cluster().Spec) != v1beta1.RetentionDelete {
		h.wrong("%s, which holds data", call)
	}
}

func whenScaled(spec *v1beta1.EtcdClusterSpec) v1beta1.RetentionPolicyType {
	if spec.Storage == nil || spec.Storage.RetentionPolicy == nil {
		return ""
	}
	return spec.Storage.RetentionPolicy.WhenScaled
}

// isUnstartedLearner reports whether a claim is that of a learner that never started: the operator cures its loss.
func (h *history) isUnstartedLearner(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[cluster.AnnotationFoundingMembers] == "" && !h.Etcd.HasData(h.Disk(claim))
}

// isAsWanted reports whether a cluster of etcd has so many voters and no learner, and no StatefulSet is left over.
func (h *history) isAsWanted(voters int) bool {
	if len(h.sets()) != voters && !h.byHand {
		return false
	}
	for id, members := range h.Etcd.Clusters() {
		isServing := slices.ContainsFunc(h.pods(), func(p *corev1.Pod) bool { return h.Etcd.Ready(h.Address(p)) && h.clusterID(p) == id })
		if isServing && (len(members) != voters || slices.ContainsFunc(members, func(m cluster.EtcdMember) bool { return m.Learner })) {
			return false
		}
	}
	return true
}

// servingAddress returns where a voter answers that can change the membership; empty for none.
func (h *history) servingAddress() string {
	for _, pod := range h.pods() {
		if h.Etcd.Serves(h.Address(pod)) && h.cluster() != nil {
			return h.Address(pod)
		}
	}
	return ""
}

// removeForeignLearners is the user, who does what the condition says.
func (h *history) removeForeignLearners() {
	address := h.servingAddress()
	if address == "" {
		return
	}
	for _, m := range h.Etcd.Clusters()[h.Etcd.ClusterID(address)] {
		if isForeign(&m) {
			_ = h.Etcd.Remove(address, m.ID)
		}
	}
}

// membershipEvents are what users do with the size and with etcd's members.
func (h *history) membershipEvents() map[string]func(*rapid.T) {
	resize := func(t *rapid.T) {
		size := rapid.SampledFrom([]int32{1, 3, 5}).Draw(t, "replicas")
		h.editSpec(t, func(spec *v1beta1.EtcdClusterSpec) { spec.Replicas = size })
	}
	return map[string]func(*rapid.T){
		"the size changes":          resize,
		"the size changes again":    resize,
		"the disruption controller": func(*rapid.T) { h.ObserveBudgets() },
		"a learner lags":            func(t *rapid.T) { h.Etcd.Lag(h.Address(pick(t, h.pods())), true) },
		"learners catch up": func(*rapid.T) {
			for _, pod := range h.pods() {
				h.Etcd.Lag(h.Address(pod), false)
			}
		},
		"a user adds a learner": func(*rapid.T) {
			if address := h.servingAddress(); address != "" {
				_, _ = h.Etcd.AddLearner(address, "http://foreign-"+h.Next()+".example:2380")
			}
		},
		"a user removes a member": func(t *rapid.T) {
			address := h.servingAddress()
			if address == "" {
				t.Skip("none serves")
			}
			list := h.Etcd.Clusters()[h.Etcd.ClusterID(address)]
			if h.Etcd.Remove(address, list[rapid.IntRange(0, len(list)-1).Draw(t, "which")].ID) == nil {
				h.byHand = true
			}
		},
		"removed members' volumes are to be deleted, or not": func(t *rapid.T) {
			h.editSpec(t, func(spec *v1beta1.EtcdClusterSpec) {
				policy := v1beta1.RetentionPolicy{WhenScaled: v1beta1.RetentionDelete}
				if spec.Storage != nil && spec.Storage.RetentionPolicy != nil {
					policy.WhenDeleted = spec.Storage.RetentionPolicy.WhenDeleted
				}
				if whenScaled(spec) == v1beta1.RetentionDelete {
					policy.WhenScaled = v1beta1.RetentionRetain
				}
				spec.Storage = &v1beta1.Storage{RetentionPolicy: &policy}
			})
		},
	}
}

// sizes are those that a cluster takes one after the other.
var sizes = []int32{1, 3, 5, 3, 1}

func (h *history) resize(size int32) {
	h.spec.Replicas = size
	h.editCluster(func(c *v1beta1.EtcdCluster) { c.Spec.Replicas = size })
}

func TestAClusterGrowsAndShrinks(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, managed := range []bool{false, true} {
		h := newHistory(sizes[0], managed)
		for _, size := range sizes {
			h.resize(size)
			h.settled(t)
			h.put()
		}
	}
}

// workUntilKilled has the operator work until it is killed at a write. It reports false where it came to rest before.
func (h *history) workUntilKilled(write int, kill func(*operator, int)) bool {
	rested := 0
	for left := write; left >= 0 && rested < 6; left -= h.writes {
		_ = h.pass(func(o *operator) { kill(o, left) })
		h.runKubernetes()
		h.CollectGarbage(1 << 10)
		h.observe()
		h.wait(10 * time.Second)
		if rested++; h.writes > 0 {
			rested = 0
		}
	}
	return rested < 6
}

// The operator is killed before or after each write and each call to etcd, and its answer is lost.
func TestEveryKillOfAResizeLeadsToTheSameSize(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for n := range len(sizes) - 1 {
		for at, more := 0, true; more; at++ {
			for _, kill := range kills {
				h := newHistory(sizes[n], false)
				h.settled(t)
				h.put()
				h.resize(sizes[n+1])
				more = h.workUntilKilled(at, kill)
				if h.settle(); len(h.broken) > 0 {
					t.Fatalf("from %d to %d, stopped at write %d: %s", sizes[n], sizes[n+1], at, h.failure())
				}
			}
		}
	}
}

// Another operator stops before each write and each call to etcd of each pass of a resize, and goes on when more of it
// is over, or after a change of mind.
func TestEveryPauseOfAResizeHarmsNoMember(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	stopped := map[simulation.Verb]int{}
	for n := range len(sizes) - 1 {
		for round, more := 0, true; more; round++ {
			for write := 0; ; write++ {
				h := newHistory(sizes[n], false)
				h.settled(t)
				h.put()
				h.resize(sizes[n+1])
				for range round {
					h.quickWork()
				}
				o := h.startOperator()
				verb, stops := o.lookAtWrite(write)
				if !stops {
					more = write > 0 || round < 3
					break
				}
				stopped[verb]++
				if write%2 == 1 {
					h.resize(sizes[n])
				}
				for range 1 + round%5 {
					h.quickWork()
				}
				o.finish()
				h.observe()
				if h.settle(); len(h.broken) > 0 {
					t.Fatalf("from %d to %d, stopped in round %d before write %d, %s: %s", sizes[n], sizes[n+1], round, write, verb, h.failure())
				}
			}
			if round > 60 {
				break
			}
		}
	}
	t.Logf("stopped before %v", stopped)
	for _, verb := range []simulation.Verb{addLearner, promote, removeMember, simulation.Delete, simulation.UpdateStatus} {
		if stopped[verb] < 2 {
			t.Errorf("only %d passes stopped before %s", stopped[verb], verb)
		}
	}
}

// quickWork is a round that takes little time: no call to etcd is too late.
func (h *history) quickWork() {
	_ = h.pass(nil)
	h.runKubernetes()
	h.CollectGarbage(1 << 10)
	h.observe()
	h.wait(time.Second)
}
