package conversion

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	strict "sigs.k8s.io/json"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// lostFields are fields that the other version lacks: JSON by the path of the field.
//
// Each field has an annotation of its own. Server-side apply withdraws a field when its path is gone from a manifest.
// It compares no values, so fields that share an annotation could not be withdrawn one by one.
//
// At the path of a struct, two values have a meaning: "null" says that the struct is absent until the annotations of
// its fields fill it, and "{}" says that the struct is present and empty.
type lostFields map[string]string

const (
	absentStruct = "null"
	emptyStruct  = "{}"
	// typicalDepth is the capacity for paths.
	typicalDepth = 8
)

// savedFields returns the fields that annotations with a prefix save.
func savedFields(annotations map[string]string, prefix string) lostFields {
	var all lostFields
	for key, value := range annotations {
		if path, ours := strings.CutPrefix(key, prefix); ours {
			all.add(path, value)
		}
	}
	return all
}

func (l *lostFields) add(path, value string) {
	if *l == nil {
		*l = lostFields{}
	}
	(*l)[path] = value
}

// addDifferences adds the fields of want that again lacks, or that differ in again.
func (l *lostFields) addDifferences(path []string, want, again reflect.Value) {
	known := mergedStructs.fieldsOf(want.Type())
	if known == nil {
		if !equal(want, again) || namesSecret(want) {
			l.addField(path, want, again)
		}
		return
	}
	wanted, had := pointee(want), pointee(again)
	for _, f := range known {
		l.addDifferences(append(path, f.name), wanted.Field(f.index), had.Field(f.index))
	}
	if isEmptyStruct(want) && !isEmptyStruct(again) {
		l.add(strings.Join(path, "."), emptyStruct)
	}
}

// namesSecret reports whether v is TLS with a Secret of the user. Such TLS is saved even if v1alpha1 names the same
// Secret. v1alpha1 has no field that withdraws it. If a manifest in v1beta1 drops it, server-side apply removes fields
// but adds none: without the annotation the result would be null, which the schema refuses.
func namesSecret(v reflect.Value) bool {
	switch v.Type() {
	case reflect.TypeFor[*v1beta1.ClientTLS]():
		tls := v.Interface().(*v1beta1.ClientTLS)
		return tls != nil && tls.SecretRef != nil
	case reflect.TypeFor[*v1beta1.PeerTLS]():
		tls := v.Interface().(*v1beta1.PeerTLS)
		return tls != nil && tls.SecretRef != nil
	}
	return false
}

// addField adds a field that is merged as a whole. If again has a struct there, "null" removes it first.
func (l *lostFields) addField(path []string, want, again reflect.Value) {
	if savedStructs.fieldsOf(want.Type()) != nil && !isNil(again) && !isEmptyStruct(want) {
		l.add(strings.Join(path, "."), absentStruct)
	}
	l.addParts(path, want)
}

// addParts adds the fields of a struct that are not zero. Any other value is added as a whole.
func (l *lostFields) addParts(path []string, v reflect.Value) {
	known := savedStructs.fieldsOf(v.Type())
	switch {
	case known == nil:
		raw, err := json.Marshal(v.Interface())
		if err != nil {
			panic(fmt.Sprintf("encoding a field of an EtcdCluster: %v", err)) // the field was decoded from JSON
		}
		l.add(strings.Join(path, "."), string(raw))
	case isEmptyStruct(v):
		l.add(strings.Join(path, "."), emptyStruct)
	case !isNil(v):
		for _, f := range known {
			if part := pointee(v).Field(f.index); !isDeepZero(part) {
				l.addParts(append(path, f.name), part)
			}
		}
	}
}

// isEmptyStruct reports whether v points to a struct without any value.
func isEmptyStruct(v reflect.Value) bool {
	return v.Kind() == reflect.Pointer && !v.IsNil() && isDeepZero(v.Elem())
}

// isDeepZero reports whether v is zero. Lists and maps without entries count as zero, also inside structs.
func isDeepZero(v reflect.Value) bool {
	if kind := v.Kind(); kind == reflect.Map || kind == reflect.Slice {
		return v.Len() == 0
	} else if kind != reflect.Struct {
		return v.IsZero()
	}
	for n := range v.NumField() {
		if !isDeepZero(v.Field(n)) {
			return false
		}
	}
	return true
}

// writeInto sets the fields in an object. It returns the fields that it could read.
func (l lostFields) writeInto(object reflect.Value) lostFields {
	used := lostFields{}
	paths := slices.Sorted(maps.Keys(l)) // a struct comes before its fields
	for _, path := range paths {
		if setField(object, path, l[path]) == nil {
			used[path] = l[path]
		}
	}
	for _, path := range paths {
		used.removeEmptyStructs(object, "", path)
	}
	return used
}

// setField sets the field at a path. It creates the structs on the way. If it fails, it may leave empty structs there.
func setField(to reflect.Value, path, value string) error {
	known := savedStructs.fieldsOf(to.Type())
	switch {
	case path == "" && known == nil:
		if holdsQuantities(to.Type()) && (isExpensive([]byte(value)) || strings.Contains(value, `\u`)) {
			return errLongExponent
		}
		read := reflect.New(to.Type())
		unknown, err := strict.UnmarshalStrict([]byte(value), read.Interface())
		if err = errors.Join(append(unknown, err)...); err == nil {
			to.Set(read.Elem())
		}
		return err
	case path == "":
		if to.Kind() != reflect.Pointer || value != absentStruct && value != emptyStruct {
			return errors.New("each field of a struct has an annotation of its own")
		}
		to.SetZero()
		if value == emptyStruct {
			to.Set(reflect.New(to.Type().Elem()))
		}
		return nil
	}
	name, rest, _ := strings.Cut(path, ".")
	for _, f := range known {
		if f.name == name {
			if isNil(to) {
				to.Set(reflect.New(to.Type().Elem()))
			}
			return setField(pointee(to).Field(f.index), rest, value)
		}
	}
	return fmt.Errorf("there is no field %s", name)
}

// holdsQuantities reports whether values of a type contain quantities.
func holdsQuantities(t reflect.Type) bool {
	return t == reflect.TypeFor[*resource.Quantity]() || t == reflect.TypeFor[corev1.ResourceList]() ||
		t == reflect.TypeFor[*v1beta1.VolumeClaimTemplate]() || t == reflect.TypeFor[*v1alpha1.VolumeClaimSpec]()
}

// removeEmptyStructs removes the empty structs along a path, except those that an annotation creates.
func (l lostFields) removeEmptyStructs(v reflect.Value, at, rest string) {
	name, rest, _ := strings.Cut(rest, ".")
	for _, f := range savedStructs.fieldsOf(v.Type()) {
		if f.name == name && !isNil(v) {
			l.removeEmptyStructs(pointee(v).Field(f.index), strings.TrimPrefix(at+"."+name, "."), rest)
		}
	}
	if isEmptyStruct(v) && savedStructs.fieldsOf(v.Type()) != nil && l[at] != emptyStruct {
		v.SetZero()
	}
}

// removeInvalid removes the fields at invalid paths, and all fields that are merged together with them.
// It reports whether it removed any. It keeps "null", and "{}" for a struct whose fields are merged one by one:
// neither adds an invalid field.
func (l lostFields) removeInvalid(invalid []string) bool {
	if len(invalid) == 0 {
		return false
	}
	before := len(l)
	maps.DeleteFunc(l, func(path, value string) bool {
		whole, isMergedStruct := mergedPath(path)
		if value == absentStruct || value == emptyStruct && isMergedStruct {
			return false
		}
		return slices.ContainsFunc(invalid, func(wrong string) bool { return isWithin(wrong, whole) || isWithin(whole, wrong) })
	})
	return len(l) < before
}

func isWithin(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.')
}

// mergedPath returns the beginning of a path in v1beta1 at which merge takes or leaves everything.
// It reports whether a struct is there whose fields are merged one by one: then merge looks deeper.
func mergedPath(path string) (whole string, isMergedStruct bool) {
	var names []string
	t := reflect.TypeFor[v1beta1.EtcdCluster]()
	for name := range strings.SplitSeq(path, ".") {
		known := mergedStructs.fieldsOf(t)
		n := slices.IndexFunc(known, func(f namedField) bool { return f.name == name })
		if n < 0 {
			break
		}
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		names, t = append(names, name), t.Field(known[n].index).Type
	}
	return strings.Join(names, "."), mergedStructs.fieldsOf(t) != nil
}
