package observe

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/pki"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

const managedSecretCount = 6

// managed adds a member that runs, and every Secret that the operator makes.
func managed(t *testing.T) *stage {
	s := newStage(t, 1)
	s.cluster.Spec.TLS = nil
	for _, traffic := range []cluster.Traffic{cluster.PeerTraffic, cluster.ClientTraffic} {
		a, err := pki.NewAuthority("test", s.now, 1000*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		certificate, key, err := a.PEM()
		if err != nil {
			t.Fatal(err)
		}
		secret := render.AuthoritySecret(s.cluster, traffic)
		secret.Data = map[string][]byte{"tls.crt": certificate, "tls.key": key, "ca.crt": certificate}
		s.add(secret)
		for _, role := range traffic.Roles() {
			m, err := a.Issue(render.CertificateTemplate(s.cluster, role, ""), s.now, 90*24*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			secret := render.CertificateSecret(s.cluster, role)
			secret.Data = map[string][]byte{"tls.crt": m.Certificate, "tls.key": m.Key, "ca.crt": m.Authorities}
			s.add(secret)
		}
	}
	for _, o := range s.objects {
		o.SetUID("uid-" + o.(*corev1.Secret).UID)
	}
	s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true})
	s.ready(corev1.ConditionTrue)
	return s
}

// ready marks every pod as ready or not.
func (s *stage) ready(status corev1.ConditionStatus) {
	s.pods(func(pod *corev1.Pod) {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	})
}

// pods changes every pod.
func (s *stage) pods(change func(*corev1.Pod)) {
	for _, o := range s.objects {
		if pod, ok := o.(*corev1.Pod); ok {
			change(pod)
		}
	}
}

// secret finds a Secret of the stage.
func (s *stage) secret(name string) *corev1.Secret {
	for _, o := range s.objects {
		if secret, ok := o.(*corev1.Secret); ok && secret.Name == name {
			return secret
		}
	}
	s.t.Fatalf("no Secret %s", name)
	return nil
}

func TestManagedSecretsAreReadOnceAnHourAndAfterAWriteAndWhileAPodIsDown(t *testing.T) {
	s := managed(t)
	got := s.expectReads(managedSecretCount, "at first")
	if len(problemsOf(got)) > 0 || len(got.ForeignObjects) > 0 || !got.Member("prod-0").Probe.Answered() {
		t.Fatalf("got %v, %v, probe %+v", problemsOf(got), got.ForeignObjects, got.Member("prod-0").Probe)
	}
	for _, trust := range []*cluster.Trust{&got.PeerTrust, &got.ClientTrust} {
		if !trust.Authority.Usable() || len(trust.Authority.Bundle) != 1 {
			t.Errorf("got %+v", trust.Authority)
		}
		for _, c := range trust.Certificates {
			if !c.Usable() || !c.IssuedBy(trust.Authority.Current) || c.NotAfter.IsZero() {
				t.Errorf("got %+v", c)
			}
		}
	}
	s.now = s.now.Add(59 * time.Minute)
	s.expectReads(0, "within the hour")
	s.now = s.now.Add(2 * time.Minute)
	s.expectReads(managedSecretCount, "after an hour")
	s.observer.SecretsWritten(s.cluster, nil)
	s.expectReads(managedSecretCount, "after the operator wrote one")
	s.ready(corev1.ConditionFalse)
	s.expectReads(0, "as soon as a pod is down")
	s.now = s.now.Add(rereadWhileDown + time.Second)
	s.expectReads(managedSecretCount, "while a pod is down")
}

func TestTheValiditiesOfCertificatesAreThoseOfTheLastPass(t *testing.T) {
	s := managed(t)
	key := s.cluster.Key()
	if before := (&Observer{}).Validities(key); before != nil {
		t.Errorf("before the first pass: %v", before)
	}
	s.observe()
	all := s.observer.Validities(key)
	if len(all) != managedSecretCount {
		t.Errorf("got %v", all)
	}
	for _, v := range all {
		days := 90
		if strings.HasSuffix(v.Secret, "-ca") {
			days = 1000
		}
		if left := v.NotAfter.Sub(s.now).Round(time.Hour); left != time.Duration(days)*24*time.Hour || s.secret(v.Secret) == nil {
			t.Errorf("got %+v", v)
		}
	}
	s.now = s.now.Add(91 * 24 * time.Hour) // a certificate that has ended is shown too
	s.observe()
	if all := s.observer.Validities(key); len(all) != managedSecretCount || all[1].Left(s.now) >= 0 {
		t.Errorf("after the end: %v", all)
	}
	if err := s.observer.Reader.(client.Client).Delete(t.Context(), s.cluster); err != nil {
		t.Fatal(err)
	}
	if _, err := s.observer.Observe(t.Context(), key); err != nil || s.observer.Validities(key) != nil {
		t.Errorf("of a cluster that is gone: %v, %v", s.observer.Validities(key), err)
	}
}

// A pass that hangs must not mark that a phase of an authority began before anybody had reached it.
func TestTheTimeOfASnapshotIsNotBeforeItsSecretsWereRead(t *testing.T) {
	s := managed(t)
	begin := s.now
	asked := 0
	s.observer = &Observer{SeesClusterScope: true, Etcd: s, Now: func() time.Time {
		asked++
		return begin.Add(time.Duration(asked-1) * time.Hour) // an hour passes while the Secrets are read
	}}
	if got := s.observe().Now; got.Before(begin.Add(time.Hour)) {
		t.Errorf("the snapshot is of %s, and its Secrets were read until %s", got, begin.Add(time.Hour))
	}
}

func TestWhatIsWrongWithManagedSecretsIsNoProblemOfTheUsers(t *testing.T) {
	s := managed(t)
	s.secret("prod-peer-ca").Data["tls.key"] = []byte("nonsense")
	s.secret("prod-server-tls").Data["tls.crt"] = s.secret("prod-client-tls").Data["tls.crt"]
	got := s.observe()
	if len(problemsOf(got)) > 0 {
		t.Errorf("problems: %v", problemsOf(got))
	}
	if a := got.PeerTrust.Authority; a.Usable() || a.Broken == "" || strings.Contains(a.Broken, "nonsense") {
		t.Errorf("got %+v", a)
	}
	if c := got.ClientTrust.Certificate(cluster.RoleServer); c.Usable() || !strings.Contains(c.Broken, "the key does not fit") {
		t.Errorf("got %+v", c)
	}
}

func TestACertificateThatWouldCutMembersOffIsAskedOfTheUser(t *testing.T) {
	for name, told := range map[string]bool{"prod-peer-tls": true, "prod-operator-tls": true, "prod-server-tls": true, "prod-client-tls": false} {
		s := managed(t)
		s.pods(func(pod *corev1.Pod) {
			pod.Annotations = map[string]string{cluster.AnnotationPeerAuthorities: "another", cluster.AnnotationClientAuthorities: "another"}
		})
		s.secret(name).Data = nil
		got := s.observe()
		if have := len(problemsOf(got)) == 1 && problemsOf(got)[0].Reason == v1beta1.ReasonSecretNotFound &&
			strings.Contains(problemsOf(got)[0].Message, "Bring Secret "+name+" back from a backup, or delete the pods of these members"); have != told {
			t.Errorf("%s: got %v", name, problemsOf(got))
		}
		s = managed(t)
		s.secret(name).Data = nil
		if got := s.observe(); len(problemsOf(got)) > 0 {
			t.Errorf("%s, where members trust its authority: got %v", name, problemsOf(got))
		}
	}
}

func TestAnAuthorityWhoseTimeHasNotComeIsTold(t *testing.T) {
	s := managed(t)
	s.now = s.now.Add(-time.Hour)
	got := s.observe()
	if len(problemsOf(got)) != 2 || problemsOf(got)[0].Reason != v1beta1.ReasonCertificateInvalid || !strings.Contains(problemsOf(got)[0].Message, "The authority in Secret prod-peer-ca is not valid before ") {
		t.Errorf("got %v", problemsOf(got))
	}
}

func TestASecretThatIsNotTheClustersOwnIsAStranger(t *testing.T) {
	s := managed(t)
	s.secret("prod-client-tls").OwnerReferences = nil
	s.secret("prod-peer-ca").OwnerReferences[0].UID = "of the cluster before"
	got := s.observe()
	if len(got.ForeignObjects) != 2 || got.ForeignObjects[0].Name != "prod-peer-ca" || !got.ForeignObjects[0].Terminating || got.ForeignObjects[1].Name != "prod-client-tls" || got.ForeignObjects[1].Terminating {
		t.Fatalf("got %+v", got.ForeignObjects)
	}
	if got.PeerTrust.Authority.Exists() || got.ClientTrust.Certificate(cluster.RoleClient).Exists() {
		t.Error("a stranger counts as the cluster's own")
	}
}

func TestSecretsThatWereBroughtBackWithoutTheirOwnerAreNamedWithTheCure(t *testing.T) {
	s := managed(t)
	for _, o := range s.objects {
		switch o := o.(type) {
		case *corev1.Secret:
			o.OwnerReferences = nil
		case *corev1.Pod:
			o.Annotations = map[string]string{cluster.AnnotationPeerAuthorities: "p1"}
		}
	}
	got := s.observe()
	if len(problemsOf(got)) != 5 {
		t.Fatalf("got %v", problemsOf(got))
	}
	for _, says := range []string{
		"are not this cluster's own: prod-peer-ca, prod-peer-tls.",
		"make EtcdCluster prod the controller of each in metadata.ownerReferences", "delete all pods of the cluster at once",
	} {
		if !strings.Contains(problemsOf(got)[0].Message, says) {
			t.Errorf("%q lacks %q", problemsOf(got)[0].Message, says)
		}
	}
	if strings.Contains(problemsOf(got)[0].Message, "is gone") {
		t.Errorf("got %q", problemsOf(got)[0].Message)
	}
}

// issued adds cert-manager's Certificate and Secret for the peers of a cluster whose clients are in clear.
func issued(t *testing.T, annotation string, change func(*corev1.Secret)) *stage {
	s := newStage(t, 1)
	s.observer = &Observer{Etcd: s, Now: func() time.Time { return s.now }}
	s.cluster.Spec.TLS.Peer = &v1beta1.PeerTLS{CertManager: &v1beta1.CertManagerTLS{IssuerRef: v1beta1.IssuerRef{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"}}}
	request := render.CertManagerCertificate(s.cluster, cluster.RolePeer, "", s.cluster.Spec.TLS.Peer.CertManager.IssuerRef)
	request.SetGeneration(2)
	s.add(request)
	s.certManagerSays("True", 2)
	a, err := pki.NewAuthority("test", s.now, 1000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	m, err := a.Issue(render.CertificateTemplate(s.cluster, cluster.RolePeer, ""), s.now, 100*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.cluster.Namespace, Name: "prod-peer-tls", UID: "uid-1", Annotations: map[string]string{
			certificateNameAnnotation: annotation, issuerNameAnnotation: "ca", issuerKindAnnotation: "Issuer", issuerGroupAnnotation: "cert-manager.io",
		}},
		Data: map[string][]byte{"tls.crt": m.Certificate, "tls.key": m.Key, "ca.crt": m.Authorities},
	}
	if change != nil {
		change(secret)
		s.add(secret)
	}
	return s
}

// certManagerSays sets the condition Ready of the Certificate.
func (s *stage) certManagerSays(status string, generation int64) *stage {
	message := "Certificate is up to date and has not expired"
	if status != "True" {
		message = "the issuer is asleep"
	}
	s.objects[0].(*unstructured.Unstructured).Object["status"] = map[string]any{"conditions": []any{
		map[string]any{"type": "Ready", "status": status, "message": message, "observedGeneration": generation},
	}}
	return s
}

// asking has the Certificate name another issuer.
func (s *stage) asking(issuer string) *stage {
	if err := unstructured.SetNestedField(s.objects[0].(*unstructured.Unstructured).Object, issuer, "spec", "issuerRef", "name"); err != nil {
		s.t.Fatal(err)
	}
	return s
}

func TestWhatCertManagerIssuesIsCheckedAndWaitedFor(t *testing.T) {
	asIs := func(*corev1.Secret) {}
	annotated := func(key, value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Annotations[key] = value }
	}
	const left = "Secret prod-peer-tls exists, and cert-manager has not issued it for this cluster yet"
	for name, c := range map[string]struct {
		stage  *stage
		reason string
		says   string
	}{
		"issued": {stage: issued(t, "prod-peer-tls", asIs)},
		"issued, without the annotations that a default needs": {stage: issued(t, "prod-peer-tls", func(s *corev1.Secret) {
			delete(s.Annotations, issuerKindAnnotation)
			s.Annotations[issuerGroupAnnotation] = ""
		})},
		"not yet issued": {issued(t, "", nil).certManagerSays("False", 2), v1beta1.ReasonCertificateNotReady, "has not issued Secret prod-peer-tls yet: the issuer is asleep"},
		"without its authority": {
			issued(t, "prod-peer-tls", func(s *corev1.Secret) { delete(s.Data, "ca.crt") }),
			v1beta1.ReasonCertificateInvalid, "ca.crt is missing: add it. Use an issuer that gives its own certificate in ca.crt",
		},
		"left by an earlier cluster, and not ready": {
			issued(t, "prod-peer-tls", asIs).certManagerSays("False", 2), v1beta1.ReasonCertificateNotReady, left + ": the issuer is asleep.",
		},
		"ready as it was before": {issued(t, "prod-peer-tls", asIs).certManagerSays("True", 1), v1beta1.ReasonCertificateNotReady, left + ": it gives no reason. "},
		"by another issuer":      {issued(t, "prod-peer-tls", annotated(issuerNameAnnotation, "old")), v1beta1.ReasonCertificateNotReady, left},
		"by another kind of issuer": {
			issued(t, "prod-peer-tls", annotated(issuerKindAnnotation, "ClusterIssuer")), v1beta1.ReasonCertificateNotReady, left,
		},
		"by an issuer of another group": {
			issued(t, "prod-peer-tls", annotated(issuerGroupAnnotation, "example.org")), v1beta1.ReasonCertificateNotReady, left,
		},
		"by nobody knows whom": {
			issued(t, "prod-peer-tls", func(s *corev1.Secret) { delete(s.Annotations, issuerNameAnnotation) }), v1beta1.ReasonCertificateNotReady, left,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.stage.observe()
			trust := got.PeerTrust.Certificate(cluster.RolePeer)
			if c.reason == "" {
				if len(problemsOf(got)) > 0 || !trust.Usable() || trust.CertManagerCertificate == nil || !trust.Issued {
					t.Errorf("got %v, %+v", problemsOf(got), trust)
				}
				return
			}
			if len(problemsOf(got)) != 1 || problemsOf(got)[0].Reason != c.reason || !strings.Contains(problemsOf(got)[0].Message, c.says) {
				t.Errorf("got %v", problemsOf(got))
			}
			if c.reason == v1beta1.ReasonCertificateNotReady && trust.Issued {
				t.Error("it counts as issued")
			}
		})
	}
	if got := issued(t, "of another", asIs).observe(); len(got.ForeignObjects) != 1 || got.ForeignObjects[0].Kind != "Secret" {
		t.Errorf("a Secret that cert-manager made for another Certificate: %+v", got.ForeignObjects)
	}
	foreign := issued(t, "prod-peer-tls", asIs)
	foreign.objects[0].(*unstructured.Unstructured).SetOwnerReferences(nil)
	if got := foreign.observe(); len(got.ForeignObjects) != 1 || got.ForeignObjects[0].Kind != "Certificate" {
		t.Errorf("somebody else's Certificate: %+v", got.ForeignObjects)
	}
}

func TestARequestThatIsToBeCorrectedFirstIsNoProblem(t *testing.T) {
	for what, s := range map[string]*stage{
		"with a Secret":    issued(t, "prod-peer-tls", func(*corev1.Secret) {}).asking("old"),
		"without a Secret": issued(t, "", nil).asking("old").certManagerSays("False", 2),
	} {
		got := s.observe()
		if c := got.PeerTrust.Certificate(cluster.RolePeer); len(problemsOf(got)) > 0 || c.Issued || c.CertManagerCertificate == nil {
			t.Errorf("%s: got %v, %+v", what, problemsOf(got), c)
		}
	}
}

func TestMembersThatRunAreNotDisturbedByWhatCertManagerSays(t *testing.T) {
	for what, s := range map[string]*stage{
		"not ready":         issued(t, "prod-peer-tls", func(*corev1.Secret) {}).certManagerSays("False", 2),
		"by another issuer": issued(t, "prod-peer-tls", func(s *corev1.Secret) { s.Annotations[issuerNameAnnotation] = "old" }),
	} {
		s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true})
		got := s.observe()
		if c := got.PeerTrust.Certificate(cluster.RolePeer); len(problemsOf(got)) > 0 || !c.Usable() {
			t.Errorf("%s: got %v, %+v", what, problemsOf(got), c)
		}
	}
}

func TestTheSecretsOfACertManagerThatIsGoneAreReadAllTheSame(t *testing.T) {
	for what, answer := range map[string]error{
		"the client knew the kind":  apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{Group: "cert-manager.io", Resource: "certificates"}, "prod-peer-tls", "404 page not found", 0, true),
		"the client looked it up":   &meta.NoKindMatchError{GroupKind: render.CertificateKind.GroupKind(), SearchedVersions: []string{"v1"}},
		"the client looked further": &meta.NoResourceMatchError{PartialResource: schema.GroupVersionResource{Group: "cert-manager.io", Resource: "certificates"}},
	} {
		s := issued(t, "prod-peer-tls", func(*corev1.Secret) {})
		s.refuse = func(object client.Object, _ string) error {
			if _, request := object.(*unstructured.Unstructured); request {
				return answer
			}
			return nil
		}
		if got := s.observe(); len(problemsOf(got)) != 1 || !strings.Contains(problemsOf(got)[0].Message, "Install cert-manager, or set another source in spec.tls.client") {
			t.Errorf("%s, before the founding: %v", what, problemsOf(got))
		}
		s.member("prod-0", "10.0.0.1", cluster.Probe{ClusterID: 0xc1, MemberID: 0xa0, Linearizable: true})
		s.observer.SecretsWritten(s.cluster, nil)
		got := s.observe()
		if len(problemsOf(got)) != 1 || problemsOf(got)[0].Reason != v1beta1.ReasonCertificateNotReady || !strings.Contains(problemsOf(got)[0].Message, "nobody renews them") {
			t.Errorf("%s: %v", what, problemsOf(got))
		}
		if c := got.PeerTrust.Certificate(cluster.RolePeer); !got.PeerTrust.CertManagerMissing || c == nil || !c.Usable() || len(c.Bundle) != 1 {
			t.Errorf("%s: %+v", what, got.PeerTrust)
		}
	}
}

func TestTheOperatorAsksMembersWithACertificateOfACertManagerThatIsGone(t *testing.T) {
	s := managed(t)
	from := &v1beta1.CertManagerTLS{IssuerRef: v1beta1.IssuerRef{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"}}
	s.cluster.Spec.TLS = &v1beta1.TLS{Client: &v1beta1.ClientTLS{CertManager: from}, Peer: &v1beta1.PeerTLS{CertManager: from}}
	for _, o := range s.objects {
		switch o := o.(type) {
		case *corev1.Secret:
			o.Annotations = map[string]string{certificateNameAnnotation: o.Name}
		case *appsv1.StatefulSet:
			*o = *render.MemberStatefulSet(render.MemberInput{Cluster: s.cluster, Name: o.Name, Intent: cluster.IntentOf(s.cluster)})
			o.UID = "set-prod-0"
		}
	}
	s.refuse = func(object client.Object, _ string) error {
		if _, request := object.(*unstructured.Unstructured); request {
			return &meta.NoKindMatchError{GroupKind: render.CertificateKind.GroupKind()}
		}
		return nil
	}
	if got := s.observe(); len(problemsOf(got)) != 1 || !got.Member("prod-0").Probe.Answered() {
		t.Errorf("got %v, probe %+v", problemsOf(got), got.Member("prod-0").Probe)
	}
}

func TestASecretThatMayNotBeReadIsNamedAndTheRestIsSeen(t *testing.T) {
	s := managed(t)
	s.refuse = func(object client.Object, name string) error {
		if _, secret := object.(*corev1.Secret); secret && (name == "prod-peer-ca" || name == "prod-peer-tls") {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, errors.New("no such right"))
		}
		return nil
	}
	for _, o := range s.objects {
		if pod, ok := o.(*corev1.Pod); ok {
			pod.Annotations = map[string]string{cluster.AnnotationPeerAuthorities: "p1"}
		}
	}
	got := s.observe()
	if len(got.ForeignObjects) != 2 || got.ForeignObjects[0].Name != "prod-peer-ca" || !strings.Contains(got.ForeignObjects[0].Unreadable, "no such right") {
		t.Errorf("got %+v", got.ForeignObjects)
	}
	for _, problem := range problemsOf(got) {
		if problem.Reason != v1beta1.ReasonReadRefused {
			t.Errorf("what may not be read counts as gone: %v", problem)
		}
	}
	if !got.Member("prod-0").Probe.Answered() {
		t.Errorf("the member was not asked: %+v", got.Member("prod-0").Probe)
	}
}

func TestAUsersSecretThatMayNotBeReadIsNotCalledMissing(t *testing.T) {
	s := newStage(t, 1)
	s.cluster.Spec.TLS = clustertest.FromSecrets("peer", "", "")
	s.observer = &Observer{Etcd: s, Now: func() time.Time { return s.now }}
	s.refuse = func(object client.Object, name string) error {
		if _, secret := object.(*corev1.Secret); secret {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, errors.New("no such right"))
		}
		return nil
	}
	if got := s.observe(); len(problemsOf(got)) > 0 || len(got.ForeignObjects) != 1 || got.ForeignObjects[0].Unreadable == "" {
		t.Errorf("got %v, %+v", problemsOf(got), got.ForeignObjects)
	}
}

func TestCertificatesFitTheClustersOwnMembersOnly(t *testing.T) {
	s := cluster.Snapshot{Cluster: &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prod"}}}
	s.Cluster.Spec.Replicas = 2
	// The last two were registered by hand.
	for _, name := range []string{"prod-0", "prod-3", "https://1.2.3.4:2380", "other"} {
		s.Members = append(s.Members, cluster.Member{Name: name})
	}
	want := []string{"prod-0-0.prod.shop.svc", "prod-3-0.prod.shop.svc"}
	if got := memberHosts(&s, ""); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
