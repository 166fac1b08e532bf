package conversion

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	strict "sigs.k8s.io/json"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// leaves are fields that the other version cannot say, by their paths, as JSON. Each is an annotation of its own, since server-side apply tells
// a field that was withdrawn by an annotation that is gone, and compares no values. At the path of a struct, null stands for none,
// which its other leaves fill then, and {} for an empty one.
type leaves map[string]string

const (
	none  = "null"
	empty = "{}"
	// deepest is how many fields lie within each other, about.
	deepest = 8
)

// partsOf are the structs that leaves lie in: every one that has names short enough for annotations and can be lost in part.
var partsOf = func() structs {
	known := structs{}
	learn[v1alpha1.EtcdCluster](known, reflect.TypeFor[v1alpha1.VolumeClaimSpec]())
	learn[v1beta1.EtcdCluster](known, reflect.TypeFor[v1beta1.VolumeClaimTemplate]())
	return known
}()

func leavesOf(annotations map[string]string, prefix string) leaves {
	var all leaves
	for key, value := range annotations {
		if path, ours := strings.CutPrefix(key, prefix); ours {
			all.add(path, value)
		}
	}
	return all
}

func (l *leaves) add(path, value string) {
	if *l == nil {
		*l = leaves{}
	}
	(*l)[path] = value
}

// difference adds the fields that want has and again has not, or has otherwise.
func (l *leaves) difference(path []string, want, again reflect.Value) {
	known := fieldsOf.walk(want.Type())
	if known == nil {
		if !equal(want, again) || namesSecret(want) {
			l.whole(path, want, again)
		}
		return
	}
	wanted, had := pointee(want), pointee(again)
	for _, f := range known {
		l.difference(append(path, f.name), wanted.Field(f.index), had.Field(f.index))
	}
	if isEmpty(want) && !isEmpty(again) {
		l.add(strings.Join(path, "."), empty)
	}
}

// namesSecret tells certificates of the user's Secrets. They travel even where v1alpha1 says the same: it cannot say that there are none, and server-side
// apply, which removes what is withdrawn but adds nothing, would leave null in their place, which the schema refuses.
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

// whole adds all of a value that is taken or left as a whole. Where again says something that want does not, all of that goes first.
func (l *leaves) whole(path []string, want, again reflect.Value) {
	if partsOf.walk(want.Type()) != nil && !isNil(again) && !isEmpty(want) {
		l.add(strings.Join(path, "."), none)
	}
	l.parts(path, want)
}

// parts adds what is not empty of a struct, and any other value.
func (l *leaves) parts(path []string, v reflect.Value) {
	known := partsOf.walk(v.Type())
	switch {
	case known == nil:
		raw, err := json.Marshal(v.Interface())
		if err != nil {
			panic(fmt.Sprintf("encoding a field of an EtcdCluster: %v", err)) // it was decoded from JSON
		}
		l.add(strings.Join(path, "."), string(raw))
	case isEmpty(v):
		l.add(strings.Join(path, "."), empty)
	case !isNil(v):
		for _, f := range known {
			if part := pointee(v).Field(f.index); !saysNothing(part) {
				l.parts(append(path, f.name), part)
			}
		}
	}
}

// isEmpty tells a pointer to a struct that says nothing.
func isEmpty(v reflect.Value) bool {
	return v.Kind() == reflect.Pointer && !v.IsNil() && saysNothing(v.Elem())
}

// saysNothing tells what is empty, with lists and maps that are there and hold nothing.
func saysNothing(v reflect.Value) bool {
	if kind := v.Kind(); kind == reflect.Map || kind == reflect.Slice {
		return v.Len() == 0
	} else if kind != reflect.Struct {
		return v.IsZero()
	}
	for n := range v.NumField() {
		if !saysNothing(v.Field(n)) {
			return false
		}
	}
	return true
}

// overlay sets the leaves in an object, and returns those that it could.
func (l leaves) overlay(object reflect.Value) leaves {
	taken := leaves{}
	paths := slices.Sorted(maps.Keys(l)) // what lies within others comes after them
	for _, path := range paths {
		if set(object, path, l[path]) == nil {
			taken[path] = l[path]
		}
	}
	for _, path := range paths {
		taken.tidy(object, "", path)
	}
	return taken
}

// set sets the field at a path, and makes the structs on the way to it. Where it fails, they may be empty.
func set(to reflect.Value, path, value string) error {
	known := partsOf.walk(to.Type())
	switch {
	case path == "" && known == nil:
		read := reflect.New(to.Type())
		ignored, err := strict.UnmarshalStrict([]byte(value), read.Interface())
		if err = errors.Join(append(ignored, err)...); err == nil {
			to.Set(read.Elem())
		}
		return err
	case path == "":
		if to.Kind() != reflect.Pointer || value != none && value != empty {
			return errors.New("it has fields of its own")
		}
		to.SetZero()
		if value == empty {
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
			return set(pointee(to).Field(f.index), rest, value)
		}
	}
	return fmt.Errorf("there is no field %s", name)
}

// tidy removes the empty structs on the way to a leaf, unless a leaf says that they are.
func (l leaves) tidy(v reflect.Value, at, rest string) {
	name, rest, _ := strings.Cut(rest, ".")
	for _, f := range partsOf.walk(v.Type()) {
		if f.name == name && !isNil(v) {
			l.tidy(pointee(v).Field(f.index), strings.TrimPrefix(at+"."+name, "."), rest)
		}
	}
	if isEmpty(v) && partsOf.walk(v.Type()) != nil && l[at] != empty {
		v.SetZero()
	}
}

// drop removes the leaves that brought in what the errors are about, with those that only make sense together, and reports whether there were any.
// That there is nothing at a path is never wrong.
func (l leaves) drop(errs field.ErrorList) bool {
	if len(errs) == 0 {
		return false
	}
	before := len(l)
	maps.DeleteFunc(l, func(path, value string) bool {
		whole := wholeOf(path)
		return value != none && value != empty && slices.ContainsFunc(errs, func(err *field.Error) bool {
			return within(err.Field, whole) || within(whole, err.Field)
		})
	})
	return len(l) < before
}

func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// wholeOf returns the beginning of a path in an object of v1beta1 that is taken or left as a whole.
func wholeOf(path string) string {
	var whole []string
	t := reflect.TypeFor[v1beta1.EtcdCluster]()
	for name := range strings.SplitSeq(path, ".") {
		known := fieldsOf.walk(t)
		n := slices.IndexFunc(known, func(f namedField) bool { return f.name == name })
		if n < 0 {
			break
		}
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		whole, t = append(whole, name), t.Field(known[n].index).Type
	}
	return strings.Join(whole, ".")
}
