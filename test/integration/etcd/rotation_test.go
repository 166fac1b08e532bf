//go:build integration

package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

var threeMembers = []string{"prod-0", "prod-1", "prod-2"}

// secured is a laboratory whose members mount certificates as pods do, all of them the same.
type secured struct {
	*lab
	version int
}

// authorities are those of the two kinds of traffic.
type authorities struct{ peer, client *pki.Authority }

func newAuthorities(t *testing.T, name string) authorities {
	t.Helper()
	authority := func(kind string) *pki.Authority {
		a, err := pki.NewAuthority(name+" "+kind, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	return authorities{authority("peer"), authority("client")}
}

func certificateOf(t *testing.T, a *pki.Authority) []byte {
	t.Helper()
	certificate, _, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func (s *secured) issue(t *testing.T, by *pki.Authority, use pki.Use, trusted ...*pki.Authority) pki.Material {
	t.Helper()
	request := pki.Request{CommonName: "root", Use: use}
	if use != pki.Client {
		request.Names = []string{memberName, "localhost"}
		request.Addresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		for _, name := range threeMembers {
			request.Addresses = append(request.Addresses, net.ParseIP(s.host(name)))
		}
	}
	m, err := by.Issue(request, time.Now(), 30*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	m.Authorities = nil
	for _, a := range trusted {
		m.Authorities = append(m.Authorities, certificateOf(t, a)...)
	}
	return m
}

// mount puts certificates where the members read them, all at once, as the kubelet does.
func (s *secured) mount(t *testing.T, by authorities, trusted ...authorities) {
	t.Helper()
	var peers, clients []*pki.Authority
	for _, a := range trusted {
		peers, clients = append(peers, a.peer), append(clients, a.client)
	}
	s.version++
	folder := filepath.Join(s.dir, fmt.Sprint("tls-", s.version))
	for part, m := range map[string]pki.Material{"peer": s.issue(t, by.peer, pki.Peer, peers...), "server": s.issue(t, by.client, pki.Server, clients...)} {
		if err := os.MkdirAll(filepath.Join(folder, part), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string][]byte{pki.TLSKeys.Certificate: m.Certificate, pki.TLSKeys.Key: m.Key, pki.TLSKeys.Authorities: m.Authorities} {
			if err := os.WriteFile(filepath.Join(folder, part, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := filepath.Join(s.dir, "tls")
	if err := errors.Join(os.Symlink(folder, link+"-new"), os.Rename(link+"-new", link)); err != nil {
		t.Fatal(err)
	}
}

// newSecured starts three members that trust nobody but the authorities.
func newSecured(t *testing.T, l *lab, a authorities) *secured {
	t.Helper()
	s := &secured{lab: l}
	s.mount(t, a, a)
	at := func(part, file string) string { return filepath.Join(s.dir, "tls", part, file) }
	l.scheme, l.peerScheme, l.serverName = "https", "https", memberName
	l.serverArguments = []string{
		"--peer-cert-file=" + at("peer", "tls.crt"), "--peer-key-file=" + at("peer", "tls.key"),
		"--peer-trusted-ca-file=" + at("peer", "ca.crt"), "--peer-client-cert-auth",
		"--cert-file=" + at("server", "tls.crt"), "--key-file=" + at("server", "tls.key"),
		"--trusted-ca-file=" + at("server", "ca.crt"), "--client-cert-auth",
	}
	l.credentials = s.credentialsOf(t, a.client, a.client)
	l.peers = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // it asks only whether the port is open; the members check each other
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(at("peer", "tls.crt"), at("peer", "tls.key"))
			return &pair, err
		},
	}}}
	for _, name := range threeMembers {
		if err := l.Start(t, name, rules.Initial{State: "new", Members: threeMembers, Token: "token"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range threeMembers {
		l.serves(t, name)
	}
	return s
}

func (s *secured) credentialsOf(t *testing.T, by *pki.Authority, trusted ...*pki.Authority) *etcd.Credentials {
	t.Helper()
	m := s.issue(t, by, pki.Client, trusted...)
	return &etcd.Credentials{Certificate: m.Certificate, Key: m.Key, Authorities: m.Authorities}
}

// restartAll ends and starts the members one by one, the leader last, each once the one before is healthy.
func (s *secured) restartAll(t *testing.T) {
	t.Helper()
	leads := func(name string) int {
		if p := s.serves(t, name); p.Leader == p.MemberID {
			return 1
		}
		return 0
	}
	order := slices.Clone(threeMembers)
	slices.SortStableFunc(order, func(a, b string) int { return leads(a) - leads(b) })
	for _, name := range order {
		s.End(t, name)
		if err := s.Start(t, name, rules.Initial{State: "existing", Members: []string{name}, Token: "token"}); err != nil {
			t.Fatal(err)
		}
		for _, other := range threeMembers {
			s.serves(t, other)
		}
	}
}

// served is the certificate that a member shows, at its port for clients.
func (s *secured) served(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", s.address(name), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it looks at the certificate itself
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0]
}

// refuses reports whether a member refuses the credentials, or they refuse the member, by reason of TLS.
func (s *secured) refuses(t *testing.T, name string, credentials *etcd.Credentials) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := s.port.Probe(ctx, etcd.Endpoint{Address: s.address(name), ServerName: memberName, Credentials: credentials})
	var cause *etcd.TLSError
	if err != nil && !errors.As(err, &cause) {
		t.Fatalf("%s answers neither yes nor no: %v", name, err)
	}
	return err != nil
}

// writer is a client that writes without a break.
// It reads its certificate and its authorities again for every connection.
type writer struct {
	mu          sync.Mutex
	credentials *etcd.Credentials
	stop        context.CancelFunc
	done        chan struct{}
	written     int
	failure     error
}

// takes has the client take other credentials.
func (w *writer) takes(c *etcd.Credentials) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.credentials = c
}

// write starts a client of all members.
// A write that fails is tried again, and none may fail for longer than an election and a restart take.
func (s *secured) write(t *testing.T) *writer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{credentials: s.credentials, stop: cancel, done: make(chan struct{})}
	endpoints := make([]string, len(threeMembers))
	for i, name := range threeMembers {
		endpoints[i] = "https://" + s.address(name)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop(), TLS: w.tls()})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		defer func() { _ = client.Close() }()
		for ctx.Err() == nil && w.failure == nil {
			w.failure = w.put(ctx, client)
		}
	}()
	t.Cleanup(func() { w.end(t) })
	return w
}

// tls checks the members' certificates against what the client trusts at the time.
func (w *writer) tls() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks, against authorities that may change
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			pair, err := tls.X509KeyPair(w.credentials.Certificate, w.credentials.Key)
			return &pair, err
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(w.credentials.Authorities)
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: memberName})
			return err
		},
	}
}

func (w *writer) put(ctx context.Context, client *clientv3.Client) error {
	var last error
	for end := time.Now().Add(patience / 2); time.Now().Before(end) && ctx.Err() == nil; {
		bounded, cancel := context.WithTimeout(ctx, callTime)
		_, last = client.Put(bounded, "key", fmt.Sprint(w.written))
		cancel()
		if last == nil {
			w.written++
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("after %d writes: %w", w.written, last)
}

// end fails where a write failed for good, or none was done.
func (w *writer) end(t *testing.T) {
	t.Helper()
	w.stop()
	<-w.done
	if w.failure != nil {
		t.Errorf("a write failed: %v", w.failure)
	}
	if w.written == 0 {
		t.Error("nothing was written")
	}
}

func TestMembersAndClientsTakeRenewedCertificatesUpWithoutARestart(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		a := newAuthorities(t, "only")
		s := newSecured(t, l, a)
		before := s.served(t, "prod-1").SerialNumber
		s.write(t)
		s.mount(t, a, a)
		if after := s.served(t, "prod-1").SerialNumber; after.Cmp(before) == 0 {
			t.Fatal("the next handshake shows the former certificate")
		}
		s.End(t, "prod-2") // its peers meet it with their renewed certificates
		if err := s.Start(t, "prod-2", rules.Initial{State: "existing", Members: []string{"prod-2"}, Token: "token"}); err != nil {
			t.Fatal(err)
		}
		s.serves(t, "prod-2")
	})
}

func TestAMemberReadsItsAuthoritiesAtItsStartOnly(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		old, next := newAuthorities(t, "old"), newAuthorities(t, "next")
		s := newSecured(t, l, old)
		stranger := s.credentialsOf(t, next.client, old.client, next.client)
		s.mount(t, old, old, next)
		if !s.refuses(t, "prod-0", stranger) {
			t.Error("a member that was not restarted accepts the new authority")
		}
		s.restartAll(t)
		if s.refuses(t, "prod-0", stranger) {
			t.Error("a member that was restarted refuses the new authority")
		}
	})
}

func TestARotationByOverlapFailsNoWrite(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		old, next := newAuthorities(t, "old"), newAuthorities(t, "next")
		s := newSecured(t, l, old)
		former := s.credentials
		w := s.write(t)

		s.mount(t, old, old, next) // announced: everybody is told to trust both
		s.restartAll(t)
		w.takes(s.credentialsOf(t, old.client, old.client, next.client))

		s.mount(t, next, old, next) // issuing: members show the new authority's certificates from the next handshake on
		s.credentials = s.credentialsOf(t, next.client, old.client, next.client)
		w.takes(s.credentials)
		if err := s.served(t, "prod-1").CheckSignatureFrom(parsed(t, certificateOf(t, next.client))); err != nil {
			t.Errorf("a member does not show the new authority's certificate: %v", err)
		}
		if s.refuses(t, "prod-1", &etcd.Credentials{Certificate: former.Certificate, Key: former.Key, Authorities: s.credentials.Authorities}) {
			t.Error("the old authority's certificate is refused too early")
		}

		s.mount(t, next, next) // the old authority is forgotten
		s.restartAll(t)
		if !s.refuses(t, "prod-1", &etcd.Credentials{Certificate: former.Certificate, Key: former.Key, Authorities: s.credentials.Authorities}) {
			t.Error("the old authority's certificate is still accepted")
		}
	})
}

func parsed(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
