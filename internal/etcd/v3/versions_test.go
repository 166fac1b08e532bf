package v3

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// versionServer answers as a leader whose cluster has a version does.
type versionServer struct {
	etcdserverpb.UnimplementedMaintenanceServer
	etcdserverpb.UnimplementedKVServer
	// version is the member's, minor the cluster's. isOld tells that its status has no fields of 3.6.
	version, storage string
	minor            string
	isOld, learner   bool
	target           string // of a downgrade that is enabled
	// failure is the answer to each question for the cluster version; nil for etcd's.
	failure error
	// silent tells that the member cancels a downgrade and does not answer, as 3.5.
	silent bool
	// keepsDowngrade tells that the member says that it cancels a downgrade, and does not.
	keepsDowngrade bool

	mu    sync.Mutex
	asked []string // the minor versions that VALIDATE was asked for
}

func (s *versionServer) Status(context.Context, *etcdserverpb.StatusRequest) (*etcdserverpb.StatusResponse, error) {
	header := &etcdserverpb.ResponseHeader{ClusterId: 0xc1, MemberId: 0xa0}
	answer := &etcdserverpb.StatusResponse{Header: header, Version: s.version, Leader: 0xa0, IsLearner: s.learner}
	if !s.isOld {
		answer.StorageVersion = s.storage
		answer.DowngradeInfo = &etcdserverpb.DowngradeInfo{Enabled: s.target != "", TargetVersion: s.target}
	}
	return answer, nil
}

func (s *versionServer) Range(context.Context, *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	return &etcdserverpb.RangeResponse{}, nil
}

func (s *versionServer) Downgrade(ctx context.Context, r *etcdserverpb.DowngradeRequest) (*etcdserverpb.DowngradeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failure != nil:
		return nil, s.failure
	case r.Action == etcdserverpb.DowngradeRequest_CANCEL:
		if s.isOld && s.target == "" {
			return nil, rpctypes.ErrGRPCNoInflightDowngrade
		}
		if !s.keepsDowngrade {
			s.target = ""
		}
		if s.silent {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return &etcdserverpb.DowngradeResponse{}, nil
	}
	s.asked = append(s.asked, r.Version)
	switch {
	case cluster.NextMinor(r.Version, 1) != s.minor:
		return nil, rpctypes.ErrGRPCInvalidDowngradeTargetVersion
	case s.target != "":
		return nil, rpctypes.ErrGRPCDowngradeInProcess
	}
	return &etcdserverpb.DowngradeResponse{Version: s.minor}, nil
}

func (s *versionServer) serve(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	etcdserverpb.RegisterMaintenanceServer(server, s)
	etcdserverpb.RegisterKVServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func TestAProbeTellsTheVersions(t *testing.T) {
	for name, test := range map[string]struct {
		server *versionServer
		want   cluster.Probe
		asked  []string
	}{
		"at rest": {&versionServer{version: "3.7.3", storage: "3.7.0", minor: "3.7"},
			cluster.Probe{ClusterVersion: "3.7", StorageVersion: "3.7"}, []string{"3.6"}},
		"3.5 at rest": {&versionServer{version: "3.5.35", minor: "3.5", isOld: true},
			cluster.Probe{ClusterVersion: "3.5"}, []string{"3.4"}},
		"an upgraded member of an older cluster": {&versionServer{version: "3.6.16", storage: "3.5.0", minor: "3.5"},
			cluster.Probe{ClusterVersion: "3.5", StorageVersion: "3.5"}, []string{"3.5", "3.4"}},
		"a new cluster": {&versionServer{version: "3.6.16", minor: "3.0"}, cluster.Probe{}, []string{"3.5", "3.4"}},
		"a downgrade before the cluster version is lowered": {&versionServer{version: "3.7.3", storage: "3.7.0", minor: "3.7", target: "3.6.0"},
			cluster.Probe{ClusterVersion: "3.7", StorageVersion: "3.7", DowngradeEnabled: true, DowngradeTarget: "3.6"}, []string{"3.6"}},
		"a downgrade afterwards": {&versionServer{version: "3.7.3", storage: "3.6.0", minor: "3.6", target: "3.6.0"},
			cluster.Probe{ClusterVersion: "3.6", StorageVersion: "3.6", DowngradeEnabled: true, DowngradeTarget: "3.6"}, []string{"3.6"}},
		"a member that was downgraded": {&versionServer{version: "3.6.16", storage: "3.6.0", minor: "3.6", target: "3.6.0"},
			cluster.Probe{ClusterVersion: "3.6", StorageVersion: "3.6", DowngradeEnabled: true, DowngradeTarget: "3.6"}, []string{"3.6"}},
		"a member that was downgraded to 3.5": {&versionServer{version: "3.5.35", minor: "3.5", target: "3.5.0", isOld: true},
			cluster.Probe{ClusterVersion: "3.5", DowngradeEnabled: true}, []string{"3.4"}},
		"a learner": {&versionServer{version: "3.6.16", storage: "3.6.0", minor: "3.6", learner: true},
			cluster.Probe{StorageVersion: "3.6", Learner: true}, nil},
		"no cluster version yet": {&versionServer{version: "3.6.16", failure: status.Error(codes.Unknown, etcd.ErrNoClusterVersion.Error())},
			cluster.Probe{}, nil},
		"no permission":  {&versionServer{version: "3.6.16", failure: rpctypes.ErrGRPCPermissionDenied}, cluster.Probe{}, nil},
		"another answer": {&versionServer{version: "3.6.16", failure: status.Error(codes.Unimplemented, "no")}, cluster.Probe{}, nil},
		"invalid versions": {&versionServer{version: "nine", storage: "3.6.0\n", minor: "3.6", target: "\x1b"},
			cluster.Probe{DowngradeEnabled: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := New().Probe(t.Context(), etcd.Endpoint{Address: test.server.serve(t)})
			if err != nil || got.Linearizable == test.server.learner {
				t.Fatalf("got %+v, %v", got, err)
			}
			want := test.want
			want.ClusterID, want.MemberID, want.Leader = 0xc1, 0xa0, 0xa0
			want.Version, want.Linearizable = cluster.ForeignVersion(test.server.version), !want.Learner
			if got.ClusterVersion != want.ClusterVersion || got.StorageVersion != want.StorageVersion ||
				got.DowngradeEnabled != want.DowngradeEnabled || got.DowngradeTarget != want.DowngradeTarget {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if !slices.Equal(test.server.asked, test.asked) {
				t.Errorf("asked for %q, want %q", test.server.asked, test.asked)
			}
		})
	}
}

func TestAtRestNobodyIsAskedForTheClusterVersion(t *testing.T) {
	server := &versionServer{version: "3.7.3", storage: "3.7.0", minor: "3.7"}
	got, err := New().Probe(t.Context(), etcd.Endpoint{Address: server.serve(t), AtRest: true})
	if err != nil || !got.Linearizable || got.StorageVersion != "3.7" || got.ClusterVersion != "" || len(server.asked) > 0 {
		t.Errorf("got %+v, %v, asked for %q", got, err, server.asked)
	}
}

func TestACancelledDowngradeIsEnabledNoMore(t *testing.T) {
	for name, test := range map[string]struct {
		server *versionServer
		want   error
	}{
		"a downgrade":  {&versionServer{version: "3.6.16", target: "3.5.0"}, nil},
		"no downgrade": {&versionServer{version: "3.6.16"}, nil},
		"a downgrade that 3.5 does not answer for": {&versionServer{version: "3.5.35", isOld: true, target: "3.5.0", silent: true}, nil},
		"no downgrade of 3.5":                      {&versionServer{version: "3.5.35", isOld: true}, nil},
		"a downgrade that only says that it ends":  {&versionServer{version: "3.6.16", target: "3.5.0", keepsDowngrade: true}, errNotCancelled},
	} {
		err := New().CancelDowngrade(t.Context(), targetAt(test.server.serve(t)))
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}
