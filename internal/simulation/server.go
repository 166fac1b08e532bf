// Package simulation is test support: only tests import it. It is a Kubernetes in memory, with the model of etcd in
// its pods. The operator's real code runs in it, many times faster than in a cluster.
//
// A Server stores objects as an API server does. A Conn is the client that the operator writes with, and a Cache what
// it reads from. A World adds what Kubernetes does with the objects: StatefulSets, the kubelet, garbage collection.
// Nothing in it waits, and every UID, resource version and address is the same in every run.
package simulation

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Server stores objects. What it stores is never changed, only replaced, so that its answers need no lock and an older
// state costs nothing to keep. It is not safe for concurrent use.
type Server struct {
	// Unknown are kinds that the API server does not know: cert-manager's, say, where it is not installed.
	Unknown map[schema.GroupKind]bool
	// BeforeEviction is called before a PodDisruptionBudget is asked, to bring the pods' readiness up to date.
	BeforeEviction func()

	scheme *runtime.Scheme
	now    func() time.Time
	kinds  map[schema.GroupVersionKind]*kind
	types  map[reflect.Type]*kind
	serial int
}

// kind is one kind of object, and the objects of it.
type kind struct {
	schema.GroupVersionKind
	resource schema.GroupResource
	scoped   bool // to the cluster
	objects  objects
	indexes  map[string]client.IndexerFunc
}

type objects map[types.NamespacedName]*version

// version is one version of an object.
type version struct {
	object  client.Object
	cached  client.Object // as a Cache keeps it, once it was asked for
	imprint *imprint
}

var clusterScoped = []string{"PersistentVolume", "StorageClass", "Node", "Namespace"}

// NewServer returns a server without objects.
func NewServer(scheme *runtime.Scheme, now func() time.Time) *Server {
	return &Server{
		Unknown: map[schema.GroupKind]bool{}, scheme: scheme, now: now,
		kinds: map[schema.GroupVersionKind]*kind{}, types: map[reflect.Type]*kind{},
	}
}

// kindOf returns the kind of an object or of a list.
func (s *Server) kindOf(object runtime.Object) (*kind, error) {
	t := reflect.TypeOf(object)
	if k := s.types[t]; k != nil {
		return k, nil
	}
	gvk, err := apiutil.GVKForObject(object, s.scheme)
	if err != nil {
		return nil, err
	}
	gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	if s.Unknown[gvk.GroupKind()] {
		return nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	k := s.kinds[gvk]
	if k == nil {
		plural, _ := meta.UnsafeGuessKindToResource(gvk)
		k = &kind{
			GroupVersionKind: gvk, resource: plural.GroupResource(), scoped: slices.Contains(clusterScoped, gvk.Kind),
			objects: objects{}, indexes: map[string]client.IndexerFunc{},
		}
		s.kinds[gvk] = k
	}
	if _, dynamic := object.(runtime.Unstructured); !dynamic {
		s.types[t] = k
	}
	return k, nil
}

// Next returns a number that was not returned before.
func (s *Server) Next() string {
	s.serial++
	return strconv.Itoa(s.serial)
}

// Snapshot is all that a Server held at one time.
type Snapshot map[*kind]objects

// Snapshot returns what the server holds now.
func (s *Server) Snapshot() Snapshot {
	all := Snapshot{}
	for _, k := range s.kinds {
		all[k] = maps.Clone(k.objects)
	}
	return all
}

func (s *Server) create(object client.Object, dryRun bool) error {
	k, err := s.kindOf(object)
	if err != nil {
		return err
	}
	key := client.ObjectKeyFromObject(object)
	switch {
	case object.GetResourceVersion() != "":
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	case k.objects[key] != nil:
		return apierrors.NewAlreadyExists(k.resource, key.Name)
	case dryRun:
		return nil
	}
	object.SetUID(types.UID("uid-" + s.Next()))
	object.SetResourceVersion(s.Next())
	object.SetGeneration(1)
	object.SetCreationTimestamp(metav1.NewTime(s.now()))
	if k.Kind == "PersistentVolumeClaim" {
		object.SetFinalizers(append(object.GetFinalizers(), claimProtection))
	}
	k.put(object)
	return nil
}

func (k *kind) put(object client.Object) {
	stored := object.DeepCopyObject().(client.Object)
	if _, dynamic := stored.(runtime.Unstructured); !dynamic {
		stored.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // as typed clients decode it
	}
	k.objects[client.ObjectKeyFromObject(object)] = &version{object: stored}
}

// part is what a write may change.
type part int

const (
	allButStatus part = iota
	statusOnly
	everything
)

// find returns the stored version of an object, NotFound where there is none.
func (s *Server) find(object client.Object) (*kind, *version, error) {
	k, err := s.kindOf(object)
	if err != nil {
		return nil, nil, err
	}
	stored := k.objects[client.ObjectKeyFromObject(object)]
	if stored == nil {
		return nil, nil, apierrors.NewNotFound(k.resource, object.GetName())
	}
	return k, stored, nil
}

// replace stores an object in place of the one that its caller read. Without a resource version it asks for none.
func (s *Server) replace(object client.Object, p part) error {
	k, stored, err := s.find(object)
	if err != nil {
		return err
	}
	key := client.ObjectKeyFromObject(object)
	live := stored.object
	if uid := object.GetUID(); uid != "" && uid != live.GetUID() {
		return s.conflict(k, key.Name, fmt.Sprintf("Precondition failed: UID in precondition: %s, UID in object meta: %s", uid, live.GetUID()))
	}
	if version := object.GetResourceVersion(); version != "" && version != live.GetResourceVersion() {
		return s.conflict(k, key.Name, "the object has been modified; please apply your changes to the latest version and try again")
	}
	s.store(k, object, live, p)
	return nil
}

func (s *Server) conflict(k *kind, name, why string) error {
	return apierrors.NewConflict(k.resource, name, fmt.Errorf("%s", why))
}

// store writes what changed of an object. A write that changes nothing makes no new version.
func (s *Server) store(k *kind, object, live client.Object, p part) {
	switch p {
	case allButStatus:
		copyField(live, object, "Status")
	case statusOnly:
		whole := live.DeepCopyObject().(client.Object)
		copyField(object, whole, "Status")
		assign(object, whole)
	case everything:
	}
	object.SetUID(live.GetUID())
	object.SetCreationTimestamp(live.GetCreationTimestamp())
	object.SetDeletionTimestamp(live.GetDeletionTimestamp())
	object.SetGeneration(live.GetGeneration())
	object.SetResourceVersion(live.GetResourceVersion())
	object.GetObjectKind().SetGroupVersionKind(live.GetObjectKind().GroupVersionKind())
	if equality.Semantic.DeepEqual(object, live) {
		return
	}
	if !sameField(object, live, "Spec") {
		object.SetGeneration(live.GetGeneration() + 1)
	}
	object.SetResourceVersion(s.Next())
	if object.GetDeletionTimestamp() != nil && len(object.GetFinalizers()) == 0 && k.Kind != podKind {
		delete(k.objects, client.ObjectKeyFromObject(object))
		return
	}
	k.put(object)
}

// assign makes an object equal to another one of its type.
func assign(to, from client.Object) {
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from.DeepCopyObject()).Elem())
}

// copyField copies the field Spec or Status of an object, where its kind has one.
func copyField(from, to client.Object, name string) {
	if u, dynamic := from.(*unstructured.Unstructured); dynamic {
		content := to.(*unstructured.Unstructured).Object
		key := strings.ToLower(name)
		if value, ok := u.Object[key]; ok {
			content[key] = runtime.DeepCopyJSONValue(value)
		} else {
			delete(content, key)
		}
		return
	}
	if source := reflect.ValueOf(from).Elem().FieldByName(name); source.IsValid() {
		reflect.ValueOf(to).Elem().FieldByName(name).Set(reflect.ValueOf(from.DeepCopyObject()).Elem().FieldByName(name))
	}
}

func sameField(a, b client.Object, name string) bool {
	if u, dynamic := a.(*unstructured.Unstructured); dynamic {
		key := strings.ToLower(name)
		return equality.Semantic.DeepEqual(u.Object[key], b.(*unstructured.Unstructured).Object[key])
	}
	x, y := reflect.ValueOf(a).Elem().FieldByName(name), reflect.ValueOf(b).Elem().FieldByName(name)
	return !x.IsValid() || equality.Semantic.DeepEqual(x.Interface(), y.Interface())
}

const (
	podKind         = "Pod"
	claimProtection = "kubernetes.io/pvc-protection"
)

// remove deletes an object, or marks it as deleted where a pod has to end first, or where it has finalizers.
func (s *Server) remove(object client.Object, options *client.DeleteOptions) error {
	k, stored, err := s.find(object)
	if err != nil {
		return err
	}
	key := client.ObjectKeyFromObject(object)
	if err := s.checkPreconditions(k, stored.object, options.Preconditions); err != nil {
		return err
	}
	if len(options.DryRun) > 0 || stored.object.GetDeletionTimestamp() != nil {
		return nil
	}
	foreground := options.PropagationPolicy != nil && *options.PropagationPolicy == metav1.DeletePropagationForeground
	if !foreground && k.Kind != podKind && len(stored.object.GetFinalizers()) == 0 {
		delete(k.objects, key)
		return nil
	}
	marked := stored.object.DeepCopyObject().(client.Object)
	if foreground {
		marked.SetFinalizers(append(marked.GetFinalizers(), metav1.FinalizerDeleteDependents))
	}
	now := metav1.NewTime(s.now())
	marked.SetDeletionTimestamp(&now)
	marked.SetResourceVersion(s.Next())
	k.put(marked)
	return nil
}

func (s *Server) checkPreconditions(k *kind, live client.Object, p *metav1.Preconditions) error {
	switch {
	case p == nil:
	case p.UID != nil && *p.UID != live.GetUID():
		return s.conflict(k, live.GetName(), fmt.Sprintf("the UID in the precondition (%s) does not match the UID in record (%s)", *p.UID, live.GetUID()))
	case p.ResourceVersion != nil && *p.ResourceVersion != live.GetResourceVersion():
		return s.conflict(k, live.GetName(), "the ResourceVersion in the precondition does not match that in record")
	}
	return nil
}

// immutableUID is the API server's answer to a patch that names another UID.
func immutableUID(k *kind, name string, uid types.UID) error {
	return apierrors.NewInvalid(k.GroupKind(), name, field.ErrorList{
		field.Invalid(field.NewPath("metadata", "uid"), uid, "field is immutable"),
	})
}

// all returns the objects of a type, in the order of their names. They must not be changed.
func all[T client.Object](s *Server) []T {
	k := kindFor[T](s)
	list := make([]T, 0, len(k.objects))
	for _, key := range sortedKeys(k.objects) {
		list = append(list, k.objects[key].object.(T))
	}
	return list
}

// one returns an object, and false where there is none. It must not be changed.
func one[T client.Object](s *Server, namespace, name string) (T, bool) {
	if v := kindFor[T](s).objects[types.NamespacedName{Namespace: namespace, Name: name}]; v != nil {
		return v.object.(T), true
	}
	var none T
	return none, false
}

func kindFor[T client.Object](s *Server) *kind {
	var object T
	t := reflect.TypeOf(object)
	if k := s.types[t]; k != nil {
		return k
	}
	k, err := s.kindOf(reflect.New(t.Elem()).Interface().(runtime.Object))
	if err != nil {
		panic(err) // the scheme of a test lacks the kind
	}
	return k
}

// change writes an object as Kubernetes itself does, without preconditions.
func change[T client.Object](s *Server, object T, edit func(T)) {
	edited := object.DeepCopyObject().(T)
	edit(edited)
	s.store(kindFor[T](s), edited, object, everything)
}

// erase removes an object at once.
func erase[T client.Object](s *Server, object T) {
	delete(kindFor[T](s).objects, client.ObjectKeyFromObject(object))
}

func sortedKeys(all objects) []types.NamespacedName {
	return slices.SortedFunc(maps.Keys(all), func(a, b types.NamespacedName) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
}

// Remove ends an object at once, finalizers or not.
func Remove(s *Server, object client.Object) {
	if k, err := s.kindOf(object); err == nil {
		delete(k.objects, client.ObjectKeyFromObject(object))
	}
}
