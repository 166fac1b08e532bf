//go:build integration

package integration

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/act"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

// lifetimes are the operator's defaults.
var lifetimes = act.Lifetimes{Certificate: 2160 * time.Hour, Authority: 87600 * time.Hour}

// renewalTime is when certificates are due that were issued at the beginning, and not yet expired.
var renewalTime = lifetimes.Certificate * 7 / 10

// managedSecrets are what the operator makes for a cluster named prod.
var managedSecrets = []string{"prod-client-ca", "prod-client-tls", "prod-operator-tls", "prod-peer-ca", "prod-peer-tls", "prod-server-tls"}

// withManagedTLS leaves TLS out, which has the operator manage it.
func withManagedTLS(c *v1beta1.EtcdCluster) { c.Spec.TLS = nil }

// withManagedPeers has the operator manage the certificates of peers, and leaves clients in clear.
func withManagedPeers(c *v1beta1.EtcdCluster) { c.Spec.TLS.Peer = nil }

// rotate asks for new authorities.
func (l *lab) rotate(wish string) {
	l.Helper()
	l.change(func(c *v1beta1.EtcdCluster) {
		c.Annotations = map[string]string{v1beta1.RotateAuthoritiesAnnotation: wish}
	})
}

func (l *lab) secret(name string) *corev1.Secret {
	l.Helper()
	s := &corev1.Secret{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: name}, s))
	return s
}

// secretData is what every managed Secret holds.
func (l *lab) secretData() map[string]map[string][]byte {
	l.Helper()
	all := map[string]map[string][]byte{}
	for _, name := range managedSecrets {
		all[name] = l.secret(name).Data
	}
	return all
}

// clientCertificate is what a user's client took from the Secret for clients, and how long it may go on with it.
type clientCertificate struct {
	identity
	until time.Time
}

// checkTrust fails where members with the operator's certificates do not accept each other, or a client that
// took its certificate and its authorities from the Secret, and has not had the operator's overlap to take them again.
func (l *lab) checkTrust() {
	l.Helper()
	secret := &corev1.Secret{}
	err := admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: "prod-client-tls"}, secret)
	if client.IgnoreNotFound(err) != nil {
		l.Fatal(err)
	}
	if apierrors.IsNotFound(err) || !cluster.Owns(l.get(), secret) {
		return
	}
	present := identity{secret.Data["tls.crt"], secret.Data["ca.crt"]}
	if last := len(l.clients) - 1; last < 0 || !bytes.Equal(l.clients[last].certificate, present.certificate) || !bytes.Equal(l.clients[last].authorities, present.authorities) {
		if last >= 0 {
			l.clients[last].until = l.now.Add(l.overlap)
		}
		l.clients = append(l.clients, clientCertificate{identity: present, until: l.now.AddDate(100, 0, 0)})
	}
	l.clients = slices.DeleteFunc(l.clients, func(c clientCertificate) bool { return !c.until.After(l.now) })
	var identities []identity
	for _, c := range l.clients {
		identities = append(identities, c.identity)
	}
	if err := l.kubernetes.trustError(identities); err != nil {
		l.Fatal(err)
	}
}

// podUIDs are those of the members' pods, by name.
func (l *lab) podUIDs() map[string]string {
	l.Helper()
	uids := map[string]string{}
	for n := range l.get().Status.Members {
		pod := l.pod(cluster.MemberName(name, n))
		uids[pod.Name] = string(pod.UID)
	}
	return uids
}

func TestByDefaultTheOperatorMakesTheCertificatesAndAnnouncesThoseForClients(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.create(3, withManagedTLS)
	c := l.settleUntilAvailable()
	want := objectsOf(0, 1, 2)
	for _, name := range managedSecrets {
		want = append(want, "Secret/"+name)
	}
	slices.Sort(want)
	l.expectObjects(want)
	if c.Status.ClientSecretName != "prod-client-tls" {
		t.Errorf("status.clientSecretName is %q", c.Status.ClientSecretName)
	}
	for _, name := range managedSecrets {
		if s := l.secret(name); s.Type != corev1.SecretTypeTLS || !cluster.Owns(c, s) {
			t.Errorf("Secret %s is of type %s, owned by %v", name, s.Type, s.OwnerReferences)
		}
	}
	if bytes.Equal(l.secret("prod-peer-tls").Data["ca.crt"], l.secret("prod-client-tls").Data["ca.crt"]) {
		t.Error("peers and clients share an authority")
	}
	for member := range l.podUIDs() {
		args := strings.Join(l.pod(strings.TrimSuffix(member, "-0")).Spec.Containers[0].Args, " ")
		for _, flag := range []string{"--peer-client-cert-auth=true", "--client-cert-auth=true", "--trusted-ca-file=/etc/etcd/server/ca.crt"} {
			if !strings.Contains(args, flag) {
				t.Errorf("%s runs without %s: %s", member, flag, args)
			}
		}
	}
	l.expectRest()
	if l.operator.events.mentions("PRIVATE KEY") {
		t.Error("an event shows a key")
	}
}

func TestACertificateIsRenewedWithoutARestartWhenTwoThirdsOfItsLifeAreOver(t *testing.T) {
	t.Parallel()
	for _, paused := range []bool{false, true} {
		l := newLab(t)
		l.createWithData(withManagedTLS)
		l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Paused = paused })
		l.later(lifetimes.Certificate / 2)
		before, pods := l.secretData(), l.podUIDs()
		l.later(lifetimes.Certificate / 5)
		after := l.secretData()
		for _, name := range managedSecrets {
			renewed := !bytes.Equal(before[name]["tls.crt"], after[name]["tls.crt"])
			if leaf := strings.HasSuffix(name, "-tls"); renewed != leaf {
				t.Errorf("paused %v: %s was renewed: %v", paused, name, renewed)
			}
			if !bytes.Equal(before[name]["ca.crt"], after[name]["ca.crt"]) {
				t.Errorf("paused %v: %s has other authorities", paused, name)
			}
		}
		for pod, uid := range l.podUIDs() {
			if pods[pod] != uid {
				t.Errorf("paused %v: %s was restarted", paused, pod)
			}
		}
		l.later(lifetimes.Certificate / 2) // the first ones have expired
		expectCondition(t, l.get(), v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
		l.checkData(3)
		l.expectRest()
	}
}

// TestARotationKeepsEveryMemberAndClientConnected follows a rotation through its phases;
// checkTrust watches over all of it.
func TestARotationKeepsEveryMemberAndClientConnected(t *testing.T) {
	t.Parallel()
	const overlap = time.Hour
	for what, begin := range map[string]func(*lab){
		"a wish":           func(l *lab) { l.rotate("now"); l.settle() },
		"an old authority": func(l *lab) { l.age(lifetimes.Authority * 7 / 10) },
		"a deleted authority": func(l *lab) {
			l.delete(&corev1.Secret{}, "prod-client-ca")
			l.delete(&corev1.Secret{}, "prod-peer-ca")
			l.later(time.Hour) // the Secrets are read once an hour
		},
		"a broken authority": func(l *lab) { l.spoil("prod-client-ca"); l.spoil("prod-peer-ca"); l.later(time.Hour) },
		"a wish while a member is down": func(l *lab) {
			l.kubernetes.hold("prod-1-0")
			l.kubernetes.restart("prod-1-0")
			before := l.podUIDs()
			l.rotate("now")
			l.settle()
			l.later(2 * overlap)
			after := l.podUIDs()
			if l.rolled() != 1 || after["prod-1-0"] == before["prod-1-0"] {
				l.Errorf("not the one that was down alone was restarted: %v, then %v", before, after)
			}
			l.kubernetes.release()
			l.settle()
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.overlap = overlap
			l.operator = l.newOperator(noHooks)
			l.createWithData(withManagedTLS)
			old := l.secretData()
			begin(l)
			if slow := what == "an old authority" || strings.Contains(what, "down"); !slow {
				l.rotationIs(t, old, 3, cluster.PhaseAnnounced, false)
				l.later(overlap)
				l.rotationIs(t, old, 3, cluster.PhaseIssuing, true)
			}
			l.later(overlap)
			l.rotationIs(t, old, 6, "", true)
			c := l.get()
			expectCondition(t, c, v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)
			expectCondition(t, c, v1beta1.ConditionDegraded, metav1.ConditionFalse, v1beta1.ReasonAsExpected)
			if c.Status.Operation != nil {
				t.Errorf("the claim %+v was left", c.Status.Operation)
			}
			l.checkData(3)
			l.expectRest()
			l.later(10 * overlap)
			l.rotationIs(t, old, 6, "", true)
		})
	}
}

// rolled is how many pods the operator evicted or deleted.
func (l *lab) rolled() int {
	n := 0
	for _, w := range l.operator.writes {
		if w.Kind == "Pod" && (w.Verb == "create-eviction" || w.Verb == "delete") {
			n++
		}
	}
	return n
}

// rotationIs fails unless this number of members was restarted, the authorities are in the phase,
// and the certificates are issued by the old or the new authority, as wanted.
func (l *lab) rotationIs(t *testing.T, old map[string]map[string][]byte, rolled int, phase cluster.Phase, reissued bool) {
	t.Helper()
	if have := l.rolled(); have != rolled {
		t.Fatalf("%d members were restarted, want %d; conditions: %s", have, rolled, showAll(l.get()))
	}
	for _, traffic := range []cluster.Traffic{cluster.PeerTraffic, cluster.ClientTraffic} {
		authority := l.secret(cluster.AuthorityName(name, traffic))
		if have := authority.Annotations[cluster.AnnotationAuthorityPhase]; have != string(phase) {
			t.Errorf("the authority of %ss is in phase %q, want %q", traffic, have, phase)
		}
		want := 1
		if phase != "" {
			want = 2
		}
		for _, role := range traffic.Roles() {
			secret := l.secret(cluster.CertificateName(name, role))
			if have := bytes.Count(secret.Data["ca.crt"], []byte("BEGIN CERTIFICATE")); have != want {
				t.Errorf("%s trusts %d authorities, want %d", secret.Name, have, want)
			}
			oldAuthority := old[cluster.AuthorityName(name, traffic)]["tls.crt"]
			if have := verify(secret.Data["tls.crt"], oldAuthority, 0, l.now) != nil && verify(secret.Data["tls.crt"], authority.Data["tls.crt"], 0, l.now) == nil; have != reissued {
				t.Errorf("%s was issued by the new authority: %v", secret.Name, have)
			}
		}
	}
}

// age lets time pass in steps that leave nobody's certificates to expire.
func (l *lab) age(total time.Duration) {
	l.Helper()
	for step := lifetimes.Certificate / 4; total > 0; total -= step {
		l.later(step)
	}
}

// spoil replaces an authority's key.
func (l *lab) spoil(name string) {
	l.Helper()
	data := l.secret(name).Data
	data["tls.key"] = []byte("nonsense")
	l.updateSecret(name, data)
}

func TestWithoutItsOwnCertificateTheOperatorMakesAnotherAndCallsNoQuorumLost(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData(withManagedTLS)
	l.delete(&corev1.Secret{}, "prod-operator-tls")
	l.operator = l.newOperator(noHooks) // it remembers no certificate
	l.round()
	expectCondition(t, l.get(), v1beta1.ConditionAvailable, metav1.ConditionUnknown, v1beta1.ReasonUnobservable)
	l.settle()
	expectCondition(t, l.get(), v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
	if l.operator.events.mentions(v1beta1.ReasonNoQuorum) {
		t.Errorf("the members were called lost: %v", l.operator.events.events)
	}
	l.expectRest()
}

func TestAnOnlyMemberIsNeverRestartedAndTakesUpNewAuthoritiesWhenItsUserDoesIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.create(1, withManagedTLS)
	l.settleUntilAvailable()
	l.rotate("now")
	l.settle()
	if rolled := l.rolled(); rolled != 0 {
		t.Errorf("the only member was restarted")
	}
	waiting := expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonQuorumAtRisk)
	if !strings.Contains(waiting.Message, "Delete pod prod-0-0") {
		t.Errorf("the message does not say what to do: %s", waiting.Message)
	}
	for range 2 {
		l.delete(&corev1.Pod{}, "prod-0-0")
		l.settle()
	}
	expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)
	l.expectRest()
}

func TestASecretOfSomebodyElseIsRefusedNotAdopted(t *testing.T) {
	t.Parallel()
	for _, name := range managedSecrets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createSecret(name, map[string][]byte{"precious": []byte("yes")})
			before := l.secret(name)
			l.create(3, withManagedTLS)
			l.settle()
			refused := expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonForeignObject)
			if !strings.Contains(refused.Message, "Secret "+name) {
				t.Errorf("the message does not name the Secret: %s", refused.Message)
			}
			if after := l.secret(name); after.ResourceVersion != before.ResourceVersion {
				t.Error("the Secret was written to")
			}
			if pods := l.podUIDs(); len(pods) > 0 {
				t.Errorf("members were made: %v", pods)
			}
			l.delete(&corev1.Secret{}, name)
			l.settleUntilAvailable()
		})
	}
}

func TestASecretOfSomebodyElseBesideACluster(t *testing.T) {
	t.Parallel()
	for _, paused := range []bool{false, true} {
		l := newLab(t)
		l.createWithData(withManagedTLS)
		l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Paused = paused })
		l.disown("prod-client-tls")
		foreign, old := l.secret("prod-client-tls"), l.secretData()
		l.later(renewalTime)
		for _, name := range []string{"prod-peer-tls", "prod-server-tls", "prod-operator-tls"} {
			if bytes.Equal(old[name]["tls.crt"], l.secret(name).Data["tls.crt"]) {
				t.Errorf("paused %v: %s was not renewed", paused, name)
			}
		}
		if l.secret("prod-client-tls").ResourceVersion != foreign.ResourceVersion {
			t.Errorf("paused %v: the Secret was written to", paused)
		}
		told := expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonForeignObject)
		if !strings.Contains(told.Message, "Secret prod-client-tls exists and has no owner") || !strings.Contains(told.Message, "make EtcdCluster prod its controller") {
			t.Errorf("paused %v: %s", paused, told.Message)
		}
		l.delete(&corev1.Secret{}, "prod-client-tls")
		l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Paused = false })
		l.settle()
		expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionFalse, v1beta1.ReasonAsExpected)
		l.checkData(3)
	}
}

// disown takes the owner of a Secret away, as a backup may bring it back.
func (l *lab) disown(name string) {
	l.Helper()
	secret := l.secret(name)
	secret.OwnerReferences = nil
	must(l.T, admin.Update(l.Context(), secret))
}

func TestSecretsThatWereBroughtBackWithoutTheirOwnerServeAgainOnceTheyHaveIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData(withManagedTLS)
	for _, name := range managedSecrets {
		l.disown(name)
	}
	old := l.secretData()
	l.later(renewalTime)
	lost := expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonSecretNotFound)
	if !strings.Contains(lost.Message, "not this cluster's own: prod-peer-ca, prod-peer-tls") || !strings.Contains(lost.Message, "make EtcdCluster prod the controller of each") {
		t.Errorf("the message does not say what to do: %s", lost.Message)
	}
	c := l.get()
	for _, name := range managedSecrets {
		secret := l.secret(name)
		secret.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(c, v1beta1.GroupVersion.WithKind(v1beta1.EtcdClusterKind))}
		must(t, admin.Update(t.Context(), secret))
	}
	l.settle()
	for _, name := range []string{"prod-peer-tls", "prod-server-tls", "prod-operator-tls", "prod-client-tls"} {
		if bytes.Equal(old[name]["tls.crt"], l.secret(name).Data["tls.crt"]) {
			t.Errorf("%s was not renewed", name)
		}
	}
	expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionFalse, v1beta1.ReasonAsExpected)
	if rolled := l.rolled(); rolled != 0 {
		t.Errorf("%d members were restarted", rolled)
	}
	l.checkData(3)
	l.expectRest()
}

func TestWhereEverySecretIsGoneTheRunningMembersAreLeftAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData(withManagedTLS)
	pods := l.podUIDs()
	for _, name := range managedSecrets {
		l.delete(&corev1.Secret{}, name)
	}
	l.later(2 * time.Hour)
	lost := expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonSecretNotFound)
	if !strings.Contains(lost.Message, "delete all pods of the cluster at once") {
		t.Errorf("the message does not say what to do: %s", lost.Message)
	}
	for pod, uid := range l.podUIDs() {
		if pods[pod] != uid {
			t.Errorf("%s was restarted", pod)
		}
	}
	for pod := range pods {
		l.delete(&corev1.Pod{}, pod)
	}
	l.clients = nil // their certificates are of an authority that is lost
	c := l.settleUntilAvailable()
	expectCondition(t, c, v1beta1.ConditionDegraded, metav1.ConditionFalse, v1beta1.ReasonAsExpected)
	expectCondition(t, c, v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)
	expectCondition(t, c, v1beta1.ConditionRestartPending, metav1.ConditionFalse, v1beta1.ReasonAsExpected)
	if rolled := l.rolled(); rolled > 3 {
		t.Errorf("members were restarted %d times, and not once each", rolled)
	}
	l.checkData(3)
	l.expectRest()
}

// TestAnAuthorityFromABackupIsAnnouncedBeforeItIssues restores authorities that no member trusts any more;
// checkTrust watches over all of it.
func TestAnAuthorityFromABackupIsAnnouncedBeforeItIssues(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.overlap = time.Hour
	l.operator = l.newOperator(noHooks)
	l.createWithData(withManagedTLS)
	backup := l.secretData()
	l.rotate("now")
	l.settle()
	for range 3 {
		l.later(l.overlap)
	}
	old := l.secretData()
	for _, name := range []string{"prod-peer-ca", "prod-client-ca"} {
		if bytes.Equal(old[name]["tls.crt"], backup[name]["tls.crt"]) {
			t.Fatalf("%s was not rotated", name)
		}
		l.updateSecret(name, backup[name])
	}
	before := l.rolled()
	l.later(time.Hour) // the Secrets are read once an hour
	l.rotationIs(t, old, before+3, cluster.PhaseAnnounced, false)
	for range 3 {
		l.later(l.overlap)
	}
	l.rotationIs(t, old, before+6, "", true)
	expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)
	l.checkData(3)
	l.expectRest()
}

// TestACertificateThatMembersWouldNotAcceptIsNotIssued loses an authority and then,
// before the members know the next one, their certificate.
func TestACertificateThatMembersWouldNotAcceptIsNotIssued(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData(withManagedTLS)
	l.kubernetes.hold("prod-1-0")
	l.kubernetes.restart("prod-1-0")
	l.delete(&corev1.Secret{}, "prod-peer-ca")
	l.later(time.Hour)
	l.delete(&corev1.Secret{}, "prod-peer-tls")
	l.later(time.Hour)
	lost := expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonSecretNotFound)
	if !strings.Contains(lost.Message, "trust: prod-0, prod-2.") {
		t.Errorf("the message does not name the members: %s", lost.Message)
	}
	var secret corev1.Secret
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: "prod-peer-tls"}, &secret); !apierrors.IsNotFound(err) {
		t.Errorf("a certificate was issued that nobody accepts: %v", err)
	}
	l.kubernetes.release()
	for pod := range l.podUIDs() {
		l.delete(&corev1.Pod{}, pod)
	}
	l.settleUntilAvailable()
	l.checkData(3)
}

func TestAChangeOfTLSOfARunningClusterIsReportedAndTouchesNothing(t *testing.T) {
	t.Parallel()
	for what, tls := range map[string]*v1beta1.TLS{
		"Disabled":     clustertest.InClear(),
		"from Secrets": clustertest.FromSecrets(peerSecret, serverSecret, operatorSecret),
	} {
		l := newLab(t)
		l.createWithData(withManagedTLS)
		before := len(l.operator.writes)
		l.change(func(c *v1beta1.EtcdCluster) { c.Spec.TLS = tls })
		l.settle()
		told := expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonNotYetSupported)
		if !strings.Contains(told.Message, "made with other values of spec.tls.client, spec.tls.peer") {
			t.Errorf("%s: %s", what, told.Message)
		}
		for _, w := range l.operator.writes[before:] {
			if w.Kind != "EtcdCluster" {
				t.Errorf("%s: the operator wrote %s", what, w)
			}
		}
		l.later(renewalTime)
		expectCondition(t, l.get(), v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
		l.checkData(3)
	}
}

func TestAClusterThatIsCreatedAgainTakesItsVolumesBackWithNewAuthorities(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData(withManagedTLS)
	old := l.secret("prod-peer-ca").Data["tls.crt"]
	must(t, admin.Delete(t.Context(), l.newCluster(1)))
	l.create(3, withManagedTLS)
	l.round()
	expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonWaitingForDeletion)
	must(t, l.kubernetes.collect(t.Context()))
	l.clients = nil
	l.settleUntilAvailable()
	if bytes.Equal(old, l.secret("prod-peer-ca").Data["tls.crt"]) {
		t.Error("the authority of the deleted cluster was taken over")
	}
	l.checkData(3)
	l.expectRest()
}

// TestAChangeOfTheUsersAuthoritiesRestartsMembersOneByOne puts
// a second authority beside the first into the user's Secrets.
func TestAChangeOfTheUsersAuthoritiesRestartsMembersOneByOne(t *testing.T) {
	t.Parallel()
	for format, restarts := range map[v1beta1.SecretFormat]int{v1beta1.SecretFormatTLS: 3, v1beta1.SecretFormatEtcdOperator: 0} {
		l := newLab(t)
		secrets := l.newCertificates()
		if format == v1beta1.SecretFormatTLS {
			for name, data := range secrets {
				secrets[name] = inTLSFormat(data)
			}
		}
		for name, data := range secrets {
			l.createSecret(name, data)
		}
		l.createWithData(withTLS, func(c *v1beta1.EtcdCluster) {
			c.Spec.TLS.Peer.SecretRef.Format, c.Spec.TLS.Client.SecretRef.Format = format, format
		})
		before := l.podUIDs()
		another := pkitest.NewAuthority(t, "another").PEM
		for name, data := range secrets {
			for key := range data {
				if strings.HasSuffix(key, "ca.crt") {
					data[key] = slices.Concat(data[key], another)
				}
			}
			l.updateSecret(name, data)
		}
		l.later(2 * time.Hour) // the Secrets are read once an hour
		if rolled := l.rolled(); rolled != restarts {
			t.Errorf("%s: %d members were restarted, want %d; conditions: %s", format, rolled, restarts, showAll(l.get()))
		}
		for pod, uid := range l.podUIDs() {
			if (before[pod] == uid) != (restarts == 0) {
				t.Errorf("%s: %s was restarted: %v", format, pod, before[pod] != uid)
			}
		}
		expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)
		l.checkData(3)
		l.expectRest()
	}
}

// inTLSFormat gives the data of a Secret the keys of kubernetes.io/tls.
func inTLSFormat(data map[string][]byte) map[string][]byte {
	renamed := map[string][]byte{}
	for key, value := range data {
		switch {
		case strings.HasSuffix(key, "ca.crt"):
			renamed["ca.crt"] = value
		case strings.HasSuffix(key, ".crt"):
			renamed["tls.crt"] = value
		default:
			renamed["tls.key"] = value
		}
	}
	return renamed
}
