package analyse

import (
	"slices"
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

func toVersion(v string) func(*v1beta1.EtcdClusterSpec) {
	return func(s *v1beta1.EtcdClusterSpec) { s.Version = v }
}

// readySince has every member ready for so long, in a cluster that works as etcd 3.6 and whose log was renewed.
func readySince(ago time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for i := range s.Members {
			s.Members[i].Pod.ReadySince = Now.Add(-ago)
			s.Members[i].Probe.ClusterVersion = "3.6"
		}
		service := s.PeerService.DeepCopy()
		metav1.SetMetaDataAnnotation(&service.ObjectMeta, cluster.AnnotationLogRenewal, cluster.LogRenewalDone)
		s.PeerService = service
	}
}

func TestAnUpgradeRollsFollowersFirstAndTheLeaderLastAfterItHandedOver(t *testing.T) {
	for _, version := range []string{"3.6.17", "3.7.3"} {
		s := healthy(3).LaterSpec(toVersion(version)).Later(func(s *cluster.Snapshot) { lead(s, "prod-1") }).Later(readySince(time.Hour)).Snapshot()
		actions, messages := carryOut(t, &s)
		if diff := cmp.Diff([]string{"roll prod-0", "roll prod-2", "move prod-1", "roll prod-1"}, actions); diff != "" {
			t.Fatalf("%s: -want +got:\n%s\n%s", version, diff, strings.Join(messages, "\n"))
		}
		if told := strings.Join(messages, "\n"); strings.Count(told, " to run etcd "+version+". ") < 4 {
			t.Errorf("the version is not told:\n%s", told)
		}
		for i := range s.Members {
			if got := s.Members[i].Workload.Intent.Version; got != version {
				t.Errorf("%s runs %s", s.Members[i].Name, got)
			}
		}
		if last := messages[len(messages)-1]; !strings.HasPrefix(last, "Nothing to change") {
			t.Error(last)
		}
	}
}

func TestSizeVersionAndTemplateOfOneEditAreDoneInTheOrderOfTheRules(t *testing.T) {
	s := healthy(3).LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
		s.Version, s.Image.Tag = "3.6.17", "v3.6.17-vendor"
		memory("1Gi")(s)
	}).Snapshot()
	d := Next(s)
	if d.Rule != RuleUpgrade {
		t.Fatalf("%s comes first: %s", d.Rule, d.Message)
	}
	claim(&s, d)
	writeTemplate(t, &s, d)
	if got := s.Member("prod-1").Workload.Intent; got.Version != "3.6.17" || got.Tag != "v3.6.17-vendor" || !got.Limits.Memory().IsZero() {
		t.Errorf("the upgrade writes %+v", got)
	}
	s = healthy(3).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version, s.Replicas = "3.7.3", 5 }).Snapshot()
	if d := Next(s); d.Rule != RuleScale {
		t.Errorf("%s comes before the growth: %s", d.Rule, d.Message)
	}
}

func TestWhatBlocksAnUpgradeIsToldByNameAndTouchesNothing(t *testing.T) {
	none := func(*cluster.Snapshot) {}
	for name, c := range map[string]struct {
		version string
		change  func(*cluster.Snapshot)
		reason  string
		says    string
	}{
		"a minor version that is skipped": {"3.8.0", none, v1beta1.ReasonUnsupportedVersion, "3.7 from 3.7.0 on"},
		"a version below a floor":         {"3.6.11", none, v1beta1.ReasonUnsupportedVersion, "Write 3.6.12 or a later patch."},
		"no version":                      {"3.6", none, v1beta1.ReasonUnsupportedVersion, "is no version"},
		"an alarm": {"3.7.3", func(s *cluster.Snapshot) {
			s.Membership.Alarms = []cluster.Alarm{{Kind: cluster.AlarmNoSpace}}
		}, v1beta1.ReasonAlarmActive, "NOSPACE"},
		"a member that is down":          {"3.7.3", silent("prod-2"), v1beta1.ReasonMembersNotHealthy, "prod-2"},
		"a member that has failed":       {"3.7.3", crashing("prod-2", time.Hour), v1beta1.ReasonMembersNotHealthy, "prod-2"},
		"a patch, a member that is down": {"3.6.17", silent("prod-2"), v1beta1.ReasonMembersNotHealthy, "prod-2"},
		"an image with another version":  {"3.7.3", checked("3.7.2", ""), v1beta1.ReasonImageNotUsable, "has etcd 3.7.2, and spec.version is 3.7.3"},
		"an image that cannot be pulled": {"3.7.3", checked("", "image x cannot be pulled"), v1beta1.ReasonImageNotUsable, "image x cannot be pulled"},
	} {
		s := healthy(3).LaterSpec(toVersion(c.version)).Later(readySince(time.Hour)).Later(c.change).Snapshot()
		d := Next(s)
		told := UpgradeRefusals(&s)
		if d.Action != nil || d.Rule != RuleUpgrade || d.Progressing {
			t.Errorf("%s: %s does %s: %s", name, d.Rule, actionText(d.Action), d.Message)
		}
		if !slices.ContainsFunc(told, func(r plan.Refusal) bool { return r.Reason == c.reason && strings.Contains(r.Message, c.says) }) {
			t.Errorf("%s: told %+v", name, told)
		}
	}
}

func TestAVersionThatSkipsAMinorNamesTheOneToGoToFirst(t *testing.T) {
	s := MakeCluster("prod").Version("3.5.35").Objects().Members(Healthy).LaterSpec(toVersion("3.7.3")).Snapshot()
	d := Next(s)
	want := "prod-0 runs etcd 3.5.35, and spec.version is 3.7.3. etcd goes up one minor version at a time. Set spec.version to " +
		cluster.TestedVersion("3.6") + " first."
	if d.Reason != v1beta1.ReasonVersionSkipped || d.Message != want || d.Action != nil {
		t.Errorf("%s: %s", d.Reason, d.Message)
	}
}

// checked has the pod that looks at the image of the spec say a version, or fail.
func checked(version, failure string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		s.OperatorImage = "operator"
		s.ImageCheck = &cluster.ImageCheck{
			UID: "check", CreatedAt: Now.Add(-time.Minute), Version: version, Failure: failure,
			Target: cluster.ImageTarget(versionTarget(s, s.Member("prod-1"))),
		}
	}
}

func makesImageCheck(d plan.Decision) bool {
	return slices.ContainsFunc(d.Upkeep, func(u plan.Upkeep) bool {
		apply, ok := u.(plan.Apply)
		return ok && apply.Desired.GetName() == cluster.ImageCheckPodName("prod")
	})
}

func TestTheImageIsLookedAtBeforeTheFirstMemberRolls(t *testing.T) {
	inPod := func(s *cluster.Snapshot) { s.OperatorImage = "operator" }
	for name, c := range map[string]struct {
		change func(*cluster.Snapshot)
		action string
		upkeep string
		reason string
	}{
		"makes the pod":                     {inPod, "", "*plan.Apply image-check", v1beta1.ReasonCheckingImage},
		"waits for it":                      {checked("", ""), "", "", v1beta1.ReasonCheckingImage},
		"rolls":                             {checked("3.7.3", ""), "roll prod-1", "", v1beta1.ReasonUpgrading},
		"keeps one that failed":             {checked("", "it crashed"), "", "", v1beta1.ReasonImageNotUsable},
		"makes none while a member is down": {both(inPod, silent("prod-2")), "", "", v1beta1.ReasonMembersNotHealthy},
		"makes none where it does not run in one": {func(*cluster.Snapshot) {}, "roll prod-1", "", v1beta1.ReasonUpgrading},
		"makes another for another image": {both(checked("3.7.3", ""), func(s *cluster.Snapshot) { s.ImageCheck.Target = "another" }),
			"", "delete", v1beta1.ReasonCheckingImage},
		"looks again some minutes after a failure": {both(checked("", "no"), func(s *cluster.Snapshot) { s.ImageCheck.CreatedAt = Now.Add(-imageCheckRetry) }),
			"", "delete", v1beta1.ReasonImageNotUsable},
		"waits until one that was deleted has gone": {both(checked("", "its pod ended"), func(s *cluster.Snapshot) { s.ImageCheck.Deleting = true }),
			"", "", v1beta1.ReasonCheckingImage},
		"deletes one again whose node does not let it go": {both(checked("", ""), func(s *cluster.Snapshot) {
			s.ImageCheck.Deleting, s.ImageCheck.CreatedAt = true, Now.Add(-imageCheckRetry)
		}), "", "delete", v1beta1.ReasonCheckingImage},
		"but not one that a finalizer keeps": {both(checked("", ""), func(s *cluster.Snapshot) {
			s.ImageCheck.Deleting, s.ImageCheck.Forced, s.ImageCheck.CreatedAt = true, true, Now.Add(-imageCheckRetry)
		}), "", "", v1beta1.ReasonCheckingImage},
		"deletes it once it is not needed": {both(checked("3.7.3", ""), func(s *cluster.Snapshot) { s.Cluster.Spec.Version = Version }),
			"", "delete", v1beta1.ReasonUpToDate},
	} {
		s := healthy(3).LaterSpec(toVersion("3.7.3")).Later(readySince(time.Hour)).Later(c.change).Snapshot()
		d := Next(s)
		action := ""
		if d.Action != nil {
			action = strings.Fields(actionText(d.Action))[0] + " " + d.Action.Member()
		}
		upkeep := ""
		if makesImageCheck(d) {
			upkeep = "*plan.Apply image-check"
		}
		for _, u := range d.Upkeep {
			if _, ok := u.(plan.Delete); ok {
				upkeep = "delete"
			}
		}
		if action != c.action || upkeep != c.upkeep || d.Reason != c.reason {
			t.Errorf("%s: action %q, upkeep %q, %s: %s", name, action, upkeep, d.Reason, d.Message)
		}
	}
}

// What the conditions tell of an image stays while the operator looks at it again, and does not outlive a correction.
func TestWhatIsToldOfAnImageStaysWhileItIsLookedAtAgain(t *testing.T) {
	for name, check := range map[string]func(*cluster.Snapshot){"that fails": checked("", "it crashed"), "of another version": checked("3.5.35", "")} {
		s := healthy(3).LaterSpec(toVersion("3.7.3")).Later(readySince(time.Hour)).Later(check).Snapshot()
		told := Next(s)
		s.Cluster.Status.Conditions = []metav1.Condition{{Type: v1beta1.ConditionProgressing, Reason: told.Reason, Message: "Something else. " + told.Message}}
		s.ImageCheck = nil
		if d := Next(s); d.Reason != v1beta1.ReasonImageNotUsable || d.Message != told.Message || len(d.Upkeep) == 0 {
			t.Errorf("an image %s: %s: %s, %v", name, d.Reason, d.Message, d.Upkeep)
		}
		checked("3.7.3", "")(&s)
		if d := Next(s); stepOf(d.Action) != "roll prod-1" {
			t.Errorf("an image %s that works now: %s: %s", name, d.Reason, d.Message)
		}
		s.ImageCheck, s.Cluster.Spec.Version = nil, "3.7.4"
		if d := Next(s); d.Reason != v1beta1.ReasonCheckingImage {
			t.Errorf("another version than that of an image %s: %s: %s", name, d.Reason, d.Message)
		}
	}
}

// An image is looked at also where the version stays the same, or changes in the middle of an upgrade.
func TestEveryOtherImageIsLookedAt(t *testing.T) {
	toTag := func(s *cluster.Snapshot) {
		spec := *s.Cluster
		spec.Spec.Image.Tag = "v3.7.99"
		s.Cluster, s.OperatorImage = &spec, "operator"
	}
	says := func(version string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			s.ImageCheck = &cluster.ImageCheck{UID: "check", CreatedAt: Now, Version: version, Target: s.Cluster.Spec.Version + " gcr.io/etcd-development/etcd:v3.7.99"}
		}
	}
	grows := func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = 5 }
	for name, c := range map[string]struct {
		version string
		change  func(*cluster.Snapshot)
		action  string
		reason  string
	}{
		"the image alone":                          {Version, toTag, "", v1beta1.ReasonCheckingImage},
		"the image alone, of another version":      {Version, both(toTag, says("3.7.3")), "", v1beta1.ReasonImageNotUsable},
		"the image alone, and right":               {Version, both(toTag, says(Version)), "roll", v1beta1.ReasonRollingMembers},
		"in the middle of an upgrade":              {"3.7.3", both(allButTheLeader, toTag), "", v1beta1.ReasonCheckingImage},
		"in the middle, of another version":        {"3.7.3", both(allButTheLeader, toTag, says(Version)), "", v1beta1.ReasonImageNotUsable},
		"in the middle of an upgrade, and right":   {"3.7.3", both(allButTheLeader, toTag, says("3.7.3")), "move", v1beta1.ReasonUpgrading},
		"a new member":                             {Version, both(toTag, grows), "", v1beta1.ReasonCheckingImage},
		"a new member, of another version":         {Version, both(toTag, grows, says("3.7.3")), "", v1beta1.ReasonImageNotUsable},
		"a new member, and right":                  {Version, both(toTag, grows, says(Version)), "add", v1beta1.ReasonScaling},
		"where the operator does not run in a pod": {Version, both(toTag, func(s *cluster.Snapshot) { s.OperatorImage = "" }), "roll", v1beta1.ReasonRollingMembers},
	} {
		d := Next(healthy(3).LaterSpec(toVersion(c.version)).Later(readySince(time.Hour)).Later(c.change).Snapshot())
		action := ""
		if d.Action != nil {
			action = strings.Fields(actionText(d.Action))[0]
		}
		if action != c.action || d.Reason != c.reason {
			t.Errorf("%s: %q, %s: %s", name, action, d.Reason, d.Message)
		}
		if makes := makesImageCheck(d); makes != (c.reason == v1beta1.ReasonCheckingImage) {
			t.Errorf("%s: makes the pod: %t", name, makes)
		}
	}
}

func both(changes ...func(*cluster.Snapshot)) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for _, change := range changes {
			change(s)
		}
	}
}

// allButTheLeader have been rolled to the version of the spec.
func allButTheLeader(s *cluster.Snapshot) {
	for _, name := range []string{"prod-1", "prod-2"} {
		m := s.Member(name)
		m.Workload.Intent = versionTarget(s, m)
		_, m.Workload.IntentHash = m.Workload.Intent.Encode()
		m.Workload.HealthyIntent = &m.Workload.Intent
		m.Pod.IntentHash, m.Probe.Version = m.Workload.IntentHash, m.Workload.Intent.Version
	}
}

func TestTheLastMemberOfTheOldMinorVersionWaitsForTheOthers(t *testing.T) {
	for name, c := range map[string]struct {
		version string
		change  func(*cluster.Snapshot)
		action  string
	}{
		"healthy for a minute": {"3.7.3", readySince(time.Minute), "move prod-0"},
		"healthy for less":     {"3.7.3", readySince(59 * time.Second), ""},
		"one of them for less": {"3.7.3", both(readySince(time.Hour), func(s *cluster.Snapshot) { s.Member("prod-1").Pod.ReadySince = Now.Add(-time.Second) }), ""},
		"a patch":              {"3.6.17", readySince(time.Second), "move prod-0"},
		"one of them is not ready": {"3.7.3", both(readySince(time.Hour), func(s *cluster.Snapshot) {
			s.Member("prod-1").Pod.Ready, s.Member("prod-1").Pod.ReadySince = false, time.Time{}
		}), ""},
		"it has failed":              {"3.7.3", both(readySince(time.Hour), silent("prod-1"), crashing("prod-0", time.Hour)), "roll prod-0"},
		"one of them is not healthy": {"3.7.3", both(readySince(time.Hour), silent("prod-1")), ""},
	} {
		s := healthy(3).LaterSpec(toVersion(c.version)).Later(allButTheLeader).Later(c.change).Snapshot()
		d := Next(s)
		action := ""
		if d.Action != nil {
			action = strings.Fields(actionText(d.Action))[0] + " " + d.Action.Member()
		}
		if action != c.action {
			t.Errorf("%s: %q, %s: %s", name, action, d.Reason, d.Message)
		}
		if c.action == "" && d.RequeueAfter > pinTime {
			t.Errorf("%s: looks again in %s", name, d.RequeueAfter)
		}
	}
}

// onTrial has prod-1 restarted with 3.7.3, or another version, and be ready for a while. The operation has ended.
func onTrial(t *testing.T, version string, ready time.Duration) cluster.Snapshot {
	t.Helper()
	s := healthy(3).LaterSpec(toVersion(version)).Later(readySince(time.Hour)).Snapshot()
	s.Now = Now.Add(-2 * time.Minute)
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	replacePod(&s, "prod-1")
	s.Now = Now
	serve(&s, "prod-1")
	s.Member("prod-1").Probe.Version = version
	s.Member("prod-1").Pod.ReadySince = Now.Add(-ready)
	if d := Next(s); !d.Finished {
		t.Fatalf("the restart is not over: %s", d.Message)
	}
	s.Cluster = s.Cluster.DeepCopy()
	s.Cluster.Status.Operation = nil
	return s
}

func TestAMemberIsOnTrialWithAnotherMinorVersionBeforeTheNextOneRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		version        string
		ready          time.Duration
		acts, recorded bool
	}{
		"ready for less":                 {"3.7.3", trialTime - time.Second, false, false},
		"ready for long enough":          {"3.7.3", trialTime, true, true},
		"a patch, ready for a moment":    {"3.6.17", time.Second, true, false},
		"a patch, ready for long enough": {"3.6.17", trialTime, true, true},
	} {
		d := Next(onTrial(t, c.version, c.ready))
		records := false
		for _, u := range d.Upkeep {
			if u, ok := u.(plan.UpdateStatefulSet); ok && u.Desired.Name == "prod-1" {
				records = u.Desired.Annotations[cluster.AnnotationHealthyIntent] == u.Desired.Annotations[cluster.AnnotationIntent]
			}
		}
		if acts := d.Action != nil; acts != c.acts || records != c.recorded {
			t.Errorf("%s: acts %t, records prod-1 as healthy %t: %s", name, acts, records, d.Message)
		}
		if !c.acts && (d.RequeueAfter != trialTime-c.ready || !strings.Contains(d.Message, "prod-1")) {
			t.Errorf("%s: looks again after %s: %s", name, d.RequeueAfter, d.Message)
		}
	}
	failed := func(version string) plan.Decision {
		s := onTrial(t, version, time.Second)
		crashing0("prod-1")(&s)
		return Next(s)
	}
	for _, version := range []string{"3.7.3", "3.6.17"} {
		if a, ok := failed(version).Action.(plan.RestartMember); !ok || a.For != v1beta1.OperationRollBack || a.Name != "prod-1" {
			t.Errorf("one that fails on trial with %s does not go back: %+v", version, a)
		}
	}
}

// A second edit comes before the trial of the first one is over. What the pod runs with is noted, and not what it ran
// with long ago: the way back, and what a resize compares the pod with.
func TestATemplateThatIsReplacedDuringItsTrialIsNotedAsHealthy(t *testing.T) {
	for name, c := range map[string]struct {
		version string
		change  func(*cluster.Snapshot)
		noted   bool
	}{
		"a patch":                  {"3.6.17", func(*cluster.Snapshot) {}, true},
		"a patch that has failed":  {"3.6.17", crashing0("prod-1"), false},
		"a minor version on trial": {"3.7.3", func(*cluster.Snapshot) {}, false},
	} {
		s := onTrial(t, c.version, 3*time.Second)
		c.change(&s)
		m := s.Member("prod-1")
		next := m.Workload.Intent
		next.Labels = map[string]string{"team": "a"}
		if noted := memberInput(&s, "prod-1", next, true).HealthyIntent == m.Workload.Live.Annotations[cluster.AnnotationIntent]; noted != c.noted {
			t.Errorf("%s: noted %t", name, noted)
		}
		if memberInput(&s, "prod-1", m.Workload.Intent, true).HealthyIntent == m.Workload.Live.Annotations[cluster.AnnotationIntent] {
			t.Errorf("%s: it is noted after 3 s, although nothing replaces it", name)
		}
	}
}

func TestAMinorVersionGoesBackWhileAVoterOfTheOldOneAnswers(t *testing.T) {
	failed := func(change func(*cluster.Snapshot)) plan.Decision {
		s := healthy(3).LaterSpec(toVersion("3.7.3")).Later(readySince(time.Hour)).Snapshot()
		s.Now = Now.Add(-2 * time.Minute)
		d := Next(s)
		claim(&s, d)
		writeTemplate(t, &s, d)
		replacePod(&s, "prod-1")
		s.Now = Now
		crashing0("prod-1")(&s)
		change(&s)
		return Next(s)
	}
	d := failed(func(*cluster.Snapshot) {})
	if a, ok := d.Action.(plan.RestartMember); !ok || a.For != v1beta1.OperationRollBack || a.StatefulSet == nil ||
		!strings.HasSuffix(a.StatefulSet.Spec.Template.Spec.Containers[0].Image, ":v"+Version) {
		t.Errorf("%s: %s", actionText(d.Action), d.Message)
	}
	if !strings.HasSuffix(d.Message, "It goes back to what it ran with before: etcd "+Version+".") {
		t.Errorf("the version is not told: %s", d.Message)
	}
	newer := func(names ...string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			for _, name := range names {
				s.Member(name).Probe.Version = "3.7.3"
			}
		}
	}
	if d := failed(newer("prod-0")); d.Action == nil {
		t.Errorf("one old voter is enough: %s", d.Message)
	}
	for name, change := range map[string]func(*cluster.Snapshot){
		"no old voter answers":          newer("prod-0", "prod-2"),
		"the old voter does not answer": both(newer("prod-0"), silent("prod-2")),
	} {
		d := failed(change)
		a, ok := d.Action.(plan.RestartMember)
		if !ok || a.For != v1beta1.OperationRollBack || a.Pod != "" || *a.StatefulSet.Spec.Replicas != 0 ||
			!strings.HasSuffix(a.StatefulSet.Spec.Template.Spec.Containers[0].Image, ":v3.7.3") {
			t.Errorf("%s: it is not stopped first: %s: %s", name, actionText(d.Action), d.Message)
		}
	}
}

// stopped has prod-1, the last member that was rolled to 3.7.3, fail and be stopped.
func stopped(t *testing.T, size int32, change func(*cluster.Snapshot)) cluster.Snapshot {
	t.Helper()
	s := healthy(size).LaterSpec(toVersion("3.7.3")).Later(readySince(time.Hour)).Snapshot()
	last := s.Members[len(s.Members)-1].Name
	for i := range s.Members[:len(s.Members)-1] {
		m := &s.Members[i]
		m.Workload.Intent = versionTarget(&s, m)
		_, m.Workload.IntentHash = m.Workload.Intent.Encode()
		m.Workload.HealthyIntent = &m.Workload.Intent
		m.Pod.IntentHash, m.Probe.Version = m.Workload.IntentHash, "3.7.3"
	}
	s.Now = Now.Add(-2 * time.Minute)
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	replacePod(&s, last)
	s.Now = Now
	crashing0(last)(&s)
	d = Next(s)
	claim(&s, d)
	if again := Next(s); actionText(again.Action) != actionText(d.Action) || again.Claim.Type != v1beta1.OperationRollBack {
		t.Fatalf("after a crash: %s: %s", actionText(again.Action), again.Message)
	}
	writeTemplate(t, &s, d)
	change(&s)
	return s
}

func TestTheLastMemberThatFailsIsStoppedBeforeItMayGoBack(t *testing.T) {
	ended := func(s *cluster.Snapshot) { m := &s.Members[len(s.Members)-1]; m.Pod, m.Probe = nil, nil }
	works := func(version string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			for i := range s.Members {
				if p := s.Members[i].Probe; p != nil {
					p.ClusterVersion = version
				}
			}
		}
	}
	for name, c := range map[string]struct {
		size    int32
		change  func(*cluster.Snapshot)
		version string // that it starts with; empty where it waits
	}{
		"the old version":                  {3, both(ended, works("3.6")), Version},
		"the new version":                  {3, both(ended, works("3.7")), "3.7.3"},
		"a version that nobody tells":      {3, both(ended, works("")), ""},
		"its pod has not ended":            {3, works("3.6"), ""},
		"the quorum is lost":               {3, both(ended, works("3.6"), silent("prod-0")), ""},
		"the only member":                  {1, ended, Version},
		"the only member, whose pod stays": {1, func(*cluster.Snapshot) {}, ""},
	} {
		s := stopped(t, c.size, c.change)
		d := Next(s)
		a, acts := d.Action.(plan.RestartMember)
		if acts != (c.version != "") || acts && (*a.StatefulSet.Spec.Replicas != 1 ||
			!strings.HasSuffix(a.StatefulSet.Spec.Template.Spec.Containers[0].Image, ":v"+c.version)) {
			t.Errorf("%s: %s: %s", name, actionText(d.Action), d.Message)
		}
		for _, u := range d.Upkeep {
			if u, ok := u.(plan.UpdateStatefulSet); ok && u.Desired.Name == s.Members[len(s.Members)-1].Name {
				t.Errorf("%s: upkeep starts %s", name, u.Desired.Name)
			}
		}
		if !acts {
			continue
		}
		if asksItself := strings.Contains(d.Message, "is the only member"); asksItself != (c.size == 1) {
			t.Errorf("%s: %s", name, d.Message)
		}
		writeTemplate(t, &s, d)
		if d := Next(s); d.Action != nil || d.Finished {
			t.Errorf("%s: afterwards %s: %s", name, actionText(d.Action), d.Message)
		}
	}

}

// The new version had changed the data before it failed, so the old one ends over them.
func TestTheOnlyMemberWithoutAWayBackGoesOnToAnotherPatchOfTheNewVersion(t *testing.T) {
	newer := func(i cluster.Intent) cluster.Intent { i.Version = "3.7.3"; return i.Canonical() }
	stuck := func(version, says string, size int32) *plan.Decision {
		s := healthy(size).LaterSpec(toVersion(version)).Later(crashing0("prod-0")).Later(func(s *cluster.Snapshot) {
			m := s.Member("prod-0")
			m.Pod.FailureDetail = says
			m.Workload.Live.Annotations[cluster.AnnotationOperation] = cluster.OperationMark(v1beta1.OperationRollBack, Now.Add(-time.Hour))
			m.Workload.Live.Annotations[cluster.AnnotationFailedIntent] = cluster.AddFailedIntent("", newer(m.Workload.Intent), "it crashed")
		}).Snapshot()
		d := Next(s)
		return &d
	}
	for _, refuses := range []string{
		"etcd ended with exit code 2: invalid downgrade; " + cluster.LowerThanCluster,
		`etcd ended with exit code 1: discovery failed: version "3.7.0" is not supported`,
	} {
		for _, version := range []string{"3.7.4", "3.7.3"} { // the one that failed is tried once more
			d := stuck(version, refuses, 1)
			action, isRestart := d.Action.(plan.RestartMember)
			if !isRestart {
				t.Fatalf("%s: it is stuck at %s: %s: %s", refuses, version, d.Reason, d.Message)
			}
			failed := action.StatefulSet.Annotations[cluster.AnnotationFailedIntent]
			if _, isNoted := cluster.FailedCause(failed, healthy(1).Snapshot().Members[0].Workload.Intent.TargetHash()); !isNoted {
				t.Errorf("%s: it may be tried again: %q", refuses, failed)
			}
		}
		if d := stuck("3.6.16", refuses, 1); d.Action != nil || d.Reason != v1beta1.ReasonVersionMismatch || !strings.Contains(d.Message, "etcd 3.7 that works") {
			t.Errorf("%s: with the version that refuses the data: %s %s: %s", refuses, actionText(d.Action), d.Reason, d.Message)
		}
		if d := stuck("3.7.4", refuses, 3); d.Action != nil {
			t.Errorf("%s: one of three gets a new minor version while it fails: %s", refuses, d.Message)
		}
	}
	if d := stuck("3.7.4", `etcd ended with exit code 1: discovery failed: version "3.8.0" is not supported`, 1); d.Action != nil {
		t.Errorf("data of 3.8 are started with 3.7: %s", d.Message)
	}
	if d := stuck("3.7.4", "etcd used more memory than its limit and was killed", 1); d.Action != nil {
		t.Errorf("a member that failed for another reason gets a new minor version: %s", d.Message)
	}
}

// A StatefulSet may be deleted in the middle of an upgrade. Its member's data are not for an older minor version.
func TestAMemberResumesInAnUpgradeWithTheVersionThatItsVolumeHas(t *testing.T) {
	for name, c := range map[string]struct {
		volume string
		newer  []string
		starts string
		spec   string
	}{
		"a member that was upgraded":               {"3.7.3", []string{"prod-1"}, "3.7.3", "3.7.3"},
		"one that was not":                         {Version, []string{"prod-0"}, Version, "3.7.3"},
		"the last old one":                         {Version, []string{"prod-0", "prod-1"}, "3.7.3", "3.7.3"},
		"one that is older than an upgrade can be": {"3.5.35", []string{"prod-0", "prod-1"}, "", "3.7.3"},
		"the first one that was upgraded":          {"3.7.3", nil, "3.7.3", "3.7.3"},
		"the last one of a downgrade":              {"3.7.3", nil, Version, Version},
		"one that skips a minor version":           {"3.8.0", nil, "", Version},
	} {
		s := MakeCluster("prod").Objects().Members(Healthy).Member("prod-2", Volume, Recorded).LaterSpec(toVersion(c.spec)).Later(rolledTo("3.7.3", c.newer...)).Snapshot()
		for i := range s.Members {
			s.Members[i].Volume.Version = RunningVersion(&s.Members[i])
		}
		s.Member("prod-2").Volume.Version = c.volume
		d := Next(s)
		starts := ""
		if a, ok := d.Action.(plan.StartMembers); ok {
			_, starts, _ = strings.Cut(a.StatefulSets[0].Spec.Template.Spec.Containers[0].Image, ":v")
		}
		if starts != c.starts || starts == "" && d.Reason != v1beta1.ReasonVersionMismatch {
			t.Errorf("%s: it starts with %q, %s: %s", name, starts, d.Reason, d.Message)
		}
	}
}

// In the middle of a downgrade, the note of the version lags behind the data of the member that was rolled.
func TestAMemberOfTheOlderVersionWithItsStatefulSetKeepsNoOthersDown(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Volume, Recorded).Member("prod-0", Healthy).Later(rolledTo("3.5.35", "prod-0")).Later(silent("prod-0")).Snapshot()
	for i := range s.Members {
		s.Members[i].Volume.Version = Version
	}
	d := Next(s)
	if a, ok := d.Action.(plan.StartMembers); !ok || len(a.StatefulSets) != 2 {
		t.Errorf("%s, %s: %s", actionText(d.Action), d.Reason, d.Message)
	}
}

// The newest one tells the version to set: with the older one, the next refusal would follow.
func TestTheVolumesOfAnUpgradeThatHadBegunAreRefusedByTheNewestOfThem(t *testing.T) {
	for _, upgraded := range []string{"prod-0", "prod-1", "prod-2"} {
		s := MakeCluster("prod").Objects().Kept(func(v *cluster.Volume) {
			if v.Member == upgraded {
				v.Version = "3.7.3"
			}
		}, "prod-0", "prod-1", "prod-2").LaterSpec(toVersion("3.5.35")).Snapshot()
		d := Next(s)
		if want := "Volume data-" + upgraded + " was last written by etcd 3.7.3"; d.Reason != v1beta1.ReasonVersionMismatch || !strings.HasPrefix(d.Message, want) {
			t.Errorf("%s: %s", d.Reason, d.Message)
		}
		s.Cluster.Spec.Version = "3.7.3"
		if d := Next(s); d.Action == nil {
			t.Errorf("what the message asks for: %s: %s", d.Reason, d.Message)
		}
	}
}

// What forbids the roll back of the last member must not keep the other rules from their work.
func TestALastMemberThatMayNotBeStoppedHoldsUpNoOtherRule(t *testing.T) {
	s := stopped(t, 3, func(*cluster.Snapshot) {})
	s.Cluster.Status.Operation = nil
	m := &s.Members[len(s.Members)-1]
	m.Workload.Live.Annotations[cluster.AnnotationOperation] = cluster.OperationMark(v1beta1.OperationRollMember, Now.Add(-time.Hour))
	m.Workload.Live.Spec.Replicas = new(int32(1))
	if d := Next(s); d.Rule != RuleRollBack || d.Action == nil {
		t.Fatalf("it is not stopped: %s: %s", d.Rule, d.Message)
	}
	m.Volume.Deleting = true
	if d := Next(s); d.Rule == RuleRollBack || d.Action != nil {
		t.Errorf("%s: %s: %s", d.Rule, actionText(d.Action), d.Message)
	}
}

func TestAVersionThatFailedIsNotTriedAgainUntilTheSpecChanges(t *testing.T) {
	s := healthy(3).LaterSpec(toVersion("3.7.3")).Later(readySince(time.Hour)).Later(func(s *cluster.Snapshot) {
		m := s.Member("prod-1")
		m.Workload.Live.Annotations[cluster.AnnotationFailedIntent] = cluster.FailedIntent(versionTarget(s, m), "it crashed")
	}).Snapshot()
	if d := Next(s); d.Action != nil || d.Reason != v1beta1.ReasonRolledBack || !strings.Contains(d.Message, "it crashed") {
		t.Errorf("%s: %s", d.Reason, d.Message)
	}
	s.Cluster.Spec.Version = "3.7.4"
	if d := Next(s); d.Action == nil {
		t.Errorf("another version: %s", d.Message)
	}
}

func TestABlockedUpgradeHoldsUpNoOtherStep(t *testing.T) {
	s := healthy(3).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.9.0"; memory("1Gi")(s) }).Snapshot()
	if d := Next(s); d.Rule != RuleConfiguration || d.Action == nil {
		t.Errorf("%s: %s", d.Rule, d.Message)
	}
	s = healthy(3).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.6.17"; memory("1Gi")(s) }).Later(crashing("prod-2", time.Hour)).Snapshot()
	d := Next(s)
	if a, ok := d.Action.(plan.RestartMember); !ok || d.Rule != RuleConfiguration || a.Name != "prod-2" {
		t.Errorf("a cure waits: %s: %s", d.Rule, d.Message)
	}
}

func startsVersion(d plan.Decision) string {
	a, ok := d.Action.(plan.RestartMember)
	if !ok || a.StatefulSet == nil {
		return ""
	}
	_, v, _ := strings.Cut(a.StatefulSet.Spec.Template.Spec.Containers[0].Image, ":v")
	return v
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

// A learner that is registered gets no image that nobody looked at: its spec may have changed since. Nothing else looks
// at it then, because no member restarts beside a learner.
func TestTheImageOfARegisteredLearnerIsLookedAt(t *testing.T) {
	toTag := func(s *cluster.Snapshot) { s.Cluster.Spec.Image.Tag, s.OperatorImage = "v3.6.99", "operator" }
	says := func(version string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			s.ImageCheck = &cluster.ImageCheck{UID: "check", CreatedAt: Now, Version: version, Target: cluster.ImageTarget(joinerIntent(s))}
		}
	}
	for name, c := range map[string]struct {
		change func(*cluster.Snapshot)
		action string
		says   string
		makes  bool
	}{
		"a new image":     {toTag, "", "asks it for its version", true},
		"a wrong one":     {both(toTag, says("3.7.3")), "", "has etcd 3.7.3, and spec.version is", false},
		"the right one":   {both(toTag, says(Version)), "start", "Starting prod-3", false},
		"that of another": {both(toTag, func(s *cluster.Snapshot) { s.Cluster.Spec.Image.Tag = "" }), "start", "Starting prod-3", false},
		"one with which another runs another minor": {both(toTag, says(Version), func(s *cluster.Snapshot) {
			m := s.Member("prod-2")
			m.Workload.Intent = joinerIntent(s)
			_, m.Workload.IntentHash = m.Workload.Intent.Encode()
			m.Pod.IntentHash, m.Probe.Version = m.Workload.IntentHash, "3.7.3"
		}), "", "prod-2 runs etcd 3.7.3", false},
	} {
		d := Next(growing3(noted("4"), registered, listed, c.change))
		action := ""
		if d.Action != nil {
			action = strings.Fields(actionText(d.Action))[0]
		}
		makes := makesImageCheck(d)
		if action != c.action || !strings.Contains(d.Message, c.says) || makes != c.makes {
			t.Errorf("%s: %q, makes the pod: %t: %s", name, action, makes, d.Message)
		}
	}
}

// The learner's operation has ended at its deadline: while it is claimed, its own message tells.
func TestNoUpgradeBeginsBesideALearner(t *testing.T) {
	s := resized(3, 5, caughtUp).LaterSpec(toVersion("3.7.3")).Snapshot()
	refusals := UpgradeRefusals(&s)
	if len(refusals) == 0 || refusals[0].Reason != v1beta1.ReasonLearnerPresent || !strings.HasPrefix(refusals[0].Message, "prod-3 is a learner") {
		t.Errorf("got %+v", refusals)
	}
	if refusals := UpgradeRefusals(new(healthy(3).LaterSpec(toVersion("3.7.3")).Snapshot())); len(refusals) > 0 {
		t.Errorf("without one: %+v", refusals)
	}
}

// A member that was made with a mislabelled image, while nobody could look at it, does not take the others with it.
func TestNoMemberTakesTheImageOfAnotherThatHasAnotherMinorThanItSays(t *testing.T) {
	s := healthy(3).Later(readySince(time.Hour)).Later(func(s *cluster.Snapshot) {
		s.Cluster.Spec.Image.Tag = "v3.7.3"
		m := s.Member("prod-2")
		m.Workload.Intent = targetOf(s, m)
		_, m.Workload.IntentHash = m.Workload.Intent.Encode()
		m.Pod.IntentHash, m.Probe.Version = m.Workload.IntentHash, "3.7.3"
	}).Snapshot()
	if d := Next(s); d.Action != nil || d.Reason != v1beta1.ReasonImageDiffers {
		t.Errorf("%s, %s: %s", actionText(d.Action), d.Reason, d.Message)
	}
	older := healthy(3).LaterSpec(toVersion("3.7.3")).Later(allButTheLeader).Later(readySince(time.Hour)).Snapshot()
	older.Member("prod-1").Probe.Version = Version
	if d := Next(older); d.Action != nil || d.Reason != v1beta1.ReasonImageDiffers {
		t.Errorf("an older one: %s, %s: %s", actionText(d.Action), d.Reason, d.Message)
	}
	s.Member("prod-2").Probe.Version = Version
	if d := Next(s); stepOf(d.Action) != "roll prod-1" {
		t.Errorf("with the right image: %s, %s: %s", actionText(d.Action), d.Reason, d.Message)
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
