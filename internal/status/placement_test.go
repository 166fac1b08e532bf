package status

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

func TestTellsWhichMembersShareANode(t *testing.T) {
	runs := func(size int32, change func(*cluster.Snapshot)) *Builder {
		b := MakeCluster("prod").Replicas(size).Objects().Members(Healthy)
		if change != nil {
			b = b.Later(change)
		}
		return b
	}
	on := func(node string, members ...string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			for _, m := range members {
				s.Member(m).Pod.Node = node
			}
		}
	}
	both := func(changes ...func(*cluster.Snapshot)) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			for _, change := range changes {
				change(s)
			}
		}
	}
	affinity := func(wish v1beta1.MemberAntiAffinity) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			s.Cluster.Spec.PodTemplate = &v1beta1.PodTemplate{MemberAntiAffinity: wish}
		}
	}
	told := func(status metav1.ConditionStatus) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			reason := v1beta1.ReasonAsExpected
			if status == metav1.ConditionTrue {
				reason = v1beta1.ReasonMembersShareNode
			}
			s.Cluster.Status.Conditions = append(s.Cluster.Status.Conditions, condition(v1beta1.ConditionPlacementAdvisory, status, reason, "As told before."))
		}
	}
	shared := on("node-7", "prod-0", "prod-2")
	noPod := func(s *cluster.Snapshot) { s.Member("prod-2").Pod, s.Member("prod-2").Probe = nil, nil }
	noNode := func(s *cluster.Snapshot) { s.Member("prod-2").Pod.Node = "" }
	leaves := func(s *cluster.Snapshot) { s.Member("prod-2").Pod.Deleting = true }
	removed := func(s *cluster.Snapshot) { s.Members = s.Members[:2] }
	for name, c := range map[string]struct {
		cluster *Builder
		isTrue  bool
		message string
	}{
		"each on its own node":    {runs(3, nil), false, "no node with two members"},
		"two of three":            {runs(3, shared), true, "prod-0, prod-2 run on node node-7. If that node fails, 1 of 3 members are left, which is no quorum"},
		"two of five":             {runs(5, shared), true, "prod-0, prod-2 run on node node-7. If that node fails, 3 of 5 members are left. They are a quorum."},
		"four on two nodes":       {runs(5, both(shared, on("node-8", "prod-1", "prod-3"))), true, "prod-1, prod-3 run on node node-8."},
		"the only member":         {runs(1, nil), false, "no node with two members"},
		"the spec allows it":      {runs(3, both(shared, affinity(v1beta1.MemberAntiAffinityPreferred))), false, "may share a node"},
		"the spec forbids it":     {runs(3, both(shared, affinity(v1beta1.MemberAntiAffinityRequired))), true, "prod-0, prod-2"},
		"it was allowed later":    {runs(3, both(shared, told(metav1.ConditionTrue), affinity(v1beta1.MemberAntiAffinityPreferred))), false, "may share a node"},
		"one of two has no pod":   {runs(3, both(shared, told(metav1.ConditionTrue), noPod)), true, "As told before."},
		"one of two has no node":  {runs(3, both(shared, told(metav1.ConditionTrue), noNode)), true, "As told before."},
		"one of two leaves":       {runs(3, both(on("node-8", "prod-2"), told(metav1.ConditionTrue), leaves)), true, "As told before."},
		"one is replaced":         {runs(3, both(told(metav1.ConditionTrue), removed)), true, "As told before."},
		"in the middle of a step": {runs(3, both(shared, told(metav1.ConditionFalse), restarting(time.Minute))).LaterSpec(moreMemory), false, "As told before."},
		"nothing was told yet":    {runs(3, both(shared, noPod)), false, "no node with two members"},
		"they were separated":     {runs(3, told(metav1.ConditionTrue)), false, "no node with two members"},
	} {
		s := c.cluster.Snapshot()
		d := analyse.Next(s)
		report := Of(&s, &d, nil)
		got := meta.FindStatusCondition(report.Status.Conditions, v1beta1.ConditionPlacementAdvisory)
		if got == nil || (got.Status == metav1.ConditionTrue) != c.isTrue || !strings.Contains(got.Message, c.message) {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if c.isTrue && got.Reason != v1beta1.ReasonMembersShareNode {
			t.Errorf("%s: the reason is %s", name, got.Reason)
		}
		degraded := meta.FindStatusCondition(report.Status.Conditions, v1beta1.ConditionDegraded)
		if strings.HasPrefix(c.message, "prod-") && degraded.Status != metav1.ConditionFalse {
			t.Errorf("%s: members that serve are called degraded: %+v", name, degraded)
		}
	}
}
