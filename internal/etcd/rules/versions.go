package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// monitored is a little more than what a leader needs at most to change the cluster version.
const monitored = 5 * time.Second

// RunVersions tests every rule of versions, each in a new laboratory. They choose the versions of etcd themselves.
func RunVersions(t *testing.T, open func(*testing.T) Lab) {
	t.Helper()
	for _, rule := range versions {
		t.Run(rule.name, func(t *testing.T) {
			rule.run(&bench{t, open(t)})
		})
	}
}

// versions are the rules of upgrades and downgrades.
var versions = []rule{
	{"three members go from 3.5 to 3.6 to 3.7, and the cluster version follows the last of them", upgrade},
	{"3.7 does not start while the log has entries of 3.5, which a cancelled downgrade gets rid of", oldEntries},
	{"while a member of the old minor version answers, the others go back to it", rollBack},
	{"while a member does not answer, the cluster version does not rise, learner or not", silentMember},
	{"three members go from 3.7.1 to 3.6.12 to 3.5 by downgrades that etcd ends itself", func(l *bench) { downgrade(l, "3.7.1", "3.6.12", "3.5") }},
	{"three members go from 3.7 to 3.6 to 3.5 by downgrades that etcd ends itself", func(l *bench) { downgrade(l, "3.7", "3.6", "3.5") }},
	{"a downgrade does not begin before every member answers", silentBeforeDowngrade},
	{"a cancelled downgrade to 3.6 leaves the cluster version low until the last member of 3.6 has gone", func(l *bench) { cancel(l, "3.7") }},
	{"a cancelled downgrade to 3.5 leaves the cluster version low until the last member of 3.5 has gone", func(l *bench) { cancel(l, "3.6") }},
	{"a downgrade is allowed to the minor version below the cluster version only", downgradeTarget},
	{"a mixed cluster of 3.6 and 3.7 may be downgraded to 3.5, two minor versions below some members", mixedDowngrade},
	{"a downgrade of 3.5 keeps members from starting again", downgradeOf35},
	{"no member of any version joins while a downgrade is enabled", joinWhileDowngrading},
	{"a single member goes up and down, and an older binary does not start otherwise", single},
	{"etcd 3.5 tells why it ends over the data of 3.6", func(l *bench) { tooOld(l, "3.6", "3.5", "3.6.12") }},
	{"etcd 3.6 tells why it ends over the data of 3.7", func(l *bench) { tooOld(l, "3.7", "3.6", "3.7.1") }},
	{"etcd 3.5 tells why it ends over the data of 3.7", func(l *bench) { tooOld(l, "3.7", "3.5", "3.7.1") }},
	{"patches of 3.6 run beside each other", func(l *bench) { patches(l, "3.6.12", "3.6") }},
	{"patches of 3.7 run beside each other", func(l *bench) { patches(l, "3.7.1", "3.7") }},
}

// foundWith starts members of a version and waits until it is the cluster version.
func (l *bench) foundWith(version string, names ...string) {
	l.t.Helper()
	l.Use(l.t, version)
	l.start(isNew(names...), names...)
	l.serves(names...)
	l.agreeOn(cluster.MinorOf(version), names...)
}

// agreeOn waits until all voters tell a cluster version.
func (l *bench) agreeOn(minor string, names ...string) {
	l.t.Helper()
	for _, name := range names {
		l.probe(name, "tells the cluster version "+minor, func(p cluster.Probe) bool { return p.ClusterVersion == minor })
	}
}

// keeps checks that the cluster version stays for as long as a leader may need to change it.
func (l *bench) keeps(minor, via string) {
	l.t.Helper()
	for end := l.Now().Add(monitored); l.Now().Before(end); l.Wait() {
		if probe := l.serves(via); probe.ClusterVersion != minor {
			l.t.Fatalf("%s tells %+v, want the cluster version %s", via, probe, minor)
		}
	}
}

// roll starts a member again with another version. A member that was killed may have lost the version that its data
// was lowered to in the last 100 ms: UpdateStorageVersion in server/etcdserver/adapters.go leaves the commit to the
// next batch.
func (l *bench) roll(name, version string) cluster.Probe {
	l.t.Helper()
	l.End(l.t, name)
	l.Use(l.t, version)
	l.startSelf(name)
	return l.probe(name, "serves with etcd "+version, func(p cluster.Probe) bool {
		return p.Linearizable && cluster.SameMinor(p.Version, version)
	})
}

// rollAll rolls the followers, then the leader after it has handed over.
func (l *bench) rollAll(version string, between func(name string, isLast bool), names ...string) {
	l.t.Helper()
	leader, followers := l.leader(names...)
	for i, name := range append(followers, leader) {
		if isLast := i == len(names)-1; isLast && len(followers) > 0 {
			to := l.target(followers[0])
			l.await("handing over", func() error { return l.tryMove(leader, to.MemberID) })
		}
		l.roll(name, version)
		between(name, i == len(names)-1)
	}
}

// doesNotServe starts a member whose process ends before or after its peers can reach it.
func (l *bench) doesNotServe(name, version string) {
	l.t.Helper()
	l.Use(l.t, version)
	l.endsWhenStarted(name)
}

// lowered waits until members have lowered the cluster version and the version of their data.
func (l *bench) lowered(minor string, names ...string) {
	l.t.Helper()
	for _, name := range names {
		l.probe(name, "lowers the version of its data", func(p cluster.Probe) bool {
			return p.ClusterVersion == minor && p.StorageVersion == minor && p.DowngradeEnabled
		})
	}
}

// renewLog makes members of 3.6 write a snapshot, by a downgrade that is cancelled. It rids their logs of the entries
// of 3.5. ClusterVersionSet in server/etcdserver/apply/apply.go (3.6) forces a snapshot.
func (l *bench) renewLog(names ...string) {
	l.t.Helper()
	l.enableDowngrade("3.5", names...)
	l.lowered("3.5", names...)
	l.cancelDowngrade(names...)
	l.agreeOn("3.6", names...)
}

func upgrade(l *bench) {
	l.foundWith("3.5", three...)
	l.upgradeTo("3.6")
	l.renewLog(three...)
	l.upgradeTo("3.7")
}

func (l *bench) upgradeTo(version string) {
	l.t.Helper()
	minor, from := cluster.MinorOf(version), cluster.NextMinor(version, -1)
	l.put(a, "key", from)
	l.rollAll(version, func(name string, isLast bool) {
		if isLast {
			return
		}
		l.agreeOn(from, name)
		l.probe(name, "keeps its data at the cluster version", func(p cluster.Probe) bool { return p.StorageVersion == from })
	}, three...)
	l.agreeOn(minor, three...)
	for _, name := range three {
		l.probe(name, "moves its data", func(p cluster.Probe) bool { return p.StorageVersion == minor && !p.DowngradeEnabled })
		l.holds(name, "key", from)
	}
}

func oldEntries(l *bench) {
	l.foundWith("3.5", three...)
	l.upgradeTo("3.6.12")
	l.stop(a)
	l.doesNotServe(a, "3.7")
	l.Use(l.t, "3.6.12")
	l.startSelf(a)
	l.holds(a, "key", "3.5")
	l.renewLog(three...)
	l.roll(a, "3.7")
	l.holds(a, "key", "3.5")

	// A new member gets the snapshot.
	leader, _ := l.leader(three...)
	l.add(leader, d)
	l.start(isExisting(a, b, c, d), d)
	l.catchesUp(d, leader)
}

// etcd compares the cluster version only. So the operator has to see that every member has the newer minor version.
func mixedDowngrade(l *bench) {
	l.foundWith("3.6", three...)
	l.roll(a, "3.7")
	l.tryEnable("3.5", three...)
	l.lowered("3.5", three...)
	l.roll(a, "3.6")
	l.cancelDowngrade(three...)
	l.agreeOn("3.6", three...)
}

// A downgrade of 3.5 to 3.4 is allowed, and no member starts any more. Nobody but the users can have enabled it.
func downgradeOf35(l *bench) {
	l.foundWith("3.5", three...)
	leader, followers := l.leader(three...)
	if err := l.Changer().EnableDowngrade(l.t.Context(), l.target(leader), "3.4"); !errors.Is(err, context.DeadlineExceeded) {
		l.t.Fatalf("etcd 3.5 answers: %v", err)
	}
	l.probe(followers[0], "tells that a downgrade is enabled", func(p cluster.Probe) bool {
		return p.DowngradeEnabled && p.DowngradeTarget == "" && p.ClusterVersion == "3.5"
	})
	l.stop(followers[0])
	l.doesNotServe(followers[0], "3.5")
	l.cancelDowngrade(leader, followers[1])
	l.doesNotServe(followers[0], "3.5") // its own data still has it
	l.put(leader, "key", "value")
}

func rollBack(l *bench) {
	l.foundWith("3.6", three...)
	l.roll(a, "3.7")
	l.roll(b, "3.7")
	l.keeps("3.6", a)
	l.put(a, "key", "value")
	l.roll(b, "3.6")
	l.roll(a, "3.6")
	l.holds(a, "key", "value")
	l.agreeOn("3.6", three...)
}

func silentMember(l *bench) {
	l.foundWith("3.6", three...)
	l.roll(a, "3.7")
	l.roll(b, "3.7")
	l.stop(c)
	l.put(a, "key", "value")
	l.keeps("3.6", a)
	l.Use(l.t, "3.7")
	l.startSelf(c)
	l.serves(c)
	l.agreeOn("3.7", three...)

	// As a learner that never started.
	leader, _ := l.leader(three...)
	learner := l.add(leader, d)
	l.enableDowngrade("3.6", three...)
	l.keeps("3.7", a)
	l.remove(leader, learner)
	l.agreeOn("3.6", three...)
}

// tryEnable enables a downgrade by the leader.
func (l *bench) tryEnable(minor string, names ...string) {
	l.t.Helper()
	l.await("enabling a downgrade to "+minor, func() error {
		leader, _ := l.leader(names...)
		err := l.Changer().ValidateDowngrade(l.t.Context(), l.target(leader), minor)
		if err == nil {
			err = l.Changer().EnableDowngrade(l.t.Context(), l.target(leader), minor)
		}
		if errors.Is(err, etcd.ErrDowngradeEnabled) { // by an earlier try
			return nil
		}
		return err
	})
}

// enableDowngrade enables a downgrade by the leader, and checks that it is told.
func (l *bench) enableDowngrade(minor string, names ...string) {
	l.t.Helper()
	l.tryEnable(minor, names...)
	for _, name := range names {
		l.probe(name, "tells that a downgrade is enabled", func(p cluster.Probe) bool {
			return p.DowngradeEnabled && p.DowngradeTarget == minor
		})
	}
}

// downgradeTo takes members down by one minor version.
func (l *bench) downgradeTo(version string, names ...string) {
	l.t.Helper()
	minor := cluster.MinorOf(version)
	l.enableDowngrade(minor, names...)
	l.lowered(minor, names...)
	l.rollAll(version, func(name string, isLast bool) {
		l.agreeOn(minor, name)
		if !isLast {
			l.probe(name, "tells that a downgrade is enabled", func(p cluster.Probe) bool { return p.DowngradeEnabled })
		}
	}, names...)
	for _, name := range names {
		l.probe(name, "tells that the downgrade has ended", func(p cluster.Probe) bool {
			return !p.DowngradeEnabled && p.DowngradeTarget == "" && p.ClusterVersion == minor
		})
	}
}

func downgrade(l *bench, from string, to ...string) {
	l.foundWith(from, three...)
	l.fill(a, 50)
	l.put(a, "key", "value")
	for _, version := range to {
		l.downgradeTo(version, three...)
		for _, name := range three {
			l.holds(name, "key", "value")
		}
	}
}

func silentBeforeDowngrade(l *bench) {
	l.foundWith("3.7", three...)
	l.stop(c)
	l.put(a, "key", "value")
	l.enableDowngrade("3.6", a, b)
	l.keeps("3.7", a)
	l.doesNotServe(c, "3.6") // its data is of 3.7
	l.Use(l.t, "3.7")
	l.startSelf(c)
	l.serves(c)
	l.lowered("3.6", three...)
	l.roll(c, "3.6")
	l.holds(c, "key", "value")
}

func cancel(l *bench, from string) {
	minor := cluster.NextMinor(from, -1)
	l.foundWith(from, three...)
	l.enableDowngrade(minor, three...)
	l.refusesDowngrade(minor, etcd.ErrDowngradeEnabled, etcd.ErrDowngradeTarget) // as after a lost answer
	l.lowered(minor, three...)
	l.refusesDowngrade(minor, etcd.ErrDowngradeTarget)
	l.refusesDowngrade(cluster.NextMinor(minor, -1), etcd.ErrDowngradeEnabled)
	l.roll(a, minor)
	l.await("handing over", func() error { // 3.5 cancels without an answer
		leader, _ := l.leader(three...)
		return l.tryMove(leader, l.target(a).MemberID)
	})
	for range 2 { // the second time as after a lost answer
		l.cancelDowngrade(three...)
	}
	l.keeps(minor, b)
	l.refusesDowngrade(minor, etcd.ErrDowngradeTarget) // so a mixed cluster goes back by a roll
	l.roll(a, from)
	l.agreeOn(from, three...)
	l.enableDowngrade(minor, three...)
}

func (l *bench) cancelDowngrade(names ...string) {
	l.t.Helper()
	l.await("cancelling the downgrade", func() error {
		leader, _ := l.leader(names...)
		return l.Changer().CancelDowngrade(l.t.Context(), l.target(leader))
	})
	for _, name := range names {
		l.probe(name, "tells of no downgrade", func(p cluster.Probe) bool { return !p.DowngradeEnabled && p.DowngradeTarget == "" })
	}
}

// refusesDowngrade checks that a downgrade can be neither validated nor enabled, for one of the reasons.
func (l *bench) refusesDowngrade(minor string, reasons ...error) {
	l.t.Helper()
	l.await("asking for a downgrade to "+minor, func() error {
		leader, _ := l.leader(three...)
		to := l.target(leader)
		for what, err := range map[string]error{
			"validating": l.Changer().ValidateDowngrade(l.t.Context(), to, minor),
			"enabling":   l.Changer().EnableDowngrade(l.t.Context(), to, minor),
		} {
			switch {
			case err == nil:
				l.t.Fatalf("%s a downgrade to %s succeeds", what, minor)
			case !slices.ContainsFunc(reasons, func(reason error) bool { return errors.Is(err, reason) }):
				return fmt.Errorf("%s fails with %w, and not with %v", what, err, reasons)
			}
		}
		return nil
	})
}

func downgradeTarget(l *bench) {
	l.foundWith("3.6", three...)
	l.refusesDowngrade("3.6", etcd.ErrDowngradeTarget)
	l.refusesDowngrade("3.4", etcd.ErrDowngradeTarget)
	l.rollAll("3.7", func(_ string, isLast bool) {
		if !isLast { // a mixed cluster
			l.refusesDowngrade("3.6", etcd.ErrDowngradeTarget)
		}
	}, three...)
	l.agreeOn("3.7", three...)
	l.refusesDowngrade("3.5", etcd.ErrDowngradeTarget)
	l.refusesDowngrade("3.7", etcd.ErrDowngradeTarget)
}

func joinWhileDowngrading(l *bench) {
	l.foundWith("3.7", three...)
	l.enableDowngrade("3.6", three...)
	l.agreeOn("3.6", three...)
	leader, _ := l.leader(three...)
	learner := l.add(leader, d)
	for _, version := range []string{"3.7", "3.6"} {
		l.Use(l.t, version)
		l.refuses(d, isExisting(a, b, c, d), "incompatible with current running cluster")
		l.Wipe(l.t, d)
	}
	l.cancelDowngrade(three...)
	l.Use(l.t, "3.7")
	l.start(isExisting(a, b, c, d), d)
	l.promote(leader, learner)
	l.serves(d)
	l.agreeOn("3.7", a, b, c, d)
}

func single(l *bench) {
	l.foundWith("3.5", a)
	l.put(a, "key", "value")
	l.roll(a, "3.6")
	l.agreeOn("3.6", a)
	l.stop(a)
	l.doesNotServe(a, "3.5")
	l.Use(l.t, "3.6")
	l.startSelf(a)
	l.serves(a)
	l.renewLog(a)
	l.roll(a, "3.7")
	l.agreeOn("3.7", a)
	l.probe(a, "moves its data", func(p cluster.Probe) bool { return p.StorageVersion == "3.7" })
	l.stop(a)
	l.doesNotServe(a, "3.6")
	l.Use(l.t, "3.7")
	l.startSelf(a)
	l.serves(a)
	l.downgradeTo("3.6", a)
	l.holds(a, "key", "value")
}

// lastWords returns the message and the error of the last line of etcd's log. A text that is no log is returned as it
// is.
func lastWords(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	var entry struct{ Msg, Error string }
	if json.Unmarshal([]byte(lines[len(lines)-1]), &entry) != nil {
		return output
	}
	return entry.Msg + ": " + entry.Error
}

// tooOld starts an older version over the data of a newer one. It says so with its last words, also when it is started
// again, and harms nothing: another patch of the newer one serves the data.
func tooOld(l *bench, newer, older, another string) {
	l.foundWith(newer, a)
	l.put(a, "key", "value")
	l.probe(a, "moves its data", func(p cluster.Probe) bool { return p.StorageVersion == newer })
	l.End(l.t, a)
	l.Use(l.t, older)
	told := newer
	if older == "3.5" { // it tells that its own version is too low, and not what the data's is
		told = cluster.NextMinor(older, 1)
	}
	for range 2 { // as the kubelet does
		end := lastWords(l.endsWhenStarted(a))
		if got := cluster.NewerData(end, older); got != told {
			l.t.Fatalf("etcd %s over the data of %s is taken to tell of %q, want %q: %s", older, newer, got, told, end)
		}
	}
	l.Use(l.t, another)
	l.startSelf(a)
	l.serves(a)
	l.holds(a, "key", "value")
}

func patches(l *bench, older, newer string) {
	minor := cluster.MinorOf(newer)
	l.foundWith(older, three...)
	l.roll(a, newer)
	l.put(a, "key", "value")
	l.agreeOn(minor, three...)
	l.roll(a, older)
	l.holds(a, "key", "value")
	for _, name := range three {
		l.roll(name, newer)
	}
	l.agreeOn(minor, three...)
	l.holds(a, "key", "value")
}
