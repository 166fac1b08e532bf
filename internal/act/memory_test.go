package act

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// memoryWorld has a member in memory whose pod waits, and a record that names a pod.
func memoryWorld(t *testing.T, named func(*corev1.Pod) string) (*storedWorld, *corev1.Pod) {
	t.Helper()
	w := newStoredWorld(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: clustertest.Namespace, Name: "prod-7-0"}}
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: cluster.GateInMemory}}
	must(t, w.Create(t.Context(), pod))
	c := w.s.Cluster.DeepCopy()
	c.Spec.Storage = clustertest.MakeCluster("prod").InMemory("1Gi").Snapshot().Cluster.Spec.Storage
	record := render.MemberVolume(c, "prod-7", nil, "token").(*corev1.ConfigMap)
	if name := named(pod); name != "" {
		record.Annotations[cluster.AnnotationVolume] = name
	}
	must(t, w.Create(t.Context(), record))
	return w, pod
}

func (w *storedWorld) isGated(t *testing.T, pod *corev1.Pod) bool {
	t.Helper()
	var live corev1.Pod
	must(t, w.Get(t.Context(), client.ObjectKeyFromObject(pod), &live))
	return len(live.Spec.SchedulingGates) > 0
}

func TestAPodIsAdmittedIfTheStoredRecordNamesIt(t *testing.T) {
	for name, c := range map[string]struct {
		named    func(*corev1.Pod) string
		uid      types.UID
		admitted bool
	}{
		"the pod of the record":               {func(p *corev1.Pod) string { return string(p.UID) + "/memory" }, "", true},
		"no pod is recorded":                  {func(*corev1.Pod) string { return "" }, "", false},
		"another pod is recorded":             {func(*corev1.Pod) string { return "before/memory" }, "", false},
		"the pod is another one than decided": {func(*corev1.Pod) string { return "before/memory" }, "before", false},
	} {
		t.Run(name, func(t *testing.T) {
			w, pod := memoryWorld(t, c.named)
			item := plan.AdmitPod{Member: "prod-7", Pod: pod.Name, UID: pod.UID}
			if c.uid != "" {
				item.UID = c.uid
			}
			_, err := (&Actor{Client: w, Live: w}).Upkeep(t.Context(), &w.s, []plan.Upkeep{item})
			if (err == nil) != c.admitted || w.isGated(t, pod) == c.admitted {
				t.Errorf("gated %t: %v", w.isGated(t, pod), err)
			}
		})
	}
}

// Another controller may hold a pod back as well, for a quota for example.
func TestTheGatesOfOthersStay(t *testing.T) {
	w, pod := memoryWorld(t, func(p *corev1.Pod) string { return string(p.UID) + "/memory" })
	pod.Spec.SchedulingGates = append(pod.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: "others.example/quota"})
	must(t, w.Update(t.Context(), pod))
	_, err := (&Actor{Client: w, Live: w}).Upkeep(t.Context(), &w.s, []plan.Upkeep{plan.AdmitPod{Member: "prod-7", Pod: pod.Name, UID: pod.UID}})
	must(t, err)
	var live corev1.Pod
	must(t, w.Get(t.Context(), client.ObjectKeyFromObject(pod), &live))
	if gates := live.Spec.SchedulingGates; len(gates) != 1 || gates[0].Name != "others.example/quota" {
		t.Errorf("the gates are %v", gates)
	}
}

// The operator is killed before and after the call that admits a pod.
func TestEveryCrashOfAnAdmissionIsMadeGood(t *testing.T) {
	errKilled := errors.New("killed")
	for _, after := range []bool{false, true} {
		w, pod := memoryWorld(t, func(p *corev1.Pod) string { return string(p.UID) + "/memory" })
		kill := func(call *simulation.Call) error {
			if call.Verb == simulation.Patch {
				return errKilled
			}
			return nil
		}
		if after {
			w.After = kill
		} else {
			w.Before = kill
		}
		item := []plan.Upkeep{plan.AdmitPod{Member: "prod-7", Pod: pod.Name, UID: pod.UID}}
		if _, err := (&Actor{Client: w, Live: w}).Upkeep(t.Context(), &w.s, item); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		w.Before, w.After = nil, nil
		if _, err := (&Actor{Client: w, Live: w}).Upkeep(t.Context(), &w.s, item); err != nil || w.isGated(t, pod) {
			t.Errorf("after %t: gated %t, %v", after, w.isGated(t, pod), err)
		}
	}
}

func TestARecordInMemoryIsWrittenOnAConfigMapOnce(t *testing.T) {
	w, _ := memoryWorld(t, func(*corev1.Pod) string { return "" })
	key := client.ObjectKey{Namespace: clustertest.Namespace, Name: "data-prod-7"}
	var record corev1.ConfigMap
	must(t, w.Get(t.Context(), key, &record))
	write := func(uid string) error {
		_, err := (&Actor{Client: w, Live: w}).Upkeep(t.Context(), &w.s, []plan.Upkeep{plan.RecordMember{
			Member: "prod-7", Volume: record.Name, InMemory: true, ResourceVersion: record.ResourceVersion,
			Annotations: map[string]string{cluster.AnnotationVolume: uid + "/memory"},
		}})
		return err
	}
	must(t, write("first"))
	if err := write("second"); !apierrors.IsConflict(err) {
		t.Errorf("got %v", err)
	}
	must(t, w.Get(t.Context(), key, &record))
	if got := record.Annotations[cluster.AnnotationVolume]; got != "first/memory" {
		t.Errorf("got %q", got)
	}
}

func TestAMemberWhosePodRunsIsNotLost(t *testing.T) {
	for name, c := range map[string]struct {
		lost func(*corev1.Pod) *plan.Lost
		is   bool
	}{
		"its pod is there":          {func(p *corev1.Pod) *plan.Lost { return &plan.Lost{Pod: p.Name, PodUID: p.UID} }, false},
		"another pod of its name":   {func(p *corev1.Pod) *plan.Lost { return &plan.Lost{Pod: p.Name, PodUID: "before"} }, true},
		"there is no pod":           {func(*corev1.Pod) *plan.Lost { return &plan.Lost{Pod: "prod-8-0", PodUID: "before"} }, true},
		"a user says that it is so": {func(*corev1.Pod) *plan.Lost { return &plan.Lost{} }, true},
	} {
		w, pod := memoryWorld(t, func(*corev1.Pod) string { return "" })
		w.Before = func(call *simulation.Call) error {
			if call.Verb == simulation.Get && call.Key.Name == "" {
				return errors.New("resource name may not be empty") // as client-go answers
			}
			return nil
		}
		if err := (&Actor{Client: w, Live: w}).stillLost(t.Context(), &w.s, c.lost(pod)); (err == nil) != c.is {
			t.Errorf("%s: %v", name, err)
		}
	}
}
