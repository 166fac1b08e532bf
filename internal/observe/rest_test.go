package observe

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

func TestAClusterIsAtRestWhileNothingChangesItsVersion(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*cluster.Snapshot)
		atRest bool
	}{
		"nothing":                   {func(*cluster.Snapshot) {}, true},
		"another version":           {func(s *cluster.Snapshot) { s.Cluster.Spec.Version = "3.7.3" }, false},
		"an operation":              {func(s *cluster.Snapshot) { s.Cluster.Status.Operation = &v1beta1.Operation{} }, false},
		"members that differ":       {func(s *cluster.Snapshot) { s.Cluster.Status.Version = "" }, false},
		"one that is made for less": {func(s *cluster.Snapshot) { s.Members[1].Workload.Intent.Version = "3.5.35" }, false},
		"a downgrade": {func(s *cluster.Snapshot) {
			s.PeerService = &corev1.Service{}
			s.PeerService.Annotations = map[string]string{cluster.AnnotationDowngrade: "3.5"}
		}, false},
	} {
		s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
		s.Cluster = s.Cluster.DeepCopy()
		s.Cluster.Status.Version = s.Cluster.Spec.Version
		c.change(&s)
		if got := isAtRest(&s); got != c.atRest {
			t.Errorf("%s: at rest %t", name, got)
		}
	}
}
