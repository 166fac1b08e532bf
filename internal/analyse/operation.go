package analyse

import (
	"cmp"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// operation says what an operation of one type waits for. It is claimed in the status before its first step.
//
// It ends in one of three ways:
//   - done: what it was made for is reached.
//   - handed over: another rule must act on the same member, and sets Decision.HandOver. It changes its type, and
//     keeps its member and its start time.
//   - abandoned: the step was not carried out and may not be, or its deadline passed.
type operation struct {
	// reason is that of the Progressing condition where the operation stores none.
	reason string
	// isDone reports whether what the operation is for is reached.
	isDone func(*cluster.Snapshot, *v1beta1.Operation) bool
	// abandonedFor says why the operation is given up before it is done; empty where it is not.
	abandonedFor func(*cluster.Snapshot, *v1beta1.Operation) string
	// proceed goes on with the step, or says what is waited for.
	proceed func(*cluster.Snapshot, *v1beta1.Operation) *plan.Decision
}

// operations is the table of all operations that this release knows.
var operations map[v1beta1.OperationType]operation

func init() { // not a literal: proceed leads back to the table
	operations = map[v1beta1.OperationType]operation{
		v1beta1.OperationBootstrap:        {v1beta1.ReasonBootstrapping, foundingIsDone, foundingAbandonedFor, awaitQuorum},
		v1beta1.OperationTakeBack:         {v1beta1.ReasonTakingBack, membersStarted, deadlinePassed, awaitQuorum},
		v1beta1.OperationResume:           {v1beta1.ReasonResuming, membersStarted, deadlinePassed, awaitQuorum},
		v1beta1.OperationAddMember:        {v1beta1.ReasonScaling, joinIsDone, joinAbandonedFor, continueJoining},
		v1beta1.OperationRemoveMember:     {v1beta1.ReasonScaling, removalIsDone, removalAbandonedFor, continueRemoval(removeMember)},
		v1beta1.OperationReplaceMember:    {v1beta1.ReasonReplacingMember, removalIsDone, replacementAbandonedFor, continueRemoval(replaceMember)},
		v1beta1.OperationCheckConsistency: {v1beta1.ReasonCheckingConsistency, comparisonIsDone, comparisonAbandonedFor, continueComparing},
		v1beta1.OperationRollMember:       {v1beta1.ReasonRotatingAuthorities, restartIsDone, restartAbandonedFor, continueRestart},
		v1beta1.OperationDowngrade:        {v1beta1.ReasonDowngrading, downgradeChanged, downgradeAbandonedFor, awaitDowngrade},
		v1beta1.OperationDefragment:       {v1beta1.ReasonDefragmenting, defragmentationIsDone, defragmentationAbandonedFor, continueDefragmentation},
		v1beta1.OperationMoveLeader:       {v1beta1.ReasonMovingLeader, leaderIsMoved, moveAbandonedFor, continueMove},
		v1beta1.OperationRollBack:         {v1beta1.ReasonRollingBack, restartIsDone, rollBackAbandonedFor, continueRollBack},
	}
}

// operationUnderWay makes every later rule wait.
func operationUnderWay(s *cluster.Snapshot) *plan.Decision {
	op := s.Cluster.Status.Operation
	if op == nil {
		return nil
	}
	d := operations[op.Type].proceed(s, op)
	d.Reason = reasonOf(op)
	return d
}

func reasonOf(op *v1beta1.Operation) string { return cmp.Or(op.Reason, operations[op.Type].reason) }

// endOperation ends the operation under way if it is done or abandoned. It reports whether it did, and why it was
// abandoned. That of a cluster which is paused, or is being deleted, stays as it is.
func endOperation(s *cluster.Snapshot) (ended bool, abandoned string) {
	op := s.Cluster.Status.Operation
	if op == nil || s.Cluster.Spec.Paused || !s.Cluster.DeletionTimestamp.IsZero() || refusalsOf(s, oneClusterID, operationKnown) != nil {
		return false, ""
	}
	row := operations[op.Type]
	if row.isDone(s, op) {
		return true, ""
	}
	if abandoned = row.abandonedFor(s, op); abandoned == "" && op.Type != v1beta1.OperationBootstrap && s.Membership == nil && MemoryLost(s) != "" {
		abandoned = "No quorum has its data any more."
	}
	return abandoned != "", abandoned
}

// claimOf returns the operation that is claimed for the decision's action. One that is under way is kept, except by a
// hand-over.
func claimOf(s *cluster.Snapshot, d *plan.Decision) *v1beta1.Operation {
	if d.Action == nil {
		return nil
	}
	claim := v1beta1.Operation{
		Type: d.Action.Operation(), Member: d.Action.Member(), StartedAt: metav1.NewTime(s.Now), Reason: d.Reason,
	}
	claim.WaitingFor = cluster.Shortened(d.Message, v1beta1.MaxWaitingFor)
	standing := s.Cluster.Status.Operation
	if standing != nil {
		claim = *standing // what became of its step has been told
	}
	if d.HandOver {
		claim.Type, claim.Reason = d.Action.Operation(), d.Reason
	}
	if replacesMember(&claim) && (standing == nil || d.HandOver) {
		claim.VolumeUID = cluster.HealthyVolume(s.Cluster, claim.Member)
	}
	return &claim
}

// replacesMember reports whether an operation removes a member for which a new one joins, or has joined.
func replacesMember(op *v1beta1.Operation) bool { return reasonOf(op) == v1beta1.ReasonReplacingMember }

// deadlinePassed abandons an operation that takes too long: it then no longer keeps other rules from acting.
// Later rules decide what is still wrong.
func deadlinePassed(s *cluster.Snapshot, op *v1beta1.Operation) string {
	if !isLate(s, op.Type, op.StartedAt.Time) {
		return ""
	}
	return fmt.Sprintf("It did not finish within %s.", deadlineOf(s, op.Type))
}

// isLate reports whether an operation that began at some time is past its deadline.
func isLate(s *cluster.Snapshot, t v1beta1.OperationType, startedAt time.Time) bool {
	return !s.Now.Before(startedAt.Add(deadlineOf(s, t)))
}

// deadlineOf returns how long an operation may take. A roll back keeps the start time of the restart before it, so it
// has the time of both. A defragmentation has its own time on top.
func deadlineOf(s *cluster.Snapshot, t v1beta1.OperationType) time.Duration {
	deadline := cluster.ProgressDeadline(s.Cluster)
	if t == v1beta1.OperationRollBack {
		return 2 * deadline
	}
	if t == v1beta1.OperationDefragment {
		return deadline + cluster.MaxDefragmentTime
	}
	return deadline
}

// foundingIsDone needs no answer of etcd: the operator's network may be cut off from the members.
func foundingIsDone(s *cluster.Snapshot, _ *v1beta1.Operation) bool {
	return len(s.Members) > 0 && quorumOfFounders(s, (*cluster.Member).RefusesEmptyVolume) && len(withoutWorkload(s)) == 0 && len(unfinishedFounders(s)) == 0
}

// foundingAbandonedFor abandons, at its deadline, a founding of which a quorum has started: a StatefulSet cannot be
// created, or a pod cannot be switched. It also abandons one that lost so many volumes that it can have no quorum.
// Any other founding may take as long as it takes: its own rule goes on with it.
func foundingAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	started := quorumOfFounders(s, func(m *cluster.Member) bool { return m.Volume.Started() })
	if len(s.Members) == 0 || !started && volumesLost(s) == nil {
		return ""
	}
	return deadlinePassed(s, op)
}

func isClaimed(s *cluster.Snapshot, t v1beta1.OperationType) bool {
	return s.Cluster.Status.Operation != nil && s.Cluster.Status.Operation.Type == t
}

// membersStarted reports whether a quorum serves, and each member that has a volume runs and refuses an empty one.
func membersStarted(s *cluster.Snapshot, _ *v1beta1.Operation) bool {
	for i := range s.Members {
		m := &s.Members[i]
		if m.Volume != nil && !m.Volume.NeverStarted() && !m.Volume.IsReplaced() && (m.Workload == nil || !m.RefusesEmptyVolume()) {
			return false
		}
	}
	return s.Outlook().HasQuorum()
}

func awaitQuorum(s *cluster.Snapshot, _ *v1beta1.Operation) *plan.Decision {
	return &plan.Decision{Progressing: true, Message: fmt.Sprintf("%s. Waiting for the others.", s.Outlook())}
}
