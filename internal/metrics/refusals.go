package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// Refusals counts which guards refuse, and why. Names of guards and reasons are the operator's own, so there are few.
type Refusals struct{ counter *prometheus.CounterVec }

// NewRefusals returns a counter at zero.
func NewRefusals() *Refusals {
	return &Refusals{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_warden_refusals_total",
		Help: "Steps and writes that a guard refused, counted again in each pass over a cluster while the refusal lasts.",
	}, []string{"guard", "reason"})}
}

// Count counts the refusals of one pass. It does nothing without a counter.
func (r *Refusals) Count(refusals []plan.Refusal) {
	if r == nil {
		return
	}
	for i := range refusals {
		r.counter.WithLabelValues(refusals[i].Guard, refusals[i].Reason).Inc()
	}
}

// Describe implements prometheus.Collector.
func (r *Refusals) Describe(to chan<- *prometheus.Desc) { r.counter.Describe(to) }

// Collect implements prometheus.Collector.
func (r *Refusals) Collect(to chan<- prometheus.Metric) { r.counter.Collect(to) }
