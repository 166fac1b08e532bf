// Package v3 connects to members of etcd 3.5 and later. It is the only package that imports etcd's client.
package v3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// probeKey is the key that a probe reads. It need not exist. etcdctl endpoint health reads the same key.
const probeKey = "health"

// Port opens one connection for each call and closes it afterwards.
type Port struct{}

var _ etcd.Port = Port{}

// New returns the port to real members.
func New() Port { return Port{} }

// Probe implements etcd.Port.
func (Port) Probe(ctx context.Context, endpoint etcd.Endpoint) (cluster.Probe, error) {
	member, err := connect(ctx, endpoint)
	if err != nil {
		return cluster.Probe{}, err
	}
	defer member.close()
	status, err := member.maintenance.Status(ctx, endpoint.Address)
	if err != nil {
		return cluster.Probe{}, member.explain(ctx, err)
	}
	probe := cluster.Probe{
		ClusterID: cluster.ID(status.Header.GetClusterId()),
		MemberID:  cluster.ID(status.Header.GetMemberId()),
		Leader:    cluster.ID(status.Leader),
		Version:   cluster.ForeignVersion(status.Version),
		Learner:   status.IsLearner,

		Term:           status.RaftTerm,
		CommittedIndex: status.RaftIndex,
		AppliedIndex:   status.RaftAppliedIndex,
		DatabaseBytes:  status.DbSize,
		Revision:       status.Header.GetRevision(),

		DatabaseBytesInUse: status.DbSizeInUse,
	}
	for _, text := range status.Errors[:min(len(status.Errors), maxAlarms)] {
		// ForeignText also normalizes the spaces of a printed alarm. They differ between builds of etcd.
		probe.Errors = append(probe.Errors, cluster.ForeignText(text))
	}
	probe.StorageVersion = cluster.MinorOf(cluster.ForeignVersion(status.StorageVersion))
	if downgrade := status.DowngradeInfo; downgrade.GetEnabled() {
		probe.DowngradeEnabled = true
		probe.DowngradeTarget = cluster.MinorOf(cluster.ForeignVersion(downgrade.TargetVersion))
	}
	if !probe.Learner && probe.Leader != 0 {
		member.asksQuorum(ctx, &probe, endpoint.AtRest)
	}
	return probe, nil
}

// asksQuorum adds what a member tells after it has reached a quorum. Both questions are asked at once.
func (m *member) asksQuorum(ctx context.Context, probe *cluster.Probe, atRest bool) {
	var asked sync.WaitGroup
	asked.Go(func() { probe.Linearizable = m.reads(ctx) })
	if !atRest {
		m.readClusterVersion(ctx, probe)
	}
	asked.Wait()
}

// Membership implements etcd.Port.
func (Port) Membership(ctx context.Context, endpoint etcd.Endpoint) (cluster.Membership, error) {
	member, err := connect(ctx, endpoint)
	if err != nil {
		return cluster.Membership{}, err
	}
	defer member.close()
	ctx = clientv3.WithRequireLeader(ctx)
	list, err := member.client.MemberList(ctx)
	if err != nil {
		return cluster.Membership{}, member.explain(ctx, err)
	}
	alarms, err := member.alarms(ctx, endpoint)
	if err != nil {
		return cluster.Membership{}, member.explain(ctx, err)
	}
	return membership(list, alarms)
}

// alarms lists the alarms only if the member's status reports one. Listing them appends an entry to the log of every
// member, and a resting cluster writes nothing.
func (m *member) alarms(ctx context.Context, endpoint etcd.Endpoint) ([]*etcdserverpb.AlarmMember, error) {
	status, err := m.maintenance.Status(ctx, endpoint.Address)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(status.Errors, func(text string) bool { return strings.Contains(text, "alarm:") }) {
		return nil, nil
	}
	list, err := m.maintenance.AlarmList(ctx)
	if err != nil {
		return nil, err
	}
	return list.Alarms, nil
}

func membership(list *clientv3.MemberListResponse, alarms []*etcdserverpb.AlarmMember) (cluster.Membership, error) {
	if len(list.Members) > cluster.MaxMembers || len(alarms) > maxAlarms {
		return cluster.Membership{}, fmt.Errorf("the member lists %d members and %d alarms, and the limits are %d and %d",
			len(list.Members), len(alarms), cluster.MaxMembers, maxAlarms)
	}
	result := cluster.Membership{ClusterID: cluster.ID(list.Header.GetClusterId()), Members: etcdMembers(list.Members)}
	for _, alarm := range alarms {
		if alarm.Alarm != etcdserverpb.AlarmType_NONE {
			kind := cluster.AlarmKind(alarm.Alarm.String())
			result.Alarms = append(result.Alarms, cluster.Alarm{Member: cluster.ID(alarm.MemberID), Kind: kind})
		}
	}
	slices.SortFunc(result.Alarms, func(a, b cluster.Alarm) int {
		return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.Kind, b.Kind))
	})
	return result, nil
}

// etcdMembers returns the entries of a member list, ordered by ID.
func etcdMembers(list []*etcdserverpb.Member) []cluster.EtcdMember {
	var members []cluster.EtcdMember
	for _, m := range list {
		members = append(members, cluster.EtcdMember{
			ID: cluster.ID(m.ID), Name: cluster.ForeignText(m.Name), PeerURLs: urls(m.PeerURLs), Learner: m.IsLearner,
			Started: len(m.ClientURLs) > 0,
		})
	}
	slices.SortFunc(members, func(a, b cluster.EtcdMember) int { return cmp.Compare(a.ID, b.ID) })
	return members
}

// urls returns the first URLs of a member, sorted.
func urls(list []string) []string {
	var result []string
	for _, url := range list[:min(len(list), maxURLs)] {
		if len(url) > maxURLBytes {
			url = cluster.ForeignText(url)
		}
		result = append(result, cluster.OneLine(url))
	}
	slices.Sort(result)
	return result
}

// member is an open connection to one member.
type member struct {
	client      *clientv3.Client
	maintenance clientv3.Maintenance // uses the client's connection; the one of clientv3.Client dials again
	transport   *transport
}

func connect(ctx context.Context, endpoint etcd.Endpoint) (*member, error) {
	transport, err := newTransport(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	return transport.connect(endpoint)
}

// connectOnce opens a connection that is never made again. gRPC reconnects by itself, perhaps to another process.
func connectOnce(ctx context.Context, endpoint etcd.Endpoint) (*member, error) {
	transport, err := newTransport(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	transport.once = true
	return transport.connect(endpoint)
}

func (t *transport) connect(endpoint etcd.Endpoint) (*member, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint.Address},
		Logger:    zap.NewNop(),
		// One attempt: the caller asks again in its next pass.
		MaxUnaryRetries:    1,
		MaxCallSendMsgSize: maxRequestBytes,
		MaxCallRecvMsgSize: maxMessageBytes,
		DialOptions: []grpc.DialOption{
			grpc.WithMaxHeaderListSize(maxHeaderBytes),
			// Static windows: gRPC otherwise lets a fast sender grow them to 16 MiB.
			grpc.WithStaticStreamWindowSize(windowBytes),
			grpc.WithStaticConnWindowSize(windowBytes),
			grpc.WithDisableServiceConfig(),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec())),
			grpc.WithTransportCredentials(t.credentials),
			grpc.WithContextDialer(t.dial), // gRPC's own dialer obeys the proxy settings of the environment
			grpc.WithChainUnaryInterceptor(failFast),
		},
	})
	if err != nil {
		return nil, err
	}
	remote := etcdserverpb.NewMaintenanceClient(client.ActiveConnection())
	return &member{
		client:      client,
		maintenance: clientv3.NewMaintenanceFromMaintenanceClient(remote, client),
		transport:   t,
	}, nil
}

// failFast ends a call when the connection cannot be made. By default the client waits until the deadline.
func failFast(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	return invoke(ctx, method, request, reply, conn, append(options, grpc.WaitForReady(false))...)
}

func (m *member) close() {
	_ = m.client.Close() // its only error says that the client is closed
}

// reads reports whether the member answers a linearizable read. With authentication enabled, the member refuses the
// read only after it has reached a quorum, so a refusal counts as an answer.
func (m *member) reads(ctx context.Context) bool {
	_, err := m.client.Get(clientv3.WithRequireLeader(ctx), probeKey, clientv3.WithCountOnly())
	return err == nil || errors.Is(err, rpctypes.ErrPermissionDenied)
}

// readClusterVersion finds out the cluster version. No call tells it on the connection that shows whose answer it is,
// but the answer to whether a downgrade would be allowed depends on it: etcd first compares the cluster version, then
// looks whether a downgrade is enabled, in downgradeValidate of server/etcdserver/v3_server.go (3.5), and in
// DowngradeValidate of server/etcdserver/version/version.go (3.6, 3.7).
func (m *member) readClusterVersion(ctx context.Context, probe *cluster.Probe) {
	// It is at most the member's own minor version, and at most one below.
	candidates := []string{cluster.MinorOf(probe.Version), cluster.NextMinor(probe.Version, -1)}
	if probe.DowngradeTarget != "" {
		// It is one above the target, or soon the target. Other questions would be answered with what etcd counts as a
		// failure, for which there are alerts.
		candidates = []string{cluster.NextMinor(probe.DowngradeTarget, 1)}
	}
	for _, candidate := range candidates {
		if candidate == "" {
			return
		}
		_, err := m.maintenance.Downgrade(clientv3.WithRequireLeader(ctx), clientv3.DowngradeValidate, cluster.NextMinor(candidate, -1))
		isInvalid := errors.Is(err, rpctypes.ErrInvalidDowngradeTargetVersion)
		switch {
		case err == nil:
			probe.ClusterVersion = candidate
		case errors.Is(err, rpctypes.ErrDowngradeInProcess):
			probe.ClusterVersion, probe.DowngradeEnabled = candidate, true
		case isInvalid:
			probe.ClusterVersion = probe.DowngradeTarget
		}
		if !isInvalid {
			return
		}
	}
}
