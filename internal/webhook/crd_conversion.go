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

// desiredConversion is the CRD's spec.conversion with which the API server finds the webhook and trusts its
// certificate.
// It depends on the content of one Secret only. All replicas read that Secret, so they never disagree.
func desiredConversion(
	target apiextensionsv1.WebhookClientConfig, authorities []byte,
) *apiextensionsv1.CustomResourceConversion {
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

// conversionPatch is a patch that replaces spec.conversion, and nothing else, in one resource version of the CRD.
// It is written by hand because a CRD is large: computing the patch from two copies costs many times more.
func conversionPatch(resourceVersion string, want *apiextensionsv1.CustomResourceConversion) (client.Patch, error) {
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

// caBundleOf returns the authorities that the API server trusts now.
func caBundleOf(crd *apiextensionsv1.CustomResourceDefinition) []byte {
	c := crd.Spec.Conversion
	if c == nil || c.Webhook == nil || c.Webhook.ClientConfig == nil {
		return nil
	}
	return c.Webhook.ClientConfig.CABundle
}

// difference says what is wrong with the CRD's spec.conversion. It is empty where nothing is.
func difference(have, want *apiextensionsv1.CustomResourceConversion) string {
	switch {
	case equality.Semantic.DeepEqual(have, want):
		return ""
	case have == nil || have.Strategy != want.Strategy || have.Webhook == nil || have.Webhook.ClientConfig == nil:
		return "it named no webhook"
	case len(have.Webhook.ClientConfig.CABundle) == 0:
		return "its caBundle was empty"
	case !bytes.Equal(have.Webhook.ClientConfig.CABundle, want.Webhook.ClientConfig.CABundle):
		return "its caBundle was of another authority"
	default:
		return "it named another webhook"
	}
}
