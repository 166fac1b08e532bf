// Package e2e tests the operator as its users have it: as a pod in a real Kubernetes, with real members on real volumes.
package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-steward/etcd-steward/api/v1beta1"
	"github.com/etcd-steward/etcd-steward/test/world"
)

const (
	// patience is how long anything may take: many times what it takes on two busy cores.
	patience = 3 * time.Minute
	// interval is how often a condition is looked at.
	interval = 250 * time.Millisecond
)

// The world that hack/e2e-up.sh made, and how to reach it.
var (
	lab       *world.World
	settings  map[string]string
	config    *rest.Config
	kube      client.Client
	clientset kubernetes.Interface
)

func TestOnARealCluster(t *testing.T) {
	RegisterFailHandler(Fail)
	EnforceDefaultTimeoutsWhenUsingContexts()
	SetDefaultEventuallyTimeout(patience)
	SetDefaultEventuallyPollingInterval(interval)
	SetDefaultConsistentlyPollingInterval(interval)
	RunSpecs(t, "etcd-steward on a real cluster")
}

var _ = SynchronizedBeforeSuite(func(ctx SpecContext) []byte {
	up := exec.CommandContext(ctx, "../../hack/e2e-up.sh")
	up.Stderr = GinkgoWriter
	values, err := up.Output()
	Expect(err).NotTo(HaveOccurred())
	return values
}, func(_ SpecContext, values []byte) {
	log.SetLogger(GinkgoLogr)
	var err error
	lab, err = world.Reach(values, v1beta1.AddToScheme)
	Expect(err).NotTo(HaveOccurred())
	settings, config, kube, clientset = lab.Settings, lab.Config, lab.Kube, lab.Clientset
}, NodeTimeout(15*time.Minute))

// versions are the etcd versions whose images were made, oldest first.
func versions() []string { return strings.Fields(settings["ETCD_VERSIONS"]) }

// versionOf is the one whose image was made of a minor version.
func versionOf(minor string) string {
	GinkgoHelper()
	for _, v := range versions() {
		if strings.HasPrefix(v, minor+".") {
			return v
		}
	}
	Fail("no image of etcd " + minor)
	return ""
}

// onLocalCluster skips a spec that needs the machine below Kubernetes where that is somebody else's.
func onLocalCluster() {
	GinkgoHelper()
	if os.Getenv("USE_EXISTING_CLUSTER") == "true" && !strings.HasPrefix(settings["KUBECONFIG"], localState) {
		Skip("needs the nodes of the local cluster")
	}
}

// localState is where the local cluster keeps its files.
const localState = "/var/tmp/etcd-steward-cluster"
