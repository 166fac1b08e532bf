package observe

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// observeZones reads the zones of the members' nodes while a voter is to be removed: the others stay spread.
// A node that is gone, or may not be read, has no zone.
func (o *Observer) observeZones(ctx context.Context, s *cluster.Snapshot) error {
	if !o.SeesClusterScope || s.Membership == nil || s.Outlook().Voters <= int(s.Cluster.Spec.Replicas) {
		return nil
	}
	for i := range s.Members {
		pod := s.Members[i].Pod
		if pod == nil || pod.Node == "" {
			continue
		}
		node, err := o.readNode(ctx, pod.Node)
		if err != nil && !apierrors.IsForbidden(err) {
			return err
		}
		if node != nil {
			pod.Zone = node.Labels[corev1.LabelTopologyZone]
		}
	}
	return nil
}
