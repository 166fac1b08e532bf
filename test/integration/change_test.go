//go:build integration

package integration

import (
	stdcmp "cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
)

// versions returns the resourceVersions of all objects of the namespace but the EtcdCluster.
func (l *lab) versions() map[string]string { return l.versionsOf("") }

// versionsOf returns those of the kinds.
func (l *lab) versionsOf(kinds ...string) map[string]string {
	l.Helper()
	o, err := l.kubernetes.everything(l.Context())
	must(l.T, err)
	all := map[string]string{}
	for _, object := range append(o.owned(), o.free()...) {
		gvks, _, err := scheme.ObjectKinds(object)
		must(l.T, err)
		if kind := gvks[0].Kind; kinds[0] == "" || slices.Contains(kinds, kind) {
			all[kind+"/"+object.GetName()] = object.GetResourceVersion()
		}
	}
	return all
}

// expectVersions fails where an object is not what it was.
func (l *lab) expectVersions(want map[string]string) {
	l.Helper()
	kinds := map[string]bool{}
	for object := range want {
		kind, _, _ := strings.Cut(object, "/")
		kinds[kind] = true
	}
	if diff := cmp.Diff(want, l.versionsOf(slices.Collect(maps.Keys(kinds))...)); diff != "" {
		l.Errorf("objects were written to (-before +after):\n%s", diff)
	}
}

func TestAChangeOfARunningClusterTouchesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*v1beta1.EtcdCluster)
		says   string
		reason string // NotYetSupported if it is empty
	}{
		{"to an option that is refused", withOption("max-txn-ops", "many"), "max-txn-ops: its value must be", v1beta1.ReasonUnsupportedOption},
		{"of the volumes", func(c *v1beta1.EtcdCluster) { c.Spec.Storage = clustertest.Gibibytes(16) }, "16Gi", ""},
		{"to smaller volumes", func(c *v1beta1.EtcdCluster) { c.Spec.Storage = clustertest.Gibibytes(4) }, "volumes of 4Gi", ""},
		{"of the StorageClass", func(c *v1beta1.EtcdCluster) {
			c.Spec.Storage = clustertest.Gibibytes(8)
			c.Spec.Storage.VolumeClaimTemplate.Spec.StorageClassName = new("fast")
		}, "the StorageClass fast", ""},
		{"of the access mode", func(c *v1beta1.EtcdCluster) {
			c.Spec.Storage = clustertest.Gibibytes(8)
			c.Spec.Storage.VolumeClaimTemplate.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
		}, "the access modes [ReadWriteOncePod]", ""},
		{"to TLS", withTLS, "spec.tls.client, spec.tls.peer", ""},
		{"to a version that is not supported", func(c *v1beta1.EtcdCluster) { c.Spec.Version = "3.8.0" }, "etcd 3.8.0 is not supported", v1beta1.ReasonUnsupportedVersion},
		{"to a security context that is not restricted", func(c *v1beta1.EtcdCluster) {
			c.Spec.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{SecurityContext: &corev1.PodSecurityContext{
				Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}},
			}}}
		}, "the sysctl kernel.msgmax", v1beta1.ReasonSecurityNotRestricted},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createCertificates()
			l.createWithData()
			before, spec := l.versions(), l.get().Spec
			l.change(c.change)
			l.settle()
			l.expectVersions(before)
			now := l.get()
			progressing := expectCondition(t, now, v1beta1.ConditionProgressing, metav1.ConditionFalse, stdcmp.Or(c.reason, v1beta1.ReasonNotYetSupported))
			for _, text := range []string{c.says, "The running cluster stays as it is", "Set the spec back"} {
				if !strings.Contains(progressing.Message, text) {
					t.Errorf("the message is %q, want %q in it", progressing.Message, text)
				}
			}
			expectCondition(t, now, v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
			if !l.operator.events.has(corev1.EventTypeWarning, stdcmp.Or(c.reason, v1beta1.ReasonNotYetSupported)) {
				t.Errorf("events = %q, want a warning", l.operator.events.events)
			}
			l.checkData(3)
			l.change(func(c *v1beta1.EtcdCluster) { c.Spec = spec })
			l.settle()
			l.expectFounded(3)
			l.expectVersions(before)
		})
	}
}

func TestAChangeOfThePodsRestartsEachMemberOnce(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*v1beta1.EtcdCluster){
		"the repository": func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = "example.com/etcd" },
		"the template": func(c *v1beta1.EtcdCluster) {
			c.Spec.PodTemplate = &v1beta1.PodTemplate{
				Metadata: v1beta1.PodMetadata{Labels: map[string]string{"team": "a"}},
				Spec:     v1beta1.PodSpec{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}},
			}
		},
		"an option": withOption("snapshot-count", "1000"),
		"a restart": func(c *v1beta1.EtcdCluster) { c.Annotations = map[string]string{v1beta1.RestartAnnotation: "monday"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData()
			before := l.podUIDs()
			l.change(change)
			l.settle()
			after := l.podUIDs()
			for pod, uid := range before {
				if after[pod] == uid || after[pod] == "" {
					t.Errorf("%s was not made anew", pod)
				}
			}
			expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)
			rolled := l.operator.events.count(corev1.EventTypeNormal, v1beta1.EventMemberRolled)
			if rolled != 3 {
				t.Errorf("events = %q, want each member restarted once", l.operator.events.events)
			}
			l.checkData(3)
			l.settle()
			if diff := cmp.Diff(after, l.podUIDs()); diff != "" {
				t.Errorf("restarted again: %s", diff)
			}
		})
	}
}

func TestAPausedClusterIsLeftAloneAndReported(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Paused = true })
	l.settle()
	l.delete(l.set("prod-1"), "prod-1")
	l.settle()
	now := l.get()
	expectCondition(t, now, v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonPaused)
	expectCondition(t, now, v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumAtRisk)
	if slices.Contains(l.objectNames(), "StatefulSet/prod-1") {
		t.Error("a paused cluster was acted on")
	}
	l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Paused = false })
	l.settleUntilAvailable()
	l.expectFounded(3)
	l.checkData(3)
}

func TestARolloutRestartChangesNoPod(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	before := l.versionsOf("Pod", "PersistentVolumeClaim")
	for n := range 3 {
		set := l.set(cluster.MemberName(name, n))
		if set.Spec.Template.Annotations == nil {
			set.Spec.Template.Annotations = map[string]string{}
		}
		set.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] = "2026-01-01T00:00:00Z"
		must(t, admin.Update(t.Context(), set))
	}
	l.settle()
	l.expectVersions(before)
	l.expectFounded(3)
}

func TestAStatusThatSomebodyWipedIsRebuiltFromTheVolumes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	before, versions := l.get().Status, l.versions()
	l.wipeStatus()
	l.operator = l.newOperator(failpoint.Hooks{})
	l.settle()
	l.expectVersions(versions)
	if diff := cmp.Diff(before, l.get().Status, cmpopts.IgnoreFields(metav1.Condition{}, "LastTransitionTime")); diff != "" {
		t.Errorf("the status differs (-before +after):\n%s", diff)
	}
}

// wipes is how many writes there are to one before which the status is wiped, in the scenarios of the whole matrix.
const wipes = 10

// TestAStatusThatIsWipedAtAnyMomentKeepsNothingFromServing wipes claims, too. Only the claim tells that a member which
// fails goes back: without it, the failed member is told, and its user must correct the spec. Where a member without a
// claim is removed at that moment, its user must delete the StatefulSet.
func TestAStatusThatIsWipedAtAnyMomentKeepsNothingFromServing(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios {
		isShort := s.name == "create" || s.name == "take back"
		if !full() && !isShort || s.reason == v1beta1.ReasonRolledBack || s.returnsLate {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for n, w := range s.start(t, nil).operator.writes {
				isTold := s.claimsGone && w.Verb == "remove-member"
				if !isShort && !isTold && n%wipes > 0 {
					continue
				}
				t.Run("before "+w.String(), func(t *testing.T) {
					t.Parallel()
					l := s.start(t, func(l *lab, at failpoint.Write) {
						if at == w {
							l.wipeStatus()
						}
					})
					if isTold {
						l.deleteLeftOver()
					}
					s.check(l, "")
				})
			}
		})
	}
}

// deleteLeftOver does what the status advises about a StatefulSet that is left over.
func (l *lab) deleteLeftOver() {
	l.Helper()
	told := expectCondition(l.T, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonLeftOver).Message
	member := regexp.MustCompile(`^StatefulSet (\S+) belongs to no member.* Delete the StatefulSet\.`).FindStringSubmatch(told)
	if member == nil {
		l.Fatalf("the status does not say what to delete: %s", told)
	}
	l.delete(&appsv1.StatefulSet{}, member[1])
	l.settle()
}

func (l *lab) wipeStatus() {
	l.Helper()
	c := l.get()
	c.Status = v1beta1.EtcdClusterStatus{}
	must(l.T, admin.Status().Update(l.Context(), c))
}

func TestAKeptVolumeDecidesWhatIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(*lab)
		change  func(*v1beta1.EtcdCluster)
		reason  string
		mend    func(*lab)
		members int
	}{
		{
			name:    "refuses another minor version",
			change:  func(c *v1beta1.EtcdCluster) { c.Spec.Version = "3.5.32" },
			reason:  v1beta1.ReasonVersionMismatch,
			mend:    func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Version = "3.6.16" }) },
			members: 3,
		},
		{
			name: "refuses less than the quorum, and starts empty when told to",
			prepare: func(l *lab) {
				l.delete(&corev1.PersistentVolumeClaim{}, "data-prod-0")
				l.delete(&corev1.PersistentVolumeClaim{}, "data-prod-1")
				l.settle()
			},
			reason: v1beta1.ReasonVolumesBelowQuorum,
			mend: func(l *lab) {
				clear(l.written)
				l.change(startEmpty)
			},
			members: 3,
		},
		{
			name: "refuses peer URLs of another scheme",
			change: func(c *v1beta1.EtcdCluster) {
				c.Spec.TLS = clustertest.FromSecrets(peerSecret, "", "")
			},
			prepare: func(l *lab) { l.createCertificates() },
			reason:  v1beta1.ReasonPeerURLMismatch,
			mend:    func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.TLS = clustertest.InClear() }) },
			members: 3,
		},
		{
			name: "refuses volumes of two clusters",
			prepare: func(l *lab) {
				v := l.volume("prod-2")
				v.Annotations[cluster.AnnotationClusterToken] = "another"
				v.Annotations[cluster.AnnotationClusterUID] = "another"
				must(l.T, admin.Update(l.Context(), v))
				delete(l.memory, v.UID)
			},
			reason: v1beta1.ReasonAmbiguousVolumes,
			mend: func(l *lab) {
				v := l.volume("prod-2")
				v.Annotations[cluster.AnnotationMembership] = cluster.MembershipRetired
				must(l.T, admin.Update(l.Context(), v))
			},
			members: 2,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData()
			l.remove()
			if c.prepare != nil {
				c.prepare(l)
			}
			before := l.versions()
			change := c.change
			if change == nil {
				change = func(*v1beta1.EtcdCluster) {}
			}
			l.create(3, change)
			l.settle()
			l.expectRefused(c.reason)
			l.expectVersions(before)
			c.mend(l)
			l.settleUntilAvailable()
			l.checkData(c.members)
		})
	}
}

func TestACreationWithOtherVolumesTakesThem(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	class := "fast"
	l.create(3, func(c *v1beta1.EtcdCluster) {
		c.Spec.Storage = clustertest.Gibibytes(4)
		claim := &c.Spec.Storage.VolumeClaimTemplate.Spec
		claim.StorageClassName, claim.AccessModes = &class, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	})
	l.settleUntilAvailable()
	l.expectFounded(3)
	v := l.volume("prod-0")
	if *v.Spec.StorageClassName != class || v.Spec.AccessModes[0] != corev1.ReadWriteOncePod || !v.Spec.Resources.Requests.Storage().Equal(resource.MustParse("4Gi")) {
		t.Errorf("the volume is %+v", v.Spec)
	}
	if len(v.OwnerReferences) > 0 {
		t.Errorf("the volume has the owners %v, and would go with them", v.OwnerReferences)
	}
}

// TestVolumesThatWereMovedAwayMeanwhileAreNotTakenBackInPart moves
// two volumes away between the operator's look and its first write.
func TestVolumesThatWereMovedAwayMeanwhileAreNotTakenBackInPart(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	l.remove()
	before := l.volume("prod-0").ResourceVersion
	move := func(to string) {
		for _, member := range []string{"prod-1", "prod-2"} {
			v := l.volume(member)
			v.Labels[cluster.LabelCluster] = to
			must(t, admin.Update(t.Context(), v))
		}
	}
	var moved bool
	l.operator = l.newOperator(failpoint.Hooks{After: func(_ failpoint.Write, err error) error {
		if !moved && l.get().Status.Operation != nil { // the claim was written just now
			moved = true
			move("another")
		}
		return err
	}})
	l.create(3)
	l.settle()
	if !moved {
		t.Fatalf("no claim was seen; the operator's writes: %v", l.operator.writes)
	}
	l.expectRefused(v1beta1.ReasonVolumesBelowQuorum)
	if have := l.volume("prod-0").ResourceVersion; have != before {
		t.Error("the volume that stayed was taken back alone")
	}
	move(name)
	l.settleUntilAvailable()
	l.checkData(3)
}
