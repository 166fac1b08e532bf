package plan

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Upkeep is a write that disturbs no member.
//
//sumtype:decl
type Upkeep interface {
	upkeep()
	// Writes names the object that is written; empty where none is. A foreign object of this name is left alone.
	Writes() ObjectName
	// Uses names the other objects that the write needs. It is not made while one of them is foreign.
	Uses() []ObjectName
	// Recreates is the Secret that the write creates; empty where it is there, or is none.
	Recreates() string
	// Requires names the write of the same pass that must succeed first; empty for none.
	Requires() string
	// Provides is the name by which other upkeep requires this write; empty where none does.
	Provides() string
}

// ObjectName is the kind and name of an object in the cluster's namespace.
type ObjectName struct{ Kind, Name string }

// Object is a Kubernetes object.
type Object interface {
	metav1.Object
	runtime.Object
}

// independent is embedded by all upkeep. By itself a write needs nothing, and no other write requires it.
type independent struct{}

func (independent) upkeep()            {}
func (independent) Uses() []ObjectName { return nil }
func (independent) Recreates() string  { return "" }
func (independent) Requires() string   { return "" }
func (independent) Provides() string   { return "" }

// Apply creates an object. If it exists, it is brought to what the operator renders today.
type Apply struct {
	independent
	// Desired has its kind set.
	Desired Object
	// Live is nil where there is no object yet.
	Live Object
}

// Writes implements Upkeep.
func (a Apply) Writes() ObjectName { return nameOf(a.Desired) }

// Uses implements Upkeep: cert-manager writes the Secret of the Certificate's name.
func (a Apply) Uses() []ObjectName {
	if name := nameOf(a.Desired); name.Kind == "Certificate" {
		return []ObjectName{{"Secret", name.Name}}
	}
	return nil
}

// Delete deletes an object, if it still has the UID that was read, and the resourceVersion where the object has one.
type Delete struct {
	independent
	// Object has its kind set.
	Object Object
}

// Writes implements Upkeep.
func (d Delete) Writes() ObjectName { return nameOf(d.Object) }

func nameOf(o Object) ObjectName {
	return ObjectName{Kind: o.GetObjectKind().GroupVersionKind().Kind, Name: o.GetName()}
}

// RecordMember writes what is known of a member to its volume.
// A template must not refuse an empty volume before the volume says that its member has started.
type RecordMember struct {
	independent
	Member, Volume, ResourceVersion string
	// InMemory tells that the volume is a ConfigMap.
	InMemory bool
	// Annotations without a value are removed.
	Annotations map[string]string
}

// Writes implements Upkeep.
func (r RecordMember) Writes() ObjectName {
	if r.InMemory {
		return ObjectName{"ConfigMap", r.Volume}
	}
	return volumeName(r.Volume)
}

// Provides implements Upkeep.
func (r RecordMember) Provides() string { return recordOf(r.Member) }

func volumeName(name string) ObjectName { return ObjectName{"PersistentVolumeClaim", name} }

func recordOf(member string) string { return "record of " + member }

// SetRetention makes a volume go with its cluster, or stay, as the user's retention policy says.
type SetRetention struct {
	independent
	Volume, ResourceVersion string
	// DeletedWithCluster makes the cluster an owner of the volume.
	DeletedWithCluster bool
}

// Writes implements Upkeep.
func (r SetRetention) Writes() ObjectName { return volumeName(r.Volume) }

// UpdateStatefulSet replaces the template of a member's StatefulSet. A pod that runs does so further on: 0 replicas are
// written only for a member whose pod does not run, and must not start.
type UpdateStatefulSet struct {
	independent
	Desired, Live *appsv1.StatefulSet
}

// Writes implements Upkeep.
func (u UpdateStatefulSet) Writes() ObjectName { return nameOf(u.Desired) }

// Requires implements Upkeep.
func (u UpdateStatefulSet) Requires() string { return recordOf(u.Desired.Name) }

// AnnotatePod changes annotations of a pod: its next container start reads them.
type AnnotatePod struct {
	independent
	Member, Pod string
	UID         types.UID
	Annotations map[string]string
	// Resized tells that the pod got the resources of its template without a restart.
	Resized bool
}

// Writes implements Upkeep.
func (a AnnotatePod) Writes() ObjectName { return ObjectName{"Pod", a.Pod} }

// Requires implements Upkeep.
func (a AnnotatePod) Requires() string { return recordOf(a.Member) }

// AdmitPod lets Kubernetes start a pod whose data are in memory. The member's record names this pod.
type AdmitPod struct {
	independent
	Member, Pod string
	UID         types.UID
}

// Writes implements Upkeep.
func (a AdmitPod) Writes() ObjectName { return ObjectName{"Pod", a.Pod} }

// ResizePod changes the resources of etcd's container without a restart. Where the API server refuses that, the pod is
// marked, so that it is not tried again.
type ResizePod struct {
	independent
	Member, Pod string
	UID         types.UID
	Resources   corev1.ResourceRequirements
	// Target is the TargetHash of the intent that asks for the resources, AskedAt when that was first tried.
	Target  string
	AskedAt time.Time
}

// Writes implements Upkeep.
func (r ResizePod) Writes() ObjectName { return ObjectName{"Pod", r.Pod} }

// AppendEntry has the leader append an entry that changes nothing, for a learner that hangs at its start. See
// etcd.Changer.
type AppendEntry struct {
	independent
	Learner, Leader string
}

// Writes implements Upkeep: the write goes to etcd.
func (AppendEntry) Writes() ObjectName { return ObjectName{} }

// Uses implements Upkeep: the entry is for the member of this StatefulSet.
func (a AppendEntry) Uses() []ObjectName { return []ObjectName{{"StatefulSet", a.Learner}} }

// DisarmAlarms ends alarms in etcd that a comparison of all members' data has answered.
type DisarmAlarms struct {
	independent
	// Leader is the member that the change is sent to.
	Leader string
	Alarms []cluster.Alarm
}

// Writes implements Upkeep: the write goes to etcd.
func (DisarmAlarms) Writes() ObjectName { return ObjectName{} }

// RemoveAnnotation removes an annotation of the EtcdCluster that the operator has obeyed.
type RemoveAnnotation struct {
	independent
	Cluster, Key, ResourceVersion string
}

// Writes implements Upkeep.
func (r RemoveAnnotation) Writes() ObjectName {
	return ObjectName{v1beta1.EtcdClusterKind, r.Cluster}
}

// NotePeers writes what the operator must not forget as annotations of the Service of the peers. A note without a value
// is removed.
type NotePeers struct {
	independent
	Service string
	Notes   map[string]string
}

// Writes implements Upkeep.
func (n NotePeers) Writes() ObjectName { return ObjectName{"Service", n.Service} }

// AuthorityStep is a step in the life of a managed authority.
type AuthorityStep string

// The steps of an authority.
const (
	// MakeAuthority makes an authority where there is none, or none that can be used.
	MakeAuthority AuthorityStep = "Make"
	// AnnounceAuthority distributes an authority whose Secret came from elsewhere. The members do not trust it yet.
	AnnounceAuthority AuthorityStep = "Announce"
	// RotateAuthority makes a new authority beside the old one, which still issues.
	RotateAuthority AuthorityStep = "Rotate"
	// MarkAuthority records when every Secret had reached the phase: the time that clients have begins.
	MarkAuthority AuthorityStep = "Mark"
	// IssueFromAuthority makes the new authority issue, and deletes the old one's key.
	IssueFromAuthority AuthorityStep = "Issue"
	// ForgetAuthority ends the trust in the old authority.
	ForgetAuthority AuthorityStep = "Forget"
)

// WriteAuthority takes a step with the authority of a kind of traffic.
type WriteAuthority struct {
	independent
	Traffic cluster.Traffic
	Step    AuthorityStep
	// Known is the Secret as it was read. If another client wrote it since, the step is not taken.
	Known cluster.ObjectVersion
	// Phase and RotationRequest are what the Secret says afterwards.
	Phase           cluster.Phase
	RotationRequest string
	// PhaseReached tells that every Secret has reached the phase.
	PhaseReached bool
}

// Writes implements Upkeep.
func (w WriteAuthority) Writes() ObjectName { return ObjectName{"Secret", w.Known.Name} }

// Recreates implements Upkeep.
func (w WriteAuthority) Recreates() string { return missing(w.Known) }

func missing(known cluster.ObjectVersion) string {
	if known.Exists() {
		return ""
	}
	return known.Name
}

// Provides implements Upkeep.
func (w WriteAuthority) Provides() string { return authorityOf(w.Traffic) }

func authorityOf(t cluster.Traffic) string { return string(t) + " authority" }

// WriteCertificate writes a managed certificate's Secret with the authority's bundle.
type WriteCertificate struct {
	independent
	Traffic cluster.Traffic
	Role    cluster.Role
	Known   cluster.ObjectVersion
	// Authority is the name of the authority's Secret.
	Authority string
	// Domain is the domain of the Kubernetes cluster that the certificate fits.
	Domain string
	// Renew issues the certificate again. Without it only the bundle is written.
	Renew bool
	// Issuer is the fingerprint of the authority that issues; empty where the authority is made in the same pass.
	Issuer string
}

// Writes implements Upkeep.
func (w WriteCertificate) Writes() ObjectName { return ObjectName{"Secret", w.Known.Name} }

// Uses implements Upkeep.
func (w WriteCertificate) Uses() []ObjectName { return []ObjectName{{"Secret", w.Authority}} }

// Recreates implements Upkeep.
func (w WriteCertificate) Recreates() string { return missing(w.Known) }

// Requires implements Upkeep.
func (w WriteCertificate) Requires() string { return authorityOf(w.Traffic) }
