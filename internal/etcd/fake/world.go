// Package fake models etcd clusters in memory, for tests: founding, restarts, quorum, leadership, learners and alarms.
// Its members start, refuse to start and lose data by the rules of real members. The integration suite of
// internal/etcd/v3 runs the same table against real processes.
// Nothing in it waits: every change takes effect before the call returns.
package fake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// The values of etcd's initial-cluster-state.
const (
	StateNew      = "new"
	StateExisting = "existing"
)

// The errors of members.
var (
	ErrUnreachable = errors.New("connection refused")
	ErrNoAnswer    = fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	ErrNoLeader    = etcd.ErrNoLeader
	ErrNoSpace     = errors.New("etcdserver: mvcc: database space exceeded")
	ErrLearner     = etcd.ErrLearner
	ErrCorrupt     = errors.New("etcdserver: corrupt cluster")
	ErrRemoved     = errors.New("the member has been permanently removed from the cluster")
)

// World holds members and their volumes. A volume remains when its member stops.
// Methods may be called concurrently.
type World struct {
	mu        sync.Mutex
	members   map[string]*member // running, by client address
	volumes   map[string]*dataDir
	cut       map[string]bool
	failures  map[string]error
	lagging   map[string]bool
	additions int
	now       func() time.Time // nil without a clock
	unfit     []Unfit
	due       time.Time // when a leader next compares versions; zero while there is nothing to do
	// at is the moment that a tick makes up for; zero outside of one.
	at time.Time
}

// New returns a world without members.
func New() *World {
	return &World{
		members:  map[string]*member{},
		volumes:  map[string]*dataDir{},
		cut:      map[string]bool{},
		failures: map[string]error{},
		lagging:  map[string]bool{},
	}
}

// member is a running etcd process.
type member struct {
	address, version string
	data             *dataDir
	leader           cluster.ID // as the member knows it; zero while there is none
	serving          bool       // whether the process has had a leader; before, its port is open but nothing answers
	// connectedAt is when the process was last connected to its peers. It is zero without a clock.
	connectedAt time.Time
	// match is the last entry that each member is known to have, by its ID. Only a leader has it, from its election on.
	match map[cluster.ID]int
	// monitoredTerm is the term in which the member, as leader, last compared versions. versionDue and downgradeDue are
	// when it next changes the cluster version, and when it ends the downgrade; zero if it does not.
	monitoredTerm            int
	versionDue, downgradeDue time.Time
	// storageDue is when the version of the member's data follows the cluster version.
	storageDue time.Time
	// logStart is the last entry that the process does not have in its log. A member that needs it gets a snapshot.
	logStart int
	// compactions are the hashes that the process computed when it compacted a revision.
	compactions map[int64]cluster.DataHash
	// published tells that a process of 3.5 has published itself.
	published bool
}

// dataDir is what a member stores on its volume.
type dataDir struct {
	clusterID, memberID cluster.ID
	name, peerURL       string
	state               *state
	removed             bool
	// storage is the minor version of the data; zero while it has none.
	storage int
	// snapshot is the last entry in the newest snapshot of the log, and appliedVersion the last cluster version that the
	// member applied.
	snapshot, appliedVersion int
	// corrupt tells that what lies on the disk is not what the member wrote.
	corrupt bool
	// broken tells that the database on the disk cannot be opened.
	broken bool
	// defragmented is how often the database was written anew.
	defragmented int
}

// state is the result of a member's log up to its last entry. It is never changed, only replaced.
type state struct {
	term, index int
	members     map[cluster.ID]peer
	keys        map[string]string
	alarms      map[cluster.Alarm]bool
	// removed are the members that were removed from the cluster. Their IDs are not used again.
	removed map[cluster.ID]bool
	// clusterVersion is the minor version that all members have, and downgrade the one that a downgrade goes to. Both are
	// zero for none.
	clusterVersion, downgrade int
	// oldEntry is the last entry that 3.7 cannot read; zero without any.
	oldEntry int
	// hashes are those of the keys at each revision, from the first write on. compacted is the last revision that was
	// compacted, zero for none.
	hashes    []uint32
	compacted int
}

// peer is an entry of the member list.
type peer struct {
	name, peerURL string
	learner       bool
	// published tells that the member has published its client URLs. It does so once, when it first has a leader.
	published bool
}

func (s *state) clone() *state {
	next := *s
	next.members, next.keys, next.alarms, next.removed = maps.Clone(s.members), maps.Clone(s.keys), maps.Clone(s.alarms), maps.Clone(s.removed)
	return &next
}

// newer orders logs as a vote does: by the term of the last entry, then by length.
func (s *state) newer(other *state) bool {
	return s.term > other.term || s.term == other.term && s.index > other.index
}

func (s *state) quorum() int {
	voters := 0
	for _, p := range s.members {
		if !p.learner {
			voters++
		}
	}
	return cluster.Quorum(voters)
}

func (s *state) voter(id cluster.ID) bool {
	p, ok := s.members[id]
	return ok && !p.learner
}

// refusal returns why writes are refused; nil while they are not.
func (s *state) refusal() error {
	var err error
	for alarm := range s.alarms {
		if alarm.Kind == cluster.AlarmCorrupt {
			return ErrCorrupt
		}
		err = ErrNoSpace
	}
	return err
}

// StartOptions are the options that decide how a member starts.
type StartOptions struct {
	// Address is the pod's IP and the client port.
	Address string
	Name    string
	PeerURL string
	// InitialCluster is the peer URL of each member by name. A member that finds data ignores it.
	// It then ignores the two options below as well.
	InitialCluster map[string]string
	State          string
	Token          string
	// Volume identifies the volume that the data directory lies on.
	Volume  string
	Version string
}

// Start starts a member. An error means that etcd would exit. Nil does not mean that the member has a quorum.
func (w *World) Start(o StartOptions) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	if w.members[o.Address] != nil {
		return fmt.Errorf("starting %s: the address %s is in use", o.Name, o.Address)
	}
	data := w.volumes[o.Volume]
	for _, m := range w.members {
		if data != nil && m.data == data {
			return fmt.Errorf("starting %s: the volume %s is in use by %s", o.Name, o.Volume, m.data.name)
		}
	}
	if data == nil {
		var err error
		if data, err = w.bootstrap(o); err != nil {
			return fmt.Errorf("starting %s: %w", o.Name, err)
		}
		w.volumes[o.Volume] = data
	}
	if data.broken {
		return fmt.Errorf("starting %s: %w", o.Name, ErrDatabase)
	}
	if data.removed {
		return fmt.Errorf("starting %s: %w", o.Name, ErrRemoved)
	}
	if err := refusesToStart(data, minorOf(o.Version)); err != nil {
		w.noteUnfit(data, o.Version, err)
		return fmt.Errorf("starting %s: %w", o.Name, err)
	}
	if w.isInconsistent(data, minorOf(o.Version)) {
		return fmt.Errorf("starting %s: %s %w", o.Name, data.memberID, ErrInconsistent)
	}
	w.members[o.Address] = &member{address: o.Address, version: o.Version, data: data, connectedAt: w.clock(), logStart: data.snapshot}
	w.settle()
	if data.removed { // a peer said so
		return fmt.Errorf("starting %s: %w", o.Name, ErrRemoved)
	}
	if w.members[o.Address] == nil { // it got entries from a peer that its binary does not fit
		return fmt.Errorf("starting %s: %w", o.Name, refusesToStart(data, minorOf(o.Version)))
	}
	return nil
}

// Stop ends the member at the address, if there is one. Its volume stays.
func (w *World) Stop(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	delete(w.members, address)
	w.settle()
}

// Wipe empties a volume. It panics if a member runs on it: that is a mistake of the test.
func (w *World) Wipe(volume string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.members {
		if m.data == w.volumes[volume] {
			panic("wiping " + volume + " under the running " + m.data.name)
		}
	}
	delete(w.volumes, volume)
}

// Copy makes a second volume with what lies on one, as a snapshot of it holds. An empty volume has no copy.
func (w *World) Copy(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if data := w.volumes[from]; data != nil {
		copied := *data
		w.volumes[to] = &copied
	}
}

// Partition separates the member at the address from its peers. Clients still reach it. Heal ends the partition.
func (w *World) Partition(address string) { w.setCut(address, true) }

// Heal ends a partition.
func (w *World) Heal(address string) { w.setCut(address, false) }

func (w *World) setCut(address string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	if m := w.members[address]; m != nil && w.cut[address] && !cut {
		m.connectedAt = w.clock()
	}
	w.cut[address] = cut
	w.settle()
}

// Fail makes every request to the address fail with err, as a broken network or a wrong certificate would. Nil ends it.
func (w *World) Fail(address string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.failures, address)
		return
	}
	w.failures[address] = err
}

// Put writes a key through the member at the address.
func (w *World) Put(address, key, value string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return err
	}
	if err := m.data.state.refusal(); err != nil {
		return err
	}
	w.commit(m, func(s *state) {
		s.keys[key] = value
		s.noteHash()
	})
	return nil
}

// Get reads a key linearizably through the member at the address. It returns "" for a key that does not exist.
func (w *World) Get(address, key string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return "", err
	}
	return m.data.state.keys[key], nil
}

// SetAlarm raises an alarm of the member at the address.
func (w *World) SetAlarm(address string, kind cluster.AlarmKind) error {
	return w.changeAlarms(address, func(s *state, id cluster.ID) { s.alarms[cluster.Alarm{Member: id, Kind: kind}] = true })
}

// ClearAlarm disarms an alarm of the member at the address.
func (w *World) ClearAlarm(address string, kind cluster.AlarmKind) error {
	return w.changeAlarms(address, func(s *state, id cluster.ID) { delete(s.alarms, cluster.Alarm{Member: id, Kind: kind}) })
}

func (w *World) changeAlarms(address string, change func(*state, cluster.ID)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return err
	}
	w.commit(m, func(s *state) { change(s, m.data.memberID) })
	return nil
}

// Ready reports whether /readyz of the member at the address succeeds: it reads linearizably, and there is no alarm
// for corruption. Clients need not reach it.
func (w *World) Ready(address string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	if !w.serves(address) {
		return false
	}
	for alarm := range w.members[address].data.state.alarms {
		if alarm.Kind == cluster.AlarmCorrupt {
			return false
		}
	}
	return true
}

// Serves reports whether the voter at the address reads linearizably, whatever alarms there are.
func (w *World) Serves(address string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	return w.serves(address)
}

func (w *World) serves(address string) bool {
	m := w.members[address]
	return m != nil && m.serving && m.leader != 0 && !m.data.state.members[m.data.memberID].learner
}

// serving returns the member at the address if it can answer linearizable reads.
func (w *World) serving(address string) (*member, error) {
	m, err := w.running(address)
	switch {
	case err != nil:
		return nil, err
	case m.data.state.members[m.data.memberID].learner:
		return nil, ErrLearner
	case m.leader == 0:
		return nil, ErrNoLeader
	}
	return m, nil
}

func (w *World) running(address string) (*member, error) {
	w.tick()
	if err := w.failures[address]; err != nil {
		return nil, err
	}
	m := w.members[address]
	switch {
	case m == nil:
		return nil, ErrUnreachable
	case !m.serving:
		return nil, ErrNoAnswer
	}
	return m, nil
}

// group returns the members that m talks to, itself included, ordered by ID.
func (w *World) group(m *member) []*member {
	if w.cut[m.address] {
		return []*member{m}
	}
	var group []*member
	for _, other := range w.members {
		if !w.cut[other.address] && other.data.clusterID == m.data.clusterID {
			group = append(group, other)
		}
	}
	slices.SortFunc(group, func(a, b *member) int { return cmp.Compare(a.data.memberID, b.data.memberID) })
	return group
}

// settle ends removed members, elects leaders, publishes members and compares versions until nothing changes any more.
func (w *World) settle() {
	for changed := true; changed; {
		changed = false
		w.due = time.Time{}
		w.endRemoved()
		for _, m := range w.members {
			group := w.group(m)
			leader := elect(group)
			w.follow(group, leader)
			if leader != nil {
				w.publish(leader, group)
				w.noteOldEntries(leader, group)
				changed = w.monitor(leader) || changed
			}
		}
		w.snapshots()
		w.migrate()
		changed = w.endUnfit() || changed
	}
}

// elect returns the group's leader: the present one, or a new one with a new term. It returns nil without a quorum.
func elect(group []*member) *member {
	var best *member
	for _, candidate := range group {
		if !electable(candidate, group) {
			continue
		}
		if candidate.leader == candidate.data.memberID {
			return candidate
		}
		if best == nil || candidate.data.state.newer(best.data.state) {
			best = candidate
		}
	}
	if best == nil {
		return nil
	}
	next := best.data.state.clone()
	for _, m := range group {
		next.term = max(next.term, m.data.state.term)
	}
	next.term++
	next.index++
	best.data.state = next
	best.match = nil
	return best
}

// electable reports whether a quorum of the voters that the candidate knows would vote for it.
func electable(candidate *member, group []*member) bool {
	s := candidate.data.state
	if !s.voter(candidate.data.memberID) {
		return false
	}
	votes := 0
	for _, m := range group {
		granted := candidate.leader == candidate.data.memberID || !m.data.state.newer(s)
		if s.voter(m.data.memberID) && granted {
			votes++
		}
	}
	return votes >= s.quorum()
}

// follow gives the leader's log to every member of the group that the leader knows, except learners that lag. Other
// entries are lost, as in raft.
func (w *World) follow(group []*member, leader *member) {
	if leader != nil && leader.match == nil {
		leader.match = map[cluster.ID]int{}
	}
	for _, m := range group {
		m.leader = 0
		if leader == nil {
			continue
		}
		entry, known := leader.data.state.members[m.data.memberID]
		if !known {
			continue
		}
		m.leader = leader.data.memberID
		if m.data.state.index < leader.logStart { // the leader sends a snapshot instead
			m.data.snapshot, m.data.corrupt = leader.data.state.index, leader.data.corrupt
		}
		if !entry.learner || !w.lagging[m.address] {
			m.serving, m.data.state = true, leader.data.state
		}
		leader.match[m.data.memberID] = m.data.state.index
	}
}

func (w *World) publish(leader *member, group []*member) {
	for _, m := range group {
		id := m.data.memberID
		if entry, known := leader.data.state.members[id]; !known || entry.published && entry.name == m.data.name {
			continue
		}
		w.commit(leader, func(s *state) {
			entry := s.members[id]
			entry.name, entry.published = m.data.name, true
			s.members[id] = entry
		})
	}
}

// commit appends one entry through a member that has a leader.
func (w *World) commit(m *member, change func(*state)) {
	group := w.group(m)
	leader := group[slices.IndexFunc(group, func(other *member) bool { return other.data.memberID == m.leader })]
	next := leader.data.state.clone()
	next.index++
	change(next)
	leader.data.state = next
	w.follow(group, leader)
}
