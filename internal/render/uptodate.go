package render

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
)

// UpToDate reports whether a live object has everything that the desired one says: every field of desired is in live with
// the same value, hashes in annotations included. Fields that the API server or others added do not matter, and lists must
// have the same length, except owner references. It fails if the two are of different types.
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
	for _, ours := range []string{"kind", "apiVersion", "status"} {
		delete(want, ours) // typed objects that were read from the API server have no kind
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
		there, ok := have[key]
		switch {
		case isEmpty(value):
		case !ok:
			return false
		case key == ownerReferences:
			if !containsEach(there, value) {
				return false
			}
		case !contains(there, value):
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

// ownerReferences is the list to which others may add.
const ownerReferences = "ownerReferences"

// containsEach reports whether each element of want is somewhere in have.
func containsEach(have, want any) bool {
	there, _ := have.([]any)
	wanted, _ := want.([]any)
	for _, element := range wanted {
		if !containsAny(there, element) {
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

// isEmpty reports whether a value says nothing, as the zero structs do that JSON cannot leave out.
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
