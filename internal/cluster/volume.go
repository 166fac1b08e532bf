package cluster

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// StartEvidence is what showed that a member started. Values are stored on volumes, so none is ever renamed.
type StartEvidence string

// What can show that a member started.
const (
	StartedByAnswer     StartEvidence = "Answer"     // the member's own answer
	StartedByMemberList StartEvidence = "MemberList" // its client URLs in the list of another member
	StartedByReadiness  StartEvidence = "Readiness"  // the readiness probe of its etcd container
)

// VolumeIdentity tells one volume from another.
type VolumeIdentity struct {
	// Claim is the UID of the PersistentVolumeClaim.
	Claim types.UID
	// Name is that of the PersistentVolume; empty while the claim is not bound.
	Name string
	// UID is that of the PersistentVolume. It is empty where PersistentVolumes may not be read, and where the operator
	// had no reason to read it: claim and name are the recorded ones.
	UID types.UID
	// Source is where the data lies: csi://DRIVER/HANDLE, or local://NODE/PATH. It is empty for other kinds of volumes,
	// and where the UID is.
	Source string
}

// String returns the identity as the annotations hold it: CLAIMUID/PVNAME.
func (i VolumeIdentity) String() string { return string(i.Claim) + "/" + i.Name }

// ParseVolumeIdentity reads an identity as String returns it; a text of another form is none.
func ParseVolumeIdentity(text string) VolumeIdentity {
	claim, name, ok := strings.Cut(text, "/")
	if !ok || claim == "" || name == "" {
		return VolumeIdentity{}
	}
	return VolumeIdentity{Claim: types.UID(claim), Name: name}
}

// SameVolume reports whether present is the volume that a member started on. A copy, a snapshot or a restore of it is
// another volume: an old log under an old member ID votes acknowledged writes away. Where either is not known, it is
// not the same.
// Where both UIDs of the PersistentVolume are known, they decide. So a claim that was made again may hold the same
// volume, and a PersistentVolume that was made again is another one, whatever its name and source.
// Otherwise claim and name decide together: the name alone may stand for other data.
func SameVolume(remembered, present VolumeIdentity) bool {
	switch {
	case remembered.Name == "" || present.Name == "":
		return false
	case remembered.UID != "" && present.UID != "":
		return remembered.UID == present.UID
	default:
		return remembered.Claim == present.Claim && remembered.Name == present.Name
	}
}

// InMemoryName stands for the name of the PersistentVolume where the data are in memory. The claim is then the pod.
const InMemoryName = "memory"

// MemoryOf returns the identity of the data that a pod has in memory. They go with the pod.
func MemoryOf(pod *Pod) VolumeIdentity {
	if pod == nil || pod.Deleting || pod.Phase == corev1.PodSucceeded || pod.Phase == corev1.PodFailed {
		return VolumeIdentity{}
	}
	return VolumeIdentity{Claim: pod.UID, Name: InMemoryName}
}

// IsReplaced reports whether the claim stands for another volume than the one that the member started on, and the user
// did not accept it. The member then never starts.
func (v *Volume) IsReplaced() bool {
	return v != nil && v.Remembered.Name != "" && !SameVolume(v.Remembered, v.Identity) && !v.IsAccepted()
}

// IsAccepted reports whether the user accepts the volume that the claim stands for now.
func (v *Volume) IsAccepted() bool { return v.Identity.Name != "" && v.Accepted == v.Identity.String() }

// HasData reports whether the volume of an earlier cluster may have data: a claim that was never bound has none.
func (v *Volume) HasData() bool {
	return v.Started() || v.Phase != corev1.ClaimPending || v.Identity.Name != ""
}

// NeverStarted reports whether the volume is that of a member that is being added and was never seen started.
// It counts for no quorum: a learner is promoted only after it was recorded as started.
func (v *Volume) NeverStarted() bool { return v != nil && !v.Started() && len(v.Founders) == 0 }
