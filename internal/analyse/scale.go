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
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// maxLag is how many entries of the log a learner may lack when it is promoted. etcd's own check is weaker: it accepts
// a learner that has 90 % of the log.
const maxLag = 1000

// scale adds or removes one member at a time until there are as many voters as the spec says. A rotation of authorities
// that goes on is finished first. A refusal is no opinion where a later rule restarts a member that is unhealthy.
func scale(s *cluster.Snapshot) *plan.Decision {
	if rotates(s) {
		return nil
	}
	d := scaleStep(s)
	if d != nil && len(d.Refusals) > 0 && isCuredByRestart(s) {
		return nil
	}
	return d
}

// isCuredByRestart reports whether a member that is no healthy voter is to be restarted by a later rule.
func isCuredByRestart(s *cluster.Snapshot) bool {
	for reason := range restarts {
		if slices.ContainsFunc(membersToRestart(s, reason), func(m *cluster.Member) bool { return !m.IsHealthyVoter() }) {
			return true
		}
	}
	return false
}

// scaleStep decides the next step. A learner comes first: it is promoted, or removed where the spec asks for no more
// voters.
func scaleStep(s *cluster.Snapshot) *plan.Decision {
	want, voters := int(s.Cluster.Spec.Replicas), s.Outlook().Voters
	learner, foreign := s.Learner(), s.ForeignEntry()
	switch {
	case s.Membership == nil && voters != want:
		return refused([]plan.Refusal{membershipUnknown(s)})
	case s.Membership == nil:
		return nil
	case foreign != nil:
		return refused([]plan.Refusal{foreignMember(foreign)})
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

// foreignMember refuses while etcd's list has a member that the operator did not add. The operator never touches it.
func foreignMember(e *cluster.EtcdMember) plan.Refusal {
	role := "voter"
	if e.Learner {
		role = "learner"
	}
	name := cluster.ForeignText(cmp.Or(e.Name, strings.Join(e.PeerURLs, ","), "without a name"))
	return plan.Refusal{
		Guard:  "noForeignMember",
		Reason: v1beta1.ReasonMembersNotHealthy,
		Message: fmt.Sprintf("etcd's member list has the %s %s with the ID %s, which the operator did not add. No member is added or removed "+
			"beside it. Remove it with etcdctl member remove %s.", role, name, e.ID, e.ID),
	}
}

// hasLostItsVolume reports whether a learner can never start: it has no volume, or an emptied one that it started on.
func hasLostItsVolume(m *cluster.Member) bool {
	return m.Volume == nil || m.Volume.Deleting || m.Volume.IsReplaced()
}

// resumeJoining goes on with a learner that no operation is for. Its operation ended at its deadline. The operator
// waits for the learner without one, so that other members can be cured: a voter that has failed restarts first.
func resumeJoining(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if isVoterCured(s) {
		return nil
	}
	d := joinMember(s, m.Name)
	if d.Action == nil && len(d.Refusals) == 0 {
		d.Progressing, d.Reason = false, v1beta1.ReasonDeadlineExceeded
		d.Message = fmt.Sprintf("%s did not become a voter in time. %s The operator goes on with it once that is possible. "+
			"Remove the cause, or set spec.replicas lower to have the learner removed.", m.Name, d.Message)
	}
	return d
}

// isVoterCured reports whether the next rules restart a voter that has failed for what the spec asks for.
func isVoterCured(s *cluster.Snapshot) bool {
	d := configurationRoll(s)
	if d == nil || versionChange(s) != "" {
		return false
	}
	cure, ok := d.Action.(plan.RestartMember)
	return ok && !cure.Evict && isVoter(s, s.Member(cure.Name))
}

// addMember registers a new member as a learner, if the guards allow it.
func addMember(s *cluster.Snapshot, name string) *plan.Decision {
	if refusals := joinRefusals(s); len(refusals) > 0 {
		return refused(refusals)
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

// connectedFor is how long etcd wants its members to have been connected before one is added or removed: 5 s.
// A second is for the connections after the start. Source: HealthInterval in etcd's server/etcdserver/server.go.
const connectedFor = 6 * time.Second

// untilConnected returns how long it takes until so many voters have run long enough for etcd to accept a change.
// A start in the future, of a node whose clock is ahead, does not count: etcd decides.
func untilConnected(s *cluster.Snapshot, voters int) time.Duration {
	var waits []time.Duration
	for i := range s.Members {
		if m := &s.Members[i]; m.Answers() && m.Pod != nil && isVoter(s, m) {
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

// joinRefusals asks the guards of a new member.
func joinRefusals(s *cluster.Snapshot) []plan.Refusal {
	guards := []guard{
		previousClusterGone,         // Make sure that no pod of a deleted cluster or a removed member still runs.
		noForeignObject,             // Make sure that the names are free.
		noAlarm("added or removed"), // Make sure that no data is at stake.
		everyMemberHealthy,          // Make sure that the new member costs no quorum: etcd itself wants all voters connected.
		specUsable,                  // Make sure that its pod can start: its Secrets exist and fit.
		intentHasNotFailed,          // Make sure that it does not start with what another member failed with.
		joinerQuotaFits,             // Make sure that a full database does not fill its volume.
		membersAcceptCertificates(&cluster.Member{}), // Make sure that all members accept what the new one is shown.
	}
	refusals := refusalsOf(s, guards...)
	return append(refusals, intentRefusals(joinerIntent(s))...) // Make sure that etcd takes the spec's template.
}

// joinerQuotaFits refuses a new member whose database could fill its volume before it reaches its quota.
func joinerQuotaFits(s *cluster.Snapshot) *plan.Refusal {
	return quotaFitsVolume(joinerIntent(s).Quota(), cluster.VolumeSize(&s.Cluster.Spec))
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
	if d := awaitObjects(s, v1beta1.ReasonScaling); d != nil {
		return d
	}
	in := memberInput(s, m.Name, joinerIntent(s), false)
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
	guards := []guard{
		previousClusterGone,  // Make sure that no pod of a deleted cluster of this name still runs.
		noForeignObject,      // Make sure that the next pod mounts this cluster's objects.
		specUsable,           // Make sure that the next pod can start.
		intentHasNotFailed,   // Make sure that it does not start with what another member failed with.
		volumeStays(m),       // Make sure that the next pod starts on the volume of this one.
		correctionFits(want), // Make sure that etcd takes the options, and Kubernetes the pod.
	}
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
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
	voters, m := s.Outlook().Voters, s.Learner()
	if m != nil && voters < int(s.Cluster.Spec.Replicas) && s.ForeignEntry() == nil && isPromotable(s, m) {
		voters++
	}
	return voters
}

// isPromotable reports whether nothing but the disruption budget keeps a learner from becoming a voter.
func isPromotable(s *cluster.Snapshot, m *cluster.Member) bool {
	return m.Workload != nil && m.RefusesEmptyVolume() && !hasLostItsVolume(m) && isCaughtUp(s, m) && promotionKeepsQuorum(s, m) == nil
}

// joinerIntent is what a new member's pod is made from: the spec's template, in the version that the cluster runs.
// What members must have in common to find and trust each other is that of the members that run.
func joinerIntent(s *cluster.Snapshot) cluster.Intent {
	intent := cluster.IntentOf(s.Cluster)
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
		intent.Version, intent.Repository, intent.Tag, intent.Digest = running.Version, running.Repository, running.Tag, running.Digest
	}
	intent.ClusterDomain = running.ClusterDomain
	intent.PeerSecret, intent.PeerCertificates, intent.PeerIssuer = running.PeerSecret, running.PeerCertificates, running.PeerIssuer
	intent.ServerSecret, intent.ServerCertificates, intent.ServerIssuer = running.ServerSecret, running.ServerCertificates, running.ServerIssuer
	intent.OperatorSecret = running.OperatorSecret
	return intent
}

// leaderTarget names the member that membership changes are sent to: the leader. Its view decides.
func leaderTarget(s *cluster.Snapshot) string {
	if leader := s.Leader(); leader != nil {
		return leader.Name
	}
	return ""
}

// memberToRemove picks the voter to remove: silent ones first, the leader last. Of the followers it is one from the
// node with the most members, then from the zone with the most, then the one with the highest number.
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

// removeMember removes a member from etcd, if the guards allow it. The leader hands over first.
func removeMember(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if refusals := refusalsOf(s, noAlarm("added or removed"), removalKeepsQuorum(m)); len(refusals) > 0 {
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
		action := plan.RemoveMember{Name: m.Name, ID: entry.ID, Leader: leaderTarget(s)}
		if m.Volume != nil && m.Volume.Removing != entry.ID {
			action.Volume = m.Volume
		}
		d.Action = action
	}
	return d
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
		canLead := m.Name != leader.Name && m.IsHealthyVoter() && isVoter(s, m) && m.Pod != nil && !m.Pod.Deleting
		if canLead && m.Probe.AppliedIndex+maxLag >= leader.Probe.CommittedIndex && (best == nil || m.Probe.AppliedIndex > best.Probe.AppliedIndex) {
			best = m
		}
	}
	return best
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

// joinAbandonedFor abandons a new member of which nothing exists while the guards refuse it, a learner that the spec no
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
// that the member used. A claim of the same name that was made again may hold other data.
func mayDeleteVolume(s *cluster.Snapshot, v *cluster.Volume) bool {
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
	case isVoter(s, m) && s.Outlook().Voters <= want, !isVoter(s, m) && s.Outlook().Voters < want && !hasLostItsVolume(m):
		return fmt.Sprintf("spec.replicas asks for %d members now.", want)
	}
	if refusals := refusalsOf(s, noAlarm("added or removed"), removalKeepsQuorum(m)); len(refusals) > 0 {
		return "It was not carried out. " + refusals[0].Message
	}
	return deadlinePassed(s, op)
}

func continueRemoval(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	if m := s.Member(op.Member); m != nil && s.Membership != nil {
		return removeMember(s, m)
	}
	return &plan.Decision{Progressing: true, Message: fmt.Sprintf("Removing the objects of %s, which is no member any more.", op.Member)}
}

// removedUpkeep removes what is left of a member that the operator removed, once etcd's list lacks it: it retires the
// volume, then deletes the StatefulSet. The volume is deleted, if the spec says so, in the operation only.
// The StatefulSet of a retired volume is deleted whoever retired it.
func removedUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	if s.Membership == nil {
		return nil
	}
	var list []plan.Upkeep
	for i := range s.LeftOvers {
		m := &s.LeftOvers[i]
		isClaimed := isClaimed(s, v1beta1.OperationRemoveMember) && s.Cluster.Status.Operation.Member == m.Name
		switch v := m.Volume; {
		case v != nil && !v.Retired && !v.Deleting && (isClaimed || v.Removing != 0):
			list = append(list, plan.RecordMember{Member: m.Name, Volume: v.Name, ResourceVersion: v.ResourceVersion, Annotations: map[string]string{
				cluster.AnnotationMembership: cluster.MembershipRetired,
			}})
		case m.Workload != nil && !m.Workload.Deleting && (isClaimed || v != nil && (v.Retired || v.Removing != 0 && v.Deleting)):
			list = append(list, plan.Delete{Object: render.StatefulSetToDelete(m.Workload.Live)})
		case m.Workload == nil && m.Pod == nil && v != nil && !v.Deleting && isClaimed && v.Retired && !isPodLeaving(s, m.Name) && mayDeleteVolume(s, v):
			list = append(list, plan.Delete{Object: render.VolumeToDelete(s.Cluster, *v)})
		case isAbandonedJoiner(s, m) && isNoted(s, m.Name):
			list = append(list, plan.Delete{Object: render.VolumeToDelete(s.Cluster, *v)})
		}
	}
	return list
}

// isCleanedUp reports whether the operator itself sees to a left-over: it is of a member that it removes, or adds.
func isCleanedUp(s *cluster.Snapshot, m *cluster.Member) bool {
	op := s.Cluster.Status.Operation
	isClaimed := op != nil && op.Member == m.Name
	return isClaimed || m.Volume != nil && m.Volume.Removing != 0 || isAbandonedJoiner(s, m)
}

// isAbandonedJoiner reports whether a left-over is the claim that the operator made for a member which was never
// registered. Its operation was abandoned before. Nothing ever ran on it: etcd's list is recorded before the first pod.
func isAbandonedJoiner(s *cluster.Snapshot, m *cluster.Member) bool {
	op, v := s.Cluster.Status.Operation, m.Volume
	return m.Workload == nil && m.Pod == nil && v.NeverStarted() && !v.Deleting && !v.Retired && v.JoinedCluster == "" && len(v.Members) == 0 &&
		v.Remembered.Name == "" && v.PeerURL != "" && v.Token == tokenOf(s) && (op == nil || op.Member != m.Name)
}

// isNoted reports whether the Service of the peers notes that a member's number was used. Without its volume nothing
// else may remember it.
func isNoted(s *cluster.Snapshot, member string) bool {
	n, _ := cluster.MemberNumber(s.Cluster.Name, member)
	return n < s.NotedNumber()
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
