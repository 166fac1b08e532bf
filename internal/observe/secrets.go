package observe

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/pki"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// Secrets are neither listed nor watched. They are read again:
//   - after the operator wrote one, and after a user changed the EtcdCluster: its spec, a label or an annotation;
//   - after a TLS failure, and every 5 s while one is missing or cannot be used;
//   - hourly once two thirds of a certificate's life are over;
//   - hourly where the operator acts on what is in them, and every minute while a pod is not ready: it may lack one.
const (
	rereadWhileWrong = 5 * time.Second
	rereadWhenDue    = time.Hour
	rereadAtRest     = time.Hour
	rereadWhileDown  = time.Minute
)

// secretCache remembers what was found in the Secrets of each cluster.
type secretCache struct {
	mu      sync.Mutex
	entries map[types.NamespacedName]*secretEntry
}

type secretEntry struct {
	uid         types.UID
	generation  int64
	metadata    string // the hash of the EtcdCluster's labels and annotations
	validUntil  time.Time
	readAt      time.Time
	foreign     []cluster.ForeignObject
	peer        cluster.Trust
	client      cluster.Trust
	credentials *etcd.Credentials
	// written are Secrets that the operator wrote since. The next pass takes them as they are, and they are forgotten.
	written map[string]*corev1.Secret
}

// forget drops what is known of a cluster that is gone.
func (c *secretCache) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}

// knows reports whether the Secrets of a cluster were looked at, or written, before.
func (c *secretCache) knows(of *v1beta1.EtcdCluster) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.entries[of.Key()]
	return entry != nil && entry.uid == of.UID
}

// SecretsWritten makes the next pass look at a cluster's Secrets again. It reads only those that the operator did not
// write.
func (o *Observer) SecretsWritten(of *v1beta1.EtcdCluster, written map[string]*corev1.Secret) {
	o.secrets.put(of.Key(), &secretEntry{uid: of.UID, written: written})
}

// invalidate makes a cluster's Secrets be read again soon: TLS with a member failed.
func (c *secretCache) invalidate(key types.NamespacedName, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.entries[key]; entry != nil {
		entry.validUntil = minTime(entry.validUntil, now.Add(rereadWhileWrong))
	}
}

func (c *secretCache) get(s *cluster.Snapshot) *secretEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.entries[s.Cluster.Key()]
	switch {
	case entry == nil, entry.uid != s.Cluster.UID, s.Now.After(entry.validUntil):
		return nil
	case entry.generation != s.Cluster.Generation, entry.metadata != s.Cluster.Annotations[cluster.AnnotationMetadataHash]:
		return nil
	}
	if entry.followed() && s.Now.After(entry.readAt.Add(rereadWhileDown)) && somePodDown(s) {
		return nil
	}
	return entry
}

// followed reports whether the operator acts on what is in the Secrets.
func (e *secretEntry) followed() bool {
	return e.peer.Source.FollowsAuthorities() || e.client.Source.FollowsAuthorities()
}

func somePodDown(s *cluster.Snapshot) bool {
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Pod != nil && !m.Pod.Ready })
}

// takeWritten returns the Secrets that the operator wrote since they were last looked at, once.
func (c *secretCache) takeWritten(of *v1beta1.EtcdCluster) map[string]*corev1.Secret {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.entries[of.Key()]
	if entry == nil || entry.uid != of.UID {
		return nil
	}
	written := entry.written
	entry.written = nil
	return written
}

// Validities returns those of a cluster's certificates, as the last pass over the cluster knew them.
func (o *Observer) Validities(key types.NamespacedName) []cluster.Validity {
	o.secrets.mu.Lock()
	defer o.secrets.mu.Unlock()
	entry := o.secrets.entries[key]
	if entry == nil {
		return nil
	}
	return append(entry.peer.Validities(), entry.client.Validities()...)
}

// credentialsOf returns the operator's credentials that the last pass over a cluster read; nil for none.
func (c *secretCache) credentialsOf(key types.NamespacedName) *etcd.Credentials {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.entries[key]; entry != nil {
		return entry.credentials
	}
	return nil
}

func (c *secretCache) put(key types.NamespacedName, entry *secretEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[types.NamespacedName]*secretEntry{}
	}
	c.entries[key] = entry
}

// observeSecrets reads the Secrets of a cluster. It returns the operator's credentials, nil if there are none that can
// be used.
func (o *Observer) observeSecrets(ctx context.Context, s *cluster.Snapshot) (*etcd.Credentials, error) {
	intent := intentForSecrets(s)
	if intent.PeerSecret == "" && intent.ServerSecret == "" {
		return nil, nil
	}
	entry := o.secrets.get(s)
	if entry == nil {
		var err error
		if entry, err = o.readSecrets(ctx, s, intent, o.secrets.takeWritten(s.Cluster)); err != nil {
			return nil, err
		}
		o.secrets.put(s.Cluster.Key(), entry)
	}
	s.ForeignObjects = append(s.ForeignObjects, entry.foreign...)
	s.PeerTrust, s.ClientTrust = entry.peer, entry.client
	return entry.credentials, nil
}

// intentForSecrets is the intent that the members run with. Without members it is the spec's. A change of the members'
// Secrets is not carried out, and the operator must still read those in use. The operator's own Secret is the one that
// the spec names.
func intentForSecrets(s *cluster.Snapshot) cluster.Intent {
	wanted := cluster.IntentOf(s.Cluster)
	for _, m := range s.Members {
		if m.Workload == nil {
			continue
		}
		running := m.Workload.Intent
		if wanted.OperatorSecret != "" && running.ServerSecret != "" && wanted.ServerCertificates == running.ServerCertificates {
			running.OperatorSecret = wanted.OperatorSecret
		}
		return running
	}
	return wanted
}

func (o *Observer) readSecrets(
	ctx context.Context, s *cluster.Snapshot, intent cluster.Intent, written map[string]*corev1.Secret,
) (*secretEntry, error) {
	entry := &secretEntry{
		uid: s.Cluster.UID, generation: s.Cluster.Generation, metadata: s.Cluster.Annotations[cluster.AnnotationMetadataHash],
		readAt: s.Now, validUntil: s.Now.AddDate(100, 0, 0),
	}
	r := &secretReader{ctx: ctx, observer: o, snapshot: s, entry: entry, intent: intent, written: written}
	entry.peer.Source, entry.client.Source = intent.PeerCertificates, intent.ServerCertificates
	if err := r.readTraffic(&entry.peer, cluster.PeerTraffic); err != nil {
		return nil, err
	}
	if err := r.readTraffic(&entry.client, cluster.ClientTraffic); err != nil {
		return nil, err
	}
	server, operator := r.materials[cluster.RoleServer], r.materials[cluster.RoleOperator]
	if operator != nil {
		entry.credentials = &etcd.Credentials{Certificate: operator.Certificate, Key: operator.Key, Authorities: operator.Authorities}
	}
	if server != nil && operator != nil {
		if err := pki.CheckTrust(*server, *operator, s.Now); err != nil {
			entry.client.Mismatch, r.incomplete = err.Error(), true
		}
	}
	if r.incomplete {
		entry.validUntil = s.Now.Add(rereadWhileWrong)
	}
	if len(entry.foreign) > 0 {
		entry.validUntil = s.Now // those of a deleted cluster go away at any moment
	}
	return entry, nil
}

// secretReader reads Secrets into one entry.
type secretReader struct {
	ctx      context.Context
	observer *Observer
	snapshot *cluster.Snapshot
	entry    *secretEntry
	intent   cluster.Intent
	// written are the Secrets that the operator just wrote.
	written map[string]*corev1.Secret
	// materials are those that can be used.
	materials map[cluster.Role]*pki.Material
	// incomplete tells that something is missing or cannot be used.
	incomplete bool
}

// readTraffic reads the Secrets of one kind of traffic, wherever they come from.
func (r *secretReader) readTraffic(t *cluster.Trust, traffic cluster.Traffic) error {
	switch t.Source {
	case cluster.SourceManaged:
		return r.readManaged(t, traffic)
	case cluster.SourceCertManager:
		return r.readIssued(t, traffic)
	case cluster.SourceSecret, cluster.SourceEtcdOperator:
		return r.readUsers(t, traffic)
	}
	return nil
}

// readUsers reads the Secrets that the user names.
func (r *secretReader) readUsers(t *cluster.Trust, traffic cluster.Traffic) error {
	if t.Source == cluster.SourceSecret {
		r.readAgainAtRest()
	}
	names := map[cluster.Role]string{
		cluster.RolePeer: r.intent.PeerSecret, cluster.RoleServer: r.intent.ServerSecret, cluster.RoleOperator: r.intent.OperatorSecret,
	}
	for _, role := range traffic.Roles() {
		if names[role] == "" {
			continue
		}
		c := cluster.Certificate{ObjectVersion: cluster.ObjectVersion{Name: names[role]}, Role: role}
		c.InvalidName = len(validation.IsDNS1123Subdomain(c.Name)) > 0 // the name goes into the path of a request
		if !c.InvalidName {
			secret, err := r.get(c.Name)
			if err != nil {
				return err
			}
			if secret != nil {
				c = r.certificate(role, secret, render.SecretKeys(t.Source, role))
				r.readAgainWhenDue(c.RenewalDue)
			}
		}
		r.incomplete = r.incomplete || !c.Usable()
		t.Certificates = append(t.Certificates, c)
	}
	return nil
}

// get reads a Secret, nil where there is none. One that the operator may not read counts as foreign.
func (r *secretReader) get(name string) (*corev1.Secret, error) {
	if secret := r.written[name]; secret != nil {
		return secret, nil
	}
	var secret corev1.Secret
	err := r.observer.Live.Get(r.ctx, client.ObjectKey{Namespace: r.snapshot.Cluster.Namespace, Name: name}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if apierrors.IsForbidden(err) {
		r.addUnreadable("Secret", name, err)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	return &secret, nil
}

// addUnreadable notes that the operator may not read an object.
func (r *secretReader) addUnreadable(kind, name string, err error) {
	r.entry.foreign = append(r.entry.foreign, cluster.ForeignObject{Kind: kind, Name: name, Owner: "cannot be read", Unreadable: err.Error()})
}

// certificate tells what a Secret holds, and keeps its material where it can be used.
func (r *secretReader) certificate(role cluster.Role, secret *corev1.Secret, keys pki.Keys) cluster.Certificate {
	c := cluster.Certificate{ObjectVersion: writtenOf(secret), Role: role, CreatedAt: secret.CreationTimestamp.Time}
	material, err := keys.Material(secret.Data)
	if err == nil {
		var report pki.Report
		use, names := r.requirements(role)
		report, err = pki.Check(material, use, names, r.snapshot.Now)
		c.Issuers, c.Bundle = report.Issuers, report.Authorities
		c.RenewalDue, c.NotBefore, c.NotAfter = report.RenewalDue, report.NotBefore, report.NotAfter
	}
	if err != nil {
		c.Broken = err.Error()
		return c
	}
	if r.materials == nil {
		r.materials = map[cluster.Role]*pki.Material{}
	}
	r.materials[role] = &material
	return c
}

func writtenOf(object client.Object) cluster.ObjectVersion {
	return cluster.ObjectVersion{Name: object.GetName(), UID: object.GetUID(), ResourceVersion: object.GetResourceVersion()}
}

// requirements are the use and the names that a certificate must fit.
func (r *secretReader) requirements(role cluster.Role) (pki.Use, []string) {
	switch hosts := memberHosts(r.snapshot, r.intent.ClusterDomain); role {
	case cluster.RolePeer:
		return pki.Peer, hosts
	case cluster.RoleServer:
		c := r.snapshot.Cluster
		return pki.Server, append(hosts, fmt.Sprintf("%s.%s.svc", cluster.ClientServiceName(c.Name), c.Namespace))
	case cluster.RoleOperator, cluster.RoleClient:
	}
	return pki.Client, nil
}

// readAgainAtRest makes the Secrets be read once an hour.
func (r *secretReader) readAgainAtRest() {
	r.entry.validUntil = minTime(r.entry.validUntil, r.snapshot.Now.Add(rereadAtRest))
}

func (r *secretReader) readAgainWhenDue(due time.Time) {
	if next := r.snapshot.Now.Add(rereadWhenDue); due.Before(next) {
		due = next
	}
	r.entry.validUntil = minTime(r.entry.validUntil, due)
}

// memberHosts are the names that the members' certificates must fit.
func memberHosts(s *cluster.Snapshot, domain string) []string {
	names := make([]string, 0, s.Cluster.Spec.Replicas)
	for _, m := range s.Members {
		if _, isOurs := cluster.MemberNumber(s.Cluster.Name, m.Name); isOurs { // others may be registered, under any name
			names = append(names, m.Name)
		}
	}
	for _, v := range s.RetainedVolumes {
		if len(s.Members) == 0 {
			names = append(names, v.Member)
		}
	}
	for n := range int(s.Cluster.Spec.Replicas) {
		if len(names) < int(s.Cluster.Spec.Replicas) {
			names = append(names, cluster.MemberName(s.Cluster.Name, n))
		}
	}
	hosts := make([]string, len(names))
	for i, name := range names {
		hosts[i] = cluster.MemberHost(s.Cluster.Namespace, s.Cluster.Name, name, domain)
	}
	return hosts
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
