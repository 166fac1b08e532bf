package act

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
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

// What the fence is for goes through: it takes no pod down itself, and writes the StatefulSet.
func TestAFenceStopsAMemberThatIsDownAndStartsOneWhosePodIsGone(t *testing.T) {
	othersReady := podOf("prod-2-0", false)
	othersReady.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for name, c := range map[string]struct {
		pods     []*corev1.Pod
		replicas int32
	}{
		"stops one that is not ready":  {[]*corev1.Pod{podOf("prod-1-0", false), othersReady}, 0},
		"stops one without a pod":      {[]*corev1.Pod{othersReady}, 0},
		"starts one whose pod is gone": {[]*corev1.Pod{othersReady}, 1},
	} {
		w := newRollWorld(t, c.pods...)
		w.action.Pod, w.action.UID, w.action.Evict = "", "", false
		w.action.StatefulSet.Spec.Replicas = &c.replicas
		if err := w.act(t); err != nil || !slices.Equal(w.calls, []string{"write prod-1"}) || w.evicted+w.deleted > 0 {
			t.Errorf("%s: %v, calls %v, evicted %d, deleted %d", name, err, w.calls, w.evicted, w.deleted)
		}
		var set appsv1.StatefulSet
		if err := w.Get(t.Context(), client.ObjectKeyFromObject(w.action.StatefulSet), &set); err != nil {
			t.Fatal(err)
		}
		if image := w.action.StatefulSet.Spec.Template.Spec.Containers[0].Image; *set.Spec.Replicas != c.replicas || set.Spec.Template.Spec.Containers[0].Image != image {
			t.Errorf("%s: there are %d replicas of %s", name, *set.Spec.Replicas, set.Spec.Template.Spec.Containers[0].Image)
		}
	}
}
