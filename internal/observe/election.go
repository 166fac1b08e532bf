package observe

import (
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// observeElection remembers since when each cluster has no leader.
func (o *Observer) observeElection(s *cluster.Snapshot) {
	if !s.IsLeaderless() {
		o.leaderless.Delete(s.Cluster.Key())
		return
	}
	since, _ := o.leaderless.LoadOrStore(s.Cluster.Key(), s.Now)
	s.LeaderlessSince = since.(time.Time)
}
