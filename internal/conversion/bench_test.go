package conversion

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/api/v1beta1"
)

var sample = []byte(`{"apiVersion":"operator.etcd-steward.io/v1beta1","kind":"EtcdCluster","metadata":{"name":"prod","namespace":"shop","uid":"11111111-2222-3333-4444-555555555555","resourceVersion":"123456","generation":4,"creationTimestamp":"2026-01-02T03:04:05Z","labels":{"app.kubernetes.io/part-of":"shop","team":"storage"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"operator.etcd-steward.io/v1beta1\",\"kind\":\"EtcdCluster\",\"metadata\":{\"annotations\":{},\"name\":\"prod\",\"namespace\":\"shop\"},\"spec\":{\"replicas\":3,\"version\":\"3.6.16\",\"storage\":{\"volumeClaimTemplate\":{\"spec\":{\"storageClassName\":\"fast\",\"resources\":{\"requests\":{\"storage\":\"8Gi\"}}}}},\"config\":{\"quotaBackendBytes\":\"2Gi\"}}}\n"},"managedFields":[{"manager":"kubectl-client-side-apply","operation":"Update","apiVersion":"operator.etcd-steward.io/v1beta1","time":"2026-01-02T03:04:05Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}},"f:labels":{".":{},"f:app.kubernetes.io/part-of":{},"f:team":{}}},"f:spec":{".":{},"f:config":{".":{},"f:autoCompaction":{".":{},"f:mode":{},"f:retention":{}},"f:extraArgs":{".":{},"f:snapshot-count":{}},"f:quotaBackendBytes":{}},"f:image":{".":{},"f:repository":{}},"f:podTemplate":{".":{},"f:metadata":{".":{},"f:labels":{".":{},"f:team":{}}},"f:spec":{".":{},"f:nodeSelector":{".":{},"f:disk":{}},"f:priorityClassName":{},"f:tolerations":{},"f:topologySpreadConstraints":{}}},"f:replicas":{},"f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},"f:storage":{".":{},"f:volumeClaimTemplate":{".":{},"f:spec":{".":{},"f:resources":{".":{},"f:requests":{".":{},"f:storage":{}}},"f:storageClassName":{}}}},"f:version":{}}}},{"manager":"etcd-steward","operation":"Update","apiVersion":"operator.etcd-steward.io/v1beta1","time":"2026-01-02T03:05:05Z","fieldsType":"FieldsV1","fieldsV1":{"f:status":{".":{},"f:clientPort":{},"f:clientSecretName":{},"f:clusterID":{},"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:observedGeneration":{},"f:reason":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Degraded\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:observedGeneration":{},"f:reason":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Progressing\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:observedGeneration":{},"f:reason":{},"f:status":{},"f:type":{}}},"f:leader":{},"f:members":{".":{},"k:{\"name\":\"prod-0\"}":{".":{},"f:id":{},"f:name":{},"f:ready":{},"f:role":{},"f:version":{}},"k:{\"name\":\"prod-1\"}":{".":{},"f:id":{},"f:name":{},"f:ready":{},"f:role":{},"f:version":{}},"k:{\"name\":\"prod-2\"}":{".":{},"f:id":{},"f:name":{},"f:ready":{},"f:role":{},"f:version":{}}},"f:observedGeneration":{},"f:readyReplicas":{},"f:replicas":{},"f:selector":{},"f:serviceName":{},"f:targetVersion":{},"f:version":{}}},"subresource":"status"}]},"spec":{"replicas":3,"version":"3.6.16","image":{"repository":"registry.example.com/mirror/etcd"},"storage":{"volumeClaimTemplate":{"spec":{"storageClassName":"fast","resources":{"requests":{"storage":"8Gi"}}}}},"config":{"quotaBackendBytes":"2Gi","autoCompaction":{"mode":"Periodic","retention":"1h"},"extraArgs":{"snapshot-count":"20000"}},"resources":{"limits":{"memory":"2Gi"},"requests":{"cpu":"500m","memory":"2Gi"}},"podTemplate":{"metadata":{"labels":{"team":"storage"}},"spec":{"nodeSelector":{"disk":"fast"},"priorityClassName":"critical","tolerations":[{"key":"etcd","operator":"Exists","effect":"NoSchedule"}],"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchLabels":{"operator.etcd-steward.io/cluster":"prod"}}}]}}},"status":{"observedGeneration":4,"clusterID":"cdf818194e3a8c32","version":"3.6.16","targetVersion":"3.6.16","replicas":3,"readyReplicas":3,"selector":"app.kubernetes.io/managed-by=etcd-steward,operator.etcd-steward.io/cluster=prod","leader":"prod-1","serviceName":"prod-client","clientPort":2379,"clientSecretName":"prod-client-tls","members":[{"name":"prod-0","id":"8211f1d0f64f3269","role":"Voter","version":"3.6.16","ready":true},{"name":"prod-1","id":"91bc3c398fb3c146","role":"Voter","version":"3.6.16","ready":true},{"name":"prod-2","id":"fd422379fda50e48","role":"Voter","version":"3.6.16","ready":true}],"conditions":[{"type":"Available","status":"True","observedGeneration":4,"lastTransitionTime":"2026-01-02T03:05:05Z","reason":"QuorumServes","message":"3 of 3 voters answer."},{"type":"Progressing","status":"False","observedGeneration":4,"lastTransitionTime":"2026-01-02T03:05:05Z","reason":"AsWanted","message":"The cluster is as its spec wants it."},{"type":"Degraded","status":"False","observedGeneration":4,"lastTransitionTime":"2026-01-02T03:05:05Z","reason":"AllMembersReady","message":"All members are ready."}]}}`)

func samples(b *testing.B) (hub, spoke []byte) {
	var h v1beta1.EtcdCluster
	if err := json.Unmarshal(sample, &h); err != nil {
		b.Fatal(err)
	}
	s := fromHub(&h)
	s.APIVersion, s.Kind = "operator.etcd-steward.io/v1alpha1", "EtcdCluster"
	return asJSON(h), asJSON(s)
}

func BenchmarkFromHub(b *testing.B) {
	raw, _ := samples(b)
	var hub v1beta1.EtcdCluster
	_ = json.Unmarshal(raw, &hub)
	for b.Loop() {
		var spoke v1alpha1.EtcdCluster
		FromHub(&hub, &spoke)
	}
}

func BenchmarkToHub(b *testing.B) {
	_, raw := samples(b)
	var spoke v1alpha1.EtcdCluster
	_ = json.Unmarshal(raw, &spoke)
	for b.Loop() {
		var hub v1beta1.EtcdCluster
		if err := ToHub(&spoke, &hub); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkHandler(b *testing.B, h http.Handler, n int) {
	hub, _ := samples(b)
	var objects [][]byte
	for range n {
		objects = append(objects, hub)
	}
	body := review("v1alpha1", objects...)
	b.SetBytes(int64(len(body)))
	start := cpu()
	defer func() { b.ReportMetric(float64(cpu()-start)/float64(b.N)/1e6, "cpu-ms/op") }()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/convert", bytes.NewReader(body)))
		if w.Code != http.StatusOK || w.Body.Len() < len(body)/2 {
			b.Fatal(w.Code, w.Body.String())
		}
	}
}

func BenchmarkHandlerOne(b *testing.B)  { benchmarkHandler(b, Handler(), 1) }
func BenchmarkHandlerList(b *testing.B) { benchmarkHandler(b, Handler(), 10000) }

func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkControllerRuntimeList(b *testing.B) { benchmarkHandler(b, reference(b), 10000) }
