package cluster

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// Owns reports whether the object's controller is this very EtcdCluster: its UID counts, not its name.
func Owns(c *v1beta1.EtcdCluster, object metav1.Object) bool {
	owner := metav1.GetControllerOf(object)
	return owner != nil && owner.UID == c.UID
}

// DeletedWith returns the UID of the EtcdCluster that a volume is deleted with; empty for one that is kept.
func DeletedWith(volume metav1.Object) types.UID {
	for _, owner := range volume.GetOwnerReferences() {
		if owner.Kind == v1beta1.EtcdClusterKind {
			return owner.UID
		}
	}
	return ""
}

// DeletesVolumes reports whether the user wants the volumes, and the data on them, deleted with the cluster.
func DeletesVolumes(c *v1beta1.EtcdCluster) bool {
	storage := c.Spec.Storage
	return storage != nil && storage.RetentionPolicy != nil && storage.RetentionPolicy.WhenDeleted == v1beta1.RetentionDelete
}

const volumeKind = "PersistentVolumeClaim"

// DeletesScaledVolumes reports whether the volume of a member that is removed for a smaller size is deleted.
func DeletesScaledVolumes(c *v1beta1.EtcdCluster) bool {
	storage := c.Spec.Storage
	return storage != nil && storage.RetentionPolicy != nil && storage.RetentionPolicy.WhenScaled == v1beta1.RetentionDelete
}

// DeletesReplacedVolumes reports whether the volume of a lost member that was replaced is deleted.
func DeletesReplacedVolumes(c *v1beta1.EtcdCluster) bool {
	storage := c.Spec.Storage
	return storage != nil && storage.RetentionPolicy != nil && storage.RetentionPolicy.WhenReplaced == v1beta1.RetentionDelete
}

// HealthyVolume returns the UID of the claim that the status says a member was last healthy on; empty for none.
func HealthyVolume(c *v1beta1.EtcdCluster, member string) string {
	for i := range c.Status.Members {
		if m := &c.Status.Members[i]; m.Name == member {
			return m.VolumeUID
		}
	}
	return ""
}

// ForeignObjectOf describes an object that is not this cluster's.
func ForeignObjectOf(c *v1beta1.EtcdCluster, kind string, object metav1.Object) ForeignObject {
	x := ForeignObject{Kind: kind, Name: object.GetName(), Owner: "has no owner"}
	if owner := metav1.GetControllerOf(object); owner != nil {
		x.Owner = fmt.Sprintf("belongs to %s %s", owner.Kind, owner.Name)
		isCluster := owner.Kind == v1beta1.EtcdClusterKind
		if x.Terminating = isCluster && owner.Name == c.Name && owner.UID != c.UID; x.Terminating {
			x.Owner = "belongs to the deleted cluster of this name"
		}
		if isCluster && owner.Name != c.Name {
			x.Advice = "Create this cluster under another name."
		}
	}
	if kind == volumeKind {
		x.Owner = "does not have the operator's annotation " + AnnotationClusterUID
		x.Advice = fmt.Sprintf("Do not delete it before you know whose data it holds. If it is the volume of a member of this cluster, "+
			"set the annotation %s=%s on it (docs/volumes.md). Otherwise create this cluster under another name.", AnnotationClusterUID, c.UID)
	}
	return x
}
