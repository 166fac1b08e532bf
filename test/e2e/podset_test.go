package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// podSets is the folder of the example.
const podSets = "../../examples/podset"

// One controller of PodSets runs for all of these specs: a second one would double its work.
var _ = Describe("A PodSet, the example of docs/how-an-operator-works.md", Ordered, func() {
	var namespace string
	var controller *exec.Cmd

	run := func(ctx context.Context, args ...string) string {
		GinkgoHelper()
		out, err := lab.Kubectl(ctx, append([]string{"-n", namespace}, args...)...)
		Expect(err).NotTo(HaveOccurred(), out)
		return strings.TrimSpace(out)
	}
	// get returns a field of the PodSet.
	get := func(ctx context.Context, field string) func() string {
		return func() string { return run(ctx, "get", "podset", "web", "-o", "jsonpath={"+field+"}") }
	}
	pods := func(ctx context.Context) []string {
		return strings.Fields(run(ctx, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"))
	}
	awaitReady := func(ctx context.Context, replicas int) {
		GinkgoHelper()
		Eventually(get(ctx, ".status.readyReplicas"), 2*time.Minute).Should(Equal(fmt.Sprint(replicas)))
		run(ctx, "wait", "--for=condition=Ready", "--timeout=2m", "podset/web")
		Eventually(func() int { return len(pods(ctx)) }, time.Minute).Should(Equal(replicas))
	}

	BeforeAll(func(ctx SpecContext) {
		namespace = newNamespace(ctx)
		installPodSets(ctx)
		controller = startExample("podset")
	})

	It("makes its pods, and makes one again that was deleted", func(ctx SpecContext) {
		run(ctx, "apply", "-f", filepath.Join(podSets, "sample.yaml"))
		awaitReady(ctx, 3)
		lost := pods(ctx)[0]
		run(ctx, "delete", "pod", lost, "--wait=false")
		Eventually(func() []string { return strings.Fields(get(ctx, ".status.podNames[*]")()) }, time.Minute).ShouldNot(ContainElement(lost))
		awaitReady(ctx, 3)
		Expect(run(ctx, "describe", "podset", "web")).To(And(ContainSubstring("UpToDate"), ContainSubstring("Created pod web-")))
	})

	It("is scaled by kubectl, and by a HorizontalPodAutoscaler to its limits", func(ctx SpecContext) {
		run(ctx, "scale", "podset", "web", "--replicas=1")
		awaitReady(ctx, 1)
		run(ctx, "apply", "-f", filepath.Join(podSets, "autoscaler.yaml"))
		awaitReady(ctx, 2) // its minimum
		run(ctx, "patch", "hpa", "web", "-p", `{"spec":{"minReplicas":1,"maxReplicas":1}}`)
		awaitReady(ctx, 1) // its maximum
		run(ctx, "delete", "hpa", "web")
	})

	It("replaces its pods one by one when the template changes, and none of them while the new one fails", func(ctx SpecContext) {
		run(ctx, "scale", "podset", "web", "--replicas=3")
		awaitReady(ctx, 3)
		before := pods(ctx)
		run(ctx, "patch", "podset", "web", "--type=merge", "-p", `{"spec":{"template":{"metadata":{"labels":{"tier":"front"}}}}}`)
		Eventually(func() []string { return pods(ctx) }, 2*time.Minute).ShouldNot(ContainElements(before[0], before[1], before[2]))
		Eventually(func() []string { return pods(ctx) }, 3*time.Minute).Should(And(HaveLen(3), Not(ContainElement(BeElementOf(before)))))
		awaitReady(ctx, 3)

		image := func(image string) {
			GinkgoHelper()
			run(ctx, "patch", "podset", "web", "--type=json", "-p", `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"`+image+`"}]`)
		}
		image("nowhere.invalid/pause:1")
		Eventually(get(ctx, ".status.conditions[0].message"), time.Minute).Should(HavePrefix("2 of 3 pods are ready. Look at the pod web-"))
		Consistently(get(ctx, ".status.readyReplicas")).WithTimeout(5 * time.Second).Should(Equal("2"))
		image("registry.k8s.io/pause:3.10")
		awaitReady(ctx, 3)
	})

	It("is as its user wants it after a chaos monkey, which loses no acknowledged write of an EtcdCluster", func(ctx SpecContext) {
		letChaosLoose(ctx, namespace)
		awaitReady(ctx, 3)
	})

	It("keeps its pods while nothing controls them, and takes them along when it is deleted", func(ctx SpecContext) {
		before := pods(ctx)
		stopExample(controller)
		run(ctx, "scale", "podset", "web", "--replicas=4")
		Consistently(func() []string { return pods(ctx) }).WithTimeout(3 * time.Second).Should(ConsistOf(before))
		controller = startExample("podset")
		awaitReady(ctx, 4)
		Expect(pods(ctx)).To(ContainElements(before))
		run(ctx, "delete", "podset", "web")
		Eventually(func() []string { return pods(ctx) }, 2*time.Minute).Should(BeEmpty())
	})
})

// installPodSets installs the type.
func installPodSets(ctx context.Context) {
	GinkgoHelper()
	out, err := lab.Kubectl(ctx, "apply", "--server-side", "-f", filepath.Join(podSets, "config", "examples.etcd-warden.io_podsets.yaml"))
	Expect(err).NotTo(HaveOccurred(), out)
	// kubectl wait fails on a type that has no condition yet.
	Eventually(ctx, func() error {
		_, err := lab.Kubectl(ctx, "get", "podsets")
		return err
	}, time.Minute).Should(Succeed())
}

// startExample runs a program of the examples until the end of the specs around it.
func startExample(name string, args ...string) *exec.Cmd {
	GinkgoHelper()
	command := example(name, args...)
	command.Stdout, command.Stderr = GinkgoWriter, GinkgoWriter
	Expect(command.Start()).To(Succeed())
	DeferCleanup(stopExample, command)
	return command
}

func stopExample(command *exec.Cmd) {
	_ = command.Process.Kill()
	_ = command.Wait()
}
