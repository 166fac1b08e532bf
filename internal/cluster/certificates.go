package cluster

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// Source says where the certificates of one kind of traffic come from.
type Source string

// The sources of certificates. Traffic that is not encrypted has none. They are stored in intents, so none is ever renamed.
const (
	// SourceSecret is a Secret of the user with the keys of Kubernetes' TLS Secrets.
	SourceSecret Source = "Secret"
	// SourceEtcdOperator is a Secret of the user with the keys of the original etcd operator.
	SourceEtcdOperator Source = "EtcdOperator"
	SourceManaged      Source = "Managed"
	SourceCertManager  Source = "CertManager"
)

// FollowsAuthorities reports whether members are restarted when the authorities in the Secret change.
func (s Source) FollowsAuthorities() bool { return s != "" && s != SourceEtcdOperator }

// Traffic is one of the two kinds of traffic; each has an authority to itself, so that a client's certificate never passes for a peer's.
type Traffic string

// The kinds of traffic.
const (
	PeerTraffic   Traffic = "peer"
	ClientTraffic Traffic = "client"
)

// Role is what a certificate of a cluster is for.
type Role string

// The certificates of a cluster.
const (
	RolePeer     Role = "peer"
	RoleServer   Role = "server"
	RoleOperator Role = "operator"
	RoleClient   Role = "client"
)

// Roles returns the certificates of a kind of traffic. The first is the one that members mount.
func (t Traffic) Roles() []Role {
	if t == PeerTraffic {
		return []Role{RolePeer}
	}
	return []Role{RoleServer, RoleOperator, RoleClient}
}

// AuthorityName returns the name of the Secret with the authority of a kind of traffic.
func AuthorityName(cluster string, t Traffic) string { return fmt.Sprintf("%s-%s-ca", cluster, t) }

// CertificateName returns the name of the Secret with a certificate, and of cert-manager's Certificate for it.
func CertificateName(cluster string, r Role) string { return fmt.Sprintf("%s-%s-tls", cluster, r) }

// Phase is how far the change of a managed authority is.
type Phase string

// The phases of an authority: none, while its bundle holds but one.
const (
	// PhaseAnnounced: members and clients are told to trust the new authority; the old one still issues, where its key is known.
	PhaseAnnounced Phase = "Announced"
	// PhaseIssuing: the new authority issues; the old one is still trusted.
	PhaseIssuing Phase = "Issuing"
)

// ObjectVersion identifies a version of an object; its UID is empty where there is none.
type ObjectVersion struct {
	Name            string
	UID             types.UID
	ResourceVersion string
}

// Exists reports whether there is an object.
func (w ObjectVersion) Exists() bool { return w.UID != "" }

// Trust is what is known of the certificates of one kind of traffic. It holds no key.
type Trust struct {
	Source Source
	// Authority is the operator's own, where the certificates are managed.
	Authority Authority
	// Certificates by role: all of managed ones and of cert-manager's, and of the user's Secrets those that could be read.
	Certificates []Certificate
	// CertManagerMissing tells that the certificates are cert-manager's, and that the API server knows no Certificates.
	CertManagerMissing bool
	// AuthorityLost tells that the members trust an authority that nobody has any more.
	AuthorityLost bool
}

// Authority is the Secret of a managed authority.
type Authority struct {
	ObjectVersion
	// Broken says why the Secret cannot be used; empty where it can, or where there is none.
	Broken string
	// Current is the fingerprint of the newest authority, Previous that of the one before while its key is kept.
	Current, Previous string
	// Bundle are the fingerprints of the authorities to be trusted, sorted.
	Bundle     []string
	RenewalDue time.Time
	// NotBefore and NotAfter are those of the newest authority; PreviousNotAfter is when the one before ends.
	NotBefore, NotAfter, PreviousNotAfter time.Time
	Phase                                 Phase
	// Since is when every Secret had followed into the phase, zero while they have not.
	Since time.Time
	// RotationRequest is the user's last wish to rotate that was taken up.
	RotationRequest string
}

// Usable reports whether the authority can issue.
func (a *Authority) Usable() bool { return a.Exists() && a.Broken == "" }

// Issuer returns the fingerprint of the authority that issues, and when it ends: the old one, until members and clients trust the new one.
// There is none where the old one's key is gone, or its time is over, or that of the new one has not come.
func (a *Authority) Issuer(now time.Time) (fingerprint string, ends time.Time) {
	switch {
	case a.Phase != PhaseAnnounced && !now.Before(a.NotBefore):
		return a.Current, a.NotAfter
	case a.Phase != PhaseAnnounced:
		return "", time.Time{}
	case a.Previous != "" && now.Before(a.PreviousNotAfter):
		return a.Previous, a.PreviousNotAfter
	default:
		return "", time.Time{}
	}
}

// Certificate is a Secret with a certificate.
type Certificate struct {
	ObjectVersion
	Role Role
	// Broken says why the Secret cannot be used; empty where it can, or where there is none.
	Broken string
	// Bundle are the fingerprints of the trusted authorities, Issuers those of them that the certificate goes back to. Both are sorted.
	Bundle, Issuers     []string
	NotBefore, NotAfter time.Time
	RenewalDue          time.Time
	// ForeignOrUnreadable tells that a managed Secret of this name is there and not the cluster's own, or may not be read: what is in it is not known.
	ForeignOrUnreadable bool
	// CertManagerCertificate is cert-manager's Certificate, nil where there is none.
	CertManagerCertificate *unstructured.Unstructured
	// Issued tells that cert-manager calls the Request as it stands ready, and made the Secret by the issuer that is to be asked. A Secret that an
	// earlier cluster left is not issued: cert-manager replaces it at any moment.
	Issued bool
}

// IssuerFor returns the fingerprint of the authority that issues a certificate: the newest where there is nothing yet that could be kept.
func (a *Authority) IssuerFor(c *Certificate, now time.Time) string {
	issuer, _ := a.Issuer(now)
	if issuer == "" && c.IsEmpty() && !now.Before(a.NotBefore) {
		return a.Current
	}
	return issuer
}

// Usable reports whether the Secret holds a certificate that fits.
func (c *Certificate) Usable() bool { return c.Exists() && c.Broken == "" }

// IssuedBy reports whether the certificate goes back to one of the authorities: who trusts these accepts it.
func (c *Certificate) IssuedBy(authorities ...string) bool {
	return slices.ContainsFunc(c.Issuers, func(i string) bool { return slices.Contains(authorities, i) })
}

// IsEmpty reports whether there is nothing in the Secret that could be kept.
func (c *Certificate) IsEmpty() bool { return len(c.Bundle) == 0 }

// OutsideValidity reports whether nobody accepts the certificate, whoever issued it: its time is over, or has not come.
func (c *Certificate) OutsideValidity(now time.Time) bool {
	return !c.NotAfter.IsZero() && (now.Before(c.NotBefore) || !now.Before(c.NotAfter))
}

// Certificate returns the certificate of a role, or nil.
func (t *Trust) Certificate(r Role) *Certificate {
	i := slices.IndexFunc(t.Certificates, func(c Certificate) bool { return c.Role == r })
	if i < 0 {
		return nil
	}
	return &t.Certificates[i]
}

// Has reports whether a Secret of the name belongs to the certificates of this kind of traffic.
func (t *Trust) Has(secret string) bool {
	return secret == t.Authority.Name || slices.ContainsFunc(t.Certificates, func(c Certificate) bool { return c.Name == secret })
}

// AuthoritiesForNewPods returns the authorities that a member trusts which starts now, and false where that is not known. A Secret that is still to be
// made will hold those of its authority.
func (t *Trust) AuthoritiesForNewPods(traffic Traffic) ([]string, bool) {
	switch c := t.Certificate(traffic.Roles()[0]); {
	case c != nil && len(c.Bundle) > 0:
		return c.Bundle, true
	case c != nil && !c.ForeignOrUnreadable && t.Source == SourceManaged && t.Authority.Usable():
		return t.Authority.Bundle, true
	default:
		return nil, false
	}
}

// MembersNotTrusting names the members that run and were started with none of the authorities. Those of whom it is not known what they were started with are left out.
func (s *Snapshot) MembersNotTrusting(traffic Traffic, authorities ...string) []string {
	var names []string
	for i := range s.Members {
		p := s.Members[i].Pod
		if !p.IsRunning() || len(p.Authorities(traffic)) == 0 {
			continue
		}
		if !slices.ContainsFunc(p.Authorities(traffic), func(a string) bool { return slices.Contains(authorities, a) }) {
			names = append(names, s.Members[i].Name)
		}
	}
	return names
}

// MembersThatWouldReject names the members that run and would not accept the certificate from an issuer: it must not be issued yet. One that has lapsed serves
// nobody. The certificate that is shown to clients is checked by no member: it is enough that they know some authority of today's.
func (s *Snapshot) MembersThatWouldReject(t *Trust, traffic Traffic, c *Certificate, issuer string) []string {
	switch {
	case c.OutsideValidity(s.Now):
		return nil
	case c.Role == RoleServer && c.IsEmpty():
		return s.MembersNotTrusting(traffic, t.Authority.Bundle...)
	default:
		return s.MembersNotTrusting(traffic, issuer)
	}
}

// Trust returns what is known of the certificates of a kind of traffic.
func (s *Snapshot) Trust(t Traffic) *Trust {
	if t == PeerTraffic {
		return &s.PeerTrust
	}
	return &s.ClientTrust
}
