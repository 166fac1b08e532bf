package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

// hugeAuthority returns the Secret of a certificate whose authority has an RSA modulus of so many bits.
// The certificate's signature has the length that such a key demands, so that crypto/rsa would begin to compute.
func hugeAuthority(t *testing.T, bits int) map[string][]byte {
	t.Helper()
	modulus := make([]byte, bits/8)
	_, err := rand.Read(modulus)
	must(t, err)
	modulus[0] |= 0x80
	modulus[len(modulus)-1] |= 1
	huge := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	authority := template("huge")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authorityDER := create(t, authority, authority, huge, signer)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := template("leaf")
	leaf.ExtKeyUsage = pkitest.ClientOnly
	leafDER := create(t, leaf, authority, &key.PublicKey, signer)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return map[string][]byte{
		"tls.crt": encode("CERTIFICATE", withSignature(t, leafDER, make([]byte, len(modulus)))),
		"tls.key": encode("PRIVATE KEY", encoded),
		"ca.crt":  encode("CERTIFICATE", authorityDER),
	}
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func create(t *testing.T, template, parent *x509.Certificate, public, signer any) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	must(t, err)
	return der
}

// withSignature replaces the signature of a certificate.
func withSignature(t *testing.T, der, signature []byte) []byte {
	t.Helper()
	var parts struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	_, err := asn1.Unmarshal(der, &parts)
	must(t, err)
	signature[len(signature)-1] = 2
	parts.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err = asn1.Marshal(parts)
	must(t, err)
	return der
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within fails a test whose call computes with a huge number, which would take minutes.
func within(t *testing.T, limit time.Duration, call func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		t.Fatalf("no answer within %s: it computes with a number that should have been refused", limit)
		return nil
	}
}

func TestRefusesAHugeRSAKeyBeforeItVerifiesASignature(t *testing.T) {
	for _, test := range []struct {
		bits int
		want string
	}{
		{400_000, "ca.crt has "}, // above 64 KiB of PEM
		{300_000, "ca.crt has an RSA key of 300000 bits, and the limit is 8192: use a smaller key"},
		{8200, "ca.crt has an RSA key of 8200 bits, and the limit is 8192: use a smaller key"},
	} {
		t.Run(fmt.Sprint(test.bits), func(t *testing.T) {
			data := hugeAuthority(t, test.bits)
			material, err := TLSKeys.Material(data)
			if err == nil {
				t.Error("Material accepts the Secret")
			} else if !strings.Contains(err.Error(), test.want) {
				t.Errorf("Material says %q, want %q", err, test.want)
			}
			err = within(t, 20*time.Second, func() error { _, err := Check(material, Client, nil, time.Now()); return err })
			if err == nil || !strings.Contains(err.Error(), "limit is") {
				t.Errorf("Check says %v, want a limit", err)
			}
			if err := within(t, 20*time.Second, func() error { return CheckTrust(material, material, time.Now()) }); err == nil {
				t.Error("CheckTrust accepts the Secret")
			}
			for what, call := range map[string]func() error{
				"ReadAuthority": func() error { _, err := ReadAuthority(data["ca.crt"], data["tls.key"]); return err },
				"Identities":    func() error { _, err := Identities(data["ca.crt"]); return err },
			} {
				var limit *limitError
				if err := within(t, 20*time.Second, call); !errors.As(err, &limit) {
					t.Errorf("%s says %v, want a limit", what, err)
				}
			}
			if got := Bundle(time.Now(), data["ca.crt"]); len(got) > 0 {
				t.Error("Bundle takes the authority")
			}
		})
	}
}

func TestReadsEachEntryUpToItsLimit(t *testing.T) {
	good, authority := validMaterial(t, pkitest.Leaf{})
	padded := func(text []byte, size int) []byte {
		return append(bytes.Repeat([]byte("#"), size-len(text)-1), append([]byte("\n"), text...)...)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	issued := func(public any) []byte {
		signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		return encode("CERTIFICATE", create(t, template("x"), template("y"), public, signer))
	}
	pkcs1 := func(bits uint) []byte {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		der, err := asn1.Marshal(struct {
			Version                   int
			N                         *big.Int
			E                         int
			D, P, Q, DP, DQ, QInverse *big.Int
		}{0, n, 3, n, n, n, n, n, n})
		must(t, err)
		return encode("RSA PRIVATE KEY", der)
	}
	for name, test := range map[string]struct {
		key   string
		value []byte
		want  string // what the error says of the entry; empty where it is read
	}{
		"an entry of 64 KiB":                  {"ca.crt", padded(authority.PEM, 64<<10), ""},
		"an entry of 64 KiB and a byte":       {"ca.crt", padded(authority.PEM, 64<<10+1), "ca.crt has 65537 bytes, and the limit is 65536"},
		"a certificate of 64 KiB and a byte":  {"tls.crt", padded(good.Certificate, 64<<10+1), "tls.crt has 65537 bytes"},
		"a key of 64 KiB and a byte":          {"tls.key", padded(good.Key, 64<<10+1), "tls.key has 65537 bytes"},
		"a bundle of 32 certificates":         {"ca.crt", bytes.Repeat(authority.PEM, 32), ""},
		"a bundle of 33 certificates":         {"ca.crt", bytes.Repeat(authority.PEM, 33), "ca.crt has more than 32 certificates"},
		"an RSA key in the bundle":            {"ca.crt", issued(&rsaKey.PublicKey), ""},
		"P-521 in the bundle":                 {"ca.crt", issued(&p521.PublicKey), ""},
		"P-224 in the bundle":                 {"ca.crt", issued(&p224.PublicKey), "ca.crt has a key of a kind that is not supported: use RSA of at most 8192 bits"},
		"a private RSA key of 8193 bits":      {"tls.key", pkcs1(8193), "tls.key has an RSA key of 8193 bits, and the limit is 8192"},
		"a private RSA key of 40,000 bits":    {"tls.key", pkcs1(40_000), "tls.key has an RSA key of 40000 bits"},
		"a private key of another kind, huge": {"tls.key", encode("PRIVATE KEY", make([]byte, 9<<10)), "tls.key has a key of 9216 bytes, and the limit is 8192"},
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string][]byte{"tls.crt": good.Certificate, "tls.key": good.Key, "ca.crt": good.Authorities}
			data[test.key] = test.value
			err := within(t, 20*time.Second, func() error { _, err := TLSKeys.Material(data); return err })
			switch {
			case test.want == "" && err != nil:
				t.Errorf("Material says %v, want no error", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("Material says %v, want %q", err, test.want)
			}
		})
	}
}

// A chain within all limits costs the most when each intermediate may have signed each other one, with the slowest key.
func TestChecksTheMostExpensiveChainQuickly(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	middle := template("middle")
	middle.IsCA, middle.BasicConstraintsValid = true, true
	var chain, roots []byte
	var signed *x509.Certificate
	leaf := template("leaf")
	leaf.ExtKeyUsage = pkitest.ClientOnly
	chain = append(chain, encode("CERTIFICATE", create(t, leaf, middle, &key.PublicKey, key))...)
	for n := range maxCertificates {
		middle.SerialNumber = big.NewInt(int64(n + 2))
		middle.DNSNames = []string{fmt.Sprint(n)} // crypto/x509 takes certificates for equal that differ in less
		der := create(t, middle, middle, &key.PublicKey, key)
		if signed, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		if n < maxCertificates-1 {
			chain = append(chain, encode("CERTIFICATE", der)...)
		}
		roots = append(roots, encode("CERTIFICATE", der)...)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	material, err := TLSKeys.Material(map[string][]byte{"tls.crt": chain, "tls.key": encode("PRIVATE KEY", encoded), "ca.crt": roots})
	must(t, err)
	one := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if err := signed.CheckSignatureFrom(signed); err != nil {
				b.Fatal(err)
			}
		}
	}).NsPerOp()
	begin := time.Now()
	report, err := Check(material, Client, nil, time.Now())
	must(t, err)
	// crypto/x509 verifies at most 100 signatures a call. A call for each authority takes as long as 900.
	signatures := time.Since(begin).Nanoseconds() / one
	t.Logf("Check took as long as %d signatures of %d ns", signatures, one)
	if signatures > 500 {
		t.Errorf("Check takes as long as %d signatures", signatures)
	}
	if len(report.Issuers) != maxCertificates {
		t.Errorf("%d of %d authorities count as issuers", len(report.Issuers), maxCertificates)
	}
}
