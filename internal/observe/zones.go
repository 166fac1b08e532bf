package observe

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
		node := &corev1.Node{}
		err := o.Live.Get(ctx, client.ObjectKey{Name: pod.Node}, node)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			return fmt.Errorf("reading Node %s: %w", pod.Node, err)
		}
		pod.Zone = node.Labels[corev1.LabelTopologyZone]
	}
	return nil
}
