package monitoring

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"
	"sigs.k8s.io/yaml"
)

// read decodes an example. A field that the Prometheus Operator does not know is an error.
func read(t *testing.T, file string, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "examples", "monitoring", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(raw, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func alertRules(t *testing.T) monitoringv1.PrometheusRule {
	t.Helper()
	var rule monitoringv1.PrometheusRule
	read(t, "alerts.yaml", &rule)
	return rule
}

// ruleFile writes the rules as Prometheus reads them.
func ruleFile(t *testing.T) string {
	t.Helper()
	raw, err := yaml.Marshal(alertRules(t).Spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheMonitorsAreValid(t *testing.T) {
	var operator monitoringv1.ServiceMonitor
	read(t, "operator.yaml", &operator)
	if len(operator.Spec.Endpoints) != 1 || !operator.Spec.Endpoints[0].HonorLabels {
		t.Errorf("without honorLabels the label namespace is the operator's: %+v", operator.Spec.Endpoints)
	}
	for i := range operator.Spec.Endpoints {
		if err := operator.Spec.Endpoints[i].Validate(); err != nil {
			t.Errorf("operator.yaml: %v", err)
		}
	}
	var members monitoringv1.PodMonitor
	read(t, "members.yaml", &members)
	if !members.Spec.NamespaceSelector.Any || len(members.Spec.PodMetricsEndpoints) != 1 {
		t.Errorf("members.yaml: %+v", members.Spec)
	}
	for i := range members.Spec.PodMetricsEndpoints {
		if err := members.Spec.PodMetricsEndpoints[i].Validate(); err != nil {
			t.Errorf("members.yaml: %v", err)
		}
	}
}

// TestAMembersSeriesHaveTheLabelsOfItsCluster does with a pod what Prometheus does.
func TestAMembersSeriesHaveTheLabelsOfItsCluster(t *testing.T) {
	var monitor monitoringv1.PodMonitor
	read(t, "members.yaml", &monitor)
	builder := labels.NewBuilder(labels.FromStrings(
		"__meta_kubernetes_namespace", "shop", "job", "etcd-warden-system/etcd-warden-members",
		"__meta_kubernetes_pod_label_"+strutil.SanitizeLabelName("operator.etcd-warden.io/cluster"), "prod",
	))
	for _, r := range monitor.Spec.PodMetricsEndpoints[0].RelabelConfigs {
		config := relabel.DefaultRelabelConfig
		config.NameValidationScheme, config.TargetLabel = model.UTF8Validation, r.TargetLabel
		for _, name := range r.SourceLabels {
			config.SourceLabels = append(config.SourceLabels, model.LabelName(name))
		}
		if r.Separator != nil {
			config.Separator = *r.Separator
		}
		if r.Replacement != nil {
			config.Replacement = *r.Replacement
		}
		if err := config.Validate(model.UTF8Validation); err != nil {
			t.Fatal(err)
		}
		relabel.ProcessBuilder(builder, &config)
	}
	if got := builder.Labels(); got.Get("etcdcluster") != "prod" || got.Get("job") != "etcd/shop/prod" {
		t.Errorf("got %s", got)
	}
}

func TestEachAlertHasARunbook(t *testing.T) {
	var names []string
	for _, group := range alertRules(t).Spec.Groups {
		for _, rule := range group.Rules {
			names = append(names, strings.TrimPrefix(rule.Alert, "EtcdCluster"))
			if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s has no severity, no summary or no description", rule.Alert)
			}
			checkRunbook(t, rule)
		}
	}
	want := []string{
		"QuorumAtRisk", "QuorumLost", "StepPastDeadline", "MemberRolledBack", "DatabaseNearQuota", "CertificateNearEnd",
		"DataDiffers", "MemoryLost", "UpgradeBlocked",
	}
	if !slices.Equal(names, want) {
		t.Errorf("wanted %v, got %v", want, names)
	}
}

func checkRunbook(t *testing.T, rule monitoringv1.Rule) {
	t.Helper()
	const site = "https://github.com/etcd-warden/etcd-warden/blob/main/"
	path, ok := strings.CutPrefix(rule.Annotations["runbook_url"], site)
	if !ok {
		t.Errorf("%s: the runbook is not at %s", rule.Alert, site)
	}
	page, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Error(err)
		return
	}
	if !strings.HasPrefix(string(page), "# "+rule.Alert+"\n") {
		t.Errorf("%s is not about %s", path, rule.Alert)
	}
	for _, heading := range []string{"What it means", "Why it fires", "See the cause", "What to do", "When to leave it alone"} {
		if !strings.Contains(string(page), "\n## "+heading+"\n") {
			t.Errorf("%s does not say %q", path, heading)
		}
	}
}

// TestTheAlertsReadMetricsThatExist looks the operator's metrics up in docs/metrics.md, which a test holds against the
// code. Those of etcd are asked of real members in test/integration/etcd.
func TestTheAlertsReadMetricsThatExist(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	operator, etcd := map[string]bool{}, map[string]bool{}
	for _, group := range alertRules(t).Spec.Groups {
		for _, rule := range group.Rules {
			expression, err := parser.NewParser(parser.Options{}).ParseExpr(rule.Expr.String())
			if err != nil {
				t.Fatal(err)
			}
			for _, selectors := range parser.ExtractSelectors(expression) {
				for _, matcher := range selectors {
					switch {
					case matcher.Name != model.MetricNameLabel:
					case strings.HasPrefix(matcher.Value, "etcd_warden_"):
						operator[matcher.Value] = true
					default:
						etcd[matcher.Value] = true
					}
				}
			}
		}
	}
	for name := range operator {
		if !regexp.MustCompile("(?m)^\\| `" + name + "` \\|").Match(page) {
			t.Errorf("the operator has no metric %s", name)
		}
	}
	if len(operator) == 0 || len(etcd) == 0 {
		t.Errorf("the alerts read %v and %v", operator, etcd)
	}
}
