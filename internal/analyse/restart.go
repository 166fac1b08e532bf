package analyse

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// restart is why members are restarted. Every rule that restarts members has one, and goes through restartMember.
type restart struct {
	// purpose ends the sentence "prod-1 is restarted ...". Where tellsVersion is set, the version of etcd follows it.
	purpose      string
	tellsVersion bool
	// isNeeded reports whether the member's pod does not run as it should. The member has a pod and a StatefulSet.
	isNeeded func(*cluster.Snapshot, *cluster.Member) bool
	// target is what the member's next pod is to be made from. Its authorities are those of the moment: see next.
	target intentOf
	// guards are the rule's own. Those that all restarts share come on top.
	guards func(*cluster.Member) []guard
	// targetGuards are those of the rule's guards that a failed member needs too. They look at what the spec asks for, so
	// they are not asked once the operation has written the template.
	targetGuards func(*cluster.Member) []guard
	// operation is what is claimed.
	operation v1beta1.OperationType
	// writesTemplate tells that the StatefulSet gets the intent under the claim, right before the pod goes.
	// Otherwise upkeep has written it before.
	writesTemplate bool
	// stopsTheOnly tells that the only member is restarted too: the user asked for it.
	stopsTheOnly bool
	// mayDelete tells that a pod which is not ready is deleted, and not evicted: with it down, the budget allows none.
	mayDelete bool
}

// intentOf is what a pod of the member is made from.
type intentOf func(*cluster.Snapshot, *cluster.Member) cluster.Intent

// next is what the member's next pod is made from. Once the operation under way has written the template, the template
// counts, and not the spec.
func (r restart) next(s *cluster.Snapshot, m *cluster.Member) cluster.Intent {
	if r.writesTemplate && isBegun(s, m, r.operation) {
		return m.Workload.Intent
	}
	return withAuthorities(s, r.target(s, m))
}

// restarts are all restarts, by the reason of the Progressing condition. An operation that is claimed stores it.
// A reason of another release has none: the member is waited for, and not restarted.
var restarts map[string]restart

func init() { // not a literal: the guards lead back to the table
	restarts = map[string]restart{
		v1beta1.ReasonUpgrading:           upgradeRestart,
		v1beta1.ReasonDowngrading:         upgradeRestart,
		v1beta1.ReasonRollingMembers:      configurationRestart,
		v1beta1.ReasonRollingBack:         rollBackRestart,
		v1beta1.ReasonRotatingAuthorities: authorityRestart,
	}
}

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
	if !known || m == nil || m.Workload == nil || m.Pod == nil && (!r.writesTemplate || m.Workload.CreateFailure == "") {
		return false
	}
	return r.isNeeded(s, m)
}

// restartMember deletes the member's pod, if the guards allow it. Its StatefulSet creates the next one.
// The leader hands over first.
func restartMember(s *cluster.Snapshot, m *cluster.Member, reason string) *plan.Decision {
	r, d := restarts[reason], &plan.Decision{Progressing: true, Reason: reason}
	next, to := r.next(s, m), followerToLead(s, m)
	purpose := r.purpose
	if r.tellsVersion {
		purpose += " " + next.Version
	}
	switch refusals := restartRefusals(s, m, r); {
	case m.Pod != nil && m.Pod.Deleting:
		d.Message = fmt.Sprintf("The pod of %s is being deleted. It is restarted %s.", m.Name, purpose)
		if m.Pod.FailureReason != "" {
			d.Message += " " + whyNotHealthy(m)
		}
	case !r.writesTemplate && !sameHash(m.Workload.Intent, next):
		d.Message = fmt.Sprintf("Updating the StatefulSet of %s. It is restarted %s.", m.Name, purpose)
	case len(refusals) > 0:
		return refused(refusals)
	case certificatesMissing(s):
		d.Message = "Creating the certificates that the members' pods mount."
	case to != nil && !costsNothing(m, r):
		d.Message = fmt.Sprintf("Moving the leader from %s to %s, before %s is restarted %s.", m.Name, to.Name, m.Name, purpose)
		d.Action = plan.MoveLeader{Name: m.Name, For: r.operation, To: to.Name, ToID: s.EtcdEntry(to).ID}
	default:
		d.Message = fmt.Sprintf("Restarting %s %s. Without it, %s.", m.Name, purpose, s.After(cluster.Change{Stops: m.Name}))
		d.Action = restartAction(s, m, r)
	}
	if d.Action != nil {
		d.Message += progressOf(s, m, reason)
	}
	return d
}

func sameHash(a, b cluster.Intent) bool {
	_, x := a.Encode()
	_, y := b.Encode()
	return x == y
}

// restartAction takes the pod down. Where the template was not written for the operation yet, it is written first.
func restartAction(s *cluster.Snapshot, m *cluster.Member, r restart) plan.RestartMember {
	action := plan.RestartMember{Name: m.Name, For: r.operation, Evict: !costsNothing(m, r)}
	if m.Pod != nil {
		action.Pod, action.UID = m.Pod.Name, m.Pod.UID
	}
	if r.writesTemplate && !isBegun(s, m, r.operation) {
		in := memberInput(s, m.Name, r.next(s, m), hasStarted(s, m))
		in.Operation = cluster.OperationMark(r.operation, claimedSince(s, m))
		if r.operation == v1beta1.OperationRollBack || hasNoWayBack(s, m) {
			in.FailedIntent = cluster.AddFailedIntent(in.FailedIntent, m.Workload.Intent, whyNotHealthy(m))
		}
		action.StatefulSet, action.Live = render.MemberStatefulSet(in), m.Workload.Live
	}
	return action
}

// claimedSince returns when the operation on the member began; without one, it begins now.
func claimedSince(s *cluster.Snapshot, m *cluster.Member) time.Time {
	if op := s.Cluster.Status.Operation; op != nil && op.Member == m.Name {
		return op.StartedAt.Time
	}
	return s.Now
}

// isBegun reports whether the operation under way has written the member's template, for an operation of the type.
// From then on that is its target: a spec that changes now is taken up afterwards.
func isBegun(s *cluster.Snapshot, m *cluster.Member, t v1beta1.OperationType) bool {
	op := s.Cluster.Status.Operation
	return op != nil && op.Member == m.Name && m.Workload != nil && m.Workload.Live != nil &&
		m.Workload.Live.Annotations[cluster.AnnotationOperation] == cluster.OperationMark(t, op.StartedAt.Time)
}

// progressOf tells how many members have been restarted, in a sentence after others. The member m, which is being
// restarted, does not count yet. A roll back restarts no other member, so it has no progress.
func progressOf(s *cluster.Snapshot, m *cluster.Member, reason string) string {
	left := 0
	if reason == v1beta1.ReasonRollingBack {
		return ""
	}
	for i := range s.Members {
		if other := &s.Members[i]; other.Name == m.Name || needsRestart(s, other, reason) {
			left++
		}
	}
	return fmt.Sprintf(" %d of %s have been restarted.", len(s.Members)-left, count(len(s.Members), "member"))
}

// restartRefusals asks the guards of a restart. A member that has failed already costs nothing, so it needs fewer.
func restartRefusals(s *cluster.Snapshot, m *cluster.Member, r restart) []plan.Refusal {
	guards := []guard{
		previousClusterGone, // Make sure that no pod of a deleted cluster of this name still runs.
		noForeignObject,     // Make sure that the next pod mounts this cluster's objects.
		specUsable,          // Make sure that the next pod can start: its Secrets exist and fit.
		volumeStays(m),      // Make sure that the next pod starts on the volume of this one.
	}
	if r.targetGuards != nil {
		if !isBegun(s, m, r.operation) {
			guards = append(guards, r.targetGuards(m)...)
		}
		if !goesForwardAgain(s, m) {
			guards = append(guards, hasNotFailed(r.target)) // Make sure that what failed is not tried again.
		}
	}
	if !costsNothing(m, r) {
		guards = append(guards,
			noStepOverdue(m),     // Make sure that a member which did not come back stops the roll.
			noForeignDowngrade,   // Make sure that nobody else changes the version meanwhile.
			noAlarm("restarted"), // Make sure that no data is at stake.
			dataAgree,            // Make sure that the voters that stay have the right data.
			membersHealthy(m),    // Make sure that no other member is down, and none is joining.
			followerCanLead(m),   // Make sure that the leader hands over to a follower that lacks nothing.
		)
		if !r.stopsTheOnly || s.Outlook().Voters > 1 {
			guards = append(guards, quorumSurvives(m)) // Make sure that the voters that stay are a quorum.
		}
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
	if m.Pod == nil {
		return m.Workload != nil && m.Workload.CreateFailure != ""
	}
	return !m.Pod.Ready && !m.Answers() && !slices.Contains([]string{"", v1beta1.ReasonNodeLost}, m.Pod.FailureReason)
}

// costsNothing reports whether the member's pod may go without asking the guards of healthy members and the budget: it
// has failed, or it is down and goes back.
func costsNothing(m *cluster.Member, r restart) bool {
	return hasFailed(m) || r.mayDelete && isDown(m)
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

// restartAbandonedFor abandons a restart that was not begun if the guards refuse it now, one that another spec or other
// members must end, and any at its deadline: the guards of the next restart want the member back first.
// A member that can go back at its deadline goes back: see rollBack.
func restartAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	m := s.Member(op.Member)
	if needsRestart(s, m, reasonOf(op)) && (m.Pod == nil || !m.Pod.Deleting) {
		if refusals := restartRefusals(s, m, restarts[reasonOf(op)]); len(refusals) > 0 {
			return "It was not carried out. " + refusals[0].Message
		}
		if closed := upgradeGateClosed(s, m, op); closed != "" {
			return "It was not carried out. " + closed
		}
	}
	switch {
	case m == nil:
	case isCuredBySpec(s, m):
		return fmt.Sprintf("%s failed, and the spec asks for something else now. %s", m.Name, whyNotHealthy(m))
	case awaitsFailedMembers(s, m, reasonOf(op)):
		return fmt.Sprintf("%s runs, and the other failed members must restart too before there is a quorum.", m.Name)
	case rollBackIsDue(s, m) && len(restartRefusals(s, m, rollBackRestart)) == 0:
		return ""
	}
	return withCause(deadlinePassed(s, op), m)
}

// withCause adds to a text, if there is one, why the member is not healthy.
func withCause(text string, m *cluster.Member) string {
	if text == "" || m == nil || m.IsHealthyVoter() {
		return text
	}
	return text + " " + whyNotHealthy(m)
}

// whyNotHealthy tells why a member is no healthy voter, in a sentence that changes only with the cause.
func whyNotHealthy(m *cluster.Member) string {
	text := ""
	switch {
	case m.Pod == nil && m.Workload != nil && m.Workload.CreateFailure != "":
		text = fmt.Sprintf("Kubernetes cannot create the pod of %s: %s", m.Name, m.Workload.CreateFailure)
	case m.Pod == nil:
		text = fmt.Sprintf("There is no pod of %s", m.Name)
	case m.Pod.FailureReason != "":
		text = fmt.Sprintf("The pod of %s does not run (%s): %s", m.Name, m.Pod.FailureReason, m.Pod.FailureDetail)
	case !m.Answers():
		text = fmt.Sprintf("The pod of %s has not failed, but its etcd does not answer", m.Name)
	default:
		text = fmt.Sprintf("%s answers, but it serves no reads: it has no quorum", m.Name)
	}
	return strings.TrimRight(text, ".") + "."
}

// continueRestart deletes the pod if that was not done yet. Then it waits for the member.
func continueRestart(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	m := s.Member(op.Member)
	if needsRestart(s, m, reasonOf(op)) {
		return restartMember(s, m, reasonOf(op))
	}
	d := &plan.Decision{
		Progressing: true,
		Message:     fmt.Sprintf("%s was restarted. Waiting until it is a healthy voter again.", op.Member),
	}
	if m == nil {
		return d
	}
	if m.Pod != nil && m.Pod.FailureReason != "" {
		d.Message += " " + whyNotHealthy(m)
	}
	d.Message += progressOf(s, m, reasonOf(op))
	return d
}

// followerCanLead refuses to restart a leader while no follower can take over. The answers of one round are some
// milliseconds apart, so under load a follower that lacks nothing seems to lag by some hundred entries. etcd itself
// transfers the leadership only once the follower has the leader's last entry.
func followerCanLead(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if !m.Leads() || s.Outlook().Voters < 2 || followerToLead(s, m) != nil {
			return nil
		}
		return &plan.Refusal{
			Guard: "followerCanLead", Reason: v1beta1.ReasonMembersNotHealthy,
			Message: fmt.Sprintf("%s leads, and no follower has caught up that can take over. Waiting until one has.", m.Name),
		}
	}
}

// noStepOverdue refuses to restart a member while another one did not become healthy after its own restart.
func noStepOverdue(restarted *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		for i := range s.Members {
			if m := &s.Members[i]; m.Name != restarted.Name && isOverdue(s, m) {
				return overdue(s, m)
			}
		}
		return nil
	}
}

func overdue(s *cluster.Snapshot, m *cluster.Member) *plan.Refusal {
	return &plan.Refusal{
		Guard: "noStepOverdue", Reason: v1beta1.ReasonDeadlineExceeded,
		Message: fmt.Sprintf("%s was restarted, and was no healthy voter within %s. %s No other member is restarted until it is one.",
			m.Name, cluster.ProgressDeadline(s.Cluster), whyNotHealthy(m)),
	}
}

// isOverdue reports whether the member's last restart passed its deadline, and the member was not healthy since.
func isOverdue(s *cluster.Snapshot, m *cluster.Member) bool {
	if m.Workload == nil || m.Workload.Live == nil || m.IsHealthyVoter() {
		return false
	}
	t, startedAt, isMarked := cluster.MarkedOperation(m.Workload.Live.Annotations[cluster.AnnotationOperation])
	if !isMarked { // upkeep wrote the template, for new authorities: the pod of now is the restart
		if m.Workload.HealthyIntent == nil || m.Pod == nil || startedWithOldAuthorities(s, m) || !isMadeFromTemplate(m) {
			return false
		}
		t, startedAt = v1beta1.OperationRollMember, m.Pod.CreatedAt
	}
	return !wasHealthyWithTemplate(m) && isLate(s, t, startedAt)
}

// wasHealthyWithTemplate reports whether the member was healthy since its template was written.
func wasHealthyWithTemplate(m *cluster.Member) bool {
	annotations := m.Workload.Live.Annotations
	return annotations[cluster.AnnotationHealthyIntent] == annotations[cluster.AnnotationIntent]
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
		if isInMemory(*m) {
			return keepsMemory(m)
		}
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

// seeMembers ends a message that waits for a member to become healthy.
const seeMembers = "If that takes long, status.members has the reason."

// membersHealthy refuses to restart a member while another one is not a healthy voter in etcd's list, or is joining.
// The member to restart may be unhealthy: what it runs with may be the cause, and a founder that hangs has never
// started. Where no other member has a pod, the restart costs no quorum that there is.
func membersHealthy(restarted *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		var names []string
		for i := range s.Members {
			m := &s.Members[i]
			isToBeCured := m.Name == restarted.Name && servesNoClient(m)
			isHealthy := isToBeCured || m.IsHealthyVoter() && m.RefusesEmptyVolume()
			if !isHealthy || m.Pod == nil || m.Pod.Deleting {
				names = append(names, m.Name)
			}
		}
		if s.Membership != nil && len(names) == 0 && (len(s.Membership.Members) != len(s.Members) || s.Outlook().Voters != len(s.Members)) {
			names = append(names, "a member that is joining")
		}
		isOnlyPod := servesNoClient(restarted) && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Name != restarted.Name && m.Pod != nil })
		if isOnlyPod || len(names) == 0 && s.Membership != nil {
			return nil
		}
		if s.Membership == nil && len(names) == 0 {
			names = append(names, "an answer of etcd's member list")
		}
		return &plan.Refusal{
			Guard:   "membersHealthy",
			Reason:  v1beta1.ReasonMembersNotHealthy,
			Message: fmt.Sprintf("Members are restarted one by one, and not all are healthy voters. Waiting for %s. %s", strings.Join(names, ", "), seeMembers),
		}
	}
}

// noAlarm refuses while etcd has an alarm: data may be at stake. done says what is not done to a member meanwhile.
func noAlarm(done string) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if s.Membership == nil || len(s.Membership.Alarms) == 0 {
			return nil
		}
		return &plan.Refusal{
			Guard:  "noAlarm",
			Reason: v1beta1.ReasonMembersNotHealthy,
			Message: fmt.Sprintf("etcd reports alarm %s. No member is %s while an alarm is active. "+
				"Condition %s says how to clear it.", s.Membership.Alarms[0].Kind, done, v1beta1.ConditionStorageAlarm),
		}
	}
}
