package cluster

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// Node is what Kubernetes knows of the node that a member's pod was last on.
type Node struct {
	Name string
	// Deleted tells that there is no Node of the name.
	Deleted bool
	// OutOfService tells that an administrator tainted it with node.kubernetes.io/out-of-service: nothing runs there.
	OutOfService bool
	// NotReadySince is since when its kubelet is silent, or says that it is not ready. It is zero while the node is ready.
	NotReadySince time.Time
}

// NodeOf describes a node; nil is one that was deleted. One that never reported counts from its creation on.
func NodeOf(name string, node *corev1.Node) *Node {
	if node == nil {
		return &Node{Name: name, Deleted: true}
	}
	n := &Node{Name: name, NotReadySince: node.CreationTimestamp.Time}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if n.NotReadySince = c.LastTransitionTime.Time; c.Status == corev1.ConditionTrue {
				n.NotReadySince = time.Time{}
			}
		}
	}
	for _, taint := range node.Spec.Taints {
		n.OutOfService = n.OutOfService || taint.Key == corev1.TaintNodeOutOfService
	}
	return n
}

// IsGone reports whether the pods of the node cannot be relied on.
func (n *Node) IsGone() bool {
	return n != nil && (n.Deleted || n.OutOfService || !n.NotReadySince.IsZero())
}

// IsGoneForGood reports whether Kubernetes knows that nothing runs on the node any more.
func (n *Node) IsGoneForGood() bool { return n != nil && (n.Deleted || n.OutOfService) }

// NodeCount is how many nodes there are, and how many of them are not ready. It is zero where nodes were not read.
type NodeCount struct{ All, NotReady int }

// defaultReplacementTime is spec.recovery.memberReplacement.after where the spec has none.
const defaultReplacementTime = 5 * time.Minute

// ReplacementTime returns how long the node of a member may be gone before the member counts as lost.
func ReplacementTime(c *v1beta1.EtcdCluster) time.Duration {
	if r := c.Spec.Recovery; r != nil && r.MemberReplacement != nil {
		if after, err := time.ParseDuration(r.MemberReplacement.After); err == nil && after > 0 {
			return after
		}
	}
	return defaultReplacementTime
}

// ReplacesByItself reports whether the operator replaces lost members without being asked.
func ReplacesByItself(c *v1beta1.EtcdCluster) bool {
	r := c.Spec.Recovery
	return r == nil || r.MemberReplacement == nil || r.MemberReplacement.Policy != v1beta1.ReplaceManually
}
