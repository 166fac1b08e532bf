package observe

import (
	"fmt"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

func TestRemembersSinceWhenAClusterHasNoLeader(t *testing.T) {
	s := newStage(t, 3)
	var leader cluster.ID
	for i, name := range []string{"prod-0", "prod-1", "prod-2"} {
		address := fmt.Sprintf("10.0.0.%d", i)
		id := cluster.ID(0xa0 + i)
		s.member(name, address, cluster.Probe{MemberID: id})
		s.answers[address+":2379"] = func() (cluster.Probe, error) {
			return cluster.Probe{ClusterID: 0xc1, MemberID: id, Leader: leader, Linearizable: leader != 0}, nil
		}
	}
	leader = 0xa0
	if got := s.observe(); !got.LeaderlessSince.IsZero() {
		t.Errorf("a cluster that serves has no leader since %v", got.LeaderlessSince)
	}
	leader = 0
	began := s.now
	for range 3 {
		if got := s.observe(); !got.LeaderlessSince.Equal(began) || !got.AwaitsElection() && s.now.Before(began.Add(3*time.Second)) {
			t.Errorf("after %v: no leader since %v, awaits an election: %v", s.now.Sub(began), got.LeaderlessSince, got.AwaitsElection())
		}
		s.now = s.now.Add(time.Second)
	}
	if s.observe().AwaitsElection() {
		t.Error("an election may take 3 s and longer")
	}
	leader = 0xa1
	s.observe()
	leader = 0
	if got := s.observe(); !got.LeaderlessSince.Equal(s.now) {
		t.Errorf("the next election began at %v, not at %v", got.LeaderlessSince, s.now)
	}
}
