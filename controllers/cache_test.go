package controllers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func keep[T client.Object](t *testing.T, transform toolscache.TransformFunc, object T) T {
	t.Helper()
	kept, err := transform(object.DeepCopyObject())
	if err != nil {
		t.Fatal(err)
	}
	again, err := transform(kept)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, again); diff != "" {
		t.Errorf("a second time it keeps less:\n%s", diff)
	}
	return kept.(T)
}

// foreign adds what others write on an object.
func foreign(object client.Object) {
	object.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "kubectl", Operation: metav1.ManagedFieldsOperationApply}})
	add := func(all map[string]string) map[string]string {
		kept := map[string]string{"example.com/note": "x"}
		for key, value := range all {
			kept[key] = value
		}
		return kept
	}
	object.SetLabels(add(object.GetLabels()))
	object.SetAnnotations(add(object.GetAnnotations()))
}

func TestTheCachesKeepWhatIsComparedWithTheRenderedObjects(t *testing.T) {
	s := clustertest.MakeCluster("prod").TLS().Objects().Members(clustertest.Healthy).Snapshot()
	input := render.MemberInput{Cluster: s.Cluster, Name: "prod-0", Intent: cluster.IntentOf(s.Cluster)}
	for name, test := range map[string]struct {
		object    client.Object
		transform toolscache.TransformFunc
	}{
		"StatefulSet":         {render.MemberStatefulSet(input), keepStatefulSet},
		"peers' Service":      {render.PeerService(s.Cluster), keepService},
		"clients' Service":    {render.ClientService(s.Cluster), keepService},
		"PodDisruptionBudget": {render.Budget(s.Cluster, 2), keepBudget},
	} {
		t.Run(name, func(t *testing.T) {
			live := test.object.DeepCopyObject().(client.Object)
			foreign(live)
			live.SetUID("uid")
			live.SetResourceVersion("7")
			kept := keep(t, test.transform, live)
			if same, err := render.UpToDate(test.object, kept); err != nil || !same {
				t.Errorf("what is kept differs from what was rendered (%v):\n%s", err, cmp.Diff(test.object, kept))
			}
			if !cluster.Owns(s.Cluster, kept) || kept.GetUID() != "uid" || kept.GetResourceVersion() != "7" {
				t.Errorf("the metadata is %+v", kept)
			}
			if len(kept.GetManagedFields()) > 0 || kept.GetLabels()["example.com/note"] != "" || kept.GetAnnotations()["example.com/note"] != "" {
				t.Errorf("foreign metadata is kept: %+v", kept)
			}
		})
	}
}

func TestTheCachesKeepWhatIsReadOfPodsAndVolumes(t *testing.T) {
	now := metav1.Now()
	meta := metav1.ObjectMeta{
		Namespace: "shop", Name: "x", UID: "uid", ResourceVersion: "7", DeletionTimestamp: &now, CreationTimestamp: now,
		Labels:          map[string]string{cluster.LabelManagedBy: cluster.ManagedByValue, cluster.LabelCluster: "prod", cluster.LabelMember: "prod-0"},
		Annotations:     map[string]string{cluster.AnnotationRenderHash: "hash", cluster.AnnotationClusterID: "c1"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: "prod-0", UID: "set", Controller: new(true)}},
	}
	meta.Generation = 3
	get := &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromString("metrics")}
	memory := corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}}
	gates := []corev1.PodSchedulingGate{{Name: cluster.GateInMemory}}
	pod := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{NodeName: "n", SchedulingGates: gates, Containers: []corev1.Container{
		{Name: "etcd", Resources: memory, ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get}}},
	}}, Status: corev1.PodStatus{
		ObservedGeneration: 2,
		Phase:              corev1.PodRunning, PodIP: "10.0.0.1", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: "etcd", Ready: true}},
	}}
	volume := &corev1.PersistentVolumeClaim{ObjectMeta: meta}
	volume.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("8Gi")}

	live := pod.DeepCopy()
	foreign(live)
	live.Spec.Containers = append([]corev1.Container{{Name: "sidecar"}},
		render.MemberStatefulSet(render.MemberInput{Cluster: clustertest.MakeCluster("prod").Snapshot().Cluster, Name: "prod-0"}).Spec.Template.Spec.Containers...)
	live.Spec.Containers[1].Resources = memory
	live.Status.Message = "x"
	if diff := cmp.Diff(pod, keep(t, keepPod, live)); diff != "" {
		t.Errorf("Pod:\n%s", diff)
	}
	volume.Spec.VolumeName, volume.Status.Phase = "pv", corev1.ClaimBound
	claim := volume.DeepCopy()
	foreign(claim)
	claim.Spec.DataSource = &corev1.TypedLocalObjectReference{Name: "snapshot"}
	claim.Status.Capacity = volume.Spec.Resources.Requests
	if diff := cmp.Diff(volume, keep(t, keepVolume, claim)); diff != "" {
		t.Errorf("PersistentVolumeClaim:\n%s", diff)
	}
	record := &corev1.ConfigMap{ObjectMeta: meta}
	full := record.DeepCopy()
	foreign(full)
	full.Data = map[string]string{"x": "y"}
	if diff := cmp.Diff(record, keep(t, keepRecord, full)); diff != "" {
		t.Errorf("ConfigMap:\n%s", diff)
	}
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 3}, Status: policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2}}
	if kept := keep(t, keepBudget, budget); kept.Generation != 3 || kept.Status.ObservedGeneration != 2 {
		t.Errorf("PodDisruptionBudget: generation %d, observed %d", kept.Generation, kept.Status.ObservedGeneration)
	}
}

func TestTheCachesKeepLittleOfWhatIsTooLargeToBeTheOperators(t *testing.T) {
	large := strings.Repeat("x", 200<<10)
	controller := []metav1.OwnerReference{{Kind: v1beta1.EtcdClusterKind, Name: "prod", UID: "prod", Controller: new(true)}}
	ports := make([]corev1.ServicePort, 1000)
	volumes := make([]metav1.OwnerReference, 0, 100)
	for n := range 100 {
		volumes = append(volumes, metav1.OwnerReference{Kind: "ConfigMap", Name: fmt.Sprint(n), UID: types.UID(fmt.Sprint(n))})
	}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"x": large, "y": large}}}
	for name, test := range map[string]struct {
		object    client.Object
		transform toolscache.TransformFunc
	}{
		"an annotation of the operator's": {&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{cluster.AnnotationPeerURL: large}}}, keepVolume},
		"a Service's ports":               {&corev1.Service{Spec: corev1.ServiceSpec{Ports: ports}}, keepService},
		"a Service's selector":            {&corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"x": large}}}, keepService},
		"a budget's selector":             {&policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"x": large}}}}, keepBudget},
		"a template":                      {&appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Template: template}}, keepStatefulSet},
		"a pod's message":                 {&corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Message: large}}}}, keepPod},
		"a pod's spec":                    {&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: large}}}}, keepPod},
		"a pod's resources": {&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "etcd", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceName(large): resource.MustParse("1")}},
		}}}}, keepPod},
		"an EtcdCluster's annotation": {&v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"x": large}}}, keepCluster},
	} {
		t.Run(name, func(t *testing.T) {
			test.object.SetName("prod-0")
			test.object.SetOwnerReferences(append(append([]metav1.OwnerReference{}, volumes...), controller...))
			kept := keep(t, test.transform, test.object)
			if size := len(fmt.Sprintf("%+v", kept)); size > 20<<10 {
				t.Errorf("%d bytes are kept", size)
			}
			if owner := metav1.GetControllerOf(kept); kept.GetName() != "prod-0" || owner == nil || owner.UID != "prod" {
				t.Errorf("the name is %q and the owner %v", kept.GetName(), owner)
			}
		})
	}
}

func TestTheCacheTellsWhenAUserChangedAnEtcdCluster(t *testing.T) {
	hash := func(change func(*v1beta1.EtcdCluster)) string {
		c := clustertest.MakeCluster("prod").Annotated("example.com/a", "1").Snapshot().Cluster
		c.Labels, c.ManagedFields = map[string]string{"b": "2"}, []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		change(c)
		kept := keep(t, keepCluster, c)
		first := kept.Annotations[cluster.AnnotationMetadataHash]
		if again := keep(t, keepCluster, kept).Annotations[cluster.AnnotationMetadataHash]; again != first {
			t.Errorf("the hash becomes %s where client-go calls the transform again, not %s", again, first)
		}
		return first
	}
	before := hash(func(*v1beta1.EtcdCluster) {})
	for what, test := range map[string]struct {
		change func(*v1beta1.EtcdCluster)
		want   bool
	}{
		"another value":       {func(c *v1beta1.EtcdCluster) { c.Annotations["example.com/a"] = "2" }, true},
		"another annotation":  {func(c *v1beta1.EtcdCluster) { c.Annotations["example.com/b"] = "" }, true},
		"no annotation":       {func(c *v1beta1.EtcdCluster) { c.Annotations = nil }, true},
		"another label":       {func(c *v1beta1.EtcdCluster) { c.Labels["c"] = "3" }, true},
		"a label moved":       {func(c *v1beta1.EtcdCluster) { c.Labels, c.Annotations = c.Annotations, c.Labels }, true},
		"the hash itself":     {func(c *v1beta1.EtcdCluster) { c.Annotations[cluster.AnnotationMetadataHash] = before }, true},
		"the operator's part": {func(c *v1beta1.EtcdCluster) { c.Status.Leader, c.ResourceVersion = "prod-0", "7" }, false},
	} {
		if changed := hash(test.change) != before; changed != test.want {
			t.Errorf("%s: changed is %v", what, changed)
		}
	}
}

// Otherwise the operator would found a cluster and then could not read its StatefulSets.
func TestTheCachesKeepTheLargestStatefulSetThatKubernetesAccepts(t *testing.T) {
	s := clustertest.MakeCluster("prod").TLS().Objects().Members(clustertest.Healthy).Snapshot()
	intent := cluster.IntentOf(s.Cluster)
	intent.Annotations = map[string]string{}
	for _, key := range []string{"a", "b", "c"} {
		intent.Annotations["example.com/"+key] = strings.Repeat("x", 64<<10)
	}
	intent.Annotations["example.com/d"] = strings.Repeat("x", 60<<10)
	founding := render.Founding(s.Cluster, []string{"prod-0", "prod-1", "prod-2"}, "token", intent)
	set := render.MemberStatefulSet(render.MemberInput{Cluster: s.Cluster, Name: "prod-0", Intent: intent, Start: founding})
	for what, annotations := range map[string]map[string]string{"StatefulSet": set.Annotations, "template": set.Spec.Template.Annotations} {
		if err := validation.ValidateAnnotationsSize(annotations); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	kept := keep(t, keepStatefulSet, set.DeepCopy())
	if same, err := render.UpToDate(set, kept); err != nil || !same {
		t.Errorf("what is kept differs from what was rendered (%v)", err)
	}
	if have, err := cluster.DecodeIntent(kept.Annotations[cluster.AnnotationIntent]); err != nil || len(have.Differences(intent)) > 0 {
		t.Errorf("the intent cannot be read: %v", err)
	}
}

func TestAStatefulSetWithoutAnEtcdClusterIsKeptWithoutItsSpec(t *testing.T) {
	set := &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{ServiceName: "prod"}}
	if kept := keep(t, keepStatefulSet, set); kept.Spec.ServiceName != "" {
		t.Errorf("got %+v", kept.Spec)
	}
}
