package webhook

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var repairsTotal = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "etcd_warden_conversion_repairs_total",
	Help: "Number of repairs of the CustomResourceDefinition's spec.conversion.",
})

func init() { metrics.Registry.MustRegister(repairsTotal) }
