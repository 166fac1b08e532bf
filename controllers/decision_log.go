package controllers

import (
	"context"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// decisionLog remembers what was last logged about each cluster. Equal decisions are logged once.
type decisionLog struct{ last sync.Map }

// loggedDecision is what a line is about. A new line is logged when it changes.
type loggedDecision struct {
	uid                  types.UID
	rule, reason, guards string
}

// forget removes a cluster that no longer exists.
func (l *decisionLog) forget(key client.ObjectKey) { l.last.Delete(key) }

// record logs the decision if its rule, its reason or the refusing guards are other ones than the last time.
// The line says how many voters are healthy, and for a restart, how many will be.
func (l *decisionLog) record(ctx context.Context, s *cluster.Snapshot, d *plan.Decision) {
	guards := make([]string, len(d.Refusals))
	for i := range d.Refusals {
		guards[i] = d.Refusals[i].Guard
	}
	now := loggedDecision{s.Cluster.UID, d.Rule, d.Reason, strings.Join(guards, ",")}
	if last, ok := l.last.Swap(s.Cluster.Key(), now); ok && last == now {
		return
	}
	fields := []any{"rule", d.Rule, "reason", d.Reason, "message", d.Message}
	if len(guards) > 0 {
		fields = append(fields, "refusedBy", guards)
	}
	if d.Rule != analyse.RuleDeletion { // etcd was not asked
		fields = append(fields, "quorum", s.Outlook().String())
	}
	if restart, ok := d.Action.(plan.RestartMember); ok {
		after := s.After(cluster.Change{Stops: restart.Member()})
		fields = append(fields, "member", restart.Member(), "quorumDuringRestart", after.String())
	}
	log.FromContext(ctx).Info("Decided", fields...)
}
