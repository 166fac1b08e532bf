package observe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-steward/etcd-steward/api/v1beta1"
	"github.com/etcd-steward/etcd-steward/internal/cluster"
	"github.com/etcd-steward/etcd-steward/internal/etcd"
	"github.com/etcd-steward/etcd-steward/internal/pki"
)

// Secrets are neither listed nor watched. They are read when the spec changes, after a TLS failure, when two thirds of a
// certificate's life are over, and again and again only while one of them is missing or of no use.
const (
	rereadWhileWrong = 5 * time.Second
	rereadWhenDue    = time.Hour
)

// secretCache remembers what was found in the Secrets of each cluster.
type secretCache struct {
	mu      sync.Mutex
	entries map[types.NamespacedName]*secretEntry
}

type secretEntry struct {
	uid         types.UID
	generation  int64
	validUntil  time.Time
	problems    []cluster.Problem
	credentials *etcd.Credentials
}

// forget drops what is known of a cluster that is gone.
func (c *secretCache) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}

// distrust has a cluster's Secrets read again soon: TLS with a member failed.
func (c *secretCache) distrust(key types.NamespacedName, now time.Time) {
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
	if entry == nil || entry.uid != s.Cluster.UID || entry.generation != s.Cluster.Generation || s.Now.After(entry.validUntil) {
		return nil
	}
	return entry
}

func (c *secretCache) put(key types.NamespacedName, entry *secretEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[types.NamespacedName]*secretEntry{}
	}
	c.entries[key] = entry
}

// observeSecrets checks the Secrets that the spec names and returns the operator's credentials, nil where there are none or they are of no use.
func (o *Observer) observeSecrets(ctx context.Context, s *cluster.Snapshot) (*etcd.Credentials, error) {
	intent := intentForSecrets(s)
	if intent.PeerSecret == "" && intent.ServerSecret == "" {
		return nil, nil
	}
	entry := o.secrets.get(s)
	if entry == nil {
		var err error
		if entry, err = o.readSecrets(ctx, s, intent); err != nil {
			return nil, err
		}
		o.secrets.put(s.Cluster.Key(), entry)
	}
	s.Problems = append(s.Problems, entry.problems...)
	return entry.credentials, nil
}

// intentForSecrets is the intent that the members run with, and the spec's where there are none yet: a change of the members'
// Secrets is not carried out, and must not cost the sight of them. The operator's own Secret is the spec's where it names one.
func intentForSecrets(s *cluster.Snapshot) cluster.Intent {
	wanted := cluster.IntentOf(&s.Cluster.Spec)
	for _, m := range s.Members {
		if m.Workload == nil {
			continue
		}
		running := m.Workload.Intent
		if wanted.OperatorSecret != "" && running.ServerSecret != "" {
			running.OperatorSecret = wanted.OperatorSecret
		}
		return running
	}
	return wanted
}

func (o *Observer) readSecrets(ctx context.Context, s *cluster.Snapshot, intent cluster.Intent) (*secretEntry, error) {
	entry := &secretEntry{uid: s.Cluster.UID, generation: s.Cluster.Generation, validUntil: s.Now.AddDate(100, 0, 0)}
	reader := secretReader{observer: o, snapshot: s, entry: entry}
	hosts := memberHosts(s, intent.ClusterDomain)
	if _, err := reader.read(ctx, intent.PeerSecret, pki.PeerKeys, pki.Peer, hosts); err != nil {
		return nil, err
	}
	clientHost := fmt.Sprintf("%s.%s.svc", cluster.ClientServiceName(s.Cluster.Name), s.Cluster.Namespace)
	server, err := reader.read(ctx, intent.ServerSecret, pki.ServerKeys, pki.Server, append(hosts, clientHost))
	if err != nil {
		return nil, err
	}
	operator, err := reader.read(ctx, intent.OperatorSecret, pki.OperatorKeys, pki.Client, nil)
	if err != nil {
		return nil, err
	}
	if operator != nil {
		entry.credentials = &etcd.Credentials{Certificate: operator.Certificate, Key: operator.Key, Authorities: operator.Authorities}
	}
	if server != nil && operator != nil {
		if err := pki.CheckTrust(*server, *operator, s.Now); err != nil {
			reader.problem(v1beta1.ReasonCertificateInvalid, fmt.Sprintf("Secrets %s and %s do not fit each other: %v.", intent.ServerSecret, intent.OperatorSecret, err))
		}
	}
	if len(entry.problems) > 0 {
		entry.validUntil = s.Now.Add(rereadWhileWrong)
	}
	return entry, nil
}

// secretReader reads Secrets into one entry.
type secretReader struct {
	observer *Observer
	snapshot *cluster.Snapshot
	entry    *secretEntry
}

func (r *secretReader) problem(reason, message string) {
	r.entry.problems = append(r.entry.problems, cluster.Problem{Reason: reason, Message: message})
}

// read returns what a Secret holds, nil where it is not named, not there, or of no use: the entry's problems tell which.
func (r *secretReader) read(ctx context.Context, name string, keys pki.Keys, use pki.Use, hosts []string) (*pki.Material, error) {
	if name == "" {
		return nil, nil
	}
	var secret corev1.Secret
	err := r.observer.Live.Get(ctx, client.ObjectKey{Namespace: r.snapshot.Cluster.Namespace, Name: name}, &secret)
	if apierrors.IsNotFound(err) {
		r.problem(v1beta1.ReasonSecretNotFound, fmt.Sprintf("Secret %s does not exist in namespace %s. Create it with the keys %s, %s and %s.",
			name, r.snapshot.Cluster.Namespace, keys.Certificate, keys.Key, keys.Authorities))
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	material, err := keys.Material(secret.Data)
	if err == nil {
		var report pki.Report
		report, err = pki.Check(material, use, hosts, r.snapshot.Now)
		r.readAgainWhenDue(report.RenewalDue)
	}
	var problems pki.Problems
	if errors.As(err, &problems) {
		r.problem(v1beta1.ReasonCertificateInvalid, fmt.Sprintf("Secret %s cannot be used: %v.", name, problems))
		return nil, nil
	}
	return &material, err
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
		names = append(names, m.Name)
	}
	for _, v := range s.Kept {
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
