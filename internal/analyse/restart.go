package analyse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// restart is why members are restarted. Every rule that restarts members has one, and goes through restartMember.
type restart struct {
	// purpose ends the sentence "prod-1 is restarted ...".
	purpose string
	// isNeeded reports whether the member's pod does not run as it should. The member has a pod and a StatefulSet.
	isNeeded func(*cluster.Snapshot, *cluster.Member) bool
	// intent is what the member's next pod is made from. Upkeep writes it to the StatefulSet first.
	intent func(*cluster.Snapshot, *cluster.Member) cluster.Intent
	// guards are the rule's own. Those that all restarts share come on top.
	guards func(*cluster.Member) []guard
}

// restarts are all restarts, by the reason of the Progressing condition. An operation that is claimed stores it.
// A reason of another release has none: the member is waited for, and not restarted.
var restarts = map[string]restart{v1beta1.ReasonRotatingAuthorities: authorityRestart}

// membersToRestart are the members that need the restart of a reason.
func membersToRestart(s *cluster.Snapshot, reason string) []*cluster.Member {
	var list []*cluster.Member
	for i := range s.Members {
		if needsRestart(s, &s.Members[i], reason) {
			list = append(list, &s.Members[i])
		}
	}
	return list
}

func needsRestart(s *cluster.Snapshot, m *cluster.Member, reason string) bool {
	r, known := restarts[reason]
	return known && m != nil && m.Pod != nil && m.Workload != nil && r.isNeeded(s, m)
}

// restartMember deletes the member's pod, if the guards allow it. Its StatefulSet creates the next one.
func restartMember(s *cluster.Snapshot, m *cluster.Member, reason string) *plan.Decision {
	r, d := restarts[reason], &plan.Decision{Progressing: true, Reason: reason}
	_, want := r.intent(s, m).Encode()
	_, have := m.Workload.Intent.Encode()
	switch refusals := restartRefusals(s, m, r); {
	case m.Pod.Deleting:
		d.Message = fmt.Sprintf("The pod of %s is being deleted. It is restarted %s.", m.Name, r.purpose)
	case have != want:
		d.Message = fmt.Sprintf("Updating the StatefulSet of %s. It is restarted %s.", m.Name, r.purpose)
	case len(refusals) > 0:
		return refused(refusals)
	case certificatesMissing(s):
		d.Message = "Creating the certificates that the members' pods mount."
	default:
		d.Message = fmt.Sprintf("Restarting %s %s. Without it, %s.", m.Name, r.purpose, s.After(cluster.Change{Stops: m.Name}))
		d.Action = plan.RestartMember{Name: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID, Evict: !hasFailed(m)}
	}
	return d
}

// restartRefusals asks the guards of a restart. A member that has failed already costs nothing, so it needs fewer.
func restartRefusals(s *cluster.Snapshot, m *cluster.Member, r restart) []plan.Refusal {
	guards := []guard{
		previousClusterGone, // Make sure that no pod of a deleted cluster of this name still runs.
		noForeignObject,     // Make sure that the next pod mounts this cluster's objects.
		specUsable,          // Make sure that the next pod can start: its Secrets exist and fit.
		volumeStays(m),      // Make sure that the next pod starts on the volume of this one.
	}
	if !hasFailed(m) {
		guards = append(guards,
			noAlarm,           // Make sure that no data is at stake.
			membersHealthy(m), // Make sure that no other member is down, and none is joining.
			quorumSurvives(m), // Make sure that the voters that stay are a quorum.
		)
		guards = append(guards, r.guards(m)...)
	}
	return refusalsOf(s, guards...)
}

// nextToRestart picks the member to restart: failed ones cost nothing, then those that serve no client.
// The leader comes last, because each change of the leader is felt.
func nextToRestart(members []*cluster.Member) *cluster.Member {
	rank := func(m *cluster.Member) int {
		switch {
		case hasFailed(m):
			return 0
		case servesNoClient(m):
			return 1
		case m.Leads():
			return 3
		default:
			return 2
		}
	}
	return slices.MinFunc(members, func(a, b *cluster.Member) int { return rank(a) - rank(b) })
}

// hasFailed reports whether a member's pod has failed, and etcd does not answer either.
// A pod that only the operator cannot reach may serve its clients, and so may one whose node Kubernetes cannot reach.
func hasFailed(m *cluster.Member) bool {
	return m.Pod != nil && !m.Pod.Ready && !m.Answers() && !slices.Contains([]string{"", v1beta1.ReasonNodeLost}, m.Pod.FailureReason)
}

// servesNoClient reports whether a member serves no client, as Kubernetes and the operator see it.
func servesNoClient(m *cluster.Member) bool {
	return m.Pod != nil && !m.Pod.Ready && !m.Serves() && !m.IsLearner()
}

// restartIsDone reports whether the member needs the restart no more and is a healthy voter, or is no member any more.
// Its pod must be ready: the disruption budget allows no other eviction before.
func restartIsDone(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	m := s.Member(op.Member)
	return m == nil || m.Pod != nil && m.Pod.Ready && !m.Pod.Deleting && !needsRestart(s, m, reasonOf(op)) && m.IsHealthyVoter() && s.Outlook().HasQuorum()
}

// restartAbandonedFor abandons a restart that was not begun if the guards refuse it now, and any at its deadline:
// the guards of the next restart want the member back first.
func restartAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	if m := s.Member(op.Member); needsRestart(s, m, reasonOf(op)) && !m.Pod.Deleting {
		if refusals := restartRefusals(s, m, restarts[reasonOf(op)]); len(refusals) > 0 {
			return "It was not begun. " + refusals[0].Message
		}
	}
	return deadlinePassed(s, op)
}

// continueRestart deletes the pod if that was not done yet. Then it waits for the member.
func continueRestart(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	if m := s.Member(op.Member); needsRestart(s, m, reasonOf(op)) {
		return restartMember(s, m, reasonOf(op))
	}
	return &plan.Decision{
		Progressing: true,
		Message:     fmt.Sprintf("%s was restarted. Waiting until it is a healthy voter again.", op.Member),
	}
}

// quorumSurvives refuses to stop a member unless the voters that stay form a quorum without it.
// A voter that did not answer counts as lost, even if its pod is ready.
func quorumSurvives(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		after := s.After(cluster.Change{Stops: m.Name})
		if after.HasQuorum() {
			return nil
		}
		message := fmt.Sprintf("Restarting %s would leave too few voters: %s.", m.Name, after)
		if after.Voters == 1 {
			message = fmt.Sprintf("%s needs a restart, and it is the only member. The operator does not restart it. "+
				"Delete pod %s when a short interruption is acceptable.", m.Name, m.Pod.Name)
		}
		return &plan.Refusal{Guard: "quorumSurvives", Reason: v1beta1.ReasonQuorumAtRisk, Message: message}
	}
}

// volumeStays refuses to restart a member whose PersistentVolumeClaim is being deleted, is gone, or is bound to another
// volume. Kubernetes keeps a deleted one, and the data, only while the pod runs.
func volumeStays(m *cluster.Member) guard {
	return func(*cluster.Snapshot) *plan.Refusal {
		if m.Volume != nil && !m.Volume.Deleting && !m.Volume.IsReplaced() {
			return nil
		}
		return &plan.Refusal{
			Guard:  "volumeStays",
			Reason: v1beta1.ReasonVolumeLost,
			Message: fmt.Sprintf("%s is not restarted, because its PersistentVolumeClaim %s is gone, is being deleted, or is bound to another volume. "+
				"Its next pod would not have its data.", m.Name, cluster.VolumeName(m.Name)),
		}
	}
}

// membersHealthy refuses to restart a member while another one is not a healthy voter in etcd's list, or is joining.
// The member to restart may be unhealthy: what it runs with may be the cause.
func membersHealthy(restarted *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		var names []string
		for i := range s.Members {
			m := &s.Members[i]
			healthy := m.IsHealthyVoter() || m.Name == restarted.Name && servesNoClient(m)
			if !healthy || m.Pod == nil || m.Pod.Deleting || !m.RefusesEmptyVolume() {
				names = append(names, m.Name)
			}
		}
		if s.Membership != nil && len(names) == 0 && (len(s.Membership.Members) != len(s.Members) || s.Outlook().Voters != len(s.Members)) {
			names = append(names, "a member that is joining")
		}
		if len(names) == 0 && s.Membership != nil {
			return nil
		}
		return &plan.Refusal{
			Guard:   "membersHealthy",
			Reason:  v1beta1.ReasonMembersNotHealthy,
			Message: fmt.Sprintf("Members are restarted one by one, and not all are healthy voters. Waiting for %s.", strings.Join(names, ", ")),
		}
	}
}

// noAlarm refuses while etcd has an alarm: data may be at stake.
func noAlarm(s *cluster.Snapshot) *plan.Refusal {
	if s.Membership == nil || len(s.Membership.Alarms) == 0 {
		return nil
	}
	return &plan.Refusal{
		Guard:  "noAlarm",
		Reason: v1beta1.ReasonMembersNotHealthy,
		Message: fmt.Sprintf("etcd reports alarm %s. No member is restarted while an alarm is active. Condition %s says how to clear it.",
			s.Membership.Alarms[0].Kind, v1beta1.ConditionStorageAlarm),
	}
}
