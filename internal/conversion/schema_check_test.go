package conversion

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"reflect"
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

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

func definition(t *testing.T) apix.CustomResourceDefinition {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "operator.etcd-warden.io_etcdclusters.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var definition apix.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(raw, &definition); err != nil {
		t.Fatal(err)
	}
	return definition
}

// hubSchema returns a function that validates a new object in v1beta1 as the API server does.
func hubSchema(t *testing.T) func(*v1beta1.EtcdCluster) field.ErrorList {
	t.Helper()
	for _, version := range definition(t).Spec.Versions {
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

// tampered are fields that v1alpha1 lacks, or for which it lacks some values.
var tampered = []string{
	"storage", "storage.retentionPolicy", "tls", "tls.client", "tls.peer", "config", "config.quotaBackendBytes", "config.autoCompaction",
	"podTemplate.memberAntiAffinity", "podTemplate.spec.topologySpreadConstraints", "podTemplate.spec.priorityClassName",
	"podTemplate.spec.schedulerName", "podTemplate.spec.runtimeClassName", "podTemplate.spec.imagePullSecrets", "bootstrap", "bootstrap.existingVolumes",
}

// The options of etcd are the exception: the operator checks them.
func TestNoAnnotationAddsWhatTheSchemaRefuses(t *testing.T) {
	from, says := newSource(t), hubSchema(t)
	wild := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 18).Funcs(fillQuantity, fillTime, fillMeta, func(s *string, c randfill.Continue) {
		*s = oneOf(c.Rand, "", "a", "Managed", "TLS", "1h", "1", "Retain", "16Mi", strings.Repeat("x", 300), c.String(0))
	})
	left, taken := 0, 0
	for n := range rounds / 5 {
		spoke := &v1alpha1.EtcdCluster{}
		specOf(t, `{size: 3, version: 3.6.16, repository: etcd}`, &spoke.Spec)
		spoke.Name = "prod"
		var donor, tampering v1beta1.EtcdCluster
		wild.Fill(&donor)
		path := "spec." + tampered[n%len(tampered)]
		fromTree(t, transplant([]string{path}, asTree(allowed(from)), asTree(&donor)), &tampering)
		annotations := saved(&tampering, hubOf(spoke))
		spoke.Annotations = map[string]string{}
		for path, value := range annotations {
			spoke.Annotations[HubPrefix+path] = value
		}
		hub := hubOf(spoke)
		if errs := says(hub); len(errs) > 0 {
			t.Fatalf("with the annotations %s the schema refuses %s\n%v", spoke.Annotations, asJSON(hub.Spec), errs)
		}
		for key, value := range hub.Annotations {
			if strings.HasPrefix(key, HubPrefix) && value != spoke.Annotations[key] {
				t.Fatalf("%s of %s became %s", key, spoke.Annotations[key], value)
			}
		}
		if len(hub.Annotations) > 0 {
			left++
		} else {
			taken++
		}
	}
	t.Logf("%d objects had invalid annotations, %d had none", left, taken)
	if left < rounds/50 || taken < rounds/50 {
		t.Error("too few objects of one kind to prove anything")
	}
}

// saved returns the fields of hub that differ in other.
func saved(hub, other *v1beta1.EtcdCluster) lostFields {
	var all lostFields
	all.addDifferences(nil, reflect.ValueOf(hub).Elem(), reflect.ValueOf(other).Elem())
	maps.DeleteFunc(all, func(path, _ string) bool { return !strings.HasPrefix(path, "spec.") })
	return all
}

// allowed returns an object that keeps the schema in the fields that v1alpha1 lacks.
func allowed(from source) *v1beta1.EtcdCluster {
	hub := from.hub()
	if hub.Spec.Config != nil {
		hub.Spec.Config.ExtraArgs = nil
	}
	return hub
}
