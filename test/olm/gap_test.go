package olm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// A client sends ten requests a second, as a user's controller may. Its time-out is long enough for answers of a busy
// machine, and short enough that a request without an answer counts as failed.
const (
	beat    = 100 * time.Millisecond
	timeout = 5 * time.Second
)

// probe is one kind of request of one API version, made again and again.
type probe struct {
	name     string
	attempt  func(ctx context.Context, n int) error
	attempts int
	gaps     []gap
	slowest  time.Duration
	served   atomic.Int64 // attempts without a failure since the last one
}

// gap is a time in which requests fail. It lasts from the start of the first request that failed
// to the start of the next one that succeeded, however long that one took. The slowest answer is another figure.
type gap struct {
	begin, end time.Time
	errors     []string
}

// watcher is a client of the API whose requests are counted.
type watcher struct {
	probes []*probe
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// watch reads all clusters of the namespace and writes the named one, in each version, until the figures are read.
func watch(namespace, name string, versions ...string) *watcher {
	GinkgoHelper()
	config := rest.CopyConfig(lab.Config)
	config.UserAgent = "olm-suite-watcher"
	api, err := dynamic.NewForConfig(config)
	Expect(err).NotTo(HaveOccurred())
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{stop: stop}
	DeferCleanup(w.end)
	for _, version := range versions {
		clusters := api.Resource(schema.GroupVersionResource{Group: "operator.etcd-warden.io", Version: version, Resource: "etcdclusters"}).Namespace(namespace)
		w.probes = append(w.probes,
			&probe{name: "read-" + version, attempt: func(ctx context.Context, _ int) error {
				_, err := clusters.List(ctx, metav1.ListOptions{})
				return err
			}},
			&probe{name: "write-" + version, attempt: func(ctx context.Context, n int) error {
				patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/%s":"%d"}}}`, version, n)
				_, err := clusters.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
				return err
			}})
	}
	for _, p := range w.probes {
		w.done.Go(func() { p.run(ctx) })
	}
	return w
}

// run makes one request at a time, and none late for another's sake.
func (p *probe) run(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		begin := time.Now()
		attempt, cancel := context.WithTimeout(ctx, timeout)
		err := p.attempt(attempt, p.attempts)
		cancel()
		if ctx.Err() != nil {
			return
		}
		p.note(begin, time.Now(), err)
	}
}

func (p *probe) note(begin, end time.Time, err error) {
	p.attempts++
	p.slowest = max(p.slowest, end.Sub(begin))
	p.served.Add(1)
	if err != nil {
		p.served.Store(0)
	}
	open := len(p.gaps) > 0 && p.gaps[len(p.gaps)-1].end.IsZero()
	switch {
	case err == nil && open:
		p.gaps[len(p.gaps)-1].end = begin
	case err != nil && !open:
		p.gaps = append(p.gaps, gap{begin: begin, errors: []string{err.Error()}})
	case err != nil:
		last := &p.gaps[len(p.gaps)-1]
		if !slices.Contains(last.errors, err.Error()) {
			last.errors = append(last.errors, err.Error())
		}
	}
}

// awaitServed waits until each kind of request has succeeded for a second.
func (w *watcher) awaitServed(ctx context.Context) {
	GinkgoHelper()
	for _, p := range w.probes {
		Eventually(ctx, p.served.Load).Should(BeNumerically(">=", time.Second/beat), p.name)
	}
}

// end stops the client. A gap that is still open ends now.
func (w *watcher) end() {
	w.stop()
	w.done.Wait()
	for _, p := range w.probes {
		if n := len(p.gaps); n > 0 && p.gaps[n-1].end.IsZero() {
			p.gaps[n-1].end = time.Now()
		}
	}
}

// failing sums up the time without success of the probes whose names begin so; what failed at once counts once.
func (w *watcher) failing(prefix string) time.Duration {
	var all []gap
	for _, p := range w.probes {
		if strings.HasPrefix(p.name, prefix) {
			all = append(all, p.gaps...)
		}
	}
	slices.SortFunc(all, func(a, b gap) int { return a.begin.Compare(b.begin) })
	var sum time.Duration
	var until time.Time
	for _, g := range all {
		if g.begin.Before(until) {
			g.begin = until
		}
		if g.end.After(g.begin) {
			sum += g.end.Sub(g.begin)
			until = g.end
		}
	}
	return sum
}

// reasons returns why requests failed, each reason once.
func (w *watcher) reasons() []string {
	var all []string
	for _, p := range w.probes {
		for _, g := range p.gaps {
			all = append(all, g.errors...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// tell stops the client, writes the figures down and shows every gap. It checks that the client really asked.
func (w *watcher) tell(upgrade string) {
	GinkgoHelper()
	w.end()
	for _, p := range w.probes {
		Expect(p.attempts).To(BeNumerically(">", 0), p.name)
		figure(fmt.Sprintf("olm-gap-%s-%s", upgrade, p.name), w.failing(p.name))
		figure(fmt.Sprintf("olm-slowest-%s-%s", upgrade, p.name), p.slowest)
		for _, g := range p.gaps {
			AddReportEntry(fmt.Sprintf("%s failed for %v from %s", p.name, g.end.Sub(g.begin), g.begin.Format(time.TimeOnly)), strings.Join(g.errors, "\n"))
		}
	}
	figure(fmt.Sprintf("olm-gap-%s-any", upgrade), w.failing(""))
}
