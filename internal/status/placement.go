package status

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// placementAdvisory tells which members share a node. While members come, go or move, the last condition stands.
func placementAdvisory(s *cluster.Snapshot, status *v1beta1.EtcdClusterStatus) metav1.Condition {
	separate := condition(v1beta1.ConditionPlacementAdvisory, metav1.ConditionFalse, v1beta1.ReasonAsExpected,
		"The operator sees no node with two members.")
	if allowsSharedNodes(s.Cluster) {
		separate.Message = "spec.podTemplate.memberAntiAffinity is Preferred: members may share a node."
		return separate
	}
	if status.Operation != nil || !isPlaced(s) {
		if last := meta.FindStatusCondition(s.Cluster.Status.Conditions, separate.Type); last != nil {
			return *last
		}
		return separate
	}
	members := map[string][]string{} // by node
	for i := range s.Members {
		node := s.Members[i].Pod.Node
		members[node] = append(members[node], s.Members[i].Name)
	}
	var texts []string
	for i := range s.Members {
		node := s.Members[i].Pod.Node
		if names := members[node]; len(names) > 1 && names[0] == s.Members[i].Name {
			texts = append(texts, fmt.Sprintf("%s run on node %s. %s", strings.Join(names, ", "), node, withoutNode(len(s.Members), len(names))))
		}
	}
	if len(texts) == 0 {
		return separate
	}
	return condition(v1beta1.ConditionPlacementAdvisory, metav1.ConditionTrue, v1beta1.ReasonMembersShareNode, strings.Join(texts, " ")+" "+
		"Give the cluster a node for each member. Then delete the pod of one of these members, so that it moves. If its volume can be used "+
		"on that node only, replace the member with the annotation "+v1beta1.ReplaceMemberAnnotation+" (docs/repair.md). "+
		"If members may share a node, set spec.podTemplate.memberAntiAffinity to Preferred. That restarts nothing.")
}

// allowsSharedNodes reports whether the spec says explicitly that members are spread only where the scheduler can do
// so.
func allowsSharedNodes(c *v1beta1.EtcdCluster) bool {
	return c.Spec.PodTemplate != nil && c.Spec.PodTemplate.MemberAntiAffinity == v1beta1.MemberAntiAffinityPreferred
}

// isPlaced reports whether the cluster has the members of the spec, and each of them has a pod on a node.
func isPlaced(s *cluster.Snapshot) bool {
	return len(s.Members) == int(s.Cluster.Spec.Replicas) && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Pod == nil || m.Pod.Deleting || m.Pod.Node == ""
	})
}

func withoutNode(members, there int) string {
	left := members - there
	if left >= cluster.Quorum(members) {
		return fmt.Sprintf("If that node fails, %d of %d members are left. They are a quorum.", left, members)
	}
	return fmt.Sprintf("If that node fails, %d of %d members are left, which is no quorum: the cluster stops.", left, members)
}
