package fake

import (
	"context"
	"errors"
	"testing"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
)

// joined returns three members and a learner that runs.
func joined(t *testing.T) (l lab, learner cluster.ID) {
	t.Helper()
	l = three(t)
	l.SetClock(nil)
	learner, err := l.AddLearner(address("prod-0"), peerURL("prod-3"))
	if err != nil {
		t.Fatal(err)
	}
	l.start(t, "prod-3")
	return l, learner
}

func (l lab) start(t *testing.T, name string) {
	t.Helper()
	initial := rules.Initial{State: StateExisting, Members: []string{"prod-0", "prod-1", "prod-2", "prod-3"}}
	if err := l.Start(t, name, initial); err != nil {
		t.Fatal(err)
	}
}

func (l lab) must(t *testing.T, name string) cluster.Probe {
	t.Helper()
	probe, err := l.Probe(t, name)
	if err != nil {
		t.Fatal(err)
	}
	return probe
}

func TestWithoutAClockPeersHaveBeenConnectedForLong(t *testing.T) {
	l := three(t)
	if _, err := l.AddLearner(address("prod-0"), peerURL("prod-3")); !errors.Is(err, etcd.ErrUnhealthy) {
		t.Errorf("with a clock: got %v", err)
	}
	l.SetClock(nil)
	if _, err := l.AddLearner(address("prod-0"), peerURL("prod-3")); err != nil {
		t.Errorf("without a clock: got %v", err)
	}
}

func TestAPartitionMakesConnectionsNew(t *testing.T) {
	l := three(t)
	for range 6 {
		l.Wait()
	}
	l.Heal(address("prod-1")) // it was not separated
	id, err := l.AddLearner(address("prod-0"), peerURL("prod-3"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(address("prod-0"), id); err != nil {
		t.Fatal(err)
	}
	l.Partition(address("prod-1"))
	l.Heal(address("prod-1"))
	for _, via := range []string{"prod-0", "prod-1"} {
		if _, err := l.AddLearner(address(via), peerURL("prod-3")); !errors.Is(err, etcd.ErrUnhealthy) {
			t.Errorf("through %s: got %v", via, err)
		}
	}
}

func TestALearnerThatLagsIsNotPromoted(t *testing.T) {
	l, learner := joined(t)
	l.Lag(address("prod-3"), true)
	for range 100 {
		if err := l.Put(t, "prod-0", "key", "value"); err != nil {
			t.Fatal(err)
		}
	}
	behind, ahead := l.must(t, "prod-3"), l.must(t, "prod-0")
	if behind.CommittedIndex+100 != ahead.CommittedIndex || behind.Leader == 0 {
		t.Errorf("it answers %+v, and a voter %+v", behind, ahead)
	}
	if err := l.Promote(address("prod-0"), learner); !errors.Is(err, etcd.ErrLearnerNotReady) {
		t.Errorf("while it lags: got %v", err)
	}
	l.Lag(address("prod-3"), false)
	if err := l.Promote(address("prod-0"), learner); err != nil {
		t.Errorf("after it caught up: got %v", err)
	}
	l.Lag(address("prod-3"), true)
	if err := l.Put(t, "prod-0", "key", "value"); err != nil {
		t.Fatal(err)
	}
	if voter := l.must(t, "prod-3"); voter.AppliedIndex != l.must(t, "prod-0").AppliedIndex || !voter.Linearizable {
		t.Errorf("a voter lags: %+v", voter)
	}
}

func TestALearnerThatLagsFromItsStartOnAnswersNothing(t *testing.T) {
	l := three(t)
	l.SetClock(nil)
	if _, err := l.AddLearner(address("prod-0"), peerURL("prod-3")); err != nil {
		t.Fatal(err)
	}
	l.Lag(address("prod-3"), true)
	l.start(t, "prod-3")
	if probe, err := l.Probe(t, "prod-3"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it answers %+v, %v", probe, err)
	}
	l.Lag(address("prod-3"), false)
	l.must(t, "prod-3")
}

func TestASecondVoterTakesTheQuorumAwayUntilItRuns(t *testing.T) {
	l := newLab()
	if err := l.Start(t, "prod-0", rules.Initial{State: StateNew, Members: []string{"prod-0"}, Token: "token"}); err != nil {
		t.Fatal(err)
	}
	if err := l.AddVoter(t, "prod-0", "prod-1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(t, "prod-0", "key", "value"); !errors.Is(err, etcd.ErrNoLeader) {
		t.Errorf("got %v", err)
	}
	if err := l.Start(t, "prod-1", rules.Initial{State: StateExisting, Members: []string{"prod-0", "prod-1"}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(t, "prod-1", "key", "value"); err != nil {
		t.Error(err)
	}
}

func TestARemovedMemberEndsOnceAPeerTellsIt(t *testing.T) {
	for name, test := range map[string]struct {
		leave, comeBack func(lab)
	}{
		"a partition": {
			func(l lab) { l.Partition(address("prod-2")) },
			func(l lab) { l.Heal(address("prod-2")) },
		},
		"a stop, and peers without a quorum": {
			func(l lab) { l.World.Stop(address("prod-2")) },
			func(l lab) {
				l.World.Stop(address("prod-1"))
				err := l.Start(t, "prod-2", rules.Initial{State: StateExisting, Members: []string{"prod-2"}})
				if !errors.Is(err, ErrRemoved) {
					t.Errorf("it starts: %v", err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := three(t)
			l.SetClock(nil)
			id := l.must(t, "prod-2").MemberID
			test.leave(l)
			if err := l.Remove(address("prod-0"), id); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Probe(t, "prod-2"); name == "a partition" && err != nil {
				t.Errorf("it learned of it behind the partition: %v", err)
			}
			test.comeBack(l)
			l.Ended(t, "prod-2")
		})
	}
}

func TestAChangeObeysItsContextAndFailsAsItIsTold(t *testing.T) {
	l, learner := joined(t)
	leader := "prod-0"
	for _, name := range []string{"prod-1", "prod-2"} {
		if probe := l.must(t, name); probe.Leader == probe.MemberID {
			leader = name
		}
	}
	probe := l.must(t, leader)
	to := etcd.Target{Endpoint: l.Endpoint(leader), ClusterID: probe.ClusterID, MemberID: probe.MemberID}
	calls := map[string]func(context.Context) error{
		"AddLearner": func(ctx context.Context) error {
			_, _, err := l.Changer().AddLearner(ctx, to, peerURL("prod-4"))
			return err
		},
		"Promote":      func(ctx context.Context) error { return l.Changer().Promote(ctx, to, learner) },
		"RemoveMember": func(ctx context.Context) error { return l.Changer().RemoveMember(ctx, to, learner) },
		"MoveLeader":   func(ctx context.Context) error { return l.Changer().MoveLeader(ctx, to, probe.MemberID) },
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls {
		if err := call(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%s fails with %v", name, err)
		}
	}
	cause := &etcd.TLSError{Err: errors.New("unknown authority")}
	l.Fail(address(leader), cause)
	for name, call := range calls {
		if err := call(t.Context()); !errors.Is(err, cause) {
			t.Errorf("%s fails with %v", name, err)
		}
	}
	l.Fail(address(leader), nil)
	for _, name := range []string{"MoveLeader", "Promote", "RemoveMember", "AddLearner"} {
		if err := calls[name](t.Context()); err != nil {
			t.Errorf("%s fails with %v", name, err)
		}
	}
}
