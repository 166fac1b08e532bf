package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

// The webhook's port is open to every pod of the cluster, and API servers send no client certificate.
// So these limits hold for every client. docs/adr/0005 adds them up.
const (
	// maxBodyBytes is the largest body that is accepted: about 30,000 EtcdClusters in one list.
	maxBodyBytes = 64 << 20
	// maxBodyBytesInFlight bounds the bodies of all requests together.
	maxBodyBytesInFlight = 128 << 20
	// maxWorkBytes bounds what is made of these bodies: their contiguous copies and the converted objects.
	maxWorkBytes = 192 << 20

	// smallRequestBytes is what one or a few EtcdClusters take.
	smallRequestBytes = 1 << 20
	// reservedForSmallBytes of each budget can only be taken by small requests.
	// So reading and writing single objects works while large bodies fill the rest.
	reservedForSmallBytes = 16 << 20

	firstChunkBytes = 4 << 10
	maxChunkBytes   = 1 << 20

	// retryAfterSeconds is for clients that understand it. The API server does not retry a conversion.
	retryAfterSeconds = "1"
)

// errBusy is the error of a request that no memory is left for.
var errBusy = errors.New("the conversion webhook holds too much data of other requests; try again")

// errTooLarge is the error of a body above maxBodyBytes.
var errTooLarge = fmt.Errorf("the body is larger than %d MiB; write a lower limit in the list request", maxBodyBytes>>20)

// budget counts the bytes that all requests together hold.
type budget struct {
	max  int64
	mu   sync.Mutex
	used int64
}

// take adds n bytes to those that one request holds already. It reports whether they fit.
func (b *budget) take(n, held int64) bool {
	available := b.max
	if held+n > smallRequestBytes {
		available -= reservedForSmallBytes
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > available {
		return false
	}
	b.used += n
	return true
}

func (b *budget) release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
}

// limitedHandler reads each body within the limits before it calls the next handler.
type limitedHandler struct {
	next   http.Handler
	bodies budget
	work   budget
}

// Limit returns a handler that bounds the requests to next.
func Limit(next http.Handler) http.Handler { return newLimitedHandler(next) }

func newLimitedHandler(next http.Handler) *limitedHandler {
	return &limitedHandler{next: next, bodies: budget{max: maxBodyBytesInFlight}, work: budget{max: maxWorkBytes}}
}

// ServeHTTP answers 405, 408, 413 or 503 where a limit is reached. It releases all memory when the answer is written.
func (h *limitedHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, errors.New("only POST is allowed"))
		return
	}
	if r.ContentLength > maxBodyBytes {
		refuse(w, http.StatusRequestEntityTooLarge, errTooLarge)
		return
	}
	body := &requestBody{handler: h}
	defer body.release()
	if err := body.readFrom(r.Body); err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	r.Body = body
	h.next.ServeHTTP(w, r)
}

// refuse answers an error. The connection ends with it, because the rest of the body is not read.
func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Connection", "close")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfterSeconds)
	}
	http.Error(w, "receiving a ConversionReview: "+err.Error(), status)
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, errTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errBusy):
		return http.StatusServiceUnavailable
	case errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout
	default:
		return http.StatusBadRequest
	}
}

// requestBody is a body in memory. It implements conversion.Body.
type requestBody struct {
	io.ReadCloser
	handler *limitedHandler
	content []byte
	// bodyBytes and workBytes are what this request took from the two budgets.
	bodyBytes int64
	// mu guards workBytes: several goroutines convert the objects of one request.
	mu        sync.Mutex
	workBytes int64
}

// readFrom reads the whole body in chunks. A chunk is allocated when the chunk before it is full.
// So a claimed Content-Length costs nothing, and a slow client holds at most twice what it sent.
func (b *requestBody) readFrom(source io.Reader) error {
	var chunks [][]byte
	for size := int64(firstChunkBytes); b.bodyBytes < maxBodyBytes; size = min(2*size, maxChunkBytes) {
		size = min(size, maxBodyBytes-b.bodyBytes)
		if !b.handler.bodies.take(size, b.bodyBytes) {
			return errBusy
		}
		b.bodyBytes += size
		chunk, err := readChunk(source, size)
		chunks = append(chunks, chunk)
		if errors.Is(err, io.EOF) {
			return b.join(chunks)
		}
		if err != nil {
			return err
		}
	}
	if rest, err := readChunk(source, 1); len(rest) > 0 || !errors.Is(err, io.EOF) {
		return errTooLarge
	}
	return b.join(chunks)
}

// readChunk reads until size bytes are there or the source returns an error, io.EOF at its end.
func readChunk(source io.Reader, size int64) ([]byte, error) {
	chunk := make([]byte, size)
	for n := 0; ; {
		read, err := source.Read(chunk[n:])
		n += read
		if err != nil || n == len(chunk) {
			return chunk[:n], err
		}
	}
}

// join makes the content contiguous, as the conversion needs it.
func (b *requestBody) join(chunks [][]byte) error {
	if len(chunks) == 1 {
		b.content = chunks[0]
	} else {
		length := 0
		for _, chunk := range chunks {
			length += len(chunk)
		}
		if err := b.Reserve(length); err != nil {
			return err
		}
		b.content = make([]byte, 0, length)
		for i, chunk := range chunks {
			b.content, chunks[i] = append(b.content, chunk...), nil
		}
	}
	b.ReadCloser = io.NopCloser(bytes.NewReader(b.content))
	return nil
}

// Bytes returns the content without a copy.
func (b *requestBody) Bytes() []byte { return b.content }

// Reserve takes memory for n bytes that are made of this body. It fails where too much is held.
func (b *requestBody) Reserve(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.handler.work.take(int64(n), b.workBytes) {
		return errBusy
	}
	b.workBytes += int64(n)
	return nil
}

func (b *requestBody) release() {
	b.handler.bodies.release(b.bodyBytes)
	b.handler.work.release(b.workBytes)
}
