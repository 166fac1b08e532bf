package observe

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

const (
	// podDueAfter is how long Kubernetes may take to create the pod of a StatefulSet before its events are read.
	podDueAfter = 10 * time.Second
	// maxEventInterval is the longest time between two reads of a cluster's events.
	maxEventInterval = time.Minute
	// maxEventAge is a little more than the longest time between two attempts to create a pod, which is 1000 s.
	maxEventAge = 20 * time.Minute
	// maxEvents is how many events of one StatefulSet are read: Kubernetes counts equal ones in one event.
	maxEvents = 20
)

// podlessSets are the StatefulSets of one cluster that have no pod.
type podlessSets struct {
	readAgain time.Time
	// since is when each was first seen without a pod, and failures are why it has none, where that is known.
	since    map[types.UID]time.Time
	failures map[types.UID]string
}

// observePodless tells why StatefulSets have no pod, for example for a quota or a PriorityClass that does not exist.
// Only events say that. They are read when the pod is due, and then at intervals that double up to a minute.
// They only explain. So a pass goes on without them where they cannot be read.
func (o *Observer) observePodless(ctx context.Context, s *cluster.Snapshot) {
	known, _ := o.podless.Load(s.Cluster.Key())
	old, _ := known.(podlessSets)
	sets := podlessSets{readAgain: old.readAgain, since: map[types.UID]time.Time{}, failures: map[types.UID]string{}}
	var due []*cluster.Workload
	for i := range min(len(s.Members), cluster.MaxMembers) {
		m := &s.Members[i]
		if m.Workload == nil || m.Workload.Deleting || m.Pod != nil {
			continue
		}
		uid := m.Workload.Live.UID
		since, ok := old.since[uid]
		if !ok {
			since = s.Now
		}
		sets.since[uid], m.Workload.CreateFailure = since, old.failures[uid]
		m.Workload.PodDue = since.Add(podDueAfter)
		if !s.Now.Before(m.Workload.PodDue) {
			due = append(due, m.Workload)
		}
	}
	if len(due) > 0 && !s.Now.Before(old.readAgain) {
		for _, w := range due {
			if w.CreateFailure = o.createFailure(ctx, s, w.Live.UID); w.CreateFailure == "" {
				break // the others tell no more
			}
		}
		sets.readAgain = s.Now.Add(min(s.Now.Sub(sets.since[due[0].Live.UID]), maxEventInterval))
	}
	for _, w := range due {
		sets.failures[w.Live.UID] = w.CreateFailure
	}
	if len(sets.since) == 0 {
		o.podless.Delete(s.Cluster.Key())
	} else {
		o.podless.Store(s.Cluster.Key(), sets)
	}
}

// createFailure returns why the last attempt to create the pod of a StatefulSet failed; empty where there is no event.
func (o *Observer) createFailure(ctx context.Context, s *cluster.Snapshot, set types.UID) string {
	var events corev1.EventList
	err := o.Live.List(ctx, &events, client.InNamespace(s.Cluster.Namespace), client.Limit(maxEvents),
		client.MatchingFields{"involvedObject.uid": string(set), "reason": "FailedCreate"})
	if err != nil {
		return ""
	}
	latest, failure := s.Now.Add(-maxEventAge), ""
	for i := range events.Items {
		if at := lastSeen(&events.Items[i]); at.After(latest) {
			latest, failure = at, events.Items[i].Message
		}
	}
	if _, cause, ok := strings.Cut(failure, " failed error: "); ok {
		failure = cause // without "create Pod prod-0-0 in StatefulSet prod-0"
	}
	if _, cause, ok := strings.Cut(failure, " is forbidden: "); ok && strings.HasPrefix(failure, "pods ") {
		failure = cause // without the pod's name, so that the same cause of several members is told once
	}
	return cluster.ForeignText(failure)
}

// lastSeen returns when what an event tells happened last.
func lastSeen(e *corev1.Event) time.Time {
	at := e.LastTimestamp.Time
	if e.EventTime.After(at) {
		at = e.EventTime.Time
	}
	if e.Series != nil && e.Series.LastObservedTime.After(at) {
		at = e.Series.LastObservedTime.Time
	}
	return at
}
