package status

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

var update = flag.Bool("update", false, "write the golden files anew")

func situations() map[string]*Builder {
	prod := func() *Builder { return MakeCluster("prod") }
	alarm := func(kind cluster.AlarmKind) *Builder {
		return prod().Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
			s.Membership.Alarms = []cluster.Alarm{{Member: 0xa1, Kind: kind}}
		})
	}
	quota := `pods "prod-0-0" is forbidden: exceeded quota: compute, requested: cpu=100m, used: cpu=0, limited: cpu=0`
	noPod := Changed(func(m *cluster.Member) { m.Workload.CreateFailure = quota })
	runsFor := func(d time.Duration) Part {
		return Changed(func(m *cluster.Member) { m.Pod.StartedAt, m.Pod.Ready = Now.Add(-d), true })
	}
	existsFor := func(d time.Duration) Part {
		return Changed(func(m *cluster.Member) { m.Pod.CreatedAt = Now.Add(-d) })
	}
	replaced := Changed(func(m *cluster.Member) {
		m.Volume.Remembered = cluster.VolumeIdentity{Claim: "c0ffee", Name: "pv-1"}
		m.Volume.Identity = cluster.VolumeIdentity{Claim: "decade", Name: "pv-2"}
	})
	inMemory := func() *Builder { return prod().InMemory("1Gi").Objects().Members(Healthy) }
	foreign := func(kind, name string, claimable bool) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			s.ForeignObjects = append(s.ForeignObjects, cluster.ForeignObject{Kind: kind, Name: name, Owner: "has no owner", LacksOwnerReference: claimable})
		}
	}
	emptied := "etcd ended with exit code 1: " + cluster.EmptyData
	return map[string]*Builder{
		"created":             prod(),
		"volumes-partly-made": prod().Objects().Member("prod-0", Volume).Member("prod-1").Member("prod-2").Claim("Bootstrap"),
		"starting":            prod().Objects().Members(Volume, Founding, FoundingPod).Claim("Bootstrap"),
		"partly-started": prod().Objects().Members(Volume, Recorded, Sealed, Pod, Serving).
			Member("prod-2", Volume, Founding, FoundingPod, Silent("connection refused")).Claim("Bootstrap"),
		"healthy":        prod().Objects().Members(Healthy),
		"healthy-single": prod().Replicas(1).Objects().Members(Healthy),
		"no-pod-ready":   prod().Objects().Members(Healthy, Changed(func(m *cluster.Member) { m.Pod.Ready = false })),
		"one-down":       prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, Pod, Silent("no answer")),
		"one-down-of-five": prod().Replicas(5).Objects().Members(Healthy).
			Member("prod-4", Volume, Recorded, Sealed, Pod, Changed(func(m *cluster.Member) { m.Pod.NodeLost = true })),
		"quorum-lost":                  prod().Objects().Members(Volume, Recorded, Sealed).Member("prod-0", Volume, Recorded, Sealed, Pod, Leaderless),
		"secret-missing":               prod().TLS().Objects().Members(Volume, Recorded, Sealed, Pod).Missing(cluster.RoleOperator),
		"secret-missing-and-pods-gone": prod().TLS().Objects().Members(Volume, Recorded, Sealed).Missing(cluster.RolePeer),
		"secret-missing-at-first":      prod().TLS().Missing(cluster.RolePeer),
		"founder-wiped":                prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, Pod, Trouble("CrashLooping", emptied)),
		"volume-lost":                  prod().Objects().Members(Healthy).Member("prod-1", Sealed, Pod, Trouble("Unschedulable", `persistentvolumeclaim "data-prod-1" not found`)),
		"memory-of-one-lost":           inMemory().Member("prod-1", Volume, Recorded, Sealed, replaced),
		"memory-lost": inMemory().Member("prod-1", Volume, Recorded, Sealed, replaced).Member("prod-2", Volume, Recorded, Sealed, replaced).
			Member("prod-0", Volume, Recorded, Sealed, Pod, Leaderless),
		"memory-emptied":      prod().InMemory("1Gi").Objects().Members(Volume, Recorded, Sealed, Pod, Silent("connection refused"), Trouble("CrashLooping", emptied)),
		"memory-records-lost": prod().InMemory("1Gi").Objects().Later(func(s *cluster.Snapshot) { s.Cluster.Status.ClusterID = "c1" }),
		"all-volumes-lost":    prod().Objects().Later(func(s *cluster.Snapshot) { s.Cluster.Status.ClusterID = "c1" }),
		"image-not-pulled": prod().Objects().Members(Volume, Founding, FoundingPod,
			Trouble("ImagePullFailed", "image example.org/etcd:v3.6.16 cannot be pulled; kubectl describe pod prod-0-0 tells why")).Claim("Bootstrap"),
		"change-not-supported": prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.7.0" }),
		"member-added":         prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }),
		"member-copies":        copying(prod().Claim(v1beta1.OperationAddMember)),
		"member-copies-long":   copying(prod()),
		"member-removed":       prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 1 }),
		"registered-by-hand": prod().Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
			s.Membership.Members = append(s.Membership.Members, cluster.EtcdMember{ID: 0xff, PeerURLs: []string{"http://192.0.2.1:2380"}})
			s.SortMembers()
		}),
		"removed-by-hand": prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, Pod, Silent("connection refused"), Trouble("CrashLooping",
			"etcd ended with exit code 1: the member has been permanently removed from the cluster")).Later(func(s *cluster.Snapshot) {
			s.Membership.Members = slices.Delete(s.Membership.Members, 1, 2)
			s.SortMembers()
		}),
		"paused":              prod().Objects().Members(Healthy).Paused(),
		"rolling":             prod().Objects().Members(Healthy).LaterSpec(moreMemory),
		"rolling-and-waiting": prod().Objects().Members(Healthy).LaterSpec(moreMemory).Later(restarting(time.Minute)),
		"rolling-past-deadline": prod().Objects().Members(Healthy).LaterSpec(moreMemory).Later(restarting(time.Hour)).
			Later(func(s *cluster.Snapshot) {
				s.Cluster.Status.Operation, s.Member("prod-1").Workload.HealthyIntent = nil, nil // nothing to go back to
			}),
		"rolling-back": prod().Objects().Members(Healthy).LaterSpec(moreMemory).Later(restarting(2 * time.Minute)).Later(func(s *cluster.Snapshot) {
			p := s.Member("prod-1").Pod
			p.CreatedAt, p.FailureReason, p.FailureDetail = Now.Add(-time.Minute), v1beta1.ReasonCrashLooping, "etcd used more memory than its limit and was killed"
		}),
		"old-version":     MakeCluster("prod").Version("3.6.13").Objects().Members(Healthy),
		"version-skipped": MakeCluster("prod").Version("3.5.35").Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.7.3" }),
		"rolled-back": prod().Objects().Members(Healthy).LaterSpec(moreMemory).Later(func(s *cluster.Snapshot) {
			s.Member("prod-1").Workload.Live.Annotations[cluster.AnnotationFailedIntent] = cluster.FailedIntent(cluster.IntentOf(s.Cluster),
				"The pod of prod-1 does not run (CrashLooping): etcd used more memory than its limit and was killed.")
		}),
		"rolled-back-and-down": prod().Objects().Members(Healthy).LaterSpec(moreMemory).Later(func(s *cluster.Snapshot) {
			m := s.Member("prod-1")
			m.Workload.Live.Annotations[cluster.AnnotationFailedIntent] = cluster.FailedIntent(cluster.IntentOf(s.Cluster),
				"The pod of prod-1 does not run (CrashLooping): etcd used more memory than its limit and was killed.")
			m.Pod, m.Probe, m.Workload.CreateFailure = nil, nil, "exceeded quota: pods"
		}),
		"no-space": alarm(cluster.AlarmNoSpace),
		"corrupt": prod().Objects().Members(Healthy, Changed(func(m *cluster.Member) { m.Pod.Ready = false })).
			Later(func(s *cluster.Snapshot) {
				s.Membership.Alarms = []cluster.Alarm{{Member: 0, Kind: cluster.AlarmCorrupt}}
			}),
		"corrupt-and-frozen": alarm(cluster.AlarmCorrupt).Later(func(s *cluster.Snapshot) { s.Hold = &cluster.Hold{ByNamespace: true} }),
		"corrupt-and-paused": alarm(cluster.AlarmCorrupt).Paused(),
		"corrupt-and-no-space": alarm(cluster.AlarmNoSpace).Later(func(s *cluster.Snapshot) {
			s.Membership.Alarms = append(s.Membership.Alarms, cluster.Alarm{Member: 0xa2, Kind: cluster.AlarmCorrupt})
		}),
		"pods-not-created":   prod().Objects().Members(Volume, Founding, noPod).Claim("Bootstrap"),
		"network-cut-off":    prod().Objects().Members(Volume, Founding, FoundingPod, Silent("the connection timed out"), runsFor(time.Minute)).Claim("Bootstrap"),
		"network-slow":       prod().Objects().Members(Volume, Founding, FoundingPod, Silent("the connection timed out"), runsFor(29*time.Second)).Claim("Bootstrap"),
		"pods-never-started": prod().Objects().Members(Volume, Founding, FoundingPod, existsFor(6*time.Minute)).Claim("Bootstrap"),
		"one-never-started":  prod().Objects().Members(Healthy).Member("prod-2", Volume, Founding, FoundingPod, existsFor(6*time.Minute)),
		"one-without-statefulset": prod().LaterSpec(replacedByHand).Objects().Members(Healthy).Member("prod-2", Volume, func(_ *Builder, m *cluster.Member) {
			m.Volume.CreatedAt, m.Workload = Now.Add(-time.Minute), nil
		}),
		"one-never-scheduled": prod().Objects().Members(Healthy).Member("prod-2", Volume, Founding, FoundingPod, Trouble("Unschedulable", "0/2 nodes are available.")),
		"volume-replaced":     prod().LaterSpec(replacedByHand).Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, replaced),
		"node-deleted": prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, Pod, Silent("no answer"), Changed(func(m *cluster.Member) {
			m.Pod.NodeLost, m.Node, m.Volume.Confined = true, &cluster.Node{Name: "node-1", Deleted: true}, true
		})),
		"node-unknown": prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, Pod, Silent("no answer"), Changed(func(m *cluster.Member) {
			m.Pod.NodeLost = true
		})),
		"claim-without-record": prod().Objects().Members(Healthy).Member("prod-1", Volume, Sealed, Changed(func(m *cluster.Member) {
			m.Volume.Identity = cluster.VolumeIdentity{Claim: "decade", Name: "pv-2"}
		})),
		"volume-replaced-unbound": prod().LaterSpec(replacedByHand).Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, replaced, Changed(func(m *cluster.Member) {
			m.Volume.Identity.Name = ""
		})),
		"operator-cut-off": prod().Objects().Members(Volume, Recorded, Sealed, Pod, Silent("the connection timed out"), Changed(func(m *cluster.Member) {
			m.Pod.Ready, m.Pod.PassesReadiness = true, true
		})),
		"election-too-long": prod().Objects().Members(Volume, Recorded, Sealed, Pod, Leaderless),
		"cluster-id-conflict": prod().Objects().Members(Healthy).
			Member("prod-1", Volume, Recorded, Sealed, Pod, Serving, Changed(func(m *cluster.Member) { m.Volume.ClusterID, m.Probe.ClusterID = 0xc2, 0xc2 })),
		"foreign-service":                  prod().Stranger("Service", "prod", false),
		"foreign-secret":                   prod().Managed().Objects().Members(Healthy).Later(foreign("Secret", "prod-client-tls", true)),
		"foreign-secret-and-paused":        prod().Managed().Paused().Objects().Members(Healthy).Later(foreign("Secret", "prod-client-tls", true)),
		"foreign-service-beside-a-cluster": prod().Objects().Members(Healthy).Later(foreign("Service", "prod-client", false)),
		"foreign-secrets-that-are-lost": prod().Managed().Objects().Members(Healthy).Later(foreign("Secret", "prod-peer-ca", true)).
			Later(func(s *cluster.Snapshot) {
				s.PeerTrust = cluster.Trust{Source: cluster.SourceManaged, Authority: cluster.Authority{ObjectVersion: cluster.ObjectVersion{Name: "prod-peer-ca"}}}
			}),
		"secret-unreadable": prod().Managed().Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
			s.ForeignObjects = append(s.ForeignObjects, cluster.ForeignObject{Kind: "Secret", Name: "prod-peer-ca", Owner: "cannot be read", Unreadable: `secrets "prod-peer-ca" is forbidden`})
		}),
		"data-agree":       compared("", 1, 1, 1),
		"data-differ":      compared(cluster.AlarmCorrupt, 1, 2, 1),
		"data-no-majority": compared(cluster.AlarmCorrupt, 1, 2, 3),
		"data-too-large": alarm(cluster.AlarmCorrupt).Later(func(s *cluster.Snapshot) {
			s.Member("prod-2").Probe.DatabaseBytesInUse = cluster.ConsistencyLimit + 1
		}),
		"data-being-compared": alarm(cluster.AlarmCorrupt).Claim(v1beta1.OperationCheckConsistency).Later(func(s *cluster.Snapshot) {
			s.Cluster.Status.Operation.Member = ""
			s.Comparison = &cluster.Comparison{Cause: "etcd reports an alarm for corrupt data of member a2", Voters: []cluster.ID{0xa1, 0xa2, 0xa3}, Revision: 7, Attempt: 1, Asked: "prod-1"}
		}),
		"previous-leaving": prod().Stranger("StatefulSet", "prod-0", true),
		"template-newer":   prod().Objects().Members(Healthy).Later(func(s *cluster.Snapshot) { s.Members[1].Pod.RenderHash = "older" }),
		"taking-back":      prod().Objects().Kept(nil, "prod-0", "prod-1", "prod-2"),
	}
}

// compared is a cluster with an alarm, whose members told these hashes when their data were compared for it.
func compared(kind cluster.AlarmKind, hashes ...uint32) *Builder {
	return MakeCluster("prod").Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
		if kind != "" {
			s.Membership.Alarms = []cluster.Alarm{{Member: 0xa2, Kind: kind}}
		}
		c := &cluster.Comparison{Cause: "etcd reports an alarm for corrupt data of member a2", Revision: 7, Attempt: 1, Ended: Now}
		for i, hash := range hashes {
			m := &s.Members[i]
			c.Voters = append(c.Voters, m.Probe.MemberID)
			c.Answers = append(c.Answers, cluster.Answer{Member: m.Name, ID: m.Probe.MemberID, DataHash: cluster.DataHash{Hash: hash}})
		}
		s.Comparison = c
	})
}

// copying is a cluster with a learner that has started.
func copying(b *Builder) *Builder {
	return b.Objects().Members(Healthy).Member("prod-3", Healthy).Later(func(s *cluster.Snapshot) {
		s.Cluster.Spec.Replicas = 5
		if op := s.Cluster.Status.Operation; op != nil {
			op.Member = "prod-3"
		}
		m := s.Member("prod-3")
		m.Probe.Learner, m.Probe.Linearizable, m.Pod.Ready, m.Pod.PassesReadiness = true, false, false, false
		s.Membership.Members = append(s.Membership.Members, cluster.EtcdMember{
			ID: m.Probe.MemberID, Name: m.Name, PeerURLs: []string{m.Volume.PeerURL}, Learner: true, Started: true,
		})
	})
}

func moreMemory(s *v1beta1.EtcdClusterSpec) {
	s.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
}

// restarting is a cluster in which prod-1 was restarted some time ago, to load the spec, and does not answer yet.
func restarting(ago time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m, before := s.Member("prod-1"), s.Member("prod-1").Workload.Intent
		op := &v1beta1.Operation{Type: v1beta1.OperationRollMember, Member: m.Name, StartedAt: metav1.NewTime(Now.Add(-ago)), Reason: v1beta1.ReasonRollingMembers}
		s.Cluster.Status.Operation = op
		in := render.MemberInput{Cluster: s.Cluster, Name: m.Name, Intent: cluster.IntentOf(s.Cluster), Operation: cluster.OperationMark(op.Type, op.StartedAt.Time)}
		in.HealthyIntent, _ = before.Encode()
		live := render.MemberStatefulSet(in)
		m.Workload = &cluster.Workload{Intent: in.Intent, HealthyIntent: &before, IntentHash: live.Annotations[cluster.AnnotationIntentHash], Live: live}
		m.Pod.IntentHash, m.Pod.RenderHash = m.Workload.IntentHash, live.Spec.Template.Annotations[cluster.AnnotationRenderHash]
		m.Pod.Ready, m.Pod.PassesReadiness, m.Probe = false, false, &cluster.Probe{Error: "connection refused"}
	}
}

func replacedByHand(s *v1beta1.EtcdClusterSpec) {
	s.Recovery = &v1beta1.Recovery{MemberReplacement: &v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually}}
}

func TestSituations(t *testing.T) {
	for name, b := range situations() {
		t.Run(name, func(t *testing.T) {
			s := b.Snapshot()
			if !strings.HasPrefix(name, "data-") {
				NeverCompared(&s) // the usual case: etcd's own check is the proof
			}
			d := analyse.Next(s)
			got := text(Of(&s, &d, nil))
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("wanted -, got + (go test ./internal/status -update writes it):\n%s", diff)
			}
		})
	}
}

// text is a report as a reviewer reads it.
func text(r Report) string {
	var b strings.Builder
	st := r.Status
	fmt.Fprintf(&b, "%d of %d ready, version %q, target %q, leader %q, cluster ID %q\n", st.ReadyReplicas, st.Replicas, st.Version, st.TargetVersion, st.Leader, st.ClusterID)
	for _, m := range st.Members {
		fmt.Fprintf(&b, "member %s id=%s %s %s ready=%t %s\n", m.Name, m.ID, m.Role, m.Version, m.Ready, m.Reason)
	}
	if op := st.Operation; op != nil {
		fmt.Fprintf(&b, "%s of %s for %s, waiting for: %s\n", op.Type, op.Member, op.Reason, op.WaitingFor)
	}
	for _, c := range st.Conditions {
		fmt.Fprintf(&b, "%s=%s %s\n    %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	for _, e := range r.Events {
		fmt.Fprintf(&b, "event %s %s\n    %s\n", e.Type, e.Reason, e.Message)
	}
	// The golden files stay as they are when a newer patch is tested.
	return strings.ReplaceAll(b.String(), "Set spec.version to "+cluster.TestedVersion("3.6"), "Set spec.version to 3.6.TESTED")
}

func TestASecondLookAtTheSameChangesNothingAndTellsNothing(t *testing.T) {
	for name, b := range situations() {
		t.Run(name, func(t *testing.T) {
			s := b.Snapshot()
			if !strings.HasPrefix(name, "data-") {
				NeverCompared(&s)
			}
			d := analyse.Next(s)
			first := Of(&s, &d, nil)
			later := s
			if s.Cluster.Status.Operation == nil { // its deadline is not passed
				later.Now = s.Now.AddDate(0, 0, 1)
			}
			later.Members = slices.Clone(s.Members)
			for i := range later.Members { // all as old as before: the text names no time, but deadlines are not passed
				if p := later.Members[i].Pod; p != nil && later.Now != s.Now {
					pod := *p
					pod.CreatedAt = p.CreatedAt.AddDate(0, 0, 1)
					if !p.StartedAt.IsZero() {
						pod.StartedAt = p.StartedAt.AddDate(0, 0, 1)
					}
					later.Members[i].Pod = &pod
				}
			}
			if c := s.Comparison; c != nil && later.Now != s.Now {
				compared := *c
				compared.Ended = c.Ended.AddDate(0, 0, 1)
				later.Comparison = &compared
			}
			later.Cluster = s.Cluster.DeepCopy()
			if op := first.Status.Operation; op != nil && later.Now != s.Now {
				claim := *op
				claim.StartedAt = metav1.NewTime(op.StartedAt.AddDate(0, 0, 1))
				first.Status.Operation = &claim
			}
			later.Cluster.Status = first.Status
			again := analyse.Next(later)
			again.Action = nil // carried out
			second := Of(&later, &again, nil)
			if !equality.Semantic.DeepEqual(first.Status, second.Status) {
				t.Errorf("the status changed: %s", cmp.Diff(first.Status, second.Status))
			}
			if len(second.Events) > 0 {
				t.Errorf("told again: %v", second.Events)
			}
		})
	}
}

var unfit = regexp.MustCompile(`%!|\d\d:\d\d|\.\.( |$)|  |\b10\.0\.0\.|uid-`)

func TestMessagesAreWholeSentencesWithoutTimesOrAddresses(t *testing.T) {
	for name, b := range situations() {
		s := b.Snapshot()
		NeverCompared(&s)
		d := analyse.Next(s)
		for _, c := range Of(&s, &d, nil).Status.Conditions {
			if c.Reason == "" || !strings.HasSuffix(c.Message, ".") || unfit.MatchString(c.Message) {
				t.Errorf("%s: %s %s: %q", name, c.Type, c.Reason, c.Message)
			}
		}
	}
}

func TestTellsNothingOfAnElectionUntilItTakesTooLong(t *testing.T) {
	healthy := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
	d := analyse.Next(healthy)
	status := Of(&healthy, &d, nil).Status
	for _, c := range []struct {
		what    string
		timeout string
		since   time.Duration
		told    bool
	}{
		{"the first answers without a leader", "", 0, false},
		{"the last moment of an election", "", 3*time.Second - time.Millisecond, false},
		{"an election timeout and 2 s later", "", 3 * time.Second, true},
		{"a long election", "10000", 11 * time.Second, false},
		{"a long election that takes too long", "10000", 12 * time.Second, true},
	} {
		b := MakeCluster("prod")
		if c.timeout != "" {
			b.Snapshot().Cluster.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"election-timeout": c.timeout}}
		}
		s := b.Objects().Members(Volume, Recorded, Sealed, Pod, Leaderless).
			Later(func(s *cluster.Snapshot) { s.LeaderlessSince = Now.Add(-c.since) }).Snapshot()
		s.Cluster.Status = status
		d := analyse.Next(s)
		report := Of(&s, &d, nil)
		lost := meta.IsStatusConditionTrue(report.Status.Conditions, v1beta1.ConditionQuorumLost)
		down := meta.IsStatusConditionFalse(report.Status.Conditions, v1beta1.ConditionAvailable)
		if lost != c.told || down != c.told || len(report.Events) > 0 != c.told {
			t.Errorf("%s: quorum lost %v, down %v, %v", c.what, lost, down, report.Events)
		}
		if !c.told && !equality.Semantic.DeepEqual(report.Status, status) {
			t.Errorf("%s: the status changes: %s", c.what, cmp.Diff(status, report.Status))
		}
		if end := map[string]time.Duration{"": 3 * time.Second, "10000": 12 * time.Second}[c.timeout]; !c.told && d.RequeueAfter > end-c.since {
			t.Errorf("%s: the next pass is in %v", c.what, d.RequeueAfter)
		}
	}
}

// A member list is a linearizable read, so a quorum serves whatever the members told before.
func TestAMemberThatIsJustPromotedAndStillCallsItselfALearnerCostsNoQuorum(t *testing.T) {
	s := MakeCluster("prod").Replicas(2).Objects().Members(Healthy).Snapshot()
	s.Member("prod-1").Probe.Learner, s.Member("prod-1").Probe.Linearizable = true, false
	isTrue := func(s cluster.Snapshot, kind string) bool {
		d := analyse.Next(s)
		return meta.IsStatusConditionTrue(Of(&s, &d, nil).Status.Conditions, kind)
	}
	if isTrue(s, v1beta1.ConditionQuorumLost) || !isTrue(s, v1beta1.ConditionAvailable) {
		t.Error("the quorum counts as lost, although a voter returned the member list")
	}
	s.Membership = nil
	if !isTrue(s, v1beta1.ConditionQuorumLost) || isTrue(s, v1beta1.ConditionAvailable) {
		t.Error("the quorum does not count as lost, although no voter returned the member list")
	}
}

func TestTellsAtOnceThatTooFewPodsRunForAQuorum(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Volume, Recorded, Sealed).
		Member("prod-0", Volume, Recorded, Sealed, Pod, Leaderless).Snapshot()
	if s.IsLeaderless() {
		t.Fatal("one of three voters is taken for an election")
	}
	d := analyse.Next(s)
	if !meta.IsStatusConditionTrue(Of(&s, &d, nil).Status.Conditions, v1beta1.ConditionQuorumLost) {
		t.Error("QuorumLost is not true")
	}
}

func TestReportsAnAbandonedOperation(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Claim(v1beta1.OperationRollMember).Snapshot()
	s.Cluster.Status.Operation.Member = "prod-1"
	d := plan.Decision{Reason: v1beta1.ReasonUpToDate, Message: "Done.", Finished: true, Abandoned: "It did not finish within 10m0s."}
	want := Event{corev1.EventTypeWarning, v1beta1.EventOperationAbandoned, "Operation RollMember of prod-1 was abandoned. It did not finish within 10m0s."}
	if got := Of(&s, &d, nil).Events; len(got) != 1 || got[0] != want {
		t.Errorf("got %v", got)
	}
}

func TestConditionsThatTurnAreTold(t *testing.T) {
	healthy := MakeCluster("prod").Objects().Members(Healthy)
	down := MakeCluster("prod").Objects().Members(Volume, Recorded, Sealed, Pod, Silent("no answer"))
	first := healthy.Snapshot()
	d := analyse.Next(first)
	report := Of(&first, &d, nil)
	if len(report.Events) > 0 {
		t.Errorf("a good beginning is no news: %v", report.Events)
	}
	var got []string
	for _, b := range []*Builder{down, MakeCluster("prod").Objects().Members(Healthy)} {
		s := b.Snapshot()
		s.Cluster.Status = report.Status
		d := analyse.Next(s)
		report = Of(&s, &d, nil)
		for _, e := range report.Events {
			got = append(got, e.Type+" "+e.Reason)
		}
	}
	want := []string{
		"Warning NoQuorum", "Warning MembersNotReady",
		"Normal QuorumServing", "Normal AsExpected", // Available and QuorumLost turned for one reason
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOfEventsOfOneReasonTheOneThatSaysMoreIsSent(t *testing.T) {
	s := MakeCluster("prod").TLS().Missing(cluster.RolePeer).Snapshot()
	s.Cluster.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"data-dir": "/data"}}
	d := analyse.Next(s)
	var notes []string
	for _, e := range Of(&s, &d, nil).Events {
		if e.Reason == "SecretNotFound" {
			notes = append(notes, e.Message)
		}
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "Secret peer") || !strings.Contains(notes[0], "data-dir:") {
		t.Errorf("got %q", notes)
	}
}

func TestTheEventOfAFinishedOperationTellsThatTheClusterServes(t *testing.T) {
	for name, c := range map[string]struct {
		decision plan.Decision
		want     []string
	}{
		"finished": {plan.Decision{Finished: true}, []string{"OperationFinished: Operation Bootstrap is done. 3 of 3 voters are healthy, and the quorum is 2."}},
		"abandoned": {plan.Decision{Finished: true, Abandoned: "It took too long."}, []string{
			"OperationAbandoned: Operation Bootstrap was abandoned. It took too long.", "QuorumServing: 3 of 3 voters are healthy, and the quorum is 2.",
		}},
		"goes on": {plan.Decision{}, nil}, // its end will tell
	} {
		t.Run(name, func(t *testing.T) {
			s := MakeCluster("prod").Objects().Members(Healthy).Claim(v1beta1.OperationBootstrap).Snapshot()
			meta.SetStatusCondition(&s.Cluster.Status.Conditions, metav1.Condition{
				Type: v1beta1.ConditionAvailable, Status: metav1.ConditionFalse, Reason: v1beta1.ReasonNotStarted,
			})
			c.decision.Reason = v1beta1.ReasonUpToDate
			var got []string
			for _, e := range Of(&s, &c.decision, nil).Events {
				got = append(got, e.Reason+": "+e.Message)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheEndOfADowngradesStepTellsWhichStepItWas(t *testing.T) {
	for reason, want := range map[string]string{
		v1beta1.ReasonDowngrading:         "Operation Downgrade (preparation of the data) is done.",
		v1beta1.ReasonRenewingLog:         "Operation Downgrade (renewal of the log) is done.", // in an upgrade
		v1beta1.ReasonCancellingDowngrade: "Operation Downgrade (cancellation) is done.",
	} {
		s := MakeCluster("prod").Objects().Members(Healthy).Claim(v1beta1.OperationDowngrade).Snapshot()
		s.Cluster.Status.Operation.Reason = reason
		d := plan.Decision{Finished: true, Reason: v1beta1.ReasonUpToDate}
		if got := Of(&s, &d, nil).Events[0].Message; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", reason, got)
		}
	}
}

func TestActsAndFinishedOperationsAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		cluster *Builder
		outcome error
		want    string
	}{
		"founded":               {MakeCluster("prod").Objects(), nil, "Normal BootstrapStarted"},
		"a founding that fails": {MakeCluster("prod").Objects(), errors.New("conflict"), ""},
		"taken back":            {MakeCluster("prod").Objects().Kept(nil, "prod-0", "prod-1"), nil, "Normal VolumesTakenBack"},
		"resumed":               {MakeCluster("prod").Objects().Members(Volume, Recorded), nil, "Normal MembersResumed"},
		"done":                  {MakeCluster("prod").Objects().Members(Healthy).Claim("Resume"), nil, "Normal OperationFinished"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.cluster.Snapshot()
			d := analyse.Next(s)
			report := Of(&s, &d, c.outcome)
			got := ""
			for _, e := range report.Events {
				if e.Reason != v1beta1.ReasonNoQuorum && e.Reason != v1beta1.ReasonMembersNotReady {
					got = strings.TrimSpace(got + " " + e.Type + " " + e.Reason)
				}
			}
			if got != c.want {
				t.Errorf("wanted %q, got %q", c.want, got)
			}
			if d.Finished && report.Status.Operation != nil {
				t.Error("the claim stands")
			}
		})
	}
}

func TestARefusalAtTheLastMomentIsReported(t *testing.T) {
	s := MakeCluster("prod").Objects().Snapshot()
	d := analyse.Next(s)
	refusal := plan.RefuseForeignObject(cluster.ForeignObject{Kind: "PersistentVolumeClaim", Name: "data-prod-0", Owner: "has no owner"})
	report := Of(&s, &d, fmt.Errorf("acting: %w", refusal))
	for _, c := range report.Status.Conditions {
		if c.Type == v1beta1.ConditionProgressing && (c.Status != "False" || c.Reason != v1beta1.ReasonForeignObject || c.Message != refusal.Message) {
			t.Errorf("got %+v", c)
		}
		if c.Type == v1beta1.ConditionDegraded && c.Status != "True" {
			t.Errorf("got %+v", c)
		}
	}
	if len(report.Events) != 1 || report.Events[0].Type != corev1.EventTypeWarning {
		t.Errorf("got %v", report.Events)
	}
	if len(d.Refusals) > 0 {
		t.Error("the decision was changed")
	}
}

func TestEveryRefusalOfAPassIsReported(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
	d := analyse.Next(s)
	first := &plan.Refusal{Reason: v1beta1.ReasonWriteRefused, Message: "No budgets here."}
	second := &plan.Refusal{Reason: v1beta1.ReasonWriteRefused, Message: "Secret prod-peer-tls is immutable."}
	report := Of(&s, &d, errors.Join(errors.New("connection refused"), first, fmt.Errorf("writing: %w", second)))
	for _, kind := range []string{v1beta1.ConditionProgressing, v1beta1.ConditionDegraded} {
		c := meta.FindStatusCondition(report.Status.Conditions, kind)
		if c.Reason != v1beta1.ReasonWriteRefused || c.Message != "No budgets here. Secret prod-peer-tls is immutable." {
			t.Errorf("got %+v", c)
		}
	}
	if refusals, rest := plan.Refusals(errors.Join(first, second)); len(refusals) != 2 || rest != nil {
		t.Errorf("got %v, %v", refusals, rest)
	}
}

func TestTellsThatMissingSecretsAreCreatedAgain(t *testing.T) {
	gone := func(s *cluster.Snapshot) {
		c := &s.ClientTrust.Certificates[2]
		*c = cluster.Certificate{ObjectVersion: cluster.ObjectVersion{Name: c.Name}, Role: c.Role}
	}
	due := func(s *cluster.Snapshot) { s.ClientTrust.Certificates[2].RenewalDue = Now }
	prod := func() *Builder { return MakeCluster("prod").Managed().Objects() }
	for name, test := range map[string]struct {
		cluster *Builder
		want    string
	}{
		"beside members": {prod().Members(Healthy).Later(gone), "prod-client-tls"},
		"and an authority": {prod().Members(Healthy).Later(func(s *cluster.Snapshot) {
			s.PeerTrust.Authority = cluster.Authority{ObjectVersion: cluster.ObjectVersion{Name: "prod-peer-ca"}}
		}), "prod-peer-ca"},
		"not those of a new cluster": {prod().Later(gone), ""},
		"not a renewal":              {prod().Members(Healthy).Later(due), ""},
	} {
		s := test.cluster.Snapshot()
		d := analyse.Next(s)
		told := ""
		for _, e := range Of(&s, &d, nil).Events {
			if e.Reason == v1beta1.EventSecretsRecreated {
				told = e.Message
			}
		}
		if (told == "") != (test.want == "") || !strings.Contains(told, test.want) {
			t.Errorf("%s: %q", name, told)
		}
	}
}

func TestEventsFitTheirLimit(t *testing.T) {
	s := MakeCluster("prod").Broken(strings.Repeat("ä", 2000), cluster.RolePeer).Snapshot()
	d := analyse.Next(s)
	report := Of(&s, &d, nil)
	if len(report.Events) == 0 {
		t.Fatal("nothing was told")
	}
	for _, e := range report.Events {
		if len(e.Message) > maxNote || !strings.HasSuffix(e.Message, "ä... (shortened)") {
			t.Errorf("%d bytes: %q", len(e.Message), e.Message)
		}
	}
}

func TestAnAlarmStaysWhileNobodyCanBeAsked(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
		s.Membership.Alarms = []cluster.Alarm{{Member: 0xa1, Kind: cluster.AlarmNoSpace}}
	}).Snapshot()
	d := analyse.Next(s)
	before := Of(&s, &d, nil).Status
	s = MakeCluster("prod").Objects().Members(Volume, Recorded, Sealed, Pod, Silent("no answer")).Snapshot()
	s.Cluster.Status = before
	d = analyse.Next(s)
	for _, c := range Of(&s, &d, nil).Status.Conditions {
		if c.Type == v1beta1.ConditionStorageAlarm && c.Status != "True" {
			t.Errorf("got %+v", c)
		}
	}
}

func TestADeletedClusterKeepsItsLastReport(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
	d := analyse.Next(s)
	last := Of(&s, &d, nil).Status
	s = MakeCluster("prod").Deleted().Snapshot()
	s.Cluster.Status = last
	d = analyse.Next(s)
	got := Of(&s, &d, nil).Status
	if got.Replicas != 3 || len(got.Members) != 3 || got.ClusterID != "c1" {
		t.Errorf("got %+v", got)
	}
}

func TestConditionsAndMembersAreBounded(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
	for n := range 100 {
		name := cluster.MemberName("prod", 10+n)
		s.Members = append(s.Members, cluster.Member{Name: name, Pod: &cluster.Pod{
			Name: name, FailureReason: v1beta1.ReasonUnschedulable, FailureDetail: strings.Repeat("ä\n", 500),
		}})
	}
	d := analyse.Next(s)
	report := Of(&s, &d, nil)
	if got := len(report.Status.Members); got != cluster.MaxMembers {
		t.Errorf("the status has %d members", got)
	}
	cut := 0
	for _, c := range report.Status.Conditions {
		if len(c.Message) > 8<<10 || !utf8.ValidString(c.Message) || strings.Contains(c.Message, "\n") {
			t.Errorf("the message of %s has %d bytes: %.200q", c.Type, len(c.Message), c.Message)
		}
		if strings.HasSuffix(c.Message, "... (shortened)") {
			cut++
		}
	}
	if cut == 0 {
		t.Error("no message says that it was shortened")
	}
}

func TestShowsHowManyMembersAreReadyOfThoseThatTheSpecAsksFor(t *testing.T) {
	for want, b := range map[string]*Builder{
		"0/3": MakeCluster("prod"),
		"3/3": MakeCluster("prod").Objects().Members(Healthy),
		"3/5": MakeCluster("prod").Objects().Members(Healthy).Replicas(5),
		"3/1": MakeCluster("prod").Objects().Members(Healthy).Replicas(1),
	} {
		s := b.Snapshot()
		d := analyse.Next(s)
		if got := Of(&s, &d, nil).Status.Ready; got != want {
			t.Errorf("the status shows %s, want %s", got, want)
		}
	}
}

func TestTheStatusHoldsVersionsOnly(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).
		Member("prod-1", Volume, Recorded, Sealed, Pod, Changed(func(m *cluster.Member) { m.Volume.Version = "see\nhttps://example.org" })).Snapshot()
	d := analyse.Next(s)
	if got := Of(&s, &d, nil).Status.Members[1].Version; got != "" {
		t.Errorf("the version is %q", got)
	}
}

func TestTheClaimOfAPausedClusterStays(t *testing.T) {
	s := MakeCluster("prod").Members(Volume, Recorded, Sealed, Pod, Silent("refused")).Paused().Claim(v1beta1.OperationRollMember).Snapshot()
	s.Cluster.Status.Operation.Member = "prod-1"
	d := analyse.Next(s)
	if op := Of(&s, &d, nil).Status.Operation; d.Action != nil || op == nil || op.Type != v1beta1.OperationRollMember {
		t.Errorf("the action is %v and the claim %v", d.Action, op)
	}
}

func TestTheStatusKeepsTheLimitsOfTheSchema(t *testing.T) {
	long := strings.Repeat("9", 10_000)
	b := MakeCluster("prod").Objects().Members(Volume, Recorded, Founding, Changed(func(m *cluster.Member) {
		m.Volume.Version, m.Workload.Intent.Version = long, long
	}))
	s := b.Later(func(s *cluster.Snapshot) {
		s.Members = append(s.Members, cluster.Member{Name: long}) // of a founding list that somebody wrote
		for len(s.Members) < 100 {
			s.Members = append(s.Members, s.Members[0])
		}
	}).Snapshot()
	d := analyse.Next(s)
	status := Of(&s, &d, nil).Status
	for _, m := range status.Members {
		if len(m.Name) > 253 {
			t.Errorf("the name of a member has %d bytes", len(m.Name))
		}
	}
	if len(status.Members) != 64 || status.Members[0].Version != "" || status.TargetVersion != "" {
		t.Errorf("%d members, version %.20s, target version %.20s", len(status.Members), status.Members[0].Version, status.TargetVersion)
	}
}

func TestAMemberThatTheOperatorRestartsIsNoFailure(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(*cluster.Member)
		operated string
		degraded metav1.ConditionStatus
	}{
		"its pod is going":              {func(m *cluster.Member) { m.Pod.Deleting = true }, "prod-1", metav1.ConditionFalse},
		"its pod is gone":               {func(m *cluster.Member) { m.Pod = nil }, "prod-1", metav1.ConditionFalse},
		"its next pod starts":           {func(*cluster.Member) {}, "prod-1", metav1.ConditionFalse},
		"its next pod has failed":       {func(m *cluster.Member) { m.Pod.FailureReason = v1beta1.ReasonCrashLooping }, "prod-1", metav1.ConditionTrue},
		"its node is lost":              {func(m *cluster.Member) { m.Pod.NodeLost = true }, "prod-1", metav1.ConditionTrue},
		"its next pod cannot be made":   {func(m *cluster.Member) { m.Pod, m.Workload.CreateFailure = nil, "quota" }, "prod-1", metav1.ConditionTrue},
		"another one is restarted":      {func(*cluster.Member) {}, "prod-2", metav1.ConditionTrue},
		"a user deleted its pod":        {func(m *cluster.Member) { m.Pod.Deleting = true }, "", metav1.ConditionTrue},
		"nobody restarts it, no answer": {func(*cluster.Member) {}, "", metav1.ConditionTrue},
	} {
		t.Run(name, func(t *testing.T) {
			s := MakeCluster("prod").Objects().Members(Healthy).
				Member("prod-1", Volume, Recorded, Sealed, Pod, Silent("connection refused"), Changed(c.change)).Snapshot()
			if c.operated != "" {
				s.Cluster.Status.Operation = &v1beta1.Operation{
					Type: v1beta1.OperationRollMember, Member: c.operated, StartedAt: metav1.NewTime(Now), Reason: v1beta1.ReasonRotatingAuthorities,
				}
			}
			d := analyse.Next(s)
			got := meta.FindStatusCondition(Of(&s, &d, nil).Status.Conditions, v1beta1.ConditionDegraded)
			if got.Status != c.degraded {
				t.Errorf("Degraded is %s: %s", got.Status, got.Message)
			}
		})
	}
}

func TestPodsThatWereResizedAreToldOnce(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
	for name, c := range map[string]struct {
		upkeep  plan.Upkeep
		outcome error
		want    string
	}{
		"resized":                  {plan.AnnotatePod{Pod: "prod-1-0", Resized: true}, nil, "Normal PodResized: These pods have the CPU and memory of the spec now. They were not restarted: prod-1-0."},
		"the write failed":         {plan.AnnotatePod{Pod: "prod-1-0", Resized: true}, errors.New("connection reset"), ""},
		"another write to the pod": {plan.AnnotatePod{Pod: "prod-1-0"}, nil, ""},
		"asked for only":           {plan.ResizePod{Pod: "prod-1-0"}, nil, ""},
	} {
		d := analyse.Next(s)
		d.Upkeep = []plan.Upkeep{c.upkeep}
		told := ""
		for _, e := range Of(&s, &d, c.outcome).Events {
			if e.Reason == v1beta1.EventPodResized {
				told += e.Type + " " + e.Reason + ": " + e.Message
			}
		}
		if told != c.want {
			t.Errorf("%s: %q, want %q", name, told, c.want)
		}
	}
}

func TestAPlanIsAnsweredOnceAndRemembered(t *testing.T) {
	s := MakeCluster("prod").Annotated(v1beta1.PlanAnnotation, "a").Objects().Members(Healthy).Snapshot()
	d := analyse.Next(s)
	report := Of(&s, &d, nil)
	answer := Event{corev1.EventTypeNormal, v1beta1.EventPlanned, analyse.Preview(s)}
	if report.Status.AnsweredPlan != "a" || !slices.Contains(report.Events, answer) {
		t.Fatalf("got %q and %v", report.Status.AnsweredPlan, report.Events)
	}
	actions := map[string]bool{report.ActionOf(answer): true, report.ActionOf(Event{Reason: v1beta1.EventMemberRolled}): true}
	s.Cluster.Status = report.Status
	d = analyse.Next(s)
	if again := Of(&s, &d, nil); again.Status.AnsweredPlan != "a" || len(again.Events) > 0 {
		t.Errorf("the next pass: %q and %v", again.Status.AnsweredPlan, again.Events)
	}
	s.Cluster.Annotations[v1beta1.PlanAnnotation] = "b"
	d = analyse.Next(s)
	if report = Of(&s, &d, nil); report.Status.AnsweredPlan != "b" || !slices.Contains(report.Events, answer) {
		t.Errorf("another value: %q and %v", report.Status.AnsweredPlan, report.Events)
	}
	if actions[report.ActionOf(answer)] = true; len(actions) != 3 {
		t.Errorf("Kubernetes would merge the answers: %v", actions)
	}
}

func TestAHeldStepIsToldAndDegradesNothing(t *testing.T) {
	for reason, hold := range map[string]cluster.Hold{
		v1beta1.ReasonFrozen:                  {ByNamespace: true},
		v1beta1.ReasonWaitingForOtherClusters: {Limit: 10},
	} {
		s := MakeCluster("prod").Replicas(1).Objects().Members(Healthy).
			LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 3 }).Snapshot()
		s.Hold = &hold
		d := analyse.Next(s)
		report := Of(&s, &d, nil)
		progressing := meta.FindStatusCondition(report.Status.Conditions, v1beta1.ConditionProgressing)
		if progressing.Reason != reason || progressing.Status != metav1.ConditionFalse {
			t.Errorf("%s: %+v", reason, progressing)
		}
		if meta.IsStatusConditionTrue(report.Status.Conditions, v1beta1.ConditionDegraded) {
			t.Errorf("%s: degraded", reason)
		}
	}
}
