package conversion

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// mergeFields merges each field of a struct. restore explains base, now and saved.
func mergeFields(base, now, saved reflect.Value) {
	for _, f := range mergedStructs.fieldsOf(now.Type()) {
		merge(base.Field(f.index), now.Field(f.index), saved.Field(f.index))
	}
}

// merge sets now to saved if now equals base, which means that the client did not change the field.
// It looks into structs, also where a pointer to a struct was set or cleared.
func merge(base, now, saved reflect.Value) {
	if equal(base, now) {
		now.Set(saved)
		return
	}
	if env, ok := now.Addr().Interface().(*[]v1alpha1.EtcdOption); ok {
		*env = mergeEnv(*env, saved.Interface().([]v1alpha1.EtcdOption))
		return
	}
	if mergedStructs.fieldsOf(now.Type()) == nil {
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

// equal compares two values. It compares every field of every object, so it first tries what is cheap.
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

// mergeConfig turns options into the typed fields that they came from, unless the client changed the options.
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

// removeTypedOptions removes the options from config that the typed fields of typed set.
func removeTypedOptions(config, typed *v1beta1.Config) {
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

// mergeEnv sorts the options of now as they were saved. New options come last.
func mergeEnv(now, saved []v1alpha1.EtcdOption) []v1alpha1.EtcdOption {
	positions := make(map[string]int, len(saved))
	for n := len(saved) - 1; n >= 0; n-- { // the first of equal names counts
		positions[saved[n].Name] = n
	}
	position := func(o v1alpha1.EtcdOption) int {
		if n, ok := positions[o.Name]; ok {
			return n
		}
		return len(saved)
	}
	slices.SortStableFunc(now, func(a, b v1alpha1.EtcdOption) int { return position(a) - position(b) })
	return now
}
