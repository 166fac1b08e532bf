package observe

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func podOf(pod *corev1.Pod) cluster.Pod {
	p := cluster.Pod{
		Name:        pod.Name,
		UID:         pod.UID,
		IP:          pod.Status.PodIP,
		Node:        pod.Spec.NodeName,
		Phase:       pod.Status.Phase,
		Ready:       conditionIs(pod, corev1.PodReady, corev1.ConditionTrue),
		Deleting:    pod.DeletionTimestamp != nil,
		StartsEmpty: render.StartsEmpty(pod.Annotations),

		InitialCluster: pod.Annotations[cluster.AnnotationInitialCluster],
		RenderHash:     pod.Annotations[cluster.AnnotationRenderHash],
		IntentHash:     pod.Annotations[cluster.AnnotationIntentHash],

		PeerAuthorities:   split(pod.Annotations[cluster.AnnotationPeerAuthorities]),
		ClientAuthorities: split(pod.Annotations[cluster.AnnotationClientAuthorities]),
	}
	p.CreatedAt = pod.CreationTimestamp.Time
	p.ReadySince, p.NotReadySince = since(pod, corev1.PodReady, corev1.ConditionTrue), since(pod, corev1.PodReady, corev1.ConditionFalse)
	p.ScheduledAt = since(pod, corev1.PodScheduled, corev1.ConditionTrue)
	p.Gated = len(pod.Spec.SchedulingGates) > 0
	p.Resources, p.Resize = resourcesOf(pod), resizeOf(pod)
	if etcd := containerStatus(pod); etcd != nil {
		p.Restarts, p.StartedAt = etcd.RestartCount, startedAt(etcd)
		p.PassesReadiness = etcd.Ready && etcd.State.Running != nil && !p.Deleting && !markedByNode(pod) &&
			slices.ContainsFunc(pod.Spec.Containers, render.ReadsLinearizably)
	}
	p.FailureReason, p.FailureDetail = failureOf(pod)
	return p
}

// containerStatus returns the status of etcd's container, nil where there is none yet.
func containerStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if c := &pod.Status.ContainerStatuses[i]; c.Name == render.ContainerName {
			return c
		}
	}
	return nil
}

// startedAt returns when a container was last started.
func startedAt(c *corev1.ContainerStatus) time.Time {
	switch {
	case c.State.Running != nil:
		return c.State.Running.StartedAt.Time
	case c.State.Terminated != nil:
		return c.State.Terminated.StartedAt.Time
	case c.LastTerminationState.Terminated != nil:
		return c.LastTerminationState.Terminated.StartedAt.Time
	}
	return time.Time{}
}

// split reads a list as annotations hold it; an empty one is none.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// since returns since when a condition of the pod has a status; zero where it has another one.
func since(pod *corev1.Pod, kind corev1.PodConditionType, is corev1.ConditionStatus) time.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind && c.Status == is {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

func conditionIs(pod *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == kind && c.Status == status
	})
}

// failureOf returns what keeps the pod from running, in a text that stays the same for as long as the cause does.
func failureOf(pod *corev1.Pod) (reason, detail string) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason != corev1.PodReasonSchedulingGated {
			return v1beta1.ReasonUnschedulable, c.Message
		}
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if reason, detail := containerFailure(pod, &c); reason != "" {
			return reason, detail
		}
	}
	if markedByNode(pod) {
		return v1beta1.ReasonNodeLost, fmt.Sprintf("its node %s does not answer Kubernetes", pod.Spec.NodeName)
	}
	return "", ""
}

// markedByNode reports whether Kubernetes marked the pod as not ready because its node does not answer.
// The kubelet would have marked the containers as well, or have named a readiness gate as the reason.
func markedByNode(pod *corev1.Pod) bool {
	return conditionIs(pod, corev1.ContainersReady, corev1.ConditionTrue) &&
		slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse && c.Reason != "ReadinessGatesNotReady"
		})
}

func containerFailure(pod *corev1.Pod, c *corev1.ContainerStatus) (reason, detail string) {
	if w := c.State.Waiting; w != nil {
		switch w.Reason {
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError":
			return v1beta1.ReasonImagePullFailed,
				fmt.Sprintf("image %s cannot be pulled; kubectl describe pod %s tells why", c.Image, pod.Name)
		case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
			return v1beta1.ReasonContainerFailed,
				fmt.Sprintf("the container cannot be started; kubectl describe pod %s tells why", pod.Name)
		}
	}
	if c.Ready || c.RestartCount == 0 && c.State.Terminated == nil {
		return "", ""
	}
	last := c.State.Terminated
	if last == nil {
		last = c.LastTerminationState.Terminated
	}
	if c.State.Running != nil && since(pod, corev1.PodReady, corev1.ConditionFalse).After(c.State.Running.StartedAt.Time) {
		return "", "" // it was ready since it started: what its predecessors said is over
	}
	startedOnceMore := c.State.Running != nil && c.RestartCount < 2 // after a reboot, say: it may well come up
	if last == nil || last.ExitCode == 0 || startedOnceMore || last.Reason == "ContainerStatusUnknown" {
		return "", ""
	}
	if last.Reason == "OOMKilled" {
		return v1beta1.ReasonCrashLooping, "etcd used more memory than its limit and was killed"
	}
	return v1beta1.ReasonCrashLooping,
		fmt.Sprintf("etcd ended with exit code %d%s", last.ExitCode, fatalLogLine(last.Message, render.StartsEmpty(pod.Annotations)))
}

// noPeerAnswers is etcd's error when a member that starts on an empty volume gets the members' list from none of those
// that its own list names. In the form Existing it names itself alone.
const noPeerAnswers = "cannot fetch cluster info from peer urls"

// invalidFlags is etcd's last message, only a warning, when an option cannot be used.
const invalidFlags = "failed to verify flags"

// learnsNewerVersion is in the stack trace of an etcd of 3.6 or later that learns of a cluster version above its own,
// and panics. The trace can be longer than what the kubelet keeps, so what was said before it is lost.
// Source: MustDetectDowngrade in Recover, of the data, and SetVersion, of the log: both in
// server/etcdserver/api/membership/cluster.go.
var learnsNewerVersion = regexp.MustCompile(`version\.MustDetectDowngrade\(|membership\.\(\*RaftCluster\)\.SetVersion\(`)

// fatalLogLine returns why etcd exited, from the end of its log that the kubelet keeps: the last fatal line, or else
// the last line that is not part of a stack trace.
// It leaves the time out, so that the text stays the same for as long as the cause does.
// startsEmpty tells that the member may start on an empty volume.
func fatalLogLine(log string, startsEmpty bool) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	last := ""
	for i, line := range slices.Backward(lines) {
		entry := parseLogLine(line)
		fatal := entry.Level == "fatal" || entry.Level == "panic" || entry.Msg == invalidFlags
		isFrame := func(n int) bool { return n < len(lines) && strings.HasPrefix(lines[n], "\t") }
		switch {
		case fatal && startsEmpty && strings.Contains(entry.Error, noPeerAnswers):
			return ": no other member answered it. They refuse a pod whose address is not in the cluster's DNS yet"
		case fatal && strings.Contains(entry.Error, noPeerAnswers):
			return ": " + cluster.EmptyData
		case fatal, strings.HasPrefix(line, "panic: "), strings.HasPrefix(line, "fatal error: "):
			return entry.text()
		case last == "" && !isFrame(i) && !isFrame(i+1): // in a stack trace, each function comes before its frame
			last = entry.text()
		}
	}
	if learnsNewerVersion.MatchString(log) {
		return ": " + cluster.LowerThanCluster
	}
	return last
}

// logEntry is a line of etcd's log.
type logEntry struct{ Level, Msg, Error string }

// parseLogLine reads a line of either of etcd's log formats. JSON is the default. A line of the format "console" has
// the time, the level, the caller, the message and the fields as JSON, separated by tabs. Any other line is a message.
func parseLogLine(line string) logEntry {
	var entry logEntry
	if json.Unmarshal([]byte(line), &entry) == nil {
		return entry
	}
	columns := strings.Split(line, "\t")
	if len(columns) < 4 {
		return logEntry{Msg: line}
	}
	_ = json.Unmarshal([]byte(columns[len(columns)-1]), &entry) // a line without fields has no error
	entry.Level, entry.Msg = columns[1], columns[3]
	return entry
}

func (e logEntry) text() string {
	switch {
	case e.Msg == "":
		return ""
	case e.Error == "":
		return ": " + cluster.ForeignText(e.Msg)
	default:
		return fmt.Sprintf(": %s: %s", cluster.ForeignText(e.Msg), cluster.ForeignText(e.Error))
	}
}
