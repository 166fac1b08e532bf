package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// What is read of a Secret. A tenant writes it, and the cost of a signature grows with the cube of an RSA key's size.
// Everything beyond these limits is refused before any signature is verified.
const (
	maxEntryBytes   = 64 << 10
	maxCertificates = 32
	maxRSABits      = 8192 // crypto/tls has the same limit
	// maxKeyBytes holds the private key of an RSA key of maxRSABits in DER, with room to spare.
	maxKeyBytes = 8 << 10
)

// limitError tells which limit an entry of a Secret exceeds, and what to do.
type limitError struct{ what, remedy string }

func (e *limitError) Error() string { return e.what + ": " + e.remedy }

// parseCertificates reads all certificates of PEM text. It returns at least one, or an error that starts with a verb.
// It is the only way in for certificates that the operator did not make in the same call.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	blocks, err := certificateBlocks(text)
	if err != nil {
		return nil, err
	}
	certificates := make([]*x509.Certificate, len(blocks))
	for i, der := range blocks {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, errors.New("cannot be read")
		}
		if err := checkPublicKey(certificate.PublicKey); err != nil {
			return nil, err
		}
		certificates[i] = certificate
	}
	return certificates, nil
}

func certificateBlocks(text []byte) ([][]byte, error) {
	if err := checkEntrySize(text); err != nil {
		return nil, err
	}
	var blocks [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if len(blocks) == maxCertificates {
			return nil, &limitError{
				fmt.Sprintf("has more than %d certificates, the limit", maxCertificates), "remove those that are not needed",
			}
		}
		blocks = append(blocks, block.Bytes)
	}
	if len(blocks) == 0 {
		return nil, errors.New("is not there")
	}
	return blocks, nil
}

func checkEntrySize(text []byte) error {
	if len(text) > maxEntryBytes {
		return &limitError{
			fmt.Sprintf("has %d bytes, and the limit is %d", len(text), maxEntryBytes), "remove what is not needed",
		}
	}
	return nil
}

func checkPublicKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return checkRSASize(key.N.BitLen())
	case *ecdsa.PublicKey:
		if bits := key.Curve.Params().BitSize; bits == 256 || bits == 384 || bits == 521 {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return &limitError{
		"has a key of a kind that is not supported", fmt.Sprintf("use RSA of at most %d bits, ECDSA P-256, P-384 or P-521, or Ed25519", maxRSABits),
	}
}

func checkRSASize(bits int) error {
	if bits > maxRSABits {
		return &limitError{fmt.Sprintf("has an RSA key of %d bits, and the limit is %d", bits, maxRSABits), "use a smaller key"}
	}
	return nil
}

var (
	errNoKey         = errors.New("is not there")
	errUnreadableKey = errors.New("cannot be read")
)

// parseKey reads the private key that crypto/tls would take of PEM text: the first block whose type says "PRIVATE KEY".
// It checks the size before it parses: crypto/x509 does arithmetic with an RSA key while it parses it.
func parseKey(text []byte) (crypto.Signer, error) {
	if err := checkEntrySize(text); err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	for block != nil && block.Type != "PRIVATE KEY" && !strings.HasSuffix(block.Type, " PRIVATE KEY") {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, errNoKey
	}
	if err := checkKeySize(block.Bytes); err != nil {
		return nil, err
	}
	key, err := parseKeyDER(block.Bytes)
	if err != nil {
		return nil, errUnreadableKey
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errUnreadableKey
	}
	if err := checkPublicKey(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

func checkKeySize(der []byte) error {
	if err := checkRSASize(rsaBits(der)); err != nil {
		return err
	}
	if len(der) > maxKeyBytes {
		return &limitError{fmt.Sprintf("has a key of %d bytes, and the limit is %d", len(der), maxKeyBytes), "use a smaller key"}
	}
	return nil
}

// rsaBits returns the size of the modulus of an RSA key in PKCS #8 or PKCS #1, and 0 for any other key.
func rsaBits(der []byte) int {
	var wrapped struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	if _, err := asn1.Unmarshal(der, &wrapped); err == nil {
		der = wrapped.Key
	}
	var key struct {
		Version int
		N       *big.Int
	}
	if _, err := asn1.Unmarshal(der, &key); err != nil {
		return 0
	}
	return key.N.BitLen()
}

// parseKeyDER tries the encodings that crypto/tls tries.
func parseKeyDER(der []byte) (any, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, nil
	}
	return x509.ParseECPrivateKey(der)
}

// certificateLimits and keyLimits check the limits of an entry alone. Check refuses text that is no PEM.
func certificateLimits(text []byte) error {
	_, err := parseCertificates(text)
	return limitOnly(err)
}

func keyLimits(text []byte) error {
	_, err := parseKey(text)
	return limitOnly(err)
}

func limitOnly(err error) error {
	var limit *limitError
	if errors.As(err, &limit) {
		return limit
	}
	return nil
}

// fits reports whether a private key is that of a certificate.
func fits(key crypto.Signer, certificate *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(certificate.PublicKey)
}
