package analyse

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// amounts reads a list such as "cpu=1 memory=2Gi".
func amounts(text string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, word := range strings.Fields(text) {
		name, amount, _ := strings.Cut(word, "=")
		list[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return list
}

func resources(requests, limits string) v1beta1.ResourceRequirements {
	return v1beta1.ResourceRequirements{Requests: amounts(requests), Limits: amounts(limits)}
}

func asking(requests, limits string) func(*v1beta1.EtcdClusterSpec) {
	return func(s *v1beta1.EtcdClusterSpec) { s.Resources = resources(requests, limits) }
}

// burstable is a cluster at rest whose pods have requests, and a limit of memory.
func burstable(size int32) *Builder {
	return MakeCluster("prod").Replicas(size).Resources(resources("cpu=500m memory=1Gi", "memory=2Gi")).Objects().Members(Healthy)
}

var (
	moreMemory = asking("cpu=500m memory=1Gi", "memory=4Gi")
	lessMemory = asking("cpu=500m memory=1Gi", "memory=1Gi")
	lessCPU    = asking("cpu=500m memory=1Gi", "memory=2Gi cpu=1") // they have no limit of CPU
)

// poison leaves an unfinished change to less memory in the pod of prod-2.
func poison(s *cluster.Snapshot) {
	p := s.Member("prod-2").Pod
	p.Resize = cluster.Resize{Target: "of before", AskedAt: Now.Add(-time.Hour)}
	p.Resources = corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("8Mi")},
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("8Mi")},
	}
}

// pod changes the pod of a member.
func pod(name string, change func(*cluster.Pod)) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { change(s.Member(name).Pod) }
}

// asked marks the pod of a member with the present target, and gives it the resources.
func asked(name string, ago time.Duration, change func(*cluster.Resize)) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m := s.Member(name)
		target := targetOf(s, m)
		m.Pod.Resources = target.Resources()
		m.Pod.Resize = cluster.Resize{Target: target.TargetHash(), AskedAt: Now.Add(-ago)}
		if change != nil {
			change(&m.Pod.Resize)
		}
	}
}

// midRotation is a cluster in the middle of a restart of the member for another reason.
func midRotation(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		silent(name)(s)
		s.Cluster.Status.Operation = &v1beta1.Operation{
			Type: v1beta1.OperationRollMember, Member: name, Reason: v1beta1.ReasonRotatingAuthorities, StartedAt: metav1.NewTime(Now),
		}
	}
}

// resuming is a cluster whose members start again.
func resuming(s *cluster.Snapshot) {
	silent("prod-1")(s)
	silent("prod-2")(s)
	s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationResume, StartedAt: metav1.NewTime(Now)}
}

// podsResized are the pods that a decision resizes, separated by spaces.
func podsResized(d plan.Decision) string {
	var names []string
	for _, u := range d.Upkeep {
		if r, ok := u.(plan.ResizePod); ok {
			names = append(names, r.Member)
		}
	}
	return strings.Join(names, " ")
}

func TestResourcesChangeWithoutARestartWhereKubernetesTakesThem(t *testing.T) {
	const all, none = "prod-0 prod-1 prod-2", ""
	failed := func(r *cluster.Resize) { r.Failure = "Node didn't have enough capacity: memory, requested: 1" }
	for name, c := range map[string]struct {
		spec    func(*v1beta1.EtcdClusterSpec)
		later   func(*cluster.Snapshot)
		resized string
		action  string
		reason  string
	}{
		"more memory":                                  {moreMemory, nil, all, "", v1beta1.ReasonResizingPods},
		"more CPU, another amount of memory":           {asking("cpu=1 memory=512Mi", "memory=2Gi"), nil, all, "", v1beta1.ReasonResizingPods},
		"a request more":                               {asking("cpu=500m memory=1Gi", "memory=2Gi cpu=2"), nil, "prod-1", "", v1beta1.ReasonResizingPods},
		"the same, written differently":                {asking("cpu=0.5 memory=1024Mi", "memory=2048Mi"), nil, none, "", v1beta1.ReasonUpToDate},
		"a lower limit of memory restarts the members": {lessMemory, nil, none, "roll prod-1", v1beta1.ReasonRollingMembers},
		"a lower limit of memory, back to what the members were healthy with": {
			asking("cpu=500m memory=1Gi", "memory=2Gi"), asked("prod-1", time.Second, func(r *cluster.Resize) { r.Target = "of more memory" }),
			"prod-1", "", v1beta1.ReasonResizingPods,
		},
		"a failed pod whose resources are not those of its template": {func(*v1beta1.EtcdClusterSpec) {}, func(s *cluster.Snapshot) {
			crashing("prod-2", time.Minute)(s)
			poison(s)
		}, none, "roll prod-2", v1beta1.ReasonRollingMembers},
		"a running pod whose resources are not those of its template": {func(*v1beta1.EtcdClusterSpec) {}, poison, "prod-2", "", v1beta1.ReasonResizingPods},
		"what an earlier change added to a pod": {asking("", ""), func(s *cluster.Snapshot) {
			poison(s)
			for i := range s.Members { // they were made without resources
				m := &s.Members[i]
				m.Workload.Intent.Limits, m.Workload.Intent.Requests = nil, nil
			}
		}, none, "roll prod-2", v1beta1.ReasonRollingMembers},
		"a lower limit in the pass that restarts another member": {
			lessCPU, pod("prod-2", func(p *cluster.Pod) { p.IntentHash = "another" }), none, "roll prod-2", v1beta1.ReasonRollingMembers,
		},
		"a lower limit: one member at a time": {lessCPU, nil, "prod-1", "", v1beta1.ReasonResizingPods},
		"a lower limit while another member is down": {
			lessCPU, func(s *cluster.Snapshot) { silent("prod-1")(s); silent("prod-2")(s) }, none, "", v1beta1.ReasonMembersNotHealthy,
		},
		"a lower limit for the member that is down itself": {lessCPU, silent("prod-2"), "prod-2", "", v1beta1.ReasonResizingPods},
		"a lower limit while another pod waits for its kubelet": {
			lessCPU, asked("prod-2", time.Second, nil), none, "", v1beta1.ReasonResizingPods,
		},
		"a lower limit while an operation is under way": {
			lessCPU, midRotation("prod-2"), none, "", "",
		},
		"more memory while a member is down":  {moreMemory, silent("prod-2"), all, "", v1beta1.ReasonResizingPods},
		"a pod that does not tell its intent": {moreMemory, pod("prod-1", func(p *cluster.Pod) { p.IntentHash = "" }), all, "", v1beta1.ReasonResizingPods},
		"an operation on another member":      {moreMemory, midRotation("prod-2"), "prod-0 prod-1", "", ""},
		"an operation on all members":         {moreMemory, resuming, none, "", ""},
		"a pod that is asked for already":     {moreMemory, asked("prod-1", time.Second, nil), "prod-0 prod-2", "", v1beta1.ReasonResizingPods},
		"a pod that is marked, and was not asked": {moreMemory, func(s *cluster.Snapshot) {
			asked("prod-1", time.Second, nil)(s)
			s.Member("prod-1").Pod.Resources = s.Member("prod-1").Workload.Intent.Resources()
		}, all, "", v1beta1.ReasonResizingPods},
		"a pod that was changed just in time":      {moreMemory, asked("prod-1", time.Hour, func(r *cluster.Resize) { r.Done = true }), "prod-0 prod-2", "", v1beta1.ReasonResizingPods},
		"a spec that went back":                    {func(*v1beta1.EtcdClusterSpec) {}, pod("prod-1", func(p *cluster.Pod) { p.Resize.Target = "another" }), "prod-1", "", v1beta1.ReasonResizingPods},
		"the API server refused it":                {moreMemory, asked("prod-1", time.Second, func(r *cluster.Resize) { r.Refused = true }), "prod-0 prod-2", "roll prod-1", v1beta1.ReasonRollingMembers},
		"it refused another change":                {moreMemory, pod("prod-1", func(p *cluster.Pod) { p.Resize = cluster.Resize{Target: "another", Refused: true} }), all, "", v1beta1.ReasonResizingPods},
		"the node cannot give it":                  {moreMemory, asked("prod-1", time.Second, failed), "prod-0 prod-2", "roll prod-1", v1beta1.ReasonRollingMembers},
		"the node does not give it for a minute":   {moreMemory, asked("prod-1", time.Minute, nil), "prod-0 prod-2", "roll prod-1", v1beta1.ReasonRollingMembers},
		"the node does not give it for 59 seconds": {moreMemory, asked("prod-1", 59*time.Second, nil), "prod-0 prod-2", "", v1beta1.ReasonResizingPods},
		"an option changes as well":                {func(s *v1beta1.EtcdClusterSpec) { moreMemory(s); option("snapshot-count", "5000")(s) }, nil, none, "roll prod-1", v1beta1.ReasonRollingMembers},
		"the class of quality of service changes":  {asking("cpu=1 memory=2Gi", "cpu=1 memory=2Gi"), nil, none, "roll prod-1", v1beta1.ReasonRollingMembers},
		"all resources go":                         {asking("", ""), nil, none, "roll prod-1", v1beta1.ReasonRollingMembers},
		"a limit goes":                             {asking("cpu=500m memory=1Gi", ""), nil, none, "roll prod-1", v1beta1.ReasonRollingMembers},
		"a request goes":                           {asking("memory=1Gi", "memory=2Gi"), nil, none, "roll prod-1", v1beta1.ReasonRollingMembers},
		"another resource changes":                 {asking("cpu=500m memory=1Gi ephemeral-storage=1Gi", "memory=2Gi"), nil, none, "roll prod-1", v1beta1.ReasonRollingMembers},
		"a member has failed":                      {moreMemory, crashing("prod-2", time.Minute), "prod-0 prod-1", "roll prod-2", v1beta1.ReasonRollingMembers},
		"a pod was made from another template":     {moreMemory, pod("prod-1", func(p *cluster.Pod) { p.IntentHash = "another" }), "prod-0 prod-2", "roll prod-1", v1beta1.ReasonRollingMembers},
		"a pod that another release made": {func(s *v1beta1.EtcdClusterSpec) {
			moreMemory(s)
			s.UpdateStrategy = &v1beta1.UpdateStrategy{OperatorUpgrade: v1beta1.OperatorUpgradeRoll}
		}, pod("prod-1", func(p *cluster.Pod) { p.RenderHash = "another" }), "prod-0 prod-2", "roll prod-1", v1beta1.ReasonRollingMembers},
		"a pod that is being deleted":       {moreMemory, pod("prod-2", func(p *cluster.Pod) { p.Deleting = true }), "prod-0 prod-1", "", ""},
		"a pod on a lost node":              {moreMemory, pod("prod-2", func(p *cluster.Pod) { p.NodeLost = true }), "prod-0 prod-1", "roll prod-2", ""},
		"a pod that may still start empty":  {moreMemory, pod("prod-2", func(p *cluster.Pod) { p.StartsEmpty = true }), "prod-0 prod-1", "", ""},
		"a paused cluster":                  {func(s *v1beta1.EtcdClusterSpec) { moreMemory(s); s.Paused = true }, nil, none, "", v1beta1.ReasonPaused},
		"a version that goes first":         {func(s *v1beta1.EtcdClusterSpec) { moreMemory(s); s.Version = "3.6.17" }, nil, none, "roll prod-1", v1beta1.ReasonUpgrading},
		"an option that is refused as well": {func(s *v1beta1.EtcdClusterSpec) { moreMemory(s); option("max-txn-ops", "many")(s) }, nil, none, "", v1beta1.ReasonUnsupportedOption},
		"resources that failed before": {moreMemory, func(s *cluster.Snapshot) {
			m := s.Member("prod-2")
			m.Workload.Live.Annotations[cluster.AnnotationFailedIntent] = cluster.FailedIntent(targetOf(s, m), "no node has it")
		}, none, "", v1beta1.ReasonRolledBack},
	} {
		t.Run(name, func(t *testing.T) {
			b := burstable(3).LaterSpec(c.spec)
			if c.later != nil {
				b = b.Later(c.later)
			}
			s := b.Snapshot()
			d := Next(s)
			action := ""
			if d.Action != nil {
				action = strings.Fields(actionText(d.Action))[0] + " " + d.Action.Member()
			}
			if podsResized(d) != c.resized || action != c.action || c.reason != "" && d.Reason != c.reason {
				t.Errorf("resizes %q, action %q, reason %s, want %q, %q, %s\n%s", podsResized(d), action, d.Reason, c.resized, c.action, c.reason, d.Message)
			}
			for _, u := range d.Upkeep {
				if u, ok := u.(plan.UpdateStatefulSet); ok && len(c.resized) > 0 && !strings.Contains(name, "just in time") {
					t.Errorf("writes the template of %s before the pod has the resources", u.Desired.Name)
				}
			}
		})
	}
}

// resizing plays Kubernetes for upkeep that resizes pods. It stops after the writes that it is allowed.
type resizing struct {
	*testing.T
	s      *cluster.Snapshot
	writes int
	left   int
	told   []string
}

func (r *resizing) write(do func()) {
	if r.left > 0 {
		r.left--
		r.writes++
		do()
	}
}

// pass makes the writes of one pass, until the operator crashes. It reports whether there were any.
func (r *resizing) pass() bool {
	r.Helper()
	d, before := Next(*r.s), r.writes
	if d.Action != nil || len(d.StaleTemplates) > 0 {
		r.Fatalf("action %T, stale templates %v: %s", d.Action, d.StaleTemplates, d.Message)
	}
	r.upkeepOf(d)
	return r.writes > before
}

func (r *resizing) upkeepOf(d plan.Decision) {
	r.Helper()
	for _, u := range d.Upkeep {
		switch u := u.(type) {
		case plan.ResizePod:
			p := r.s.Member(u.Member).Pod
			r.write(func() { p.Resize = cluster.MarkedResize(cluster.ResizeMark(u.Target, u.AskedAt, false)) })
			r.write(func() {
				limits, requests := overlaid(p.Resources.Limits, u.Resources.Limits), overlaid(p.Resources.Requests, u.Resources.Requests)
				p.Resources = corev1.ResourceRequirements{Limits: limits, Requests: requests}
			})
		case plan.UpdateStatefulSet:
			r.write(func() {
				writeTemplate(r.T, r.s, plan.Decision{Action: plan.RestartMember{Name: u.Desired.Name, StatefulSet: u.Desired}})
			})
		case plan.AnnotatePod:
			p := r.s.Member(u.Member).Pod
			r.write(func() {
				if u.Resized {
					r.told = append(r.told, u.Member)
				}
				p.IntentHash, p.Resize = u.Annotations[cluster.AnnotationIntentHash], cluster.Resize{}
				if hash, ok := u.Annotations[cluster.AnnotationRenderHash]; ok {
					p.RenderHash = hash
				}
			})
		case plan.Apply, plan.Delete, plan.AppendEntry, plan.AdmitPod, plan.DisarmAlarms, plan.NotePeers, plan.RemoveAnnotation, plan.RecordMember, plan.SetRetention, plan.WriteAuthority, plan.WriteCertificate:
			r.Fatalf("got %T", u)
		}
	}
}

// kubelets carry out what the pods' specs ask for.
func (r *resizing) kubelets() (changed bool) {
	for i := range r.s.Members {
		p := r.s.Members[i].Pod
		changed = changed || p.Resize.Target != "" && !p.Resize.Done
		p.Resize.Done = p.Resize.Target != ""
	}
	return changed
}

func (r *resizing) settle() {
	r.Helper()
	for range 60 {
		wrote := r.pass()
		if !r.kubelets() && !wrote {
			return
		}
	}
	r.Fatal("it never comes to rest")
}

// TestACrashOrAChangeOfMindInTheMiddleOfAResizeRestartsNoMember stops the operator after each write, and changes the
// spec there: not at all, to other resources, and back.
func TestACrashOrAChangeOfMindInTheMiddleOfAResizeRestartsNoMember(t *testing.T) {
	more := asking("cpu=1 memory=2Gi", "memory=4Gi")
	for what, spec := range map[string]func(*v1beta1.EtcdClusterSpec){
		"the same spec": more,
		"even more":     asking("cpu=2 memory=4Gi", "memory=8Gi"),
		"less":          asking("cpu=250m memory=512Mi", "memory=4Gi"),
		"back":          asking("cpu=500m memory=1Gi", "memory=4Gi"),
	} {
		whole := &resizing{T: t, left: 1000}
		s := burstable(3).LaterSpec(more).Snapshot()
		whole.s = &s
		whole.settle()
		if want := []string{"prod-0", "prod-1", "prod-2"}; !slices.Equal(whole.told, want) || whole.writes != 15 {
			t.Fatalf("%d writes, told of %v", whole.writes, whole.told)
		}
		for crash := range whole.writes {
			s := burstable(3).LaterSpec(more).Snapshot()
			r := &resizing{T: t, s: &s, left: crash}
			for r.left > 0 {
				r.pass()
				r.kubelets()
			}
			changed := *s.Cluster
			spec(&changed.Spec)
			s.Cluster, r.left = &changed, 1000
			r.settle()
			for i := range s.Members {
				m := &s.Members[i]
				want := targetOf(&s, m)
				if !sameConfiguration(m.Workload.Intent, want) || !m.Pod.HasResources(want.Resources()) || m.Pod.Resize.Target != "" {
					t.Errorf("%s after write %d: %s has %+v, template %+v", what, crash, m.Name, m.Pod.Resources, m.Workload.Intent.Resources())
				}
				template := m.Workload.Live.Spec.Template.Annotations
				if m.Pod.IntentHash != template[cluster.AnnotationIntentHash] || m.Pod.RenderHash != template[cluster.AnnotationRenderHash] {
					t.Errorf("%s after write %d: the pod of %s does not count as made from its template", what, crash, m.Name)
				}
				if m.Workload.HealthyIntent == nil {
					t.Errorf("%s after write %d: nothing is recorded as healthy", what, crash)
				}
			}
			if d := Next(s); d.Reason != v1beta1.ReasonUpToDate {
				t.Errorf("%s after write %d: %s", what, crash, d.Message)
			}
		}
	}
}

// The intent of a resize is recorded as healthy only when the kubelet has carried it out. Before, a member that
// restarts and fails goes back to what it had.
func TestAResizeIsHealthyOnlyOnceItIsDone(t *testing.T) {
	s := burstable(3).LaterSpec(moreMemory).Later(asked("prod-1", time.Minute, nil)).Snapshot()
	d := Next(s)
	claim(&s, d)
	writeTemplate(t, &s, d)
	m := s.Member("prod-1")
	if got := m.Workload.HealthyIntent.Limits.Memory().String(); got != "2Gi" || isMadeFromTemplate(m) || !canGoBack(&s, m) {
		t.Errorf("healthy with %s, made from its template %t", got, isMadeFromTemplate(m))
	}
	m.Pod.Resize.Done = true // the kubelet was only late
	if d := Next(s); !d.Finished || d.Abandoned != "" || !isMadeFromTemplate(m) {
		t.Errorf("the restart is not needed any more: %+v", d)
	}
}

func TestAPodThatAnotherReleaseMadeStaysSoWhenItIsResized(t *testing.T) {
	s := burstable(3).LaterSpec(moreMemory).Later(pod("prod-1", func(p *cluster.Pod) { p.RenderHash = "another" })).Snapshot()
	r := &resizing{T: t, s: &s, left: 1000}
	for range 6 {
		d := Next(s)
		if diff := cmp.Diff([]string{"prod-1"}, d.StaleTemplates); diff != "" {
			t.Errorf("stale templates: %s", diff)
		}
		s.Member("prod-1").Pod.RenderHash = s.Member("prod-1").Workload.Live.Spec.Template.Annotations[cluster.AnnotationRenderHash]
		wasStale := hasStaleRender(&s, s.Member("prod-1"))
		s.Member("prod-1").Pod.RenderHash = "another"
		if wasStale {
			t.Error("a pod of the present template is stale")
		}
		for _, u := range d.Upkeep {
			if a, ok := u.(plan.AnnotatePod); ok && a.Member == "prod-1" && a.Annotations[cluster.AnnotationRenderHash] != "" {
				t.Errorf("the pod is marked as made by this release: %v", a.Annotations)
			}
		}
		r.upkeepOf(d)
		r.kubelets()
	}
	if m := s.Member("prod-1"); m.Pod.Resize.Target != "" || m.Pod.RenderHash != "another" {
		t.Errorf("the pod is marked %+v, %s", m.Pod.Resize, m.Pod.RenderHash)
	}
}

// Limits go down one member after the other, the leader last.
func TestLowerLimitsAreGivenToOneMemberAfterTheOther(t *testing.T) {
	s := burstable(3).LaterSpec(lessCPU).Snapshot()
	r := &resizing{T: t, s: &s, left: 1000}
	r.settle()
	if want := []string{"prod-1", "prod-2", "prod-0"}; !slices.Equal(r.told, want) {
		t.Errorf("the order is %v, want %v", r.told, want)
	}
	one := burstable(1).LaterSpec(lessCPU).Snapshot()
	if got := podsResized(Next(one)); got != "prod-0" {
		t.Errorf("the only member: resizes %q", got)
	}
}
