// Package act carries out decisions. Every act is idempotent: after a crash anywhere in it, this operator or another
// one does it again.
package act

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// fieldOwner is the field manager of everything the operator writes.
const fieldOwner = client.FieldOwner("etcd-warden")

// Actor writes to Kubernetes.
type Actor struct {
	Client client.Client
	// Live asks the API server itself: about an object of a taken name, which no cache of ours holds.
	Live client.Reader
	// Etcd changes the membership and the leader. Endpoints tells where the members are.
	Etcd      etcd.Changer
	Endpoints Endpoints
	// Prober asks members for their status.
	Prober Prober
	// FollowTime is how long a learner gets to apply an entry before it is promoted: see FollowTime, the constant. Zero
	// has it asked once.
	FollowTime time.Duration
	// Comparisons asks members for the hashes of their data beside the passes.
	Comparisons Comparisons
	// Lifetimes of what the operator issues.
	Lifetimes Lifetimes

	defragmentations longCalls
}

// Claim writes the pass's status with the decision's operation, on condition that the cluster was not written since it
// was read. Without this write, no act. An operation under way is written again, unchanged: the write fails where the
// decision was made from an older cluster. The snapshot then has the cluster as it was written.
func (a *Actor) Claim(
	ctx context.Context, s *cluster.Snapshot, claim *v1beta1.Operation, status *v1beta1.EtcdClusterStatus,
) error {
	claimed := s.Cluster.DeepCopy()
	claimed.Status = *status.DeepCopy()
	claimed.Status.Operation = claim
	if err := a.Client.Status().Update(ctx, claimed, fieldOwner); err != nil {
		return fmt.Errorf("claiming the operation %s: %w", claim.Type, err)
	}
	s.Cluster = claimed
	return nil
}

// Act carries out an action that was claimed.
func (a *Actor) Act(ctx context.Context, s *cluster.Snapshot, action plan.Action) error {
	log.FromContext(ctx).Info("Acting", "operation", action.Operation(), "member", action.Member())
	switch action := action.(type) {
	case plan.CreateFounders:
		return a.createFounders(ctx, s, action)
	case plan.TakeBackVolumes:
		return a.takeBackVolumes(ctx, s, action)
	case plan.StartMembers:
		return a.createStatefulSets(ctx, s, action.StatefulSets)
	case plan.RestartMember:
		return a.restartMember(ctx, s, action)
	case plan.AddMember:
		return a.addMember(ctx, s, action)
	case plan.StartLearner:
		return a.startLearner(ctx, s, action)
	case plan.PromoteMember:
		return a.promoteMember(ctx, s, action)
	case plan.RemoveMember:
		return a.removeMember(ctx, s, action)
	case plan.ChangeDowngrade:
		return a.changeDowngrade(ctx, s, action)
	case plan.HashMember:
		return a.hashMember(ctx, s, action)
	case plan.Defragment:
		return a.defragment(ctx, s, action)
	case plan.MoveLeader:
		return a.moveLeader(ctx, s, action)
	}
	return fmt.Errorf("acting: no executor for %T", action)
}

// create makes an object that must not exist. One that is there and is ours already is as good;
// anybody else's is refused and stays as it is.
func (a *Actor) create(ctx context.Context, s *cluster.Snapshot, object client.Object, ours func(client.Object) bool) error {
	kind, err := a.kindOf(object)
	if err != nil {
		return err
	}
	name := object.GetName()
	err = a.Client.Create(ctx, object, fieldOwner)
	switch {
	case err == nil:
		log.FromContext(ctx).Info("Created", "kind", kind, "object", name)
		return nil
	case kindOrNamespaceMissing(err):
		return refusedWrite(kind, name, err)
	case !apierrors.IsAlreadyExists(err):
		return writeError("creating", kind, name, err)
	}
	live := object.DeepCopyObject().(client.Object)
	if err := a.Live.Get(ctx, client.ObjectKeyFromObject(object), live); err != nil {
		return fmt.Errorf("reading %s %s, which exists: %w", kind, name, err)
	}
	if ours(live) {
		return sameDecision(kind, object, live)
	}
	foreign := cluster.ForeignObjectOf(s.Cluster, kind, live)
	if foreign.Terminating {
		return fmt.Errorf("creating %s %s: that of the deleted cluster is still going away", kind, name)
	}
	return plan.RefuseForeignObject(foreign)
}

// dryRunCreate asks the API server to validate an object. AlreadyExists is not an error here: create handles it.
func (a *Actor) dryRunCreate(ctx context.Context, object client.Object) error {
	kind, err := a.kindOf(object)
	if err != nil {
		return err
	}
	err = a.Client.Create(ctx, object, fieldOwner, client.DryRunAll)
	switch {
	case err == nil, apierrors.IsAlreadyExists(err), apierrors.IsBadRequest(err):
		// A webhook that does not support dry runs answers with BadRequest.
		return nil
	case kindOrNamespaceMissing(err):
		return refusedWrite(kind, object.GetName(), err)
	default:
		return writeError("rehearsing", kind, object.GetName(), err)
	}
}

// apply brings an object that this cluster owns to what the operator makes today. The UID makes the API server
// refuse where the object was replaced by another of the same name.
func (a *Actor) apply(ctx context.Context, desired, live client.Object) error {
	kind, err := a.kindOf(desired)
	if err != nil {
		return err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(desired)
	if err != nil {
		return fmt.Errorf("converting %s %s: %w", kind, desired.GetName(), err)
	}
	object := &unstructured.Unstructured{Object: content}
	gvk, err := apiutil.GVKForObject(desired, a.Client.Scheme())
	if err != nil {
		return fmt.Errorf("applying %s: %w", desired.GetName(), err)
	}
	object.SetGroupVersionKind(gvk)
	object.SetUID(live.GetUID())
	unstructured.RemoveNestedField(object.Object, "status")
	unstructured.RemoveNestedField(object.Object, "metadata", "creationTimestamp")
	log.FromContext(ctx).Info("Applying", "kind", kind, "object", desired.GetName())
	if err := a.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), fieldOwner, client.ForceOwnership); kindOrNamespaceMissing(err) {
		return refusedWrite(kind, desired.GetName(), err)
	} else if err != nil {
		return writeError("applying", kind, desired.GetName(), err)
	}
	return nil
}

// writeError is the error of a write. If the API server will not accept it until a user changes something, it is a
// refusal, which users see.
func writeError(doing, kind, name string, err error) error {
	switch {
	case replaced(err):
		return conflict(kind, name, "it was replaced since it was read")
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err):
		return refusedWrite(kind, name, err)
	default:
		return fmt.Errorf("%s %s %s: %w", doing, kind, name, err)
	}
}

func refusedWrite(kind, name string, err error) error {
	return &plan.Refusal{
		Guard: "writeAccepted", Reason: v1beta1.ReasonWriteRefused,
		Message: fmt.Sprintf("The API server refuses %s %s: %v. Correct the spec, the object itself, the quota or the policy that it names.", kind, name, err),
	}
}

// kindOrNamespaceMissing reports whether the API server does not know the object's kind, or its namespace is gone. To
// try again does not help.
func kindOrNamespaceMissing(err error) bool {
	return apierrors.IsNotFound(err) || meta.IsNoMatchError(err)
}

// replaced reports whether a write was refused because its object has another UID. The API server calls that an
// invalid change of the UID.
func replaced(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

// foundingAnnotations are the annotations that record the decision under which an object was made.
var foundingAnnotations = []string{cluster.AnnotationClusterToken, cluster.AnnotationFoundingMembers, cluster.AnnotationPeerURL, cluster.AnnotationIntent}

// sameDecision fails with a conflict if another operator created the object from another decision. That operator was
// first, so its decision stands.
func sameDecision(kind string, desired, live client.Object) error {
	for _, key := range foundingAnnotations {
		want, says := desired.GetAnnotations()[key]
		if have := live.GetAnnotations()[key]; says && have != want {
			return conflict(kind, live.GetName(), fmt.Sprintf("its annotation %s is %q, and not %q", key, have, want))
		}
	}
	return nil
}

func (a *Actor) kindOf(object client.Object) (string, error) {
	gvk, err := apiutil.GVKForObject(object, a.Client.Scheme())
	if err != nil {
		return "", fmt.Errorf("naming the kind of %s: %w", object.GetName(), err)
	}
	return gvk.Kind, nil
}

func ownedBy(s *cluster.Snapshot) func(client.Object) bool {
	return func(object client.Object) bool { return cluster.Owns(s.Cluster, object) }
}
