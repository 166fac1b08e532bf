//go:build integration

package integration

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

const (
	// mostToObjects is how many writes the creation of a cluster takes until all its objects exist: two Services, the
	// PodDisruptionBudget, six Secrets, three volumes, three StatefulSets, one of them tried before, and the claim.
	mostToObjects = 18
	// mostToRest is how many it takes until the cluster is available and at rest.
	mostToRest = 30
	// mostReads is each Secret once: none before it is created, and none right after.
	mostReads = 0
)

// requestLog remembers the requests of one client.
type requestLog struct {
	mu       sync.Mutex
	requests []string
}

func (l *requestLog) of(config *rest.Config) *rest.Config {
	logged := rest.CopyConfig(config)
	logged.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			l.mu.Lock()
			l.requests = append(l.requests, r.Method+" "+r.URL.Path+"?"+r.URL.RawQuery)
			l.mu.Unlock()
			return next.RoundTrip(r)
		})
	})
	return logged
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// matching returns the requests of which the condition holds.
func (l *requestLog) matching(holds func(string) bool) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.requests), func(r string) bool { return !holds(r) })
}

func isWrite(r string) bool { return !strings.HasPrefix(r, http.MethodGet) }

// untilLast returns the requests up to the last one that contains a text.
func untilLast(requests []string, text string) []string {
	for i, r := range slices.Backward(requests) {
		if strings.Contains(r, text) {
			return requests[:i+1]
		}
	}
	return requests
}

// TestACreationSendsFewRequests creates a cluster with everything that the operator makes, certificates included.
func TestACreationSendsFewRequests(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	log := &requestLog{}
	l.startManager(log.of(operatorConfig))
	l.create(3, withManagedTLS)
	var sets appsv1.StatefulSetList
	must(t, wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := admin.List(ctx, &sets, client.InNamespace(l.namespace))
		return len(sets.Items) == 3, err
	}))
	if writes := untilLast(log.matching(isWrite), "/statefulsets?fieldManager"); len(writes) > mostToObjects {
		t.Errorf("%d writes until every object existed, want %d at most:\n%s", len(writes), mostToObjects, strings.Join(writes, "\n"))
	}
	l.waitWhileKubernetesRuns("the cluster is available, and at rest", func() bool {
		c := l.get()
		return meta.IsStatusConditionTrue(c.Status.Conditions, v1beta1.ConditionAvailable) && c.Status.ReadyReplicas == 3 && c.Status.Operation == nil
	})
	last, since := 0, time.Now()
	l.waitWhileKubernetesRuns("nothing is written", func() bool {
		if now := len(log.matching(isWrite)); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > quiet
	})
	if writes := log.matching(isWrite); len(writes) > mostToRest {
		t.Errorf("%d writes until the cluster was at rest, want %d at most:\n%s", len(writes), mostToRest, strings.Join(writes, "\n"))
	}
	reads := log.matching(func(r string) bool { return !isWrite(r) && strings.Contains(r, "/secrets/") })
	if len(reads) > mostReads {
		t.Errorf("Secrets were read %d times, want %d at most:\n%s", len(reads), mostReads, strings.Join(reads, "\n"))
	}
	classes := log.matching(func(r string) bool { return strings.Contains(r, "/storageclasses") })
	if len(classes) != 1 {
		t.Errorf("the StorageClass was looked for %d times, want once", len(classes))
	}
}
