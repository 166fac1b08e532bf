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
)

// maxBytes is what fits into the annotation in which `kubectl apply` keeps a copy of an object.
const maxBytes = 256 << 10

// brokenPromise is one way in which the new CRD does not take, or takes differently, what a release's took.
type brokenPromise struct {
	release, version, path, check, message string
	// olm tells that OLM v1 would refuse the upgrade for it.
	olm bool
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
	c := &comparison{release: release}
	runner, err := runner.New(&olm, runner.DefaultRegistry())
	if err != nil {
		return nil, err
	}
	c.take(runner.Run(old.DeepCopy(), now.DeepCopy()), old, now)
	c.names(old, now)
	c.versions(old, now)
	return c.sorted(), nil
}

// olm is what OLM v1 checks by default before it upgrades a CRD: operator-controller's preflight crdupgradesafety, with
// every validation of crdify. It refuses a changed CEL rule, and a changed message of one.
// It does not compare the served versions with each other, because the bundle's CRD has a conversion webhook.
var olm = config.Config{
	Conversion:           config.ConversionPolicyIgnore,
	UnhandledEnforcement: config.EnforcementPolicyError,
	Validations: []config.ValidationConfig{
		{Name: "description", Enforcement: config.EnforcementPolicyNone},
		{Name: "enum", Enforcement: config.EnforcementPolicyError, Configuration: map[string]any{"additionPolicy": "Allow"}},
	},
}

type comparison struct {
	release string
	found   []brokenPromise
}

// take takes what crdify found.
func (c *comparison) take(results *runner.Results, old, now *apiextensionsv1.CustomResourceDefinition) {
	add := func(version, path string, result validations.ComparisonResult) {
		for _, message := range result.Errors {
			c.found = append(c.found, brokenPromise{c.release, version, path, result.Name, message, true})
		}
	}
	for _, result := range results.CRDValidation {
		add(whole, ".", result)
	}
	for _, result := range results.SameVersionValidation {
		for _, p := range result.PropertyComparisons {
			if was, is := fieldOf(old, result.Version, p.Property), fieldOf(now, result.Version, p.Property); was != nil && is == nil {
				continue // a field that is gone has been told of already
			}
			for _, one := range p.ComparisonResults {
				add(result.Version, strings.TrimPrefix(p.Property, "^"), one)
			}
		}
	}
}

func (c *comparison) say(version, path, check, format string, args ...any) {
	c.found = append(c.found, brokenPromise{c.release, version, path, check, fmt.Sprintf(format, args...), false})
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

// versions checks that versions stay served, with their subresources, and that no new field in them has a default.
// A default would change stored objects.
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

// checkSize refuses a CRD that `kubectl apply` cannot apply.
func checkSize(crd *apiextensionsv1.CustomResourceDefinition) error {
	raw, err := json.Marshal(crd)
	if err != nil {
		return err
	}
	if len(raw) > maxBytes {
		return fmt.Errorf("%s takes %d bytes: over %d `kubectl apply` refuses it; shorten descriptions", crd.Name, len(raw), maxBytes)
	}
	return nil
}

func (c *comparison) sorted() []brokenPromise {
	slices.SortFunc(c.found, func(a, b brokenPromise) int { return strings.Compare(a.String(), b.String()) })
	return c.found
}

// fieldOf returns a version's field, nil where there is none.
func fieldOf(crd *apiextensionsv1.CustomResourceDefinition, version, path string) *apiextensionsv1.JSONSchemaProps {
	if v := validations.GetCRDVersionByName(crd, version); v != nil {
		return validations.FlattenCRDVersion(*v)[path]
	}
	return nil
}
