//go:build integration

package integration

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// Every member begins with older. Its leader is prod-0, which restarts last.
const older, newer = "3.6.16", "3.7.3"

// pinTime is a little more than the last member of an old minor version, and a member that failed, wait.
const pinTime = 70 * time.Second

func init() {
	all, one := []int{0, 1, 2}, []int{0}
	scenarios = append(scenarios,
		scenario{
			name: "upgrade to a minor version", prepare: ofSize(3), begin: toVersion(newer), numbers: all, versions: threeOf(newer),
			patience: pinTime, waits: 5, long: true, pairs: 9,
		},
		scenario{
			name: "upgrade to a patch after a look at its image", prepare: inTurn(ofSize(3), looksAtImages("")), begin: toVersion("3.6.17"),
			numbers: all, versions: threeOf("3.6.17"), every: 3, pairs: 9,
		},
		scenario{
			name: "look at an image that does not exist", prepare: inTurn(ofSize(3), looksAtImages(simulation.NoImage)), begin: toVersion("3.6.97"),
			numbers: all, versions: threeOf(older), reason: v1beta1.ReasonImageNotUsable, samePods: true, leftPods: imageCheck, whole: true, pairs: 1,
		},
		scenario{
			name: "look at an image of another version", prepare: inTurn(ofSize(3), looksAtImages(newer)), begin: toVersion("3.6.97"),
			numbers: all, versions: threeOf(older), reason: v1beta1.ReasonImageNotUsable, samePods: true, leftPods: imageCheck, whole: true, pairs: 1,
		},
		scenario{
			name: "add no member with an image of another version", prepare: inTurn(ofSize(1), looksAtImages(newer)), begin: growsWithTag("v3.6.97"),
			numbers: one, versions: []string{older}, reason: v1beta1.ReasonImageNotUsable, samePods: true, leftPods: imageCheck, whole: true, pairs: 1,
		},
		scenario{
			name: "downgrade by a minor version", prepare: ofSize(3, ofVersion(newer)), begin: toVersion(older), numbers: all, versions: threeOf(older),
			patience: pinTime, waits: 4, long: true, pairs: 9,
		},
		scenario{
			name: "upgrade the only member", prepare: ofSize(1), begin: toVersion(newer), numbers: one, versions: []string{newer},
			patience: pinTime, waits: 4, every: 3,
		},
		scenario{
			name: "downgrade the only member", prepare: ofSize(1, ofVersion(newer)), begin: toVersion(older), numbers: one, versions: []string{older},
			patience: pinTime, waits: 4, every: 3,
		},
		scenario{
			name: "take the only member back from a version that fails at once", prepare: inTurn(ofSize(1), fails("prod-0", 0)), begin: toVersion(newer),
			numbers: one, versions: []string{older}, reason: v1beta1.ReasonRolledBack, statusesVary: true, patience: pinTime, waits: 6, every: 3,
		},
		scenario{
			name: "take the first member back from a version that fails", prepare: inTurn(ofSize(3), fails("prod-0", 0), fails("prod-1", 0), fails("prod-2", 0)),
			begin: toVersion(newer), numbers: all, versions: threeOf(older), reason: v1beta1.ReasonRolledBack, statusesVary: true, patience: pinTime, waits: 5, every: 5, pairs: 9,
		},
		scenario{
			name: "take the last member back from a version that fails at once", prepare: inTurn(ofSize(3), compares, fails("prod-0", 0)), begin: toVersion(newer),
			numbers: all, versions: []string{older, newer, newer}, reason: v1beta1.ReasonRolledBack, statusesVary: true, patience: pinTime, waits: 7, every: 7, pairs: 17,
		},
		scenario{
			name: "mend the last member, which failed after it had answered", prepare: inTurn(ofSize(3), compares, fails("prod-0", 10*time.Second)),
			begin: failsAndIsMended, numbers: all, versions: threeOf(newer), statusesVary: true, patience: pinTime, waits: 3, every: 7, pairs: 17,
		},
		scenario{
			name: "go back after one member", prepare: ofSize(3), begin: goesBackAfter(1), numbers: all, versions: threeOf(older),
			patience: pinTime, waits: 3, every: 7, pairs: 17,
		},
		scenario{
			name: "go back after two members", prepare: ofSize(3), begin: goesBackAfter(2), numbers: all, versions: threeOf(older),
			patience: pinTime, waits: 3, every: 7, pairs: 17,
		},
		scenario{
			name: "go back after all members", prepare: ofSize(3), begin: goesBackAfter(3), numbers: all, versions: threeOf(older),
			patience: pinTime, waits: 5, every: 7, pairs: 17,
		},
		scenario{
			name: "lose a voter in the middle of a downgrade", prepare: ofSize(3, ofVersion(newer)), begin: losesAVoter, numbers: all, versions: threeOf(older),
			patience: pinTime, waits: 5, every: 7, pairs: 17,
		},
	)
}

func inTurn(steps ...func(*lab)) func(*lab) {
	return func(l *lab) {
		for _, step := range steps {
			step(l)
		}
	}
}

// compares has the data compared, so that no comparison before a minor version takes the leader from prod-0.
func compares(l *lab) {
	l.Helper()
	ask(v1beta1.CheckConsistencyAnnotation, "before")(l)
	l.settle()
	expectCondition(l.T, l.get(), v1beta1.ConditionDataConsistent, metav1.ConditionTrue, v1beta1.ReasonDataAgrees)
	l.lead("prod-0")
}

// fails has the newer etcd fail in a member, so long after each start.
func fails(member string, after time.Duration) func(*lab) {
	return func(l *lab) { l.kubernetes.breaks(cluster.PodName(member), cluster.MinorOf(newer), after) }
}

// looksAtImages has the operator look at images; the one with the tag v3.6.97 has another version then, unless it is
// empty.
func looksAtImages(another string) func(*lab) {
	return func(l *lab) {
		l.operatorImage = "example.org/operator:v1"
		l.kubernetes.images = map[string]string{"3.6.97": another}
		l.operator = l.newOperator(noHooks)
	}
}

// imageCheck is the pod that looks at an image, and stays while that cannot be used.
var imageCheck = []string{cluster.ImageCheckPodName(name)}

func growsWithTag(tag string) func(*lab) {
	return func(l *lab) {
		l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Replicas, c.Spec.Image.Tag = 3, tag })
	}
}

func threeOf(version string) []string { return []string{version, version, version} }

func ofVersion(version string) func(*v1beta1.EtcdCluster) {
	return func(c *v1beta1.EtcdCluster) { c.Spec.Version = version }
}

func toVersion(version string) func(*lab) {
	return func(l *lab) { l.change(ofVersion(version)) }
}

// until plays round after round, and lets time pass where nothing happens, until so many members run a version.
func (l *lab) until(version string, count int) {
	l.Helper()
	for range 3 * mostRounds {
		running := 0
		for _, m := range l.get().Status.Members {
			if m.Version == version {
				running++
			}
		}
		if running >= count {
			return
		}
		if !l.round() {
			l.now = l.now.Add(pinTime)
		}
	}
	l.Fatalf("%d members never ran %s", count, version)
}

// goesBackAfter sets the old version again after so many members run the new one.
func goesBackAfter(count int) func(*lab) {
	return func(l *lab) {
		toVersion(newer)(l)
		l.until(newer, count)
		toVersion(older)(l)
	}
}

// failsAndIsMended lets the last member fail for long enough to be given up, and then mends it.
func failsAndIsMended(l *lab) {
	toVersion(newer)(l)
	l.until(newer, 3)
	for range 4 {
		l.later(pinTime)
	}
	started := l.kubernetes.started("prod-0-0")
	if i := slices.Index(started, newer); i < 0 || slices.ContainsFunc(started[i:], func(v string) bool { return cluster.MinorOf(v) != cluster.MinorOf(newer) }) {
		l.Errorf("prod-0 was started with %v, although its cluster works as %s", started, newer)
	}
	l.kubernetes.mend()
}

// losesAVoter keeps the last member to restart away from the moment that a downgrade has restarted the first one until
// it has been cancelled.
func losesAVoter(l *lab) {
	toVersion(older)(l)
	l.until(older, 1)
	l.lead("prod-1")
	l.kubernetes.hold("prod-0-0")
	l.kubernetes.restart("prod-0-0")
	for range 3 {
		l.later(pinTime)
	}
	running := l.kubernetes.running()
	if len(running) != 2 {
		l.Errorf("%d members run beside the lost one, want 2", len(running))
	}
	for _, address := range running {
		if p, err := l.kubernetes.world.Probe(l.Context(), etcd.Endpoint{Address: address}); err != nil || p.DowngradeEnabled {
			l.Errorf("the downgrade was not cancelled while a voter was lost: %+v, %v", p, err)
		}
	}
	l.kubernetes.release()
}
