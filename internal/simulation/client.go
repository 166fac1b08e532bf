package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
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
	return c.do(List, list, types.NamespacedName{}, func(k *kind) error { return k.list(k.objects, list, options, nil) })
}

func (k *kind) get(from objects, key types.NamespacedName, into client.Object) error {
	v := from[key]
	if v == nil {
		return apierrors.NewNotFound(k.resource, key.Name)
	}
	k.copyTo(into, v.object)
	return nil
}

// copyTo copies a stored object. One of an unstructured kind keeps its kind.
func (k *kind) copyTo(into, stored client.Object) { assign(into, stored) }

func (k *kind) list(from objects, list client.ObjectList, options []client.ListOption, transform func(*version) client.Object) error {
	var o client.ListOptions
	o.ApplyOptions(options)
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	items.Set(reflect.MakeSlice(items.Type(), 0, 0))
	for _, key := range sortedKeys(from) {
		object := from[key].object
		if transform != nil {
			object = transform(from[key])
		}
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
	k.copyTo(object, c.kept(v))
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

func (s *Server) patch(k *kind, object client.Object, kind types.PatchType, data []byte) error {
	key := client.ObjectKeyFromObject(object)
	live := k.live(key)
	if live == nil {
		return apierrors.NewNotFound(k.resource, key.Name)
	}
	var changes map[string]any
	if err := json.Unmarshal(data, &changes); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	metadata, _ := changes["metadata"].(map[string]any)
	if version, ok := metadata["resourceVersion"].(string); ok && version != live.GetResourceVersion() {
		return s.conflict(k, key.Name, "the object has been modified; please apply your changes to the latest version and try again")
	}
	if uid, ok := metadata["uid"].(string); ok && uid != string(live.GetUID()) {
		return immutableUID(k, key.Name, types.UID(uid))
	}
	patched, err := patchedObject(live, kind, changes)
	if err != nil {
		return err
	}
	s.store(k, patched, live, allButStatus)
	assign(object, patched)
	return nil
}

func patchedObject(live client.Object, kind types.PatchType, changes map[string]any) (client.Object, error) {
	if annotations, ok := annotationsOnly(changes); ok && kind == types.MergePatchType {
		patched := live.DeepCopyObject().(client.Object)
		all := patched.GetAnnotations()
		if all == nil {
			all = map[string]string{}
		}
		for name, value := range annotations {
			if text, ok := value.(string); ok {
				all[name] = text
			} else {
				delete(all, name)
			}
		}
		patched.SetAnnotations(all)
		return patched, nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return nil, err
	}
	switch kind {
	case types.MergePatchType:
		content = merge(content, changes, true)
	case types.StrategicMergePatchType:
		if content, err = strategicpatch.StrategicMergeMapPatch(content, changes, live); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	default:
		return nil, apierrors.NewBadRequest("the simulation does not know " + string(kind))
	}
	return fromContent(live, content)
}

func fromContent(live client.Object, content map[string]any) (client.Object, error) {
	if _, dynamic := live.(*unstructured.Unstructured); dynamic {
		return &unstructured.Unstructured{Object: content}, nil
	}
	object := reflect.New(reflect.TypeOf(live).Elem()).Interface().(client.Object)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, object); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return object, nil
}

// annotationsOnly returns the annotations of a patch that changes nothing else.
func annotationsOnly(changes map[string]any) (map[string]any, bool) {
	metadata, _ := changes["metadata"].(map[string]any)
	annotations, ok := metadata["annotations"].(map[string]any)
	for name := range metadata {
		ok = ok && (name == "annotations" || name == "uid" || name == "resourceVersion")
	}
	return annotations, ok && len(changes) == 1
}

// merge puts the changes into the content. A null removes a field, where nulls says so; a list replaces a list.
func merge(content, changes map[string]any, nulls bool) map[string]any {
	if content == nil {
		content = map[string]any{}
	}
	for name, value := range changes {
		nested, isMap := value.(map[string]any)
		switch {
		case value == nil && nulls:
			delete(content, name)
		case isMap:
			have, _ := content[name].(map[string]any)
			content[name] = merge(have, nested, nulls)
		default:
			content[name] = value
		}
	}
	return content
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

func (s *Server) apply(k *kind, empty client.Object, wanted *unstructured.Unstructured) error {
	key := client.ObjectKeyFromObject(wanted)
	live := k.live(key)
	uid := wanted.GetUID()
	if live == nil && uid != "" {
		return s.conflict(k, key.Name, fmt.Sprintf("uid mismatch: the provided object specified uid %s, and no existing object was found", uid))
	}
	if live == nil {
		object, err := fromContent(empty, wanted.Object)
		if err != nil {
			return err
		}
		return s.create(object, false)
	}
	if uid != "" && uid != live.GetUID() {
		return s.conflict(k, key.Name, fmt.Sprintf("Precondition failed: UID in precondition: %s, UID in object meta: %s", uid, live.GetUID()))
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return err
	}
	owners := live.GetOwnerReferences()
	patched, err := fromContent(live, merge(content, wanted.Object, false))
	if err != nil {
		return err
	}
	patched.SetOwnerReferences(mergedOwners(owners, patched.GetOwnerReferences()))
	s.store(k, patched, live, allButStatus)
	return nil
}

// mergedOwners is a list with the UID as its key.
func mergedOwners(have, applied []metav1.OwnerReference) []metav1.OwnerReference {
	merged := slices.Clone(have)
	for _, owner := range applied {
		i := slices.IndexFunc(merged, func(o metav1.OwnerReference) bool { return o.UID == owner.UID })
		if i < 0 {
			merged = append(merged, owner)
		} else {
			merged[i] = owner
		}
	}
	return merged
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

func (r subresource) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
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

// evict deletes a pod if its PodDisruptionBudget allows it, as the API server does.
func (s *Server) evict(k *kind, key types.NamespacedName, eviction *policyv1.Eviction) error {
	if s.BeforeEviction != nil {
		s.BeforeEviction()
	}
	pod, ok := k.live(key).(*corev1.Pod)
	if !ok {
		return apierrors.NewNotFound(k.resource, key.Name)
	}
	o := &client.DeleteOptions{}
	if eviction.DeleteOptions != nil {
		o.Preconditions = eviction.DeleteOptions.Preconditions
	}
	if err := s.checkPreconditions(k, pod, o.Preconditions); err != nil {
		return err
	}
	if pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
		if err := s.mayDisrupt(pod); err != nil {
			return err
		}
	}
	return s.remove(pod.DeepCopy(), o)
}

// mayDisrupt asks the budget of a running pod.
func (s *Server) mayDisrupt(pod *corev1.Pod) error {
	var budgets []*policyv1.PodDisruptionBudget
	for _, b := range all[*policyv1.PodDisruptionBudget](s) {
		if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && selector.Matches(labels.Set(pod.Labels)) {
			budgets = append(budgets, b)
		}
	}
	switch len(budgets) {
	case 0:
		return nil
	case 1:
	default:
		return apierrors.NewInternalError(errors.New("This pod has more than one PodDisruptionBudget, " + //nolint:revive,staticcheck // the API server's words
			"which the eviction subresource does not support."))
	}
	healthy, desired := s.healthyPods(budgets[0])
	always := budgets[0].Spec.UnhealthyPodEvictionPolicy
	unhealthy := !isReady(pod)
	switch {
	case unhealthy && always != nil && *always == policyv1.AlwaysAllow:
		return nil
	case unhealthy && healthy >= desired && desired > 0, healthy > desired:
		return nil
	default:
		answer := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
		answer.ErrStatus.Details.Causes = []metav1.StatusCause{{
			Type:    policyv1.DisruptionBudgetCause,
			Message: fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", budgets[0].Name, desired, healthy),
		}}
		return answer
	}
}

// healthyPods counts the ready pods of a budget, and how many it asks for.
func (s *Server) healthyPods(b *policyv1.PodDisruptionBudget) (healthy, desired int) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return 0, 0
	}
	for _, p := range all[*corev1.Pod](s) {
		if p.DeletionTimestamp == nil && selector.Matches(labels.Set(p.Labels)) && isReady(p) {
			healthy++
		}
	}
	if b.Spec.MinAvailable != nil {
		desired = b.Spec.MinAvailable.IntValue()
	}
	return healthy, desired
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
