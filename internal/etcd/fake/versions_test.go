package fake

import (
	"errors"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// upgraded starts three members of 3.6 that are 3.7 since now.
func upgraded(t *testing.T) lab {
	t.Helper()
	l := three(t)
	l.pass(versionInterval)
	for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
		l.Stop(t, name)
		l.startAs(t, name, "3.7.3")
	}
	return l
}

func (l lab) startAs(t *testing.T, name, version string) {
	t.Helper()
	err := l.World.Start(StartOptions{Address: address(name), Name: name, PeerURL: peerURL(name), Volume: "data-" + name, Version: version})
	if err != nil {
		t.Fatal(err)
	}
}

// pass lets time pass.
func (l lab) pass(d time.Duration) { *l.now = l.now.Add(d) }

func (l lab) probe(t *testing.T, name string) cluster.Probe {
	t.Helper()
	probe, err := l.Probe(t, name)
	if err != nil {
		t.Fatal(err)
	}
	return probe
}

func TestTheClusterVersionFollowsAfterFourSecondsAndTheDataAfterFourMore(t *testing.T) {
	l := upgraded(t)
	for _, step := range []struct {
		after            time.Duration
		cluster, storage string
	}{
		{0, "3.6", "3.6"}, {versionInterval - 1, "3.6", "3.6"}, {1, "3.7", "3.6"}, {versionInterval - 1, "3.7", "3.6"}, {1, "3.7", "3.7"},
	} {
		l.pass(step.after)
		for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
			if probe := l.probe(t, name); probe.ClusterVersion != step.cluster || probe.StorageVersion != step.storage {
				t.Errorf("%s after %s more: got %+v, want %s and %s", name, step.after, probe, step.cluster, step.storage)
			}
		}
	}
}

func TestANewLeaderRaisesTheClusterVersionAtOnce(t *testing.T) {
	l := upgraded(t)
	for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
		probe := l.probe(t, name)
		if probe.Leader == probe.MemberID {
			continue
		}
		for _, leader := range []string{"prod-0", "prod-1", "prod-2"} {
			to := l.probe(t, leader)
			if to.MemberID != probe.Leader {
				continue
			}
			target := etcd.Target{Endpoint: l.Endpoint(leader), ClusterID: to.ClusterID, MemberID: to.MemberID}
			if err := l.Changer().MoveLeader(t.Context(), target, probe.MemberID); err != nil {
				t.Fatal(err)
			}
		}
		break
	}
	if probe := l.probe(t, "prod-0"); probe.ClusterVersion != "3.7" {
		t.Errorf("got %+v", probe)
	}
}

func TestWithoutAClockTheVersionsFollowAtOnce(t *testing.T) {
	l := newLab()
	l.SetClock(nil)
	list := map[string]string{"prod-0": peerURL("prod-0")}
	o := StartOptions{Address: address("prod-0"), Name: "prod-0", PeerURL: list["prod-0"], InitialCluster: list, State: StateNew, Volume: "data-prod-0"}
	for _, step := range []struct{ version, want string }{{"", "3.6"}, {"3.7.0", "3.7"}} {
		l.World.Stop(o.Address)
		o.Version = step.version
		if err := l.World.Start(o); err != nil {
			t.Fatal(err)
		}
		if probe := l.probe(t, "prod-0"); probe.ClusterVersion != step.want || probe.StorageVersion != step.want {
			t.Errorf("got %+v, want %s", probe, step.want)
		}
	}
}

func TestABinaryDoesNotReadDataThatAreNotLoweredYet(t *testing.T) {
	l := upgraded(t)
	l.pass(versionInterval)
	l.probe(t, "prod-0") // raises the cluster version
	l.pass(versionInterval)
	leader := ""
	for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
		if probe := l.probe(t, name); probe.Leader == probe.MemberID {
			leader = name
		}
	}
	to := l.probe(t, leader)
	target := etcd.Target{Endpoint: l.Endpoint(leader), ClusterID: to.ClusterID, MemberID: to.MemberID}
	if err := l.Changer().EnableDowngrade(t.Context(), target, "3.6"); err != nil {
		t.Fatal(err)
	}
	l.pass(versionInterval)
	if probe := l.probe(t, leader); probe.ClusterVersion != "3.6" || probe.StorageVersion != "3.7" {
		t.Fatalf("got %+v", probe)
	}
	o := StartOptions{Address: address(leader), Name: leader, PeerURL: peerURL(leader), Volume: "data-" + leader, Version: "3.6.16"}
	l.Stop(t, leader)
	if err := l.World.Start(o); !errors.Is(err, ErrNewData) {
		t.Fatalf("it starts before its data are lowered: %v", err)
	}
	l.startAs(t, leader, "3.7.3")
	l.pass(versionInterval)
	l.probe(t, leader)
	l.Stop(t, leader)
	if err := l.World.Start(o); err != nil {
		t.Fatalf("it does not start afterwards: %v", err)
	}
}
