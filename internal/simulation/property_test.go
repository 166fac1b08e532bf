package simulation_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// searches is how many searches for a bad state run, two at once. Each tries as many histories.
const (
	searches                 = 8
	histories, fullHistories = 60, 280
	// fingerprints is how many distinct states they visit at least, and fullFingerprints how many in the full matrix.
	fingerprints, fullFingerprints = 60_000, 200_000
)

// visited are the fingerprints of the states that the searches saw.
type visited struct {
	sync.Mutex
	states map[uint64]struct{}
	// histories counts those that ended, harmed those of which a user took something away, and undecided those that ended
	// without a majority of right data. spoilt and cured are members with wrong data.
	histories, harmed, undecided, spoilt, cured int
}

// parked tells where the other operator was stopped; empty where there is none.
func (h *history) parked() string {
	if h.slow == nil {
		return ""
	}
	return string("before " + h.slow.parkedAt)
}

// isLate reports whether the operation under way is past its deadline.
func (h *history) isLate() bool {
	c := h.cluster()
	return c != nil && c.Status.Operation != nil && h.operatorsTime().Sub(c.Status.Operation.StartedAt.Time) >= cluster.ProgressDeadline(c)
}

// compared tells what the operator knows of the last comparison of the members' data, as far as it decides by it.
func (h *history) compared() string {
	c := h.operator.reconciler.Observer.Comparisons.Of(key)
	if c == nil {
		return "never"
	}
	cause, _, _ := strings.Cut(c.Cause, ":")
	age := h.operatorsTime().Sub(c.Ended)
	return fmt.Sprintf("for %s, attempt %d, asks %s, groups %v of %d, counts %t, may disarm %t, disarmed %t",
		cause, c.Attempt, c.Asked, c.Groups(), len(c.Voters), age < time.Hour, age < 10*time.Minute, !c.Disarmed.IsZero())
}

// note counts what a history had.
func (v *visited) note(h *history) {
	v.Lock()
	defer v.Unlock()
	v.histories++
	v.spoilt += h.spoilt
	v.cured += h.cured
	if h.harmed {
		v.harmed++
	}
	if h.undecided {
		v.undecided++
	}
}

func (v *visited) add(h *history) {
	more := fmt.Sprintf("clock behind %t, lapsed %t, refused %v, parked %s, lost %v, blind %t, unseen %v, late %t, compared %s",
		h.skew > 0, h.lapsed, h.refused, h.parked(), h.LostNodes(), !h.seesVolumes, h.operator.cache.Frozen(), h.isLate(), h.compared())
	state := h.Fingerprint("key", h.acknowledged, more)
	v.Lock()
	defer v.Unlock()
	v.states[state] = struct{}{}
}

// The histories are the same in every run, so that a failure can be repeated. The full matrix has more of them. To try
// others, run it with another -rapid.seed.
func TestNoReachableStateCostsQuorumOrAnAcknowledgedWrite(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	full := os.Getenv("ETCD_WARDEN_TEST_FULL") != ""
	checks, seed := flag.Lookup("rapid.checks"), flag.Lookup("rapid.seed")
	given, counts := seed.Value.String(), checks.Value.String() == checks.DefValue && seed.Value.String() == "0" && !testing.Short()
	switch {
	case checks.Value.String() != checks.DefValue:
	case full:
		defer set(t, checks, fullHistories)()
	default:
		defer set(t, checks, histories)()
	}
	seen := &visited{states: map[uint64]struct{}{}}
	var seeding sync.Mutex
	defer func() { _ = seed.Value.Set(given) }()
	t.Run("search", func(t *testing.T) {
		for n := range searches {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				seeding.Lock() // until rapid has read the seed
				if given == "0" {
					set(t, seed, (n+1)*1_000_003)
				}
				var begun sync.Once
				rapid.Check(t, func(t *rapid.T) {
					begun.Do(seeding.Unlock)
					seen.search(t)
				})
			})
		}
	})
	t.Logf("visited %d distinct fingerprints in %d histories: %d harmed, %d undecided; of %d members with wrong data %d were replaced",
		len(seen.states), seen.histories, seen.harmed, seen.undecided, seen.spoilt, seen.cured)
	least := fingerprints
	if full {
		least = fullFingerprints
	}
	if counts && len(seen.states) < least {
		t.Errorf("visited %d distinct fingerprints, not %d", len(seen.states), least)
	}
}

// set changes a flag, and returns how to change it back.
func set(t *testing.T, f *flag.Flag, value int) (undo func()) {
	t.Helper()
	before := f.Value.String()
	if err := f.Value.Set(fmt.Sprint(value)); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Value.Set(before) }
}

// search follows one history of random events.
func (v *visited) search(t *rapid.T) {
	made, sizes := newHistory, []int32{1, 3, 5}
	inMemory := rapid.IntRange(0, 5).Draw(t, "of six, the one in memory") == 3
	if inMemory {
		made, sizes = newMemoryHistory, []int32{3, 5}
	}
	h := made(rapid.SampledFrom(sizes).Draw(t, "size"), rapid.SampledFrom([]bool{false, true, true}).Draw(t, "managed certificates"))
	h.seesVolumes = rapid.Bool().Draw(t, "the operator may read PersistentVolumes")
	if rapid.Bool().Draw(t, "the operator looks at images") {
		h.operatorImage = "operator"
	}
	h.operator = h.startOperator()
	h.LocalVolumes = rapid.Bool().Draw(t, "volumes are local to their nodes")
	h.spec.Version = rapid.SampledFrom([]string{h.spec.Version, h.spec.Version, h.spec.Version, h.spec.Version, "3.5.35", "3.7.1"}).Draw(t, "version")
	h.editCluster(func(c *v1beta1.EtcdCluster) { c.Spec.Version = h.spec.Version })
	h.visit = func() { v.add(h) }
	events := h.events()
	if rapid.Bool().Draw(t, "nobody takes anything away") {
		for _, name := range harmful {
			delete(events, name)
		}
	}
	if inMemory {
		for _, name := range fatalInMemory {
			delete(events, name)
		}
	}
	events[""] = func(t *rapid.T) {
		h.ProbePods()
		h.observe()
		v.add(h)
		h.wait(time.Second)
		if len(h.broken) > 0 {
			t.Fatal(h.failure())
		}
	}
	t.Cleanup(func() {
		if h.slow != nil {
			h.slow.kill()
		}
	})
	h.headStart(t)
	for range rapid.IntRange(1, 14).Draw(t, "how long") {
		t.Repeat(events)
	}
	h.settle()
	v.add(h)
	v.note(h)
	if len(h.broken) > 0 {
		t.Fatal(h.failure())
	}
}

// headStart begins a history with a new cluster, a founding, a cluster at rest, or one in the middle of a rotation or
// of a change of version.
func (h *history) headStart(t *rapid.T) {
	const nothing, founding, atRest, rotating = "nothing", "members that just started", "a cluster at rest", "a rotation"
	const changing, spoilt = "a change of version", "a member with wrong data"
	start := rapid.SampledFrom([]string{nothing, founding, atRest, rotating, rotating, rotating, changing, spoilt, spoilt}).Draw(t, "start with")
	switch start {
	case nothing:
		return
	case founding:
		for range 3 {
			_ = h.pass(nil)
		}
		h.runKubernetes()
		failing := rapid.SampledFrom([]string{"", "PersistentVolumeClaim", "StatefulSet", "Pod"}).Draw(t, "writes fail")
		_ = h.pass(func(o *operator) { o.failing = failing })
		return
	}
	h.rest()
	h.put()
	switch start {
	case atRest:
		return
	case spoilt:
		if h.spec.Replicas > 1 {
			h.spoil(t, pick(t, h.pods()))
			h.workSome(t)
		}
		return
	case changing:
		if h.isInMemory() {
			return
		}
		h.changeVersion(t)
		for range rapid.IntRange(1, 25).Draw(t, "rounds") {
			h.quickWork()
			h.wait(5 * time.Second)
		}
		return
	}
	h.rotate()
	for range rapid.IntRange(3, 12).Draw(t, "rounds") {
		_ = h.pass(nil)
		h.runKubernetes()
		h.observe()
		h.wait(overlap / 2)
	}
}

// rotate is the user's wish for new authorities.
func (h *history) rotate() {
	wish := "rotation-" + h.Next()
	h.editCluster(func(c *v1beta1.EtcdCluster) {
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1beta1.RotateAuthoritiesAnnotation, wish)
	})
}

// pick draws an object, and skips the event where there is none.
func pick[T client.Object](t *rapid.T, list []T) T {
	if len(list) == 0 {
		t.Skip("there is none")
	}
	i := rapid.IntRange(0, len(list)-1).Draw(t, "which")
	return list[i]
}

// needsCluster skips an event where the user has deleted the cluster.
func (h *history) needsCluster(t *rapid.T) *v1beta1.EtcdCluster {
	c := h.cluster()
	if c == nil || c.DeletionTimestamp != nil {
		t.Skip("there is no cluster")
	}
	return c
}

// editSpec changes what the user asks for, also for a cluster that is created again later.
func (h *history) editSpec(t *rapid.T, edit func(*v1beta1.EtcdClusterSpec)) {
	h.needsCluster(t)
	edit(&h.spec)
	h.editCluster(func(c *v1beta1.EtcdCluster) { edit(&c.Spec) })
}

func (h *history) events() map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){}
	for _, group := range []map[string]func(*rapid.T){
		h.operatorEvents(), h.kubernetesEvents(), h.nodeEvents(), h.userEvents(), h.volumeEvents(),
		h.certificateEvents(), h.membershipEvents(), h.rollEvents(), h.versionEvents(), h.dataEvents(),
	} {
		for name, event := range group {
			all[name] = event
		}
	}
	return all
}

// harmful are the events after which a cluster need not come to rest as the spec says.
var harmful = []string{
	"a volume is deleted", "a volume is emptied", "a volume is lost, and a copy takes its place", "a copy takes the place of a lost volume",
	"a claim is made again over its own volume", "the cluster is created again", "the cluster is deleted", "the spec changes",
}

// fatalInMemory are the events that a cluster in memory does not survive by design, or with which it is refused.
var fatalInMemory = slices.Concat(harmful, []string{
	"all pods are killed", "every Secret is deleted, and then all pods", "all StatefulSets and their pods are deleted",
	"the version changes", "the version changes, and the operator works", "a user enables a downgrade", "the spec is spoiled",
	"the volumes are to go with the cluster, or not", "removed members' volumes are to be deleted, or not",
})

// written are the kinds that the operator writes beside the status.
var written = []string{"PersistentVolumeClaim", "StatefulSet", "Pod", "Secret", "PodDisruptionBudget", "Service"}

// operatorEvents are passes, whole and cut short.
func (h *history) operatorEvents() map[string]func(*rapid.T) {
	pass := func(*rapid.T) { _ = h.pass(nil) }
	work := func(t *rapid.T) {
		step := rapid.SampledFrom([]time.Duration{0, time.Minute, overlap / 2}).Draw(t, "a round takes")
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			_ = h.pass(nil)
			h.runKubernetes()
			h.observe()
			h.wait(step)
		}
	}
	write := rapid.IntRange(0, 15)
	return map[string]func(*rapid.T){
		"a pass":                                 pass,
		"another pass":                           pass,
		"the operator and Kubernetes work":       work,
		"the operator and Kubernetes work again": work,
		"the operator and Kubernetes work on":    work,
		"a pass is cut before a write":           func(t *rapid.T) { _ = h.pass(func(o *operator) { o.killBefore = write.Draw(t, "write") }) },
		"a pass is cut after a write":            func(t *rapid.T) { _ = h.pass(func(o *operator) { o.killAfter = write.Draw(t, "write") }) },
		"the answer to a write is lost":          func(t *rapid.T) { _ = h.pass(func(o *operator) { o.loseAnswer = write.Draw(t, "write") }) },
		"the operator starts again":              func(*rapid.T) { h.operator = h.startOperator() },
		"another operator stops in the middle of a pass": func(t *rapid.T) {
			if h.slow != nil {
				h.slow.kill()
				h.slow = nil
			}
			if o := h.startOperator(); o.look(rapid.IntRange(0, 30).Draw(t, "call")) {
				h.slow = o
			}
		},
		"the other operator goes on": func(t *rapid.T) {
			if h.slow == nil {
				t.Skip("there is none")
			}
			h.slow.finish()
			h.slow = nil
		},
		"the caches fall behind": func(*rapid.T) { h.operator.cache.Freeze() },
		"the caches catch up":    func(*rapid.T) { h.operator.cache.CatchUp() },
		"one cache catches up": func(t *rapid.T) {
			h.operator.cache.CatchUp(pick(t, []client.Object{
				&v1beta1.EtcdCluster{}, &appsv1.StatefulSet{}, &corev1.Pod{}, &corev1.PersistentVolumeClaim{}, &corev1.Service{}, &policyv1.PodDisruptionBudget{},
			}))
		},
	}
}

// kubernetesEvents are what controllers, kubelets and nodes do.
func (h *history) kubernetesEvents() map[string]func(*rapid.T) {
	kubelets := func(*rapid.T) { h.runKubernetes() }
	return map[string]func(*rapid.T){
		"the kubelets":               kubelets,
		"the kubelets again":         kubelets,
		"StatefulSets make pods":     func(*rapid.T) { h.RunStatefulSets() },
		"a kubelet sees to one pod":  func(t *rapid.T) { h.RunPod(pick(t, h.pods())) },
		"garbage is collected":       func(*rapid.T) { h.CollectGarbage(1 << 10) },
		"some garbage is collected":  func(t *rapid.T) { h.CollectGarbage(rapid.IntRange(1, 4).Draw(t, "objects")) },
		"clients write":              func(*rapid.T) { h.put() },
		"some time passes":           func(*rapid.T) { h.wait(overlap * 3 / 4) },
		"weeks pass":                 func(*rapid.T) { h.wait(certificateLifetime / 4) },
		"the operator's clock steps": func(*rapid.T) { h.skew, h.skewed = clockStep-h.skew, true },
		"a policy refuses a kind, or none": func(t *rapid.T) {
			h.refused = nil
			if rapid.Bool().Draw(t, "some") {
				h.refused = []string{rapid.SampledFrom(written).Draw(t, "kind")}
			}
		},
		"a container ends": func(t *rapid.T) { pod := pick(t, h.pods()); h.forgive(pod); h.KillContainer(pod) },
		"a pod is killed":  func(t *rapid.T) { pod := pick(t, h.pods()); h.forgive(pod); h.KillPod(pod) },
		"all pods are killed": func(*rapid.T) {
			for _, pod := range h.pods() {
				h.forgive(pod)
				h.KillPod(pod)
			}
		},
		"a member is cut off from the others": func(t *rapid.T) {
			pod := pick(t, h.pods())
			h.forgive(pod)
			h.Etcd.Partition(h.Address(pod))
		},
		"a member is no longer cut off": func(t *rapid.T) { h.Etcd.Heal(h.Address(pick(t, h.pods()))) },
		"the operator cannot reach a member": func(t *rapid.T) {
			h.Etcd.Fail(h.Address(pick(t, h.pods())), errors.New("connection timed out"))
		},
		"the operator reaches a member again": func(t *rapid.T) { h.Etcd.Fail(h.Address(pick(t, h.pods())), nil) },
	}
}

// userEvents are what users do with the cluster and its objects.
func (h *history) userEvents() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"a pod is drained": func(t *rapid.T) {
			h.drain(pick(t, h.pods()))
		},
		"a pod is deleted": func(t *rapid.T) {
			pod := pick(t, h.pods())
			h.forgive(pod)
			h.userDeletes(pod)
		},
		"a StatefulSet is deleted": func(t *rapid.T) { h.userDeletes(pick(t, h.sets())) },
		"all StatefulSets and their pods are deleted": func(*rapid.T) {
			for _, set := range h.sets() {
				h.userDeletes(set)
			}
			h.CollectGarbage(1 << 10)
			h.RunKubelets()
		},
		"a volume is deleted": func(t *rapid.T) {
			claim := h.losableClaim(t)
			c := h.cluster()
			if c != nil && claim.Annotations[cluster.AnnotationClusterUID] == string(c.UID) && recorded(claim) && c.Status.ClusterID == "" {
				t.Skip("it may be the last memory of the cluster")
			}
			h.harmed = h.harmed || !h.isUnstartedLearner(claim)
			h.userDeletes(claim)
			if rapid.Bool().Draw(t, "and its pod") {
				for _, pod := range h.pods() {
					if memberOf(pod) == memberOf(claim) {
						h.forgive(pod)
						h.KillPod(pod)
					}
				}
			}
			h.RemoveClaims()
		},
		"a volume is emptied": func(t *rapid.T) {
			claim := h.losableClaim(t)
			h.harmed = true
			h.Empty(claim)
			delete(h.restarted, cluster.PodName(memberOf(claim)))
		},
		"a volume is marked as another etcd cluster's": func(t *rapid.T) {
			claim := pick(t, h.claims())
			if claim.Annotations[cluster.AnnotationClusterID] == "" || len(h.marked) > 0 {
				t.Skip("nothing is recorded on it, or one is marked already")
			}
			h.marked[claim.UID] = claim.Annotations[cluster.AnnotationClusterID]
			h.mark(claim, "c0ffee")
		},
		"the status is wiped": func(t *rapid.T) {
			c := h.needsCluster(t)
			remembered := func(claim *corev1.PersistentVolumeClaim) bool {
				return claim.Annotations[cluster.AnnotationClusterUID] == string(c.UID) && recorded(claim) && claim.DeletionTimestamp == nil
			}
			if c.Status.ClusterID != "" && !slices.ContainsFunc(h.claims(), remembered) {
				t.Skip("it is the last memory of the cluster")
			}
			h.wiped = true
			h.editCluster(func(c *v1beta1.EtcdCluster) { c.Status = v1beta1.EtcdClusterStatus{} })
		},
		"the Services and the budget are deleted": func(*rapid.T) {
			h.forgot = true
			for _, s := range simulation.Objects[*corev1.Service](h.World) {
				h.userDeletes(s)
			}
			for _, b := range simulation.Objects[*policyv1.PodDisruptionBudget](h.World) {
				h.userDeletes(b)
			}
		},
		"the cluster is deleted": func(t *rapid.T) {
			c := h.needsCluster(t)
			for _, claim := range h.claims() {
				// Nobody can tell a volume that was never made from one that was deleted.
				h.harmed = h.harmed || slices.ContainsFunc(strings.Split(claim.Annotations[cluster.AnnotationFoundingMembers], ","), func(m string) bool { return h.claimOf(m) == nil })
			}
			policy := metav1.DeletePropagationBackground
			if rapid.Bool().Draw(t, "in the foreground") {
				policy = metav1.DeletePropagationForeground
			}
			clear(h.restarted)
			h.userDeletes(c, client.PropagationPolicy(policy))
		},
		"the cluster is created again": func(t *rapid.T) {
			if h.cluster() != nil {
				t.Skip("it exists")
			}
			h.annotations = nil
			if rapid.Bool().Draw(t, "empty") {
				h.annotations = map[string]string{v1beta1.BootstrapAnnotation: v1beta1.BootstrapEmpty}
				h.harmed = true // kept volumes of two clusters are ambiguous later
			}
			h.createCluster()
		},
		"the spec changes": func(t *rapid.T) {
			size := rapid.SampledFrom([]int32{1, 3, 5}).Draw(t, "new size")
			domain := rapid.SampledFrom([]string{"", "a.example"}).Draw(t, "domain")
			apart := rapid.Bool().Draw(t, "apart")
			h.editSpec(t, func(spec *v1beta1.EtcdClusterSpec) {
				spec.Replicas, spec.ClusterDomain, spec.PodTemplate = size, domain, &v1beta1.PodTemplate{}
				if apart {
					spec.PodTemplate.MemberAntiAffinity = v1beta1.MemberAntiAffinityRequired
				}
			})
			h.harmed = true
		},
		"the volumes are to go with the cluster, or not": func(t *rapid.T) {
			policy := v1beta1.RetentionDelete
			if storage := h.spec.Storage; storage != nil && storage.RetentionPolicy.WhenDeleted == policy {
				policy = v1beta1.RetentionRetain
			}
			h.editSpec(t, func(spec *v1beta1.EtcdClusterSpec) {
				spec.Storage = &v1beta1.Storage{RetentionPolicy: &v1beta1.RetentionPolicy{WhenDeleted: policy, WhenScaled: whenScaled(spec)}}
			})
		},
		"the cluster is paused or not": func(t *rapid.T) {
			paused := !h.spec.Paused
			h.editSpec(t, func(spec *v1beta1.EtcdClusterSpec) { spec.Paused = paused })
		},
	}
}

// certificateEvents are what happens to the Secrets of managed certificates.
func (h *history) certificateEvents() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"a rotation is asked for": func(t *rapid.T) {
			h.needsCluster(t)
			h.rotate()
		},
		"a Secret is deleted": func(t *rapid.T) {
			if !h.intact() {
				t.Skip("another one is missing, or a rotation is under way")
			}
			simulation.Erase(h.World, pick(t, h.secrets()))
		},
		"an authority comes back from a backup": func(t *rapid.T) {
			if !h.intact() || h.slow != nil { // an operator that wakes with caches of before would issue with it at once
				t.Skip("another one is missing, a rotation is under way, or an operator is stopped in the middle of a pass")
			}
			h.restore(h.secret(cluster.AuthorityName(key.Name, rapid.SampledFrom(traffics).Draw(t, "traffic"))))
		},
		"every Secret is deleted, and then all pods": func(*rapid.T) {
			for _, s := range h.secrets() {
				simulation.Erase(h.World, s)
			}
			h.clients = nil
			_ = h.pass(nil)
			for _, pod := range h.pods() {
				h.forgive(pod)
				h.KillPod(pod)
			}
		},
	}
}

func (h *history) userDeletes(object client.Object, options ...client.DeleteOption) {
	user := &simulation.Conn{Server: h.Server}
	if err := user.Delete(quiet, object.DeepCopyObject().(client.Object), options...); err != nil {
		panic(err) // it exists, and nothing is refused to a user
	}
}

func (h *history) losableClaim(t *rapid.T) *corev1.PersistentVolumeClaim {
	claim := pick(t, h.claims())
	if !h.losable(claim) {
		t.Skip("nobody has seen it start")
	}
	return claim
}
