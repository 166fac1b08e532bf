package observe

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// resourcesOf returns what the pod's spec asks for etcd's container.
func resourcesOf(pod *corev1.Pod) corev1.ResourceRequirements {
	i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == render.ContainerName })
	if i < 0 {
		return corev1.ResourceRequirements{}
	}
	return pod.Spec.Containers[i].Resources
}

// resizeOf returns how far a change of the pod's resources is.
func resizeOf(pod *corev1.Pod) cluster.Resize {
	mark := pod.Annotations[cluster.AnnotationResize]
	if mark == "" {
		return cluster.Resize{}
	}
	r := cluster.MarkedResize(mark)
	pending := false
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type != corev1.PodResizePending && c.Type != corev1.PodResizeInProgress, c.Status != corev1.ConditionTrue:
		case c.ObservedGeneration != 0 && c.ObservedGeneration < pod.Generation:
			pending = true // it is about an earlier change
		default:
			pending = true
			if c.Reason == corev1.PodReasonInfeasible || c.Reason == corev1.PodReasonError {
				r.Failure = cluster.ForeignText(c.Message)
				if r.Failure == "" {
					r.Failure = c.Reason
				}
			}
		}
	}
	r.Done = !pending && kubeletHasSeen(pod)
	return r
}

// kubeletHasSeen reports whether the pod's status is about its present spec. Kubelets before 1.34 do not tell its
// generation: there the resources in the status must be those of the spec.
func kubeletHasSeen(pod *corev1.Pod) bool {
	if pod.Status.ObservedGeneration != 0 {
		return pod.Status.ObservedGeneration >= pod.Generation
	}
	etcd := containerStatus(pod)
	return etcd != nil && etcd.Resources != nil && cluster.Includes(*etcd.Resources, resourcesOf(pod))
}
