package analyse

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// defaultDeadline is how long an operation may take where the spec does not say.
const defaultDeadline = 10 * time.Minute

// rotating is a cluster whose members must be restarted to load other authorities. The restart of prod-1 is claimed.
func rotating(claimed time.Duration) *Builder {
	return MakeCluster("prod").Managed().Objects().Members(Healthy).Announced(time.Minute).Template().
		Later(func(s *cluster.Snapshot) {
			s.Cluster.Status.Operation = &v1beta1.Operation{
				Type: v1beta1.OperationRollMember, Member: "prod-1", StartedAt: metav1.NewTime(Now.Add(-claimed)), Reason: "RotatingAuthorities",
			}
		})
}

func withoutWorkloadOf(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { m := s.Member(name); m.Workload, m.Pod, m.Probe = nil, nil, nil }
}

func silent(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m := s.Member(name)
		m.Pod.Ready, m.Probe = false, &cluster.Probe{Error: "connection refused"}
	}
}

func TestAClaimKeepsItsMemberWhileAnotherStatefulSetIsCreatedAgain(t *testing.T) {
	for _, deleted := range []string{"prod-1", "prod-2"} {
		s := rotating(time.Minute).Restarted("prod-1").Later(silent("prod-1")).Later(withoutWorkloadOf(deleted)).Snapshot()
		d := Next(s)
		if got := actionText(d.Action); got != "resume "+deleted || d.Finished {
			t.Fatalf("%s: got %q, finished %v: %s", deleted, got, d.Finished, d.Message)
		}
		if d.Claim == nil || d.Claim.Type != v1beta1.OperationRollMember || d.Claim.Member != "prod-1" || !d.Claim.StartedAt.Equal(&s.Cluster.Status.Operation.StartedAt) {
			t.Errorf("%s: the claim became %+v", deleted, d.Claim)
		}
	}
}

func TestARestartIsDoneOnlyWhenItsMemberIsAHealthyVoterAgain(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(*cluster.Snapshot)
		finished bool
	}{
		"a healthy voter":             {func(*cluster.Snapshot) {}, true},
		"a member without its pod":    {func(s *cluster.Snapshot) { s.Member("prod-1").Pod, s.Member("prod-1").Probe = nil, nil }, false},
		"a member that is silent":     {silent("prod-1"), false},
		"a member whose pod is going": {func(s *cluster.Snapshot) { s.Member("prod-1").Pod.Deleting = true }, false},
		"a learner":                   {func(s *cluster.Snapshot) { s.Member("prod-1").Probe.Learner = true }, false},
	} {
		d := Next(rotating(time.Minute).Restarted("prod-1").Later(c.change).Snapshot())
		if d.Finished != c.finished || d.Abandoned != "" {
			t.Errorf("%s: finished %v, abandoned %q: %s", name, d.Finished, d.Abandoned, d.Message)
		}
	}
}

func TestARestartIsAbandonedWhenItWasNotBegunAndMayNotBe(t *testing.T) {
	d := Next(rotating(time.Minute).Later(silent("prod-2")).Snapshot())
	if !d.Finished || !strings.Contains(d.Abandoned, "It was not carried out. Members are restarted one by one") || d.Action != nil {
		t.Errorf("got finished %v, abandoned %q, action %v", d.Finished, d.Abandoned, d.Action)
	}
	begun := Next(rotating(time.Minute).Restarted("prod-1").Later(silent("prod-1")).Snapshot())
	if begun.Finished || begun.Rule != RuleOperation {
		t.Errorf("one that was begun is waited for, got %s, abandoned %q", begun.Rule, begun.Abandoned)
	}
}

func TestAClaimEndsAtItsDeadline(t *testing.T) {
	late := rotating(defaultDeadline).Restarted("prod-1").Later(silent("prod-1")).Snapshot()
	d := Next(late)
	if !d.Finished || !strings.Contains(d.Abandoned, "did not finish within 10m0s") {
		t.Fatalf("got finished %v, abandoned %q", d.Finished, d.Abandoned)
	}
	if d.Action != nil {
		t.Fatalf("acted in the pass in which the claim ended: %s", actionText(d.Action))
	}
	late.Cluster.Status.Operation = nil
	if next := Next(late); next.Action != nil {
		t.Errorf("restarted another member beside one that is down: %s", actionText(next.Action))
	}
}

func TestAClaimEndsWhereNoMemberIsLeft(t *testing.T) {
	for kind, claimed := range map[v1beta1.OperationType]time.Duration{
		v1beta1.OperationRollMember: 0, v1beta1.OperationResume: defaultDeadline, v1beta1.OperationTakeBack: defaultDeadline,
	} {
		s := MakeCluster("prod").Objects().Claim(kind).Snapshot()
		s.Cluster.Status.ClusterID = "c1"
		s.Cluster.Status.Operation.Member, s.Cluster.Status.Operation.StartedAt = "prod-1", metav1.NewTime(Now.Add(-claimed))
		if d := Next(s); !d.Finished || d.Action != nil {
			t.Errorf("%s: finished %v, action %v: %s", kind, d.Finished, d.Action, d.Message)
		}
	}
	s := MakeCluster("prod").Objects().Claim(v1beta1.OperationBootstrap).Snapshot()
	if d := Next(s); d.Finished {
		t.Error("a founding that was only claimed is no end")
	}
	s = MakeCluster("prod").Paused().Claim(v1beta1.OperationRollMember).Snapshot()
	if d := Next(s); d.Finished {
		t.Error("the claim of a paused cluster ended")
	}
}

func TestADeadlineDoesNotEndAFounding(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Volume, Founding).Claim(v1beta1.OperationBootstrap).Snapshot()
	s.Cluster.Status.Operation.StartedAt = metav1.NewTime(Now.Add(-24 * time.Hour))
	if d := Next(s); d.Finished || d.Rule != RuleBootstrap {
		t.Errorf("got %s, finished %v", d.Rule, d.Finished)
	}
}

func TestAClaimIsOverwrittenByAHandOverOnly(t *testing.T) {
	standing := &v1beta1.Operation{Type: v1beta1.OperationRollMember, Member: "prod-1", StartedAt: metav1.NewTime(Now), Reason: "RotatingAuthorities"}
	action := plan.StartMembers{}
	for name, c := range map[string]struct {
		standing *v1beta1.Operation
		decision plan.Decision
		want     v1beta1.Operation
	}{
		"none stands": {nil, plan.Decision{Action: plan.RestartMember{Name: "prod-2"}, Reason: "R"},
			v1beta1.Operation{Type: v1beta1.OperationRollMember, Member: "prod-2", StartedAt: metav1.NewTime(Now), Reason: "R"}},
		"one stands": {standing, plan.Decision{Action: action, Reason: "R"}, *standing},
		"a hand-over": {standing, plan.Decision{Action: action, Reason: "R", HandOver: true},
			v1beta1.Operation{Type: v1beta1.OperationResume, Member: "prod-1", StartedAt: standing.StartedAt, Reason: "R"}},
	} {
		s := MakeCluster("prod").Snapshot()
		s.Cluster.Status.Operation = c.standing
		if got := claimOf(&s, &c.decision); *got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, *got, c.want)
		}
	}
	s := MakeCluster("prod").Snapshot()
	if got := claimOf(&s, &plan.Decision{}); got != nil {
		t.Errorf("without an action nothing is claimed, got %+v", got)
	}
}

func TestOnlyAFailedPodIsDeletedWithoutAskingTheBudget(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*cluster.Snapshot)
		evict  bool
	}{
		"a healthy one": {func(*cluster.Snapshot) {}, true},
		"a failed one": {func(s *cluster.Snapshot) {
			silent("prod-1")(s)
			s.Member("prod-1").Pod.FailureReason = v1beta1.ReasonCrashLooping
		}, false},
		"one whose node Kubernetes cannot reach": {func(s *cluster.Snapshot) {
			silent("prod-1")(s)
			s.Member("prod-1").Pod.FailureReason = v1beta1.ReasonNodeLost
		}, true},
		"one that only the operator cannot reach": {func(s *cluster.Snapshot) {
			silent("prod-1")(s)
		}, true},
	} {
		d := Next(rotating(time.Minute).Later(c.change).Snapshot())
		if restart, ok := d.Action.(plan.RestartMember); !ok || restart.Name != "prod-1" || restart.Evict != c.evict {
			t.Errorf("%s: got %+v: %s", name, d.Action, d.Message)
		}
	}
}

func TestAFoundingEndsAtItsDeadlineWhereItCannotGetAnyFurther(t *testing.T) {
	founding := func(ago time.Duration, parts ...Part) cluster.Snapshot {
		s := MakeCluster("prod").Objects().Members(parts...).Claim(v1beta1.OperationBootstrap).Snapshot()
		s.Cluster.Status.Operation.StartedAt = metav1.NewTime(Now.Add(-ago))
		return s
	}
	unswitched := Together(Volume, Recorded, Sealed, FoundingPod, Serving)
	if d := Next(founding(time.Minute, unswitched)); d.Finished || d.Message != "3 of 3 members have started. Making the pods of prod-0, prod-1, prod-2 refuse an empty volume." {
		t.Errorf("before: finished %v, %s", d.Finished, d.Message)
	}
	for name, s := range map[string]cluster.Snapshot{
		"pods that nobody may patch": founding(defaultDeadline, unswitched),
		"volumes that are all lost":  founding(defaultDeadline, Founding),
	} {
		if d := Next(s); !d.Finished || d.Abandoned == "" || d.Rule == RuleBootstrap {
			t.Errorf("%s: finished %v, abandoned %q, and then %s: %s", name, d.Finished, d.Abandoned, d.Rule, d.Message)
		}
	}
	if d := Next(founding(defaultDeadline-1, Founding)); d.Finished {
		t.Errorf("ended before its deadline: %s", d.Abandoned)
	}
}

func TestAnOperationOfADeletedClusterIsNotEndedInEachPass(t *testing.T) {
	s := rotating(defaultDeadline).Restarted("prod-1").Later(silent("prod-1"))
	if d := Next(s.Deleted().Snapshot()); d.Finished || d.Abandoned != "" {
		t.Errorf("finished %v, abandoned %q", d.Finished, d.Abandoned)
	}
}

func TestAPassThatEndsAnOperationAnnouncesTheNextStepOnly(t *testing.T) {
	s := rotating(time.Minute).Restarted("prod-1").Snapshot()
	if d := Next(s); !d.Finished || d.Action != nil || !strings.HasPrefix(d.Message, "Next: Restarting ") {
		t.Errorf("finished %v, action %v: %s", d.Finished, d.Action, d.Message)
	}
	s.Cluster.Status.Operation = nil
	if d := Next(s); d.Action == nil || !strings.HasPrefix(d.Message, "Restarting ") {
		t.Errorf("action %v: %s", d.Action, d.Message)
	}
}

func TestARestartIsContinuedForTheReasonThatItsOperationStores(t *testing.T) {
	const reason = "Testing"
	needed := true
	restarts[reason] = restart{
		purpose:   "to test",
		isNeeded:  func(_ *cluster.Snapshot, m *cluster.Member) bool { return needed && m.Name == "prod-1" },
		target:    func(_ *cluster.Snapshot, m *cluster.Member) cluster.Intent { return m.Workload.Intent },
		guards:    func(*cluster.Member) []guard { return nil },
		operation: v1beta1.OperationRollMember,
	}
	defer delete(restarts, reason)
	claimed := func(reason string) cluster.Snapshot {
		s := MakeCluster("prod").Objects().Members(Healthy).Claim(v1beta1.OperationRollMember).Snapshot()
		s.Cluster.Status.Operation.Member, s.Cluster.Status.Operation.Reason = "prod-1", reason
		return s
	}
	if d := Next(claimed(reason)); actionText(d.Action) != "roll prod-1 (pod-prod-1)" || d.Reason != reason || !strings.HasPrefix(d.Message, "Restarting prod-1 to test.") {
		t.Errorf("got %q for %s: %s", actionText(d.Action), d.Reason, d.Message)
	}
	if d := Next(claimed("OfAnotherRelease")); d.Action != nil || !d.Finished {
		t.Errorf("restarted for a reason that it does not know: %s", d.Message)
	}
	needed = false
	if d := Next(claimed(reason)); d.Action != nil || !d.Finished {
		t.Errorf("got %q, finished %v: %s", actionText(d.Action), d.Finished, d.Message)
	}
}

func TestARestartForAuthoritiesIsToldAtItsDeadline(t *testing.T) {
	restarted := func(ago time.Duration, change func(*cluster.Snapshot)) plan.Decision {
		return Next(rotating(ago).Restarted("prod-1").Later(silent("prod-1")).Later(func(s *cluster.Snapshot) {
			m := s.Member("prod-1")
			m.Workload.Live.Annotations[cluster.AnnotationHealthyIntent] = "that of before"
			m.Pod.CreatedAt = Now.Add(-ago)
			change(s)
		}).Snapshot())
	}
	want := "prod-1 was restarted, and was no healthy voter within 10m0s. The pod of prod-1 has not failed, but its etcd does not answer."
	for name, change := range map[string]func(*cluster.Snapshot){"claimed": func(*cluster.Snapshot) {}, "after its claim": noOperation} {
		if d := restarted(defaultDeadline, change); d.Progressing || d.Reason != v1beta1.ReasonDeadlineExceeded || !strings.Contains(d.Message, want) {
			t.Errorf("%s: %s: %s", name, d.Reason, d.Message)
		}
	}
	for name, d := range map[string]plan.Decision{
		"before":                    restarted(9*time.Minute, noOperation),
		"a member that was healthy": restarted(defaultDeadline, func(s *cluster.Snapshot) { noOperation(s); recordHealthyIntent(s, "prod-1") }),
		"a member that has not been restarted": restarted(defaultDeadline, func(s *cluster.Snapshot) {
			noOperation(s)
			s.Member("prod-1").Pod.PeerAuthorities = nil
		}),
	} {
		if d.Reason == v1beta1.ReasonDeadlineExceeded {
			t.Errorf("%s: %s", name, d.Message)
		}
	}
}

func recordHealthyIntent(s *cluster.Snapshot, name string) {
	annotations := s.Member(name).Workload.Live.Annotations
	annotations[cluster.AnnotationHealthyIntent] = annotations[cluster.AnnotationIntent]
}
