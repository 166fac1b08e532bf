package render

import (
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// UpToDate reports whether every field of the desired object is in the live one with the same value. This includes
// the hashes in annotations.
// Fields that only the live object has do not matter: the API server or other clients added them. So fields of the
// desired object with a zero value do not matter either; where zero means something, the field is a pointer.
// Lists must have the same length, except owner references. Selectors must be equal: another key selects other pods.
// UpToDate fails if the two objects have different types.
func UpToDate(desired, live runtime.Object) (bool, error) {
	if d, l := reflect.TypeOf(desired), reflect.TypeOf(live); d != l {
		return false, fmt.Errorf("comparing a %v with a %v", d, l)
	}
	return contains(reflect.ValueOf(live), reflect.ValueOf(desired)), nil
}

// Types that are not compared field by field, and ownerReferences, which other clients may add to.
var (
	typeMeta        = reflect.TypeFor[metav1.TypeMeta]() // a typed object that was read from the API server has none
	intOrString     = reflect.TypeFor[intstr.IntOrString]()
	quantity        = reflect.TypeFor[resource.Quantity]()
	timestamp       = reflect.TypeFor[metav1.Time]()
	labelSelector   = reflect.TypeFor[metav1.LabelSelector]()
	serviceSpec     = reflect.TypeFor[corev1.ServiceSpec]()
	ownerReferences = reflect.TypeFor[[]metav1.OwnerReference]()
)

// contains reports whether every field of want is in have. Both have the same type.
func contains(have, want reflect.Value) bool {
	switch kind := want.Kind(); {
	case kind == reflect.Struct:
		return containsStruct(have, want)
	case kind == reflect.Map:
		return containsMap(have, want)
	case want.Type() == ownerReferences:
		return containsEach(have, want)
	case kind == reflect.Slice:
		return want.Len() == 0 || containsList(have, want)
	case kind == reflect.Interface:
		return have.Elem().IsValid() && have.Elem().Type() == want.Elem().Type() && contains(have.Elem(), want.Elem())
	case kind == reflect.Pointer && !have.IsNil():
		return contains(have.Elem(), want.Elem())
	case kind == reflect.Pointer: // a pointer to nothing holds as much as a pointer to an empty struct
		return isPlainStruct(want.Type().Elem()) && contains(reflect.Zero(want.Type().Elem()), want.Elem())
	default:
		return have.Equal(want)
	}
}

func isPlainStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != intOrString && t != quantity && t != timestamp
}

func containsStruct(have, want reflect.Value) bool {
	switch want.Type() {
	case typeMeta:
		return true
	case intOrString:
		return have.Equal(want)
	case serviceSpec:
		if !equality.Semantic.DeepEqual(have.FieldByName("Selector").Interface(), want.FieldByName("Selector").Interface()) {
			return false
		}
	case quantity, timestamp, labelSelector:
		return equality.Semantic.DeepEqual(have.Interface(), want.Interface())
	}
	for n := range want.NumField() {
		if field := want.Field(n); !field.IsZero() && !contains(have.Field(n), field) {
			return false
		}
	}
	return true
}

func containsMap(have, want reflect.Value) bool {
	if want, ok := want.Interface().(map[string]string); ok {
		return containsStrings(have.Interface().(map[string]string), want)
	}
	for entries := want.MapRange(); entries.Next(); {
		value, live := entries.Value(), have.MapIndex(entries.Key())
		switch {
		case isEmpty(value):
		case !live.IsValid():
			return false
		case entries.Key().String() == "ownerReferences" && isList(value) && isList(live): // of an unstructured object
			if !containsEach(live.Elem(), value.Elem()) {
				return false
			}
		case !contains(live, value):
			return false
		}
	}
	return true
}

// isEmpty reports whether a value of a map is null, or an empty map or list.
func isEmpty(value reflect.Value) bool {
	if value.Kind() == reflect.Interface {
		return value.IsNil() || isEmpty(value.Elem())
	}
	return (value.Kind() == reflect.Map || value.Kind() == reflect.Slice) && value.Len() == 0
}

func isList(value reflect.Value) bool {
	return value.Kind() == reflect.Interface && value.Elem().Kind() == reflect.Slice
}

func containsStrings(have, want map[string]string) bool {
	for key, value := range want {
		if live, ok := have[key]; !ok || live != value {
			return false
		}
	}
	return true
}

func containsList(have, want reflect.Value) bool {
	if have.Len() != want.Len() {
		return false
	}
	for n := range want.Len() {
		if !contains(have.Index(n), want.Index(n)) {
			return false
		}
	}
	return true
}

// containsEach reports whether each element of want is somewhere in have.
func containsEach(have, want reflect.Value) bool {
	for n := range want.Len() {
		found := false
		for i := 0; i < have.Len() && !found; i++ {
			found = contains(have.Index(i), want.Index(n))
		}
		if !found {
			return false
		}
	}
	return true
}
