package webhook

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// Where the Secrets keep what pki.TLSKeys does not name: the key of our authority, and the authority of OLM.
const (
	authorityKey = "ca.key"
	olmAuthority = "olmCAKey"
)

// How long what the operator makes itself is valid. Two thirds of it pass before it is renewed.
const (
	authorityLifetime   = 10 * 365 * 24 * time.Hour
	certificateLifetime = 365 * 24 * time.Hour
)

// material is a certificate and the authorities that the API server is to trust for it, as the CRD shall say it.
type material struct {
	pki.Material
	// due is when a look at the Secret is worth while again.
	due time.Time
}

// read takes the material out of a Secret of ours, or of OLM's. OLM compares the bytes of its authority: they stay as they are.
func read(data map[string][]byte, keys pki.Keys, names []string, now time.Time) (*material, error) {
	found, err := keys.Material(data)
	if err != nil {
		return nil, err
	}
	report, err := pki.Check(found, pki.Webhook, names, now)
	if err != nil {
		return nil, err
	}
	identities, err := pki.Identities(found.Authorities)
	if err != nil {
		return nil, err
	}
	due := pki.RenewalDue(identities[0].NotBefore, identities[0].NotAfter)
	if report.RenewalDue.Before(due) {
		due = report.RenewalDue
	}
	return &material{Material: found, due: due}, nil
}

// renew returns what the Secret shall hold, and what was done to it, or nothing if it may stay as it is.
// A new authority stands beside the old ones until these expire; the certificate stays until it is due itself: so the API server
// has long trusted the new authority when a certificate of it is shown.
func renew(have map[string][]byte, names []string, now time.Time) (data map[string][]byte, done string, err error) {
	data = maps.Clone(have)
	if data == nil {
		data = map[string][]byte{}
	}
	authority, err := readAuthority(data, now)
	if err != nil {
		if authority, err = pki.NewAuthority("etcd-warden webhook", now, authorityLifetime); err != nil {
			return nil, "", err
		}
		certificate, key, err := authority.PEM()
		if err != nil {
			return nil, "", err
		}
		data[pki.TLSKeys.Authorities], data[authorityKey] = pki.Bundle(now, certificate, data[pki.TLSKeys.Authorities]), key
		done = "made an authority"
	}
	m, err := read(data, pki.TLSKeys, names, now)
	if err == nil && (done != "" || now.Before(m.due)) { // of a new authority nobody knows yet: what is due waits for the next look
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

// readAuthority returns the newest authority, unless it cannot be used or its renewal is due.
func readAuthority(data map[string][]byte, now time.Time) (*pki.Authority, error) {
	authority, err := pki.ReadAuthority(data[pki.TLSKeys.Authorities], data[authorityKey])
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

// trusted reports whether a client that trusts the bundle accepts the certificate under the names.
func (m *material) trusted(bundle []byte, names []string, now time.Time) bool {
	if m == nil {
		return false
	}
	_, err := pki.Check(pki.Material{Certificate: m.Certificate, Key: m.Key, Authorities: bundle}, pki.Webhook, names, now)
	return err == nil
}

// pair is the certificate as a server needs it.
func (m *material) pair() (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(m.Certificate, m.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the webhook's certificate: %w", err)
	}
	return &pair, nil
}
