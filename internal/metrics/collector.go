// Package metrics shows Prometheus what the operator knows of the clusters, and which guards refuse.
// docs/metrics.md has the list, which a test holds against the code.
package metrics

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// listTimeout bounds one look at the caches. They answer at once, unless they have never been filled.
const listTimeout = 5 * time.Second

// conditions are those that are shown. What else somebody writes into a status is not.
var conditions = map[string]bool{
	v1beta1.ConditionAvailable: true, v1beta1.ConditionProgressing: true, v1beta1.ConditionDegraded: true,
	v1beta1.ConditionQuorumLost: true, v1beta1.ConditionStorageAlarm: true, v1beta1.ConditionRestartPending: true,
	v1beta1.ConditionUpgradeBlocked: true, v1beta1.ConditionVersionAdvisory: true,
	v1beta1.ConditionDataConsistent: true, v1beta1.ConditionPlacementAdvisory: true,
}

// description of a metric of clusters.
type description struct {
	*prometheus.Desc
	// labels are those beside the cluster's.
	labels []string
}

func describe(name, help string, labels ...string) description {
	all := append([]string{"namespace", "etcdcluster"}, labels...)
	return description{prometheus.NewDesc("etcd_warden_cluster_"+name, help, all, nil), labels}
}

var (
	conditionDesc = describe("status_condition",
		"Conditions of the cluster: 1 for the status and the reason that each condition has.", "condition", "status", "reason")
	wantedDesc  = describe("spec_replicas", "Members that the spec asks for.")
	membersDesc = describe("status_replicas", "Members that the cluster has, learners included.")
	readyDesc   = describe("status_replicas_ready",
		"Members that are healthy voters: they answer a linearizable read.")
	operationDesc = describe("operation_start_time_seconds",
		"When the step in progress began, as a Unix time. Absent if there is no step.", "type")
	notBeforeDesc = describe("certificate_not_before_timestamp_seconds",
		"When the certificate that certificate_not_after_timestamp_seconds is about began to be valid, as a Unix time.",
		"secret")
	notAfterDesc = describe("certificate_not_after_timestamp_seconds",
		"When a certificate ends, as a Unix time: the one of the cluster with the smallest part of its lifetime left. "+
			"Absent without TLS.", "secret")
)

// Collector reads the clusters from the manager's caches at each scrape. It remembers nothing, and asks the API server
// nothing. Only the leader's is not empty: otherwise each cluster would be there twice while operators take turns.
type Collector struct {
	// Reader serves from the manager's caches.
	Reader client.Reader
	// Validities returns those of a cluster's certificates, as they were read last.
	Validities func(client.ObjectKey) []cluster.Validity
	// Elected is closed once this operator leads. Then the caches are filled.
	Elected <-chan struct{}
	Now     func() time.Time
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []description{
		conditionDesc, wantedDesc, membersDesc, readyDesc, operationDesc, notBeforeDesc, notAfterDesc,
	} {
		to <- d.Desc
	}
}

// Collect implements prometheus.Collector. A scrape that cannot read the clusters fails: no series at all would pass
// for health.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	select {
	case <-c.Elected:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	var list v1beta1.EtcdClusterList
	if err := c.Reader.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil { // nothing is changed here
		to <- prometheus.NewInvalidMetric(conditionDesc.Desc, fmt.Errorf("listing EtcdClusters: %w", err))
		return
	}
	now, w := c.Now(), newWriter(to)
	for i := range list.Items {
		c.collect(&list.Items[i], now, w)
	}
}

func (c *Collector) collect(of *v1beta1.EtcdCluster, now time.Time, w *writer) {
	w.begin(of.Namespace, of.Name)
	for _, condition := range of.Status.Conditions {
		if conditions[condition.Type] {
			w.write(conditionDesc, 1, condition.Type, label(condition.Status), condition.Reason)
		}
	}
	w.write(wantedDesc, float64(of.Spec.Replicas))
	w.write(membersDesc, float64(of.Status.Replicas))
	w.write(readyDesc, float64(of.Status.ReadyReplicas))
	if op := of.Status.Operation; op != nil {
		w.write(operationDesc, seconds(op.StartedAt.Time), string(op.Type))
	}
	if next := nearestEnd(c.Validities(of.Key()), now); next != nil {
		w.write(notBeforeDesc, seconds(next.NotBefore), next.Secret)
		w.write(notAfterDesc, seconds(next.NotAfter), next.Secret)
	}
}

// nearestEnd returns the certificate with the smallest part of its lifetime left, nil for none. The one that ends first
// may have been issued for a day only, and is renewed all the time.
func nearestEnd(list []cluster.Validity, now time.Time) *cluster.Validity {
	var nearest *cluster.Validity
	for i := range list {
		if nearest == nil || list[i].Left(now) < nearest.Left(now) {
			nearest = &list[i]
		}
	}
	return nearest
}

// label is how kube-state-metrics writes the status of a condition: true, false or unknown.
func label(status metav1.ConditionStatus) string { return strings.ToLower(string(status)) }

func seconds(t time.Time) float64 { return float64(t.Unix()) }
