package render

import (
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// defaultDomain is the cluster domain that certificates fit if the spec names none.
// A member looks up the DNS names of a peer's address and wants one of them in the peer's certificate.
// These names end in the domain of the Kubernetes cluster.
const defaultDomain = "cluster.local"

// CertificateKind is cert-manager's kind Certificate.
var CertificateKind = schema.GroupVersionKind{Group: "cert-manager.io", Version: "v1", Kind: "Certificate"}

// CertificateTemplate returns the names and usages of a cluster's certificate.
func CertificateTemplate(c *v1beta1.EtcdCluster, role cluster.Role, domain string) pki.Request {
	if domain == "" {
		domain = defaultDomain
	}
	members := "*." + inNamespace(cluster.PeerServiceName(c.Name), c)
	client := inNamespace(cluster.ClientServiceName(c.Name), c)
	switch role {
	case cluster.RolePeer:
		return pki.Request{CommonName: c.Name + "-peer", Names: []string{members, members + "." + domain}, Use: pki.Peer}
	case cluster.RoleServer:
		return pki.Request{
			CommonName: c.Name + "-server",
			Names: []string{
				members, members + "." + domain, client, client + "." + domain,
				cluster.ClientServiceName(c.Name), cluster.ClientServiceName(c.Name) + "." + c.Namespace, "localhost",
			},
			Addresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
			Use:       pki.Server,
		}
	case cluster.RoleOperator:
		// root is the etcd user with all rights: the operator keeps access when users turn etcd's authentication on.
		return pki.Request{CommonName: "root", Use: pki.Client}
	case cluster.RoleClient:
		return pki.Request{CommonName: c.Name + "-client", Use: pki.Client}
	}
	return pki.Request{}
}

func inNamespace(service string, c *v1beta1.EtcdCluster) string {
	return fmt.Sprintf("%s.%s.svc", service, c.Namespace)
}

// AuthoritySecret builds the Secret of a managed authority. The caller fills in its data.
func AuthoritySecret(c *v1beta1.EtcdCluster, t cluster.Traffic) *corev1.Secret {
	return secret(c, cluster.AuthorityName(c.Name, t))
}

// CertificateSecret builds the Secret of a managed certificate. The caller fills in its data.
func CertificateSecret(c *v1beta1.EtcdCluster, role cluster.Role) *corev1.Secret {
	return secret(c, cluster.CertificateName(c.Name, role))
}

func secret(c *v1beta1.EtcdCluster, name string) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: ownedMeta(c, name),
		Type:       corev1.SecretTypeTLS,
	}
}

// SecretKeys returns the keys that a Secret of a source has for a role.
func SecretKeys(source cluster.Source, role cluster.Role) pki.Keys {
	switch {
	case source != cluster.SourceEtcdOperator:
		return pki.TLSKeys
	case role == cluster.RolePeer:
		return pki.PeerKeys
	case role == cluster.RoleServer:
		return pki.ServerKeys
	default:
		return pki.OperatorKeys
	}
}

// CertManagerCertificate builds cert-manager's Certificate for a role.
func CertManagerCertificate(c *v1beta1.EtcdCluster, role cluster.Role, domain string, issuer v1beta1.IssuerRef) *unstructured.Unstructured {
	template := CertificateTemplate(c, role, domain)
	name := cluster.CertificateName(c.Name, role)
	spec := map[string]any{
		"secretName": name,
		"commonName": template.CommonName,
		"usages":     usages(template.Use),
		"privateKey": map[string]any{"algorithm": "ECDSA", "size": int64(256), "encoding": "PKCS8", "rotationPolicy": "Always"},
		"issuerRef":  map[string]any{"name": issuer.Name, "kind": issuer.Kind, "group": issuer.Group},
	}
	if len(template.Names) > 0 {
		spec["dnsNames"] = toAnySlice(template.Names)
	}
	if len(template.Addresses) > 0 {
		texts := make([]string, len(template.Addresses))
		for i, address := range template.Addresses {
			texts[i] = address.String()
		}
		spec["ipAddresses"] = toAnySlice(texts)
	}
	certificate := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	certificate.SetGroupVersionKind(CertificateKind)
	certificate.SetNamespace(c.Namespace)
	certificate.SetName(name)
	certificate.SetLabels(clusterLabels(c))
	certificate.SetOwnerReferences(ownedBy(c))
	return certificate
}

func usages(use pki.Use) []any {
	list := []any{"digital signature"}
	if use != pki.Client {
		list = append(list, "server auth")
	}
	return append(list, "client auth")
}

// toAnySlice converts a list to the type that unstructured objects hold.
func toAnySlice(texts []string) []any {
	list := make([]any, len(texts))
	for i, text := range texts {
		list[i] = text
	}
	return list
}
