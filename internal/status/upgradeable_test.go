package status

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

func TestTheOperatorIsNotUpgradeableWhileAStepIsInFlight(t *testing.T) {
	cluster := func(name string, operation *v1beta1.Operation) v1beta1.EtcdCluster {
		return v1beta1.EtcdCluster{
			ObjectMeta: metav1.ObjectMeta{Namespace: "db", Name: name},
			Status:     v1beta1.EtcdClusterStatus{Operation: operation},
		}
	}
	founding := &v1beta1.Operation{Type: v1beta1.OperationBootstrap}
	resuming := &v1beta1.Operation{Type: v1beta1.OperationResume, Member: "b-1"}
	for name, test := range map[string]struct {
		clusters []v1beta1.EtcdCluster
		status   metav1.ConditionStatus
		message  string
	}{
		"no cluster":   {nil, metav1.ConditionTrue, "No step is in flight."},
		"all at rest":  {[]v1beta1.EtcdCluster{cluster("a", nil), cluster("b", nil)}, metav1.ConditionTrue, "No step is in flight."},
		"one founding": {[]v1beta1.EtcdCluster{cluster("a", nil), cluster("b", founding)}, metav1.ConditionFalse, "EtcdCluster db/b: Bootstrap is in flight."},
		"two at work, in whatever order": {
			[]v1beta1.EtcdCluster{cluster("c", founding), cluster("b", resuming)},
			metav1.ConditionFalse, "EtcdCluster db/b: Resume of b-1 is in flight, and 1 more.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Upgradeable(test.clusters)
			if got.Status != test.status || got.Message != test.message {
				t.Errorf("Upgradeable = %s %q, want %s %q", got.Status, got.Message, test.status, test.message)
			}
		})
	}
}
