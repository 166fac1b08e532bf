package conversion

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// stored returns a copy of an object, encoded and decoded as in the API server.
func stored[T any](object *T) *T {
	back := new(T)
	if err := json.Unmarshal(asJSON(object), back); err != nil {
		panic(err)
	}
	return back
}

func asJSON(object any) []byte {
	raw, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return raw
}

// wantSame compares objects by their JSON.
func wantSame(t *testing.T, want, got any) {
	t.Helper()
	if !bytes.Equal(asJSON(want), asJSON(got)) {
		indented := func(v any) string {
			raw, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
		t.Fatalf("(-want +got):\n%s", cmp.Diff(indented(want), indented(got)))
	}
}

func hubOf(spoke *v1alpha1.EtcdCluster) *v1beta1.EtcdCluster {
	var hub v1beta1.EtcdCluster
	ToHub(stored(spoke), &hub)
	return stored(&hub)
}

func spokeOf(hub *v1beta1.EtcdCluster) *v1alpha1.EtcdCluster {
	var spoke v1alpha1.EtcdCluster
	FromHub(stored(hub), &spoke)
	return stored(&spoke)
}

func TestAnObjectInV1alpha1SurvivesV1beta1(t *testing.T) {
	from := newSource(t)
	for range rounds {
		spoke := from.spoke()
		again := spokeOf(hubOf(spoke))
		// see namesSecret
		maps.DeleteFunc(again.Annotations, func(key, _ string) bool { return strings.HasPrefix(key, HubPrefix+"spec.tls.") })
		wantSame(t, spoke, again)
	}
}

func TestAnObjectInV1beta1SurvivesV1alpha1(t *testing.T) {
	from := newSource(t)
	for range rounds {
		hub := from.hub()
		wantSame(t, hub, hubOf(spokeOf(hub)))
	}
}
