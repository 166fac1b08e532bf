package observe

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func TestReadsWhatTheImageOfAnotherVersionSays(t *testing.T) {
	ended := func(code int32, message string) corev1.PodStatus {
		phase := corev1.PodSucceeded
		if code != 0 {
			phase = corev1.PodFailed
		}
		return corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{
			Name: render.ContainerName, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Message: message}},
		}}}
	}
	waiting := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			Name: render.ContainerName, Image: "example.org/etcd:v3.7.3", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		}}}
	}
	for name, c := range map[string]struct {
		status           corev1.PodStatus
		version, failure string
	}{
		"a version":                    {ended(0, "etcd 3.7.3"), "3.7.3", ""},
		"a crash":                      {ended(1, "exec format error"), "", "(exit code 1): exec format error"},
		"a version, and then a crash":  {ended(2, "etcd 3.7.3"), "", "(exit code 2)"},
		"something hostile":            {ended(0, "etcd 3.7.3\n\x1b[2J"+strings.Repeat("x", 4096)), "", "does not tell its version"},
		"a pod that waits":             {corev1.PodStatus{Phase: corev1.PodPending}, "", ""},
		"an image that does not exist": {waiting("ImagePullBackOff"), "", "image example.org/etcd:v3.7.3 cannot be pulled"},
		"a container that starts":      {waiting("ContainerCreating"), "", ""},
		"a deadline":                   {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "DeadlineExceeded"}, "", "ended before"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "prod-image-check", UID: "check", Annotations: map[string]string{cluster.AnnotationImageTarget: "x"}}, Status: c.status}
		got := imageCheckOf(pod)
		if got.Version != c.version || (got.Failure == "") != (c.failure == "") || !strings.Contains(got.Failure, c.failure) || got.Target != "x" {
			t.Errorf("%s: %+v", name, got)
		}
		if len(got.Failure) > 2*cluster.MaxForeignText || strings.ContainsAny(got.Failure, "\n\x1b") {
			t.Errorf("%s: %q", name, got.Failure)
		}
	}
}
