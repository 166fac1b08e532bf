package analyse

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// bootstrap creates a new cluster, or takes its retained volumes back. It speaks of founders only. It ends once a
// quorum of them has started and refuses empty volumes. A founder that never starts stays as it is.
func bootstrap(s *cluster.Snapshot) *plan.Decision {
	if refusals := refusalsOf(s, oneClusterID, operationKnown); len(refusals) > 0 {
		return refused(refusals)
	}
	if len(s.Members) == 0 {
		return planBootstrap(s)
	}
	if left := notYetTakenBack(s); len(left) > 0 {
		return continueTakingBack(s, left)
	}
	unfinished, claimed := unfinishedFounders(s), isClaimed(s, v1beta1.OperationBootstrap)
	switch started := quorumOfFounders(s, (*cluster.Member).RefusesEmptyVolume); {
	case started && len(withoutWorkload(s)) > 0: // Resume starts them before what a founding left out.
		return nil
	case len(unfinished) > 0 && (!started || claimed): // Every StatefulSet is created: the founding was cut short.
		return continueFounding(s, unfinished)
	case started, len(withoutWorkload(s)) > 0: // The founders may need those that Resume starts for a quorum.
		return nil
	case !claimed && (s.Founded() || volumesLost(s) != nil): // Later it is no founding that members are missing for.
		return nil
	default:
		return awaitFounders(s)
	}
}

// quorumOfFounders reports whether a quorum of the founders is as asked for. Members are added only after a quorum of
// founders started and refuses empty volumes, so one that was added proves it.
func quorumOfFounders(s *cluster.Snapshot, is func(*cluster.Member) bool) bool {
	founders, n := 0, 0
	for i := range s.Members {
		m := &s.Members[i]
		switch {
		case m.Volume != nil && m.Volume.JoinedCluster != "":
			return true
		case isFounder(s, m):
			founders++
			if is(m) {
				n++
			}
		}
	}
	return n >= cluster.Quorum(founders)
}

// isFounder reports whether the founding list on a volume names the member.
func isFounder(s *cluster.Snapshot, m *cluster.Member) bool {
	return slices.ContainsFunc(s.Members, func(other cluster.Member) bool {
		return other.Volume != nil && slices.Contains(other.Volume.Founders, m.Name)
	})
}

// planBootstrap decides what a cluster without any volume of its own starts from.
func planBootstrap(s *cluster.Snapshot) *plan.Decision {
	guards := slices.Concat([]guard{previousClusterGone, noForeignObject}, podGuards)
	kept := volumesToTakeBack(s)
	if len(kept) == 0 {
		guards = append(guards,
			nothingLost,              // Make sure that no cluster with data is replaced by an empty one.
			quotaFits,                // Make sure that a full database does not fill its volume.
			memoryFits(targetIntent), // Make sure that data in memory leave room for etcd.
		)
	} else {
		guards = append(guards,
			volumesUnambiguous, // Make sure that the volumes are those of one cluster.
			volumesNotReplaced, // Make sure that no member starts on a copy of its volume.
			volumesKeepQuorum,  // Make sure that they can serve together.
			versionSkewAllowed, // Make sure that etcd can read them.
			peerURLsUnchanged,  // Make sure that the members find each other.
		)
	}
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
	}
	if len(kept) > 0 {
		return takeBack(kept)
	}
	if pending := pendingVolumes(s); len(pending) > 0 {
		return &plan.Decision{
			Progressing: true,
			Reason:      v1beta1.ReasonBootstrapping,
			Message:     fmt.Sprintf("Deleting the PersistentVolumeClaims of %s. An earlier attempt left them, and no volume was ever bound to them. Waiting until they are gone.", memberNames(pending)),
		}
	}
	founders := make([]founder, s.Cluster.Spec.Replicas)
	first := firstFreeNumber(s)
	for i := range founders {
		founders[i] = founder{name: cluster.MemberName(s.Cluster.Name, first+i), volume: true, workload: true}
	}
	return createFounders(s, founders)
}

func takeBack(volumes []cluster.Volume) *plan.Decision {
	return &plan.Decision{
		Progressing: true,
		Reason:      v1beta1.ReasonTakingBack,
		Message:     fmt.Sprintf("Taking back the volumes that an earlier cluster of this name left: %s.", memberNames(volumes)),
		Action:      plan.TakeBackVolumes{Volumes: volumes},
	}
}

// continueTakingBack marks the volumes that a taking back which was cut short has not marked yet.
func continueTakingBack(s *cluster.Snapshot, left []cluster.Volume) *plan.Decision {
	if refusals := refusalsOf(s, previousClusterGone, noForeignObject, volumesNotReplaced, versionSkewAllowed, peerURLsUnchanged); len(refusals) > 0 {
		return refused(refusals)
	}
	return takeBack(left)
}

// notYetTakenBack returns the retained volumes of the very etcd cluster whose other volumes are this cluster's already.
func notYetTakenBack(s *cluster.Snapshot) []cluster.Volume {
	var left []cluster.Volume
	for _, v := range s.RetainedVolumes {
		m := s.Member(v.Member)
		if m != nil && m.Volume == nil && !v.Retired && !v.Deleting && v.Token == tokenOf(s) {
			left = append(left, v)
		}
	}
	return left
}

// tokenOf returns the initial-cluster-token that the members' volumes were founded with; empty where there is none.
func tokenOf(s *cluster.Snapshot) string {
	for _, m := range s.Members {
		if m.Volume != nil && m.Volume.Token != "" {
			return m.Volume.Token
		}
	}
	return ""
}

// founder is a founding member that lacks its volume, its StatefulSet, or both.
type founder struct {
	name             string
	volume, workload bool
}

// createFounders creates what founding members lack. The list, token and intent of an earlier pass are kept.
func createFounders(s *cluster.Snapshot, missing []founder) *plan.Decision {
	if d := awaitObjects(s, v1beta1.ReasonBootstrapping); d != nil {
		return d
	}
	token := cmp.Or(tokenOf(s), render.ClusterToken(s.Cluster))
	var founders []string
	for _, f := range missing {
		founders = append(founders, f.name)
	}
	for _, m := range s.Members {
		if !slices.Contains(founders, m.Name) {
			founders = append(founders, m.Name)
		}
	}
	slices.SortFunc(founders, func(a, b string) int { return cluster.CompareMembers(s.Cluster.Name, a, b) })
	slices.SortFunc(missing, func(a, b founder) int { return cluster.CompareMembers(s.Cluster.Name, a.name, b.name) })
	action := plan.CreateFounders{Members: founders}
	for _, f := range missing {
		if f.volume {
			action.Volumes = append(action.Volumes, render.MemberVolume(s.Cluster, f.name, founders, token))
		}
		if f.workload {
			in := memberInput(s, f.name, targetIntent(s), false)
			in.Start = render.Founding(s.Cluster, founders, token, in.Intent)
			action.StatefulSets = append(action.StatefulSets, render.MemberStatefulSet(in))
		}
	}
	return &plan.Decision{
		Progressing: true,
		Reason:      v1beta1.ReasonBootstrapping,
		Message:     fmt.Sprintf("Creating %s.%s", count(len(founders), "member"), leftAside(s)),
		Action:      action,
	}
}

// leftAside names the volumes that a failed attempt left, in a sentence; empty where there are none.
func leftAside(s *cluster.Snapshot) string {
	volumes := volumesLeftAside(s)
	if len(volumes) == 0 {
		return ""
	}
	return fmt.Sprintf(" An earlier attempt left the volumes of %s. They are not used, because no member is known to have started on them. "+
		"They may hold data all the same: look before you delete them.", memberNames(volumes))
}

// awaitObjects waits until upkeep has made what members need to start. It returns nil if that is there: the Services,
// whose address families decide what members listen on, and the certificates, whose authorities are written on the
// members' pods.
func awaitObjects(s *cluster.Snapshot, reason string) *plan.Decision {
	switch {
	case s.PeerService == nil:
		return &plan.Decision{Progressing: true, Reason: reason, Message: "Creating the Services."}
	case certificatesMissing(s):
		return &plan.Decision{Progressing: true, Reason: reason, Message: "Creating the certificates."}
	default:
		return nil
	}
}

// continueFounding makes what a founding that was cut short has not made yet.
func continueFounding(s *cluster.Snapshot, founders []founder) *plan.Decision {
	guards := slices.Concat([]guard{previousClusterGone, noForeignObject}, podGuards, []guard{peerURLsUnchanged})
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
	}
	return createFounders(s, founders)
}

// unfinishedFounders returns the founding members that still lack something that may be made.
// A volume is made only while no StatefulSet exists and no member was seen started, not even by an earlier pass that
// left only the cluster ID in the status: later its absence is a loss.
func unfinishedFounders(s *cluster.Snapshot) []founder {
	untouched := !s.Founded() && s.Cluster.Status.ClusterID == "" && tokenOf(s) == render.ClusterToken(s.Cluster) &&
		!s.MembersCreated()
	var founders []founder
	for i := range s.Members {
		m := &s.Members[i]
		f := founder{name: m.Name, volume: m.Volume == nil && untouched}
		f.workload = m.Workload == nil && startEvidence(s, m) == "" && (m.Volume != nil || f.volume)
		if isFounder(s, m) && (f.volume || f.workload) {
			founders = append(founders, f)
		}
	}
	return founders
}

// correctFounder restarts a founder that never started with a corrected spec, nil where there is none. It has no data,
// and keeps its name, the founding list and the token. One whose container runs is left alone: it may be starting, and
// may have found a quorum that the operator cannot see. Once it has started, it is restarted as any other member.
func correctFounder(s *cluster.Snapshot) *plan.Decision {
	want := withAuthorities(s, cluster.IntentOf(s.Cluster))
	if s.Founded() || s.Membership != nil || tlsChange(s) != "" || storageChange(s) != "" || versionChange(s) != "" && !noContainerStarted(s) {
		return nil
	}
	for i := range s.Members {
		m := &s.Members[i]
		if m.Volume == nil || mayHaveMemory(m) || m.Workload == nil || !m.Workload.StartsEmpty || startEvidence(s, m) != "" || !neverRan(m) && !hasFailed(m) {
			continue
		}
		isOld := !isMadeFromTemplate(m)
		if !isOld && sameConfiguration(m.Workload.Intent, want) {
			continue
		}
		if m.Pod != nil && m.Pod.Deleting {
			return awaitCorrection(fmt.Sprintf("The pod of %s is being deleted. It restarts with the corrected spec.", m.Name))
		}
		if refusals := correctionRefusals(s, want); len(refusals) > 0 {
			return refused(refusals)
		}
		d := awaitCorrection(fmt.Sprintf("No member has started yet. Restarting %s with the corrected spec.", m.Name))
		d.Action = correction(s, m, want, v1beta1.OperationBootstrap)
		return d
	}
	return nil
}

func awaitCorrection(message string) *plan.Decision {
	return &plan.Decision{Progressing: true, Reason: v1beta1.ReasonBootstrapping, Message: message}
}

// correction writes the template of a member that is being started, in the form that it has, and deletes its pod.
func correction(s *cluster.Snapshot, m *cluster.Member, want cluster.Intent, operation v1beta1.OperationType) plan.RestartMember {
	action := plan.RestartMember{Name: m.Name, For: operation}
	if m.Pod != nil {
		action.Pod, action.UID = m.Pod.Name, m.Pod.UID
	}
	action.StatefulSet, action.Live = render.MemberStatefulSet(memberInput(s, m.Name, want, hasStarted(s, m))), m.Workload.Live
	return action
}

// correctionRefusals asks the guards of a restart with a corrected spec.
func correctionRefusals(s *cluster.Snapshot, want cluster.Intent, more ...guard) []plan.Refusal {
	return refusalsOf(s, append([]guard{
		previousClusterGone,  // Make sure that no pod of a deleted cluster of this name still runs.
		noForeignObject,      // Make sure that the next pod mounts this cluster's objects.
		specUsable,           // Make sure that the next pod can start.
		correctionFits(want), // Make sure that etcd takes the options, and Kubernetes the pod.
	}, more...)...)
}

// correctionFits refuses a corrected spec that the operator would refuse for a new cluster.
func correctionFits(want cluster.Intent) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if refusal := intentRefusal(want, ""); refusal != nil {
			return refusal
		}
		return quotaFitsVolume(want.Quota(), cluster.VolumeSize(&s.Cluster.Spec))
	}
}

// neverRan reports whether etcd never ran in the member's present pod.
func neverRan(m *cluster.Member) bool {
	return m.Pod == nil || m.Pod.StartedAt.IsZero() && m.Pod.Restarts == 0 && !m.Pod.IsRunning()
}

// noContainerStarted reports whether no founder ever ran: none can have data of another version.
func noContainerStarted(s *cluster.Snapshot) bool {
	return !slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return !neverRan(&m) })
}

// awaitFounders tells how far the founding is, and what holds up those that have not started.
func awaitFounders(s *cluster.Snapshot) *plan.Decision {
	if d := correctFounder(s); d != nil {
		return d
	}
	if d := memoryNotCorrected(s); d != nil {
		return d
	}
	changes := unsupportedChanges(s)
	if text := versionChange(s); text != "" {
		changes = append([]string{text}, changes...)
	}
	if len(changes) > 0 && !s.Founded() {
		return &plan.Decision{
			Reason: v1beta1.ReasonNotYetSupported,
			Message: fmt.Sprintf("No member has started yet, and this release does not change a cluster that was created: %s. "+
				"Set the spec back, or delete the cluster and create it again with the spec that you want.", strings.Join(changes, "; ")),
		}
	}
	var waiting, switching []string
	for i := range s.Members {
		switch m := &s.Members[i]; {
		case !m.Volume.Started():
			waiting = append(waiting, m.Name)
		case !m.RefusesEmptyVolume():
			switching = append(switching, m.Name)
		}
	}
	message := fmt.Sprintf("%d of %d members have started.", len(s.Members)-len(waiting), len(s.Members))
	if len(waiting) > 0 {
		message += fmt.Sprintf(" Waiting for %s.", strings.Join(waiting, ", "))
	}
	if len(switching) > 0 {
		message += fmt.Sprintf(" Making the pods of %s refuse an empty volume.", strings.Join(switching, ", "))
	}
	return &plan.Decision{Progressing: true, Reason: v1beta1.ReasonBootstrapping, Message: message}
}

// startEmpty is how users say that a new cluster is to leave the volumes of an earlier one alone.
const startEmpty = "spec.bootstrap.existingVolumes: Ignore (in v1alpha1 the annotation " + v1beta1.BootstrapAnnotation + "=" + v1beta1.BootstrapEmpty + ")"

// startsEmpty reports whether retained volumes are left alone. An operation goes on as it began, whatever the spec says
// since: another operator may be in the middle of it.
func startsEmpty(s *cluster.Snapshot) bool {
	if op := s.Cluster.Status.Operation; op != nil {
		return op.Type == v1beta1.OperationBootstrap
	}
	return cluster.IgnoresExistingVolumes(s.Cluster)
}

// firstFreeNumber is above every number that a volume or a left-over carries, so that no name is used again over old
// data.
func firstFreeNumber(s *cluster.Snapshot) int {
	first := 0
	volumes := slices.Clone(s.RetainedVolumes)
	for _, m := range s.LeftOvers {
		volumes = append(volumes, cluster.Volume{Member: m.Name})
	}
	for _, v := range volumes {
		if n, ok := cluster.MemberNumber(s.Cluster.Name, v.Member); ok {
			first = max(first, n+1)
		}
	}
	return first
}

// targetIntent is what the pod of a member without a StatefulSet is made from. It is the spec's for a new cluster.
// Where a member has a StatefulSet it is that one's: founders must not differ when the spec changes between two of
// them, and this release carries out no changes, so a member whose StatefulSet was deleted comes back as the others
// run.
func targetIntent(s *cluster.Snapshot) cluster.Intent {
	for i := range s.Members {
		if m := &s.Members[i]; m.Workload != nil {
			return withAuthorities(s, m.Workload.Intent)
		}
	}
	return withAuthorities(s, cluster.IntentOf(s.Cluster))
}

// count returns a number of things in words, for example "1 member".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func memberNames(volumes []cluster.Volume) string {
	names := make([]string, len(volumes))
	for i, v := range volumes {
		names[i] = v.Member
	}
	return strings.Join(names, ", ")
}
