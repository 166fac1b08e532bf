package status

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
)

func TestConditionsTellWhatBlocksAVersionAndWhichHolesItHas(t *testing.T) {
	runs := func(version string) *Builder { return MakeCluster("prod").Version(version).Objects().Members(Healthy) }
	to := func(version string) func(*v1beta1.EtcdClusterSpec) {
		return func(s *v1beta1.EtcdClusterSpec) { s.Version = version }
	}
	alarm := func(s *cluster.Snapshot) {
		s.Membership.Alarms = []cluster.Alarm{{Member: 0xa1, Kind: cluster.AlarmNoSpace}}
	}
	const blocked, advisory = v1beta1.ConditionUpgradeBlocked, v1beta1.ConditionVersionAdvisory
	for name, c := range map[string]struct {
		cluster         *Builder
		condition       string
		isTrue          bool
		reason, message string
	}{
		"a version with holes":     {runs("3.6.12"), advisory, true, v1beta1.ReasonSecurityFix, "Set spec.version to 3.6.14 or a later patch."},
		"a version without":        {runs("3.6.16"), advisory, false, v1beta1.ReasonAsExpected, "knows no security hole"},
		"holes name their members": {runs("3.7.0"), advisory, true, v1beta1.ReasonSecurityFix, "runs in prod-0, prod-1, prod-2."},
		"each version by itself": {runs("3.6.12").Later(func(s *cluster.Snapshot) { s.Members[1].Probe.Version = "3.7.0" }), advisory, true, v1beta1.ReasonSecurityFix,
			"runs in prod-0, prod-2. A user"},
		"nothing to do":           {runs("3.6.16"), blocked, false, v1beta1.ReasonAsExpected, "The members run the version"},
		"nothing in the way":      {runs("3.6.16").LaterSpec(to("3.6.17")), blocked, false, v1beta1.ReasonAsExpected, "can be reached. Progressing says"},
		"a skipped minor version": {runs("3.5.35").LaterSpec(to("3.7.3")), blocked, true, v1beta1.ReasonVersionSkipped, "Set spec.version to " + cluster.TestedVersion("3.6") + " first."},
		"an alarm":                {runs("3.6.16").LaterSpec(to("3.7.3")).Later(alarm), blocked, true, v1beta1.ReasonAlarmActive, "NOSPACE"},
		"a foreign option": {runs("3.6.16").LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
			s.Version, s.Config = "3.5.35", &v1beta1.Config{ExtraArgs: map[string]string{"log-format": "console"}}
		}), blocked, true, v1beta1.ReasonUnsupportedOption, "etcd 3.5"},
		"a version below a floor": {runs("3.6.16").LaterSpec(to("3.6.11")), blocked, true, v1beta1.ReasonUnsupportedVersion, "Write 3.6.12 or a later patch."},
	} {
		s := c.cluster.Snapshot()
		d := analyse.Next(s)
		report := Of(&s, &d, nil)
		got := meta.FindStatusCondition(report.Status.Conditions, c.condition)
		if got == nil || (got.Status == metav1.ConditionTrue) != c.isTrue || got.Reason != c.reason || !strings.Contains(got.Message, c.message) {
			t.Errorf("%s: %+v", name, got)
		}
		if available := meta.FindStatusCondition(report.Status.Conditions, v1beta1.ConditionAvailable); available.Status != metav1.ConditionTrue {
			t.Errorf("%s: it does not serve: %+v", name, available)
		}
	}
}

// The templates have the version of the spec, and the members do not run it.
func TestAVersionThatMembersDoNotRunIsToldAsBlockedAlsoWhereTheSpecHasItAgain(t *testing.T) {
	// mislabelled has members of 3.7.3, by the tag, and a spec of 3.6.16.
	mislabelled := func(edit func(*v1beta1.EtcdClusterSpec)) *Builder {
		b := MakeCluster("prod").Objects()
		b.Snapshot().Cluster.Spec.Image.Tag = "v3.7.3"
		return b.Members(Healthy).Later(func(s *cluster.Snapshot) {
			for i := range s.Members {
				s.Members[i].Probe.Version = "3.7.3"
			}
		}).LaterSpec(edit)
	}
	only := func(parts ...Part) *Builder {
		return MakeCluster("prod").Replicas(1).Objects().Members(append([]Part{Volume, Recorded, Sealed, Pod}, parts...)...)
	}
	crashes := func(detail string) Part {
		return Together(Trouble(v1beta1.ReasonCrashLooping, detail), Silent("connection refused"))
	}
	const refuses = `etcd ended with exit code 1: discovery failed: version "3.7.0" is not supported`
	for name, c := range map[string]struct {
		cluster         *Builder
		isTrue          bool
		reason, message string
	}{
		"the tag is removed": {mislabelled(func(s *v1beta1.EtcdClusterSpec) { s.Image.Tag = "" }), true, v1beta1.ReasonImageDiffers, "Set spec.version to 3.7.3, with that image."},
		"the tag stays":      {mislabelled(func(*v1beta1.EtcdClusterSpec) {}), false, v1beta1.ReasonAsExpected, "The members run the version"},
		"the tag stays, and another option is set": {mislabelled(func(s *v1beta1.EtcdClusterSpec) {
			s.Config = &v1beta1.Config{ExtraArgs: map[string]string{"snapshot-count": "5000"}}
		}),
			false, v1beta1.ReasonAsExpected, "The members run the version"},
		"the only member refuses its data":       {only(crashes(refuses)), true, v1beta1.ReasonVersionMismatch, "Set spec.version to a version of etcd 3.7 that works."},
		"the only member ends for another cause": {only(crashes("etcd ended with exit code 1")), false, v1beta1.ReasonAsExpected, "The members run the version"},
		"the only member serves":                 {only(Serving), false, v1beta1.ReasonAsExpected, "The members run the version"},
	} {
		s := c.cluster.Snapshot()
		d := analyse.Next(s)
		report := Of(&s, &d, nil)
		got := meta.FindStatusCondition(report.Status.Conditions, v1beta1.ConditionUpgradeBlocked)
		if got == nil || (got.Status == metav1.ConditionTrue) != c.isTrue || got.Reason != c.reason || !strings.Contains(got.Message, c.message) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
