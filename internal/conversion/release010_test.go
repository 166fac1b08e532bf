package conversion

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// intent010 is the Intent of release 0.1.0. It is frozen, like intentOf010: what they say is stored on users' StatefulSets.
type intent010 struct {
	Version           string                     `json:"version"`
	Repository        string                     `json:"repository"`
	ClusterDomain     string                     `json:"clusterDomain,omitempty"`
	QuotaBackendBytes int64                      `json:"quotaBackendBytes,omitempty"`
	Options           map[string]string          `json:"options,omitempty"`
	PeerSecret        string                     `json:"peerSecret,omitempty"`
	ServerSecret      string                     `json:"serverSecret,omitempty"`
	OperatorSecret    string                     `json:"operatorSecret,omitempty"`
	Labels            map[string]string          `json:"labels,omitempty"`
	Annotations       map[string]string          `json:"annotations,omitempty"`
	NodeSelector      map[string]string          `json:"nodeSelector,omitempty"`
	Affinity          *corev1.Affinity           `json:"affinity,omitempty"`
	AntiAffinity      bool                       `json:"antiAffinity,omitempty"`
	Tolerations       []corev1.Toleration        `json:"tolerations,omitempty"`
	Limits            corev1.ResourceList        `json:"limits,omitempty"`
	Requests          corev1.ResourceList        `json:"requests,omitempty"`
	SecurityContext   *corev1.PodSecurityContext `json:"securityContext,omitempty"`
}

func intentOf010(spec *v1alpha1.EtcdClusterSpec) intent010 {
	volume := resource.MustParse("2Gi")
	if spec.Pod != nil && spec.Pod.PersistentVolumeClaimSpec != nil {
		if size, ok := spec.Pod.PersistentVolumeClaimSpec.Resources.Requests[corev1.ResourceStorage]; ok {
			volume = size
		}
	}
	intent := intent010{Version: spec.Version, Repository: spec.Repository, QuotaBackendBytes: min(volume.Value()/100*40, 2<<30)}
	if tls := spec.TLS; tls != nil && tls.Static != nil && tls.Static.Member != nil {
		intent.PeerSecret = tls.Static.Member.PeerSecret
		intent.ServerSecret = tls.Static.Member.ServerSecret
		intent.OperatorSecret = tls.Static.OperatorSecret
	}
	pod := spec.Pod
	if pod == nil {
		return intent
	}
	intent.ClusterDomain = pod.ClusterDomain
	for _, option := range pod.EtcdEnv {
		if intent.Options == nil {
			intent.Options = map[string]string{}
		}
		intent.Options[option.Name] = option.Value
	}
	if _, set := intent.Options["ETCD_QUOTA_BACKEND_BYTES"]; set {
		intent.QuotaBackendBytes = 0
	}
	intent.Labels, intent.Annotations, intent.NodeSelector = pod.Labels, pod.Annotations, pod.NodeSelector
	intent.Affinity, intent.AntiAffinity, intent.Tolerations = pod.Affinity, pod.AntiAffinity, pod.Tolerations
	intent.Limits, intent.Requests = pod.Resources.Limits, pod.Resources.Requests
	intent.SecurityContext = pod.SecurityContext
	return intent
}

func (i intent010) encode() (text, hash string) {
	marshal := func() string {
		raw, err := json.Marshal(i)
		if err != nil {
			panic(err)
		}
		return string(raw)
	}
	text = marshal()
	i.OperatorSecret = ""
	sum := sha256.Sum256([]byte(marshal()))
	return text, hex.EncodeToString(sum[:8])
}

func TestTheFrozenIntentIsThatOfRelease010(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "render", "testdata", "intent-0.1.0.json"))
	if err != nil {
		t.Fatal(err)
	}
	c := cluster010(podOf010, secrets010("prod-peer", "prod-server"))
	if text, _ := intentOf010(&c.Spec).encode(); text != strings.TrimSpace(string(raw)) {
		t.Error(cmp.Diff(strings.TrimSpace(string(raw)), text))
	}
}

// What a cluster of 0.1.0 asked of its pods it asks of them after any number of conversions: no pod is restarted for an upgrade.
func TestAConvertedClusterAsksOfItsPodsWhatItAskedInRelease010(t *testing.T) {
	from := newSource(t)
	for range rounds / 5 {
		spoke := from.spoke()
		asTheSchemaHasIt(&spoke.Spec)
		hub := toHub(spoke)
		want, wantHash := intentOf010(&spoke.Spec).encode()
		for range 2 {
			text, hash := cluster.IntentOf(hub).Encode()
			if text != want || hash != wantHash {
				t.Fatalf("hash %s, was %s (-then +now):\n%s", hash, wantHash, cmp.Diff(want, text))
			}
			hub = toHub(fromHub(hub))
		}
	}
}

// asTheSchemaHasIt fills in what an object of v1alpha1 has after it passed the API server.
func asTheSchemaHasIt(spec *v1alpha1.EtcdClusterSpec) {
	if spec.Version == "" {
		spec.Version = "3.6.16"
	}
	if spec.Repository == "" {
		spec.Repository = "gcr.io/etcd-development/etcd"
	}
	if spec.Pod != nil && spec.Pod.PersistentVolumeClaimSpec != nil {
		requests := &spec.Pod.PersistentVolumeClaimSpec.Resources.Requests
		if _, ok := (*requests)[corev1.ResourceStorage]; !ok {
			*requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}
		}
	}
}

// cluster010 is the cluster that release 0.1.0 made its golden files of.
func cluster010(changes ...func(*v1alpha1.EtcdClusterSpec)) *v1alpha1.EtcdCluster {
	c := &v1alpha1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prod", UID: "11111111-2222-3333-4444-555555555555"},
		Spec:       v1alpha1.EtcdClusterSpec{Size: 3, Version: "3.6.16", Repository: "gcr.io/etcd-development/etcd"},
	}
	for _, change := range changes {
		change(&c.Spec)
	}
	return c
}

func version010(v string) func(*v1alpha1.EtcdClusterSpec) {
	return func(spec *v1alpha1.EtcdClusterSpec) { spec.Version = v }
}

func secrets010(peer, server string) func(*v1alpha1.EtcdClusterSpec) {
	return func(spec *v1alpha1.EtcdClusterSpec) {
		spec.TLS = &v1alpha1.TLSPolicy{Static: &v1alpha1.StaticTLS{Member: &v1alpha1.MemberSecrets{PeerSecret: peer, ServerSecret: server}}}
	}
}

func antiAffinity010(spec *v1alpha1.EtcdClusterSpec) {
	spec.Pod = &v1alpha1.PodPolicy{AntiAffinity: true}
}

func podOf010(spec *v1alpha1.EtcdClusterSpec) {
	spec.Pod = &v1alpha1.PodPolicy{
		Labels:       map[string]string{"team": "storage", "operator.etcd-warden.io/member": "ours wins"},
		Annotations:  map[string]string{"example.com/scrape": "yes"},
		NodeSelector: map[string]string{"disk": "fast"},
		Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "gpu", Operator: corev1.NodeSelectorOpDoesNotExist}},
			}}},
		}},
		AntiAffinity: true,
		Tolerations:  []corev1.Toleration{{Key: "etcd", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}},
		Resources: v1alpha1.ResourceRequirements{
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("0.5"), corev1.ResourceMemory: resource.MustParse("1Gi")},
		},
		SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(1000)), SupplementalGroups: []int64{2000}},
		EtcdEnv: []v1alpha1.EtcdOption{
			{Name: "ETCD_SNAPSHOT_COUNT", Value: "20000"},
			{Name: "ETCD_QUOTA_BACKEND_BYTES", Value: "4294967296"},
			{Name: "ETCD_AUTO_COMPACTION_RETENTION", Value: "1h"},
		},
		PersistentVolumeClaimSpec: &v1alpha1.VolumeClaimSpec{
			StorageClassName: new("fast"),
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod},
			Resources:        v1alpha1.VolumeResources{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("8Gi")}},
		},
		ClusterDomain: "cluster.local",
	}
}

// The render hashes are those of release 0.1.0: another one would mark every running cluster RestartPending.
func TestAConvertedClusterRendersAsInRelease010(t *testing.T) {
	for _, test := range []struct {
		golden, hash string
		cluster      *v1alpha1.EtcdCluster
		founding     bool
	}{
		{"member-founding", "4959af6d8fa66e55", cluster010(), true},
		{"member-started", "4959af6d8fa66e55", cluster010(), false},
		{"member-founding-3.5", "2d1fa22ed00a1a2d", cluster010(version010("3.5.35")), true},
		{"member-started-3.5", "2d1fa22ed00a1a2d", cluster010(version010("3.5.35")), false},
		{"member-founding-3.7", "baf402c2a96d7dd4", cluster010(version010("3.7.3")), true},
		{"member-started-3.7", "baf402c2a96d7dd4", cluster010(version010("3.7.3")), false},
		{"member-founding-tls", "361665533dbba1c9", cluster010(secrets010("prod-peer", "prod-server")), true},
		{"member-started-tls", "361665533dbba1c9", cluster010(secrets010("prod-peer", "prod-server")), false},
		{"member-started-tls-peers", "2769d7e0d7d29400", cluster010(secrets010("prod-peer", "")), false},
		{"member-started-tls-clients", "4063f192a5ab8441", cluster010(secrets010("", "prod-server")), false},
		{"member-started-all", "a3a0cc08afab3914", cluster010(podOf010), false},
		{"member-started-anti", "4af86a4183954a84", cluster010(antiAffinity010), false},
	} {
		t.Run(test.golden, func(t *testing.T) {
			hub := toHub(test.cluster)
			in := render.MemberInput{Cluster: hub, Name: "prod-0", Intent: cluster.IntentOf(hub)}
			if hash := render.RenderHash(in); hash != test.hash {
				t.Errorf("render hash %s, was %s", hash, test.hash)
			}
			if test.founding {
				in.Founding = &render.Founding{Members: []string{"prod-0", "prod-1", "prod-2"}, Token: render.ClusterToken(hub)}
			}
			got, err := yaml.Marshal(render.MemberStatefulSet(in))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join("..", "render", "testdata", test.golden+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-0.1.0 +now):\n%s", diff)
			}
		})
	}
}

func TestTheSelectorIsThatOfTheMembersPods(t *testing.T) {
	spoke := cluster010()
	spoke.Status.ObservedGeneration = 1
	hub := toHub(spoke)
	if want := render.MemberSelector(hub); hub.Status.Selector != want {
		t.Errorf("the selector is %s, want %s", hub.Status.Selector, want)
	}
}
