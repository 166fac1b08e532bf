package observe

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// created leaves of the stage what a user creates, and the Secrets where kept.
func (s *stage) created(keepSecrets bool) {
	s.objects = slices.DeleteFunc(s.objects, func(o client.Object) bool {
		_, isSecret := o.(*corev1.Secret)
		return !isSecret || !keepSecrets
	})
}

func TestTheSecretsOfAClusterThatWasJustCreatedAreNotReadBeforeTheyAreCreated(t *testing.T) {
	s := managed(t)
	s.created(true)
	if got := s.expectReads(0, "at the first look"); !got.JustCreated || got.PeerTrust.Authority.Exists() {
		t.Errorf("just created: %t, authority %+v", got.JustCreated, got.PeerTrust.Authority)
	}
	s.observer.SecretsWritten(s.cluster, nil) // the API server had some, and refused to create others
	if got := s.expectReads(managedSecretCount, "after a write was tried"); got.JustCreated || !got.PeerTrust.Authority.Usable() {
		t.Errorf("just created: %t, authority %+v", got.JustCreated, got.PeerTrust.Authority)
	}
}

func TestASecondLookAtAClusterWithoutObjectsReadsItsSecrets(t *testing.T) {
	s := managed(t)
	s.created(true)
	s.expectReads(0, "at the first look")
	s.now = s.now.Add(rereadWhileWrong + time.Second)
	s.expectReads(managedSecretCount, "at the second")
}

func TestTheSecretsOfAClusterThatHasAnythingAreReadFirst(t *testing.T) {
	for name, change := range map[string]func(*stage){
		"a status":          func(s *stage) { s.cluster.Status.ObservedGeneration = 1 },
		"a volume":          func(s *stage) { s.volume("prod-0", s.cluster.UID) },
		"a retained volume": func(s *stage) { s.volume("prod-0", "earlier") },
	} {
		s := managed(t)
		s.created(true)
		change(s)
		if got := s.expectReads(managedSecretCount, name); got.JustCreated {
			t.Errorf("a cluster that has %s counts as just created", name)
		}
	}
}

func TestASecretThatTheOperatorWroteIsNotReadAgain(t *testing.T) {
	s := managed(t)
	s.expectReads(managedSecretCount, "at first")
	written := map[string]*corev1.Secret{}
	for _, o := range s.objects {
		if secret, ok := o.(*corev1.Secret); ok {
			written[secret.Name] = secret
		}
	}
	s.observer.SecretsWritten(s.cluster, written)
	if got := s.expectReads(0, "after the operator wrote all"); !got.PeerTrust.Authority.Usable() || !got.Member("prod-0").Probe.Answered() {
		t.Errorf("authority %+v, probe %+v", got.PeerTrust.Authority, got.Member("prod-0").Probe)
	}
	delete(written, "prod-peer-ca")
	s.observer.SecretsWritten(s.cluster, written)
	s.expectReads(1, "after the operator wrote all but one")
	s.now = s.now.Add(rereadAtRest + time.Minute)
	s.expectReads(managedSecretCount, "after an hour: what was written is forgotten")
}

func TestAMemberIsNotAskedBeforeItsPodRuns(t *testing.T) {
	s := newStage(t, 1)
	s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0})
	s.pods(func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodPending })
	if probe := s.observe().Member("prod-0").Probe; probe != nil {
		t.Errorf("a pod that is pending was asked: %+v", probe)
	}
	s.pods(func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodRunning })
	if probe := s.observe().Member("prod-0").Probe; !probe.Answered() {
		t.Errorf("a pod that runs was not asked: %+v", probe)
	}
}

func TestAStorageClassThatWasFoundIsNotLookedForAgainAtOnce(t *testing.T) {
	s := newStage(t, 1)
	class := s.add(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{defaultClassAnnotation: "true"}}})
	if s.observe().StorageClassMissing {
		t.Fatal("the default class is missing")
	}
	class.SetAnnotations(nil)
	if s.observe().StorageClassMissing {
		t.Error("it was looked for again")
	}
	s.now = s.now.Add(classTime + time.Second)
	if !s.observe().StorageClassMissing {
		t.Errorf("after %s it was not looked for again", classTime)
	}
}
