package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/test/world"
)

var _ = Describe("A cluster keeps its data, its ID and its members", func() {
	It("when one pod is deleted without grace", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		before := podOf(ctx, c, "prod-1")
		deletePods(ctx, c, "prod-1")
		write(ctx, c, "prod-0", "meanwhile", "served")
		awaitSuccessor(ctx, before)
		awaitHealthy(ctx, c)
		kept.expectFound(ctx, c)
	})

	It("when all its pods are deleted at once", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		before := podsOf(ctx, c)
		deletePods(ctx, c, "prod-0", "prod-1", "prod-2")
		for _, pod := range before {
			awaitSuccessor(ctx, &pod)
		}
		awaitHealthy(ctx, c)
		kept.expectFound(ctx, c)
	})

	It("when etcd is killed in place, in one pod and then in all", func(ctx SpecContext) {
		onLocalCluster()
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		killContainers(ctx, c, "prod-2")
		awaitHealthy(ctx, c)
		kept.expectFound(ctx, c)
		killContainers(ctx, c, "prod-0", "prod-1", "prod-2")
		awaitHealthy(ctx, c)
		kept.expectFound(ctx, c)
		for _, pod := range podsOf(ctx, c) {
			Expect(pod.Status.ContainerStatuses[0].RestartCount).To(BeNumerically(">", 0))
		}
	})

	It("when kubectl restarts a StatefulSet: nothing restarts", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		before := uidsOf(podsOf(ctx, c))
		out, err := lab.Kubectl(ctx, "-n", c.Namespace, "rollout", "restart", "statefulset/prod-0", "statefulset/prod-1", "statefulset/prod-2")
		Expect(err).NotTo(HaveOccurred(), out)
		Consistently(ctx, func() []string { return uidsOf(podsOf(ctx, c)) }).WithTimeout(5 * time.Second).Should(Equal(before))
		awaitHealthy(ctx, c)
		kept.expectFound(ctx, c)
	})

	It("when two members are evicted at once: the second must wait", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)
		before := podOf(ctx, c, "prod-0")
		Expect(evict(ctx, c, "prod-0")).To(Succeed())
		Expect(apierrors.IsTooManyRequests(evict(ctx, c, "prod-1"))).To(BeTrue(), "the second eviction was not refused")
		awaitSuccessor(ctx, before)
		awaitHealthy(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)
		kept.expectFound(ctx, c)
	})

	It("when its StatefulSets are deleted: they come back over the same volumes", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		out, err := lab.Kubectl(ctx, "-n", c.Namespace, "delete", "statefulsets", "--all")
		Expect(err).NotTo(HaveOccurred(), out)
		expectEvent(ctx, c, v1beta1.EventMembersResumed)
		awaitHealthy(ctx, c)
		kept.expectFound(ctx, c)
	})
})

// deletePods deletes members' pods at once and without grace, as a machine that dies would.
func deletePods(ctx context.Context, c *v1beta1.EtcdCluster, members ...string) {
	GinkgoHelper()
	for _, member := range members {
		Expect(kube.Delete(ctx, podOf(ctx, c, member), client.GracePeriodSeconds(0))).To(Succeed())
	}
}

// awaitSuccessor waits for another ready pod of the same name.
func awaitSuccessor(ctx context.Context, before *corev1.Pod) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		var pod corev1.Pod
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(before), &pod)).To(Succeed())
		g.Expect(pod.UID).NotTo(Equal(before.UID))
		g.Expect(pod.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
	}).Should(Succeed())
}

func uidsOf(pods []corev1.Pod) []string {
	var uids []string
	for _, pod := range pods {
		uids = append(uids, fmt.Sprintf("%s %s restarts=%d", pod.Name, pod.UID, pod.Status.ContainerStatuses[0].RestartCount))
	}
	slices.Sort(uids)
	return uids
}

// killContainers kills the members' etcd processes where they run,
// all at once, and waits until the kubelet has seen it.
func killContainers(ctx context.Context, c *v1beta1.EtcdCluster, members ...string) {
	GinkgoHelper()
	ids := map[string]string{}
	kills := map[string][]string{} // by node
	for _, member := range members {
		pod := podOf(ctx, c, member)
		ids[member] = pod.Status.ContainerStatuses[0].ContainerID
		kills[pod.Spec.NodeName] = append(kills[pod.Spec.NodeName], strings.TrimPrefix(ids[member], "containerd://"))
	}
	for node, containers := range kills {
		for _, id := range containers {
			out, err := exec.CommandContext(ctx, "ctr", "--address", world.LocalState+"/"+node+"/containerd.sock", "--namespace", "k8s.io",
				"task", "kill", "--signal", "SIGKILL", id).CombinedOutput()
			Expect(err).NotTo(HaveOccurred(), string(out))
		}
	}
	for _, member := range members {
		Eventually(ctx, func(g Gomega) {
			status := podOf(ctx, c, member).Status.ContainerStatuses[0]
			g.Expect(status.ContainerID).NotTo(Equal(ids[member]))
			g.Expect(status.RestartCount).To(BeNumerically(">", 0))
		}).Should(Succeed())
	}
}

func evict(ctx context.Context, c *v1beta1.EtcdCluster, member string) error {
	return clientset.PolicyV1().Evictions(c.Namespace).Evict(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: cluster.PodName(member)},
	})
}

func awaitDisruptionsAllowed(ctx context.Context, c *v1beta1.EtcdCluster, want int) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		var budget policyv1.PodDisruptionBudget
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), &budget)).To(Succeed())
		g.Expect(budget.Status.ObservedGeneration).To(Equal(budget.Generation))
		g.Expect(budget.Status.DisruptionsAllowed).To(BeNumerically("==", want))
	}).Should(Succeed())
}
