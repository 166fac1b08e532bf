package simulation_test

import (
	"testing"
	"testing/cryptotest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// annotate sets an annotation of the cluster.
func (h *history) annotate(key, value string) {
	h.editCluster(func(c *v1beta1.EtcdCluster) { metav1.SetMetaDataAnnotation(&c.ObjectMeta, key, value) })
}

// checkDefragmentation fails where a member is about to be defragmented, and so stops to answer, while another voter is
// down. What an operator decided before it was stopped is harmless: the others elect, and the member comes back.
func (h *history) checkDefragmentation(o *operator, call *simulation.Call) {
	if call.Verb != defragment || o.late {
		return
	}
	if len(h.restarted) > 0 {
		h.wrong("%s while %v, which the operator restarted, does not serve again", call, h.restarted)
	}
}

// defragmented returns how often the members' databases were defragmented: the least and the most.
func (h *history) defragmented() (least, most int) {
	least = 1 << 10
	for _, claim := range h.claims() {
		n := h.Etcd.Defragmented(h.Disk(claim))
		least, most = min(least, n), max(most, n)
	}
	return least, most
}

// requests are what an administrator asks of a cluster of a size.
var requests = map[string]struct {
	size  int32
	ask   func(*history)
	check func(*history, *testing.T, string)
}{
	"defragment three":           {3, (*history).askToDefragment, (*history).expectDefragmented},
	"defragment the only member": {1, (*history).askToDefragment, (*history).expectDefragmented},
	"move the leader": {3, func(h *history) { h.annotate(v1beta1.MoveLeaderAnnotation, "prod-2") }, func(h *history, t *testing.T, at string) {
		if leader := h.cluster().Status.Leader; leader != "prod-2" {
			t.Fatalf("%s: %s leads", at, leader)
		}
	}},
}

func (h *history) askToDefragment() { h.annotate(v1beta1.DefragmentAnnotation, "now") }

// expectDefragmented fails unless every member was defragmented: once, and once more at most for each stopped operator.
func (h *history) expectDefragmented(t *testing.T, at string) {
	if least, most := h.defragmented(); least < 1 || most > 2 {
		t.Fatalf("%s: the members were defragmented %d to %d times: %s", at, least, most, h.failure())
	}
}

func (h *history) expectObeyed(t *testing.T, at string) {
	t.Helper()
	for _, key := range []string{v1beta1.DefragmentAnnotation, v1beta1.MoveLeaderAnnotation} {
		if value, isSet := h.cluster().Annotations[key]; isSet {
			t.Fatalf("%s: the annotation %s is still %q: %s", at, key, value, h.failure())
		}
	}
}

// The operator is killed before or after each write and each call to etcd, and its answer is lost.
func TestEveryKillOfWhatAnAdministratorAsksForLeadsToIt(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, r := range requests {
		for at, more := 0, true; more; at++ {
			for _, kill := range kills {
				h := newHistory(r.size, false)
				h.settled(t)
				h.put()
				r.ask(h)
				more = h.workUntilKilled(at, kill)
				if h.settle(); len(h.broken) > 0 {
					t.Fatalf("%s, stopped at write %d: %s", name, at, h.failure())
				}
				h.expectObeyed(t, name)
				r.check(h, t, name)
			}
			if at > 60 {
				t.Fatalf("%s never ends", name)
			}
		}
	}
}

// Another operator stops before each write and each call to etcd of each pass, and goes on when more of it is over.
func TestEveryPauseOfWhatAnAdministratorAsksForHarmsNoMember(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	stopped := map[simulation.Verb]int{}
	for name, r := range requests {
		for round, more := 0, true; more && round < 20; round++ {
			for write := 0; ; write++ {
				h := newHistory(r.size, false)
				h.settled(t)
				h.put()
				r.ask(h)
				for range round {
					h.quickWork()
				}
				o := h.startOperator()
				verb, stops := o.lookAtWrite(write)
				if !stops {
					more = write > 0 || round < 3
					break
				}
				stopped[verb]++
				for range 1 + round%5 {
					h.quickWork()
				}
				o.finish()
				h.observe()
				if h.settle(); len(h.broken) > 0 {
					t.Fatalf("%s, stopped in round %d before write %d, %s: %s", name, round, write, verb, h.failure())
				}
				h.expectObeyed(t, name)
				if least, most := h.defragmented(); most > 0 && least < 1 {
					t.Fatalf("%s, stopped in round %d before %s: the members were defragmented %d to %d times", name, round, verb, least, most)
				}
			}
		}
	}
	if stopped[defragment] < 2 || stopped[moveLeader] < 2 {
		t.Errorf("stopped before %v only", stopped)
	}
}
