package olm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	operatorsv1 "github.com/operator-framework/api/pkg/operators/v1"
	operatorsv1alpha1 "github.com/operator-framework/api/pkg/operators/v1alpha1"
	operatorsv2 "github.com/operator-framework/api/pkg/operators/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Where OLM puts things.
const (
	olmNamespace      = "olm"
	operatorNamespace = "operators"
	packageName       = "etcd-warden"
	deploymentName    = "etcd-warden-controller-manager"
	webhookName       = "etcd-warden-webhook"
	crdName           = "etcdclusters.operator.etcd-warden.io"
	catalogPort       = "20051" // below the ports that the kernel gives to outgoing connections
)

func csvName(version string) string { return packageName + ".v" + version }

// server is the process that serves the catalog.
var server *exec.Cmd

// publish serves this catalog from now on, in the place of another.
func publish(ctx context.Context, catalog string) {
	GinkgoHelper()
	withdraw()
	temporary := GinkgoT().TempDir()
	server = exec.Command(lab.Settings["OPM"], "serve", catalog, "--port", catalogPort, "--pprof-addr=", "--termination-log="+temporary+"/termination")
	server.Env = append(os.Environ(), "TMPDIR="+temporary)
	server.Stdout, server.Stderr = GinkgoWriter, GinkgoWriter
	Expect(server.Start()).To(Succeed())
	Eventually(ctx, func() error {
		connection, err := net.DialTimeout("tcp", address(), time.Second)
		if err == nil {
			err = connection.Close()
		}
		return err
	}).Should(Succeed())
}

// withdraw stops serving.
func withdraw() {
	if server != nil {
		_ = server.Process.Kill()
		_ = server.Wait()
		server = nil
	}
}

// address is where pods find this machine: beside the registry.
func address() string {
	host, _, _ := net.SplitHostPort(lab.Settings["REGISTRY"])
	return net.JoinHostPort(host, catalogPort)
}

// addCatalog makes OLM ask the server, and the operators' namespace take operators for all namespaces.
func addCatalog(ctx context.Context) {
	GinkgoHelper()
	createCatalog(ctx, operatorsv1alpha1.CatalogSourceSpec{SourceType: operatorsv1alpha1.SourceTypeGrpc, Address: address(), DisplayName: "etcd-warden"})
}

// catalogName is the name of the CatalogSource in use. Each source has another name, because OLM remembers for minutes
// what a source of the same name contained.
var catalogName string

func createCatalog(ctx context.Context, spec operatorsv1alpha1.CatalogSourceSpec) {
	GinkgoHelper()
	source := &operatorsv1alpha1.CatalogSource{ObjectMeta: metav1.ObjectMeta{Namespace: olmNamespace, GenerateName: packageName + "-"}, Spec: spec}
	Expect(kube.Create(ctx, source)).To(Succeed())
	catalogName = source.Name
	Expect(kube.Create(ctx, &operatorsv1.OperatorGroup{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "all-namespaces"}})).To(Succeed())
}

// subscribe asks for the operator from the stable channel. Without a version, its newest.
func subscribe(ctx context.Context, startingCSV string, approval operatorsv1alpha1.Approval) {
	GinkgoHelper()
	Expect(kube.Create(ctx, &operatorsv1alpha1.Subscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: packageName},
		Spec: &operatorsv1alpha1.SubscriptionSpec{
			CatalogSource: catalogName, CatalogSourceNamespace: olmNamespace, Package: packageName, Channel: "stable",
			StartingCSV: startingCSV, InstallPlanApproval: approval,
		},
	})).To(Succeed())
}

// approve waits until OLM asks whether it may install this release, and says yes.
func approve(ctx context.Context, version string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		plan, err := installPlan(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(plan.Spec.ClusterServiceVersionNames).To(ContainElement(csvName(version)))
		if plan.Spec.Approved {
			return
		}
		g.Expect(plan.Status.Phase).To(Equal(operatorsv1alpha1.InstallPlanPhaseRequiresApproval))
		plan.Spec.Approved = true
		g.Expect(kube.Update(ctx, plan)).To(Succeed())
	}).Should(Succeed())
}

// installPlan is what OLM is about to do for the Subscription, or did last.
func installPlan(ctx context.Context) (*operatorsv1alpha1.InstallPlan, error) {
	var subscription operatorsv1alpha1.Subscription
	if err := kube.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: packageName}, &subscription); err != nil {
		return nil, err
	}
	if subscription.Status.InstallPlanRef == nil {
		return nil, errors.New("OLM has no plan yet")
	}
	var plan operatorsv1alpha1.InstallPlan
	err := kube.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: subscription.Status.InstallPlanRef.Name}, &plan)
	return &plan, err
}

// awaitInstalled waits until OLM says that this release runs, alone.
func awaitInstalled(ctx context.Context, version string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		var list operatorsv1alpha1.ClusterServiceVersionList
		g.Expect(kube.List(ctx, &list, client.InNamespace(operatorNamespace))).To(Succeed())
		phases := map[string]operatorsv1alpha1.ClusterServiceVersionPhase{}
		for _, csv := range list.Items {
			phases[csv.Name] = csv.Status.Phase
		}
		g.Expect(phases).To(Equal(map[string]operatorsv1alpha1.ClusterServiceVersionPhase{csvName(version): operatorsv1alpha1.CSVPhaseSucceeded}))
	}).Should(Succeed())
	Expect(imageOf(operatorDeployment(ctx))).To(HaveSuffix(":v" + version))
	Expect(imageOf(webhookDeployment(ctx))).To(HaveSuffix(":v" + version))
}

func operatorDeployment(ctx context.Context) *appsv1.Deployment {
	GinkgoHelper()
	return deployment(ctx, deploymentName)
}

func webhookDeployment(ctx context.Context) *appsv1.Deployment {
	GinkgoHelper()
	return deployment(ctx, webhookName)
}

func deployment(ctx context.Context, name string) *appsv1.Deployment {
	GinkgoHelper()
	var found appsv1.Deployment
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: name}, &found)).To(Succeed())
	return &found
}

func imageOf(deployment *appsv1.Deployment) string {
	return deployment.Spec.Template.Spec.Containers[0].Image
}

// awaitSettled waits until both Deployments run what they should and nothing else.
func awaitSettled(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		for deployment, pods := range map[*appsv1.Deployment][]corev1.Pod{
			operatorDeployment(ctx): operatorPods(ctx), webhookDeployment(ctx): webhookPods(ctx),
		} {
			g.Expect(deployment.Status.ObservedGeneration).To(Equal(deployment.Generation), deployment.Name)
			g.Expect(deployment.Status.UpdatedReplicas).To(Equal(*deployment.Spec.Replicas), deployment.Name)
			g.Expect(deployment.Status.AvailableReplicas).To(Equal(*deployment.Spec.Replicas), deployment.Name)
			g.Expect(pods).To(HaveLen(int(*deployment.Spec.Replicas)), deployment.Name)
		}
	}).Should(Succeed())
}

func operatorPods(ctx context.Context) []corev1.Pod {
	GinkgoHelper()
	return podsOf(ctx, "controller-manager")
}

func webhookPods(ctx context.Context) []corev1.Pod {
	GinkgoHelper()
	return podsOf(ctx, "webhook")
}

// podsOf are the pods of the operator or of its webhook.
func podsOf(ctx context.Context, controlPlane string) []corev1.Pod {
	GinkgoHelper()
	var pods corev1.PodList
	Expect(kube.List(ctx, &pods, client.InNamespace(operatorNamespace), client.MatchingLabels{"control-plane": controlPlane})).To(Succeed())
	return pods.Items
}

// csv reads what OLM says of a release.
func csv(ctx context.Context, version string) (*operatorsv1alpha1.ClusterServiceVersion, error) {
	var found operatorsv1alpha1.ClusterServiceVersion
	err := kube.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: csvName(version)}, &found)
	return &found, err
}

// upgradeable is what a release's operator says of being replaced now; nil where it said nothing.
func upgradeable(ctx context.Context, version string) (*metav1.Condition, error) {
	var condition operatorsv2.OperatorCondition
	err := kube.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: csvName(version)}, &condition)
	return meta.FindStatusCondition(condition.Spec.Conditions, operatorsv2.Upgradeable), err
}

func crd(ctx context.Context) *apiextensionsv1.CustomResourceDefinition {
	GinkgoHelper()
	var found apiextensionsv1.CustomResourceDefinition
	Expect(kube.Get(ctx, client.ObjectKey{Name: crdName}, &found)).To(Succeed())
	return &found
}

// uninstall removes the operator as OLM's users do, and waits until its pods are gone.
func uninstall(ctx context.Context, version string) {
	GinkgoHelper()
	Expect(kube.Delete(ctx, &operatorsv1alpha1.Subscription{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: packageName}})).To(Succeed())
	Expect(kube.Delete(ctx, &operatorsv1alpha1.ClusterServiceVersion{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: csvName(version)}})).To(Succeed())
	Eventually(ctx, operatorPods).WithArguments(ctx).Should(BeEmpty())
	Eventually(ctx, webhookPods).WithArguments(ctx).Should(BeEmpty())
}

// show prints what OLM knows, for whoever looks into a failed spec.
func show(ctx context.Context, namespace string) {
	for _, args := range [][]string{
		{"-n", operatorNamespace, "get", "subscriptions,installplans,csv,operatorconditions,deployments,pods", "-o", "wide"},
		{"-n", operatorNamespace, "get", "subscriptions,csv,operatorconditions", "-o", "jsonpath={range .items[*]}{.kind}{\" \"}{.metadata.name}{\" \"}{.status}{\"\\n\"}{end}"},
		{"-n", operatorNamespace, "logs", "--tail=200", "--prefix", "-l", "control-plane in (controller-manager,webhook)"},
		{"-n", olmNamespace, "get", "pods,jobs,catalogsources", "-o", "wide"},
		{"-n", olmNamespace, "logs", "--tail=60", "deployment/catalog-operator"},
		{"-n", olmNamespace, "logs", "--tail=60", "deployment/olm-operator"},
		{"get", "crd", crdName, "-o", "jsonpath={.spec.conversion}{\"\\n\"}{.status.storedVersions}"},
		{"-n", namespace, "get", "etcdclusters,pods", "-o", "yaml"},
		{"-n", operatorNamespace, "get", "events", "--sort-by=.lastTimestamp"},
	} {
		out, err := lab.Kubectl(ctx, args...)
		AddReportEntry(fmt.Sprint(args), ReportEntryVisibilityFailureOrVerbose, fmt.Sprint(out, err))
	}
}
