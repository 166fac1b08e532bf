package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// conversionPatch replaces spec.conversion, and nothing else, where it is still what was read. The resourceVersion
// of the CRD may be another one by now: OLM writes it again right after its InstallPlan did.
func conversionPatch(read, want *apiextensionsv1.CustomResourceConversion) (client.Patch, error) {
	const path = "/spec/conversion"
	raw, err := json.Marshal([]map[string]any{
		{"op": "test", "path": path, "value": read},
		{"op": "add", "path": path, "value": want},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the conversion: %w", err)
	}
	return client.RawPatch(types.JSONPatchType, raw), nil
}

// isFailedTest reports whether the API server refused a JSON patch because its test failed. It says so in these words
// only, without a cause; an invalid object has causes, and an admission webhook other words.
func isFailedTest(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return (details == nil || len(details.Causes) == 0) &&
		strings.HasPrefix(status.Status().Message, "the server rejected our request due to an error in our request")
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
