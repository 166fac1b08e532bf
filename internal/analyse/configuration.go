package analyse

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// configurationRoll restarts, one after the other, the members whose pods were not made from what the spec asks for.
// A refusal is no opinion where a rotation of authorities can go on: a spec that nobody corrects must not hold it up
// until certificates expire.
func configurationRoll(s *cluster.Snapshot) *plan.Decision {
	d := configurationStep(s)
	if d != nil && len(d.Refusals) > 0 && rotates(s) {
		return nil
	}
	return d
}

// configurationStep decides the next step. Only the StatefulSet of the member that restarts is written: one that
// Kubernetes restarts meanwhile stays as it was.
func configurationStep(s *cluster.Snapshot) *plan.Decision {
	if d := notYetSupported(tlsChange)(s); d != nil {
		return d
	}
	if members := membersToRestart(s, v1beta1.ReasonRollingMembers); len(members) > 0 {
		return rollMember(s, nextToRestart(members))
	}
	if d := awaitResize(s); d != nil {
		return d
	}
	for i := range s.Members {
		if m := &s.Members[i]; isOverdue(s, m) {
			return refused([]plan.Refusal{*overdue(s, m)})
		}
	}
	return nil
}

// rollMember restarts a member, once its image is known to be right.
func rollMember(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if len(restartRefusals(s, m, configurationRestart)) == 0 {
		if d := awaitImage(s, m, configurationRestart); d != nil {
			return d
		}
	}
	return restartMember(s, m, v1beta1.ReasonRollingMembers)
}

var configurationRestart = restart{
	purpose:        "to load what the spec asks for",
	isNeeded:       runsWithAnotherConfiguration,
	target:         targetOf,
	operation:      v1beta1.OperationRollMember,
	writesTemplate: true,
	stopsTheOnly:   true,
	targetGuards: func(m *cluster.Member) []guard {
		return []guard{
			dataFit(m),                // Make sure that etcd can read its data.
			runsAsTold(m, targetOf),   // Make sure that no older etcd starts where an image is mislabelled.
			targetAllowed(m),          // Make sure that etcd takes the options, and Kubernetes the pod.
			quotaFitsClaim(m),         // Make sure that a larger database does not fill its volume.
			quotaHoldsDatabase(m),     // Make sure that etcd takes writes afterwards.
			imageIsRight(m, targetOf), // Make sure that another image exists, and has the version of the spec.
		}
	},
	guards: func(m *cluster.Member) []guard {
		return []guard{membersAcceptCertificates(m)} // Make sure that the restarted member and the others accept each other.
	},
}

// runsWithAnotherConfiguration reports whether the member's pod was not made from what the spec asks for.
// Once the operation under way has written the template, the template counts, and not the spec.
func runsWithAnotherConfiguration(s *cluster.Snapshot, m *cluster.Member) bool {
	switch {
	case awaitsVersion(m) && !isBegun(s, m, v1beta1.OperationRollMember):
		return false // the rule of the versions restarts it
	case !isMadeFromTemplate(m), isStaleForRelease(s, m):
		return true
	case isBegun(s, m, v1beta1.OperationRollMember):
		return false
	default:
		return (!sameConfiguration(m.Workload.Intent, targetOf(s, m)) || !hasResourcesOfTemplate(m)) && !resizesInPlace(s, m)
	}
}

// isMadeFromTemplate reports whether the pod is as one of its StatefulSet's intent. Authorities are left out: they have
// a rule of their own. Where the pod does not tell, and where there is none, it counts as made from it.
func isMadeFromTemplate(m *cluster.Member) bool {
	return wasMadeFromTemplate(m) || isResizedToTemplate(m)
}

func wasMadeFromTemplate(m *cluster.Member) bool {
	if m.Pod == nil || m.Pod.IntentHash == "" || m.Pod.IntentHash == m.Workload.IntentHash {
		return true
	}
	return isPodOf(m.Pod, m.Workload.Intent)
}

// isPodOf reports whether the pod was made from an intent, whatever its authorities were.
func isPodOf(p *cluster.Pod, intent cluster.Intent) bool {
	intent.PeerAuthorities, intent.ServerAuthorities = p.PeerAuthorities, p.ClientAuthorities
	_, hash := intent.Encode()
	return hash == p.IntentHash
}

// isStaleForRelease reports whether this release of the operator makes the pod differently, and the user wants it to
// restart for that.
func isStaleForRelease(s *cluster.Snapshot, m *cluster.Member) bool {
	return cluster.RollsForOperatorUpgrade(s.Cluster) && hasStaleRender(s, m) && !startedWithOldAuthorities(s, m)
}

func sameConfiguration(a, b cluster.Intent) bool {
	b.PeerAuthorities, b.ServerAuthorities = a.PeerAuthorities, a.ServerAuthorities
	return a.SameAs(b)
}

// targetOf is what the spec asks of a member, as far as this release carries it out: the member keeps its version, its
// certificates' source and its default quota. Timings change step by step.
func targetOf(s *cluster.Snapshot, m *cluster.Member) cluster.Intent {
	have := m.Workload.Intent
	target := keepTLS(cluster.IntentOf(s.Cluster).WithRestartOf(have), have)
	if target.Version != have.Version { // the image belongs to the version
		target = target.WithVersionOf(have)
	}
	if size := cluster.VolumeSize(&s.Cluster.Spec); !cluster.SetsQuota(&s.Cluster.Spec) && m.Volume != nil && m.Volume.RequestedBytes != size.Value() {
		target.QuotaBackendBytes = have.Canonical().QuotaBackendBytes // the default is that of the member's own volume
	}
	return stepTimings(s, target)
}

// keepTLS returns the intent with what another one has of TLS, and of the names that are in peer URLs.
func keepTLS(i, have cluster.Intent) cluster.Intent {
	i.ClusterDomain = have.ClusterDomain
	i.PeerSecret, i.PeerCertificates, i.PeerIssuer, i.PeerAuthorities = have.PeerSecret, have.PeerCertificates, have.PeerIssuer, have.PeerAuthorities
	i.ServerSecret, i.ServerCertificates, i.ServerIssuer = have.ServerSecret, have.ServerCertificates, have.ServerIssuer
	i.OperatorSecret, i.ServerAuthorities = have.OperatorSecret, have.ServerAuthorities
	return i
}

// maxTimingStep is by how much the heartbeat interval and the election timeout change at once. Members whose timings
// differ more hold elections against each other.
const maxTimingStep = 10

// stepTimings keeps the timings within one step of those of every member. So all members take the intermediate value
// before the first takes the next one.
func stepTimings(s *cluster.Snapshot, target cluster.Intent) cluster.Intent {
	var heartbeats, elections []int64
	add := func(i cluster.Intent) {
		heartbeat, election := i.Timings()
		heartbeats, elections = append(heartbeats, heartbeat), append(elections, election)
	}
	for i := range s.Members {
		m := &s.Members[i]
		if m.Workload == nil {
			continue
		}
		add(m.Workload.Intent)
		if m.Workload.HealthyIntent != nil && !isMadeFromTemplate(m) {
			add(*m.Workload.HealthyIntent) // the pod runs with it
		}
	}
	if len(heartbeats) == 0 {
		return target
	}
	heartbeat, election := target.Timings()
	heartbeat = nextTiming(heartbeat, heartbeats)
	election = max(nextTiming(election, elections), 5*heartbeat) // etcd demands it; rounding may miss it
	return target.WithTimings(heartbeat, election)
}

func nextTiming(want int64, have []int64) int64 {
	lowest := (slices.Max(have) + maxTimingStep - 1) / maxTimingStep
	return max(min(want, slices.Min(have)*maxTimingStep), lowest)
}

// tlsChange tells of a change of TLS or of the domain, which this release does not carry out.
func tlsChange(s *cluster.Snapshot) string {
	want := cluster.IntentOf(s.Cluster)
	for i := range s.Members {
		m := &s.Members[i]
		if m.Workload == nil {
			continue
		}
		if paths := keepTLS(want, m.Workload.Intent).Differences(want); len(paths) > 0 {
			return fmt.Sprintf("the pod of %s was made with other values of %s", m.Name, joinPaths(paths))
		}
	}
	return ""
}

// targetAllowed refuses what the operator carries out for no cluster.
func targetAllowed(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		return intentRefusal(targetOf(s, m), " The running cluster stays as it is. Set the spec back, or correct it.")
	}
}

// quotaFitsClaim refuses a larger quota than the member's volume has room for. What it has already is kept.
func quotaFitsClaim(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if m.Volume == nil {
			return nil
		}
		quota := targetOf(s, m).Quota()
		largest := cluster.LargestQuota(*resource.NewQuantity(m.Volume.RequestedBytes, resource.BinarySI))
		if quota <= largest || quota <= m.Workload.Intent.Quota() {
			return nil
		}
		return &plan.Refusal{
			Guard: "quotaFitsClaim", Reason: v1beta1.ReasonQuotaTooLarge,
			Message: fmt.Sprintf("The quota of %d bytes does not fit on PersistentVolumeClaim %s: a fifth of a volume, and at least 128Mi, must stay free "+
				"for the log, because etcd exits when the disk is full. Set spec.config.quotaBackendBytes (ETCD_QUOTA_BACKEND_BYTES in v1alpha1) to at most %d.",
				quota, m.Volume.Name, largest),
		}
	}
}

// quotaHoldsDatabase refuses a lower quota that a member's database fills to nine tenths. etcd takes no more writes
// once it has filled it whole. The message names no size, because that changes with every write.
func quotaHoldsDatabase(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		return databaseFits(s, targetOf(s, m).Quota(), m.Workload.Intent.Quota())
	}
}

// databaseFits refuses a quota that is lower than another one, and that a member's database fills to nine tenths.
func databaseFits(s *cluster.Snapshot, quota, before int64) *plan.Refusal {
	for i := range s.Members {
		if m := &s.Members[i]; m.Answers() && quota < before && m.Probe.DatabaseBytes > quota/10*9 {
			return &plan.Refusal{
				Guard: "quotaHoldsDatabase", Reason: v1beta1.ReasonQuotaTooSmall,
				Message: fmt.Sprintf("The database of %s fills more than nine tenths of the new quota of %d bytes. etcd takes no more writes once "+
					"the quota is reached. Set a larger spec.config.quotaBackendBytes (ETCD_QUOTA_BACKEND_BYTES in v1alpha1), or delete keys, "+
					"compact and defragment first.", m.Name, quota),
			}
		}
	}
	return nil
}

// hasNotFailed refuses to restart any member for what one of them did not become healthy with. It allows
// everything else: another spec, or another value of the restart annotation.
func hasNotFailed(target intentOf) guard {
	return func(s *cluster.Snapshot) *plan.Refusal { return failedBefore(s, target) }
}

func failedBefore(s *cluster.Snapshot, target intentOf) *plan.Refusal {
	m := memberThatWentBack(s, target)
	if m == nil {
		return nil
	}
	cause, _ := failedWith(s, m, target)
	return &plan.Refusal{
		Guard: "intentHasNotFailed", Reason: v1beta1.ReasonRolledBack,
		Message: fmt.Sprintf("%s did not become healthy with what the spec asks for, and went back to what it ran with before. What was wrong then: %s "+
			"No other member is restarted for it. Correct the spec, or set another value of the annotation %s to try it again.",
			m.Name, cause, v1beta1.RestartAnnotation),
	}
}

// memberThatWentBack returns a member that did not become healthy with a target, and whose roll has ended. It is nil
// where there is none.
func memberThatWentBack(s *cluster.Snapshot, target intentOf) *cluster.Member {
	for i := range s.Members {
		m := &s.Members[i]
		if _, failed := failedWith(s, m, target); failed && !isBegun(s, m, v1beta1.OperationRollMember) {
			return m
		}
	}
	return nil
}

// failedWith returns why the member did not become healthy with a target, and false where it was not tried.
func failedWith(s *cluster.Snapshot, m *cluster.Member, target intentOf) (cause string, failed bool) {
	if m.Workload == nil || m.Workload.Live == nil {
		return "", false
	}
	annotation := m.Workload.Live.Annotations[cluster.AnnotationFailedIntent]
	if annotation == "" { // the usual case, in which no hash is needed
		return "", false
	}
	return cluster.FailedCause(annotation, target(s, m).TargetHash())
}

// isCuredBySpec reports whether the member failed with its template, and the spec asks for another one that has not
// failed.
func isCuredBySpec(s *cluster.Snapshot, m *cluster.Member) bool {
	if m.Workload == nil || !hasFailed(m) || !isBegun(s, m, v1beta1.OperationRollMember) || !isMadeFromTemplate(m) || !plan.IsRoll(restartReason(s)) {
		return false
	}
	if _, failed := failedWith(s, m, targetOf); !failed && !sameConfiguration(m.Workload.Intent, targetOf(s, m)) {
		return true
	}
	_, failed := failedWith(s, m, versionTarget)
	return !failed && !sameVersion(m.Workload.Intent, versionTarget(s, m))
}

func restartReason(s *cluster.Snapshot) string {
	if op := s.Cluster.Status.Operation; op != nil {
		return reasonOf(op)
	}
	return ""
}

// awaitsFailedMembers reports whether the restarted member runs, and lacks only a quorum. Others have failed, and there
// is none before they restart too, or go back.
func awaitsFailedMembers(s *cluster.Snapshot, m *cluster.Member, reason string) bool {
	if s.Outlook().HasQuorum() || !isBegun(s, m, v1beta1.OperationRollMember) || !isMadeFromTemplate(m) || !m.Pod.IsRunning() || m.Pod.Deleting || m.Pod.FailureReason != "" {
		return false
	}
	return slices.ContainsFunc(s.Members, func(other cluster.Member) bool {
		return other.Name != m.Name && hasFailed(&other) && (needsRestart(s, &other, reason) || other.Workload != nil && canGoBack(s, &other))
	})
}
