// Package pki makes certificate authorities and certificates, and checks those of Secrets before members depend on them.
// It knows no Kubernetes and no clock: time is passed in.
package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Keys are the names under which a Secret holds a certificate, its key and the authorities.
type Keys struct {
	Certificate, Key, Authorities string
}

// The Secrets of a cluster of the original etcd operator.
var (
	PeerKeys     = Keys{"peer.crt", "peer.key", "peer-ca.crt"}
	ServerKeys   = Keys{"server.crt", "server.key", "server-ca.crt"}
	OperatorKeys = Keys{"etcd-client.crt", "etcd-client.key", "etcd-client-ca.crt"}
)

// Material is what a Secret holds, as PEM.
type Material struct {
	Certificate, Key, Authorities []byte
}

// Format tells that there is material, and nothing of it, whatever the verb.
func (Material) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "certificate material") }

// Material takes the material out of a Secret's data; what is missing is named.
func (k Keys) Material(data map[string][]byte) (Material, error) {
	var problems Problems
	for _, key := range []string{k.Certificate, k.Key, k.Authorities} {
		if len(data[key]) == 0 {
			problems = append(problems, key+" is missing: add it")
		}
	}
	return Material{data[k.Certificate], data[k.Key], data[k.Authorities]}, problems.orNil()
}

// Use is what a certificate is needed for.
type Use int

// The uses of certificates. Members show their server certificate as clients too.
const (
	Peer Use = iota
	Server
	Client
	// Webhook is shown by the operator to the API server.
	Webhook
)

type usage struct {
	name string
	key  x509.ExtKeyUsage
}

func (u Use) usages() []usage {
	server, client := usage{"server", x509.ExtKeyUsageServerAuth}, usage{"client", x509.ExtKeyUsageClientAuth}
	switch u {
	case Client:
		return []usage{client}
	case Webhook:
		return []usage{server}
	case Peer, Server:
		return []usage{server, client}
	}
	panic("unknown use of a certificate")
}

// Problems say what is wrong with a Secret and what to do, one sentence each.
type Problems []string

func (p Problems) Error() string { return strings.Join(p, "; ") }

func (p Problems) orNil() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Report is what there is to know of a usable certificate.
type Report struct {
	NotBefore, NotAfter time.Time
	// RenewalDue is when two thirds of the certificate's life are over.
	RenewalDue time.Time
	// Authorities are the fingerprints of the set of authorities, sorted: their order does not matter.
	Authorities []string
	// Issuers are the fingerprints of those of the set that the certificate goes back to: an authority that was renewed with its key is there twice.
	Issuers []string
}

// Check reports on a certificate, or returns the Problems that keep it from being used under the names.
// The report of a certificate with problems holds what could be read.
func Check(material Material, use Use, names []string, now time.Time) (Report, error) {
	var report Report
	chain, err := parse(material.Certificate)
	if err != nil {
		return report, Problems{"the certificate " + err.Error() + ": write the certificate in PEM"}
	}
	authorities, err := parse(material.Authorities)
	if err != nil {
		return report, Problems{"the CA bundle " + err.Error() + ": write the authorities' certificates in PEM"}
	}
	leaf := chain[0]
	report = Report{
		NotBefore:   leaf.NotBefore,
		NotAfter:    leaf.NotAfter,
		RenewalDue:  RenewalDue(leaf.NotBefore, leaf.NotAfter),
		Authorities: fingerprints(authorities),
		Issuers:     issuers(chain, authorities, now),
	}
	var problems Problems
	problems = append(problems, checkKey(material)...)
	problems = append(problems, checkValidity(leaf, now)...)
	problems = append(problems, checkIssue(chain, authorities, use, now)...)
	problems = append(problems, checkNames(leaf, names)...)
	return report, problems.orNil()
}

// CheckTrust checks that members and the operator accept each other's certificates. Both materials are usable on their own.
func CheckTrust(server, operator Material, now time.Time) error {
	var problems Problems
	if !trusts(server.Authorities, operator.Certificate, x509.ExtKeyUsageClientAuth, now) {
		problems = append(problems, "the operator's certificate is not issued by the members' CA bundle: add its authority there, or have it issued by one that is there")
	}
	if !trusts(operator.Authorities, server.Certificate, x509.ExtKeyUsageServerAuth, now) {
		problems = append(problems, "the members' certificate is not issued by the operator's CA bundle: add its authority there, or have it issued by one that is there")
	}
	return problems.orNil()
}

func trusts(authorities, certificate []byte, usage x509.ExtKeyUsage, now time.Time) bool {
	roots, err := parse(authorities)
	if err != nil {
		return false
	}
	chain, err := parse(certificate)
	return err == nil && verify(chain, roots, usage, now) == nil
}

// parse reads all certificates of PEM text; there is at least one.
func parse(text []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("cannot be read")
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, errors.New("is not there")
	}
	return certificates, nil
}

func checkKey(material Material) Problems {
	if block, _ := pem.Decode(material.Key); block == nil {
		return Problems{"the key is not there: write the certificate's key in PEM"}
	}
	if _, err := tls.X509KeyPair(material.Certificate, material.Key); err != nil {
		return Problems{"the key does not fit the certificate, or cannot be read: write the certificate's own key, unencrypted"}
	}
	return nil
}

func checkValidity(certificate *x509.Certificate, now time.Time) Problems {
	switch {
	case now.After(certificate.NotAfter):
		return Problems{fmt.Sprintf("the certificate expired at %s: renew it", stamp(certificate.NotAfter))}
	case now.Before(certificate.NotBefore):
		return Problems{fmt.Sprintf("the certificate is not valid before %s: wait, or have it issued again", stamp(certificate.NotBefore))}
	default:
		return nil
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkIssue checks who issued a certificate and for what. The certificate's own dates are left to checkValidity.
func checkIssue(chain, authorities []*x509.Certificate, use Use, now time.Time) Problems {
	now = within(chain[0], now)
	if err := verify(chain, authorities, x509.ExtKeyUsageAny, now); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return Problems{"an authority of the certificate has expired, or is not valid yet: have the certificate issued by a valid one and put that into the CA bundle"}
		}
		return Problems{"the certificate is not issued by the CA bundle: put the authority that issued it, and no other kind of certificate, into the bundle"}
	}
	var problems Problems
	for _, usage := range use.usages() {
		if verify(chain, authorities, usage.key, now) != nil {
			problems = append(problems, fmt.Sprintf("the certificate lacks the extended key usage for %s authentication: have it issued with that usage", usage.name))
		}
	}
	return problems
}

// within returns the time of a certificate's life that is nearest to now.
func within(certificate *x509.Certificate, now time.Time) time.Time {
	return earlier(later(now, certificate.NotBefore), certificate.NotAfter)
}

func verify(chain, authorities []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         pool(authorities),
		Intermediates: pool(chain[1:]),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	return err
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, certificate := range certificates {
		p.AddCert(certificate)
	}
	return p
}

func checkNames(certificate *x509.Certificate, names []string) Problems {
	var missing []string
	for _, name := range names {
		if certificate.VerifyHostname(name) != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return Problems{fmt.Sprintf("the certificate does not fit %s: have it issued with DNS names that do", strings.Join(missing, ", "))}
}

func fingerprints(certificates []*x509.Certificate) []string {
	var prints []string
	for _, certificate := range certificates {
		prints = append(prints, fingerprint(certificate))
	}
	slices.Sort(prints)
	return slices.Compact(prints)
}

// issuers returns the fingerprints of the authorities that the chain goes back to. The certificate's own dates do not matter.
func issuers(chain, authorities []*x509.Certificate, now time.Time) []string {
	var all []*x509.Certificate
	for _, authority := range authorities {
		if verify(chain, []*x509.Certificate{authority}, x509.ExtKeyUsageAny, within(chain[0], now)) == nil {
			all = append(all, authority)
		}
	}
	return fingerprints(all)
}
