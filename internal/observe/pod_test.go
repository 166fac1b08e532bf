package observe

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// logOf returns the end of what a real etcd process wrote.
func logOf(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestFindsInTheLogWhyEtcdExited(t *testing.T) {
	emptied := ": its volume is empty, and a member that once ran does not start without its data"
	for name, c := range map[string]struct{ log, want string }{
		"an emptied volume, etcd 3.6": {logOf(t, "empty-volume-3.6.16"), emptied},
		"an emptied volume, etcd 3.5": {logOf(t, "empty-volume-3.5.35"), emptied},
		"a key of another":            {logOf(t, "wrong-key-3.6.16"), ": discovery failed: tls: private key does not match public key"},
		"a missing certificate":       {logOf(t, "no-certificate-3.6.16"), ": discovery failed: open nope.pem: no such file or directory"},
		"a panic without an error":    {`{"level":"panic","ts":"2026-01-02T03:04:05Z","msg":"tocommit is out of range"}`, ": tocommit is out of range"},
		"a line cut at its beginning": {"\"msg\":\"closed\"}\n" + `{"level":"fatal","msg":"cannot start","error":"disk full"}` + "\n", ": cannot start: disk full"},
		"an option that cannot be used": {`{"level":"warn","ts":"2026-01-02T03:04:05Z","msg":"failed to verify flags","error":"--heartbeat-interval must be >0 (set to 0ms)"}`,
			": failed to verify flags: --heartbeat-interval must be >0 (set to 0ms)"},
		"an emptied volume, format console": {logOf(t, "empty-volume-console-3.6.16"), emptied},
		"an option that cannot be used, format console": {
			"2026-11-26T10:55:41.248307Z\twarn\tembed/config.go:1207\tRunning http and grpc server on single port. This is not recommended for production.\n" +
				"2026-11-26T10:55:41.248428Z\twarn\tetcdmain/etcd.go:66\tfailed to verify flags\t" +
				`{"error": "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[1000ms]"}` + "\n",
			": failed to verify flags: --election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[1000ms]",
		},
		"nothing fatal, format console": {"2026-11-26T10:55:41.153654Z\tinfo\tembed/etcd.go:428\tclosed etcd server\t{\"name\": \"a\"}\n", ": closed etcd server"},
		"no log":                        {"", ""},
		"nothing fatal":                 {`{"level":"info","msg":"closed etcd server"}`, ": closed etcd server"},
		"a panic of Go": {
			"panic: runtime error: index out of range [3] with length 3\n\ngoroutine 1 [running]:\nmain.main()\n\t/go/main.go:31 +0x1d\n",
			": panic: runtime error: index out of range [3] with length 3",
		},
		"only the end of a stack trace": {"main.main()\n\t/go/main.go:31 +0x1d\nexit status 2\nruntime.main()\n\truntime/proc.go:290", ": exit status 2"},
		"nothing but a stack trace":     {"main.main()\n\t/go/main.go:31 +0x1d", ""},
		"another text":                  {"exec /usr/local/bin/etcd: no such file or directory\n", ": exec /usr/local/bin/etcd: no such file or directory"},
		"a number":                      {"137", ": 137"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fatalLogLine(c.log, false); got != c.want {
				t.Errorf("wanted %q, got %q", c.want, got)
			}
		})
	}
	unknown := ": no other member answered it. They refuse a pod whose address is not in the cluster's DNS yet"
	if got := fatalLogLine(logOf(t, "empty-volume-3.6.16"), true); got != unknown {
		t.Errorf("a member that is added: wanted %q, got %q", unknown, got)
	}
}

// The logs are the last 2048 bytes of real ones, as the kubelet keeps them.
func TestEveryEndOfAnEtcdOverNewerDataIsKnown(t *testing.T) {
	for log, c := range map[string]struct{ ran, newer string }{
		"newer-data-3.6.16-over-3.7.3":    {"3.6.16", "3.7"},
		"newer-cluster-3.6.16-over-3.7.3": {"3.6.16", "3.7"}, // it was killed before it raised the version of the data
		"newer-store-3.6.16-over-3.7.3":   {"3.6.16", "3.7"}, // the version of the data was set back by hand
		"newer-data-3.5.35-over-3.6.16":   {"3.5.35", "3.6"},
		"newer-data-3.5.35-over-3.7.3":    {"3.5.35", "3.6"}, // 3.5 does not tell that it is two minor versions
		"empty-volume-3.6.16":             {"3.6.16", ""},
		"wrong-key-3.6.16":                {"3.6.16", ""},
	} {
		pod := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: render.ContainerName, RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Message: logOf(t, log)}},
		}}}}
		detail := podOf(pod).FailureDetail
		if got := cluster.NewerData(detail, c.ran); got != c.newer {
			t.Errorf("%s: the data are of %q, want %q: %s", log, got, c.newer, detail)
		}
	}
}

func TestTroubleOfAPod(t *testing.T) {
	waiting := func(reason string, restarts int32, last *corev1.ContainerStateTerminated) corev1.ContainerStatus {
		return corev1.ContainerStatus{
			Image: "example.org/etcd:v3.6.16", RestartCount: restarts,
			State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
			LastTerminationState: corev1.ContainerState{Terminated: last},
		}
	}
	running := func(restarts int32, last *corev1.ContainerStateTerminated) corev1.ContainerStatus {
		return corev1.ContainerStatus{
			RestartCount: restarts, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			LastTerminationState: corev1.ContainerState{Terminated: last},
		}
	}
	failed := &corev1.ContainerStateTerminated{ExitCode: 1, Message: logOf(t, "wrong-key-3.6.16")}
	crash := "etcd ended with exit code 1: discovery failed: tls: private key does not match public key"
	for name, c := range map[string]struct {
		status         corev1.ContainerStatus
		reason, detail string
	}{
		"is starting":           {waiting("ContainerCreating", 0, nil), "", ""},
		"runs":                  {running(0, nil), "", ""},
		"finds no image":        {waiting("ImagePullBackOff", 0, nil), v1beta1.ReasonImagePullFailed, "image example.org/etcd:v3.6.16 cannot be pulled; kubectl describe pod prod-0-0 tells why"},
		"still finds no image":  {waiting("ErrImagePull", 0, nil), v1beta1.ReasonImagePullFailed, "image example.org/etcd:v3.6.16 cannot be pulled; kubectl describe pod prod-0-0 tells why"},
		"lacks a Secret's key":  {waiting("CreateContainerConfigError", 0, nil), v1beta1.ReasonContainerFailed, "the container cannot be started; kubectl describe pod prod-0-0 tells why"},
		"waits after a crash":   {waiting("CrashLoopBackOff", 3, failed), v1beta1.ReasonCrashLooping, crash},
		"runs between crashes":  {running(3, failed), v1beta1.ReasonCrashLooping, crash},
		"runs after one reboot": {running(1, &corev1.ContainerStateTerminated{ExitCode: 255, Reason: "Unknown"}), "", ""},
		"has just ended":        {corev1.ContainerStatus{State: corev1.ContainerState{Terminated: failed}}, v1beta1.ReasonCrashLooping, crash},
		"was stopped":           {waiting("CrashLoopBackOff", 1, &corev1.ContainerStateTerminated{ExitCode: 0}), "", ""},
		"lacks memory": {
			waiting("CrashLoopBackOff", 2, &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}),
			v1beta1.ReasonCrashLooping, "etcd used more memory than its limit and was killed",
		},
		"is ready after crashes": {corev1.ContainerStatus{Ready: true, RestartCount: 9, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := podOf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "prod-0-0"}, Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{c.status}}})
			if p.FailureReason != c.reason || p.FailureDetail != c.detail {
				t.Errorf("got %q %q", p.FailureReason, p.FailureDetail)
			}
		})
	}
	ready := func(kind corev1.PodConditionType, status corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: status}
	}
	t.Run("is on a node that does not answer", func(t *testing.T) {
		p := podOf(&corev1.Pod{Spec: corev1.PodSpec{NodeName: "node-2"}, Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			ready(corev1.ContainersReady, corev1.ConditionTrue), ready(corev1.PodReady, corev1.ConditionFalse),
		}}})
		if p.FailureReason != v1beta1.ReasonNodeLost || p.FailureDetail != "its node node-2 does not answer Kubernetes" {
			t.Errorf("got %q %q", p.FailureReason, p.FailureDetail)
		}
	})
	t.Run("waits for a readiness gate of another controller", func(t *testing.T) {
		gated := ready(corev1.PodReady, corev1.ConditionFalse)
		gated.Reason = "ReadinessGatesNotReady"
		p := podOf(&corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{ready(corev1.ContainersReady, corev1.ConditionTrue), gated}}})
		if p.FailureReason != "" {
			t.Errorf("got %q %q", p.FailureReason, p.FailureDetail)
		}
	})
	t.Run("is not ready by its own probe", func(t *testing.T) {
		p := podOf(&corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			ready(corev1.ContainersReady, corev1.ConditionFalse), ready(corev1.PodReady, corev1.ConditionFalse),
		}}})
		if p.FailureReason != "" {
			t.Errorf("got %q", p.FailureReason)
		}
	})
	t.Run("was ready since it started, after crashes", func(t *testing.T) {
		started, notReady := metav1.NewTime(time.Unix(100, 0)), ready(corev1.PodReady, corev1.ConditionFalse)
		for since, reason := range map[int64]string{50: v1beta1.ReasonCrashLooping, 100: v1beta1.ReasonCrashLooping, 101: ""} {
			notReady.LastTransitionTime = metav1.NewTime(time.Unix(since, 0))
			status := running(3, failed)
			status.State.Running.StartedAt = started
			p := podOf(&corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{status}, Conditions: []corev1.PodCondition{notReady}}})
			if p.FailureReason != reason {
				t.Errorf("not ready since %d: got %q, want %q", since, p.FailureReason, reason)
			}
		}
	})
	t.Run("fits on no node", func(t *testing.T) {
		p := podOf(&corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available: 3 Insufficient memory."},
		}}})
		if p.FailureReason != v1beta1.ReasonUnschedulable || p.FailureDetail != "0/3 nodes are available: 3 Insufficient memory." {
			t.Errorf("got %q %q", p.FailureReason, p.FailureDetail)
		}
	})
}

func TestTellsThatEtcdPassesTheOperatorsReadinessProbe(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	probe := func(pod *corev1.Pod) *corev1.HTTPGetAction { return pod.Spec.Containers[0].ReadinessProbe.HTTPGet }
	condition := func(kind corev1.PodConditionType, status corev1.ConditionStatus, reason string) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: status, Reason: reason}
	}
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"it does": {func(*corev1.Pod) {}, true},
		"a gate keeps the pod unready": {func(p *corev1.Pod) {
			p.Status.Conditions[1] = condition(corev1.PodReady, corev1.ConditionFalse, "ReadinessGatesNotReady")
		}, true},
		"a sidecar is not ready": {func(p *corev1.Pod) {
			p.Status.Conditions = nil
			p.Status.ContainerStatuses = append([]corev1.ContainerStatus{{Name: "sidecar"}}, p.Status.ContainerStatuses...)
		}, true},
		"the node does not answer":   {func(p *corev1.Pod) { p.Status.Conditions[1] = condition(corev1.PodReady, corev1.ConditionFalse, "") }, false},
		"it is not ready":            {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].Ready = false }, false},
		"only a sidecar is ready":    {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].Name = "sidecar" }, false},
		"the container does not run": {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = corev1.ContainerState{} }, false},
		"the pod is being deleted":   {func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }, false},
		"nothing is known":           {func(p *corev1.Pod) { p.Status = corev1.PodStatus{} }, false},
		"the probe asks for another": {func(p *corev1.Pod) { probe(p).Path = "/livez" }, false},
		"the probe asks elsewhere":   {func(p *corev1.Pod) { probe(p).Host = "example.com" }, false},
		"the probe was redirected":   {func(p *corev1.Pod) { probe(p).Port = intstr.FromInt32(15020) }, false},
		"the probe was taken away":   {func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = nil }, false},
		"the probe is of another kind": {func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: probe(p).Port}}}
		}, false},
	} {
		s := newStage(t, 1)
		created := metav1.NewTime(s.now)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: created}, Spec: s.workload("prod-0").Spec.Template.Spec,
			Status: corev1.PodStatus{
				Conditions:        []corev1.PodCondition{condition(corev1.ContainersReady, corev1.ConditionTrue, ""), condition(corev1.PodReady, corev1.ConditionTrue, "")},
				ContainerStatuses: []corev1.ContainerStatus{{Name: "etcd", Ready: true, RestartCount: 3, State: running}},
			},
		}
		test.change(pod)
		got := podOf(pod)
		if got.PassesReadiness != test.want {
			t.Errorf("%s: it passes: %v, want %v", name, got.PassesReadiness, test.want)
		}
		if test.want && (got.Restarts != 3 || !got.CreatedAt.Equal(created.Time)) {
			t.Errorf("%s: it was restarted %d times and made at %v", name, got.Restarts, got.CreatedAt)
		}
	}
}

func TestTellsWhenAPodGotItsNode(t *testing.T) {
	at := metav1.Now().Rfc3339Copy()
	for status, want := range map[corev1.ConditionStatus]time.Time{corev1.ConditionTrue: at.Time, corev1.ConditionFalse: {}} {
		pod := corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at.Add(time.Minute))},
			{Type: corev1.PodScheduled, Status: status, LastTransitionTime: at},
		}}}
		if got := podOf(&pod).ScheduledAt; !got.Equal(want) {
			t.Errorf("%s: got %v, want %v", status, got, want)
		}
	}
}

func TestTellsWhenEtcdWasLastStarted(t *testing.T) {
	started := metav1.Now().Rfc3339Copy()
	ended := &corev1.ContainerStateTerminated{StartedAt: started}
	for name, test := range map[string]struct {
		status corev1.ContainerStatus
		want   bool
	}{
		"it runs":                     {corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}}, true},
		"it ended":                    {corev1.ContainerStatus{State: corev1.ContainerState{Terminated: ended}}, true},
		"it waits to be started anew": {corev1.ContainerStatus{LastTerminationState: corev1.ContainerState{Terminated: ended}}, true},
		"it was never started":        {corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}, false},
	} {
		test.status.Name = "etcd"
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: started}}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "sidecar", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, test.status}
		if p := podOf(&pod); p.StartedAt.Equal(started.Time) != test.want || !p.CreatedAt.Equal(started.Time) {
			t.Errorf("%s: created %v, started %v", name, p.CreatedAt, p.StartedAt)
		}
	}
}
