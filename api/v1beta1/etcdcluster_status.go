package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// OperationType names a step that may disturb members. An operator that does not know the type leaves the cluster alone.
// +kubebuilder:validation:MaxLength=63
type OperationType string

// The operations.
const (
	// OperationBootstrap starts a new cluster's founding members.
	OperationBootstrap OperationType = "Bootstrap"
	// OperationTakeBack starts the members of kept volumes for a cluster that was created again.
	OperationTakeBack OperationType = "TakeBack"
	// OperationResume gives members their StatefulSets back after somebody deleted them.
	OperationResume OperationType = "Resume"
	// OperationRollMember restarts one member, so that it takes up what etcd reads at its start only.
	OperationRollMember OperationType = "RollMember"
)

// Operation is the claim on the one step in flight.
type Operation struct {
	// Type of the step.
	Type OperationType `json:"type"`
	// Member that the step works on; empty where it works on all.
	// +optional
	Member string `json:"member,omitempty"`
	// StartedAt is when the step was claimed.
	StartedAt metav1.Time `json:"startedAt"`
}

// MemberRole is a member's part in the quorum.
// +kubebuilder:validation:Enum=Voter;Learner;Unknown
type MemberRole string

// The roles of a member.
const (
	RoleVoter   MemberRole = "Voter"
	RoleLearner MemberRole = "Learner"
	RoleUnknown MemberRole = "Unknown"
)

// MemberStatus is one member as last observed.
type MemberStatus struct {
	// Name of the member and of its StatefulSet.
	Name string `json:"name"`
	// ID of the member in etcd, hexadecimal; empty until it has started.
	// +optional
	ID string `json:"id,omitempty"`
	// Role in the quorum.
	Role MemberRole `json:"role"`
	// Version of etcd that the member runs.
	// +optional
	Version string `json:"version,omitempty"`
	// Ready tells whether the member answers a linearizable read.
	Ready bool `json:"ready"`
	// Reason tells why the member is not ready.
	// +optional
	Reason string `json:"reason,omitempty"`
}

// EtcdClusterStatus says what is.
type EtcdClusterStatus struct {
	// ObservedGeneration is the generation that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// ClusterID is etcd's cluster ID, hexadecimal; it never changes.
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Cluster ID",xDescriptors={"urn:alm:descriptor:text"}
	// +optional
	ClusterID string `json:"clusterID,omitempty"`
	// Operation is the step in flight, if any.
	// +optional
	Operation *Operation `json:"operation,omitempty"`
	// Version that every member runs; empty while they differ or are not known.
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="etcd version",xDescriptors={"urn:alm:descriptor:text"}
	// +optional
	Version string `json:"version,omitempty"`
	// TargetVersion is the version that the members' pods are made for.
	// +optional
	TargetVersion string `json:"targetVersion,omitempty"`
	// Replicas is the number of members.
	// +optional
	Replicas int32 `json:"replicas"`
	// ReadyReplicas is the number of members that answer a linearizable read.
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Ready members",xDescriptors={"urn:alm:descriptor:text"}
	// +optional
	ReadyReplicas int32 `json:"readyReplicas"`
	// Selector finds the members' pods, for the scale subresource.
	// +optional
	Selector string `json:"selector,omitempty"`
	// Leader is the name of the leading member.
	// +optional
	Leader string `json:"leader,omitempty"`
	// ServiceName is the Service that clients use.
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Client Service",xDescriptors={"urn:alm:descriptor:io.kubernetes:Service"}
	// +optional
	ServiceName string `json:"serviceName,omitempty"`
	// ClientPort is the Service's port for clients.
	// +optional
	ClientPort int32 `json:"clientPort,omitempty"`
	// ClientSecretName is the Secret with a certificate for clients (tls.crt, tls.key and ca.crt), where the operator or cert-manager makes one.
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Client Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +optional
	ClientSecretName string `json:"clientSecretName,omitempty"`
	// Members, ordered by number.
	// +listType=map
	// +listMapKey=name
	// +optional
	Members []MemberStatus `json:"members,omitempty"`
	// Conditions: Available, Progressing, Degraded, QuorumLost, StorageAlarm, RestartPending.
	// +listType=map
	// +listMapKey=type
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Conditions",xDescriptors={"urn:alm:descriptor:io.kubernetes.conditions"}
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
