//go:build integration

package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
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

func TestBothVersionsCanBeReadAndWritten(t *testing.T) {
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

// overwritten are ways in which somebody spoils the CRD's conversion.
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

func TestAnOverwrittenStanzaIsPutRightAtOnce(t *testing.T) {
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
			eventually(t, "the stanza is right", func() error { return isStanza(t, want) })
			took := time.Since(begin)
			eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
			t.Logf("right after %v, both versions after %v", took, time.Since(begin))
			if event := <-p.events.Events; !strings.Contains(event, v1beta1.EventConversionRepaired) {
				t.Errorf("event %q, want %s", event, v1beta1.EventConversionRepaired)
			}
		})
	}
}

func isStanza(t *testing.T, want *apiextensionsv1.CustomResourceConversion) error {
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

// TestTwoOperatorsDoNotFight runs the old and the new pod of an upgrade beside each other: each time that the stanza is overwritten,
// it is written once more and no more.
func TestTwoOperatorsDoNotFight(t *testing.T) {
	l := newLab(t)
	l.serve(l.options())
	l.awaitReady(l.start(l.options()))
	want := getCRD(t)
	const times = 10
	for range times {
		changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) {
			crd.Spec.Conversion.Webhook.ClientConfig.CABundle = nil
		})
		eventually(t, "the stanza is right", func() error { return isStanza(t, want.Spec.Conversion) })
	}
	if writes := getCRD(t).Generation - want.Generation; writes != 2*times {
		t.Errorf("the stanza was written %d times, want %d: as often as it was overwritten, and the overwriting", writes, 2*times)
	}
}

// TestWhoOverwritesAgainAndAgainIsNotFoughtForever bounds what two programs that want different things cost the API server.
func TestWhoOverwritesAgainAndAgainIsNotFoughtForever(t *testing.T) {
	l := newLab(t)
	p := l.serve(l.options())
	eventually(t, "the operator complains", func() error {
		changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) {
			if crd.Spec.Conversion.Webhook.ClientConfig.CABundle != nil {
				crd.Spec.Conversion.Webhook.ClientConfig.CABundle = nil
			}
		})
		for {
			select {
			case event := <-p.events.Events:
				if strings.Contains(event, v1beta1.EventConversionNotRepaired) && strings.Contains(event, "again and again") {
					return nil
				}
			default:
				return errors.New("no such event")
			}
		}
	})
}

// TestAReadinessThatWaitsForNoCache has clusters stored as v1alpha1, so that the operator's first list needs the webhook, which
// nobody reaches before it is ready. The list then has to follow at once.
func TestTheFirstListFollowsTheReadinessOfTheWebhook(t *testing.T) {
	l := newLab(t)
	l.storeAs("v1alpha1")
	l.create(newAlpha("prod"))
	l.storeAs("v1beta1")
	l.expectStored("prod", "v1alpha1")

	p := l.start(l.options())
	l.awaitReady(p)
	lists := &atomic.Int64{}
	o := l.startOperator(lists)
	eventually(t, "the operator asks in vain", func() error {
		if lists.Load() < 2 {
			return errors.New("it does not")
		}
		return nil
	})
	must(t, p.Ready(nil))
	l.door.backend.Store(&p.address)
	begin := time.Now()
	o.awaitSight("prod")
	t.Logf("the operator saw the cluster %v after the webhook could be reached", time.Since(begin))
}

// TestAnOperatorThatWaitsForTheWebhookCanBeStopped would hang if the manager's caches were to wait.
func TestAnOperatorThatWaitsForTheWebhookCanBeStopped(t *testing.T) {
	l := newLab(t)
	l.storeAs("v1alpha1")
	must(t, admin.Create(t.Context(), newAlpha("prod")))
	l.storeAs("v1beta1")
	lists := &atomic.Int64{}
	o := l.startOperator(lists)
	eventually(t, "the operator asks in vain", func() error {
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

// operator is a manager as cmd makes it, whose one controller looks at clusters and does nothing.
type operator struct {
	*testing.T
	manager ctrl.Manager
	seen    chan string
	cancel  func()
	ended   chan error
}

// startOperator starts an operator and counts its lists.
func (l *lab) startOperator(lists *atomic.Int64) *operator {
	l.Helper()
	mgr, err := ctrl.NewManager(operatorConfig, ctrl.Options{
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
			return webhook.Patient(inner, func(ctx context.Context) error {
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

// awaitSight waits until the operator looks at a cluster.
func (o *operator) awaitSight(name string) {
	o.Helper()
	deadline := time.After(patience)
	for {
		select {
		case seen := <-o.seen:
			if seen == name {
				return
			}
		case <-deadline:
			o.Fatalf("the operator never looked at %s", name)
		}
	}
}

func TestAWebhookThatIsDownBlocksWritesOfTheOldVersionAndNoMore(t *testing.T) {
	l := newLab(t)
	p := l.serve(l.options())
	l.create(newBeta("prod"))
	eventually(t, "the API server asks the webhook", func() error { return both(t.Context(), "prod") })
	o := l.startOperator(&atomic.Int64{})
	o.awaitSight("prod")
	mgr := o.manager
	seen := func() (*v1beta1.EtcdCluster, error) {
		c := &v1beta1.EtcdCluster{}
		return c, mgr.GetClient().Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "prod"}, c)
	}

	must(t, p.end())
	l.door.backend.Store(nil)
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

// secretOf is the operator's own Secret.
func (l *lab) secretOf() *corev1.Secret {
	l.Helper()
	secret := &corev1.Secret{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: webhook.SecretName}, secret))
	return secret
}

// names are what the API server may call the webhook here.
func (l *lab) names() []string {
	return []string{webhook.ServiceName + "." + l.namespace + ".svc", "localhost"}
}

// createSecret is what an operator of another year left.
func (l *lab) createSecret(data map[string][]byte) {
	l.Helper()
	must(l.T, admin.Create(l.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.namespace, Name: webhook.SecretName, Labels: map[string]string{"app.kubernetes.io/managed-by": "etcd-warden"},
		},
		Data: data,
	}))
}

// aged is the Secret of an operator whose authority is due, and whose certificate is not.
func (l *lab) aged() map[string][]byte {
	data := webhooktest.Secret(l.names(), time.Now().AddDate(-7, 0, 0))
	return webhooktest.Reissue(data, l.names(), time.Now())
}

// TestAnAuthorityIsReplacedWithoutAnyInterruption has a second pod, whose clock is ahead, replace the authority while somebody reads and writes.
func TestAnAuthorityIsReplacedWithoutAnyInterruption(t *testing.T) {
	l := newLab(t)
	old := webhooktest.Reissue(webhooktest.Secret(l.names(), time.Now().AddDate(-6, -6, 0)), l.names(), time.Now())
	l.createSecret(old)
	p := l.serve(l.options())
	l.create(newAlpha("prod"))
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	someone := l.tryAgainAndAgain("prod")

	ahead := l.options()
	ahead.Now = func() time.Time { return time.Now().AddDate(0, 4, 0) }
	l.awaitReady(l.start(ahead))
	secret := &corev1.Secret{}
	eventually(t, "the API server is told of both authorities", func() error {
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
	tries, failed, err := someone.result()
	t.Logf("%d tries", tries)
	if failed > 0 {
		t.Errorf("reads and writes failed for %v, the last with: %v", failed, err)
	}
}

func TestASecretOfSomebodyElseIsLeftAlone(t *testing.T) {
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

// errDead is what an operator gets that has died.
var errDead = errors.New("this operator is dead")

// TestAnOperatorThatCrashesAroundAnyWriteIsFinishedByTheNext records the writes, then plays it again for each moment around each.
func TestAnOperatorThatCrashesAroundAnyWriteIsFinishedByTheNext(t *testing.T) {
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
	l.door.backend.Store(&p.address)
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
