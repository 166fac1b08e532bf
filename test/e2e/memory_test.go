package e2e

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var _ = Describe("A cluster whose data are in memory", func() {
	It("replaces a member whose pod is gone within a minute, under a new name, and loses no write", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), inMemory))
		writers := appendOn(ctx, c)
		var claims corev1.PersistentVolumeClaimList
		Expect(kube.List(ctx, &claims, client.InNamespace(c.Namespace))).To(Succeed())
		Expect(claims.Items).To(BeEmpty())
		since := time.Now()
		deletePods(ctx, c, "prod-1")
		awaitMembers(ctx, c, "prod-0", "prod-2", "prod-3")
		took := time.Since(since)
		AddReportEntry("time until the new member was a healthy voter", took.String())
		Expect(took).To(BeNumerically("<", time.Minute))
		expectEvent(ctx, c, v1beta1.EventMemberRemoved, "The pod of prod-1 is gone", "a new member takes its place")
		Eventually(ctx, func(g Gomega) {
			g.Expect(exists(ctx, c.Namespace, cluster.PodName("prod-1"), &corev1.Pod{})).To(BeFalse())
			g.Expect(exists(ctx, c.Namespace, cluster.VolumeName("prod-1"), &corev1.ConfigMap{})).To(BeFalse())
		}).Should(Succeed())
		writers.end(ctx, c)
	})

	It("keeps a member whose container is killed in place", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), inMemory))
		writers := appendOn(ctx, c)
		before := uidsOfPods(ctx, c)
		killContainers(ctx, c, "prod-0", "prod-1", "prod-2")
		awaitMembers(ctx, c, "prod-0", "prod-1", "prod-2")
		Expect(uidsOfPods(ctx, c)).To(Equal(before))
		writers.end(ctx, c)
	})

	It("says so when all pods go at once, and founds nothing again", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), inMemory))
		deletePods(ctx, c, "prod-0", "prod-1", "prod-2")
		lost := func(g Gomega) {
			g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
			progressing(metav1.ConditionFalse, v1beta1.ReasonMemoryLost).saying("prod-0, prod-1, prod-2", "delete EtcdCluster prod").check(g, c)
			var pods corev1.PodList
			g.Expect(kube.List(ctx, &pods, client.InNamespace(c.Namespace))).To(Succeed())
			for _, pod := range pods.Items {
				g.Expect(pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil).To(BeTrue(), fmt.Sprintf("%s was started", pod.Name))
			}
		}
		Eventually(ctx, lost).WithTimeout(2 * time.Minute).Should(Succeed())
		Consistently(ctx, lost).WithTimeout(10 * time.Second).Should(Succeed())
	})
})

func inMemory(c *v1beta1.EtcdCluster) {
	c.Spec.Storage = &v1beta1.Storage{Ephemeral: &v1beta1.EphemeralStorage{Medium: v1beta1.EphemeralMemory, SizeLimit: resource.MustParse("256Mi")}}
	c.Spec.Config = &v1beta1.Config{QuotaBackendBytes: new(resource.MustParse("64Mi"))}
}
