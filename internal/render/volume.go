package render

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// MemberVolume builds the PersistentVolumeClaim of a founding member.
// Its annotations record how the cluster was founded. It has no owner, so it stays when the cluster is deleted.
func MemberVolume(c *v1beta1.EtcdCluster, name string, founders []string, token string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.Namespace,
			Name:      cluster.VolumeName(name),
			Labels:    memberLabels(c, name),
			Annotations: map[string]string{
				cluster.AnnotationClusterUID:      string(c.UID),
				cluster.AnnotationClusterToken:    token,
				cluster.AnnotationFoundingMembers: strings.Join(founders, ","),
				cluster.AnnotationPeerURL:         PeerURL(c, name, cluster.IntentOf(c)),
				cluster.AnnotationMembership:      cluster.MembershipCurrent,
			},
		},
		Spec: volumeSpec(&c.Spec),
	}
}

// JoiningVolume builds the PersistentVolumeClaim of a member that is added to a running cluster.
// It has no founding list.
func JoiningVolume(c *v1beta1.EtcdCluster, name, token, peerURL string) *corev1.PersistentVolumeClaim {
	volume := MemberVolume(c, name, nil, token)
	delete(volume.Annotations, cluster.AnnotationFoundingMembers)
	volume.Annotations[cluster.AnnotationPeerURL] = peerURL
	return volume
}

func volumeSpec(spec *v1beta1.EtcdClusterSpec) corev1.PersistentVolumeClaimSpec {
	claim := corev1.PersistentVolumeClaimSpec{
		AccessModes: cluster.VolumeAccessModes(spec),
		Resources: corev1.VolumeResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceStorage: cluster.VolumeSize(spec)},
		},
	}
	if requested := cluster.VolumeClaim(spec); requested != nil {
		claim.StorageClassName = requested.StorageClassName
	}
	return claim
}

// StatefulSetToDelete names a StatefulSet as it was read.
func StatefulSetToDelete(live *appsv1.StatefulSet) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: metav1.ObjectMeta{Namespace: live.Namespace, Name: live.Name, UID: live.UID},
	}
}

// VolumeToDelete names a PersistentVolumeClaim as it was read: it is deleted if nobody wrote it since.
func VolumeToDelete(c *v1beta1.EtcdCluster, v cluster.Volume) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: v.Name, UID: v.UID, ResourceVersion: v.ResourceVersion},
	}
}
