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
	if r.snapshot.JustCreated {
		return nil, nil // where there is one all the same, the API server refuses to create another
	}
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
	bundle, _ := pki.Identities(secret.Data[pki.TLSKeys.Authorities]) // none where it cannot be read
	for _, identity := range bundle {
		a.Bundle = append(a.Bundle, identity.Fingerprint)
	}
	slices.Sort(a.Bundle)
	current, err := identityOf(secret.Data, pki.TLSKeys)
	if err != nil {
		a.Broken = err.Error()
		return a
	}
	a.Current, a.NotBefore, a.NotAfter = current.Fingerprint, current.NotBefore, current.NotAfter
	a.RenewalDue = pki.RenewalDue(current.NotBefore, current.NotAfter)
	if !slices.Contains(a.Bundle, a.Current) {
		a.Broken = "its bundle does not hold its own certificate"
	}
	if previous, err := identityOf(secret.Data, pki.PreviousKeys); err == nil && !now.Before(previous.NotBefore) {
		a.Previous, a.PreviousNotAfter = previous.Fingerprint, previous.NotAfter
	}
	return a
}

// identityOf identifies an authority that can issue.
func identityOf(data map[string][]byte, keys pki.Keys) (pki.Identity, error) {
	if _, err := pki.ReadAuthority(data[keys.Certificate], data[keys.Key]); err != nil {
		return pki.Identity{}, err
	}
	list, err := pki.Identities(data[keys.Certificate])
	if err != nil {
		return pki.Identity{}, err
	}
	return list[0], nil
}
