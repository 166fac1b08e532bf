package analyse

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

func TestTrustsThePodsAnnotationUnlessThePodWaitedForItsSecret(t *testing.T) {
	const annotated = "p0"
	at := func(seconds int) time.Time { return Now.Add(time.Duration(seconds) * time.Second) }
	for name, c := range map[string]struct {
		podCreated, secretCreated, started time.Time
		bundle                             []string
		want                               []string
	}{
		"the pod waited":                         {at(0), at(5), at(6), []string{"p1"}, nil},
		"all in the same second":                 {at(0), at(0), at(0), []string{"p1"}, nil},
		"etcd started before the Secret":         {at(0), at(5), at(4), []string{"p1"}, []string{annotated}},
		"the pod is newer than the Secret":       {at(6), at(5), at(7), []string{"p1"}, []string{annotated}},
		"the Secret names the authority too":     {at(0), at(5), at(6), []string{annotated, "p1"}, []string{annotated}},
		"etcd never started":                     {at(0), at(5), time.Time{}, []string{"p1"}, []string{annotated}},
		"the Secret does not exist (any longer)": {at(0), time.Time{}, at(6), nil, []string{annotated}},
	} {
		t.Run(name, func(t *testing.T) {
			s := MakeCluster("prod").Managed().Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
				p := s.Member("prod-0").Pod
				p.PeerAuthorities, p.CreatedAt, p.StartedAt = []string{annotated}, c.podCreated, c.started
				s.PeerTrust.Certificates[0].CreatedAt, s.PeerTrust.Certificates[0].Bundle = c.secretCreated, c.bundle
			}).Snapshot()
			m := s.Member("prod-0")
			if diff := cmp.Diff(c.want, startedWith(&s, m.Pod, cluster.PeerTraffic)); diff != "" {
				t.Error(diff)
			}
			if c.bundle != nil && !startedWithOldAuthorities(&s, m) {
				t.Error("it is not restarted to load what its Secret holds")
			}
		})
	}
}
