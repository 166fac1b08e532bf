// Package appendlog appends entries to an etcd cluster while something happens to it. Afterwards it proves that every
// acknowledged entry is there, once and in order, and tells how long no entry was acknowledged.
package appendlog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// defaultEvery is the time between two attempts of one writer. An attempt does not wait for the one before it.
	defaultEvery = 20 * time.Millisecond
	// defaultWriters is how many writers, each with a connection of its own, write to one member.
	defaultWriters = 2
	// attemptTimeout ends an attempt. It is never made again.
	attemptTimeout = 5 * time.Second
	// refreshEvery is how often the writers learn where the members are.
	refreshEvery = 100 * time.Millisecond
	// pageSize is how many entries one read returns.
	pageSize = 5000
)

// Options say how entries are written.
type Options struct {
	// Members returns the address (host and port) of each member by name. A member that is down may be left out.
	Members func(context.Context) (map[string]string, error)
	// TLS is the clients' configuration; nil where traffic is not encrypted.
	TLS *tls.Config
	// Prefix of every key. It must not be used by two logs of one cluster.
	Prefix string
	// Every is the time between two attempts of one writer; zero is 20 ms.
	Every time.Duration
	// Writers is how many writers are pinned to each member; zero is 2.
	Writers int
	// Connect makes the connections of the writers; nil connects without retries.
	Connect func(address string) (Connection, error)
}

// Connection carries the attempts of one writer.
type Connection interface {
	grpc.ClientConnInterface
	io.Closer
}

// Entry is one attempt to append.
type Entry struct {
	Key string
	// Sent and Acknowledged are when the attempt began and when etcd acknowledged it; the second is zero if it did not.
	Sent, Acknowledged time.Time
	// Revision is that of the acknowledged write.
	Revision int64
	// Err is why the attempt was not acknowledged. The entry may be in the log all the same.
	Err error
}

// Log is written until it is stopped.
type Log struct {
	options Options
	cancel  context.CancelFunc
	work    sync.WaitGroup
	// attempts is held by each attempt, and alone by a pause.
	attempts sync.RWMutex

	mu        sync.Mutex
	addresses map[string]string
	writers   map[string]bool
	entries   []Entry
}

// Start begins to write. Writers of members that appear later start when they appear.
func Start(ctx context.Context, o Options) (*Log, error) {
	if o.Every == 0 {
		o.Every = defaultEvery
	}
	if o.Writers == 0 {
		o.Writers = defaultWriters
	}
	if o.Connect == nil {
		o.Connect = func(address string) (Connection, error) { return connect(address, o.TLS) }
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Log{options: o, cancel: cancel, writers: map[string]bool{}}
	if err := l.refresh(ctx); err != nil {
		cancel()
		return nil, err
	}
	l.work.Go(func() {
		for tick(ctx, refreshEvery) {
			_ = l.refresh(ctx) // until the next look, the writers use the addresses that they know
		}
	})
	return l, nil
}

// Stop ends the writing, waits for the attempts that are under way, and returns all entries in the order of sending.
func (l *Log) Stop() []Entry {
	l.cancel()
	l.work.Wait()
	return l.Entries()
}

// Pause waits for the attempts that are under way, and begins no other one until it is resumed.
func (l *Log) Pause() (resume func()) {
	l.attempts.Lock()
	return l.attempts.Unlock
}

// Entries returns the attempts that have ended so far, in the order of sending.
func (l *Log) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(slices.Values(l.entries), func(a, b Entry) int { return a.Sent.Compare(b.Sent) })
}

// tick waits. It reports false when the context has ended.
func tick(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (l *Log) refresh(ctx context.Context) error {
	addresses, err := l.options.Members(ctx)
	if err != nil {
		return fmt.Errorf("looking for the members: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addresses = addresses
	for name := range addresses {
		if l.writers[name] {
			continue
		}
		l.writers[name] = true
		for n := range l.options.Writers {
			l.work.Go(func() { l.write(ctx, name, n) })
		}
	}
	return nil
}

func (l *Log) address(member string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addresses[member]
}

// write makes one attempt after the other, all to one member over one connection. Where the member's address changes,
// it connects anew.
func (l *Log) write(ctx context.Context, member string, n int) {
	var at string
	var connection Connection
	var attempts sync.WaitGroup
	defer func() {
		attempts.Wait()
		if connection != nil {
			_ = connection.Close()
		}
	}()
	ticker := time.NewTicker(l.options.Every)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		address := l.address(member)
		if address == "" {
			continue
		}
		if address != at {
			next, err := l.options.Connect(address)
			if err != nil {
				continue
			}
			if before := connection; before != nil {
				attempts.Go(func() { tick(ctx, attemptTimeout); _ = before.Close() })
			}
			at, connection = address, next
		}
		key, to := fmt.Sprintf("%s/%s-%d/%08d", l.options.Prefix, member, n, i), connection
		attempts.Go(func() { l.append(context.WithoutCancel(ctx), to, key) })
	}
}

// append makes one attempt, if there is no pause. The entry is written only if it does not exist yet.
func (l *Log) append(ctx context.Context, to Connection, key string) {
	if !l.attempts.TryRLock() {
		return
	}
	defer l.attempts.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	request := &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{{
			Key: []byte(key), Target: etcdserverpb.Compare_VERSION, Result: etcdserverpb.Compare_EQUAL,
			TargetUnion: &etcdserverpb.Compare_Version{Version: 0},
		}},
		Success: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestPut{
			RequestPut: &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(key)},
		}}},
	}
	entry := Entry{Key: key, Sent: time.Now()}
	response, err := etcdserverpb.NewKVClient(to).Txn(ctx, request)
	switch {
	case err != nil:
		entry.Err = err
	case !response.Succeeded:
		entry.Err = errors.New("the entry existed before it was written")
	default:
		entry.Acknowledged, entry.Revision = time.Now(), response.Header.Revision
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry)
}

// connect returns a connection that sends each request once.
func connect(address string, config *tls.Config) (*grpc.ClientConn, error) {
	secure := insecure.NewCredentials()
	if config != nil {
		secure = credentials.NewTLS(config)
	}
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(secure), grpc.WithDisableRetry())
}

// LongestGap returns the longest time between from and to in which no entry was acknowledged, and when it began.
func LongestGap(entries []Entry, from, to time.Time) (gap time.Duration, began time.Time) {
	times := []time.Time{from, to}
	for _, e := range entries {
		if e.Acknowledged.After(from) && e.Acknowledged.Before(to) {
			times = append(times, e.Acknowledged)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 1; i < len(times); i++ {
		if d := times[i].Sub(times[i-1]); d > gap {
			gap, began = d, times[i-1]
		}
	}
	return gap, began
}

// Acknowledged counts the acknowledged entries.
func Acknowledged(entries []Entry) int {
	n := 0
	for _, e := range entries {
		if !e.Acknowledged.IsZero() {
			n++
		}
	}
	return n
}

// Verify reads the log from one member, linearizably, and compares it with the entries. Each acknowledged entry is
// there under the revision of its acknowledgement. Every entry was written once.
// An entry that was acknowledged before another one was sent has the lower revision.
func (l *Log) Verify(ctx context.Context, entries []Entry) error {
	stored, err := l.read(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		kv := stored[e.Key]
		switch {
		case !e.Acknowledged.IsZero() && kv == nil:
			faults = append(faults, fmt.Errorf("%s was acknowledged at revision %d and is lost", e.Key, e.Revision))
		case !e.Acknowledged.IsZero() && kv.created != e.Revision:
			faults = append(faults, fmt.Errorf("%s was acknowledged at revision %d and stands at %d", e.Key, e.Revision, kv.created))
		case kv != nil && kv.version != 1:
			faults = append(faults, fmt.Errorf("%s was written %d times", e.Key, kv.version))
		}
		delete(stored, e.Key)
	}
	for key := range stored {
		faults = append(faults, fmt.Errorf("%s was never sent", key))
	}
	faults = append(faults, outOfOrder(entries)...)
	if len(faults) > 10 {
		faults = append(faults[:10], fmt.Errorf("and %d faults more", len(faults)-10))
	}
	return errors.Join(faults...)
}

// outOfOrder finds entries whose revision is below that of an entry which was sent only after they were acknowledged.
func outOfOrder(entries []Entry) []error {
	var faults []error
	var acknowledged []Entry
	for _, e := range entries {
		if !e.Acknowledged.IsZero() {
			acknowledged = append(acknowledged, e)
		}
	}
	slices.SortFunc(acknowledged, func(a, b Entry) int { return int(a.Revision - b.Revision) })
	var latest Entry // of those with a lower revision, the one that was sent last
	for _, e := range acknowledged {
		if !latest.Sent.IsZero() && e.Acknowledged.Before(latest.Sent) {
			faults = append(faults, fmt.Errorf("%s (revision %d) was sent after %s (revision %d) was acknowledged",
				latest.Key, latest.Revision, e.Key, e.Revision))
		}
		if e.Sent.After(latest.Sent) {
			latest = e
		}
	}
	return faults
}

type storedEntry struct{ created, version int64 }

// read returns what the log holds. It asks the members in turn until one answers.
func (l *Log) read(ctx context.Context) (map[string]*storedEntry, error) {
	addresses, err := l.options.Members(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for the members: %w", err)
	}
	var failures []error
	for name, address := range addresses {
		stored, err := l.readFrom(ctx, address)
		if err == nil {
			return stored, nil
		}
		failures = append(failures, fmt.Errorf("reading the log from %s: %w", name, err))
	}
	return nil, errors.Join(append(failures, errors.New("no member returned the log"))...)
}

func (l *Log) readFrom(ctx context.Context, address string) (map[string]*storedEntry, error) {
	connection, err := connect(address, l.options.TLS)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	stored := map[string]*storedEntry{}
	request := &etcdserverpb.RangeRequest{
		Key: []byte(l.options.Prefix + "/"), RangeEnd: []byte(l.options.Prefix + "0"), Limit: pageSize, // '0' follows '/'
	}
	for {
		bounded, cancel := context.WithTimeout(ctx, attemptTimeout)
		response, err := etcdserverpb.NewKVClient(connection).Range(bounded, request)
		cancel()
		if err != nil {
			return nil, err
		}
		for _, kv := range response.Kvs {
			stored[string(kv.Key)] = &storedEntry{created: kv.CreateRevision, version: kv.Version}
		}
		if !response.More {
			return stored, nil
		}
		request.Revision = response.Header.Revision // every page is of the same moment
		if len(response.Kvs) > 0 {
			request.Key = append(slices.Clone(response.Kvs[len(response.Kvs)-1].Key), 0)
		}
	}
}
