package analyse

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// The schema of v1alpha1 names the operations, as release 0.1.0's did: one that it does not name could not be written through v1alpha1.
func TestV1alpha1KnowsEveryOperation(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "operator.etcd-warden.io_etcdclusters.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(raw, &definition); err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, version := range definition.Spec.Versions {
		if version.Name == "v1alpha1" {
			for _, value := range version.Schema.OpenAPIV3Schema.Properties["status"].Properties["operation"].Properties["type"].Enum {
				known = append(known, string(value.Raw))
			}
		}
	}
	for operation := range operationReasons {
		if !slices.Contains(known, `"`+string(operation)+`"`) {
			t.Errorf("v1alpha1 knows %s, and not %s", known, operation)
		}
	}
}
