package status

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// Upgradeable tells whether the operator may be replaced now: not while a step is in flight. The successor would finish the step;
// but who replaces the operator wants to know first whether it came out well.
func Upgradeable(clusters []v1beta1.EtcdCluster) metav1.Condition {
	first, more := "", 0
	for i := range clusters {
		if clusters[i].Status.Operation == nil {
			continue
		}
		more++
		if step := stepOf(&clusters[i]); first == "" || step < first {
			first = step
		}
	}
	switch more {
	case 0:
		return metav1.Condition{Type: "Upgradeable", Status: metav1.ConditionTrue, Reason: v1beta1.ReasonNoStepInFlight, Message: "No step is in flight."}
	case 1:
		return stepInFlight(first + " is in flight.")
	default:
		return stepInFlight(fmt.Sprintf("%s is in flight, and %d more.", first, more-1))
	}
}

func stepInFlight(message string) metav1.Condition {
	return metav1.Condition{Type: "Upgradeable", Status: metav1.ConditionFalse, Reason: v1beta1.ReasonStepInFlight, Message: message}
}

func stepOf(c *v1beta1.EtcdCluster) string {
	step := fmt.Sprintf("EtcdCluster %s: %s", c.Key(), c.Status.Operation.Type)
	return strings.TrimSuffix(step+" of "+c.Status.Operation.Member, " of ")
}
