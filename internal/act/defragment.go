package act

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// defragmentPause is how long a member is left alone that could not defragment its database.
const defragmentPause = time.Minute

// defragment has a member defragment its database, and notes on the EtcdCluster that it did. The call takes minutes
// where the database is large, so it runs beside the passes. A pass waits for it for as long as for any other change.
// Where it takes longer, the member answers again when it is over, and the pass that sees it notes it. What an operator
// did not note, because it ended, is done once more.
func (a *Actor) defragment(ctx context.Context, s *cluster.Snapshot, action plan.Defragment) error {
	doing := "defragmenting " + action.Name
	of := callOf(s)
	call := a.defragmentations.begun(of, s.Now)
	if call == nil {
		target, err := a.target(s, action.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		bounded, cancel := context.WithTimeout(ctx, etcd.ChangeTimeout)
		defer cancel()
		if err := a.stillClaimed(bounded, s); err != nil {
			return err
		}
		if err := bounded.Err(); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		call = a.defragmentations.begin(of, func() error {
			long, end := context.WithTimeout(context.WithoutCancel(ctx), action.Timeout)
			defer end()
			return a.Etcd.Defragment(long, target)
		})
	}
	select {
	case <-call.done:
	case <-time.After(etcd.ChangeTimeout):
		log.FromContext(ctx).Info("The member is still being defragmented", "member", action.Name)
		return nil
	}
	if call.err == nil {
		if err := a.noteDefragmented(ctx, s, action.Note); err != nil {
			return err // the call is remembered
		}
		a.defragmentations.forget(of)
		return nil
	}
	var failure *etcd.DefragmentError
	if !errors.As(call.err, &failure) {
		a.defragmentations.forget(of)
		return membershipError(doing, call.err)
	}
	a.defragmentations.pause(call, s.Now)
	return &plan.Refusal{
		Guard: "etcdAgrees", Reason: v1beta1.ReasonDefragmentationFailed,
		Message: fmt.Sprintf("%s could not be defragmented: %s. Its database is as it was. A defragmentation needs room on the volume for a second copy of what is in use. "+
			"The operator tries again every minute. To stop it, remove the annotation %s.", action.Name, failure.Text, v1beta1.DefragmentAnnotation),
	}
}

// noteDefragmented writes the members that are done into the annotation, if nobody wrote the cluster since it was read.
func (a *Actor) noteDefragmented(ctx context.Context, s *cluster.Snapshot, note string) error {
	return a.annotateCluster(ctx, s, s.Cluster.ResourceVersion, map[string]string{v1beta1.DefragmentAnnotation: note})
}

// longCalls are the calls to etcd that outlast a pass: at most one for each cluster. They are lost when the operator
// ends.
type longCalls struct {
	mu    sync.Mutex
	calls map[types.UID]*longCall
}

// callID identifies a call by the operation that it is made for.
type callID struct {
	cluster   types.UID
	member    string
	startedAt int64
}

func callOf(s *cluster.Snapshot) callID {
	id := callID{cluster: s.Cluster.UID}
	if op := s.Cluster.Status.Operation; op != nil {
		id.member, id.startedAt = op.Member, op.StartedAt.Unix()
	}
	return id
}

type longCall struct {
	id   callID
	done chan struct{}
	// err is what the call returned. It is read after done is closed.
	err error
	// failedAt is when the first pass saw that the call failed.
	failedAt time.Time
}

// begun returns the call that was begun for the operation; nil for none, and for one that failed long enough ago.
func (l *longCalls) begun(id callID, now time.Time) *longCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	call := l.calls[id.cluster]
	if call == nil || call.id != id || !call.failedAt.IsZero() && !now.Before(call.failedAt.Add(defragmentPause)) {
		return nil
	}
	return call
}

// begin makes a call, and remembers it in the place of an earlier one of the cluster.
func (l *longCalls) begin(id callID, do func() error) *longCall {
	call := &longCall{id: id, done: make(chan struct{})}
	l.mu.Lock()
	if l.calls == nil {
		l.calls = map[types.UID]*longCall{}
	}
	l.calls[id.cluster] = call
	l.mu.Unlock()
	go func() {
		defer close(call.done)
		call.err = do()
	}()
	return call
}

func (l *longCalls) forget(id callID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if call := l.calls[id.cluster]; call != nil && call.id == id {
		delete(l.calls, id.cluster)
	}
}

// pause notes when a call was first seen to have failed.
func (l *longCalls) pause(call *longCall, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if call.failedAt.IsZero() {
		call.failedAt = now
	}
}
