package analyse

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// every hold, by the reason that it refuses with.
var holds = map[string]cluster.Hold{
	v1beta1.ReasonFrozen:                  {ByNamespace: true},
	v1beta1.ReasonWaitingForOtherClusters: {Limit: 10},
	v1beta1.ReasonReadRefused:             {Unreadable: "reading Namespace shop: forbidden"},
	v1beta1.ReasonRollsStopped:            {StoppedRolls: "Delete the ConfigMap."},
}

func TestVoluntaryStepsAreHeldAndRepairsAreNot(t *testing.T) {
	for name, c := range map[string]struct {
		s cluster.Snapshot
		// action is what is decided where nothing holds it.
		action string
		// heldFor are the reasons for which it does not begin.
		heldFor []string
	}{
		"a new member":              {resized(1, 3).Snapshot(), "add", allBut(v1beta1.ReasonRollsStopped)},
		"the removal of a follower": {resized(3, 1).Snapshot(), "remove", allBut(v1beta1.ReasonRollsStopped)},
		"the removal of a silent member": {
			resized(5, 3, silent("prod-4")).Snapshot(), "remove", allBut(v1beta1.ReasonRollsStopped)},
		"a learner whose operation ended at its deadline": {
			resized(3, 5, caughtUp, budgeted(3)).Snapshot(), "promote", allBut(v1beta1.ReasonRollsStopped)},
		"the replacement of a lost member": {
			healthy(3).Later(volumeGone).Snapshot(),
			"replace", allBut(v1beta1.ReasonRollsStopped)},
		"a comparison after an alarm": {healthy(3).Later(corruptAlarm(0)).Snapshot(), "hash", allBut(v1beta1.ReasonRollsStopped)},
		"a roll":                      {healthy(3).LaterSpec(memory("1Gi")).Snapshot(), "roll", allBut("")},
		"a roll of the leader": {
			healthy(3).LaterSpec(memory("1Gi")).Later(onlyLeaderIsOld).Snapshot(), "move", allBut("")},
		"a roll of a silent member":        {healthy(3).LaterSpec(memory("1Gi")).Later(silent("prod-2")).Snapshot(), "roll", allBut("")},
		"a rotation of authorities":        {rotating(0).Later(noOperation).Snapshot(), "roll", allBut(v1beta1.ReasonRollsStopped)},
		"the restart of a failed member":   {healthy(3).LaterSpec(memory("1Gi")).Later(crashing("prod-2", time.Hour)).Snapshot(), "roll", nil},
		"a restart that was claimed":       {claimed(healthy(3).LaterSpec(memory("1Gi")).Snapshot()), "roll", nil},
		"a new member that was claimed":    {claimed(resized(1, 3).Snapshot()), "add", nil},
		"a removal that was claimed":       {claimed(resized(3, 1).Snapshot()), "remove", nil},
		"a promotion of a claimed learner": {growing3(caughtUp, budgeted(3)), "promote", nil},
		"a roll back":                      {rolled(t, 2*time.Minute, crashing0("prod-1")), "roll", nil},
		"a founding":                       {MakeCluster("prod").Objects().Snapshot(), "found", nil},
		"volumes that are taken back":      {MakeCluster("prod").Objects().Kept(nil, "prod-0", "prod-1", "prod-2").Snapshot(), "take", nil},
		"StatefulSets that were deleted":   {healthy(3).Later(withoutWorkloadOf("prod-1")).Snapshot(), "resume", nil},
	} {
		for _, hold := range []*cluster.Hold{nil, {}} {
			c.s.Hold = hold
			if d := Next(c.s); !strings.HasPrefix(actionText(d.Action), c.action) || d.Voluntary != (c.heldFor != nil) {
				t.Errorf("%s, not held: %s; voluntary: %v; %s", name, actionText(d.Action), d.Voluntary, d.Message)
			}
		}
		for reason, hold := range holds {
			c.s.Hold = &hold
			d := Next(c.s)
			if isHeld := slices.Contains(c.heldFor, reason); isHeld != (d.Action == nil) || isHeld != refusedFor(&d, reason) {
				t.Errorf("%s, %s: %s: %s", name, reason, actionText(d.Action), d.Message)
			} else if isHeld && (d.Reason != reason || d.Progressing || d.RequeueAfter != requeueWhileWrong || !strings.Contains(d.Message, " Next: ")) {
				t.Errorf("%s: %s in %v: %s", name, d.Reason, d.RequeueAfter, d.Message)
			}
		}
	}
}

// volumeGone has prod-1 lose its pod and its volume.
func volumeGone(s *cluster.Snapshot) {
	m := s.Member("prod-1")
	m.Pod, m.Probe, m.Volume = nil, nil, nil
}

func TestWhatAComparisonWaitsForIsTold(t *testing.T) {
	operation := func(kind v1beta1.OperationType) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			s.Cluster.Status.Operation = &v1beta1.Operation{Type: kind, Member: "prod-1"}
		}
	}
	for name, c := range map[string]struct {
		change func(*cluster.Snapshot)
		want   string
	}{
		"nothing":          {func(*cluster.Snapshot) {}, ""},
		"no hold":          {func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{} }, ""},
		"a freeze":         {func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{ByNamespace: true} }, "Namespace shop has the annotation"},
		"other clusters":   {func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{Limit: 10} }, "10 other clusters"},
		"rolls that stop":  {func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{StoppedRolls: "Delete the ConfigMap."} }, ""},
		"a pause":          {func(s *cluster.Snapshot) { s.Cluster.Spec.Paused = true }, "spec.paused is true."},
		"a step":           {operation(v1beta1.OperationRollMember), "Operation RollMember of prod-1 ends first."},
		"itself":           {operation(v1beta1.OperationCheckConsistency), ""},
		"a result, frozen": {func(s *cluster.Snapshot) { answers(1, 1, 1)(s); s.Hold = &cluster.Hold{ByNamespace: true} }, ""},
		"no cause, frozen": {func(s *cluster.Snapshot) { s.Membership.Alarms = nil; s.Hold = &cluster.Hold{ByNamespace: true} }, ""},
		"a large database, frozen": {func(s *cluster.Snapshot) {
			inUse("prod-1", cluster.ConsistencyLimit+1)(s)
			s.Hold = &cluster.Hold{ByNamespace: true}
		}, ""}, // ConsistencyRefusals tells it
	} {
		s := healthy(3).Later(corruptAlarm(0)).Later(c.change).Snapshot()
		if got := WhyComparisonWaits(&s); c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// allBut returns the reasons of all holds but one.
func allBut(reason string) []string {
	var list []string
	for r := range holds {
		if r != reason {
			list = append(list, r)
		}
	}
	return list
}

func claimed(s cluster.Snapshot) cluster.Snapshot {
	claim(&s, Next(s))
	return s
}

func noOperation(s *cluster.Snapshot) { s.Cluster.Status.Operation = nil }

// onlyLeaderIsOld has every member but the leader run with what the spec asks for.
func onlyLeaderIsOld(s *cluster.Snapshot) {
	for _, name := range []string{"prod-1", "prod-2"} {
		m := s.Member(name)
		m.Workload.Intent = targetOf(s, m)
		_, m.Workload.IntentHash = m.Workload.Intent.Encode()
		m.Pod.IntentHash = m.Workload.IntentHash
	}
}

// A held removal comes before the restart in the order of the rules. The restart repairs.
func TestAHeldStepGivesWayToARepair(t *testing.T) {
	s := resized(5, 3, crashing("prod-1", time.Hour)).LaterSpec(memory("1Gi")).Snapshot()
	if a, ok := Next(s).Action.(plan.RemoveMember); !ok || a.Name != "prod-1" {
		t.Fatalf("not held: %+v", Next(s))
	}
	s.Hold = &cluster.Hold{ByOperator: true}
	a, ok := Next(s).Action.(plan.RestartMember)
	if !ok || a.Name != "prod-1" || a.Evict {
		t.Errorf("held: %+v", Next(s))
	}
}

func TestARefusalTellsWhoHoldsAndHowToLiftIt(t *testing.T) {
	for text, hold := range map[string]cluster.Hold{
		"The operator runs with --freeze-disruptions, so no step begins that may disturb members, and no lost member is replaced. A member whose pod has failed is still restarted. " +
			"Remove that flag from the operator's Deployment when it may. Next: Adding prod-1: 1 voter of 3.": {ByOperator: true, ByNamespace: true},
		"Namespace shop has the annotation operator.etcd-warden.io/freeze-disruptions=true, so no step begins that may disturb members, and no lost member is replaced. " +
			"A member whose pod has failed is still restarted. Run kubectl annotate namespace shop operator.etcd-warden.io/freeze-disruptions- when it may. " +
			"Next: Adding prod-1: 1 voter of 3.": {ByNamespace: true},
		"10 other clusters have a step under way that may disturb members, and --max-disruptions of the operator allows no more at once. " +
			"Waiting until one of them ends. Next: Adding prod-1: 1 voter of 3.": {Limit: 10},
		"1 other cluster has a step under way that may disturb members, and --max-disruptions of the operator allows no more at once. " +
			"Waiting until one of them ends. Next: Adding prod-1: 1 voter of 3.": {Limit: 1},
		"The operator begins no step that may disturb members, because it cannot tell whether it may: forbidden. " +
			"It tries again. If this stays, grant its ServiceAccount get on that object. Next: Adding prod-1: 1 voter of 3.": {Unreadable: "forbidden."},
	} {
		s := resized(1, 3).Snapshot()
		s.Hold = &hold
		if d := Next(s); d.Message != text {
			t.Errorf("got  %q\nwant %q", d.Message, text)
		}
	}
	s := healthy(3).LaterSpec(memory("1Gi")).Snapshot()
	s.Hold = &cluster.Hold{StoppedRolls: "Delete the ConfigMap."}
	const want = "5 members in a row, in all clusters of the operator, did not become healthy after their restart and went back. " +
		"No member is restarted for its spec until an administrator allows it. Delete the ConfigMap. Next: Restarting prod-1"
	if d := Next(s); !strings.HasPrefix(d.Message, want) {
		t.Errorf("got  %q\nwant %q", d.Message, want)
	}
}

// A lower limit may stop a member. A higher one stops none.
func TestALowerLimitIsHeldAndAHigherOneIsNot(t *testing.T) {
	for reason, hold := range holds {
		for name, c := range map[string]struct {
			spec    func(*v1beta1.EtcdClusterSpec)
			resized string
			held    bool
		}{
			"less": {lessCPU, "prod-1", reason != v1beta1.ReasonRollsStopped},
			"more": {moreMemory, "prod-0 prod-1 prod-2", false},
		} {
			s := burstable(3).LaterSpec(c.spec).Snapshot()
			if d := Next(s); podsResized(d) != c.resized || d.Voluntary != (name == "less") {
				t.Errorf("%s, not held: %q, voluntary: %t", name, podsResized(d), d.Voluntary)
			}
			s.Hold = &hold
			d := Next(s)
			if isHeld := podsResized(d) == ""; isHeld != c.held || isHeld != (d.Reason == reason) {
				t.Errorf("%s, %s: %q: %s", name, reason, podsResized(d), d.Message)
			}
		}
	}
}
