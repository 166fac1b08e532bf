package cluster

import (
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Resize is how far a change of a running pod's resources is.
type Resize struct {
	// Target is the TargetHash of the intent whose resources the pod is to get; empty where none is to be changed.
	Target string
	// AskedAt is when the API server was first asked for it.
	AskedAt time.Time
	// Refused tells that the API server refused it.
	Refused bool
	// Done tells that the kubelet has carried out what the pod's spec asks for.
	Done bool
	// Failure is why the kubelet does not carry it out; empty where it may still do so.
	Failure string
}

// refusedMark ends a mark of what the API server refused.
const refusedMark = " refused"

// ResizeMark is the value of AnnotationResize. It is written before the API server is asked, so that a pod whose
// resources may not be those of its template always has one.
func ResizeMark(target string, askedAt time.Time, refused bool) string {
	mark := target + " " + askedAt.UTC().Format(time.RFC3339)
	if refused {
		mark += refusedMark
	}
	return mark
}

// MarkedResize returns what ResizeMark wrote. One that cannot be read is of another target than any intent's.
func MarkedResize(mark string) Resize {
	text, refused := strings.CutSuffix(mark, refusedMark)
	target, at, _ := strings.Cut(text, " ")
	askedAt, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return Resize{Target: mark}
	}
	return Resize{Target: target, AskedAt: askedAt, Refused: refused}
}

// Resources returns those of etcd's container in a pod of the intent. The API server takes a limit for the request
// that is missing.
func (i Intent) Resources() corev1.ResourceRequirements {
	requests := maps.Clone(i.Limits)
	if requests == nil {
		requests = corev1.ResourceList{}
	}
	maps.Copy(requests, i.Requests)
	return corev1.ResourceRequirements{Limits: i.Limits, Requests: requests}
}

// HasResources reports whether the pod's spec asks for these resources. It may ask for more: see LimitRange.
func (p *Pod) HasResources(want corev1.ResourceRequirements) bool {
	return Includes(p.Resources, want)
}

// Includes reports whether resources have each amount of others.
func Includes(have, want corev1.ResourceRequirements) bool {
	return includesList(have.Limits, want.Limits) && includesList(have.Requests, want.Requests)
}

func includesList(have, want corev1.ResourceList) bool {
	for name, amount := range want {
		if own, ok := have[name]; !ok || own.Cmp(amount) != 0 {
			return false
		}
	}
	return true
}
