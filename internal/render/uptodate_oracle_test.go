package render

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// oracle compares as UpToDate does, but on the objects' JSON. It is slow and easy to follow.
func oracle(desired, live runtime.Object) (bool, error) {
	want, err := content(desired)
	if err != nil {
		return false, err
	}
	have, err := content(live)
	if err != nil {
		return false, err
	}
	for _, field := range []string{"kind", "apiVersion", "status"} {
		delete(want, field)
	}
	return oracleContainsMap(have, want), nil
}

func content(object runtime.Object) (map[string]any, error) {
	return runtime.DefaultUnstructuredConverter.ToUnstructured(object.DeepCopyObject())
}

// oracleContains reports whether every field of want is in have.
func oracleContains(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, _ := have.(map[string]any)
		return oracleContainsMap(have, want)
	case []any:
		have, _ := have.([]any)
		return oracleContainsList(have, want)
	default:
		return equality.Semantic.DeepEqual(have, want)
	}
}

func oracleContainsMap(have, want map[string]any) bool {
	for key, value := range want {
		live, ok := have[key]
		switch {
		case oracleIsEmpty(value):
		case !ok:
			return false
		case key == oracleOwnerReferences:
			if !oracleContainsEach(live, value) {
				return false
			}
		case !oracleContains(live, value):
			return false
		}
	}
	return true
}

func oracleContainsList(have, want []any) bool {
	if len(have) != len(want) {
		return false
	}
	for n := range want {
		if !oracleContains(have[n], want[n]) {
			return false
		}
	}
	return true
}

// oracleOwnerReferences is a list that other clients may add to.
const oracleOwnerReferences = "ownerReferences"

// oracleContainsEach reports whether each element of want is somewhere in have.
func oracleContainsEach(have, want any) bool {
	haveList, _ := have.([]any)
	wantList, _ := want.([]any)
	for _, element := range wantList {
		if !oracleContainsAny(haveList, element) {
			return false
		}
	}
	return true
}

func oracleContainsAny(have []any, want any) bool {
	for _, element := range have {
		if oracleContains(element, want) {
			return true
		}
	}
	return false
}

// oracleIsEmpty reports whether a value is null, or an empty map or list. JSON writes zero structs as empty maps.
func oracleIsEmpty(value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case map[string]any:
		return len(value) == 0
	case []any:
		return len(value) == 0
	default:
		return false
	}
}

// renderedObjects are one or more variants of every kind of object that is compared.
func renderedObjects() map[string]runtime.Object {
	plain, all := makeCluster(), makeCluster(everything, secrets("prod-peer", "prod-server"))
	return map[string]runtime.Object{
		"StatefulSet":                   MemberStatefulSet(started(plain)),
		"StatefulSet that founds":       MemberStatefulSet(founding(all)),
		"StatefulSet with everything":   MemberStatefulSet(trusting(started(all))),
		"Service of the peers":          PeerService(plain),
		"Service of the clients":        ClientService(plain),
		"PodDisruptionBudget":           Budget(plain, 2),
		"PodDisruptionBudget of nobody": Budget(plain, 0),
		"Certificate":                   CertManagerCertificate(plain, cluster.RoleServer, "example.org", someIssuer),
	}
}

// place is a value in an object's JSON, with what changes it or takes it away.
type place struct {
	path  string
	value any
	set   func(any)
	drop  func()
}

func places(path string, value any, set func(any), drop func()) []place {
	all := []place{{path, value, set, drop}}
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if path == "" && (key == "kind" || key == "apiVersion" || key == "status") {
				continue // the two types are equal, and no status is desired
			}
			all = append(all, places(path+"."+key, value[key], func(v any) { value[key] = v }, func() { delete(value, key) })...)
		}
	case []any:
		for n := range value {
			drop := func() { set(slices.Delete(slices.Clone(value), n, n+1)) }
			all = append(all, places(fmt.Sprintf("%s[%d]", path, n), value[n], func(v any) { value[n] = v }, drop)...)
		}
	}
	return all
}

// changed returns other values for a place.
func changed(value any) []any {
	switch value := value.(type) {
	case string:
		return []any{"", value + "x", "7", "7Gi", int64(7)}
	case int64:
		return []any{int64(0), value + 1, "7"}
	case bool:
		return []any{!value}
	case map[string]any:
		return []any{map[string]any{}, nil}
	case []any:
		return []any{[]any{}, nil, append(slices.Clone(value), value...)}
	default:
		return nil
	}
}

// mutate changes the n-th of all the places of an object in the given way, and reports whether there is such a change
// and the object's type can hold the result.
func mutate(object runtime.Object, n, way int) (mutated runtime.Object, what string, ok bool) {
	raw, err := content(object)
	if err != nil {
		return nil, err.Error(), false
	}
	all := places("", raw, nil, nil)[1:]
	if n >= len(all) {
		return nil, "", false
	}
	p := all[n]
	switch others := changed(p.value); {
	case way == 0:
		p.drop()
	case way <= len(others):
		p.set(others[way-1])
	default:
		return nil, p.path, false
	}
	if _, ok := object.(*unstructured.Unstructured); ok {
		return &unstructured.Unstructured{Object: raw}, p.path, true
	}
	mutated = reflect.New(reflect.TypeOf(object).Elem()).Interface().(runtime.Object)
	return mutated, p.path, runtime.DefaultUnstructuredConverter.FromUnstructured(raw, mutated) == nil
}

const mutations = 6 // dropping, and at most as many values as changed returns

func wantSameVerdict(t rapid.TB, what string, desired, live runtime.Object) bool {
	t.Helper()
	want, err := oracle(desired, live)
	if err != nil {
		t.Fatal(err)
	}
	got, err := UpToDate(desired, live)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%s: up to date: %v, want %v", what, got, want)
	}
	return got
}

func TestUpToDateJudgesEveryChangeOfOneFieldAsTheOracleDoes(t *testing.T) {
	same, different := 0, 0
	for name, desired := range renderedObjects() {
		raw, err := content(desired)
		if err != nil {
			t.Fatal(err)
		}
		for n := range places("", raw, nil, nil)[1:] {
			for way := range mutations {
				live, path, ok := mutate(desired, n, way)
				if !ok {
					continue
				}
				if wantSameVerdict(t, fmt.Sprintf("%s: %s changed in way %d", name, path, way), desired, live) {
					same++
				} else {
					different++
				}
			}
		}
	}
	if same == 0 || different < 1000 {
		t.Errorf("%d changes made no difference and %d made one: the test changes too little", same, different)
	}
}

func TestUpToDateJudgesRandomChangesAsTheOracleDoes(t *testing.T) {
	objects := renderedObjects()
	names := slices.Sorted(maps.Keys(objects))
	rapid.Check(t, func(t *rapid.T) {
		live := objects[rapid.SampledFrom(names).Draw(t, "object")]
		desired := live
		if set, ok := live.(*appsv1.StatefulSet); ok && rapid.Bool().Draw(t, "of another spec") {
			desired = MemberStatefulSet(trusting(started(makeCluster(everything))))
			live = set.DeepCopy()
		}
		for range rapid.IntRange(0, 4).Draw(t, "changes") {
			if mutated, _, ok := mutate(live, rapid.IntRange(0, 400).Draw(t, "place"), rapid.IntRange(0, mutations-1).Draw(t, "way")); ok {
				live = mutated
			}
		}
		wantSameVerdict(t, "after the changes", desired, live)
	})
}

// A type that writes itself as JSON may be equal where its fields differ, or hide them.
func TestUpToDateKnowsEveryTypeThatWritesItselfAsJSON(t *testing.T) {
	marshaler := reflect.TypeFor[interface{ MarshalJSON() ([]byte, error) }]()
	known := map[reflect.Type]bool{
		intOrString: true, quantity: true, timestamp: true,
		reflect.TypeFor[metav1.FieldsV1](): true, // of managedFields, which no rendered object has
	}
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(kind reflect.Type) {
		if seen[kind] {
			return
		}
		seen[kind] = true
		switch {
		case kind.Kind() != reflect.Pointer && reflect.PointerTo(kind).Implements(marshaler):
			if !known[kind] {
				t.Errorf("%v is compared field by field", kind)
			}
		case kind.Kind() == reflect.Struct:
			for n := range kind.NumField() {
				visit(kind.Field(n).Type)
			}
		case kind.Kind() == reflect.Pointer, kind.Kind() == reflect.Slice, kind.Kind() == reflect.Map:
			visit(kind.Elem())
		}
	}
	for _, object := range []any{appsv1.StatefulSet{}, corev1.Service{}, policyv1.PodDisruptionBudget{}} {
		visit(reflect.TypeOf(object))
	}
	for kind := range known {
		if !seen[kind] {
			t.Errorf("%v is in none of the kinds", kind)
		}
	}
}
