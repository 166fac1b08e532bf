package conversion

import (
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// namedField is a field of a struct and its name in JSON.
type namedField struct {
	index int
	name  string
}

// structs are those that are walked field by field: of our two API versions. All else is a leaf, taken or left as a whole.
type structs map[reflect.Type][]namedField

// fieldsOf are the structs that merge walks. Structs whose fields only make sense together are leaves.
var fieldsOf = func() structs {
	known := structs{}
	learn[v1alpha1.EtcdCluster](known, reflect.TypeFor[v1alpha1.VolumeClaimSpec]())
	learn[v1beta1.EtcdCluster](known, reflect.TypeFor[v1beta1.VolumeClaimTemplate](), reflect.TypeFor[v1beta1.ClientTLS](),
		reflect.TypeFor[v1beta1.PeerTLS](), reflect.TypeFor[v1beta1.AutoCompaction]())
	return known
}()

func learn[Object any](known structs, leaves ...reflect.Type) {
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

// walk returns the fields to walk of a struct or of what a pointer points to, none for a leaf.
func (s structs) walk(t reflect.Type) []namedField {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return s[t]
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
	if fieldsOf.walk(now.Type()) == nil {
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
	for _, f := range fieldsOf.walk(now.Type()) {
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

// withoutTyped takes the options out of config that typed fields stand for.
func withoutTyped(config, typed *v1beta1.Config) {
	if typed.QuotaBackendBytes != nil {
		delete(config.ExtraArgs, quotaOption)
	}
	if typed.AutoCompaction != nil {
		delete(config.ExtraArgs, modeOption)
		delete(config.ExtraArgs, retentionOption)
	}
	if len(config.ExtraArgs) == 0 {
		config.ExtraArgs = nil
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
