package analyse

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// upkeepOf lists the harmless writes that a cluster needs: the memory on its volumes and templates that fail closed, which
// no other write may hold up, then its Services and PodDisruptionBudget. A cluster that has nothing yet, and is not about to be started, needs none.
func upkeepOf(s *cluster.Snapshot, d *Decision) []Upkeep {
	if (len(s.Members) == 0 && !d.Progressing) || refusalsOf(s, oneClusterID, operationKnown) != nil {
		return nil
	}
	var list []Upkeep
	for i := range s.Members {
		list = append(list, memberUpkeep(s, &s.Members[i])...)
	}
	list = append(list, objectUpkeep(s, membersToBe(s, d))...)
	list = append(list, certificateUpkeep(s)...)
	return slices.DeleteFunc(list, func(u Upkeep) bool { return touchesForeignObject(s, u) })
}

// touchesForeignObject reports whether a write is to an object that is somebody else's, or rests on one. The others are not held up:
// certificates that nobody renews end the cluster.
func touchesForeignObject(s *cluster.Snapshot, u Upkeep) bool {
	stranger := func(kind, name string) bool {
		return slices.ContainsFunc(s.ForeignObjects, func(x cluster.ForeignObject) bool { return x.Kind == kind && x.Name == name })
	}
	name := s.Cluster.Name
	switch u := u.(type) {
	case EnsurePeerService:
		return stranger("Service", cluster.PeerServiceName(name))
	case EnsureClientService:
		return stranger("Service", cluster.ClientServiceName(name))
	case EnsureBudget:
		return stranger("PodDisruptionBudget", name)
	case WriteAuthority:
		return stranger("Secret", cluster.AuthorityName(name, u.Traffic))
	case WriteCertificate:
		return stranger("Secret", cluster.CertificateName(name, u.Role)) || stranger("Secret", cluster.AuthorityName(name, u.Traffic))
	case EnsureCertManagerCertificate: // cert-manager would write to the Secret
		return stranger("Secret", cluster.CertificateName(name, u.Role)) || stranger("Certificate", cluster.CertificateName(name, u.Role))
	case RemoveBudget, RecordMember, CorrectWorkload, SealPod, TellPod, SetRetention: // to objects that were found to be the cluster's own
	}
	return false
}

// membersToBe is how many members there are, or will be where there are none yet.
func membersToBe(s *cluster.Snapshot, d *Decision) int {
	if len(s.Members) > 0 {
		return len(s.Members)
	}
	if takeBack, ok := d.Action.(TakeBackVolumes); ok {
		return len(takeBack.Volumes[0].Founders)
	}
	return int(s.Cluster.Spec.Replicas)
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
	started := m.Volume.Started() || (m.Volume == nil && s.Founded()) // a lost volume is never made again: an empty one is not a beginning
	if m.Volume == nil && !started {
		return nil
	}
	if recordable(s, m) {
		started = true
		version := cmp.Or(m.Probe.Version, m.Volume.Version) // a member whose version is unknown keeps the last known one
		if !m.Volume.Started() || m.Volume.Version != version {
			list = append(list, RecordMember{
				Member: m.Name, Volume: m.Volume.Name, ResourceVersion: m.Volume.ResourceVersion,
				ClusterID: m.Probe.ClusterID, MemberID: m.Probe.MemberID, Version: version,
			})
		}
	}
	if len(list) == 0 && retentionDiffers(s, m.Volume) {
		list = append(list, SetRetention{
			Member: m.Name, Volume: m.Volume.Name, ResourceVersion: m.Volume.ResourceVersion, Delete: cluster.DeletesVolumes(s.Cluster),
		})
	}
	if m.Workload != nil && !m.Workload.Deleting && workloadStale(s, m, started) {
		list = append(list, CorrectWorkload{Member: m.Name, Intent: m.Workload.Intent.WithAuthorities(s), Started: started})
	}
	if m.Pod != nil && !m.Pod.Deleting && started && m.Pod.FoundingState == "new" {
		list = append(list, SealPod{Member: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID, Intent: settledIntent(s)})
	}
	return list
}

// retentionDiffers reports whether the volume would stay where it is to go with the cluster, or the other way round.
func retentionDiffers(s *cluster.Snapshot, v *cluster.Volume) bool {
	return v != nil && !v.Deleting && (v.DeletedWith == s.Cluster.UID) != cluster.DeletesVolumes(s.Cluster)
}

// recordable reports whether etcd's own member list, read from a voter, names this member at this peer URL with the
// ID that its pod reported: an address that was handed to another cluster's pod cannot pass.
func recordable(s *cluster.Snapshot, m *cluster.Member) bool {
	if m.Volume == nil || !m.Probe.Answered() || s.Membership == nil || s.Membership.ClusterID != m.Probe.ClusterID {
		return false
	}
	if m.Volume.Started() && m.Volume.MemberID != m.Probe.MemberID {
		return false
	}
	return slices.ContainsFunc(s.Membership.Members, func(e cluster.EtcdMember) bool {
		return e.ID == m.Probe.MemberID && e.Name == m.Name && slices.Contains(e.PeerURLs, m.Volume.PeerURL)
	})
}

func workloadStale(s *cluster.Snapshot, m *cluster.Member, started bool) bool {
	return stale(render.MemberStatefulSet(MemberInput(s, m.Name, m.Workload.Intent.WithAuthorities(s), started)), m.Workload.Live)
}

// MemberInput is what a member's StatefulSet is rendered from: in its started form, or with the founding list.
func MemberInput(s *cluster.Snapshot, name string, intent cluster.Intent, started bool) render.MemberInput {
	in := render.MemberInput{Cluster: s.Cluster, Name: name, Intent: intent, IPv6: usesIPv6(s)}
	m := s.Member(name)
	if !started && m != nil && m.Volume != nil {
		in.Founding = &render.Founding{Members: m.Volume.Founders, Token: m.Volume.Token}
	}
	if m != nil && m.Workload != nil && m.Workload.Live != nil {
		in.HealthyIntent = m.Workload.Live.Annotations[cluster.AnnotationHealthyIntent]
	}
	return in
}

// usesIPv6 asks the Service that gave the members their addresses, or, while it is gone, what they were made with.
func usesIPv6(s *cluster.Snapshot) bool {
	if s.PeerService != nil {
		return slices.Contains(s.PeerService.Spec.IPFamilies, corev1.IPv6Protocol)
	}
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Workload != nil && m.Workload.Live != nil && render.BindsIPv6(m.Workload.Live)
	})
}

// stale reports whether the live object is not what the operator makes today. What cannot be compared counts as stale.
func stale(desired, live runtime.Object) bool {
	same, err := render.UpToDate(desired, live)
	return err != nil || !same
}
