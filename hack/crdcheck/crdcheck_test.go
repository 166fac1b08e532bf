package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// old is the CRD that the tests break: two versions, with each kind of constraint.
const old = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Thing, listKind: ThingList, plural: things, singular: thing, shortNames: [th]}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}
    schema: &schema
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            type: object
            required: [size]
            x-kubernetes-validations: [{rule: "self.size > 0", message: size}]
            properties:
              size: {type: integer, minimum: 0, maximum: 9}
              mode: {type: string, enum: [A, B], default: A}
              name: {type: string, pattern: "^[a-z]+$", minLength: 1, maxLength: 10}
              list: {type: array, items: {type: string}, minItems: 1, maxItems: 4, x-kubernetes-list-type: atomic}
              map: {type: object, additionalProperties: {type: string}, minProperties: 1, maxProperties: 4}
              when: {type: string, nullable: true}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            properties:
              size: {type: integer}
  - name: v1alpha0
    served: true
    storage: false
    schema: *schema
`

// sample is an object that the old CRD takes.
const sample = `
apiVersion: example.com/v1alpha1
kind: Thing
metadata: {name: one}
spec: {size: 3, mode: B, name: abc, list: [a], map: {a: b}, free: {any: thing}}
`

// schemaOf and field lead to what a mutation changes.
func schemaOf(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.JSONSchemaProps {
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

func change(name string, change func(*apiextensionsv1.JSONSchemaProps)) func(*apiextensionsv1.CustomResourceDefinition) {
	return func(crd *apiextensionsv1.CustomResourceDefinition) {
		spec := schemaOf(crd).Properties["spec"]
		field := spec.Properties[name]
		change(&field)
		spec.Properties[name] = field
		schemaOf(crd).Properties["spec"] = spec
	}
}

func changeSpec(change func(*apiextensionsv1.JSONSchemaProps)) func(*apiextensionsv1.CustomResourceDefinition) {
	return func(crd *apiextensionsv1.CustomResourceDefinition) {
		spec := schemaOf(crd).Properties["spec"]
		change(&spec)
		schemaOf(crd).Properties["spec"] = spec
	}
}

func to[T any](value T) *T { return &value }

type (
	crd   = apiextensionsv1.CustomResourceDefinition
	props = apiextensionsv1.JSONSchemaProps
)

var mutations = []struct {
	does   string
	mutate func(*crd)
	// checks that must speak; none lets the change through.
	checks []string
}{
	{does: "lets the same CRD through", mutate: func(*crd) {}},
	{does: "refuses that a stored version is gone", mutate: func(c *crd) { c.Spec.Versions = c.Spec.Versions[1:] }, checks: []string{"storedVersionRemoval", "versions"}},
	{does: "refuses that a served version is gone", mutate: func(c *crd) { c.Spec.Versions = c.Spec.Versions[:1] }, checks: []string{"versions"}},
	{does: "refuses that a version is not served any more", mutate: func(c *crd) { c.Spec.Versions[1].Served = false }, checks: []string{"versions"}},
	{does: "lets a version be deprecated", mutate: func(c *crd) { c.Spec.Versions[0].Deprecated = true }},
	{does: "lets another version store and be added", mutate: func(c *crd) {
		c.Spec.Versions[0].Storage = false
		added := *c.Spec.Versions[0].DeepCopy()
		added.Name, added.Storage = "v1beta1", true
		c.Spec.Versions = append(c.Spec.Versions, added)
	}},
	{does: "refuses another scope", mutate: func(c *crd) { c.Spec.Scope = "Cluster" }, checks: []string{"scope"}},
	{does: "refuses another plural", mutate: func(c *crd) { c.Spec.Names.Plural = "stuff" }, checks: []string{"names"}},
	{does: "refuses that a short name is gone", mutate: func(c *crd) { c.Spec.Names.ShortNames = nil }, checks: []string{"names"}},
	{does: "refuses that the status subresource is gone", mutate: func(c *crd) { c.Spec.Versions[0].Subresources.Status = nil }, checks: []string{"subresources"}},
	{does: "refuses that the scale subresource is gone", mutate: func(c *crd) { c.Spec.Versions[0].Subresources.Scale = nil }, checks: []string{"subresources"}},
	{does: "refuses that a field is gone", mutate: changeSpec(func(p *props) { delete(p.Properties, "mode") }), checks: []string{"existingFieldRemoval"}},
	{does: "refuses a new required field", mutate: changeSpec(func(p *props) { p.Required = append(p.Required, "name") }), checks: []string{"required"}},
	{does: "lets a field become optional", mutate: changeSpec(func(p *props) { p.Required = nil })},
	{does: "lets an optional field be added", mutate: change("added", func(p *props) { p.Type = "string" })},
	{does: "refuses a new field with a default", mutate: change("added", func(p *props) { p.Type, p.Default = "string", &apiextensionsv1.JSON{Raw: []byte(`"a"`)} }), checks: []string{"newDefault"}},
	{does: "refuses another type", mutate: change("size", func(p *props) { p.Type = "string" }), checks: []string{"type"}},
	{does: "refuses another default", mutate: change("mode", func(p *props) { p.Default = &apiextensionsv1.JSON{Raw: []byte(`"B"`)} }), checks: []string{"default"}},
	{does: "refuses that a default is gone", mutate: change("mode", func(p *props) { p.Default = nil }), checks: []string{"default"}},
	{does: "refuses a default where there was none", mutate: change("name", func(p *props) { p.Default = &apiextensionsv1.JSON{Raw: []byte(`"a"`)} }), checks: []string{"default"}},
	{does: "refuses that an enum value is gone", mutate: change("mode", func(p *props) { p.Enum = p.Enum[:1] }), checks: []string{"enum"}},
	{does: "lets an enum value be added", mutate: change("mode", func(p *props) { p.Enum = append(p.Enum, apiextensionsv1.JSON{Raw: []byte(`"C"`)}) })},
	{does: "refuses a new enum", mutate: change("name", func(p *props) { p.Enum = []apiextensionsv1.JSON{{Raw: []byte(`"a"`)}} }), checks: []string{"enum"}},
	{does: "refuses another pattern", mutate: change("name", func(p *props) { p.Pattern = "^a+$" }), checks: []string{"pattern"}},
	{does: "refuses that a pattern is gone", mutate: change("name", func(p *props) { p.Pattern = "" }), checks: []string{"pattern"}},
	{does: "refuses a smaller maximum", mutate: change("size", func(p *props) { p.Maximum = to(8.0) }), checks: []string{"maximum"}},
	{does: "refuses a larger minimum", mutate: change("size", func(p *props) { p.Minimum = to(1.0) }), checks: []string{"minimum"}},
	{does: "lets limits be loosened", mutate: change("size", func(p *props) { p.Minimum, p.Maximum = to(-1.0), to(10.0) })},
	{does: "refuses a smaller length", mutate: change("name", func(p *props) { p.MaxLength = to[int64](9) }), checks: []string{"maxLength"}},
	{does: "refuses a larger least length", mutate: change("name", func(p *props) { p.MinLength = to[int64](2) }), checks: []string{"minLength"}},
	{does: "refuses fewer items", mutate: change("list", func(p *props) { p.MaxItems = to[int64](3) }), checks: []string{"maxItems"}},
	{does: "refuses more least items", mutate: change("list", func(p *props) { p.MinItems = to[int64](2) }), checks: []string{"minItems"}},
	{does: "refuses fewer properties", mutate: change("map", func(p *props) { p.MaxProperties = to[int64](3) }), checks: []string{"maxProperties"}},
	{does: "refuses more least properties", mutate: change("map", func(p *props) { p.MinProperties = to[int64](2) }), checks: []string{"minProperties"}},
	{does: "refuses that null is refused", mutate: change("when", func(p *props) { p.Nullable = false }), checks: []string{"nullable"}},
	{does: "refuses a new rule", mutate: changeSpec(func(p *props) {
		p.XValidations = append(p.XValidations, apiextensionsv1.ValidationRule{Rule: "self.size < 4"})
	}), checks: []string{"unhandled"}},
	{does: "refuses a changed rule", mutate: changeSpec(func(p *props) { p.XValidations[0].Rule = "self.size > 1" }), checks: []string{"unhandled"}},
	{does: "refuses that a rule is gone", mutate: changeSpec(func(p *props) { p.XValidations = nil }), checks: []string{"unhandled"}},
	{does: "refuses that a rule says something else", mutate: changeSpec(func(p *props) { p.XValidations[0].Message = "write a size above 0" }), checks: []string{"unhandled"}},
	{does: "lets a description change", mutate: change("size", func(p *props) { p.Description = "How many." })},
	{does: "refuses another type of list", mutate: change("list", func(p *props) { p.XListType = to("set") }), checks: []string{"unhandled"}},
	{does: "refuses a format", mutate: change("name", func(p *props) { p.Format = "date" }), checks: []string{"unhandled"}},
	{does: "refuses to drop unknown fields that were kept", mutate: change("free", func(p *props) { p.XPreserveUnknownFields = nil }), checks: []string{"unhandled"}},
}

func TestEveryBreakOfAReleasesAPIIsCaught(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.does, func(t *testing.T) {
			before := parse(t, old)
			after := before.DeepCopy()
			m.mutate(after)
			found, err := compare("1.0.0", before, after, []string{"v1alpha1"})
			if err != nil {
				t.Fatal(err)
			}
			var checks []string
			for _, b := range found {
				checks = append(checks, b.check)
			}
			slices.Sort(checks)
			if checks = slices.Compact(checks); !slices.Equal(checks, m.checks) {
				t.Errorf("found %q, want the checks %q:\n%v", checks, m.checks, found)
			}
		})
	}
}

func TestRefusesACRDThatKubectlCannotApply(t *testing.T) {
	crd := parse(t, old)
	if err := checkSize(crd); err != nil {
		t.Errorf("a CRD below the limit is refused: %v", err)
	}
	schemaOf(crd).Description = strings.Repeat("long ", maxBytes/5)
	if err := checkSize(crd); err == nil || !strings.Contains(err.Error(), "shorten descriptions") {
		t.Errorf("a CRD over the limit passes: %v", err)
	}
}

// TestReleases commits a release to a repository, changes the tree, and runs the command.
func TestReleases(t *testing.T) {
	for _, c := range []struct {
		does    string
		tree    map[string]string
		refused string
		// printed is on the standard output. Empty: a comparison with one release.
		printed string
	}{
		{does: "lets an unchanged tree through"},
		{does: "says that there is nothing to compare before the first release", printed: nothingToCompare,
			tree: map[string]string{"catalog/releases.yaml": "- {version: 1.0.0, commit: ''}\n"}},
		{does: "says that there is nothing to compare in a tree that prepares no release", printed: nothingToCompare,
			tree: map[string]string{"catalog/releases.yaml": "# no release yet\n"}},
		{does: "refuses a CRD that is too large, before the first release too", refused: "shorten descriptions",
			tree: map[string]string{
				"catalog/releases.yaml": "- {version: 1.0.0, commit: ''}\n",
				bases + "/things.yaml":  strings.Replace(old, "size: {type: integer, minimum", "size: {description: "+strings.Repeat("long-", maxBytes/5)+", type: integer, minimum", 1)}},
		{does: "refuses an allowance before the first release", refused: "1 breaks",
			tree: map[string]string{
				"catalog/releases.yaml":      "- {version: 1.0.0, commit: ''}\n",
				"hack/crdcheck/allowed.yaml": "- {release: 1.0.0, version: v1alpha1, path: .spec.name, check: maxLength, why: a test}\n"}},
		{does: "refuses a tree that drops a field", refused: "existingFieldRemoval: removed field : v1alpha1.^.spec.free",
			tree: map[string]string{bases + "/things.yaml": strings.Replace(old, "free: {type: object, x-kubernetes-preserve-unknown-fields: true}", "", 1)}},
		{does: "refuses a tree that drops a kind", refused: "example.com/Thing is gone",
			tree: map[string]string{bases + "/things.yaml": strings.ReplaceAll(old, "Thing", "Other")}},
		{does: "refuses a tree that refuses a sample of the release", refused: "Thing one: objects: refused now: spec: Invalid value",
			tree: map[string]string{bases + "/things.yaml": strings.ReplaceAll(old, "self.size > 0", "self.size > 3")}},
		{does: "refuses a tree that reads a stored object differently", refused: "Thing stored: objects: read differently now",
			tree: map[string]string{bases + "/things.yaml": strings.ReplaceAll(old, "name: {", "extra: {type: string, default: a}\n              name: {")}},
		{does: "lets through what is allowed with a reason",
			tree: map[string]string{
				bases + "/things.yaml":       strings.ReplaceAll(old, "shortNames: [th]", "shortNames: []"),
				"hack/crdcheck/allowed.yaml": "- {release: 1.0.0, version: '*', path: .spec.names.shortNames, check: names, why: a test}\n"}},
		{does: "refuses what OLM v1 refuses where nothing says what its users do", refused: ".spec.name: maxLength: ",
			tree: map[string]string{
				bases + "/things.yaml": strings.ReplaceAll(old, "maxLength: 10", "maxLength: 9"),
				"hack/crdcheck/allowed.yaml": "- {release: 1.0.0, version: v1alpha1, path: .spec.name, check: maxLength, why: a test}\n" +
					"- {release: 1.0.0, version: v1alpha0, path: .spec.name, check: maxLength, why: a test}\n"}},
		{does: "lets through what OLM v1 refuses, once it is said what its users do",
			tree: map[string]string{
				bases + "/things.yaml": strings.ReplaceAll(old, "maxLength: 10", "maxLength: 9"),
				"hack/crdcheck/allowed.yaml": "- {release: 1.0.0, version: v1alpha1, path: .spec.name, check: maxLength, why: a test, olmv1: turn the preflight off}\n" +
					"- {release: 1.0.0, version: v1alpha0, path: .spec.name, check: maxLength, why: a test, olmv1: turn the preflight off}\n"}},
		{does: "refuses an allowance without a reason", refused: "says nothing of why",
			tree: map[string]string{"hack/crdcheck/allowed.yaml": "- {release: 1.0.0, version: v1alpha1, path: .spec.name, check: maxLength}\n"}},
		{does: "refuses an allowance that nothing needs", refused: "1 breaks",
			tree: map[string]string{"hack/crdcheck/allowed.yaml": "- {release: 1.0.0, version: v1alpha1, path: .spec.name, check: maxLength, why: a test}\n"}},
		{does: "refuses a release whose commit is not there", refused: "reading release 2.0.0: git ls-tree",
			tree: map[string]string{"catalog/releases.yaml": "- {version: 2.0.0, commit: 0123456789012345678901234567890123456789}\n"}},
	} {
		t.Run(c.does, func(t *testing.T) {
			repo := released(t)
			for path, content := range c.tree {
				write(t, repo, path, content)
			}
			printed, said, err := output(t, func() error { return run([]string{"releases", "--repo", repo}) })
			if c.printed == "" {
				c.printed = "crdcheck: the CRDs follow 1 releases"
			}
			if c.refused == "" && !strings.HasPrefix(printed, c.printed) {
				t.Errorf("printed %q, want %q", printed, c.printed)
			}
			switch {
			case c.refused == "" && err != nil:
				t.Errorf("refused: %v\n%s", err, said)
			case c.refused != "" && err == nil:
				t.Errorf("not refused; want %q", c.refused)
			case c.refused != "" && !strings.Contains(said+err.Error(), c.refused):
				t.Errorf("said %v\n%s\nwant %q", err, said, c.refused)
			}
		})
	}
}

// tree is this repository.
const tree = "../.."

func TestThisTreeFollowsEveryRelease(t *testing.T) {
	printed, said, err := output(t, func() error { return run([]string{"releases", "--repo", tree}) })
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	if strings.TrimSpace(printed) == nothingToCompare {
		t.Skip(nothingToCompare)
	}
}

func TestThisTreesSamplesAndExamplesAreValid(t *testing.T) {
	listing, err := git(tree, "ls-files", "examples/*.yaml", "config/samples/operator_*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"objects", "--repo", tree}
	for path := range strings.FieldsSeq(string(listing)) {
		args = append(args, filepath.Join(tree, path))
	}
	if err := run(args); err != nil {
		t.Error(err)
	}
}

// TestTheAPIServerLeavesOutNoFieldOfTheInstalledCRD finds what Argo CD would report as a difference that never ends.
func TestTheAPIServerLeavesOutNoFieldOfTheInstalledCRD(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(tree, "dist/install.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for document := range strings.SplitSeq(string(raw), "\n---\n") {
		if !strings.Contains(document, "\nkind: CustomResourceDefinition\n") {
			continue
		}
		found++
		var written, kept struct{ Spec map[string]any }
		if err := yaml.Unmarshal([]byte(document), &written); err != nil {
			t.Fatal(err)
		}
		stored, err := yaml.Marshal(parse(t, document))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(stored, &kept); err != nil {
			t.Fatal(err)
		}
		for name, value := range written.Spec {
			if !reflect.DeepEqual(value, kept.Spec[name]) {
				t.Errorf("the API server leaves out spec.%s, or a part of it", name)
			}
		}
	}
	if found == 0 {
		t.Error("there is no CRD in dist/install.yaml")
	}
}

func TestObjectsAreValidatedAsTheAPIServerWould(t *testing.T) {
	repo := released(t)
	for _, c := range []struct{ does, object, refused string }{
		{does: "takes a valid one", object: sample},
		{does: "refuses an unknown field", object: strings.Replace(sample, "size: 3", "size: 3, sise: 3", 1), refused: "unknown field spec.sise"},
		{does: "refuses a missing field", object: strings.Replace(sample, "size: 3, ", "", 1), refused: "spec.size: Required value"},
		{does: "refuses what a rule refuses", object: strings.Replace(sample, "size: 3", "size: 0", 1), refused: "spec: Invalid value"},
		{does: "refuses an unknown version", object: strings.Replace(sample, "v1alpha1", "v9", 1), refused: `Unsupported value: "v9"`},
		{does: "refuses a file without an object of ours", object: "kind: Other\n", refused: "no object of a kind of ours"},
	} {
		t.Run(c.does, func(t *testing.T) {
			write(t, repo, "object.yaml", c.object)
			err := run([]string{"objects", "--repo", repo, filepath.Join(repo, "object.yaml")})
			if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
				t.Errorf("said %v, want %q", err, c.refused)
			}
		})
	}
}

func parse(t *testing.T, raw string) *crd {
	t.Helper()
	parsed := &crd{}
	if err := yaml.UnmarshalStrict([]byte(raw), parsed); err != nil {
		t.Fatal(err)
	}
	return parsed
}

// released is a repository with release 1.0.0 in it.
func released(t *testing.T) string {
	t.Helper()
	repo := t.TempDir()
	write(t, repo, bases+"/things.yaml", old)
	write(t, repo, "config/samples/thing.yaml", sample)
	write(t, repo, "examples/README.md", "not an object")
	write(t, repo, "hack/crdcheck/stored/1.0.0.yaml", strings.ReplaceAll(strings.ReplaceAll(sample, "one", "stored"), "mode: B, ", ""))
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "Release"}} {
		if out, err := exec.Command("git", append([]string{"-C", repo}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	commit, err := git(repo, "rev-parse", "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	write(t, repo, "catalog/releases.yaml", "- version: 1.0.0\n  commit: "+string(commit)+"- version: 1.1.0\n  commit: \"\"\n")
	return repo
}

func write(t *testing.T, repo, path, content string) {
	t.Helper()
	path = filepath.Join(repo, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// output runs what prints, and returns what it prints to the standard output and the standard error.
func output(t *testing.T, run func() error) (printed, said string, err error) {
	t.Helper()
	dir := t.TempDir()
	files := make([]*os.File, 2)
	for i, name := range []string{"stdout", "stderr"} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[i] = file
	}
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = files[0], files[1]
	err = run()
	os.Stdout, os.Stderr = stdout, stderr
	texts := make([]string, len(files))
	for i, file := range files {
		_ = file.Close()
		raw, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(raw)
	}
	return texts[0], texts[1], err
}
