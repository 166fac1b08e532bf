package analyse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// world is Kubernetes as far as one cluster needs it, with the model of etcd on its pods. Templates are those that are rendered.
type world struct {
	etcd      *fake.World
	cluster   *v1beta1.EtcdCluster
	volumes   map[string]*worldVolume // by member
	workloads map[string]*appsv1.StatefulSet
	pods      map[string]*worldPod
	objects   map[string]bool
	serial    int
	now       time.Time
	secrets   *worldSecrets

	// recorded are the member names, with their token, that were ever recorded as started.
	recorded map[string]bool
	// acknowledged is the last value that clients wrote, by cluster ID.
	acknowledged map[cluster.ID]string
	// harmed tells that users took or emptied a volume, or changed the spec.
	harmed bool
	broken []string
	// restarts counts the members that the operator restarted.
	restarts int
}

type worldVolume struct {
	cluster.Volume
	data string // the volume in the model of etcd
	ran  bool   // etcd has written to it
}

type worldPod struct {
	cluster.Pod
	owner    types.UID
	template corev1.PodTemplateSpec // with the pod's own annotations
	running  bool
	trust    map[cluster.Traffic]trusting
}

func newWorld(size int32, managed bool) *world {
	s := clustertest.MakeCluster("prod").Replicas(size).Snapshot()
	if managed {
		s.Cluster.Spec.TLS = nil
	}
	w := &world{now: clustertest.Now, etcd: fake.New(), cluster: s.Cluster, volumes: map[string]*worldVolume{}, recorded: map[string]bool{}, acknowledged: map[cluster.ID]string{}}
	w.create("uid-0")
	return w
}

// create is the user's kubectl apply of the cluster; what an earlier one owned is gone, and its volumes are kept.
func (w *world) create(uid types.UID) {
	for name := range w.pods {
		w.deletePod(name)
	}
	w.cluster = w.cluster.DeepCopy()
	w.cluster.UID, w.cluster.Status = uid, v1beta1.EtcdClusterStatus{}
	w.workloads, w.pods, w.objects = map[string]*appsv1.StatefulSet{}, map[string]*worldPod{}, map[string]bool{}
	w.secrets = newWorldSecrets()
	w.touch()
}

func (w *world) next() string { w.serial++; return fmt.Sprint(w.serial) }

func (w *world) touch() { w.cluster.ResourceVersion = w.next() }

func (w *world) wrong(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

func (w *world) deletePod(name string) {
	if pod := w.pods[name]; pod != nil {
		w.etcd.Stop(pod.IP)
		delete(w.pods, name)
	}
}

// known reports whether the volume's loss would be seen: nothing ever ran on it, or it was recorded and no pod or template
// would start it empty. In between, from etcd's first start to the operator's next pass, nobody can know.
func (w *world) known(name string) bool {
	v := w.volumes[name]
	set, pod := w.workloads[name], w.pods[name]
	sealed := (set == nil || !isFounding(set.Spec.Template)) && (pod == nil || !isFoundingState(pod.template))
	return !v.ran || (v.Started() && sealed)
}

// split reads a list as annotations hold it.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func isFounding(t corev1.PodTemplateSpec) bool {
	return t.Annotations[cluster.AnnotationInitialClusterState] != ""
}

func isFoundingState(t corev1.PodTemplateSpec) bool {
	return t.Annotations[cluster.AnnotationInitialClusterState] == "new"
}

// kubelet makes the pods that are missing and starts the containers that are not running.
func (w *world) kubelet() {
	for _, name := range slices.Sorted(maps.Keys(w.workloads)) {
		if w.pods[name] == nil {
			id := w.next()
			template := *w.workloads[name].Spec.Template.DeepCopy()
			w.pods[name] = &worldPod{owner: w.workloads[name].UID, template: template, Pod: cluster.Pod{
				Name: cluster.PodName(name), UID: types.UID("pod-" + id), IP: "10.0.0." + id + ":2379", ResourceVersion: id, Phase: corev1.PodPending,
				CreatedAt: w.now, RenderHash: template.Annotations[cluster.AnnotationRenderHash],
			}}
		}
		if pod, volume := w.pods[name], w.volumes[name]; !pod.running && volume != nil && w.mount(pod) {
			if pod.Phase == corev1.PodPending {
				pod.Phase, pod.ResourceVersion = corev1.PodRunning, w.next()
			}
			pod.running, pod.StartedAt = w.etcd.Start(w.startOptions(name, pod, volume)) == nil, w.now
			volume.ran = volume.ran || pod.running
		}
	}
}

func (w *world) startOptions(name string, pod *worldPod, volume *worldVolume) fake.StartOptions {
	values := map[string]string{}
	for _, arg := range pod.template.Spec.Containers[0].Args {
		flag, value, _ := strings.Cut(arg, "=")
		values[flag] = value
	}
	list, state := values["--initial-cluster"], values["--initial-cluster-state"]
	if isFounding(pod.template) {
		list, state = pod.template.Annotations[cluster.AnnotationInitialCluster], pod.template.Annotations[cluster.AnnotationInitialClusterState]
	}
	initial := map[string]string{}
	for _, entry := range strings.Split(list, ",") {
		member, url, _ := strings.Cut(entry, "=")
		initial[member] = url
	}
	return fake.StartOptions{
		Address: pod.IP, Name: name, PeerURL: values["--initial-advertise-peer-urls"], InitialCluster: initial, State: state,
		Token: values["--initial-cluster-token"], Volume: volume.data, Version: w.cluster.Spec.Version,
	}
}

// wipe empties a volume behind everybody's back; its container ends and is started again.
func (w *world) wipe(name string) {
	if pod := w.pods[name]; pod != nil {
		w.etcd.Stop(pod.IP)
		pod.running = false
	}
	w.volumes[name].data, w.volumes[name].ran = "disk-"+w.next(), false
	w.harmed = true
}

// collect deletes the volumes that were to go with a deleted cluster.
func (w *world) collect() {
	for name, v := range w.volumes {
		if v.DeletedWith == "" || v.DeletedWith == w.cluster.UID {
			continue
		}
		if v.ClusterUID == w.cluster.UID {
			w.wrong("deleted %s, which the cluster uses", v.Name)
		}
		w.deletePod(name)
		delete(w.volumes, name)
		w.harmed = true // the user said so
	}
}

// observe takes a snapshot as the observer would.
func (w *world) observe() cluster.Snapshot {
	s := cluster.Snapshot{Now: w.now, Cluster: w.cluster.DeepCopy()}
	w.observeTrust(&s)
	members := map[string]bool{}
	for name, v := range w.volumes {
		if v.ClusterUID != w.cluster.UID && v.DeletedWith != "" {
			s.ForeignObjects = append(s.ForeignObjects, cluster.ForeignObject{Kind: "PersistentVolumeClaim", Name: v.Name, Owner: "goes", Terminating: true})
			continue
		}
		if v.ClusterUID != w.cluster.UID {
			s.RetainedVolumes = append(s.RetainedVolumes, v.Volume)
			continue
		}
		members[name] = true
		for _, founder := range v.Founders {
			members[founder] = true
		}
	}
	for name := range w.workloads {
		members[name] = true
	}
	for name := range members {
		s.Members = append(s.Members, w.member(name))
	}
	slices.SortFunc(s.Members, func(x, y cluster.Member) int { return cluster.CompareMembers("prod", x.Name, y.Name) })
	slices.SortFunc(s.RetainedVolumes, func(x, y cluster.Volume) int { return cluster.CompareMembers("prod", x.Member, y.Member) })
	for _, m := range s.Members {
		if s.Membership != nil || !m.Probe.Answered() || !m.Probe.Linearizable {
			continue
		}
		if membership, err := w.etcd.Membership(context.Background(), etcd.Endpoint{Address: m.Pod.IP}); err == nil {
			s.Membership = &membership
		}
	}
	if w.objects["peer service"] {
		s.PeerService = render.PeerService(w.cluster)
	}
	if w.objects["client service"] {
		s.ClientService = render.ClientService(w.cluster)
	}
	if w.objects["budget"] {
		s.Budget = render.Budget(w.cluster, cluster.Quorum(max(len(s.Members), s.Outlook().Voters)))
	}
	return s
}

func (w *world) member(name string) cluster.Member {
	m := cluster.Member{Name: name}
	if v := w.volumes[name]; v != nil && v.ClusterUID == w.cluster.UID {
		copied := v.Volume
		m.Volume = &copied
	}
	if set := w.workloads[name]; set != nil {
		intent, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent])
		if err != nil {
			panic(err)
		}
		m.Workload = &cluster.Workload{Intent: intent, Founding: isFounding(set.Spec.Template), Live: set.DeepCopy()}
	}
	if pod := w.pods[name]; pod != nil && m.Workload != nil {
		copied := pod.Pod
		copied.FoundingState = pod.template.Annotations[cluster.AnnotationInitialClusterState]
		copied.PeerAuthorities = split(pod.template.Annotations[cluster.AnnotationPeerAuthorities])
		copied.ClientAuthorities = split(pod.template.Annotations[cluster.AnnotationClientAuthorities])
		m.Pod = &copied
		probe, err := w.etcd.Probe(context.Background(), etcd.Endpoint{Address: pod.IP})
		if err != nil {
			probe = cluster.Probe{Error: err.Error()}
		}
		m.Probe = &probe
	}
	return m
}

var (
	errCrashed = errors.New("the operator was killed")
	errStale   = errors.New("the object was written since")
)

// operator carries out what was decided about a snapshot; it is killed before the write of that number, unless negative.
type operator struct {
	w       *world
	s       cluster.Snapshot
	d       plan.Decision
	killAt  int
	slow    bool
	written int
}

func (w *world) operator(killAt int) *operator {
	s := w.observe()
	return &operator{w: w, s: s, d: Next(s), killAt: killAt}
}

func (o *operator) write(apply func() error) error {
	if o.written == o.killAt {
		return errCrashed
	}
	o.written++
	return apply()
}

// run does what the controller does: upkeep, claim, act, report. A write that is refused as stale keeps the action from being taken, not the other writes that do not rest on it, nor the report.
func (o *operator) run() {
	o.check()
	err := o.act()
	if errors.Is(err, errCrashed) {
		return
	}
	_ = o.write(func() error {
		if o.s.Cluster.ResourceVersion != o.w.cluster.ResourceVersion {
			return errStale
		}
		status := o.w.cluster.Status.DeepCopy()
		if o.d.Finished {
			status.Operation = nil
		}
		if ids := o.s.ClusterIDs(); len(ids) == 1 {
			status.ClusterID = ids[0].String()
		}
		if fmt.Sprint(*status) != fmt.Sprint(o.w.cluster.Status) {
			o.w.cluster.Status = *status
			o.w.touch()
		}
		return nil
	})
}

func (o *operator) act() error {
	failed := map[string]bool{}
	var failures []error
	for _, u := range o.d.Upkeep {
		if failed[u.Requires()] {
			continue
		}
		err := o.write(func() error { return o.upkeep(u) })
		switch {
		case errors.Is(err, errCrashed):
			return err
		case err != nil:
			failures = append(failures, err)
			failed[u.Provides()] = u.Provides() != ""
		}
	}
	if err := errors.Join(failures...); err != nil || o.d.Action == nil {
		return err
	}
	if err := o.write(o.claim); err != nil {
		return err
	}
	switch action := o.d.Action.(type) {
	case plan.CreateFounders:
		return o.found(action)
	case plan.TakeBackVolumes:
		for _, v := range action.Volumes {
			if err := o.write(func() error {
				return o.annotate(v.Member, v.ResourceVersion, func(v *worldVolume) {
					if v.DeletedWith != "" {
						o.w.wrong("took back %s, which goes with a deleted cluster", v.Name)
					}
					v.ClusterUID = o.s.Cluster.UID
				})
			}); err != nil {
				return err
			}
		}
	case plan.RestartMember:
		return o.write(func() error { return o.rollMember(action) })
	case plan.StartMembers:
		for _, set := range action.StatefulSets {
			if err := o.write(func() error { return o.makeWorkload(set) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *operator) claim() error {
	if o.s.Cluster.ResourceVersion != o.w.cluster.ResourceVersion {
		return errStale
	}
	if !equality.Semantic.DeepEqual(o.w.cluster.Status.Operation, o.d.Claim) {
		o.w.cluster.Status.Operation = o.d.Claim
		o.w.touch()
	}
	o.s.Cluster = o.w.cluster.DeepCopy()
	return nil
}

func (o *operator) found(action plan.CreateFounders) error {
	for _, v := range action.Volumes {
		if err := o.write(func() error { return o.makeVolume(v) }); err != nil {
			return err
		}
	}
	for _, set := range action.StatefulSets {
		if err := o.write(func() error { return o.makeWorkload(set) }); err != nil {
			return err
		}
	}
	return nil
}

func (o *operator) makeVolume(claim *corev1.PersistentVolumeClaim) error {
	w, name, token := o.w, claim.Labels[cluster.LabelMember], claim.Annotations[cluster.AnnotationClusterToken]
	if there := w.volumes[name]; there != nil {
		if there.ClusterUID != o.s.Cluster.UID {
			w.wrong("a volume of the name %s that another cluster left was to be used again", name)
			return errStale
		}
		return nil
	}
	if w.recorded[token+" "+name] {
		w.wrong("the volume of %s, which had started, was made again", name)
	}
	size := cluster.VolumeSize(&o.s.Cluster.Spec)
	w.volumes[name] = &worldVolume{data: "disk-" + w.next(), Volume: cluster.Volume{
		Name: claim.Name, Member: name, ResourceVersion: w.next(), RequestedBytes: size.Value(), ClusterUID: o.s.Cluster.UID,
		StorageClass: cluster.VolumeStorageClass(&o.s.Cluster.Spec), AccessModes: claim.Spec.AccessModes,
		Token: token, Founders: split(claim.Annotations[cluster.AnnotationFoundingMembers]), PeerURL: claim.Annotations[cluster.AnnotationPeerURL],
	}}
	return nil
}

func (o *operator) makeWorkload(rendered *appsv1.StatefulSet) error {
	w, set := o.w, rendered.DeepCopy()
	if w.workloads[set.Name] != nil {
		return nil
	}
	if w.cluster.UID != set.OwnerReferences[0].UID {
		return errStale // its owner is gone, so it is collected at once
	}
	if isFounding(set.Spec.Template) && w.recorded[argument(set, "--initial-cluster-token")+" "+set.Name] {
		w.wrong("%s, which had started, was made to found again", set.Name)
	}
	set.UID, set.ResourceVersion = types.UID("set-"+w.next()), w.next()
	w.workloads[set.Name] = set
	return nil
}

func (o *operator) annotate(name, resourceVersion string, change func(*worldVolume)) error {
	v := o.w.volumes[name]
	if v == nil || v.ResourceVersion != resourceVersion {
		return errStale
	}
	change(v)
	v.ResourceVersion = o.w.next()
	return nil
}

func (o *operator) upkeep(u plan.Upkeep) error {
	w := o.w
	switch u := u.(type) {
	case plan.Apply:
		w.objects[strings.TrimSuffix(upkeepText(u), " "+fmt.Sprint(budgetOf(u)))] = true
	case plan.Delete:
		delete(w.objects, "budget")
	case plan.RecordMember:
		return o.annotate(u.Member, u.ResourceVersion, func(v *worldVolume) {
			v.ClusterID, v.MemberID = cluster.ParseID(u.Annotations[cluster.AnnotationClusterID]), cluster.ParseID(u.Annotations[cluster.AnnotationMemberID])
			v.Version = u.Annotations[cluster.AnnotationEtcdVersion]
			w.recorded[v.Token+" "+u.Member] = true
		})
	case plan.UpdateStatefulSet:
		name := u.Desired.Name
		set := w.workloads[name]
		if set == nil || set.ResourceVersion != u.Live.ResourceVersion {
			return errStale
		}
		have, err := cluster.DecodeIntent(set.Annotations[cluster.AnnotationIntent])
		want, errWant := cluster.DecodeIntent(u.Desired.Annotations[cluster.AnnotationIntent])
		if err != nil || errWant != nil || len(have.Differences(want)) > 0 {
			w.wrong("the intent of %s, which runs, was changed", name)
		}
		if v := w.volumes[name]; isFounding(u.Desired.Spec.Template) && v != nil && w.recorded[v.Token+" "+name] {
			w.wrong("the template of %s, which had started, was made to found again", name)
		}
		set.Annotations, set.Spec.Template, set.ResourceVersion = u.Desired.Annotations, u.Desired.Spec.Template, w.next()
	case plan.WriteAuthority:
		return o.writeAuthority(u)
	case plan.WriteCertificate:
		return o.writeCertificate(u)
	case plan.AnnotatePod:
		pod := w.pods[u.Member]
		if pod == nil || pod.UID != u.UID {
			return errStale
		}
		maps.Copy(pod.template.Annotations, u.Annotations)
		pod.ResourceVersion = w.next()
	case plan.SetRetention:
		return o.annotate(strings.TrimPrefix(u.Volume, "data-"), u.ResourceVersion, func(v *worldVolume) {
			v.DeletedWith = ""
			if u.DeletedWithCluster {
				v.DeletedWith = o.s.Cluster.UID
			}
		})
	}
	return nil
}

func budgetOf(u plan.Apply) int {
	if budget, ok := u.Desired.(*policyv1.PodDisruptionBudget); ok {
		return budget.Spec.MinAvailable.IntValue()
	}
	return 0
}

// check holds a decision against what no decision may do.
func (o *operator) check() {
	idle := o.d.Action == nil && !slices.ContainsFunc(o.d.Upkeep, func(u plan.Upkeep) bool {
		w, ok := u.(plan.WriteCertificate)
		return !o.s.Cluster.Spec.Paused || !ok || !w.Renew // a renewal does not wait for the end of a pause
	})
	switch {
	case o.s.Cluster.Spec.Paused && !idle:
		o.w.wrong("acted on a paused cluster: %+v", o.d)
	case len(o.s.ClusterIDs()) > 1 && !idle:
		o.w.wrong("acted with two cluster IDs: %+v", o.d)
	case o.d.Message == "" || o.d.Reason == "":
		o.w.wrong("decided without a reason: %+v", o.d)
	}
}

// put writes through every member that serves; get reads back what clients were promised.
func (w *world) put() {
	for _, name := range slices.Sorted(maps.Keys(w.pods)) {
		pod := w.pods[name]
		probe, err := w.etcd.Probe(context.Background(), etcd.Endpoint{Address: pod.IP})
		value := w.next()
		if err == nil && w.etcd.Put(pod.IP, "key", value) == nil {
			w.acknowledged[probe.ClusterID] = value
		}
	}
}

func (w *world) get() {
	for _, name := range slices.Sorted(maps.Keys(w.pods)) {
		pod := w.pods[name]
		probe, err := w.etcd.Probe(context.Background(), etcd.Endpoint{Address: pod.IP})
		if err != nil {
			continue
		}
		value, err := w.etcd.Get(pod.IP, "key")
		if want := w.acknowledged[probe.ClusterID]; err == nil && value != want {
			w.wrong("cluster %s lost an acknowledged write: %s reads %q, not %q", probe.ClusterID, name, value, want)
		}
	}
}
