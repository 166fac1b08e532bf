package analyse

import (
	"slices"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// certificateUpkeep lists what the Secrets of managed certificates, and cert-manager's Certificates, need.
func certificateUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	var list []plan.Upkeep
	for _, traffic := range traffics {
		switch s.Trust(traffic).Source {
		case cluster.SourceManaged:
			list = append(list, managedUpkeep(s, traffic)...)
		case cluster.SourceCertManager:
			list = append(list, certManagerUpkeep(s, traffic)...)
		case cluster.SourceSecret, cluster.SourceEtcdOperator:
		}
	}
	return list
}

// managedUpkeep takes one step with the authority, or else writes the certificates that need it. The authority must not
// change in the pass that decides about certificates, except one that no member or client has ever trusted.
func managedUpkeep(s *cluster.Snapshot, traffic cluster.Traffic) []plan.Upkeep {
	if authorityLost(s, traffic) {
		return nil
	}
	var list []plan.Upkeep
	if step := authorityStep(s, traffic); step != nil {
		list = append(list, *step)
		if step.Step != plan.MakeAuthority || step.Phase != "" {
			return list
		}
	}
	trust := s.Trust(traffic)
	for i := range trust.Certificates {
		if write := certificateWrite(s, traffic, &trust.Certificates[i]); write != nil {
			list = append(list, *write)
		}
	}
	return list
}

// authorityStep returns the next step of an authority, nil for none.
func authorityStep(s *cluster.Snapshot, traffic cluster.Traffic) *plan.WriteAuthority {
	trust := s.Trust(traffic)
	a, request := &trust.Authority, s.Cluster.Annotations[v1beta1.RotateAuthoritiesAnnotation]
	step := &plan.WriteAuthority{Traffic: traffic, Known: a.ObjectVersion, RotationRequest: a.RotationRequest}
	switch {
	case !a.Usable(), a.Phase != "" && !s.Now.Before(a.NotAfter):
		step.Step, step.RotationRequest = plan.MakeAuthority, request
		if trusted(trust) {
			step.Phase = cluster.PhaseAnnounced
		}
	case authorityUnknownToMembers(s, traffic):
		step.Step, step.Phase = plan.AnnounceAuthority, cluster.PhaseAnnounced
	case a.Phase == "" && (request != "" && request != a.RotationRequest || !s.Now.Before(a.RenewalDue)):
		step.Step, step.Phase, step.RotationRequest = plan.RotateAuthority, cluster.PhaseAnnounced, request
	case a.Phase != "" && (a.Since.IsZero() || a.Since.After(s.Now)) && secretsMatchPhase(trust):
		step.Step, step.Phase, step.PhaseReached = plan.MarkAuthority, a.Phase, true
	case a.Phase == cluster.PhaseAnnounced && newAuthorityMayIssue(s, traffic):
		step.Step, step.Phase = plan.IssueFromAuthority, cluster.PhaseIssuing
	case a.Phase == cluster.PhaseIssuing && overlapElapsed(s, trust):
		step.Step = plan.ForgetAuthority
	default:
		return nil
	}
	return step
}

// authorityUnknownToMembers reports whether the members do not know the authority: its Secret was restored from a
// backup, or written by a user. They would not trust what it issues, or run with certificates of another authority.
func authorityUnknownToMembers(s *cluster.Snapshot, traffic cluster.Traffic) bool {
	trust := s.Trust(traffic)
	a := &trust.Authority
	return a.Phase == "" && len(membersNotTrusting(s, traffic, a.Current)) > 0 ||
		slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return c.Usable() && !c.IssuedBy(a.Bundle...) })
}

// secretsMatchPhase reports whether every Secret has reached the phase of its authority. All must hold the bundle.
// Once the new authority issues, all certificates must be from it.
func secretsMatchPhase(trust *cluster.Trust) bool {
	a := &trust.Authority
	return !slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool {
		return !slices.Equal(c.Bundle, a.Bundle) || a.Phase == cluster.PhaseIssuing && (!c.Usable() || !c.IssuedBy(a.Current))
	})
}

// overlapElapsed reports whether clients have had the time to load what the Secrets hold.
func overlapElapsed(s *cluster.Snapshot, trust *cluster.Trust) bool {
	a := &trust.Authority
	return !a.Since.IsZero() && !s.Now.Before(a.Since.Add(s.AuthorityOverlap)) && secretsMatchPhase(trust)
}

// newAuthorityMayIssue reports whether the new authority may issue: all members trust it, and clients had the time to.
// If certificates have expired and the old authority cannot issue others, waiting would not help.
func newAuthorityMayIssue(s *cluster.Snapshot, traffic cluster.Traffic) bool {
	trust := s.Trust(traffic)
	issuer, _ := currentIssuer(&trust.Authority, s.Now)
	expired := slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return c.OutsideValidity(s.Now) })
	return !s.Now.Before(trust.Authority.NotBefore) &&
		(issuer == "" && expired || overlapElapsed(s, trust) && trustedByAll(s, traffic))
}

// trustedByAll reports whether every Secret names the newest authority, and every running member was started with it.
func trustedByAll(s *cluster.Snapshot, traffic cluster.Traffic) bool {
	trust := s.Trust(traffic)
	return secretsMatchPhase(trust) && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Pod.IsRunning() && !slices.Contains(startedWith(s, m.Pod, traffic), trust.Authority.Current)
	})
}

// certificateWrite returns the write that a managed certificate needs, nil for none.
// Only an authority that every running member trusts may issue.
func certificateWrite(s *cluster.Snapshot, traffic cluster.Traffic, c *cluster.Certificate) *plan.WriteCertificate {
	a := &s.Trust(traffic).Authority
	write := &plan.WriteCertificate{Traffic: traffic, Role: c.Role, Known: c.ObjectVersion, Authority: a.Name, Domain: targetIntent(s).ClusterDomain, Renew: true}
	if c.IsEmpty() && c.Role == traffic.Roles()[0] && !templatesNameAuthority(s, traffic) {
		return nil
	}
	if !a.Usable() {
		return write // the authority is made in the same pass
	}
	write.Issuer = issuerFor(a, c, s.Now)
	needed := !c.Usable() || renewable(s, a, c) || a.Phase != cluster.PhaseAnnounced && !c.IssuedBy(write.Issuer)
	switch {
	case needed && write.Issuer != "" && len(membersThatWouldReject(s, traffic, c, write.Issuer)) == 0:
		return write
	case !c.IsEmpty() && !slices.Equal(c.Bundle, a.Bundle):
		write.Renew = false
		return write
	default:
		return nil
	}
}

// templatesNameAuthority reports whether every template names the authorities of a mounted Secret that is to be
// created. A pod that is made from another template would be annotated with authorities that it does not start with.
func templatesNameAuthority(s *cluster.Snapshot, traffic cluster.Traffic) bool {
	return !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Volume != nil && m.Workload != nil && !m.Workload.Deleting && m.Workload.Intent.Source(traffic).FollowsAuthorities() &&
			!slices.Equal(m.Workload.Intent.Authorities(traffic), s.Trust(traffic).Authority.Bundle)
	})
}

// renewable reports whether a certificate is due for renewal, and a new one would last longer.
func renewable(s *cluster.Snapshot, a *cluster.Authority, c *cluster.Certificate) bool {
	_, ends := currentIssuer(a, s.Now)
	return !c.RenewalDue.IsZero() && !s.Now.Before(c.RenewalDue) && c.NotAfter.Before(ends)
}

// urgentRenewals are the certificates that are due. They are renewed whatever the decision is, but for a cluster that
// is being deleted: members with expired certificates do not accept each other.
func urgentRenewals(s *cluster.Snapshot) []plan.Upkeep {
	var list []plan.Upkeep
	for _, traffic := range traffics {
		trust := s.Trust(traffic)
		if trust.Source != cluster.SourceManaged || !trust.Authority.Usable() {
			continue
		}
		for i := range trust.Certificates {
			c := &trust.Certificates[i]
			if c.Usable() && !c.OutsideValidity(s.Now) && !c.IssuedBy(trust.Authority.Bundle...) {
				continue // the authority is to be announced first: clients do not know it
			}
			if write := certificateWrite(s, traffic, c); write != nil && write.Renew && renewable(s, &trust.Authority, c) {
				list = append(list, *write)
			}
		}
	}
	return list
}

// certManagerUpkeep creates and corrects cert-manager's Certificates. They name the issuer that the members were
// started with: this release does not change it.
func certManagerUpkeep(s *cluster.Snapshot, traffic cluster.Traffic) []plan.Upkeep {
	trust, intent := s.Trust(traffic), targetIntent(s)
	issuer := intent.Issuer(traffic)
	if issuer == nil || trust.CertManagerMissing {
		return nil
	}
	var list []plan.Upkeep
	for _, c := range trust.Certificates {
		list = appendIfStale(list, render.CertManagerCertificate(s.Cluster, c.Role, intent.ClusterDomain, *issuer), c.CertManagerCertificate)
	}
	return list
}

// certificatesMissing reports whether a Secret that pods mount is still to be made. Before the first member,
// cert-manager must have issued all certificates for this cluster. Later members need the same as those that run.
func certificatesMissing(s *cluster.Snapshot) bool {
	return slices.ContainsFunc(traffics, func(traffic cluster.Traffic) bool {
		trust := s.Trust(traffic)
		made := trust.Source == cluster.SourceManaged || trust.Source == cluster.SourceCertManager
		mounted := trust.Certificate(traffic.Roles()[0])
		return made && (mounted == nil || mounted.IsEmpty() || trust.Source == cluster.SourceCertManager && !s.MembersCreated() &&
			slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return !c.Issued || !requested(s, traffic, &c) }))
	})
}

// writesSecrets reports whether upkeep changes Secrets, or makes cert-manager change them.
func writesSecrets(list []plan.Upkeep) bool {
	return slices.ContainsFunc(list, func(u plan.Upkeep) bool {
		return slices.Contains([]string{"Secret", render.CertificateKind.Kind}, u.Writes().Kind)
	})
}
