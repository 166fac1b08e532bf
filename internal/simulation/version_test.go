package simulation_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// versions are those that a cluster is brought to, one after the other. Each step but the patches is a minor version.
var versions = []string{"3.5.35", "3.6.12", "3.6.16", "3.7.1", "3.7.3", "3.6.16", "3.5.35", "3.6.16", "3.7.3"}

func (h *history) bringTo(version string) {
	edit := func(spec *v1beta1.EtcdClusterSpec) { setVersion(spec, version) }
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
		for at, more := 0, true; more; at += stride() {
			for _, kill := range kills {
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

// The operator looks at an image before a member runs it, and is killed around each write.
func TestEveryKillOfALookAtAnImageTouchesNoMemberForAWrongOne(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, c := range map[string]struct{ tag, has string }{
		"the right one":         {"3.6.16", ""},
		"another version":       {"3.6.99", "3.5.35"},
		"one that is not there": {"3.6.99", simulation.NoImage},
	} {
		for at, more := 0, true; more; at++ {
			for _, kill := range []func(*operator, int){
				func(o *operator, write int) { o.killBefore = write },
				func(o *operator, write int) { o.killAfter = write },
			} {
				h := newHistory(3, false)
				h.operatorImage, h.Images = "operator", map[string]string{c.tag: c.has}
				h.operator = h.startOperator()
				h.bringTo("3.6.12")
				h.settled(t)
				h.put()
				before := h.pods()
				h.bringTo(c.tag)
				more = h.workUntilKilled(at, kill) && at < 60
				for range 6 {
					h.quickWork()
					h.wait(10 * time.Second)
				}
				if c.has != "" {
					h.expectNoneRestarted(t, before, name)
					blocked := meta.FindStatusCondition(h.cluster().Status.Conditions, v1beta1.ConditionUpgradeBlocked)
					if blocked.Status != metav1.ConditionTrue || blocked.Reason != v1beta1.ReasonImageNotUsable {
						t.Fatalf("%s, stopped at write %d: %+v", name, at, blocked)
					}
					h.bringTo("3.6.12")
				}
				if h.settle(); len(h.broken) > 0 {
					t.Fatalf("%s, stopped at write %d: %s", name, at, h.failure())
				}
				if got := h.cluster().Status.Version; got != h.spec.Version || len(h.pods()) != 3 {
					t.Fatalf("%s, stopped at write %d: the members run %q, and there are %d pods", name, at, got, len(h.pods()))
				}
			}
		}
	}
}

// expectNoneRestarted fails unless every pod is still there.
func (h *history) expectNoneRestarted(t *testing.T, before []*corev1.Pod, when string) {
	t.Helper()
	for _, pod := range before {
		if now, ok := simulation.Object[*corev1.Pod](h.World, pod.Namespace, pod.Name); !ok || now.UID != pod.UID {
			t.Fatalf("%s: %s was restarted", when, pod.Name)
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

// A user deletes a StatefulSet in each round of a change of version. The member comes back with the minor version that
// its data are for, and the change goes on.
func TestAStatefulSetThatIsDeletedInAChangeOfVersionComesBack(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, step := range [][2]string{{"3.6.16", "3.7.3"}, {"3.7.3", "3.6.16"}} {
		for round := range 12 {
			h := newHistory(3, false)
			h.bringTo(step[0])
			h.settled(t)
			h.put()
			h.bringTo(step[1])
			for range round {
				h.quickWork()
				h.wait(10 * time.Second)
			}
			h.userDeletes(h.sets()[round%3])
			h.CollectGarbage(1 << 10)
			h.RunKubelets()
			if h.settle(); len(h.broken) > 0 {
				t.Fatalf("from %s to %s, after %d rounds: %s", step[0], step[1], round, h.failure())
			}
			if got := h.cluster().Status.Version; got != step[1] {
				t.Fatalf("from %s to %s, after %d rounds: the members run %q: %s", step[0], step[1], round, got, h.failure())
			}
		}
	}
}

// What the search looks for is found: a version that skips a minor version, and one that is too old.
func TestTheOracleTellsVersionsThatDoNotFit(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, c := range map[string]struct{ from, to, want string }{
		"too old":         {"3.7.1", "3.6.16", "of prod-2 ends: "},
		"a minor skipped": {"3.5.35", "3.7.1", "of prod-2 ends: "},
		"the next minor":  {"3.6.16", "3.7.1", ""},
		"a patch":         {"3.6.16", "3.6.12", ""},
	} {
		h := newHistory(3, false)
		h.bringTo(c.from)
		h.settled(t)
		h.startWith("prod-2", c.to)
		if told := strings.Join(h.broken, "\n"); c.want == "" != (told == "") || !strings.Contains(told, c.want) {
			t.Errorf("%s: %q", name, told)
		}
	}
	h := newHistory(3, false)
	h.bringTo("3.6.16")
	h.settled(t)
	if err := h.Etcd.EnableDowngrade(h.servingAddress()); err != nil {
		t.Fatal(err)
	}
	h.startAtOnce("prod-2", "3.5.35")
	if told := strings.Join(h.broken, "\n"); told != "prod-2 starts with etcd 3.5.35 over data of 3.6" {
		t.Errorf("data that are not lowered yet: %q", told)
	}
	h.broken = nil
	h.startWith("prod-2", "3.6.16")
	h.wait(time.Minute)
	h.startAtOnce("prod-2", "3.5.35")
	if len(h.broken) > 0 {
		t.Errorf("data that are lowered: %q", h.broken)
	}
	h = newHistory(3, false)
	h.bringTo("3.7.1")
	for range 3 {
		_ = h.pass(nil)
	}
	h.RunStatefulSets()
	h.startWith("prod-2", "3.5.35")
	h.Etcd.Partition(h.Address(h.pods()[2]))
	h.RunKubelets()
	if h.checkVersions(); !strings.Contains(strings.Join(h.broken, "\n"), "run [3.") {
		t.Errorf("founders two minor versions apart: %q", h.broken)
	}
}

// startWith restarts the etcd of a member with another version, a minute after it ended.
func (h *history) startWith(member, version string) {
	h.endWith(member, version)
	h.wait(time.Minute)
	h.startNow(member)
}

// startAtOnce restarts the etcd of a member with another version.
func (h *history) startAtOnce(member, version string) {
	h.endWith(member, version)
	h.startNow(member)
}

func (h *history) endWith(member, version string) {
	pod, _ := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(member))
	simulation.Edit(h.World, pod, func(p *corev1.Pod) {
		name, _, _ := strings.Cut(p.Spec.Containers[0].Image, ":")
		p.Spec.Containers[0].Image = name + ":v" + version
	})
	h.KillContainer(pod)
}

func (h *history) startNow(member string) {
	pod, _ := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(member))
	h.RunPod(pod)
	h.checkVersions()
}

var minorChanges = [][2]string{{"3.5.35", "3.6.16"}, {"3.6.16", "3.7.3"}, {"3.7.3", "3.6.16"}, {"3.6.16", "3.5.35"}}

// stride is how many writes there are from one stop to the next. The whole matrix stops at every write.
func stride() int {
	if os.Getenv("ETCD_WARDEN_TEST_FULL") != "" {
		return 1
	}
	return 5
}

// stopAfterEachWrite stops a change of version after each write, does something, and tells every distinct failure.
func stopAfterEachWrite(t *testing.T, size int32, steps [][2]string, do func(*history)) {
	t.Helper()
	stopAfterWrites(t, stride(), size, steps, do)
}

// stopAfterWrites does so with a number of writes from one stop to the next.
func stopAfterWrites(t *testing.T, stride int, size int32, steps [][2]string, do func(*history)) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, 1)
	for _, step := range steps {
		failed := 0
		for at, more := stride-1, true; more && failed < 3; at += stride {
			h := newHistory(size, false)
			h.bringTo(step[0])
			h.settled(t)
			h.put()
			h.bringTo(step[1])
			more = h.workUntilKilled(at, func(o *operator, write int) { o.killAfter = write })
			do(h)
			h.settle()
			got := h.cluster().Status.Version
			if len(h.broken) > 0 || got != h.spec.Version {
				failed++
				t.Errorf("size %d, from %s to %s (%s), stopped at write %d: the members run %s\n%s", size, step[0], step[1], h.spec.Version, at, got, h.failure())
			}
		}
	}
}

func TestOperatorAwayForLong(t *testing.T) {
	for _, size := range []int32{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			stopAfterEachWrite(t, size, minorChanges, func(h *history) { h.wait(20 * time.Minute) })
		})
	}
}

func (h *history) differing() *corev1.Pod {
	for _, set := range h.sets() {
		pod, ok := simulation.Object[*corev1.Pod](h.World, set.Namespace, cluster.PodName(set.Name))
		if ok && pod.Spec.Containers[0].Image != set.Spec.Template.Spec.Containers[0].Image {
			return pod
		}
	}
	return nil
}

// The operator is stopped between the template and the eviction. Another node is drained meanwhile, and then the
// member's own.
func TestDrainsInADowngrade(t *testing.T) {
	for _, step := range minorChanges[1:] {
		drained := 0
		stopAfterWrites(t, 1, 3, [][2]string{step}, func(h *history) {
			p := h.differing()
			if p == nil {
				return
			}
			var other *corev1.Pod
			for _, pod := range h.pods() {
				if pod.Name != p.Name {
					other = pod
				}
			}
			address := h.Address(other)
			h.Etcd.Fail(address, errors.New("no answer"))
			h.Etcd.Partition(address)
			for range 3 {
				_ = h.pass(nil)
				h.wait(6 * time.Second)
			}
			h.Etcd.Fail(address, nil)
			h.Etcd.Heal(address)
			h.wait(10 * time.Second)
			h.put() // the monitors work
			pod, ok := simulation.Object[*corev1.Pod](h.World, p.Namespace, p.Name)
			if !ok || pod.UID != p.UID || !h.drain(pod) {
				return
			}
			drained++
			for range 3 {
				h.runKubernetes()
				h.wait(5 * time.Second)
				h.checkVersions()
			}
		})
		if drained != 3 { // each member is once between its template and its eviction
			t.Errorf("from %s to %s: %d of 3 members were drained with a template that no pod was made from", step[0], step[1], drained)
		}
	}
}

func TestSizeOneChangeOfMind(t *testing.T) {
	for _, step := range minorChanges {
		stopAfterEachWrite(t, 1, [][2]string{step}, func(h *history) { h.bringTo(step[0]) })
	}
}

func TestAnotherPatch(t *testing.T) {
	for _, c := range []struct {
		from, to, then string
	}{{"3.6.16", "3.7.3", "3.7.1"}, {"3.6.16", "3.7.3", "3.6.12"}, {"3.7.3", "3.6.16", "3.6.12"}, {"3.7.3", "3.6.16", "3.7.1"}, {"3.6.16", "3.5.35", "3.6.12"}} {
		stopAfterEachWrite(t, 3, [][2]string{{c.from, c.to}}, func(h *history) { h.bringTo(c.then) })
	}
}

func TestPausedForLong(t *testing.T) {
	stopAfterEachWrite(t, 3, minorChanges, func(h *history) {
		h.editCluster(func(c *v1beta1.EtcdCluster) { c.Spec.Paused = true })
		for range 4 {
			_ = h.pass(nil)
			h.runKubernetes()
			h.wait(10 * time.Minute)
		}
	})
}

func TestResizes(t *testing.T) {
	for _, size := range []int32{1, 5} {
		stopAfterEachWrite(t, 3, minorChanges, func(h *history) { h.resize(size) })
	}
}

func TestEveryContainerRestarts(t *testing.T) {
	stopAfterEachWrite(t, 3, minorChanges, func(h *history) {
		for _, pod := range h.pods() {
			h.KillContainer(pod)
		}
		h.RunKubelets()
		h.wait(10 * time.Second)
		h.checkVersions()
	})

}

func TestParkedOperators(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, step := range minorChanges {
		failed := 0
		for round, more := 0, true; more && round < 26 && failed < 2; round++ {
			for write := 0; failed < 2; write++ {
				h := newHistory(3, false)
				h.bringTo(step[0])
				h.settled(t)
				h.put()
				h.bringTo(step[1])
				for range round {
					h.quickWork()
					h.wait(4 * time.Second)
				}
				o := h.startOperator()
				verb, stops := o.lookAtWrite(write)
				if !stops {
					more = write > 0 || round < 3
					break
				}
				if write%2 == 1 {
					h.bringTo(step[0])
				}
				for range []int{2, 4, 12}[round%3] {
					h.quickWork()
				}
				o.finish()
				h.observe()
				for range 3 {
					h.runKubernetes()
					h.observe()
					h.wait(5 * time.Second)
				}
				if h.settle(); len(h.broken) > 0 || h.cluster().Status.Version != h.spec.Version {
					failed++
					t.Errorf("from %s to %s (%s), stopped in round %d before write %d, %s: %s", step[0], step[1], h.spec.Version, round, write, verb, h.failure())
				}
			}
		}
	}
}

func TestServiceDeleted(t *testing.T) {
	stopAfterEachWrite(t, 3, minorChanges, func(h *history) {
		for _, s := range simulation.Objects[*corev1.Service](h.World) {
			h.userDeletes(s)
		}
		h.CollectGarbage(1 << 10)
	})
}

func TestFrozenCaches(t *testing.T) {
	for _, kind := range []client.Object{&corev1.Pod{}, &appsv1.StatefulSet{}, &v1beta1.EtcdCluster{}, &corev1.PersistentVolumeClaim{}, &corev1.Service{}} {
		stopAfterEachWrite(t, 3, minorChanges[1:3], func(h *history) {
			h.operator.cache.Freeze()
			for _, other := range []client.Object{&corev1.Pod{}, &appsv1.StatefulSet{}, &v1beta1.EtcdCluster{}, &corev1.PersistentVolumeClaim{}, &corev1.Service{}} {
				if fmt.Sprintf("%T", other) != fmt.Sprintf("%T", kind) {
					h.operator.cache.CatchUp(other)
				}
			}
			for n := range 8 {
				if n == 3 {
					h.bringTo("3.6.16")
				}
				h.quickWork()
				for _, other := range []client.Object{&corev1.Pod{}, &appsv1.StatefulSet{}, &v1beta1.EtcdCluster{}, &corev1.PersistentVolumeClaim{}, &corev1.Service{}} {
					if fmt.Sprintf("%T", other) != fmt.Sprintf("%T", kind) {
						h.operator.cache.CatchUp(other)
					}
				}
			}
		})
	}
}

func TestLostAnswersAndAway(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, step := range minorChanges {
		failed := 0
		for at, more := stride()-1, true; more && failed < 2; at += stride() {
			h := newHistory(3, false)
			h.bringTo(step[0])
			h.settled(t)
			h.put()
			h.bringTo(step[1])
			more = h.workUntilKilled(at, func(o *operator, write int) { o.loseAnswer = write })
			h.wait(11 * time.Minute)
			h.bringTo(step[0])
			if h.settle(); len(h.broken) > 0 {
				failed++
				t.Errorf("from %s to %s, lost at write %d: %s", step[0], step[1], at, h.failure())
			}
		}
	}
}

func TestDownInTheMiddleOfARenewal(t *testing.T) {
	stopAfterEachWrite(t, 3, [][2]string{{"3.6.16", "3.7.3"}}, func(h *history) { h.bringTo("3.5.35") })
}
