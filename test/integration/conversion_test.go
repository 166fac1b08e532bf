//go:build integration

package integration

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/conversion"
)

// An object that was written in one version can be changed and created in the other version.
// It reads back as it was written.
func TestEachVersionAcceptsWhatTheOtherAccepts(t *testing.T) {
	t.Parallel()
	testTaken(t, "v1alpha1", "v1beta1", creations, func(c *v1alpha1.EtcdCluster) any { return c.Spec })
	testTaken(t, "v1beta1", "v1alpha1", betaCreations, func(c *v1beta1.EtcdCluster) any { return c.Spec })
}

func testTaken[Object any](t *testing.T, version, other string, creations []creation, specOf func(*Object) any) {
	t.Run(version, func(t *testing.T) {
		t.Parallel()
		namespace := newNamespace(t)
		for _, c := range creations {
			if len(c.refused) > 0 {
				continue
			}
			t.Run(c.does, func(t *testing.T) {
				t.Parallel()
				written := decode(t, version, namespace, c.spec)
				written.SetName("")
				written.SetGenerateName("prod-")
				must(t, admin.Create(t.Context(), written))

				converted := read(t, other, written)
				converted.SetLabels(map[string]string{"touched": "yes"})
				must(t, admin.Update(t.Context(), converted))
				same(t, specOf(typed[Object](t, written)), specOf(typed[Object](t, read(t, version, written))))

				again := converted.DeepCopy()
				again.Object["metadata"] = map[string]any{"namespace": namespace, "generateName": "prod-"}
				must(t, admin.Create(t.Context(), again, client.DryRunAll))
			})
		}
	})
}

func TestAClientOfV1alpha1KeepsFieldsThatItLacks(t *testing.T) {
	t.Parallel()
	hub := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: name}}
	hub.Spec.Replicas = 3
	hub.Spec.Config = &v1beta1.Config{AutoCompaction: &v1beta1.AutoCompaction{Mode: v1beta1.AutoCompactionPeriodic, Retention: "1h"}}
	hub.Spec.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{PriorityClassName: "high"}}
	must(t, admin.Create(t.Context(), hub))
	hub.Status = v1beta1.EtcdClusterStatus{ObservedGeneration: 1, Replicas: 3, Selector: "a=b", ClientSecretName: "prod-client-tls"}
	must(t, admin.Status().Update(t.Context(), hub))

	old := func() *v1alpha1.EtcdCluster {
		return &v1alpha1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: hub.Namespace, Name: hub.Name}}
	}
	patch := func(text string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(text)) }
	must(t, admin.Patch(t.Context(), old(), patch(`{"spec":{"size":5}}`)))
	must(t, admin.Status().Patch(t.Context(), old(), patch(`{"status":{"readyMembers":2}}`)))
	applied := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"size": int64(5), "pod": map[string]any{"labels": map[string]any{"team": "a"}}}}}
	applied.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("EtcdCluster"))
	applied.SetNamespace(hub.Namespace)
	applied.SetName(hub.Name)
	must(t, admin.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner("old"), client.ForceOwnership))

	want := hub.DeepCopy()
	want.Spec.Replicas, want.Status.ReadyReplicas = 5, 2
	want.Spec.PodTemplate.Metadata.Labels = map[string]string{"team": "a"}
	must(t, admin.Get(t.Context(), hub.Key(), hub))
	same(t, want.Spec, hub.Spec)
	same(t, want.Status, hub.Status)
	if len(hub.Annotations) > 0 {
		t.Errorf("annotations are left: %v", hub.Annotations)
	}

	// Without the annotations only the fields of v1alpha1 count.
	view := old()
	must(t, admin.Get(t.Context(), hub.Key(), view))
	maps.DeleteFunc(view.Annotations, func(key, _ string) bool { return strings.HasPrefix(key, conversion.HubPrefix) })
	must(t, admin.Update(t.Context(), view))
	must(t, admin.Get(t.Context(), hub.Key(), hub))
	if hub.Spec.TLS == nil || hub.Spec.TLS.Client.Mode != v1beta1.TLSDisabled || hub.Spec.PodTemplate.Spec.PriorityClassName != "" {
		t.Errorf("spec = %+v, want what v1alpha1 says", hub.Spec)
	}
}

// Clients decode whole lists into types. One object that cannot be decoded makes the list fail for all of them.
func TestBothVersionsRefuseWhatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	for _, quantity := range []string{`"1e1.5"`, `"1e"`, `"1.2.3"`, `"1e+"`, `"--1"`, `"1KiB"`} {
		for version, specs := range map[string][]string{
			"v1alpha1": {"{size: 3, pod: {resources: {limits: {cpu: Q}}}}", "{size: 3, pod: {resources: {requests: {cpu: Q}}}}",
				"{size: 3, pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: Q}}}}}"},
			"v1beta1": {"{replicas: 3, resources: {limits: {cpu: Q}}}", "{replicas: 3, resources: {requests: {cpu: Q}}}",
				"{replicas: 3, config: {quotaBackendBytes: Q}}", "{replicas: 3, storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: Q}}}}}}"},
		} {
			for _, spec := range specs {
				object := decode(t, version, namespace, strings.Replace(spec, "Q", quantity, 1))
				if err := admin.Create(t.Context(), object); err == nil {
					t.Errorf("%s takes %s for Q in %s", version, quantity, spec)
				}
			}
		}
	}
	must(t, admin.List(t.Context(), &v1beta1.EtcdClusterList{}, client.InNamespace(namespace)))
	must(t, admin.List(t.Context(), &v1alpha1.EtcdClusterList{}, client.InNamespace(namespace)))
}

// One object that cannot be converted makes the list of all objects fail.
func TestAnUnreadableAnnotationMakesNoListFail(t *testing.T) {
	t.Parallel()
	const retention, bootstrap = conversion.HubPrefix + "spec.storage.retentionPolicy.whenDeleted", conversion.HubPrefix + "spec.bootstrap.existingVolumes"
	old := &v1alpha1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{
		Namespace: newNamespace(t), Name: name, Annotations: map[string]string{retention: "garbage", bootstrap: `"Eat"`},
	}}
	old.Spec.Size = 3
	must(t, admin.Create(t.Context(), old))
	var list v1beta1.EtcdClusterList
	must(t, admin.List(t.Context(), &list, client.InNamespace(old.Namespace)))
	if len(list.Items) != 1 {
		t.Fatalf("%d objects, want one", len(list.Items))
	}
	hub := &list.Items[0]
	if hub.Spec.Bootstrap != nil || hub.Spec.Storage.RetentionPolicy != nil {
		t.Errorf("spec = %+v, want nothing of the annotations", hub.Spec)
	}
	same(t, map[string]string{retention: "garbage", bootstrap: `"Eat"`}, hub.Annotations)
}

// A field that a manifest no longer has is withdrawn, even if a client of v1alpha1 owns fields too.
func TestApplyingInV1beta1WithdrawsFieldsThatV1alpha1Lacks(t *testing.T) {
	t.Parallel()
	old := &v1alpha1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: name}, Spec: v1alpha1.EtcdClusterSpec{Size: 3}}
	must(t, admin.Create(t.Context(), old))
	hub := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: old.Namespace, Name: old.Name}}
	apply := func(version string, spec map[string]any) {
		t.Helper()
		applied := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
		applied.SetGroupVersionKind(v1beta1.GroupVersion.WithKind("EtcdCluster").GroupKind().WithVersion(version))
		applied.SetNamespace(hub.Namespace)
		applied.SetName(hub.Name)
		must(t, admin.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner("gitops-"+version), client.ForceOwnership))
		must(t, admin.Get(t.Context(), hub.Key(), hub))
	}
	retention := map[string]any{"retentionPolicy": map[string]any{"whenDeleted": "Delete"}}
	priority := map[string]any{"spec": map[string]any{"priorityClassName": "high"}}
	apply("v1beta1", map[string]any{"replicas": int64(3), "storage": retention, "podTemplate": priority})
	if hub.Spec.Storage.RetentionPolicy == nil {
		t.Fatalf("spec = %+v, want a retention policy", hub.Spec)
	}
	apply("v1beta1", map[string]any{"replicas": int64(3), "podTemplate": priority})
	if hub.Spec.Storage.RetentionPolicy != nil || hub.Spec.PodTemplate.Spec.PriorityClassName != "high" {
		t.Errorf("spec = %+v, want no retention policy, and the priority", hub.Spec)
	}

	apply("v1alpha1", map[string]any{"version": "3.5.35", "repository": "registry.example/etcd"})
	apply("v1alpha1", map[string]any{})
	if hub.Spec.Version != "3.6.16" || hub.Spec.Image.Repository != "gcr.io/etcd-development/etcd" {
		t.Errorf("spec = %+v, want the defaults", hub.Spec)
	}
}

// The operator knows the allow list of options. The schemas of both versions accept every name.
func TestAnOptionThatTheOperatorRefusesCanBeWrittenInBothVersions(t *testing.T) {
	t.Parallel()
	old := &v1alpha1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: name}}
	old.Spec = v1alpha1.EtcdClusterSpec{Size: 3, Pod: &v1alpha1.PodPolicy{EtcdEnv: []v1alpha1.EtcdOption{{Name: "ETCD_UNKNOWN", Value: "1"}}}}
	must(t, admin.Create(t.Context(), old))
	hub := &v1beta1.EtcdCluster{}
	must(t, admin.Get(t.Context(), old.Key(), hub))
	hub.Spec.Config.ExtraArgs["unknown"], hub.Spec.Config.ExtraArgs["other"] = "2", "1"
	must(t, admin.Update(t.Context(), hub))
	must(t, admin.Get(t.Context(), old.Key(), old))
	same(t, []v1alpha1.EtcdOption{{Name: "ETCD_OTHER", Value: "1"}, {Name: "ETCD_UNKNOWN", Value: "2"}}, old.Spec.Pod.EtcdEnv)
}

func TestAClusterInV1alpha1ScalesThroughTheSubresource(t *testing.T) {
	t.Parallel()
	old := &v1alpha1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: name}, Spec: v1alpha1.EtcdClusterSpec{Size: 3}}
	must(t, admin.Create(t.Context(), old))
	old.Status = v1alpha1.EtcdClusterStatus{ObservedGeneration: 1, Size: 3, Selector: "a=b"}
	must(t, admin.Status().Update(t.Context(), old))
	hub := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: old.Namespace, Name: old.Name}}
	scale := &autoscalingv1.Scale{}
	must(t, admin.SubResource("scale").Get(t.Context(), hub, scale))
	if scale.Status.Selector != "a=b" || scale.Status.Replicas != 3 {
		t.Errorf("status = %+v, want 3 of a=b", scale.Status)
	}
	scale.Spec.Replicas = 5
	must(t, admin.SubResource("scale").Update(t.Context(), hub, client.WithSubResourceBody(scale)))
	must(t, admin.Get(t.Context(), old.Key(), old))
	if old.Spec.Size != 5 {
		t.Errorf("size = %d, want 5", old.Spec.Size)
	}
}

// A client that may write objects, but not their status, writes annotations that claim to save fields of the status.
func TestNoAnnotationWritesTheStatus(t *testing.T) {
	t.Parallel()
	hub := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: name}, Spec: v1beta1.EtcdClusterSpec{Replicas: 3}}
	must(t, admin.Create(t.Context(), hub))
	hub.Status = v1beta1.EtcdClusterStatus{ObservedGeneration: 1, Replicas: 3, ReadyReplicas: 3, Selector: "a=b", ClusterID: "c1"}
	must(t, admin.Status().Update(t.Context(), hub))
	want := hub.Status
	attack := map[string]string{}
	for path, value := range map[string]string{
		"status": "{}", "status.clientSecretName": `"of-the-attacker"`, "status.selector": `"c=d"`, "status.clusterID": `"c2"`, "status.readyReplicas": "0",
		"status.operation.type": `"Bootstrap"`, "status.operation.reason": `"Because"`, "status.operation.startedAt": `"2026-01-01T00:00:00Z"`,
	} {
		attack[conversion.HubPrefix+path] = value
	}
	old := &v1alpha1.EtcdCluster{}
	must(t, admin.Get(t.Context(), hub.Key(), old))
	maps.Copy(old.Annotations, attack)
	must(t, admin.Update(t.Context(), old))
	must(t, admin.Get(t.Context(), hub.Key(), hub))
	same(t, want, hub.Status)

	created := &v1alpha1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: hub.Namespace, Name: "other", Annotations: attack}, Spec: v1alpha1.EtcdClusterSpec{Size: 3},
	}
	must(t, admin.Create(t.Context(), created))
	must(t, admin.Get(t.Context(), created.Key(), hub))
	same(t, v1beta1.EtcdClusterStatus{}, hub.Status)
}

func read(t *testing.T, version string, of *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1beta1.GroupVersion.WithKind("EtcdCluster").GroupKind().WithVersion(version))
	must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(of), object))
	return object
}

func typed[Object any](t *testing.T, object *unstructured.Unstructured) *Object {
	t.Helper()
	into := new(Object)
	must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into))
	return into
}

func same(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
