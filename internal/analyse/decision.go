// Package analyse is the decision core: pure functions from a Snapshot to a Decision.
package analyse

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Decision is what one pass will do, and why.
type Decision struct {
	// Rule is the name of the rule that spoke; empty when all is as it should be.
	Rule string
	// Reason is the reason of the Progressing condition, Message its text.
	Reason, Message string
	// Progressing tells whether the cluster is on its way to its spec.
	Progressing bool
	// Refusals are the guards that refused a step, by name.
	Refusals []Refusal
	// Action is the one step that may disturb members, nil for none. It is claimed before it is carried out.
	Action Action
	// Upkeep are harmless writes, in order; they disturb no member. One that fails does not keep the others from being done, but for those that rest on it.
	Upkeep []Upkeep
	// Finished tells that the claimed operation is done and its claim is cleared.
	Finished bool
	// RequeueAfter is when etcd, which nobody watches for us, is to be asked again.
	RequeueAfter time.Duration
	// InvalidatesSecrets tells that the upkeep changes what is known of the cluster's Secrets, which nobody watches either.
	InvalidatesSecrets bool
}

// Refusal is a guard that refused, or an act that found at the last moment that it must not be done.
type Refusal struct {
	// Guard is the guard's name.
	Guard string
	// Reason is a condition reason, Message what is, why, and what to do.
	Reason, Message string
}

func (r *Refusal) Error() string { return r.Message }

// Refusals tells the refusals in the error of a pass from all else that went wrong in it, nil for nothing.
func Refusals(err error) (refusals []Refusal, rest error) {
	if err == nil {
		return nil, nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var others []error
		for _, e := range joined.Unwrap() {
			more, other := Refusals(e)
			refusals, others = append(refusals, more...), append(others, other)
		}
		return refusals, errors.Join(others...)
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return []Refusal{*refusal}, nil
	}
	return nil, err
}

// Action is a step that may disturb members. At most one is in flight in a cluster.
//
//sumtype:decl
type Action interface {
	action()
	// Operation is the type under which the action is claimed.
	Operation() v1beta1.OperationType
	// On is the member that the action works on; empty where it works on all.
	On() string
}

// FoundCluster makes the founding members' volumes, then all their StatefulSets at once.
type FoundCluster struct {
	Token   string
	Intent  cluster.Intent
	Members []Founder
}

// Founder is a founding member: Volume and Workload tell what is still missing of it.
type Founder struct {
	Name                     string
	MakeVolume, MakeWorkload bool
}

// TakeBackVolumes marks kept volumes as this cluster's. It comes before their members are started.
type TakeBackVolumes struct {
	Volumes []cluster.Volume
}

// ResumeMembers makes the StatefulSets of members whose volumes were seen started. An empty volume then fails closed.
type ResumeMembers struct {
	Intent  cluster.Intent
	Members []string
	// Why is the operation that stands, OperationResume where there is none.
	Why v1beta1.OperationType
}

// RollMember deletes a member's pod, which its StatefulSet then makes anew from its present template.
type RollMember struct {
	Member string
	// Pod is the pod to delete.
	Pod string
	UID types.UID
}

func (FoundCluster) action()    {}
func (TakeBackVolumes) action() {}
func (ResumeMembers) action()   {}
func (RollMember) action()      {}

// On implements Action.
func (FoundCluster) On() string { return "" }

// On implements Action.
func (TakeBackVolumes) On() string { return "" }

// On implements Action.
func (ResumeMembers) On() string { return "" }

// On implements Action.
func (a RollMember) On() string { return a.Member }

// Operation implements Action.
func (RollMember) Operation() v1beta1.OperationType { return v1beta1.OperationRollMember }

// Operation implements Action.
func (FoundCluster) Operation() v1beta1.OperationType { return v1beta1.OperationBootstrap }

// Operation implements Action.
func (TakeBackVolumes) Operation() v1beta1.OperationType { return v1beta1.OperationTakeBack }

// Operation implements Action.
func (a ResumeMembers) Operation() v1beta1.OperationType { return a.Why }

// Upkeep is a write that disturbs no member.
//
//sumtype:decl
type Upkeep interface{ upkeep() }

// EnsureClientService creates or corrects the Service that clients use.
type EnsureClientService struct{}

// EnsurePeerService creates or corrects the headless Service of the members.
type EnsurePeerService struct{}

// EnsureBudget creates or corrects the PodDisruptionBudget.
type EnsureBudget struct{ MinAvailable int }

// RemoveBudget deletes the PodDisruptionBudget of a cluster that has one member.
type RemoveBudget struct{ UID types.UID }

// RecordMember writes to the member's volume what etcd answered: from then on the member counts as started.
type RecordMember struct {
	Member, Volume      string
	ResourceVersion     string
	ClusterID, MemberID cluster.ID
	Version             string
}

// CorrectWorkload brings a member's StatefulSet to what its stored intent renders to, with the authorities that are to be trusted; its pod runs on.
// For a member that was recorded as started this is the template that fails closed.
type CorrectWorkload struct {
	Member  string
	Intent  cluster.Intent
	Started bool
}

// SealPod makes the next container start of a founding pod fail closed on an empty volume, without a restart.
type SealPod struct {
	Member, Pod string
	UID         types.UID
	Intent      cluster.Intent
}

// TellPod corrects which authorities a pod says that it is started with, before it is started.
type TellPod struct {
	Member, Pod     string
	UID             types.UID
	ResourceVersion string
	// Have is what the pod says, Want what it will.
	Have, Want cluster.Intent
}

// AuthorityStep is a step in the life of a managed authority.
type AuthorityStep string

// The steps of an authority.
const (
	// MakeAuthority makes an authority where there is none, or none that can be used.
	MakeAuthority AuthorityStep = "Make"
	// AnnounceAuthority has members and clients trust an authority that is there, and that they do not know: its Secret came from elsewhere.
	AnnounceAuthority AuthorityStep = "Announce"
	// RotateAuthority makes a new authority beside the old one, which goes on issuing.
	RotateAuthority AuthorityStep = "Rotate"
	// MarkAuthority notes that every Secret has followed the authority into its phase: the time that clients get begins.
	MarkAuthority AuthorityStep = "Mark"
	// IssueFromAuthority has the new authority issue, and forgets the old one's key.
	IssueFromAuthority AuthorityStep = "Issue"
	// ForgetAuthority ends the trust in the old authority.
	ForgetAuthority AuthorityStep = "Forget"
)

// WriteAuthority takes a step with the authority of a kind of traffic.
type WriteAuthority struct {
	Traffic cluster.Traffic
	Step    AuthorityStep
	// Known is the Secret as it was found: the step is not taken where somebody wrote it since.
	Known cluster.ObjectVersion
	// Phase and Rotation are what the Secret says afterwards.
	Phase    cluster.Phase
	Rotation string
	// Followed tells that every Secret has followed into the phase.
	Followed bool
}

// WriteCertificate writes a managed certificate's Secret with the authority's bundle.
type WriteCertificate struct {
	Traffic cluster.Traffic
	Role    cluster.Role
	Known   cluster.ObjectVersion
	Intent  cluster.Intent
	// Renew issues the certificate anew; without it only the bundle is written.
	Renew bool
	// Issuer is the fingerprint of the authority that issues; empty where the authority is made in the same pass.
	Issuer string
}

// EnsureCertManagerCertificate creates or corrects cert-manager's Certificate of a role.
type EnsureCertManagerCertificate struct {
	Role   cluster.Role
	Issuer v1beta1.IssuerRef
	Domain string
	Live   *unstructured.Unstructured
}

// SetRetention makes a volume go with its cluster, or stay: what the user's retention policy says in words.
type SetRetention struct {
	Member, Volume  string
	ResourceVersion string
	Delete          bool
}

// Provides names what later upkeep rests on; empty where none does. Where the item fails, that upkeep is left out: a template does not fail closed
// before its volume remembers the member, and no certificate is issued by an authority that could not be written.
func Provides(u Upkeep) string {
	switch u := u.(type) {
	case RecordMember:
		return "record of " + u.Member
	case WriteAuthority:
		return fmt.Sprintf("%s authority", u.Traffic)
	case CorrectWorkload, EnsureBudget, EnsureClientService, EnsurePeerService, EnsureCertManagerCertificate, RemoveBudget, SealPod, SetRetention, TellPod, WriteCertificate:
	}
	return ""
}

// Requires names what the item rests on; empty for nothing.
func Requires(u Upkeep) string {
	switch u := u.(type) {
	case CorrectWorkload:
		return "record of " + u.Member
	case SealPod:
		return "record of " + u.Member
	case WriteCertificate:
		return fmt.Sprintf("%s authority", u.Traffic)
	case EnsureBudget, EnsureClientService, EnsurePeerService, EnsureCertManagerCertificate, RecordMember, RemoveBudget, SetRetention, TellPod, WriteAuthority:
	}
	return ""
}

func (EnsureClientService) upkeep() {}
func (EnsurePeerService) upkeep()   {}
func (EnsureBudget) upkeep()        {}
func (RemoveBudget) upkeep()        {}
func (RecordMember) upkeep()        {}
func (CorrectWorkload) upkeep()     {}
func (SealPod) upkeep()             {}
func (TellPod) upkeep()             {}
func (SetRetention) upkeep()        {}
func (WriteAuthority) upkeep()      {}
func (WriteCertificate) upkeep()    {}
func (EnsureCertManagerCertificate) upkeep()       {}
