//go:build integration

package integration

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// policy refuses writes of the given kinds, as admission does.
func policy(verb string, kinds ...string) failpoint.Hooks {
	return failpoint.Hooks{Before: func(w failpoint.Write) error {
		for _, kind := range kinds {
			if w.Verb == verb && w.Kind == kind {
				return apierrors.NewForbidden(schema.GroupResource{Resource: strings.ToLower(kind) + "s"}, w.Name, errors.New("denied by policy freeze"))
			}
		}
		return nil
	}}
}

func TestWritesThatAreRefusedAreToldAndHoldNothingElseUp(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		spoil   func(*lab)
		says    []string
		renewed []string
	}{
		"policies": {
			func(l *lab) {
				set := l.set("prod-1")
				set.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
				must(l.T, admin.Update(l.Context(), set))
				service := &corev1.Service{}
				must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: name}, service))
				service.Spec.PublishNotReadyAddresses = false
				must(l.T, admin.Update(l.Context(), service))
				frozen := policy("update", "StatefulSet")
				services := policy("apply", "Service")
				l.operator = l.newOperator(failpoint.Hooks{Before: func(w failpoint.Write) error { return errors.Join(frozen.Before(w), services.Before(w)) }})
			},
			[]string{"refuses StatefulSet prod-1: ", "refuses Service prod: ", "denied by policy freeze", "Correct the spec, the object itself"},
			[]string{"prod-peer-tls", "prod-server-tls", "prod-operator-tls", "prod-client-tls"},
		},
		"an immutable Secret": {
			func(l *lab) {
				secret := l.secret("prod-peer-tls")
				secret.Immutable = new(true)
				must(l.T, admin.Update(l.Context(), secret))
			},
			[]string{"refuses Secret prod-peer-tls: ", "immutable"},
			[]string{"prod-server-tls", "prod-operator-tls", "prod-client-tls"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData(withManagedTLS)
			old := l.secretData()
			c.spoil(l)
			l.later(renewalTime)
			for _, name := range c.renewed {
				if bytes.Equal(old[name]["tls.crt"], l.secret(name).Data["tls.crt"]) {
					t.Errorf("%s was not renewed", name)
				}
			}
			for _, kind := range []string{v1beta1.ConditionProgressing, v1beta1.ConditionDegraded} {
				status := map[string]metav1.ConditionStatus{v1beta1.ConditionProgressing: metav1.ConditionFalse, v1beta1.ConditionDegraded: metav1.ConditionTrue}[kind]
				told := expectCondition(t, l.get(), kind, status, v1beta1.ReasonWriteRefused)
				for _, says := range c.says {
					if !strings.Contains(told.Message, says) {
						t.Errorf("%s does not say %q: %s", kind, says, told.Message)
					}
				}
			}
			l.checkData(3)
		})
	}
}

// TestAWriteToAnObjectThatWasReplacedIsAConflict asks the API server, which
// calls another UID an invalid change in some writes and a conflict in others.
func TestAWriteToAnObjectThatWasReplacedIsAConflict(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	s, err := l.operator.reconciler.Observer.Observe(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: name})
	must(t, err)
	m := s.Member("prod-0")
	s.PeerService = s.PeerService.DeepCopy()
	s.PeerService.UID = "another"
	for what, item := range map[string]plan.Upkeep{
		"a pod":     plan.AnnotatePod{Member: m.Name, Pod: m.Pod.Name, UID: "another", Annotations: map[string]string{"a": "b"}},
		"a Service": plan.Apply{Desired: render.PeerService(s.Cluster), Live: s.PeerService},
	} {
		_, err := l.operator.reconciler.Actor.Upkeep(t.Context(), s, []plan.Upkeep{item})
		if refusals, rest := plan.Refusals(err); len(refusals) > 0 || rest == nil {
			t.Errorf("%s: got %v", what, err)
		}
		if joined, ok := err.(interface{ Unwrap() []error }); !ok || !apierrors.IsConflict(joined.Unwrap()[0]) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// TestARefusedBudgetKeepsNoMemberFromStarting deletes all StatefulSets while a policy refuses the PodDisruptionBudget.
func TestARefusedBudgetKeepsNoMemberFromStarting(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	l.delete(&policyv1.PodDisruptionBudget{}, name)
	for n := range 3 {
		l.delete(l.set(cluster.MemberName(name, n)), cluster.MemberName(name, n))
	}
	l.operator = l.newOperator(policy("create", "PodDisruptionBudget"))
	for range 20 { // it never comes to rest: the operator asks again
		l.round()
	}
	expectCondition(t, l.get(), v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
	expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonWriteRefused)
	l.checkData(3)
}
