package analyse

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// loss is why a member cannot come back, and from when on it counts as lost.
type loss struct {
	// why is a sentence; empty for a member that is not lost.
	why string
	at  time.Time
	// volumeGone tells that the member's volume is gone, and corrupt that its data are wrong. Otherwise its node is gone.
	volumeGone, corrupt bool
}

// isDue reports whether a member counts as lost by now.
func (l loss) isDue(now time.Time) bool { return l.why != "" && !now.Before(l.at) }

// lossOf tells whether a voter is lost: its volume is gone or another one, or its node is gone. A member that answers
// is never lost unless its data are corrupt, and neither is one whose volume can be used elsewhere: it moves.
func lossOf(s *cluster.Snapshot, m *cluster.Member) loss {
	if why := corruption(s, m); why != "" {
		return loss{why: why, at: corruptReplacedFrom(s, m), corrupt: true}
	}
	if m.Answers() || !isListedVoter(s, m) || s.EtcdEntry(m) == s.ForeignEntry() || isFollowed(s, m) {
		return loss{}
	}
	after, isAlone := cluster.ReplacementTime(s.Cluster), !m.RunsOn() || m.Node.IsGone()
	switch v := m.Volume; {
	case v != nil && v.InMemory && isAlone && v.IsReplaced():
		return loss{why: fmt.Sprintf("The pod of %s is gone, and its data, which were in memory, with it.", m.Name), at: s.Now, volumeGone: true}
	case failsInMemory(m) && m.LostItsMemory():
		return loss{
			why: fmt.Sprintf("The data of %s were in memory, and its node restarted, which loses them.", m.Name),
			at:  m.Pod.NotReadySince.Add(after),
		}
	case failsInMemory(m):
		return loss{
			why: fmt.Sprintf("%s has its data in memory, and its pod fails: %s.", m.Name, strings.TrimSuffix(m.Pod.FailureDetail, ".")),
			at:  m.Pod.NotReadySince.Add(after),
		}
	case isAlone && (v == nil || v.Deleting):
		return loss{why: fmt.Sprintf("The volume of %s is gone.", m.Name), at: s.Now, volumeGone: true}
	case v == nil:
		return loss{} // its pod runs on
	case isAlone && v.Phase == corev1.ClaimLost:
		return loss{why: fmt.Sprintf("The PersistentVolume of %s is gone.", m.Name), at: lostAt(s, m).Add(after), volumeGone: true}
	case isAlone && v.IsReplaced():
		return loss{why: fmt.Sprintf("PersistentVolumeClaim %s has another volume than the one that %s started on.", v.Name, m.Name), at: claimedAt(m).Add(after), volumeGone: true}
	case whyNeverStarts(s, m) != "":
		since := claimedAt(m)
		if m.Pod != nil {
			since = m.Pod.CreatedAt
		}
		return loss{why: whyNeverStarts(s, m), at: since.Add(max(after, cluster.ProgressDeadline(s.Cluster)))}
	case !m.Node.IsGone():
		return loss{}
	case v.Confined && m.Node.IsGoneForGood():
		return loss{why: fmt.Sprintf("%s, and the volume of %s can be used nowhere else.", goneFor(m.Node), m.Name), at: s.Now}
	case m.Node.NotReadySince.IsZero():
		return loss{} // Kubernetes removes the pod, and the volume moves
	case v.Confined:
		return loss{why: fmt.Sprintf("%s, and the volume of %s can be used nowhere else.", goneFor(m.Node), m.Name), at: m.Node.NotReadySince.Add(after)}
	default:
		return loss{why: fmt.Sprintf("%s, and %s did not move to another one.", goneFor(m.Node), m.Name), at: m.Node.NotReadySince.Add(2 * after)}
	}
}

// isFollowed reports whether another member serves reads with this one as its leader: it runs, and only the operator
// cannot reach it.
func isFollowed(s *cluster.Snapshot, m *cluster.Member) bool {
	e := s.EtcdEntry(m)
	return e != nil && slices.ContainsFunc(s.Members, func(other cluster.Member) bool { return other.Serves() && other.Probe.Leader == e.ID })
}

// whyNeverStarts tells why a founder whose cluster serves without it does not start, in a sentence; empty for any
// other member. Either it fails where it was scheduled: one that no node takes, or whose image cannot be pulled, would
// fail in the same way under another name. Or its StatefulSet is gone: once the founding has ended, none is made again
// that would start an empty volume, because the member may have started unseen.
func whyNeverStarts(s *cluster.Snapshot, m *cluster.Member) string {
	if !slices.Contains(m.Volume.Founders, m.Name) || startEvidence(s, m) != "" || m.LacksRecord() || isStarting(s) {
		return ""
	}
	failures := []string{v1beta1.ReasonCrashLooping, v1beta1.ReasonContainerFailed}
	switch {
	case m.Pod != nil && m.Pod.Node != "" && slices.Contains(failures, m.Pod.FailureReason):
		return fmt.Sprintf("%s has never started, and its pod fails on node %s.", m.Name, m.Pod.Node)
	case m.Pod == nil && m.Workload == nil:
		return fmt.Sprintf("%s has never started, and its StatefulSet is gone.", m.Name)
	default:
		return ""
	}
}

// isStarting reports whether an operation is under way that starts members.
func isStarting(s *cluster.Snapshot) bool {
	return isClaimed(s, v1beta1.OperationBootstrap) || isClaimed(s, v1beta1.OperationTakeBack) || isClaimed(s, v1beta1.OperationResume)
}

// lostAt is the earliest time at which the member could have lost the volume of its claim. Between two pods only the
// time tells it since when there is none: the claim is old, and the volume may have been lost just now.
func lostAt(s *cluster.Snapshot, m *cluster.Member) time.Time {
	switch {
	case m.Pod != nil || m.Workload == nil:
		return claimedAt(m)
	case m.Workload.PodDue.IsZero():
		return s.Now
	default:
		return m.Workload.PodDue
	}
}

// claimedAt is the earliest time at which the member could have lost its volume to what is there now.
func claimedAt(m *cluster.Member) time.Time {
	if m.Pod != nil && m.Pod.CreatedAt.After(m.Volume.CreatedAt) {
		return m.Pod.CreatedAt
	}
	return m.Volume.CreatedAt
}

func goneFor(n *cluster.Node) string {
	switch {
	case n.Deleted:
		return fmt.Sprintf("Node %s was deleted", n.Name)
	case n.OutOfService:
		return fmt.Sprintf("Node %s has the taint %s", n.Name, corev1.TaintNodeOutOfService)
	default:
		return fmt.Sprintf("Node %s is not ready since %s", n.Name, n.NotReadySince.UTC().Format(time.RFC3339))
	}
}

// repair removes lost members from etcd, one by one. The next rule then adds a new member for each: all lost ones go
// first, because to remove a silent voter never lowers how many more may be lost. Where that is refused, a learner that
// has caught up goes on: one more voter may be what is missing.
func repair(s *cluster.Snapshot) *plan.Decision {
	if d := volumesLost(s); d != nil {
		return d
	}
	m := memberToReplace(s)
	if m == nil {
		return nil
	}
	d := replaceMember(s, m)
	if len(d.Refusals) > 0 && (isPromotable(s) || isCuredByRestart(s) || isDowngrading(s)) {
		return nil
	}
	return d
}

// takeOver hands the restart of a member that was lost meanwhile over to its replacement.
func takeOver(s *cluster.Snapshot) *plan.Decision {
	op := s.Cluster.Status.Operation
	if op == nil || op.Type != v1beta1.OperationRollMember && op.Type != v1beta1.OperationRollBack {
		return nil
	}
	m := s.Member(op.Member)
	if m == nil || !isToBeReplaced(s, m) {
		return nil
	}
	d := replaceMember(s, m)
	if d.Action == nil {
		return nil
	}
	d.HandOver = true
	return d
}

// memberToReplace returns the member that is replaced next; nil for none.
func memberToReplace(s *cluster.Snapshot) *cluster.Member {
	for i := range s.Members {
		if m := &s.Members[i]; isToBeReplaced(s, m) {
			return m
		}
	}
	return nil
}

// isToBeReplaced reports whether a member is lost, or silent and a user asks for a new one in its place. One that
// answers and has the right data is replaced as well, but it is removed after the new one has joined: see
// memberToLeave.
func isToBeReplaced(s *cluster.Snapshot, m *cluster.Member) bool {
	return cluster.ReplacesByItself(s.Cluster) && lossOf(s, m).isDue(s.Now) ||
		isAskedFor(s, m) && isListedVoter(s, m) && (isSilent(s, m) || isCorrupt(s, m))
}

// isSilent reports whether a member that a user wants replaced answers no more, so that it may go before the new one
// joins. One answer that is late shows nothing, and a restart passes: it was silent in the last pass as well, and has
// not been ready for a minute, or has no pod for long. One that Kubernetes finds ready, and only the operator does not
// reach, goes as well, but not beside a learner: it may still vote. None goes before a new member whose time to join
// has not passed.
func isSilent(s *cluster.Snapshot, m *cluster.Member) bool {
	isTold := func(told v1beta1.MemberStatus) bool { return told.Name == m.Name && !told.Ready }
	switch {
	case m.Answers(), isFollowed(s, m), !slices.ContainsFunc(s.Cluster.Status.Members, isTold):
		return false
	case s.Learner() != nil && (isClaimed(s, v1beta1.OperationAddMember) || m.Pod.IsRunning() && m.Pod.Ready):
		return false
	case m.Pod == nil:
		isDue := m.Workload == nil || !m.Workload.PodDue.IsZero() && !s.Now.Before(m.Workload.PodDue)
		return isDue || mustNotStart(s, m) // Kubernetes makes the next pod in a moment otherwise
	case m.Pod.Ready:
		return true
	default:
		return !s.Now.Before(downSince(m.Pod).Add(failureGrace))
	}
}

// downSince returns since when a pod that is not ready has not been ready, or has been there.
func downSince(pod *cluster.Pod) time.Time {
	if pod.NotReadySince.After(pod.CreatedAt) {
		return pod.NotReadySince
	}
	return pod.CreatedAt
}

// memberToLeave returns the voter that a user wants replaced, and that is not silent, or that must not be restarted;
// nil for none. A new member joins first. One that joins already is kept, whatever became of the voter.
func memberToLeave(s *cluster.Snapshot) *cluster.Member {
	if m := askedMember(s); m != nil && isListedVoter(s, m) && !isCorrupt(s, m) && (s.Learner() != nil || !isSilent(s, m)) {
		return m
	}
	return memberToRenew(s)
}

// wantedVoters is how many voters there are to be: as many as the spec says, and one more while one of them leaves.
func wantedVoters(s *cluster.Snapshot) int {
	if memberToLeave(s) != nil {
		return int(s.Cluster.Spec.Replicas) + 1
	}
	return int(s.Cluster.Spec.Replicas)
}

// askedFor returns what the annotation replace-member names: a member, and its ID in etcd.
func askedFor(s *cluster.Snapshot) (name string, id cluster.ID) {
	name, text, _ := strings.Cut(s.Cluster.Annotations[v1beta1.ReplaceMemberAnnotation], "/")
	return name, cluster.ParseID(text)
}

// askedMember returns the member that the annotation replace-member names by its name and its ID; nil for none.
func askedMember(s *cluster.Snapshot) *cluster.Member {
	if s.Cluster.Annotations[v1beta1.ReplaceMemberAnnotation] == "" { // the usual case, several times in each pass
		return nil
	}
	name, id := askedFor(s)
	m := s.Member(name)
	if m == nil || id == 0 {
		return nil
	}
	if e := s.EtcdEntry(m); e == nil || e.ID != id {
		return nil
	}
	return m
}

func isAskedFor(s *cluster.Snapshot, m *cluster.Member) bool {
	asked := askedMember(s)
	return asked != nil && asked.Name == m.Name
}

// replacementUpkeep removes the annotation once etcd's list lacks the member that it names.
func replacementUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	if s.Membership == nil || s.Cluster.Status.Operation != nil {
		return nil
	}
	name, id := askedFor(s)
	n, isOurs := cluster.MemberNumber(s.Cluster.Name, name)
	isGone := isOurs && id != 0 && n < s.NextNumber() && s.Member(name) == nil &&
		!slices.ContainsFunc(s.Membership.Members, func(e cluster.EtcdMember) bool { return e.ID == id })
	if !isGone {
		return nil
	}
	return []plan.Upkeep{removeAnnotation(s, v1beta1.ReplaceMemberAnnotation)}
}

// removeAnnotation removes an annotation that was obeyed.
func removeAnnotation(s *cluster.Snapshot, key string) plan.Upkeep {
	return plan.RemoveAnnotation{Cluster: s.Cluster.Name, Key: key, ResourceVersion: s.Cluster.ResourceVersion}
}

// addReplacement tells of an annotation that names no member.
func (p *problems) addReplacement(s *cluster.Snapshot) {
	value, isSet := s.Cluster.Annotations[v1beta1.ReplaceMemberAnnotation]
	if !isSet || s.Membership == nil || len(replacementUpkeep(s)) > 0 || askedMember(s) != nil {
		return
	}
	var names []string
	for i := range s.Members {
		if e := s.EtcdEntry(&s.Members[i]); e != nil {
			names = append(names, s.Members[i].Name+"/"+e.ID.String())
		}
	}
	p.add(v1beta1.ReasonNoSuchMember, "The annotation %s is %q, and names no member. No member is replaced for it. The members are %s. "+
		"Set it to one of them, or remove it.", v1beta1.ReplaceMemberAnnotation, cluster.ForeignText(value), strings.Join(names, ", "))
}

// ReplacementNote tells whether and when a new member takes the place of one that is down, in sentences; empty where
// the member is not lost.
func ReplacementNote(s *cluster.Snapshot, m *cluster.Member) string {
	l := lossOf(s, m)
	onUnknownNode := m.Node == nil && m.Pod != nil && (m.Pod.NodeLost || m.Pod.FailureReason == v1beta1.ReasonNodeLost) && isListedVoter(s, m)
	byHand := func() string {
		return fmt.Sprintf("To have a new member take its place, run: kubectl annotate -n %s etcdcluster %s %s=%s/%s",
			s.Cluster.Namespace, s.Cluster.Name, v1beta1.ReplaceMemberAnnotation, m.Name, s.EtcdEntry(m).ID)
	}
	switch {
	case isToBeReplaced(s, m):
		return "A new member takes its place"
	case onUnknownNode:
		return "The operator may not read nodes, so it does not replace the member by itself. " + byHand()
	case l.why == "":
		return ""
	case !cluster.ReplacesByItself(s.Cluster):
		return "spec.recovery.memberReplacement.policy is Manual. " + byHand()
	default:
		return fmt.Sprintf("Unless it comes back, a new member takes its place at %s", l.at.UTC().Format(time.RFC3339))
	}
}

// untilLost returns how long it takes until the next member counts as lost; zero for none.
func untilLost(s *cluster.Snapshot) time.Duration {
	return soonest(s, func(m *cluster.Member) time.Duration {
		l := lossOf(s, m)
		if l.why == "" {
			return 0
		}
		return l.at.Sub(s.Now)
	})
}

// soonest returns the shortest time that a member has left, of those that have some; zero where none has.
func soonest(s *cluster.Snapshot, left func(*cluster.Member) time.Duration) time.Duration {
	var next time.Duration
	for i := range s.Members {
		if l := left(&s.Members[i]); l > 0 && (next == 0 || l < next) {
			next = l
		}
	}
	return next
}

// replaceMember removes a lost member from etcd, if the guards allow it.
func replaceMember(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	l := lossOf(s, m)
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonReplacingMember}
	entry, after, to := s.EtcdEntry(m), s.After(cluster.Change{Removes: m.Name}), followerToLead(s, m)
	wait := untilConnected(s, cluster.Quorum(after.Voters)+1)
	switch refusals := refusalsOf(s, replacementGuards(m)...); {
	case len(refusals) > 0:
		return refused(refusals)
	case entry == nil:
		d.Message = fmt.Sprintf("Waiting until etcd tells whether %s is a member.", m.Name)
	case leaderTarget(s) == "":
		d.Message = awaitsLeader
	case m.Leads() && to == nil:
		d.Message = fmt.Sprintf("%s It leads, and is removed once a follower has caught up that can take over.", whyReplaced(m, l))
	case m.Leads():
		d.Message = fmt.Sprintf("%s Moving the leader from %s to %s, before %s is removed.", whyReplaced(m, l), m.Name, to.Name, m.Name)
		d.Action = plan.MoveLeader{Name: m.Name, For: v1beta1.OperationReplaceMember, To: to.Name, ToID: s.EtcdEntry(to).ID}
	case m.Answers() && wait > 0:
		d.Message, d.RequeueAfter = awaitsConnections(m.Name, "is removed"), wait
	default:
		d.Message = fmt.Sprintf("%s It is removed from etcd, and a new member takes its place. Then %s.", whyReplaced(m, l), after)
		action := removal(s, m, entry.ID)
		action.For, action.Lost = v1beta1.OperationReplaceMember, lostPart(m, l)
		d.Action = action
	}
	return d
}

func whyReplaced(m *cluster.Member, l loss) string {
	if l.why == "" {
		return fmt.Sprintf("A user asks for another member in the place of %s.", m.Name)
	}
	return l.why
}

// lostPart names what must still be gone when the member is removed.
func lostPart(m *cluster.Member, l loss) *plan.Lost {
	switch {
	case l.why != "" && l.volumeGone && isInMemory(*m) && m.Volume != nil && m.Volume.IsReplaced():
		return &plan.Lost{Pod: cluster.PodName(m.Name), PodUID: m.Volume.Remembered.Claim}
	case l.why == "", l.corrupt, !l.volumeGone && !m.Node.IsGone():
		return &plan.Lost{} // a user says that it is, or it never started
	case !l.volumeGone:
		return &plan.Lost{Node: m.Node.Name}
	case m.Volume == nil:
		return &plan.Lost{Claim: cluster.VolumeName(m.Name)}
	default:
		return &plan.Lost{Claim: m.Volume.Name, ClaimUID: m.Volume.UID}
	}
}

func replacementGuards(m *cluster.Member) []guard {
	return []guard{
		noForeignMember,       // Make sure that etcd's list is the operator's own.
		noForeignObject,       // Make sure that the new member's names are free.
		specUsable,            // Make sure that the new member's pod can start.
		noDowngrade,           // Make sure that etcd takes the new member.
		noOtherAlarm(m),       // Make sure that no data is at stake.
		fewNodesGone(m),       // Make sure that the fault is not Kubernetes' own.
		othersHealthy(m),      // Make sure that only lost members are down.
		removalKeepsQuorum(m), // Make sure that the voters that stay are a quorum.
	}
}

// noOtherAlarm refuses while etcd has an alarm, except one for corrupt data where the replacement cures it, or takes
// away a silent member whose hash is all that the comparison lacks: otherwise that alarm would never end.
func noOtherAlarm(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		isCompared := !m.Answers() && othersAgree(s, m)
		if (isCorrupt(s, m) || isCompared) && len(corruptAlarms(s)) == len(s.Membership.Alarms) {
			return nil
		}
		return noAlarm("added or removed")(s)
	}
}

// fewNodesGone refuses while more than a third of all nodes are not ready: such a fault is not cured by new members. A
// user may know better.
func fewNodesGone(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if n := s.Nodes; n.NotReady < 2 || 3*n.NotReady <= n.All || isAskedFor(s, m) {
			return nil
		}
		return &plan.Refusal{
			Guard: "fewNodesGone", Reason: v1beta1.ReasonNodesNotReady,
			Message: fmt.Sprintf("%d of %d nodes are not ready. While more than a third are not, no lost member is replaced: the nodes may come back together. "+
				"Bring the nodes back, or replace a member with the annotation %s.", s.Nodes.NotReady, s.Nodes.All, v1beta1.ReplaceMemberAnnotation),
		}
	}
}

// othersHealthy refuses while another voter is down that is not lost: it comes back, or is cured first.
func othersHealthy(lost *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		isCure := lossOf(s, lost).corrupt
		var names []string
		for i := range s.Members {
			m := &s.Members[i]
			if m.Name != lost.Name && isListedVoter(s, m) && !m.IsHealthyVoter() && !isToBeReplaced(s, m) &&
				(!isCure || !refusesItsOwnData(m)) { // etcd starts it again once the corrupt peer is gone
				names = append(names, m.Name)
			}
		}
		if len(names) == 0 {
			return nil
		}
		return &plan.Refusal{
			Guard: "othersHealthy", Reason: v1beta1.ReasonMembersNotHealthy,
			Message: fmt.Sprintf("%s is to be replaced. That is done while all other members are healthy voters. Waiting for %s.", lost.Name, strings.Join(names, ", ")),
		}
	}
}

// replacementAbandonedFor abandons a replacement of a member that came back before its turn, or that the guards refuse.
func replacementAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	m := s.Member(op.Member)
	switch {
	case s.Membership == nil:
		return deadlinePassed(s, op)
	case m == nil:
		return ""
	case !isToBeReplaced(s, m):
		return fmt.Sprintf("%s is not lost any more, or nobody wants it replaced any more.", m.Name)
	}
	if refusals := refusalsOf(s, replacementGuards(m)...); len(refusals) > 0 {
		return "It was not carried out. " + refusals[0].Message
	}
	return deadlinePassed(s, op)
}

// isRemovalClaimed reports whether the operation under way removes a member, or replaces it.
func isRemovalClaimed(s *cluster.Snapshot, member string) bool {
	return (isClaimed(s, v1beta1.OperationRemoveMember) || isClaimed(s, v1beta1.OperationReplaceMember)) && s.Cluster.Status.Operation.Member == member
}
