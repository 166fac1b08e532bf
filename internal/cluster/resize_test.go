package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestAMarkOfAResizeIsReadAsItWasWritten(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, refused := range []bool{false, true} {
		if diff := cmp.Diff(Resize{Target: "hash", AskedAt: at, Refused: refused}, MarkedResize(ResizeMark("hash", at, refused))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	for _, mark := range []string{"x", "hash yesterday", " refused"} {
		if got := MarkedResize(mark); got.Target != mark || got.Refused || !got.AskedAt.IsZero() {
			t.Errorf("%q is read as %+v", mark, got)
		}
	}
}

func TestALimitIsTheRequestThatIsMissing(t *testing.T) {
	cpu, memory := resource.MustParse("1"), resource.MustParse("1Gi")
	intent := Intent{
		Limits:   corev1.ResourceList{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory},
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")},
	}
	r := intent.Resources()
	if r.Requests.Cpu().String() != "500m" || r.Requests.Memory().String() != "1Gi" || len(intent.Requests) != 1 {
		t.Errorf("requests %v, those of the intent %v", r.Requests, intent.Requests)
	}
	same := corev1.ResourceRequirements{Limits: r.Limits, Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("0.5"), corev1.ResourceMemory: resource.MustParse("1024Mi"), "example.com/gpu": cpu,
	}}
	if !Includes(same, r) || Includes(r, same) || Includes(corev1.ResourceRequirements{}, r) {
		t.Error("resources are compared by their amounts, and more of them do not matter")
	}
}
