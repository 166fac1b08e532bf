package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/test/appendlog"
)

const (
	// valueSize is the size of the values that fill a database.
	valueSize = 10 << 10
	// fillers write them at once.
	fillers = 32
	// writersPerMember is how many connections are pinned to each member.
	writersPerMember = 2
)

// access is what a client needs to reach one contender.
type access struct {
	name string
	// tls and credentials are nil where traffic is not encrypted.
	tls         *tls.Config
	credentials *etcd.Credentials
}

// access reads the certificate that the operator made for the clients of a cluster, if it made one.
func (l *lab) access(ctx context.Context, name string) (*access, error) {
	var secret corev1.Secret
	err := l.Get(ctx, client.ObjectKey{Namespace: l.namespace, Name: name + "-client-tls"}, &secret)
	if apierrors.IsNotFound(err) {
		return &access{name: name}, nil
	}
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		return nil, fmt.Errorf("reading the clients' certificate: %w", err)
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(secret.Data["ca.crt"])
	return &access{
		name:        name,
		tls:         &tls.Config{ServerName: l.serverName(name), Certificates: []tls.Certificate{certificate}, RootCAs: authorities},
		credentials: &etcd.Credentials{Certificate: secret.Data["tls.crt"], Key: secret.Data["tls.key"], Authorities: secret.Data["ca.crt"]},
	}, nil
}

// etcdClient is etcd's own client with one connection. The client checks certificates against the name that it connects
// to, so it gets the name here, and the address by the dialer.
func (a *access) etcdClient(address string) (*clientv3.Client, error) {
	config := clientv3.Config{Endpoints: []string{address}, TLS: a.tls, Logger: zap.NewNop()}
	if a.tls != nil {
		config.Endpoints = []string{net.JoinHostPort(a.tls.ServerName, strconv.Itoa(cluster.ClientPort))}
		config.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		})}
	}
	return clientv3.New(config)
}

// members returns the addresses of the pods by name.
func (l *lab) members(name string) func(context.Context) (map[string]string, error) {
	return func(ctx context.Context) (map[string]string, error) {
		pods, err := l.pods(ctx, name)
		if err != nil {
			return nil, err
		}
		addresses := map[string]string{}
		for _, pod := range pods {
			if pod.Status.PodIP != "" {
				addresses[pod.Name] = clientAddress(pod.Status.PodIP)
			}
		}
		return addresses, nil
	}
}

// fill writes values that no compression shortens.
func (d *day2) fill(ctx context.Context, a *access) error {
	addresses, err := d.members(a.name)(ctx)
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		return fmt.Errorf("no pod of %s has an address", a.name)
	}
	c, err := a.etcdClient(slices.Collect(maps.Values(addresses))[0])
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	start, count := time.Now(), d.mib<<20/valueSize
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillers)
	for i := range count {
		group.Go(func() error {
			value := make([]byte, valueSize)
			_, _ = rand.Read(value)
			bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			_, err := c.Put(bounded, fmt.Sprintf("fill/%08d", i), string(value))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("filling the database of %s: %w", a.name, err)
	}
	fmt.Printf("%s: wrote %d MiB in %.1f s\n", a.name, d.mib, time.Since(start).Seconds())
	return nil
}

// pinnedLog starts the writers that are pinned to the members.
func (l *lab) pinnedLog(ctx context.Context, a *access, prefix string) (*appendlog.Log, error) {
	return appendlog.Start(ctx, appendlog.Options{Members: l.members(a.name), TLS: a.tls, Prefix: prefix, Writers: writersPerMember})
}

// serviceLog starts as many writers behind the clients' Service, with the connections and the retries of etcd's client.
func (l *lab) serviceLog(ctx context.Context, a *access, prefix string) (*appendlog.Log, error) {
	address, err := l.clientService(ctx, a.name)
	if err != nil {
		return nil, err
	}
	return appendlog.Start(ctx, appendlog.Options{
		Members: func(context.Context) (map[string]string, error) { return map[string]string{"service": address}, nil },
		TLS:     a.tls, Prefix: prefix, Writers: 3 * writersPerMember,
		Connect: func(address string) (appendlog.Connection, error) {
			c, err := a.etcdClient(address)
			if err != nil {
				return nil, err
			}
			return retrying{ClientConn: c.ActiveConnection(), client: c}, nil
		},
	})
}

// retrying is the connection of etcd's client. It retries what that client retries.
type retrying struct {
	*grpc.ClientConn
	client *clientv3.Client
}

// Close ends the connection and the client.
func (r retrying) Close() error { return r.client.Close() }
