package cluster

import (
	"cmp"
	"slices"
	"strings"
)

// Membership is etcd's member list as a voter knows it.
type Membership struct {
	ClusterID ID
	Members   []EtcdMember
	Alarms    []Alarm
}

// EtcdMember is one entry of etcd's member list; its name is empty until it has started.
type EtcdMember struct {
	ID       ID
	Name     string
	PeerURLs []string
	Learner  bool
	// Started tells that the member has published its client URLs. A member does it once, when it first has a leader.
	Started bool
}

// entry returns the entry of a member, nil where the list has none. The peer URL comes before the name: anybody who can
// register a member can give it any name. An entry has no name until its member has started.
func (l *Membership) entry(m *Member) *EtcdMember {
	if l == nil {
		return nil
	}
	var named *EtcdMember
	for i := range l.Members {
		e := &l.Members[i]
		switch {
		case m.Volume != nil && m.Volume.PeerURL != "" && slices.Contains(e.PeerURLs, m.Volume.PeerURL):
			return e
		case named == nil && (e.Name == m.Name || e.Name == "" && m.Name == e.otherName()):
			named = e
		}
	}
	return named
}

// otherName names an entry without a name by its first peer URL, which no object of the cluster has as its name.
func (e *EtcdMember) otherName() string {
	if len(e.PeerURLs) == 0 {
		return e.ID.String()
	}
	return e.PeerURLs[0]
}

// Names reports whether the list has the member at its peer URL under the ID that it answered with.
// The answer of another cluster's pod, at an address that was the member's before, cannot pass.
func (l *Membership) Names(m *Member) bool {
	e := l.entry(m)
	return l.IsAnswerOf(e, m) && m.Volume != nil && slices.Contains(e.PeerURLs, m.Volume.PeerURL)
}

// IsAnswerOf reports whether a member answered under the ID of an entry of the list, and of the list's cluster. There
// may be no such entry.
func (l *Membership) IsAnswerOf(e *EtcdMember, m *Member) bool {
	return e != nil && m.Answers() && l.ClusterID == m.Probe.ClusterID && e.ID == m.Probe.MemberID
}

// EtcdEntry returns the member's entry in etcd's list, nil where it has none or etcd was not asked.
// One that has not started and lost its volume is found by a peer URL of the operator's own form.
func (s *Snapshot) EtcdEntry(m *Member) *EtcdMember {
	if e := s.Membership.entry(m); e != nil || s.Membership == nil {
		return e
	}
	for i := range s.Membership.Members {
		if e := &s.Membership.Members[i]; e.Name == "" && len(e.PeerURLs) == 1 && s.memberAt(e.PeerURLs[0]) == m.Name {
			return e
		}
	}
	return nil
}

// SortMembers sorts all that was found into Members and LeftOvers, both ordered by number. The members are those of
// etcd's list. While no voter answers, they are those that the volumes remember: too many rather than too few, because
// more members make a larger quorum. A member without any object of this cluster stands for itself.
// The objects of a name that is no member are left over.
func (s *Snapshot) SortMembers() {
	found := slices.Concat(s.Members, s.LeftOvers)
	s.Members, s.LeftOvers = nil, nil
	members := map[string]bool{}
	for _, name := range s.memberNames(found) {
		members[name] = true
	}
	for _, m := range found {
		switch {
		case members[m.Name]:
			s.Members = append(s.Members, m)
			delete(members, m.Name)
		case m.Volume != nil || m.Workload != nil:
			s.LeftOvers = append(s.LeftOvers, m)
		}
	}
	for name := range members {
		s.Members = append(s.Members, Member{Name: name})
	}
	byNumber := func(x, y Member) int { return CompareMembers(s.Cluster.Name, x.Name, y.Name) }
	slices.SortFunc(s.Members, byNumber)
	slices.SortFunc(s.LeftOvers, byNumber)
}

func (s *Snapshot) memberNames(found []Member) []string {
	var names []string
	if s.Membership != nil {
		for i := range s.Membership.Members {
			e := &s.Membership.Members[i]
			name := e.otherName()
			if len(e.PeerURLs) == 1 {
				name = cmp.Or(s.memberAt(e.PeerURLs[0]), name)
			}
			name = cmp.Or(e.Name, name)
			if at := slices.IndexFunc(found, func(m Member) bool { return s.Membership.entry(&m) == e }); at >= 0 {
				name = found[at].Name
			}
			names = append(names, name)
		}
		return names
	}
	var volumes []Volume
	for _, m := range found {
		if m.Volume != nil {
			volumes = append(volumes, *m.Volume)
		}
	}
	names = RememberedMembers(volumes)
	if slices.ContainsFunc(volumes, func(v Volume) bool { return !v.Retired && (v.Started() || len(v.Founders) > 0) }) {
		return names
	}
	for _, m := range found { // those that are left remember only members that were added, if any
		if m.Workload != nil && m.Volume == nil {
			names = append(names, m.Name)
		}
	}
	return names
}

// RememberedMembers returns the names of the members that the volumes remember. What a retired volume remembers does
// not count, and its own member is none.
func RememberedMembers(volumes []Volume) []string {
	var names []string
	retired := map[string]bool{}
	for i := range volumes {
		if v := &volumes[i]; v.Retired {
			retired[v.Member] = true
		} else {
			names = append(names, v.remembers()...)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return retired[name] })
}

// remembers returns the names of the members that the volume knows of, its own included. Before etcd's list was seen
// from it, they are those that it was made to start with.
func (v *Volume) remembers() []string {
	names := append([]string{v.Member}, v.Members...)
	if len(v.Members) > 0 {
		return names
	}
	for _, entry := range strings.Split(v.JoinedCluster, ",") {
		if name, _, ok := strings.Cut(entry, "="); ok {
			names = append(names, name)
		}
	}
	return append(names, v.Founders...)
}
