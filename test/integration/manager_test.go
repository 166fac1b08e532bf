//go:build integration

package integration

import (
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/act"
	"github.com/etcd-warden/etcd-warden/internal/metrics"
	"github.com/etcd-warden/etcd-warden/internal/observe"
	"github.com/etcd-warden/etcd-warden/test/controlplane"
)

const (
	// patience is many times what a manager needs to make a cluster.
	patience = 2 * time.Minute
	// quiet is how long no request must have been sent for the cluster to count as at rest.
	quiet = 3 * time.Second
)

// TestAManagerWithCachesMakesAClusterAndThenAsksTheAPIServerNothing runs the operator as it runs in its pod:
// watches, caches, queue and events.
func TestAManagerWithCachesMakesAClusterAndThenAsksTheAPIServerNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createCertificates()
	var requests atomic.Int64
	reconciler := l.startManager(controlplane.Counted(operatorConfig, "", &requests))
	l.create(3, withTLS)
	l.waitWhileKubernetesRuns("the cluster is available, and at rest", func() bool {
		c := l.get()
		return meta.IsStatusConditionTrue(c.Status.Conditions, v1beta1.ConditionAvailable) && c.Status.ReadyReplicas == 3 && c.Status.Operation == nil
	})
	l.waitUntilQuiet(&requests)
	l.expectFounded(3)
	before := requests.Load()
	for range 20 {
		if _, err := reconciler.Reconcile(t.Context(), ctrl.Request{NamespacedName: l.get().Key()}); err != nil {
			t.Fatal(err)
		}
	}
	if extra := requests.Load() - before; extra != 0 {
		t.Errorf("20 passes over a cluster at rest sent %d requests to the API server", extra)
	}
	l.expectEvent(v1beta1.EventBootstrapStarted)
	l.delete(&corev1.Pod{}, "prod-1-0")
	l.waitWhileKubernetesRuns("the watch tells of the lost pod and of the new one", func() bool {
		return requests.Load() > before && l.get().Status.ReadyReplicas == 3
	})
}

// TestMakesADeletedSecretAgainAtTheUsersNextAnnotation also makes sure that the operator's own writes are not taken for
// the user's: after the Secret is back, nothing is read any more.
func TestMakesADeletedSecretAgainAtTheUsersNextAnnotation(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var requests atomic.Int64
	l.startManager(controlplane.Counted(operatorConfig, "", &requests))
	l.create(3, withManagedTLS)
	l.waitWhileKubernetesRuns("the cluster is available, and at rest", func() bool {
		c := l.get()
		return meta.IsStatusConditionTrue(c.Status.Conditions, v1beta1.ConditionAvailable) && c.Status.ReadyReplicas == 3 && c.Status.Operation == nil
	})
	l.waitUntilQuiet(&requests)
	l.delete(&corev1.Secret{}, "prod-client-tls")
	l.change(func(c *v1beta1.EtcdCluster) {
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, "example.com/checked", "now")
	})
	l.waitWhileKubernetesRuns("the Secret is made again", func() bool {
		return admin.Get(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: "prod-client-tls"}, &corev1.Secret{}) == nil
	})
	l.expectEvent(v1beta1.EventSecretsRecreated)
	l.waitUntilQuiet(&requests)
}

// waitUntilQuiet waits until the operator sends no request any more.
func (l *lab) waitUntilQuiet(requests *atomic.Int64) {
	l.Helper()
	last, since := requests.Load(), time.Now()
	l.waitWhileKubernetesRuns("no request is sent", func() bool {
		if now := requests.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > quiet
	})
}

// startManager runs the operator with its own caches, restricted to the namespace, until the test ends. A limit of the
// lab's is its --max-disruptions.
func (l *lab) startManager(config *rest.Config) *controllers.EtcdClusterReconciler {
	l.Helper()
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                 scheme,
		Cache:                  controllers.CacheOptions(map[string]cache.Config{l.namespace: {}}),
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		Controller:             ctrlconfig.Controller{SkipNameValidation: new(true)}, // each test has a manager
	})
	must(l.T, err)
	writes := &controllers.OwnWrites{}
	writer := writes.Through(mgr.GetClient())
	reconciler := &controllers.EtcdClusterReconciler{
		Client: writer,
		Observer: &observe.Observer{
			Reader: mgr.GetClient(), Live: mgr.GetAPIReader(), Etcd: port{l.kubernetes}, Now: time.Now, SeesClusterScope: true,
		},
		Actor:       &act.Actor{Client: writer, Live: mgr.GetAPIReader(), Lifetimes: lifetimes},
		Events:      mgr.GetEventRecorder("etcd-warden"),
		Concurrency: 1,
		Writes:      writes,
		Refusals:    metrics.NewRefusals(),
	}
	if l.limit > 0 {
		reconciler.Pace = l.newPace(mgr.GetAPIReader(), writer)
		reconciler.Pace.Clusters = mgr.GetClient()
	}
	must(l.T, reconciler.SetupWithManager(mgr))
	controlplane.StartManager(l.T, mgr)
	return reconciler
}

// waitWhileKubernetesRuns runs Kubernetes until the condition holds.
func (l *lab) waitWhileKubernetesRuns(what string, holds func() bool) {
	l.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			l.Fatalf("waiting until %s took more than %v; conditions: %s", what, patience, showAll(l.get()))
		}
		l.kubernetes.step(l.T)
	}
}

func (l *lab) expectEvent(reason string) {
	l.Helper()
	l.waitWhileKubernetesRuns("there is an event "+reason, func() bool {
		var list eventsv1.EventList
		must(l.T, admin.List(l.Context(), &list, client.InNamespace(l.namespace)))
		for _, e := range list.Items {
			if e.Reason == reason {
				return true
			}
		}
		return false
	})
}
