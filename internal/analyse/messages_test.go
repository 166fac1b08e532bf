package analyse

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

// changed returns an intent that differs in one field.
func changed(t *testing.T, i cluster.Intent, field int) cluster.Intent {
	t.Helper()
	v := reflect.ValueOf(&i).Elem().Field(field)
	switch kind := v.Kind(); {
	case v.Type() == reflect.TypeFor[*corev1.PodSecurityContext](): // an empty one means nothing
		v.Set(reflect.ValueOf(&corev1.PodSecurityContext{RunAsUser: new(int64(1))}))
	case kind == reflect.String:
		v.SetString(v.String() + "x")
	case kind == reflect.Bool:
		v.SetBool(!v.Bool())
	case v.CanInt():
		v.SetInt(v.Int() + 1)
	case kind == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem())
	case kind == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case kind == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		t.Fatalf("no other value for a %s", kind)
	}
	return i
}

// Paths are v1beta1's, and no name of Go's is shown.
func TestEveryChangeRollsOrIsToldByItsPathInTheSpec(t *testing.T) {
	path := regexp.MustCompile(`^the pod of prod-0 was made with other values of (spec\.[a-zA-Z.]+)$`)
	intent := reflect.TypeFor[cluster.Intent]()
	for n := range intent.NumField() {
		name := intent.Field(n).Name
		switch name {
		case "Version": // has a rule of its own
			continue
		case "OperatorSecret", "PeerAuthorities", "ServerAuthorities": // no pod depends on it, or not the user's
			continue
		}
		s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
		m := &s.Members[0]
		if name == "RestartedFor" {
			continue // removing the annotation restarts no member
		}
		m.Workload.Intent = changed(t, m.Workload.Intent, n)
		_, m.Workload.IntentHash = m.Workload.Intent.Encode()
		m.Pod.IntentHash = m.Workload.IntentHash
		rolls := runsWithAnotherConfiguration(&s, m)
		switch name {
		case "ClusterDomain", "PeerSecret", "PeerCertificates", "PeerIssuer", "ServerSecret", "ServerCertificates", "ServerIssuer":
			if got := tlsChange(&s); !path.MatchString(got) || rolls {
				t.Errorf("a change of %s is told as %q, and rolls: %v", name, got, rolls)
			}
		default:
			if got := tlsChange(&s); got != "" || !rolls {
				t.Errorf("a change of %s is told as %q, and rolls: %v", name, got, rolls)
			}
		}
	}
}

func TestTheDeletionTellsWhatBecomesOfTheVolumes(t *testing.T) {
	const kept, deleted = "its volumes are kept.", "its volumes and the data on them are deleted too, as spec.storage.retentionPolicy.whenDeleted says."
	owned := Changed(func(m *cluster.Member) { m.Volume.DeletedWith = UID })
	for name, test := range map[string]struct {
		b    *Builder
		want string
	}{
		"volumes without an owner":                     {MakeCluster("prod").Objects().Members(Healthy), kept},
		"volumes of the cluster":                       {MakeCluster("prod").Objects().Members(Healthy, owned).LaterSpec(deleteVolumes), deleted},
		"volumes that were to stay, a moment too late": {MakeCluster("prod").Objects().Members(Healthy, owned), "the operator had not carried out spec.storage.retentionPolicy.whenDeleted: Retain."},
		"volumes without an owner, and Delete":         {MakeCluster("prod").Objects().Members(Healthy).LaterSpec(deleteVolumes), kept},
		"a foreground deletion that took the volumes":  {MakeCluster("prod").LaterSpec(deleteVolumes), deleted},
		"a cluster that never had volumes":             {MakeCluster("prod"), kept},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(test.b.Deleted().Snapshot())
			if d.Rule != RuleDeletion || !strings.HasSuffix(d.Message, test.want) {
				t.Errorf("%s says %q, want %q", d.Rule, d.Message, test.want)
			}
		})
	}
}

func TestAStartWithoutTheKeptVolumesIsAdvisedByTheSpec(t *testing.T) {
	const advice = "spec.bootstrap.existingVolumes: Ignore"
	for name, b := range map[string]*Builder{
		"too few volumes": MakeCluster("prod").Objects().Kept(nil, "prod-0").Later(func(s *cluster.Snapshot) {
			s.RetainedVolumes[0].Founders = []string{"prod-0", "prod-1", "prod-2"}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			if d := Next(b.Snapshot()); !strings.Contains(d.Message, advice) {
				t.Errorf("the message is %q", d.Message)
			}
		})
	}
}

func TestObjectsThatBelongToNoMemberAreNamed(t *testing.T) {
	const deletion, keep = "Delete the StatefulSet.", "Keep the data with kubectl annotate --overwrite pvc data-prod-3 operator.etcd-warden.io/membership=Retired"
	retired := Changed(func(m *cluster.Member) { m.Volume.Retired = true })
	lost := Changed(func(m *cluster.Member) { m.Volume = nil })
	for name, c := range map[string]struct {
		parts  []Part
		want   string
		advice []string
	}{
		"a member that was removed": {[]Part{Healthy}, "StatefulSet prod-3 with PersistentVolumeClaim data-prod-3 belongs to no member", []string{deletion, keep}},
		"a volume":                  {[]Part{Volume}, "PersistentVolumeClaim data-prod-3 belongs to no member", []string{keep}},
		"a member without a volume": {[]Part{Healthy, lost}, "StatefulSet prod-3 belongs to no member", []string{deletion}},
		"a retired volume":          {[]Part{Volume, retired}, "", nil},
		"a retired volume with its start": {
			[]Part{Volume, Sealed, retired}, "StatefulSet prod-3 with PersistentVolumeClaim data-prod-3", []string{deletion, keep},
		},
	} {
		s := MakeCluster("prod").Objects().Members(Healthy).Member("prod-3", c.parts...).Snapshot()
		s.LeftOvers, s.Members = s.Members[3:], s.Members[:3]
		d := Next(s)
		if c.want == "" {
			if len(d.Problems) > 0 {
				t.Errorf("%s: %v", name, d.Problems)
			}
			continue
		}
		if len(d.Problems) != 1 || !strings.HasPrefix(d.Problems[0].Message, c.want) {
			t.Fatalf("%s: want %q, got %v", name, c.want, d.Problems)
		}
		for _, advice := range []string{deletion, keep} {
			if text := d.Problems[0].Message; strings.Contains(text, advice) != slices.Contains(c.advice, advice) {
				t.Errorf("%s: want the advice %q, got %q", name, c.advice, text)
			}
		}
	}
}

func TestAVolumeThatWasReplacedUnderAPodIsToldAsAProblem(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Member("prod-1", Healthy, replaced).Snapshot()
	d := Next(s)
	if len(d.Problems) != 1 || d.Problems[0].Reason != "VolumeReplaced" || !strings.Contains(d.Problems[0].Message, "Pod prod-1-0 runs with the volume that it started on") {
		t.Errorf("got %v", d.Problems)
	}
	s.Member("prod-1").Pod = nil
	if d := Next(s); len(d.Problems) > 0 {
		t.Errorf("without a pod the member's reason tells it, got %v", d.Problems)
	}
}

func TestALossOfTheQuorumsVolumesSaysWhatToDo(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Sealed).Member("prod-0", Volume, Recorded, Sealed).Snapshot()
	const want = "The volumes of prod-1, prod-2 are gone or were replaced. 1 of 3 members have their volume, and the quorum is 2, so etcd cannot serve. " +
		"Bring the volumes themselves back, not copies of them."
	if d := Next(s); !strings.HasPrefix(d.Message, want) || d.Progressing {
		t.Errorf("progressing %v: %s", d.Progressing, d.Message)
	}
}

func TestAVolumeThatIsDeletedUnderAPodIsToldAsAProblem(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Later(func(s *cluster.Snapshot) { s.Member("prod-1").Volume.Deleting = true }).Snapshot()
	d := Next(s)
	if len(d.Problems) != 1 || d.Problems[0].Reason != "VolumeLost" || !strings.Contains(d.Problems[0].Message, "PersistentVolumeClaim data-prod-1 is being deleted") {
		t.Errorf("the problems are %+v", d.Problems)
	}
}
