package controllers

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/observe"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// logged returns a context that logs into lines.
func logged(t *testing.T, lines *[]string) context.Context {
	return ctrl.LoggerInto(t.Context(), funcr.New(func(_, line string) { *lines = append(*lines, line) }, funcr.Options{}))
}

func TestLogsOneLineAtEachChangeOfADecision(t *testing.T) {
	healthy := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
	refusal := func(guard string) []plan.Refusal { return []plan.Refusal{{Guard: guard, Reason: "QuorumAtRisk"}} }
	steps := []struct {
		what     string
		decision plan.Decision
		want     []string // parts of the line; none where nothing is logged
	}{
		{"the first decision", plan.Decision{Reason: "UpToDate", Message: "As the spec says."},
			[]string{`"reason"="UpToDate"`, `"message"="As the spec says."`, `"quorum"="3 of 3 voters are healthy, and the quorum is 2"`}},
		{"the same again", plan.Decision{Reason: "UpToDate", Message: "As the spec says."}, nil},
		{"another message", plan.Decision{Reason: "UpToDate", Message: "Still as the spec says."}, nil},
		{"another rule", plan.Decision{Rule: "Scale", Reason: "UpToDate"}, []string{`"rule"="Scale"`}},
		{"another reason", plan.Decision{Rule: "Scale", Reason: "QuorumAtRisk"}, []string{`"reason"="QuorumAtRisk"`}},
		{"a guard refuses", plan.Decision{Rule: "Scale", Reason: "QuorumAtRisk", Refusals: refusal("quorumSurvives")},
			[]string{`"refusedBy"=["quorumSurvives"]`}},
		{"it still does", plan.Decision{Rule: "Scale", Reason: "QuorumAtRisk", Refusals: refusal("quorumSurvives")}, nil},
		{"another guard refuses", plan.Decision{Rule: "Scale", Reason: "QuorumAtRisk", Refusals: refusal("noAlarm")},
			[]string{`"refusedBy"=["noAlarm"]`}},
		{"a restart", plan.Decision{Rule: "AuthorityRotation", Reason: "RotatingAuthorities", Action: plan.RestartMember{Name: "prod-1"}},
			[]string{`"member"="prod-1"`, `"quorumDuringRestart"="2 of 3 voters are healthy, and the quorum is 2"`}},
		{"the deletion", plan.Decision{Rule: analyse.RuleDeletion, Reason: "Deleting"}, []string{`"rule"="Deletion"`}},
	}
	var l decisionLog
	for _, step := range steps {
		var lines []string
		l.record(logged(t, &lines), &healthy, &step.decision)
		if len(lines) > 1 || len(lines) == 1 != (step.want != nil) {
			t.Errorf("%s: logged %q", step.what, lines)
		}
		for _, part := range step.want {
			if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, part) }) {
				t.Errorf("%s: %q lacks %q", step.what, lines, part)
			}
		}
		if step.decision.Rule == analyse.RuleDeletion && strings.Contains(strings.Join(lines, ""), "voters") {
			t.Errorf("the quorum of a deleted cluster, which was not asked, is logged: %q", lines)
		}
	}
}

func TestLogsTheDecisionsOfEveryClusterApart(t *testing.T) {
	var lines []string
	var l decisionLog
	d := plan.Decision{Reason: "UpToDate"}
	first, second := MakeCluster("prod").Snapshot(), MakeCluster("test").Snapshot()
	for range 3 {
		for _, s := range []*cluster.Snapshot{&first, &second} {
			l.record(logged(t, &lines), s, &d)
		}
	}
	again := MakeCluster("prod").Snapshot()
	again.Cluster.UID = "uid-2"
	l.record(logged(t, &lines), &again, &d)
	if len(lines) != 3 {
		t.Errorf("two clusters, and one made again under the same name, log %q", lines)
	}
}

func TestForgetsTheDecisionsOfADeletedCluster(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1beta1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	s := MakeCluster("prod").Snapshot()
	r := &EtcdClusterReconciler{Observer: &observe.Observer{Reader: fake.NewClientBuilder().WithScheme(scheme).Build()}}
	var lines []string
	r.decisions.record(logged(t, &lines), &s, &plan.Decision{Reason: "UpToDate"})
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: s.Cluster.Key()}); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.decisions.last.Load(s.Cluster.Key()); ok {
		t.Error("a cluster that does not exist any more is remembered")
	}
}
