package e2e

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const operatorNamespace = "etcd-warden-system"

// newNamespace makes a namespace that admits restricted pods only. It is deleted after the spec.
// If the spec failed, its objects are printed first.
func newNamespace(ctx context.Context) string {
	GinkgoHelper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	Expect(kube.Create(ctx, ns)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			show(ctx, ns.Name)
		}
		Expect(client.IgnoreNotFound(kube.Delete(ctx, ns))).To(Succeed())
	})
	return ns.Name
}

// show prints what a reader needs to find out why a spec failed.
func show(ctx context.Context, namespace string) {
	for _, args := range [][]string{
		{"get", "etcd,sts,pods,pvc,svc,pdb", "-o", "wide"},
		{"describe", "etcd"},
		{"get", "etcd", "-o", "yaml"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "--all-containers", "--prefix", "--tail=40", "--max-log-requests=20", "-l", "app.kubernetes.io/managed-by=etcd-warden"},
	} {
		out, err := lab.Kubectl(ctx, append([]string{"-n", namespace}, args...)...)
		AddReportEntry(strings.Join(args, " "), ReportEntryVisibilityFailureOrVerbose, fmt.Sprint(out, errorText(err)))
	}
	log, err := lab.Kubectl(ctx, "-n", operatorNamespace, "logs", "--tail=-1", "-l", "control-plane in (controller-manager,webhook)")
	var ours strings.Builder
	for line := range strings.Lines(log) {
		if strings.Contains(line, namespace) {
			ours.WriteString(line)
		}
	}
	AddReportEntry("operator", ReportEntryVisibilityFailureOrVerbose, ours.String()+errorText(err))
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
