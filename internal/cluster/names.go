// Package cluster holds the nouns: what one pass of the operator knows about an etcd cluster, as plain data.
package cluster

import (
	"strconv"
	"strings"
)

// Labels and annotations that the operator writes. They are stored, so none is ever renamed; later releases may add
// some.
const (
	Prefix = "operator.etcd-warden.io/"

	LabelName      = "app.kubernetes.io/name"
	LabelInstance  = "app.kubernetes.io/instance"
	LabelManagedBy = "app.kubernetes.io/managed-by"
	LabelCluster   = Prefix + "cluster"
	LabelMember    = Prefix + "member"
	// LabelImageCheck has the name of the cluster, on the pod that looks at an image. No selector has it.
	LabelImageCheck = Prefix + "image-check"

	// NameValue and ManagedByValue are the values of LabelName and LabelManagedBy.
	NameValue      = "etcd"
	ManagedByValue = "etcd-warden"

	// On PersistentVolumeClaims: the durable memory.
	AnnotationClusterUID      = Prefix + "cluster-uid"      // UID of the EtcdCluster that uses the volume
	AnnotationClusterToken    = Prefix + "cluster-token"    // etcd's initial-cluster-token of the founding
	AnnotationFoundingMembers = Prefix + "founding-members" // names, in order, separated by commas
	AnnotationJoinedCluster   = Prefix + "joined-cluster"   // etcd's initial-cluster of a member that was added later
	AnnotationMembers         = Prefix + "members"          // names of etcd's members when last seen, separated by commas
	AnnotationClusterID       = Prefix + "cluster-id"       // hexadecimal; written once the member was seen started
	AnnotationMemberID        = Prefix + "member-id"        // hexadecimal; written with the cluster ID
	AnnotationPeerURL         = Prefix + "peer-url"         // by which the peers know the member
	AnnotationEtcdVersion     = Prefix + "etcd-version"     // last version seen running on the volume
	AnnotationMembership      = Prefix + "membership"       // MembershipCurrent or MembershipRetired
	AnnotationRemoving        = Prefix + "removing"         // ID of the member that the operator removes, noted before
	AnnotationStarted         = Prefix + "started"          // a StartEvidence; set once, and never changed
	AnnotationVolume          = Prefix + "volume"           // the member's volume: CLAIMUID/PVNAME
	AnnotationVolumeUID       = Prefix + "volume-uid"       // UID of its PersistentVolume, where that may be read
	AnnotationVolumeSource    = Prefix + "volume-source"    // of its PersistentVolume: see VolumeIdentity.Source

	// On ConfigMaps, which are the durable memory of members in memory, beside those above: ADR 0007.
	AnnotationMemoryBytes = Prefix + "memory-bytes" // how much memory the data may take

	MembershipCurrent = "Current"
	MembershipRetired = "Retired"

	// On the Service of the peers.
	AnnotationNextMember = Prefix + "next-member" // number of the next member, above all that were ever used
	AnnotationDowngrade  = Prefix + "downgrade"   // minor version of the downgrade that the operator enabled last
	AnnotationLogRenewal = Prefix + "log-renewal" // LogRenewalBegun or LogRenewalDone
	AnnotationCompared   = Prefix + "compared"    // see ComparisonNote

	// LogRenewalBegun tells that a downgrade is enabled only to have every member write a snapshot of its log, and
	// LogRenewalDone that they have. It counts until etcd 3.5 runs again.
	LogRenewalBegun = "Begun"
	LogRenewalDone  = "Done"

	// On StatefulSets.
	AnnotationIntent        = Prefix + "intent"         // JSON of the Intent that the template was made from
	AnnotationHealthyIntent = Prefix + "healthy-intent" // JSON of the Intent under which the member was last healthy
	AnnotationOperation     = Prefix + "operation"      // the restart that last wrote the template: see OperationMark
	AnnotationFailedIntent  = Prefix + "failed-intent"  // see FailedIntent

	// On the pod that looks at an image.
	AnnotationImageTarget = Prefix + "image-target" // see ImageTarget

	// On StatefulSets, pod templates and pods.
	AnnotationIntentHash = Prefix + "intent-hash" // of what the pods depend on in the Intent

	// On pod templates and pods.
	AnnotationRenderHash          = Prefix + "render-hash"           // of the template in its started form
	AnnotationInitialCluster      = Prefix + "initial-cluster"       // on pods that may start empty: ADR 0002
	AnnotationInitialClusterState = Prefix + "initial-cluster-state" // with the one above

	AnnotationPeerAuthorities   = Prefix + "peer-authorities"   // authorities whose peers the pod trusts: fingerprints
	AnnotationClientAuthorities = Prefix + "client-authorities" // authorities whose clients the pod trusts: fingerprints

	// On pods only.
	AnnotationResize = Prefix + "resize" // a change of resources without a restart, while it lasts: see ResizeMark

	// On the Secrets of managed authorities.
	AnnotationAuthorityPhase = Prefix + "authority-phase" // a Phase, while more than one authority is trusted
	AnnotationAuthoritySince = Prefix + "authority-since" // when every Secret had followed into the phase

	// On EtcdClusters, only in the operator's cache.
	AnnotationMetadataHash = Prefix + "metadata-hash" // of all labels and annotations, so that a user's change is noticed

	// On Services, PodDisruptionBudgets and cert-manager's Certificates.
	AnnotationAppliedHash = Prefix + "applied-hash" // of the object as it was applied
)

// GateInMemory is the scheduling gate of pods whose data are in memory. The operator removes it from one pod of a
// member only (docs/adr/0007).
const GateInMemory = Prefix + "in-memory"

// Ports of a member.
const (
	ClientPort  = 2379
	PeerPort    = 2380
	MetricsPort = 2381
)

// ClientServiceName returns the name of the Service that clients use.
func ClientServiceName(cluster string) string { return cluster + "-client" }

// PeerServiceName returns the name of the headless Service that members find each other by.
func PeerServiceName(cluster string) string { return cluster }

// MemberName returns the name of a cluster's member by its number; StatefulSet and etcd member carry it.
func MemberName(cluster string, number int) string { return cluster + "-" + strconv.Itoa(number) }

// PodName returns the name of a member's pod.
func PodName(member string) string { return member + "-0" }

// VolumeName returns the name of a member's PersistentVolumeClaim.
func VolumeName(member string) string { return "data-" + member }

// MemberNumber returns the number in a member's name, and false if the name is not one of the cluster's members.
func MemberNumber(cluster, member string) (int, bool) {
	digits, ok := strings.CutPrefix(member, cluster+"-")
	if !ok {
		return 0, false
	}
	number, err := strconv.Atoi(digits)
	if err != nil || number < 0 || strconv.Itoa(number) != digits {
		return 0, false
	}
	return number, true
}

// MemberHost returns the DNS name of a member's pod. Without a domain it ends in ".svc", and search paths complete it.
func MemberHost(namespace, cluster, member, domain string) string {
	host := PodName(member) + "." + PeerServiceName(cluster) + "." + namespace + ".svc"
	if domain != "" {
		host += "." + domain
	}
	return host
}

// CompareMembers orders two member names by their numbers. Names that are not members of the cluster come last, by
// name.
func CompareMembers(cluster, a, b string) int {
	na, oka := MemberNumber(cluster, a)
	nb, okb := MemberNumber(cluster, b)
	switch {
	case oka && okb:
		return na - nb
	case oka:
		return -1
	case okb:
		return 1
	default:
		return strings.Compare(a, b)
	}
}
