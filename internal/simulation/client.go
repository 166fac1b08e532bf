package simulation

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Verb is what a client asks the API server to do with an object.
type Verb string

// The verbs of a client.
const (
	Get          Verb = "get"
	List         Verb = "list"
	Create       Verb = "create"
	DryRun       Verb = "create (dry run)"
	Update       Verb = "update"
	UpdateStatus Verb = "update status"
	Patch        Verb = "patch"
	Apply        Verb = "apply"
	Delete       Verb = "delete"
	Evict        Verb = "evict"
)

// Writes reports whether the verb changes objects.
func (v Verb) Writes() bool { return v != Get && v != List && v != DryRun }

// Call is one request.
type Call struct {
	Verb Verb
	Kind string
	Key  types.NamespacedName
	// Live is the object before the call, nil where there is none. It must not be changed.
	Live client.Object
	// Stored is the object after the call, nil where there is none.
	Stored client.Object
}

func (c *Call) String() string { return fmt.Sprintf("%s %s %s", c.Verb, c.Kind, c.Key.Name) }

// Conn is a client of a Server.
type Conn struct {
	Server *Server
	// Before is asked before each call; an error is the answer, and nothing is done.
	Before func(*Call) error
	// After is asked once the call was carried out; an error is the answer then.
	After func(*Call) error
}

var _ client.Client = (*Conn)(nil)

// do carries out a call between its hooks.
func (c *Conn) do(verb Verb, object runtime.Object, key types.NamespacedName, work func(*kind) error) error {
	k, err := c.Server.kindOf(object)
	if err != nil {
		return err
	}
	call := &Call{Verb: verb, Kind: k.Kind, Key: key, Live: k.live(key)}
	if c.Before != nil {
		if err := c.Before(call); err != nil {
			return err
		}
	}
	if err := work(k); err != nil {
		return err
	}
	if call.Stored = k.live(key); c.After != nil {
		return c.After(call)
	}
	return nil
}

func (k *kind) live(key types.NamespacedName) client.Object {
	if v := k.objects[key]; v != nil {
		return v.object
	}
	return nil
}

// Get implements client.Reader: it reads the present.
func (c *Conn) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	return c.do(Get, object, key, func(k *kind) error { return k.get(k.objects, key, object) })
}

// List implements client.Reader.
func (c *Conn) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	return c.do(List, list, types.NamespacedName{}, func(k *kind) error { return k.list(k.objects, list, options, whole) })
}

func whole(v *version) client.Object { return v.object }

func (k *kind) get(from objects, key types.NamespacedName, into client.Object) error {
	v := from[key]
	if v == nil {
		return apierrors.NewNotFound(k.resource, key.Name)
	}
	assign(into, v.object)
	return nil
}

// list copies the objects that the options select. kept returns an object as its reader has it, nil for none.
func (k *kind) list(from objects, list client.ObjectList, options []client.ListOption, kept func(*version) client.Object) error {
	var o client.ListOptions
	o.ApplyOptions(options)
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	items.Set(reflect.MakeSlice(items.Type(), 0, 0))
	for _, key := range sortedKeys(from) {
		object := kept(from[key])
		if object == nil || o.Namespace != "" && key.Namespace != o.Namespace ||
			o.LabelSelector != nil && !o.LabelSelector.Matches(labels.Set(object.GetLabels())) {
			continue
		}
		if matches, err := k.matchesFields(object, o.FieldSelector); err != nil {
			return err
		} else if matches {
			items.Set(reflect.Append(items, reflect.ValueOf(object.DeepCopyObject()).Elem()))
		}
	}
	return nil
}

// matchesFields asks the indexes, as a cache does. An object matches where one of its keys is the value asked for.
func (k *kind) matchesFields(object client.Object, selector fields.Selector) (bool, error) {
	if selector == nil {
		return true, nil
	}
	for _, want := range selector.Requirements() {
		index := k.indexes[want.Field]
		if index == nil {
			return false, fmt.Errorf("index with name field:%s does not exist", want.Field)
		}
		if !slices.Contains(index(object), want.Value) {
			return false, nil
		}
	}
	return true, nil
}

// IndexField implements client.FieldIndexer.
func (s *Server) IndexField(_ context.Context, object client.Object, name string, extract client.IndexerFunc) error {
	k, err := s.kindOf(object)
	if err == nil {
		k.indexes[name] = extract
	}
	return err
}

// Create implements client.Writer.
func (c *Conn) Create(_ context.Context, object client.Object, options ...client.CreateOption) error {
	var o client.CreateOptions
	o.ApplyOptions(options)
	verb := Create
	if len(o.DryRun) > 0 {
		verb = DryRun
	}
	return c.do(verb, object, client.ObjectKeyFromObject(object), func(*kind) error {
		return c.Server.create(object, verb == DryRun)
	})
}

// Update implements client.Writer.
func (c *Conn) Update(_ context.Context, object client.Object, _ ...client.UpdateOption) error {
	return c.do(Update, object, client.ObjectKeyFromObject(object), func(*kind) error {
		return c.Server.replace(object, allButStatus)
	})
}

// Delete implements client.Writer.
func (c *Conn) Delete(_ context.Context, object client.Object, options ...client.DeleteOption) error {
	var o client.DeleteOptions
	o.ApplyOptions(options)
	return c.do(Delete, object, client.ObjectKeyFromObject(object), func(*kind) error {
		return c.Server.remove(object, &o)
	})
}

// Patch implements client.Writer. It knows merge patches and strategic merge patches.
func (c *Conn) Patch(_ context.Context, object client.Object, patch client.Patch, _ ...client.PatchOption) error {
	data, err := patch.Data(object)
	if err != nil {
		return err
	}
	return c.do(Patch, object, client.ObjectKeyFromObject(object), func(k *kind) error {
		return c.Server.patch(k, object, patch.Type(), data)
	})
}

// Apply implements client.Writer. Fields that an earlier apply set and this one does not set stay: the operator
// does not rely on their removal.
func (c *Conn) Apply(_ context.Context, configuration runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	applied, ok := configuration.(runtime.Unstructured)
	if !ok {
		return errors.New("the simulation applies unstructured objects only")
	}
	content := runtime.DeepCopyJSON(applied.UnstructuredContent())
	wanted := &unstructured.Unstructured{Object: content}
	return c.do(Apply, c.typed(wanted), client.ObjectKeyFromObject(wanted), func(k *kind) error {
		return c.Server.apply(k, c.typed(wanted), wanted)
	})
}

// typed returns an empty object of the kind, as typed as the scheme knows it.
func (c *Conn) typed(u *unstructured.Unstructured) client.Object {
	if object, err := c.Server.scheme.New(u.GroupVersionKind()); err == nil {
		return object.(client.Object)
	}
	return u
}

// DeleteAllOf implements client.Writer.
func (*Conn) DeleteAllOf(context.Context, client.Object, ...client.DeleteAllOfOption) error {
	return errors.New("the simulation deletes objects one by one only")
}

// Status implements client.StatusClient.
func (c *Conn) Status() client.SubResourceWriter { return subresource{c, "status"} }

// SubResource implements client.SubResourceClientConstructor.
func (c *Conn) SubResource(name string) client.SubResourceClient { return subresource{c, name} }

// Scheme implements client.Client.
func (c *Conn) Scheme() *runtime.Scheme { return c.Server.scheme }

// RESTMapper implements client.Client. There is none: nothing of the operator's asks it.
func (*Conn) RESTMapper() meta.RESTMapper { return nil }

// GroupVersionKindFor implements client.Client.
func (c *Conn) GroupVersionKindFor(object runtime.Object) (schema.GroupVersionKind, error) {
	k, err := c.Server.kindOf(object)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	return k.GroupVersionKind, nil
}

// IsObjectNamespaced implements client.Client.
func (c *Conn) IsObjectNamespaced(object runtime.Object) (bool, error) {
	k, err := c.Server.kindOf(object)
	return err == nil && !k.scoped, err
}

// subresource writes the status of objects, and evicts pods.
type subresource struct {
	conn *Conn
	name string
}

func (r subresource) unknown() error {
	return fmt.Errorf("the simulation has no such call of the subresource %s", r.name)
}

func (r subresource) Get(context.Context, client.Object, client.Object, ...client.SubResourceGetOption) error {
	return r.unknown()
}

// Patch resizes no pod: the server is one before Kubernetes 1.33, which does not know the subresource.
func (r subresource) Patch(_ context.Context, object client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	if r.name == "resize" {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, object.GetName())
	}
	return r.unknown()
}

func (r subresource) Apply(context.Context, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
	return r.unknown()
}

func (r subresource) Update(_ context.Context, object client.Object, _ ...client.SubResourceUpdateOption) error {
	if r.name != "status" {
		return r.unknown()
	}
	return r.conn.do(UpdateStatus, object, client.ObjectKeyFromObject(object), func(*kind) error {
		return r.conn.Server.replace(object, statusOnly)
	})
}

func (r subresource) Create(_ context.Context, object, body client.Object, _ ...client.SubResourceCreateOption) error {
	eviction, ok := body.(*policyv1.Eviction)
	if r.name != "eviction" || !ok {
		return r.unknown()
	}
	return r.conn.do(Evict, object, client.ObjectKeyFromObject(object), func(k *kind) error {
		return r.conn.Server.evict(k, client.ObjectKeyFromObject(object), eviction)
	})
}
