package status

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// maxMemberName is the limit of the schema. A tenant may write any name into the founding list of a volume.
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
		status.Reason, _ = failure(s, m)
	}
	status.VolumeUID = healthyVolume(s, m)
	return status
}

// healthyVolume returns the claim that a member was last seen healthy on. It is what the operator itself saw, whatever
// the annotations of a claim say.
func healthyVolume(s *cluster.Snapshot, m *cluster.Member) string {
	if m.IsHealthyVoter() && m.RunsOn() && m.Volume != nil && !m.Volume.Deleting && !m.Volume.IsReplaced() {
		return string(m.Volume.UID)
	}
	return cluster.HealthyVolume(s.Cluster, m.Name)
}

// failure returns why a member does not serve: a reason, and a text that stays the same for as long as the cause does.
func failure(s *cluster.Snapshot, m *cluster.Member) (reason, text string) {
	reason, text = cause(s, m)
	note := analyse.ReplacementNote(s, m)
	if note != "" {
		text = sentence(text) + " " + note
	}
	if m.Volume == nil || m.Volume.Started() || m.LacksRecord() {
		return reason, text
	}
	if reason == v1beta1.ReasonStarting && s.StartIsOverdue(m) {
		reason = v1beta1.ReasonNeverStarted
		text = "the pod exists for more than 5 minutes, and its container does not run. kubectl describe pod shows the cause"
	}
	op := s.Cluster.Status.Operation
	foundingEnded := s.Founded() && (op == nil || op.Type != v1beta1.OperationBootstrap)
	isStarting := slices.Contains(startingReasons, reason) && note == ""
	if foundingEnded && slices.Contains(m.Volume.Founders, m.Name) && !isStarting {
		text = sentence(text) + " The member has never started. The others serve without it"
		if note == "" {
			text += ". It starts when the cause is removed"
		}
	}
	return reason, text
}

func cause(s *cluster.Snapshot, m *cluster.Member) (reason, text string) {
	_, isOurs := cluster.MemberNumber(s.Cluster.Name, m.Name)
	switch {
	case !isOurs:
		command := "etcdctl member remove"
		if e := s.EtcdEntry(m); e != nil {
			command += " " + e.ID.String()
		}
		return v1beta1.ReasonUnobservable, "another client registered it with etcd, and the operator has no object of it. " +
			"The operator adds and removes no member beside it. If nothing runs there, remove it with " + command
	case m.Volume == nil && (m.Workload != nil || s.Founded()):
		return v1beta1.ReasonVolumeLost, fmt.Sprintf("volume %s is gone. The operator never creates it again under that name", cluster.VolumeName(m.Name))
	case m.LacksRecord() && !m.Pod.IsRunning():
		return v1beta1.ReasonVolumeReplaced, fmt.Sprintf("PersistentVolumeClaim %s does not say on which volume the member started: it was made "+
			"again, or its annotations were lost. It may hold a copy, so the operator does not start the member. If it is the member's "+
			"volume, and no copy, snapshot or restore of it, set the annotation %s: %s on it (docs/volumes.md)",
			m.Volume.Name, v1beta1.AcceptVolumeAnnotation, acceptValue(m.Volume))
	case m.Volume.IsReplaced() && m.Volume.InMemory:
		return v1beta1.ReasonMemoryLost, "its pod is gone, and its data, which were in memory, with it. It never starts again"
	case m.LostItsMemory():
		return v1beta1.ReasonMemoryLost, "its data were in memory, and its node restarted, which loses them. It never starts again"
	case m.Volume.IsReplaced() && m.Volume.Identity.Name == "":
		return v1beta1.ReasonVolumeReplaced, fmt.Sprintf("PersistentVolumeClaim %s is not bound, and the member started on %s (claim UID/"+
			"PersistentVolume). Delete the claim, and create it again with spec.volumeName: %s (docs/volumes.md)",
			m.Volume.Name, m.Volume.Remembered, m.Volume.Remembered.Name)
	case m.Volume.IsReplaced():
		v := m.Volume
		return v1beta1.ReasonVolumeReplaced, fmt.Sprintf("PersistentVolumeClaim %s holds volume %s (claim UID/PersistentVolume), but the "+
			"member started on %s. Old data under the member's ID can undo acknowledged writes, so the operator does not start it. "+
			"Bring the first volume back. If this is the same volume, moved and not copied, set the annotation %s: %s "+
			"on the PersistentVolumeClaim. Never do so for a copy, a snapshot or a restore",
			v.Name, v.Identity, v.Remembered, v1beta1.AcceptVolumeAnnotation, v.Identity)
	case isRestarted(s, m):
		return v1beta1.ReasonStarting, "it is being restarted"
	case m.Pod == nil && m.Workload != nil && m.Workload.CreateFailure != "":
		return v1beta1.ReasonPodCreationFailed, "Kubernetes cannot create the pod: " + m.Workload.CreateFailure
	case m.Pod == nil:
		return v1beta1.ReasonPodMissing, "there is no pod"
	case m.Pod.NodeLost:
		return v1beta1.ReasonNodeLost, fmt.Sprintf("node %s does not answer. Bring it back. "+
			"If it is gone for good, delete the Node object", m.Pod.Node)
	case m.Pod.FailureReason != "":
		return m.Pod.FailureReason, m.Pod.FailureDetail
	case lacksCertificate(m):
		return v1beta1.ReasonUnobservable, "the operator has no client certificate for it"
	case m.Pod.IP == "" || m.Probe == nil:
		return v1beta1.ReasonStarting, "the pod is starting"
	case !m.Answers() && !m.Volume.Started() && !s.AnswerIsOverdue(m):
		return v1beta1.ReasonStarting, "etcd is starting"
	case !m.Answers():
		text := fmt.Sprintf("etcd does not answer the operator on port %d: %s", cluster.ClientPort, m.Probe.Error)
		if m.Pod.Ready && !strings.Contains(m.Probe.Error, "refused") { // a NetworkPolicy drops packets
			text += ". The pod is ready, so the cause is between the operator and the pod: a NetworkPolicy, for example"
		}
		return v1beta1.ReasonNotAnswering, text
	case m.IsLearner():
		return v1beta1.ReasonStarting, "it is a learner: it copies the data, and serves once it is a voter"
	default:
		return v1beta1.ReasonNoLeader, "it is running but cannot serve reads: it has no quorum"
	}
}

// isRestarted reports whether the operator, or a user who deleted the pod, restarts the member, and nothing has failed.
func isRestarted(s *cluster.Snapshot, m *cluster.Member) bool {
	if m.Pod != nil && (m.Pod.NodeLost || m.Pod.FailureReason != "") || m.Pod == nil && m.Workload != nil && m.Workload.CreateFailure != "" {
		return false
	}
	op := s.Cluster.Status.Operation
	restarts := op != nil && (op.Type == v1beta1.OperationRollMember || op.Type == v1beta1.OperationRollBack)
	return restarts && op.Member == m.Name || m.Pod != nil && m.Pod.Deleting
}

// acceptValue returns the value of the annotation that accepts a volume.
func acceptValue(v *cluster.Volume) string {
	if v.Identity.Name == "" {
		return "CLAIMUID/PVNAME, once it is bound"
	}
	return v.Identity.String()
}

// lacksCertificate reports whether a member runs, but the operator has no certificate to connect to it.
func lacksCertificate(m *cluster.Member) bool {
	return m.Probe == nil && m.Workload != nil && m.Workload.Intent.ServerSecret != "" &&
		m.Pod.IsRunning() && m.Pod.IP != "" && !m.Pod.NodeLost
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

// targetVersion is the version of the spec from the first member on that is made for it.
func targetVersion(s *cluster.Snapshot) string {
	target := ""
	for _, m := range s.Members {
		switch {
		case m.Workload == nil:
		case m.Workload.Intent.Version == s.Cluster.Spec.Version:
			return m.Workload.Intent.Version
		case target == "":
			target = m.Workload.Intent.Version
		}
	}
	return target
}

func leader(s *cluster.Snapshot) string {
	for _, m := range s.Members {
		if m.Serves() && m.Leads() {
			return m.Name
		}
	}
	return ""
}

// failures describes the members that do not serve, those with the same cause together. It is empty if all serve.
func failures(s *cluster.Snapshot) string {
	type group struct{ names, text string }
	var groups []group
	for i := range s.Members {
		m := &s.Members[i]
		if m.Serves() {
			continue
		}
		reason, text := failure(s, m)
		text = " (" + reason + "): " + sentence(text)
		if at := slices.IndexFunc(groups, func(g group) bool { return g.text == text }); at >= 0 {
			groups[at].names += ", " + m.Name
		} else {
			groups = append(groups, group{m.Name, text})
		}
	}
	texts := make([]string, len(groups))
	for i, g := range groups {
		texts[i] = g.names + g.text
	}
	return strings.Join(texts, " ")
}

// sentence ends a text with one full stop.
func sentence(text string) string { return strings.TrimRight(text, ".") + "." }
