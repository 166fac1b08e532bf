// Package conversion converts EtcdClusters between v1alpha1 and v1beta1, the hub.
//
// What the other version cannot say travels in an annotation, and what its reader changed is told by a three-way merge: docs/adr/0004-conversion.md.
package conversion

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/api/v1beta1"
)

const (
	// HubAnnotation on an EtcdCluster that is read as v1alpha1 holds what only v1beta1 can say, as JSON.
	HubAnnotation = "operator.etcd-steward.io/v1beta1"
	// SpokeAnnotation on an EtcdCluster of v1beta1 holds what its v1alpha1 writer said and v1beta1 does not, as JSON.
	SpokeAnnotation = "operator.etcd-steward.io/v1alpha1"
)

// ToHub sets hub to what spoke means in v1beta1, its TypeMeta apart. The two share memory afterwards.
// It fails where the annotation with what v1alpha1 cannot say was tampered with.
func ToHub(spoke *v1alpha1.EtcdCluster, hub *v1beta1.EtcdCluster) error {
	up(spoke, hub)
	if saved, ok := spoke.Annotations[HubAnnotation]; ok {
		err := restore(saved, spoke, hub, up, down)
		if err == nil {
			err = check(&hub.Spec)
		}
		if err != nil {
			return refuse(saved, err)
		}
	}
	hub.Annotations = annotate(spoke.Annotations, SpokeAnnotation, lost(spoke, hub, down))
	return nil
}

// FromHub sets spoke to what hub means in v1alpha1, its TypeMeta apart. The two share memory afterwards.
// It cannot fail: a list with one object that cannot be read could not be read at all.
func FromHub(hub *v1beta1.EtcdCluster, spoke *v1alpha1.EtcdCluster) {
	down(hub, spoke)
	if saved, ok := hub.Annotations[SpokeAnnotation]; ok {
		if err := restore(saved, hub, spoke, down, up); err != nil {
			down(hub, spoke)
		}
	}
	spoke.Annotations = annotate(hub.Annotations, HubAnnotation, lost(hub, spoke, up))
}

func refuse(saved string, err error) error {
	const shown = 64
	if len(saved) > shown {
		saved = saved[:shown] + "…"
	}
	return field.Invalid(field.NewPath("metadata", "annotations").Key(HubAnnotation), saved, fmt.Sprintf(
		"%v; the annotation holds what v1alpha1 cannot say: leave it as it was read, or remove it to have a cluster of what v1alpha1 says alone", err))
}

// restore sets to, which is from converted by there, to the object that the annotation was saved of,
// except what the reader of from changed since: what saved reads as now, and read as then, is told by converting it there and back.
func restore[From, To any](saved string, from *From, to *To, there func(*From, *To), back func(*To, *From)) error {
	var then, before To
	var seen From
	there(from, &then)
	raw := bytes.TrimSpace([]byte(saved))
	if !json.Valid(raw) {
		return errors.New("it is no JSON")
	}
	if err := overlay(reflect.ValueOf(&then).Elem(), raw, ""); err != nil {
		return err
	}
	back(&then, &seen)
	there(&seen, &before)
	mergeFields(reflect.ValueOf(&before).Elem(), reflect.ValueOf(to).Elem(), reflect.ValueOf(&then).Elem())
	return nil
}

// lost returns what from says and to does not, as JSON; empty where that is nothing.
func lost[From, To any](from *From, to *To, back func(*To, *From)) string {
	var again From
	back(to, &again)
	tree, differ := difference(reflect.ValueOf(from).Elem(), reflect.ValueOf(&again).Elem())
	if !differ {
		return ""
	}
	raw, err := json.Marshal(tree)
	if err != nil {
		panic(fmt.Sprintf("encoding the fields of an EtcdCluster: %v", err)) // they were decoded from JSON
	}
	return string(raw)
}

// annotate returns the annotations without those of this package, but with the value, if there is one, under the key.
func annotate(annotations map[string]string, key, value string) map[string]string {
	_, hub := annotations[HubAnnotation]
	_, spoke := annotations[SpokeAnnotation]
	if !hub && !spoke && value == "" {
		return annotations
	}
	annotations = maps.Clone(annotations)
	delete(annotations, HubAnnotation)
	delete(annotations, SpokeAnnotation)
	if value == "" {
		return annotations
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	return annotations
}
