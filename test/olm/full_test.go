package olm

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	operatorsv1alpha1 "github.com/operator-framework/api/pkg/operators/v1alpha1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/test/world"
)

const (
	catalogImage = "ghcr.io/etcd-warden/etcd-warden-catalog:latest"
	bundleImage  = "etcd-warden/etcd-warden-bundle"
)

// These take minutes each, most of it waiting for OLM to look again.
var _ = Describe("Before a release,", Ordered, ContinueOnFailure, func() {
	BeforeAll(func() {
		if !world.Full() {
			Skip("part of the whole matrix")
		}
	})
	BeforeEach(func(ctx SpecContext) {
		run(ctx, "../../hack/olm.sh", "down")
	})
	AfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			show(ctx, "default")
		}
	})

	It("a catalog image is polled, and what is published under its tag is installed", func(ctx SpecContext) {
		pushCatalog(ctx, lab.Settings["CATALOG"])
		createCatalog(ctx, operatorsv1alpha1.CatalogSourceSpec{
			SourceType: operatorsv1alpha1.SourceTypeGrpc, Image: catalogImage,
			GrpcPodConfig: &operatorsv1alpha1.GrpcPodConfig{
				SecurityContextConfig: operatorsv1alpha1.Restricted,
				ExtractContent:        &operatorsv1alpha1.ExtractContentConfig{CatalogDir: "/configs"},
			},
			UpdateStrategy: &operatorsv1alpha1.UpdateStrategy{RegistryPoll: &operatorsv1alpha1.RegistryPoll{RawInterval: "1m"}},
		})
		subscribe(ctx, "", operatorsv1alpha1.ApprovalAutomatic)
		awaitInstalled(ctx, current)

		begin := time.Now()
		pushCatalog(ctx, lab.Settings["NEXT_CATALOG"])
		Eventually(ctx, func() error { _, err := csv(ctx, next); return err }).WithTimeout(10 * time.Minute).Should(Succeed())
		awaitInstalled(ctx, next)
		figure("olm-upgrade-by-polling", time.Since(begin))
	}, NodeTimeout(20*time.Minute))

	It("operator-sdk installs a bundle, upgrades it, and cleans up", func(ctx SpecContext) {
		enforce(ctx, "baseline") // operator-sdk's own pods do not fit the restricted standard
		DeferCleanup(enforce, "restricted")
		bundles := lab.Settings["REGISTRY"] + "/" + bundleImage
		run(ctx, lab.Settings["OPERATOR_SDK"], "run", "bundle", bundles+":v"+current, "--namespace", operatorNamespace, "--timeout", "5m",
			"--index-image", lab.Settings["REGISTRY"]+"/opm:1", "--decompression-image", lab.Settings["SHELL_IMAGE"], "--security-context-config", "restricted")
		awaitInstalled(ctx, current)
		run(ctx, lab.Settings["OPERATOR_SDK"], "run", "bundle-upgrade", bundles+":v"+next, "--namespace", operatorNamespace, "--timeout", "5m",
			"--security-context-config", "restricted")
		awaitInstalled(ctx, next)
		run(ctx, lab.Settings["OPERATOR_SDK"], "cleanup", packageName, "--namespace", operatorNamespace, "--timeout", "5m")
		var left operatorsv1alpha1.ClusterServiceVersionList
		Expect(kube.List(ctx, &left, client.InNamespace(operatorNamespace))).To(Succeed())
		Expect(left.Items).To(BeEmpty())
	}, NodeTimeout(20*time.Minute))

	It("scorecard finds nothing to complain of in the cluster", func(ctx SpecContext) {
		out := run(ctx, lab.Settings["OPERATOR_SDK"], "scorecard", "../../bundle", "--namespace", newNamespace(ctx), "--pod-security", "restricted",
			"--untar-image", lab.Settings["SHELL_IMAGE"], "--wait-time", "5m", "--output", "json")
		var list struct {
			Items []struct {
				Status struct {
					Results []struct {
						Name, State string
						Errors      []string
						Suggestions []string
					}
				}
			}
		}
		Expect(json.Unmarshal(out, &list)).To(Succeed(), string(out))
		Expect(list.Items).To(HaveLen(6))
		for _, item := range list.Items {
			Expect(item.Status.Results).NotTo(BeEmpty())
			for _, result := range item.Status.Results {
				Expect(result.State).To(Equal("pass"), "%s: %v %v", result.Name, result.Errors, result.Suggestions)
			}
		}
	}, NodeTimeout(10*time.Minute))
})

// enforce sets the Pod Security Standard of the operators' namespace.
func enforce(ctx context.Context, standard string) {
	GinkgoHelper()
	out, err := lab.Kubectl(ctx, "label", "--overwrite", "namespace", operatorNamespace, "pod-security.kubernetes.io/enforce="+standard)
	Expect(err).NotTo(HaveOccurred(), out)
}

// pushCatalog publishes a catalog under the tag that OLM polls.
func pushCatalog(ctx context.Context, dir string) {
	GinkgoHelper()
	run(ctx, lab.Settings["IMAGES"], "catalog", "--dir", dir, "--tag", catalogImage, "--out", GinkgoT().TempDir()+"/catalog.tar", "--push", lab.Settings["REGISTRY"])
}

// run runs a program of the release's, which trusts the cluster's registry, and returns what it printed.
func run(ctx context.Context, program string, args ...string) []byte {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+lab.Settings["KUBECONFIG"], "SSL_CERT_FILE="+lab.Settings["REGISTRY_CA"])
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, GinkgoWriter), GinkgoWriter
	err := cmd.Run()
	Expect(err).NotTo(HaveOccurred(), out.String())
	return out.Bytes()
}
