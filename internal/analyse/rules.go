// Package analyse is the decision core: pure functions from a Snapshot to a Decision.
package analyse

import (
	"slices"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// The names of the rules. Rules has their order.
const (
	RuleDeletion      = "Deletion"
	RulePaused        = "Paused"
	RuleBootstrap     = "Bootstrap"
	RuleResume        = "Resume"
	RuleRollBack      = "RollBack"
	RuleOperation     = "OperationUnderWay"
	RuleConsistency   = "Consistency"
	RuleRepair        = "Repair"
	RuleScale         = "Scale"
	RuleUpgrade       = "Upgrade"
	RuleConfiguration = "ConfigurationRoll"
	RuleAuthorities   = "AuthorityRotation"
	RuleStorageGrowth = "StorageGrowth"
	RuleMaintenance   = "Maintenance"
)

// Rule has an opinion on a snapshot, or none: nil.
type Rule struct {
	Name   string
	Decide func(*cluster.Snapshot) *plan.Decision
}

// Rules are all rules, in their order. The first with an opinion wins.
// Later releases add Hibernation, Restore and QuorumRecovery after Paused; NoSpace before Repair; and Promote after it.
var Rules = []Rule{
	{RuleDeletion, deletion},                            // Make sure that a deleted cluster is left to Kubernetes.
	{RulePaused, paused},                                // Make sure that a paused cluster is only watched.
	{RuleBootstrap, bootstrap},                          // Make sure that a new cluster is created, or taken back.
	{RuleResume, resume},                                // Make sure that every member with data has its StatefulSet.
	{RuleRollBack, rollBack},                            // Make sure that a member which does not come back goes back.
	{RuleRepair, takeOver},                              // Make sure that no restart keeps a lost member.
	{RuleOperation, operationUnderWay},                  // Make sure that one operation ends before the next begins.
	{RuleConsistency, checkConsistency},                 // Make sure that it is known whose data are wrong.
	{RuleRepair, repair},                                // Make sure that lost members are replaced.
	{RuleMaintenance, defragmentFull},                   // Make sure that a full database is made smaller first.
	{RuleScale, scale},                                  // Make sure that there are as many members as the spec says.
	{RuleUpgrade, upgrade},                              // Make sure that members run the version of the spec.
	{RuleConfiguration, configurationRoll},              // Make sure that pods are made from the spec's template.
	{RuleAuthorities, authorityRotation},                // Make sure that members trust the present authorities.
	{RuleStorageGrowth, notYetSupported(storageChange)}, // Make sure that volumes are as the spec says.
	{RuleMaintenance, moveLeaderAsAsked},                // Make sure that the member leads that an administrator names.
	{RuleMaintenance, defragment},                       // Make sure that members are defragmented on request.
	{RuleMaintenance, reportRotation},                   // Make sure that a rotation that waits is reported.
}

// When the next pass is, at the latest. Kubernetes objects are watched, so their changes come earlier; etcd is not.
const (
	requeueWhileStarting = time.Second
	requeueWhileWrong    = 10 * time.Second
	requeueAtRest        = 30 * time.Second
	// startingPart of the operation's time so far is how long etcd gets before it is asked again.
	startingPart = 8
)

// Next decides what to do about a snapshot. It is a function of its argument alone.
func Next(s cluster.Snapshot) plan.Decision {
	ended, abandoned := endOperation(&s)
	if ended {
		after := *s.Cluster
		after.Status.Operation = nil
		s.Cluster = &after
	}
	d := firstOpinion(&s)
	if d.Finished, d.Abandoned = ended, abandoned; ended && d.Action != nil {
		// One operation ends in this pass, and the next begins in another.
		d.Action, d.Voluntary, d.Message = nil, false, "Next: "+d.Message
	}
	if d.Rule == RuleDeletion {
		return d
	}
	if d.AnsweredPlan = unansweredPlan(&s); d.AnsweredPlan != "" {
		d.Plan, d.Action, d.Voluntary = Preview(s), nil, false // the answer comes before the deed
	}
	d.Claim = claimOf(&s, &d)
	addUpkeep(&s, &d)
	d.Voluntary = d.Voluntary || lowersALimit(&s, d.Upkeep)
	d.Problems = allProblems(&s)
	d.StaleTemplates = staleTemplates(&s)
	d.InvalidatesSecrets = writesSecrets(d.Upkeep)
	d.RequeueAfter = requeueAfter(&s, &d)
	for _, next := range []time.Duration{s.NextDeadline(), untilLost(&s), untilTried(&s)} {
		if due := s.Now.Add(next); next > 0 && (d.DueAt.IsZero() || due.Before(d.DueAt)) {
			d.RequeueAfter, d.DueAt = min(d.RequeueAfter, next), due
		}
	}
	return d
}

// firstOpinion asks the rules in their order. Where a voluntary step is held, or an upgrade is blocked, a later rule
// may still take a step: one that repairs what is down, for example.
func firstOpinion(s *cluster.Snapshot) plan.Decision {
	var held *plan.Decision
	for _, rule := range Rules {
		d := rule.Decide(s)
		if d == nil || held != nil && d.Action == nil {
			continue
		}
		d.Rule = rule.Name
		d.Voluntary = d.Action != nil && s.Cluster.Status.Operation == nil && plan.IsVoluntary(d.Action)
		refusals := holdRefusals(s.Hold, s.Cluster, d)
		switch isBlocked := rule.Name == RuleUpgrade && len(d.Refusals) > 0; {
		case len(refusals) == 0 && !isBlocked:
			return *d
		case held != nil:
		case isBlocked:
			held = d
		default:
			held = refused(refusals)
			held.Rule, held.Message = rule.Name, held.Message+" Next: "+d.Message
		}
	}
	if held != nil {
		return *held
	}
	return plan.Decision{Reason: v1beta1.ReasonUpToDate, Message: "Nothing to change: size, version, pod template and storage are as the spec says."}
}

func requeueAfter(s *cluster.Snapshot, d *plan.Decision) time.Duration {
	someDown := slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return !m.Serves() })
	switch {
	case d.InvalidatesSecrets, refusedFor(d, v1beta1.ReasonWaitingForDeletion):
		return requeueWhileStarting
	case d.RequeueAfter != 0:
		return d.RequeueAfter
	case d.Action != nil:
		return requeueWhileStarting
	case d.Progressing && waitsForPods(s):
		return growing(s, 1, requeueWhileWrong, requeueAtRest)
	case d.Progressing: // short at first, because the readiness probe, which is watched, is slower than etcd
		return growing(s, startingPart, requeueWhileStarting, requeueWhileWrong)
	case someDown || len(d.Refusals) > 0 || len(d.Problems) > 0 || len(s.ForeignObjects) > 0:
		return requeueWhileWrong
	default:
		return requeueAtRest
	}
}

// waitsForPods reports whether no member that is missing can answer before its pod runs.
// The watch on pods brings the next pass.
func waitsForPods(s *cluster.Snapshot) bool {
	return len(s.Members) > 0 && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		waits := m.Workload != nil && !m.Pod.IsRunning() && (m.Pod == nil || !m.Pod.Deleting)
		return !m.Serves() && !waits
	})
}

// growing returns a part of the time that the operation has taken, within limits.
func growing(s *cluster.Snapshot, part time.Duration, from, to time.Duration) time.Duration {
	op := s.Cluster.Status.Operation
	if op == nil {
		return from
	}
	return min(max(s.Now.Sub(op.StartedAt.Time)/part, from), to)
}

func refusedFor(d *plan.Decision, reason string) bool {
	return slices.ContainsFunc(d.Refusals, func(r plan.Refusal) bool { return r.Reason == reason })
}

func deletion(s *cluster.Snapshot) *plan.Decision {
	if s.Cluster.DeletionTimestamp.IsZero() {
		return nil
	}
	fate := "its volumes are kept"
	switch {
	case slices.ContainsFunc(s.Members, isInMemory):
		fate = "its data were in memory, and go with the pods"
	case deletesVolumes(s):
		fate = "its volumes and the data on them are deleted too, as spec.storage.retentionPolicy.whenDeleted says"
		if !cluster.DeletesVolumes(s.Cluster) {
			fate = "volumes that name it as their owner are deleted too: the operator had not carried out spec.storage.retentionPolicy.whenDeleted: Retain"
		}
	}
	return &plan.Decision{
		Reason:  v1beta1.ReasonDeleting,
		Message: "The cluster is being deleted. Kubernetes removes its pods and Services; " + fate + ".",
	}
}

// deletesVolumes reports whether the volumes go with the cluster. Their owner decides; the spec speaks where there is
// none any more, because Kubernetes deletes the volumes first in a foreground deletion.
func deletesVolumes(s *cluster.Snapshot) bool {
	volumes := false
	for _, m := range slices.Concat(s.Members, s.LeftOvers) {
		if v := m.Volume; v != nil {
			if v.DeletedWith == s.Cluster.UID {
				return true
			}
			volumes = true
		}
	}
	return !volumes && cluster.DeletesVolumes(s.Cluster)
}

func paused(s *cluster.Snapshot) *plan.Decision {
	if !s.Cluster.Spec.Paused {
		return nil
	}
	return &plan.Decision{
		Reason:  v1beta1.ReasonPaused,
		Message: "The operator only watches this cluster, because spec.paused is true. Set it to false to have the operator act again.",
	}
}

// refused is the decision of a rule whose guards refused: nothing is done. The first refusal gives the reason. The
// message has all of them.
func refused(refusals []plan.Refusal) *plan.Decision {
	return &plan.Decision{Reason: refusals[0].Reason, Message: plan.Messages(refusals), Refusals: refusals}
}
