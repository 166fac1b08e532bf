package act

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The stop of a member that goes back names no pod, so nothing looks whether the member is ready by now.
func TestAStopOfAMemberThatIsReadyByNowIsAConflict(t *testing.T) {
	ready := podOf("prod-1-0", false)
	ready.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	w := newRollWorld(t, ready)
	w.action.Pod, w.action.UID, w.action.Evict = "", "", false
	w.action.StatefulSet.Spec.Replicas = new(int32)
	if err := w.act(t); !apierrors.IsConflict(err) || len(w.calls) > 0 {
		t.Errorf("stops a member that serves: %v, calls %v", err, w.calls)
	}
}

// A fenced member is started with the old version because its pod is gone, as the cache says. The API server has one.
func TestAFencedMemberIsNotStartedWhileItsPodIsThere(t *testing.T) {
	w := newRollWorld(t, podOf("prod-1-0", false))
	w.action.Pod, w.action.UID, w.action.Evict = "", "", false
	if err := w.act(t); !apierrors.IsConflict(err) || len(w.calls) > 0 {
		t.Errorf("writes the template: %v, calls %v", err, w.calls)
	}
}
