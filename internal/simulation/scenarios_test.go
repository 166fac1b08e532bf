package simulation_test

import (
	"testing"
	"testing/cryptotest"
	"time"

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

// Another operator stops before each of its calls in the middle of a rotation, and goes on when the rotation is over.
func TestEveryPauseOfARotationHarmsNoMember(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for at := range 30 {
		h := newHistory(5, true)
		h.rest()
		h.rotate()
		for h.restarts == 0 {
			_ = h.pass(nil)
			h.runKubernetes()
			h.observe()
			h.wait(overlap / 2)
		}
		_ = h.pass(nil) // ends the claim of the first restart
		o := h.startOperator()
		if !o.look(at) {
			continue
		}
		for range 4 {
			_ = h.pass(nil)
			h.runKubernetes()
			h.observe()
			h.wait(time.Second)
		}
		o.finish()
		h.observe()
		if h.settle(); len(h.broken) > 0 {
			t.Errorf("stopped before call %d: %s", at, h.failure())
		}
	}
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
