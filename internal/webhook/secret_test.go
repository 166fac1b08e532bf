package webhook

import (
	"bytes"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/pki"
)

var (
	names = []string{"the-service.here.svc"}
	start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

func mustRenew(t *testing.T, have map[string][]byte, now time.Time) (map[string][]byte, string) {
	t.Helper()
	data, done, err := renewSecretData(have, names, now)
	if err != nil {
		t.Fatal(err)
	}
	return data, done
}

func mustRead(t *testing.T, data map[string][]byte, now time.Time) *secretContent {
	t.Helper()
	m, err := parseSecret(data, pki.TLSKeys, names, now)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func authorities(t *testing.T, data map[string][]byte) int {
	t.Helper()
	list, err := pki.Identities(data[pki.TLSKeys.Authorities])
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestKeepsAFreshSecret also shows that a second replica finds nothing to do.
func TestKeepsAFreshSecret(t *testing.T) {
	data, done := mustRenew(t, nil, start)
	if done == "" {
		t.Fatal("nothing was made")
	}
	if !mustRead(t, data, start).isTrustedBy(data[pki.TLSKeys.Authorities], names, start) {
		t.Fatal("the certificate is not trusted")
	}
	again, done := mustRenew(t, data, start.AddDate(0, 7, 0))
	if done != "" {
		t.Errorf("the Secret was changed before its time: %s", done)
	}
	for key := range data {
		if !bytes.Equal(again[key], data[key]) {
			t.Errorf("%s changed", key)
		}
	}
}

// TestRenewsForThirtyYearsWithoutAGap renews the Secret once a month.
// The caBundle of the month before always trusts the certificate, so the API server may learn of a change late.
func TestRenewsForThirtyYearsWithoutAGap(t *testing.T) {
	data, _ := mustRenew(t, nil, start)
	changes, most := map[string]int{}, 0
	for now := start; now.Before(start.AddDate(30, 0, 0)); now = now.AddDate(0, 1, 0) {
		before := data[pki.TLSKeys.Authorities]
		var done string
		data, done = mustRenew(t, data, now)
		m := mustRead(t, data, now)
		if !m.isTrustedBy(before, names, now) {
			t.Fatalf("at %s: a caBundle that is a month old does not trust the certificate", now)
		}
		if !m.isTrustedBy(data[pki.TLSKeys.Authorities], names, now.AddDate(0, 3, 0)) {
			t.Fatalf("at %s: the certificate would not last three months", now)
		}
		changes[done]++
		most = max(most, authorities(t, data))
	}
	made := changes["made an authority"] + changes["made an authority and issued a certificate"]
	if changes["issued a certificate"] < 40 || made != 4 {
		t.Errorf("changes in thirty years: %v", changes)
	}
	if most != 2 {
		t.Errorf("up to %d authorities were trusted at once, want 2", most)
	}
}

func TestRepairsADamagedSecret(t *testing.T) {
	fresh, _ := mustRenew(t, nil, start)
	other, _ := mustRenew(t, nil, start)
	for name, damage := range map[string]func(map[string][]byte){
		"no key of the authority":        func(d map[string][]byte) { delete(d, authorityPrivateKey) },
		"another authority's key":        func(d map[string][]byte) { d[authorityPrivateKey] = other[authorityPrivateKey] },
		"no authorities":                 func(d map[string][]byte) { delete(d, pki.TLSKeys.Authorities) },
		"no certificate":                 func(d map[string][]byte) { delete(d, pki.TLSKeys.Certificate) },
		"the key of another certificate": func(d map[string][]byte) { d[pki.TLSKeys.Key] = other[pki.TLSKeys.Key] },
		"no text at all":                 func(d map[string][]byte) { d[pki.TLSKeys.Certificate] = []byte("none") },
		"a certificate of another authority": func(d map[string][]byte) {
			d[pki.TLSKeys.Certificate], d[pki.TLSKeys.Key] = other[pki.TLSKeys.Certificate], other[pki.TLSKeys.Key]
		},
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string][]byte{}
			for key, value := range fresh {
				data[key] = value
			}
			damage(data)
			repaired, done := mustRenew(t, data, start)
			if done == "" {
				t.Fatal("nothing was done")
			}
			if !mustRead(t, repaired, start).isTrustedBy(repaired[pki.TLSKeys.Authorities], names, start) {
				t.Error("the certificate is not trusted")
			}
			if _, done = mustRenew(t, repaired, start); done != "" {
				t.Errorf("the second pass changed it again: %s", done)
			}
		})
	}
	t.Run("names of another Service", func(t *testing.T) {
		if _, done, err := renewSecretData(fresh, []string{"the-service.there.svc"}, start); err != nil || done != "issued a certificate" {
			t.Errorf("done: %q, %v", done, err)
		}
	})
}
