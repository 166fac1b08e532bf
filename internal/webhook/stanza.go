package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// stanza is the CRD's conversion as it has to be, so that the API server finds the webhook and trusts the authorities.
// It depends on nothing but the one Secret that all operators share, the old and the new one of an upgrade too: they never fight.
func stanza(target apiextensionsv1.WebhookClientConfig, authorities []byte) *apiextensionsv1.CustomResourceConversion {
	clientConfig := target.DeepCopy()
	clientConfig.CABundle = bytes.Clone(authorities)
	return &apiextensionsv1.CustomResourceConversion{
		Strategy: apiextensionsv1.WebhookConverter,
		Webhook: &apiextensionsv1.WebhookConversion{
			ClientConfig:             clientConfig,
			ConversionReviewVersions: []string{"v1"},
		},
	}
}

// replacement is a patch that writes the stanza, and nothing else, over that of one version of the CRD. A patch made of two CRDs would
// be the same and cost many times more: a CRD is large.
func replacement(resourceVersion string, want *apiextensionsv1.CustomResourceConversion) (client.Patch, error) {
	target := want.Webhook.ClientConfig
	raw, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": resourceVersion},
		"spec": map[string]any{"conversion": map[string]any{
			"strategy": want.Strategy,
			"webhook": map[string]any{
				"clientConfig":             map[string]any{"service": target.Service, "url": target.URL, "caBundle": target.CABundle},
				"conversionReviewVersions": want.Webhook.ConversionReviewVersions,
			},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the conversion: %w", err)
	}
	return client.RawPatch(types.MergePatchType, raw), nil
}

// bundleOf is what the API server is told to trust.
func bundleOf(crd *apiextensionsv1.CustomResourceDefinition) []byte {
	c := crd.Spec.Conversion
	if c == nil || c.Webhook == nil || c.Webhook.ClientConfig == nil {
		return nil
	}
	return c.Webhook.ClientConfig.CABundle
}

// fault says in a few words what is wrong with the CRD's conversion; nothing if it is as it has to be.
func fault(have, want *apiextensionsv1.CustomResourceConversion) string {
	switch {
	case equality.Semantic.DeepEqual(have, want):
		return ""
	case have == nil || have.Strategy != want.Strategy || have.Webhook == nil || have.Webhook.ClientConfig == nil:
		return "it called no webhook"
	case len(have.Webhook.ClientConfig.CABundle) == 0:
		return "it named no authority"
	case !bytes.Equal(have.Webhook.ClientConfig.CABundle, want.Webhook.ClientConfig.CABundle):
		return "it named another authority"
	default:
		return "it called another webhook"
	}
}
