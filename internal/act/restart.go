package act

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// restartMember deletes the pod that was decided about. etcd hands leadership over when it is told to stop.
// The StatefulSet creates the next pod.
func (a *Actor) restartMember(ctx context.Context, s *cluster.Snapshot, action plan.RestartMember) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: action.Pod}}
	err := a.Client.Delete(ctx, pod, client.Preconditions{UID: &action.UID})
	if err := client.IgnoreNotFound(err); err != nil {
		return writeError("deleting", "Pod", action.Pod, err)
	}
	return nil
}
