package act

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// createFounders creates every volume before the first StatefulSet: where there is a StatefulSet, no volume is missing.
// Volumes outlive a cluster, so none is created for pods that the API server would refuse.
func (a *Actor) createFounders(ctx context.Context, s *cluster.Snapshot, action plan.CreateFounders) error {
	if len(action.Volumes) > 0 {
		if err := a.dryRunCreate(ctx, copyOf(action.StatefulSets[0])); err != nil {
			return err
		}
	}
	for _, volume := range action.Volumes {
		if err := a.create(ctx, s, copyOf(volume), usedBy(s)); err != nil {
			return err
		}
	}
	return a.createStatefulSets(ctx, s, action.StatefulSets)
}

// takeBackVolumes first reads all volumes again. If any was written since, it stops: the set of volumes decides
// whether taking back is allowed. Then it annotates each under its resourceVersion.
func (a *Actor) takeBackVolumes(ctx context.Context, s *cluster.Snapshot, action plan.TakeBackVolumes) error {
	for _, v := range action.Volumes {
		var live corev1.PersistentVolumeClaim
		if err := a.Live.Get(ctx, client.ObjectKey{Namespace: s.Cluster.Namespace, Name: v.Name}, &live); err != nil {
			return fmt.Errorf("reading PersistentVolumeClaim %s: %w", v.Name, err)
		}
		if live.UID != v.UID || live.ResourceVersion != v.ResourceVersion {
			return conflict("PersistentVolumeClaim", v.Name, "it was written since it was read")
		}
	}
	for _, v := range action.Volumes {
		memory := map[string]string{cluster.AnnotationClusterUID: string(s.Cluster.UID)}
		if err := a.annotateVolume(ctx, s, plan.ObjectName{Kind: "PersistentVolumeClaim", Name: v.Name}, v.ResourceVersion, memory); err != nil {
			return err
		}
	}
	return nil
}

// createStatefulSets creates the StatefulSets of members, in their order.
func (a *Actor) createStatefulSets(ctx context.Context, s *cluster.Snapshot, list []*appsv1.StatefulSet) error {
	for _, set := range list {
		if err := a.create(ctx, s, copyOf(set), ownedBy(s)); err != nil {
			return err
		}
	}
	return nil
}

// usedBy reports whether a volume was made for, or taken back by, this cluster.
func usedBy(s *cluster.Snapshot) func(client.Object) bool {
	return func(object client.Object) bool {
		return object.GetAnnotations()[cluster.AnnotationClusterUID] == string(s.Cluster.UID)
	}
}
