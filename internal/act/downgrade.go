package act

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// changeDowngrade notes a downgrade on the Service of the peers, and enables it in etcd if etcd itself agrees; or it
// cancels the one that is enabled. So whatever the operator enabled has its note.
func (a *Actor) changeDowngrade(ctx context.Context, s *cluster.Snapshot, action plan.ChangeDowngrade) error {
	if action.Target == "" {
		if err := a.changeEtcd(ctx, s, action.Leader, "cancelling the downgrade", nil, a.Etcd.CancelDowngrade); err != nil {
			return err
		}
		return a.notePeers(ctx, s, action.Notes)
	}
	if err := a.notePeers(ctx, s, action.Notes); err != nil {
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

// notePeers writes annotations on the Service of the peers, where they differ.
func (a *Actor) notePeers(ctx context.Context, s *cluster.Snapshot, notes map[string]string) error {
	service := s.PeerService
	if service == nil {
		return fmt.Errorf("annotating the Service of the peers: there is no Service %s", cluster.PeerServiceName(s.Cluster.Name))
	}
	changes := maps.Clone(notes)
	maps.DeleteFunc(changes, func(key, value string) bool { return service.Annotations[key] == value })
	if len(changes) == 0 {
		return nil
	}
	patch, err := annotationPatch(changes, map[string]string{"uid": string(service.UID), "resourceVersion": service.ResourceVersion})
	if err != nil {
		return err
	}
	object := &corev1.Service{}
	object.Namespace, object.Name = service.Namespace, service.Name
	if err := a.Client.Patch(ctx, object, patch, fieldOwner); err != nil {
		return writeError("annotating", "Service", service.Name, err)
	}
	return nil
}
