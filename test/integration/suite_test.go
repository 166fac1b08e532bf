//go:build integration

// Package integration tests the operator against a real API server and etcd, without any other part of Kubernetes:
// the tests themselves stand in for the StatefulSet controller, the kubelet and the garbage collector,
// and internal/etcd/fake for the members.
// The tests are plain Go tests and not Ginkgo's, because hundreds of them share one API server
// and run in parallel in one process.
package integration

import (
	"context"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/conversion"
	"github.com/etcd-warden/etcd-warden/test/controlplane"
)

const (
	root = "../.."
	// parallel is how many tests run at once; most of their time they wait for the API server. The flag -parallel wins.
	parallel = "16"
)

// What every test shares.
var (
	scheme = runtime.NewScheme()
	// admin may do everything; the tests act as the user and as Kubernetes with it.
	admin       client.Client
	adminConfig *rest.Config
	// operatorConfig is that of a user who has the operator's role and nothing else.
	operatorConfig *rest.Config
	// operatorClient reads and writes directly, as that user.
	operatorClient client.WithWatch
)

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	os.Exit(controlplane.Main(m, root, connect))
}

// convert points the API server at a conversion server in this process, and waits until it is used.
// envtest can do this only for types with conversion methods.
func convert(ctx context.Context) error {
	server := httptest.NewTLSServer(conversion.Handler())
	definition := &apiextensionsv1.CustomResourceDefinition{}
	if err := admin.Get(ctx, client.ObjectKey{Name: "etcdclusters." + v1beta1.GroupVersion.Group}, definition); err != nil {
		return fmt.Errorf("reading the CRD: %w", err)
	}
	definition.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{
		Strategy: apiextensionsv1.WebhookConverter,
		Webhook: &apiextensionsv1.WebhookConversion{
			ConversionReviewVersions: []string{"v1"},
			ClientConfig: &apiextensionsv1.WebhookClientConfig{
				URL:      &server.URL,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
		},
	}
	if err := admin.Update(ctx, definition); err != nil {
		return fmt.Errorf("writing the CRD: %w", err)
	}
	const patience = time.Minute
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		old := &v1alpha1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{GenerateName: "probe-", Namespace: "default"}, Spec: v1alpha1.EtcdClusterSpec{Size: 3}}
		if err := admin.Create(ctx, old); err != nil {
			return false, fmt.Errorf("creating an object to convert: %w", err)
		}
		converted := &v1beta1.EtcdCluster{}
		if err := admin.Get(ctx, old.Key(), converted); err != nil {
			return false, fmt.Errorf("reading a converted object: %w", err)
		}
		return converted.Spec.Replicas == old.Spec.Size, admin.Delete(ctx, converted)
	})
}

func connect(environment *envtest.Environment, config *rest.Config) error {
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			return fmt.Errorf("building the scheme: %w", err)
		}
	}
	adminConfig = config
	administrator, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("connecting as the administrator: %w", err)
	}
	admin = throughMirror(administrator)
	user, err := environment.AddUser(envtest.User{Name: "etcd-warden"}, &rest.Config{QPS: -1})
	if err != nil {
		return fmt.Errorf("adding the operator's user: %w", err)
	}
	operatorConfig = user.Config()
	direct, err := client.NewWithWatch(operatorConfig, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("connecting as the operator: %w", err)
	}
	operatorClient = throughMirror(direct)
	if err := convert(context.Background()); err != nil {
		return err
	}
	return prepareCluster(context.Background())
}

// prepareCluster gives the operator's user the operator's role,
// and makes the StorageClasses standard, the default, and fast.
func prepareCluster(ctx context.Context) error {
	raw, err := os.ReadFile(filepath.Join(root, "config", "rbac", "role.yaml"))
	if err != nil {
		return fmt.Errorf("reading the operator's role: %w", err)
	}
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(raw, role); err != nil {
		return fmt.Errorf("decoding the operator's role: %w", err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "etcd-warden"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "etcd-warden"}},
	}
	fast := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: "example.com/none"}
	for _, object := range []client.Object{role, binding, defaultClass(), fast} {
		if err := admin.Create(ctx, object); err != nil {
			return fmt.Errorf("creating %s: %w", object.GetName(), err)
		}
	}
	return nil
}

// full reports whether the whole matrix is asked for, as before a release, and not a sample of it.
func full() bool { return os.Getenv("ETCD_WARDEN_TEST_FULL") == "true" }

func defaultClass() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "standard",
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner: "example.com/none",
	}
}

var namespaces atomic.Int64

// newNamespace makes a namespace that accepts restricted pods only.
func newNamespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("test-%d", namespaces.Add(1))
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   name,
		Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	must(t, admin.Create(t.Context(), namespace))
	return name
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
