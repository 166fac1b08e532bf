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

// mostUnavailable is what issue and documentation promise for a whole upgrade.
const mostUnavailable = 2 * time.Second

// olm plays OLM: it makes the certificate, and has the API server trust it.
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

// trust writes the conversion stanza as an install of the CSV does.
func (o olm) trust(authority []byte) {
	o.Helper()
	url := o.door.url()
	changeCRD(o.T, func(crd *apiextensionsv1.CustomResourceDefinition) {
		crd.Spec.Conversion = asInstalled()
		crd.Spec.Conversion.Webhook.ClientConfig = &apiextensionsv1.WebhookClientConfig{URL: &url, CABundle: authority}
	})
}

func (o olm) deleteCertificate() {
	o.Helper()
	must(o.T, admin.Delete(o.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: webhook.OLMSecretName}}))
}

// expectBundle fails unless the CRD names exactly the authority: OLM compares its bytes, and installs again when they differ.
func (o olm) expectBundle(authority []byte) {
	o.Helper()
	eventually(o.T, "the CRD names OLM's authority", func() error {
		if have := getCRD(o.T).Spec.Conversion.Webhook.ClientConfig.CABundle; !bytes.Equal(have, authority) {
			return fmt.Errorf("it names %d bytes, want %d", len(have), len(authority))
		}
		return nil
	})
}

// TestAnUpgradeByOLMHardlyInterruptsAnybody does to the CRD and the Secret what OLM does in an upgrade from one release with the
// webhook to the next: the InstallPlan overwrites the stanza; the new CSV writes it again; the old CSV takes the Secret with it when it goes;
// and OLM, which misses the Secret, makes another authority and writes the stanza once more.
func TestAnUpgradeByOLMHardlyInterruptsAnybody(t *testing.T) {
	o := olm{newLab(t)}
	authority := o.certificate()
	o.trust(authority)
	old := o.serve(o.options())
	o.create(newAlpha("prod"))
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })
	someone := o.tryAgainAndAgain("prod")

	changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) { crd.Spec.Conversion = asInstalled() })
	o.expectBundle(authority)
	o.trust(authority)
	young := o.start(o.options())
	o.awaitReady(young)
	o.door.backend.Store(&young.address)
	must(t, old.end())
	o.deleteCertificate()
	another := o.certificate()
	o.trust(another)
	o.expectBundle(another)
	last := o.start(o.options())
	o.awaitReady(last)
	o.door.backend.Store(&last.address)
	must(t, young.end())
	eventually(t, "both versions work", func() error { return both(t.Context(), "prod") })

	tries, failed, err := someone.result()
	t.Logf("of %d tries some failed, for %v together, the last with: %v", tries, failed, err)
	if failed > mostUnavailable {
		t.Errorf("reads and writes failed for %v, want at most %v", failed, mostUnavailable)
	}
}

func TestOLMsSecretIsNeverWritten(t *testing.T) {
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

// TestWhileOLMsSecretIsAwayTheStanzaIsStillRepaired has the InstallPlan and the garbage collector come one upon the other.
func TestWhileOLMsSecretIsAwayTheStanzaIsStillRepaired(t *testing.T) {
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

// TestASecretWithoutAnAuthorityIsExplained has somebody else's Secret stand where OLM's is expected.
func TestASecretWithoutAnAuthorityIsNoCertificate(t *testing.T) {
	o := olm{newLab(t)}
	must(t, admin.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: webhook.OLMSecretName},
		Data:       webhooktest.Secret(o.names(), time.Now()),
	}))
	p := o.start(o.options())
	generation := getCRD(t).Generation
	eventually(t, "the webhook listens", func() error {
		err := p.Ready(nil)
		if err == nil || !strings.Contains(err.Error(), "was not told yet") {
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
