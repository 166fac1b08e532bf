package cluster_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

func TestSortsMembersFromLeftOvers(t *testing.T) {
	volume := func(change func(*cluster.Volume)) Part {
		return Together(Volume, Recorded, Changed(func(m *cluster.Member) { change(m.Volume) }))
	}
	remembers := func(names ...string) Part { return volume(func(v *cluster.Volume) { v.Members = names }) }
	retired := volume(func(v *cluster.Volume) { v.Retired = true })
	joins := volume(func(v *cluster.Volume) {
		v.Founders, v.Members, v.JoinedCluster = nil, nil, "prod-0=http://a,prod-3=http://b"
	})
	entry := func(name string) cluster.EtcdMember { return cluster.EtcdMember{ID: 1, Name: name} }
	prod := func() *Builder { return MakeCluster("prod") }
	for name, c := range map[string]struct {
		found              *Builder
		etcd               []cluster.EtcdMember
		members, leftOvers []string
	}{
		"takes the founding list before etcd's was seen": {
			prod().Member("prod-1", Volume), nil, []string{"prod-0", "prod-1", "prod-2"}, nil,
		},
		"takes etcd's list where it is known": {
			prod().Members(Volume, Recorded), []cluster.EtcdMember{entry("prod-0"), entry("prod-1")},
			[]string{"prod-0", "prod-1"}, []string{"prod-2"},
		},
		"counts members that another client registered": {
			prod().Members(Volume, Recorded),
			[]cluster.EtcdMember{entry("prod-0"), entry("prod-1"), entry("prod-2"), entry("other"), {ID: 2, PeerURLs: []string{"http://new:2380"}}},
			[]string{"prod-0", "prod-1", "prod-2", "http://new:2380", "other"}, nil,
		},
		"finds a member that has not started by its peer URL": {
			prod().Members(Volume, Recorded),
			[]cluster.EtcdMember{entry("prod-0"), entry("prod-1"), {ID: 3, PeerURLs: []string{"http://prod-2-0.prod.shop.svc:2380"}}},
			[]string{"prod-0", "prod-1", "prod-2"}, nil,
		},
		"does not take a founder back that was removed": {
			prod().Member("prod-0", remembers("prod-0", "prod-1", "prod-3")).Member("prod-1", remembers("prod-0", "prod-1", "prod-3")),
			nil, []string{"prod-0", "prod-1", "prod-3"}, nil,
		},
		"joins the memories of all volumes": {
			prod().Member("prod-0", remembers("prod-0", "prod-1")).Member("prod-1", remembers("prod-0", "prod-1", "prod-3")),
			nil, []string{"prod-0", "prod-1", "prod-3"}, nil,
		},
		"remembers with the list that a member joined with": {
			prod().Member("prod-3", joins), nil, []string{"prod-0", "prod-3"}, nil,
		},
		"sets retired volumes apart, and does not believe them": {
			prod().Member("prod-0", remembers("prod-0", "prod-1")).Member("prod-1", retired), nil, []string{"prod-0"}, []string{"prod-1"},
		},
		"sets a StatefulSet apart that no volume remembers": {
			prod().Member("prod-0", remembers("prod-0")).Member("prod-7", Sealed), nil, []string{"prod-0"}, []string{"prod-7"},
		},
		"takes the StatefulSets where every volume is gone": {
			prod().Member("prod-0", Sealed).Member("prod-1", Sealed), nil, []string{"prod-0", "prod-1"}, nil,
		},
		"takes the StatefulSets where the only volume left is that of a new member that never started": {
			prod().Member("prod-0", Sealed).Member("prod-1", Together(Volume, Changed(func(m *cluster.Member) { m.Volume.Founders = nil }))),
			nil, []string{"prod-0", "prod-1"}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.found.Snapshot()
			s.Membership = nil
			if c.etcd != nil {
				s.Membership = &cluster.Membership{Members: c.etcd}
			}
			for range 2 { // sorting again changes nothing
				s.SortMembers()
				if diff := cmp.Diff(c.members, names(s.Members)); diff != "" {
					t.Errorf("members (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(c.leftOvers, names(s.LeftOvers)); diff != "" {
					t.Errorf("left-overs (-want +got):\n%s", diff)
				}
			}
			for i := range s.Members {
				if c.etcd != nil && s.EtcdEntry(&s.Members[i]) == nil {
					t.Errorf("%s has no entry in etcd's list", s.Members[i].Name)
				}
			}
		})
	}
}

func names(members []cluster.Member) []string {
	var list []string
	for _, m := range members {
		list = append(list, m.Name)
	}
	return list
}
