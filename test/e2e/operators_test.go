package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

const (
	operatorName = "etcd-warden-controller-manager"
	webhookName  = "etcd-warden-webhook"
)

// These stop the operator that all other specs need.
var _ = Describe("Whatever happens to the operator", Serial, func() {
	It("a cluster serves and heals without it, and creation goes on when it is killed", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		c := create(ctx, makeCluster(ns))
		kept := bury(ctx, c)
		scaleOperator(ctx, 0)
		DeferCleanup(func(ctx SpecContext) { scaleOperator(ctx, 1) })
		before := podOf(ctx, c, "prod-1")
		deletePods(ctx, c, "prod-1")
		write(ctx, c, "prod-0", "meanwhile", "served")
		awaitSuccessor(ctx, before)
		kept.expectFound(ctx, c)

		scaleOperator(ctx, 1)
		awaitHealthy(ctx, c)
		other := makeCluster(ns, named("other"))
		Expect(kube.Create(ctx, other)).To(Succeed())
		Eventually(ctx, func(g Gomega) { // the first write to the volumes is the middle of a creation
			g.Expect(volumeObjects(ctx, other)).NotTo(BeEmpty())
		}).WithPolling(10 * time.Millisecond).Should(Succeed())
		killOperator(ctx)
		awaitHealthy(ctx, other)
		expectOneFounding(ctx, other)
		kept.expectFound(ctx, c)
	})

	It("a resize and a roll go on when it is stopped or killed in the middle, and clients write throughout", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		awaitDisruptionsAllowed(ctx, c, 1)
		story, before := follow(ctx, c), uidsOfPods(ctx, c)
		edit(ctx, c, func(s *v1beta1.EtcdClusterSpec) { s.PodTemplate = labelled("team", "a") })
		awaitOperation(ctx, c, v1beta1.OperationRollMember)
		killOperator(ctx)
		awaitReplaced(ctx, c, before)
		story.end()
		expectEachReplaced(story, 1)
		story.expectQuorumOfPods(2)

		scale(ctx, c, 5)
		awaitOperation(ctx, c, v1beta1.OperationAddMember)
		DeferCleanup(func(ctx SpecContext) { scaleOperator(ctx, 1) })
		scaleOperator(ctx, 0)
		write(ctx, c, c.Status.Leader, "meanwhile", "served")
		scaleOperator(ctx, 1)
		awaitSize(ctx, c, 5)

		scale(ctx, c, 3)
		awaitOperation(ctx, c, v1beta1.OperationRemoveMember)
		killOperator(ctx)
		awaitSize(ctx, c, 3)
		writers.end(ctx, c)
	})

	It("one founding comes out when it dies before or after a write", func(ctx SpecContext) {
		scaleOperator(ctx, 0)
		DeferCleanup(func(ctx SpecContext) { scaleOperator(ctx, 1) })
		dying := map[*v1beta1.EtcdCluster]*corev1.Pod{}
		for _, failpoint := range []string{
			"after:update-status:EtcdCluster:prod",
			"after:create:PersistentVolumeClaim:data-prod-0",
			"before:create:StatefulSet:prod-0",
			"after:create:StatefulSet:prod-1",
			"before:patch:PersistentVolumeClaim:data-prod-0",
			"after:patch:Pod:prod-2-0",
		} {
			c := makeCluster(newNamespace(ctx))
			Expect(kube.Create(ctx, c)).To(Succeed())
			dying[c] = startOperator(ctx, c.Namespace, failpoint)
		}
		for c, operator := range dying {
			died := "starting again after failpoint " + operator.Spec.Containers[0].Env[0].Value + "\n"
			Eventually(ctx, func(g Gomega) { // the kubelet reports the restart after the cluster may be healthy
				g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(operator), operator)).To(Succeed())
				g.Expect(operator.Status.ContainerStatuses).To(HaveLen(1))
				g.Expect(operator.Status.ContainerStatuses[0].RestartCount).To(Equal(int32(1)), died)
				// Not the last state: the kubelet's collection of garbage may remove a container that has ended in the moment
				// between the creation and the start of the next one, and nothing tells its exit code any more.
				log, err := lab.Kubectl(ctx, "-n", operator.Namespace, "logs", operator.Name)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(log).To(ContainSubstring(died))
			}).Should(Succeed())
			awaitHealthy(ctx, c)
			expectOneFounding(ctx, c)
			bury(ctx, c).expectFound(ctx, c)
		}
	})

	It("one cluster comes out when two of it work at once, without leader election", func(ctx SpecContext) {
		scaleOperator(ctx, 0)
		DeferCleanup(func(ctx SpecContext) { scaleOperator(ctx, 1) })
		ns := newNamespace(ctx)
		for range 2 {
			startOperator(ctx, ns, "")
		}
		c := create(ctx, makeCluster(ns))
		expectOneFounding(ctx, c)
		kept := bury(ctx, c)
		remove(ctx, c)
		again := create(ctx, makeCluster(ns))
		expectOneFounding(ctx, again)
		kept.expectFound(ctx, again)
	})

	It("it needs Roles alone to work in chosen namespaces, and stays out of the others", func(ctx SpecContext) {
		DeferCleanup(func(ctx SpecContext) {
			makeTarget(ctx, "deploy", "IMG="+settings["OPERATOR_IMAGE"])
			awaitOperator(ctx)
		})
		watched, other := newNamespace(ctx), newNamespace(ctx)
		for _, name := range []string{"etcd-warden-manager-rolebinding", "etcd-warden-metrics-auth-rolebinding"} {
			Expect(kube.Delete(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
		}
		makeTarget(ctx, "deploy-namespaced", "WATCH_NAMESPACES="+watched, "IMG="+settings["OPERATOR_IMAGE"])
		awaitOperator(ctx)
		out, err := lab.Kubectl(ctx, "-n", operatorNamespace, "rollout", "status", "deployment/"+webhookName, "--timeout=180s")
		Expect(err).NotTo(HaveOccurred(), out)

		ignored := makeCluster(other)
		Expect(kube.Create(ctx, ignored)).To(Succeed())
		c := create(ctx, makeCluster(watched))
		bury(ctx, c).expectFound(ctx, c)
		Eventually(ctx, func(g Gomega) { // the administrator's webhook converts for it
			size, err := lab.Kubectl(ctx, "-n", watched, "get", "etcdclusters.v1alpha1.operator.etcd-warden.io", c.Name, "-o", "jsonpath={.spec.size}")
			g.Expect(err).NotTo(HaveOccurred(), size)
			g.Expect(size).To(HaveSuffix("3")) // a warning that the version is deprecated comes first
		}).Should(Succeed())
		Expect(kube.Get(ctx, client.ObjectKeyFromObject(ignored), ignored)).To(Succeed())
		Expect(ignored.Status).To(Equal(v1beta1.EtcdClusterStatus{}))
		Expect(volumeObjects(ctx, ignored)).To(BeEmpty())

		// Whether a class exists cannot be asked here: the scheduler tells.
		classless := makeCluster(watched, named("classless"), ofClass(watched), ofSize(1))
		Expect(kube.Create(ctx, classless)).To(Succeed())
		awaitConditions(ctx, classless, degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying("classless-0", v1beta1.ReasonUnschedulable))
	})
})

// scaleOperator starts or stops the deployed operator.
func scaleOperator(ctx context.Context, replicas int) {
	GinkgoHelper()
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: operatorName}}
	scale := []byte(`{"spec":{"replicas":` + map[int]string{0: "0", 1: "1"}[replicas] + `}}`)
	Expect(kube.Patch(ctx, deployment, client.RawPatch("application/merge-patch+json", scale))).To(Succeed())
	if replicas > 0 {
		awaitOperator(ctx)
		return
	}
	Eventually(ctx, func(g Gomega) {
		var pods corev1.PodList
		g.Expect(kube.List(ctx, &pods, client.InNamespace(operatorNamespace), client.MatchingLabels{"control-plane": "controller-manager"})).To(Succeed())
		g.Expect(pods.Items).To(BeEmpty())
	}).Should(Succeed())
}

// killOperator deletes its pod without grace. Its Deployment starts another one.
func killOperator(ctx context.Context) {
	GinkgoHelper()
	Expect(kube.Delete(ctx, operatorPod(ctx), client.GracePeriodSeconds(0))).To(Succeed())
}

func awaitOperator(ctx context.Context) {
	GinkgoHelper()
	out, err := lab.Kubectl(ctx, "-n", operatorNamespace, "rollout", "status", "deployment/"+operatorName, "--timeout=180s")
	Expect(err).NotTo(HaveOccurred(), out)
}

// makeTarget runs make against the suite's cluster.
func makeTarget(ctx context.Context, args ...string) {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "make", append([]string{"-s", "-C", "../.."}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+settings["KUBECONFIG"])
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}

// startOperator runs another operator for one namespace, without leader election.
// It dies once at the failpoint, if one is given.
func startOperator(ctx context.Context, namespace, failpoint string, args ...string) *corev1.Pod {
	GinkgoHelper()
	var deployed appsv1.Deployment
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: operatorName}, &deployed)).To(Succeed())
	spec := *deployed.Spec.Template.Spec.DeepCopy()
	manager := &spec.Containers[0]
	manager.Image = settings["CRASHING_IMAGE"]
	manager.Args = append([]string{"manager", "--metrics-bind-address=0", "--watch-namespaces=" + namespace}, args...)
	manager.Env = []corev1.EnvVar{{Name: "ETCD_WARDEN_FAILPOINT", Value: failpoint}, {Name: "ETCD_WARDEN_FAILPOINT_MARKER", Value: "/marker/used"}}
	manager.VolumeMounts = []corev1.VolumeMount{{Name: "marker", MountPath: "/marker"}}
	spec.Volumes = []corev1.Volume{{Name: "marker", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, GenerateName: namespace + "-", Labels: map[string]string{"control-plane": "own"}},
		Spec:       spec,
	}
	Expect(kube.Create(ctx, pod)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			log, err := lab.Kubectl(ctx, "-n", operatorNamespace, "logs", "--tail=60", pod.Name)
			AddReportEntry("operator for "+namespace, ReportEntryVisibilityFailureOrVerbose, log+errorText(err))
		}
		Expect(kube.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
	})
	return pod
}

// expectOneFounding checks that all members were founded by one list under one token, and that nothing is left over.
func expectOneFounding(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	members := []string{c.Name + "-0", c.Name + "-1", c.Name + "-2"}
	volumes := volumeObjects(ctx, c)
	Expect(volumes).To(HaveLen(len(members)))
	for _, v := range volumes {
		Expect(v.Annotations).To(HaveKeyWithValue(cluster.AnnotationFoundingMembers, strings.Join(members, ",")))
		Expect(v.Annotations).To(HaveKeyWithValue(cluster.AnnotationClusterToken, volumes["data-"+members[0]].Annotations[cluster.AnnotationClusterToken]))
		Expect(v.Annotations).To(HaveKeyWithValue(cluster.AnnotationClusterID, c.Status.ClusterID))
	}
	var sets appsv1.StatefulSetList
	Expect(kube.List(ctx, &sets, client.InNamespace(c.Namespace), client.MatchingLabels{cluster.LabelCluster: c.Name})).To(Succeed())
	Expect(sets.Items).To(HaveLen(len(members)))
	var services corev1.ServiceList
	Expect(kube.List(ctx, &services, client.InNamespace(c.Namespace), client.MatchingLabels{cluster.LabelCluster: c.Name})).To(Succeed())
	Expect(services.Items).To(HaveLen(2))
	id, err := identityOf(ctx, c, members[0])
	Expect(err).NotTo(HaveOccurred())
	Expect(id.Members).To(HaveLen(len(members)))
}
