package v3

import (
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	protobuf "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Limits of what is read from a member, whose image a tenant chooses. Real etcd stays far below them.
const (
	maxAlarms = 64
	maxURLs   = 16 // of one member
	// maxURLBytes holds a scheme, a DNS name of 253 bytes and a port. A longer URL is cut like any other text.
	maxURLBytes     = 300
	maxMessageBytes = 1 << 20
	maxRequestBytes = 64 << 10
	maxHeaderBytes  = 16 << 10
	windowBytes     = 64 << 10
	// maxFields is how many fields a message may have, nested ones included. An empty field has two bytes, but it is
	// decoded into more than a hundred.
	maxFields = 4096
	// maxConnectionBytes is how much a member may send on one connection. Each call of the port has its own connection.
	maxConnectionBytes = 4 << 20
)

// codec refuses a message with too many fields before it decodes it.
type codec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(protobuf.Message)
	if !ok {
		return fmt.Errorf("%T is no message", v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	n, err := countFields(buffer.ReadOnlyData(), message.ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	if n > maxFields {
		return fmt.Errorf("the message has more than %d fields", maxFields)
	}
	return c.CodecV2.Unmarshal(mem.BufferSlice{buffer}, v)
}

// countFields counts the fields of an encoded message, and of the messages inside it.
func countFields(message []byte, descriptor protoreflect.MessageDescriptor) (int, error) {
	count := 0
	for len(message) > 0 && count <= maxFields {
		number, kind, tagBytes := protowire.ConsumeTag(message)
		if tagBytes < 0 {
			return 0, protowire.ParseError(tagBytes)
		}
		message = message[tagBytes:]
		valueBytes := protowire.ConsumeFieldValue(number, kind, message)
		if valueBytes < 0 {
			return 0, protowire.ParseError(valueBytes)
		}
		count++
		if field := descriptor.Fields().ByNumber(number); kind == protowire.BytesType && field != nil && field.Message() != nil {
			nested, _ := protowire.ConsumeBytes(message)
			n, err := countFields(nested, field.Message())
			if err != nil {
				return 0, err
			}
			count += n
		}
		message = message[valueBytes:]
	}
	return count, nil
}

var errTooMuch = errors.New("the member sent more than the operator reads")

// boundedConn is a connection that ends at its deadline, or when the member has sent too much.
type boundedConn struct {
	net.Conn
	deadline time.Time
	left     int // only one goroutine reads
}

// Read implements net.Conn.
func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// SetDeadline implements net.Conn. gRPC sets deadlines too. None may be later than the call's.
func (c *boundedConn) SetDeadline(t time.Time) error { return c.Conn.SetDeadline(c.bounded(t)) }

// SetReadDeadline implements net.Conn.
func (c *boundedConn) SetReadDeadline(t time.Time) error { return c.Conn.SetReadDeadline(c.bounded(t)) }

// SetWriteDeadline implements net.Conn.
func (c *boundedConn) SetWriteDeadline(t time.Time) error {
	return c.Conn.SetWriteDeadline(c.bounded(t))
}

func (c *boundedConn) bounded(t time.Time) time.Time {
	if !c.deadline.IsZero() && (t.IsZero() || t.After(c.deadline)) {
		return c.deadline
	}
	return t
}
