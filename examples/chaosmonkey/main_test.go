package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestTheSameSeedMakesTheSameChoices(t *testing.T) {
	choices := func(seed uint64) (all string) {
		random := rand.New(rand.NewPCG(seed, 0))
		for range 20 {
			isDue, name, which := choose(random, []string{"kill", "cut", "flip"})
			all += fmt.Sprint(isDue, name, which, " ")
		}
		return all
	}
	first := choices(1)
	if again := choices(1); again != first {
		t.Error("the same seed makes other choices")
	}
	if choices(2) == first {
		t.Error("another seed makes the same choices")
	}
}

func TestACutPodThatIsStillReachedIsToldAndLeftAsItWas(t *testing.T) {
	*lasting = time.Millisecond
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: strings.Repeat("a", 64), UID: "u", Labels: map[string]string{"app": "web"}}}
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: int32(listener.Addr().(*net.TCPAddr).Port)}}}}
	pod.Status.PodIP = "127.0.0.1"
	policies, refusals := 0, 0
	c := fake.NewClientBuilder().WithObjects(pod).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			policy, marked := object.(*networkingv1.NetworkPolicy), &corev1.Pod{}
			if err := c.Get(ctx, client.ObjectKeyFromObject(pod), marked); err != nil || marked.Labels[cutOff] != policy.Spec.PodSelector.MatchLabels[cutOff] {
				t.Errorf("%v: the policy selects %v, and the pod has %v", err, policy.Spec.PodSelector, marked.Labels)
			}
			policies++
			return c.Create(ctx, object, options...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			if refusals++; refusals == 1 {
				return errors.New("the API server restarts")
			}
			return c.Delete(ctx, object, options...)
		},
	}).Build()
	if err := cut(t.Context(), c, asObject(t, pod)); err == nil || !strings.Contains(err.Error(), "no NetworkPolicy is enforced here") {
		t.Errorf("told %v", err)
	}
	var left networkingv1.NetworkPolicyList
	if err := c.List(t.Context(), &left); err != nil || len(left.Items) > 0 || policies != 1 {
		t.Errorf("%v: %d policies were made, and %d are left", err, policies, len(left.Items))
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil || len(pod.Labels) != 1 {
		t.Errorf("%v: the pod has the labels %v", err, pod.Labels)
	}
}

func TestAFlippedNumberIsLoweredUnlessSomebodyElseHasChangedIt(t *testing.T) {
	*lasting, *field = time.Millisecond, "spec.replicas"
	for _, other := range []int64{0, 7} {
		set := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": map[string]any{"namespace": "shop", "name": "web"}, "spec": map[string]any{"replicas": int64(3)},
		}}
		patches := 0
		c := fake.NewClientBuilder().WithObjects(set.DeepCopy()).WithInterceptorFuncs(interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
				err := c.Patch(ctx, object, patch, options...)
				if patches++; patches == 1 && other > 0 {
					return client.IgnoreNotFound(c.Patch(ctx, set.DeepCopy(), client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, other))))
				}
				return err
			},
		}).Build()
		err := flip(t.Context(), c, set.DeepCopy())
		if (err != nil) != (other > 0) || patches != 2 {
			t.Errorf("%d patches, and it tells %v", patches, err)
		}
		want := max(3, other)
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil {
			t.Fatal(err)
		}
		if got, _, _ := unstructured.NestedInt64(set.Object, "spec", "replicas"); got != want {
			t.Errorf("the number is %d, want %d", got, want)
		}
	}
}

func asObject(t *testing.T, of any) *object {
	t.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(of)
	if err != nil {
		t.Fatal(err)
	}
	return &object{Object: fields}
}
