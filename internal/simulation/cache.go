package simulation

import (
	"context"
	"maps"
	"reflect"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Cache is what an operator reads from: objects as its cache options keep them, perhaps of an earlier time.
type Cache struct {
	server  *Server
	options map[reflect.Type]cache.ByObject
	old     Snapshot // nil while the cache is up to date
}

// NewCache returns a cache of the server.
func NewCache(s *Server, o cache.Options) *Cache {
	c := &Cache{server: s, options: map[reflect.Type]cache.ByObject{}}
	for object, by := range o.ByObject {
		c.options[reflect.TypeOf(object)] = by
	}
	return c
}

// Freeze keeps the cache at what the server holds now, until CatchUp.
func (c *Cache) Freeze() {
	if c.old == nil {
		c.old = c.server.Snapshot()
	}
}

// Behind reports whether the cache serves an earlier state of any kind.
func (c *Cache) Behind() bool { return len(c.old) > 0 }

// Frozen names the kinds of which the cache serves an earlier state that is not the present one.
func (c *Cache) Frozen() []string {
	var names []string
	for k, old := range c.old {
		if !maps.Equal(old, k.objects) {
			names = append(names, k.Kind)
		}
	}
	slices.Sort(names)
	return names
}

// CatchUp ends Freeze. For kinds, it ends for these alone: each kind is watched on its own.
func (c *Cache) CatchUp(kinds ...client.Object) {
	if len(kinds) == 0 {
		c.old = nil
	}
	for _, object := range kinds {
		if k, err := c.server.kindOf(object); err == nil && c.old != nil {
			delete(c.old, k)
		}
	}
}

func (c *Cache) objects(k *kind) objects {
	if old, frozen := c.old[k]; frozen {
		return old
	}
	return k.objects
}

// kept returns the object as the cache keeps it, nil where it does not.
func (c *Cache) kept(v *version) client.Object {
	by, ok := c.options[reflect.TypeOf(v.object)]
	if !ok {
		return v.object
	}
	if by.Label != nil && !by.Label.Matches(labels.Set(v.object.GetLabels())) {
		return nil
	}
	if v.cached == nil {
		v.cached = transformed(by.Transform, v.object)
	}
	return v.cached
}

func transformed(transform toolscache.TransformFunc, object client.Object) client.Object {
	object = object.DeepCopyObject().(client.Object)
	if transform == nil {
		return object
	}
	kept, err := transform(object)
	if err != nil {
		panic(err) // the operator's transforms do not fail
	}
	return kept.(client.Object)
}

// Get implements client.Reader.
func (c *Cache) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	k, err := c.server.kindOf(object)
	if err != nil {
		return err
	}
	v := c.objects(k)[key]
	if v == nil || c.kept(v) == nil {
		return apierrors.NewNotFound(k.resource, key.Name)
	}
	assign(object, c.kept(v))
	return nil
}

// List implements client.Reader.
func (c *Cache) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	k, err := c.server.kindOf(list)
	if err != nil {
		return err
	}
	return k.list(c.objects(k), list, options, c.kept)
}
