package render

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Both paths are served in clear on the metrics port, in every etcd version from 3.5.12 on.
const (
	// livePath reads the member's own store. It needs neither leader nor quorum.
	livePath = "/livez"
	// readyPath makes a linearizable read, and refuses learners and a CORRUPT alarm. NOSPACE does not matter to it.
	readyPath = "/readyz"
)

// startupProbe is asked every second, so that a member counts soon, and gives 30 minutes to replay a long log.
func startupProbe() *corev1.Probe {
	return probe(livePath, corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 1800, SuccessThreshold: 1})
}

// livenessProbe fails after three minutes: a defragmentation blocks reads for as long as it takes.
func livenessProbe() *corev1.Probe {
	return probe(livePath, corev1.Probe{PeriodSeconds: 15, TimeoutSeconds: 15, FailureThreshold: 12, SuccessThreshold: 1})
}

// readinessProbe asks often: the first answer of a founding member may be that the leader changed, and clients wait for the next.
func readinessProbe() *corev1.Probe {
	return probe(readyPath, corev1.Probe{PeriodSeconds: 2, TimeoutSeconds: 5, FailureThreshold: 5, SuccessThreshold: 1})
}

func probe(path string, timing corev1.Probe) *corev1.Probe {
	timing.HTTPGet = &corev1.HTTPGetAction{
		Path:   path,
		Port:   intstr.FromString(metricsPortName),
		Scheme: corev1.URISchemeHTTP,
	}
	return &timing
}
