package analyse

import (
	"fmt"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// This file has the way back of the last, or the only, member that fails with a new minor version. Nothing pins the
// version of the cluster then: as soon as the member answers once, the leader may raise it, and the old binary panics.
// So the member is stopped first. The leader raises the version only when every member tells its own, so once the
// member has ended, the version of the cluster tells whether there is a way back.

// stopsFirst reports whether a member that must go back is stopped before anything else.
func stopsFirst(s *cluster.Snapshot, m *cluster.Member) bool {
	if m == nil || m.Workload == nil || m.Workload.HealthyIntent == nil || isBegun(s, m, v1beta1.OperationRollBack) {
		return false
	}
	if isRememberedAsFailed(s, m, *m.Workload.HealthyIntent) {
		return false // it was tried, and refused the data
	}
	healthy := m.Workload.HealthyIntent.Version
	return minorSteps(healthy, m.Workload.Intent.Version) > 0 && !isPinned(s, m, healthy) && isDown(m)
}

// stopMember takes the member's pod away, and keeps its template.
func stopMember(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if refusals := restartRefusals(s, m, rollBackRestart); len(refusals) > 0 {
		return refused(refusals)
	}
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonRollingBack}
	d.Message = fmt.Sprintf("%s did not become healthy after its restart. %s It is stopped: no other voter runs etcd %s, and only while it is stopped "+
		"can the operator find out whether it may go back.", m.Name, whyNotHealthy(m), cluster.MinorOf(m.Workload.HealthyIntent.Version))
	d.Action = templateOnly(s, m, m.Workload.Intent, true)
	return d
}

// isFenced reports whether the operation under way has stopped the member.
func isFenced(s *cluster.Snapshot, m *cluster.Member) bool {
	if m == nil || !isBegun(s, m, v1beta1.OperationRollBack) {
		return false
	}
	replicas := m.Workload.Live.Spec.Replicas
	return replicas != nil && *replicas == 0
}

// lookBack starts a member that was stopped: with the old minor version where the cluster still works as that, and else
// with the new one. The only member is asked by itself: the old binary panics before it serves, if it is too old.
func lookBack(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonRollingBack}
	healthy := *m.Workload.HealthyIntent
	old, now := cluster.MinorOf(healthy.Version), clusterVersion(s)
	switch {
	case m.Pod != nil:
		d.Message = fmt.Sprintf("%s is being stopped, to find out whether it may go back to etcd %s.", m.Name, old)
	case now == old, s.Outlook().Voters == 1:
		d.Message = fmt.Sprintf("The cluster works as etcd %s. Starting %s with what it ran with before.", old, m.Name)
		if now != old {
			d.Message = fmt.Sprintf("%s is the only member, so only it can tell whether it may go back to etcd %s. Starting it with what it ran with before.", m.Name, old)
		}
		d.Action = templateOnly(s, m, withAuthorities(s, healthy), false)
	case now == "":
		d.Message = fmt.Sprintf("%s is stopped. Waiting until the leader of etcd tells the version that the cluster works as.", m.Name)
	default:
		d.Message = fmt.Sprintf("The cluster works as etcd %s by now, and etcd %s would refuse its data. Starting %s with etcd %s again. "+
			"Set spec.version to a patch of %s that works, or correct what keeps it from starting.", now, old, m.Name, m.Workload.Intent.Version, now)
		d.Action = templateOnly(s, m, m.Workload.Intent, false)
	}
	return d
}

// templateOnly writes the member's StatefulSet for a roll back. Kubernetes then stops or starts the pod.
func templateOnly(s *cluster.Snapshot, m *cluster.Member, intent cluster.Intent, isStopped bool) plan.RestartMember {
	in := memberInput(s, m.Name, intent, hasStarted(s, m))
	in.Operation, in.Stopped = cluster.OperationMark(v1beta1.OperationRollBack, claimedSince(s, m)), isStopped
	if !sameConfiguration(intent, m.Workload.Intent) {
		in.FailedIntent = cluster.AddFailedIntent(in.FailedIntent, m.Workload.Intent, "Its pod did not become healthy.")
	}
	return plan.RestartMember{Name: m.Name, For: v1beta1.OperationRollBack, StatefulSet: render.MemberStatefulSet(in), Live: m.Workload.Live}
}

// continueRollBack goes on with a roll back. Each step follows from what is seen.
func continueRollBack(s *cluster.Snapshot, op *v1beta1.Operation) *plan.Decision {
	switch m := s.Member(op.Member); {
	case stopsFirst(s, m):
		return stopMember(s, m)
	case isFenced(s, m) && m.Workload.HealthyIntent != nil:
		return lookBack(s, m)
	default:
		return continueRestart(s, op)
	}
}
