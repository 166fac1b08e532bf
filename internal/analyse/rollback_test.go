package analyse

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// rolled is a cluster in which prod-1 was restarted some time ago with less memory, and is changed since.
func rolled(t *testing.T, ago time.Duration, change func(*cluster.Snapshot)) cluster.Snapshot {
	t.Helper()
	s := healthy(3).LaterSpec(memory("1Mi")).Snapshot()
	s.Now = Now.Add(-ago)
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	replacePod(&s, "prod-1")
	s.Now = Now
	change(&s)
	return s
}

func TestAMemberThatDoesNotComeBackGoesBack(t *testing.T) {
	failure := func(reason string, ago time.Duration) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			crashing("prod-1", ago)(s)
			s.Member("prod-1").Pod.FailureReason = reason
		}
	}
	nothing := func(*cluster.Snapshot) {}
	for name, c := range map[string]struct {
		ago    time.Duration
		change func(*cluster.Snapshot)
		back   bool
	}{
		"a crash loop":                                {2 * time.Minute, failure(v1beta1.ReasonCrashLooping, failureGrace), true},
		"an image that cannot be pulled":              {2 * time.Minute, failure(v1beta1.ReasonImagePullFailed, failureGrace), true},
		"a container that cannot be started":          {2 * time.Minute, failure(v1beta1.ReasonContainerFailed, failureGrace), true},
		"a crash loop that is short":                  {2 * time.Minute, failure(v1beta1.ReasonCrashLooping, failureGrace-1), false},
		"a pod that waits for a node":                 {9 * time.Minute, failure(v1beta1.ReasonUnschedulable, 9*time.Minute), false},
		"a pod that waits for a node at the deadline": {defaultDeadline, failure(v1beta1.ReasonUnschedulable, defaultDeadline), true},
		"a silent member":                             {9 * time.Minute, nothing, false},
		"a silent member at the deadline":             {defaultDeadline, nothing, true},
		"a silent member at the spec's deadline": {time.Minute, func(s *cluster.Snapshot) {
			s.Cluster.Spec.UpdateStrategy = &v1beta1.UpdateStrategy{ProgressDeadlineSeconds: 60}
		}, true},
		"a silent member before the spec's deadline": {defaultDeadline, func(s *cluster.Snapshot) {
			s.Cluster.Spec.UpdateStrategy = &v1beta1.UpdateStrategy{ProgressDeadlineSeconds: 601}
		}, false},
		"a pod that cannot be created at the deadline": {defaultDeadline, func(s *cluster.Snapshot) {
			m := s.Member("prod-1")
			m.Pod, m.Probe, m.Workload.CreateFailure = nil, nil, "a policy refuses it"
		}, true},
		"a pod that is ready, and only the operator cannot reach": {defaultDeadline, func(s *cluster.Snapshot) { s.Member("prod-1").Pod.Ready = true }, false},
		"a lost node": {defaultDeadline, func(s *cluster.Snapshot) { s.Member("prod-1").Pod.NodeLost = true }, false},
		"one that lacks the quorum of the others": {defaultDeadline, func(s *cluster.Snapshot) {
			silent("prod-0")(s)
			silent("prod-2")(s)
		}, false},
		"one that crashes beside a lost quorum": {2 * time.Minute, func(s *cluster.Snapshot) {
			silent("prod-0")(s)
			silent("prod-2")(s)
			crashing("prod-1", failureGrace)(s)
		}, true},
		"one that was never healthy": {defaultDeadline, func(s *cluster.Snapshot) { s.Member("prod-1").Workload.HealthyIntent = nil }, false},
		"one that was healthy with an older minor version": {defaultDeadline, func(s *cluster.Snapshot) {
			s.Member("prod-1").Workload.HealthyIntent.Version = "3.5.35"
		}, true},
		"one whose volume is being deleted": {defaultDeadline, func(s *cluster.Snapshot) { s.Member("prod-1").Volume.Deleting = true }, false},
	} {
		d := Next(rolled(t, c.ago, c.change))
		a, ok := d.Action.(plan.RestartMember)
		if ok != c.back || ok && (!d.HandOver || d.Rule != RuleRollBack || a.Name != "prod-1" || a.Evict || a.StatefulSet == nil) {
			t.Errorf("%s: %s decides %+v: %s", name, d.Rule, d.Action, d.Message)
		}
	}
}

func TestAMemberGoesBackAlsoAfterItsRestartHasEnded(t *testing.T) {
	crashes := func(s *cluster.Snapshot) { crashing("prod-1", failureGrace)(s) }
	annotate := func(key string, value func(*cluster.Snapshot, map[string]string) string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			crashes(s)
			annotations := s.Member("prod-1").Workload.Live.Annotations
			annotations[key] = value(s, annotations)
		}
	}
	for name, c := range map[string]struct {
		ago    time.Duration
		change func(*cluster.Snapshot)
		back   bool
	}{
		"a crash loop":                    {2 * time.Minute, crashes, true},
		"a crash loop that is short":      {2 * time.Minute, crashing("prod-1", failureGrace-1), false},
		"a silent member at the deadline": {defaultDeadline, silent("prod-1"), true},
		"a silent member before":          {9 * time.Minute, silent("prod-1"), false},
		"a lost node":                     {defaultDeadline, func(s *cluster.Snapshot) { s.Member("prod-1").Pod.NodeLost = true }, false},
		"a spec that cures": {2 * time.Minute, func(s *cluster.Snapshot) {
			crashes(s)
			memory("2Mi")(&s.Cluster.Spec)
		}, false},
		"one that was healthy since": {2 * time.Minute, annotate(cluster.AnnotationHealthyIntent, func(_ *cluster.Snapshot, a map[string]string) string {
			return a[cluster.AnnotationIntent]
		}), false},
		"one that has gone back": {2 * time.Minute, annotate(cluster.AnnotationOperation, func(s *cluster.Snapshot, _ map[string]string) string {
			return cluster.OperationMark(v1beta1.OperationRollBack, s.Now.Add(-time.Minute))
		}), false},
	} {
		s := rolled(t, c.ago, func(s *cluster.Snapshot) { s.Cluster.Status.Operation = nil })
		c.change(&s)
		d := Next(s)
		a, _ := d.Action.(plan.RestartMember)
		if back := a.For == v1beta1.OperationRollBack; back != c.back || back && (d.HandOver || d.Voluntary || a.Evict || a.StatefulSet == nil) {
			t.Errorf("%s: %s decides %s: %s", name, d.Rule, actionText(d.Action), d.Message)
		}
		if !c.back {
			continue
		}
		claim(&s, d)
		writeTemplate(t, &s, Next(s))
		replacePod(&s, "prod-1")
		serve(&s, "prod-1")
		if d := Next(s); !d.Finished || d.Abandoned != "" || d.Reason != v1beta1.ReasonRolledBack {
			t.Errorf("%s: finished %v, %s: %s", name, d.Finished, d.Reason, d.Message)
		}
	}
}

func TestARollBackTakesTheOperationOverAndRestoresTheHealthyIntent(t *testing.T) {
	s := rolled(t, 2*time.Minute, crashing0("prod-1"))
	claimed := s.Cluster.Status.Operation
	d := Next(s)
	if d.Claim.Type != v1beta1.OperationRollBack || d.Claim.Member != "prod-1" || !d.Claim.StartedAt.Equal(&claimed.StartedAt) || d.Claim.Reason != v1beta1.ReasonRollingBack {
		t.Fatalf("claims %+v", d.Claim)
	}
	failed := s.Member("prod-1").Workload.Intent
	claim(&s, d)
	writeTemplate(t, &s, d)
	m := s.Member("prod-1")
	if !m.Workload.Intent.SameAs(s.Member("prod-0").Workload.Intent) {
		t.Errorf("went back to %+v", m.Workload.Intent)
	}
	cause, isRemembered := cluster.FailedCause(m.Workload.Live.Annotations[cluster.AnnotationFailedIntent], failed.TargetHash())
	if !isRemembered || cause != "The pod of prod-1 does not run (CrashLooping): etcd used more memory than its limit and was killed." {
		t.Errorf("remembers %v: %q", isRemembered, cause)
	}
}

// crashing0 is a member that crashes for long enough to go back.
func crashing0(name string) func(*cluster.Snapshot) { return crashing(name, failureGrace) }

// The operator ends between any two of: claim, template, deletion, next pod, health.
func TestARollBackGoesOnAfterACrashAtAnyPoint(t *testing.T) {
	for name, crash := range map[string]func(*cluster.Snapshot, plan.Decision){
		"before the template": func(*cluster.Snapshot, plan.Decision) {},
		"before the deletion": func(s *cluster.Snapshot, d plan.Decision) { writeTemplate(t, s, d) },
		"before the next pod": func(s *cluster.Snapshot, d plan.Decision) {
			writeTemplate(t, s, d)
			replacePod(s, "prod-1")
		},
	} {
		s := rolled(t, 2*time.Minute, crashing0("prod-1"))
		d := Next(s)
		claim(&s, d)
		crash(&s, d)
		for range 3 {
			d := Next(s)
			if d.Claim != nil && d.Claim.Type != v1beta1.OperationRollBack || d.Finished {
				t.Fatalf("%s: claims %+v, finished %v", name, d.Claim, d.Finished)
			}
			if d.Action != nil {
				writeTemplate(t, &s, d)
				replacePod(&s, "prod-1")
			}
		}
		if s.Member("prod-1").Workload.Live.Annotations[cluster.AnnotationFailedIntent] == "" {
			t.Errorf("%s: the failed intent is forgotten", name)
		}
		serve(&s, "prod-1")
		if d := Next(s); !d.Finished || d.Abandoned != "" || d.Reason != v1beta1.ReasonRolledBack || d.Progressing {
			t.Errorf("%s: finished %v, %s: %s", name, d.Finished, d.Reason, d.Message)
		}
	}
}

func TestWhatFailedIsNotTriedAgainUntilTheSpecChanges(t *testing.T) {
	s := rolled(t, 2*time.Minute, crashing0("prod-1"))
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	replacePod(&s, "prod-1")
	serve(&s, "prod-1")
	actions, messages := carryOut(t, &s)
	if len(actions) > 0 {
		t.Fatalf("the others were touched: %v", actions)
	}
	want := "prod-1 did not become healthy with what the spec asks for, and went back to what it ran with before. " +
		"What was wrong then: The pod of prod-1 does not run (CrashLooping): etcd used more memory than its limit and was killed. No other member is restarted for it. " +
		"Correct the spec, or set another value of the annotation operator.etcd-warden.io/restart to try it again."
	if diff := cmp.Diff(want, messages[len(messages)-1]); diff != "" {
		t.Error(diff)
	}
	for name, change := range map[string]func(*cluster.Snapshot){
		"another spec":                 func(s *cluster.Snapshot) { memory("2Mi")(&s.Cluster.Spec) },
		"the restart annotation":       func(s *cluster.Snapshot) { setRestart(s, "again") },
		"the spec of before, and then": func(s *cluster.Snapshot) { s.Cluster.Spec.Resources.Limits = nil },
	} {
		after := s
		after.Cluster = s.Cluster.DeepCopy()
		change(&after)
		d := Next(after)
		if rolls := d.Action != nil; rolls == (after.Cluster.Spec.Resources.Limits == nil) || d.Reason == v1beta1.ReasonRolledBack {
			t.Errorf("%s: %v: %s", name, d.Action, d.Message)
		}
	}
}

// Two rules restart the member: for the rest of the spec, for its version, and for both. It does not start with what it
// ran with before either.
func TestAMemberThatCannotStartIsTriedWithEachTargetAndGoesBack(t *testing.T) {
	s := healthy(3).LaterSpec(func(spec *v1beta1.EtcdClusterSpec) { spec.Version = "3.6.17"; memory("1Gi")(spec) }).Later(crashing("prod-1", time.Hour)).Snapshot()
	var tried []string
	for range 50 {
		s.Now = s.Now.Add(failureGrace)
		d := Next(s)
		claim(&s, d)
		if d.Action == nil {
			continue
		}
		writeTemplate(t, &s, d)
		tried = append(tried, d.Reason)
		replacePod(&s, "prod-1")
		crashing("prod-1", 0)(&s)
		s.Member("prod-1").Pod.CreatedAt = s.Now
	}
	const version, rest, back = v1beta1.ReasonUpgrading, v1beta1.ReasonRollingMembers, v1beta1.ReasonRollingBack
	if diff := cmp.Diff([]string{rest, back, version, rest, back, version, back}, tried); diff != "" {
		t.Error(diff)
	}
	if w := s.Member("prod-1").Workload; !sameConfiguration(w.Intent, *w.HealthyIntent) {
		t.Errorf("it ends with %+v", w.Intent)
	}
}

func TestWhatFailedIsForgottenOnceAnotherIntentIsHealthy(t *testing.T) {
	failed := func() cluster.Snapshot {
		s := rolled(t, 2*time.Minute, crashing0("prod-1"))
		d := Next(s)
		claim(&s, d)
		writeTemplate(t, &s, d)
		replacePod(&s, "prod-1")
		serve(&s, "prod-1")
		carryOut(t, &s)
		return s
	}
	remembered := func(s *cluster.Snapshot) string {
		return s.Member("prod-1").Workload.Live.Annotations[cluster.AnnotationFailedIntent]
	}
	s := failed()
	if remembered(&s) == "" {
		t.Fatal("it is forgotten once the member is healthy with what it ran with before")
	}
	memory("2Mi")(&s.Cluster.Spec)
	s.Member("prod-1").Pod.CreatedAt = s.Now
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	if restarts := d.Action.Member() == "prod-1"; !restarts || remembered(&s) == "" {
		t.Errorf("%s: it is forgotten before the other intent is healthy", actionText(d.Action))
	}
	replacePod(&s, "prod-1")
	serve(&s, "prod-1")
	carryOut(t, &s)
	if text := remembered(&s); text != "" {
		t.Errorf("remembers %q", text)
	}
}

func TestAMemberThatCameBackMeanwhileIsNotRolledBack(t *testing.T) {
	s := rolled(t, 2*time.Minute, crashing0("prod-1"))
	d := Next(s)
	claim(&s, d)
	serve(&s, "prod-1")
	if d := Next(s); d.Action != nil || !d.Finished {
		t.Errorf("got %v, finished %v: %s", d.Action, d.Finished, d.Message)
	}
}

func TestARollBackThatDoesNotHelpIsToldAtItsDeadline(t *testing.T) {
	at := func(ago time.Duration) cluster.Snapshot {
		s := rolled(t, ago, crashing0("prod-1"))
		d := Next(s)
		claim(&s, d)
		writeTemplate(t, &s, d)
		replacePod(&s, "prod-1")
		return s
	}
	if d := Next(at(2*defaultDeadline - time.Second)); d.Finished {
		t.Errorf("before: %s", d.Abandoned)
	}
	s := at(2 * defaultDeadline)
	d := Next(s)
	if want := "It did not finish within 20m0s. The pod of prod-1 has not failed, but its etcd does not answer."; d.Abandoned != want {
		t.Errorf("got %q", d.Abandoned)
	}
}

func TestARestartPastItsDeadlineStopsTheRollAndTellsTheCause(t *testing.T) {
	s := rolled(t, defaultDeadline, func(s *cluster.Snapshot) { s.Member("prod-1").Pod.NodeLost = true })
	d := Next(s)
	if !d.Finished || !strings.HasPrefix(d.Abandoned, "It did not finish within 10m0s. ") {
		t.Fatalf("finished %v, %q", d.Finished, d.Abandoned)
	}
	claim(&s, plan.Decision{})
	const want = "prod-1 was restarted, and was no healthy voter within 10m0s. The pod of prod-1 has not failed, but its etcd does not answer. No other member is restarted until it is one."
	if d := Next(s); d.Action != nil || d.Progressing || d.Reason != v1beta1.ReasonDeadlineExceeded || !strings.HasPrefix(d.Message, want) {
		t.Errorf("%s, %v: %s", d.Reason, d.Action, d.Message)
	}
	last := rolled(t, defaultDeadline, func(s *cluster.Snapshot) {
		s.Member("prod-1").Pod.NodeLost = true
		for _, name := range []string{"prod-0", "prod-2"} {
			m := s.Member(name)
			m.Workload.Intent = s.Member("prod-1").Workload.Intent
			m.Workload.IntentHash = s.Member("prod-1").Workload.IntentHash
			m.Pod.IntentHash = m.Workload.IntentHash
		}
		claim(s, plan.Decision{})
	})
	if d := Next(last); d.Reason != v1beta1.ReasonDeadlineExceeded {
		t.Errorf("as the last member of a roll: %s: %s", d.Reason, d.Message)
	}
	s.Members[1].Pod.NodeLost = false
	serve(&s, "prod-1")
	if actions, _ := carryOut(t, &s); len(actions) != 3 {
		t.Errorf("once it is back the roll goes on, got %v", actions)
	}
}

func TestTheClaimTellsWhatTheStepWaitsFor(t *testing.T) {
	s := healthy(3).LaterSpec(memory("1Gi")).Snapshot()
	d := Next(s)
	if d.Claim.WaitingFor != d.Message || d.Message == "" {
		t.Errorf("got %q", d.Claim.WaitingFor)
	}
	long := plan.Decision{Action: plan.RestartMember{Name: "prod-1"}, Message: strings.Repeat("x", 4000)}
	if got := claimOf(&s, &long); len(got.WaitingFor) != v1beta1.MaxWaitingFor {
		t.Errorf("%d bytes", len(got.WaitingFor))
	}
}

func TestANewMemberStartsWithNothingThatAnotherFailedWith(t *testing.T) {
	grow := func() *Builder {
		return healthy(3).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }).LaterSpec(memory("1Gi"))
	}
	wanted := grow().Snapshot()
	failed := grow().Later(func(s *cluster.Snapshot) { markFailed(s, "prod-1") }).Snapshot()
	for name, s := range map[string]*cluster.Snapshot{"wanted": &wanted, "failed": &failed} {
		if d := Next(*s); d.Rule != RuleScale || d.Action == nil {
			t.Errorf("%s: got %v: %s", name, d.Action, d.Message)
		}
	}
	if limits := joinerIntent(&wanted).Limits; len(limits) != 1 {
		t.Errorf("with what the spec asks for, the limits are %v", limits)
	}
	if limits := joinerIntent(&failed).Limits; len(limits) != 0 {
		t.Errorf("with what another member failed with, the limits are %v", limits)
	}
	failed.Cluster.Spec.Storage = Gibibytes(1)
	if quota := joinerIntent(&failed).Quota(); quota >= 1<<30 {
		t.Errorf("on a volume of 1 GiB the quota is %d", quota)
	}
}

func TestANewMemberTakesTimingsThatAreNotFarFromTheOthers(t *testing.T) {
	s := healthy(3).LaterSpec(option("election-timeout", "50000")).Snapshot()
	if _, election := joinerIntent(&s).Timings(); election != 10000 {
		t.Errorf("got %d", election)
	}
}

func TestARollBackTellsOfNoOtherMember(t *testing.T) {
	s := rolled(t, 2*time.Minute, crashing0("prod-1"))
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	replacePod(&s, "prod-1")
	if d := Next(s); d.Message != "prod-1 was restarted. Waiting until it is a healthy voter again." {
		t.Errorf("got %q", d.Message)
	}
}

func TestARestartWhoseStatefulSetIsDeletedIsWaitedFor(t *testing.T) {
	s := rolled(t, 2*time.Minute, withoutWorkloadOf("prod-1"))
	if d := Next(s); actionText(d.Action) != "resume prod-1" || d.Finished {
		t.Errorf("got %v, finished %v: %s", d.Action, d.Finished, d.Message)
	}
}

// foundingThatFails is a cluster of which no pod runs.
func foundingThatFails(change func(*v1beta1.EtcdClusterSpec)) *Builder {
	pulling := Together(FoundingPod, Trouble(v1beta1.ReasonImagePullFailed, "image x cannot be pulled"), Changed(func(m *cluster.Member) { m.Pod.Phase = "Pending" }))
	return MakeCluster("prod").Objects().Members(Volume, Founding, pulling).Claim(v1beta1.OperationBootstrap).LaterSpec(change)
}

func TestASpecThatIsCorrectedBeforeTheFirstStartIsTakenUp(t *testing.T) {
	image := func(s *v1beta1.EtcdClusterSpec) { s.Image.Repository = "registry.example.com/etcd" }
	version := func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.6.17" }
	running := func(s *cluster.Snapshot) {
		for i := range s.Members {
			p := s.Members[i].Pod
			p.Phase, p.FailureReason, p.StartedAt = "Running", "", Now
		}
	}
	for name, c := range map[string]struct {
		b        *Builder
		corrects bool
	}{
		"another image":                             {foundingThatFails(image), true},
		"another version":                           {foundingThatFails(version), true},
		"nothing":                                   {foundingThatFails(func(*v1beta1.EtcdClusterSpec) {}), false},
		"larger volumes":                            {foundingThatFails(image).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Storage = Gibibytes(16) }), false},
		"TLS, which is in the peer URLs":            {foundingThatFails(image).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.TLS = nil }), false},
		"an option that etcd does not know":         {foundingThatFails(option("no-such-option", "1")), false},
		"members that run, and may found a cluster": {foundingThatFails(image).Later(running), false},
		"another version for members that ran": {foundingThatFails(version).Later(func(s *cluster.Snapshot) {
			s.Members[2].Pod.Restarts = 1
		}), false},
		"a member that started": {foundingThatFails(image).Later(func(s *cluster.Snapshot) {
			for i := range s.Members {
				s.Members[i].Volume.StartedBy = cluster.StartedByAnswer
			}
		}), false},
	} {
		d := Next(c.b.Snapshot())
		a, ok := d.Action.(plan.RestartMember)
		if ok != c.corrects {
			t.Errorf("%s: got %v: %s", name, d.Action, d.Message)
		}
		if ok && (a.Name != "prod-0" || a.Operation() != v1beta1.OperationBootstrap || a.Evict || d.Claim.Type != v1beta1.OperationBootstrap) {
			t.Errorf("%s: got %+v, claims %+v", name, a, d.Claim)
		}
	}
}

func TestACorrectedFounderKeepsItsListTokenAndForm(t *testing.T) {
	s := foundingThatFails(func(s *v1beta1.EtcdClusterSpec) { s.Image.Repository = "registry.example.com/etcd" }).Snapshot()
	var corrected []string
	for range 6 {
		d := Next(s)
		a, ok := d.Action.(plan.RestartMember)
		if !ok {
			break
		}
		before, after := s.Member(a.Name).Workload.Live.Spec.Template, a.StatefulSet.Spec.Template
		for _, key := range []string{cluster.AnnotationInitialCluster, cluster.AnnotationInitialClusterState} {
			if before.Annotations[key] == "" || before.Annotations[key] != after.Annotations[key] {
				t.Errorf("%s of %s: %q, then %q", key, a.Name, before.Annotations[key], after.Annotations[key])
			}
		}
		if diff := cmp.Diff(before.Spec.Containers[0].Args, after.Spec.Containers[0].Args); diff != "" {
			t.Errorf("other arguments:\n%s", diff)
		}
		corrected = append(corrected, a.Name)
		claim(&s, d)
		writeTemplate(t, &s, d)
		if crashed := Next(s); actionText(crashed.Action) != actionText(d.Action) {
			t.Errorf("after a crash before the deletion: %v", crashed.Action)
		}
		replacePod(&s, a.Name)
		s.Member(a.Name).Pod.Phase, s.Member(a.Name).Pod.StartedAt = "Pending", metav1.Time{}.Time
	}
	if diff := cmp.Diff([]string{"prod-0", "prod-1", "prod-2"}, corrected); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The pod of a roll back that was stopped came up again with the new version.
func TestARollBackDoesNotStartTheOldVersionOverANewPodThatServes(t *testing.T) {
	s := stopped(t, 3, func(s *cluster.Snapshot) { m := &s.Members[2]; m.Pod, m.Probe = nil, nil })
	tellsAll(&s, "3.6")
	was := *healthy(3).Snapshot().Members[2].Pod
	newHash := s.Members[2].Workload.IntentHash
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	// A pod of the template before was made meanwhile, and the cache did not know it.
	m := &s.Members[2]
	p := was
	p.IntentHash = newHash
	m.Pod = &p
	serve(&s, m.Name)
	m.Probe.Version = "3.7.3"
	tellsAll(&s, "3.7")
	if d := Next(s); d.Action != nil {
		t.Errorf("the cluster works as 3.7: %s starts %q: %s", actionText(d.Action), m.Workload.Intent.Version, d.Message)
	}
}

func tellsAll(s *cluster.Snapshot, version string) {
	for i := range s.Members {
		if p := s.Members[i].Probe; p != nil {
			p.ClusterVersion = version
		}
	}
}

// Several members fail some seconds after they were ready, and one that restarts lacks their quorum.
func TestARestartGivesWayToMembersThatGoBackWhereThereIsNoQuorum(t *testing.T) {
	onTrial := func(s *cluster.Snapshot) {
		for _, name := range []string{"prod-1", "prod-2"} {
			m := s.Member(name)
			before := m.Workload.Intent
			before.Labels = map[string]string{"team": "before"}
			text, _ := before.Encode()
			m.Workload.HealthyIntent = &before
			m.Workload.Live.Annotations[cluster.AnnotationHealthyIntent] = text
		}
	}
	for name, c := range map[string]struct {
		change   func(*cluster.Snapshot)
		givesWay bool
	}{
		"the others failed on trial":                      {onTrial, true},
		"the others failed with what they were well with": {func(*cluster.Snapshot) {}, false},
		"their StatefulSets are gone": {func(s *cluster.Snapshot) {
			s.Member("prod-1").Workload, s.Member("prod-2").Workload = nil, nil
		}, false},
		"there is a quorum": {func(s *cluster.Snapshot) { onTrial(s); serve(s, "prod-2"); serve(s, "prod-0") }, false},
	} {
		s := healthy(3).Claim(v1beta1.OperationRollMember).Snapshot()
		op := s.Cluster.Status.Operation
		op.Member, op.Reason, op.StartedAt = "prod-0", v1beta1.ReasonRollingMembers, metav1.NewTime(Now.Add(-time.Minute))
		m := s.Member("prod-0")
		m.Workload.Live.Annotations[cluster.AnnotationOperation] = cluster.OperationMark(v1beta1.OperationRollMember, op.StartedAt.Time)
		crashing0("prod-1")(&s)
		crashing0("prod-2")(&s)
		m.Probe.Linearizable = false
		c.change(&s)
		if got := awaitsFailedMembers(&s, s.Member("prod-0"), v1beta1.ReasonRollingMembers); got != c.givesWay {
			t.Errorf("%s: gives way %t", name, got)
		}
	}
}
