package render

import (
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Values of etcd's initial-cluster-state.
const (
	stateNew      = "new"
	stateExisting = "existing"
)

// Start is what etcd does on an empty volume. On a volume with data, etcd ignores it.
// The zero value is the form Existing: etcd exits. Every member that has started has it.
type Start struct{ state, initialCluster, token string }

// Founding is the form of the members of a new cluster: on an empty volume, etcd starts the cluster with the others.
func Founding(c *v1beta1.EtcdCluster, founders []string, token string, i cluster.Intent) Start {
	return Start{state: stateNew, initialCluster: InitialCluster(c, founders, i), token: token}
}

// Joining is the form of a member that was registered later: on an empty volume, etcd copies the data of the others.
// initialCluster is etcd's list at that time, as cluster.Volume.JoinedCluster has it.
func Joining(initialCluster string) Start {
	return Start{state: stateExisting, initialCluster: initialCluster}
}

// joins reports whether the member asks the others for their data when its volume is empty.
func (s Start) joins() bool {
	return s.state == stateExisting && strings.Contains(s.initialCluster, ",")
}

// Annotations are those that the container reads: the kubelet resolves them at each start of the container. So the
// operator can switch a running pod to the form Existing without a restart (docs/adr/0002).
func (s Start) Annotations() map[string]string {
	if s.state == "" {
		return nil
	}
	return map[string]string{
		cluster.AnnotationInitialCluster:      s.initialCluster,
		cluster.AnnotationInitialClusterState: s.state,
	}
}

// ExistingFormAnnotations returns the annotations that switch a running pod to the form Existing.
// From then on etcd exits when its container restarts on an emptied volume.
func ExistingFormAnnotations(in MemberInput) map[string]string { return existing(in).Annotations() }

// existing is the form Existing written out: the member itself, and no other that could be asked.
func existing(in MemberInput) Start {
	return Joining(InitialCluster(in.Cluster, []string{in.Name}, in.Intent))
}

// StartsEmpty reports whether etcd starts on an empty volume in a pod, or in pods of a template, with these
// annotations.
func StartsEmpty(annotations map[string]string) bool {
	state, list := annotations[cluster.AnnotationInitialClusterState], annotations[cluster.AnnotationInitialCluster]
	return state == stateNew || Start{state: state, initialCluster: list}.joins()
}
