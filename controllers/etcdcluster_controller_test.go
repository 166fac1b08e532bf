package controllers

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/observe"
)

func TestOnlyWritesThatWereAllStaleAreTriedAgainAtOnce(t *testing.T) {
	stale := fmt.Errorf("updating: %w", apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, "prod-peer-tls", errors.New("it was written since")))
	gone := apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumeclaims"}, "data-prod-0")
	broken := errors.New("connection refused")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{stale, true}, {errors.Join(stale, gone), true}, {errors.Join(stale, broken), false}, {errors.Join(broken, stale), false}, {broken, false},
	} {
		result, err := retry(c.err)
		if again := result.RequeueAfter == conflictDelay && err == nil; again != c.want || !c.want && !errors.Is(err, broken) {
			t.Errorf("%v: %v, %v", c.err, result, err)
		}
	}
}

func TestAnObjectThatCannotBeConvertedIsExplained(t *testing.T) {
	recorder := events.NewFakeRecorder(1)
	r := &EtcdClusterReconciler{Events: recorder}
	snapshot := &cluster.Snapshot{Cluster: &v1beta1.EtcdCluster{}}
	_, err := r.failed(snapshot, errors.New(`conversion webhook for operator.etcd-warden.io/v1alpha1, Kind=EtcdCluster failed: Post "https://x": no endpoints available`))
	const wayOut = "Check that the pods of the Service etcd-warden-webhook-service are ready"
	if err == nil || !strings.Contains(err.Error(), wayOut) {
		t.Errorf("error: %v", err)
	}
	if event := <-recorder.Events; !strings.Contains(event, v1beta1.EventConversionFailed) || !strings.Contains(event, wayOut) {
		t.Errorf("event: %s", event)
	}
	if _, err := r.failed(snapshot, errors.New("connection refused")); err == nil || strings.Contains(err.Error(), wayOut) || len(recorder.Events) > 0 {
		t.Errorf("another error was explained the same way: %v", err)
	}
}

func TestWhatIsDueDoesNotWaitForAsLongAsThePassTook(t *testing.T) {
	now := time.Unix(1_000, 0)
	r := &EtcdClusterReconciler{Observer: &observe.Observer{Now: func() time.Time { return now }}}
	for name, c := range map[string]struct {
		due  time.Time
		want time.Duration
	}{
		"nothing is due":         {time.Time{}, 10 * time.Second},
		"due in some seconds":    {now.Add(7 * time.Second), 7 * time.Second},
		"due meanwhile":          {now.Add(-3 * time.Second), time.Millisecond},
		"due after another look": {now.Add(time.Minute), 10 * time.Second},
	} {
		if got := r.requeueAfter(10*time.Second, c.due); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestPassesThatAreOutOfDateForLongAreReported(t *testing.T) {
	r := &EtcdClusterReconciler{}
	s := clustertest.MakeCluster("prod").Snapshot()
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "prod-0-0", nil)
	at := func(after time.Duration) bool {
		now := s
		now.Now = s.Now.Add(after)
		return r.isStaleForLong(t.Context(), &now, conflict)
	}
	if at(0) || at(staleTime-1) || !at(staleTime) || !at(time.Hour) {
		t.Error("passes are not reported after the time")
	}
	r.stale.Delete(s.Cluster.Key())
	if at(2 * time.Hour) {
		t.Error("one pass that was not out of date does not begin anew")
	}
}
