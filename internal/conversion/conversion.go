// Package conversion converts EtcdClusters between v1alpha1 and v1beta1, the hub.
//
// What the other version cannot say travels in annotations, one for each field, and what its reader changed is told by a three-way merge: docs/adr/0004-conversion.md.
package conversion

import (
	"maps"
	"reflect"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

const (
	// HubPrefix begins the annotations of an EtcdCluster that is read as v1alpha1 which hold what only v1beta1 can say: one for each
	// field that is lost, with its path behind the prefix and its value in JSON.
	HubPrefix = "v1beta1.operator.etcd-warden.io/"
	// SpokePrefix begins those of an EtcdCluster of v1beta1 which hold what its v1alpha1 writer said and v1beta1 does not.
	SpokePrefix = "v1alpha1.operator.etcd-warden.io/"
)

// ToHub sets hub to what spoke means in v1beta1, its TypeMeta apart. The two share memory afterwards.
// It cannot fail: a list with one object that cannot be read could not be read at all. An annotation that it cannot read, or that
// v1beta1's schema would refuse, counts as absent and stays.
func ToHub(spoke *v1alpha1.EtcdCluster, hub *v1beta1.EtcdCluster) {
	taken := readSpoke(spoke, hub)
	saved := lost(spoke, hub, down)
	hub.Annotations = annotate(spoke.Annotations, HubPrefix, taken, SpokePrefix, saved)
	dropStrays(hub.Annotations, SpokePrefix, saved, func() leaves { return readHub(hub, &v1alpha1.EtcdCluster{}) })
}

// FromHub sets spoke to what hub means in v1alpha1, its TypeMeta apart, as ToHub does the other way.
func FromHub(hub *v1beta1.EtcdCluster, spoke *v1alpha1.EtcdCluster) {
	taken := readHub(hub, spoke)
	saved := lost(hub, spoke, up)
	spoke.Annotations = annotate(hub.Annotations, SpokePrefix, taken, HubPrefix, saved)
	dropStrays(spoke.Annotations, HubPrefix, saved, func() leaves { return readSpoke(spoke, &v1beta1.EtcdCluster{}) })
}

// readSpoke converts with what the annotations bring back, and returns what it took of them: all that can be read and that v1beta1's schema lets in.
func readSpoke(spoke *v1alpha1.EtcdCluster, hub *v1beta1.EtcdCluster) leaves {
	taken := leavesOf(spoke.Annotations, HubPrefix)
	for {
		up(spoke, hub)
		if len(taken) == 0 {
			return taken
		}
		taken = restore(taken, spoke, hub, up, down)
		if !taken.drop(check(&hub.Spec)) {
			return taken
		}
	}
}

// readHub converts with what the annotations bring back, and returns what it took of them: all that can be read.
func readHub(hub *v1beta1.EtcdCluster, spoke *v1alpha1.EtcdCluster) leaves {
	down(hub, spoke)
	saved := leavesOf(hub.Annotations, SpokePrefix)
	if len(saved) == 0 {
		return saved
	}
	return restore(saved, hub, spoke, down, up)
}

// restore sets to, which is from converted by there, to the object that the leaves were saved of, except what the reader of from changed since:
// what saved reads as now, and read as then, is told by converting it there and back. It returns the leaves that it could read.
func restore[From, To any](saved leaves, from *From, to *To, there func(*From, *To), back func(*To, *From)) leaves {
	var then, before To
	var seen From
	there(from, &then)
	taken := saved.overlay(reflect.ValueOf(&then).Elem())
	if hub, ok := any(&then).(*v1beta1.EtcdCluster); ok && hub.Spec.Config != nil {
		withoutTyped(hub.Spec.Config, hub.Spec.Config)
	}
	back(&then, &seen)
	there(&seen, &before)
	mergeFields(reflect.ValueOf(&before).Elem(), reflect.ValueOf(to).Elem(), reflect.ValueOf(&then).Elem())
	return taken
}

// lost returns what from says and to does not.
func lost[From, To any](from *From, to *To, back func(*To, *From)) leaves {
	var again From
	back(to, &again)
	if hub, ok := any(from).(*v1beta1.EtcdCluster); ok && hub.Spec.Config != nil {
		if config := any(&again).(*v1beta1.EtcdCluster).Spec.Config; config != nil {
			withoutTyped(config, hub.Spec.Config)
		}
	}
	var all leaves
	all.difference(make([]string, 0, deepest), reflect.ValueOf(from).Elem(), reflect.ValueOf(&again).Elem())
	return all
}

// annotate returns the annotations without the leaves that were taken of them, and with those that were saved.
func annotate(annotations map[string]string, prefix string, taken leaves, savedPrefix string, saved leaves) map[string]string {
	if len(taken)+len(saved) == 0 && len(leavesOf(annotations, savedPrefix)) == 0 {
		return annotations
	}
	annotations = maps.Clone(annotations)
	for path := range taken {
		delete(annotations, prefix+path)
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	for path, value := range saved {
		annotations[savedPrefix+path] = value
	}
	return annotations
}

// dropStrays removes the annotations that were not saved by this conversion and that the conversion back would mistake for its own.
// What it cannot read stays, unless what was saved could not be read beside it.
func dropStrays(annotations map[string]string, prefix string, saved leaves, read func() leaves) {
	all := leavesOf(annotations, prefix)
	if len(all) == len(saved) {
		return
	}
	taken := read()
	disturbed := false
	for path := range saved {
		_, ok := taken[path]
		disturbed = disturbed || !ok
	}
	for path := range all {
		_, ours := saved[path]
		if _, read := taken[path]; !ours && (read || disturbed) {
			delete(annotations, prefix+path)
		}
	}
}
