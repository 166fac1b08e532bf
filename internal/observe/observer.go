// Package observe reads Kubernetes and etcd once and returns a Snapshot. It writes nothing.
package observe

import (
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/comparison"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// Observer takes snapshots.
type Observer struct {
	// Reader serves from the manager's caches.
	Reader client.Reader
	// Live asks the API server: for Secrets, StorageClasses, PersistentVolumes, Nodes and Events, which are never watched.
	Live client.Reader
	Etcd etcd.Port
	Now  func() time.Time
	// SeesClusterScope tells whether the operator may read StorageClasses, PersistentVolumes and Nodes.
	SeesClusterScope bool
	// AuthorityOverlap is how long members and clients get to take up a change of the trusted authorities.
	AuthorityOverlap time.Duration
	// Comparisons are those of the members' data.
	Comparisons *comparison.Store
	// OperatorImage is the operator's own image, empty where it does not run in a pod.
	OperatorImage string

	secrets secretCache
	podless sync.Map // podlessSets by cluster
	// leaderless is since when each cluster has no leader.
	leaderless sync.Map
	classes    classMemory
	nodes      nodeMemory
}

// IndexCluster is the index of the caches that finds the volumes, StatefulSets and pods of one cluster.
const IndexCluster = "cluster"

// ClusterName returns the value of an object in IndexCluster: the name of its cluster.
func ClusterName(object client.Object) []string {
	return []string{object.GetLabels()[cluster.LabelCluster]}
}

// Observe takes a snapshot of one cluster; it returns nil where the cluster does not exist.
func (o *Observer) Observe(ctx context.Context, key client.ObjectKey) (*cluster.Snapshot, error) {
	var c v1beta1.EtcdCluster
	if err := o.Reader.Get(ctx, key, &c); err != nil {
		if apierrors.IsNotFound(err) {
			o.secrets.forget(key)
			o.podless.Delete(key)
			o.leaderless.Delete(key)
			o.Comparisons.Forget(key)
			return nil, nil
		}
		return nil, fmt.Errorf("reading EtcdCluster: %w", err)
	}
	s := &cluster.Snapshot{Now: o.Now(), Cluster: &c, AuthorityOverlap: o.AuthorityOverlap, OperatorImage: o.OperatorImage}
	if err := o.observeObjects(ctx, s); err != nil {
		return nil, err
	}
	if !c.DeletionTimestamp.IsZero() {
		return s, nil // neither Secrets nor etcd matter any more
	}
	o.observePodless(ctx, s)
	s.JustCreated = o.isJustCreated(s)
	credentials, err := o.observeSecrets(ctx, s)
	if err != nil {
		return nil, err
	}
	s.Now = o.Now() // a phase of an authority begins now, and not before the Secrets were read that reached it
	if err := o.observeStorageClass(ctx, s); err != nil {
		return nil, err
	}
	o.observeEtcd(ctx, s, credentials)
	o.observeElection(s)
	s.Comparison = o.Comparisons.Of(key)
	if err := o.observeZones(ctx, s); err != nil {
		return nil, err
	}
	if err := o.observeNodes(ctx, s); err != nil {
		return nil, err
	}
	return s, o.observeVolumes(ctx, s)
}

// isJustCreated reports whether the cluster has neither a status nor an object, and this is the first look at it.
func (o *Observer) isJustCreated(s *cluster.Snapshot) bool {
	return s.Cluster.Status.ObservedGeneration == 0 && len(s.Members) == 0 && len(s.RetainedVolumes) == 0 &&
		len(s.ForeignObjects) == 0 && s.PeerService == nil && s.ClientService == nil && s.Budget == nil &&
		!o.secrets.knows(s.Cluster)
}

// observeObjects reads the cluster's volumes, StatefulSets, pods, Services and PodDisruptionBudget.
func (o *Observer) observeObjects(ctx context.Context, s *cluster.Snapshot) error {
	var (
		volumes   corev1.PersistentVolumeClaimList
		records   corev1.ConfigMapList
		workloads appsv1.StatefulSetList
		pods      corev1.PodList
	)
	mine := []client.ListOption{
		client.InNamespace(s.Cluster.Namespace), client.MatchingFields{IndexCluster: s.Cluster.Name},
		client.UnsafeDisableDeepCopy, // nobody changes what a snapshot holds
	}
	for what, list := range map[string]client.ObjectList{
		"PersistentVolumeClaims": &volumes, "ConfigMaps": &records, "StatefulSets": &workloads, "Pods": &pods,
	} {
		if err := o.Reader.List(ctx, list, mine...); err != nil {
			return fmt.Errorf("listing %s: %w", what, err)
		}
	}
	a := newAssembly(s)
	for i := range volumes.Items {
		a.addVolume(&volumes.Items[i])
	}
	for i := range records.Items {
		a.addRecord(&records.Items[i])
	}
	for i := range workloads.Items {
		a.addWorkload(&workloads.Items[i])
	}
	for i := range pods.Items {
		a.addPod(&pods.Items[i])
	}
	a.finish()
	return o.observeShared(ctx, s)
}

// observeShared reads the objects that the cluster has one of.
func (o *Observer) observeShared(ctx context.Context, s *cluster.Snapshot) error {
	var peers, clients corev1.Service
	var budget policyv1.PodDisruptionBudget
	var check corev1.Pod
	for _, want := range []struct {
		kind, name string
		object     client.Object
		take       func()
	}{
		{"Service", cluster.PeerServiceName(s.Cluster.Name), &peers, func() { s.PeerService = &peers }},
		{"Service", cluster.ClientServiceName(s.Cluster.Name), &clients, func() { s.ClientService = &clients }},
		{"PodDisruptionBudget", s.Cluster.Name, &budget, func() { s.Budget = &budget }},
		{"Pod", cluster.ImageCheckPodName(s.Cluster.Name), &check, func() { s.ImageCheck = imageCheckOf(&check) }},
	} {
		err := o.Reader.Get(ctx, client.ObjectKey{Namespace: s.Cluster.Namespace, Name: want.name}, want.object)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("reading %s %s: %w", want.kind, want.name, err)
		case cluster.Owns(s.Cluster, want.object):
			want.take()
		default:
			s.ForeignObjects = append(s.ForeignObjects, cluster.ForeignObjectOf(s.Cluster, want.kind, want.object))
		}
	}
	return nil
}
