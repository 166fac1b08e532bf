package act

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/comparison"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// Comparisons asks members for the hashes of their data, beside the passes. It is a comparison.Store.
type Comparisons interface {
	Ask(key types.NamespacedName, q comparison.Question)
	NoteDisarmed(key types.NamespacedName)
	NoteObeyed(key types.NamespacedName)
}

// hashMember has a member asked, if the operation is still the one that was claimed. A crash loses the answers so far:
// the comparison then begins again.
func (a *Actor) hashMember(ctx context.Context, s *cluster.Snapshot, action plan.HashMember) error {
	target, err := a.target(s, action.Name)
	if err != nil {
		return fmt.Errorf("comparing data: %w", err)
	}
	if err := a.stillClaimed(ctx, s); err != nil {
		return err
	}
	log.FromContext(ctx).Info("Asking for the hash of the data", "member", action.Name, "revision", action.Revision)
	a.Comparisons.Ask(s.Cluster.Key(), comparison.Question{
		Cause: action.Cause, Voters: action.Voters, Revision: action.Revision, Attempt: action.Attempt, Begins: action.Begins,
		Member: action.Name, Target: target,
	})
	return nil
}

// disarmAlarms ends alarms in etcd, unless an operation began since the decision. Made again, it does nothing.
func (a *Actor) disarmAlarms(ctx context.Context, s *cluster.Snapshot, item plan.DisarmAlarms) error {
	target, err := a.target(s, item.Leader)
	if err != nil {
		return fmt.Errorf("disarming alarms: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, etcd.ChangeTimeout)
	defer cancel()
	live, err := a.readAgain(bounded, s)
	if err != nil {
		return err
	}
	if live.UID != s.Cluster.UID || live.Status.Operation != nil {
		return conflict("EtcdCluster", s.Cluster.Name, "an operation began meanwhile")
	}
	for _, alarm := range item.Alarms {
		log.FromContext(ctx).Info("Disarming an alarm, because the data of all members agree", "alarm", alarm.Kind, "id", alarm.Member)
		if err := a.Etcd.Disarm(bounded, target, alarm); err != nil {
			return membershipError("disarming an alarm", err)
		}
	}
	a.Comparisons.NoteDisarmed(s.Cluster.Key())
	return nil
}
