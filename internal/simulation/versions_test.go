package simulation_test

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"pgregory.net/rapid"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// wantedVersions are those that users ask for. Some steps skip a minor version.
var wantedVersions = []string{"3.5.35", "3.6.12", "3.6.16", "3.7.1", "3.7.3"}

// versionFaults are what the oracle knows of versions.
type versionFaults struct {
	// foreign tells that a user enabled a downgrade.
	foreign bool
}

// changeVersion is a user who asks for a version. It is a patch of the same minor version while a volume does not tell
// which version wrote its data: the operator cannot know it either where the StatefulSet is deleted.
func (h *history) changeVersion(t *rapid.T) {
	version := rapid.SampledFrom(wantedVersions).Draw(t, "version")
	isUnknown := func(claim *corev1.PersistentVolumeClaim) bool {
		return h.Etcd.HasData(h.Disk(claim)) && claim.Annotations[cluster.AnnotationEtcdVersion] == ""
	}
	c := h.needsCluster(t)
	isKnown := c.Status.ClusterID != "" && !slices.ContainsFunc(h.claims(), isUnknown)
	if !isKnown && !cluster.SameMinor(c.Spec.Version, version) {
		t.Skip("nobody knows what version its members run")
	}
	h.editSpec(t, func(spec *v1beta1.EtcdClusterSpec) { setVersion(spec, version) })
}

// setVersion sets the version. A tag that was asked for follows.
func setVersion(spec *v1beta1.EtcdClusterSpec, version string) {
	_, suffix, isTagged := strings.Cut(spec.Image.Tag, "-")
	if spec.Version = version; isTagged {
		tagged("-" + suffix)(spec)
	}
}

// versionEvents are what users do with the version, and with etcd's downgrades.
func (h *history) versionEvents() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"the version changes": func(t *rapid.T) { h.changeVersion(t) },
		"the version changes, and the operator works": func(t *rapid.T) {
			h.changeVersion(t)
			for range rapid.IntRange(1, 12).Draw(t, "rounds") {
				h.quickWork()
				h.wait(5 * etcd.ChangeTimeout)
			}
		},
		"a user enables a downgrade": func(t *rapid.T) {
			address := h.servingAddress()
			if address == "" || h.Etcd.EnableDowngrade(address) != nil {
				t.Skip("none serves, or etcd refuses it")
			}
			h.foreign = true
		},
	}
}

// cancelForeignDowngrade is the user, who does what the condition says. The operator's own is foreign to it once a user
// has deleted the Service that has the note.
func (h *history) cancelForeignDowngrade() {
	h.checkVersions()
	if address := h.servingAddress(); address != "" && (h.foreign || h.progressing().Reason == v1beta1.ReasonForeignDowngrade) {
		h.foreign = h.Etcd.CancelDowngrade(address) != nil
	}
}

// checkVersions fails where a process ended because its binary did not fit, or where the members of an etcd cluster are
// more than one minor version apart.
func (h *history) checkVersions() {
	for _, unfit := range h.Etcd.TakeUnfit() {
		if !h.foreign && !h.isTriedOnce(unfit.ClusterID, unfit.Name) { // what joins while a user enables a downgrade ends
			h.wrong("etcd %s of %s ends: %v", unfit.Version, unfit.Name, unfit.Err)
		}
	}
	for id, versions := range h.Etcd.RunningVersions() {
		if steps, _ := cluster.MinorSteps(slices.Min(versions), slices.Max(versions)); steps > 1 {
			h.wrong("the members of etcd cluster %s run %v", id, versions)
		}
	}
}

// checkStartedVersion fails where an older etcd starts over newer data. Both versions of the data must be low: 3.5
// starts over data that a downgrade has not lowered yet, so checkVersions does not find that.
func (h *history) checkStartedVersion(start fake.StartOptions) {
	id, has := h.Etcd.DataVersion(start.Volume)
	if steps, known := cluster.MinorSteps(has, start.Version); known && steps < 0 && !h.isTriedOnce(id, start.Name) {
		h.wrong("%s starts with etcd %s over data of %s", start.Name, start.Version, has)
	}
}

// isTriedOnce reports whether a member is the only one, and goes back to what it ran with, or starts with what its
// volume was last seen with: only its own data can tell whether they are too new for that.
func (h *history) isTriedOnce(id cluster.ID, member string) bool {
	voters, _ := h.Etcd.Quorum(id)
	set, ok := simulation.Object[*appsv1.StatefulSet](h.World, key.Namespace, member)
	if voters != 1 || !ok {
		return false
	}
	operation, _, _ := cluster.MarkedOperation(set.Annotations[cluster.AnnotationOperation])
	claim := h.claimOf(member)
	intent, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent])
	isRecorded := claim != nil && err == nil && cluster.SameMinor(claim.Annotations[cluster.AnnotationEtcdVersion], intent.Version)
	return operation == v1beta1.OperationRollBack || isRecorded
}

// checkJoin fails where the operator adds a member while a downgrade is enabled.
func (h *history) checkJoin(o *operator, call *simulation.Call, id cluster.ID) {
	if target := h.Etcd.Downgrade(id); call.Verb == addLearner && target != "" && !o.late && !h.wiped {
		h.wrong("%s while a downgrade to %s is enabled", call, target)
	}
}

// checkDowngradeEnded fails where a downgrade is enabled at rest.
func (h *history) checkDowngradeEnded() {
	address := h.servingAddress()
	if address == "" || len(h.broken) > 0 {
		return
	}
	if target := h.Etcd.Downgrade(h.Etcd.ClusterID(address)); target != "" && !h.harmed {
		h.wrong("at rest a downgrade to %s is enabled", target)
	}
}

// skipped returns the version to go to first, where the version of the spec skips a minor version of a member; empty
// where it skips none.
func (h *history) skipped() string {
	for _, set := range h.sets() {
		if have, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent]); err == nil {
			if between := cluster.VersionBetween(have.Version, h.spec.Version); between != "" {
				return between
			}
		}
	}
	return ""
}

// restsBlocked lets a cluster whose spec skips a minor version come to rest: nobody runs it, and the user is told. Then
// the user asks for the version to go to first.
func (h *history) restsBlocked() (rested bool) {
	between := h.skipped()
	if between == "" {
		return h.readsVolumes()
	}
	rested = h.rest()
	if between = h.skipped(); between == "" {
		return rested
	}
	blocked := meta.FindStatusCondition(h.cluster().Status.Conditions, v1beta1.ConditionUpgradeBlocked)
	if rested && !h.harmed && (blocked == nil || blocked.Reason != v1beta1.ReasonVersionSkipped || !strings.Contains(blocked.Message, between)) {
		h.wrong("the spec has %s, and it rests and tells %+v", h.spec.Version, blocked)
	}
	for _, pod := range h.pods() {
		if h.runs(pod, h.spec.Version) {
			h.wrong("%s runs %s, which skips a minor version", pod.Name, h.spec.Version)
		}
	}
	h.bringTo(between)
	return rested
}

func (h *history) runs(pod *corev1.Pod, version string) bool {
	return h.Runs(pod) && strings.HasSuffix(pod.Spec.Containers[0].Image, ":v"+version)
}

// readsVolumes lets a cluster come to rest that is to start volumes of another minor version. Then the user asks for
// the version that the volumes have.
func (h *history) readsVolumes() (rested bool) {
	other := ""
	for _, claim := range h.claims() {
		if has := claim.Annotations[cluster.AnnotationEtcdVersion]; has != "" && !cluster.SameMinor(has, h.spec.Version) {
			other = max(other, has)
		}
	}
	if other == "" {
		return true
	}
	rested = h.rest()
	if wanted := h.spec.Version; h.progressing().Reason == v1beta1.ReasonVersionMismatch {
		h.bringTo(other)
		if h.rest(); strings.Contains(h.progressing().Message, "a newer minor version has changed them") {
			h.bringTo(wanted) // it ran on them, and nobody saw it
		}
	}
	return rested
}
