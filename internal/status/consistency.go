package status

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// dataConsistent tells the groups of members whose data agree. A difference that was found stays until the data have
// been compared again, also where the operator was restarted meanwhile. There is no condition before etcd has started.
func dataConsistent(s *cluster.Snapshot) metav1.Condition {
	is := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return condition(v1beta1.ConditionDataConsistent, status, reason, message)
	}
	last := meta.FindStatusCondition(s.Cluster.Status.Conditions, v1beta1.ConditionDataConsistent)
	c, refusals := analyse.Compared(s), analyse.ConsistencyRefusals(s)
	revision, agree := analyse.Agreed(s)
	isAlarmed, waits := analyse.HasCorruptAlarm(s), analyse.WhyComparisonWaits(s)
	switch {
	case s.Membership == nil && last != nil:
		return *last
	case s.Membership == nil:
		return metav1.Condition{} // etcd has not started yet
	case c != nil && len(c.Groups()) > 1 && c.Comparable():
		return is(metav1.ConditionFalse, v1beta1.ReasonDataDiffers, analyse.DifferenceText(s, c))
	case last != nil && last.Status == metav1.ConditionFalse && analyse.DifferedBefore(s):
		return is(metav1.ConditionFalse, v1beta1.ReasonDataDiffers, sentences("The data of the members differed when they were last compared. "+
			"They are compared again. Until then no member is restarted or added.", plan.Messages(refusals), notYet(waits)))
	case agree && (!isAlarmed || !analyse.AwaitsComparison(s)):
		return is(metav1.ConditionTrue, v1beta1.ReasonDataAgrees, fmt.Sprintf("The data of all members agree at revision %d: %s.",
			revision, strings.Join(voters(s), ", ")))
	case len(refusals) > 0:
		return is(metav1.ConditionUnknown, v1beta1.ReasonNotCompared, plan.Messages(refusals))
	case c != nil:
		return is(metav1.ConditionUnknown, v1beta1.ReasonNotCompared, notCompared(s, c))
	case isAlarmed && waits != "":
		return is(metav1.ConditionUnknown, v1beta1.ReasonNotCompared, "etcd reports an alarm for corrupt data. "+notYet(waits))
	case isAlarmed:
		return is(metav1.ConditionUnknown, v1beta1.ReasonCheckingConsistency, "etcd reports an alarm for corrupt data. The data of the members are being compared.")
	default:
		return is(metav1.ConditionTrue, v1beta1.ReasonNoDifferenceReported,
			"etcd compares hashes of the members' data after each compaction, and reports no difference.")
	}
}

// notYet tells what a comparison waits for; empty for nothing.
func notYet(waits string) string {
	if waits == "" {
		return ""
	}
	return "The comparison of the data has not begun: " + waits
}

// voters are the names of all voters, sorted.
func voters(s *cluster.Snapshot) []string {
	var names []string
	for i := range s.Members {
		if e := s.EtcdEntry(&s.Members[i]); e != nil && !e.Learner {
			names = append(names, s.Members[i].Name)
		}
	}
	slices.Sort(names)
	return names
}

// notCompared tells why a comparison ended without a result.
func notCompared(s *cluster.Snapshot, c *cluster.Comparison) string {
	if !c.Comparable() {
		return "The members compact their data at different revisions, so that their hashes could not be compared. The operator compares them again within an hour."
	}
	var silent []string
	for i := range s.Members {
		m := &s.Members[i]
		e := s.EtcdEntry(m)
		if e == nil || e.Learner {
			continue
		}
		if a := c.Of(e.ID); a == nil || a.Error != "" {
			silent = append(silent, m.Name)
		}
	}
	text := fmt.Sprintf("%s did not tell the hash of the data. Bring the member back.", strings.Join(silent, ", "))
	if c.MajorityAgrees() {
		text = fmt.Sprintf("The data of a majority of all members agree at revision %d: %s. ", c.Revision, strings.Join(c.Groups()[0], ", ")) + text
	}
	return text
}
