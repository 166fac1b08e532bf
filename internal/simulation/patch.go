package simulation

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func (s *Server) patch(k *kind, object client.Object, kind types.PatchType, data []byte) error {
	key := client.ObjectKeyFromObject(object)
	live := k.live(key)
	if live == nil {
		return apierrors.NewNotFound(k.resource, key.Name)
	}
	var changes map[string]any
	if err := json.Unmarshal(data, &changes); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	metadata, _ := changes["metadata"].(map[string]any)
	if version, ok := metadata["resourceVersion"].(string); ok && version != live.GetResourceVersion() {
		return s.conflict(k, key.Name, "the object has been modified; please apply your changes to the latest version and try again")
	}
	if uid, ok := metadata["uid"].(string); ok && uid != string(live.GetUID()) {
		return immutableUID(k, key.Name, types.UID(uid))
	}
	patched, err := patchedObject(live, kind, changes)
	if err != nil {
		return err
	}
	s.store(k, patched, live, allButStatus)
	assign(object, patched)
	return nil
}

func patchedObject(live client.Object, kind types.PatchType, changes map[string]any) (client.Object, error) {
	if annotations, ok := annotationsOnly(changes); ok && kind == types.MergePatchType {
		patched := live.DeepCopyObject().(client.Object)
		all := patched.GetAnnotations()
		if all == nil {
			all = map[string]string{}
		}
		for name, value := range annotations {
			if text, ok := value.(string); ok {
				all[name] = text
			} else {
				delete(all, name)
			}
		}
		patched.SetAnnotations(all)
		return patched, nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return nil, err
	}
	if kind == types.StrategicMergePatchType {
		content, err = strategicpatch.StrategicMergeMapPatch(content, changes, live)
	} else {
		content = merge(content, changes, true)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return fromContent(live, content)
}

func fromContent(live client.Object, content map[string]any) (client.Object, error) {
	if _, dynamic := live.(*unstructured.Unstructured); dynamic {
		return &unstructured.Unstructured{Object: content}, nil
	}
	object := reflect.New(reflect.TypeOf(live).Elem()).Interface().(client.Object)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, object); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return object, nil
}

// annotationsOnly returns the annotations of a patch that changes nothing else.
func annotationsOnly(changes map[string]any) (map[string]any, bool) {
	metadata, _ := changes["metadata"].(map[string]any)
	annotations, ok := metadata["annotations"].(map[string]any)
	for name := range metadata {
		ok = ok && (name == "annotations" || name == "uid" || name == "resourceVersion")
	}
	return annotations, ok && len(changes) == 1
}

// merge puts the changes into the content. A null removes a field, where nulls says so; a list replaces a list.
func merge(content, changes map[string]any, nulls bool) map[string]any {
	if content == nil {
		content = map[string]any{}
	}
	for name, value := range changes {
		nested, isMap := value.(map[string]any)
		switch {
		case value == nil && nulls:
			delete(content, name)
		case isMap:
			have, _ := content[name].(map[string]any)
			content[name] = merge(have, nested, nulls)
		default:
			content[name] = value
		}
	}
	return content
}

func (s *Server) apply(k *kind, empty client.Object, wanted *unstructured.Unstructured) error {
	key := client.ObjectKeyFromObject(wanted)
	live := k.live(key)
	uid := wanted.GetUID()
	if live == nil && uid != "" {
		return s.conflict(k, key.Name, fmt.Sprintf("uid mismatch: the provided object specified uid %s, and no existing object was found", uid))
	}
	if live == nil {
		object, err := fromContent(empty, wanted.Object)
		if err != nil {
			return err
		}
		return s.create(object, false)
	}
	if uid != "" && uid != live.GetUID() {
		return s.conflict(k, key.Name, fmt.Sprintf("Precondition failed: UID in precondition: %s, UID in object meta: %s", uid, live.GetUID()))
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return err
	}
	owners := live.GetOwnerReferences()
	patched, err := fromContent(live, merge(content, wanted.Object, false))
	if err != nil {
		return err
	}
	patched.SetOwnerReferences(mergedOwners(owners, patched.GetOwnerReferences()))
	s.store(k, patched, live, allButStatus)
	return nil
}

// mergedOwners is a list with the UID as its key.
func mergedOwners(have, applied []metav1.OwnerReference) []metav1.OwnerReference {
	merged := slices.Clone(have)
	for _, owner := range applied {
		i := slices.IndexFunc(merged, func(o metav1.OwnerReference) bool { return o.UID == owner.UID })
		if i < 0 {
			merged = append(merged, owner)
		} else {
			merged[i] = owner
		}
	}
	return merged
}
