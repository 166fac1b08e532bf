// Package webhooktest makes the Secrets that operators of another time, and OLM, leave for the webhook.
package webhooktest

import (
	"time"

	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// The lives of what the operator makes, in whole.
const (
	authorityLife   = 10 * 365 * 24 * time.Hour
	certificateLife = 365 * 24 * time.Hour
)

// Secret is the data that an operator made at a time.
func Secret(names []string, at time.Time) map[string][]byte {
	authority, err := pki.NewAuthority("etcd-warden webhook", at, authorityLife)
	if err != nil {
		panic(err)
	}
	certificate, key, err := authority.PEM()
	if err != nil {
		panic(err)
	}
	return Reissue(map[string][]byte{"ca.crt": certificate, "ca.key": key}, names, at)
}

// Reissue is the same data with a certificate of another time.
func Reissue(data map[string][]byte, names []string, at time.Time) map[string][]byte {
	authority, err := pki.ReadAuthority(data["ca.crt"], data["ca.key"])
	if err != nil {
		panic(err)
	}
	leaf, err := authority.Issue(pki.Request{CommonName: names[0], Names: names, Use: pki.Webhook}, at, certificateLife)
	if err != nil {
		panic(err)
	}
	return map[string][]byte{"ca.crt": data["ca.crt"], "ca.key": data["ca.key"], "tls.crt": leaf.Certificate, "tls.key": leaf.Key}
}

// OLMSecret is the data that OLM made at a time, with an authority of its own.
func OLMSecret(names []string, at time.Time) map[string][]byte {
	data := Secret(names, at)
	return map[string][]byte{"olmCAKey": data["ca.crt"], "tls.crt": data["tls.crt"], "tls.key": data["tls.key"]}
}
