// Package pki makes certificate authorities and certificates. It checks those of Secrets before members depend on them.
// It knows no Kubernetes and no clock: time is passed in.
package pki

import (
	"crypto/x509"
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

// Format prints no key, whatever the verb.
func (Material) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "certificate material") }

// Material takes the certificate, the key and the authorities out of a Secret's data.
// The error names each entry that is missing or beyond a limit.
func (k Keys) Material(data map[string][]byte) (Material, error) {
	var problems Problems
	for _, entry := range []struct {
		key   string
		check func([]byte) error
	}{{k.Certificate, certificateLimits}, {k.Key, keyLimits}, {k.Authorities, certificateLimits}} {
		if len(data[entry.key]) == 0 {
			problems = append(problems, entry.key+" is missing: add it")
		} else if err := entry.check(data[entry.key]); err != nil {
			problems = append(problems, entry.key+" "+err.Error())
		}
	}
	return Material{data[k.Certificate], data[k.Key], data[k.Authorities]}, problems.orNil()
}

// Use is the purpose of a certificate.
type Use int

// The uses of certificates. Members present their peer and server certificates as clients, too.
const (
	Peer Use = iota
	Server
	Client
	// Webhook is the operator's serving certificate, for the API server.
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

// Problems are what is wrong with a Secret. Each also says what to do.
type Problems []string

func (p Problems) Error() string { return strings.Join(p, "; ") }

func (p Problems) orNil() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Report describes a certificate.
type Report struct {
	NotBefore, NotAfter time.Time
	// RenewalDue is when two thirds of the certificate's lifetime are over.
	RenewalDue time.Time
	// Authorities are the fingerprints of the authorities in the bundle, sorted.
	Authorities []string
	// Issuers are the fingerprints of those authorities that the certificate's chain leads to. An authority that was
	// renewed with the same key counts twice.
	Issuers []string
}

// Check reports on a certificate. The error is the Problems that keep it from being used under the names.
// The report of a certificate with problems holds what could be read.
func Check(material Material, use Use, names []string, now time.Time) (Report, error) {
	var report Report
	chain, err := parseCertificates(material.Certificate)
	if err != nil {
		return report, problemOf("the certificate", err, "write the certificate in PEM")
	}
	authorities, err := parseCertificates(material.Authorities)
	if err != nil {
		return report, problemOf("the CA bundle", err, "write the authorities' certificates in PEM")
	}
	leaf := chain[0]
	verified, err := verify(chain, authorities, x509.ExtKeyUsageAny, nearestValid(leaf, now))
	report = Report{
		NotBefore:   leaf.NotBefore,
		NotAfter:    leaf.NotAfter,
		RenewalDue:  RenewalDue(leaf.NotBefore, leaf.NotAfter),
		Authorities: fingerprints(authorities),
		Issuers:     issuers(verified, chain, authorities, now),
	}
	var problems Problems
	problems = append(problems, checkKey(material, leaf)...)
	problems = append(problems, checkValidity(leaf, now)...)
	if err != nil {
		problems = append(problems, notIssued(err))
	} else {
		problems = append(problems, checkUsages(chain, authorities, use, now)...)
	}
	problems = append(problems, checkNames(leaf, names)...)
	return report, problems.orNil()
}

// problemOf says what is wrong with PEM text. A limit comes with its own remedy.
func problemOf(what string, err error, remedy string) Problems {
	var limit *limitError
	if errors.As(err, &limit) {
		return Problems{what + " " + limit.Error()}
	}
	return Problems{what + " " + err.Error() + ": " + remedy}
}

// CheckTrust checks that members and the operator accept each other's certificates. Both materials passed Check.
func CheckTrust(server, operator Material, now time.Time) error {
	var problems Problems
	if !trusts(server.Authorities, operator.Certificate, x509.ExtKeyUsageClientAuth, now) {
		problems = append(problems, "the operator's certificate is not issued by the members' CA bundle: "+
			"add its authority there, or issue the certificate by one that is there")
	}
	if !trusts(operator.Authorities, server.Certificate, x509.ExtKeyUsageServerAuth, now) {
		problems = append(problems, "the members' certificate is not issued by the operator's CA bundle: "+
			"add its authority there, or issue the certificate by one that is there")
	}
	return problems.orNil()
}

func trusts(authorities, certificate []byte, usage x509.ExtKeyUsage, now time.Time) bool {
	roots, err := parseCertificates(authorities)
	if err != nil {
		return false
	}
	chain, err := parseCertificates(certificate)
	if err != nil {
		return false
	}
	_, err = verify(chain, roots, usage, now)
	return err == nil
}

func checkKey(material Material, certificate *x509.Certificate) Problems {
	key, err := parseKey(material.Key)
	var limit *limitError
	switch {
	case errors.As(err, &limit):
		return problemOf("the key", err, "")
	case errors.Is(err, errNoKey):
		return Problems{"the key is not there: write the certificate's key in PEM"}
	case err != nil || !fits(key, certificate):
		return Problems{"the key does not fit the certificate, or cannot be read: write the key of the certificate, unencrypted"}
	default:
		return nil
	}
}

func checkValidity(certificate *x509.Certificate, now time.Time) Problems {
	switch {
	case now.After(certificate.NotAfter):
		return Problems{fmt.Sprintf("the certificate expired at %s: renew it", formatTime(certificate.NotAfter))}
	case now.Before(certificate.NotBefore):
		return Problems{fmt.Sprintf("the certificate is not valid before %s: wait, or issue it again", formatTime(certificate.NotBefore))}
	default:
		return nil
	}
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// notIssued says why no authority of the bundle vouches for a certificate.
func notIssued(err error) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return "an authority of the certificate has expired, or is not valid yet: " +
			"issue the certificate by a valid one and put that into the CA bundle"
	}
	return "the certificate is not issued by the CA bundle: " +
		"put the authority that issued it, and no other kind of certificate, into the bundle"
}

func checkUsages(chain, authorities []*x509.Certificate, use Use, now time.Time) Problems {
	var problems Problems
	for _, usage := range use.usages() {
		if _, err := verify(chain, authorities, usage.key, nearestValid(chain[0], now)); err != nil {
			problems = append(problems,
				fmt.Sprintf("the certificate lacks the extended key usage for %s authentication: issue it with that usage", usage.name))
		}
	}
	return problems
}

// nearestValid returns the time in a certificate's lifetime that is nearest to now.
// checkValidity alone judges the certificate's own dates.
func nearestValid(certificate *x509.Certificate, now time.Time) time.Time {
	return earlier(later(now, certificate.NotBefore), certificate.NotAfter)
}

// verify returns every chain from the certificate to one of the authorities.
func verify(chain, authorities []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	return chain[0].Verify(x509.VerifyOptions{
		Roots:         pool(authorities),
		Intermediates: pool(chain[1:]),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
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
	return Problems{fmt.Sprintf("the certificate does not fit %s: issue it with DNS names that do", strings.Join(missing, ", "))}
}

func fingerprints(certificates []*x509.Certificate) []string {
	var prints []string
	for _, certificate := range certificates {
		prints = append(prints, fingerprint(certificate))
	}
	slices.Sort(prints)
	return slices.Compact(prints)
}

// issuers returns the fingerprints of the authorities at which the verified chains end.
// A certificate that is in the bundle itself counts as its own issuer, beside the authorities that signed it:
// crypto/x509 looks no further than the certificate.
func issuers(verified [][]*x509.Certificate, chain, authorities []*x509.Certificate, now time.Time) []string {
	leaf := chain[0]
	others := slices.DeleteFunc(slices.Clone(authorities), leaf.Equal)
	if len(others) < len(authorities) {
		signed, _ := verify(chain, others, x509.ExtKeyUsageAny, nearestValid(leaf, now))
		verified = slices.Concat(verified, signed)
	}
	var all []*x509.Certificate
	for _, path := range verified {
		all = append(all, path[len(path)-1])
	}
	return fingerprints(all)
}
