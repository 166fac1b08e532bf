package act

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// changeDowngrade notes a downgrade on the Service of the peers, and enables it in etcd if etcd itself agrees; or it
// cancels the one that is enabled.
func (a *Actor) changeDowngrade(ctx context.Context, s *cluster.Snapshot, action plan.ChangeDowngrade) error {
	if action.Target == "" {
		return a.changeEtcd(ctx, s, action.Leader, "cancelling the downgrade", nil, a.Etcd.CancelDowngrade)
	}
	if err := a.noteDowngrade(ctx, s, action.Target); err != nil {
		return err
	}
	doing := "enabling the downgrade to etcd " + action.Target
	return a.changeEtcd(ctx, s, action.Leader, doing, etcd.ErrDowngradeEnabled, func(ctx context.Context, target etcd.Target) error {
		if err := a.Etcd.ValidateDowngrade(ctx, target, action.Target); err != nil {
			return err
		}
		return a.Etcd.EnableDowngrade(ctx, target, action.Target)
	})
}

func (a *Actor) noteDowngrade(ctx context.Context, s *cluster.Snapshot, target string) error {
	service := s.PeerService
	if service == nil {
		return errors.New("noting the downgrade: there is no Service of the peers")
	}
	if service.Annotations[cluster.AnnotationDowngrade] == target {
		return nil
	}
	patch, err := annotationPatch(map[string]string{cluster.AnnotationDowngrade: target},
		map[string]string{"uid": string(service.UID), "resourceVersion": service.ResourceVersion})
	if err != nil {
		return err
	}
	object := &corev1.Service{}
	object.Namespace, object.Name = service.Namespace, service.Name
	if err := a.Client.Patch(ctx, object, patch, fieldOwner); err != nil {
		return fmt.Errorf("noting the downgrade: %w", writeError("annotating", "Service", service.Name, err))
	}
	return nil
}
