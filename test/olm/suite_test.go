// Package olm tests the operator under Operator Lifecycle Manager: installed by a Subscription, upgraded from
// release to release, removed and installed again.
package olm

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	operatorsv1 "github.com/operator-framework/api/pkg/operators/v1"
	operatorsv1alpha1 "github.com/operator-framework/api/pkg/operators/v1alpha1"
	operatorsv2 "github.com/operator-framework/api/pkg/operators/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/test/world"
)

// The world that hack/olm.sh made, and how to reach it.
var (
	lab  *world.World
	kube client.Client
	// previous, current and next are three releases in a row, as x.y.z.
	// hack/olm.sh tells which they are: those that were not made yet are derived from the work tree.
	previous, current, next string
)

func TestUnderOLM(t *testing.T) {
	world.RunSpecs(t, "etcd-warden under Operator Lifecycle Manager")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	if !world.IsLocal(os.Getenv("KUBECONFIG")) {
		Skip("needs the local cluster, whose nodes pull from its registry")
	}
	var err error
	lab, err = world.Reach(world.Up(ctx, "olm.sh", "up"), v1alpha1.AddToScheme, v1beta1.AddToScheme, apiextensionsv1.AddToScheme,
		operatorsv1.AddToScheme, operatorsv1alpha1.AddToScheme, operatorsv2.AddToScheme)
	Expect(err).NotTo(HaveOccurred())
	kube = lab.Kube
	previous, current, next = lab.Settings["PREVIOUS"], lab.Settings["CURRENT"], lab.Settings["NEXT"]
}, NodeTimeout(15*time.Minute))

var _ = AfterSuite(func(ctx SpecContext) {
	if lab == nil {
		return
	}
	down := exec.CommandContext(ctx, "../../hack/olm.sh", "down")
	down.Stdout, down.Stderr = GinkgoWriter, GinkgoWriter
	Expect(down.Run()).To(Succeed())
}, NodeTimeout(5*time.Minute))

// figures are what was measured, told at the end.
var figures []string

func figure(name string, value time.Duration) {
	figures = append(figures, fmt.Sprintf("figure %s %d ms", name, value.Milliseconds()))
}

var _ = ReportAfterSuite("figures", func(Report) {
	for _, line := range figures {
		fmt.Println(line)
	}
})
