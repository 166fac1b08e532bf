package analyse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// rollAuthorities restarts, one after the other, the members that were started with other authorities than are to be trusted now:
// etcd reads their bundle at its start only.
func rollAuthorities(s *cluster.Snapshot) *plan.Decision {
	behind := membersBehind(s)
	if len(behind) == 0 {
		return nil
	}
	return roll(s, nextToRoll(behind))
}

// roll restarts a member, if it may be restarted.
func roll(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonRotatingAuthorities}
	if m.Pod.Deleting {
		d.Message = fmt.Sprintf("The pod of %s is being deleted, to start it with the present certificate authorities.", m.Name)
		return d
	}
	if !templateApplied(s, m) {
		d.Message = "Writing the present certificate authorities into the members' templates."
		return d
	}
	guards := []guard{previousClusterGone, noForeignObject, specUsable}
	if !hasFailed(m) { // rolling a member that is already dead costs nothing
		guards = append(guards, authoritiesOverlap(m), noAlarm, membersHealthy(m), quorumSurvives(m))
	}
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
	}
	if certificatesMissing(s) {
		d.Message = "Creating the certificates that the members' pods mount."
		return d
	}
	d.Message = fmt.Sprintf("Restarting %s to have it take up the present certificate authorities; %d of %d members have.", m.Name, len(s.Members)-len(membersBehind(s)), len(s.Members))
	d.Action = plan.RestartMember{Name: m.Name, Pod: m.Pod.Name, UID: m.Pod.UID}
	return d
}

// continueRoll finishes the restart of a member that was claimed: its pod is deleted if it still is the old one, and then waited for.
func continueRoll(s *cluster.Snapshot, name string) *plan.Decision {
	m := s.Member(name)
	if m != nil && m.Pod != nil && startedWithOldAuthorities(s, m) {
		return roll(s, m)
	}
	return &plan.Decision{
		Progressing: true,
		Reason:      v1beta1.ReasonRotatingAuthorities,
		Message:     fmt.Sprintf("%s was restarted to take up the present certificate authorities. Waiting for it to be a healthy voter again.", name),
	}
}

// rolled reports whether a member that was to be restarted is a healthy voter again, or is no member any more.
func rolled(s *cluster.Snapshot, name string) bool {
	m := s.Member(name)
	return m == nil || m.Pod != nil && !m.Pod.Deleting && !startedWithOldAuthorities(s, m) && m.IsHealthyVoter()
}

// membersBehind are the members whose pods were started with other authorities than are to be trusted.
func membersBehind(s *cluster.Snapshot) []*cluster.Member {
	var list []*cluster.Member
	for i := range s.Members {
		if startedWithOldAuthorities(s, &s.Members[i]) {
			list = append(list, &s.Members[i])
		}
	}
	return list
}

// startedWithOldAuthorities reports whether a member's pod was started with other authorities than are to be trusted. Where those are not known it is not.
func startedWithOldAuthorities(s *cluster.Snapshot, m *cluster.Member) bool {
	if m.Pod == nil || m.Workload == nil {
		return false
	}
	want := m.Workload.Intent.WithAuthorities(s)
	return slices.ContainsFunc(traffics, func(t cluster.Traffic) bool {
		return want.Source(t).FollowsAuthorities() && !slices.Equal(want.Authorities(t), m.Pod.Authorities(t))
	})
}

// templateApplied reports whether a member's next pod is started with the authorities that are to be trusted.
func templateApplied(s *cluster.Snapshot, m *cluster.Member) bool {
	have, want := m.Workload.Intent, m.Workload.Intent.WithAuthorities(s)
	return slices.Equal(have.PeerAuthorities, want.PeerAuthorities) && slices.Equal(have.ServerAuthorities, want.ServerAuthorities)
}

// nextToRoll prefers dead members, whose restart costs nothing, then those that do not serve, and leaves the leader to the end: each change of leaders is felt.
func nextToRoll(behind []*cluster.Member) *cluster.Member {
	return slices.MinFunc(behind, func(a, b *cluster.Member) int { return rank(a) - rank(b) })
}

func rank(m *cluster.Member) int {
	switch {
	case hasFailed(m):
		return 0
	case servesNoClient(m):
		return 1
	case m.Leads():
		return 3
	default:
		return 2
	}
}

// hasFailed reports whether a member's pod is in trouble, in the eyes of Kubernetes as well as in the operator's: one that only the operator
// cannot reach may serve its clients.
func hasFailed(m *cluster.Member) bool {
	return m.Pod != nil && !m.Pod.Ready && m.Pod.FailureReason != "" && !m.Answers()
}

// servesNoClient reports whether a member serves nobody, in the eyes of Kubernetes as well as in the operator's: it may be cut off because of
// the very authorities that it was started with.
func servesNoClient(m *cluster.Member) bool {
	return m.Pod != nil && !m.Pod.Ready && !m.Serves() && !m.IsLearner()
}

// rotationUnderWay tells of a rotation that waits: the members and clients get the time to take it up.
func rotationUnderWay(s *cluster.Snapshot) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonRotatingAuthorities, RequeueAfter: requeueAtRest}
	if slices.ContainsFunc(traffics, func(t cluster.Traffic) bool {
		return s.Trust(t).Authority.Phase == cluster.PhaseAnnounced && !trustedByAll(s, t)
	}) {
		d.Message, d.RequeueAfter = "Telling members and clients to trust the new certificate authorities beside the old ones.", 0
		return d
	}
	for _, traffic := range traffics {
		switch s.Trust(traffic).Authority.Phase {
		case cluster.PhaseAnnounced:
			d.Message = fmt.Sprintf("Every member trusts the new certificate authorities beside the old ones. The new ones issue certificates once clients have had %s to trust them too.", s.AuthorityOverlap)
			return d
		case cluster.PhaseIssuing:
			d.Message = fmt.Sprintf("The new certificate authorities issue. The old ones are forgotten once clients have had %s to take up new certificates; the members are restarted then, one by one.", s.AuthorityOverlap)
			return d
		}
	}
	return nil
}

// quorumSurvives refuses to stop a member unless the others that serve form a quorum without it. A voter that did not answer counts as lost, even if its pod is ready.
func quorumSurvives(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		after := s.After(cluster.Change{Stops: m.Name})
		if after.HasQuorum() {
			return nil
		}
		message := fmt.Sprintf("Restarting %s would leave too few voters: %s.", m.Name, after)
		if after.Voters == 1 {
			message = fmt.Sprintf("%s needs a restart to load the new certificate authorities. It is the only member, so the operator "+
				"does not restart it. Delete pod %s when a short interruption is acceptable.", m.Name, m.Pod.Name)
		}
		return &plan.Refusal{Guard: "quorumSurvives", Reason: v1beta1.ReasonQuorumAtRisk, Message: message}
	}
}

// membersHealthy refuses to restart a member while any other is not a healthy voter that etcd's own member list names, or another is on its
// way in. The member itself may serve nobody: that it is to be restarted for may be why.
func membersHealthy(rolled *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		var names []string
		for i := range s.Members {
			m := &s.Members[i]
			well := m.IsHealthyVoter() || m.Name == rolled.Name && servesNoClient(m)
			if !well || m.Pod == nil || m.Pod.Deleting || !m.RefusesEmptyVolume() {
				names = append(names, m.Name)
			}
		}
		if s.Membership != nil && len(names) == 0 && (len(s.Membership.Members) != len(s.Members) || s.Outlook().Voters != len(s.Members)) {
			names = append(names, "a member that was added")
		}
		if len(names) == 0 && s.Membership != nil {
			return nil
		}
		return &plan.Refusal{
			Guard:  "membersHealthy",
			Reason: v1beta1.ReasonMembersNotHealthy,
			Message: fmt.Sprintf("Members are to be restarted one by one to take up the present certificate authorities, and not all are healthy voters. Waiting for %s.",
				strings.Join(names, ", ")),
		}
	}
}

// noAlarm refuses while etcd has an alarm: data may be at stake.
func noAlarm(s *cluster.Snapshot) *plan.Refusal {
	if s.Membership == nil || len(s.Membership.Alarms) == 0 {
		return nil
	}
	return &plan.Refusal{
		Guard:  "noAlarm",
		Reason: v1beta1.ReasonMembersNotHealthy,
		Message: fmt.Sprintf("Members are to be restarted to take up the present certificate authorities, and etcd has the alarm %s. See to it first: the condition %s tells how.",
			s.Membership.Alarms[0].Kind, v1beta1.ConditionStorageAlarm),
	}
}

// authoritiesOverlap refuses to restart a member while others that run do not accept the certificates that are shown to them: of the members,
// and of the operator, which is to see how they are. The members' certificate for clients is shown to none of them.
func authoritiesOverlap(rolled *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		for _, traffic := range traffics {
			trust := s.Trust(traffic)
			c := trust.Certificate(shownToMembers[traffic])
			if !trust.Source.FollowsAuthorities() || c == nil || c.IsEmpty() {
				continue
			}
			for i := range s.Members {
				m := &s.Members[i]
				if m.Name == rolled.Name || !m.Pod.IsRunning() || len(m.Pod.Authorities(traffic)) == 0 || c.IssuedBy(m.Pod.Authorities(traffic)...) {
					continue
				}
				return &plan.Refusal{
					Guard:  "authoritiesOverlap",
					Reason: v1beta1.ReasonCertificateInvalid,
					Message: fmt.Sprintf("The certificate in Secret %s was issued by an authority that %s, which runs, does not trust: restarted one by one, the members would not find each other again. %s",
						c.Name, m.Name, overlapAdvice[trust.Source]),
				}
			}
		}
		return nil
	}
}

// shownToMembers are the certificates that members check.
var shownToMembers = map[cluster.Traffic]cluster.Role{cluster.PeerTraffic: cluster.RolePeer, cluster.ClientTraffic: cluster.RoleOperator}

// overlapAdvice is what the user can do, by who writes the Secret.
var overlapAdvice = map[cluster.Source]string{
	cluster.SourceManaged: "Delete all the cluster's pods at once, for a short interruption.",
	cluster.SourceCertManager: "Have the issuer use the former authority again, and give both in ca.crt until every member was restarted; " +
		"or delete all the cluster's pods at once, for a short interruption.",
	cluster.SourceSecret: "Put the former authority beside the new one into ca.crt, with a certificate of the former one, until every member was restarted; " +
		"or delete all the cluster's pods at once, for a short interruption.",
}
