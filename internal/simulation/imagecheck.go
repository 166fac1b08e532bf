package simulation

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// NoImage is what Images says of a tag that does not exist.
const NoImage = "none"

// checkImage is the kubelet of the pod that looks at an image of etcd. Each tag has the version that it names, unless
// Images says otherwise.
func (w *World) checkImage(pod *corev1.Pod) {
	image := pod.Spec.Containers[0].Image
	_, tag, _ := strings.Cut(image, ":v")
	version, suffix, _ := strings.Cut(tag, "-")
	if "-"+suffix == TagUnpullable {
		version = NoImage
	}
	if other := w.Images[version]; other != "" {
		version = other
	}
	container := corev1.ContainerStatus{Name: pod.Spec.Containers[0].Name, Image: image}
	phase := corev1.PodSucceeded
	if version == NoImage {
		phase, container.State.Waiting = corev1.PodPending, &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}
	} else {
		container.State.Terminated = &corev1.ContainerStateTerminated{Message: cluster.ImageCheckMessage(version)}
	}
	if pod.Status.Phase == phase && len(pod.Status.ContainerStatuses) > 0 {
		return
	}
	change(w.Server, pod, func(pod *corev1.Pod) {
		pod.Status.Phase, pod.Status.ContainerStatuses = phase, []corev1.ContainerStatus{container}
	})
}
