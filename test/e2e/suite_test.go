// Package e2e tests the operator as its users have it: as a pod in a real Kubernetes, with real members on real volumes.
package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-steward/etcd-steward/api/v1beta1"
)

const (
	// patience is how long anything may take: many times what it takes on two busy cores.
	patience = 3 * time.Minute
	// interval is how often a condition is looked at.
	interval = 250 * time.Millisecond
)

// The world that hack/e2e-up.sh made, and how to reach it.
var (
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
	settings = map[string]string{}
	for line := range bytes.Lines(values) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		settings[name] = value
	}
	connect()
}, NodeTimeout(15*time.Minute))

func connect() {
	log.SetLogger(GinkgoLogr)
	GinkgoHelper()
	var err error
	config, err = clientcmd.BuildConfigFromFlags("", settings["KUBECONFIG"])
	Expect(err).NotTo(HaveOccurred())
	config.QPS, config.Burst = -1, -1
	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1beta1.AddToScheme(scheme)).To(Succeed())
	kube, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	clientset, err = kubernetes.NewForConfig(config)
	Expect(err).NotTo(HaveOccurred())
}

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

// full tells whether the whole matrix is asked for, as before a release.
func full() bool { return os.Getenv("ETCD_STEWARD_TEST_FULL") != "" }

// onLocalCluster skips a spec that needs the machine below Kubernetes where that is somebody else's.
func onLocalCluster() {
	GinkgoHelper()
	if os.Getenv("USE_EXISTING_CLUSTER") == "true" && !strings.HasPrefix(settings["KUBECONFIG"], localState) {
		Skip("needs the nodes of the local cluster")
	}
}

// localState is where the local cluster keeps its files.
const localState = "/var/tmp/etcd-steward-cluster"
