package analyse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// This file has what an administrator asks for by an annotation: a defragmentation, and another leader.

// defragment defragments the members one after the other, if an administrator asks for it. Followers come first: the
// leader hands over before its turn.
func defragment(s *cluster.Snapshot) *plan.Decision {
	if m := nextToDefragment(s); m != nil {
		return defragmentMember(s, m)
	}
	return nil
}

// defragmentFull does so before the rules that wait for a smaller database. It has no opinion where a guard refuses:
// another rule may have the cure.
func defragmentFull(s *cluster.Snapshot) *plan.Decision {
	d := defragment(s)
	if d == nil || len(d.Refusals) > 0 || !awaitsSmallerDatabase(s) {
		return nil
	}
	return d
}

// awaitsSmallerDatabase reports whether etcd has the alarm NOSPACE, which other rules wait for, or the spec asks for a
// quota that the databases fill.
func awaitsSmallerDatabase(s *cluster.Snapshot) bool {
	if hasAlarm(s, func(kind cluster.AlarmKind) bool { return kind == cluster.AlarmNoSpace }) {
		return true
	}
	return slices.ContainsFunc([]func(*cluster.Snapshot) *plan.Decision{scale, upgrade, configurationRoll}, func(rule func(*cluster.Snapshot) *plan.Decision) bool {
		d := rule(s)
		return d != nil && refusedFor(d, v1beta1.ReasonQuotaTooSmall)
	})
}

func hasAlarm(s *cluster.Snapshot, is func(cluster.AlarmKind) bool) bool {
	return s.Membership != nil && slices.ContainsFunc(s.Membership.Alarms, func(a cluster.Alarm) bool { return is(a.Kind) })
}

// defragmentRequest splits the annotation that asks for a defragmentation: what the administrator wrote, and the
// members that are done.
func defragmentRequest(s *cluster.Snapshot) (asked string, done []string) {
	asked, names, _ := strings.Cut(s.Cluster.Annotations[v1beta1.DefragmentAnnotation], v1beta1.DefragmentedMark)
	return asked, strings.Fields(names)
}

// defragmentNote is the annotation with the members that are done.
func defragmentNote(asked string, done []string) string {
	return asked + v1beta1.DefragmentedMark + strings.Join(done, " ")
}

// isDefragmented reports whether the annotation notes that the member is done.
func isDefragmented(s *cluster.Snapshot, name string) bool {
	_, done := defragmentRequest(s)
	return slices.Contains(done, name)
}

// nextToDefragment returns the member whose turn it is; nil where nobody asks, and where all are done.
func nextToDefragment(s *cluster.Snapshot) *cluster.Member {
	asked, done := defragmentRequest(s)
	if asked == "" { // the usual case
		return nil
	}
	var next *cluster.Member
	for i := range s.Members {
		m := &s.Members[i]
		if !slices.Contains(done, m.Name) && (next == nil || next.Leads() && !m.Leads()) {
			next = m
		}
	}
	return next
}

// defragmentMember defragments a member, if the guards allow it. The leader hands over first: its clients would wait,
// and so would every write.
func defragmentMember(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonDefragmenting}
	to := followerToLead(s, m)
	switch refusals := refusalsOf(s, defragmentationGuards(m)...); {
	case len(refusals) > 0:
		return refused(refusals)
	case to != nil:
		d.Message = fmt.Sprintf("Moving the leader from %s to %s, before %s is defragmented.", m.Name, to.Name, m.Name)
		d.Action = plan.MoveLeader{Name: m.Name, For: v1beta1.OperationDefragment, To: to.Name, ToID: s.EtcdEntry(to).ID}
	default:
		asked, done := defragmentRequest(s)
		d.Message = fmt.Sprintf("Defragmenting %s. It answers nothing meanwhile. %d of %s have been defragmented.", m.Name, len(s.Members)-undone(s), count(len(s.Members), "member"))
		d.Action = plan.Defragment{Name: m.Name, Timeout: m.DefragmentTime(), Note: defragmentNote(asked, append(done, m.Name))}
	}
	return d
}

// undone counts the members that are still to be defragmented.
func undone(s *cluster.Snapshot) int {
	n := 0
	for i := range s.Members {
		if !isDefragmented(s, s.Members[i].Name) {
			n++
		}
	}
	return n
}

func defragmentationGuards(m *cluster.Member) []guard {
	return []guard{
		everyVoterCaughtUp,  // Make sure that the others serve meanwhile, and that the last one is back.
		noAlarmButSpace,     // Make sure that no data is at stake.
		noDowngradeEnabled,  // Make sure that etcd need not wait for the member.
		othersKeepQuorum(m), // Make sure that writes go on.
		followerCanLead(m),  // Make sure that the leader hands over to a follower that lacks nothing.
	}
}

// everyVoterCaughtUp refuses while a member is not a healthy voter that has applied what the leader has committed, and
// while one is joining.
func everyVoterCaughtUp(s *cluster.Snapshot) *plan.Refusal {
	return awaitMembers(s, "everyVoterCaughtUp", "Members are defragmented one by one, while all are healthy voters that have caught up with the leader.",
		func(m *cluster.Member) bool { return isCaughtUp(s, m) })
}

// awaitMembers refuses while a member is not a healthy voter, or not as it should be, and while one is joining. rule is
// a sentence.
func awaitMembers(s *cluster.Snapshot, name, rule string, isAsItShould func(*cluster.Member) bool) *plan.Refusal {
	var names []string
	for i := range s.Members {
		m := &s.Members[i]
		if !m.IsHealthyVoter() || m.Pod == nil || m.Pod.Deleting || !m.RefusesEmptyVolume() || !isAsItShould(m) {
			names = append(names, m.Name)
		}
	}
	switch {
	case len(names) > 0:
	case s.Membership == nil:
		names = []string{"an answer of etcd's member list"}
	case len(s.Membership.Members) != len(s.Members) || s.Outlook().Voters != len(s.Members):
		names = []string{"a member that is joining"}
	default:
		return nil
	}
	return &plan.Refusal{
		Guard: name, Reason: v1beta1.ReasonMembersNotHealthy,
		Message: fmt.Sprintf("%s Waiting for %s. %s", rule, strings.Join(names, ", "), seeMembers),
	}
}

// noAlarmButSpace refuses while etcd has another alarm than NOSPACE, which a defragmentation helps against.
func noAlarmButSpace(s *cluster.Snapshot) *plan.Refusal {
	if !hasAlarm(s, func(kind cluster.AlarmKind) bool { return kind != cluster.AlarmNoSpace }) {
		return nil
	}
	return &plan.Refusal{
		Guard: "noAlarmButSpace", Reason: v1beta1.ReasonAlarmActive,
		Message: fmt.Sprintf("etcd reports another alarm than %s. No member is defragmented meanwhile. Condition %s says how to clear it.",
			cluster.AlarmNoSpace, v1beta1.ConditionStorageAlarm),
	}
}

// noDowngradeEnabled refuses while a downgrade is enabled in etcd, whoever enabled it.
func noDowngradeEnabled(s *cluster.Snapshot) *plan.Refusal {
	if enabledDowngrade(s) == nil {
		return nil
	}
	return &plan.Refusal{
		Guard: "noDowngradeEnabled", Reason: v1beta1.ReasonDowngrading,
		Message: "A downgrade is enabled in etcd. No member is defragmented until it has ended, or is cancelled with: etcdctl downgrade cancel.",
	}
}

// othersKeepQuorum refuses to keep a member from answering unless the others form a quorum. The only member has no
// others: an administrator asks for it.
func othersKeepQuorum(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		after := s.After(cluster.Change{Stops: m.Name})
		if after.HasQuorum() || after.Voters == 1 {
			return nil
		}
		return &plan.Refusal{
			Guard: "othersKeepQuorum", Reason: v1beta1.ReasonQuorumAtRisk,
			Message: fmt.Sprintf("While %s is defragmented, too few voters would be left: %s. Wait until the cluster has the size of spec.replicas.", m.Name, after),
		}
	}
}

// defragmentationIsDone reports whether the member is noted as done, and is a healthy voter again that has caught up.
func defragmentationIsDone(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	m := s.Member(op.Member)
	return m == nil || isDefragmented(s, m.Name) && m.IsHealthyVoter() && isCaughtUp(s, m) && s.Outlook().HasQuorum()
}

// defragmentationAbandonedFor abandons one that nobody asks for any more, one that the guards refuse before it begins,
// and any at its deadline. While the member is being defragmented it answers nothing, and is waited for.
func defragmentationAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	m := s.Member(op.Member)
	if asked, _ := defragmentRequest(s); asked == "" && m.IsHealthyVoter() {
		return "Nobody asks for it any more."
	}
	if m.IsHealthyVoter() && !isDefragmented(s, m.Name) {
		if refusals := refusalsOf(s, defragmentationGuards(m)...); len(refusals) > 0 {
			return "It was not carried out. " + refusals[0].Message
		}
	}
	return withCause(deadlinePassed(s, op), m)
}

// continueDefragmentation goes on where the member is not noted as done, which is harmless where it is done already.
func continueDefragmentation(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	d := &plan.Decision{Progressing: true}
	m := s.Member(op.Member)
	switch {
	case m == nil || !m.IsHealthyVoter():
		d.Message = fmt.Sprintf("Waiting until %s is a healthy voter again. It answers nothing while it is defragmented.", op.Member)
	case isDefragmented(s, m.Name):
		d.Message = fmt.Sprintf("%s was defragmented. Waiting until it has caught up with the leader.", op.Member)
	default:
		return defragmentMember(s, m)
	}
	return d
}

// memberToLead returns the member that an administrator wants to lead; nil where the annotation names none.
func memberToLead(s *cluster.Snapshot) *cluster.Member {
	name := s.Cluster.Annotations[v1beta1.MoveLeaderAnnotation]
	if name == "" { // the usual case
		return nil
	}
	m := s.Member(name)
	if m == nil || s.EtcdEntry(m) == nil {
		return nil
	}
	return m
}

// moveLeaderAsAsked hands the leadership over to the member that an administrator names.
func moveLeaderAsAsked(s *cluster.Snapshot) *plan.Decision {
	m := memberToLead(s)
	if m == nil || m.Leads() {
		return nil
	}
	leader := s.Leader()
	if leader == nil {
		return &plan.Decision{Progressing: true, Reason: v1beta1.ReasonMovingLeader, Message: "Waiting until a member of etcd says that it leads. It hands over."}
	}
	// Make sure that writes stop for no longer than an election.
	if refusals := refusalsOf(s, canLead(m)); len(refusals) > 0 {
		return refused(refusals)
	}
	return &plan.Decision{
		Progressing: true, Reason: v1beta1.ReasonMovingLeader,
		Message: fmt.Sprintf("Moving the leader from %s to %s, as the annotation %s asks.", leader.Name, m.Name, v1beta1.MoveLeaderAnnotation),
		Action:  plan.MoveLeader{Name: leader.Name, For: v1beta1.OperationMoveLeader, To: m.Name, ToID: s.EtcdEntry(m).ID},
	}
}

// canLead refuses to make a member the leader unless it is a healthy voter that has caught up, and all others are
// healthy voters. The leader refuses writes while it waits for a member that lags.
func canLead(to *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		rule := fmt.Sprintf("The annotation %s asks for the leader %s. The leadership moves only while all members are healthy voters and %s has caught up.",
			v1beta1.MoveLeaderAnnotation, to.Name, to.Name)
		return awaitMembers(s, "canLead", rule, func(m *cluster.Member) bool { return m.Name != to.Name || isCaughtUp(s, m) })
	}
}

// leaderIsMoved reports whether another member leads than the one that was to hand over.
func leaderIsMoved(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	leader := s.Leader()
	return leader != nil && leader.Serves() && leader.Name != op.Member
}

// moveAbandonedFor abandons a hand-over that nobody asks for any more, one that a guard refuses now, and any at its
// deadline.
func moveAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	m := memberToLead(s)
	if m == nil || m.Name == op.Member {
		return "Nobody asks for it any more."
	}
	if refusal := canLead(m)(s); refusal != nil && s.Leader() != nil {
		return "It was not carried out. " + refusal.Message
	}
	return deadlinePassed(s, op)
}

func continueMove(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	if d := moveLeaderAsAsked(s); d != nil {
		return d
	}
	return &plan.Decision{Progressing: true, Message: fmt.Sprintf("Waiting until another member than %s leads.", op.Member)}
}

// maintenanceUpkeep removes an annotation that was obeyed.
func maintenanceUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	if s.Cluster.Status.Operation != nil || s.Membership == nil {
		return nil
	}
	if m := memberToLead(s); m != nil && m.Leads() && m.Serves() {
		return []plan.Upkeep{removeAnnotation(s, v1beta1.MoveLeaderAnnotation)}
	}
	asked, done := defragmentRequest(s)
	if asked != "" && len(done) > 0 && nextToDefragment(s) == nil {
		return []plan.Upkeep{removeAnnotation(s, v1beta1.DefragmentAnnotation)}
	}
	return nil
}

// addMoveLeader tells of an annotation that names no member.
func (p *problems) addMoveLeader(s *cluster.Snapshot) {
	value, isSet := s.Cluster.Annotations[v1beta1.MoveLeaderAnnotation]
	if !isSet || s.Membership == nil || memberToLead(s) != nil {
		return
	}
	var names []string
	for i := range s.Members {
		names = append(names, s.Members[i].Name)
	}
	p.add(v1beta1.ReasonNoSuchMember, "The annotation %s is %q, and names no member. The leader stays. The members are %s. "+
		"Set it to one of them, or remove it.", v1beta1.MoveLeaderAnnotation, cluster.ForeignText(value), strings.Join(names, ", "))
}
