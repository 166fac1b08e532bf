// Package webhooktest creates Secrets as earlier webhooks, and OLM, left them.
package webhooktest

import (
	"time"

	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// Lifetimes of what the webhook issues.
const (
	authorityLifetime   = 10 * 365 * 24 * time.Hour
	certificateLifetime = 365 * 24 * time.Hour
)

// Secret returns the data that a webhook wrote at a time.
func Secret(names []string, at time.Time) map[string][]byte {
	authority, err := pki.NewAuthority("etcd-warden webhook", at, authorityLifetime)
	if err != nil {
		panic(err)
	}
	certificate, key, err := authority.PEM()
	if err != nil {
		panic(err)
	}
	return Reissue(map[string][]byte{"ca.crt": certificate, "ca.key": key}, names, at)
}

// Reissue returns the same data with a certificate of another time.
func Reissue(data map[string][]byte, names []string, at time.Time) map[string][]byte {
	authority, err := pki.ReadAuthority(data["ca.crt"], data["ca.key"])
	if err != nil {
		panic(err)
	}
	leaf, err := authority.Issue(pki.Request{CommonName: names[0], Names: names, Use: pki.Webhook}, at, certificateLifetime)
	if err != nil {
		panic(err)
	}
	return map[string][]byte{"ca.crt": data["ca.crt"], "ca.key": data["ca.key"], "tls.crt": leaf.Certificate, "tls.key": leaf.Key}
}

// OLMSecret returns the data that OLM wrote at a time, with another authority.
func OLMSecret(names []string, at time.Time) map[string][]byte {
	data := Secret(names, at)
	return map[string][]byte{"olmCAKey": data["ca.crt"], "tls.crt": data["tls.crt"], "tls.key": data["tls.key"]}
}
