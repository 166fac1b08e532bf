package render

import (
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Object is a Kubernetes object.
type Object interface {
	metav1.Object
	runtime.Object
}

// MemberVolume builds the PersistentVolumeClaim of a founding member, or the ConfigMap that stands for one where the
// data are in memory. Its annotations record how the cluster was founded.
// A claim has no owner, so it stays when the cluster is deleted. Data in memory do not: the ConfigMap goes too.
func MemberVolume(c *v1beta1.EtcdCluster, name string, founders []string, token string) Object {
	return memberVolume(c, name, map[string]string{
		cluster.AnnotationClusterUID:      string(c.UID),
		cluster.AnnotationClusterToken:    token,
		cluster.AnnotationFoundingMembers: strings.Join(founders, ","),
		cluster.AnnotationPeerURL:         PeerURL(c, name, cluster.IntentOf(c)),
		cluster.AnnotationMembership:      cluster.MembershipCurrent,
	})
}

// JoiningVolume builds what a member that is added to a running cluster has in place of that.
// It has no founding list.
func JoiningVolume(c *v1beta1.EtcdCluster, name, token, peerURL string) Object {
	return memberVolume(c, name, map[string]string{
		cluster.AnnotationClusterUID:   string(c.UID),
		cluster.AnnotationClusterToken: token,
		cluster.AnnotationPeerURL:      peerURL,
		cluster.AnnotationMembership:   cluster.MembershipCurrent,
	})
}

func memberVolume(c *v1beta1.EtcdCluster, name string, memory map[string]string) Object {
	meta := metav1.ObjectMeta{Namespace: c.Namespace, Name: cluster.VolumeName(name), Labels: memberLabels(c, name), Annotations: memory}
	if cluster.IsInMemory(&c.Spec) {
		size := cluster.VolumeSize(&c.Spec)
		meta.Annotations[cluster.AnnotationMemoryBytes] = strconv.FormatInt(size.Value(), 10)
		meta.OwnerReferences = ownedBy(c)
		return &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: meta}
	}
	return &corev1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: meta,
		Spec:       volumeSpec(&c.Spec),
	}
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

// VolumeToDelete names a member's claim, or its ConfigMap, as it was read: it is deleted if nobody wrote it since.
func VolumeToDelete(c *v1beta1.EtcdCluster, v cluster.Volume) Object {
	meta := metav1.ObjectMeta{Namespace: c.Namespace, Name: v.Name, UID: v.UID, ResourceVersion: v.ResourceVersion}
	if v.InMemory {
		return &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: meta}
	}
	return &corev1.PersistentVolumeClaim{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}, ObjectMeta: meta}
}
