package webhook

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// Keys of the Secrets beside those of pki.TLSKeys.
const (
	// authorityPrivateKey is the private key of the webhook's own authority.
	authorityPrivateKey = "ca.key"
	// olmAuthority is where OLM writes its authority.
	olmAuthority = "olmCAKey"
)

// Lifetimes of what the webhook issues. Each is renewed after two thirds of it.
const (
	authorityLifetime   = 10 * 365 * 24 * time.Hour
	certificateLifetime = 365 * 24 * time.Hour
)

// secretContent is the certificate of a Secret, and the authorities that the CRD has to name for it.
type secretContent struct {
	pki.Material
	// renewalDue is when the certificate or its authority has to be renewed, whichever is first.
	renewalDue time.Time
}

// parseSecret reads the content of the webhook's own Secret, or of OLM's.
// It keeps the bytes of the authorities as they are: OLM compares them with the CRD.
func parseSecret(data map[string][]byte, keys pki.Keys, names []string, now time.Time) (*secretContent, error) {
	material, err := keys.Material(data)
	if err != nil {
		return nil, err
	}
	report, err := pki.Check(material, pki.Webhook, names, now)
	if err != nil {
		return nil, err
	}
	identities, err := pki.Identities(material.Authorities)
	if err != nil {
		return nil, err
	}
	due := pki.RenewalDue(identities[0].NotBefore, identities[0].NotAfter)
	if report.RenewalDue.Before(due) {
		due = report.RenewalDue
	}
	return &secretContent{Material: material, renewalDue: due}, nil
}

// renewSecretData returns the data that the webhook's own Secret has to hold, and what was done to it.
// Nothing was done where the data may stay. Two steps never happen at once for a working certificate:
//
//  1. A new authority is added beside the old ones, which stay until they expire.
//  2. A new certificate is issued when the present one is due.
//
// So the API server trusts the new authority long before it sees a certificate of it.
func renewSecretData(have map[string][]byte, names []string, now time.Time) (data map[string][]byte, done string, err error) {
	data = maps.Clone(have)
	if data == nil {
		data = map[string][]byte{}
	}
	authority, err := usableAuthority(data, now)
	if err != nil {
		if authority, err = pki.NewAuthority("etcd-warden webhook", now, authorityLifetime); err != nil {
			return nil, "", err
		}
		certificate, key, err := authority.PEM()
		if err != nil {
			return nil, "", err
		}
		data[pki.TLSKeys.Authorities] = pki.Bundle(now, certificate, data[pki.TLSKeys.Authorities])
		data[authorityPrivateKey] = key
		done = "made an authority"
	}
	content, err := parseSecret(data, pki.TLSKeys, names, now)
	// A certificate that works waits for the next pass where the authority is new.
	if err == nil && (done != "" || now.Before(content.renewalDue)) {
		return data, done, nil
	}
	leaf, err := authority.Issue(pki.Request{CommonName: names[0], Names: names, Use: pki.Webhook}, now, certificateLifetime)
	if err != nil {
		return nil, "", err
	}
	data[pki.TLSKeys.Certificate], data[pki.TLSKeys.Key] = leaf.Certificate, leaf.Key
	data[pki.TLSKeys.Authorities] = pki.Bundle(now, data[pki.TLSKeys.Authorities])
	if done == "" {
		return data, "issued a certificate", nil
	}
	return data, done + " and issued a certificate", nil
}

// usableAuthority returns the newest authority. It is an error if the authority cannot issue or its renewal is due.
func usableAuthority(data map[string][]byte, now time.Time) (*pki.Authority, error) {
	authority, err := pki.ReadAuthority(data[pki.TLSKeys.Authorities], data[authorityPrivateKey])
	if err != nil {
		return nil, err
	}
	identities, err := pki.Identities(data[pki.TLSKeys.Authorities])
	if err != nil {
		return nil, err
	}
	if newest := identities[0]; !now.Before(pki.RenewalDue(newest.NotBefore, newest.NotAfter)) {
		return nil, errors.New("the renewal of the authority is due")
	}
	return authority, nil
}

// isTrustedBy reports whether a client that trusts the bundle accepts the certificate under the names.
func (c *secretContent) isTrustedBy(bundle []byte, names []string, now time.Time) bool {
	if c == nil {
		return false
	}
	material := pki.Material{Certificate: c.Certificate, Key: c.Key, Authorities: bundle}
	_, err := pki.Check(material, pki.Webhook, names, now)
	return err == nil
}

// keyPair is the certificate in the form that a TLS server needs.
func (c *secretContent) keyPair() (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the webhook's certificate: %w", err)
	}
	return &pair, nil
}
