package v3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// failure is an error whose text is the same in every attempt. The text is written into conditions.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// explain returns the cause of a failed call.
func (m *member) explain(ctx context.Context, err error) error {
	answer := status.Convert(err)
	if text := cluster.ForeignText(answer.Message()); strings.HasPrefix(text, "etcdserver: ") {
		return &failure{text, knownError(text, err)}
	}
	connected, tlsCause, network := m.transport.failures()
	switch {
	case tlsCause != nil:
		return &etcd.TLSError{Err: explainTLS(tlsCause)}
	case network != nil:
		return explainNetwork(network)
	case ctx.Err() != nil && !connected:
		return &failure{"the connection timed out", ctx.Err()}
	case ctx.Err() != nil:
		return &failure{"no answer", ctx.Err()}
	case answer.Code() == codes.DeadlineExceeded: // the member noticed it a moment before
		return &failure{"no answer", context.DeadlineExceeded}
	case answer.Code() == codes.ResourceExhausted, answer.Code() == codes.Internal, answer.Code() == codes.Unimplemented:
		return &failure{notEtcd, err}
	default:
		return &failure{"the connection was closed", err}
	}
}

const notEtcd = "the member does not answer as etcd does"

// errNotEtcd tells that an answer cannot be etcd's.
var errNotEtcd = &failure{text: notEtcd}

// knownError returns the error that callers branch on, or err if the text is none of theirs.
func knownError(text string, err error) error {
	for _, known := range etcd.Errors() {
		if text == known.Error() {
			return known
		}
	}
	return err
}

// explainChange returns the cause of a failed change. The deadline of the call is also that of etcd's own work, so that
// either side may tell first that it has passed.
func (m *member) explainChange(ctx context.Context, err error) error {
	var refused *etcd.DefragmentError
	if errors.Is(err, errNotEtcd) || errors.Is(err, errNotCancelled) || errors.As(err, &refused) {
		return err
	}
	err = m.explain(ctx, err)
	if strings.HasPrefix(err.Error(), "etcdserver: request timed out") {
		return &failure{"no answer", context.DeadlineExceeded}
	}
	return err
}

// explainDefragment returns the error of the member's disk, which etcd passes on as it is: togRPCError in
// server/etcdserver/api/v3rpc/util.go.
func explainDefragment(err error) error {
	answer, isAnswer := status.FromError(err)
	if isAnswer && answer.Code() == codes.Unknown && !strings.HasPrefix(answer.Message(), "etcdserver: ") {
		return &etcd.DefragmentError{Text: cluster.ForeignText(answer.Message())}
	}
	return err
}

func explainTLS(err error) error {
	var (
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		operation *net.OpError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &failure{"the member's certificate has expired or is not valid yet", err}
	case errors.As(err, &authority):
		return &failure{"the member's certificate is not issued by the operator's authorities", err}
	case errors.As(err, &host):
		return &failure{"the member's certificate does not fit " + host.Host, err}
	case errors.As(err, &record):
		return &failure{"the member does not speak TLS", err}
	case isAlert(err) && errors.As(err, &operation):
		return &failure{"the member refused: " + cluster.ForeignText(operation.Err.Error()), err}
	default:
		return &failure{cluster.ForeignText(err.Error()), err}
	}
}

func explainNetwork(err error) error {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return &failure{number.Error(), err}
	case isTimeout(err):
		return &failure{"no answer", err}
	default:
		return &failure{"the connection was closed", err}
	}
}

// isNetwork reports whether the member could not be reached. Other failures are failures of TLS.
func isNetwork(err error) bool {
	var number syscall.Errno
	return errors.As(err, &number) || isTimeout(err) || errors.Is(err, context.Canceled) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// isAlert reports whether the member ended TLS with an alert, which names the cause.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}
