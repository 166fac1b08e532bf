package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/pki"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

var _ = Describe("A cluster with TLS", func() {
	for _, minor := range []string{"3.5", "3.6", "3.7"} {
		It("of etcd "+minor+" serves those with a certificate, by its DNS names, and nobody else", func(ctx SpecContext) {
			ns := newNamespace(ctx)
			ca := pkitest.NewAuthority(GinkgoTB(), "e2e")
			makeSecrets(ctx, ns, ca)
			c := create(ctx, makeCluster(ns, ofVersion(versionOf(minor)), secured))
			kept := bury(ctx, c)
			kept.expectFound(ctx, c)
			for _, m := range c.Status.Members {
				expectNoComplaint(ctx, c, m.Name)
			}

			service := fmt.Sprintf("https://prod-client.%s.svc:2379", ns)
			got, ok := askAsClient(ctx, c, "operator", "--endpoints="+service, "get", "treasure", "--print-value-only")
			Expect(ok).To(BeTrue(), got)
			Expect(strings.TrimSpace(got)).To(Equal(kept.value))
			got, ok = askAsClient(ctx, c, "", "--endpoints=http://prod-client."+ns+".svc:2379", "get", "treasure")
			Expect(ok).To(BeFalse(), got)
			got, ok = askAsClient(ctx, c, "", "--endpoints="+service, "--insecure-skip-tls-verify", "get", "treasure")
			Expect(ok).To(BeFalse(), got)

			out, err := etcdctl(ctx, c, "prod-0", "member", "list")
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Count(out, "https://")).To(Equal(6), "peers and clients are to speak TLS: "+out)
		})
	}

	It("for peers alone, or for clients alone, secures just that", func(ctx SpecContext) {
		for scheme, members := range map[string]*v1beta1.TLS{
			"peerURLs":   clustertest.FromSecrets("peer", "", ""),
			"clientURLs": clustertest.FromSecrets("", "server", "operator"),
		} {
			ns := newNamespace(ctx)
			makeSecrets(ctx, ns, pkitest.NewAuthority(GinkgoTB(), "e2e"))
			c := create(ctx, makeCluster(ns, func(c *v1beta1.EtcdCluster) { c.Spec.TLS = members }))
			bury(ctx, c).expectFound(ctx, c)
			out, err := etcdctl(ctx, c, "prod-0", "member", "list", "--write-out=json")
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Count(out, "https://")).To(Equal(3), scheme+" alone are to be secured: "+out)
			Expect(strings.Count(out, `"`+scheme+`":["https://`)).To(Equal(3), out)
		}
	})

	It("serves a renewed certificate without a restart, and the operator goes on with its own renewed one", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		ca := pkitest.NewAuthority(GinkgoTB(), "e2e")
		makeSecrets(ctx, ns, ca)
		c := create(ctx, makeCluster(ns, secured))
		kept := bury(ctx, c)
		before := uidsOf(podsOf(ctx, c))

		server := ca.Issue(GinkgoTB(), serverLeaf(ns))
		updateSecret(ctx, ns, "server", map[string][]byte{"server.crt": server.Certificate, "server.key": server.Key})
		peer := ca.Issue(GinkgoTB(), peerLeaf(ns))
		updateSecret(ctx, ns, "peer", map[string][]byte{"peer.crt": peer.Certificate, "peer.key": peer.Key})
		awaitServed(ctx, c, "prod-1", server.Certificate)

		kept.expectFound(ctx, c)
		Expect(uidsOf(podsOf(ctx, c))).To(Equal(before))
		awaitHealthy(ctx, c)
	})

	It("is observed again once its operator's expired certificate is renewed, and serves meanwhile", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		ca := pkitest.NewAuthority(GinkgoTB(), "e2e")
		makeSecrets(ctx, ns, ca)
		brief := ca.Issue(GinkgoTB(), pkitest.Leaf{CommonName: "root", Usages: pkitest.ClientOnly, NotAfter: time.Now().Add(time.Minute)})
		updateSecret(ctx, ns, "operator", map[string][]byte{"etcd-client.crt": brief.Certificate, "etcd-client.key": brief.Key})
		c := create(ctx, makeCluster(ns, secured))
		kept := bury(ctx, c)
		before := uidsOf(podsOf(ctx, c))

		awaitConditions(ctx, c, degraded(metav1.ConditionTrue, v1beta1.ReasonCertificateInvalid).saying("Secret operator", "expired", "renew it"))
		expectEvent(ctx, c, v1beta1.ReasonCertificateInvalid, "Secret operator", "expired")
		write(ctx, c, "prod-0", "meanwhile", "served")

		renewed := ca.Issue(GinkgoTB(), pkitest.Leaf{CommonName: "root", Usages: pkitest.ClientOnly})
		updateSecret(ctx, ns, "operator", map[string][]byte{"etcd-client.crt": renewed.Certificate, "etcd-client.key": renewed.Key})
		awaitHealthy(ctx, c)
		kept.expectFound(ctx, c)
		Expect(uidsOf(podsOf(ctx, c))).To(Equal(before))
	})

	It("waits for Secrets that are missing or do not fit, says which and why, and starts once they do", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		c := makeCluster(ns, secured, withOption("max-txn-ops", "many"))
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitRefusal(ctx, c, v1beta1.ReasonSecretNotFound, "Secret peer does not exist", "Secret server does not exist", "Secret operator does not exist",
			"Create it with the keys", "max-txn-ops: its value must be a whole number")
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Config = nil })
		expectNothingMade(ctx, c)

		ca := pkitest.NewAuthority(GinkgoTB(), "e2e")
		makeSecrets(ctx, ns, ca)
		wrong := ca.Issue(GinkgoTB(), pkitest.Leaf{CommonName: "server", Names: []string{"localhost", "*.other." + ns + ".svc"}})
		updateSecret(ctx, ns, "server", map[string][]byte{"server.crt": wrong.Certificate, "server.key": wrong.Key})
		awaitRefusal(ctx, c, v1beta1.ReasonCertificateInvalid, "Secret server cannot be used", "prod-0-0.prod."+ns+".svc")
		expectNothingMade(ctx, c)

		server := ca.Issue(GinkgoTB(), serverLeaf(ns))
		updateSecret(ctx, ns, "server", map[string][]byte{"server.crt": server.Certificate, "server.key": server.Key})
		awaitHealthy(ctx, c)
		bury(ctx, c).expectFound(ctx, c)
	})
})

// secured takes the Secrets that makeSecrets makes.
func secured(c *v1beta1.EtcdCluster) {
	c.Spec.TLS = clustertest.FromSecrets("peer", "server", "operator")
}

func serverLeaf(ns string) pkitest.Leaf {
	return pkitest.Leaf{CommonName: "server", Names: []string{"*.prod." + ns + ".svc", "prod-client." + ns + ".svc", "localhost"}}
}

func peerLeaf(ns string) pkitest.Leaf {
	return pkitest.Leaf{CommonName: "peer", Names: []string{"*.prod." + ns + ".svc", "*.prod." + ns + ".svc.cluster.local"}}
}

// makeSecrets makes the three Secrets as a user of the original operator has them.
func makeSecrets(ctx context.Context, ns string, ca *pkitest.Authority) {
	GinkgoHelper()
	for name, prefix := range map[string]string{"peer": "peer", "server": "server", "operator": "etcd-client"} {
		leaf := map[string]pkitest.Leaf{"peer": peerLeaf(ns), "server": serverLeaf(ns), "operator": {CommonName: "root", Usages: pkitest.ClientOnly}}[name]
		pair := ca.Issue(GinkgoTB(), leaf)
		Expect(kube.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			Data:       map[string][]byte{prefix + ".crt": pair.Certificate, prefix + ".key": pair.Key, prefix + "-ca.crt": ca.PEM},
		})).To(Succeed())
	}
}

func updateSecret(ctx context.Context, ns, name string, data map[string][]byte) {
	GinkgoHelper()
	var secret corev1.Secret
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, &secret)).To(Succeed())
	for key, value := range data {
		secret.Data[key] = value
	}
	Expect(kube.Update(ctx, &secret)).To(Succeed())
}

// askAsClient runs etcdctl in a pod of its own, with the client certificate of a Secret where one is named.
// It returns what was printed, and whether etcdctl succeeded.
func askAsClient(ctx context.Context, c *v1beta1.EtcdCluster, secret string, args ...string) (string, bool) {
	GinkgoHelper()
	member := podOf(ctx, c, c.Name+"-0")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, GenerateName: "client-"},
		Spec: corev1.PodSpec{
			RestartPolicy:   corev1.RestartPolicyNever,
			SecurityContext: member.Spec.SecurityContext,
			Containers: []corev1.Container{{
				Name: "etcdctl", Image: member.Spec.Containers[0].Image, Command: []string{"etcdctl", "--command-timeout=5s", "--dial-timeout=5s"},
				SecurityContext: member.Spec.Containers[0].SecurityContext,
			}},
		},
	}
	etcdctl := &pod.Spec.Containers[0]
	if secret != "" {
		pod.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}}
		etcdctl.VolumeMounts = []corev1.VolumeMount{{Name: "tls", MountPath: "/tls", ReadOnly: true}}
		keys := pki.OperatorKeys
		if secret == c.Status.ClientSecretName {
			keys = pki.TLSKeys
		}
		etcdctl.Command = append(etcdctl.Command, "--cert=/tls/"+keys.Certificate, "--key=/tls/"+keys.Key, "--cacert=/tls/"+keys.Authorities)
	}
	etcdctl.Args = args
	Expect(kube.Create(ctx, pod)).To(Succeed())
	awaitPodEnd(ctx, pod)
	log, err := clientset.CoreV1().Pods(c.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
	Expect(err).NotTo(HaveOccurred())
	return string(log), pod.Status.Phase == corev1.PodSucceeded
}

// awaitServed waits until a member shows this certificate to its clients.
func awaitServed(ctx context.Context, c *v1beta1.EtcdCluster, member string, certificate []byte) {
	GinkgoHelper()
	block, _ := pem.Decode(certificate)
	wanted, err := x509.ParseCertificate(block.Bytes)
	Expect(err).NotTo(HaveOccurred())
	Eventually(ctx, func(g Gomega) {
		served, err := servedCertificate(ctx, c, member)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(served.SerialNumber).To(Equal(wanted.SerialNumber))
	}).Should(Succeed())
}
