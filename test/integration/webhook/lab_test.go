//go:build integration

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/conversion"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

const etcdVersion = "3.6.16"

// lab is the namespace of a webhook, and the Service in front of it.
type lab struct {
	*testing.T
	namespace string
	service   *service
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{T: t, namespace: newNamespace(t), service: newService(t)}
	l.clear()
	changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) { crd.Spec.Conversion = asInstalled() })
	return l
}

// asInstalled is spec.conversion of the manifests, without a caBundle.
func asInstalled() *apiextensionsv1.CustomResourceConversion {
	path, port := webhook.Path, int32(443)
	return &apiextensionsv1.CustomResourceConversion{
		Strategy: apiextensionsv1.WebhookConverter,
		Webhook: &apiextensionsv1.WebhookConversion{
			ClientConfig: &apiextensionsv1.WebhookClientConfig{Service: &apiextensionsv1.ServiceReference{
				Namespace: "etcd-warden-system", Name: webhook.ServiceName, Path: &path, Port: &port,
			}},
			ConversionReviewVersions: []string{"v1"},
		},
	}
}

// clear removes what an earlier test left, without asking for a conversion.
func (l *lab) clear() {
	ctx := context.Background()
	prefix := "/registry/operator.etcd-warden.io/etcdclusters/"
	for key := range l.stored(ctx, prefix) {
		if _, err := store.Delete(ctx, key); err != nil {
			l.Error(err)
		}
	}
}

// service stands for the Service in front of the webhook's pods. The API server connects to it.
type service struct {
	listener net.Listener
	// backend is the address of the pod that is ready; nil for none.
	backend atomic.Pointer[string]
}

func newService(t *testing.T) *service {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	d := &service{listener: listener}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go d.pass(connection)
		}
	}()
	return d
}

func (d *service) pass(connection net.Conn) {
	defer connection.Close()
	address := d.backend.Load()
	if address == nil {
		return
	}
	inside, err := net.Dial("tcp", *address)
	if err != nil {
		return
	}
	defer inside.Close()
	go func() {
		_, _ = io.Copy(inside, connection)
		inside.Close()
	}()
	_, _ = io.Copy(connection, inside)
}

func (d *service) url() string {
	return fmt.Sprintf("https://localhost:%d%s", d.listener.Addr().(*net.TCPAddr).Port, webhook.Path)
}

// pod is one replica of the webhook.
type pod struct {
	*webhook.Webhook
	address string
	events  *events.FakeRecorder
	end     func() error
}

// options are those of a new pod; change them before start.
func (l *lab) options() webhook.Options {
	l.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(l.T, err)
	must(l.T, free.Close())
	return webhook.Options{
		Namespace: l.namespace,
		Host:      "127.0.0.1",
		Port:      free.Addr().(*net.TCPAddr).Port,
		URL:       l.service.url(),
		Handler:   conversion.Handler(),
		Events:    events.NewFakeRecorder(1000),
		Now:       time.Now,
	}
}

// start starts a pod that the Service does not use yet. It ends with the test, or earlier.
func (l *lab) start(o webhook.Options) *pod {
	l.Helper()
	hook, err := webhook.New(webhookConfig, o)
	must(l.T, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- hook.Start(ctx) }()
	var over error
	var done bool
	p := &pod{Webhook: hook, address: fmt.Sprintf("127.0.0.1:%d", o.Port), events: o.Events.(*events.FakeRecorder)}
	p.end = func() error {
		if !done {
			cancel()
			over, done = <-ended, true
		}
		return over
	}
	l.Cleanup(func() {
		if err := p.end(); err != nil {
			l.Errorf("the webhook ended: %v", err)
		}
	})
	return p
}

// serve starts a pod. The Service uses it as soon as it is ready.
func (l *lab) serve(o webhook.Options) *pod {
	l.Helper()
	p := l.start(o)
	l.awaitReady(p)
	l.service.backend.Store(&p.address)
	return p
}

func (l *lab) awaitReady(p *pod) {
	l.Helper()
	eventually(l.T, "the webhook is ready", func() error { return p.Ready(nil) })
}

func newAlpha(name string) *v1alpha1.EtcdCluster {
	return &v1alpha1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       v1alpha1.EtcdClusterSpec{Size: 3, Version: etcdVersion},
	}
}

func newBeta(name string) *v1beta1.EtcdCluster {
	return &v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       v1beta1.EtcdClusterSpec{Replicas: 3, Version: etcdVersion},
	}
}

// create makes a cluster, as soon as the API server uses the webhook.
// A first try may store the cluster and fail to return it.
func (l *lab) create(object client.Object) {
	l.Helper()
	eventually(l.T, "a cluster is created", func() error {
		err := admin.Create(l.Context(), object)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// readBoth reads a cluster in either version.
func readBoth(ctx context.Context, name string) error {
	key := client.ObjectKey{Namespace: "default", Name: name}
	alpha, beta := &v1alpha1.EtcdCluster{}, &v1beta1.EtcdCluster{}
	if err := admin.Get(ctx, key, alpha); err != nil {
		return fmt.Errorf("reading v1alpha1: %w", err)
	}
	if err := admin.Get(ctx, key, beta); err != nil {
		return fmt.Errorf("reading v1beta1: %w", err)
	}
	if alpha.Spec.Size != 3 || beta.Spec.Replicas != 3 {
		return fmt.Errorf("read %d and %d members, want 3", alpha.Spec.Size, beta.Spec.Replicas)
	}
	return nil
}

// writeBoth writes a cluster in either version.
func writeBoth(ctx context.Context, name string) error {
	alpha, beta := newAlpha(name), newBeta(name)
	for _, object := range []client.Object{alpha, beta} {
		patch := fmt.Sprintf(`{"metadata":{"annotations":{"example.com/written":%q}}}`, time.Now().String())
		if err := admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			return fmt.Errorf("writing %T: %w", object, err)
		}
	}
	return nil
}

func both(ctx context.Context, name string) error {
	return errors.Join(readBoth(ctx, name), writeBoth(ctx, name))
}

// requests counts for how long the requests of a client failed.
type requests struct {
	stop func()
	done chan struct{}

	tries  int
	failed time.Duration
	last   error
}

// keepRequesting starts a client that reads and writes a cluster in both versions a hundred times a second.
func (l *lab) keepRequesting(name string) *requests {
	ctx, cancel := context.WithCancel(context.Background())
	u := &requests{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			begin := time.Now()
			err := both(ctx, name)
			if ctx.Err() != nil {
				return
			}
			u.tries++
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			if err != nil {
				u.failed += time.Since(begin)
				u.last = err
			}
		}
	}()
	l.Cleanup(u.end)
	return u
}

func (u *requests) end() {
	u.stop()
	<-u.done
}

// result ends the client and tells how often it tried, and for how long it failed.
func (u *requests) result() (tries int, failed time.Duration, last error) {
	u.end()
	return u.tries, u.failed, u.last
}

// stored are the objects in the API server's etcd, with the version that they are stored in.
func (l *lab) stored(ctx context.Context, prefix string) map[string]string {
	l.Helper()
	all, err := store.Get(ctx, strings.TrimSuffix(prefix, "/")+"/", clientv3.WithPrefix())
	must(l.T, err)
	versions := map[string]string{}
	for _, kv := range all.Kvs {
		var object metav1.TypeMeta
		must(l.T, json.Unmarshal(kv.Value, &object))
		versions[string(kv.Key)] = strings.TrimPrefix(object.APIVersion, "operator.etcd-warden.io/")
	}
	return versions
}
