package analyse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// repair gives members whose StatefulSet somebody deleted their StatefulSet back.
func repair(s *cluster.Snapshot) *plan.Decision {
	if len(withoutWorkload(s)) == 0 {
		return nil
	}
	return resume(s)
}

// resume starts all members that have data and no StatefulSet. They are dead already, so no quorum is at stake,
// and only together may they form one. A claim that stands stays as it is.
func resume(s *cluster.Snapshot) *plan.Decision {
	why := v1beta1.OperationResume
	if op := s.Cluster.Status.Operation; op != nil {
		why = op.Type
	}
	reason := operationReasons[why]
	guards := []guard{previousClusterGone, noForeignObject, versionSkewAllowed, peerURLsUnchanged}
	if !slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Workload != nil }) {
		guards = append(guards, podGuards...) // the pods are made from the spec
	}
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
	}
	if d := awaitObjects(s, reason); d != nil {
		return d
	}
	names := withoutWorkload(s)
	action := plan.StartMembers{Type: why}
	for _, name := range names {
		action.StatefulSets = append(action.StatefulSets, render.MemberStatefulSet(memberInput(s, name, settledIntent(s), true)))
	}
	return &plan.Decision{
		Progressing: true,
		Reason:      reason,
		Message:     fmt.Sprintf("Starting %s over the data on their volumes.", strings.Join(names, ", ")),
		Action:      action,
	}
}

// withoutWorkload names the members that have data and no StatefulSet.
func withoutWorkload(s *cluster.Snapshot) []string {
	var names []string
	for _, m := range s.Members {
		if m.Volume.Started() && !m.Volume.Deleting && m.Workload == nil {
			names = append(names, m.Name)
		}
	}
	return names
}
