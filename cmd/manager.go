package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	operatorsv2 "github.com/operator-framework/api/pkg/operators/v2"
	"github.com/prometheus/client_golang/prometheus"
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
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/act"
	"github.com/etcd-warden/etcd-warden/internal/comparison"
	etcdv3 "github.com/etcd-warden/etcd-warden/internal/etcd/v3"
	"github.com/etcd-warden/etcd-warden/internal/metrics"
	"github.com/etcd-warden/etcd-warden/internal/observe"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

const (
	// operatorConditionVariable is set by OLM to the name of the operator's OperatorCondition.
	operatorConditionVariable = "OPERATOR_CONDITION_NAME"
	// namespaceFile holds the namespace of the pod.
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

// leaderElectionID is the name of the lease in the operator's namespace.
const leaderElectionID = "etcd-warden.etcd-warden.io"

// gcPercent is how much the heap grows between two garbage collections, in percent of what lives; Go's default is 100.
// The caches live, and grow with the number of clusters. A pass leaves little garbage, so that more collections cost
// little. The environment variable GOGC overrides it.
const gcPercent = 40

// syncTimeout is how long the manager waits at the start for the API server and its conversions before it ends.
const syncTimeout = time.Hour

type options struct {
	metricsAddress   string
	probeAddress     string
	leaderElection   bool
	watchNamespaces  string
	concurrency      int
	freeze           bool
	maxDisruptions   int
	maxReplacements  int
	lifetimes        act.Lifetimes
	authorityOverlap time.Duration
	logging          zap.Options
	namespaces       map[string]cache.Config
	seesClusterScope bool
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("etcd-warden manager", flag.ContinueOnError)
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443",
		"address of the metrics over HTTPS; the API server authenticates and authorizes each reader; 0 turns them off")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flags.BoolVar(&o.leaderElection, "leader-elect", false,
		"work only while holding the lease, so that one of several replicas works")
	flags.StringVar(&o.watchNamespaces, "watch-namespaces", "",
		"namespaces to watch, separated by commas; Roles in them are enough. Empty: all namespaces")
	flags.IntVar(&o.concurrency, "concurrency", 16,
		"number of clusters that are reconciled at once")
	flags.DurationVar(&o.lifetimes.Certificate, "certificate-lifetime", 2160*time.Hour,
		"lifetime of the certificates that the operator issues; they are renewed after two thirds of it")
	flags.DurationVar(&o.lifetimes.Authority, "authority-lifetime", 87600*time.Hour,
		"lifetime of the certificate authorities that the operator creates; they are rotated after two thirds of it")
	flags.DurationVar(&o.authorityOverlap, "authority-overlap", 24*time.Hour,
		"time that clients have to trust a new certificate authority before it issues, and to load its certificates before the old authority is removed")
	flags.BoolVar(&o.freeze, "freeze-disruptions", false,
		"begin no step that may disturb members, in no cluster, and replace no lost member; the step under way is finished, and failed pods are restarted")
	flags.IntVar(&o.maxDisruptions, "max-disruptions", 10,
		"number of clusters in which steps that may disturb members are under way at once")
	flags.IntVar(&o.maxReplacements, "max-replacements", 3,
		"number of clusters in which a lost member is replaced at once")
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
	if o.maxDisruptions < 1 {
		return nil, errors.New("--max-disruptions must be at least 1; --freeze-disruptions keeps every step from beginning")
	}
	if o.maxReplacements < 1 {
		return nil, errors.New("--max-replacements must be at least 1; spec.recovery.memberReplacement.policy: Manual keeps a cluster from it")
	}
	if err := o.checkLifetimes(); err != nil {
		return nil, err
	}
	return o, o.parseNamespaces()
}

const (
	// minLifetime of a certificate leaves a third of it, the time between renewal and end, for the new one to
	// reach every pod.
	minLifetime = 5 * time.Minute
	// minOverlap is more than the kubelet takes to update a Secret in a pod.
	minOverlap = 2 * time.Minute
)

// checkLifetimes checks that a rotation fits into the last third of an authority's lifetime,
// and so does the lifetime of each certificate that was issued before the rotation.
func (o *options) checkLifetimes() error {
	certificate, authority := o.lifetimes.Certificate, o.lifetimes.Authority
	switch {
	case certificate < minLifetime:
		return fmt.Errorf("--certificate-lifetime is %s, and must be at least %s: "+
			"a renewed certificate takes minutes to reach every pod", certificate, minLifetime)
	case o.authorityOverlap < minOverlap:
		return fmt.Errorf("--authority-overlap is %s, and must be at least %s: "+
			"the kubelet takes up to that time to update a Secret in a pod", o.authorityOverlap, minOverlap)
	case authority < 3*certificate:
		return fmt.Errorf("--authority-lifetime is %s, and must be at least three times --certificate-lifetime, %s: "+
			"certificates must not outlive it", authority, 3*certificate)
	case authority < 12*o.authorityOverlap:
		return fmt.Errorf("--authority-lifetime is %s, and must be at least twelve times --authority-overlap, %s: "+
			"a rotation takes two overlaps and the restart of every member", authority, 12*o.authorityOverlap)
	}
	return nil
}

// parseNamespaces also decides whether cluster-scoped objects may be read: an operator of chosen namespaces
// only has Roles.
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
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
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
	ctrl.Log.Info("Starting etcd-warden", "version", Version, "namespaces", o.watchNamespaces)
	if err := mgr.Start(ctrl.SetupSignalHandler()); err != nil {
		return fmt.Errorf("running the manager: %w", err)
	}
	return nil
}

// newCache returns a cache that watches EtcdClusters once the API server can convert them.
func (o *options) newCache(config *rest.Config, cacheOptions cache.Options) (cache.Cache, error) {
	inner, err := cache.New(config, cacheOptions)
	if err != nil {
		return nil, err
	}
	direct, err := client.New(config, client.Options{Scheme: cacheOptions.Scheme})
	if err != nil {
		return nil, err
	}
	return webhook.WaitForConversion(inner, webhook.Lister(direct, slices.Collect(maps.Keys(o.namespaces)))), nil
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
	writes := &controllers.OwnWrites{}
	writer := writes.Through(instrument(mgr.GetClient()))
	port := etcdv3.New()
	comparisons := &comparison.Store{Etcd: port, Now: time.Now}
	observer := &observe.Observer{
		Reader: mgr.GetClient(), Live: mgr.GetAPIReader(), Etcd: port, Now: time.Now, SeesClusterScope: o.seesClusterScope,
		AuthorityOverlap: o.authorityOverlap,
		OperatorImage:    os.Getenv("OPERATOR_IMAGE"),
		Comparisons:      comparisons,
	}
	reconciler := &controllers.EtcdClusterReconciler{
		Client:   writer,
		Observer: observer,
		Actor: &act.Actor{
			Client: writer, Live: mgr.GetAPIReader(), Etcd: port, Endpoints: observer, Prober: port, FollowTime: act.FollowTime,
			Comparisons: comparisons, Lifetimes: o.lifetimes,
		},
		Events:      mgr.GetEventRecorder("etcd-warden"),
		Concurrency: o.concurrency,
		Writes:      writes,
		Pace:        o.pace(mgr, writer),
		Refusals:    metrics.NewRefusals(),
	}
	if err := registerMetrics(mgr, reconciler); err != nil {
		return err
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the EtcdCluster controller: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("setting up /healthz: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("setting up /readyz: %w", err)
	}
	return setUpOperatorCondition(mgr)
}

// registerMetrics adds the operator's metrics to those of controller-runtime.
func registerMetrics(mgr ctrl.Manager, r *controllers.EtcdClusterReconciler) error {
	clusters := &metrics.Collector{
		Reader: mgr.GetClient(), Validities: r.Observer.Validities, Elected: mgr.Elected(), Now: time.Now,
	}
	for _, collector := range []prometheus.Collector{clusters, r.Refusals} {
		if err := ctrlmetrics.Registry.Register(collector); err != nil {
			return fmt.Errorf("setting up the metrics: %w", err)
		}
	}
	return nil
}

// pace limits the voluntary steps. An operator outside of a cluster has no namespace to remember roll backs in.
func (o *options) pace(mgr ctrl.Manager, writer client.Client) *act.Pace {
	namespace, err := ownNamespace()
	if err != nil {
		ctrl.Log.Info("Members that had to go back are counted in memory only", "cause", err.Error())
	}
	return &act.Pace{
		Clusters: mgr.GetClient(), Live: mgr.GetAPIReader(), Frozen: o.freeze, Max: o.maxDisruptions, MaxReplacements: o.maxReplacements,
		RollBacks: &act.RollBacks{Live: mgr.GetAPIReader(), Client: writer, Namespace: namespace},
	}
}

// setUpOperatorCondition adds the controller that tells OLM whether the operator may be replaced now.
// It does nothing where OLM did not install the operator.
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

func ownNamespace() (string, error) {
	name, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "", fmt.Errorf("finding the operator's namespace: %w", err)
	}
	return strings.TrimSpace(string(name)), nil
}
