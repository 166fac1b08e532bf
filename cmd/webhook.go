package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/etcd-warden/etcd-warden/internal/conversion"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

// shutdownDelay is how long the webhook serves after it was told to end.
// Until then every node has removed the pod from the Service's endpoints.
const shutdownDelay = 5 * time.Second

// certificateIssuer is who issues the webhook's certificate.
type certificateIssuer string

const (
	// issuerAuto means OLM where OLM installed the webhook, and the webhook itself elsewhere.
	issuerAuto certificateIssuer = "auto"
	issuerSelf certificateIssuer = "self"
	issuerOLM  certificateIssuer = "olm"
)

// webhookOptions are the flags of `etcd-warden webhook`.
type webhookOptions struct {
	port         int
	probeAddress string
	issuer       certificateIssuer
	logging      zap.Options
}

func parseWebhookOptions(args []string) (*webhookOptions, error) {
	o := &webhookOptions{}
	var issuer string
	flags := flag.NewFlagSet("etcd-warden webhook", flag.ContinueOnError)
	flags.IntVar(&o.port, "port", 9443, "port of the conversion webhook")
	flags.StringVar(&issuer, "certificate-issuer", string(issuerAuto), "who issues the webhook's certificate: self, olm, "+
		"or auto, which is olm where "+operatorConditionVariable+" is set and self elsewhere")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	o.logging.BindFlags(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	switch o.issuer = certificateIssuer(issuer); o.issuer {
	case issuerSelf, issuerOLM:
	case issuerAuto:
		o.issuer = issuerSelf
		if os.Getenv(operatorConditionVariable) != "" {
			o.issuer = issuerOLM
		}
	default:
		return nil, fmt.Errorf("--certificate-issuer is %q, and must be auto, self or olm", issuer)
	}
	return o, nil
}

// runWebhook runs the conversion webhook.
func runWebhook(args []string) error {
	o, err := parseWebhookOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&o.logging)))
	namespace, err := ownNamespace()
	if err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	// This manager has no controllers: it serves the probes, sends the events and runs the webhook.
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: o.probeAddress,
	})
	if err != nil {
		return fmt.Errorf("setting up the manager: %w", err)
	}
	hook, err := webhook.New(config, webhook.Options{
		Namespace: namespace,
		OLM:       o.issuer == issuerOLM,
		Port:      o.port,
		Handler:   conversion.Handler(),
		Events:    mgr.GetEventRecorder("etcd-warden"),
		Wrap:      instrument,
		Now:       time.Now,

		ShutdownDelay: shutdownDelay,
	})
	if err != nil {
		return fmt.Errorf("setting up the webhook: %w", err)
	}
	if err := mgr.Add(hook); err != nil {
		return fmt.Errorf("setting up the webhook: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("setting up /healthz: %w", err)
	}
	if err := mgr.AddReadyzCheck("webhook", hook.Ready); err != nil {
		return fmt.Errorf("setting up /readyz: %w", err)
	}
	ctrl.Log.Info("Starting the conversion webhook", "version", Version, "certificateIssuer", o.issuer)
	if err := mgr.Start(ctrl.SetupSignalHandler()); err != nil {
		return fmt.Errorf("running the webhook: %w", err)
	}
	return nil
}
