package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// EtcdClusterSpec is the desired state of a cluster.
// The operator refuses what it cannot carry out: the running cluster stays as it is, and the conditions say why.
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.pod) || !has(oldSelf.pod.ClusterDomain) || (has(self.pod) && has(self.pod.ClusterDomain) && self.pod.ClusterDomain == oldSelf.pod.ClusterDomain)",message="pod.ClusterDomain cannot change, because the peer URLs of the members contain it. Write the old value, or create another cluster with the new domain."
// +kubebuilder:validation:XValidation:rule="!(has(self.pod) && has(self.pod.ClusterDomain)) || (has(oldSelf.pod) && has(oldSelf.pod.ClusterDomain))",message="pod.ClusterDomain cannot be added, because the peer URLs of the members would change. Remove it, or create another cluster with the domain."
type EtcdClusterSpec struct {
	// Size is the number of members: 1, 3, 5 or 7.
	// An even number survives no more failures than the odd number below it.
	// +kubebuilder:validation:XValidation:rule="self in [1, 3, 5, 7]",message="size must be 1, 3, 5 or 7. An even number survives no more failures than the odd number below it, and more than 7 members make every write slow."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Size",order=1,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:podCount"}
	// +required
	Size int32 `json:"size"`

	// Version is the etcd version, written as x.y.z without a leading "v", for example 3.6.16.
	// Supported are 3.5 from 3.5.32 on, 3.6 from 3.6.12 on, and 3.7.
	// Another version is refused by the condition Progressing with the reason UnsupportedVersion.
	// +kubebuilder:default="3.6.16"
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)$')",message="version must have the form x.y.z without a leading v, for example 3.6.16."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="etcd version",order=2,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:text"}
	// +optional
	Version string `json:"version,omitempty"`

	// Repository is the image repository without a tag. The tag is "v" followed by the version.
	// The image must contain etcd, etcdctl and etcdutl.
	// +kubebuilder:default="gcr.io/etcd-development/etcd"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?/)?[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*$')",message="repository must be an image repository without a tag or digest, for example gcr.io/etcd-development/etcd. The operator makes the tag from version."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Image repository",order=3,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Repository string `json:"repository,omitempty"`

	// Paused stops the changes by the operator to this cluster. etcd continues to run, and the status stays current.
	// Certificates are still renewed, and a member that has started still gets the settings that refuse an empty volume.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Paused",order=4,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:booleanSwitch"}
	// +optional
	Paused bool `json:"paused,omitempty"`

	// Pod sets fields of the pods and volumes of the members.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Pod policy",order=5,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Pod *PodPolicy `json:"pod,omitempty"`

	// TLS names the Secrets that secure the traffic of clients and peers. Without it the traffic is not encrypted.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="TLS",order=6
	// +optional
	TLS *TLSPolicy `json:"TLS,omitempty"`
}

// PodPolicy sets fields of the pods and volumes of the members.
// +kubebuilder:validation:XValidation:rule="!has(self.antiAffinity) || !self.antiAffinity || !has(self.affinity) || !has(self.affinity.podAntiAffinity)",message="write either antiAffinity: true or affinity.podAntiAffinity, not both. The first sets the second."
type PodPolicy struct {
	// Labels are added to the pods of the members.
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('operator.etcd-warden.io/') && !k.startsWith('app.kubernetes.io/'))",message="labels must not have the prefix operator.etcd-warden.io/ or app.kubernetes.io/, because the operator sets such labels itself. Write another prefix."
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// Annotations are added to the pods of the members.
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('operator.etcd-warden.io/'))",message="annotations must not have the prefix operator.etcd-warden.io/, because the operator sets such annotations itself. Write another prefix."
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`

	// NodeSelector selects the nodes that members may run on, by the labels of the nodes.
	// +kubebuilder:validation:MaxProperties=64
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// Affinity replaces the default. The default spreads members over nodes and zones if the scheduler can do so.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// AntiAffinity set to true never puts two members of this cluster on one node.
	// +optional
	AntiAffinity bool `json:"antiAffinity,omitempty"`

	// Tolerations of the pods of the members.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// Resources of the etcd container.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Resources",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:resourceRequirements"}
	// +optional
	Resources ResourceRequirements `json:"resources,omitempty,omitzero"`

	// SecurityContext of the pods. Fields that are not set follow the restricted Pod Security Standard of Kubernetes.
	// Values that this standard forbids are refused: the user root, unconfined profiles, other SELinux types,
	// and sysctls that are not on its list. The last two are refused by the condition Progressing
	// with the reason SecurityNotRestricted.
	// +kubebuilder:validation:XValidation:rule="!has(self.runAsUser) || self.runAsUser != 0",message="runAsUser must not be 0, because members do not run as root. Remove it, or write another user, for example 65532."
	// +kubebuilder:validation:XValidation:rule="!has(self.runAsNonRoot) || self.runAsNonRoot",message="runAsNonRoot must not be false, because members do not run as root. Remove it, or write true."
	// +kubebuilder:validation:XValidation:rule="!has(self.seccompProfile) || self.seccompProfile.type != 'Unconfined'",message="seccompProfile.type must not be Unconfined. Remove seccompProfile, or write RuntimeDefault or Localhost."
	// +kubebuilder:validation:XValidation:rule="!has(self.appArmorProfile) || self.appArmorProfile.type != 'Unconfined'",message="appArmorProfile.type must not be Unconfined. Remove appArmorProfile, or write RuntimeDefault or Localhost."
	// +kubebuilder:validation:XValidation:rule="!has(self.windowsOptions) || !has(self.windowsOptions.hostProcess) || !self.windowsOptions.hostProcess",message="windowsOptions.hostProcess must not be true. Remove it: members run in Linux containers."
	// +optional
	SecurityContext *corev1.PodSecurityContext `json:"securityContext,omitempty"`

	// EtcdEnv sets options of etcd by their environment variables, for example ETCD_QUOTA_BACKEND_BYTES.
	// The operator passes on the options of an allow list. It sets addresses, certificates, folders and membership itself.
	// Another option is refused by the condition Progressing with the reason UnsupportedOption.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	// +optional
	EtcdEnv []EtcdOption `json:"etcdEnv,omitempty"`

	// PersistentVolumeClaimSpec describes the volume of each member. The default is 2Gi of the default StorageClass.
	// Volumes are kept when the cluster is deleted.
	// +optional
	PersistentVolumeClaimSpec *VolumeClaimSpec `json:"persistentVolumeClaimSpec,omitempty"`

	// ClusterDomain is the DNS domain of the Kubernetes cluster. The operator appends it to the host names in peer URLs.
	// Without it the host names end in ".svc", and the DNS search path of the pods completes them.
	// +kubebuilder:validation:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="ClusterDomain must be a DNS name in lower case that neither begins nor ends with a dot, for example cluster.local."
	// +optional
	ClusterDomain string `json:"ClusterDomain,omitempty"`

	// DNSTimeoutInSecond is accepted and has no effect, because no init container waits for DNS.
	// +optional
	DNSTimeoutInSecond int64 `json:"DNSTimeoutInSecond,omitempty"`

	// BusyboxImage is accepted and has no effect, because members have no init container.
	// +kubebuilder:validation:MaxLength=255
	// +optional
	BusyboxImage string `json:"busyboxImage,omitempty"`
}

// ResourceRequirements are the requests and limits of the etcd container.
type ResourceRequirements struct {
	// Limits of the etcd container.
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, !string(self[k]).matches('[eE][+-]?[0-9]{3}') && isQuantity(string(self[k])) && !string(self[k]).startsWith('-'))",message="limits must be quantities that are not negative, for example 500m or 2Gi."
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`
	// Requests of the etcd container.
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, !string(self[k]).matches('[eE][+-]?[0-9]{3}') && isQuantity(string(self[k])) && !string(self[k]).startsWith('-'))",message="requests must be quantities that are not negative, for example 500m or 2Gi."
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// EtcdOption is one option of etcd by its environment variable.
// +kubebuilder:validation:XValidation:rule="self.name.matches('^ETCD(_[A-Z0-9]+)+$')",message="name must be an environment variable of etcd, for example ETCD_QUOTA_BACKEND_BYTES. It has capital letters, digits and single underscores."
type EtcdOption struct {
	// Name is the environment variable of the option.
	// +kubebuilder:validation:MaxLength=105
	// +required
	Name string `json:"name"`
	// Value is the value of the option. The operator passes it to etcd unchanged and expands no variables in it.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Value string `json:"value,omitempty"`
}

// VolumeClaimSpec describes the PersistentVolumeClaim of a member.
// +kubebuilder:validation:XValidation:rule="has(self.resources.requests) && 'storage' in self.resources.requests",message="resources.requests.storage is required. Write the size of the volume, for example 8Gi."
type VolumeClaimSpec struct {
	// StorageClassName is the name of the StorageClass. The default is the default StorageClass.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
	// AccessModes of the volume. The default is ReadWriteOnce.
	// +kubebuilder:validation:MaxItems=1
	// +kubebuilder:validation:items:Enum=ReadWriteOnce;ReadWriteOncePod
	// +listType=atomic
	// +optional
	AccessModes []corev1.PersistentVolumeAccessMode `json:"accessModes,omitempty"`
	// Resources contains the size of the volume in requests.storage.
	// +required
	Resources VolumeResources `json:"resources"`
}

// VolumeResources contains the size of a volume.
type VolumeResources struct {
	// Requests contains the key storage, and no other key.
	// +kubebuilder:validation:MaxProperties=1
	// +kubebuilder:validation:XValidation:rule="self.all(k, k == 'storage')",message="requests of a volume may contain only the key storage. Remove the other keys."
	// +kubebuilder:validation:XValidation:rule="self.all(k, !string(self[k]).matches('[eE][+-]?[0-9]{3}') && isQuantity(string(self[k])) && quantity(string(self[k])).compareTo(quantity('256Mi')) >= 0)",message="storage must be a quantity of at least 256Mi, for example 8Gi. etcd allocates its log in steps of 64 MB."
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// TLSPolicy selects the source of certificates.
// +kubebuilder:validation:XValidation:rule="has(self.static)",message="TLS must contain static with the names of your Secrets. To turn TLS off, remove the field TLS."
type TLSPolicy struct {
	// Static names Secrets of the user in the namespace of the cluster.
	// +optional
	Static *StaticTLS `json:"static,omitempty"`
}

// StaticTLS names Secrets of the user.
// +kubebuilder:validation:XValidation:rule="has(self.member) || has(self.operatorSecret)",message="TLS.static must contain member.serverSecret with operatorSecret, or member.peerSecret, or all three."
// +kubebuilder:validation:XValidation:rule="!(has(self.member) && has(self.member.serverSecret)) || has(self.operatorSecret)",message="TLS.static.member.serverSecret requires TLS.static.operatorSecret, because members require a certificate from every client, and the operator is a client. Write both or neither."
// +kubebuilder:validation:XValidation:rule="!has(self.operatorSecret) || (has(self.member) && has(self.member.serverSecret))",message="TLS.static.operatorSecret requires TLS.static.member.serverSecret, because without it client traffic is not encrypted. Write both or neither."
type StaticTLS struct {
	// Member names the Secrets of the members.
	// +optional
	Member *MemberSecrets `json:"member,omitempty"`
	// OperatorSecret is the name of the Secret with the client certificate of the operator.
	// Its keys are etcd-client.crt, etcd-client.key and etcd-client-ca.crt.
	// If you turn on authentication in etcd, the common name of the certificate must be root.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="operatorSecret must be the name of a Secret. Write lower case letters, digits, hyphens and dots, for example prod-operator."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Operator's client Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +optional
	OperatorSecret string `json:"operatorSecret,omitempty"`
}

// MemberSecrets names the Secrets of the members.
// +kubebuilder:validation:XValidation:rule="has(self.peerSecret) || has(self.serverSecret)",message="TLS.static.member must contain peerSecret, serverSecret, or both."
type MemberSecrets struct {
	// PeerSecret is the name of the Secret with the keys peer.crt, peer.key and peer-ca.crt.
	// The certificate must have server and client usage,
	// and the DNS names *.NAME.NAMESPACE.svc and *.NAME.NAMESPACE.svc.CLUSTERDOMAIN.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="peerSecret must be the name of a Secret. Write lower case letters, digits, hyphens and dots, for example prod-peer."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Peer Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +optional
	PeerSecret string `json:"peerSecret,omitempty"`
	// ServerSecret is the name of the Secret with the keys server.crt, server.key and server-ca.crt.
	// The certificate must have server and client usage,
	// and the DNS names *.NAME.NAMESPACE.svc and NAME-client.NAMESPACE.svc.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="serverSecret must be the name of a Secret. Write lower case letters, digits, hyphens and dots, for example prod-server."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Server Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +optional
	ServerSecret string `json:"serverSecret,omitempty"`
}

// EtcdCluster is an etcd cluster, with the field names of the original etcd operator. New manifests should use v1beta1.
// +kubebuilder:object:root=true
// +kubebuilder:deprecatedversion:warning="operator.etcd-warden.io/v1alpha1 EtcdCluster is deprecated. Releases before etcd-warden 1.0 serve it. Write v1beta1 instead: kubectl get etcdclusters.v1beta1.operator.etcd-warden.io shows your clusters in it"
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=etcd,categories=all
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.status.targetVersion`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.conditions[?(@.type=="Progressing")].reason`
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.status.operation.type`,priority=1
// +kubebuilder:printcolumn:name="Member",type=string,JSONPath=`.status.operation.member`,priority=1
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].reason`,priority=1
// +kubebuilder:printcolumn:name="Leader",type=string,JSONPath=`.status.leader`,priority=1
// +kubebuilder:printcolumn:name="Cluster ID",type=string,JSONPath=`.status.clusterID`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 46",message="the name of the cluster may have at most 46 characters, because the names of its pods contain it. Write a shorter name."
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",message="the name of the cluster must start with a lower case letter and must not end with a hyphen. It may contain only lower case letters, digits and hyphens, because the names of its Services contain it."
// +operator-sdk:csv:customresourcedefinitions:displayName="etcd cluster (v1alpha1, deprecated)",resources={{StatefulSet,v1,NAME-0},{Service,v1,NAME-client},{PersistentVolumeClaim,v1,data-NAME-0},{PodDisruptionBudget,v1,NAME},{Pod,v1,NAME-0-0},{Event,v1,NAME}}
type EtcdCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec EtcdClusterSpec `json:"spec"`
	// +optional
	Status EtcdClusterStatus `json:"status,omitempty,omitzero"`
}

// Key returns the namespace and the name of the cluster.
func (c *EtcdCluster) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

// EtcdClusterList is a list of etcd clusters.
// +kubebuilder:object:root=true
type EtcdClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EtcdCluster `json:"items"`
}
