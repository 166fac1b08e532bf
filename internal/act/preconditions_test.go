package act

import (
	"context"
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// storedWorld is an API server that holds the objects of one snapshot, with the UIDs and versions that it gave them.
type storedWorld struct {
	*simulation.Conn
	s      cluster.Snapshot
	claim  *corev1.PersistentVolumeClaim
	pod    *corev1.Pod
	set    *appsv1.StatefulSet
	peers  *corev1.Service
	volume cluster.Volume
}

func newStoredWorld(t *testing.T) *storedWorld {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w := &storedWorld{
		Conn: &simulation.Conn{Server: simulation.NewServer(scheme, func() time.Time { return clustertest.Now })},
		s:    clustertest.MakeCluster("prod").Objects().Members(clustertest.Healthy).Snapshot(),
	}
	m := w.s.Member("prod-1")
	w.claim = &corev1.PersistentVolumeClaim{}
	w.claim.Namespace, w.claim.Name, w.claim.Labels = clustertest.Namespace, m.Volume.Name, map[string]string{"kept": "yes"}
	w.pod = podOf(m.Pod.Name, false)
	w.pod.UID = ""
	w.set, w.peers = m.Workload.Live.DeepCopy(), w.s.PeerService.DeepCopy()
	for _, object := range []client.Object{w.s.Cluster, w.claim, w.pod, w.set, w.peers} {
		object.SetUID("")
		for i := range object.GetOwnerReferences() {
			owners := object.GetOwnerReferences()
			owners[i].UID = w.s.Cluster.UID
			object.SetOwnerReferences(owners)
		}
		object.SetResourceVersion("")
		if err := w.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	w.volume = cluster.Volume{Name: w.claim.Name, Member: "prod-1", UID: w.claim.UID, ResourceVersion: w.claim.ResourceVersion}
	return w
}

// Each write is made on condition that its object is the one that was decided about.
func TestWritesNothingThatWasWrittenOrReplacedSince(t *testing.T) {
	upkeep := func(item func(*storedWorld) plan.Upkeep) func(context.Context, *storedWorld, *Actor) error {
		return func(ctx context.Context, w *storedWorld, a *Actor) error {
			_, err := a.Upkeep(ctx, &w.s, []plan.Upkeep{item(w)})
			return err
		}
	}
	annotations := map[string]string{cluster.AnnotationStarted: "Answer"}
	for name, c := range map[string]struct {
		object func(*storedWorld) client.Object
		write  func(context.Context, *storedWorld, *Actor) error
		// byUID tells that the write goes to the very object, whatever else was written of it.
		byUID bool
	}{
		"a claim of an operation": {
			object: func(w *storedWorld) client.Object { return w.s.Cluster },
			write: func(ctx context.Context, w *storedWorld, a *Actor) error {
				return a.Claim(ctx, &w.s, &v1beta1.Operation{Type: v1beta1.OperationResume}, &w.s.Cluster.Status)
			},
		},
		"a record of a member": {
			object: func(w *storedWorld) client.Object { return w.claim },
			write: upkeep(func(w *storedWorld) plan.Upkeep {
				return plan.RecordMember{Member: "prod-1", Volume: w.claim.Name, ResourceVersion: w.claim.ResourceVersion, Annotations: annotations}
			}),
		},
		"the retention of a volume": {
			object: func(w *storedWorld) client.Object { return w.claim },
			write: upkeep(func(w *storedWorld) plan.Upkeep {
				return plan.SetRetention{Volume: w.claim.Name, ResourceVersion: w.claim.ResourceVersion, DeletedWithCluster: true}
			}),
		},
		"the deletion of a volume": {
			object: func(w *storedWorld) client.Object { return w.claim },
			write: upkeep(func(w *storedWorld) plan.Upkeep {
				return plan.Delete{Object: w.claim.DeepCopy()}
			}),
		},
		"the deletion of an object whose version was not read": {
			object: func(w *storedWorld) client.Object { return w.peers },
			write: upkeep(func(w *storedWorld) plan.Upkeep {
				service := w.peers.DeepCopy()
				service.ResourceVersion = ""
				return plan.Delete{Object: service}
			}),
			byUID: true,
		},
		"a template": {
			object: func(w *storedWorld) client.Object { return w.set },
			write: upkeep(func(w *storedWorld) plan.Upkeep {
				desired := w.set.DeepCopy()
				desired.Spec.Replicas = new(int32(0))
				return plan.UpdateStatefulSet{Desired: desired, Live: w.set}
			}),
		},
		"a pod's form": {
			object: func(w *storedWorld) client.Object { return w.pod },
			write: upkeep(func(w *storedWorld) plan.Upkeep {
				return plan.AnnotatePod{Member: "prod-1", Pod: w.pod.Name, UID: w.pod.UID, Annotations: annotations}
			}),
			byUID: true,
		},
		"a Service": {
			object: func(w *storedWorld) client.Object { return w.peers },
			write: upkeep(func(w *storedWorld) plan.Upkeep {
				desired := w.peers.DeepCopy()
				desired.UID, desired.ResourceVersion = "", ""
				desired.Labels = map[string]string{"changed": "yes"}
				return plan.Apply{Desired: desired, Live: w.peers}
			}),
			byUID: true,
		},
		"volumes that are taken back": {
			object: func(w *storedWorld) client.Object { return w.claim },
			write: func(ctx context.Context, w *storedWorld, a *Actor) error {
				return a.Act(ctx, &w.s, plan.TakeBackVolumes{Volumes: []cluster.Volume{w.volume}})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for what, since := range map[string]func(*storedWorld, client.Object) error{
				"nothing happened": func(*storedWorld, client.Object) error { return nil },
				"it was written": func(w *storedWorld, live client.Object) error {
					live.SetLabels(map[string]string{"written": "since"})
					return w.Update(t.Context(), live)
				},
				"it was replaced": func(w *storedWorld, live client.Object) error {
					simulation.Remove(w.Server, live)
					live.SetUID("")
					live.SetResourceVersion("")
					live.SetFinalizers(nil)
					return w.Create(t.Context(), live)
				},
			} {
				w := newStoredWorld(t)
				live := c.object(w).DeepCopyObject().(client.Object)
				if err := since(w, live); err != nil {
					t.Fatal(err)
				}
				err := c.write(t.Context(), w, &Actor{Client: w, Live: w})
				allowed := what == "nothing happened" || c.byUID && what == "it was written"
				if allowed != (err == nil) || err != nil && !apierrors.IsConflict(err) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// The first of several volumes is not taken back either if another one was written since.
func TestTakesNoVolumeBackIfAnotherWasWrittenSince(t *testing.T) {
	w := newStoredWorld(t)
	other := &corev1.PersistentVolumeClaim{}
	other.Namespace, other.Name = clustertest.Namespace, "data-prod-2"
	if err := w.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	stale := cluster.Volume{Name: other.Name, Member: "prod-2", UID: other.UID, ResourceVersion: "0"}
	a := &Actor{Client: w, Live: w}
	if err := a.Act(t.Context(), &w.s, plan.TakeBackVolumes{Volumes: []cluster.Volume{w.volume, stale}}); !apierrors.IsConflict(err) {
		t.Errorf("got %v", err)
	}
	var live corev1.PersistentVolumeClaim
	if err := w.Get(t.Context(), client.ObjectKeyFromObject(w.claim), &live); err != nil || live.Annotations[cluster.AnnotationClusterUID] != "" {
		t.Errorf("%v; took it back: %v", err, live.Annotations)
	}
}

// Another operator was first, so its decision stands.
func TestKeepsWhatAnotherOperatorCreatedFromAnotherDecision(t *testing.T) {
	for annotation, refused := range map[string]bool{
		cluster.AnnotationIntent: true, cluster.AnnotationClusterToken: true, cluster.AnnotationFoundingMembers: true, cluster.AnnotationStarted: false,
	} {
		w := newStoredWorld(t)
		again := w.set.DeepCopy()
		again.UID, again.ResourceVersion = "", ""
		again.Annotations[annotation] = "another"
		err := (&Actor{Client: w, Live: w}).Act(t.Context(), &w.s, plan.StartMembers{StatefulSets: []*appsv1.StatefulSet{again}})
		if refused != (err != nil) || err != nil && !apierrors.IsConflict(err) {
			t.Errorf("%s: %v", annotation, err)
		}
	}
}

// Volumes outlive a cluster, so none is created for pods that the API server would refuse.
func TestCreatesNoVolumeForAStatefulSetThatIsRefused(t *testing.T) {
	for _, refused := range []bool{false, true} {
		w := newStoredWorld(t)
		set, volume := w.set.DeepCopy(), w.claim.DeepCopy()
		set.Name, volume.Name = "prod-7", "data-prod-7"
		for _, object := range []client.Object{set, volume} {
			object.SetUID("")
			object.SetResourceVersion("")
		}
		w.Before = func(call *simulation.Call) error {
			if refused && call.Verb == simulation.DryRun {
				return apierrors.NewForbidden(schema.GroupResource{Resource: call.Kind}, call.Key.Name, errors.New("a policy refuses it"))
			}
			return nil
		}
		err := (&Actor{Client: w, Live: w}).Act(t.Context(), &w.s, plan.CreateFounders{
			Volumes: []plan.Object{volume}, StatefulSets: []*appsv1.StatefulSet{set},
		})
		created := w.Get(t.Context(), client.ObjectKeyFromObject(volume), &corev1.PersistentVolumeClaim{}) == nil
		if refused != (err != nil) || created == refused {
			t.Errorf("refused %t: got %v, created the volume %t", refused, err, created)
		}
	}
}

func TestAStoppedMemberHasNoPod(t *testing.T) {
	w := newStoredWorld(t)
	desired := w.set.DeepCopy()
	desired.Spec.Replicas = new(int32(0))
	if _, err := (&Actor{Client: w, Live: w}).Upkeep(t.Context(), &w.s, []plan.Upkeep{plan.UpdateStatefulSet{Desired: desired, Live: w.set}}); err != nil {
		t.Fatal(err)
	}
	var live appsv1.StatefulSet
	if err := w.Get(t.Context(), client.ObjectKeyFromObject(w.set), &live); err != nil || *live.Spec.Replicas != 0 {
		t.Errorf("%v; it has %d replicas", err, *live.Spec.Replicas)
	}
}

// The pod that looked at an image goes also where its node does not answer: nobody confirms its end there.
func TestThePodOfAnImageCheckIsDeletedWithoutATimeOfGrace(t *testing.T) {
	var options client.DeleteOptions
	c := interceptor.NewClient(newPodWorld(t, nil).WithWatch, interceptor.Funcs{
		Delete: func(_ context.Context, _ client.WithWatch, _ client.Object, o ...client.DeleteOption) error {
			options.ApplyOptions(o)
			return nil
		},
	})
	s := clustertest.MakeCluster("prod").Snapshot()
	for _, item := range []struct {
		object plan.Object
		forced bool
	}{
		{render.ImageCheckPodToDelete(s.Cluster, "uid"), true},
		{render.StatefulSetToDelete(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "prod-1", UID: "uid"}}), false},
	} {
		options = client.DeleteOptions{}
		if _, err := (&Actor{Client: c}).Upkeep(t.Context(), &s, []plan.Upkeep{plan.Delete{Object: item.object}}); err != nil {
			t.Fatal(err)
		}
		forced := options.GracePeriodSeconds != nil && *options.GracePeriodSeconds == 0
		if forced != item.forced || options.Preconditions == nil || *options.Preconditions.UID != "uid" {
			t.Errorf("%T is deleted with %+v", item.object, options)
		}
	}
}
