package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// OperationType names a step that may disturb members.
// An operator that does not know the type does not change the cluster.
// +kubebuilder:validation:MaxLength=63
type OperationType string

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
	// Size is the number of members.
	// +optional
	Size int32 `json:"size"`
	// ReadyMembers is the number of members that answer a linearizable read.
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Ready members",xDescriptors={"urn:alm:descriptor:text"}
	// +optional
	ReadyMembers int32 `json:"readyMembers"`
	// Ready says how many members are ready, and how many the spec asks for, for example 2/3.
	// It is for people. Programs read readyMembers.
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
