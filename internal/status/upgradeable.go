package status

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

const (
	// ConditionUpgradeable is OLM's: while it is False, OLM does not replace the operator.
	ConditionUpgradeable = "Upgradeable"
	// ConditionUpgradesHeld remembers in the OperatorCondition when the present row of steps began: that is its
	// lastTransitionTime. Steps belong to one row until Upgradeable was True for openTime.
	ConditionUpgradesHeld = "UpgradesHeld"
)

// No tenant may keep the operator from being upgraded. The successor finishes every step that this operator began.
const (
	// stepTime is how long one step of one cluster delays upgrades.
	stepTime = 10 * time.Minute
	// rowTime is how long steps of any clusters that follow one another delay upgrades.
	rowTime = 30 * time.Minute
	// openTime is how long Upgradeable is True after such a row. OLM asks again after 1000 s at the latest: that is
	// client-go's longest delay of an item that failed.
	openTime = 30 * time.Minute
	// clockSkew is how far ahead the clock of the operator that started a step may be.
	clockSkew = time.Minute
)

// Upgradeable returns the conditions that tell OLM whether the operator may be replaced now.
// It also returns for how long they are right if nothing else changes. Zero is for ever.
// The last conditions are those of the OperatorCondition.
func Upgradeable(clusters []v1beta1.EtcdCluster, last []metav1.Condition, now time.Time) ([]metav1.Condition, time.Duration) {
	steps, stepEnds := stepsInFlight(clusters, now)
	began := rowBegan(last, now)
	upgradeable := metav1.Condition{
		Type: ConditionUpgradeable, Status: metav1.ConditionTrue,
		Reason: v1beta1.ReasonNoStepInFlight, Message: "No step is in flight.",
	}
	var until time.Time
	switch {
	case len(steps) == 0:
	case now.Before(began.Add(rowTime)):
		upgradeable.Status, upgradeable.Reason, upgradeable.Message = metav1.ConditionFalse, v1beta1.ReasonStepInFlight, stepText(steps)
		until = earliest(stepEnds, began.Add(rowTime))
	default:
		upgradeable.Reason = v1beta1.ReasonHeldLongEnough
		upgradeable.Message = fmt.Sprintf("Steps followed one another for %.0f minutes. "+
			"OLM may replace the operator now: the new one finishes the step in flight.", rowTime.Minutes())
	}
	upgradeable.LastTransitionTime = metav1.NewTime(now)
	if before := meta.FindStatusCondition(last, ConditionUpgradeable); before != nil && before.Status == upgradeable.Status {
		upgradeable.LastTransitionTime = before.LastTransitionTime
	}
	if upgradeable.Reason == v1beta1.ReasonHeldLongEnough {
		until = upgradeable.LastTransitionTime.Add(openTime)
	}
	conditions := []metav1.Condition{upgradeable}
	if held := meta.FindStatusCondition(last, ConditionUpgradesHeld); held != nil || len(steps) > 0 {
		conditions = append(conditions, heldSince(held, steps, began))
	}
	if until.IsZero() {
		return conditions, 0
	}
	return conditions, until.Sub(now)
}

// rowBegan returns when the present row of steps began. It is now if there is none.
func rowBegan(last []metav1.Condition, now time.Time) time.Time {
	held, upgradeable := meta.FindStatusCondition(last, ConditionUpgradesHeld), meta.FindStatusCondition(last, ConditionUpgradeable)
	switch {
	case held == nil || upgradeable == nil || held.LastTransitionTime.After(now):
		return now
	case upgradeable.Status == metav1.ConditionTrue && !now.Before(upgradeable.LastTransitionTime.Add(openTime)):
		return now
	default:
		return held.LastTransitionTime.Time
	}
}

// heldSince returns the last row until a step begins another.
func heldSince(held *metav1.Condition, steps []string, began time.Time) metav1.Condition {
	if len(steps) == 0 {
		return *held
	}
	return metav1.Condition{
		Type: ConditionUpgradesHeld, Status: metav1.ConditionTrue, Reason: v1beta1.ReasonStepInFlight,
		Message:            "The lastTransitionTime is when the first of the latest row of steps was seen.",
		LastTransitionTime: metav1.NewTime(began),
	}
}

// stepsInFlight names the steps that delay upgrades, sorted, and returns when the first of them ceases to.
func stepsInFlight(clusters []v1beta1.EtcdCluster, now time.Time) (steps []string, ends time.Time) {
	for i := range clusters {
		op := clusters[i].Status.Operation
		if op == nil || !disturbsMembers(op.Type) {
			continue
		}
		end := op.StartedAt.Add(stepTime)
		if !now.Before(end) || op.StartedAt.After(now.Add(clockSkew)) {
			continue
		}
		steps = append(steps, fmt.Sprintf("EtcdCluster %s: %s", clusters[i].Key(), plan.NameOf(op)))
		if ends.IsZero() || end.Before(ends) {
			ends = end
		}
	}
	slices.Sort(steps)
	return steps, ends
}

// disturbsMembers reports whether a step takes a member down or changes the membership. The others only start members.
// A cluster whose pods cannot be scheduled may be in one for ever.
func disturbsMembers(t v1beta1.OperationType) bool {
	switch t {
	case v1beta1.OperationBootstrap, v1beta1.OperationTakeBack, v1beta1.OperationResume:
		return false
	case v1beta1.OperationRollMember, v1beta1.OperationAddMember, v1beta1.OperationRemoveMember, v1beta1.OperationReplaceMember, v1beta1.OperationRollBack, v1beta1.OperationDowngrade,
		v1beta1.OperationCheckConsistency, v1beta1.OperationDefragment, v1beta1.OperationMoveLeader:
		return true
	default: // of a later release
		return true
	}
}

func stepText(steps []string) string {
	if len(steps) == 1 {
		return steps[0] + " is in flight."
	}
	return fmt.Sprintf("%s is in flight, and %d more.", steps[0], len(steps)-1)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
