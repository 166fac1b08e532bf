package e2e

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var _ = Describe("A founder whose volume was emptied behind its back never joins under its old identity", func() {
	for _, minor := range []string{"3.5", "3.6", "3.7"} {
		It("when its pod is made anew, with etcd "+minor, func(ctx SpecContext) {
			c := create(ctx, makeCluster(newNamespace(ctx), ofVersion(versionOf(minor))))
			kept := bury(ctx, c)
			emptyVolume(ctx, c, "prod-0")
			deletePods(ctx, c, "prod-0")
			awaitCrashLoop(ctx, c, "prod-0")
			kept.expectFound(ctx, c, "prod-1", "prod-2")
			write(ctx, c, "prod-1", "meanwhile", "served")
			expectToldBy(ctx, c, "kubectl describe", "prod-0", "etcd ended with exit code 1: ")
		})
	}

	It("when every container is killed in place and its peers are down", func(ctx SpecContext) {
		onLocalCluster()
		c := create(ctx, makeCluster(newNamespace(ctx)))
		kept := bury(ctx, c)
		before := uidsOfPods(ctx, c)
		emptyVolume(ctx, c, "prod-0")
		killContainers(ctx, c, "prod-0", "prod-1", "prod-2")
		awaitCrashLoop(ctx, c, "prod-0")
		kept.expectFound(ctx, c, "prod-1", "prod-2")
		Expect(uidsOfPods(ctx, c)).To(Equal(before), "a pod was made anew, so the restart in place was not what was tested")
	})
})

// awaitCrashLoop waits until the operator reports that a member crash-loops while the others serve,
// and checks that it stays so.
func awaitCrashLoop(ctx context.Context, c *v1beta1.EtcdCluster, member string) {
	GinkgoHelper()
	isSo := func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		degraded(metav1.ConditionTrue, v1beta1.ReasonMembersNotReady).saying(member, v1beta1.ReasonCrashLooping, "2 of 3").check(g, c)
		available(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk).check(g, c)
		quorumLost(metav1.ConditionFalse, v1beta1.ReasonQuorumServing).check(g, c)
		for _, m := range c.Status.Members {
			g.Expect(m.Ready).To(Equal(m.Name != member), m.Name)
		}
	}
	Eventually(ctx, isSo).Should(Succeed())
	restarts := podOf(ctx, c, member).Status.ContainerStatuses[0].RestartCount
	Eventually(ctx, func(g Gomega) {
		g.Expect(podOf(ctx, c, member).Status.ContainerStatuses[0].RestartCount).To(BeNumerically(">", restarts), "it was not tried again")
	}).Should(Succeed())
	Consistently(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		available(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk).check(g, c)
	}).WithTimeout(3 * time.Second).Should(Succeed())
}

// emptyVolume removes all data of a member while it runs, with a pod of its own on the same volume.
func emptyVolume(ctx context.Context, c *v1beta1.EtcdCluster, member string) {
	GinkgoHelper()
	runOnVolume(ctx, c, member, "rm -rf /volume/data && test -z \"$(ls /volume/data 2>/dev/null)\"")
}

// runOnVolume runs a shell command with a member's volume at /volume.
func runOnVolume(ctx context.Context, c *v1beta1.EtcdCluster, member, script string) {
	GinkgoHelper()
	runOnVolumes(ctx, c, member, script, map[string]string{"volume": cluster.VolumeName(member)})
}

// runOnVolumes mounts several claims, each under its name in the map.
func runOnVolumes(ctx context.Context, c *v1beta1.EtcdCluster, member, script string, claims map[string]string) {
	GinkgoHelper()
	var set appsv1.StatefulSet // the member may have no pod at the moment
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: member}, &set)).To(Succeed())
	etcd := set.Spec.Template.Spec
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, GenerateName: "volume-"},
		Spec: corev1.PodSpec{
			RestartPolicy:                corev1.RestartPolicyNever,
			SecurityContext:              etcd.SecurityContext,
			AutomountServiceAccountToken: new(false),
			Containers: []corev1.Container{{
				Name: "shell", Image: settings["SHELL_IMAGE"], Command: []string{"sh", "-c", script},
				SecurityContext: etcd.Containers[0].SecurityContext,
			}},
		},
	}
	shell := &pod.Spec.Containers[0]
	for name, claim := range claims {
		shell.VolumeMounts = append(shell.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}})
	}
	Expect(kube.Create(ctx, pod)).To(Succeed())
	awaitPodEnd(ctx, pod)
	Expect(pod.Status.Phase).To(Equal(corev1.PodSucceeded))
}

func awaitPodEnd(ctx context.Context, pod *corev1.Pod) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		g.Expect(pod.Status.Phase).To(BeElementOf(corev1.PodSucceeded, corev1.PodFailed))
	}).Should(Succeed())
}

// expectToldBy checks that a user who describes the cluster reads all these parts.
func expectToldBy(ctx context.Context, c *v1beta1.EtcdCluster, where string, parts ...string) {
	GinkgoHelper()
	out, err := lab.Kubectl(ctx, "-n", c.Namespace, "describe", "etcd", c.Name)
	Expect(err).NotTo(HaveOccurred(), out)
	for _, part := range parts {
		Expect(out).To(ContainSubstring(part), where)
	}
}

func uidsOfPods(ctx context.Context, c *v1beta1.EtcdCluster) map[string]string {
	GinkgoHelper()
	uids := map[string]string{}
	for _, pod := range podsOf(ctx, c) {
		uids[pod.Name] = string(pod.UID)
	}
	return uids
}
