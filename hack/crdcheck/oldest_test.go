package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/cel/environment"
)

// ratchets is the first Kubernetes that lets rules ratchet (optionalOldSelf) without a feature gate.
var ratchets = utilversion.MustParseGeneric("1.30")

func TestTheRulesCompileOnTheOldestKubernetesThatTheBundlePromises(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(tree, "config/manifests/bases/etcd-warden.clusterserviceversion.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	promised := regexp.MustCompile(`(?m)^  minKubeVersion: (.*)$`).FindSubmatch(raw)
	if promised == nil {
		t.Fatal("the bundle promises no oldest Kubernetes")
	}
	definitions, err := readDefinitions(filepath.Join(tree, bases))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range definitions {
		for name, v := range d.versions {
			for _, problem := range tooNew(v.structural, name, utilversion.MustParseGeneric(string(promised[1])), true) {
				t.Error(problem)
			}
		}
	}
}

func TestARuleThatIsTooNewIsFound(t *testing.T) {
	for _, c := range []struct{ does, rule, kubernetes, found string }{
		{does: "takes a quantity on 1.29", rule: `{rule: "quantity(self.name).compareTo(quantity('1')) > 0"}`, kubernetes: "1.29"},
		{does: "refuses a quantity on 1.28", rule: `{rule: "quantity(self.name).compareTo(quantity('1')) > 0"}`, kubernetes: "1.28", found: "undeclared reference to 'quantity'"},
		{does: "takes ratcheting on 1.30", rule: `{rule: "oldSelf.hasValue() || self.size > 0", optionalOldSelf: true}`, kubernetes: "1.30"},
		{does: "refuses ratcheting on 1.29", rule: `{rule: "oldSelf.hasValue() || self.size > 0", optionalOldSelf: true}`, kubernetes: "1.29", found: "optionalOldSelf"},
	} {
		t.Run(c.does, func(t *testing.T) {
			d, err := newDefinition([]byte(strings.Replace(old, `{rule: "self.size > 0", message: size}`, c.rule, 1)))
			if err != nil {
				t.Fatal(err)
			}
			problems := fmt.Sprint(tooNew(d.versions["v1alpha1"].structural, "", utilversion.MustParseGeneric(c.kubernetes), true))
			if c.found == "" && problems != "[]" || !strings.Contains(problems, c.found) {
				t.Errorf("found %s, want %q", problems, c.found)
			}
		})
	}
}

// tooNew says which rules a version of Kubernetes does not take: a new rule may use what the version before it had.
func tooNew(s *schema.Structural, path string, kubernetes *utilversion.Version, isRoot bool) (problems []string) {
	for _, rule := range s.XValidations {
		if rule.OptionalOldSelf != nil && !kubernetes.AtLeast(ratchets) {
			problems = append(problems, fmt.Sprintf("%s: optionalOldSelf needs Kubernetes %s: %s", path, ratchets, rule.Rule))
		}
	}
	results, err := cel.Compile(s, model.SchemaDeclType(s, isRoot), callCost, environment.MustBaseEnvSet(kubernetes.OffsetMinor(-1)), cel.NewExpressionsEnvLoader())
	if err != nil {
		return append(problems, fmt.Sprintf("%s: %v", path, err))
	}
	for i, result := range results {
		if result.Error != nil {
			problems = append(problems, fmt.Sprintf("%s: Kubernetes %s does not take %s: %v", path, kubernetes, s.XValidations[i].Rule, result.Error))
		}
	}
	if s.Items != nil {
		problems = append(problems, tooNew(s.Items, path+"[]", kubernetes, false)...)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil {
		problems = append(problems, tooNew(s.AdditionalProperties.Structural, path+".*", kubernetes, false)...)
	}
	for name := range s.Properties {
		field := s.Properties[name]
		problems = append(problems, tooNew(&field, path+"."+name, kubernetes, false)...)
	}
	return problems
}
