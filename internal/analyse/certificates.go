package analyse

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-steward/etcd-steward/api/v1beta1"
	"github.com/etcd-steward/etcd-steward/internal/cluster"
	"github.com/etcd-steward/etcd-steward/internal/render"
)

// traffics are both kinds of traffic, in the order in which their Secrets are written.
var traffics = []cluster.Traffic{cluster.PeerTraffic, cluster.ClientTraffic}

// certificateUpkeep lists what the Secrets of managed certificates, and cert-manager's Certificates, need.
func certificateUpkeep(s *cluster.Snapshot) []Upkeep {
	var list []Upkeep
	for _, traffic := range traffics {
		switch trust := s.Trust(traffic); trust.Source {
		case cluster.SourceManaged:
			list = append(list, managedUpkeep(s, trust, traffic)...)
		case cluster.SourceCertManager:
			list = append(list, requestUpkeep(s, trust, traffic)...)
		case cluster.SourceSecret:
		}
	}
	return list
}

// managedUpkeep brings the authority one step on, or else the certificates up to it: what is decided about certificates
// rests on an authority that does not change in the same pass, except on one that nobody has ever trusted.
func managedUpkeep(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) []Upkeep {
	if trust.Lost {
		return nil
	}
	step := authorityStep(s, trust, traffic)
	if step != nil && (step.Step != MakeAuthority || step.Phase != "") {
		return []Upkeep{*step}
	}
	var list []Upkeep
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
func authorityStep(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) *WriteAuthority {
	a := &trust.Authority
	step := &WriteAuthority{Traffic: traffic, Known: a.Written, Rotation: rotationOf(s)}
	asked := rotationOf(s) != "" && rotationOf(s) != a.Rotation
	switch {
	case !a.Usable():
		step.Step = MakeAuthority
		if trusted(trust) {
			step.Phase = cluster.PhaseAnnounced
		}
	case a.Phase == "" && (asked || !s.Now.Before(a.RenewalDue)):
		step.Step, step.Phase = RotateAuthority, cluster.PhaseAnnounced
	case a.Phase != "" && a.Since.IsZero() && followed(trust):
		step.Step, step.Phase, step.Followed = MarkAuthority, a.Phase, true
	case a.Phase == cluster.PhaseAnnounced && announced(s, trust, traffic):
		step.Step, step.Phase = IssueFromAuthority, cluster.PhaseIssuing
	case a.Phase == cluster.PhaseIssuing && overlapped(s, trust):
		step.Step = ForgetAuthority
	default:
		return nil
	}
	if step.Step != MakeAuthority && step.Step != RotateAuthority {
		step.Rotation = a.Rotation
	}
	return step
}

// rotationOf returns the user's last wish to rotate the authorities.
func rotationOf(s *cluster.Snapshot) string {
	return s.Cluster.Annotations[v1beta1.RotateAuthoritiesAnnotation]
}

// trusted reports whether somebody may trust an authority that is in the bundle of a Secret.
func trusted(trust *cluster.Trust) bool {
	return len(trust.Authority.Bundle) > 0 || slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return len(c.Bundle) > 0 })
}

// followed reports whether every Secret has followed the authority into its phase: it holds the bundle, and from the new authority's issuing on its certificate.
func followed(trust *cluster.Trust) bool {
	a := &trust.Authority
	return !slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool {
		return !slices.Equal(c.Bundle, a.Bundle) || a.Phase == cluster.PhaseIssuing && (!c.Usable() || c.Issuer != a.Current)
	})
}

// overlapped reports whether clients have had the time to take up what the Secrets hold.
func overlapped(s *cluster.Snapshot, trust *cluster.Trust) bool {
	a := &trust.Authority
	return !a.Since.IsZero() && followed(trust) && !s.Now.Before(a.Since.Add(s.AuthorityOverlap))
}

// announced reports whether the new authority may issue: every member that runs trusts it, every one that starts will, and clients have had
// the time to. Where the certificates are at their end, and the old authority's key is gone, nobody is helped by waiting.
func announced(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) bool {
	a := &trust.Authority
	if a.Previous == "" && slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return c.Exists() && !s.Now.Before(c.NotAfter) }) {
		return true
	}
	return overlapped(s, trust) && trustedByAll(s, traffic)
}

// trustedByAll reports whether every Secret tells to trust the newest authority, and every member that runs was started with it.
func trustedByAll(s *cluster.Snapshot, traffic cluster.Traffic) bool {
	trust := s.Trust(traffic)
	return followed(trust) && !slices.ContainsFunc(runningPods(s), func(p *cluster.Pod) bool { return !slices.Contains(p.Authorities(traffic), trust.Authority.Current) })
}

// runningPods are the pods whose etcd may run.
func runningPods(s *cluster.Snapshot) []*cluster.Pod {
	var running []*cluster.Pod
	for i := range s.Members {
		if p := s.Members[i].Pod; p != nil && p.Phase == corev1.PodRunning {
			running = append(running, p)
		}
	}
	return running
}

// certificateWrite returns what is to be done about a managed certificate, nil for nothing.
func certificateWrite(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic, c *cluster.Certificate) *WriteCertificate {
	a := &trust.Authority
	write := &WriteCertificate{Traffic: traffic, Role: c.Role, Known: c.Written, Intent: settledIntent(s), Renew: true}
	if !a.Usable() {
		return write // the authority is made in the same pass
	}
	write.Issuer = a.Current
	if a.Phase == cluster.PhaseAnnounced {
		write.Issuer = a.Previous
	}
	switch {
	case len(c.Bundle) == 0: // there is nothing that could be kept
		write.Issuer = cmp.Or(write.Issuer, a.Current)
		return write
	case write.Issuer != "" && (!c.Usable() || renewable(s, a, c) || c.Issuer != write.Issuer):
		return write
	case !slices.Equal(c.Bundle, a.Bundle):
		write.Renew = false
		return write
	default: // where the issuer is not known, nobody can issue yet whom the members trust
		return nil
	}
}

// renewable reports whether a certificate is due for renewal, and a new one would last longer.
func renewable(s *cluster.Snapshot, a *cluster.Authority, c *cluster.Certificate) bool {
	return !s.Now.Before(c.RenewalDue) && c.NotAfter.Before(a.NotAfter)
}

// renewals are the writes without which a cluster that is left alone would end: they are done even where the cluster is paused.
func renewals(s *cluster.Snapshot) []Upkeep {
	if refusalsOf(s, oneClusterID, operationKnown) != nil {
		return nil
	}
	var list []Upkeep
	for _, traffic := range traffics {
		trust := s.Trust(traffic)
		if trust.Source != cluster.SourceManaged || !trust.Authority.Usable() {
			continue
		}
		for i := range trust.Certificates {
			c := &trust.Certificates[i]
			if write := certificateWrite(s, trust, traffic, c); write != nil && write.Renew && c.Exists() && !c.RenewalDue.IsZero() && renewable(s, &trust.Authority, c) {
				list = append(list, *write)
			}
		}
	}
	return list
}

// requestUpkeep makes and corrects cert-manager's Certificates. They name the issuer that the members were started with: to change it is a step that this release does not take.
func requestUpkeep(s *cluster.Snapshot, trust *cluster.Trust, traffic cluster.Traffic) []Upkeep {
	intent := settledIntent(s)
	issuer := intent.Issuer(traffic)
	if issuer == nil || trust.Uninstalled {
		return nil
	}
	var list []Upkeep
	for _, c := range trust.Certificates {
		if desired := render.IssuedCertificate(s.Cluster, c.Role, intent.ClusterDomain, *issuer); c.Request == nil || stale(desired, c.Request) {
			list = append(list, EnsureRequest{Role: c.Role, Issuer: *issuer, Domain: intent.ClusterDomain, Live: c.Request})
		}
	}
	return list
}

// certificatesMissing reports whether certificates are still to be made that the members' pods need. Those of cert-manager must be issued for
// this cluster, unless members have theirs already: what runs is not disturbed, and what joins it needs the same.
func certificatesMissing(s *cluster.Snapshot) bool {
	begun := slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Workload != nil })
	return slices.ContainsFunc(traffics, func(traffic cluster.Traffic) bool {
		trust := s.Trust(traffic)
		made := trust.Source == cluster.SourceManaged || trust.Source == cluster.SourceCertManager
		return made && (len(trust.Certificates) == 0 || slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool {
			return len(c.Bundle) == 0 || trust.Source == cluster.SourceCertManager && !begun && !c.Issued
		}))
	})
}

// writesSecrets reports whether upkeep changes what was found in Secrets.
func writesSecrets(list []Upkeep) bool {
	return slices.ContainsFunc(list, func(u Upkeep) bool {
		_, authority := u.(WriteAuthority)
		_, certificate := u.(WriteCertificate)
		_, request := u.(EnsureRequest)
		return authority || certificate || request
	})
}
