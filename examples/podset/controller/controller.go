// Package controller keeps the pods of PodSets as their users want them: observe, analyse, act, report.
package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/etcd-warden/etcd-warden/examples/podset/api/v1alpha1"
)

// cacheDelay is how long a pass waits for the cache to show what was written. refusedDelay is how long it waits after a
// refusal: nothing tells the controller that a quota was raised.
const cacheDelay, refusedDelay = 50 * time.Millisecond, 10 * time.Second

// Reconciler runs the loop for every PodSet, one at a time. Client reads from the cache, Live from the API server.
type Reconciler struct {
	Client client.Client
	Live   client.Reader
	Events events.EventRecorder
	// unseen are steps of earlier passes that the cache may not show yet.
	unseen map[types.NamespacedName][]Step
}

// +kubebuilder:rbac:groups=examples.etcd-warden.io,resources=podsets,verbs=get;list;watch
// +kubebuilder:rbac:groups=examples.etcd-warden.io,resources=podsets/status,verbs=update
// +kubebuilder:rbac:groups=examples.etcd-warden.io,resources=podsets/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=events.k8s.io;"",resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;create;update

// SetupWithManager makes a manager run the loop whenever a PodSet, one of its pods, or a pod without a controller
// changes.
func (r *Reconciler) SetupWithManager(manager ctrl.Manager) error {
	r.unseen = map[types.NamespacedName][]Step{}
	return ctrl.NewControllerManagedBy(manager).For(&v1alpha1.PodSet{}).Owns(&corev1.Pod{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.setsOf)).Complete(r)
}

// Reconcile is one pass of the loop.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if r.awaits(ctx, request.NamespacedName) {
		return ctrl.Result{RequeueAfter: cacheDelay}, nil
	}
	state, err := r.observe(ctx, request.NamespacedName)
	if err != nil || state == nil {
		return ctrl.Result{}, err
	}
	decision, result := Analyse(state), ctrl.Result{}
	failure := r.act(ctx, state.Set, decision.Steps)
	if apierrors.IsInvalid(failure) || apierrors.IsForbidden(failure) {
		decision.Reason, decision.Message = v1alpha1.ReasonRefused, fmt.Sprintf("The API server refuses a change: %s. Correct the spec, or what forbids it.", stable(failure))
		result.RequeueAfter, failure = refusedDelay, nil
	}
	if err := r.report(ctx, state, &decision); failure == nil {
		failure = err
	}
	if apierrors.IsConflict(failure) { // the cache is behind
		return ctrl.Result{RequeueAfter: cacheDelay}, nil
	}
	return result, failure
}

// stable returns the text of an error without the generated name of the object, which is quoted in it: a condition that
// changed with each attempt would cause the next one.
func stable(err error) string {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Name != "" {
		return strings.ReplaceAll(err.Error(), fmt.Sprintf("%q", status.Status().Details.Name), `"…"`)
	}
	return err.Error()
}

// observe reads the cache. It returns nil if the PodSet is gone or being deleted: its pods name it as their owner, so
// the garbage collector deletes them.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*State, error) {
	s := &State{Set: &v1alpha1.PodSet{}}
	if err := r.Client.Get(ctx, key, s.Set); err != nil || s.Set.DeletionTimestamp != nil {
		return nil, client.IgnoreNotFound(err)
	}
	s.Selector = selectorOf(s.Set)
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.InNamespace(key.Namespace)); err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		isFree := metav1.GetControllerOf(pod) == nil && s.Selector.Matches(labels.Set(pod.Labels))
		if isFree || metav1.IsControlledBy(pod, s.Set) {
			s.Pods = append(s.Pods, pod)
		}
	}
	return s, nil
}

// report writes the status if it changed.
func (r *Reconciler) report(ctx context.Context, s *State, d *Decision) error {
	status := v1alpha1.PodSetStatus{
		ObservedGeneration: s.Set.Generation, Selector: s.Selector.String(), Replicas: int32(len(d.Pods)), Conditions: slices.Clone(s.Set.Status.Conditions),
	}
	for _, pod := range d.Pods {
		status.PodNames = append(status.PodNames, pod.Name)
		if isReady(pod) {
			status.ReadyReplicas++
		}
	}
	slices.Sort(status.PodNames)
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: d.Reason, Message: d.Message, ObservedGeneration: s.Set.Generation}
	if d.Reason == v1alpha1.ReasonUpToDate {
		ready.Status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&status.Conditions, ready)
	if equality.Semantic.DeepEqual(status, s.Set.Status) {
		return nil
	}
	s.Set.Status = status
	return client.IgnoreNotFound(r.Client.Status().Update(ctx, s.Set))
}

// setsOf returns the PodSets that can adopt a pod.
func (r *Reconciler) setsOf(ctx context.Context, pod client.Object) (requests []reconcile.Request) {
	var sets v1alpha1.PodSetList
	if metav1.GetControllerOf(pod) != nil || r.Client.List(ctx, &sets, client.InNamespace(pod.GetNamespace())) != nil {
		return nil
	}
	for i := range sets.Items {
		if selectorOf(&sets.Items[i]).Matches(labels.Set(pod.GetLabels())) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&sets.Items[i])})
		}
	}
	return requests
}

// selectorOf returns what a set selects: nothing if its selector is invalid.
func selectorOf(set *v1alpha1.PodSet) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(&set.Spec.Selector)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}
