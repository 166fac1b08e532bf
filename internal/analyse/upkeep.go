package analyse

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/etcd-steward/etcd-steward/internal/cluster"
	"github.com/etcd-steward/etcd-steward/internal/render"
)

// upkeepOf lists the harmless writes that a cluster needs: its Services and PodDisruptionBudget, the memory on its volumes,
// and templates that fail closed. A cluster that has nothing yet, and is not about to be started, needs none.
func upkeepOf(s *cluster.Snapshot, d *Decision) []Upkeep {
	if (len(s.Members) == 0 && !d.Progressing) || oneClusterID(s) != nil {
		return nil
	}
	var list []Upkeep
	if refusalsOf(s, previousClusterGone, noStranger) == nil {
		list = objectUpkeep(s, membersToBe(s, d))
	}
	for i := range s.Members {
		list = append(list, memberUpkeep(s, &s.Members[i])...)
	}
	return list
}

// membersToBe is how many members there are, or will be where there are none yet.
func membersToBe(s *cluster.Snapshot, d *Decision) int {
	if len(s.Members) > 0 {
		return len(s.Members)
	}
	if takeBack, ok := d.Action.(TakeBackVolumes); ok {
		return len(takeBack.Volumes[0].Founders)
	}
	return int(s.Cluster.Spec.Size)
}

func objectUpkeep(s *cluster.Snapshot, members int) []Upkeep {
	var list []Upkeep
	if s.PeerService == nil || stale(render.PeerService(s.Cluster), s.PeerService) {
		list = append(list, EnsurePeerService{})
	}
	if s.ClientService == nil || stale(render.ClientService(s.Cluster), s.ClientService) {
		list = append(list, EnsureClientService{})
	}
	quorum := cluster.Quorum(max(members, s.Voters()))
	switch {
	case members > 1 && (s.Budget == nil || stale(render.Budget(s.Cluster, quorum), s.Budget)):
		list = append(list, EnsureBudget{MinAvailable: quorum})
	case members == 1 && s.Budget != nil:
		list = append(list, RemoveBudget{UID: s.Budget.UID})
	}
	return list
}

// memberUpkeep records a member that etcd itself names, then makes its template and its pod fail closed, in this order.
func memberUpkeep(s *cluster.Snapshot, m *cluster.Member) []Upkeep {
	var list []Upkeep
	if m.Volume == nil || m.Volume.Deleting {
		return nil
	}
	started := m.Volume.Started()
	if recordable(s, m) {
		started = true
		if !m.Volume.Started() || m.Volume.Version != m.Probe.Version {
			list = append(list, RecordMember{
				Member: m.Name, Volume: m.Volume.Name, ResourceVersion: m.Volume.ResourceVersion,
				ClusterID: m.Probe.ClusterID, MemberID: m.Probe.MemberID, Version: m.Probe.Version,
			})
		}
	}
	if m.Workload != nil && !m.Workload.Deleting && workloadStale(s, m, started) {
		list = append(list, CorrectWorkload{Member: m.Name, Intent: m.Workload.Intent, Started: started})
	}
	if m.Pod != nil && !m.Pod.Deleting && started && m.Pod.FoundingState == "new" {
		list = append(list, SealPod{Member: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID, Intent: settledIntent(s)})
	}
	return list
}

// recordable reports whether etcd's own member list, read from a voter, names this member at this peer URL with the
// ID that its pod reported: an address that was handed to another cluster's pod cannot pass.
func recordable(s *cluster.Snapshot, m *cluster.Member) bool {
	if !m.Probe.Answered() || s.Membership == nil || s.Membership.ClusterID != m.Probe.ClusterID {
		return false
	}
	return slices.ContainsFunc(s.Membership.Members, func(e cluster.EtcdMember) bool {
		return e.ID == m.Probe.MemberID && e.Name == m.Name && slices.Contains(e.PeerURLs, m.Volume.PeerURL)
	})
}

func workloadStale(s *cluster.Snapshot, m *cluster.Member, started bool) bool {
	return stale(render.MemberStatefulSet(MemberInput(s, m.Name, m.Workload.Intent, started)), m.Workload.Live)
}

// MemberInput is what a member's StatefulSet is rendered from: in its started form, or with the founding list.
func MemberInput(s *cluster.Snapshot, name string, intent cluster.Intent, started bool) render.MemberInput {
	in := render.MemberInput{Cluster: s.Cluster, Name: name, Intent: intent, IPv6: usesIPv6(s)}
	if m := s.Member(name); !started && m != nil && m.Volume != nil {
		in.Founding = &render.Founding{Members: m.Volume.Founders, Token: m.Volume.Token}
	}
	return in
}

func usesIPv6(s *cluster.Snapshot) bool {
	return s.PeerService != nil && slices.Contains(s.PeerService.Spec.IPFamilies, "IPv6")
}

// stale reports whether the live object is not what the operator makes today. What cannot be compared counts as stale.
func stale(desired, live runtime.Object) bool {
	same, err := render.UpToDate(desired, live)
	return err != nil || !same
}
