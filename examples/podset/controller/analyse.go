package controller

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/etcd-warden/etcd-warden/examples/podset/api/v1alpha1"
)

// State is what a pass saw: a PodSet, and the pods that it controls or that its selector selects.
type State struct {
	Set      *v1alpha1.PodSet
	Selector labels.Selector
	Pods     []*corev1.Pod
}

// Decision is what a pass does: steps, one after the other. Pods are those that count, in the order in which they are
// given up. Reason and Message are for the condition Ready.
type Decision struct {
	Steps           []Step
	Pods            []*corev1.Pod
	Reason, Message string
}

// Step is one write to one pod.
type Step struct {
	Action Action
	Pod    *corev1.Pod
}

// Action is what a step does to its pod. It is also the reason of the Event about it.
type Action string

// The actions.
const (
	Adopted  Action = "Adopted"
	Released Action = "Released"
	Deleted  Action = "Deleted"
	Created  Action = "Created"
)

// batch is how many pods one pass makes or deletes at most. The cache shows them, and that starts the next pass.
const batch = 500

// Analyse decides what to do. It reads nothing and writes nothing: the same state gives the same decision.
func Analyse(s *State) (d Decision) {
	for _, pod := range s.Pods {
		d.sortIn(s, pod)
	}
	slices.SortFunc(d.Pods, surplusFirst)
	missing, hash := newPod(s.Set), templateHash(s.Set)
	if !s.Selector.Matches(labels.Set(missing.Labels)) {
		message := "The selector does not select pods of the template. Correct spec.template.metadata.labels."
		if _, err := metav1.LabelSelectorAsSelector(&s.Set.Spec.Selector); err != nil {
			message = fmt.Sprintf("The selector is invalid: %s. Create another PodSet.", err)
		}
		ours := slices.DeleteFunc(d.Pods, func(pod *corev1.Pod) bool { return !metav1.IsControlledBy(pod, s.Set) })
		return Decision{Pods: ours, Reason: v1alpha1.ReasonInvalidSpec, Message: message}
	}
	have, want := len(d.Pods), int(s.Set.Spec.Replicas)
	for range min(want-have, batch) {
		d.Steps = append(d.Steps, Step{Created, missing})
	}
	for _, pod := range d.Pods[:max(0, min(have-want, batch))] {
		d.Steps = append(d.Steps, Step{Deleted, pod})
	}
	ready := len(slices.DeleteFunc(slices.Clone(d.Pods), func(pod *corev1.Pod) bool { return !isReady(pod) }))
	isOutdated := func(pod *corev1.Pod) bool { return pod.Labels[v1alpha1.TemplateLabel] != hash }
	outdated := slices.IndexFunc(d.Pods, isOutdated)
	starts := slices.ContainsFunc(d.Pods, func(pod *corev1.Pod) bool { return !isOutdated(pod) && !isReady(pod) })
	switch {
	case have != want:
		d.Reason, d.Message = v1alpha1.ReasonScaling, fmt.Sprintf("%d pods exist, and %d are wanted.", have, want)
	case outdated >= 0 && !starts: // one at a time
		d.Steps = append(d.Steps, Step{Deleted, d.Pods[outdated]})
		d.Reason, d.Message = v1alpha1.ReasonRolling, fmt.Sprintf("Replacing the pod %s: it is made from an older template.", d.Pods[outdated].Name)
	case ready < have:
		d.Reason, d.Message = v1alpha1.ReasonPodsNotReady, fmt.Sprintf("%d of %d pods are ready. Look at the pod %s.", ready, have, d.Pods[0].Name)
	default:
		d.Reason, d.Message = v1alpha1.ReasonUpToDate, fmt.Sprintf("%d pods are ready.", ready)
	}
	return d
}

// sortIn decides what becomes of one pod, whatever the number of pods.
func (d *Decision) sortIn(s *State, pod *corev1.Pod) {
	hasEnded := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	switch isOurs := metav1.IsControlledBy(pod, s.Set); {
	case pod.DeletionTimestamp != nil || hasEnded && !isOurs:
	case !s.Selector.Matches(labels.Set(pod.Labels)):
		d.Steps = append(d.Steps, Step{Released, pod})
	case hasEnded: // it was evicted, for example, and does not start again
		d.Steps = append(d.Steps, Step{Deleted, pod})
	case !isOurs:
		d.Steps = append(d.Steps, Step{Adopted, pod})
		fallthrough
	default:
		d.Pods = append(d.Pods, pod)
	}
}

// surplusFirst is the order in which pods are given up: those that are not ready first, then the newest.
func surplusFirst(a, b *corev1.Pod) int {
	if isReady(a) != isReady(b) {
		return map[bool]int{false: -1, true: 1}[isReady(a)]
	}
	return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// newPod returns a pod made from the template of a set, without its owner.
func newPod(set *v1alpha1.PodSet) *corev1.Pod {
	template := set.Spec.Template.DeepCopy()
	pod := &corev1.Pod{Spec: template.Spec}
	pod.Namespace, pod.GenerateName, pod.Labels, pod.Annotations = set.Namespace, set.Name+"-", template.Labels, template.Annotations
	metav1.SetMetaDataLabel(&pod.ObjectMeta, v1alpha1.TemplateLabel, templateHash(set))
	return pod
}

// templateHash tells templates from each other.
func templateHash(set *v1alpha1.PodSet) string {
	hash := fnv.New32a()
	_ = json.NewEncoder(hash).Encode(set.Spec.Template) // it was decoded from JSON, and a hash takes every write
	return fmt.Sprintf("%08x", hash.Sum32())
}
