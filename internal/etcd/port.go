// Package etcd is the operator's port to etcd: an interface and plain types.
// internal/etcd/v3 connects to real members. internal/etcd/fake models them in memory.
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
	// ServerName is the DNS name that the member's certificate must fit. It is used with Credentials only.
	ServerName string
	// Credentials of the operator. They are nil where client traffic is not encrypted.
	Credentials *Credentials
	// AtRest tells that no version changes: a probe does not find out the cluster version. That costs a quorum call.
	AtRest bool
}

// Credentials are PEM blocks: the operator's client certificate, its key, and the authorities that may issue the
// members' certificates.
type Credentials struct {
	Certificate, Key, Authorities []byte
}

// String returns a constant, so that no log shows a key.
func (*Credentials) String() string { return "credentials" }

// GoString returns the same as String, for the verb %#v.
func (*Credentials) GoString() string { return "credentials" }

// Port sends requests to members. The context bounds every call.
type Port interface {
	// Probe asks one member for its status and a linearizable read.
	// It returns an error if the member does not return its status: a *TLSError if TLS is the cause.
	// If only the read fails, Probe.Linearizable is false and the error is nil. Probe.Error stays empty.
	Probe(ctx context.Context, endpoint Endpoint) (cluster.Probe, error)
	// Membership reads the member list and the alarms from a voter, linearizably. A learner refuses the request.
	Membership(ctx context.Context, endpoint Endpoint) (cluster.Membership, error)
}

// TLSError is a failure to set up TLS with a member. After it the Secrets are read again.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return fmt.Sprintf("setting up TLS: %v", e.Err) }

// Unwrap returns the cause.
func (e *TLSError) Unwrap() error { return e.Err }
