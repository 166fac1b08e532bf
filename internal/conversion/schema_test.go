package conversion

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apix "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/api/v1beta1"
)

// hubSchema returns what the API server says to an object of v1beta1 at its creation.
func hubSchema(t *testing.T) func(*v1beta1.EtcdCluster) field.ErrorList {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "operator.etcd-steward.io_etcdclusters.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var definition apix.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(raw, &definition); err != nil {
		t.Fatal(err)
	}
	for _, version := range definition.Spec.Versions {
		if version.Name != "v1beta1" {
			continue
		}
		var props apiextensions.JSONSchemaProps
		if err := apix.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(version.Schema.OpenAPIV3Schema, &props, nil); err != nil {
			t.Fatal(err)
		}
		structural, err := schema.NewStructural(&props)
		if err != nil {
			t.Fatal(err)
		}
		values, _, err := validation.NewSchemaValidator(&props)
		if err != nil {
			t.Fatal(err)
		}
		rules := cel.NewValidator(structural, true, celconfig.PerCallLimit)
		return func(hub *v1beta1.EtcdCluster) field.ErrorList {
			var object map[string]any
			if err := utiljson.Unmarshal(withKind(t, hub, "v1beta1"), &object); err != nil {
				t.Fatal(err)
			}
			errs := validation.ValidateCustomResource(nil, object, values)
			more, _ := rules.Validate(context.Background(), nil, structural, object, nil, celconfig.RuntimeCELCostBudget)
			return append(errs, more...)
		}
	}
	t.Fatal("no v1beta1")
	return nil
}

// tampered are fields that v1alpha1 cannot say, or not in all their forms.
var tampered = []string{
	"storage", "storage.retentionPolicy", "tls", "tls.client", "tls.peer", "config", "config.quotaBackendBytes", "config.autoCompaction",
	"podTemplate.memberAntiAffinity", "podTemplate.spec.topologySpreadConstraints", "podTemplate.spec.priorityClassName",
	"podTemplate.spec.schedulerName", "podTemplate.spec.runtimeClassName", "podTemplate.spec.imagePullSecrets", "bootstrap", "bootstrap.existingVolumes",
}

// Whatever a writer of v1alpha1 puts into the annotation is refused, or makes an object that v1beta1's schema lets in, options apart.
func TestNoAnnotationBringsInWhatTheSchemaRefuses(t *testing.T) {
	from, says := newSource(t), hubSchema(t)
	wild := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 18).Funcs(fillQuantity, fillTime, fillMeta, func(s *string, c randfill.Continue) {
		*s = oneOf(c.Rand, "", "a", "Managed", "TLS", "1h", "1", "Retain", "16Mi", strings.Repeat("x", 300), c.String(0))
	})
	refused, taken := 0, 0
	for n := range rounds / 5 {
		spoke := &v1alpha1.EtcdCluster{}
		specOf(t, `{size: 3, version: 3.6.16, repository: etcd}`, &spoke.Spec)
		spoke.Name = "prod"
		var donor v1beta1.EtcdCluster
		wild.Fill(&donor)
		tree := asTree(allowed(from))
		path := "spec." + tampered[n%len(tampered)]
		tree = transplant([]string{path}, tree, asTree(&donor))
		spoke.Annotations = map[string]string{HubAnnotation: string(asJSON(map[string]any{"spec": tree["spec"]}))}
		var hub v1beta1.EtcdCluster
		if err := ToHub(spoke, &hub); err != nil {
			refused++
			continue
		}
		taken++
		if errs := says(&hub); len(errs) > 0 {
			t.Fatalf("%s lets in %s\n%v", spoke.Annotations, asJSON(hub.Spec), errs)
		}
	}
	t.Logf("%d refused, %d taken", refused, taken)
	if refused < rounds/50 || taken < rounds/50 {
		t.Error("too few of either to prove anything")
	}
}

// allowed returns an object whose fields that v1alpha1 cannot say are as the schema wants them.
func allowed(from source) *v1beta1.EtcdCluster {
	hub := from.hub()
	if hub.Spec.Config != nil {
		hub.Spec.Config.ExtraArgs = nil
	}
	return hub
}
