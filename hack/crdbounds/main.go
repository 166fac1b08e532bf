// Command crdbounds adds limits to the schemas of CustomResourceDefinitions:
//
//	crdbounds config/crd/bases/*.yaml
//
// It runs after controller-gen. The markers in api/ set the limits of our own fields.
// The types of Kubernetes have no such markers, so this command gives a limit to each list,
// map, string and 32-bit number that has none. The limits are larger than what Kubernetes accepts in a pod,
// or than what a pod needs.
// A later release may raise a limit, but OLM v1 refuses a release that lowers one.
package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: crdbounds FILE.yaml...")
		os.Exit(2)
	}
	for _, file := range os.Args[1:] {
		if err := boundFile(file); err != nil {
			fmt.Fprintf(os.Stderr, "crdbounds: %s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

func boundFile(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	bounded, err := boundDefinition(raw)
	if err != nil {
		return err
	}
	return os.WriteFile(file, bounded, 0o644)
}

// boundDefinition returns a definition in YAML with limits in the schemas of all its versions.
func boundDefinition(raw []byte) ([]byte, error) {
	var definition map[string]any
	if err := yaml.Unmarshal(raw, &definition); err != nil {
		return nil, err
	}
	versions, ok := at(definition, "spec", "versions").([]any)
	if !ok {
		return nil, fmt.Errorf("it has no spec.versions")
	}
	for _, version := range versions {
		root, ok := at(version, "schema", "openAPIV3Schema").(map[string]any)
		if !ok {
			return nil, fmt.Errorf("a version has no schema")
		}
		properties, _ := root["properties"].(map[string]any)
		for _, part := range []string{"spec", "status"} { // the API server itself limits the other properties
			if schema, ok := properties[part].(map[string]any); ok {
				bound("."+part, schema)
			}
		}
	}
	bounded, err := yaml.Marshal(definition)
	return append([]byte("---\n"), bounded...), err
}

func at(tree any, path ...string) any {
	for _, name := range path {
		branch, _ := tree.(map[string]any)
		tree = branch[name]
	}
	return tree
}

// The limits of what has no entry in a table below.
const (
	listItems     = 64
	mapEntries    = 64
	stringLength  = labelKey
	labelKey      = 253 + 1 + 63 // PREFIX/NAME
	labelValue    = 63
	quantity      = 64
	annotation    = 64 << 10
	fileName      = 4096
	windowsUser   = 512
	gmsaSpec      = 64 << 10
	selectorItems = 1024
)

// longLists are the lists that may have more than listItems.
var longLists = map[string]int64{
	"values": selectorItems, // of a selector: a node affinity may name each node
}

// lengths are the limits of strings by the name of the field. NAME{} is a value of a map, NAME[] an item of a list.
var lengths = map[string]int64{
	"annotations{}":      annotation,
	"extraArgs{}":        1024,
	"labels{}":           labelValue,
	"nodeSelector{}":     labelValue,
	"matchLabels{}":      labelValue,
	"limits{}":           quantity,
	"requests{}":         quantity,
	"quotaBackendBytes":  quantity,
	"startedAt":          64,
	"lastTransitionTime": 64,
	"localhostProfile":   fileName,
	"value":              fileName, // of a sysctl or a toleration
	"runAsUserName":      windowsUser,
	"gmsaCredentialSpec": gmsaSpec,
}

// bound adds limits to a schema and to all schemas in it.
func bound(path string, schema map[string]any) {
	name := path[strings.LastIndex(path, ".")+1:]
	switch kind := schema["type"]; {
	case kind == "array":
		setDefault(schema, "maxItems", cmp.Or(longLists[name], listItems))
		if items, ok := schema["items"].(map[string]any); ok {
			bound(path+"[]", items)
		}
	case kind == "object":
		if values, ok := schema["additionalProperties"].(map[string]any); ok {
			setDefault(schema, "maxProperties", mapEntries)
			boundKeys(schema)
			bound(path+"{}", values)
		}
		properties, _ := schema["properties"].(map[string]any)
		for name, property := range properties {
			bound(path+"."+name, property.(map[string]any))
		}
	case (kind == "string" && schema["enum"] == nil) || schema["x-kubernetes-int-or-string"] == true:
		setDefault(schema, "maxLength", cmp.Or(lengths[name], stringLength))
		if schema["format"] == "date-time" {
			requireTime(schema)
		}
	case kind == "integer" && schema["format"] == "int32":
		// Older API servers, such as Kubernetes 1.34, do not check the format.
		// They would store a number that no client can decode.
		setDefault(schema, "minimum", math.MinInt32)
		setDefault(schema, "maximum", math.MaxInt32)
	}
}

// boundKeys limits the length of the keys of a map, unless a rule of the map does so.
// A schema has no other way to do it.
func boundKeys(schema map[string]any) {
	rules, _ := schema["x-kubernetes-validations"].([]any)
	for _, rule := range rules {
		if text := fmt.Sprint(at(rule, "rule")); strings.Contains(text, "size(k) <=") || strings.Contains(text, "k == '") {
			return
		}
	}
	schema["x-kubernetes-validations"] = append(rules, map[string]any{
		"rule":    fmt.Sprintf("self.all(k, size(k) <= %d)", labelKey),
		"message": fmt.Sprintf("a key may have at most %d characters. Write a shorter key.", labelKey),
	})
}

// requireTime refuses a list in the place of a time. The API server checks the format of texts only, so it would accept
// a list that no client can decode.
func requireTime(schema map[string]any) {
	if schema["x-kubernetes-validations"] == nil {
		schema["x-kubernetes-validations"] = []any{map[string]any{
			"rule":    "self >= timestamp('0001-01-01T00:00:00Z')",
			"message": "write a time, for example 2026-01-02T15:04:05Z.",
		}}
	}
}

func setDefault(schema map[string]any, limit string, value int64) {
	if schema[limit] == nil {
		schema[limit] = value
	}
}
