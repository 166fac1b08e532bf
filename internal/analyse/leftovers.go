package analyse

import (
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// removedUpkeep removes what is left of a member that the operator removed, once etcd's list lacks it: it retires the
// volume, then deletes the StatefulSet. The volume is deleted, if the spec says so, in the operation only.
// The StatefulSet of a retired volume is deleted whoever retired it.
func removedUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	if s.Membership == nil {
		return nil
	}
	var list []plan.Upkeep
	for i := range s.LeftOvers {
		m := &s.LeftOvers[i]
		isClaimed := isRemovalClaimed(s, m.Name)
		switch v := m.Volume; {
		case v != nil && !v.Retired && !v.Deleting && (isClaimed || v.Removing != 0):
			list = append(list, plan.RecordMember{
				Member: m.Name, Volume: v.Name, ResourceVersion: v.ResourceVersion, InMemory: v.InMemory,
				Annotations: map[string]string{cluster.AnnotationMembership: cluster.MembershipRetired},
			})
		case m.Workload != nil && !m.Workload.Deleting && (isClaimed || v != nil && (v.Retired || v.Removing != 0 && v.Deleting)):
			list = append(list, plan.Delete{Object: render.StatefulSetToDelete(m.Workload.Live)})
		case m.Workload == nil && m.Pod == nil && v != nil && !v.Deleting && isClaimed && v.Retired && !isPodLeaving(s, m.Name) && mayDeleteVolume(s, v):
			list = append(list, plan.Delete{Object: render.VolumeToDelete(s.Cluster, *v)})
		case isAbandonedJoiner(s, m) && isNoted(s, m.Name):
			list = append(list, plan.Delete{Object: render.VolumeToDelete(s.Cluster, *v)})
		}
	}
	return list
}

// isCleanedUp reports whether the operator itself sees to a left-over: it is of a member that it removes, or adds.
func isCleanedUp(s *cluster.Snapshot, m *cluster.Member) bool {
	op := s.Cluster.Status.Operation
	isClaimed := op != nil && op.Member == m.Name
	return isClaimed || m.Volume != nil && m.Volume.Removing != 0 || isAbandonedJoiner(s, m)
}

// isAbandonedJoiner reports whether a left-over is the claim that the operator made for a member which was never
// registered. Its operation was abandoned before. Nothing ever ran on it: etcd's list is recorded before the first pod.
func isAbandonedJoiner(s *cluster.Snapshot, m *cluster.Member) bool {
	op, v := s.Cluster.Status.Operation, m.Volume
	return m.Workload == nil && m.Pod == nil && v.NeverStarted() && !v.Deleting && !v.Retired && v.JoinedCluster == "" && len(v.Members) == 0 &&
		v.Remembered.Name == "" && v.PeerURL != "" && v.Token == tokenOf(s) && (op == nil || op.Member != m.Name)
}

// isNoted reports whether the Service of the peers notes that a member's number was used. Without its volume nothing
// else may remember it.
func isNoted(s *cluster.Snapshot, member string) bool {
	n, _ := cluster.MemberNumber(s.Cluster.Name, member)
	return n < s.NotedNumber()
}
