package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apix "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"sigs.k8s.io/yaml"
)

func readBase(t *testing.T) ([]byte, apix.CustomResourceDefinition) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "operator.etcd-warden.io_etcdclusters.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var definition apix.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(raw, &definition); err != nil {
		t.Fatal(err)
	}
	return raw, definition
}

func TestEveryListMapAndStringOfTheSchemasHasALimit(t *testing.T) {
	_, definition := readBase(t)
	for _, version := range definition.Spec.Versions {
		for _, part := range []string{"spec", "status"} {
			for _, path := range unbounded("."+part, version.Schema.OpenAPIV3Schema.Properties[part]) {
				t.Errorf("%s of %s has no limit", path, version.Name)
			}
		}
	}
}

func TestTheWalkFindsWhatHasNoLimit(t *testing.T) {
	limit := int64(1)
	text := apix.JSONSchemaProps{Type: "string"}
	short := apix.JSONSchemaProps{Type: "string", MaxLength: &limit}
	list := func(items apix.JSONSchemaProps, most *int64) apix.JSONSchemaProps {
		return apix.JSONSchemaProps{Type: "array", MaxItems: most, Items: &apix.JSONSchemaPropsOrArray{Schema: &items}}
	}
	dictionary := func(rule string, most *int64) apix.JSONSchemaProps {
		return apix.JSONSchemaProps{Type: "object", MaxProperties: most, XValidations: apix.ValidationRules{{Rule: rule}},
			AdditionalProperties: &apix.JSONSchemaPropsOrBool{Schema: &short}}
	}
	for name, schema := range map[string]apix.JSONSchemaProps{
		"a string":           text,
		"a quantity":         {XIntOrString: true},
		"a 32-bit number":    {Type: "integer", Format: "int32"},
		"a list":             list(short, nil),
		"an item":            list(text, &limit),
		"a map":              dictionary("self.all(k, size(k) <= 1)", nil),
		"the keys of a map":  dictionary("true", &limit),
		"a field of a field": {Type: "object", Properties: map[string]apix.JSONSchemaProps{"a": text}},
		"any object":         {Type: "object", XPreserveUnknownFields: new(true)},
	} {
		if len(unbounded("", schema)) != 1 {
			t.Errorf("%s has no limit, and is not found", name)
		}
	}
	for name, schema := range map[string]apix.JSONSchemaProps{
		"a list": list(short, &limit), "a map": dictionary("self.all(k, size(k) <= 1)", &limit), "an enumeration": {Type: "string", Enum: []apix.JSON{{Raw: []byte(`"a"`)}}},
	} {
		if found := unbounded("", schema); len(found) != 0 {
			t.Errorf("%s has a limit, and is found as %v", name, found)
		}
	}
}

// unbounded returns the paths of lists, maps, keys of maps, strings and 32-bit numbers that have no limit.
func unbounded(path string, schema apix.JSONSchemaProps) (paths []string) {
	if schema.XPreserveUnknownFields != nil {
		paths = append(paths, path)
	}
	if schema.Type == "integer" && schema.Format == "int32" && (schema.Minimum == nil || schema.Maximum == nil) {
		paths = append(paths, path)
	}
	if (schema.Type == "string" || schema.XIntOrString) && schema.MaxLength == nil && len(schema.Enum) == 0 {
		paths = append(paths, path)
	}
	if schema.Type == "array" {
		if schema.MaxItems == nil {
			paths = append(paths, path)
		}
		paths = append(paths, unbounded(path+"[]", *schema.Items.Schema)...)
	}
	if values := schema.AdditionalProperties; values != nil {
		if schema.MaxProperties == nil {
			paths = append(paths, path)
		}
		limited := false
		for _, rule := range schema.XValidations {
			limited = limited || strings.Contains(rule.Rule, "self.all(k, size(k) <=") || strings.Contains(rule.Rule, "self.all(k, k == ")
		}
		if !limited {
			paths = append(paths, path+"{}, its keys,")
		}
		paths = append(paths, unbounded(path+"{}", *values.Schema)...)
	}
	for name, property := range schema.Properties {
		paths = append(paths, unbounded(path+"."+name, property)...)
	}
	return paths
}

// The API server refuses a definition whose rules may cost too much.
func TestTheAPIServerAcceptsTheDefinition(t *testing.T) {
	_, definition := readBase(t)
	apix.SetDefaults_CustomResourceDefinition(&definition)
	apix.SetDefaults_CustomResourceDefinitionSpec(&definition.Spec)
	var internal apiextensions.CustomResourceDefinition
	if err := apix.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&definition, &internal, nil); err != nil {
		t.Fatal(err)
	}
	internal.Status.StoredVersions = []string{"v1beta1"}
	for _, problem := range validation.ValidateCustomResourceDefinition(t.Context(), &internal) {
		t.Error(problem)
	}
}

func TestASecondRunChangesNothing(t *testing.T) {
	raw, _ := readBase(t)
	again, err := boundDefinition(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, again) {
		t.Error("the second run changed the definition")
	}
}

// `kubectl apply` keeps a copy of the definition in an annotation of at most 256 KiB.
func TestKubectlCanApplyTheDefinition(t *testing.T) {
	_, definition := readBase(t)
	raw, err := json.Marshal(definition)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(raw))
	if len(raw) > 256<<10 {
		t.Errorf("the definition has %d bytes", len(raw))
	}
}
