package e2e

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

var _ = Describe("Bad input", func() {
	It("is refused at admission with a sentence that says what to do", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		for says, change := range map[string]option{
			"replicas must be 1, 3, 5 or 7":                ofSize(4),
			"version must have the form x.y.z":             ofVersion("v3.6.16"),
			"the name of the cluster may have at most 46":  named("a23456789-123456789-123456789-123456789-1234567"),
			"storage must be a quantity of at least 256Mi": volumeOf("10Mi"),
			"quotaBackendBytes must be a quantity from 16Mi": func(c *v1beta1.EtcdCluster) {
				c.Spec.Config = &v1beta1.Config{QuotaBackendBytes: new(resource.MustParse("1Mi"))}
			},
			"runAsUser must not be 0": func(c *v1beta1.EtcdCluster) {
				c.Spec.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(0))}}}
			},
			"write only one of mode, certManager and secretRef": func(c *v1beta1.EtcdCluster) {
				secured(c)
				c.Spec.TLS.Peer.Mode = v1beta1.TLSManaged
			},
		} {
			err := kube.Create(ctx, makeCluster(ns, change))
			Expect(apierrors.IsInvalid(err)).To(BeTrue(), says)
			Expect(err.Error()).To(ContainSubstring(says))
		}
	})

	It("of a version that etcd-warden does not support is refused until it is corrected", func(ctx SpecContext) {
		c := makeCluster(newNamespace(ctx), ofVersion("3.6.11"))
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitRefusal(ctx, c, v1beta1.ReasonUnsupportedVersion, "etcd 3.6.11 is not supported", "Write 3.6.12 or a later patch")
		expectNothingMade(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Version = versionOf("3.6") })
		awaitHealthy(ctx, c)
	})

	It("of an option that etcd-warden does not pass on is refused until it is removed", func(ctx SpecContext) {
		c := makeCluster(newNamespace(ctx), withOption("experimental-warning-apply-duration", "1s"), withOption("max-txn-ops", "many"))
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitRefusal(ctx, c, v1beta1.ReasonUnsupportedOption, "etcd 3.6 calls it warning-apply-duration", "max-txn-ops: its value must be a whole number", "Remove it")
		expectNothingMade(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Config = nil })
		awaitHealthy(ctx, c)
	})

	It("of a StorageClass that does not exist waits for the class", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		c := makeCluster(ns, ofClass(ns), ofSize(1))
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitRefusal(ctx, c, v1beta1.ReasonStorageClassNotFound, "StorageClass "+ns+" does not exist", "Create it")
		expectNothingMade(ctx, c)

		var classes storagev1.StorageClassList
		Expect(kube.List(ctx, &classes)).To(Succeed())
		Expect(classes.Items).NotTo(BeEmpty())
		class := classes.Items[0].DeepCopy()
		class.ObjectMeta = metav1.ObjectMeta{Name: ns}
		Expect(kube.Create(ctx, class)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(kube.Delete(ctx, class)).To(Succeed()) })
		awaitHealthy(ctx, c)
	})

	It("of an image that cannot be pulled says which, names what kubectl tells more, and starts once it is corrected", func(ctx SpecContext) {
		c := makeCluster(newNamespace(ctx), ofSize(1), func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = "localhost/no/such/image" })
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitConditions(ctx, c, available(metav1.ConditionFalse, v1beta1.ReasonNotStarted),
			degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("image localhost/no/such/image:v"+c.Spec.Version+" cannot be pulled", "kubectl describe pod prod-0-0"))
		expectEvent(ctx, c, v1beta1.ReasonMembersNotReady, "cannot be pulled")
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.Image.Repository = "" })
		awaitHealthy(ctx, c)
		bury(ctx, c).expectFound(ctx, c)
	})

	It("of names that other people's objects have leaves those as they are", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		foreign := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "prod-client", Labels: map[string]string{"app": "shop"}},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "shop"}, Ports: []corev1.ServicePort{{Port: 80}}},
		}
		Expect(kube.Create(ctx, foreign)).To(Succeed())
		c := makeCluster(ns)
		Expect(kube.Create(ctx, c)).To(Succeed())
		awaitRefusal(ctx, c, v1beta1.ReasonForeignObject, "Service prod-client exists and has no owner", "Rename or delete it")
		var after corev1.Service
		Expect(kube.Get(ctx, client.ObjectKeyFromObject(foreign), &after)).To(Succeed())
		Expect(after.ResourceVersion).To(Equal(foreign.ResourceVersion))
		Expect(volumeObjects(ctx, c)).To(BeEmpty())
		Expect(podsOf(ctx, c)).To(BeEmpty())

		Expect(kube.Delete(ctx, foreign)).To(Succeed())
		awaitHealthy(ctx, c)
		bury(ctx, c).expectFound(ctx, c)
	})
})
