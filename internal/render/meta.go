// Package render builds the Kubernetes objects of an etcd cluster.
// It is pure: its results depend only on its arguments.
package render

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// ClusterToken returns etcd's initial-cluster-token for a cluster that is founded now.
// A cluster that is created again under the same name gets another token, so the members of the two never mix.
func ClusterToken(c *v1beta1.EtcdCluster) string {
	return c.Namespace + "/" + c.Name + "/" + string(c.UID)
}

// clusterLabels are on every object of a cluster.
func clusterLabels(c *v1beta1.EtcdCluster) map[string]string {
	return map[string]string{
		cluster.LabelName:      cluster.NameValue,
		cluster.LabelInstance:  c.Name,
		cluster.LabelManagedBy: cluster.ManagedByValue,
		cluster.LabelCluster:   c.Name,
	}
}

// memberLabels are on every object of a member.
func memberLabels(c *v1beta1.EtcdCluster, member string) map[string]string {
	labels := clusterLabels(c)
	labels[cluster.LabelMember] = member
	return labels
}

// allMembers selects the pods of a cluster.
func allMembers(c *v1beta1.EtcdCluster) map[string]string {
	return map[string]string{
		cluster.LabelManagedBy: cluster.ManagedByValue,
		cluster.LabelCluster:   c.Name,
	}
}

// MemberSelector returns the label selector of a cluster's pods as text.
func MemberSelector(c *v1beta1.EtcdCluster) string {
	return labels.SelectorFromSet(allMembers(c)).String()
}

// ownedBy makes the EtcdCluster the controller of an object. Kubernetes deletes the object with the cluster.
func ownedBy(c *v1beta1.EtcdCluster) []metav1.OwnerReference {
	return []metav1.OwnerReference{*metav1.NewControllerRef(c, v1beta1.GroupVersion.WithKind(v1beta1.EtcdClusterKind))}
}

func ownedMeta(c *v1beta1.EtcdCluster, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:       c.Namespace,
		Name:            name,
		Labels:          clusterLabels(c),
		OwnerReferences: ownedBy(c),
	}
}

// merged returns a new map with the entries of both. If both have a key, the value of ours is used.
func merged(theirs, ours map[string]string) map[string]string {
	all := make(map[string]string, len(theirs)+len(ours))
	maps.Copy(all, theirs)
	maps.Copy(all, ours)
	return all
}

// hashOf returns a short hash of the value in Kubernetes' protobuf encoding, which sorts the keys of maps. To encode it
// as JSON takes most of a pass that finds nothing to do.
func hashOf(value interface{ Marshal() ([]byte, error) }) string {
	raw, err := value.Marshal()
	if err != nil {
		panic(fmt.Sprintf("hashing a Kubernetes object of plain fields: %v", err)) // every field marshals
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}
