package v3

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

var _ etcd.Changer = Port{}

// AddLearner implements etcd.Changer.
func (Port) AddLearner(
	ctx context.Context, target etcd.Target, peerURL string,
) (id cluster.ID, members []cluster.EtcdMember, err error) {
	if !isPeerURL(peerURL) {
		return 0, nil, &failure{"the peer URL is not valid", nil}
	}
	err = change(ctx, target, anyMember, func(ctx context.Context, m *member) error {
		response, err := m.client.MemberAddAsLearner(ctx, []string{peerURL})
		switch {
		case errors.Is(err, rpctypes.ErrMemberExist):
			// The ID depends on the peer URL and the second only: computeMemberID (server/etcdserver/api/membership/member.go).
			return etcd.ErrPeerURLExists
		case err != nil:
			return err
		}
		id, members, err = addedLearner(response, peerURL)
		return err
	})
	return id, members, err
}

// Promote implements etcd.Changer. A follower would forward the request to the leader, whose identity nobody checks.
func (Port) Promote(ctx context.Context, target etcd.Target, learner cluster.ID) error {
	return change(ctx, target, leaderOnly, func(ctx context.Context, m *member) error {
		_, err := m.client.MemberPromote(ctx, uint64(learner))
		return err
	})
}

// RemoveMember implements etcd.Changer.
func (Port) RemoveMember(ctx context.Context, target etcd.Target, id cluster.ID) error {
	return change(ctx, target, anyMember, func(ctx context.Context, m *member) error {
		_, err := m.client.MemberRemove(ctx, uint64(id))
		return err
	})
}

// MoveLeader implements etcd.Changer.
func (Port) MoveLeader(ctx context.Context, target etcd.Target, to cluster.ID) error {
	return change(ctx, target, leaderOnly, func(ctx context.Context, m *member) error {
		_, err := m.maintenance.MoveLeader(ctx, uint64(to))
		return err
	})
}

// Defragment implements etcd.Changer.
func (Port) Defragment(ctx context.Context, target etcd.Target) error {
	ctx, cancel := context.WithTimeout(ctx, cluster.MaxDefragmentTime)
	defer cancel()
	return changeSlowly(ctx, target, anyMember, func(ctx context.Context, m *member) error {
		_, err := m.maintenance.Defragment(ctx, target.Endpoint.Address)
		return explainDefragment(err)
	})
}

// noLease is the ID of no lease: etcd and its clients choose them at random.
const noLease clientv3.LeaseID = 0x7fffffffffffffff

// AppendEntry implements etcd.Changer.
func (Port) AppendEntry(ctx context.Context, target etcd.Target) error {
	return change(ctx, target, leaderOnly, func(ctx context.Context, m *member) error {
		_, err := m.client.Revoke(ctx, noLease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil
		}
		return err
	})
}

// ValidateDowngrade implements etcd.Changer.
func (Port) ValidateDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	return change(ctx, target, leaderOnly, func(ctx context.Context, m *member) error {
		_, err := m.maintenance.Downgrade(ctx, clientv3.DowngradeValidate, minor)
		return err
	})
}

// EnableDowngrade implements etcd.Changer.
func (Port) EnableDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	return change(ctx, target, leaderOnly, func(ctx context.Context, m *member) error {
		_, err := m.maintenance.Downgrade(ctx, clientv3.DowngradeEnable, minor)
		return err
	})
}

// errNotCancelled tells that etcd 3.6 or 3.7 said that a downgrade is cancelled, and that it is not.
var errNotCancelled = &failure{text: "etcd did not cancel the downgrade"}

// cancelTime is how long a member of 3.5 is waited for. It cancels a downgrade at once, but never answers: Apply in
// server/etcdserver/apply.go (3.5) has no result for it, so that nobody who waits is told.
const cancelTime = 2 * time.Second

// CancelDowngrade implements etcd.Changer. etcd 3.6 and 3.7 only log why they could not cancel, and answer as if they
// had: downgradeCancel in server/etcdserver/v3_server.go. So the status is read afterwards. etcd 3.5 is asked again.
func (Port) CancelDowngrade(ctx context.Context, target etcd.Target) error {
	return change(ctx, target, leaderOnly, func(ctx context.Context, m *member) error {
		first, cancel := context.WithTimeout(ctx, cancelTime)
		defer cancel()
		_, err := m.maintenance.Downgrade(first, clientv3.DowngradeCancel, "")
		if err != nil && first.Err() != nil && ctx.Err() == nil {
			_, err = m.maintenance.Downgrade(ctx, clientv3.DowngradeCancel, "")
		}
		switch {
		case errors.Is(err, rpctypes.ErrNoInflightDowngrade):
			return nil
		case err != nil:
			return err
		}
		status, err := m.maintenance.Status(ctx, target.Endpoint.Address)
		if err == nil && status.DowngradeInfo.GetEnabled() {
			return errNotCancelled
		}
		return err
	})
}

// recipient says which members a change may be sent to.
type recipient bool

const (
	anyMember  recipient = false
	leaderOnly recipient = true
)

// change verifies the target and sends it a change, on one connection, within ChangeTimeout.
func change(
	ctx context.Context, target etcd.Target, to recipient, send func(context.Context, *member) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, etcd.ChangeTimeout)
	defer cancel()
	return changeSlowly(ctx, target, to, send)
}

// changeSlowly is change for a call that may take as long as the context allows. The target is verified within
// ChangeTimeout.
func changeSlowly(
	ctx context.Context, target etcd.Target, to recipient, send func(context.Context, *member) error,
) error {
	m, err := connectOnce(ctx, target.Endpoint)
	if err != nil {
		return err
	}
	defer m.close()
	quick, cancel := context.WithTimeout(ctx, etcd.ChangeTimeout)
	defer cancel()
	status, err := m.maintenance.Status(quick, target.Endpoint.Address)
	if err != nil {
		return m.explain(quick, err)
	}
	clusterID, memberID := cluster.ID(status.Header.GetClusterId()), cluster.ID(status.Header.GetMemberId())
	if err := target.Verify(clusterID, memberID); err != nil {
		return err
	}
	switch {
	case status.Leader == 0:
		return etcd.ErrNoLeader
	case to == leaderOnly && cluster.ID(status.Leader) != target.MemberID:
		return etcd.ErrNotLeader
	}
	if err := send(clientv3.WithRequireLeader(ctx), m); err != nil {
		return m.explainChange(ctx, err)
	}
	return nil
}

// addedLearner returns the ID and the list of an answer, if the list has the learner that was asked for.
func addedLearner(response *clientv3.MemberAddResponse, peerURL string) (cluster.ID, []cluster.EtcdMember, error) {
	if len(response.Members) > cluster.MaxMembers {
		return 0, nil, errNotEtcd
	}
	id, members := cluster.ID(response.Member.GetID()), etcdMembers(response.Members)
	isAdded := func(m cluster.EtcdMember) bool {
		return m.ID == id && m.Learner && slices.Equal(m.PeerURLs, []string{peerURL})
	}
	if id == 0 || !slices.ContainsFunc(members, isAdded) {
		return 0, nil, errNotEtcd
	}
	return id, members, nil
}

// isPeerURL reports whether etcd's client accepts the URL.
func isPeerURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" || len(text) > maxURLBytes {
		return false
	}
	_, port, err := net.SplitHostPort(u.Host)
	return err == nil && port != ""
}
