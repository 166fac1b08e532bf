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

// alertPatience is how long a connection that broke while it was written to is read for the reason.
const alertPatience = time.Second

// closeTime is what a connection gets to close after its call has ended.
const closeTime = 100 * time.Millisecond

// transport connects to one member and remembers why it could not: gRPC tells it only in the text of an error.
type transport struct {
	credentials credentials.TransportCredentials
	// deadline ends what gRPC waits for beyond the call, as for the end of a write. It is a little later than the
	// call's, so that the call ends for its own deadline.
	deadline time.Time

	mu sync.Mutex
	// tls is the last failure to agree with the member on TLS, network the last failure to reach it.
	tls, network error
}

func newTransport(ctx context.Context, endpoint etcd.Endpoint) (*transport, error) {
	t := &transport{credentials: insecure.NewCredentials()}
	if deadline, ok := ctx.Deadline(); ok {
		t.deadline = deadline.Add(closeTime)
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
		// Shown even to a member that does not know its authority: the refusal then says what is wrong.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		RootCAs:              authorities,
		ServerName:           endpoint.ServerName,
	}, nil
}

func (t *transport) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	t.note(err)
	if err != nil {
		return nil, err
	}
	bounded := &boundedConn{Conn: conn, deadline: t.deadline, left: maxConnectionBytes}
	return bounded, bounded.SetDeadline(t.deadline)
}

// note remembers a failure.
func (t *transport) note(err error) {
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if isNetwork(err) {
		t.network = err
	} else {
		t.tls = err
	}
}

func (t *transport) failures() (tls, network error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tls, t.network
}

// handshaker reports how its handshakes end.
type handshaker struct {
	credentials.TransportCredentials
	transport  *transport
	serverName string
}

// ClientHandshake implements credentials.TransportCredentials. The certificate is checked for the member's name:
// the authority is the address, which etcd's client makes of the endpoint.
func (h *handshaker) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, h.serverName, raw)
	if err != nil {
		h.transport.note(err)
		return nil, nil, err
	}
	return &listening{conn, h.transport}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (h *handshaker) Clone() credentials.TransportCredentials {
	return &handshaker{h.TransportCredentials.Clone(), h.transport, h.serverName}
}

// listening notes that the other side refuses the client's certificate: with TLS 1.3 it says so after the client's handshake has ended.
type listening struct {
	net.Conn
	transport *transport
}

func (c *listening) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.noteAlert(err)
	return n, err
}

// Write reads the alert that may wait when the connection breaks: gRPC closes it without a look.
func (c *listening) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && c.SetReadDeadline(time.Now().Add(alertPatience)) == nil {
		_, alert := c.Conn.Read(make([]byte, 1))
		c.noteAlert(alert)
	}
	return n, err
}

func (c *listening) noteAlert(err error) {
	if isAlert(err) {
		c.transport.note(err)
	}
}
