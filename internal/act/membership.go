package act

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// Endpoints tells where members are reached. It is the Observer.
type Endpoints interface {
	// Endpoint returns false where the member's pod does not run, or the operator has no certificate.
	Endpoint(s *cluster.Snapshot, m *cluster.Member) (etcd.Endpoint, bool)
}

// Prober asks members for their status. It is the port to etcd.
type Prober interface {
	Probe(ctx context.Context, endpoint etcd.Endpoint) (cluster.Probe, error)
}

// FollowTime is how long a learner gets to apply an entry before it is promoted. It takes two round trips and a write
// to its disk.
const FollowTime = 2 * time.Second

// followPause is the time between two questions to a learner.
const followPause = 20 * time.Millisecond

// addMember notes that the number is used, creates the volume, and registers the member as a learner.
// Each step is left out where an earlier pass took it. The volume is rehearsed first: one that the API server refuses
// uses no number up.
func (a *Actor) addMember(ctx context.Context, s *cluster.Snapshot, action plan.AddMember) error {
	if action.Volume != nil {
		if err := a.dryRunCreate(ctx, copyOf(action.Volume)); err != nil {
			return err
		}
	}
	if err := a.noteNumber(ctx, s, action.NextNumber); err != nil {
		return err
	}
	if action.Volume != nil {
		if err := a.create(ctx, s, copyOf(action.Volume), usedBy(s)); err != nil {
			return err
		}
	}
	add := func(ctx context.Context, target etcd.Target) error {
		id, _, err := a.Etcd.AddLearner(ctx, target, action.PeerURL)
		if err == nil {
			log.FromContext(ctx).Info("Added learner", "member", action.Name, "id", id)
		}
		return err
	}
	return a.changeEtcd(ctx, s, action.Leader, "adding learner "+action.Name, etcd.ErrPeerURLExists, a.askAnyVoter(s, action.Leader, "", add))
}

// changeEtcd sends a change to a member, if the operation is still the one that was claimed. One deadline is for both:
// an operator that was stopped in between for longer sends nothing.
// done is etcd's error if an earlier call had its effect already; nil where there is none.
func (a *Actor) changeEtcd(
	ctx context.Context, s *cluster.Snapshot, member, doing string, done error,
	change func(context.Context, etcd.Target) error,
) error {
	target, err := a.target(s, member)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	bounded, cancel := context.WithTimeout(ctx, etcd.ChangeTimeout)
	defer cancel()
	if err := a.stillClaimed(bounded, s); err != nil {
		return err
	}
	if err := change(bounded, target); err != nil && (done == nil || !errors.Is(err, done)) {
		return membershipError(doing, err)
	}
	return nil
}

// askAnyVoter returns a change that asks the other voters if the leader refuses because too few voters are connected.
// Each member knows its own connections only, and may be wrong: where a message to the old address of a peer fails
// after the peer has come back, etcd takes the peer for inactive as long as their new connections last. The operator
// saw them healthy in this pass, and the voter that agrees has checked its own connections. It forwards the change to
// the leader. Source: pipeline.handle in etcd's server/etcdserver/api/rafthttp/pipeline.go.
func (a *Actor) askAnyVoter(
	s *cluster.Snapshot, leader, removed string, change func(context.Context, etcd.Target) error,
) func(context.Context, etcd.Target) error {
	return func(ctx context.Context, target etcd.Target) error {
		err := change(ctx, target)
		for i := range s.Members {
			m := &s.Members[i]
			if !errors.Is(err, etcd.ErrUnhealthy) {
				return err
			}
			if m.Name == leader || m.Name == removed || !m.IsHealthyVoter() {
				continue
			}
			if other, unreachable := a.target(s, m.Name); unreachable == nil {
				log.FromContext(ctx).Info("The leader counts too few connected voters. Asking another one", "leader", leader, "member", m.Name)
				err = change(ctx, other)
			}
		}
		return err
	}
}

// noteNumber writes the next member's number on the Service of the peers. So no number is used twice, even where
// every object of a member is gone.
func (a *Actor) noteNumber(ctx context.Context, s *cluster.Snapshot, next int) error {
	service := s.PeerService
	if service == nil {
		return fmt.Errorf("noting the next member's number: there is no Service %s", cluster.PeerServiceName(s.Cluster.Name))
	}
	if n, err := strconv.Atoi(service.Annotations[cluster.AnnotationNextMember]); err == nil && n >= next {
		return nil
	}
	return a.notePeers(ctx, s, map[string]string{cluster.AnnotationNextMember: strconv.Itoa(next)})
}

// stillClaimed reads the cluster from the API server again. It fails if the operation is not the one that this pass
// claimed: another operator, or a later pass of this one, has another plan.
func (a *Actor) stillClaimed(ctx context.Context, s *cluster.Snapshot) error {
	live, err := a.readAgain(ctx, s)
	if err != nil {
		return err
	}
	mine, now := s.Cluster.Status.Operation, live.Status.Operation
	if live.UID != s.Cluster.UID || now == nil || mine == nil || now.Type != mine.Type || now.Member != mine.Member || !now.StartedAt.Equal(&mine.StartedAt) {
		return conflict("EtcdCluster", s.Cluster.Name, "its operation is another one now")
	}
	return nil
}

// readAgain reads the cluster from the API server itself.
func (a *Actor) readAgain(ctx context.Context, s *cluster.Snapshot) (*v1beta1.EtcdCluster, error) {
	live := &v1beta1.EtcdCluster{}
	if err := a.Live.Get(ctx, client.ObjectKeyFromObject(s.Cluster), live); err != nil {
		return nil, fmt.Errorf("reading EtcdCluster %s again: %w", s.Cluster.Name, err)
	}
	return live, nil
}

// target returns the member that a change is sent to, with the IDs that it must answer with. There is none in a pass
// that wrote the certificates: the next one has them.
func (a *Actor) target(s *cluster.Snapshot, name string) (etcd.Target, error) {
	m := s.Member(name)
	if m == nil || !m.Answers() || s.Membership == nil {
		return etcd.Target{}, conflict("EtcdCluster", s.Cluster.Name, fmt.Sprintf("member %q did not answer in this pass", name))
	}
	endpoint, ok := a.Endpoints.Endpoint(s, m)
	if !ok {
		return etcd.Target{}, conflict("EtcdCluster", s.Cluster.Name, fmt.Sprintf("the certificates to reach member %s with are read again", name))
	}
	return etcd.Target{Endpoint: endpoint, ClusterID: s.Membership.ClusterID, MemberID: m.Probe.MemberID}, nil
}

// startLearner creates the StatefulSet, if the operation is still the one that was claimed: the learner of another one
// may have been removed meanwhile.
func (a *Actor) startLearner(ctx context.Context, s *cluster.Snapshot, action plan.StartLearner) error {
	if err := a.stillClaimed(ctx, s); err != nil {
		return err
	}
	return a.createStatefulSets(ctx, s, []*appsv1.StatefulSet{action.StatefulSet})
}

// promoteMember makes a learner a voter that applies what the leader appends now. While nobody writes, one that was cut
// off from the others looks as if it had caught up, to etcd as well, and as a voter it would only count against the
// quorum.
func (a *Actor) promoteMember(ctx context.Context, s *cluster.Snapshot, action plan.PromoteMember) error {
	if err := a.learnerFollows(ctx, s, action); err != nil {
		return err
	}
	return a.changeEtcd(ctx, s, action.Leader, "promoting "+action.Name, etcd.ErrNotLearner, func(ctx context.Context, target etcd.Target) error {
		return a.Etcd.Promote(ctx, target, action.Learner)
	})
}

// learnerFollows appends an entry, and fails unless the learner applies more than the leader had when this pass looked.
func (a *Actor) learnerFollows(ctx context.Context, s *cluster.Snapshot, action plan.PromoteMember) error {
	m, endpoint, ok := s.Member(action.Name), etcd.Endpoint{}, false
	if m != nil && m.Answers() {
		endpoint, ok = a.Endpoints.Endpoint(s, m)
	}
	if !ok {
		return conflict("EtcdCluster", s.Cluster.Name, fmt.Sprintf("learner %s cannot be asked", action.Name))
	}
	if err := a.appendEntry(ctx, s, plan.AppendEntry{Learner: action.Name, Leader: action.Leader}); err != nil {
		return membershipError("promoting "+action.Name, err)
	}
	had := m.Probe.AppliedIndex
	if leader := s.Leader(); leader != nil {
		had = max(had, leader.Probe.CommittedIndex)
	}
	isAhead := func(context.Context) (bool, error) {
		bounded, cancel := context.WithTimeout(ctx, max(a.FollowTime, time.Second))
		defer cancel()
		p, err := a.Prober.Probe(bounded, endpoint)
		return err == nil && p.MemberID == m.Probe.MemberID && p.AppliedIndex > had, ctx.Err()
	}
	switch err := wait.PollUntilContextTimeout(ctx, followPause, a.FollowTime, true, isAhead); {
	case ctx.Err() != nil:
		return fmt.Errorf("waiting for learner %s: %w", action.Name, ctx.Err())
	case err != nil:
		return &plan.Refusal{
			Guard: "learnerFollows", Reason: v1beta1.ReasonMembersNotHealthy,
			Message: fmt.Sprintf("%s has the data, and does not get what the leader appends now. It is promoted once it does: as a voter it would count "+
				"against the quorum. Look at the network between the members: a NetworkPolicy, for example.", action.Name),
		}
	}
	return nil
}

// appendEntry needs no claim: the entry changes nothing, and the leader is asked under its IDs.
func (a *Actor) appendEntry(ctx context.Context, s *cluster.Snapshot, item plan.AppendEntry) error {
	log.FromContext(ctx).Info("Appending an entry that changes nothing", "learner", item.Learner)
	target, err := a.target(s, item.Leader)
	if err == nil {
		err = a.Etcd.AppendEntry(ctx, target)
	}
	if err != nil {
		return fmt.Errorf("appending an entry for learner %s: %w", item.Learner, err)
	}
	return nil
}

// removeMember notes on the volume that the operator removes the member, then asks etcd. So it is known whose work the
// rest is, even where the operation ends in between.
func (a *Actor) removeMember(ctx context.Context, s *cluster.Snapshot, action plan.RemoveMember) error {
	if err := a.noVoterGoing(ctx, s, action); err != nil {
		return err
	}
	if v := action.Volume; v != nil {
		note := map[string]string{cluster.AnnotationRemoving: action.ID.String()}
		item := plan.RecordMember{Member: v.Member, Volume: v.Name, InMemory: v.InMemory}
		if err := a.annotateVolume(ctx, s, item.Writes(), v.ResourceVersion, note); err != nil {
			return err
		}
	}
	remove := func(ctx context.Context, target etcd.Target) error {
		if err := a.stillLost(ctx, s, action.Lost); err != nil {
			return err
		}
		return a.Etcd.RemoveMember(ctx, target, action.ID)
	}
	return a.changeEtcd(ctx, s, action.Leader, "removing "+action.Name, etcd.ErrMemberNotFound, a.askAnyVoter(s, action.Leader, action.Name, remove))
}

// noVoterGoing refuses to remove a voter while the pod of another one is being deleted that was healthy in this pass.
// A drain does that, for example. The voters that stay could lack their quorum. The next pass counts without that one.
func (a *Actor) noVoterGoing(ctx context.Context, s *cluster.Snapshot, action plan.RemoveMember) error {
	isVoter := func(e cluster.EtcdMember) bool { return e.ID == action.ID && !e.Learner }
	if s.Membership == nil || !slices.ContainsFunc(s.Membership.Members, isVoter) {
		return nil
	}
	pods, err := a.livePods(ctx, s)
	if err != nil {
		return err
	}
	pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { // of which the guards know already
		return !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
			return cluster.PodName(m.Name) == p.Name && m.IsHealthyVoter() && m.Pod != nil && !m.Pod.Deleting
		})
	})
	return noOtherPodGoing(pods, cluster.PodName(action.Name), action.Name+" is not removed from etcd", "The operator counts again without it.")
}

// stillLost reads again what a lost member lacks. It fails if it is back: the caches, or the list of nodes, were
// behind. It refuses a claim that is there without the labels by which the caches select.
func (a *Actor) stillLost(ctx context.Context, s *cluster.Snapshot, lost *plan.Lost) error {
	switch {
	case lost == nil:
		return nil
	case lost.Node != "":
		return a.nodeIsGone(ctx, lost.Node)
	case lost.Pod != "":
		return a.podIsGone(ctx, s, lost)
	case lost.Claim == "":
		return nil // a user says that it is lost, or it never comes up: there is nothing to read
	}
	var claim corev1.PersistentVolumeClaim
	err := a.Live.Get(ctx, client.ObjectKey{Namespace: s.Cluster.Namespace, Name: lost.Claim}, &claim)
	switch {
	case apierrors.IsNotFound(err), err == nil && (claim.DeletionTimestamp != nil || lost.ClaimUID != "" && claim.UID == lost.ClaimUID):
		return nil
	case err != nil:
		return fmt.Errorf("reading PersistentVolumeClaim %s again: %w", lost.Claim, err)
	}
	if claim.Labels[cluster.LabelManagedBy] != cluster.ManagedByValue || claim.Labels[cluster.LabelCluster] != s.Cluster.Name {
		return &plan.Refusal{
			Guard: "claimIsGone", Reason: v1beta1.ReasonForeignObject,
			Message: fmt.Sprintf("PersistentVolumeClaim %[1]s exists, and the operator does not see it, because somebody changed its labels. "+
				"Its member is stopped, and not replaced. Set them back: kubectl label --overwrite pvc -n %[2]s %[1]s %[3]s=%[4]s %[5]s=%[6]s",
				lost.Claim, s.Cluster.Namespace, cluster.LabelManagedBy, cluster.ManagedByValue, cluster.LabelCluster, s.Cluster.Name),
		}
	}
	return conflict("PersistentVolumeClaim", lost.Claim, "it is there again")
}

// podIsGone fails while the pod runs whose memory the data are in.
func (a *Actor) podIsGone(ctx context.Context, s *cluster.Snapshot, lost *plan.Lost) error {
	var pod corev1.Pod
	err := a.Live.Get(ctx, client.ObjectKey{Namespace: s.Cluster.Namespace, Name: lost.Pod}, &pod)
	hasEnded := pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	switch {
	case apierrors.IsNotFound(err), err == nil && (pod.UID != lost.PodUID || hasEnded):
		return nil
	case err != nil:
		return fmt.Errorf("reading Pod %s again: %w", lost.Pod, err)
	}
	return conflict("Pod", lost.Pod, "it is there again")
}

func (a *Actor) nodeIsGone(ctx context.Context, name string) error {
	var node corev1.Node
	err := a.Live.Get(ctx, client.ObjectKey{Name: name}, &node)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("reading Node %s again: %w", name, err)
	case cluster.NodeOf(name, &node).IsGone():
		return nil
	}
	return conflict("Node", name, "it is ready again")
}

// moveLeader is done where the member leads no more.
func (a *Actor) moveLeader(ctx context.Context, s *cluster.Snapshot, action plan.MoveLeader) error {
	doing := fmt.Sprintf("moving the leader from %s to %s", action.Name, action.To)
	return a.changeEtcd(ctx, s, action.Name, doing, etcd.ErrNotLeader, func(ctx context.Context, target etcd.Target) error {
		return a.Etcd.MoveLeader(ctx, target, action.ToID)
	})
}

// transient are the refusals of etcd that pass by themselves: the next pass decides anew.
var transient = []error{
	etcd.ErrUnhealthy, etcd.ErrNoLeader, etcd.ErrNotLeader, etcd.ErrBadTransferee, etcd.ErrLearnerNotReady,
	etcd.ErrTooManyLearners, etcd.ErrNotEnoughStarted,
}

// membershipError turns a refusal of etcd into one that users see. Everything else is an error, and tried again.
func membershipError(doing string, err error) error {
	if slices.ContainsFunc(transient, func(t error) bool { return errors.Is(err, t) }) {
		return &plan.Refusal{
			Guard: "etcdAgrees", Reason: v1beta1.ReasonMembersNotHealthy,
			Message: fmt.Sprintf("etcd refuses %s: %v. The operator tries again.", doing, err),
		}
	}
	if errors.Is(err, etcd.ErrDowngradeTarget) || errors.Is(err, etcd.ErrDowngradeEnabled) || errors.Is(err, etcd.ErrNoClusterVersion) {
		return &plan.Refusal{
			Guard: "etcdAgrees", Reason: v1beta1.ReasonDowngradeRefused,
			Message: fmt.Sprintf("etcd refuses %s: %v. No member is restarted. The operator asks again; to stay with what runs, set spec.version back.", doing, err),
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
