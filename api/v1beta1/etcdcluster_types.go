package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// EtcdClusterKind is the kind of an EtcdCluster, in every version.
const EtcdClusterKind = "EtcdCluster"

// BootstrapAnnotation with the value BootstrapEmpty means the same as spec.bootstrap.existingVolumes: Ignore.
// v1alpha1 has no such field, so it uses the annotation. The operator obeys it in both versions.
const (
	BootstrapAnnotation = "operator.etcd-warden.io/bootstrap"
	BootstrapEmpty      = "Empty"
)

// RotateAuthoritiesAnnotation makes the operator replace the certificate authorities that it manages.
// Each new value starts one rotation.
const RotateAuthoritiesAnnotation = "operator.etcd-warden.io/rotate-authorities"

// AcceptVolumeAnnotation on the PersistentVolumeClaim of a member makes the operator start the member on another volume
// than the one that it started on before. The value names that volume: the UID of the claim, a slash, and the name of
// the PersistentVolume. The operator removes the annotation when it has obeyed it.
// Never accept a copy, a snapshot or a restore of the member's volume: it lost acknowledged writes, and would vote
// other members' copies of them away.
const AcceptVolumeAnnotation = "operator.etcd-warden.io/accept-volume"

// RestartAnnotation on an EtcdCluster restarts its members one after the other, as kubectl rollout restart does for a
// Deployment. Each new value restarts each member once. Removing the annotation restarts none.
// Only the first MaxRestartValue bytes of the value count.
const (
	RestartAnnotation = "operator.etcd-warden.io/restart"
	MaxRestartValue   = 253
)

// ReplaceMemberAnnotation on an EtcdCluster makes the operator replace one member by a new one. The value names the
// member and its ID in etcd: NAME/ID, as status.members has them, so that it never speaks of another member than the
// user meant. The operator removes the annotation when it has obeyed it.
const ReplaceMemberAnnotation = "operator.etcd-warden.io/replace-member"

// CheckConsistencyAnnotation on an EtcdCluster makes the operator compare the data of all members once. Each member
// answers nothing else while it computes the hash of its data. Any value that is not empty starts one comparison. The
// operator removes the annotation when the condition DataConsistent has the result.
const CheckConsistencyAnnotation = "operator.etcd-warden.io/check-consistency"

// DefragmentAnnotation on an EtcdCluster makes the operator defragment its members once, one after the other, the
// leader last. The value may be anything but empty. The operator adds DefragmentedMark and the names of the members
// that are done to it, and removes the annotation when all are.
const (
	DefragmentAnnotation = "operator.etcd-warden.io/defragment"
	DefragmentedMark     = " done: "
)

// MoveLeaderAnnotation on an EtcdCluster makes the operator hand the leadership over to the member that the value
// names. The operator removes the annotation when that member leads.
const MoveLeaderAnnotation = "operator.etcd-warden.io/move-leader"

// PlanAnnotation on an EtcdCluster makes the operator answer with an Event that says what it would do to reach the
// spec, and in which order. Each new value gets one answer. The annotation changes nothing else.
// A value of more than MaxPlanValue bytes gets none.
const (
	PlanAnnotation = "operator.etcd-warden.io/plan"
	MaxPlanValue   = 253
)

// FreezeAnnotation on a namespace, with the value FreezeValue, keeps the operator from beginning any step there that
// may disturb members: lost members are not replaced either. It finishes the step that it has begun, and still restarts
// members whose pods have failed.
const (
	FreezeAnnotation = "operator.etcd-warden.io/freeze-disruptions"
	FreezeValue      = "true"
)

// EtcdClusterSpec is the desired state of a cluster.
// The operator refuses what it cannot carry out: the running cluster stays as it is, and the conditions say why.
// +kubebuilder:validation:XValidation:rule="(has(self.clusterDomain) ? self.clusterDomain : '-') == (has(oldSelf.clusterDomain) ? oldSelf.clusterDomain : '-')",message="clusterDomain cannot change, because the peer URLs of the members contain it. Write the old value, or create another cluster with the new domain."
type EtcdClusterSpec struct {
	// Replicas is the number of members: 1, 3, 5 or 7.
	// An even number survives no more failures than the odd number below it.
	// +kubebuilder:validation:XValidation:rule="self in [1, 3, 5, 7]",message="replicas must be 1, 3, 5 or 7. An even number survives no more failures than the odd number below it, and more than 7 members make every write slow."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Members",order=1,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:podCount"}
	// +required
	Replicas int32 `json:"replicas"`

	// Version is the etcd version, written as x.y.z without a leading "v", for example 3.6.16.
	// Supported are 3.5 from 3.5.32 on, 3.6 from 3.6.12 on, and 3.7.
	// Another version is refused by the condition Progressing with the reason UnsupportedVersion.
	// +kubebuilder:default="3.6.16"
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)$')",message="version must have the form x.y.z without a leading v, for example 3.6.16."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="etcd version",order=2,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:text"}
	// +optional
	Version string `json:"version,omitempty"`

	// Image is the container image of etcd.
	// +kubebuilder:default={}
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Image",order=3,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Image Image `json:"image,omitempty,omitzero"`

	// Storage describes the volumes of the members. The default is 8Gi of the default StorageClass for each member.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Storage",order=4
	// +optional
	Storage *Storage `json:"storage,omitempty"`

	// TLS secures the traffic of clients and between members.
	// By default the operator issues and renews all certificates.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="TLS",order=5
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// Config sets options of etcd.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="etcd configuration",order=6
	// +optional
	Config *Config `json:"config,omitempty"`

	// Resources of the etcd container.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Resources",order=7,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:resourceRequirements"}
	// +optional
	Resources ResourceRequirements `json:"resources,omitempty,omitzero"`

	// PodTemplate sets fields of the pods of the members.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Pod template",order=8,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	PodTemplate *PodTemplate `json:"podTemplate,omitempty"`

	// ClusterDomain is the DNS domain of the Kubernetes cluster. The operator appends it to the host names in peer URLs.
	// Without it the host names end in ".svc", and the DNS search path of the pods completes them.
	// +kubebuilder:validation:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="clusterDomain must be a DNS name in lower case that neither begins nor ends with a dot, for example cluster.local."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Cluster domain",order=9,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	ClusterDomain string `json:"clusterDomain,omitempty"`

	// UpdateStrategy says how the operator changes the members of a running cluster.
	// It always changes one member at a time.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Update strategy",order=12,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	UpdateStrategy *UpdateStrategy `json:"updateStrategy,omitempty"`

	// Recovery says what the operator does about members that are lost.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Recovery",order=13,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Recovery *Recovery `json:"recovery,omitempty"`

	// Maintenance says how the operator takes care of the members' databases.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Maintenance",order=14,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Maintenance *Maintenance `json:"maintenance,omitempty"`

	// Bootstrap says how a new cluster starts.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Bootstrap",order=10,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Bootstrap *Bootstrap `json:"bootstrap,omitempty"`

	// Paused stops the changes by the operator to this cluster. etcd continues to run, and the status stays current.
	// Certificates are still renewed, and a member that has started still gets the settings that refuse an empty volume.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Paused",order=11,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:booleanSwitch"}
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// Image is the container image of etcd.
type Image struct {
	// Repository is the image repository without a tag. Without the fields tag and digest, the tag is "v" followed by the
	// version.
	// The image must contain etcd, etcdctl and etcdutl.
	// +kubebuilder:default="gcr.io/etcd-development/etcd"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?/)?[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*$')",message="repository must be an image repository without a tag or digest, for example gcr.io/etcd-development/etcd. The operator makes the tag from version."
	// +optional
	Repository string `json:"repository,omitempty"`
	// Tag replaces the tag "v" followed by the version, for images with other tags.
	// The version must still be the etcd version in the image: change both together.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$')",message="tag must be the tag of an image. Write letters, digits, underscores, dots and hyphens, for example v3.6.16-1. The first character must not be a dot or a hyphen."
	// +optional
	Tag string `json:"tag,omitempty"`
	// Digest selects exactly this image, whatever its tags are: sha256: or sha512: and the hexadecimal digits.
	// The version must still be the etcd version in the image: change both together.
	// +kubebuilder:validation:MaxLength=135
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$')",message="digest must be sha256: and 64 hexadecimal digits in lower case, or sha512: and 128. The registry shows it, for example with crane digest IMAGE."
	// +optional
	Digest string `json:"digest,omitempty"`
	// PullPolicy says when nodes pull the image. IfNotPresent, which is the default, pulls it if the node does not have
	// it. Always asks the registry at each start of a container. Then no member starts while the registry does not answer.
	// +optional
	PullPolicy ImagePullPolicy `json:"pullPolicy,omitempty"`
}

// ImagePullPolicy says when nodes pull the image of etcd.
// +kubebuilder:validation:Enum=Always;IfNotPresent
type ImagePullPolicy string

// The pull policies.
const (
	// PullAlways asks the registry at each start of a container.
	PullAlways ImagePullPolicy = "Always"
	// PullIfNotPresent pulls the image if the node does not have it.
	PullIfNotPresent ImagePullPolicy = "IfNotPresent"
)

// Storage describes the volumes of the members.
type Storage struct {
	// VolumeClaimTemplate describes the PersistentVolumeClaim of each member.
	// The default is 8Gi of the default StorageClass.
	// +optional
	VolumeClaimTemplate *VolumeClaimTemplate `json:"volumeClaimTemplate,omitempty"`
	// RetentionPolicy says whether volumes are kept when they are no longer needed.
	// +optional
	RetentionPolicy *RetentionPolicy `json:"retentionPolicy,omitempty"`
	// Ephemeral keeps the data of each member in memory instead of on a volume. They are lost when the pod of the member
	// goes. The member is then replaced by another one. If a majority goes at once, all data are lost (docs/memory.md). It
	// is decided when the cluster is created: the operator refuses a change. VolumeClaimTemplate and RetentionPolicy have
	// no effect beside it.
	// +optional
	Ephemeral *EphemeralStorage `json:"ephemeral,omitempty"`
}

// EphemeralMedium is where data are that go with the pod.
// +kubebuilder:validation:Enum=Memory
type EphemeralMedium string

// EphemeralMemory keeps the data in memory. They count against the memory limit of the container.
const EphemeralMemory EphemeralMedium = "Memory"

// EphemeralStorage describes data that go with the pod.
type EphemeralStorage struct {
	// Medium is Memory.
	// +required
	Medium EphemeralMedium `json:"medium"`
	// SizeLimit is how much memory the data of a member may take, the log included. The memory limit of the container, if
	// there is one, must be at least this and the quota of the database together.
	// +kubebuilder:validation:XValidation:rule="!string(self).matches('[eE][+-]?[0-9]{3}') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('256Mi')) >= 0",message="sizeLimit must be a quantity of at least 256Mi, for example 1Gi. etcd allocates its log in steps of 64 MB."
	// +required
	SizeLimit resource.Quantity `json:"sizeLimit"`
}

// VolumeClaimTemplate describes the PersistentVolumeClaim of a member.
type VolumeClaimTemplate struct {
	// Spec of the claim.
	// +required
	Spec VolumeClaimSpec `json:"spec"`
}

// VolumeClaimSpec describes the PersistentVolumeClaim of a member.
// +kubebuilder:validation:XValidation:rule="has(self.resources.requests) && 'storage' in self.resources.requests",message="resources.requests.storage is required. Write the size of the volume, for example 8Gi."
type VolumeClaimSpec struct {
	// StorageClassName is the name of the StorageClass. The default is the default StorageClass.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Storage class",xDescriptors={"urn:alm:descriptor:io.kubernetes:StorageClass"}
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

// RetentionPolicyType says whether volumes are kept.
// +kubebuilder:validation:Enum=Retain;Delete
type RetentionPolicyType string

// The retention policies.
const (
	// RetentionRetain keeps the volumes. A new cluster with the same name takes them back.
	RetentionRetain RetentionPolicyType = "Retain"
	// RetentionDelete deletes the volumes and their data.
	RetentionDelete RetentionPolicyType = "Delete"
)

// RetentionPolicy says whether volumes are kept when they are no longer needed.
type RetentionPolicy struct {
	// WhenDeleted applies when the EtcdCluster is deleted: Retain keeps the volumes, Delete deletes them and their data.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Volumes of a deleted cluster",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Retain","urn:alm:descriptor:com.tectonic.ui:select:Delete"}
	// +kubebuilder:default=Retain
	// +optional
	WhenDeleted RetentionPolicyType `json:"whenDeleted,omitempty"`
	// WhenScaled applies to the volume of a member that is removed because replicas became smaller: Retain, which is the
	// default, keeps it, Delete deletes it and its data. No member ever uses such a volume again.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Volumes of removed members",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Retain","urn:alm:descriptor:com.tectonic.ui:select:Delete"}
	// +optional
	WhenScaled RetentionPolicyType `json:"whenScaled,omitempty"`
	// WhenReplaced applies to the volume of a member that was replaced by another one, because it was lost, or because
	// its user asked for it: Retain, which is the default, keeps it, Delete deletes it and its data. No member ever uses
	// such a volume again.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Volumes of replaced members",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Retain","urn:alm:descriptor:com.tectonic.ui:select:Delete"}
	// +optional
	WhenReplaced RetentionPolicyType `json:"whenReplaced,omitempty"`
}

// TLS secures the traffic of clients and between members.
type TLS struct {
	// Client secures the traffic between clients and members. The operator is one of these clients.
	// +optional
	Client *ClientTLS `json:"client,omitempty"`
	// Peer secures the traffic between members.
	// +optional
	Peer *PeerTLS `json:"peer,omitempty"`
}

// TLSMode selects certificates of the operator, or no TLS.
// +kubebuilder:validation:Enum=Managed;Disabled
type TLSMode string

// The modes of TLS.
const (
	// TLSManaged makes the operator create a certificate authority, issue all certificates and renew them.
	TLSManaged TLSMode = "Managed"
	// TLSDisabled turns TLS off: traffic is not encrypted, and any client that can reach the pods has access.
	TLSDisabled TLSMode = "Disabled"
)

// ClientTLS selects the source of the certificates for client traffic. The default is the operator.
// +kubebuilder:validation:XValidation:rule="[has(self.mode), has(self.certManager), has(self.secretRef)].filter(x, x).size() <= 1",message="write only one of mode, certManager and secretRef. Each of them alone decides how this traffic is secured."
type ClientTLS struct {
	// Mode is Managed, which is the default, or Disabled, which turns TLS off.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Client certificates",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Managed","urn:alm:descriptor:com.tectonic.ui:select:Disabled"}
	// +optional
	Mode TLSMode `json:"mode,omitempty"`
	// CertManager makes cert-manager issue the certificates.
	// +optional
	CertManager *CertManagerTLS `json:"certManager,omitempty"`
	// SecretRef names Secrets of the user in the namespace of the cluster.
	// +optional
	SecretRef *ClientSecretRef `json:"secretRef,omitempty"`
}

// PeerTLS selects the source of the certificates for traffic between members. The default is the operator.
// +kubebuilder:validation:XValidation:rule="[has(self.mode), has(self.certManager), has(self.secretRef)].filter(x, x).size() <= 1",message="write only one of mode, certManager and secretRef. Each of them alone decides how this traffic is secured."
type PeerTLS struct {
	// Mode is Managed, which is the default, or Disabled, which turns TLS off.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Peer certificates",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Managed","urn:alm:descriptor:com.tectonic.ui:select:Disabled"}
	// +optional
	Mode TLSMode `json:"mode,omitempty"`
	// CertManager makes cert-manager issue the certificate.
	// +optional
	CertManager *CertManagerTLS `json:"certManager,omitempty"`
	// SecretRef names a Secret of the user in the namespace of the cluster.
	// +optional
	SecretRef *PeerSecretRef `json:"secretRef,omitempty"`
}

// CertManagerTLS makes cert-manager issue certificates.
type CertManagerTLS struct {
	// IssuerRef names the issuer. The issuer must write the certificate of its authority into ca.crt.
	// CA issuers and Vault issuers do so.
	// +required
	IssuerRef IssuerRef `json:"issuerRef"`
}

// IssuerRef refers to an issuer of cert-manager.
type IssuerRef struct {
	// Name of the issuer.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="name must be the name of an issuer. Write lower case letters, digits, hyphens and dots, for example ca."
	// +required
	Name string `json:"name"`
	// Kind is Issuer, ClusterIssuer, or the kind of an external issuer. An Issuer is in the namespace of the cluster.
	// +kubebuilder:default=Issuer
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Kind string `json:"kind,omitempty"`
	// Group is the API group of the kind.
	// +kubebuilder:default="cert-manager.io"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Group string `json:"group,omitempty"`
}

// SecretFormat selects the names of the keys in a Secret.
// +kubebuilder:validation:Enum=TLS;EtcdOperator
type SecretFormat string

// The formats of Secrets.
const (
	// SecretFormatTLS has the keys of kubernetes.io/tls and cert-manager: tls.crt, tls.key and ca.crt.
	SecretFormatTLS SecretFormat = "TLS"
	// SecretFormatEtcdOperator has the keys of the original etcd operator and of v1alpha1:
	// peer.crt, peer.key and peer-ca.crt for peers; server.crt, server.key and server-ca.crt for the servers;
	// etcd-client.crt, etcd-client.key and etcd-client-ca.crt for the operator.
	SecretFormatEtcdOperator SecretFormat = "EtcdOperator"
)

// ClientSecretRef names the Secrets for client traffic.
type ClientSecretRef struct {
	// Name of the Secret with the server certificate of the members. The certificate must have server and client usage,
	// and the DNS names *.NAME.NAMESPACE.svc and NAME-client.NAMESPACE.svc.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="name must be the name of a Secret. Write lower case letters, digits, hyphens and dots, for example prod-server."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Server Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +required
	Name string `json:"name"`
	// OperatorName is the name of the Secret with the client certificate of the operator.
	// If you turn on authentication in etcd, its common name must be root.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="operatorName must be the name of a Secret. Write lower case letters, digits, hyphens and dots, for example prod-operator."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Operator's client Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +required
	OperatorName string `json:"operatorName"`
	// Format selects the keys of both Secrets. TLS means tls.crt, tls.key and ca.crt.
	// EtcdOperator means the keys of the original etcd operator.
	// +kubebuilder:default=TLS
	// +optional
	Format SecretFormat `json:"format,omitempty"`
}

// PeerSecretRef names the Secret for traffic between members.
type PeerSecretRef struct {
	// Name of the Secret with the peer certificate of the members. The certificate must have server and client usage,
	// and the DNS names *.NAME.NAMESPACE.svc and *.NAME.NAMESPACE.svc.CLUSTERDOMAIN.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="name must be the name of a Secret. Write lower case letters, digits, hyphens and dots, for example prod-peer."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Peer Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +required
	Name string `json:"name"`
	// Format selects the keys of the Secret. TLS means tls.crt, tls.key and ca.crt.
	// EtcdOperator means the keys of the original etcd operator.
	// +kubebuilder:default=TLS
	// +optional
	Format SecretFormat `json:"format,omitempty"`
}

// Config sets options of etcd.
// +kubebuilder:validation:XValidation:rule="!has(self.quotaBackendBytes) || !has(self.extraArgs) || !('quota-backend-bytes' in self.extraArgs)",message="write either quotaBackendBytes or extraArgs.quota-backend-bytes, not both. They set the same option."
// +kubebuilder:validation:XValidation:rule="!has(self.autoCompaction) || !has(self.extraArgs) || !('auto-compaction-mode' in self.extraArgs || 'auto-compaction-retention' in self.extraArgs)",message="write either autoCompaction or the options auto-compaction-mode and auto-compaction-retention of extraArgs, not both. They set the same options."
// +kubebuilder:validation:XValidation:rule="(has(self.extraArgs) ? size(self.extraArgs) : 0) + (has(self.quotaBackendBytes) ? 1 : 0) + (has(self.autoCompaction) ? 2 : 0) <= 64",message="config may set at most 64 options. quotaBackendBytes counts as one option and autoCompaction as two. Remove some options."
type Config struct {
	// QuotaBackendBytes is the largest size of the database of a member, from 16Mi to 16Gi.
	// At this size etcd refuses writes. A fifth of the volume, and at least 128Mi, must stay free for the log,
	// because etcd exits when the disk is full.
	// The default is 40% of the volume, at most 2Gi: defragmentation writes a second copy of the database.
	// +kubebuilder:validation:XValidation:rule="!string(self).matches('[eE][+-]?[0-9]{3}') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('16Gi')) <= 0",message="quotaBackendBytes must be a quantity from 16Mi to 16Gi, for example 2Gi."
	// +optional
	QuotaBackendBytes *resource.Quantity `json:"quotaBackendBytes,omitempty"`
	// AutoCompaction makes etcd discard old revisions. Without it etcd keeps all revisions.
	// +optional
	AutoCompaction *AutoCompaction `json:"autoCompaction,omitempty"`
	// ExtraArgs are further options of etcd. A key is the name of an option without leading dashes,
	// for example snapshot-count: "10000".
	// The operator passes on the options of an allow list. It sets addresses, certificates, folders and membership itself.
	// Another option is refused by the condition Progressing with the reason UnsupportedOption.
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 100 && k.matches('^[a-z0-9]+(-[a-z0-9]+)*$'))",message="a key of extraArgs must be the name of an option without leading dashes, for example snapshot-count. It consists of lower case letters, digits and single hyphens, at most 100 characters in all."
	// +optional
	ExtraArgs map[string]string `json:"extraArgs,omitempty"`
}

// AutoCompactionMode is the unit of the retention.
// +kubebuilder:validation:Enum=Periodic;Revision
type AutoCompactionMode string

// The modes of automatic compaction.
const (
	// AutoCompactionPeriodic keeps the revisions of a duration.
	AutoCompactionPeriodic AutoCompactionMode = "Periodic"
	// AutoCompactionRevision keeps a number of revisions.
	AutoCompactionRevision AutoCompactionMode = "Revision"
)

// AutoCompaction makes etcd discard old revisions.
// +kubebuilder:validation:XValidation:rule="self.mode != 'Periodic' || self.retention.matches('^[1-9][0-9]*(s|m|h)$')",message="with the mode Periodic, retention must be a whole number above 0 with one of the units s, m and h, for example 1h or 90m."
// +kubebuilder:validation:XValidation:rule="self.mode != 'Revision' || self.retention.matches('^[1-9][0-9]*$')",message="with the mode Revision, retention must be a whole number of revisions above 0, for example 10000."
type AutoCompaction struct {
	// Mode is Periodic or Revision.
	// +required
	Mode AutoCompactionMode `json:"mode"`
	// Retention is a duration with the mode Periodic, for example 1h.
	// With the mode Revision it is a number of revisions, for example 10000.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=20
	// +required
	Retention string `json:"retention"`
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

// PodTemplate sets fields of the pods of the members.
// +kubebuilder:validation:XValidation:rule="!has(self.memberAntiAffinity) || self.memberAntiAffinity != 'Required' || !has(self.spec) || !has(self.spec.affinity) || !has(self.spec.affinity.podAntiAffinity)",message="write either memberAntiAffinity: Required or spec.affinity.podAntiAffinity, not both. The first sets the second."
type PodTemplate struct {
	// Metadata contains labels and annotations for the pods.
	// +optional
	Metadata PodMetadata `json:"metadata,omitempty,omitzero"`
	// Spec contains the fields of the pod spec that can be set.
	// +optional
	Spec PodSpec `json:"spec,omitempty,omitzero"`
	// MemberAntiAffinity says how strictly members are kept on different nodes.
	// Required never puts two members of this cluster on one node.
	// Preferred, which is the default, spreads the members over nodes and zones if the scheduler can do so.
	// Where Preferred is written, the condition PlacementAdvisory does not tell of members that share a node.
	// Preferred has no effect if spec.affinity or spec.topologySpreadConstraints is set.
	// +optional
	MemberAntiAffinity MemberAntiAffinity `json:"memberAntiAffinity,omitempty"`
}

// MemberAntiAffinity says how strictly members are kept on different nodes.
// +kubebuilder:validation:Enum=Preferred;Required
type MemberAntiAffinity string

// How strictly members are kept on different nodes.
const (
	// MemberAntiAffinityPreferred spreads the members over nodes and zones if the scheduler can do so.
	MemberAntiAffinityPreferred MemberAntiAffinity = "Preferred"
	// MemberAntiAffinityRequired never puts two members of this cluster on one node.
	MemberAntiAffinityRequired MemberAntiAffinity = "Required"
)

// PodMetadata contains labels and annotations for the pods of the members.
type PodMetadata struct {
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
}

// PodSpec contains the fields of the pod spec that can be set.
type PodSpec struct {
	// NodeSelector selects the nodes that members may run on, by the labels of the nodes.
	// +kubebuilder:validation:MaxProperties=64
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Affinity replaces the default. The default spreads members over nodes and zones if the scheduler can do so.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// Tolerations of the pods of the members.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// TopologySpreadConstraints replace the default.
	// The default spreads members over nodes and zones if the scheduler can do so.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// PriorityClassName is the PriorityClass of the pods. When nodes are full, pods of a lower priority are stopped first.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// SchedulerName is the name of the scheduler of the pods. The default is the default scheduler of Kubernetes.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	SchedulerName string `json:"schedulerName,omitempty"`
	// RuntimeClassName is the RuntimeClass of the pods. The default is the default container runtime.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	RuntimeClassName string `json:"runtimeClassName,omitempty"`
	// ImagePullSecrets are Secrets with access to the image registry, in the namespace of the cluster.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(r, size(r.name) > 0 && size(r.name) <= 253 && !r.name.contains('/'))",message="each entry of imagePullSecrets must contain the name of a Secret, for example name: registry."
	// +listType=atomic
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
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
}

// UpdateStrategy says how the operator changes the members of a running cluster.
type UpdateStrategy struct {
	// OperatorUpgrade says what happens if a new release of the operator makes the pods differently.
	// Wait, which is the default, restarts nothing: the condition RestartPending is true until the next restart of each
	// pod. Roll restarts the members one after the other at once.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="At an upgrade of the operator",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Wait","urn:alm:descriptor:com.tectonic.ui:select:Roll"}
	// +optional
	OperatorUpgrade OperatorUpgradePolicy `json:"operatorUpgrade,omitempty"`
	// ProgressDeadlineSeconds is how long one step may take, for example the restart of one member, from 60 to 86400.
	// The default is 600. A member that is not healthy by then goes back to the last pod template with which it was
	// healthy, and the condition Progressing becomes false with the reason DeadlineExceeded or RolledBack.
	// Write more if members need longer to pull the image, to load a large database or to copy it.
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=86400
	// +optional
	ProgressDeadlineSeconds int32 `json:"progressDeadlineSeconds,omitempty"`
}

// Recovery says what the operator does about members that are lost.
type Recovery struct {
	// MemberReplacement says when a new member takes the place of one that is lost.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Replacement of members"
	// +optional
	MemberReplacement *MemberReplacement `json:"memberReplacement,omitempty"`
}

// MemberReplacement says when a new member, with a new name and a new volume, takes the place of one that is lost. That
// happens only while the other members have a quorum.
type MemberReplacement struct {
	// Policy says who replaces a lost member. Automatic, which is the default, has the operator do it. Manual has it wait
	// for the annotation operator.etcd-warden.io/replace-member.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Policy",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Automatic","urn:alm:descriptor:com.tectonic.ui:select:Manual"}
	// +optional
	Policy ReplacementPolicy `json:"policy,omitempty"`
	// After is how long the node of a member may be gone before the member counts as lost, from 10s to 24h. The default
	// is 5m. A member whose volume can be used on no other node counts as lost at once where Kubernetes knows that the
	// node does not return: its Node was deleted, or has the taint node.kubernetes.io/out-of-service.
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^[1-9][0-9]*(s|m|h)$') && duration(self) >= duration('10s') && duration(self) <= duration('24h')",message="after must be a whole number above 0 with one of the units s, m and h, from 10s to 24h, for example 5m."
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="After",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:text"}
	// +optional
	After string `json:"after,omitempty"`
}

// ReplacementPolicy says who replaces a lost member.
// +kubebuilder:validation:Enum=Automatic;Manual
type ReplacementPolicy string

// The policies for lost members.
const (
	// ReplaceAutomatically has the operator replace a lost member.
	ReplaceAutomatically ReplacementPolicy = "Automatic"
	// ReplaceManually has the operator wait for the annotation operator.etcd-warden.io/replace-member.
	ReplaceManually ReplacementPolicy = "Manual"
)

// Maintenance says how the operator takes care of the members' databases.
type Maintenance struct {
	// ConsistencyCheck says which databases the operator compares after an alarm, before a minor version of etcd and for
	// the annotation operator.etcd-warden.io/check-consistency. Limited, which is the default, compares them while at
	// most 1 GiB of each is in use, because a member answers nothing while it computes the hash. Full compares them
	// whatever their size. etcd's own check after each compaction is always on.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Consistency check",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Limited","urn:alm:descriptor:com.tectonic.ui:select:Full"}
	// +optional
	ConsistencyCheck ConsistencyCheckPolicy `json:"consistencyCheck,omitempty"`
}

// ConsistencyCheckPolicy says which databases are compared.
// +kubebuilder:validation:Enum=Limited;Full
type ConsistencyCheckPolicy string

// The policies for comparisons of the members' data.
const (
	// ConsistencyCheckLimited compares databases of which at most 1 GiB is in use.
	ConsistencyCheckLimited ConsistencyCheckPolicy = "Limited"
	// ConsistencyCheckFull compares databases of any size.
	ConsistencyCheckFull ConsistencyCheckPolicy = "Full"
)

// OperatorUpgradePolicy says what happens if a new release of the operator makes the pods differently.
// +kubebuilder:validation:Enum=Wait;Roll
type OperatorUpgradePolicy string

// What happens if a new release of the operator makes the pods differently.
const (
	// OperatorUpgradeWait restarts nothing.
	OperatorUpgradeWait OperatorUpgradePolicy = "Wait"
	// OperatorUpgradeRoll restarts the members one after the other.
	OperatorUpgradeRoll OperatorUpgradePolicy = "Roll"
)

// Bootstrap says how a new cluster starts.
type Bootstrap struct {
	// ExistingVolumes applies to volumes that an earlier cluster with this name left.
	// TakeBack starts their members again. Ignore keeps them, and starts members with new, empty volumes.
	// The operator reads this field only until the cluster has volumes.
	// +kubebuilder:default=TakeBack
	// +optional
	ExistingVolumes ExistingVolumes `json:"existingVolumes,omitempty"`
}

// ExistingVolumes says how to use volumes that an earlier cluster with this name left.
// +kubebuilder:validation:Enum=TakeBack;Ignore
type ExistingVolumes string

// The uses of existing volumes.
const (
	// ExistingVolumesTakeBack starts the members of these volumes again, with their data.
	ExistingVolumesTakeBack ExistingVolumes = "TakeBack"
	// ExistingVolumesIgnore keeps these volumes, and starts new members with empty volumes.
	ExistingVolumesIgnore ExistingVolumes = "Ignore"
)

// EtcdCluster is an etcd cluster.
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
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
// +operator-sdk:csv:customresourcedefinitions:displayName="etcd cluster",resources={{StatefulSet,v1,NAME-0},{Service,v1,NAME-client},{Secret,v1,NAME-client-tls},{PersistentVolumeClaim,v1,data-NAME-0},{PodDisruptionBudget,v1,NAME},{Pod,v1,NAME-0-0},{Event,v1,NAME}}
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
