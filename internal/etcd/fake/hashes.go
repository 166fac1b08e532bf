package fake

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// ErrInconsistent is the end of a member whose data differ from those of a peer, at its start: InitialCheck
// (server/etcdserver/corrupt.go), and initialCorruptCheck in 3.5. It does not tell whose data are wrong.
var ErrInconsistent = errors.New("found data inconsistency with peers")

// ErrDatabase is the end of a member that cannot open its database: newBackend (server/storage/backend/backend.go).
var ErrDatabase = errors.New("failed to open database")

// revision is that of an empty store, 1, and one more for each write.
func (s *state) revision() int64 { return int64(len(s.hashes)) + 1 }

// noteHash notes the hash of the keys after a write.
func (s *state) noteHash() {
	h := fnv.New32a()
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		_, _ = fmt.Fprintf(h, "%q=%q;", key, s.keys[key]) // a hash takes every write
	}
	s.hashes = append(slices.Clip(s.hashes), h.Sum32())
}

// hash is hashByRev (server/storage/mvcc/kvstore.go): of the keys at a revision.
func (d *dataDir) hash(revision int64) (cluster.DataHash, error) {
	s := d.state
	switch {
	case revision < int64(s.compacted):
		return cluster.DataHash{}, etcd.ErrCompacted
	case revision > s.revision():
		return cluster.DataHash{}, etcd.ErrFutureRevision
	}
	answer := cluster.DataHash{CompactRevision: int64(s.compacted)}
	if revision > 1 {
		answer.Hash = s.hashes[revision-2]
	}
	if d.corrupt && revision > 1 {
		answer.Hash = ^answer.Hash
	}
	return answer, nil
}

// Hash implements etcd.Hasher.
func (c Changer) Hash(ctx context.Context, target etcd.Target, revision int64) (hash cluster.DataHash, err error) {
	err = c.change(ctx, target, false, func(_ *World, m *member) error {
		if stored, is := m.compactions[revision]; is { // HashByRev of hashStorage (server/storage/mvcc/hash.go)
			hash = stored
			return nil
		}
		hash, err = m.data.hash(revision)
		return err
	})
	return hash, err
}

// Disarm implements etcd.Changer.
func (c Changer) Disarm(ctx context.Context, target etcd.Target, alarm cluster.Alarm) error {
	return c.change(ctx, target, false, func(w *World, m *member) error {
		if m.data.state.alarms[alarm] {
			w.commit(m, func(s *state) { delete(s.alarms, alarm) })
		}
		return nil
	})
}

// Corrupt makes what lies on a volume differ from what its member wrote. The member does not notice: only hashes do. A
// store without a write has nothing that could differ.
func (w *World) Corrupt(volume string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if data := w.volumes[volume]; data != nil && data.state.revision() > 1 {
		data.corrupt = true
	}
}

// Break makes the database on a volume one that cannot be opened. The member notices when it starts again.
func (w *World) Break(volume string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if data := w.volumes[volume]; data != nil {
		data.broken = true
	}
}

// IsWrong reports whether what lies on a volume is not what its member wrote, or cannot be opened.
func (w *World) IsWrong(volume string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	data := w.volumes[volume]
	return data != nil && (data.corrupt || data.broken)
}

// RightVoters returns how many voters the newest log of a cluster has, how many of them run with the data that they
// wrote, and how many have wrong data, whether they run or not.
func (w *World) RightVoters(id cluster.ID) (voters, right, wrong int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.newest()[id]
	if s == nil {
		return 0, 0, 0
	}
	wrongIDs := map[cluster.ID]bool{}
	for _, data := range w.volumes {
		if data.clusterID == id && s.voter(data.memberID) && (data.corrupt || data.broken) {
			wrongIDs[data.memberID] = true
		}
	}
	for _, m := range w.members {
		if m.data.clusterID == id && s.voter(m.data.memberID) && m.leader != 0 && !wrongIDs[m.data.memberID] {
			right++
		}
	}
	return len(s.voters()), right, len(wrongIDs)
}

// CorruptAlarms returns how many alarms for corrupt data the newest log of a cluster has.
func (w *World) CorruptAlarms(id cluster.ID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	if s := w.newest()[id]; s != nil {
		for alarm := range s.alarms {
			if alarm.Kind == cluster.AlarmCorrupt {
				n++
			}
		}
	}
	return n
}

// Raise raises an alarm in the cluster of the member at the address, for any member ID: etcd raises those of corruption
// for member 0 where it cannot tell who differs.
func (w *World) Raise(address string, alarm cluster.Alarm) error {
	return w.changeAlarms(address, func(s *state, _ cluster.ID) { s.alarms[alarm] = true })
}

// EndAlarms disarms all alarms of the cluster of the member at the address.
func (w *World) EndAlarms(address string) {
	_ = w.changeAlarms(address, func(s *state, _ cluster.ID) { clear(s.alarms) })
}

// Compact compacts the keys up to a revision, through the member at the address.
func (w *World) Compact(address string, revision int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return err
	}
	if _, err := m.data.hash(revision); err != nil {
		return err
	}
	before := int64(m.data.state.compacted)
	for _, other := range w.group(m) { // each computes a hash while it compacts, and remembers it
		if hash, err := other.data.hash(revision); err == nil && other.leader != 0 {
			if hash.CompactRevision = before; before == 0 {
				hash.CompactRevision = -1
			}
			if other.compactions == nil {
				other.compactions = map[int64]cluster.DataHash{}
			}
			other.compactions[revision] = hash
		}
	}
	w.commit(m, func(s *state) { s.compacted = int(revision) })
	return nil
}

// isInconsistent reports whether a member that starts finds a running peer with other data at its own revision. One of
// 3.5 knows its peers from a snapshot of the log only, which it writes after 100,000 entries: the model lacks those.
func (w *World) isInconsistent(data *dataDir, minor int) bool {
	if minor < 6 {
		return false
	}
	revision := data.state.revision()
	mine, err := data.hash(revision)
	if err != nil {
		return false
	}
	for _, m := range w.members {
		theirs, err := m.data.hash(revision)
		isPeer := m.data.clusterID == data.clusterID && m.serving && m.data != data
		if isPeer && err == nil && theirs.CompactRevision == mine.CompactRevision && theirs.Hash != mine.Hash {
			return true
		}
	}
	return false
}

// CorruptMembers returns the names of the running members whose data are not what they wrote.
func (w *World) CorruptMembers() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, m := range w.members {
		if m.data.corrupt {
			names = append(names, m.data.name)
		}
	}
	slices.Sort(names)
	return names
}
