// Command bench measures the operator, most of it on the cluster of KUBECONFIG, which hack/bench.sh prepares.
// It prints its figures last, a line each: "figure NAME VALUE UNIT".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

const usage = `usage: bench create | day2 | idle | conversion | fleet | hash

  create       from kubectl apply to three voters that serve a linearizable read: this operator against a plain StatefulSet
  day2         rolls, growth, upgrades and lost members: how long they take, and how long no write is acknowledged;
               RUNS=5 PAIRS=30 MIB=100 WATCHES=100, and FIGURES=NAME,NAME for some of the figures
  idle         requests of the operator to the API server in five minutes of rest, its lease apart
  conversion   ConversionReviews over HTTPS of one object and of 10,000, against an endpoint that echoes them; it needs no cluster
  fleet        300 clusters (CLUSTERS=) created at once against an API server without kubelets, which it starts itself
  hash         how long a member answers nothing while it computes the hash of 1 and 2 GiB, on an etcd that it starts itself; RUNS=5
`

// lab is the cluster that is measured on.
type lab struct {
	client.Client
	clientset *kubernetes.Clientset
	config    *rest.Config
	namespace string
	version   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case slices.Equal(args, []string{"conversion"}):
		return benchConversion(ctx)
	case slices.Equal(args, []string{"fleet"}):
		return benchFleet(ctx)
	case slices.Equal(args, []string{"hash"}):
		return benchHash(ctx)
	}
	benches := map[string]func(context.Context, *lab) error{"create": benchCreate, "day2": benchDay2, "idle": benchIdle}
	if len(args) != 1 || benches[args[0]] == nil {
		fmt.Fprint(os.Stderr, usage)
		return fmt.Errorf("name a benchmark")
	}
	l, err := newLab("bench-" + args[0])
	if err != nil {
		return err
	}
	if err := l.makeNamespace(ctx); err != nil {
		return err
	}
	return benches[args[0]](ctx, l)
}

func newLab(namespace string) (*lab, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 200, 200
	c, err := newClient(config)
	if err != nil {
		return nil, err
	}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	version := os.Getenv("ETCD_VERSION")
	if version == "" {
		return nil, fmt.Errorf("ETCD_VERSION is not set: run hack/bench.sh")
	}
	return &lab{Client: c, clientset: clientset, config: config, namespace: namespace, version: version}, nil
}

func newClient(config *rest.Config) (client.Client, error) {
	scheme := clientgoscheme.Scheme
	if err := v1beta1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: scheme})
}

// atLeastOne reads a number from an environment variable, which may be unset.
func atLeastOne(name string, unset int) (int, error) {
	text := os.Getenv(name)
	if text == "" {
		return unset, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s=%s is no number of at least 1", name, text)
	}
	return n, nil
}

func figure(name string, value float64, unit string) {
	fmt.Printf("figure %s %.4g %s\n", name, value, unit)
}
