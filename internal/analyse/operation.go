package analyse

import (
	"fmt"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/internal/cluster"
)

// operationUnderWay holds every later rule back while a claim stands.
func operationUnderWay(s *cluster.Snapshot) *Decision {
	op := s.Cluster.Status.Operation
	if op == nil {
		return nil
	}
	reason, known := operationReasons[op.Type]
	if !known {
		return refused([]Refusal{{
			Guard:  "operationKnown",
			Reason: v1alpha1.ReasonUnknownOperation,
			Message: fmt.Sprintf("The operation %s was begun by another release of the operator, and this one does not know it. "+
				"Install that release again to finish it.", op.Type),
		}})
	}
	return &Decision{
		Progressing: true,
		Reason:      reason,
		Message:     fmt.Sprintf("%d of %d members serve; the quorum is %d. Waiting for the others.", s.Serving(), s.Voters(), cluster.Quorum(s.Voters())),
	}
}

var operationReasons = map[v1alpha1.OperationType]string{
	v1alpha1.OperationBootstrap: v1alpha1.ReasonBootstrapping,
	v1alpha1.OperationTakeBack:  v1alpha1.ReasonTakingBack,
	v1alpha1.OperationResume:    v1alpha1.ReasonResuming,
}

// operationFinished reports whether what the claim was made for is done.
func operationFinished(s *cluster.Snapshot) bool {
	op := s.Cluster.Status.Operation
	if op == nil || len(s.Members) == 0 || len(s.ClusterIDs()) > 1 || s.Serving() < cluster.Quorum(s.Voters()) {
		return false
	}
	switch op.Type {
	case v1alpha1.OperationBootstrap, v1alpha1.OperationTakeBack, v1alpha1.OperationResume:
		return everyMemberSealed(s)
	default:
		return false
	}
}

// everyMemberSealed reports whether each member that has a volume runs under a StatefulSet and can start over its own data only.
func everyMemberSealed(s *cluster.Snapshot) bool {
	for i := range s.Members {
		m := &s.Members[i]
		if m.Volume != nil && (m.Workload == nil || !m.Sealed()) {
			return false
		}
	}
	return true
}

func takingBack(s *cluster.Snapshot) bool {
	op := s.Cluster.Status.Operation
	return op != nil && op.Type == v1alpha1.OperationTakeBack
}
