package observe

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-steward/etcd-steward/api/v1beta1"
	"github.com/etcd-steward/etcd-steward/internal/cluster"
	"github.com/etcd-steward/etcd-steward/internal/pki"
	"github.com/etcd-steward/etcd-steward/internal/render"
)

// certificateNameAnnotation is where cert-manager writes on a Secret for which Certificate it made it.
const certificateNameAnnotation = "cert-manager.io/certificate-name"

// readIssued reads cert-manager's Certificates of one kind of traffic, and the Secrets that it issued for them.
func (r *secretReader) readIssued(t *cluster.Trust, traffic cluster.Traffic) error {
	r.entry.validUntil = minTime(r.entry.validUntil, r.snapshot.Now.Add(rereadAtRest))
	for _, role := range traffic.Roles() {
		c := cluster.Certificate{Written: cluster.Written{Name: cluster.CertificateName(r.snapshot.Cluster.Name, role)}, Role: role}
		request, installed, err := r.request(c.Name)
		if err != nil {
			return err
		}
		if !installed {
			r.problem(v1beta1.ReasonCertificateNotReady, "The spec has cert-manager issue certificates, and cert-manager is not installed: the API server knows no certificates.cert-manager.io. "+
				"Install cert-manager, or delete this cluster and create it with tls.client and tls.peer of another kind.")
			return nil
		}
		if err := r.readIssuedSecret(&c, request); err != nil {
			return err
		}
		r.unsettled = r.unsettled || !c.Usable()
		t.Certificates = append(t.Certificates, c)
	}
	return nil
}

func (r *secretReader) readIssuedSecret(c *cluster.Certificate, request *unstructured.Unstructured) error {
	secret, err := r.get(c.Name)
	if err != nil {
		return err
	}
	if secret != nil && secret.Annotations[certificateNameAnnotation] != c.Name {
		r.entry.strangers = append(r.entry.strangers, cluster.StrangerOf(r.snapshot.Cluster, "Secret", secret))
		return nil
	}
	if secret != nil {
		*c = r.certificate(c.Role, secret, pki.TLSKeys)
		r.readAgainWhenDue(c.RenewalDue)
	}
	c.Request = request
	switch {
	case request == nil: // analyse has it made
	case secret == nil:
		r.problem(v1beta1.ReasonCertificateNotReady, fmt.Sprintf("cert-manager has not issued Secret %s yet%s. kubectl describe certificate %s tells more.", c.Name, says(request), c.Name))
	case c.Broken != "":
		r.problem(v1beta1.ReasonCertificateInvalid, fmt.Sprintf("Secret %s, which cert-manager issued, cannot be used: %s. "+
			"Use an issuer that gives its own certificate in ca.crt, as those of the types CA and Vault do.", c.Name, c.Broken))
	}
	return nil
}

// request reads a Certificate of the cluster's own, nil where there is none; installed is false where the API server knows no Certificates.
func (r *secretReader) request(name string) (request *unstructured.Unstructured, installed bool, err error) {
	request = &unstructured.Unstructured{}
	request.SetGroupVersionKind(render.CertificateKind)
	err = r.observer.Live.Get(r.ctx, client.ObjectKey{Namespace: r.snapshot.Cluster.Namespace, Name: name}, request)
	switch {
	case meta.IsNoMatchError(err):
		return nil, false, nil
	case apierrors.IsNotFound(err):
		return nil, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("reading Certificate %s: %w", name, err)
	case !cluster.Owns(r.snapshot.Cluster, request):
		r.entry.strangers = append(r.entry.strangers, cluster.StrangerOf(r.snapshot.Cluster, "Certificate", request))
		return nil, true, nil
	default:
		return request, true, nil
	}
}

// says returns what cert-manager says of a Certificate that is not ready, as the end of a sentence.
func says(request *unstructured.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(request.Object, "status", "conditions")
	for _, entry := range conditions {
		condition, _ := entry.(map[string]any)
		if message, _ := condition["message"].(string); condition["type"] == "Ready" && message != "" {
			return ": " + message
		}
	}
	return ""
}
