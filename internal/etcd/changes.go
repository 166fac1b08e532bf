package etcd

import (
	"context"
	"errors"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// ChangeTimeout is how long a change may take at most. The context may end it earlier. A late change is dangerous: the
// operator that sent it may meanwhile act on another plan.
const ChangeTimeout = 5 * time.Second

// Target is the member that a change is sent to.
type Target struct {
	Endpoint Endpoint
	// ClusterID and MemberID are those that the member must answer with. Pod IPs are used again.
	ClusterID, MemberID cluster.ID
}

// Changer changes the membership, the leader and the version of a cluster, and defragments its members.
//
// Every method first reads the status of the target, and sends the change on the same connection only if cluster ID and
// member ID are the expected ones. Otherwise it returns a *WrongMemberError, and nothing was sent.
//
// The errors below tell that the call changed nothing. After any other error the outcome is open. After
// context.DeadlineExceeded, for example, the answer may be lost, and etcd may still carry out the change later.
// The caller then reads the member list, or makes the same call again. Each method says what the second call returns if
// the first one had its effect.
type Changer interface {
	// AddLearner adds a learner with one peer URL. It returns the learner's ID and the member list right after the change,
	// ordered by ID. Ask the leader: the member that is asked counts its own connections to the other voters.
	//
	// It fails with ErrUnhealthy, ErrTooManyLearners, ErrPeerURLExists, ErrNoLeader or ErrLearner.
	// Made again after its answer was lost, it returns ErrPeerURLExists: the ID is then in the member list.
	AddLearner(ctx context.Context, target Target, peerURL string) (cluster.ID, []cluster.EtcdMember, error)
	// Promote makes a learner a voter. The target must be the leader.
	//
	// It fails with ErrNotLeader, ErrLearnerNotReady, ErrNotEnoughStarted, ErrNotLearner, ErrMemberNotFound or
	// ErrNoLeader. etcd asks for 90% of the leader's log, and not whether the learner runs.
	// Made again after its answer was lost, it returns ErrNotLearner: the member is a voter.
	Promote(ctx context.Context, target Target, learner cluster.ID) error
	// RemoveMember removes a voter or a learner. The target may remove itself. The process of a removed member ends soon
	// afterwards. If it was the leader, the others elect one.
	//
	// It fails with ErrUnhealthy, ErrNotEnoughStarted, ErrMemberNotFound, ErrNoLeader or ErrLearner.
	// Made again after its answer was lost, it returns ErrMemberNotFound: the member is removed.
	RemoveMember(ctx context.Context, target Target, member cluster.ID) error
	// MoveLeader makes a voter the leader. The target must be the leader. It returns once the target knows the new leader.
	// A leader that is told to hand over to itself does nothing.
	//
	// It fails with ErrNotLeader, ErrBadTransferee or ErrNoLeader. If the voter does not run, or lags too far, the leader
	// refuses writes for up to one election timeout, and the call ends with context.DeadlineExceeded.
	// Made again after its answer was lost, it returns ErrNotLeader: the target handed over, or lost its leadership.
	MoveLeader(ctx context.Context, target Target, to cluster.ID) error
	// Defragment makes the target write its database anew, without the pages that are free. Voters and the leader may do
	// so. The member answers nothing meanwhile, for about a second a GiB on a fast disk, and needs room on its volume for
	// a second copy. The caller's deadline bounds the call, as Member.DefragmentTime tells. The member
	// goes on after it.
	//
	// It fails with ErrNoLeader, ErrLearner or a *DefragmentError. Made again, it writes the database once more.
	Defragment(ctx context.Context, target Target) error
	// AppendEntry appends an entry to the log that changes nothing: it revokes a lease that does not exist.
	//
	// It is for a learner that got the leader's snapshot while nobody writes. Such a learner counts none of its entries as
	// applied until the next one comes (applySnapshot in etcd's server/etcdserver/server.go sets no applied index). Behind
	// more than 5,000 entries it refuses to publish itself till then, and answers no client.
	//
	// It fails with ErrNotLeader or ErrNoLeader. Made again, it appends another entry.
	AppendEntry(ctx context.Context, target Target) error
	// ValidateDowngrade asks whether a downgrade to a minor version, for example 3.6, could be enabled. It changes
	// nothing. The target must be the leader. etcd compares the versions only, and neither alarms nor whether members
	// answer.
	//
	// It fails with ErrDowngradeTarget unless the cluster version is one minor version above, with ErrDowngradeEnabled,
	// ErrNoClusterVersion, ErrNotLeader or ErrNoLeader.
	ValidateDowngrade(ctx context.Context, target Target, minor string) error
	// EnableDowngrade enables a downgrade to a minor version, for example 3.6. The target must be the leader. The leader
	// then lowers the cluster version within 4 s of having read a version from every member, and ends the downgrade within
	// 5 s of having read the minor version from all.
	//
	// It fails as ValidateDowngrade does. Made again after its answer was lost, it returns ErrDowngradeEnabled, and
	// ErrDowngradeTarget once the cluster version has been lowered: what is enabled is then in the member's status.
	// A member of etcd 3.5 never answers, though it enables the downgrade.
	EnableDowngrade(ctx context.Context, target Target, minor string) error
	// CancelDowngrade ends a downgrade. The target must be the leader. While no member has the older minor version, the
	// leader then raises the cluster version again within 4 s.
	//
	// It fails with ErrNotLeader or ErrNoLeader. Without a downgrade it does nothing, so that it may be made again.
	CancelDowngrade(ctx context.Context, target Target) error
	// Disarm ends an alarm. The member that it names need not exist: etcd raises alarms of member 0, and those of removed
	// members stay.
	//
	// It fails with ErrNoLeader or ErrLearner. Without the alarm it does nothing, so that it may be made again.
	Disarm(ctx context.Context, target Target, alarm cluster.Alarm) error
}

// The errors of etcd that callers branch on, in etcd's words.
var (
	// ErrNoLeader: the member has no leader, so nothing was proposed.
	ErrNoLeader = errors.New("etcdserver: no leader")
	// ErrLearner: a learner was asked.
	ErrLearner = errors.New("etcdserver: rpc not supported for learner")
	// ErrNotLeader: the member that was asked is not the leader.
	ErrNotLeader = errors.New("etcdserver: not leader")
	// ErrUnhealthy: too few voters have been connected to the member that was asked for five seconds.
	ErrUnhealthy = errors.New("etcdserver: unhealthy cluster")
	// ErrNotEnoughStarted: too few of the voters after the change have ever started.
	ErrNotEnoughStarted = errors.New("etcdserver: re-configuration failed due to not enough started members")
	// ErrTooManyLearners: the cluster has a learner.
	ErrTooManyLearners = errors.New("etcdserver: too many learner members in cluster")
	// ErrPeerURLExists: a member has the peer URL.
	ErrPeerURLExists = errors.New("etcdserver: Peer URLs already exists")
	// ErrMemberNotFound: the cluster has no member of this ID. It may have been removed.
	ErrMemberNotFound = errors.New("etcdserver: member not found")
	// ErrLearnerNotReady: the learner has less than 90% of the leader's log.
	ErrLearnerNotReady = errors.New("etcdserver: can only promote a learner member which is in sync with leader")
	// ErrNotLearner: the member is a voter.
	ErrNotLearner = errors.New("etcdserver: can only promote a learner member")
	// ErrBadTransferee: only a voter can become the leader.
	ErrBadTransferee = errors.New("etcdserver: bad leader transferee")
	// ErrDowngradeTarget: the cluster version is not one minor version above the one to downgrade to.
	ErrDowngradeTarget = errors.New("etcdserver: invalid downgrade target version")
	// ErrDowngradeEnabled: a downgrade is enabled.
	ErrDowngradeEnabled = errors.New("etcdserver: cluster has a downgrade job in progress")
	// ErrNoClusterVersion: the cluster has no version yet.
	ErrNoClusterVersion = errors.New("etcdserver: cluster version not found during downgrade")
)

// Errors are the errors of etcd that callers branch on.
func Errors() []error {
	return []error{
		ErrNoLeader, ErrLearner, ErrNotLeader, ErrUnhealthy, ErrNotEnoughStarted, ErrTooManyLearners, ErrPeerURLExists,
		ErrMemberNotFound, ErrLearnerNotReady, ErrNotLearner, ErrBadTransferee,
		ErrDowngradeTarget, ErrDowngradeEnabled, ErrNoClusterVersion, ErrCompacted, ErrFutureRevision,
	}
}

// DefragmentError tells that the member could not defragment its database, in its own words. Its disk may be full. The
// database is as it was.
type DefragmentError struct{ Text string }

func (e *DefragmentError) Error() string { return e.Text }

// WrongMemberError tells that another member answers at the address. Nothing was sent to it.
type WrongMemberError struct {
	// Expected is whom the call was for.
	Expected Target
	// ClusterID and MemberID are those of the answer.
	ClusterID, MemberID cluster.ID
}

func (e *WrongMemberError) Error() string {
	if e.ClusterID != e.Expected.ClusterID {
		return "another cluster answers at the member's address"
	}
	return "another member answers at the member's address"
}

// Verify returns a *WrongMemberError unless the IDs of an answer are the expected ones. Zero is never expected.
func (t Target) Verify(clusterID, memberID cluster.ID) error {
	if t.ClusterID == 0 || t.MemberID == 0 || clusterID != t.ClusterID || memberID != t.MemberID {
		return &WrongMemberError{Expected: t, ClusterID: clusterID, MemberID: memberID}
	}
	return nil
}
