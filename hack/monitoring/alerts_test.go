// Package monitoring tests the alerts and monitors of examples/monitoring as promtool and the Prometheus Operator do.
// It is a module of its own, so that the operator does not depend on Prometheus.
package monitoring

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

const (
	root = "../.."
	// interval between two scrapes, and between two looks at the rules.
	interval = 30 * time.Second
)

// begin is when the certificate of the series in internal/metrics/testdata begins. It lasts for 90 days.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// phase is what Prometheus finds for a while.
type phase struct {
	lasts time.Duration
	// situation names a file in internal/metrics/testdata: what the operator shows. Without it the operator is gone.
	situation string
	// pod is the operator's.
	pod string
	// members are those whose metrics are scraped.
	members []member
}

// member is what etcd shows.
type member struct {
	leaderless bool
	// used is the part of the quota that the database uses.
	used float64
	// foreign is a member of another etcd, such as that of Kubernetes itself.
	foreign bool
}

func members(each ...float64) []member {
	var list []member
	for _, used := range each {
		list = append(list, member{used: used})
	}
	return list
}

var cutOff = []member{{leaderless: true}, {leaderless: true}, {leaderless: true}}

func TestAlerts(t *testing.T) {
	const day = 24 * time.Hour
	serve := func(d time.Duration, situation string) phase {
		return phase{lasts: d, situation: situation, members: members(0.1, 0.1, 0.1)}
	}
	with := func(d time.Duration, situation string, m []member) phase {
		return phase{lasts: d, situation: situation, members: m}
	}
	const (
		atRisk     = "EtcdClusterQuorumAtRisk warning"
		lost       = "EtcdClusterQuorumLost critical"
		late       = "EtcdClusterStepPastDeadline warning"
		rolledBack = "EtcdClusterMemberRolledBack warning"
		nearlyFull = "EtcdClusterDatabaseNearQuota warning"
		full       = "EtcdClusterDatabaseNearQuota critical"
		nearEnd    = "EtcdClusterCertificateNearEnd warning"
		ended      = "EtcdClusterCertificateNearEnd critical"
		differ     = "EtcdClusterDataDiffers critical"
		unknown    = "EtcdClusterDataDiffers warning"
		memory     = "EtcdClusterMemoryLost critical"
		blocked    = "EtcdClusterUpgradeBlocked warning"
	)
	for _, c := range []struct {
		name string
		// at is how long after the beginning the first phase begins.
		at     time.Duration
		phases []phase
		firing []string
	}{
		{name: "are silent about a healthy cluster", phases: []phase{serve(time.Hour, "healthy")}},
		{name: "are silent about a cluster that is created", phases: []phase{with(time.Hour, "created", cutOff)}},
		{name: "are silent about a roll", phases: []phase{serve(9*time.Minute, "one-down"), serve(time.Minute, "rolling"), serve(9*time.Minute, "one-down")}},
		{name: "are silent about a new member that copies the data", phases: []phase{serve(time.Hour, "member-copies")}},

		{name: "wait ten minutes while a quorum is at risk", phases: []phase{serve(9*time.Minute, "one-down")}},
		{name: "tell of a quorum at risk", phases: []phase{serve(11*time.Minute, "one-down")}, firing: []string{atRisk}},
		{name: "tell of it while the operator's pod changes", phases: []phase{
			{lasts: 6 * time.Minute, situation: "one-down", pod: "a"}, {lasts: 6 * time.Minute, situation: "one-down", pod: "b"},
		}, firing: []string{atRisk}},
		{name: "still tell of it while no operator leads for a moment", phases: []phase{
			serve(11*time.Minute, "one-down"), with(2*time.Minute, "", nil), serve(time.Minute, "one-down"),
		}, firing: []string{atRisk}},
		{name: "go on for five minutes, so that a member that comes and goes is one alert", phases: []phase{
			serve(11*time.Minute, "one-down"), serve(4*time.Minute, "healthy"),
		}, firing: []string{atRisk}},
		{name: "end once every member is back", phases: []phase{serve(11*time.Minute, "one-down"), serve(6*time.Minute, "healthy")}},

		{name: "leave an election alone", phases: []phase{with(30*time.Second, "quorum-lost", cutOff)}},
		{name: "tell of a lost quorum", phases: []phase{with(2*time.Minute, "quorum-lost", cutOff)}, firing: []string{lost}},
		{name: "tell of it where no member is scraped", phases: []phase{with(2*time.Minute, "quorum-lost", nil)}, firing: []string{lost}},
		{name: "tell of it where the operator is gone", phases: []phase{with(2*time.Minute, "", cutOff)}, firing: []string{lost}},
		{name: "tell of it where the operator cannot tell", phases: []phase{with(2*time.Minute, "operator-cut-off", cutOff)}, firing: []string{lost}},
		{name: "are silent where only the operator is cut off", phases: []phase{serve(time.Hour, "operator-cut-off")}},
		{name: "believe an operator that sees a quorum", phases: []phase{with(time.Hour, "healthy", cutOff)}},
		{name: "are silent where one member still has a leader", phases: []phase{with(time.Hour, "", append(members(0.1), cutOff...))}},

		{name: "leave a step in its time alone", phases: []phase{serve(9*time.Minute, "rolling")}},
		{name: "tell of a restart past its deadline", phases: []phase{serve(3*time.Minute, "rolling-past-deadline")}, firing: []string{late}},
		{name: "tell of a new member past its deadline", phases: []phase{serve(3*time.Minute, "member-copies-long")}, firing: []string{late}},
		{name: "do not tell of a deadline that has just passed", phases: []phase{serve(time.Minute, "rolling-past-deadline")}},

		{name: "are silent while a member goes back", phases: []phase{serve(9*time.Minute, "rolling-back")}},
		{name: "tell of a member that went back", phases: []phase{serve(2*time.Minute, "rolled-back")}, firing: []string{rolledBack}},
		{name: "tell of one that is down all the same", phases: []phase{serve(11*time.Minute, "rolled-back-and-down")},
			firing: []string{rolledBack, atRisk}},
		{name: "end once the spec is corrected", phases: []phase{serve(time.Hour, "rolled-back"), serve(6*time.Minute, "healthy")}},

		{name: "leave a database with room alone", phases: []phase{with(time.Hour, "healthy", members(0.79, 0.5, 0.79))}},
		{name: "wait for a database that shrinks again", phases: []phase{
			with(4*time.Minute, "healthy", members(0.1, 0.9, 0.1)), serve(4*time.Minute, "healthy"),
		}},
		{name: "tell once of a database near its quota", phases: []phase{with(6*time.Minute, "healthy", members(0.81, 0.85, 0.1))},
			firing: []string{nearlyFull}},
		{name: "tell it more loudly at 95%", phases: []phase{
			with(time.Hour, "healthy", members(0.1, 0.9, 0.1)), with(11*time.Minute, "healthy", members(0.1, 0.96, 0.1)),
		}, firing: []string{full}},
		{name: "do not end between the two", phases: []phase{
			with(time.Hour, "healthy", members(0.1, 0.9, 0.1)), with(4*time.Minute, "healthy", members(0.1, 0.96, 0.1)),
		}, firing: []string{nearlyFull}},
		{name: "tell of a full one where no member is scraped", phases: []phase{with(6*time.Minute, "no-space", nil)}, firing: []string{full}},
		{name: "are silent about a quota that is turned off", phases: []phase{with(time.Hour, "healthy", members(-1e9))}},

		{name: "leave a short comparison of the data alone", phases: []phase{serve(4*time.Minute, "corrupt"), serve(time.Hour, "data-agree")}},
		{name: "tell of data that are not compared while there is an alarm", phases: []phase{serve(6*time.Minute, "corrupt")},
			firing: []string{unknown}},
		{name: "tell of data that cannot be compared", phases: []phase{serve(6*time.Minute, "data-too-large")}, firing: []string{unknown}},
		{name: "wait five minutes, in which a member that differs may be replaced", phases: []phase{serve(4*time.Minute, "data-differ")}},
		{name: "tell of data that differ", phases: []phase{serve(6*time.Minute, "data-differ")}, firing: []string{differ}},
		{name: "tell of data without a majority", phases: []phase{serve(6*time.Minute, "data-no-majority")}, firing: []string{differ}},
		{name: "tell more loudly of data that turn out to differ", phases: []phase{
			serve(6*time.Minute, "data-too-large"), serve(11*time.Minute, "data-differ"),
		}, firing: []string{differ}},
		{name: "end once the data agree", phases: []phase{serve(time.Hour, "data-differ"), serve(6*time.Minute, "data-agree")}},

		{name: "tell of data that are lost with the memory, and of no volumes", phases: []phase{with(2*time.Minute, "memory-lost", cutOff)},
			firing: []string{memory}},
		{name: "tell of lost memory where no member is scraped", phases: []phase{with(2*time.Minute, "memory-lost", nil)}, firing: []string{memory}},
		{name: "are silent about a member in memory that is replaced", phases: []phase{serve(9*time.Minute, "memory-of-one-lost")}},

		{name: "wait an hour while an upgrade is blocked", phases: []phase{serve(59*time.Minute, "version-skipped")}},
		{name: "tell of an upgrade that stays blocked", phases: []phase{serve(61*time.Minute, "version-skipped")}, firing: []string{blocked}},
		{name: "end once it is not", phases: []phase{serve(2*time.Hour, "version-skipped"), serve(6*time.Minute, "healthy")}},

		{name: "are silent about other etcd clusters", phases: []phase{
			with(time.Hour, "healthy", []member{{foreign: true, leaderless: true, used: 0.99}}),
		}},

		{name: "are silent while a certificate is renewed in time", at: 80 * day, phases: []phase{serve(time.Hour, "healthy")}},
		{name: "tell of a certificate with a tenth of its lifetime left", at: 81 * day, phases: []phase{serve(6*time.Minute, "healthy")},
			firing: []string{nearEnd}},
		{name: "tell it more loudly at the end", at: 89 * day, phases: []phase{serve(6*time.Minute, "healthy")}, firing: []string{ended}},
		{name: "tell of one that has ended", at: 91 * day, phases: []phase{serve(6*time.Minute, "healthy")}, firing: []string{ended}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, alert := range run(t, begin.Add(c.at), c.phases) {
				got = append(got, alert.Labels.Get("alertname")+" "+alert.Labels.Get("severity"))
				checkText(t, alert)
			}
			slices.Sort(got)
			slices.Sort(c.firing)
			if diff := cmp.Diff(c.firing, got); diff != "" {
				t.Errorf("wanted -, got +:\n%s", diff)
			}
		})
	}
}

// checkText makes sure that the texts are about the cluster, and that every template was filled in.
func checkText(t *testing.T, alert *rules.Alert) {
	t.Helper()
	if alert.Labels.Get("namespace") != "shop" || alert.Labels.Get("etcdcluster") != "prod" {
		t.Errorf("got the labels %s", alert.Labels)
	}
	for _, name := range []string{"summary", "description"} {
		text := alert.Annotations.Get(name)
		if !strings.Contains(text, "prod") || !strings.HasSuffix(text, ".") || strings.Contains(text, "no value") ||
			strings.Contains(text, "error") || strings.Contains(text, "{{") || strings.Contains(text, "  ") {
			t.Errorf("%s: %q", name, text)
		}
	}
}

func TestTheTextsHaveTheValue(t *testing.T) {
	for _, c := range []struct {
		at      time.Duration
		members []member
		want    string
	}{
		{0, members(0.1, 0.875, 0.1), "The largest database of a member of etcd cluster shop/prod uses 87.5% of its quota."},
		{24 * time.Hour * 82, nil, "The certificate in Secret shop/prod-server-tls has 8.8"},
		{24 * time.Hour * 90, nil, "The certificate in Secret shop/prod-server-tls has ended. Without"},
	} {
		alerts := run(t, begin.Add(c.at), []phase{{lasts: 6 * time.Minute, situation: "healthy", members: c.members}})
		if len(alerts) != 1 || !strings.Contains(alerts[0].Annotations.Get("description"), c.want) {
			t.Errorf("wanted %q, got %v", c.want, alerts)
		}
	}
}

// run returns the alerts that fire at the end of the phases, as promtool's unit tests of rules find them.
func run(t *testing.T, start time.Time, phases []phase) []*rules.Alert {
	t.Helper()
	loader, err := promqltest.NewLazyLoader(load(t, phases), promqltest.LazyLoaderOpts{
		EnableAtModifier: true, EnableNegativeOffset: true, StartTime: start,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loader.Close() })
	groups := groupsOf(t, loader)
	end := start
	for _, p := range phases {
		end = end.Add(p.lasts)
	}
	for at := start; at.Before(end); at = at.Add(interval) {
		loader.WithSamplesTill(at, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range groups {
				g.Eval(loader.Context(), at)
			}
		})
	}
	return firing(t, groups)
}

func groupsOf(t *testing.T, loader *promqltest.LazyLoader) map[string]*rules.Group {
	t.Helper()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:    rules.EngineQueryFunc(loader.QueryEngine(), loader.Storage()),
		AppendableV2: loader.Storage(),
		Context:      t.Context(),
		NotifyFunc:   func(context.Context, string, ...*rules.Alert) {},
		Logger:       promslog.NewNopLogger(),
	})
	groups, errs := manager.LoadGroups(interval, labels.EmptyLabels(), "", nil, false, ruleFile(t))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return groups
}

func firing(t *testing.T, groups map[string]*rules.Group) []*rules.Alert {
	t.Helper()
	var found []*rules.Alert
	for _, g := range groups {
		for _, rule := range g.AlertingRules() {
			if err := rule.LastError(); err != nil {
				t.Errorf("%s: %v", rule.Name(), err)
			}
			for _, alert := range rule.ActiveAlerts() {
				if alert.State == rules.StateFiring {
					found = append(found, alert)
				}
			}
		}
	}
	return found
}

// load writes what is scraped in promtool's notation: one value for each scrape. A series that is gone is stale.
func load(t *testing.T, phases []phase) string {
	t.Helper()
	values := map[string][]string{} // by series
	scrapes := 0
	for _, p := range phases {
		samples := samplesOf(t, p)
		for range p.lasts / interval {
			for series := range samples {
				if values[series] == nil {
					values[series] = slices.Repeat([]string{"_"}, scrapes)
				}
			}
			for series, list := range values {
				value, scraped := samples[series]
				if !scraped {
					value = "stale"
				}
				values[series] = append(list, value)
			}
			scrapes++
		}
	}
	text := fmt.Sprintf("load %s\n", interval)
	for _, series := range slices.Sorted(maps.Keys(values)) {
		text += "  " + series + " " + strings.Join(values[series], " ") + "\n"
	}
	return text
}

var sample = regexp.MustCompile(`(?m)^(\w+)\{(.*)\} (\S+)$`)

// samplesOf returns the values by series, with the labels that Prometheus adds to what it scrapes.
func samplesOf(t *testing.T, p phase) map[string]string {
	t.Helper()
	samples := map[string]string{}
	if p.situation != "" {
		raw, err := os.ReadFile(filepath.Join(root, "internal", "metrics", "testdata", p.situation+".prom"))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range sample.FindAllStringSubmatch(string(raw), -1) {
			samples[fmt.Sprintf(`%s{%s,job="operator",pod="manager-%s"}`, match[1], match[2], p.pod)] = match[3]
		}
		if len(samples) == 0 {
			t.Fatalf("%s has no sample", p.situation)
		}
	}
	const quota = 2 << 30
	for i, m := range p.members {
		target := fmt.Sprintf(`{namespace="shop",etcdcluster="prod",job="etcd/shop/prod",pod="prod-%d-0"}`, i)
		if m.foreign {
			target = `{namespace="kube-system",job="etcd",pod="etcd-node-1"}`
		}
		leader := "1"
		if m.leaderless {
			leader = "0"
		}
		samples["etcd_server_has_leader"+target] = leader
		samples["etcd_server_quota_backend_bytes"+target] = fmt.Sprint(quota)
		samples["etcd_mvcc_db_total_size_in_bytes"+target] = fmt.Sprint(m.used * quota)
	}
	return samples
}
