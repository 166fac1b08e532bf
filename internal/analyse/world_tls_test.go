package analyse

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

const (
	worldOverlap     = time.Hour
	worldCertificate = 90 * 24 * time.Hour
	worldAuthority   = 10 * 365 * 24 * time.Hour
)

// trusting is a container that mounts the Secrets of one kind of traffic: the authorities as they were when it started, the issuer of the certificate as it is.
type trusting struct {
	authorities []string
	issuer      string
}

// worldClient took its certificate and its authorities from the Secret for clients; it may go on with them until the time.
type worldClient struct {
	issuer      string
	authorities []string
	until       time.Time
}

// worldSecrets are the Secrets of managed certificates, with authorities by name in place of their certificates.
type worldSecrets struct {
	authorities  map[cluster.Traffic]*cluster.Authority
	certificates map[cluster.Role]*cluster.Certificate
	clients      []worldClient
	// lapsed tells that certificates expired: nobody accepts them any more, whoever issued them.
	lapsed bool
}

func newWorldSecrets() *worldSecrets {
	return &worldSecrets{authorities: map[cluster.Traffic]*cluster.Authority{}, certificates: map[cluster.Role]*cluster.Certificate{}}
}

// observeTrust is what the observer finds in the Secrets.
func (w *world) observeTrust(s *cluster.Snapshot) {
	s.AuthorityOverlap = worldOverlap
	if cluster.IntentOf(w.cluster).PeerCertificates != cluster.SourceManaged {
		return
	}
	for _, traffic := range traffics {
		trust := s.Trust(traffic)
		trust.Source = cluster.SourceManaged
		trust.Authority.Name = cluster.AuthorityName("prod", traffic)
		if a := w.secrets.authorities[traffic]; a != nil {
			trust.Authority = *a
		}
		for _, role := range traffic.Roles() {
			c := cluster.Certificate{Role: role, ObjectVersion: cluster.ObjectVersion{Name: cluster.CertificateName("prod", role)}}
			if there := w.secrets.certificates[role]; there != nil {
				c = *there
			}
			trust.Certificates = append(trust.Certificates, c)
		}
	}
}

// whole reports whether a Secret may be deleted such that the operator can put it right: nothing else is missing, and no rotation is under way.
func (w *world) whole() bool {
	for _, traffic := range traffics {
		a := w.secrets.authorities[traffic]
		if a == nil || a.Phase != "" {
			return false
		}
		for _, role := range traffic.Roles() {
			if c := w.secrets.certificates[role]; c == nil || !slices.Equal(c.Bundle, a.Bundle) {
				return false
			}
		}
	}
	return true
}

func (w *world) written(name string) cluster.ObjectVersion {
	return cluster.ObjectVersion{Name: name, UID: types.UID("secret-" + w.next()), ResourceVersion: w.next()}
}

func same(known, live cluster.ObjectVersion) bool {
	return known.UID == live.UID && known.ResourceVersion == live.ResourceVersion
}

func (o *operator) writeAuthority(u plan.WriteAuthority) error {
	w, now := o.w, o.s.Now
	if o.s.Cluster.UID != w.cluster.UID {
		return errStale
	}
	live := w.secrets.authorities[u.Traffic]
	if !u.Known.Exists() && live != nil {
		return nil // another operator made it
	}
	if u.Known.Exists() && (live == nil || !same(u.Known, live.ObjectVersion)) {
		return errStale
	}
	a := cluster.Authority{ObjectVersion: w.written(cluster.AuthorityName("prod", u.Traffic)), Phase: u.Phase, RotationRequest: u.RotationRequest}
	if u.PhaseReached {
		a.Since = now
	}
	switch u.Step {
	case plan.MarkAuthority:
		a.Current, a.Previous, a.Bundle, a.RenewalDue, a.NotAfter, a.PreviousNotAfter = live.Current, live.Previous, live.Bundle, live.RenewalDue, live.NotAfter, live.PreviousNotAfter
	case plan.MakeAuthority, plan.RotateAuthority, plan.AnnounceAuthority:
		a.Current = string(u.Traffic) + w.next()
		a.RenewalDue, a.NotAfter = now.Add(worldAuthority/3*2), now.Add(worldAuthority)
		a.Bundle = []string{a.Current}
		if u.Step == plan.RotateAuthority {
			a.Previous, a.PreviousNotAfter = live.Current, live.NotAfter
			a.Bundle = append(a.Bundle, live.Bundle...)
		}
		if u.Step == plan.AnnounceAuthority {
			a.Current, a.RenewalDue, a.NotAfter, a.Bundle = live.Current, live.RenewalDue, live.NotAfter, slices.Clone(live.Bundle)
			a.Previous, a.PreviousNotAfter = live.Previous, live.PreviousNotAfter
		}
		for _, role := range u.Traffic.Roles() {
			if c := w.secrets.certificates[role]; c != nil {
				a.Bundle = append(a.Bundle, c.Bundle...)
			}
		}
		slices.Sort(a.Bundle)
		a.Bundle = slices.Compact(a.Bundle)
	case plan.IssueFromAuthority:
		a.Current, a.Bundle, a.RenewalDue, a.NotAfter = live.Current, live.Bundle, live.RenewalDue, live.NotAfter
	case plan.ForgetAuthority:
		a.Current, a.Bundle, a.RenewalDue, a.NotAfter = live.Current, []string{live.Current}, live.RenewalDue, live.NotAfter
	}
	w.secrets.authorities[u.Traffic] = &a
	return nil
}

func (o *operator) writeCertificate(u plan.WriteCertificate) error {
	w := o.w
	if o.s.Cluster.UID != w.cluster.UID {
		return errStale
	}
	a, live := w.secrets.authorities[u.Traffic], w.secrets.certificates[u.Role]
	if a == nil || (u.Issuer != "" && u.Issuer != a.Current && u.Issuer != a.Previous) {
		return errStale
	}
	if !u.Known.Exists() && live != nil {
		return nil
	}
	if u.Known.Exists() && (live == nil || !same(u.Known, live.ObjectVersion)) {
		return errStale
	}
	c := cluster.Certificate{Role: u.Role, ObjectVersion: w.written(cluster.CertificateName("prod", u.Role)), Bundle: a.Bundle, CreatedAt: w.now}
	if live != nil {
		c.CreatedAt = live.CreatedAt
	}
	if u.Renew {
		issuer := cmp.Or(u.Issuer, a.Current)
		c.Issuers = []string{issuer}
		ends := a.NotAfter
		if issuer == a.Previous {
			ends = a.PreviousNotAfter
		}
		if !o.s.Now.Before(ends) {
			w.wrong("%s was to be issued by %s, which has expired", c.Name, issuer)
			return errStale
		}
		c.RenewalDue, c.NotAfter = o.s.Now.Add(worldCertificate/3*2), o.s.Now.Add(worldCertificate)
		if ends.Before(c.NotAfter) {
			c.NotAfter = ends
		}
	} else {
		c.Issuers, c.RenewalDue, c.NotAfter = live.Issuers, live.RenewalDue, live.NotAfter
	}
	w.secrets.certificates[u.Role] = &c
	return nil
}

// rollMember deletes the pod, and holds it against what no restart may do. An operator that acts on what it saw long ago is told apart by slow.
func (o *operator) rollMember(a plan.RestartMember) error {
	w := o.w
	pod := w.pods[a.Name]
	if pod == nil || pod.UID != a.UID {
		return errStale
	}
	serving, voters := 0, len(w.workloads)
	for name, other := range w.pods {
		if probe, err := w.etcd.Probe(context.Background(), etcd.Endpoint{Address: other.IP}); name != a.Name && err == nil && probe.Linearizable {
			serving++
		}
	}
	if !o.slow && serving < cluster.Quorum(voters) {
		w.wrong("%s was restarted with %d of %d others serving", a.Name, serving, voters)
	}
	w.deletePod(a.Name)
	w.restarts++
	return nil
}

// mount has a container that starts read the Secrets.
func (w *world) mount(pod *worldPod) bool {
	pod.trust = map[cluster.Traffic]trusting{}
	for _, v := range pod.template.Spec.Volumes {
		for _, traffic := range traffics {
			role := traffic.Roles()[0]
			if v.Secret == nil || v.Secret.SecretName != cluster.CertificateName("prod", role) {
				continue
			}
			c := w.secrets.certificates[role]
			if c == nil {
				return false
			}
			pod.trust[traffic] = trusting{authorities: c.Bundle}
		}
	}
	return true
}

// checkTrust fails where containers that run do not accept each other, or a client that has not had the overlap to take its certificate anew.
func (w *world) checkTrust() {
	for _, c := range w.secrets.certificates {
		w.secrets.lapsed = w.secrets.lapsed || !w.now.Before(c.NotAfter)
	}
	if w.secrets.lapsed {
		return
	}
	if c := w.secrets.certificates[cluster.RoleClient]; c != nil {
		last := len(w.secrets.clients) - 1
		if last < 0 || w.secrets.clients[last].issuer != c.Issuers[0] || !slices.Equal(w.secrets.clients[last].authorities, c.Bundle) {
			if last >= 0 {
				w.secrets.clients[last].until = w.now.Add(worldOverlap)
			}
			w.secrets.clients = append(w.secrets.clients, worldClient{c.Issuers[0], c.Bundle, w.now.AddDate(100, 0, 0)})
		}
	}
	w.secrets.clients = slices.DeleteFunc(w.secrets.clients, func(c worldClient) bool { return !c.until.After(w.now) })
	for _, traffic := range traffics {
		for _, name := range slices.Sorted(maps.Keys(w.pods)) {
			trust, ok := w.pods[name].trust[traffic]
			if c := w.secrets.certificates[traffic.Roles()[0]]; c != nil {
				trust.issuer = c.Issuers[0]
			}
			if !ok || !w.pods[name].running || trust.issuer == "" {
				continue
			}
			if traffic == cluster.PeerTraffic && !slices.Contains(trust.authorities, trust.issuer) {
				w.wrong("%s trusts %v, and its peers show a certificate of %s", name, trust.authorities, trust.issuer)
			}
			for _, client := range w.secrets.clients {
				if traffic == cluster.ClientTraffic && (!slices.Contains(trust.authorities, client.issuer) || !slices.Contains(client.authorities, trust.issuer)) {
					w.wrong("%s, which trusts %v and shows %s, and a client, which trusts %v and shows %s, do not accept each other",
						name, trust.authorities, trust.issuer, client.authorities, client.issuer)
				}
			}
		}
	}
}

// waitsForItsUser reports whether pods are to be deleted by the user: that of the only member, or, where certificates expired before the members
// were told of another authority, all at once.
func (w *world) waitsForItsUser(d plan.Decision) bool {
	return d.Reason == v1beta1.ReasonQuorumAtRisk || w.secrets.lapsed && d.Reason == v1beta1.ReasonCertificateInvalid
}
