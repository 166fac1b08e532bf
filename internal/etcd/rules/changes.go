package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

const e = "prod-4"

var five = []string{a, b, c, d, e}

// changes are the rules of a change: of the membership, or of the leader.
var changes = []rule{
	{"three voters must all have been connected for five seconds before a learner is added", addThree},
	{"of five voters four are enough to add a learner, and three are not", addFive},
	{"a single voter adds a learner at once", addAlone},
	{"a second learner is refused, and so is a second member of the same peer URL", oneLearner},
	{"a learner is promoted from 90% of the leader's log on, even if it has stopped", promotionGate},
	{"a member that does not exist is neither promoted nor removed, and a voter is not promoted", noSuchMember},
	{"a promotion whose answer was lost is refused when it is asked for again", promotedTwice},
	{"with one of three voters down, that one can be removed and a living one cannot", removeDead},
	{"the last voter is not removed", removeLast},
	{"a founder that never started counts as started and as down", unstartedFounder},
	{"a voter that was added and never started does not count as started, and bars removals", unstartedVoter},
	{"a learner can be removed with a voter down", removeLearner},
	{"the process of a removed member ends, and ends again whenever it is started", removedEnds},
	{"a member that was removed while it was stopped ends when it is started", removedWhileStopped},
	{"a leader that is removed ends, and the others elect another one", removeLeader},
	{"a leader hands over to a follower", handOver},
	{"a leader hands over neither to a learner nor to a voter that is down, and stays", handOverRefused},
	{"a member that is defragmented keeps its data and serves, and so it does if it is told so again, leader and follower", defragmentation},
	{"a change for another member is sent to nobody", wrongMember},
	{"nothing is changed through a member without a leader", changeWithoutLeader},
	{"a learner changes nothing, and a follower neither promotes nor hands over", askedLearner},
	{"every member applies what the leader commits, in the same term", indexes},
}

// target returns a member with the IDs that it answers with.
func (l *bench) target(name string) etcd.Target {
	l.t.Helper()
	probe := l.probe(name, "answers", func(cluster.Probe) bool { return true })
	return etcd.Target{Endpoint: l.Endpoint(name), ClusterID: probe.ClusterID, MemberID: probe.MemberID}
}

// leader waits until one of the members leads, and returns it and the others.
func (l *bench) leader(names ...string) (leader string, followers []string) {
	l.t.Helper()
	l.await("electing a leader", func() error {
		leader, followers = "", nil
		for _, name := range names {
			probe, err := l.Probe(l.t, name)
			if err != nil {
				return err
			}
			if probe.Leader != 0 && probe.Leader == probe.MemberID {
				leader = name
			} else {
				followers = append(followers, name)
			}
		}
		if leader == "" {
			return errors.New("no member leads")
		}
		return nil
	})
	return leader, followers
}

// foundLed starts three members and returns the leader and the followers.
func (l *bench) foundLed() (leader, follower, other string) {
	l.t.Helper()
	l.found()
	leader, followers := l.leader(three...)
	return leader, followers[0], followers[1]
}

// id returns the ID that the member list has for a member's peer URL.
func (l *bench) id(via, name string) cluster.ID {
	l.t.Helper()
	id := cluster.ID(0)
	l.await("finding "+name, func() error {
		membership, err := l.Membership(l.t, via)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(membership.Members, func(m cluster.EtcdMember) bool {
			return slices.Contains(m.PeerURLs, l.PeerURL(name))
		})
		if at < 0 {
			return fmt.Errorf("%s is not in %+v", name, membership.Members)
		}
		id = membership.Members[at].ID
		return nil
	})
	return id
}

func (l *bench) tryAdd(via, name string) (cluster.ID, []cluster.EtcdMember, error) {
	return l.Changer().AddLearner(l.t.Context(), l.target(via), l.PeerURL(name))
}

func (l *bench) tryPromote(via string, id cluster.ID) error {
	return l.Changer().Promote(l.t.Context(), l.target(via), id)
}

func (l *bench) tryRemove(via string, id cluster.ID) error {
	return l.Changer().RemoveMember(l.t.Context(), l.target(via), id)
}

func (l *bench) tryMove(via string, id cluster.ID) error {
	return l.Changer().MoveLeader(l.t.Context(), l.target(via), id)
}

// add adds a learner once enough peers have been connected for long enough, and checks the answer.
func (l *bench) add(via, name string) (id cluster.ID) {
	l.t.Helper()
	l.await("adding "+name, func() error {
		added, list, err := l.tryAdd(via, name)
		if err != nil {
			return err
		}
		if membership := l.members(via, len(list)); !sameMembers(membership.Members, list) {
			l.t.Fatalf("the answer is %+v, and the list %+v", list, membership.Members)
		}
		id = added
		return nil
	})
	if listed := l.id(via, name); listed != id || id == 0 {
		l.t.Fatalf("the answer has the ID %s, and the list %s", id, listed)
	}
	return id
}

func sameMembers(x, y []cluster.EtcdMember) bool {
	return slices.EqualFunc(x, y, func(m, n cluster.EtcdMember) bool {
		return m.ID == n.ID && m.Name == n.Name && slices.Equal(m.PeerURLs, n.PeerURLs) && m.Learner == n.Learner
	})
}

func (l *bench) promote(via string, id cluster.ID) {
	l.t.Helper()
	l.await("promoting", func() error { return l.tryPromote(via, id) })
}

func (l *bench) remove(via string, id cluster.ID) {
	l.t.Helper()
	l.await("removing", func() error { return l.tryRemove(via, id) })
}

// refused waits until a call fails as wanted. It must never succeed.
func (l *bench) refused(what string, want error, call func() error) {
	l.t.Helper()
	l.await(what, func() error {
		err := call()
		switch {
		case err == nil:
			l.t.Fatalf("%s succeeds", what)
		case !errors.Is(err, want):
			return fmt.Errorf("it fails with %w, and not with %w", err, want)
		case errors.Is(want, context.DeadlineExceeded):
		case err.Error() != want.Error():
			l.t.Fatalf("%s fails with the text %q, and not %q", what, err, want)
		}
		return nil
	})
}

func (l *bench) refusesAdd(via, name string, want error) {
	l.t.Helper()
	l.refused("adding "+name+" through "+via, want, func() error {
		_, _, err := l.tryAdd(via, name)
		return err
	})
}

func (l *bench) refusesPromotion(via string, id cluster.ID, want error) {
	l.t.Helper()
	l.refused("promoting through "+via, want, func() error { return l.tryPromote(via, id) })
}

func (l *bench) refusesRemoval(via string, id cluster.ID, want error) {
	l.t.Helper()
	l.refused("removing through "+via, want, func() error { return l.tryRemove(via, id) })
}

func (l *bench) refusesMove(via string, id cluster.ID, want error) {
	l.t.Helper()
	l.refused("handing over through "+via, want, func() error { return l.tryMove(via, id) })
}

// fill writes n keys, and so appends n entries to the log.
func (l *bench) fill(via string, n int) {
	l.t.Helper()
	for i := range n {
		l.put(via, strconv.Itoa(i), "value")
	}
}

// catchesUp waits until a member has applied what the leader has committed.
func (l *bench) catchesUp(name, leader string) {
	l.t.Helper()
	committed := l.probe(leader, "leads", func(p cluster.Probe) bool { return p.Leader == p.MemberID }).CommittedIndex
	l.probe(name, "catches up", func(p cluster.Probe) bool { return p.AppliedIndex >= committed })
}

func addThree(l *bench) {
	leader, follower, _ := l.foundLed()
	l.add(leader, d)
	l.remove(leader, l.id(leader, d))
	l.stop(follower)
	l.put(leader, "key", "value")
	l.refusesAdd(leader, d, etcd.ErrUnhealthy)
	l.members(leader, 3)
	begin := l.Now()
	l.startSelf(follower)
	l.add(leader, d)
	if took := l.Now().Sub(begin); took < 5*time.Second {
		l.t.Fatalf("the learner is added %s after %s was started", took, follower)
	}
}

func addFive(l *bench) {
	l.start(isNew(five...), five...)
	l.serves(five...)
	leader, followers := l.leader(five...)
	const f = "prod-5"
	l.stop(followers[0])
	l.put(leader, "key", "value")
	l.remove(leader, l.add(leader, f))
	l.stop(followers[1])
	l.put(leader, "key", "value")
	l.refusesAdd(leader, f, etcd.ErrUnhealthy)
	l.members(leader, 5)
}

func addAlone(l *bench) {
	l.start(isNew(a), a)
	l.serves(a)
	if _, _, err := l.tryAdd(a, b); err != nil {
		l.t.Fatal(err)
	}
}

func oneLearner(l *bench) {
	leader, _, _ := l.foundLed()
	id := l.add(leader, d)
	l.refusesAdd(leader, e, etcd.ErrTooManyLearners)
	l.refusesAdd(leader, d, etcd.ErrPeerURLExists) // as after a lost answer
	if l.id(leader, d) != id {
		l.t.Fatal("the learner has another ID")
	}
	l.members(leader, 4)
}

// The gate is on the whole log. A stopped learner that passes it makes a voter that is down.
func promotionGate(l *bench) {
	leader, _, _ := l.foundLed()
	l.fill(leader, 100)
	id := l.add(leader, d)
	l.refusesPromotion(leader, id, etcd.ErrLearnerNotReady)
	l.start(isExisting(a, b, c, d), d)
	l.catchesUp(d, leader)
	l.stop(d)
	l.fill(leader, 40)
	l.refusesPromotion(leader, id, etcd.ErrLearnerNotReady)
	l.startSelf(d)
	l.catchesUp(d, leader)
	l.stop(d)
	l.fill(leader, 5)
	l.promote(leader, id)
	for _, m := range l.members(leader, 4).Members {
		if m.Learner {
			l.t.Fatalf("%+v is still a learner", m)
		}
	}
}

func noSuchMember(l *bench) {
	leader, follower, _ := l.foundLed()
	l.refusesPromotion(leader, 0xbad, etcd.ErrMemberNotFound)
	l.refusesRemoval(leader, 0xbad, etcd.ErrMemberNotFound)
	l.refusesPromotion(leader, l.id(leader, follower), etcd.ErrNotLearner)
}

func promotedTwice(l *bench) {
	leader, _, _ := l.foundLed()
	id := l.add(leader, d)
	l.start(isExisting(a, b, c, d), d)
	l.promote(leader, id)
	l.refusesPromotion(leader, id, etcd.ErrNotLearner)
	l.serves(d)
}

func removeDead(l *bench) {
	leader, dead, living := l.foundLed()
	id := l.id(leader, dead)
	l.stop(dead)
	l.put(leader, "key", "value")
	l.refusesRemoval(leader, l.id(leader, living), etcd.ErrUnhealthy)
	l.remove(leader, id)
	l.refusesRemoval(leader, id, etcd.ErrMemberNotFound) // as after a lost answer
	l.members(leader, 2)
	l.holds(living, "key", "value")
}

func removeLast(l *bench) {
	l.start(isNew(a), a)
	id := l.serves(a).MemberID
	l.refusesRemoval(a, id, etcd.ErrNotEnoughStarted)
	l.members(a, 1)
}

func unstartedFounder(l *bench) {
	l.start(isNew(three...), a, b)
	leader, followers := l.leader(a, b)
	l.serves(a, b)
	l.refusesAdd(leader, d, etcd.ErrUnhealthy)
	l.refusesRemoval(leader, l.id(leader, followers[0]), etcd.ErrUnhealthy)
	l.remove(leader, l.id(leader, c))
	l.members(leader, 2)
}

func unstartedVoter(l *bench) {
	leader, follower, other := l.foundLed()
	l.await("adding a voter", func() error { return l.AddVoter(l.t, leader, d) })
	l.remove(leader, l.id(leader, follower))
	l.refusesRemoval(leader, l.id(leader, other), etcd.ErrNotEnoughStarted)
	l.remove(leader, l.id(leader, d))
	l.members(leader, 2)
}

func removeLearner(l *bench) {
	leader, follower, _ := l.foundLed()
	id := l.add(leader, d)
	l.stop(follower)
	l.put(leader, "key", "value")
	l.remove(leader, id)
	l.refusesRemoval(leader, id, etcd.ErrMemberNotFound)
	l.members(leader, 3)
}

// endsWhenStarted starts a removed member, whose process ends before or after its peers can reach it. It returns the
// end of its output.
func (l *bench) endsWhenStarted(name string) (output string) {
	l.t.Helper()
	if err := l.Start(l.t, name, isExisting(name)); err != nil {
		return err.Error()
	}
	return l.Ended(l.t, name)
}

func removedEnds(l *bench) {
	leader, follower, _ := l.foundLed()
	l.remove(leader, l.id(leader, follower))
	l.Ended(l.t, follower)
	l.endsWhenStarted(follower)
	l.endsWhenStarted(follower)
	l.members(leader, 2)
}

func removedWhileStopped(l *bench) {
	leader, follower, other := l.foundLed()
	id := l.id(leader, follower)
	l.stop(follower)
	l.put(leader, "key", "value")
	l.remove(leader, id)
	l.endsWhenStarted(follower)
	l.serves(leader, other)
}

func removeLeader(l *bench) {
	leader, follower, other := l.foundLed()
	l.put(leader, "key", "value")
	to := l.target(leader)
	l.await("removing the leader", func() error {
		err := l.Changer().RemoveMember(l.t.Context(), to, to.MemberID)
		if list, listed := l.Membership(l.t, follower); listed == nil && len(list.Members) == 2 {
			return nil // the process may end before it answers
		}
		return err
	})
	l.Ended(l.t, leader)
	l.leader(follower, other)
	l.holds(follower, "key", "value")
	l.members(other, 2)
}

func handOver(l *bench) {
	leader, follower, other := l.foundLed()
	id := l.id(leader, follower)
	before := l.serves(leader)
	l.await("handing over", func() error { return l.tryMove(leader, id) })
	for _, name := range []string{leader, follower, other} {
		l.probe(name, "has the new leader", func(p cluster.Probe) bool { return p.Leader == id && p.Term > before.Term })
	}
	l.refusesMove(leader, id, etcd.ErrNotLeader) // as after a lost answer
	if err := l.tryMove(follower, id); err != nil {
		l.t.Fatalf("handing over to itself: %v", err)
	}
	l.put(other, "key", "value")
}

func handOverRefused(l *bench) {
	leader, follower, _ := l.foundLed()
	learner := l.add(leader, d)
	l.refusesMove(leader, learner, etcd.ErrBadTransferee)
	l.refusesMove(leader, 0xbad, etcd.ErrBadTransferee)
	id := l.id(leader, follower)
	l.stop(follower)
	l.put(leader, "key", "value")
	l.refusesMove(leader, id, context.DeadlineExceeded)
	l.put(leader, "key", "other")
	if probe := l.serves(leader); probe.Leader != probe.MemberID {
		l.t.Fatalf("the leader answers %+v", probe)
	}
}

// calls are a change of each kind.
func (l *bench) calls(target etcd.Target, id cluster.ID) map[string]func() error {
	ctx := l.t.Context()
	return map[string]func() error{
		"adding a learner": func() error {
			_, _, err := l.Changer().AddLearner(ctx, target, l.PeerURL(e))
			return err
		},
		"promoting":     func() error { return l.Changer().Promote(ctx, target, id) },
		"removing":      func() error { return l.Changer().RemoveMember(ctx, target, id) },
		"handing over":  func() error { return l.Changer().MoveLeader(ctx, target, id) },
		"defragmenting": func() error { return l.Changer().Defragment(ctx, target) },
	}
}

// A defragmentation needs no leadership. The member answers again when the call returns.
func defragmentation(l *bench) {
	leader, follower, other := l.foundLed()
	l.put(leader, "key", "value")
	before := l.serves(leader)
	for _, name := range []string{follower, leader} {
		for range 2 { // as after a lost answer
			if err := l.Changer().Defragment(l.t.Context(), l.target(name)); err != nil {
				l.t.Fatalf("defragmenting %s: %v", name, err)
			}
			if probe := l.serves(name); probe.Leader != before.Leader || probe.Term != before.Term {
				l.t.Fatalf("%s answers %+v afterwards, and the leader %+v before", name, probe, before)
			}
			l.holds(name, "key", "value")
		}
	}
	l.put(other, "key", "another value")
	l.holds(follower, "key", "another value")
	l.members(leader, 3)
}

func wrongMember(l *bench) {
	leader, follower, _ := l.foundLed()
	l.await("connecting for long enough", func() error {
		_, _, err := l.tryAdd(leader, d)
		return err
	})
	right, id := l.target(leader), l.id(leader, follower)
	for text, wrong := range map[string]etcd.Target{
		"another cluster answers at the member's address": {Endpoint: right.Endpoint, ClusterID: right.ClusterID + 1, MemberID: right.MemberID},
		"another member answers at the member's address":  {Endpoint: right.Endpoint, ClusterID: right.ClusterID, MemberID: id},
	} {
		for what, call := range l.calls(wrong, id) {
			var wrongMember *etcd.WrongMemberError
			if err := call(); !errors.As(err, &wrongMember) || err.Error() != text || wrongMember.MemberID != right.MemberID {
				l.t.Errorf("%s: %v, want %q", what, err, text)
			}
		}
	}
	l.members(leader, 4)
	if probe := l.serves(leader); probe.Leader != right.MemberID {
		l.t.Errorf("the leader answers %+v", probe)
	}
}

func changeWithoutLeader(l *bench) {
	leader, follower, other := l.foundLed()
	id := l.id(leader, other)
	l.stop(leader, other)
	l.answersWithoutLeader(follower)
	for what, call := range l.calls(l.target(follower), id) {
		l.refused(what, etcd.ErrNoLeader, call)
	}
}

func askedLearner(l *bench) {
	leader, follower, _ := l.foundLed()
	id := l.add(leader, d)
	l.start(isExisting(a, b, c, d), d)
	l.catchesUp(d, leader)
	l.refusesAdd(d, e, etcd.ErrLearner)
	l.refusesRemoval(d, l.id(leader, follower), etcd.ErrLearner)
	l.refused("defragmenting "+d, etcd.ErrLearner, func() error { return l.Changer().Defragment(l.t.Context(), l.target(d)) })
	for _, name := range []string{d, follower} {
		l.refusesPromotion(name, id, etcd.ErrNotLeader)
		l.refusesMove(name, l.id(leader, follower), etcd.ErrNotLeader)
	}
	l.members(leader, 4)
}

func indexes(l *bench) {
	leader, _, _ := l.foundLed()
	before := l.serves(leader)
	l.fill(leader, 10)
	after := l.serves(leader)
	if after.CommittedIndex < before.CommittedIndex+10 || after.Term == 0 {
		l.t.Fatalf("the leader answers %+v after ten writes, and %+v before", after, before)
	}
	for _, name := range three {
		l.probe(name, "applies what the leader committed", func(p cluster.Probe) bool {
			return p.AppliedIndex >= after.CommittedIndex && p.CommittedIndex >= p.AppliedIndex && p.Term == after.Term
		})
	}
}
