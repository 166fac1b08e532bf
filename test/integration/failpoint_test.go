//go:build integration

package integration

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
)

// scenario is something that the operator does, and in the middle of which it may crash.
type scenario struct {
	name string
	// prepare comes before, undisturbed; nil for nothing.
	prepare func(*lab)
	// begin makes the operator do it.
	begin func(*lab)
	// numbers are those of the members that run in the end; kept those of volumes that are left alone.
	numbers, kept []int
	// resized tells that members were added or removed: how many run in the end, whatever their numbers.
	resized int
	// statusesVary tells that a pass may see two changes at once, and write one status less for it.
	statusesVary bool
	// returnsLate tells that a claim returns in the end. Where the operator, or another one, has ended its work by then,
	// or the status is wiped, the user is told that it is left over.
	returnsLate bool
	// claimsGone tells that members without claims are removed. Where the status is wiped at that moment, the user is told
	// that a StatefulSet is left over: nothing else remembers who removed its member.
	claimsGone bool
	// leftPods are the pods that stay beside the members': on lost nodes until these are back, or to look at an image.
	leftPods []string
	// secrets are those that the operator makes.
	secrets []string
	// samePods tells that no pod is restarted.
	samePods bool
	// whole marks a scenario in which every write is a failpoint, also where the whole matrix does not run: see moments.
	// In the others every fourth one is then, and every call to etcd.
	whole bool
	// long marks a scenario that repeats its writes for each member: every tenth is a failpoint, and every call to etcd.
	long bool
	// every is how many writes, calls to etcd included, there are to a failpoint in another long scenario.
	every int
	// patience is how long the operator waits before it acts on a failure, or etcd before it tells another version. waits
	// is how often; once where it is zero.
	patience time.Duration
	waits    int
	// reason is what the operator tells in the end; UpToDate where it is empty.
	reason string
	// versions are what the members run in the end, in their order; nil for any.
	versions []string
	// pairs marks a scenario that two operators play, also where the whole matrix does not run: one of so many writes.
	pairs int
}

// trialTime is how long a member is ready with a new template until the operator notes that it is healthy with it.
const trialTime = 15 * time.Second

// settle lets the lab settle, and again after what the operator waits for.
func (s *scenario) settle(l *lab) {
	l.Helper()
	l.settle()
	if s.patience > 0 {
		for range max(1, s.waits) {
			l.later(s.patience)
		}
	}
	l.later(trialTime)
}

// moments returns at which moments around the n-th write the operator crashes: before it, after it, both or none. The
// objects, and etcd, are the same after one write and before the next. So the whole matrix has the moment after each
// write, and the one before the first. The sample has some of these, and every call to etcd.
func (s *scenario) moments(n int, w failpoint.Write) (before []bool) {
	isEtcd, stride := w.Kind == failpoint.EtcdKind, 4
	switch {
	case full() || s.whole:
		stride = 1
	case s.every > 0:
		isEtcd, stride = false, s.every
	case s.long:
		stride = 10
	}
	switch isFirst := n == 0; {
	case isFirst && stride == 1:
		return []bool{true, false}
	case isEtcd, stride == 1:
		return []bool{false}
	case n%stride == 0:
		return []bool{n/stride%2 == 0}
	default:
		return nil
	}
}

var scenarios = []scenario{
	{
		name:    "create",
		whole:   true,
		begin:   func(l *lab) { l.create(3) },
		numbers: []int{0, 1, 2},
	},
	{
		name:    "create with TLS",
		prepare: func(l *lab) { l.createCertificates() },
		begin:   func(l *lab) { l.create(3, withTLS) },
		numbers: []int{0, 1, 2},
	},
	{
		name:    "take back",
		whole:   true,
		prepare: func(l *lab) { l.createWithData(); l.remove() },
		begin:   func(l *lab) { l.create(3) },
		numbers: []int{0, 1, 2},
	},
	{
		name:    "take back while the old objects go away",
		prepare: func(l *lab) { l.createWithData() },
		begin: func(l *lab) {
			must(l.T, admin.Delete(l.Context(), l.newCluster(3)))
			l.create(3)
			l.round()
			must(l.T, l.kubernetes.collect(l.Context()))
		},
		numbers: []int{0, 1, 2},
	},
	{
		name:    "start empty beside kept volumes",
		prepare: func(l *lab) { l.createWithData(); l.remove(); clear(l.written) },
		begin: func(l *lab) {
			l.create(3, startEmpty)
		},
		numbers: []int{3, 4, 5},
		kept:    []int{0, 1, 2},
	},
	{
		name:    "resume a member whose StatefulSet was deleted",
		prepare: func(l *lab) { l.createWithData() },
		begin:   func(l *lab) { l.delete(&appsv1.StatefulSet{}, "prod-1") },
		numbers: []int{0, 1, 2},
	},
	{
		name:    "resume all members",
		prepare: func(l *lab) { l.createWithData() },
		begin: func(l *lab) {
			for n := range 3 {
				l.delete(&appsv1.StatefulSet{}, cluster.MemberName(name, n))
			}
		},
		numbers: []int{0, 1, 2},
	},
	{
		name:    "make the deleted PodDisruptionBudget again",
		prepare: func(l *lab) { l.createWithData() },
		begin:   func(l *lab) { l.delete(&policyv1.PodDisruptionBudget{}, name) },
		numbers: []int{0, 1, 2},
	},
	{
		name:    "correct objects that somebody changed",
		prepare: func(l *lab) { l.createWithData() },
		begin: func(l *lab) {
			budget := l.budget()
			budget.Spec.MinAvailable.IntVal = 1
			must(l.T, admin.Update(l.Context(), budget))
			set := l.set("prod-1")
			set.Spec.Template.Spec.Containers[0].Args[0] = "--name=other"
			must(l.T, admin.Update(l.Context(), set))
		},
		numbers: []int{0, 1, 2},
	},
	{
		name:    "have volumes go with their cluster",
		prepare: func(l *lab) { l.createWithData() },
		begin:   func(l *lab) { l.change(deleteVolumes(v1beta1.RetentionDelete)) },
		numbers: []int{0, 1, 2},
	},
	{
		name: "keep volumes that were to go with their cluster",
		prepare: func(l *lab) {
			l.createWithData()
			l.change(deleteVolumes(v1beta1.RetentionDelete))
			l.settle()
		},
		begin:   func(l *lab) { l.change(deleteVolumes(v1beta1.RetentionRetain)) },
		numbers: []int{0, 1, 2},
	},
}

func init() {
	managed := func(name string, begin func(*lab)) scenario {
		return scenario{
			name:    name,
			prepare: func(l *lab) { l.createWithData(withManagedTLS) },
			begin:   begin,
			numbers: []int{0, 1, 2},
			secrets: managedSecrets,
		}
	}
	created := managed("create with managed certificates", func(l *lab) { l.create(3, withManagedTLS) })
	created.prepare = nil
	scenarios = append(scenarios, created,
		managed("renew certificates that are due", func(l *lab) { l.now = l.now.Add(renewalTime) }),
		managed("issue a deleted certificate again", func(l *lab) { l.loseSecret("prod-server-tls") }),
	)
	// Both kinds of traffic take the same steps: one of them is enough where there are many.
	for name, begin := range map[string]func(*lab){
		"rotate the authority":                              func(l *lab) { l.rotate("1") },
		"put a new authority in the place of a deleted one": func(l *lab) { l.loseSecret("prod-peer-ca") },
		"start all members anew where every Secret is gone": func(l *lab) {
			l.loseSecret("prod-peer-ca")
			l.loseSecret("prod-peer-tls")
			for pod := range l.podUIDs() {
				l.delete(&corev1.Pod{}, pod)
			}
		},
	} {
		s := managed(name, begin)
		s.prepare = func(l *lab) { l.createWithData(withManagedPeers) }
		s.secrets, s.long = []string{"prod-peer-ca", "prod-peer-tls"}, true
		scenarios = append(scenarios, s)
	}
}

// loseSecret deletes a Secret, and lets the time pass in which the operator looks at the Secrets again.
func (l *lab) loseSecret(name string) {
	l.Helper()
	l.delete(&corev1.Secret{}, name)
	l.now = l.now.Add(2 * time.Hour)
}

func startEmpty(c *v1beta1.EtcdCluster) {
	c.Annotations = map[string]string{v1beta1.BootstrapAnnotation: v1beta1.BootstrapEmpty}
}

// createWithData creates a cluster of three and writes a key.
func (l *lab) createWithData(changes ...func(*v1beta1.EtcdCluster)) {
	l.Helper()
	l.create(3, changes...)
	l.settleUntilAvailable()
	l.put("acknowledged", "before")
}

// crash is where an operator dies.
type crash struct {
	write  failpoint.Write
	before bool
}

func (c crash) String() string {
	if c.before {
		return "before " + c.write.String()
	}
	return "after " + c.write.String()
}

// hooks have the operator die, that is fail and do nothing more, around the write.
func (c *crash) hooks(l *lab) failpoint.Hooks {
	die := func(w failpoint.Write, before bool) error {
		if c == nil || w != c.write || before != c.before {
			return nil
		}
		l.operator.dead = true
		return errDead
	}
	return failpoint.Hooks{
		Before: func(w failpoint.Write) error { return die(w, true) },
		After: func(w failpoint.Write, err error) error {
			if dead := die(w, false); dead != nil {
				return dead
			}
			return err
		},
	}
}

// mayLack reports whether another run of the scenario may lack a write.
func (s *scenario) mayLack(w failpoint.Write) bool {
	return s.statusesVary && w.Kind == v1beta1.EtcdClusterKind
}

// run plays the scenario with a crash, or without one if it is nil, and checks the outcome.
// It returns the writes of the operator that did not crash.
func (s *scenario) run(t *testing.T, at *crash) []failpoint.Write {
	l := newLab(t)
	if at != nil {
		mirror(t, l.namespace)
	}
	if s.prepare != nil {
		s.prepare(l)
	}
	keptVolumes := map[string]string{}
	for _, n := range s.kept {
		keptVolumes[cluster.MemberName(name, n)] = l.volume(cluster.MemberName(name, n)).ResourceVersion
	}
	clusterID := ""
	for _, seen := range l.memory {
		if len(s.kept) == 0 {
			clusterID = seen[cluster.AnnotationClusterID]
		}
	}
	var pods map[string]string
	if s.samePods {
		pods = l.podUIDs()
	}
	l.operator = l.newOperator(at.hooks(l))
	armed := l.operator
	s.begin(l)
	s.settle(l)
	if at != nil && !armed.dead && !s.mayLack(at.write) {
		t.Fatalf("the operator did not come to the failpoint; its writes: %v", armed.writes)
	}
	s.check(l, clusterID)
	for _, key := range []string{v1beta1.DefragmentAnnotation, v1beta1.MoveLeaderAnnotation, v1beta1.CheckConsistencyAnnotation} {
		if value, isSet := l.get().Annotations[key]; isSet {
			t.Errorf("the annotation %s is still %q", key, value)
		}
	}
	if s.samePods {
		l.expectSame(pods)
	}
	for member, version := range keptVolumes {
		if have := l.volume(member).ResourceVersion; have != version {
			t.Errorf("the kept volume of %s was written to", member)
		}
	}
	l.expectRest()
	return slices.Clone(armed.writes)
}

// check fails unless the cluster serves all acknowledged data under its cluster ID,
// nothing is missing or left over, and no claim stands.
func (s *scenario) check(l *lab, clusterID string) {
	l.Helper()
	c, numbers := l.get(), s.numbers
	if s.resized > 0 {
		numbers = l.runningNumbers()
		if len(numbers) != s.resized {
			l.Errorf("the members %v run, and %d are wanted", numbers, s.resized)
		}
	}
	want := objectsOf(numbers...)
	if s.resized > 0 {
		want = append(want, l.retiredVolumes()...)
	}
	for _, pod := range s.leftPods {
		want = append(want, "Pod/"+pod)
	}
	for _, secret := range s.secrets {
		want = append(want, "Secret/"+secret)
	}
	for _, n := range s.kept {
		want = append(want, "PersistentVolumeClaim/"+cluster.VolumeName(cluster.MemberName(name, n)))
	}
	slices.Sort(want)
	l.expectObjects(want)
	expectCondition(l.T, c, v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
	expectCondition(l.T, c, v1beta1.ConditionProgressing, metav1.ConditionFalse, cmp.Or(s.reason, v1beta1.ReasonUpToDate))
	if s.reason == "" {
		expectCondition(l.T, c, v1beta1.ConditionDegraded, metav1.ConditionFalse, v1beta1.ReasonAsExpected)
	}
	if c.Status.Operation != nil {
		l.Errorf("the claim %+v was left", c.Status.Operation)
	}
	var versions []string
	for _, m := range c.Status.Members {
		versions = append(versions, m.Version)
	}
	if s.versions != nil && !slices.Equal(versions, s.versions) {
		l.Errorf("the members run %v, want %v", versions, s.versions)
	}
	if clusterID != "" && c.Status.ClusterID != clusterID {
		l.Errorf("cluster ID = %s, want %s as before", c.Status.ClusterID, clusterID)
	}
	if wrong := l.kubernetes.world.CorruptMembers(); len(wrong) > 0 {
		l.Errorf("the data of %v are wrong still", wrong)
	}
	expectCondition(l.T, c, v1beta1.ConditionStorageAlarm, metav1.ConditionFalse, v1beta1.ReasonNoAlarm)
	l.expectSealed(c, numbers...)
	l.put("acknowledged after", "yes")
	l.checkData(len(numbers))
}

// runningNumbers returns the numbers of the members that have a StatefulSet.
func (l *lab) runningNumbers() []int {
	l.Helper()
	var sets appsv1.StatefulSetList
	must(l.T, l.kubernetes.list(l.Context(), &sets))
	var numbers []int
	for i := range sets.Items {
		if n, ok := cluster.MemberNumber(name, sets.Items[i].Name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// retiredVolumes names the volumes that removed members left, as Kind/name.
func (l *lab) retiredVolumes() []string {
	l.Helper()
	var volumes corev1.PersistentVolumeClaimList
	must(l.T, l.kubernetes.list(l.Context(), &volumes))
	var names []string
	for i := range volumes.Items {
		if v := &volumes.Items[i]; v.Annotations[cluster.AnnotationMembership] == cluster.MembershipRetired {
			names = append(names, "PersistentVolumeClaim/"+v.Name)
		}
	}
	return names
}

func resize(size int32) func(*lab) {
	return func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Replicas = size }) }
}

// changesItsMind wants two members more, and two less in the middle of that.
func changesItsMind(l *lab) {
	resize(5)(l)
	for range 4 {
		l.round()
	}
	resize(1)(l)
}

func label(value string) func(*lab) {
	return func(l *lab) {
		l.change(func(c *v1beta1.EtcdCluster) {
			c.Spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"team": value}}}
		})
	}
}

func askForRestart(l *lab) { ask(v1beta1.RestartAnnotation, "now")(l) }

// ask sets an annotation of the cluster.
func ask(key, value string) func(*lab) {
	return func(l *lab) {
		l.change(func(c *v1beta1.EtcdCluster) { metav1.SetMetaDataAnnotation(&c.ObjectMeta, key, value) })
	}
}

func breakImage(l *lab) {
	l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = unpullable })
}

func deleteScaledVolumes(c *v1beta1.EtcdCluster) {
	c.Spec.Storage = &v1beta1.Storage{RetentionPolicy: &v1beta1.RetentionPolicy{WhenScaled: v1beta1.RetentionDelete}}
}

// ofSize creates a cluster of a size and writes a key.
func ofSize(size int32, changes ...func(*v1beta1.EtcdCluster)) func(*lab) {
	return func(l *lab) {
		l.Helper()
		l.create(size, changes...)
		l.settleUntilAvailable()
		l.put("acknowledged", "before")
		l.lead("prod-0")
	}
}

// lead makes a member the leader: which one a new cluster elects differs from run to run.
func (l *lab) lead(member string) {
	l.Helper()
	id := cluster.ParseID(l.volume(member).Annotations[cluster.AnnotationMemberID])
	for _, address := range l.kubernetes.running() {
		if err := l.kubernetes.world.MoveLeader(address, id); err == nil {
			return
		}
	}
	l.Fatalf("no member hands over to %s", member)
}

func init() {
	scenarios = append(scenarios,
		scenario{name: "grow from 1 to 3", prepare: ofSize(1), begin: resize(3), resized: 3, whole: true, pairs: 5},
		scenario{name: "grow from 3 to 5", prepare: ofSize(3), begin: resize(5), resized: 5, long: true},
		scenario{name: "shrink from 5 to 3", prepare: ofSize(5), begin: resize(3), resized: 3, long: true},
		scenario{name: "shrink from 3 to 1 and delete the volumes", prepare: ofSize(3, deleteScaledVolumes), begin: resize(1), resized: 1, pairs: 5},
		scenario{name: "change the mind from 3 to 5 to 1", prepare: ofSize(3), begin: changesItsMind, resized: 1, long: true, pairs: 9},
		scenario{name: "roll a label", prepare: ofSize(3), begin: label("a"), numbers: []int{0, 1, 2}, long: true, pairs: 5},
		scenario{name: "restart for the annotation", prepare: ofSize(3), begin: askForRestart, numbers: []int{0, 1, 2}, long: true, pairs: 9},
		scenario{name: "defragment all members", prepare: ofSize(3), begin: ask(v1beta1.DefragmentAnnotation, "now"), numbers: []int{0, 1, 2}, samePods: true, pairs: 3},
		scenario{name: "move the leader", prepare: ofSize(3), begin: ask(v1beta1.MoveLeaderAnnotation, "prod-2"), numbers: []int{0, 1, 2}, samePods: true, whole: true, pairs: 1},
		scenario{name: "restart the only member", prepare: ofSize(1), begin: askForRestart, numbers: []int{0}},
		scenario{
			name: "roll back from an image that cannot be pulled", prepare: ofSize(3), begin: breakImage, numbers: []int{0, 1, 2},
			patience: 2 * time.Minute, reason: v1beta1.ReasonRolledBack, pairs: 4,
		},
		scenario{name: "grow with managed certificates", prepare: ofSize(1, withManagedTLS), begin: resize(3), resized: 3, secrets: managedSecrets, long: true},
	)
}

func TestAClusterIsResizedUpAndDown(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ofSize(1)(l)
	used := map[int]bool{}
	for _, size := range []int32{3, 5, 3, 1} {
		before := l.runningNumbers()
		resize(size)(l)
		s := scenario{resized: int(size)}
		l.settle()
		s.check(l, "")
		for _, n := range l.runningNumbers() {
			if used[n] && !slices.Contains(before, n) {
				t.Errorf("the number %d is used again", n)
			}
			used[n] = true
		}
		l.expectRest()
	}
}

// TestAnOperatorThatCrashesAroundAnyWriteIsFinishedByTheNext records the writes of each scenario,
// then plays it again once for each moment before and after each of them.
func TestAnOperatorThatCrashesAroundAnyWriteIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			writes := s.run(t, nil)
			if len(writes) == 0 {
				t.Fatal("the operator wrote nothing")
			}
			t.Logf("%d writes: %s", len(writes), list(writes))
			for n, w := range writes {
				for _, before := range s.moments(n, w) {
					at := &crash{write: w, before: before}
					t.Run(fmt.Sprint(at), func(t *testing.T) {
						t.Parallel()
						s.run(t, at)
					})
				}
			}
		})
	}
}

func list(writes []failpoint.Write) string {
	texts := make([]string, len(writes))
	for i, w := range writes {
		texts[i] = w.String()
	}
	return strings.Join(texts, ", ")
}

func TestTheNumberOfTheNextMemberSurvivesACorrectionOfTheService(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ofSize(1)(l)
	resize(3)(l)
	l.settle()
	read := func() *corev1.Service {
		service := &corev1.Service{}
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: name}, service))
		return service
	}
	service := read()
	service.Spec.PublishNotReadyAddresses = false
	must(t, admin.Update(t.Context(), service))
	l.settle()
	service = read()
	if noted := service.Annotations[cluster.AnnotationNextMember]; noted != "3" || !service.Spec.PublishNotReadyAddresses {
		t.Errorf("the next number is %q, and addresses that are not ready are published: %t", noted, service.Spec.PublishNotReadyAddresses)
	}
}
