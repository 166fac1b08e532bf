package simulation

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// NoImage is what Images says of a tag that does not exist.
const NoImage = "none"

// checkImage is the kubelet of the pod that looks at an image of etcd.
func (w *World) checkImage(pod *corev1.Pod) {
	phase, container := LookAtImage(pod, w.Images)
	if pod.Status.Phase == phase && len(pod.Status.ContainerStatuses) > 0 {
		return
	}
	change(w.Server, pod, func(pod *corev1.Pod) {
		pod.Status.Phase, pod.Status.ContainerStatuses = phase, []corev1.ContainerStatus{container}
	})
}

// LookAtImage returns how a pod ends that looks at an image of etcd. Each tag has the version that it names, unless
// images say otherwise.
func LookAtImage(pod *corev1.Pod, images map[string]string) (corev1.PodPhase, corev1.ContainerStatus) {
	image := pod.Spec.Containers[0].Image
	container := corev1.ContainerStatus{Name: pod.Spec.Containers[0].Name, Image: image}
	_, tag, _ := strings.Cut(image, ":v")
	version, suffix, _ := strings.Cut(tag, "-")
	if "-"+suffix == TagUnpullable {
		version = NoImage
	}
	if version = cmp.Or(images[version], version); version == NoImage {
		container.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}
		return corev1.PodPending, container
	}
	container.State.Terminated = &corev1.ContainerStateTerminated{Message: cluster.ImageCheckMessage(version)}
	return corev1.PodSucceeded, container
}
