package analyse

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// endDowngrade cancels a downgrade that is enabled if the spec has the newer version again, or a member is lost in the
// middle or removed. It waits for etcd to end it otherwise, and reports one that is not the operator's.
func endDowngrade(s *cluster.Snapshot) *plan.Decision {
	target, isEnabled := enabledDowngrade(s)
	want := s.Cluster.Spec.Version
	silent := slices.IndexFunc(s.Members, func(m cluster.Member) bool { return !m.Answers() })
	switch {
	case !isEnabled:
		return nil
	case !isOwnDowngrade(s, target):
		return refused([]plan.Refusal{*noForeignDowngrade(s)})
	case silent >= 0:
		return changeDowngrade(s, "", nil, fmt.Sprintf("%s does not answer, so the downgrade to etcd %s is cancelled. It is enabled again when the member is back.",
			s.Members[silent].Name, target))
	case s.Outlook().Voters == 2: // a user removed one of three
		return changeDowngrade(s, "", nil, fmt.Sprintf("etcd has 2 voters, and neither can restart: both are the quorum. The downgrade to etcd %s is cancelled, "+
			"since no member is added while one is enabled. It is enabled again when there are more.", target))
	case renewsLog(s) && isLowered(s, target):
		return changeDowngrade(s, "", map[string]string{cluster.AnnotationLogRenewal: cluster.LogRenewalDone},
			"Every member has written a snapshot of its log. The downgrade that was enabled for that is cancelled.")
	case renewsLog(s):
		d := awaitLowered(target)
		d.Reason = v1beta1.ReasonRenewingLog
		return d
	case target != cluster.MinorOf(want):
		return changeDowngrade(s, "", nil, fmt.Sprintf("spec.version is %s, so the downgrade to etcd %s is cancelled.", want, target))
	case versionChange(s) == "" && nextToUpgrade(s) == nil:
		return &plan.Decision{
			Progressing: true, Reason: v1beta1.ReasonDowngrading,
			Message: fmt.Sprintf("Every member runs etcd %s. Waiting until etcd itself ends the downgrade: it takes some seconds.", target),
		}
	}
	return nil
}

// beginDowngrade enables a downgrade where the data must be lowered before a member restarts, and waits for it. It has
// no opinion where members can restart.
func beginDowngrade(s *cluster.Snapshot) *plan.Decision {
	want := cluster.MinorOf(s.Cluster.Spec.Version)
	target, isEnabled := enabledDowngrade(s)
	switch {
	case isEnabled && !isLowered(s, target):
		return awaitLowered(target)
	case isEnabled:
		return nil
	case (leadsTo37(s) || needsDowngrade(s)) && clusterVersion(s) != minorBeforeChange(s):
		return awaitClusterVersion(s)
	case (needsLogRenewal(s) || needsDowngrade(s)) && everyMemberHealthy(s) != nil:
		return refused([]plan.Refusal{*membersHealthy(&cluster.Member{})(s)})
	case needsLogRenewal(s):
		return changeDowngrade(s, oldEntriesOf, map[string]string{cluster.AnnotationDowngrade: oldEntriesOf, cluster.AnnotationLogRenewal: cluster.LogRenewalBegun},
			"Enabling a downgrade for some seconds, so that every member writes a snapshot of its log: etcd 3.7 cannot read what etcd 3.5 wrote there.")
	case needsDowngrade(s):
		return changeDowngrade(s, want, map[string]string{cluster.AnnotationDowngrade: want, cluster.AnnotationLogRenewal: ""},
			fmt.Sprintf("Enabling the downgrade to etcd %s. etcd then prepares its data for that version.", want))
	}
	return nil
}

// minorBeforeChange is the minor version that the cluster must work as before a downgrade is enabled: etcd refuses it
// otherwise. It follows the members within some seconds.
func minorBeforeChange(s *cluster.Snapshot) string {
	if leadsTo37(s) {
		return "3.6"
	}
	return cluster.NextMinor(s.Cluster.Spec.Version, 1)
}

func awaitClusterVersion(s *cluster.Snapshot) *plan.Decision {
	reason := v1beta1.ReasonUpgrading
	if needsDowngrade(s) {
		reason = v1beta1.ReasonDowngrading
	}
	return &plan.Decision{
		Progressing: true, Reason: reason,
		Message: fmt.Sprintf("Waiting until the leader of etcd tells that the cluster works as etcd %s.", minorBeforeChange(s)),
	}
}

// oldEntriesOf is the minor version whose entries in the log a later one cannot read. etcd 3.5 writes the attributes
// of members and the version of the cluster as requests of its second API. etcd 3.6 reads them, and 3.7 panics. They
// are gone once a member of 3.6 has written a snapshot, which it does each 10,000 entries, and when the version of the
// cluster goes down. Source: Apply in etcd's server/etcdserver/apply/apply.go, and ClusterVersionSet there in 3.6.
const oldEntriesOf = "3.5"

// leadsTo37 reports whether no member runs etcd 3.7 yet, and the spec asks for it.
func leadsTo37(s *cluster.Snapshot) bool {
	return cluster.MinorOf(s.Cluster.Spec.Version) == "3.7" && !isUnderWay(s) && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return cluster.MinorOf(RunningVersion(&m)) != "3.6"
	})
}

// needsLogRenewal reports whether the log may have entries that the version of the spec cannot read.
func needsLogRenewal(s *cluster.Snapshot) bool {
	return leadsTo37(s) && (s.PeerService == nil || s.PeerService.Annotations[cluster.AnnotationLogRenewal] != cluster.LogRenewalDone)
}

// renewsLog reports whether the downgrade that is enabled is there to renew the log.
func renewsLog(s *cluster.Snapshot) bool {
	return leadsTo37(s) && s.PeerService != nil && s.PeerService.Annotations[cluster.AnnotationLogRenewal] == cluster.LogRenewalBegun
}

// clusterVersion is the minor version that the cluster works as; empty where the leader does not tell it.
func clusterVersion(s *cluster.Snapshot) string {
	if leader := s.Leader(); leader != nil && leader.Serves() {
		return leader.Probe.ClusterVersion
	}
	return ""
}

// changeDowngrade enables a downgrade to a minor version, or cancels the one that is enabled.
func changeDowngrade(s *cluster.Snapshot, target string, notes map[string]string, message string) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonDowngrading, Message: message}
	switch {
	case target == "":
		d.Reason = v1beta1.ReasonCancellingDowngrade
		taken := map[string]string{cluster.AnnotationDowngrade: ""} // the note goes with what it is about
		maps.Copy(taken, notes)
		notes = taken
	case notes[cluster.AnnotationLogRenewal] == cluster.LogRenewalBegun:
		d.Reason = v1beta1.ReasonRenewingLog
	}
	if leaderTarget(s) == "" {
		d.Message = awaitsLeader
		return d
	}
	d.Action = plan.ChangeDowngrade{Target: target, Notes: notes, Leader: leaderTarget(s)}
	return d
}

func awaitLowered(target string) *plan.Decision {
	return &plan.Decision{
		Progressing: true, Reason: v1beta1.ReasonDowngrading,
		Message: fmt.Sprintf("The downgrade to etcd %s is enabled. Waiting until every member tells that its data are prepared for it.", target),
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

// enabledDowngrade returns the minor version of the downgrade that is enabled in etcd, and false where none is. A
// member of etcd 3.5 tells no target: there it is the note's. The leader is the first to know that one was cancelled.
func enabledDowngrade(s *cluster.Snapshot) (target string, isEnabled bool) {
	if l := s.Leader(); l != nil && l.Serves() && !l.Probe.DowngradeEnabled && !cluster.SameMinor(l.Probe.Version, "3.5.0") {
		return "", false
	}
	for i := range s.Members {
		if p := s.Members[i].Probe; p.Answered() && p.DowngradeEnabled {
			target, isEnabled = max(target, p.DowngradeTarget), true
		}
	}
	if isEnabled && target == "" {
		target = notedDowngrade(s)
	}
	return target, isEnabled
}

// isOwnDowngrade reports whether the operator enabled the downgrade.
func isOwnDowngrade(s *cluster.Snapshot, target string) bool {
	return target != "" && target == notedDowngrade(s)
}

// isDowngrading reports whether a downgrade of the operator's own is enabled.
func isDowngrading(s *cluster.Snapshot) bool {
	target, isEnabled := enabledDowngrade(s)
	return isEnabled && isOwnDowngrade(s, target)
}

func notedDowngrade(s *cluster.Snapshot) string {
	if s.PeerService == nil {
		return ""
	}
	return s.PeerService.Annotations[cluster.AnnotationDowngrade]
}

// isLowered reports whether every member tells that the cluster works as the minor version, and that its data are
// prepared for it. Members of etcd 3.5 tell nothing of their data.
func isLowered(s *cluster.Snapshot, minor string) bool {
	return len(s.Members) > 0 && notLowered(s, minor) == ""
}

// notLowered names the first member that does not tell so; empty where all do.
func notLowered(s *cluster.Snapshot, minor string) string {
	for i := range s.Members {
		m := &s.Members[i]
		if !m.Answers() || m.Probe.ClusterVersion != minor || m.Probe.StorageVersion != minor && m.Probe.StorageVersion != "" {
			return m.Name
		}
	}
	return ""
}

// noForeignDowngrade refuses while a downgrade is enabled that the operator did not enable.
func noForeignDowngrade(s *cluster.Snapshot) *plan.Refusal {
	target, isEnabled := enabledDowngrade(s)
	if !isEnabled || isOwnDowngrade(s, target) {
		return nil
	}
	return &plan.Refusal{
		Guard: "noForeignDowngrade", Reason: v1beta1.ReasonForeignDowngrade,
		Message: fmt.Sprintf("A downgrade to etcd %s is enabled in etcd, and the operator did not enable it. No member is added, upgraded or restarted "+
			"for its spec. Cancel it with: etcdctl downgrade cancel (etcdctl 3.6 or later). To downgrade, set spec.version afterwards.",
			cmp.Or(cluster.ForeignText(target), "of an unknown version")),
	}
}

// noDowngrade refuses a new member while a downgrade is enabled: it would be one more that etcd waits for.
func noDowngrade(s *cluster.Snapshot) *plan.Refusal {
	if r := noForeignDowngrade(s); r != nil {
		return r
	}
	target, isEnabled := enabledDowngrade(s)
	if !isEnabled {
		return nil
	}
	return &plan.Refusal{
		Guard: "noDowngrade", Reason: v1beta1.ReasonDowngrading,
		Message: fmt.Sprintf("A downgrade to etcd %s is under way. No member is added until it has ended.", target),
	}
}

// downgradeChanged reports whether etcd does what the operation asked for: the data are lowered, or the downgrade is
// cancelled.
func downgradeChanged(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	target, isEnabled := enabledDowngrade(s)
	if s.Leader() == nil {
		return false
	}
	if op.Reason == v1beta1.ReasonCancellingDowngrade {
		return !isEnabled
	}
	return isEnabled && isLowered(s, target)
}

// downgradeAbandonedFor abandons one that is not needed any more, and any at its deadline. One that is enabled is
// cancelled before: see isOverdueDowngrade. The rule then begins anew.
func downgradeAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	target, isEnabled := enabledDowngrade(s)
	switch {
	case op.Reason == v1beta1.ReasonCancellingDowngrade:
	case op.Reason == v1beta1.ReasonRenewingLog:
		if !leadsTo37(s) {
			return "spec.version asks for another version now."
		}
	case isEnabled && target != cluster.MinorOf(s.Cluster.Spec.Version):
		return "spec.version asks for another version now."
	case !isEnabled && !needsDowngrade(s):
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
	target, isEnabled := enabledDowngrade(s)
	isCancelled := op.Reason == v1beta1.ReasonCancellingDowngrade
	switch {
	case isCancelled && isEnabled:
		return changeDowngrade(s, "", nil, fmt.Sprintf("Cancelling the downgrade to etcd %s.", target))
	case isOverdueDowngrade(s, op):
		return changeDowngrade(s, "", nil, fmt.Sprintf("%s did not prepare its data for etcd %s within %s, so the downgrade is cancelled. Its log tells why. "+
			"It is enabled again afterwards. To stay with what runs, set spec.version back.", notLowered(s, target), target, deadlineOf(s, op.Type)))
	case !isCancelled && !isEnabled:
		if d := beginDowngrade(s); d != nil {
			return d
		}
	}
	if !isEnabled {
		return &plan.Decision{Progressing: true, Message: "Waiting until the leader of etcd tells whether a downgrade is enabled."}
	}
	return awaitLowered(target)
}
