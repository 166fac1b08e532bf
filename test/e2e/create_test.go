package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/test/world"
)

var _ = Describe("A new cluster", func() {
	for _, minor := range []string{"3.5", "3.6", "3.7"} {
		It("of etcd "+minor+" with default volumes serves, and etcd takes every flag", func(ctx SpecContext) {
			c := create(ctx, makeCluster(newNamespace(ctx), ofVersion(versionOf(minor)), defaultVolume))
			Expect(c.Status.Version).To(Equal(versionOf(minor)))
			bury(ctx, c).expectFound(ctx, c)
			expectVolumes(ctx, c, "8Gi")
			for _, m := range c.Status.Members {
				expectNoComplaint(ctx, c, m.Name)
			}
		})
	}

	It("of one member serves, without a PodDisruptionBudget", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), ofSize(1)))
		bury(ctx, c).expectFound(ctx, c)
		var budgets policyv1.PodDisruptionBudgetList
		Expect(kube.List(ctx, &budgets, client.InNamespace(c.Namespace))).To(Succeed())
		Expect(budgets.Items).To(BeEmpty())
	})

	It("of five members serves", func(ctx SpecContext) {
		if !world.Full() {
			Skip("five members are part of the whole matrix")
		}
		for _, version := range versions() {
			c := create(ctx, makeCluster(newNamespace(ctx), ofSize(5), ofVersion(version)))
			bury(ctx, c).expectFound(ctx, c)
		}
	})

	It("is made as asked, and kubectl tells its state", func(ctx SpecContext) {
		c := makeCluster(newNamespace(ctx), volumeOf("400Mi"), withOption("max-txn-ops", "256"))
		Expect(kube.Create(ctx, c)).To(Succeed())
		out, err := lab.Kubectl(ctx, "-n", c.Namespace, "wait", "--for=condition=Available", "--timeout=180s", "etcd/"+c.Name)
		Expect(err).NotTo(HaveOccurred(), out)
		awaitHealthy(ctx, c)

		expectVolumes(ctx, c, "400Mi")
		expectServices(ctx, c)
		expectBudget(ctx, c, 2)
		expectMembers(ctx, c)
		Expect(podOf(ctx, c, "prod-0").Spec.Containers[0].Args).To(ContainElement("--max-txn-ops=256"))

		out, err = lab.Kubectl(ctx, "-n", c.Namespace, "get", "etcd", c.Name, "-o", "wide")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(out).To(MatchRegexp(`NAME +VERSION +TARGET +READY +AVAILABLE +STATE +STEP +MEMBER +REASON +LEADER +CLUSTER ID +AGE`))
		version := regexp.QuoteMeta(c.Spec.Version)
		Expect(out).To(MatchRegexp(fmt.Sprintf(`prod +%s +%s +3/3 +True +UpToDate +QuorumServing +prod-[012] +%s +`, version, version, c.Status.ClusterID)))
	})
})

// expectVolumes checks the members' volumes: they have this size and the labels.
// They have no owner, so they stay when the cluster is deleted.
func expectVolumes(ctx context.Context, c *v1beta1.EtcdCluster, size string) {
	GinkgoHelper()
	var volumes corev1.PersistentVolumeClaimList
	Expect(kube.List(ctx, &volumes, client.InNamespace(c.Namespace), client.MatchingLabels{cluster.LabelCluster: c.Name})).To(Succeed())
	Expect(volumes.Items).To(HaveLen(int(c.Spec.Replicas)))
	for _, v := range volumes.Items {
		Expect(v.OwnerReferences).To(BeEmpty())
		Expect(v.Spec.Resources.Requests.Storage().String()).To(Equal(size))
		Expect(v.Annotations).To(HaveKeyWithValue(cluster.AnnotationClusterID, c.Status.ClusterID))
	}
}

func expectServices(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	var clients, peers corev1.Service
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.Name + "-client"}, &clients)).To(Succeed())
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.Name}, &peers)).To(Succeed())
	Expect(clients.Spec.ClusterIP).NotTo(Equal(corev1.ClusterIPNone))
	Expect(clients.Spec.Ports).To(ConsistOf(HaveField("Port", int32(2379))))
	Expect(peers.Spec.ClusterIP).To(Equal(corev1.ClusterIPNone))
	Expect(peers.Spec.PublishNotReadyAddresses).To(BeTrue())
	Expect(c.Status.ServiceName).To(Equal(clients.Name))
}

func expectBudget(ctx context.Context, c *v1beta1.EtcdCluster, quorum int) {
	GinkgoHelper()
	var budget policyv1.PodDisruptionBudget
	Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), &budget)).To(Succeed())
	Expect(budget.Spec.MinAvailable.IntValue()).To(Equal(quorum))
}

// expectMembers checks that each member has a StatefulSet of one that restarts only on deletion, and that the pods
// are apart and know nothing of Kubernetes.
func expectMembers(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	var sets appsv1.StatefulSetList
	Expect(kube.List(ctx, &sets, client.InNamespace(c.Namespace))).To(Succeed())
	Expect(sets.Items).To(HaveLen(int(c.Spec.Replicas)))
	for _, set := range sets.Items {
		Expect(*set.Spec.Replicas).To(Equal(int32(1)))
		Expect(set.Spec.UpdateStrategy.Type).To(Equal(appsv1.OnDeleteStatefulSetStrategyType))
		Expect(cluster.Owns(c, &set)).To(BeTrue())
	}
	nodes := map[string]bool{}
	for _, pod := range podsOf(ctx, c) {
		nodes[pod.Spec.NodeName] = true
		Expect(pod.Spec.AutomountServiceAccountToken).To(HaveValue(BeFalse()))
		for _, v := range pod.Spec.Volumes {
			Expect(v.Projected).To(BeNil(), "a token is mounted")
		}
	}
	Expect(nodes).To(HaveLen(int(c.Spec.Replicas)), "members share a node")
}

// complaint is what etcd logs about flags that it will not have for long, or not at all.
var complaint = regexp.MustCompile(`(?i)deprecat|unrecognized|unknown flag|unsupported flag|not supported`)

func expectNoComplaint(ctx context.Context, c *v1beta1.EtcdCluster, member string) {
	GinkgoHelper()
	log, err := clientset.CoreV1().Pods(c.Namespace).GetLogs(cluster.PodName(member), &corev1.PodLogOptions{}).DoRaw(ctx)
	Expect(err).NotTo(HaveOccurred())
	for line := range strings.Lines(string(log)) {
		if !strings.HasPrefix(line, `{"level":"info"`) {
			Expect(complaint.MatchString(line)).To(BeFalse(), line)
		}
	}
}
