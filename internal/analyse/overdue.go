package analyse

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// This file has the deadline of what etcd does by itself within seconds: its leader changes the version of the cluster,
// the members change that of their data, and the leader ends a downgrade. No operation is claimed meanwhile.

// waitedTooLong reports whether etcd had the deadline of a step for what it does by itself: since the last member came
// up, and since the operator is at work. An operation that is claimed has a deadline of its own.
func waitedTooLong(s *cluster.Snapshot) bool {
	if s.Cluster.Status.Operation != nil {
		return false
	}
	var since time.Time
	consider := func(t time.Time) {
		if t.After(since) {
			since = t
		}
	}
	if c := meta.FindStatusCondition(s.Cluster.Status.Conditions, v1beta1.ConditionProgressing); c != nil && c.Status == metav1.ConditionTrue {
		consider(c.LastTransitionTime.Time)
	}
	for i := range s.Members {
		if p := s.Members[i].Pod; p != nil {
			consider(p.CreatedAt)
			consider(p.StartedAt)
			consider(p.ReadySince)
		}
	}
	return !s.Now.Before(since.Add(cluster.ProgressDeadline(s.Cluster)))
}

// versionsTold says what each member tells of versions, and whose log has more.
func versionsTold(s *cluster.Snapshot) string {
	parts := make([]string, 0, len(s.Members))
	for i := range s.Members {
		m := &s.Members[i]
		if !m.Answers() {
			parts = append(parts, m.Name+" does not answer")
			continue
		}
		parts = append(parts, fmt.Sprintf("%s is etcd %s, and tells %s as the version of the cluster and %s as that of its data", m.Name,
			m.Probe.Version, cmp.Or(m.Probe.ClusterVersion, "none"), cmp.Or(m.Probe.StorageVersion, "none")))
	}
	text := "What the members tell: " + strings.Join(parts, "; ") + "."
	if l := s.Leader(); l != nil {
		text += fmt.Sprintf(" The log of the leader, %s, tells what etcd waits for.", l.Name)
	}
	return text
}

// cancelOverdue cancels a downgrade that does not go on: while it is enabled, no member joins.
func cancelOverdue(s *cluster.Snapshot, what, advice string) *plan.Decision {
	return cancelDowngrade(s, nil, fmt.Sprintf("%s within %s, so the downgrade is cancelled. %s %s", what, cluster.ProgressDeadline(s.Cluster), versionsTold(s), advice))
}

// clusterVersionOverdue refuses to go on while etcd does not have the version of the cluster that it should have.
func clusterVersionOverdue(s *cluster.Snapshot) *plan.Decision {
	advice := "Set spec.version back to stay with what runs."
	if l := s.Leader(); l != nil && l.Pod != nil {
		advice = fmt.Sprintf("Delete pod %s: the next leader compares the versions at once. Or set spec.version back to stay with what runs.", l.Pod.Name)
	}
	return refused([]plan.Refusal{{
		Guard: "clusterVersionFollows", Reason: v1beta1.ReasonDeadlineExceeded,
		Message: fmt.Sprintf("No member restarts with etcd %s: the cluster did not come to work as etcd %s within %s. %s %s",
			s.Cluster.Spec.Version, minorBeforeChange(s), cluster.ProgressDeadline(s.Cluster), versionsTold(s), advice),
	}})
}
