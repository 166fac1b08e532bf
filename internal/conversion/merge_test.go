package conversion

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// counterparts says of every field of either version where the other says the same; one side is empty for what the other cannot say.
var counterparts = []row{
	{[]string{"spec.size"}, []string{"spec.replicas"}},
	{[]string{"spec.version"}, []string{"spec.version"}},
	{[]string{"spec.repository"}, []string{"spec.image.repository"}},
	{[]string{"spec.paused"}, []string{"spec.paused"}},
	{[]string{"spec.pod.labels"}, []string{"spec.podTemplate.metadata.labels"}},
	{[]string{"spec.pod.annotations"}, []string{"spec.podTemplate.metadata.annotations"}},
	{[]string{"spec.pod.nodeSelector"}, []string{"spec.podTemplate.spec.nodeSelector"}},
	{[]string{"spec.pod.affinity"}, []string{"spec.podTemplate.spec.affinity"}},
	{[]string{"spec.pod.antiAffinity"}, []string{"spec.podTemplate.memberAntiAffinity"}},
	{[]string{"spec.pod.tolerations"}, []string{"spec.podTemplate.spec.tolerations"}},
	{[]string{"spec.pod.resources.limits"}, []string{"spec.resources.limits"}},
	{[]string{"spec.pod.resources.requests"}, []string{"spec.resources.requests"}},
	{[]string{"spec.pod.securityContext"}, []string{"spec.podTemplate.spec.securityContext"}},
	{[]string{"spec.pod.etcdEnv"}, []string{"spec.config.extraArgs", "spec.config.quotaBackendBytes", "spec.config.autoCompaction"}},
	{[]string{"spec.pod.persistentVolumeClaimSpec"}, []string{"spec.storage.volumeClaimTemplate"}},
	{[]string{"spec.pod.ClusterDomain"}, []string{"spec.clusterDomain"}},
	{[]string{"spec.TLS.static.member.serverSecret", "spec.TLS.static.operatorSecret"}, []string{"spec.tls.client"}},
	{[]string{"spec.TLS.static.member.peerSecret"}, []string{"spec.tls.peer"}},
	{spoke: []string{"spec.pod.DNSTimeoutInSecond"}},
	{spoke: []string{"spec.pod.busyboxImage"}},
	{hub: []string{"spec.storage.retentionPolicy.whenDeleted"}},
	{hub: []string{"spec.podTemplate.spec.topologySpreadConstraints"}},
	{hub: []string{"spec.podTemplate.spec.priorityClassName"}},
	{hub: []string{"spec.podTemplate.spec.schedulerName"}},
	{hub: []string{"spec.podTemplate.spec.runtimeClassName"}},
	{hub: []string{"spec.podTemplate.spec.imagePullSecrets"}},
	{hub: []string{"spec.bootstrap.existingVolumes"}},
	{[]string{"status.observedGeneration"}, []string{"status.observedGeneration", "status.selector"}},
	{[]string{"status.clusterID"}, []string{"status.clusterID"}},
	{[]string{"status.operation"}, []string{"status.operation"}},
	{[]string{"status.version"}, []string{"status.version"}},
	{[]string{"status.targetVersion"}, []string{"status.targetVersion"}},
	{[]string{"status.size"}, []string{"status.replicas"}},
	{[]string{"status.readyMembers"}, []string{"status.readyReplicas"}},
	{[]string{"status.leader"}, []string{"status.leader"}},
	{[]string{"status.serviceName"}, []string{"status.serviceName"}},
	{[]string{"status.clientPort"}, []string{"status.clientPort"}},
	{[]string{"status.members"}, []string{"status.members"}},
	{[]string{"status.conditions"}, []string{"status.conditions"}},
	{hub: []string{"status.clientSecretName"}},
}

// row holds fields that are converted into each other, with those below them.
type row struct{ spoke, hub []string }

// leafPaths returns the paths of the fields that conversion takes or leaves as a whole.
func leafPaths(t reflect.Type, path string) []string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if fieldsOf[t] == nil {
		return []string{path}
	}
	var all []string
	for _, f := range fieldsOf[t] {
		all = append(all, leafPaths(t.Field(f.index).Type, strings.TrimPrefix(path+"."+f.name, "."))...)
	}
	return all
}

func TestEveryFieldHasACounterpartOrIsKnownToHaveNone(t *testing.T) {
	covered := func(path string, side func(row) []string) bool {
		return slices.ContainsFunc(counterparts, func(r row) bool {
			return slices.ContainsFunc(side(r), func(known string) bool { return path == known || strings.HasPrefix(path, known+".") })
		})
	}
	for _, path := range leafPaths(reflect.TypeFor[v1alpha1.EtcdCluster](), "") {
		if !covered(path, func(r row) []string { return r.spoke }) {
			t.Errorf("%s of v1alpha1 is not converted: convert it, or know here that v1beta1 cannot say it", path)
		}
	}
	for _, path := range leafPaths(reflect.TypeFor[v1beta1.EtcdCluster](), "") {
		if !covered(path, func(r row) []string { return r.hub }) {
			t.Errorf("%s of v1beta1 is not converted: convert it, or know here that v1alpha1 cannot say it", path)
		}
	}
}

func TestAPatchOfV1alpha1ChangesItsCounterpartsOnly(t *testing.T) {
	from := newSource(t)
	for n := range rounds / 5 {
		hub, donor, r := from.hub(), from.spoke(), counterparts[n%len(counterparts)]
		patched := transplant(r.spoke, asTree(fromHub(hub)), asTree(donor))
		var view v1alpha1.EtcdCluster
		fromTree(t, patched, &view)
		after := toHub(&view)
		wantSame(t, without(asTree(hub), r.hub), without(asTree(after), r.hub))
		wantSame(t, without(patched, nil), without(asTree(fromHub(after)), nil))
		if t.Failed() {
			t.Fatalf("after a patch of %v", r.spoke)
		}
	}
}

func TestAPatchOfV1beta1ChangesItsCounterpartsOnly(t *testing.T) {
	from := newSource(t)
	for n := range rounds / 5 {
		spoke, donor, r := from.spoke(), from.hub(), counterparts[n%len(counterparts)]
		patched := transplant(r.hub, asTree(toHub(spoke)), asTree(donor))
		var hub v1beta1.EtcdCluster
		fromTree(t, patched, &hub)
		after := fromHub(&hub)
		wantSame(t, without(asTree(spoke), r.spoke), without(asTree(after), r.spoke))
		wantSame(t, without(patched, nil), without(asTree(toHub(after)), nil))
		if t.Failed() {
			t.Fatalf("after a patch of %v", r.hub)
		}
	}
}

func TestWhatAClientOfV1alpha1ChangesWins(t *testing.T) {
	const peerOnly = `{TLS: {static: {member: {peerSecret: p}}}}`
	for does, test := range map[string]struct{ hub, patch, want string }{
		"a changed option leaves typed fields alone": {
			`{config: {quotaBackendBytes: 2Gi, autoCompaction: {mode: Periodic, retention: 1h}, extraArgs: {snapshot-count: "1"}}}`,
			`{pod: {etcdEnv: [{name: ETCD_AUTO_COMPACTION_MODE, value: periodic}, {name: ETCD_AUTO_COMPACTION_RETENTION, value: 1h},
				{name: ETCD_QUOTA_BACKEND_BYTES, value: "2147483648"}, {name: ETCD_SNAPSHOT_COUNT, value: "2"}]}}`,
			`{config: {quotaBackendBytes: 2Gi, autoCompaction: {mode: Periodic, retention: 1h}, extraArgs: {snapshot-count: "2"}}}`,
		},
		"an option wins over the typed field that stands for it": {
			`{config: {quotaBackendBytes: 2Gi, autoCompaction: {mode: Periodic, retention: 1h}}}`,
			`{pod: {etcdEnv: [{name: ETCD_AUTO_COMPACTION_MODE, value: periodic}, {name: ETCD_AUTO_COMPACTION_RETENTION, value: 2h},
				{name: ETCD_QUOTA_BACKEND_BYTES, value: "1"}]}}`,
			`{config: {extraArgs: {auto-compaction-mode: periodic, auto-compaction-retention: 2h, quota-backend-bytes: "1"}}}`,
		},
		"an option that is dropped takes its typed field with it": {
			`{config: {quotaBackendBytes: 2Gi, autoCompaction: {mode: Revision, retention: "9"}, extraArgs: {cors: "*"}}}`,
			`{pod: {etcdEnv: [{name: ETCD_CORS, value: "*"}]}}`,
			`{config: {extraArgs: {cors: "*"}}}`,
		},
		"TLS between peers leaves the managed TLS of clients": {`{}`, peerOnly, `{tls: {peer: {secretRef: {name: p, format: EtcdOperator}}}}`},
		"TLS between peers leaves cert-manager's of clients": {
			`{tls: {client: {certManager: {issuerRef: {name: ca}}}, peer: {certManager: {issuerRef: {name: ca}}}}}`, peerOnly,
			`{tls: {client: {certManager: {issuerRef: {name: ca}}}, peer: {secretRef: {name: p, format: EtcdOperator}}}}`,
		},
		"TLS that is dropped is disabled": {
			`{tls: {client: {secretRef: {name: s, operatorName: o, format: EtcdOperator}}, peer: {mode: Managed}}}`,
			`{TLS: null}`,
			`{tls: {client: {mode: Disabled}, peer: {mode: Managed}}}`,
		},
		"a volume of the default size grows": {
			`{storage: {retentionPolicy: {whenDeleted: Delete}}}`,
			`{pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 9Gi}}}}}`,
			`{storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 9Gi}}}}, retentionPolicy: {whenDeleted: Delete}}}`,
		},
		"a node selector joins constraints that v1alpha1 cannot say": {
			`{podTemplate: {spec: {priorityClassName: high}}}`, `{pod: {nodeSelector: {disk: fast}}}`,
			`{podTemplate: {spec: {priorityClassName: high, nodeSelector: {disk: fast}}}}`,
		},
		"antiAffinity wins over a preference": {
			`{podTemplate: {memberAntiAffinity: Preferred}}`, `{pod: {antiAffinity: true}}`, `{podTemplate: {memberAntiAffinity: Required}}`,
		},
	} {
		t.Run(does, func(t *testing.T) {
			var hub, want v1beta1.EtcdCluster
			specOf(t, test.hub, &hub.Spec)
			specOf(t, test.want, &want.Spec)
			view := fromHub(&hub)
			specOf(t, test.patch, &view.Spec)
			wantSame(t, without(asTree(want), nil), without(asTree(toHub(view)), nil))
		})
	}
}

func TestWhatAClientOfV1beta1ChangesWins(t *testing.T) {
	for does, test := range map[string]struct{ spoke, patch, want string }{
		"options keep their order, and new ones come last": {
			`{pod: {etcdEnv: [{name: ETCD_SNAPSHOT_COUNT, value: "1"}, {name: ETCD_MAX_WALS, value: "2"}, {name: ETCD_CORS, value: "*"}]}}`,
			`{config: {extraArgs: {snapshot-count: "1", cors: "a", bcrypt-cost: "3"}}}`,
			`{pod: {etcdEnv: [{name: ETCD_SNAPSHOT_COUNT, value: "1"}, {name: ETCD_CORS, value: a}, {name: ETCD_BCRYPT_COST, value: "3"}]}}`,
		},
		"what v1beta1 cannot say stays": {
			`{pod: {busyboxImage: busybox, DNSTimeoutInSecond: 5, ClusterDomain: a.b}}`, `{clusterDomain: c.d}`,
			`{pod: {busyboxImage: busybox, DNSTimeoutInSecond: 5, ClusterDomain: c.d}}`,
		},
		"a volume of the default size in words grows": {
			`{pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 2Gi}}}}}`,
			`{storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 3Gi}}}}}}`,
			`{pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 3Gi}}}}}`,
		},
		"typed options show as variables": {
			`{}`, `{config: {quotaBackendBytes: 1Gi, autoCompaction: {mode: Revision, retention: "9"}}}`,
			`{pod: {etcdEnv: [{name: ETCD_AUTO_COMPACTION_MODE, value: revision}, {name: ETCD_AUTO_COMPACTION_RETENTION, value: "9"}, {name: ETCD_QUOTA_BACKEND_BYTES, value: "1073741824"}]}}`,
		},
		"certificates that v1alpha1 cannot name do not show": {
			`{TLS: {static: {member: {peerSecret: p, serverSecret: s}, operatorSecret: o}}}`, `{tls: {client: {mode: Managed}}}`,
			`{TLS: {static: {member: {peerSecret: p}}}}`,
		},
	} {
		t.Run(does, func(t *testing.T) {
			var spoke, want v1alpha1.EtcdCluster
			specOf(t, test.spoke, &spoke.Spec)
			specOf(t, test.want, &want.Spec)
			hub := toHub(stored(&spoke))
			if hub.Spec.Config != nil {
				hub.Spec.Config.ExtraArgs = nil
			}
			hub.Spec.TLS.Client.SecretRef = nil
			specOf(t, test.patch, &hub.Spec)
			wantSame(t, without(asTree(want), nil), without(asTree(fromHub(hub)), nil))
		})
	}
}

func TestWithoutAnnotationsAnObjectMeansWhatV1alpha1Says(t *testing.T) {
	var hub, want v1beta1.EtcdCluster
	specOf(t, `{replicas: 3, podTemplate: {spec: {priorityClassName: high}}, bootstrap: {existingVolumes: Ignore}}`, &hub.Spec)
	view := fromHub(&hub)
	view.Annotations = nil
	specOf(t, `{replicas: 3, tls: {client: {mode: Disabled}, peer: {mode: Disabled}}, storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 8Gi}}}}}}`, &want.Spec)
	wantSame(t, want.Spec, toHub(view).Spec)
}

// specOf decodes YAML over a spec.
func specOf(t *testing.T, text string, spec any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), spec); err != nil {
		t.Fatal(err)
	}
}

func asTree(object any) map[string]any {
	var tree map[string]any
	if err := json.Unmarshal(asJSON(object), &tree); err != nil {
		panic(err)
	}
	return tree
}

func fromTree(t *testing.T, tree map[string]any, object any) {
	t.Helper()
	if err := json.Unmarshal(asJSON(tree), object); err != nil {
		t.Fatal(err)
	}
}

// transplant sets the paths of a tree to what they are in the donor.
func transplant(paths []string, to, donor map[string]any) map[string]any {
	for _, path := range paths {
		keys := strings.Split(path, ".")
		value, found, _ := unstructured.NestedFieldNoCopy(donor, keys...)
		if !found {
			unstructured.RemoveNestedField(to, keys...)
		} else if err := unstructured.SetNestedField(to, value, keys...); err != nil {
			panic(err)
		}
	}
	return to
}

// without returns spec and status without the paths, and without what is empty then.
func without(tree map[string]any, paths []string) map[string]any {
	tree = map[string]any{"spec": tree["spec"], "status": tree["status"]}
	for _, path := range paths {
		unstructured.RemoveNestedField(tree, strings.Split(path, ".")...)
	}
	prune(tree)
	return tree
}

func prune(tree map[string]any) {
	maps.DeleteFunc(tree, func(_ string, value any) bool {
		branch, ok := value.(map[string]any)
		if !ok {
			return false
		}
		prune(branch)
		return len(branch) == 0
	})
}

// The elements of these lists are converted one by one: a field that only one version has would be lost in the middle of a list.
func TestTheElementsOfListsHaveTheSameFieldsInBothVersions(t *testing.T) {
	for _, pair := range [][2]reflect.Type{
		{reflect.TypeFor[v1alpha1.MemberStatus](), reflect.TypeFor[v1beta1.MemberStatus]()},
		{reflect.TypeFor[v1alpha1.Operation](), reflect.TypeFor[v1beta1.Operation]()},
	} {
		if diff := cmp.Diff(paths("", pair[0]), paths("", pair[1])); diff != "" {
			t.Errorf("%s (-v1alpha1 +v1beta1):\n%s", pair[0].Name(), diff)
		}
	}
}
