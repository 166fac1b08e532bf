//go:build integration

package integration

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// A tenant's Services with the operator's labels, as large as the API server takes them.
const hostileBytes = 200 << 10

// TestATenantsLargeServicesDoNotGrowTheOperator is not parallel: it measures the memory of the process.
func TestATenantsLargeServicesDoNotGrowTheOperator(t *testing.T) {
	count := 400
	if full() {
		count = 1000
	}
	l := newLab(t)
	t.Cleanup(func() { // the API server holds them too
		must(t, admin.DeleteAllOf(context.Background(), &corev1.Service{}, client.InNamespace(l.namespace)))
	})
	createAll(t, count, func(n int) client.Object { return hostileService(l.namespace, n) })
	before := liveHeap()
	c, err := cache.New(operatorConfig, withScheme(controllers.CacheOptions(map[string]cache.Config{l.namespace: {}})))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	peak := peakWhile(func() {
		go func() { ended <- c.Start(ctx) }()
		_, err := c.GetInformer(ctx, &corev1.Service{})
		must(t, err)
		if !c.WaitForCacheSync(ctx) {
			t.Fatal("the cache was not filled")
		}
	})
	var services corev1.ServiceList
	must(t, c.List(ctx, &services, client.UnsafeDisableDeepCopy))
	if len(services.Items) != count {
		t.Fatalf("the cache has %d Services, want %d", len(services.Items), count)
	}
	services.Items = nil
	grown := liveHeap() - before
	t.Logf("%d Services of %d KiB: the heap grew by %d KiB, by %d KiB at most meanwhile", count, hostileBytes>>10, grown>>10, (peak-before)>>10)
	if limit := int64(count)*4<<10 + 4<<20; grown > limit {
		t.Errorf("the heap grew by %d KiB, want %d KiB at most", grown>>10, limit>>10)
	}
	// The API server streams the objects one by one. What is on its way at once does not depend on their number.
	if peak-before > 48<<20 {
		t.Errorf("%d KiB were in memory at once while the cache was filled", (peak-before)>>10)
	}
	cancel()
	must(t, <-ended)
}

func withScheme(o cache.Options) cache.Options {
	o.Scheme = scheme
	return o
}

// hostileService puts its bytes where a tenant may: into annotations,
// the operator's too, ports, labels and the selector.
func hostileService(namespace string, n int) *corev1.Service {
	key, text := "example.com/note", strings.Repeat("x", hostileBytes)
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprintf("hostile-%d", n),
			Labels: map[string]string{cluster.LabelManagedBy: cluster.ManagedByValue, cluster.LabelCluster: "prod"},
		},
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{}},
	}
	switch n % 3 {
	case 1:
		key = cluster.AnnotationAppliedHash
	case 2:
		text = text[:hostileBytes/4]
		for i := range 1000 {
			port := corev1.ServicePort{Name: fmt.Sprintf("port-%d", i), Port: int32(1000 + i)}
			s.Spec.Ports = append(s.Spec.Ports, port)
			s.Labels[fmt.Sprintf("example.com/label-%d", i)] = "x"
			s.Spec.Selector[fmt.Sprintf("example.com/label-%d", i)] = "x"
		}
	}
	s.Annotations = map[string]string{key: text}
	return s
}

// createAll creates objects, a few at once.
func createAll(t *testing.T, count int, object func(int) client.Object) {
	t.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for n := next.Add(1) - 1; n < int64(count); n = next.Add(1) - 1 {
				if err := admin.Create(t.Context(), object(int(n))); err != nil {
					t.Errorf("creating object %d: %v", n, err)
					return
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func liveHeap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// peakWhile returns the largest live heap during a call.
func peakWhile(call func()) int64 {
	stop, peak := make(chan struct{}), make(chan int64)
	go func() {
		largest := liveHeap()
		for {
			select {
			case <-stop:
				peak <- largest
				return
			default:
				largest = max(largest, liveHeap())
			}
		}
	}()
	call()
	close(stop)
	return <-peak
}
