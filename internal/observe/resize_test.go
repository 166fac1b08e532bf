package observe

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

func TestTheStateOfAResizeIsReadFromThePod(t *testing.T) {
	memory := func(amount string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(amount)}}
	}
	condition := func(kind corev1.PodConditionType, reason, message string, generation int64) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, ObservedGeneration: generation}
	}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		done   bool
		failed string
	}{
		"the kubelet has seen the spec":   {func(*corev1.Pod) {}, true, ""},
		"the kubelet has not seen it yet": {func(p *corev1.Pod) { p.Status.ObservedGeneration = 1 }, false, ""},
		"an older kubelet":                {func(p *corev1.Pod) { p.Status.ObservedGeneration = 0 }, true, ""},
		"an older kubelet that is not done": {func(p *corev1.Pod) {
			p.Status.ObservedGeneration, p.Status.ContainerStatuses[0].Resources = 0, new(memory("1Gi"))
		}, false, ""},
		"a kubelet that tells no resources": {func(p *corev1.Pod) { p.Status.ObservedGeneration, p.Status.ContainerStatuses[0].Resources = 0, nil }, false, ""},
		"a pod without a status":            {func(p *corev1.Pod) { p.Status = corev1.PodStatus{} }, false, ""},
		"under way": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodResizeInProgress, "", "", 2)}
		}, false, ""},
		"under way, and it fails": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodResizeInProgress, "Error", "cgroup", 2)}
		}, false, "cgroup"},
		"the node may be able later": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodResizePending, "Deferred", "busy", 2)}
		}, false, ""},
		"the node can never do it": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodResizePending, "Infeasible", "too small", 0)}
		}, false, "too small"},
		"it cannot, and does not say why": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodResizePending, "Infeasible", "", 2)}
		}, false, "Infeasible"},
		"an answer to an earlier spec": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodResizePending, "Infeasible", "too small", 1)}
		}, false, ""},
		"a condition that is false": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Status: corev1.ConditionFalse, Reason: "Infeasible"}}
		}, true, ""},
		"a sidecar that has other resources": {func(p *corev1.Pod) {
			p.Spec.Containers = append([]corev1.Container{{Name: "mesh", Resources: memory("9Gi")}}, p.Spec.Containers...)
		}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Generation: 2, Annotations: map[string]string{cluster.AnnotationResize: cluster.ResizeMark("hash", clustertest.Now, false)}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "etcd", Resources: memory("2Gi")}}},
				Status: corev1.PodStatus{ObservedGeneration: 2, ContainerStatuses: []corev1.ContainerStatus{
					{Name: "etcd", Resources: new(memory("2Gi"))},
				}},
			}
			c.change(p)
			got := podOf(p)
			if r := got.Resize; r.Target != "hash" || !r.AskedAt.Equal(clustertest.Now) || r.Done != c.done || r.Failure != c.failed {
				t.Errorf("got %+v", r)
			}
			if got.Resources.Limits.Memory().String() != "2Gi" {
				t.Errorf("the resources are %+v", got.Resources)
			}
		})
	}
	if r := podOf(&corev1.Pod{}).Resize; r != (cluster.Resize{}) {
		t.Errorf("without a mark: %+v", r)
	}
}
