package analyse

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// maxPreview is how many steps a preview tells. A spec needs fewer: each of 7 members restarts a few times.
const maxPreview = 64

// unansweredPlan returns the value of the plan annotation, if it was not answered yet. During an election the members
// tell too little for an answer.
func unansweredPlan(s *cluster.Snapshot) string {
	value := s.Cluster.Annotations[v1beta1.PlanAnnotation]
	if len(value) > v1beta1.MaxPlanValue || value == s.Cluster.Status.AnsweredPlan || s.AwaitsElection() {
		return ""
	}
	return value
}

// Preview tells what the operator would do to reach the spec, and in which order, as far as it is known now: every
// restarted or added member is taken to become healthy. It asks the rules themselves, one step after the other, each on
// the snapshot that the step before would lead to.
func Preview(s cluster.Snapshot) string {
	p := newPreview(&s)
	end := "More steps follow."
	for range maxPreview {
		if text := p.next(); text != "" {
			end = text
			break
		}
	}
	parts := p.waits
	for i, step := range p.steps {
		parts = append(parts, fmt.Sprintf("%d. %s.", i+1, step))
	}
	return strings.Join(append(parts, end), " ")
}

// preview is a snapshot as it would be after the steps.
type preview struct {
	s     cluster.Snapshot
	steps []string
	// hold is what keeps voluntary steps from beginning, and waits tells it.
	hold  *cluster.Hold
	waits []string
}

// newPreview copies what the steps change.
func newPreview(s *cluster.Snapshot) *preview {
	p := &preview{s: *s, hold: s.Hold}
	p.s.Hold, p.s.Cluster = nil, s.Cluster.DeepCopy()
	p.s.OperatorImage = ""                               // the image is taken to be the right one
	p.s.Cluster.Status.Conditions = []metav1.Condition{{ // etcd is taken to do its part in time: see waitedTooLong
		Type: v1beta1.ConditionProgressing, Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.Now),
	}}
	p.s.Members, p.s.LeftOvers = slices.Clone(s.Members), slices.Clone(s.LeftOvers)
	for i := range p.s.Members { // etcd waits some seconds for connections after a start: that changes no order
		if m := &p.s.Members[i]; m.Serves() && m.Pod != nil {
			pod := *m.Pod
			pod.StartedAt, pod.ReadySince, m.Pod = s.Now.Add(-time.Hour), s.Now.Add(-time.Hour), &pod
		}
	}
	if s.Membership != nil {
		list := *s.Membership
		list.Members = slices.Clone(list.Members)
		p.s.Membership = &list
	}
	if s.Cluster.Spec.Paused {
		p.waits = []string{"spec.paused is true: nothing begins until it is false."}
		p.s.Cluster.Spec.Paused = false
	}
	return p
}

// next takes the next step. At the end it tells what comes then.
func (p *preview) next() string {
	if p.s.Cluster.Status.Operation != nil {
		return p.finishOperation()
	}
	d := firstOpinion(&p.s)
	addUpkeep(&p.s, &d)
	d.Voluntary = d.Voluntary || lowersALimit(&p.s, d.Upkeep)
	if held := holdRefusals(p.hold, p.s.Cluster, &d); len(held) > 0 && !slices.Contains(p.waits, plan.Messages(held)) {
		p.waits = append(p.waits, plan.Messages(held))
	}
	if p.resizePods(&d) {
		return ""
	}
	if enabledDowngrade(&p.s) != nil && d.Reason == v1beta1.ReasonDowngrading && d.Action == nil && versionChange(&p.s) == "" {
		p.changeDowngrade(nil) // etcd ends it
		return ""
	}
	switch {
	case d.Rule == "" && len(p.steps) == 0:
		return d.Message
	case d.Rule == "":
		return "Then the cluster is as its spec says."
	case d.Action == nil && len(d.Refusals) == 0 && p.writeTemplates(&d):
		return ""
	case d.Action == nil && len(p.steps) == 0:
		return "Nothing begins now. " + d.Message
	case d.Action == nil:
		return "Then nothing more begins. " + d.Message
	default:
		return p.take(&d)
	}
}

// take tells an action, and changes the snapshot to how it is once the action has succeeded.
func (p *preview) take(d *plan.Decision) string {
	switch a := d.Action.(type) {
	case plan.CreateFounders, plan.TakeBackVolumes, plan.StartMembers:
		p.steps = append(p.steps, strings.TrimSuffix(d.Message, "."))
		return "What comes then is known when the members answer."
	case plan.RestartMember:
		text, before := "Restart "+a.Name, versionOf(p.s.Member(a.Name))
		p.restart(a)
		if now := versionOf(p.s.Member(a.Name)); now != before {
			text += " with etcd " + now
		}
		if a.Operation() == v1beta1.OperationRollBack {
			text = fmt.Sprintf("Restart %s with what it ran with before", a.Name)
		}
		p.steps = append(p.steps, text)
	case plan.HashMember:
		p.steps = append(p.steps, "Compare the data of all members")
		p.compare(a.Cause)
	case plan.Defragment:
		p.steps = append(p.steps, "Defragment "+a.Name)
		metav1.SetMetaDataAnnotation(&p.s.Cluster.ObjectMeta, v1beta1.DefragmentAnnotation, a.Note)
	case plan.MoveLeader:
		p.steps = append(p.steps, fmt.Sprintf("Move the leader from %s to %s", a.Name, a.To))
		p.lead(a.ToID)
	case plan.AddMember:
		p.steps = append(p.steps, fmt.Sprintf("Add %s as a learner, and make it a voter", a.Name))
		p.join(a.Name)
	case plan.StartLearner, plan.PromoteMember:
		p.steps = append(p.steps, fmt.Sprintf("Make the learner %s a voter", a.Member()))
		p.join(a.Member())
	case plan.ChangeDowngrade:
		p.steps = append(p.steps, strings.TrimSuffix(d.Message, "."))
		p.changeDowngrade(a)
	case plan.RemoveMember:
		p.steps = append(p.steps, removalText(a))
		p.remove(a.Name)
	}
	return ""
}

// versionOf is the version of the member's template; empty where it has none.
func versionOf(m *cluster.Member) string {
	if m == nil || m.Workload == nil {
		return ""
	}
	return m.Workload.Intent.Version
}

// finishOperation tells the operation under way as one step. A roll back that takes it over is told as such.
func (p *preview) finishOperation() string {
	op := *p.s.Cluster.Status.Operation
	if ended, _ := endOperation(&p.s); ended {
		p.s.Cluster.Status.Operation = nil
		return ""
	}
	d := firstOpinion(&p.s)
	if d.Rule != RuleOperation && d.Rule != RuleRollBack && !d.HandOver {
		return "The operation " + plan.NameOf(&op) + " is under way. " + d.Message
	}
	text := fmt.Sprintf("Finish the operation %s, which is under way", plan.NameOf(&op))
	if move, ok := d.Action.(plan.MoveLeader); ok {
		p.lead(move.ToID)
		if op.Type != v1beta1.OperationMoveLeader {
			return ""
		}
	}
	if d.HandOver {
		text = fmt.Sprintf("Restart %s with what it ran with before, because it did not become healthy", op.Member)
	}
	if restart, ok := d.Action.(plan.RestartMember); ok {
		p.restart(restart)
	} else if removal, ok := d.Action.(plan.RemoveMember); ok {
		text = removalText(removal)
		p.remove(removal.Name)
	} else {
		p.complete(&op)
	}
	p.steps, p.s.Cluster.Status.Operation = append(p.steps, text), nil
	return ""
}

func removalText(a plan.RemoveMember) string {
	if a.For == v1beta1.OperationReplaceMember {
		return fmt.Sprintf("Remove %s, which is lost", a.Name)
	}
	return "Remove " + a.Name
}

// changeDowngrade takes a downgrade to be enabled, with all data prepared, or to be cancelled. A renewal of the log is
// both.
func (p *preview) changeDowngrade(action plan.Action) {
	change, _ := action.(plan.ChangeDowngrade)
	if p.s.PeerService != nil {
		p.s.PeerService = p.s.PeerService.DeepCopy()
		for key, value := range change.Notes {
			metav1.SetMetaDataAnnotation(&p.s.PeerService.ObjectMeta, key, value)
		}
		if change.Notes[cluster.AnnotationLogRenewal] == cluster.LogRenewalBegun {
			p.s.PeerService.Annotations[cluster.AnnotationLogRenewal] = cluster.LogRenewalDone
			change.Target = ""
		}
	}
	for i := range p.s.Members {
		m := &p.s.Members[i]
		if m.Probe == nil {
			continue
		}
		probe := *m.Probe
		probe.DowngradeTarget, probe.DowngradeEnabled = change.Target, change.Target != ""
		if change.Target != "" {
			probe.ClusterVersion, probe.StorageVersion = change.Target, change.Target
		}
		m.Probe = &probe
	}
}

// complete changes the snapshot to how it is when an operation is done whose step was taken.
func (p *preview) complete(op *v1beta1.Operation) {
	switch op.Type {
	case v1beta1.OperationAddMember:
		p.join(op.Member)
	case v1beta1.OperationRemoveMember, v1beta1.OperationReplaceMember:
		p.remove(op.Member)
	case v1beta1.OperationDowngrade:
		p.changeDowngrade(awaitDowngrade(&p.s, op).Action)
	case v1beta1.OperationDefragment:
		p.defragment(op.Member)
	case v1beta1.OperationCheckConsistency:
		p.compare(claimedCause(&p.s))
	case v1beta1.OperationRollMember, v1beta1.OperationRollBack:
		p.restart(plan.RestartMember{Name: op.Member})
	case v1beta1.OperationBootstrap, v1beta1.OperationTakeBack, v1beta1.OperationResume: // their rules go on with them
	case v1beta1.OperationMoveLeader: // the hand-over was the whole of it
	}
}

// compare makes the data of all members agree.
func (p *preview) compare(cause string) {
	c := &cluster.Comparison{Cause: cause, Voters: voterIDs(&p.s), Attempt: 1, Ended: p.s.Now}
	for i := range p.s.Members {
		if e := p.s.EtcdEntry(&p.s.Members[i]); e != nil && !e.Learner {
			c.Answers = append(c.Answers, cluster.Answer{Member: p.s.Members[i].Name, ID: e.ID})
		}
	}
	p.s.Comparison = c
}

// defragment makes the member a healthy voter that is noted as done.
func (p *preview) defragment(member string) {
	if m := p.s.Member(member); m != nil && m.Workload != nil {
		p.makeHealthy(m)
	}
	if asked, done := defragmentRequest(&p.s); asked != "" {
		metav1.SetMetaDataAnnotation(&p.s.Cluster.ObjectMeta, v1beta1.DefragmentAnnotation, defragmentNote(asked, append(done, member)))
	}
}

// resizePods tells of the pods whose resources change without a restart, and changes them. It reports whether there is
// any.
func (p *preview) resizePods(d *plan.Decision) bool {
	var names []string
	for _, u := range d.Upkeep {
		resize, ok := u.(plan.ResizePod)
		if !ok {
			continue
		}
		m := p.s.Member(resize.Member)
		set := render.MemberStatefulSet(memberInput(&p.s, m.Name, withAuthorities(&p.s, targetOf(&p.s, m)), true))
		old := *m.Pod
		p.restart(plan.RestartMember{Name: m.Name, StatefulSet: set})
		m.Pod.PeerAuthorities, m.Pod.ClientAuthorities = old.PeerAuthorities, old.ClientAuthorities
		names = append(names, m.Name)
	}
	if len(names) > 0 {
		p.steps = append(p.steps, "Change CPU and memory of "+strings.Join(names, ", ")+" without a restart, if Kubernetes can")
	}
	return len(names) > 0
}

// writeTemplates does the part of upkeep that a restart waits for. It reports whether there was any.
func (p *preview) writeTemplates(d *plan.Decision) bool {
	wrote := false
	for _, u := range d.Upkeep {
		u, ok := u.(plan.UpdateStatefulSet)
		if !ok {
			continue
		}
		m := p.s.Member(u.Desired.Name)
		w := *m.Workload
		if intent, err := cluster.DecodeIntent(u.Desired.Annotations[cluster.AnnotationIntent]); err == nil {
			w.Intent, w.IntentHash, w.Live, wrote = intent, u.Desired.Annotations[cluster.AnnotationIntentHash], u.Desired, true
		}
		m.Workload = &w
	}
	return wrote
}

// restart makes the member run with its template, or with the one that the action writes.
func (p *preview) restart(a plan.RestartMember) {
	m := p.s.Member(a.Name)
	if m == nil || m.Workload == nil {
		return
	}
	intent, set := m.Workload.Intent, m.Workload.Live
	if a.StatefulSet != nil {
		set = a.StatefulSet
		if written, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent]); err == nil {
			intent = written
		}
	}
	workload := cluster.Workload{Intent: intent, IntentHash: m.Workload.IntentHash, HealthyIntent: &intent}
	if set != nil {
		set = set.DeepCopy()
		workload.IntentHash = set.Annotations[cluster.AnnotationIntentHash]
		set.Annotations[cluster.AnnotationHealthyIntent] = set.Annotations[cluster.AnnotationIntent]
	}
	workload.Live, m.Workload = set, &workload
	p.makeHealthy(m)
}

// makeHealthy gives the member a pod that was made from its template, and whose etcd serves.
func (p *preview) makeHealthy(m *cluster.Member) {
	pod := cluster.Pod{Name: cluster.PodName(m.Name)}
	if m.Pod != nil {
		pod.UID, pod.Node, pod.Zone = m.Pod.UID, m.Pod.Node, m.Pod.Zone
	}
	pod.Phase, pod.Ready, pod.PassesReadiness = corev1.PodRunning, true, true
	pod.CreatedAt, pod.StartedAt = p.s.Now.Add(-time.Hour), p.s.Now.Add(-time.Hour) // see newPreview
	pod.IntentHash, pod.Resources = m.Workload.IntentHash, m.Workload.Intent.Resources()
	pod.PeerAuthorities, pod.ClientAuthorities = m.Workload.Intent.PeerAuthorities, m.Workload.Intent.ServerAuthorities
	if m.Workload.Live != nil {
		pod.RenderHash = m.Workload.Live.Spec.Template.Annotations[cluster.AnnotationRenderHash]
	}
	probe := cluster.Probe{Version: m.Workload.Intent.Version, Linearizable: true}
	if m.Probe != nil {
		probe.ClusterVersion, probe.StorageVersion = m.Probe.ClusterVersion, m.Probe.StorageVersion
		probe.DowngradeTarget, probe.DowngradeEnabled = m.Probe.DowngradeTarget, m.Probe.DowngradeEnabled
	}
	if m.Volume != nil {
		probe.MemberID, probe.ClusterID = m.Volume.MemberID, m.Volume.ClusterID
	}
	if e := p.s.EtcdEntry(m); e != nil {
		probe.MemberID, probe.ClusterID = e.ID, p.s.Membership.ClusterID
	}
	m.Pod, m.Probe = &pod, nil
	leader := p.s.Leader()
	if leader == nil {
		m.Probe = &probe
		p.lead(p.anyVoter(probe.MemberID))
		return
	}
	probe.Leader, probe.Term = leader.Probe.MemberID, leader.Probe.Term
	probe.CommittedIndex, probe.AppliedIndex = leader.Probe.CommittedIndex, leader.Probe.CommittedIndex
	m.Probe = &probe
}

// anyVoter returns a healthy voter other than the one that restarts, and that one if there is no other.
func (p *preview) anyVoter(restarts cluster.ID) cluster.ID {
	for i := range p.s.Members {
		if m := &p.s.Members[i]; m.IsHealthyVoter() && m.Probe.MemberID != restarts {
			return m.Probe.MemberID
		}
	}
	return restarts
}

// lead has every member that answers follow another leader.
func (p *preview) lead(id cluster.ID) {
	for i := range p.s.Members {
		if m := &p.s.Members[i]; m.Answers() {
			probe := *m.Probe
			probe.Leader, m.Probe = id, &probe
		}
	}
}

// join makes a new member, or a learner, a healthy voter.
func (p *preview) join(name string) {
	if p.s.Membership == nil {
		return
	}
	intent := joinerIntent(&p.s)
	url := render.PeerURL(p.s.Cluster, name, intent)
	entry := cluster.EtcdMember{ID: 1, Name: name, PeerURLs: []string{url}, Started: true}
	if m := p.s.Member(name); m != nil && p.s.EtcdEntry(m) != nil {
		entry = *p.s.EtcdEntry(m)
		entry.Name, entry.Learner, entry.Started = name, false, true
	} else {
		for _, e := range p.s.Membership.Members {
			entry.ID = max(entry.ID, e.ID+1)
		}
	}
	p.remove(name)
	size := cluster.VolumeSize(&p.s.Cluster.Spec)
	m := cluster.Member{Name: name, Volume: &cluster.Volume{
		InMemory: cluster.IsInMemory(&p.s.Cluster.Spec), Name: cluster.VolumeName(name), Member: name, RequestedBytes: size.Value(), StorageClass: cluster.VolumeStorageClass(&p.s.Cluster.Spec),
		AccessModes: cluster.VolumeAccessModes(&p.s.Cluster.Spec), ClusterUID: p.s.Cluster.UID, Token: tokenOf(&p.s), PeerURL: entry.PeerURLs[0],
		ClusterID: p.s.Membership.ClusterID, MemberID: entry.ID, Version: intent.Version, JoinedCluster: p.s.MemberList(),
	}}
	p.s.Membership.Members = append(p.s.Membership.Members, entry)
	p.s.Members, p.s.LeftOvers = append(p.s.Members, m), slices.DeleteFunc(p.s.LeftOvers, func(m cluster.Member) bool { return m.Name == name })
	added := p.s.Member(name)
	set := render.MemberStatefulSet(memberInput(&p.s, name, intent, true))
	set.Annotations[cluster.AnnotationHealthyIntent] = set.Annotations[cluster.AnnotationIntent]
	added.Workload = &cluster.Workload{Intent: intent, IntentHash: set.Annotations[cluster.AnnotationIntentHash], HealthyIntent: &intent, Live: set}
	p.makeHealthy(added)
}

// remove takes a member off the list. Its volume keeps its number from being used again.
func (p *preview) remove(name string) {
	m := p.s.Member(name)
	if m == nil {
		return
	}
	if e := p.s.EtcdEntry(m); e != nil {
		id := e.ID
		p.s.Membership.Members = slices.DeleteFunc(p.s.Membership.Members, func(e cluster.EtcdMember) bool { return e.ID == id })
	}
	if m.Volume != nil {
		p.s.LeftOvers = append(p.s.LeftOvers, cluster.Member{Name: name, Volume: m.Volume})
	}
	p.s.Members = slices.DeleteFunc(p.s.Members, func(m cluster.Member) bool { return m.Name == name })
}
