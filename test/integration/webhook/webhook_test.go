//go:build integration

package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
	"github.com/etcd-warden/etcd-warden/internal/pki"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
	"github.com/etcd-warden/etcd-warden/internal/webhook/webhooktest"
)

func TestReadsAndWritesBothVersions(t *testing.T) {
	l := newLab(t)
	l.serve(l.options())
	for _, object := range []client.Object{newAlpha("old"), newBeta("new")} {
		l.create(object)
		must(t, both(t.Context(), object.GetName()))
	}
	for key, version := range l.stored(t.Context(), "/registry/operator.etcd-warden.io/etcdclusters") {
		if version != "v1beta1" {
			t.Errorf("%s is stored as %s", key, version)
		}
	}
}

// overwritten are ways to break the CRD's spec.conversion.
var overwritten = map[string]func(*apiextensionsv1.CustomResourceConversion){
	"no webhook": func(c *apiextensionsv1.CustomResourceConversion) {
		*c = apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
	},
	"no authority": func(c *apiextensionsv1.CustomResourceConversion) { c.Webhook.ClientConfig.CABundle = nil },
	"another authority": func(c *apiextensionsv1.CustomResourceConversion) {
		c.Webhook.ClientConfig.CABundle = webhooktest.Secret([]string{"localhost"}, time.Now())["ca.crt"]
	},
	"the Service of the bundle": func(c *apiextensionsv1.CustomResourceConversion) {
		path, port := "/convert", int32(443)
		c.Webhook.ClientConfig = &apiextensionsv1.WebhookClientConfig{
			Service: &apiextensionsv1.ServiceReference{Namespace: "system", Name: "webhook-service", Path: &path, Port: &port},
		}
	},
	"another version of the review": func(c *apiextensionsv1.CustomResourceConversion) {
		c.Webhook.ConversionReviewVersions = []string{"v1", "v1beta1"}
	},
}

func TestRepairsAnOverwrittenConversionAtOnce(t *testing.T) {
	l := newLab(t)
	p := l.serve(l.options())
	l.create(newAlpha("prod"))
	must(t, both(t.Context(), "prod"))
	want := getCRD(t).Spec.Conversion
	for name, spoil := range overwritten {
		t.Run(name, func(t *testing.T) {
			spoiling := time.Now()
			changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) { spoil(crd.Spec.Conversion) })
			begin := time.Now()
			t.Logf("the overwriting itself took %v", begin.Sub(spoiling))
			eventually(t, "spec.conversion is right", func() error { return isConversion(t, want) })
			took := time.Since(begin)
			eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
			t.Logf("right after %v, both versions after %v", took, time.Since(begin))
			if event := <-p.events.Events; !strings.Contains(event, v1beta1.EventConversionRepaired) {
				t.Errorf("event %q, want %s", event, v1beta1.EventConversionRepaired)
			}
		})
	}
}

func isConversion(t *testing.T, want *apiextensionsv1.CustomResourceConversion) error {
	t.Helper()
	have := getCRD(t).Spec.Conversion
	if have.Strategy != want.Strategy || have.Webhook == nil ||
		!bytes.Equal(have.Webhook.ClientConfig.CABundle, want.Webhook.ClientConfig.CABundle) ||
		(have.Webhook.ClientConfig.Service == nil) != (want.Webhook.ClientConfig.Service == nil) ||
		len(have.Webhook.ConversionReviewVersions) != 1 {
		return fmt.Errorf("it is %+v", have)
	}
	return nil
}

// TestRepairsOnceWithTwoReplicas overwrites spec.conversion beside two replicas. It is then written once.
func TestRepairsOnceWithTwoReplicas(t *testing.T) {
	l := newLab(t)
	pods := []*pod{l.serve(l.options()), l.start(l.options())}
	l.awaitReady(pods[1])
	want := getCRD(t)
	const times = 10
	for range times {
		changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) {
			crd.Spec.Conversion.Webhook.ClientConfig.CABundle = nil
		})
		eventually(t, "spec.conversion is right", func() error { return isConversion(t, want.Spec.Conversion) })
	}
	if writes := getCRD(t).Generation - want.Generation; writes != 2*times {
		t.Errorf("spec.conversion was written %d times, want %d: as often as it was overwritten, and the overwriting", writes, 2*times)
	}
	for _, p := range pods {
		for len(p.events.Events) > 0 {
			if event := <-p.events.Events; strings.Contains(event, v1beta1.EventConversionNotRepaired) {
				t.Errorf("the slower replica reported a failure: %s", event)
			}
		}
	}
}

// TestPausesRepairsWhileAnotherClientKeepsOverwriting bounds what two writers cost the API server.
func TestPausesRepairsWhileAnotherClientKeepsOverwriting(t *testing.T) {
	l := newLab(t)
	p := l.serve(l.options())
	eventually(t, "the webhook warns", func() error {
		changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) {
			if crd.Spec.Conversion.Webhook.ClientConfig.CABundle != nil {
				crd.Spec.Conversion.Webhook.ClientConfig.CABundle = nil
			}
		})
		for {
			select {
			case event := <-p.events.Events:
				if strings.Contains(event, v1beta1.EventConversionNotRepaired) && strings.Contains(event, "keeps overwriting") {
					return nil
				}
			default:
				return errors.New("no such event")
			}
		}
	})
}

// TestStartsWorkAsSoonAsTheWebhookIsReady stores clusters as v1alpha1, so the manager's first list needs the webhook.
// The list has to follow as soon as the webhook can be reached.
func TestStartsWorkAsSoonAsTheWebhookIsReady(t *testing.T) {
	l := newLab(t)
	l.storeAs("v1alpha1")
	l.create(newAlpha("prod"))
	l.storeAs("v1beta1")
	l.expectStored("prod", "v1alpha1")

	p := l.start(l.options())
	l.awaitReady(p)
	lists := &atomic.Int64{}
	o := l.startManager(lists)
	eventually(t, "the manager's list fails", func() error {
		if lists.Load() < 2 {
			return errors.New("it does not")
		}
		return nil
	})
	must(t, p.Ready(nil))
	l.service.backend.Store(&p.address)
	begin := time.Now()
	o.awaitReconcile("prod")
	t.Logf("the manager saw the cluster %v after the webhook could be reached", time.Since(begin))
}

// TestStopsAManagerThatWaitsForTheWebhook would hang if the manager waited for its caches.
func TestStopsAManagerThatWaitsForTheWebhook(t *testing.T) {
	l := newLab(t)
	l.storeAs("v1alpha1")
	must(t, admin.Create(t.Context(), newAlpha("prod")))
	l.storeAs("v1beta1")
	lists := &atomic.Int64{}
	o := l.startManager(lists)
	eventually(t, "the manager's list fails", func() error {
		if lists.Load() == 0 {
			return errors.New("it does not")
		}
		return nil
	})
	select {
	case err := <-o.stop():
		must(t, err)
	case <-time.After(patience):
		t.Error("it does not end")
	}
}

// operator is a manager as cmd creates it, whose only controller reconciles clusters and does nothing.
type operator struct {
	*testing.T
	manager ctrl.Manager
	seen    chan string
	cancel  func()
	ended   chan error
}

// startManager starts a manager and counts its lists.
func (l *lab) startManager(lists *atomic.Int64) *operator {
	l.Helper()
	mgr, err := ctrl.NewManager(managerConfig, ctrl.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		Controller:             ctrlconfig.Controller{CacheSyncTimeout: time.Hour, SkipNameValidation: new(true)},
		NewCache: func(config *rest.Config, o cache.Options) (cache.Cache, error) {
			inner, err := cache.New(config, o)
			if err != nil {
				return nil, err
			}
			direct, err := client.New(config, client.Options{Scheme: o.Scheme})
			if err != nil {
				return nil, err
			}
			list := webhook.Lister(direct, nil)
			return webhook.WaitForConversion(inner, func(ctx context.Context) error {
				lists.Add(1)
				return list(ctx)
			}), nil
		},
	})
	must(l.T, err)
	o := &operator{T: l.T, manager: mgr, seen: make(chan string, 1000), ended: make(chan error, 1)}
	must(l.T, ctrl.NewControllerManagedBy(mgr).For(&v1beta1.EtcdCluster{}).Complete(reconcile.Func(
		func(_ context.Context, request ctrl.Request) (ctrl.Result, error) {
			o.seen <- request.Name
			return ctrl.Result{}, nil
		})))
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	go func() {
		o.ended <- mgr.Start(ctx)
		close(o.ended)
	}()
	l.Cleanup(func() {
		if err := <-o.stop(); err != nil {
			l.Errorf("the manager ended: %v", err)
		}
	})
	return o
}

func (o *operator) stop() <-chan error {
	o.cancel()
	return o.ended
}

// awaitReconcile waits until the manager reconciles a cluster.
func (o *operator) awaitReconcile(name string) {
	o.Helper()
	deadline := time.After(patience)
	for {
		select {
		case seen := <-o.seen:
			if seen == name {
				return
			}
		case <-deadline:
			o.Fatalf("the manager never reconciled %s", name)
		}
	}
}

func TestOnlyRefusesTheOldVersionWhileTheWebhookIsDown(t *testing.T) {
	l := newLab(t)
	p := l.serve(l.options())
	l.create(newBeta("prod"))
	eventually(t, "the API server asks the webhook", func() error { return both(t.Context(), "prod") })
	o := l.startManager(&atomic.Int64{})
	o.awaitReconcile("prod")
	mgr := o.manager
	seen := func() (*v1beta1.EtcdCluster, error) {
		c := &v1beta1.EtcdCluster{}
		return c, mgr.GetClient().Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "prod"}, c)
	}

	must(t, p.end())
	l.service.backend.Store(nil)
	var refusal error
	eventually(t, "a write in v1alpha1 is refused", func() error {
		if refusal = admin.Create(t.Context(), newAlpha("other")); refusal == nil {
			return errors.New("it was not")
		}
		return nil
	})
	if !webhook.IsConversion(refusal) || !strings.Contains(webhook.Explain(refusal).Error(), webhook.ServiceName) {
		t.Errorf("the refusal does not name its cause: %v", webhook.Explain(refusal))
	}
	c, err := seen()
	must(t, err)
	c.Status.Leader = "prod-1"
	must(t, mgr.GetClient().Status().Update(t.Context(), c))
	eventually(t, "the operator sees its own write", func() error {
		if c, err = seen(); err == nil && c.Status.Leader != "prod-1" {
			err = errors.New("it does not")
		}
		return err
	})

	again := l.serve(l.options())
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	must(t, again.Ready(nil))
}

// TestConvertsWhileTheManagerOrOneReplicaIsDown stops the manager, then one of two replicas. No request fails.
func TestConvertsWhileTheManagerOrOneReplicaIsDown(t *testing.T) {
	l := newLab(t)
	options := l.options()
	options.ShutdownDelay = 2 * time.Second
	first := l.serve(options)
	second := l.start(l.options())
	l.awaitReady(second)
	l.create(newAlpha("prod"))
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	o := l.startManager(&atomic.Int64{})
	o.awaitReconcile("prod")
	client := l.keepRequesting("prod")

	must(t, <-o.stop())
	must(t, both(t.Context(), "prod"))
	l.service.backend.Store(&second.address) // kube-proxy does this before the first replica stops serving
	must(t, first.end())
	must(t, both(t.Context(), "prod"))
	must(t, second.Ready(nil))
	again := l.startManager(&atomic.Int64{})
	again.awaitReconcile("prod")
	if tries, failed, err := client.result(); failed > 0 {
		t.Errorf("of %d tries some failed, for %v together, the last with: %v", tries, failed, err)
	}
}

// TestConvertsWhileLargeBodiesAreSent sends large bodies to the webhook again and again.
// No request of the API server fails.
func TestConvertsWhileLargeBodiesAreSent(t *testing.T) {
	const attackers, size, wanted = 8, 30 << 20, 20
	l := newLab(t)
	p := l.serve(l.options())
	l.create(newAlpha("prod"))
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	attack, stop := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	var refused atomic.Int64
	attacker := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for range attackers {
		ended.Go(func() {
			for attack.Err() == nil {
				body := io.NopCloser(bytes.NewReader(make([]byte, size)))
				request, err := http.NewRequestWithContext(attack, http.MethodPost, "https://"+p.address+webhook.Path, body)
				if err != nil {
					panic(err)
				}
				if response, err := attacker.Do(request); err == nil {
					response.Body.Close()
				}
				refused.Add(1)
			}
		})
	}
	for range wanted {
		if err := both(t.Context(), "prod"); err != nil {
			t.Errorf("during the attack: %v", err)
		}
	}
	stop()
	ended.Wait()
	if refused.Load() < attackers {
		t.Errorf("only %d bodies were sent", refused.Load())
	}
}

// secretOf reads the webhook's own Secret.
func (l *lab) secretOf() *corev1.Secret {
	l.Helper()
	secret := &corev1.Secret{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: webhook.SecretName}, secret))
	return secret
}

// names are those of the webhook's certificate here.
func (l *lab) names() []string {
	return []string{webhook.ServiceName + "." + l.namespace + ".svc", "localhost"}
}

// createSecret creates the Secret that a webhook left earlier.
func (l *lab) createSecret(data map[string][]byte) {
	l.Helper()
	must(l.T, admin.Create(l.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.namespace, Name: webhook.SecretName, Labels: map[string]string{"app.kubernetes.io/managed-by": "etcd-warden"},
		},
		Data: data,
	}))
}

// aged is a Secret whose authority is due, and whose certificate is not.
func (l *lab) aged() map[string][]byte {
	data := webhooktest.Secret(l.names(), time.Now().AddDate(-7, 0, 0))
	return webhooktest.Reissue(data, l.names(), time.Now())
}

// TestReplacesAnAuthorityWithoutAFailedRequest starts a second pod whose clock is ahead. It replaces the authority.
func TestReplacesAnAuthorityWithoutAFailedRequest(t *testing.T) {
	l := newLab(t)
	old := webhooktest.Reissue(webhooktest.Secret(l.names(), time.Now().AddDate(-6, -6, 0)), l.names(), time.Now())
	l.createSecret(old)
	p := l.serve(l.options())
	l.create(newAlpha("prod"))
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	client := l.keepRequesting("prod")

	ahead := l.options()
	ahead.Now = func() time.Time { return time.Now().AddDate(0, 4, 0) }
	l.awaitReady(l.start(ahead))
	secret := &corev1.Secret{}
	eventually(t, "the CRD names both authorities", func() error {
		secret = l.secretOf()
		identities, err := pki.Identities(secret.Data["ca.crt"])
		if err != nil || len(identities) != 2 || !bytes.Equal(getCRD(t).Spec.Conversion.Webhook.ClientConfig.CABundle, secret.Data["ca.crt"]) {
			return fmt.Errorf("the Secret has %d authorities, %w", len(identities), err)
		}
		return nil
	})
	if !bytes.Equal(secret.Data["tls.crt"], old["tls.crt"]) {
		t.Error("the certificate was replaced together with the authority")
	}
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	must(t, p.Ready(nil))
	tries, failed, err := client.result()
	t.Logf("%d tries", tries)
	if failed > 0 {
		t.Errorf("reads and writes failed for %v, the last with: %v", failed, err)
	}
}

func TestNeverWritesAForeignSecret(t *testing.T) {
	l := newLab(t)
	foreign := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: webhook.SecretName},
		StringData: map[string]string{"password": "x"},
	}
	must(t, admin.Create(t.Context(), foreign))
	p := l.start(l.options())
	if err := p.Ready(nil); err == nil {
		t.Fatal("it is ready")
	}
	must(t, admin.Delete(t.Context(), foreign, client.Preconditions{ResourceVersion: &foreign.ResourceVersion}))
	l.awaitReady(p)
}

// errDead is what a webhook gets that has crashed.
var errDead = errors.New("this webhook has crashed")

// TestFinishesWhatACrashedReplicaBegan records the writes, then crashes before and after each of them.
func TestFinishesWhatACrashedReplicaBegan(t *testing.T) {
	for name, prepare := range map[string]func(*lab){
		"at the first start":              func(*lab) {},
		"when the authority is due":       func(l *lab) { l.createSecret(l.aged()) },
		"when the certificate is due":     func(l *lab) { l.createSecret(webhooktest.Secret(l.names(), time.Now().AddDate(0, -9, 0))) },
		"when the certificate is expired": func(l *lab) { l.createSecret(webhooktest.Secret(l.names(), time.Now().AddDate(-2, 0, 0))) },
	} {
		t.Run(name, func(t *testing.T) {
			writes := crashAt(t, prepare, nil, false)
			if len(writes) == 0 {
				t.Fatal("nothing was written")
			}
			t.Logf("writes: %v", writes)
			for i := range writes {
				for _, before := range []bool{true, false} {
					t.Run(fmt.Sprintf("before=%t of %s", before, writes[i]), func(t *testing.T) { crashAt(t, prepare, &writes[i], before) })
				}
			}
		})
	}
}

func crashAt(t *testing.T, prepare func(*lab), at *failpoint.Write, before bool) []failpoint.Write {
	l := newLab(t)
	prepare(l)
	var writes []failpoint.Write
	died := make(chan struct{})
	die := func(w failpoint.Write, now bool) error {
		select {
		case <-died:
			return errDead
		default:
		}
		if at == nil || w != *at || now != before {
			return nil
		}
		close(died)
		return errDead
	}
	o := l.options()
	o.Wrap = func(c client.Client) client.Client {
		return failpoint.Wrap(c, failpoint.Hooks{
			Before: func(w failpoint.Write) error {
				writes = append(writes, w)
				return die(w, true)
			},
			After: func(w failpoint.Write, err error) error { return errors.Join(die(w, false), err) },
		})
	}
	p := l.start(o)
	if at != nil {
		<-died
		must(t, p.end())
		p = l.start(l.options())
	}
	l.awaitReady(p)
	l.service.backend.Store(&p.address)
	l.create(newAlpha("prod"))
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	must(t, p.end())
	return writes
}

// storeAs changes the CRD's storage version, and returns when the API server obeys.
func (l *lab) storeAs(version string) {
	l.Helper()
	changeCRD(l.T, func(crd *apiextensionsv1.CustomResourceDefinition) {
		for i := range crd.Spec.Versions {
			crd.Spec.Versions[i].Storage = crd.Spec.Versions[i].Name == version
		}
		crd.Spec.Conversion = asInstalled()
	})
	eventually(l.T, "the API server stores "+version, func() error {
		probe := newAlpha("probe")
		if version == "v1beta1" {
			if err := admin.Create(l.Context(), newBeta("probe")); err != nil {
				return err
			}
		} else if err := admin.Create(l.Context(), probe); err != nil {
			return err
		}
		stored := l.storedAs("probe")
		if _, err := store.Delete(l.Context(), keyOf("probe")); err != nil {
			return err
		}
		if stored != version {
			return fmt.Errorf("it stores %s", stored)
		}
		return nil
	})
}

func keyOf(name string) string {
	return "/registry/operator.etcd-warden.io/etcdclusters/default/" + name
}

func (l *lab) storedAs(name string) string {
	l.Helper()
	return l.stored(l.Context(), "/registry/operator.etcd-warden.io/etcdclusters")[keyOf(name)]
}

func (l *lab) expectStored(name, version string) {
	l.Helper()
	if have := l.storedAs(name); have != version {
		l.Errorf("%s is stored as %q, want %s", name, have, version)
	}
}
