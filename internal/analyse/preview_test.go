package analyse

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

const (
	thenDone   = " Then the cluster is as its spec says."
	downgraded = "2. Restart prod-1 with etcd 3.6.16. 3. Restart prod-2 with etcd 3.6.16. 4. Move the leader from prod-0 to prod-1. " +
		"5. Restart prod-0 with etcd 3.6.16." + thenDone
)

func replicas(n int32) func(*v1beta1.EtcdClusterSpec) {
	return func(s *v1beta1.EtcdClusterSpec) { s.Replicas = n }
}

func startedNow(s *cluster.Snapshot) {
	for i := range s.Members {
		s.Members[i].Pod.StartedAt = s.Now
	}
}

func TestAPreviewTellsTheStepsInTheirOrder(t *testing.T) {
	for name, c := range map[string]struct {
		s    cluster.Snapshot
		want string
	}{
		"nothing": {healthy(3).Snapshot(), "Nothing to change: size, version, pod template and storage are as the spec says."},
		"a roll": {healthy(3).LaterSpec(memory("1Gi")).Snapshot(),
			"1. Restart prod-1. 2. Restart prod-2. 3. Move the leader from prod-0 to prod-1. 4. Restart prod-0." + thenDone},
		"a roll with a failed member": {healthy(3).LaterSpec(memory("1Gi")).Later(crashing("prod-2", time.Hour)).Snapshot(),
			"1. Restart prod-2. 2. Restart prod-1. 3. Move the leader from prod-0 to prod-1. 4. Restart prod-0." + thenDone},
		"more memory": {burstable(3).LaterSpec(moreMemory).Snapshot(),
			"1. Change CPU and memory of prod-0, prod-1, prod-2 without a restart, if Kubernetes can." + thenDone},
		"more memory and growth": {burstable(1).LaterSpec(moreMemory).LaterSpec(replicas(3)).Snapshot(),
			"1. Change CPU and memory of prod-0 without a restart, if Kubernetes can. 2. Add prod-1 as a learner, and make it a voter. " +
				"3. Add prod-2 as a learner, and make it a voter." + thenDone},
		"less CPU while frozen": {
			burstable(1).LaterSpec(lessCPU).Later(func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{ByNamespace: true} }).Snapshot(),
			"Namespace shop has the annotation operator.etcd-warden.io/freeze-disruptions=true, so no step begins that may disturb members, and no lost member is replaced. " +
				"A member whose pod has failed is still restarted. Run kubectl annotate namespace shop operator.etcd-warden.io/freeze-disruptions- when it may. " +
				"1. Change CPU and memory of prod-0 without a restart, if Kubernetes can." + thenDone},
		"less CPU": {burstable(3).LaterSpec(lessCPU).Snapshot(),
			"1. Change CPU and memory of prod-1 without a restart, if Kubernetes can. 2. Change CPU and memory of prod-2 without a restart, if Kubernetes can. " +
				"3. Change CPU and memory of prod-0 without a restart, if Kubernetes can." + thenDone},
		"growth": {resized(3, 5).Snapshot(),
			"1. Add prod-3 as a learner, and make it a voter. 2. Add prod-4 as a learner, and make it a voter." + thenDone},
		"growth right after a start": {resized(3, 5, startedNow).Snapshot(),
			"1. Add prod-3 as a learner, and make it a voter. 2. Add prod-4 as a learner, and make it a voter." + thenDone},
		"growth and a roll": {healthy(1).LaterSpec(replicas(3)).LaterSpec(memory("1Gi")).Snapshot(),
			"1. Add prod-1 as a learner, and make it a voter. 2. Add prod-2 as a learner, and make it a voter. " +
				"3. Move the leader from prod-0 to prod-1. 4. Restart prod-0." + thenDone},
		"a cure before growth": {healthy(3).LaterSpec(replicas(5)).LaterSpec(memory("1Gi")).Later(crashing("prod-2", time.Hour)).Snapshot(),
			"1. Restart prod-2. 2. Add prod-3 as a learner, and make it a voter. 3. Add prod-4 as a learner, and make it a voter. " +
				"4. Restart prod-1. 5. Move the leader from prod-0 to prod-1. 6. Restart prod-0." + thenDone},
		"shrinking, the leader last": {resized(3, 1, leads("prod-2")).Snapshot(), "1. Remove prod-1. 2. Remove prod-0." + thenDone},
		"shrinking and a roll": {resized(5, 3, silent("prod-1")).LaterSpec(memory("1Gi")).Snapshot(),
			"1. Remove prod-1. 2. Remove prod-4. 3. Restart prod-2. 4. Restart prod-3. 5. Move the leader from prod-0 to prod-2. 6. Restart prod-0." + thenDone},
		"the only member": {healthy(1).LaterSpec(memory("1Gi")).Snapshot(), "1. Restart prod-0." + thenDone},
		"paused": {healthy(1).Paused().LaterSpec(memory("1Gi")).Snapshot(),
			"spec.paused is true: nothing begins until it is false. 1. Restart prod-0." + thenDone},
		"paused, and nothing to do": {healthy(1).Paused().Snapshot(),
			"spec.paused is true: nothing begins until it is false. Nothing to change: size, version, pod template and storage are as the spec says."},
		"frozen": {healthy(1).LaterSpec(memory("1Gi")).Later(func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{ByOperator: true} }).Snapshot(),
			"The operator runs with --freeze-disruptions, so no step begins that may disturb members, and no lost member is replaced. A member whose pod has failed is still restarted. " +
				"Remove that flag from the operator's Deployment when it may. 1. Restart prod-0." + thenDone},
		"frozen, and nothing to do": {healthy(1).Later(func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{ByOperator: true} }).Snapshot(),
			"Nothing to change: size, version, pod template and storage are as the spec says."},
		"a restart under way": {rolled(t, time.Minute, func(*cluster.Snapshot) {}),
			"1. Finish the operation RollMember of prod-1, which is under way. 2. Restart prod-2. 3. Move the leader from prod-0 to prod-1. 4. Restart prod-0." + thenDone},
		"a restart under way of a member whose volume is gone": {rolled(t, time.Minute, func(s *cluster.Snapshot) {
			s.Member("prod-1").Pod, s.Member("prod-1").Volume = nil, nil
		}), "1. Remove prod-1, which is lost. 2. Add prod-3 as a learner, and make it a voter. " +
			"3. Restart prod-2. 4. Move the leader from prod-0 to prod-2. 5. Restart prod-0." + thenDone},
		"a restart that was claimed only": {claimed(healthy(3).LaterSpec(memory("1Gi")).Snapshot()),
			"1. Finish the operation RollMember of prod-1, which is under way. 2. Restart prod-2. 3. Move the leader from prod-0 to prod-1. 4. Restart prod-0." + thenDone},
		"a new member under way": {growing3(joined),
			"1. Finish the operation AddMember of prod-3, which is under way. 2. Add prod-4 as a learner, and make it a voter." + thenDone},
		"a new member that is not wanted any more": {growing3(joined, wants(3)), "1. Remove prod-3." + thenDone},
		"a removal under way": {shrinking(5, 3, "prod-4", removed("prod-4")),
			"1. Finish the operation RemoveMember of prod-4, which is under way. 2. Remove prod-3." + thenDone},
		"a member that goes back": {rolled(t, 2*time.Minute, crashing0("prod-1")),
			"1. Restart prod-1 with what it ran with before, because it did not become healthy. Then nothing more begins. " +
				"prod-1 did not become healthy with what the spec asks for, and went back to what it ran with before. " +
				"What was wrong then: The pod of prod-1 does not run (CrashLooping): etcd used more memory than its limit and was killed. " +
				"No other member is restarted for it. Correct the spec, or set another value of the annotation operator.etcd-warden.io/restart to try it again."},
		"a learner without an operation": {resized(3, 5, caughtUp, budgeted(3)).Snapshot(),
			"1. Make the learner prod-3 a voter. 2. Add prod-4 as a learner, and make it a voter." + thenDone},
		"what is refused": {healthy(3).LaterSpec(option("data-dir", "/tmp")).Snapshot(), "Nothing begins now. spec.config.extraArgs "},
		"an upgrade by a minor version": {healthy(3).LaterSpec(toVersion("3.7.3")).Later(readySince(time.Hour)).Snapshot(),
			"1. Restart prod-1 with etcd 3.7.3. 2. Restart prod-2 with etcd 3.7.3. 3. Move the leader from prod-0 to prod-1. 4. Restart prod-0 with etcd 3.7.3." + thenDone},
		"a downgrade":                        {*on37(), "1. Enabling the downgrade to etcd 3.6. etcd then prepares its data for that version. " + downgraded},
		"a downgrade that is being prepared": {claimed(*on37()), "1. Finish the operation Downgrade (preparation of the data), which is under way. " + downgraded},
		"what is refused after other steps": {resized(3, 1).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Storage = Gibibytes(20) }).Snapshot(),
			"1. Remove prod-2. 2. Remove prod-1. Then nothing more begins. The running cluster stays as it is, "},
		"an edit that is refused":                 {resized(3, 1).LaterSpec(option("data-dir", "/tmp")).Snapshot(), "Nothing begins now. spec.config.extraArgs "},
		"an edit that no release carries out yet": {healthy(3).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Storage = Gibibytes(20) }).Snapshot(), "Nothing begins now. "},
		"a lost quorum":                           {resized(3, 5, silent("prod-1"), silent("prod-2")).Snapshot(), "Nothing begins now. "},
		"a new cluster":                           {MakeCluster("prod").Objects().Snapshot(), "1. Creating "},
		"a founding under way":                    {MakeCluster("prod").Claim(v1beta1.OperationBootstrap).Objects().Members(Volume, Founding).Snapshot(), "The operation Bootstrap is under way. "},
	} {
		before := fmt.Sprintf("%+v", c.s.Cluster) + fmt.Sprint(len(c.s.Members))
		got := Preview(c.s)
		if !strings.HasPrefix(got, c.want) || strings.HasSuffix(c.want, ".") && got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
		if after := fmt.Sprintf("%+v", c.s.Cluster) + fmt.Sprint(len(c.s.Members)); after != before {
			t.Errorf("%s: the preview changed the snapshot", name)
		}
	}
}

// The order that is told is the order in which the real rules act, each restart carried out to its end.
func TestAPreviewTellsWhatIsDone(t *testing.T) {
	for name, b := range map[string]func() *Builder{
		"a roll of three": func() *Builder { return healthy(3).LaterSpec(memory("1Gi")) },
		"a roll of seven": func() *Builder { return healthy(7).LaterSpec(memory("1Gi")) },
		"another leader": func() *Builder {
			return healthy(5).LaterSpec(memory("1Gi")).Later(func(s *cluster.Snapshot) { lead(s, "prod-3") })
		},
		"a failed member": func() *Builder { return healthy(5).LaterSpec(memory("1Gi")).Later(crashing("prod-3", time.Hour)) },
		"members that failed together": func() *Builder {
			return healthy(5).LaterSpec(memory("1Gi")).Later(crashing("prod-1", time.Hour)).Later(crashing("prod-2", time.Hour))
		},
		"timings in steps": func() *Builder {
			return healthy(3).LaterSpec(option("heartbeat-interval", "1")).LaterSpec(option("election-timeout", "50000"))
		},
		"the restart annotation": func() *Builder { return healthy(3).Later(func(s *cluster.Snapshot) { setRestart(s, "now") }) },
		"other authorities":      func() *Builder { return rotating(0).Later(noOperation) },
		"authorities that no template names yet": func() *Builder {
			return MakeCluster("prod").Managed().Objects().Members(Healthy).Announced(time.Minute)
		},
		"authorities and a roll": func() *Builder { return rotating(0).Later(noOperation).LaterSpec(memory("1Gi")) },
	} {
		s := b().Snapshot()
		text := Preview(s)
		s = b().Snapshot()
		actions, _ := carryOut(t, &s)
		if diff := cmp.Diff(actions, stepsOf(text)); diff != "" {
			t.Errorf("%s: -done +told:\n%s\n%s", name, diff, text)
		}
	}
}

// stepsOf returns the steps of a preview as carryOut returns actions.
func stepsOf(text string) []string {
	var steps []string
	for _, sentence := range strings.SplitAfter(text, ". ") {
		switch words := strings.Fields(strings.TrimRight(sentence, ". ")); {
		case len(words) == 2 && words[0] == "Restart":
			steps = append(steps, "roll "+words[1])
		case len(words) > 4 && words[0] == "Move":
			steps = append(steps, "move "+words[4])
		}
	}
	return steps
}

// Membership: each step that is told is the next one that the rules take.
func TestAPreviewOfAResizeTellsWhatIsDone(t *testing.T) {
	for _, c := range []struct {
		from, to int32
		changes  []func(*cluster.Snapshot)
	}{{1, 3, nil}, {3, 7, nil}, {7, 1, nil}, {5, 1, []func(*cluster.Snapshot){leads("prod-4")}}, {5, 3, []func(*cluster.Snapshot){silent("prod-2")}}} {
		s := resized(c.from, c.to, c.changes...).Snapshot()
		told := Preview(s)
		for n := 1; ; n++ {
			d := Next(s)
			name, step := "", ""
			switch a := d.Action.(type) {
			case nil:
			case plan.AddMember:
				name, step = a.Name, fmt.Sprintf("%d. Add %s as a learner, and make it a voter. ", n, a.Name)
			case plan.RemoveMember:
				name, step = a.Name, fmt.Sprintf("%d. Remove %s. ", n, a.Name)
			case plan.MoveLeader:
				step = fmt.Sprintf("%d. Move the leader from %s to %s. ", n, a.Name, a.To)
				lead(&s, a.To)
			case plan.CreateFounders, plan.TakeBackVolumes, plan.StartMembers, plan.StartLearner, plan.PromoteMember, plan.RestartMember, plan.ChangeDowngrade, plan.Defragment, plan.HashMember:
				t.Fatalf("%+v", d)
			}
			if d.Action == nil {
				break
			}
			if !strings.Contains(told+" ", step) {
				t.Errorf("%d to %d: %q is done, and this is told: %s", c.from, c.to, step, told)
			}
			if strings.HasPrefix(step, fmt.Sprintf("%d. Add", n)) {
				p := newPreview(&s)
				p.join(name)
				s = p.s
			} else if name != "" {
				removed(name)(&s)
				s.LeftOvers = nil
			}
		}
		if voters := s.Outlook().Voters; voters != int(c.to) || strings.Count(told, "Add ")+strings.Count(told, "Remove ") != max(int(c.to-c.from), int(c.from-c.to)) {
			t.Errorf("%d to %d: at the end %d voters; told: %s", c.from, c.to, voters, told)
		}
	}
}

func TestEachValueOfThePlanAnnotationIsAnsweredBeforeAnythingBegins(t *testing.T) {
	roll := func(changes ...func(*cluster.Snapshot)) cluster.Snapshot {
		b := healthy(3).LaterSpec(memory("1Gi")).Annotated(v1beta1.PlanAnnotation, "a")
		for _, c := range changes {
			b.Later(c)
		}
		return b.Snapshot()
	}
	answered := func(value string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { s.Cluster.Status.AnsweredPlan = value }
	}
	annotated := func(value string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { s.Cluster.Annotations[v1beta1.PlanAnnotation] = value }
	}
	for name, c := range map[string]struct {
		s    cluster.Snapshot
		want string
	}{
		"a new value":                 {roll(), "a"},
		"another value":               {roll(answered("b")), "a"},
		"a value of 253 bytes":        {roll(annotated(strings.Repeat("x", 253))), strings.Repeat("x", 253)},
		"the same value":              {roll(answered("a")), ""},
		"a value of 254 bytes":        {roll(annotated(strings.Repeat("x", 254))), ""},
		"no value":                    {roll(annotated("")), ""},
		"an annotation that was gone": {roll(answered("a"), func(s *cluster.Snapshot) { s.Cluster.Annotations = nil }), ""},
	} {
		d := Next(c.s)
		if d.AnsweredPlan != c.want || (d.Plan != "") != (c.want != "") || (d.Action == nil) != (c.want != "") || (d.Claim == nil) != (c.want != "") {
			t.Errorf("%s: answered %q with %q; then %s", name, d.AnsweredPlan, d.Plan, actionText(d.Action))
		}
	}
	if d := Next(MakeCluster("prod").Deleted().Annotated(v1beta1.PlanAnnotation, "a").Snapshot()); d.Plan != "" {
		t.Errorf("a deleted cluster: %s", d.Plan)
	}
}

// No edit makes a preview without an end.
func TestAPreviewOfTheLargestClusterFitsIntoAnEvent(t *testing.T) {
	s := healthy(7).LaterSpec(memory("1Gi")).LaterSpec(replicas(1)).Snapshot()
	if text := Preview(s); len(text) > 1024 || !strings.HasSuffix(text, thenDone) {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	s = healthy(7).LaterSpec(option("heartbeat-interval", "1")).LaterSpec(option("election-timeout", "50000")).Snapshot()
	if text := Preview(s); len(text) > 1024 || slices.Contains(stepsOf(text), "") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}
