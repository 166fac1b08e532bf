//go:build integration

package integration

import (
	"strings"
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// TestARestartWaitsForTheDisruptionBudget asks the API server for evictions that it does not allow.
func TestARestartWaitsForTheDisruptionBudget(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		forbid, allow func(*lab)
		reason        string
		says          []string
	}{
		"no disruption is allowed": {
			forbid: func(l *lab) { l.kubernetes.disruptionsForbidden = true },
			allow:  func(l *lab) { l.kubernetes.disruptionsForbidden = false },
			reason: v1beta1.ReasonDisruptionNotAllowed,
			says:   []string{"does not allow the eviction of Pod prod-", "The disruption budget prod needs 2 healthy pods"},
		},
		"two budgets select the pods": {
			forbid: func(l *lab) {
				one := intstr.FromInt32(1)
				must(l.T, admin.Create(l.Context(), &policyv1.PodDisruptionBudget{
					ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: "theirs"},
					Spec: policyv1.PodDisruptionBudgetSpec{
						MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{cluster.LabelCluster: name}},
					},
				}))
			},
			allow:  func(l *lab) { l.delete(&policyv1.PodDisruptionBudget{}, "theirs") },
			reason: v1beta1.ReasonSeveralBudgets,
			says:   []string{"prod", "theirs"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData(withManagedTLS)
			before := l.podUIDs()
			c.forbid(l)
			l.settle()
			l.rotate("now")
			for range 20 { // it never comes to rest: the operator asks again
				l.round()
			}
			refused := expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, c.reason)
			for _, says := range c.says {
				if !strings.Contains(refused.Message, says) {
					t.Errorf("the message does not say %q: %s", says, refused.Message)
				}
			}
			for pod, uid := range l.podUIDs() {
				if before[pod] != uid {
					t.Errorf("%s was restarted although no disruption is allowed", pod)
				}
			}
			c.allow(l)
			l.kubernetes.step(t)
			l.settle()
			if have := l.rolled(); have != 6 { // one restart to trust the new authorities, one to forget the old ones
				t.Errorf("%d restarts once it was allowed; conditions: %s", have, showAll(l.get()))
			}
			if op := l.get().Status.Operation; op != nil {
				t.Errorf("the claim %+v was left", op)
			}
			l.checkData(3)
		})
	}
}
