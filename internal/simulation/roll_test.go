package simulation_test

import (
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

func labelled(value string) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) {
		templateOf(spec).Metadata.Labels = map[string]string{"team": value}
	}
}

func limited(memory string) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) {
		spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	}
}

func timed(heartbeat, election string) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) {
		spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"heartbeat-interval": heartbeat, "election-timeout": election}}
	}
}

func tagged(suffix string) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) {
		if spec.Image.Tag = ""; suffix != "" {
			spec.Image.Tag = "v" + spec.Version + suffix
		}
	}
}

func onNoNode(is bool) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) {
		if templateOf(spec).Spec.NodeSelector = nil; is {
			spec.PodTemplate.Spec.NodeSelector = map[string]string{simulation.NoNode: "yes"}
		}
	}
}

func templateOf(spec *v1beta1.EtcdClusterSpec) *v1beta1.PodTemplate {
	if spec.PodTemplate == nil {
		spec.PodTemplate = &v1beta1.PodTemplate{}
	}
	return spec.PodTemplate
}

// rolled are changes of the spec that restart every member.
var rolled = map[string]func(*v1beta1.EtcdClusterSpec){
	"a label": labelled("a"), "another label": labelled("b"), "memory": limited("2Gi"), "more memory": limited("3Gi"),
	"fast timings": timed("20", "200"), "default timings": timed("100", "1000"), "slow timings": timed("4000", "40000"),
	"images are always pulled": func(spec *v1beta1.EtcdClusterSpec) { spec.Image.PullPolicy = v1beta1.PullAlways },
	"images are kept":          func(spec *v1beta1.EtcdClusterSpec) { spec.Image.PullPolicy = v1beta1.PullIfNotPresent },
}

// spoiled are changes with which no member comes back.
var spoiled = map[string]func(*v1beta1.EtcdClusterSpec){
	"an image that does not exist": tagged(simulation.TagUnpullable), "an image that crashes": tagged(simulation.TagCrashes),
	"an image that hangs": tagged(simulation.TagHangs), "too little memory": limited("1Mi"), "no node": onNoNode(true),
}

// editOneOf makes one of the changes.
func (h *history) editOneOf(t *rapid.T, changes map[string]func(*v1beta1.EtcdClusterSpec)) {
	h.editSpec(t, changes[rapid.SampledFrom(slices.Sorted(maps.Keys(changes))).Draw(t, "change")])
}

// isSpoiled reports whether no member comes back with the spec.
func isSpoiled(spec *v1beta1.EtcdClusterSpec) bool {
	memory := spec.Resources.Limits.Memory()
	return spec.Image.Tag != "" || !memory.IsZero() && memory.Value() < 64<<20 || spec.PodTemplate != nil && len(spec.PodTemplate.Spec.NodeSelector) > 0
}

// correct makes a spoiled spec one with which members come back.
func correct(spec *v1beta1.EtcdClusterSpec) {
	tagged("")(spec)
	onNoNode(false)(spec)
	limited("1Gi")(spec)
}

// rollEvents are what users do that restarts members, and the drains of their nodes.
func (h *history) rollEvents() map[string]func(*rapid.T) {
	rolls := func(t *rapid.T) { h.editOneOf(t, rolled) }
	return map[string]func(*rapid.T){
		"the pod template changes":       rolls,
		"the pod template changes again": rolls,
		"the spec is spoiled":            func(t *rapid.T) { h.editOneOf(t, spoiled) },
		"a spoiled spec is corrected": func(t *rapid.T) {
			if !isSpoiled(&h.spec) {
				t.Skip("it is not spoiled")
			}
			h.editSpec(t, correct)
		},
		"a restart is asked for": func(t *rapid.T) {
			h.needsCluster(t)
			h.askForRestart()
		},
		"another release made the pods": func(*rapid.T) {
			for _, pod := range h.pods() {
				simulation.Edit(h.World, pod, func(p *corev1.Pod) { p.Annotations[cluster.AnnotationRenderHash] = "another" })
			}
		},
		"pods of another release are to be rolled, or not": func(t *rapid.T) {
			h.editSpec(t, func(spec *v1beta1.EtcdClusterSpec) {
				if spec.UpdateStrategy != nil {
					spec.UpdateStrategy = nil
					return
				}
				spec.UpdateStrategy = &v1beta1.UpdateStrategy{OperatorUpgrade: v1beta1.OperatorUpgradeRoll}
			})
		},
		"every node is drained, one after the other": func(t *rapid.T) {
			tries := rapid.IntRange(1, 4).Draw(t, "tries")
			for _, pod := range h.pods() {
				for n := 0; n < tries && !h.drain(pod); n++ {
					h.quickWork()
				}
				h.RunPod(pod)
			}
		},
	}
}

// drain evicts a pod, as kubectl drain does, and reports whether it is going.
func (h *history) drain(pod *corev1.Pod) bool {
	user := &simulation.Conn{Server: h.Server}
	if live, ok := simulation.Object[*corev1.Pod](h.World, pod.Namespace, pod.Name); !ok || live.UID != pod.UID {
		return true
	}
	alive := h.quorums()
	if user.SubResource("eviction").Create(quiet, pod.DeepCopy(), &policyv1.Eviction{}) != nil {
		return false
	}
	h.forgive(pod)
	h.checkDrained(pod, alive)
	return true
}

// quorums are the clusters that have a quorum of members that run and whose pods are not going, by cluster ID.
func (h *history) quorums() map[cluster.ID]bool {
	has := map[cluster.ID]bool{}
	for _, pod := range h.pods() {
		if h.Runs(pod) {
			voters, left := h.stayingVoters(pod)
			has[h.clusterID(pod)] = left >= cluster.Quorum(voters)
		}
	}
	return has
}

// stayingVoters counts the voters of a pod's cluster, and those that serve and whose pods are not going.
func (h *history) stayingVoters(pod *corev1.Pod) (voters, staying int) {
	all := h.Etcd.Voters(h.Address(pod))
	for _, v := range all {
		if v.Alive && !h.isGoing(v.Name) {
			staying++
		}
	}
	return len(all), staying
}

// checkDrained fails where the budget let a drain cost the quorum. At size 1 there is no budget.
func (h *history) checkDrained(pod *corev1.Pod, before map[cluster.ID]bool) {
	voters, staying := h.stayingVoters(pod)
	budgeted := len(simulation.Objects[*policyv1.PodDisruptionBudget](h.World)) == 1
	if before[h.clusterID(pod)] && voters > 1 && staying < cluster.Quorum(voters) && budgeted && !h.forgot && !h.byHand && len(h.refused) == 0 {
		h.wrong("the drain of %s leaves %d of %d voters", pod.Name, staying, voters)
	}
}

// checkClaimed fails where the operator takes down the pod of a member that it did not claim.
func (h *history) checkClaimed(o *operator, call *simulation.Call, pod *corev1.Pod) {
	op := h.cluster().Status.Operation
	if pod.Labels[cluster.LabelImageCheck] != "" {
		return
	}
	if !o.late && !h.wiped && (op == nil || op.Member != memberOf(pod) && op.Type != v1beta1.OperationBootstrap) {
		h.wrong("%s, and the claim is %+v", call, op)
	}
}

// checkConfigured fails where a member at rest runs with something else than the spec says.
func (h *history) checkConfigured() {
	want := cluster.IntentOf(h.cluster())
	for _, set := range h.sets() {
		if !h.isListed(set.Name) {
			continue // a user removed it
		}
		have, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent])
		if err != nil {
			h.wrong("the intent of %s: %v", set.Name, err)
			continue
		}
		if paths := have.Differences(want.WithRestartOf(have)); len(paths) > 0 {
			h.wrong("at rest %s has another %s than the spec", set.Name, strings.Join(paths, ", "))
		}
		pod, ok := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(set.Name))
		if ok && pod.Annotations[cluster.AnnotationIntentHash] != set.Annotations[cluster.AnnotationIntentHash] {
			h.wrong("at rest the pod of %s was not made from its StatefulSet", set.Name)
		}
	}
}

// defects are the tags of images that do not run.
var defects = []string{simulation.TagCrashes, simulation.TagHangs, simulation.TagUnpullable}

func hasDefect(image string) bool {
	return slices.ContainsFunc(defects, func(tag string) bool { return strings.HasSuffix(image, tag) })
}

// judgeSilence stops the checks where no member serves, and the operator cannot tell whether another spec would help.
// Several that hang may replay their logs. And with an image that does not run, no member goes to another minor
// version: its user must ask for the version that they had, with an image that runs.
func (h *history) judgeSilence() { h.harmed = h.harmed || h.isSilent() }

// isSilent reports whether no member serves, and some cannot be helped: see judgeSilence.
func (h *history) isSilent() bool {
	op := h.cluster().Status.Operation
	founds := op != nil && op.Type == v1beta1.OperationBootstrap
	isDefective := func(set *appsv1.StatefulSet) bool {
		image := set.Spec.Template.Spec.Containers[0].Image
		intent, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent])
		waits := err == nil && !cluster.SameMinor(intent.Version, h.spec.Version)
		return strings.HasSuffix(image, simulation.TagHangs) && (founds || len(h.sets()) > 1) || hasDefect(image) && waits
	}
	return h.servingAddress() == "" && slices.ContainsFunc(h.sets(), isDefective)
}

func (h *history) askForRestart() {
	wish := "restart-" + h.Next()
	h.editCluster(func(c *v1beta1.EtcdCluster) {
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1beta1.RestartAnnotation, wish)
	})
}

// restsAfterLoss lets a cluster come to rest. If a member went back because its node was lost for too long, or its
// container ended and no kubelet started it again, the user tries what the spec asks for again, as the condition says.
func (h *history) restsAfterLoss() (rested bool) {
	rested = h.rest()
	d := h.progressing()
	byFault := strings.Contains(d.Message, "("+v1beta1.ReasonUnschedulable+")") || strings.Contains(d.Message, "has not failed, but its etcd does not answer")
	if d.Reason != v1beta1.ReasonRolledBack || !byFault {
		return rested
	}
	h.askForRestart()
	return h.rest()
}

// restsSpoiled lets a cluster with a spoiled spec come to rest: those that were healthy serve, and the user is told.
// Then the user corrects the spec.
func (h *history) restsSpoiled() (rested bool) {
	if !isSpoiled(&h.spec) {
		rested = !h.isSilent() || h.rest()
		h.judgeSilence()
		return rested
	}
	rested = h.rest()
	told := []string{
		v1beta1.ReasonRolledBack, v1beta1.ReasonDeadlineExceeded, v1beta1.ReasonUpToDate, v1beta1.ReasonBootstrapping,
		v1beta1.ReasonMembersNotHealthy, v1beta1.ReasonScaling, v1beta1.ReasonVersionSkipped, v1beta1.ReasonVersionMismatch,
		v1beta1.ReasonForeignDowngrade, v1beta1.ReasonCheckingImage, v1beta1.ReasonImageNotUsable,
	}
	if strings.Contains(h.progressing().Message, "No member has started yet, and this release does not change a cluster that was created") {
		h.harmed = true // its user is told to make the cluster again
	}
	if decided := h.progressing(); rested && !h.harmed && !slices.Contains(told, decided.Reason) {
		h.wrong("with a spoiled spec it rests, and tells %s: %s", decided.Reason, decided.Message)
	}
	h.judgeSilence()
	correct(&h.spec)
	h.editCluster(func(c *v1beta1.EtcdCluster) { correct(&c.Spec) })
	return rested
}
