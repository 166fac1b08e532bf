package simulation

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// What a pod's spec has that keeps etcd from starting. The tag of an image ends with it.
const (
	TagUnpullable = "-unpullable"
	TagCrashes    = "-crashes"
	TagHangs      = "-hangs"
	// NoNode is a label of a node selector that no node has.
	NoNode = "no-node"
)

// enoughMemory is what etcd needs.
var enoughMemory = resource.MustParse("64Mi")

// startDefective does for a pod what the kubelet and the scheduler do, where etcd cannot run with its spec.
func (w *World) startDefective(pod *corev1.Pod, p *process) bool {
	container := &pod.Spec.Containers[0]
	memory, limited := container.Resources.Limits[corev1.ResourceMemory]
	switch {
	case strings.HasSuffix(container.Image, TagUnpullable):
		w.setStatus(pod, p, "", "")
		w.setWaiting(pod, "ImagePullBackOff")
	case strings.HasSuffix(container.Image, TagCrashes), limited && memory.Cmp(enoughMemory) < 0:
		p.restarts = min(p.restarts+1, 3)
		w.setStatus(pod, p, corev1.PodRunning, `{"level":"fatal","msg":"it cannot run"}`)
	case strings.HasSuffix(container.Image, TagHangs):
		w.setStatus(pod, p, corev1.PodRunning, "")
	default:
		return false
	}
	return true
}

func (w *World) setWaiting(pod *corev1.Pod, reason string) {
	live, ok := one[*corev1.Pod](w.Server, pod.Namespace, pod.Name)
	if ok && live.Status.ContainerStatuses[0].State.Waiting.Reason != reason {
		change(w.Server, live, func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State.Waiting.Reason = reason })
	}
}
