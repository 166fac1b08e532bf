//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/act"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
)

// paced starts the operator again with a pace. Its own namespace is the lab's, and only the lab's clusters count.
func (l *lab) paced(limit int) {
	l.Helper()
	l.limit = limit
	l.operator = l.newOperator(failpoint.Hooks{})
}

func (l *lab) newPace(live client.Reader, writer client.Client) *act.Pace {
	return &act.Pace{
		Clusters: disrupted{operatorClient, l.namespace}, Live: live, Max: l.limit,
		RollBacks: &act.RollBacks{Live: live, Client: writer, Namespace: l.namespace},
	}
}

// disrupted shows what the index of the caches shows, of one namespace.
type disrupted struct {
	client.Reader
	namespace string
}

func (d disrupted) List(ctx context.Context, list client.ObjectList, _ ...client.ListOption) error {
	clusters, ok := list.(*v1beta1.EtcdClusterList)
	if !ok {
		return errors.New("only EtcdClusters are counted")
	}
	err := d.Reader.List(ctx, clusters, client.InNamespace(d.namespace))
	clusters.Items = slices.DeleteFunc(clusters.Items, func(c v1beta1.EtcdCluster) bool { return len(act.Disrupted(&c)) == 0 })
	return err
}

// ownNamespace gives the operator in the lab's namespace the rights that it has in its own.
func (l *lab) ownNamespace() {
	l.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "config", "rbac", "leader_election_role.yaml"))
	must(l.T, err)
	role := &rbacv1.Role{}
	must(l.T, yaml.UnmarshalStrict(raw, role))
	role.Namespace = l.namespace
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "etcd-warden"}},
	}
	for _, object := range []client.Object{role, binding} {
		must(l.T, admin.Create(l.Context(), object))
	}
}

// freeze annotates the namespace; an empty value removes the annotation.
func (l *lab) freeze(value string) {
	l.Helper()
	namespace := &corev1.Namespace{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Name: l.namespace}, namespace))
	if metav1.SetMetaDataAnnotation(&namespace.ObjectMeta, v1beta1.FreezeAnnotation, value); value == "" {
		delete(namespace.Annotations, v1beta1.FreezeAnnotation)
	}
	must(l.T, admin.Update(l.Context(), namespace))
}

func withSnapshotCount(n int) func(*v1beta1.EtcdCluster) {
	return withOption("snapshot-count", fmt.Sprint(n))
}

func TestNothingVoluntaryBeginsWhileFrozen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		freeze, lift func(*lab)
	}{
		"the namespace": {
			func(l *lab) { l.freeze(v1beta1.FreezeValue) },
			func(l *lab) { l.freeze("") },
		},
		"the operator": {
			func(l *lab) { l.operator.reconciler.Pace.Frozen = true },
			func(l *lab) { l.operator.reconciler.Pace.Frozen = false },
		},
	} {
		for what, change := range map[string]func(*v1beta1.EtcdCluster){
			"a roll": withSnapshotCount(1000),
			"growth": func(c *v1beta1.EtcdCluster) { c.Spec.Replicas = 5 },
			"less":   func(c *v1beta1.EtcdCluster) { c.Spec.Replicas = 1 },
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.ownNamespace()
				l.paced(10)
				l.createWithData()
				before := l.versions()
				c.freeze(l)
				l.change(change)
				l.later(time.Minute)
				l.expectVersions(before)
				l.later(time.Hour)
				l.expectVersions(before)
				expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonFrozen)
				expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionFalse, "")
				c.lift(l)
				l.later(time.Minute)
				expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)
				l.checkData(int(l.get().Spec.Replicas))
			})
		}
	}
}

func TestWhatIsDownIsRepairedWhileFrozen(t *testing.T) {
	t.Parallel()
	// begin restarts the first member with an image that no kubelet can pull, and freezes.
	begin := func(t *testing.T) (*lab, map[string]string) {
		l := newLab(t)
		l.ownNamespace()
		l.paced(10)
		l.createWithData()
		before := l.podUIDs()
		l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = unpullable })
		l.settle()
		if op := l.get().Status.Operation; op == nil || op.Type != v1beta1.OperationRollMember {
			t.Fatalf("the operation is %+v", op)
		}
		l.freeze(v1beta1.FreezeValue)
		return l, before
	}
	restartedPods := func(l *lab, before map[string]string) (names []string) {
		for pod, uid := range l.podUIDs() {
			if before[pod] != uid {
				names = append(names, pod)
			}
		}
		return names
	}
	t.Run("a roll back goes on", func(t *testing.T) {
		t.Parallel()
		l, before := begin(t)
		l.later(2 * time.Minute)
		l.later(time.Minute)
		if !l.operator.events.has(corev1.EventTypeWarning, v1beta1.EventMemberRolledBack) || l.get().Status.Operation != nil {
			t.Errorf("events = %q", l.operator.events.events)
		}
		if names := restartedPods(l, before); len(names) != 1 {
			t.Errorf("restarted: %v", names)
		}
		l.checkData(3)
	})
	t.Run("a spec that cures is taken up by the failed member alone", func(t *testing.T) {
		t.Parallel()
		l, before := begin(t)
		l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = "example.com/etcd" })
		l.later(time.Second)
		l.later(time.Minute)
		if names := restartedPods(l, before); len(names) != 1 {
			t.Errorf("restarted: %v", names)
		}
		expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonFrozen)
		l.checkData(3)
	})
}

// createMany creates clusters of one member, and waits until they serve.
func (l *lab) createMany(n int) (names []string) {
	l.Helper()
	for i := range n {
		names = append(names, fmt.Sprintf("c-%02d", i))
		l.create(1, func(c *v1beta1.EtcdCluster) { c.Name = names[i] })
	}
	l.settle()
	for _, name := range names {
		expectCondition(l.T, l.named(name), v1beta1.ConditionAvailable, metav1.ConditionTrue, "")
	}
	return names
}

func (l *lab) named(name string) *v1beta1.EtcdCluster {
	l.Helper()
	c := &v1beta1.EtcdCluster{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: name}, c))
	return c
}

func (l *lab) changeNamed(name string, change func(*v1beta1.EtcdCluster)) {
	l.Helper()
	c := l.named(name)
	change(c)
	must(l.T, admin.Update(l.Context(), c))
}

func reasonOf(c *v1beta1.EtcdCluster) string {
	if p := meta.FindStatusCondition(c.Status.Conditions, v1beta1.ConditionProgressing); p != nil {
		return p.Reason
	}
	return ""
}

// Twelve clusters are edited at once, and sixteen workers reconcile them at once.
func TestNoMoreClustersAreDisruptedAtOnceThanThePaceAllows(t *testing.T) {
	t.Parallel()
	const limit, clusters = 3, 12
	l := newLab(t)
	l.ownNamespace()
	names := l.createMany(clusters)
	most, mu := 0, sync.Mutex{}
	counted := failpoint.Wrap(operatorClient, failpoint.Hooks{After: func(w failpoint.Write, err error) error {
		if w.Kind != v1beta1.EtcdClusterKind || err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		var list v1beta1.EtcdClusterList
		err = disrupted{admin, l.namespace}.List(t.Context(), &list)
		most = max(most, len(list.Items))
		return err
	}})
	r := l.operator.reconciler
	r = &controllers.EtcdClusterReconciler{Client: counted, Observer: r.Observer, Events: r.Events, Actor: &act.Actor{
		Client: counted, Live: operatorClient, Etcd: port{l.kubernetes}, Endpoints: r.Observer, Prober: port{l.kubernetes}, Lifetimes: lifetimes,
	}}
	l.limit = limit
	l.operator.reconciler, r.Pace = r, l.newPace(operatorClient, counted)
	for _, name := range names {
		l.changeNamed(name, withSnapshotCount(1000))
	}
	waited := false
	done := func() bool {
		all := true
		for _, name := range names {
			c := l.named(name)
			waited = waited || reasonOf(c) == v1beta1.ReasonWaitingForOtherClusters
			all = all && c.Status.Operation == nil && reasonOf(c) == v1beta1.ReasonUpToDate && c.Status.ObservedGeneration == c.Generation
		}
		return all
	}
	for round := 0; !done(); round++ {
		if round > 20*clusters {
			t.Fatalf("not all clusters have rolled: %s", showAll(l.named(names[0])))
		}
		var passes sync.WaitGroup
		for _, name := range names {
			passes.Go(func() {
				if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: l.namespace, Name: name}}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		passes.Wait()
		l.kubernetes.step(t)
		l.now = l.now.Add(roundTime)
	}
	if most != limit || !waited {
		t.Errorf("at most %d clusters had a step under way, want %d; one was told to wait: %t", most, limit, waited)
	}
}

// The caches and their index tell who has a step under way.
func TestAManagerWithCachesHoldsThePace(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.ownNamespace()
	names := l.createMany(2)
	l.limit = 1
	l.startManager(operatorConfig)
	for _, name := range names {
		l.changeNamed(name, withSnapshotCount(1000))
	}
	waited := false
	l.waitWhileKubernetesRuns("both clusters have rolled", func() bool {
		a, b := l.named(names[0]), l.named(names[1])
		if a.Status.Operation != nil && b.Status.Operation != nil {
			t.Errorf("both have a step under way: %+v and %+v", a.Status.Operation, b.Status.Operation)
		}
		for _, c := range []*v1beta1.EtcdCluster{a, b} {
			waited = waited || reasonOf(c) == v1beta1.ReasonWaitingForOtherClusters
		}
		return a.Status.ObservedGeneration == a.Generation && b.Status.ObservedGeneration == b.Generation &&
			reasonOf(a) == v1beta1.ReasonUpToDate && reasonOf(b) == v1beta1.ReasonUpToDate
	})
	if !waited {
		t.Error("no cluster was told to wait")
	}
}

func TestFiveRollBacksInARowStopTheSixthRollUntilAnAdministratorSaysGoOn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.ownNamespace()
	l.paced(10)
	names := l.createMany(6)
	for _, name := range names[:5] {
		l.changeNamed(name, func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = unpullable })
	}
	l.settle()
	l.later(2 * time.Minute)
	l.later(2 * time.Minute)
	for _, name := range names[:5] {
		if c := l.named(name); reasonOf(c) != v1beta1.ReasonRolledBack || c.Status.Operation != nil {
			t.Fatalf("%s: %s", name, showAll(c))
		}
	}
	last := names[5]
	l.changeNamed(last, withSnapshotCount(1000))
	expectStopped := func(when string) {
		t.Helper()
		l.later(time.Minute)
		if c := l.named(last); reasonOf(c) != v1beta1.ReasonRollsStopped || c.Status.Operation != nil {
			t.Fatalf("%s: %s", when, showAll(c))
		}
	}
	expectStopped("after five roll backs")
	command := fmt.Sprintf("kubectl delete configmap -n %s %s.", l.namespace, act.RollBacksName)
	if c := expectCondition(t, l.named(last), v1beta1.ConditionProgressing, metav1.ConditionFalse, ""); !strings.Contains(c.Message, command) {
		t.Errorf("the way on is not told: %s", c.Message)
	}
	l.operator = l.newOperator(failpoint.Hooks{})
	expectStopped("after a restart of the operator")
	l.delete(&corev1.ConfigMap{}, act.RollBacksName)
	l.later(time.Minute)
	if c := l.named(last); reasonOf(c) != v1beta1.ReasonUpToDate || !l.operator.events.has(corev1.EventTypeNormal, v1beta1.EventMemberRolled) {
		t.Errorf("after the administrator said go on: %s", showAll(c))
	}
}

// The operator dies before or after any write of a roll back.
func TestARollBackIsCountedOnceWhereverTheOperatorCrashes(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, at *crash) []failpoint.Write {
		l := newLab(t)
		l.ownNamespace()
		l.paced(10)
		l.createWithData()
		l.lead("prod-0")
		l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = unpullable })
		l.settle()
		l.operator = l.newOperator(at.hooks(l))
		armed := l.operator
		l.later(2 * time.Minute)
		l.later(time.Minute)
		if at != nil && !armed.dead {
			t.Fatalf("the operator did not come to the failpoint; its writes: %v", armed.writes)
		}
		object := &corev1.ConfigMap{}
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: act.RollBacksName}, object))
		if got := object.Data["members"]; got != l.namespace+"/prod-1" {
			t.Errorf("went back: %q", got)
		}
		if c := l.get(); reasonOf(c) != v1beta1.ReasonRolledBack || c.Status.Operation != nil {
			t.Errorf("at the end: %s", showAll(c))
		}
		l.checkData(3)
		return slices.Clone(armed.writes)
	}
	writes := run(t, nil)
	if !strings.Contains(list(writes), "create:ConfigMap:"+act.RollBacksName+", update-status:EtcdCluster:prod") {
		t.Errorf("the member is not noted right before the claim: %s", list(writes))
	}
	for _, w := range writes {
		for _, before := range []bool{true, false} {
			at := &crash{write: w, before: before}
			t.Run(fmt.Sprint(at), func(t *testing.T) {
				t.Parallel()
				run(t, at)
			})
		}
	}
}

func TestEachValueOfThePlanAnnotationIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	for name, paused := range map[string]bool{"paused": true, "not paused": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData()
			l.lead("prod-0")
			ask := func(value string) {
				l.change(func(c *v1beta1.EtcdCluster) {
					metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1beta1.PlanAnnotation, value)
					c.Spec.Paused = paused
					withSnapshotCount(1000)(c)
				})
				l.settle()
			}
			ask("a")
			const steps = "1. Restart prod-1. 2. Restart prod-2. 3. Move the leader from prod-0 to prod-1. 4. Restart prod-0. Then the cluster is as its spec says."
			if !l.operator.events.mentions(steps) {
				t.Errorf("events = %q", l.operator.events.events)
			}
			l.operator = l.newOperator(failpoint.Hooks{})
			l.later(time.Hour)
			if n := l.operator.events.count(corev1.EventTypeNormal, v1beta1.EventPlanned); n != 0 {
				t.Errorf("answered again after a restart of the operator: %q", l.operator.events.events)
			}
			ask("b")
			l.settle()
			if n := l.operator.events.count(corev1.EventTypeNormal, v1beta1.EventPlanned); n != 1 || l.get().Status.AnsweredPlan != "b" {
				t.Errorf("%d answers to another value, and %q is remembered", n, l.get().Status.AnsweredPlan)
			}
			ask(strings.Repeat("x", v1beta1.MaxPlanValue+1))
			if l.get().Status.AnsweredPlan != "b" {
				t.Error("a value that is too long was answered")
			}
		})
	}
}
