package conversion

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/api/v1beta1"
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

// leaves returns the paths of the fields that conversion takes or leaves as a whole.
func leaves(t reflect.Type, path string) []string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if fieldsOf[t] == nil {
		return []string{path}
	}
	var all []string
	for _, f := range fieldsOf[t] {
		all = append(all, leaves(t.Field(f.index).Type, strings.TrimPrefix(path+"."+f.name, "."))...)
	}
	return all
}

func TestEveryFieldHasACounterpartOrIsKnownToHaveNone(t *testing.T) {
	covered := func(path string, side func(row) []string) bool {
		return slices.ContainsFunc(counterparts, func(r row) bool {
			return slices.ContainsFunc(side(r), func(known string) bool { return path == known || strings.HasPrefix(path, known+".") })
		})
	}
	for _, path := range leaves(reflect.TypeFor[v1alpha1.EtcdCluster](), "") {
		if !covered(path, func(r row) []string { return r.spoke }) {
			t.Errorf("%s of v1alpha1 is not converted: convert it, or know here that v1beta1 cannot say it", path)
		}
	}
	for _, path := range leaves(reflect.TypeFor[v1beta1.EtcdCluster](), "") {
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
		after := toHub(t, &view)
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
		patched := transplant(r.hub, asTree(toHub(t, spoke)), asTree(donor))
		var hub v1beta1.EtcdCluster
		fromTree(t, patched, &hub)
		after := fromHub(&hub)
		wantSame(t, without(asTree(spoke), r.spoke), without(asTree(after), r.spoke))
		wantSame(t, without(patched, nil), without(asTree(toHub(t, after)), nil))
		if t.Failed() {
			t.Fatalf("after a patch of %v", r.hub)
		}
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
