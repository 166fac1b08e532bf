package v3

import (
	"context"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

var _ etcd.Hasher = Port{}

// Hash implements etcd.Hasher. The status and the hash come over one connection, which is never made again, and the
// answer names its member once more.
func (Port) Hash(ctx context.Context, target etcd.Target, revision int64) (cluster.DataHash, error) {
	m, err := connectOnce(ctx, target.Endpoint)
	if err != nil {
		return cluster.DataHash{}, err
	}
	defer m.close()
	status, err := m.maintenance.Status(ctx, target.Endpoint.Address)
	if err != nil {
		return cluster.DataHash{}, m.explain(ctx, err)
	}
	if err := target.Verify(cluster.ID(status.Header.GetClusterId()), cluster.ID(status.Header.GetMemberId())); err != nil {
		return cluster.DataHash{}, err
	}
	answer, err := m.maintenance.HashKV(ctx, target.Endpoint.Address, revision)
	if err != nil {
		return cluster.DataHash{}, m.explain(ctx, err)
	}
	if err := target.Verify(cluster.ID(answer.Header.GetClusterId()), cluster.ID(answer.Header.GetMemberId())); err != nil {
		return cluster.DataHash{}, err
	}
	return cluster.DataHash{Hash: answer.Hash, CompactRevision: answer.CompactRevision}, nil
}

// Disarm implements etcd.Changer.
func (Port) Disarm(ctx context.Context, target etcd.Target, alarm cluster.Alarm) error {
	kind, known := etcdserverpb.AlarmType_value[string(alarm.Kind)]
	if !known || kind == int32(etcdserverpb.AlarmType_NONE) { // with member 0 it would end all alarms
		return &failure{"no such alarm", nil}
	}
	return change(ctx, target, anyMember, func(ctx context.Context, m *member) error {
		_, err := m.maintenance.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: uint64(alarm.Member), Alarm: etcdserverpb.AlarmType(kind)})
		return err
	})
}
