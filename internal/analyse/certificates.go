package analyse

import (
	"slices"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// certificateUpkeep lists what the Secrets of managed certificates, and cert-manager's Certificates, need.
func certificateUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	var list []plan.Upkeep
	for _, traffic := range traffics {
		switch trust := s.Trust(traffic); trust.Source {
		case cluster.SourceManaged:
			list = append(list, managedUpkeep(s, trust, traffic)...)
		case cluster.SourceCertManager:
			list = append(list, requestUpkeep(s, trust, traffic)...)
		case cluster.SourceSecret, cluster.SourceEtcdOperator:
		}
	}
	return list
}

// managedUpkeep brings the authority one step on, or else the certificates up to it: what is decided about certificates
// rests on an authority that does not change in the same pass, except on one that nobody has ever trusted.
func managedUpkeep(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) []plan.Upkeep {
	if authorityLost(s, traffic) {
		return nil
	}
	step := authorityStep(s, trust, traffic)
	if step != nil && (step.Step != plan.MakeAuthority || step.Phase != "") {
		return []plan.Upkeep{*step}
	}
	var list []plan.Upkeep
	if step != nil {
		list = append(list, *step)
	}
	for i := range trust.Certificates {
		if write := certificateWrite(s, trust, traffic, &trust.Certificates[i]); write != nil {
			list = append(list, *write)
		}
	}
	return list
}

// authorityStep returns what is to be done about an authority, nil for nothing.
func authorityStep(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) *plan.WriteAuthority {
	a := &trust.Authority
	step := &plan.WriteAuthority{Traffic: traffic, Known: a.ObjectVersion, RotationRequest: rotationOf(s)}
	asked := rotationOf(s) != "" && rotationOf(s) != a.RotationRequest
	switch {
	case !a.Usable(), a.Phase != "" && !s.Now.Before(a.NotAfter):
		step.Step = plan.MakeAuthority
		if trusted(trust) {
			step.Phase = cluster.PhaseAnnounced
		}
	case authorityUnknownToMembers(s, trust, traffic):
		step.Step, step.Phase = plan.AnnounceAuthority, cluster.PhaseAnnounced
	case a.Phase == "" && (asked || !s.Now.Before(a.RenewalDue)):
		step.Step, step.Phase = plan.RotateAuthority, cluster.PhaseAnnounced
	case a.Phase != "" && phaseReachedAt(s, a).IsZero() && secretsMatchPhase(trust):
		step.Step, step.Phase, step.PhaseReached = plan.MarkAuthority, a.Phase, true
	case a.Phase == cluster.PhaseAnnounced && newAuthorityMayIssue(s, trust, traffic):
		step.Step, step.Phase = plan.IssueFromAuthority, cluster.PhaseIssuing
	case a.Phase == cluster.PhaseIssuing && overlapElapsed(s, trust):
		step.Step = plan.ForgetAuthority
	default:
		return nil
	}
	if step.Step != plan.MakeAuthority && step.Step != plan.RotateAuthority {
		step.RotationRequest = a.RotationRequest
	}
	return step
}

// rotationOf returns the user's last wish to rotate the authorities.
func rotationOf(s *cluster.Snapshot) string {
	return s.Cluster.Annotations[v1beta1.RotateAuthoritiesAnnotation]
}

// authorityUnknownToMembers reports whether the authority is none that the members know, because its Secret was brought back from a backup or written by somebody:
// they run with certificates of another one, or would not trust those that it issues.
func authorityUnknownToMembers(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) bool {
	a := &trust.Authority
	return a.Phase == "" && len(membersNotTrusting(s, traffic, a.Current)) > 0 ||
		slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return c.Usable() && !c.IssuedBy(a.Bundle...) })
}

// secretsMatchPhase reports whether every Secret has secretsMatchPhase the authority into its phase: it holds the bundle, and from the new authority's issuing on its certificate.
func secretsMatchPhase(trust *cluster.Trust) bool {
	a := &trust.Authority
	return !slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool {
		return !slices.Equal(c.Bundle, a.Bundle) || a.Phase == cluster.PhaseIssuing && (!c.Usable() || !c.IssuedBy(a.Current))
	})
}

// overlapElapsed reports whether clients have had the time to take up what the Secrets hold.
func overlapElapsed(s *cluster.Snapshot, trust *cluster.Trust) bool {
	a := &trust.Authority
	return !phaseReachedAt(s, a).IsZero() && secretsMatchPhase(trust) && !s.Now.Before(a.Since.Add(s.AuthorityOverlap))
}

// phaseReachedAt is when every Secret had followed into the phase, zero while they have not. A time to come was written by a clock that was ahead.
func phaseReachedAt(s *cluster.Snapshot, a *cluster.Authority) time.Time {
	if a.Since.After(s.Now) {
		return time.Time{}
	}
	return a.Since
}

// newAuthorityMayIssue reports whether the new authority may issue: every member that runs trusts it, every one that starts will, and clients have had
// the time to. Where the certificates are at their end, and the old authority cannot issue others, nobody is helped by waiting.
func newAuthorityMayIssue(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) bool {
	a := &trust.Authority
	if s.Now.Before(a.NotBefore) {
		return false
	}
	issuer, _ := currentIssuer(a, s.Now)
	if issuer == "" && slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return c.OutsideValidity(s.Now) }) {
		return true
	}
	return overlapElapsed(s, trust) && trustedByAll(s, traffic)
}

// trustedByAll reports whether every Secret tells to trust the newest authority, and every member that runs was started with it.
func trustedByAll(s *cluster.Snapshot, traffic cluster.Traffic) bool {
	trust := s.Trust(traffic)
	return secretsMatchPhase(trust) && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Pod.IsRunning() && !slices.Contains(startedWith(s, m.Pod, traffic), trust.Authority.Current)
	})
}

// certificateWrite returns what is to be done about a managed certificate, nil for nothing. It is issued by nobody whom a member that runs does not trust.
func certificateWrite(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic, c *cluster.Certificate) *plan.WriteCertificate {
	a := &trust.Authority
	write := &plan.WriteCertificate{Traffic: traffic, Role: c.Role, Known: c.ObjectVersion, Domain: settledIntent(s).ClusterDomain, Renew: true}
	if c.IsEmpty() && c.Role == traffic.Roles()[0] && !templatesNameAuthority(s, traffic) {
		return nil
	}
	if !a.Usable() {
		return write // the authority is made in the same pass
	}
	write.Issuer = issuerFor(a, c, s.Now)
	replaced := a.Phase != cluster.PhaseAnnounced && !c.IssuedBy(write.Issuer)
	switch {
	case write.Issuer != "" && (c.IsEmpty() || !c.Usable() || renewable(s, a, c) || replaced) && len(membersThatWouldReject(s, traffic, c, write.Issuer)) == 0:
		return write
	case !c.IsEmpty() && !slices.Equal(c.Bundle, a.Bundle):
		write.Renew = false
		return write
	default: // nobody can issue yet whom the members trust
		return nil
	}
}

// templatesNameAuthority reports whether every template names the authorities of a mounted Secret that is to be created.
// A pod that is made from another template would be annotated with authorities that it does not start with.
func templatesNameAuthority(s *cluster.Snapshot, traffic cluster.Traffic) bool {
	return !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Volume != nil && m.Workload != nil && !m.Workload.Deleting && m.Workload.Intent.Source(traffic).FollowsAuthorities() &&
			!slices.Equal(m.Workload.Intent.Authorities(traffic), s.Trust(traffic).Authority.Bundle)
	})
}

// renewable reports whether a certificate is due for renewal, and a new one would last longer.
func renewable(s *cluster.Snapshot, a *cluster.Authority, c *cluster.Certificate) bool {
	_, ends := currentIssuer(a, s.Now)
	return !s.Now.Before(c.RenewalDue) && c.NotAfter.Before(ends)
}

// urgentRenewals are the certificates that are due. They are renewed whatever the decision is, but for a cluster that is
// being deleted: members with expired certificates do not accept each other.
func urgentRenewals(s *cluster.Snapshot) []plan.Upkeep {
	var list []plan.Upkeep
	for _, traffic := range traffics {
		trust := s.Trust(traffic)
		if trust.Source != cluster.SourceManaged || !trust.Authority.Usable() {
			continue
		}
		for i := range trust.Certificates {
			c := &trust.Certificates[i]
			if !c.Exists() || c.RenewalDue.IsZero() || !renewable(s, &trust.Authority, c) {
				continue
			}
			if write := certificateWrite(s, trust, traffic, c); write != nil && write.Renew {
				list = append(list, *write)
			}
		}
	}
	return list
}

// requestUpkeep makes and corrects cert-manager's Certificates. They name the issuer that the members were started with: to change it is a step that this release does not take.
func requestUpkeep(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) []plan.Upkeep {
	intent := settledIntent(s)
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

// certificatesMissing reports whether certificates are still to be made that the members' pods mount. Those of cert-manager must be issued for
// this cluster, unless members have theirs already: what runs is not disturbed, and what joins it needs the same.
func certificatesMissing(s *cluster.Snapshot) bool {
	return slices.ContainsFunc(traffics, func(traffic cluster.Traffic) bool {
		trust := s.Trust(traffic)
		made := trust.Source == cluster.SourceManaged || trust.Source == cluster.SourceCertManager
		mounted := trust.Certificate(traffic.Roles()[0])
		return made && (mounted == nil || mounted.IsEmpty() || trust.Source == cluster.SourceCertManager && !membersCreated(s) &&
			slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return !c.Issued || !requested(s, traffic, &c) }))
	})
}

// writesSecrets reports whether upkeep changes what was found in Secrets.
func writesSecrets(list []plan.Upkeep) bool {
	return slices.ContainsFunc(list, func(u plan.Upkeep) bool {
		return slices.Contains([]string{"Secret", render.CertificateKind.Kind}, u.Writes().Kind)
	})
}
