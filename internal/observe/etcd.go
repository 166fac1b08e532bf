package observe

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// observeEtcd asks all members at once, then reads the membership from the first voter that serves.
func (o *Observer) observeEtcd(ctx context.Context, s *cluster.Snapshot, credentials *etcd.Credentials) {
	var asked sync.WaitGroup
	for i := range s.Members {
		m := &s.Members[i]
		endpoint, ok := endpointOf(s, m, credentials)
		if !ok {
			continue
		}
		asked.Go(func() { m.Probe = o.probe(ctx, s, m, endpoint) })
	}
	asked.Wait()
	for i := range s.Members {
		m := &s.Members[i]
		if !m.Probe.Answered() || !m.Probe.Linearizable || m.Probe.Learner {
			continue
		}
		endpoint, _ := endpointOf(s, m, credentials)
		bounded, cancel := context.WithTimeout(ctx, probeTimeout)
		membership, err := o.Etcd.Membership(bounded, endpoint)
		cancel()
		if err == nil && membership.ClusterID == m.Probe.ClusterID {
			s.Membership = &membership
			return
		}
	}
}

func (o *Observer) probe(ctx context.Context, s *cluster.Snapshot, m *cluster.Member, endpoint etcd.Endpoint) *cluster.Probe {
	bounded, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	probe, err := o.Etcd.Probe(bounded, endpoint)
	var tlsFailure *etcd.TLSError
	switch {
	case errors.As(err, &tlsFailure):
		o.secrets.distrust(s.Cluster.Key(), s.Now)
		return &cluster.Probe{Error: err.Error()}
	case err != nil:
		return &cluster.Probe{Error: err.Error()}
	case m.Volume.Started() && probe.ClusterID == m.Volume.ClusterID && probe.MemberID != m.Volume.MemberID:
		return &cluster.Probe{Error: "another member answers at its address"}
	default:
		return &probe
	}
}

// endpointOf returns where a member is asked, and false where there is nobody to ask or no certificate to ask with.
func endpointOf(s *cluster.Snapshot, m *cluster.Member, credentials *etcd.Credentials) (etcd.Endpoint, bool) {
	if m.Pod == nil || m.Pod.IP == "" || m.Workload == nil || m.Pod.NodeLost {
		return etcd.Endpoint{}, false
	}
	endpoint := etcd.Endpoint{Address: net.JoinHostPort(m.Pod.IP, strconv.Itoa(cluster.ClientPort))}
	if m.Workload.Intent.ServerSecret == "" {
		return endpoint, true
	}
	endpoint.ServerName = cluster.MemberHost(s.Cluster.Namespace, s.Cluster.Name, m.Name, m.Workload.Intent.ClusterDomain)
	endpoint.Credentials = credentials
	return endpoint, credentials != nil
}
