package conversion

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
)

// The server in front of this package bounds the bodies. The limits here bound what is made of them,
// also for clients that send what no API server sends.
const (
	// maxObjectBytes is more than an API server accepts (3 MiB) and etcd stores (1.5 MiB by default).
	maxObjectBytes = 4 << 20
	// maxObjectStructs bounds the JSON objects in one EtcdCluster: a decoded "{}" takes up to 50 times its bytes.
	// A valid EtcdCluster of 1.5 MiB has fewer.
	maxObjectStructs = 100_000
	// maxVersionBytes is more than any apiVersion takes.
	maxVersionBytes = 256
	// bytesPerObject is what is held for each object beside its text: slices, and an error.
	bytesPerObject = 128
	// maxDecoders is how many objects are decoded at once, over all requests.
	maxDecoders = 4
)

// decoders holds a token for each object that is decoded.
var decoders = make(chan struct{}, min(runtime.GOMAXPROCS(0), maxDecoders))

// Body is the body of a request that the server read and bounded before it called the handler.
type Body interface {
	// Bytes returns the content without a copy.
	Bytes() []byte
	// Reserve takes memory for n bytes that are made of the content. It fails where too much is held.
	Reserve(n int) error
}

// receive returns the body, and a function that reserves memory. Tests call the handler without a limiting server.
func receive(r *http.Request) (body []byte, reserve func(int) error, err error) {
	if bounded, ok := r.Body.(Body); ok {
		return bounded.Bytes(), bounded.Reserve, nil
	}
	body, err = io.ReadAll(r.Body)
	return body, func(int) error { return nil }, err
}

// checkSize refuses an object before it is decoded.
func checkSize(raw []byte) error {
	if len(raw) > maxObjectBytes {
		return fmt.Errorf("it has %d bytes, more than the %d that an API server accepts", len(raw), maxObjectBytes)
	}
	return nil
}

// checkStructs refuses parts of an object that would take many times their bytes when they are decoded.
// Annotations count too: those of this package hold JSON.
func (o *object) checkStructs() error {
	length := len(o.spec) + len(o.status)
	for _, saved := range o.annotations {
		length += len(saved)
	}
	if length <= maxObjectStructs {
		return nil // each takes a byte at least, so there is no need to count
	}
	n := countStructs(o.spec) + countStructs(o.status)
	for _, saved := range o.annotations {
		n += countStructs([]byte(saved))
	}
	if n > maxObjectStructs {
		return errors.New("its spec, status and saved fields hold too many JSON objects")
	}
	return nil
}

// countStructs counts JSON objects and nulls outside of strings.
func countStructs(raw []byte) (n int) {
	inString := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == '{' || c == 'n'):
			n++
		}
	}
	return n
}
