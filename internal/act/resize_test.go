package act

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

var podResource = schema.GroupResource{Resource: "pods"}

// resizeWorld is an API server with one pod. It records the requests to resize it, and answers as it is told.
type resizeWorld struct {
	*podWorld
	answer   error
	asked    []string
	snapshot cluster.Snapshot
	item     plan.ResizePod
}

func newResizeWorld(t *testing.T, pods ...*corev1.Pod) *resizeWorld {
	t.Helper()
	w := &resizeWorld{podWorld: newPodWorld(t, nil, pods...), snapshot: clustertest.MakeCluster("prod").Snapshot()}
	w.item = plan.ResizePod{
		Member: "prod-1", Pod: "prod-1-0", UID: "uid-prod-1-0", Target: "hash", AskedAt: clustertest.Now,
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}},
	}
	return w
}

// client is the operator's, with hooks around its writes.
func (w *resizeWorld) client(t *testing.T, hooks failpoint.Hooks) client.Client {
	return failpoint.Wrap(interceptor.NewClient(w.WithWatch, interceptor.Funcs{
		SubResourcePatch: func(_ context.Context, _ client.Client, name string, object client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
			data, err := patch.Data(object)
			if err != nil || patch.Type() != types.StrategicMergePatchType {
				t.Errorf("patch of type %s: %v", patch.Type(), err)
			}
			w.asked = append(w.asked, name+" "+object.GetName()+" "+string(data))
			return w.answer
		},
	}), hooks)
}

func (w *resizeWorld) upkeep(t *testing.T, hooks failpoint.Hooks) error {
	t.Helper()
	a := &Actor{Client: w.client(t, hooks), Live: w}
	_, err := a.Upkeep(t.Context(), &w.snapshot, []plan.Upkeep{w.item})
	return err
}

func (w *resizeWorld) mark(t *testing.T) string {
	t.Helper()
	var pod corev1.Pod
	if err := w.Get(t.Context(), client.ObjectKey{Namespace: clustertest.Namespace, Name: "prod-1-0"}, &pod); err != nil {
		t.Fatal(err)
	}
	return pod.Annotations[cluster.AnnotationResize]
}

func TestAPodIsMarkedAndThenResized(t *testing.T) {
	w := newResizeWorld(t, podOf("prod-1-0", false))
	var order []string
	err := w.upkeep(t, failpoint.Hooks{Before: func(call failpoint.Write) error { order = append(order, call.Verb); return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"patch", "patch-resize"}; !slices.Equal(order, want) {
		t.Errorf("the calls are %v, want %v", order, want)
	}
	const body = `{"metadata":{"uid":"uid-prod-1-0"},"spec":{"containers":[{"name":"etcd","resources":{"requests":{"memory":"2Gi"}}}]}}`
	if diff := cmp.Diff([]string{"resize prod-1-0 " + body}, w.asked); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !json.Valid([]byte(body)) || w.mark(t) != cluster.ResizeMark("hash", clustertest.Now, false) {
		t.Errorf("the mark is %q", w.mark(t))
	}
}

// What the API server refuses is marked, so that it is not asked again. Anything else is tried again.
func TestOnlyARefusalIsMarkedAsOne(t *testing.T) {
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "prod-1-0", field.ErrorList{field.Forbidden(field.NewPath("spec"), "Pod QOS Class may not change")})
	otherUID := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "prod-1-0", field.ErrorList{field.Invalid(field.NewPath("metadata", "uid"), "x", "field is immutable")})
	unknown := apierrors.NewGenericServerResponse(404, "patch", podResource, "prod-1-0", "404 page not found", 0, true)
	for name, c := range map[string]struct {
		answer  error
		refused bool
		failed  func(error) bool
	}{
		"accepted":                            {nil, false, nil},
		"another class of quality of service": {invalid, true, nil},
		"no such subresource":                 {unknown, true, nil},
		"not allowed":                         {apierrors.NewMethodNotSupported(podResource, "patch"), true, nil},
		"no permission, or a quota":           {apierrors.NewForbidden(podResource, "prod-1-0", errors.New("exceeded quota")), true, nil},
		"a patch that is not understood":      {apierrors.NewBadRequest("no"), true, nil},
		"another pod of the name":             {otherUID, false, apierrors.IsConflict},
		"written meanwhile":                   {apierrors.NewConflict(podResource, "prod-1-0", errors.New("modified")), false, apierrors.IsConflict},
		"no answer":                           {context.DeadlineExceeded, false, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"an error of a webhook":               {apierrors.NewInternalError(errors.New("failed calling webhook")), false, apierrors.IsInternalError},
	} {
		t.Run(name, func(t *testing.T) {
			w := newResizeWorld(t, podOf("prod-1-0", false))
			w.answer = c.answer
			err := w.upkeep(t, failpoint.Hooks{})
			if refusals, _ := plan.Refusals(err); len(refusals) > 0 {
				t.Errorf("users are told of a refusal: %v", refusals)
			}
			if c.failed == nil && err != nil {
				t.Errorf("got %v", err)
			}
			if joined, ok := err.(interface{ Unwrap() []error }); c.failed != nil && (!ok || !c.failed(joined.Unwrap()[0])) {
				t.Errorf("got %v", err)
			}
			if mark := w.mark(t); mark != cluster.ResizeMark("hash", clustertest.Now, c.refused) {
				t.Errorf("the mark is %q", mark)
			}
		})
	}
}

func TestAPodThatIsGoneOrAnotherIsNotResized(t *testing.T) {
	gone := newResizeWorld(t)
	gone.answer = apierrors.NewNotFound(podResource, "prod-1-0")
	if err := gone.upkeep(t, failpoint.Hooks{}); err != nil {
		t.Errorf("a pod that is gone: %v", err)
	}
	another := newResizeWorld(t, podOf("prod-1-0", false))
	another.item.UID = "another"
	another.answer = apierrors.NewNotFound(podResource, "prod-1-0")
	if there, err := (&Actor{Live: another}).podIsThere(t.Context(), &another.snapshot, another.item); err != nil || there {
		t.Errorf("another pod of the name: %t, %v", there, err)
	}
}

// The operator dies before and after each call, for each answer, and does it again.
func TestAResizeIsMadeAgainAfterACrashAroundAnyCall(t *testing.T) {
	died := errors.New("the process is dead")
	for name, answer := range map[string]error{"accepted": nil, "refused": apierrors.NewMethodNotSupported(podResource, "patch")} {
		calls := 2
		if answer != nil {
			calls = 3
		}
		for n := range calls * 2 {
			t.Run(fmt.Sprintf("%s, half call %d", name, n), func(t *testing.T) {
				w := newResizeWorld(t, podOf("prod-1-0", false))
				w.answer = answer
				at, count := n/2, 0
				hooks := failpoint.Hooks{
					Before: func(failpoint.Write) error {
						if n%2 == 0 && count == at || count > at {
							return died
						}
						return nil
					},
					After: func(_ failpoint.Write, err error) error {
						if count++; n%2 == 1 && count > at {
							return died
						}
						return err
					},
				}
				if err := w.upkeep(t, hooks); !errors.Is(err, died) {
					t.Fatalf("it did not die: %v", err)
				}
				if err := w.upkeep(t, failpoint.Hooks{}); err != nil {
					t.Fatal(err)
				}
				if mark := w.mark(t); mark != cluster.ResizeMark("hash", clustertest.Now, answer != nil) || len(w.asked) == 0 {
					t.Errorf("the mark is %q, asked %v", mark, w.asked)
				}
			})
		}
	}
}
