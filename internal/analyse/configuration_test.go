package analyse

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// healthy is a cluster at rest.
func healthy(replicas int32) *Builder {
	return MakeCluster("prod").Replicas(replicas).Objects().Members(Healthy)
}

func option(name, value string) func(*v1beta1.EtcdClusterSpec) {
	return func(s *v1beta1.EtcdClusterSpec) {
		if s.Config == nil {
			s.Config = &v1beta1.Config{ExtraArgs: map[string]string{}}
		}
		s.Config.ExtraArgs[name] = value
	}
}

func memory(limit string) func(*v1beta1.EtcdClusterSpec) {
	return func(s *v1beta1.EtcdClusterSpec) {
		s.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}
	}
}

// crashing is a member whose pod crashes for some time.
func crashing(name string, ago time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		silent(name)(s)
		p := s.Member(name).Pod
		p.PassesReadiness, p.CreatedAt = false, Now.Add(-ago)
		p.FailureReason, p.FailureDetail = v1beta1.ReasonCrashLooping, "etcd used more memory than its limit and was killed"
	}
}

// claim is what Actor.Claim leaves.
func claim(s *cluster.Snapshot, d plan.Decision) {
	after := *s.Cluster
	after.Status.Operation = d.Claim
	s.Cluster = &after
}

// writeTemplate is the first half of a restart.
func writeTemplate(t *testing.T, s *cluster.Snapshot, d plan.Decision) {
	t.Helper()
	action := d.Action.(plan.RestartMember)
	if action.StatefulSet == nil {
		return
	}
	set, m := action.StatefulSet.DeepCopy(), s.Member(action.Name)
	intent, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent])
	if err != nil {
		t.Fatal(err)
	}
	w := &cluster.Workload{Intent: intent, IntentHash: set.Annotations[cluster.AnnotationIntentHash], Live: set,
		StartsEmpty: render.StartsEmpty(set.Spec.Template.Annotations)}
	if text := set.Annotations[cluster.AnnotationHealthyIntent]; text != "" {
		was, err := cluster.DecodeIntent(text)
		if err != nil {
			t.Fatal(err)
		}
		w.HealthyIntent = &was
	}
	m.Workload = w
}

var podNumber int

// replacePod is the second half: the pod is gone, and the StatefulSet has made the next one.
func replacePod(s *cluster.Snapshot, name string) {
	m := s.Member(name)
	podNumber++
	p := *m.Pod
	p.UID, p.CreatedAt, p.StartedAt = types.UID(fmt.Sprintf("%s-%d", name, podNumber)), s.Now, s.Now
	p.IntentHash, p.FailureReason, p.FailureDetail, p.Deleting = m.Workload.IntentHash, "", "", false
	p.RenderHash = m.Workload.Live.Spec.Template.Annotations[cluster.AnnotationRenderHash]
	p.PeerAuthorities, p.ClientAuthorities = m.Workload.Intent.PeerAuthorities, m.Workload.Intent.ServerAuthorities
	p.Ready, p.PassesReadiness = false, false
	m.Pod, m.Probe = &p, &cluster.Probe{Error: "connection refused"}
}

// serve makes a member healthy. The upkeep of the next pass records it.
func serve(s *cluster.Snapshot, name string) {
	m := s.Member(name)
	leader := cluster.ID(0xa0)
	for i := range s.Members {
		if other := &s.Members[i]; other.Name != name && other.Leads() {
			leader = other.Probe.MemberID
		}
	}
	m.Pod.Ready, m.Pod.PassesReadiness, m.Pod.FailureReason, m.Pod.FailureDetail = true, true, "", ""
	m.Probe = &cluster.Probe{ClusterID: ClusterID, MemberID: m.Volume.MemberID, Leader: leader, Version: m.Workload.Intent.Version, Linearizable: true}
}

func lead(s *cluster.Snapshot, name string) {
	id := s.Member(name).Volume.MemberID
	for i := range s.Members {
		probe := *s.Members[i].Probe
		probe.Leader = id
		s.Members[i].Probe = &probe
	}
}

// carryOut does what a decision says, with every restart to its healthy end. It returns the actions, and the messages
// of every pass.
func carryOut(t *testing.T, s *cluster.Snapshot) (actions, messages []string) {
	t.Helper()
	for range 200 {
		d := Next(*s)
		messages = append(messages, d.Message)
		if d.Finished {
			claim(s, plan.Decision{})
		}
		for _, u := range d.Upkeep {
			if u, ok := u.(plan.UpdateStatefulSet); ok {
				writeTemplate(t, s, plan.Decision{Action: plan.RestartMember{Name: u.Desired.Name, StatefulSet: u.Desired}})
			}
			if u, ok := u.(plan.RecordMember); ok {
				volume := *s.Member(u.Member).Volume
				volume.Version, s.Member(u.Member).Volume = u.Annotations[cluster.AnnotationEtcdVersion], &volume
			}
		}
		if d.Action == nil {
			if !d.Finished && len(d.Upkeep) == 0 {
				return actions, messages
			}
			continue
		}
		claim(s, d)
		actions = append(actions, strings.Fields(actionText(d.Action))[0]+" "+d.Action.Member())
		if move, ok := d.Action.(plan.MoveLeader); ok {
			lead(s, move.To)
			continue
		}
		restart, ok := d.Action.(plan.RestartMember)
		if !ok {
			t.Fatalf("got %T: %s", d.Action, d.Message)
		}
		writeTemplate(t, s, d)
		replacePod(s, restart.Name)
		if after := s.After(cluster.Change{}); len(s.Members) > 1 && !after.HasQuorum() {
			t.Fatalf("the quorum is lost: %s", after)
		}
		serve(s, restart.Name)
	}
	t.Fatal("it never comes to rest")
	return nil, nil
}

func TestAConfigurationRollsFollowersFirstAndTheLeaderLastAfterItHandedOver(t *testing.T) {
	s := healthy(3).LaterSpec(memory("1Gi")).Later(func(s *cluster.Snapshot) { lead(s, "prod-1") }).Snapshot()
	actions, messages := carryOut(t, &s)
	if diff := cmp.Diff([]string{"roll prod-0", "roll prod-2", "move prod-1", "roll prod-1"}, actions); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	for i := range s.Members {
		m := &s.Members[i]
		if got := m.Workload.Intent.Limits.Memory().String(); got != "1Gi" || m.Pod.IntentHash != m.Workload.IntentHash {
			t.Errorf("%s has %s", m.Name, got)
		}
		if live := m.Workload.Live.Annotations; live[cluster.AnnotationHealthyIntent] != live[cluster.AnnotationIntent] {
			t.Errorf("%s is healthy, and its intent was not recorded", m.Name)
		}
	}
	for _, part := range []string{"0 of 3 members have been restarted.", "1 of 3 members have been restarted.", "2 of 3 members have been restarted."} {
		if !slices.ContainsFunc(messages, func(m string) bool { return strings.HasSuffix(m, part) }) {
			t.Errorf("no pass tells %q", part)
		}
	}
	if d := Next(s); d.Reason != v1beta1.ReasonUpToDate {
		t.Errorf("at the end: %s", d.Message)
	}
}

func TestAFailedMemberRestartsFirst(t *testing.T) {
	s := healthy(3).LaterSpec(memory("1Gi")).Later(crashing("prod-2", time.Hour)).Snapshot()
	d := Next(s)
	a, ok := d.Action.(plan.RestartMember)
	if !ok || a.Name != "prod-2" || a.Evict || a.StatefulSet == nil {
		t.Fatalf("got %+v: %s", d.Action, d.Message)
	}
	cutOff := healthy(3).LaterSpec(memory("1Gi")).Later(silent("prod-2")).Snapshot()
	if a, ok := Next(cutOff).Action.(plan.RestartMember); !ok || a.Name != "prod-2" || !a.Evict {
		t.Errorf("one that serves no client: got %+v", a)
	}
}

func TestAMemberWhosePodCannotBeCreatedGetsTheCorrectedSpec(t *testing.T) {
	s := healthy(3).LaterSpec(memory("1Gi")).Later(func(s *cluster.Snapshot) {
		m := s.Member("prod-2")
		m.Pod, m.Probe, m.Workload.CreateFailure = nil, nil, "a policy refuses it"
	}).Snapshot()
	if a, ok := Next(s).Action.(plan.RestartMember); !ok || a.Name != "prod-2" || a.Pod != "" || a.StatefulSet == nil {
		t.Errorf("got %+v", Next(s))
	}
}

func TestOnlyTheTemplateOfTheClaimedMemberIsWritten(t *testing.T) {
	s := healthy(3).LaterSpec(memory("1Gi")).Snapshot()
	d := Next(s)
	a := d.Action.(plan.RestartMember)
	if a.StatefulSet == nil || a.StatefulSet.Name != "prod-1" || a.Live != s.Member("prod-1").Workload.Live || !a.Evict {
		t.Errorf("got %+v", a)
	}
	if len(d.Upkeep) > 0 {
		t.Errorf("upkeep writes too: %v", sayOf(d).Upkeep)
	}
	old := s.Member("prod-1").Workload.Live.Annotations[cluster.AnnotationIntent]
	if got := a.StatefulSet.Annotations[cluster.AnnotationHealthyIntent]; got != old {
		t.Errorf("the way back is %q, want %q", got, old)
	}
}

// The operator ends between any two of: claim, template, eviction, next pod, health.
func TestARollGoesOnAfterACrashAtAnyPoint(t *testing.T) {
	for name, crash := range map[string]func(*testing.T, *cluster.Snapshot, plan.Decision){
		"before the template": func(*testing.T, *cluster.Snapshot, plan.Decision) {},
		"before the eviction": func(t *testing.T, s *cluster.Snapshot, d plan.Decision) { writeTemplate(t, s, d) },
		"before the next pod": func(t *testing.T, s *cluster.Snapshot, d plan.Decision) {
			writeTemplate(t, s, d)
			replacePod(s, "prod-1")
		},
		"before the end": func(t *testing.T, s *cluster.Snapshot, d plan.Decision) {
			writeTemplate(t, s, d)
			replacePod(s, "prod-1")
			serve(s, "prod-1")
		},
	} {
		s := healthy(3).LaterSpec(memory("1Gi")).Snapshot()
		d := Next(s)
		claim(&s, d)
		crash(t, &s, d)
		if !s.Member("prod-1").Serves() {
			if d := Next(s); d.Action != nil || d.Finished || !strings.HasPrefix(d.Message, "prod-1 was restarted. Waiting until it is a healthy voter again.") {
				t.Errorf("%s: does not wait: %s", name, d.Message)
			}
			serve(&s, "prod-1")
		}
		actions, _ := carryOut(t, &s)
		want := []string{"roll prod-1", "roll prod-2", "move prod-0", "roll prod-0"}
		if name == "before the next pod" || name == "before the end" {
			want = want[1:]
		}
		if diff := cmp.Diff(want, actions); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

func TestASpecThatChangesInTheMiddleIsTakenUpAfterwards(t *testing.T) {
	s := healthy(3).LaterSpec(memory("1Gi")).Snapshot()
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	memory("2Gi")(&s.Cluster.Spec)
	again := Next(s)
	if a, ok := again.Action.(plan.RestartMember); !ok || a.Name != "prod-1" || a.StatefulSet != nil {
		t.Fatalf("before the eviction the template changed again: %+v: %s", again.Action, again.Message)
	}
	replacePod(&s, "prod-1")
	if d := Next(s); d.Action != nil || d.Finished {
		t.Fatalf("while it starts: %+v: %s", d.Action, d.Message)
	}
	serve(&s, "prod-1")
	if d := Next(s); !d.Finished || d.Abandoned != "" {
		t.Fatalf("a healthy member does not end it: %s", d.Message)
	}
	if carryOut(t, &s); s.Member("prod-1").Workload.Intent.Limits.Memory().String() != "2Gi" {
		t.Error("the new spec was not taken up")
	}
}

func TestASpecThatCuresAFailedMemberIsTakenUpAtOnce(t *testing.T) {
	s := healthy(3).LaterSpec(memory("1Mi")).Snapshot()
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	replacePod(&s, "prod-1")
	crashing("prod-1", time.Second)(&s)
	if d := Next(s); d.Finished {
		t.Fatalf("without another spec: %s", d.Abandoned)
	}
	memory("1Gi")(&s.Cluster.Spec)
	d = Next(s)
	if !d.Finished || !strings.Contains(d.Abandoned, "the spec asks for something else now") {
		t.Fatalf("finished %v, %q: %s", d.Finished, d.Abandoned, d.Message)
	}
	claim(&s, plan.Decision{})
	if a, ok := Next(s).Action.(plan.RestartMember); !ok || a.Name != "prod-1" || a.Evict {
		t.Errorf("got %+v", a)
	}
}

func TestMembersThatFailedTogetherAreCuredTogether(t *testing.T) {
	s := healthy(3).LaterSpec(memory("1Gi")).Later(func(s *cluster.Snapshot) {
		for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
			crashing(name, time.Hour)(s)
		}
		s.Membership = nil
	}).Snapshot()
	var rolled []string
	for range 10 {
		d := Next(s)
		if d.Finished {
			claim(&s, plan.Decision{})
		}
		if a, ok := d.Action.(plan.RestartMember); ok {
			rolled = append(rolled, a.Name)
			claim(&s, d)
			writeTemplate(t, &s, d)
			replacePod(&s, a.Name)
			s.Member(a.Name).Pod.Phase = corev1.PodRunning
		}
	}
	if diff := cmp.Diff([]string{"prod-0", "prod-1", "prod-2"}, rolled); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWhatMeansTheSameRollsNothing(t *testing.T) {
	for name, change := range map[string]func(*cluster.Snapshot){
		"another spelling":               func(s *cluster.Snapshot) { s.Cluster.Spec.Image.Tag = "v" + Version },
		"no restart annotation any more": func(s *cluster.Snapshot) { setRestart(s, "") },
		"a larger volume's default quota": func(s *cluster.Snapshot) {
			s.Cluster.Spec.Storage = Gibibytes(4)
		},
		"what no pod depends on": func(s *cluster.Snapshot) {
			s.Cluster.Spec.UpdateStrategy = &v1beta1.UpdateStrategy{OperatorUpgrade: v1beta1.OperatorUpgradeRoll, ProgressDeadlineSeconds: 60}
		},
		"a stale pod": func(s *cluster.Snapshot) { s.Member("prod-1").Pod.RenderHash = "older" },
	} {
		b := MakeCluster("prod").Annotated(v1beta1.RestartAnnotation, "1").Objects().Members(Healthy).Later(change)
		if d := Next(b.Snapshot()); d.Action != nil {
			t.Errorf("%s: %s", name, d.Message)
		}
	}
}

func setRestart(s *cluster.Snapshot, value string) {
	after := s.Cluster.DeepCopy()
	delete(after.Annotations, v1beta1.RestartAnnotation)
	if value != "" {
		metav1.SetMetaDataAnnotation(&after.ObjectMeta, v1beta1.RestartAnnotation, value)
	}
	s.Cluster = after
}

func TestTheRestartAnnotationRollsOnceAValue(t *testing.T) {
	s := healthy(3).Snapshot()
	for _, value := range []string{"1", "2"} {
		setRestart(&s, value)
		if actions, _ := carryOut(t, &s); len(actions) != 4 {
			t.Fatalf("%s: %v", value, actions)
		}
		if d := Next(s); d.Action != nil {
			t.Fatalf("%s again: %s", value, d.Message)
		}
	}
}

func TestMembersRollForAnOperatorUpgradeOnlyWhereTheSpecSaysSo(t *testing.T) {
	stale := func(s *cluster.Snapshot) {
		for i := range s.Members {
			s.Members[i].Pod.RenderHash = "older"
		}
	}
	s := healthy(3).Later(stale).Snapshot()
	if d := Next(s); d.Action != nil || len(d.StaleTemplates) != 3 {
		t.Fatalf("got %v, stale %v", d.Action, d.StaleTemplates)
	}
	s.Cluster.Spec.UpdateStrategy = &v1beta1.UpdateStrategy{OperatorUpgrade: v1beta1.OperatorUpgradeRoll}
	if actions, _ := carryOut(t, &s); len(actions) != 4 {
		t.Errorf("got %v", actions)
	}
}

func TestTimingsChangeByAtMostTenTimesAStepForAllMembers(t *testing.T) {
	for _, c := range []struct{ from, to [2]string }{
		{[2]string{"100", "1000"}, [2]string{"5000", "50000"}},
		{[2]string{"5000", "50000"}, [2]string{"10", "50"}},
		{[2]string{"101", "505"}, [2]string{"1", "5"}},
		{[2]string{"100", "1000"}, [2]string{"20", "30000"}},
	} {
		set := func(timings [2]string) func(*v1beta1.EtcdClusterSpec) {
			return func(s *v1beta1.EtcdClusterSpec) {
				s.Config = &v1beta1.Config{ExtraArgs: map[string]string{"heartbeat-interval": timings[0], "election-timeout": timings[1]}}
			}
		}
		b := MakeCluster("prod").Objects()
		start := b.Later(func(*cluster.Snapshot) {})
		set(c.from)(&start.Snapshot().Cluster.Spec)
		s := b.Members(Healthy).Snapshot()
		set(c.to)(&s.Cluster.Spec)
		for range 60 {
			d := Next(s)
			if d.Finished {
				claim(&s, plan.Decision{})
			}
			if d.Action == nil && !d.Finished {
				break
			}
			if move, ok := d.Action.(plan.MoveLeader); ok {
				claim(&s, d)
				lead(&s, move.To)
			}
			if restart, ok := d.Action.(plan.RestartMember); ok {
				claim(&s, d)
				writeTemplate(t, &s, d)
				replacePod(&s, restart.Name)
				serve(&s, restart.Name)
				checkTimings(t, &s)
			}
		}
		for i := range s.Members {
			options := s.Members[i].Workload.Intent.Options
			if options["ETCD_HEARTBEAT_INTERVAL"] != c.to[0] || options["ETCD_ELECTION_TIMEOUT"] != c.to[1] {
				t.Errorf("%v to %v: %s ends with %v", c.from, c.to, s.Members[i].Name, options)
			}
		}
	}
}

func checkTimings(t *testing.T, s *cluster.Snapshot) {
	t.Helper()
	var heartbeats, elections []int64
	for i := range s.Members {
		heartbeat, election := s.Members[i].Workload.Intent.Timings()
		if heartbeats, elections = append(heartbeats, heartbeat), append(elections, election); election < 5*heartbeat {
			t.Fatalf("etcd refuses %d and %d", heartbeat, election)
		}
	}
	if slices.Max(heartbeats) > 10*slices.Min(heartbeats) || slices.Max(elections) > 10*slices.Min(elections) {
		t.Fatalf("side by side: heartbeats %v, elections %v", heartbeats, elections)
	}
}

func TestTheOnlyMemberRestartsForWhatTheUserAsksForOnly(t *testing.T) {
	s := healthy(1).LaterSpec(memory("1Gi")).Snapshot()
	a, ok := Next(s).Action.(plan.RestartMember)
	if !ok || a.Name != "prod-0" {
		t.Fatalf("got %+v", Next(s))
	}
	if actions, _ := carryOut(t, &s); !slices.Equal(actions, []string{"roll prod-0"}) {
		t.Errorf("got %v", actions)
	}
	rotation := MakeCluster("prod").Replicas(1).Managed().Objects().Members(Healthy).Announced(time.Minute).Template()
	if d := Next(rotation.Snapshot()); d.Action != nil || d.Reason != v1beta1.ReasonQuorumAtRisk {
		t.Errorf("a rotation: %v: %s", d.Action, d.Message)
	}
}

// Each guard refuses where all others allow.
func TestEveryGuardOfAConfigurationRollIsAsked(t *testing.T) {
	roll := func() *Builder { return healthy(5).LaterSpec(memory("1Gi")) }
	if d := Next(roll().Snapshot()); d.Action == nil {
		t.Fatalf("without a fault: %s", d.Message)
	}
	for guard, fault := range map[string]func(*cluster.Snapshot){
		"optionsAllowed": func(s *cluster.Snapshot) { option("data-dir", "/tmp")(&s.Cluster.Spec) },
		"quotaFitsClaim": func(s *cluster.Snapshot) { option("quota-backend-bytes", "8000000000")(&s.Cluster.Spec) },
		"quotaHoldsDatabase": func(s *cluster.Snapshot) {
			option("quota-backend-bytes", "100000000")(&s.Cluster.Spec)
			probe := *s.Members[4].Probe
			probe.DatabaseBytes = 90_000_001
			s.Members[4].Probe = &probe
		},
		"intentHasNotFailed": func(s *cluster.Snapshot) { markFailed(s, "prod-3") },
		"noAlarm":            func(s *cluster.Snapshot) { s.Membership.Alarms = []cluster.Alarm{{Kind: cluster.AlarmNoSpace}} },
		"membersHealthy":     func(s *cluster.Snapshot) { s.Member("prod-4").Pod.Deleting = true },
		"followerCanLead": func(s *cluster.Snapshot) {
			for i := range s.Members {
				probe := *s.Members[i].Probe
				probe.CommittedIndex, probe.AppliedIndex = 5000, 1000
				s.Members[i].Probe = &probe
				if i > 0 {
					s.Members[i].Workload.Intent.Limits = s.Cluster.Spec.Resources.Limits
					_, s.Members[i].Workload.IntentHash = s.Members[i].Workload.Intent.Encode()
					s.Members[i].Pod.IntentHash = s.Members[i].Workload.IntentHash
				}
			}
		},
	} {
		d := Next(roll().Later(fault).Snapshot())
		if d.Action != nil || len(d.Refusals) != 1 || d.Refusals[0].Guard != guard {
			t.Errorf("%s: got %q, refused by %+v", guard, actionText(d.Action), d.Refusals)
		}
	}
}

func TestAQuotaIsLoweredWhereTheDatabaseLeavesRoom(t *testing.T) {
	for bytes, rolls := range map[int64]bool{90_000_000: true, 90_000_001: false} {
		s := healthy(3).LaterSpec(option("quota-backend-bytes", "100000000")).Snapshot()
		for i := range s.Members {
			probe := *s.Members[i].Probe
			probe.DatabaseBytes = bytes
			s.Members[i].Probe = &probe
		}
		if d := Next(s); (d.Action != nil) != rolls || !rolls && d.Reason != v1beta1.ReasonQuotaTooSmall {
			t.Errorf("%d bytes: %v, %s: %s", bytes, d.Action, d.Reason, d.Message)
		}
	}
}

// markFailed remembers that a member did not become healthy with what the spec asks for.
func markFailed(s *cluster.Snapshot, name string) {
	m := s.Member(name)
	m.Workload.Live.Annotations[cluster.AnnotationFailedIntent] = cluster.FailedIntent(targetOf(s, m), "The pod crashed.")
}

func TestACureGoesBeforeGrowth(t *testing.T) {
	grow := func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }
	for name, c := range map[string]struct {
		b    *Builder
		rule string
	}{
		"more memory for a member that is killed": {healthy(3).LaterSpec(grow).LaterSpec(memory("1Gi")).Later(crashing("prod-2", time.Hour)), RuleConfiguration},
		"a voter that is killed beside a learner that cannot start": {
			resized(3, 5, noted("4"), created, cannotStart, crashing("prod-2", time.Hour)).LaterSpec(memory("1Gi")), RuleConfiguration,
		},
		"a voter that is killed beside a learner that is silent": {
			resized(3, 5, noted("4"), created, ranFor(time.Hour), crashing("prod-2", time.Hour)).LaterSpec(memory("1Gi")), RuleConfiguration,
		},
		"a voter that is killed beside a learner, for no change": {
			resized(3, 5, noted("4"), created, cannotStart, crashing("prod-2", time.Hour)), RuleScale,
		},
		"a member that is killed for no change": {healthy(3).LaterSpec(grow).Later(crashing("prod-2", time.Hour)), RuleScale},
		"healthy members":                       {healthy(3).LaterSpec(grow).LaterSpec(memory("1Gi")), RuleScale},
	} {
		if d := Next(c.b.Snapshot()); d.Rule != c.rule {
			t.Errorf("%s: %s decides: %s", name, d.Rule, d.Message)
		}
	}
}
