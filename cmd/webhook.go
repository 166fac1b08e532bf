package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/etcd-warden/etcd-warden/internal/conversion"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

const (
	// operatorConditionVariable is set by OLM to the name of the operator's OperatorCondition.
	operatorConditionVariable = "OPERATOR_CONDITION_NAME"
	// namespaceFile names the namespace of the pod.
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	// lastService is how long the webhook serves on after it was told to end: until no request comes to this pod any more.
	lastService = 5 * time.Second
)

// certificateSource is where the webhook's certificate comes from.
type certificateSource string

const (
	fromEnvironment certificateSource = "auto"
	fromOperator    certificateSource = "self"
	fromOLM         certificateSource = "olm"
	fromNowhere     certificateSource = "none"
)

// webhookOptions are the flags of the webhook.
type webhookOptions struct {
	port        int
	certificate string
}

func (o *webhookOptions) bind(flags *flag.FlagSet) {
	flags.IntVar(&o.port, "webhook-port", 9443, "port of the conversion webhook")
	flags.StringVar(&o.certificate, "webhook-certificate", string(fromEnvironment), "who makes the conversion webhook's certificate: self (the operator), olm, or none, and then there is no webhook. "+
		"auto: none with --watch-namespaces, olm where "+operatorConditionVariable+" is set, self elsewhere")
}

// source decides what auto stands for.
func (o *webhookOptions) source(watchNamespaces string) (certificateSource, error) {
	switch source := certificateSource(o.certificate); source {
	case fromOperator, fromOLM, fromNowhere:
		return source, nil
	case fromEnvironment:
		switch {
		case watchNamespaces != "":
			return fromNowhere, nil
		case os.Getenv(operatorConditionVariable) != "":
			return fromOLM, nil
		default:
			return fromOperator, nil
		}
	default:
		return "", fmt.Errorf("--webhook-certificate: %q is none of auto, self, olm, none", o.certificate)
	}
}

// newWebhook sets the webhook up and has the manager's readiness tell of it; it is nil where there is none.
func newWebhook(mgr ctrl.Manager, o webhookOptions, source certificateSource) (*webhook.Webhook, error) {
	if source == fromNowhere {
		return nil, mgr.AddReadyzCheck("ping", healthz.Ping)
	}
	namespace, err := ownNamespace()
	if err != nil {
		return nil, fmt.Errorf("%w; outside a pod, write --webhook-certificate=none", err)
	}
	hook, err := webhook.New(mgr.GetConfig(), webhook.Options{
		Namespace: namespace,
		OLM:       source == fromOLM,
		Port:      o.port,
		Handler:   conversion.Handler(),
		Events:    mgr.GetEventRecorder("etcd-warden"),
		Wrap:      instrument,
		Now:       time.Now,
	})
	if err != nil {
		return nil, err
	}
	return hook, mgr.AddReadyzCheck("webhook", hook.Ready)
}

func ownNamespace() (string, error) {
	name, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "", fmt.Errorf("finding the operator's namespace: %w", err)
	}
	return strings.TrimSpace(string(name)), nil
}

// starter runs until its context ends.
type starter interface {
	Start(ctx context.Context) error
}

// serve runs the manager, and beside it the webhook. The webhook outlives the manager by a while: it has no lease that others wait
// for, and requests come until everybody knows that this pod goes away. If either fails, both end.
func serve(ctx context.Context, mgr, hook starter, after time.Duration) error {
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	managing, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- hook.Start(serving)
		stop()
	}()
	err := mgr.Start(managing)
	if ctx.Err() != nil {
		select {
		case <-time.After(after):
		case hookErr := <-ended:
			return errors.Join(err, hookErr)
		}
	}
	end()
	return errors.Join(err, <-ended)
}

// runWebhook runs the webhook alone, for operators that watch some namespaces with Roles alone.
func runWebhook(args []string) error {
	var o webhookOptions
	var probeAddress string
	var logging zap.Options
	flags := flag.NewFlagSet("etcd-warden webhook", flag.ContinueOnError)
	o.bind(flags)
	flags.StringVar(&probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	logging.BindFlags(flags)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	source, err := o.source("")
	if err != nil {
		return err
	}
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: probeAddress})
	if err != nil {
		return fmt.Errorf("setting up the manager: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("setting up /healthz: %w", err)
	}
	hook, err := newWebhook(mgr, o, source)
	if err != nil {
		return fmt.Errorf("setting up the webhook: %w", err)
	}
	ctrl.Log.Info("Starting the conversion webhook", "version", Version, "certificate", source)
	if hook == nil {
		return errors.New("--webhook-certificate=none leaves nothing to do")
	}
	return serve(ctrl.SetupSignalHandler(), mgr, hook, lastService)
}
