package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// story is every version of a cluster's object, and every state of its pods, from the moment that it is followed.
type story struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	failed [2]error

	versions []*v1beta1.EtcdCluster
	pods     map[string]*corev1.Pod
	up       []int // how many pods were up after each change of a pod
	replaced map[string]int
	images   map[string][]string // of etcd, by pod, the same one not twice in a row
}

// follow begins to watch.
func follow(ctx context.Context, c *v1beta1.EtcdCluster) *story {
	GinkgoHelper()
	watcher, err := client.NewWithWatch(config, client.Options{Scheme: kube.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	bounded, stop := context.WithCancel(ctx)
	s := &story{stop: stop, pods: map[string]*corev1.Pod{}, replaced: map[string]int{}, images: map[string][]string{}}
	s.watch(bounded, watcher, 0, &v1beta1.EtcdClusterList{}, func(x watch.Event) {
		if version, ok := x.Object.(*v1beta1.EtcdCluster); ok && version.Name == c.Name {
			s.versions = append(s.versions, version)
		}
	}, client.InNamespace(c.Namespace))
	s.watch(bounded, watcher, 1, &corev1.PodList{}, func(x watch.Event) {
		if pod, ok := x.Object.(*corev1.Pod); ok {
			s.notePod(pod, x.Type == watch.Deleted)
		}
	}, client.InNamespace(c.Namespace), client.MatchingLabels{cluster.LabelCluster: c.Name})
	return s
}

// watch begins with what there is: the API server sends it first.
func (s *story) watch(ctx context.Context, watcher client.WithWatch, n int, list client.ObjectList, note func(watch.Event), options ...client.ListOption) {
	GinkgoHelper()
	changes, err := watcher.Watch(ctx, list, options...)
	Expect(err).NotTo(HaveOccurred())
	s.done.Go(func() {
		for x := range changes.ResultChan() {
			note(x)
		}
		if ctx.Err() == nil {
			s.failed[n] = errors.New("the watch ended early")
		}
	})
}

func (s *story) notePod(pod *corev1.Pod, deleted bool) {
	if before := s.pods[pod.Name]; before != nil && before.UID != pod.UID {
		s.replaced[pod.Name]++
	}
	s.pods[pod.Name] = pod
	s.images[pod.Name] = slices.Compact(append(s.images[pod.Name], pod.Spec.Containers[0].Image))
	if deleted {
		pod.DeletionTimestamp = new(metav1.Now())
	}
	up := 0
	for _, p := range s.pods {
		if isUp(p) {
			up++
		}
	}
	s.up = append(s.up, up)
}

// isUp reports whether a pod is ready. One that is being deleted is down.
func isUp(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
		return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
	})
}

// end stops the watches. It returns the operations that were under way, in their order.
func (s *story) end() []v1beta1.Operation {
	GinkgoHelper()
	s.stop()
	s.done.Wait()
	Expect(errors.Join(s.failed[:]...)).NotTo(HaveOccurred())
	var list []v1beta1.Operation
	for _, version := range s.versions {
		op := version.Status.Operation
		if op == nil {
			continue
		}
		if last := len(list) - 1; last >= 0 && list[last].Type == op.Type && list[last].Member == op.Member && list[last].StartedAt.Equal(&op.StartedAt) {
			list[last] = *op
			continue
		}
		list = append(list, *op)
	}
	return list
}

// beginnings are the reasons of the events that begin, or go on with, an operation.
var beginnings = map[v1beta1.OperationType][]string{
	v1beta1.OperationAddMember:        {v1beta1.EventMemberAdded},
	v1beta1.OperationRemoveMember:     {v1beta1.EventMemberRemoved, v1beta1.EventLeaderMoved},
	v1beta1.OperationCheckConsistency: {v1beta1.ReasonCheckingConsistency, v1beta1.EventLeaderMoved},
	v1beta1.OperationReplaceMember:    {v1beta1.EventMemberRemoved, v1beta1.EventLeaderMoved},
	v1beta1.OperationRollMember:       {v1beta1.EventMemberRolled, v1beta1.EventLeaderMoved},
	v1beta1.OperationRollBack:         {v1beta1.EventMemberRolledBack},
	v1beta1.OperationDefragment:       {v1beta1.EventMemberDefragmented, v1beta1.EventLeaderMoved},
	v1beta1.OperationMoveLeader:       {v1beta1.EventLeaderMoved},
	v1beta1.OperationDowngrade:        {v1beta1.ReasonDowngrading, v1beta1.ReasonRenewingLog, v1beta1.ReasonCancellingDowngrade},
}

// expectTold checks that users could follow: the status told of every operation what it is, since when and what it
// waits for, and one event began it and one ended it. It also checks that the quorum was not reported as lost while
// writes were acknowledged.
func (s *story) expectTold(ctx context.Context, c *v1beta1.EtcdCluster, writers *appending) {
	GinkgoHelper()
	operations := s.end()
	Eventually(ctx, func(g Gomega) { expectEvents(g, operations, eventsOf(ctx, c)) }).Should(Succeed()) // sent later
	var reported *metav1.Condition
	for _, version := range s.versions {
		lost := meta.FindStatusCondition(version.Status.Conditions, v1beta1.ConditionQuorumLost)
		Expect(lost).To(HaveValue(HaveField("Status", BeElementOf(metav1.ConditionTrue, metav1.ConditionFalse))))
		switch {
		case lost.Status == metav1.ConditionTrue:
			reported = lost
		case reported != nil:
			writers.expectStopped(reported, lost.LastTransitionTime.Time)
			reported = nil
		}
	}
	Expect(reported).To(BeNil(), "the quorum is still reported as lost")
}

func expectEvents(g Gomega, operations []v1beta1.Operation, told []eventsv1.Event) {
	for i, op := range operations {
		what, names := fmt.Sprintf("%s of %s", op.Type, op.Member), op.Member+`\b`
		if op.Member == "" { // it is about all members
			what, names = string(op.Type), "."
		}
		g.Expect(op.Reason).NotTo(BeEmpty(), what)
		g.Expect(op.WaitingFor).NotTo(BeEmpty(), what)
		g.Expect(op.StartedAt.IsZero()).To(BeFalse(), what)
		g.Expect(notes(told, beginnings[op.Type]...)).To(ContainElement(MatchRegexp(names)), "nothing began "+what)
		if next := i + 1; next < len(operations) && operations[next].Member == op.Member && operations[next].StartedAt.Equal(&op.StartedAt) {
			continue // it was handed over
		}
		g.Expect(notes(told, v1beta1.EventOperationFinished, v1beta1.EventOperationAbandoned)).
			To(ContainElement(HavePrefix("Operation "+what+" ")), "nothing ended "+what)
	}
}

// expectQuorumOfPods checks that so many pods were ready at every moment. The pods must not be more at the beginning
// than at the end.
func (s *story) expectQuorumOfPods(quorum int) {
	GinkgoHelper()
	s.end()
	started := slices.IndexFunc(s.up, func(up int) bool { return up >= quorum })
	Expect(started).To(BeNumerically(">=", 0))
	Expect(s.up[started:]).To(HaveEach(BeNumerically(">=", quorum)))
}

// progress returns the different messages of Progressing that contain a text, in their order.
func (s *story) progress(containing string) []string {
	var list []string
	for _, version := range s.versions {
		if p := meta.FindStatusCondition(version.Status.Conditions, v1beta1.ConditionProgressing); p != nil &&
			strings.Contains(p.Message, containing) && !slices.Contains(list, p.Message) {
			list = append(list, p.Message)
		}
	}
	return list
}

// notes returns the texts of the events with one of the reasons.
func notes(events []eventsv1.Event, reasons ...string) []string {
	var list []string
	for _, e := range events {
		if slices.Contains(reasons, e.Reason) {
			list = append(list, e.Note)
		}
	}
	return list
}

// eventsOf returns the events about the cluster, oldest first.
func eventsOf(ctx context.Context, c *v1beta1.EtcdCluster) []eventsv1.Event {
	GinkgoHelper()
	var list eventsv1.EventList
	Expect(kube.List(ctx, &list, client.InNamespace(c.Namespace))).To(Succeed())
	list.Items = slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return e.Regarding.Name != c.Name || e.Regarding.Kind != "EtcdCluster" })
	slices.SortStableFunc(list.Items, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	return list.Items
}

// awaitOperation waits until the status has an operation of the type.
func awaitOperation(ctx context.Context, c *v1beta1.EtcdCluster, t v1beta1.OperationType) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		g.Expect(c.Status.Operation).To(HaveValue(HaveField("Type", t)))
	}).WithPolling(20 * time.Millisecond).Should(Succeed())
}
