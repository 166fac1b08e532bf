package observe

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// stage is a Kubernetes with one cluster, prod, and what its members would answer.
type stage struct {
	t        *testing.T
	cluster  *v1beta1.EtcdCluster
	objects  []client.Object
	answers  map[string]func() (cluster.Probe, error) // by address
	members  map[string]cluster.Membership
	asked    []string
	reads    int // of Secrets
	refuse   func(object client.Object, name string) error
	now      time.Time
	observer *Observer

	events      []corev1.Event
	eventReads  int
	eventsError error
}

func newStage(t *testing.T, size int32) *stage {
	s := clustertest.MakeCluster("prod").Replicas(size).Snapshot()
	return &stage{t: t, cluster: s.Cluster, now: time.Now(), answers: map[string]func() (cluster.Probe, error){}, members: map[string]cluster.Membership{}}
}

// Probe implements etcd.Port.
func (s *stage) Probe(_ context.Context, e etcd.Endpoint) (cluster.Probe, error) {
	answer := s.answers[e.Address]
	if answer == nil {
		return cluster.Probe{}, errors.New("connection refused")
	}
	return answer()
}

// Membership implements etcd.Port.
func (s *stage) Membership(_ context.Context, e etcd.Endpoint) (cluster.Membership, error) {
	s.asked = append(s.asked, e.Address)
	return s.members[e.Address], nil
}

// countingReader counts the Secrets that are read.
type countingReader struct {
	client.Reader
	stage *stage
}

func (r countingReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if _, ok := object.(*corev1.Secret); ok {
		r.stage.reads++
	}
	if r.stage.refuse != nil {
		if err := r.stage.refuse(object, key.Name); err != nil {
			return err
		}
	}
	return r.Reader.Get(ctx, key, object, options...)
}

// List answers requests for events by their field selector, which the fake client cannot.
func (r countingReader) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	events, ok := list.(*corev1.EventList)
	if !ok {
		return r.Reader.List(ctx, list, options...)
	}
	r.stage.eventReads++
	asked := (&client.ListOptions{}).ApplyOptions(options)
	if asked.Namespace != r.stage.cluster.Namespace || asked.Limit == 0 {
		r.stage.t.Errorf("events of namespace %q are listed with the limit %d", asked.Namespace, asked.Limit)
	}
	for _, e := range r.stage.events {
		if asked.FieldSelector.Matches(fields.Set{"involvedObject.uid": string(e.InvolvedObject.UID), "reason": e.Reason}) {
			events.Items = append(events.Items, e)
		}
	}
	return r.stage.eventsError
}

func (s *stage) observe() *cluster.Snapshot {
	s.t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			s.t.Fatal(err)
		}
	}
	objects := []client.Object{s.cluster.DeepCopy()}
	for _, o := range s.objects {
		objects = append(objects, o.DeepCopyObject().(client.Object))
	}
	reader := clientfake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithIndex(&appsv1.StatefulSet{}, IndexCluster, ClusterName).WithIndex(&corev1.Pod{}, IndexCluster, ClusterName).
		WithIndex(&corev1.PersistentVolumeClaim{}, IndexCluster, ClusterName).WithIndex(&corev1.ConfigMap{}, IndexCluster, ClusterName).Build()
	if s.observer == nil {
		s.observer = &Observer{SeesClusterScope: true, Etcd: s, Now: func() time.Time { return s.now }}
	}
	s.observer.Reader, s.observer.Live = reader, countingReader{reader, s}
	snapshot, err := s.observer.Observe(context.Background(), s.cluster.Key())
	if err != nil {
		s.t.Fatal(err)
	}
	return snapshot
}

// problemsOf tells what is wrong with what was observed.
func problemsOf(s *cluster.Snapshot) []plan.Problem { return analyse.Next(*s).Problems }

func (s *stage) add(o client.Object) client.Object { s.objects = append(s.objects, o); return o }

func (s *stage) volume(name string, owner types.UID) *corev1.PersistentVolumeClaim {
	c := s.cluster.DeepCopy()
	c.UID = owner
	return s.add(render.MemberVolume(c, name, []string{"prod-0", "prod-1", "prod-2"}, render.ClusterToken(c))).(*corev1.PersistentVolumeClaim)
}

func (s *stage) workload(name string) *appsv1.StatefulSet {
	set := render.MemberStatefulSet(render.MemberInput{Cluster: s.cluster, Name: name, Intent: cluster.IntentOf(s.cluster)})
	set.UID = types.UID("set-" + name)
	return s.add(set).(*appsv1.StatefulSet)
}

func (s *stage) pod(name, ip string, owner types.UID) *corev1.Pod {
	return s.add(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.cluster.Namespace, Name: cluster.PodName(name), UID: types.UID("pod-" + name), CreationTimestamp: metav1.NewTime(s.now),
			Labels:          map[string]string{cluster.LabelCluster: "prod", cluster.LabelMember: name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: name, UID: owner, Controller: new(true)}},
		},
		Status: corev1.PodStatus{PodIP: ip, Phase: corev1.PodRunning},
	}).(*corev1.Pod)
}

// member adds a recorded member whose etcd answers.
func (s *stage) member(name, ip string, probe cluster.Probe) {
	v := s.volume(name, s.cluster.UID)
	v.Annotations[cluster.AnnotationClusterID], v.Annotations[cluster.AnnotationMemberID] = "c1", probe.MemberID.String()
	s.pod(name, ip, s.workload(name).UID)
	s.answers[ip+":2379"] = func() (cluster.Probe, error) { return probe, nil }
}

func names(members []cluster.Member) []string {
	var list []string
	for _, m := range members {
		list = append(list, m.Name)
	}
	return list
}

func TestAClusterThatIsGoneHasNoSnapshot(t *testing.T) {
	s := newStage(t, 3)
	s.observe()
	snapshot, err := s.observer.Observe(context.Background(), client.ObjectKey{Namespace: clustertest.Namespace, Name: "other"})
	if snapshot != nil || err != nil {
		t.Errorf("got %v, %v", snapshot, err)
	}
}

func TestMembersAreThoseThatTheVolumesRemember(t *testing.T) {
	s := newStage(t, 3)
	s.volume("prod-1", s.cluster.UID)
	s.workload("prod-10")
	got := s.observe()
	if diff := cmp.Diff([]string{"prod-0", "prod-1", "prod-2"}, names(got.Members)); diff != "" {
		t.Error(diff)
	}
	v := got.Member("prod-1").Volume
	if v == nil || v.Token != "shop/prod/uid-1" || v.Started() || v.RequestedBytes != 8<<30 || len(v.Founders) != 3 {
		t.Errorf("got %+v", v)
	}
	if diff := cmp.Diff([]string{"prod-10"}, names(got.LeftOvers)); diff != "" {
		t.Fatal(diff)
	}
	if w := got.LeftOvers[0].Workload; w == nil || w.StartsEmpty || w.Intent.Version != clustertest.Version {
		t.Errorf("got %+v", w)
	}
}

func TestMembersAreThoseOfEtcdsListOnceAVoterAnswers(t *testing.T) {
	s := newStage(t, 3)
	s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true})
	s.volume("prod-2", s.cluster.UID)
	s.members["10.0.0.1:2379"] = listOf("prod-0", 0xa0)
	got := s.observe()
	if diff := cmp.Diff([]string{"prod-0"}, names(got.Members)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"prod-2"}, names(got.LeftOvers)); diff != "" {
		t.Error(diff)
	}
}

func TestVolumesOfAnEarlierClusterAreKeptOnes(t *testing.T) {
	s := newStage(t, 3)
	s.volume("prod-1", "uid-0")
	s.volume("prod-0", "uid-0").Annotations[cluster.AnnotationMembership] = cluster.MembershipRetired
	got := s.observe()
	if len(got.Members) != 0 || len(got.RetainedVolumes) != 2 || got.RetainedVolumes[0].Member != "prod-0" || !got.RetainedVolumes[0].Retired || got.RetainedVolumes[1].Retired {
		t.Errorf("got members %v, kept %+v", names(got.Members), got.RetainedVolumes)
	}
}

func TestObjectsThatAreSomebodyElsesAreStrangers(t *testing.T) {
	s := newStage(t, 3)
	delete(s.volume("prod-0", s.cluster.UID).Annotations, cluster.AnnotationClusterUID)
	s.workload("prod-1").OwnerReferences = nil
	earlier := s.workload("prod-2")
	earlier.OwnerReferences[0].UID = "uid-0"
	s.pod("prod-2", "10.0.0.3", earlier.UID)
	foreign := render.PeerService(s.cluster)
	foreign.OwnerReferences = nil
	s.add(foreign)
	s.add(render.ClientService(s.cluster))
	got := s.observe()
	var strangers []string
	for _, x := range got.ForeignObjects {
		text := x.Kind + " " + x.Name
		if x.Terminating {
			text += " leaving"
		}
		strangers = append(strangers, text)
	}
	want := []string{"PersistentVolumeClaim data-prod-0", "Pod prod-2-0 leaving", "StatefulSet prod-1", "StatefulSet prod-2 leaving", "Service prod"}
	if diff := cmp.Diff(want, strangers); diff != "" {
		t.Error(diff)
	}
	if len(got.Members) != 0 || got.PeerService != nil || got.ClientService == nil {
		t.Errorf("something foreign was adopted: %v", names(got.Members))
	}
}

func TestAStatefulSetWhoseIntentCannotBeReadIsRefusedByName(t *testing.T) {
	s := newStage(t, 1)
	s.volume("prod-0", s.cluster.UID)
	broken := s.workload("prod-0")
	broken.Annotations[cluster.AnnotationIntent] = "{"
	s.pod("prod-0", "10.0.0.1", broken.UID)
	got := s.observe()
	if len(got.ForeignObjects) != 1 || got.ForeignObjects[0].Owner != "its annotation operator.etcd-warden.io/intent cannot be read" ||
		!strings.Contains(got.ForeignObjects[0].Advice, "The operator creates it again over the same volume") {
		t.Errorf("got %+v", got.ForeignObjects)
	}
	if got.Member("prod-0").Workload != nil {
		t.Error("a StatefulSet that cannot be understood was taken for a member's")
	}
}

func TestReadsTheIntentsOfStatefulSetsAndPods(t *testing.T) {
	healthy := cluster.Intent{Version: "3.6.12"}
	text, _ := healthy.Encode()
	for stored, want := range map[string]*cluster.Intent{"": nil, text: &healthy, "not JSON": nil} {
		s := newStage(t, 1)
		set := s.workload("prod-0")
		if stored != "" {
			set.Annotations[cluster.AnnotationHealthyIntent] = stored
		}
		s.pod("prod-0", "10.0.0.1", set.UID).Annotations = map[string]string{cluster.AnnotationIntentHash: "older"}
		m := s.observe().Member("prod-0")
		if diff := cmp.Diff(want, m.Workload.HealthyIntent); diff != "" {
			t.Errorf("%q: the healthy intent (-want +got):\n%s", stored, diff)
		}
		if hash := set.Annotations[cluster.AnnotationIntentHash]; hash == "" || m.Workload.IntentHash != hash || m.Pod.IntentHash != "older" {
			t.Errorf("the intent hashes are %q and %q", m.Workload.IntentHash, m.Pod.IntentHash)
		}
		set.Annotations[cluster.AnnotationHealthyIntent] = set.Annotations[cluster.AnnotationIntent]
		m = s.observe().Member("prod-0")
		if diff := cmp.Diff(&m.Workload.Intent, m.Workload.HealthyIntent); diff != "" {
			t.Errorf("healthy under the present intent:\n%s", diff)
		}
	}
}

func TestAPodOfAForeignStatefulSetIsNobodysMember(t *testing.T) {
	s := newStage(t, 1)
	s.volume("prod-0", s.cluster.UID)
	s.workload("prod-0")
	s.pod("prod-0", "10.0.0.1", "set-of-before")
	if m := s.observe().Member("prod-0"); m.Pod != nil || m.Probe != nil {
		t.Errorf("got pod %+v, probe %+v", m.Pod, m.Probe)
	}
}

func TestANodeIsLostWhenItDoesNotRemoveAPodInTime(t *testing.T) {
	for name, c := range map[string]struct {
		over time.Duration
		want bool
	}{"in time": {removalTime - time.Second, false}, "too late": {removalTime + 2*time.Second, true}} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, 1)
			s.volume("prod-0", s.cluster.UID)
			pod := s.pod("prod-0", "10.0.0.1", s.workload("prod-0").UID)
			pod.DeletionTimestamp, pod.Finalizers = &metav1.Time{Time: s.now.Add(-c.over)}, []string{"test/hold"}
			m := s.observe().Member("prod-0")
			if m.Pod == nil || m.Pod.NodeLost != c.want || (m.Probe == nil) != c.want {
				t.Errorf("got %+v, probe %+v", m.Pod, m.Probe)
			}
		})
	}
}

func TestAPodThatHasEndedIsHeldByFinalizersAndNotByItsNode(t *testing.T) {
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		s := newStage(t, 1)
		s.volume("prod-0", s.cluster.UID)
		pod := s.pod("prod-0", "10.0.0.1", s.workload("prod-0").UID)
		pod.DeletionTimestamp, pod.Finalizers = &metav1.Time{Time: s.now.Add(-time.Hour)}, []string{"test/hold"}
		pod.Status.Phase = phase
		if p := s.observe().Member("prod-0").Pod; p == nil || p.NodeLost || p.FailureReason != v1beta1.ReasonPodHeld || !strings.Contains(p.FailureDetail, "test/hold") {
			t.Errorf("%s: got %+v", phase, p)
		}
	}
}

func TestTheMembershipIsThatOfAVoterThatServes(t *testing.T) {
	s := newStage(t, 3)
	serving := cluster.Probe{ClusterID: 0xc1, MemberID: 0xa2, Linearizable: true}
	s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0})
	s.member("prod-1", "10.0.0.2", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa1, Linearizable: true, Learner: true})
	s.member("prod-2", "10.0.0.3", serving)
	s.members["10.0.0.3:2379"] = listOf("prod-2", 0xa2)
	got := s.observe()
	if diff := cmp.Diff([]string{"10.0.0.3:2379"}, s.asked); diff != "" || got.Membership == nil {
		t.Errorf("membership %v: %s", got.Membership, diff)
	}
}

// Somebody changed peer URLs with etcdctl: a list names the members whose URLs are as they were.
func TestAListThatNamesAnotherMemberOnlyIsAskedOfThatOne(t *testing.T) {
	s := newStage(t, 3)
	for n, name := range []string{"prod-0", "prod-1", "prod-2"} {
		ip := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}[n]
		s.member(name, ip, cluster.Probe{ClusterID: 0xc1, MemberID: cluster.ID(0xa0 + n), Linearizable: true})
		s.members[ip+":2379"] = listOf("prod-2", 0xa2)
	}
	if got := s.observe(); got.Membership == nil || len(s.asked) != 3 {
		t.Errorf("membership %v, asked %v", got.Membership, s.asked)
	}
}

// The first member's claim lost its record, and no list names that member: its own answer stays beside another's list.
func TestAMemberWhoseClaimLostItsRecordIsAskedLast(t *testing.T) {
	s := newStage(t, 2)
	list := listOf("prod-0", 0xa0)
	list.Members = append(list.Members, listOf("prod-1", 0xa1).Members...)
	for n, name := range []string{"prod-0", "prod-1"} {
		ip := []string{"10.0.0.1", "10.0.0.2"}[n]
		s.member(name, ip, cluster.Probe{ClusterID: 0xc1, MemberID: cluster.ID(0xa0 + n), Linearizable: true})
		s.members[ip+":2379"] = list
	}
	for _, o := range s.objects {
		if o.GetName() == cluster.VolumeName("prod-0") {
			o.SetAnnotations(map[string]string{cluster.AnnotationClusterUID: string(s.cluster.UID)})
		}
	}
	got := s.observe()
	if m := got.Member("prod-0"); got.Membership == nil || m == nil || !m.Answers() {
		t.Errorf("membership %v, member %+v", got.Membership, m)
	}
}

func TestAMembershipOfAnotherClusterIsNotTaken(t *testing.T) {
	s := newStage(t, 1)
	s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true})
	s.members["10.0.0.1:2379"] = cluster.Membership{ClusterID: 0xee}
	if got := s.observe(); got.Membership != nil {
		t.Errorf("got %+v", got.Membership)
	}
}

func TestAnotherMemberAtAnAddressIsNoAnswer(t *testing.T) {
	s := newStage(t, 1)
	s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true})
	s.answers["10.0.0.1:2379"] = func() (cluster.Probe, error) {
		return cluster.Probe{ClusterID: 0xc1, MemberID: 0xa7, Linearizable: true}, nil
	}
	if p := s.observe().Member("prod-0").Probe; p.Answered() || p.Error != "another member answers at its address" {
		t.Errorf("got %+v", p)
	}
}

func TestAnotherClusterAtAnAddressIsNoAnswer(t *testing.T) {
	foreign := cluster.Probe{ClusterID: 0xee, MemberID: 0xa1, Linearizable: true}
	unrecorded := func(s *stage, name, ip string, probe cluster.Probe) {
		s.member(name, ip, probe)
		for _, o := range s.objects {
			if o.GetName() == cluster.VolumeName(name) {
				delete(o.GetAnnotations(), cluster.AnnotationClusterID)
			}
		}
	}
	for name, prepare := range map[string]func(*stage){
		"its own volume has another ID":     func(s *stage) { s.member("prod-1", "10.0.0.2", foreign) },
		"another volume has another ID":     func(s *stage) { unrecorded(s, "prod-1", "10.0.0.2", foreign) },
		"its list does not name the member": func(s *stage) { unrecorded(s, "prod-1", "10.0.0.2", foreign) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, 3)
			if name != "its list does not name the member" {
				s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true})
			}
			s.members["10.0.0.1:2379"] = cluster.Membership{ClusterID: 0xc1, Members: append(listOf("prod-0", 0xa0).Members, listOf("prod-1", 0xa1).Members...)}
			s.members["10.0.0.2:2379"] = cluster.Membership{ClusterID: 0xee, Members: []cluster.EtcdMember{{ID: 0xa1, Name: "test-1"}}}
			prepare(s)
			got := s.observe()
			if p := got.Member("prod-1").Probe; p.Answered() || p.Error != "another cluster answers at its address" || len(got.ClusterIDs()) > 1 {
				t.Errorf("got %+v and the cluster IDs %v", p, got.ClusterIDs())
			}
		})
	}
}

func TestTwoClustersOfTheSameMembersAreSeen(t *testing.T) {
	s := newStage(t, 3)
	for n, name := range []string{"prod-0", "prod-1"} {
		ip, id := []string{"10.0.0.1", "10.0.0.2"}[n], cluster.ID(0xa0+n)
		s.member(name, ip, cluster.Probe{ClusterID: cluster.ID(0xc1 + n), MemberID: id, Linearizable: true})
		list := listOf(name, id)
		list.ClusterID = cluster.ID(0xc1 + n)
		list.Members = append(list.Members, listOf([]string{"prod-1", "prod-0"}[n], 0xa7).Members...)
		s.members[ip+":2379"] = list
	}
	for _, o := range s.objects {
		delete(o.GetAnnotations(), cluster.AnnotationClusterID)
	}
	if ids := s.observe().ClusterIDs(); len(ids) != 2 {
		t.Errorf("got %v", ids)
	}
}

func TestStorageClassesAreCheckedBeforeTheFirstVolume(t *testing.T) {
	class := func(name, isDefault string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{defaultClassAnnotation: isDefault}}}
	}
	named := func(s *stage, name string) {
		storage := clustertest.Gibibytes(2)
		storage.VolumeClaimTemplate.Spec.StorageClassName = &name
		s.cluster.Spec.Storage = storage
	}
	for name, c := range map[string]struct {
		prepare func(*stage)
		want    int
	}{
		"no default":              {func(s *stage) { s.add(class("slow", "false")) }, 1},
		"a default":               {func(s *stage) { s.add(class("fast", "true")) }, 0},
		"a named one":             {func(s *stage) { s.add(class("slow", "false")); named(s, "slow") }, 0},
		"a named one, not there":  {func(s *stage) { s.add(class("fast", "true")); named(s, "slow") }, 1},
		"there are volumes":       {func(s *stage) { s.volume("prod-0", s.cluster.UID) }, 0},
		"volumes are taken back":  {func(s *stage) { s.volume("prod-0", "uid-0") }, 0},
		"kept, and to be ignored": {func(s *stage) { s.volume("prod-0", "uid-0"); emptyStart(s) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, 1)
			c.prepare(s)
			got := problemsOf(s.observe())
			if len(got) != c.want || c.want == 1 && got[0].Reason != v1beta1.ReasonStorageClassNotFound {
				t.Errorf("got %v", got)
			}
		})
	}
}

func emptyStart(s *stage) {
	s.cluster.Annotations = map[string]string{v1beta1.BootstrapAnnotation: v1beta1.BootstrapEmpty}
}

// secured adds a member that runs, and Secrets for all, which end after life.
func secured(t *testing.T, life time.Duration) *stage {
	s := newStage(t, 1)
	s.cluster.Spec.TLS = clustertest.FromSecrets("peer", "server", "operator")
	authority := pkitest.NewAuthority(t, "authority")
	for name, prefix := range map[string][3]string{
		"peer": {"peer.crt", "peer.key", "peer-ca.crt"}, "server": {"server.crt", "server.key", "server-ca.crt"},
		"operator": {"etcd-client.crt", "etcd-client.key", "etcd-client-ca.crt"},
	} {
		pair := authority.Issue(t, pkitest.Leaf{
			CommonName: name, Names: []string{"*.prod.shop.svc", "prod-client.shop.svc", "localhost"}, NotBefore: s.now, NotAfter: s.now.Add(life),
		})
		s.add(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)}, Data: map[string][]byte{
			prefix[0]: pair.Certificate, prefix[1]: pair.Key, prefix[2]: authority.PEM,
		}})
	}
	s.now = s.now.Add(time.Minute)
	s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true})
	return s
}

const allSecrets = 3

// expectReads observes and checks how many Secrets were read for it.
func (s *stage) expectReads(want int, why string) *cluster.Snapshot {
	s.t.Helper()
	s.reads = 0
	got := s.observe()
	if s.reads != want {
		s.t.Errorf("%s: %d Secrets were read, not %d", why, s.reads, want)
	}
	return got
}

func TestSecretsAreReadOnlyWhenTheyMayHaveChanged(t *testing.T) {
	s := secured(t, 90*24*time.Hour)
	if got := s.expectReads(allSecrets, "at first"); len(problemsOf(got)) > 0 || !got.Member("prod-0").Probe.Answered() {
		t.Fatalf("got %v, probe %+v", problemsOf(got), got.Member("prod-0").Probe)
	}
	s.expectReads(0, "at once again")
	s.now = s.now.Add(59 * 24 * time.Hour)
	s.expectReads(0, "before two thirds of their life")
	s.now = s.now.Add(2 * 24 * time.Hour)
	s.expectReads(allSecrets, "after two thirds of their life")
	s.expectReads(0, "and not at every pass from then on")
	s.now = s.now.Add(rereadWhenDue + time.Second)
	s.expectReads(allSecrets, "an hour later, not yet renewed")
	s.cluster.Generation++
	s.expectReads(allSecrets, "when the spec changes")
	s.cluster.Annotations = map[string]string{cluster.AnnotationMetadataHash: "1"}
	s.expectReads(allSecrets, "when a label or an annotation changes")
	s.cluster.Status.ObservedGeneration++
	s.expectReads(0, "when the operator wrote the status")
	s.cluster.UID = "uid-9"
	s.expectReads(allSecrets, "when it is another cluster")
}

func TestATLSFailureHasSecretsReadAgain(t *testing.T) {
	s := secured(t, 90*24*time.Hour)
	s.expectReads(allSecrets, "at first")
	s.answers["10.0.0.1:2379"] = func() (cluster.Probe, error) {
		return cluster.Probe{}, &etcd.TLSError{Err: errors.New("bad certificate")}
	}
	if got := s.expectReads(0, "at the failure"); got.Member("prod-0").Probe.Error != "setting up TLS: bad certificate" {
		t.Errorf("got %+v", got.Member("prod-0").Probe)
	}
	s.now = s.now.Add(rereadWhileWrong + time.Second)
	s.expectReads(allSecrets, "after the failure")
}

func TestWrongSecretsAreReadAgainUntilTheyAreRight(t *testing.T) {
	s := secured(t, 90*24*time.Hour)
	whole := s.objects
	s.objects = nil
	for _, o := range whole {
		if o.GetName() != "operator" {
			s.objects = append(s.objects, o)
		}
	}
	got := s.expectReads(allSecrets, "at first")
	if len(problemsOf(got)) != 1 || problemsOf(got)[0].Reason != v1beta1.ReasonSecretNotFound || got.Member("prod-0").Probe != nil {
		t.Errorf("got %v, probe %+v", problemsOf(got), got.Member("prod-0").Probe)
	}
	s.expectReads(0, "too soon")
	s.objects = whole
	s.now = s.now.Add(rereadWhileWrong + time.Second)
	if got := s.expectReads(allSecrets, "later"); len(problemsOf(got)) > 0 || !got.Member("prod-0").Probe.Answered() {
		t.Errorf("got %v", problemsOf(got))
	}
}

func TestAnExpiredCertificateIsAProblem(t *testing.T) {
	s := secured(t, time.Hour)
	s.now = s.now.Add(2 * time.Hour)
	got := s.observe()
	if len(problemsOf(got)) == 0 || problemsOf(got)[0].Reason != v1beta1.ReasonCertificateInvalid {
		t.Errorf("got %v", problemsOf(got))
	}
}

func TestAChangeOfTheMembersSecretsDoesNotCostTheSightOfThem(t *testing.T) {
	for name, change := range map[string]func(*v1beta1.EtcdClusterSpec){
		"another Secret that is not there":     func(s *v1beta1.EtcdClusterSpec) { s.TLS.Client.SecretRef.Name = "missing" },
		"certificates that the operator makes": func(s *v1beta1.EtcdClusterSpec) { s.TLS = nil },
		"no TLS any more":                      func(s *v1beta1.EtcdClusterSpec) { s.TLS = clustertest.InClear() },
	} {
		t.Run(name, func(t *testing.T) {
			s := secured(t, 90*24*time.Hour)
			change(&s.cluster.Spec)
			if got := s.observe(); len(problemsOf(got)) > 0 || !got.Member("prod-0").Probe.Answered() {
				t.Errorf("got %v, probe %+v", problemsOf(got), got.Member("prod-0").Probe)
			}
		})
	}
	t.Run("a name that no Secret can have", func(t *testing.T) {
		s := secured(t, 90*24*time.Hour)
		s.cluster.Spec.TLS.Client.SecretRef.OperatorName = "../a/b"
		got := s.expectReads(allSecrets-1, "for the others")
		if len(problemsOf(got)) != 1 || problemsOf(got)[0].Reason != v1beta1.ReasonSecretNotFound || !strings.Contains(problemsOf(got)[0].Message, `"../a/b" cannot be the name`) {
			t.Errorf("got %v", problemsOf(got))
		}
	})
	t.Run("the operator's own Secret is the spec's", func(t *testing.T) {
		s := secured(t, 90*24*time.Hour)
		s.cluster.Spec.TLS.Client.SecretRef.OperatorName = "missing"
		if got := s.observe(); len(problemsOf(got)) != 1 || problemsOf(got)[0].Reason != v1beta1.ReasonSecretNotFound {
			t.Errorf("got %v", problemsOf(got))
		}
	})
}

func TestOfAClusterThatIsDeletedOnlyKubernetesObjectsAreRead(t *testing.T) {
	s := secured(t, time.Hour)
	now := metav1.NewTime(s.now)
	s.cluster.DeletionTimestamp, s.cluster.Finalizers = &now, []string{"foregroundDeletion"}
	got := s.expectReads(0, "of a cluster that is deleted")
	if len(got.Members) == 0 || got.Members[0].Volume == nil || got.Members[0].Probe != nil || len(s.asked) > 0 {
		t.Errorf("members %+v, asked %q", got.Members, s.asked)
	}
}
