package observe

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// persistentVolume adds a PersistentVolume.
func (s *stage) persistentVolume(name string, uid types.UID, source corev1.PersistentVolumeSource) *corev1.PersistentVolume {
	return s.add(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: source},
	}).(*corev1.PersistentVolume)
}

// bound adds a volume of the cluster that is bound to a PersistentVolume, with the given annotations.
func (s *stage) bound(owner types.UID, volume string, annotations map[string]string) *corev1.PersistentVolumeClaim {
	claim := s.volume("prod-0", owner)
	claim.UID, claim.Spec.VolumeName, claim.Status.Phase = "claim-1", volume, corev1.ClaimBound
	for key, value := range annotations {
		claim.Annotations[key] = value
	}
	return claim
}

var csi = corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: "disk-1"}}

func TestReadsWhatStandsOnTheClaim(t *testing.T) {
	s := newStage(t, 1)
	s.bound(s.cluster.UID, "pv-1", map[string]string{
		cluster.AnnotationStarted: "Readiness", cluster.AnnotationVolume: "claim-0/pv-0", cluster.AnnotationVolumeUID: "uid-0",
		cluster.AnnotationVolumeSource: "csi://csi.example.com/disk-0", v1beta1.AcceptVolumeAnnotation: "claim-1/pv-1",
	})
	v := s.observe().Member("prod-0").Volume
	if !v.Started() || v.StartedBy != cluster.StartedByReadiness || v.ClusterID != 0 {
		t.Errorf("started: %v by %q, cluster ID %v", v.Started(), v.StartedBy, v.ClusterID)
	}
	if v.Phase != corev1.ClaimBound || v.Accepted != v.Identity.String() {
		t.Errorf("the phase is %q, accepted is %q, and the volume is %s", v.Phase, v.Accepted, v.Identity)
	}
	if diff := cmp.Diff(cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}, v.Identity); diff != "" {
		t.Error(diff)
	}
	want := cluster.VolumeIdentity{Claim: "claim-0", Name: "pv-0", UID: "uid-0", Source: "csi://csi.example.com/disk-0"}
	if diff := cmp.Diff(want, v.Remembered); diff != "" {
		t.Error(diff)
	}
}

func TestReadsAPersistentVolumeOnlyWhereItMatters(t *testing.T) {
	started := map[string]string{cluster.AnnotationStarted: "Answer"}
	recorded := func(identity string) map[string]string {
		return map[string]string{cluster.AnnotationStarted: "Answer", cluster.AnnotationVolume: identity, cluster.AnnotationVolumeUID: "uid-1"}
	}
	for name, test := range map[string]struct {
		prepare func(*stage)
		want    int
	}{
		"started and not recorded":        {func(s *stage) { s.bound(s.cluster.UID, "pv-1", started) }, 1},
		"recorded":                        {func(s *stage) { s.bound(s.cluster.UID, "pv-1", recorded("claim-1/pv-1")) }, 0},
		"another PersistentVolume":        {func(s *stage) { s.bound(s.cluster.UID, "pv-1", recorded("claim-1/pv-0")) }, 1},
		"another claim":                   {func(s *stage) { s.bound(s.cluster.UID, "pv-1", recorded("claim-0/pv-1")) }, 1},
		"not started":                     {func(s *stage) { s.bound(s.cluster.UID, "pv-1", nil) }, 0},
		"started and not bound":           {func(s *stage) { s.bound(s.cluster.UID, "", started).Status.Phase = corev1.ClaimPending }, 0},
		"the PersistentVolume is lost":    {func(s *stage) { s.bound(s.cluster.UID, "pv-1", started).Status.Phase = corev1.ClaimLost }, 0},
		"retained and recorded":           {func(s *stage) { s.bound("uid-0", "pv-1", recorded("claim-1/pv-1")) }, 0},
		"retained and not recorded":       {func(s *stage) { s.bound("uid-0", "pv-1", started) }, 0},
		"retained, under another claim":   {func(s *stage) { s.bound("uid-0", "pv-1", recorded("claim-0/pv-1")) }, 1},
		"the operator sees no such thing": {func(s *stage) { s.bound(s.cluster.UID, "pv-1", started); s.observer.SeesClusterScope = false }, 0},
	} {
		s := newStage(t, 1)
		s.observe() // makes the observer
		reads := 0
		s.refuse = func(object client.Object, _ string) error {
			if _, ok := object.(*corev1.PersistentVolume); ok {
				reads++
			}
			return nil
		}
		s.persistentVolume("pv-1", "uid-1", csi)
		test.prepare(s)
		snapshot := s.observe()
		if reads != test.want {
			t.Errorf("%s: %d PersistentVolumes were read, want %d", name, reads, test.want)
		}
		volume := snapshot.RetainedVolumes
		if m := snapshot.Member("prod-0"); m != nil {
			volume = []cluster.Volume{*m.Volume}
		}
		if test.want == 1 && (volume[0].Identity.UID != "uid-1" || volume[0].Identity.Source != "csi://csi.example.com/disk-1") {
			t.Errorf("%s: the volume is %+v", name, volume[0].Identity)
		}
	}
}

func TestAMissingPersistentVolumeIsUnknown(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "persistentvolumes"}, "pv-1", nil)
	for name, refusal := range map[string]error{"not there": nil, "not shown": forbidden} {
		s := newStage(t, 1)
		s.bound(s.cluster.UID, "pv-1", map[string]string{cluster.AnnotationStarted: "Answer"})
		s.refuse = func(object client.Object, _ string) error {
			if _, ok := object.(*corev1.PersistentVolume); ok {
				return refusal
			}
			return nil
		}
		if v := s.observe().Member("prod-0").Volume; v.Identity != (cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}) {
			t.Errorf("%s: the volume is %+v", name, v.Identity)
		}
	}
}

func TestTellsWhereTheDataOfAVolumeLies(t *testing.T) {
	on := func(node string) *corev1.VolumeNodeAffinity {
		return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}}
	}
	for want, spec := range map[string]corev1.PersistentVolumeSpec{
		"csi://csi.example.com/disk-1": {PersistentVolumeSource: csi},
		"local://node-1/mnt/disks/a": {
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/mnt/disks/a"}}, NodeAffinity: on("node-1"),
		},
		"local://node-2/var/local/b": {
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/local/b"}}, NodeAffinity: on("node-2"),
		},
		"": {PersistentVolumeSource: corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/p"}}},
	} {
		if got := sourceOf(&corev1.PersistentVolume{Spec: spec}); got != want {
			t.Errorf("the source is %q, want %q", got, want)
		}
	}
}
