package act

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// paceWorld is an API server, and the pace of one process of the operator.
type paceWorld struct {
	*testing.T
	client.WithWatch
	*Pace
	now time.Time
	// gets are what was asked of the API server, by name. refuse fails a call.
	mu     sync.Mutex
	gets   map[string]int
	refuse func(verb, name string) error
}

func newPaceWorld(t *testing.T, limit int, objects ...client.Object) *paceWorld {
	t.Helper()
	w := &paceWorld{T: t, now: clustertest.Now, gets: map[string]int{}, refuse: func(string, string) error { return nil }}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		must(t, add(scheme))
	}
	w.WithWatch = clientfake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1beta1.EtcdCluster{}).
		WithIndex(&v1beta1.EtcdCluster{}, IndexDisrupted, Disrupted).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
				w.mu.Lock()
				w.gets[key.Name]++
				w.mu.Unlock()
				if err := w.refuse("get", key.Name); err != nil {
					return err
				}
				return c.Get(ctx, key, object, options...)
			},
			Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
				if err := w.refuse("create", object.GetName()); err != nil {
					return err
				}
				return c.Create(ctx, object, options...)
			},
			Update: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.UpdateOption) error {
				if err := w.refuse("update", object.GetName()); err != nil {
					return err
				}
				return c.Update(ctx, object, options...)
			},
		}).Build()
	w.restart(limit)
	return w
}

// restart starts another process of the operator.
func (w *paceWorld) restart(limit int) {
	w.Pace = &Pace{Clusters: w.WithWatch, Live: w.WithWatch, Max: limit, MaxReplacements: 1, RollBacks: &RollBacks{Live: w.WithWatch, Client: w.WithWatch, Namespace: "warden"}}
}

func (w *paceWorld) of(name string) *cluster.Snapshot {
	s := clustertest.MakeCluster(name).Snapshot()
	s.Now = w.now
	return &s
}

func (w *paceWorld) ask(name string) cluster.Hold {
	w.Helper()
	h, err := w.Ask(w.Context(), w.of(name), nil)
	must(w.T, err)
	return *h
}

// asksToReplace asks for a place to replace a lost member.
func (w *paceWorld) asksToReplace(name string) cluster.Hold {
	w.Helper()
	h, err := w.Ask(w.Context(), w.of(name), plan.RemoveMember{Name: name + "-1", For: v1beta1.OperationReplaceMember, Lost: &plan.Lost{}})
	must(w.T, err)
	return *h
}

// What looks like the loss of many members may be a fault of Kubernetes.
func TestReplacesFewLostMembersAtOnce(t *testing.T) {
	w := newPaceWorld(t, 3)
	for _, step := range []struct {
		name string
		want cluster.Hold
	}{{"a", cluster.Hold{}}, {"a", cluster.Hold{}}, {"b", cluster.Hold{Replacements: 1}}} {
		if h := w.asksToReplace(step.name); h != step.want {
			t.Errorf("%s: %+v, want %+v", step.name, h, step.want)
		}
	}
	if h := w.ask("c"); h != (cluster.Hold{}) {
		t.Errorf("another step is held: %+v", h)
	}
	w.Release(w.of("a").Cluster.Key())
	if h := w.asksToReplace("b"); h != (cluster.Hold{}) {
		t.Errorf("the place was not given back: %+v", h)
	}
	replacing := clustertest.MakeCluster("d").Snapshot().Cluster
	replacing.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationReplaceMember, Member: "d-1"}
	w = newPaceWorld(t, 3, replacing)
	if h := w.asksToReplace("b"); h != (cluster.Hold{Replacements: 1}) {
		t.Errorf("beside one in the caches: %+v", h)
	}
}

// goesBack is the pass that hands the restart of a member over to a roll back.
func (w *paceWorld) goesBack(members ...string) {
	w.Helper()
	for _, m := range members {
		must(w.T, w.NoteRollBack(w.Context(), w.of("prod"), handOver(m)))
	}
}

func handOver(member string) *plan.Decision {
	return &plan.Decision{HandOver: true, Action: plan.RestartMember{Name: member, For: v1beta1.OperationRollBack}}
}

func (w *paceWorld) remembered() string {
	w.Helper()
	object := &corev1.ConfigMap{}
	must(w.T, client.IgnoreNotFound(w.Get(w.Context(), client.ObjectKey{Namespace: "warden", Name: RollBacksName}, object)))
	return strings.ReplaceAll(object.Data[rolledBackKey], "\n", " ")
}

func namespace(annotations map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: clustertest.Namespace, Annotations: annotations}}
}

func busy(name string, t v1beta1.OperationType) *v1beta1.EtcdCluster {
	c := clustertest.MakeCluster(name).Claim(t).Snapshot().Cluster
	c.Namespace = "other"
	return c
}

func forbidden(name string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "things"}, name, errors.New("no right"))
}

func TestTheNamespaceIsAskedOnceAClaimAndRarelyWhileItIsFrozen(t *testing.T) {
	for value, frozen := range map[string]bool{"true": true, "false": false, "": false} {
		w := newPaceWorld(t, 10, namespace(map[string]string{v1beta1.FreezeAnnotation: value}))
		for range 3 {
			if h := w.ask("prod"); h.ByNamespace != frozen {
				t.Errorf("%q: %+v", value, h)
			}
		}
		if asked := w.gets[clustertest.Namespace]; frozen && asked != 1 || !frozen && asked != 3 {
			t.Errorf("%q: asked %d times", value, asked)
		}
		must(t, w.Update(t.Context(), namespace(nil)))
		w.now = w.now.Add(holdTime)
		if h := w.ask("prod"); h.ByNamespace {
			t.Errorf("%q was removed: %+v", value, h)
		}
	}
}

func TestNothingIsAskedOfAFrozenOperator(t *testing.T) {
	w := newPaceWorld(t, 10, namespace(nil))
	w.Frozen = true
	if h := w.ask("prod"); h != (cluster.Hold{ByOperator: true}) || len(w.gets) > 0 {
		t.Errorf("%+v, asked %v", h, w.gets)
	}
}

func TestNothingIsAskedForAClusterThatWaitsForOthers(t *testing.T) {
	w := newPaceWorld(t, 1, namespace(nil), busy("a", v1beta1.OperationRollMember))
	if h := w.ask("prod"); h != (cluster.Hold{Limit: 1}) || len(w.gets) > 0 {
		t.Errorf("%+v, asked %v", h, w.gets)
	}
}

func TestWhatMayNotBeReadHolds(t *testing.T) {
	for _, name := range []string{clustertest.Namespace, RollBacksName} {
		w := newPaceWorld(t, 10, namespace(nil))
		w.refuse = func(_, object string) error {
			if object == name {
				return forbidden(name)
			}
			return nil
		}
		if h := w.ask("prod"); !strings.Contains(h.Unreadable, `"`+name+`" is forbidden`) {
			t.Errorf("%s: %+v", name, h)
		}
		w.refuse = func(_, object string) error {
			if object == name {
				return errLost
			}
			return nil
		}
		if h := w.ask("prod"); !strings.Contains(h.Unreadable, errLost.Error()) { // it holds the step, and not the pass
			t.Errorf("%s: %+v", name, h)
		}
		w.refuse = func(string, string) error { return nil }
		if h := w.ask("prod"); h != (cluster.Hold{}) {
			t.Errorf("%s can be read again: %+v", name, h)
		}
	}
}

func TestOnlyVoluntaryOperationsTakeAPlace(t *testing.T) {
	paused, deleted, own := busy("paused", v1beta1.OperationRollMember), busy("deleted", v1beta1.OperationRollMember), busy("prod", v1beta1.OperationRollMember)
	paused.Spec.Paused, own.Namespace = true, clustertest.Namespace
	deleted.DeletionTimestamp, deleted.Finalizers = &metav1.Time{Time: clustertest.Now}, []string{"example.com/waits"}
	for name, c := range map[string]struct {
		other *v1beta1.EtcdCluster
		takes bool
	}{
		"a roll":                     {busy("a", v1beta1.OperationRollMember), true},
		"a roll back":                {busy("a", v1beta1.OperationRollBack), true},
		"a new member":               {busy("a", v1beta1.OperationAddMember), true},
		"a removal":                  {busy("a", v1beta1.OperationRemoveMember), true},
		"a founding":                 {busy("a", v1beta1.OperationBootstrap), false},
		"volumes that are used":      {busy("a", v1beta1.OperationTakeBack), false},
		"StatefulSets made again":    {busy("a", v1beta1.OperationResume), false},
		"a roll of a paused cluster": {paused, false},
		"a cluster that is deleted":  {deleted, false},
		"the cluster's own roll":     {own, false},
	} {
		w := newPaceWorld(t, 1, namespace(nil), c.other)
		if h := w.ask("prod"); (h.Limit == 1) != c.takes {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// Sixteen passes at once, none of whose claims the caches show yet.
func TestPassesAtOnceTakeNoMorePlacesThanThereAre(t *testing.T) {
	w := newPaceWorld(t, 3, namespace(nil), busy("a", v1beta1.OperationRollMember))
	var mu sync.Mutex
	var passes sync.WaitGroup
	var began []string
	for n := range 16 {
		s := w.of(fmt.Sprintf("c-%d", n))
		passes.Go(func() {
			h, err := w.Ask(t.Context(), s, nil)
			if mu.Lock(); err == nil && h.Limit == 0 {
				began = append(began, s.Cluster.Name)
			}
			mu.Unlock()
		})
	}
	passes.Wait()
	if len(began) != 2 {
		t.Fatalf("began: %v", began)
	}
	if h := w.ask(began[0]); h.Limit != 0 {
		t.Errorf("a cluster with a place asks again: %+v", h)
	}
	if h := w.ask("prod"); h.Limit != 3 {
		t.Errorf("all places are taken: %+v", h)
	}
	w.Release(w.of(began[0]).Cluster.Key())
	if h := w.ask("prod"); h.Limit != 0 {
		t.Errorf("a place was given back: %+v", h)
	}
	w.now = w.now.Add(placeTime)
	if a, b, c := w.ask("x"), w.ask("y"), w.ask("z"); a.Limit != 0 || b.Limit != 0 || c.Limit != 3 {
		t.Errorf("the caches show by now who has a place: %+v, %+v, %+v", a, b, c)
	}
}

func TestAHeldClusterTakesNoPlace(t *testing.T) {
	w := newPaceWorld(t, 1, namespace(map[string]string{v1beta1.FreezeAnnotation: "true"}))
	w.ask("frozen")
	elsewhere := w.of("prod")
	elsewhere.Cluster.Namespace = "other"
	if h, err := w.Ask(t.Context(), elsewhere, nil); err != nil || h.Limit != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	w = newPaceWorld(t, 1, namespace(nil))
	if h := w.Look(t.Context(), w.of("prod")); *h != (cluster.Hold{}) {
		t.Errorf("a look: %+v", h)
	}
	if h := w.ask("other"); h.Limit != 0 {
		t.Errorf("a look takes no place: %+v", h)
	}
}

func TestRollsStopAfterFiveMembersInARowUntilAnAdministratorDeletesTheConfigMap(t *testing.T) {
	w := newPaceWorld(t, 10, namespace(nil))
	w.goesBack("prod-1", "prod-1", "db-0", "db-1", "db-2") // one of them twice
	for _, begun := range []func(){func() {}, func() { w.restart(10) }} {
		begun()
		if h := w.ask("prod"); h.StoppedRolls != "" {
			t.Fatalf("after four members: %+v", h)
		}
	}
	if n := w.gets[RollBacksName]; n != 6 { // each time a member goes back, and once in the process that has not read it
		t.Errorf("the ConfigMap was read %d times", n)
	}
	w.goesBack("db-3")
	const want = "ConfigMap etcd-warden-roll-backs in namespace warden names them. Find out why they failed, then run " +
		"kubectl delete configmap -n warden etcd-warden-roll-backs."
	for _, begun := range []func(){func() {}, func() { w.restart(10) }, func() { w.rolled() }} {
		begun()
		if h := w.ask("prod"); h.StoppedRolls != want {
			t.Fatalf("got %q", h.StoppedRolls)
		}
	}
	if got := w.remembered(); got != "shop/prod-1 shop/db-0 shop/db-1 shop/db-2 shop/db-3" {
		t.Errorf("the ConfigMap names %s", got)
	}
	must(t, w.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "warden", Name: RollBacksName}}))
	w.now = w.now.Add(holdTime)
	if h := w.ask("prod"); h != (cluster.Hold{}) {
		t.Errorf("after the administrator said go on: %+v", h)
	}
	w.goesBack("db-3")
	if got := w.remembered(); got != "shop/db-3" {
		t.Errorf("it counts on from %s", got)
	}
}

// rolled is the pass that notes that a restarted member is healthy with what it was restarted for.
func (w *paceWorld) rolled(change ...func(before, now map[string]string)) {
	text := func(label string) string {
		text, _ := cluster.Intent{Version: "3.6.16", Labels: map[string]string{"team": label}}.Encode()
		return text
	}
	before := map[string]string{
		cluster.AnnotationOperation:     cluster.OperationMark(v1beta1.OperationRollMember, w.now),
		cluster.AnnotationIntent:        text("new"),
		cluster.AnnotationHealthyIntent: text("old"),
	}
	now := maps.Clone(before)
	now[cluster.AnnotationHealthyIntent] = text("new")
	for _, c := range change {
		c(before, now)
	}
	set := func(annotations map[string]string) *appsv1.StatefulSet {
		return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "prod-2", Annotations: annotations}}
	}
	w.NoteHealthyRestart(w.Context(), &plan.Decision{Upkeep: []plan.Upkeep{plan.UpdateStatefulSet{Desired: set(now), Live: set(before)}}})
}

func TestAMemberThatRollsWellEndsTheRow(t *testing.T) {
	four := []string{"db-0", "db-1", "db-2", "db-3"}
	for name, c := range map[string]struct {
		end  func(*paceWorld)
		ends bool
	}{
		"a roll": {func(w *paceWorld) { w.rolled() }, true},
		"a roll, after a restart of the operator": {func(w *paceWorld) { w.restart(10); w.rolled() }, true},
		"a member that is not ready for long enough": {func(w *paceWorld) {
			w.rolled(func(before, now map[string]string) { maps.Copy(now, before) })
		}, false},
		"a rotation of authorities": {func(w *paceWorld) {
			w.rolled(func(before, now map[string]string) {
				intent, _ := cluster.DecodeIntent(before[cluster.AnnotationHealthyIntent])
				intent.PeerAuthorities = []string{"another"}
				text, _ := intent.Encode()
				now[cluster.AnnotationIntent], now[cluster.AnnotationHealthyIntent] = text, text
			})
		}, false},
		"a roll back": {func(w *paceWorld) {
			w.rolled(func(before, _ map[string]string) {
				before[cluster.AnnotationOperation] = cluster.OperationMark(v1beta1.OperationRollBack, w.now)
			})
		}, false},
		"a pass in which nothing ends": {func(w *paceWorld) { w.NoteHealthyRestart(w.Context(), &plan.Decision{}) }, false},
	} {
		w := newPaceWorld(t, 10, namespace(nil))
		w.goesBack(four...)
		c.end(w)
		if got := w.remembered(); (got == "") != c.ends {
			t.Errorf("%s: %q", name, got)
		}
		w.goesBack("db-4")
		if h := w.ask("prod"); (h.StoppedRolls == "") != c.ends {
			t.Errorf("%s: then %+v", name, h)
		}
		reads := w.gets[RollBacksName]
		w.rolled()
		w.rolled()
		if more := w.gets[RollBacksName] - reads; more > 1 {
			t.Errorf("%s: read %d times for rolls that went well", name, more)
		}
	}
}

// The process ends, or a write fails, right before or after the ConfigMap is written.
func TestNoRollBackIsForgottenByACrashOrAFailedWrite(t *testing.T) {
	w := newPaceWorld(t, 10, namespace(nil))
	w.goesBack("db-0", "db-1", "db-2", "db-3", "db-4")
	// The process ends before the last claim, and the next one does it again.
	w.restart(10)
	w.goesBack("db-4")
	if got := w.remembered(); got != "shop/db-0 shop/db-1 shop/db-2 shop/db-3 shop/db-4" {
		t.Errorf("got %s", got)
	}
	w = newPaceWorld(t, 10, namespace(nil))
	w.goesBack("db-0", "db-1", "db-2", "db-3")
	w.refuse = func(verb, _ string) error {
		if verb == "update" {
			return apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, RollBacksName, errors.New("written since"))
		}
		return nil
	}
	if err := w.NoteRollBack(t.Context(), w.of("prod"), handOver("db-4")); !apierrors.IsConflict(err) {
		t.Errorf("a conflict is tried again in the next pass: %v", err)
	}
	w.refuse = func(verb, _ string) error {
		if verb != "get" {
			return forbidden(RollBacksName)
		}
		return nil
	}
	w.goesBack("db-4") // no failure keeps a member from going back
	if h := w.ask("prod"); h.StoppedRolls == "" {
		t.Error("what could not be written is not counted")
	}
	w.refuse = func(string, string) error { return nil }
	w.goesBack("db-5")
	if got := w.remembered(); !slices.Equal(strings.Fields(got), []string{"shop/db-0", "shop/db-1", "shop/db-2", "shop/db-3", "shop/db-4", "shop/db-5"}) {
		t.Errorf("written with the next one: %s", got)
	}
}

func TestAnOperatorWithoutANamespaceCountsInMemory(t *testing.T) {
	w := newPaceWorld(t, 10, namespace(nil))
	w.RollBacks.Namespace = ""
	w.goesBack("db-0", "db-1", "db-2", "db-3")
	w.rolled()
	w.goesBack("db-0", "db-1", "db-2", "db-3")
	if h := w.ask("prod"); h.StoppedRolls != "" {
		t.Errorf("after four: %+v", h)
	}
	w.goesBack("db-4")
	w.rolled()
	if h := w.ask("prod"); h.StoppedRolls != "Find out why they failed, then restart the operator." {
		t.Errorf("after five: %+v", h)
	}
	if n := w.gets[RollBacksName]; n > 0 {
		t.Errorf("the ConfigMap was read %d times", n)
	}
}

func TestWithoutAPaceNothingIsHeld(t *testing.T) {
	var p *Pace
	s := clustertest.MakeCluster("prod").Claim(v1beta1.OperationRollMember).Snapshot()
	h, err := p.Ask(t.Context(), &s, nil)
	p.Release(s.Cluster.Key())
	p.NoteHealthyRestart(t.Context(), &plan.Decision{Finished: true})
	if err := errors.Join(err, p.NoteRollBack(t.Context(), &s, handOver("prod-1"))); err != nil || *h != (cluster.Hold{}) {
		t.Errorf("%+v, %v", h, err)
	}
}
