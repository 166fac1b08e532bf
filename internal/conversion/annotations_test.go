package conversion

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// One unreadable annotation must not make the list of all objects fail.
func TestIgnoresAndKeepsAnUnreadableAnnotation(t *testing.T) {
	const good = "spec.podTemplate.spec.priorityClassName"
	for name, unreadable := range map[string]lostFields{
		"no JSON":               {"spec.bootstrap.existingVolumes": `garbage`},
		"nothing":               {"spec.bootstrap.existingVolumes": ``},
		"a second value":        {"spec.bootstrap.existingVolumes": `"Ignore""Ignore"`},
		"another type":          {"spec.bootstrap.existingVolumes": `7`},
		"an unknown word":       {"spec.bootstrap.existingVolumes": `"Eat"`},
		"an unknown field":      {"spec.colour": `"red"`},
		"a field of a text":     {good + ".colour": `"red"`},
		"unknown inside a list": {"spec.podTemplate.spec.imagePullSecrets": `[{"colour":"red"}]`},
		"a struct with fields":  {"spec.bootstrap": `{"existingVolumes":"Ignore"}`},
		"the spec":              {"spec": `null`},
		"no path":               {"": `{}`},
		"metadata":              {"metadata.name": `"other"`},
		"a wrong half":          {"spec.config.autoCompaction.mode": `"Periodic"`, "spec.config.autoCompaction.retention": `"1 h"`},
		"certificates of two":   {"spec.tls.client": absentStruct, "spec.tls.client.mode": `"Managed"`, "spec.tls.client.certManager.issuerRef.name": `"ca"`},
		"an empty issuer":       {"spec.tls.client": absentStruct, "spec.tls.client.certManager": emptyStruct},
		"an issuer of no name":  {"spec.tls.peer": absentStruct, "spec.tls.peer.certManager.issuerRef.kind": `"Issuer"`},
	} {
		t.Run(name, func(t *testing.T) {
			spoke := &v1alpha1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
				"example.com/other": "x", HubPrefix + good: `"high"`,
			}}}
			specOf(t, `{size: 3, pod: {etcdEnv: [{name: ETCD_AUTO_COMPACTION_MODE, value: periodic}, {name: ETCD_AUTO_COMPACTION_RETENTION, value: 1 h}]}}`, &spoke.Spec)
			for path, value := range unreadable {
				if value == absentStruct && strings.HasPrefix(path, "spec.tls") {
					spoke.Annotations[HubPrefix+path] = value // "null" can be read
				}
			}
			want := hubOf(spoke)
			for path, value := range unreadable {
				if _, read := spoke.Annotations[HubPrefix+path]; !read {
					spoke.Annotations[HubPrefix+path] = value
					want.Annotations[HubPrefix+path] = value
				}
			}
			hub := hubOf(spoke)
			wantSame(t, want, hub)
			wantSame(t, spoke, spokeOf(hub))
			if hub.Spec.PodTemplate.Spec.PriorityClassName != "high" {
				t.Errorf("the readable field is lost: %s", asJSON(hub.Spec))
			}

			other := withKind(t, &v1alpha1.EtcdCluster{}, "v1alpha1")
			answer := ask(t, Handler(), newReview("v1beta1", other, withKind(t, spoke, "v1alpha1"))).Response
			if answer.Result.Status != metav1.StatusSuccess || len(answer.ConvertedObjects) != 2 {
				t.Fatalf("the answer is %s", asJSON(answer))
			}
			var listed v1beta1.EtcdCluster
			fromTree(t, asTree(answer.ConvertedObjects[1]), &listed)
			wantSame(t, without(asTree(want), nil), without(asTree(listed), nil))
			wantSame(t, want.Annotations, listed.Annotations)
		})
	}
}

func TestIgnoresAndKeepsAnUnreadableAnnotationInV1beta1(t *testing.T) {
	for path, value := range map[string]string{
		"spec.pod.DNSTimeoutInSecond": `garbage`, "spec.pod.busyboxImage": `7`, "spec.pod": `7`, "spec.colour": `"red"`, "spec.pod.etcdEnv": `{}`,
	} {
		hub := &v1beta1.EtcdCluster{}
		specOf(t, `{replicas: 3}`, &hub.Spec)
		want := spokeOf(hub)
		want.Annotations[SpokePrefix+path] = value
		hub.Annotations = map[string]string{SpokePrefix + path: value}
		wantSame(t, want, spokeOf(hub))
		wantSame(t, hub, hubOf(spokeOf(hub)))
	}
}

// A user may write an annotation of the other direction. It must not change the object when a client of v1alpha1
// patches it.
func TestIgnoresAnAnnotationThatItDidNotWrite(t *testing.T) {
	for path, value := range map[string]string{
		"spec.bootstrap.existingVolumes": `"Ignore"`, "spec.tls.client.mode": `"Disabled"`, "spec.tls.client.secretRef.name": `"s"`, "spec.paused": `true`,
	} {
		hub := &v1beta1.EtcdCluster{}
		specOf(t, `{replicas: 3, tls: {client: {certManager: {issuerRef: {name: ca}}}}}`, &hub.Spec)
		hub.Annotations = map[string]string{HubPrefix + path: value}
		wantSame(t, hub.Spec, hubOf(spokeOf(hub)).Spec)
	}
	spoke := &v1alpha1.EtcdCluster{}
	specOf(t, `{size: 3}`, &spoke.Spec)
	spoke.Annotations = map[string]string{SpokePrefix + "spec.pod.busyboxImage": `"busybox"`}
	wantSame(t, spoke.Spec, spokeOf(hubOf(spoke)).Spec)
}

// Server-side apply withdraws an annotation as a whole. Lists are atomic in both schemas, so one annotation is enough.
// A map that only one version has would need an annotation for each key.
func TestSavesNoMapInOneAnnotation(t *testing.T) {
	from := newSource(t)
	check := func(t *testing.T, object reflect.Type, saved lostFields) {
		for path := range saved {
			at := object
			for name := range strings.SplitSeq(path, ".") {
				if at.Kind() == reflect.Pointer {
					at = at.Elem()
				}
				for _, f := range savedStructs.fieldsOf(at) {
					if f.name == name {
						at = at.Field(f.index).Type
						break
					}
				}
			}
			if at.Kind() == reflect.Map {
				t.Fatalf("%s is a map, and is saved as a whole", path)
			}
		}
	}
	for range rounds / 10 {
		check(t, reflect.TypeFor[v1beta1.EtcdCluster](), savedFields(spokeOf(from.hub()).Annotations, HubPrefix))
		check(t, reflect.TypeFor[v1alpha1.EtcdCluster](), savedFields(hubOf(from.spoke()).Annotations, SpokePrefix))
	}
}

func TestEverySavedPathIsAValidNameOfAnAnnotation(t *testing.T) {
	for prefix, object := range map[string]reflect.Type{HubPrefix: reflect.TypeFor[v1beta1.EtcdCluster](), SpokePrefix: reflect.TypeFor[v1alpha1.EtcdCluster]()} {
		var visit func(at reflect.Type, path string)
		visit = func(at reflect.Type, path string) {
			if path != "" {
				for _, why := range validation.IsQualifiedName(prefix + path) {
					t.Errorf("%s%s: %s; make its parent an opaque type of savedStructs", prefix, path, why)
				}
			}
			for _, f := range savedStructs.fieldsOf(at) {
				if at.Kind() == reflect.Pointer {
					at = at.Elem()
				}
				visit(at.Field(f.index).Type, strings.TrimPrefix(path+"."+f.name, "."))
			}
		}
		visit(object, "")
	}
}

func TestSavesFieldsInAnnotationsThatPeopleCanRead(t *testing.T) {
	hub := &v1beta1.EtcdCluster{}
	specOf(t, `{replicas: 3, tls: {client: {certManager: {issuerRef: {name: ca}}}}, storage: {retentionPolicy: {whenDeleted: Delete}}}`, &hub.Spec)
	want := map[string]string{
		HubPrefix + "spec.storage.volumeClaimTemplate":           `null`,
		HubPrefix + "spec.storage.retentionPolicy.whenDeleted":   `"Delete"`,
		HubPrefix + "spec.tls.client":                            `null`,
		HubPrefix + "spec.tls.client.certManager.issuerRef.name": `"ca"`,
		HubPrefix + "spec.tls.peer":                              `null`,
	}
	if got := spokeOf(hub).Annotations; !maps.Equal(got, want) {
		t.Errorf("the annotations are %s, want %s", asJSON(got), asJSON(want))
	}
}
