//go:build integration

package webhook

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

// manifests are what kustomize makes of a folder of config.
type manifests struct {
	text     []byte
	crd      apiextensionsv1.CustomResourceDefinition
	services []corev1.Service
	manager  appsv1.Deployment
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
	m := &manifests{}
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
			into(&m.manager)
		}
	}
}

// TestTheManifestsNameWhatTheOperatorNames keeps an applied manifest from being at odds with what the operator writes.
func TestTheManifestsNameWhatTheOperatorNames(t *testing.T) {
	for _, folder := range []string{"default", "namespaced/webhook"} {
		m := build(t, folder)
		i := slices.IndexFunc(m.services, func(s corev1.Service) bool { return s.Name == webhook.ServiceName })
		if i < 0 {
			t.Fatalf("%s: there is no Service %s", folder, webhook.ServiceName)
		}
		for key, value := range m.services[i].Spec.Selector {
			if m.manager.Spec.Template.Labels[key] != value {
				t.Errorf("%s: the Service does not select the Deployment: %s is %s", folder, key, value)
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

// TestApplyingTheCRDAgainBreaksNothing is `make deploy` or `make install` on a cluster where the operator runs.
func TestApplyingTheCRDAgainBreaksNothing(t *testing.T) {
	l := newLab(t)
	l.namespace = "etcd-warden-system"
	must(t, admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.namespace}}))
	must(t, grant(t.Context(), l.namespace, "config/webhook/role.yaml"))
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
	eventually(t, "the stanza is right", func() error { return isStanza(t, right.Spec.Conversion) })
	right = getCRD(t)
	apply() // what the operator repaired is the operator's now, too
	if have := getCRD(t); have.Generation != right.Generation {
		t.Errorf("applying once more changed the CRD's conversion to %+v", have.Spec.Conversion)
	}
}

// TestWhatMakeInstalledMakeRemoves takes the CRD away while nobody converts what is stored, and then the operator of chosen namespaces.
func TestWhatMakeInstalledMakeRemoves(t *testing.T) {
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
