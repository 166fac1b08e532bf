// Command podset runs the controller of PodSets against the cluster of a kubeconfig.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/etcd-warden/etcd-warden/examples/podset/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/examples/podset/controller"
)

func main() {
	lease := flag.String("leader-election-namespace", "", "run in several copies, of which one works: the namespace of their Lease")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(*lease); err != nil {
		fmt.Fprintln(os.Stderr, "podset:", err)
		os.Exit(1)
	}
}

func run(lease string) error {
	scheme := runtime.NewScheme()
	config, err := ctrl.GetConfig()
	if err := errors.Join(err, clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		LeaderElection: lease != "", LeaderElectionID: "podset", LeaderElectionNamespace: lease,
	})
	if err != nil {
		return err
	}
	reconciler := &controller.Reconciler{Client: manager.GetClient(), Live: manager.GetAPIReader(), Events: manager.GetEventRecorder("podset")}
	if err := reconciler.SetupWithManager(manager); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
