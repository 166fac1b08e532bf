package controllers

import (
	"context"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// unseenTime is how long a pass waits for the caches to show a write. Then the object was deleted, or a watch is
// broken.
const unseenTime = 5 * time.Second

// OwnWrites are the operator's writes that its caches do not show yet. A pass over caches that lag behind decides once
// more what was just done. That costs requests that the API server refuses. After a pod was deleted it would also take
// the restart of its member for one that has not begun.
type OwnWrites struct {
	mu       sync.Mutex
	clusters map[types.NamespacedName]map[writtenObject]ownWrite
}

type writtenObject struct {
	kind reflect.Type
	name string
}

type ownWrite struct {
	// object has the type of what was written, and nothing else of it.
	object  client.Object
	version string
	// deleted is the UID of an object that was deleted; empty for other writes.
	deleted types.UID
	at      time.Time
}

// Through returns a client that remembers what it writes.
func (w *OwnWrites) Through(c client.Client) client.Client { return &rememberingClient{c, w} }

// remember notes a write of an object that a cache holds. A dry run has no version.
func (w *OwnWrites) remember(object client.Object) {
	if version := object.GetResourceVersion(); version != "" {
		w.note(object, ownWrite{version: version})
	}
}

// rememberDeletion notes that an object was deleted, or is being deleted.
func (w *OwnWrites) rememberDeletion(object client.Object) {
	if uid := object.GetUID(); uid != "" {
		w.note(object, ownWrite{deleted: uid})
	}
}

func (w *OwnWrites) note(object client.Object, write ownWrite) {
	name := object.GetLabels()[cluster.LabelCluster]
	if _, ok := object.(*v1beta1.EtcdCluster); ok {
		name = object.GetName()
	}
	if name == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key := types.NamespacedName{Namespace: object.GetNamespace(), Name: name}
	if w.clusters == nil {
		w.clusters = map[types.NamespacedName]map[writtenObject]ownWrite{}
	}
	if w.clusters[key] == nil {
		w.clusters[key] = map[writtenObject]ownWrite{}
	}
	write.object, write.at = reflect.New(reflect.TypeOf(object).Elem()).Interface().(client.Object), time.Now()
	w.clusters[key][writtenObject{reflect.TypeOf(object), object.GetName()}] = write
}

// areUnseen reports whether the caches lack a write for a cluster. It forgets the writes that they show.
func (w *OwnWrites) areUnseen(ctx context.Context, caches client.Reader, key types.NamespacedName) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for written, write := range w.clusters[key] {
		at := types.NamespacedName{Namespace: key.Namespace, Name: written.name}
		if time.Since(write.at) < unseenTime && !shows(ctx, caches, at, write) {
			return true
		}
		delete(w.clusters[key], written)
	}
	delete(w.clusters, key)
	return false
}

// shows reports whether the caches have an object as it was written, or a later version. An object that was deleted
// is gone, going, or another one.
func shows(ctx context.Context, caches client.Reader, key types.NamespacedName, write ownWrite) bool {
	if err := caches.Get(ctx, key, write.object, client.UnsafeDisableDeepCopy); err != nil {
		return !apierrors.IsNotFound(err) || write.deleted != ""
	}
	if write.deleted != "" {
		return write.object.GetUID() != write.deleted || write.object.GetDeletionTimestamp() != nil
	}
	order, err := resourceversion.CompareResourceVersion(write.object.GetResourceVersion(), write.version)
	return err != nil || order >= 0
}

// rememberingClient remembers its writes, except those of Secrets, which no cache holds.
type rememberingClient struct {
	client.Client
	writes *OwnWrites
}

func (c *rememberingClient) remembered(object client.Object, err error) error {
	if _, ok := object.(*corev1.Secret); !ok && err == nil {
		c.writes.remember(object)
	}
	return err
}

func (c *rememberingClient) rememberedDeletion(object client.Object, err error) error {
	if err == nil {
		c.writes.rememberDeletion(object)
	}
	return err
}

// Delete implements client.Client.
func (c *rememberingClient) Delete(ctx context.Context, object client.Object, options ...client.DeleteOption) error {
	return c.rememberedDeletion(object, c.Client.Delete(ctx, object, options...))
}

// Create implements client.Client.
func (c *rememberingClient) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	return c.remembered(object, c.Client.Create(ctx, object, options...))
}

// Update implements client.Client.
func (c *rememberingClient) Update(ctx context.Context, object client.Object, options ...client.UpdateOption) error {
	return c.remembered(object, c.Client.Update(ctx, object, options...))
}

// Patch implements client.Client.
func (c *rememberingClient) Patch(
	ctx context.Context, object client.Object, patch client.Patch, options ...client.PatchOption,
) error {
	return c.remembered(object, c.Client.Patch(ctx, object, patch, options...))
}

// SubResource implements client.Client.
func (c *rememberingClient) SubResource(name string) client.SubResourceClient {
	switch name {
	case evictionSubResource:
		return rememberingEviction{c.Client.SubResource(name), c}
	case resizeSubResource:
		return rememberingResize{c.Client.SubResource(name), c}
	default:
		return c.Client.SubResource(name)
	}
}

// resizeSubResource of a pod changes its resources.
const resizeSubResource = "resize"

type rememberingResize struct {
	client.SubResourceClient
	client *rememberingClient
}

// Patch implements client.SubResourceClient.
func (r rememberingResize) Patch(
	ctx context.Context, pod client.Object, patch client.Patch, options ...client.SubResourcePatchOption,
) error {
	return r.client.remembered(pod, r.SubResourceClient.Patch(ctx, pod, patch, options...))
}

// evictionSubResource of a pod deletes it.
const evictionSubResource = "eviction"

type rememberingEviction struct {
	client.SubResourceClient
	client *rememberingClient
}

// Create implements client.SubResourceClient.
func (e rememberingEviction) Create(
	ctx context.Context, pod, eviction client.Object, options ...client.SubResourceCreateOption,
) error {
	return e.client.rememberedDeletion(pod, e.SubResourceClient.Create(ctx, pod, eviction, options...))
}

// Status implements client.Client.
func (c *rememberingClient) Status() client.SubResourceWriter {
	return rememberingStatus{c.Client.Status(), c}
}

type rememberingStatus struct {
	client.SubResourceWriter
	client *rememberingClient
}

// Update implements client.SubResourceWriter.
func (s rememberingStatus) Update(
	ctx context.Context, object client.Object, options ...client.SubResourceUpdateOption,
) error {
	return s.client.remembered(object, s.SubResourceWriter.Update(ctx, object, options...))
}
