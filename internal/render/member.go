package render

import (
	"cmp"
	"maps"
	"math"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// MemberInput is what a member's StatefulSet is made from.
type MemberInput struct {
	Cluster *v1beta1.EtcdCluster
	// Name of the member.
	Name   string
	Intent cluster.Intent
	// HealthyIntent is the annotation AnnotationHealthyIntent: the intent under which the member was last healthy, as
	// Intent.Encode returns it; empty where none was recorded.
	HealthyIntent string
	// Operation and FailedIntent are the annotations of these names; empty for none.
	Operation, FailedIntent string
	// Start is what etcd does on an empty volume.
	Start Start
	// Stopped keeps the member from running: its StatefulSet has no pod.
	Stopped bool
	// MemoryBytes is how much memory the data may take; zero where they are on a volume.
	MemoryBytes int64
	// IPv6 makes etcd listen on [::], which serves IPv6 and dual stack, instead of 0.0.0.0.
	IPv6 bool
}

// ContainerName is the name of etcd's container in a member's pod.
const ContainerName = "etcd"

const (
	dataVolume = "data"
	dataMount  = "/var/etcd"
	dataDir    = dataMount + "/data"

	peerTLSVolume   = "peer-tls"
	peerTLSMount    = "/etc/etcd/peer"
	serverTLSVolume = "server-tls"
	serverTLSMount  = "/etc/etcd/server"
	// secretMode lets only the pod's user and group read the keys.
	secretMode = 0o440

	// revisionHistory is small: to roll back, the operator renders a new template from an older intent.
	revisionHistory = 1
	// maxIntentBytes bounds the two intents on a StatefulSet: Kubernetes accepts annotations of 256 KiB, all together.
	// Where both do not fit, the one that the template is made from stays.
	maxIntentBytes = 253 << 10
)

// MemberStatefulSet builds the StatefulSet of one pod that runs a member.
// Kubernetes starts a pod from a new template only after the old pod was deleted (OnDelete).
func MemberStatefulSet(in MemberInput) *appsv1.StatefulSet {
	text, hash := in.Intent.Encode()
	meta := ownedMeta(in.Cluster, in.Name)
	meta.Labels[cluster.LabelMember] = in.Name
	meta.Annotations = map[string]string{
		cluster.AnnotationIntent:     text,
		cluster.AnnotationIntentHash: hash,
	}
	if in.HealthyIntent != "" && len(text)+len(in.HealthyIntent) <= maxIntentBytes {
		meta.Annotations[cluster.AnnotationHealthyIntent] = in.HealthyIntent
	}
	for key, value := range map[string]string{cluster.AnnotationOperation: in.Operation, cluster.AnnotationFailedIntent: in.FailedIntent} {
		if value != "" {
			meta.Annotations[key] = value
		}
	}
	replicas := int32(1)
	if in.Stopped {
		replicas = 0
	}
	set := &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: meta,
		Spec: appsv1.StatefulSetSpec{
			Replicas:             &replicas,
			ServiceName:          cluster.PeerServiceName(in.Cluster.Name),
			PodManagementPolicy:  appsv1.ParallelPodManagement,
			UpdateStrategy:       appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType},
			RevisionHistoryLimit: new(int32(revisionHistory)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{
				cluster.LabelCluster: in.Cluster.Name,
				cluster.LabelMember:  in.Name,
			}},
			Template: podTemplate(in),
		},
	}
	template := &set.Spec.Template
	template.Annotations[cluster.AnnotationRenderHash] = renderHash(in, template)
	template.Annotations[cluster.AnnotationIntentHash] = hash // not part of the render hash
	return set
}

// RenderHash returns the hash of a member's pod template in the form Existing.
// The other forms have the same hash, so switching the form never requires a restart.
func RenderHash(in MemberInput) string {
	template := podTemplate(in)
	return renderHash(in, &template)
}

// renderHash returns the render hash of a template that was built without its hashes.
func renderHash(in MemberInput, template *corev1.PodTemplateSpec) string {
	if in.Start != (Start{}) {
		in.Start = Start{}
		existing := podTemplate(in)
		template = &existing
	}
	return hashOf(template)
}

// podTemplate builds the template without its hashes.
func podTemplate(in MemberInput) corev1.PodTemplateSpec {
	annotations := merged(in.Intent.Annotations, AuthorityAnnotations(in.Intent))
	maps.Copy(annotations, in.Start.Annotations())
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      merged(in.Intent.Labels, memberLabels(in.Cluster, in.Name)),
			Annotations: annotations,
		},
		Spec: corev1.PodSpec{
			InitContainers:                initContainers(in),
			Containers:                    []corev1.Container{container(in)},
			Volumes:                       volumes(in),
			SchedulingGates:               gates(in),
			NodeSelector:                  in.Intent.NodeSelector,
			Affinity:                      affinity(in),
			TopologySpreadConstraints:     spread(in),
			Tolerations:                   in.Intent.Tolerations,
			PriorityClassName:             in.Intent.PriorityClassName,
			SchedulerName:                 in.Intent.SchedulerName,
			RuntimeClassName:              nilIfEmpty(in.Intent.RuntimeClassName),
			ImagePullSecrets:              in.Intent.ImagePullSecrets,
			SecurityContext:               podSecurity(in.Intent.SecurityContext),
			TerminationGracePeriodSeconds: new(gracePeriodSeconds(in.Intent)),
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
		},
	}
}

// AuthorityAnnotations name the authorities that a pod starts with. etcd reads its bundle only when it starts.
func AuthorityAnnotations(i cluster.Intent) map[string]string {
	annotations := map[string]string{}
	if len(i.PeerAuthorities) > 0 {
		annotations[cluster.AnnotationPeerAuthorities] = strings.Join(i.PeerAuthorities, ",")
	}
	if len(i.ServerAuthorities) > 0 {
		annotations[cluster.AnnotationClientAuthorities] = strings.Join(i.ServerAuthorities, ",")
	}
	return annotations
}

// gracePeriodSeconds returns how long etcd gets to stop. On SIGTERM etcd closes its servers for clients, then it
// transfers leadership. Each of the two takes up to 5 s plus two election timeouts: closing does while a watch is open.
// Source: ServerConfig.ReqTimeout in etcd's server/config/config.go. 10 s remain to close the database.
func gracePeriodSeconds(i cluster.Intent) int64 {
	stop := 2*(5*time.Second+2*i.ElectionTimeout()) + 10*time.Second
	return max(30, int64(math.Ceil(stop.Seconds())))
}

// EtcdBinary is where every image has etcd.
const EtcdBinary = "/usr/local/bin/etcd"

func container(in MemberInput) corev1.Container {
	return corev1.Container{
		Name:            ContainerName,
		Image:           in.Intent.Image(),
		ImagePullPolicy: cmp.Or(corev1.PullPolicy(in.Intent.PullPolicy), corev1.PullIfNotPresent),
		Command:         []string{EtcdBinary},
		Args:            args(in),
		Env:             startEnv(in.Start),
		Ports: []corev1.ContainerPort{
			{Name: clientPortName, ContainerPort: cluster.ClientPort, Protocol: corev1.ProtocolTCP},
			{Name: peerPortName, ContainerPort: cluster.PeerPort, Protocol: corev1.ProtocolTCP},
			{Name: metricsPortName, ContainerPort: cluster.MetricsPort, Protocol: corev1.ProtocolTCP},
		},
		Resources:                corev1.ResourceRequirements{Limits: in.Intent.Limits, Requests: in.Intent.Requests},
		VolumeMounts:             mounts(in),
		StartupProbe:             startupProbe(),
		LivenessProbe:            livenessProbe(),
		ReadinessProbe:           readinessProbe(),
		SecurityContext:          containerSecurity(),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// AddressContainerName is the container that a member which joins starts with.
const AddressContainerName = "address"

// initContainers gives the pod of a member that joins its address before etcd starts. The kubelet publishes the address
// between two containers. The other members look it up in the DNS, and accept no connection from another. Then etcd
// would exit, and wait for longer and longer to be started again.
// Source: checkSAN in etcd's client/pkg/transport/listener_tls.go.
func initContainers(in MemberInput) []corev1.Container {
	if !in.Start.joins() {
		return nil
	}
	etcd := container(in)
	return []corev1.Container{{
		Name:            AddressContainerName,
		Image:           etcd.Image,
		ImagePullPolicy: etcd.ImagePullPolicy,
		Command:         etcd.Command,
		Args:            []string{"--version"},
		Resources:       etcd.Resources,
		SecurityContext: etcd.SecurityContext,
	}}
}

func volumes(in MemberInput) []corev1.Volume {
	data := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: cluster.VolumeName(in.Name)}}
	if in.MemoryBytes > 0 {
		limit := resource.NewQuantity(in.MemoryBytes, resource.BinarySI)
		data = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: limit}}
	}
	all := append(make([]corev1.Volume, 0, 3), corev1.Volume{Name: dataVolume, VolumeSource: data})
	if in.Intent.PeerSecret != "" {
		all = append(all, secretVolume(peerTLSVolume, in.Intent.PeerSecret))
	}
	if in.Intent.ServerSecret != "" {
		all = append(all, secretVolume(serverTLSVolume, in.Intent.ServerSecret))
	}
	return all
}

// gates keep a pod whose data are in memory from being started before it is admitted: one that the StatefulSet makes
// again would start empty, under the ID of the member that is lost (docs/adr/0007).
func gates(in MemberInput) []corev1.PodSchedulingGate {
	if in.MemoryBytes == 0 {
		return nil
	}
	return []corev1.PodSchedulingGate{{Name: cluster.GateInMemory}}
}

// MemoryBytes returns how much memory the data may take in the pods of a template; zero where they are on a volume.
func MemoryBytes(template *corev1.PodTemplateSpec) int64 {
	for _, v := range template.Spec.Volumes {
		if v.Name == dataVolume && v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil {
			return v.EmptyDir.SizeLimit.Value()
		}
	}
	return 0
}

func secretVolume(name, secret string) corev1.Volume {
	return corev1.Volume{
		Name: name,
		VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: secret, DefaultMode: new(int32(secretMode))},
		},
	}
}

func mounts(in MemberInput) []corev1.VolumeMount {
	all := append(make([]corev1.VolumeMount, 0, 3), corev1.VolumeMount{Name: dataVolume, MountPath: dataMount})
	if in.Intent.PeerSecret != "" {
		all = append(all, corev1.VolumeMount{Name: peerTLSVolume, MountPath: peerTLSMount, ReadOnly: true})
	}
	if in.Intent.ServerSecret != "" {
		all = append(all, corev1.VolumeMount{Name: serverTLSVolume, MountPath: serverTLSMount, ReadOnly: true})
	}
	return all
}

// nilIfEmpty returns nil for an empty text.
func nilIfEmpty(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
