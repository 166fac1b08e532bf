package v3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

const (
	// alertTimeout is how long the operator reads from a connection after a failed write, to get the TLS alert.
	alertTimeout = time.Second
	// closeTimeout is how long a connection may take to close after its call has ended.
	closeTimeout = 100 * time.Millisecond
)

// transport connects to one member. It remembers why connecting failed, because gRPC returns only a text.
type transport struct {
	credentials credentials.TransportCredentials
	// deadline ends what gRPC waits for after the call, for example for a write. It is a little later than the call's
	// deadline, so that the call ends with DeadlineExceeded.
	deadline time.Time
	// once forbids a second connection.
	once bool

	mu sync.Mutex
	// tls is the last failure of TLS with the member. network is the last failure to reach the member.
	tls, network error
	connected    bool
	// dialled tells that a connection was begun.
	dialled bool
}

func newTransport(ctx context.Context, endpoint etcd.Endpoint) (*transport, error) {
	t := &transport{credentials: insecure.NewCredentials()}
	if deadline, ok := ctx.Deadline(); ok {
		t.deadline = deadline.Add(closeTimeout)
	}
	if endpoint.Credentials != nil {
		config, err := tlsConfig(endpoint)
		if err != nil {
			return nil, &etcd.TLSError{Err: err}
		}
		t.credentials = &handshaker{credentials.NewTLS(config), t, endpoint.ServerName}
	}
	return t, nil
}

func tlsConfig(endpoint etcd.Endpoint) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(endpoint.Credentials.Certificate, endpoint.Credentials.Key)
	if err != nil {
		return nil, &failure{"the operator's certificate and key cannot be used", err}
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(endpoint.Credentials.Authorities) {
		return nil, errors.New("the operator's authorities hold no certificate")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The certificate is sent even if the member does not name its authority: the refusal then says what is wrong.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		RootCAs:              authorities,
		ServerName:           endpoint.ServerName,
	}, nil
}

// errOnce is gRPC's answer to a second connection.
var errOnce = errors.New("the connection is not made again")

func (t *transport) dial(ctx context.Context, address string) (net.Conn, error) {
	if t.refusesDial() {
		return nil, errOnce
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		t.note(err)
		return nil, err
	}
	t.mu.Lock()
	t.connected = true
	t.mu.Unlock()
	bounded := &boundedConn{Conn: conn, deadline: t.deadline, left: maxConnectionBytes}
	return bounded, bounded.SetDeadline(t.deadline)
}

// refusesDial reports whether a further connection is forbidden.
func (t *transport) refusesDial() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	refused := t.once && t.dialled
	t.dialled = true
	return refused
}

// note remembers a failure.
func (t *transport) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if isNetwork(err) {
		t.network = err
	} else {
		t.tls = err
	}
}

func (t *transport) failures() (connected bool, tls, network error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.connected, t.tls, t.network
}

// handshaker notes how its TLS handshakes fail.
type handshaker struct {
	credentials.TransportCredentials
	transport  *transport
	serverName string
}

// ClientHandshake implements credentials.TransportCredentials. The certificate must fit the member's name.
// The unused argument is the address: etcd's client derives it from the endpoint.
func (h *handshaker) ClientHandshake(
	ctx context.Context, _ string, raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, h.serverName, raw)
	if err != nil {
		h.transport.note(err)
		return nil, nil, err
	}
	return &alertConn{conn, h.transport}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (h *handshaker) Clone() credentials.TransportCredentials {
	return &handshaker{h.TransportCredentials.Clone(), h.transport, h.serverName}
}

// alertConn notes that the member refuses the operator's certificate.
// With TLS 1.3 the member sends that alert after the client's handshake has ended.
type alertConn struct {
	net.Conn
	transport *transport
}

func (c *alertConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.noteAlert(err)
	return n, err
}

// Write reads the alert after a failed write. gRPC would close the connection without reading it.
func (c *alertConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && c.SetReadDeadline(time.Now().Add(alertTimeout)) == nil {
		_, alert := c.Conn.Read(make([]byte, 1))
		c.noteAlert(alert)
	}
	return n, err
}

func (c *alertConn) noteAlert(err error) {
	if isAlert(err) {
		c.transport.note(err)
	}
}
