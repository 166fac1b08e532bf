package simulation_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

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

func TestCrashingImages(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, size := range []int32{1, 3} {
		for _, step := range minorChanges {
			for _, suffix := range defects {
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
