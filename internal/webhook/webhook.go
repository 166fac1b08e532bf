// Package webhook serves the conversion of EtcdClusters between the API's versions, and sees to it that the API server finds the
// server and trusts it. It does not depend on the operator's caches nor on its being the leader: a list of stored objects of an old
// version needs this very webhook.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// What the manifests in config name the same.
const (
	// CRD is the CustomResourceDefinition that is converted.
	CRD = "etcdclusters.operator.etcd-warden.io"
	// Path is where conversions are asked for.
	Path = "/convert"
	// ServiceName is also the name that OLM gives to the Service of the Deployment.
	ServiceName = "etcd-warden-controller-manager-service"
	// SecretName is the Secret of the certificate that the operator makes itself.
	SecretName = "etcd-warden-webhook-certificate"
	// OLMSecretName is the Secret of the certificate that OLM makes.
	OLMSecretName = ServiceName + "-cert"

	servicePort = 443
)

const (
	// syncTimeout is how long the API server may be away at the start.
	syncTimeout = time.Hour
	// How long after the API server's return the stanza is looked at again.
	quickestRetry = 20 * time.Millisecond
	slowestRetry  = 5 * time.Second
)

// Options say where the webhook serves, and which certificate it shows.
type Options struct {
	// Namespace of the operator, its Service and its Secret.
	Namespace string
	// OLM tells that OLM makes the certificate; otherwise the operator does.
	OLM bool
	// Host and Port to listen on; without a host on all addresses.
	Host string
	Port int
	// URL replaces the Service as the way from the API server to the webhook, where there are no Services.
	URL string
	// Handler converts.
	Handler http.Handler
	Events  events.EventRecorder
	// Wrap, if set, is put around the client that writes.
	Wrap func(client.Client) client.Client
	Now  func() time.Time
}

// Webhook is the server and what keeps it trusted.
type Webhook struct {
	server webhook.Server
	cache  cache.Cache
	loop   controller.Controller
	keeper *keeper
}

// New makes a webhook, which Start starts.
func New(config *rest.Config, o Options) (*Webhook, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{apiextensionsv1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("building the webhook's scheme: %w", err)
		}
	}
	// CRDs are large: as protobuf they are read many times faster than as JSON.
	if err := apiutil.AddToProtobufScheme(apiextensionsv1.AddToScheme); err != nil {
		return nil, fmt.Errorf("building the webhook's scheme: %w", err)
	}
	direct, err := client.New(config, client.Options{Scheme: scheme, FieldOwner: "etcd-warden"})
	if err != nil {
		return nil, fmt.Errorf("connecting the webhook: %w", err)
	}
	if o.Wrap != nil {
		direct = o.Wrap(direct)
	}
	watched, err := cache.New(config, cache.Options{Scheme: scheme, ByObject: map[client.Object]cache.ByObject{
		&apiextensionsv1.CustomResourceDefinition{}: {Field: fields.OneTermEqualSelector("metadata.name", CRD)},
	}})
	if err != nil {
		return nil, fmt.Errorf("setting up the webhook's watch: %w", err)
	}
	w := &Webhook{cache: watched, keeper: newKeeper(direct, watched, o)}
	w.server = webhook.NewServer(webhook.Options{Host: o.Host, Port: o.Port, TLSOpts: []func(*tls.Config){func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS12
		c.GetCertificate = w.keeper.certificate
	}}})
	w.server.Register(Path, o.Handler)
	return w, w.watch()
}

func newKeeper(direct client.Client, watched client.Reader, o Options) *keeper {
	service := ServiceName + "." + o.Namespace + ".svc"
	k := &keeper{
		client: direct, reader: watched, events: o.Events, now: o.Now,
		crd:     CRD,
		secret:  client.ObjectKey{Namespace: o.Namespace, Name: SecretName},
		olm:     o.OLM,
		target:  apiextensionsv1.WebhookClientConfig{Service: serviceReference(o.Namespace)},
		names:   []string{service},
		repairs: rate.NewLimiter(rate.Every(repairEvery), repairsAtOnce),
	}
	if o.OLM {
		k.secret.Name = OLMSecretName
	}
	if o.URL != "" {
		k.target = apiextensionsv1.WebhookClientConfig{URL: &o.URL}
		k.names = append(k.names, "localhost")
	}
	return k
}

func serviceReference(namespace string) *apiextensionsv1.ServiceReference {
	path, port := Path, int32(servicePort)
	return &apiextensionsv1.ServiceReference{Namespace: namespace, Name: ServiceName, Path: &path, Port: &port}
}

func (w *Webhook) watch() error {
	var err error
	w.loop, err = controller.NewUnmanaged("conversion", controller.Options{
		Reconciler:         w.keeper,
		CacheSyncTimeout:   syncTimeout,
		RateLimiter:        workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](quickestRetry, slowestRetry),
		SkipNameValidation: new(true), // tests run several in one process
	})
	if err != nil {
		return fmt.Errorf("setting up the webhook's loop: %w", err)
	}
	crds := source.Kind(w.cache, &apiextensionsv1.CustomResourceDefinition{}, &handler.TypedEnqueueRequestForObject[*apiextensionsv1.CustomResourceDefinition]{})
	if err := w.loop.Watch(crds); err != nil {
		return fmt.Errorf("setting up the webhook's watch: %w", err)
	}
	return nil
}

// Start serves until the context ends, or until something fails for good.
func (w *Webhook) Start(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for what, start := range map[string]func(context.Context) error{
		"serving conversions":            w.server.Start,
		"watching the CRD":               w.cache.Start,
		"keeping the conversion trusted": w.loop.Start,
	} {
		group.Go(func() error {
			if err := start(ctx); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// Ready is nil when the server shows a certificate that the API server was told to trust.
func (w *Webhook) Ready(request *http.Request) error {
	if !w.keeper.agreed.Load() {
		return errors.New("the API server was not told yet to trust the webhook")
	}
	return w.server.StartedChecker()(request)
}
