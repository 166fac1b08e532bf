package conversion

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// The sizes of volumes that the versions mean when the spec has none. Conversion writes them into the other version.
// They must never change. The defaults of version and repository are the same in both schemas. Conversion does not
// write them, because server-side apply could then not withdraw these fields.
var (
	spokeVolume = resource.MustParse("2Gi")
	hubVolume   = resource.MustParse("8Gi")
)

// The options for which v1beta1 has typed fields.
const (
	quotaOption     = "quota-backend-bytes"
	modeOption      = "auto-compaction-mode"
	retentionOption = "auto-compaction-retention"
)

// toHub converts the fields of spoke. It copies the annotations unchanged.
func toHub(spoke *v1alpha1.EtcdCluster, hub *v1beta1.EtcdCluster) {
	hub.ObjectMeta = spoke.ObjectMeta
	pod := spoke.Spec.Pod
	if pod == nil {
		pod = &v1alpha1.PodPolicy{}
	}
	hub.Spec = v1beta1.EtcdClusterSpec{
		Replicas:      spoke.Spec.Size,
		Version:       spoke.Spec.Version,
		Image:         v1beta1.Image{Repository: spoke.Spec.Repository},
		Storage:       storageToHub(pod.PersistentVolumeClaimSpec),
		TLS:           tlsToHub(spoke.Spec.TLS),
		Config:        configToHub(pod.EtcdEnv),
		Resources:     v1beta1.ResourceRequirements(pod.Resources),
		PodTemplate:   podToHub(pod),
		ClusterDomain: pod.ClusterDomain,
		Paused:        spoke.Spec.Paused,
	}
	hub.Status = statusToHub(&spoke.Status)
}

// fromHub converts the fields of hub that v1alpha1 has. It copies the annotations unchanged.
func fromHub(hub *v1beta1.EtcdCluster, spoke *v1alpha1.EtcdCluster) {
	spoke.ObjectMeta = hub.ObjectMeta
	spoke.Spec = v1alpha1.EtcdClusterSpec{
		Size:       hub.Spec.Replicas,
		Version:    hub.Spec.Version,
		Repository: hub.Spec.Image.Repository,
		Paused:     hub.Spec.Paused,
		Pod:        podFromHub(&hub.Spec),
		TLS:        tlsFromHub(hub.Spec.TLS),
	}
	spoke.Status = statusFromHub(&hub.Status)
}

func storageToHub(claim *v1alpha1.VolumeClaimSpec) *v1beta1.Storage {
	if claim == nil {
		return &v1beta1.Storage{VolumeClaimTemplate: &v1beta1.VolumeClaimTemplate{Spec: v1beta1.VolumeClaimSpec{
			Resources: v1beta1.VolumeResources{Requests: corev1.ResourceList{corev1.ResourceStorage: spokeVolume}},
		}}}
	}
	return &v1beta1.Storage{VolumeClaimTemplate: &v1beta1.VolumeClaimTemplate{Spec: v1beta1.VolumeClaimSpec{
		StorageClassName: claim.StorageClassName,
		AccessModes:      claim.AccessModes,
		Resources:        v1beta1.VolumeResources(claim.Resources),
	}}}
}

func storageFromHub(storage *v1beta1.Storage) *v1alpha1.VolumeClaimSpec {
	if storage == nil || storage.VolumeClaimTemplate == nil {
		return &v1alpha1.VolumeClaimSpec{Resources: v1alpha1.VolumeResources{Requests: corev1.ResourceList{corev1.ResourceStorage: hubVolume}}}
	}
	claim := &storage.VolumeClaimTemplate.Spec
	if size, ok := claim.Resources.Requests[corev1.ResourceStorage]; ok && len(claim.Resources.Requests) == 1 &&
		size.Cmp(spokeVolume) == 0 && claim.StorageClassName == nil && len(claim.AccessModes) == 0 {
		return nil
	}
	return &v1alpha1.VolumeClaimSpec{
		StorageClassName: claim.StorageClassName,
		AccessModes:      claim.AccessModes,
		Resources:        v1alpha1.VolumeResources(claim.Resources),
	}
}

// tlsToHub writes mode Disabled explicitly: without TLS, v1alpha1 means no TLS and v1beta1 means managed TLS.
func tlsToHub(tls *v1alpha1.TLSPolicy) *v1beta1.TLS {
	hub := &v1beta1.TLS{Client: &v1beta1.ClientTLS{Mode: v1beta1.TLSDisabled}, Peer: &v1beta1.PeerTLS{Mode: v1beta1.TLSDisabled}}
	if tls == nil || tls.Static == nil || tls.Static.Member == nil {
		return hub
	}
	if member := tls.Static.Member; member.ServerSecret != "" {
		hub.Client = &v1beta1.ClientTLS{SecretRef: &v1beta1.ClientSecretRef{
			Name: member.ServerSecret, OperatorName: tls.Static.OperatorSecret, Format: v1beta1.SecretFormatEtcdOperator,
		}}
	}
	if member := tls.Static.Member; member.PeerSecret != "" {
		hub.Peer = &v1beta1.PeerTLS{SecretRef: &v1beta1.PeerSecretRef{Name: member.PeerSecret, Format: v1beta1.SecretFormatEtcdOperator}}
	}
	return hub
}

// tlsFromHub converts Secrets with the keys of the original operator. v1alpha1 has no other source of certificates.
func tlsFromHub(tls *v1beta1.TLS) *v1alpha1.TLSPolicy {
	var member v1alpha1.MemberSecrets
	var operator string
	if tls != nil && tls.Client != nil && tls.Client.SecretRef != nil && tls.Client.SecretRef.Format == v1beta1.SecretFormatEtcdOperator {
		member.ServerSecret, operator = tls.Client.SecretRef.Name, tls.Client.SecretRef.OperatorName
	}
	if tls != nil && tls.Peer != nil && tls.Peer.SecretRef != nil && tls.Peer.SecretRef.Format == v1beta1.SecretFormatEtcdOperator {
		member.PeerSecret = tls.Peer.SecretRef.Name
	}
	if member == (v1alpha1.MemberSecrets{}) {
		return nil
	}
	return &v1alpha1.TLSPolicy{Static: &v1alpha1.StaticTLS{Member: &member, OperatorSecret: operator}}
}

// configToHub never sets typed fields: v1alpha1 accepts values that they do not.
func configToHub(env []v1alpha1.EtcdOption) *v1beta1.Config {
	if len(env) == 0 {
		return nil
	}
	args := make(map[string]string, len(env))
	for _, option := range env {
		args[flagOf(option.Name)] = option.Value
	}
	return &v1beta1.Config{ExtraArgs: args}
}

// configFromHub converts typed fields into options. It orders all options by name.
func configFromHub(config *v1beta1.Config) []v1alpha1.EtcdOption {
	if config == nil {
		return nil
	}
	args := config.ExtraArgs
	if config.QuotaBackendBytes != nil || config.AutoCompaction != nil {
		args = maps.Clone(args)
		if args == nil {
			args = map[string]string{}
		}
	}
	if quota := config.QuotaBackendBytes; quota != nil {
		args[quotaOption] = strconv.FormatInt(quota.Value(), 10)
	}
	if compaction := config.AutoCompaction; compaction != nil {
		args[modeOption], args[retentionOption] = strings.ToLower(string(compaction.Mode)), compaction.Retention
	}
	var env []v1alpha1.EtcdOption
	for _, flag := range slices.Sorted(maps.Keys(args)) {
		env = append(env, v1alpha1.EtcdOption{Name: variableOf(flag), Value: args[flag]})
	}
	return env
}

// flagOf and variableOf are inverse to each other for every name that the schemas accept.
func flagOf(variable string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, "ETCD_"), "_", "-"))
}

func variableOf(flag string) string {
	return "ETCD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func podToHub(pod *v1alpha1.PodPolicy) *v1beta1.PodTemplate {
	if len(pod.Labels)+len(pod.Annotations)+len(pod.NodeSelector)+len(pod.Tolerations) == 0 &&
		pod.Affinity == nil && !pod.AntiAffinity && pod.SecurityContext == nil {
		return nil
	}
	template := &v1beta1.PodTemplate{
		Metadata: v1beta1.PodMetadata{Labels: pod.Labels, Annotations: pod.Annotations},
		Spec: v1beta1.PodSpec{
			NodeSelector:    pod.NodeSelector,
			Affinity:        pod.Affinity,
			Tolerations:     pod.Tolerations,
			SecurityContext: pod.SecurityContext,
		},
	}
	if pod.AntiAffinity {
		template.MemberAntiAffinity = v1beta1.MemberAntiAffinityRequired
	}
	return template
}

func podFromHub(hub *v1beta1.EtcdClusterSpec) *v1alpha1.PodPolicy {
	pod := v1alpha1.PodPolicy{
		Resources:                 v1alpha1.ResourceRequirements(hub.Resources),
		EtcdEnv:                   configFromHub(hub.Config),
		PersistentVolumeClaimSpec: storageFromHub(hub.Storage),
		ClusterDomain:             hub.ClusterDomain,
	}
	if template := hub.PodTemplate; template != nil {
		pod.Labels, pod.Annotations = template.Metadata.Labels, template.Metadata.Annotations
		pod.NodeSelector, pod.Affinity = template.Spec.NodeSelector, template.Spec.Affinity
		pod.Tolerations, pod.SecurityContext = template.Spec.Tolerations, template.Spec.SecurityContext
		pod.AntiAffinity = template.MemberAntiAffinity == v1beta1.MemberAntiAffinityRequired
	}
	if podToHub(&pod) == nil && len(pod.Resources.Limits)+len(pod.Resources.Requests)+len(pod.EtcdEnv) == 0 &&
		pod.PersistentVolumeClaimSpec == nil && pod.ClusterDomain == "" {
		return nil
	}
	return &pod
}

// statusToHub copies all fields. The status of both versions has the same fields, so nothing is lost.
func statusToHub(spoke *v1alpha1.EtcdClusterStatus) v1beta1.EtcdClusterStatus {
	status := v1beta1.EtcdClusterStatus{
		ObservedGeneration: spoke.ObservedGeneration,
		ClusterID:          spoke.ClusterID,
		Version:            spoke.Version,
		TargetVersion:      spoke.TargetVersion,
		Replicas:           spoke.Size,
		ReadyReplicas:      spoke.ReadyMembers,
		Ready:              spoke.Ready,
		Selector:           spoke.Selector,
		Leader:             spoke.Leader,
		ServiceName:        spoke.ServiceName,
		ClientPort:         spoke.ClientPort,
		ClientSecretName:   spoke.ClientSecretName,
		AnsweredPlan:       spoke.AnsweredPlan,
		Conditions:         spoke.Conditions,
	}
	if o := spoke.Operation; o != nil {
		status.Operation = &v1beta1.Operation{
			Type: v1beta1.OperationType(o.Type), Member: o.Member, StartedAt: o.StartedAt, Reason: o.Reason, WaitingFor: o.WaitingFor,
			VolumeUID: o.VolumeUID,
		}
	}
	for _, m := range spoke.Members {
		status.Members = append(status.Members, v1beta1.MemberStatus{
			Name: m.Name, ID: m.ID, Role: v1beta1.MemberRole(m.Role), Version: m.Version, Ready: m.Ready, Reason: m.Reason, VolumeUID: m.VolumeUID,
		})
	}
	return status
}

// statusFromHub copies all fields, as statusToHub does.
func statusFromHub(hub *v1beta1.EtcdClusterStatus) v1alpha1.EtcdClusterStatus {
	status := v1alpha1.EtcdClusterStatus{
		ObservedGeneration: hub.ObservedGeneration,
		ClusterID:          hub.ClusterID,
		Version:            hub.Version,
		TargetVersion:      hub.TargetVersion,
		Size:               hub.Replicas,
		ReadyMembers:       hub.ReadyReplicas,
		Ready:              hub.Ready,
		Selector:           hub.Selector,
		Leader:             hub.Leader,
		ServiceName:        hub.ServiceName,
		ClientPort:         hub.ClientPort,
		ClientSecretName:   hub.ClientSecretName,
		AnsweredPlan:       hub.AnsweredPlan,
		Conditions:         hub.Conditions,
	}
	if o := hub.Operation; o != nil {
		status.Operation = &v1alpha1.Operation{
			Type: v1alpha1.OperationType(o.Type), Member: o.Member, StartedAt: o.StartedAt, Reason: o.Reason, WaitingFor: o.WaitingFor,
			VolumeUID: o.VolumeUID,
		}
	}
	for _, m := range hub.Members {
		status.Members = append(status.Members, v1alpha1.MemberStatus{
			Name: m.Name, ID: m.ID, Role: v1alpha1.MemberRole(m.Role), Version: m.Version, Ready: m.Ready, Reason: m.Reason, VolumeUID: m.VolumeUID,
		})
	}
	return status
}
