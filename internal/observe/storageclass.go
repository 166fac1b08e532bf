package observe

import (
	"context"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

const defaultClassAnnotation = "storageclass.kubernetes.io/is-default-class"

// observeStorageClass looks up the StorageClass of the volumes before the first one is made.
func (o *Observer) observeStorageClass(ctx context.Context, s *cluster.Snapshot) error {
	takesBack := len(s.RetainedVolumes) > 0 && !cluster.IgnoresExistingVolumes(s.Cluster)
	if !o.SeesClusterScope || len(s.Members) > 0 || takesBack {
		return nil
	}
	if claim := cluster.VolumeClaim(&s.Cluster.Spec); claim != nil && claim.StorageClassName != nil {
		return o.observeNamedClass(ctx, s, *claim.StorageClassName)
	}
	return o.observeDefaultClass(ctx, s)
}

func (o *Observer) observeNamedClass(ctx context.Context, s *cluster.Snapshot, name string) error {
	err := o.Live.Get(ctx, client.ObjectKey{Name: name}, &storagev1.StorageClass{})
	if apierrors.IsNotFound(err) {
		s.StorageClassMissing = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading StorageClass %s: %w", name, err)
	}
	return nil
}

func (o *Observer) observeDefaultClass(ctx context.Context, s *cluster.Snapshot) error {
	var classes storagev1.StorageClassList
	if err := o.Live.List(ctx, &classes); err != nil {
		return fmt.Errorf("listing StorageClasses: %w", err)
	}
	for i := range classes.Items {
		if classes.Items[i].Annotations[defaultClassAnnotation] == "true" {
			return nil
		}
	}
	s.StorageClassMissing = true
	return nil
}
