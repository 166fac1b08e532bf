//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/act"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/comparison"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
	"github.com/etcd-warden/etcd-warden/internal/observe"
)

const (
	// mostRounds is more than any test needs until nothing changes any more.
	mostRounds = 60
	// roundTime is how much later each pass is than the one before: later than the next look at a Secret that was missing.
	roundTime = 6 * time.Second
)

// lab is one namespace with its Kubernetes, its members and its operator.
type lab struct {
	*testing.T
	namespace  string
	kubernetes *kubernetes
	operator   *operator
	now        time.Time
	// overlap is the operator's --authority-overlap.
	overlap time.Duration
	// operatorImage is the operator's own image. With it, the operator looks at images of etcd before members run them.
	operatorImage string
	// limit is the operator's --max-disruptions, zero for an operator without a pace.
	limit int
	// clients are what users' clients hold.
	clients []clientCertificate
	// memory is what was seen on volumes, by UID; it must never change.
	memory map[types.UID]map[string]string
	// written are keys that a member acknowledged.
	written map[string]string
}

// noHooks let every write happen.
var noHooks = failpoint.Hooks{}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{T: t, namespace: newNamespace(t), now: time.Now(), memory: map[types.UID]map[string]string{}, written: map[string]string{}}
	l.kubernetes = newKubernetes(l.namespace, func() time.Time { return l.now })
	l.operator = l.newOperator(failpoint.Hooks{})
	return l
}

// operator is one process of the operator. It reads from the API server without a cache,
// and sees only what its cache would hold.
type operator struct {
	reconciler *controllers.EtcdClusterReconciler
	events     *recorder
	// writes are those that the API server took; conflicts are how many it refused because somebody else wrote before.
	writes    []failpoint.Write
	conflicts int
	// hashes is how often it asked a member for the hash of its data: only it knows the answer.
	hashes int
	// dead tells that the process crashed: nothing it asks for happens any more.
	dead bool
}

var errDead = errors.New("the process is dead")

// newOperator starts an operator with an empty memory.
func (l *lab) newOperator(hooks failpoint.Hooks) *operator {
	return l.newOperatorReading(hooks, nil)
}

// newOperatorReading starts an operator that sees the world through a reader of the test's; nil for the usual one.
func (l *lab) newOperatorReading(hooks failpoint.Hooks, reader client.Reader) *operator {
	o := &operator{events: &recorder{}}
	if reader == nil {
		reader = cached{operatorClient}
	}
	live := mortal{Reader: operatorClient, dead: &o.dead}
	around := failpoint.Hooks{
		Before: func(w failpoint.Write) error {
			if o.dead {
				return errDead
			}
			if hooks.Before != nil {
				return hooks.Before(w)
			}
			return nil
		},
		After: func(w failpoint.Write, err error) error {
			switch {
			case err == nil:
				o.writes = append(o.writes, w)
			case apierrors.IsConflict(err), isLate(err):
				o.conflicts++
			}
			if hooks.After != nil {
				return hooks.After(w, err)
			}
			return err
		},
	}
	writer := failpoint.Wrap(operatorClient, around)
	comparisons := &comparison.Store{Etcd: hasher{port{l.kubernetes}, o}, Now: func() time.Time { return l.now }, Start: func(work func()) { work() }}
	observer := &observe.Observer{
		Reader: mortal{Reader: reader, dead: &o.dead}, Live: live, Etcd: port{l.kubernetes}, Now: func() time.Time { return l.now }, SeesClusterScope: true,
		AuthorityOverlap: l.overlap, Comparisons: comparisons, OperatorImage: l.operatorImage,
	}
	o.reconciler = &controllers.EtcdClusterReconciler{
		Client: writer, Observer: observer, Events: o.events,
		Actor: &act.Actor{Client: writer, Live: live, Etcd: failpoint.WrapChanger(port{l.kubernetes}, around), Endpoints: observer, Prober: port{l.kubernetes}, Comparisons: comparisons, Lifetimes: lifetimes},
	}
	if l.limit > 0 {
		o.reconciler.Pace = l.newPace(live, writer)
	}
	return o
}

// hasher counts the questions of an operator.
type hasher struct {
	etcd.Hasher
	o *operator
}

func (h hasher) Hash(ctx context.Context, target etcd.Target, revision int64) (cluster.DataHash, error) {
	h.o.hashes++
	return h.Hasher.Hash(ctx, target, revision)
}

// mortal fails once its process is dead.
type mortal struct {
	client.Reader
	dead *bool
}

func (m mortal) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if *m.dead {
		return errDead
	}
	return m.Reader.Get(ctx, key, object, options...)
}

func (m mortal) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if *m.dead {
		return errDead
	}
	return m.Reader.List(ctx, list, options...)
}

// cached shows what the manager's caches hold: of everything but EtcdClusters, what is labelled as the operator's.
type cached struct{ client.Reader }

func (c cached) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if err := c.Reader.Get(ctx, key, object, options...); err != nil {
		return err
	}
	if _, all := object.(*v1beta1.EtcdCluster); all || object.GetLabels()[cluster.LabelManagedBy] == cluster.ManagedByValue {
		return nil
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

func (c cached) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	asked := (&client.ListOptions{}).ApplyOptions(options)
	if asked.FieldSelector != nil { // the API server has no index of ours
		name, _ := asked.FieldSelector.RequiresExactMatch(observe.IndexCluster)
		client.MatchingLabels{cluster.LabelCluster: name}.ApplyToList(asked)
		asked.FieldSelector = nil
	}
	if err := c.Reader.List(ctx, list, asked); err != nil {
		return err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	items = slices.DeleteFunc(items, func(item runtime.Object) bool {
		object, err := meta.Accessor(item)
		return err != nil || object.GetLabels()[cluster.LabelManagedBy] != cluster.ManagedByValue
	})
	return meta.SetList(list, items)
}

// recorder keeps events.
type recorder struct {
	mu     sync.Mutex
	events []string
}

// Eventf implements events.EventRecorder.
func (r *recorder) Eventf(_, _ runtime.Object, kind, reason, _, note string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, kind+" "+reason+": "+fmt.Sprintf(note, args...))
}

// mentions reports whether any event holds the text.
func (r *recorder) mentions(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.events, func(e string) bool { return strings.Contains(e, text) })
}

// has reports whether an event of the type and reason was sent.
func (r *recorder) has(kind, reason string) bool { return r.count(kind, reason) > 0 }

// count returns how many events of the type and reason were sent.
func (r *recorder) count(kind, reason string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if strings.HasPrefix(e, kind+" "+reason+": ") {
			n++
		}
	}
	return n
}

// pass runs one reconcile of an operator over every cluster of the namespace and reports whether it changed anything.
// A claim that is written again as it stands is no change.
func (l *lab) pass(o *operator) (changed bool) {
	l.Helper()
	var before, after v1beta1.EtcdClusterList
	must(l.T, admin.List(l.Context(), &before, client.InNamespace(l.namespace)))
	writes, conflicts, hashes := len(o.writes), o.conflicts, o.hashes
	for i := range before.Items {
		if _, err := o.reconciler.Reconcile(l.Context(), ctrl.Request{NamespacedName: before.Items[i].Key()}); err != nil && !o.dead && !isLate(err) {
			l.Fatalf("reconciling %s: %v", before.Items[i].Name, err)
		}
	}
	if len(o.writes) == writes {
		return o.conflicts > conflicts || o.hashes > hashes
	}
	must(l.T, admin.List(l.Context(), &after, client.InNamespace(l.namespace)))
	ofObjects := slices.ContainsFunc(o.writes[writes:], func(w failpoint.Write) bool { return w.Kind != "EtcdCluster" })
	return ofObjects || o.conflicts > conflicts || o.hashes > hashes || !slices.Equal(versionsOf(before), versionsOf(after))
}

// isLate reports whether a call to etcd failed because the operator was held up before it: the member has ended since,
// or the time for the call has passed.
func isLate(err error) bool {
	return errors.Is(err, fake.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded)
}

func versionsOf(list v1beta1.EtcdClusterList) []string {
	versions := make([]string, len(list.Items))
	for i := range list.Items {
		versions[i] = list.Items[i].ResourceVersion
	}
	return versions
}

// settle runs the operator and Kubernetes until nothing changes any more.
func (l *lab) settle() {
	l.Helper()
	for range mostRounds {
		if !l.round() {
			return
		}
	}
	l.Fatalf("still changing after %d rounds; the operator's last writes: %v", mostRounds, l.operator.writes[max(0, len(l.operator.writes)-8):])
}

// settleUntilAvailable settles, and fails where the cluster is not Available then.
func (l *lab) settleUntilAvailable() *v1beta1.EtcdCluster {
	l.Helper()
	l.settle()
	c := l.get()
	expectCondition(l.T, c, v1beta1.ConditionAvailable, metav1.ConditionTrue, "")
	return c
}

// checkMemory fails if the annotations of a volume changed that record the founding,
// or if two volumes of one cluster record different foundings.
func (l *lab) checkMemory() {
	l.Helper()
	var volumes corev1.PersistentVolumeClaimList
	must(l.T, l.kubernetes.list(l.Context(), &volumes))
	foundings := map[string]string{}
	for i := range volumes.Items {
		v := &volumes.Items[i]
		seen := l.memory[v.UID]
		if seen == nil {
			seen = map[string]string{}
			l.memory[v.UID] = seen
		}
		for _, key := range []string{
			cluster.AnnotationClusterToken, cluster.AnnotationFoundingMembers, cluster.AnnotationClusterID, cluster.AnnotationMemberID, cluster.AnnotationPeerURL,
		} {
			value := v.Annotations[key]
			if was, known := seen[key]; known && was != value {
				l.Fatalf("the annotation %s of volume %s changed from %q to %q", key, v.Name, was, value)
			}
			if value != "" {
				seen[key] = value
			}
		}
		user := v.Annotations[cluster.AnnotationClusterUID]
		if v.Annotations[cluster.AnnotationFoundingMembers] == "" {
			continue // that of a member that was added
		}
		founding := v.Annotations[cluster.AnnotationClusterToken] + " " + v.Annotations[cluster.AnnotationFoundingMembers]
		if other, known := foundings[user]; user != "" && known && other != founding {
			l.Fatalf("two founding lists in one cluster: %q and %q", other, founding)
		}
		foundings[user] = founding
	}
}

const name = "prod"

// newCluster builds a cluster named prod.
func (l *lab) newCluster(size int32, changes ...func(*v1beta1.EtcdCluster)) *v1beta1.EtcdCluster {
	c := &v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name},
		Spec:       v1beta1.EtcdClusterSpec{Replicas: size, TLS: clustertest.InClear()},
	}
	for _, change := range changes {
		change(c)
	}
	return c
}

func (l *lab) create(size int32, changes ...func(*v1beta1.EtcdCluster)) *v1beta1.EtcdCluster {
	l.Helper()
	c := l.newCluster(size, changes...)
	must(l.T, admin.Create(l.Context(), c))
	return c
}

func (l *lab) get() *v1beta1.EtcdCluster {
	l.Helper()
	c := &v1beta1.EtcdCluster{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: name}, c))
	return c
}

// change updates the spec.
func (l *lab) change(change func(*v1beta1.EtcdCluster)) {
	l.Helper()
	c := l.get()
	change(c)
	must(l.T, admin.Update(l.Context(), c))
}

// remove deletes the cluster and has its objects collected; the volumes stay.
func (l *lab) remove() {
	l.Helper()
	must(l.T, admin.Delete(l.Context(), l.newCluster(1)))
	must(l.T, l.kubernetes.collect(l.Context()))
	l.settle()
}

// later lets time pass, and the operator see to what is due.
func (l *lab) later(time time.Duration) {
	l.Helper()
	l.now = l.now.Add(time)
	l.settle()
}

// delete deletes an object of the namespace.
func (l *lab) delete(object client.Object, name string) {
	l.Helper()
	object.SetNamespace(l.namespace)
	object.SetName(name)
	must(l.T, admin.Delete(l.Context(), object))
}

// put writes a key through the first member that takes it and remembers that it was acknowledged.
func (l *lab) put(key, value string) {
	l.Helper()
	for _, address := range l.kubernetes.running() {
		if l.kubernetes.world.Put(address, key, value) == nil {
			l.written[key] = value
			return
		}
	}
	l.Fatalf("no member takes the key %s", key)
}

// checkData fails where a running member does not have every key that was acknowledged.
func (l *lab) checkData(members int) {
	l.Helper()
	running := l.kubernetes.running()
	if len(running) != members {
		l.Fatalf("running members = %v, want %d", running, members)
	}
	for pod, address := range running {
		for key, want := range l.written {
			if have, err := l.kubernetes.world.Get(address, key); err != nil || have != want {
				l.Errorf("key %s through %s = %q, %v; want %q", key, pod, have, err, want)
			}
		}
	}
}

// objectNames returns what exists in the namespace, as Kind/name.
func (l *lab) objectNames() []string {
	l.Helper()
	o, err := l.kubernetes.everything(l.Context())
	must(l.T, err)
	var names []string
	for _, object := range append(o.owned(), o.free()...) {
		gvks, _, err := scheme.ObjectKinds(object)
		must(l.T, err)
		names = append(names, gvks[0].Kind+"/"+object.GetName())
	}
	slices.Sort(names)
	return names
}

// free are the objects that have no EtcdCluster as their controller.
func (o *objects) free() []client.Object {
	var all []client.Object
	for i := range o.pods.Items {
		all = append(all, &o.pods.Items[i])
	}
	for i := range o.volumes.Items {
		all = append(all, &o.volumes.Items[i])
	}
	return all
}

// objectsOf are all the objects of a cluster named prod with members of the given numbers.
func objectsOf(numbers ...int) []string {
	names := []string{"Service/prod", "Service/prod-client"}
	if len(numbers) > 1 {
		names = append(names, "PodDisruptionBudget/prod")
	}
	for _, n := range numbers {
		member := cluster.MemberName(name, n)
		names = append(names, "StatefulSet/"+member, "Pod/"+cluster.PodName(member), "PersistentVolumeClaim/"+cluster.VolumeName(member))
	}
	slices.Sort(names)
	return names
}

func (l *lab) expectObjects(want []string) {
	l.Helper()
	if have := l.objectNames(); !slices.Equal(have, want) {
		l.Errorf("objects =\n  %s\nwant\n  %s", strings.Join(have, "\n  "), strings.Join(want, "\n  "))
	}
}

// expectCondition fails unless the condition has the status and, if given, the reason; it returns the condition.
func expectCondition(t *testing.T, c *v1beta1.EtcdCluster, kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
	t.Helper()
	condition := meta.FindStatusCondition(c.Status.Conditions, kind)
	if condition == nil || condition.Status != status || (reason != "" && condition.Reason != reason) {
		t.Fatalf("condition %s = %s, want %s %s; all: %s", kind, show(condition), status, reason, showAll(c))
	}
	return *condition
}

func show(c *metav1.Condition) string {
	if c == nil {
		return "none"
	}
	return fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
}

func showAll(c *v1beta1.EtcdCluster) string {
	lines := make([]string, len(c.Status.Conditions))
	for i := range c.Status.Conditions {
		lines[i] = show(&c.Status.Conditions[i])
	}
	return "\n  " + strings.Join(lines, "\n  ")
}

// volume and set read objects of the namespace.
func (l *lab) volume(member string) *corev1.PersistentVolumeClaim {
	l.Helper()
	v := &corev1.PersistentVolumeClaim{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: cluster.VolumeName(member)}, v))
	return v
}

func (l *lab) set(member string) *appsv1.StatefulSet {
	l.Helper()
	s := &appsv1.StatefulSet{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: member}, s))
	return s
}

func (l *lab) pod(member string) *corev1.Pod {
	l.Helper()
	p := &corev1.Pod{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: cluster.PodName(member)}, p))
	return p
}

func (l *lab) budget() *policyv1.PodDisruptionBudget {
	l.Helper()
	b := &policyv1.PodDisruptionBudget{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: name}, b))
	return b
}

// settleBoth runs the operator and another one in turn until nothing changes any more.
func (l *lab) settleBoth(other *operator) {
	l.Helper()
	for range mostRounds {
		stirred := l.pass(other)
		if !l.round() && !stirred {
			return
		}
	}
	l.Fatalf("two operators still change things after %d rounds; their last writes: %v, %v", mostRounds,
		l.operator.writes[max(0, len(l.operator.writes)-8):], other.writes[max(0, len(other.writes)-8):])
}

// round runs the operator and Kubernetes once and reports whether anything changed.
// A dead operator is replaced by a new one.
func (l *lab) round() bool {
	l.Helper()
	changed := l.pass(l.operator) || l.operator.dead
	if l.operator.dead {
		l.operator = l.newOperator(failpoint.Hooks{})
	}
	if l.kubernetes.step(l.T) {
		changed = true
	}
	l.checkMemory()
	l.checkTrust()
	l.now = l.now.Add(roundTime)
	return changed
}
