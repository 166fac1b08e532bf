package cluster

import "time"

const (
	// answerTimeout is how long etcd may run in a new pod before it answers.
	answerTimeout = 30 * time.Second
	// startTimeout is how long a pod may take until its container runs: the image is pulled and the volume attached.
	startTimeout = 5 * time.Minute
	// electionMargin is added to the election timeout: votes are split, and the new leader commits an entry first.
	electionMargin = 2 * time.Second
	// leastDefragmentTime is how long a member may take to defragment the smallest database.
	leastDefragmentTime = 10 * time.Second
	// bytesDefragmented is how much of a database a slow disk writes anew in a second.
	bytesDefragmented = 50 << 20
	// MaxDefragmentTime is the longest that a defragmentation is waited for: enough for 8 GiB, the most that etcd advises.
	// The liveness probe of a member gives it as much.
	MaxDefragmentTime = 3 * time.Minute
)

// DefragmentTime returns how long the member may take to defragment its database.
func (m *Member) DefragmentTime() time.Duration {
	if !m.Answers() {
		return leastDefragmentTime
	}
	seconds := max(0, m.Probe.DatabaseBytesInUse) / bytesDefragmented
	return min(leastDefragmentTime+time.Duration(seconds)*time.Second, MaxDefragmentTime)
}

// AwaitsElection reports whether the members may only be electing a leader. A single answer without a leader does not
// show that the quorum is lost.
func (s *Snapshot) AwaitsElection() bool { return s.Now.Before(s.electionEnds()) }

// electionEnds returns by when a leader must be elected. It is zero while a leader is known, or too few voters answer.
func (s *Snapshot) electionEnds() time.Time {
	if s.LeaderlessSince.IsZero() {
		return time.Time{}
	}
	timeout := defaultElectionTimeout
	for i := range s.Members {
		if w := s.Members[i].Workload; w != nil {
			timeout = max(timeout, w.Intent.ElectionTimeout())
		}
	}
	return s.LeaderlessSince.Add(timeout + electionMargin)
}

// IsLeaderless reports whether enough voters for a quorum answer, but too few of them serve.
func (s *Snapshot) IsLeaderless() bool {
	answering := 0
	for i := range s.Members {
		if m := &s.Members[i]; m.Answers() && !m.IsLearner() {
			answering++
		}
	}
	o := s.Outlook()
	return answering >= o.Quorum() && !o.HasQuorum()
}

// answerDue returns by when etcd must answer in the present pod. It is zero while the container does not run.
func (p *Pod) answerDue() time.Time {
	if p == nil || p.StartedAt.IsZero() {
		return time.Time{}
	}
	return p.StartedAt.Add(answerTimeout)
}

// startDue returns by when the container must run in the present pod. It is zero while the container runs.
func (p *Pod) startDue() time.Time {
	if p == nil || p.CreatedAt.IsZero() || !p.StartedAt.IsZero() {
		return time.Time{}
	}
	return p.CreatedAt.Add(startTimeout)
}

// AnswerIsOverdue reports whether the member's container runs for long enough that etcd should answer.
func (s *Snapshot) AnswerIsOverdue(m *Member) bool { return isPast(s.Now, m.Pod.answerDue()) }

// StartIsOverdue reports whether the member's pod exists for long enough that its container should run.
func (s *Snapshot) StartIsOverdue(m *Member) bool { return isPast(s.Now, m.Pod.startDue()) }

func isPast(now, due time.Time) bool { return !due.IsZero() && !now.Before(due) }

// NextDeadline returns how long it takes until time alone changes what is reported. Zero is never.
func (s *Snapshot) NextDeadline() time.Duration {
	var next time.Duration
	consider := func(due time.Time) {
		if left := due.Sub(s.Now); left > 0 && (next == 0 || left < next) {
			next = left
		}
	}
	consider(s.electionEnds())
	for i := range s.Members {
		m := &s.Members[i]
		if m.Serves() {
			continue
		}
		consider(m.Pod.answerDue())
		consider(m.Pod.startDue())
		if m.Pod == nil && m.Workload != nil {
			consider(m.Workload.PodDue)
		}
	}
	return next
}
