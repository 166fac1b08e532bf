// Package rules holds the facts of etcd that the design relies on, as tests.
// Every test run checks them against the model. The integration suite checks them against real processes of each
// supported version.
package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// Initial is what a member's flags say about its cluster when it starts.
type Initial struct {
	// State is "new" or "existing".
	State string
	// Members of the initial cluster, by name.
	Members []string
	// Token is etcd's initial-cluster-token.
	Token string
}

// Lab starts members by name. Each name has an address, a peer URL and a volume of its own.
type Lab interface {
	// Use sets the version of etcd that members are started with from then on: x.y.z, or x.y for the patch of the minor
	// version that is tested most.
	Use(t *testing.T, version string)
	// Start returns once the member runs, with or without a quorum, or an error if etcd exits instead.
	Start(t *testing.T, name string, initial Initial) error
	// Stop kills a member. End lets it end by itself, as the kubelet does.
	Stop(t *testing.T, name string)
	End(t *testing.T, name string)
	Wipe(t *testing.T, name string)
	Put(t *testing.T, via, key, value string) error
	Get(t *testing.T, via, key string) (string, error)
	// AddVoter adds a member as etcdctl member add does. The port cannot.
	AddVoter(t *testing.T, via, name string) error
	Raise(t *testing.T, via string, alarm cluster.AlarmKind) error
	// Compact compacts the keys up to a revision, and waits until the member has done so.
	Compact(t *testing.T, via string, revision int64) error
	// Corrupt changes a value on the disk of a member, which does not notice it.
	Corrupt(t *testing.T, name, value string)
	Probe(t *testing.T, name string) (cluster.Probe, error)
	Membership(t *testing.T, via string) (cluster.Membership, error)
	// AgreeOnVersion waits until the member knows the cluster version. Until then no member can join through it.
	AgreeOnVersion(t *testing.T, name string)
	// Ended waits until the process of a member has ended by itself. It returns the end of its output.
	Ended(t *testing.T, name string) (output string)
	// Changer is the port under test, Endpoint is where a member answers clients, and PeerURL where it answers its peers.
	Changer() etcd.Changer
	Hasher() etcd.Hasher
	Endpoint(name string) etcd.Endpoint
	PeerURL(name string) string
	// Patience is how long a condition may take to become true.
	Patience() time.Duration
	// Now is the laboratory's time, and Wait lets a part of Patience pass.
	Now() time.Time
	Wait()
}

// rule is a fact of etcd and its test.
type rule struct {
	name string
	run  func(*bench)
}

const (
	a, b, c, d = "prod-0", "prod-1", "prod-2", "prod-3"
	token      = "ns_prod_uid"
)

var three = []string{a, b, c}

// Run tests every rule, each in a new laboratory.
func Run(t *testing.T, open func(*testing.T) Lab) {
	t.Helper()
	for _, rule := range slices.Concat(starts, changes, data) {
		t.Run(rule.name, func(t *testing.T) {
			rule.run(&bench{t, open(t)})
		})
	}
}

// starts are the rules of starting, serving and alarms.
var starts = []rule{
	{"a wiped founder that is told existing and itself alone does not start", wipedExistingAlone},
	{"a wiped founder that is told new does not start while its peers answer", wipedNewPeersUp},
	{"a wiped founder that is told new while its peers are down comes back under its old ID, and an acknowledged write is lost", wipedNewPeersDown},
	{"a wiped founder that is told existing and the full list comes back under its old ID", wipedExistingFull},
	{"a started member that is told existing and itself alone starts over its data", restartAlone},
	{"three restarted members that are told existing and themselves alone regain quorum, cluster ID and data", restartAll},
	{"a member that finds data ignores the list, the state and the token", dataWins},
	{"a founder whose list leaves it out does not start", notListed},
	{"another token makes another cluster of the same list", tokenMatters},
	{"a founder answers nothing before it first has a leader", loneFounder},
	{"a member that restarts without a quorum answers nothing before it has a leader again", restartWithoutQuorum},
	{"a survivor of three answers its status but no linearizable read", quorumLost},
	{"a learner answers its status but neither a linearizable read nor the member list until it is promoted", learner},
	{"an alarm for space refuses writes and allows linearizable reads", noSpace},
	{"an alarm for corruption refuses writes", corrupt},
}

// bench is a laboratory whose failures end the test.
type bench struct {
	t *testing.T
	Lab
}

func isNew(members ...string) Initial      { return Initial{"new", members, token} }
func isExisting(members ...string) Initial { return Initial{"existing", members, token} }

func (l *bench) start(initial Initial, names ...string) {
	l.t.Helper()
	for _, name := range names {
		if err := l.Start(l.t, name, initial); err != nil {
			l.t.Fatalf("%s does not start: %v", name, err)
		}
	}
}

// startSelf starts members that have started before, as the operator does.
func (l *bench) startSelf(names ...string) {
	l.t.Helper()
	for _, name := range names {
		l.start(isExisting(name), name)
	}
}

func (l *bench) stop(names ...string) {
	l.t.Helper()
	for _, name := range names {
		l.Stop(l.t, name)
	}
}

func (l *bench) refuses(name string, initial Initial, texts ...string) {
	l.t.Helper()
	err := l.Start(l.t, name, initial)
	if err == nil {
		l.t.Fatalf("%s starts with %+v", name, initial)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			l.t.Fatalf("%s does not say %q: %v", name, text, err)
		}
	}
}

// await repeats the step until it succeeds. If it never does, the last failure ends the test.
func (l *bench) await(what string, try func() error) {
	l.t.Helper()
	end := l.Now().Add(l.Patience())
	for {
		err := try()
		if err == nil {
			return
		}
		if !l.Now().Before(end) {
			l.t.Fatalf("%s: %v", what, err)
		}
		l.Wait()
	}
}

// probe waits until the member's answer is as wanted and returns it.
func (l *bench) probe(name, wanted string, ok func(cluster.Probe) bool) cluster.Probe {
	l.t.Helper()
	var last cluster.Probe
	l.await(name+" "+wanted, func() error {
		probe, err := l.Probe(l.t, name)
		if err == nil && !ok(probe) {
			err = fmt.Errorf("it answers %+v", probe)
		}
		last = probe
		return err
	})
	return last
}

func (l *bench) serves(names ...string) cluster.Probe {
	l.t.Helper()
	var last cluster.Probe
	for _, name := range names {
		last = l.probe(name, "serves", func(p cluster.Probe) bool { return p.Linearizable && p.Leader != 0 })
	}
	return last
}

func (l *bench) put(via, key, value string) {
	l.t.Helper()
	l.await("writing through "+via, func() error { return l.Put(l.t, via, key, value) })
}

func (l *bench) holds(via, key, want string) {
	l.t.Helper()
	l.await("reading through "+via, func() error {
		got, err := l.Get(l.t, via, key)
		if err == nil && got != want {
			l.t.Fatalf("%s reads %q, want %q", via, got, want)
		}
		return err
	})
}

func (l *bench) found() (of map[string]cluster.Probe) {
	l.t.Helper()
	l.start(isNew(three...), three...)
	of = map[string]cluster.Probe{}
	for _, name := range three {
		of[name] = l.serves(name)
	}
	return of
}

// same fails the test unless both answers come from the same member of the same cluster.
func (l *bench) same(before, after cluster.Probe) {
	l.t.Helper()
	if before.ClusterID == 0 || before.MemberID == 0 {
		l.t.Fatalf("no IDs in %+v", before)
	}
	if before.ClusterID != after.ClusterID || before.MemberID != after.MemberID {
		l.t.Fatalf("IDs changed from %+v to %+v", before, after)
	}
}

func wipedExistingAlone(l *bench) {
	l.found()
	l.stop(b)
	l.Wipe(l.t, b)
	l.refuses(b, isExisting(b), "cannot fetch cluster info from peer urls")
	l.stop(a, c)
	l.refuses(b, isExisting(b), "cannot fetch cluster info from peer urls")
}

func wipedNewPeersUp(l *bench) {
	l.found()
	l.stop(b)
	l.Wipe(l.t, b)
	l.refuses(b, isNew(three...), "has already been bootstrapped")
	l.stop(a) // the remaining peer has no quorum, but still knows that the member has started
	l.refuses(b, isNew(three...), "has already been bootstrapped")
}

func wipedNewPeersDown(l *bench) {
	before := l.found()
	l.stop(c)
	l.put(a, "acknowledged", "yes")
	l.holds(b, "acknowledged", "yes")
	l.stop(a, b)
	l.Wipe(l.t, b)
	l.start(isNew(three...), b)
	l.startSelf(c)
	l.same(before[b], l.serves(b))
	l.holds(c, "acknowledged", "")
}

// The peers start again before the wiped founder does: while the leader remembers it, real etcd panics instead.
func wipedExistingFull(l *bench) {
	before := l.found()
	l.stop(three...)
	l.Wipe(l.t, b)
	l.startSelf(a, c)
	l.serves(a, c)
	l.AgreeOnVersion(l.t, a)
	l.AgreeOnVersion(l.t, c)
	l.start(isExisting(three...), b)
	l.same(before[b], l.serves(b))
}

func restartAlone(l *bench) {
	l.start(isNew(a), a)
	before := l.serves(a)
	l.put(a, "key", "value")
	l.stop(a)
	l.startSelf(a)
	l.same(before, l.serves(a))
	l.holds(a, "key", "value")
}

func restartAll(l *bench) {
	before := l.found()
	l.put(a, "key", "value")
	l.stop(three...)
	l.startSelf(three...)
	for _, name := range three {
		l.same(before[name], l.serves(name))
		l.holds(name, "key", "value")
	}
}

func dataWins(l *bench) {
	before := l.found()
	l.put(a, "key", "value")
	l.stop(b)
	l.start(Initial{"new", []string{b}, "another"}, b)
	l.same(before[b], l.serves(b))
	l.holds(b, "key", "value")
}

func notListed(l *bench) { l.refuses(a, isNew(b, c)) }

func tokenMatters(l *bench) {
	l.start(isNew(a), a)
	first := l.serves(a)
	l.stop(a)
	l.Wipe(l.t, a)
	l.start(isNew(a), a)
	l.same(first, l.serves(a))
	l.stop(a)
	l.Wipe(l.t, a)
	l.start(Initial{"new", []string{a}, "another"}, a)
	if second := l.serves(a); second.ClusterID == first.ClusterID || second.MemberID == first.MemberID {
		l.t.Fatalf("both tokens give %+v", second)
	}
}

func (l *bench) answersWithoutLeader(name string) cluster.Probe {
	l.t.Helper()
	return l.probe(name, "answers without a leader", func(p cluster.Probe) bool {
		return p.Leader == 0 && !p.Linearizable && strings.Join(p.Errors, ",") == "etcdserver: no leader"
	})
}

func (l *bench) doesNotAnswer(name string) {
	l.t.Helper()
	if probe, err := l.Probe(l.t, name); !isSilence(err) {
		l.t.Fatalf("%s answers %+v, %v", name, probe, err)
	}
	if membership, err := l.Membership(l.t, name); !isSilence(err) {
		l.t.Fatalf("%s lists %+v, %v", name, membership, err)
	}
}

// isSilence reports whether a member did not answer. It listens before it serves. On a busy machine gRPC may give the
// connection up before the call is late.
func isSilence(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || err != nil && err.Error() == "the connection was closed"
}

func loneFounder(l *bench) {
	l.start(isNew(three...), a)
	l.doesNotAnswer(a)
	l.start(isNew(three...), b)
	l.serves(a, b)
}

func restartWithoutQuorum(l *bench) {
	before := l.found()
	l.stop(three...)
	l.startSelf(a)
	l.doesNotAnswer(a)
	l.startSelf(b)
	l.same(before[a], l.serves(a))
}

func quorumLost(l *bench) {
	before := l.found()
	l.stop(a, b)
	l.same(before[c], l.answersWithoutLeader(c))
	if err := l.Put(l.t, c, "key", "value"); err == nil {
		l.t.Fatal("it writes without a quorum")
	}
	l.startSelf(b)
	l.serves(b, c)
}

func learner(l *bench) {
	before := l.found()
	leader, _ := l.leader(three...)
	id := l.add(leader, d)
	for _, m := range l.members(leader, 4).Members {
		if m.Learner != (m.Name == "") {
			l.t.Fatalf("the learner alone has no name yet: %+v", m)
		}
	}
	l.start(isExisting(a, b, c, d), d)
	probe := l.probe(d, "is a learner with a leader", func(p cluster.Probe) bool { return p.Learner && p.Leader != 0 })
	if probe.Linearizable || probe.ClusterID != before[a].ClusterID || probe.MemberID != id {
		l.t.Fatalf("the learner answers %+v", probe)
	}
	if _, err := l.Membership(l.t, d); !errors.Is(err, etcd.ErrLearner) {
		l.t.Fatalf("the learner lists the members: %v", err)
	}
	l.promote(leader, id)
	if probe := l.serves(d); probe.Learner {
		l.t.Fatalf("the promoted learner answers %+v", probe)
	}
}

// members waits for the member list and checks what is true of every list.
func (l *bench) members(via string, count int) cluster.Membership {
	l.t.Helper()
	var membership cluster.Membership
	l.await("listing the members through "+via, func() (err error) {
		membership, err = l.Membership(l.t, via)
		return err
	})
	if len(membership.Members) != count || membership.ClusterID == 0 {
		l.t.Fatalf("%s lists %+v, want %d members", via, membership, count)
	}
	for _, m := range membership.Members {
		if m.ID == 0 || len(m.PeerURLs) != 1 {
			l.t.Fatalf("incomplete: %+v", m)
		}
	}
	return membership
}

func noSpace(l *bench) {
	before := l.found()
	l.put(a, "key", "value")
	l.await("raising the alarm", func() error { return l.Raise(l.t, b, cluster.AlarmNoSpace) })
	if err := l.Put(l.t, a, "key", "other"); err == nil || !strings.Contains(err.Error(), "space exceeded") {
		l.t.Fatalf("writing with the alarm: %v", err)
	}
	for _, name := range three {
		l.probe(name, "serves and reports the alarm", func(p cluster.Probe) bool {
			return p.Linearizable && len(p.Errors) == 1 && strings.Contains(p.Errors[0], "NOSPACE")
		})
	}
	l.holds(c, "key", "value")
	l.alarm(cluster.Alarm{Member: before[b].MemberID, Kind: cluster.AlarmNoSpace})
}

func corrupt(l *bench) {
	before := l.found()
	l.await("raising the alarm", func() error { return l.Raise(l.t, b, cluster.AlarmCorrupt) })
	if err := l.Put(l.t, a, "key", "other"); err == nil || !strings.Contains(err.Error(), "corrupt") {
		l.t.Fatalf("writing with the alarm: %v", err)
	}
	l.alarm(cluster.Alarm{Member: before[b].MemberID, Kind: cluster.AlarmCorrupt})
}

func (l *bench) alarm(want cluster.Alarm) {
	l.t.Helper()
	if alarms := l.members(a, 3).Alarms; len(alarms) != 1 || alarms[0] != want {
		l.t.Fatalf("alarms are %+v, want %+v", alarms, want)
	}
}
