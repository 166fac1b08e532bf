package status

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

// sentences joins what there is to say.
func sentences(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), " ")
}

func conditionStatus(b bool) metav1.ConditionStatus {
	if b {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

func available(s *cluster.Snapshot, d *plan.Decision) metav1.Condition {
	outlook := s.Outlook()
	serving, voters, quorum := outlook.Healthy, outlook.Voters, outlook.Quorum()
	switch {
	case len(s.ClusterIDs()) > 1:
		return condition(v1beta1.ConditionAvailable, metav1.ConditionFalse, v1beta1.ReasonClusterIDConflict,
			"Clients may reach either of two etcd clusters. "+analyse.ClusterIDConflict(s))
	case everythingLost(s):
		return condition(v1beta1.ConditionAvailable, metav1.ConditionFalse, v1beta1.ReasonNoQuorum, allVolumesGone)
	case len(s.Members) == 0:
		return condition(v1beta1.ConditionAvailable, metav1.ConditionFalse, v1beta1.ReasonNotStarted, "No member has been created yet.")
	case serving >= quorum && !reachable(s):
		return condition(v1beta1.ConditionAvailable, metav1.ConditionFalse, v1beta1.ReasonNoReadyEndpoint,
			fmt.Sprintf("%s, but no pod is ready. The client Service has no endpoints.", outlook))
	case serving == quorum && voters > 1:
		return condition(v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk,
			fmt.Sprintf("%s: one more failure stops the cluster.", outlook))
	case serving >= quorum:
		return condition(v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing,
			outlook.String()+".")
	case unobservable(s):
		return condition(v1beta1.ConditionAvailable, metav1.ConditionUnknown, v1beta1.ReasonUnobservable,
			sentences("The operator has no usable certificate to ask the members with; they run on.", firstProblem(d)))
	case !s.Founded():
		return condition(v1beta1.ConditionAvailable, metav1.ConditionFalse, v1beta1.ReasonNotStarted,
			sentences("The members are starting.", troubles(s)))
	default:
		return condition(v1beta1.ConditionAvailable, metav1.ConditionFalse, v1beta1.ReasonNoQuorum, noQuorum(s))
	}
}

// reachable reports whether the client Service has a ready pod to lead to.
func reachable(s *cluster.Snapshot) bool {
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Pod != nil && m.Pod.Ready && m.Serves() })
}

// everythingLost reports whether a cluster that once served has nothing left to serve from.
func everythingLost(s *cluster.Snapshot) bool {
	return len(s.Members) == 0 && s.Cluster.Status.ClusterID != ""
}

const allVolumesGone = "The cluster has served, and every volume of it is gone. Bring the volumes back, or delete the cluster and create it again to start empty."

func quorumLost(s *cluster.Snapshot, d *plan.Decision) metav1.Condition {
	switch {
	case everythingLost(s):
		return condition(v1beta1.ConditionQuorumLost, metav1.ConditionTrue, v1beta1.ReasonNoQuorum, allVolumesGone)
	case !s.Founded():
		return condition(v1beta1.ConditionQuorumLost, metav1.ConditionFalse, v1beta1.ReasonNotStarted, "The cluster has never had a quorum.")
	case s.Outlook().HasQuorum():
		return condition(v1beta1.ConditionQuorumLost, metav1.ConditionFalse, v1beta1.ReasonQuorumServing, "A quorum of voters answers.")
	case unobservable(s):
		return condition(v1beta1.ConditionQuorumLost, metav1.ConditionUnknown, v1beta1.ReasonUnobservable, sentences("The operator cannot ask the members.", firstProblem(d)))
	default:
		return condition(v1beta1.ConditionQuorumLost, metav1.ConditionTrue, v1beta1.ReasonNoQuorum, noQuorum(s))
	}
}

func noQuorum(s *cluster.Snapshot) string {
	return sentences(s.Outlook().String()+".",
		troubles(s), "etcd serves again, with its data, when enough members are back.")
}

// unobservable reports whether pods run and could not be asked for want of a certificate.
func unobservable(s *cluster.Snapshot) bool {
	return s.Founded() && slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return unasked(&m) })
}

// firstProblem is empty where the operator repairs what is wrong itself.
func firstProblem(d *plan.Decision) string {
	if len(d.Problems) == 0 {
		return ""
	}
	return d.Problems[0].Message
}

func progressing(d *plan.Decision) metav1.Condition {
	return condition(v1beta1.ConditionProgressing, conditionStatus(d.Progressing), d.Reason, d.Message)
}

func degraded(s *cluster.Snapshot, d *plan.Decision, status *v1beta1.EtcdClusterStatus) metav1.Condition {
	switch {
	case len(s.ClusterIDs()) > 1:
		return condition(v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonClusterIDConflict, analyse.ClusterIDConflict(s))
	case len(d.Problems) > 0:
		return condition(v1beta1.ConditionDegraded, metav1.ConditionTrue, d.Problems[0].Reason, problemText(s, d))
	case isBlocked(d):
		return condition(v1beta1.ConditionDegraded, metav1.ConditionTrue, d.Reason, d.Message)
	case status.ReadyReplicas < status.Replicas && !onlyStarting(s):
		return condition(v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonMembersNotReady,
			sentences(fmt.Sprintf("%d of %d members answer.", status.ReadyReplicas, status.Replicas), troubles(s)))
	default:
		return condition(v1beta1.ConditionDegraded, metav1.ConditionFalse, v1beta1.ReasonAsExpected, "Every member that has started answers, and nothing stands in the way.")
	}
}

// transientReasons are the reasons of refusals that say nothing of the cluster's health, or that the members' own troubles say better.
var transientReasons = []string{v1beta1.ReasonNotYetSupported, v1beta1.ReasonWaitingForDeletion, v1beta1.ReasonQuorumAtRisk, v1beta1.ReasonMembersNotHealthy,
	v1beta1.ReasonDisruptionNotAllowed}

// isBlocked reports whether a refusal that is a trouble of its own keeps the cluster from its spec.
func isBlocked(d *plan.Decision) bool {
	return slices.ContainsFunc(d.Refusals, func(r plan.Refusal) bool { return !slices.Contains(transientReasons, r.Reason) })
}

// onlyStarting reports whether the members that do not serve are only starting for the first time.
func onlyStarting(s *cluster.Snapshot) bool {
	return !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		if m.Serves() {
			return false
		}
		reason, _ := trouble(s, &m)
		return m.Volume.Started() || (reason != v1beta1.ReasonStarting && reason != v1beta1.ReasonPodMissing && reason != v1beta1.ReasonNoLeader)
	})
}

func problemText(s *cluster.Snapshot, d *plan.Decision) string {
	texts := make([]string, len(d.Problems))
	for i, p := range d.Problems {
		texts[i] = p.Message
	}
	text := strings.Join(texts, " ")
	if s.Founded() {
		text += " Running members are left as they are."
	}
	return text
}

// storageAlarm stays what it was while no voter can be asked.
func storageAlarm(s *cluster.Snapshot) metav1.Condition {
	if last := meta.FindStatusCondition(s.Cluster.Status.Conditions, v1beta1.ConditionStorageAlarm); s.Membership == nil && last != nil {
		return *last
	}
	if s.Membership != nil {
		for _, kind := range []cluster.AlarmKind{cluster.AlarmCorrupt, cluster.AlarmNoSpace} {
			if names := alarmed(s, kind); len(names) > 0 {
				return alarmCondition(kind, strings.Join(names, ", "))
			}
		}
	}
	return condition(v1beta1.ConditionStorageAlarm, metav1.ConditionFalse, v1beta1.ReasonNoAlarm, "etcd reports no alarm.")
}

func alarmed(s *cluster.Snapshot, kind cluster.AlarmKind) []string {
	var names []string
	for _, a := range s.Membership.Alarms {
		if a.Kind != kind {
			continue
		}
		name := a.Member.String()
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

func alarmCondition(kind cluster.AlarmKind, names string) metav1.Condition {
	if kind == cluster.AlarmCorrupt {
		return condition(v1beta1.ConditionStorageAlarm, metav1.ConditionTrue, v1beta1.ReasonCorrupt,
			fmt.Sprintf("The data of %s differs from the other members'. Take a snapshot from another member and do not restart this one. This release does not replace it.", names))
	}
	return condition(v1beta1.ConditionStorageAlarm, metav1.ConditionTrue, v1beta1.ReasonNoSpace,
		fmt.Sprintf("The database of %s reached its quota, and etcd refuses writes. Delete keys, compact and defragment, then run etcdctl alarm disarm.", names))
}

func restartPending(d *plan.Decision) metav1.Condition {
	names := d.StaleTemplates
	if len(names) == 0 {
		return condition(v1beta1.ConditionRestartPending, metav1.ConditionFalse, v1beta1.ReasonAsExpected, "Every pod is made from the present template.")
	}
	return condition(v1beta1.ConditionRestartPending, metav1.ConditionTrue, v1beta1.ReasonTemplateNewer,
		fmt.Sprintf("The template of %s is newer than its pod, which runs on. The next restart takes it up; nothing needs to be done.", strings.Join(names, ", ")))
}
