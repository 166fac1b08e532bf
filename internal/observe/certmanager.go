package observe

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// What cert-manager writes on a Secret: for which Certificate it made it, and by which issuer.
const (
	certificateNameAnnotation = "cert-manager.io/certificate-name"
	issuerNameAnnotation      = "cert-manager.io/issuer-name"
	issuerKindAnnotation      = "cert-manager.io/issuer-kind"
	issuerGroupAnnotation     = "cert-manager.io/issuer-group"
)

// readIssued reads cert-manager's Certificates of one kind of traffic, and the Secrets that it issued for them. The Secrets outlive cert-manager, and members run on with them.
func (r *secretReader) readIssued(t *cluster.Trust, traffic cluster.Traffic) error {
	r.entry.validUntil = minTime(r.entry.validUntil, r.snapshot.Now.Add(rereadAtRest))
	for _, role := range traffic.Roles() {
		c := cluster.Certificate{ObjectVersion: cluster.ObjectVersion{Name: cluster.CertificateName(r.snapshot.Cluster.Name, role)}, Role: role}
		request, installed, err := r.request(c.Name)
		if err != nil {
			return err
		}
		if told := r.entry.peer.CertManagerMissing || r.entry.client.CertManagerMissing; !installed && !told {
			r.problem(v1beta1.ReasonCertificateNotReady, "The spec has cert-manager issue certificates, and cert-manager is not installed: the API server knows no certificates.cert-manager.io. "+r.withoutCertManager())
		}
		t.CertManagerMissing = t.CertManagerMissing || !installed
		if err := r.readIssuedSecret(&c, request, r.intent.Issuer(traffic)); err != nil {
			return err
		}
		r.incomplete = r.incomplete || !c.Usable() || !c.Issued && !r.membersExist()
		t.Certificates = append(t.Certificates, c)
	}
	return nil
}

// withoutCertManager tells what to do where cert-manager is not installed.
func (r *secretReader) withoutCertManager() string {
	if r.membersExist() {
		return "Install it again before the certificates expire: nobody renews them."
	}
	return "Install cert-manager, or set another source in spec.tls.client and spec.tls.peer of a new cluster."
}

// membersExist reports whether members were made, with the certificates that there were.
func (r *secretReader) membersExist() bool {
	return slices.ContainsFunc(r.snapshot.Members, func(m cluster.Member) bool { return m.Workload != nil })
}

func (r *secretReader) readIssuedSecret(c *cluster.Certificate, request *unstructured.Unstructured, issuer *v1beta1.IssuerRef) error {
	secret, err := r.get(c.Name)
	if err != nil {
		return err
	}
	if secret != nil && secret.Annotations[certificateNameAnnotation] != c.Name {
		r.entry.strangers = append(r.entry.strangers, cluster.ForeignObjectOf(r.snapshot.Cluster, "Secret", secret))
		return nil
	}
	if secret != nil {
		*c = r.certificate(c.Role, secret, pki.TLSKeys)
		r.readAgainWhenDue(c.RenewalDue)
	}
	c.CertManagerCertificate = request
	asked := request != nil && issuer != nil && r.upToDate(request, c.Role, *issuer)
	c.Issued = secret != nil && asked && ready(request) && issuedBy(secret, *issuer)
	switch {
	case !asked, r.isUnreadable(c.Name): // analyse has the request made, or corrected
	case secret == nil:
		r.problem(v1beta1.ReasonCertificateNotReady, fmt.Sprintf("cert-manager has not issued Secret %s yet%s. kubectl describe certificate %s tells more.", c.Name, notReadyMessage(request), c.Name))
	case !c.Issued && !r.membersExist():
		r.problem(v1beta1.ReasonCertificateNotReady, fmt.Sprintf("Secret %s exists, and cert-manager has not issued it for this cluster yet%s. An earlier cluster may have left it, so no member is started with it. "+
			"kubectl describe certificate %s tells more.", c.Name, notReadyMessage(request), c.Name))
	case c.Broken != "":
		r.problem(v1beta1.ReasonCertificateInvalid, fmt.Sprintf("Secret %s, which cert-manager issued, cannot be used: %s. "+
			"Use an issuer that gives its own certificate in ca.crt, as those of the types CA and Vault do.", c.Name, c.Broken))
	}
	return nil
}

// upToDate reports whether a Certificate asks for what the operator wants today.
func (r *secretReader) upToDate(request *unstructured.Unstructured, role cluster.Role, issuer v1beta1.IssuerRef) bool {
	same, err := render.UpToDate(render.CertManagerCertificate(r.snapshot.Cluster, role, r.intent.ClusterDomain, issuer), request)
	return err == nil && same
}

// issuedBy reports whether cert-manager made a Secret by the issuer. It writes the issuer's name on each, and may leave out what is its default.
func issuedBy(secret *corev1.Secret, issuer v1beta1.IssuerRef) bool {
	withDefaults := func(i v1beta1.IssuerRef) v1beta1.IssuerRef {
		i.Kind, i.Group = cmp.Or(i.Kind, "Issuer"), cmp.Or(i.Group, render.CertificateKind.Group)
		return i
	}
	have := v1beta1.IssuerRef{
		Name: secret.Annotations[issuerNameAnnotation], Kind: secret.Annotations[issuerKindAnnotation], Group: secret.Annotations[issuerGroupAnnotation],
	}
	return withDefaults(have) == withDefaults(issuer)
}

// request reads a Certificate of the cluster's own, nil where there is none; installed is false where the API server knows no Certificates.
func (r *secretReader) request(name string) (request *unstructured.Unstructured, installed bool, err error) {
	request = &unstructured.Unstructured{}
	request.SetGroupVersionKind(render.CertificateKind)
	err = r.observer.Live.Get(r.ctx, client.ObjectKey{Namespace: r.snapshot.Cluster.Namespace, Name: name}, request)
	switch {
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err) && apierrors.IsUnexpectedServerError(err): // the latter where the kind was there when the client last looked
		return nil, false, nil
	case apierrors.IsForbidden(err):
		r.addUnreadable("Certificate", name, err)
		return nil, true, nil
	case apierrors.IsNotFound(err):
		return nil, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("reading Certificate %s: %w", name, err)
	case !cluster.Owns(r.snapshot.Cluster, request):
		r.entry.strangers = append(r.entry.strangers, cluster.ForeignObjectOf(r.snapshot.Cluster, "Certificate", request))
		return nil, true, nil
	default:
		return request, true, nil
	}
}

// readiness returns cert-manager's condition Ready of a Certificate, nil where there is none.
func readiness(request *unstructured.Unstructured) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(request.Object, "status", "conditions")
	for _, entry := range conditions {
		if condition, _ := entry.(map[string]any); condition["type"] == "Ready" {
			return condition
		}
	}
	return nil
}

// ready reports whether cert-manager calls a Certificate ready as it stands: a word on an earlier generation does not count.
func ready(request *unstructured.Unstructured) bool {
	if request == nil {
		return false
	}
	condition := readiness(request)
	return condition["status"] == "True" && condition["observedGeneration"] == request.GetGeneration()
}

// notReadyMessage returns what cert-manager notReadyMessage of a Certificate that is not ready, as the end of a sentence.
func notReadyMessage(request *unstructured.Unstructured) string {
	condition := readiness(request)
	if message, _ := condition["message"].(string); message != "" && condition["status"] != "True" {
		return ": " + cluster.ForeignText(message)
	}
	return ""
}
