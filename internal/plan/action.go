package plan

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
	Volumes      []*corev1.PersistentVolumeClaim
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
	// Pod and UID are those of the pod.
	Pod string
	UID types.UID
	// Evict asks the API server's disruption budget. Without it the pod is deleted: it has failed already.
	Evict bool
}

// onAllMembers is embedded by actions that work on all members.
type onAllMembers struct{}

func (onAllMembers) action()        {}
func (onAllMembers) Member() string { return "" }
func (RestartMember) action()       {}

// Operation implements Action.
func (CreateFounders) Operation() v1beta1.OperationType { return v1beta1.OperationBootstrap }

// Operation implements Action.
func (TakeBackVolumes) Operation() v1beta1.OperationType { return v1beta1.OperationTakeBack }

// Operation implements Action.
func (StartMembers) Operation() v1beta1.OperationType { return v1beta1.OperationResume }

// Operation implements Action.
func (RestartMember) Operation() v1beta1.OperationType { return v1beta1.OperationRollMember }

// Member implements Action.
func (a RestartMember) Member() string { return a.Name }
