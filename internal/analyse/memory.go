package analyse

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// storageKindStays refuses a new member with its data in memory beside members with volumes, and the other way round.
func storageKindStays(s *cluster.Snapshot) *plan.Refusal {
	for i := range s.Members {
		if v := s.Members[i].Volume; v != nil && v.InMemory != cluster.IsInMemory(&s.Cluster.Spec) {
			return &plan.Refusal{
				Guard: "storageKindStays", Reason: v1beta1.ReasonNotYetSupported,
				Message: "spec.storage.ephemeral cannot be added or removed, and the members were made without that change. No member is added meanwhile. Set the spec back.",
			}
		}
	}
	return nil
}

// isInMemory reports whether the data of a member are in memory: they go with its pod (docs/adr/0007).
func isInMemory(m cluster.Member) bool {
	return m.Workload != nil && m.Workload.MemoryBytes > 0 || m.Volume != nil && m.Volume.InMemory
}

// memoryOf returns how much memory the data of a member may take; zero where they are on a volume. What it was made
// with counts, and the spec for a member that is made now.
func memoryOf(s *cluster.Snapshot, m *cluster.Member) int64 {
	switch size := cluster.VolumeSize(&s.Cluster.Spec); {
	case m != nil && m.Workload != nil:
		return m.Workload.MemoryBytes
	case m != nil && m.Volume != nil && m.Volume.InMemory:
		return m.Volume.RequestedBytes
	case m != nil && m.Volume != nil || !cluster.IsInMemory(&s.Cluster.Spec):
		return 0
	default:
		return size.Value()
	}
}

// admissionRecord names the pod that becomes the member, on the record of a member in memory that names none yet.
// Later no other pod of the member is ever admitted.
func admissionRecord(m *cluster.Member) map[string]string {
	v := m.Volume
	if v == nil || !v.InMemory || v.Deleting || v.Started() || v.Remembered.Name != "" || v.Identity.Name == "" || !m.Pod.Gated {
		return nil
	}
	return map[string]string{cluster.AnnotationVolume: v.Identity.String()}
}

// mayHaveMemory reports whether a founder in memory has, or had, a pod: its etcd may have voted, and only that pod
// would know. One without a pod, whose record names none, never ran.
func mayHaveMemory(m *cluster.Member) bool {
	v := m.Volume
	return v.InMemory && (m.Pod != nil || v.Remembered.Name != "")
}

// memoryNotCorrected tells that a corrected spec does not reach a founder in memory that has a pod; nil where none
// waits for one. Nothing is lost where the cluster is created again: no member was seen started.
func memoryNotCorrected(s *cluster.Snapshot) *plan.Decision {
	want := withAuthorities(s, cluster.IntentOf(s.Cluster))
	if s.Founded() || s.Membership != nil {
		return nil
	}
	var names []string
	for i := range s.Members {
		m := &s.Members[i]
		isDown := m.Workload != nil && startEvidence(s, m) == "" && (neverRan(m) || hasFailed(m))
		if m.Volume != nil && mayHaveMemory(m) && isDown && !sameConfiguration(m.Workload.Intent, want) {
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &plan.Decision{
		Reason: v1beta1.ReasonNotYetSupported,
		Message: fmt.Sprintf("No member has started yet. The corrected spec does not reach %s: the data are in memory, so a pod of a member is never replaced by another one of its name. "+
			"Delete EtcdCluster %s and create it again with the spec that you want. It has no data yet.", strings.Join(names, ", "), s.Cluster.Name),
	}
}

// isAdmissible reports whether the pod of a member in memory may start: it is the one that the record names.
func isAdmissible(m *cluster.Member) bool {
	v := m.Volume
	return v != nil && v.InMemory && !v.Deleting && !v.Retired && m.Pod != nil && m.Pod.Gated && cluster.SameVolume(v.Remembered, v.Identity)
}

// hasFailedForGood reports whether etcd does not answer, and its container ends again and again, or cannot be started.
func hasFailedForGood(m *cluster.Member) bool {
	return m.Pod != nil && hasFailed(m) && slices.Contains([]string{v1beta1.ReasonCrashLooping, v1beta1.ReasonContainerFailed}, m.Pod.FailureReason)
}

// failsInMemory reports whether a member in memory that started fails. A node that restarts empties the memory, and
// keeps the pod: etcd then exits. For any other cause a new member is the cure too, because this one is never
// restarted.
func failsInMemory(m *cluster.Member) bool {
	return m.Volume != nil && m.Volume.InMemory && m.Volume.Started() && hasFailedForGood(m) && failsSinceItWasReady(m) &&
		!strings.Contains(m.Pod.FailureDetail, otherData) // its peers may have the wrong data
}

// failsSinceItWasReady reports whether the container that ended was started after the pod was last ready: what is told
// of it is not of long ago.
func failsSinceItWasReady(m *cluster.Member) bool {
	return !m.Pod.NotReadySince.IsZero() && m.Pod.StartedAt.After(m.Pod.NotReadySince)
}

// failsForLong reports whether a learner in memory fails for longer than the start of a container may need.
func failsForLong(s *cluster.Snapshot, m *cluster.Member) bool {
	return m.Volume.InMemory && hasFailedForGood(m) && !m.Pod.NotReadySince.IsZero() && !s.Now.Before(m.Pod.NotReadySince.Add(failureGrace))
}

// memberToRenew returns a voter in memory that must run with something else than it does: with other options, another
// pod template, or other authorities. It is never restarted, because its data would be lost: a new member takes its
// place. The leader comes last.
func memberToRenew(s *cluster.Snapshot) *cluster.Member {
	var next *cluster.Member
	for i := range s.Members {
		m := &s.Members[i]
		if !isInMemory(*m) || !m.Answers() || !isListedVoter(s, m) || !mustRenew(s, m) {
			continue
		}
		if next == nil || next.Leads() {
			next = m
		}
	}
	return next
}

// mustRenew reports whether a member that joins now would run with what this one lacks. Otherwise a new member would be
// as the old one, and the next one too.
func mustRenew(s *cluster.Snapshot, m *cluster.Member) bool {
	if needsRestart(s, m, v1beta1.ReasonRotatingAuthorities) {
		return true
	}
	return needsRestart(s, m, v1beta1.ReasonRollingMembers) &&
		(isStaleForRelease(s, m) || !sameConfiguration(m.Workload.Intent, joinerIntent(s)))
}

// keepsMemory refuses to restart a member whose data are in memory.
func keepsMemory(m *cluster.Member) *plan.Refusal {
	return &plan.Refusal{
		Guard: "volumeStays", Reason: v1beta1.ReasonNotYetSupported,
		Message: fmt.Sprintf("%s is not restarted, because its data are in memory and would be lost. Options and the pod template reach the cluster by new members. "+
			"Another version of etcd does not, in this release: set spec.version back, or create another cluster with it.", m.Name),
	}
}

// mustStayInMemory is how many members an eviction must leave where it loses a member for good: all voters but one, in
// a cluster that grows or shrinks too. After the lost one was removed from etcd, the budget stays as it is: the next
// one may go once the new member is a voter. So the live budget tells how large the cluster was.
func mustStayInMemory(s *cluster.Snapshot) int {
	if !cluster.IsInMemory(&s.Cluster.Spec) {
		return 0
	}
	before := int(s.Cluster.Spec.Replicas) - 1
	if b := s.Budget; b != nil && b.Spec.MinAvailable != nil {
		before = min(before, b.Spec.MinAvailable.IntValue())
	}
	return max(before, s.Outlook().Voters-1)
}

// memoryFits refuses members whose container may not use as much memory as their data and their database's quota: what
// is in memory counts for the container, and etcd would be killed again and again.
func memoryFits(intentOf func(*cluster.Snapshot) cluster.Intent) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		intent, size := intentOf(s), cluster.VolumeSize(&s.Cluster.Spec)
		limit, isLimited := intent.Limits[corev1.ResourceMemory]
		least := size.Value() + intent.Quota()
		if !cluster.IsInMemory(&s.Cluster.Spec) || !isLimited || limit.Value() >= least {
			return nil
		}
		return &plan.Refusal{
			Guard: "memoryFits", Reason: v1beta1.ReasonQuotaTooLarge,
			Message: fmt.Sprintf("The data of a member are in memory and count for its container: its limit is %s, and %s of data and a quota of %d bytes need %d bytes. "+
				"Set spec.resources.limits.memory to at least that, or a lower spec.storage.ephemeral.sizeLimit and spec.config.quotaBackendBytes.",
				limit.String(), size.String(), intent.Quota(), least),
		}
	}
}

// MemoryLost tells that no quorum has its data, which were in memory, and what to do; empty elsewhere.
func MemoryLost(s *cluster.Snapshot) string {
	if d := volumesLost(s); d != nil && d.Reason == v1beta1.ReasonMemoryLost {
		return d.Message
	}
	return ""
}

// memoryLost tells that so many pods went, or nodes restarted, at once that no quorum has its data. Nothing is founded
// again.
func memoryLost(s *cluster.Snapshot, lost []string, left, quorum int) *plan.Decision {
	rest := "All data are lost."
	if left > 0 {
		rest = "Delete no pod of a member that is left, and save its data first with etcdctl snapshot save (docs/memory.md)."
	}
	return &plan.Decision{
		Reason: v1beta1.ReasonMemoryLost,
		Message: fmt.Sprintf("The data of %s were in memory, and are lost: their pods are gone, or their nodes restarted. %d of %d members have their data, and the quorum is %d, so etcd cannot serve. %s "+
			"The operator does not create an empty cluster in its place. To start empty, delete EtcdCluster %s and create it again.",
			strings.Join(lost, ", "), left, len(s.Members), quorum, rest, s.Cluster.Name),
	}
}
