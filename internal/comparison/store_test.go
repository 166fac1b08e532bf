package comparison

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

var key = types.NamespacedName{Namespace: "shop", Name: "prod"}

type hasher func(etcd.Target, int64) (cluster.DataHash, error)

func (h hasher) Hash(_ context.Context, target etcd.Target, revision int64) (cluster.DataHash, error) {
	return h(target, revision)
}

// store answers questions when its work is run.
func store(h hasher) (s *Store, work *[]func()) {
	work = &[]func(){}
	s = &Store{Etcd: h, Now: func() time.Time { return time.Unix(1000, 0) }, Start: func(f func()) { *work = append(*work, f) }}
	return s, work
}

func question(member string, begins bool) Question {
	return Question{Cause: "a test", Voters: []cluster.ID{1, 2}, Revision: 7, Attempt: 1, Begins: begins, Member: member, Target: etcd.Target{MemberID: cluster.ID(len(member))}}
}

func TestOneMemberOfAClusterIsAskedAtATime(t *testing.T) {
	s, work := store(func(etcd.Target, int64) (cluster.DataHash, error) { return cluster.DataHash{Hash: 5}, nil })
	s.Ask(key, question("a", true))
	s.Ask(key, question("bb", false))
	if c := s.Of(key); len(*work) != 1 || c.Asked != "a" || len(c.Answers) != 0 {
		t.Fatalf("%d are asked: %+v", len(*work), c)
	}
	(*work)[0]()
	s.Ask(key, question("bb", false))
	(*work)[1]()
	if c := s.Of(key); c.Asked != "" || len(c.Answers) != 2 || c.Of(2).Hash != 5 || !c.Agrees() || !c.Ended.Equal(s.Now()) {
		t.Errorf("%+v", c)
	}
}

func TestAnAnswerBelongsToItsComparison(t *testing.T) {
	s, work := store(func(etcd.Target, int64) (cluster.DataHash, error) { return cluster.DataHash{}, nil })
	s.Ask(key, question("a", false))
	if c := s.Of(key); c != nil {
		t.Errorf("a comparison that an earlier process began goes on: %+v", c)
	}
	s.Ask(key, question("a", true))
	s.Forget(key)
	(*work)[0]()
	if c := s.Of(key); c != nil {
		t.Errorf("a cluster that is gone is remembered: %+v", c)
	}
}

func TestFailuresAreAnswers(t *testing.T) {
	for err, wrongRevision := range map[error]bool{etcd.ErrCompacted: true, etcd.ErrFutureRevision: true, errors.New("no answer"): false} {
		s, work := store(func(etcd.Target, int64) (cluster.DataHash, error) { return cluster.DataHash{}, err })
		s.Ask(key, question("a", true))
		(*work)[0]()
		if a := s.Of(key).Of(1); a == nil || a.Error == "" || a.WrongRevision != wrongRevision {
			t.Errorf("%v: %+v", err, a)
		}
	}
}

// The same value of the annotation is a new wish once the first one was obeyed.
func TestAnObeyedWishIsNoCauseAnyMore(t *testing.T) {
	s, work := store(func(etcd.Target, int64) (cluster.DataHash, error) { return cluster.DataHash{}, nil })
	s.Ask(key, question("a", true))
	(*work)[0]()
	s.NoteObeyed(key)
	if c := s.Of(key); c.Cause == "a test" {
		t.Errorf("%+v", c)
	}
	if s.NoteDisarmed(key); s.Of(key).Disarmed.IsZero() {
		t.Error("the end of the alarms is not noted")
	}
	if none := (*Store)(nil); none.Of(key) != nil {
		t.Error("a nil store has a comparison")
	}
}
