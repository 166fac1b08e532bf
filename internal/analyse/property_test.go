package analyse

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// settleRounds is how many passes a cluster may take to come to rest, many times what it needs.
const settleRounds = 150

// searches is how often the search for a bad state is begun anew; each tries as many histories as -rapid.checks says.
const searches = 5

// The histories are the same in every run, so that a failure is nobody's luck; the whole matrix tries new ones each time.
func TestNoReachableStateLosesAWriteOrStartsOverOldData(t *testing.T) {
	seed := flag.Lookup("rapid.seed")
	given := seed.Value.String()
	defer func() { _ = seed.Value.Set(given) }()
	for n := range searches {
		if given == "0" && os.Getenv("ETCD_WARDEN_TEST_FULL") == "" {
			if err := seed.Value.Set(fmt.Sprint(n + 1)); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(fmt.Sprint(n), searchStates)
	}
}

func searchStates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.SampledFrom([]int32{1, 3, 5}).Draw(t, "size"), rapid.Bool().Draw(t, "managed certificates"))
		var slow *operator // another operator, which acts on what it saw some time ago
		someone := func(names []string) string {
			if len(names) == 0 {
				t.Skip("nobody")
			}
			slices.Sort(names)
			return rapid.SampledFrom(names).Draw(t, "member")
		}
		losable := func() string {
			name := someone(slices.Collect(maps.Keys(w.volumes)))
			if !w.known(name) {
				t.Skip("nobody has seen it start")
			}
			return name
		}
		pass := func(*rapid.T) { w.operator(-1).run() }
		t.Repeat(map[string]func(*rapid.T){
			"a pass":         pass,
			"another pass":   pass,
			"kubelet":        func(*rapid.T) { w.kubelet() },
			"kubelet again":  func(*rapid.T) { w.kubelet() },
			"clients write":  func(*rapid.T) { w.put() },
			"a pass is cut":  func(t *rapid.T) { w.operator(rapid.IntRange(0, 12).Draw(t, "write")).run() },
			"the slow looks": func(*rapid.T) { slow = w.operator(-1) },
			"the slow acts": func(t *rapid.T) {
				if slow == nil {
					t.Skip("it saw nothing")
				}
				slow.slow = true
				slow.run()
				slow = nil
			},
			"a pod is killed": func(*rapid.T) { w.deletePod(someone(slices.Collect(maps.Keys(w.pods)))) },
			"all pods are killed": func(*rapid.T) {
				for name := range w.pods {
					w.deletePod(name)
				}
			},
			"a StatefulSet is deleted": func(*rapid.T) {
				name := someone(slices.Collect(maps.Keys(w.workloads)))
				w.deletePod(name)
				delete(w.workloads, name)
			},
			"all StatefulSets are deleted": func(*rapid.T) {
				for name := range w.workloads {
					w.deletePod(name)
					delete(w.workloads, name)
				}
			},
			"a volume is deleted": func(t *rapid.T) {
				name := losable()
				if v := w.volumes[name]; v.ClusterUID == w.cluster.UID && v.Started() && w.cluster.Status.ClusterID == "" {
					t.Skip("it may be the last memory of the cluster")
				}
				w.deletePod(name)
				delete(w.volumes, name)
				w.harmed = true
			},
			"a volume is emptied": func(*rapid.T) { w.wipe(losable()) },
			"the status is wiped": func(t *rapid.T) {
				recorded := func(v *worldVolume) bool { return v.ClusterUID == w.cluster.UID && v.Started() }
				if w.cluster.Status.ClusterID != "" && !slices.ContainsFunc(slices.Collect(maps.Values(w.volumes)), recorded) {
					t.Skip("it is the last memory of the cluster")
				}
				w.cluster.Status = v1beta1.EtcdClusterStatus{}
				w.touch()
			},
			"a rotation is asked for": func(*rapid.T) {
				metav1.SetMetaDataAnnotation(&w.cluster.ObjectMeta, v1beta1.RotateAuthoritiesAnnotation, w.next())
				w.touch()
			},
			"some time passes": func(*rapid.T) { w.now = w.now.Add(worldOverlap * 3 / 4) },
			"weeks pass":       func(*rapid.T) { w.now = w.now.Add(worldCertificate / 4) },
			"a Secret is deleted": func(t *rapid.T) {
				if !w.whole() {
					t.Skip("another one is missing, or a rotation is under way")
				}
				if rapid.Bool().Draw(t, "of an authority") {
					delete(w.secrets.authorities, rapid.SampledFrom(traffics).Draw(t, "traffic"))
				} else {
					delete(w.secrets.certificates, rapid.SampledFrom([]cluster.Role{cluster.RolePeer, cluster.RoleServer, cluster.RoleOperator, cluster.RoleClient}).Draw(t, "role"))
				}
			},
			"an authority comes back from a backup": func(t *rapid.T) {
				traffic := rapid.SampledFrom(traffics).Draw(t, "traffic")
				if w.secrets.authorities[traffic] == nil || !w.whole() {
					t.Skip("another one is missing, or a rotation is under way")
				}
				restored := *w.secrets.authorities[traffic]
				restored.ObjectVersion = w.written(restored.Name)
				restored.Current = "older" + w.next()
				restored.Bundle = []string{restored.Current}
				w.secrets.authorities[traffic] = &restored
			},
			"every Secret is deleted, and then all pods": func(*rapid.T) {
				w.secrets.authorities, w.secrets.certificates = map[cluster.Traffic]*cluster.Authority{}, map[cluster.Role]*cluster.Certificate{}
				w.secrets.clients = nil
				w.operator(-1).run()
				for name := range w.pods {
					w.deletePod(name)
				}
			},
			"the Services are deleted": func(*rapid.T) { w.objects = map[string]bool{} },
			"the cluster is created again": func(t *rapid.T) {
				delete(w.cluster.Annotations, v1beta1.BootstrapAnnotation)
				if rapid.Bool().Draw(t, "empty") {
					w.cluster.Annotations = map[string]string{v1beta1.BootstrapAnnotation: v1beta1.BootstrapEmpty}
					w.harmed = true // kept volumes of two clusters are ambiguous later
				}
				for _, v := range w.volumes {
					// Nobody can tell a volume that was never made from one that was deleted.
					w.harmed = w.harmed || slices.ContainsFunc(v.Founders, func(name string) bool { return w.volumes[name] == nil })
				}
				w.create(types.UID("uid-" + w.next()))
			},
			"the spec changes": func(t *rapid.T) {
				w.cluster.Spec.Replicas = rapid.SampledFrom([]int32{1, 3, 5}).Draw(t, "new size")
				w.cluster.Spec.ClusterDomain = rapid.SampledFrom([]string{"", "a.example"}).Draw(t, "domain")
				w.cluster.Spec.PodTemplate = &v1beta1.PodTemplate{}
				if rapid.Bool().Draw(t, "apart") {
					w.cluster.Spec.PodTemplate.MemberAntiAffinity = v1beta1.MemberAntiAffinityRequired
				}
				w.cluster.Generation++
				w.harmed = true
				w.touch()
			},
			"the volumes are to go with the cluster, or not": func(*rapid.T) {
				policy := v1beta1.RetentionDelete
				if cluster.DeletesVolumes(w.cluster) {
					policy = v1beta1.RetentionRetain
				}
				w.cluster.Spec.Storage = &v1beta1.Storage{RetentionPolicy: &v1beta1.RetentionPolicy{WhenDeleted: policy}}
				w.touch()
			},
			"the garbage is collected":     func(*rapid.T) { w.collect() },
			"the cluster is paused or not": func(*rapid.T) { w.cluster.Spec.Paused = !w.cluster.Spec.Paused; w.touch() },
			"": func(t *rapid.T) {
				w.get()
				w.checkTrust()
				if len(w.broken) > 0 {
					t.Fatal(w.broken)
				}
			},
		})
		w.settle(t)
	})
}

// rest runs passes until several in a row have nothing to do, and returns the last.
func (w *world) rest() *operator {
	idle := 0
	for range settleRounds {
		w.kubelet()
		w.checkTrust()
		o := w.operator(-1)
		if o.run(); w.waitsForItsUser(o.d) {
			for name := range w.pods {
				w.deletePod(name)
			}
		}
		w.now = w.now.Add(worldOverlap / 4)
		idle++
		if o.d.Action != nil || len(o.d.Upkeep) > 0 || o.d.Finished || o.d.Reason == v1beta1.ReasonRotatingAuthorities || w.waitsForItsUser(o.d) {
			idle = 0
		}
		if idle == 3 {
			return o
		}
	}
	return w.operator(-1)
}

// settle lets the cluster come to rest. One that nobody harmed serves again with all its members.
func (w *world) settle(t *rapid.T) {
	w.cluster.Spec.Paused = false
	w.collect()
	w.touch()
	last := w.rest()
	w.get()
	if len(w.broken) > 0 {
		t.Fatal(w.broken)
	}
	if last.d.Action != nil || len(last.d.Upkeep) > 0 {
		t.Fatalf("no rest after %d passes: %+v", settleRounds, sayOf(last.d))
	}
	if serving := last.s.Outlook().Healthy; !w.harmed && (serving < int(w.cluster.Spec.Replicas) || last.d.Reason != v1beta1.ReasonUpToDate || w.cluster.Status.Operation != nil) {
		t.Fatalf("%d of %d members serve, claim %v: %s: %s", serving, w.cluster.Spec.Replicas, w.cluster.Status.Operation, last.d.Reason, last.d.Message)
	}
	if last.s.Outlook().HasQuorum() && w.cluster.Status.Operation != nil && !w.harmed {
		t.Fatalf("the claim %s never ends", w.cluster.Status.Operation.Type)
	}
}

func TestEveryKillOfAFoundingLeadsToTheSameCluster(t *testing.T) {
	for at := range 60 {
		w := newWorld(3, at%2 == 0)
		for left := at; ; {
			o := w.operator(left)
			o.run()
			w.kubelet()
			if left -= o.written; left <= 0 {
				break
			}
			if o.written == 0 {
				break
			}
		}
		last := w.rest()
		if s, d := last.s, last.d; s.Outlook().Healthy != 3 || d.Reason != v1beta1.ReasonUpToDate || s.Cluster.Status.Operation != nil || len(w.broken) > 0 {
			t.Errorf("killed before write %d: %d members serve, %s: %s, %v", at, s.Outlook().Healthy, d.Reason, d.Message, w.broken)
		}
	}
}
