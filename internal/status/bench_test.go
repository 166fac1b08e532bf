package status

import (
	"testing"

	"github.com/etcd-warden/etcd-warden/internal/analyse"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

// BenchmarkPass measures one full pass over a resting cluster of three with managed TLS, without observing it.
// BenchmarkReference is the work of 100 deep copies of a StatefulSet, to compare machines by.
func BenchmarkPass(b *testing.B) {
	s := MakeCluster("prod").Managed().Objects().Members(Healthy).Snapshot()
	d := analyse.Next(s)
	if d.Action != nil || len(d.Upkeep) > 0 || len(d.Refusals) > 0 {
		b.Fatalf("the cluster does not rest: %+v", d)
	}
	s.Cluster.Status = Of(&s, &d, nil).Status
	for b.Loop() {
		d := analyse.Next(s)
		Of(&s, &d, nil)
	}
}

func BenchmarkReference(b *testing.B) {
	set := MakeCluster("prod").Managed().Objects().Members(Healthy).Snapshot().Members[0].Workload.Live
	for b.Loop() {
		for range 100 {
			set.DeepCopy()
		}
	}
}
