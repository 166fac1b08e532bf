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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// validatorOf returns a function that validates a new object as the API server does.
func validatorOf(t *testing.T, version string) func(object map[string]any) field.ErrorList {
	t.Helper()
	for _, v := range definition(t).Spec.Versions {
		if v.Name != version {
			continue
		}
		var props apiextensions.JSONSchemaProps
		if err := apix.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, &props, nil); err != nil {
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
		return func(object map[string]any) field.ErrorList {
			errs := validation.ValidateCustomResource(nil, object, values)
			more, _ := rules.Validate(context.Background(), nil, structural, object, nil, celconfig.RuntimeCELCostBudget)
			return append(errs, more...)
		}
	}
	t.Fatalf("no version %s", version)
	return nil
}

// hubSchema returns a function that validates a new object in v1beta1 as the API server does.
func hubSchema(t *testing.T) func(*v1beta1.EtcdCluster) field.ErrorList {
	t.Helper()
	validate := validatorOf(t, "v1beta1")
	return func(hub *v1beta1.EtcdCluster) field.ErrorList {
		var object map[string]any
		if err := utiljson.Unmarshal(withKind(t, hub, "v1beta1"), &object); err != nil {
			t.Fatal(err)
		}
		return validate(object)
	}
}

// wildValues are values that a Go type may fail to decode.
var wildValues = []string{
	"3000000000", "-3000000000", "99999999999", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1e3", "1e15", "1e18", "1e19", "1e30", "1.5", "1.0", "-1",
	`""`, `"x"`, `"1e1.5"`, `"1e"`, `"1KiB"`, `"1Ei"`, `"1e999999999"`, `"2026-01-01T00:00:00Z"`, `"2026-13-01T00:00:00Z"`, `"2026-01-01"`, "null", "true", "[]", "{}", "[null]",
}

// wildObjects are the contents of objects, with W for a wild value.
var wildObjects = map[string][]string{
	"v1alpha1": {
		`"spec":{"size":W}`, `"spec":{"size":3,"version":W}`, `"spec":{"size":3,"paused":W}`, `"spec":{"size":3,"TLS":W}`,
		`"spec":{"size":3,"pod":W}`, `"spec":{"size":3,"pod":{"DNSTimeoutInSecond":W}}`, `"spec":{"size":3,"pod":{"labels":{"a":W}}}`, `"spec":{"size":3,"pod":{"etcdEnv":[W]}}`,
		`"spec":{"size":3,"pod":{"resources":{"limits":{"cpu":W}}}}`, `"spec":{"size":3,"pod":{"persistentVolumeClaimSpec":{"resources":{"requests":{"storage":W}}}}}`,
		`"spec":{"size":3,"pod":{"tolerations":[{"tolerationSeconds":W}]}}`, `"spec":{"size":3,"pod":{"securityContext":{"runAsUser":W}}}`,
		`"spec":{"size":3,"pod":{"affinity":{"podAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":W,"podAffinityTerm":{"topologyKey":"a"}}]}}}}`,
		`"spec":{"size":3},"status":{"size":W}`, `"spec":{"size":3},"status":{"observedGeneration":W}`, `"spec":{"size":3},"status":{"members":W}`,
		`"spec":{"size":3},"status":{"operation":{"type":"A","startedAt":W}}`,
	},
	"v1beta1": {
		`"spec":{"replicas":W}`, `"spec":{"replicas":3,"config":{"quotaBackendBytes":W}}`, `"spec":{"replicas":3,"config":{"extraArgs":{"a":W}}}`,
		`"spec":{"replicas":3,"image":W}`, `"spec":{"replicas":3,"image":{"tag":W}}`, `"spec":{"replicas":3,"image":{"digest":W}}`,
		`"spec":{"replicas":3,"updateStrategy":W}`, `"spec":{"replicas":3,"updateStrategy":{"progressDeadlineSeconds":W}}`,
		`"spec":{"replicas":3},"status":{"ready":W}`, `"spec":{"replicas":3},"status":{"operation":{"type":"A","startedAt":"2026-01-01T00:00:00Z","waitingFor":W}}`,
		`"spec":{"replicas":3,"resources":{"requests":{"memory":W}}}`, `"spec":{"replicas":3,"tls":{"client":W}}`, `"spec":{"replicas":3,"podTemplate":W}`,
		`"spec":{"replicas":3,"storage":{"volumeClaimTemplate":{"spec":{"resources":{"requests":{"storage":W}}}}}}`,
		`"spec":{"replicas":3,"podTemplate":{"spec":{"topologySpreadConstraints":[{"maxSkew":W,"topologyKey":"a","whenUnsatisfiable":"DoNotSchedule"}]}}}`,
		`"spec":{"replicas":3,"podTemplate":{"spec":{"topologySpreadConstraints":[{"maxSkew":1,"minDomains":W,"topologyKey":"a","whenUnsatisfiable":"DoNotSchedule"}]}}}`,
		`"spec":{"replicas":3,"podTemplate":{"spec":{"securityContext":{"supplementalGroups":[W]}}}}`, `"spec":{"replicas":3,"podTemplate":{"spec":{"imagePullSecrets":[W]}}}`,
		`"spec":{"replicas":3},"status":{"replicas":W}`, `"spec":{"replicas":3},"status":{"clientPort":W}`, `"spec":{"replicas":3},"status":{"members":[{"name":"a","role":"Voter","ready":W}]}`,
		`"spec":{"replicas":3},"status":{"conditions":[{"type":"A","status":"True","reason":"B","message":"","lastTransitionTime":W}]}`,
	},
}

// Without the check, decoding one of these takes hours. Requests reach conversion before the schema checks them.
func TestRefusesQuantitiesThatTakeHoursToDecode(t *testing.T) {
	for version, specs := range map[string][]string{
		"v1alpha1": {`{"size":3,"pod":{"resources":{"limits":{"cpu":"1e999999999"}}}}`, `{"size":3,"pod":{"resources":{"requests":{"cpu":"1\u0065999999999"}}}}`,
			`{"size":3,"pod":{"persistentVolumeClaimSpec":{"resources":{"requests":{"storage":"1E+999999999"}}}}}`},
		"v1beta1": {`{"replicas":3,"config":{"quotaBackendBytes":"1e-999999999"}}`, `{"replicas":3,"resources":{"limits":{"cpu":".5e999999999"}}}`},
	} {
		other := map[string]string{"v1alpha1": "v1beta1", "v1beta1": "v1alpha1"}[version]
		for _, text := range specs {
			raw := `{"apiVersion":"operator.etcd-warden.io/` + version + `","kind":"EtcdCluster","metadata":{"name":"prod"},"spec":` + text + `}`
			answer := ask(t, Handler(), newReview(other, []byte(raw))).Response
			if answer.Result.Status != metav1.StatusFailure || !strings.Contains(answer.Result.Message, "exponent") {
				t.Errorf("%s: the answer is %s, want a failure", text, asJSON(answer))
			}
		}
	}
	spoke := &v1alpha1.EtcdCluster{}
	specOf(t, `{size: 3, pod: {labels: {a: 1e999}}}`, &spoke.Spec)
	want := hubOf(spoke)
	for _, value := range []string{`"1e999999999"`, `"1\u0065999999999"`} {
		spoke.Annotations = map[string]string{HubPrefix + "spec.config.quotaBackendBytes": value}
		wantSame(t, want.Spec, hubOf(spoke).Spec)
	}
	answer := ask(t, Handler(), newReview("v1beta1", withKind(t, spoke, "v1alpha1"))).Response
	if answer.Result.Status != metav1.StatusSuccess {
		t.Errorf("a label with an exponent is refused: %s", answer.Result.Message)
	}
}

// One object that cannot be converted makes the list of all objects fail.
func TestEveryObjectThatASchemaAcceptsCanBeConverted(t *testing.T) {
	accepted := 0
	for version, objects := range wildObjects {
		validate, other := validatorOf(t, version), map[string]string{"v1alpha1": "v1beta1", "v1beta1": "v1alpha1"}[version]
		for _, contents := range objects {
			for _, value := range wildValues {
				var object map[string]any
				raw := `{"apiVersion":"operator.etcd-warden.io/` + version + `","kind":"EtcdCluster","metadata":{"name":"prod"},` + strings.Replace(contents, "W", value, 1) + `}`
				if err := utiljson.Unmarshal([]byte(raw), &object); err != nil {
					t.Fatal(err)
				}
				if len(validate(object)) > 0 {
					continue
				}
				accepted++
				if answer := ask(t, Handler(), newReview(other, asJSON(object))).Response; answer.Result.Status != metav1.StatusSuccess {
					t.Errorf("%s accepts %s for W in %s: %s", version, value, contents, answer.Result.Message)
				}
			}
		}
	}
	t.Logf("the schemas accepted %d objects", accepted)
	if accepted < 50 {
		t.Error("the schemas accepted too few objects to prove anything")
	}
}

// tampered are fields that v1alpha1 lacks, or for which it lacks some values.
var tampered = []string{
	"image.tag", "image.digest", "image.pullPolicy", "updateStrategy", "updateStrategy.operatorUpgrade", "updateStrategy.progressDeadlineSeconds",
	"storage", "storage.retentionPolicy", "storage.retentionPolicy.whenScaled", "storage.retentionPolicy.whenReplaced", "storage.ephemeral",
	"recovery", "recovery.memberReplacement", "recovery.memberReplacement.policy", "recovery.memberReplacement.after",
	"maintenance", "maintenance.consistencyCheck",
	"tls", "tls.client", "tls.peer", "config", "config.quotaBackendBytes", "config.autoCompaction",
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

// In v1alpha1 these are all the option ETCD_A_B, so the annotation looks like what the client did not change.
func TestNoAnnotationAddsNamesOfOptionsThatTheSchemaRefuses(t *testing.T) {
	validate := hubSchema(t)
	spoke := &v1alpha1.EtcdCluster{}
	specOf(t, `{size: 3, pod: {etcdEnv: [{name: ETCD_A_B, value: v}]}}`, &spoke.Spec)
	spoke.Name = "prod"
	for _, options := range []string{`{"A_B":"v"}`, `{"a_b":"v"}`, `{"a-b":"v","A-b":"v"}`} {
		spoke.Annotations = map[string]string{HubPrefix + "spec.config.extraArgs": options}
		hub := hubOf(spoke)
		if errs := validate(hub); len(errs) > 0 {
			t.Errorf("%s: the schema refuses %v: %v", options, hub.Spec.Config.ExtraArgs, errs)
		}
		if hub.Spec.Config.ExtraArgs["a-b"] != "v" {
			t.Errorf("%s: the options are %v", options, hub.Spec.Config.ExtraArgs)
		}
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
