package observe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// removalTime is how long a living node may take to remove a pod whose time to end is over.
const removalTime = 30 * time.Second

// assembly puts the listed objects together, member by member.
type assembly struct {
	snapshot *cluster.Snapshot
	members  map[string]*cluster.Member
	// orphans are the pods without an owner, by the member that they name.
	orphans map[string]*cluster.Pod
	// unreadable are the StatefulSets that are the cluster's own and cannot be understood.
	unreadable map[types.UID]bool
}

func newAssembly(s *cluster.Snapshot) *assembly {
	return &assembly{snapshot: s, members: map[string]*cluster.Member{}, orphans: map[string]*cluster.Pod{}, unreadable: map[types.UID]bool{}}
}

func (a *assembly) member(name string) *cluster.Member {
	m, ok := a.members[name]
	if !ok {
		m = &cluster.Member{Name: name}
		a.members[name] = m
	}
	return m
}

// addVolume takes a volume of this cluster, or one that an earlier cluster of its name left. A volume that is deleted
// with the earlier one is waited for: Kubernetes deletes it, even if this cluster used it by then.
func (a *assembly) addVolume(claim *corev1.PersistentVolumeClaim) {
	name := claim.Labels[cluster.LabelMember]
	if claim.Annotations[cluster.AnnotationClusterUID] == "" || claim.Name != cluster.VolumeName(name) {
		a.snapshot.ForeignObjects = append(a.snapshot.ForeignObjects, cluster.ForeignObjectOf(a.snapshot.Cluster, "PersistentVolumeClaim", claim))
		return
	}
	v := volumeOf(claim)
	switch {
	case v.ClusterUID == a.snapshot.Cluster.UID:
		a.member(name).Volume = &v
	case v.DeletedWith != "":
		a.snapshot.ForeignObjects = append(a.snapshot.ForeignObjects, cluster.ForeignObject{
			Kind: "PersistentVolumeClaim", Name: claim.Name, Owner: "is deleted with the cluster that was deleted", Terminating: true,
		})
	default:
		a.snapshot.RetainedVolumes = append(a.snapshot.RetainedVolumes, v)
	}
}

// addRecord takes the ConfigMap of a member whose data are in memory. One of another EtcdCluster of this name has no
// data behind it: nothing is taken back.
func (a *assembly) addRecord(record *corev1.ConfigMap) {
	name := record.Labels[cluster.LabelMember]
	if record.Name != cluster.VolumeName(name) {
		return
	}
	if !cluster.Owns(a.snapshot.Cluster, record) {
		a.snapshot.ForeignObjects = append(a.snapshot.ForeignObjects, cluster.ForeignObjectOf(a.snapshot.Cluster, "ConfigMap", record))
		return
	}
	v := rememberedBy(record)
	v.InMemory, v.Phase, v.Accepted = true, corev1.ClaimBound, "" // nothing can be accepted in place of what is gone
	v.RequestedBytes, _ = strconv.ParseInt(record.Annotations[cluster.AnnotationMemoryBytes], 10, 64)
	a.member(name).Volume = &v
}

func volumeOf(claim *corev1.PersistentVolumeClaim) cluster.Volume {
	v := rememberedBy(claim)
	request := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	v.RequestedBytes = request.Value()
	v.StorageClass, v.AccessModes = ptr.Deref(claim.Spec.StorageClassName, ""), claim.Spec.AccessModes
	v.Phase = claim.Status.Phase
	v.Identity = cluster.VolumeIdentity{Claim: claim.UID, Name: claim.Spec.VolumeName}
	return v
}

// rememberedBy reads the durable memory on a claim, or on the ConfigMap of a member in memory.
func rememberedBy(object client.Object) cluster.Volume {
	memory := object.GetAnnotations()
	v := cluster.Volume{
		Name:            object.GetName(),
		Member:          object.GetLabels()[cluster.LabelMember],
		UID:             object.GetUID(),
		ResourceVersion: object.GetResourceVersion(),
		Deleting:        object.GetDeletionTimestamp() != nil,
		CreatedAt:       object.GetCreationTimestamp().Time,
		Remembered:      rememberedVolume(memory),
		Accepted:        memory[v1beta1.AcceptVolumeAnnotation],
		StartedBy:       cluster.StartEvidence(memory[cluster.AnnotationStarted]),
		DeletedWith:     cluster.DeletedWith(object),
		ClusterUID:      types.UID(memory[cluster.AnnotationClusterUID]),
		Token:           memory[cluster.AnnotationClusterToken],
		ClusterID:       cluster.ParseID(memory[cluster.AnnotationClusterID]),
		MemberID:        cluster.ParseID(memory[cluster.AnnotationMemberID]),
		PeerURL:         memory[cluster.AnnotationPeerURL],
		Version:         cluster.ForeignText(memory[cluster.AnnotationEtcdVersion]),
		Retired:         memory[cluster.AnnotationMembership] == cluster.MembershipRetired,
	}
	v.Removing = cluster.ParseID(memory[cluster.AnnotationRemoving])
	v.Founders = split(memory[cluster.AnnotationFoundingMembers])
	v.JoinedCluster = memory[cluster.AnnotationJoinedCluster]
	v.Members = split(memory[cluster.AnnotationMembers])
	return v
}

func rememberedVolume(memory map[string]string) cluster.VolumeIdentity {
	remembered := cluster.ParseVolumeIdentity(memory[cluster.AnnotationVolume])
	remembered.UID = types.UID(memory[cluster.AnnotationVolumeUID])
	remembered.Source = memory[cluster.AnnotationVolumeSource]
	return remembered
}

// addWorkload takes a StatefulSet of this cluster. If its intent cannot be read, it is refused like a foreign one.
func (a *assembly) addWorkload(set *appsv1.StatefulSet) {
	if !cluster.Owns(a.snapshot.Cluster, set) {
		a.snapshot.ForeignObjects = append(a.snapshot.ForeignObjects, cluster.ForeignObjectOf(a.snapshot.Cluster, "StatefulSet", set))
		return
	}
	intent, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent])
	if err != nil {
		a.unreadable[set.UID] = true
		a.snapshot.ForeignObjects = append(a.snapshot.ForeignObjects, cluster.ForeignObject{
			Kind: "StatefulSet", Name: set.Name, Owner: "its annotation " + cluster.AnnotationIntent + " cannot be read",
			Advice: "Delete it while the other members are healthy. The operator creates it again over the same volume, " +
				"and the member is down for some seconds.",
		})
		return
	}
	a.member(set.Name).Workload = &cluster.Workload{
		Intent:        intent,
		IntentHash:    set.Annotations[cluster.AnnotationIntentHash],
		HealthyIntent: healthyIntentOf(set, intent),
		StartsEmpty:   render.StartsEmpty(set.Spec.Template.Annotations),
		MemoryBytes:   render.MemoryBytes(&set.Spec.Template),
		Deleting:      set.DeletionTimestamp != nil,
		Live:          set,
	}
}

// healthyIntentOf returns the intent under which the member was last healthy. One that cannot be read is not known.
func healthyIntentOf(set *appsv1.StatefulSet, present cluster.Intent) *cluster.Intent {
	switch text := set.Annotations[cluster.AnnotationHealthyIntent]; text {
	case "":
		return nil
	case set.Annotations[cluster.AnnotationIntent]:
		return &present
	default:
		if healthy, err := cluster.DecodeIntent(text); err == nil {
			return &healthy
		}
		return nil
	}
}

// addPod takes a pod of one of the cluster's own StatefulSets. A pod of a deleted StatefulSet of the same name is not a
// member's; until it is gone the Services would lead to it.
func (a *assembly) addPod(pod *corev1.Pod) {
	owner, p := metav1.GetControllerOf(pod), podOf(pod)
	if owner == nil {
		a.orphans[pod.Labels[cluster.LabelMember]] = &p
		return
	}
	if a.unreadable[owner.UID] {
		return
	}
	hasEnded := p.Phase == corev1.PodSucceeded || p.Phase == corev1.PodFailed // the kubelet said so
	switch isLate := p.Deleting && pod.DeletionTimestamp.Time.Add(removalTime).Before(a.snapshot.Now); {
	case isLate && !hasEnded:
		p.NodeLost = true
	case isLate && len(pod.Finalizers) > 0:
		p.FailureReason = v1beta1.ReasonPodHeld
		p.FailureDetail = fmt.Sprintf("its pod %s has ended, and its finalizers keep it: %s. Find out what should remove them",
			pod.Name, cluster.ForeignText(strings.Join(pod.Finalizers, ", ")))
	}
	m, ok := a.members[pod.Labels[cluster.LabelMember]]
	switch {
	case ok && m.Workload != nil && owner.UID == m.Workload.Live.UID:
		m.Pod = &p
	case ok && m.Volume != nil && m.Volume.Removing != 0 && markedByNode(pod):
		// Kubernetes keeps it until the node is back. What it is a pod of is no member any more.
	case !p.NodeLost && !hasEnded:
		a.snapshot.ForeignObjects = append(a.snapshot.ForeignObjects, cluster.ForeignObject{
			Kind: "Pod", Name: pod.Name, Owner: "belongs to a deleted StatefulSet", Terminating: true,
		})
	}
}

// podWithMemory returns the pod that has the data of a member in its memory. Where a StatefulSet was deleted and its
// pod left alone, that pod has no owner until a StatefulSet is there again, which takes it. The record knows it by its
// UID.
func (a *assembly) podWithMemory(m *cluster.Member) *cluster.Pod {
	if orphan := a.orphans[m.Name]; m.Pod == nil && orphan != nil && orphan.UID == m.Volume.Remembered.Claim {
		return orphan
	}
	return m.Pod
}

// finish tells members and left-overs apart, and orders everything by number.
func (a *assembly) finish() {
	s := a.snapshot
	for _, m := range a.members {
		if m.Volume != nil && m.Volume.InMemory {
			m.Volume.Identity = cluster.MemoryOf(a.podWithMemory(m))
		}
		s.Members = append(s.Members, *m)
	}
	s.SortMembers()
	slices.SortFunc(s.RetainedVolumes, func(x, y cluster.Volume) int { return cluster.CompareMembers(s.Cluster.Name, x.Member, y.Member) })
	slices.SortFunc(s.ForeignObjects, func(x, y cluster.ForeignObject) int { return strings.Compare(x.Kind+x.Name, y.Kind+y.Name) })
}
