// Package gitops tests what the examples tell Argo CD and Flux about the health of clusters, with their own libraries.
package gitops

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	examples = "../../examples/gitops"
	// situations are the statuses that the operator writes: golden files.
	situations = "../../internal/status/testdata"
)

// verdict is what Argo CD and Flux say of a situation.
type verdict struct{ argo, flux string }

var (
	healthy     = verdict{"Healthy", "Current"}
	progressing = verdict{"Progressing", "InProgress"}
	suspended   = verdict{"Suspended", "InProgress"}
	degraded    = verdict{"Degraded", "Failed"}
)

// verdicts has each situation. A cluster is degraded while its data are in danger, and where the operator does not go
// on without its user, as far as the conditions tell.
var verdicts = map[string]verdict{
	"all-volumes-lost":                 degraded,
	"change-not-supported":             progressing,
	"claim-without-record":             progressing,
	"cluster-id-conflict":              degraded,
	"corrupt":                          degraded,
	"corrupt-and-frozen":               degraded,
	"corrupt-and-no-space":             degraded,
	"corrupt-and-paused":               degraded,
	"created":                          progressing,
	"data-agree":                       healthy,
	"data-being-compared":              degraded,
	"data-differ":                      degraded,
	"data-no-majority":                 degraded,
	"data-too-large":                   degraded,
	"election-too-long":                degraded,
	"foreign-secret":                   degraded,
	"foreign-secret-and-paused":        suspended,
	"foreign-secrets-that-are-lost":    degraded,
	"foreign-service":                  degraded,
	"foreign-service-beside-a-cluster": degraded,
	"founder-wiped":                    progressing,
	"healthy":                          healthy,
	"healthy-single":                   healthy,
	"image-not-pulled":                 progressing,
	"member-added":                     progressing,
	"member-copies":                    progressing,
	"member-copies-long":               degraded,
	"member-removed":                   progressing,
	"memory-emptied":                   degraded,
	"memory-lost":                      degraded,
	"memory-of-one-lost":               progressing,
	"memory-records-lost":              degraded,
	"network-cut-off":                  progressing,
	"network-slow":                     progressing,
	"no-pod-ready":                     progressing,
	"no-space":                         degraded,
	"node-deleted":                     progressing,
	"node-unknown":                     progressing,
	"old-version":                      healthy,
	"one-down":                         progressing,
	"one-down-of-five":                 progressing,
	"one-never-scheduled":              progressing,
	"one-never-started":                progressing,
	"one-without-statefulset":          progressing,
	"operator-cut-off":                 progressing,
	"partly-started":                   progressing,
	"paused":                           suspended,
	"pods-never-started":               progressing,
	"pods-not-created":                 progressing,
	"previous-leaving":                 progressing,
	"quorum-lost":                      degraded,
	"registered-by-hand":               progressing,
	"removed-by-hand":                  progressing,
	"rolled-back":                      degraded,
	"rolled-back-and-down":             degraded,
	"rolling":                          progressing,
	"rolling-and-waiting":              progressing,
	"rolling-back":                     progressing,
	"rolling-past-deadline":            degraded,
	"secret-missing":                   degraded,
	"secret-missing-and-pods-gone":     degraded,
	"secret-missing-at-first":          degraded,
	"secret-unreadable":                degraded,
	"starting":                         progressing,
	"taking-back":                      progressing,
	"template-newer":                   healthy,
	"version-skipped":                  degraded,
	"volume-lost":                      progressing,
	"volume-replaced":                  progressing,
	"volume-replaced-unbound":          progressing,
	"volumes-partly-made":              progressing,
}

func TestTheHealthOfClustersAsArgoCDAndFluxSeeIt(t *testing.T) {
	script := luaScript(t)
	evaluator := fluxEvaluator(t)
	files, err := filepath.Glob(filepath.Join(situations, "*.txt"))
	if err != nil || len(files) != len(verdicts) {
		t.Errorf("there are %d verdicts on %d situations: %v", len(verdicts), len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			want, isKnown := verdicts[name]
			if !isKnown {
				t.Fatal("it has no verdict")
			}
			cluster := situation(t, name)
			argo, message := argoHealth(t, script, cluster)
			if argo != want.argo || message == "" {
				t.Errorf("Argo CD says %s: %q, want %s", argo, message, want.argo)
			}
			flux, err := evaluator.Evaluate(t.Context(), cluster)
			if err != nil || string(flux.Status) != want.flux {
				t.Errorf("Flux says %v, %v, want %s", flux, err, want.flux)
			}
		})
	}
}

func TestArgoCDTellsWhatAClusterWaitsFor(t *testing.T) {
	for name, want := range map[string]string{
		"rolling":          "0 of 3 members have been restarted",
		"one-down":         "2 of 3 members are ready. prod-1",
		"partly-started":   "Waiting until all members serve. 2 of 3 voters are healthy",
		"no-pod-ready":     "but no pod is ready",
		"previous-leaving": "StatefulSet prod-0 belongs to the deleted cluster",
		"paused":           "spec.paused",
		"foreign-secret":   "Otherwise rename or delete it.",
		"data-no-majority": "No majority of all members agrees",
	} {
		if _, message := argoHealth(t, luaScript(t), situation(t, name)); !strings.Contains(message, want) {
			t.Errorf("%s: %q, want %q", name, message, want)
		}
	}
}

// A first wave that is held back must hold back the second one.
func TestAChangeThatWaitsIsInProgress(t *testing.T) {
	for _, reason := range []string{
		"Frozen", "RollsStopped", "WaitingForOtherClusters", "NotYetSupported", "QuorumAtRisk", "DisruptionNotAllowed", "MembersNotHealthy",
	} {
		cluster := situation(t, "healthy")
		conditions, _, _ := unstructured.NestedSlice(cluster.Object, "status", "conditions")
		for _, c := range conditions {
			if condition, ok := c.(map[string]any); ok && condition["type"] == "Progressing" {
				condition["reason"], condition["message"] = reason, "It waits."
			}
		}
		if err := unstructured.SetNestedSlice(cluster.Object, conditions, "status", "conditions"); err != nil {
			t.Fatal(err)
		}
		if argo, message := argoHealth(t, luaScript(t), cluster); argo != progressing.argo || message != "It waits." {
			t.Errorf("%s: Argo CD says %s: %s", reason, argo, message)
		}
		if flux, err := fluxEvaluator(t).Evaluate(t.Context(), cluster); err != nil || string(flux.Status) != progressing.flux {
			t.Errorf("%s: Flux says %v, %v", reason, flux, err)
		}
	}
}

func TestAChangedSpecThatTheOperatorHasNotSeenIsInProgress(t *testing.T) {
	cluster := situation(t, "healthy")
	cluster.SetGeneration(8)
	if argo, message := argoHealth(t, luaScript(t), cluster); argo != "Progressing" {
		t.Errorf("Argo CD says %s: %s", argo, message)
	}
	if flux, err := fluxEvaluator(t).Evaluate(t.Context(), cluster); err != nil || string(flux.Status) != "InProgress" {
		t.Errorf("Flux says %v, %v", flux, err)
	}
	delete(cluster.Object, "status")
	if argo, message := argoHealth(t, luaScript(t), cluster); argo != "Progressing" {
		t.Errorf("without a status Argo CD says %s: %s", argo, message)
	}
	if flux, err := fluxEvaluator(t).Evaluate(t.Context(), cluster); err == nil && string(flux.Status) != "InProgress" {
		t.Errorf("without a status Flux says %v", flux) // an error makes it ask again
	}
}

// Of a type without a condition Ready, Flux asks by itself only whether its controller has seen the spec.
func TestWithoutExpressionsFluxWaitsForNoMoreThanThatTheOperatorHasSeenTheSpec(t *testing.T) {
	for name := range verdicts {
		cluster := situation(t, name)
		if result, err := status.Compute(cluster); err != nil || result.Status != status.CurrentStatus {
			t.Errorf("%s: %v, %v", name, result, err)
		}
		cluster.SetGeneration(8)
		if result, err := status.Compute(cluster); err != nil || result.Status != status.InProgressStatus {
			t.Errorf("%s, a changed spec: %v, %v", name, result, err)
		}
	}
}

func TestEachWaveWaitsForTheOneBefore(t *testing.T) {
	waves, before := []string{"first", "rest"}, "etcd-warden"
	var set struct {
		Spec struct {
			Generators []struct {
				List struct{ Elements []struct{ Wave string } }
			}
			Strategy struct {
				RollingSync struct {
					Steps []struct {
						MatchExpressions []metav1.LabelSelectorRequirement
					}
				}
			}
		}
	}
	decode(t, "argocd-applicationset.yaml", 0, &set)
	elements, steps := set.Spec.Generators[0].List.Elements, set.Spec.Strategy.RollingSync.Steps
	if len(elements) != len(waves) || len(steps) != len(waves) {
		t.Fatalf("Argo CD has %d waves in %d steps, want %d", len(elements), len(steps), len(waves))
	}
	for i, wave := range waves {
		if got := steps[i].MatchExpressions[0]; elements[i].Wave != wave || got.Key != "wave" || !slices.Equal(got.Values, []string{wave}) {
			t.Errorf("Argo CD: wave %s is step %v", elements[i].Wave, got)
		}
		got := fluxKustomization(t, "flux-waves.yaml", "wave-"+wave)
		if got.Spec.Path != "./waves/"+wave || len(got.Spec.DependsOn) != 1 || got.Spec.DependsOn[0].Name != before || !got.Spec.Wait {
			t.Errorf("Flux: wave %s is %+v", wave, got)
		}
		if want := fluxKustomization(t, "flux.yaml", "databases").Spec.HealthCheckExprs; !reflect.DeepEqual(got.Spec.HealthCheckExprs, want) {
			t.Errorf("Flux: wave %s has health checks of its own", wave)
		}
		if _, err := os.Stat(filepath.Join(examples, "waves", wave, "kustomization.yaml")); err != nil {
			t.Error(err)
		}
		before = got.Metadata.Name
	}
}

func TestTheOperatorIsInstalledBeforeItsClusters(t *testing.T) {
	var application struct {
		Spec struct{ Sources []struct{ Path string } }
	}
	decode(t, "argocd-application.yaml", 0, &application)
	var operator struct {
		Resources         []string
		CommonAnnotations map[string]string
	}
	decode(t, "operator/kustomization.yaml", 0, &operator)
	if operator.CommonAnnotations["argocd.argoproj.io/sync-wave"] != "-1" || !slices.Equal(operator.Resources, []string{"install.yaml"}) {
		t.Errorf("Argo CD: the operator is %+v", operator)
	}
	first, second := fluxKustomization(t, "flux.yaml", "etcd-warden"), fluxKustomization(t, "flux.yaml", "databases")
	if len(second.Spec.DependsOn) != 1 || second.Spec.DependsOn[0].Name != first.Metadata.Name || !first.Spec.Wait || !second.Spec.Wait {
		t.Errorf("Flux: the clusters are %+v", second)
	}
	for i, k := range []kustomization{first, second} {
		if len(application.Spec.Sources) != 2 || "./"+application.Spec.Sources[i].Path != k.Spec.Path {
			t.Errorf("Argo CD reads %v, and Flux %s", application.Spec.Sources, k.Spec.Path)
		}
	}
}

// situation returns a cluster with the conditions of a golden file.
func situation(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	file, err := os.Open(filepath.Join(situations, name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var conditions []any
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		kind, rest, isCondition := strings.Cut(lines.Text(), "=")
		state, reason, _ := strings.Cut(rest, " ")
		if !isCondition || !slices.Contains([]string{"True", "False", "Unknown"}, state) {
			continue
		}
		lines.Scan()
		conditions = append(conditions, map[string]any{"type": kind, "status": state, "reason": reason, "message": strings.TrimSpace(lines.Text())})
	}
	if len(conditions) == 0 {
		t.Fatalf("%s has no conditions", name)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "operator.etcd-warden.io/v1beta1", "kind": "EtcdCluster",
		"metadata": map[string]any{"name": "prod", "generation": int64(7)},
		"spec":     map[string]any{},
		"status":   map[string]any{"observedGeneration": int64(7), "conditions": conditions},
	}}
}

// decode reads a document of the examples.
func decode(t *testing.T, file string, document int, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(examples, file))
	if err != nil {
		t.Fatal(err)
	}
	documents := strings.Split(string(raw), "\n---\n")
	if document >= len(documents) {
		t.Fatalf("%s has %d documents, not the one that is wanted", file, len(documents))
	}
	if err := yaml.Unmarshal([]byte(documents[document]), into); err != nil {
		t.Fatal(err)
	}
}

func luaScript(t *testing.T) string {
	t.Helper()
	var settings struct{ Data map[string]string }
	decode(t, "argocd-cm.yaml", 0, &settings)
	script := settings.Data["resource.customizations.health.operator.etcd-warden.io_EtcdCluster"]
	if script == "" {
		t.Fatal("there is no health check")
	}
	return script
}

// argoHealth runs a health check as Argo CD does: without libraries for files and processes, the object in obj.
func argoHealth(t *testing.T, script string, object *unstructured.Unstructured) (status, message string) {
	t.Helper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	raw, err := json.Marshal(object.Object)
	if err != nil {
		t.Fatal(err)
	}
	var plain map[string]any
	if err := json.Unmarshal(raw, &plain); err != nil {
		t.Fatal(err)
	}
	state.SetGlobal("obj", toLua(state, plain))
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the health check returns %v", state.Get(-1))
	}
	return lua.LVAsString(health.RawGetString("status")), lua.LVAsString(health.RawGetString("message"))
}

func toLua(state *lua.LState, value any) lua.LValue {
	table := state.NewTable()
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			table.RawSetString(key, toLua(state, item))
		}
	case []any:
		for _, item := range v {
			table.Append(toLua(state, item))
		}
	case string:
		return lua.LString(v)
	case float64:
		return lua.LNumber(v)
	case bool:
		return lua.LBool(v)
	}
	return table
}

func fluxEvaluator(t *testing.T) *cel.StatusEvaluator {
	t.Helper()
	checks := fluxKustomization(t, "flux.yaml", "databases").Spec.HealthCheckExprs
	if len(checks) != 1 {
		t.Fatalf("%d health checks", len(checks))
	}
	evaluator, err := cel.NewStatusEvaluator(&checks[0].HealthCheckExpressions)
	if err != nil {
		t.Fatal(err)
	}
	return evaluator
}

// kustomization is what these tests read of a Kustomization of Flux.
type kustomization struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Path             string
		Wait             bool
		DependsOn        []struct{ Name string }
		HealthCheckExprs []kustomize.CustomHealthCheck
	}
}

func fluxKustomization(t *testing.T, file, name string) (k kustomization) {
	t.Helper()
	for i := 0; k.Kind != "Kustomization" || k.Metadata.Name != name; i++ {
		k = kustomization{}
		decode(t, file, i, &k)
	}
	return k
}
