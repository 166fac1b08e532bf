package observe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// slowPort answers late, or not before the call's context ends.
type slowPort struct {
	probes, memberships func(address string) time.Duration

	mu    sync.Mutex
	asked []string
}

func (p *slowPort) wait(ctx context.Context, delay time.Duration) error {
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Probe implements etcd.Port.
func (p *slowPort) Probe(ctx context.Context, e etcd.Endpoint) (cluster.Probe, error) {
	return cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true}, p.wait(ctx, p.probes(e.Address))
}

// Membership implements etcd.Port.
func (p *slowPort) Membership(ctx context.Context, e etcd.Endpoint) (cluster.Membership, error) {
	p.mu.Lock()
	p.asked = append(p.asked, e.Address)
	p.mu.Unlock()
	delay := p.memberships(e.Address)
	if delay < 0 {
		return cluster.Membership{}, errors.New("the connection was closed")
	}
	host, _, _ := strings.Cut(e.Address, ":")
	return listOf("prod-"+host[len(host)-1:], 0xa0), p.wait(ctx, delay)
}

// listOf is the member list of a cluster of one.
func listOf(name string, id cluster.ID) cluster.Membership {
	url := render.PeerURL(clustertest.MakeCluster("prod").Snapshot().Cluster, name, cluster.Intent{})
	return cluster.Membership{ClusterID: 0xc1, Members: []cluster.EtcdMember{{ID: id, Name: name, PeerURLs: []string{url}}}}
}

func always(d time.Duration) func(string) time.Duration {
	return func(string) time.Duration { return d }
}

func TestEtcdTakesFiveSecondsOfAPassAtMost(t *testing.T) {
	const first = "10.0.0.0:2379"
	firstHangs := func(address string) time.Duration {
		if address == first {
			return time.Hour
		}
		return 0
	}
	for name, test := range map[string]struct {
		probes, memberships func(string) time.Duration
		asked               int // voters that are asked for the member list
		known               bool
	}{
		"every member answers": {always(0), always(0), 1, true},
		"every member hangs":   {always(time.Hour), always(0), 0, false},
		"every member answers late and hangs in the next call": {always(2900 * time.Millisecond), always(time.Hour), 2, false},
		"every member hangs in the member list":                {always(0), always(time.Hour), 2, false},
		"every member refuses the member list":                 {always(0), always(-1), 2, false},
		"one member hangs in the member list":                  {always(0), firstHangs, 2, true},
		"one member hangs in its status":                       {firstHangs, always(0), 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				port := &slowPort{probes: test.probes, memberships: test.memberships}
				s := newStage(t, 3)
				s.observer = &Observer{Etcd: port, Now: time.Now}
				for n := range 5 {
					s.member(fmt.Sprintf("prod-%d", n), fmt.Sprintf("10.0.0.%d", n), cluster.Probe{MemberID: 0xa0})
				}
				begin := time.Now()
				snapshot := s.observe()
				if took := time.Since(begin); took > 5*time.Second {
					t.Errorf("the pass takes %s", took)
				}
				if len(port.asked) != test.asked {
					t.Errorf("%q are asked for the member list, want %d", port.asked, test.asked)
				}
				if known := snapshot.Membership != nil; known != test.known {
					t.Errorf("the member list is known: %v, want %v", known, test.known)
				}
			})
		})
	}
}

func TestAClusterThatHangsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hostile, honest := newStage(t, 1), newStage(t, 1)
		port := &slowPort{memberships: always(0), probes: func(address string) time.Duration {
			if address == "10.0.1.0:2379" {
				return time.Hour
			}
			return 0
		}}
		hostile.observer = &Observer{Etcd: port, Now: time.Now}
		honest.observer = hostile.observer
		hostile.member("prod-0", "10.0.1.0", cluster.Probe{MemberID: 0xa0})
		honest.member("prod-0", "10.0.2.0", cluster.Probe{MemberID: 0xa0})
		begin := time.Now()
		done := make(chan struct{})
		go func() { hostile.observe(); close(done) }()
		synctest.Wait() // until the first pass hangs in etcd
		if snapshot := honest.observe(); snapshot.Outlook().Healthy != 1 || time.Since(begin) > 0 {
			t.Errorf("%d members serve after %s", snapshot.Outlook().Healthy, time.Since(begin))
		}
		<-done
	})
}

func TestAsksABoundedNumberOfMembers(t *testing.T) {
	s := newStage(t, 3)
	var mu sync.Mutex
	asked := 0
	s.observer = &Observer{Now: time.Now, Etcd: &slowPort{memberships: always(0), probes: func(string) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return 0
	}}}
	for n := range 70 {
		s.member(fmt.Sprintf("prod-%d", n), fmt.Sprintf("10.0.0.%d", n), cluster.Probe{MemberID: 0xa0})
	}
	s.observe()
	if asked != cluster.MaxMembers {
		t.Errorf("%d members are asked", asked)
	}
}
