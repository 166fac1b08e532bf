// Package status turns a Snapshot and a Decision into the status and its events. It is pure; the controller writes what it returns.
package status

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// Report is what one pass has to say.
type Report struct {
	Status v1beta1.EtcdClusterStatus
	// Events tell what changed since the last report.
	Events []Event
}

// Of reports on a pass: what was seen, what was decided, and what became of it: each *plan.Refusal becomes part of the
// report, any other error is for the caller alone.
func Of(s *cluster.Snapshot, d *plan.Decision, outcome error) Report {
	d = d.WithRefusals(outcome)
	old := s.Cluster.Status
	status := *old.DeepCopy()
	status.ObservedGeneration = s.Cluster.Generation
	if d.Rule == analyse.RuleDeletion {
		setCondition(&status, s, progressing(d))
		return Report{Status: status, Events: events(s, d, &old, &status, outcome)}
	}
	if d.Finished {
		status.Operation = nil
	}
	status.Members = members(s)
	status.Replicas = int32(len(status.Members))
	status.ReadyReplicas = countReady(status.Members)
	status.ClusterID = clusterID(s, old.ClusterID)
	status.Version = commonVersion(status.Members)
	status.TargetVersion = cluster.ForeignVersion(targetVersion(s))
	status.Selector = render.MemberSelector(s.Cluster)
	status.Leader = leader(s)
	if s.ClientService != nil {
		status.ServiceName, status.ClientPort = s.ClientService.Name, cluster.ClientPort
	}
	status.ClientSecretName = clientSecretName(s)
	for _, c := range []metav1.Condition{
		available(s, d), progressing(d), degraded(s, d, &status), quorumLost(s, d), storageAlarm(s), restartPending(d),
	} {
		setCondition(&status, s, c)
	}
	return Report{Status: status, Events: events(s, d, &old, &status, outcome)}
}

// clientSecretName is the Secret that users take: where the operator or cert-manager makes one, and it is there.
func clientSecretName(s *cluster.Snapshot) string {
	if c := s.ClientTrust.Certificate(cluster.RoleClient); c != nil && c.Exists() {
		return c.Name
	}
	return ""
}

func setCondition(status *v1beta1.EtcdClusterStatus, s *cluster.Snapshot, c metav1.Condition) {
	c.ObservedGeneration = s.Cluster.Generation
	c.LastTransitionTime = metav1.NewTime(s.Now)
	c.Message = shortened(c.Message, maxMessage)
	meta.SetStatusCondition(&status.Conditions, c)
}

// maxMemberName is the schema's limit. A tenant may write any name into the founding list of a volume.
const maxMemberName = 253

func members(s *cluster.Snapshot) []v1beta1.MemberStatus {
	var list []v1beta1.MemberStatus
	for i := range s.Members {
		if len(list) < cluster.MaxMembers && len(s.Members[i].Name) <= maxMemberName {
			list = append(list, member(s, &s.Members[i]))
		}
	}
	return list
}

func member(s *cluster.Snapshot, m *cluster.Member) v1beta1.MemberStatus {
	status := v1beta1.MemberStatus{Name: m.Name, Role: v1beta1.RoleUnknown, Ready: m.Serves()}
	if m.Volume != nil && m.Volume.MemberID != 0 {
		status.ID, status.Version = m.Volume.MemberID.String(), cluster.ForeignVersion(m.Volume.Version)
	}
	if m.Answers() {
		status.ID, status.Version = m.Probe.MemberID.String(), m.Probe.Version
		status.Role = v1beta1.RoleVoter
		if m.IsLearner() {
			status.Role = v1beta1.RoleLearner
		}
	} else if known := s.EtcdEntry(m); known != nil {
		status.Role = v1beta1.RoleVoter
		if known.Learner {
			status.Role = v1beta1.RoleLearner
		}
	}
	if !status.Ready {
		status.Reason, _ = trouble(s, m)
	}
	return status
}

// trouble tells why a member does not serve: a reason and a sentence's end, both the same for as long as the cause is.
func trouble(s *cluster.Snapshot, m *cluster.Member) (reason, detail string) {
	switch {
	case m.Volume == nil && (m.Workload != nil || s.Founded()):
		return v1beta1.ReasonVolumeLost, fmt.Sprintf("its volume %s is gone, and is never made again under that name; bring it back with its data", cluster.VolumeName(m.Name))
	case m.Pod == nil:
		return v1beta1.ReasonPodMissing, "it has no pod"
	case m.Pod.NodeLost:
		return v1beta1.ReasonNodeLost, fmt.Sprintf("its node %s does not answer; bring it back, or delete the Node if it is gone for good", m.Pod.Node)
	case m.Pod.FailureReason != "":
		return m.Pod.FailureReason, m.Pod.FailureDetail
	case unasked(m):
		return v1beta1.ReasonUnobservable, "the operator has no certificate to ask it with"
	case m.Pod.IP == "" || m.Probe == nil:
		return v1beta1.ReasonStarting, "its pod is starting"
	case !m.Answers() && !m.Volume.Started():
		return v1beta1.ReasonStarting, "etcd is starting"
	case !m.Answers():
		return v1beta1.ReasonNotAnswering, m.Probe.Error
	default:
		return v1beta1.ReasonNoLeader, "it answers, and has no quorum to read from"
	}
}

// unasked reports whether a member that runs could not be asked: the operator lacks its certificate.
func unasked(m *cluster.Member) bool {
	return m.Probe == nil && m.Workload != nil && m.Workload.Intent.ServerSecret != "" && m.Pod != nil && m.Pod.IP != "" && !m.Pod.NodeLost
}

func countReady(members []v1beta1.MemberStatus) int32 {
	var n int32
	for _, m := range members {
		if m.Ready {
			n++
		}
	}
	return n
}

func clusterID(s *cluster.Snapshot, last string) string {
	if ids := s.ClusterIDs(); len(ids) == 1 {
		return ids[0].String()
	}
	return last
}

func commonVersion(members []v1beta1.MemberStatus) string {
	version := ""
	for _, m := range members {
		switch {
		case m.Version == "":
		case version == "":
			version = m.Version
		case version != m.Version:
			return ""
		}
	}
	return version
}

func targetVersion(s *cluster.Snapshot) string {
	for _, m := range s.Members {
		if m.Workload != nil {
			return m.Workload.Intent.Version
		}
	}
	return ""
}

func leader(s *cluster.Snapshot) string {
	for _, m := range s.Members {
		if m.Serves() && m.Leads() {
			return m.Name
		}
	}
	return ""
}

// troubles tells of every member that does not serve, in one sentence; empty when there is none.
func troubles(s *cluster.Snapshot) string {
	var parts []string
	for i := range s.Members {
		m := &s.Members[i]
		if m.Serves() {
			continue
		}
		reason, detail := trouble(s, m)
		parts = append(parts, fmt.Sprintf("%s: %s (%s)", m.Name, detail, reason))
	}
	if len(parts) == 0 {
		return ""
	}
	return strings.Join(parts, "; ") + "."
}
