package cluster

// Member is everything known of one member.
type Member struct {
	Name     string
	Volume   *Volume
	Workload *Workload
	Pod      *Pod
	// Node is the node of the pod, or else the one that its volume can be used on. It is nil where it is not known: nodes
	// are read while the member does not answer.
	Node *Node
	// Probe is what etcd answered, nil when the member was not asked.
	Probe *Probe
}

// Answers reports whether the member's etcd answered when it was asked for its status.
// That is a local read: it says nothing about a quorum.
func (m *Member) Answers() bool { return m.Probe.Answered() }

// RunsOn reports whether the member's pod runs, and is not being deleted.
func (m *Member) RunsOn() bool { return m.Pod.IsRunning() && !m.Pod.Deleting }

// Serves reports whether the member answered a linearizable read: it has a quorum to read from.
func (m *Member) Serves() bool { return m.Answers() && m.Probe.Linearizable }

// IsLearner reports whether the member says that it is a learner.
func (m *Member) IsLearner() bool { return m.Answers() && m.Probe.Learner }

// IsHealthyVoter reports whether the member serves and counts for the quorum.
func (m *Member) IsHealthyVoter() bool { return m.Serves() && !m.Probe.Learner }

// Leads reports whether the member says that it is the leader.
func (m *Member) Leads() bool {
	return m.Answers() && m.Probe.Leader != 0 && m.Probe.Leader == m.Probe.MemberID
}

// Intent returns what the member's pods are made from: the intent of its StatefulSet, and the target's without one.
func (m *Member) Intent(target Intent) Intent {
	if m == nil || m.Workload == nil {
		return target
	}
	return m.Workload.Intent
}
