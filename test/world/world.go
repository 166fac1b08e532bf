// Package world reaches the Kubernetes that a suite's script made.
package world

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// World is what the script told, and clients for it.
type World struct {
	Settings  map[string]string
	Config    *rest.Config
	Kube      client.Client
	Clientset kubernetes.Interface
}

// Reach connects to the cluster of KUBECONFIG, one of the NAME=VALUE lines that the suite's script printed.
// The clients know Kubernetes' own types and those that are added here.
func Reach(values []byte, add ...func(*runtime.Scheme) error) (*World, error) {
	w := &World{Settings: map[string]string{}}
	for line := range bytes.Lines(values) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		w.Settings[name] = value
	}
	var err error
	if w.Config, err = clientcmd.BuildConfigFromFlags("", w.Settings["KUBECONFIG"]); err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	w.Config.WarningHandler = rest.NoWarnings{} // clients of the deprecated version would fill the log
	w.Config.QPS, w.Config.Burst = -1, -1
	scheme := runtime.NewScheme()
	for _, add := range append(add, clientgoscheme.AddToScheme) {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	if w.Kube, err = client.New(w.Config, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	w.Clientset, err = kubernetes.NewForConfig(w.Config)
	return w, err
}

// Full tells whether the whole matrix is asked for, as before a release.
func Full() bool { return os.Getenv("ETCD_WARDEN_TEST_FULL") != "" }

// Kubectl runs the command that users have, and returns all that it prints.
func (w *World) Kubectl(ctx context.Context, args ...string) (string, error) {
	return w.KubectlWith(ctx, "", args...)
}

// KubectlWith also gives it a manifest on its standard input.
func (w *World) KubectlWith(ctx context.Context, manifest string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.Settings["KUBECTL"], append([]string{"--kubeconfig", w.Settings["KUBECONFIG"]}, args...)...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(manifest), &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Execute runs a command in a pod's first container and returns what it prints.
func (w *World) Execute(ctx context.Context, namespace, pod string, command ...string) (string, error) {
	request := w.Clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, clientgoscheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(w.Config, "GET", request.URL().String())
	if err != nil {
		return "", fmt.Errorf("connecting to pod %s: %w", pod, err)
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return stdout.String(), fmt.Errorf("running %s in pod %s: %w: %s", strings.Join(command, " "), pod, err, stderr.String())
	}
	return stdout.String(), nil
}
