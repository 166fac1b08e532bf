package cluster

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-steward/etcd-steward/api/v1beta1"
)

// Owns reports whether the object's controller is this very EtcdCluster: its UID counts, not its name.
func Owns(c *v1beta1.EtcdCluster, object metav1.Object) bool {
	owner := metav1.GetControllerOf(object)
	return owner != nil && owner.UID == c.UID
}

// StrangerOf describes an object that is not this cluster's.
func StrangerOf(c *v1beta1.EtcdCluster, kind string, object metav1.Object) Stranger {
	x := Stranger{Kind: kind, Name: object.GetName(), Owner: "belongs to nobody"}
	if owner := metav1.GetControllerOf(object); owner != nil {
		x.Owner = fmt.Sprintf("belongs to %s %s", owner.Kind, owner.Name)
		x.Leaving = owner.Kind == "EtcdCluster" && owner.Name == c.Name && owner.UID != c.UID
	}
	return x
}
