package observe

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// imageCheckOf reads the pod that looks at an image. What it says is a hint: the image itself wrote it.
func imageCheckOf(pod *corev1.Pod) *cluster.ImageCheck {
	grace := pod.DeletionGracePeriodSeconds // it has one only while it is being deleted
	check := &cluster.ImageCheck{
		UID: pod.UID, CreatedAt: pod.CreationTimestamp.Time,
		Deleting: pod.DeletionTimestamp != nil, Forced: grace != nil && *grace == 0,
		Target: pod.Annotations[cluster.AnnotationImageTarget],
	}
	if etcd := containerStatus(pod); etcd != nil && etcd.State.Terminated != nil {
		end := etcd.State.Terminated
		if check.Version = cluster.ImageCheckVersion(end.Message); check.Version == "" || end.ExitCode != 0 {
			check.Version, check.Failure = "", fmt.Sprintf("its etcd does not tell its version (exit code %d): %s", end.ExitCode,
				cluster.ForeignText(end.Message))
		}
		return check
	}
	if reason, detail := failureOf(pod); reason != "" {
		check.Failure = detail
	} else if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		check.Failure = "its pod ended before etcd told its version"
	}
	return check
}
