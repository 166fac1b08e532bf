//go:build integration

package etcd

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
)

// TestRealMembersHaveTheMetricsThatTheAlertsRead holds examples/monitoring/alerts.yaml against each minor version.
func TestRealMembersHaveTheMetricsThatTheAlertsRead(t *testing.T) {
	alerts, err := os.ReadFile("../../../examples/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\betcd_\w+(?:\{)`).FindAllString(string(alerts), -1) {
		if name = name[:len(name)-1]; name[:len("etcd_w")] != "etcd_w" { // the operator's
			named[name] = true
		}
	}
	if len(named) == 0 {
		t.Fatal("the alerts read no metric of etcd")
	}
	eachMinor(t, func(t *testing.T, l *lab) {
		t.Parallel()
		l.serverArguments = []string{"--quota-backend-bytes=3000000000", "--listen-metrics-urls=" + l.metricsURL("prod-0")}
		if err := l.Start(t, "prod-0", rules.Initial{State: "new", Members: []string{"prod-0"}, Token: "metrics"}); err != nil {
			t.Fatal(err)
		}
		awaitWrites(t, l, "prod-0")
		got := l.metrics(t, "prod-0")
		for name := range named {
			if _, ok := got[name]; !ok {
				t.Errorf("there is no %s", name)
			}
		}
		if got["etcd_server_has_leader"] != 1 || got["etcd_server_quota_backend_bytes"] != 3e9 || got["etcd_mvcc_db_total_size_in_bytes"] <= 0 {
			t.Errorf("got %v", got)
		}
	})
}

func TestARealMemberWithoutALeaderSaysSo(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		t.Parallel()
		l.serverArguments = []string{"--quota-backend-bytes=-1", "--listen-metrics-urls=" + l.metricsURL("prod-0")}
		if err := l.Start(t, "prod-0", rules.Initial{State: "new", Members: []string{"prod-0", "prod-1"}, Token: "metrics"}); err != nil {
			t.Fatal(err)
		}
		got := l.metrics(t, "prod-0")
		if leader, ok := got["etcd_server_has_leader"]; !ok || leader != 0 {
			t.Errorf("got %v", got)
		}
		if quota := got["etcd_server_quota_backend_bytes"]; quota >= 0 {
			t.Errorf("a quota that is turned off is %v: the alert would divide by it", quota)
		}
	})
}

// metricsURL is on a port of its own, as the operator's members have it: it opens before there is a leader.
func (l *lab) metricsURL(name string) string { return "http://" + l.host(name) + ":2381" }

// metrics returns the values of a member's metrics that have no labels.
func (l *lab) metrics(t *testing.T, name string) map[string]float64 {
	t.Helper()
	for end := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		response, err := http.Get(l.metricsURL(name) + "/metrics")
		if err == nil {
			text, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("%s: %v", response.Status, err)
			}
			return valuesOf(t, string(text))
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func valuesOf(t *testing.T, text string) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for _, match := range regexp.MustCompile(`(?m)^(\w+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		values[match[1]] = value
	}
	return values
}
