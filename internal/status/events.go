package status

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// Event is a Kubernetes event about the cluster.
type Event struct {
	Type, Reason, Message string
}

// ActionOf returns the action of an event. Kubernetes merges events of one reason and action into the first one, and
// each answer to the plan annotation has another text.
func (r *Report) ActionOf(e Event) string {
	if e.Reason != v1beta1.EventPlanned {
		return "Reconciling"
	}
	sum := sha256.Sum256([]byte(r.Status.AnsweredPlan))
	return "Planning-" + hex.EncodeToString(sum[:4])
}

// events returns what changed: the action that was carried out, the operation that ended, and conditions.
func events(s *cluster.Snapshot, d *plan.Decision, old, now *v1beta1.EtcdClusterStatus, outcome error) []Event {
	var list []Event
	if d.Finished {
		list = append(list, endEvent(s.Cluster.Status.Operation, d.Abandoned))
	}
	if d.Action != nil && outcome == nil {
		if e := actionEvent(d); e.Reason != "" {
			list = append(list, e)
		}
	}
	if pods := d.ResizedPods(); len(pods) > 0 && outcome == nil {
		list = append(list, Event{corev1.EventTypeNormal, v1beta1.EventPodResized,
			"These pods have the CPU and memory of the spec now. They were not restarted: " + strings.Join(pods, ", ") + "."})
	}
	if d.Plan != "" {
		list = append(list, Event{corev1.EventTypeNormal, v1beta1.EventPlanned, d.Plan})
	}
	if names := recreatedSecrets(s, d); len(names) > 0 {
		list = append(list, Event{corev1.EventTypeWarning, v1beta1.EventSecretsRecreated,
			"Secrets are missing, and the operator creates them again: " + strings.Join(names, ", ") + ". Find out who deleted them."})
	}
	for i := range now.Conditions {
		c := &now.Conditions[i]
		before := meta.FindStatusCondition(old.Conditions, c.Type)
		if d.Finished && c.Reason == v1beta1.ReasonUpToDate {
			continue // the end of the operation has been told
		}
		first := isServingFirst(s, c)
		switch {
		case first && !d.Finished, !first && !isNewsworthy(before, c):
		case d.Finished && d.Abandoned == "" && c.Type == v1beta1.ConditionAvailable && !bad(c):
			list[0].Message += " " + c.Message // one event tells the end of the operation and what it led to
		default:
			list = withEvent(list, Event{eventType(c, d), c.Reason, c.Message})
		}
	}
	for i := range list {
		list[i].Message = cluster.Shortened(list[i].Message, maxNote)
	}
	return list
}

// isServingFirst reports whether a condition says that a new cluster serves. The end of its founding tells that.
func isServingFirst(s *cluster.Snapshot, c *metav1.Condition) bool {
	op := s.Cluster.Status.Operation
	return op != nil && op.Type == v1beta1.OperationBootstrap && c.Type == v1beta1.ConditionAvailable && !bad(c)
}

// recreatedSecrets names the managed Secrets that the pass creates although members were made with them.
func recreatedSecrets(s *cluster.Snapshot, d *plan.Decision) []string {
	if !s.MembersCreated() {
		return nil
	}
	var names []string
	for _, u := range d.Upkeep {
		if name := u.Recreates(); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// withEvent adds an event. Two conditions may change for one cause, and Kubernetes merges events of one reason into the
// first. So of two such events the longer one is kept.
func withEvent(list []Event, e Event) []Event {
	i := slices.IndexFunc(list, func(other Event) bool { return other.Type == e.Type && other.Reason == e.Reason })
	switch {
	case i < 0:
		return append(list, e)
	case len(e.Message) > len(list[i].Message):
		list[i] = e
	}
	return list
}

const (
	// maxNote is how many bytes of a message Kubernetes accepts in an event. The condition may hold more of it.
	maxNote = 1024
	// maxMessage is how many bytes of a message the operator writes into a condition.
	maxMessage = 8 << 10
)

func endEvent(op *v1beta1.Operation, abandoned string) Event {
	what := "Operation " + plan.NameOf(op)
	if abandoned != "" {
		return Event{corev1.EventTypeWarning, v1beta1.EventOperationAbandoned, what + " was abandoned. " + abandoned}
	}
	return Event{corev1.EventTypeNormal, v1beta1.EventOperationFinished, what + " is done."}
}

func actionEvent(d *plan.Decision) Event {
	switch action := d.Action.(type) {
	case plan.CreateFounders:
		return Event{corev1.EventTypeNormal, v1beta1.EventBootstrapStarted, d.Message}
	case plan.TakeBackVolumes:
		return Event{corev1.EventTypeNormal, v1beta1.EventVolumesTakenBack, d.Message}
	case plan.StartMembers:
		return Event{corev1.EventTypeNormal, v1beta1.EventMembersResumed, d.Message}
	case plan.RestartMember:
		if action.For == v1beta1.OperationRollBack {
			return Event{corev1.EventTypeWarning, v1beta1.EventMemberRolledBack, d.Message}
		}
		return Event{corev1.EventTypeNormal, v1beta1.EventMemberRolled, d.Message}
	case plan.AddMember:
		return Event{corev1.EventTypeNormal, v1beta1.EventMemberAdded, d.Message}
	case plan.StartLearner:
		return Event{corev1.EventTypeNormal, v1beta1.EventMemberStarted, d.Message}
	case plan.PromoteMember:
		return Event{corev1.EventTypeNormal, v1beta1.EventMemberPromoted, d.Message}
	case plan.RemoveMember:
		return Event{corev1.EventTypeNormal, v1beta1.EventMemberRemoved, d.Message}
	case plan.ChangeDowngrade:
		return Event{corev1.EventTypeNormal, d.Reason, d.Message}
	case plan.HashMember:
		if action.Begins {
			return Event{corev1.EventTypeNormal, d.Reason, d.Message}
		}
	case plan.Defragment:
		return Event{corev1.EventTypeNormal, v1beta1.EventMemberDefragmented, d.Message}
	case plan.MoveLeader:
		return Event{corev1.EventTypeNormal, v1beta1.EventLeaderMoved, d.Message}
	}
	return Event{}
}

// isNewsworthy reports whether a change of a condition is worth an event. A first report that is good is not.
func isNewsworthy(before, now *metav1.Condition) bool {
	if before == nil {
		return bad(now)
	}
	return before.Status != now.Status || (before.Reason != now.Reason && bad(now))
}

func eventType(c *metav1.Condition, d *plan.Decision) string {
	switch c.Reason {
	case v1beta1.ReasonWaitingForDeletion, v1beta1.ReasonTemplateNewer, v1beta1.ReasonWaitingForOtherClusters:
		return corev1.EventTypeNormal // it ends by itself
	}
	if c.Type == v1beta1.ConditionProgressing && len(d.Refusals) > 0 || bad(c) {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

func bad(c *metav1.Condition) bool {
	switch c.Type {
	case v1beta1.ConditionAvailable:
		return c.Status != metav1.ConditionTrue && c.Reason != v1beta1.ReasonNotStarted && c.Reason != v1beta1.ReasonNoReadyEndpoint
	case v1beta1.ConditionDataConsistent:
		return c.Status != metav1.ConditionTrue
	case v1beta1.ConditionProgressing:
		return c.Status == metav1.ConditionFalse && c.Reason != v1beta1.ReasonUpToDate && c.Reason != v1beta1.ReasonPaused && c.Reason != v1beta1.ReasonDeleting
	default:
		return c.Status != metav1.ConditionFalse
	}
}
