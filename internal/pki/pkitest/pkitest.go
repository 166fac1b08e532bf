// Package pkitest makes certificate authorities and certificates for tests.
package pkitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// The usages that certificates of etcd have.
var (
	ServerAndClient = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	ServerOnly      = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	ClientOnly      = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
)

// Authority issues certificates.
type Authority struct {
	// PEM is the authority's own certificate.
	PEM []byte

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	chain       []byte // what an issued certificate needs behind it
}

// Leaf says what a certificate holds. What is left out is valid: from an hour ago for a day, for servers and clients.
type Leaf struct {
	CommonName          string
	Names               []string
	IPs                 []net.IP
	Usages              []x509.ExtKeyUsage
	NotBefore, NotAfter time.Time
}

// Pair is a certificate, with its intermediate authorities, and its key in PEM.
type Pair struct {
	Certificate, Key []byte
}

// NewAuthority makes a root authority that is valid for ten years around now.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	now := time.Now()
	return RootAuthority(t, name, now.AddDate(-5, 0, 0), now.AddDate(5, 0, 0))
}

// RootAuthority makes a root authority with a validity of the caller's.
func RootAuthority(t testing.TB, name string, notBefore, notAfter time.Time) *Authority {
	t.Helper()
	key := newKey(t)
	template := authority(t, name, notBefore, notAfter)
	return newAuthority(t, sign(t, template, template, key, key), key, nil)
}

// Intermediate makes an authority below a, as long valid.
func (a *Authority) Intermediate(t testing.TB, name string) *Authority {
	t.Helper()
	key := newKey(t)
	der := sign(t, authority(t, name, a.certificate.NotBefore, a.certificate.NotAfter), a.certificate, key, a.key)
	return newAuthority(t, der, key, append(encode("CERTIFICATE", der), a.chain...))
}

// Issue makes a certificate.
func (a *Authority) Issue(t testing.TB, leaf Leaf) Pair {
	t.Helper()
	if leaf.NotBefore.IsZero() {
		leaf.NotBefore = time.Now().Add(-time.Hour)
	}
	if leaf.NotAfter.IsZero() {
		leaf.NotAfter = leaf.NotBefore.Add(25 * time.Hour)
	}
	if leaf.Usages == nil {
		leaf.Usages = ServerAndClient
	}
	key := newKey(t)
	der := sign(t, &x509.Certificate{
		SerialNumber: serial(t),
		Subject:      pkix.Name{CommonName: leaf.CommonName},
		DNSNames:     leaf.Names,
		IPAddresses:  leaf.IPs,
		NotBefore:    leaf.NotBefore,
		NotAfter:     leaf.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  leaf.Usages,
	}, a.certificate, key, a.key)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	return Pair{
		Certificate: append(encode("CERTIFICATE", der), a.chain...),
		Key:         encode("PRIVATE KEY", encoded),
	}
}

func authority(t testing.TB, name string, notBefore, notAfter time.Time) *x509.Certificate {
	t.Helper()
	return &x509.Certificate{
		SerialNumber:          serial(t),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
}

func newAuthority(t testing.TB, der []byte, key *ecdsa.PrivateKey, chain []byte) *Authority {
	t.Helper()
	certificate, err := x509.ParseCertificate(der)
	check(t, err)
	return &Authority{PEM: encode("CERTIFICATE", der), certificate: certificate, key: key, chain: chain}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	check(t, err)
	return n
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	check(t, err)
	return der
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
