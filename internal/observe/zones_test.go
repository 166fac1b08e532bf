package observe

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// spread is three members on nodes of three zones. Node-2 is gone.
func spread(t *testing.T) *stage {
	s := newStage(t, 3)
	members := []cluster.EtcdMember{}
	for i, name := range []string{"prod-0", "prod-1", "prod-2"} {
		id := cluster.ID(0xa0 + i)
		s.member(name, fmt.Sprintf("10.0.0.%d", i+1), cluster.Probe{ClusterID: 0xc1, MemberID: id, Leader: 0xa0, Linearizable: true, Version: "3.6.16"})
		s.objects[len(s.objects)-1].(*corev1.Pod).Spec.NodeName = fmt.Sprintf("node-%d", i)
		members = append(members, listOf(name, id).Members...)
		if i < 2 {
			s.add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("node-%d", i), Labels: map[string]string{corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i)},
			}})
		}
	}
	for i := range members {
		s.members[fmt.Sprintf("10.0.0.%d:2379", i+1)] = cluster.Membership{ClusterID: 0xc1, Members: members}
	}
	return s
}

func TestReadsZonesOnlyWhileAVoterIsToBeRemoved(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "node-0", errors.New("no"))
	for name, c := range map[string]struct {
		replicas int32
		change   func(*stage)
		want     []string
	}{
		"a voter is to be removed":   {1, nil, []string{"zone-0", "zone-1", ""}},
		"the size is right":          {3, nil, []string{"", "", ""}},
		"a namespaced operator":      {1, func(s *stage) { s.observer.SeesClusterScope = false }, []string{"", "", ""}},
		"nodes that may not be read": {1, func(s *stage) { s.refuse = refuseNodes(forbidden) }, []string{"", "", ""}},
		"a member that has no pod yet": {1, func(s *stage) {
			s.objects = slices.DeleteFunc(s.objects, func(o client.Object) bool { return o.GetName() == "prod-1-0" })
		}, []string{"zone-0", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			s := spread(t)
			s.observe() // makes the observer
			s.cluster.Spec.Replicas = c.replicas
			if c.change != nil {
				c.change(s)
			}
			snapshot := s.observe()
			for i, want := range c.want {
				if m := snapshot.Members[i]; m.Pod != nil && m.Pod.Zone != want || m.Pod == nil && want != "" {
					t.Errorf("%s: wanted zone %q, got %+v", m.Name, want, m.Pod)
				}
			}
		})
	}
}

func refuseNodes(err error) func(client.Object, string) error {
	return func(object client.Object, _ string) error {
		if _, isNode := object.(*corev1.Node); isNode {
			return err
		}
		return nil
	}
}
