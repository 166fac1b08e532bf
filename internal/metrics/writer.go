package metrics

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// writer sends the samples of clusters. They share their labels: prometheus.NewConstMetric makes its own for each
// sample, which takes twice the memory for a fleet.
type writer struct {
	to      chan<- prometheus.Metric
	cluster []*dto.LabelPair
	shared  map[[2]string]*dto.LabelPair
}

func newWriter(to chan<- prometheus.Metric) *writer {
	return &writer{to: to, shared: map[[2]string]*dto.LabelPair{}}
}

// begin makes the next samples those of a cluster.
func (w *writer) begin(namespace, name string) {
	w.cluster = []*dto.LabelPair{pair("namespace", namespace), pair("etcdcluster", name)}
}

// write sends a gauge, with the values of the description's labels.
func (w *writer) write(d description, value float64, values ...string) {
	s := &sample{desc: d.Desc, value: value, labels: make([]*dto.LabelPair, 0, len(w.cluster)+len(values))}
	s.labels = append(s.labels, w.cluster...)
	for i, name := range d.labels {
		key := [2]string{name, values[i]}
		if w.shared[key] == nil {
			w.shared[key] = pair(name, values[i])
		}
		s.labels = append(s.labels, w.shared[key])
	}
	slices.SortFunc(s.labels, func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) })
	w.to <- s
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// sample is one gauge.
type sample struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
}

// Desc implements prometheus.Metric.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write implements prometheus.Metric.
func (s *sample) Write(to *dto.Metric) error {
	to.Label, to.Gauge = s.labels, &dto.Gauge{Value: &s.value}
	return nil
}
