package render

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
)

// UpToDate reports whether every field of the desired object is in the live one with the same value. This includes
// the hashes in annotations.
// Fields that only the live object has do not matter: the API server or other clients added them. Lists must have the
// same length, except owner references. UpToDate fails if the two objects have different types.
func UpToDate(desired, live runtime.Object) (bool, error) {
	if d, l := reflect.TypeOf(desired), reflect.TypeOf(live); d != l {
		return false, fmt.Errorf("comparing a %v with a %v", d, l)
	}
	want, err := runtime.DefaultUnstructuredConverter.ToUnstructured(desired)
	if err != nil {
		return false, fmt.Errorf("converting the desired object: %w", err)
	}
	have, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return false, fmt.Errorf("converting the live object: %w", err)
	}
	for _, field := range []string{"kind", "apiVersion", "status"} {
		delete(want, field) // typed objects that were read from the API server have no kind
	}
	return containsMap(have, want), nil
}

// contains reports whether every field of want is in have.
func contains(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, _ := have.(map[string]any)
		return containsMap(have, want)
	case []any:
		have, _ := have.([]any)
		return containsList(have, want)
	default:
		return equality.Semantic.DeepEqual(have, want)
	}
}

func containsMap(have, want map[string]any) bool {
	for key, value := range want {
		live, ok := have[key]
		switch {
		case isEmpty(value):
		case !ok:
			return false
		case key == ownerReferences:
			if !containsEach(live, value) {
				return false
			}
		case !contains(live, value):
			return false
		}
	}
	return true
}

func containsList(have, want []any) bool {
	if len(have) != len(want) {
		return false
	}
	for n := range want {
		if !contains(have[n], want[n]) {
			return false
		}
	}
	return true
}

// ownerReferences is a list that other clients may add to.
const ownerReferences = "ownerReferences"

// containsEach reports whether each element of want is somewhere in have.
func containsEach(have, want any) bool {
	haveList, _ := have.([]any)
	wantList, _ := want.([]any)
	for _, element := range wantList {
		if !containsAny(haveList, element) {
			return false
		}
	}
	return true
}

func containsAny(have []any, want any) bool {
	for _, element := range have {
		if contains(element, want) {
			return true
		}
	}
	return false
}

// isEmpty reports whether a value is null, or an empty map or list. JSON writes zero structs as empty maps.
func isEmpty(value any) bool {
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
