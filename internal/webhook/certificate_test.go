package webhook

import (
	"bytes"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/etcd-warden/etcd-warden/internal/pki"
)

var (
	names = []string{"the-service.here.svc"}
	start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

func mustRenew(t *testing.T, have map[string][]byte, now time.Time) (map[string][]byte, string) {
	t.Helper()
	data, done, err := renew(have, names, now)
	if err != nil {
		t.Fatal(err)
	}
	return data, done
}

func mustRead(t *testing.T, data map[string][]byte, now time.Time) *material {
	t.Helper()
	m, err := read(data, pki.TLSKeys, names, now)
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

// TestAFreshSecretIsLeftAlone also shows that one operator finds nothing to do after another.
func TestAFreshSecretIsLeftAlone(t *testing.T) {
	data, done := mustRenew(t, nil, start)
	if done == "" {
		t.Fatal("nothing was made")
	}
	if !mustRead(t, data, start).trusted(data[pki.TLSKeys.Authorities], names, start) {
		t.Fatal("the certificate is not trusted")
	}
	again, done := mustRenew(t, data, start.AddDate(0, 7, 0))
	if done != "" {
		t.Errorf("somebody %s within the time", done)
	}
	for key := range data {
		if !bytes.Equal(again[key], data[key]) {
			t.Errorf("%s changed", key)
		}
	}
}

// TestThirtyYearsPassWithoutAGap looks at the Secret once a month. What is shown is always trusted by the stanza of the month before:
// so the API server needs no news in the moment of a change.
func TestThirtyYearsPassWithoutAGap(t *testing.T) {
	data, _ := mustRenew(t, nil, start)
	changes, most := map[string]int{}, 0
	for now := start; now.Before(start.AddDate(30, 0, 0)); now = now.AddDate(0, 1, 0) {
		before := data[pki.TLSKeys.Authorities]
		var done string
		data, done = mustRenew(t, data, now)
		m := mustRead(t, data, now)
		if !m.trusted(before, names, now) {
			t.Fatalf("at %s: a stanza that is a month old does not trust the certificate", now)
		}
		if !m.trusted(data[pki.TLSKeys.Authorities], names, now.AddDate(0, 3, 0)) {
			t.Fatalf("at %s: the certificate would not last three months", now)
		}
		changes[done]++
		most = max(most, authorities(t, data))
	}
	if changes["issued a certificate"] < 40 || changes["made an authority"]+changes["made an authority and issued a certificate"] != 4 {
		t.Errorf("changes in thirty years: %v", changes)
	}
	if most != 2 {
		t.Errorf("up to %d authorities were trusted at once, want 2", most)
	}
}

func TestADamagedSecretIsMadeGood(t *testing.T) {
	fresh, _ := mustRenew(t, nil, start)
	other, _ := mustRenew(t, nil, start)
	for name, damage := range map[string]func(map[string][]byte){
		"no key of the authority":        func(d map[string][]byte) { delete(d, authorityKey) },
		"another authority's key":        func(d map[string][]byte) { d[authorityKey] = other[authorityKey] },
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
			mended, done := mustRenew(t, data, start)
			if done == "" {
				t.Fatal("nothing was done")
			}
			if !mustRead(t, mended, start).trusted(mended[pki.TLSKeys.Authorities], names, start) {
				t.Error("the certificate is not trusted")
			}
			if _, done = mustRenew(t, mended, start); done != "" {
				t.Errorf("once more somebody %s", done)
			}
		})
	}
	t.Run("names of another Service", func(t *testing.T) {
		if _, done, err := renew(fresh, []string{"the-service.there.svc"}, start); err != nil || done != "issued a certificate" {
			t.Errorf("done: %q, %v", done, err)
		}
	})
}

func TestTheStanzaIsAFixpoint(t *testing.T) {
	data, _ := mustRenew(t, nil, start)
	target := apiextensionsv1.WebhookClientConfig{Service: serviceReference("here")}
	want := stanza(target, data[pki.TLSKeys.Authorities])
	other := "other"
	for have, wrong := range map[*apiextensionsv1.CustomResourceConversion]string{
		nil: "it called no webhook",
		{Strategy: apiextensionsv1.NoneConverter}: "it called no webhook",
		stanza(target, nil):                       "it named no authority",
		stanza(target, []byte("another")):         "it named another authority",
		stanza(apiextensionsv1.WebhookClientConfig{Service: serviceReference("there")}, data[pki.TLSKeys.Authorities]): "it called another webhook",
		stanza(apiextensionsv1.WebhookClientConfig{URL: &other}, data[pki.TLSKeys.Authorities]):                        "it called another webhook",
		want.DeepCopy(): "",
	} {
		if got := fault(have, want); got != wrong {
			t.Errorf("fault(%v) = %q, want %q", have, got, wrong)
		}
	}
}
