package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
)

const (
	// DefaultVolumeSize is the size of a member's volume where the spec gives none.
	DefaultVolumeSize = "2Gi"
	// maxDefaultQuota is etcd's own default quota in bytes.
	maxDefaultQuota = 2 << 30
	// quotaPercent of a volume is left to the database: defragmentation writes a second copy, and the log needs room as well.
	quotaPercent = 40
)

// Intent is everything the user asked of a member's pod. Its hash, never that of the rendered pod, decides whether a member must roll.
// It is stored on StatefulSets and read by later releases: a field may be added with omitempty, none renamed.
type Intent struct {
	Version           string                     `json:"version"`
	Repository        string                     `json:"repository"`
	ClusterDomain     string                     `json:"clusterDomain,omitempty"`
	QuotaBackendBytes int64                      `json:"quotaBackendBytes,omitempty"`
	Options           map[string]string          `json:"options,omitempty"`
	PeerSecret        string                     `json:"peerSecret,omitempty"`
	ServerSecret      string                     `json:"serverSecret,omitempty"`
	OperatorSecret    string                     `json:"operatorSecret,omitempty"` // the operator's own: no pod depends on it
	Labels            map[string]string          `json:"labels,omitempty"`
	Annotations       map[string]string          `json:"annotations,omitempty"`
	NodeSelector      map[string]string          `json:"nodeSelector,omitempty"`
	Affinity          *corev1.Affinity           `json:"affinity,omitempty"`
	AntiAffinity      bool                       `json:"antiAffinity,omitempty"`
	Tolerations       []corev1.Toleration        `json:"tolerations,omitempty"`
	Limits            corev1.ResourceList        `json:"limits,omitempty"`
	Requests          corev1.ResourceList        `json:"requests,omitempty"`
	SecurityContext   *corev1.PodSecurityContext `json:"securityContext,omitempty"`
}

// IntentOf returns what a spec asks of every member's pod.
func IntentOf(spec *v1alpha1.EtcdClusterSpec) Intent {
	intent := Intent{
		Version:           spec.Version,
		Repository:        spec.Repository,
		QuotaBackendBytes: defaultQuota(VolumeSize(spec)),
	}
	if tls := spec.TLS; tls != nil && tls.Static != nil && tls.Static.Member != nil {
		intent.PeerSecret = tls.Static.Member.PeerSecret
		intent.ServerSecret = tls.Static.Member.ServerSecret
		intent.OperatorSecret = tls.Static.OperatorSecret
	}
	pod := spec.Pod
	if pod == nil {
		return intent
	}
	intent.ClusterDomain = pod.ClusterDomain
	for _, option := range pod.EtcdEnv {
		if intent.Options == nil {
			intent.Options = map[string]string{}
		}
		intent.Options[option.Name] = option.Value
	}
	if _, set := intent.Options[quotaOption]; set {
		intent.QuotaBackendBytes = 0
	}
	intent.Labels, intent.Annotations, intent.NodeSelector = pod.Labels, pod.Annotations, pod.NodeSelector
	intent.Affinity, intent.AntiAffinity, intent.Tolerations = pod.Affinity, pod.AntiAffinity, pod.Tolerations
	intent.Limits, intent.Requests = pod.Resources.Limits, pod.Resources.Requests
	intent.SecurityContext = pod.SecurityContext
	return intent
}

const quotaOption = "ETCD_QUOTA_BACKEND_BYTES"

// VolumeSize returns the size that the spec asks for each member's volume.
func VolumeSize(spec *v1alpha1.EtcdClusterSpec) resource.Quantity {
	if spec.Pod != nil && spec.Pod.PersistentVolumeClaimSpec != nil {
		if size, ok := spec.Pod.PersistentVolumeClaimSpec.Resources.Requests[corev1.ResourceStorage]; ok {
			return size
		}
	}
	return resource.MustParse(DefaultVolumeSize)
}

func defaultQuota(volume resource.Quantity) int64 {
	return min(volume.Value()/100*quotaPercent, maxDefaultQuota)
}

// Image returns the etcd image of the intent.
func (i Intent) Image() string { return i.Repository + ":v" + i.Version }

// Encode returns the intent as it is stored, and the hash of what the pods depend on.
func (i Intent) Encode() (text, hash string) {
	text = i.marshal()
	i.OperatorSecret = ""
	sum := sha256.Sum256([]byte(i.marshal()))
	return text, hex.EncodeToString(sum[:8])
}

func (i Intent) marshal() string {
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

// Differences names the fields in which the pods of two intents differ.
func (i Intent) Differences(other Intent) []string {
	i.OperatorSecret = other.OperatorSecret
	var names []string
	a, b := reflect.ValueOf(i), reflect.ValueOf(other)
	for n := range a.NumField() {
		if !equality.Semantic.DeepEqual(a.Field(n).Interface(), b.Field(n).Interface()) {
			names = append(names, a.Type().Field(n).Name)
		}
	}
	return names
}
