// Package controlplane builds and starts an API server and its etcd for tests, without any other part of Kubernetes.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// Main runs a package's tests beside an API server and returns their exit code.
// The server has the project's CRDs, is built with its etcd from the pinned modules, and bound to the loopback.
// The root is that of the project; connect makes the clients that the tests share.
func Main(m *testing.M, root string, connect func(*envtest.Environment, *rest.Config) error) int {
	code, err := run(m, root, connect)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func run(m *testing.M, root string, connect func(*envtest.Environment, *rest.Config) error) (code int, err error) {
	log.SetLogger(logr.Discard())
	environment, err := Build(root)
	if err != nil {
		return 1, err
	}
	// The API server and etcd take this from here. With the default their garbage collectors take a fifth of the time.
	if err := errors.Join(os.Setenv("GOGC", "400"), os.Setenv("GOMEMLIMIT", "8GiB")); err != nil {
		return 1, fmt.Errorf("preparing the API server: %w", err)
	}
	config, err := environment.Start()
	if err != nil {
		return 1, fmt.Errorf("starting the API server: %w", err)
	}
	defer func() {
		if stopped := environment.Stop(); stopped != nil && err == nil {
			err = fmt.Errorf("stopping the API server: %w", stopped)
		}
	}()
	config.QPS = -1
	if err := connect(environment, config); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// StartManager runs a manager until the test ends.
func StartManager(t *testing.T, mgr manager.Manager) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the manager ended: %v", err)
		}
	})
}

// Counted returns a copy of the configuration whose requests to paths of this ending are counted.
func Counted(config *rest.Config, ending string, requests *atomic.Int64) *rest.Config {
	counted := rest.CopyConfig(config)
	counted.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return counting{next: next, ending: ending, requests: requests}
	})
	return counted
}

type counting struct {
	next     http.RoundTripper
	ending   string
	requests *atomic.Int64
}

func (c counting) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasSuffix(request.URL.Path, c.ending) {
		c.requests.Add(1)
	}
	return c.next.RoundTrip(request)
}

// Build builds Kubernetes and etcd where they are missing, and describes an API server with the project's CRDs.
func Build(root string) (*envtest.Environment, error) {
	script := filepath.Join(root, "hack", "build-tools.sh")
	build := exec.Command(script, "kubernetes", "etcd-3.6")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building Kubernetes and etcd: %w", err)
	}
	paths := map[string]string{}
	for _, tool := range []string{"kubernetes", "etcd-3.6"} {
		folder, err := exec.Command(script, "dir", tool).Output()
		if err != nil {
			return nil, fmt.Errorf("finding %s: %w", tool, err)
		}
		paths[tool] = strings.TrimSpace(string(folder))
	}
	existing := false // the variable USE_EXISTING_CLUSTER is for the suites that need nodes
	environment := &envtest.Environment{
		UseExistingCluster:    &existing,
		CRDDirectoryPaths:     []string{filepath.Join(root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	server := environment.ControlPlane.GetAPIServer()
	server.Path = filepath.Join(paths["kubernetes"], "kube-apiserver")
	server.Configure().
		Set("service-cluster-ip-range", "10.96.0.0/16").
		// OpenShift turns it on: an owner reference that blocks deletion then needs a permission.
		Append("enable-admission-plugins", "OwnerReferencesPermissionEnforcement").
		Set("enable-priority-and-fairness", "false")
	environment.ControlPlane.Etcd = &envtest.Etcd{Path: filepath.Join(paths["etcd-3.6"], "etcd")}
	environment.ControlPlane.KubectlPath = filepath.Join(paths["kubernetes"], "kubectl")
	return environment, nil
}
