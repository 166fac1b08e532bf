package analyse

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// resizeTimeout is how long the kubelet gets to change a pod's resources. Then the member restarts instead.
const resizeTimeout = time.Minute

// resizeStep is the next step of a change of resources without a restart. Each is a write that disturbs no member, and
// each follows from what is seen, so a crash between two of them changes nothing. The template comes after the kubelet:
// a pod that Kubernetes makes again meanwhile has the resources that a node could give.
type resizeStep int

const (
	noResize              resizeStep = iota
	askForResize                     // The pod's spec must be changed.
	awaitKubelet                     // The kubelet has not carried it out yet.
	writeTemplateOfResize            // The pod has the resources. The template gets them too.
	markResized                      // The template has them. The pod must be marked as made from it.
)

func resizeStepOf(s *cluster.Snapshot, m *cluster.Member) resizeStep {
	if m.Workload == nil || m.Pod == nil || m.Pod.Deleting || s.Cluster.Spec.Paused {
		return noResize
	}
	have, spec := m.Workload.Intent, &s.Cluster.Spec.Resources
	if m.Pod.Resize.Target == "" && equality.Semantic.DeepEqual(have.Limits, spec.Limits) && equality.Semantic.DeepEqual(have.Requests, spec.Requests) {
		return noResize // the usual case, without the cost of a target: this runs for each member in each pass
	}
	if isResizedToTemplate(m) {
		return markResized
	}
	target := targetOf(s, m)
	changes := !sameConfiguration(have, target)
	switch resize := &m.Pod.Resize; {
	case !changes && resize.Target == "", !resizesInPlace(s, m):
		return noResize
	case resize.Target != target.TargetHash(), !m.Pod.HasResources(target.Resources()):
		return askForResize
	case !resize.Done:
		return awaitKubelet
	default:
		return writeTemplateOfResize
	}
}

// isResizedToTemplate reports whether the pod got the resources of its present template without a restart, and is not
// marked as made from it yet.
func isResizedToTemplate(m *cluster.Member) bool {
	if m.Pod == nil || m.Pod.Resize.Target == "" || m.Pod.Resize.Refused || !m.Pod.Resize.Done {
		return false
	}
	return m.Pod.Resize.Target == m.Workload.Intent.TargetHash() && m.Pod.HasResources(m.Workload.Intent.Resources())
}

// hasResourcesOfTemplate reports whether the pod has the resources of its template. One without the mark of a resize
// has: what differs there came from a LimitRange, for example.
func hasResourcesOfTemplate(m *cluster.Member) bool {
	if m.Pod == nil || m.Pod.Resize.Target == "" || m.Pod.Resize.Target == m.Workload.Intent.TargetHash() {
		return true
	}
	want := m.Workload.Intent.Resources()
	return m.Pod.HasResources(want) && !removes(m.Pod.Resources, want)
}

// resizesInPlace reports whether the member's pod gets what the spec asks for without a restart.
func resizesInPlace(s *cluster.Snapshot, m *cluster.Member) bool {
	if !mayResize(s, m) {
		return false
	}
	target := targetOf(s, m)
	if !onlyResourcesDiffer(m.Workload.Intent, target) || !kubernetesResizes(m, target) {
		return false
	}
	if len(refusalsOf(s, targetAllowed(m), hasNotFailed(targetOf))) > 0 {
		return false
	}
	resize := &m.Pod.Resize
	if resize.Target != target.TargetHash() {
		return true // it was not tried yet
	}
	done := resize.Done && m.Pod.HasResources(target.Resources())
	return !resize.Refused && (done || resize.Failure == "" && s.Now.Before(resize.AskedAt.Add(resizeTimeout)))
}

// mayResize reports whether the member's pod may be changed at all. One that has failed restarts: that is the quicker
// cure. One that restarts anyway needs no other change, and an operation that works on the member ends first.
func mayResize(s *cluster.Snapshot, m *cluster.Member) bool {
	if op := s.Cluster.Status.Operation; op != nil && (op.Member == "" || op.Member == m.Name) {
		return false
	}
	switch {
	case m.Workload == nil, m.Workload.Deleting, !m.RunsOn(), m.Pod.NodeLost, hasFailed(m), !m.RefusesEmptyVolume():
		return false
	case !isMadeFromTemplate(m), isStaleForRelease(s, m):
		return false
	default:
		return versionChange(s) == "" && tlsChange(s) == ""
	}
}

func onlyResourcesDiffer(have, target cluster.Intent) bool {
	have.Limits, have.Requests = target.Limits, target.Requests
	return sameConfiguration(have, target)
}

// kubernetesResizes reports whether Kubernetes changes these resources of a running pod: CPU and memory only, none is
// removed, and the pod keeps its class of quality of service. Source: ValidatePodResize in Kubernetes' validation.go.
// A lower limit of memory is left to a restart: see ADR 6.
func kubernetesResizes(m *cluster.Member, target cluster.Intent) bool {
	have, want := m.Workload.Intent.Resources(), target.Resources()
	if removes(have, want) || isLower(have.Limits, want.Limits, corev1.ResourceMemory) {
		return false
	}
	if resize := &m.Pod.Resize; resize.Target != "" && resize.Target != target.TargetHash() && removes(m.Pod.Resources, want) {
		return false // what an earlier change added cannot be taken from a running pod
	}
	after := corev1.ResourceRequirements{
		Limits: overlaid(m.Pod.Resources.Limits, want.Limits), Requests: overlaid(m.Pod.Resources.Requests, want.Requests),
	}
	return onlyCPUAndMemory(have, want) && qosClass(m.Pod.Resources) == qosClass(after)
}

func removes(have, want corev1.ResourceRequirements) bool {
	return removesResource(have.Limits, want.Limits) || removesResource(have.Requests, want.Requests)
}

func removesResource(have, want corev1.ResourceList) bool {
	for name := range have {
		if _, kept := want[name]; !kept {
			return true
		}
	}
	return false
}

// onlyCPUAndMemory reports whether all other resources are the same.
func onlyCPUAndMemory(have, want corev1.ResourceRequirements) bool {
	return cluster.Includes(withoutCPUAndMemory(have), withoutCPUAndMemory(want))
}

func withoutCPUAndMemory(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	r = *r.DeepCopy()
	for _, name := range computeResources {
		delete(r.Limits, name)
		delete(r.Requests, name)
	}
	return r
}

var computeResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

func overlaid(have, want corev1.ResourceList) corev1.ResourceList {
	all := corev1.ResourceList{}
	maps.Copy(all, have)
	maps.Copy(all, want)
	return all
}

// qosClass returns the class of quality of service of a pod with one container.
// Source: ComputePodQOS in Kubernetes' pkg/apis/core/v1/helper/qos/qos.go.
func qosClass(r corev1.ResourceRequirements) corev1.PodQOSClass {
	guaranteed, best := true, true
	for _, name := range computeResources {
		request, limit := r.Requests[name], r.Limits[name]
		guaranteed = guaranteed && !limit.IsZero() && request.Cmp(limit) == 0
		best = best && limit.IsZero() && request.IsZero()
	}
	switch {
	case guaranteed:
		return corev1.PodQOSGuaranteed
	case best:
		return corev1.PodQOSBestEffort
	default:
		return corev1.PodQOSBurstable
	}
}

// resizeUpkeep is the write to the pod that a step asks for.
func resizeUpkeep(s *cluster.Snapshot, m *cluster.Member, step resizeStep) []plan.Upkeep {
	switch step {
	case askForResize:
		if waits, _ := resizeWaits(s, m); waits {
			return nil
		}
		target := targetOf(s, m)
		ask := plan.ResizePod{
			Member: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID, Resources: target.Resources(), Target: target.TargetHash(), AskedAt: s.Now,
		}
		if m.Pod.Resize.Target == ask.Target {
			ask.AskedAt = m.Pod.Resize.AskedAt
		}
		return []plan.Upkeep{ask}
	case markResized:
		return []plan.Upkeep{plan.AnnotatePod{
			Member: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID, Annotations: resizedAnnotations(s, m), Resized: true,
		}}
	case noResize, awaitKubelet, writeTemplateOfResize:
	}
	return nil
}

// resizedAnnotations make the pod count as made from its present template.
func resizedAnnotations(s *cluster.Snapshot, m *cluster.Member) map[string]string {
	intent := ofPod(m, m.Workload.Intent)
	_, hash := intent.Encode()
	annotations := map[string]string{cluster.AnnotationIntentHash: hash, cluster.AnnotationResize: ""}
	if m.Pod.RenderHash != "" && !wasStaleBeforeResize(s, m) {
		annotations[cluster.AnnotationRenderHash] = render.RenderHash(memberInput(s, m.Name, intent, true))
	}
	return annotations
}

// wasStaleBeforeResize reports whether this release made the pod differently before its resources changed. The pod was
// made from what the member was healthy with.
func wasStaleBeforeResize(s *cluster.Snapshot, m *cluster.Member) bool {
	healthy := m.Workload.HealthyIntent
	return healthy == nil || m.Pod.RenderHash != render.RenderHash(memberInput(s, m.Name, ofPod(m, *healthy), true))
}

// ofPod returns an intent with the authorities that the member's pod was made with.
func ofPod(m *cluster.Member, i cluster.Intent) cluster.Intent {
	i.PeerAuthorities, i.ServerAuthorities = m.Pod.PeerAuthorities, m.Pod.ClientAuthorities
	return i
}

// resizeWaits reports whether a pod that must be changed has to wait, and the refusal where a guard is the cause. Pods
// that only gain are changed at once. A lower limit of CPU may slow a member down too far, so it is given to one pod
// after the other, while the other members are healthy.
func resizeWaits(s *cluster.Snapshot, m *cluster.Member) (bool, *plan.Refusal) {
	if !lowersLimit(s, m) {
		return false, nil
	}
	var lowered []*cluster.Member
	for i := range s.Members {
		switch other := &s.Members[i]; resizeStepOf(s, other) {
		case askForResize:
			if lowersLimit(s, other) {
				lowered = append(lowered, other)
			}
		case awaitKubelet, writeTemplateOfResize, markResized:
			return true, nil
		case noResize:
		}
	}
	if s.Cluster.Status.Operation != nil || nextToRestart(lowered).Name != m.Name {
		return true, nil
	}
	if held := holdRefusals(s.Hold, s.Cluster, &plan.Decision{Voluntary: true, Reason: v1beta1.ReasonResizingPods}); len(held) > 0 {
		return true, &held[0]
	}
	refusal := membersHealthy(m)(s)
	return refusal != nil, refusal
}

// lowersLimit reports whether the spec asks for less than the pod may use today.
func lowersLimit(s *cluster.Snapshot, m *cluster.Member) bool {
	want := targetOf(s, m).Resources().Limits
	for name := range want {
		if isLower(m.Pod.Resources.Limits, want, name) {
			return true
		}
	}
	return false
}

// isOfLowerLimit reports whether upkeep lowers a limit of a running pod: that may disturb the member.
func isOfLowerLimit(s *cluster.Snapshot, u plan.Upkeep) bool {
	ask, ok := u.(plan.ResizePod)
	return ok && lowersLimit(s, s.Member(ask.Member))
}

// isLower reports whether a limit goes down, or is new.
func isLower(have, want corev1.ResourceList, name corev1.ResourceName) bool {
	after, isLimited := want[name]
	before, wasLimited := have[name]
	return isLimited && (!wasLimited || after.Cmp(before) < 0)
}

// withoutLowerLimits leaves out lower limits in a pass that takes a step: one member is disturbed at a time.
func withoutLowerLimits(s *cluster.Snapshot, list []plan.Upkeep, d *plan.Decision) []plan.Upkeep {
	if d.Action == nil {
		return list
	}
	return slices.DeleteFunc(list, func(u plan.Upkeep) bool { return isOfLowerLimit(s, u) })
}

// awaitResize tells of pods whose resources are being changed without a restart.
func awaitResize(s *cluster.Snapshot) *plan.Decision {
	var names []string
	var refusal *plan.Refusal
	for i := range s.Members {
		m := &s.Members[i]
		step := resizeStepOf(s, m)
		if step == noResize {
			continue
		}
		names = append(names, m.Name)
		if step == askForResize && refusal == nil {
			_, refusal = resizeWaits(s, m)
		}
	}
	switch {
	case len(names) == 0:
		return nil
	case refusal != nil:
		return refused([]plan.Refusal{*refusal})
	}
	return &plan.Decision{
		Progressing: true, Reason: v1beta1.ReasonResizingPods,
		Message: fmt.Sprintf("The pods of %s get the CPU and memory of the spec without a restart.", strings.Join(names, ", ")),
	}
}
