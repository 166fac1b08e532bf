package analyse

import (
	"fmt"
	"slices"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// failureGrace is how long a pod that has failed gets before its member goes back. The kubelet starts a container, and
// pulls an image, again after 10, 20 and 40 s: three attempts failed.
const failureGrace = time.Minute

// definiteFailures are those that end only with another template, as far as can be told. A pod that waits for a node,
// for example, gets until the deadline.
var definiteFailures = []string{v1beta1.ReasonCrashLooping, v1beta1.ReasonImagePullFailed, v1beta1.ReasonContainerFailed}

// rollBack restarts a member that does not come back with the intent under which it was last healthy. The other
// members are not touched. The restart that the member did not survive hands over, unless it has ended: its pod may
// have gone later, in a drain.
func rollBack(s *cluster.Snapshot) *plan.Decision {
	i := slices.IndexFunc(s.Members, func(m cluster.Member) bool { return rollBackIsDue(s, &m) })
	if i < 0 {
		return nil
	}
	m := &s.Members[i]
	d := goBack(s, m)
	if d.Action == nil {
		return nil
	}
	d.HandOver = s.Cluster.Status.Operation != nil
	return d
}

// goBack takes the first step of a roll back.
func goBack(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if stopsFirst(s, m) {
		return stopMember(s, m)
	}
	d := restartMember(s, m, v1beta1.ReasonRollingBack)
	d.Message = fmt.Sprintf("%s did not become healthy after its restart. %s It goes back to what it ran with before%s.", m.Name, whyNotHealthy(m), olderVersion(m))
	return d
}

// olderVersion tells the version that a member goes back to, where it is another one.
func olderVersion(m *cluster.Member) string {
	if healthy := m.Workload.HealthyIntent; healthy != nil && healthy.Version != m.Workload.Intent.Version {
		return ": etcd " + healthy.Version
	}
	return ""
}

var rollBackRestart = restart{
	purpose:        "with what it ran with before",
	operation:      v1beta1.OperationRollBack,
	isNeeded:       runsWithAnotherThanHealthy,
	target:         healthyConfiguration,
	guards:         func(*cluster.Member) []guard { return nil },
	writesTemplate: true,
	stopsTheOnly:   true,
	mayDelete:      true,
}

func runsWithAnotherThanHealthy(s *cluster.Snapshot, m *cluster.Member) bool {
	if isBegun(s, m, v1beta1.OperationRollBack) {
		return !isMadeFromTemplate(m) && mayStartTemplate(s, m)
	}
	op := s.Cluster.Status.Operation
	return op != nil && op.Member == m.Name && canGoBack(s, m) && isDown(m) || op == nil && rollBackIsDue(s, m)
}

// mayStartTemplate reports whether the member's template is no older than its data. The pod of a newer one may have
// come up although it was to be stopped: then nothing is older than what it answers with, unless the others pin the
// version.
func mayStartTemplate(s *cluster.Snapshot, m *cluster.Member) bool {
	version := m.Workload.Intent.Version
	return !m.IsHealthyVoter() || minorSteps(version, m.Probe.Version) <= 0 || isPinned(s, m, version) || clusterVersion(s) == cluster.MinorOf(version)
}

// isDown reports whether a member neither serves nor is ready.
func isDown(m *cluster.Member) bool { return !m.Serves() && (m.Pod == nil || !m.Pod.Ready) }

func healthyConfiguration(_ *cluster.Snapshot, m *cluster.Member) cluster.Intent {
	if m.Workload.HealthyIntent == nil {
		return m.Workload.Intent
	}
	return *m.Workload.HealthyIntent
}

// canGoBack reports whether there is another intent under which the member was healthy. An older minor version is a way
// back only while another voter runs it: that pins the version of the cluster. A newer cluster's data it would refuse.
func canGoBack(s *cluster.Snapshot, m *cluster.Member) bool {
	healthy := m.Workload.HealthyIntent
	return healthy != nil && !sameConfiguration(m.Workload.Intent, *healthy) && !isRememberedAsFailed(s, m, *healthy) &&
		(minorSteps(healthy.Version, m.Workload.Intent.Version) <= 0 || isPinned(s, m, healthy.Version))
}

// isPinned reports whether a voter beside the member answers with the minor version. etcd's leader raises the version
// of the cluster only when every member is newer. Source: decideClusterVersion in etcd's
// server/etcdserver/cluster_util.go.
func isPinned(s *cluster.Snapshot, m *cluster.Member, version string) bool {
	return slices.ContainsFunc(s.Members, func(other cluster.Member) bool {
		return other.Name != m.Name && other.Answers() && isListedVoter(s, &other) && cluster.SameMinor(other.Probe.Version, version)
	})
}

// rollBackIsDue reports whether the restarted member failed for good, or passed its deadline. A member whose pod is
// ready serves its clients, so it stays. One on a lost node would not come back either, and one that only lacks the
// quorum of the others does not gain by it.
func rollBackIsDue(s *cluster.Snapshot, m *cluster.Member) bool {
	if m.IsHealthyVoter() { // the usual case: this runs for each member in each pass
		return false
	}
	startedAt, isRolled := rolledAt(s, m)
	if !isRolled || !canGoBack(s, m) && !stopsFirst(s, m) {
		return false
	}
	late := isLate(s, v1beta1.OperationRollMember, startedAt)
	switch p := m.Pod; {
	case p == nil:
		return late && m.Workload.CreateFailure != ""
	case p.Ready, p.Deleting, p.NodeLost, !isMadeFromTemplate(m):
		return false
	case hasFailed(m) && slices.Contains(definiteFailures, p.FailureReason) && !s.Now.Before(p.CreatedAt.Add(failureGrace)):
		return true
	default:
		return late && (hasFailed(m) || len(s.Members) == 1 || s.After(cluster.Change{Stops: m.Name}).HasQuorum())
	}
}

// rolledAt returns when the operation began that wrote the member's template to roll it, and false unless that is the
// operation under way. Without one, it is the last operation, the member was not healthy since, and the spec still asks
// for the same: another spec would cure it.
func rolledAt(s *cluster.Snapshot, m *cluster.Member) (time.Time, bool) {
	if m.Workload == nil || m.Workload.Live == nil {
		return time.Time{}, false
	}
	t, startedAt, isMarked := cluster.MarkedOperation(m.Workload.Live.Annotations[cluster.AnnotationOperation])
	switch {
	case !isMarked || t != v1beta1.OperationRollMember:
		return time.Time{}, false
	case s.Cluster.Status.Operation != nil:
		return startedAt, isClaimed(s, t) && isBegun(s, m, t) // a roll back keeps the start time
	default:
		return startedAt, !wasHealthyWithTemplate(m) && sameConfiguration(m.Workload.Intent, targetOf(s, m))
	}
}

// rollBackAbandonedFor abandons a roll back at its deadline, which is twice that of a restart.
func rollBackAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	return withCause(deadlinePassed(s, op), s.Member(op.Member))
}
