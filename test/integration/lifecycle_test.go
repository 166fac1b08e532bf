//go:build integration

package integration

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

func TestACreatedClusterBecomesAvailableAndComesToRest(t *testing.T) {
	t.Parallel()
	for _, size := range []int32{1, 3, 5, 7} {
		t.Run(fmt.Sprintf("size %d", size), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.create(size)
			l.settleUntilAvailable()
			l.expectFounded(size)
			l.expectRest()
		})
	}
}

// expectFounded fails unless the cluster was founded completely:
// every member recorded, sealed, ready, and the claim cleared.
func (l *lab) expectFounded(size int32) {
	l.Helper()
	c := l.get()
	numbers := make([]int, size)
	for n := range numbers {
		numbers[n] = n
	}
	l.expectObjects(objectsOf(numbers...))
	l.expectSealed(c, numbers...)
	expectCondition(l.T, c, v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
	expectCondition(l.T, c, v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)
	for _, kind := range []string{v1beta1.ConditionDegraded, v1beta1.ConditionQuorumLost, v1beta1.ConditionStorageAlarm, v1beta1.ConditionRestartPending} {
		expectCondition(l.T, c, kind, metav1.ConditionFalse, "")
	}
	if s := c.Status; s.Operation != nil || s.Replicas != size || s.ReadyReplicas != size || s.Version != c.Spec.Version || s.TargetVersion != c.Spec.Version ||
		s.Leader == "" || s.ServiceName != "prod-client" || s.ClientPort != 2379 || s.ObservedGeneration != c.Generation {
		l.Errorf("status = %+v", s)
	}
}

// expectSealed fails unless the volumes of the members know the cluster,
// and no template or pod would start an empty one.
func (l *lab) expectSealed(c *v1beta1.EtcdCluster, numbers ...int) {
	l.Helper()
	for _, n := range numbers {
		member := cluster.MemberName(name, n)
		volume, set, pod := l.volume(member), l.set(member), l.pod(member)
		if have := volume.Annotations[cluster.AnnotationClusterID]; have == "" || have != c.Status.ClusterID {
			l.Errorf("%s records the cluster ID %q, and the status %q", volume.Name, have, c.Status.ClusterID)
		}
		if volume.Annotations[cluster.AnnotationClusterUID] != string(c.UID) {
			l.Errorf("%s belongs to %q, want %q", volume.Name, volume.Annotations[cluster.AnnotationClusterUID], c.UID)
		}
		if _, founding := set.Spec.Template.Annotations[cluster.AnnotationInitialClusterState]; founding {
			l.Errorf("the template of %s still founds", member)
		}
		if state := pod.Annotations[cluster.AnnotationInitialClusterState]; state == "new" {
			l.Errorf("the pod of %s is not sealed", member)
		}
	}
}

// expectRest fails if a pass over a cluster writes anything whose members have been ready for long enough.
func (l *lab) expectRest() {
	l.Helper()
	l.later(trialTime)
	before := len(l.operator.writes)
	for range 3 {
		l.pass(l.operator)
	}
	if extra := l.operator.writes[before:]; len(extra) > 0 {
		l.Errorf("a cluster at rest was written to: %v", extra)
	}
}
