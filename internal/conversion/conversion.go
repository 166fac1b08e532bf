// Package conversion converts EtcdClusters between v1alpha1 and v1beta1, which is the hub and the stored version.
//
// Each version has fields that the other version lacks. Such a field is lost when an object is converted, so conversion
// saves it in an annotation. On the way back a three-way merge finds out what the client changed in between.
// docs/adr/0004-conversion.md explains the decisions.
//
//	conversion.go     ToHub and FromHub: one object
//	field_mapping.go  which field of one version is which field of the other
//	annotations.go    saves lost fields in annotations, and reads them back
//	merge.go          merges saved fields with the changes of the client
//	struct_fields.go  the structs whose fields are saved and merged one by one
//	schema_check.go   refuses annotations that the schema of v1beta1 would refuse
//	quantity_check.go refuses quantities that take hours to decode
//	handler.go        the HTTP handler of the conversion webhook: many objects
//	limits.go         limits what one request may cost
//	json_scan.go      finds values in JSON without decoding them
package conversion

import (
	"maps"
	"reflect"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

const (
	// HubPrefix is the prefix of annotations on an EtcdCluster in v1alpha1. They save the fields that only v1beta1 has:
	// one annotation for each field, with the path of the field after the prefix and its JSON as the value.
	HubPrefix = "v1beta1.operator.etcd-warden.io/"
	// SpokePrefix is the prefix of annotations on an EtcdCluster in v1beta1. They save the fields that only v1alpha1 has.
	SpokePrefix = "v1alpha1.operator.etcd-warden.io/"
)

// ToHub converts spoke into hub, except the TypeMeta. The two share memory afterwards.
//
// It cannot fail, because one object that cannot be converted makes the list of all objects fail. An annotation that it
// cannot read, or that the schema of v1beta1 would refuse, has no effect and stays on the object.
func ToHub(spoke *v1alpha1.EtcdCluster, hub *v1beta1.EtcdCluster) {
	used := readSpoke(spoke, hub)
	lost := findLost(spoke, hub, fromHub)
	hub.Annotations = replaceAnnotations(spoke.Annotations, HubPrefix, used, SpokePrefix, lost)
	removeForeign(hub.Annotations, SpokePrefix, lost, func() lostFields { return readHub(hub, &v1alpha1.EtcdCluster{}) })
}

// FromHub converts hub into spoke, except the TypeMeta. It keeps the promises of ToHub.
func FromHub(hub *v1beta1.EtcdCluster, spoke *v1alpha1.EtcdCluster) {
	used := readHub(hub, spoke)
	lost := findLost(hub, spoke, toHub)
	spoke.Annotations = replaceAnnotations(hub.Annotations, SpokePrefix, used, HubPrefix, lost)
	removeForeign(spoke.Annotations, HubPrefix, lost, func() lostFields { return readSpoke(spoke, &v1beta1.EtcdCluster{}) })
}

// readSpoke converts spoke into hub and restores the saved fields. It returns the saved fields that it used:
// those that it can read and that the schema of v1beta1 accepts.
func readSpoke(spoke *v1alpha1.EtcdCluster, hub *v1beta1.EtcdCluster) lostFields {
	used := savedFields(spoke.Annotations, HubPrefix)
	for {
		toHub(spoke, hub)
		if len(used) == 0 {
			return used
		}
		used = restore(used, spoke, hub, toHub, fromHub)
		if !used.removeInvalid(invalidPaths(&hub.Spec)) {
			return used
		}
	}
}

// readHub converts hub into spoke and restores the saved fields. It returns the saved fields that it could read.
func readHub(hub *v1beta1.EtcdCluster, spoke *v1alpha1.EtcdCluster) lostFields {
	fromHub(hub, spoke)
	saved := savedFields(hub.Annotations, SpokePrefix)
	if len(saved) == 0 {
		return saved
	}
	return restore(saved, hub, spoke, fromHub, toHub)
}

// restore writes the saved fields into to, which is from after convert, unless the client has changed them.
// It returns the saved fields that it could read. Three objects tell what the client changed:
//
//	to     what the client sent, converted
//	saved  what the client sent, converted, with the saved fields: the object as it was if the client changed nothing
//	base   saved after convertBack and convert: what to would be if the client had changed nothing
func restore[From, To any](fields lostFields, from *From, to *To, convert func(*From, *To), convertBack func(*To, *From)) lostFields {
	var saved, base To
	var view From
	convert(from, &saved)
	used := fields.writeInto(reflect.ValueOf(&saved).Elem())
	if hub, ok := any(&saved).(*v1beta1.EtcdCluster); ok && hub.Spec.Config != nil {
		removeTypedOptions(hub.Spec.Config, hub.Spec.Config)
	}
	convertBack(&saved, &view)
	convert(&view, &base)
	mergeFields(reflect.ValueOf(&base).Elem(), reflect.ValueOf(to).Elem(), reflect.ValueOf(&saved).Elem())
	return used
}

// findLost returns the fields of from that are lost in to.
func findLost[From, To any](from *From, to *To, convertBack func(*To, *From)) lostFields {
	var again From
	convertBack(to, &again)
	if hub, ok := any(from).(*v1beta1.EtcdCluster); ok && hub.Spec.Config != nil {
		if config := any(&again).(*v1beta1.EtcdCluster).Spec.Config; config != nil {
			removeTypedOptions(config, hub.Spec.Config)
		}
	}
	var lost lostFields
	lost.addDifferences(make([]string, 0, typicalDepth), reflect.ValueOf(from).Elem(), reflect.ValueOf(&again).Elem())
	return lost
}

// replaceAnnotations returns the annotations without the saved fields that were used, and with those that are lost now.
func replaceAnnotations(annotations map[string]string, usedPrefix string, used lostFields, lostPrefix string, lost lostFields) map[string]string {
	if len(used)+len(lost) == 0 && len(savedFields(annotations, lostPrefix)) == 0 {
		return annotations
	}
	annotations = maps.Clone(annotations)
	for path := range used {
		delete(annotations, usedPrefix+path)
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	for path, value := range lost {
		annotations[lostPrefix+path] = value
	}
	return annotations
}

// removeForeign removes annotations that this conversion did not write, but that the conversion back would use.
// Annotations that cannot be read stay, unless they make an annotation of this conversion unreadable.
func removeForeign(annotations map[string]string, prefix string, lost lostFields, readBack func() lostFields) {
	all := savedFields(annotations, prefix)
	if len(all) == len(lost) {
		return
	}
	used := readBack()
	conflict := false
	for path := range lost {
		_, ok := used[path]
		conflict = conflict || !ok
	}
	for path := range all {
		_, ours := lost[path]
		if _, read := used[path]; !ours && (read || conflict) {
			delete(annotations, prefix+path)
		}
	}
}
