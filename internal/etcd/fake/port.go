package fake

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

var _ etcd.Port = (*World)(nil)

// Probe implements etcd.Port.
func (w *World) Probe(ctx context.Context, endpoint etcd.Endpoint) (cluster.Probe, error) {
	if err := ctx.Err(); err != nil {
		return cluster.Probe{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.running(endpoint.Address)
	if err != nil {
		return cluster.Probe{}, err
	}
	data := m.data
	learner := data.state.members[data.memberID].learner
	probe := cluster.Probe{
		ClusterID:    data.clusterID,
		MemberID:     data.memberID,
		Leader:       m.leader,
		Version:      m.version,
		Learner:      learner,
		Linearizable: m.leader != 0 && !learner,

		Term:           uint64(data.state.term),
		CommittedIndex: uint64(data.state.index),
		AppliedIndex:   uint64(data.state.index),
		Revision:       data.state.revision(),
	}
	m.tellVersions(&probe)
	if m.leader == 0 {
		probe.Errors = append(probe.Errors, ErrNoLeader.Error())
	}
	for _, alarm := range sortedAlarms(data.state) {
		probe.Errors = append(probe.Errors, fmt.Sprintf("memberID:%d alarm:%s", alarm.Member, alarm.Kind))
	}
	return probe, nil
}

// Membership implements etcd.Port.
func (w *World) Membership(ctx context.Context, endpoint etcd.Endpoint) (cluster.Membership, error) {
	if err := ctx.Err(); err != nil {
		return cluster.Membership{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(endpoint.Address)
	if err != nil {
		return cluster.Membership{}, err
	}
	s := m.data.state
	return cluster.Membership{ClusterID: m.data.clusterID, Members: list(s), Alarms: sortedAlarms(s)}, nil
}

// list returns the member list, ordered by ID.
func list(s *state) []cluster.EtcdMember {
	var members []cluster.EtcdMember
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		entry := s.members[id]
		members = append(members, cluster.EtcdMember{
			ID: id, Name: entry.name, PeerURLs: []string{entry.peerURL}, Learner: entry.learner, Started: entry.published,
		})
	}
	return members
}

func sortedAlarms(s *state) []cluster.Alarm {
	return slices.SortedFunc(maps.Keys(s.alarms), func(a, b cluster.Alarm) int {
		return cmp.Or(cmp.Compare(a.Member, b.Member), strings.Compare(string(a.Kind), string(b.Kind)))
	})
}
