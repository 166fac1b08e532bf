package act

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// podWorld is an API server with the pods of one cluster. evicted and deleted count the requests with the right UID.
type podWorld struct {
	client.WithWatch
	evicted, deleted int
}

func newPodWorld(t *testing.T, answer error, pods ...*corev1.Pod) *podWorld {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w := &podWorld{}
	builder := clientfake.NewClientBuilder().WithScheme(scheme)
	for _, p := range pods {
		builder = builder.WithObjects(p)
	}
	w.WithWatch = builder.WithInterceptorFuncs(interceptor.Funcs{
		SubResourceCreate: func(_ context.Context, _ client.Client, name string, object, body client.Object, _ ...client.SubResourceCreateOption) error {
			eviction, ok := body.(*policyv1.Eviction)
			if !ok || name != "eviction" || *eviction.DeleteOptions.Preconditions.UID != object.GetUID() {
				t.Errorf("asked for %s of %s with %+v", name, object.GetName(), body)
			}
			w.evicted++
			return answer
		},
		Delete: func(_ context.Context, _ client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			asked := (&client.DeleteOptions{}).ApplyOptions(options)
			if *asked.Preconditions.UID != object.GetUID() {
				t.Errorf("deletes %s without its UID", object.GetName())
			}
			w.deleted++
			return answer
		},
	}).Build()
	return w
}

func podOf(name string, going bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: clustertest.Namespace, Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{cluster.LabelCluster: "prod"},
	}}
	if going {
		p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: clustertest.Now}, []string{"example.com/kept"}
	}
	return p
}

func tooManyRequests(cause string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: policyv1.DisruptionBudgetCause, Message: cause}}
	return err
}

func TestRestartMember(t *testing.T) {
	healthy := plan.RestartMember{Name: "prod-1", Pod: "prod-1-0", UID: "uid-prod-1-0", Evict: true}
	failed := healthy
	failed.Evict = false
	ofLearner := failed
	ofLearner.For = v1beta1.OperationAddMember
	pod, other := podOf("prod-1-0", false), podOf("prod-2-0", false)
	ready := podOf("prod-1-0", false)
	ready.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for name, c := range map[string]struct {
		action           plan.RestartMember
		pods             []*corev1.Pod
		answer           error
		evicted, deleted int
		// refused is the reason of the refusal; conflict and failed tell of other errors.
		refused, says    string
		conflict, failed bool
	}{
		"evicts a healthy pod":                             {action: healthy, pods: []*corev1.Pod{pod, other}, evicted: 1},
		"deletes a failed pod":                             {action: failed, pods: []*corev1.Pod{pod, other}, deleted: 1},
		"deletes a failed pod while another is going":      {action: failed, pods: []*corev1.Pod{pod, podOf("prod-2-0", true)}, deleted: 1},
		"keeps a pod that had failed and is ready now":     {action: failed, pods: []*corev1.Pod{ready}, conflict: true},
		"deletes the pod of a learner in any case":         {action: ofLearner, pods: []*corev1.Pod{ready}, deleted: 1},
		"leaves a pod that is going":                       {action: healthy, pods: []*corev1.Pod{podOf("prod-1-0", true)}},
		"leaves the successor of the pod":                  {action: plan.RestartMember{Name: "prod-1", Pod: "prod-1-0", UID: "older", Evict: true}, pods: []*corev1.Pod{pod}},
		"takes a pod that is gone meanwhile for restarted": {action: healthy, pods: []*corev1.Pod{pod}, answer: apierrors.NewNotFound(schema.GroupResource{}, pod.Name), evicted: 1},
		"refuses to evict while another pod is going": {
			action: healthy, pods: []*corev1.Pod{pod, podOf("prod-2-0", true)},
			refused: v1beta1.ReasonDisruptionNotAllowed, says: "Pod prod-2-0 of the same cluster is being deleted",
		},
		"tells what the budget says": {
			action: healthy, pods: []*corev1.Pod{pod}, answer: tooManyRequests("The disruption budget prod needs 2 healthy pods and has 2 currently"), evicted: 1,
			refused: v1beta1.ReasonDisruptionNotAllowed, says: "needs 2 healthy pods and has 2 currently",
		},
		"tries again quietly while the budget is being processed": {
			action: healthy, pods: []*corev1.Pod{pod}, answer: tooManyRequests("The disruption budget prod is still being processed by the server."), evicted: 1,
			conflict: true,
		},
		"names the budgets where there are several": {
			action: healthy, pods: []*corev1.Pod{pod}, evicted: 1,
			answer:  apierrors.NewInternalError(errors.New("this pod has more than one PodDisruptionBudget")),
			refused: v1beta1.ReasonSeveralBudgets, says: "Pod prod-1-0 is selected by 0 PodDisruptionBudgets",
		},
		"returns any other error": {
			action: healthy, pods: []*corev1.Pod{pod}, evicted: 1, failed: true,
			answer: apierrors.NewGenericServerResponse(http.StatusBadGateway, "create", schema.GroupResource{}, "", "", 0, false),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newPodWorld(t, c.answer, c.pods...)
			a := &Actor{Client: w, Live: w}
			s := clustertest.MakeCluster("prod").Snapshot()
			err := a.Act(t.Context(), &s, c.action)
			if w.evicted != c.evicted || w.deleted != c.deleted {
				t.Errorf("evicted %d, deleted %d", w.evicted, w.deleted)
			}
			refusals, other := plan.Refusals(err)
			switch {
			case c.refused != "":
				if len(refusals) != 1 || refusals[0].Reason != c.refused || !strings.Contains(refusals[0].Message, c.says) {
					t.Errorf("got %v", err)
				}
			case len(refusals) > 0 || apierrors.IsConflict(other) != c.conflict || (other != nil) != (c.failed || c.conflict):
				t.Errorf("got %v", err)
			}
		})
	}
}
