package fake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

const (
	// versionInterval is how often a leader compares the versions: monitorVersionInterval (server/etcdserver/server.go).
	versionInterval = 4 * time.Second
	// downgradeInterval is how often a leader looks whether a downgrade has ended: DowngradeCheckTime, by default
	// DefaultDowngradeCheckTime (server/embed/config.go).
	downgradeInterval = 5 * time.Second
)

// The errors of members whose binary does not fit the cluster.
var (
	// ErrTooOld is that of MustDetectDowngrade (server/etcdserver/version/downgrade.go), in 3.5 mustDetectDowngrade
	// (server/etcdserver/api/membership/downgrade.go).
	ErrTooOld = errors.New("invalid downgrade; server version is lower than determined cluster version")
	// ErrNotTarget is that of 3.5 only, in mustDetectDowngrade.
	ErrNotTarget = errors.New("invalid downgrade; server version is not allowed to join when downgrade is enabled")
	// ErrNewData is that of schemaChangesForVersion in Validate (server/storage/schema/schema.go), from 3.6 on. The
	// version of the data comes before it: see newData.
	ErrNewData = errors.New("is not supported")
	// ErrOldEntries is that of a panic of 3.7, which cannot read the entries that 3.5 writes about members and versions:
	// MustUnmarshalMessage in Apply (server/etcdserver/apply/apply.go). 3.6 reads them: v2ToV3Request
	// (server/etcdserver/apply_v2.go).
	ErrOldEntries = errors.New("unmarshal should never fail")
	// ErrIncompatible is that of a member that joins (server/etcdserver/bootstrap.go, in 3.5 server.go).
	ErrIncompatible = errors.New("incompatible with current running cluster")
)

// defaultMinor is the minor version of a member that was started without a version.
const defaultMinor = 6

// minorOf returns the y of a version 3.y.z or 3.y.
func minorOf(version string) int {
	parts := strings.Split(version, ".")
	if len(parts) < 2 || parts[0] != "3" {
		return defaultMinor
	}
	minor, err := strconv.Atoi(parts[1])
	if err != nil {
		return defaultMinor
	}
	return minor
}

// versionOf is the reverse; "" for the version 3.0, which etcd takes until it has read the versions of all members. The
// model takes it also while etcd has none at all.
func versionOf(minor int) string {
	if minor == 0 {
		return ""
	}
	return fmt.Sprintf("3.%d", minor)
}

func (m *member) minor() int { return minorOf(m.version) }

// tellsStorageVersion reports whether the status has the fields that came with 3.6.
func (m *member) tellsStorageVersion() bool { return m.minor() >= 6 }

// newData is how etcd refuses data of a newer minor version.
func newData(storage int) error {
	return fmt.Errorf("version %q %w", versionOf(storage)+".0", ErrNewData)
}

// refusesToStart returns why a binary ends when it finds the data, before it serves anybody. From 3.6 on, etcd looks at
// the version of the data first (bootstrapBackend in server/etcdserver/bootstrap.go). It learns of the version of the
// cluster when it reads its data and its log.
func refusesToStart(data *dataDir, minor int) error {
	s := data.state
	switch {
	case minor >= 6 && data.storage > minor:
		return newData(data.storage)
	case minor < 6 && s.downgrade != 0 && s.downgrade != minor:
		return ErrNotTarget
	case isTooOld(s, minor):
		return ErrTooOld
	case hasOldEntries(data, minor):
		return ErrOldEntries
	}
	return nil
}

// snapshotCount is after how many entries a member of 3.6 or 3.7 writes a snapshot: DefaultSnapshotCount
// (server/etcdserver/server.go). It starts again from there.
const snapshotCount = 10000

// memorySnapshotCount is after how many entries a member of 3.6 or 3.7 forgets the first entry of the log, so that a
// new member gets a snapshot: memorySnapshotCount and compactRaftLog (server/etcdserver/server.go).
const memorySnapshotCount = 100

// hasOldEntries reports whether a binary would read entries that it cannot.
func hasOldEntries(data *dataDir, minor int) bool {
	return minor >= 7 && data.state.oldEntry > data.snapshot
}

// snapshots makes members write snapshots: each snapshotCount entries, and when the cluster version is lowered
// (ClusterVersionSet in server/etcdserver/apply/backend.go, in 3.6 apply.go). In 3.5 they are of no interest.
func (w *World) snapshots() {
	for _, m := range w.members {
		s := m.data.state
		isLowered := s.clusterVersion < m.data.appliedVersion
		if m.serving && m.minor() >= 6 && (isLowered || s.index-m.data.snapshot > snapshotCount) {
			m.data.snapshot = s.index
		}
		if m.minor() >= 6 && (m.data.snapshot > 0 || s.index > memorySnapshotCount) {
			m.logStart = max(m.logStart, 1)
		}
		m.data.appliedVersion = s.clusterVersion
	}
}

// noteOldEntries notes that a member of 3.5 appends an entry about itself at each start (publish), and as the leader
// one for each cluster version (updateClusterVersionV2): both in server/etcdserver/server.go (3.5).
func (w *World) noteOldEntries(leader *member, group []*member) {
	for _, m := range group {
		if _, listed := leader.data.state.members[m.data.memberID]; listed && m.minor() < 6 && !m.published {
			m.published = true
			w.commit(leader, func(s *state) { s.oldEntry = s.index })
		}
	}
}

// isTooOld reports whether a binary ends when it learns of the cluster version. 3.5 does not mind it while a
// downgrade to 3.5 is enabled.
func isTooOld(s *state, minor int) bool {
	return minor < s.clusterVersion && (minor >= 6 || s.downgrade != minor)
}

// isCompatible reports whether a member may join a cluster: isCompatibleWithCluster
// (server/etcdserver/cluster_util.go). While a downgrade is enabled, the cluster version must be exactly one above
// that of the member.
func isCompatible(s *state, minor int) bool {
	if s.downgrade != 0 {
		return s.clusterVersion == minor+1
	}
	return s.clusterVersion <= minor
}

// endUnfit ends the members that learn of a cluster version above their own, in SetVersion
// (server/etcdserver/api/membership/cluster.go), and those that get entries that they cannot read. It reports whether
// there were any.
func (w *World) endUnfit() bool {
	var ended []*member
	for _, m := range w.members {
		if refusesToRun(m.data, m.minor()) != nil {
			ended = append(ended, m)
		}
	}
	for _, m := range ended {
		w.noteUnfit(m.data, m.version, refusesToRun(m.data, m.minor()))
		delete(w.members, m.address)
	}
	return len(ended) > 0
}

// refusesToRun returns why a binary ends when it learns of what is in its log.
func refusesToRun(data *dataDir, minor int) error {
	switch {
	case isTooOld(data.state, minor):
		return ErrTooOld
	case hasOldEntries(data, minor):
		return ErrOldEntries
	}
	return nil
}

// Unfit is the end of a process whose binary did not fit the data of its member or the version of its cluster.
type Unfit struct {
	ClusterID     cluster.ID
	Name, Version string
	Err           error
}

func (w *World) noteUnfit(data *dataDir, version string, err error) {
	w.unfit = append(w.unfit, Unfit{ClusterID: data.clusterID, Name: data.name, Version: version, Err: err})
}

// TakeUnfit returns the processes that ended for their binary since it was last asked.
func (w *World) TakeUnfit() []Unfit {
	w.mu.Lock()
	defer w.mu.Unlock()
	unfit := w.unfit
	w.unfit = nil
	return unfit
}

// DataVersion returns the cluster of the data on a volume, and their minor version: that of the data themselves or of
// the cluster as their log has it, whichever is newer. It is empty for an empty volume, and while no version is set.
func (w *World) DataVersion(volume string) (id cluster.ID, minor string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	data := w.volumes[volume]
	if data == nil {
		return 0, ""
	}
	return data.clusterID, versionOf(max(data.storage, data.state.clusterVersion))
}

// Downgrade returns the minor version of the downgrade that the newest log of a cluster has enabled; empty for none.
func (w *World) Downgrade(id cluster.ID) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	if s := w.newest()[id]; s != nil {
		return versionOf(s.downgrade)
	}
	return ""
}

// migrate makes the data of each member follow the cluster version: UpdateStorageVersionIfNeeded
// (server/etcdserver/version/monitor.go). It does so after the interval, the longest time that it takes if all is well.
// 3.5 has no version in its data.
func (w *World) migrate() {
	for _, m := range w.members {
		if !m.tellsStorageVersion() {
			m.data.storage = 5
			continue
		}
		version := m.data.state.clusterVersion
		wanted := m.serving && version != 0 && m.data.storage != version
		if w.isDue(&m.storageDue, wanted, m.data.storage == 0, versionInterval) {
			m.data.storage = version
		}
	}
}

// monitor has a leader compare the versions. A new leader does so at once (firstCommitInTerm), then at intervals.
// Without a clock, no interval passes before it does.
func (w *World) monitor(leader *member) (changed bool) {
	isNew := leader.monitoredTerm != leader.data.state.term
	leader.monitoredTerm = leader.data.state.term
	if version, changes := w.nextClusterVersion(leader); w.isDue(&leader.versionDue, changes, isNew, versionInterval) {
		w.commit(leader, func(s *state) {
			s.clusterVersion = version
			if leader.minor() < 6 {
				s.oldEntry = s.index
			}
		})
		changed = true
	}
	if w.isDue(&leader.downgradeDue, w.isDowngraded(leader), false, downgradeInterval) {
		w.commit(leader, func(s *state) { s.downgrade = 0 })
		changed = true
	}
	return changed
}

// isDue reports whether what a monitor wants is to be done now. It notes when, if it is later.
func (w *World) isDue(due *time.Time, wanted, atOnce bool, interval time.Duration) bool {
	switch {
	case !wanted:
		*due = time.Time{}
		return false
	case w.now == nil, atOnce, !due.IsZero() && !w.moment().Before(*due):
		*due = time.Time{}
		return true
	case due.IsZero():
		*due = w.moment().Add(interval)
	}
	if w.due.IsZero() || due.Before(w.due) {
		w.due = *due
	}
	return false
}

// tick does what the monitors have done since intervals passed, one after the other. It comes before every other
// change, and before answers.
func (w *World) tick() {
	if w.now == nil {
		return
	}
	for now := w.now(); !w.due.IsZero() && !now.Before(w.due); {
		w.at = w.due
		w.settle()
	}
	w.at = time.Time{}
}

// moment is the time for the monitors: that of what is made up for, or now.
func (w *World) moment() time.Time {
	if !w.at.IsZero() {
		return w.at
	}
	return w.now()
}

// nextClusterVersion is decideClusterVersion (server/etcdserver/version/monitor.go), in 3.5 monitorVersions
// (server/etcdserver/server.go), which knows no downgrade.
func (w *World) nextClusterVersion(leader *member) (version int, changes bool) {
	s, lowest := leader.data.state, w.lowestMinor(leader)
	switch {
	case lowest == 0: // a member did not answer
		return 0, false
	case s.downgrade != 0 && leader.minor() >= 6:
		return s.downgrade, s.clusterVersion == s.downgrade+1 && lowest == s.downgrade+1
	default: // 3.5 also follows a member that is one minor version older
		return lowest, s.clusterVersion < lowest || leader.minor() < 6 && s.clusterVersion == lowest+1
	}
}

// isDowngraded is CancelDowngradeIfNeeded (server/etcdserver/version/monitor.go), in 3.5 monitorDowngrade
// (server/etcdserver/server.go).
func (w *World) isDowngraded(leader *member) bool {
	s := leader.data.state
	if s.downgrade == 0 || w.lowestMinor(leader) != s.downgrade {
		return false
	}
	return !slices.ContainsFunc(w.group(leader), func(m *member) bool {
		_, listed := s.members[m.data.memberID]
		return listed && m.minor() != s.downgrade
	})
}

// lowestMinor returns the lowest minor version of all members of the list, learners included. It returns zero if one of
// them does not answer its peers. One that answers no clients yet does.
func (w *World) lowestMinor(leader *member) int {
	lowest, answers := 0, 0
	for _, m := range w.group(leader) {
		if _, listed := leader.data.state.members[m.data.memberID]; !listed {
			continue
		}
		answers++
		if lowest == 0 || m.minor() < lowest {
			lowest = m.minor()
		}
	}
	if answers < len(leader.data.state.members) {
		return 0
	}
	return lowest
}

// tellVersions adds to a probe what the port finds out about versions.
func (m *member) tellVersions(probe *cluster.Probe) {
	s := m.data.state
	if m.tellsStorageVersion() {
		probe.StorageVersion = versionOf(m.data.storage)
		probe.DowngradeEnabled, probe.DowngradeTarget = s.downgrade != 0, versionOf(s.downgrade)
	}
	isKnown := s.clusterVersion >= m.minor()-1 || probe.DowngradeEnabled // see readClusterVersion in internal/etcd/v3
	if probe.Linearizable && isKnown {
		probe.ClusterVersion, probe.DowngradeEnabled = versionOf(s.clusterVersion), s.downgrade != 0
	}
}

// validateDowngrade is DowngradeValidate (server/etcdserver/version/version.go), in 3.5 downgradeValidate
// (server/etcdserver/v3_server.go).
func (m *member) validateDowngrade(minor string) error {
	switch s := m.data.state; {
	case minorOf(minor) != s.clusterVersion-1:
		return etcd.ErrDowngradeTarget
	case s.downgrade != 0:
		return etcd.ErrDowngradeEnabled
	}
	return nil
}

// ValidateDowngrade implements etcd.Changer.
func (c Changer) ValidateDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	return c.change(ctx, target, true, func(_ *World, m *member) error { return m.validateDowngrade(minor) })
}

// EnableDowngrade implements etcd.Changer.
func (c Changer) EnableDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	return c.change(ctx, target, true, func(w *World, m *member) error {
		if err := m.validateDowngrade(minor); err != nil {
			return err
		}
		w.commit(m, func(s *state) { s.downgrade = minorOf(minor) })
		w.settle()
		if m.minor() < 6 { // Apply in server/etcdserver/apply.go (3.5) has no result for who waits
			return ErrNoAnswer
		}
		return nil
	})
}

// CancelDowngrade implements etcd.Changer.
func (c Changer) CancelDowngrade(ctx context.Context, target etcd.Target) error {
	return c.change(ctx, target, true, func(w *World, m *member) error {
		if m.data.state.downgrade != 0 {
			w.commit(m, func(s *state) { s.downgrade = 0 })
			w.settle()
		}
		return nil
	})
}

// EnableDowngrade enables a downgrade by one minor version through the member at the address, as etcdctl does. None
// goes below 3.5: 3.5 would take one, and not start again until it is cancelled.
func (w *World) EnableDowngrade(address string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return err
	}
	minor := m.data.state.clusterVersion - 1
	if minor < 5 {
		return etcd.ErrDowngradeTarget
	}
	if err := m.validateDowngrade(versionOf(minor)); err != nil {
		return err
	}
	w.commit(m, func(s *state) { s.downgrade = minor })
	w.settle()
	return nil
}

// CancelDowngrade cancels a downgrade through the member at the address, as etcdctl does.
func (w *World) CancelDowngrade(address string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return err
	}
	w.commit(m, func(s *state) { s.downgrade = 0 })
	w.settle()
	return nil
}
