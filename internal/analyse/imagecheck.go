package analyse

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// isNewImage reports whether no member was made for the image and the version of an intent yet. Where the operator
// knows no image of its own, it does not run in a pod, and looks at none.
func isNewImage(s *cluster.Snapshot, want cluster.Intent) bool {
	target := cluster.ImageTarget(want)
	return s.OperatorImage != "" && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Workload != nil && cluster.ImageTarget(m.Workload.Intent) == target
	})
}

// imageIsRight refuses an image that does not exist, cannot run, or has another version.
func imageIsRight(m *cluster.Member, target intentOf) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if isBegun(s, m, v1beta1.OperationRollMember) {
			return nil
		}
		return imageRefusal(s, target(s, m))
	}
}

// joinersImageIsRight refuses such an image for a new member.
func joinersImageIsRight(s *cluster.Snapshot) *plan.Refusal { return imageRefusal(s, joinerIntent(s)) }

// imageRefusal refuses a new image for what the pod that looked at it found.
func imageRefusal(s *cluster.Snapshot, want cluster.Intent) *plan.Refusal {
	check := s.ImageCheck
	if check == nil || check.Deleting || check.Target != cluster.ImageTarget(want) || !isNewImage(s, want) {
		return nil
	}
	switch {
	case check.Version != "" && check.Version != want.Version:
		return &plan.Refusal{
			Guard: "imageIsRight", Reason: v1beta1.ReasonImageNotUsable,
			Message: fmt.Sprintf("Image %s has etcd %s, and spec.version is %s. %s", want.Image(), check.Version, want.Version, imageAdvice),
		}
	case check.Failure != "" && check.Version == "":
		return &plan.Refusal{
			Guard: "imageIsRight", Reason: v1beta1.ReasonImageNotUsable,
			Message: fmt.Sprintf("%s%s. %s", imageNotTold(s, want), check.Failure, imageAdvice),
		}
	}
	return nil
}

// imageAdvice ends what is told of an image that cannot be used.
const imageAdvice = "No member gets it. Correct spec.version or spec.image, or set them back. The operator looks again every five minutes."

// imageNotTold begins what is told of an image that did not tell its version.
func imageNotTold(s *cluster.Snapshot, want cluster.Intent) string {
	return fmt.Sprintf("Pod %s cannot tell which etcd image %s has: ", cluster.ImageCheckPodName(s.Cluster.Name), want.Image())
}

// awaitImage waits, before a member restarts, until its image has told its version.
func awaitImage(s *cluster.Snapshot, m *cluster.Member, r restart) *plan.Decision {
	if isBegun(s, m, v1beta1.OperationRollMember) {
		return nil
	}
	return awaitVersionOf(s, r.target(s, m))
}

// awaitVersionOf waits until a new image has told its version.
func awaitVersionOf(s *cluster.Snapshot, want cluster.Intent) *plan.Decision {
	if !isNewImage(s, want) || s.ImageCheck != nil && s.ImageCheck.Target == cluster.ImageTarget(want) && s.ImageCheck.Version == want.Version {
		return nil
	}
	if last := lastImageRefusal(s, want); last != nil {
		return refused([]plan.Refusal{*last})
	}
	pod := cluster.ImageCheckPodName(s.Cluster.Name)
	d := &plan.Decision{
		Progressing: true, Reason: v1beta1.ReasonCheckingImage,
		Message: fmt.Sprintf("Before a member runs image %s, pod %s asks it for its version of etcd.", want.Image(), pod),
	}
	if s.ImageCheck != nil && s.ImageCheck.Deleting {
		d.Message += fmt.Sprintf(" The last pod of that name is being deleted. If that takes minutes, kubectl describe pod -n %s %s tells what holds it.", s.Cluster.Namespace, pod)
	}
	return d
}

// lastImageRefusal is what the conditions tell of the image. It stays while the operator looks at the image again: they
// would change every five minutes otherwise.
func lastImageRefusal(s *cluster.Snapshot, want cluster.Intent) *plan.Refusal {
	for _, c := range s.Cluster.Status.Conditions {
		if c.Reason != v1beta1.ReasonImageNotUsable {
			continue
		}
		from := max(strings.Index(c.Message, "Image "+want.Image()+" has etcd "), strings.Index(c.Message, imageNotTold(s, want)))
		if from < 0 {
			continue
		}
		message, isWhole := strings.CutSuffix(c.Message[from:], imageAdvice)
		isOfVersion := !strings.Contains(message, " spec.version is ") || strings.HasSuffix(message, " spec.version is "+want.Version+". ")
		if isWhole && isOfVersion {
			return &plan.Refusal{Guard: "imageIsRight", Reason: c.Reason, Message: message + imageAdvice}
		}
	}
	return nil
}

// imageCheckRetry is how long after an image could not be used it is looked at again.
const imageCheckRetry = 5 * time.Minute

// imageCheckUpkeep creates the pod that looks at the image, and deletes it once it is not needed, is for another image,
// or has failed some time ago. It also deletes one that somebody else deleted and whose node does not answer.
func imageCheckUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	check := s.ImageCheck
	if check == nil && !changesImage(s) {
		return nil
	}
	want := imageToCheck(s)
	switch {
	case check == nil && want != nil:
		return []plan.Upkeep{plan.Apply{Desired: render.ImageCheckPod(s.Cluster, *want, s.OperatorImage)}}
	case check == nil || check.Forced || check.Deleting && s.Now.Before(check.CreatedAt.Add(imageCheckRetry)):
		return nil
	case check.Deleting, want == nil, check.Target != cluster.ImageTarget(*want),
		check.Version != want.Version && !s.Now.Before(check.CreatedAt.Add(imageCheckRetry)):
		return []plan.Upkeep{plan.Delete{Object: render.ImageCheckPodToDelete(s.Cluster, check.UID)}}
	}
	return nil
}

// changesImage reports whether the spec has another version or image of etcd than a member.
func changesImage(s *cluster.Snapshot) bool {
	image := &s.Cluster.Spec.Image
	return versionChange(s) != "" || slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Workload != nil && (m.Workload.Intent.Tag != image.Tag || m.Workload.Intent.Digest != image.Digest ||
			image.Repository != "" && m.Workload.Intent.Repository != image.Repository)
	})
}

// imageToCheck is the intent whose image is looked at; nil where none is. An image is looked at once nothing else keeps
// the next member from running it.
func imageToCheck(s *cluster.Snapshot) *cluster.Intent {
	if rotates(s) {
		return nil
	}
	if want := joinerIntent(s); isNewImage(s, want) && awaitsJoinersImage(s) {
		return &want
	}
	m, r := nextToUpgrade(s), upgradeRestart
	if m == nil {
		if members := membersToRestart(s, v1beta1.ReasonRollingMembers); len(members) > 0 {
			m, r = nextToRestart(members), configurationRestart
		}
	}
	if m == nil {
		return nil
	}
	want, without := r.target(s, m), *s
	without.ImageCheck = nil
	if isBegun(s, m, v1beta1.OperationRollMember) || !isNewImage(s, want) || len(restartRefusals(&without, m, r)) > 0 {
		return nil
	}
	return &want
}

// awaitsJoinersImage reports whether nothing but its image keeps a new member from being made, or corrected.
func awaitsJoinersImage(s *cluster.Snapshot) bool {
	learner, without := s.Learner(), *s
	without.ImageCheck = nil
	switch {
	case s.Membership == nil || s.ForeignEntry() != nil:
		return false
	case s.Outlook().Voters >= wantedVoters(s):
		return false
	case learner != nil:
		return learner.Workload == nil && !learner.Volume.Started() || isToBeCorrected(s, learner)
	default:
		return len(joinRefusals(&without)) == 0
	}
}
