package render

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// etcd serves both paths without TLS on the metrics port, from version 3.5.12 on.
const (
	// livePath reads the member's own store. It needs neither leader nor quorum.
	livePath = "/livez"
	// readyPath makes a linearizable read. It fails for learners and for the alarm CORRUPT, but not for NOSPACE.
	readyPath = "/readyz"
)

// startupProbe runs every second, so that a started member is noticed soon.
// It allows 30 minutes, for a member that replays a long log.
func startupProbe() *corev1.Probe {
	return probe(livePath, corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 1800, SuccessThreshold: 1})
}

// livenessProbe fails after three minutes, because a defragmentation blocks reads while it runs: MaxDefragmentTime.
func livenessProbe() *corev1.Probe {
	return probe(livePath, corev1.Probe{PeriodSeconds: 15, TimeoutSeconds: 15, FailureThreshold: 12, SuccessThreshold: 1})
}

// readinessProbe runs every two seconds. The first probe of a founding member may fail because the leader changes,
// and clients wait for the next one.
func readinessProbe() *corev1.Probe {
	return probe(readyPath, corev1.Probe{PeriodSeconds: 2, TimeoutSeconds: 5, FailureThreshold: 5, SuccessThreshold: 1})
}

// ReadsLinearizably reports whether a pod's container is etcd with the readiness probe that is a linearizable read.
// Others may replace the probe when the pod is created.
func ReadsLinearizably(c corev1.Container) bool {
	if c.Name != ContainerName || c.ReadinessProbe == nil || c.ReadinessProbe.HTTPGet == nil {
		return false
	}
	get := c.ReadinessProbe.HTTPGet
	return get.Host == "" && get.Path == readyPath && get.Port == intstr.FromString(metricsPortName)
}

func probe(path string, timing corev1.Probe) *corev1.Probe {
	timing.HTTPGet = &corev1.HTTPGetAction{
		Path:   path,
		Port:   intstr.FromString(metricsPortName),
		Scheme: corev1.URISchemeHTTP,
	}
	return &timing
}
