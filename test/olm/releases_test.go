package olm

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	operatorsv1alpha1 "github.com/operator-framework/api/pkg/operators/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// One story: each spec goes on where the one before it ended.
var _ = Describe("A user of OLM", Ordered, ContinueOnFailure, func() {
	var (
		ns      string
		old     *v1alpha1.EtcdCluster // made with the previous release, and then only looked at
		kept    treasure
		before  map[string]string
		byHand  time.Duration // in which a client of the API failed during the upgrade that was approved by hand
		noticed time.Duration // the same, during the automatic upgrade
		reasons []string      // why they failed
	)
	BeforeAll(func(ctx SpecContext) {
		DeferCleanup(withdraw)
		ns = newNamespace(ctx)
		publish(ctx, lab.Settings["CATALOG"])
		addCatalog(ctx)
	})
	AfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			show(ctx, ns)
		}
	})

	It("installs the previous release, approved by hand, and makes a v1alpha1 cluster", func(ctx SpecContext) {
		begin := time.Now()
		subscribe(ctx, csvName(previous), operatorsv1alpha1.ApprovalManual)
		approve(ctx, previous)
		awaitInstalled(ctx, previous)
		figure("olm-install-"+previous, time.Since(begin))

		old = oldCluster(ns, "old")
		// OLM may carry out a step of its plan twice, and overwrite the CRD's conversion again after the installation.
		Eventually(ctx, func() error { return kube.Create(ctx, old) }).Should(Succeed())
		awaitHealthy(ctx, old)
		kept, before = bury(ctx, old), footprint(ctx, old)

		written := oldCluster(ns, "written") // only the client that measures gaps writes it
		written.Spec.Paused = true
		Expect(kube.Create(ctx, written)).To(Succeed())
	})

	It("approves the upgrade: nothing of the cluster is touched", func(ctx SpecContext) {
		said := old.DeepCopy()
		client := watch(ns, "written", "v1alpha1", "v1beta1")
		begin := time.Now()
		approve(ctx, current)
		awaitInstalled(ctx, current)
		awaitSettled(ctx)
		awaitHealthy(ctx, old)
		figure("olm-upgrade-to-"+current, time.Since(begin))
		client.awaitServed(ctx)
		client.tell("to-" + current)
		byHand, reasons = client.failing(""), client.reasons()

		Expect(footprint(ctx, old)).To(Equal(before))
		kept.expectFound(ctx, old, 3)
		Expect(old.Spec).To(Equal(said.Spec))
		Expect(old.Status.ClusterID).To(Equal(said.Status.ClusterID))
		for i := range old.Status.Members { // 0.3.0 did not note the volumes
			Expect(old.Status.Members[i].VolumeUID).NotTo(BeEmpty())
			old.Status.Members[i].VolumeUID = ""
		}
		Expect(old.Status.Members).To(Equal(said.Status.Members))
	})

	It("reads the cluster in both versions, and an old client changes it as before", func(ctx SpecContext) {
		today := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: old.Name}}
		awaitHealthy(ctx, today)
		awaitHealthy(ctx, old)
		Expect(today.UID).To(Equal(old.UID))
		Expect(today.Spec.Replicas).To(Equal(old.Spec.Size))
		Expect(today.Spec.Version).To(Equal(old.Spec.Version))
		Expect(today.Spec.TLS).To(Equal(inClear()), "a cluster in clear must not be given certificates")
		Expect(today.Status.ClusterID).To(Equal(old.Status.ClusterID))
		Expect(today.Status.ReadyReplicas).To(Equal(int32(3)))

		Expect(kube.Patch(ctx, old, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"paused":true}}`)))).To(Succeed())
		awaitReason(ctx, today, v1beta1.ConditionProgressing, v1beta1.ReasonPaused)
		Expect(today.Spec.Paused).To(BeTrue())
		out, err := lab.Kubectl(ctx, "-n", ns, "patch", "etcdclusters.v1alpha1.operator.etcd-warden.io/"+old.Name, "--type=merge", "-p", `{"spec":{"paused":false,"pod":{"DNSTimeoutInSecond":7}}}`)
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(out).To(ContainSubstring("deprecated"), "an old client is not told that its version goes")
		awaitHealthy(ctx, today)
		Expect(kube.Patch(ctx, today, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"example.com/by":"today"}}}`)))).To(Succeed())
		awaitHealthy(ctx, old)
		Expect(old.Annotations).To(HaveKeyWithValue("example.com/by", "today"))
		Expect(old.Spec.Pod.DNSTimeoutInSecond).To(BeNumerically("==", 7), "what only v1alpha1 can say is lost")
		Expect(footprint(ctx, old)).To(Equal(before))
	})

	It("makes a v1beta1 cluster: it has TLS without a word about it", func(ctx SpecContext) {
		c := newCluster(ns, "today", 1)
		c.Spec.TLS = nil
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitHealthy(ctx, c)
		Expect(c.Status.ClientSecretName).NotTo(BeEmpty())
		expectAnswer(ctx, c, "put", "greeting", "hello")
		_, err := etcdctl(ctx, c, "today-0", "get", "greeting")
		Expect(err).To(HaveOccurred(), "a client in clear was answered")
	})

	It("kills the operator and its webhook: the next ones are ready though every read of an old object needs the webhook", func(ctx SpecContext) {
		all := func() []corev1.Pod { return append(operatorPods(ctx), webhookPods(ctx)...) }
		killed := all()
		Expect(killed).To(HaveLen(3))
		begin := time.Now()
		for i := range killed {
			Expect(kube.Delete(ctx, &killed[i], client.GracePeriodSeconds(0))).To(Succeed())
		}
		Eventually(ctx, func(g Gomega) {
			pods := all()
			g.Expect(pods).To(HaveLen(len(killed)))
			for _, pod := range pods {
				g.Expect(killed).NotTo(ContainElement(HaveField("UID", pod.UID)))
				g.Expect(pod.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
			}
		}).WithTimeout(time.Minute).Should(Succeed())
		figure("olm-ready-after-kill", time.Since(begin))
		awaitInstalled(ctx, current)
		awaitServed(ctx, "v1alpha1", ns)
		Expect(footprint(ctx, old)).To(Equal(before))
	})

	It("overwrites the CRD's conversion: the operator repairs it", func(ctx SpecContext) {
		right := crd(ctx).Spec.Conversion
		for name, spoil := range map[string]func(*apiextensionsv1.CustomResourceConversion){
			"service": func(c *apiextensionsv1.CustomResourceConversion) { c.Webhook.ClientConfig.Service.Name = "nobody" },
			"trust":   func(c *apiextensionsv1.CustomResourceConversion) { c.Webhook.ClientConfig.CABundle = nil },
			"webhook": func(c *apiextensionsv1.CustomResourceConversion) {
				c.Strategy, c.Webhook = apiextensionsv1.NoneConverter, nil
			},
		} {
			client := watch(ns, "written", "v1alpha1", "v1beta1")
			spoilt := crd(ctx)
			spoil(spoilt.Spec.Conversion)
			begin := time.Now()
			Expect(kube.Update(ctx, spoilt)).To(Succeed())
			Eventually(ctx, func() *apiextensionsv1.CustomResourceConversion { return crd(ctx).Spec.Conversion }).
				WithPolling(time.Millisecond).Should(Equal(right), name)
			figure("olm-repair-of-"+name, time.Since(begin))
			client.awaitServed(ctx)
			client.tell("repair-of-" + name)
		}
	})

	It("subscribes to automatic upgrades: OLM waits for the step in flight, and then goes on", func(ctx SpecContext) {
		held := newCluster(ns, "held", 1)
		held.Spec.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{NodeSelector: map[string]string{"example.com/held": "free"}}}
		Expect(kube.Create(ctx, held)).To(Succeed())
		Eventually(ctx, func() (*v1beta1.Operation, error) {
			err := kube.Get(ctx, client.ObjectKeyFromObject(held), held)
			return held.Status.Operation, err
		}).ShouldNot(BeNil(), "its founding is not claimed")
		// A cluster of a tenant that cannot be scheduled does not hold the upgrade.
		awaitUpgradeable(ctx, metav1.ConditionTrue, "No step is in flight.")
		stepping := newCluster(ns, "stepping", 1)
		stepping.Spec.Paused = true // the operator leaves the claim of a paused cluster alone
		Expect(kube.Create(ctx, stepping)).To(Succeed())
		setOperation(ctx, stepping, &v1beta1.Operation{Type: v1beta1.OperationRollMember, Member: "stepping-0", StartedAt: metav1.Now()})
		awaitUpgradeable(ctx, metav1.ConditionFalse, "RollMember of stepping-0")
		right, running := crd(ctx).Spec.Conversion, operatorDeployment(ctx)

		client := watch(ns, "written", "v1alpha1", "v1beta1")
		setApproval(ctx, operatorsv1alpha1.ApprovalAutomatic)
		publish(ctx, lab.Settings["NEXT_CATALOG"])
		Eventually(ctx, func(g Gomega) {
			waiting, err := csv(ctx, next)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(waiting.Status.Phase).To(Equal(operatorsv1alpha1.CSVPhasePending))
			g.Expect(waiting.Status.Reason).To(Equal(operatorsv1alpha1.CSVReasonOperatorConditionNotUpgradeable))
		}).Should(Succeed())
		Eventually(ctx, func() map[string]string { return crd(ctx).Annotations }).Should(ContainElement(operatorNamespace+"/"+csvName(next)),
			"the InstallPlan did not write the CRD")
		Consistently(ctx, func() int64 { return operatorDeployment(ctx).Generation }).WithTimeout(5*time.Second).
			Should(Equal(running.Generation), "OLM did not wait")
		awaitPlanDone(ctx)
		Eventually(ctx, func() *apiextensionsv1.CustomResourceConversion { return crd(ctx).Spec.Conversion }).Should(Equal(right))

		begin := time.Now()
		setOperation(ctx, stepping, nil)
		awaitInstalled(ctx, next)
		awaitSettled(ctx)
		figure("olm-upgrade-to-next", time.Since(begin))
		labelNode(ctx, "example.com/held", "free")
		awaitHealthy(ctx, held)
		Consistently(ctx, webhookDeployment).WithArguments(ctx).WithTimeout(15 * time.Second).
			Should(WithTransform(func(d *appsv1.Deployment) int32 { return d.Status.AvailableReplicas }, BeNumerically(">", 0)))
		awaitSettled(ctx)
		client.tell("to-next")
		noticed, reasons = client.failing(""), append(reasons, client.reasons()...)
		Expect(footprint(ctx, old)).To(Equal(before))
		kept.expectFound(ctx, old, 3)
	})

	// The figures olm-gap-…-any tell for how long. They depend on how often OLM executes its InstallPlan, and on how long
	// the API server of this machine takes to write the CRD.
	It("could be read and written in either upgrade, except while OLM's own conversion stood in the CRD", func() {
		// It names a Service in the namespace of the bundle's manifests, where OLM did not install the operator.
		for _, reason := range reasons {
			Expect(reason).To(And(ContainSubstring("etcd-warden-webhook-service.etcd-warden-system.svc"),
				ContainSubstring(`service "etcd-warden-webhook-service" not found`)))
		}
		const bound = 10 * time.Second
		Expect(byHand).To(BeNumerically("<=", bound), "approved by hand")
		Expect(noticed).To(BeNumerically("<=", bound), "automatic")
	})

	It("uninstalls the operator and installs it again: every etcd serves on, in the same pods", func(ctx SpecContext) {
		uninstall(ctx, next)
		Eventually(ctx, func() apiextensionsv1.ConversionStrategyType { return crd(ctx).Spec.Conversion.Strategy }).
			Should(Equal(apiextensionsv1.NoneConverter), "with a webhook that nobody serves OLM could not install it again")
		Expect(footprint(ctx, old)).To(Equal(before))
		kept.expectFound(ctx, old, 3)
		_, err := etcdctl(ctx, old, "old-1", "put", "meanwhile", "served")
		Expect(err).NotTo(HaveOccurred())

		subscribe(ctx, "", operatorsv1alpha1.ApprovalAutomatic)
		awaitInstalled(ctx, next)
		for _, name := range []string{"old", "today", "held"} {
			awaitHealthy(ctx, &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}})
		}
		awaitHealthy(ctx, old)
		Expect(footprint(ctx, old)).To(Equal(before))
		kept.expectFound(ctx, old, 3)
	})
})

// awaitServed waits until the API server reads every cluster in a version.
func awaitServed(ctx context.Context, version, namespace string) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		_, err := lab.Kubectl(ctx, "-n", namespace, "get", "etcdclusters."+version+".operator.etcd-warden.io")
		return err
	}).Should(Succeed())
}

func awaitReason(ctx context.Context, object client.Object, kind, reason string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		conditions, err := conditionsOf(ctx, object)
		g.Expect(err).NotTo(HaveOccurred())
		got := meta.FindStatusCondition(conditions, kind)
		g.Expect(got).NotTo(BeNil())
		g.Expect(got.Reason).To(Equal(reason))
		g.Expect(got.ObservedGeneration).To(Equal(object.GetGeneration()))
	}).Should(Succeed())
}

// awaitUpgradeable waits until the current release's operator tells OLM so.
func awaitUpgradeable(ctx context.Context, status metav1.ConditionStatus, message string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		condition, err := upgradeable(ctx, current)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(condition).NotTo(BeNil())
		g.Expect(condition.Status).To(Equal(status))
		g.Expect(condition.Message).To(ContainSubstring(message))
	}).Should(Succeed())
}

// setOperation writes a claim into the status of a cluster, or takes it away.
func setOperation(ctx context.Context, c *v1beta1.EtcdCluster, operation *v1beta1.Operation) {
	GinkgoHelper()
	Eventually(ctx, func() error { // the operator writes the status, too
		if err := kube.Get(ctx, client.ObjectKeyFromObject(c), c); err != nil {
			return err
		}
		c.Status.Operation = operation
		return kube.Status().Update(ctx, c)
	}).Should(Succeed())
}

// awaitPlanDone waits until OLM has done all that it planned.
// It may do a step of a plan twice, and so overwrite the CRD again.
func awaitPlanDone(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		plan, err := installPlan(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(plan.Spec.ClusterServiceVersionNames).To(ContainElement(csvName(next)))
		g.Expect(plan.Status.Phase).To(Equal(operatorsv1alpha1.InstallPlanPhaseComplete))
	}).Should(Succeed())
}

func setApproval(ctx context.Context, approval operatorsv1alpha1.Approval) {
	GinkgoHelper()
	subscription := &operatorsv1alpha1.Subscription{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: packageName}}
	patch := []byte(`{"spec":{"installPlanApproval":"` + string(approval) + `"}}`)
	Expect(kube.Patch(ctx, subscription, client.RawPatch("application/merge-patch+json", patch))).To(Succeed())
}

// labelNode gives one node a label until the specs are done.
func labelNode(ctx context.Context, key, value string) {
	GinkgoHelper()
	var nodes corev1.NodeList
	Expect(kube.List(ctx, &nodes)).To(Succeed())
	node := nodes.Items[0]
	patch := func(value string) client.Patch {
		return client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"`+key+`":`+value+`}}}`))
	}
	Expect(kube.Patch(ctx, &node, patch(`"`+value+`"`))).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(kube.Patch(ctx, &node, patch("null"))).To(Succeed()) })
}
