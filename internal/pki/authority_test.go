package pki

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newAuthority(t *testing.T, now time.Time, lifetime time.Duration) *Authority {
	t.Helper()
	a, err := NewAuthority("prod peers", now, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, request Request, now time.Time, lifetime time.Duration) Material {
	t.Helper()
	m, err := a.Issue(request, now, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestIssuesACertificateThatPassesTheChecksOfItsUse(t *testing.T) {
	a := newAuthority(t, start, 1000*time.Hour)
	for use, others := range map[Use][]Use{Peer: nil, Server: nil, Client: {Peer, Server}} {
		m := issue(t, a, Request{CommonName: "x", Names: []string{"*.prod.ns.svc", "localhost"}, Addresses: []net.IP{net.IPv6loopback}, Use: use}, start, 90*time.Hour)
		report, err := Check(m, use, []string{host, "localhost", "::1"}, start)
		if err != nil {
			t.Errorf("use %d: %v", use, err)
		}
		if !slices.Equal(report.Authorities, report.Issuers) {
			t.Errorf("use %d: issued by %q of %q", use, report.Issuers, report.Authorities)
		}
		if end := start.Add(90 * time.Hour); !report.NotAfter.Equal(end) || !report.NotBefore.Before(start) || !report.RenewalDue.After(start) {
			t.Errorf("use %d: %+v", use, report)
		}
		for _, other := range others {
			if _, err := Check(m, other, nil, start); err == nil {
				t.Errorf("a certificate of use %d passes for %d", use, other)
			}
		}
	}
}

func TestIssuesNoCertificateThatOutlivesItsAuthority(t *testing.T) {
	a := newAuthority(t, start, 10*time.Hour)
	m := issue(t, a, Request{Use: Client}, start.Add(5*time.Hour), 90*time.Hour)
	report, err := Check(m, Client, nil, start.Add(5*time.Hour))
	if err != nil || !report.NotAfter.Equal(start.Add(10*time.Hour)) {
		t.Fatalf("got %+v, %v", report, err)
	}
}

func TestAnAuthorityThatHasExpiredIssuesNothing(t *testing.T) {
	a := newAuthority(t, start, 10*time.Hour)
	for _, now := range []time.Time{start.Add(10 * time.Hour), start.Add(20 * time.Hour)} {
		if _, err := a.Issue(Request{Use: Client}, now, time.Hour); err == nil || !strings.Contains(err.Error(), "the authority expired at ") {
			t.Errorf("at %s: %v", now, err)
		}
	}
}

func TestAShortLifeIsNotDueForRenewalAtOnce(t *testing.T) {
	a := newAuthority(t, start, time.Hour)
	for _, lifetime := range []time.Duration{10 * time.Second, time.Minute, 20 * time.Minute} {
		report, err := Check(issue(t, a, Request{Use: Client}, start, lifetime), Client, nil, start)
		if err != nil {
			t.Fatal(err)
		}
		if left := report.RenewalDue.Sub(start); left < lifetime/2 || left > lifetime*2/3 {
			t.Errorf("with a life of %v renewal is due after %v", lifetime, left)
		}
	}
}

func TestAnAuthorityIsReadBackAndIssuesOn(t *testing.T) {
	a := newAuthority(t, start, 100*time.Hour)
	certificate, key, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ReadAuthority(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	m := issue(t, back, Request{Use: Client}, start, time.Hour)
	m.Authorities = certificate
	if _, err := Check(m, Client, nil, start); err != nil {
		t.Error(err)
	}
	other := newAuthority(t, start, 100*time.Hour)
	otherCertificate, otherKey, err := other.PEM()
	if err != nil {
		t.Fatal(err)
	}
	leaf := issue(t, a, Request{Use: Client}, start, time.Hour)
	for what, pair := range map[string][2][]byte{
		"another's key":     {certificate, otherKey},
		"no key":            {certificate, nil},
		"no certificate":    {nil, otherKey},
		"a garbled key":     {otherCertificate, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
		"a leaf's own pair": {leaf.Certificate, leaf.Key},
	} {
		_, err := ReadAuthority(pair[0], pair[1])
		if err == nil || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestARotatedAuthorityHasAnotherSubjectAndDoesNotVouchForTheOldOnesCertificates(t *testing.T) {
	old, next := newAuthority(t, start, time.Hour), newAuthority(t, start, time.Hour)
	if old.certificate.Subject.String() == next.certificate.Subject.String() {
		t.Errorf("both are %s", old.certificate.Subject)
	}
	m := issue(t, old, Request{Use: Peer, Names: []string{host}}, start, time.Hour)
	oldPEM := m.Authorities
	m.Authorities = encodeCertificate(next.certificate)
	if _, err := Check(m, Peer, []string{host}, start); err == nil {
		t.Error("the next authority vouches for the old one's certificate")
	}
	m.Authorities = Bundle(start, encodeCertificate(next.certificate), oldPEM)
	report, err := Check(m, Peer, []string{host}, start)
	if err != nil || !slices.Equal(report.Issuers, []string{fingerprint(old.certificate)}) || len(report.Authorities) != 2 {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestEveryAuthorityThatACertificateGoesBackToIsAnIssuer(t *testing.T) {
	old, other := newAuthority(t, start, 2*time.Hour), newAuthority(t, start, 9*time.Hour)
	template := *old.certificate
	template.SerialNumber, template.NotAfter = other.certificate.SerialNumber, start.Add(9*time.Hour)
	renewed, err := sign(&template, &template, &old.key.PublicKey, old.key)
	if err != nil {
		t.Fatal(err)
	}
	m := issue(t, &Authority{renewed, old.key}, Request{Use: Peer, Names: []string{host}}, start, 4*time.Hour)
	pems := [][]byte{encodeCertificate(old.certificate), encodeCertificate(renewed), encodeCertificate(other.certificate)}
	both := []string{fingerprint(old.certificate), fingerprint(renewed)}
	slices.Sort(both)
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
		m.Authorities = slices.Concat(pems[order[0]], pems[order[1]], pems[order[2]])
		for now, want := range map[time.Time][]string{start: both, start.Add(3 * time.Hour): {fingerprint(renewed)}, start.Add(9 * time.Hour): {fingerprint(renewed)}} {
			if report, _ := Check(m, Peer, nil, now); !slices.Equal(report.Issuers, want) {
				t.Errorf("at %s in the order %v: %v, want %v", now, order, report.Issuers, want)
			}
		}
	}
}

func TestABundleHoldsEachLivingAuthorityOnce(t *testing.T) {
	a, b := newAuthority(t, start, 2*time.Hour), newAuthority(t, start, time.Hour)
	pa, pb := encodeCertificate(a.certificate), encodeCertificate(b.certificate)
	prints := func(now time.Time) []string {
		list, err := Identities(Bundle(now, pa, []byte("no certificate"), slices.Concat(pb, pa)))
		if err != nil {
			t.Fatal(err)
		}
		var prints []string
		for _, i := range list {
			prints = append(prints, i.Fingerprint)
		}
		return prints
	}
	if have := prints(start); !slices.Equal(have, []string{fingerprint(a.certificate), fingerprint(b.certificate)}) {
		t.Errorf("got %v", have)
	}
	if have := prints(start.Add(90 * time.Minute)); !slices.Equal(have, []string{fingerprint(a.certificate)}) {
		t.Errorf("after one expired: %v", have)
	}
}

func TestNoFormatVerbPrintsAKey(t *testing.T) {
	a := newAuthority(t, start, time.Hour)
	m := issue(t, a, Request{Use: Client}, start, time.Hour)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, value := range []any{a, m, &m} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, "PRIVATE") || len(text) > 100 {
				t.Errorf("%s prints %.100s", verb, text)
			}
		}
	}
}
