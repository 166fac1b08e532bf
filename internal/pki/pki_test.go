package pki

import (
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

const host = "prod-0-0.prod.ns.svc"

var serverNames = []string{host, "prod-client.ns.svc", "localhost"}

// validMaterial returns a Secret without a fault, and its authority.
func validMaterial(t *testing.T, leaf pkitest.Leaf) (Material, *pkitest.Authority) {
	t.Helper()
	authority := pkitest.NewAuthority(t, "authority")
	if leaf.Names == nil {
		leaf.Names = []string{"*.prod.ns.svc", "prod-client.ns.svc", "localhost"}
	}
	pair := authority.Issue(t, leaf)
	return Material{pair.Certificate, pair.Key, authority.PEM}, authority
}

func TestCheckTellsWhatIsWrongAndWhatToDo(t *testing.T) {
	now := time.Now()
	other := pkitest.NewAuthority(t, "other")
	otherPair := other.Issue(t, pkitest.Leaf{})
	for _, test := range []struct {
		name   string
		leaf   pkitest.Leaf
		change func(*Material)
		use    Use
		names  []string
		want   []string // parts of the sentences, in order; none for a sound Secret
	}{
		{name: "a sound peer Secret", use: Peer, names: []string{host}},
		{name: "a sound server Secret", use: Server, names: serverNames},
		{name: "a sound operator Secret", use: Client, leaf: pkitest.Leaf{CommonName: "root", Usages: pkitest.ClientOnly}},
		{name: "no certificate", change: func(m *Material) { m.Certificate = []byte("hello") }, want: []string{"the certificate is not there: write"}},
		{name: "a key in the certificate's place", change: func(m *Material) { m.Certificate = m.Key }, want: []string{"the certificate is not there: write"}},
		{name: "a garbled certificate", change: func(m *Material) {
			m.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("garbled")})
		}, want: []string{"the certificate cannot be read: write"}},
		{name: "no authority", change: func(m *Material) { m.Authorities = nil }, want: []string{"the CA bundle is not there: write"}},
		{name: "no key", change: func(m *Material) { m.Key = []byte("hello") }, want: []string{"the key is not there: write"}},
		{name: "another certificate's key", change: func(m *Material) { m.Key = otherPair.Key }, want: []string{"the key does not fit the certificate"}},
		{name: "an expired certificate", leaf: pkitest.Leaf{NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-time.Hour)},
			want: []string{"the certificate expired at " + formatTime(now.Add(-time.Hour))}},
		{name: "a certificate from the future", leaf: pkitest.Leaf{NotBefore: now.Add(time.Hour)},
			want: []string{"the certificate is not valid before " + formatTime(now.Add(time.Hour))}},
		{name: "another authority", change: func(m *Material) { m.Authorities = other.PEM }, want: []string{"not issued by the CA bundle: put"}},
		{name: "the certificate as its own authority", change: func(m *Material) { m.Authorities = otherPair.Certificate }, want: []string{"not issued by the CA bundle: put"}},
		{name: "a peer that cannot be a client", use: Peer, leaf: pkitest.Leaf{Usages: pkitest.ServerOnly}, want: []string{"usage for client authentication: issue"}},
		{name: "a peer that cannot be a server", use: Peer, leaf: pkitest.Leaf{Usages: pkitest.ClientOnly}, want: []string{"usage for server authentication: issue"}},
		{name: "a server that cannot be a client", use: Server, leaf: pkitest.Leaf{Usages: pkitest.ServerOnly}, want: []string{"usage for client authentication: issue"}},
		{name: "an operator that can only be a server", use: Client, leaf: pkitest.Leaf{Usages: pkitest.ServerOnly}, want: []string{"usage for client authentication: issue"}},
		{name: "names that do not fit", use: Server, leaf: pkitest.Leaf{Names: []string{"*.prod.ns.svc"}}, names: serverNames,
			want: []string{"does not fit prod-client.ns.svc, localhost: issue"}},
		{name: "several faults at once", use: Server, leaf: pkitest.Leaf{Usages: pkitest.ClientOnly, Names: []string{"a"}},
			change: func(m *Material) { m.Key = nil }, names: []string{host},
			want: []string{"the key is not there", "server authentication", "does not fit " + host}},
	} {
		t.Run(test.name, func(t *testing.T) {
			material, _ := validMaterial(t, test.leaf)
			if test.change != nil {
				test.change(&material)
			}
			_, err := Check(material, test.use, test.names, now)
			var problems Problems
			errors.As(err, &problems)
			if len(problems) != len(test.want) {
				t.Fatalf("problems are %q, want %q", problems, test.want)
			}
			for i, part := range test.want {
				if !strings.Contains(problems[i], part) {
					t.Errorf("problem %d is %q, want %q", i, problems[i], part)
				}
			}
			if err != nil && strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("a problem shows the key: %v", err)
			}
		})
	}
}

func TestCheckTellsAnExpiredAuthorityFromAnExpiredCertificate(t *testing.T) {
	now := time.Now()
	authority := pkitest.RootAuthority(t, "old", now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0))
	pair := authority.Issue(t, pkitest.Leaf{})
	_, err := Check(Material{pair.Certificate, pair.Key, authority.PEM}, Client, nil, now)
	if err == nil || !strings.HasPrefix(err.Error(), "an authority of the certificate has expired") {
		t.Fatalf("got %v", err)
	}
}

func TestCheckFollowsIntermediateAuthorities(t *testing.T) {
	root := pkitest.NewAuthority(t, "root")
	pair := root.Intermediate(t, "middle").Issue(t, pkitest.Leaf{Names: []string{host}})
	if _, err := Check(Material{pair.Certificate, pair.Key, root.PEM}, Peer, []string{host}, time.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestTheReportGivesTheDatesAndWhenTwoThirdsOfTheLifeAreOver(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	material, _ := validMaterial(t, pkitest.Leaf{NotBefore: start, NotAfter: start.Add(90 * time.Hour)})
	report, err := Check(material, Peer, nil, start.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !report.NotBefore.Equal(start) || !report.NotAfter.Equal(start.Add(90*time.Hour)) || !report.RenewalDue.Equal(start.Add(60*time.Hour)) {
		t.Fatalf("got %+v", report)
	}
}

func TestTheFingerprintsOfTheAuthoritiesFollowTheSet(t *testing.T) {
	material, authority := validMaterial(t, pkitest.Leaf{})
	other := pkitest.NewAuthority(t, "other")
	of := func(bundles ...[]byte) string {
		material.Authorities = slices.Concat(bundles...)
		report, err := Check(material, Peer, nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(report.Authorities, ",")
	}
	both := of(authority.PEM, other.PEM)
	if both != of(other.PEM, authority.PEM) {
		t.Error("the order changes them")
	}
	if both != of(other.PEM, authority.PEM, other.PEM) {
		t.Error("a repeated authority changes them")
	}
	if both == of(authority.PEM) {
		t.Error("an authority more does not change them")
	}
}

func TestCheckTrustNamesTheSideThatIsNotTrusted(t *testing.T) {
	server, serverAuthority := validMaterial(t, pkitest.Leaf{})
	operator, operatorAuthority := validMaterial(t, pkitest.Leaf{CommonName: "root", Usages: pkitest.ClientOnly})
	exchange := func(serverTrusts, operatorTrusts *pkitest.Authority) error {
		server.Authorities, operator.Authorities = serverTrusts.PEM, operatorTrusts.PEM
		return CheckTrust(server, operator, time.Now())
	}
	if err := exchange(operatorAuthority, serverAuthority); err != nil {
		t.Errorf("both trust each other: %v", err)
	}
	if err := exchange(serverAuthority, serverAuthority); err == nil || !strings.HasPrefix(err.Error(), "the operator's certificate is not issued by the members' CA bundle: ") {
		t.Errorf("the members do not trust the operator: %v", err)
	}
	if err := exchange(operatorAuthority, operatorAuthority); err == nil || !strings.HasPrefix(err.Error(), "the members' certificate is not issued by the operator's CA bundle: ") {
		t.Errorf("the operator does not trust the members: %v", err)
	}
}

func TestMaterialNamesWhatTheSecretLacks(t *testing.T) {
	data := map[string][]byte{"server.crt": {1}, "server.key": {2}, "server-ca.crt": {3}}
	if m, err := ServerKeys.Material(data); err != nil || m.Certificate[0] != 1 || m.Key[0] != 2 || m.Authorities[0] != 3 {
		t.Errorf("got %v, %v", m, err)
	}
	_, err := PeerKeys.Material(map[string][]byte{"peer.crt": {1}, "peer.key": {}})
	if err == nil || err.Error() != "peer.key is missing: add it; peer-ca.crt is missing: add it" {
		t.Errorf("got %v", err)
	}
}
