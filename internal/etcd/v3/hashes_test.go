package v3

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// A hash that another member answered, or that cannot be read, is no hash of this one.
func TestAHashIsOfTheExpectedMemberOnly(t *testing.T) {
	hashOf := func(clusterID, memberID uint64) func(grpc.ServerStream) error {
		header := &etcdserverpb.ResponseHeader{ClusterId: clusterID, MemberId: memberID}
		return say(&etcdserverpb.HashKVResponse{Header: header, Hash: 7, CompactRevision: 3})
	}
	wrongMember := func(err error) bool { var e *etcd.WrongMemberError; return errors.As(err, &e) }
	anyError := func(err error) bool { return err != nil && !wrongMember(err) }
	for name, test := range map[string]struct {
		answers answers
		failsAs func(error) bool
	}{
		"its own":                    {honest(), nil},
		"another member's":           {honest().but(methodHash, hashOf(0xc1, 0xa1)), wrongMember},
		"another cluster's":          {honest().but(methodHash, hashOf(0xc2, 0xa0)), wrongMember},
		"of no member":               {honest().but(methodHash, say(&etcdserverpb.HashKVResponse{Hash: 7})), wrongMember},
		"after another one's status": {honest().but(methodStatus, statusOf(0xc1, 0xa1, 0xa1)), wrongMember},
		"garbage":                    {honest().but(methodHash, sayBytes(megabytes(1)...)), anyError},
		"64 MiB":                     {honest().but(methodHash, sayBytes(megabytes(64)...)), anyError},
	} {
		hash, err := New().Hash(t.Context(), targetAt(serveGRPC(t, test.answers)), 5)
		switch {
		case test.failsAs == nil && (err != nil || hash != cluster.DataHash{Hash: 7, CompactRevision: 3}):
			t.Errorf("%s: %v, %v", name, hash, err)
		case test.failsAs != nil && (!test.failsAs(err) || hash != cluster.DataHash{}):
			t.Errorf("%s: %v, %v", name, hash, err)
		}
	}
}
