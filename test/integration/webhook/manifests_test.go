//go:build integration

package webhook

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

// manifests are what kustomize makes of a folder of config.
type manifests struct {
	text        []byte
	crd         apiextensionsv1.CustomResourceDefinition
	services    []corev1.Service
	budgets     []policyv1.PodDisruptionBudget
	deployments map[string]appsv1.Deployment
	// bindings are the subjects of RoleBindings and ClusterRoleBindings, by the name of the role.
	bindings map[string][]string
}

func build(t *testing.T, folder string) *manifests {
	t.Helper()
	script := filepath.Join(root, "hack", "build-tools.sh")
	out, err := exec.Command(script, "kustomize").CombinedOutput()
	if err != nil {
		t.Fatalf("building kustomize: %v: %s", err, out)
	}
	dir, err := exec.Command(script, "dir", "kustomize").Output()
	must(t, err)
	m := &manifests{deployments: map[string]appsv1.Deployment{}, bindings: map[string][]string{}}
	m.text, err = exec.Command(filepath.Join(strings.TrimSpace(string(dir)), "kustomize"), "build", filepath.Join(root, "config", folder)).Output()
	must(t, err)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(m.text), 1<<20)
	for {
		object := &unstructured.Unstructured{}
		if decoder.Decode(&object.Object) != nil {
			return m
		}
		into := func(typed any) { must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, typed)) }
		switch object.GetKind() {
		case "CustomResourceDefinition":
			into(&m.crd)
		case "Service":
			m.services = append(m.services, corev1.Service{})
			into(&m.services[len(m.services)-1])
		case "Deployment":
			var deployment appsv1.Deployment
			into(&deployment)
			m.deployments[deployment.Name] = deployment
		case "PodDisruptionBudget":
			m.budgets = append(m.budgets, policyv1.PodDisruptionBudget{})
			into(&m.budgets[len(m.budgets)-1])
		case "RoleBinding", "ClusterRoleBinding":
			var binding rbacv1.ClusterRoleBinding // a RoleBinding looks the same
			into(&binding)
			for _, subject := range binding.Subjects {
				m.bindings[binding.RoleRef.Name] = append(m.bindings[binding.RoleRef.Name], subject.Name)
			}
		}
	}
}

// TestNamesTheSameInManifestsAndCode would fail if an applied manifest undid what the webhook writes.
func TestNamesTheSameInManifestsAndCode(t *testing.T) {
	for _, folder := range []string{"default", "namespaced/webhook"} {
		m := build(t, folder)
		deployment, found := m.deployments[webhook.DeploymentName]
		if !found {
			t.Fatalf("%s: there is no Deployment %s", folder, webhook.DeploymentName)
		}
		i := slices.IndexFunc(m.services, func(s corev1.Service) bool { return s.Name == webhook.ServiceName })
		if i < 0 {
			t.Fatalf("%s: there is no Service %s", folder, webhook.ServiceName)
		}
		for name, other := range m.deployments {
			selected := labels.SelectorFromSet(m.services[i].Spec.Selector).Matches(labels.Set(other.Spec.Template.Labels))
			if selected != (name == deployment.Name) {
				t.Errorf("%s: the Service selects the pods of %s: %t", folder, name, selected)
			}
		}
	}
	m := build(t, "crd")
	if have := m.crd.Spec.Conversion; !sameService(have, asInstalled()) {
		t.Errorf("the CRD's conversion is %+v", have)
	}
	if m.crd.Name != webhook.CRD || len(m.crd.Spec.Conversion.Webhook.ClientConfig.CABundle) != 0 {
		t.Error("the CRD names an authority: to apply it would undo what the operator wrote")
	}
}

func sameService(a, b *apiextensionsv1.CustomResourceConversion) bool {
	x, y := a.Webhook.ClientConfig.Service, b.Webhook.ClientConfig.Service
	return a.Strategy == b.Strategy && x.Namespace == y.Namespace && x.Name == y.Name && *x.Path == *y.Path && *x.Port == *y.Port &&
		slices.Equal(a.Webhook.ConversionReviewVersions, b.Webhook.ConversionReviewVersions)
}

// TestKeepsOneOfTwoWebhooksRunning: what the Deployment and its budget promise.
func TestKeepsOneOfTwoWebhooksRunning(t *testing.T) {
	for _, folder := range []string{"default", "namespaced/webhook"} {
		m := build(t, folder)
		spec := m.deployments[webhook.DeploymentName].Spec
		if *spec.Replicas != 2 || spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
			t.Errorf("%s: %d replicas, strategy %+v", folder, *spec.Replicas, spec.Strategy.RollingUpdate)
		}
		if len(m.budgets) != 1 || m.budgets[0].Spec.MaxUnavailable.IntValue() != 1 {
			t.Fatalf("%s: the budgets are %+v", folder, m.budgets)
		}
		spread := spec.Template.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		if len(spread) != 1 || spread[0].PodAffinityTerm.TopologyKey != corev1.LabelHostname {
			t.Fatalf("%s: the pods are spread by %+v", folder, spread)
		}
		for what, selector := range map[string]*metav1.LabelSelector{
			"budget": m.budgets[0].Spec.Selector, "anti-affinity": spread[0].PodAffinityTerm.LabelSelector,
		} {
			if !maps.Equal(selector.MatchLabels, spec.Selector.MatchLabels) {
				t.Errorf("%s: the %s selects %v", folder, what, selector)
			}
		}
	}
}

// TestGivesManagerAndWebhookTheirOwnRoles: neither may do what only the other needs.
func TestGivesManagerAndWebhookTheirOwnRoles(t *testing.T) {
	m := build(t, "default")
	for role, account := range map[string]string{
		"etcd-warden-webhook-role": "etcd-warden-webhook", "etcd-warden-manager-role": "etcd-warden-controller-manager",
	} {
		for _, subject := range m.bindings[role] {
			if subject != account {
				t.Errorf("%s has the role %s", subject, role)
			}
		}
		if len(m.bindings[role]) == 0 || m.deployments[account].Spec.Template.Spec.ServiceAccountName != account {
			t.Errorf("the Deployment %s does not have the role %s", account, role)
		}
	}
}

// TestSetsTheGarbageCollectorsLimitBelowTheContainers checks GOMEMLIMIT of every container.
func TestSetsTheGarbageCollectorsLimitBelowTheContainers(t *testing.T) {
	containers := 0
	for _, folder := range []string{"default", "namespaced/webhook", "namespaced/manager"} {
		for name, deployment := range build(t, folder).deployments {
			container := deployment.Spec.Template.Spec.Containers[0]
			i := slices.IndexFunc(container.Env, func(v corev1.EnvVar) bool { return v.Name == "GOMEMLIMIT" })
			if i < 0 {
				t.Errorf("%s: %s has no GOMEMLIMIT", folder, name)
				continue
			}
			limit := resource.MustParse(strings.TrimSuffix(container.Env[i].Value, "B"))
			if share := 100 * limit.Value() / container.Resources.Limits.Memory().Value(); share < 80 || share > 90 {
				t.Errorf("%s: GOMEMLIMIT of %s is %d %% of the memory limit, want 80 to 90", folder, name, share)
			}
			containers++
		}
	}
	if containers != 4 {
		t.Errorf("%d containers were checked, want 4", containers)
	}
}

// TestKeepsTheConversionWhenTheCRDIsAppliedAgain does what `make deploy` does on a cluster where the webhook runs.
func TestKeepsTheConversionWhenTheCRDIsAppliedAgain(t *testing.T) {
	l := newLab(t)
	l.namespace = "etcd-warden-system"
	must(t, admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.namespace}}))
	must(t, grant(t.Context(), l.namespace, webhookUser, "config/webhook/role.yaml"))
	file := filepath.Join(t.TempDir(), "crd.yaml")
	must(t, os.WriteFile(file, build(t, "crd").text, 0o600))
	apply := func(options ...string) {
		t.Helper()
		_, complaint, err := kubectl.Run(append([]string{"apply", "--server-side", "-f", file}, options...)...)
		if err != nil {
			text, _ := io.ReadAll(complaint)
			t.Fatalf("applying the CRD: %v: %s", err, text)
		}
	}
	apply("--force-conflicts") // these tests wrote it before
	o := l.options()
	o.URL = ""
	l.awaitReady(l.start(o))
	right := getCRD(t)
	apply()
	if have := getCRD(t); have.Generation != right.Generation {
		t.Errorf("applying again changed the CRD's conversion to %+v", have.Spec.Conversion)
	}

	changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) {
		crd.Spec.Conversion.Webhook.ClientConfig.Service.Name = "webhook-service"
		crd.Spec.Conversion.Webhook.ClientConfig.CABundle = nil
	})
	eventually(t, "spec.conversion is right", func() error { return isConversion(t, right.Spec.Conversion) })
	right = getCRD(t)
	apply() // what the operator repaired is the operator's now, too
	if have := getCRD(t); have.Generation != right.Generation {
		t.Errorf("applying once more changed the CRD's conversion to %+v", have.Spec.Conversion)
	}
}

// TestRemovesWhatMakeInstalled removes the CRD without a webhook, and then the operator of chosen namespaces.
func TestRemovesWhatMakeInstalled(t *testing.T) {
	l := newLab(t)
	l.storeAs("v1alpha1")
	must(t, admin.Create(t.Context(), newAlpha("prod")))
	l.storeAs("v1beta1")
	l.expectStored("prod", "v1alpha1")
	makeTarget(t, "uninstall")
	if err := admin.Get(t.Context(), client.ObjectKey{Name: webhook.CRD}, &apiextensionsv1.CustomResourceDefinition{}); !apierrors.IsNotFound(err) {
		t.Errorf("reading the CRD: %v", err)
	}
	makeTarget(t, "uninstall") // of what is not there

	watched := "WATCH_NAMESPACES=" + newNamespace(t) + "," + newNamespace(t)
	makeTarget(t, "deploy-namespaced", watched)
	roles := rights(t)
	for _, name := range []string{"etcd-warden-etcdcluster-editor-role", "etcd-warden-etcdcluster-viewer-role", "etcd-warden-manager-role"} {
		if !slices.Contains(roles, name) {
			t.Errorf("there is no %s", name)
		}
	}
	makeTarget(t, "undeploy", watched)
	if left := rights(t); len(left) > 0 {
		t.Errorf("these are left: %v", left)
	}
	getCRD(t)
}

// rights are the names of all roles and bindings that the manifests may have made.
func rights(t *testing.T) (names []string) {
	t.Helper()
	for _, list := range []client.ObjectList{&rbacv1.RoleList{}, &rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBindingList{}} {
		must(t, admin.List(t.Context(), list))
		must(t, meta.EachListItem(list, func(object runtime.Object) error {
			if name := object.(client.Object).GetName(); strings.HasPrefix(name, "etcd-warden-") {
				names = append(names, name)
			}
			return nil
		}))
	}
	return names
}

// makeTarget runs Make as the administrator does.
func makeTarget(t *testing.T, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(file, kubeconfig, 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	run := exec.CommandContext(ctx, "make", append([]string{"-C", root}, args...)...)
	run.Env = append(os.Environ(), "KUBECONFIG="+file)
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
