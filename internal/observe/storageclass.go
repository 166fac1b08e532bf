package observe

import (
	"context"
	"fmt"
	"sync"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

const defaultClassAnnotation = "storageclass.kubernetes.io/is-default-class"

// classTime is how long a StorageClass that was found is not looked for again: many clusters are created at once.
const classTime = 10 * time.Second

// classMemory remembers when each StorageClass was found, by name. The default class has the empty name.
type classMemory struct{ found sync.Map }

func (m *classMemory) has(name string, now time.Time) bool {
	at, ok := m.found.Load(name)
	return ok && now.Before(at.(time.Time).Add(classTime))
}

// observeStorageClass looks up the StorageClass of the volumes before the first one is made.
func (o *Observer) observeStorageClass(ctx context.Context, s *cluster.Snapshot) error {
	takesBack := len(s.RetainedVolumes) > 0 && !cluster.IgnoresExistingVolumes(s.Cluster)
	if !o.SeesClusterScope || len(s.Members) > 0 || takesBack || cluster.IsInMemory(&s.Cluster.Spec) {
		return nil
	}
	if claim := cluster.VolumeClaim(&s.Cluster.Spec); claim != nil && claim.StorageClassName != nil {
		return o.observeNamedClass(ctx, s, *claim.StorageClassName)
	}
	return o.observeDefaultClass(ctx, s)
}

func (o *Observer) observeNamedClass(ctx context.Context, s *cluster.Snapshot, name string) error {
	if o.classes.has(name, s.Now) {
		return nil
	}
	err := o.Live.Get(ctx, client.ObjectKey{Name: name}, &storagev1.StorageClass{})
	if apierrors.IsNotFound(err) {
		s.StorageClassMissing = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading StorageClass %s: %w", name, err)
	}
	o.classes.found.Store(name, s.Now)
	return nil
}

func (o *Observer) observeDefaultClass(ctx context.Context, s *cluster.Snapshot) error {
	if o.classes.has("", s.Now) {
		return nil
	}
	var classes storagev1.StorageClassList
	if err := o.Live.List(ctx, &classes); err != nil {
		return fmt.Errorf("listing StorageClasses: %w", err)
	}
	for i := range classes.Items {
		if classes.Items[i].Annotations[defaultClassAnnotation] == "true" {
			o.classes.found.Store("", s.Now)
			return nil
		}
	}
	s.StorageClassMissing = true
	return nil
}
