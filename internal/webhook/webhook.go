// Package webhook serves the conversion of EtcdClusters between the API's versions.
// It also keeps the CRD's spec.conversion right, so that the API server finds the server and trusts it.
// It runs in its own Deployment and needs neither the manager's caches nor its lease.
// The manager needs the webhook to list objects that are stored in an older version.
//
//	webhook.go                 wires the parts
//	server.go                  the TLS server and its timeouts
//	connections.go, limits.go  how many connections, how large bodies, how much memory
//	certificate_controller.go  keeps Secret, CRD and served certificate consistent
//	secret.go                  what the Secret holds, and when it is renewed
//	crd_conversion.go          what the CRD's spec.conversion has to be
//	wait_for_conversion.go     for the manager: wait until the API server can convert
package webhook

import (
	"context"
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
)

// Names that the manifests in config use, too.
const (
	// CRD is the CustomResourceDefinition that is converted.
	CRD = "etcdclusters.operator.etcd-warden.io"
	// Path is the path of conversion requests.
	Path = "/convert"
	// DeploymentName is the webhook's Deployment.
	DeploymentName = "etcd-warden-webhook"
	// ServiceName is the name that OLM gives to the Service of the Deployment. The other installations use it, too.
	ServiceName = DeploymentName + "-service"
	// SecretName is the Secret of the certificate that the webhook issues itself.
	SecretName = "etcd-warden-webhook-certificate"
	// OLMSecretName is the Secret of the certificate that OLM issues.
	OLMSecretName = ServiceName + "-cert"

	servicePort = 443
)

const (
	// syncTimeout is how long the API server may be unreachable at the start.
	syncTimeout = time.Hour
	// minRetryDelay and maxRetryDelay bound the delay after a failed reconcile.
	minRetryDelay = 20 * time.Millisecond
	maxRetryDelay = 5 * time.Second
)

// Options say where the webhook serves, and which certificate it shows.
type Options struct {
	// Namespace of the webhook, its Service and its Secret.
	Namespace string
	// OLM says that OLM issues the certificate. Otherwise the webhook does.
	OLM bool
	// Host and Port to listen on. An empty host means all addresses.
	Host string
	Port int
	// URL replaces the Service in the CRD, where there are no Services.
	URL string
	// ShutdownDelay is how long the webhook serves after it was told to end.
	ShutdownDelay time.Duration
	// Handler converts.
	Handler http.Handler
	Events  events.EventRecorder
	// Wrap, if set, is put around the client that writes.
	Wrap func(client.Client) client.Client
	Now  func() time.Time
}

// Webhook is the server and the controller of its certificate.
type Webhook struct {
	server      *server
	cache       cache.Cache
	controller  controller.Controller
	certificate *certificateController
}

// New returns a webhook, which Start starts.
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
	certificate := newCertificateController(direct, watched, o)
	w := &Webhook{
		server: newServer(o, certificate.getCertificate),
		cache:  watched, certificate: certificate,
	}
	return w, w.watch()
}

func newCertificateController(direct client.Client, watched client.Reader, o Options) *certificateController {
	c := &certificateController{
		client: direct, reader: watched, events: o.Events, now: o.Now,
		crd:       CRD,
		secret:    client.ObjectKey{Namespace: o.Namespace, Name: SecretName},
		olmSecret: o.OLM,
		target:    apiextensionsv1.WebhookClientConfig{Service: serviceReference(o.Namespace)},
		names:     []string{ServiceName + "." + o.Namespace + ".svc"},
		repairs:   rate.NewLimiter(rate.Every(repairInterval), repairBurst),
	}
	if o.OLM {
		c.secret.Name = OLMSecretName
	}
	if o.URL != "" {
		c.target = apiextensionsv1.WebhookClientConfig{URL: &o.URL}
		c.names = append(c.names, "localhost")
	}
	return c
}

func serviceReference(namespace string) *apiextensionsv1.ServiceReference {
	path, port := Path, int32(servicePort)
	return &apiextensionsv1.ServiceReference{Namespace: namespace, Name: ServiceName, Path: &path, Port: &port}
}

func (w *Webhook) watch() error {
	var err error
	w.controller, err = controller.NewUnmanaged("conversion", controller.Options{
		Reconciler:         w.certificate,
		CacheSyncTimeout:   syncTimeout,
		RateLimiter:        workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](minRetryDelay, maxRetryDelay),
		SkipNameValidation: new(true), // tests run several in one process
	})
	if err != nil {
		return fmt.Errorf("setting up the webhook's controller: %w", err)
	}
	enqueue := &handler.TypedEnqueueRequestForObject[*apiextensionsv1.CustomResourceDefinition]{}
	if err := w.controller.Watch(source.Kind(w.cache, &apiextensionsv1.CustomResourceDefinition{}, enqueue)); err != nil {
		return fmt.Errorf("setting up the webhook's watch: %w", err)
	}
	return nil
}

// Start serves until the context ends, or until a part fails.
func (w *Webhook) Start(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for what, start := range map[string]func(context.Context) error{
		"serving conversions":                  w.server.Start,
		"watching the CRD":                     w.cache.Start,
		"running the certificate's controller": w.controller.Start,
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

// Ready returns nil when the server listens and the CRD names the authority of its certificate.
func (w *Webhook) Ready(*http.Request) error {
	if !w.certificate.caBundleInstalled.Load() {
		return errors.New("the CRD does not name the authority of the webhook's certificate yet")
	}
	if !w.server.isListening.Load() {
		return errors.New("the webhook does not listen yet")
	}
	return nil
}
