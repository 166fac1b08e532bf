package render

import (
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Names of the ports in pods and Services.
const (
	clientPortName  = "client"
	peerPortName    = "peer"
	metricsPortName = "metrics"
)

// ClientService builds the Service for clients. It selects ready members only.
func ClientService(c *v1beta1.EtcdCluster) *corev1.Service {
	return service(c, cluster.ClientServiceName(c.Name), corev1.ServiceSpec{
		Type:  corev1.ServiceTypeClusterIP,
		Ports: []corev1.ServicePort{servicePort(clientPortName, cluster.ClientPort)},
	})
}

// PeerService builds the headless Service that gives members their DNS names.
// It also publishes pods that are not ready. Otherwise members that all restart at once could not find each other.
func PeerService(c *v1beta1.EtcdCluster) *corev1.Service {
	return service(c, cluster.PeerServiceName(c.Name), corev1.ServiceSpec{
		Type:                     corev1.ServiceTypeClusterIP,
		ClusterIP:                corev1.ClusterIPNone,
		PublishNotReadyAddresses: true,
		Ports: []corev1.ServicePort{
			servicePort(clientPortName, cluster.ClientPort),
			servicePort(peerPortName, cluster.PeerPort),
			servicePort(metricsPortName, cluster.MetricsPort),
		},
	})
}

// Budget builds the PodDisruptionBudget over the pods of all members. A learner is never ready, so it does not count.
// A pod that is not ready may only be evicted while enough others are ready: it may be a voter that replays its log,
// and evicting it again and again would keep the quorum away. The API server has the same default today.
func Budget(c *v1beta1.EtcdCluster, minAvailable int) *policyv1.PodDisruptionBudget {
	budget := &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: ownedMeta(c, c.Name),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable:               new(intstr.FromInt(minAvailable)),
			Selector:                   &metav1.LabelSelector{MatchLabels: allMembers(c)},
			UnhealthyPodEvictionPolicy: new(policyv1.IfHealthyBudget),
		},
	}
	budget.Annotations = map[string]string{cluster.AnnotationAppliedHash: hashOf(budget)}
	return budget
}

func service(c *v1beta1.EtcdCluster, name string, spec corev1.ServiceSpec) *corev1.Service {
	spec.Selector = allMembers(c)
	spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyPreferDualStack)
	built := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: ownedMeta(c, name),
		Spec:       spec,
	}
	built.Annotations = map[string]string{cluster.AnnotationAppliedHash: hashOf(built)}
	return built
}

func servicePort(name string, port int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: corev1.ProtocolTCP, Port: port, TargetPort: intstr.FromString(name)}
}
