package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// EtcdClusterSpec says what the user wants. Release 0.1 creates it and keeps it running;
// a change to a running cluster's size, version, template or volume size is reported and not carried out before 0.3.0.
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.pod) || !has(oldSelf.pod.ClusterDomain) || (has(self.pod) && has(self.pod.ClusterDomain) && self.pod.ClusterDomain == oldSelf.pod.ClusterDomain)",message="pod.ClusterDomain cannot change: the members' peer URLs contain it; create another cluster with the new domain"
// +kubebuilder:validation:XValidation:rule="!(has(self.pod) && has(self.pod.ClusterDomain)) || (has(oldSelf.pod) && has(oldSelf.pod.ClusterDomain))",message="pod.ClusterDomain cannot be added: the members' peer URLs would change; create another cluster with the domain"
// +kubebuilder:validation:XValidation:rule="(has(self.pod) && has(self.pod.persistentVolumeClaimSpec) ? quantity(string(self.pod.persistentVolumeClaimSpec.resources.requests['storage'])) : quantity('2Gi')).compareTo(has(oldSelf.pod) && has(oldSelf.pod.persistentVolumeClaimSpec) ? quantity(string(oldSelf.pod.persistentVolumeClaimSpec.resources.requests['storage'])) : quantity('2Gi')) >= 0",message="pod.persistentVolumeClaimSpec.resources.requests.storage cannot shrink (2Gi where it is not set): write the old size or a larger one"
// +kubebuilder:validation:XValidation:rule="(has(self.pod) && has(self.pod.persistentVolumeClaimSpec) && has(self.pod.persistentVolumeClaimSpec.storageClassName) ? self.pod.persistentVolumeClaimSpec.storageClassName : '-') == (has(oldSelf.pod) && has(oldSelf.pod.persistentVolumeClaimSpec) && has(oldSelf.pod.persistentVolumeClaimSpec.storageClassName) ? oldSelf.pod.persistentVolumeClaimSpec.storageClassName : '-')",message="pod.persistentVolumeClaimSpec.storageClassName cannot change: existing volumes keep their class; create another cluster with the new class"
// +kubebuilder:validation:XValidation:rule="(has(self.pod) && has(self.pod.persistentVolumeClaimSpec) && has(self.pod.persistentVolumeClaimSpec.accessModes) ? self.pod.persistentVolumeClaimSpec.accessModes : ['ReadWriteOnce']) == (has(oldSelf.pod) && has(oldSelf.pod.persistentVolumeClaimSpec) && has(oldSelf.pod.persistentVolumeClaimSpec.accessModes) ? oldSelf.pod.persistentVolumeClaimSpec.accessModes : ['ReadWriteOnce'])",message="pod.persistentVolumeClaimSpec.accessModes cannot change: existing volumes keep theirs; create another cluster with the new ones"
type EtcdClusterSpec struct {
	// Size is the number of members: 1, 3, 5 or 7. An even number survives no more failures than the odd number below it.
	// +kubebuilder:validation:XValidation:rule="self in [1, 3, 5, 7]",message="size must be 1, 3, 5 or 7: an even size survives no more failures than the odd one below it, and more than 7 members slow every write; write the next odd number"
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Size",order=1,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:podCount"}
	// +required
	Size int32 `json:"size"`

	// Version is the etcd version, x.y.z without a "v": 3.5.32 and later, 3.6.12 and later, or 3.7.
	// +kubebuilder:default="3.6.16"
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)$')",message="version must be x.y.z without a leading v, such as 3.6.16"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[0-9]+[.][0-9]+[.][0-9]+$') || self.matches('^3[.][567][.]')",message="etcd 3.5, 3.6 and 3.7 are supported: write such a version, for example 3.6.16; data of etcd 3.4 and older is moved by upgrading it to 3.5 with its present operator first"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^3[.]5[.]([0-9]|[12][0-9]|3[01])$')",message="etcd 3.5 below 3.5.32 has bugs that can lose or revive members: write 3.5.32 or later"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^3[.]6[.]([0-9]|1[01])$')",message="etcd 3.6 below 3.6.12 has bugs that can lose or revive members: write 3.6.12 or later"
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="etcd version",order=2,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:text"}
	// +optional
	Version string `json:"version,omitempty"`

	// Repository is the image repository without a tag; the tag is "v" and the version.
	// The image holds etcd, etcdctl and etcdutl.
	// +kubebuilder:default="gcr.io/etcd-development/etcd"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$')",message="repository must be an image repository without a tag or digest, such as gcr.io/etcd-development/etcd; the tag is made from version"
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Image repository",order=3,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Repository string `json:"repository,omitempty"`

	// Paused stops the operator from acting on this cluster; etcd runs on and the status is still reported.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Paused",order=4,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:booleanSwitch"}
	// +optional
	Paused bool `json:"paused,omitempty"`

	// Pod shapes the members' pods and volumes.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Pod policy",order=5,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Pod *PodPolicy `json:"pod,omitempty"`

	// TLS names the Secrets that secure client and peer traffic; without it the traffic is in clear.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="TLS",order=6
	// +optional
	TLS *TLSPolicy `json:"TLS,omitempty"`
}

// PodPolicy shapes the members' pods and volumes.
// +kubebuilder:validation:XValidation:rule="!has(self.antiAffinity) || !self.antiAffinity || !has(self.affinity) || !has(self.affinity.podAntiAffinity)",message="write either antiAffinity: true or affinity.podAntiAffinity, not both"
type PodPolicy struct {
	// Labels are added to the members' pods.
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('operator.etcd-warden.io/') && !k.startsWith('app.kubernetes.io/'))",message="labels under operator.etcd-warden.io/ and app.kubernetes.io/ are the operator's own: choose another prefix"
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// Annotations are added to the members' pods.
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('operator.etcd-warden.io/'))",message="annotations under operator.etcd-warden.io/ are the operator's own: choose another prefix"
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`

	// NodeSelector restricts the nodes that members run on.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// Affinity replaces the default, which spreads members softly over nodes and zones.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// AntiAffinity, when true, never puts two members of this cluster on one node.
	// +optional
	AntiAffinity bool `json:"antiAffinity,omitempty"`

	// Tolerations of the members' pods.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// Resources of the etcd container.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Resources",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:resourceRequirements"}
	// +optional
	Resources ResourceRequirements `json:"resources,omitempty,omitzero"`

	// SecurityContext of the pods; what it leaves out follows the restricted Pod Security Standard.
	// +optional
	SecurityContext *corev1.PodSecurityContext `json:"securityContext,omitempty"`

	// EtcdEnv sets etcd options by their environment variables, such as ETCD_QUOTA_BACKEND_BYTES.
	// An option that the etcd version does not have, or that the operator sets itself, is refused and reported.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	// +optional
	EtcdEnv []EtcdOption `json:"etcdEnv,omitempty"`

	// PersistentVolumeClaimSpec describes each member's volume; without it 2Gi of the default StorageClass.
	// Volumes are kept when the cluster is deleted.
	// +optional
	PersistentVolumeClaimSpec *VolumeClaimSpec `json:"persistentVolumeClaimSpec,omitempty"`

	// ClusterDomain is the DNS domain of the Kubernetes cluster, appended to the members' names in peer URLs.
	// Without it the names end in ".svc" and the pods' DNS search path completes them.
	// +kubebuilder:validation:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="ClusterDomain must be a DNS name in lower case without a dot at its ends, such as cluster.local"
	// +optional
	ClusterDomain string `json:"ClusterDomain,omitempty"`

	// DNSTimeoutInSecond is accepted and ignored: no init container waits for DNS here.
	// +optional
	DNSTimeoutInSecond int64 `json:"DNSTimeoutInSecond,omitempty"`

	// BusyboxImage is accepted and ignored: members have no init container.
	// +kubebuilder:validation:MaxLength=255
	// +optional
	BusyboxImage string `json:"busyboxImage,omitempty"`
}

// ResourceRequirements are the requests and limits of the etcd container.
type ResourceRequirements struct {
	// Limits of the etcd container.
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`
	// Requests of the etcd container.
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// EtcdOption is one etcd option by its environment variable.
// +kubebuilder:validation:XValidation:rule="self.name.matches('^ETCD_[A-Z0-9_]+$')",message="name must be an etcd environment variable, such as ETCD_QUOTA_BACKEND_BYTES"
type EtcdOption struct {
	// Name is the option's environment variable.
	// +kubebuilder:validation:MaxLength=128
	// +required
	Name string `json:"name"`
	// Value is the option's value; it is passed to etcd as it stands and never expanded.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Value string `json:"value,omitempty"`
}

// VolumeClaimSpec describes a member's PersistentVolumeClaim.
// +kubebuilder:validation:XValidation:rule="has(self.resources.requests) && 'storage' in self.resources.requests",message="resources.requests.storage is required: write the volume's size, such as 8Gi"
type VolumeClaimSpec struct {
	// StorageClassName names the class; without it the default class is used.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
	// AccessModes of the volume; ReadWriteOnce without it.
	// +kubebuilder:validation:MaxItems=1
	// +kubebuilder:validation:items:Enum=ReadWriteOnce;ReadWriteOncePod
	// +listType=atomic
	// +optional
	AccessModes []corev1.PersistentVolumeAccessMode `json:"accessModes,omitempty"`
	// Resources holds the volume's size in requests.storage.
	// +required
	Resources VolumeResources `json:"resources"`
}

// VolumeResources holds a volume's size.
type VolumeResources struct {
	// Requests holds the key storage.
	// +kubebuilder:validation:MaxProperties=1
	// +kubebuilder:validation:XValidation:rule="self.all(k, k == 'storage')",message="only storage can be requested of a volume"
	// +kubebuilder:validation:XValidation:rule="self.all(k, isQuantity(string(self[k])) && quantity(string(self[k])).compareTo(quantity('256Mi')) >= 0)",message="storage must be a quantity of at least 256Mi, such as 8Gi: etcd preallocates 64 MB of log at a time"
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// TLSPolicy says where certificates come from.
// +kubebuilder:validation:XValidation:rule="has(self.static)",message="TLS needs static with the names of your Secrets; leave TLS out for traffic in clear"
type TLSPolicy struct {
	// Static names Secrets that the user provides, in the cluster's namespace.
	// +optional
	Static *StaticTLS `json:"static,omitempty"`
}

// StaticTLS names the user's Secrets.
// +kubebuilder:validation:XValidation:rule="has(self.member) || has(self.operatorSecret)",message="TLS.static needs member.serverSecret with operatorSecret, or member.peerSecret, or all three"
// +kubebuilder:validation:XValidation:rule="!(has(self.member) && has(self.member.serverSecret)) || has(self.operatorSecret)",message="TLS.static.member.serverSecret needs operatorSecret too: the members ask every client for a certificate, the operator included"
// +kubebuilder:validation:XValidation:rule="!has(self.operatorSecret) || (has(self.member) && has(self.member.serverSecret))",message="TLS.static.operatorSecret needs member.serverSecret too: without it client traffic is in clear"
type StaticTLS struct {
	// Member names the members' Secrets.
	// +optional
	Member *MemberSecrets `json:"member,omitempty"`
	// OperatorSecret holds etcd-client.crt, etcd-client.key and etcd-client-ca.crt: the operator's client certificate.
	// Where etcd's authentication is to be turned on, its common name is root.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Operator's client Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +optional
	OperatorSecret string `json:"operatorSecret,omitempty"`
}

// MemberSecrets names the members' Secrets.
// +kubebuilder:validation:XValidation:rule="has(self.peerSecret) || has(self.serverSecret)",message="TLS.static.member needs peerSecret, serverSecret, or both"
type MemberSecrets struct {
	// PeerSecret holds peer.crt, peer.key and peer-ca.crt. The certificate has server and client usage and fits
	// *.NAME.NAMESPACE.svc and *.NAME.NAMESPACE.svc.CLUSTERDOMAIN.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Peer Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +optional
	PeerSecret string `json:"peerSecret,omitempty"`
	// ServerSecret holds server.crt, server.key and server-ca.crt. The certificate has server and client usage and fits
	// *.NAME.NAMESPACE.svc, NAME-client.NAMESPACE.svc and localhost.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Server Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +optional
	ServerSecret string `json:"serverSecret,omitempty"`
}

// OperationType names a step that may disturb members: one of v1beta1's, or of those that later releases are to have.
// An operator that does not know the type leaves the cluster alone.
// +kubebuilder:validation:Enum=Bootstrap;TakeBack;Resume;RollMember;AddLearner;PromoteLearner;RemoveMember;MoveLeader;Upgrade;Defragment;Compact;DisarmAlarm;GrowVolume;Restore;Recover;Hibernate;Wake
type OperationType string

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
	// Size is the number of members.
	// +optional
	Size int32 `json:"size"`
	// ReadyMembers is the number of members that answer a linearizable read.
	// +operator-sdk:csv:customresourcedefinitions:type=status,displayName="Ready members",xDescriptors={"urn:alm:descriptor:text"}
	// +optional
	ReadyMembers int32 `json:"readyMembers"`
	// Leader is the name of the leading member.
	// +optional
	Leader string `json:"leader,omitempty"`
	// ServiceName is the Service that clients use.
	// +optional
	ServiceName string `json:"serviceName,omitempty"`
	// ClientPort is the Service's port for clients.
	// +optional
	ClientPort int32 `json:"clientPort,omitempty"`
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

// EtcdCluster is a cluster of etcd members, in the terms of release 0.1. Write v1beta1 instead.
// +kubebuilder:object:root=true
// +kubebuilder:deprecatedversion:warning="operator.etcd-warden.io/v1alpha1 EtcdCluster is deprecated, and served by every release before etcd-warden 1.0: write v1beta1, whose spec.replicas is spec.size; kubectl get etcdclusters.v1beta1.operator.etcd-warden.io shows yours in it"
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=etcd,categories=all
// +kubebuilder:printcolumn:name="Size",type=integer,JSONPath=`.spec.size`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyMembers`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Progressing")].reason`
// +kubebuilder:printcolumn:name="Leader",type=string,JSONPath=`.status.leader`,priority=1
// +kubebuilder:printcolumn:name="Cluster ID",type=string,JSONPath=`.status.clusterID`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 46",message="the name may have at most 46 characters: the pods' names and labels are made from it"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",message="the name must start with a letter and hold only lower case letters, digits and hyphens: Services are named after it"
// +operator-sdk:csv:customresourcedefinitions:displayName="etcd cluster (v1alpha1, deprecated)",resources={{StatefulSet,v1,NAME-0},{Service,v1,NAME-client},{PersistentVolumeClaim,v1,data-NAME-0},{PodDisruptionBudget,v1,NAME},{Pod,v1,NAME-0-0},{Event,v1,NAME}}
type EtcdCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec EtcdClusterSpec `json:"spec"`
	// +optional
	Status EtcdClusterStatus `json:"status,omitempty,omitzero"`
}

// Key returns the cluster's namespace and name.
func (c *EtcdCluster) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

// EtcdClusterList is a list of clusters.
// +kubebuilder:object:root=true
type EtcdClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EtcdCluster `json:"items"`
}
