package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	operatorsv2 "github.com/operator-framework/api/pkg/operators/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/act"
	etcdv3 "github.com/etcd-warden/etcd-warden/internal/etcd/v3"
	"github.com/etcd-warden/etcd-warden/internal/observe"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

// leaderElectionID names the lease; it lives in the operator's own namespace.
const leaderElectionID = "etcd-warden.etcd-warden.io"

// syncTimeout is how long the API server may be away, or not reach the webhook, before the operator gives up.
const syncTimeout = time.Hour

type options struct {
	metricsAddress   string
	probeAddress     string
	leaderElection   bool
	watchNamespaces  string
	concurrency      int
	webhook          webhookOptions
	certificate      certificateSource
	lifetimes        act.Lifetimes
	authorityOverlap time.Duration
	logging          zap.Options
	namespaces       map[string]cache.Config
	seesClusterScope bool
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("etcd-warden manager", flag.ContinueOnError)
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443", "address of the metrics, over HTTPS, for those whom the API server authenticates and authorizes; 0 turns them off")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flags.BoolVar(&o.leaderElection, "leader-elect", false, "act only while holding the lease, so that of several replicas one acts")
	flags.StringVar(&o.watchNamespaces, "watch-namespaces", "", "namespaces to watch, separated by commas; Roles in them are enough then. Empty: all")
	flags.IntVar(&o.concurrency, "concurrency", 16, "how many clusters are worked on at once")
	o.webhook.bind(flags)
	flags.DurationVar(&o.lifetimes.Certificate, "certificate-lifetime", 2160*time.Hour, "how long the certificates are valid that the operator issues; they are renewed when two thirds of it are over")
	flags.DurationVar(&o.lifetimes.Authority, "authority-lifetime", 87600*time.Hour, "how long the certificate authorities are valid that the operator makes; they are rotated when two thirds of it are over")
	flags.DurationVar(&o.authorityOverlap, "authority-overlap", 24*time.Hour, "how long clients get to trust a new certificate authority before it issues, and to take up its certificates before the old one is forgotten")
	o.logging.BindFlags(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if o.concurrency < 1 {
		return nil, errors.New("--concurrency must be at least 1")
	}
	if err := o.checkLifetimes(); err != nil {
		return nil, err
	}
	var err error
	if o.certificate, err = o.webhook.source(o.watchNamespaces); err != nil {
		return nil, err
	}
	return o, o.parseNamespaces()
}

// shortestLifetime leaves a renewed certificate, in the last third of the life of the one before, the time to reach every pod.
const shortestLifetime = 5 * time.Minute

// shortestOverlap is more than the kubelet takes to bring a changed Secret into a pod.
const shortestOverlap = 2 * time.Minute

// checkLifetimes has the last third of an authority's life hold a rotation, and the life of a certificate that was issued before it.
func (o *options) checkLifetimes() error {
	certificate, authority := o.lifetimes.Certificate, o.lifetimes.Authority
	switch {
	case certificate < shortestLifetime:
		return fmt.Errorf("--certificate-lifetime is %s, and must be at least %s: a renewed certificate takes minutes to reach every pod", certificate, shortestLifetime)
	case o.authorityOverlap < shortestOverlap:
		return fmt.Errorf("--authority-overlap is %s, and must be at least %s: the kubelet takes as long to bring a changed Secret into a pod", o.authorityOverlap, shortestOverlap)
	case authority < 3*certificate:
		return fmt.Errorf("--authority-lifetime is %s, and must be at least three times --certificate-lifetime, %s: certificates must not outlive it", authority, 3*certificate)
	case authority < 12*o.authorityOverlap:
		return fmt.Errorf("--authority-lifetime is %s, and must be at least twelve times --authority-overlap, %s: a rotation takes two overlaps and the restart of every member", authority, 12*o.authorityOverlap)
	}
	return nil
}

// parseNamespaces also decides whether cluster-scoped facts may be read: an operator of some namespaces has Roles alone.
func (o *options) parseNamespaces() error {
	o.seesClusterScope = o.watchNamespaces == ""
	if o.seesClusterScope {
		return nil
	}
	o.namespaces = map[string]cache.Config{}
	for name := range strings.SplitSeq(o.watchNamespaces, ",") {
		if faults := validation.IsDNS1123Label(name); len(faults) > 0 {
			return fmt.Errorf("--watch-namespaces: %q is not a namespace: %s", name, strings.Join(faults, "; "))
		}
		o.namespaces[name] = cache.Config{}
	}
	return nil
}

func runManager(args []string) error {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&o.logging)))
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         controllers.CacheOptions(o.namespaces),
		NewCache:                      o.newCache,
		Metrics:                       metricsOptions(o),
		HealthProbeBindAddress:        o.probeAddress,
		LeaderElection:                o.leaderElection,
		LeaderElectionID:              leaderElectionID,
		LeaderElectionReleaseOnCancel: true,
		Controller:                    ctrlconfig.Controller{CacheSyncTimeout: syncTimeout},
	})
	if err != nil {
		return fmt.Errorf("setting up the manager: %w", err)
	}
	if err := setUp(mgr, o); err != nil {
		return err
	}
	hook, err := newWebhook(mgr, o.webhook, o.certificate)
	if err != nil {
		return fmt.Errorf("setting up the webhook: %w", err)
	}
	ctrl.Log.Info("Starting etcd-warden", "version", Version, "namespaces", o.watchNamespaces, "certificate", o.certificate)
	ctx := ctrl.SetupSignalHandler()
	if hook == nil {
		err = mgr.Start(ctx)
	} else {
		err = serve(ctx, mgr, hook, lastService)
	}
	if err != nil {
		return fmt.Errorf("running the manager: %w", err)
	}
	return nil
}

// newCache makes a cache that waits until the webhook can be reached.
func (o *options) newCache(config *rest.Config, cacheOptions cache.Options) (cache.Cache, error) {
	inner, err := cache.New(config, cacheOptions)
	if err != nil {
		return nil, err
	}
	direct, err := client.New(config, client.Options{Scheme: cacheOptions.Scheme})
	if err != nil {
		return nil, err
	}
	return webhook.Patient(inner, webhook.Lister(direct, slices.Collect(maps.Keys(o.namespaces)))), nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme, apiextensionsv1.AddToScheme, operatorsv2.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	return scheme, nil
}

func setUp(mgr ctrl.Manager, o *options) error {
	writer := instrument(mgr.GetClient())
	reconciler := &controllers.EtcdClusterReconciler{
		Client: writer,
		Observer: &observe.Observer{
			Reader: mgr.GetClient(), Live: mgr.GetAPIReader(), Etcd: etcdv3.New(), Now: time.Now, SeesClasses: o.seesClusterScope,
			AuthorityOverlap: o.authorityOverlap,
		},
		Actor:       &act.Actor{Client: writer, Live: mgr.GetAPIReader(), Lifetimes: o.lifetimes},
		Events:      mgr.GetEventRecorder("etcd-warden"),
		Concurrency: o.concurrency,
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the EtcdCluster controller: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("setting up /healthz: %w", err)
	}
	return setUpOperatorCondition(mgr)
}

// setUpOperatorCondition has OLM told whether the operator may be replaced, where OLM says that it listens.
func setUpOperatorCondition(mgr ctrl.Manager) error {
	name := os.Getenv(operatorConditionVariable)
	if name == "" {
		return nil
	}
	namespace, err := ownNamespace()
	if err != nil {
		return fmt.Errorf("finding the OperatorCondition: %w", err)
	}
	reconciler := &controllers.OperatorConditionReconciler{
		Client: instrument(mgr.GetClient()), Live: mgr.GetAPIReader(), Key: client.ObjectKey{Namespace: namespace, Name: name},
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the OperatorCondition controller: %w", err)
	}
	return nil
}

func metricsOptions(o *options) metricsserver.Options {
	return metricsserver.Options{
		BindAddress:    o.metricsAddress,
		SecureServing:  true,
		FilterProvider: filters.WithAuthenticationAndAuthorization,
		TLSOpts:        []func(*tls.Config){func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 }},
	}
}
