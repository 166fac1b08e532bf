package controller

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/examples/podset/api/v1alpha1"
)

// world builds a state: a set of a size, and pods of it.
type world struct{ State }

func newWorld(replicas int32) *world {
	set := &v1alpha1.PodSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "set", Generation: 2},
		Spec: v1alpha1.PodSetSpec{
			Replicas: replicas,
			Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}},
		},
	}
	return &world{State{Set: set, Selector: selectorOf(set)}}
}

// with adds a ready pod of the set and of its template. The later it is added, the newer it is.
func (w *world) with(name string, changes ...func(*corev1.Pod)) *world {
	pod := newPod(w.Set)
	isController := true
	pod.Name, pod.UID, pod.GenerateName = name, types.UID(name), ""
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: "PodSet", Name: w.Set.Name, UID: w.Set.UID, Controller: &isController}}
	pod.CreationTimestamp = metav1.NewTime(time.Unix(int64(len(w.Pods)), 0))
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for _, change := range changes {
		change(pod)
	}
	w.Pods = append(w.Pods, pod)
	return w
}

func free(pod *corev1.Pod)     { pod.OwnerReferences = nil }
func renamed(pod *corev1.Pod)  { pod.Labels["app"] = "other" }
func outdated(pod *corev1.Pod) { pod.Labels[v1alpha1.TemplateLabel] = "older" }
func unready(pod *corev1.Pod)  { pod.Status.Conditions = nil }
func ended(pod *corev1.Pod)    { pod.Status.Phase = corev1.PodFailed }
func going(pod *corev1.Pod)    { now := metav1.Now(); pod.DeletionTimestamp = &now }

func TestAnalyse(t *testing.T) {
	for name, c := range map[string]struct {
		world  *world
		steps  string
		reason string
	}{
		"makes what is missing":                                 {newWorld(2), "Created, Created", v1alpha1.ReasonScaling},
		"does nothing where all is as wanted":                   {newWorld(1).with("a"), "", v1alpha1.ReasonUpToDate},
		"deletes the newest of what is too much":                {newWorld(1).with("a").with("b").with("c"), "Deleted c, Deleted b", v1alpha1.ReasonScaling},
		"deletes what is not ready before what is newer":        {newWorld(2).with("a", unready).with("b").with("c"), "Deleted a", v1alpha1.ReasonScaling},
		"deletes everything":                                    {newWorld(0).with("a"), "Deleted a", v1alpha1.ReasonScaling},
		"does not count a pod that is going away":               {newWorld(1).with("a", going), "Created", v1alpha1.ReasonScaling},
		"replaces a pod that has ended":                         {newWorld(1).with("a", ended), "Deleted a, Created", v1alpha1.ReasonScaling},
		"adopts a pod instead of making one":                    {newWorld(2).with("a").with("b", free), "Adopted b", v1alpha1.ReasonUpToDate},
		"adopts a pod before it deletes it":                     {newWorld(1).with("a").with("b", free), "Adopted b, Deleted b", v1alpha1.ReasonScaling},
		"leaves a free pod that has ended":                      {newWorld(1).with("a").with("b", free, ended), "", v1alpha1.ReasonUpToDate},
		"leaves a free pod that is going away":                  {newWorld(1).with("a").with("b", free, going), "", v1alpha1.ReasonUpToDate},
		"releases a pod, and makes another":                     {newWorld(1).with("a", renamed), "Released a, Created", v1alpha1.ReasonScaling},
		"leaves a released pod that is going away":              {newWorld(1).with("a").with("b", renamed, going), "", v1alpha1.ReasonUpToDate},
		"replaces one outdated pod":                             {newWorld(2).with("a", outdated).with("b", outdated), "Deleted b", v1alpha1.ReasonRolling},
		"waits with the next until the new pod is ready":        {newWorld(2).with("a", outdated).with("b", unready), "", v1alpha1.ReasonPodsNotReady},
		"replaces an outdated pod that is not ready":            {newWorld(2).with("a", outdated).with("b", unready, outdated), "Deleted b", v1alpha1.ReasonRolling},
		"leaves an outdated pod while the new one fails":        {newWorld(2).with("a", unready, outdated).with("b", unready), "", v1alpha1.ReasonPodsNotReady},
		"scales before it rolls":                                {newWorld(3).with("a", outdated).with("b", outdated), "Created", v1alpha1.ReasonScaling},
		"tells which pod is not ready":                          {newWorld(2).with("a").with("b", unready), "", v1alpha1.ReasonPodsNotReady},
		"rolls an adopted pod of no template of ours":           {newWorld(1).with("a", free, outdated), "Adopted a, Deleted a", v1alpha1.ReasonRolling},
		"does nothing where the template lacks its label":       {mislabelled(newWorld(2).with("a")), "", v1alpha1.ReasonInvalidSpec},
		"does nothing where it sets the label that is selected": {selecting(newWorld(2).with("a"), v1alpha1.TemplateLabel, "mine"), "", v1alpha1.ReasonInvalidSpec},
	} {
		t.Run(name, func(t *testing.T) {
			d := Analyse(&c.world.State)
			var steps []string
			for _, step := range d.Steps {
				steps = append(steps, strings.TrimSpace(fmt.Sprint(step.Action, " ", step.Pod.Name)))
			}
			if diff := cmp.Diff(c.steps, strings.Join(steps, ", ")); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if d.Reason != c.reason || c.reason != "" && !strings.HasSuffix(d.Message, ".") {
				t.Errorf("reason %s, want %s; message %q", d.Reason, c.reason, d.Message)
			}
		})
	}
}

func TestAPassHasAnEnd(t *testing.T) {
	w := newWorld(math.MaxInt32)
	if d := Analyse(&w.State); len(d.Steps) != batch {
		t.Errorf("%d steps", len(d.Steps))
	}
	w = newWorld(0)
	for i := range 2 * batch {
		w.with(fmt.Sprint(i))
	}
	if d := Analyse(&w.State); len(d.Steps) != batch {
		t.Errorf("%d steps", len(d.Steps))
	}
}

func TestTheStatusOfAWrongSelectorNamesNoPodOfOthers(t *testing.T) {
	if d := Analyse(&mislabelled(newWorld(2).with("a").with("b", free)).State); len(d.Pods) != 1 || d.Pods[0].Name != "a" {
		t.Errorf("%d pods", len(d.Pods))
	}
}

func mislabelled(w *world) *world {
	w.Set.Spec.Template.Labels = nil
	return w
}

// selecting has the set and its pods have another label.
func selecting(w *world, key, value string) *world {
	w.Set.Spec.Selector.MatchLabels = map[string]string{key: value}
	w.Set.Spec.Template.Labels = map[string]string{key: value}
	w.Selector = selectorOf(w.Set)
	for _, pod := range w.Pods {
		pod.Labels = map[string]string{key: value}
	}
	return w
}

func TestAnotherTemplateHasAnotherHash(t *testing.T) {
	a, b := newWorld(1).Set, newWorld(5).Set
	if templateHash(a) != templateHash(b) {
		t.Error("the number of pods changes the hash of the template")
	}
	b.Spec.Template.Spec.NodeName = "other"
	if templateHash(a) == templateHash(b) {
		t.Error("another template has the same hash")
	}
}
