package analyse

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func inMemory(size int32) *Builder {
	return MakeCluster("prod").Replicas(size).InMemory("1Gi").Objects().Members(Healthy)
}

// podGone has a member's pod be gone, and another one of its name wait.
func podGone(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m := s.Member(name)
		m.Probe, m.Pod = nil, &cluster.Pod{Name: cluster.PodName(name), UID: "again", Phase: corev1.PodPending, Gated: true, CreatedAt: Now}
		m.Volume.Identity = cluster.MemoryOf(m.Pod)
	}
}

// crashingFor has a member's etcd end again and again since some time, in the pod that it had.
func crashingFor(name string, since time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		failing(name)(s)
		p := s.Member(name).Pod
		p.FailureReason, p.FailureDetail, p.NotReadySince = v1beta1.ReasonCrashLooping, "etcd ended with exit code 1: "+cluster.EmptyData, Now.Add(-since)
		s.Member(name).Pod.StartedAt = s.Member(name).Pod.NotReadySince.Add(time.Second)
	}
}

func TestAMemberInMemoryWhosePodIsGoneIsReplacedAtOnce(t *testing.T) {
	const replaced = "replace prod-1 (a1) by prod-0"
	for name, c := range map[string]struct {
		change func(*cluster.Snapshot)
		want   string
	}{
		"its pod is gone, and another one waits": {podGone("prod-1"), replaced},
		"its pod is gone": {func(s *cluster.Snapshot) {
			podGone("prod-1")(s)
			s.Member("prod-1").Pod, s.Member("prod-1").Volume.Identity = nil, cluster.VolumeIdentity{}
		}, replaced},
		"its pod is going and answers": {func(s *cluster.Snapshot) {
			m := s.Member("prod-1")
			m.Pod.Deleting, m.Volume.Identity = true, cluster.VolumeIdentity{}
		}, ""},
		"its pod runs, and is silent":                     {failing("prod-1"), ""},
		"its pod fails for as long as a node may be away": {crashingFor("prod-1", 5*time.Minute), replaced},
		"its pod fails for a shorter time":                {crashingFor("prod-1", 4*time.Minute), ""},
		"its etcd ended long ago, and is only silent now": {func(s *cluster.Snapshot) {
			crashingFor("prod-1", 5*time.Minute)(s)
			s.Member("prod-1").Pod.StartedAt = s.Now.Add(-time.Hour)
		}, ""},
		"it finds other data at a peer, which may be the wrong one": {func(s *cluster.Snapshot) {
			crashingFor("prod-1", 5*time.Minute)(s)
			s.Member("prod-1").Pod.FailureDetail = "a1 " + otherData
		}, "hash prod-2"},
		"it is replaced by hand only": {func(s *cluster.Snapshot) {
			podGone("prod-1")(s)
			replacement(v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually})(s)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(inMemory(3).Later(c.change).Snapshot())
			if got := actionText(d.Action); got != c.want {
				t.Errorf("got %q, want %q: %s", got, c.want, d.Message)
			}
		})
	}
}

// What is read again before the member is removed is the pod, and not a claim.
func TestTheRemovalOfAMemberInMemoryNamesItsPod(t *testing.T) {
	d := Next(inMemory(3).Later(podGone("prod-1")).Snapshot())
	action, ok := d.Action.(plan.RemoveMember)
	if !ok || action.Lost == nil || *action.Lost != (plan.Lost{Pod: "prod-1-0", PodUID: "pod-prod-1"}) {
		t.Errorf("got %+v: %s", d.Action, d.Message)
	}
}

func TestOnlyThePodOfTheRecordIsAdmitted(t *testing.T) {
	unnamed := func(s *cluster.Snapshot) {
		m := s.Member("prod-1")
		m.Volume.Remembered, m.Volume.ClusterID, m.Volume.MemberID, m.Volume.StartedBy, m.Volume.Members = cluster.VolumeIdentity{}, 0, 0, "", nil
		m.Workload.StartsEmpty = true
	}
	gated := func(s *cluster.Snapshot) {
		m := s.Member("prod-1")
		failing("prod-1")(s)
		m.Pod.Gated, m.Pod.Phase, m.Pod.StartsEmpty, m.Probe = true, corev1.PodPending, true, nil
	}
	gone := func(s *cluster.Snapshot) { s.Member("prod-1").Volume.Identity = cluster.VolumeIdentity{} }
	going := func(s *cluster.Snapshot) { s.Member("prod-1").Volume.Deleting = true }
	for name, c := range map[string]struct {
		changes         []func(*cluster.Snapshot)
		records, admits bool
	}{
		"a pod that the record does not name yet":    {[]func(*cluster.Snapshot){unnamed, gated}, true, false},
		"the pod that the record names":              {[]func(*cluster.Snapshot){gated}, false, true},
		"another pod than the record names":          {[]func(*cluster.Snapshot){podGone("prod-1")}, false, false},
		"a pod that was admitted before":             {nil, false, false},
		"a pod that is being deleted":                {[]func(*cluster.Snapshot){gated, gone}, false, false},
		"the pod of a record that is being deleted":  {[]func(*cluster.Snapshot){gated, going}, false, false},
		"an unnamed pod that is being deleted":       {[]func(*cluster.Snapshot){unnamed, gated, gone}, false, false},
		"an unnamed pod of a record that is deleted": {[]func(*cluster.Snapshot){unnamed, gated, going}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := inMemory(3)
			for _, change := range c.changes {
				b.Later(change)
			}
			d := Next(b.Snapshot())
			records := slices.ContainsFunc(d.Upkeep, func(u plan.Upkeep) bool {
				r, ok := u.(plan.RecordMember)
				return ok && r.Member == "prod-1" && r.InMemory && r.Annotations[cluster.AnnotationVolume] == "pod-prod-1/memory"
			})
			admits := slices.ContainsFunc(d.Upkeep, func(u plan.Upkeep) bool {
				a, ok := u.(plan.AdmitPod)
				return ok && a == plan.AdmitPod{Member: "prod-1", Pod: "prod-1-0", UID: "pod-prod-1"}
			})
			if records != c.records || admits != c.admits {
				t.Errorf("records %t, admits %t: %v", records, admits, sayOf(d).Upkeep)
			}
		})
	}
}

func TestAPodThatComesAfterALostOneIsStopped(t *testing.T) {
	d := Next(inMemory(3).Later(podGone("prod-1")).Snapshot())
	if got := sayOf(d).Upkeep; !slices.Contains(got, "stop prod-1") {
		t.Errorf("got %v", got)
	}
	if got := sayOf(Next(inMemory(3).Snapshot())); len(got.Upkeep) > 0 || got.Action != "" {
		t.Errorf("a healthy cluster gets %+v", got)
	}
}

// A founder in memory whose pod Kubernetes never made takes up a corrected spec. One with a pod may have voted.
func TestACorrectedSpecReachesFoundersInMemoryThatHadNoPod(t *testing.T) {
	const again = "Delete EtcdCluster prod and create it again"
	unnamed := func(s *cluster.Snapshot) {
		for i := range s.Members {
			s.Members[i].Volume.Remembered = cluster.VolumeIdentity{}
		}
	}
	founding := func(parts ...Part) *Builder {
		return MakeCluster("prod").InMemory("1Gi").Objects().Members(append([]Part{Volume, Founding}, parts...)...).Claim(v1beta1.OperationBootstrap)
	}
	noPod := Changed(func(m *cluster.Member) {
		m.Workload.CreateFailure, m.Volume.Identity = "exceeded quota: memory", cluster.VolumeIdentity{}
	})
	notPulled := Trouble(v1beta1.ReasonImagePullFailed, "the image cannot be pulled")
	for name, c := range map[string]struct {
		b                  *Builder
		corrects, recreate bool
	}{
		"pods that cannot be made":                  {founding(noPod).Later(unnamed).LaterSpec(memory("2Gi")), true, false},
		"the same spec":                             {founding(noPod).Later(unnamed), false, false},
		"a pod that was made, and is gone":          {founding(noPod).LaterSpec(memory("2Gi")), false, true},
		"pods whose image cannot be pulled":         {founding(FoundingPod, notPulled).LaterSpec(memory("2Gi")), false, true},
		"those, with the same spec":                 {founding(FoundingPod, notPulled), false, false},
		"pods that start":                           {founding(FoundingPod, Silent("refused")).LaterSpec(memory("2Gi")), false, false},
		"one that runs beside one without a pod":    {founding(FoundingPod, Silent("refused")).Member("prod-1", Volume, Founding, noPod).Later(func(s *cluster.Snapshot) { s.Member("prod-1").Volume.Remembered = cluster.VolumeIdentity{} }).LaterSpec(memory("2Gi")), true, false},
		"one that is healthy beside one with a pod": {inMemory(3).Member("prod-1", Volume, Founding, FoundingPod, notPulled).LaterSpec(memory("2Gi")), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(c.b.Snapshot())
			a, corrects := d.Action.(plan.RestartMember)
			if corrects != c.corrects || corrects && (a.Pod != "" || a.UID != "" || a.StatefulSet == nil) || strings.Contains(d.Message, again) != c.recreate {
				t.Errorf("corrects: %t: %s: %s", corrects, d.Reason, d.Message)
			}
		})
	}
}

func noMembership(s *cluster.Snapshot) { s.Membership = nil }

func TestMemoryLostIsToldWithoutAQuorumOnly(t *testing.T) {
	for name, c := range map[string]struct {
		b    *Builder
		want string
	}{
		"two of three": {
			inMemory(3).Later(podGone("prod-1")).Later(podGone("prod-2")).Later(noMembership), v1beta1.ReasonMemoryLost,
		},
		"one of three": {inMemory(3).Later(podGone("prod-1")), v1beta1.ReasonReplacingMember},
		"two of three whose nodes restarted a moment ago": {
			inMemory(3).Later(crashingFor("prod-1", time.Second)).Later(crashingFor("prod-2", time.Second)).Later(noMembership), v1beta1.ReasonMemoryLost,
		},
		"a node that restarted, and a pod that is gone": {
			inMemory(3).Later(crashingFor("prod-1", time.Second)).Later(podGone("prod-2")).Later(noMembership), v1beta1.ReasonMemoryLost,
		},
		"two of three that fail with their data": {
			inMemory(3).Later(crashingFor("prod-1", time.Second)).Later(crashingFor("prod-2", time.Second)).Later(noMembership).Later(func(s *cluster.Snapshot) {
				s.Member("prod-2").Pod.FailureDetail = "etcd used more memory than its limit and was killed"
			}), v1beta1.ReasonUpToDate,
		},
		"two of three on volumes that are empty": {
			healthy(3).Later(crashingFor("prod-1", time.Second)).Later(crashingFor("prod-2", time.Second)).Later(noMembership), v1beta1.ReasonUpToDate,
		},
	} {
		if d := Next(c.b.Snapshot()); d.Reason != c.want || d.Reason == v1beta1.ReasonMemoryLost && (d.Action != nil || !strings.Contains(d.Message, "prod-1, prod-2")) {
			t.Errorf("%s: got %s: %s", name, d.Reason, d.Message)
		}
	}
}

// A member in memory is never restarted: a new one is added for what the spec asks for.
func TestASpecReachesMembersInMemoryByNewMembers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*v1beta1.EtcdClusterSpec)
		want   string
	}{
		"another option": {func(s *v1beta1.EtcdClusterSpec) {
			s.Config = &v1beta1.Config{ExtraArgs: map[string]string{"max-wals": "3"}}
		}, "add prod-3+volume by prod-0, next 4"},
		"nothing":         {func(*v1beta1.EtcdClusterSpec) {}, ""},
		"another version": {func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.6.15" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(inMemory(3).LaterSpec(c.change).Snapshot())
			if got := actionText(d.Action); got != c.want {
				t.Errorf("got %q: %s", got, d.Message)
			}
			if refused := d.Reason == v1beta1.ReasonNotYetSupported; refused != (name == "another version") {
				t.Errorf("got %s: %s", d.Reason, d.Message)
			}
		})
	}
}

func TestALimitBelowDataAndQuotaIsRefusedInMemory(t *testing.T) {
	for limit, refused := range map[string]bool{"": false, "1400Mi": true, "1500Mi": false} {
		b := MakeCluster("prod").InMemory("1Gi").Later(func(s *cluster.Snapshot) {
			if limit != "" {
				s.Cluster.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}
			}
		})
		d := Next(b.Snapshot())
		if got := slices.ContainsFunc(d.Refusals, func(r plan.Refusal) bool { return r.Guard == "memoryFits" }); got != refused {
			t.Errorf("limit %q: got %s: %s", limit, d.Reason, d.Message)
		}
	}
}

func TestMemoryIsNeitherAddedNorRemovedNorResized(t *testing.T) {
	memoryOf := func(size string) *v1beta1.Storage {
		return &v1beta1.Storage{Ephemeral: &v1beta1.EphemeralStorage{Medium: v1beta1.EphemeralMemory, SizeLimit: resource.MustParse(size)}}
	}
	for name, c := range map[string]struct {
		b       *Builder
		storage *v1beta1.Storage
	}{
		"removed": {inMemory(3), nil},
		"added":   {MakeCluster("prod").Replicas(3).Objects().Members(Healthy), memoryOf("8Gi")},
		"resized": {inMemory(3), memoryOf("2Gi")},
	} {
		d := Next(c.b.LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Storage = c.storage }).Snapshot())
		if d.Reason != v1beta1.ReasonNotYetSupported || d.Action != nil || !strings.Contains(d.Message, "ephemeral") {
			t.Errorf("%s: got %s: %s", name, d.Reason, d.Message)
		}
	}
}

func TestTheBudgetInMemoryKeepsAllVotersButOne(t *testing.T) {
	budget := func(keeps int) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { s.Budget = render.Budget(s.Cluster, keeps) }
	}
	none := func(s *cluster.Snapshot) { s.Budget = nil }
	wanted := func(n int32) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = n }
	}
	removed := func(s *cluster.Snapshot) {
		s.Members = slices.DeleteFunc(s.Members, func(m cluster.Member) bool { return m.Name == "prod-1" })
		s.Membership.Members = slices.DeleteFunc(s.Membership.Members, func(m cluster.EtcdMember) bool { return m.Name == "prod-1" })
	}
	for name, c := range map[string]struct {
		b     *Builder
		keeps int
	}{
		"three":                                  {inMemory(3).Later(budget(1)), 2},
		"five":                                   {inMemory(5).Later(budget(1)), 4},
		"five, without a budget":                 {inMemory(5).Later(none), 4},
		"five on volumes":                        {MakeCluster("prod").Replicas(5).Objects().Members(Healthy).Later(none), 3},
		"five of which one is lost":              {inMemory(5).Later(podGone("prod-1")).Later(budget(1)), 4},
		"five of which one was removed":          {inMemory(5).Later(removed).Later(budget(4)), 4},
		"that, and the budget was deleted":       {inMemory(5).Later(removed).Later(none), 4},
		"three that grow to five":                {inMemory(3).Later(budget(2)).Later(wanted(5)), 2},
		"three that grow, of which one was lost": {inMemory(3).Later(removed).Later(budget(2)).Later(wanted(5)), 2},
		"five that shrink to three":              {inMemory(5).Later(budget(4)).Later(wanted(3)), 4},
		"four that shrink to three":              {inMemory(5).Later(removed).Later(budget(4)).Later(wanted(3)), 3},
	} {
		s := c.b.Snapshot()
		keeps := 0
		if s.Budget != nil {
			keeps = s.Budget.Spec.MinAvailable.IntValue()
		}
		for _, u := range Next(s).Upkeep {
			if a, ok := u.(plan.Apply); ok && a.Writes().Kind == "PodDisruptionBudget" {
				keeps = a.Desired.(*policyv1.PodDisruptionBudget).Spec.MinAvailable.IntValue()
			}
		}
		if keeps != c.keeps {
			t.Errorf("%s: it keeps %d, want %d", name, keeps, c.keeps)
		}
	}
}

func TestNoMemberJoinsWithItsDataElsewhereThanTheOthers(t *testing.T) {
	larger := func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = 5 }
	onVolumes := func(s *cluster.Snapshot) { s.Cluster.Spec.Storage = nil }
	if d := Next(inMemory(3).Later(larger).Snapshot()); d.Action == nil {
		t.Errorf("in memory, as the others: %s", d.Message)
	}
	if d := Next(inMemory(3).Later(larger).Later(onVolumes).Snapshot()); d.Action != nil || !strings.Contains(d.Message, "cannot be added or removed") {
		t.Errorf("on a volume beside memory: %#v, %s", d.Action, d.Message)
	}
}

// A pod that goes first has its member's replacement claimed. Then the others go, and nothing can end the claim.
func TestNoOperationStandsWhereNoQuorumHasItsMemory(t *testing.T) {
	replacing := func(s *cluster.Snapshot) {
		s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationReplaceMember, Member: "prod-0", StartedAt: metav1.NewTime(s.Now)}
	}
	for lost, want := range map[int]bool{1: false, 2: true} {
		b := inMemory(3).Later(podGone("prod-0"))
		if lost == 2 {
			b = b.Later(podGone("prod-1"))
		}
		d := Next(b.Later(noMembership).Later(replacing).Snapshot())
		if abandoned := d.Abandoned != ""; abandoned != want || want && d.Reason != v1beta1.ReasonMemoryLost {
			t.Errorf("%d of 3 lost: abandoned %q, %s: %s", lost, d.Abandoned, d.Reason, d.Message)
		}
	}
}
