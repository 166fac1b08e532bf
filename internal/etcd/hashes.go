package etcd

import (
	"context"
	"errors"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Hasher asks members for hashes of their data.
type Hasher interface {
	// Hash returns the hash of all keys that the member has at a revision. As a Changer does, it first verifies whose
	// answer it is.
	//
	// The member scans its whole database for it. Meanwhile it answers nothing else: HashKV holds the lock of the store.
	// It fails with ErrCompacted or ErrFutureRevision. Made again, it computes the hash again.
	// Source: hashByRev in etcd's server/storage/mvcc/kvstore.go.
	Hash(ctx context.Context, target Target, revision int64) (cluster.DataHash, error)
}

// The errors of Hash in etcd's words.
var (
	// ErrCompacted: the member has compacted the revision.
	ErrCompacted = errors.New("etcdserver: mvcc: required revision has been compacted")
	// ErrFutureRevision: the member has not applied the revision yet.
	ErrFutureRevision = errors.New("etcdserver: mvcc: required revision is a future revision")
)
