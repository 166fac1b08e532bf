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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

var minorChanges = [][2]string{{"3.5.35", "3.6.16"}, {"3.6.16", "3.7.3"}, {"3.7.3", "3.6.16"}, {"3.6.16", "3.5.35"}}

// stride is how many writes there are from one stop to the next. The whole matrix stops at every write.
func stride() int {
	if os.Getenv("ETCD_WARDEN_TEST_FULL") != "" {
		return 1
	}
	return 3
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

// lastFails makes the pod of the last member with the new version crash, at once or after it has served for a while.
func (h *history) lastFails(version string, size int, serves time.Duration) (done bool) {
	var newest *corev1.Pod
	n := 0
	for _, pod := range h.pods() {
		if strings.Contains(pod.Spec.Containers[0].Image, ":v"+version) {
			n++
			if newest == nil || newest.CreationTimestamp.Before(&pod.CreationTimestamp) {
				newest = pod
			}
		}
	}
	if n < size {
		return false
	}
	if serves > 0 {
		h.RunKubelets()
		h.ProbePods()
		h.wait(serves)
		h.put()
		_ = h.pass(nil)
		h.KillContainer(newest)
	}
	live, ok := simulation.Object[*corev1.Pod](h.World, newest.Namespace, newest.Name)
	if ok && live.UID == newest.UID {
		simulation.Edit(h.World, live, func(p *corev1.Pod) { p.Spec.Containers[0].Image += simulation.TagCrashes })
	}
	return true
}

func failLast(t *testing.T, size int32, serves time.Duration, then string, away time.Duration) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, 1)
	failed := 0
	for at := -1; at < 14 && failed < 3; at += stride() {
		h := newHistory(size, false)
		h.bringTo("3.6.16")
		h.settled(t)
		h.put()
		h.bringTo("3.7.3")
		hit := false
		for range 60 {
			h.ProbePods()
			_ = h.pass(nil)
			h.RunStatefulSets()
			if hit = h.lastFails("3.7.3", int(size), serves); hit {
				break
			}
			h.runKubernetes()
			h.observe()
			h.wait(10 * time.Second)
		}
		if !hit {
			t.Fatal("the last member never restarts")
		}
		left := at
		for range 60 {
			h.RunKubelets()
			h.ProbePods()
			_ = h.pass(func(o *operator) {
				if left >= 0 {
					o.killAfter = left
				}
			})
			if left -= h.writes; at >= 0 && left < 0 {
				h.wait(away)
				left = 1 << 20
			}
			h.runKubernetes()
			h.observe()
			h.wait(20 * time.Second)
		}
		decided := h.progressing()
		if at == -1 {
			t.Logf("after the failure: %s: %s\n%v", decided.Reason, decided.Message, h.podStates())
		}
		if then != "" {
			h.bringTo(then)
		}
		rested := h.rest()
		serving := 0
		for _, pod := range h.pods() {
			if h.Etcd.Ready(h.Address(pod)) {
				serving++
			}
		}
		// The only member has no way back once its data are of the newer version: its user is told.
		isTold := size == 1 && then == "3.6.16" && h.progressing().Reason == v1beta1.ReasonVersionMismatch
		if len(h.broken) > 0 || serving < int(size) && !isTold || !rested {
			failed++
			t.Errorf("size %d, serves %s, then %q, stopped at %d: %d serve: %s: %s\n%s", size, serves, then, at, serving, h.progressing().Reason, h.progressing().Message, h.failure())
		}
	}
}

func TestLast(t *testing.T) {
	for _, size := range []int32{1, 3} {
		for _, serves := range []time.Duration{0, 10 * time.Second} {
			for _, then := range []string{"", "3.6.16", "3.7.1"} {
				for _, away := range []time.Duration{10 * time.Second, 30 * time.Minute} {
					if size == 1 && serves > 0 && away > time.Minute {
						continue // it may try its old binary twice, which panics before it serves
					}
					t.Run(fmt.Sprint(size, serves, then, away), func(t *testing.T) { failLast(t, size, serves, then, away) })
				}
			}
		}
	}
}

// What the condition advises must work: another value of the restart annotation, or the spec set back.
func TestAdviceForTheOnlyMember(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for name, follow := range map[string]func(*history){
		"the restart annotation": func(h *history) {
			h.editCluster(func(c *v1beta1.EtcdCluster) {
				c.Annotations = map[string]string{v1beta1.RestartAnnotation: "again"}
			})
		},
		"the spec set back":       func(h *history) { h.bringTo("3.6.16") },
		"back, and forward again": func(h *history) { h.bringTo("3.6.16"); h.rest(); h.bringTo("3.7.3") },
	} {
		h := newHistory(1, false)
		h.bringTo("3.6.16")
		h.settled(t)
		h.put()
		h.bringTo("3.7.3")
		for range 60 {
			h.ProbePods()
			_ = h.pass(nil)
			h.RunStatefulSets()
			if h.lastFails("3.7.3", 1, 10*time.Second) {
				break
			}
			h.runKubernetes()
			h.observe()
			h.wait(10 * time.Second)
		}
		for range 90 {
			h.RunKubelets()
			h.ProbePods()
			_ = h.pass(nil)
			h.runKubernetes()
			h.observe()
			h.wait(20 * time.Second)
		}
		before := h.progressing()
		follow(h)
		h.rest()
		told := h.progressing()
		serves := h.servingAddress() != ""
		t.Logf("%s: serves %t, broken %v\nbefore: %s: %s\nafter: %s: %s\n", name, serves, h.broken, before.Reason, before.Message, told.Reason, told.Message)
		for _, c := range h.cluster().Status.Conditions {
			t.Logf("  %s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
		}
		if !serves {
			t.Errorf("%s does not help", name)
		}
	}
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

func TestCrashingImages(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, size := range []int32{1, 3} {
		for _, step := range minorChanges {
			for _, suffix := range []string{simulation.TagCrashes, simulation.TagHangs, simulation.TagUnpullable} {
				failed := 0
				for at, more := 0, true; more && at < 40 && failed < 1; at += stride() {
					for _, away := range []time.Duration{0, 11 * time.Minute} {
						h := newHistory(size, false)
						h.bringTo(step[0])
						h.settled(t)
						h.put()
						edit := func(spec *v1beta1.EtcdClusterSpec) { spec.Version = step[1]; tagged(suffix)(spec) }
						edit(&h.spec)
						h.editCluster(func(c *v1beta1.EtcdCluster) { edit(&c.Spec) })
						more = h.workUntilKilled(at, func(o *operator, write int) { o.killAfter = write })
						h.wait(away)
						for range 40 {
							h.RunKubelets()
							h.ProbePods()
							h.quickWork()
							h.wait(20 * time.Second)
						}
						if (at/3)%2 == 1 {
							h.spec.Version, h.spec.Image.Tag = step[0], ""
							h.editCluster(func(c *v1beta1.EtcdCluster) { c.Spec.Version, c.Spec.Image.Tag = step[0], "" })
						}
						if h.settle(); len(h.broken) > 0 || h.cluster().Status.Version != h.spec.Version {
							failed++
							t.Errorf("size %d from %s to %s%s (%s), stopped at write %d, away %s: %s", size, step[0], step[1], suffix, h.spec.Version, at, away, h.failure())
						}
					}
				}
			}
		}
	}
}

func TestDownInTheMiddleOfARenewal(t *testing.T) {
	stopAfterEachWrite(t, 3, [][2]string{{"3.6.16", "3.7.3"}}, func(h *history) { h.bringTo("3.5.35") })
}
