package act

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-steward/etcd-steward/internal/analyse"
	"github.com/etcd-steward/etcd-steward/internal/cluster"
)

// rollMember deletes the very pod that was decided about; etcd hands leadership over when it is told to end. The StatefulSet makes the next pod.
func (a *Actor) rollMember(ctx context.Context, s *cluster.Snapshot, action analyse.RollMember) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: action.Pod}}
	err := a.Client.Delete(ctx, pod, client.Preconditions{UID: &action.UID})
	if err := client.IgnoreNotFound(err); err != nil {
		return notWritten("deleting", "Pod", action.Pod, err)
	}
	return nil
}
