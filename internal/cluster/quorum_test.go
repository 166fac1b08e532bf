package cluster

import (
	"fmt"
	"testing"
)

// healthyVoters returns a snapshot of a cluster whose members are all healthy voters.
func healthyVoters(n int) *Snapshot {
	s := &Snapshot{Membership: &Membership{}}
	for i := range n {
		id := ID(i + 1)
		name := fmt.Sprintf("prod-%d", i)
		s.Membership.Members = append(s.Membership.Members, EtcdMember{ID: id, Name: name, Started: true})
		s.Members = append(s.Members, Member{Name: name, Pod: &Pod{}, Probe: &Probe{MemberID: id, Linearizable: true}})
	}
	return s
}

func TestTheProjectionOfTheQuorum(t *testing.T) {
	stops := Change{Stops: "prod-1"}
	for name, c := range map[string]struct {
		change func(*Snapshot)
		step   Change
		want   Outlook
	}{
		"nothing changes":                   {func(*Snapshot) {}, Change{}, Outlook{3, 3}},
		"a member stops":                    {func(*Snapshot) {}, stops, Outlook{3, 2}},
		"a member stops that is silent":     {func(s *Snapshot) { s.Members[1].Probe = nil }, stops, Outlook{3, 2}},
		"beside one that is silent":         {func(s *Snapshot) { s.Members[2].Probe = nil }, stops, Outlook{3, 1}},
		"beside one that reads no more":     {func(s *Snapshot) { s.Members[2].Probe.Linearizable = false }, stops, Outlook{3, 1}},
		"beside one whose pod is going":     {func(s *Snapshot) { s.Members[2].Pod.Deleting = true }, stops, Outlook{3, 1}},
		"beside one whose pod is gone":      {func(s *Snapshot) { s.Members[2].Pod = nil }, stops, Outlook{3, 1}},
		"a voter is removed":                {func(*Snapshot) {}, Change{Removes: "prod-1"}, Outlook{2, 2}},
		"a silent voter is removed":         {func(s *Snapshot) { s.Members[1].Probe = nil }, Change{Removes: "prod-1"}, Outlook{2, 2}},
		"a learner is removed":              {learner, Change{Removes: "prod-1"}, Outlook{2, 2}},
		"a learner is promoted":             {learner, Change{Promotes: "prod-1"}, Outlook{3, 3}},
		"a learner that is silent promoted": {func(s *Snapshot) { learner(s); s.Members[1].Probe = nil }, Change{Promotes: "prod-1"}, Outlook{3, 2}},
		"a voter stops beside a learner":    {learner, Change{Stops: "prod-0"}, Outlook{2, 1}},
		"etcd was not asked":                {func(s *Snapshot) { s.Membership = nil }, stops, Outlook{3, 2}},
	} {
		s := healthyVoters(3)
		c.change(s)
		if got := s.After(c.step); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// learner makes prod-1 a learner.
func learner(s *Snapshot) {
	s.Membership.Members[1].Learner, s.Members[1].Probe.Learner, s.Members[1].Probe.Linearizable = true, true, false
}

func TestAQuorumIsMoreThanHalfOfTheVoters(t *testing.T) {
	for _, c := range []struct {
		outlook Outlook
		has     bool
		spare   int
	}{
		{Outlook{0, 0}, false, -1},
		{Outlook{1, 0}, false, -1},
		{Outlook{1, 1}, true, 0},
		{Outlook{2, 1}, false, -1},
		{Outlook{3, 2}, true, 0},
		{Outlook{4, 2}, false, -1},
		{Outlook{5, 4}, true, 1},
	} {
		if c.outlook.HasQuorum() != c.has || c.outlook.Spare() != c.spare {
			t.Errorf("%+v: %t, spare %d", c.outlook, c.outlook.HasQuorum(), c.outlook.Spare())
		}
	}
}

// A learner does not count, whatever else its answer says.
func TestALearnerIsNoHealthyVoter(t *testing.T) {
	m := Member{Probe: &Probe{Linearizable: true}}
	if !m.IsHealthyVoter() {
		t.Error("a voter that serves is healthy")
	}
	m.Probe.Learner = true
	if m.IsHealthyVoter() {
		t.Error("a learner counts for the quorum")
	}
}
