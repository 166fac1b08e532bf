// Package etcd is the operator's port to etcd: an interface and plain types. internal/etcd/v3 speaks to real members, internal/etcd/fake models them in memory.
package etcd

import (
	"context"
	"fmt"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Endpoint is where one member answers clients.
type Endpoint struct {
	// Address is the pod's IP and the client port.
	Address string
	// ServerName is the DNS name that the member's certificate is checked for; used with Credentials only.
	ServerName string
	// Credentials of the operator, nil where client traffic is in clear.
	Credentials *Credentials
}

// Credentials are PEM blocks: the operator's client certificate, its key, and the authorities that the members' certificates are checked against.
type Credentials struct {
	Certificate, Key, Authorities []byte
}

// String tells that there are credentials, and nothing of them.
func (*Credentials) String() string { return "credentials" }

// GoString is String, so that no format verb prints a key.
func (*Credentials) GoString() string { return "credentials" }

// Port asks members. Every call is bounded by its context.
type Port interface {
	// Probe asks one member for its status and a linearizable read. It fails when the status cannot be had, with a *TLSError
	// where TLS is the cause; a read that fails is told by Probe.Linearizable alone. Probe.Error stays empty.
	Probe(ctx context.Context, endpoint Endpoint) (cluster.Probe, error)
	// Membership reads the member list and the alarms from a voter, linearizably. A learner refuses it.
	Membership(ctx context.Context, endpoint Endpoint) (cluster.Membership, error)
}

// TLSError is a failure to set up TLS with a member: a reason to read the Secrets again.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return fmt.Sprintf("setting up TLS: %v", e.Err) }

// Unwrap returns the cause.
func (e *TLSError) Unwrap() error { return e.Err }
