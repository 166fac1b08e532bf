package act

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func (a *Actor) ensurePeerService(ctx context.Context, s *cluster.Snapshot) error {
	if s.PeerService == nil {
		return a.create(ctx, s, render.PeerService(s.Cluster), ownedBy(s))
	}
	return a.apply(ctx, render.PeerService(s.Cluster), s.PeerService)
}

func (a *Actor) ensureClientService(ctx context.Context, s *cluster.Snapshot) error {
	if s.ClientService == nil {
		return a.create(ctx, s, render.ClientService(s.Cluster), ownedBy(s))
	}
	return a.apply(ctx, render.ClientService(s.Cluster), s.ClientService)
}

func (a *Actor) ensureBudget(ctx context.Context, s *cluster.Snapshot, item analyse.EnsureBudget) error {
	desired := render.Budget(s.Cluster, item.MinAvailable)
	if s.Budget == nil {
		return a.create(ctx, s, desired, ownedBy(s))
	}
	return a.apply(ctx, desired, s.Budget)
}

func (a *Actor) removeBudget(ctx context.Context, s *cluster.Snapshot, item analyse.RemoveBudget) error {
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: s.Cluster.Name}}
	err := a.Client.Delete(ctx, budget, client.Preconditions{UID: &item.UID})
	if err := client.IgnoreNotFound(err); err != nil {
		return writeError("deleting", "PodDisruptionBudget", s.Cluster.Name, err)
	}
	return nil
}

// recordMember writes to the volume which etcd member lives on it. From then on an empty volume is a loss, not a beginning.
func (a *Actor) recordMember(ctx context.Context, s *cluster.Snapshot, item analyse.RecordMember) error {
	log.FromContext(ctx).Info("Recording member", "member", item.Member, "clusterID", item.ClusterID, "memberID", item.MemberID, "version", item.Version)
	return a.annotateVolume(ctx, s, item.Volume, item.ResourceVersion, map[string]string{
		cluster.AnnotationClusterID:   item.ClusterID.String(),
		cluster.AnnotationMemberID:    item.MemberID.String(),
		cluster.AnnotationEtcdVersion: item.Version,
	})
}

// setRetention makes the cluster an owner of the volume, so that Kubernetes deletes it with the cluster, or no owner of it. Others' references stay.
func (a *Actor) setRetention(ctx context.Context, s *cluster.Snapshot, item analyse.SetRetention) error {
	reference := map[string]any{"$patch": "delete", "uid": s.Cluster.UID}
	if item.Delete {
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
	log.FromContext(ctx).Info("Setting the retention of a volume", "volume", item.Volume, "deletedWithCluster", item.Delete)
	volume := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: item.Volume}}
	if err := a.Client.Patch(ctx, volume, client.RawPatch(types.StrategicMergePatchType, raw), fieldOwner); err != nil {
		return writeError("setting the owner of", "PersistentVolumeClaim", item.Volume, err)
	}
	return nil
}

// annotateVolume adds annotations to a volume that nobody wrote since resourceVersion.
func (a *Actor) annotateVolume(ctx context.Context, s *cluster.Snapshot, name, resourceVersion string, memory map[string]string) error {
	patch, err := annotationPatch(memory, map[string]string{"resourceVersion": resourceVersion})
	if err != nil {
		return err
	}
	volume := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: name}}
	if err := a.Client.Patch(ctx, volume, patch, fieldOwner); err != nil {
		return writeError("annotating", "PersistentVolumeClaim", name, err)
	}
	return nil
}

// correctWorkload replaces the template of a member's StatefulSet; with the strategy OnDelete its pod runs on.
func (a *Actor) correctWorkload(ctx context.Context, s *cluster.Snapshot, item analyse.CorrectWorkload) error {
	m := s.Member(item.Member)
	desired := render.MemberStatefulSet(analyse.MemberInput(s, item.Member, item.Intent, item.Started))
	updated := m.Workload.Live.DeepCopy()
	updated.Labels, updated.Annotations = desired.Labels, desired.Annotations
	updated.OwnerReferences = withOwner(updated.OwnerReferences, desired.OwnerReferences[0])
	updated.Spec.Replicas = desired.Spec.Replicas
	updated.Spec.UpdateStrategy = desired.Spec.UpdateStrategy
	updated.Spec.Template = desired.Spec.Template
	log.FromContext(ctx).Info("Correcting StatefulSet", "member", item.Member, "started", item.Started)
	if err := a.Client.Update(ctx, updated, fieldOwner); err != nil {
		return writeError("updating", "StatefulSet", item.Member, err)
	}
	return nil
}

// sealPod changes what the founding pod's next container start reads; the running one reads nothing.
func (a *Actor) sealPod(ctx context.Context, s *cluster.Snapshot, item analyse.SealPod) error {
	patch, err := annotationPatch(render.ExistingFormAnnotations(analyse.MemberInput(s, item.Member, item.Intent, true)), map[string]string{"uid": string(item.UID)})
	if err != nil {
		return err
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: item.Pod}}
	err = a.Client.Patch(ctx, pod, patch, fieldOwner)
	if apierrors.IsNotFound(err) {
		return nil // its successor is made from the corrected template
	}
	if err != nil {
		return writeError("annotating", "Pod", item.Pod, err)
	}
	return nil
}

// annotationPatch adds annotations where the preconditions, fields of the metadata, hold.
func annotationPatch(annotations, preconditions map[string]string) (client.Patch, error) {
	metadata := map[string]any{"annotations": annotations}
	for field, value := range preconditions {
		metadata[field] = value
	}
	raw, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return nil, fmt.Errorf("encoding a patch: %w", err)
	}
	return client.RawPatch(types.MergePatchType, raw), nil
}

// withOwner returns the references with the cluster's own as it is written today: an older release named an older API version.
func withOwner(references []metav1.OwnerReference, owner metav1.OwnerReference) []metav1.OwnerReference {
	others := slices.DeleteFunc(slices.Clone(references), func(r metav1.OwnerReference) bool { return r.UID == owner.UID })
	return append(others, owner)
}
