package webhook

import (
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/etcd-warden/etcd-warden/internal/pki"
)

func TestNamesTheDifferenceOfAConversion(t *testing.T) {
	data, _ := mustRenew(t, nil, start)
	target := apiextensionsv1.WebhookClientConfig{Service: serviceReference("here")}
	want := desiredConversion(target, data[pki.TLSKeys.Authorities])
	other := "other"
	otherService := apiextensionsv1.WebhookClientConfig{Service: serviceReference("there")}
	for have, wrong := range map[*apiextensionsv1.CustomResourceConversion]string{
		nil: "it named no webhook",
		{Strategy: apiextensionsv1.NoneConverter}:                                                          "it named no webhook",
		desiredConversion(target, nil):                                                                     "its caBundle was empty",
		desiredConversion(target, []byte("another")):                                                       "its caBundle was of another authority",
		desiredConversion(otherService, data[pki.TLSKeys.Authorities]):                                     "it named another webhook",
		desiredConversion(apiextensionsv1.WebhookClientConfig{URL: &other}, data[pki.TLSKeys.Authorities]): "it named another webhook",
		want.DeepCopy(): "",
	} {
		if got := difference(have, want); got != wrong {
			t.Errorf("difference(%v) = %q, want %q", have, got, wrong)
		}
	}
}
