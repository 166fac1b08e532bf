package main

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// benchLabel is on the pods of both contenders.
const benchLabel = "bench"

func clusterManifest(l *lab, name string) string {
	return fmt.Sprintf(`apiVersion: operator.etcd-warden.io/v1beta1
kind: EtcdCluster
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: 3
  version: %[3]s
  storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 2Gi}}}}}
  tls: {client: {mode: Disabled}, peer: {mode: Disabled}}
  podTemplate: {metadata: {labels: {%[4]s: %[1]s}}}
`, name, l.namespace, l.version, benchLabel)
}

func removeCluster(ctx context.Context, l *lab, name string) error {
	return l.Delete(ctx, &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name}})
}

// plainManifest is what somebody writes who has no operator: a static member list, volumes of the same size and class.
func plainManifest(l *lab, name string) string {
	urls := make([]string, 3)
	for i := range urls {
		urls[i] = fmt.Sprintf("%[1]s-%[2]d=http://%[1]s-%[2]d.%[1]s.%[3]s.svc:2380", name, i, l.namespace)
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {%[5]s: %[1]s}, ports: [{name: client, port: 2379}, {name: peer, port: 2380}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: 3
  serviceName: %[1]s
  podManagementPolicy: Parallel
  selector: {matchLabels: {%[5]s: %[1]s}}
  template:
    metadata: {labels: {%[5]s: %[1]s}}
    spec:
      securityContext: {runAsUser: 65532, runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: etcd
        image: gcr.io/etcd-development/etcd:v%[3]s
        command: [/usr/local/bin/etcd]
        args:
        - --name=$(POD)
        - --data-dir=/var/etcd/data
        - --listen-peer-urls=http://0.0.0.0:2380
        - --listen-client-urls=http://0.0.0.0:2379
        - --initial-advertise-peer-urls=http://$(POD).%[1]s.%[2]s.svc:2380
        - --advertise-client-urls=http://$(POD).%[1]s.%[2]s.svc:2379
        - --initial-cluster=%[4]s
        - --initial-cluster-state=new
        env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: data, mountPath: /var/etcd}]
  volumeClaimTemplates:
  - metadata: {name: data, labels: {%[5]s: %[1]s}}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}
`, name, l.namespace, l.version, strings.Join(urls, ","), benchLabel)
}

func removePlain(ctx context.Context, l *lab, name string) error {
	meta := metav1.ObjectMeta{Namespace: l.namespace, Name: name}
	for _, object := range []client.Object{&appsv1.StatefulSet{ObjectMeta: meta}, &corev1.Service{ObjectMeta: meta}} {
		if err := l.Delete(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

// startPlain makes a plain StatefulSet and waits for its voters.
func (l *lab) startPlain(ctx context.Context, name string) error {
	if err := l.apply(ctx, plainManifest(l, name)); err != nil {
		return err
	}
	return l.awaitVoters(ctx, name, 3, nil)
}
