package analyse

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// on37 is a healthy cluster that works as etcd 3.7, and whose spec asks for 3.6.
func on37(changes ...func(*cluster.Snapshot)) *cluster.Snapshot {
	s := MakeCluster("prod").Version("3.7.3").Objects().Members(Healthy).Later(readySince(time.Hour)).Later(tells("3.7", "3.7", "")).
		LaterSpec(toVersion("3.6.16")).Later(both(changes...)).Snapshot()
	return &s
}

// tells has every member tell the version of the cluster, of its data, and the downgrade that is enabled, if any.
func tells(works, stores, target string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for i := range s.Members {
			p := *s.Members[i].Probe
			p.ClusterVersion, p.StorageVersion, p.DowngradeTarget, p.DowngradeEnabled = works, stores, target, target != ""
			s.Members[i].Probe = &p
		}
	}
}

func notedAs(target string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		service := s.PeerService.DeepCopy()
		metav1.SetMetaDataAnnotation(&service.ObjectMeta, cluster.AnnotationDowngrade, target)
		s.PeerService = service
	}
}

// enabled is a downgrade to 3.6 that the operator enabled, and for which all data are prepared.
var enabled = both(tells("3.6", "3.6", "3.6"), notedAs("3.6"))

func rolledTo(version string, names ...string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for _, name := range names {
			m := s.Member(name)
			m.Workload.Intent.Version = version
			m.Workload.Intent = m.Workload.Intent.Canonical()
			_, m.Workload.IntentHash = m.Workload.Intent.Encode()
			m.Workload.HealthyIntent = &m.Workload.Intent
			m.Pod.IntentHash = m.Workload.IntentHash
			p := *m.Probe
			p.Version, m.Probe = version, &p
		}
	}
}

// cameUp has the last member be ready for so long.
func cameUp(ago time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Members[len(s.Members)-1].Pod.ReadySince = s.Now.Add(-ago) }
}

func TestADowngradeTakesItsSteps(t *testing.T) {
	const claim, cancel = "downgrade to 3.6 by prod-0", "cancel the downgrade by prod-0"
	for name, c := range map[string]struct {
		s      *cluster.Snapshot
		action string
		reason string
	}{
		"enables it":                     {on37(), claim, v1beta1.ReasonDowngrading},
		"waits for the cluster version":  {on37(tells("3.7", "3.6", "3.6"), notedAs("3.6"), cameUp(time.Minute)), "", v1beta1.ReasonDowngrading},
		"waits for the data":             {on37(tells("3.6", "3.7", "3.6"), notedAs("3.6"), cameUp(time.Minute)), "", v1beta1.ReasonDowngrading},
		"waits for every member":         {on37(enabled, func(s *cluster.Snapshot) { s.Member("prod-2").Probe.StorageVersion = "3.7" }, cameUp(time.Minute)), "", v1beta1.ReasonDowngrading},
		"rolls followers first":          {on37(enabled), "roll prod-1", v1beta1.ReasonDowngrading},
		"hands the leader over":          {on37(enabled, rolledTo("3.6.16", "prod-1", "prod-2")), "move prod-0", v1beta1.ReasonDowngrading},
		"waits for etcd to end it":       {on37(enabled, rolledTo("3.6.16", "prod-0", "prod-1", "prod-2"), cameUp(time.Minute)), "", v1beta1.ReasonDowngrading},
		"is at rest":                     {on37(tells("3.6", "3.6", ""), notedAs("3.6"), rolledTo("3.6.16", "prod-0", "prod-1", "prod-2")), "", v1beta1.ReasonUpToDate},
		"cancels after a change of mind": {on37(enabled, func(s *cluster.Snapshot) { s.Cluster.Spec.Version = "3.7.3" }), cancel, v1beta1.ReasonCancellingDowngrade},
		"cancels where a member is lost": {on37(enabled, silent("prod-2")), cancel, v1beta1.ReasonCancellingDowngrade},
		"cancels where a user removed one of three voters": {on37(enabled, func(s *cluster.Snapshot) {
			s.Members, s.Membership.Members = s.Members[:2], s.Membership.Members[:2]
		}), cancel, v1beta1.ReasonCancellingDowngrade},
		"rolls plainly where a voter has it":    {on37(tells("3.6", "3.6", ""), rolledTo("3.6.16", "prod-2")), "roll prod-1", v1beta1.ReasonDowngrading},
		"does not begin beside a silent member": {on37(silent("prod-2")), "", v1beta1.ReasonMembersNotHealthy},
		"does not begin while an alarm is active": {on37(func(s *cluster.Snapshot) {
			s.Membership.Alarms = []cluster.Alarm{{Kind: cluster.AlarmNoSpace}}
		}), "", v1beta1.ReasonMembersNotHealthy},
		"reports another's":                     {on37(tells("3.6", "3.6", "3.6")), "", v1beta1.ReasonForeignDowngrade},
		"reports another's to another version":  {on37(tells("3.6", "3.6", "3.6"), notedAs("3.5")), "", v1beta1.ReasonForeignDowngrade},
		"reports another's without a change":    {on37(tells("3.6", "3.6", "3.6"), func(s *cluster.Snapshot) { s.Cluster.Spec.Version = "3.7.3" }), "", v1beta1.ReasonForeignDowngrade},
		"goes down one minor version at a time": {on37(func(s *cluster.Snapshot) { s.Cluster.Spec.Version = "3.5.35" }), "", v1beta1.ReasonVersionSkipped},
		"goes down one at a time, a mixed cluster too": {on37(rolledTo("3.6.16", "prod-1"), tells("3.6", "3.6", ""), func(s *cluster.Snapshot) {
			s.Cluster.Spec.Version = "3.5.35"
		}), "", v1beta1.ReasonVersionSkipped},
		"rolls within a minor version":            {on37(func(s *cluster.Snapshot) { s.Cluster.Spec.Version = "3.7.1" }), "roll prod-1", v1beta1.ReasonUpgrading},
		"waits until etcd allows it":              {on37(tells("3.6", "3.6", ""), cameUp(time.Minute)), "", v1beta1.ReasonDowngrading},
		"waits for a leader before it enables it": {on37(leaderless), "", v1beta1.ReasonMembersNotHealthy},
	} {
		d := Next(*c.s)
		if got := stepOf(d.Action); got != c.action || d.Reason != c.reason {
			t.Errorf("%s: %q, %s: %s", name, got, d.Reason, d.Message)
		}
	}
}

func TestACancelledDowngradeTellsWhatToDoAboutTheLostMember(t *testing.T) {
	d := Next(*on37(enabled, crashing("prod-2", time.Hour)))
	if want := "prod-2 does not answer, so the downgrade to etcd 3.6 is cancelled. The pod of prod-2 does not run (CrashLooping): "; !strings.HasPrefix(d.Message, want) ||
		!strings.HasSuffix(d.Message, " Bring it back: then the downgrade is enabled again.") {
		t.Errorf("it is cancelled: %s", d.Message)
	}
	if d := Next(*on37(silent("prod-2"))); !strings.HasSuffix(d.Message, "Waiting for prod-2. "+seeMembers) {
		t.Errorf("it waits: %s", d.Message)
	}
}

func leaderless(s *cluster.Snapshot) {
	for i := range s.Members {
		p := *s.Members[i].Probe
		p.Leader, p.Linearizable, s.Members[i].Probe = 0, false, &p
	}
}

func stepOf(a plan.Action) string {
	if a == nil {
		return ""
	}
	if change, ok := a.(plan.ChangeDowngrade); ok {
		return actionText(change)
	}
	return strings.Fields(actionText(a))[0] + " " + a.Member()
}

func TestADowngradeIsClaimedUntilItsDataArePrepared(t *testing.T) {
	s := on37()
	d := Next(*s)
	claim(s, d)
	if d.Claim == nil || d.Claim.Type != v1beta1.OperationDowngrade || d.Claim.Member != "" {
		t.Fatalf("claims %+v", d.Claim)
	}
	if again := Next(*s); actionText(again.Action) != actionText(d.Action) || again.Finished {
		t.Errorf("after a crash: %s: %s", actionText(again.Action), again.Message)
	}
	both(tells("3.7", "3.7", "3.6"), notedAs("3.6"))(s)
	if d := Next(*s); d.Action != nil || d.Finished {
		t.Errorf("while etcd prepares: %s: %s", actionText(d.Action), d.Message)
	}
	s.Cluster.Spec.Version = "3.7.3"
	if d := Next(*s); !d.Finished || d.Abandoned == "" {
		t.Errorf("a change of mind: %s", d.Message)
	}
	s.Cluster.Spec.Version = "3.6.16"
	enabled(s)
	if d := Next(*s); !d.Finished || d.Abandoned != "" {
		t.Errorf("once all are prepared: %s", d.Message)
	}
}

// While a downgrade is enabled, no member joins: it is not waited for without an end.
func TestADowngradeThatEtcdDoesNotFinishIsCancelledAtItsDeadline(t *testing.T) {
	begun := func(ago time.Duration, changes ...func(*cluster.Snapshot)) *cluster.Snapshot {
		s := on37()
		claim(s, Next(*s))
		s.Now = s.Now.Add(ago)
		both(tells("3.6", "3.7", "3.6"), notedAs("3.6"), both(changes...))(s)
		return s
	}
	if d := Next(*begun(defaultDeadline - 1)); d.Action != nil || d.Finished {
		t.Errorf("before the deadline: %s: %s", actionText(d.Action), d.Message)
	}
	s := begun(defaultDeadline)
	if d := Next(*s); d.Finished || stepOf(d.Action) != "cancel the downgrade by prod-0" || !strings.Contains(d.Message, "prod-0 did not prepare its data for etcd 3.6 within 10m0s") {
		t.Errorf("at the deadline: %s: finished %v: %s", actionText(d.Action), d.Finished, d.Message)
	}
	// Another operator may enable it a moment later.
	if notes := Next(*s).Action.(plan.ChangeDowngrade).Notes; len(notes) > 0 {
		t.Errorf("at the deadline: the note of the downgrade is changed: %v", notes)
	}
	tells("3.7", "3.7", "")(s)
	if d := Next(*s); !d.Finished || d.Abandoned == "" || d.Action != nil {
		t.Errorf("once it is cancelled: %s: finished %v: %s", actionText(d.Action), d.Finished, d.Message)
	}
	for name, change := range map[string]func(*cluster.Snapshot){
		"a leader that nobody knows": leaderless,
		"another's downgrade":        notedAs("3.5"),
	} {
		if d := Next(*begun(defaultDeadline, change)); !d.Finished || d.Abandoned == "" {
			t.Errorf("%s: the claim stays: %s: %s", name, actionText(d.Action), d.Message)
		}
	}
	enabled(s)
	if d := Next(*s); !d.Finished || d.Abandoned != "" {
		t.Errorf("data that are prepared late: %s: %s", d.Abandoned, d.Message)
	}
}

// TestTheLogIsRenewedBeforeEtcd37 holds the way of a cluster that may have entries of etcd 3.5 in its log.
func TestTheLogIsRenewedBeforeEtcd37(t *testing.T) {
	note := func(value string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			service := s.PeerService.DeepCopy()
			metav1.SetMetaDataAnnotation(&service.ObjectMeta, cluster.AnnotationLogRenewal, value)
			s.PeerService = service
		}
	}
	begun := both(note(cluster.LogRenewalBegun), notedAs("3.5"))
	const cancel = "cancel the downgrade by prod-0"
	for name, c := range map[string]struct {
		version string
		change  func(*cluster.Snapshot)
		action  string
		reason  string
	}{
		"enables a downgrade":                  {"3.7.3", note(""), "downgrade to 3.5 by prod-0", v1beta1.ReasonRenewingLog},
		"waits":                                {"3.7.3", both(begun, tells("3.6", "3.6", "3.5"), cameUp(time.Minute)), "", v1beta1.ReasonRenewingLog},
		"waits for every member":               {"3.7.3", both(begun, tells("3.5", "3.6", "3.5"), cameUp(time.Minute)), "", v1beta1.ReasonRenewingLog},
		"cancels it":                           {"3.7.3", both(begun, tells("3.5", "3.5", "3.5")), cancel, v1beta1.ReasonCancellingDowngrade},
		"waits until etcd allows it":           {"3.7.3", both(note(""), tells("3.5", "3.5", ""), cameUp(time.Minute)), "", v1beta1.ReasonUpgrading},
		"waits until the version is back":      {"3.7.3", both(note(cluster.LogRenewalDone), tells("3.5", "3.5", ""), cameUp(time.Minute)), "", v1beta1.ReasonUpgrading},
		"rolls":                                {"3.7.3", both(note(cluster.LogRenewalDone), tells("3.6", "3.6", "")), "roll prod-1", v1beta1.ReasonUpgrading},
		"begins again where it was cancelled":  {"3.7.3", begun, "downgrade to 3.5 by prod-0", v1beta1.ReasonRenewingLog},
		"cancels it after a change of mind":    {"3.6.16", both(begun, tells("3.6", "3.6", "3.5")), cancel, v1beta1.ReasonCancellingDowngrade},
		"cancels it where a member is silent":  {"3.7.3", both(begun, tells("3.6", "3.6", "3.5"), silent("prod-2")), cancel, v1beta1.ReasonCancellingDowngrade},
		"does not begin with a silent member":  {"3.7.3", both(note(""), silent("prod-2")), "", v1beta1.ReasonMembersNotHealthy},
		"is not needed for a patch":            {"3.6.17", note(""), "roll prod-1", v1beta1.ReasonUpgrading},
		"is not asked of members of etcd 3.7":  {"3.7.3", both(note(""), rolledTo("3.7.3", "prod-1")), "roll prod-2", v1beta1.ReasonUpgrading},
		"cancels one that was enabled late":    {"3.6.16", both(note(cluster.LogRenewalDone), notedAs("3.5"), tells("3.6", "3.6", "3.5")), cancel, v1beta1.ReasonCancellingDowngrade},
		"goes on where the operator had ended": {"3.7.3", both(note(cluster.LogRenewalDone), notedAs("3.5"), tells("3.5", "3.5", "3.5")), cancel, v1beta1.ReasonCancellingDowngrade},
	} {
		s := healthy(3).LaterSpec(toVersion(c.version)).Later(readySince(time.Hour)).Later(c.change).Snapshot()
		d := Next(s)
		if got := stepOf(d.Action); got != c.action || d.Reason != c.reason {
			t.Errorf("%s: %q, %s: %s", name, got, d.Reason, d.Message)
		}
		a, _ := d.Action.(plan.ChangeDowngrade)
		if done := a.Notes[cluster.AnnotationLogRenewal] == cluster.LogRenewalDone; done != (name == "cancels it") {
			t.Errorf("%s: notes %v", name, a.Notes)
		}
	}
}

func TestNoMemberJoinsWhileADowngradeIsEnabled(t *testing.T) {
	s := on37(enabled, func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = 5 })
	if d := Next(*s); d.Rule != RuleUpgrade || stepOf(d.Action) != "roll prod-1" {
		t.Errorf("the downgrade is not finished first: %s: %s: %s", d.Rule, actionText(d.Action), d.Message)
	}
	s = on37(tells("3.6", "3.6", "3.6"), func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = 5 })
	if d := Next(*s); d.Rule != RuleScale || d.Action != nil || d.Reason != v1beta1.ReasonForeignDowngrade {
		t.Errorf("growth beside a foreign downgrade: %s: %s: %s", d.Rule, actionText(d.Action), d.Message)
	}
	s = on37(tells("3.6", "3.6", "3.6"), func(s *cluster.Snapshot) { s.Cluster.Spec.Version = "3.7.3"; memory("1Gi")(&s.Cluster.Spec) })
	if d := Next(*s); d.Action != nil || d.Reason != v1beta1.ReasonForeignDowngrade {
		t.Errorf("a roll beside a foreign downgrade: %s: %s", actionText(d.Action), d.Message)
	}
}

// No operation is claimed while etcd does its part by itself, so none ends the wait.
func TestEveryWaitForWhatEtcdDoesByItselfHasADeadline(t *testing.T) {
	isAtWork := func(since time.Duration) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			s.Cluster = s.Cluster.DeepCopy()
			s.Cluster.Status.Conditions = []metav1.Condition{{
				Type: v1beta1.ConditionProgressing, Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.Now.Add(-since)),
			}}
		}
	}
	on36 := func(changes ...func(*cluster.Snapshot)) *cluster.Snapshot {
		s := healthy(3).LaterSpec(toVersion("3.7.3")).Later(readySince(time.Hour)).Later(both(changes...)).Snapshot()
		return &s
	}
	renewal := func(s *cluster.Snapshot) {
		service := s.PeerService.DeepCopy()
		metav1.SetMetaDataAnnotation(&service.ObjectMeta, cluster.AnnotationLogRenewal, cluster.LogRenewalBegun)
		s.PeerService = service
	}
	const cancel = "cancel the downgrade by prod-0"
	all := rolledTo("3.6.16", "prod-0", "prod-1", "prod-2")
	for name, c := range map[string]struct {
		from   func(...func(*cluster.Snapshot)) *cluster.Snapshot
		change func(*cluster.Snapshot)
		action string // at the deadline
		reason string
		says   []string
	}{
		"etcd does not end it": {on37, both(enabled, all), cancel, v1beta1.ReasonCancellingDowngrade, []string{
			"etcd itself did not end the downgrade to etcd 3.6 within 10m0s, so the downgrade is cancelled. What the members tell: prod-0 is etcd 3.6.16, " +
				"and tells 3.6 as the version of the cluster and 3.6 as that of its data; prod-1", "The log of the leader, prod-0, tells what etcd waits for."}},
		"the data are not prepared": {on37, both(tells("3.6", "3.7", "3.6"), notedAs("3.6")), cancel, v1beta1.ReasonCancellingDowngrade, []string{
			"prod-0 did not prepare its data for etcd 3.6 within 10m0s", "and 3.7 as that of its data", "To stay with what runs, set spec.version back."}},
		"the log is not renewed": {on36, both(renewal, notedAs("3.5"), tells("3.6", "3.6", "3.5")), cancel, v1beta1.ReasonCancellingDowngrade, []string{
			"prod-0 did not write a snapshot of its log within 10m0s"}},
		"the version of the cluster stays low after a cancel": {on36, tells("3.5", "3.5", ""), "", v1beta1.ReasonDeadlineExceeded, []string{
			"No member restarts with etcd 3.7.3: the cluster did not come to work as etcd 3.6 within 10m0s.", "tells 3.5 as the version of the cluster",
			"Delete pod prod-0-0: the next leader compares the versions at once. Or set spec.version back"}},
		"the version of the cluster stays low before a downgrade": {on37, tells("3.6", "", ""), "", v1beta1.ReasonDeadlineExceeded, []string{
			"the cluster did not come to work as etcd 3.7 within 10m0s.", "and none as that of its data"}},
	} {
		for when, early := range map[string]func(*cluster.Snapshot){
			"a member came up a moment ago":    cameUp(defaultDeadline - 1),
			"the operator began a moment ago":  isAtWork(defaultDeadline - 1),
			"a container started a moment ago": func(s *cluster.Snapshot) { s.Member("prod-1").Pod.StartedAt = s.Now.Add(1 - defaultDeadline) },
			"the deadline of the spec is later": func(s *cluster.Snapshot) {
				s.Cluster.Spec.UpdateStrategy = &v1beta1.UpdateStrategy{ProgressDeadlineSeconds: 7200}
			},
		} {
			if d := Next(*c.from(c.change, early)); d.Action != nil || len(d.Refusals) > 0 || !d.Progressing {
				t.Errorf("%s, %s: %s, %s: %s", name, when, actionText(d.Action), d.Reason, d.Message)
			}
		}
		s := c.from(c.change, isAtWork(defaultDeadline))
		d := Next(*s)
		if stepOf(d.Action) != c.action || d.Reason != c.reason {
			t.Errorf("%s: %q, %s: %s", name, stepOf(d.Action), d.Reason, d.Message)
		}
		for _, text := range c.says {
			if !strings.Contains(d.Message, text) {
				t.Errorf("%s: it does not say %q: %s", name, text, d.Message)
			}
		}
		if refusals := UpgradeRefusals(s); c.action == "" && (len(refusals) != 1 || refusals[0].Message != d.Message) {
			t.Errorf("%s: UpgradeBlocked has %+v", name, refusals)
		}
	}
	s := on37(enabled, all)
	claim(s, Next(*s))
	tells("3.6", "3.6", "")(s)
	d := Next(*s)
	if claim(s, plan.Decision{}); !d.Finished || Next(*s).Action != nil || Next(*s).Reason != v1beta1.ReasonUpToDate {
		t.Errorf("once it is cancelled: %s: %s", Next(*s).Reason, Next(*s).Message)
	}
}

// Any earlier roll back at size 1 (of a template, months ago) makes a failed member go down without a downgrade.
func TestAnEarlierRollBackDoesNotSkipTheDowngradeOfTheOnlyMember(t *testing.T) {
	s := MakeCluster("prod").Replicas(1).Version("3.7.3").Objects().Members(Healthy).Later(readySince(time.Hour)).Later(tells("3.7", "3.7", "")).
		LaterSpec(toVersion("3.6.16")).Later(crashing0("prod-0")).Later(func(s *cluster.Snapshot) {
		s.Member("prod-0").Workload.Live.Annotations[cluster.AnnotationOperation] = cluster.OperationMark(v1beta1.OperationRollBack, Now.Add(-1000*time.Hour))
	}).Snapshot()
	if d := Next(s); d.Action != nil {
		t.Errorf("data of 3.7: %s starts %s: %s", actionText(d.Action), startsVersion(d), d.Message)
	}
}

// The same skips the renewal of the log on the way up.
func TestAnEarlierRollBackDoesNotSkipTheLogRenewal(t *testing.T) {
	s := healthy(1).LaterSpec(toVersion("3.7.3")).Later(crashing0("prod-0")).Later(func(s *cluster.Snapshot) {
		live := s.Member("prod-0").Workload.Live
		live.Annotations[cluster.AnnotationOperation] = cluster.OperationMark(v1beta1.OperationRollBack, Now.Add(-1000*time.Hour))
	}).Snapshot()
	if d := Next(s); d.Action != nil {
		t.Errorf("a log that was never renewed: %s starts %s: %s", actionText(d.Action), startsVersion(d), d.Message)
	}
}

// The note stays when etcd itself ends a downgrade, so a later one of a user counts as the operator's.
func TestANoteOfADowngradeThatEtcdEndedIsTakenBack(t *testing.T) {
	over := func(s *cluster.Snapshot) bool {
		return slices.ContainsFunc(Next(*s).Upkeep, func(u plan.Upkeep) bool {
			n, is := u.(plan.NotePeers)
			_, isTaken := n.Notes[cluster.AnnotationDowngrade]
			return is && isTaken
		})
	}
	idleFor := func(d time.Duration) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			s.Cluster.Status.Conditions = []metav1.Condition{{
				Type: v1beta1.ConditionProgressing, Status: metav1.ConditionFalse, LastTransitionTime: metav1.NewTime(s.Now.Add(-d)),
			}}
		}
	}
	rest := healthy(3).Later(readySince(time.Hour)).Later(notedAs("3.6")).Later(tells("3.6", "3.6", "")).Later(idleFor(keepsDowngradeNote)).Snapshot()
	if !over(&rest) {
		t.Error("the note of a downgrade that is over stays")
	}
	for name, change := range map[string]func(*cluster.Snapshot){
		"is enabled still":    tells("3.6", "3.6", "3.5"),
		"has a silent member": silent("prod-1"),
		"goes on":             func(s *cluster.Snapshot) { s.Cluster.Spec.Version = "3.5.35" },
		"was not noted":       notedAs(""),
		"ended a moment ago":  idleFor(keepsDowngradeNote - 1),
		"has never ended":     func(s *cluster.Snapshot) { s.Cluster.Status.Conditions = nil },
	} {
		s := healthy(3).Later(readySince(time.Hour)).Later(notedAs("3.6")).Later(tells("3.6", "3.6", "")).Later(idleFor(keepsDowngradeNote)).Later(change).Snapshot()
		if over(&s) {
			t.Errorf("the note of a downgrade is taken back which %s", name)
		}
	}
}

// templateOf has a member's template at a version while its pod still runs what it did.
func templateAt(version, name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m := s.Member(name)
		w := *m.Workload
		healthy := w.Intent
		w.HealthyIntent = &healthy
		w.Intent.Version = version
		w.Intent = w.Intent.Canonical()
		_, w.IntentHash = w.Intent.Encode()
		w.Live = w.Live.DeepCopy()
		text, hash := w.Intent.Encode()
		w.Live.Annotations[cluster.AnnotationIntent], w.Live.Annotations[cluster.AnnotationIntentHash] = text, hash
		w.Live.Annotations[cluster.AnnotationOperation] = cluster.OperationMark(v1beta1.OperationRollMember, Now.Add(-time.Minute))
		m.Workload = &w
	}
}

// writesImage returns the image that upkeep writes into the template of a member; empty where it writes none.
func writesImage(d plan.Decision, member string) string {
	image := ""
	for _, u := range d.Upkeep {
		if u, ok := u.(plan.UpdateStatefulSet); ok && u.Desired.Name == member {
			image = u.Desired.Spec.Template.Spec.Containers[0].Image
		}
	}
	return image
}

// The template of prod-1 is 3.6.16, its pod 3.7.3: the eviction was refused. prod-2 is drained.
func TestATemplateThatIsOlderThanItsPodIsTakenBackBeforeTheDowngradeIsCancelled(t *testing.T) {
	const old = "gcr.io/etcd-development/etcd:v3.7.3"
	raised := tells("3.7", "3.7", "")
	for name, c := range map[string]struct {
		version string
		change  func(*cluster.Snapshot)
		action  string
		writes  string // by upkeep, into the template of prod-1
	}{
		"cancels":                                  {"3.6.16", both(enabled, templateAt("3.6.16", "prod-1"), silent("prod-2")), "cancel the downgrade by prod-0", old},
		"goes on once all answer":                  {"3.6.16", both(raised, templateAt("3.6.16", "prod-1")), "downgrade to 3.6 by prod-0", old},
		"a change of mind once all answer":         {"3.7.3", both(raised, templateAt("3.6.16", "prod-1")), "roll prod-1", ""},
		"while the downgrade is enabled, it stays": {"3.6.16", both(enabled, templateAt("3.6.16", "prod-1")), "roll prod-1", ""},
	} {
		s := on37(c.change)
		s.Cluster.Spec.Version = c.version
		d := Next(*s)
		if got := stepOf(d.Action); got != c.action || writesImage(d, "prod-1") != c.writes {
			t.Errorf("%s: %q, and writes %q: %s", name, got, writesImage(d, "prod-1"), d.Message)
		}
		if c.action == "roll prod-1" && startsVersion(d) != c.version {
			t.Errorf("%s: starts %q", name, startsVersion(d))
		}
	}
}

// A downgrade is enabled while a member is silent.
func TestADowngradeIsNotEnabledBesideASilentMember(t *testing.T) {
	s := on37(tells("3.7", "3.7", ""), templateAt("3.6.16", "prod-1"), crashing0("prod-2"))
	d := Next(*s)
	if d.Action != nil {
		t.Errorf("%s: %s", stepOf(d.Action), d.Message)
	}
}

// Frozen: a cancel is held.
func TestNoFreezeHoldsTheCancelOfADowngrade(t *testing.T) {
	s := on37(enabled, silent("prod-2"))
	s.Hold = &cluster.Hold{ByOperator: true}
	d := Next(*s)
	if d.Action == nil {
		t.Errorf("held: %s", d.Message)
	}
}

// The last member of a downgrade has its template, and its pod was not restarted.
func TestTheLastMemberOfADowngradeIsRestartedAlsoAfterItsOperationHasEnded(t *testing.T) {
	s := on37(enabled, rolledTo("3.6.16", "prod-1", "prod-2"), templateAt("3.6.16", "prod-0"))
	if d := Next(*s); d.Action == nil {
		t.Errorf("%s: %s", d.Reason, d.Message)
	}
}
