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

// The sources of certificates. Traffic that is not encrypted has none. They are stored in intents, so none is ever
// renamed.
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

// Traffic is one of the two kinds of traffic. Each has its own authority, so that a client's certificate is never
// accepted as a peer's.
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
	// PhaseAnnounced: members and clients are told to trust the new authority. The old one still issues, if its key is
	// known.
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

// Trust is what the Secrets of one kind of traffic hold. It holds no key.
type Trust struct {
	Source Source
	// Authority is the operator's own, where the certificates are managed.
	Authority Authority
	// Certificates by role. One whose Secret does not exist, is foreign or cannot be read has only its name and role.
	Certificates []Certificate
	// CertManagerMissing tells that the certificates are cert-manager's, and that the API server knows no Certificates.
	CertManagerMissing bool
	// Mismatch says why the server's and the operator's certificates do not trust each other; empty where they do.
	Mismatch string
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

// Certificate is a Secret with a certificate.
type Certificate struct {
	ObjectVersion
	Role Role
	// Broken says why the Secret cannot be used; empty where it can, or where there is none.
	Broken string
	// Bundle are the fingerprints of the trusted authorities. Issuers are those of them that the certificate was
	// issued by, directly or through others. Both are sorted.
	Bundle, Issuers     []string
	NotBefore, NotAfter time.Time
	RenewalDue          time.Time
	// CreatedAt is when the Secret was created.
	CreatedAt time.Time
	// InvalidName tells that no Secret can have this name. The API server was not asked for it.
	InvalidName bool
	// CertManagerCertificate is cert-manager's Certificate, nil where there is none.
	CertManagerCertificate *unstructured.Unstructured
	// Issued tells that cert-manager calls its present Certificate ready, and that the Secret comes from the issuer
	// that the Certificate names. cert-manager may replace any other Secret at any moment: one of an earlier cluster,
	// for example.
	Issued bool
	// NotReady is what cert-manager says about a Certificate that is not ready.
	NotReady string
}

// Usable reports whether the Secret holds a certificate that fits.
func (c *Certificate) Usable() bool { return c.Exists() && c.Broken == "" }

// IssuedBy reports whether one of the authorities issued the certificate. Whoever trusts that authority accepts it.
func (c *Certificate) IssuedBy(authorities ...string) bool {
	return slices.ContainsFunc(c.Issuers, func(i string) bool { return slices.Contains(authorities, i) })
}

// IsEmpty reports whether there is nothing in the Secret that could be kept.
func (c *Certificate) IsEmpty() bool { return len(c.Bundle) == 0 }

// OutsideValidity reports whether the certificate is expired or not valid yet. Then nobody accepts it, whoever issued
// it.
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

// Validity is when a certificate in a Secret, or an authority, is valid.
type Validity struct {
	Secret              string
	NotBefore, NotAfter time.Time
}

// Left returns which part of the lifetime is left; below zero once it has ended.
func (v *Validity) Left(now time.Time) float64 {
	return float64(v.NotAfter.Sub(now)) / float64(v.NotAfter.Sub(v.NotBefore))
}

// Validities returns those of all certificates that could be read, and of the newest managed authority.
func (t *Trust) Validities() []Validity {
	all := []Validity{{Secret: t.Authority.Name, NotBefore: t.Authority.NotBefore, NotAfter: t.Authority.NotAfter}}
	for i := range t.Certificates {
		c := &t.Certificates[i]
		all = append(all, Validity{Secret: c.Name, NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	return slices.DeleteFunc(all, func(v Validity) bool { return !v.NotAfter.After(v.NotBefore) })
}

// Trust returns what the Secrets of a kind of traffic hold.
func (s *Snapshot) Trust(t Traffic) *Trust {
	if t == PeerTraffic {
		return &s.PeerTrust
	}
	return &s.ClientTrust
}
