package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	operatorsv2 "github.com/operator-framework/api/pkg/operators/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/status"
)

// absenceDelay is when an OperatorCondition that was not there is looked for again.
const absenceDelay = time.Minute

// OperatorConditionReconciler tells OLM whether the operator may be replaced. OLM itself grants the right to do so.
type OperatorConditionReconciler struct {
	Client client.Client
	// Live reads directly: the operator may not list OperatorConditions.
	Live client.Reader
	// Key of the OperatorCondition that OLM made for this operator.
	Key client.ObjectKey
	// Now is the clock, time.Now if nil.
	Now func() time.Time

	// lastWritten are the conditions in the OperatorCondition. While they are right, nothing is asked of the API server.
	lastWritten []metav1.Condition
}

// Reconcile writes the conditions that changed, and comes back when they change by time alone.
func (r *OperatorConditionReconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	var clusters v1beta1.EtcdClusterList
	if err := r.Client.List(ctx, &clusters, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing EtcdClusters: %w", err)
	}
	now := time.Now
	if r.Now != nil {
		now = r.Now
	}
	if r.lastWritten != nil {
		want, next := status.Upgradeable(clusters.Items, r.lastWritten, now())
		if holds(r.lastWritten, want) {
			return ctrl.Result{RequeueAfter: next}, nil
		}
	}
	next, err := r.writeConditions(ctx, clusters.Items, now())
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) { // OLM did not install this operator
		return ctrl.Result{RequeueAfter: absenceDelay}, nil
	}
	if err != nil {
		return retry(fmt.Errorf("telling OLM whether the operator may be replaced: %w", err))
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// writeConditions decides on the conditions that the OperatorCondition has now: they outlive this process.
func (r *OperatorConditionReconciler) writeConditions(ctx context.Context, clusters []v1beta1.EtcdCluster, now time.Time) (time.Duration, error) {
	object := &operatorsv2.OperatorCondition{}
	if err := r.Live.Get(ctx, r.Key, object); err != nil {
		return 0, err
	}
	want, next := status.Upgradeable(clusters, object.Spec.Conditions, now)
	if !holds(object.Spec.Conditions, want) {
		for _, condition := range want {
			object.Spec.Conditions = slices.DeleteFunc(object.Spec.Conditions, func(c metav1.Condition) bool { return c.Type == condition.Type })
			object.Spec.Conditions = append(object.Spec.Conditions, condition)
		}
		if err := r.Client.Update(ctx, object); err != nil {
			return 0, err
		}
	}
	r.lastWritten = object.Spec.Conditions
	return next, nil
}

// holds reports whether the conditions are among those that are there. Stored times have no fractions of a second.
func holds(have, want []metav1.Condition) bool {
	return !slices.ContainsFunc(want, func(w metav1.Condition) bool {
		h := meta.FindStatusCondition(have, w.Type)
		return h == nil || h.Status != w.Status || h.Reason != w.Reason || h.Message != w.Message ||
			h.LastTransitionTime.Unix() != w.LastTransitionTime.Unix()
	})
}

// SetupWithManager enqueues one fixed request: at start, and whenever an EtcdCluster changes.
func (r *OperatorConditionReconciler) SetupWithManager(mgr ctrl.Manager) error {
	request := reconcile.Request{NamespacedName: r.Key}
	atStart := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(request)
		return nil
	})
	always := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{request}
	})
	return ctrl.NewControllerManagedBy(mgr).Named("operatorcondition").
		WatchesRawSource(atStart).
		Watches(&v1beta1.EtcdCluster{}, always).
		Complete(r)
}
