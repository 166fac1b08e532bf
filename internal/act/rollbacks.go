package act

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// RollBacks are the members that had to go back in a row, over all clusters. They are kept in a ConfigMap, so that no
// restart of the operator and no change of the leader forgets them. Of a member that goes back twice, one is counted.
type RollBacks struct {
	// Live reads the ConfigMap, and Client writes it.
	Live   client.Reader
	Client client.Client
	// Namespace is the operator's own. Where it is empty, the members are kept in memory.
	Namespace string

	mu sync.Mutex
	// stored are the members in the ConfigMap as it was last read or written; known tells that it was.
	stored []string
	known  bool
	// askedAt is when it was last read to find out whether rolls may go on.
	askedAt time.Time
	// unsaved are members that are not in the ConfigMap yet.
	unsaved []string
}

const (
	// RollBacksName is the ConfigMap with the members that had to go back. An administrator deletes it to let rolls go on.
	RollBacksName = "etcd-warden-roll-backs"
	// rolledBackKey has a member a line: NAMESPACE/NAME.
	rolledBackKey = "members"
	// maxRolledBack is how many members are kept. Rolls have stopped long before.
	maxRolledBack = 4 * cluster.MaxRollBacks
)

// stopped returns what an administrator must do before rolls begin again; empty where they may begin.
// The API server is asked once, and again from time to time while they are stopped.
func (r *RollBacks) stopped(ctx context.Context, now time.Time) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	isOld := r.isStopped() && !now.Before(r.askedAt.Add(holdTime))
	if r.Namespace != "" && (!r.known || isOld) {
		if _, err := r.read(ctx); err != nil {
			return "", err
		}
		r.askedAt = now
	}
	switch {
	case !r.isStopped():
		return "", nil
	case len(r.stored) == 0: // there is no ConfigMap, or it could not be written
		return "Find out why they failed, then restart the operator.", nil
	default:
		return fmt.Sprintf("ConfigMap %s in namespace %s names them. Find out why they failed, then run kubectl delete configmap -n %s %s.",
			RollBacksName, r.Namespace, r.Namespace, RollBacksName), nil
	}
}

func (r *RollBacks) isStopped() bool { return len(r.stored)+len(r.unsaved) >= cluster.MaxRollBacks }

// add notes a member. A conflict is returned, and the next pass notes it again. Any other failure must not keep the
// member from going back: the member is then kept in memory, and written with the next one.
func (r *RollBacks) add(ctx context.Context, member string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.unsaved, member) && !slices.Contains(r.stored, member) {
		r.unsaved = append(r.unsaved, member)
	}
	if r.Namespace == "" {
		return nil
	}
	err := r.save(ctx)
	switch {
	case apierrors.IsAlreadyExists(err):
		return conflict("ConfigMap", RollBacksName, "it was created since it was read")
	case apierrors.IsConflict(err):
		return err
	case err != nil:
		log.FromContext(ctx).Error(err, "Counting the members that had to go back in memory only", "members", r.unsaved)
	}
	return nil
}

// reset begins the count anew: a member restarted well for its spec, so the row is interrupted.
// Once rolls have stopped, only an administrator lets them go on. The members of a ConfigMap that cannot be deleted
// still count.
func (r *RollBacks) reset(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isStopped() || r.known && len(r.stored)+len(r.unsaved) == 0 {
		return
	}
	if r.Namespace != "" {
		object, err := r.read(ctx)
		if err == nil && !r.isStopped() && object != nil {
			err = r.Client.Delete(ctx, object, client.Preconditions{UID: &object.UID, ResourceVersion: &object.ResourceVersion})
		}
		if client.IgnoreNotFound(err) != nil {
			log.FromContext(ctx).Error(err, "Counting on from the members that had to go back")
			return
		}
	}
	if !r.isStopped() {
		r.stored, r.unsaved = nil, nil
	}
}

// read reads the ConfigMap, nil where there is none.
func (r *RollBacks) read(ctx context.Context) (*corev1.ConfigMap, error) {
	object := &corev1.ConfigMap{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: RollBacksName}, object)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading ConfigMap %s: %w", RollBacksName, err)
	}
	r.stored, r.known = nil, true
	if err != nil {
		return nil, nil
	}
	r.keep(strings.Fields(object.Data[rolledBackKey]))
	return object, nil
}

func (r *RollBacks) keep(stored []string) {
	r.stored = stored[:min(len(stored), maxRolledBack)]
	r.unsaved = slices.DeleteFunc(r.unsaved, func(m string) bool { return slices.Contains(stored, m) })
}

// save writes the members that are not in the ConfigMap yet.
func (r *RollBacks) save(ctx context.Context) error {
	object, err := r.read(ctx)
	if err != nil || len(r.unsaved) == 0 || len(r.stored) == maxRolledBack {
		return err
	}
	members := slices.Concat(r.stored, r.unsaved)
	data := map[string]string{rolledBackKey: strings.Join(members, "\n")}
	if object == nil {
		object = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: RollBacksName}, Data: data}
		object.Labels = map[string]string{cluster.LabelManagedBy: cluster.ManagedByValue}
		err = r.Client.Create(ctx, object, fieldOwner)
	} else {
		object.Data = data
		err = r.Client.Update(ctx, object, fieldOwner)
	}
	if err != nil {
		return fmt.Errorf("writing ConfigMap %s: %w", RollBacksName, err)
	}
	r.keep(members)
	log.FromContext(ctx).Info("Members in a row had to go back", "members", members, "rollsStopAt", cluster.MaxRollBacks)
	return nil
}
