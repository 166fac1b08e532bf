package analyse

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// guard returns a refusal, or nil where the step may be taken.
type guard func(*cluster.Snapshot) *plan.Refusal

// refusalsOf asks every guard, so that the user sees all that stands in the way and not only the first.
func refusalsOf(s *cluster.Snapshot, guards ...guard) []plan.Refusal {
	var refusals []plan.Refusal
	for _, g := range guards {
		if r := g(s); r != nil {
			refusals = append(refusals, *r)
		}
	}
	return refusals
}

// oneClusterID refuses every step while volumes and members speak of more than one etcd cluster.
func oneClusterID(s *cluster.Snapshot) *plan.Refusal {
	if len(s.ClusterIDs()) < 2 {
		return nil
	}
	return &plan.Refusal{Guard: "oneClusterID", Reason: v1beta1.ReasonClusterIDConflict, Message: ClusterIDConflict(s)}
}

// ClusterIDConflict tells which cluster IDs there are, and what to do.
func ClusterIDConflict(s *cluster.Snapshot) string {
	return fmt.Sprintf("Members and volumes of this cluster report the cluster IDs %s. They are different etcd clusters, so the operator does nothing. "+
		"Find the volume that does not belong here (annotation %s) and move it away.", join(s.ClusterIDs()), cluster.AnnotationClusterID)
}

// operationKnown refuses every step during an operation that only another release knows.
func operationKnown(s *cluster.Snapshot) *plan.Refusal {
	op := s.Cluster.Status.Operation
	if op == nil || operations[op.Type].reason != "" {
		return nil
	}
	return &plan.Refusal{
		Guard:  "operationKnown",
		Reason: v1beta1.ReasonUnknownOperation,
		Message: fmt.Sprintf("The operation %s was begun by another release of the operator, and this one does not know it. "+
			"Install that release again to finish it. If no such release ran, remove the operation: "+
			"kubectl patch etcdcluster %s --subresource=status --type=merge -p '{\"status\":{\"operation\":null}}'", op.Type, s.Cluster.Name),
	}
}

// noForeignObject refuses while an object that is somebody else's has a name that this cluster needs.
func noForeignObject(s *cluster.Snapshot) *plan.Refusal {
	for _, x := range s.ForeignObjects {
		if !x.Terminating {
			return plan.RefuseForeignObject(x)
		}
	}
	return nil
}

// previousClusterGone refuses while Kubernetes still collects the objects of a deleted cluster of the same name.
func previousClusterGone(s *cluster.Snapshot) *plan.Refusal {
	for _, x := range s.ForeignObjects {
		if x.Terminating {
			return &plan.Refusal{
				Guard:   "previousClusterGone",
				Reason:  v1beta1.ReasonWaitingForDeletion,
				Message: fmt.Sprintf("%s %s %s. It is still being deleted. Waiting for it.", x.Kind, x.Name, x.Owner),
			}
		}
	}
	return nil
}

// specUsable refuses while something that the spec refers to is missing or does not fit.
func specUsable(s *cluster.Snapshot) *plan.Refusal {
	list := specProblems(s)
	if len(list) == 0 {
		return nil
	}
	return &plan.Refusal{Guard: "specUsable", Reason: list[0].Reason, Message: plan.Messages(list)}
}

// intentGuards refuse an intent that the operator carries out for no cluster.
var intentGuards = []func(cluster.Intent) *plan.Refusal{
	versionSupported,   // Make sure that the operator knows this version of etcd.
	optionsAllowed,     // Make sure that etcd takes the options.
	securityRestricted, // Make sure that the restricted Pod Security Standard admits the pod.
}

// podGuards are asked before any pod is made from the spec.
var podGuards = append([]guard{specUsable}, ofTarget(intentGuards)...)

func ofTarget(guards []func(cluster.Intent) *plan.Refusal) []guard {
	var list []guard
	for _, refuse := range guards {
		list = append(list, func(s *cluster.Snapshot) *plan.Refusal { return refuse(targetIntent(s)) })
	}
	return list
}

func intentRefusals(i cluster.Intent) []plan.Refusal {
	var refusals []plan.Refusal
	for _, refuse := range intentGuards {
		if r := refuse(i); r != nil {
			refusals = append(refusals, *r)
		}
	}
	return refusals
}

// intentRefusal is one refusal for all that is wrong with an intent, nil where nothing is. advice ends its message.
func intentRefusal(i cluster.Intent, advice string) *plan.Refusal {
	refusals := intentRefusals(i)
	if len(refusals) == 0 {
		return nil
	}
	return &plan.Refusal{Guard: refusals[0].Guard, Reason: refusals[0].Reason, Message: plan.Messages(refusals) + advice}
}

// versionSupported refuses a version of etcd that the operator does not support.
func versionSupported(i cluster.Intent) *plan.Refusal {
	why := cluster.UnsupportedVersion(i.Version)
	if why == "" {
		return nil
	}
	return &plan.Refusal{Guard: "versionSupported", Reason: v1beta1.ReasonUnsupportedVersion, Message: "spec.version: " + why}
}

// securityRestricted refuses a security context that the restricted Pod Security Standard forbids.
func securityRestricted(i cluster.Intent) *plan.Refusal {
	problems := render.UnrestrictedSecurity(i)
	if len(problems) == 0 {
		return nil
	}
	return &plan.Refusal{
		Guard:  "securityRestricted",
		Reason: v1beta1.ReasonSecurityNotRestricted,
		Message: fmt.Sprintf("The pod template has what the restricted Pod Security Standard forbids: %s. Remove it from spec.podTemplate "+
			"(spec.pod in v1alpha1).", strings.Join(problems, "; ")),
	}
}

// optionsAllowed refuses options of etcd that are not on the allow list of the version.
func optionsAllowed(i cluster.Intent) *plan.Refusal {
	bad := render.RefusedOptions(i)
	if len(bad) == 0 {
		return nil
	}
	parts := make([]string, len(bad))
	for i, b := range bad {
		parts[i] = b.Name + ": " + b.Why
	}
	return &plan.Refusal{
		Guard:   "optionsAllowed",
		Reason:  v1beta1.ReasonUnsupportedOption,
		Message: fmt.Sprintf("spec.config.extraArgs (spec.pod.etcdEnv in v1alpha1) cannot be used with etcd %s: %s. Remove it, or correct its value.", i.Version, strings.Join(parts, "; ")),
	}
}

// quotaFits refuses to found a cluster whose databases could fill their volumes before they reach their quota.
func quotaFits(s *cluster.Snapshot) *plan.Refusal {
	return quotaFitsVolume(targetIntent(s).Quota(), cluster.VolumeSize(&s.Cluster.Spec))
}

func quotaFitsVolume(quota int64, volume resource.Quantity) *plan.Refusal {
	largest := cluster.LargestQuota(volume)
	if quota <= largest {
		return nil
	}
	return &plan.Refusal{
		Guard:  "quotaFits",
		Reason: v1beta1.ReasonQuotaTooLarge,
		Message: fmt.Sprintf("The quota of %d bytes does not fit on volumes of %s: a fifth of a volume, and at least 128Mi, must stay free for the log, because etcd exits when the disk is full. "+
			"Set spec.config.quotaBackendBytes (ETCD_QUOTA_BACKEND_BYTES in v1alpha1) to at most %d, or ask for larger volumes.", quota, volume.String(), largest),
	}
}

func join(ids []cluster.ID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return strings.Join(texts, ", ")
}
