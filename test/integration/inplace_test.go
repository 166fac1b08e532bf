//go:build integration

package integration

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// asking sets the resources of etcd's containers, as lists such as "cpu=1 memory=2Gi".
func asking(requests, limits string) func(*v1beta1.EtcdCluster) {
	return func(c *v1beta1.EtcdCluster) {
		c.Spec.Resources = v1beta1.ResourceRequirements{Requests: amounts(requests), Limits: amounts(limits)}
	}
}

func amounts(text string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, word := range strings.Fields(text) {
		name, amount, _ := strings.Cut(word, "=")
		list[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return list
}

var (
	small = asking("cpu=500m memory=1Gi", "memory=2Gi")
	large = asking("cpu=1 memory=1Gi", "memory=4Gi cpu=4")
	equal = asking("cpu=1 memory=2Gi", "cpu=1 memory=2Gi") // the class Guaranteed, where the others are Burstable
)

// more changes the spec from small to what every node gives.
func more(l *lab) { l.change(asking("cpu=750m memory=2Gi", "memory=4Gi")) }

func init() {
	scenarios = append(scenarios, scenario{
		name: "change CPU and memory of running pods", prepare: func(l *lab) { l.createWithData(small) }, begin: more, numbers: []int{0, 1, 2}, samePods: true,
	})
}

// resizes are how often the operator asked the API server to resize a pod, by pod.
func (l *lab) resizes() map[string]int {
	count := map[string]int{}
	for _, w := range l.operator.writes {
		if w.Verb == "patch-resize" {
			count[w.Name]++
		}
	}
	return count
}

// expectResources fails unless every pod and every template asks for what the spec asks for, and no pod is marked.
func (l *lab) expectResources() {
	l.Helper()
	spec := l.get().Spec.Resources
	want := cluster.Intent{Limits: spec.Limits, Requests: spec.Requests}.Resources()
	for n := range 3 {
		member := cluster.MemberName(name, n)
		pod, template := l.pod(member), l.set(member).Spec.Template
		if !cluster.Includes(pod.Spec.Containers[0].Resources, want) || !cluster.Includes(template.Spec.Containers[0].Resources, want) {
			l.Errorf("%s: pod %+v, template %+v, want %+v", member, pod.Spec.Containers[0].Resources, template.Spec.Containers[0].Resources, want)
		}
		for _, key := range []string{cluster.AnnotationIntentHash, cluster.AnnotationRenderHash, cluster.AnnotationResize} {
			if pod.Annotations[key] != template.Annotations[key] {
				l.Errorf("%s: annotation %s is %q, and %q in the template", member, key, pod.Annotations[key], template.Annotations[key])
			}
		}
	}
}

func TestResourcesOfRunningPodsAreChangedWithoutARestart(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*v1beta1.EtcdCluster){
		"more memory and CPU":  large,
		"smaller requests":     asking("cpu=250m memory=512Mi", "memory=2Gi"),
		"the other way of CPU": asking("cpu=250m memory=1Gi", "memory=2Gi"),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData(small)
			pods := l.podUIDs()
			l.operator = l.newOperator(noHooks)
			l.change(change)
			l.settle()
			l.expectSame(pods)
			l.expectFounded(3)
			l.expectResources()
			l.expectRest()
			l.checkData(3)
			if got := l.resizes(); l.rolled() != 0 || !maps.Equal(got, map[string]int{"prod-0-0": 1, "prod-1-0": 1, "prod-2-0": 1}) {
				t.Errorf("%d restarts, asked %v", l.rolled(), got)
			}
			if !l.operator.events.has(corev1.EventTypeNormal, v1beta1.EventPodResized) || l.operator.events.has(corev1.EventTypeNormal, v1beta1.ReasonTemplateNewer) {
				t.Errorf("events %q", l.operator.events.events)
			}
			for n := range 3 {
				healthy := l.set(cluster.MemberName(name, n)).Annotations
				if healthy[cluster.AnnotationHealthyIntent] != healthy[cluster.AnnotationIntent] {
					t.Errorf("the intent of prod-%d is not recorded as healthy", n)
				}
			}
		})
	}
}

// TestMembersRestartWhereRunningPodsCannotBeResized has the API server, or the kubelet, refuse.
func TestMembersRestartWhereRunningPodsCannotBeResized(t *testing.T) {
	t.Parallel()
	refusing := func(answer error) failpoint.Hooks {
		return failpoint.Hooks{After: func(w failpoint.Write, err error) error {
			if w.Verb == "patch-resize" {
				return answer
			}
			return err
		}, Before: func(w failpoint.Write) error {
			if w.Verb == "patch-resize" && answer != nil {
				return answer
			}
			return nil
		}}
	}
	pods := schema.GroupResource{Resource: "pods"}
	for what, c := range map[string]struct {
		change     func(*v1beta1.EtcdCluster)
		answer     error
		infeasible string
	}{
		"the class of quality of service changes": {equal, nil, ""},
		"a limit is removed":                      {asking("cpu=500m memory=1Gi", ""), nil, ""},
		"the limit of memory goes down":           {asking("cpu=500m memory=1Gi", "memory=1Gi"), nil, ""},
		"the API server has no such subresource":  {large, apierrors.NewNotFound(pods, "resize"), ""},
		"the role does not allow it":              {large, apierrors.NewForbidden(pods, "prod-0-0", errors.New("cannot patch resource")), ""},
		"the node is too small":                   {large, nil, "Node didn't have enough capacity: memory"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData(small)
			before := l.podUIDs()
			tried := map[string]int{}
			hooks := refusing(c.answer)
			if c.answer == nil {
				hooks = noHooks
			}
			count := failpoint.Hooks{After: hooks.After, Before: func(w failpoint.Write) error {
				if w.Verb == "patch-resize" {
					tried[w.Name]++
				}
				if hooks.Before != nil {
					return hooks.Before(w)
				}
				return nil
			}}
			l.operator = l.newOperator(count)
			l.kubernetes.disruptionsForbidden, l.kubernetes.infeasible = true, c.infeasible
			l.kubernetes.step(t)
			l.change(c.change)
			for range 15 { // it never comes to rest: the operator asks again for the eviction
				l.round()
			}
			expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonDisruptionNotAllowed)
			l.expectSame(before)
			l.kubernetes.disruptionsForbidden = false
			l.kubernetes.step(t)
			l.settle()
			l.expectFounded(3)
			l.expectResources()
			l.checkData(3)
			if l.rolled() != 3 {
				t.Errorf("%d restarts", l.rolled())
			}
			want := 1
			if c.answer == nil && c.infeasible == "" {
				want = 0
			}
			for n := range 3 {
				if pod := cluster.PodName(cluster.MemberName(name, n)); tried[pod] > want {
					t.Errorf("%s: asked %d times to resize it", pod, tried[pod])
				}
			}
			if len(tried) != 3*want {
				t.Errorf("asked for %v", tried)
			}
		})
	}
}

// TestTheAPIServerRefusesAResizeAndThePodIsMarked asks the API server for what Kubernetes refuses.
func TestTheAPIServerRefusesAResizeAndThePodIsMarked(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData(small)
	s, err := l.operator.reconciler.Observer.Observe(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: name})
	must(t, err)
	m := s.Member("prod-0")
	ask := plan.ResizePod{Member: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID, Target: "hash", AskedAt: l.now}
	ask.Resources = corev1.ResourceRequirements{Requests: amounts("cpu=1 memory=2Gi"), Limits: amounts("cpu=1 memory=2Gi")}
	_, err = l.operator.reconciler.Actor.Upkeep(t.Context(), s, []plan.Upkeep{ask})
	must(t, err)
	if got := l.pod("prod-0").Annotations[cluster.AnnotationResize]; got != cluster.ResizeMark("hash", l.now, true) {
		t.Errorf("another class of quality of service: the mark is %q", got)
	}
	ask.UID = "another"
	_, err = l.operator.reconciler.Actor.Upkeep(t.Context(), s, []plan.Upkeep{ask})
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || !apierrors.IsConflict(joined.Unwrap()[0]) {
		t.Errorf("another pod: %v", err)
	}
	patch := client.RawPatch("application/strategic-merge-patch+json", fmt.Appendf(nil, `{"metadata":{"uid":"another"},"spec":{"containers":[{"name":"etcd","resources":{"limits":{"memory":"3Gi"}}}]}}`))
	if err := operatorClient.SubResource("resize").Patch(t.Context(), l.pod("prod-0"), patch); err == nil {
		t.Error("the API server resizes a pod that has another UID")
	}
}
