package rules

import (
	"errors"
	"fmt"
	"strings"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// data are the rules of comparing the data of members.
var data = []rule{
	{"members of the same data tell the same hash at one revision, and none at a compacted or a future one", sameHash},
	{"a member whose disk was changed serves on and tells another hash, and the others agree", otherHash},
	{"from 3.6 on, a member whose disk was changed does not start beside its peers", inconsistentStart},
	{"an alarm ends once it is disarmed, whatever member it names, and a second time changes nothing", disarm},
}

// hash asks a member, which must answer.
func (l *bench) hash(name string, revision int64) cluster.DataHash {
	l.t.Helper()
	var hash cluster.DataHash
	l.await("asking "+name+" for its hash", func() (err error) {
		hash, err = l.tryHash(name, revision)
		return err
	})
	return hash
}

func (l *bench) tryHash(name string, revision int64) (cluster.DataHash, error) {
	return l.Hasher().Hash(l.t.Context(), l.target(name), revision)
}

// write puts keys, and returns the revision that all members have then.
func (l *bench) write(keys int) int64 {
	l.t.Helper()
	for i := range keys {
		l.put(a, fmt.Sprintf("key-%d", i), fmt.Sprintf("the value of key %d", i))
	}
	revision := l.probe(a, "has a revision", func(p cluster.Probe) bool { return p.Revision > 0 }).Revision
	for _, name := range three {
		l.probe(name, "has applied all", func(p cluster.Probe) bool { return p.Revision == revision })
	}
	return revision
}

func sameHash(l *bench) {
	l.found()
	revision := l.write(3)
	first := l.hash(a, revision)
	for _, name := range three {
		if hash := l.hash(name, revision); hash != first {
			l.t.Errorf("%s tells %+v, and %s %+v", name, hash, a, first)
		}
	}
	if _, err := l.tryHash(b, revision+1); !errors.Is(err, etcd.ErrFutureRevision) {
		l.t.Errorf("at a future revision: %v", err)
	}
	l.put(b, "key-0", "another value")
	l.await("compacting", func() error { return l.Compact(l.t, a, revision+1) })
	l.await("asking for a compacted revision", func() error {
		if _, err := l.tryHash(a, revision); !errors.Is(err, etcd.ErrCompacted) {
			return fmt.Errorf("it answers %v", err)
		}
		return nil
	})
	stored := l.hash(a, revision+1)
	if stored.CompactRevision != -1 {
		l.t.Errorf("at the revision of the first compaction, a member tells what the compaction found: %+v", stored)
	}
	l.put(b, "key-0", "a third value")
	if hash := l.hash(b, revision+2); hash.CompactRevision != revision+1 {
		l.t.Errorf("after the compaction: %+v", hash)
	}
}

func otherHash(l *bench) {
	l.found()
	revision := l.write(3)
	l.Corrupt(l.t, b, "the value of key 1")
	good, other, bad := l.hash(a, revision), l.hash(c, revision), l.hash(b, revision)
	if good != other || good.Hash == bad.Hash || good.CompactRevision != bad.CompactRevision {
		l.t.Errorf("the hashes are %+v, %+v, and %+v of the changed disk", good, other, bad)
	}
	l.serves(b)
	l.put(b, "key-1", "another value")
}

func inconsistentStart(l *bench) {
	initial := l.found()
	l.write(3)
	l.Corrupt(l.t, b, "the value of key 1")
	l.stop(b)
	err := l.Start(l.t, b, isExisting(b))
	if cluster.MinorOf(initial[b].Version) == "3.5" { // it knows its peers from a snapshot of the log, and has none yet
		if err != nil {
			l.t.Errorf("it ends with: %v", err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), "found data inconsistency with peers") {
		l.t.Errorf("it starts, or ends with: %v", err)
	}
	l.same(initial[a], l.serves(a))
}

func disarm(l *bench) {
	l.found()
	l.await("raising the alarm", func() error { return l.Raise(l.t, b, cluster.AlarmCorrupt) })
	for _, alarm := range l.members(a, 3).Alarms {
		for range 2 {
			l.await("disarming", func() error { return l.Changer().Disarm(l.t.Context(), l.target(a), alarm) })
		}
	}
	if err := l.Changer().Disarm(l.t.Context(), l.target(a), cluster.Alarm{Kind: cluster.AlarmCorrupt}); err != nil {
		l.t.Errorf("an alarm of member 0 that is not there: %v", err)
	}
	if alarms := l.members(a, 3).Alarms; len(alarms) > 0 {
		l.t.Errorf("alarms are left: %+v", alarms)
	}
	l.put(a, "key", "value")
}
