package act

import (
	"context"
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// rollWorld is an API server with a cluster whose restart of prod-1 is claimed, its StatefulSet and its pod.
// The calls are recorded in their order.
type rollWorld struct {
	*podWorld
	snapshot cluster.Snapshot
	action   plan.RestartMember
	calls    []string
	// failUpdate is what the API server answers to the write of the StatefulSet.
	failUpdate error
}

func newRollWorld(t *testing.T, pods ...*corev1.Pod) *rollWorld {
	t.Helper()
	w := &rollWorld{podWorld: newPodWorld(t, nil, pods...), snapshot: clustertest.MakeCluster("prod").Snapshot()}
	w.snapshot.Cluster.Status.Operation = &v1beta1.Operation{
		Type: v1beta1.OperationRollMember, Member: "prod-1", StartedAt: metav1.NewTime(clustertest.Now),
	}
	intent := cluster.IntentOf(w.snapshot.Cluster)
	live := render.MemberStatefulSet(render.MemberInput{Cluster: w.snapshot.Cluster, Name: "prod-1", Intent: intent})
	intent.Repository = "registry.example.com/etcd"
	desired := render.MemberStatefulSet(render.MemberInput{Cluster: w.snapshot.Cluster, Name: "prod-1", Intent: intent})
	for _, object := range []client.Object{w.snapshot.Cluster.DeepCopy(), live} {
		object.SetResourceVersion("")
		if err := w.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	w.action = plan.RestartMember{Name: "prod-1", StatefulSet: desired, Live: live, Pod: "prod-1-0", UID: "uid-prod-1-0", Evict: true}
	return w
}

func (w *rollWorld) act(t *testing.T) error {
	t.Helper()
	c := interceptor.NewClient(w.WithWatch, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, o ...client.UpdateOption) error {
			w.calls = append(w.calls, "write "+object.GetName())
			if w.failUpdate != nil {
				return w.failUpdate
			}
			return c.Update(ctx, object, o...)
		},
		SubResourceCreate: func(ctx context.Context, c client.Client, name string, object, body client.Object, o ...client.SubResourceCreateOption) error {
			w.calls = append(w.calls, "evict "+object.GetName())
			return c.SubResource(name).Create(ctx, object, body, o...)
		},
	})
	return (&Actor{Client: c, Live: w}).Act(t.Context(), &w.snapshot, w.action)
}

func (w *rollWorld) image(t *testing.T) string {
	t.Helper()
	var set appsv1.StatefulSet
	if err := w.Get(t.Context(), client.ObjectKey{Namespace: clustertest.Namespace, Name: "prod-1"}, &set); err != nil {
		t.Fatal(err)
	}
	return set.Spec.Template.Spec.Containers[0].Image
}

const newImage = "registry.example.com/etcd:v" + clustertest.Version

func TestTheTemplateIsWrittenBeforeThePodGoes(t *testing.T) {
	w := newRollWorld(t, podOf("prod-1-0", false))
	if err := w.act(t); err != nil {
		t.Fatal(err)
	}
	if len(w.calls) != 2 || w.calls[0] != "write prod-1" || w.calls[1] != "evict prod-1-0" || w.image(t) != newImage {
		t.Errorf("calls %v, image %s", w.calls, w.image(t))
	}
}

func TestNoPodGoesWhereTheTemplateCouldNotBeWritten(t *testing.T) {
	w := newRollWorld(t, podOf("prod-1-0", false))
	w.failUpdate = errors.New("connection reset")
	if err := w.act(t); !errors.Is(err, w.failUpdate) || w.evicted != 0 {
		t.Errorf("got %v, evicted %d", err, w.evicted)
	}
}

func TestNoTemplateIsWrittenByAnOperatorThatIsOutOfDate(t *testing.T) {
	later := metav1.NewTime(clustertest.Now.Add(time.Minute))
	for name, live := range map[string]*v1beta1.Operation{
		"none stands":     nil,
		"another member":  {Type: v1beta1.OperationRollMember, Member: "prod-2", StartedAt: metav1.NewTime(clustertest.Now)},
		"another restart": {Type: v1beta1.OperationRollMember, Member: "prod-1", StartedAt: later},
		"a roll back":     {Type: v1beta1.OperationRollBack, Member: "prod-1", StartedAt: metav1.NewTime(clustertest.Now)},
	} {
		w := newRollWorld(t, podOf("prod-1-0", false))
		var c v1beta1.EtcdCluster
		if err := w.Get(t.Context(), client.ObjectKeyFromObject(w.snapshot.Cluster), &c); err != nil {
			t.Fatal(err)
		}
		if c.Status.Operation = live; w.Update(t.Context(), &c) != nil {
			t.Fatal("the operation was not changed")
		}
		if err := w.act(t); !apierrors.IsConflict(err) || len(w.calls) > 0 || w.evicted > 0 {
			t.Errorf("%s: got %v, calls %v", name, err, w.calls)
		}
	}
}

func TestNoTemplateIsWrittenWhileAnotherPodIsGoing(t *testing.T) {
	w := newRollWorld(t, podOf("prod-1-0", false), podOf("prod-2-0", true))
	refusals, _ := plan.Refusals(w.act(t))
	if len(refusals) != 1 || refusals[0].Reason != v1beta1.ReasonDisruptionNotAllowed || len(w.calls) > 0 {
		t.Errorf("got %v, calls %v", refusals, w.calls)
	}
}

func TestTheTemplateIsWrittenAlsoWhereThereIsNoPod(t *testing.T) {
	for name, pods := range map[string][]*corev1.Pod{"none": nil, "one that is going": {podOf("prod-1-0", true)}} {
		w := newRollWorld(t, pods...)
		if err := w.act(t); err != nil || w.image(t) != newImage || w.evicted > 0 {
			t.Errorf("%s: got %v, image %s, evicted %d", name, err, w.image(t), w.evicted)
		}
	}
}
