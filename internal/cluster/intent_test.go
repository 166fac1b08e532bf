package cluster

import (
	"reflect"
	"strings"
	"testing"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// hasPath reports whether a type has a field by its path of JSON names.
func hasPath(t reflect.Type, path []string) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if len(path) == 0 {
		return true
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	for n := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(n).Tag.Get("json"), ","); name == path[0] {
			return hasPath(t.Field(n).Type, path[1:])
		}
	}
	return false
}

func TestEveryFieldOfAnIntentHasAPathInTheSpec(t *testing.T) {
	intent := reflect.TypeFor[Intent]()
	for n := range intent.NumField() {
		name := intent.Field(n).Name
		if path := specPaths[name]; !hasPath(reflect.TypeFor[v1beta1.EtcdCluster](), strings.Split(path, ".")) || path == "" {
			t.Errorf("the path of %s is %q, which v1beta1 does not have", name, path)
		}
	}
	if len(specPaths) != intent.NumField() {
		t.Errorf("there are %d paths for %d fields", len(specPaths), intent.NumField())
	}
}
