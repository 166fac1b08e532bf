package act

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// foundCluster makes every volume before the first StatefulSet: where a StatefulSet is, no volume was left to be made.
// Volumes outlive a cluster, so none is made for pods that the API server would refuse.
func (a *Actor) foundCluster(ctx context.Context, s *cluster.Snapshot, action analyse.FoundCluster) error {
	founding := render.Founding{Token: action.Token}
	for _, m := range action.Members {
		founding.Members = append(founding.Members, m.Name)
	}
	workload := func(member string) *appsv1.StatefulSet {
		in := analyse.MemberInput(s, member, action.Intent, false)
		in.Founding = &founding
		return render.MemberStatefulSet(in)
	}
	if slices.ContainsFunc(action.Members, func(m analyse.Founder) bool { return m.MakeVolume }) {
		if err := a.dryRunCreate(ctx, workload(founding.Members[0])); err != nil {
			return err
		}
	}
	for _, m := range action.Members {
		if !m.MakeVolume {
			continue
		}
		if err := a.create(ctx, s, render.MemberVolume(s.Cluster, m.Name, founding), usedBy(s)); err != nil {
			return err
		}
	}
	for _, m := range action.Members {
		if !m.MakeWorkload {
			continue
		}
		if err := a.create(ctx, s, workload(m.Name), ownedBy(s)); err != nil {
			return err
		}
	}
	return nil
}

// takeBackVolumes marks the kept volumes as this cluster's, each on condition that nobody wrote it since it was read, and the first on condition
// that nobody wrote any: which volumes there are decides whether they may be taken back at all, and the caches may be behind.
func (a *Actor) takeBackVolumes(ctx context.Context, s *cluster.Snapshot, action analyse.TakeBackVolumes) error {
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
		if err := a.annotateVolume(ctx, s, v.Name, v.ResourceVersion, memory); err != nil {
			return err
		}
	}
	return nil
}

// resumeMembers makes StatefulSets in their started form, which refuses an empty volume.
func (a *Actor) resumeMembers(ctx context.Context, s *cluster.Snapshot, action analyse.ResumeMembers) error {
	for _, name := range action.Members {
		if err := a.create(ctx, s, render.MemberStatefulSet(analyse.MemberInput(s, name, action.Intent, true)), ownedBy(s)); err != nil {
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
