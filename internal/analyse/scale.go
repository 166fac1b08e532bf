package analyse

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// maxLag is how many entries of the log a learner may lack when it is promoted. etcd's own check is weaker: it accepts
// a learner that has 90 % of the log.
const maxLag = 1000

// scale adds or removes one member at a time until there are as many voters as the spec says.
// A learner comes first: it is promoted, or removed where the spec asks for no more voters.
func scale(s *cluster.Snapshot) *plan.Decision {
	want, voters := int(s.Cluster.Spec.Replicas), s.Outlook().Voters
	learner := s.Learner()
	switch {
	case s.Membership == nil && voters != want:
		return refused([]plan.Refusal{membershipUnknown(s)})
	case s.Membership == nil:
		return nil
	case learner != nil && !isOwnLearner(s, learner):
		return refused([]plan.Refusal{foreignLearner(learner)})
	case learner != nil && (voters >= want || hasLostItsVolume(learner)):
		return removeMember(s, learner)
	case learner != nil:
		return resumeJoining(s, learner)
	case voters < want:
		return addMember(s, cluster.MemberName(s.Cluster.Name, s.NextNumber()))
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
		Message: fmt.Sprintf("spec.replicas is %d and %d members are remembered, but no member of etcd tells its member list. "+
			"Waiting until a quorum answers.", s.Cluster.Spec.Replicas, len(s.Members)),
	}
}

// isOwnLearner reports whether the operator registered the learner: its peer URL has the operator's form.
func isOwnLearner(s *cluster.Snapshot, m *cluster.Member) bool {
	_, ok := cluster.MemberNumber(s.Cluster.Name, m.Name)
	return ok
}

// foreignLearner refuses while another client's learner is pending. The operator never touches it.
func foreignLearner(m *cluster.Member) plan.Refusal {
	return plan.Refusal{
		Guard:  "noForeignLearner",
		Reason: v1beta1.ReasonMembersNotHealthy,
		Message: fmt.Sprintf("etcd's member list has the learner %s, which the operator did not add. No member is added, removed or restarted "+
			"beside it. Promote it or remove it with etcdctl.", m.Name),
	}
}

// hasLostItsVolume reports whether a learner can never start: it has no volume, or an emptied one that it started on.
func hasLostItsVolume(m *cluster.Member) bool {
	return m.Volume == nil || m.Volume.Deleting || m.Volume.IsReplaced()
}

// resumeJoining goes on with a learner that no operation is for. Its operation ended at its deadline. The operator
// waits for the learner without one, so that other members can be cured.
func resumeJoining(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	d := joinMember(s, m.Name)
	if d.Action == nil && len(d.Refusals) == 0 {
		d.Progressing, d.Reason = false, v1beta1.ReasonDeadlineExceeded
	}
	return d
}

// addMember registers a new member as a learner, if the guards allow it.
func addMember(s *cluster.Snapshot, name string) *plan.Decision {
	if refusals := joinRefusals(s); len(refusals) > 0 {
		return refused(refusals)
	}
	intent := joinerIntent(s)
	action := plan.AddMember{
		Name: name, NextNumber: s.NextNumber(), Leader: leaderTarget(s),
		PeerURL: render.PeerURL(s.Cluster, name, intent),
	}
	if n, ok := cluster.MemberNumber(s.Cluster.Name, name); ok {
		action.NextNumber = max(action.NextNumber, n+1)
	}
	if m := s.Find(name); m == nil || m.Volume == nil {
		action.Volume = render.JoiningVolume(s.Cluster, name, tokenOf(s), action.PeerURL)
	}
	return &plan.Decision{
		Progressing: true,
		Reason:      v1beta1.ReasonScaling,
		Message:     fmt.Sprintf("Adding %s: %d voters of %d.", name, s.Outlook().Voters, s.Cluster.Spec.Replicas),
		Action:      action,
	}
}

// joinRefusals asks the guards of a new member.
func joinRefusals(s *cluster.Snapshot) []plan.Refusal {
	guards := []guard{
		previousClusterGone, // Make sure that no pod of a deleted cluster of this name still runs.
		noForeignObject,     // Make sure that the names are free.
		noAlarm,             // Make sure that no data is at stake.
		everyMemberHealthy,  // Make sure that the new member costs no quorum: etcd itself wants all voters connected.
	}
	guards = append(guards, podGuards...)
	return refusalsOf(s, guards...)
}

// everyMemberHealthy refuses while a member is not a healthy voter that refuses an empty volume.
func everyMemberHealthy(s *cluster.Snapshot) *plan.Refusal {
	var names []string
	for i := range s.Members {
		m := &s.Members[i]
		if !m.IsHealthyVoter() || m.Pod == nil || m.Pod.Deleting || !m.RefusesEmptyVolume() {
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &plan.Refusal{
		Guard:   "everyMemberHealthy",
		Reason:  v1beta1.ReasonMembersNotHealthy,
		Message: fmt.Sprintf("A member is added only while all others are healthy voters. Waiting for %s.", strings.Join(names, ", ")),
	}
}

// joinMember brings a member that is being added one step on, or says what is waited for.
func joinMember(s *cluster.Snapshot, name string) *plan.Decision {
	m := s.Member(name)
	if m == nil {
		return addMember(s, name)
	}
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonScaling}
	entry := s.EtcdEntry(m)
	switch {
	case s.Membership == nil || entry == nil:
		d.Message = fmt.Sprintf("Waiting until etcd tells whether %s is registered.", name)
	case m.Volume == nil:
		d.Message = fmt.Sprintf("The volume of %s is gone before it started. It is removed again.", name)
	case m.Workload == nil && !m.Volume.Started():
		d.Message = fmt.Sprintf("Starting %s as a learner.", name)
		in := memberInput(s, name, joinerIntent(s), false)
		d.Action = plan.StartMembers{StatefulSets: []*appsv1.StatefulSet{render.MemberStatefulSet(in)}}
	case !m.RefusesEmptyVolume():
		d.Message = fmt.Sprintf("Waiting until the learner %s has started.%s", name, whyNotStarted(m))
	case !entry.Learner && m.IsHealthyVoter():
		d.Message = fmt.Sprintf("%s is a healthy voter.", name)
	case !entry.Learner:
		d.Message = fmt.Sprintf("%s was promoted. Waiting until it is a healthy voter.", name)
	default:
		return promote(s, m)
	}
	return d
}

// whyNotStarted tells what holds up a pod, in a sentence; empty where nothing is known.
func whyNotStarted(m *cluster.Member) string {
	if m.Pod == nil || m.Pod.FailureReason == "" {
		return ""
	}
	return fmt.Sprintf(" Its pod does not run (%s): %s", m.Pod.FailureReason, strings.TrimSuffix(m.Pod.FailureDetail, ".")+".")
}

// promote makes a learner a voter once it has caught up, and the disruption budget counts it.
func promote(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonScaling, RequeueAfter: requeueWhileStarting}
	before, after := s.Outlook(), s.After(cluster.Change{Promotes: m.Name})
	switch {
	case !isCaughtUp(s, m):
		d.Message = fmt.Sprintf("The learner %s is catching up.", m.Name)
	case after.Spare() < before.Spare() || !after.HasQuorum():
		return refused([]plan.Refusal{{
			Guard: "promotionKeepsQuorum", Reason: v1beta1.ReasonQuorumAtRisk,
			Message: fmt.Sprintf("Promoting %s would leave fewer members to spare: %s. Waiting until the others are healthy.", m.Name, after),
		}})
	case !budgetCovers(s, after.Voters):
		d.Message = fmt.Sprintf("Updating PodDisruptionBudget %s, before %s becomes a voter.", s.Cluster.Name, m.Name)
	default:
		d.Message = fmt.Sprintf("Promoting %s: %s then.", m.Name, after)
		d.Action = plan.PromoteMember{Name: m.Name, Learner: s.EtcdEntry(m).ID, Leader: leaderTarget(s)}
	}
	return d
}

// isCaughtUp reports whether a learner has applied all but a few entries of what the leader has committed.
func isCaughtUp(s *cluster.Snapshot, m *cluster.Member) bool {
	leader := s.Leader()
	return leader != nil && leader.Serves() && m.Answers() && m.Probe.ClusterID == leader.Probe.ClusterID &&
		m.Probe.AppliedIndex > 0 && m.Probe.AppliedIndex+maxLag >= leader.Probe.CommittedIndex
}

// budgetCovers reports whether the disruption budget keeps the quorum of so many voters, and Kubernetes has seen it.
func budgetCovers(s *cluster.Snapshot, voters int) bool {
	b := s.Budget
	return b != nil && b.Spec.MinAvailable != nil && b.Spec.MinAvailable.IntValue() >= cluster.Quorum(voters) &&
		b.Status.ObservedGeneration >= b.Generation
}

// budgetVoters returns the voters whose quorum the disruption budget keeps: those of now, and of a promotion that is
// about to be made. A learner that is stuck must not block drains.
func budgetVoters(s *cluster.Snapshot) int {
	voters := s.Outlook().Voters
	if m := s.Learner(); m != nil && isClaimed(s, v1beta1.OperationAddMember) && m.RefusesEmptyVolume() && isCaughtUp(s, m) {
		voters++
	}
	return voters
}

// joinerIntent is what a new member's pod is made from: the spec's template, in the version that the cluster runs.
func joinerIntent(s *cluster.Snapshot) cluster.Intent {
	intent := cluster.IntentOf(s.Cluster)
	for i := range s.Members {
		if m := &s.Members[i]; m.Workload != nil {
			intent.Version = m.Workload.Intent.Version
			break
		}
	}
	return withAuthorities(s, intent)
}

// leaderTarget names the member that membership changes are sent to: the leader. Its view decides.
func leaderTarget(s *cluster.Snapshot) string {
	if leader := s.Leader(); leader != nil {
		return leader.Name
	}
	return ""
}

// memberToRemove picks the voter to remove: silent ones first, the leader last. Of the followers it is one from the
// node with the most members, and of those the one with the highest number.
func memberToRemove(s *cluster.Snapshot) *cluster.Member {
	onNode := map[string]int{}
	for i := range s.Members {
		if m := &s.Members[i]; m.Pod != nil {
			onNode[m.Pod.Node]++
		}
	}
	rank := func(m *cluster.Member) int {
		switch {
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
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if a.Pod != nil && b.Pod != nil && onNode[a.Pod.Node] != onNode[b.Pod.Node] {
			return onNode[b.Pod.Node] - onNode[a.Pod.Node]
		}
		return cluster.CompareMembers(s.Cluster.Name, b.Name, a.Name)
	})
}

// removeMember removes a member from etcd, if the guards allow it. The leader hands over first.
func removeMember(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if refusals := refusalsOf(s, noAlarm, removalKeepsQuorum(m)); len(refusals) > 0 {
		return refused(refusals)
	}
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonScaling}
	after := s.After(cluster.Change{Removes: m.Name})
	entry := s.EtcdEntry(m)
	switch to := followerToLead(s, m); {
	case entry == nil:
		d.Message = fmt.Sprintf("Waiting until etcd tells whether %s is a member.", m.Name)
	case m.Leads() && to == nil:
		d.Message = fmt.Sprintf("%s leads. It is removed once a follower has caught up that can take over.", m.Name)
	case m.Leads():
		d.Message = fmt.Sprintf("Moving the leader from %s to %s, before %s is removed.", m.Name, to.Name, m.Name)
		d.Action = plan.MoveLeader{Name: m.Name, For: v1beta1.OperationRemoveMember, To: to.Name, ToID: s.EtcdEntry(to).ID}
	default:
		d.Message = fmt.Sprintf("Removing %s: %s then.", m.Name, after)
		d.Action = plan.RemoveMember{Name: m.Name, ID: entry.ID, Leader: leaderTarget(s)}
	}
	return d
}

// followerToLead returns the follower that takes over from a leader: a healthy voter that lags by nothing.
func followerToLead(s *cluster.Snapshot, leader *cluster.Member) *cluster.Member {
	if !leader.Leads() {
		return nil
	}
	for i := range s.Members {
		m := &s.Members[i]
		if m.Name != leader.Name && m.IsHealthyVoter() && m.Pod != nil && !m.Pod.Deleting && m.Probe.AppliedIndex+maxLag >= leader.Probe.CommittedIndex {
			return m
		}
	}
	return nil
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

// joinIsDone reports whether the new member is a healthy voter that refuses an empty volume.
func joinIsDone(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	m := s.Member(op.Member)
	return m != nil && m.Workload != nil && m.IsHealthyVoter() && isVoter(s, m) && m.RefusesEmptyVolume()
}

func isVoter(s *cluster.Snapshot, m *cluster.Member) bool {
	e := s.EtcdEntry(m)
	return e != nil && !e.Learner
}

// joinAbandonedFor abandons a new member that is not registered while the guards refuse it, a learner that the spec no
// longer asks for, and any at its deadline.
func joinAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	if s.Membership == nil {
		return deadlinePassed(s, op)
	}
	m := s.Member(op.Member)
	switch {
	case m != nil && isVoter(s, m):
	case s.Outlook().Voters >= int(s.Cluster.Spec.Replicas):
		return fmt.Sprintf("spec.replicas asks for %d members now.", s.Cluster.Spec.Replicas)
	case m != nil && hasLostItsVolume(m):
		return fmt.Sprintf("The volume of %s was lost before it became a voter.", m.Name)
	case m == nil:
		if refusals := joinRefusals(s); len(refusals) > 0 {
			return "It was not begun. " + refusals[0].Message
		}
	}
	return deadlinePassed(s, op)
}

func continueJoining(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	if s.Membership == nil {
		return &plan.Decision{Progressing: true, Message: fmt.Sprintf("%s. Waiting until etcd tells its member list.", s.Outlook())}
	}
	return joinMember(s, op.Member)
}

// removalIsDone reports whether etcd's list lacks the member, its volume is retired or gone, and nothing of it runs.
func removalIsDone(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	if s.Membership == nil || s.Member(op.Member) != nil {
		return false
	}
	left := s.Find(op.Member)
	return left == nil || left.Workload == nil && left.Pod == nil &&
		(left.Volume == nil || left.Volume.Retired && !cluster.DeletesScaledVolumes(s.Cluster))
}

// removalAbandonedFor abandons the removal of a member that is still in etcd's list, if the guards refuse it, the spec
// asks for it again, or at its deadline. Once it is off the list, the removal is completed.
func removalAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	m := s.Member(op.Member)
	switch {
	case m == nil || s.Membership == nil:
		return ""
	case isVoter(s, m) && s.Outlook().Voters <= int(s.Cluster.Spec.Replicas):
		return fmt.Sprintf("spec.replicas asks for %d members now.", s.Cluster.Spec.Replicas)
	}
	if refusals := refusalsOf(s, noAlarm, removalKeepsQuorum(m)); len(refusals) > 0 {
		return "It was not begun. " + refusals[0].Message
	}
	return deadlinePassed(s, op)
}

func continueRemoval(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	if m := s.Member(op.Member); m != nil && s.Membership != nil {
		return removeMember(s, m)
	}
	return &plan.Decision{Progressing: true, Message: fmt.Sprintf("Removing the objects of %s, which is no member any more.", op.Member)}
}

// removedUpkeep removes what is left of the member that the operation removes, once etcd's list lacks it: it retires
// the volume, then deletes the StatefulSet, then the volume if the spec says so.
// The StatefulSet of a retired volume is deleted without an operation as well.
func removedUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	if s.Membership == nil {
		return nil
	}
	var list []plan.Upkeep
	for i := range s.LeftOvers {
		m := &s.LeftOvers[i]
		isClaimed := isClaimed(s, v1beta1.OperationRemoveMember) && s.Cluster.Status.Operation.Member == m.Name
		switch v := m.Volume; {
		case v != nil && !v.Retired && isClaimed:
			list = append(list, plan.RecordMember{Member: m.Name, Volume: v.Name, ResourceVersion: v.ResourceVersion, Annotations: map[string]string{
				cluster.AnnotationMembership: cluster.MembershipRetired,
			}})
		case m.Workload != nil && !m.Workload.Deleting && (isClaimed || v != nil && v.Retired):
			list = append(list, plan.Delete{Object: render.StatefulSetToDelete(m.Workload.Live)})
		case m.Workload == nil && m.Pod == nil && v != nil && !v.Deleting && isClaimed && cluster.DeletesScaledVolumes(s.Cluster):
			list = append(list, plan.Delete{Object: render.VolumeToDelete(s.Cluster, *v)})
		case isAbandonedJoiner(s, m):
			list = append(list, plan.Delete{Object: render.VolumeToDelete(s.Cluster, *v)})
		}
	}
	return list
}

// isAbandonedJoiner reports whether a left-over is the volume of a member that was never registered. Its operation was
// abandoned before, and nothing ever ran on it.
func isAbandonedJoiner(s *cluster.Snapshot, m *cluster.Member) bool {
	op := s.Cluster.Status.Operation
	return m.Workload == nil && m.Pod == nil && m.Volume != nil && !m.Volume.Started() && !m.Volume.Deleting &&
		len(m.Volume.Founders) == 0 && (op == nil || op.Member != m.Name)
}

// joiningRecord returns what the volume of a registered learner that has not started lacks: etcd's list of this moment.
func joiningRecord(s *cluster.Snapshot, m *cluster.Member) map[string]string {
	if !isJoining(s, m) || m.Volume.JoinedCluster == s.MemberList() {
		return nil
	}
	return map[string]string{cluster.AnnotationJoinedCluster: s.MemberList()}
}

// isJoining reports whether the member is a registered learner that has not started.
func isJoining(s *cluster.Snapshot, m *cluster.Member) bool {
	e := s.EtcdEntry(m)
	return e != nil && e.Learner && !e.Started && m.Volume != nil && startEvidence(s, m) == ""
}
