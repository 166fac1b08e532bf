package status

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func claimed(name string, kind v1beta1.OperationType, member string, age time.Duration) v1beta1.EtcdCluster {
	return v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "db", Name: name},
		Status:     v1beta1.EtcdClusterStatus{Operation: &v1beta1.Operation{Type: kind, Member: member, StartedAt: metav1.NewTime(noon.Add(-age))}},
	}
}

func rolling(name string, age time.Duration) v1beta1.EtcdCluster {
	return claimed(name, v1beta1.OperationRollMember, name+"-1", age)
}

// said are the conditions that were written: Upgradeable for a while, in a row of steps that began some time ago.
func said(status metav1.ConditionStatus, lasts, row time.Duration) []metav1.Condition {
	return []metav1.Condition{
		{Type: ConditionUpgradeable, Status: status, Reason: "Before", LastTransitionTime: metav1.NewTime(noon.Add(-lasts))},
		{Type: ConditionUpgradesHeld, Status: metav1.ConditionTrue, Reason: "Before", LastTransitionTime: metav1.NewTime(noon.Add(-row))},
	}
}

func TestUpgradesWaitForStepsThatDisturbMembersAndNotForLong(t *testing.T) {
	const m = time.Minute
	resting := v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "db", Name: "a"}}
	list := func(clusters ...v1beta1.EtcdCluster) []v1beta1.EtcdCluster { return clusters }
	const atRest, enough = "No step is in flight.", "Steps followed one another for 30 minutes."
	for name, test := range map[string]struct {
		clusters []v1beta1.EtcdCluster
		last     []metav1.Condition
		status   metav1.ConditionStatus
		message  string
		next     time.Duration
	}{
		"no cluster":               {nil, nil, metav1.ConditionTrue, atRest, 0},
		"a cluster at rest":        {list(resting), nil, metav1.ConditionTrue, atRest, 0},
		"a founding, for ever":     {list(claimed("b", v1beta1.OperationBootstrap, "", m)), nil, metav1.ConditionTrue, atRest, 0},
		"volumes that come back":   {list(claimed("b", v1beta1.OperationTakeBack, "", m)), nil, metav1.ConditionTrue, atRest, 0},
		"members that are resumed": {list(claimed("b", v1beta1.OperationResume, "", m)), nil, metav1.ConditionTrue, atRest, 0},
		"a member is down": {
			list(resting, rolling("b", 0)), nil, metav1.ConditionFalse, "EtcdCluster db/b: RollMember of b-1 is in flight.", 10 * m,
		},
		"a member is added": {
			list(claimed("b", v1beta1.OperationAddMember, "b-3", m)), nil, metav1.ConditionFalse, "EtcdCluster db/b: AddMember of b-3 is in flight.", 9 * m,
		},
		"a member is removed": {
			list(claimed("b", v1beta1.OperationRemoveMember, "b-2", m)), nil, metav1.ConditionFalse, "EtcdCluster db/b: RemoveMember of b-2 is in flight.", 9 * m,
		},
		"a member goes back": {
			list(claimed("b", v1beta1.OperationRollBack, "b-2", m)), nil, metav1.ConditionFalse, "EtcdCluster db/b: RollBack of b-2 is in flight.", 9 * m,
		},
		"a step of a later release": {
			list(claimed("b", "MoveVolume", "b-2", m)), nil, metav1.ConditionFalse, "EtcdCluster db/b: MoveVolume of b-2 is in flight.", 9 * m,
		},
		"two members of two clusters, in any order": {
			list(rolling("c", 3*m), rolling("b", m)), nil, metav1.ConditionFalse, "EtcdCluster db/b: RollMember of b-1 is in flight, and 1 more.", 7 * m,
		},

		"a step of just less than 10 minutes": {
			list(rolling("b", 10*m-time.Second)), said(metav1.ConditionFalse, 10*m, 10*m), metav1.ConditionFalse, "EtcdCluster db/b", time.Second,
		},
		"a step of 10 minutes": {list(rolling("b", 10*m)), said(metav1.ConditionFalse, 10*m, 10*m), metav1.ConditionTrue, atRest, 0},
		"a stuck step beside a new one": {
			list(rolling("b", 24*time.Hour), rolling("c", m)), nil, metav1.ConditionFalse, "EtcdCluster db/c: RollMember of c-1 is in flight.", 9 * m,
		},
		"a clock that is a little ahead": {list(rolling("b", -m)), nil, metav1.ConditionFalse, "EtcdCluster db/b", 11 * m},
		"a step from the future":         {list(rolling("b", -time.Hour)), nil, metav1.ConditionTrue, atRest, 0},

		"a row of just less than 30 minutes": {
			list(rolling("b", m)), said(metav1.ConditionFalse, 30*m-time.Second, 30*m-time.Second), metav1.ConditionFalse, "EtcdCluster db/b", time.Second,
		},
		"a row of 30 minutes":                      {list(rolling("b", m)), said(metav1.ConditionFalse, 30*m, 30*m), metav1.ConditionTrue, enough, 30 * m},
		"a row with a gap":                         {list(rolling("b", 0)), said(metav1.ConditionTrue, time.Second, 20*m), metav1.ConditionFalse, "EtcdCluster db/b", 10 * m},
		"a row of 30 minutes with a gap":           {list(rolling("b", 0)), said(metav1.ConditionTrue, time.Second, 40*m), metav1.ConditionTrue, enough, 30*m - time.Second},
		"a step after less than 30 open minutes":   {list(rolling("b", 0)), said(metav1.ConditionTrue, 30*m-time.Second, 60*m), metav1.ConditionTrue, enough, time.Second},
		"a step after 30 open minutes":             {list(rolling("b", 0)), said(metav1.ConditionTrue, 30*m, 60*m), metav1.ConditionFalse, "EtcdCluster db/b", 10 * m},
		"the end of the steps in the open minutes": {list(resting), said(metav1.ConditionTrue, 5*m, 35*m), metav1.ConditionTrue, atRest, 0},
		"the end of a step":                        {list(resting), said(metav1.ConditionFalse, 5*m, 5*m), metav1.ConditionTrue, atRest, 0},
	} {
		t.Run(name, func(t *testing.T) {
			conditions, next := Upgradeable(test.clusters, test.last, noon)
			got := meta.FindStatusCondition(conditions, ConditionUpgradeable)
			if got.Status != test.status || !strings.HasPrefix(got.Message, test.message) {
				t.Errorf("Upgradeable is %s, %q, want %s, %q", got.Status, got.Message, test.status, test.message)
			}
			if next != test.next {
				t.Errorf("the next look is in %s, want %s", next, test.next)
			}
			for _, c := range conditions {
				if c.Reason == "" || c.LastTransitionTime.IsZero() {
					t.Errorf("OLM refuses %+v", c)
				}
			}
		})
	}
}

// Whatever tenants do, OLM finds 30 minutes in which it may replace the operator.
// They begin at the latest 30 minutes after the first step.
func TestNoSequenceOfStepsKeepsTheOperatorFromBeingUpgraded(t *testing.T) {
	for name, inFlight := range map[string]func(second int) bool{
		"one after the other without a gap": func(int) bool { return true },
		"with a gap of a second":            func(second int) bool { return second%60 != 0 },
		"with gaps of 10 minutes":           func(second int) bool { return second%3600 < 3000 },
		"with gaps of just under 30":        func(second int) bool { return second%3600 < 1801 },
	} {
		t.Run(name, func(t *testing.T) {
			var last []metav1.Condition
			closed, open, longest := 0, 0, 0
			for second := range 6 * 3600 {
				now := noon.Add(time.Duration(second) * time.Second)
				var clusters []v1beta1.EtcdCluster
				if inFlight(second) {
					clusters = append(clusters, rolling("b", 0))
					clusters[0].Status.Operation.StartedAt = metav1.NewTime(now)
				}
				last, _ = Upgradeable(clusters, last, now)
				if last[0].Status == metav1.ConditionFalse {
					closed, open = closed+1, 0
				} else {
					open++
				}
				if longest = max(longest, open); open == 30*60 {
					closed = 0
				}
				if closed > 30*60 {
					t.Fatalf("second %d: Upgradeable was False for more than 30 minutes without 30 minutes of True", second)
				}
			}
			if longest < 30*60 {
				t.Errorf("Upgradeable is True for %d seconds at most", longest)
			}
		})
	}
}
