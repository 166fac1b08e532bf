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

// stored returns an object as it comes back from the API server.
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

// wantSame compares objects as JSON tells them apart.
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

func toHub(spoke *v1alpha1.EtcdCluster) *v1beta1.EtcdCluster {
	var hub v1beta1.EtcdCluster
	ToHub(stored(spoke), &hub)
	return stored(&hub)
}

func fromHub(hub *v1beta1.EtcdCluster) *v1alpha1.EtcdCluster {
	var spoke v1alpha1.EtcdCluster
	FromHub(stored(hub), &spoke)
	return stored(&spoke)
}

func TestAnObjectOfV1alpha1ReadsBackAsItWasWritten(t *testing.T) {
	from := newSource(t)
	for range rounds {
		spoke := from.spoke()
		again := fromHub(toHub(spoke))
		maps.DeleteFunc(again.Annotations, func(key, _ string) bool { return strings.HasPrefix(key, HubPrefix+"spec.tls.") }) // those of Secrets
		wantSame(t, spoke, again)
	}
}

func TestAnObjectOfV1beta1SurvivesV1alpha1(t *testing.T) {
	from := newSource(t)
	for range rounds {
		hub := from.hub()
		wantSame(t, hub, toHub(fromHub(hub)))
	}
}
