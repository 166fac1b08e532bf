package analyse

import (
	"testing"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func TestKeepsTheHealthyIntentWhenAStatefulSetIsRenderedAgain(t *testing.T) {
	s := clustertest.MakeCluster("prod").Objects().Members(clustertest.Healthy).Snapshot()
	m := s.Member("prod-0")
	m.Workload.Live.Annotations[cluster.AnnotationHealthyIntent] = "{}"
	again := render.MemberStatefulSet(memberInput(&s, "prod-0", m.Workload.Intent, true))
	if kept := again.Annotations[cluster.AnnotationHealthyIntent]; kept != "{}" {
		t.Errorf("the healthy intent became %q", kept)
	}
	delete(m.Workload.Live.Annotations, cluster.AnnotationHealthyIntent)
	again = render.MemberStatefulSet(memberInput(&s, "prod-0", m.Workload.Intent, true))
	if made, ok := again.Annotations[cluster.AnnotationHealthyIntent]; ok {
		t.Errorf("a healthy intent was made up: %q", made)
	}
}
