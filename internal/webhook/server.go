package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

// The API server gives a conversion 30 s in all.
const (
	// readHeaderTimeout bounds the TLS handshake, and the time until the headers of a request are there.
	readHeaderTimeout = 10 * time.Second
	// readTimeout bounds the time until a whole request is there, its body included.
	readTimeout = 15 * time.Second
	// writeTimeout bounds the time from the end of the headers until the answer is written.
	writeTimeout = 30 * time.Second
	// idleTimeout closes connections without requests. It is the idle timeout of Go's clients, so of the API server.
	idleTimeout    = 90 * time.Second
	maxHeaderBytes = 16 << 10
	// shutdownTimeout bounds the wait for the last answers when the process ends.
	shutdownTimeout = 20 * time.Second
)

// server serves conversions over TLS with HTTP/1.1.
// HTTP/2 is off: a client could open hundreds of streams on each connection, each with its own buffers.
type server struct {
	address        string
	mux            *http.ServeMux
	getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	readTimeout    time.Duration
	// shutdownDelay is how long the server serves after the context ended.
	// Until then every node has removed the pod from the Service's endpoints.
	shutdownDelay time.Duration
	isListening   atomic.Bool
	isEnding      atomic.Bool
}

// newServer returns a server that converts at Path. It answers other paths with 404.
func newServer(o Options, getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *server {
	mux := http.NewServeMux()
	mux.Handle(Path, Limit(o.Handler))
	return &server{
		address:        net.JoinHostPort(o.Host, strconv.Itoa(o.Port)),
		mux:            mux,
		getCertificate: getCertificate,
		readTimeout:    readTimeout,
		shutdownDelay:  o.ShutdownDelay,
	}
}

// ServeHTTP closes each connection after its answer while the server ends.
// Otherwise clients might send a request on an idle connection just when the server closes it.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.isEnding.Load() {
		w.Header().Set("Connection", "close")
	}
	s.mux.ServeHTTP(w, r)
}

// Start serves until the context ends and the shutdown delay is over. It returns when the last answers are written.
func (s *server) Start(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", s.address, err)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	served := &http.Server{
		Handler:           s,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.getCertificate},
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       s.readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		s.isEnding.Store(true)
		<-time.After(s.shutdownDelay)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := served.Shutdown(ending); err != nil {
			log.FromContext(ctx).Error(err, "Some conversions did not end in time")
		}
	}()
	s.isListening.Store(true)
	log.FromContext(ctx).Info("Serving conversions", "address", listener.Addr().String())
	if err := served.ServeTLS(limitConnections(listener), "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", s.address, err)
	}
	<-stopped
	return nil
}
