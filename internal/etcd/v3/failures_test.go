package v3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

const memberName = "prod-0-0.prod.ns.svc"

// serve answers every connection to a new listener with the handler, which owns the connection.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	return listener.Addr().String()
}

// serveSilence reads and never answers.
func serveSilence(t *testing.T) string {
	t.Helper()
	return serve(t, func(conn net.Conn) {
		_, _ = io.Copy(io.Discard, conn) // until the client closes
		_ = conn.Close()
	})
}

// serveTLS ends each connection after its handshake, with an alert if the handshake failed.
func serveTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	return serve(t, func(conn net.Conn) {
		_ = tls.Server(conn, config).Handshake() // the client under test tells how it ended
		_ = conn.Close()
	})
}

func serverConfig(t *testing.T, issuer, clients *pkitest.Authority, leaf pkitest.Leaf, version uint16) *tls.Config {
	t.Helper()
	pair := issuer.Issue(t, leaf)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(clients.PEM)
	return &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: version, MaxVersion: version, NextProtos: []string{"h2"},
	}
}

func credentialsFor(t *testing.T, issuer, trusted *pkitest.Authority) *etcd.Credentials {
	t.Helper()
	pair := issuer.Issue(t, pkitest.Leaf{CommonName: "root", Usages: pkitest.ClientOnly})
	return &etcd.Credentials{Certificate: pair.Certificate, Key: pair.Key, Authorities: trusted.PEM}
}

func TestFailuresAreToldInAStableText(t *testing.T) {
	right, wrong := pkitest.NewAuthority(t, "right"), pkitest.NewAuthority(t, "wrong")
	fits := pkitest.Leaf{Names: []string{memberName}}
	expired := pkitest.Leaf{Names: []string{memberName}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}
	good := credentialsFor(t, right, right)
	deadListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := deadListener.Addr().String()
	_ = deadListener.Close()
	silent := serveSilence(t)
	closing := serve(t, func(conn net.Conn) { _ = conn.Close() })
	plain := serve(t, func(conn net.Conn) {
		_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		_ = conn.Close()
	})
	for _, test := range []struct {
		name        string
		address     string
		credentials *etcd.Credentials
		text        string
		tls         bool
		timeout     bool
	}{
		{"nobody listens", dead, nil, "connection refused", false, false},
		{"nobody listens, with TLS", dead, good, "connection refused", false, false},
		{"nobody answers", silent, nil, "no answer", false, true},
		{"nobody answers, with TLS", silent, good, "no answer", false, true},
		{"the member closes", closing, nil, "the connection was closed", false, false},
		{"the member does not speak TLS", plain, good, "setting up TLS: the member does not speak TLS", true, false},
		{"another authority issued the member's certificate", serveTLS(t, serverConfig(t, wrong, right, fits, tls.VersionTLS13)), good,
			"setting up TLS: the member's certificate is not issued by the operator's authorities", true, false},
		{"the member's certificate fits another name", serveTLS(t, serverConfig(t, right, right, pkitest.Leaf{Names: []string{"other"}}, tls.VersionTLS13)), good,
			"setting up TLS: the member's certificate does not fit " + memberName, true, false},
		{"the member's certificate has expired", serveTLS(t, serverConfig(t, right, right, expired, tls.VersionTLS13)), good,
			"setting up TLS: the member's certificate has expired or is not valid yet", true, false},
		{"the member refuses the operator's certificate with TLS 1.2", serveTLS(t, serverConfig(t, right, wrong, fits, tls.VersionTLS12)), good,
			"setting up TLS: the member refused: tls: unknown certificate authority", true, false},
		{"the member refuses the operator's certificate with TLS 1.3", serveTLS(t, serverConfig(t, right, wrong, fits, tls.VersionTLS13)), good,
			"setting up TLS: the member refused: tls: unknown certificate authority", true, false},
		{"the operator has no certificate", silent, &etcd.Credentials{Certificate: []byte("x"), Key: good.Key, Authorities: good.Authorities},
			"setting up TLS: the operator's certificate and key cannot be used", true, false},
		{"the operator's key is another's", silent, &etcd.Credentials{Certificate: good.Certificate, Key: credentialsFor(t, right, right).Key, Authorities: good.Authorities},
			"setting up TLS: the operator's certificate and key cannot be used", true, false},
		{"the operator has no authorities", silent, &etcd.Credentials{Certificate: good.Certificate, Key: good.Key},
			"setting up TLS: the operator's authorities hold no certificate", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint := etcd.Endpoint{Address: test.address, ServerName: memberName, Credentials: test.credentials}
			attempts, patience := 10, time.Minute
			if test.timeout {
				attempts, patience = 2, time.Second // long enough to connect
			}
			for range attempts {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				_, err := New().Probe(ctx, endpoint)
				if err == nil || err.Error() != test.text {
					t.Fatalf("Probe fails with %q, want %q", err, test.text)
				}
				var cause *etcd.TLSError
				if errors.As(err, &cause) != test.tls {
					t.Fatalf("TLS is the cause: %v, want %v", cause != nil, test.tls)
				}
				if errors.Is(err, context.DeadlineExceeded) != test.timeout {
					t.Fatalf("%v is a deadline, want %v", err, test.timeout)
				}
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), patience)
				if _, again := New().Membership(ctx, endpoint); again == nil || again.Error() != err.Error() {
					t.Fatalf("Membership fails with %q, Probe with %q", again, err)
				}
				cancel()
			}
		})
	}
}

func TestTellsAConnectionThatIsNotMadeFromAMemberThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for connected, want := range map[bool]string{false: "the connection timed out", true: "no answer"} {
		m := &member{transport: &transport{connected: connected}}
		if err := m.explain(ctx, ctx.Err()); err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("connected %v: %q, want %q", connected, err, want)
		}
	}
}

func TestFailedCallsLeaveNothingBehind(t *testing.T) {
	silent := serveSilence(t)
	authority := pkitest.NewAuthority(t, "authority")
	calls := []etcd.Endpoint{{Address: silent}, {Address: silent, ServerName: memberName, Credentials: credentialsFor(t, authority, authority)}}
	before := runtime.NumGoroutine()
	for n := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := New().Probe(ctx, calls[n%2]); err == nil {
			t.Fatal("a silent member answers")
		}
		cancel()
	}
	end := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestNoVerbPrintsAKey(t *testing.T) {
	authority := pkitest.NewAuthority(t, "authority")
	good := credentialsFor(t, authority, authority)
	bad := &etcd.Credentials{Certificate: good.Key, Key: good.Key, Authorities: good.Authorities}
	_, err := New().Probe(t.Context(), etcd.Endpoint{Credentials: bad})
	if err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Fatalf("got %v", err)
	}
}
