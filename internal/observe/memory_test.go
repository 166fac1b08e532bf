package observe

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// inMemory adds a member whose data are in memory, and whose record names the pod of that UID.
func (s *stage) inMemory(name, podUID string) (*corev1.ConfigMap, *corev1.Pod) {
	s.cluster.Spec.Storage = &v1beta1.Storage{Ephemeral: &v1beta1.EphemeralStorage{Medium: v1beta1.EphemeralMemory, SizeLimit: resource.MustParse("1Gi")}}
	record := s.add(render.MemberVolume(s.cluster, name, []string{name}, "token")).(*corev1.ConfigMap)
	record.Annotations[cluster.AnnotationVolume] = podUID + "/memory"
	record.Annotations[v1beta1.AcceptVolumeAnnotation] = "pod-" + name + "/memory"
	set := render.MemberStatefulSet(render.MemberInput{Cluster: s.cluster, Name: name, Intent: cluster.IntentOf(s.cluster), MemoryBytes: 1 << 30})
	set.UID = "set"
	s.add(set)
	return record, s.pod(name, "10.0.0.1", set.UID)
}

func TestTheVolumeOfAMemberInMemoryIsItsPod(t *testing.T) {
	for name, c := range map[string]struct {
		recorded string
		change   func(*corev1.Pod)
		replaced bool
	}{
		"the pod that the record names":             {"pod-prod-0", func(*corev1.Pod) {}, false},
		"another pod, which the user cannot accept": {"pod-before", func(*corev1.Pod) {}, true},
		"the pod is being deleted": {"pod-prod-0", func(p *corev1.Pod) {
			p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: p.CreationTimestamp.Time}, []string{"a/b"}
		}, true},
		"the pod failed: its node shut down": {"pod-prod-0", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, true},
		"the pod waits for its image":        {"pod-prod-0", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, 1)
			_, pod := s.inMemory("prod-0", c.recorded)
			c.change(pod)
			m := s.observe().Member("prod-0")
			if v := m.Volume; v == nil || !v.InMemory || v.RequestedBytes != 1<<30 || v.IsReplaced() != c.replaced {
				t.Errorf("got %+v", v)
			}
			if m.Workload.MemoryBytes != 1<<30 {
				t.Errorf("the StatefulSet has %d bytes", m.Workload.MemoryBytes)
			}
		})
	}
}

// A StatefulSet may be deleted without its pod. The next one takes the pod, once it is there.
func TestAPodWithoutAnOwnerHasTheMemoryOfItsMember(t *testing.T) {
	for name, c := range map[string]struct {
		recorded string
		change   func(*corev1.Pod)
		replaced bool
	}{
		"the pod that the record names": {"pod-prod-0", func(*corev1.Pod) {}, false},
		"another pod":                   {"pod-before", func(*corev1.Pod) {}, true},
		"the pod of another member":     {"pod-prod-0", func(p *corev1.Pod) { p.Labels[cluster.LabelMember] = "prod-1" }, true},
		"the pod has ended":             {"pod-prod-0", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, true},
	} {
		for _, hasWorkload := range []bool{false, true} {
			s := newStage(t, 1)
			_, pod := s.inMemory("prod-0", c.recorded)
			pod.OwnerReferences = nil
			c.change(pod)
			if !hasWorkload {
				s.objects = slices.DeleteFunc(s.objects, func(o client.Object) bool { _, is := o.(*appsv1.StatefulSet); return is })
			}
			if m := s.observe().Member("prod-0"); m.Pod != nil || m.Volume.IsReplaced() != c.replaced || (m.Workload != nil) != hasWorkload {
				t.Errorf("%s, with a StatefulSet: %t: replaced: %t, %+v", name, hasWorkload, m.Volume.IsReplaced(), m.Pod)
			}
		}
	}
}

func TestAPodThatIsNotAdmittedHasNotFailed(t *testing.T) {
	s := newStage(t, 1)
	_, pod := s.inMemory("prod-0", "pod-prod-0")
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: cluster.GateInMemory}}
	pod.Status.Phase = corev1.PodPending
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated}}
	if p := s.observe().Member("prod-0").Pod; !p.Gated || p.FailureReason != "" {
		t.Errorf("gated %t, failed for %q", p.Gated, p.FailureReason)
	}
}

// Nothing of another cluster's is taken back: there are no data behind its records.
func TestTheRecordOfAnotherClusterIsForeign(t *testing.T) {
	s := newStage(t, 1)
	record, _ := s.inMemory("prod-0", "pod-prod-0")
	record.OwnerReferences[0].UID = "earlier"
	got := s.observe()
	if len(got.RetainedVolumes) > 0 || len(got.ForeignObjects) != 1 || got.ForeignObjects[0].Kind != "ConfigMap" || !got.ForeignObjects[0].Terminating {
		t.Errorf("%d are taken back; foreign is %+v", len(got.RetainedVolumes), got.ForeignObjects)
	}
	other := newStage(t, 1)
	record, _ = other.inMemory("prod-0", "pod-prod-0")
	record.Name = "settings" // of a user, with the operator's labels
	if got := other.observe(); len(got.ForeignObjects) > 0 {
		t.Errorf("foreign is %+v", got.ForeignObjects)
	}
}
