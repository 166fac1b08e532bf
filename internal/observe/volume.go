package observe

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// observeVolumes reads the PersistentVolumes of members that started and have none recorded, and of every claim that
// is bound to another volume than the recorded one. A cluster at rest has neither.
func (o *Observer) observeVolumes(ctx context.Context, s *cluster.Snapshot) error {
	if !o.SeesClusterScope {
		return nil
	}
	var unknown []*cluster.Volume
	for i := range s.Members {
		if m := &s.Members[i]; m.Volume != nil && !m.Volume.InMemory && (isUnrecorded(m) || isReplaced(m.Volume)) {
			unknown = append(unknown, m.Volume)
		}
	}
	for i := range s.RetainedVolumes {
		if v := &s.RetainedVolumes[i]; isReplaced(v) {
			unknown = append(unknown, v)
		}
	}
	for _, v := range unknown[:min(len(unknown), cluster.MaxMembers)] {
		if err := o.identify(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// isUnrecorded reports whether a member started on a PersistentVolume whose UID is not recorded.
func isUnrecorded(m *cluster.Member) bool {
	return m.Volume.Remembered.UID == "" && (m.Volume.Started() || m.Answers() || m.Pod != nil && m.Pod.PassesReadiness)
}

// isReplaced reports whether a claim or its PersistentVolume is another one than recorded.
// The data may still be the same: see cluster.SameVolume.
func isReplaced(v *cluster.Volume) bool {
	return v.Remembered.UID != "" && v.Remembered.String() != v.Identity.String()
}

// identify adds the UID and the source of the PersistentVolume to the identity of a volume.
func (o *Observer) identify(ctx context.Context, v *cluster.Volume) error {
	if v.Identity.Name == "" || v.Phase != corev1.ClaimBound {
		return nil
	}
	volume, err := o.readVolume(ctx, v.Identity.Name)
	if err != nil || volume == nil {
		return err
	}
	v.Identity.UID, v.Identity.Source = volume.UID, sourceOf(volume)
	return nil
}

// readVolume asks the API server for a PersistentVolume. It is nil where there is none, and where it may not be read.
func (o *Observer) readVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	var volume corev1.PersistentVolume
	err := o.Live.Get(ctx, client.ObjectKey{Name: name}, &volume)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading PersistentVolume %s: %w", name, err)
	}
	return &volume, nil
}

// sourceOf returns where the data of a volume lies, as VolumeIdentity.Source has it.
func sourceOf(volume *corev1.PersistentVolume) string {
	switch source := volume.Spec.PersistentVolumeSource; {
	case source.CSI != nil:
		return cluster.ForeignText("csi://" + source.CSI.Driver + "/" + source.CSI.VolumeHandle)
	case source.Local != nil:
		return cluster.ForeignText("local://" + nodesOf(volume) + "/" + strings.TrimPrefix(source.Local.Path, "/"))
	case source.HostPath != nil:
		return cluster.ForeignText("local://" + nodesOf(volume) + "/" + strings.TrimPrefix(source.HostPath.Path, "/"))
	default:
		return ""
	}
}

// nodesOf returns the nodes on which a volume can be used, as its node affinity names them.
func nodesOf(volume *corev1.PersistentVolume) string {
	var nodes []string
	if affinity := volume.Spec.NodeAffinity; affinity != nil && affinity.Required != nil {
		for _, term := range affinity.Required.NodeSelectorTerms {
			for _, expression := range slices.Concat(term.MatchExpressions, term.MatchFields) {
				nodes = append(nodes, expression.Values...)
			}
		}
	}
	return strings.Join(nodes, ",")
}
