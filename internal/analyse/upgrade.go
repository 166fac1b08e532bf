package analyse

import (
	"fmt"
	"slices"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// pinTime is how long every other member is a healthy voter of the new minor version before the last old one restarts.
// While a voter of the old minor version answers, every member can go back to it.
const pinTime = time.Minute

// trialTime is how long a member must be ready with a new template until that counts as one that it was healthy with.
// One that fails before goes back, as one does that never came up. The next member waits as long only where the minor
// version of etcd is another one.
const trialTime = 15 * time.Second

// upgrade brings the members to the version of the spec, one after the other. A patch is a roll. A minor version has
// more gates: once all members run it, the data cannot be read by the old one. A rotation that goes on is finished
// first.
func upgrade(s *cluster.Snapshot) *plan.Decision {
	m := nextToUpgrade(s)
	if len(s.Members) == 1 && (m == nil || stepsLeft(s, m) <= 0) {
		if r := dataFit(&s.Members[0])(s); r != nil {
			return refused([]plan.Refusal{*r})
		}
	}
	if m == nil && enabledDowngrade(s) == nil || rotates(s) || isVoterCured(s) {
		return nil
	}
	if d := endDowngrade(s); d != nil {
		return d
	}
	if m == nil {
		return nil
	}
	if refusals := restartRefusals(s, m, upgradeRestart); len(refusals) > 0 {
		return refused(refusals)
	}
	if d := upgradeGate(s, m); d != nil {
		return d
	}
	return restartMember(s, m, versionReason(s, m))
}

// upgradeGate is what comes before a member restarts with another version; nil where nothing does any more.
func upgradeGate(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if d := awaitImage(s, m, upgradeRestart); d != nil {
		return d
	}
	if d := compareBeforeUpgrade(s); d != nil {
		return d
	}
	if d := beginDowngrade(s); d != nil && !hasNoWayBack(s, m) {
		return d
	}
	return awaitOthers(s, m)
}

// upgradeGateClosed says what must come before a restart that was claimed for another version, and not begun; empty
// where nothing must. The spec may have changed since.
func upgradeGateClosed(s *cluster.Snapshot, m *cluster.Member, op *v1beta1.Operation) string {
	reason := reasonOf(op)
	if reason != v1beta1.ReasonUpgrading && reason != v1beta1.ReasonDowngrading || isBegun(s, m, op.Type) {
		return ""
	}
	if d := upgradeGate(s, m); d != nil {
		return d.Message
	}
	return ""
}

// versionReason is the reason of the Progressing condition while a member goes to the version of the spec.
func versionReason(s *cluster.Snapshot, m *cluster.Member) string {
	if stepsLeft(s, m) < 0 {
		return v1beta1.ReasonDowngrading
	}
	return v1beta1.ReasonUpgrading
}

// AwaitsUpgrade reports whether a member is to run another version.
func AwaitsUpgrade(s *cluster.Snapshot) bool { return versionChange(s) != "" }

// UpgradeRefusals tell why the members do not run the version of the spec; none where nothing prevents it.
func UpgradeRefusals(s *cluster.Snapshot) []plan.Refusal {
	switch {
	case s.Cluster.Status.Operation != nil || !s.Founded():
		return nil
	case versionChange(s) == "":
		return versionNotRun(s)
	}
	m := nextToUpgrade(s)
	if m == nil {
		return nil
	}
	refusals := restartRefusals(s, m, upgradeRestart)
	if len(refusals) == 0 {
		if d := upgradeGate(s, m); d != nil {
			refusals = d.Refusals
		}
	}
	for i := range refusals {
		if refusals[i].Guard == "noAlarm" {
			refusals[i].Reason = v1beta1.ReasonAlarmActive
		}
	}
	return refusals
}

// versionNotRun tells why members do not run the version of the spec although their templates have it: an image has
// another one, or the only member's data refuse it.
func versionNotRun(s *cluster.Snapshot) []plan.Refusal {
	for i := range s.Members {
		m := &s.Members[i]
		if m.Workload == nil {
			continue
		}
		guards := []guard{runsAsTold(m, targetOf)}
		if len(s.Members) == 1 {
			guards = append(guards, dataFit(m))
		}
		if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
			return refusals
		}
	}
	return nil
}

// nextToUpgrade is the member that gets the version of the spec next; nil where none can.
func nextToUpgrade(s *cluster.Snapshot) *cluster.Member {
	members := membersToRestart(s, v1beta1.ReasonUpgrading)
	if len(members) == 0 {
		return nil
	}
	return nextToRestart(members)
}

var upgradeRestart = restart{
	purpose:        "to run etcd",
	tellsVersion:   true,
	isNeeded:       runsAnotherVersion,
	target:         versionTarget,
	operation:      v1beta1.OperationRollMember,
	writesTemplate: true,
	stopsTheOnly:   true,
	targetGuards: func(m *cluster.Member) []guard {
		return []guard{
			versionReachable,               // Make sure that etcd can go to this version in one step.
			versionFits(m),                 // Make sure that etcd takes the options in this version.
			runsAsTold(m, versionTarget),   // Make sure that no older etcd starts where an image is mislabelled.
			upgradeMayBegin(m),             // Make sure that an upgrade begins on a healthy cluster.
			imageIsRight(m, versionTarget), // Make sure that the image exists, and has this version.
		}
	},
	guards: func(m *cluster.Member) []guard {
		return []guard{membersAcceptCertificates(m)} // Make sure that the restarted member and the others accept each other.
	},
}

// runsAnotherVersion reports whether the member's pod was not made from the version that the spec asks for.
func runsAnotherVersion(s *cluster.Snapshot, m *cluster.Member) bool {
	if isBegun(s, m, v1beta1.OperationRollMember) {
		return !isMadeFromTemplate(m)
	}
	want := versionTarget(s, m)
	return !sameVersion(m.Workload.Intent, want) || awaitsVersion(m)
}

// awaitsVersion reports whether the member's template has another version than its pod was made with.
func awaitsVersion(m *cluster.Member) bool {
	healthy := m.Workload.HealthyIntent
	return healthy != nil && !sameVersion(*healthy, m.Workload.Intent) && !wasMadeFromTemplate(m)
}

func sameVersion(a, b cluster.Intent) bool { return a.Version == b.Version && a.Image() == b.Image() }

// versionTarget is the member's intent with the version and the image of the spec. The rest of the spec comes later.
// Where the version is the same already, so is the image: a change of the image alone is one of the configuration.
func versionTarget(s *cluster.Snapshot, m *cluster.Member) cluster.Intent {
	intent := m.Workload.Intent
	if intent.Version == s.Cluster.Spec.Version { // the usual case: this runs for each member in each pass
		return intent
	}
	return intent.WithVersionOf(cluster.IntentOf(s.Cluster)).Canonical()
}

// versionReachable refuses a version that the operator does not support, or that etcd cannot go to in one step.
func versionReachable(s *cluster.Snapshot) *plan.Refusal {
	if r := versionSupported(cluster.IntentOf(s.Cluster)); r != nil {
		r.Message += " The running cluster stays as it is. Set the spec back, or correct it."
		return r
	}
	for i := range s.Members {
		if r := stepIsOne(&s.Members[i], s.Cluster.Spec.Version); r != nil {
			return r
		}
	}
	return nil
}

// stepIsOne refuses a version that is more than one minor version from what a member runs. etcd itself takes a
// downgrade by two, if some members run the newer minor version and some the older one.
func stepIsOne(m *cluster.Member, to string) *plan.Refusal {
	from, way := RunningVersion(m), "up"
	steps := minorSteps(from, to)
	if -1 <= steps && steps <= 1 {
		return nil
	}
	if steps < 0 {
		way = "down"
	}
	return &plan.Refusal{
		Guard: "versionReachable", Reason: v1beta1.ReasonVersionSkipped,
		Message: fmt.Sprintf("%s runs etcd %s, and spec.version is %s. etcd goes %s one minor version at a time. Set spec.version to %s first.",
			m.Name, from, to, way, cluster.VersionBetween(from, to)),
	}
}

// versionFits refuses a version that does not take the member's options.
func versionFits(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if r := optionsAllowed(cluster.IntentOf(s.Cluster)); r != nil { // what comes after the version
			return r
		}
		return optionsAllowed(versionTarget(s, m))
	}
}

// minorSteps returns how many minor versions a change goes up; down if it is negative. It returns 0 where a version
// cannot be read: it is refused before.
func minorSteps(from, to string) int {
	steps, _ := cluster.MinorSteps(from, to)
	return steps
}

// stepsLeft returns how many minor versions the member has to go up to the version of the spec; down if it is negative.
func stepsLeft(s *cluster.Snapshot, m *cluster.Member) int {
	return minorSteps(m.Workload.Intent.Version, s.Cluster.Spec.Version)
}

// isUnderWay reports whether a member has the version of the spec already.
func isUnderWay(s *cluster.Snapshot) bool {
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool {
		return m.Workload != nil && m.Workload.Intent.Version == s.Cluster.Spec.Version
	})
}

// upgradeMayBegin refuses to begin an upgrade while the cluster lacks anything. A patch may cure members that have
// failed. Once it is under way, a member that failed restarts first.
func upgradeMayBegin(m *cluster.Member) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		if isUnderWay(s) || stepsLeft(s, m) == 0 && hasFailed(m) || hasNoWayBack(s, m) {
			return nil
		}
		if s.Learner() != nil {
			return &plan.Refusal{
				Guard: "noLearner", Reason: v1beta1.ReasonLearnerPresent,
				Message: fmt.Sprintf("%s is a learner. An upgrade is begun only while every member is a voter. Waiting until it is one.", s.Learner().Name),
			}
		}
		refusals := refusalsOf(s, noAlarm("upgraded"), membersHealthy(&cluster.Member{}))
		if len(refusals) == 0 {
			return nil
		}
		return &refusals[0]
	}
}

// newerData returns the minor version that has changed the member's data, where its etcd ends because of that; empty
// where it does not. What ends is what the pod was made with.
func newerData(m *cluster.Member) string {
	if !hasFailed(m) || m.Pod == nil || m.Workload == nil || !isMadeFromTemplate(m) {
		return ""
	}
	return cluster.NewerData(m.Pod.FailureDetail, m.Workload.Intent.Version)
}

// hasNoWayBack reports whether the only member fails with what it went back to: the new minor version had changed its
// data before it failed. A version of that minor version is the way out.
func hasNoWayBack(s *cluster.Snapshot, m *cluster.Member) bool {
	return len(s.Members) == 1 && stepsLeft(s, m) > 0 && cluster.SameMinor(s.Cluster.Spec.Version, newerData(m))
}

// goesForwardAgain reports whether the only member, which refuses its data, may start once more with the newer version
// that it failed with. It does so once: then what it ran with before is remembered as what failed too.
func goesForwardAgain(s *cluster.Snapshot, m *cluster.Member) bool {
	return hasNoWayBack(s, m) && !isRememberedAsFailed(s, m, m.Workload.Intent)
}

func isRememberedAsFailed(s *cluster.Snapshot, m *cluster.Member, i cluster.Intent) bool {
	_, failed := failedWith(s, m, func(*cluster.Snapshot, *cluster.Member) cluster.Intent { return i })
	return failed
}

// dataFit refuses to restart a member with the version that refuses its data, for whatever else the spec asks.
func dataFit(m *cluster.Member) guard {
	return func(*cluster.Snapshot) *plan.Refusal {
		newer := newerData(m)
		if newer == "" {
			return nil
		}
		return &plan.Refusal{
			Guard: "dataFit", Reason: v1beta1.ReasonVersionMismatch,
			Message: fmt.Sprintf("etcd %s refuses the data of %s, because a newer minor version has changed them. Set spec.version to a version of etcd %s that works.",
				m.Workload.Intent.Version, m.Name, newer),
		}
	}
}

// runsAsTold refuses to restart a member whose image has another minor version of etcd than the spec that it was made
// from: what then looks like a patch, or like no change of the version at all, could start an older etcd on newer data.
// It allows the minor version that runs, which is the way out, and the image that runs. It also refuses the image of
// another member that has another minor version than it says.
func runsAsTold(m *cluster.Member, target intentOf) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		next := target(s, m)
		if next.Image() == m.Workload.Intent.Image() {
			return nil
		}
		if runsAnotherMinor(m) && !cluster.SameMinor(next.Version, m.Probe.Version) {
			return imageDiffers(m)
		}
		return imageIsAsTold(s, next)
	}
}

// imageIsAsTold refuses an image with which a member runs another minor version than the image was to have.
func imageIsAsTold(s *cluster.Snapshot, next cluster.Intent) *plan.Refusal {
	for i := range s.Members {
		m := &s.Members[i]
		if runsAnotherMinor(m) && !cluster.SameMinor(next.Version, m.Probe.Version) && next.Image() == m.Workload.Intent.Image() {
			return imageDiffers(m)
		}
	}
	return nil
}

// joinersImageIsAsTold refuses such an image for a new member, unless all members run it: then the new one is as they
// are.
func joinersImageIsAsTold(s *cluster.Snapshot) *plan.Refusal {
	isMixed := slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Answers() && !runsAnotherMinor(&m) })
	if !isMixed {
		return nil
	}
	return imageIsAsTold(s, joinerIntent(s))
}

// runsAnotherMinor reports whether a member answers with another minor version of etcd than its template has, from
// which its pod was made.
func runsAnotherMinor(m *cluster.Member) bool {
	return m.Answers() && m.Workload != nil && m.Pod != nil && m.Probe.Version != "" && isMadeFromTemplate(m) &&
		!cluster.SameMinor(m.Probe.Version, m.Workload.Intent.Version)
}

func imageDiffers(m *cluster.Member) *plan.Refusal {
	return &plan.Refusal{
		Guard:  "runsAsTold",
		Reason: v1beta1.ReasonImageDiffers,
		Message: fmt.Sprintf("%s runs etcd %s, and it was made for etcd %s: the image has another version than spec.version says. "+
			"It restarts with no other image, and no other member gets its image. Set spec.version to %s, with that image.", m.Name, m.Probe.Version, m.Workload.Intent.Version, m.Probe.Version),
	}
}

// awaitOthers waits, in a minor step, until the other members have been ready for long enough.
func awaitOthers(s *cluster.Snapshot, m *cluster.Member) *plan.Decision {
	if stepsLeft(s, m) == 0 {
		return nil
	}
	wait, message := waitForTrials(s, m)
	if pin, why := waitForPin(s, m); pin > wait {
		wait, message = pin, why
	}
	if wait <= 0 {
		return nil
	}
	return &plan.Decision{Progressing: true, Reason: versionReason(s, m), Message: message, RequeueAfter: wait}
}

// waitForTrials returns how much longer another member must be ready with its new minor version before the member
// restarts, and a sentence about it.
func waitForTrials(s *cluster.Snapshot, m *cluster.Member) (left time.Duration, why string) {
	for i := range s.Members {
		other := &s.Members[i]
		if wait := trialLeft(s, other); other.Name != m.Name && triesMinor(other) && wait > left {
			left = wait
			why = fmt.Sprintf("%s restarts once %s has been ready with etcd %s for %s.", m.Name, other.Name, other.Workload.Intent.Version, trialTime)
		}
	}
	return left, why
}

// trialLeft is how much longer the member must be ready until it counts as healthy with its new template; zero or less
// where it need not.
func trialLeft(s *cluster.Snapshot, m *cluster.Member) time.Duration {
	if m.Workload == nil || m.Workload.Live == nil || m.Workload.HealthyIntent == nil || m.Pod == nil || wasHealthyWithTemplate(m) {
		return 0
	}
	return readyLeft(s, m.Pod, trialTime)
}

// untilTried returns how long it takes until the next member that is ready counts as healthy with its template; zero
// for none.
func untilTried(s *cluster.Snapshot) time.Duration {
	return soonest(s, func(m *cluster.Member) time.Duration {
		if m.Pod == nil || !m.Pod.Ready {
			return 0
		}
		return trialLeft(s, m)
	})
}

// triesMinor reports whether the member's template has another minor version than the one it was last healthy with.
func triesMinor(m *cluster.Member) bool {
	return m.Workload != nil && m.Workload.HealthyIntent != nil && minorSteps(m.Workload.HealthyIntent.Version, m.Workload.Intent.Version) != 0
}

// waitForPin returns how much longer the last voter of the old minor version waits until every other member has been a
// healthy voter of the new one for a minute, and a sentence about it. One that has failed waits for no member that is
// not ready: that one may lack the quorum of both.
func waitForPin(s *cluster.Snapshot, m *cluster.Member) (left time.Duration, why string) {
	if stepsLeft(s, m) < 0 || minorSteps(RunningVersion(m), s.Cluster.Spec.Version) == 0 {
		return 0, "" // it pins no version
	}
	for i := range s.Members {
		other := &s.Members[i]
		switch {
		case other.Name == m.Name:
		case minorSteps(RunningVersion(other), s.Cluster.Spec.Version) != 0:
			return 0, "" // it is not the last one
		case other.Pod != nil && (other.Pod.Ready || !hasFailed(m)):
			left = max(left, readyLeft(s, other.Pod, pinTime))
		}
	}
	return left, fmt.Sprintf("%s is the last member of the old minor version. As long as it runs, the others can go back. It restarts once they have been healthy for %s.",
		m.Name, pinTime)
}

// readyLeft is how much longer a pod must be ready until it was for so long.
func readyLeft(s *cluster.Snapshot, p *cluster.Pod, long time.Duration) time.Duration {
	if !p.Ready {
		return long
	}
	return min(long, long-s.Now.Sub(p.ReadySince))
}

// RunningVersion is the version that the member's etcd says it is, and of its template where it does not answer.
func RunningVersion(m *cluster.Member) string {
	if m.Answers() {
		return m.Probe.Version
	}
	if m.Workload != nil {
		return m.Workload.Intent.Version
	}
	return ""
}
