package analyse

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// addUpkeep lists the harmless writes that a cluster needs. Volumes stay at once if the spec says so again. Then come
// records on volumes, and templates and pods that refuse an empty volume. No other write may delay these. A paused
// cluster gets no others, but for urgent renewals: an emptied volume would be founded again.
// A cluster that has no object yet, and is not being created, needs none.
func addUpkeep(s *cluster.Snapshot, d *plan.Decision) {
	if (len(s.Members) == 0 && !d.Progressing) || refusalsOf(s, oneClusterID, operationKnown) != nil {
		d.Upkeep = append(keptVolumes(s, slices.Concat(s.Members, s.LeftOvers)), urgentRenewals(s)...)
		return
	}
	list := keptVolumes(s, s.LeftOvers)
	for i := range s.Members {
		list = append(list, memberUpkeep(s, &s.Members[i])...)
	}
	list = withoutLowerLimits(s, withoutTemplateOf(list, d), d)
	if s.Cluster.Spec.Paused {
		d.Upkeep = append(list, urgentRenewals(s)...)
		return
	}
	for _, v := range pendingVolumes(s) {
		if !v.Deleting {
			list = append(list, plan.Delete{Object: render.VolumeToDelete(s.Cluster, v)})
		}
	}
	list = append(list, removedUpkeep(s)...)
	list = append(list, hangUpkeep(s)...)
	if d.Action == nil {
		list = append(list, replacementUpkeep(s)...)
		list = append(list, consistencyUpkeep(s, d.Finished)...)
		list = append(list, maintenanceUpkeep(s)...)
		list = append(list, imageCheckUpkeep(s)...) // a pod that is refused holds up no action
	}
	if notes := peerNotes(s, d); len(notes) > 0 {
		list = append(list, plan.NotePeers{Service: s.PeerService.Name, Notes: notes})
	}
	list = append(list, objectUpkeep(s, membersToBe(s, d))...)
	list = append(list, certificateUpkeep(s)...)
	d.Upkeep = slices.DeleteFunc(list, func(u plan.Upkeep) bool { return touchesForeignObject(s, u) })
}

// withoutTemplateOf leaves out the template that the action writes: written twice, the second write would fail.
func withoutTemplateOf(list []plan.Upkeep, d *plan.Decision) []plan.Upkeep {
	action, ok := d.Action.(plan.RestartMember)
	if !ok || action.StatefulSet == nil {
		return list
	}
	return slices.DeleteFunc(list, func(u plan.Upkeep) bool {
		update, ok := u.(plan.UpdateStatefulSet)
		return ok && update.Desired.Name == action.StatefulSet.Name
	})
}

// touchesForeignObject reports whether a write is to a foreign object, or needs one. Other writes are still made:
// a cluster whose certificates are not renewed stops working.
func touchesForeignObject(s *cluster.Snapshot, u plan.Upkeep) bool {
	names := append(u.Uses(), u.Writes())
	return slices.ContainsFunc(s.ForeignObjects, func(x cluster.ForeignObject) bool {
		return slices.Contains(names, plan.ObjectName{Kind: x.Kind, Name: x.Name})
	})
}

// membersToBe is how many members there are, or will be where there are none yet.
func membersToBe(s *cluster.Snapshot, d *plan.Decision) int {
	if len(s.Members) > 0 {
		return len(s.Members)
	}
	if takeBack, ok := d.Action.(plan.TakeBackVolumes); ok {
		return len(cluster.RememberedMembers(takeBack.Volumes))
	}
	return int(s.Cluster.Spec.Replicas)
}

func objectUpkeep(s *cluster.Snapshot, members int) []plan.Upkeep {
	var list []plan.Upkeep
	list = appendIfStale(list, peerService(s), s.PeerService)
	list = appendIfStale(list, render.ClientService(s.Cluster), s.ClientService)
	if s.Founded() {
		members = budgetVoters(s)
	}
	budget := render.Budget(s.Cluster, max(cluster.Quorum(max(members, s.Outlook().Voters)), mustStayInMemory(s)))
	switch {
	case members > 1:
		list = appendIfStale(list, budget, s.Budget)
	case members == 1 && s.Budget != nil:
		budget.UID = s.Budget.UID
		list = append(list, plan.Delete{Object: budget})
	}
	return list
}

// peerNotes are the notes that are missing on the Service of the peers, or over. An action writes its own notes; a
// removal has none, and would make the operator forget a number that only etcd's list remembers.
func peerNotes(s *cluster.Snapshot, d *plan.Decision) map[string]string {
	notes := map[string]string{}
	_, removes := d.Action.(plan.RemoveMember)
	if s.PeerService == nil || d.Action != nil && !removes {
		return notes
	}
	if next := s.UnnotedNumber(); next > 0 {
		notes[cluster.AnnotationNextMember] = strconv.Itoa(next)
	}
	if removes {
		return notes
	}
	if hasEndedDowngrade(s) { // one that is enabled later is somebody else's
		notes[cluster.AnnotationDowngrade] = ""
	}
	if note := missingNote(s); note != "" {
		notes[cluster.AnnotationCompared] = note
	}
	return notes
}

// peerService builds the Service of the peers. One that is created again notes the number of the next member at once:
// the volumes that still remember it may be deleted.
func peerService(s *cluster.Snapshot) *corev1.Service {
	service := render.PeerService(s.Cluster)
	if next := s.NextNumber(); s.PeerService == nil && next > 0 {
		metav1.SetMetaDataAnnotation(&service.ObjectMeta, cluster.AnnotationNextMember, strconv.Itoa(next))
	}
	return service
}

// appendIfStale appends the application of an object if there is none, or another one than the operator renders today.
func appendIfStale[T interface {
	comparable
	plan.Object
}](list []plan.Upkeep, desired, live T) []plan.Upkeep {
	var none T
	switch {
	case live == none:
		return append(list, plan.Apply{Desired: desired})
	case stale(desired, live):
		return append(list, plan.Apply{Desired: desired, Live: live})
	default:
		return list
	}
}

// memberUpkeep records what is known of a member. Then it makes its template and its pod refuse an empty volume.
func memberUpkeep(s *cluster.Snapshot, m *cluster.Member) []plan.Upkeep {
	var list []plan.Upkeep
	waits := awaitsAnswer(s, m)
	switch record := volumeRecord(s, m); {
	case len(record) > 0 && !waits:
		list = append(list, plan.RecordMember{
			Member: m.Name, Volume: m.Volume.Name, ResourceVersion: m.Volume.ResourceVersion, InMemory: m.Volume.InMemory, Annotations: record,
		})
	case isAdmissible(m):
		list = append(list, plan.AdmitPod{Member: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID})
	case retentionDiffers(s, m.Volume) && (!s.Cluster.Spec.Paused || !cluster.DeletesVolumes(s.Cluster)):
		list = append(list, setRetention(s, m.Volume))
	}
	started := hasStarted(s, m)
	if m.Volume == nil && !started {
		return nil
	}
	return append(list, workloadUpkeep(s, m, started)...)
}

// hasStarted reports whether the member's template must refuse an empty volume. A lost volume is never made again: an
// empty one is no new start. A template that refuses an empty volume stays so, even where the cache of volumes does not
// know the record yet.
func hasStarted(s *cluster.Snapshot, m *cluster.Member) bool {
	return startEvidence(s, m) != "" && !awaitsAnswer(s, m) || m.Workload != nil && !m.Workload.StartsEmpty || m.Volume == nil && s.Founded()
}

// workloadUpkeep brings a member's StatefulSet and pod to what they should be without a restart. The StatefulSet of a
// paused cluster is written only for a member that started, if its template still starts on an empty volume.
func workloadUpkeep(s *cluster.Snapshot, m *cluster.Member, started bool) []plan.Upkeep {
	if m.Workload == nil {
		return nil
	}
	var list []plan.Upkeep
	in := memberInput(s, m.Name, withAuthorities(s, m.Workload.Intent), started)
	if intent, isLeft := versionLeft(s, m); isLeft {
		in.Intent = withAuthorities(s, intent)
	}
	step := resizeStepOf(s, m)
	if step == writeTemplateOfResize {
		in.Intent, in.Operation = withAuthorities(s, targetOf(s, m)), ""
	}
	desired, paused := render.MemberStatefulSet(in), s.Cluster.Spec.Paused
	if paused {
		desired.Spec.Replicas = m.Workload.Live.Spec.Replicas // the user may have scaled it
	}
	if !m.Workload.Deleting && (!paused || started && m.Workload.StartsEmpty) && stale(desired, m.Workload.Live) {
		list = append(list, plan.UpdateStatefulSet{Desired: desired, Live: m.Workload.Live})
	}
	if m.Pod == nil {
		return list
	}
	switch {
	case m.Pod.Deleting:
	case !m.Pod.StartsEmpty:
		list = append(list, resizeUpkeep(s, m, step)...)
	case started:
		list = append(list, plan.AnnotatePod{Member: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID, Annotations: render.ExistingFormAnnotations(in)})
	case isJoining(s, m) && m.Pod.InitialCluster != s.MemberList(): // etcd exits at a list of another length
		list = append(list, plan.AnnotatePod{Member: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID, Annotations: in.Start.Annotations()})
	}
	return list
}

// versionLeft returns the intent of the member's template with the version that its pod was made with, where an
// operation has ended that wrote another one and did not restart the member. Kubernetes would restart it with a version
// that its data may not be fit for any more.
func versionLeft(s *cluster.Snapshot, m *cluster.Member) (cluster.Intent, bool) {
	op := s.Cluster.Status.Operation
	if m.Pod == nil || m.Pod.Deleting || !awaitsVersion(m) || op != nil && op.Member == m.Name {
		return cluster.Intent{}, false
	}
	was := *m.Workload.HealthyIntent
	if !isPodOf(m.Pod, was) {
		return cluster.Intent{}, false
	}
	return m.Workload.Intent.WithVersionOf(was).Canonical(), true
}

// staleTemplates names the members whose template makes another pod than the one that runs, and that no operation
// restarts.
func staleTemplates(s *cluster.Snapshot) []string {
	var names []string
	op := s.Cluster.Status.Operation
	for _, m := range s.Members {
		if hasStaleRender(s, &m) && (op == nil || op.Member != m.Name) {
			names = append(names, m.Name)
		}
	}
	return names
}

// hasStaleRender reports whether the member's template makes another pod than the one that runs.
func hasStaleRender(s *cluster.Snapshot, m *cluster.Member) bool {
	differs := m.Pod != nil && m.Workload != nil && m.Pod.RenderHash != "" && m.Workload.Live != nil &&
		m.Pod.RenderHash != m.Workload.Live.Spec.Template.Annotations[cluster.AnnotationRenderHash]
	return differs && (!isResizedToTemplate(m) || wasStaleBeforeResize(s, m))
}

// retentionDiffers reports whether the volume would stay where it is to go with the cluster, or the other way round.
func retentionDiffers(s *cluster.Snapshot, v *cluster.Volume) bool {
	return v != nil && !v.Deleting && !v.InMemory && (v.DeletedWith == s.Cluster.UID) != cluster.DeletesVolumes(s.Cluster)
}

func setRetention(s *cluster.Snapshot, v *cluster.Volume) plan.SetRetention {
	return plan.SetRetention{Volume: v.Name, ResourceVersion: v.ResourceVersion, DeletedWithCluster: cluster.DeletesVolumes(s.Cluster)}
}

// keptVolumes takes volumes away from the cluster that owns them, and would take them along when it is deleted, if the
// spec says that volumes stay.
func keptVolumes(s *cluster.Snapshot, members []cluster.Member) (list []plan.Upkeep) {
	if cluster.DeletesVolumes(s.Cluster) {
		return nil
	}
	for i := range members {
		if v := members[i].Volume; retentionDiffers(s, v) {
			list = append(list, setRetention(s, v))
		}
	}
	return list
}

// startOf is how a member starts that has not started yet: as a founder, or as one that was added later.
// One that was added starts with etcd's list of this moment, and of when it was registered where etcd does not answer.
func startOf(s *cluster.Snapshot, m *cluster.Member, intent cluster.Intent) render.Start {
	switch {
	case isJoining(s, m):
		return render.Joining(s.MemberList())
	case m.Volume.JoinedCluster != "":
		return render.Joining(m.Volume.JoinedCluster)
	default:
		return render.Founding(s.Cluster, m.Volume.Founders, m.Volume.Token, intent)
	}
}

// memberInput is what a member's StatefulSet is rendered from.
func memberInput(s *cluster.Snapshot, name string, intent cluster.Intent, started bool) render.MemberInput {
	m := s.Member(name)
	in := render.MemberInput{Cluster: s.Cluster, Name: name, Intent: intent, IPv6: usesIPv6(s), Stopped: mustNotStart(s, m), MemoryBytes: memoryOf(s, m)}
	if !started && m != nil && m.Volume != nil {
		in.Start = startOf(s, m, intent)
	}
	if m != nil && m.Workload != nil && m.Workload.Live != nil {
		in.HealthyIntent = healthyIntent(s, m, started, intent)
		in.Operation = m.Workload.Live.Annotations[cluster.AnnotationOperation]
		if t, _, _ := cluster.MarkedOperation(in.Operation); t == v1beta1.OperationRollBack && s.Cluster.Status.Operation == nil && isHealthyWithTemplate(m) {
			in.Operation = "" // it went back well: a failure from now on is another one
		}
		in.FailedIntent = failedIntents(m, in.HealthyIntent)
	}
	return in
}

// failedIntents returns the text of the intents that the member did not become healthy with. They are forgotten once
// it is healthy with another intent than before: a new spec works, so what failed may be tried again later.
func failedIntents(m *cluster.Member, healthy string) string {
	annotations := m.Workload.Live.Annotations
	failed, before := annotations[cluster.AnnotationFailedIntent], m.Workload.HealthyIntent
	if failed == "" || healthy == annotations[cluster.AnnotationHealthyIntent] || before == nil || sameConfiguration(*before, m.Workload.Intent) {
		return failed
	}
	return ""
}

// healthyIntent returns the text of the intent under which the member was last a healthy voter; empty where there is
// none. Its pod must have been ready for a while: one that answers, is ready for a moment and is killed goes back.
// Where the template is replaced before, what the pod runs with is noted, unless its minor version of etcd is on
// trial.
func healthyIntent(s *cluster.Snapshot, m *cluster.Member, started bool, next cluster.Intent) string {
	annotations := m.Workload.Live.Annotations
	isTried := trialLeft(s, m) <= 0 || !triesMinor(m) && replacesTemplate(m, next)
	if started && isTried && m.IsHealthyVoter() && m.Pod != nil && m.Pod.Ready && !m.Pod.Deleting && m.Pod.IntentHash == annotations[cluster.AnnotationIntentHash] {
		return annotations[cluster.AnnotationIntent]
	}
	return annotations[cluster.AnnotationHealthyIntent]
}

// replacesTemplate reports whether an intent makes another template than the member has.
func replacesTemplate(m *cluster.Member, next cluster.Intent) bool {
	_, hash := next.Encode()
	return hash != m.Workload.IntentHash
}

// isHealthyWithTemplate reports whether the member is a healthy voter whose pod is ready and made from its template.
func isHealthyWithTemplate(m *cluster.Member) bool {
	return m.IsHealthyVoter() && m.Pod != nil && m.Pod.Ready && !m.Pod.Deleting && wasMadeFromTemplate(m)
}

// usesIPv6 asks the Service that gave the members their addresses. Without it, what they were made with decides.
func usesIPv6(s *cluster.Snapshot) bool {
	if s.PeerService != nil {
		return slices.Contains(s.PeerService.Spec.IPFamilies, corev1.IPv6Protocol)
	}
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Workload != nil && m.Workload.Live != nil && render.BindsIPv6(m.Workload.Live)
	})
}

// mustNotStart reports whether the next pod of the member could start over other data than its own: its
// PersistentVolumeClaim is bound to another volume, has no record of the volume, or is gone. One of its name may come
// back with a copy, and without the operator's labels the operator does not even see it.
// No member that runs is stopped for that: a pod keeps its volume for as long as it exists (docs/adr/0002). A roll back
// stops one that failed: see isFenced.
func mustNotStart(s *cluster.Snapshot, m *cluster.Member) bool {
	if isFenced(s, m) {
		return true
	}
	if m == nil || m.Workload == nil || m.RunsOn() {
		return false
	}
	return m.Volume.IsReplaced() || m.LacksRecord() || m.Volume == nil && s.Founded()
}

// stale reports whether the live object is not what the operator renders today. What cannot be compared counts as
// stale.
func stale(desired, live runtime.Object) bool {
	same, err := render.UpToDate(desired, live)
	return err != nil || !same
}
