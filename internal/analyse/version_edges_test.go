package analyse

import (
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

func startsVersion(d plan.Decision) string {
	a, ok := d.Action.(plan.RestartMember)
	if !ok || a.StatefulSet == nil {
		return ""
	}
	_, v, _ := strings.Cut(a.StatefulSet.Spec.Template.Spec.Containers[0].Image, ":v")
	return v
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

// The image has another version than the spec says (a moving tag, or a founding with a wrong tag: it is not looked
// at).
func TestMembersThatRunANewerMinorThanTheirTemplateSaysDoNotGoDownPlainly(t *testing.T) {
	for name, spec := range map[string]func(*v1beta1.EtcdClusterSpec){
		"a patch":            func(s *v1beta1.EtcdClusterSpec) { s.Version, s.Image.Tag = "3.6.17", "" },
		"the tag is removed": func(s *v1beta1.EtcdClusterSpec) { s.Image.Tag = "" },
	} {
		for _, inPod := range []bool{false, true} {
			s := foundedWithTag("v3.7.3", "3.7.3", spec)
			if inPod {
				s.OperatorImage = "operator"
				want := cluster.IntentOf(s.Cluster)
				s.ImageCheck = &cluster.ImageCheck{UID: "check", CreatedAt: Now, Version: want.Version, Target: cluster.ImageTarget(want)}
			}
			if d := Next(s); d.Action != nil {
				t.Errorf("%s, looked at %t: data of 3.7: %s starts %s: %s: %s", name, inPod, actionText(d.Action), startsVersion(d), d.Rule, d.Message)
			}
		}
	}
}

// The way out that the message advises, to its end: with the image that runs, by its tag or by its version.
func TestMembersThatRunAnotherMinorThanTheirTemplateSaysGoOnWithTheVersionThatRuns(t *testing.T) {
	for name, spec := range map[string]func(*v1beta1.EtcdClusterSpec){
		"the tag stays":      func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.7.3" },
		"the tag is removed": func(s *v1beta1.EtcdClusterSpec) { s.Version, s.Image.Tag = "3.7.3", "" },
		"another patch":      func(s *v1beta1.EtcdClusterSpec) { s.Version, s.Image.Tag = "3.7.4", "" },
	} {
		s := foundedWithTag("v3.7.3", "3.7.3", spec)
		actions, messages := carryOut(t, &s)
		if diff := cmp.Diff([]string{"roll prod-1", "roll prod-2", "move prod-0", "roll prod-0"}, actions); diff != "" {
			t.Errorf("%s: -want +got:\n%s\n%s", name, diff, strings.Join(messages, "\n"))
		}
		for i := range s.Members {
			if m := &s.Members[i]; m.Workload.Intent.Version != s.Cluster.Spec.Version || runsAnotherMinor(m) {
				t.Errorf("%s: the template of %s has %s", name, m.Name, m.Workload.Intent.Version)
			}
		}
	}
}

func TestMembersWhoseImageIsMislabelledRestartWithTheSameImage(t *testing.T) {
	s := foundedWithTag("v3.7.3", "3.7.3", memory("1Gi"))
	if d := Next(s); stepOf(d.Action) != "roll prod-1" || startsVersion(d) != "3.7.3" {
		t.Errorf("%s starts %q: %s", actionText(d.Action), startsVersion(d), d.Message)
	}
	s = foundedWithTag("v3.7.3", "3.7.3", func(s *v1beta1.EtcdClusterSpec) { memory("1Gi")(s); s.Image.Tag = "v3.6.16" })
	if d := Next(s); d.Action != nil {
		t.Errorf("data of 3.7: %s starts %q: %s", actionText(d.Action), startsVersion(d), d.Message)
	}
}

func foundedWithTag(tag, runs string, spec func(*v1beta1.EtcdClusterSpec)) cluster.Snapshot {
	b := MakeCluster("prod").Objects()
	b.Snapshot().Cluster.Spec.Image.Tag = tag
	return b.Members(Healthy).Later(readySince(time.Hour)).Later(tells(cluster.MinorOf(runs), cluster.MinorOf(runs), "")).Later(func(s *cluster.Snapshot) {
		for i := range s.Members {
			s.Members[i].Probe.Version = runs
		}
	}).LaterSpec(spec).Snapshot()
}

// The note stays when etcd itself ends a downgrade, so a later one of a user counts as the operator's.
func TestANoteOfADowngradeThatEtcdEndedIsTakenBack(t *testing.T) {
	over := func(s *cluster.Snapshot) bool {
		return slices.ContainsFunc(Next(*s).Upkeep, func(u plan.Upkeep) bool { _, is := u.(plan.ForgetDowngrade); return is })
	}
	rest := healthy(3).Later(readySince(time.Hour)).Later(notedAs("3.6")).Later(tells("3.6", "3.6", "")).Snapshot()
	if !over(&rest) {
		t.Error("the note of a downgrade that is over stays")
	}
	for name, change := range map[string]func(*cluster.Snapshot){
		"is enabled still":    tells("3.6", "3.6", "3.5"),
		"has a silent member": silent("prod-1"),
		"goes on":             func(s *cluster.Snapshot) { s.Cluster.Spec.Version = "3.5.35" },
		"was not noted":       notedAs(""),
	} {
		s := healthy(3).Later(readySince(time.Hour)).Later(notedAs("3.6")).Later(tells("3.6", "3.6", "")).Later(change).Snapshot()
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
		writes  string // into the template of prod-1
	}{
		"cancels":                                  {"3.6.16", both(enabled, templateAt("3.6.16", "prod-1"), silent("prod-2")), "cancel the downgrade by prod-0", old},
		"goes on once all answer":                  {"3.6.16", both(raised, templateAt("3.6.16", "prod-1")), "downgrade to 3.6 by prod-0", old},
		"a change of mind once all answer":         {"3.7.3", both(raised, templateAt("3.6.16", "prod-1")), "roll prod-1", ""}, // the roll writes it
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

// Frozen: a cancel is held.
func TestNoFreezeHoldsTheCancelOfADowngrade(t *testing.T) {
	s := on37(enabled, silent("prod-2"))
	s.Hold = &cluster.Hold{ByOperator: true}
	d := Next(*s)
	if d.Action == nil {
		t.Errorf("held: %s", d.Message)
	}
}

// The only member hangs with another version: it runs, and never answers. The user sets the old version back.
func TestTheOnlyMemberThatHangsWithAnotherVersionGoesBackWhenAsked(t *testing.T) {
	for _, version := range []string{"3.6.17", "3.7.3"} {
		s := healthy(1).Later(templateAt(version, "prod-0")).Later(func(s *cluster.Snapshot) {
			m := s.Member("prod-0")
			m.Pod.IntentHash = m.Workload.IntentHash
			m.Pod.CreatedAt, m.Pod.StartedAt = Now.Add(-time.Hour), Now.Add(-time.Hour)
			m.Workload.Live.Annotations[cluster.AnnotationOperation] = cluster.OperationMark(v1beta1.OperationRollMember, Now.Add(-time.Hour))
			m.Pod.PassesReadiness = false
			silent("prod-0")(s)
			s.Membership = nil
		}).Snapshot()
		s.Cluster.Spec.Version = version
		d := Next(s)
		t.Logf("%s, past the deadline: %s: %s %s", version, actionText(d.Action), d.Reason, d.Message)
		s.Cluster.Spec.Version = Version
		if d := Next(s); d.Action == nil {
			t.Errorf("%s, set back: %s: %s", version, d.Reason, d.Message)
		}
	}
}

// The last member of the old minor version has the new template, and its pod still runs the old one. The user
// sets the old version back: the member pins the version, so all go back by a roll.
func TestTheLastOldMemberWithTheNewTemplatePinsTheVersionStill(t *testing.T) {
	s := healthy(3).Later(readySince(time.Hour)).Later(rolledTo("3.7.3", "prod-0", "prod-2")).Later(templateAt("3.7.3", "prod-1")).Snapshot()
	if d := Next(s); d.Action == nil {
		t.Errorf("set back: %s: %s", d.Reason, d.Message)
	}
}

// The last member of a downgrade has its template, and its pod was not restarted.
func TestTheLastMemberOfADowngradeIsRestartedAlsoAfterItsOperationHasEnded(t *testing.T) {
	s := on37(enabled, rolledTo("3.6.16", "prod-1", "prod-2"), templateAt("3.6.16", "prod-0"))
	if d := Next(*s); d.Action == nil {
		t.Errorf("%s: %s", d.Reason, d.Message)
	}
}
