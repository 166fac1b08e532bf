// Package e2e tests the operator as its users have it: as a pod in a real Kubernetes,
// with real members on real volumes.
package e2e

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/test/world"
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
	world.RunSpecs(t, "etcd-warden on a real cluster")
}

var _ = SynchronizedBeforeSuite(func(ctx SpecContext) []byte {
	return world.Up(ctx, "e2e-up.sh")
}, func(_ SpecContext, values []byte) {
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
	if !world.IsLocal(settings["KUBECONFIG"]) {
		Skip("needs the nodes of the local cluster")
	}
}
