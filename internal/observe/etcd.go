package observe

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// What etcd may take of a pass, in which a worker is bound. A member of a tenant's image may hang in every call.
const (
	etcdTimeout = 5 * time.Second
	// probeTimeout bounds what one member may take to answer; it leaves time to read the membership.
	probeTimeout = 3 * time.Second
	// membershipVoters is how many voters may fail to tell the member list, asked one after the other.
	membershipVoters = 2
)

// observeEtcd asks all members at once, then reads the membership from the first voter that serves.
func (o *Observer) observeEtcd(ctx context.Context, s *cluster.Snapshot, credentials *etcd.Credentials) {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	var asked sync.WaitGroup
	for i := range min(len(s.Members), cluster.MaxMembers) {
		m := &s.Members[i]
		endpoint, ok := endpointOf(s, m, credentials)
		if !ok {
			continue
		}
		asked.Go(func() { m.Probe = o.probe(ctx, s, m, endpoint) })
	}
	asked.Wait()
	o.observeMembership(ctx, s, credentials)
	s.SortMembers()
}

// observeMembership reads etcd's list from the first voter that serves. A list counts if it names the member that was
// asked: a pod IP may have become another cluster's. So another cluster ID among the voters is checked as well.
// Voters whose cluster ID is recorded are asked first: no list names one whose claim lost its record.
func (o *Observer) observeMembership(ctx context.Context, s *cluster.Snapshot, credentials *etcd.Credentials) {
	isRecorded := func(m *cluster.Member) bool { return m.Volume != nil && m.Volume.ClusterID != 0 }
	var voters, unrecorded []*cluster.Member
	for i := range s.Members {
		switch m := &s.Members[i]; {
		case !m.IsHealthyVoter():
		case isRecorded(m):
			voters = append(voters, m)
		default:
			unrecorded = append(unrecorded, m)
		}
	}
	voters = append(voters, unrecorded...)
	left := membershipVoters
	for i, m := range voters {
		if s.Membership != nil && s.Membership.ClusterID == m.Probe.ClusterID {
			continue
		}
		var list *cluster.Membership
		if left > 0 {
			endpoint, _ := endpointOf(s, m, credentials)
			if list = o.membership(ctx, m, endpoint, min(left, len(voters)-i)); list == nil {
				left--
			}
		}
		isNamed := list != nil && list.Names(m)
		switch {
		case isNamed && s.Membership == nil:
			s.Membership = list
		case isNamed, isRecorded(m), list == nil && s.Membership == nil: // its own answer stays
		default:
			m.Probe = &cluster.Probe{Error: anotherCluster}
		}
	}
}

// membership asks a voter, and returns nil where it does not answer. The voters that are left share the time that is
// left.
func (o *Observer) membership(ctx context.Context, m *cluster.Member, endpoint etcd.Endpoint, left int) *cluster.Membership {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
	defer cancel()
	membership, err := o.Etcd.Membership(ctx, endpoint)
	if err != nil || membership.ClusterID != m.Probe.ClusterID {
		return nil
	}
	return &membership
}

func (o *Observer) probe(ctx context.Context, s *cluster.Snapshot, m *cluster.Member, endpoint etcd.Endpoint) *cluster.Probe {
	bounded, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	probe, err := o.Etcd.Probe(bounded, endpoint)
	var tlsFailure *etcd.TLSError
	switch {
	case errors.As(err, &tlsFailure):
		o.secrets.invalidate(s.Cluster.Key(), s.Now)
		return &cluster.Probe{Error: err.Error()}
	case err != nil:
		return &cluster.Probe{Error: err.Error()}
	case isForeignCluster(s, m, probe.ClusterID):
		return &cluster.Probe{Error: anotherCluster}
	case m.Volume != nil && m.Volume.MemberID != 0 && probe.MemberID != m.Volume.MemberID:
		return &cluster.Probe{Error: "another member answers at its address"}
	default:
		return &probe
	}
}

// anotherCluster is the error of a probe that a pod of another cluster answered. Pod IPs are used again.
const anotherCluster = "another cluster answers at its address"

// isForeignCluster reports whether an ID is not the one on the member's volume. Where that has none, it is compared
// with those on the other volumes.
func isForeignCluster(s *cluster.Snapshot, m *cluster.Member, id cluster.ID) bool {
	if m.Volume != nil && m.Volume.ClusterID != 0 {
		return id != m.Volume.ClusterID
	}
	var recorded []cluster.ID
	for i := range s.Members {
		if other := &s.Members[i]; other.Volume != nil && other.Volume.ClusterID != 0 {
			recorded = append(recorded, other.Volume.ClusterID)
		}
	}
	return len(recorded) > 0 && !slices.Contains(recorded, id)
}

// endpointOf returns where a member is asked. It returns false while its pod does not run, and without a certificate.
func endpointOf(s *cluster.Snapshot, m *cluster.Member, credentials *etcd.Credentials) (etcd.Endpoint, bool) {
	if !m.Pod.IsRunning() || m.Pod.IP == "" || m.Workload == nil || m.Pod.NodeLost {
		return etcd.Endpoint{}, false
	}
	endpoint := etcd.Endpoint{Address: net.JoinHostPort(m.Pod.IP, strconv.Itoa(cluster.ClientPort)), AtRest: isAtRest(s)}
	if m.Workload.Intent.ServerSecret == "" {
		return endpoint, true
	}
	endpoint.ServerName = cluster.MemberHost(s.Cluster.Namespace, s.Cluster.Name, m.Name, m.Workload.Intent.ClusterDomain)
	endpoint.Credentials = credentials
	return endpoint, credentials != nil
}

// Endpoint returns where a member is asked, with the credentials that the last pass read.
func (o *Observer) Endpoint(s *cluster.Snapshot, m *cluster.Member) (etcd.Endpoint, bool) {
	return endpointOf(s, m, o.secrets.credentialsOf(s.Cluster.Key()))
}

// isAtRest reports whether no member is to run another version of etcd, and no operation or downgrade is under way.
func isAtRest(s *cluster.Snapshot) bool {
	c := s.Cluster
	return c.Status.Operation == nil && c.Status.Version == c.Spec.Version &&
		(s.PeerService == nil || s.PeerService.Annotations[cluster.AnnotationDowngrade] == "") &&
		!slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Workload != nil && m.Workload.Intent.Version != c.Spec.Version })
}
