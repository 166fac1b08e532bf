package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/act"
	"github.com/etcd-warden/etcd-warden/internal/comparison"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/observe"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

const never = -1

var (
	errKilled  = errors.New("the operator was killed")
	errTimeout = apierrors.NewTimeoutError("the answer was lost", 0)
)

// operator is one process of the operator: the real reconciler, with all that it remembers between passes.
type operator struct {
	h          *history
	cache      *simulation.Cache
	reconciler *controllers.EtcdClusterReconciler

	// seen is the cluster as this pass read it.
	seen *v1beta1.EtcdCluster
	// calls and writes count those of this pass. appended are the writes that only append an entry to etcd's log.
	calls, writes, appended int
	// killBefore, killAfter and loseAnswer are the numbers of writes: the process is killed before or after it, or
	// gets no answer to it. parkBefore is the number of a call, whether it writes or not.
	killBefore, killAfter, loseAnswer, parkBefore int
	// parkBeforeWrite is the number of a write. parkedAt is the call before which the pass was parked.
	parkBeforeWrite int
	parkedAt        simulation.Verb
	killed          bool
	// readAt is when the last call to the API server was made.
	readAt time.Time
	// failing is a kind of which every write of this pass fails; empty for none.
	failing string
	// pods are those that there were when the pass was parked.
	pods map[types.UID]bool
	// late tells that the pass was parked: it acts on what it saw some time ago.
	late           bool
	parked, resume chan struct{}
}

// cachedClient reads from a cache and writes to the API server, as the manager's client does.
type cachedClient struct {
	client.Client
	*operator
}

func (c cachedClient) Get(ctx context.Context, key client.ObjectKey, object client.Object, o ...client.GetOption) error {
	err := c.cache.Get(ctx, key, object, o...)
	if seen, ok := object.(*v1beta1.EtcdCluster); ok && err == nil {
		c.seen = seen.DeepCopy()
	}
	return err
}

func (c cachedClient) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	return c.cache.List(ctx, list, o...)
}

type noEvents struct{}

func (noEvents) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

func (h *history) startOperator() *operator {
	if err := controllers.IndexCaches(context.Background(), h.Server); err != nil {
		panic(err)
	}
	o := &operator{h: h, cache: simulation.NewCache(h.Server, controllers.CacheOptions(nil))}
	conn := &simulation.Conn{Server: h.Server, Before: o.before, After: o.after}
	cached := cachedClient{conn, o}
	comparisons := &comparison.Store{Etcd: simulation.Port{World: h.World}, Now: h.operatorsTime, Start: func(work func()) { work() }}
	observer := &observe.Observer{
		Reader: cached, Live: conn, Etcd: simulation.Port{World: h.World}, Now: h.operatorsTime, SeesClusterScope: h.seesVolumes, AuthorityOverlap: overlap,
		OperatorImage: h.operatorImage, Comparisons: comparisons,
	}
	o.reconciler = &controllers.EtcdClusterReconciler{
		Client: cached, Observer: observer, Events: noEvents{},
		Actor: &act.Actor{
			Client: cached, Live: conn, Etcd: changer{simulation.Port{World: h.World}, o}, Endpoints: observer, Prober: simulation.Port{World: h.World},
			Comparisons: comparisons,
			Lifetimes:   act.Lifetimes{Certificate: certificateLifetime, Authority: authorityLifetime},
		},
	}
	o.plan()
	return o
}

// plan undoes what was planned for an earlier pass.
func (o *operator) plan() {
	o.appended = 0
	o.calls, o.writes, o.late, o.failing = 0, 0, false, ""
	o.killBefore, o.killAfter, o.loseAnswer, o.parkBefore, o.parkBeforeWrite = never, never, never, never, never
}

// kills end the operator before or after a write of a pass, or keep the answer to it from it.
var kills = []func(*operator, int){
	func(o *operator, write int) { o.killBefore = write },
	func(o *operator, write int) { o.killAfter = write },
	func(o *operator, write int) { o.loseAnswer = write },
}

var quiet = ctrl.LoggerInto(context.Background(), logr.Discard())

// pass runs the reconciler once. It returns the error of a pass that nobody disturbed.
func (o *operator) pass() error {
	_, err := o.reconciler.Reconcile(quiet, ctrl.Request{NamespacedName: key})
	return err
}

// look starts a pass that is parked before a call, and reports whether it got there.
func (o *operator) look(call int) bool {
	o.plan()
	o.parkBefore = call
	return o.lookOnce()
}

// lookAtWrite starts a pass that is parked before a write. It returns the verb, and whether the pass got there.
func (o *operator) lookAtWrite(write int) (simulation.Verb, bool) {
	o.plan()
	o.parkBeforeWrite = write
	stops := o.lookOnce()
	return o.parkedAt, stops
}

func (o *operator) lookOnce() bool {
	o.parked, o.resume = make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.pass()
	}()
	select {
	case <-o.parked:
		o.parked, o.pods = done, map[types.UID]bool{}
		for _, pod := range o.h.pods() {
			o.pods[pod.UID] = true
		}
		return true
	case <-done:
		return false
	}
}

// finish carries a parked pass to its end.
func (o *operator) finish() {
	o.late = true
	close(o.resume)
	<-o.parked
}

// saw reports whether a pod can be the one that the pass decided about.
func (o *operator) saw(pod *corev1.Pod) bool {
	if o.late {
		return o.pods[pod.UID]
	}
	var cached corev1.Pod
	err := o.cache.Get(quiet, client.ObjectKeyFromObject(pod), &cached)
	return err == nil && cached.UID == pod.UID
}

// kill ends a process that is parked.
func (o *operator) kill() {
	o.killed = true
	o.finish()
}

func (o *operator) before(call *simulation.Call) error {
	if o.calls == o.parkBefore || call.Verb.Writes() && o.writes == o.parkBeforeWrite {
		o.parkBefore, o.parkBeforeWrite, o.parkedAt = never, never, call.Verb
		o.parked <- struct{}{}
		<-o.resume
	}
	o.calls++
	if call.Kind == etcdKind && o.h.Now.Sub(o.readAt) > etcd.ChangeTimeout {
		return context.DeadlineExceeded // it was stopped between the last look at the claim and the call
	}
	o.readAt = o.h.Now
	if o.killed || call.Verb.Writes() && o.writes == o.killBefore {
		o.killed = true
		return errKilled
	}
	if call.Verb.Writes() {
		if o.writes++; call.Verb == appendEntry {
			o.appended++
		}
		o.h.trace = append(o.h.trace, traced{call, o.late, o.h.Now})
		o.h.checkCall(o, call)
	}
	if call.Verb.Writes() && call.Kind == o.failing {
		return errTimeout
	}
	if slices.Contains(o.h.refused, call.Kind) && call.Verb != simulation.Get && call.Verb != simulation.List {
		return apierrors.NewForbidden(schema.GroupResource{Resource: call.Kind}, call.Key.Name, errors.New("a policy refuses it"))
	}
	return nil
}

func (o *operator) after(call *simulation.Call) error {
	if !call.Verb.Writes() {
		return nil
	}
	o.h.checkWrite(o, call)
	o.h.visited() // an operator that ends here leaves the world like this
	switch o.writes - 1 {
	case o.killAfter:
		o.killed = true
		return errKilled
	case o.loseAnswer:
		return errTimeout
	}
	return nil
}

// The lifetimes of what the operator makes.
const (
	overlap             = time.Hour
	certificateLifetime = 90 * 24 * time.Hour
	authorityLifetime   = 10 * 365 * 24 * time.Hour
)

// traced is a write that the operator tried.
type traced struct {
	call *simulation.Call
	late bool
	at   time.Time
}

// failure tells what is wrong, and the last writes before it.
func (h *history) failure() string {
	var text strings.Builder
	for _, t := range h.trace[max(0, len(h.trace)-40):] {
		fmt.Fprintf(&text, "%s %s", t.at.Format(time.DateTime), t.call)
		if set, ok := t.call.Stored.(*appsv1.StatefulSet); ok {
			_, tag, _ := strings.Cut(set.Spec.Template.Spec.Containers[0].Image, ":")
			text.WriteString(" " + tag)
		}
		if t.late {
			text.WriteString(" by the operator that was parked")
		}
		if t.call.Stored == nil {
			text.WriteString(": failed")
		}
		text.WriteString("\n")
	}
	return text.String() + strings.Join(h.broken, "\n")
}

func (h *history) wrong(format string, args ...any) {
	h.broken = append(h.broken, fmt.Sprintf(format, args...))
}
