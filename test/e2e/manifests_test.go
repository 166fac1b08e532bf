package e2e

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

// The manifests of the original etcd operator's documentation, with the apiVersion line and the etcd version changed.
// The Kubernetes of the tests has images of the pinned versions only, so the default version is not used.
const (
	originalManifest = `
apiVersion: operator.etcd-warden.io/v1alpha1
kind: EtcdCluster
metadata:
  name: example-etcd-cluster
spec:
  size: 3
  version: "VERSION"
`
	originalTLSManifest = `
apiVersion: operator.etcd-warden.io/v1alpha1
kind: EtcdCluster
metadata:
  name: example
spec:
  size: 3
  version: "VERSION"
  TLS:
    static:
      member:
        peerSecret: etcd-peer-tls
        serverSecret: etcd-server-tls
      operatorSecret: etcd-client-tls
`
)

var _ = Describe("A manifest of the original etcd operator's documentation", func() {
	It("gives a working cluster, in clear as it was", func(ctx SpecContext) {
		c := applyOriginal(ctx, newNamespace(ctx), "example-etcd-cluster", originalManifest)
		bury(ctx, c).expectFound(ctx, c)
		Expect(c.Spec.TLS.Client.Mode).To(Equal(v1beta1.TLSDisabled))
		Expect(c.Spec.TLS.Peer.Mode).To(Equal(v1beta1.TLSDisabled))
	})

	It("with static TLS gives a working cluster that asks for certificates", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		ca := pkitest.NewAuthority(GinkgoTB(), "ca")
		for name, secret := range map[string]struct {
			prefix string
			leaf   pkitest.Leaf
		}{
			"etcd-peer-tls":   {"peer", pkitest.Leaf{CommonName: "peer", Names: []string{"*.example." + ns + ".svc", "*.example." + ns + ".svc.cluster.local"}}},
			"etcd-server-tls": {"server", pkitest.Leaf{CommonName: "server", Names: []string{"*.example." + ns + ".svc", "example-client." + ns + ".svc", "localhost"}}},
			"etcd-client-tls": {"etcd-client", pkitest.Leaf{CommonName: "etcd-client", Usages: pkitest.ClientOnly}},
		} {
			pair := ca.Issue(GinkgoTB(), secret.leaf)
			Expect(kube.Create(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
				Data:       map[string][]byte{secret.prefix + ".crt": pair.Certificate, secret.prefix + ".key": pair.Key, secret.prefix + "-ca.crt": ca.PEM},
			})).To(Succeed())
		}
		c := applyOriginal(ctx, ns, "example", originalTLSManifest)
		kept := bury(ctx, c)
		kept.expectFound(ctx, c)
		got, ok := askAsClient(ctx, c, "etcd-client-tls", "--endpoints=https://example-client."+ns+".svc:2379", "get", "treasure", "--print-value-only")
		Expect(ok).To(BeTrue(), got)
		got, ok = askAsClient(ctx, c, "", "--endpoints=https://example-client."+ns+".svc:2379", "--insecure-skip-tls-verify", "get", "treasure")
		Expect(ok).To(BeFalse(), got)
	})
})

// applyOriginal gives a manifest with a pinned version to kubectl, as users do, and waits until the cluster serves.
func applyOriginal(ctx SpecContext, ns, name, manifest string) *v1beta1.EtcdCluster {
	GinkgoHelper()
	out, err := lab.KubectlWith(ctx, strings.ReplaceAll(manifest, "VERSION", versionOf("3.6")), "-n", ns, "apply", "-f", "-")
	Expect(err).NotTo(HaveOccurred(), out)
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	awaitHealthy(ctx, c)
	Expect(c.Spec.Replicas).To(Equal(int32(3)))
	return c
}
