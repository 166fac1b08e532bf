package act

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

func TestUpdatesAStatefulSetOfWhichOnlyTheStatusChangedSinceItWasRead(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*appsv1.StatefulSet)
		refused bool
	}{
		"nothing changed":    {func(*appsv1.StatefulSet) {}, false},
		"the status changed": {func(s *appsv1.StatefulSet) { s.Status.ReadyReplicas = 1 }, false},
		"the spec changed":   {func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.PriorityClassName = "high" }, true},
		"an annotation changed": {func(s *appsv1.StatefulSet) {
			s.Annotations[cluster.AnnotationIntent] = "{}"
			s.Status.ReadyReplicas = 1
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := clientgoscheme.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			s := clustertest.MakeCluster("prod").Members(clustertest.Healthy).Snapshot()
			live := s.Members[0].Workload.Live
			live.ResourceVersion = ""
			a := &Actor{Client: clientfake.NewClientBuilder().WithScheme(scheme).WithObjects(live).Build()}
			key := client.ObjectKeyFromObject(live)
			var read, changed appsv1.StatefulSet
			for _, object := range []*appsv1.StatefulSet{&read, &changed} {
				if err := a.Client.Get(t.Context(), key, object); err != nil {
					t.Fatal(err)
				}
			}
			c.change(&changed)
			if err := a.Client.Update(t.Context(), &changed); err != nil {
				t.Fatal(err)
			}
			read.APIVersion, read.Kind = "apps/v1", "StatefulSet" // caches set the kind in some of their answers
			desired := read.DeepCopy()
			desired.Spec.Template.Annotations["wanted"] = "yes"
			_, err := a.Upkeep(t.Context(), &s, []plan.Upkeep{plan.UpdateStatefulSet{Desired: desired, Live: &read}})
			var written appsv1.StatefulSet
			if err := a.Client.Get(t.Context(), key, &written); err != nil {
				t.Fatal(err)
			}
			if done := written.Spec.Template.Annotations["wanted"] == "yes"; done == c.refused || c.refused != (err != nil) {
				t.Errorf("written: %t, error: %v", done, err)
			}
		})
	}
}
