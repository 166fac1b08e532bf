package act

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// memberWorld is an API server and an etcd cluster of three, and an operator that is killed at one of its calls.
type memberWorld struct {
	*testing.T
	client.WithWatch
	etcd *fake.World
	s    cluster.Snapshot
	// calls are those of the operator that write or change etcd. failAt is the number of the one that fails.
	calls  []string
	failAt int
	// after tells that the failing call has its effect.
	after bool
	// dead tells that no call after the failing one is made.
	dead bool
	// disconnected are the addresses of members that take peers for inactive which are connected.
	disconnected []string
	// defragment is what a member does that is told to defragment its database; nil for what the model does.
	defragment func(context.Context) error
}

var errLost = errors.New("the connection was lost")

func address(n int) string { return fmt.Sprintf("10.0.0.%d:2379", n+1) }

func newMemberWorld(t *testing.T, members int, operation v1beta1.OperationType, member string) *memberWorld {
	t.Helper()
	w := &memberWorld{T: t, etcd: fake.New(), failAt: -1}
	w.s = clustertest.MakeCluster("prod").Replicas(int32(members)).Objects().Members(clustertest.Healthy).Snapshot()
	w.s.Cluster.Status.Operation = &v1beta1.Operation{Type: operation, Member: member, StartedAt: metav1.NewTime(clustertest.Now)}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	builder := clientfake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1beta1.EtcdCluster{}).WithObjects(w.s.Cluster.DeepCopy(), w.s.PeerService.DeepCopy())
	initial := map[string]string{}
	for i := range w.s.Members {
		initial[w.s.Members[i].Name] = w.s.Members[i].Volume.PeerURL
	}
	for i := range w.s.Members {
		m := &w.s.Members[i]
		claim := render.MemberVolume(w.s.Cluster, m.Name, nil, m.Volume.Token)
		builder = builder.WithObjects(claim)
		must(t, w.etcd.Start(fake.StartOptions{
			Address: address(i), Name: m.Name, PeerURL: m.Volume.PeerURL, InitialCluster: initial, State: fake.StateNew, Token: "t", Version: "3.6.16", Volume: m.Name,
		}))
	}
	w.WithWatch = builder.WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			if len((&client.CreateOptions{}).ApplyOptions(options).DryRun) > 0 {
				return nil
			}
			return w.call("create "+object.GetName(), func() error { return c.Create(ctx, object, options...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			return w.call("patch "+object.GetName(), func() error { return c.Patch(ctx, object, patch, options...) })
		},
	}).Build()
	w.look()
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// look reads what the next pass would know.
func (w *memberWorld) look() {
	w.Helper()
	for i := range w.s.Members {
		m := &w.s.Members[i]
		if probe, err := w.etcd.Probe(w.Context(), etcd.Endpoint{Address: address(i)}); err == nil {
			m.Probe = &probe
		}
		claim := &corev1.PersistentVolumeClaim{}
		must(w.T, w.Get(w.Context(), client.ObjectKey{Namespace: "shop", Name: cluster.VolumeName(m.Name)}, claim))
		m.Volume.ResourceVersion = claim.ResourceVersion
	}
	membership, err := w.etcd.Membership(w.Context(), etcd.Endpoint{Address: address(0)})
	must(w.T, err)
	w.s.Membership = &membership
	service := &corev1.Service{}
	must(w.T, w.Get(w.Context(), client.ObjectKeyFromObject(w.s.PeerService), service))
	w.s.PeerService = service
	live := &v1beta1.EtcdCluster{}
	must(w.T, w.Get(w.Context(), client.ObjectKeyFromObject(w.s.Cluster), live))
	w.s.Cluster.ResourceVersion, w.s.Cluster.Annotations = live.ResourceVersion, live.Annotations
}

// call makes one call of the operator, unless it is killed.
func (w *memberWorld) call(name string, do func() error) error {
	if w.dead {
		return errLost
	}
	w.calls = append(w.calls, name)
	if len(w.calls)-1 != w.failAt {
		return do()
	}
	w.dead = true
	if w.after {
		_ = do()
	}
	return errLost
}

func (w *memberWorld) actor() *Actor {
	return &Actor{Client: w, Live: w, Etcd: changer{w, fake.Changer{World: w.etcd}}, Endpoints: w, Prober: w.etcd}
}

// Endpoint implements Endpoints.
func (w *memberWorld) Endpoint(_ *cluster.Snapshot, m *cluster.Member) (etcd.Endpoint, bool) {
	n, ok := cluster.MemberNumber("prod", m.Name)
	return etcd.Endpoint{Address: address(n)}, ok && m.Pod != nil
}

type changer struct {
	w *memberWorld
	fake.Changer
}

func (c changer) AddLearner(ctx context.Context, t etcd.Target, url string) (id cluster.ID, list []cluster.EtcdMember, err error) {
	err = c.w.call("add learner", func() error {
		if slices.Contains(c.w.disconnected, t.Endpoint.Address) {
			return etcd.ErrUnhealthy
		}
		id, list, err = c.Changer.AddLearner(ctx, t, url)
		return err
	})
	return id, list, err
}

func (c changer) Promote(ctx context.Context, t etcd.Target, id cluster.ID) error {
	return c.w.call("promote", func() error { return c.Changer.Promote(ctx, t, id) })
}

func (c changer) RemoveMember(ctx context.Context, t etcd.Target, id cluster.ID) error {
	return c.w.call("remove member", func() error {
		if slices.Contains(c.w.disconnected, t.Endpoint.Address) {
			return etcd.ErrUnhealthy
		}
		return c.Changer.RemoveMember(ctx, t, id)
	})
}

func (c changer) Defragment(ctx context.Context, t etcd.Target) error {
	return c.w.call("defragment", func() error {
		if c.w.defragment != nil {
			return c.w.defragment(ctx)
		}
		return c.Changer.Defragment(ctx, t)
	})
}

func (c changer) AppendEntry(ctx context.Context, t etcd.Target) error {
	return c.w.call("append entry", func() error { return c.Changer.AppendEntry(ctx, t) })
}

func (c changer) ValidateDowngrade(ctx context.Context, t etcd.Target, minor string) error {
	return c.w.call("validate downgrade", func() error { return c.Changer.ValidateDowngrade(ctx, t, minor) })
}

func (c changer) EnableDowngrade(ctx context.Context, t etcd.Target, minor string) error {
	return c.w.call("enable downgrade", func() error { return c.Changer.EnableDowngrade(ctx, t, minor) })
}

func (c changer) CancelDowngrade(ctx context.Context, t etcd.Target) error {
	return c.w.call("cancel downgrade", func() error { return c.Changer.CancelDowngrade(ctx, t) })
}

// hasVersion lets the time pass that etcd's leader takes to give the cluster a version.
func hasVersion(w *memberWorld) {
	now := clustertest.Now
	w.etcd.SetClock(func() time.Time { return now })
	for range 3 {
		w.look()
		now = now.Add(10 * time.Second)
	}
}

func (c changer) MoveLeader(ctx context.Context, t etcd.Target, to cluster.ID) error {
	return c.w.call("move leader", func() error { return c.Changer.MoveLeader(ctx, t, to) })
}

func (w *memberWorld) leader() string {
	if leader := w.s.Leader(); leader != nil {
		return leader.Name
	}
	return ""
}

// change is one kind of action, how it is planned, and what must be true afterwards.
type change struct {
	operation v1beta1.OperationType
	member    string
	calls     []string
	plan      func(*memberWorld) plan.Action
	isDone    func(*memberWorld) bool
	// prepare comes before; nil for nothing.
	prepare func(*memberWorld)
}

const newURL = "http://prod-3-0.prod.shop.svc:2380"

func entryOf(w *memberWorld, url string) *cluster.EtcdMember {
	membership, err := w.etcd.Membership(w.Context(), etcd.Endpoint{Address: address(0)})
	must(w.T, err)
	for i := range membership.Members {
		if slices.Contains(membership.Members[i].PeerURLs, url) {
			return &membership.Members[i]
		}
	}
	return nil
}

var changes = map[string]change{
	"add": {
		operation: v1beta1.OperationAddMember, member: "prod-3", calls: []string{"patch prod", "create data-prod-3", "add learner"},
		plan: func(w *memberWorld) plan.Action {
			return plan.AddMember{
				Name: "prod-3", NextNumber: 4, Leader: w.leader(), PeerURL: newURL,
				Volume: render.JoiningVolume(w.s.Cluster, "prod-3", "shop/prod/uid-1", newURL),
			}
		},
		isDone: func(w *memberWorld) bool {
			e := entryOf(w, newURL)
			claim := &corev1.PersistentVolumeClaim{}
			return e != nil && e.Learner && w.s.PeerService.Annotations[cluster.AnnotationNextMember] == "4" &&
				w.Get(w.Context(), client.ObjectKey{Namespace: "shop", Name: "data-prod-3"}, claim) == nil
		},
	},
	"enable a downgrade": {
		operation: v1beta1.OperationDowngrade, calls: []string{"patch prod", "validate downgrade", "enable downgrade"},
		prepare: hasVersion,
		plan: func(w *memberWorld) plan.Action {
			return plan.ChangeDowngrade{Target: "3.5", Leader: w.leader(), Notes: map[string]string{cluster.AnnotationDowngrade: "3.5"}}
		},
		isDone: func(w *memberWorld) bool { w.look(); return w.s.Leader().Probe.DowngradeEnabled },
	},
	"cancel a downgrade": {
		operation: v1beta1.OperationDowngrade, calls: []string{"cancel downgrade"},
		prepare: func(w *memberWorld) {
			hasVersion(w)
			p := w.s.Leader().Probe
			must(w.T, fake.Changer{World: w.etcd}.EnableDowngrade(w.Context(), etcd.Target{
				Endpoint:  etcd.Endpoint{Address: address(slices.IndexFunc(w.s.Members, func(m cluster.Member) bool { return m.Leads() }))},
				ClusterID: p.ClusterID, MemberID: p.MemberID,
			}, "3.5"))
		},
		plan:   func(w *memberWorld) plan.Action { return plan.ChangeDowngrade{Leader: w.leader()} },
		isDone: func(w *memberWorld) bool { w.look(); return !w.s.Leader().Probe.DowngradeEnabled },
	},
	"promote": {
		operation: v1beta1.OperationAddMember, member: "prod-3", calls: []string{"append entry", "promote"},
		prepare: func(w *memberWorld) {
			_, err := w.etcd.AddLearner(address(0), newURL)
			must(w.T, err)
			initial := map[string]string{"prod-3": newURL}
			for i := range w.s.Members {
				initial[w.s.Members[i].Name] = w.s.Members[i].Volume.PeerURL
			}
			must(w.T, w.etcd.Start(fake.StartOptions{
				Address: address(3), Name: "prod-3", PeerURL: newURL, InitialCluster: initial, State: fake.StateExisting, Version: "3.6.16", Volume: "prod-3",
			}))
			must(w.T, w.Create(w.Context(), render.MemberVolume(w.s.Cluster, "prod-3", nil, "t")))
			w.s.Members = append(w.s.Members, cluster.Member{Name: "prod-3", Pod: &cluster.Pod{}, Volume: &cluster.Volume{Name: cluster.VolumeName("prod-3"), Member: "prod-3"}})
		},
		plan: func(w *memberWorld) plan.Action {
			return plan.PromoteMember{Name: "prod-3", Learner: entryOf(w, newURL).ID, Leader: w.leader()}
		},
		isDone: func(w *memberWorld) bool { return !entryOf(w, newURL).Learner },
	},
	"remove": {
		operation: v1beta1.OperationRemoveMember, member: "prod-2", calls: []string{"patch data-prod-2", "remove member"},
		plan: func(w *memberWorld) plan.Action {
			m := w.s.Member("prod-2")
			return plan.RemoveMember{Name: "prod-2", ID: m.Probe.MemberID, Volume: m.Volume, Leader: w.leader()}
		},
		isDone: func(w *memberWorld) bool { return entryOf(w, w.s.Member("prod-2").Volume.PeerURL) == nil },
		prepare: func(w *memberWorld) {
			if w.s.Member("prod-2").Leads() {
				must(w.T, w.etcd.MoveLeader(address(2), w.s.Member("prod-1").Probe.MemberID))
			}
		},
	},
	"defragment": {
		operation: v1beta1.OperationDefragment, member: "prod-1", calls: []string{"defragment", "patch prod"},
		plan: func(*memberWorld) plan.Action {
			return plan.Defragment{Name: "prod-1", Timeout: time.Minute, Note: "now done: prod-1"}
		},
		isDone: func(w *memberWorld) bool {
			return w.etcd.Defragmented("prod-1") > 0 && w.s.Cluster.Annotations[v1beta1.DefragmentAnnotation] == "now done: prod-1"
		},
	},
	"move the leader": {
		operation: v1beta1.OperationRemoveMember, member: "prod-0", calls: []string{"move leader"},
		prepare: func(w *memberWorld) {
			if leader := w.s.Leader(); leader.Name != "prod-0" {
				n, _ := cluster.MemberNumber("prod", leader.Name)
				must(w.T, w.etcd.MoveLeader(address(n), w.s.Member("prod-0").Probe.MemberID))
			}
		},
		plan: func(w *memberWorld) plan.Action {
			return plan.MoveLeader{Name: "prod-0", For: v1beta1.OperationRemoveMember, To: "prod-1", ToID: w.s.Member("prod-1").Probe.MemberID}
		},
		isDone: func(w *memberWorld) bool { w.look(); return w.leader() == "prod-1" },
	},
}

func (c *change) world(t *testing.T) *memberWorld {
	t.Helper()
	w := newMemberWorld(t, 3, c.operation, c.member)
	if c.prepare != nil {
		c.prepare(w)
		w.look()
	}
	w.calls = nil
	return w
}

func TestEveryChangeOfEtcdIsMadeAgainAfterACrashAroundAnyCall(t *testing.T) {
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			w := c.world(t)
			must(t, w.actor().Act(t.Context(), &w.s, c.plan(w)))
			if w.look(); !c.isDone(w) || !slices.Equal(w.calls, c.calls) {
				t.Fatalf("calls %v, want %v; done %t", w.calls, c.calls, c.isDone(w))
			}
			for at := range c.calls {
				for _, after := range []bool{false, true} {
					w := c.world(t)
					w.failAt, w.after = at, after
					action := c.plan(w)
					if err := w.actor().Act(t.Context(), &w.s, action); !errors.Is(err, errLost) {
						t.Fatalf("call %d fails, and the action returns %v", at, err)
					}
					w.dead, w.failAt = false, -1
					if w.look(); !after || at < len(c.calls)-1 { // else it is done, and the next pass plans something else
						action = c.plan(w)
					}
					if removal, ok := action.(plan.RemoveMember); ok {
						removal.Volume = w.s.Member("prod-2").Volume
						action = removal
					}
					must(t, w.actor().Act(t.Context(), &w.s, action))
					if w.look(); !c.isDone(w) {
						t.Errorf("not done after a crash at %s, after it: %t", c.calls[at], after)
					}
				}
			}
		})
	}
}

// Nobody writes, so a learner that is cut off looks as if it had caught up.
func TestALearnerThatDoesNotFollowIsNotPromoted(t *testing.T) {
	c := changes["promote"]
	w := c.world(t)
	w.etcd.Partition(address(3))
	var refusal *plan.Refusal
	if err := w.actor().Act(t.Context(), &w.s, c.plan(w)); !errors.As(err, &refusal) || refusal.Guard != "learnerFollows" || c.isDone(w) {
		t.Errorf("while it is cut off: %v", err)
	}
	w.etcd.Heal(address(3))
	w.look()
	must(t, w.actor().Act(t.Context(), &w.s, c.plan(w)))
	if w.look(); !c.isDone(w) {
		t.Error("it follows, and is not promoted")
	}
}

// A drain evicts the pod of another voter after the operator has seen all healthy.
func TestNoVoterIsRemovedWhileAPodOfAnotherOneGoes(t *testing.T) {
	known := func(w *memberWorld) { w.s.Member("prod-1").Pod.Deleting = true }
	for name, c := range map[string]struct {
		pod     string
		change  func(*memberWorld)
		refused bool
	}{
		"another voter's, which was healthy in this pass": {"prod-1-0", func(*memberWorld) {}, true},
		"another voter's, as the guards know":             {"prod-1-0", known, false},
		"its own":                                         {"prod-2-0", func(*memberWorld) {}, false},
		"that of a member that was removed":               {"prod-9-0", func(*memberWorld) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			pod, isRefused, remove := c.pod, c.refused, changes["remove"]
			w := remove.world(t)
			c.change(w)
			going := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: pod, Finalizers: []string{"example.org/hold"}, Labels: map[string]string{cluster.LabelCluster: "prod"},
			}}
			must(t, client.IgnoreAlreadyExists(w.Create(t.Context(), going)))
			must(t, w.Delete(t.Context(), going))
			var refusal *plan.Refusal
			err := w.actor().Act(t.Context(), &w.s, remove.plan(w))
			if isRefused && (!errors.As(err, &refusal) || refusal.Guard != "disruptionAllowed" || !strings.Contains(refusal.Message, "prod-2 is not removed from etcd, because Pod prod-1-0")) || !isRefused && err != nil {
				t.Errorf("the action returns %v", err)
			}
			if w.look(); remove.isDone(w) == isRefused {
				t.Errorf("refused: %t, removed: %t", isRefused, remove.isDone(w))
			}
		})
	}
}

// The cache has only claims with the operator's labels. A policy may have written them anew.
func TestAClaimThatLostItsLabelIsNoLostMember(t *testing.T) {
	c := changes["remove"]
	w := c.world(t)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "data-prod-8", Labels: map[string]string{cluster.LabelManagedBy: "kustomize", cluster.LabelCluster: "prod"},
	}}
	must(t, w.Create(t.Context(), claim))
	var refusal *plan.Refusal
	if err := w.actor().stillLost(t.Context(), &w.s, &plan.Lost{Claim: claim.Name}); !errors.As(err, &refusal) ||
		!strings.HasSuffix(refusal.Message, "kubectl label --overwrite pvc -n shop data-prod-8 app.kubernetes.io/managed-by=etcd-warden operator.etcd-warden.io/cluster=prod") {
		t.Errorf("the look returns %v", err)
	}
	claim.Labels[cluster.LabelManagedBy] = cluster.ManagedByValue
	must(t, w.Update(t.Context(), claim))
	if err := w.actor().stillLost(t.Context(), &w.s, &plan.Lost{Claim: claim.Name}); !apierrors.IsConflict(err) {
		t.Errorf("the look returns %v", err)
	}
}

func TestNoChangeIsSentWithoutTheClaim(t *testing.T) {
	for name, steal := range map[string]func(*v1beta1.EtcdCluster){
		"the operation has ended":  func(c *v1beta1.EtcdCluster) { c.Status.Operation = nil },
		"it is for another member": func(c *v1beta1.EtcdCluster) { c.Status.Operation.Member = "prod-7" },
		"it is of another type":    func(c *v1beta1.EtcdCluster) { c.Status.Operation.Type = v1beta1.OperationRollMember },
		"it was begun at another time": func(c *v1beta1.EtcdCluster) {
			c.Status.Operation.StartedAt = metav1.NewTime(clustertest.Now.Add(time.Second))
		},
		"the cluster was created again":    nil,
		"another member is at the address": nil,
	} {
		for kind, c := range changes {
			t.Run(name+": "+kind, func(t *testing.T) {
				w := c.world(t)
				action := c.plan(w)
				switch {
				case steal != nil:
					live := &v1beta1.EtcdCluster{}
					must(t, w.Get(t.Context(), client.ObjectKeyFromObject(w.s.Cluster), live))
					steal(live)
					must(t, w.Status().Update(t.Context(), live))
				case strings.HasPrefix(name, "the cluster"):
					w.s.Cluster.UID = "earlier"
				default:
					for i := range w.s.Members {
						w.s.Members[i].Probe.MemberID++
					}
					w.s.Membership.ClusterID++
				}
				if action, ok := action.(plan.AddMember); ok && steal == nil && w.s.Cluster.UID == "earlier" {
					action.Volume = nil // made for the earlier cluster
				}
				err := w.actor().Act(t.Context(), &w.s, action)
				if steal != nil && !apierrors.IsConflict(err) || err == nil {
					t.Errorf("the action returns %v", err)
				}
				if c.isDone(w) {
					t.Error("the change was made")
				}
			})
		}
	}
}

func TestAnOperatorThatWasStoppedForLongSendsNoChange(t *testing.T) {
	for kind, c := range changes {
		t.Run(kind, func(t *testing.T) {
			w := c.world(t)
			ctx, cancel := context.WithCancel(t.Context())
			a := w.actor()
			a.Live = stopsAfterReading{w, cancel} // as the deadline does, which began before the claim was read
			if err := a.Act(ctx, &w.s, c.plan(w)); !errors.Is(err, context.Canceled) || c.isDone(w) {
				t.Errorf("the action returns %v", err)
			}
		})
	}
}

type stopsAfterReading struct {
	client.Reader
	stop func()
}

func (r stopsAfterReading) Get(ctx context.Context, key client.ObjectKey, object client.Object, o ...client.GetOption) error {
	err := r.Reader.Get(ctx, key, object, o...)
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > etcd.ChangeTimeout {
		return errors.New("the claim is read without the deadline of the change")
	}
	r.stop()
	return err
}

func TestWhatEtcdRefusesForNowIsToldAndTriedAgain(t *testing.T) {
	c := changes["add"]
	w := c.world(t)
	w.etcd.Partition(address(2)) // etcd wants all three
	w.look()
	err := w.actor().Act(t.Context(), &w.s, c.plan(w))
	refusals, rest := plan.Refusals(err)
	if rest != nil || len(refusals) != 1 || refusals[0].Guard != "etcdAgrees" || !strings.Contains(refusals[0].Message, "adding learner prod-3") {
		t.Fatalf("got %v", err)
	}
	w.etcd.Heal(address(2))
	w.look()
	must(t, w.actor().Act(t.Context(), &w.s, c.plan(w)))
	if w.look(); !c.isDone(w) {
		t.Error("it is not tried again")
	}
}

func TestADowngradeThatEtcdRefusesIsToldAndEnablesNothing(t *testing.T) {
	c := changes["enable a downgrade"]
	w := c.world(t)
	// 3.4 is two minor versions below.
	err := w.actor().Act(t.Context(), &w.s, plan.ChangeDowngrade{Target: "3.4", Leader: w.leader()})
	refusals, other := plan.Refusals(err)
	if other != nil || len(refusals) != 1 || refusals[0].Reason != v1beta1.ReasonDowngradeRefused ||
		!strings.Contains(refusals[0].Message, "enabling the downgrade to etcd 3.4: etcdserver: invalid downgrade target version") {
		t.Fatalf("got %v", err)
	}
	if w.look(); w.s.Leader().Probe.DowngradeEnabled {
		t.Error("a downgrade is enabled")
	}
	must(t, w.actor().Act(t.Context(), &w.s, c.plan(w)))
	if !c.isDone(w) {
		t.Error("the one that etcd takes is not enabled")
	}
}

func TestNoLearnerStartsWithoutTheClaim(t *testing.T) {
	w := newMemberWorld(t, 3, v1beta1.OperationAddMember, "prod-3")
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prod-3"}}
	start := plan.StartLearner{Name: "prod-3", StatefulSet: set}
	live := &v1beta1.EtcdCluster{}
	must(t, w.Get(t.Context(), client.ObjectKeyFromObject(w.s.Cluster), live))
	claimed := live.Status.Operation
	live.Status.Operation = nil
	must(t, w.Status().Update(t.Context(), live))
	err := w.actor().Act(t.Context(), &w.s, start)
	if found := w.Get(t.Context(), client.ObjectKeyFromObject(set), &appsv1.StatefulSet{}); !apierrors.IsConflict(err) || !apierrors.IsNotFound(found) {
		t.Errorf("without the claim: %v; the StatefulSet: %v", err, found)
	}
	live.Status.Operation = claimed
	must(t, w.Status().Update(t.Context(), live))
	must(t, w.actor().Act(t.Context(), &w.s, start))
	must(t, w.Get(t.Context(), client.ObjectKeyFromObject(set), &appsv1.StatefulSet{}))
}

func TestAnEntryIsAppendedWithoutAClaim(t *testing.T) {
	w := newMemberWorld(t, 3, v1beta1.OperationAddMember, "prod-3")
	w.s.Cluster.Status.Operation = nil // it passed its deadline
	before := w.s.Leader().Probe.AppliedIndex
	entry := []plan.Upkeep{plan.AppendEntry{Learner: "prod-3", Leader: w.leader()}}
	_, err := w.actor().Upkeep(t.Context(), &w.s, entry)
	must(t, err)
	if w.look(); w.s.Leader().Probe.AppliedIndex <= before {
		t.Error("no entry was appended")
	}
	w.s.Membership.ClusterID++
	if _, err := w.actor().Upkeep(t.Context(), &w.s, entry); err == nil {
		t.Error("an entry was appended to the log of another cluster")
	}
}

func TestAnotherVoterIsAskedWhereTheLeaderTakesAPeerForInactive(t *testing.T) {
	for name, c := range map[string]struct {
		kind    string
		refuses func(leader, other int, name string) bool // whether the member refuses
		calls   int
		done    bool
	}{
		"the leader refuses to add":                 {"add", func(leader, n int, _ string) bool { return n == leader }, 4, true},
		"every voter refuses to add":                {"add", func(int, int, string) bool { return true }, 5, false},
		"the leader refuses to remove":              {"remove", func(leader, n int, _ string) bool { return n == leader }, 3, true},
		"all refuse but the member that is removed": {"remove", func(_, _ int, name string) bool { return name != "prod-2" }, 3, false},
	} {
		change := changes[c.kind]
		w := change.world(t)
		leader := slices.IndexFunc(w.s.Members, func(m cluster.Member) bool { return m.Leads() })
		for n := range w.s.Members {
			if c.refuses(leader, n, w.s.Members[n].Name) {
				w.disconnected = append(w.disconnected, address(n))
			}
		}
		err := w.actor().Act(t.Context(), &w.s, change.plan(w))
		refusals, _ := plan.Refusals(err)
		if w.look(); change.isDone(w) != c.done || c.done != (err == nil) || !c.done && len(refusals) != 1 || len(w.calls) != c.calls {
			t.Errorf("%s: done %t, calls %v, %v", name, change.isDone(w), w.calls, err)
		}
	}
}

func TestTheNumberOfTheNextMemberOnlyGrows(t *testing.T) {
	c := changes["add"]
	w := c.world(t)
	read := w.s.PeerService
	service := read.DeepCopy()
	metav1.SetMetaDataAnnotation(&service.ObjectMeta, cluster.AnnotationNextMember, "9")
	must(t, w.Update(t.Context(), service))
	action := c.plan(w)
	if err := w.actor().Act(t.Context(), &w.s, action); !apierrors.IsConflict(err) || entryOf(w, newURL) != nil {
		t.Errorf("a note that another operator made is overwritten: %v", err)
	}
	w.look()
	must(t, w.actor().Act(t.Context(), &w.s, action))
	if w.look(); w.s.PeerService.Annotations[cluster.AnnotationNextMember] != "9" {
		t.Errorf("noted %q", w.s.PeerService.Annotations[cluster.AnnotationNextMember])
	}
}
