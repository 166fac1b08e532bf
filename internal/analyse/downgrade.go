package analyse

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// downgrade is a downgrade that is enabled in etcd.
type downgrade struct {
	// target is the minor version that it goes to; empty where nobody tells.
	target string
	// isOwn tells that the operator enabled it.
	isOwn bool
	// unprepared names the first member that does not tell that the cluster works as the target and that its data are
	// prepared for it; empty where all do.
	unprepared string
}

// enabledDowngrade returns the downgrade that is enabled in etcd, nil where none is. Where no member tells the target,
// it is the note's. The leader is the first to know that one was cancelled.
func enabledDowngrade(s *cluster.Snapshot) *downgrade {
	if l := s.Leader(); l != nil && l.Serves() && !l.Probe.DowngradeEnabled && !cluster.SameMinor(l.Probe.Version, cluster.MinorWithoutDowngradeTarget) {
		return nil
	}
	target, isEnabled := "", false
	for i := range s.Members {
		if p := s.Members[i].Probe; p.Answered() && p.DowngradeEnabled {
			target, isEnabled = max(target, p.DowngradeTarget), true
		}
	}
	if !isEnabled {
		return nil
	}
	noted := peerNote(s, cluster.AnnotationDowngrade)
	target = cmp.Or(target, noted)
	return &downgrade{target: target, isOwn: target != "" && target == noted, unprepared: unpreparedFor(s, target)}
}

// unpreparedFor names the first member that is not prepared for a minor version; empty where all are. Members of etcd
// 3.5 tell nothing of their data.
func unpreparedFor(s *cluster.Snapshot, minor string) string {
	for i := range s.Members {
		m := &s.Members[i]
		if !m.Answers() || m.Probe.ClusterVersion != minor || m.Probe.StorageVersion != minor && m.Probe.StorageVersion != "" {
			return m.Name
		}
	}
	return ""
}

// keepsDowngradeNote is for how long the note of a downgrade stays when nothing is under way any more. An operator that
// was held up may enable one after another operator has ended it: at most etcd.ChangeTimeout later.
const keepsDowngradeNote = time.Minute

// hasEndedDowngrade reports whether the Service of the peers notes a downgrade that is over: nothing has been under way
// for a minute, every member tells that none is enabled, and runs the version of the spec.
func hasEndedDowngrade(s *cluster.Snapshot) bool {
	progressing := meta.FindStatusCondition(s.Cluster.Status.Conditions, v1beta1.ConditionProgressing)
	if progressing == nil || progressing.Status != metav1.ConditionFalse || s.Now.Sub(progressing.LastTransitionTime.Time) < keepsDowngradeNote {
		return false
	}
	isNoted := peerNote(s, cluster.AnnotationDowngrade) != "" && s.Cluster.Status.Operation == nil && s.Membership != nil
	return isNoted && nextToUpgrade(s) == nil && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return !m.IsHealthyVoter() || m.Probe.DowngradeEnabled || m.Workload == nil || stepsLeft(s, &m) != 0
	})
}

// isDowngrading reports whether a downgrade of the operator's own is enabled.
func isDowngrading(s *cluster.Snapshot) bool {
	e := enabledDowngrade(s)
	return e != nil && e.isOwn
}

// peerNote returns what the operator noted on the Service of the peers; empty where it noted nothing.
func peerNote(s *cluster.Snapshot, annotation string) string {
	if s.PeerService == nil {
		return ""
	}
	return s.PeerService.Annotations[annotation]
}

// endDowngrade cancels a downgrade that is enabled if the spec has the newer version again, or a member is lost in the
// middle or removed. It waits for etcd to end it otherwise, and reports one that is not the operator's.
func endDowngrade(s *cluster.Snapshot) *plan.Decision {
	e := enabledDowngrade(s)
	if e == nil {
		return nil
	}
	want := s.Cluster.Spec.Version
	silent := slices.IndexFunc(s.Members, func(m cluster.Member) bool { return !m.Answers() })
	switch {
	case !e.isOwn:
		return refused([]plan.Refusal{*noForeignDowngrade(s)})
	case silent >= 0:
		m := &s.Members[silent]
		return cancelDowngrade(s, nil, fmt.Sprintf("%s does not answer, so the downgrade to etcd %s is cancelled. %s Bring it back: then the downgrade is enabled again.",
			m.Name, e.target, whyNotHealthy(m)))
	case s.Outlook().Voters == 2: // a user removed one of three
		return cancelDowngrade(s, nil, fmt.Sprintf("etcd has 2 voters, and neither can restart: both are the quorum. The downgrade to etcd %s is cancelled, "+
			"since no member is added while one is enabled. It is enabled again when there are more.", e.target))
	case renewsLog(s) && e.unprepared == "":
		return cancelDowngrade(s, map[string]string{cluster.AnnotationLogRenewal: cluster.LogRenewalDone},
			"Every member has written a snapshot of its log. The downgrade that was enabled for that is cancelled.")
	case renewsLog(s) && waitedTooLong(s):
		return cancelOverdue(s, fmt.Sprintf("%s did not write a snapshot of its log", e.unprepared), "It is enabled again afterwards. "+setBack)
	case renewsLog(s):
		return e.await(v1beta1.ReasonRenewingLog)
	case e.target != cluster.MinorOf(want):
		return cancelDowngrade(s, nil, fmt.Sprintf("spec.version is %s, so the downgrade to etcd %s is cancelled.", want, e.target))
	case versionChange(s) == "" && nextToUpgrade(s) == nil && waitedTooLong(s):
		return cancelOverdue(s, fmt.Sprintf("etcd itself did not end the downgrade to etcd %s", e.target), "The members stay with what they run.")
	case versionChange(s) == "" && nextToUpgrade(s) == nil:
		return &plan.Decision{
			Progressing: true, Reason: v1beta1.ReasonDowngrading,
			Message: fmt.Sprintf("Every member runs etcd %s. Waiting until etcd itself ends the downgrade: it takes some seconds.", e.target),
		}
	}
	return nil
}

// setBack ends a message about a downgrade that does not go on.
const setBack = "To stay with what runs, set spec.version back."

// beginDowngrade enables a downgrade where the data must be lowered before a member restarts, and waits for it. It has
// no opinion where members can restart.
func beginDowngrade(s *cluster.Snapshot) *plan.Decision {
	want := cluster.MinorOf(s.Cluster.Spec.Version)
	e := enabledDowngrade(s)
	switch {
	case e != nil && e.unprepared != "" && waitedTooLong(s):
		return cancelOverdue(s, fmt.Sprintf("%s did not prepare its data for etcd %s", e.unprepared, e.target), "It is enabled again afterwards. "+setBack)
	case e != nil && e.unprepared != "":
		return e.await(v1beta1.ReasonDowngrading)
	case e != nil:
		return nil
	case (leavesOldEntries(s) || needsDowngrade(s)) && clusterVersion(s) != minorBeforeChange(s):
		return awaitClusterVersion(s)
	case (needsLogRenewal(s) || needsDowngrade(s)) && everyMemberHealthy(s) != nil:
		return refused([]plan.Refusal{*membersHealthy(&cluster.Member{})(s)})
	case needsLogRenewal(s):
		return enableDowngrade(s, cluster.MinorWithOldEntries, v1beta1.ReasonRenewingLog, cluster.LogRenewalBegun,
			fmt.Sprintf("Enabling a downgrade for some seconds, so that every member writes a snapshot of its log: etcd %s cannot read what etcd %s wrote there.",
				cluster.MinorWithoutOldEntries, cluster.MinorWithOldEntries))
	case needsDowngrade(s):
		return enableDowngrade(s, want, v1beta1.ReasonDowngrading, "",
			fmt.Sprintf("Enabling the downgrade to etcd %s. etcd then prepares its data for that version.", want))
	}
	return nil
}

// minorBeforeChange is the minor version that the cluster must work as before a downgrade is enabled: etcd refuses it
// otherwise. It follows the members within some seconds.
func minorBeforeChange(s *cluster.Snapshot) string {
	if leavesOldEntries(s) {
		return minorBeforeRenewal
	}
	return cluster.NextMinor(s.Cluster.Spec.Version, 1)
}

// awaitClusterVersion waits until the cluster works as the version of its members. etcd needs some seconds for that.
func awaitClusterVersion(s *cluster.Snapshot) *plan.Decision {
	if waitedTooLong(s) {
		return clusterVersionOverdue(s)
	}
	reason := v1beta1.ReasonUpgrading
	if needsDowngrade(s) {
		reason = v1beta1.ReasonDowngrading
	}
	return &plan.Decision{
		Progressing: true, Reason: reason,
		Message: fmt.Sprintf("Waiting until the leader of etcd tells that the cluster works as etcd %s.", minorBeforeChange(s)),
	}
}

// minorBeforeRenewal is the minor version of the members whose log is renewed. It reads the old entries.
var minorBeforeRenewal = cluster.NextMinor(cluster.MinorWithoutOldEntries, -1)

// leavesOldEntries reports whether the spec asks for the first minor version that cannot read old entries of the log,
// and no member runs it yet.
func leavesOldEntries(s *cluster.Snapshot) bool {
	return cluster.SameMinor(s.Cluster.Spec.Version, cluster.MinorWithoutOldEntries) && !isUnderWay(s) && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return !cluster.SameMinor(RunningVersion(&m), minorBeforeRenewal)
	})
}

// needsLogRenewal reports whether the log may have entries that the version of the spec cannot read.
func needsLogRenewal(s *cluster.Snapshot) bool {
	return leavesOldEntries(s) && peerNote(s, cluster.AnnotationLogRenewal) != cluster.LogRenewalDone
}

// renewsLog reports whether the downgrade that is enabled is there to renew the log.
func renewsLog(s *cluster.Snapshot) bool {
	return leavesOldEntries(s) && peerNote(s, cluster.AnnotationLogRenewal) == cluster.LogRenewalBegun
}

// clusterVersion is the minor version that the cluster works as; empty where the leader does not tell it.
func clusterVersion(s *cluster.Snapshot) string {
	if leader := s.Leader(); leader != nil && leader.Serves() {
		return leader.Probe.ClusterVersion
	}
	return ""
}

// enableDowngrade enables a downgrade to a minor version, and notes it, with what becomes of the renewal of the log.
func enableDowngrade(s *cluster.Snapshot, target, reason, logRenewal, message string) *plan.Decision {
	notes := map[string]string{cluster.AnnotationDowngrade: target, cluster.AnnotationLogRenewal: logRenewal}
	return changeDowngrade(s, plan.ChangeDowngrade{Target: target, Notes: notes}, reason, message)
}

// cancelDowngrade cancels the downgrade that is enabled. Its note stays until hasEndedDowngrade.
func cancelDowngrade(s *cluster.Snapshot, notes map[string]string, message string) *plan.Decision {
	return changeDowngrade(s, plan.ChangeDowngrade{Notes: notes}, v1beta1.ReasonCancellingDowngrade, message)
}

// changeDowngrade asks the leader, or waits until there is one.
func changeDowngrade(s *cluster.Snapshot, action plan.ChangeDowngrade, reason, message string) *plan.Decision {
	if d := awaitObjects(s, reason); d != nil {
		return d // the Service of the peers has the note
	}
	d := &plan.Decision{Progressing: true, Reason: reason, Message: message}
	if action.Leader = leaderTarget(s); action.Leader == "" {
		d.Message = awaitsLeader
		return d
	}
	d.Action = action
	return d
}

// await waits until all data are prepared.
func (e *downgrade) await(reason string) *plan.Decision {
	return &plan.Decision{
		Progressing: true, Reason: reason,
		Message: fmt.Sprintf("The downgrade to etcd %s is enabled. Waiting until every member tells that its data are prepared for it.", e.target),
	}
}

// needsDowngrade reports whether the data must be lowered before a member can run the version of the spec. While a
// voter of that minor version answers, they never were raised.
func needsDowngrade(s *cluster.Snapshot) bool {
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Workload != nil && minorSteps(versionOfData(&m), s.Cluster.Spec.Version) == -1 && !isPinned(s, &m, s.Cluster.Spec.Version)
	})
}

// versionOfData is the version that the member's etcd says it is, or said last. Its template may have another one
// already, which no pod was made from.
func versionOfData(m *cluster.Member) string {
	if !m.Answers() && m.Volume != nil && m.Volume.Version != "" {
		return m.Volume.Version
	}
	return RunningVersion(m)
}

// noForeignDowngrade refuses while a downgrade is enabled that the operator did not enable.
func noForeignDowngrade(s *cluster.Snapshot) *plan.Refusal {
	e := enabledDowngrade(s)
	if e == nil || e.isOwn {
		return nil
	}
	return &plan.Refusal{
		Guard: "noForeignDowngrade", Reason: v1beta1.ReasonForeignDowngrade,
		Message: fmt.Sprintf("A downgrade to etcd %s is enabled in etcd, and the operator did not enable it. No member is added, upgraded or restarted "+
			"for its spec. Cancel it with: etcdctl downgrade cancel (etcdctl 3.6 or later). To downgrade, set spec.version afterwards.",
			cmp.Or(cluster.ForeignText(e.target), "of an unknown version")),
	}
}

// noDowngrade refuses a new member while a downgrade is enabled: it would be one more that etcd waits for.
func noDowngrade(s *cluster.Snapshot) *plan.Refusal {
	e := enabledDowngrade(s)
	switch {
	case e == nil:
		return nil
	case !e.isOwn:
		return noForeignDowngrade(s)
	}
	return &plan.Refusal{
		Guard: "noDowngrade", Reason: v1beta1.ReasonDowngrading,
		Message: fmt.Sprintf("A downgrade to etcd %s is under way. No member is added until it has ended.", e.target),
	}
}

// downgradeChanged reports whether etcd does what the operation asked for: the data are lowered, or the downgrade is
// cancelled.
func downgradeChanged(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	if s.Leader() == nil {
		return false
	}
	e := enabledDowngrade(s)
	if op.Reason == v1beta1.ReasonCancellingDowngrade {
		return e == nil
	}
	return e != nil && e.unprepared == ""
}

// downgradeAbandonedFor abandons one that is not needed any more, and any at its deadline. One that is enabled is
// cancelled before: see isOverdueDowngrade. The rule then begins anew.
func downgradeAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	e := enabledDowngrade(s)
	switch {
	case op.Reason == v1beta1.ReasonCancellingDowngrade:
	case op.Reason == v1beta1.ReasonRenewingLog:
		if !leavesOldEntries(s) {
			return "spec.version asks for another version now."
		}
	case e != nil && e.target != cluster.MinorOf(s.Cluster.Spec.Version):
		return "spec.version asks for another version now."
	case e == nil && !needsDowngrade(s):
		return "It is not needed any more."
	}
	if isOverdueDowngrade(s, op) {
		return ""
	}
	return deadlinePassed(s, op)
}

// isOverdueDowngrade reports whether members have not prepared their data at the deadline, and the operator can cancel
// the downgrade: while it is enabled, no member joins.
func isOverdueDowngrade(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	return isDowngrading(s) && leaderTarget(s) != "" && isLate(s, op.Type, op.StartedAt.Time)
}

func awaitDowngrade(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	e := enabledDowngrade(s)
	isCancelled := op.Reason == v1beta1.ReasonCancellingDowngrade
	switch {
	case isCancelled && e != nil:
		return cancelDowngrade(s, nil, fmt.Sprintf("Cancelling the downgrade to etcd %s.", e.target))
	case e != nil && isOverdueDowngrade(s, op):
		return cancelDowngrade(s, nil, fmt.Sprintf("%s did not prepare its data for etcd %s within %s, so the downgrade is cancelled. Its log tells why. "+
			"It is enabled again afterwards. "+setBack, e.unprepared, e.target, deadlineOf(s, op.Type)))
	case e != nil:
		return e.await(reasonOf(op))
	case !isCancelled:
		if d := beginDowngrade(s); d != nil {
			return d
		}
	}
	return &plan.Decision{Progressing: true, Message: "Waiting until the leader of etcd tells whether a downgrade is enabled."}
}
