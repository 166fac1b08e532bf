package analyse

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// bootstrap starts a cluster that has never been seen started, or takes its kept volumes back.
// It has no opinion on a cluster whose members were all seen started, unless every step is to be refused:
// it is the first of the rules that act.
func bootstrap(s *cluster.Snapshot) *plan.Decision {
	if refusals := refusalsOf(s, oneClusterID, operationKnown); len(refusals) > 0 {
		return refused(refusals)
	}
	if len(s.Members) == 0 {
		return planBootstrap(s)
	}
	if left := notYetTakenBack(s); len(left) > 0 {
		return continueTakingBack(s, left)
	}
	if founders := unfinishedFounders(s); len(founders) > 0 {
		return continueFounding(s, founders)
	}
	unstarted := unstartedMembers(s)
	switch {
	case len(unstarted) == 0:
		return nil
	case len(withoutWorkload(s)) > 0:
		return resume(s) // those that wait may need them for a quorum
	default:
		return awaitFounders(s, unstarted)
	}
}

// planBootstrap decides what a cluster without any volume of its own starts from.
func planBootstrap(s *cluster.Snapshot) *plan.Decision {
	guards := slices.Concat([]guard{previousClusterGone, noForeignObject}, podGuards)
	kept := currentKept(s)
	if len(kept) == 0 {
		guards = append(guards, nothingLost, quotaFits)
	} else {
		guards = append(guards, volumesUnambiguous, volumesKeepQuorum, versionSkewAllowed, peerURLsUnchanged)
	}
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
	}
	if len(kept) > 0 {
		return takeBack(kept)
	}
	founders := make([]founder, s.Cluster.Spec.Replicas)
	first := firstFreeNumber(s)
	for i := range founders {
		founders[i] = founder{name: cluster.MemberName(s.Cluster.Name, first+i), volume: true, workload: true}
	}
	return createFounders(s, founders)
}

func takeBack(volumes []cluster.Volume) *plan.Decision {
	return &plan.Decision{
		Progressing: true,
		Reason:      v1beta1.ReasonTakingBack,
		Message:     fmt.Sprintf("Taking back the volumes that an earlier cluster of this name left: %s.", memberNames(volumes)),
		Action:      plan.TakeBackVolumes{Volumes: volumes},
	}
}

// continueTakingBack marks the volumes that a taking back which was cut short has not marked yet.
func continueTakingBack(s *cluster.Snapshot, left []cluster.Volume) *plan.Decision {
	if refusals := refusalsOf(s, previousClusterGone, noForeignObject, versionSkewAllowed, peerURLsUnchanged); len(refusals) > 0 {
		return refused(refusals)
	}
	return takeBack(left)
}

// notYetTakenBack returns the kept volumes of the very etcd cluster whose other volumes are this cluster's already.
func notYetTakenBack(s *cluster.Snapshot) []cluster.Volume {
	var left []cluster.Volume
	for _, v := range s.RetainedVolumes {
		m := s.Member(v.Member)
		if m != nil && m.Volume == nil && !v.Retired && !v.Deleting && v.Token == tokenOf(s) {
			left = append(left, v)
		}
	}
	return left
}

// tokenOf returns the initial-cluster-token that the members' volumes were founded with; empty where there is none.
func tokenOf(s *cluster.Snapshot) string {
	for _, m := range s.Members {
		if m.Volume != nil && m.Volume.Token != "" {
			return m.Volume.Token
		}
	}
	return ""
}

// founder is a founding member that lacks its volume, its StatefulSet, or both.
type founder struct {
	name             string
	volume, workload bool
}

// createFounders creates what founding members lack. The list, token and intent of an earlier pass are kept.
func createFounders(s *cluster.Snapshot, missing []founder) *plan.Decision {
	if d := awaitObjects(s, v1beta1.ReasonBootstrapping); d != nil {
		return d
	}
	founding := render.Founding{Token: cmp.Or(tokenOf(s), render.ClusterToken(s.Cluster))}
	for _, f := range missing {
		founding.Members = append(founding.Members, f.name)
	}
	for _, m := range s.Members {
		if !slices.Contains(founding.Members, m.Name) {
			founding.Members = append(founding.Members, m.Name)
		}
	}
	slices.SortFunc(founding.Members, func(a, b string) int { return cluster.CompareMembers(s.Cluster.Name, a, b) })
	slices.SortFunc(missing, func(a, b founder) int { return cluster.CompareMembers(s.Cluster.Name, a.name, b.name) })
	action := plan.CreateFounders{Members: founding.Members}
	for _, f := range missing {
		if f.volume {
			action.Volumes = append(action.Volumes, render.MemberVolume(s.Cluster, f.name, founding))
		}
		if f.workload {
			in := memberInput(s, f.name, settledIntent(s), false)
			in.Founding = &founding
			action.StatefulSets = append(action.StatefulSets, render.MemberStatefulSet(in))
		}
	}
	return &plan.Decision{
		Progressing: true,
		Reason:      v1beta1.ReasonBootstrapping,
		Message:     fmt.Sprintf("Creating %d members.", len(founding.Members)),
		Action:      action,
	}
}

// awaitObjects lets upkeep first make what members are started with, nil where it is there: the Services, whose address families decide
// what members listen on, and the certificates, whose authorities are written on the members' pods.
func awaitObjects(s *cluster.Snapshot, reason string) *plan.Decision {
	switch {
	case s.PeerService == nil:
		return &plan.Decision{Progressing: true, Reason: reason, Message: "Creating the Services."}
	case certificatesMissing(s):
		return &plan.Decision{Progressing: true, Reason: reason, Message: "Creating the certificates."}
	default:
		return nil
	}
}

// continueFounding makes what a founding that was cut short has not made yet.
func continueFounding(s *cluster.Snapshot, founders []founder) *plan.Decision {
	guards := slices.Concat([]guard{previousClusterGone, noForeignObject}, podGuards, []guard{peerURLsUnchanged})
	if refusals := refusalsOf(s, guards...); len(refusals) > 0 {
		return refused(refusals)
	}
	return createFounders(s, founders)
}

// unfinishedFounders returns the founding members that still lack something that may be made.
// A volume is made only while no StatefulSet exists and no member was seen started, not even by an earlier pass that
// left only the cluster ID in the status: later its absence is a loss.
func unfinishedFounders(s *cluster.Snapshot) []founder {
	untouched := !s.Founded() && s.Cluster.Status.ClusterID == "" && tokenOf(s) == render.ClusterToken(s.Cluster) &&
		!slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Workload != nil })
	var founders []founder
	for _, m := range s.Members {
		f := founder{name: m.Name, volume: m.Volume == nil && untouched}
		f.workload = m.Workload == nil && !m.Volume.Started() && (m.Volume != nil || f.volume)
		if f.volume || f.workload {
			founders = append(founders, f)
		}
	}
	return founders
}

// awaitFounders tells how far the founding is, and what holds up those that have not started.
func awaitFounders(s *cluster.Snapshot, unstarted []cluster.Member) *plan.Decision {
	if changes := unsupportedChanges(s); len(changes) > 0 && !s.Founded() {
		return &plan.Decision{
			Reason: v1beta1.ReasonNotYetSupported,
			Message: fmt.Sprintf("No member has started yet, and this release does not change a cluster that was created: %s. "+
				"Set the spec back, or delete the cluster and create it again with the spec that you want and %s.",
				strings.Join(changes, "; "), startEmpty),
		}
	}
	names := make([]string, len(unstarted))
	for i, m := range unstarted {
		names[i] = m.Name
	}
	return &plan.Decision{
		Progressing: true,
		Reason:      v1beta1.ReasonBootstrapping,
		Message:     fmt.Sprintf("%d of %d members have started. Waiting for %s.", len(s.Members)-len(unstarted), len(s.Members), strings.Join(names, ", ")),
	}
}

// startEmpty is how users say that a new cluster is to leave the volumes of an earlier one alone.
const startEmpty = "spec.bootstrap.existingVolumes: Ignore (in v1alpha1 the annotation " + v1beta1.BootstrapAnnotation + "=" + v1beta1.BootstrapEmpty + ")"

func unstartedMembers(s *cluster.Snapshot) []cluster.Member {
	var unstarted []cluster.Member
	for _, m := range s.Members {
		if m.Volume != nil && !m.Volume.Started() {
			unstarted = append(unstarted, m)
		}
	}
	return unstarted
}

// currentKept returns the volumes to take back: none where the cluster starts empty.
func currentKept(s *cluster.Snapshot) []cluster.Volume {
	if startsEmpty(s) {
		return nil
	}
	var kept []cluster.Volume
	for _, v := range s.RetainedVolumes {
		if !v.Retired {
			kept = append(kept, v)
		}
	}
	return kept
}

// startsEmpty reports whether kept volumes are left alone. A step that was claimed goes on as it was begun, whatever
// the annotation says since: another operator may be in the middle of it.
func startsEmpty(s *cluster.Snapshot) bool {
	if op := s.Cluster.Status.Operation; op != nil {
		return op.Type == v1beta1.OperationBootstrap
	}
	return cluster.IgnoresExistingVolumes(s.Cluster)
}

// firstFreeNumber is above every number that a kept volume carries, so that no name is used again over old data.
func firstFreeNumber(s *cluster.Snapshot) int {
	first := 0
	for _, v := range s.RetainedVolumes {
		if n, ok := cluster.MemberNumber(s.Cluster.Name, v.Member); ok {
			first = max(first, n+1)
		}
	}
	return first
}

// settledIntent is what the members' pods were made from; the spec's intent only where there are none yet.
func settledIntent(s *cluster.Snapshot) cluster.Intent {
	for _, m := range s.Members {
		if m.Workload != nil {
			return withAuthorities(s, m.Workload.Intent)
		}
	}
	return withAuthorities(s, cluster.IntentOf(s.Cluster))
}

func memberNames(volumes []cluster.Volume) string {
	names := make([]string, len(volumes))
	for i, v := range volumes {
		names[i] = v.Member
	}
	return strings.Join(names, ", ")
}
