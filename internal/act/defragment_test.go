package act

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// note reads what the annotation says in the API server.
func (w *memberWorld) note() string {
	w.Helper()
	live := &v1beta1.EtcdCluster{}
	must(w.T, w.Get(w.Context(), client.ObjectKeyFromObject(w.s.Cluster), live))
	return live.Annotations[v1beta1.DefragmentAnnotation]
}

// takes makes a defragmentation take some time, unless its context ends before.
func takes(d time.Duration, err error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *memberWorld) calledDefragment() int {
	return len(slices.DeleteFunc(slices.Clone(w.calls), func(name string) bool { return name != "defragment" }))
}

func TestAPassDoesNotWaitForALongDefragmentation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := changes["defragment"]
		w := c.world(t)
		w.defragment = takes(50*time.Second, nil)
		a := w.actor()
		ctx, endPass := context.WithCancel(t.Context())
		for range 3 {
			begin := time.Now()
			must(t, a.Act(ctx, &w.s, c.plan(w)))
			if took := time.Since(begin); took > etcd.ChangeTimeout {
				t.Errorf("the pass took %s", took)
			}
		}
		endPass()
		if w.note() != "" {
			t.Errorf("noted %q before the member is done", w.note())
		}
		time.Sleep(time.Minute)
		must(t, a.Act(t.Context(), &w.s, c.plan(w)))
		if w.note() != "now done: prod-1" || w.calledDefragment() != 1 {
			t.Errorf("noted %q, calls %v", w.note(), w.calls)
		}
	})
}

func TestADefragmentationIsNotWaitedForLongerThanPlanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := changes["defragment"]
		w := c.world(t)
		w.defragment = takes(time.Hour, nil)
		a := w.actor()
		must(t, a.Act(t.Context(), &w.s, c.plan(w)))
		time.Sleep(time.Minute)
		if err := a.Act(t.Context(), &w.s, c.plan(w)); !errors.Is(err, context.DeadlineExceeded) || w.note() != "" {
			t.Errorf("got %v, noted %q", err, w.note())
		}
		w.defragment = nil
		must(t, a.Act(t.Context(), &w.s, c.plan(w))) // it is asked again
		if w.look(); !c.isDone(w) {
			t.Error("it is not made again")
		}
	})
}

// The result of a call is kept until it is noted, and belongs to one operation alone.
func TestWhatAMemberDidIsNotedOnlyForItsOwnOperation(t *testing.T) {
	c := changes["defragment"]
	w := c.world(t)
	a := w.actor()
	live := &v1beta1.EtcdCluster{}
	must(t, w.Get(t.Context(), client.ObjectKeyFromObject(w.s.Cluster), live))
	metav1.SetMetaDataAnnotation(&live.ObjectMeta, v1beta1.DefragmentAnnotation, "again")
	must(t, w.Update(t.Context(), live))
	if err := a.Act(t.Context(), &w.s, c.plan(w)); !apierrors.IsConflict(err) || w.note() != "again" {
		t.Fatalf("a request that a user wrote meanwhile is overwritten: %v, %q", err, w.note())
	}
	w.look()
	must(t, a.Act(t.Context(), &w.s, c.plan(w)))
	if w.look(); !c.isDone(w) || w.calledDefragment() != 1 {
		t.Errorf("noted %q, calls %v", w.note(), w.calls)
	}
	w.s.Cluster.Status.Operation.StartedAt = metav1.NewTime(w.s.Now.Add(time.Second))
	must(t, w.Get(t.Context(), client.ObjectKeyFromObject(w.s.Cluster), live))
	live.Status.Operation = w.s.Cluster.Status.Operation
	must(t, w.Status().Update(t.Context(), live))
	w.look()
	must(t, a.Act(t.Context(), &w.s, c.plan(w)))
	if w.calledDefragment() != 2 {
		t.Errorf("another operation is not sent: %v", w.calls)
	}
}

func TestAMemberThatCannotDefragmentIsLeftAloneForAWhile(t *testing.T) {
	c := changes["defragment"]
	w := c.world(t)
	w.defragment = func(context.Context) error { return &etcd.DefragmentError{Text: "no space left on device"} }
	a := w.actor()
	for range 3 {
		refusals, other := plan.Refusals(a.Act(t.Context(), &w.s, c.plan(w)))
		if other != nil || len(refusals) != 1 || refusals[0].Reason != v1beta1.ReasonDefragmentationFailed || !strings.Contains(refusals[0].Message, "no space left on device") {
			t.Fatalf("got %+v, %v", refusals, other)
		}
		w.s.Now = w.s.Now.Add(10 * time.Second)
	}
	if w.calledDefragment() != 1 || w.note() != "" {
		t.Fatalf("calls %v, noted %q", w.calls, w.note())
	}
	w.defragment, w.s.Now = nil, w.s.Now.Add(defragmentPause)
	must(t, a.Act(t.Context(), &w.s, c.plan(w)))
	if w.look(); !c.isDone(w) {
		t.Error("it is not made again")
	}
}
