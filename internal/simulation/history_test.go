package simulation_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/pki"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

var key = types.NamespacedName{Namespace: "shop", Name: "prod"}

var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return s
}()

var traffics = []cluster.Traffic{cluster.PeerTraffic, cluster.ClientTraffic}

// history is what happens to one cluster, and what must be true at each moment of it.
type history struct {
	*simulation.World
	operator *operator
	slow     *operator // another one, which is parked in the middle of a pass; nil for none
	spec     v1beta1.EtcdClusterSpec
	// annotations are those with which the cluster is created again.
	annotations map[string]string
	// refused are the kinds of which a policy refuses every write.
	refused []string
	// skew is how far the operator's clock is behind, skewed whether it ever was.
	skew   time.Duration
	skewed bool
	// seesVolumes tells that the operator may read PersistentVolumes.
	seesVolumes bool
	// operatorImage is the operator's own image. With it, the operator looks at images of etcd before members run them.
	operatorImage string
	volumeFaults
	versionFaults
	dataFaults

	// acknowledged is the last value that clients wrote, by cluster ID.
	acknowledged map[cluster.ID]string
	membership
	// inMemory are the pods in whose memory members were, by founding and name.
	inMemory map[string]types.UID
	// marked are volumes on which a user wrote another etcd cluster's ID, with the ID that was there.
	marked map[types.UID]string
	// closed are members that could only start over data of their own, by founding and name.
	closed map[string]bool
	// restarted are the pods that the operator took down while they served, until they serve again.
	restarted map[string]types.UID
	// restarts is how often the operator took down a member that served.
	restarts int
	clients  []clientParty
	// lapsed tells that certificates expired: nobody accepts them any more, whoever issued them.
	lapsed bool
	// harmed tells that users took or emptied a volume, or changed the spec.
	harmed bool
	// wiped tells that somebody wiped the status, and with it a claim.
	wiped bool
	// writes is how many the last pass made, changes how many of them changed more than the length of etcd's log.
	writes, changes int
	trace           []traced
	broken          []string
	// visit is told of each state between two steps; nil for nobody.
	visit func()
}

// clientParty took its certificate and its authorities from the Secret for clients, and may go on with them for a time.
type clientParty struct {
	simulation.Party
	until time.Time
}

func newHistory(size int32, managed bool) *history {
	built := clustertest.MakeCluster(key.Name).Replicas(size).Snapshot().Cluster
	if managed {
		built.Spec.TLS = nil
	}
	h := &history{
		World: simulation.NewWorld(scheme, clustertest.Now), spec: built.Spec,
		acknowledged: map[cluster.ID]string{}, closed: map[string]bool{}, restarted: map[string]types.UID{},
		marked: map[types.UID]string{}, inMemory: map[string]types.UID{}, seesVolumes: true, volumeFaults: newVolumeFaults(),
		membership: membership{ids: map[string]cluster.ID{}},
	}
	h.Started, h.Collected = h.checkStart, h.checkCollected
	h.Add(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{
		Name: "standard", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
	}})
	h.createCluster()
	h.operator = h.startOperator()
	return h
}

// createCluster is the user's kubectl apply. Clients of an earlier cluster end with it.
func (h *history) createCluster() {
	h.clients, h.lapsed = nil, false
	clear(h.restarted)
	h.Add(&v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Annotations: h.annotations}, Spec: *h.spec.DeepCopy(),
	})
}

// watchTimeout is when a client asks anew for what it watches, at the latest: no cache stays behind for longer.
const watchTimeout = 10 * time.Minute

// wait lets time pass.
func (h *history) wait(d time.Duration) {
	if h.Now = h.Now.Add(d); d > watchTimeout {
		h.operator.cache.CatchUp()
	}
}

func (h *history) operatorsTime() time.Time { return h.Now.Add(-h.skew) }

// cluster returns the EtcdCluster, nil where there is none.
func (h *history) cluster() *v1beta1.EtcdCluster {
	c, _ := simulation.Object[*v1beta1.EtcdCluster](h.World, key.Namespace, key.Name)
	return c
}

// editCluster is the user's kubectl edit.
func (h *history) editCluster(edit func(*v1beta1.EtcdCluster)) {
	if c := h.cluster(); c != nil {
		simulation.Edit(h.World, c, edit)
	}
}

func (h *history) pods() []*corev1.Pod { return simulation.Objects[*corev1.Pod](h.World) }

func (h *history) claims() []*corev1.PersistentVolumeClaim {
	return simulation.Objects[*corev1.PersistentVolumeClaim](h.World)
}

func (h *history) sets() []*appsv1.StatefulSet {
	return simulation.Objects[*appsv1.StatefulSet](h.World)
}

func (h *history) secrets() []*corev1.Secret { return simulation.Objects[*corev1.Secret](h.World) }

func (h *history) secret(name string) *corev1.Secret {
	s, _ := simulation.Object[*corev1.Secret](h.World, key.Namespace, name)
	return s
}

// pass runs the operator once. A process that was killed is started again.
func (h *history) pass(plan func(*operator)) error {
	h.operator.plan()
	if plan != nil {
		plan(h.operator)
	}
	undisturbed := plan == nil && h.isUndisturbed()
	err := h.operator.pass()
	h.countMissing(undisturbed)
	h.writes, h.changes = h.operator.writes, h.operator.writes-h.operator.appended
	if h.operator.killed {
		h.operator = h.startOperator()
	}
	h.visited()
	return err
}

// memberOf returns the name of the member of a pod, a claim or a StatefulSet.
func memberOf(object client.Object) string { return object.GetLabels()[cluster.LabelMember] }

// recorded reports whether a claim says that its member was seen started.
func recorded(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[cluster.AnnotationStarted] != "" || claim.Annotations[cluster.AnnotationClusterID] != ""
}

func identityOf(claim *corev1.PersistentVolumeClaim) string {
	return claim.Annotations[cluster.AnnotationClusterToken] + " " + memberOf(claim)
}

func (h *history) claimOf(member string) *corev1.PersistentVolumeClaim {
	c, _ := simulation.Object[*corev1.PersistentVolumeClaim](h.World, key.Namespace, cluster.VolumeName(member))
	return c
}

// isFounding reports whether annotations start a member with the founding list.
func isFounding(annotations map[string]string) bool {
	return annotations[cluster.AnnotationInitialClusterState] == fake.StateNew
}

// closes reports whether the member of a claim can only start over data of its own: it has some, it is recorded, and
// neither its template nor its pod starts an empty volume.
func (h *history) closes(claim *corev1.PersistentVolumeClaim) bool {
	if !recorded(claim) || !h.Etcd.HasData(h.Disk(claim)) {
		return false
	}
	if set, ok := simulation.Object[*appsv1.StatefulSet](h.World, key.Namespace, memberOf(claim)); ok && render.StartsEmpty(set.Spec.Template.Annotations) {
		return false
	}
	pod, ok := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(memberOf(claim)))
	return !ok || !render.StartsEmpty(pod.Annotations)
}

// losable reports whether a volume's loss would be seen: nothing ever ran on it, or its member can only start over its
// data. In between, from etcd's first start to the operator's next pass, nobody can know.
func (h *history) losable(claim *corev1.PersistentVolumeClaim) bool {
	return !h.Etcd.HasData(h.Disk(claim)) || h.closes(claim)
}

// put writes through every member that serves. Before it reads, so that no write hides the loss of another.
func (h *history) put() {
	h.checkWrites()
	for _, pod := range h.pods() {
		voters := h.Etcd.Voters(h.Address(pod))
		value := "value-" + h.Next()
		if len(voters) > 0 && h.Etcd.Put(h.Address(pod), "key", value) == nil {
			h.acknowledged[h.clusterID(pod)] = value
		}
	}
}

func (h *history) clusterID(pod *corev1.Pod) cluster.ID { return h.Etcd.ClusterID(h.Address(pod)) }

// observe notes what the invariants need to know of the moment, and checks what must be true at each.
func (h *history) observe() {
	for _, claim := range h.claims() {
		if h.closes(claim) {
			h.closed[identityOf(claim)] = true
		}
	}
	for _, pod := range h.pods() {
		if uid, ok := h.restarted[pod.Name]; ok && uid != pod.UID && h.Etcd.Serves(h.Address(pod)) {
			delete(h.restarted, pod.Name)
		}
	}
	h.checkWrites()
	h.checkNames()
	h.checkVersions()
	h.checkTrust()
}

// checkWrites fails where a member reads another value than the last one that etcd acknowledged.
func (h *history) checkWrites() {
	for _, pod := range h.pods() {
		value, err := h.Etcd.Get(h.Address(pod), "key")
		if want := h.acknowledged[h.clusterID(pod)]; err == nil && value != want {
			h.wrong("etcd cluster %s lost an acknowledged write: %s reads %q, not %q", h.clusterID(pod), pod.Name, value, want)
		}
	}
}

// forgive tells that a member went down by other hands than the operator's.
func (h *history) forgive(pod *corev1.Pod) { delete(h.restarted, pod.Name) }

// checkCall holds a write that the operator is about to make against what it may never try.
func (h *history) checkCall(o *operator, call *simulation.Call) {
	if call.Kind == etcdKind {
		h.checkChange(o, call)
	}
	paused := o.seen != nil && o.seen.Spec.Paused && o.seen.DeletionTimestamp == nil
	if paused && call.Kind != "Secret" && call.Verb != simulation.UpdateStatus && !keepsFromFounding(call) {
		h.wrong("%s of a paused cluster", call)
	}
	memberKinds := []string{"StatefulSet", "Pod", "PersistentVolumeClaim"}
	if slices.Contains(memberKinds, call.Kind) && !o.late && !o.cache.Behind() && len(h.clusterIDs()) > 1 && !letsStay(o, call) {
		h.wrong("%s, and the volumes are of the etcd clusters %v", call, h.clusterIDs())
	}
}

// letsStay reports whether a write may be the one that lets a volume stay which would go with its cluster.
func letsStay(o *operator, call *simulation.Call) bool {
	claim, isClaim := call.Live.(*corev1.PersistentVolumeClaim)
	return isClaim && call.Verb == simulation.Patch && len(claim.OwnerReferences) > 0 && o.seen != nil && !cluster.DeletesVolumes(o.seen)
}

// keepsFromFounding reports whether a write is a record on a volume, or makes a template or a pod refuse an empty one.
func keepsFromFounding(call *simulation.Call) bool {
	set, isSet := call.Live.(*appsv1.StatefulSet)
	return isSet && call.Verb == simulation.Update && render.StartsEmpty(set.Spec.Template.Annotations) ||
		call.Verb == simulation.Patch && slices.Contains([]string{"PersistentVolumeClaim", "ConfigMap", "Pod"}, call.Kind)
}

// clusterIDs are those of the etcd clusters that the cluster's volumes were recorded for.
func (h *history) clusterIDs() []string {
	var ids []string
	for _, claim := range h.claims() {
		id := claim.Annotations[cluster.AnnotationClusterID]
		mine := h.cluster() != nil && h.isListed(memberOf(claim)) && claim.Annotations[cluster.AnnotationClusterUID] == string(h.cluster().UID)
		if mine && id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// checkWrite holds a write that was made against what must never be.
func (h *history) checkWrite(o *operator, call *simulation.Call) {
	switch stored := call.Stored.(type) {
	case *v1beta1.EtcdCluster:
		for _, c := range stored.Status.Conditions {
			if c.Reason == "" || c.Message == "" {
				h.wrong("the condition %s has no reason or no message", c.Type)
			}
		}
	case *appsv1.StatefulSet:
		h.checkSet(o, call, stored)
	case *corev1.PersistentVolumeClaim:
		h.checkClaim(call, stored)
	}
	if pod, ok := call.Live.(*corev1.Pod); ok {
		h.checkPod(o, call, pod)
	}
	if call.Verb == simulation.Delete && (call.Kind == "Secret" || call.Kind == "EtcdCluster") {
		h.wrong("%s", call)
	}
	if call.Verb == simulation.Delete && call.Kind == "StatefulSet" && h.isInEtcd(call.Key.Name) {
		h.wrong("%s, whose member is in etcd's list", call)
	}
	if claim, ok := call.Live.(*corev1.PersistentVolumeClaim); ok && call.Verb == simulation.Delete && h.Etcd.HasData(h.Disk(claim)) {
		h.checkDataDeletion(call, claim)
	}
}

func (h *history) checkSet(o *operator, call *simulation.Call, set *appsv1.StatefulSet) {
	claim := h.claimOf(set.Name)
	known := claim != nil && recorded(claim)
	live, ok := call.Live.(*appsv1.StatefulSet)
	wasClosed := ok && !render.StartsEmpty(live.Spec.Template.Annotations)
	switch founding := isFounding(set.Spec.Template.Annotations); {
	case founding && known && !o.late:
		h.wrong("%s founds again, and the member was seen started", call)
	case !render.StartsEmpty(set.Spec.Template.Annotations) && !wasClosed && claim != nil && !known:
		h.wrong("%s starts only over data, and nobody recorded that the member has started", call)
	}
	if !ok || call.Verb == simulation.Create {
		return
	}
	if stops(set) && !stops(live) && h.runsOnItsOwnVolume(set.Name) && !h.goesBack(set.Name) {
		h.wrong("%s stops a member that runs on its own volume", call)
	}
	before, errBefore := cluster.DecodeIntent(live.Annotations[cluster.AnnotationIntent])
	after, errAfter := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent])
	if errBefore != nil || errAfter != nil || len(before.Differences(after)) > 0 && !h.rolls(set.Name) && !h.takesBack(set, before, after) && !o.late {
		h.wrong("%s changes the intent of a member that is not being restarted", call)
	}
}

// takesBack reports whether a template gets the version and the image of the pod that runs, and nothing else: the
// operation that wrote others has ended.
func (h *history) takesBack(set *appsv1.StatefulSet, before, after cluster.Intent) bool {
	pod, ok := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(set.Name))
	return ok && pod.Spec.Containers[0].Image == set.Spec.Template.Spec.Containers[0].Image && len(before.WithVersionOf(after).Differences(after)) == 0
}

// rolls reports whether the operation under way writes the template of a member.
func (h *history) rolls(member string) bool {
	op := h.cluster().Status.Operation
	return op != nil && (op.Type == v1beta1.OperationBootstrap || op.Member == member &&
		(op.Type == v1beta1.OperationRollMember || op.Type == v1beta1.OperationRollBack || op.Type == v1beta1.OperationAddMember))
}

// goesBack reports whether the member is being rolled back. The last one of a minor step is stopped first.
func (h *history) goesBack(member string) bool {
	op := h.cluster().Status.Operation
	return op != nil && op.Member == member && op.Type == v1beta1.OperationRollBack
}

// isAskedFor reports whether the user asked for the restart under way: then the only member restarts too.
func (h *history) isAskedFor() bool {
	op := h.cluster().Status.Operation
	return op != nil && plan.IsRoll(op.Reason)
}

func stops(set *appsv1.StatefulSet) bool { return set.Spec.Replicas != nil && *set.Spec.Replicas == 0 }

// runsOnItsOwnVolume reports whether the etcd of a member runs, and the operator can know that its volume is its own.
func (h *history) runsOnItsOwnVolume(member string) bool {
	pod, ok := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(member))
	claim := h.claimOf(member)
	if _, inMemory := h.inMemory[member]; inMemory && ok && pod.DeletionTimestamp != nil {
		return false // the data go with it
	}
	return ok && h.Runs(pod) && (claim == nil || !h.replaced[claim.UID] && !h.unknown[claim.UID])
}

func (h *history) checkClaim(call *simulation.Call, claim *corev1.PersistentVolumeClaim) {
	if call.Verb == simulation.Create && h.closed[identityOf(claim)] && !h.isOfDeleted(claim) {
		h.wrong("%s: the member had started, so its volume is lost", call)
	}
	live, ok := call.Live.(*corev1.PersistentVolumeClaim)
	if !ok {
		return
	}
	const user = cluster.AnnotationClusterUID
	taken := claim.Annotations[user] != live.Annotations[user]
	if owner := cluster.DeletedWith(claim); taken && owner != "" && string(owner) != claim.Annotations[user] {
		h.wrong("%s takes back a volume that is deleted with another cluster", call)
	}
}

// isOfDeleted reports whether the cluster of a claim was deleted. Its volumes are not missed: a pass that was parked
// since may make one again.
func (h *history) isOfDeleted(claim *corev1.PersistentVolumeClaim) bool {
	return h.cluster() == nil || claim.Annotations[cluster.AnnotationClusterUID] != string(h.cluster().UID)
}

// checkPod holds a pod's end against the quorum, and a pod's new form against the memory of its volume.
func (h *history) checkPod(o *operator, call *simulation.Call, pod *corev1.Pod) {
	if stored, ok := call.Stored.(*corev1.Pod); ok && call.Verb == simulation.Patch {
		claim := h.claimOf(memberOf(pod))
		if render.StartsEmpty(pod.Annotations) && !render.StartsEmpty(stored.Annotations) && claim != nil && !recorded(claim) {
			h.wrong("%s starts only over data, and nobody recorded that the member has started", call)
		}
		return
	}
	if call.Verb != simulation.Delete && call.Verb != simulation.Evict {
		return
	}
	if !o.saw(pod) {
		h.wrong("%s, another pod than the one that was decided about", call)
	}
	h.checkClaimed(o, call, pod)
	if !h.Runs(pod) || pod.DeletionTimestamp != nil {
		return
	}
	serves, left, voters := false, 0, h.Etcd.Voters(h.Address(pod))
	for _, v := range voters {
		victim := v.Name == memberOf(pod)
		serves = serves || victim && v.Alive
		if !victim && v.Alive && !h.isGoing(v.Name) {
			left++
		}
	}
	if !serves {
		return
	}
	// Between a decision and a plain deletion other members may end: eviction alone is refused then.
	if call.Verb == simulation.Delete && !o.late && !o.cache.Behind() && h.Etcd.Ready(h.Address(pod)) {
		h.wrong("%s, which serves, and its budget was not asked", call)
	}
	isOnly := len(voters) == 1 && h.isAskedFor()
	if !isOnly && left < cluster.Quorum(len(voters)) && (!o.late || call.Verb == simulation.Evict) {
		h.wrong("%s leaves %d of %d voters", call, left, len(voters))
	}
	h.forgiveRemoved()
	for other := range h.restarted {
		if other != pod.Name && (!o.late || !h.wiped) {
			h.wrong("%s while %s, which the operator restarted, does not serve again", call, other)
		}
	}
	h.restarted[pod.Name] = pod.UID
	h.restarts++
}

// isGoing reports whether a member's pod is deleted and still runs.
func (h *history) isGoing(member string) bool {
	pod, ok := simulation.Object[*corev1.Pod](h.World, key.Namespace, cluster.PodName(member))
	return ok && pod.DeletionTimestamp != nil
}

// checkStart holds the start of etcd against what lies on the volume.
func (h *history) checkStart(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, start fake.StartOptions) {
	if claim == nil {
		h.checkStartInMemory(pod, start)
		return
	}
	if h.replaced[claim.UID] {
		h.wrong("%s starts on volume %s, which is not its own", start.Name, claim.Spec.VolumeName)
	}
	empty := !h.Etcd.HasData(start.Volume)
	if empty && start.State == fake.StateNew && h.closed[start.Token+" "+start.Name] && !h.isOfDeleted(claim) {
		h.wrong("%s starts with new over an empty volume, and it had started before", start.Name)
	}
	h.checkStartedVersion(start)
	owner := metav1.GetControllerOf(pod)
	set, ok := simulation.Object[*appsv1.StatefulSet](h.World, pod.Namespace, start.Name)
	if empty || owner == nil || !ok || set.UID != owner.UID {
		return
	}
	if user := metav1.GetControllerOf(set); user != nil && claim.Annotations[cluster.AnnotationClusterUID] != string(user.UID) {
		h.wrong("%s starts over the data of another cluster", start.Name)
	}
}

// checkCollected is asked before the garbage collector deletes an object.
func (h *history) checkCollected(object client.Object) {
	claim, ok := object.(*corev1.PersistentVolumeClaim)
	if !ok {
		return
	}
	if c := h.cluster(); c != nil && c.DeletionTimestamp == nil && claim.Annotations[cluster.AnnotationClusterUID] == string(c.UID) {
		h.wrong("%s is deleted with another cluster, and this one uses it", claim.Name)
	}
	h.harmed = true // the user said so
}

// checkTrust fails where members that run do not accept each other, or a client that did not have the overlap to load
// its certificate again.
func (h *history) checkTrust() {
	for _, s := range h.secrets() {
		if certificate := s.Data[pki.TLSKeys.Certificate]; !strings.HasSuffix(s.Name, "-ca") {
			h.lapsed = h.lapsed || len(certificate) > 0 && !h.Valid(simulation.Party{Certificate: certificate})
		}
	}
	if h.lapsed {
		return
	}
	peers := h.members(cluster.PeerTraffic)
	for _, a := range peers {
		for _, b := range peers {
			if !h.Accepts(a, b) {
				h.wrong("the peer %s does not accept the certificate of %s", a.Name, b.Name)
			}
		}
	}
	h.renewClients()
	for _, member := range h.members(cluster.ClientTraffic) {
		for _, c := range h.clients {
			if !h.Accepts(member, c.Party) || !h.Accepts(c.Party, member) {
				h.wrong("%s and a client do not accept each other", member.Name)
			}
		}
	}
}

// members returns the members of this very cluster that run and encrypt a kind of traffic: those of a deleted one, and
// those that lost their StatefulSet, are about to be collected. A node that is lost cannot bring its members anything.
func (h *history) members(traffic cluster.Traffic) []simulation.Party {
	return slices.DeleteFunc(h.Parties(traffic), func(p simulation.Party) bool {
		set, ok := simulation.Object[*appsv1.StatefulSet](h.World, key.Namespace, memberOf(p.Pod))
		return h.IsLost(p.Pod) || !ok || h.cluster() == nil || !metav1.IsControlledBy(p.Pod, set) || !cluster.Owns(h.cluster(), set)
	})
}

// renewClients has clients that took the Secret earlier go on with it for the overlap, and one take it as it is.
func (h *history) renewClients() {
	secret := h.secret(cluster.CertificateName(key.Name, cluster.RoleClient))
	if secret != nil && h.cluster() != nil && cluster.Owns(h.cluster(), secret) {
		now := simulation.Party{Name: "a client", Certificate: secret.Data[pki.TLSKeys.Certificate], Authorities: secret.Data[pki.TLSKeys.Authorities]}
		last := len(h.clients) - 1
		if last < 0 || string(h.clients[last].Certificate)+string(h.clients[last].Authorities) != string(now.Certificate)+string(now.Authorities) {
			if last >= 0 {
				h.clients[last].until = h.Now.Add(h.grace())
			}
			h.clients = append(h.clients, clientParty{now, h.Now.AddDate(100, 0, 0)})
		}
	}
	h.clients = slices.DeleteFunc(h.clients, func(c clientParty) bool { return !c.until.After(h.Now) })
}

// grace is how long a client may go on with what it took: the overlap, but for what the operator's clock was wrong.
func (h *history) grace() time.Duration {
	if h.skewed {
		return overlap - clockStep
	}
	return overlap
}

// clockStep is less than what the validity of certificates leaves for clocks that differ: 5 minutes.
const clockStep = 4 * time.Minute

// intact reports whether a Secret may be deleted such that the operator can make it again: no other one is missing, and
// no rotation is under way.
func (h *history) intact() bool {
	for _, traffic := range traffics {
		authority := h.secret(cluster.AuthorityName(key.Name, traffic))
		if authority == nil || authority.Annotations[cluster.AnnotationAuthorityPhase] != "" {
			return false
		}
		for _, role := range traffic.Roles() {
			c := h.secret(cluster.CertificateName(key.Name, role))
			if c == nil || !slices.Equal(simulation.Fingerprints(c.Data[pki.TLSKeys.Authorities]), simulation.Fingerprints(authority.Data[pki.TLSKeys.Authorities])) {
				return false
			}
		}
	}
	return true
}

// restore puts an authority that nobody knows in the place of one, as from a backup of another time.
func (h *history) restore(authority *corev1.Secret) {
	made, err := pki.NewAuthority("older", h.Now, authorityLifetime)
	if err != nil {
		panic(err)
	}
	certificate, private, err := made.PEM()
	if err != nil {
		panic(err)
	}
	simulation.Edit(h.World, authority, func(s *corev1.Secret) {
		s.Data = map[string][]byte{pki.TLSKeys.Certificate: certificate, pki.TLSKeys.Key: private, pki.TLSKeys.Authorities: certificate}
	})
}

// progressing returns the condition that tells what the operator decided last.
func (h *history) progressing() metav1.Condition { return h.condition(v1beta1.ConditionProgressing) }

func (h *history) condition(kind string) metav1.Condition {
	if c := h.cluster(); c != nil {
		if condition := meta.FindStatusCondition(c.Status.Conditions, kind); condition != nil {
			return *condition
		}
	}
	return metav1.Condition{}
}

// waitsForItsUser reports whether pods are to be deleted by the user: that of the only member, or, where certificates
// expired before the members were told of another authority, or a Secret is gone that they trust, all at once.
func (h *history) waitsForItsUser() bool {
	decided := h.progressing()
	if c := h.cluster(); c != nil && decided.Reason == v1beta1.ReasonResuming { // what has data and no pod waits for it
		degraded := meta.FindStatusCondition(c.Status.Conditions, v1beta1.ConditionDegraded)
		return degraded != nil && strings.Contains(degraded.Message, "delete the pods of these members at once")
	}
	return strings.Contains(decided.Message, "it is the only member") || h.lapsed && strings.Contains(decided.Message, "elete all the cluster's pods at once")
}

func (h *history) visited() {
	if h.visit != nil {
		h.visit()
	}
}

func (h *history) runKubernetes() {
	h.RunStatefulSets()
	h.visited()
	h.RunKubelets()
	h.visited()
	h.ObserveBudgets()
}

// settleRounds is how many passes a cluster may take to come to rest, many times what it needs.
const settleRounds = 150

// isComparing reports whether the operator compares the members' data.
func (h *history) isComparing() bool {
	c := h.cluster()
	return c != nil && c.Status.Operation != nil && c.Status.Operation.Type == v1beta1.OperationCheckConsistency
}

// looksAgain reports whether the operator looks at an image that cannot be pulled. It does so every five minutes.
func (h *history) looksAgain() bool {
	reasons := []string{v1beta1.ReasonCheckingImage, v1beta1.ReasonImageNotUsable}
	return strings.HasSuffix(h.spec.Image.Tag, simulation.TagUnpullable) && slices.Contains(reasons, h.progressing().Reason)
}

// rest runs passes until several in a row have nothing to do, and reports whether they did. Secrets are read again
// within an hour, and rotations wait for the overlap.
func (h *history) rest() bool {
	idle, rounds := 0, settleRounds
	if h.isInMemory() {
		rounds *= 4 // each change of a pod takes a new member
	}
	for range rounds {
		h.runKubernetes()
		h.CollectGarbage(1 << 10)
		h.removeForeignLearners()
		h.cancelForeignDowngrade()
		h.findWrongData()
		h.observe()
		err, compared := h.pass(nil), false
		for compares := h.isComparing(); err == nil && compares; { // a pass asks a member, and one more ends the alarms
			compares, compared = h.isComparing(), true
			h.wait(time.Second)
			err = h.pass(nil)
		}
		if err != nil {
			h.wrong("a pass that nobody disturbed failed: %v", err)
			return false
		}
		idle++
		hourly := compared && h.harmed // beside members that are silent for good, data are compared hourly
		if h.changes > 0 && !hourly && !h.looksAgain() {
			idle = 0
		}
		if h.waitsForItsUser() {
			for _, pod := range h.pods() {
				h.KillPod(pod)
			}
			idle = 0
		}
		if idle == 4 {
			return true
		}
		h.wait(overlap / 2)
		if idle > 1 {
			h.wait(overlap / 2)
		}
	}
	return false
}

// mark is a user who writes the ID of an etcd cluster on a volume.
func (h *history) mark(claim *corev1.PersistentVolumeClaim, id string) {
	simulation.Edit(h.World, claim, func(c *corev1.PersistentVolumeClaim) { c.Annotations[cluster.AnnotationClusterID] = id })
}

// heal ends every fault that passes by itself.
func (h *history) heal() {
	if h.slow != nil {
		h.slow.kill()
		h.slow = nil
	}
	h.refused, h.skew = nil, 0
	h.RecoverNodes()
	for _, claim := range h.claims() {
		if memberOf(claim) == "" || h.replaced[claim.UID] && h.cluster() != nil && h.isOfDeleted(claim) {
			simulation.Erase(h.World, claim) // the user takes it away, as the condition says
			continue
		}
		if id, ok := h.marked[claim.UID]; ok {
			h.mark(claim, id)
		}
	}
	h.operator.cache.CatchUp()
	for _, pod := range h.pods() {
		h.Etcd.Heal(h.Address(pod))
		h.Etcd.Fail(h.Address(pod), nil)
		h.Etcd.Lag(h.Address(pod), false)
	}
	for h.cluster() != nil && h.cluster().DeletionTimestamp != nil {
		h.CollectGarbage(1 << 10)
		h.RunKubelets()
	}
	if h.cluster() == nil {
		h.createCluster()
	}
	h.spec.Paused = false
	h.editCluster(func(c *v1beta1.EtcdCluster) { c.Spec.Paused = false })
}

// podStates tells what each pod's container does.
func (h *history) podStates() []string {
	var states []string
	for _, pod := range h.pods() {
		text := fmt.Sprintf("%s %s, runs %t, ready %t, %s", pod.Name, pod.Status.Phase, h.Runs(pod), h.Etcd.Ready(h.Address(pod)), pod.Spec.Containers[0].Image)
		for _, c := range pod.Status.ContainerStatuses {
			if last := c.LastTerminationState.Terminated; last != nil {
				text += " " + last.Message
			}
		}
		for _, c := range pod.Status.Conditions {
			text += " " + c.Message
		}
		states = append(states, text)
	}
	return states
}

// settle lets the cluster come to rest. One that nobody harmed serves again with all its members.
func (h *history) settle() {
	h.heal()
	rested := h.restsSpoiled() && h.restsBlocked() && h.restsAfterLoss()
	h.observe()
	h.judgeMemory()
	h.judgeData()
	c, decided := h.cluster(), h.progressing()
	serving := 0
	for _, pod := range h.pods() {
		if h.Etcd.Ready(h.Address(pod)) {
			serving++
		}
	}
	told := fmt.Sprintf("%d of %d members serve, claim %v: %s: %s; %v", serving, c.Spec.Replicas, c.Status.Operation, decided.Reason, decided.Message, h.podStates())
	for _, condition := range c.Status.Conditions {
		told += fmt.Sprintf("\n%s=%s %s: %s", condition.Type, condition.Status, condition.Reason, condition.Message)
	}
	switch {
	case len(h.broken) > 0, h.undecided:
	case !rested:
		h.wrong("no rest after %d passes: %s", settleRounds, told)
	case !h.harmed && (serving < int(c.Spec.Replicas) || decided.Reason != v1beta1.ReasonUpToDate || c.Status.Operation != nil):
		h.wrong("nobody harmed the cluster, and %s", told)
	case !h.harmed && !h.isAsWanted(int(c.Spec.Replicas)):
		h.wrong("nobody harmed the cluster, and etcd's list is %+v: %s", h.Etcd.Clusters(), told)
	case c.Status.Operation != nil && c.Status.Operation.Type != v1beta1.OperationBootstrap:
		h.wrong("a claim never ends: %s", told)
	case !h.harmed:
		h.checkConfigured()
	}
	h.checkDowngradeEnded()
}
