package cluster

import (
	"slices"
	"strconv"
	"strings"
)

// NextNumber returns the number of the next member. It is above every number that was ever used: those of volumes and
// what they remember, of StatefulSets, of etcd's list, and the one noted on the Service of the peers, which outlives
// deleted volumes.
func (s *Snapshot) NextNumber() int {
	next := 0
	use := func(name string) {
		if n, ok := MemberNumber(s.Cluster.Name, name); ok {
			next = max(next, n+1)
		}
	}
	volumes := slices.Clone(s.RetainedVolumes)
	for _, m := range slices.Concat(s.Members, s.LeftOvers) {
		if use(m.Name); m.Volume != nil {
			volumes = append(volumes, *m.Volume)
		}
	}
	for i := range volumes { // founders are in no note, but on the volumes of the others
		for _, name := range slices.Concat(volumes[i].remembers(), volumes[i].Founders) {
			use(name)
		}
	}
	if s.Membership != nil {
		for i := range s.Membership.Members {
			e := &s.Membership.Members[i]
			use(e.Name)
			for _, url := range e.PeerURLs {
				use(s.memberAt(url))
			}
		}
	}
	return max(next, s.NotedNumber())
}

// NotedNumber returns the number of the next member that is noted on the Service of the peers; zero for none.
func (s *Snapshot) NotedNumber() int {
	if s.PeerService == nil {
		return 0
	}
	n, err := strconv.Atoi(s.PeerService.Annotations[AnnotationNextMember])
	if err != nil {
		return 0
	}
	return n
}

// UnnotedNumber returns the number of the next member where etcd's list has a member that was added later and whose
// number the Service of the peers does not note: the Service was made again without its volume. Otherwise it is zero.
func (s *Snapshot) UnnotedNumber() int {
	if s.Membership == nil || s.PeerService == nil {
		return 0
	}
	isFounder := func(name string) bool {
		return slices.ContainsFunc(s.Members, func(m Member) bool { return m.Volume != nil && slices.Contains(m.Volume.Founders, name) })
	}
	noted := s.NotedNumber()
	for i := range s.Membership.Members {
		for _, url := range s.Membership.Members[i].PeerURLs {
			name := s.memberAt(url)
			if n, is := MemberNumber(s.Cluster.Name, name); is && n >= noted && !isFounder(name) {
				return s.NextNumber()
			}
		}
	}
	return 0
}

// memberAt returns the name of the member that a peer URL of the operator's own form belongs to; empty for another URL.
func (s *Snapshot) memberAt(peerURL string) string {
	_, host, _ := strings.Cut(peerURL, "://")
	pod, _, _ := strings.Cut(host, ".")
	member, ok := strings.CutSuffix(pod, "-0")
	if _, isOurs := MemberNumber(s.Cluster.Name, member); !ok || !isOurs {
		return ""
	}
	fits := func(domain string) bool {
		return host == MemberHost(s.Cluster.Namespace, s.Cluster.Name, member, domain)+":"+strconv.Itoa(PeerPort)
	}
	if fits(s.Cluster.Spec.ClusterDomain) {
		return member
	}
	for i := range s.Members { // the members may have been made with another domain
		if w := s.Members[i].Workload; w != nil && fits(w.Intent.ClusterDomain) {
			return member
		}
	}
	return ""
}

// ForeignEntry returns a member of etcd's list that is not the operator's, nil where there is none: it has no volume of
// this cluster, and not only peer URLs of the operator's own form.
func (s *Snapshot) ForeignEntry() *EtcdMember {
	if s.Membership == nil {
		return nil
	}
	own := map[*EtcdMember]bool{}
	for i := range s.Members {
		m := &s.Members[i]
		e := s.EtcdEntry(m)
		isForm := e != nil && len(e.PeerURLs) > 0 && !slices.ContainsFunc(e.PeerURLs, func(url string) bool { return s.memberAt(url) != m.Name })
		if e != nil && (m.Volume != nil || isForm) {
			own[e] = true
		}
	}
	for i := range s.Membership.Members {
		if e := &s.Membership.Members[i]; !own[e] {
			return e
		}
	}
	return nil
}

// Learner returns the member that etcd's list has as a learner, nil where there is none. There is at most one.
func (s *Snapshot) Learner() *Member {
	for i := range s.Members {
		if e := s.EtcdEntry(&s.Members[i]); e != nil && e.Learner {
			return &s.Members[i]
		}
	}
	return nil
}

// Leader returns the member that leads, nil where none says so. A former leader that is cut off may still say it: the
// latest term decides.
func (s *Snapshot) Leader() *Member {
	var leader *Member
	for i := range s.Members {
		if m := &s.Members[i]; m.Leads() && (leader == nil || m.Probe.Term > leader.Probe.Term) {
			leader = m
		}
	}
	return leader
}

// Find returns a member, or what is left over under its name; nil where there is neither.
func (s *Snapshot) Find(name string) *Member {
	if m := s.Member(name); m != nil {
		return m
	}
	i := slices.IndexFunc(s.LeftOvers, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &s.LeftOvers[i]
}

// MemberList returns etcd's initial-cluster for a member that is added now: NAME=URL of every member in etcd's list.
// The names of members that have not started do not matter to etcd, which compares the URLs.
func (s *Snapshot) MemberList() string {
	if s.Membership == nil {
		return ""
	}
	var entries []string
	for i := range s.Membership.Members {
		e := &s.Membership.Members[i]
		for _, url := range e.PeerURLs {
			name := e.Name
			if name == "" {
				name = s.memberAt(url)
			}
			if name == "" {
				name = e.ID.String()
			}
			entries = append(entries, name+"="+url)
		}
	}
	slices.Sort(entries)
	return strings.Join(entries, ",")
}
