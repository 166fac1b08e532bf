package fake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// The checks below are those of etcd's server with strict-reconfig-check, in its order. Unless another file is named,
// they are in server/etcdserver/server.go. They are the same in 3.5, 3.6 and 3.7.

// healthInterval is how long a peer must have been connected to count: HealthInterval.
const healthInterval = 5 * time.Second

// maxLearners is how many learners a cluster may have: DefaultMaxLearners (api/membership/cluster_opts.go), and in 3.5
// maxLearners (api/membership/cluster.go).
const maxLearners = 1

// SetClock tells the time, by which peers have been connected for long or not. Without a clock they always have.
func (w *World) SetClock(now func() time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = now
}

func (w *World) clock() time.Time {
	if w.now == nil {
		return time.Time{}
	}
	return w.now()
}

// Lag makes a learner at the address receive no entries from its leader, though it is connected, or ends that.
// A voter receives its entries anyway.
func (w *World) Lag(address string, lags bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lagging[address] = lags
	w.settle()
}

// AddLearner adds a learner through the member at the address and returns its ID, which differs with every call.
func (w *World) AddLearner(address, peerURL string) (cluster.ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return 0, err
	}
	return w.addLearner(m, peerURL)
}

// AddVoter adds a voter, as `etcdctl member add` does and the operator never does.
func (w *World) AddVoter(address, peerURL string) (cluster.ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return 0, err
	}
	return w.addVoter(m, peerURL)
}

// through makes a change of one member through a member that serves.
func (w *World) through(address string, id cluster.ID, change func(*member, cluster.ID) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.serving(address)
	if err != nil {
		return err
	}
	return change(m, id)
}

// Promote makes a learner a voter, through any voter: it passes the request on to its leader.
func (w *World) Promote(address string, id cluster.ID) error {
	return w.through(address, id, w.promote)
}

// Remove takes a member out of the cluster. Its process ends once it learns of it, and never starts again.
func (w *World) Remove(address string, id cluster.ID) error {
	return w.through(address, id, w.remove)
}

// MoveLeader makes a voter the leader, through the present one.
func (w *World) MoveLeader(address string, to cluster.ID) error {
	return w.through(address, to, w.moveLeader)
}

// addLearner is mayAddMember, then ValidateConfigurationChange (api/membership/cluster.go).
func (w *World) addLearner(m *member, peerURL string) (cluster.ID, error) {
	switch s := m.data.state; {
	case !w.mayAdd(m):
		return 0, etcd.ErrUnhealthy
	case s.hasPeerURL(peerURL):
		return 0, etcd.ErrPeerURLExists
	case len(s.members)-len(s.voters()) >= maxLearners:
		return 0, etcd.ErrTooManyLearners
	}
	return w.add(m, peer{peerURL: peerURL, learner: true}), nil
}

// addVoter is mayAddMember with IsReadyToAddVotingMember (api/membership/cluster.go). A single voter may add one.
func (w *World) addVoter(m *member, peerURL string) (cluster.ID, error) {
	voters := m.data.state.voters()
	switch {
	case len(voters) > 1 && started(voters) < cluster.Quorum(len(voters)+1):
		return 0, etcd.ErrNotEnoughStarted
	case !w.mayAdd(m):
		return 0, etcd.ErrUnhealthy
	case m.data.state.hasPeerURL(peerURL):
		return 0, etcd.ErrPeerURLExists
	}
	id := w.add(m, peer{peerURL: peerURL})
	w.settle() // a second voter takes the quorum away until it runs
	return id, nil
}

func (w *World) add(m *member, p peer) cluster.ID {
	w.additions++
	id := memberID(p.peerURL, fmt.Sprintf("%s addition %d", m.data.clusterID, w.additions))
	w.commit(m, func(s *state) { s.members[id] = p })
	return id
}

func (s *state) hasPeerURL(url string) bool {
	for _, p := range s.members {
		if p.peerURL == url {
			return true
		}
	}
	return false
}

// mayAdd reports whether a member may be added. The new one counts as lost, and a learner counts as a voter:
// isConnectedToQuorumAfterAddingNewMemberSince (util.go). A single voter may always add.
func (w *World) mayAdd(m *member) bool {
	voters := len(m.data.state.voters())
	return voters == 1 || w.longConnected(m) >= cluster.Quorum(voters+1)
}

// promote is mayPromoteMember on the leader, then ValidateConfigurationChange.
func (w *World) promote(m *member, id cluster.ID) error {
	leader := w.leaderOf(m)
	p, known := leader.data.state.members[id]
	voters := leader.data.state.voters()
	voters[id] = peer{name: "counts as started"}
	switch {
	case !known:
		return etcd.ErrMemberNotFound
	case !leader.hasCaughtUp(id):
		return etcd.ErrLearnerNotReady
	case !enoughStarted(voters): // IsReadyToPromoteMember (api/membership/cluster.go)
		return etcd.ErrNotEnoughStarted
	case !p.learner:
		return etcd.ErrNotLearner
	}
	w.commit(m, func(s *state) {
		p := s.members[id]
		p.learner = false
		s.members[id] = p
	})
	w.settle()
	return nil
}

// hasCaughtUp is isLearnerReady: 90% of the leader's log. A learner that does not run any more may pass.
func (m *member) hasCaughtUp(id cluster.ID) bool {
	return m.match[id]*10 >= m.data.state.index*9
}

// remove is mayRemoveMember, then ValidateConfigurationChange.
func (w *World) remove(m *member, id cluster.ID) error {
	p, known := m.data.state.members[id]
	if !p.learner {
		if err := w.mayRemoveVoter(m, id); err != nil {
			return err
		}
	}
	if !known {
		return etcd.ErrMemberNotFound
	}
	w.commit(m, func(s *state) {
		delete(s.members, id)
		s.removed[id] = true
	})
	w.settle()
	return nil
}

func (w *World) mayRemoveVoter(m *member, id cluster.ID) error {
	voters := m.data.state.voters()
	left := maps.Clone(voters)
	delete(left, id)
	isConnected := slices.ContainsFunc(w.group(m), func(other *member) bool { return other.data.memberID == id })
	switch {
	case !enoughStarted(left): // IsReadyToRemoveVotingMember (api/membership/cluster.go)
		return etcd.ErrNotEnoughStarted
	case !isConnected: // a member that is down is no part of the active quorum
		return nil
	case w.longConnected(m)-1 < cluster.Quorum(len(voters)-1):
		return etcd.ErrUnhealthy
	}
	return nil
}

// moveLeader is MoveLeader, in api/v3rpc/maintenance.go and server.go. A voter that is not connected never takes over:
// the leader refuses writes for one election timeout and keeps its role, and the call ends at its deadline.
func (w *World) moveLeader(m *member, to cluster.ID) error {
	switch {
	case m.leader != m.data.memberID:
		return etcd.ErrNotLeader
	case !m.data.state.voter(to):
		return etcd.ErrBadTransferee
	case to == m.data.memberID:
		return nil
	}
	group := w.group(m)
	at := slices.IndexFunc(group, func(other *member) bool { return other.data.memberID == to })
	if at < 0 {
		return ErrNoAnswer
	}
	next := m.data.state.clone()
	next.term++
	next.index++
	group[at].data.state, group[at].match = next, nil
	w.follow(group, group[at])
	w.settle()
	return nil
}

// voters returns the voters.
func (s *state) voters() map[cluster.ID]peer {
	voters := maps.Clone(s.members)
	maps.DeleteFunc(voters, func(_ cluster.ID, p peer) bool { return p.learner })
	return voters
}

// enoughStarted reports whether the voters that count as started are a quorum of all.
func enoughStarted(voters map[cluster.ID]peer) bool {
	return started(voters) >= cluster.Quorum(len(voters))
}

// started counts the voters that have a name: IsStarted (api/membership/member.go). A founder has one before it starts.
func started(voters map[cluster.ID]peer) int {
	count := 0
	for _, p := range voters {
		if p.name != "" {
			count++
		}
	}
	return count
}

// longConnected counts the voters that m has been connected to for long enough, itself included: numConnectedSince
// (util.go). They need not serve.
func (w *World) longConnected(m *member) int {
	count := 0
	for _, other := range w.group(m) {
		isLong := other == m || w.now == nil || w.connectedAt(m, other).Before(w.now().Add(-healthInterval))
		if m.data.state.voter(other.data.memberID) && isLong {
			count++
		}
	}
	return count
}

// connectedAt returns since when two members have been connected.
func (w *World) connectedAt(a, b *member) time.Time {
	if a.connectedAt.After(b.connectedAt) {
		return a.connectedAt
	}
	return b.connectedAt
}

func (w *World) leaderOf(m *member) *member {
	group := w.group(m)
	return group[slices.IndexFunc(group, func(other *member) bool { return other.data.memberID == m.leader })]
}

// endRemoved ends the members that were removed and that learn of it, from their own log or from a peer. A peer says so
// even without a quorum: ServeHTTP of streamHandler, in api/rafthttp/http.go.
func (w *World) endRemoved() {
	var ended []*member
	for _, m := range w.members {
		id := m.data.memberID
		if slices.ContainsFunc(w.group(m), func(other *member) bool { return other.data.state.removed[id] }) {
			m.data.removed = true
			ended = append(ended, m)
		}
	}
	for _, m := range ended {
		delete(w.members, m.address)
	}
}

// Defragmented returns how often the database on a volume was defragmented.
func (w *World) Defragmented(volume string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if data := w.volumes[volume]; data != nil {
		return data.defragmented
	}
	return 0
}

// Changer changes the World's clusters as the operator does.
type Changer struct{ World *World }

var _ etcd.Changer = Changer{}

// AddLearner implements etcd.Changer.
func (c Changer) AddLearner(
	ctx context.Context, target etcd.Target, peerURL string,
) (id cluster.ID, members []cluster.EtcdMember, err error) {
	err = c.change(ctx, target, false, func(w *World, m *member) error {
		if id, err = w.addLearner(m, peerURL); err == nil {
			members = list(m.data.state)
		}
		return err
	})
	return id, members, err
}

// Promote implements etcd.Changer.
func (c Changer) Promote(ctx context.Context, target etcd.Target, learner cluster.ID) error {
	return c.change(ctx, target, true, func(w *World, m *member) error { return w.promote(m, learner) })
}

// RemoveMember implements etcd.Changer.
func (c Changer) RemoveMember(ctx context.Context, target etcd.Target, id cluster.ID) error {
	return c.change(ctx, target, false, func(w *World, m *member) error { return w.remove(m, id) })
}

// AppendEntry implements etcd.Changer.
func (c Changer) AppendEntry(ctx context.Context, target etcd.Target) error {
	return c.change(ctx, target, true, func(w *World, m *member) error {
		w.commit(m, func(*state) {})
		return nil
	})
}

// Defragment implements etcd.Changer. The member answers again when the call returns.
func (c Changer) Defragment(ctx context.Context, target etcd.Target) error {
	return c.change(ctx, target, false, func(_ *World, m *member) error {
		m.data.defragmented++
		return nil
	})
}

// MoveLeader implements etcd.Changer.
func (c Changer) MoveLeader(ctx context.Context, target etcd.Target, to cluster.ID) error {
	return c.change(ctx, target, true, func(w *World, m *member) error { return w.moveLeader(m, to) })
}

// change carries out a change by the member at the target's address. That must be the target, and the leader if
// leaderOnly.
func (c Changer) change(
	ctx context.Context, target etcd.Target, leaderOnly bool, carryOut func(*World, *member) error,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.World.mu.Lock()
	defer c.World.mu.Unlock()
	m, err := c.World.running(target.Endpoint.Address)
	if err != nil {
		return err
	}
	if err := target.Verify(m.data.clusterID, m.data.memberID); err != nil {
		return err
	}
	if leaderOnly && m.leader != 0 && m.leader != m.data.memberID {
		return etcd.ErrNotLeader
	}
	if m, err = c.World.serving(target.Endpoint.Address); err != nil {
		return err
	}
	return carryOut(c.World, m)
}
