package cluster

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

const (
	// DefaultVolumeSize is the size of a member's volume where the spec gives none.
	DefaultVolumeSize = "8Gi"
	// maxDefaultQuota is etcd's own default quota in bytes.
	maxDefaultQuota = 2 << 30
	// quotaPercent is the default share of the database: defragmentation writes a second copy, and the log needs room.
	quotaPercent = 40
	// logReserve is room for two files of the log, which etcd makes before it needs them.
	logReserve = 128 << 20
)

// Intent is everything the user asked of a member's pod.
// Its hash decides whether a member must roll. That of the rendered pod never does.
// It is stored on StatefulSets and read by later releases: a field may be added with omitempty, none renamed.
type Intent struct {
	Version           string                     `json:"version"`
	Repository        string                     `json:"repository"`
	ClusterDomain     string                     `json:"clusterDomain,omitempty"`
	QuotaBackendBytes int64                      `json:"quotaBackendBytes,omitempty"`
	Options           map[string]string          `json:"options,omitempty"`
	PeerSecret        string                     `json:"peerSecret,omitempty"`
	ServerSecret      string                     `json:"serverSecret,omitempty"`
	OperatorSecret    string                     `json:"operatorSecret,omitempty"` // no pod depends on it
	Labels            map[string]string          `json:"labels,omitempty"`
	Annotations       map[string]string          `json:"annotations,omitempty"`
	NodeSelector      map[string]string          `json:"nodeSelector,omitempty"`
	Affinity          *corev1.Affinity           `json:"affinity,omitempty"`
	AntiAffinity      bool                       `json:"antiAffinity,omitempty"`
	Tolerations       []corev1.Toleration        `json:"tolerations,omitempty"`
	Limits            corev1.ResourceList        `json:"limits,omitempty"`
	Requests          corev1.ResourceList        `json:"requests,omitempty"`
	SecurityContext   *corev1.PodSecurityContext `json:"securityContext,omitempty"`

	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	PriorityClassName         string                            `json:"priorityClassName,omitempty"`
	SchedulerName             string                            `json:"schedulerName,omitempty"`
	RuntimeClassName          string                            `json:"runtimeClassName,omitempty"`
	ImagePullSecrets          []corev1.LocalObjectReference     `json:"imagePullSecrets,omitempty"`

	// Where the Secrets above come from, and the authorities in them: fingerprints, sorted.
	// The authorities do not come from the spec: they were found in the Secrets. Not every source has them: see
	// Source.FollowsAuthorities.
	PeerCertificates   Source             `json:"peerCertificates,omitempty"`
	PeerIssuer         *v1beta1.IssuerRef `json:"peerIssuer,omitempty"`
	PeerAuthorities    []string           `json:"peerAuthorities,omitempty"`
	ServerCertificates Source             `json:"serverCertificates,omitempty"`
	ServerIssuer       *v1beta1.IssuerRef `json:"serverIssuer,omitempty"`
	ServerAuthorities  []string           `json:"serverAuthorities,omitempty"`

	Tag        string                  `json:"tag,omitempty"`
	Digest     string                  `json:"digest,omitempty"`
	PullPolicy v1beta1.ImagePullPolicy `json:"pullPolicy,omitempty"`
	// RestartedFor is the value of the restart annotation.
	RestartedFor string `json:"restartedFor,omitempty"`
}

// IntentOf returns what the spec and the restart annotation ask of every member's pod, in the canonical form.
func IntentOf(c *v1beta1.EtcdCluster) Intent {
	spec := &c.Spec
	intent := Intent{
		Version:       spec.Version,
		Repository:    spec.Image.Repository,
		ClusterDomain: spec.ClusterDomain,
		Limits:        spec.Resources.Limits,
		Requests:      spec.Resources.Requests,
		Tag:           spec.Image.Tag,
		Digest:        spec.Image.Digest,
		PullPolicy:    spec.Image.PullPolicy,
		RestartedFor:  restartValue(c),
	}
	intent.setPeerTLS(c)
	intent.setClientTLS(c)
	intent.setOptions(spec)
	intent.setPod(spec.PodTemplate)
	return intent.Canonical()
}

// restartValue returns the value of the restart annotation. Anyone who may write the object chooses its length, and
// every StatefulSet stores it, so it is cut.
func restartValue(c *v1beta1.EtcdCluster) string {
	value := c.Annotations[v1beta1.RestartAnnotation]
	if len(value) > v1beta1.MaxRestartValue {
		value = value[:v1beta1.MaxRestartValue]
	}
	return strings.ToValidUTF8(value, "") // JSON has no half character
}

// WithRestartOf returns the intent with the restart value of a member's own intent where the cluster has none:
// removing the annotation restarts no member.
func (i Intent) WithRestartOf(member Intent) Intent {
	i.RestartedFor = cmp.Or(i.RestartedFor, member.RestartedFor)
	return i
}

func (i *Intent) setPeerTLS(c *v1beta1.EtcdCluster) {
	var tls v1beta1.PeerTLS
	if c.Spec.TLS != nil && c.Spec.TLS.Peer != nil {
		tls = *c.Spec.TLS.Peer
	}
	switch {
	case tls.Mode == v1beta1.TLSDisabled:
	case tls.SecretRef != nil:
		i.PeerSecret, i.PeerCertificates = tls.SecretRef.Name, sourceOf(tls.SecretRef.Format)
	case tls.CertManager != nil:
		i.PeerSecret, i.PeerCertificates, i.PeerIssuer = CertificateName(c.Name, RolePeer), SourceCertManager, &tls.CertManager.IssuerRef
	default:
		i.PeerSecret, i.PeerCertificates = CertificateName(c.Name, RolePeer), SourceManaged
	}
}

func (i *Intent) setClientTLS(c *v1beta1.EtcdCluster) {
	var tls v1beta1.ClientTLS
	if c.Spec.TLS != nil && c.Spec.TLS.Client != nil {
		tls = *c.Spec.TLS.Client
	}
	i.ServerSecret, i.OperatorSecret = CertificateName(c.Name, RoleServer), CertificateName(c.Name, RoleOperator)
	switch {
	case tls.Mode == v1beta1.TLSDisabled:
		i.ServerSecret, i.OperatorSecret = "", ""
	case tls.SecretRef != nil:
		i.ServerSecret, i.OperatorSecret = tls.SecretRef.Name, tls.SecretRef.OperatorName
		i.ServerCertificates = sourceOf(tls.SecretRef.Format)
	case tls.CertManager != nil:
		i.ServerCertificates, i.ServerIssuer = SourceCertManager, &tls.CertManager.IssuerRef
	default:
		i.ServerCertificates = SourceManaged
	}
}

// sourceOf returns the source of a Secret of the user.
func sourceOf(format v1beta1.SecretFormat) Source {
	if format == v1beta1.SecretFormatEtcdOperator {
		return SourceEtcdOperator
	}
	return SourceSecret
}

// Source returns where the certificates of a kind of traffic come from; empty where the traffic is not encrypted.
func (i Intent) Source(t Traffic) Source {
	if t == PeerTraffic {
		return i.PeerCertificates
	}
	return i.ServerCertificates
}

// Secret returns the name of the Secret of a kind of traffic that members mount; empty where the traffic is in clear.
func (i Intent) Secret(t Traffic) string {
	if t == PeerTraffic {
		return i.PeerSecret
	}
	return i.ServerSecret
}

// Issuer returns cert-manager's issuer of a kind of traffic, or nil.
func (i Intent) Issuer(t Traffic) *v1beta1.IssuerRef {
	if t == PeerTraffic {
		return i.PeerIssuer
	}
	return i.ServerIssuer
}

// Authorities returns the fingerprints of the authorities that pods of the intent start with.
func (i Intent) Authorities(t Traffic) []string {
	if t == PeerTraffic {
		return i.PeerAuthorities
	}
	return i.ServerAuthorities
}

// WithAuthorities returns the intent with other authorities of peers and clients. Where a list is empty, or the source
// is not followed, the intent keeps its own.
func (i Intent) WithAuthorities(peer, client []string) Intent {
	if len(peer) > 0 && i.PeerCertificates.FollowsAuthorities() {
		i.PeerAuthorities = peer
	}
	if len(client) > 0 && i.ServerCertificates.FollowsAuthorities() {
		i.ServerAuthorities = client
	}
	return i
}

// setOptions stores the typed fields as the options that they stand for. The quota has a field of its own, because it
// has a default.
func (i *Intent) setOptions(spec *v1beta1.EtcdClusterSpec) {
	config := spec.Config
	if config == nil {
		config = &v1beta1.Config{}
	}
	options := map[string]string{}
	for name, value := range config.ExtraArgs {
		options[OptionVariable(name)] = value
	}
	if compaction := config.AutoCompaction; compaction != nil {
		options[OptionVariable("auto-compaction-mode")] = strings.ToLower(string(compaction.Mode))
		options[OptionVariable("auto-compaction-retention")] = compaction.Retention
	}
	if len(options) > 0 {
		i.Options = options
	}
	switch _, set := options[OptionVariable("quota-backend-bytes")]; {
	case set:
	case config.QuotaBackendBytes != nil:
		i.QuotaBackendBytes = config.QuotaBackendBytes.Value()
	default:
		i.QuotaBackendBytes = defaultQuota(VolumeSize(spec))
	}
}

func (i *Intent) setPod(template *v1beta1.PodTemplate) {
	if template == nil {
		return
	}
	i.Labels, i.Annotations = template.Metadata.Labels, template.Metadata.Annotations
	i.AntiAffinity = template.MemberAntiAffinity == v1beta1.MemberAntiAffinityRequired
	pod := &template.Spec
	i.NodeSelector, i.Affinity, i.Tolerations = pod.NodeSelector, pod.Affinity, pod.Tolerations
	i.SecurityContext = pod.SecurityContext
	i.TopologySpreadConstraints, i.ImagePullSecrets = pod.TopologySpreadConstraints, pod.ImagePullSecrets
	i.PriorityClassName, i.SchedulerName, i.RuntimeClassName = pod.PriorityClassName, pod.SchedulerName, pod.RuntimeClassName
}

// ElectionTimeout returns how long a member waits for a leader before it stands for election.
func (i Intent) ElectionTimeout() time.Duration {
	_, milliseconds := i.Timings()
	return time.Duration(milliseconds) * time.Millisecond
}

// OptionVariable returns the environment variable of an etcd option, under which intents store it.
func OptionVariable(flag string) string {
	return "ETCD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// VolumeClaim returns what the spec asks of each member's volume, nil where it asks for nothing.
func VolumeClaim(spec *v1beta1.EtcdClusterSpec) *v1beta1.VolumeClaimSpec {
	if spec.Storage == nil || spec.Storage.VolumeClaimTemplate == nil {
		return nil
	}
	return &spec.Storage.VolumeClaimTemplate.Spec
}

// VolumeAccessModes returns the access modes that the spec asks for each member's volume.
func VolumeAccessModes(spec *v1beta1.EtcdClusterSpec) []corev1.PersistentVolumeAccessMode {
	if claim := VolumeClaim(spec); claim != nil && len(claim.AccessModes) > 0 {
		return claim.AccessModes
	}
	return []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
}

// VolumeStorageClass returns the class that the spec asks for each member's volume, and "" for the default class.
func VolumeStorageClass(spec *v1beta1.EtcdClusterSpec) string {
	if claim := VolumeClaim(spec); claim != nil && claim.StorageClassName != nil {
		return *claim.StorageClassName
	}
	return ""
}

// IsInMemory reports whether the spec asks for members whose data are in memory.
func IsInMemory(spec *v1beta1.EtcdClusterSpec) bool {
	return spec.Storage != nil && spec.Storage.Ephemeral != nil
}

// VolumeSize returns the size that the spec asks for each member's volume, or for its data in memory.
func VolumeSize(spec *v1beta1.EtcdClusterSpec) resource.Quantity {
	if IsInMemory(spec) {
		return spec.Storage.Ephemeral.SizeLimit
	}
	if claim := VolumeClaim(spec); claim != nil {
		if size, ok := claim.Resources.Requests[corev1.ResourceStorage]; ok {
			return size
		}
	}
	return resource.MustParse(DefaultVolumeSize)
}

// IgnoresExistingVolumes reports whether the user wants a cluster that is created again to start with empty volumes.
func IgnoresExistingVolumes(c *v1beta1.EtcdCluster) bool {
	if c.Annotations[v1beta1.BootstrapAnnotation] == v1beta1.BootstrapEmpty {
		return true
	}
	return c.Spec.Bootstrap != nil && c.Spec.Bootstrap.ExistingVolumes == v1beta1.ExistingVolumesIgnore
}

func defaultQuota(volume resource.Quantity) int64 {
	return min(volume.Value()/100*quotaPercent, maxDefaultQuota)
}

// LargestQuota returns the size in bytes that a database may reach on a volume. A fifth of the volume, and at least
// 128Mi, is for the log and snapshots. With less, the disk would be full before the quota is reached. Then etcd exits,
// instead of refusing writes.
func LargestQuota(volume resource.Quantity) int64 {
	size := volume.Value()
	return min(size/5*4+size%5*4/5, size-logReserve)
}

// Quota returns the size in bytes at which a member's database refuses writes.
func (i Intent) Quota() int64 {
	if n, err := OptionNumber(i.Options[OptionVariable("quota-backend-bytes")]); err == nil {
		return cmp.Or(n, maxDefaultQuota)
	}
	return i.QuotaBackendBytes
}

// Image returns the etcd image of the intent. A digest selects the image alone. A tag beside it is for readers.
func (i Intent) Image() string {
	switch {
	case i.Digest != "" && i.Tag != "":
		return i.Repository + ":" + i.Tag + "@" + i.Digest
	case i.Digest != "":
		return i.Repository + "@" + i.Digest
	default:
		return i.Repository + ":" + cmp.Or(i.Tag, "v"+i.Version)
	}
}

// Encode returns the intent as it is stored, and the hash of what the pods depend on. It keeps the form of the intent:
// what an earlier release stored gets the text and the hash that it had. SameAs compares intents of any form.
func (i Intent) Encode() (text, hash string) {
	text = i.marshal()
	i.OperatorSecret = ""
	sum := sha256.Sum256([]byte(i.marshal()))
	return text, hex.EncodeToString(sum[:8])
}

func (i *Intent) marshal() string {
	raw, err := json.Marshal(i)
	if err != nil {
		panic(fmt.Sprintf("encoding an intent of plain fields: %v", err)) // every field marshals
	}
	return string(raw)
}

// DecodeIntent reads an intent as Encode wrote it.
func DecodeIntent(text string) (Intent, error) {
	var intent Intent
	if err := json.Unmarshal([]byte(text), &intent); err != nil {
		return Intent{}, fmt.Errorf("decoding the intent of a StatefulSet: %w", err)
	}
	return intent, nil
}

// Differences returns where the spec says what differs between the pods of two intents, sorted.
// The authorities are left out: they are what was found, not what was asked.
func (i Intent) Differences(other Intent) []string {
	i, other = i.Canonical(), other.Canonical()
	i.OperatorSecret = other.OperatorSecret
	i.PeerAuthorities, i.ServerAuthorities = other.PeerAuthorities, other.ServerAuthorities
	var paths []string
	a, b := reflect.ValueOf(i), reflect.ValueOf(other)
	for n := range a.NumField() {
		if a.Field(n).IsZero() && b.Field(n).IsZero() {
			continue
		}
		if !equality.Semantic.DeepEqual(a.Field(n).Interface(), b.Field(n).Interface()) {
			paths = append(paths, specPaths[a.Type().Field(n).Name])
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// specPaths are the places in an object of v1beta1 that the fields of an Intent are made from.
var specPaths = map[string]string{
	"Version":           "spec.version",
	"Repository":        "spec.image.repository",
	"Tag":               "spec.image.tag",
	"Digest":            "spec.image.digest",
	"PullPolicy":        "spec.image.pullPolicy",
	"RestartedFor":      "metadata.annotations[" + v1beta1.RestartAnnotation + "]",
	"ClusterDomain":     "spec.clusterDomain",
	"QuotaBackendBytes": "spec.config.quotaBackendBytes",
	"Options":           "spec.config",
	"Limits":            "spec.resources.limits",
	"Requests":          "spec.resources.requests",

	"Labels":                    "spec.podTemplate.metadata.labels",
	"Annotations":               "spec.podTemplate.metadata.annotations",
	"AntiAffinity":              "spec.podTemplate.memberAntiAffinity",
	"NodeSelector":              "spec.podTemplate.spec.nodeSelector",
	"Affinity":                  "spec.podTemplate.spec.affinity",
	"Tolerations":               "spec.podTemplate.spec.tolerations",
	"SecurityContext":           "spec.podTemplate.spec.securityContext",
	"TopologySpreadConstraints": "spec.podTemplate.spec.topologySpreadConstraints",
	"PriorityClassName":         "spec.podTemplate.spec.priorityClassName",
	"SchedulerName":             "spec.podTemplate.spec.schedulerName",
	"RuntimeClassName":          "spec.podTemplate.spec.runtimeClassName",
	"ImagePullSecrets":          "spec.podTemplate.spec.imagePullSecrets",

	"PeerSecret":         "spec.tls.peer",
	"PeerCertificates":   "spec.tls.peer",
	"PeerIssuer":         "spec.tls.peer",
	"PeerAuthorities":    "spec.tls.peer",
	"ServerSecret":       "spec.tls.client",
	"ServerCertificates": "spec.tls.client",
	"ServerIssuer":       "spec.tls.client",
	"ServerAuthorities":  "spec.tls.client",
	"OperatorSecret":     "spec.tls.client",
}
