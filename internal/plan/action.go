package plan

import (
	"cmp"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Action is a step that may disturb members. At most one is in flight in a cluster.
// A new one is planned by a rule in analyse, has a row in analyse's operations and an event in status, and is carried
// out in act.
//
//sumtype:decl
type Action interface {
	action()
	// Operation is the type of the operation that is claimed for the action.
	Operation() v1beta1.OperationType
	// Member is the member that the action works on; empty where it works on all.
	Member() string
}

// CreateFounders creates the volumes of founding members, then all their StatefulSets.
type CreateFounders struct {
	onAllMembers
	// Members are the names of all founding members.
	Members []string
	// Volumes and StatefulSets are those that do not exist yet.
	Volumes      []Object
	StatefulSets []*appsv1.StatefulSet
}

// TakeBackVolumes records on retained volumes that this cluster uses them. It comes before their members are started.
type TakeBackVolumes struct {
	onAllMembers
	Volumes []cluster.Volume
}

// StartMembers creates the StatefulSets of members that have run before. etcd exits if it finds such a volume empty.
type StartMembers struct {
	onAllMembers
	StatefulSets []*appsv1.StatefulSet
}

// RestartMember takes a member's pod down. Its StatefulSet then creates it again from the present template.
type RestartMember struct {
	Name string
	// For is the operation that the restart is a part of: RollMember where it is empty.
	For v1beta1.OperationType
	// StatefulSet is written first, and Live is the one that was read. They are nil where the template is the right one.
	StatefulSet, Live *appsv1.StatefulSet
	// Pod and UID are those of the pod; empty where Kubernetes could not create one.
	Pod string
	UID types.UID
	// Evict asks the API server's disruption budget. Without it the pod is deleted: it has failed already.
	Evict bool
}

// AddMember registers a new member as a learner. Its number is noted first, then its volume is created.
type AddMember struct {
	Name string
	// NextNumber is noted as used by no member yet: it is above the new member's own.
	NextNumber int
	// Volume is nil where it exists.
	Volume Object
	// PeerURL is what etcd knows the member by.
	PeerURL string
	// Leader is the member that the change is sent to.
	Leader string
}

// StartLearner creates the StatefulSet of a registered learner. It is a part of adding a member.
type StartLearner struct {
	Name        string
	StatefulSet *appsv1.StatefulSet
}

// PromoteMember makes a learner a voter. It is a part of adding a member.
type PromoteMember struct {
	Name    string
	Learner cluster.ID
	// Leader is the member that the change is sent to.
	Leader string
}

// RemoveMember removes a member from etcd, for a smaller size or because it is lost. What is left of it is removed by
// upkeep.
type RemoveMember struct {
	Name string
	ID   cluster.ID
	// Volume is the member's, on which the removal is noted first; nil where it is noted, and where there is none.
	Volume *cluster.Volume
	// Leader is the member that the change is sent to.
	Leader string
	// For is the operation that the removal is a part of: RemoveMember where it is empty.
	For v1beta1.OperationType
	// Lost is what must still be gone; nil where the member is removed for a smaller size.
	Lost *Lost
}

// Lost is what a lost member lacks: its claim, its pod or its node.
type Lost struct {
	Claim string
	// Pod is the pod whose memory the data were in, and PodUID its UID.
	Pod    string
	PodUID types.UID
	// ClaimUID is that of the claim that stands for no data of the member; empty where there is no claim.
	ClaimUID types.UID
	Node     string
}

// ChangeDowngrade enables a downgrade in etcd, or cancels one. The Service of the peers notes it first: so it is known
// later whose it is.
type ChangeDowngrade struct {
	onAllMembers
	// Target is the minor version to go down to, for example 3.6; empty to cancel.
	Target string
	// Notes are the annotations that the Service of the peers gets first. One without a value is removed.
	Notes map[string]string
	// Leader is the member that the change is sent to.
	Leader string
}

// HashMember has a member compute the hash of its data, outside of the pass. It is a part of comparing all.
type HashMember struct {
	onAllMembers
	Name string
	// Cause, Voters, Revision and Attempt are those of the comparison: see cluster.Comparison.
	Cause    string
	Voters   []cluster.ID
	Revision int64
	Attempt  int
	// Begins tells that it is a new comparison. Otherwise the answer belongs to the last one.
	Begins bool
}

// Defragment makes a member write its database anew, without the pages that are free. The annotation that asks for it
// then notes the member.
type Defragment struct {
	Name string
	// Timeout is how long the member may take.
	Timeout time.Duration
	// Note is the annotation's value afterwards.
	Note string
}

// MoveLeader makes a follower the leader. It is a part of the operation that needs it.
type MoveLeader struct {
	// Name is the member that leads, and that the operation is for.
	Name string
	For  v1beta1.OperationType
	// To is the follower that takes over.
	To   string
	ToID cluster.ID
}

// IsVoluntary reports whether an action could wait: it disturbs members, and repairs nothing that is down.
func IsVoluntary(action Action) bool {
	switch a := action.(type) {
	case CreateFounders, TakeBackVolumes, StartMembers:
		return false
	case RestartMember:
		return a.Evict && a.Operation() != v1beta1.OperationRollBack // without an eviction, the pod has failed
	case ChangeDowngrade:
		return a.Target != "" // to cancel one lets members join, or restart
	case AddMember, StartLearner, PromoteMember, RemoveMember, HashMember, Defragment, MoveLeader:
		return true
	}
	return false
}

// onAllMembers is embedded by actions that work on all members.
type onAllMembers struct{}

func (onAllMembers) action()        {}
func (onAllMembers) Member() string { return "" }
func (RestartMember) action()       {}
func (AddMember) action()           {}
func (StartLearner) action()        {}
func (PromoteMember) action()       {}
func (RemoveMember) action()        {}
func (Defragment) action()          {}
func (MoveLeader) action()          {}

// Operation implements Action.
func (CreateFounders) Operation() v1beta1.OperationType { return v1beta1.OperationBootstrap }

// Operation implements Action.
func (TakeBackVolumes) Operation() v1beta1.OperationType { return v1beta1.OperationTakeBack }

// Operation implements Action.
func (StartMembers) Operation() v1beta1.OperationType { return v1beta1.OperationResume }

// Operation implements Action.
func (a RestartMember) Operation() v1beta1.OperationType {
	return cmp.Or(a.For, v1beta1.OperationRollMember)
}

// Member implements Action.
func (a RestartMember) Member() string { return a.Name }

// Operation implements Action.
func (AddMember) Operation() v1beta1.OperationType { return v1beta1.OperationAddMember }

// Operation implements Action.
func (StartLearner) Operation() v1beta1.OperationType { return v1beta1.OperationAddMember }

// Operation implements Action.
func (PromoteMember) Operation() v1beta1.OperationType { return v1beta1.OperationAddMember }

// Operation implements Action.
func (a RemoveMember) Operation() v1beta1.OperationType {
	return cmp.Or(a.For, v1beta1.OperationRemoveMember)
}

// Operation implements Action.
func (ChangeDowngrade) Operation() v1beta1.OperationType { return v1beta1.OperationDowngrade }

// Operation implements Action.
func (HashMember) Operation() v1beta1.OperationType { return v1beta1.OperationCheckConsistency }

// Operation implements Action.
func (Defragment) Operation() v1beta1.OperationType { return v1beta1.OperationDefragment }

// Operation implements Action.
func (m MoveLeader) Operation() v1beta1.OperationType { return m.For }

// Member implements Action.
func (a AddMember) Member() string { return a.Name }

// Member implements Action.
func (a StartLearner) Member() string { return a.Name }

// Member implements Action.
func (a PromoteMember) Member() string { return a.Name }

// Member implements Action.
func (a RemoveMember) Member() string { return a.Name }

// Member implements Action.
func (d Defragment) Member() string { return d.Name }

// Member implements Action.
func (m MoveLeader) Member() string { return m.Name }
