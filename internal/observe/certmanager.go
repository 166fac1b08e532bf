package observe

import (
	"cmp"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// readIssued reads cert-manager's Certificates of one kind of traffic, and the Secrets that it issued for them.
// The Secrets outlive cert-manager, and members run on with them.
func (r *secretReader) readIssued(t *cluster.Trust, traffic cluster.Traffic) error {
	r.readAgainAtRest()
	membersExist := r.snapshot.MembersCreated()
	for _, role := range traffic.Roles() {
		c := cluster.Certificate{ObjectVersion: cluster.ObjectVersion{Name: cluster.CertificateName(r.snapshot.Cluster.Name, role)}, Role: role}
		request, installed, err := r.request(c.Name)
		if err != nil {
			return err
		}
		t.CertManagerMissing = t.CertManagerMissing || !installed
		secret, err := r.get(c.Name)
		switch {
		case err != nil:
			return err
		case secret != nil && secret.Annotations[certificateNameAnnotation] != c.Name:
			r.entry.foreign = append(r.entry.foreign, cluster.ForeignObjectOf(r.snapshot.Cluster, "Secret", secret))
		case secret != nil:
			c = r.certificate(role, secret, pki.TLSKeys)
			r.readAgainWhenDue(c.RenewalDue)
		}
		if request != nil {
			c.CertManagerCertificate, c.NotReady = request, notReady(request)
			c.Issued = c.Exists() && ready(request) && issuedBy(secret, request)
		}
		r.incomplete = r.incomplete || !installed || !c.Usable() || !c.Issued && !membersExist
		t.Certificates = append(t.Certificates, c)
	}
	return nil
}

// issuedBy reports whether cert-manager made a Secret by the issuer that a Certificate names. cert-manager writes the
// issuer on each Secret, and may leave out what is its default.
func issuedBy(secret *corev1.Secret, request *unstructured.Unstructured) bool {
	asked, _, _ := unstructured.NestedStringMap(request.Object, "spec", "issuerRef")
	for field, key := range map[string]string{"name": issuerNameAnnotation, "kind": issuerKindAnnotation, "group": issuerGroupAnnotation} {
		byDefault := map[string]string{"kind": "Issuer", "group": render.CertificateKind.Group}[field]
		if cmp.Or(asked[field], byDefault) != cmp.Or(secret.Annotations[key], byDefault) {
			return false
		}
	}
	return true
}

// request reads a Certificate of this cluster, nil if there is none. installed is false if the API server does not
// know Certificates.
func (r *secretReader) request(name string) (request *unstructured.Unstructured, installed bool, err error) {
	request = &unstructured.Unstructured{}
	request.SetGroupVersionKind(render.CertificateKind)
	err = r.observer.Live.Get(r.ctx, client.ObjectKey{Namespace: r.snapshot.Cluster.Namespace, Name: name}, request)
	switch {
	// The second is the answer if the kind existed when the client last asked for the kinds.
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err) && apierrors.IsUnexpectedServerError(err):
		return nil, false, nil
	case apierrors.IsForbidden(err):
		r.addUnreadable("Certificate", name, err)
		return nil, true, nil
	case apierrors.IsNotFound(err):
		return nil, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("reading Certificate %s: %w", name, err)
	case !cluster.Owns(r.snapshot.Cluster, request):
		r.entry.foreign = append(r.entry.foreign, cluster.ForeignObjectOf(r.snapshot.Cluster, "Certificate", request))
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

// ready reports whether cert-manager calls a Certificate ready as it stands. What it says of an earlier generation does
// not count.
func ready(request *unstructured.Unstructured) bool {
	condition := readiness(request)
	return condition["status"] == "True" && condition["observedGeneration"] == request.GetGeneration()
}

// notReady returns what cert-manager says about a Certificate that is not ready.
func notReady(request *unstructured.Unstructured) string {
	condition := readiness(request)
	if message, _ := condition["message"].(string); condition["status"] != "True" {
		return cluster.ForeignText(message)
	}
	return ""
}
