package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// trust remembers what certificates say: to read them takes longer than all else.
type trust struct {
	mu      sync.Mutex
	reports map[string]pki.Report
}

// report reads a certificate against a bundle.
func (t *trust) report(certificate, bundle []byte) pki.Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := string(certificate) + string(bundle)
	if r, known := t.reports[key]; known {
		return r
	}
	r, _ := pki.Check(pki.Material{Certificate: certificate, Authorities: bundle}, pki.Client, nil, time.Time{})
	if t.reports == nil {
		t.reports = map[string]pki.Report{}
	}
	t.reports[key] = r
	return r
}

// accepts reports whether a bundle vouches for a certificate, whatever the time.
func (t *trust) accepts(bundle, certificate []byte) bool {
	return len(t.report(certificate, bundle).Issuers) > 0
}

func (t *trust) validAt(certificate []byte, now time.Time) bool {
	r := t.report(certificate, certificate)
	return !now.Before(r.NotBefore) && now.Before(r.NotAfter)
}

// fingerprints remembers what Fingerprints returned.
var fingerprints sync.Map

// Fingerprints returns the fingerprints of the certificates in a PEM text, sorted. They must not be changed.
func Fingerprints(bundle []byte) []string {
	known, ok := fingerprints.Load(string(bundle))
	if !ok {
		known, _ = fingerprints.LoadOrStore(string(bundle), readFingerprints(bundle))
	}
	return known.([]string)
}

func readFingerprints(bundle []byte) []string {
	list, err := pki.Identities(bundle)
	if err != nil {
		return nil
	}
	prints := make([]string, len(list))
	for i, identity := range list {
		prints[i] = identity.Fingerprint
	}
	slices.Sort(prints)
	return slices.Compact(prints)
}

// mount has the kubelet read the Secrets of a pod, and reports whether all are there. One that was deleted since stays
// as it was.
func (w *World) mount(pod *corev1.Pod, p *process) bool {
	complete := true
	for _, v := range pod.Spec.Volumes {
		if v.Secret == nil {
			continue
		}
		if secret, ok := one[*corev1.Secret](w.Server, pod.Namespace, v.Secret.SecretName); ok {
			p.mounted[v.Secret.SecretName] = secret.Data
		}
		complete = complete && p.mounted[v.Secret.SecretName] != nil
	}
	return complete
}

// secretOf is the name of the Secret that a pod mounts for a kind of traffic; empty for traffic in clear.
func secretOf(pod *corev1.Pod, traffic cluster.Traffic) string {
	name := map[cluster.Traffic]string{cluster.PeerTraffic: "peer-tls", cluster.ClientTraffic: "server-tls"}[traffic]
	for _, v := range pod.Spec.Volumes {
		if v.Name == name && v.Secret != nil {
			return v.Secret.SecretName
		}
	}
	return ""
}

func mountedAuthorities(pod *corev1.Pod, p *process) map[cluster.Traffic][]byte {
	authorities := map[cluster.Traffic][]byte{}
	for _, traffic := range []cluster.Traffic{cluster.PeerTraffic, cluster.ClientTraffic} {
		if name := secretOf(pod, traffic); name != "" {
			authorities[traffic] = p.mounted[name][pki.TLSKeys.Authorities]
		}
	}
	return authorities
}

// Party is one end of a TLS connection: what it shows, and whom it trusts.
type Party struct {
	Name string
	// Pod is nil for a client.
	Pod                      *corev1.Pod
	Certificate, Authorities []byte
}

// Parties returns the members that run and encrypt a kind of traffic. What they show is reloaded at each handshake, and
// whom they trust was read when etcd started.
func (w *World) Parties(traffic cluster.Traffic) []Party {
	var parties []Party
	for _, pod := range all[*corev1.Pod](w.Server) {
		p, name := w.processes[pod.UID], secretOf(pod, traffic)
		if p == nil || !p.running || name == "" {
			continue
		}
		parties = append(parties, Party{Name: pod.Name, Pod: pod, Certificate: p.mounted[name][pki.TLSKeys.Certificate], Authorities: p.authorities[traffic]})
	}
	return parties
}

// Accepts reports whether a party trusts whoever issued the other's certificate, whatever the time.
func (w *World) Accepts(a, b Party) bool { return w.trust.accepts(a.Authorities, b.Certificate) }

// Valid reports whether a party's certificate is valid now.
func (w *World) Valid(a Party) bool { return w.trust.validAt(a.Certificate, w.Now) }

// Port is the operator's port to the members: the model of etcd behind the members' TLS.
type Port struct{ *World }

var (
	_ etcd.Port    = Port{}
	_ etcd.Changer = Port{}
	_ etcd.Hasher  = Port{}
)

// Probe implements etcd.Port.
func (p Port) Probe(ctx context.Context, e etcd.Endpoint) (cluster.Probe, error) {
	if err := p.handshake(e); err != nil {
		return cluster.Probe{}, &etcd.TLSError{Err: err}
	}
	return p.Etcd.Probe(ctx, e)
}

// Membership implements etcd.Port.
func (p Port) Membership(ctx context.Context, e etcd.Endpoint) (cluster.Membership, error) {
	if err := p.handshake(e); err != nil {
		return cluster.Membership{}, &etcd.TLSError{Err: err}
	}
	return p.Etcd.Membership(ctx, e)
}

// AddLearner implements etcd.Changer.
func (p Port) AddLearner(ctx context.Context, target etcd.Target, peerURL string) (cluster.ID, []cluster.EtcdMember, error) {
	if err := p.handshake(target.Endpoint); err != nil {
		return 0, nil, &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.AddLearner(ctx, target, peerURL)
}

// Promote implements etcd.Changer.
func (p Port) Promote(ctx context.Context, target etcd.Target, learner cluster.ID) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.Promote(ctx, target, learner)
}

// RemoveMember implements etcd.Changer.
func (p Port) RemoveMember(ctx context.Context, target etcd.Target, id cluster.ID) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.RemoveMember(ctx, target, id)
}

// Defragment implements etcd.Changer.
func (p Port) Defragment(ctx context.Context, target etcd.Target) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.Defragment(ctx, target)
}

// AppendEntry implements etcd.Changer.
func (p Port) AppendEntry(ctx context.Context, target etcd.Target) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.AppendEntry(ctx, target)
}

// MoveLeader implements etcd.Changer.
func (p Port) MoveLeader(ctx context.Context, target etcd.Target, to cluster.ID) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.MoveLeader(ctx, target, to)
}

// ValidateDowngrade implements etcd.Changer.
func (p Port) ValidateDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.ValidateDowngrade(ctx, target, minor)
}

// EnableDowngrade implements etcd.Changer.
func (p Port) EnableDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.EnableDowngrade(ctx, target, minor)
}

// CancelDowngrade implements etcd.Changer.
func (p Port) CancelDowngrade(ctx context.Context, target etcd.Target) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.CancelDowngrade(ctx, target)
}

// Disarm implements etcd.Changer.
func (p Port) Disarm(ctx context.Context, target etcd.Target, alarm cluster.Alarm) error {
	if err := p.handshake(target.Endpoint); err != nil {
		return &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.Disarm(ctx, target, alarm)
}

// Hash implements etcd.Hasher.
func (p Port) Hash(ctx context.Context, target etcd.Target, revision int64) (cluster.DataHash, error) {
	if err := p.handshake(target.Endpoint); err != nil {
		return cluster.DataHash{}, &etcd.TLSError{Err: err}
	}
	return fake.Changer{World: p.Etcd}.Hash(ctx, target, revision)
}

// handshake sets up TLS with the member at the endpoint, where one runs there and wants it.
func (p Port) handshake(e etcd.Endpoint) error {
	for _, pod := range all[*corev1.Pod](p.Server) {
		process := p.processes[pod.UID]
		if process == nil || process.address != e.Address || !process.running {
			continue
		}
		name := secretOf(pod, cluster.ClientTraffic)
		switch {
		case name == "" && e.Credentials == nil:
			return nil
		case name == "" || e.Credentials == nil:
			return errors.New("one speaks TLS and the other does not")
		}
		member := Party{pod.Name, pod, process.mounted[name][pki.TLSKeys.Certificate], process.authorities[cluster.ClientTraffic]}
		operator := Party{"the operator", nil, e.Credentials.Certificate, e.Credentials.Authorities}
		for _, pair := range [][2]Party{{member, operator}, {operator, member}} {
			if !p.Accepts(pair[0], pair[1]) || !p.Valid(pair[1]) {
				return fmt.Errorf("%s does not accept the certificate of %s", pair[0].Name, pair[1].Name)
			}
		}
		return nil
	}
	return nil
}
