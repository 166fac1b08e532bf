package analyse

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// lostNode has a member's node be gone in some way. The volume can be used nowhere else.
func lostNode(name string, node cluster.Node) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		failing(name)(s)
		m := s.Member(name)
		node.Name = m.Pod.Node
		m.Node, m.Volume.Confined = &node, true
		s.Nodes = cluster.NodeCount{All: 5, NotReady: 1}
	}
}

func notReadyFor(d time.Duration) cluster.Node { return cluster.Node{NotReadySince: Now.Add(-d)} }

// movable has a member's volume be usable on other nodes.
func movable(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Member(name).Volume.Confined = false }
}

func askedToReplace(value string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		metav1.SetMetaDataAnnotation(&s.Cluster.ObjectMeta, v1beta1.ReplaceMemberAnnotation, value)
		tellsMembers(s)
	}
}

// tellsMembers has the status of the last pass say of each member whether it answered.
func tellsMembers(s *cluster.Snapshot) {
	s.Cluster.Status.Members = nil
	for _, m := range s.Members {
		s.Cluster.Status.Members = append(s.Cluster.Status.Members, v1beta1.MemberStatus{Name: m.Name, Ready: m.Answers()})
	}
}

// A user who asks for another member may be asking in place of one that is only slow: it goes before the new one joins
// only where it is silent for a while.
func TestAMemberThatIsSilentForAMomentIsNotRemovedBeforeTheNewOneJoins(t *testing.T) {
	due := func(in time.Duration) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { s.Member("prod-1").Workload.PodDue = Now.Add(in) }
	}
	member := func(change func(*cluster.Member)) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { change(s.Member("prod-1")) }
	}
	down := func(since time.Duration) func(*cluster.Snapshot) {
		return member(func(m *cluster.Member) { m.Pod.Ready, m.Pod.NotReadySince = false, Now.Add(-since) })
	}
	ready := member(func(m *cluster.Member) { m.Pod.Ready = true })
	gone := member(func(m *cluster.Member) { m.Pod = nil })
	learner := func(s *cluster.Snapshot) { s.Membership.Members[2].Learner = true }
	joining := func(s *cluster.Snapshot) {
		learner(s)
		s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationAddMember, Member: "prod-2"}
	}
	for name, c := range map[string]struct {
		changes []func(*cluster.Snapshot)
		silent  bool
	}{
		"is down for a minute":                           {[]func(*cluster.Snapshot){down(time.Minute)}, true},
		"is down for a moment":                           {[]func(*cluster.Snapshot){down(59 * time.Second)}, false},
		"is ready, and silent in two passes":             {[]func(*cluster.Snapshot){ready}, true},
		"is ready, and was silent in this pass only":     {[]func(*cluster.Snapshot){ready, func(s *cluster.Snapshot) { s.Cluster.Status.Members[1].Ready = true }}, false},
		"is ready beside a learner":                      {[]func(*cluster.Snapshot){ready, learner}, false},
		"is down while the new one joins":                {[]func(*cluster.Snapshot){down(time.Hour), joining}, false},
		"is down beside a learner that does not join":    {[]func(*cluster.Snapshot){down(time.Hour), learner}, true},
		"leads, and only the operator does not reach it": {[]func(*cluster.Snapshot){down(time.Hour), func(s *cluster.Snapshot) { s.Member("prod-0").Probe.Leader = 0xa1 }}, false},
		"has no pod":                              {[]func(*cluster.Snapshot){gone, due(0)}, true},
		"has no pod for a moment":                 {[]func(*cluster.Snapshot){gone, due(time.Second)}, false},
		"has no pod, and nobody knows since when": {[]func(*cluster.Snapshot){gone}, false},
		"has neither pod nor claim":               {[]func(*cluster.Snapshot){gone, member(func(m *cluster.Member) { m.Volume = nil })}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
			failing("prod-1")(&s)
			tellsMembers(&s)
			for _, change := range c.changes {
				change(&s)
			}
			if got := isSilent(&s, s.Member("prod-1")); got != c.silent {
				t.Errorf("silent: %t, want %t", got, c.silent)
			}
		})
	}
}

// A learner that joins in place of a member is not removed as one too many because that member falls silent meanwhile.
func TestALearnerIsKeptWhereTheMemberThatItReplacesFallsSilent(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*cluster.Snapshot)
		want   int
	}{
		"beside the member that its user wants replaced": {askedToReplace("prod-1/a1"), 4},
		"where nobody asks": {func(*cluster.Snapshot) {}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
			failing("prod-1")(&s)
			s.Member("prod-1").Pod.Ready, s.Member("prod-1").Pod.NotReadySince = false, Now.Add(-time.Hour)
			c.change(&s)
			s.Membership.Members[2].Learner = true
			if got := wantedVoters(&s); got != c.want {
				t.Errorf("%d voters are wanted, want %d", got, c.want)
			}
			s.Membership.Members[2].Learner = false
			if got := wantedVoters(&s); got != 3 {
				t.Errorf("without a learner, %d voters are wanted, want 3", got)
			}
		})
	}
}

// Where a replacement is refused, a learner that has caught up becomes a voter: the cluster can then lose one more.
func TestALearnerIsPromotedWhereAReplacementIsRefused(t *testing.T) {
	s := MakeCluster("prod").Replicas(7).Objects().Members(Healthy).Later(claimGone("prod-1")).Later(failing("prod-2")).Later(func(s *cluster.Snapshot) {
		s.Membership.Members[6].Learner, s.Member("prod-6").Probe.Learner = true, true
		s.Member("prod-6").Probe.AppliedIndex = 1
	}).Snapshot()
	if d := replaceMember(&s, s.Member("prod-1")); len(d.Refusals) == 0 {
		t.Fatalf("not refused: %s", d.Message)
	}
	d := Next(s)
	if promotion, is := d.Action.(plan.PromoteMember); !is || promotion.Name != "prod-6" {
		t.Errorf("got %+v: %s", d.Action, d.Message)
	}
	s.Member("prod-6").Probe.AppliedIndex = 0
	if d := Next(s); d.Reason != v1beta1.ReasonMembersNotHealthy || d.Action != nil {
		t.Errorf("while it catches up: got %+v: %s", d.Action, d.Message)
	}
	s.Member("prod-6").Probe.AppliedIndex, s.Cluster.Spec.Replicas = 1, 5
	if d := Next(s); d.Reason != v1beta1.ReasonMembersNotHealthy || d.Action != nil {
		t.Errorf("where no more voters are wanted: got %+v: %s", d.Action, d.Message)
	}
}

func claimGone(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		failing(name)(s)
		m := s.Member(name)
		m.Volume, m.Pod.Phase = nil, corev1.PodPending
	}
}

// otherVolume has a member's claim stand for another volume since some time.
func otherVolume(name string, since time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		failing(name)(s)
		m := s.Member(name)
		m.Volume.Remembered = cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}
		m.Volume.Identity = cluster.VolumeIdentity{Claim: "another", Name: "pv-9"}
		m.Volume.CreatedAt, m.Pod.Phase = Now.Add(-since), corev1.PodPending
	}
}

// unstarted has a founder's pod crash since some time. Nobody saw the member start.
func unstarted(name string, since time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		failing(name)(s)
		m := s.Member(name)
		m.Volume.ClusterID, m.Volume.MemberID, m.Volume.StartedBy, m.Volume.Version = 0, 0, "", ""
		m.Volume.CreatedAt, m.Pod.CreatedAt = Now.Add(-since), Now.Add(-since)
		m.Pod.FailureReason, m.Pod.Node = v1beta1.ReasonCrashLooping, "node-1"
		m.Workload.StartsEmpty, m.Pod.StartsEmpty = true, true
		e := s.EtcdEntry(m)
		e.Name, e.Started, e.PeerURLs = "", false, []string{m.Volume.PeerURL}
	}
}

// unmade has a founder without a StatefulSet. Nobody saw the member start on its volume, which was made some time ago.
func unmade(name string, since time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		unstarted(name, since)(s)
		m := s.Member(name)
		m.Workload, m.Pod = nil, nil
	}
}

func replacement(r v1beta1.MemberReplacement) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Cluster.Spec.Recovery = &v1beta1.Recovery{MemberReplacement: &r} }
}

func replaces(member string) says {
	return says{Rule: RuleRepair, Reason: v1beta1.ReasonReplacingMember, Progressing: true, Action: member}
}

func refusedRepair(reason string) says { return says{Rule: RuleRepair, Reason: reason} }

// Each cause of a loss, and each guard, has a case that allows and one that refuses.
func TestReplacesWhatCannotComeBack(t *testing.T) {
	idle := says{Reason: "UpToDate"}
	for name, c := range map[string]struct {
		changes []func(*cluster.Snapshot)
		want    says
	}{
		"a claim that is gone":                         {[]func(*cluster.Snapshot){claimGone("prod-1")}, replaces("replace prod-1 (a1) by prod-0")},
		"not while the pod runs on":                    {[]func(*cluster.Snapshot){failing("prod-1"), withoutVolume("prod-1")}, idle},
		"another volume under the claim, after a time": {[]func(*cluster.Snapshot){otherVolume("prod-1", 5*time.Minute)}, replaces("replace prod-1 (a1) by prod-0")},
		"not before": {[]func(*cluster.Snapshot){otherVolume("prod-1", 4*time.Minute)}, idle},
		"a lost PersistentVolume, after a time": {[]func(*cluster.Snapshot){otherVolume("prod-1", 6*time.Minute), func(s *cluster.Snapshot) {
			v := s.Member("prod-1").Volume
			v.Identity, v.Phase = v.Remembered, corev1.ClaimLost
		}}, replaces("replace prod-1 (a1) by prod-0")},
		"not a moment after the pod on a lost PersistentVolume has ended": {[]func(*cluster.Snapshot){otherVolume("prod-1", time.Hour), func(s *cluster.Snapshot) {
			m := s.Member("prod-1")
			m.Volume.Identity, m.Volume.Phase, m.Pod = m.Volume.Remembered, corev1.ClaimLost, nil
		}}, idle},
		"a lost PersistentVolume whose pod nobody makes, after a time": {[]func(*cluster.Snapshot){otherVolume("prod-1", time.Hour), func(s *cluster.Snapshot) {
			m := s.Member("prod-1")
			m.Volume.Identity, m.Volume.Phase, m.Pod = m.Volume.Remembered, corev1.ClaimLost, nil
			m.Workload.PodDue = Now.Add(-6 * time.Minute)
		}}, replaces("replace prod-1 (a1) by prod-0")},
		"a node that is not ready for long":                {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(5*time.Minute))}, replaces("replace prod-1 (a1) by prod-0")},
		"not one that may come back":                       {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(4*time.Minute))}, idle},
		"not a member of it that answers":                  {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(time.Hour)), func(s *cluster.Snapshot) { s.Member("prod-1").Probe = s.Member("prod-2").Probe }}, idle},
		"not a leader that only the operator cannot reach": {[]func(*cluster.Snapshot){lostNode("prod-0", cluster.Node{Deleted: true})}, idle},
		"after the time that the spec has":                 {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(10*time.Second)), replacement(v1beta1.MemberReplacement{After: "10s"})}, replaces("replace prod-1 (a1) by prod-0")},
		"not by itself where the spec says Manual":         {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(time.Hour)), replacement(v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually})}, idle},
		"a deleted node, at once":                          {[]func(*cluster.Snapshot){lostNode("prod-1", cluster.Node{Deleted: true})}, replaces("replace prod-1 (a1) by prod-0")},
		"a node out of service, at once":                   {[]func(*cluster.Snapshot){lostNode("prod-1", cluster.Node{OutOfService: true, NotReadySince: Now})}, replaces("replace prod-1 (a1) by prod-0")},
		"not where the volume moves":                       {[]func(*cluster.Snapshot){lostNode("prod-1", cluster.Node{Deleted: true}), movable("prod-1")}, idle},
		"a volume that did not move in twice the time":     {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(10*time.Minute)), movable("prod-1")}, replaces("replace prod-1 (a1) by prod-0")},
		"a founder that has never started":                 {[]func(*cluster.Snapshot){unstarted("prod-1", 10*time.Minute)}, replaces("replace prod-1 (a1) by prod-0")},
		"not one that started, as its StatefulSet knows": {
			[]func(*cluster.Snapshot){unstarted("prod-1", 10*time.Minute), func(s *cluster.Snapshot) { s.Member("prod-1").Workload.StartsEmpty = false }}, idle,
		},
		"not one that may start yet": {[]func(*cluster.Snapshot){unstarted("prod-1", 9*time.Minute)}, idle},
		"not one that no node takes": {[]func(*cluster.Snapshot){unstarted("prod-1", time.Hour), func(s *cluster.Snapshot) {
			s.Member("prod-1").Pod.FailureReason = v1beta1.ReasonUnschedulable
		}}, idle},
		"a founder without a StatefulSet that has never started": {
			[]func(*cluster.Snapshot){unmade("prod-1", 10*time.Minute)}, replaces("replace prod-1 (a1) by prod-0"),
		},
		"not one that was made a moment ago": {[]func(*cluster.Snapshot){unmade("prod-1", 9*time.Minute)}, idle},
		"not one whose pod is left": {[]func(*cluster.Snapshot){unmade("prod-1", time.Hour), func(s *cluster.Snapshot) {
			s.Member("prod-1").Pod = &cluster.Pod{Name: "prod-1-0"}
		}}, idle},
		"not one that etcd's list shows as started": {[]func(*cluster.Snapshot){unmade("prod-1", time.Hour), func(s *cluster.Snapshot) {
			s.EtcdEntry(s.Member("prod-1")).Started = true
		}}, idle},
		"not one that is being taken back": {[]func(*cluster.Snapshot){unmade("prod-1", time.Hour), func(s *cluster.Snapshot) {
			s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationTakeBack, StartedAt: metav1.NewTime(Now)}
		}}, says{Rule: RuleOperation, Reason: v1beta1.ReasonTakingBack, Progressing: true}},
		"not one that has never started, beside another member that is down": {
			[]func(*cluster.Snapshot){unmade("prod-1", time.Hour), failing("prod-2")}, refusedRepair(v1beta1.ReasonMembersNotHealthy),
		},
		"not one that may still move": {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(9*time.Minute)), movable("prod-1")}, idle},

		"a silent member, for its user":     {[]func(*cluster.Snapshot){failing("prod-1"), askedToReplace("prod-1/a1")}, replaces("replace prod-1 (a1) by prod-0")},
		"not one that has another ID":       {[]func(*cluster.Snapshot){failing("prod-1"), askedToReplace("prod-1/b1")}, idle},
		"not for its user without a quorum": {[]func(*cluster.Snapshot){failing("prod-1"), failing("prod-2"), askedToReplace("prod-1/a1")}, refusedRepair(v1beta1.ReasonMembersNotHealthy)},

		"not beside another member of five that is down": {[]func(*cluster.Snapshot){claimGone("prod-1"), failing("prod-2")}, refusedRepair(v1beta1.ReasonMembersNotHealthy)},
		"beside another one of five that is lost":        {[]func(*cluster.Snapshot){claimGone("prod-1"), claimGone("prod-2")}, replaces("replace prod-1 (a1) by prod-0")},
		"not without a quorum":                           {[]func(*cluster.Snapshot){claimGone("prod-1"), lostNode("prod-2", notReadyFor(time.Hour))}, refusedRepair(v1beta1.ReasonQuorumAtRisk)},
		"not under an alarm":                             {[]func(*cluster.Snapshot){claimGone("prod-1"), alarm}, refusedRepair(v1beta1.ReasonMembersNotHealthy)},
		"not beside a foreign member":                    {[]func(*cluster.Snapshot){claimGone("prod-1"), foreign(false, "other", "http://other:2380")}, refusedRepair(v1beta1.ReasonMembersNotHealthy)},
		"no foreign member":                              {[]func(*cluster.Snapshot){foreign(false, "prod-9", "http://other:2380")}, says{Rule: RuleScale, Reason: v1beta1.ReasonMembersNotHealthy}},
		"not while a third of the nodes is gone":         {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(time.Hour)), func(s *cluster.Snapshot) { s.Nodes.NotReady = 2 }}, refusedRepair(v1beta1.ReasonNodesNotReady)},
		"where the only other node is left":              {[]func(*cluster.Snapshot){lostNode("prod-1", notReadyFor(time.Hour)), func(s *cluster.Snapshot) { s.Nodes = cluster.NodeCount{All: 2, NotReady: 1} }}, replaces("replace prod-1 (a1) by prod-0")},
		"not while paused":                               {[]func(*cluster.Snapshot){claimGone("prod-1"), func(s *cluster.Snapshot) { s.Cluster.Spec.Paused = true }}, says{Rule: RulePaused, Reason: v1beta1.ReasonPaused}},
		"with the spec as it is":                         {[]func(*cluster.Snapshot){claimGone("prod-1"), relabelled}, replaces("replace prod-1 (a1) by prod-0")},
	} {
		t.Run(name, func(t *testing.T) {
			size := int32(3)
			if strings.Contains(name, "of five") {
				size = 5
			}
			b := MakeCluster("prod").Replicas(size).Objects().Members(Healthy)
			for _, change := range c.changes {
				b.Later(change)
			}
			d := Next(b.Snapshot())
			got := sayOf(d)
			got.Upkeep = nil
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("wanted -, got +:\n%s\n%s", diff, d.Message)
			}
			if action, ok := d.Action.(plan.RemoveMember); ok && (action.Lost == nil || d.Claim.Type != v1beta1.OperationReplaceMember) {
				t.Errorf("got %+v with the claim %+v", action, d.Claim)
			}
		})
	}
}

// The end of the operation decides by its reason, and by the volume noted in it, what becomes of the volume.
func TestTheRemovalOfAMemberThatItsUserWantsReplacedIsClaimedAsAReplacement(t *testing.T) {
	s := resized(4, 3, askedToReplace("prod-2/a2"), func(s *cluster.Snapshot) {
		s.Cluster.Status.Members = []v1beta1.MemberStatus{{Name: "prod-2", VolumeUID: "claim-2"}}
	}).Snapshot()
	d := Next(s)
	if d.Claim == nil || d.Claim.Member != "prod-2" || d.Claim.Reason != v1beta1.ReasonReplacingMember || d.Claim.VolumeUID != "claim-2" {
		t.Errorf("got %+v: %s", d.Claim, d.Message)
	}
	delete(s.Cluster.Annotations, v1beta1.ReplaceMemberAnnotation)
	if d := Next(s); d.Claim == nil || d.Claim.Reason != v1beta1.ReasonScaling || d.Claim.VolumeUID != "" {
		t.Errorf("without the wish: %+v: %s", d.Claim, d.Message)
	}
}
