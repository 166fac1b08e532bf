package analyse

import (
	"fmt"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// resume starts all members that have data and no StatefulSet. They are down already, so no quorum is at stake,
// and only together can they form one. An operation under way is kept: its step may need these members.
func resume(s *cluster.Snapshot) *plan.Decision {
	names := withoutWorkload(s)
	if len(names) == 0 {
		return nil
	}
	reason := v1beta1.ReasonResuming
	if op := s.Cluster.Status.Operation; op != nil {
		reason = reasonOf(op)
	}
	guards := []guard{
		previousClusterGone, // Make sure that no pod of a deleted cluster of this name uses the volumes.
		noForeignObject,     // Make sure that the names are free.
		versionSkewAllowed,  // Make sure that etcd can read the volumes.
		peerURLsUnchanged,   // Make sure that the members find each other.
	}
	if !s.MembersCreated() {
		guards = append(guards, podGuards...) // the pods are made from the spec
	}
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
	}
	if d := awaitObjects(s, reason); d != nil {
		return d
	}
	action := plan.StartMembers{}
	for _, name := range names {
		action.StatefulSets = append(action.StatefulSets, render.MemberStatefulSet(memberInput(s, name, resumedIntent(s, s.Member(name).Volume), true)))
	}
	return &plan.Decision{
		Progressing: true,
		Reason:      reason,
		Message:     fmt.Sprintf("Starting %s on the volumes that hold their data.", strings.Join(names, ", ")),
		Action:      action,
		Urgent:      true,
	}
}

// withoutWorkload names the members that have data and no StatefulSet. One whose volume was replaced never starts.
func withoutWorkload(s *cluster.Snapshot) []string {
	var names []string
	for _, m := range s.Members {
		if m.Volume.Started() && !m.Volume.Deleting && !m.Volume.IsReplaced() && m.Workload == nil {
			names = append(names, m.Name)
		}
	}
	return names
}
