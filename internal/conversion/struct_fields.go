package conversion

import (
	"reflect"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// namedField is a field of a struct and its name in JSON.
type namedField struct {
	index int
	name  string
}

// structFields are the structs of our API packages whose fields are handled one by one.
// A value of any other type is handled as a whole.
type structFields map[reflect.Type][]namedField

// mergedStructs are the structs whose fields are merged one by one.
// A struct whose fields make sense only together is merged as a whole.
var mergedStructs = func() structFields {
	known := structFields{}
	registerFields[v1alpha1.EtcdCluster](known, reflect.TypeFor[v1alpha1.VolumeClaimSpec]())
	registerFields[v1beta1.EtcdCluster](known, reflect.TypeFor[v1beta1.VolumeClaimTemplate](), reflect.TypeFor[v1beta1.EphemeralStorage](), reflect.TypeFor[v1beta1.ClientTLS](),
		reflect.TypeFor[v1beta1.PeerTLS](), reflect.TypeFor[v1beta1.AutoCompaction]())
	return known
}()

// savedStructs are the structs whose fields are saved one by one, each in an annotation of its own.
// A volume claim is saved as a whole: the paths of its fields are too long for the name of an annotation.
var savedStructs = func() structFields {
	known := structFields{}
	registerFields[v1alpha1.EtcdCluster](known, reflect.TypeFor[v1alpha1.VolumeClaimSpec]())
	registerFields[v1beta1.EtcdCluster](known, reflect.TypeFor[v1beta1.VolumeClaimTemplate](), reflect.TypeFor[v1beta1.EphemeralStorage]())
	return known
}()

// statusField is never registered. Whoever may write an object may write its annotations, but not its status.
// So no annotation can set a field of the status. Both versions have all fields of the status, and lose none.
const statusField = "status"

// registerFields registers the structs in the API package of Object, except opaqueTypes, the status and the metadata.
func registerFields[Object any](known structFields, opaqueTypes ...reflect.Type) {
	root := reflect.TypeFor[Object]()
	var register func(t reflect.Type)
	register = func(t reflect.Type) {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || t.PkgPath() != root.PkgPath() || slices.Contains(opaqueTypes, t) {
			return
		}
		known[t] = nil
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || t == root && name == statusField { // the anonymous fields are the metadata
				continue
			}
			known[t] = append(known[t], namedField{f.Index[0], name})
			register(f.Type)
		}
	}
	register(root)
}

// fieldsOf returns the fields of a struct or of the struct that a pointer points to. It returns nil for other types.
func (s structFields) fieldsOf(t reflect.Type) []namedField {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return s[t]
}

// pointee returns the struct that v is or points to. For a nil pointer it returns an empty struct.
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
