package analyse

import (
	"slices"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// traffics are both kinds of traffic, in the order in which their Secrets are written.
var traffics = []cluster.Traffic{cluster.PeerTraffic, cluster.ClientTraffic}

// withAuthorities returns the intent with the authorities that a pod which starts now will trust.
// Where these are not known, the intent keeps its own.
func withAuthorities(s *cluster.Snapshot, i cluster.Intent) cluster.Intent {
	return i.WithAuthorities(authoritiesForNewPods(s, cluster.PeerTraffic), authoritiesForNewPods(s, cluster.ClientTraffic))
}

// authoritiesForNewPods returns the authorities that a pod which starts now will trust, nil where they are not known.
// A managed Secret that does not exist yet will hold those of its authority.
func authoritiesForNewPods(s *cluster.Snapshot, traffic cluster.Traffic) []string {
	trust := s.Trust(traffic)
	switch c := trust.Certificate(traffic.Roles()[0]); {
	case c == nil:
		return nil
	case c.IsEmpty() && trust.Authority.Usable() && len(foreignSecrets(s, c.Name)) == 0:
		return trust.Authority.Bundle
	default:
		return c.Bundle
	}
}

// foreignSecrets returns the foreign and the unreadable Secrets of some names. What is in them is not known.
func foreignSecrets(s *cluster.Snapshot, names ...string) []*cluster.ForeignObject {
	var list []*cluster.ForeignObject
	for i := range s.ForeignObjects {
		if x := &s.ForeignObjects[i]; x.Kind == "Secret" && slices.Contains(names, x.Name) {
			list = append(list, x)
		}
	}
	return list
}

// secretNames returns the names of the Secrets of one kind of traffic.
func secretNames(trust *cluster.Trust) []string {
	names := []string{trust.Authority.Name}
	for i := range trust.Certificates {
		names = append(names, trust.Certificates[i].Name)
	}
	return names
}

// trusted reports whether a Secret names an authority. Members and clients may trust it.
func trusted(trust *cluster.Trust) bool {
	return len(trust.Authority.Bundle) > 0 ||
		slices.ContainsFunc(trust.Certificates, func(c cluster.Certificate) bool { return !c.IsEmpty() })
}

// authorityLost reports whether no Secret knows any more which authority the running members trust.
// A Secret that the operator cannot read may know it.
func authorityLost(s *cluster.Snapshot, traffic cluster.Traffic) bool {
	trust := s.Trust(traffic)
	return trust.Source == cluster.SourceManaged && !trusted(trust) && len(membersNotTrusting(s, traffic)) > 0 &&
		!slices.ContainsFunc(foreignSecrets(s, secretNames(trust)...), func(x *cluster.ForeignObject) bool { return x.Unreadable != "" })
}

// startedWith returns the authorities that a pod's etcd trusts, nil if they are not known. The pod's annotation names
// those of its template. But a pod that waited for its Secret may have started with others. It did if the Secret is
// newer than the pod, the container is newer than the Secret, and the two name no authority in common.
func startedWith(s *cluster.Snapshot, p *cluster.Pod, traffic cluster.Traffic) []string {
	annotated := p.Authorities(traffic)
	c := s.Trust(traffic).Certificate(traffic.Roles()[0])
	if c != nil && !c.IsEmpty() && !p.CreatedAt.After(c.CreatedAt) && !p.StartedAt.Before(c.CreatedAt) && !intersect(annotated, c.Bundle) {
		return nil
	}
	return annotated
}

// membersNotTrusting names the running members that were started with none of the authorities.
// Members of which it is not known what they were started with are skipped.
func membersNotTrusting(s *cluster.Snapshot, traffic cluster.Traffic, authorities ...string) []string {
	var names []string
	for i := range s.Members {
		m := &s.Members[i]
		if !m.Pod.IsRunning() {
			continue
		}
		if have := startedWith(s, m.Pod, traffic); len(have) > 0 && !intersect(have, authorities) {
			names = append(names, m.Name)
		}
	}
	return names
}

func intersect(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
}

// membersThatWouldReject names the running members that would not accept a certificate from the issuer.
// It must not be issued then. A certificate outside its validity may be replaced: nobody accepts it any more.
// No member checks the server's certificate. It is enough that they know one of today's authorities.
func membersThatWouldReject(s *cluster.Snapshot, traffic cluster.Traffic, c *cluster.Certificate, issuer string) []string {
	switch {
	case c.OutsideValidity(s.Now):
		return nil
	case c.Role == cluster.RoleServer && c.IsEmpty():
		return membersNotTrusting(s, traffic, s.Trust(traffic).Authority.Bundle...)
	default:
		return membersNotTrusting(s, traffic, issuer)
	}
}

// currentIssuer returns the fingerprint of the authority that issues, and when it expires. During an announcement that
// is the previous authority. There is none if its key is gone, it has expired, or the new authority is not valid yet.
func currentIssuer(a *cluster.Authority, now time.Time) (fingerprint string, expires time.Time) {
	switch {
	case a.Phase != cluster.PhaseAnnounced && !now.Before(a.NotBefore):
		return a.Current, a.NotAfter
	case a.Phase == cluster.PhaseAnnounced && a.Previous != "" && now.Before(a.PreviousNotAfter):
		return a.Previous, a.PreviousNotAfter
	default:
		return "", time.Time{}
	}
}

// issuerFor returns the fingerprint of the authority that issues a certificate. Without a current issuer, the newest
// authority issues a certificate that does not exist: there is nothing to keep.
func issuerFor(a *cluster.Authority, c *cluster.Certificate, now time.Time) string {
	issuer, _ := currentIssuer(a, now)
	if issuer == "" && c.IsEmpty() && !now.Before(a.NotBefore) {
		return a.Current
	}
	return issuer
}
