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
)

const mebibyte = 1 << 20

// allCaughtUp has every member have applied what the leader has committed, with databases of 100 MiB.
func allCaughtUp(s *cluster.Snapshot) {
	for i := range s.Members {
		if p := s.Members[i].Probe; p.Answered() {
			p.CommittedIndex, p.AppliedIndex, p.DatabaseBytesInUse = 5000, 5000, 100*mebibyte
		}
	}
}

// asks is a healthy cluster of which an administrator asks something.
func asks(size int32, annotation, value string, changes ...func(*cluster.Snapshot)) *Builder {
	b := healthy(size).Annotated(annotation, value).Later(allCaughtUp)
	for _, change := range changes {
		b = b.Later(change)
	}
	return b
}

func asksToDefragment(size int32, value string, changes ...func(*cluster.Snapshot)) *Builder {
	return asks(size, v1beta1.DefragmentAnnotation, value, changes...)
}

func asksForLeader(name string, changes ...func(*cluster.Snapshot)) *Builder {
	return asks(3, v1beta1.MoveLeaderAnnotation, name, changes...)
}

func lags(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Member(name).Probe.AppliedIndex = 5000 - maxLag - 1 }
}

func hasAlarms(kinds ...cluster.AlarmKind) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for _, kind := range kinds {
			s.Membership.Alarms = append(s.Membership.Alarms, cluster.Alarm{Member: 0xa1, Kind: kind})
		}
	}
}

func isLearner(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m := s.Member(name)
		m.Probe.Learner, m.Probe.Linearizable = true, false
		s.EtcdEntry(m).Learner = true
	}
}

func downgradeEnabled(s *cluster.Snapshot) {
	for i := range s.Members {
		s.Members[i].Probe.DowngradeEnabled, s.Members[i].Probe.DowngradeTarget = true, "3.5"
	}
}

func hasDatabases(bytes int64) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for i := range s.Members {
			s.Members[i].Probe.DatabaseBytesInUse = bytes
		}
	}
}

// underWay has an operation on a member be under way since some time.
func underWay(kind v1beta1.OperationType, member string, ago time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		s.Cluster.Status.Operation = &v1beta1.Operation{Type: kind, Member: member, StartedAt: metav1.NewTime(Now.Add(-ago))}
	}
}

// Each guard has a case that allows and one that refuses.
func TestMembersAreDefragmentedOneByOneWhenAnAdministratorAsks(t *testing.T) {
	does := func(action string) says {
		return says{Rule: RuleMaintenance, Reason: v1beta1.ReasonDefragmenting, Progressing: true, Action: action}
	}
	refusedFor := func(reason string) says { return says{Rule: RuleMaintenance, Reason: reason} }
	first := does(`defragment prod-1 within 12s, then "now done: prod-1"`)
	removes := says{Reason: "UpToDate", Upkeep: []string{"remove " + v1beta1.DefragmentAnnotation}}
	for name, c := range map[string]struct {
		cluster *Builder
		want    says
		message string // a part of it
	}{
		"a follower first":        {asksToDefragment(3, "now"), first, "0 of 3 members have been defragmented"},
		"with any value":          {asksToDefragment(3, "2026-01-02"), does(`defragment prod-1 within 12s, then "2026-01-02 done: prod-1"`), ""},
		"not for an empty value":  {asksToDefragment(3, ""), says{Reason: "UpToDate"}, ""},
		"the next follower":       {asksToDefragment(3, "now done: prod-1"), does(`defragment prod-2 within 12s, then "now done: prod-1 prod-2"`), "1 of 3 members have been defragmented"},
		"a new member too":        {asksToDefragment(3, "now done: prod-0 prod-1 prod-7"), does(`defragment prod-2 within 12s, then "now done: prod-0 prod-1 prod-7 prod-2"`), ""},
		"the leader hands over":   {asksToDefragment(3, "now done: prod-1 prod-2"), does("move the leader from prod-0 to prod-1 (a1) for Defragment"), "before prod-0 is defragmented"},
		"the former leader":       {asksToDefragment(3, "now done: prod-1 prod-2", leads("prod-1")), does(`defragment prod-0 within 12s, then "now done: prod-1 prod-2 prod-0"`), ""},
		"the only member":         {asksToDefragment(1, "now"), does(`defragment prod-0 within 12s, then "now done: prod-0"`), ""},
		"with more time":          {asksToDefragment(3, "now", hasDatabases(2048*mebibyte)), does(`defragment prod-1 within 50s, then "now done: prod-1"`), ""},
		"with three minutes":      {asksToDefragment(3, "now", hasDatabases(1<<40)), does(`defragment prod-1 within 3m0s, then "now done: prod-1"`), ""},
		"removed when all are":    {asksToDefragment(3, "now done: prod-1 prod-2 prod-0"), removes, ""},
		"removed with former":     {asksToDefragment(3, "now done: prod-9 prod-1 prod-2 prod-0"), removes, ""},
		"not while paused":        {asksToDefragment(3, "now").Paused(), says{Rule: RulePaused, Reason: "Paused"}, ""},
		"not while frozen":        {asksToDefragment(3, "now", func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{ByNamespace: true} }), refusedFor("Frozen"), "Next: Defragmenting prod-1"},
		"not beside a silent one": {asksToDefragment(3, "now", failing("prod-2")), refusedFor("MembersNotHealthy"), "Waiting for prod-2."},
		"not beside one that goes": {asksToDefragment(3, "now", func(s *cluster.Snapshot) { s.Member("prod-2").Pod.Deleting = true }),
			refusedFor("MembersNotHealthy"), "Waiting for prod-2."},
		"not beside one that lags": {asksToDefragment(3, "now", lags("prod-2")), refusedFor("MembersNotHealthy"), "Waiting for prod-2."},
		"not while it lags itself": {asksToDefragment(3, "now", lags("prod-1")), refusedFor("MembersNotHealthy"), "Waiting for prod-1."},
		"with an alarm for space":  {asksToDefragment(3, "now", hasAlarms(cluster.AlarmNoSpace)), first, ""},
		"not with one for corruption": {asksToDefragment(3, "now", hasAlarms(cluster.AlarmNoSpace, cluster.AlarmCorrupt)),
			says{Rule: RuleConsistency, Reason: "CheckingConsistency", Progressing: true, Action: "hash prod-1"}, ""},
		"not while a downgrade goes on": {asksToDefragment(3, "now", downgradeEnabled), says{Rule: RuleUpgrade, Reason: "ForeignDowngrade"}, ""},
		"a full database before its pending restarts": {
			asksToDefragment(3, "now", hasAlarms(cluster.AlarmNoSpace)).LaterSpec(memory("1Gi")), first, "",
		},
		"a database that fills the new quota before anything else": {
			asksToDefragment(3, "now", func(s *cluster.Snapshot) { s.Member("prod-2").Probe.DatabaseBytes = 90_000_001 }).LaterSpec(option("quota-backend-bytes", "100000000")), first, "",
		},
		"the new quota is told where a member lags": {
			asksToDefragment(3, "now", lags("prod-1"), func(s *cluster.Snapshot) { s.Member("prod-2").Probe.DatabaseBytes = 90_000_001 }).LaterSpec(option("quota-backend-bytes", "100000000")),
			says{Rule: RuleConfiguration, Reason: "QuotaTooSmall"}, "",
		},
		"restarts that are due first": {
			asksToDefragment(3, "now").LaterSpec(memory("1Gi")),
			says{Rule: RuleConfiguration, Reason: "RollingMembers", Progressing: true, Action: "roll prod-1 (pod-prod-1)"}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(c.cluster.Snapshot())
			if diff := cmp.Diff(c.want, sayOf(d)); diff != "" {
				t.Errorf("wanted -, got +:\n%s\n%s", diff, d.Message)
			}
			if !strings.Contains(d.Message, c.message) {
				t.Errorf("the message is %q, want %q in it", d.Message, c.message)
			}
		})
	}
}

// What an earlier rule tells as well is refused by the guard itself.
func TestTheGuardsOfADefragmentation(t *testing.T) {
	of := func(name string) func(*cluster.Snapshot) []string {
		return func(s *cluster.Snapshot) []string {
			var names []string
			for _, r := range refusalsOf(s, defragmentationGuards(s.Member(name))...) {
				names = append(names, r.Guard)
			}
			return names
		}
	}
	for name, c := range map[string]struct {
		cluster *Builder
		member  string
		want    []string
	}{
		"healthy":     {asksToDefragment(3, "now"), "prod-1", nil},
		"a downgrade": {asksToDefragment(3, "now", downgradeEnabled), "prod-1", []string{"noDowngradeEnabled"}},
		"a learner":   {asksToDefragment(3, "now", isLearner("prod-2")), "prod-1", []string{"everyVoterCaughtUp", "othersKeepQuorum"}},
		"a member that joins": {asksToDefragment(3, "now", func(s *cluster.Snapshot) {
			s.Membership.Members = append(s.Membership.Members, cluster.EtcdMember{ID: 0xa7, Learner: true})
		}), "prod-1", []string{"everyVoterCaughtUp"}},
		"no list of members":    {asksToDefragment(3, "now", func(s *cluster.Snapshot) { s.Membership = nil }), "prod-1", []string{"everyVoterCaughtUp"}},
		"two voters":            {asksToDefragment(3, "now", removed("prod-2")), "prod-1", []string{"othersKeepQuorum"}},
		"one voter":             {asksToDefragment(1, "now"), "prod-0", nil},
		"corruption":            {asksToDefragment(3, "now", hasAlarms(cluster.AlarmCorrupt)), "prod-1", []string{"noAlarmButSpace"}},
		"space":                 {asksToDefragment(3, "now", hasAlarms(cluster.AlarmNoSpace)), "prod-1", nil},
		"a leader":              {asksToDefragment(3, "now"), "prod-0", nil},
		"followers that cannot": {asksToDefragment(3, "now", lags("prod-1"), lags("prod-2")), "prod-0", []string{"everyVoterCaughtUp", "followerCanLead"}},
	} {
		s := c.cluster.Snapshot()
		if diff := cmp.Diff(c.want, of(c.member)(&s)); diff != "" {
			t.Errorf("%s: wanted -, got +:\n%s", name, diff)
		}
	}
}

func TestADefragmentationEndsWhenItsMemberIsNotedAndBack(t *testing.T) {
	const now, done = "now", "now done: prod-1"
	on := func(value string, changes ...func(*cluster.Snapshot)) *Builder {
		return asksToDefragment(3, value, append([]func(*cluster.Snapshot){underWay(v1beta1.OperationDefragment, "prod-1", time.Minute)}, changes...)...)
	}
	unasked := func(s *cluster.Snapshot) { delete(s.Cluster.Annotations, v1beta1.DefragmentAnnotation) }
	for name, c := range map[string]struct {
		cluster   *Builder
		finished  bool
		abandoned string
		action    string
	}{
		"noted, and back":                {on(done), true, "", ""},
		"noted, and silent":              {on(done, failing("prod-1")), false, "", ""},
		"noted, and behind":              {on(done, lags("prod-1")), false, "", ""},
		"not noted: again":               {on(now), false, "", `defragment prod-1 within 12s, then "now done: prod-1"`},
		"not noted, and silent":          {on(now, failing("prod-1")), false, "", ""},
		"not noted, and it leads now":    {on(now, leads("prod-1")), false, "", "move the leader from prod-1 to prod-0 (a0) for Defragment"},
		"another one went down":          {on(now, failing("prod-2")), true, "It was not carried out. Members are defragmented one by one", ""},
		"another one, and itself":        {on(now, failing("prod-1"), failing("prod-2")), false, "", ""},
		"nobody asks any more":           {on(now, unasked), true, "Nobody asks for it any more.", ""},
		"nobody asks, and it is silent":  {on(now, unasked, failing("prod-1")), false, "", ""},
		"past the deadline of a restart": {on(now, failing("prod-1"), underWay(v1beta1.OperationDefragment, "prod-1", defaultDeadline)), false, "", ""},
		"past its deadline": {on(now, failing("prod-1"), underWay(v1beta1.OperationDefragment, "prod-1", defaultDeadline+cluster.MaxDefragmentTime)), true,
			"It did not finish within 13m0s. The pod of prod-1 has not failed, but its etcd does not answer.", ""},
		"its member was removed": {on(now, underWay(v1beta1.OperationDefragment, "prod-9", time.Minute)), true, "", ""},
	} {
		d := Next(c.cluster.Snapshot())
		if d.Finished != c.finished || !strings.HasPrefix(d.Abandoned, c.abandoned) || c.abandoned == "" && d.Abandoned != "" || actionText(d.Action) != c.action {
			t.Errorf("%s: finished %t, abandoned %q, action %q: %s", name, d.Finished, d.Abandoned, actionText(d.Action), d.Message)
		}
	}
}

func TestTheMemberLeadsThatAnAdministratorNames(t *testing.T) {
	moves := says{Rule: RuleMaintenance, Reason: v1beta1.ReasonMovingLeader, Progressing: true, Action: "move the leader from prod-0 to prod-2 (a2) for MoveLeader"}
	refused := says{Rule: RuleMaintenance, Reason: "MembersNotHealthy"}
	for name, c := range map[string]struct {
		cluster *Builder
		want    says
		message string
		problem string
	}{
		"a follower":              {asksForLeader("prod-2"), moves, "as the annotation operator.etcd-warden.io/move-leader asks", ""},
		"although another lags":   {asksForLeader("prod-2", lags("prod-1")), moves, "", ""},
		"not one that lags":       {asksForLeader("prod-2", lags("prod-2")), refused, "asks for the leader prod-2. The leadership moves only while all members are healthy voters and prod-2 has caught up. Waiting for prod-2.", ""},
		"not one that is silent":  {asksForLeader("prod-2", failing("prod-2")), refused, "Waiting for prod-2.", ""},
		"not while one is silent": {asksForLeader("prod-2", failing("prod-1")), refused, "Waiting for prod-1.", ""},
		"one that leads":          {asksForLeader("prod-0"), says{Reason: "UpToDate", Upkeep: []string{"remove " + v1beta1.MoveLeaderAnnotation}}, "", ""},
		"no member":               {asksForLeader("prod-9"), says{Reason: "UpToDate"}, "", `The annotation operator.etcd-warden.io/move-leader is "prod-9", and names no member. The leader stays. The members are prod-0, prod-1, prod-2.`},
		"nothing":                 {asksForLeader(""), says{Reason: "UpToDate"}, "", `is "", and names no member.`},
		"before a defragmentation": {
			asksForLeader("prod-2").Annotated(v1beta1.DefragmentAnnotation, "now"), moves, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(c.cluster.Snapshot())
			if diff := cmp.Diff(c.want, sayOf(d)); diff != "" {
				t.Errorf("wanted -, got +:\n%s\n%s", diff, d.Message)
			}
			if !strings.Contains(d.Message, c.message) {
				t.Errorf("the message is %q, want %q in it", d.Message, c.message)
			}
			told := ""
			for _, p := range d.Problems {
				told += p.Reason + ": " + p.Message
			}
			if (c.problem == "") != (told == "") || !strings.Contains(told, c.problem) {
				t.Errorf("told %q, want %q", told, c.problem)
			}
		})
	}
}

func TestAHandOverThatWasAskedForEnds(t *testing.T) {
	begun := underWay(v1beta1.OperationMoveLeader, "prod-0", time.Minute)
	for name, c := range map[string]struct {
		cluster   *Builder
		finished  bool
		abandoned string
		action    string
	}{
		"the member leads":     {asksForLeader("prod-2", begun, leads("prod-2")), true, "", ""},
		"another one leads":    {asksForLeader("prod-2", begun, leads("prod-1")), true, "", ""},
		"not yet":              {asksForLeader("prod-2", begun), false, "", "move the leader from prod-0 to prod-2 (a2) for MoveLeader"},
		"nobody leads":         {asksForLeader("prod-2", begun, leaderless), false, "", ""},
		"it went down":         {asksForLeader("prod-2", begun, failing("prod-2")), true, "It was not carried out. The annotation", ""},
		"the leader is wanted": {asksForLeader("prod-0", begun), true, "Nobody asks for it any more.", ""},
		"nobody is wanted":     {asksForLeader("", begun), true, "Nobody asks for it any more.", ""},
		"past its deadline":    {asksForLeader("prod-2", underWay(v1beta1.OperationMoveLeader, "prod-0", defaultDeadline)), true, "It did not finish within 10m0s.", ""},
	} {
		d := Next(c.cluster.Snapshot())
		if d.Finished != c.finished || !strings.HasPrefix(d.Abandoned, c.abandoned) || c.abandoned == "" && d.Abandoned != "" || actionText(d.Action) != c.action {
			t.Errorf("%s: finished %t, abandoned %q, action %q: %s", name, d.Finished, d.Abandoned, actionText(d.Action), d.Message)
		}
	}
}

func TestAPreviewTellsOfMaintenance(t *testing.T) {
	for name, c := range map[string]struct {
		cluster *Builder
		want    string
	}{
		"a defragmentation": {asksToDefragment(3, "now"), "1. Defragment prod-1. 2. Defragment prod-2. 3. Move the leader from prod-0 to prod-1. 4. Defragment prod-0." + thenDone},
		"one under way": {asksToDefragment(3, "now done: prod-1", underWay(v1beta1.OperationDefragment, "prod-2", time.Minute), failing("prod-2")),
			"1. Finish the operation Defragment of prod-2, which is under way. 2. Move the leader from prod-0 to prod-1. 3. Defragment prod-0." + thenDone},
		"a hand-over":     {asksForLeader("prod-2"), "1. Move the leader from prod-0 to prod-2." + thenDone},
		"one that begins": {asksForLeader("prod-2", underWay(v1beta1.OperationMoveLeader, "prod-0", time.Minute)), "1. Finish the operation MoveLeader of prod-0, which is under way." + thenDone},
	} {
		if got := Preview(c.cluster.Snapshot()); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
