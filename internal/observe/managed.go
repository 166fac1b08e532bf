package observe

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// readManaged reads the Secrets that the operator makes itself. What is missing or broken is no problem of the user's: analyse has it made.
func (r *secretReader) readManaged(t *cluster.Trust, traffic cluster.Traffic) error {
	r.entry.validUntil = minTime(r.entry.validUntil, r.snapshot.Now.Add(rereadAtRest))
	name := cluster.AuthorityName(r.snapshot.Cluster.Name, traffic)
	t.Authority.Name = name
	secret, err := r.own(name)
	if err != nil {
		return err
	}
	if secret != nil {
		t.Authority = authorityOf(secret, r.snapshot.Now)
	}
	r.incomplete = r.incomplete || !t.Authority.Usable()
	known := len(t.Authority.Bundle) > 0 || r.isUnreadable(name)
	for _, role := range traffic.Roles() {
		c := cluster.Certificate{ObjectVersion: cluster.ObjectVersion{Name: cluster.CertificateName(r.snapshot.Cluster.Name, role)}, Role: role}
		secret, err := r.own(c.Name)
		if err != nil {
			return err
		}
		if secret != nil {
			c = r.certificate(role, secret, pki.TLSKeys)
		}
		c.ForeignOrUnreadable = r.isForeign(c.Name)
		r.incomplete = r.incomplete || !c.Usable()
		known = known || len(c.Bundle) > 0 || r.isUnreadable(c.Name)
		t.Certificates = append(t.Certificates, c)
	}
	if a := &t.Authority; a.Usable() {
		r.reportWithheld(t, traffic)
		if r.snapshot.Now.Before(a.NotBefore) {
			r.problem(v1beta1.ReasonCertificateInvalid, fmt.Sprintf("The authority in Secret %s is not valid before %s, and issues nothing until then: the operator's clock was ahead when "+
				"it made the authority, or is behind now. Set the clocks of the nodes right and wait, or delete Secret %s: the operator then makes another authority.",
				a.Name, a.NotBefore.UTC().Format(time.RFC3339), a.Name))
		}
	}
	if t.AuthorityLost = !known && len(r.snapshot.MembersNotTrusting(traffic)) > 0; t.AuthorityLost {
		r.problem(v1beta1.ReasonSecretNotFound, r.lost(t))
	}
	return nil
}

// lost tells that no Secret of the cluster's own knows what the running members trust, and the way out: a different one where Secrets were brought back without their owner.
func (r *secretReader) lost(t *cluster.Trust) string {
	var back []string
	for _, x := range r.entry.strangers {
		if t.Has(x.Name) {
			back = append(back, x.Name)
		}
	}
	if len(back) > 0 {
		return fmt.Sprintf("The Secrets that know the authority which the running members trust are not this cluster's own: %s. The operator uses none of them, and renews nothing. "+
			"If they are the cluster's, brought back from a backup, make EtcdCluster %s the controller of each in metadata.ownerReferences (docs/tls.md has the command). "+
			"If they are not, rename or delete them, and delete all pods of the cluster at once: the operator then makes a new authority, and the members start with it.",
			strings.Join(back, ", "), r.snapshot.Cluster.Name)
	}
	return fmt.Sprintf("Secret %s is gone, and with it every other one that knows the authority which the running members trust. "+
		"They run on for as long as they are not restarted. Bring the Secrets back from a backup, or delete all pods of the cluster at once: "+
		"the operator then makes a new authority, and the members start with it.", t.Authority.Name)
}

// reportWithheld tells of certificates that cannot be issued again: the members that run do not trust who would issue them.
// Clients' own certificates are left out: they come when the members have been restarted.
func (r *secretReader) reportWithheld(t *cluster.Trust, traffic cluster.Traffic) {
	for i := range t.Certificates {
		c := &t.Certificates[i]
		if c.Role == cluster.RoleClient || !c.IsEmpty() || c.ForeignOrUnreadable {
			continue
		}
		issuer := t.Authority.IssuerFor(c, r.snapshot.Now)
		if members := r.snapshot.MembersThatWouldReject(t, traffic, c, issuer); issuer != "" && len(members) > 0 {
			r.problem(v1beta1.ReasonSecretNotFound, fmt.Sprintf("Secret %s is gone, and the authority in Secret %s is not the one that %s, which run, trust: "+
				"a certificate of it would cut them off, so none is issued. They run on for as long as they are not restarted. "+
				"Bring Secret %s back from a backup, or delete the pods of these members at once: they start with the present authority.",
				c.Name, t.Authority.Name, strings.Join(members, ", "), c.Name))
		}
	}
}

// own reads a Secret of the cluster's own, nil where there is none. Somebody else's is a stranger.
func (r *secretReader) own(name string) (*corev1.Secret, error) {
	secret, err := r.get(name)
	if err != nil || secret == nil {
		return nil, err
	}
	if !cluster.Owns(r.snapshot.Cluster, secret) {
		stranger := cluster.ForeignObjectOf(r.snapshot.Cluster, "Secret", secret)
		stranger.LacksOwnerReference = true
		r.entry.strangers = append(r.entry.strangers, stranger)
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
