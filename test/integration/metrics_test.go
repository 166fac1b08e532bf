//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/metrics"
	"github.com/etcd-warden/etcd-warden/test/controlplane"
)

// TestAScrapeShowsTheClustersAndAsksTheAPIServerNothing reads the metrics of a manager with caches.
func TestAScrapeShowsTheClustersAndAsksTheAPIServerNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var requests atomic.Int64
	reconciler := l.startManager(controlplane.Counted(operatorConfig, "", &requests))
	registry := registryOf(reconciler)
	l.create(1, withManagedTLS)
	l.waitWhileKubernetesRuns("the cluster is available, and at rest", func() bool {
		c := l.get()
		return meta.IsStatusConditionTrue(c.Status.Conditions, v1beta1.ConditionAvailable) && c.Status.Operation == nil
	})
	l.waitUntilQuiet(&requests)
	before := requests.Load()
	for range 20 {
		got := scrape(t, registry)
		for _, want := range []string{
			`status_condition{condition="Available",etcdcluster="prod",namespace="%s",reason="QuorumServing",status="true"} 1`,
			`spec_replicas{etcdcluster="prod",namespace="%s"} 1`,
			`status_replicas_ready{etcdcluster="prod",namespace="%s"} 1`,
			`certificate_not_after_timestamp_seconds{etcdcluster="prod",namespace="%s",secret="prod-`,
		} {
			if want = fmt.Sprintf("etcd_warden_cluster_"+want, l.namespace); !strings.Contains(got, want) {
				t.Fatalf("%s is not in %s", want, got)
			}
		}
	}
	if extra := requests.Load() - before; extra != 0 {
		t.Errorf("20 scrapes sent %d requests to the API server", extra)
	}
	l.change(withOption("data-dir", "/tmp"))
	l.waitWhileKubernetesRuns("the refusal is counted", func() bool {
		return strings.Contains(scrape(t, registry), `etcd_warden_refusals_total{guard="optionsAllowed",reason="UnsupportedOption"}`)
	})
}

// registryOf has the metrics of an operator that leads.
func registryOf(r *controllers.EtcdClusterReconciler) *prometheus.Registry {
	elected := make(chan struct{})
	close(elected)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.Refusals, &metrics.Collector{
		Reader: r.Observer.Reader, Validities: r.Observer.Validities, Elected: elected, Now: time.Now,
	})
	return registry
}

func scrape(t *testing.T, from *prometheus.Registry) string {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}
