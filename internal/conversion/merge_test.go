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

// counterparts lists the fields that are converted into each other. One side is empty if the other version lacks the
// field.
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
	{hub: []string{"spec.storage.retentionPolicy.whenScaled"}},
	{hub: []string{"spec.storage.retentionPolicy.whenReplaced"}},
	{hub: []string{"spec.storage.ephemeral"}},
	{hub: []string{"spec.recovery.memberReplacement.policy"}},
	{hub: []string{"spec.recovery.memberReplacement.after"}},
	{hub: []string{"spec.maintenance.consistencyCheck"}},
	{hub: []string{"spec.image.tag"}},
	{hub: []string{"spec.image.digest"}},
	{hub: []string{"spec.image.pullPolicy"}},
	{hub: []string{"spec.updateStrategy.operatorUpgrade"}},
	{hub: []string{"spec.updateStrategy.progressDeadlineSeconds"}},
	{hub: []string{"spec.podTemplate.spec.topologySpreadConstraints"}},
	{hub: []string{"spec.podTemplate.spec.priorityClassName"}},
	{hub: []string{"spec.podTemplate.spec.schedulerName"}},
	{hub: []string{"spec.podTemplate.spec.runtimeClassName"}},
	{hub: []string{"spec.podTemplate.spec.imagePullSecrets"}},
	{hub: []string{"spec.bootstrap.existingVolumes"}},
}

// row contains paths of fields. A path includes the fields below it.
type row struct{ spoke, hub []string }

// mergedPaths returns the paths of the fields that are merged as a whole.
func mergedPaths(t reflect.Type, path string) []string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if mergedStructs[t] == nil {
		return []string{path}
	}
	var all []string
	for _, f := range mergedStructs[t] {
		all = append(all, mergedPaths(t.Field(f.index).Type, strings.TrimPrefix(path+"."+f.name, "."))...)
	}
	return all
}

func TestCounterpartsListsEveryFieldOfTheSpec(t *testing.T) {
	covered := func(path string, side func(row) []string) bool {
		return slices.ContainsFunc(counterparts, func(r row) bool {
			return slices.ContainsFunc(side(r), func(known string) bool { return path == known || strings.HasPrefix(path, known+".") })
		})
	}
	for _, path := range mergedPaths(reflect.TypeFor[v1alpha1.EtcdCluster](), "") {
		if !covered(path, func(r row) []string { return r.spoke }) {
			t.Errorf("%s of v1alpha1 is not in counterparts: convert it and add it", path)
		}
	}
	for _, path := range mergedPaths(reflect.TypeFor[v1beta1.EtcdCluster](), "") {
		if !covered(path, func(r row) []string { return r.hub }) {
			t.Errorf("%s of v1beta1 is not in counterparts: convert it and add it", path)
		}
	}
}

func TestAPatchInV1alpha1ChangesOnlyTheCounterparts(t *testing.T) {
	from := newSource(t)
	for n := range rounds / 5 {
		hub, donor, r := from.hub(), from.spoke(), counterparts[n%len(counterparts)]
		patched := transplant(r.spoke, asTree(spokeOf(hub)), asTree(donor))
		var view v1alpha1.EtcdCluster
		fromTree(t, patched, &view)
		after := hubOf(&view)
		wantSame(t, without(asTree(hub), r.hub), without(asTree(after), r.hub))
		wantSame(t, without(patched, nil), without(asTree(spokeOf(after)), nil))
		if t.Failed() {
			t.Fatalf("after a patch of %v", r.spoke)
		}
	}
}

func TestAPatchInV1beta1ChangesOnlyTheCounterparts(t *testing.T) {
	from := newSource(t)
	for n := range rounds / 5 {
		spoke, donor, r := from.spoke(), from.hub(), counterparts[n%len(counterparts)]
		patched := transplant(r.hub, asTree(hubOf(spoke)), asTree(donor))
		var hub v1beta1.EtcdCluster
		fromTree(t, patched, &hub)
		after := spokeOf(&hub)
		wantSame(t, without(asTree(spoke), r.spoke), without(asTree(after), r.spoke))
		wantSame(t, without(patched, nil), without(asTree(hubOf(after)), nil))
		if t.Failed() {
			t.Fatalf("after a patch of %v", r.hub)
		}
	}
}

func TestKeepsTheChangesOfAClientOfV1alpha1(t *testing.T) {
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
		"data in memory stay there": {
			`{storage: {ephemeral: {medium: Memory, sizeLimit: 1Gi}}}`, `{paused: true}`, `{paused: true, storage: {ephemeral: {medium: Memory, sizeLimit: 1Gi}}}`,
		},
		"a volume that is asked for has no effect beside memory": {
			`{storage: {ephemeral: {medium: Memory, sizeLimit: 1Gi}}}`,
			`{pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 9Gi}}}}}`,
			`{storage: {ephemeral: {medium: Memory, sizeLimit: 1Gi}, volumeClaimTemplate: {spec: {resources: {requests: {storage: 9Gi}}}}}}`,
		},
		"a node selector joins a field that v1alpha1 lacks": {
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
			view := spokeOf(&hub)
			specOf(t, test.patch, &view.Spec)
			wantSame(t, without(asTree(want), nil), without(asTree(hubOf(view)), nil))
		})
	}
}

func TestKeepsTheChangesOfAClientOfV1beta1(t *testing.T) {
	for does, test := range map[string]struct{ spoke, patch, want string }{
		"options keep their order, and new ones come last": {
			`{pod: {etcdEnv: [{name: ETCD_SNAPSHOT_COUNT, value: "1"}, {name: ETCD_MAX_WALS, value: "2"}, {name: ETCD_CORS, value: "*"}]}}`,
			`{config: {extraArgs: {snapshot-count: "1", cors: "a", bcrypt-cost: "3"}}}`,
			`{pod: {etcdEnv: [{name: ETCD_SNAPSHOT_COUNT, value: "1"}, {name: ETCD_CORS, value: a}, {name: ETCD_BCRYPT_COST, value: "3"}]}}`,
		},
		"fields that v1beta1 lacks stay": {
			`{pod: {busyboxImage: busybox, DNSTimeoutInSecond: 5, ClusterDomain: a.b}}`, `{clusterDomain: c.d}`,
			`{pod: {busyboxImage: busybox, DNSTimeoutInSecond: 5, ClusterDomain: c.d}}`,
		},
		"a volume of the default size that is written grows": {
			`{pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 2Gi}}}}}`,
			`{storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 3Gi}}}}}}`,
			`{pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 3Gi}}}}}`,
		},
		"typed options show as variables": {
			`{}`, `{config: {quotaBackendBytes: 1Gi, autoCompaction: {mode: Revision, retention: "9"}}}`,
			`{pod: {etcdEnv: [{name: ETCD_AUTO_COMPACTION_MODE, value: revision}, {name: ETCD_AUTO_COMPACTION_RETENTION, value: "9"}, {name: ETCD_QUOTA_BACKEND_BYTES, value: "1073741824"}]}}`,
		},
		"certificates that v1alpha1 lacks are not shown": {
			`{TLS: {static: {member: {peerSecret: p, serverSecret: s}, operatorSecret: o}}}`, `{tls: {client: {mode: Managed}}}`,
			`{TLS: {static: {member: {peerSecret: p}}}}`,
		},
	} {
		t.Run(does, func(t *testing.T) {
			var spoke, want v1alpha1.EtcdCluster
			specOf(t, test.spoke, &spoke.Spec)
			specOf(t, test.want, &want.Spec)
			hub := hubOf(stored(&spoke))
			if hub.Spec.Config != nil {
				hub.Spec.Config.ExtraArgs = nil
			}
			hub.Spec.TLS.Client.SecretRef = nil
			specOf(t, test.patch, &hub.Spec)
			wantSame(t, without(asTree(want), nil), without(asTree(spokeOf(hub)), nil))
		})
	}
}

func TestWithoutAnnotationsOnlyTheFieldsOfV1alpha1Count(t *testing.T) {
	var hub, want v1beta1.EtcdCluster
	specOf(t, `{replicas: 3, podTemplate: {spec: {priorityClassName: high}}, bootstrap: {existingVolumes: Ignore}}`, &hub.Spec)
	view := spokeOf(&hub)
	view.Annotations = nil
	specOf(t, `{replicas: 3, tls: {client: {mode: Disabled}, peer: {mode: Disabled}}, storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 8Gi}}}}}}`, &want.Spec)
	wantSame(t, want.Spec, hubOf(view).Spec)
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

// without returns spec and status without the paths and without empty values.
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

// renamedStatus are the fields of the status that v1beta1 has under another name.
var renamedStatus = strings.NewReplacer(".Size", ".Replicas", ".ReadyMembers", ".ReadyReplicas")

// The status has no annotations for lost fields. So each version must have every field that the other version has.
func TestTheStatusOfBothVersionsHasTheSameFields(t *testing.T) {
	var spoke []string
	for _, path := range paths("", reflect.TypeFor[v1alpha1.EtcdClusterStatus]()) {
		spoke = append(spoke, renamedStatus.Replace(path))
	}
	if diff := cmp.Diff(spoke, paths("", reflect.TypeFor[v1beta1.EtcdClusterStatus]())); diff != "" {
		t.Errorf("(-v1alpha1 +v1beta1):\n%s", diff)
	}
}

func TestTheStatusNeedsNoAnnotations(t *testing.T) {
	from := newSource(t)
	for range rounds / 5 {
		hub, spoke := &v1beta1.EtcdCluster{Status: from.hub().Status}, &v1alpha1.EtcdCluster{Status: from.spoke().Status}
		view, stored := spokeOf(hub), hubOf(spoke)
		for _, annotations := range []map[string]string{view.Annotations, stored.Annotations} {
			for key := range annotations {
				if strings.Contains(key, "/status") {
					t.Fatalf("the annotation %s saves a field of the status", key)
				}
			}
		}
		view.Annotations, stored.Annotations = nil, nil
		wantSame(t, hub.Status, hubOf(view).Status)
		wantSame(t, spoke.Status, spokeOf(stored).Status)
	}
}

// A client may have the right to write objects, but not their status. It must not write the status through annotations.
func TestNoAnnotationChangesTheStatus(t *testing.T) {
	from := newSource(t)
	for range rounds / 5 {
		hub, spoke := from.hub(), from.spoke()
		honest, honestView := hubOf(spoke), spokeOf(hub)
		spoke.Annotations, hub.Annotations = statusAnnotations(HubPrefix, hub.Status), statusAnnotations(SpokePrefix, spoke.Status)
		wantSame(t, honest.Status, hubOf(spoke).Status)
		wantSame(t, honestView.Status, spokeOf(hub).Status)
		// annotations of the other direction
		spoke.Annotations, hub.Annotations = statusAnnotations(SpokePrefix, spoke.Status), statusAnnotations(HubPrefix, hub.Status)
		wantSame(t, honest.Status, hubOf(spoke).Status)
		wantSame(t, honestView.Status, spokeOf(hub).Status)
	}
}

// statusAnnotations are annotations that claim to save each field of a status.
func statusAnnotations(prefix string, status any) map[string]string {
	annotations := map[string]string{prefix + "status": "null"}
	for name, value := range asTree(status) {
		annotations[prefix+"status."+name] = string(asJSON(value))
	}
	annotations[prefix+"status.clientSecretName"] = `"of-the-attacker"`
	return annotations
}
