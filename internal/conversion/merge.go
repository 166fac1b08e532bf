package conversion

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/json"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/api/v1beta1"
)

// namedField is a field of a struct and its name in JSON.
type namedField struct {
	index int
	name  string
}

// fieldsOf are the structs that difference, overlay and merge walk field by field: those of our two API versions. All else is a leaf,
// taken or left as a whole, and so are structs whose fields only make sense together.
var fieldsOf = func() map[reflect.Type][]namedField {
	known := map[reflect.Type][]namedField{}
	learn[v1alpha1.EtcdCluster](known, reflect.TypeFor[v1alpha1.VolumeClaimSpec]())
	learn[v1beta1.EtcdCluster](known, reflect.TypeFor[v1beta1.VolumeClaimTemplate](), reflect.TypeFor[v1beta1.ClientTLS](),
		reflect.TypeFor[v1beta1.PeerTLS](), reflect.TypeFor[v1beta1.AutoCompaction]())
	return known
}()

func learn[Object any](known map[reflect.Type][]namedField, leaves ...reflect.Type) {
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || t.PkgPath() != reflect.TypeFor[Object]().PkgPath() || slices.Contains(leaves, t) {
			return
		}
		known[t] = nil
		for f := range t.Fields() {
			if f.Anonymous {
				continue // the metadata
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			known[t] = append(known[t], namedField{f.Index[0], name})
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Object]())
}

// walked returns the fields to walk of a struct or of what a pointer points to, none for a leaf.
func walked(v reflect.Value) []namedField {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return fieldsOf[t]
}

// pointee returns the struct that v is or points to, an empty one for nil.
func pointee(v reflect.Value) reflect.Value {
	switch {
	case v.Kind() != reflect.Pointer:
		return v
	case v.IsNil():
		return reflect.New(v.Type().Elem()).Elem()
	default:
		return v.Elem()
	}
}

func isNil(v reflect.Value) bool { return v.Kind() == reflect.Pointer && v.IsNil() }

// equal takes the short way where there is one: it is asked about every field of every object.
func equal(a, b reflect.Value) bool {
	switch kind := a.Kind(); {
	case a.Comparable() && kind != reflect.Struct && kind != reflect.Pointer:
		return a.Equal(b)
	case kind == reflect.Slice && a.Len() != b.Len():
		return false
	case (kind == reflect.Pointer || kind == reflect.Map || kind == reflect.Slice) && a.UnsafePointer() == b.UnsafePointer():
		return true
	}
	return equality.Semantic.DeepEqual(a.Interface(), b.Interface())
}

// difference returns the fields that want has and again has not, or has otherwise, as a tree to write in JSON, and whether there are any.
func difference(want, again reflect.Value) (tree any, differ bool) {
	known := walked(want)
	if known == nil || isNil(want) {
		return want.Interface(), !equal(want, again)
	}
	differences := map[string]any{}
	wanted, had := pointee(want), pointee(again)
	for _, f := range known {
		if tree, differ := difference(wanted.Field(f.index), had.Field(f.index)); differ {
			differences[f.name] = tree
		}
	}
	return differences, len(differences) > 0 || isNil(again)
}

// overlay sets the fields of to that a difference names. The path is that of to, for errors; raw is valid JSON.
func overlay(to reflect.Value, raw []byte, path string) error {
	known := walked(to)
	if known == nil || to.Kind() == reflect.Pointer && string(raw) == "null" {
		to.SetZero()
		strict, err := json.UnmarshalStrict(raw, to.Addr().Interface())
		if err = errors.Join(append(strict, err)...); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		return nil
	}
	if raw[0] != '{' && string(raw) != "null" {
		return fmt.Errorf("%s must be an object", cmp.Or(path, "the JSON"))
	}
	if isNil(to) {
		to.Set(reflect.New(to.Type().Elem()))
	}
	fields := pointee(to)
	return members(raw, func(name string, value []byte) error {
		path := strings.TrimPrefix(path+"."+name, ".")
		for _, f := range known {
			if f.name == name {
				return overlay(fields.Field(f.index), value, path)
			}
		}
		return fmt.Errorf("there is no field %s", path)
	})
}

// merge sets now to saved where now says what base said: nobody changed it. Where pointers to structs were set or
// cleared since, it looks at their fields.
func merge(base, now, saved reflect.Value) {
	if equal(base, now) {
		now.Set(saved)
		return
	}
	if env, ok := now.Addr().Interface().(*[]v1alpha1.EtcdOption); ok {
		*env = mergeEnv(*env, saved.Interface().([]v1alpha1.EtcdOption))
		return
	}
	if walked(now) == nil {
		return
	}
	merged := pointee(now)
	if config, ok := merged.Addr().Interface().(*v1beta1.Config); ok {
		mergeConfig(pointee(base).Interface().(v1beta1.Config), config, pointee(saved).Interface().(v1beta1.Config))
	} else {
		mergeFields(pointee(base), merged, pointee(saved))
	}
	if isNil(now) && !merged.IsZero() {
		now.Set(merged.Addr())
	}
}

func mergeFields(base, now, saved reflect.Value) {
	for _, f := range walked(now) {
		merge(base.Field(f.index), now.Field(f.index), saved.Field(f.index))
	}
}

// mergeConfig turns options back into the typed fields that they stand for, unless they changed.
func mergeConfig(base v1beta1.Config, now *v1beta1.Config, saved v1beta1.Config) {
	unchanged := func(options ...string) bool {
		return !slices.ContainsFunc(options, func(name string) bool {
			was, before := base.ExtraArgs[name]
			is, after := now.ExtraArgs[name]
			return was != is || before != after
		})
	}
	if saved.QuotaBackendBytes != nil && unchanged(quotaOption) {
		now.QuotaBackendBytes = saved.QuotaBackendBytes
		delete(now.ExtraArgs, quotaOption)
	}
	if saved.AutoCompaction != nil && unchanged(modeOption, retentionOption) {
		now.AutoCompaction = saved.AutoCompaction
		delete(now.ExtraArgs, modeOption)
		delete(now.ExtraArgs, retentionOption)
	}
	if len(now.ExtraArgs) == 0 {
		now.ExtraArgs = nil
	}
}

// mergeEnv gives the options of now the order that they were saved in; new ones come last.
func mergeEnv(now, saved []v1alpha1.EtcdOption) []v1alpha1.EtcdOption {
	position := func(o v1alpha1.EtcdOption) int {
		n := slices.IndexFunc(saved, func(s v1alpha1.EtcdOption) bool { return s.Name == o.Name })
		if n < 0 {
			return len(saved)
		}
		return n
	}
	slices.SortStableFunc(now, func(a, b v1alpha1.EtcdOption) int { return position(a) - position(b) })
	return now
}
