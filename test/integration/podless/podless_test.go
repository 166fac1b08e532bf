//go:build integration

// Package podless tests what the operator learns about pods that Kubernetes cannot create, with a real API server and
// Kubernetes' own controller for StatefulSets.
package podless

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/observe"
	"github.com/etcd-warden/etcd-warden/internal/render"
	"github.com/etcd-warden/etcd-warden/test/controlplane"
)

const root = "../../.."

var (
	admin client.Client
	// operator has the operator's role and nothing else.
	operator client.Client
	// controllers is the command of Kubernetes' controllers.
	controllers *exec.Cmd
)

func TestMain(m *testing.M) { os.Exit(controlplane.Main(m, root, connect)) }

func connect(environment *envtest.Environment, config *rest.Config) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			return fmt.Errorf("building the scheme: %w", err)
		}
	}
	var err error
	if admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("connecting as the administrator: %w", err)
	}
	user, err := environment.AddUser(envtest.User{Name: "operator"}, &rest.Config{QPS: -1})
	if err != nil {
		return fmt.Errorf("adding the operator's user: %w", err)
	}
	if operator, err = client.New(user.Config(), client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("connecting as the operator: %w", err)
	}
	if err := grant(); err != nil {
		return fmt.Errorf("granting the operator's role: %w", err)
	}
	return prepareControllers(environment)
}

// grant gives the operator's user the role of the operator's manifests.
func grant() error {
	raw, err := os.ReadFile(filepath.Join(root, "config", "rbac", "role.yaml"))
	if err != nil {
		return err
	}
	var role rbacv1.ClusterRole
	if err := yaml.Unmarshal(raw, &role); err != nil {
		return err
	}
	for _, object := range []client.Object{&role, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "operator"}},
	}} {
		if err := admin.Create(context.Background(), object); err != nil {
			return err
		}
	}
	return nil
}

func prepareControllers(environment *envtest.Environment) error {
	user, err := environment.AddUser(envtest.User{Name: "controllers", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return fmt.Errorf("adding the controllers' user: %w", err)
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		return fmt.Errorf("writing the controllers' configuration: %w", err)
	}
	file := filepath.Join(environment.ControlPlane.APIServer.CertDir, "controllers.kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return err
	}
	binary := filepath.Join(filepath.Dir(environment.ControlPlane.APIServer.Path), "kube-controller-manager")
	controllers = exec.Command(binary, "--kubeconfig="+file, "--controllers=statefulset-controller", "--leader-elect=false", "--secure-port=0")
	return nil
}

// startControllers runs Kubernetes' controllers until the test ends.
func startControllers(t *testing.T) {
	t.Helper()
	var log strings.Builder
	controllers.Stdout, controllers.Stderr = &log, &log
	must(t, controllers.Start())
	t.Cleanup(func() {
		must(t, controllers.Process.Kill())
		_ = controllers.Wait() // it was killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(3 * time.Minute); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// byLabel stands in for the index of the operator's caches, which the API server does not have.
type byLabel struct{ client.Reader }

func (r byLabel) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	asked := (&client.ListOptions{}).ApplyOptions(options)
	if asked.FieldSelector != nil {
		name, _ := asked.FieldSelector.RequiresExactMatch(observe.IndexCluster)
		client.MatchingLabels{cluster.LabelCluster: name}.ApplyToList(asked)
		asked.FieldSelector = nil
	}
	return r.Reader.List(ctx, list, asked)
}

func TestTheOperatorLearnsWhyKubernetesCannotCreateAPod(t *testing.T) {
	startControllers(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "podless"}}
	must(t, admin.Create(t.Context(), namespace))
	c := &v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "prod"},
		Spec: v1beta1.EtcdClusterSpec{Replicas: 1, Version: "3.6.16", PodTemplate: &v1beta1.PodTemplate{
			Spec: v1beta1.PodSpec{PriorityClassName: "not-there"},
		}},
	}
	must(t, admin.Create(t.Context(), c))
	founders, token, intent := []string{"prod-0"}, render.ClusterToken(c), cluster.IntentOf(c)
	must(t, admin.Create(t.Context(), render.MemberVolume(c, "prod-0", founders, token)))
	must(t, operator.Create(t.Context(), render.MemberStatefulSet(
		render.MemberInput{Cluster: c, Name: "prod-0", Intent: intent, Start: render.Founding(c, founders, token, intent)})))

	observer := &observe.Observer{Reader: byLabel{operator}, Live: operator, Now: time.Now}
	var m *cluster.Member
	observe := func() {
		s, err := observer.Observe(t.Context(), c.Key())
		must(t, err)
		m = s.Member("prod-0")
	}
	eventually(t, "the cause is known", func() bool { observe(); return m.Workload.CreateFailure != "" })
	if want := `no PriorityClass with name not-there was found`; m.Workload.CreateFailure != want {
		t.Errorf("the cause is %q, want %q", m.Workload.CreateFailure, want)
	}
	must(t, admin.Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "not-there"}, Value: 1}))
	eventually(t, "the pod is there", func() bool { observe(); return m.Pod != nil })
	if m.Workload.CreateFailure != "" {
		t.Errorf("there is a pod, and the cause that there is none is %q", m.Workload.CreateFailure)
	}
	if hash := m.Workload.IntentHash; hash == "" || m.Pod.IntentHash != hash || m.Pod.RenderHash == "" {
		t.Errorf("the pod has the intent hash %q and its StatefulSet %q", m.Pod.IntentHash, hash)
	}
}
