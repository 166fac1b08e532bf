//go:build integration

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// creation is a spec, in YAML, and what the API server says to it: nothing, or the messages that begin like this.
type creation struct {
	does, name, spec string
	refused          []string
}

// update is a spec before and after.
type update struct {
	does, from, to string
	refused        []string
}

func TestTheAPIServerRefusesBadClustersAndTellsWhatToDo(t *testing.T) {
	t.Parallel()
	t.Run("v1alpha1", func(t *testing.T) { testAdmission(t, "v1alpha1", creations, updates) })
	t.Run("v1beta1", func(t *testing.T) { testAdmission(t, "v1beta1", betaCreations, betaUpdates) })
}

// testAdmission also proves that every rule of the version's schema refuses something.
func testAdmission(t *testing.T, version string, creations []creation, updates []update) {
	t.Parallel()
	rules := &ruleBook{messages: ruleMessages(t, version), refused: map[string]bool{}}
	namespace := newNamespace(t)
	t.Run("at creation", func(t *testing.T) {
		for _, c := range creations {
			t.Run(c.does, func(t *testing.T) {
				t.Parallel()
				object := decode(t, version, namespace, c.spec)
				if c.name != "" {
					object.SetName(c.name)
				}
				rules.expect(t, admin.Create(t.Context(), object, client.DryRunAll), c.refused)
			})
		}
	})
	t.Run("at a change", func(t *testing.T) {
		for _, c := range updates {
			t.Run(c.does, func(t *testing.T) {
				t.Parallel()
				before := decode(t, version, namespace, c.from)
				before.SetName("")
				before.SetGenerateName("prod-")
				must(t, admin.Create(t.Context(), before))
				after := decode(t, version, namespace, c.to)
				after.SetName(before.GetName())
				after.SetResourceVersion(before.GetResourceVersion())
				rules.expect(t, admin.Update(t.Context(), after, client.DryRunAll), c.refused)
			})
		}
	})
	for _, message := range rules.messages {
		if !rules.refused[message] {
			t.Errorf("no case is refused with: %s", message)
		}
	}
}

// ruleBook knows the messages of all rules, and which of them were seen.
type ruleBook struct {
	messages []string

	mu      sync.Mutex
	refused map[string]bool
}

// expect fails unless the API server answered with exactly the messages that begin as wanted.
func (r *ruleBook) expect(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		must(t, err)
		return
	}
	var status *apierrors.StatusError
	if !errors.As(err, &status) || status.ErrStatus.Reason != metav1.StatusReasonInvalid {
		t.Fatalf("error = %v, want a refusal", err)
	}
	var have []string
	for _, cause := range status.ErrStatus.Details.Causes {
		for _, message := range r.messages {
			if strings.HasSuffix(cause.Message, ": "+message) {
				have = append(have, message)
			}
		}
	}
	for _, beginning := range want {
		i := slices.IndexFunc(have, func(message string) bool { return strings.HasPrefix(message, beginning) })
		if i < 0 {
			t.Fatalf("the API server says %v, want %q", err, beginning)
		}
		r.mu.Lock()
		r.refused[have[i]] = true
		r.mu.Unlock()
	}
	if len(have) != len(want) || len(status.ErrStatus.Details.Causes) != len(want) {
		t.Errorf("the API server says %v, want %q alone", err, want)
	}
}

// ruleMessages returns the messages of the rules in a version's schema.
func ruleMessages(t *testing.T, version string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "config", "crd", "bases", "operator.etcd-warden.io_etcdclusters.yaml"))
	must(t, err)
	var definition apiextensionsv1.CustomResourceDefinition
	must(t, yaml.Unmarshal(raw, &definition))
	var messages []string
	for _, v := range definition.Spec.Versions {
		if v.Name == version {
			delete(v.Schema.OpenAPIV3Schema.Properties, "status") // users write specs
			collectMessages(*v.Schema.OpenAPIV3Schema, &messages)
		}
	}
	if len(messages) == 0 {
		t.Fatal("the schema has no rules")
	}
	slices.Sort(messages)
	return slices.Compact(messages)
}

func collectMessages(schema apiextensionsv1.JSONSchemaProps, messages *[]string) {
	for _, rule := range schema.XValidations {
		*messages = append(*messages, rule.Message)
	}
	for _, property := range schema.Properties {
		collectMessages(property, messages)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		collectMessages(*schema.Items.Schema, messages)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		collectMessages(*schema.AdditionalProperties.Schema, messages)
	}
}

func decode(t *testing.T, version, namespace, spec string) *unstructured.Unstructured {
	t.Helper()
	var content map[string]any
	must(t, yaml.Unmarshal([]byte(spec), &content))
	object := &unstructured.Unstructured{Object: map[string]any{"spec": content}}
	object.SetAPIVersion(v1beta1.GroupVersion.Group + "/" + version)
	object.SetKind("EtcdCluster")
	object.SetNamespace(namespace)
	object.SetName(name)
	return object
}
