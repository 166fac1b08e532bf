//go:build integration

// Package podset tests the example operator of PodSets against a real API server, without the rest of Kubernetes: the
// tests themselves make pods ready, and its cache lags behind.
package podset

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/examples/podset/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/examples/podset/controller"
	"github.com/etcd-warden/etcd-warden/test/controlplane"
)

const (
	root = "../../.."
	// patience is far more than anything here takes.
	patience = 2 * time.Minute
	interval = 20 * time.Millisecond
	// mostDelay is how long the cache of the controller lags behind at most.
	mostDelay = 300 * time.Millisecond
)

var (
	scheme = runtime.NewScheme()
	// admin may do everything; operatorConfig is that of a user who has the role of the example and nothing else.
	admin          client.WithWatch
	operatorConfig *rest.Config
	namespaces     atomic.Int64
)

func TestMain(m *testing.M) { os.Exit(controlplane.Main(m, root, connect)) }

func connect(environment *envtest.Environment, config *rest.Config) error {
	folder := filepath.Join(root, "examples", "podset", "config")
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	options := envtest.CRDInstallOptions{Paths: []string{filepath.Join(folder, "examples.etcd-warden.io_podsets.yaml")}}
	if _, err := envtest.InstallCRDs(config, options); err != nil {
		return err
	}
	var err error
	if admin, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	user, err := environment.AddUser(envtest.User{Name: "podset"}, &rest.Config{QPS: -1})
	if err != nil {
		return err
	}
	operatorConfig = user.Config()
	raw, err := os.ReadFile(filepath.Join(folder, "role.yaml"))
	if err != nil {
		return err
	}
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(raw, role); err != nil {
		return err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "podset"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "podset"}},
	}
	return errors.Join(admin.Create(context.Background(), role), admin.Create(context.Background(), binding))
}

// lab is a namespace with its controller, and what happened to the pods in it.
type lab struct {
	*testing.T
	namespace string
	// sets keeps changes of PodSets from the cache while a test holds it.
	sets sync.Mutex

	mu sync.Mutex
	// alive are the pods that exist and are not going away; ready those of them that are ready.
	alive, ready map[string]bool
	// made and gone count pods; most is how many were alive at once at most, leastReady how many were ready at least
	// since it was reset.
	made, gone, most, leastReady int
}

func newLab(t *testing.T) *lab {
	l := &lab{T: t, namespace: fmt.Sprintf("podset-%d", namespaces.Add(1)), alive: map[string]bool{}, ready: map[string]bool{}}
	must(t, admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.namespace}}))
	watched, err := admin.Watch(t.Context(), &corev1.PodList{}, client.InNamespace(l.namespace))
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range watched.ResultChan() {
			l.note(event)
		}
	}()
	t.Cleanup(func() { watched.Stop(); <-ended })
	l.startController()
	return l
}

// note counts what happens to a pod.
func (l *lab) note(event watch.Event) {
	pod, ok := event.Object.(*corev1.Pod)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if event.Type == watch.Added {
		l.made++
	}
	isAlive := event.Type != watch.Deleted && pod.DeletionTimestamp == nil
	if l.alive[pod.Name] && !isAlive {
		l.gone++
	}
	for names, is := range map[*map[string]bool]bool{&l.alive: isAlive, &l.ready: isAlive && isReady(pod)} {
		if delete(*names, pod.Name); is {
			(*names)[pod.Name] = true
		}
	}
	l.most, l.leastReady = max(l.most, len(l.alive)), min(l.leastReady, len(l.ready))
}

// startController runs the controller in the lab's namespace until the test ends, with a cache that lags behind.
func (l *lab) startController() {
	manager, err := ctrl.NewManager(operatorConfig, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: ptr(true)},
		LeaderElection: true, LeaderElectionID: "podset", LeaderElectionNamespace: l.namespace,
		Cache: cache.Options{
			DefaultNamespaces: map[string]cache.Config{l.namespace: {}},
			NewInformer: func(source toolscache.ListerWatcher, object runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
				watched := late{toolscache.ToListerWatcherWithContext(source), new(sync.Mutex)}
				if _, isSet := object.(*v1alpha1.PodSet); isSet {
					watched.held = &l.sets
				}
				return toolscache.NewSharedIndexInformer(watched, object, resync, indexers)
			},
		},
	})
	must(l.T, err)
	reconciler := &controller.Reconciler{Client: manager.GetClient(), Live: manager.GetAPIReader(), Events: manager.GetEventRecorder("podset")}
	must(l.T, reconciler.SetupWithManager(manager))
	controlplane.StartManager(l.T, manager)
}

// late shows what happens some time after it happened, and nothing while held is locked.
type late struct {
	toolscache.ListerWatcherWithContext
	held *sync.Mutex
}

func (s late) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	source, err := s.ListerWatcherWithContext.WatchWithContext(ctx, options)
	if err != nil {
		return nil, err
	}
	out := make(chan watch.Event)
	delayed := watch.NewProxyWatcher(out)
	go func() {
		defer close(out)
		defer source.Stop()
		for {
			select {
			case <-delayed.StopChan():
				return
			case event, open := <-source.ResultChan():
				if !open {
					return
				}
				if rand.IntN(5) == 0 { // what comes behind it waits too
					time.Sleep(rand.N(mostDelay))
				}
				if !s.pass(event, out, delayed.StopChan()) {
					return
				}
			}
		}
	}()
	return delayed, nil
}

// pass shows an event, unless nobody watches any more.
func (s late) pass(event watch.Event, out chan<- watch.Event, stopped <-chan struct{}) bool {
	s.held.Lock()
	defer s.held.Unlock()
	select {
	case out <- event:
		return true
	case <-stopped:
		return false
	}
}

// Watch and List are for callers without a context. The informer has one.
func (s late) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), options)
}

func (s late) List(options metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), options)
}

const name = "web"

func newSet(namespace string, replicas int32) *v1alpha1.PodSet {
	return &v1alpha1.PodSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.PodSetSpec{
			Replicas: replicas,
			Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "pause", Image: "localhost/pause"}}},
			},
		},
	}
}

// newPod returns a pod without an owner that the set of newSet selects.
func newPod(namespace, name string) *corev1.Pod {
	template := newSet(namespace, 1).Spec.Template
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Namespace, pod.Name = namespace, name
	return pod
}

func (l *lab) get() *v1alpha1.PodSet {
	l.Helper()
	set := &v1alpha1.PodSet{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: name}, set))
	return set
}

// change changes the set.
func (l *lab) change(change func(*v1alpha1.PodSet)) {
	l.Helper()
	set := l.get()
	before := set.DeepCopy()
	change(set)
	must(l.T, admin.Patch(l.Context(), set, client.MergeFrom(before)))
}

// scale changes the number of pods through the subresource, as kubectl scale does.
func (l *lab) scale(replicas int32) {
	l.Helper()
	set := l.get()
	must(l.T, admin.SubResource("scale").Update(l.Context(), set, client.WithSubResourceBody(&autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name}, Spec: autoscalingv1.ScaleSpec{Replicas: replicas},
	})))
}

// eventually waits for something.
func (l *lab) eventually(what string, holds func() bool) {
	l.Helper()
	err := wait.PollUntilContextTimeout(l.Context(), interval, patience, true, func(context.Context) (bool, error) { return holds(), nil })
	if err != nil {
		l.Fatalf("%s: %v; the status is %+v", what, err, l.get().Status)
	}
}

// settle waits until the set tells of so many pods with this reason.
func (l *lab) settle(replicas int, reason string) *v1alpha1.PodSet {
	l.Helper()
	var set *v1alpha1.PodSet
	l.eventually(fmt.Sprintf("no %d pods, %s", replicas, reason), func() bool {
		set = l.get()
		condition := meta.FindStatusCondition(set.Status.Conditions, v1alpha1.ConditionReady)
		return condition != nil && condition.Reason == reason && set.Status.ObservedGeneration == set.Generation && int(set.Status.Replicas) == replicas
	})
	return set
}

// pods are those that are not going away.
func (l *lab) pods() []corev1.Pod {
	l.Helper()
	var pods corev1.PodList
	must(l.T, admin.List(l.Context(), &pods, client.InNamespace(l.namespace)))
	return slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil })
}

// makeReady makes pods ready whose image can be pulled, until the test ends.
func (l *lab) makeReady() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = wait.PollUntilContextCancel(l.Context(), interval, true, func(ctx context.Context) (bool, error) {
			var pods corev1.PodList
			if err := admin.List(ctx, &pods, client.InNamespace(l.namespace)); err != nil {
				return false, nil
			}
			for i := range pods.Items {
				if pod := &pods.Items[i]; !isReady(pod) && !strings.Contains(pod.Spec.Containers[0].Image, "broken") {
					pod.Status.Phase = corev1.PodRunning
					pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
					_ = admin.Status().Update(ctx, pod) // it may be gone
				}
			}
			return false, nil
		})
	}()
	l.Cleanup(func() { <-ended })
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func TestNoPodIsDoubledOrForgottenWhileTheCacheLags(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(t, admin.Create(t.Context(), newSet(l.namespace, 0)))
	made, gone, have := 0, 0, 0
	for _, size := range []int{100, 40, 100, 0, 100, 0} {
		l.scale(int32(size))
		made, gone, have = made+max(0, size-have), gone+max(0, have-size), size
		l.eventually(fmt.Sprintf("no %d pods", size), func() bool { return len(l.pods()) == size })
		set := l.settle(size, map[bool]string{true: v1alpha1.ReasonUpToDate, false: v1alpha1.ReasonPodsNotReady}[size == 0])
		if len(set.Status.PodNames) != size || !slices.IsSorted(set.Status.PodNames) {
			t.Errorf("of %d pods the status names %v", size, set.Status.PodNames)
		}
		l.eventually("the counts differ", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.made >= made && l.gone >= gone })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made != made || l.gone != gone || l.most > 100 {
		t.Errorf("%d pods were made and %d deleted, at most %d were there at once; want %d, %d, 100", l.made, l.gone, l.most, made, gone)
	}
}

func TestPodsAreRolledOneByOne(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.makeReady()
	must(t, admin.Create(t.Context(), newSet(l.namespace, 4)))
	l.settle(4, v1alpha1.ReasonUpToDate)
	l.eventually("the watch is behind", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.leastReady = len(l.ready)
		return l.leastReady == 4
	})

	image := func(image string) func(*v1alpha1.PodSet) {
		return func(s *v1alpha1.PodSet) { s.Spec.Template.Spec.Containers[0].Image = image }
	}
	images := func() (of []string) {
		for _, pod := range l.pods() {
			of = append(of, pod.Spec.Containers[0].Image)
		}
		slices.Sort(of)
		return of
	}
	l.change(image("localhost/second"))
	l.settle(4, v1alpha1.ReasonUpToDate)
	if have := images(); !slices.Equal(have, slices.Repeat([]string{"localhost/second"}, 4)) {
		t.Errorf("the pods run %v", have)
	}

	l.change(image("localhost/broken"))
	set := l.settle(4, v1alpha1.ReasonPodsNotReady)
	if have := images(); !slices.Equal(have, []string{"localhost/broken", "localhost/second", "localhost/second", "localhost/second"}) {
		t.Errorf("the pods run %v", have)
	}
	if message := set.Status.Conditions[0].Message; !strings.HasPrefix(message, "3 of 4 pods are ready. Look at the pod web-") {
		t.Errorf("message %q", message)
	}

	l.change(image("localhost/third"))
	l.settle(4, v1alpha1.ReasonUpToDate)
	if have := images(); !slices.Equal(have, slices.Repeat([]string{"localhost/third"}, 4)) {
		t.Errorf("the pods run %v", have)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leastReady != 3 || l.most != 4 {
		t.Errorf("%d pods were ready at least, want 3; %d were there at most, want 4", l.leastReady, l.most)
	}
}

func TestPodsAreAdoptedAndReleasedByTheirLabels(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.makeReady()
	single := func(podName string, changes ...func(*corev1.Pod)) *corev1.Pod {
		pod := newPod(l.namespace, podName)
		for _, change := range changes {
			change(pod)
		}
		must(t, admin.Create(t.Context(), pod))
		return pod
	}
	foreign := single("foreign", func(pod *corev1.Pod) {
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "other", Controller: ptr(true)}}
	})
	free := single("free")
	must(t, admin.Create(t.Context(), newSet(l.namespace, 2)))
	set := l.settle(2, v1alpha1.ReasonUpToDate)
	if slices.Contains(set.Status.PodNames, foreign.Name) {
		t.Error("the pod of another controller is counted")
	}
	l.expectEvents("Adopted pod free.", "Created pod web-", "Deleted pod free.") // it is made from no template of the set
	var gone corev1.Pod
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(free), &gone); !apierrors.IsNotFound(err) {
		t.Errorf("the adopted pod was not rolled: %v", err)
	}

	released := set.Status.PodNames[0]
	pod := &corev1.Pod{}
	must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: released}, pod))
	labelled := pod.DeepCopy()
	labelled.Labels["app"] = "debugging"
	must(t, admin.Patch(t.Context(), labelled, client.MergeFrom(pod)))
	l.eventually("no other pod in its place", func() bool {
		names := l.get().Status.PodNames
		return len(names) == 2 && !slices.Contains(names, released)
	})
	l.eventually("the pod is not released", func() bool {
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: released}, pod))
		return len(pod.OwnerReferences) == 0
	})
	l.expectEvents("Released pod " + released + ".")

	labelled = pod.DeepCopy()
	labelled.Labels["app"] = name
	must(t, admin.Patch(t.Context(), labelled, client.MergeFrom(pod)))
	l.eventually("it is neither adopted nor counted as too much", func() bool {
		return len(l.pods()) == 3 // two of the set, and the foreign one
	})
	must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(foreign), pod))
	if pod.OwnerReferences[0].Kind != "ConfigMap" || pod.ResourceVersion == "" {
		t.Errorf("the pod of another controller was changed: %v", pod.OwnerReferences)
	}
}

// expectEvents waits until there are Events whose notes begin so.
func (l *lab) expectEvents(notes ...string) {
	l.Helper()
	for _, note := range notes {
		l.eventually("no Event "+note, func() bool {
			var events eventsv1.EventList
			must(l.T, admin.List(l.Context(), &events, client.InNamespace(l.namespace)))
			return slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool { return strings.HasPrefix(e.Note, note) })
		})
	}
}

// A cache that lags still shows the set when its user has deleted it. A finalizer keeps it, as a deletion in the
// foreground does. The free pod is ready and the set's own is not, so the set would adopt it and give up its own.
func TestASetThatIsBeingDeletedAdoptsNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	set := newSet(l.namespace, 1)
	set.Finalizers = []string{"example.com/wait"}
	must(t, admin.Create(t.Context(), set))
	l.settle(1, v1alpha1.ReasonPodsNotReady)
	l.sets.Lock()
	defer l.sets.Unlock()
	must(t, admin.Delete(t.Context(), set))

	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: "free"}, Spec: set.Spec.Template.Spec}
	must(t, admin.Create(t.Context(), pod))
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	must(t, admin.Status().Update(t.Context(), pod))
	pod.Labels = set.Spec.Template.Labels
	must(t, admin.Update(t.Context(), pod))
	err := wait.PollUntilContextTimeout(t.Context(), interval, 5*mostDelay, true, func(context.Context) (bool, error) {
		err := admin.Get(t.Context(), client.ObjectKeyFromObject(pod), pod)
		return len(pod.OwnerReferences) > 0, err
	})
	if !wait.Interrupted(err) {
		t.Errorf("it was adopted: %v, %v", pod.OwnerReferences, err)
	}
	if len(l.pods()) != 2 {
		t.Errorf("there are other pods than the set's own and the free one: %v", l.pods())
	}
	live := l.get()
	live.Finalizers = nil
	must(t, admin.Update(t.Context(), live))
}

func TestAPodThatIsDeletedIsMadeAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(t, admin.Create(t.Context(), newSet(l.namespace, 3)))
	set := l.settle(3, v1alpha1.ReasonPodsNotReady)
	lost := set.Status.PodNames[1]
	must(t, admin.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: lost}}))
	l.eventually("no other pod in its place", func() bool {
		names := l.get().Status.PodNames
		return len(names) == 3 && !slices.Contains(names, lost)
	})
}

func TestBadInputIsRefusedOrReported(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for want, change := range map[string]func(*v1alpha1.PodSet){
		"should be greater than or equal to 0":       func(s *v1alpha1.PodSet) { s.Spec.Replicas = -1 },
		"an empty selector selects every pod":        func(s *v1alpha1.PodSet) { s.Spec.Selector = metav1.LabelSelector{} },
		"set template.spec.restartPolicy to Always":  func(s *v1alpha1.PodSet) { s.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever },
		"remove template.spec.activeDeadlineSeconds": func(s *v1alpha1.PodSet) { s.Spec.Template.Spec.ActiveDeadlineSeconds = ptr(int64(1)) },
		"spec.template.spec.containers: Required":    func(s *v1alpha1.PodSet) { s.Spec.Template.Spec.Containers = nil },
	} {
		set := newSet(l.namespace, 1)
		change(set)
		if err := admin.Create(t.Context(), set); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the API server says %v, not %q", err, want)
		}
	}
	set := newSet(l.namespace, 1)
	set.Spec.Template.Labels = map[string]string{"app": "other"}
	set.Spec.Template.Spec.Containers[0].Name = "Not A Name"
	must(t, admin.Create(t.Context(), set))
	l.settle(0, v1alpha1.ReasonInvalidSpec)
	changed := set.DeepCopy()
	changed.Spec.Selector.MatchLabels["app"] = "changed"
	if err := admin.Patch(t.Context(), changed, client.MergeFrom(set)); err == nil || !strings.Contains(err.Error(), "the selector cannot be changed") {
		t.Errorf("the API server says %v", err)
	}
	l.change(func(s *v1alpha1.PodSet) { s.Spec.Template.Labels["app"] = name })
	set = l.settle(0, v1alpha1.ReasonRefused)
	if message := set.Status.Conditions[0].Message; !strings.HasPrefix(message, "The API server refuses a change: pod web- is not created: Pod \"…\" is invalid") || !strings.Contains(message, "Not A Name") {
		t.Errorf("message %q", message)
	}
	version := set.ResourceVersion
	if set = l.settle(0, v1alpha1.ReasonRefused); set.ResourceVersion != version {
		t.Error("each attempt writes the status")
	}
	l.change(func(s *v1alpha1.PodSet) { s.Spec.Template.Spec.Containers[0].Name = "pause" })
	l.settle(1, v1alpha1.ReasonPodsNotReady)
}

// TestAQuotaThatAllowsMoreIsNoticed takes a quota away, which no watched object tells of.
func TestAQuotaThatAllowsMoreIsNoticed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: "none"}}
	quota.Spec.Hard = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
	must(t, admin.Create(t.Context(), quota))
	quota.Status.Hard, quota.Status.Used = quota.Spec.Hard, quota.Spec.Hard // as the controller manager does
	must(t, admin.Status().Update(t.Context(), quota))
	l.eventually("the API server does not see the quota", func() bool {
		return apierrors.IsForbidden(admin.Create(t.Context(), newPod(l.namespace, "tried"), client.DryRunAll))
	})
	must(t, admin.Create(t.Context(), newSet(l.namespace, 2)))
	l.settle(0, v1alpha1.ReasonRefused)
	must(t, admin.Delete(t.Context(), quota))
	l.settle(2, v1alpha1.ReasonPodsNotReady)
}

func TestAStatusThatIsOverwrittenIsWrittenAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(t, admin.Create(t.Context(), newSet(l.namespace, 1)))
	set := l.settle(1, v1alpha1.ReasonPodsNotReady)
	set.Status.PodNames = []string{"none"}
	must(t, admin.Status().Update(t.Context(), set))
	l.eventually("the status stays as somebody wrote it", func() bool { return l.get().Status.PodNames[0] != "none" })
}

func ptr[T any](value T) *T { return &value }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
