// Package pki checks the certificates of the user's Secrets before members depend on them. It is pure: time is passed in.
package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Keys are the names under which a Secret holds a certificate, its key and the authorities.
type Keys struct {
	Certificate, Key, Authorities string
}

// The Secrets of a cluster.
var (
	PeerKeys     = Keys{"peer.crt", "peer.key", "peer-ca.crt"}
	ServerKeys   = Keys{"server.crt", "server.key", "server-ca.crt"}
	OperatorKeys = Keys{"etcd-client.crt", "etcd-client.key", "etcd-client-ca.crt"}
)

// Material is what a Secret holds, as PEM.
type Material struct {
	Certificate, Key, Authorities []byte
}

// String tells that there is material, and nothing of it.
func (Material) String() string { return "certificate material" }

// GoString is String, so that no format verb prints a key.
func (Material) GoString() string { return "certificate material" }

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
)

type usage struct {
	name string
	key  x509.ExtKeyUsage
}

func (u Use) usages() []usage {
	client := usage{"client", x509.ExtKeyUsageClientAuth}
	if u == Client {
		return []usage{client}
	}
	return []usage{{"server", x509.ExtKeyUsageServerAuth}, client}
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
	// Authorities is a hash of the set of authorities; their order does not matter.
	Authorities string
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
		RenewalDue:  leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3 * 2),
		Authorities: hash(authorities),
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
		problems = append(problems, fmt.Sprintf("%s is not issued by %s: add its authority there, or have it issued by one that is there",
			OperatorKeys.Certificate, ServerKeys.Authorities))
	}
	if !trusts(operator.Authorities, server.Certificate, x509.ExtKeyUsageServerAuth, now) {
		problems = append(problems, fmt.Sprintf("%s is not issued by %s: add its authority there, or have it issued by one that is there",
			ServerKeys.Certificate, OperatorKeys.Authorities))
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
	leaf := chain[0]
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
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

func hash(certificates []*x509.Certificate) string {
	var sums []string
	for _, certificate := range certificates {
		sum := sha256.Sum256(certificate.Raw)
		sums = append(sums, string(sum[:]))
	}
	slices.Sort(sums)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(sums), "")))
	return hex.EncodeToString(sum[:8])
}
