package analyse

import (
	"fmt"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// operationUnderWay holds every later rule back while a claim stands, and does what a step that was cut short has not done yet.
func operationUnderWay(s *cluster.Snapshot) *plan.Decision {
	op := s.Cluster.Status.Operation
	if op == nil {
		return nil
	}
	if len(withoutWorkload(s)) > 0 {
		return resume(s)
	}
	if op.Type == v1beta1.OperationRollMember {
		return continueRoll(s, op.Member)
	}
	return &plan.Decision{
		Progressing: true,
		Reason:      operationReasons[op.Type],
		Message:     fmt.Sprintf("%s. Waiting for the others.", s.Outlook()),
	}
}

var operationReasons = map[v1beta1.OperationType]string{
	v1beta1.OperationBootstrap: v1beta1.ReasonBootstrapping,
	v1beta1.OperationTakeBack:  v1beta1.ReasonTakingBack,
	v1beta1.OperationResume:    v1beta1.ReasonResuming,

	v1beta1.OperationRollMember: v1beta1.ReasonRotatingAuthorities,
}

// operationFinished reports whether what the claim was made for is done.
func operationFinished(s *cluster.Snapshot) bool {
	op := s.Cluster.Status.Operation
	if op == nil || len(s.Members) == 0 || len(s.ClusterIDs()) > 1 || !s.Outlook().HasQuorum() {
		return false
	}
	if op.Type == v1beta1.OperationRollMember {
		return rolled(s, op.Member)
	}
	return operationKnown(s) == nil && everyMemberSealed(s)
}

// everyMemberSealed reports whether each member that has a volume runs under a StatefulSet and can start over its own data only.
func everyMemberSealed(s *cluster.Snapshot) bool {
	for i := range s.Members {
		m := &s.Members[i]
		if m.Volume != nil && (m.Workload == nil || !m.RefusesEmptyVolume()) {
			return false
		}
	}
	return true
}
