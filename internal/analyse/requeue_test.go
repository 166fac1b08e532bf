package analyse

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

func TestTheNextPassComesWhenSomethingCanHaveChanged(t *testing.T) {
	pending := Changed(func(m *cluster.Member) { m.Pod.Phase = corev1.PodPending })
	deleting := Changed(func(m *cluster.Member) { m.Pod.Phase, m.Pod.Deleting = corev1.PodPending, true })
	begun := func(ago time.Duration) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { s.Cluster.Status.Operation.StartedAt = metav1.NewTime(Now.Add(-ago)) }
	}
	founding := func() *Builder { return MakeCluster("prod").Claim(v1beta1.OperationBootstrap).Objects() }
	for name, test := range map[string]struct {
		cluster  *Builder
		from, to time.Duration
	}{
		"when the members' pods are due":                {founding().Members(Volume, Founding).Later(begun(time.Second)), requeueWhileWrong, requeueWhileWrong},
		"rarely while members wait for their pods":      {founding().Members(Volume, Founding).Later(begun(time.Minute)), requeueAtRest, requeueAtRest},
		"rarely while members wait for pods that start": {founding().Members(Volume, Founding, FoundingPod, pending).Later(begun(time.Minute)), requeueAtRest, requeueAtRest},
		"sooner while a pod is being deleted":           {founding().Members(Volume, Founding, FoundingPod, deleting), time.Second, requeueWhileWrong},
		"soon while etcd starts in a pod that runs":     {founding().Members(Volume, Founding, FoundingPod, Silent("refused")).Later(begun(time.Second)), time.Second, time.Second},
		"less and less often while it goes on starting": {founding().Members(Volume, Founding, FoundingPod, Silent("refused")).Later(begun(time.Minute)), 7 * time.Second, 8 * time.Second},
		"often enough after an hour":                    {founding().Members(Volume, Founding, FoundingPod, Silent("refused")).Later(begun(time.Hour)), requeueWhileWrong, requeueWhileWrong},
		"soon while one pod runs and the others wait":   {founding().Members(Volume, Founding).Member("prod-0", Volume, Founding, FoundingPod, Silent("refused")), time.Second, time.Second},
		"as where something is wrong, while two serve and the third waits for its pod": {
			founding().Members(Healthy).Member("prod-2", Volume, Founding).Later(begun(time.Minute)), requeueWhileWrong, requeueWhileWrong,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(test.cluster.Snapshot())
			if d.Action != nil || d.RequeueAfter < test.from || d.RequeueAfter > test.to {
				t.Errorf("%s: the next pass is in %s, want %s to %s (%s)", d.Rule, d.RequeueAfter, test.from, test.to, d.Message)
			}
		})
	}
}
