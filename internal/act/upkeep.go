package act

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// Upkeep carries out the harmless writes in their order. If one fails, the others are still made, except those that
// require it: a Service that a policy refuses must not cost the cluster its certificates.
// It returns the Secrets that it wrote, by name.
func (a *Actor) Upkeep(
	ctx context.Context, s *cluster.Snapshot, list []plan.Upkeep,
) (written map[string]*corev1.Secret, err error) {
	var failures []error
	w := &secretWriter{Actor: a, written: map[string]*corev1.Secret{}}
	failed := map[string]bool{}
	for _, item := range list {
		if failed[item.Requires()] {
			continue
		}
		if err := w.upkeep(ctx, s, item); err != nil {
			failures = append(failures, err)
			failed[item.Provides()] = item.Provides() != ""
		}
	}
	return w.written, errors.Join(failures...)
}

func (a *secretWriter) upkeep(ctx context.Context, s *cluster.Snapshot, item plan.Upkeep) error {
	switch item := item.(type) {
	case plan.Apply:
		if item.Live == nil {
			return a.create(ctx, s, copyOf(item.Desired), ownedBy(s))
		}
		return a.apply(ctx, item.Desired, item.Live)
	case plan.Delete:
		return a.delete(ctx, item)
	case plan.RecordMember:
		log.FromContext(ctx).Info("Recording member", "member", item.Member, "annotations", item.Annotations)
		return a.annotateVolume(ctx, s, item.Writes(), item.ResourceVersion, item.Annotations)
	case plan.SetRetention:
		return a.setRetention(ctx, s, item)
	case plan.UpdateStatefulSet:
		return a.updateStatefulSet(ctx, item)
	case plan.AnnotatePod:
		return a.annotatePod(ctx, s, item)
	case plan.AdmitPod:
		return a.admitPod(ctx, s, item)
	case plan.ResizePod:
		return a.resizePod(ctx, s, item)
	case plan.AppendEntry:
		return a.appendEntry(ctx, s, item)
	case plan.DisarmAlarms:
		return a.disarmAlarms(ctx, s, item)
	case plan.RemoveAnnotation:
		return a.removeAnnotation(ctx, s, item)
	case plan.NotePeers:
		return a.notePeers(ctx, s, item.Notes)
	case plan.WriteAuthority:
		return a.writeAuthority(ctx, s, item)
	case plan.WriteCertificate:
		return a.writeCertificate(ctx, s, item)
	}
	return fmt.Errorf("upkeep: no executor for %T", item)
}

// copyOf keeps the decision unchanged: the client writes the API server's answer into the object that it sends.
func copyOf(o plan.Object) client.Object { return o.DeepCopyObject().(client.Object) }

// delete deletes an object if it still has the UID, and the version where one is given, that was read.
func (a *Actor) delete(ctx context.Context, item plan.Delete) error {
	uid, name := item.Object.GetUID(), item.Writes()
	log.FromContext(ctx).Info("Deleting", "kind", name.Kind, "object", name.Name)
	preconditions := client.Preconditions{UID: &uid}
	if version := item.Object.GetResourceVersion(); version != "" {
		preconditions.ResourceVersion = &version
	}
	options := []client.DeleteOption{preconditions}
	if grace := item.Object.GetDeletionGracePeriodSeconds(); grace != nil {
		options = append(options, client.GracePeriodSeconds(*grace))
	}
	err := a.Client.Delete(ctx, copyOf(item.Object), options...)
	if err := client.IgnoreNotFound(err); err != nil {
		return writeError("deleting", name.Kind, name.Name, err)
	}
	return nil
}

// removeAnnotation removes an annotation of the EtcdCluster, if nobody wrote the object since it was read.
func (a *Actor) removeAnnotation(ctx context.Context, s *cluster.Snapshot, item plan.RemoveAnnotation) error {
	log.FromContext(ctx).Info("Removing an annotation that was obeyed", "annotation", item.Key)
	if err := a.annotateCluster(ctx, s, item.ResourceVersion, map[string]string{item.Key: ""}); err != nil {
		return err
	}
	if item.Key == v1beta1.CheckConsistencyAnnotation {
		a.Comparisons.NoteObeyed(s.Cluster.Key())
	}
	return nil
}

// annotateCluster changes annotations of the EtcdCluster, unless it was written since resourceVersion. One without a
// value is removed.
func (a *Actor) annotateCluster(ctx context.Context, s *cluster.Snapshot, resourceVersion string, annotations map[string]string) error {
	patch, err := annotationPatch(annotations, map[string]string{"resourceVersion": resourceVersion})
	if err != nil {
		return err
	}
	object := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: s.Cluster.Name}}
	if err := a.Client.Patch(ctx, object, patch, fieldOwner); err != nil {
		return writeError("patching", v1beta1.EtcdClusterKind, s.Cluster.Name, err)
	}
	return nil
}

// setRetention makes the cluster an owner of the volume, so that Kubernetes deletes it with the cluster, or no owner
// of it. References to other owners stay.
func (a *Actor) setRetention(ctx context.Context, s *cluster.Snapshot, item plan.SetRetention) error {
	reference := map[string]any{"$patch": "delete", "uid": s.Cluster.UID}
	if item.DeletedWithCluster {
		owner := metav1.NewControllerRef(s.Cluster, v1beta1.GroupVersion.WithKind(v1beta1.EtcdClusterKind))
		reference = map[string]any{"apiVersion": owner.APIVersion, "kind": owner.Kind, "name": owner.Name, "uid": owner.UID}
	}
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": item.ResourceVersion,
		"ownerReferences": []any{reference},
	}})
	if err != nil {
		return fmt.Errorf("encoding a patch: %w", err)
	}
	log.FromContext(ctx).Info("Setting the retention of a volume", "volume", item.Volume, "deletedWithCluster", item.DeletedWithCluster)
	volume := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: item.Volume}}
	if err := a.Client.Patch(ctx, volume, client.RawPatch(types.StrategicMergePatchType, raw), fieldOwner); err != nil {
		return writeError("setting the owner of", "PersistentVolumeClaim", item.Volume, err)
	}
	return nil
}

// annotateVolume adds annotations to a claim, or to the ConfigMap of a member in memory, unless it was written since
// resourceVersion.
func (a *Actor) annotateVolume(ctx context.Context, s *cluster.Snapshot, volume plan.ObjectName, resourceVersion string, memory map[string]string) error {
	patch, err := annotationPatch(memory, map[string]string{"resourceVersion": resourceVersion})
	if err != nil {
		return err
	}
	meta := metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: volume.Name}
	var object client.Object = &corev1.PersistentVolumeClaim{ObjectMeta: meta}
	if volume.Kind == "ConfigMap" {
		object = &corev1.ConfigMap{ObjectMeta: meta}
	}
	if err := a.Client.Patch(ctx, object, patch, fieldOwner); err != nil {
		return writeError("annotating", volume.Kind, volume.Name, err)
	}
	return nil
}

// admitPod takes the operator's scheduling gate away from a pod, and leaves those of others, if it is still the one
// that the member's record names. The record is read again: it decides that no other pod of this member was ever
// started.
func (a *Actor) admitPod(ctx context.Context, s *cluster.Snapshot, item plan.AdmitPod) error {
	var record corev1.ConfigMap
	name := cluster.VolumeName(item.Member)
	if err := a.Live.Get(ctx, client.ObjectKey{Namespace: s.Cluster.Namespace, Name: name}, &record); err != nil {
		return fmt.Errorf("reading ConfigMap %s: %w", name, err)
	}
	want := cluster.VolumeIdentity{Claim: item.UID, Name: cluster.InMemoryName}
	if !cluster.Owns(s.Cluster, &record) || record.Annotations[cluster.AnnotationVolume] != want.String() {
		return conflict("ConfigMap", name, "it does not name pod "+item.Pod+" with the UID "+string(item.UID))
	}
	var live corev1.Pod
	if err := a.Live.Get(ctx, client.ObjectKey{Namespace: s.Cluster.Namespace, Name: item.Pod}, &live); apierrors.IsNotFound(err) {
		return nil // its successor is never admitted
	} else if err != nil {
		return fmt.Errorf("reading Pod %s: %w", item.Pod, err)
	}
	gates := slices.DeleteFunc(live.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == cluster.GateInMemory })
	raw, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": item.UID, "resourceVersion": live.ResourceVersion}, "spec": map[string]any{"schedulingGates": gates},
	})
	if err != nil {
		return fmt.Errorf("encoding a patch: %w", err)
	}
	log.FromContext(ctx).Info("Admitting a pod whose data are in memory", "member", item.Member, "pod", item.Pod)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: item.Pod}}
	err = a.Client.Patch(ctx, pod, client.RawPatch(types.MergePatchType, raw), fieldOwner)
	if apierrors.IsNotFound(err) {
		return nil // its successor is never admitted
	}
	if err != nil {
		return writeError("admitting", "Pod", item.Pod, err)
	}
	return nil
}

// updateStatefulSet replaces the template of a member's StatefulSet. With the strategy OnDelete its pod runs on.
func (a *Actor) updateStatefulSet(ctx context.Context, item plan.UpdateStatefulSet) error {
	desired, updated := item.Desired, item.Live.DeepCopy()
	updated.Labels, updated.Annotations = desired.Labels, desired.Annotations
	updated.OwnerReferences = withOwner(updated.OwnerReferences, desired.OwnerReferences[0])
	updated.Spec.Replicas = desired.Spec.Replicas
	updated.Spec.UpdateStrategy = desired.Spec.UpdateStrategy
	updated.Spec.Template = desired.Spec.Template
	updated.ResourceVersion = a.presentVersion(ctx, item.Live)
	log.FromContext(ctx).Info("Updating StatefulSet", "object", desired.Name)
	if err := a.Client.Update(ctx, updated, fieldOwner); err != nil {
		return writeError("updating", "StatefulSet", desired.Name, err)
	}
	return nil
}

// presentVersion returns the resourceVersion under which the caches have a StatefulSet now, if only its status changed
// since it was read. Kubernetes writes the status when a member becomes ready, and that is when its template changes.
// If anything else changed, it returns the version that was read, and the API server refuses the write.
func (a *Actor) presentVersion(ctx context.Context, read *appsv1.StatefulSet) string {
	var present appsv1.StatefulSet
	if err := a.Client.Get(ctx, client.ObjectKeyFromObject(read), &present); err != nil {
		return read.ResourceVersion
	}
	version := present.ResourceVersion
	present.TypeMeta, present.ResourceVersion, present.Status = read.TypeMeta, read.ResourceVersion, read.Status
	if !equality.Semantic.DeepEqual(&present, read) {
		return read.ResourceVersion
	}
	return version
}

// annotatePod changes what the pod's next container start reads. The running container reads nothing.
func (a *Actor) annotatePod(ctx context.Context, s *cluster.Snapshot, item plan.AnnotatePod) error {
	patch, err := annotationPatch(item.Annotations, map[string]string{"uid": string(item.UID)})
	if err != nil {
		return err
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: item.Pod}}
	err = a.Client.Patch(ctx, pod, patch, fieldOwner)
	if apierrors.IsNotFound(err) {
		return nil // its successor is created from the present template
	}
	if err != nil {
		return writeError("annotating", "Pod", item.Pod, err)
	}
	return nil
}

// annotationPatch adds annotations where the preconditions, fields of the metadata, hold. One without a value is
// removed.
func annotationPatch(annotations, preconditions map[string]string) (client.Patch, error) {
	values := map[string]any{}
	for key, value := range annotations {
		if values[key] = value; value == "" {
			values[key] = nil
		}
	}
	metadata := map[string]any{"annotations": values}
	for field, value := range preconditions {
		metadata[field] = value
	}
	raw, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return nil, fmt.Errorf("encoding a patch: %w", err)
	}
	return client.RawPatch(types.MergePatchType, raw), nil
}

// withOwner returns the references with the cluster's as it is written today. An older release named an older version.
func withOwner(references []metav1.OwnerReference, owner metav1.OwnerReference) []metav1.OwnerReference {
	others := slices.DeleteFunc(slices.Clone(references), func(r metav1.OwnerReference) bool { return r.UID == owner.UID })
	return append(others, owner)
}
