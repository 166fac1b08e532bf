package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxWaitingFor is how many bytes of text status.operation.waitingFor holds.
const MaxWaitingFor = 1024

// OperationType names a step that may disturb members.
// An operator that does not know the type does not change the cluster.
// +kubebuilder:validation:MaxLength=63
type OperationType string

// The operations.
const (
	// OperationBootstrap starts the founding members of a new cluster.
	OperationBootstrap OperationType = "Bootstrap"
	// OperationTakeBack starts the members of volumes that an earlier cluster with this name left.
	OperationTakeBack OperationType = "TakeBack"
	// OperationResume creates missing StatefulSets of members again.
	OperationResume OperationType = "Resume"
	// OperationRollMember restarts one member, so that it loads what etcd reads only at its start.
	OperationRollMember OperationType = "RollMember"
	// OperationAddMember adds one member: it joins as a learner, copies the data, and becomes a voter.
	OperationAddMember OperationType = "AddMember"
	// OperationRemoveMember removes one member: from etcd first, then its pod.
	OperationRemoveMember OperationType = "RemoveMember"
	// OperationReplaceMember removes a lost member, so that a new one takes its place.
	OperationReplaceMember OperationType = "ReplaceMember"
	// OperationDowngrade enables a downgrade to the next lower minor version in etcd, or cancels it. No member restarts.
	OperationDowngrade OperationType = "Downgrade"
	// OperationCheckConsistency compares the data of all members, one after the other. The leader hands over before its
	// turn.
	OperationCheckConsistency OperationType = "CheckConsistency"
	// OperationDefragment defragments one member, which answers nothing meanwhile. No member restarts.
	OperationDefragment OperationType = "Defragment"
	// OperationMoveLeader has the member hand its leadership over, because an administrator asks for it.
	OperationMoveLeader OperationType = "MoveLeader"
	// OperationRollBack restarts one member with the last pod template with which it was healthy.
	OperationRollBack OperationType = "RollBack"
)

// Operation is the one step that is in progress. The operator writes it before it takes the step.
type Operation struct {
	// Type of the step.
	Type OperationType `json:"type"`
	// Member that the step changes. It is empty if the step changes all members.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Member string `json:"member,omitempty"`
	// StartedAt is the time at which the operator wrote this operation.
	StartedAt metav1.Time `json:"startedAt"`
	// Reason says why the operator takes the step. It is a reason of the condition Progressing.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Reason string `json:"reason,omitempty"`
	// WaitingFor says what the step waits for. It is empty if the operator has not written anything about it yet.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	WaitingFor string `json:"waitingFor,omitempty"`
	// VolumeUID is the UID of the PersistentVolumeClaim that a lost member was last seen healthy on. No other claim is
	// deleted when the member is replaced.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	VolumeUID string `json:"volumeUID,omitempty"`
}

// MemberRole is the role of a member in the quorum.
// +kubebuilder:validation:Enum=Voter;Learner;Unknown
type MemberRole string

// The roles of a member.
const (
	// RoleVoter votes and counts for the quorum.
	RoleVoter MemberRole = "Voter"
	// RoleLearner receives the log, but does not vote.
	RoleLearner MemberRole = "Learner"
	// RoleUnknown means that etcd has not reported the role.
	RoleUnknown MemberRole = "Unknown"
)

// MemberStatus is the last observed state of one member.
type MemberStatus struct {
	// Name of the member and of its StatefulSet.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// ID of the member in etcd, in hexadecimal. It is empty until the member has started.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	ID string `json:"id,omitempty"`
	// Role of the member in the quorum.
	Role MemberRole `json:"role"`
	// Version of etcd that the member runs.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Version string `json:"version,omitempty"`
	// Ready is true if the member answers a linearizable read.
	Ready bool `json:"ready"`
	// Reason says why the member is not ready.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Reason string `json:"reason,omitempty"`
	// VolumeUID is the UID of the PersistentVolumeClaim that the member was last seen healthy on.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	VolumeUID string `json:"volumeUID,omitempty"`
}

// EtcdClusterStatus is the observed state of a cluster.
type EtcdClusterStatus struct {
	// ObservedGeneration is the generation of the spec that the conditions are about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// ClusterID is the cluster ID of etcd, in hexadecimal. It never changes.
	// +kubebuilder:validation:MaxLength=64
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Cluster ID",xDescriptors={"urn:alm:descriptor:text"}
	// +optional
	ClusterID string `json:"clusterID,omitempty"`
	// Operation is the step in progress. It is absent if there is none.
	// +optional
	Operation *Operation `json:"operation,omitempty"`
	// Version that all members run. It is empty if they differ or if it is unknown.
	// +kubebuilder:validation:MaxLength=256
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="etcd version",xDescriptors={"urn:alm:descriptor:text"}
	// +optional
	Version string `json:"version,omitempty"`
	// TargetVersion is the version for which the pods of the members are made.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	TargetVersion string `json:"targetVersion,omitempty"`
	// Replicas is the number of members.
	// +optional
	Replicas int32 `json:"replicas"`
	// ReadyReplicas is the number of members that answer a linearizable read.
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Ready members",xDescriptors={"urn:alm:descriptor:text"}
	// +optional
	ReadyReplicas int32 `json:"readyReplicas"`
	// Ready says how many members are ready, and how many the spec asks for, for example 2/3.
	// It is for people. Programs read readyReplicas.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Ready string `json:"ready,omitempty"`
	// Selector selects the pods of the members by their labels. The scale subresource needs it.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Selector string `json:"selector,omitempty"`
	// Leader is the name of the member that leads.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Leader string `json:"leader,omitempty"`
	// ServiceName is the name of the Service for clients.
	// +kubebuilder:validation:MaxLength=253
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Client Service",xDescriptors={"urn:alm:descriptor:io.kubernetes:Service"}
	// +optional
	ServiceName string `json:"serviceName,omitempty"`
	// ClientPort is the port of the Service for clients.
	// +optional
	ClientPort int32 `json:"clientPort,omitempty"`
	// ClientSecretName is the name of the Secret with a certificate for clients.
	// Its keys are tls.crt, tls.key and ca.crt.
	// It is empty unless the operator or cert-manager issues such a certificate.
	// +kubebuilder:validation:MaxLength=253
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Client Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +optional
	ClientSecretName string `json:"clientSecretName,omitempty"`
	// AnsweredPlan is the value of the annotation operator.etcd-warden.io/plan that the operator has answered last.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	AnsweredPlan string `json:"answeredPlan,omitempty"`
	// Members are the members, ordered by their numbers.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	// +optional
	Members []MemberStatus `json:"members,omitempty"`
	// Conditions are Available, Progressing, Degraded, QuorumLost, StorageAlarm, RestartPending, UpgradeBlocked,
	// VersionAdvisory, PlacementAdvisory and DataConsistent.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=type
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Conditions",xDescriptors={"urn:alm:descriptor:io.kubernetes.conditions"}
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
