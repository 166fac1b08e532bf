//go:build integration

package etcd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

func TestAProbeGivesTheMembersOwnIDsVersionAndLeader(t *testing.T) {
	names := []string{"prod-0", "prod-1", "prod-2"}
	eachMinor(t, func(t *testing.T, l *lab) {
		l.found(t, names...)
		membership, err := l.Membership(t, "prod-1")
		if err != nil {
			t.Fatal(err)
		}
		leader := l.serves(t, "prod-0").Leader
		for _, name := range names {
			probe := l.serves(t, name)
			i := slices.IndexFunc(membership.Members, func(m cluster.EtcdMember) bool { return m.Name == name })
			if i < 0 || membership.Members[i].ID != probe.MemberID || !slices.Equal(membership.Members[i].PeerURLs, []string{l.peerURL(name)}) {
				t.Errorf("%s answers %+v; the list is %+v", name, probe, membership.Members)
			}
			if probe.ClusterID != membership.ClusterID || probe.Leader != leader || !l.is(probe.Version) || probe.Learner || probe.Errors != nil {
				t.Errorf("%s answers %+v", name, probe)
			}
		}
	})
}

// is reports whether the version is of the laboratory's minor version.
func (l *lab) is(version string) bool { return strings.HasPrefix(version, l.minor+".") }

func TestAMemberWithTLSAnswersTheRightCredentialsOnly(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		authority := l.secure(t, memberName, "localhost")
		l.found(t, "prod-0")
		if _, err := l.Membership(t, "prod-0"); err != nil {
			t.Fatalf("listing the members: %v", err)
		}
		other := pkitest.NewAuthority(t, "other")
		operator := pkitest.Leaf{CommonName: "root", Usages: pkitest.ClientOnly}
		for _, test := range []struct {
			name     string
			endpoint etcd.Endpoint
			text     string
			tls      bool
		}{
			{"another authority", etcd.Endpoint{ServerName: memberName, Credentials: credentialsOf(t, authority, other, operator)},
				"setting up TLS: the member's certificate is not issued by the operator's authorities", true},
			{"another name", etcd.Endpoint{ServerName: "prod-1-0.prod.ns.svc", Credentials: l.credentials},
				"setting up TLS: the member's certificate does not fit prod-1-0.prod.ns.svc", true},
			{"a certificate of another authority", etcd.Endpoint{ServerName: memberName, Credentials: credentialsOf(t, other, authority, operator)},
				"setting up TLS: the member refused: tls: unknown certificate authority", true},
			{"a certificate for servers", etcd.Endpoint{ServerName: memberName, Credentials: credentialsOf(t, authority, authority, pkitest.Leaf{Usages: pkitest.ServerOnly})},
				"setting up TLS: the member refused: tls: bad certificate", true},
			{"no credentials", etcd.Endpoint{}, "the connection was closed", false},
		} {
			t.Run(test.name, func(t *testing.T) {
				test.endpoint.Address = l.address("prod-0")
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					probe, err := l.port.Probe(ctx, test.endpoint)
					cancel()
					var cause *etcd.TLSError
					if err == nil || err.Error() != test.text || errors.As(err, &cause) != test.tls {
						t.Fatalf("the member answers %+v, %v; want %q", probe, err, test.text)
					}
				}
			})
		}
	})
}

func TestAMemberInClearClosesOnTLS(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		l.found(t, "prod-0")
		authority := pkitest.NewAuthority(t, "authority")
		endpoint := etcd.Endpoint{Address: l.address("prod-0"), ServerName: memberName, Credentials: credentialsOf(t, authority, authority, pkitest.Leaf{Usages: pkitest.ClientOnly})}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := l.port.Probe(ctx, endpoint)
		if err == nil || err.Error() != "the connection was closed" {
			t.Fatalf("Probe fails with %v", err)
		}
	})
}

func TestWithAuthenticationOnEveryCertificateOfTheAuthorityAsksAsMuchAsRoot(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		authority := l.secure(t, memberName, "localhost")
		l.found(t, "prod-0")
		if err := l.do(t, "prod-0", enableAuthentication); err != nil {
			t.Fatal(err)
		}
		for _, commonName := range []string{"root", "reader", "stranger"} {
			l.credentials = credentialsOf(t, authority, authority, pkitest.Leaf{CommonName: commonName, Usages: pkitest.ClientOnly})
			l.answers(t, commonName)
		}
		l.refusesAReader(t)
	})
}

func TestWithAuthenticationOnAMemberInClearRefusesTheOperator(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		l.found(t, "prod-0")
		if err := l.do(t, "prod-0", enableAuthentication); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Probe(t, "prod-0"); err == nil || err.Error() != "etcdserver: user name is empty" {
			t.Errorf("Probe fails with %v", err)
		}
		if _, err := l.Membership(t, "prod-0"); err == nil || err.Error() != "etcdserver: user name is empty" {
			t.Errorf("Membership fails with %v", err)
		}
	})
}

func (l *lab) answers(t *testing.T, who string) {
	t.Helper()
	if probe, err := l.Probe(t, "prod-0"); err != nil || !probe.Linearizable {
		t.Errorf("%s's probe: %+v, %v", who, probe, err)
	}
	if membership, err := l.Membership(t, "prod-0"); err != nil || len(membership.Members) != 1 {
		t.Errorf("%s's member list: %+v, %v", who, membership, err)
	}
}

// refusesAReader proves that authentication is on: a user without permissions reads no key.
func (l *lab) refusesAReader(t *testing.T) {
	t.Helper()
	if value, err := l.Get(t, "prod-0", "key"); err == nil {
		t.Errorf("a user without permissions reads %q", value)
	}
}

// enableAuthentication adds root, and a reader who may do nothing.
func enableAuthentication(ctx context.Context, client *clientv3.Client) error {
	if _, err := client.RoleAdd(ctx, "root"); err != nil {
		return err
	}
	for _, user := range []string{"root", "reader"} {
		if _, err := client.UserAddWithOptions(ctx, user, "", &clientv3.UserAddOptions{NoPassword: true}); err != nil {
			return err
		}
	}
	if _, err := client.UserGrantRole(ctx, "root", "root"); err != nil {
		return err
	}
	_, err := client.AuthEnable(ctx)
	return err
}
