package act

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// resizePod marks the pod, then asks the API server to change its resources without a restart. The mark is first: if
// the spec changes back after a crash, the pod's resources are looked at again. A refusal is marked too: then the
// member restarts instead.
func (a *Actor) resizePod(ctx context.Context, s *cluster.Snapshot, item plan.ResizePod) error {
	if err := a.markResize(ctx, s, item, false); err != nil {
		return err
	}
	patch, err := resourcesPatch(item)
	if err != nil {
		return err
	}
	log.FromContext(ctx).Info("Resizing", "kind", "Pod", "object", item.Pod)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: item.Pod}}
	err = a.Client.SubResource("resize").Patch(ctx, pod, patch, fieldOwner)
	switch {
	case err == nil:
		return nil
	case replaced(err):
		return conflict("Pod", item.Pod, "it was replaced since it was read")
	case !isRefusedResize(err):
		return fmt.Errorf("resizing Pod %s: %w", item.Pod, err)
	case apierrors.IsNotFound(err):
		if there, err := a.podIsThere(ctx, s, item); err != nil || !there {
			return err
		}
	}
	log.FromContext(ctx).Info("The API server does not resize the pod. The member restarts instead", "object", item.Pod, "cause", err.Error())
	return a.markResize(ctx, s, item, true)
}

func (a *Actor) markResize(ctx context.Context, s *cluster.Snapshot, item plan.ResizePod, refused bool) error {
	return a.annotatePod(ctx, s, plan.AnnotatePod{Member: item.Member, Pod: item.Pod, UID: item.UID, Annotations: map[string]string{
		cluster.AnnotationResize: cluster.ResizeMark(item.Target, item.AskedAt, refused),
	}})
}

// isRefusedResize reports whether the API server will not resize the pod, however often it is asked. One that does not
// know the subresource (before Kubernetes 1.33) answers with NotFound.
func isRefusedResize(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) || apierrors.IsInvalid(err) ||
		apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

// podIsThere reports whether the pod exists: NotFound may mean the pod, or the subresource.
func (a *Actor) podIsThere(ctx context.Context, s *cluster.Snapshot, item plan.ResizePod) (bool, error) {
	var pod corev1.Pod
	err := a.Live.Get(ctx, client.ObjectKey{Namespace: s.Cluster.Namespace, Name: item.Pod}, &pod)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading Pod %s: %w", item.Pod, err)
	}
	return err == nil && pod.UID == item.UID, nil
}

func resourcesPatch(item plan.ResizePod) (client.Patch, error) {
	raw, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": item.UID},
		"spec": map[string]any{"containers": []any{
			map[string]any{"name": render.ContainerName, "resources": item.Resources},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding a patch: %w", err)
	}
	return client.RawPatch(types.StrategicMergePatchType, raw), nil
}
