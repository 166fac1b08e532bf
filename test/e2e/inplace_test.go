package e2e

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// withResources sets the request and the limit of memory, beside a request of CPU.
func withResources(cpu, request, limit string) func(*v1beta1.EtcdClusterSpec) {
	return func(s *v1beta1.EtcdClusterSpec) {
		s.Resources = v1beta1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(request)},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)},
		}
	}
}

// process is what a restart changes of a pod.
type process struct {
	uid      types.UID
	restarts int32
	started  string
}

func processesOf(ctx context.Context, c *v1beta1.EtcdCluster) map[string]process {
	GinkgoHelper()
	all := map[string]process{}
	for _, pod := range podsOf(ctx, c) {
		etcd := etcdStatus(&pod)
		Expect(etcd.State.Running).NotTo(BeNil())
		all[pod.Name] = process{pod.UID, etcd.RestartCount, etcd.State.Running.StartedAt.String()}
	}
	return all
}

func etcdStatus(pod *corev1.Pod) corev1.ContainerStatus {
	GinkgoHelper()
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == render.ContainerName {
			return status
		}
	}
	Fail("no etcd container in Pod " + pod.Name)
	return corev1.ContainerStatus{}
}

// expectMemory fails unless the kubelet has given every pod the limit, and every StatefulSet asks for it.
func expectMemory(ctx context.Context, c *v1beta1.EtcdCluster, limit string) {
	GinkgoHelper()
	for _, pod := range podsOf(ctx, c) {
		Expect(etcdStatus(&pod).Resources).NotTo(BeNil())
		Expect(etcdStatus(&pod).Resources.Limits.Memory().String()).To(Equal(limit))
		Expect(pod.Annotations).NotTo(HaveKey(cluster.AnnotationResize))
	}
	for _, m := range c.Status.Members {
		var set appsv1.StatefulSet
		Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: m.Name}, &set)).To(Succeed())
		Expect(set.Spec.Template.Spec.Containers[0].Resources.Limits.Memory().String()).To(Equal(limit))
	}
}

var _ = Describe("CPU and memory of a running cluster", func() {
	It("change without a restart, up and down, and restart the members where Kubernetes cannot change them", func(ctx SpecContext) {
		c := makeCluster(newNamespace(ctx))
		withResources("20m", "64Mi", "512Mi")(&c.Spec)
		create(ctx, c)
		kept := bury(ctx, c)
		before := processesOf(ctx, c)

		edit(ctx, c, withResources("30m", "96Mi", "768Mi"))
		awaitHealthy(ctx, c)
		expectEvent(ctx, c, v1beta1.EventPodResized, "They were not restarted")
		expectMemory(ctx, c, "768Mi")
		Expect(processesOf(ctx, c)).To(Equal(before))

		edit(ctx, c, withResources("20m", "64Mi", "768Mi"))
		awaitHealthy(ctx, c)
		expectMemory(ctx, c, "768Mi")
		Expect(processesOf(ctx, c)).To(Equal(before))

		// The limit of memory goes down, and the class of quality of service becomes Guaranteed.
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) {
			withResources("100m", "512Mi", "512Mi")(s)
			s.Resources.Limits[corev1.ResourceCPU] = resource.MustParse("100m")
		})
		awaitHealthy(ctx, c)
		expectEvent(ctx, c, v1beta1.EventMemberRolled)
		for name, now := range processesOf(ctx, c) {
			Expect(now.uid).NotTo(Equal(before[name].uid))
		}
		kept.expectFound(ctx, c)
	})
})
