//go:build integration

// Package controlplane builds and starts an API server and its etcd for tests, without any other part of Kubernetes.
package controlplane

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// New is an API server with the project's CRDs, and its etcd, built from the pinned modules and bound to the loopback.
// The root is that of the project.
func New(root string) (*envtest.Environment, error) {
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
