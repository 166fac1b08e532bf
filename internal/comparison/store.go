// Package comparison asks members for the hashes of their data outside of the passes, because each takes seconds, and
// remembers the answers.
package comparison

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// HashTimeout is how long a member gets to compute its hash. Its store is locked meanwhile, also where nobody waits for
// the answer any more.
const HashTimeout = 2 * time.Minute

// Store holds one comparison of each cluster. It is kept in memory only. A nil Store has none.
type Store struct {
	Etcd etcd.Hasher
	Now  func() time.Time
	// Start runs the work beside the pass: as a goroutine where it is nil.
	Start func(work func())

	mu       sync.Mutex
	clusters map[types.NamespacedName]*cluster.Comparison
}

// Question is for one member.
type Question struct {
	// Cause, Voters, Revision and Attempt are those of the comparison.
	Cause    string
	Voters   []cluster.ID
	Revision int64
	Attempt  int
	// Begins tells that it is a new comparison. Otherwise the question belongs to the last one.
	Begins bool
	Member string
	Target etcd.Target
}

// Of returns a copy of the last comparison of a cluster; nil where there is none.
func (s *Store) Of(key types.NamespacedName) *cluster.Comparison {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.clusters[key]
	if last == nil {
		return nil
	}
	c := *last
	c.Voters, c.Answers = slices.Clone(c.Voters), slices.Clone(c.Answers)
	return &c
}

// Forget drops what is known of a cluster that does not exist any more.
func (s *Store) Forget(key types.NamespacedName) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clusters, key)
}

// NoteDisarmed notes that the alarms were disarmed for what the last comparison found.
func (s *Store) NoteDisarmed(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clusters[key]; c != nil {
		c.Disarmed = s.Now()
	}
}

// NoteObeyed notes that the user who asked for the last comparison has its result: the same wish is a new one.
func (s *Store) NoteObeyed(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clusters[key]; c != nil {
		c.Cause = "a user asked for it"
	}
}

// Ask asks a member, unless one of its cluster is being asked, or the comparison is not the last one any more.
func (s *Store) Ask(key types.NamespacedName, q Question) {
	c := s.begin(key, q)
	if c == nil {
		return
	}
	work := func() { s.note(key, c, s.answer(q)) }
	if s.Start == nil {
		go work()
		return
	}
	s.Start(work)
}

// begin notes that a member is being asked, and returns its comparison; nil where it is not to be asked.
func (s *Store) begin(key types.NamespacedName, q Question) *cluster.Comparison {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusters[key]
	isLast := c != nil && c.Cause == q.Cause && c.Revision == q.Revision && c.Attempt == q.Attempt && slices.Equal(c.Voters, q.Voters)
	if c != nil && c.Asked != "" || !q.Begins && !isLast {
		return nil
	}
	if q.Begins {
		c = &cluster.Comparison{Cause: q.Cause, Voters: q.Voters, Revision: q.Revision, Attempt: q.Attempt}
		if s.clusters == nil {
			s.clusters = map[types.NamespacedName]*cluster.Comparison{}
		}
		s.clusters[key] = c
	}
	c.Asked = q.Member
	return c
}

// answer waits for the hash of a member.
func (s *Store) answer(q Question) cluster.Answer {
	ctx, cancel := context.WithTimeout(context.Background(), HashTimeout)
	defer cancel()
	a := cluster.Answer{Member: q.Member, ID: q.Target.MemberID}
	hash, err := s.Etcd.Hash(ctx, q.Target, q.Revision)
	if err != nil {
		a.Error = cluster.ForeignText(err.Error())
		a.WrongRevision = errors.Is(err, etcd.ErrCompacted) || errors.Is(err, etcd.ErrFutureRevision)
	}
	a.DataHash = hash
	return a
}

func (s *Store) note(key types.NamespacedName, c *cluster.Comparison, a cluster.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clusters[key] != c { // the cluster was forgotten meanwhile
		return
	}
	c.Asked, c.Answers, c.Ended = "", append(c.Answers, a), s.Now()
}
