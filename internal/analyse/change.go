package analyse

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// notYetSupported is the rule of one change that a user may ask for. It speaks when its own change was asked for, and
// then tells every change. This release carries out none of them. A rotation in progress goes first.
// What the operator would refuse for a new cluster as well comes before that.
func notYetSupported(asked func(*cluster.Snapshot) string) func(*cluster.Snapshot) *plan.Decision {
	return func(s *cluster.Snapshot) *plan.Decision {
		if asked(s) == "" || len(membersToRestart(s, v1beta1.ReasonRotatingAuthorities)) > 0 {
			return nil
		}
		return refused(append(intentRefusals(cluster.IntentOf(s.Cluster)), plan.Refusal{
			Guard:  "changeSupported",
			Reason: v1beta1.ReasonNotYetSupported,
			Message: fmt.Sprintf("The running cluster stays as it is, because this release does not carry out changes to it: %s. "+
				"Set the spec back, or wait for a later release.", strings.Join(unsupportedChanges(s), "; ")),
		}))
	}
}

// unsupportedChanges tells in what the spec differs from what runs, and this release does not change.
func unsupportedChanges(s *cluster.Snapshot) []string {
	var changes []string
	for _, change := range []func(*cluster.Snapshot) string{tlsChange, storageChange} {
		if text := change(s); text != "" {
			changes = append(changes, text)
		}
	}
	return changes
}

func versionChange(s *cluster.Snapshot) string {
	want := s.Cluster.Spec.Version
	for _, m := range s.Members {
		if m.Workload != nil && m.Workload.Intent.Version != want {
			return fmt.Sprintf("spec.version is %s and %s runs %s", want, m.Name, m.Workload.Intent.Version)
		}
	}
	return ""
}

func joinPaths(paths []string) string { return strings.Join(paths, ", ") }

func storageChange(s *cluster.Snapshot) string {
	spec := &s.Cluster.Spec
	size, class, modes := cluster.VolumeSize(spec), cluster.VolumeStorageClass(spec), cluster.VolumeAccessModes(spec)
	for _, m := range s.Members {
		v := m.Volume
		switch {
		case v == nil:
		case v.InMemory != cluster.IsInMemory(spec):
			return fmt.Sprintf("spec.storage.ephemeral cannot be added or removed, and %s was made without that change", m.Name)
		case v.RequestedBytes != size.Value():
			return storageDiffers(v, size.String(), resource.NewQuantity(v.RequestedBytes, resource.BinarySI))
		// A spec that names no class takes the default class, which may be another one by now.
		case v.InMemory:
		case class != "" && v.StorageClass != class:
			return storageDiffers(v, "the StorageClass "+class, v.StorageClass)
		case !slices.Equal(v.AccessModes, modes):
			return storageDiffers(v, fmt.Sprintf("the access modes %v", modes), v.AccessModes)
		}
	}
	return ""
}

func storageDiffers(v *cluster.Volume, want string, have any) string {
	if v.InMemory {
		return fmt.Sprintf("spec.storage.ephemeral.sizeLimit is %s and %s has %v", want, v.Member, have)
	}
	return fmt.Sprintf("spec.storage asks for volumes of %s and PersistentVolumeClaim %s asks for %v", want, v.Name, have)
}
