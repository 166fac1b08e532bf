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

// verdicts are what Argo CD and Flux say of a situation.
var verdicts = map[string]struct{ argo, flux string }{
	"healthy":               {"Healthy", "Current"},
	"healthy-single":        {"Healthy", "Current"},
	"created":               {"Progressing", "InProgress"},
	"partly-started":        {"Progressing", "InProgress"},
	"member-added":          {"Progressing", "InProgress"},
	"rolling":               {"Progressing", "InProgress"},
	"rolled-back":           {"Degraded", "Failed"},
	"rolling-past-deadline": {"Degraded", "Failed"},
	"version-skipped":       {"Degraded", "Failed"},
	"one-down":              {"Progressing", "InProgress"},
	"quorum-lost":           {"Degraded", "Failed"},
	"all-volumes-lost":      {"Degraded", "Failed"},
	"paused":                {"Suspended", "InProgress"},
}

func TestTheHealthOfClustersAsArgoCDAndFluxSeeIt(t *testing.T) {
	script := luaScript(t)
	evaluator := fluxEvaluator(t)
	for name, want := range verdicts {
		t.Run(name, func(t *testing.T) {
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
		got := fluxKustomization(t, "flux-waves.yaml", i)
		if got.Spec.Path != "./waves/"+wave || len(got.Spec.DependsOn) != 1 || got.Spec.DependsOn[0].Name != before || !got.Spec.Wait {
			t.Errorf("Flux: wave %s is %+v", wave, got)
		}
		if want := fluxKustomization(t, "flux.yaml", 1).Spec.HealthCheckExprs; !reflect.DeepEqual(got.Spec.HealthCheckExprs, want) {
			t.Errorf("Flux: wave %s has health checks of its own", wave)
		}
		if _, err := os.Stat(filepath.Join(examples, "waves", wave, "kustomization.yaml")); err != nil {
			t.Error(err)
		}
		before = got.Metadata.Name
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
		"spec":     map[string]any{"paused": strings.Contains(name, "paused")},
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
	if err := yaml.Unmarshal([]byte(strings.Split(string(raw), "\n---\n")[document]), into); err != nil {
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
	checks := fluxKustomization(t, "flux.yaml", 1).Spec.HealthCheckExprs
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
	Metadata struct{ Name string }
	Spec     struct {
		Path             string
		Wait             bool
		DependsOn        []struct{ Name string }
		HealthCheckExprs []kustomize.CustomHealthCheck
	}
}

func fluxKustomization(t *testing.T, file string, document int) (k kustomization) {
	t.Helper()
	decode(t, file, document, &k)
	return k
}
