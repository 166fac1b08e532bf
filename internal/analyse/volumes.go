package analyse

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// startEvidence returns what shows that a member started on its volume; empty while nothing does.
// The operator's own network must not keep a member in the founding form: the kubelet's probe is evidence as well.
func startEvidence(s *cluster.Snapshot, m *cluster.Member) cluster.StartEvidence {
	entry := s.EtcdEntry(m)
	switch {
	case m.Volume == nil:
		return ""
	case m.Volume.Started():
		return cmp.Or(m.Volume.StartedBy, cluster.StartedByAnswer)
	case m.LacksRecord() && isNewerThanPod(m):
		return "" // the claim was made again, and the pod runs on another volume
	case s.Membership.Names(m):
		return cluster.StartedByAnswer
	case m.Volume.PeerURL == "" && s.Membership.IsAnswerOf(entry, m):
		return cluster.StartedByAnswer // its claim lost all annotations but its cluster's UID
	case m.LacksRecord():
		return "" // the claim may have been made again: only the member itself tells which volume is its own
	case entry != nil && entry.Started && slices.Contains(entry.PeerURLs, m.Volume.PeerURL):
		return cluster.StartedByMemberList
	case m.Pod != nil && m.Pod.PassesReadiness && !m.Volume.Deleting:
		return cluster.StartedByReadiness
	default:
		return ""
	}
}

// isNewerThanPod reports whether a member's claim was made after its pod had been scheduled, which Kubernetes does with
// a claim only. In memory the pod itself is the volume.
func isNewerThanPod(m *cluster.Member) bool {
	return m.Pod != nil && !m.Volume.InMemory && !m.Pod.ScheduledAt.IsZero() && m.Volume.CreatedAt.After(m.Pod.ScheduledAt)
}

// answerTime is how long a member that has just started may take to answer the operator.
const answerTime = 5 * time.Second

// awaitsAnswer reports whether a member has just started, and is expected to answer in a moment.
// Its start and its IDs are then recorded by one write.
func awaitsAnswer(s *cluster.Snapshot, m *cluster.Member) bool {
	evidence := startEvidence(s, m)
	if m.Volume.Started() || evidence == "" || evidence == cluster.StartedByAnswer || m.Pod == nil || m.Pod.Deleting {
		return false
	}
	isRecent := func(t time.Time) bool { age := s.Now.Sub(t); return 0 <= age && age < answerTime } // clocks differ
	return isRecent(m.Pod.CreatedAt) || isRecent(m.Pod.StartedAt)
}

// volumeRecord returns the annotations that the volume of a started member lacks: that it started, which volume it is,
// its IDs and version once it answers, and the members of etcd's list. All are one write.
// On a volume that was replaced nothing is recorded.
func volumeRecord(s *cluster.Snapshot, m *cluster.Member) map[string]string {
	v, evidence := m.Volume, startEvidence(s, m)
	if record := admissionRecord(m); record != nil {
		return record
	}
	if isJoining(s, m) {
		return joiningRecord(s, m)
	}
	if evidence == "" || v.IsReplaced() {
		return nil
	}
	record := map[string]string{}
	if !v.Started() {
		record[cluster.AnnotationStarted] = string(evidence)
	}
	if v.Identity.Name != "" && (v.Remembered.String() != v.Identity.String() || v.Identity.UID != "" && v.Identity != v.Remembered) {
		record[cluster.AnnotationVolume] = v.Identity.String()
		record[cluster.AnnotationVolumeUID], record[cluster.AnnotationVolumeSource] = string(v.Identity.UID), v.Identity.Source
	}
	if v.IsAccepted() {
		record[v1beta1.AcceptVolumeAnnotation] = "" // it is obeyed once
	}
	if s.Membership.Names(m) && (v.ClusterID == 0 || v.MemberID == 0 || v.MemberID == m.Probe.MemberID) {
		version := cmp.Or(m.Probe.Version, v.Version) // a member whose version is unknown keeps the last known one
		if v.ClusterID == 0 || v.MemberID == 0 || v.Version != version {
			record[cluster.AnnotationClusterID] = m.Probe.ClusterID.String()
			record[cluster.AnnotationMemberID] = m.Probe.MemberID.String()
			record[cluster.AnnotationEtcdVersion] = version
		}
	}
	if s.Membership != nil {
		names := membersToRemember(s)
		if !slices.Equal(v.Members, names) {
			record[cluster.AnnotationMembers] = strings.Join(names, ",")
		}
	}
	return record
}

// membersToRemember returns the members without a learner that never started: it counts for no quorum.
func membersToRemember(s *cluster.Snapshot) []string {
	var names []string
	for i := range s.Members {
		m := &s.Members[i]
		if e := s.EtcdEntry(m); e == nil || !e.Learner || m.Volume.Started() {
			names = append(names, m.Name)
		}
	}
	return names
}

// volumeReplaced says what is wrong with a PersistentVolumeClaim that is bound to another volume than its member's.
func volumeReplaced(v *cluster.Volume) string {
	if v.Identity.Name == "" {
		return fmt.Sprintf("PersistentVolumeClaim %s is not bound, and %s started on volume %s. Delete the claim, and create it again with "+
			"spec.volumeName: %s (docs/volumes.md).", v.Name, v.Member, v.Remembered, v.Remembered.Name)
	}
	return fmt.Sprintf("PersistentVolumeClaim %s is volume %s, and %s started on volume %s. A member never starts on a copy, a snapshot or "+
		"a restore of its volume: it would vote acknowledged writes away. If it is the same volume under another name, set the annotation %s=%s on the PersistentVolumeClaim.",
		v.Name, v.Identity, v.Member, v.Remembered, v1beta1.AcceptVolumeAnnotation, v.Identity)
}

// volumesToTakeBack returns the volumes that a cluster left of which a member started; none where the user starts
// empty.
func volumesToTakeBack(s *cluster.Snapshot) []cluster.Volume {
	started := startedTokens(s)
	return retained(s, func(v *cluster.Volume) bool { return started[v.Token] })
}

// pendingVolumes returns the PersistentVolumeClaims that a failed attempt left: none of its members started, and no
// volume was ever bound to them. They would hold up the next attempt. They are deleted, and made again once they are
// gone: until then their names are in use.
func pendingVolumes(s *cluster.Snapshot) []cluster.Volume {
	started := startedTokens(s)
	if len(s.Members) > 0 || previousClusterGone(s) != nil {
		return nil
	}
	return retained(s, func(v *cluster.Volume) bool { return !started[v.Token] && !v.HasData() })
}

// volumesLeftAside returns the volumes that a failed attempt left and that may have data. They are never deleted.
func volumesLeftAside(s *cluster.Snapshot) []cluster.Volume {
	started := startedTokens(s)
	return retained(s, func(v *cluster.Volume) bool { return !started[v.Token] && v.HasData() })
}

// startedTokens are the tokens of the earlier clusters of which a member started.
func startedTokens(s *cluster.Snapshot) map[string]bool {
	tokens := map[string]bool{}
	for i := range s.RetainedVolumes {
		if v := &s.RetainedVolumes[i]; !v.Retired && v.Started() {
			tokens[v.Token] = true
		}
	}
	return tokens
}

// retained returns the retained volumes that are not retired and wanted; none where the user starts empty.
func retained(s *cluster.Snapshot, wanted func(*cluster.Volume) bool) []cluster.Volume {
	var list []cluster.Volume
	for i := range s.RetainedVolumes {
		if v := &s.RetainedVolumes[i]; !startsEmpty(s) && !v.Retired && wanted(v) {
			list = append(list, *v)
		}
	}
	return list
}

// volumesToStart returns the volumes of this cluster, and the retained ones that are taken back.
func volumesToStart(s *cluster.Snapshot) []cluster.Volume {
	if len(s.Members) == 0 {
		return volumesToTakeBack(s)
	}
	var volumes []cluster.Volume
	for _, m := range s.Members {
		if m.Volume != nil {
			volumes = append(volumes, *m.Volume)
		}
	}
	return append(volumes, notYetTakenBack(s)...)
}

// nothingLost refuses to create a cluster anew where one is known to have served: all its volumes are gone, or retired.
func nothingLost(s *cluster.Snapshot) *plan.Refusal {
	id := s.Cluster.Status.ClusterID
	for _, m := range s.LeftOvers {
		if m.Volume.Started() {
			id = cmp.Or(id, m.Volume.ClusterID.String())
		}
	}
	if id == "" {
		return nil
	}
	if cluster.IsInMemory(&s.Cluster.Spec) {
		return &plan.Refusal{
			Guard: "nothingLost", Reason: v1beta1.ReasonMemoryLost,
			Message: fmt.Sprintf("The data of etcd cluster %s were in memory, and nothing is left of them. The operator does not create an empty cluster in its place. "+
				"To start empty, delete this cluster and create it again.", id),
		}
	}
	return &plan.Refusal{
		Guard:  "nothingLost",
		Reason: v1beta1.ReasonVolumeLost,
		Message: fmt.Sprintf("Every volume of etcd cluster %s is gone, and its data with them. The operator does not create an empty cluster in its place. "+
			"To start empty, delete this cluster and create it again.", id),
	}
}

// volumesLost tells that so many volumes are gone, or were replaced, that no quorum can come back.
// A pod that runs has its volume, whatever became of the PersistentVolumeClaim.
func volumesLost(s *cluster.Snapshot) *plan.Decision {
	var lost []string
	for i := range s.Members {
		m := &s.Members[i]
		_, isOurs := cluster.MemberNumber(s.Cluster.Name, m.Name)
		gone := m.Volume == nil && (m.Workload != nil || s.Founded())
		if isOurs && (!m.RunsOn() && (gone || m.Volume.IsReplaced()) || m.LostItsMemory()) {
			lost = append(lost, m.Name)
		}
	}
	left, quorum := len(s.Members)-len(lost), s.Outlook().Quorum()
	if len(lost) == 0 || left >= quorum {
		return nil
	}
	if slices.ContainsFunc(s.Members, isInMemory) {
		return memoryLost(s, lost, left, quorum)
	}
	return &plan.Decision{
		Reason: v1beta1.ReasonVolumeLost,
		Message: fmt.Sprintf("The volumes of %s are gone or were replaced. %d of %d members have their volume, and the quorum is %d, so etcd cannot serve. "+
			"Bring the volumes themselves back, not copies of them. To start empty instead, delete this cluster and create it again with %s.",
			strings.Join(lost, ", "), left, len(s.Members), quorum, startEmpty),
	}
}

// volumesUnambiguous refuses to take volumes back when they were left by more than one etcd cluster.
func volumesUnambiguous(s *cluster.Snapshot) *plan.Refusal {
	clusters := map[string][]string{}
	ids := map[string]cluster.ID{} // of the volumes of a token on which one is recorded
	for _, v := range volumesToTakeBack(s) {
		ids[v.Token] = cmp.Or(ids[v.Token], v.ClusterID)
	}
	for _, v := range volumesToTakeBack(s) {
		key := v.Token + " " + cmp.Or(v.ClusterID, ids[v.Token]).String()
		clusters[key] = append(clusters[key], v.Name)
	}
	if len(clusters) < 2 {
		return nil
	}
	groups := make([]string, 0, len(clusters))
	for _, names := range clusters {
		groups = append(groups, strings.Join(names, ", "))
	}
	slices.Sort(groups)
	return &plan.Refusal{
		Guard:  "volumesUnambiguous",
		Reason: v1beta1.ReasonAmbiguousVolumes,
		Message: fmt.Sprintf("The kept volumes of this name were left by %d different clusters: (%s). "+
			"Set the annotation %s=%s on the volumes that are not wanted (they stay as they are), or set %s to start empty.",
			len(clusters), strings.Join(groups, "); ("), cluster.AnnotationMembership, cluster.MembershipRetired, startEmpty),
	}
}

// volumesKeepQuorum refuses to take volumes back when they are fewer than the quorum of the cluster that left them.
func volumesKeepQuorum(s *cluster.Snapshot) *plan.Refusal {
	// That of a member that never started counts for no quorum.
	volumes := slices.DeleteFunc(volumesToTakeBack(s), func(v cluster.Volume) bool { return v.NeverStarted() })
	members, have := cluster.RememberedMembers(volumes), 0
	for i := range volumes {
		if v := &volumes[i]; !v.Deleting && v.HasData() {
			have++
		}
	}
	if quorum := cluster.Quorum(len(members)); len(members) > 0 && have < quorum {
		return &plan.Refusal{
			Guard:  "volumesKeepQuorum",
			Reason: v1beta1.ReasonVolumesBelowQuorum,
			Message: fmt.Sprintf("Only %d of the %d volumes of this cluster are left, and its quorum is %d: starting them could not serve. "+
				"Set %s to start empty beside them. A copy of a volume does not replace it.", have, len(members), quorum, startEmpty),
		}
	}
	return nil
}

// volumesNotReplaced refuses to take volumes back while one is another volume than its member's.
func volumesNotReplaced(s *cluster.Snapshot) *plan.Refusal {
	for _, v := range slices.Concat(volumesToTakeBack(s), notYetTakenBack(s)) {
		if v.IsReplaced() {
			return &plan.Refusal{
				Guard:  "volumesNotReplaced",
				Reason: v1beta1.ReasonVolumeReplaced,
				Message: fmt.Sprintf("%s Otherwise set the annotation %s=%s on it, and it is left alone.",
					volumeReplaced(&v), cluster.AnnotationMembership, cluster.MembershipRetired),
			}
		}
	}
	return nil
}

// versionSkewAllowed refuses to start volumes with another minor version than the one that wrote them. Of several it
// names the newest: a cluster that was deleted in the middle of an upgrade starts with that one. A member that has its
// StatefulSet starts without the operator: it does not keep the others down.
func versionSkewAllowed(s *cluster.Snapshot) *plan.Refusal {
	var newest cluster.Volume
	for _, v := range volumesToStart(s) {
		if m := s.Member(v.Member); m != nil && m.Workload != nil {
			continue
		}
		want := resumedIntent(s, &v).Version
		isAllowed := v.Version == "" || cluster.SameMinor(v.Version, want) || followsOthers(s, &v, want)
		if !isAllowed && (newest.Name == "" || minorSteps(newest.Version, v.Version) > 0) {
			newest = v
		}
	}
	if newest.Name == "" {
		return nil
	}
	return &plan.Refusal{
		Guard:  "versionSkewAllowed",
		Reason: v1beta1.ReasonVersionMismatch,
		Message: fmt.Sprintf("Volume %s was last written by etcd %s, and its member would start with %s. An older minor version cannot read it, and a newer one is "+
			"brought only to members that run. Set spec.version to a version of the same minor.", newest.Name, newest.Version, resumedIntent(s, &newest).Version),
	}
}

// resumedIntent is what the member of a volume starts with: where it has no StatefulSet, that of the others. In the
// middle of a change of version it takes the version of a member that has the minor version of its volume, or the
// spec's.
func resumedIntent(s *cluster.Snapshot, v *cluster.Volume) cluster.Intent {
	m := s.Member(v.Member)
	intent := m.Intent(targetIntent(s))
	if m != nil && m.Workload != nil || v.Version == "" || cluster.SameMinor(v.Version, intent.Version) {
		return intent
	}
	from := cluster.IntentOf(s.Cluster)
	for i := range s.Members {
		if other := s.Members[i].Workload; other != nil && cluster.SameMinor(v.Version, other.Intent.Version) {
			from = other.Intent
		}
	}
	if cluster.SameMinor(v.Version, from.Version) {
		intent = intent.WithVersionOf(from)
	}
	return intent.Canonical()
}

// followsOthers reports whether the member of a volume may start with the next minor version, since another volume has
// it already, or with the one before, since a voter that answers runs it: while one does, all data are fit for it.
func followsOthers(s *cluster.Snapshot, v *cluster.Volume, want string) bool {
	switch minorSteps(v.Version, want) {
	case 1:
		return slices.ContainsFunc(volumesToStart(s), func(other cluster.Volume) bool {
			return other.Version != "" && cluster.SameMinor(other.Version, want)
		})
	case -1:
		m := s.Member(v.Member)
		return m != nil && isPinned(s, m, want)
	}
	return false
}

// peerURLsUnchanged refuses to start volumes whose members' peers know them by other URLs than the pods would use.
func peerURLsUnchanged(s *cluster.Snapshot) *plan.Refusal {
	for _, v := range volumesToStart(s) {
		if want := render.PeerURL(s.Cluster, v.Member, s.Member(v.Member).Intent(targetIntent(s))); v.PeerURL != want {
			return &plan.Refusal{
				Guard:  "peerURLsUnchanged",
				Reason: v1beta1.ReasonPeerURLMismatch,
				Message: fmt.Sprintf("The peers of volume %s know it as %s, and this spec would make it %s. "+
					"Secure the peers' traffic, or leave it in clear, as it was (spec.tls.peer), and set spec.clusterDomain as it was "+
					"(in v1alpha1 TLS.static.member.peerSecret and pod.ClusterDomain).", v.Name, v.PeerURL, want),
			}
		}
	}
	return nil
}
