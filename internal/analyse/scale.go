package analyse

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// scale adds or removes one member at a time until there are as many voters as the spec says. A rotation of authorities
// that goes on is finished first. A refusal is no opinion where a later rule restarts a member that is unhealthy, or
// finishes a downgrade.
func scale(s *cluster.Snapshot) *plan.Decision {
	if rotates(s) {
		return nil
	}
	d := scaleStep(s)
	if d != nil && len(d.Refusals) > 0 && (isCuredByRestart(s) || isDowngrading(s)) {
		return nil
	}
	return d
}

// isCuredByRestart reports whether a member that is no healthy voter is to be restarted by a later rule.
func isCuredByRestart(s *cluster.Snapshot) bool {
	for reason := range restarts {
		if slices.ContainsFunc(membersToRestart(s, reason), func(m *cluster.Member) bool { return !m.IsHealthyVoter() && !isInMemory(*m) }) {
			return true
		}
	}
	return false
}

// scaleStep decides the next step. A learner comes first: it is promoted, or removed where the spec asks for no more
// voters.
func scaleStep(s *cluster.Snapshot) *plan.Decision {
	want, voters, leaving := wantedVoters(s), s.Outlook().Voters, memberToLeave(s)
	learner, foreign := s.Learner(), noForeignMember(s)
	switch {
	case s.Membership == nil && voters != want:
		return refused([]plan.Refusal{membershipUnknown(s)})
	case s.Membership == nil:
		return nil
	case foreign != nil:
		return refused([]plan.Refusal{*foreign})
	case learner != nil && (voters >= want || hasLostItsVolume(s, learner)):
		return removeMember(s, learner)
	case learner != nil:
		return resumeJoining(s, learner)
	case voters < want:
		return addMember(s, cluster.MemberName(s.Cluster.Name, s.NextNumber()))
	case leaving != nil:
		d := removeMember(s, leaving)
		if len(d.Refusals) == 0 {
			d.Reason = v1beta1.ReasonReplacingMember
		}
		return d
	case voters > want:
		return removeMember(s, memberToRemove(s))
	default:
		return nil
	}
}

// membershipUnknown refuses to change the membership while no voter tells it.
func membershipUnknown(s *cluster.Snapshot) plan.Refusal {
	return plan.Refusal{
		Guard:  "membershipKnown",
		Reason: v1beta1.ReasonMembersNotHealthy,
		Message: fmt.Sprintf("spec.replicas is %d and %s remembered, but no member of etcd tells its member list. "+
			"Waiting until a quorum answers.", s.Cluster.Spec.Replicas, areMembers(s.Outlook().Voters)),
	}
}

func areMembers(n int) string {
	if n == 1 {
		return "1 member is"
	}
	return fmt.Sprintf("%d members are", n)
}

// noForeignMember refuses while etcd's list has a member that the operator did not add. The operator never touches it.
func noForeignMember(s *cluster.Snapshot) *plan.Refusal {
	e := s.ForeignEntry()
	if e == nil {
		return nil
	}
	role := "voter"
	if e.Learner {
		role = "learner"
	}
	name := cluster.ForeignText(cmp.Or(e.Name, strings.Join(e.PeerURLs, ","), "without a name"))
	return &plan.Refusal{
		Guard:  "noForeignMember",
		Reason: v1beta1.ReasonMembersNotHealthy,
		Message: fmt.Sprintf("etcd's member list has the %s %s with the ID %s, which the operator did not add. No member is added or removed "+
			"beside it. Remove it with etcdctl member remove %s.", role, name, e.ID, e.ID),
	}
}

// hasLostItsVolume reports whether a learner can never start: it has no volume, or an emptied one that it started on.
// One in memory that fails is not corrected either: another one takes its place.
func hasLostItsVolume(s *cluster.Snapshot, m *cluster.Member) bool {
	return m.Volume == nil || m.Volume.Deleting || m.Volume.IsReplaced() || failsForLong(s, m)
}

// isVoterCured reports whether the next rules restart a voter that has failed for what the spec asks for.
func isVoterCured(s *cluster.Snapshot) bool {
	d := configurationRoll(s)
	if d == nil {
		return false
	}
	cure, ok := d.Action.(plan.RestartMember)
	return ok && !cure.Evict && isListedVoter(s, s.Member(cure.Name))
}

// connectedFor is how long etcd wants its members to have been connected before one is added or removed: 5 s.
// A second is for the connections after the start. Source: HealthInterval in etcd's server/etcdserver/server.go.
const connectedFor = 6 * time.Second

// untilConnected returns how long it takes until so many voters have run long enough for etcd to accept a change.
// A start in the future, of a node whose clock is ahead, does not count: etcd decides.
func untilConnected(s *cluster.Snapshot, voters int) time.Duration {
	var waits []time.Duration
	for i := range s.Members {
		if m := &s.Members[i]; m.Answers() && m.Pod != nil && isListedVoter(s, m) {
			runs := s.Now.Sub(m.Pod.StartedAt)
			if runs < 0 {
				runs = connectedFor
			}
			waits = append(waits, max(0, connectedFor-runs))
		}
	}
	if len(waits) < voters {
		return 0 // too few answer: the guards, or etcd, tell it
	}
	slices.Sort(waits)
	return waits[voters-1]
}

func awaitsConnections(name, change string) string {
	return fmt.Sprintf("Before %s %s, the voters must have been connected for %s: etcd demands it. Waiting for it.", name, change, connectedFor)
}

// awaitsLeader is what a change of the membership says while no member leads.
const awaitsLeader = "Waiting until a member of etcd says that it leads. Membership changes are sent to the leader."

// leaderTarget names the member that membership changes are sent to: the leader. Its view decides.
func leaderTarget(s *cluster.Snapshot) string {
	if leader := s.Leader(); leader != nil {
		return leader.Name
	}
	return ""
}

// followerToLead returns the follower that takes over from a leader: the healthy voter that has applied most.
// It lags by no more than a learner may that is promoted: etcd itself waits until it has the whole log.
func followerToLead(s *cluster.Snapshot, leader *cluster.Member) *cluster.Member {
	var best *cluster.Member
	if !leader.Leads() {
		return nil
	}
	for i := range s.Members {
		m := &s.Members[i]
		canLead := m.Name != leader.Name && m.IsHealthyVoter() && isListedVoter(s, m) && m.Pod != nil && !m.Pod.Deleting
		if canLead && m.Probe.AppliedIndex+maxLag >= leader.Probe.CommittedIndex && (best == nil || m.Probe.AppliedIndex > best.Probe.AppliedIndex) {
			best = m
		}
	}
	return best
}

func isListedVoter(s *cluster.Snapshot, m *cluster.Member) bool {
	e := s.EtcdEntry(m)
	return e != nil && !e.Learner
}
