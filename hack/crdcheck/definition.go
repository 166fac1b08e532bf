package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// bases is where the CRDs lie in a tree.
const bases = "config/crd/bases"

// callCost and objectCost bound what CEL rules may cost, as the API server does.
const callCost, objectCost = 1_000_000, 10_000_000

// definition is a CRD with what validates objects of each of its versions.
type definition struct {
	crd      *apiextensionsv1.CustomResourceDefinition
	versions map[string]*version
}

type version struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

// object is a custom resource as YAML has it.
type object map[string]any

func (o object) group() string {
	group, _, _ := strings.Cut(fmt.Sprint(o["apiVersion"]), "/")
	return group
}

func (o object) version() string {
	_, version, _ := strings.Cut(fmt.Sprint(o["apiVersion"]), "/")
	return version
}

func (o object) groupKind() string { return o.group() + "/" + fmt.Sprint(o["kind"]) }

func (o object) name() string {
	metadata, _ := o["metadata"].(map[string]any)
	return fmt.Sprintf("%s %v", o["kind"], metadata["name"])
}

// readDefinitions reads the CRDs of a folder, by group and kind.
func readDefinitions(dir string) (map[string]*definition, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no CRD in %s", dir)
	}
	definitions := map[string]*definition{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		d, err := newDefinition(raw)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		definitions[d.groupKind()] = d
	}
	return definitions, nil
}

func newDefinition(raw []byte) (*definition, error) {
	d := &definition{crd: &apiextensionsv1.CustomResourceDefinition{}, versions: map[string]*version{}}
	if err := yaml.UnmarshalStrict(raw, d.crd); err != nil {
		return nil, err
	}
	for _, v := range d.crd.Spec.Versions {
		internal := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, internal, nil); err != nil {
			return nil, err
		}
		structural, err := schema.NewStructural(internal)
		if err != nil {
			return nil, fmt.Errorf("the schema of %s is not structural: %w", v.Name, err)
		}
		validator, _, err := validation.NewSchemaValidator(internal)
		if err != nil {
			return nil, err
		}
		d.versions[v.Name] = &version{structural: structural, validator: validator, rules: cel.NewValidator(structural, true, callCost)}
	}
	return d, nil
}

func (d *definition) groupKind() string { return d.crd.Spec.Group + "/" + d.crd.Spec.Names.Kind }

// stored returns the object as the API server stores it in its own version: pruned and with defaults.
func (d *definition) stored(o object) (object, error) {
	v := d.versions[o.version()]
	if v == nil {
		return nil, fmt.Errorf("%s has no version %s", d.crd.Spec.Names.Kind, o.version())
	}
	stored := runtime.DeepCopyJSON(o)
	pruning.Prune(stored, v.structural, true)
	defaulting.Default(stored, v.structural)
	return stored, nil
}

// validate says what the API server has against the object.
func (d *definition) validate(o object) (problems field.ErrorList) {
	v := d.versions[o.version()]
	if v == nil {
		return field.ErrorList{field.NotSupported(field.NewPath("apiVersion"), o.version(), names(d.crd))}
	}
	plain := map[string]any(o)
	problems = validation.ValidateCustomResource(nil, plain, v.validator)
	problems = append(problems, objectmeta.Validate(context.Background(), nil, plain, v.structural, true)...)
	problems = append(problems, listtype.ValidateListSetsAndMaps(nil, v.structural, plain)...)
	broken, _ := v.rules.Validate(context.Background(), nil, v.structural, plain, nil, objectCost)
	return append(problems, broken...)
}

// strictly returns the problems of an object that users apply:
// what the API server refuses, and fields that it would drop.
func (d *definition) strictly(o object) (problems []string) {
	if v := d.versions[o.version()]; v != nil {
		for _, path := range pruning.PruneWithOptions(runtime.DeepCopyJSON(o), v.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
			problems = append(problems, "unknown field "+path)
		}
		stored, err := d.stored(o)
		if err != nil {
			return []string{err.Error()}
		}
		o = stored
	}
	for _, problem := range d.validate(o) {
		problems = append(problems, problem.Error())
	}
	return problems
}

// decode reads the objects of a YAML stream.
func decode(raw []byte) (objects []object, err error) {
	reader := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		var o object
		if err := reader.Decode(&o); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if o != nil {
			objects = append(objects, integers(map[string]any(o)).(map[string]any))
		}
	}
}

// integers makes whole numbers int64, as the API server's decoder does; a plain JSON decoder makes all of them float64.
func integers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			v[key] = integers(v[key])
		}
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	case float64:
		if whole := int64(v); float64(whole) == v {
			return whole
		}
	}
	return value
}

func names(crd *apiextensionsv1.CustomResourceDefinition) (names []string) {
	for _, v := range crd.Spec.Versions {
		names = append(names, v.Name)
	}
	return names
}
