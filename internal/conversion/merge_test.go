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

// counterparts says of every field of v1alpha1 where v1beta1 says the same, and of every field of v1beta1 too:
// none for what the other version cannot say.
var counterparts = []struct{ spoke, hub []string }{
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
	{[]string{"spec.pod.persistentVolumeClaimSpec.storageClassName"}, []string{"spec.storage.volumeClaimTemplate.spec.storageClassName"}},
	{[]string{"spec.pod.persistentVolumeClaimSpec.accessModes"}, []string{"spec.storage.volumeClaimTemplate.spec.accessModes"}},
	{[]string{"spec.pod.persistentVolumeClaimSpec.resources.requests"}, []string{"spec.storage.volumeClaimTemplate.spec.resources.requests"}},
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
	{[]string{"status.operation.type"}, []string{"status.operation.type"}},
	{[]string{"status.operation.member"}, []string{"status.operation.member"}},
	{[]string{"status.operation.startedAt"}, []string{"status.operation.startedAt"}},
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
