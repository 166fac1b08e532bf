//go:build integration

package integration

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// columns returns what kubectl get shows of a cluster, as NAME=CELL, without the age.
func columns(t *testing.T, version string, c *v1beta1.EtcdCluster, wide bool) string {
	t.Helper()
	server, err := rest.HTTPClientFor(adminConfig)
	must(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(adminConfig.Host, "/")+
		"/apis/"+v1beta1.GroupVersion.Group+"/"+version+"/namespaces/"+c.Namespace+"/etcdclusters/"+c.Name, nil)
	must(t, err)
	request.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	response, err := server.Do(request)
	must(t, err)
	defer func() { must(t, response.Body.Close()) }()
	raw, err := io.ReadAll(response.Body)
	must(t, err)
	var table metav1.Table
	must(t, json.Unmarshal(raw, &table))
	if len(table.Rows) != 1 {
		t.Fatalf("the table has %d rows: %s", len(table.Rows), raw)
	}
	var shown []string
	for n, column := range table.ColumnDefinitions {
		if column.Name == "Age" || column.Priority > 0 && !wide {
			continue
		}
		cell, _ := table.Rows[0].Cells[n].(string)
		shown = append(shown, column.Name+"="+cell)
	}
	return strings.Join(shown, " ")
}

func TestTheColumnsShowVersionsMembersAndState(t *testing.T) {
	t.Parallel()
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: name}, Spec: v1beta1.EtcdClusterSpec{Replicas: 3}}
	must(t, admin.Create(t.Context(), c))
	const fresh = "Name=prod Version= Target= Ready= Available= State="
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		if got := columns(t, version, c, false); got != fresh {
			t.Errorf("%s shows %q of a new cluster, want %q", version, got, fresh)
		}
	}
	condition := func(kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: reason, LastTransitionTime: metav1.Now()}
	}
	c.Status = v1beta1.EtcdClusterStatus{
		Version: "3.6.16", TargetVersion: "3.6.17", Replicas: 3, ReadyReplicas: 2, Ready: "2/3", Leader: "prod-0", ClusterID: "c1",
		Operation: &v1beta1.Operation{Type: v1beta1.OperationRollMember, Member: "prod-1", StartedAt: metav1.Now()},
		Conditions: []metav1.Condition{
			condition(v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing),
			condition(v1beta1.ConditionProgressing, metav1.ConditionTrue, v1beta1.ReasonRollingMembers),
		},
	}
	must(t, admin.Status().Update(t.Context(), c))
	const narrow = "Name=prod Version=3.6.16 Target=3.6.17 Ready=2/3 Available=True State=RollingMembers"
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		if got := columns(t, version, c, false); got != narrow {
			t.Errorf("%s shows %q, want %q", version, got, narrow)
		}
		if got, want := columns(t, version, c, true), narrow+" Step=RollMember Member=prod-1 Reason=QuorumServing Leader=prod-0 Cluster ID=c1"; got != want {
			t.Errorf("%s shows %q, want %q", version, got, want)
		}
	}
}

func TestTheScaleSubresourceAllowsWhatTheSpecAllows(t *testing.T) {
	t.Parallel()
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: name}, Spec: v1beta1.EtcdClusterSpec{Replicas: 3}}
	must(t, admin.Create(t.Context(), c))
	c.Status = v1beta1.EtcdClusterStatus{Replicas: 4, ReadyReplicas: 2, Selector: "a=b"}
	must(t, admin.Status().Update(t.Context(), c))
	scale := &autoscalingv1.Scale{}
	must(t, admin.SubResource("scale").Get(t.Context(), c, scale))
	if scale.Spec.Replicas != 3 || scale.Status.Replicas != 4 || scale.Status.Selector != "a=b" {
		t.Errorf("the scale is %+v of %+v", scale.Status, scale.Spec)
	}
	for _, replicas := range []int32{0, 2, 4, 9} {
		scale.Spec.Replicas = replicas
		err := admin.SubResource("scale").Update(t.Context(), c, client.WithSubResourceBody(scale.DeepCopy()))
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), badReplicas) {
			t.Errorf("error = %v, want a refusal of %d replicas", err, replicas)
		}
	}
	for _, replicas := range []int32{1, 7, 5} {
		must(t, admin.SubResource("scale").Get(t.Context(), c, scale))
		scale.Spec.Replicas = replicas
		must(t, admin.SubResource("scale").Update(t.Context(), c, client.WithSubResourceBody(scale)))
		must(t, admin.Get(t.Context(), c.Key(), c))
		if c.Spec.Replicas != replicas {
			t.Errorf("there are %d replicas, want %d", c.Spec.Replicas, replicas)
		}
	}
}
