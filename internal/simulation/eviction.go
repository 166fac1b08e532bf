package simulation

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// evict deletes a pod if its PodDisruptionBudget allows it, as the API server does.
func (s *Server) evict(k *kind, key types.NamespacedName, eviction *policyv1.Eviction) error {
	if s.BeforeEviction != nil {
		s.BeforeEviction()
	}
	pod, ok := k.live(key).(*corev1.Pod)
	if !ok {
		return apierrors.NewNotFound(k.resource, key.Name)
	}
	o := &client.DeleteOptions{}
	if eviction.DeleteOptions != nil {
		o.Preconditions = eviction.DeleteOptions.Preconditions
	}
	if err := s.checkPreconditions(k, pod, o.Preconditions); err != nil {
		return err
	}
	if pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
		if err := s.mayDisrupt(pod); err != nil {
			return err
		}
	}
	return s.remove(pod.DeepCopy(), o)
}

// mayDisrupt asks the budget of a running pod.
func (s *Server) mayDisrupt(pod *corev1.Pod) error {
	var budgets []*policyv1.PodDisruptionBudget
	for _, b := range all[*policyv1.PodDisruptionBudget](s) {
		if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && selector.Matches(labels.Set(pod.Labels)) {
			budgets = append(budgets, b)
		}
	}
	switch len(budgets) {
	case 0:
		return nil
	case 1:
	default:
		return apierrors.NewInternalError(errors.New("this pod has more than one PodDisruptionBudget"))
	}
	healthy, desired := s.healthyPods(budgets[0])
	always := budgets[0].Spec.UnhealthyPodEvictionPolicy
	unhealthy := !isReady(pod)
	switch {
	case unhealthy && always != nil && *always == policyv1.AlwaysAllow:
		return nil
	case unhealthy && healthy >= desired && desired > 0, healthy > desired:
		return nil
	default:
		answer := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
		answer.ErrStatus.Details.Causes = []metav1.StatusCause{{
			Type:    policyv1.DisruptionBudgetCause,
			Message: fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", budgets[0].Name, desired, healthy),
		}}
		return answer
	}
}

// healthyPods counts the ready pods of a budget, and how many it asks for.
func (s *Server) healthyPods(b *policyv1.PodDisruptionBudget) (healthy, desired int) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return 0, 0
	}
	for _, p := range all[*corev1.Pod](s) {
		if p.DeletionTimestamp == nil && selector.Matches(labels.Set(p.Labels)) && isReady(p) {
			healthy++
		}
	}
	if b.Spec.MinAvailable != nil {
		desired = b.Spec.MinAvailable.IntValue()
	}
	return healthy, desired
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
