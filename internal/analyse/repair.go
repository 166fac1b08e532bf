package analyse

import (
	"fmt"
	"strings"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/internal/cluster"
)

// repair gives members whose StatefulSet somebody deleted their StatefulSet back.
func repair(s *cluster.Snapshot) *Decision {
	if len(withoutWorkload(s)) == 0 {
		return nil
	}
	return resume(s, v1alpha1.OperationResume, v1alpha1.ReasonResuming)
}

// resume starts all members that have data and no StatefulSet. They are dead already, so no quorum is at stake,
// and only together may they form one.
func resume(s *cluster.Snapshot, why v1alpha1.OperationType, reason string) *Decision {
	guards := []guard{oneClusterID, previousClusterGone, noStranger}
	if len(withoutWorkload(s)) == len(s.Members) {
		guards = append(guards, specUsable, optionsAllowed, memberVersionsAllowed) // the pods are made from the spec
	}
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
	}
	if s.PeerService == nil {
		return awaitServices(reason)
	}
	names := withoutWorkload(s)
	return &Decision{
		Progressing: true,
		Reason:      reason,
		Message:     fmt.Sprintf("Starting %s over the data on their volumes.", strings.Join(names, ", ")),
		Action:      ResumeMembers{Intent: settledIntent(s), Members: names, Why: why},
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

// memberVersionsAllowed refuses to start this cluster's own volumes with another minor version than the one that wrote them.
func memberVersionsAllowed(s *cluster.Snapshot) *Refusal {
	for _, m := range s.Members {
		if r := versionAllowed(m.Volume, s.Cluster.Spec.Version); r != nil {
			return r
		}
	}
	return nil
}
