//go:build integration

// Package webhook tests the conversion webhook and its certificates with a real API server, which calls it on
// the loopback.
// There is one CRD, so these tests run one after the other.
package webhook

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	operatorsv2 "github.com/operator-framework/api/pkg/operators/v2"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
	"github.com/etcd-warden/etcd-warden/test/controlplane"
)

const (
	root        = "../../.."
	managerUser = "etcd-warden-controller-manager"
	webhookUser = "etcd-warden-webhook"
	// patience is many times what anything here takes.
	patience = time.Minute
)

// What every test shares.
var (
	scheme = runtime.NewScheme()
	// admin may do everything.
	admin client.Client
	// managerConfig and webhookConfig are those of users who have the roles of one Deployment and nothing else.
	managerConfig, webhookConfig *rest.Config
	// kubectl acts as the administrator.
	kubectl interface {
		Run(args ...string) (stdout, stderr io.Reader, err error)
	}
	// kubeconfig is the administrator's.
	kubeconfig []byte
	// store is the API server's etcd.
	store *clientv3.Client
)

func TestMain(m *testing.M) { os.Exit(controlplane.Main(m, root, connect)) }

func connect(environment *envtest.Environment, config *rest.Config) error {
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, operatorsv2.AddToScheme, v1alpha1.AddToScheme, v1beta1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return fmt.Errorf("building the scheme: %w", err)
		}
	}
	var err error
	if admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("connecting as the administrator: %w", err)
	}
	administrator, err := environment.AddUser(envtest.User{Name: "administrator", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return fmt.Errorf("adding the administrator: %w", err)
	}
	if kubectl, err = administrator.Kubectl(); err != nil {
		return fmt.Errorf("setting up kubectl: %w", err)
	}
	if kubeconfig, err = administrator.KubeConfig(); err != nil {
		return fmt.Errorf("writing the administrator's configuration: %w", err)
	}
	for name, config := range map[string]**rest.Config{managerUser: &managerConfig, webhookUser: &webhookConfig} {
		added, err := environment.AddUser(envtest.User{Name: name}, &rest.Config{QPS: -1})
		if err != nil {
			return fmt.Errorf("adding the user %s: %w", name, err)
		}
		*config = added.Config()
	}
	store, err = clientv3.New(clientv3.Config{Endpoints: []string{environment.ControlPlane.Etcd.URL.String()}})
	if err != nil {
		return fmt.Errorf("connecting to etcd: %w", err)
	}
	if err := grant(context.Background(), "", managerUser, "config/rbac/role.yaml"); err != nil {
		return err
	}
	return grant(context.Background(), "", webhookUser, "config/webhook/role.yaml")
}

// grant gives a user the roles of a file: the ClusterRoles, or for a namespace the Roles.
func grant(ctx context.Context, namespace, user, name string) error {
	file, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return err
	}
	defer file.Close()
	decoder := yaml.NewYAMLOrJSONDecoder(file, 1<<16)
	for {
		role := &rbacv1.ClusterRole{} // a Role looks the same
		if decoder.Decode(role) != nil {
			return nil
		}
		if err := bind(ctx, namespace, user, role); err != nil {
			return fmt.Errorf("granting %s of %s: %w", role.Name, name, err)
		}
	}
}

func bind(ctx context.Context, namespace, user string, role *rbacv1.ClusterRole) error {
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}
	reference := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: role.Kind, Name: role.Name}
	meta := metav1.ObjectMeta{Namespace: namespace, Name: role.Name}
	var objects []client.Object
	switch {
	case role.Kind == "ClusterRole" && namespace == "":
		objects = []client.Object{role, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: reference, Subjects: subjects}}
	case role.Kind == "Role" && namespace != "":
		objects = []client.Object{
			&rbacv1.Role{ObjectMeta: meta, Rules: role.Rules},
			&rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: reference, Subjects: subjects},
		}
	}
	for _, object := range objects {
		if err := admin.Create(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

var namespaces atomic.Int64

// newNamespace creates the webhook's namespace of one test.
func newNamespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("operator-%d", namespaces.Add(1))
	must(t, admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	must(t, grant(t.Context(), name, webhookUser, "config/webhook/role.yaml"))
	return name
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	err := holds()
	for end := time.Now().Add(patience); err != nil; err = holds() {
		if time.Now().After(end) {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		<-tick.C
	}
}

func getCRD(t *testing.T) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	must(t, admin.Get(t.Context(), client.ObjectKey{Name: webhook.CRD}, crd))
	return crd
}

// changeCRD changes the CRD as an administrator does.
func changeCRD(t *testing.T, change func(*apiextensionsv1.CustomResourceDefinition)) {
	t.Helper()
	eventually(t, "the CRD is changed", func() error {
		crd := getCRD(t)
		old := crd.DeepCopy()
		change(crd)
		return admin.Patch(t.Context(), crd, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	})
}
