//go:build integration

package integration

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

const (
	peerSecret     = "prod-peer"
	serverSecret   = "prod-server"
	operatorSecret = "prod-operator"
)

// withTLS secures client and peer traffic.
func withTLS(c *v1beta1.EtcdCluster) {
	c.Spec.TLS = clustertest.FromSecrets(peerSecret, serverSecret, operatorSecret)
}

// certificates are the Secrets of one cluster, by name.
type certificates map[string]map[string][]byte

// newCertificates issues what a cluster named prod needs in the namespace.
func (l *lab) newCertificates() certificates {
	l.Helper()
	authority := pkitest.NewAuthority(l.T, "test")
	members := "*.prod." + l.namespace + ".svc"
	return certificates{
		peerSecret:     l.peerData(authority, members, time.Time{}),
		serverSecret:   data(authority, authority.Issue(l.T, pkitest.Leaf{Names: []string{members, "prod-client." + l.namespace + ".svc", "localhost"}}), "server"),
		operatorSecret: data(authority, authority.Issue(l.T, pkitest.Leaf{CommonName: "root", Usages: pkitest.ClientOnly}), "etcd-client"),
	}
}

// peerData issues a peer certificate for a name, which ends at a time of the caller's or else tomorrow.
func (l *lab) peerData(authority *pkitest.Authority, name string, notAfter time.Time) map[string][]byte {
	l.Helper()
	leaf := pkitest.Leaf{Names: []string{name}, NotAfter: notAfter}
	if !notAfter.IsZero() {
		leaf.NotBefore = notAfter.Add(-time.Hour)
	}
	return data(authority, authority.Issue(l.T, leaf), "peer")
}

func data(authority *pkitest.Authority, pair pkitest.Pair, prefix string) map[string][]byte {
	return map[string][]byte{prefix + ".crt": pair.Certificate, prefix + ".key": pair.Key, prefix + "-ca.crt": authority.PEM}
}

func (l *lab) createSecret(name string, data map[string][]byte) {
	l.Helper()
	must(l.T, admin.Create(l.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name}, Data: data}))
}

func (l *lab) updateSecret(name string, data map[string][]byte) {
	l.Helper()
	secret := &corev1.Secret{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: name}, secret))
	secret.Data = data
	must(l.T, admin.Update(l.Context(), secret))
}

func (l *lab) createCertificates() {
	l.Helper()
	for name, data := range l.newCertificates() {
		l.createSecret(name, data)
	}
}

func TestAClusterWithTLSBecomesAvailableAndIsAskedWithTheOperatorsCertificate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createCertificates()
	l.create(3, withTLS)
	l.settleUntilAvailable()
	l.expectFounded(3)
	l.expectRest()
}
