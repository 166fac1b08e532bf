package analyse

import (
	"fmt"
	"slices"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// needsImageCheck reports whether the image of an intent is looked at before the member runs it: it is another one than
// the member's, and no member was made for it yet. Where the operator knows no image of its own, it does not run in a
// pod, and looks at none.
func needsImageCheck(s *cluster.Snapshot, m *cluster.Member, want cluster.Intent) bool {
	target := cluster.ImageTarget(want)
	return s.OperatorImage != "" && !isBegun(s, m, v1beta1.OperationRollMember) && !slices.ContainsFunc(s.Members, func(other cluster.Member) bool {
		return other.Workload != nil && cluster.ImageTarget(other.Workload.Intent) == target
	})
}

// imageIsRight refuses an image that does not exist, cannot run, or has another version.
func imageIsRight(m *cluster.Member, target intentOf) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		check := s.ImageCheck
		if check == nil || check.Deleting {
			return nil
		}
		want := target(s, m)
		if check.Target != cluster.ImageTarget(want) || !needsImageCheck(s, m, want) {
			return nil
		}
		advice := "Correct spec.version or spec.image, or set them back. The operator looks again every five minutes."
		switch {
		case check.Version != "" && check.Version != want.Version:
			return &plan.Refusal{
				Guard: "imageIsRight", Reason: v1beta1.ReasonImageNotUsable,
				Message: fmt.Sprintf("No member was touched. Image %s has etcd %s, and spec.version is %s. %s", want.Image(), check.Version, want.Version, advice),
			}
		case check.Failure != "" && check.Version == "":
			return &plan.Refusal{
				Guard: "imageIsRight", Reason: v1beta1.ReasonImageNotUsable,
				Message: fmt.Sprintf("No member was touched. Pod %s cannot tell which etcd image %s has: %s. %s",
					cluster.ImageCheckPodName(s.Cluster.Name), want.Image(), check.Failure, advice),
			}
		}
		return nil
	}
}

// awaitImage waits until the image has told its version.
func awaitImage(s *cluster.Snapshot, m *cluster.Member, r restart) *plan.Decision {
	want := r.target(s, m)
	if !needsImageCheck(s, m, want) || s.ImageCheck != nil && s.ImageCheck.Target == cluster.ImageTarget(want) && s.ImageCheck.Version == want.Version {
		return nil
	}
	return &plan.Decision{
		Progressing: true, Reason: v1beta1.ReasonCheckingImage,
		Message: fmt.Sprintf("Before a member runs image %s, pod %s asks it for its version of etcd.", want.Image(), cluster.ImageCheckPodName(s.Cluster.Name)),
	}
}

// imageCheckRetry is how long after an image could not be used it is looked at again.
const imageCheckRetry = 5 * time.Minute

// imageCheckUpkeep creates the pod that looks at the image, and deletes it once it is not needed, is for another image,
// or has failed some time ago.
func imageCheckUpkeep(s *cluster.Snapshot) []plan.Upkeep {
	check := s.ImageCheck
	if check == nil && !changesImage(s) {
		return nil
	}
	want := imageToCheck(s)
	switch {
	case check == nil && want != nil:
		return []plan.Upkeep{plan.Apply{Desired: render.ImageCheckPod(s.Cluster, *want, s.OperatorImage)}}
	case check == nil || check.Deleting:
		return nil
	case want == nil, check.Target != cluster.ImageTarget(*want),
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
	if !needsImageCheck(s, m, want) || len(restartRefusals(&without, m, r)) > 0 {
		return nil
	}
	return &want
}
