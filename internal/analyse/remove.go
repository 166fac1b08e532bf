package analyse

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// memberToRemove picks the voter to remove: one with wrong data first, then silent ones, the leader last. Of the
// followers it is one from the node with the most members, then from the zone with the most, then the one with the
// highest number.
func memberToRemove(s *cluster.Snapshot) *cluster.Member {
	crowd := map[string]int{}
	node := func(m *cluster.Member) string { return "node " + podOf(m).Node }
	zone := func(m *cluster.Member) string { return "zone " + podOf(m).Zone }
	for i := range s.Members {
		crowd[node(&s.Members[i])]++
		crowd[zone(&s.Members[i])]++
	}
	rank := func(m *cluster.Member) int {
		switch {
		case isCorrupt(s, m):
			return -1
		case !m.Answers():
			return 0
		case m.Leads():
			return 2
		default:
			return 1
		}
	}
	var list []*cluster.Member
	for i := range s.Members {
		list = append(list, &s.Members[i])
	}
	return slices.MinFunc(list, func(a, b *cluster.Member) int {
		return cmp.Or(
			rank(a)-rank(b),
			crowd[node(b)]-crowd[node(a)],
			crowd[zone(b)]-crowd[zone(a)],
			cluster.CompareMembers(s.Cluster.Name, b.Name, a.Name),
		)
	})
}

// podOf returns the member's pod; an empty one where it has none.
func podOf(m *cluster.Member) cluster.Pod {
	if m.Pod == nil {
		return cluster.Pod{}
	}
	return *m.Pod
}

func removalGuards(m *cluster.Member) []guard {
	return []guard{
		noAlarm("added or removed"), // Make sure that no data is at stake.
		removalKeepsQuorum(m),       // Make sure that the voters that stay are a quorum.
		rightDataStay(m),            // Make sure that the right data stay.
		specIsAccepted(m),           // Make sure that an edit which is refused changes nothing.
	}
}

// rightDataStay refuses to remove a voter while the members' data differ, unless its own are the wrong ones.
func rightDataStay(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if !isListedVoter(s, m) || isCorrupt(s, m) {
			return nil
		}
		return dataAgree(s)
	}
}

// specIsAccepted refuses to remove a voter for a spec that has what the operator carries out for no cluster: the same
// edit may have lowered the size by mistake. A learner may go: it is no voter yet.
func specIsAccepted(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if !isListedVoter(s, m) {
			return nil
		}
		refusal := intentRefusal(cluster.IntentOf(s.Cluster),
			" The running cluster stays as it is: no member is removed for this spec. Set the spec back, or correct it.")
		if refusal != nil {
			refusal.Guard = "specIsAccepted"
		}
		return refusal
	}
}

// removeMember removes a member from etcd, if the guards allow it. The leader hands over first.
func removeMember(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if refusals := refusalsOf(s, removalGuards(m)...); len(refusals) > 0 {
		return refused(refusals)
	}
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonScaling}
	after := s.After(cluster.Change{Removes: m.Name})
	entry := s.EtcdEntry(m)
	wait := untilConnected(s, cluster.Quorum(after.Voters)+1)
	switch to := followerToLead(s, m); {
	case entry == nil:
		d.Message = fmt.Sprintf("Waiting until etcd tells whether %s is a member.", m.Name)
	case leaderTarget(s) == "":
		d.Message = awaitsLeader
	case m.Leads() && to == nil:
		d.Message = fmt.Sprintf("%s leads. It is removed once a follower has caught up that can take over.", m.Name)
	case m.Leads():
		d.Message = fmt.Sprintf("Moving the leader from %s to %s, before %s is removed.", m.Name, to.Name, m.Name)
		d.Action = plan.MoveLeader{Name: m.Name, For: v1beta1.OperationRemoveMember, To: to.Name, ToID: s.EtcdEntry(to).ID}
	case m.Answers() && !entry.Learner && wait > 0:
		d.Message, d.RequeueAfter = awaitsConnections(m.Name, "is removed"), wait
	default:
		d.Message = fmt.Sprintf("Removing %s. Then %s.", m.Name, after)
		d.Action = removal(s, m, entry.ID)
	}
	return d
}

// removal asks the leader to remove a member. Its volume notes that first, where it does not yet.
func removal(s *cluster.Snapshot, m *cluster.Member, id cluster.ID) plan.RemoveMember {
	action := plan.RemoveMember{Name: m.Name, ID: id, Leader: leaderTarget(s)}
	if m.Volume != nil && m.Volume.Removing != id {
		action.Volume = m.Volume
	}
	return action
}

// removalKeepsQuorum refuses to remove a voter unless the others form a quorum without it.
func removalKeepsQuorum(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		after := s.After(cluster.Change{Removes: m.Name})
		if after.HasQuorum() {
			return nil
		}
		return &plan.Refusal{
			Guard: "removalKeepsQuorum", Reason: v1beta1.ReasonQuorumAtRisk,
			Message: fmt.Sprintf("Removing %s would leave too few voters: %s. Waiting until the others are healthy.", m.Name, after),
		}
	}
}

// removalIsDone reports whether etcd's list lacks the member, its volume is retired or gone, and nothing of it runs.
// A volume that is being deleted counts as gone: Kubernetes keeps it for as long as a lost node holds the pod.
func removalIsDone(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	if s.Membership == nil || s.Member(op.Member) != nil || isPodLeaving(s, op.Member) {
		return false
	}
	left := s.Find(op.Member)
	if left == nil {
		return true
	}
	v := left.Volume
	isVolumeDone := v == nil || v.Deleting || v.Retired && !mayDeleteVolume(s, v)
	return left.Workload == nil && left.Pod == nil && isVolumeDone
}

// isPodLeaving reports whether the pod of a StatefulSet that was deleted still runs.
func isPodLeaving(s *cluster.Snapshot, member string) bool {
	return slices.ContainsFunc(s.ForeignObjects, func(x cluster.ForeignObject) bool {
		return x.Kind == "Pod" && x.Name == cluster.PodName(member) && x.Terminating
	})
}

// mayDeleteVolume reports whether the volume of a removed member is deleted: the spec says so, and the claim is the one
// that the member used. A claim of the same name that was made again may hold other data. That of a member that is
// replaced is deleted only if the operator itself saw the member healthy on it.
func mayDeleteVolume(s *cluster.Snapshot, v *cluster.Volume) bool {
	if v.InMemory {
		return true // it is a record only
	}
	if op := s.Cluster.Status.Operation; op != nil && replacesMember(op) && op.Member == v.Member {
		return cluster.DeletesReplacedVolumes(s.Cluster) && v.UID != "" && string(v.UID) == op.VolumeUID && !v.IsReplaced()
	}
	return cluster.DeletesScaledVolumes(s.Cluster) && (v.Remembered.Claim == v.UID && v.UID != "" && !v.IsReplaced() || v.NeverStarted())
}

// removalAbandonedFor abandons the removal of a member that is still in etcd's list, if the guards refuse it, the spec
// asks for it again, or at its deadline. Once it is off the list, the removal is completed.
func removalAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	m, want := s.Member(op.Member), int(s.Cluster.Spec.Replicas)
	switch {
	case s.Membership == nil:
		return deadlinePassed(s, op)
	case m == nil:
		return ""
	case isListedVoter(s, m) && s.Outlook().Voters <= want, !isListedVoter(s, m) && s.Outlook().Voters < want && !hasLostItsVolume(s, m):
		return fmt.Sprintf("spec.replicas asks for %d members now.", want)
	}
	if refusals := refusalsOf(s, removalGuards(m)...); len(refusals) > 0 {
		return "It was not carried out. " + refusals[0].Message
	}
	return deadlinePassed(s, op)
}

// continueRemoval goes on with the removal of a member by its step, and then waits until nothing is left of the member.
func continueRemoval(step func(*cluster.Snapshot, *cluster.Member) *plan.Decision) func(*cluster.Snapshot, *v1beta1.Operation) *plan.Decision {
	return func(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
		m := s.Member(op.Member)
		switch {
		case s.Membership == nil:
			return &plan.Decision{Progressing: true, Message: fmt.Sprintf("%s. Waiting until etcd tells whether it has removed %s.", s.Outlook(), op.Member)}
		case m != nil:
			return step(s, m)
		}
		return &plan.Decision{Progressing: true, Message: fmt.Sprintf("Removing the objects of %s, which is no member any more.", op.Member)}
	}
}
