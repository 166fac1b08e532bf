package conversion

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/api/v1beta1"
)

// rounds is how many objects make each round trip.
const rounds = 10000

// check10000 looks at 10,000 drawn objects: the same in every run, so that a failure is nobody's luck; the whole matrix draws new ones each time.
func check10000(t *testing.T, prop func(*rapid.T)) {
	t.Helper()
	set := func(name, value string) {
		f := flag.Lookup(name)
		given := f.Value.String()
		t.Cleanup(func() { _ = f.Value.Set(given) })
		if err := f.Value.Set(value); err != nil {
			t.Fatal(err)
		}
	}
	if flag.Lookup("rapid.seed").Value.String() == "0" && os.Getenv("ETCD_STEWARD_TEST_FULL") == "" {
		set("rapid.seed", "1")
	}
	set("rapid.checks", fmt.Sprint(rounds))
	rapid.Check(t, prop)
}

// texts are drawn often enough alike that values collide, and hold what JSON must escape.
var texts = rapid.OneOf(rapid.Just(""), rapid.SampledFrom([]string{"a", "b", "<&>\u2028\"\\"}), rapid.StringN(0, 6, -1))

var quantities = rapid.Map(
	rapid.SampledFrom([]string{"2Gi", "8Gi", "2048Mi", "9Gi", "256Mi", "2147483648", "0.5", "1500m", "0", "-1", "1e3", "100000000000000000000Ki"}),
	resource.MustParse)

var options = rapid.OneOf(
	rapid.SampledFrom([]string{quotaOption, modeOption, retentionOption, "snapshot-count", "cors"}),
	rapid.StringMatching(`[a-z0-9-]{1,6}`))

// drawn draws every field of both versions: what the schemas let in where check looks, and anything elsewhere.
func drawn() rapid.MakeConfig {
	return rapid.MakeConfig{
		Kinds: map[reflect.Kind]*rapid.Generator[any]{reflect.String: texts.AsAny()},
		Types: map[reflect.Type]*rapid.Generator[any]{
			reflect.TypeFor[resource.Quantity](): quantities.AsAny(),
			reflect.TypeFor[metav1.Time]():       rapid.Map(rapid.Int64Range(1, 4e9), func(s int64) metav1.Time { return metav1.Unix(s, 0) }).AsAny(),
			reflect.TypeFor[metav1.TypeMeta]():   rapid.Just(metav1.TypeMeta{}).AsAny(),
			reflect.TypeFor[metav1.ObjectMeta](): rapid.Custom(drawMeta).AsAny(),

			reflect.TypeFor[v1beta1.Config]():              rapid.Custom(drawConfig).AsAny(),
			reflect.TypeFor[v1beta1.ClientTLS]():           rapid.Custom(drawClientTLS).AsAny(),
			reflect.TypeFor[v1beta1.PeerTLS]():             rapid.Custom(drawPeerTLS).AsAny(),
			reflect.TypeFor[v1beta1.RetentionPolicyType](): enum(v1beta1.RetentionRetain, v1beta1.RetentionDelete, ""),
			reflect.TypeFor[v1beta1.MemberAntiAffinity]():  enum(v1beta1.MemberAntiAffinityPreferred, v1beta1.MemberAntiAffinityRequired, ""),
			reflect.TypeFor[v1beta1.ExistingVolumes]():     enum(v1beta1.ExistingVolumesTakeBack, v1beta1.ExistingVolumesIgnore, ""),
			reflect.TypeFor[[]v1alpha1.EtcdOption]():       rapid.Custom(drawEnv).AsAny(),
		},
	}
}

func drawMeta(t *rapid.T) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "shop", Name: "prod", UID: "u", ResourceVersion: "7", Generation: 3,
		Annotations: rapid.MapOf(rapid.SampledFrom([]string{"a", v1beta1.BootstrapAnnotation}), texts).Draw(t, "annotations"),
	}
}

func drawEnv(t *rapid.T) []v1alpha1.EtcdOption {
	var env []v1alpha1.EtcdOption
	for _, name := range rapid.SliceOfNDistinct(options, 0, 4, rapid.ID[string]).Draw(t, "options") {
		env = append(env, v1alpha1.EtcdOption{Name: variableOf(name), Value: texts.Draw(t, "value")})
	}
	return env
}

func drawConfig(t *rapid.T) v1beta1.Config {
	config := v1beta1.Config{ExtraArgs: rapid.MapOfN(options, texts, 0, 4).Draw(t, "extraArgs")}
	if rapid.Bool().Draw(t, "quota") {
		config.QuotaBackendBytes = new(resource.MustParse(rapid.SampledFrom([]string{"16Mi", "2Gi", "2147483648", "1e9"}).Draw(t, "quotaBackendBytes")))
		delete(config.ExtraArgs, quotaOption)
	}
	if rapid.Bool().Draw(t, "compaction") {
		config.AutoCompaction = new(rapid.SampledFrom([]v1beta1.AutoCompaction{
			{Mode: v1beta1.AutoCompactionPeriodic, Retention: "1h"}, {Mode: v1beta1.AutoCompactionRevision, Retention: "1000"},
		}).Draw(t, "autoCompaction"))
		delete(config.ExtraArgs, modeOption)
		delete(config.ExtraArgs, retentionOption)
	}
	return config
}

func drawClientTLS(t *rapid.T) v1beta1.ClientTLS {
	switch rapid.IntRange(0, 2).Draw(t, "client") {
	case 0:
		return v1beta1.ClientTLS{Mode: drawMode(t)}
	case 1:
		return v1beta1.ClientTLS{CertManager: drawIssuer(t)}
	default:
		return v1beta1.ClientTLS{SecretRef: &v1beta1.ClientSecretRef{Name: drawName(t), OperatorName: drawName(t), Format: drawFormat(t)}}
	}
}

func drawPeerTLS(t *rapid.T) v1beta1.PeerTLS {
	switch rapid.IntRange(0, 2).Draw(t, "peer") {
	case 0:
		return v1beta1.PeerTLS{Mode: drawMode(t)}
	case 1:
		return v1beta1.PeerTLS{CertManager: drawIssuer(t)}
	default:
		return v1beta1.PeerTLS{SecretRef: &v1beta1.PeerSecretRef{Name: drawName(t), Format: drawFormat(t)}}
	}
}

func drawMode(t *rapid.T) v1beta1.TLSMode {
	return rapid.SampledFrom([]v1beta1.TLSMode{v1beta1.TLSManaged, v1beta1.TLSDisabled, ""}).Draw(t, "mode")
}

func drawFormat(t *rapid.T) v1beta1.SecretFormat {
	return rapid.SampledFrom([]v1beta1.SecretFormat{v1beta1.SecretFormatEtcdOperator, v1beta1.SecretFormatTLS}).Draw(t, "format")
}

func drawName(t *rapid.T) string { return rapid.SampledFrom([]string{"s", "t", "ü"}).Draw(t, "name") }

func drawIssuer(t *rapid.T) *v1beta1.CertManagerTLS {
	return &v1beta1.CertManagerTLS{IssuerRef: v1beta1.IssuerRef{Name: drawName(t), Kind: texts.Draw(t, "kind"), Group: texts.Draw(t, "group")}}
}

func enum[T any](values ...T) *rapid.Generator[any] { return rapid.SampledFrom(values).AsAny() }

var (
	spokes = rapid.Map(rapid.MakeCustom[v1alpha1.EtcdCluster](drawn()), stored[v1alpha1.EtcdCluster])
	hubs   = rapid.Map(rapid.MakeCustom[v1beta1.EtcdCluster](drawn()), stored[v1beta1.EtcdCluster])
)

// stored returns an object as it comes back from the API server.
func stored[T any](object T) T {
	raw, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	var back T
	if err := json.Unmarshal(raw, &back); err != nil {
		panic(err)
	}
	return back
}

func asJSON(object any) string {
	raw, err := json.MarshalIndent(object, "", " ")
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func wantSame(t *rapid.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(asJSON(want), asJSON(got)); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}

func toHub(t *rapid.T, spoke v1alpha1.EtcdCluster) v1beta1.EtcdCluster {
	t.Helper()
	spoke = stored(spoke)
	var hub v1beta1.EtcdCluster
	if err := ToHub(&spoke, &hub); err != nil {
		t.Fatal(err)
	}
	return stored(hub)
}

func fromHub(hub v1beta1.EtcdCluster) v1alpha1.EtcdCluster {
	hub = stored(hub)
	var spoke v1alpha1.EtcdCluster
	FromHub(&hub, &spoke)
	return stored(spoke)
}

func TestAnObjectOfV1alpha1ReadsBackAsItWasWritten(t *testing.T) {
	check10000(t, func(t *rapid.T) {
		spoke := spokes.Draw(t, "spoke")
		wantSame(t, spoke, fromHub(toHub(t, spoke)))
	})
}

func TestAnObjectOfV1beta1SurvivesV1alpha1(t *testing.T) {
	check10000(t, func(t *rapid.T) {
		hub := hubs.Draw(t, "hub")
		wantSame(t, hub, toHub(t, fromHub(hub)))
	})
}

var _ = slices.Sorted[string]
var _ = strings.Cut
