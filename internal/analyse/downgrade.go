package analyse

import (
	"fmt"
	"slices"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// endDowngrade cancels a downgrade that is enabled if the spec has the newer version again, or a member is lost in the
// middle. It waits for etcd to end it otherwise, and reports one that is not the operator's.
func endDowngrade(s *cluster.Snapshot) *plan.Decision {
	target, isEnabled := enabledDowngrade(s)
	silent := slices.IndexFunc(s.Members, func(m cluster.Member) bool { return !m.Answers() })
	switch {
	case !isEnabled:
		return nil
	case !isOwnDowngrade(s, target):
		return refused([]plan.Refusal{*noForeignDowngrade(s)})
	case target != cluster.MinorOf(s.Cluster.Spec.Version):
		return changeDowngrade(s, "", fmt.Sprintf("spec.version is %s, so the downgrade to etcd %s is cancelled.", s.Cluster.Spec.Version, target))
	case silent >= 0:
		return changeDowngrade(s, "", fmt.Sprintf("%s does not answer, so the downgrade to etcd %s is cancelled. It goes on when the member is back.",
			s.Members[silent].Name, target))
	case versionChange(s) == "":
		return &plan.Decision{
			Progressing: true, Reason: v1beta1.ReasonDowngrading,
			Message: fmt.Sprintf("Every member runs etcd %s. Waiting until etcd itself ends the downgrade: it takes some seconds.", target),
		}
	}
	return nil
}

// beginDowngrade enables a downgrade where the data must be lowered before a member restarts, and waits for it. It has no
// opinion where members can restart.
func beginDowngrade(s *cluster.Snapshot) *plan.Decision {
	want := cluster.MinorOf(s.Cluster.Spec.Version)
	target, isEnabled := enabledDowngrade(s)
	switch {
	case isEnabled && !isLowered(s, target):
		return awaitLowered(target)
	case isEnabled || !needsDowngrade(s):
		return nil
	}
	return changeDowngrade(s, want, fmt.Sprintf("Enabling the downgrade to etcd %s. etcd then prepares its data for that version.", want))
}

// changeDowngrade enables a downgrade to a minor version, or cancels the one that is enabled.
func changeDowngrade(s *cluster.Snapshot, target, message string) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonDowngrading, Message: message}
	if target == "" {
		d.Reason = v1beta1.ReasonCancellingDowngrade
	}
	if leaderTarget(s) == "" {
		d.Message = awaitsLeader
		return d
	}
	d.Action = plan.ChangeDowngrade{Target: target, Leader: leaderTarget(s)}
	return d
}

func awaitLowered(target string) *plan.Decision {
	return &plan.Decision{
		Progressing: true, Reason: v1beta1.ReasonDowngrading,
		Message: fmt.Sprintf("The downgrade to etcd %s is enabled. Waiting until every member tells that its data are prepared for it.", target),
	}
}

// needsDowngrade reports whether the data must be lowered before a member can run the version of the spec. While a voter
// of that minor version answers, they never were raised.
func needsDowngrade(s *cluster.Snapshot) bool {
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Workload != nil && minorSteps(m.Workload.Intent.Version, s.Cluster.Spec.Version) == -1 && !isPinned(s, &m, s.Cluster.Spec.Version)
	})
}

// enabledDowngrade returns the minor version of the downgrade that is enabled in etcd, and false where none is. A member
// of etcd 3.5 tells no target: there it is the note's.
func enabledDowngrade(s *cluster.Snapshot) (target string, isEnabled bool) {
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
	return len(s.Members) > 0 && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return !m.Answers() || m.Probe.ClusterVersion != minor || m.Probe.StorageVersion != minor && m.Probe.StorageVersion != ""
	})
}

// noForeignDowngrade refuses while a downgrade is enabled that the operator did not enable.
func noForeignDowngrade(s *cluster.Snapshot) *plan.Refusal {
	target, isEnabled := enabledDowngrade(s)
	if !isEnabled || isOwnDowngrade(s, target) {
		return nil
	}
	return &plan.Refusal{
		Guard: "noForeignDowngrade", Reason: v1beta1.ReasonForeignDowngrade,
		Message: "A downgrade is enabled in etcd, and the operator did not enable it. No member is added, upgraded or restarted for its spec. " +
			"Finish the downgrade, or cancel it: etcdctl downgrade cancel.",
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

// downgradeAbandonedFor abandons one that was not enabled yet if the spec asks for something else, or the guards refuse
// it, and any at its deadline. The rule then cancels it, or begins anew.
func downgradeAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	target, isEnabled := enabledDowngrade(s)
	switch {
	case op.Reason == v1beta1.ReasonCancellingDowngrade:
	case isEnabled && target != cluster.MinorOf(s.Cluster.Spec.Version):
		return "spec.version asks for another version now."
	case !isEnabled && !needsDowngrade(s):
		return "It is not needed any more."
	}
	return deadlinePassed(s, op)
}

func awaitDowngrade(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	target, isEnabled := enabledDowngrade(s)
	isCancelled := op.Reason == v1beta1.ReasonCancellingDowngrade
	switch {
	case isCancelled && isEnabled:
		return changeDowngrade(s, "", fmt.Sprintf("Cancelling the downgrade to etcd %s.", target))
	case !isCancelled && !isEnabled:
		want := cluster.MinorOf(s.Cluster.Spec.Version)
		return changeDowngrade(s, want, fmt.Sprintf("Enabling the downgrade to etcd %s.", want))
	default:
		return awaitLowered(target)
	}
}
