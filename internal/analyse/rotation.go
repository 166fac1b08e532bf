package analyse

import (
	"fmt"
	"slices"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// authorityRotation restarts, one after the other, the members that started with other certificate authorities than are
// trusted now: etcd reads its bundle only when it starts.
func authorityRotation(s *cluster.Snapshot) *plan.Decision {
	if outdated := membersToRestart(s, v1beta1.ReasonRotatingAuthorities); len(outdated) > 0 {
		return restartMember(s, nextToRestart(outdated), v1beta1.ReasonRotatingAuthorities)
	}
	return nil
}

// rotates reports whether members are to be restarted for other authorities, and no guard refuses it.
func rotates(s *cluster.Snapshot) bool {
	d := authorityRotation(s)
	return d != nil && len(d.Refusals) == 0
}

var authorityRestart = restart{
	purpose:   "to load the present certificate authorities",
	isNeeded:  startedWithOldAuthorities,
	target:    func(_ *cluster.Snapshot, m *cluster.Member) cluster.Intent { return m.Workload.Intent },
	operation: v1beta1.OperationRollMember,
	guards: func(m *cluster.Member) []guard {
		return []guard{membersAcceptCertificates(m)} // Make sure that the restarted member and the others accept each other.
	},
}

// startedWithOldAuthorities reports whether a member's pod was started with other authorities than are trusted now.
// Where today's authorities are not known, it was not. Where the pod's are not known, it was.
func startedWithOldAuthorities(s *cluster.Snapshot, m *cluster.Member) bool {
	want := withAuthorities(s, m.Workload.Intent)
	return slices.ContainsFunc(traffics, func(t cluster.Traffic) bool {
		return want.Source(t).FollowsAuthorities() && !slices.Equal(want.Authorities(t), startedWith(s, m.Pod, t))
	})
}

// reportRotation tells of a rotation that waits: members and clients get time to load what changed.
func reportRotation(s *cluster.Snapshot) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonRotatingAuthorities, RequeueAfter: requeueAtRest}
	if slices.ContainsFunc(traffics, func(t cluster.Traffic) bool {
		return s.Trust(t).Authority.Phase == cluster.PhaseAnnounced && !trustedByAll(s, t)
	}) {
		d.Message, d.RequeueAfter = "Distributing the new certificate authorities. The old ones stay trusted.", 0
		return d
	}
	for _, traffic := range traffics {
		switch s.Trust(traffic).Authority.Phase {
		case cluster.PhaseAnnounced:
			d.Message = fmt.Sprintf("Every member trusts the new certificate authorities beside the old ones. Clients get %s to trust them too. Then the new authorities issue certificates.", s.AuthorityOverlap)
			return d
		case cluster.PhaseIssuing:
			d.Message = fmt.Sprintf("The new certificate authorities issue all certificates. Clients get %s to load them. Then the old authorities are removed, and the members restart one by one.", s.AuthorityOverlap)
			return d
		}
	}
	return nil
}

// membersAcceptCertificates refuses to restart a member while other running members would reject the certificates that
// they are shown: those of the members, and that of the operator, which must be able to ask them. Members do not check
// the certificate for clients of each other.
func membersAcceptCertificates(restarted *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		for _, traffic := range traffics {
			trust := s.Trust(traffic)
			c := trust.Certificate(shownToMembers[traffic])
			if !trust.Source.FollowsAuthorities() || c == nil || c.IsEmpty() {
				continue
			}
			for i := range s.Members {
				m := &s.Members[i]
				if m.Name == restarted.Name || !m.Pod.IsRunning() {
					continue
				}
				if trusts := startedWith(s, m.Pod, traffic); len(trusts) == 0 || c.IssuedBy(trusts...) {
					continue
				}
				return &plan.Refusal{
					Guard:  "membersAcceptCertificates",
					Reason: v1beta1.ReasonCertificateInvalid,
					Message: fmt.Sprintf("The certificate in Secret %s was issued by an authority that %s, which runs, does not trust: restarted one by one, the members would not find each other again. %s",
						c.Name, m.Name, cutOffAdvice[trust.Source]),
				}
			}
		}
		return nil
	}
}

// shownToMembers are the certificates that members check.
var shownToMembers = map[cluster.Traffic]cluster.Role{cluster.PeerTraffic: cluster.RolePeer, cluster.ClientTraffic: cluster.RoleOperator}

// cutOffAdvice is what the user can do, by who writes the Secret.
var cutOffAdvice = map[cluster.Source]string{
	cluster.SourceManaged: "Delete all the cluster's pods at once, for a short interruption.",
	cluster.SourceCertManager: "Make the issuer issue from the former authority again, if it can. " +
		"Otherwise delete all the cluster's pods at once, for a short interruption.",
	cluster.SourceSecret: "Put the former authority beside the new one into ca.crt, with a certificate of the former one, until every member was restarted; " +
		"or delete all the cluster's pods at once, for a short interruption.",
}
