// Package controllers connects the operator to Kubernetes: what is watched, and the loop. It decides nothing.
package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/act"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/metrics"
	"github.com/etcd-warden/etcd-warden/internal/observe"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/status"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

const (
	// conflictDelay is how long the caches get to receive the write that caused a conflict.
	conflictDelay = 100 * time.Millisecond
	// refusalDelay is when a refused write is tried again. The operator may not watch what causes the refusal.
	refusalDelay = 10 * time.Second
	// statusDelay is how long after the last status one is written that tells no news.
	statusDelay = 5 * time.Second
	// leaveOutTime is how long passes that write other objects leave the report to the next pass.
	leaveOutTime = 2 * time.Second
)

// EtcdClusterReconciler runs the loop for every EtcdCluster.
type EtcdClusterReconciler struct {
	Client   client.Client
	Observer *observe.Observer
	Actor    *act.Actor
	Events   events.EventRecorder
	// Concurrency is how many clusters are reconciled at once. A pass spends most of its time waiting for etcd.
	Concurrency int
	// Writes are the operator's own writes, nil where the Observer reads what was written.
	Writes *OwnWrites
	// Pace limits the voluntary steps of all clusters together, nil for no limit.
	Pace *act.Pace
	// Refusals counts what guards refuse, nil for no count.
	Refusals *metrics.Refusals

	// reports are the last report on each cluster.
	reports sync.Map
	// stale is since when every pass of a cluster is out of date before it ends.
	stale sync.Map

	decisions decisionLog
}

// +kubebuilder:rbac:groups=operator.etcd-warden.io,resources=etcdclusters,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=operator.etcd-warden.io,resources=etcdclusters/status,verbs=get;update
// +kubebuilder:rbac:groups=operator.etcd-warden.io,resources=etcdclusters/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups="",resources=services,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods/eviction,verbs=create
// +kubebuilder:rbac:groups="",resources=pods/resize,verbs=patch
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;create;update
// +kubebuilder:rbac:groups=cert-manager.io,resources=certificates,verbs=get;create;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",resources=events,verbs=list
// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=get;list
// +kubebuilder:rbac:groups="",resources=persistentvolumes,verbs=get
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list

// Reconcile is one pass of the loop: observe, analyse, act, report.
func (r *EtcdClusterReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if r.Writes.areUnseen(ctx, r.Observer.Reader, request.NamespacedName) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	snapshot, err := r.Observer.Observe(ctx, request.NamespacedName)
	if err != nil || snapshot == nil {
		r.decisions.forget(request.NamespacedName)
		r.reports.Delete(request.NamespacedName)
		r.stale.Delete(request.NamespacedName)
		return ctrl.Result{}, err
	}
	decision, err := r.decide(ctx, snapshot)
	if err != nil {
		return retry(err)
	}
	before := snapshot.Cluster
	outcome := r.act(ctx, snapshot, &decision)
	turnedOut := decision.WithRefusals(outcome)
	r.decisions.record(ctx, snapshot, turnedOut)
	r.Refusals.Count(turnedOut.Refusals)
	if outcome == nil || !isStale(outcome) {
		r.stale.Delete(request.NamespacedName)
	} else if !r.isStaleForLong(ctx, snapshot, outcome) {
		return r.failed(snapshot, outcome) // what was decided is out of date, and so is what could be told of it
	}
	again, err := r.report(ctx, snapshot, before, &decision, outcome)
	if err != nil {
		return r.failed(snapshot, err)
	}
	switch refusals, rest := plan.Refusals(outcome); {
	case rest != nil && isStale(rest):
		again = refusalDelay
	case rest != nil:
		return r.failed(snapshot, rest)
	case len(refusals) > 0:
		again = sooner(again, r.requeueAfter(refusalDelay, decision.DueAt))
	default:
		again = sooner(again, r.requeueAfter(decision.RequeueAfter, decision.DueAt))
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// decide asks the pace before a voluntary step begins, and decides again with its answer: what is held gives way to
// what repairs. The answer to the plan annotation tells what is held.
func (r *EtcdClusterReconciler) decide(ctx context.Context, s *cluster.Snapshot) (plan.Decision, error) {
	decision := analyse.Next(*s)
	switch {
	case decision.Plan != "":
		s.Hold = r.Pace.Look(ctx, s)
	case !decision.Voluntary:
		return decision, nil
	default:
		hold, err := r.Pace.Ask(ctx, s, decision.Action)
		if err != nil {
			return decision, err
		}
		s.Hold = hold
	}
	decision = analyse.Next(*s)
	if !decision.Voluntary {
		r.Pace.Release(s.Cluster.Key())
	}
	return decision, nil
}

// requeueAfter is the delay until the next pass. What is due at some time does not wait for as long as this pass took.
func (r *EtcdClusterReconciler) requeueAfter(delay time.Duration, due time.Time) time.Duration {
	if due.IsZero() {
		return delay
	}
	return min(delay, max(due.Sub(r.Observer.Now()), time.Millisecond))
}

// sooner returns the shorter delay. Zero is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// failed requeues a write that failed. When the API server could not convert the object, its status cannot be written
// either, so the failure becomes an Event.
func (r *EtcdClusterReconciler) failed(s *cluster.Snapshot, err error) (ctrl.Result, error) {
	explained := webhook.Explain(err)
	if webhook.IsConversion(err) {
		r.Events.Eventf(s.Cluster, nil, corev1.EventTypeWarning, v1beta1.EventConversionFailed, "Reconciling", "%.1000s", explained)
	}
	return retry(explained)
}

// act does the writes that disturb no member, then claims the one step that may, then takes it.
func (r *EtcdClusterReconciler) act(ctx context.Context, s *cluster.Snapshot, d *plan.Decision) error {
	r.Pace.NoteHealthyRestart(ctx, d)
	written, err := r.Actor.Upkeep(ctx, s, d.Upkeep)
	if d.InvalidatesSecrets {
		r.Observer.SecretsWritten(s.Cluster, written)
	}
	if _, other := plan.Refusals(err); other != nil || d.Action == nil || err != nil && !d.Urgent {
		if d.Voluntary && d.Action != nil { // a limit that was lowered has no claim: its place stays taken for a while
			r.Pace.Release(s.Cluster.Key())
		}
		return err
	}
	refused := err
	if err := r.Pace.NoteRollBack(ctx, s, d); err != nil {
		return err
	}
	report := s.Cluster.Status // a claim that stands changes nothing: what became of its step has been told
	if report.Operation == nil {
		report = status.Of(s, d, nil).Status
	}
	if err := r.Actor.Claim(ctx, s, d.Claim, &report); err != nil {
		return err // it may have been written nevertheless: its place stays taken for a while
	}
	r.reports.Store(s.Cluster.Key(), lastReport{at: s.Now})
	return errors.Join(refused, r.Actor.Act(ctx, s, d.Action))
}

// report writes the status once, and only if it changed, and sends the events: what changed since before.
// It returns when a status that can wait is to be written.
func (r *EtcdClusterReconciler) report(
	ctx context.Context, s *cluster.Snapshot, before *v1beta1.EtcdCluster, d *plan.Decision, outcome error,
) (time.Duration, error) {
	known, _ := r.reports.Load(s.Cluster.Key())
	last, _ := known.(lastReport)
	if last.leftOut.IsZero() {
		last.leftOut = s.Now
	}
	wroteObjects := d.WritesObjects() && (s.JustCreated || !d.InvalidatesSecrets) // Secrets are an event, and not watched
	if wroteObjects && d.Action == nil && outcome == nil && len(d.ResizedPods()) == 0 && s.Now.Sub(last.leftOut) < leaveOutTime {
		r.reports.Store(s.Cluster.Key(), last)
		return conflictDelay, nil // the objects that were just written bring the next pass, which has more to tell
	}
	report := status.Of(s, d, outcome)
	if !equality.Semantic.DeepEqual(report.Status, s.Cluster.Status) {
		if wait := last.at.Add(statusDelay).Sub(s.Now); wait > 0 && !isNews(s, d, &report) {
			return wait, nil
		}
		updated := s.Cluster.DeepCopy()
		updated.Status = report.Status
		if err := r.Client.Status().Update(ctx, updated); err != nil {
			return 0, fmt.Errorf("writing the status: %w", err)
		}
		last.at = s.Now
	}
	r.reports.Store(s.Cluster.Key(), lastReport{at: last.at})
	if before != s.Cluster { // the claim has told it
		was := *s
		was.Cluster = before
		report = status.Of(&was, d, outcome)
	}
	for _, e := range report.Events {
		r.Events.Eventf(s.Cluster, nil, e.Type, e.Reason, report.ActionOf(e), "%s", e.Message)
	}
	return 0, nil
}

// lastReport is when the status of a cluster was last written, and since when passes leave the report to the next one.
type lastReport struct{ at, leftOut time.Time }

// isNews reports whether a status cannot wait. While a cluster is on its way to its spec, its members change from
// second to second: what is no event, and neither begins nor ends an operation, is written every few seconds.
func isNews(s *cluster.Snapshot, d *plan.Decision, report *status.Report) bool {
	old := &s.Cluster.Status
	return !d.Progressing || len(report.Events) > 0 || len(old.Conditions) == 0 ||
		report.Status.ObservedGeneration != old.ObservedGeneration ||
		!equality.Semantic.DeepEqual(report.Status.Operation, old.Operation)
}

// retry requeues quietly after a conflict. The watch will deliver the newer object.
func retry(err error) (ctrl.Result, error) {
	if isStale(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	return ctrl.Result{}, err
}

// staleTime is how long passes may be out of date, one after the other, before they are reported all the same.
const staleTime = 10 * time.Second

// isStaleForLong notes since when every pass is out of date, and reports whether that is too long: no later pass has
// more to tell.
func (r *EtcdClusterReconciler) isStaleForLong(ctx context.Context, s *cluster.Snapshot, outcome error) bool {
	since, _ := r.stale.LoadOrStore(s.Cluster.Key(), s.Now)
	if at, ok := since.(time.Time); !ok || s.Now.Sub(at) < staleTime {
		return false
	}
	log.FromContext(ctx).Info("Every pass is out of date before it ends", "since", since, "cause", outcome.Error())
	return true
}

// isStale reports whether every write failed because its object was written or deleted after it was read.
func isStale(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(e error) bool { return !isStale(e) })
	}
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err)
}

// SetupWithManager registers the watches: EtcdClusters, the objects that they own, and volumes and pods.
// Volumes and pods are found by their label.
func (r *EtcdClusterReconciler) SetupWithManager(mgr ctrl.Manager) error {
	if err := IndexCaches(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1beta1.EtcdCluster{}).
		Owns(&appsv1.StatefulSet{}).
		Owns(&corev1.Service{}).
		Owns(&policyv1.PodDisruptionBudget{}).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(clusterOf)).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(clusterOf)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(clusterOf)).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.Concurrency}).
		Complete(r)
}

// clusterOf finds the cluster of a labelled object.
func clusterOf(_ context.Context, object client.Object) []reconcile.Request {
	name := cmp.Or(object.GetLabels()[cluster.LabelCluster], object.GetLabels()[cluster.LabelImageCheck])
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: object.GetNamespace(), Name: name}}}
}
