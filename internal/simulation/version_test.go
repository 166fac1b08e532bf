package simulation_test

import (
	"errors"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// versions are those that a cluster is brought to, one after the other. Each step but the patches is a minor version.
var versions = []string{"3.5.35", "3.6.12", "3.6.16", "3.7.1", "3.7.3", "3.6.16", "3.5.35", "3.6.16", "3.7.3"}

func (h *history) bringTo(version string) {
	edit := func(spec *v1beta1.EtcdClusterSpec) { spec.Version = version }
	edit(&h.spec)
	h.editCluster(func(c *v1beta1.EtcdCluster) { edit(&c.Spec) })
}

func TestAClusterIsUpgradedAndDowngraded(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, size := range []int32{1, 3} {
		h := newHistory(size, size == 3)
		h.spec.Version = versions[0]
		for _, version := range versions {
			h.bringTo(version)
			h.settled(t)
			h.put()
			if got := h.cluster().Status.Version; got != version {
				t.Fatalf("%d members run %s, want %s: %+v", size, got, version, h.cluster().Status.Conditions)
			}
		}
	}
}

// The operator is killed before or after each write and each call to etcd, and its answer is lost.
func TestEveryKillOfAChangeOfVersionLeadsToIt(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, step := range [][2]string{{"3.5.35", "3.6.16"}, {"3.6.16", "3.7.3"}, {"3.7.3", "3.6.16"}} {
		for at, more := 0, true; more; at++ {
			for _, kill := range []func(*operator, int){
				func(o *operator, write int) { o.killBefore = write },
				func(o *operator, write int) { o.killAfter = write },
				func(o *operator, write int) { o.loseAnswer = write },
			} {
				h := newHistory(3, false)
				h.bringTo(step[0])
				h.settled(t)
				h.put()
				h.bringTo(step[1])
				more = h.workUntilKilled(at, kill)
				if h.settle(); len(h.broken) > 0 {
					t.Fatalf("from %s to %s, stopped at write %d: %s", step[0], step[1], at, h.failure())
				}
				if got := h.cluster().Status.Version; got != step[1] {
					t.Fatalf("from %s to %s, stopped at write %d: the members run %q: %s", step[0], step[1], at, got, h.failure())
				}
			}
		}
	}
}

// everyStopOfAChange stops a change of version after each write and each call to etcd, does something, and lets the
// cluster come to rest at the version that its spec then has.
func everyStopOfAChange(t *testing.T, from, to string, do func(*history)) {
	t.Helper()
	for at, more := 0, true; more; at++ {
		h := newHistory(3, false)
		h.bringTo(from)
		h.settled(t)
		h.put()
		h.bringTo(to)
		more = h.workUntilKilled(at, func(o *operator, write int) { o.killAfter = write })
		do(h)
		if h.settle(); len(h.broken) > 0 {
			t.Fatalf("from %s to %s, stopped at write %d: %s", from, to, at, h.failure())
		}
		if got := h.cluster().Status.Version; got != h.spec.Version {
			t.Fatalf("from %s to %s, stopped at write %d: the members run %q, want %s: %+v", from, to, at, got, h.spec.Version, h.cluster().Status.Conditions)
		}
	}
}

func TestAChangeOfMindAtAnyMomentOfAChangeOfVersionEndsRight(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, step := range [][2]string{{"3.5.35", "3.6.16"}, {"3.6.16", "3.7.3"}, {"3.7.3", "3.6.16"}} {
		everyStopOfAChange(t, step[0], step[1], func(h *history) { h.bringTo(step[0]) })
	}
}

func TestAVoterThatIsLostAtAnyMomentOfAChangeOfVersionOnlyHoldsItUp(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, step := range [][2]string{{"3.6.16", "3.7.3"}, {"3.7.3", "3.6.16"}} {
		everyStopOfAChange(t, step[0], step[1], func(h *history) {
			lost := h.Address(h.pods()[0])
			h.Etcd.Fail(lost, errors.New("no answer"))
			h.Etcd.Partition(lost)
			for range 10 {
				h.runKubernetes()
				_ = h.pass(nil) // etcd may refuse what is begun without the member
				h.observe()
				h.wait(10 * time.Second)
			}
		})
	}
}
