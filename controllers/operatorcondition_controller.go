package controllers

import (
	"context"
	"fmt"
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

	// told is what was written last, so that nothing is asked of the API server until something else is to be said.
	told *metav1.Condition
}

// Reconcile writes the condition, if it is to change.
func (r *OperatorConditionReconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	var clusters v1beta1.EtcdClusterList
	if err := r.Client.List(ctx, &clusters, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing EtcdClusters: %w", err)
	}
	want := status.Upgradeable(clusters.Items)
	if r.told != nil && *r.told == want {
		return ctrl.Result{}, nil
	}
	err := r.tell(ctx, want)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) { // nobody listens
		return ctrl.Result{RequeueAfter: absenceDelay}, nil
	}
	if err != nil {
		return retry(fmt.Errorf("telling OLM whether the operator may be replaced: %w", err))
	}
	r.told = &want
	return ctrl.Result{}, nil
}

func (r *OperatorConditionReconciler) tell(ctx context.Context, want metav1.Condition) error {
	condition := &operatorsv2.OperatorCondition{}
	if err := r.Live.Get(ctx, r.Key, condition); err != nil {
		return err
	}
	if !meta.SetStatusCondition(&condition.Spec.Conditions, want) {
		return nil
	}
	return r.Client.Update(ctx, condition)
}

// SetupWithManager has the start, and every change of a cluster, lead to one and the same request.
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
