package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"time"
)

// TLSKeys are the keys of a kubernetes.io/tls Secret, and of cert-manager's.
var TLSKeys = Keys{"tls.crt", "tls.key", "ca.crt"}

// PreviousKeys are the keys of the former authority in an authority's Secret, while that one still issues.
var PreviousKeys = Keys{"previous.crt", "previous.key", "ca.crt"}

// A certificate is valid from a little before now on, because other clocks may be behind: by maxClockSkew, and by at
// most one part in skewFraction of its lifetime.
const (
	maxClockSkew = 5 * time.Minute
	skewFraction = 20
)

// Authority issues certificates.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Format prints no key, whatever the verb.
func (*Authority) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "certificate authority") }

// NewAuthority makes a root authority that is valid from now on. Its subject is the name and a random part, so that a
// rotated authority never has the subject of the former one.
func NewAuthority(name string, now time.Time, lifetime time.Duration) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of an authority: %w", err)
	}
	number, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          number,
		Subject:               pkix.Name{CommonName: name + " " + number.Text(36)[:8]},
		NotBefore:             validFrom(now, lifetime),
		NotAfter:              now.Add(lifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	certificate, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("making an authority: %w", err)
	}
	return &Authority{certificate: certificate, key: key}, nil
}

// ReadAuthority reads an authority that PEM wrote. The error contains nothing of the key.
func ReadAuthority(certificate, key []byte) (*Authority, error) {
	chain, err := parseCertificates(certificate)
	if err != nil {
		return nil, fmt.Errorf("reading an authority: the certificate %w", err)
	}
	parsed, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("reading an authority: the key %w", err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !fits(private, chain[0]) || !chain[0].IsCA {
		return nil, errors.New("reading an authority: the key does not belong to the authority's certificate")
	}
	return &Authority{certificate: chain[0], key: private}, nil
}

// PEM returns the authority's certificate and key.
func (a *Authority) PEM() (certificate, key []byte, err error) {
	key, err = encodeKey(a.key)
	return encodeCertificate(a.certificate), key, err
}

// Request is the content of a certificate that is to be issued.
type Request struct {
	CommonName string
	Names      []string
	Addresses  []net.IP
	Use        Use
}

// Issue makes a certificate that is valid from now on, for a lifetime or until its authority expires.
// It fails if the authority has expired. Material.Authorities is the issuer alone.
func (a *Authority) Issue(request Request, now time.Time, lifetime time.Duration) (Material, error) {
	if ends := a.certificate.NotAfter; !now.Before(ends) {
		return Material{}, fmt.Errorf("issuing a certificate: the authority expired at %s", formatTime(ends))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Material{}, fmt.Errorf("making the key of a certificate: %w", err)
	}
	number, err := serialNumber()
	if err != nil {
		return Material{}, err
	}
	template := &x509.Certificate{
		SerialNumber: number,
		Subject:      pkix.Name{CommonName: request.CommonName},
		DNSNames:     request.Names,
		IPAddresses:  request.Addresses,
		NotBefore:    later(validFrom(now, lifetime), a.certificate.NotBefore),
		NotAfter:     earlier(now.Add(lifetime), a.certificate.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	for _, usage := range request.Use.usages() {
		template.ExtKeyUsage = append(template.ExtKeyUsage, usage.key)
	}
	certificate, err := sign(template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return Material{}, fmt.Errorf("issuing a certificate: %w", err)
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return Material{}, err
	}
	return Material{Certificate: encodeCertificate(certificate), Key: encoded, Authorities: encodeCertificate(a.certificate)}, nil
}

// RenewalDue returns when two thirds of a lifetime are over.
func RenewalDue(notBefore, notAfter time.Time) time.Time {
	return notBefore.Add(notAfter.Sub(notBefore) / 3 * 2)
}

// Identity identifies an authority's certificate.
type Identity struct {
	// Fingerprint differs for different certificates.
	Fingerprint         string
	NotBefore, NotAfter time.Time
}

// Identities reads all certificates of PEM text, in their order. It returns at least one, or an error.
func Identities(text []byte) ([]Identity, error) {
	certificates, err := parseCertificates(text)
	if err != nil {
		return nil, err
	}
	list := make([]Identity, len(certificates))
	for i, c := range certificates {
		list[i] = Identity{Fingerprint: fingerprint(c), NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	}
	return list, nil
}

// Bundle joins the certificates of PEM texts, each once, in their order. It skips expired certificates, and texts that
// cannot be read.
func Bundle(now time.Time, texts ...[]byte) []byte {
	var bundle []byte
	var have []string
	for _, text := range texts {
		certificates, err := parseCertificates(text)
		if err != nil {
			continue
		}
		for _, c := range certificates {
			if known := fingerprint(c); now.Before(c.NotAfter) && !slices.Contains(have, known) {
				have = append(have, known)
				bundle = append(bundle, encodeCertificate(c)...)
			}
		}
	}
	return bundle
}

// fingerprint identifies a certificate within a cluster. It is short because every StatefulSet stores it.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:8])
}

func validFrom(now time.Time, lifetime time.Duration) time.Time {
	return now.Add(-min(maxClockSkew, lifetime/skewFraction))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// serialNumber returns a random number of full length.
func serialNumber() (*big.Int, error) {
	top := new(big.Int).Lsh(big.NewInt(1), 126)
	number, err := rand.Int(rand.Reader, top)
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	return number.Add(number, top), nil
}

func sign(template, parent *x509.Certificate, key *ecdsa.PublicKey, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func encodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
