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

// The sources of certificates. It is empty where the traffic is in clear, and for Secrets with the original etcd operator's keys,
// as release 0.1.0 stored it.
const (
	SourceSecret      Source = "Secret"
	SourceManaged     Source = "Managed"
	SourceCertManager Source = "CertManager"
)

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

// Written identifies a version of an object; its UID is empty where there is none.
type Written struct {
	Name            string
	UID             types.UID
	ResourceVersion string
}

// Exists reports whether there is an object.
func (w Written) Exists() bool { return w.UID != "" }

// Trust is what is known of the certificates of one kind of traffic. It holds no key.
type Trust struct {
	Source Source
	// Authority is the operator's own, where the certificates are managed.
	Authority Authority
	// Certificates by role: all of managed ones and of cert-manager's, and of the user's Secrets those that could be read.
	Certificates []Certificate
	// Uninstalled tells that the certificates are cert-manager's, and that the API server knows no Certificates.
	Uninstalled bool
	// Lost tells that the members trust an authority that nobody has any more.
	Lost bool
}

// Authority is the Secret of a managed authority.
type Authority struct {
	Written
	// Broken says why the Secret cannot be used; empty where it can, or where there is none.
	Broken string
	// Current is the fingerprint of the newest authority, Previous that of the one before while its key is kept.
	Current, Previous string
	// Bundle are the fingerprints of the authorities to be trusted, sorted.
	Bundle     []string
	RenewalDue time.Time
	NotAfter   time.Time
	Phase      Phase
	// Since is when every Secret had followed into the phase, zero while they have not.
	Since time.Time
	// Rotation is the user's last wish to rotate that was taken up.
	Rotation string
}

// Usable reports whether the authority can issue.
func (a *Authority) Usable() bool { return a.Exists() && a.Broken == "" }

// Certificate is a Secret with a certificate.
type Certificate struct {
	Written
	Role Role
	// Broken says why the Secret cannot be used; empty where it can, or where there is none.
	Broken string
	// Issuer is the fingerprint of the authority that issued the certificate, Bundle are those of the trusted ones, sorted.
	Issuer               string
	Bundle               []string
	RenewalDue, NotAfter time.Time
	// Request is cert-manager's Certificate, nil where there is none.
	Request *unstructured.Unstructured
	// Issued tells that cert-manager calls the Request as it stands ready, and made the Secret by the issuer that is to be asked. A Secret that an
	// earlier cluster left is not issued: cert-manager replaces it at any moment.
	Issued bool
}

// Usable reports whether the Secret holds a certificate that fits.
func (c *Certificate) Usable() bool { return c.Exists() && c.Broken == "" }

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

// Mounted returns the authorities that a member trusts which starts now, and false where that is not known.
func (t *Trust) Mounted(traffic Traffic) ([]string, bool) {
	c := t.Certificate(traffic.Roles()[0])
	if c == nil || len(c.Bundle) == 0 {
		return nil, false
	}
	return c.Bundle, true
}

// Trust returns what is known of the certificates of a kind of traffic.
func (s *Snapshot) Trust(t Traffic) *Trust {
	if t == PeerTraffic {
		return &s.PeerTrust
	}
	return &s.ClientTrust
}
