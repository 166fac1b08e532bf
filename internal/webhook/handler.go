package webhook

import (
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/webhook/conversion"
)

// Handler answers ConversionReviews of one kind with the converter.
func Handler(scheme *runtime.Scheme, kind schema.GroupKind, converter conversion.Converter) (http.Handler, error) {
	registry := conversion.NewRegistry()
	if err := registry.RegisterConverter(kind, converter); err != nil {
		return nil, fmt.Errorf("registering the conversion: %w", err)
	}
	return conversion.NewWebhookHandler(scheme, registry), nil
}
