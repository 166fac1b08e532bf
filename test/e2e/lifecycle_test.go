package e2e

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var _ = Describe("A deleted cluster", func() {
	It("leaves its volumes, and gets data, ID and members back when it is created again", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		volumes := volumesOf(ctx, c)
		remove(ctx, c)
		Expect(volumesOf(ctx, c)).To(Equal(volumes))

		again := create(ctx, makeCluster(c.Namespace))
		expectEvent(ctx, again, v1beta1.EventVolumesTakenBack, "prod-0, prod-1, prod-2")
		kept.expectFound(ctx, again)
		Expect(volumesOf(ctx, again)).To(Equal(volumes))
	})

	It("starts with new members beside the kept volumes when it is created again as Empty", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		remove(ctx, c)
		before := volumeObjects(ctx, c)

		again := create(ctx, makeCluster(c.Namespace, startingEmpty))
		Expect(again.Status.ClusterID).NotTo(Equal(c.Status.ClusterID))
		Expect(again.Status.Members).To(HaveExactElements(
			HaveField("Name", "prod-3"), HaveField("Name", "prod-4"), HaveField("Name", "prod-5")))
		Expect(etcdctl(ctx, again, "prod-3", "get", "treasure")).To(BeEmpty())
		after := volumeObjects(ctx, again)
		for name, volume := range before {
			Expect(after[name].Annotations).To(Equal(volume.Annotations))
			Expect(after[name].UID).To(Equal(volume.UID))
		}
		Expect(identityOf(ctx, again, "prod-3")).NotTo(Equal(kept.identity))
	})

	It("does not start below its quorum, nor at a lower minor version, and touches nothing", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		remove(ctx, c)

		lower := makeCluster(c.Namespace, ofVersion(versionOf("3.5")))
		Expect(kube.Create(ctx, lower)).To(Succeed())
		awaitRefusal(ctx, lower, v1beta1.ReasonVersionMismatch, "data-prod-0", c.Spec.Version, "Set spec.version")
		expectNothingMade(ctx, lower)
		remove(ctx, lower)

		moved := volumeObjects(ctx, c)
		for _, name := range []string{"data-prod-1", "data-prod-2"} {
			relabel(ctx, moved[name], "another")
		}
		less := makeCluster(c.Namespace)
		Expect(kube.Create(ctx, less)).To(Succeed())
		awaitRefusal(ctx, less, v1beta1.ReasonVolumesBelowQuorum, "Only 1 of the 3 volumes", "quorum is 2", v1beta1.BootstrapEmpty)
		Consistently(ctx, func(g Gomega) { // Services are made where the operator sees the cluster before the labels
			expectNone(g, ctx, less, &appsv1.StatefulSetList{}, &corev1.PodList{})
		}).WithTimeout(3 * time.Second).Should(Succeed())
		remove(ctx, less)

		for _, name := range []string{"data-prod-1", "data-prod-2"} {
			relabel(ctx, volumeObject(ctx, c, name), "prod")
		}
		kept.expectFound(ctx, create(ctx, makeCluster(c.Namespace)))
	})
})

var _ = Describe("A running cluster", func() {
	It("is not touched by a change that this release does not carry out, nor while it is paused", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		before := footprint(ctx, c)
		for _, change := range []struct {
			change func(*v1beta1.EtcdClusterSpec)
			says   []string
		}{
			{func(s *v1beta1.EtcdClusterSpec) { s.TLS = nil }, []string{"spec.tls", "Set the spec back"}},
			{func(s *v1beta1.EtcdClusterSpec) {
				s.Storage.VolumeClaimTemplate.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("600Mi")
			}, []string{"600Mi", "Set the spec back"}},
		} {
			original := *c.Spec.DeepCopy()
			edit(ctx, c, change.change)
			awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonNotYetSupported).saying(change.says...),
				available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing))
			expectEvent(ctx, c, v1beta1.ReasonNotYetSupported, change.says...)
			Expect(footprint(ctx, c)).To(Equal(before))
			if claim(c).Resources.Requests.Storage().String() == "600Mi" {
				break // a volume never shrinks, not even on paper
			}
			edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { *s = original })
			awaitHealthy(ctx, c)
		}
		Expect(footprint(ctx, c)).To(Equal(before))
		kept.expectFound(ctx, c)
	})

	It("is only watched while it is paused", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Paused = true })
		awaitConditions(ctx, c, progressing(metav1.ConditionFalse, v1beta1.ReasonPaused).saying("spec.paused"))
		before := podOf(ctx, c, "prod-1")
		deletePods(ctx, c, "prod-1")
		Expect(kube.Delete(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: "prod-client"}})).To(Succeed())
		awaitSuccessor(ctx, before)
		awaitConditions(ctx, c, available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing))
		Consistently(ctx, func() bool { return exists(ctx, c.Namespace, "prod-client", &corev1.Service{}) }).
			WithTimeout(5*time.Second).Should(BeFalse(), "a paused operator made a Service")
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Paused = false })
		awaitHealthy(ctx, c)
		Eventually(ctx, func() bool { return exists(ctx, c.Namespace, "prod-client", &corev1.Service{}) }).Should(BeTrue())
		kept.expectFound(ctx, c)
	})
})

// remove deletes the cluster as users do, and waits until all but its volumes is gone.
func remove(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	Expect(kube.Delete(ctx, c)).To(Succeed())
	Eventually(ctx, func(g Gomega) {
		g.Expect(exists(ctx, c.Namespace, c.Name, &v1beta1.EtcdCluster{})).To(BeFalse())
		expectNothingMadeBut(g, ctx, c)
	}).Should(Succeed())
}

// expectNothingMade checks for a while that the cluster gets no object at all.
func expectNothingMade(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	Consistently(ctx, func(g Gomega) { expectNothingMadeBut(g, ctx, c) }).WithTimeout(3 * time.Second).Should(Succeed())
}

// expectNothingMadeBut checks that nothing of the cluster is there but volumes.
func expectNothingMadeBut(g Gomega, ctx context.Context, c *v1beta1.EtcdCluster) {
	expectNone(g, ctx, c, &appsv1.StatefulSetList{}, &corev1.PodList{}, &corev1.ServiceList{}, &policyv1.PodDisruptionBudgetList{})
}

// expectNoMembers checks that no member was created. Services, the budget and the other Secrets may be there: the
// operator creates them without reading them first.
func expectNoMembers(g Gomega, ctx context.Context, c *v1beta1.EtcdCluster) {
	expectNone(g, ctx, c, &appsv1.StatefulSetList{}, &corev1.PodList{}, &corev1.PersistentVolumeClaimList{})
}

func expectNone(g Gomega, ctx context.Context, c *v1beta1.EtcdCluster, lists ...client.ObjectList) {
	for _, list := range lists {
		g.Expect(kube.List(ctx, list, client.InNamespace(c.Namespace), client.MatchingLabels{cluster.LabelCluster: c.Name})).To(Succeed())
		g.Expect(list).To(HaveField("Items", BeEmpty()))
	}
}

// awaitRefusal waits until the operator says why it does nothing, in a condition and in an event.
func awaitRefusal(ctx context.Context, c *v1beta1.EtcdCluster, reason string, parts ...string) {
	GinkgoHelper()
	awaitConditions(ctx, c, progressing(metav1.ConditionFalse, reason).saying(parts...))
	expectEvent(ctx, c, reason, parts...)
}

// edit changes the spec, whatever else is written meanwhile.
func edit(ctx context.Context, c *v1beta1.EtcdCluster, change func(*v1beta1.EtcdClusterSpec)) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		if err := kube.Get(ctx, client.ObjectKeyFromObject(c), c); err != nil {
			return err
		}
		change(&c.Spec)
		return kube.Update(ctx, c)
	}).Should(Succeed())
}

func exists(ctx context.Context, namespace, name string, object client.Object) bool {
	GinkgoHelper()
	err := kube.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return err == nil
}

// footprint is what must stay as it is where nothing is touched: pods, and the generations of StatefulSets.
func footprint(ctx context.Context, c *v1beta1.EtcdCluster) map[string]any {
	GinkgoHelper()
	seen := map[string]any{"pods": uidsOf(podsOf(ctx, c)), "volumes": volumesOf(ctx, c)}
	var sets appsv1.StatefulSetList
	Expect(kube.List(ctx, &sets, client.InNamespace(c.Namespace))).To(Succeed())
	for _, set := range sets.Items {
		seen[set.Name] = set.Generation
	}
	return seen
}

// volumesOf tells the volumes' identities by name.
func volumesOf(ctx context.Context, c *v1beta1.EtcdCluster) map[string]string {
	GinkgoHelper()
	uids := map[string]string{}
	for name, v := range volumeObjects(ctx, c) {
		uids[name] = string(v.UID) + " " + v.Spec.VolumeName
	}
	return uids
}

func volumeObjects(ctx context.Context, c *v1beta1.EtcdCluster) map[string]*corev1.PersistentVolumeClaim {
	GinkgoHelper()
	var list corev1.PersistentVolumeClaimList
	Expect(kube.List(ctx, &list, client.InNamespace(c.Namespace), client.MatchingLabels{cluster.LabelCluster: c.Name})).To(Succeed())
	byName := map[string]*corev1.PersistentVolumeClaim{}
	for i := range list.Items {
		byName[list.Items[i].Name] = &list.Items[i]
	}
	return byName
}

func volumeObject(ctx context.Context, c *v1beta1.EtcdCluster, name string) *corev1.PersistentVolumeClaim {
	GinkgoHelper()
	var v corev1.PersistentVolumeClaim
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: name}, &v)).To(Succeed())
	return &v
}

// relabel hides a volume from its cluster, or brings it back.
func relabel(ctx context.Context, v *corev1.PersistentVolumeClaim, clusterName string) {
	GinkgoHelper()
	patch := client.MergeFrom(v.DeepCopy())
	v.Labels[cluster.LabelCluster] = clusterName
	Expect(kube.Patch(ctx, v, patch)).To(Succeed())
}
