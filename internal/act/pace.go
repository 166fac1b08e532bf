package act

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

const (
	// placeTime is when the caches show a claim at the latest. Until then its place is remembered here.
	placeTime = 10 * time.Second
	// holdTime is how long the API server is not asked again whether a namespace is still frozen, or rolls still stopped.
	holdTime = 10 * time.Second
)

// IndexDisrupted is the index of the caches that finds the clusters with a voluntary operation under way.
const IndexDisrupted = "disrupted"

// Disrupted returns the value of a cluster in IndexDisrupted, none for one without a voluntary operation. That of a
// paused cluster is at rest: a user who pauses clusters holds up no other.
func Disrupted(object client.Object) []string {
	c, ok := object.(*v1beta1.EtcdCluster)
	if !ok || c.Status.Operation == nil || c.Spec.Paused || !c.DeletionTimestamp.IsZero() {
		return nil
	}
	switch c.Status.Operation.Type {
	case v1beta1.OperationAddMember, v1beta1.OperationRemoveMember, v1beta1.OperationReplaceMember, v1beta1.OperationRollMember, v1beta1.OperationRollBack, v1beta1.OperationDowngrade,
		v1beta1.OperationDefragment, v1beta1.OperationMoveLeader, v1beta1.OperationCheckConsistency:
		return []string{"true"}
	case v1beta1.OperationBootstrap, v1beta1.OperationTakeBack, v1beta1.OperationResume:
	}
	return nil // of another release, or a repair
}

// place is that of a cluster among those with a step under way.
type place struct {
	since    time.Time
	replaces bool
}

// Pace limits the voluntary steps of all clusters together. It is asked before such a step is claimed.
// A nil Pace limits nothing.
type Pace struct {
	// Clusters reads EtcdClusters from the caches. Live asks the API server.
	Clusters, Live client.Reader
	// Frozen is the operator's --freeze-disruptions, Max its --max-disruptions.
	Frozen bool
	Max    int
	// MaxReplacements is its --max-replacements.
	MaxReplacements int
	// RollBacks are the members that had to go back.
	RollBacks *RollBacks

	mu sync.Mutex
	// places are the clusters whose claim the caches may not show yet.
	places map[types.NamespacedName]place
	// frozen are the namespaces that were seen frozen, and when.
	frozen map[string]time.Time
}

// Ask returns what holds the voluntary steps of a cluster. If nothing freezes them, and there is room, the cluster has
// a place afterwards. The action is nil where only upkeep may disturb members. Release gives back the place of a step
// that was not claimed. The API server is asked only for a cluster that has a place: thousands may wait for one.
func (p *Pace) Ask(ctx context.Context, s *cluster.Snapshot, action plan.Action) (*cluster.Hold, error) {
	if p == nil || p.Frozen {
		return p.Look(ctx, s), nil
	}
	replaces := action != nil && action.Operation() == v1beta1.OperationReplaceMember
	if full, err := p.takePlace(ctx, s, replaces); err != nil || full != nil {
		return full, err
	}
	h := p.Look(ctx, s)
	if h.ByNamespace || h.Unreadable != "" {
		p.Release(s.Cluster.Key())
	}
	return h, nil
}

// Look returns what holds the voluntary steps of a cluster, but for the steps of other clusters.
func (p *Pace) Look(ctx context.Context, s *cluster.Snapshot) *cluster.Hold {
	h := &cluster.Hold{}
	if p == nil {
		return h
	}
	if p.Frozen {
		h.ByOperator = true
		return h
	}
	var err error
	if h.ByNamespace, err = p.isNamespaceFrozen(ctx, s); err == nil {
		h.StoppedRolls, err = p.RollBacks.stopped(ctx, s.Now)
	}
	if err != nil { // it holds the step, and nothing else of the pass
		h.Unreadable = err.Error()
	}
	return h
}

// isNamespaceFrozen asks the API server: nobody watches namespaces, because a Role allows to get its own one only.
func (p *Pace) isNamespaceFrozen(ctx context.Context, s *cluster.Snapshot) (bool, error) {
	name := s.Cluster.Namespace
	if p.wasFrozen(name, s.Now) {
		return true, nil
	}
	var namespace corev1.Namespace
	if err := p.Live.Get(ctx, client.ObjectKey{Name: name}, &namespace); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading Namespace %s: %w", name, err)
	}
	if namespace.Annotations[v1beta1.FreezeAnnotation] != v1beta1.FreezeValue {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = map[string]time.Time{}
	}
	p.frozen[name] = s.Now
	return true, nil
}

// wasFrozen reports whether the namespace was seen frozen a moment ago. It forgets what was seen earlier.
func (p *Pace) wasFrozen(name string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, seen := p.frozen[name]
	if seen && now.Before(at.Add(holdTime)) {
		return true
	}
	delete(p.frozen, name)
	return false
}

// takePlace counts the other clusters with a step under way: those in the caches, and those whose claim is being
// written. Two passes at once never take the same place. Where there is none, it returns what is full.
func (p *Pace) takePlace(ctx context.Context, s *cluster.Snapshot, replaces bool) (full *cluster.Hold, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list v1beta1.EtcdClusterList
	if err := p.Clusters.List(ctx, &list, client.MatchingFields{IndexDisrupted: "true"}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing EtcdClusters with a step under way: %w", err)
	}
	busy := map[types.NamespacedName]bool{} // the value tells whether the step replaces a lost member
	for i := range list.Items {
		busy[list.Items[i].Key()] = list.Items[i].Status.Operation.Type == v1beta1.OperationReplaceMember
	}
	for key, place := range p.places {
		if s.Now.Before(place.since.Add(placeTime)) {
			busy[key] = busy[key] || place.replaces
		} else {
			delete(p.places, key)
		}
	}
	key := s.Cluster.Key()
	delete(busy, key)
	switch {
	case len(busy) >= p.Max:
		return &cluster.Hold{Limit: p.Max}, nil
	case replaces && countTrue(busy) >= p.MaxReplacements:
		return &cluster.Hold{Replacements: p.MaxReplacements}, nil
	}
	if p.places == nil {
		p.places = map[types.NamespacedName]place{}
	}
	p.places[key] = place{since: s.Now, replaces: replaces}
	return nil, nil
}

func countTrue(of map[types.NamespacedName]bool) int {
	n := 0
	for _, is := range of {
		if is {
			n++
		}
	}
	return n
}

// Release gives back the place of a cluster whose step was not claimed.
func (p *Pace) Release(key types.NamespacedName) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.places, key)
}

// NoteRollBack notes a member that goes back to what it ran with before, if the decision is to send one back.
// It comes before the claim, so that none is missed.
func (p *Pace) NoteRollBack(ctx context.Context, s *cluster.Snapshot, d *plan.Decision) error {
	standing := s.Cluster.Status.Operation
	if p == nil || d.Action.Operation() != v1beta1.OperationRollBack || standing != nil && standing.Type == v1beta1.OperationRollBack {
		return nil
	}
	return p.RollBacks.add(ctx, s.Cluster.Namespace+"/"+d.Action.Member())
}

// NoteHealthyRestart begins the count of roll backs anew, if the pass notes of a member that it is healthy with what it
// was restarted for. It has been ready for a while then, and does not go back any more.
func (p *Pace) NoteHealthyRestart(ctx context.Context, d *plan.Decision) {
	if p != nil && slices.ContainsFunc(d.Upkeep, notesRoll) {
		p.RollBacks.reset(ctx)
	}
}

// notesRoll reports whether an upkeep notes that a member is healthy with another configuration, which it was restarted
// for. Other authorities alone are none.
func notesRoll(u plan.Upkeep) bool {
	update, ok := u.(plan.UpdateStatefulSet)
	if !ok {
		return false
	}
	now, before := update.Desired.Annotations, update.Live.Annotations
	t, _, _ := cluster.MarkedOperation(before[cluster.AnnotationOperation])
	healthy := now[cluster.AnnotationHealthyIntent]
	if t != v1beta1.OperationRollMember || healthy != now[cluster.AnnotationIntent] || healthy == before[cluster.AnnotationHealthyIntent] {
		return false
	}
	return targetHash(healthy) != targetHash(before[cluster.AnnotationHealthyIntent])
}

// targetHash is that of the intent in an annotation; empty where there is none.
func targetHash(annotation string) string {
	intent, err := cluster.DecodeIntent(annotation)
	if err != nil {
		return ""
	}
	return intent.TargetHash()
}
