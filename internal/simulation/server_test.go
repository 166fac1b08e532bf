package simulation_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

type server struct {
	*simulation.Conn
	t *testing.T
}

func newServer(t *testing.T, objects ...client.Object) server {
	s := server{&simulation.Conn{Server: simulation.NewWorld(scheme, clustertest.Now).Server}, t}
	for _, o := range objects {
		s.must(s.Create(t.Context(), o))
	}
	return s
}

func (s server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// answers fails unless the API server answers with a reason.
func (s server) answers(err error, is func(error) bool) {
	s.t.Helper()
	if !is(err) {
		s.t.Errorf("got %v", err)
	}
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "etcd"}}
}

func TestRefusesWritesOfWhatWasWrittenSince(t *testing.T) {
	s := newServer(t, &appsv1.StatefulSet{ObjectMeta: named("prod-0")})
	var first, second appsv1.StatefulSet
	s.must(s.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "prod-0"}, &first))
	first.DeepCopyInto(&second)
	s.must(s.Update(t.Context(), &first))
	if first.ResourceVersion != second.ResourceVersion {
		t.Error("a write that changes nothing made a new version")
	}
	first.Spec.ServiceName, first.Status.Replicas = "prod", 7
	s.must(s.Update(t.Context(), &first))
	if first.Generation != 2 || first.Status.Replicas != 0 {
		t.Errorf("generation %d, and the status was written: %d", first.Generation, first.Status.Replicas)
	}
	s.answers(s.Update(t.Context(), &second), apierrors.IsConflict)
	s.answers(s.Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: named("prod-0")}), apierrors.IsAlreadyExists)
	s.must(s.Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: named("prod-1")}, client.DryRunAll))
	s.answers(s.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "prod-1"}, &second), apierrors.IsNotFound)
	other := types.UID("other")
	s.answers(s.Delete(t.Context(), &first, client.Preconditions{UID: &other}), apierrors.IsConflict)
	first.UID = other
	s.answers(s.Update(t.Context(), &first), apierrors.IsConflict)
}

func TestWritesTheStatusAlone(t *testing.T) {
	s := newServer(t, &v1beta1.EtcdCluster{ObjectMeta: named("prod")})
	var c v1beta1.EtcdCluster
	s.must(s.Get(t.Context(), key, &c))
	c.Spec.Replicas, c.Status.Replicas = 5, 3
	s.must(s.Status().Update(t.Context(), &c))
	s.must(s.Get(t.Context(), key, &c))
	if c.Spec.Replicas != 0 || c.Status.Replicas != 3 || c.Generation != 1 {
		t.Errorf("got %d replicas, %d in the status, generation %d", c.Spec.Replicas, c.Status.Replicas, c.Generation)
	}
}

func TestPatchesUnderPreconditions(t *testing.T) {
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "1"}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: named("data")}
	claim.OwnerReferences = []metav1.OwnerReference{owner}
	s := newServer(t, claim)
	patch := func(kind types.PatchType, text string) error {
		return s.Patch(t.Context(), claim, client.RawPatch(kind, []byte(text)))
	}
	before := claim.ResourceVersion
	s.must(patch(types.MergePatchType, `{"metadata":{"resourceVersion":"`+before+`","annotations":{"a":"1"}}}`))
	s.answers(patch(types.MergePatchType, `{"metadata":{"resourceVersion":"`+before+`","annotations":{"a":"2"}}}`), apierrors.IsConflict)
	s.answers(patch(types.MergePatchType, `{"metadata":{"uid":"other","annotations":{"a":"2"}}}`), apierrors.IsInvalid)
	s.must(patch(types.MergePatchType, `{"spec":{"volumeName":"pv"},"metadata":{"annotations":{"b":"1"}}}`))
	s.must(patch(types.StrategicMergePatchType, `{"metadata":{"ownerReferences":[{"uid":"2","kind":"EtcdCluster","name":"prod","apiVersion":"v1"}]}}`))
	if claim.Annotations["a"] != "1" || claim.Annotations["b"] != "1" || claim.Spec.VolumeName != "pv" || len(claim.OwnerReferences) != 2 {
		t.Errorf("got %+v", claim)
	}
	s.must(patch(types.StrategicMergePatchType, `{"metadata":{"ownerReferences":[{"$patch":"delete","uid":"2"}]}}`))
	if len(claim.OwnerReferences) != 1 || claim.OwnerReferences[0].UID != "1" {
		t.Errorf("got the owners %v", claim.OwnerReferences)
	}
}

func TestAppliesToTheVeryObject(t *testing.T) {
	s := newServer(t, &corev1.Service{ObjectMeta: named("prod"), Spec: corev1.ServiceSpec{ClusterIP: "None"}})
	var live corev1.Service
	s.must(s.Get(t.Context(), key, &live))
	apply := func(name string, uid types.UID) error {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"publishNotReadyAddresses": true}}}
		u.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Service"})
		u.SetNamespace("shop")
		u.SetName(name)
		u.SetUID(uid)
		return s.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u))
	}
	s.must(apply("prod", live.UID))
	s.answers(apply("prod", "other"), apierrors.IsConflict)
	s.answers(apply("gone", live.UID), apierrors.IsConflict)
	s.must(s.Get(t.Context(), key, &live))
	if !live.Spec.PublishNotReadyAddresses || live.Spec.ClusterIP != "None" {
		t.Errorf("got %+v", live.Spec)
	}
	s.Server.Unknown[schema.GroupKind{Group: "cert-manager.io", Kind: "Certificate"}] = true
	certificate := &unstructured.Unstructured{}
	certificate.SetGroupVersionKind(schema.GroupVersionKind{Group: "cert-manager.io", Version: "v1", Kind: "Certificate"})
	s.answers(s.Get(t.Context(), key, certificate), meta.IsNoMatchError)
}

func TestEvictsWithinTheBudget(t *testing.T) {
	pod := func(name string, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: named(name), Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
		}}
	}
	budget := func(name string) *policyv1.PodDisruptionBudget {
		two := intstr.FromInt32(2)
		return &policyv1.PodDisruptionBudget{ObjectMeta: named(name), Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &two, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "etcd"}},
		}}
	}
	s := newServer(t, pod("a", "True"), pod("b", "True"), pod("c", "True"), pod("d", "False"), budget("prod"))
	evict := func(name string, uid types.UID) error {
		eviction := &policyv1.Eviction{}
		if uid != "" {
			eviction.DeleteOptions = &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
		}
		return s.SubResource("eviction").Create(t.Context(), &corev1.Pod{ObjectMeta: named(name)}, eviction)
	}
	s.answers(evict("a", "other"), apierrors.IsConflict)
	s.must(evict("a", ""))
	s.answers(evict("b", ""), apierrors.IsTooManyRequests)
	s.must(evict("d", "")) // not ready, and the others are enough
	s.must(s.Create(t.Context(), budget("another")))
	s.answers(evict("b", ""), apierrors.IsInternalError)
	s.answers(evict("none", ""), apierrors.IsNotFound)
	var going corev1.PodList
	s.must(s.List(t.Context(), &going, client.InNamespace("shop"), client.MatchingLabels{"app": "etcd"}))
	for _, p := range going.Items {
		if deleted := p.DeletionTimestamp != nil; deleted != (p.Name == "a" || p.Name == "d") {
			t.Errorf("%s is being deleted: %t", p.Name, deleted)
		}
	}
}

func TestServesAnOlderStateToReadersThatAreBehind(t *testing.T) {
	s := newServer(t, &corev1.Service{ObjectMeta: named("prod")}, &corev1.Pod{ObjectMeta: named("prod")})
	old := simulation.NewCache(s.Server, cache.Options{})
	old.Freeze()
	s.must(s.Delete(t.Context(), &corev1.Service{ObjectMeta: named("prod")}))
	s.must(s.Create(t.Context(), &corev1.Pod{ObjectMeta: named("later")}))
	s.must(old.Get(t.Context(), key, &corev1.Service{}))
	s.answers(s.Get(t.Context(), key, &corev1.Service{}), apierrors.IsNotFound)
	s.must(s.Server.IndexField(t.Context(), &corev1.Pod{}, "name", func(o client.Object) []string { return []string{o.GetName()} }))
	listed := func() int {
		var pods corev1.PodList
		s.must(old.List(t.Context(), &pods, client.MatchingFields{"name": "later"}))
		return len(pods.Items)
	}
	if n := listed(); n != 0 {
		t.Errorf("%d pods of a later time", n)
	}
	old.CatchUp(&corev1.Pod{})
	if n := listed(); n != 1 {
		t.Errorf("%d pods once the cache of pods caught up", n)
	}
	s.must(old.Get(t.Context(), key, &corev1.Service{}))
	old.CatchUp()
	s.answers(old.Get(t.Context(), key, &corev1.Service{}), apierrors.IsNotFound)
}

// Two worlds in which the same happened have one fingerprint, whatever their identifiers are.
func TestFingerprintsTellStatesAndNotIdentifiersApart(t *testing.T) {
	worlds := map[bool]uint64{}
	for _, shifted := range []bool{false, true} {
		h := newHistory(1, true) // of several members, IDs decide which one leads
		if shifted {
			for range 5 {
				h.Next()
			}
			h.Now = h.Now.AddDate(0, 3, 1)
			h.createAgain()
		}
		h.settled(t)
		h.put()
		worlds[shifted] = h.Fingerprint("key", h.acknowledged, "")
		h.KillContainer(h.pods()[0])
		if h.Fingerprint("key", h.acknowledged, "") == worlds[shifted] {
			t.Error("the end of a container is not told")
		}
	}
	if worlds[false] != worlds[true] {
		t.Error("the same state has two fingerprints")
	}
}

// createAgain gives the cluster another UID before anything was made for it.
func (h *history) createAgain() {
	simulation.Erase(h.World, h.cluster())
	h.createCluster()
}
