package analyse

import (
	"fmt"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// maxLag is how many entries of the log a learner may lack when it is promoted. etcd's own check is weaker: it accepts
// a learner that has 90 % of the log.
const maxLag = 1000

// resumeJoining goes on with a learner that no operation is for. Its operation ended at its deadline. The operator
// waits for the learner without one, so that other members can be cured: a voter that has failed restarts first.
func resumeJoining(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if isVoterCured(s) {
		return nil
	}
	d := joinMember(s, m.Name)
	if d.Action == nil && len(d.Refusals) == 0 && d.Reason != v1beta1.ReasonCheckingImage {
		d.Progressing, d.Reason = false, v1beta1.ReasonDeadlineExceeded
		d.Message = fmt.Sprintf("%s did not become a voter in time. %s The operator goes on with it once that is possible. "+
			"Remove the cause, or set spec.replicas lower to have the learner removed.", m.Name, d.Message)
	}
	return d
}

// addMember registers a new member as a learner, if the guards allow it.
func addMember(s *cluster.Snapshot, name string) *plan.Decision {
	if refusals := joinRefusals(s); len(refusals) > 0 {
		return refused(refusals)
	}
	if d := awaitVersionOf(s, joinerIntent(s)); d != nil {
		return d
	}
	if d := awaitObjects(s, v1beta1.ReasonScaling); d != nil {
		return d
	}
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonScaling}
	leader := leaderTarget(s)
	if leader == "" {
		d.Message = awaitsLeader
		return d
	}
	action := plan.AddMember{
		Name: name, NextNumber: s.NextNumber(), Leader: leader,
		PeerURL: render.PeerURL(s.Cluster, name, joinerIntent(s)),
	}
	if n, ok := cluster.MemberNumber(s.Cluster.Name, name); ok {
		action.NextNumber = max(action.NextNumber, n+1)
	}
	if m := s.Find(name); m == nil || m.Volume == nil {
		action.Volume = render.JoiningVolume(s.Cluster, name, tokenOf(s), action.PeerURL)
	}
	d.Message = fmt.Sprintf("Adding %s: %s of %d.", name, count(s.Outlook().Voters, "voter"), s.Cluster.Spec.Replicas)
	if wait := untilConnected(s, cluster.Quorum(s.Outlook().Voters+1)); wait > 0 && s.Outlook().Voters > 1 {
		d.Message, d.RequeueAfter = awaitsConnections(name, "is added"), wait
		return d
	}
	d.Action = action
	return d
}

// joinRefusals asks the guards of a new member.
func joinRefusals(s *cluster.Snapshot) []plan.Refusal {
	guards := []guard{
		previousClusterGone,         // Make sure that no pod of a deleted cluster or a removed member still runs.
		noForeignObject,             // Make sure that the names are free.
		noAlarm("added or removed"), // Make sure that no data is at stake.
		dataAgree,                   // Make sure that the new member copies the right data.
		storageKindStays,            // Make sure that all members have their data in memory, or none.
		everyMemberHealthy,          // Make sure that the new member costs no quorum: etcd itself wants all voters connected.
		specUsable,                  // Make sure that its pod can start: its Secrets exist and fit.
		noDowngrade,                 // Make sure that etcd waits for no further member.
		joinerQuotaHolds,            // Make sure that etcd takes writes when it has joined.
		joinerQuotaFits,             // Make sure that a full database does not fill its volume.
		joinersImageIsRight,         // Make sure that its image exists, and has the version of the spec.
		joinersImageIsAsTold,        // Make sure that it does not run another minor version than most.
		memoryFits(joinerIntent),    // Make sure that data in memory leave room for etcd.
		membersAcceptCertificates(&cluster.Member{}), // Make sure that all members accept what the new one is shown.
	}
	refusals := refusalsOf(s, guards...)
	return append(refusals, intentRefusals(joinerIntent(s))...) // Make sure that etcd takes the spec's template.
}

// joinerQuotaFits refuses a new member whose database could fill its volume before it reaches its quota.
func joinerQuotaFits(s *cluster.Snapshot) *plan.Refusal {
	return quotaFitsVolume(joinerIntent(s).Quota(), cluster.VolumeSize(&s.Cluster.Spec))
}

// joinerQuotaHolds refuses a new member with a lower quota than the others', which their database fills. One member
// without room stops the writes of the whole cluster.
func joinerQuotaHolds(s *cluster.Snapshot) *plan.Refusal {
	highest := int64(0)
	for i := range s.Members {
		if m := &s.Members[i]; m.Workload != nil && m.Answers() {
			highest = max(highest, m.Workload.Intent.Quota())
		}
	}
	return databaseFits(s, joinerIntent(s).Quota(), highest)
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
		Message: fmt.Sprintf("A member is added only while all others are healthy voters. Waiting for %s. %s", strings.Join(names, ", "), seeMembers),
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
		return startLearner(s, m)
	case entry.Learner && isToBeCorrected(s, m):
		return correctLearner(s, m)
	case entry.Learner && hangsAtStart(s, m):
		d.Message = fmt.Sprintf("Waiting until the learner %s has started. An entry that changes nothing is written to the log, "+
			"because a learner that copied the data while nobody writes starts with the next entry only.", name)
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

// startTime is how long a learner gets until it answers, before it may be one that hangs at its start.
const startTime = 3 * time.Second

// hangsAtStart reports whether a learner's etcd runs, and answers no client: it copies the data still, or has copied
// them and waits for the next entry. Nobody can tell which. The others may have its name by then: its first request to
// publish itself was carried out, and only the answer was lost.
func hangsAtStart(s *cluster.Snapshot, m *cluster.Member) bool {
	return leaderTarget(s) != "" && !m.Answers() && m.Pod.IsRunning() && !m.Pod.Deleting && m.Pod.FailureReason == "" &&
		!m.Pod.StartedAt.IsZero() && s.Now.Sub(m.Pod.StartedAt) >= startTime
}

// hangUpkeep appends an entry for a learner that hangs at its start, whether its operation is under way or has passed
// its deadline. A learner that copies a large database needs it then.
func hangUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	m := s.Learner()
	if m == nil || m.Workload == nil || isToBeCorrected(s, m) || !hangsAtStart(s, m) {
		return nil
	}
	return []plan.Upkeep{plan.AppendEntry{Learner: m.Name, Leader: leaderTarget(s)}}
}

// startLearner creates the StatefulSet of a registered learner. Its volume has etcd's list of this moment by then.
func startLearner(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	want := joinerIntent(s)
	if refusals := refusalsOf(s, noDowngrade, joinersImageIsAsTold, joinerQuotaHolds, correctionFits(want), joinersImageIsRight); len(refusals) > 0 {
		return refused(refusals) // the spec changed since the learner was registered
	}
	if d := awaitVersionOf(s, want); d != nil {
		return d
	}
	if d := awaitObjects(s, v1beta1.ReasonScaling); d != nil {
		return d
	}
	in := memberInput(s, m.Name, want, false)
	return &plan.Decision{
		Progressing: true,
		Reason:      v1beta1.ReasonScaling,
		Message:     fmt.Sprintf("Starting %s as a learner.", m.Name),
		Action:      plan.StartLearner{Name: m.Name, StatefulSet: render.MemberStatefulSet(in)},
	}
}

// isToBeCorrected reports whether a learner's pod has failed, or its etcd stayed silent past the deadline, and the spec
// asks for another one since. One that is starting keeps the template that it was made with.
func isToBeCorrected(s *cluster.Snapshot, m *cluster.Member) bool {
	isLate := s.Cluster.Status.Operation == nil && m.Pod != nil && !m.Answers() && startEvidence(s, m) == ""
	return m.Workload != nil && (hasFailed(m) || isLate) && (!isMadeFromTemplate(m) || !sameConfiguration(m.Workload.Intent, joinerIntent(s)))
}

// correctLearner restarts a learner with the corrected spec. It is no voter, so its pod costs nothing.
func correctLearner(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	want := joinerIntent(s)
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonScaling}
	if m.Pod != nil && m.Pod.Deleting {
		d.Message = fmt.Sprintf("The pod of the learner %s is being deleted. It restarts with the corrected spec.", m.Name)
		return d
	}
	refusals := correctionRefusals(s, want,
		volumeStays(m),       // Make sure that the next pod starts on the volume of this one.
		joinersImageIsAsTold, // Make sure that it does not run another minor version than most.
		joinerQuotaHolds,     // Make sure that etcd takes writes when it has joined.
		joinersImageIsRight,  // Make sure that its image exists, and has the version of the spec.
	)
	if len(refusals) > 0 {
		return refused(refusals)
	}
	if d := awaitVersionOf(s, want); d != nil {
		return d
	}
	d.Message = fmt.Sprintf("Restarting the learner %s with the corrected spec.%s", m.Name, whyNotStarted(m))
	d.Action = correction(s, m, want, v1beta1.OperationAddMember)
	return d
}

// whyNotStarted tells what holds up a pod, in a sentence; empty where nothing is known.
func whyNotStarted(m *cluster.Member) string {
	switch {
	case m.Pod == nil && m.Workload != nil && m.Workload.CreateFailure != "":
		return fmt.Sprintf(" Kubernetes cannot create its pod: %s.", strings.TrimSuffix(m.Workload.CreateFailure, "."))
	case m.Pod == nil || m.Pod.FailureReason == "":
		return ""
	}
	return fmt.Sprintf(" Its pod does not run (%s): %s.", m.Pod.FailureReason, strings.TrimSuffix(m.Pod.FailureDetail, "."))
}

// promote makes a learner a voter once it has caught up, and the disruption budget counts it.
func promote(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonScaling, RequeueAfter: requeueWhileStarting}
	after, refusal := s.After(cluster.Change{Promotes: m.Name}), promotionKeepsQuorum(s, m)
	if refusal == nil && len(corruptAlarms(s)) > 0 {
		refusal = noAlarm("promoted")(s)
	}
	if refusal == nil {
		refusal = dataAgree(s)
	}
	switch {
	case !isCaughtUp(s, m):
		d.Message = fmt.Sprintf("The learner %s is catching up.", m.Name)
	case refusal != nil:
		return refused([]plan.Refusal{*refusal})
	case !budgetCovers(s, after.Voters):
		d.Message = fmt.Sprintf("Updating PodDisruptionBudget %s, before %s becomes a voter.", s.Cluster.Name, m.Name)
	default:
		d.Message = fmt.Sprintf("Promoting %s. Then %s.", m.Name, after)
		d.Action = plan.PromoteMember{Name: m.Name, Learner: s.EtcdEntry(m).ID, Leader: leaderTarget(s)}
	}
	return d
}

// promotionKeepsQuorum refuses to promote a learner if fewer members could be lost then than now.
func promotionKeepsQuorum(s *cluster.Snapshot, m *cluster.Member) *plan.Refusal {
	before, after := s.Outlook(), s.After(cluster.Change{Promotes: m.Name})
	if after.Spare() >= before.Spare() && after.HasQuorum() {
		return nil
	}
	return &plan.Refusal{
		Guard: "promotionKeepsQuorum", Reason: v1beta1.ReasonQuorumAtRisk,
		Message: fmt.Sprintf("Promoting %s would leave fewer members to spare: %s. Waiting until the others are healthy.", m.Name, after),
	}
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
	if isPromotable(s) {
		voters++
	}
	return voters
}

// isPromotable reports whether nothing but the disruption budget keeps a learner from becoming a voter that is wanted.
func isPromotable(s *cluster.Snapshot) bool {
	m := s.Learner()
	return m != nil && s.Outlook().Voters < wantedVoters(s) && s.ForeignEntry() == nil &&
		m.Workload != nil && m.RefusesEmptyVolume() && !hasLostItsVolume(s, m) && isCaughtUp(s, m) && promotionKeepsQuorum(s, m) == nil
}

// joinerIntent is what a new member's pod is made from: the spec's template, in the version that the cluster runs.
// Where a member went back from what the spec asks for, it is what that member went back to.
// What members must have in common to find and trust each other is that of the members that run.
func joinerIntent(s *cluster.Snapshot) cluster.Intent {
	intent := cluster.IntentOf(s.Cluster)
	if m := memberThatWentBack(s, targetOf); m != nil {
		quota := intent.QuotaBackendBytes
		if intent = m.Workload.Intent; !cluster.SetsQuota(&s.Cluster.Spec) {
			intent.QuotaBackendBytes = quota // the default is that of the new member's own volume
		}
	}
	for i := range s.Members {
		if m := &s.Members[i]; m.Workload != nil && !m.Volume.NeverStarted() {
			intent = withCommonParts(intent, m.Workload.Intent)
			break
		}
	}
	return withAuthorities(s, stepTimings(s, intent)) // its timings are not far from the others'
}

// withCommonParts returns the intent with the version, the domain and the TLS of a member that runs.
// The image goes with the version: a tag or a digest in the spec may be that of the version to come.
func withCommonParts(intent, running cluster.Intent) cluster.Intent {
	if intent.Version != running.Version {
		intent = intent.WithVersionOf(running)
	}
	intent.ClusterDomain = running.ClusterDomain
	intent.PeerSecret, intent.PeerCertificates, intent.PeerIssuer = running.PeerSecret, running.PeerCertificates, running.PeerIssuer
	intent.ServerSecret, intent.ServerCertificates, intent.ServerIssuer = running.ServerSecret, running.ServerCertificates, running.ServerIssuer
	intent.OperatorSecret = running.OperatorSecret
	return intent
}

// joinIsDone reports whether the new member is a healthy voter that refuses an empty volume.
func joinIsDone(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	m := s.Member(op.Member)
	return m != nil && m.Workload != nil && m.IsHealthyVoter() && isListedVoter(s, m) && m.RefusesEmptyVolume()
}

// joinAbandonedFor abandons a new member of which nothing exists while the guards refuse it, a learner that the spec no
// longer asks for, and any at its deadline.
func joinAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	if s.Membership == nil {
		return deadlinePassed(s, op)
	}
	m := s.Member(op.Member)
	switch {
	case m != nil && isListedVoter(s, m):
	case s.Outlook().Voters >= wantedVoters(s):
		return fmt.Sprintf("spec.replicas asks for %d members now.", s.Cluster.Spec.Replicas)
	case m != nil && hasLostItsVolume(s, m):
		return fmt.Sprintf("The volume of %s was lost before it became a voter.", m.Name)
	case m == nil && wasRegistered(s.Find(op.Member)):
		return fmt.Sprintf("etcd's member list does not have %s any more, because another client removed it. A new member gets another name.", op.Member)
	case s.Find(op.Member) == nil:
		if isNameUsed(s, op.Member) {
			return fmt.Sprintf("The name %s may have been used before. A new member gets another one.", op.Member)
		}
		if refusals := joinRefusals(s); len(refusals) > 0 {
			return "It was not carried out. " + refusals[0].Message
		}
	}
	return deadlinePassed(s, op)
}

// wasRegistered reports whether a left-over is of a member that etcd's list had: the list is recorded on its volume
// once it has the member. Its volume may have the data of the removed one, so its name is not registered again.
func wasRegistered(m *cluster.Member) bool {
	return m != nil && (m.Workload != nil || m.Volume != nil && (m.Volume.JoinedCluster != "" || m.Volume.Started()))
}

// isNameUsed reports whether the number of a member of which nothing exists was noted as used, or a higher one.
// An operator that was cut off between the note and the volume leaves such a claim, and one that decided from caches
// that were behind.
func isNameUsed(s *cluster.Snapshot, name string) bool {
	n, ok := cluster.MemberNumber(s.Cluster.Name, name)
	return !ok || s.NextNumber() > n
}

func continueJoining(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	if s.Membership == nil {
		return &plan.Decision{Progressing: true, Message: fmt.Sprintf("%s. Waiting until etcd tells its member list.", s.Outlook())}
	}
	return joinMember(s, op.Member)
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
