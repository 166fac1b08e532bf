//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/simulation"
)

// unpullable is an image repository that no kubelet can pull from.
const unpullable = "nowhere.invalid/etcd"

// kubernetes does in one namespace what the StatefulSet controller, the volume controllers,
// the kubelet and the garbage collector do, with members of the model in place of containers.
type kubernetes struct {
	namespace string
	now       func() time.Time
	world     *fake.World

	mu         sync.Mutex
	containers map[types.UID]*container // by pod
	addresses  int
	// held are the pods whose containers the kubelet does not start, as if their nodes were down.
	held map[string]bool
	// lost are the nodes that are gone, with the processes on them.
	lost map[string]bool
	// failures are how etcd fails, by pod.
	failures map[string]failure
	// images are the versions of etcd in images whose tag names another one; simulation.NoImage where there is none.
	images map[string]string
	// starts are the versions of etcd that were started, by pod.
	starts map[string][]string
	// disruptionsForbidden makes the disruption controller allow no eviction.
	disruptionsForbidden bool
	// infeasible is why the kubelet resizes no running pod; empty where it does.
	infeasible string
}

// container is the etcd container of one pod.
type container struct {
	pod, address string
	// serverName is what the member's certificate is made for; empty without client TLS.
	serverName string
	// tls is what the container reads of its Secrets, by kind of traffic.
	tls     map[cluster.Traffic]*mounted
	volume  types.UID
	running bool
	// started is when it was last started, by the API server's clock: the lab's may be ahead.
	started  metav1.Time
	restarts int32
	// waiting is why the kubelet does not start it; ended is what it said when it ended by itself.
	waiting, ended string
	unschedulable  string
	// since is when it was last started, and retryAt when it is started again after a failure, both by the lab's clock.
	since, retryAt time.Time
}

// failure is how etcd of a minor version fails on a volume.
type failure struct {
	minor string
	after time.Duration
}

// backOff is how long the kubelet waits before it starts a container that failed.
const backOff = 5 * time.Minute

func newKubernetes(namespace string, now func() time.Time) *kubernetes {
	world := fake.New()
	world.SetClock(now)
	return &kubernetes{namespace: namespace, now: now, world: world, containers: map[types.UID]*container{}, held: map[string]bool{}, lost: map[string]bool{}, failures: map[string]failure{}, starts: map[string][]string{}}
}

// objects are what exists in the namespace.
type objects struct {
	clusters v1beta1.EtcdClusterList
	sets     appsv1.StatefulSetList
	pods     corev1.PodList
	volumes  corev1.PersistentVolumeClaimList
	services corev1.ServiceList
	budgets  policyv1.PodDisruptionBudgetList
	secrets  corev1.SecretList // the operator's own
}

func (k *kubernetes) list(ctx context.Context, lists ...client.ObjectList) error {
	for _, list := range lists {
		if err := admin.List(ctx, list, client.InNamespace(k.namespace)); err != nil {
			return fmt.Errorf("listing %T: %w", list, err)
		}
	}
	return nil
}

// everything lists what exists in the namespace.
func (k *kubernetes) everything(ctx context.Context) (*objects, error) {
	o := &objects{}
	err := k.list(ctx, &o.clusters, &o.sets, &o.pods, &o.volumes, &o.services, &o.budgets, &o.secrets)
	o.secrets.Items = slices.DeleteFunc(o.secrets.Items, func(s corev1.Secret) bool { return s.Labels[cluster.LabelManagedBy] != cluster.ManagedByValue })
	return o, err
}

// sync brings the namespace one step on and reports whether it changed anything.
func (k *kubernetes) sync(ctx context.Context) (changed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := &objects{}
	if err := k.list(ctx, &o.sets, &o.pods, &o.volumes); err != nil {
		return false, err
	}
	if err := k.refresh(ctx); err != nil {
		return false, err
	}
	for _, step := range []func(context.Context, *objects) (bool, error){k.endPods, k.releaseVolumes, k.createPods, k.startContainers, k.reportPods, k.reportBudgets} {
		did, err := step(ctx, o)
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

// reportBudgets writes the status of the PodDisruptionBudgets, as the disruption controller does.
// The API server allows no eviction without it. A change that was not observed before is reported: the operator waits
// for that. It reads nothing else of it.
func (k *kubernetes) reportBudgets(ctx context.Context, _ *objects) (changed bool, err error) {
	o := &objects{}
	if err := k.list(ctx, &o.budgets, &o.pods); err != nil {
		return false, err
	}
	for i := range o.budgets.Items {
		b := &o.budgets.Items[i]
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || b.Spec.MinAvailable == nil {
			return false, err
		}
		status := policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DesiredHealthy: b.Spec.MinAvailable.IntVal}
		for _, pod := range o.pods.Items {
			if !selector.Matches(labels.Set(pod.Labels)) {
				continue
			}
			status.ExpectedPods++
			if pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				status.CurrentHealthy++
			}
		}
		if !k.disruptionsForbidden {
			status.DisruptionsAllowed = max(0, status.CurrentHealthy-status.DesiredHealthy)
		}
		if status.ExpectedPods == 0 || status.ObservedGeneration == b.Status.ObservedGeneration && status.DisruptionsAllowed == b.Status.DisruptionsAllowed &&
			status.CurrentHealthy == b.Status.CurrentHealthy && len(b.Status.DisruptedPods) == 0 {
			continue
		}
		changed = changed || status.ObservedGeneration != b.Status.ObservedGeneration
		b.Status = status
		if err := admin.Status().Update(ctx, b); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("reporting on budget %s: %w", b.Name, err)
		}
	}
	return changed, nil
}

// collect deletes, as the garbage collector, what belongs to clusters that are gone.
func (k *kubernetes) collect(ctx context.Context) error {
	o, err := k.everything(ctx)
	if err != nil {
		return err
	}
	alive := map[types.UID]bool{}
	for _, c := range o.clusters.Items {
		alive[c.UID] = true
	}
	candidates := o.owned()
	for i := range o.volumes.Items {
		candidates = append(candidates, &o.volumes.Items[i])
	}
	for _, object := range candidates {
		owners := object.GetOwnerReferences()
		needed := slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return o.Kind != "EtcdCluster" || alive[o.UID] })
		if len(owners) == 0 || needed {
			continue
		}
		if err := client.IgnoreNotFound(admin.Delete(ctx, object)); err != nil {
			return fmt.Errorf("collecting %s: %w", object.GetName(), err)
		}
	}
	return nil
}

// owned are the objects that an EtcdCluster always owns.
func (o *objects) owned() []client.Object {
	var all []client.Object
	for i := range o.sets.Items {
		all = append(all, &o.sets.Items[i])
	}
	for i := range o.services.Items {
		all = append(all, &o.services.Items[i])
	}
	for i := range o.budgets.Items {
		all = append(all, &o.budgets.Items[i])
	}
	for i := range o.secrets.Items {
		all = append(all, &o.secrets.Items[i])
	}
	return all
}

// endPods ends the pods that are being deleted, and those whose StatefulSet is gone or wants none.
func (k *kubernetes) endPods(ctx context.Context, o *objects) (bool, error) {
	sets := map[types.UID]bool{}
	for _, set := range o.sets.Items {
		sets[set.UID] = *set.Spec.Replicas > 0
	}
	var kept []corev1.Pod
	for i := range o.pods.Items {
		pod := &o.pods.Items[i]
		owner := metav1.GetControllerOf(pod)
		if k.lost[pod.Spec.NodeName] || pod.DeletionTimestamp == nil && (owner == nil || sets[owner.UID] || looksAtImage(pod)) {
			kept = append(kept, *pod)
			continue
		}
		if c := k.containers[pod.UID]; c != nil {
			k.world.Stop(c.address)
			delete(k.containers, pod.UID)
		}
		if err := client.IgnoreNotFound(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))); err != nil {
			return false, fmt.Errorf("ending pod %s: %w", pod.Name, err)
		}
	}
	changed := len(kept) < len(o.pods.Items)
	o.pods.Items = kept
	return changed, nil
}

// releaseVolumes lets deleted PersistentVolumeClaims go that no pod uses.
func (k *kubernetes) releaseVolumes(ctx context.Context, o *objects) (changed bool, err error) {
	used := map[string]bool{}
	for i := range o.pods.Items {
		used[claimOf(&o.pods.Items[i])] = true
	}
	var kept []corev1.PersistentVolumeClaim
	for i := range o.volumes.Items {
		volume := &o.volumes.Items[i]
		if volume.DeletionTimestamp == nil || used[volume.Name] {
			kept = append(kept, *volume)
			continue
		}
		volume.Finalizers = nil
		if err := client.IgnoreNotFound(admin.Update(ctx, volume)); err != nil && !apierrors.IsConflict(err) {
			return false, fmt.Errorf("releasing volume %s: %w", volume.Name, err)
		}
		changed = true
	}
	o.volumes.Items = kept
	return changed, nil
}

// createPods creates the pods that StatefulSets lack. A pod that runs stays as it is: the strategy is OnDelete.
func (k *kubernetes) createPods(ctx context.Context, o *objects) (changed bool, err error) {
	have := map[string]bool{}
	for _, pod := range o.pods.Items {
		have[pod.Name] = true
	}
	for i := range o.sets.Items {
		set := &o.sets.Items[i]
		if set.DeletionTimestamp != nil || have[set.Name+"-0"] || *set.Spec.Replicas == 0 {
			continue
		}
		if set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType || *set.Spec.Replicas != 1 {
			return false, fmt.Errorf("StatefulSet %s is not of one pod with the strategy OnDelete", set.Name)
		}
		pod := podOf(set)
		if err := k.reportNode(ctx, pod.Spec.NodeName); err != nil {
			return false, err
		}
		if err := admin.Create(ctx, pod); err != nil {
			return false, fmt.Errorf("creating pod %s: %w", pod.Name, err)
		}
		o.pods.Items = append(o.pods.Items, *pod)
		changed = true
	}
	return changed, nil
}

func podOf(set *appsv1.StatefulSet) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = set.Namespace, set.Name+"-0"
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	pod.Labels["statefulset.kubernetes.io/pod-name"] = pod.Name
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, set.Spec.ServiceName
	pod.Spec.NodeName = pod.Namespace + "-" + pod.Name // nodes are the same for all namespaces, and each pod has its own
	return pod
}

// startContainers starts what does not run, and binds the volumes that are used for the first time.
func (k *kubernetes) startContainers(ctx context.Context, o *objects) (changed bool, err error) {
	for i := range o.pods.Items {
		pod := &o.pods.Items[i]
		c := k.containers[pod.UID]
		if c == nil {
			k.addresses++
			c = &container{pod: pod.Name, address: fmt.Sprintf("10.1.%d.%d:%d", k.addresses/250, k.addresses%250+1, cluster.ClientPort)}
			k.containers[pod.UID] = c
		}
		if c.running && !k.world.Runs(c.address) { // its member was removed
			c.running, changed = false, true
		}
		if f, fails := k.failureOf(pod); fails && c.running && !k.now().Before(c.since.Add(f.after)) {
			k.world.Stop(c.address)
			k.fail(c)
			changed = true
		}
		if c.running || looksAtImage(pod) || k.now().Before(c.retryAt) || k.lost[pod.Spec.NodeName] {
			continue
		}
		volume := o.volume(claimOf(pod))
		if c.unschedulable = unschedulable(pod, volume); c.unschedulable != "" {
			continue
		}
		if c.waiting, err = k.waiting(ctx, pod); err != nil {
			return false, err
		}
		if c.waiting != "" {
			continue
		}
		if err := bind(ctx, volume); err != nil {
			return false, err
		}
		if c.tls, err = k.mount(ctx, pod); err != nil {
			return false, err
		}
		k.start(pod, c, volume)
		changed = changed || c.running
	}
	return changed, nil
}

func (o *objects) volume(name string) *corev1.PersistentVolumeClaim {
	for i := range o.volumes.Items {
		if o.volumes.Items[i].Name == name {
			return &o.volumes.Items[i]
		}
	}
	return nil
}

func claimOf(pod *corev1.Pod) string {
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			return v.PersistentVolumeClaim.ClaimName
		}
	}
	return ""
}

func unschedulable(pod *corev1.Pod, volume *corev1.PersistentVolumeClaim) string {
	switch {
	case volume == nil:
		return fmt.Sprintf("0/1 nodes are available: persistentvolumeclaim %q not found", claimOf(pod))
	case volume.DeletionTimestamp != nil:
		return fmt.Sprintf("0/1 nodes are available: persistentvolumeclaim %q is being deleted", volume.Name)
	default:
		return ""
	}
}

// waiting is the reason for which a kubelet does not start the container yet.
func (k *kubernetes) waiting(ctx context.Context, pod *corev1.Pod) (string, error) {
	switch {
	case k.held[pod.Name]:
		return "ContainerCreating", nil
	case strings.HasPrefix(pod.Spec.Containers[0].Image, unpullable):
		return "ImagePullBackOff", nil
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret == nil {
			continue
		}
		err := admin.Get(ctx, client.ObjectKey{Namespace: k.namespace, Name: v.Secret.SecretName}, &corev1.Secret{})
		if apierrors.IsNotFound(err) {
			return "ContainerCreating", nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

func bind(ctx context.Context, volume *corev1.PersistentVolumeClaim) error {
	if volume.Status.Phase == corev1.ClaimBound {
		return nil
	}
	volume.Status.Phase = corev1.ClaimBound
	if err := admin.Status().Update(ctx, volume); err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("binding volume %s: %w", volume.Name, err)
	}
	return nil
}

// start runs etcd as the container's arguments say.
func (k *kubernetes) start(pod *corev1.Pod, c *container, volume *corev1.PersistentVolumeClaim) {
	options := flagsOf(pod)
	initial := map[string]string{}
	for entry := range strings.SplitSeq(options["initial-cluster"], ",") {
		name, url, _ := strings.Cut(entry, "=")
		initial[name] = url
	}
	c.volume, c.serverName = volume.UID, ""
	if options["client-cert-auth"] == "true" {
		host, _, _ := strings.Cut(strings.TrimPrefix(options["advertise-client-urls"], "https://"), ":")
		c.serverName = host
	}
	k.starts[pod.Name] = append(k.starts[pod.Name], versionOf(pod))
	if f, fails := k.failureOf(pod); fails && f.after == 0 {
		k.fail(c)
		return
	}
	err := k.world.Start(fake.StartOptions{
		Address: c.address, Name: options["name"], PeerURL: options["initial-advertise-peer-urls"], InitialCluster: initial,
		State: options["initial-cluster-state"], Token: options["initial-cluster-token"], Volume: string(volume.UID), Version: versionOf(pod),
	})
	ended := ""
	if err != nil {
		c.restarts = max(c.restarts, 1)
		ended = fmt.Sprintf(`{"level":"fatal","ts":"2026-01-01T00:00:00Z","msg":"discovery failed","error":%q}`, err.Error())
	}
	if err == nil || ended != c.ended { // one that fails again is told as before: a pass may take seconds
		c.started = metav1.Now().Rfc3339Copy()
	}
	c.running, c.ended, c.since = err == nil, ended, k.now()
}

func versionOf(pod *corev1.Pod) string {
	_, version, _ := strings.Cut(path.Base(pod.Spec.Containers[0].Image), ":v")
	return version
}

// failureOf returns how the etcd of a pod fails, and whether it does.
func (k *kubernetes) failureOf(pod *corev1.Pod) (failure, bool) {
	f, ok := k.failures[pod.Name]
	return f, ok && cluster.MinorOf(versionOf(pod)) == f.minor
}

func (k *kubernetes) fail(c *container) {
	c.running, c.ended, c.started = false, "panic: it fails here", metav1.Now().Rfc3339Copy()
	c.restarts++
	c.retryAt = k.now().Add(backOff)
}

// breaks has etcd of a minor version fail in a pod, so long after each start; mend ends all of it.
func (k *kubernetes) breaks(pod, minor string, after time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failures[pod] = failure{minor, after}
}

func (k *kubernetes) started(pod string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.starts[pod])
}

func (k *kubernetes) mend() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.failures)
	for _, c := range k.containers {
		c.retryAt = time.Time{}
	}
}

var reference = regexp.MustCompile(`\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)`)

// flagsOf returns the flags of the pod's etcd with their references resolved,
// as the kubelet does when it starts the container.
func flagsOf(pod *corev1.Pod) map[string]string {
	environment := map[string]string{}
	for _, variable := range pod.Spec.Containers[0].Env {
		key := strings.TrimSuffix(strings.TrimPrefix(variable.ValueFrom.FieldRef.FieldPath, "metadata.annotations['"), "']")
		environment[variable.Name] = pod.Annotations[key]
	}
	flags := map[string]string{}
	for _, argument := range pod.Spec.Containers[0].Args {
		argument = reference.ReplaceAllStringFunc(argument, func(found string) string {
			if found == "$$" {
				return "$"
			}
			return environment[found[2:len(found)-1]]
		})
		name, value, _ := strings.Cut(strings.TrimPrefix(argument, "--"), "=")
		flags[name] = value
	}
	return flags
}

// reportPods writes the pods' status where it changed.
func (k *kubernetes) reportPods(ctx context.Context, o *objects) (changed bool, err error) {
	for i := range o.pods.Items {
		pod := &o.pods.Items[i]
		status := k.statusOf(ctx, pod, k.containers[pod.UID])
		if k.lost[pod.Spec.NodeName] {
			status = unreachable(pod.Status)
		}
		if equality.Semantic.DeepEqual(status, pod.Status) {
			continue
		}
		pod.Status = status
		err := admin.Status().Update(ctx, pod)
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("reporting pod %s: %w", pod.Name, err)
		}
		changed = true
	}
	return changed, nil
}

func (k *kubernetes) statusOf(ctx context.Context, pod *corev1.Pod, c *container) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	scheduled := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse}
	etcdStatus := corev1.ContainerStatus{Name: "etcd", Image: pod.Spec.Containers[0].Image, RestartCount: c.restarts}
	status.Phase = corev1.PodPending
	ip, _, _ := strings.Cut(c.address, ":")
	switch {
	case looksAtImage(pod):
		status.Phase, etcdStatus = simulation.LookAtImage(pod, k.images)
	case c.unschedulable != "":
		scheduled.Status, scheduled.Reason, scheduled.Message = corev1.ConditionFalse, "Unschedulable", c.unschedulable
	case c.waiting != "":
		etcdStatus.State.Waiting = &corev1.ContainerStateWaiting{Reason: c.waiting}
	case c.running:
		probe, err := k.world.Probe(ctx, etcd.Endpoint{Address: c.address})
		if err == nil && probe.Linearizable {
			ready.Status, etcdStatus.Ready = corev1.ConditionTrue, true
		}
		etcdStatus.State.Running = &corev1.ContainerStateRunning{StartedAt: c.started}
		etcdStatus.Resources = pod.Spec.Containers[0].Resources.DeepCopy() // without it the API server resizes no pod
		status.Phase = corev1.PodRunning
	default:
		etcdStatus.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
		etcdStatus.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: c.ended, StartedAt: c.started}
		status.Phase = corev1.PodRunning
	}
	if status.Phase == corev1.PodRunning {
		status.PodIP, status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	}
	ready.LastTransitionTime = metav1.NewTime(k.now()).Rfc3339Copy()
	for _, was := range status.Conditions {
		if was.Type == ready.Type && was.Status == ready.Status {
			ready.LastTransitionTime = was.LastTransitionTime
		}
	}
	status.Conditions = []corev1.PodCondition{scheduled, ready}
	if status.ObservedGeneration = pod.Generation; k.infeasible != "" && pod.Generation > 1 {
		status.Conditions = append(status.Conditions, corev1.PodCondition{
			Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: corev1.PodReasonInfeasible,
			Message: k.infeasible, ObservedGeneration: pod.Generation,
		})
	}
	status.ContainerStatuses = []corev1.ContainerStatus{etcdStatus}
	return status
}

func looksAtImage(pod *corev1.Pod) bool { return pod.Labels[cluster.LabelImageCheck] != "" }

// reportNode writes whether a node is ready, and makes it where there is none.
func (k *kubernetes) reportNode(ctx context.Context, name string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := admin.Create(ctx, node); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating node %s: %w", name, err)
	}
	if err := admin.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return fmt.Errorf("reading node %s: %w", name, err)
	}
	status := corev1.ConditionTrue
	if k.lost[name] {
		status = corev1.ConditionUnknown
	}
	if len(node.Status.Conditions) > 0 && node.Status.Conditions[0].Status == status {
		return nil
	}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.NewTime(k.now())}}
	if err := admin.Status().Update(ctx, node); err != nil {
		return fmt.Errorf("reporting node %s: %w", name, err)
	}
	return nil
}

// loseNode takes the power from the node of a pod.
func (k *kubernetes) loseNode(ctx context.Context, pod *corev1.Pod) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lost[pod.Spec.NodeName] = true
	if c := k.containers[pod.UID]; c != nil {
		k.world.Stop(c.address)
		c.running = false
	}
	return k.reportNode(ctx, pod.Spec.NodeName)
}

// unreachable is the status of a pod of a lost node, as Kubernetes marks it.
func unreachable(last corev1.PodStatus) corev1.PodStatus {
	status := *last.DeepCopy()
	is := func(kind corev1.PodConditionType, is corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: is}
	}
	status.Conditions = []corev1.PodCondition{
		is(corev1.PodScheduled, corev1.ConditionTrue), is(corev1.ContainersReady, corev1.ConditionTrue), is(corev1.PodReady, corev1.ConditionFalse),
	}
	return status
}

// restart ends the container of a pod in place; the next sync starts it again.
func (k *kubernetes) restart(pod string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.containers {
		if c.pod == pod {
			k.world.Stop(c.address)
			c.running = false
			c.restarts++
		}
	}
}

// empty ends the container of a pod and empties its volume.
func (k *kubernetes) empty(pod string) {
	k.restart(pod)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.containers {
		if c.pod == pod {
			k.world.Wipe(string(c.volume))
		}
	}
}

// hold keeps the containers of pods from being started; release ends it.
func (k *kubernetes) hold(pods ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pod := range pods {
		k.held[pod] = true
	}
}

func (k *kubernetes) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.held)
}

// address returns where the member of a pod answers, empty where it does not run.
func (k *kubernetes) address(pod string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.containers {
		if c.pod == pod && c.running {
			return c.address
		}
	}
	return ""
}

// running returns the addresses of all members that run, by pod.
func (k *kubernetes) running() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]string{}
	for _, c := range k.containers {
		if c.running {
			all[c.pod] = c.address
		}
	}
	return all
}

var errHandshake = errors.New("the operator's credentials do not fit the member's TLS")

// port is the way to the members, with as much of TLS as decides whether the operator asks with the right credentials.
type port struct{ k *kubernetes }

func (p port) handshake(endpoint etcd.Endpoint) error {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	for _, c := range p.k.containers {
		if c.address != endpoint.Address || !c.running {
			continue
		}
		if (c.serverName != "") != (endpoint.Credentials != nil) || c.serverName != endpoint.ServerName {
			return &etcd.TLSError{Err: errHandshake}
		}
		if server := c.tls[cluster.ClientTraffic]; server != nil {
			if err := server.accepts(identity{endpoint.Credentials.Certificate, endpoint.Credentials.Authorities}, p.k.now()); err != nil {
				return &etcd.TLSError{Err: err}
			}
		}
	}
	return nil
}

func (p port) Probe(ctx context.Context, endpoint etcd.Endpoint) (cluster.Probe, error) {
	if err := p.handshake(endpoint); err != nil {
		return cluster.Probe{}, err
	}
	return p.k.world.Probe(ctx, endpoint)
}

func (p port) Membership(ctx context.Context, endpoint etcd.Endpoint) (cluster.Membership, error) {
	if err := p.handshake(endpoint); err != nil {
		return cluster.Membership{}, err
	}
	return p.k.world.Membership(ctx, endpoint)
}

// changer returns the model's way to change etcd, for a target that the handshake allows.
func (p port) changer(target etcd.Target) (fake.Changer, error) {
	return fake.Changer{World: p.k.world}, p.handshake(target.Endpoint)
}

func (p port) AddLearner(ctx context.Context, target etcd.Target, peerURL string) (cluster.ID, []cluster.EtcdMember, error) {
	c, err := p.changer(target)
	if err != nil {
		return 0, nil, err
	}
	return c.AddLearner(ctx, target, peerURL)
}

func (p port) Promote(ctx context.Context, target etcd.Target, learner cluster.ID) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.Promote(ctx, target, learner)
}

func (p port) RemoveMember(ctx context.Context, target etcd.Target, id cluster.ID) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.RemoveMember(ctx, target, id)
}

func (p port) Defragment(ctx context.Context, target etcd.Target) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.Defragment(ctx, target)
}

func (p port) AppendEntry(ctx context.Context, target etcd.Target) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.AppendEntry(ctx, target)
}

func (p port) MoveLeader(ctx context.Context, target etcd.Target, to cluster.ID) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.MoveLeader(ctx, target, to)
}

func (p port) ValidateDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.ValidateDowngrade(ctx, target, minor)
}

func (p port) EnableDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.EnableDowngrade(ctx, target, minor)
}

func (p port) CancelDowngrade(ctx context.Context, target etcd.Target) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.CancelDowngrade(ctx, target)
}

func (p port) Disarm(ctx context.Context, target etcd.Target, alarm cluster.Alarm) error {
	c, err := p.changer(target)
	if err != nil {
		return err
	}
	return c.Disarm(ctx, target, alarm)
}

func (p port) Hash(ctx context.Context, target etcd.Target, revision int64) (cluster.DataHash, error) {
	c, err := p.changer(target)
	if err != nil {
		return cluster.DataHash{}, err
	}
	return c.Hash(ctx, target, revision)
}

// step is sync for tests.
func (k *kubernetes) step(t *testing.T) bool {
	t.Helper()
	changed, err := k.sync(t.Context())
	must(t, err)
	return changed
}
