package cluster

import "strings"

// EmptyData is what a failure is told with where etcd ends because its data directory is empty, although the member
// started before.
const EmptyData = "its volume is empty, and a member that once ran does not start without its data"

// LostItsMemory reports whether the data of a member in memory are gone for good: its pod is gone, or its node
// restarted, which keeps the pod and empties the memory. etcd says so by ending.
func (m *Member) LostItsMemory() bool {
	if m.Volume == nil || !m.Volume.InMemory {
		return false
	}
	emptied := m.Volume.Started() && m.Pod != nil && !m.Pod.Ready && !m.Answers() && strings.Contains(m.Pod.FailureDetail, EmptyData)
	return emptied || m.Volume.IsReplaced() && !m.RunsOn()
}
