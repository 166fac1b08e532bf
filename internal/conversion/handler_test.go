package conversion

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apix "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/conversion"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// reference is the handler of controller-runtime with our conversion.
func reference(t testing.TB) http.Handler {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	converter, err := conversion.NewHubSpokeConverter(&v1beta1.EtcdCluster{}, conversion.NewSpokeConverter(&v1alpha1.EtcdCluster{},
		func(_ context.Context, hub *v1beta1.EtcdCluster, spoke *v1alpha1.EtcdCluster) error {
			FromHub(hub, spoke)
			return nil
		},
		func(_ context.Context, spoke *v1alpha1.EtcdCluster, hub *v1beta1.EtcdCluster) error {
			ToHub(spoke, hub)
			return nil
		},
	))(scheme)
	if err != nil {
		t.Fatal(err)
	}
	registry := conversion.NewRegistry()
	if err := registry.RegisterConverter(v1beta1.GroupVersion.WithKind("EtcdCluster").GroupKind(), converter); err != nil {
		t.Fatal(err)
	}
	return conversion.NewWebhookHandler(scheme, registry)
}

// newReview returns the request of the API server.
func newReview(desired string, objects ...[]byte) []byte {
	r := apix.ConversionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "ConversionReview"},
		Request:  &apix.ConversionRequest{UID: "7\"", DesiredAPIVersion: "operator.etcd-warden.io/" + desired},
	}
	for _, object := range objects {
		r.Request.Objects = append(r.Request.Objects, runtime.RawExtension{Raw: object})
	}
	return asJSON(r)
}

func ask(t *testing.T, handler http.Handler, body []byte) apix.ConversionReview {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/convert", bytes.NewReader(body)))
	var answer apix.ConversionReview
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%d %s: %v", recorder.Code, recorder.Body, err)
	}
	if answer.Response == nil || answer.Request != nil {
		t.Fatalf("the answer is %s", recorder.Body)
	}
	return answer
}

func withKind[T any](t *testing.T, object T, version string) []byte {
	t.Helper()
	tree := asTree(object)
	tree["apiVersion"], tree["kind"] = "operator.etcd-warden.io/"+version, "EtcdCluster"
	return asJSON(tree)
}

func TestTheHandlerGivesTheAnswersOfControllerRuntime(t *testing.T) {
	from, other := newSource(t), reference(t)
	for range 100 {
		var hubs, spokes [][]byte
		for range 3 {
			hub, spoke := from.hub(), from.spoke()
			hubs = append(hubs, withKind(t, hub, "v1beta1"), withKind(t, hubOf(spoke), "v1beta1"))
			spokes = append(spokes, withKind(t, spoke, "v1alpha1"), withKind(t, spokeOf(hub), "v1alpha1"))
		}
		for _, body := range [][]byte{newReview("v1alpha1", hubs...), newReview("v1beta1", spokes...)} {
			got, want := ask(t, Handler(), body), ask(t, other, body)
			if got.TypeMeta != want.TypeMeta || got.Response.UID != want.Response.UID || got.Response.Result.Status != want.Response.Result.Status {
				t.Fatalf("the answer is %s, want %s", asJSON(got), asJSON(want))
			}
			for n := range want.Response.ConvertedObjects {
				var a, b map[string]any
				if err := json.Unmarshal(want.Response.ConvertedObjects[n].Raw, &a); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(got.Response.ConvertedObjects[n].Raw, &b); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(a, b); diff != "" {
					t.Fatalf("(-controller-runtime +ours):\n%s", diff)
				}
			}
		}
	}
}

func TestTheHandlerCopiesMetadataUnchanged(t *testing.T) {
	const metadata = `{"name":"prod","namespace":"shop","annotations":{"a\u003c":"\u003c\"}","b":""},"managedFields":[{"fieldsV1":{"f:spec":{"k:{\"a\":\"]\"}":{}}}}],"unknown":1.50}`
	object := []byte(`{"apiVersion":"operator.etcd-warden.io/v1beta1", "kind":"EtcdCluster", "metadata":` + metadata + `,"spec":{"replicas":3}}`)
	there := ask(t, Handler(), newReview("v1alpha1", object)).Response.ConvertedObjects[0].Raw
	if !strings.Contains(string(there), `"v1beta1.operator.etcd-warden.io/spec.tls.peer":"null"`) {
		t.Fatalf("nothing is saved in %s", there)
	}
	back := ask(t, Handler(), newReview("v1beta1", there)).Response.ConvertedObjects[0].Raw
	var want, got struct {
		Metadata json.RawMessage `json:"metadata"`
	}
	for raw, into := range map[string]any{string(object): &want, string(back): &got} {
		if err := json.Unmarshal([]byte(raw), into); err != nil {
			t.Fatal(err)
		}
	}
	var a, b map[string]json.RawMessage
	if err := json.Unmarshal(want.Metadata, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got.Metadata, &b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func TestTheHandlerSaysWhatItCannotConvert(t *testing.T) {
	object := func(version, spec string) []byte {
		return []byte(`{"apiVersion":"operator.etcd-warden.io/` + version + `","kind":"EtcdCluster","metadata":{"namespace":"shop","name":"prod"},"spec":` + spec + `}`)
	}
	for name, test := range map[string]struct {
		desired string
		object  []byte
		want    []string
	}{
		"another version":       {"v2", object("v1beta1", "{}"), []string{"shop/prod", "no conversion from operator.etcd-warden.io/v1beta1 to operator.etcd-warden.io/v2"}},
		"the same version":      {"v1beta1", object("v1beta1", "{}"), []string{"no conversion from"}},
		"another kind":          {"v1beta1", []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{}}`), []string{"no conversion of v1 Pod"}},
		"no metadata":           {"v1beta1", []byte(`{"apiVersion":"operator.etcd-warden.io/v1alpha1","kind":"EtcdCluster"}`), []string{"no metadata"}},
		"a spec of other types": {"v1beta1", object("v1alpha1", `{"size":"three"}`), []string{"shop/prod", "spec", "size"}},
	} {
		t.Run(name, func(t *testing.T) {
			answer := ask(t, Handler(), newReview(test.desired, test.object))
			if answer.Response.Result.Status != metav1.StatusFailure || len(answer.Response.ConvertedObjects) != 0 || answer.Response.UID != "7\"" {
				t.Fatalf("the answer is %s, want a failure", asJSON(answer))
			}
			for _, want := range test.want {
				if !strings.Contains(answer.Response.Result.Message, want) {
					t.Errorf("the message is %q, want %q in it", answer.Response.Result.Message, want)
				}
			}
		})
	}
}

func TestTheHandlerRefusesABodyThatIsNoReview(t *testing.T) {
	for _, body := range []string{"", "null", "{", "[]", `{"request":{}}`, `{"apiVersion":"v1","request":{"uid":"u","objects":[{}`, `{"apiVersion":"v1","request":{"uid":"u","objects":7}}`} {
		recorder := httptest.NewRecorder()
		Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/convert", strings.NewReader(body)))
		if recorder.Code != http.StatusBadRequest {
			t.Errorf("%q is answered with %d %s", body, recorder.Code, recorder.Body)
		}
	}
}

// The scanner finds the same members as encoding/json if the input is a JSON object. It never panics and always ends.
func TestTheScannerFindsTheMembersOfEveryObject(t *testing.T) {
	r := newSource(t).rand
	seeds := []string{`{"a":[1,"\\\"]",{"b":null}], "c" : -1.5e3}`, `{"a":{"b":[[],{},""]},"":"\u0041"}`, ` {"a" :true,"b": false}`, `{}`}
	for range rounds {
		raw := []byte(seeds[r.Intn(len(seeds))])
		for range r.Intn(3) {
			raw[r.Intn(len(raw))] = oneOf(r, []byte("{}[]\",:\\ 0n")...)
		}
		raw = raw[:len(raw)-r.Intn(2)]
		var want map[string]json.RawMessage
		got := map[string]json.RawMessage{}
		err := members(raw, func(key string, value []byte) error {
			got[key] = value
			return nil
		})
		if json.Unmarshal(raw, &want) != nil {
			continue
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%s: %v (-want +got):\n%s", raw, err, diff)
		}
	}
}
