package world

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// Patience is how long anything may take: many times what it takes on two busy cores.
	Patience = 3 * time.Minute
	// Interval is how often a condition is looked at.
	Interval = 250 * time.Millisecond
	// LocalState is where the local cluster keeps its files.
	LocalState = "/var/tmp/etcd-warden-cluster"
)

// RunSpecs runs a package's specs.
func RunSpecs(t *testing.T, description string) {
	log.SetLogger(ginkgo.GinkgoLogr)
	gomega.RegisterFailHandler(ginkgo.Fail)
	gomega.EnforceDefaultTimeoutsWhenUsingContexts()
	gomega.SetDefaultEventuallyTimeout(Patience)
	gomega.SetDefaultEventuallyPollingInterval(Interval)
	gomega.SetDefaultConsistentlyPollingInterval(Interval)
	ginkgo.RunSpecs(t, description)
}

// Up runs the script below hack that makes a suite's world, and returns the NAME=VALUE lines that it prints.
func Up(ctx context.Context, script string, args ...string) []byte {
	ginkgo.GinkgoHelper()
	up := exec.CommandContext(ctx, "../../hack/"+script, args...)
	up.Stderr = ginkgo.GinkgoWriter
	values, err := up.Output()
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return values
}

// IsLocal reports whether the cluster of a kubeconfig runs on this machine.
// Only then can a test act below Kubernetes, on nodes and disks.
func IsLocal(kubeconfig string) bool {
	return os.Getenv("USE_EXISTING_CLUSTER") != "true" || strings.HasPrefix(kubeconfig, LocalState+"/")
}
