package analyse

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func TestRecordsTheIntentOfHealthyMembersOnly(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*cluster.Member)
		keeps  bool
	}{
		"a healthy voter":                      {func(*cluster.Member) {}, false},
		"a member that is silent":              {func(m *cluster.Member) { m.Probe = &cluster.Probe{Error: "refused"} }, true},
		"a learner":                            {func(m *cluster.Member) { m.Probe.Learner = true }, true},
		"a pod that was made from another one": {func(m *cluster.Member) { m.Pod.IntentHash = "other" }, true},
		"a pod that is being deleted":          {func(m *cluster.Member) { m.Pod.Deleting = true }, true},
		"a pod that is not ready yet":          {func(m *cluster.Member) { m.Pod.Ready = false }, true},
	} {
		s := clustertest.MakeCluster("prod").Objects().Members(clustertest.Healthy).Snapshot()
		m := s.Member("prod-0")
		annotations := m.Workload.Live.Annotations
		annotations[cluster.AnnotationHealthyIntent] = "{}"
		c.change(m)
		want := annotations[cluster.AnnotationIntent]
		if c.keeps {
			want = "{}"
		}
		again := render.MemberStatefulSet(memberInput(&s, "prod-0", m.Workload.Intent, true))
		if got := again.Annotations[cluster.AnnotationHealthyIntent]; got != want {
			t.Errorf("%s: the healthy intent is %q, want %q", name, got, want)
		}
	}
}

func TestRecordsTheIDsOfAMemberThatWasMarkedAsStarted(t *testing.T) {
	s := clustertest.MakeCluster("prod").Objects().Members(clustertest.Healthy).
		Member("prod-1", clustertest.Volume, clustertest.Marked(cluster.StartedByReadiness), clustertest.Sealed, clustertest.Pod, clustertest.Serving).
		Snapshot()
	d := Next(s)
	if len(d.Upkeep) != 1 {
		t.Fatalf("the upkeep is %+v", d.Upkeep)
	}
	record, ok := d.Upkeep[0].(plan.RecordMember)
	if !ok || record.Member != "prod-1" || record.Annotations[cluster.AnnotationMemberID] != "a1" {
		t.Errorf("the upkeep is %+v", d.Upkeep[0])
	}
}

func TestHalfARecordOfIDsIsCompleted(t *testing.T) {
	s := clustertest.MakeCluster("prod").Objects().Members(clustertest.Healthy).
		Later(func(s *cluster.Snapshot) { s.Member("prod-1").Volume.MemberID = 0 }).Snapshot()
	d := Next(s)
	if len(d.Upkeep) != 1 {
		t.Fatalf("the upkeep is %+v", d.Upkeep)
	}
	if record, ok := d.Upkeep[0].(plan.RecordMember); !ok || record.Annotations[cluster.AnnotationMemberID] != "a1" {
		t.Errorf("the upkeep is %+v", d.Upkeep[0])
	}
}

// The caches of claims and of StatefulSets are not of the same moment: the record on a claim may be missing in the
// snapshot for long after the template that relies on it was written.
func TestATemplateThatRefusesAnEmptyVolumeNeverFoundsAgain(t *testing.T) {
	unseen := clustertest.Together(clustertest.Volume, clustertest.Sealed)
	s := clustertest.MakeCluster("prod").Objects().Members(unseen).Snapshot()
	for _, u := range Next(s).Upkeep {
		if update, ok := u.(plan.UpdateStatefulSet); ok && render.StartsEmpty(update.Desired.Spec.Template.Annotations) {
			t.Errorf("%s is written with the founding list: %v", update.Desired.Name, update.Desired.Spec.Template.Annotations)
		}
	}
	s = clustertest.MakeCluster("prod").Objects().Members(clustertest.Volume, clustertest.Founding).Snapshot()
	for _, u := range Next(s).Upkeep {
		if update, ok := u.(plan.UpdateStatefulSet); ok {
			t.Errorf("%s, which was never seen started, is written: %v", update.Desired.Name, update.Desired.Spec.Template.Annotations)
		}
	}
}

func TestAMemberThatAnswersHasItsClaimRecordedAgain(t *testing.T) {
	scheduled := clustertest.Now.Add(-time.Hour)
	for name, test := range map[string]struct {
		change func(*cluster.Member)
		want   cluster.StartEvidence
	}{
		"all annotations were lost":                      {func(*cluster.Member) {}, cluster.StartedByAnswer},
		"the claim was made after its pod was scheduled": {func(m *cluster.Member) { m.Volume.CreatedAt = scheduled.Add(time.Second) }, ""},
		"so, with the annotations of before its start": {func(m *cluster.Member) {
			m.Volume.CreatedAt, m.Volume.PeerURL = scheduled.Add(time.Second), "http://prod-1-0.prod.shop.svc:2380"
		}, ""},
		"the claim was made before its pod was scheduled": {func(m *cluster.Member) { m.Volume.CreatedAt = scheduled }, cluster.StartedByAnswer},
		"in memory the pod is the volume": {func(m *cluster.Member) {
			m.Volume.CreatedAt, m.Volume.InMemory = scheduled.Add(time.Second), true
		}, cluster.StartedByAnswer},
		"the annotations are those of before its start": {func(m *cluster.Member) { m.Volume.PeerURL = "http://prod-1-0.prod.shop.svc:2380" }, cluster.StartedByAnswer},
		"another member answers":                        {func(m *cluster.Member) { m.Probe.MemberID = 0xa7 }, ""},
		"another cluster answers":                       {func(m *cluster.Member) { m.Probe.ClusterID = 0xc9 }, ""},
		"it is silent, and passes its probes":           {func(m *cluster.Member) { m.Probe, m.Pod.PassesReadiness = nil, true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := clustertest.MakeCluster("prod").Objects().Members(clustertest.Healthy).Later(func(s *cluster.Snapshot) {
				m, v := s.Member("prod-1"), *s.Member("prod-1").Volume
				m.Volume = &cluster.Volume{Name: v.Name, Member: v.Member, UID: v.UID, Identity: v.Identity, Phase: v.Phase, ClusterUID: v.ClusterUID}
				m.Pod.ScheduledAt = scheduled
				test.change(m)
			}).Snapshot()
			if got := startEvidence(&s, s.Member("prod-1")); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTellsThatAClaimWasMadeAgainUnderAPodThatRuns(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*cluster.Member)
		told   bool
	}{
		"so it is":                        {func(*cluster.Member) {}, true},
		"it was made before":              {func(m *cluster.Member) { m.Volume.CreatedAt = m.Pod.ScheduledAt }, false},
		"the pod waits":                   {func(m *cluster.Member) { m.Pod.Phase = "Pending" }, false},
		"the member's start is on record": {func(m *cluster.Member) { m.Volume.StartedBy = cluster.StartedByAnswer }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := clustertest.MakeCluster("prod").Objects().Members(clustertest.Healthy).Snapshot()
			m := s.Member("prod-1")
			m.Pod.ScheduledAt, m.Volume.CreatedAt = clustertest.Now.Add(-time.Hour), clustertest.Now
			m.Volume.ClusterID, m.Volume.MemberID, m.Volume.StartedBy, m.Volume.Remembered = 0, 0, "", cluster.VolumeIdentity{}
			test.change(m)
			isTold := func(p plan.Problem) bool {
				return p.Reason == v1beta1.ReasonVolumeReplaced && strings.Contains(p.Message, "data-prod-1 was made again while Pod prod-1-0 ran")
			}
			if got := slices.ContainsFunc(allProblems(&s), isTold); got != test.told {
				t.Errorf("told: %t, want %t", got, test.told)
			}
		})
	}
}

// The proof that a volume is the member's is on its claim. A claim that was made again, or lost its annotations, may
// stand for a copy.
func TestAMemberWhoseClaimHasNoRecordStartsOnlyWhenTheUserAcceptsTheVolume(t *testing.T) {
	identity := cluster.VolumeIdentity{Claim: "claim-9", Name: "pv-9"}
	for name, test := range map[string]struct {
		change  func(*cluster.Member)
		stopped bool
	}{
		"the pod is gone":                 {func(m *cluster.Member) { m.Pod = nil }, true},
		"the pod waits":                   {func(m *cluster.Member) { m.Pod.Phase = "Pending" }, true},
		"the pod is going":                {func(m *cluster.Member) { m.Pod.Deleting = true }, true},
		"the pod runs":                    {func(*cluster.Member) {}, false},
		"the user accepts the volume":     {func(m *cluster.Member) { m.Pod, m.Volume.Accepted = nil, identity.String() }, false},
		"the user accepts another volume": {func(m *cluster.Member) { m.Pod, m.Volume.Accepted = nil, "claim-8/pv-9" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := clustertest.MakeCluster("prod").Objects().Members(clustertest.Healthy).Later(func(s *cluster.Snapshot) {
				m, v := s.Member("prod-1"), *s.Member("prod-1").Volume
				m.Volume = &cluster.Volume{
					Name: v.Name, Member: v.Member, UID: "claim-9", Identity: identity, Phase: v.Phase, ClusterUID: v.ClusterUID,
					Token: v.Token, Founders: v.Founders, PeerURL: v.PeerURL, // as in a manifest of before its member's start
				}
				m.Probe = nil
				test.change(m)
			}).Snapshot()
			if got := mustNotStart(&s, s.Member("prod-1")); got != test.stopped {
				t.Errorf("stopped: %t, want %t", got, test.stopped)
			}
			if got := startEvidence(&s, s.Member("prod-1")); test.stopped && got != "" {
				t.Errorf("the volume is recorded as the member's own: %s", got)
			}
		})
	}
}
