package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// chaosLabel allows the chaos monkey of the examples to break what carries it.
const chaosLabel = "chaos.etcd-warden.io/allowed"

// letChaosLoose has the chaos monkey break the pods of the PodSet web and those of a new cluster that is written to,
// until it has done each of its faults. Pods without the label stay.
func letChaosLoose(ctx context.Context, namespace string) {
	GinkgoHelper()
	onLocalCluster()
	label := map[string]string{chaosLabel: "true"}
	spared := create(ctx, makeCluster(namespace, ofSize(1), func(c *v1beta1.EtcdCluster) { c.Name = "spared" }))
	sparedPods := uidsOf(podsOf(ctx, spared))
	c := create(ctx, makeCluster(namespace, func(c *v1beta1.EtcdCluster) {
		c.Labels = label
		c.Spec.UpdateStrategy = &v1beta1.UpdateStrategy{ProgressDeadlineSeconds: 600}
		c.Spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: label}}
	}))
	var pods corev1.PodList
	Expect(kube.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{"app": "web"})).To(Succeed())
	for i := range pods.Items[1:] { // one of them is spared
		changed := pods.Items[i+1].DeepCopy()
		metav1.SetMetaDataLabel(&changed.ObjectMeta, chaosLabel, "true")
		Expect(kube.Patch(ctx, changed, client.MergeFrom(&pods.Items[i+1]))).To(Succeed())
	}
	writers := appendOn(ctx, c)

	monkey, said := startMonkey("--namespace="+namespace, "--seed=3", "--every=3s", "--lasting=2s", "--probability=0.9", "--faults=kill,flip")
	Eventually(said, time.Minute).Should(gbytes.Say("to make the same choices again: --seed=3\n"))
	for _, deed := range []string{"kill Pod web-", "kill Pod prod-", "flip EtcdCluster prod"} {
		Eventually(said, 3*time.Minute).Should(gbytes.Say("(?s).*"+deed), deed)
	}
	Expect(monkey.Process.Signal(syscall.SIGTERM)).To(Succeed())
	Expect(monkey.Wait()).To(Succeed())
	awaitHealthy(ctx, c)
	expectNoCut(ctx, c)
	mend := drop(ctx, &podsOf(ctx, c)[0], "INPUT")
	awaitConditions(ctx, c, available(metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk), degraded(metav1.ConditionTrue, ""))
	mend()

	awaitHealthy(ctx, c)
	writers.end(ctx, c)
	Expect(uidsOf(podsOf(ctx, spared))).To(Equal(sparedPods), "a pod without the label was killed")
	Expect(kube.Get(ctx, client.ObjectKeyFromObject(&pods.Items[0]), &corev1.Pod{})).To(Succeed(), "a pod without the label was killed")
}

// expectNoCut lets the chaos monkey cut off pods of a cluster. The local Kubernetes enforces no NetworkPolicy: it says
// so, and leaves nothing behind.
func expectNoCut(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	monkey, said := startMonkey("--namespace="+c.Namespace, "--selector="+cluster.LabelCluster+"="+c.Name, "--every=1s", "--lasting=1s", "--probability=1", "--faults=cut")
	Eventually(said, time.Minute).Should(gbytes.Say("cut Pod prod-"))
	Eventually(said, time.Minute).Should(gbytes.Say("failed: the pod was still reached: no NetworkPolicy is enforced here"))
	Expect(monkey.Process.Signal(syscall.SIGTERM)).To(Succeed())
	Expect(monkey.Wait()).To(Succeed())
	for _, pod := range podsOf(ctx, c) {
		Expect(pod.Labels).NotTo(HaveKey("chaos.etcd-warden.io/cut-off"), pod.Name)
	}
	var policies networkingv1.NetworkPolicyList
	Expect(kube.List(ctx, &policies, client.InNamespace(c.Namespace))).To(Succeed())
	Expect(policies.Items).To(BeEmpty())
}

// startMonkey runs the chaos monkey until the end of the spec, and returns what it says.
func startMonkey(args ...string) (*exec.Cmd, *gbytes.Buffer) {
	GinkgoHelper()
	said := gbytes.NewBuffer()
	command := example("chaosmonkey", args...)
	command.Stdout, command.Stderr = said, said
	Expect(command.Start()).To(Succeed())
	DeferCleanup(stopExample, command)
	return command, said
}

// example builds a program of the examples, to be run on this machine.
func example(name string, args ...string) *exec.Cmd {
	GinkgoHelper()
	program := filepath.Join(GinkgoT().TempDir(), name)
	out, err := exec.Command("go", "build", "-o", program, "../../examples/"+name).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	command := exec.Command(program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+settings["KUBECONFIG"])
	return command
}

var _ = Describe("A chaos monkey", func() {
	It("refuses to run where nothing carries its label, and breaks nothing there", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		Eventually(func() error { // once the namespace has its ServiceAccount
			_, err := lab.Kubectl(ctx, "-n", namespace, "apply", "-f", "../../examples/client.yaml")
			return err
		}, time.Minute).Should(Succeed())
		command, said := startMonkey("--namespace=" + namespace)
		Expect(command.Wait()).NotTo(Succeed())
		Expect(said).To(gbytes.Say("nothing to kill in namespace " + namespace + " has the label " + chaosLabel + "=true"))
		pod := &corev1.Pod{}
		Expect(kube.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "etcdctl"}, pod)).To(Succeed())
		Expect(pod.DeletionTimestamp).To(BeNil())
	})
})
