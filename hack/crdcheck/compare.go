package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/crdify/pkg/config"
	"sigs.k8s.io/crdify/pkg/runner"
	"sigs.k8s.io/crdify/pkg/validations"
	"sigs.k8s.io/crdify/pkg/validations/crd/existingfieldremoval"
	"sigs.k8s.io/crdify/pkg/validations/crd/scope"
	"sigs.k8s.io/crdify/pkg/validations/crd/storedversionremoval"
	"sigs.k8s.io/crdify/pkg/validations/property"
)

// maxBytes is what fits into the annotation in which `kubectl apply` keeps a copy of an object.
const maxBytes = 256 << 10

// brokenPromise is one way in which the new CRD does not take, or takes differently, what a release's took.
type brokenPromise struct {
	release, version, path, check, message string
}

func (b brokenPromise) String() string {
	return fmt.Sprintf("%s of release %s: %s: %s: %s", b.version, b.release, b.path, b.check, b.message)
}

// whole names the version in promises that concern the CRD as a whole.
const whole = "*"

// compare says what the new CRD breaks of the old one, whose objects may be stored in the versions given.
func compare(release string, old, now *apiextensionsv1.CustomResourceDefinition, stored []string) ([]brokenPromise, error) {
	old = old.DeepCopy()
	old.Status.StoredVersions = stored
	runner, err := runner.New(&policy, registry())
	if err != nil {
		return nil, err
	}
	results := runner.Run(old, now)
	c := &comparison{release: release}
	for _, result := range results.CRDValidation {
		c.add(whole, ".", result)
	}
	for _, result := range results.SameVersionValidation {
		for _, p := range result.PropertyComparisons {
			path := strings.TrimPrefix(p.Property, "^")
			if was, is := flatten(old, result.Version), flatten(now, result.Version); was[p.Property] != nil && is[p.Property] == nil {
				continue // a field that is gone has been told of already
			}
			for _, one := range p.ComparisonResults {
				c.add(result.Version, path, one)
			}
		}
	}
	c.names(old, now)
	c.versions(old, now)
	return c.sorted(), c.size(now)
}

// policy lets loosening pass: it hurts no stored object. How versions differ from each other is conversion's business.
var policy = config.Config{
	Conversion:           config.ConversionPolicyIgnore,
	UnhandledEnforcement: config.EnforcementPolicyError,
	Validations: []config.ValidationConfig{
		{Name: "description", Enforcement: config.EnforcementPolicyNone},
		{Name: "enum", Enforcement: config.EnforcementPolicyError, Configuration: map[string]any{"additionPolicy": "Allow"}},
		{Name: "pattern", Enforcement: config.EnforcementPolicyError, Configuration: map[string]any{"removalPolicy": "Allow"}},
	},
}

// registry holds crdify's validations and those below.
func registry() validations.Registry {
	r := validations.NewRegistry()
	for _, register := range []func(validations.Registry){
		existingfieldremoval.Register, scope.Register, storedversionremoval.Register,
		property.RegisterDefault, property.RegisterEnum, property.RegisterMaximum, property.RegisterMaxItems, property.RegisterMaxLength,
		property.RegisterMaxProperties, property.RegisterMinimum, property.RegisterMinItems, property.RegisterMinLength, property.RegisterMinProperties,
		property.RegisterRequired, property.RegisterType, property.RegisterDescription, property.RegisterPattern, property.RegisterNullable,
	} {
		register(r)
	}
	r.Register(rulesName, func(map[string]any) (validations.Validation, error) { return &rules{}, nil })
	return r
}

const rulesName = "rules"

// rules refuses CEL rules that were not there before. One that only loosens is let through by allowed.yaml.
type rules struct{ enforcement config.EnforcementPolicy }

func (*rules) Name() string { return rulesName }

func (r *rules) SetEnforcement(policy config.EnforcementPolicy) { r.enforcement = policy }

func (r *rules) Compare(old, now *apiextensionsv1.JSONSchemaProps) validations.ComparisonResult {
	var added []error
	for _, rule := range now.XValidations {
		if !slices.ContainsFunc(old.XValidations, func(o apiextensionsv1.ValidationRule) bool {
			return o.Rule == rule.Rule && equality.Semantic.DeepEqual(o.OptionalOldSelf, rule.OptionalOldSelf)
		}) {
			added = append(added, fmt.Errorf("new or changed rule: %s", rule.Rule))
		}
	}
	old.XValidations, now.XValidations = nil, nil
	return validations.HandleErrors(rulesName, r.enforcement, added...)
}

type comparison struct {
	release string
	found   []brokenPromise
}

func (c *comparison) add(version, path string, result validations.ComparisonResult) {
	for _, message := range result.Errors {
		c.found = append(c.found, brokenPromise{c.release, version, path, result.Name, message})
	}
}

func (c *comparison) say(version, path, check, format string, args ...any) {
	c.found = append(c.found, brokenPromise{c.release, version, path, check, fmt.Sprintf(format, args...)})
}

// names must stay: clients and roles use them.
func (c *comparison) names(old, now *apiextensionsv1.CustomResourceDefinition) {
	was, is := old.Spec.Names, now.Spec.Names
	was.Categories, is.Categories = nil, nil
	for _, short := range was.ShortNames {
		if !slices.Contains(is.ShortNames, short) {
			c.say(whole, ".spec.names.shortNames", "names", "%s is gone", short)
		}
	}
	was.ShortNames, is.ShortNames = nil, nil
	if !equality.Semantic.DeepEqual(was, is) {
		c.say(whole, ".spec.names", "names", "%+v became %+v", was, is)
	}
}

// versions must stay served with their subresources, and no field that is new in them may have a default: it would change stored objects.
func (c *comparison) versions(old, now *apiextensionsv1.CustomResourceDefinition) {
	for _, was := range old.Spec.Versions {
		is := validations.GetCRDVersionByName(now, was.Name)
		switch {
		case is == nil:
			c.say(was.Name, ".", "versions", "the version is gone")
			continue
		case was.Served && !is.Served:
			c.say(was.Name, ".", "versions", "the version is not served any more")
		}
		c.subresources(was, is)
		before := validations.FlattenCRDVersion(was)
		for path, field := range validations.FlattenCRDVersion(*is) {
			if before[path] == nil && field.Default != nil {
				c.say(was.Name, strings.TrimPrefix(path, "^"), "newDefault", "the new field has the default %s, which stored objects would get as well", field.Default.Raw)
			}
		}
	}
}

func (c *comparison) subresources(was apiextensionsv1.CustomResourceDefinitionVersion, is *apiextensionsv1.CustomResourceDefinitionVersion) {
	before, after := was.Subresources, is.Subresources
	if before == nil {
		return
	}
	if after == nil {
		after = &apiextensionsv1.CustomResourceSubresources{}
	}
	if before.Status != nil && after.Status == nil {
		c.say(was.Name, ".status", "subresources", "the status subresource is gone")
	}
	if before.Scale != nil && !equality.Semantic.DeepEqual(before.Scale, after.Scale) {
		c.say(was.Name, ".scale", "subresources", "the scale subresource changed")
	}
}

// size refuses a CRD that `kubectl apply` cannot apply.
func (c *comparison) size(now *apiextensionsv1.CustomResourceDefinition) error {
	raw, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if len(raw) > maxBytes {
		return fmt.Errorf("%s takes %d bytes: over %d `kubectl apply` refuses it; shorten descriptions", now.Name, len(raw), maxBytes)
	}
	return nil
}

func (c *comparison) sorted() []brokenPromise {
	slices.SortFunc(c.found, func(a, b brokenPromise) int { return strings.Compare(a.String(), b.String()) })
	return c.found
}

func flatten(crd *apiextensionsv1.CustomResourceDefinition, name string) map[string]*apiextensionsv1.JSONSchemaProps {
	return validations.FlattenCRDVersion(*validations.GetCRDVersionByName(crd, name))
}
