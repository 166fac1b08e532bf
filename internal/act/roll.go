package act

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// tellPod changes what a pod that waits says of itself, on condition that nobody, the kubelet included, wrote it since: it may have been started.
func (a *Actor) tellPod(ctx context.Context, s *cluster.Snapshot, item analyse.TellPod) error {
	annotations := render.AuthorityAnnotations(item.Want)
	hash := func(i cluster.Intent) string { return render.RenderHash(analyse.MemberInput(s, item.Member, i, true)) }
	if s.Member(item.Member).Pod.RenderHash == hash(item.Have) { // it differs in nothing else
		annotations[cluster.AnnotationRenderHash] = hash(item.Want)
	}
	patch, err := annotationPatch(annotations, map[string]string{"uid": string(item.UID), "resourceVersion": item.ResourceVersion})
	if err != nil {
		return err
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: item.Pod}}
	if err := a.Client.Patch(ctx, pod, patch, fieldOwner); err != nil {
		return writeError("annotating", "Pod", item.Pod, err)
	}
	return nil
}

// rollMember deletes the very pod that was decided about; etcd hands leadership over when it is told to end. The StatefulSet makes the next pod.
func (a *Actor) rollMember(ctx context.Context, s *cluster.Snapshot, action analyse.RollMember) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Cluster.Namespace, Name: action.Pod}}
	err := a.Client.Delete(ctx, pod, client.Preconditions{UID: &action.UID})
	if err := client.IgnoreNotFound(err); err != nil {
		return writeError("deleting", "Pod", action.Pod, err)
	}
	return nil
}
