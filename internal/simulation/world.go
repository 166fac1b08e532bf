package simulation

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
)

// World is a Kubernetes cluster: a Server, what its controllers and kubelets do with the objects, and etcd in the pods.
// Each of its steps is taken when a test says so.
type World struct {
	*Server
	Etcd *fake.World
	// Now is the time of every clock.
	Now time.Time
	// Started is called before etcd starts in a pod. There is no claim where the data are in memory.
	Started func(*corev1.Pod, *corev1.PersistentVolumeClaim, fake.StartOptions)
	// Collected is called before the garbage collector deletes an object.
	Collected func(client.Object)
	// LocalVolumes makes volumes that can be used only on the node of their first pod.
	LocalVolumes bool
	// Images are the versions of etcd in images whose tag names another one; NoImage where there is no such tag.
	Images map[string]string

	processes map[types.UID]*process // by pod
	disks     map[string]string      // what lies on a PersistentVolume, by its name
	memory    map[types.UID]string   // what lies in the memory of a pod, where its node restarted
	lostNodes map[string]bool
	trust     trust
}

// process is the etcd container of a pod.
type process struct {
	address  string
	disk     string // what lies on the volume that it uses
	running  bool
	restarts int32
	started  metav1.Time
	mounted  map[string]map[string][]byte // Secrets by name, as the kubelet last read them
	// authorities are the bundles that etcd read when it started, by traffic.
	authorities map[cluster.Traffic][]byte
}

// NewWorld returns a world without objects.
func NewWorld(scheme *runtime.Scheme, now time.Time) *World {
	w := &World{Etcd: fake.New(), Now: now, processes: map[types.UID]*process{}, disks: map[string]string{}, memory: map[types.UID]string{}, lostNodes: map[string]bool{}}
	w.Server = NewServer(scheme, func() time.Time { return w.Now })
	w.Etcd.SetClock(func() time.Time { return w.Now })
	w.BeforeEviction = w.ProbePods
	return w
}

// Objects returns the objects of a type in all namespaces, ordered by name. They must not be changed.
func Objects[T client.Object](w *World) []T { return all[T](w.Server) }

// Object returns an object, and false where there is none. It must not be changed.
func Object[T client.Object](w *World, namespace, name string) (T, bool) {
	return one[T](w.Server, namespace, name)
}

// Edit writes an object, whatever anybody else wrote.
func Edit[T client.Object](w *World, object T, edit func(T)) { change(w.Server, object, edit) }

// Erase removes an object at once, finalizers or not.
func Erase[T client.Object](w *World, object T) { erase(w.Server, object) }

// Add stores a new object.
func (w *World) Add(object client.Object) {
	if err := w.create(object, false); err != nil {
		panic(err) // the test adds it twice
	}
}

// RunStatefulSets makes the pods that are missing, and deletes those of StatefulSets that shall have none.
func (w *World) RunStatefulSets() {
	for _, set := range all[*appsv1.StatefulSet](w.Server) {
		pod, exists := one[*corev1.Pod](w.Server, set.Namespace, cluster.PodName(set.Name))
		switch {
		case set.DeletionTimestamp != nil || exists && pod.DeletionTimestamp != nil:
		case exists && metav1.GetControllerOf(pod) == nil: // its selector finds it by its labels
			change(w.Server, pod, func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{controlledBy(set)} })
		case set.Spec.Replicas != nil && *set.Spec.Replicas == 0:
			if exists && metav1.IsControlledBy(pod, set) {
				w.deletePod(pod)
			}
		case !exists:
			w.Add(podOf(set))
		}
	}
}

func (w *World) deletePod(pod *corev1.Pod) {
	if err := w.remove(pod.DeepCopy(), &client.DeleteOptions{}); err != nil {
		panic(err) // it was there a moment ago
	}
}

// Orphan deletes a StatefulSet and leaves its pod alone, as kubectl delete --cascade=orphan does.
func (w *World) Orphan(set *appsv1.StatefulSet) {
	erase(w.Server, set)
	if pod, exists := one[*corev1.Pod](w.Server, set.Namespace, cluster.PodName(set.Name)); exists {
		change(w.Server, pod, func(p *corev1.Pod) { p.OwnerReferences = nil })
	}
}

func controlledBy(set *appsv1.StatefulSet) metav1.OwnerReference {
	return *metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))
}

func podOf(set *appsv1.StatefulSet) *corev1.Pod {
	template := set.Spec.Template.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: set.Namespace, Name: cluster.PodName(set.Name), Labels: template.Labels, Annotations: template.Annotations,
			OwnerReferences: []metav1.OwnerReference{controlledBy(set)},
		},
		Spec:   template.Spec,
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
}

// RunKubelets ends the pods that are deleted, and starts the containers that do not run.
func (w *World) RunKubelets() {
	for _, pod := range all[*corev1.Pod](w.Server) {
		w.RunPod(pod)
	}
	w.RemoveClaims()
	w.ProbePods()
}

// RunPod does what the kubelet does for one pod, unless its node is lost.
func (w *World) RunPod(pod *corev1.Pod) {
	p := w.processes[pod.UID]
	if p != nil && p.running && !w.Etcd.Runs(p.address) {
		p.running = false // its member was removed
	}
	switch {
	case w.IsLost(pod):
	case pod.DeletionTimestamp != nil:
		w.KillPod(pod)
	case pod.Labels[cluster.LabelImageCheck] != "":
		w.checkImage(pod)
	case p != nil && p.running:
	default:
		w.startPod(pod)
	}
}

// KillPod ends a pod and removes it at once.
func (w *World) KillPod(pod *corev1.Pod) {
	if p := w.processes[pod.UID]; p != nil {
		w.Etcd.Stop(p.address)
	}
	delete(w.processes, pod.UID)
	erase(w.Server, pod)
}

// KillContainer ends a pod's etcd. The kubelet starts it again.
func (w *World) KillContainer(pod *corev1.Pod) {
	p := w.processes[pod.UID]
	if p == nil || !p.running {
		return
	}
	w.Etcd.Stop(p.address)
	p.running = false
	if w.IsLost(pod) {
		return
	}
	if live, ok := one[*corev1.Pod](w.Server, pod.Namespace, pod.Name); ok && live.UID == pod.UID {
		change(w.Server, live, func(pod *corev1.Pod) {
			pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: "Completed", StartedAt: p.started, FinishedAt: metav1.NewTime(w.Now),
			}}
			w.setReady(pod, false)
		})
	}
}

// Address returns where a pod's etcd answers clients; empty before its first start.
func (w *World) Address(pod *corev1.Pod) string {
	if p := w.processes[pod.UID]; p != nil {
		return p.address
	}
	return ""
}

// Runs reports whether a pod's etcd runs.
func (w *World) Runs(pod *corev1.Pod) bool {
	p := w.processes[pod.UID]
	return p != nil && p.running && w.Etcd.Runs(p.address)
}

// ObserveBudgets is the disruption controller: it tells that it has seen each budget as it is.
func (w *World) ObserveBudgets() {
	for _, b := range all[*policyv1.PodDisruptionBudget](w.Server) {
		if b.Status.ObservedGeneration != b.Generation {
			change(w.Server, b, func(b *policyv1.PodDisruptionBudget) { b.Status.ObservedGeneration = b.Generation })
		}
	}
}

// RemoveClaims ends the claims that are deleted and that no pod uses any more, with their volumes.
func (w *World) RemoveClaims() {
	for _, claim := range all[*corev1.PersistentVolumeClaim](w.Server) {
		if claim.DeletionTimestamp == nil || slices.ContainsFunc(all[*corev1.Pod](w.Server), func(p *corev1.Pod) bool {
			return p.Namespace == claim.Namespace && claimName(p) == claim.Name
		}) {
			continue
		}
		if volume, ok := one[*corev1.PersistentVolume](w.Server, "", claim.Spec.VolumeName); ok {
			erase(w.Server, volume)
			delete(w.disks, volume.Name)
		}
		erase(w.Server, claim)
	}
}

func claimName(pod *corev1.Pod) string {
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			return v.PersistentVolumeClaim.ClaimName
		}
	}
	return ""
}

// bind gives a claim its volume, as a class with the mode WaitForFirstConsumer does.
func (w *World) bind(claim *corev1.PersistentVolumeClaim, node string) {
	if claim.Spec.VolumeName != "" {
		return
	}
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + string(claim.UID)}}
	volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
	volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
	volume.Status.Phase = corev1.VolumeBound
	if w.LocalVolumes {
		volume.Spec.NodeAffinity = affinityTo(node)
	}
	w.Add(volume)
	w.disks[volume.Name] = "disk-" + w.Next()
	change(w.Server, claim, func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeName, c.Status.Phase = volume.Name, corev1.ClaimBound
	})
}

// Disk returns what identifies the data under a claim in the model of etcd; empty for a claim without a volume.
func (w *World) Disk(claim *corev1.PersistentVolumeClaim) string {
	return w.disks[claim.Spec.VolumeName]
}

// Empty takes the data off a claim's volume behind everybody's back. The containers that use it end.
func (w *World) Empty(claim *corev1.PersistentVolumeClaim) {
	for _, pod := range all[*corev1.Pod](w.Server) {
		if pod.Namespace == claim.Namespace && claimName(pod) == claim.Name {
			w.KillContainer(pod)
		}
	}
	if claim.Spec.VolumeName != "" {
		w.disks[claim.Spec.VolumeName] = "disk-" + w.Next()
	}
}

// startPod schedules a pod if it can be, mounts what it needs, and starts etcd.
func (w *World) startPod(pod *corev1.Pod) {
	claim, ok := one[*corev1.PersistentVolumeClaim](w.Server, pod.Namespace, claimName(pod))
	inMemory := claimName(pod) == ""
	switch {
	case len(pod.Spec.SchedulingGates) > 0:
		w.waitForGates(pod)
		return
	case pod.Spec.NodeName != "" && (ok || inMemory): // it was scheduled before
	case !ok && !inMemory:
		w.unschedulable(pod, fmt.Sprintf("persistentvolumeclaim %q not found", claimName(pod)))
		return
	case !inMemory && claim.DeletionTimestamp != nil:
		w.unschedulable(pod, fmt.Sprintf("persistentvolumeclaim %q is being deleted", claim.Name))
		return
	case !inMemory && w.lostNodes[w.localNode(claim)]:
		w.unschedulable(pod, "0/3 nodes are available: 1 node(s) had volume node affinity conflict.")
		return
	case pod.Spec.NodeSelector[NoNode] != "":
		w.unschedulable(pod, "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.")
		return
	}
	disk := w.memoryOf(pod)
	if !inMemory {
		w.bind(claim, w.nodeFor(pod))
		claim, _ = one[*corev1.PersistentVolumeClaim](w.Server, pod.Namespace, claim.Name)
		disk = w.Disk(claim)
	}
	p := w.processes[pod.UID]
	if p == nil {
		p = &process{mounted: map[string]map[string][]byte{}}
		w.processes[pod.UID] = p
	}
	if !w.mount(pod, p) {
		w.setStatus(pod, p, "", "")
		return
	}
	if w.isHeld(disk, p) {
		w.setStatus(pod, p, "", "") // the volume is attached to another node
		return
	}
	if p.address == "" {
		p.address = w.freeAddress()
		w.healAddress(p.address)
	}
	if w.startDefective(pod, p) {
		return
	}
	o := startOptions(pod, p.address)
	o.Volume, p.disk = disk, disk
	if w.Started != nil {
		w.Started(pod, claim, o)
	}
	p.authorities, p.started = mountedAuthorities(pod, p), metav1.NewTime(w.Now)
	if err := w.Etcd.Start(o); err != nil {
		p.restarts = min(p.restarts+1, 3)
		w.setStatus(pod, p, corev1.PodRunning, fatalLine(err))
		return
	}
	p.running = true
	w.setStatus(pod, p, corev1.PodRunning, "")
}

// waitForGates tells that a pod is not scheduled as long as it has scheduling gates.
func (w *World) waitForGates(pod *corev1.Pod) {
	change(w.Server, pod, func(p *corev1.Pod) {
		setCondition(&p.Status, corev1.PodScheduled, false, corev1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates")
	})
}

// memoryOf returns what identifies the data in the memory of a pod. They are there as long as the pod is.
func (w *World) memoryOf(pod *corev1.Pod) string {
	if disk, ok := w.memory[pod.UID]; ok {
		return disk
	}
	return "memory-of-" + string(pod.UID)
}

// RestartNode has the node of a pod restart: its containers end, and what was in memory is gone. The pod stays.
func (w *World) RestartNode(pod *corev1.Pod) {
	w.KillContainer(pod)
	w.memory[pod.UID] = "memory-" + w.Next()
}

// healAddress ends what was wrong with an address: another pod has it now.
func (w *World) healAddress(address string) {
	w.Etcd.Heal(address)
	w.Etcd.Fail(address, nil)
	w.Etcd.Lag(address, false)
}

// ownWords are the errors that etcd tells in a fatal line with no other message.
var ownWords = []error{fake.ErrTooOld, fake.ErrNotTarget, fake.ErrDatabase}

// fatalLine is the last line of the log of an etcd that does not start: see server/etcdmain/etcd.go.
func fatalLine(err error) string {
	line := map[string]string{"level": "fatal", "msg": "discovery failed", "error": err.Error()}
	if told := errors.Unwrap(err); told != nil { // without the name that the model puts before it
		line["error"] = told.Error()
	}
	for _, own := range ownWords {
		if errors.Is(err, own) {
			line = map[string]string{"level": "fatal", "msg": own.Error()}
		}
	}
	text, _ := json.Marshal(line)
	return string(text)
}

// freeAddress returns the lowest address of which no pod knows. Those of pods that are gone are used again at once.
func (w *World) freeAddress() string {
	used := map[string]bool{}
	for _, p := range w.processes {
		used[p.address] = true
	}
	for n := 1; ; n++ {
		if address := net.JoinHostPort(fmt.Sprintf("10.0.0.%d", n), strconv.Itoa(cluster.ClientPort)); !used[address] {
			return address
		}
	}
}

func (w *World) unschedulable(pod *corev1.Pod, why string) {
	change(w.Server, pod, func(p *corev1.Pod) {
		setCondition(&p.Status, corev1.PodScheduled, false, corev1.PodReasonUnschedulable, why)
	})
}

// setStatus writes a pod's status as the kubelet does. Without a phase its volumes are not mounted yet.
func (w *World) setStatus(pod *corev1.Pod, p *process, phase corev1.PodPhase, end string) {
	node := w.nodeFor(pod)
	if pod.Spec.NodeName == "" {
		w.setNodeReady(node, true)
	}
	change(w.Server, pod, func(pod *corev1.Pod) {
		setCondition(&pod.Status, corev1.PodScheduled, true, "", "")
		if pod.Spec.NodeName == "" {
			pod.Spec.NodeName = node
		}
		container := corev1.ContainerStatus{Name: pod.Spec.Containers[0].Name, Image: pod.Spec.Containers[0].Image, RestartCount: p.restarts}
		switch {
		case phase == "":
			container.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		case end != "":
			terminated := &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: end, StartedAt: p.started, FinishedAt: p.started}
			container.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
			container.LastTerminationState.Terminated = terminated
		default:
			container.State.Running = &corev1.ContainerStateRunning{StartedAt: p.started}
			container.Started = new(true)
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{container}
		if phase != "" {
			pod.Status.Phase = phase
			pod.Status.PodIP, _, _ = net.SplitHostPort(p.address)
			pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
		}
		w.setReady(pod, false)
	})
}

func (w *World) setReady(pod *corev1.Pod, ready bool) {
	for i := range pod.Status.ContainerStatuses {
		pod.Status.ContainerStatuses[i].Ready = ready
	}
	setCondition(&pod.Status, corev1.ContainersReady, ready, "", "")
	was := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && (c.Status == corev1.ConditionTrue) == ready
	})
	since := metav1.NewTime(w.Now)
	if was >= 0 && !pod.Status.Conditions[was].LastTransitionTime.IsZero() {
		since = pod.Status.Conditions[was].LastTransitionTime
	}
	setCondition(&pod.Status, corev1.PodReady, ready, "", "")
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodReady {
			pod.Status.Conditions[i].LastTransitionTime = since
		}
	}
}

func setCondition(status *corev1.PodStatus, kind corev1.PodConditionType, is bool, reason, message string) {
	condition := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
	if is {
		condition.Status = corev1.ConditionTrue
	}
	i := slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	if i < 0 {
		status.Conditions = append(status.Conditions, condition)
		return
	}
	status.Conditions[i] = condition
}

// ProbePods asks every container /readyz, and has the kubelet read the Secrets again.
func (w *World) ProbePods() {
	for _, pod := range all[*corev1.Pod](w.Server) {
		p := w.processes[pod.UID]
		if p == nil || w.IsLost(pod) {
			continue
		}
		w.mount(pod, p)
		if ready := p.running && w.Etcd.Ready(p.address); ready != isReady(pod) {
			change(w.Server, pod, func(pod *corev1.Pod) { w.setReady(pod, ready) })
		}
	}
}

// startOptions reads what a container is started with: its arguments, and the variables that come from annotations.
func startOptions(pod *corev1.Pod, address string) fake.StartOptions {
	container := &pod.Spec.Containers[0]
	values := map[string]string{}
	for _, arg := range container.Args {
		flag, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		values[flag] = expand(pod, container.Env, value)
	}
	initial := map[string]string{}
	for _, entry := range strings.Split(values["initial-cluster"], ",") {
		member, url, _ := strings.Cut(entry, "=")
		initial[member] = url
	}
	_, version, _ := strings.Cut(container.Image, ":v")
	version, _, _ = strings.Cut(version, "-")
	return fake.StartOptions{
		Address: address, Name: values["name"], PeerURL: values["initial-advertise-peer-urls"], InitialCluster: initial,
		State: values["initial-cluster-state"], Token: values["initial-cluster-token"], Version: version,
	}
}

// expand puts the values of variables into an argument, as the kubelet does at each start of a container.
func expand(pod *corev1.Pod, env []corev1.EnvVar, value string) string {
	for _, variable := range env {
		text := variable.Value
		if from := variable.ValueFrom; from != nil && from.FieldRef != nil {
			name := strings.TrimSuffix(strings.TrimPrefix(from.FieldRef.FieldPath, "metadata.annotations['"), "']")
			text = pod.Annotations[name]
		}
		value = strings.ReplaceAll(value, "$("+variable.Name+")", text)
	}
	return strings.ReplaceAll(value, "$$", "$")
}

// CollectGarbage deletes up to a number of objects whose owners are all gone, or are deleted in the foreground, and
// ends the owners that have no dependents any more. It returns how many objects it touched.
func (w *World) CollectGarbage(limit int) int {
	owners := map[types.UID]client.Object{}
	w.each(func(object client.Object) { owners[object.GetUID()] = object })
	held := map[types.UID]bool{}
	touched := 0
	w.each(func(object client.Object) {
		references := object.GetOwnerReferences()
		if len(references) == 0 {
			return
		}
		dead := !slices.ContainsFunc(references, func(o metav1.OwnerReference) bool {
			owner := owners[o.UID]
			return owner != nil && !deletedInForeground(owner)
		})
		for _, o := range references {
			held[o.UID] = true
		}
		if !dead || touched >= limit || object.GetDeletionTimestamp() != nil {
			return
		}
		touched++
		if w.Collected != nil {
			w.Collected(object)
		}
		if err := w.remove(object.DeepCopyObject().(client.Object), &client.DeleteOptions{}); err != nil {
			panic(err) // it was there a moment ago
		}
	})
	for uid, owner := range owners {
		if deletedInForeground(owner) && !held[uid] {
			k, _ := w.kindOf(owner)
			delete(k.objects, client.ObjectKeyFromObject(owner))
			touched++
		}
	}
	return touched
}

func deletedInForeground(object client.Object) bool {
	return object.GetDeletionTimestamp() != nil && slices.Contains(object.GetFinalizers(), metav1.FinalizerDeleteDependents)
}

// each calls a function for every object, in the order of kinds and names.
func (s *Server) each(visit func(client.Object)) {
	for _, k := range s.sortedKinds() {
		for _, key := range sortedKeys(k.objects) {
			visit(k.objects[key].object)
		}
	}
}

func (s *Server) sortedKinds() []*kind {
	kinds := make([]*kind, 0, len(s.kinds))
	for _, k := range s.kinds {
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b *kind) int { return strings.Compare(a.Kind+a.Group, b.Kind+b.Group) })
	return kinds
}
