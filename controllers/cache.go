package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/act"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/observe"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// How much of one object the caches keep. A tenant may write objects with the operator's labels.
// The operator's own objects stay far below these limits. Of a larger object only the name and the owner are kept.
const (
	maxAnnotationBytes = 16 << 10
	// maxWorkloadBytes bounds a StatefulSet, whose annotations and template hold what the user wrote in the spec.
	// Kubernetes accepts annotations of 256 KiB, and the template holds little more than the annotation of the intent.
	maxWorkloadBytes = 320 << 10
	maxSpecBytes     = 8 << 10
	maxStatusBytes   = 64 << 10
	maxOwners        = 16
)

// CacheOptions keep what the operator made itself, and of that what it reads. Without namespaces all are watched.
func CacheOptions(namespaces map[string]cache.Config) cache.Options {
	labelled := labels.SelectorFromSet(labels.Set{cluster.LabelManagedBy: cluster.ManagedByValue})
	ours := func(transform toolscache.TransformFunc) cache.ByObject {
		return cache.ByObject{Label: labelled, Transform: transform}
	}
	return cache.Options{
		DefaultNamespaces: namespaces,
		DefaultTransform:  cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&v1beta1.EtcdCluster{}:          {Transform: keepCluster},
			&appsv1.StatefulSet{}:           ours(keepStatefulSet),
			&corev1.Pod{}:                   ours(keepPod),
			&corev1.PersistentVolumeClaim{}: ours(keepVolume),
			&corev1.ConfigMap{}:             ours(keepRecord),
			&corev1.Service{}:               ours(keepService),
			&policyv1.PodDisruptionBudget{}: ours(keepBudget),
		},
	}
}

// IndexCaches makes the caches find the objects of one cluster without a look at all others in the namespace, and the
// clusters with a voluntary operation under way.
func IndexCaches(ctx context.Context, indexer client.FieldIndexer) error {
	for _, object := range []client.Object{&appsv1.StatefulSet{}, &corev1.Pod{}, &corev1.PersistentVolumeClaim{}, &corev1.ConfigMap{}} {
		if err := indexer.IndexField(ctx, object, observe.IndexCluster, observe.ClusterName); err != nil {
			return fmt.Errorf("indexing the caches: %w", err)
		}
	}
	if err := indexer.IndexField(ctx, &v1beta1.EtcdCluster{}, act.IndexDisrupted, act.Disrupted); err != nil {
		return fmt.Errorf("indexing the caches: %w", err)
	}
	return nil
}

// keepCluster keeps the spec and status of an EtcdCluster, and the annotations by which users command the operator.
// A hash stands for the labels and annotations that are dropped.
func keepCluster(object any) (any, error) {
	c, ok := object.(*v1beta1.EtcdCluster)
	// client-go may call a transform again with what it returned before. Objects from the API server have managed fields.
	if ok && (c.ManagedFields != nil || c.Annotations[cluster.AnnotationMetadataHash] == "") {
		hash := hashOf(c.Labels, c.Annotations)
		c.ManagedFields = nil
		c.Annotations = operatorsOwn(c.Annotations, maxAnnotationBytes)
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, cluster.AnnotationMetadataHash, hash)
	}
	return object, nil
}

// hashOf returns a hash of all keys and values.
func hashOf(maps ...map[string]string) string {
	text, _ := json.Marshal(maps) // strings always marshal, and keys are sorted
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

func keepStatefulSet(object any) (any, error) {
	s, ok := object.(*appsv1.StatefulSet)
	if !ok {
		return object, nil
	}
	kept := &appsv1.StatefulSet{ObjectMeta: keptMeta(s, maxWorkloadBytes)}
	if owner := metav1.GetControllerOf(s); owner != nil && owner.Kind == v1beta1.EtcdClusterKind && s.Spec.Size() <= maxWorkloadBytes {
		kept.Spec = s.Spec // compared with the rendered one, and updated
	}
	return kept, nil
}

func keepPod(object any) (any, error) {
	p, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	kept := &corev1.Pod{ObjectMeta: keptMeta(p, maxAnnotationBytes), Spec: corev1.PodSpec{NodeName: p.Spec.NodeName}}
	if len(p.Finalizers) <= maxOwners {
		kept.Finalizers = p.Finalizers
	}
	kept.Spec.SchedulingGates = p.Spec.SchedulingGates[:min(len(p.Spec.SchedulingGates), 1)] // whether there is one
	kept.Status = corev1.PodStatus{
		Phase: p.Status.Phase, PodIP: p.Status.PodIP, Conditions: p.Status.Conditions, ContainerStatuses: p.Status.ContainerStatuses,
		InitContainerStatuses: p.Status.InitContainerStatuses, ObservedGeneration: p.Status.ObservedGeneration,
	}
	for _, c := range p.Spec.Containers {
		if c.Name == render.ContainerName {
			kept.Spec.Containers = []corev1.Container{keptContainer(c)}
		}
	}
	if kept.Status.Size() > maxStatusBytes {
		kept.Status.Conditions, kept.Status.ContainerStatuses, kept.Status.InitContainerStatuses = nil, nil, nil
	}
	return kept, nil
}

// keptContainer is what the operator reads of etcd's container: its resources, and whether it has the operator's probe.
func keptContainer(c corev1.Container) corev1.Container {
	kept := corev1.Container{Name: c.Name}
	if r := (corev1.ResourceRequirements{Limits: c.Resources.Limits, Requests: c.Resources.Requests}); r.Size() <= maxSpecBytes {
		kept.Resources = r
	}
	if render.ReadsLinearizably(c) {
		get := &corev1.HTTPGetAction{Path: c.ReadinessProbe.HTTPGet.Path, Port: c.ReadinessProbe.HTTPGet.Port}
		kept.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get}}
	}
	return kept
}

func keepVolume(object any) (any, error) {
	v, ok := object.(*corev1.PersistentVolumeClaim)
	if !ok {
		return object, nil
	}
	kept := &corev1.PersistentVolumeClaim{ObjectMeta: keptMeta(v, maxAnnotationBytes)}
	kept.Spec.StorageClassName, kept.Spec.AccessModes = v.Spec.StorageClassName, v.Spec.AccessModes
	kept.Spec.VolumeName, kept.Status.Phase = v.Spec.VolumeName, v.Status.Phase
	if storage, ok := v.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		kept.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: storage}
	}
	return kept, nil
}

// keepRecord keeps nothing but the annotations: the record of a member in memory has no data.
func keepRecord(object any) (any, error) {
	if c, ok := object.(*corev1.ConfigMap); ok {
		return &corev1.ConfigMap{ObjectMeta: keptMeta(c, maxAnnotationBytes)}, nil
	}
	return object, nil
}

func keepService(object any) (any, error) {
	s, ok := object.(*corev1.Service)
	if !ok {
		return object, nil
	}
	kept := &corev1.Service{ObjectMeta: keptMeta(s, maxAnnotationBytes)}
	if s.Spec.Size() <= maxSpecBytes {
		kept.Spec = s.Spec
	}
	return kept, nil
}

func keepBudget(object any) (any, error) {
	b, ok := object.(*policyv1.PodDisruptionBudget)
	if !ok {
		return object, nil
	}
	kept := &policyv1.PodDisruptionBudget{ObjectMeta: keptMeta(b, maxAnnotationBytes)}
	kept.Status.ObservedGeneration = b.Status.ObservedGeneration // a promotion waits for it
	if b.Spec.Size() <= maxSpecBytes {
		kept.Spec = b.Spec
	}
	return kept, nil
}

// keptMeta is what the operator reads of an object's metadata.
func keptMeta(object client.Object, annotationBytes int) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:         object.GetNamespace(),
		Name:              object.GetName(),
		UID:               object.GetUID(),
		ResourceVersion:   object.GetResourceVersion(),
		Generation:        object.GetGeneration(),
		CreationTimestamp: object.GetCreationTimestamp(),
		DeletionTimestamp: object.GetDeletionTimestamp(),
		Labels:            operatorsLabels(object.GetLabels()),
		Annotations:       operatorsOwn(object.GetAnnotations(), annotationBytes),
		OwnerReferences:   keptOwners(object.GetOwnerReferences()),
	}
}

func operatorsLabels(all map[string]string) map[string]string {
	kept := map[string]string{}
	for _, key := range []string{cluster.LabelName, cluster.LabelInstance, cluster.LabelManagedBy, cluster.LabelCluster, cluster.LabelMember, cluster.LabelImageCheck} {
		if value, ok := all[key]; ok {
			kept[key] = value
		}
	}
	return kept
}

// operatorsOwn returns the annotations whose names are the operator's, none if they are larger than the limit.
func operatorsOwn(all map[string]string, limit int) map[string]string {
	kept := maps.Clone(all)
	maps.DeleteFunc(kept, func(key, _ string) bool { return !strings.HasPrefix(key, cluster.Prefix) })
	size := 0
	for key, value := range kept {
		size += len(key) + len(value)
	}
	if len(kept) == 0 || size > limit {
		return nil
	}
	return kept
}

// keptOwners returns the owners, those first that the operator looks for: the controller and EtcdClusters.
func keptOwners(owners []metav1.OwnerReference) []metav1.OwnerReference {
	if len(owners) <= maxOwners {
		return owners
	}
	owners = slices.Clone(owners)
	slices.SortStableFunc(owners, func(a, b metav1.OwnerReference) int { return ownerRank(a) - ownerRank(b) })
	return slices.Clone(owners[:maxOwners])
}

func ownerRank(o metav1.OwnerReference) int {
	switch {
	case o.Controller != nil && *o.Controller:
		return 0
	case o.Kind == v1beta1.EtcdClusterKind:
		return 1
	default:
		return 2
	}
}
