package act

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// evictionTimeout bounds one eviction. The client waits and tries again by itself while the API server asks it to.
const evictionTimeout = 5 * time.Second

// restartMember writes the template, if it is another one, and takes down the pod that was decided about.
// The StatefulSet creates the next pod.
func (a *Actor) restartMember(ctx context.Context, s *cluster.Snapshot, action plan.RestartMember) error {
	pods, err := a.livePods(ctx, s)
	if err != nil {
		return err
	}
	if err := stillStopped(pods, action); err != nil {
		return err
	}
	i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Name == action.Pod && p.UID == action.UID })
	isThere := i >= 0 && pods[i].DeletionTimestamp == nil
	switch {
	case !isThere:
	case !action.Evict && isReady(&pods[i]) && action.For != v1beta1.OperationAddMember: // a learner may go
		return conflict("Pod", action.Pod, "it was to be deleted because it had failed, and it is ready now")
	case action.Evict:
		refused, then := fmt.Sprintf("Pod %s is not evicted", action.Pod), "Waiting until it is gone, and its successor is ready if it has one."
		if refusal := noOtherPodGoing(pods, action.Pod, refused, then); refusal != nil {
			return refusal
		}
	}
	if err := a.writeTemplate(ctx, s, action); err != nil {
		return err
	}
	if !isThere {
		return nil // it is gone already
	}
	if !action.Evict {
		err := a.Client.Delete(ctx, &pods[i], client.Preconditions{UID: &action.UID})
		if err := client.IgnoreNotFound(err); err != nil {
			return writeError("deleting", "Pod", action.Pod, err)
		}
		return nil
	}
	return a.evict(ctx, &pods[i])
}

// stillStopped returns a conflict where an action that takes no pod down was decided without one that is there: a
// member that is to be stopped and is ready by now, or one that is to be started and has a pod.
func stillStopped(pods []corev1.Pod, action plan.RestartMember) error {
	if action.Pod != "" || action.StatefulSet == nil {
		return nil
	}
	stops := action.StatefulSet.Spec.Replicas != nil && *action.StatefulSet.Spec.Replicas == 0
	for i := range pods {
		if p := &pods[i]; p.Name == cluster.PodName(action.Name) && (!stops || isReady(p)) {
			return conflict("Pod", p.Name, "it was to be stopped or gone, and it is there")
		}
	}
	return nil
}

// isReady reports whether Kubernetes counts the pod as ready.
func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// writeTemplate writes the StatefulSet of the member to restart, if the operation still stands.
func (a *Actor) writeTemplate(ctx context.Context, s *cluster.Snapshot, action plan.RestartMember) error {
	if action.StatefulSet == nil {
		return nil
	}
	if err := a.stillClaimed(ctx, s); err != nil {
		return err
	}
	return a.updateStatefulSet(ctx, plan.UpdateStatefulSet{Desired: action.StatefulSet, Live: action.Live})
}

// livePods reads the cluster's pods from the API server: the cache may not know yet what a drain has just evicted.
func (a *Actor) livePods(ctx context.Context, s *cluster.Snapshot) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := a.Live.List(ctx, &list, client.InNamespace(s.Cluster.Namespace), client.MatchingLabels{cluster.LabelCluster: s.Cluster.Name})
	if err != nil {
		return nil, fmt.Errorf("listing Pods: %w", err)
	}
	return list.Items, nil
}

// noOtherPodGoing refuses to disturb a pod while another one of the cluster is being deleted. refused says what is not
// done, and then until when.
func noOtherPodGoing(pods []corev1.Pod, disturbed, refused, then string) error {
	for _, p := range pods {
		if p.Name != disturbed && p.DeletionTimestamp != nil {
			return disruptionRefused(fmt.Sprintf("%s, because Pod %s of the same cluster is being deleted. %s", refused, p.Name, then))
		}
	}
	return nil
}

func disruptionRefused(message string) error {
	return &plan.Refusal{Guard: "disruptionAllowed", Reason: v1beta1.ReasonDisruptionNotAllowed, Message: message}
}

// evict asks the API server to delete the pod within its disruption budget.
func (a *Actor) evict(ctx context.Context, pod *corev1.Pod) error {
	bounded, cancel := context.WithTimeout(ctx, evictionTimeout)
	defer cancel()
	err := a.Client.SubResource("eviction").Create(bounded, pod, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}},
	})
	switch {
	case err == nil, apierrors.IsNotFound(err):
		return nil
	case bounded.Err() != nil && ctx.Err() == nil, isBeingProcessed(err):
		return conflict("PodDisruptionBudget", pod.Name, "it is still being processed")
	case apierrors.IsTooManyRequests(err):
		return disruptionRefused(fmt.Sprintf("The API server does not allow the eviction of Pod %s now: %s. Waiting until it does.",
			pod.Name, budgetCause(err)))
	case apierrors.IsInternalError(err) && strings.Contains(err.Error(), "more than one PodDisruptionBudget"):
		return a.severalBudgets(ctx, pod)
	default:
		return writeError("evicting", "Pod", pod.Name, err)
	}
}

// budgetCause returns what the API server says of the budget, else its whole message.
func budgetCause(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		for _, c := range status.Status().Details.Causes {
			if c.Type == policyv1.DisruptionBudgetCause {
				return strings.TrimSuffix(c.Message, ".")
			}
		}
	}
	return strings.TrimSuffix(err.Error(), ".")
}

// isBeingProcessed reports whether the budget's status is older than the budget. That passes by itself.
func isBeingProcessed(err error) bool {
	return apierrors.IsTooManyRequests(err) && strings.Contains(budgetCause(err), "still being processed")
}

// severalBudgets names the budgets that select the pod. The API server evicts no pod that more than one selects.
func (a *Actor) severalBudgets(ctx context.Context, pod *corev1.Pod) error {
	var list policyv1.PodDisruptionBudgetList
	if err := a.Live.List(ctx, &list, client.InNamespace(pod.Namespace)); err != nil {
		return fmt.Errorf("listing PodDisruptionBudgets: %w", err)
	}
	var names []string
	for _, b := range list.Items {
		if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && selector.Matches(labels.Set(pod.Labels)) {
			names = append(names, b.Name)
		}
	}
	return &plan.Refusal{
		Guard:  "disruptionAllowed",
		Reason: v1beta1.ReasonSeveralBudgets,
		Message: fmt.Sprintf("Pod %s is selected by %d PodDisruptionBudgets: %s. The API server evicts no such pod. "+
			"Delete those that are not the operator's.", pod.Name, len(names), strings.Join(names, ", ")),
	}
}
