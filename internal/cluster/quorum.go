package cluster

import "fmt"

// Quorum returns how many of n voters must agree: more than half.
func Quorum(voters int) int {
	return voters/2 + 1
}

// Outlook is what decides whether a cluster can serve: how many voters it has, and how many of them are healthy.
type Outlook struct{ Voters, Healthy int }

// Change is a step that changes how many voters there are, or how many are healthy. Each field names a member.
type Change struct {
	// Stops is a member whose etcd is stopped. It stays a member.
	Stops string
	// Removes is a member that is removed from etcd.
	Removes string
	// Promotes is a learner that becomes a voter.
	Promotes string
}

// Outlook returns the present one: healthy are the voters that answer linearizable reads.
func (s *Snapshot) Outlook() Outlook {
	o := Outlook{Voters: s.voters()}
	for i := range s.Members {
		if s.Members[i].IsHealthyVoter() {
			o.Healthy++
		}
	}
	return o
}

// After returns the outlook after a change. Every voter that is silent now counts as lost, even if its pod is ready,
// and so does one whose pod is being deleted.
func (s *Snapshot) After(c Change) Outlook {
	o := Outlook{Voters: s.voters()}
	for i := range s.Members {
		m := &s.Members[i]
		removed, promoted := m.Name == c.Removes, m.Name == c.Promotes
		switch {
		case removed && s.isVoter(m):
			o.Voters--
		case promoted:
			o.Voters++
		}
		lost := removed || m.Name == c.Stops || m.Pod == nil || m.Pod.Deleting
		if !lost && (m.IsHealthyVoter() || promoted && m.Answers()) {
			o.Healthy++
		}
	}
	return o
}

// voters counts the voters in etcd's list. While etcd cannot be asked, every member that may have started counts.
func (s *Snapshot) voters() int {
	n := 0
	if s.Membership == nil {
		for i := range s.Members {
			if !s.Members[i].Volume.NeverStarted() {
				n++
			}
		}
		return n
	}
	for _, m := range s.Membership.Members {
		if !m.Learner {
			n++
		}
	}
	return n
}

func (s *Snapshot) isVoter(m *Member) bool {
	e := s.EtcdEntry(m)
	return s.Membership == nil || e != nil && !e.Learner
}

// Quorum returns how many of the voters must agree.
func (o Outlook) Quorum() int { return Quorum(o.Voters) }

// HasQuorum reports whether the healthy voters are a quorum.
func (o Outlook) HasQuorum() bool { return o.Voters > 0 && o.Healthy >= o.Quorum() }

// Spare returns how many more voters may be lost. It is negative where the quorum is lost.
func (o Outlook) Spare() int { return o.Healthy - o.Quorum() }

// String says it in words, for messages and the log.
func (o Outlook) String() string {
	return fmt.Sprintf("%d of %d voters are healthy, and the quorum is %d", o.Healthy, o.Voters, o.Quorum())
}
