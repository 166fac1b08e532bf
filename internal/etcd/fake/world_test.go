package fake

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
)

func TestTheModelKeepsTheRules(t *testing.T) {
	rules.Run(t, func(*testing.T) rules.Lab { return newLab() })
}

func TestTheModelKeepsTheRulesOfVersions(t *testing.T) {
	rules.RunVersions(t, func(*testing.T) rules.Lab { return newLab() })
}

// lab names the members of a World as rules does. Its time passes in Wait only.
type lab struct {
	*World
	now     *time.Time
	version *string
}

func newLab() lab {
	version := "3.6.16"
	l := lab{New(), &time.Time{}, &version}
	l.SetClock(l.Now)
	return l
}

func (l lab) Now() time.Time { return *l.now }
func (l lab) Wait()          { *l.now = l.now.Add(time.Second) }

// Patience is a little more than it takes until the cluster version, then the data's, have changed.
func (lab) Patience() time.Duration { return 2*versionInterval + 2*time.Second }

func address(name string) string { return name + ":2379" }
func peerURL(name string) string { return "http://" + name + ":2380" }

func (l lab) Start(_ *testing.T, name string, initial rules.Initial) error {
	list := map[string]string{}
	for _, member := range initial.Members {
		list[member] = peerURL(member)
	}
	return l.World.Start(StartOptions{
		Address: address(name), Name: name, PeerURL: peerURL(name), InitialCluster: list,
		State: initial.State, Token: initial.Token, Volume: "data-" + name, Version: *l.version,
	})
}

func (l lab) Use(_ *testing.T, version string) { *l.version = version }

func (l lab) Stop(_ *testing.T, name string) { l.World.Stop(address(name)) }
func (l lab) End(_ *testing.T, name string)  { l.World.Stop(address(name)) }
func (l lab) Wipe(_ *testing.T, name string) { l.World.Wipe("data-" + name) }
func (l lab) Put(_ *testing.T, via, key, value string) error {
	return l.World.Put(address(via), key, value)
}

func (l lab) Get(_ *testing.T, via, key string) (string, error) {
	return l.World.Get(address(via), key)
}

func (l lab) Changer() etcd.Changer              { return Changer{l.World} }
func (l lab) Hasher() etcd.Hasher                { return Changer{l.World} }
func (l lab) Endpoint(name string) etcd.Endpoint { return etcd.Endpoint{Address: address(name)} }
func (l lab) PeerURL(name string) string         { return peerURL(name) }

func (l lab) Ended(t *testing.T, name string) (output string) {
	t.Helper()
	if _, err := l.Probe(t, name); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("%s runs: %v", name, err)
	}
	return ""
}

func (l lab) AddVoter(_ *testing.T, via, name string) error {
	_, err := l.World.AddVoter(address(via), peerURL(name))
	return err
}

func (l lab) Raise(_ *testing.T, via string, alarm cluster.AlarmKind) error {
	return l.SetAlarm(address(via), alarm)
}

func (l lab) Compact(_ *testing.T, via string, revision int64) error {
	return l.World.Compact(address(via), revision)
}

func (l lab) Corrupt(_ *testing.T, name, _ string) { l.World.Corrupt("data-" + name) }

func (l lab) Probe(t *testing.T, name string) (cluster.Probe, error) {
	return l.World.Probe(t.Context(), etcd.Endpoint{Address: address(name)})
}

func (l lab) Membership(t *testing.T, via string) (cluster.Membership, error) {
	return l.World.Membership(t.Context(), etcd.Endpoint{Address: address(via)})
}

// AgreeOnVersion has nothing to wait for: the model's members know it at once.
func (lab) AgreeOnVersion(*testing.T, string) {}

func three(t *testing.T) lab {
	t.Helper()
	l := newLab()
	names := []string{"prod-0", "prod-1", "prod-2"}
	for _, name := range names {
		if err := l.Start(t, name, rules.Initial{State: StateNew, Members: names, Token: "token"}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l lab) leader(t *testing.T, name string) cluster.ID {
	t.Helper()
	probe, err := l.Probe(t, name)
	if err != nil {
		t.Fatal(err)
	}
	return probe.Leader
}

func TestAPartitionedMemberLosesItsLeaderAndTheOthersKeepOne(t *testing.T) {
	l := three(t)
	for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
		l.Partition(address(name))
		if leader := l.leader(t, name); leader != 0 {
			t.Errorf("%s has the leader %s behind a partition", name, leader)
		}
		other := map[string]string{"prod-0": "prod-1", "prod-1": "prod-2", "prod-2": "prod-0"}[name]
		if err := l.Put(t, other, "key", name); err != nil {
			t.Errorf("the others of %s do not write: %v", name, err)
		}
		l.Heal(address(name))
		if value, err := l.Get(t, name, "key"); err != nil || value != name {
			t.Errorf("%s reads %q, %v after the partition", name, value, err)
		}
	}
}

func TestAnotherMemberLeadsWhenTheLeaderStops(t *testing.T) {
	l := three(t)
	before, err := l.Probe(t, "prod-0")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
		if probe, _ := l.Probe(t, name); probe.MemberID == before.Leader {
			l.Stop(t, name)
			break
		}
	}
	for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
		if probe, err := l.Probe(t, name); err == nil && (probe.Leader == 0 || probe.Leader == before.Leader) {
			t.Errorf("%s has the leader %s after %s stopped", name, probe.Leader, before.Leader)
		}
	}
}

func TestAMemberKeepsItsPlaceUnderAnotherAddress(t *testing.T) {
	l := three(t)
	before, _ := l.Probe(t, "prod-1")
	l.Stop(t, "prod-1")
	err := l.World.Start(StartOptions{Address: "10.0.0.9:2379", Name: "prod-1", PeerURL: peerURL("prod-1"),
		InitialCluster: map[string]string{"prod-1": peerURL("prod-1")}, State: StateExisting, Volume: "data-prod-1"})
	if err != nil {
		t.Fatal(err)
	}
	after, err := l.World.Probe(t.Context(), etcd.Endpoint{Address: "10.0.0.9:2379"})
	if err != nil || after.MemberID != before.MemberID || !after.Linearizable {
		t.Fatalf("it answers %+v, %v; before %+v", after, err, before)
	}
}

func TestAVolumeIsUsedByOneMemberAtATime(t *testing.T) {
	l := three(t)
	if err := l.World.Start(StartOptions{Address: "10.0.0.9:2379", Name: "prod-1", Volume: "data-prod-1"}); err == nil {
		t.Fatal("two members run on one volume")
	}
}

func TestAMemberFailsAsItIsTold(t *testing.T) {
	l := three(t)
	cause := &etcd.TLSError{Err: errors.New("unknown authority")}
	l.Fail(address("prod-0"), cause)
	if _, err := l.Probe(t, "prod-0"); !errors.Is(err, cause) {
		t.Errorf("Probe fails with %v", err)
	}
	if _, err := l.Membership(t, "prod-0"); !errors.Is(err, cause) {
		t.Errorf("Membership fails with %v", err)
	}
	l.Fail(address("prod-0"), nil)
	if _, err := l.Probe(t, "prod-0"); err != nil {
		t.Errorf("Probe still fails with %v", err)
	}
}

func TestTheModelObeysItsContext(t *testing.T) {
	l := three(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	endpoint := etcd.Endpoint{Address: address("prod-0")}
	if _, err := l.World.Probe(ctx, endpoint); !errors.Is(err, context.Canceled) {
		t.Errorf("Probe fails with %v", err)
	}
	if _, err := l.World.Membership(ctx, endpoint); !errors.Is(err, context.Canceled) {
		t.Errorf("Membership fails with %v", err)
	}
}

func TestAClearedAlarmAllowsWritesAgain(t *testing.T) {
	l := three(t)
	if err := l.SetAlarm(address("prod-0"), cluster.AlarmNoSpace); err != nil {
		t.Fatal(err)
	}
	if err := l.ClearAlarm(address("prod-0"), cluster.AlarmNoSpace); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(t, "prod-1", "key", "value"); err != nil {
		t.Fatal(err)
	}
}
