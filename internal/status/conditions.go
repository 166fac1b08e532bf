package status

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// view is a snapshot with what more than one condition needs of it.
type view struct {
	*cluster.Snapshot
	outlook cluster.Outlook
	founded bool
	// conflict tells that there is more than one cluster ID.
	conflict bool
	problems []plan.Problem
	// failures describes the members that do not serve.
	failures string
	// memoryLost tells that no quorum has its data, which were in memory; empty elsewhere.
	memoryLost string
}

func viewOf(s *cluster.Snapshot, d *plan.Decision) *view {
	return &view{
		Snapshot: s,
		outlook:  s.Outlook(),
		founded:  s.Founded(),
		conflict: len(s.ClusterIDs()) > 1,
		problems: d.Problems,
		failures: failures(s),

		memoryLost: analyse.MemoryLost(s),
	}
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

// sentences joins sentences. Empty ones are left out.
func sentences(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), " ")
}

func conditionStatus(b bool) metav1.ConditionStatus {
	if b {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

func available(v *view) metav1.Condition {
	is := func(status metav1.ConditionStatus, reason string, message ...string) metav1.Condition {
		return condition(v1beta1.ConditionAvailable, status, reason, sentences(message...))
	}
	switch {
	case v.conflict:
		return is(metav1.ConditionFalse, v1beta1.ReasonClusterIDConflict,
			"Clients may reach either of two etcd clusters.", analyse.ClusterIDConflict(v.Snapshot))
	case v.everythingLost():
		_, message := v.allGone()
		return is(metav1.ConditionFalse, v1beta1.ReasonNoQuorum, message)
	case len(v.Members) == 0:
		return is(metav1.ConditionFalse, v1beta1.ReasonNotStarted, "No member has been created yet.")
	case v.hasQuorum() && !v.hasEndpoint():
		return is(metav1.ConditionFalse, v1beta1.ReasonNoReadyEndpoint,
			v.outlook.String()+", but no pod is ready. The client Service has no endpoints.", v.alarmHint())
	case v.hasQuorum() && v.outlook.Spare() < 0:
		return is(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk,
			v.outlook.String()+".", "Yet one of them returns etcd's member list, which takes a quorum.", v.failures)
	case v.outlook.HasQuorum() && v.outlook.Spare() == 0 && v.outlook.Voters > 1:
		return is(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk, v.outlook.String()+". One more failure stops the cluster.")
	case v.outlook.HasQuorum():
		return is(metav1.ConditionTrue, v1beta1.ReasonQuorumServing, v.outlook.String()+".")
	case v.memoryLost != "":
		return is(metav1.ConditionFalse, v1beta1.ReasonNoQuorum, v.noQuorum())
	case v.isUnobservable():
		return is(metav1.ConditionUnknown, v1beta1.ReasonUnobservable,
			"The operator has no valid client certificate for the members. They continue to run.", v.firstProblem())
	case v.onlyOperatorIsCutOff():
		return is(metav1.ConditionUnknown, v1beta1.ReasonUnobservable, cutOffText, v.failures)
	case !v.founded:
		return is(metav1.ConditionFalse, v1beta1.ReasonNotStarted, "The members are starting.", v.failures)
	default:
		return is(metav1.ConditionFalse, v1beta1.ReasonNoQuorum, v.noQuorum())
	}
}

// hasQuorum reports whether a quorum serves. The member list proves it, even if too few voters tell the operator that
// they are healthy: it is a linearizable read, made after all members were asked. A member that was just promoted still
// calls itself a learner, and the operator alone may be cut off from some.
func (v *view) hasQuorum() bool { return v.outlook.HasQuorum() || v.Membership != nil }

// hasEndpoint reports whether the client Service has a pod that is ready and serves.
func (v *view) hasEndpoint() bool {
	return slices.ContainsFunc(v.Members, func(m cluster.Member) bool { return m.Pod != nil && m.Pod.Ready && m.Serves() })
}

// alarmHint says where to look if an alarm may be why no pod is ready.
func (v *view) alarmHint() string {
	if v.Membership == nil || len(v.Membership.Alarms) == 0 {
		return ""
	}
	return "etcd reports an alarm: see condition StorageAlarm."
}

// everythingLost reports whether a cluster that has served has no volume any more.
func (v *view) everythingLost() bool {
	return len(v.Members) == 0 && v.Cluster.Status.ClusterID != ""
}

// allGone tells of a cluster of which nothing is left.
func (v *view) allGone() (reason, message string) {
	if cluster.IsInMemory(&v.Cluster.Spec) {
		return v1beta1.ReasonMemoryLost, "The cluster has served, and nothing is left of its data, which were in memory. To start empty, delete the cluster and create it again."
	}
	return v1beta1.ReasonNoQuorum, allVolumesGone
}

const allVolumesGone = "The cluster has served, and all its volumes are gone. Bring the volumes back. " +
	"To start empty instead, delete the cluster and create it again."

func quorumLost(v *view) metav1.Condition {
	is := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return condition(v1beta1.ConditionQuorumLost, status, reason, message)
	}
	switch {
	case v.everythingLost():
		reason, message := v.allGone()
		return is(metav1.ConditionTrue, reason, message)
	case !v.founded:
		return is(metav1.ConditionFalse, v1beta1.ReasonNotStarted, "The cluster has never had a quorum.")
	case v.outlook.HasQuorum():
		return is(metav1.ConditionFalse, v1beta1.ReasonQuorumServing, "A quorum of voters answers.")
	case v.hasQuorum():
		return is(metav1.ConditionFalse, v1beta1.ReasonQuorumServing, "A voter returns etcd's member list, which takes a quorum.")
	case v.memoryLost != "":
		return is(metav1.ConditionTrue, v1beta1.ReasonMemoryLost, v.noQuorum())
	case v.isUnobservable():
		return is(metav1.ConditionUnknown, v1beta1.ReasonUnobservable,
			sentences("The operator cannot connect to the members.", v.firstProblem()))
	case v.onlyOperatorIsCutOff():
		return is(metav1.ConditionUnknown, v1beta1.ReasonUnobservable, sentences(cutOffText, v.failures))
	default:
		return is(metav1.ConditionTrue, v1beta1.ReasonNoQuorum, v.noQuorum())
	}
}

func (v *view) noQuorum() string {
	if v.memoryLost != "" {
		return sentences(v.outlook.String()+".", v.memoryLost)
	}
	return sentences(v.outlook.String()+".", v.failures, "etcd serves again, with all its data, when a quorum of members is back.")
}

const cutOffText = "The members do not answer the operator. A quorum of their pods is ready, which is a linearizable read of etcd, " +
	"so clients are probably served."

// onlyOperatorIsCutOff reports whether a quorum of the members passes the kubelets' readiness probes, although none of
// them answers the operator.
func (v *view) onlyOperatorIsCutOff() bool {
	ready := 0
	for i := range v.Members {
		m := &v.Members[i]
		if m.Answers() {
			return false
		}
		if m.Pod != nil && m.Pod.PassesReadiness {
			ready++
		}
	}
	return v.founded && ready >= cluster.Quorum(v.outlook.Voters) && v.outlook.Voters > 0
}

// isUnobservable reports whether pods run, but the operator has no certificate to connect to them.
func (v *view) isUnobservable() bool {
	return v.founded && slices.ContainsFunc(v.Members, func(m cluster.Member) bool { return lacksCertificate(&m) })
}

// firstProblem returns what is wrong. It is empty if the operator corrects it itself.
func (v *view) firstProblem() string {
	if len(v.problems) == 0 {
		return ""
	}
	return v.problems[0].Message
}

func progressing(d *plan.Decision) metav1.Condition {
	return condition(v1beta1.ConditionProgressing, conditionStatus(d.Progressing), d.Reason, d.Message)
}

func degraded(v *view, d *plan.Decision, status *v1beta1.EtcdClusterStatus) metav1.Condition {
	because := func(reason, message string) metav1.Condition {
		return condition(v1beta1.ConditionDegraded, metav1.ConditionTrue, reason, message)
	}
	switch {
	case v.conflict:
		return because(v1beta1.ReasonClusterIDConflict, analyse.ClusterIDConflict(v.Snapshot))
	case len(v.problems) > 0:
		return because(v.problems[0].Reason, v.problemText())
	case isBlocked(d):
		failures := ""
		if d.Reason == v1beta1.ReasonRolledBack && status.ReadyReplicas < status.Replicas { // it tells what was, not what is
			failures = v.failures
		}
		return because(d.Reason, sentences(d.Message, failures))
	case status.ReadyReplicas < status.Replicas && !onlyStarting(v.Snapshot) && !onlyRestarting(v.Snapshot):
		return because(v1beta1.ReasonMembersNotReady,
			sentences(fmt.Sprintf("%d of %d members are ready.", status.ReadyReplicas, status.Replicas), v.failures))
	default:
		return condition(v1beta1.ConditionDegraded, metav1.ConditionFalse, v1beta1.ReasonAsExpected, "All started members answer.")
	}
}

// transientReasons are the reasons of refusals that do not show a failure, or whose failure the members' reasons show.
var transientReasons = []string{
	v1beta1.ReasonNotYetSupported, v1beta1.ReasonWaitingForDeletion, v1beta1.ReasonQuorumAtRisk,
	v1beta1.ReasonMembersNotHealthy, v1beta1.ReasonDisruptionNotAllowed, v1beta1.ReasonFrozen,
	v1beta1.ReasonWaitingForOtherClusters, v1beta1.ReasonRollsStopped,
}

// isBlocked reports whether a refusal that shows a failure keeps the cluster from its spec.
func isBlocked(d *plan.Decision) bool {
	return slices.ContainsFunc(d.Refusals, func(r plan.Refusal) bool { return !slices.Contains(transientReasons, r.Reason) })
}

// startingReasons are the reasons of members that are starting and have not failed.
var startingReasons = []string{v1beta1.ReasonStarting, v1beta1.ReasonPodMissing, v1beta1.ReasonNoLeader}

// onlyStarting reports whether all members that do not serve are starting for the first time, or are being added.
func onlyStarting(s *cluster.Snapshot) bool {
	return !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		if m.Serves() || isCopying(s, &m) {
			return false
		}
		reason, _ := failure(s, &m)
		return m.Volume.Started() || !slices.Contains(startingReasons, reason) || analyse.ReplacementNote(s, &m) != ""
	})
}

// isCopying reports whether the member is a learner that runs, and that the operator adds. At the operation's deadline
// it counts as failed.
func isCopying(s *cluster.Snapshot, m *cluster.Member) bool {
	op := s.Cluster.Status.Operation
	return op != nil && op.Type == v1beta1.OperationAddMember && op.Member == m.Name && m.IsLearner()
}

// onlyRestarting reports whether the one member that does not serve is the one that the operator restarts.
// At the operation's deadline it counts as failed.
func onlyRestarting(s *cluster.Snapshot) bool {
	return !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		op := s.Cluster.Status.Operation
		return !m.Serves() && (op == nil || op.Member != m.Name || !isRestarted(s, &m))
	})
}

func (v *view) problemText() string {
	text := plan.Messages(v.problems)
	if v.founded {
		text += " Running members continue to run."
	}
	return text
}

// storageAlarm returns the last condition while no voter lists the alarms.
func storageAlarm(s *cluster.Snapshot) metav1.Condition {
	last := meta.FindStatusCondition(s.Cluster.Status.Conditions, v1beta1.ConditionStorageAlarm)
	if s.Membership == nil && last != nil {
		return *last
	}
	alarm := condition(v1beta1.ConditionStorageAlarm, metav1.ConditionTrue, "", "")
	if analyse.HasCorruptAlarm(s) {
		alarm.Reason, alarm.Message = v1beta1.ReasonCorrupt, corruptText
	}
	if names := outOfSpace(s); len(names) > 0 {
		if alarm.Reason == "" {
			alarm.Reason = v1beta1.ReasonNoSpace
		}
		alarm.Message = sentences(alarm.Message, fmt.Sprintf("The database of %s reached its quota. etcd refuses writes. "+
			"Delete keys, compact and defragment. Then run etcdctl alarm disarm.", strings.Join(names, ", ")))
	}
	if alarm.Reason == "" {
		return condition(v1beta1.ConditionStorageAlarm, metav1.ConditionFalse, v1beta1.ReasonNoAlarm, "etcd reports no alarm.")
	}
	return alarm
}

// corruptText names no member: etcd raises the alarm for member 0, or for a follower whose leader is the one that is
// wrong. Source: etcd's server/etcdserver/corrupt.go.
const corruptText = "etcd reports alarm CORRUPT: the data of the members may differ. The alarm does not show which member is wrong. " +
	"While it is active, no member is ready, and the client Service has no endpoints. The operator compares the members: see condition DataConsistent. " +
	"Do not restart members. Do not delete volumes."

// outOfSpace returns the members with alarm NOSPACE, sorted.
func outOfSpace(s *cluster.Snapshot) []string {
	if s.Membership == nil {
		return nil
	}
	var names []string
	for _, a := range s.Membership.Alarms {
		if a.Kind != cluster.AlarmNoSpace {
			continue
		}
		name := "member " + a.Member.String()
		for _, m := range s.Membership.Members {
			if m.ID == a.Member && m.Name != "" {
				name = m.Name
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// versionAdvisory tells of the security holes of what the members run.
func versionAdvisory(s *cluster.Snapshot) metav1.Condition {
	members := map[string][]string{} // by version
	for i := range s.Members {
		if v := analyse.RunningVersion(&s.Members[i]); cluster.AdvisoryFor(v) != nil {
			members[v] = append(members[v], s.Members[i].Name)
		}
	}
	if len(members) == 0 {
		return condition(v1beta1.ConditionVersionAdvisory, metav1.ConditionFalse, v1beta1.ReasonAsExpected,
			"This release of the operator knows no security hole of the versions of etcd that the members run.")
	}
	var texts []string
	for _, v := range slices.Sorted(maps.Keys(members)) {
		a := cluster.AdvisoryFor(v)
		texts = append(texts, fmt.Sprintf("etcd %s has known security holes, and runs in %s. %s Set spec.version to %s or a later patch.",
			v, strings.Join(members[v], ", "), a.Holes, a.FixedIn))
	}
	return condition(v1beta1.ConditionVersionAdvisory, metav1.ConditionTrue, v1beta1.ReasonSecurityFix, strings.Join(texts, " "))
}

func upgradeBlocked(s *cluster.Snapshot, d *plan.Decision) metav1.Condition {
	refusals := analyse.UpgradeRefusals(s)
	for _, r := range d.Refusals {
		isOfImageCheck := d.Reason == v1beta1.ReasonCheckingImage && r.Reason == v1beta1.ReasonWriteRefused
		if r.Reason == v1beta1.ReasonDowngradeRefused || isOfImageCheck || len(refusals) == 0 && r.Reason == v1beta1.ReasonImageNotUsable {
			refusals = append(refusals, r)
		}
	}
	switch {
	case len(refusals) > 0:
		return condition(v1beta1.ConditionUpgradeBlocked, metav1.ConditionTrue, refusals[0].Reason, plan.Messages(refusals))
	case analyse.AwaitsUpgrade(s):
		return condition(v1beta1.ConditionUpgradeBlocked, metav1.ConditionFalse, v1beta1.ReasonAsExpected,
			"The version of etcd that the spec asks for can be reached. Progressing says what is done now, or why nothing is.")
	default:
		return condition(v1beta1.ConditionUpgradeBlocked, metav1.ConditionFalse, v1beta1.ReasonAsExpected,
			"The members run the version of etcd that the spec asks for.")
	}
}

func restartPending(d *plan.Decision) metav1.Condition {
	if len(d.StaleTemplates) == 0 {
		return condition(v1beta1.ConditionRestartPending, metav1.ConditionFalse, v1beta1.ReasonAsExpected,
			"All pods have the current template.")
	}
	return condition(v1beta1.ConditionRestartPending, metav1.ConditionTrue, v1beta1.ReasonTemplateNewer,
		fmt.Sprintf("The template of %s is newer than the pod. The pod continues to run. Its next restart loads the new template.",
			strings.Join(d.StaleTemplates, ", ")))
}
