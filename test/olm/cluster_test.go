package olm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// newNamespace makes a namespace that takes restricted pods alone. It goes when the specs that share it are done.
func newNamespace(ctx context.Context) string {
	GinkgoHelper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "olm-suite-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}}
	Expect(kube.Create(ctx, ns)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(kube.Delete(ctx, ns))).To(Succeed()) })
	return ns.Name
}

// oldCluster is a cluster as users of v1alpha1 write it.
func oldCluster(namespace, name string) *v1alpha1.EtcdCluster {
	return &v1alpha1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.EtcdClusterSpec{Size: 3, Version: lab.Settings["ETCD_VERSION"], Pod: &v1alpha1.PodPolicy{
			PersistentVolumeClaimSpec: &v1alpha1.VolumeClaimSpec{Resources: v1alpha1.VolumeResources{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("300Mi")}}},
		}},
	}
}

// newCluster is a cluster as users of v1beta1 write it.
func newCluster(namespace, name string, replicas int32) *v1beta1.EtcdCluster {
	return &v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1beta1.EtcdClusterSpec{Replicas: replicas, Version: lab.Settings["ETCD_VERSION"], TLS: inClear(), Storage: &v1beta1.Storage{
			VolumeClaimTemplate: &v1beta1.VolumeClaimTemplate{Spec: v1beta1.VolumeClaimSpec{Resources: v1beta1.VolumeResources{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("300Mi")}}}},
		}},
	}
}

func inClear() *v1beta1.TLS {
	return &v1beta1.TLS{Client: &v1beta1.ClientTLS{Mode: v1beta1.TLSDisabled}, Peer: &v1beta1.PeerTLS{Mode: v1beta1.TLSDisabled}}
}

// conditionsOf reads the cluster in its object's version.
func conditionsOf(ctx context.Context, object client.Object) ([]metav1.Condition, error) {
	err := kube.Get(ctx, client.ObjectKeyFromObject(object), object)
	switch c := object.(type) {
	case *v1alpha1.EtcdCluster:
		return c.Status.Conditions, err
	case *v1beta1.EtcdCluster:
		return c.Status.Conditions, err
	}
	return nil, fmt.Errorf("%T has no conditions", object)
}

// awaitHealthy waits until every member serves and nothing is left to do, as the object's version tells it.
func awaitHealthy(ctx context.Context, object client.Object) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		conditions, err := conditionsOf(ctx, object)
		g.Expect(err).NotTo(HaveOccurred())
		for kind, wanted := range map[string]metav1.ConditionStatus{
			v1beta1.ConditionAvailable: metav1.ConditionTrue, v1beta1.ConditionProgressing: metav1.ConditionFalse, v1beta1.ConditionDegraded: metav1.ConditionFalse,
		} {
			got := meta.FindStatusCondition(conditions, kind)
			g.Expect(got).NotTo(BeNil(), kind)
			g.Expect(got.Status).To(Equal(wanted), "%s: %s: %s", kind, got.Reason, got.Message)
			g.Expect(got.ObservedGeneration).To(Equal(object.GetGeneration()), kind)
		}
		expectAllStarted(ctx, g, object)
	}).Should(Succeed())
}

// expectAllStarted wants every pod ready and every template in the form Existing. A new cluster is healthy before its
// last member is: a quorum serves without it.
func expectAllStarted(ctx context.Context, g Gomega, object client.Object) {
	ours := []client.ListOption{client.InNamespace(object.GetNamespace()), client.MatchingLabels{cluster.LabelCluster: object.GetName()}}
	var sets appsv1.StatefulSetList
	g.Expect(kube.List(ctx, &sets, ours...)).To(Succeed())
	for _, set := range sets.Items {
		g.Expect(set.Status.ReadyReplicas).To(BeNumerically("==", 1), set.Name)
		g.Expect(render.StartsEmpty(set.Spec.Template.Annotations)).To(BeFalse(), set.Name)
	}
}

// footprint is what must stay as it is where nothing is touched: pods with their restarts, StatefulSets, volumes.
func footprint(ctx context.Context, object client.Object) map[string]string {
	GinkgoHelper()
	seen := map[string]string{}
	ours := []client.ListOption{client.InNamespace(object.GetNamespace()), client.MatchingLabels{cluster.LabelCluster: object.GetName()}}
	var pods corev1.PodList
	Expect(kube.List(ctx, &pods, ours...)).To(Succeed())
	for _, pod := range pods.Items {
		for _, status := range pod.Status.ContainerStatuses {
			seen["pod "+pod.Name] = fmt.Sprint(pod.UID, " ", status.ContainerID, " restarts ", status.RestartCount)
		}
	}
	var sets appsv1.StatefulSetList
	Expect(kube.List(ctx, &sets, ours...)).To(Succeed())
	for _, set := range sets.Items {
		seen["set "+set.Name] = fmt.Sprint(set.UID, " generation ", set.Generation)
	}
	var volumes corev1.PersistentVolumeClaimList
	Expect(kube.List(ctx, &volumes, ours...)).To(Succeed())
	for _, volume := range volumes.Items {
		seen["volume "+volume.Name] = fmt.Sprint(volume.UID, " ", volume.Spec.VolumeName)
	}
	Expect(seen).NotTo(BeEmpty())
	return seen
}

// etcdctl runs etcdctl in a member's pod, against that member alone.
func etcdctl(ctx context.Context, object client.Object, member string, args ...string) (string, error) {
	return lab.Execute(ctx, object.GetNamespace(), cluster.PodName(member), append([]string{"etcdctl", "--command-timeout=5s"}, args...)...)
}

// expectAnswer runs etcdctl in another pod, against the client Service.
// It uses the client certificate that the operator made.
func expectAnswer(ctx context.Context, c *v1beta1.EtcdCluster, args ...string) {
	GinkgoHelper()
	var member corev1.Pod
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: cluster.PodName(members(c, 1)[0])}, &member)).To(Succeed())
	etcd := member.Spec.Containers[0]
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, GenerateName: "client-"},
		Spec: corev1.PodSpec{
			RestartPolicy:   corev1.RestartPolicyNever,
			SecurityContext: member.Spec.SecurityContext,
			Volumes:         []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: c.Status.ClientSecretName}}}},
			Containers: []corev1.Container{{
				Name: "etcdctl", Image: etcd.Image, SecurityContext: etcd.SecurityContext,
				Command: []string{"etcdctl", "--command-timeout=5s", "--cert=/tls/tls.crt", "--key=/tls/tls.key", "--cacert=/tls/ca.crt",
					fmt.Sprintf("--endpoints=https://%s.%s.svc:%d", c.Status.ServiceName, c.Namespace, c.Status.ClientPort)},
				Args:         args,
				VolumeMounts: []corev1.VolumeMount{{Name: "tls", MountPath: "/tls", ReadOnly: true}},
			}},
		},
	}
	Expect(kube.Create(ctx, pod)).To(Succeed())
	Eventually(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		g.Expect(pod.Status.Phase).To(BeElementOf(corev1.PodSucceeded, corev1.PodFailed))
	}).Should(Succeed())
	Expect(pod.Status.Phase).To(Equal(corev1.PodSucceeded))
}

// treasure is what etcd itself knows of a cluster, noted before something is done to it.
type treasure struct {
	clusterID uint64
	value     string
}

func members(object client.Object, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d", object.GetName(), i))
	}
	return names
}

// bury writes a key and notes the cluster's ID.
func bury(ctx context.Context, object client.Object) treasure {
	GinkgoHelper()
	t := treasure{value: "buried in " + string(object.GetUID())}
	first := members(object, 1)[0]
	Eventually(ctx, func() error {
		_, err := etcdctl(ctx, object, first, "put", "treasure", t.value)
		return err
	}).Should(Succeed())
	id, err := clusterID(ctx, object, first)
	Expect(err).NotTo(HaveOccurred())
	t.clusterID = id
	return t
}

// expectFound checks that each of n members has the key and the ID.
func (t treasure) expectFound(ctx context.Context, object client.Object, n int) {
	GinkgoHelper()
	for _, member := range members(object, n) {
		Eventually(ctx, func(g Gomega) {
			out, err := etcdctl(ctx, object, member, "get", "treasure", "--print-value-only")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(strings.TrimSpace(out)).To(Equal(t.value))
			id, err := clusterID(ctx, object, member)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(id).To(Equal(t.clusterID))
		}).Should(Succeed())
	}
}

func clusterID(ctx context.Context, object client.Object, member string) (uint64, error) {
	out, err := etcdctl(ctx, object, member, "member", "list", "-w", "json")
	if err != nil {
		return 0, err
	}
	var list struct {
		Header struct {
			ClusterID uint64 `json:"cluster_id"`
		} `json:"header"`
	}
	err = json.Unmarshal([]byte(out), &list)
	return list.Header.ClusterID, err
}
