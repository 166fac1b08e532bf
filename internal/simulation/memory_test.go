package simulation_test

import (
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// checkStartInMemory holds the start of etcd without a volume against the one pod that the member ever had.
func (h *history) checkStartInMemory(pod *corev1.Pod, start fake.StartOptions) {
	identity := start.Name + " " + start.PeerURL
	if start.Token != "" {
		identity += " " + start.Token
	}
	if first, ok := h.inMemory[start.Name]; ok && first != pod.UID {
		h.wrong("%s starts in pod %s, and its data were in the memory of pod %s", identity, pod.UID, first)
	}
	h.inMemory[start.Name] = pod.UID
}

func newMemoryHistory(size int32, managed bool) *history {
	h := newHistory(size, managed)
	h.spec.Storage = &v1beta1.Storage{Ephemeral: &v1beta1.EphemeralStorage{Medium: v1beta1.EphemeralMemory, SizeLimit: resource.MustParse("1Gi")}}
	h.editCluster(func(c *v1beta1.EtcdCluster) { c.Spec.Storage = h.spec.Storage.DeepCopy() })
	return h
}

func (h *history) isInMemory() bool { return h.spec.Storage != nil && h.spec.Storage.Ephemeral != nil }

// judgeMemory stops the checks of a cluster in memory that lost too many pods for a quorum, or all before etcd ran in
// them: it is not founded again. No step of the operator's may cost a quorum, which each of its calls is held against.
func (h *history) judgeMemory() {
	hasQuorum := false
	for id := range h.Etcd.Clusters() {
		voters, alive := h.Etcd.Quorum(id)
		hasQuorum = hasQuorum || alive >= cluster.Quorum(voters)
	}
	h.harmed = h.harmed || h.isInMemory() && !hasQuorum
}

func servingInMemory(t *testing.T, size int32, managed bool) *history {
	t.Helper()
	h := newMemoryHistory(size, managed)
	h.settled(t)
	h.put()
	return h
}

func (h *history) records() []*corev1.ConfigMap {
	return simulation.Objects[*corev1.ConfigMap](h.World)
}

// lossesInMemory are the ways in which a member in memory is lost.
var lossesInMemory = map[string]struct {
	size int32
	lose func(*history)
}{
	"a pod":               {3, func(h *history) { h.killPodOf("prod-1") }},
	"the pod of a leader": {3, func(h *history) { h.killPodOf("prod-0") }},
	"two pods of five": {5, func(h *history) {
		h.killPodOf("prod-1")
		h.killPodOf("prod-3")
	}},
	"a StatefulSet": {3, func(h *history) {
		h.forgive(h.podOf("prod-1"))
		set, _ := simulation.Object[*appsv1.StatefulSet](h.World, key.Namespace, "prod-1")
		simulation.Erase(h.World, set)
	}},
	"a node that restarted": {3, func(h *history) { h.RestartNode(h.podOf("prod-1")) }},
	"a node without power":  {3, func(h *history) { h.loseNodeOf("prod-1", true) }},
	"a node that was deleted": {3, func(h *history) {
		node := h.nodeOf("prod-1")
		h.loseNodeOf("prod-1", true)
		h.DeleteNode(node)
	}},
}

func (h *history) killPodOf(member string) {
	pod := h.podOf(member)
	h.forgive(pod)
	h.KillPod(pod)
}

func (h *history) settledInMemory(t *testing.T, at string) {
	t.Helper()
	h.settledWithLosses(t, at)
	h.put()
	for _, record := range h.records() {
		if !h.isListed(memberOf(record)) {
			t.Errorf("%s: ConfigMap %s is left", at, record.Name)
		}
	}
	if len(h.broken) > 0 {
		t.Fatal(h.failure())
	}
}

func TestAClusterInMemoryHasNoClaims(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, managed := range []bool{false, true} {
		h := servingInMemory(t, 3, managed)
		if len(h.claims()) > 0 || len(h.records()) != 3 || h.servingMembers() != 3 {
			t.Errorf("%d claims, %d records, %d members serve", len(h.claims()), len(h.records()), h.servingMembers())
		}
	}
}

func TestMembersLostInMemoryAreReplacedUnderNewNames(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, loss := range lossesInMemory {
		t.Run(name, func(t *testing.T) {
			h := servingInMemory(t, loss.size, false)
			loss.lose(h)
			h.settledInMemory(t, name)
			h.RecoverNodes()
			h.settledInMemory(t, name+", and back")
		})
	}
}

// The operator is killed before or after each write and each call to etcd, and its answer is lost.
func TestEveryKillOfAReplacementInMemoryLeadsToAHealthyCluster(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, loss := range lossesInMemory {
		t.Run(name, func(t *testing.T) {
			for at, more := 0, true; more; at += stride() {
				for _, kill := range kills {
					h := servingInMemory(t, loss.size, false)
					loss.lose(h)
					more = h.workUntilKilled(at, kill)
					h.settledInMemory(t, name)
				}
			}
		})
	}
}

// A pod goes at each moment of the founding, also before the operator saw its etcd start.
func TestAPodThatGoesDuringTheFoundingIsNeverFoundedAgain(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for round := range 8 {
		for _, running := range []bool{false, true} {
			h := newMemoryHistory(3, false)
			for range round {
				h.work()
			}
			_ = h.pass(nil)
			h.RunStatefulSets()
			if running {
				h.RunKubelets()
			}
			if h.podOf("prod-1") != nil {
				h.killPodOf("prod-1")
			}
			h.settledInMemory(t, "the founding")
		}
	}
}

func TestAContainerThatRestartsInPlaceLosesNothing(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	h := servingInMemory(t, 3, false)
	before := h.podOf("prod-1").UID
	h.KillContainer(h.podOf("prod-1"))
	h.settledInMemory(t, "a restart in place")
	if pod := h.podOf("prod-1"); pod == nil || pod.UID != before {
		t.Error("it was replaced")
	}
}

// A StatefulSet is deleted, and its pod left alone: it runs on, and gets a StatefulSet again. All at once are no loss.
func TestAPodInMemoryWithoutItsStatefulSetIsKept(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	orphaned := func(members []string) (*history, map[string]types.UID) {
		h, before := servingInMemory(t, 3, false), map[string]types.UID{}
		for _, member := range members {
			before[member] = h.podOf(member).UID
			set, _ := simulation.Object[*appsv1.StatefulSet](h.World, key.Namespace, member)
			h.Orphan(set)
		}
		return h, before
	}
	for name, members := range map[string][]string{"one": {"prod-1"}, "all": {"prod-0", "prod-1", "prod-2"}} {
		t.Run(name, func(t *testing.T) {
			check := func(h *history, before map[string]types.UID) {
				t.Helper()
				h.settledInMemory(t, "an orphan")
				for member, uid := range before {
					if pod := h.podOf(member); pod == nil || pod.UID != uid || len(pod.OwnerReferences) != 1 {
						t.Errorf("%s has another pod, or none that has an owner: %v", member, pod)
					}
				}
			}
			h, before := orphaned(members)
			check(h, before)
			for at, more := 0, true; more; at += stride() {
				for _, kill := range kills {
					h, before := orphaned(members)
					more = h.workUntilKilled(at, kill)
					check(h, before)
				}
			}
		})
	}
}

func TestMemoryLostBelowAQuorumFoundsNothing(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	restart := func(h *history, member string) {
		h.forgiveMember(member)
		h.RestartNode(h.podOf(member))
	}
	for name, c := range map[string]struct {
		members []string
		lose    func(*history, string)
	}{
		"all pods":           {[]string{"prod-0", "prod-1", "prod-2"}, (*history).killPodOf},
		"two of three pods":  {[]string{"prod-1", "prod-2"}, (*history).killPodOf},
		"all nodes":          {[]string{"prod-0", "prod-1", "prod-2"}, restart},
		"two of three nodes": {[]string{"prod-1", "prod-2"}, restart},
	} {
		t.Run(name, func(t *testing.T) {
			h := servingInMemory(t, 3, false)
			for _, member := range c.members {
				c.lose(h, member)
			}
			for range 30 {
				h.work()
				h.wait(time.Minute)
			}
			decided := h.progressing()
			if decided.Reason != v1beta1.ReasonMemoryLost || h.servingMembers() > 0 || len(h.broken) > 0 {
				t.Errorf("%s: %s; %d serve\n%s", decided.Reason, decided.Message, h.servingMembers(), h.failure())
			}
			if lost := h.condition(v1beta1.ConditionQuorumLost); lost.Status != metav1.ConditionTrue || lost.Reason != v1beta1.ReasonMemoryLost ||
				strings.Contains(lost.Message, "olume") || strings.Contains(lost.Message, "serves again") {
				t.Errorf("QuorumLost is %+v", lost)
			}
			if survivor := h.podOf("prod-0"); len(c.members) == 2 && (survivor == nil || !h.Runs(survivor)) {
				t.Error("the member that is left was stopped")
			}
		})
	}
}

// Two evictions at once: the budget lets one go, and the next one when the new member is a voter.
func TestTheBudgetKeepsAllButOneInMemory(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	h := servingInMemory(t, 5, false)
	user := &simulation.Conn{Server: h.Server}
	evict := func(member string) error {
		return user.SubResource("eviction").Create(t.Context(), h.podOf(member).DeepCopy(), &policyv1.Eviction{})
	}
	if err := evict("prod-1"); err != nil {
		t.Fatal(err)
	}
	h.forgive(h.podOf("prod-1"))
	for isReplaced := false; !isReplaced; h.work() {
		isReplaced = len(h.Etcd.Voters(h.Address(h.podOf("prod-0")))) == 5 && !h.isListed("prod-1")
		if err := evict("prod-2"); err == nil && !isReplaced {
			t.Fatal("the budget lets a second member go")
		} else if err == nil {
			h.forgive(h.podOf("prod-2"))
		}
	}
	h.settledInMemory(t, "a drain")
}

// A changed spec reaches members in memory by new members, one after the other, and loses nothing.
func TestAChangedSpecReachesMembersInMemoryByNewOnes(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	h := servingInMemory(t, 3, false)
	h.editCluster(func(c *v1beta1.EtcdCluster) {
		c.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"snapshot-count": "5000"}}
	})
	for range 120 {
		h.work()
		h.wait(10 * time.Second)
		h.put()
	}
	h.settledInMemory(t, "a changed option")
	for _, pod := range h.pods() {
		if !slices.Contains(pod.Spec.Containers[0].Args, "--snapshot-count=5000") {
			t.Errorf("%s has the arguments %v", pod.Name, pod.Spec.Containers[0].Args)
		}
	}
	if h.restarts > 0 {
		t.Errorf("%d members were restarted", h.restarts)
	}
}

func TestAnotherVersionInMemoryIsRefused(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	h := servingInMemory(t, 3, false)
	h.editCluster(func(c *v1beta1.EtcdCluster) { c.Spec.Version = "3.6.17" })
	for range 20 {
		h.work()
	}
	decided := h.progressing()
	if decided.Reason != v1beta1.ReasonNotYetSupported || !strings.Contains(decided.Message, "in memory") || h.servingMembers() != 3 || h.restarts > 0 {
		t.Errorf("%s: %s", decided.Reason, decided.Message)
	}
}

func TestAClusterInMemoryThatIsDeletedAndCreatedAgainStartsEmpty(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	h := servingInMemory(t, 3, false)
	h.userDeletes(h.cluster())
	for range 3 {
		h.CollectGarbage(1 << 10)
		h.RunKubelets()
	}
	clear(h.inMemory)
	h.createCluster()
	h.settledInMemory(t, "created again")
	if h.podOf("prod-0") == nil || len(h.records()) != 3 {
		t.Errorf("%d records", len(h.records()))
	}
}
