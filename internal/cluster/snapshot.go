package cluster

import (
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// ID is etcd's 64-bit identifier of a cluster or a member; zero means not known.
type ID uint64

// String returns the identifier as etcd prints it: hexadecimal without leading zeros.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 16) }

// ParseID reads an identifier as String wrote it; what cannot be read is zero.
func ParseID(text string) ID {
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0
	}
	return ID(n)
}

// Snapshot is what one pass knows, the time included. Everything decided in the pass is decided from it.
type Snapshot struct {
	// Now is when the snapshot was taken.
	Now time.Time
	// Cluster as the user wrote it, with the status of the last pass.
	Cluster *v1beta1.EtcdCluster
	// JustCreated tells that nothing was made for the cluster yet, as far as the caches know.
	// The Secrets that the operator would make were not read: they are created first.
	JustCreated bool
	// Members is the membership, ordered by number: see SortMembers.
	Members []Member
	// LeftOvers are the objects of this cluster that belong to no member, by name and ordered by number.
	LeftOvers []Member
	// RetainedVolumes are volumes that an earlier EtcdCluster of this name left, ordered by number.
	RetainedVolumes []Volume
	// ClientService, PeerService and Budget are the live objects of this cluster, nil where there are none.
	ClientService, PeerService *corev1.Service
	Budget                     *policyv1.PodDisruptionBudget
	// ImageCheck is the pod that looks at the image of another version, nil where there is none.
	ImageCheck *ImageCheck
	// OperatorImage is the operator's own image; empty where it does not run in a pod. Then no image is looked at.
	OperatorImage string
	// ForeignObjects are objects of names that this cluster needs and that are not its own.
	ForeignObjects []ForeignObject
	// StorageClassMissing tells that the StorageClass which the spec names does not exist; without a name, that no
	// class is the default. It is looked up before the first volume is made only.
	StorageClassMissing bool
	// Membership is etcd's own member list, nil when no voter answered.
	Membership *Membership
	// LeaderlessSince is since when IsLeaderless was true in every pass. It is zero while it is not.
	LeaderlessSince time.Time
	// Comparison is the last comparison of the members' data, or the one under way; nil while there was none.
	Comparison *Comparison
	// Nodes is how many nodes there are. They are counted while a member does not answer.
	Nodes NodeCount
	// PeerTrust and ClientTrust are what the Secrets hold.
	PeerTrust, ClientTrust Trust
	// AuthorityOverlap is how long members and clients get to take up a change of the trusted authorities.
	AuthorityOverlap time.Duration
	// Hold is what keeps voluntary steps from beginning. It is read only once the pass would begin one; nil before.
	Hold *Hold
}

// Volume is a PersistentVolumeClaim and the durable memory on it. For a member whose data are in memory it is a
// ConfigMap, and stands for the memory of one pod (docs/adr/0007).
type Volume struct {
	Name, Member string
	// InMemory tells that the data are in the memory of the pod whose UID is remembered.
	InMemory        bool
	UID             types.UID
	ResourceVersion string
	Deleting        bool
	// CreatedAt is when the claim was made.
	CreatedAt time.Time
	// Confined tells that the volume can be used only on nodes that are gone. It is read with the member's Node.
	Confined       bool
	RequestedBytes int64
	// StorageClass is empty where the claim names none.
	StorageClass string
	AccessModes  []corev1.PersistentVolumeAccessMode
	Phase        corev1.PersistentVolumeClaimPhase
	// Identity is the volume behind the claim; it names no PersistentVolume while the claim is not bound.
	// Remembered is the volume that the member started on; empty while none was recorded.
	Identity, Remembered VolumeIdentity
	// Accepted is the user's approval of another volume: its CLAIMUID/PVNAME. See v1beta1.AcceptVolumeAnnotation.
	Accepted string
	// StartedBy is what first showed that the member started; empty while nothing did.
	StartedBy StartEvidence
	// DeletedWith is the EtcdCluster whose deletion deletes the volume; empty for one that is kept.
	DeletedWith types.UID

	ClusterUID types.UID
	Token      string
	Founders   []string
	// JoinedCluster is etcd's initial-cluster for a member that was added later: NAME=URL of every member at that time,
	// separated by commas. Such a volume is never a founder's.
	JoinedCluster string
	// Members are the names of etcd's members when its list was last seen; none before that.
	Members   []string
	ClusterID ID
	MemberID  ID
	PeerURL   string
	Version   string
	Retired   bool
	// Removing is the member that the operator removes, or meant to; zero for none. The operator cleans up what is left
	// of it, also where the operation ended before.
	Removing ID
}

// Started reports whether a member ever started on the volume. The IDs are recorded later than the mark.
func (v *Volume) Started() bool { return v != nil && (v.StartedBy != "" || v.ClusterID != 0) }

// Workload is a member's StatefulSet.
type Workload struct {
	Intent     Intent
	IntentHash string
	// HealthyIntent is the intent under which the member was last healthy, nil where none was recorded.
	HealthyIntent *Intent
	// StartsEmpty tells that etcd starts on an empty volume in a pod of the template.
	StartsEmpty bool
	// MemoryBytes is how much memory the data may take; zero where they are on a volume.
	MemoryBytes int64
	Deleting    bool
	// CreateFailure is why Kubernetes cannot create the pod; empty where there is one, and where no cause is known.
	CreateFailure string
	// PodDue is when CreateFailure is looked for. It is zero while there is a pod.
	PodDue time.Time
	Live   *appsv1.StatefulSet
}

// Pod is a member's pod.
type Pod struct {
	Name     string
	UID      types.UID
	IP       string
	Node     string
	Zone     string // of the node; read only while a voter is to be removed
	Phase    corev1.PodPhase
	Ready    bool
	Deleting bool
	NodeLost bool
	// CreatedAt is when the pod was made, and Restarts how often its etcd container was started again since.
	// StartedAt is when that container was last started, zero if it never was.
	CreatedAt, StartedAt time.Time
	Restarts             int32
	// PassesReadiness tells that etcd's container passes the operator's readiness probe, which is a linearizable read.
	// It does not depend on Ready, which other controllers may influence. It is false while the pod is being deleted.
	PassesReadiness bool
	// ReadySince is since when the pod is ready, zero while it is not; NotReadySince is the contrary.
	ReadySince, NotReadySince time.Time
	// ScheduledAt is when the pod got its node, zero before that.
	ScheduledAt time.Time
	// Gated tells that Kubernetes does not start the pod, because the operator has not admitted it.
	Gated bool
	// StartsEmpty tells that etcd starts on an empty volume when the pod's container starts the next time.
	StartsEmpty bool
	// InitialCluster is etcd's initial-cluster for that.
	InitialCluster string
	RenderHash     string
	// IntentHash is that of the template that the pod was made from.
	IntentHash string
	// PeerAuthorities and ClientAuthorities are the fingerprints of the authorities that the pod was started with, sorted.
	PeerAuthorities, ClientAuthorities []string
	// Resources are those of etcd's container, as the pod's spec asks for them, and Resize is how far a change of them is.
	Resources corev1.ResourceRequirements
	Resize    Resize
	// FailureReason is a condition reason and what the kubelet or the scheduler said; empty when there is none.
	FailureReason, FailureDetail string
}

// Authorities returns the fingerprints of the authorities of a kind of traffic that the pod was started with.
func (p *Pod) Authorities(t Traffic) []string {
	if t == PeerTraffic {
		return p.PeerAuthorities
	}
	return p.ClientAuthorities
}

// IsRunning reports whether there is a pod whose etcd may run.
func (p *Pod) IsRunning() bool { return p != nil && p.Phase == corev1.PodRunning }

// Probe is what one member's etcd answered.
type Probe struct {
	// Error is why the member did not answer; empty when it did.
	Error     string
	ClusterID ID
	MemberID  ID
	Leader    ID
	Version   string
	Learner   bool
	// Linearizable tells whether the member answered a linearizable read.
	Linearizable bool
	// Term is raft's present term, as the member knows it.
	Term uint64
	// CommittedIndex is the last entry that the member knows to be committed. A member that lags knows less of it than
	// the leader, so a lag is told by the leader's of the same round.
	CommittedIndex uint64
	// AppliedIndex is the last entry that the member has applied.
	AppliedIndex uint64
	// ClusterVersion is the minor version that the cluster works as, for example 3.6. A binary of an older minor version
	// refuses to start. It is told where a voter with a leader tells it, and empty while the cluster has none yet.
	ClusterVersion string
	// StorageVersion is the minor version of the member's data. It follows the cluster version. etcd 3.5 tells none.
	StorageVersion string
	// DowngradeEnabled tells that a downgrade is enabled in etcd. DowngradeTarget is the minor version that it goes to.
	// Of a member of etcd 3.5 only a voter with a leader tells the former, and none tells the latter.
	DowngradeEnabled bool
	DowngradeTarget  string
	// DatabaseBytes is the size of the database file, and DatabaseBytesInUse how much of it holds data.
	DatabaseBytes, DatabaseBytesInUse int64
	// Revision is that of the keys: each write raises it by one.
	Revision int64
	// Errors are what the member itself reports, alarms included.
	Errors []string
}

// Answered reports whether the member's etcd answered its status.
func (p *Probe) Answered() bool { return p != nil && p.Error == "" }

// Alarm is an alarm of one member.
type Alarm struct {
	Member ID
	Kind   AlarmKind
}

// AlarmKind is the kind of an alarm.
type AlarmKind string

// The alarms that etcd has.
const (
	AlarmNoSpace AlarmKind = "NOSPACE"
	AlarmCorrupt AlarmKind = "CORRUPT"
)

// ForeignObject is an object that has a name this cluster needs and is not this cluster's.
type ForeignObject struct {
	Kind, Name string
	// Owner describes whose it is, for the message.
	Owner string
	// Advice is what the user can do, where renaming or deleting the object is wrong; empty elsewhere.
	Advice string
	// Terminating tells that it belonged to a deleted EtcdCluster of the same name and is being collected.
	Terminating bool
	// LacksOwnerReference tells that the object would be this cluster's own if it named the cluster as its controller.
	LacksOwnerReference bool
	// Unreadable is the API server's error if the operator may not read the object. The operator then never writes it.
	Unreadable string
}

// Member returns the member of a name, or nil.
func (s *Snapshot) Member(name string) *Member {
	i := slices.IndexFunc(s.Members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Members[i]
}

// MembersCreated reports whether a member has a StatefulSet: it was created with the Secrets and the spec of that time.
func (s *Snapshot) MembersCreated() bool {
	return slices.ContainsFunc(s.Members, func(m Member) bool { return m.Workload != nil })
}

// Founded reports whether any member of this cluster was ever seen started. Where every volume is gone the status
// remembers it, which has a cluster ID a little earlier, while the founding is still claimed.
func (s *Snapshot) Founded() bool {
	status := &s.Cluster.Status
	if status.ClusterID != "" && (status.Operation == nil || status.Operation.Type != v1beta1.OperationBootstrap) {
		return true
	}
	return slices.ContainsFunc(s.Members, func(m Member) bool { return m.Volume.Started() })
}

// ClusterIDs returns the different cluster IDs that the volumes have on record. Where none has one, they are those that
// the members report which serve. A healthy cluster has at most one.
func (s *Snapshot) ClusterIDs() []ID {
	var recorded, reported []ID
	for i := range s.Members {
		m := &s.Members[i]
		if m.Volume != nil && m.Volume.ClusterID != 0 {
			recorded = append(recorded, m.Volume.ClusterID)
		}
		if m.Serves() {
			reported = append(reported, m.Probe.ClusterID)
		}
	}
	ids := recorded
	if len(ids) == 0 {
		ids = reported
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// LacksRecord reports whether the member started before, as its StatefulSet refuses an empty volume, and its claim does
// not say so: the claim was made again, or its annotations were lost. The volume may be a copy. The user can accept it.
func (m *Member) LacksRecord() bool {
	return m.Volume != nil && !m.Volume.Started() && m.Workload != nil && !m.Workload.StartsEmpty && !m.Volume.IsAccepted()
}

// RefusesEmptyVolume reports whether the member has started, and neither its template nor its pod would start it on an
// empty volume again.
func (m *Member) RefusesEmptyVolume() bool {
	return m.Volume.Started() && (m.Workload == nil || !m.Workload.StartsEmpty) && (m.Pod == nil || !m.Pod.StartsEmpty)
}
