package analyse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// holdRefusals asks what holds the voluntary steps of a cluster, or of all clusters, whether the decision's step may
// begin. A step that is under way goes on, and a member whose pod has failed is restarted. The replacement of a lost
// member is voluntary: to remove it from etcd, and to copy the data, disturbs the others.
func holdRefusals(h *cluster.Hold, c *v1beta1.EtcdCluster, d *plan.Decision) []plan.Refusal {
	if h == nil || !d.Voluntary {
		return nil
	}
	var refusals []plan.Refusal
	for _, refuse := range []func(*cluster.Hold, *v1beta1.EtcdCluster, *plan.Decision) *plan.Refusal{
		paceReadable,    // Make sure that nothing begins which an administrator may have forbidden.
		notFrozen,       // Make sure that the red button works.
		fewOthers,       // Make sure that a fault of the operator or of a spec does not reach all clusters at once.
		fewReplacements, // Make sure that a fault of Kubernetes is not taken for the loss of many members.
		rollsNotStopped, // Make sure that what fails again and again is looked at by a person.
	} {
		if r := refuse(h, c, d); r != nil {
			refusals = append(refusals, *r)
		}
	}
	return refusals
}

// paceReadable refuses while the operator cannot read whether steps are held.
func paceReadable(h *cluster.Hold, _ *v1beta1.EtcdCluster, _ *plan.Decision) *plan.Refusal {
	if h.Unreadable == "" {
		return nil
	}
	return &plan.Refusal{
		Guard: "paceReadable", Reason: v1beta1.ReasonReadRefused,
		Message: fmt.Sprintf("The operator begins no step that may disturb members, because it cannot tell whether it may: %s. "+
			"It tries again. If this stays, grant its ServiceAccount get on that object.", strings.TrimSuffix(h.Unreadable, ".")),
	}
}

// notFrozen refuses while an administrator froze the operator, or the namespace.
func notFrozen(h *cluster.Hold, c *v1beta1.EtcdCluster, _ *plan.Decision) *plan.Refusal {
	who, lift := "", ""
	switch {
	case h.ByOperator:
		who, lift = "The operator runs with --freeze-disruptions", "Remove that flag from the operator's Deployment when it may"
	case h.ByNamespace:
		who = fmt.Sprintf("Namespace %s has the annotation %s=%s", c.Namespace, v1beta1.FreezeAnnotation, v1beta1.FreezeValue)
		lift = fmt.Sprintf("Run kubectl annotate namespace %s %s- when it may", c.Namespace, v1beta1.FreezeAnnotation)
	default:
		return nil
	}
	return &plan.Refusal{
		Guard: "notFrozen", Reason: v1beta1.ReasonFrozen,
		Message: who + ", so no step begins that may disturb members, and no lost member is replaced. A member whose pod has failed is still restarted. " +
			lift + ".",
	}
}

// fewOthers refuses while as many other clusters as the operator allows at once have a step under way.
func fewOthers(h *cluster.Hold, _ *v1beta1.EtcdCluster, _ *plan.Decision) *plan.Refusal {
	if h.Limit == 0 {
		return nil
	}
	clusters := "1 other cluster has"
	if h.Limit > 1 {
		clusters = fmt.Sprintf("%d other clusters have", h.Limit)
	}
	return &plan.Refusal{
		Guard: "fewOthers", Reason: v1beta1.ReasonWaitingForOtherClusters,
		Message: fmt.Sprintf("%s a step under way that may disturb members, and --max-disruptions of the operator allows no more at once. "+
			"Waiting until one of them ends.", clusters),
	}
}

// fewReplacements refuses to replace a lost member while as many other clusters as the operator allows do so.
func fewReplacements(h *cluster.Hold, _ *v1beta1.EtcdCluster, _ *plan.Decision) *plan.Refusal {
	if h.Replacements == 0 {
		return nil
	}
	return &plan.Refusal{
		Guard: "fewReplacements", Reason: v1beta1.ReasonWaitingForOtherClusters,
		Message: fmt.Sprintf("So many lost members of other clusters are being replaced: %d. --max-replacements of the operator allows no more at once. "+
			"Waiting until one of them ends.", h.Replacements),
	}
}

// WhyComparisonWaits tells what keeps a comparison of the data, for which there is a cause, from beginning now; empty
// where nothing does. ConsistencyRefusals tells what prevents it until the members change.
func WhyComparisonWaits(s *cluster.Snapshot) string {
	op := s.Cluster.Status.Operation
	switch {
	case !AwaitsComparison(s):
		return ""
	case s.Cluster.Spec.Paused:
		return "spec.paused is true. Set it to false to have them compared."
	case op != nil && op.Type != v1beta1.OperationCheckConsistency:
		return fmt.Sprintf("Operation %s ends first.", plan.NameOf(op))
	case op != nil:
		return ""
	}
	d := checkConsistency(s)
	if d == nil || d.Action == nil {
		return ""
	}
	d.Voluntary = plan.IsVoluntary(d.Action)
	return plan.Messages(holdRefusals(s.Hold, s.Cluster, d))
}

// rollsNotStopped refuses to restart a member for its spec after many members in a row had to go back.
func rollsNotStopped(h *cluster.Hold, _ *v1beta1.EtcdCluster, d *plan.Decision) *plan.Refusal {
	if h.StoppedRolls == "" || !plan.IsRoll(d.Reason) {
		return nil
	}
	return &plan.Refusal{
		Guard: "rollsNotStopped", Reason: v1beta1.ReasonRollsStopped,
		Message: fmt.Sprintf("%d members in a row, in all clusters of the operator, did not become healthy after their restart and went back. "+
			"No member is restarted for its spec until an administrator allows it. %s", cluster.MaxRollBacks, h.StoppedRolls),
	}
}

// lowersALimit reports whether any upkeep lowers a limit of a running pod.
func lowersALimit(s *cluster.Snapshot, list []plan.Upkeep) bool {
	return slices.ContainsFunc(list, func(u plan.Upkeep) bool { return isOfLowerLimit(s, u) })
}
