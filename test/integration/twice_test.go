//go:build integration

package integration

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
)

// TestAnOperatorThatIsHeldUpBeforeAWriteMeetsAnotherOnesWork stops an operator before each of its writes
// and lets another one work. Then the first one continues with its old decision.
func TestAnOperatorThatIsHeldUpBeforeAWriteMeetsAnotherOnesWork(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios {
		if !full() && s.name != "create" && s.name != "take back" && s.pairs == 0 {
			continue
		}
		for _, meantime := range []struct {
			name  string
			every int // how many writes there are to one before which the operator is held up
			work  func(*lab, *operator)
		}{
			{"everything", s.pairs, func(l *lab, other *operator) { l.workAlone(other) }},
			{"one pass", 3, func(l *lab, other *operator) { l.pass(other) }}, // in the whole matrix only, which it would double
		} {
			every := meantime.every
			if full() && meantime.name == "everything" {
				every = 1
			}
			if isAll := meantime.name == "everything"; !full() && !isAll || isAll && s.returnsLate {
				continue
			}
			t.Run(s.name+" while the other does "+meantime.name, func(t *testing.T) {
				t.Parallel()
				s.playTwice(t, every, meantime.work, func(l *lab) { s.check(l, "") })
			})
		}
	}
}

// TestTwoOperatorsNeverFoundTwoClustersWhenTheSpecChangesBetweenThem
// changes the spec between the decisions of the two operators.
func TestTwoOperatorsNeverFoundTwoClustersWhenTheSpecChangesBetweenThem(t *testing.T) {
	t.Parallel()
	create := scenario{begin: func(l *lab) { l.create(3) }}
	secured := scenario{prepare: (*lab).createCertificates, begin: create.begin}
	again := scenario{
		prepare: func(l *lab) { l.createWithData(); l.remove() },
		begin:   func(l *lab) { l.create(3) },
	}
	for _, c := range []struct {
		name     string
		rare     bool
		scenario scenario
		change   func(*v1beta1.EtcdCluster)
	}{
		{"a larger size", true, create, func(c *v1beta1.EtcdCluster) { c.Spec.Replicas = 5 }},
		{"a smaller size", false, create, func(c *v1beta1.EtcdCluster) { c.Spec.Replicas = 1 }},
		{"other peer URLs", true, secured, func(c *v1beta1.EtcdCluster) {
			c.Spec.Replicas = 5
			c.Spec.TLS = clustertest.FromSecrets(peerSecret, "", "")
		}},
		{"an empty start instead of the kept volumes", false, again, startEmpty},
	} {
		if c.rare && !full() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			meantime := func(l *lab, other *operator) {
				l.change(c.change)
				l.workAlone(other)
			}
			c.scenario.playTwice(t, 1, meantime, (*lab).expectOneCluster)
		})
	}
}

// workAlone runs an operator and Kubernetes until nothing changes, while the lab's own operator is held up.
func (l *lab) workAlone(o *operator) {
	l.Helper()
	held := l.operator
	l.operator = o
	l.settle()
	l.operator = held
}

// playTwice plays the scenario once for each write of an undisturbed operator, or one of every few,
// and lets another operator work before that write.
func (s *scenario) playTwice(t *testing.T, every int, meantime func(*lab, *operator), check func(*lab)) {
	writes := s.start(t, nil).operator.writes
	for n, at := range writes {
		if n%max(1, every) > 0 {
			continue
		}
		t.Run("before "+at.String(), func(t *testing.T) {
			t.Parallel()
			var other *operator
			l := s.start(t, func(l *lab, w failpoint.Write) {
				if w == at && other == nil {
					other = l.newOperator(failpoint.Hooks{})
					meantime(l, other)
				}
			})
			if other == nil && !s.mayLack(at) {
				t.Fatalf("the operator did not come to %s", at)
			}
			if other == nil {
				return
			}
			s.settleBoth(l, other)
			check(l)
		})
	}
}

// start plays the scenario with a hook before each write of the operator.
func (s *scenario) start(t *testing.T, before func(*lab, failpoint.Write)) *lab {
	l := newLab(t)
	if before != nil {
		mirror(t, l.namespace)
	}
	if s.prepare != nil {
		s.prepare(l)
	}
	hooks := failpoint.Hooks{}
	if before != nil {
		hooks.Before = func(w failpoint.Write) error { before(l, w); return nil }
	}
	l.operator = l.newOperator(hooks)
	s.begin(l)
	s.settle(l)
	return l
}

// settleBoth lets both operators work, and again after what they wait for.
func (s *scenario) settleBoth(l *lab, other *operator) {
	l.Helper()
	l.settleBoth(other)
	if s.patience > 0 {
		for range max(1, s.waits) {
			l.now = l.now.Add(s.patience)
			l.settleBoth(other)
		}
	}
}

// expectOneCluster fails unless one founding list was started, completely, and serves.
func (l *lab) expectOneCluster() {
	l.Helper()
	c := l.get()
	var numbers []int
	for _, m := range c.Status.Members {
		number, _ := cluster.MemberNumber(name, m.Name)
		numbers = append(numbers, number)
	}
	if len(numbers) != int(c.Spec.Replicas) {
		l.Fatalf("members = %v, and the spec asks for %d; conditions: %s", numbers, c.Spec.Replicas, showAll(c))
	}
	l.expectSealed(c, numbers...)
	l.put("acknowledged after", "yes")
	if numbers[0] > 0 { // it started empty
		delete(l.written, "acknowledged")
	}
	l.checkData(len(numbers))
}

// TestAnOperatorThatSeesThePastFoundsNothingTwice pairs an operator with one whose cache is one pass behind.
func TestAnOperatorThatSeesThePastFoundsNothingTwice(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios {
		if s.name == "create with TLS" {
			continue
		}
		for _, lag := range []int{1, 3} {
			if lag > 1 && !full() {
				continue
			}
			t.Run(fmt.Sprintf("%s, %d passes behind", s.name, lag), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				mirror(t, l.namespace)
				if s.prepare != nil {
					s.prepare(l)
				}
				past := &behind{reader: cached{operatorClient}, lag: lag, seen: map[string][]runtime.Object{}}
				other := l.newOperatorReading(failpoint.Hooks{}, past)
				l.pass(other)
				s.begin(l)
				for range mostRounds {
					l.pass(other)
					if !l.round() && past.caughtUp() {
						break
					}
				}
				s.settleBoth(l, other)
				s.check(l, "")
			})
		}
	}
}

// behind answers each question with what the answer was lag times ago, as a cache that lags behind.
type behind struct {
	reader client.Reader
	lag    int
	seen   map[string][]runtime.Object
}

type answer struct {
	client.Object
	err error
}

func (b *behind) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	fresh := object.DeepCopyObject().(client.Object)
	err := b.reader.Get(ctx, key, fresh, options...)
	old := b.answer(fmt.Sprintf("%T %s", object, key), &answer{Object: fresh, err: err}).(*answer)
	reflect.ValueOf(object).Elem().Set(reflect.ValueOf(old.DeepCopyObject()).Elem())
	return old.err
}

func (b *behind) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	fresh := list.DeepCopyObject().(client.ObjectList)
	if err := b.reader.List(ctx, fresh, options...); err != nil {
		return err
	}
	items, err := meta.ExtractList(fresh)
	if err != nil {
		return err
	}
	slices.SortFunc(items, func(a, b runtime.Object) int { // a cache has no order: see caughtUp
		return strings.Compare(a.(client.Object).GetName(), b.(client.Object).GetName())
	})
	if err := meta.SetList(fresh, items); err != nil {
		return err
	}
	old := b.answer(fmt.Sprintf("%T", list), fresh)
	reflect.ValueOf(list).Elem().Set(reflect.ValueOf(old.DeepCopyObject()).Elem())
	return nil
}

func (b *behind) answer(question string, fresh runtime.Object) runtime.Object {
	b.seen[question] = append(b.seen[question], fresh)
	all := b.seen[question]
	return all[max(0, len(all)-1-b.lag)]
}

// caughtUp reports whether the last answers to each question, as far back as this reader looks, are all the same.
func (b *behind) caughtUp() bool {
	for _, answers := range b.seen {
		for _, old := range answers[max(0, len(answers)-1-b.lag):] {
			if !reflect.DeepEqual(old, answers[len(answers)-1]) {
				return false
			}
		}
	}
	return true
}
