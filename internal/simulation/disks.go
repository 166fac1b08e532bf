package simulation

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// CopyDisk copies the data under a claim, as a snapshot of the volume does, and returns the name of the copy.
func (w *World) CopyDisk(claim *corev1.PersistentVolumeClaim) string {
	disk := "disk-" + w.Next()
	w.Etcd.Copy(w.Disk(claim), disk)
	return disk
}

// Rebind ends the pod that uses a claim, and replaces the claim by one of the same name over the same PersistentVolume.
func (w *World) Rebind(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	w.killUsers(claim)
	erase(w.Server, claim)
	again := claimAgain(claim, claim.Spec.VolumeName)
	w.Add(again)
	if volume, ok := one[*corev1.PersistentVolume](w.Server, "", again.Spec.VolumeName); ok {
		change(w.Server, volume, func(v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = again.UID })
	}
	return again
}

// Restore makes a claim like an earlier one, over a PersistentVolume that holds a disk. Nothing of that name may exist.
// The claim gets the metadata of the earlier one. name is that of the PersistentVolume; empty for another one.
func (w *World) Restore(earlier *corev1.PersistentVolumeClaim, disk, name string) *corev1.PersistentVolumeClaim {
	if name == "" {
		name = "restored-uid-" + w.Next()
	}
	volume := &corev1.PersistentVolume{}
	volume.Name = name
	volume.Status.Phase = corev1.VolumeBound
	again := claimAgain(earlier, name)
	w.Add(again)
	volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: again.Namespace, Name: again.Name, UID: again.UID}
	w.Add(volume)
	w.disks[name] = disk
	return again
}

func claimAgain(earlier *corev1.PersistentVolumeClaim, volume string) *corev1.PersistentVolumeClaim {
	again := earlier.DeepCopy()
	again.UID, again.ResourceVersion, again.DeletionTimestamp, again.Finalizers = "", "", nil, nil
	again.Spec.VolumeName, again.Status.Phase = volume, corev1.ClaimBound
	return again
}

func (w *World) killUsers(claim *corev1.PersistentVolumeClaim) {
	for _, pod := range all[*corev1.Pod](w.Server) {
		if pod.Namespace == claim.Namespace && claimName(pod) == claim.Name {
			w.KillPod(pod)
		}
	}
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
