package cluster

import (
	"testing"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// Where every volume is gone, the status alone remembers that there was data. A claimed founding has none yet.
func TestTheStatusRemembersThatAClusterWasFounded(t *testing.T) {
	s := Snapshot{Cluster: &v1beta1.EtcdCluster{}, Members: []Member{{Name: "prod-0"}}}
	if s.Founded() {
		t.Error("without any memory it counts as founded")
	}
	s.Cluster.Status.ClusterID = "c1"
	if !s.Founded() {
		t.Error("the cluster ID in the status is no memory")
	}
	s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationBootstrap}
	if s.Founded() {
		t.Error("a claimed founding counts as founded")
	}
	s.Cluster.Status.Operation.Type = v1beta1.OperationAddMember
	if !s.Founded() {
		t.Error("the growth of a cluster counts as its founding")
	}
	s.Cluster.Status.Operation.Type = v1beta1.OperationBootstrap
	s.Members[0].Volume = &Volume{StartedBy: StartedByReadiness}
	if !s.Founded() {
		t.Error("a member that started is no memory")
	}
}

func TestAVolumeIsAcceptedByItsOwnIdentityOnly(t *testing.T) {
	v := Volume{Identity: VolumeIdentity{Claim: "claim-2", Name: "pv-2"}, Remembered: VolumeIdentity{Claim: "claim-1", Name: "pv-1"}}
	for text, accepted := range map[string]bool{
		"": false, "claim-1/pv-1": false, "claim-2/pv-1": false, "claim-1/pv-2": false, "pv-2": false, "claim-2/pv-2": true,
	} {
		if v.Accepted = text; v.IsAccepted() != accepted || v.IsReplaced() == accepted {
			t.Errorf("%q: accepted %t, replaced %t", text, v.IsAccepted(), v.IsReplaced())
		}
	}
}
