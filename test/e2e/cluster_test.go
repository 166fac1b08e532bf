package e2e

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gstruct"
	"github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

// option changes a cluster before it is created.
type option func(*v1beta1.EtcdCluster)

// makeCluster is a cluster of three small members of etcd 3.6.
func makeCluster(namespace string, options ...option) *v1beta1.EtcdCluster {
	c := &v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "prod"},
		Spec:       v1beta1.EtcdClusterSpec{Replicas: 3, Version: versionOf("3.6"), TLS: clustertest.InClear()},
	}
	volumeOf("300Mi")(c)
	for _, o := range options {
		o(c)
	}
	return c
}

func named(name string) option { return func(c *v1beta1.EtcdCluster) { c.Name = name } }
func ofSize(size int32) option { return func(c *v1beta1.EtcdCluster) { c.Spec.Replicas = size } }
func ofVersion(version string) option {
	return func(c *v1beta1.EtcdCluster) { c.Spec.Version = version }
}

// defaultVolume leaves the volume to the operator.
func defaultVolume(c *v1beta1.EtcdCluster) { c.Spec.Storage = nil }

func volumeOf(size string) option {
	return func(c *v1beta1.EtcdCluster) {
		c.Spec.Storage = clustertest.Gibibytes(1)
		claim(c).Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	}
}

func claim(c *v1beta1.EtcdCluster) *v1beta1.VolumeClaimSpec {
	return &c.Spec.Storage.VolumeClaimTemplate.Spec
}

func ofClass(class string) option {
	return func(c *v1beta1.EtcdCluster) { claim(c).StorageClassName = &class }
}

func withOption(name, value string) option {
	return func(c *v1beta1.EtcdCluster) {
		if c.Spec.Config == nil {
			c.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{}}
		}
		c.Spec.Config.ExtraArgs[name] = value
	}
}

func startingEmpty(c *v1beta1.EtcdCluster) {
	c.Annotations = map[string]string{v1beta1.BootstrapAnnotation: v1beta1.BootstrapEmpty}
}

// create makes the cluster and waits until it is as its spec says.
func create(ctx context.Context, c *v1beta1.EtcdCluster) *v1beta1.EtcdCluster {
	GinkgoHelper()
	Expect(kube.Create(ctx, c)).To(Succeed())
	awaitHealthy(ctx, c)
	return c
}

// awaitHealthy waits until every member serves and nothing is left to do. It also asks the pods: right after a fault
// the status still tells what the operator saw before it.
func awaitHealthy(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		expectConditions(ctx, g, c, available(metav1.ConditionTrue, v1beta1.ReasonQuorumServing),
			progressing(metav1.ConditionFalse, v1beta1.ReasonUpToDate), degraded(metav1.ConditionFalse, v1beta1.ReasonAsExpected))
		// A member that is starting does not make the cluster Degraded.
		g.Expect(c.Status.ReadyReplicas).To(Equal(c.Status.Replicas))
		var up []string
		for _, pod := range podsOf(ctx, c) {
			if isUp(&pod) {
				up = append(up, pod.Name)
			}
		}
		for _, m := range c.Status.Members {
			g.Expect(up).To(ContainElement(cluster.PodName(m.Name)))
		}
	}).Should(Succeed())
	Expect(c.Status.Operation).To(BeNil())
}

// wanted is a condition to wait for; an empty reason takes any.
type wanted struct {
	kind    string
	status  metav1.ConditionStatus
	reason  string
	message types.GomegaMatcher
}

func available(status metav1.ConditionStatus, reason string) wanted {
	return wanted{kind: v1beta1.ConditionAvailable, status: status, reason: reason}
}

func progressing(status metav1.ConditionStatus, reason string) wanted {
	return wanted{kind: v1beta1.ConditionProgressing, status: status, reason: reason}
}

func degraded(status metav1.ConditionStatus, reason string) wanted {
	return wanted{kind: v1beta1.ConditionDegraded, status: status, reason: reason}
}

func quorumLost(status metav1.ConditionStatus, reason string) wanted {
	return wanted{kind: v1beta1.ConditionQuorumLost, status: status, reason: reason}
}

// saying also asks for a part of the message.
func (w wanted) saying(parts ...string) wanted {
	var all []types.GomegaMatcher
	for _, part := range parts {
		all = append(all, ContainSubstring(part))
	}
	w.message = And(all...)
	return w
}

// awaitConditions waits until the status speaks of the present spec and has all these conditions.
func awaitConditions(ctx context.Context, c *v1beta1.EtcdCluster, conditions ...wanted) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) { expectConditions(ctx, g, c, conditions...) }).Should(Succeed())
}

func expectConditions(ctx context.Context, g Gomega, c *v1beta1.EtcdCluster, conditions ...wanted) {
	g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
	for _, w := range conditions {
		w.check(g, c)
	}
}

func (w wanted) check(g Gomega, c *v1beta1.EtcdCluster) {
	got := meta.FindStatusCondition(c.Status.Conditions, w.kind)
	g.Expect(got).NotTo(BeNil(), "no condition "+w.kind)
	told := fmt.Sprintf("%s=%s %s: %s", got.Type, got.Status, got.Reason, got.Message)
	g.Expect(got.ObservedGeneration).To(Equal(c.Generation), told)
	g.Expect(got.Status).To(Equal(w.status), told)
	if w.reason != "" {
		g.Expect(got.Reason).To(Equal(w.reason), told)
	}
	if w.message != nil {
		g.Expect(got.Message).To(w.message)
	}
}

// expectEvent waits for an event about the cluster.
func expectEvent(ctx context.Context, c *v1beta1.EtcdCluster, reason string, parts ...string) {
	GinkgoHelper()
	message := []types.GomegaMatcher{}
	for _, part := range parts {
		message = append(message, ContainSubstring(part))
	}
	Eventually(ctx, func(g Gomega) {
		var list eventsv1.EventList
		g.Expect(kube.List(ctx, &list, client.InNamespace(c.Namespace))).To(Succeed())
		g.Expect(list.Items).To(ContainElement(gstruct.MatchFields(gstruct.IgnoreExtras, gstruct.Fields{
			"Regarding": HaveField("Name", c.Name),
			"Reason":    Equal(reason),
			"Note":      And(message...),
		})))
	}).Should(Succeed())
}

// podOf reads a member's pod.
func podOf(ctx context.Context, c *v1beta1.EtcdCluster, member string) *corev1.Pod {
	GinkgoHelper()
	var pod corev1.Pod
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: cluster.PodName(member)}, &pod)).To(Succeed())
	return &pod
}

// podsOf lists the pods of all members.
func podsOf(ctx context.Context, c *v1beta1.EtcdCluster) []corev1.Pod {
	GinkgoHelper()
	var list corev1.PodList
	Expect(kube.List(ctx, &list, client.InNamespace(c.Namespace), client.MatchingLabels{cluster.LabelCluster: c.Name})).To(Succeed())
	return list.Items
}
