//go:build integration

package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/webhook"
	"github.com/etcd-warden/etcd-warden/internal/webhook/webhooktest"
)

// mostUnavailable is five times what the documentation promises for a whole upgrade: other suites share the machine.
// The suite with Operator Lifecycle Manager itself measures the time.
const mostUnavailable = 10 * time.Second

// olm does what OLM does: it issues the certificate and writes the caBundle.
type olm struct{ *lab }

func (o olm) options() webhook.Options {
	options := o.lab.options()
	options.OLM = true
	return options
}

// certificate makes a Secret with a new authority, or replaces the data of the one that is there.
func (o olm) certificate() (authority []byte) {
	o.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: webhook.OLMSecretName},
		Data:       webhooktest.OLMSecret(o.names(), time.Now()),
	}
	err := admin.Create(o.Context(), secret)
	if err != nil {
		must(o.T, admin.Update(o.Context(), secret))
	}
	return secret.Data["olmCAKey"]
}

// trust writes spec.conversion as the install of a CSV does.
func (o olm) trust(authority []byte) {
	o.Helper()
	url := o.service.url()
	changeCRD(o.T, func(crd *apiextensionsv1.CustomResourceDefinition) {
		crd.Spec.Conversion = asInstalled()
		crd.Spec.Conversion.Webhook.ClientConfig = &apiextensionsv1.WebhookClientConfig{URL: &url, CABundle: authority}
	})
}

func (o olm) deleteCertificate() {
	o.Helper()
	must(o.T, admin.Delete(o.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: webhook.OLMSecretName}}))
}

// expectBundle fails unless the CRD names exactly the authority: OLM compares its bytes, and installs again
// when they differ.
func (o olm) expectBundle(authority []byte) {
	o.Helper()
	eventually(o.T, "the CRD names OLM's authority", func() error {
		if have := getCRD(o.T).Spec.Conversion.Webhook.ClientConfig.CABundle; !bytes.Equal(have, authority) {
			return fmt.Errorf("it names %d bytes, want %d", len(have), len(authority))
		}
		return nil
	})
}

// TestFailsForSecondsAtMostInAnUpgradeByOLM does to CRD and Secret what OLM does in an upgrade to the next
// release:
//
//  1. The InstallPlan overwrites spec.conversion.
//  2. The new CSV writes it again.
//  3. The old CSV is deleted, and the Secret with it.
//  4. OLM creates another authority and Secret, and writes spec.conversion once more.
func TestFailsForSecondsAtMostInAnUpgradeByOLM(t *testing.T) {
	o := olm{newLab(t)}
	authority := o.certificate()
	o.trust(authority)
	old := o.serve(o.options())
	o.create(newAlpha("prod"))
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	client := o.keepRequesting("prod")

	changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) { crd.Spec.Conversion = asInstalled() })
	o.expectBundle(authority)
	o.trust(authority)
	young := o.start(o.options())
	o.awaitReady(young)
	o.service.backend.Store(&young.address)
	must(t, old.end())
	o.deleteCertificate()
	another := o.certificate()
	o.trust(another)
	o.expectBundle(another)
	last := o.start(o.options())
	o.awaitReady(last)
	o.service.backend.Store(&last.address)
	must(t, young.end())
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })

	tries, failed, err := client.result()
	t.Logf("of %d tries some failed, for %v together, the last with: %v", tries, failed, err)
	if failed > mostUnavailable {
		t.Errorf("reads and writes failed for %v, want at most %v", failed, mostUnavailable)
	}
}

func TestNeverWritesOLMsSecret(t *testing.T) {
	o := olm{newLab(t)}
	p := o.start(o.options())
	if err := p.Ready(nil); err == nil {
		t.Fatal("it is ready without a certificate")
	}
	authority := o.certificate()
	o.awaitReady(p)
	o.expectBundle(authority)
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: o.namespace, Name: webhook.OLMSecretName}
	must(t, admin.Get(t.Context(), key, secret))
	written := secret.ResourceVersion
	o.trust(nil)
	o.expectBundle(authority)
	must(t, admin.Get(t.Context(), key, secret))
	if secret.ResourceVersion != written {
		t.Error("the Secret was written")
	}
	var own corev1.Secret
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: o.namespace, Name: webhook.SecretName}, &own); err == nil {
		t.Error("the operator made a Secret of its own")
	}
}

// TestRepairsTheConversionWhileOLMsSecretIsMissing lets an InstallPlan follow the deletion of the Secret.
func TestRepairsTheConversionWhileOLMsSecretIsMissing(t *testing.T) {
	o := olm{newLab(t)}
	authority := o.certificate()
	p := o.serve(o.options())
	o.deleteCertificate()
	o.trust(nil)
	o.expectBundle(authority)
	o.create(newAlpha("prod"))
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	must(t, p.Ready(nil))
}

// TestWaitsForASecretWithAnAuthority creates a Secret without OLM's authority under the name of OLM's.
func TestWaitsForASecretWithAnAuthority(t *testing.T) {
	o := olm{newLab(t)}
	must(t, admin.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: webhook.OLMSecretName},
		Data:       webhooktest.Secret(o.names(), time.Now()),
	}))
	p := o.start(o.options())
	generation := getCRD(t).Generation
	eventually(t, "the webhook listens", func() error {
		err := p.Ready(nil)
		if err == nil || !strings.Contains(err.Error(), "does not name the authority") {
			return errors.New("it does not")
		}
		return nil
	})
	if getCRD(t).Generation != generation {
		t.Error("the CRD was changed")
	}
	o.certificate()
	o.awaitReady(p)
}
