package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/etcd-warden/etcd-warden/examples/podset/api/v1alpha1"
)

// act takes the steps. After an error it stops: the next pass decides anew.
func (r *Reconciler) act(ctx context.Context, set *v1alpha1.PodSet, steps []Step) error {
	for _, step := range steps {
		pod, err := step.Pod.DeepCopy(), error(nil)
		switch step.Action {
		case Created:
			if err = controllerutil.SetControllerReference(set, pod, r.Client.Scheme()); err == nil {
				err = r.Client.Create(ctx, pod)
			}
		case Deleted: // as it was observed: no other pod of this name, and none that was given other labels meanwhile
			err = client.IgnoreNotFound(r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion}))
		case Released:
			if err = controllerutil.RemoveControllerReference(set, pod, r.Client.Scheme()); err == nil {
				err = r.patch(ctx, step.Pod, pod)
			}
		case Adopted:
			if err = cmp.Or(r.mayAdopt(ctx, set), controllerutil.SetControllerReference(set, pod, r.Client.Scheme())); err == nil {
				err = r.patch(ctx, step.Pod, pod)
			}
		}
		if err != nil {
			return fmt.Errorf("pod %s is not %s: %w", cmp.Or(pod.Name, pod.GenerateName), strings.ToLower(string(step.Action)), err)
		}
		key := client.ObjectKeyFromObject(set)
		r.unseen[key] = append(r.unseen[key], Step{step.Action, pod})
		r.Events.Eventf(set, pod, corev1.EventTypeNormal, string(step.Action), string(step.Action), "%s pod %s.", step.Action, pod.Name)
	}
	return nil
}

// patch changes a pod. It is a conflict if somebody else changed it after it was observed.
func (r *Reconciler) patch(ctx context.Context, observed, changed *corev1.Pod) error {
	return r.Client.Patch(ctx, changed, client.MergeFromWithOptions(observed, client.MergeFromWithOptimisticLock{}))
}

// mayAdopt asks the API server whether somebody deletes a set: the cache may not show it yet. An adopted pod would be
// deleted with its set.
func (r *Reconciler) mayAdopt(ctx context.Context, set *v1alpha1.PodSet) error {
	live := &v1alpha1.PodSet{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(set), live); err != nil {
		return err
	}
	if live.UID != set.UID || live.DeletionTimestamp != nil {
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("podsets").GroupResource(), set.Name, errors.New("it is being deleted"))
	}
	return nil
}

// awaits reports whether the cache lacks a write of an earlier pass. Another pass would do the same again.
func (r *Reconciler) awaits(ctx context.Context, set types.NamespacedName) bool {
	for len(r.unseen[set]) > 0 {
		if !r.shows(ctx, r.unseen[set][0]) {
			return true
		}
		r.unseen[set] = r.unseen[set][1:]
	}
	delete(r.unseen, set)
	return false
}

// shows reports whether the cache has the pod of a step that was taken, as it was written or later.
func (r *Reconciler) shows(ctx context.Context, w Step) bool {
	have := &corev1.Pod{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(w.Pod), have)
	if apierrors.IsNotFound(err) && w.Action != Deleted { // it may be gone already
		return apierrors.IsNotFound(r.Live.Get(ctx, client.ObjectKeyFromObject(w.Pod), have))
	}
	if err != nil || w.Action == Deleted {
		return apierrors.IsNotFound(err) || err == nil && (have.UID != w.Pod.UID || have.DeletionTimestamp != nil)
	}
	order, err := resourceversion.CompareResourceVersion(have.ResourceVersion, w.Pod.ResourceVersion)
	return err == nil && order >= 0
}
