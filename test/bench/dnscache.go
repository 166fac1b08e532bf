package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// cachedFor is how long most clusters keep the answers of their DNS, also that a name does not exist.
	cachedFor = 30 * time.Second
	cachePort = 5353
	dnsPort   = 53
	// idSize is the length of the ID, the first field of each message. A query and its answer share it.
	idSize = 2
	// answerWithin bounds one question to the cluster's DNS.
	answerWithin = 2 * time.Second
	messageSize  = 4096
)

// dnsCache answers questions over UDP. It keeps the answers of another server.
type dnsCache struct {
	socket net.PacketConn
	server string
	asked  atomic.Int64

	mu      sync.Mutex
	answers map[string]cachedAnswer
}

type cachedAnswer struct {
	message []byte
	until   time.Time
}

// withCachedNames puts a cache before the DNS of all pods while use runs.
// It needs the local cluster, whose Service of the DNS leads to this machine.
func (d *day2) withCachedNames(ctx context.Context, use func() error) (err error) {
	slice, err := d.dnsSlice(ctx)
	if err != nil {
		return fmt.Errorf("looking for the DNS of the local cluster: %w", err)
	}
	host := slice.Endpoints[0].Addresses[0]
	socket, err := net.ListenPacket("udp", net.JoinHostPort(host, fmt.Sprint(cachePort)))
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	cache := &dnsCache{socket: socket, server: net.JoinHostPort(host, fmt.Sprint(dnsPort)), answers: map[string]cachedAnswer{}}
	go cache.serve()
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if restored := d.redirectNames(bounded, dnsPort); restored != nil {
			err = errors.Join(err, fmt.Errorf("leading names back to the cluster's DNS: %w", restored))
		}
	}()
	if err := d.redirectNames(ctx, cachePort); err != nil {
		return err
	}
	if err := d.awaitQuestion(ctx, cache); err != nil {
		return fmt.Errorf("waiting until pods ask the cache: %w", err)
	}
	return use()
}

func (l *lab) dnsSlice(ctx context.Context) (*discoveryv1.EndpointSlice, error) {
	slice := &discoveryv1.EndpointSlice{}
	return slice, l.Get(ctx, client.ObjectKey{Namespace: "kube-system", Name: "kube-dns-host"}, slice)
}

// redirectNames changes the port behind the Service of the DNS.
func (l *lab) redirectNames(ctx context.Context, port int32) error {
	slice, err := l.dnsSlice(ctx)
	if err != nil {
		return err
	}
	for i := range slice.Ports {
		if *slice.Ports[i].Protocol == corev1.ProtocolUDP {
			slice.Ports[i].Port = &port
		}
	}
	return l.Update(ctx, slice)
}

// awaitQuestion asks the Service of the DNS until the cache gets the question.
func (l *lab) awaitQuestion(ctx context.Context, cache *dnsCache) error {
	var service corev1.Service
	if err := l.Get(ctx, client.ObjectKey{Namespace: "kube-system", Name: "kube-dns"}, &service); err != nil {
		return err
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(dnsPort)))
	}}
	return wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		bounded, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		_, err := resolver.LookupHost(bounded, "kube-dns.kube-system.svc.cluster.local.")
		return err == nil && cache.asked.Load() > 0, nil
	})
}

// serve answers until the socket is closed.
func (c *dnsCache) serve() {
	message := make([]byte, messageSize)
	for {
		n, from, err := c.socket.ReadFrom(message)
		if err != nil {
			return
		}
		if n <= idSize {
			continue
		}
		c.asked.Add(1)
		query := slices.Clone(message[:n])
		go func() {
			answer, err := c.answer(query)
			if err != nil {
				fmt.Fprintln(os.Stderr, "asking the cluster's DNS:", err)
				return
			}
			_, _ = c.socket.WriteTo(answer, from)
		}()
	}
}

func (c *dnsCache) answer(query []byte) ([]byte, error) {
	question := string(query[idSize:])
	c.mu.Lock()
	known := c.answers[question]
	c.mu.Unlock()
	if time.Now().Before(known.until) {
		return append(slices.Clone(query[:idSize]), known.message[idSize:]...), nil
	}
	message, err := c.ask(query)
	if err == nil && isAnswer(message) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.answers[question] = cachedAnswer{message: message, until: time.Now().Add(cachedFor)}
	}
	return message, err
}

// isAnswer tells whether the server gave an answer, which may be that the name does not exist, and not a failure.
func isAnswer(message []byte) bool {
	const success, noSuchName = 0, 3
	return len(message) > idSize+1 && (message[idSize+1]&0xf == success || message[idSize+1]&0xf == noSuchName)
}

func (c *dnsCache) ask(query []byte) ([]byte, error) {
	connection, err := net.DialTimeout("udp", c.server, answerWithin)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	if err := connection.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return nil, err
	}
	if _, err := connection.Write(query); err != nil {
		return nil, err
	}
	message := make([]byte, messageSize)
	n, err := connection.Read(message)
	return message[:n], err
}
