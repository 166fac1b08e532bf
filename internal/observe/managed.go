package observe

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// readManaged reads the Secrets that the operator makes itself.
func (r *secretReader) readManaged(t *cluster.Trust, traffic cluster.Traffic) error {
	r.readAgainAtRest()
	t.Authority.Name = cluster.AuthorityName(r.snapshot.Cluster.Name, traffic)
	secret, err := r.own(t.Authority.Name)
	if err != nil {
		return err
	}
	if secret != nil {
		t.Authority = authorityOf(secret, r.snapshot.Now)
	}
	r.incomplete = r.incomplete || !t.Authority.Usable() || r.snapshot.Now.Before(t.Authority.NotBefore)
	for _, role := range traffic.Roles() {
		c := cluster.Certificate{ObjectVersion: cluster.ObjectVersion{Name: cluster.CertificateName(r.snapshot.Cluster.Name, role)}, Role: role}
		secret, err := r.own(c.Name)
		if err != nil {
			return err
		}
		if secret != nil {
			c = r.certificate(role, secret, pki.TLSKeys)
		}
		r.incomplete = r.incomplete || !c.Usable()
		t.Certificates = append(t.Certificates, c)
	}
	return nil
}

// own reads a Secret of the cluster's own, nil where there is none. Any other one is foreign.
func (r *secretReader) own(name string) (*corev1.Secret, error) {
	secret, err := r.get(name)
	if err != nil || secret == nil {
		return nil, err
	}
	if !cluster.Owns(r.snapshot.Cluster, secret) {
		foreign := cluster.ForeignObjectOf(r.snapshot.Cluster, "Secret", secret)
		foreign.LacksOwnerReference = true
		r.entry.foreign = append(r.entry.foreign, foreign)
		return nil, nil
	}
	return secret, nil
}

// authorityOf tells what a managed authority's Secret holds, without its keys.
func authorityOf(secret *corev1.Secret, now time.Time) cluster.Authority {
	a := cluster.Authority{
		ObjectVersion:   writtenOf(secret),
		Phase:           cluster.Phase(secret.Annotations[cluster.AnnotationAuthorityPhase]),
		RotationRequest: secret.Annotations[v1beta1.RotateAuthoritiesAnnotation],
	}
	if since, err := time.Parse(time.RFC3339, secret.Annotations[cluster.AnnotationAuthoritySince]); err == nil {
		a.Since = since
	}
	for _, identity := range identities(secret.Data[pki.TLSKeys.Authorities]) {
		a.Bundle = append(a.Bundle, identity.Fingerprint)
	}
	slices.Sort(a.Bundle)
	if _, err := pki.ReadAuthority(secret.Data[pki.TLSKeys.Certificate], secret.Data[pki.TLSKeys.Key]); err != nil {
		a.Broken = err.Error()
		return a
	}
	current := identities(secret.Data[pki.TLSKeys.Certificate])[0]
	a.Current, a.NotBefore, a.NotAfter, a.RenewalDue = current.Fingerprint, current.NotBefore, current.NotAfter, pki.RenewalDue(current.NotBefore, current.NotAfter)
	if !slices.Contains(a.Bundle, a.Current) {
		a.Broken = "its bundle does not hold its own certificate"
	}
	if _, err := pki.ReadAuthority(secret.Data[pki.PreviousKeys.Certificate], secret.Data[pki.PreviousKeys.Key]); err == nil {
		previous := identities(secret.Data[pki.PreviousKeys.Certificate])[0]
		if !now.Before(previous.NotBefore) {
			a.Previous, a.PreviousNotAfter = previous.Fingerprint, previous.NotAfter
		}
	}
	return a
}

// identities reads certificates, none where there are none.
func identities(text []byte) []pki.Identity {
	list, err := pki.Identities(text)
	if err != nil {
		return nil
	}
	return list
}
