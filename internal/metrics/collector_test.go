package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

var update = flag.Bool("update", false, "write the golden files and the table of docs/metrics.md anew")

// begin is when certificates and operations of the tests begin.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// quarter is a certificate of 90 days, as the operator makes them.
var quarter = cluster.Validity{Secret: "prod-server-tls", NotBefore: begin, NotAfter: begin.AddDate(0, 0, 90)}

// fakeCache lists clusters.
type fakeCache struct {
	client.Reader
	items []v1beta1.EtcdCluster
	err   error
}

func (f fakeCache) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if to, ok := list.(*v1beta1.EtcdClusterList); ok {
		to.Items = append([]v1beta1.EtcdCluster{}, f.items...)
	}
	return f.err
}

// collectorOf shows the clusters, each with these certificates, an hour after the beginning.
func collectorOf(certificates []cluster.Validity, clusters ...v1beta1.EtcdCluster) *Collector {
	elected := make(chan struct{})
	close(elected)
	return &Collector{
		Reader: fakeCache{items: clusters}, Elected: elected, Now: func() time.Time { return begin.Add(time.Hour) },
		Validities: func(client.ObjectKey) []cluster.Validity { return certificates },
	}
}

func gather(t *testing.T, collectors ...prometheus.Collector) []*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// text is what a scrape gets.
func text(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var b bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&b, family); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: wanted -, got + (go test ./internal/metrics -update writes it):\n%s", file, diff)
	}
}

var (
	readyLine     = regexp.MustCompile(`(?m)^(\d+) of (\d+) ready`)
	operationLine = regexp.MustCompile(`(?m)^(\w+) of (\S*) for (\w*), waiting for`)
	conditionLine = regexp.MustCompile(`(?m)^(\w+)=(\w+) (\w+)$`)
)

// situation reads a golden file of internal/status: the status in a situation.
func situation(t *testing.T, name string) v1beta1.EtcdCluster {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "status", "testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	c := v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prod"}}
	c.Spec.Replicas = 3
	if ready := readyLine.FindStringSubmatch(string(raw)); ready != nil {
		c.Status.ReadyReplicas, c.Status.Replicas = number(t, ready[1]), number(t, ready[2])
	}
	if op := operationLine.FindStringSubmatch(string(raw)); op != nil {
		c.Status.Operation = &v1beta1.Operation{
			Type: v1beta1.OperationType(op[1]), Member: op[2], Reason: op[3], StartedAt: metav1.NewTime(begin),
		}
	}
	for _, match := range conditionLine.FindAllStringSubmatch(string(raw), -1) {
		c.Status.Conditions = append(c.Status.Conditions,
			metav1.Condition{Type: match[1], Status: metav1.ConditionStatus(match[2]), Reason: match[3]})
	}
	if len(c.Status.Conditions) == 0 {
		t.Fatalf("%s has no condition", name)
	}
	return c
}

func number(t *testing.T, digits string) int32 {
	t.Helper()
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

// TestShowsEachSituation also makes the series from which hack/monitoring tests the alerts.
func TestShowsEachSituation(t *testing.T) {
	for _, name := range []string{
		"healthy", "created", "one-down", "quorum-lost", "operator-cut-off", "rolling", "rolling-past-deadline",
		"member-copies", "member-copies-long", "rolling-back", "rolled-back", "rolled-back-and-down", "no-space", "corrupt",
		"data-agree", "data-differ", "data-no-majority", "data-too-large", "memory-lost", "memory-of-one-lost", "version-skipped",
	} {
		t.Run(name, func(t *testing.T) {
			got := text(t, gather(t, collectorOf([]cluster.Validity{quarter}, situation(t, name))))
			compare(t, filepath.Join("testdata", name+".prom"), got)
		})
	}
}

func TestShowsNothingWhileAnotherOperatorLeads(t *testing.T) {
	c := collectorOf(nil, situation(t, "healthy"))
	c.Elected = make(chan struct{})
	if got := text(t, gather(t, c)); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestAScrapeFailsWhereTheClustersCannotBeRead(t *testing.T) {
	c := collectorOf(nil)
	c.Reader = fakeCache{err: errors.New("the cache is not started")}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	if _, err := registry.Gather(); err == nil || !strings.Contains(err.Error(), "listing EtcdClusters: the cache is not started") {
		t.Errorf("got %v", err)
	}
}

// A tenant who may write a status could otherwise make as many series as it likes.
func TestAConditionThatIsNotTheOperatorsIsNotShown(t *testing.T) {
	c := situation(t, "healthy")
	c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{Type: "Mine", Status: metav1.ConditionTrue, Reason: "Forged"})
	if got := text(t, gather(t, collectorOf(nil, c))); strings.Contains(got, "Forged") || !strings.Contains(got, "QuorumServing") {
		t.Errorf("got %s", got)
	}
}

func TestShowsEveryConditionOfTheAPI(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "..", "api", "v1beta1", "conditions.go"))
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^\tCondition\w+ = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(declared) != len(conditions) {
		t.Errorf("the API has %d conditions, and %d are shown", len(declared), len(conditions))
	}
	for _, match := range declared {
		if !conditions[match[1]] {
			t.Errorf("condition %s is not shown", match[1])
		}
	}
}

func TestShowsTheCertificateWithTheSmallestPartOfItsLifetimeLeft(t *testing.T) {
	day := cluster.Validity{Secret: "day", NotBefore: begin, NotAfter: begin.AddDate(0, 0, 1)}
	year := cluster.Validity{Secret: "year", NotBefore: begin.AddDate(0, 0, -355), NotAfter: begin.AddDate(0, 0, 10)}
	ended := cluster.Validity{Secret: "ended", NotBefore: begin.AddDate(0, 0, -9), NotAfter: begin.AddDate(0, 0, -1)}
	for _, c := range []struct {
		name string
		list []cluster.Validity
		want string
	}{
		{"one of a year that ends in ten days, beside one that was issued today for a day", []cluster.Validity{day, year}, "year"},
		{"in whatever order they come", []cluster.Validity{year, day}, "year"},
		{"one that has ended", []cluster.Validity{year, ended, day}, "ended"},
		{"the only one", []cluster.Validity{day}, "day"},
		{"none without TLS", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := text(t, gather(t, collectorOf(c.list, situation(t, "healthy"))))
			secrets := regexp.MustCompile(`secret="(\w+)"`).FindAllStringSubmatch(got, -1)
			if c.want == "" && len(secrets) == 0 {
				return
			}
			if len(secrets) != 2 || secrets[0][1] != c.want || secrets[1][1] != c.want {
				t.Errorf("wanted %q, got %v", c.want, secrets)
			}
		})
	}
}

func TestCountsEveryRefusalOfEachPass(t *testing.T) {
	frozen := plan.Refusal{Guard: "notFrozen", Reason: v1beta1.ReasonFrozen, Message: "shop is frozen."}
	down := plan.Refusal{Guard: "membersHealthy", Reason: v1beta1.ReasonMembersNotHealthy}
	r := NewRefusals()
	r.Count([]plan.Refusal{frozen, down})
	r.Count([]plan.Refusal{frozen})
	r.Count(nil)
	want := `# HELP etcd_warden_refusals_total Steps and writes that a guard refused, counted again in each pass over a cluster while the refusal lasts.
# TYPE etcd_warden_refusals_total counter
etcd_warden_refusals_total{guard="membersHealthy",reason="MembersNotHealthy"} 1
etcd_warden_refusals_total{guard="notFrozen",reason="Frozen"} 2
`
	if diff := cmp.Diff(want, text(t, gather(t, r))); diff != "" {
		t.Errorf("wanted -, got +:\n%s", diff)
	}
	(*Refusals)(nil).Count([]plan.Refusal{frozen}) // an operator without metrics
}

// everything is a sample of every metric.
func everything(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	r := NewRefusals()
	r.Count([]plan.Refusal{{Guard: "notFrozen", Reason: v1beta1.ReasonFrozen}})
	return gather(t, r, collectorOf([]cluster.Validity{quarter}, situation(t, "member-copies")))
}

func TestTheNamesAreAsPrometheusWantsThem(t *testing.T) {
	families := everything(t)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "etcd_warden_") {
			t.Errorf("%s has not the operator's prefix", f.GetName())
		}
	}
}

// TestThePageHasEveryMetric writes the table with -update.
func TestThePageHasEveryMetric(t *testing.T) {
	const begins, ends = "<!-- begin of the table -->\n", "<!-- end of the table -->\n"
	table := begins + "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"
	registered := 0
	for _, f := range everything(t) {
		registered++
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n",
			f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	described := make(chan *prometheus.Desc, 100)
	(&Collector{}).Describe(described)
	NewRefusals().Describe(described)
	if registered != len(described) {
		t.Errorf("%d metrics are registered, and the sample has %d", len(described), registered)
	}
	file := filepath.Join("..", "..", "docs", "metrics.md")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(raw), begins)
	_, after, closed := strings.Cut(rest, ends)
	if !found || !closed {
		t.Fatalf("%s has no table", file)
	}
	compare(t, file, before+table+ends+after)
}

// BenchmarkScrapeOf10000Clusters is what docs/metrics.md says a scrape of a fleet costs.
func BenchmarkScrapeOf10000Clusters(b *testing.B) {
	clusters := make([]v1beta1.EtcdCluster, 10000)
	for i := range clusters {
		clusters[i].Namespace, clusters[i].Name = fmt.Sprintf("namespace-%d", i), "prod"
		for name := range conditions {
			clusters[i].Status.Conditions = append(clusters[i].Status.Conditions,
				metav1.Condition{Type: name, Status: metav1.ConditionFalse, Reason: v1beta1.ReasonAsExpected})
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectorOf([]cluster.Validity{quarter, quarter, quarter, quarter}, clusters...))
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	request := httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
	request.Header.Set("Accept-Encoding", "gzip")
	b.ReportAllocs()
	for b.Loop() {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusOK {
			b.Fatal(answer.Body)
		}
		b.ReportMetric(float64(answer.Body.Len()), "gzipped-B")
	}
}
