package simulation_test

import (
	"os"
	"testing"
	"testing/cryptotest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"

	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// settled lets the cluster come to rest, and ends the test where it does not serve, up to date, with all members.
func (h *history) settled(t *testing.T) {
	t.Helper()
	if h.settle(); len(h.broken) > 0 {
		t.Fatal(h.failure())
	}
}

func TestEveryKillOfAFoundingLeadsToTheSameCluster(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for at := range 60 {
		h := newHistory(3, at%2 == 0)
		for left := at; left >= 0; left -= h.writes {
			_ = h.pass(func(o *operator) {
				if at%4 < 2 {
					o.killBefore = left
				} else {
					o.killAfter = left
				}
			})
			h.runKubernetes()
			if h.writes == 0 {
				break
			}
		}
		if h.settle(); len(h.broken) > 0 {
			t.Errorf("killed at write %d: %s", at, h.failure())
		}
	}
}

// Another operator stops before each write of each pass of a rotation, and goes on when more of the rotation is over.
func TestEveryPauseOfARotationHarmsNoMember(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	stopped := map[simulation.Verb]int{}
	for _, c := range pausedPasses() {
		for write := range c.writes {
			h := newHistory(3, true)
			h.rest()
			h.put()
			h.rotate()
			for range c.round {
				h.work()
			}
			o := h.startOperator()
			verb, stops := o.lookAtWrite(write)
			if !stops {
				break
			}
			if stopped[verb]++; verb == simulation.Evict && stopped[verb]%2 == 0 {
				h.drainAnother(t)
			}
			for range 4 {
				h.work()
			}
			o.finish()
			h.observe()
			if h.settle(); len(h.broken) > 0 {
				t.Errorf("stopped in round %d before write %d, %s: %s", c.round, write, verb, h.failure())
			}
		}
	}
	t.Logf("stopped before %v", stopped)
	for verb, least := range map[simulation.Verb]int{simulation.Evict: 2, simulation.UpdateStatus: 2, simulation.Update: 1} {
		if stopped[verb] < least {
			t.Errorf("%d passes stopped before %s, not %d: %v", stopped[verb], verb, least, stopped)
		}
	}
}

// pausedPass is a pass of a rotation, and how many of its writes are paused at most.
type pausedPass struct{ round, writes int }

// pausedPasses are all passes of a rotation of three members. The test of every run takes the first of them.
func pausedPasses() []pausedPass {
	if os.Getenv("ETCD_WARDEN_TEST_FULL") == "" {
		return []pausedPass{{0, 12}, {1, 12}, {2, 12}, {3, 12}, {4, 12}, {5, 12}, {6, 12}}
	}
	all := make([]pausedPass, 24)
	for round := range all {
		all[round] = pausedPass{round, 30}
	}
	return all
}

// drainAnother has a user evict a pod that the parked pass does not evict.
func (h *history) drainAnother(t *testing.T) {
	t.Helper()
	user := &simulation.Conn{Server: h.Server}
	for _, pod := range h.pods() {
		claimed := h.cluster().Status.Operation
		if claimed == nil || memberOf(pod) == claimed.Member {
			continue
		}
		if err := user.SubResource("eviction").Create(t.Context(), pod.DeepCopy(), &policyv1.Eviction{}); err != nil {
			t.Fatalf("draining %s beside a parked eviction: %v", pod.Name, err)
		}
		h.forgive(pod)
		return
	}
	t.Fatal("an eviction is parked, and no restart is claimed")
}

// work is one undisturbed pass, with what Kubernetes does after it.
func (h *history) work() {
	_ = h.pass(nil)
	h.runKubernetes()
	h.observe()
	h.wait(overlap / 2)
}

func TestMembersThatStartAgainWithoutAnySecretComeToRest(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, before := range map[string]func(*history){
		"their pods are created again at once":               (*history).runKubernetes,
		"their pods are created again after a pass saw that": func(h *history) { _ = h.pass(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(3, true)
			h.settled(t)
			for _, s := range h.secrets() {
				simulation.Erase(h.World, s)
			}
			h.wait(2 * overlap) // Secrets are read again within an hour
			if _ = h.pass(nil); len(h.secrets()) > 0 {
				t.Fatal("wrote Secrets beside members that trust others")
			}
			for _, pod := range h.pods() {
				h.KillPod(pod)
			}
			h.clients = nil // their certificates are of an authority that is lost
			before(h)
			h.runKubernetes()
			h.settled(t)
			if h.restarts > 3 {
				t.Errorf("the operator restarted members %d times, not once each", h.restarts)
			}
		})
	}
}

// A cluster is left alone for longer than its authorities live, before a rotation or in the middle of one.
func TestReplacesAuthoritiesThatExpired(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, passes := range map[string][]time.Duration{
		"without any operator":        {authorityLifetime},
		"in the middle of a rotation": {authorityLifetime / 3 * 2, authorityLifetime / 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(3, true)
			h.settled(t)
			for _, time := range passes {
				h.wait(time)
				_ = h.pass(nil)
			}
			h.settled(t)
		})
	}
}

// Users delete StatefulSets while members start: that of a founder that never ran, and that of one that did. The
// founding has ended once the operator is back. The former is replaced: nothing would show whether it had started.
func TestAFounderThatNeverStartedAndHasNoStatefulSetIsReplaced(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, started := range []string{"prod-0", "prod-3"} {
		h := newHistory(5, false)
		_ = h.pass(nil)
		_ = h.pass(nil)
		h.RunStatefulSets()
		h.drain(h.podOf("prod-4"))
		h.userDeletes(h.setOf("prod-4"))
		h.RunKubelets()
		h.userDeletes(h.setOf(started))
		h.settled(t)
		if h.podOf("prod-4") != nil || h.podOf("prod-5") == nil || h.claimOf("prod-4") == nil {
			t.Errorf("it was not replaced by a member of another name: %v", h.podStates())
		}
	}
}

func (h *history) setOf(member string) *appsv1.StatefulSet {
	set, _ := simulation.Object[*appsv1.StatefulSet](h.World, key.Namespace, member)
	return set
}
