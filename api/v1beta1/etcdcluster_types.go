package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// EtcdClusterKind is the kind of an EtcdCluster, in every version.
const EtcdClusterKind = "EtcdCluster"

// BootstrapAnnotation on an EtcdCluster, with the value BootstrapEmpty, says in v1alpha1 what spec.bootstrap.existingVolumes: Ignore says here.
// It is obeyed in both versions.
const (
	BootstrapAnnotation = "operator.etcd-warden.io/bootstrap"
	BootstrapEmpty      = "Empty"
)

// RotateAuthoritiesAnnotation on an EtcdCluster has the operator put new certificate authorities in the place of those that it manages:
// once for every new value.
const RotateAuthoritiesAnnotation = "operator.etcd-warden.io/rotate-authorities"

// EtcdClusterSpec says what the user wants. This release creates it and keeps it running;
// a change to a running cluster's replicas, version, template, TLS or volume size is reported and not carried out before 0.3.0.
// +kubebuilder:validation:XValidation:rule="(has(self.clusterDomain) ? self.clusterDomain : '-') == (has(oldSelf.clusterDomain) ? oldSelf.clusterDomain : '-')",message="clusterDomain cannot change: the members' peer URLs contain it; create another cluster with the new domain"
// +kubebuilder:validation:XValidation:rule="(has(self.storage) && has(self.storage.volumeClaimTemplate) ? quantity(string(self.storage.volumeClaimTemplate.spec.resources.requests['storage'])) : quantity('8Gi')).compareTo(has(oldSelf.storage) && has(oldSelf.storage.volumeClaimTemplate) ? quantity(string(oldSelf.storage.volumeClaimTemplate.spec.resources.requests['storage'])) : quantity('8Gi')) >= 0",message="storage.volumeClaimTemplate.spec.resources.requests.storage cannot shrink (8Gi where it is not set): write the old size or a larger one"
// +kubebuilder:validation:XValidation:rule="(has(self.storage) && has(self.storage.volumeClaimTemplate) && has(self.storage.volumeClaimTemplate.spec.storageClassName) ? self.storage.volumeClaimTemplate.spec.storageClassName : '-') == (has(oldSelf.storage) && has(oldSelf.storage.volumeClaimTemplate) && has(oldSelf.storage.volumeClaimTemplate.spec.storageClassName) ? oldSelf.storage.volumeClaimTemplate.spec.storageClassName : '-')",message="storage.volumeClaimTemplate.spec.storageClassName cannot change: existing volumes keep their class; create another cluster with the new class"
// +kubebuilder:validation:XValidation:rule="(has(self.storage) && has(self.storage.volumeClaimTemplate) && has(self.storage.volumeClaimTemplate.spec.accessModes) ? self.storage.volumeClaimTemplate.spec.accessModes : ['ReadWriteOnce']) == (has(oldSelf.storage) && has(oldSelf.storage.volumeClaimTemplate) && has(oldSelf.storage.volumeClaimTemplate.spec.accessModes) ? oldSelf.storage.volumeClaimTemplate.spec.accessModes : ['ReadWriteOnce'])",message="storage.volumeClaimTemplate.spec.accessModes cannot change: existing volumes keep theirs; create another cluster with the new ones"
// +kubebuilder:validation:XValidation:rule="!has(self.config) || !has(self.config.quotaBackendBytes) || [has(self.storage) && has(self.storage.volumeClaimTemplate) ? quantity(string(self.storage.volumeClaimTemplate.spec.resources.requests['storage'])) : quantity('8Gi')].all(v, quantity(string(self.config.quotaBackendBytes)).asApproximateFloat() * 5.0 <= v.asApproximateFloat() * 4.0 && quantity(string(self.config.quotaBackendBytes)).asApproximateFloat() <= v.asApproximateFloat() - 134217728.0)",message="config.quotaBackendBytes must leave a fifth of the volume (8Gi where storage is not set), and at least 128Mi, to the log: write a lower quota or ask for a larger volume"
type EtcdClusterSpec struct {
	// Replicas is the number of members: 1, 3, 5 or 7. An even number survives no more failures than the odd number below it.
	// +kubebuilder:validation:XValidation:rule="self in [1, 3, 5, 7]",message="replicas must be 1, 3, 5 or 7: an even number survives no more failures than the odd one below it, and more than 7 members slow every write; write the next odd number"
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Members",order=1,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:podCount"}
	// +required
	Replicas int32 `json:"replicas"`

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

	// Image says where etcd's image comes from.
	// +kubebuilder:default={}
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Image",order=3,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Image Image `json:"image,omitempty,omitzero"`

	// Storage describes the members' volumes; without it 8Gi of the default StorageClass each.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Storage",order=4
	// +optional
	Storage *Storage `json:"storage,omitempty"`

	// TLS secures the traffic of clients and between members. Without it the operator makes and renews every certificate.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="TLS",order=5
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// Config tunes etcd.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="etcd configuration",order=6
	// +optional
	Config *Config `json:"config,omitempty"`

	// Resources of the etcd container.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Resources",order=7,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:resourceRequirements"}
	// +optional
	Resources ResourceRequirements `json:"resources,omitempty,omitzero"`

	// PodTemplate shapes the members' pods.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Pod template",order=8,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	PodTemplate *PodTemplate `json:"podTemplate,omitempty"`

	// ClusterDomain is the DNS domain of the Kubernetes cluster, appended to the members' names in peer URLs.
	// Without it the names end in ".svc" and the pods' DNS search path completes them.
	// +kubebuilder:validation:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="clusterDomain must be a DNS name in lower case without a dot at its ends, such as cluster.local"
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Cluster domain",order=9,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	ClusterDomain string `json:"clusterDomain,omitempty"`

	// Bootstrap says how the cluster begins.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Bootstrap",order=10,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:advanced"}
	// +optional
	Bootstrap *Bootstrap `json:"bootstrap,omitempty"`

	// Paused stops the operator from acting on this cluster; etcd runs on and the status is still reported.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Paused",order=11,xDescriptors={"urn:alm:descriptor:com.tectonic.ui:booleanSwitch"}
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// Image says where etcd's image comes from.
type Image struct {
	// Repository is the image repository without a tag; the tag is "v" and the version.
	// The image holds etcd, etcdctl and etcdutl.
	// +kubebuilder:default="gcr.io/etcd-development/etcd"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?/)?[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*$')",message="repository must be an image repository without a tag or digest, such as gcr.io/etcd-development/etcd; the tag is made from version"
	// +optional
	Repository string `json:"repository,omitempty"`
}

// Storage describes the members' volumes.
type Storage struct {
	// VolumeClaimTemplate describes each member's PersistentVolumeClaim; without it 8Gi of the default StorageClass.
	// +optional
	VolumeClaimTemplate *VolumeClaimTemplate `json:"volumeClaimTemplate,omitempty"`
	// RetentionPolicy says what becomes of volumes that are no longer needed.
	// +optional
	RetentionPolicy *RetentionPolicy `json:"retentionPolicy,omitempty"`
}

// VolumeClaimTemplate describes a member's PersistentVolumeClaim.
type VolumeClaimTemplate struct {
	// Spec of the claim.
	// +required
	Spec VolumeClaimSpec `json:"spec"`
}

// VolumeClaimSpec describes a member's PersistentVolumeClaim.
// +kubebuilder:validation:XValidation:rule="has(self.resources.requests) && 'storage' in self.resources.requests",message="resources.requests.storage is required: write the volume's size, such as 8Gi"
type VolumeClaimSpec struct {
	// StorageClassName names the class; without it the default class is used.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Storage class",xDescriptors={"urn:alm:descriptor:io.kubernetes:StorageClass"}
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

// RetentionPolicyType says whether volumes are kept.
// +kubebuilder:validation:Enum=Retain;Delete
type RetentionPolicyType string

// What becomes of volumes.
const (
	// RetentionRetain keeps them; a cluster that is created again takes them back.
	RetentionRetain RetentionPolicyType = "Retain"
	// RetentionDelete deletes them, and the data with them.
	RetentionDelete RetentionPolicyType = "Delete"
)

// RetentionPolicy says what becomes of volumes that are no longer needed.
type RetentionPolicy struct {
	// WhenDeleted is what becomes of the volumes when the EtcdCluster is deleted: Retain, or Delete, which deletes the data.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Volumes of a deleted cluster",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Retain","urn:alm:descriptor:com.tectonic.ui:select:Delete"}
	// +kubebuilder:default=Retain
	// +optional
	WhenDeleted RetentionPolicyType `json:"whenDeleted,omitempty"`
}

// TLS secures the traffic of clients and between members.
type TLS struct {
	// Client is the traffic between clients and members, the operator's own included.
	// +optional
	Client *ClientTLS `json:"client,omitempty"`
	// Peer is the traffic between members.
	// +optional
	Peer *PeerTLS `json:"peer,omitempty"`
}

// TLSMode says who provides certificates where neither certManager nor secretRef is given.
// +kubebuilder:validation:Enum=Managed;Disabled
type TLSMode string

// Who provides certificates.
const (
	// TLSManaged has the operator make an authority and every certificate, and renew them.
	TLSManaged TLSMode = "Managed"
	// TLSDisabled leaves the traffic in clear, for everybody who can reach the pods.
	TLSDisabled TLSMode = "Disabled"
)

// ClientTLS says where the certificates of client traffic come from: from the operator, unless something else is said.
// +kubebuilder:validation:XValidation:rule="[has(self.mode), has(self.certManager), has(self.secretRef)].filter(x, x).size() <= 1",message="write one of mode, certManager and secretRef: they say where the certificates come from"
type ClientTLS struct {
	// Mode is Managed, the default, or Disabled for traffic in clear.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Client certificates",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Managed","urn:alm:descriptor:com.tectonic.ui:select:Disabled"}
	// +optional
	Mode TLSMode `json:"mode,omitempty"`
	// CertManager has cert-manager issue the certificates.
	// +optional
	CertManager *CertManagerTLS `json:"certManager,omitempty"`
	// SecretRef names Secrets that the user provides, in the cluster's namespace.
	// +optional
	SecretRef *ClientSecretRef `json:"secretRef,omitempty"`
}

// PeerTLS says where the certificates of traffic between members come from: from the operator, unless something else is said.
// +kubebuilder:validation:XValidation:rule="[has(self.mode), has(self.certManager), has(self.secretRef)].filter(x, x).size() <= 1",message="write one of mode, certManager and secretRef: they say where the certificates come from"
type PeerTLS struct {
	// Mode is Managed, the default, or Disabled for traffic in clear.
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Peer certificates",xDescriptors={"urn:alm:descriptor:com.tectonic.ui:select:Managed","urn:alm:descriptor:com.tectonic.ui:select:Disabled"}
	// +optional
	Mode TLSMode `json:"mode,omitempty"`
	// CertManager has cert-manager issue the certificate.
	// +optional
	CertManager *CertManagerTLS `json:"certManager,omitempty"`
	// SecretRef names a Secret that the user provides, in the cluster's namespace.
	// +optional
	SecretRef *PeerSecretRef `json:"secretRef,omitempty"`
}

// CertManagerTLS has cert-manager issue certificates.
type CertManagerTLS struct {
	// IssuerRef names the issuer. Its certificates must come with the authority's in ca.crt, as those of a CA or Vault issuer do.
	// +required
	IssuerRef IssuerRef `json:"issuerRef"`
}

// IssuerRef names an issuer of cert-manager.
type IssuerRef struct {
	// Name of the issuer.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="name must be that of an issuer: lower case letters, digits, hyphens and dots, such as ca"
	// +required
	Name string `json:"name"`
	// Kind is Issuer, one of the cluster's namespace, or ClusterIssuer, or an external issuer's kind.
	// +kubebuilder:default=Issuer
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Kind string `json:"kind,omitempty"`
	// Group of the issuer's kind.
	// +kubebuilder:default="cert-manager.io"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Group string `json:"group,omitempty"`
}

// SecretFormat names the keys that a Secret has.
// +kubebuilder:validation:Enum=TLS;EtcdOperator
type SecretFormat string

// The formats of Secrets.
const (
	// SecretFormatTLS is that of kubernetes.io/tls and cert-manager: tls.crt, tls.key and ca.crt.
	SecretFormatTLS SecretFormat = "TLS"
	// SecretFormatEtcdOperator is that of the original etcd operator, and of v1alpha1: peer.crt, peer.key and peer-ca.crt;
	// server.crt, server.key and server-ca.crt; etcd-client.crt, etcd-client.key and etcd-client-ca.crt.
	SecretFormatEtcdOperator SecretFormat = "EtcdOperator"
)

// ClientSecretRef names the Secrets of client traffic.
type ClientSecretRef struct {
	// Name of the Secret with the members' server certificate. It has server and client usage and fits
	// *.NAME.NAMESPACE.svc, NAME-client.NAMESPACE.svc and localhost.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="name must be the name of a Secret: lower case letters, digits, hyphens and dots, such as prod-server-tls"
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Server Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +required
	Name string `json:"name"`
	// OperatorName of the Secret with the operator's client certificate.
	// Where etcd's authentication is to be turned on, its common name is root.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="operatorName must be the name of a Secret: lower case letters, digits, hyphens and dots, such as prod-server-tls"
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Operator's client Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +required
	OperatorName string `json:"operatorName"`
	// Format names the keys of both Secrets: TLS for tls.crt, tls.key and ca.crt; EtcdOperator for those of the original etcd operator.
	// +kubebuilder:default=TLS
	// +optional
	Format SecretFormat `json:"format,omitempty"`
}

// PeerSecretRef names the Secret of traffic between members.
type PeerSecretRef struct {
	// Name of the Secret with the members' peer certificate. It has server and client usage and fits
	// *.NAME.NAMESPACE.svc and *.NAME.NAMESPACE.svc.CLUSTERDOMAIN.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="name must be the name of a Secret: lower case letters, digits, hyphens and dots, such as prod-server-tls"
	// +operator-sdk:csv:customresourcedefinitions:type=spec,displayName="Peer Secret",xDescriptors={"urn:alm:descriptor:io.kubernetes:Secret"}
	// +required
	Name string `json:"name"`
	// Format names the keys of the Secret: TLS for tls.crt, tls.key and ca.crt; EtcdOperator for those of the original etcd operator.
	// +kubebuilder:default=TLS
	// +optional
	Format SecretFormat `json:"format,omitempty"`
}

// Config tunes etcd.
// +kubebuilder:validation:XValidation:rule="!has(self.quotaBackendBytes) || !has(self.extraArgs) || !('quota-backend-bytes' in self.extraArgs)",message="write either quotaBackendBytes or extraArgs.quota-backend-bytes, not both"
// +kubebuilder:validation:XValidation:rule="!has(self.autoCompaction) || !has(self.extraArgs) || !('auto-compaction-mode' in self.extraArgs || 'auto-compaction-retention' in self.extraArgs)",message="write either autoCompaction or extraArgs.auto-compaction-mode and extraArgs.auto-compaction-retention, not both"
// +kubebuilder:validation:XValidation:rule="(has(self.extraArgs) ? size(self.extraArgs) : 0) + (has(self.quotaBackendBytes) ? 1 : 0) + (has(self.autoCompaction) ? 2 : 0) <= 32",message="config may set at most 32 options; quotaBackendBytes counts as one, autoCompaction as two"
type Config struct {
	// QuotaBackendBytes is the size at which a member's database refuses writes, from 16Mi to 16Gi.
	// It leaves a fifth of the volume, and at least 128Mi, to the log: on a full disk etcd ends.
	// Without it 40% of the volume, at most 2Gi: defragmentation writes a second copy, and the log needs room as well.
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('16Gi')) <= 0",message="quotaBackendBytes must be a quantity from 16Mi to 16Gi, such as 2Gi"
	// +optional
	QuotaBackendBytes *resource.Quantity `json:"quotaBackendBytes,omitempty"`
	// AutoCompaction has etcd discard old revisions; without it etcd keeps them all.
	// +optional
	AutoCompaction *AutoCompaction `json:"autoCompaction,omitempty"`
	// ExtraArgs are further options of etcd by their names without dashes, such as snapshot-count: "10000". An allow list says which;
	// an option that the version of etcd does not have is refused and reported.
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['auth-token-ttl', 'auto-compaction-mode', 'auto-compaction-retention', 'backend-batch-interval', 'backend-batch-limit', 'backend-bbolt-freelist-type', 'bcrypt-cost', 'bootstrap-defrag-threshold-megabytes', 'cipher-suites', 'compact-hash-check-time', 'compaction-batch-limit', 'compaction-sleep-interval', 'corrupt-check-time', 'cors', 'election-timeout', 'enable-grpc-gateway', 'experimental-bootstrap-defrag-threshold-megabytes', 'experimental-compact-hash-check-time', 'experimental-compaction-batch-limit', 'experimental-compaction-sleep-interval', 'experimental-corrupt-check-time', 'experimental-snapshot-catchup-entries', 'experimental-warning-apply-duration', 'experimental-watch-progress-notify-interval', 'grpc-keepalive-interval', 'grpc-keepalive-min-time', 'grpc-keepalive-timeout', 'heartbeat-interval', 'host-whitelist', 'initial-election-tick-advance', 'log-format', 'log-level', 'max-concurrent-streams', 'max-request-bytes', 'max-snapshots', 'max-txn-ops', 'max-wals', 'metrics', 'pre-vote', 'quota-backend-bytes', 'raft-read-timeout', 'raft-write-timeout', 'snapshot-catchup-entries', 'snapshot-count', 'tls-max-version', 'tls-min-version', 'warning-apply-duration', 'warning-unary-request-duration', 'watch-progress-notify-interval'] || oldSelf.hasValue() && k in oldSelf.value())",optionalOldSelf=true,message="extraArgs holds an option that etcd-warden does not pass on, or that etcd does not have: write options of https://etcd.io/docs/latest/op-guide/configuration by their names without dashes at the beginning, such as snapshot-count; etcd-warden sets addresses, certificates, folders and membership itself"
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(self[k]) <= 1024)",message="an option's value may have at most 1024 characters"
	// +optional
	ExtraArgs map[string]string `json:"extraArgs,omitempty"`
}

// AutoCompactionMode says what the retention of revisions is measured in.
// +kubebuilder:validation:Enum=Periodic;Revision
type AutoCompactionMode string

// The modes of automatic compaction.
const (
	// AutoCompactionPeriodic keeps the revisions of a time.
	AutoCompactionPeriodic AutoCompactionMode = "Periodic"
	// AutoCompactionRevision keeps a number of revisions.
	AutoCompactionRevision AutoCompactionMode = "Revision"
)

// AutoCompaction has etcd discard old revisions.
// +kubebuilder:validation:XValidation:rule="self.mode != 'Periodic' || self.retention.matches('^[1-9][0-9]*(s|m|h)$')",message="with the mode Periodic, retention is a duration in s, m or h, such as 1h"
// +kubebuilder:validation:XValidation:rule="self.mode != 'Revision' || self.retention.matches('^[1-9][0-9]*$')",message="with the mode Revision, retention is a number of revisions, such as 10000"
type AutoCompaction struct {
	// Mode is Periodic or Revision.
	// +required
	Mode AutoCompactionMode `json:"mode"`
	// Retention is a duration such as 1h with the mode Periodic, a number of revisions with the mode Revision.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=20
	// +required
	Retention string `json:"retention"`
}

// ResourceRequirements are the requests and limits of the etcd container.
type ResourceRequirements struct {
	// Limits of the etcd container.
	// +kubebuilder:validation:MaxProperties=8
	// +kubebuilder:validation:XValidation:rule="self.all(k, isQuantity(string(self[k])) && !string(self[k]).startsWith('-'))",message="limits must be quantities that are not negative, such as 500m or 2Gi"
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`
	// Requests of the etcd container.
	// +kubebuilder:validation:MaxProperties=8
	// +kubebuilder:validation:XValidation:rule="self.all(k, isQuantity(string(self[k])) && !string(self[k]).startsWith('-'))",message="requests must be quantities that are not negative, such as 500m or 2Gi"
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// PodTemplate shapes the members' pods.
// +kubebuilder:validation:XValidation:rule="!has(self.memberAntiAffinity) || self.memberAntiAffinity != 'Required' || !has(self.spec) || !has(self.spec.affinity) || !has(self.spec.affinity.podAntiAffinity)",message="write either memberAntiAffinity: Required or spec.affinity.podAntiAffinity, not both"
type PodTemplate struct {
	// Metadata is added to the pods.
	// +optional
	Metadata PodMetadata `json:"metadata,omitempty,omitzero"`
	// Spec of the pods, as far as it can be shaped.
	// +optional
	Spec PodSpec `json:"spec,omitempty,omitzero"`
	// MemberAntiAffinity is Required to never put two members of this cluster on one node.
	// Preferred, which holds without it, spreads them over nodes and zones where the scheduler can,
	// unless spec.affinity or spec.topologySpreadConstraints says something else.
	// +optional
	MemberAntiAffinity MemberAntiAffinity `json:"memberAntiAffinity,omitempty"`
}

// MemberAntiAffinity says how strictly members are kept on different nodes.
// +kubebuilder:validation:Enum=Preferred;Required
type MemberAntiAffinity string

// How strictly members are kept on different nodes.
const (
	MemberAntiAffinityPreferred MemberAntiAffinity = "Preferred"
	MemberAntiAffinityRequired  MemberAntiAffinity = "Required"
)

// PodMetadata is added to the members' pods.
type PodMetadata struct {
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
}

// PodSpec is what can be shaped of the members' pods.
type PodSpec struct {
	// NodeSelector restricts the nodes that members run on.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Affinity replaces the default, which spreads members softly over nodes and zones.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// Tolerations of the members' pods.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// TopologySpreadConstraints replace the default, which spreads members softly over nodes and zones.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// PriorityClassName of the pods: a cluster that others depend on should outlive them under pressure.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// SchedulerName of the pods; the default scheduler without it.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	SchedulerName string `json:"schedulerName,omitempty"`
	// RuntimeClassName of the pods.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	RuntimeClassName string `json:"runtimeClassName,omitempty"`
	// ImagePullSecrets are Secrets of the cluster's namespace that pull the image.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(r, size(r.name) > 0 && size(r.name) <= 253 && !r.name.contains('/'))",message="imagePullSecrets must have names of Secrets, such as pull"
	// +listType=atomic
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// SecurityContext of the pods; what it leaves out follows the restricted Pod Security Standard.
	// +optional
	SecurityContext *corev1.PodSecurityContext `json:"securityContext,omitempty"`
}

// Bootstrap says how a cluster begins.
type Bootstrap struct {
	// ExistingVolumes is what becomes of volumes that an earlier cluster of this name left: TakeBack starts the members
	// that live on them; Ignore leaves them alone and starts with new, empty ones. It is read only until the cluster has volumes of its own.
	// +kubebuilder:default=TakeBack
	// +optional
	ExistingVolumes ExistingVolumes `json:"existingVolumes,omitempty"`
}

// ExistingVolumes is what becomes of volumes that an earlier cluster of this name left.
// +kubebuilder:validation:Enum=TakeBack;Ignore
type ExistingVolumes string

// What becomes of existing volumes.
const (
	ExistingVolumesTakeBack ExistingVolumes = "TakeBack"
	ExistingVolumesIgnore   ExistingVolumes = "Ignore"
)

// EtcdCluster is a cluster of etcd members.
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=etcd,categories=all
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.spec.replicas`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyReplicas`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Progressing")].reason`
// +kubebuilder:printcolumn:name="Leader",type=string,JSONPath=`.status.leader`,priority=1
// +kubebuilder:printcolumn:name="Cluster ID",type=string,JSONPath=`.status.clusterID`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 46",message="the name may have at most 46 characters: the pods' names and labels are made from it"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",message="the name must start with a letter and hold only lower case letters, digits and hyphens: Services are named after it"
// +operator-sdk:csv:customresourcedefinitions:displayName="etcd cluster",resources={{StatefulSet,v1,NAME-0},{Service,v1,NAME-client},{Secret,v1,NAME-client-tls},{PersistentVolumeClaim,v1,data-NAME-0},{PodDisruptionBudget,v1,NAME},{Pod,v1,NAME-0-0},{Event,v1,NAME}}
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
