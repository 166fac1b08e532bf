package observe

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

const quotaEvent = `create Pod prod-0-0 in StatefulSet prod-0 failed error: pods "prod-0-0" is forbidden: ` +
	"exceeded quota: compute, requested: requests.cpu=1, used: requests.cpu=0, limited: requests.cpu=0"

const quotaCause = `exceeded quota: compute, requested: requests.cpu=1, used: requests.cpu=0, limited: requests.cpu=0`

// event adds an event about a StatefulSet.
func (s *stage) event(set types.UID, reason, message string, ago time.Duration) *corev1.Event {
	s.events = append(s.events, corev1.Event{
		InvolvedObject: corev1.ObjectReference{UID: set}, Reason: reason, Message: message, LastTimestamp: metav1.NewTime(s.now.Add(-ago)),
	})
	return &s.events[len(s.events)-1]
}

// podless is a cluster of one whose StatefulSet has had no pod for some time.
func podless(t *testing.T, missing time.Duration) *stage {
	s := newStage(t, 1)
	s.volume("prod-0", s.cluster.UID)
	s.workload("prod-0")
	s.observe()
	s.now = s.now.Add(missing)
	return s
}

func (s *stage) createFailure() string { return s.observe().Member("prod-0").Workload.CreateFailure }

func TestTellsWhyAPodCannotBeCreated(t *testing.T) {
	for name, test := range map[string]struct {
		missing time.Duration
		events  func(*stage)
		want    string
	}{
		"a quota": {podDueAfter, func(s *stage) { s.event("set-prod-0", "FailedCreate", quotaEvent, time.Second) }, quotaCause},
		"the latest of several": {time.Minute, func(s *stage) {
			s.event("set-prod-0", "FailedCreate", "older", time.Minute)
			s.event("set-prod-0", "FailedCreate", "newest", time.Second)
			s.event("set-prod-0", "FailedCreate", "old", time.Hour).Series = &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(s.now.Add(-30 * time.Second))}
		}, "newest"},
		"the last of a series": {time.Minute, func(s *stage) {
			s.event("set-prod-0", "FailedCreate", "once", time.Minute)
			s.event("set-prod-0", "FailedCreate", "again", time.Hour).Series = &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(s.now.Add(-time.Second))}
		}, "again"},
		"a text that is too long": {podDueAfter, func(s *stage) { s.event("set-prod-0", "FailedCreate", strings.Repeat("x", 1<<20), 0) }, cluster.ForeignText(strings.Repeat("x", 1<<20))},
		"nothing is told":         {time.Minute, func(*stage) {}, ""},
		"of another StatefulSet":  {time.Minute, func(s *stage) { s.event("other", "FailedCreate", "x", 0) }, ""},
		"of another reason":       {time.Minute, func(s *stage) { s.event("set-prod-0", "SuccessfulCreate", "x", 0) }, ""},
		"of an earlier time":      {time.Minute, func(s *stage) { s.event("set-prod-0", "FailedCreate", "x", maxEventAge+time.Second) }, ""},
		"the pod may still come":  {podDueAfter - time.Second, func(s *stage) { s.event("set-prod-0", "FailedCreate", "x", 0) }, ""},
		"the pod is there":        {time.Minute, func(s *stage) { s.event("set-prod-0", "FailedCreate", "x", 0); s.pod("prod-0", "", "set-prod-0") }, ""},
		"events cannot be read": {time.Minute, func(s *stage) {
			s.event("set-prod-0", "FailedCreate", "x", 0)
			s.eventsError = errors.New("forbidden")
		}, ""},
	} {
		s := podless(t, test.missing)
		test.events(s)
		if got := s.createFailure(); got != test.want {
			t.Errorf("%s: the failure is %q, want %q", name, got, test.want)
		}
	}
}

func TestReadsEventsLessAndLessOften(t *testing.T) {
	s := podless(t, 0)
	s.event("set-prod-0", "FailedCreate", quotaEvent, 0)
	for range 600 {
		s.now = s.now.Add(time.Second)
		s.events[0].LastTimestamp = metav1.NewTime(s.now)
		if got := s.createFailure(); got == "" && s.eventReads > 0 {
			t.Fatal("what is known is forgotten between two reads")
		}
	}
	if s.eventReads < 10 || s.eventReads > 13 {
		t.Errorf("in 10 minutes the events were read %d times", s.eventReads)
	}
	pod := s.pod("prod-0", "", "set-prod-0")
	if got := s.createFailure(); got != "" {
		t.Errorf("there is a pod, and the failure is %q", got)
	}
	s.objects = s.objects[:len(s.objects)-1]
	read := s.eventReads
	if got := s.createFailure(); got != "" || s.eventReads != read {
		t.Errorf("pod %s has just gone, and the failure is %q", pod.Name, got)
	}
}

func TestReadsNoEventsOfTheOthersWhereTheFirstHasNone(t *testing.T) {
	for failures, want := range []int{1, 2, 3} {
		s := newStage(t, 3)
		for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
			s.volume(name, s.cluster.UID)
			s.workload(name)
		}
		s.observe()
		s.now = s.now.Add(podDueAfter)
		for _, name := range []string{"prod-0", "prod-1"}[:failures] {
			s.event(types.UID("set-"+name), "FailedCreate", "x", 0)
		}
		s.observe()
		if s.eventReads != want {
			t.Errorf("where %d have failures the events of %d were read, want %d", failures, s.eventReads, want)
		}
	}
}

func TestForgetsTheEventsOfAClusterThatIsGone(t *testing.T) {
	s := podless(t, 0)
	for _, name := range []string{"prod", "gone"} {
		key := types.NamespacedName{Namespace: s.cluster.Namespace, Name: name}
		s.observer.podless.Store(key, podlessSets{since: map[types.UID]time.Time{"set-prod-0": s.now}})
		if _, err := s.observer.Observe(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, known := s.observer.podless.Load(key); known != (name == "prod") {
			t.Errorf("%s is remembered: %v", name, known)
		}
	}
}
