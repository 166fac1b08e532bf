// Package failpoint names every write of the operator, so that tests can stop it before or after any of them.
package failpoint

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Write is one write to the API server.
type Write struct {
	// Verb is create, update, patch, apply or delete. A write of a subresource has its name appended: update-status.
	Verb string
	// Kind and Name of the object.
	Kind, Name string
	// Ordinal is 1 for the client's first write of this verb, kind and name, 2 for the second, and so on.
	Ordinal int
}

// String returns the write as tests name it: verb:kind:name, followed by #ordinal from the second one on.
func (w Write) String() string {
	text := w.Verb + ":" + w.Kind + ":" + w.Name
	if w.Ordinal > 1 {
		text += fmt.Sprintf("#%d", w.Ordinal)
	}
	return text
}

// Hooks are called around each write. Each may be nil.
type Hooks struct {
	// Before prevents the write by returning an error, which the writer gets.
	Before func(Write) error
	// After gets the result of the write. The writer gets what After returns.
	After func(Write, error) error
}

// Wrap returns a client that calls the hooks around every write of c.
func Wrap(c client.Client, hooks Hooks) client.Client {
	return &wrapped{Client: c, around: &around{scheme: c.Scheme(), hooks: hooks, counts: map[Write]int{}}}
}

// around counts writes and calls the hooks.
type around struct {
	scheme *runtime.Scheme
	hooks  Hooks

	mu     sync.Mutex
	counts map[Write]int
}

func (a *around) do(verb string, object any, write func() error) error {
	w := a.name(verb, object)
	if a.hooks.Before != nil {
		if err := a.hooks.Before(w); err != nil {
			return err
		}
	}
	err := write()
	if a.hooks.After != nil {
		return a.hooks.After(w, err)
	}
	return err
}

func (a *around) name(verb string, object any) Write {
	w := Write{Verb: verb}
	switch object := object.(type) {
	case interface { // an apply configuration made from an unstructured object
		GetKind() string
		GetName() string
	}:
		w.Kind, w.Name = object.GetKind(), object.GetName()
	case client.Object:
		w.Name = object.GetName()
		if gvk, err := apiutil.GVKForObject(object, a.scheme); err == nil {
			w.Kind = gvk.Kind
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[w]++
	counted := w
	counted.Ordinal = a.counts[w]
	return counted
}

type wrapped struct {
	client.Client
	around *around
}

// Create calls the hooks, except for a dry run, which writes nothing.
func (c *wrapped) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	if len((&client.CreateOptions{}).ApplyOptions(options).DryRun) > 0 {
		return c.Client.Create(ctx, object, options...)
	}
	return c.around.do("create", object, func() error { return c.Client.Create(ctx, object, options...) })
}

func (c *wrapped) Update(ctx context.Context, object client.Object, options ...client.UpdateOption) error {
	return c.around.do("update", object, func() error { return c.Client.Update(ctx, object, options...) })
}

func (c *wrapped) Patch(
	ctx context.Context, object client.Object, patch client.Patch, options ...client.PatchOption,
) error {
	return c.around.do("patch", object, func() error { return c.Client.Patch(ctx, object, patch, options...) })
}

func (c *wrapped) Apply(ctx context.Context, object runtime.ApplyConfiguration, options ...client.ApplyOption) error {
	return c.around.do("apply", object, func() error { return c.Client.Apply(ctx, object, options...) })
}

func (c *wrapped) Delete(ctx context.Context, object client.Object, options ...client.DeleteOption) error {
	return c.around.do("delete", object, func() error { return c.Client.Delete(ctx, object, options...) })
}

func (c *wrapped) DeleteAllOf(ctx context.Context, object client.Object, options ...client.DeleteAllOfOption) error {
	return c.around.do("delete-all", object, func() error { return c.Client.DeleteAllOf(ctx, object, options...) })
}

func (c *wrapped) Status() client.SubResourceWriter { return c.SubResource("status") }

func (c *wrapped) SubResource(name string) client.SubResourceClient {
	return &subResource{SubResourceClient: c.Client.SubResource(name), around: c.around, name: name}
}

type subResource struct {
	client.SubResourceClient
	around *around
	name   string
}

func (c *subResource) Create(
	ctx context.Context, object, body client.Object, options ...client.SubResourceCreateOption,
) error {
	return c.around.do("create-"+c.name, object, func() error {
		return c.SubResourceClient.Create(ctx, object, body, options...)
	})
}

func (c *subResource) Update(
	ctx context.Context, object client.Object, options ...client.SubResourceUpdateOption,
) error {
	return c.around.do("update-"+c.name, object, func() error {
		return c.SubResourceClient.Update(ctx, object, options...)
	})
}

func (c *subResource) Patch(
	ctx context.Context, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption,
) error {
	return c.around.do("patch-"+c.name, object, func() error {
		return c.SubResourceClient.Patch(ctx, object, patch, options...)
	})
}

func (c *subResource) Apply(
	ctx context.Context, object runtime.ApplyConfiguration, options ...client.SubResourceApplyOption,
) error {
	return c.around.do("apply-"+c.name, object, func() error {
		return c.SubResourceClient.Apply(ctx, object, options...)
	})
}
