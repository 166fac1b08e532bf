package analyse

import (
	"fmt"
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
	"github.com/etcd-warden/etcd-warden/internal/render"
)

const peerURLOf3 = "http://prod-3-0.prod.shop.svc:2380"

// resized is a healthy cluster whose spec asks for another size since.
func resized(from, to int32, changes ...func(*cluster.Snapshot)) *Builder {
	b := MakeCluster("prod").Replicas(from).Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = to })
	for _, change := range changes {
		b.Later(change)
	}
	return b
}

// growing3 is a cluster of 3 that grows to 5, with the claim for prod-3.
func growing3(changes ...func(*cluster.Snapshot)) cluster.Snapshot {
	return resized(3, 5, append([]func(*cluster.Snapshot){claims(v1beta1.OperationAddMember, "prod-3")}, changes...)...).Snapshot()
}

func shrinking(from, to int32, member string, changes ...func(*cluster.Snapshot)) cluster.Snapshot {
	return resized(from, to, append([]func(*cluster.Snapshot){claims(v1beta1.OperationRemoveMember, member)}, changes...)...).Snapshot()
}

func claims(t v1beta1.OperationType, member string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		s.Cluster.Status.Operation = &v1beta1.Operation{Type: t, Member: member, StartedAt: metav1.NewTime(Now.Add(-time.Minute))}
	}
}

func pastDeadline(s *cluster.Snapshot) {
	s.Cluster.Status.Operation.StartedAt = metav1.NewTime(Now.Add(-defaultDeadline))
}

func wants(n int32) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = n }
}

// noted writes the next member's number on the Service of the peers.
func noted(n string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		metav1.SetMetaDataAnnotation(&s.PeerService.ObjectMeta, cluster.AnnotationNextMember, n)
	}
}

// joinerVolume is the volume of prod-3, as the operator makes it.
func joinerVolume(s *cluster.Snapshot) *cluster.Volume {
	v := *s.Members[0].Volume
	v.Name, v.Member, v.UID, v.PeerURL = "data-prod-3", "prod-3", "claim-3", peerURLOf3
	v.Founders, v.Members, v.ClusterID, v.MemberID, v.StartedBy, v.Version = nil, nil, 0, 0, "", ""
	return &v
}

// madeVolume is how far the operator came: it made the volume of prod-3, and did not register it.
func madeVolume(s *cluster.Snapshot) {
	s.LeftOvers = append(s.LeftOvers, cluster.Member{Name: "prod-3", Volume: joinerVolume(s)})
}

// removedByAnother has another client remove prod-3, which had been registered, from etcd's list.
func removedByAnother(s *cluster.Snapshot) {
	madeVolume(s)
	s.LeftOvers[0].Volume.JoinedCluster = s.MemberList() + ",prod-3=" + peerURLOf3
}

// registered has prod-3 in etcd's list as a learner that has not started.
func registered(s *cluster.Snapshot) {
	noted("4")(s)
	s.LeftOvers = nil
	s.Members = append(s.Members, cluster.Member{Name: "prod-3", Volume: joinerVolume(s)})
	s.Membership.Members = append(s.Membership.Members, cluster.EtcdMember{ID: 0xa3, PeerURLs: []string{peerURLOf3}, Learner: true})
}

// listed has etcd's list on the volume of the learner.
func listed(s *cluster.Snapshot) { s.Member("prod-3").Volume.JoinedCluster = s.MemberList() }

// created gives the learner its StatefulSet and a pod that runs.
func created(s *cluster.Snapshot) {
	registered(s)
	listed(s)
	m := s.Member("prod-3")
	set := startLearner(s, m).Action.(plan.StartLearner).StatefulSet
	m.Workload = &cluster.Workload{Intent: joinerIntent(s), IntentHash: set.Annotations[cluster.AnnotationIntentHash], StartsEmpty: true, Live: set}
	m.Pod = &cluster.Pod{Name: "prod-3-0", UID: "pod-prod-3", IP: "10.0.0.4", Node: "node-1", Phase: corev1.PodRunning, StartsEmpty: true, InitialCluster: s.MemberList(),
		RenderHash: set.Spec.Template.Annotations[cluster.AnnotationRenderHash], IntentHash: set.Annotations[cluster.AnnotationIntentHash]}
}

// joined is a learner that was seen started, was recorded, and refuses an empty volume. It has not caught up.
func joined(s *cluster.Snapshot) {
	created(s)
	m := s.Member("prod-3")
	m.Volume.ClusterID, m.Volume.MemberID, m.Volume.Version, m.Volume.Members = ClusterID, 0xa3, Version, []string{"prod-0", "prod-1", "prod-2", "prod-3"}
	for i := range s.Members {
		s.Members[i].Volume.Members = m.Volume.Members
	}
	e := s.EtcdEntry(m)
	e.Name, e.Started = "prod-3", true
	in := render.MemberInput{Cluster: s.Cluster, Name: "prod-3", Intent: m.Workload.Intent}
	m.Workload.StartsEmpty, m.Pod.StartsEmpty, m.Workload.Live = false, false, render.MemberStatefulSet(in)
	m.Probe = &cluster.Probe{ClusterID: ClusterID, MemberID: 0xa3, Learner: true, Version: Version, AppliedIndex: 1}
	s.Leader().Probe.CommittedIndex = 5000
}

// caughtUp lets the learner lack as many entries as it may.
func caughtUp(s *cluster.Snapshot) {
	joined(s)
	s.Member("prod-3").Probe.AppliedIndex = 5000 - maxLag
}

// budgeted has the disruption budget keep the quorum of so many, and Kubernetes has seen it.
func budgeted(minAvailable int) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		s.Budget = render.Budget(s.Cluster, minAvailable)
		s.Budget.Generation, s.Budget.Status.ObservedGeneration = 2, 2
	}
}

func budgetNotSeen(s *cluster.Snapshot) { s.Budget.Status.ObservedGeneration = 1 }

func promoted(s *cluster.Snapshot) {
	caughtUp(s)
	m := s.Member("prod-3")
	s.EtcdEntry(m).Learner, m.Probe.Learner, m.Probe.Linearizable, m.Pod.Ready = false, false, true, true
	annotations := m.Workload.Live.Annotations
	annotations[cluster.AnnotationHealthyIntent] = annotations[cluster.AnnotationIntent]
	budgeted(3)(s)
}

func withoutVolume(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Member(name).Volume = nil }
}

func failing(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m := s.Member(name)
		m.Probe, m.Pod.Ready, m.Pod.PassesReadiness = &cluster.Probe{Error: "refused"}, false, false
	}
}

// cannotStart has no node take the learner's pod.
func cannotStart(s *cluster.Snapshot) {
	m := s.Member("prod-3")
	m.Probe, m.Pod.Phase, m.Pod.FailureReason, m.Pod.FailureDetail = nil, corev1.PodPending, v1beta1.ReasonUnschedulable, "no node has room"
}

// relabelled asks for another pod.
func relabelled(s *cluster.Snapshot) {
	s.Cluster.Spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"team": "a"}}}
}

// leads moves the leader.
func leads(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for i := range s.Members {
			s.Members[i].Probe.Leader = s.Member(name).Probe.MemberID
		}
	}
}

// removed takes a member off etcd's list.
func removed(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		s.Membership.Members = slices.DeleteFunc(s.Membership.Members, func(e cluster.EtcdMember) bool { return e.Name == name })
		m := *s.Member(name)
		m.Probe = nil
		s.Members = slices.DeleteFunc(s.Members, func(m cluster.Member) bool { return m.Name == name })
		s.LeftOvers = append(s.LeftOvers, m)
		for i := range s.Members {
			s.Members[i].Volume.Members = membersToRemember(s)
		}
		budgeted(cluster.Quorum(len(s.Members)))(s)
	}
}

func left(name string, change func(*cluster.Member)) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { change(s.Find(name)) }
}

func deletesScaled(s *cluster.Snapshot) {
	s.Cluster.Spec.Storage = &v1beta1.Storage{RetentionPolicy: &v1beta1.RetentionPolicy{WhenScaled: v1beta1.RetentionDelete}}
}

func deletesReplaced(s *cluster.Snapshot) {
	s.Cluster.Spec.Storage = &v1beta1.Storage{RetentionPolicy: &v1beta1.RetentionPolicy{WhenReplaced: v1beta1.RetentionDelete}}
}

// replacesLeft has the removal under way be that of a member in whose place another one has joined.
func replacesLeft(s *cluster.Snapshot) {
	s.Cluster.Status.Operation.Reason, s.Cluster.Status.Operation.VolumeUID = v1beta1.ReasonReplacingMember, "claim-2"
}

func foreign(learner bool, name, url string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		s.Membership.Members = append(s.Membership.Members, cluster.EtcdMember{ID: 0xff, Name: name, PeerURLs: []string{url}, Learner: learner})
		s.SortMembers()
		for i := range s.Members {
			if v := s.Members[i].Volume; v != nil {
				v.Members = membersToRemember(s)
			}
		}
	}
}

// runFor has the members' containers run for so long.
func runFor(times ...time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for i := range s.Members {
			s.Members[i].Pod.StartedAt = s.Now.Add(-times[i])
		}
	}
}

// filled gives every member's database a size.
func filled(bytes int64) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		for i := range s.Members {
			if p := s.Members[i].Probe; p != nil {
				p.DatabaseBytes = bytes
			}
		}
	}
}

func withQuota(quota string) func(*v1beta1.EtcdClusterSpec) {
	return func(s *v1beta1.EtcdClusterSpec) {
		s.Config = &v1beta1.Config{QuotaBackendBytes: new(resource.MustParse(quota))}
	}
}

// growingTo20Mi has a registered learner, and since then a lower quota in its spec than the database has.
func growingTo20Mi() cluster.Snapshot {
	s := growing3(noted("4"), registered, listed, filled(19<<20))
	changed := *s.Cluster
	withQuota("20Mi")(&changed.Spec)
	s.Cluster = &changed
	return s
}

// ranFor has the container of the learner run for so long.
func ranFor(d time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Member("prod-3").Pod.StartedAt = s.Now.Add(-d) }
}

func alarm(s *cluster.Snapshot) {
	s.Membership.Alarms = []cluster.Alarm{{Member: 0xa1, Kind: cluster.AlarmNoSpace}}
}

func TestScale(t *testing.T) {
	const list = "prod-0=http://prod-0-0.prod.shop.svc:2380,prod-1=http://prod-1-0.prod.shop.svc:2380,prod-2=http://prod-2-0.prod.shop.svc:2380,prod-3=" + peerURLOf3
	step := func(action string, upkeep ...string) says {
		return says{Rule: RuleScale, Reason: "Scaling", Progressing: true, Action: action, Upkeep: upkeep}
	}
	claimed := func(action string, upkeep ...string) says {
		return says{Rule: RuleOperation, Reason: "Scaling", Progressing: true, Action: action, Upkeep: upkeep}
	}
	// ended is a claim that ends in this pass: the next step begins in another one.
	ended := func(reason string, upkeep ...string) says {
		if reason == "UpToDate" {
			return says{Reason: reason, Upkeep: upkeep, Finished: true}
		}
		return says{Rule: RuleScale, Reason: reason, Progressing: reason == "Scaling", Upkeep: upkeep, Finished: true}
	}
	refusedStep := says{Rule: RuleScale, Reason: "MembersNotHealthy"}
	for name, c := range map[string]struct {
		snapshot cluster.Snapshot
		want     says
	}{
		// The next number.
		"takes a number above that of a retained volume": {
			resized(3, 5, func(s *cluster.Snapshot) {
				s.RetainedVolumes = []cluster.Volume{{Name: "data-prod-6", Member: "prod-6", Retired: true}}
			}).Snapshot(), step("add prod-7+volume by prod-0, next 8"),
		},
		"takes a number above the one noted, where every object is gone": {resized(3, 5, noted("9")).Snapshot(), step("add prod-9+volume by prod-0, next 10")},
		"takes a number above that of a founder that is gone without a trace": {
			resized(3, 5, removed("prod-2"), func(s *cluster.Snapshot) { s.LeftOvers = nil }).Snapshot(), step("add prod-3+volume by prod-0, next 4"),
		},
		"ignores a note that is no number": {resized(3, 5, noted("many")).Snapshot(), step("add prod-3+volume by prod-0, next 4")},

		// What comes before a new member is registered.
		"refuses while a member is silent":     {resized(3, 5, failing("prod-2")).Snapshot(), refusedStep},
		"refuses while an alarm is active":     {resized(3, 5, alarm).Snapshot(), refusedStep},
		"refuses while a pod is being deleted": {resized(3, 5, func(s *cluster.Snapshot) { s.Member("prod-1").Pod.Deleting = true }).Snapshot(), refusedStep},
		"refuses a foreign object": {
			resized(3, 5, func(s *cluster.Snapshot) { s.ForeignObjects = []cluster.ForeignObject{{Kind: "Service", Name: "x"}} }).Snapshot(),
			says{Rule: RuleScale, Reason: "ForeignObject"},
		},
		"waits for the pod of a removed member": {
			resized(3, 5, func(s *cluster.Snapshot) {
				s.ForeignObjects = []cluster.ForeignObject{{Kind: "Pod", Name: "prod-9-0", Terminating: true}}
			}).Snapshot(),
			says{Rule: RuleScale, Reason: "WaitingForDeletion"},
		},
		"refuses options that etcd does not have": {
			resized(3, 5, func(s *cluster.Snapshot) {
				s.Cluster.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"no-such": "1"}}
			}).Snapshot(),
			says{Rule: RuleScale, Reason: "UnsupportedOption"},
		},
		"removes no voter for a spec that is refused": {
			resized(3, 1).LaterSpec(option("data-dir", "/tmp")).Snapshot(), says{Rule: RuleScale, Reason: "UnsupportedOption"},
		},
		"removes a learner for a spec that is refused": {
			resized(3, 3, registered, listed).LaterSpec(option("data-dir", "/tmp")).Snapshot(), step("remove prod-3 (a3) by prod-0"),
		},
		"adds no member with a quota that the database fills": {
			resized(3, 5, filled(19<<20)).LaterSpec(withQuota("20Mi")).Snapshot(), says{Rule: RuleScale, Reason: "QuotaTooSmall"},
		},
		"adds one with a lower quota that holds the database": {
			resized(3, 5, filled(10<<20)).LaterSpec(withQuota("20Mi")).Snapshot(), step("add prod-3+volume by prod-0, next 4"),
		},
		"adds one with the quota of the others, however full": {
			resized(3, 5, filled(1<<40)).Snapshot(), step("add prod-3+volume by prod-0, next 4"),
		},
		"starts no learner with a quota that the database fills": {
			growingTo20Mi(), says{Rule: RuleOperation, Reason: "Scaling"},
		},
		"refuses a quota that does not fit on the volume": {
			resized(3, 5, func(s *cluster.Snapshot) {
				s.Cluster.Spec.Config = &v1beta1.Config{QuotaBackendBytes: resource.NewQuantity(8<<30, resource.BinarySI)}
			}).Snapshot(),
			says{Rule: RuleScale, Reason: "QuotaTooLarge"},
		},
		"waits until etcd calls enough members connected": {
			resized(3, 5, runFor(time.Hour, time.Hour, 5*time.Second)).Snapshot(), step(""),
		},
		"adds once enough members are connected":               {resized(3, 5, runFor(time.Hour, time.Hour, 6*time.Second)).Snapshot(), step("add prod-3+volume by prod-0, next 4")},
		"adds where a node's clock is ahead":                   {resized(3, 5, runFor(time.Hour, time.Hour, -time.Hour)).Snapshot(), step("add prod-3+volume by prod-0, next 4")},
		"adds beside one that has just restarted":              {resized(5, 7, runFor(time.Hour, time.Hour, time.Hour, time.Hour, time.Second)).Snapshot(), step("add prod-5+volume by prod-0, next 6")},
		"removes no follower before the members are connected": {resized(3, 1, runFor(time.Hour, time.Hour, time.Second)).Snapshot(), step("")},
		"removes a follower of five beside one that has just restarted": {
			resized(5, 3, runFor(time.Hour, time.Hour, time.Hour, time.Hour, time.Second)).Snapshot(), step("remove prod-4 (a4) by prod-0"),
		},
		"waits while nobody leads": {
			resized(3, 5, func(s *cluster.Snapshot) {
				for i := range s.Members {
					s.Members[i].Probe.Leader = 0
				}
			}).Snapshot(), step(""),
		},
		"waits for the Service of the peers": {resized(3, 5, func(s *cluster.Snapshot) { s.PeerService = nil }).Snapshot(), step("", "peer service")},
		"refuses while no voter tells the list": {
			resized(3, 5, func(s *cluster.Snapshot) { s.Membership = nil }).Snapshot(), refusedStep,
		},
		"asks the leader of the latest term": {
			resized(3, 5, func(s *cluster.Snapshot) { p := s.Member("prod-1").Probe; p.Leader, p.Term = p.MemberID, 7 }).Snapshot(),
			step("add prod-3+volume by prod-1, next 4"),
		},

		// Adding, step by step, as it goes on after a crash.
		"goes on where nothing was made":                           {growing3(), claimed("add prod-3+volume by prod-0, next 4")},
		"takes another number where nothing but the note was made": {growing3(noted("4")), ended("Scaling")},
		"goes on with the volume":                                  {growing3(noted("4"), madeVolume), claimed("add prod-3 by prod-0, next 4")},
		"writes the list, then starts the learner": {
			growing3(noted("4"), registered), claimed("start prod-3 with "+list, "list of prod-3: "+list),
		},
		"starts a learner with the list": {growing3(noted("4"), registered, listed), claimed("start prod-3 with " + list)},
		"appends an entry for a learner that runs and has not published itself": {
			growing3(noted("4"), created, ranFor(3*time.Second)), claimed("", "append an entry for prod-3 by prod-0"),
		},
		"appends an entry for a learner that the others know, and that answers no client": {
			growing3(noted("4"), joined, silent("prod-3"), ranFor(3*time.Second)), claimed("", "append an entry for prod-3 by prod-0"),
		},
		"waits while a learner has just begun to run": {growing3(noted("4"), created, ranFor(2*time.Second)), claimed("")},
		"waits for a leader before it appends an entry": {
			growing3(noted("4"), created, ranFor(time.Hour), func(s *cluster.Snapshot) {
				for i := range s.Members[:3] {
					s.Members[i].Probe.Leader = 0
				}
			}), claimed(""),
		},
		"appends no entry for a learner that fails": {
			growing3(noted("4"), created, ranFor(time.Hour), func(s *cluster.Snapshot) { s.Member("prod-3").Pod.FailureReason = "CrashLooping" }), claimed(""),
		},
		"waits until a learner has started":                                 {growing3(created), claimed("")},
		"waits for a learner that cannot start, where the spec is the same": {growing3(created, cannotStart), claimed("")},
		"starts a learner that cannot start from the corrected spec":        {growing3(created, cannotStart, relabelled), claimed("roll prod-3 (pod-prod-3)")},
		"starts it from the corrected spec after its deadline, too":         {resized(3, 5, created, cannotStart, relabelled).Snapshot(), step("roll prod-3 (pod-prod-3)")},
		"starts one that failed later from the corrected spec":              {growing3(joined, cannotStart, relabelled), claimed("roll prod-3 (pod-prod-3)")},
		"deletes the pod where the corrected template was written": {
			growing3(created, cannotStart, relabelled, func(s *cluster.Snapshot) {
				w := s.Member("prod-3").Workload
				w.Intent = joinerIntent(s)
				_, w.IntentHash = w.Intent.Encode()
			}),
			claimed("roll prod-3 (pod-prod-3)"),
		},
		"waits while the pod of the corrected learner is being deleted": {
			growing3(created, cannotStart, relabelled, func(s *cluster.Snapshot) { s.Member("prod-3").Pod.Deleting = true }), claimed(""),
		},
		"leaves a learner that is starting with what it was made from": {growing3(created, relabelled), claimed("")},
		"refuses a corrected spec that etcd does not take": {
			growing3(created, cannotStart, func(s *cluster.Snapshot) {
				s.Cluster.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"no-such": "1"}}
			}),
			says{Rule: RuleOperation, Reason: "Scaling"},
		},
		"rewrites the list where it changed before the first start": {
			growing3(created, func(s *cluster.Snapshot) {
				s.Membership.Members[0].PeerURLs = append(s.Membership.Members[0].PeerURLs, "http://x:1")
			}),
			claimed("", "list of prod-3: "+strings.Replace(list, ",prod-1", ",prod-0=http://x:1,prod-1", 1), "correct prod-3 started=false", "seal prod-3-0"),
		},
		"waits until a learner has caught up":        {growing3(joined), claimed("")},
		"raises the budget before a promotion":       {growing3(caughtUp), claimed("", "budget 3")},
		"waits until Kubernetes has seen the budget": {growing3(caughtUp, budgeted(3), budgetNotSeen), claimed("")},
		"promotes": {growing3(caughtUp, budgeted(3)), claimed("promote prod-3 (a3) by prod-0")},
		"lowers the budget again while the learner lags": {growing3(joined, budgeted(3)), claimed("", "budget 2")},
		"promotes no learner that does not answer":       {growing3(caughtUp, budgeted(2), failing("prod-3")), claimed("")},
		"promotes no learner that may start empty": {
			growing3(caughtUp, budgeted(2), func(s *cluster.Snapshot) { s.Member("prod-3").Pod.StartsEmpty = true }), claimed("", "seal prod-3-0"),
		},
		"promotes beside a silent voter, which tolerates as many": {
			growing3(caughtUp, failing("prod-2"), budgeted(3)), claimed("promote prod-3 (a3) by prod-0"),
		},
		"promotes none where fewer could be lost then": {
			growing3(caughtUp, budgeted(2), func(s *cluster.Snapshot) { s.Member("prod-3").Pod.Deleting = true }), says{Rule: RuleOperation, Reason: "Scaling"},
		},
		"is done once the member is a healthy voter": {growing3(promoted), ended("Scaling")},
		"waits until the voter is healthy":           {growing3(promoted, failing("prod-3")), claimed("")},

		// A change of mind, and what is lost in the middle.
		"keeps the claim of a member that is abandoned while no Service notes its number": {growing3(wants(3), madeVolume), ended("UpToDate")},
		"abandons a member of which the volume was made, and deletes the claim":           {growing3(wants(3), noted("4"), madeVolume), ended("UpToDate", "delete data-prod-3")},
		"deletes no claim that was listed": {
			growing3(wants(3), noted("4"), madeVolume, left("prod-3", func(m *cluster.Member) { m.Volume.JoinedCluster = "x" })), ended("UpToDate"),
		},
		"deletes no claim of another token": {
			growing3(wants(3), noted("4"), madeVolume, left("prod-3", func(m *cluster.Member) { m.Volume.Token = "x" })), ended("UpToDate"),
		},
		"keeps the volume while the members are unhealthy for a moment":           {growing3(noted("4"), madeVolume, failing("prod-2")), says{Rule: RuleOperation, Reason: "Scaling"}},
		"abandons a member of which nothing was made while a member is silent":    {growing3(failing("prod-2")), ended("MembersNotHealthy")},
		"removes a learner that is not wanted any more":                           {resized(3, 3, registered, listed).Snapshot(), step("remove prod-3 (a3) by prod-0")},
		"abandons a learner that another client removed, and takes no name twice": {growing3(noted("4"), removedByAnother), ended("Scaling")},
		"abandons a learner that is not wanted any more":                          {growing3(wants(1), registered, listed), ended("Scaling")},
		"removes a learner before a voter":                                        {resized(3, 1, registered, listed).Snapshot(), step("remove prod-3 (a3) by prod-0")},
		"removes a learner whose volume was lost":                                 {resized(3, 5, created, withoutVolume("prod-3")).Snapshot(), step("remove prod-3 (a3) by prod-0", "correct prod-3 started=true", "seal prod-3-0")},
		"removes the operator's own learner without any object, and notes its number": {
			resized(3, 5, func(s *cluster.Snapshot) {
				s.Membership.Members = append(s.Membership.Members, cluster.EtcdMember{ID: 0xa3, PeerURLs: []string{peerURLOf3}, Learner: true})
				s.SortMembers()
			}).Snapshot(), step("remove prod-3 (a3) by prod-0", "note map[operator.etcd-warden.io/next-member:4]"),
		},
		"waits for a learner past its deadline without a claim": {resized(3, 5, created).Snapshot(), says{Rule: RuleScale, Reason: "DeadlineExceeded"}},
		"appends an entry for it, without a claim": {
			resized(3, 5, created, ranFor(time.Hour)).Snapshot(), says{Rule: RuleScale, Reason: "DeadlineExceeded", Upkeep: []string{"append an entry for prod-3 by prod-0"}},
		},
		"raises the budget for it":           {resized(3, 5, caughtUp).Snapshot(), says{Rule: RuleScale, Reason: "DeadlineExceeded", Upkeep: []string{"budget 3"}}},
		"claims it again for the promotion":  {resized(3, 5, caughtUp, budgeted(3)).Snapshot(), step("promote prod-3 (a3) by prod-0")},
		"abandons a learner at the deadline": {growing3(created, pastDeadline), ended("DeadlineExceeded")},

		// What others registered.
		"refuses beside a foreign learner":                      {resized(3, 5, foreign(true, "other", "http://other:2380")).Snapshot(), refusedStep},
		"refuses beside a foreign learner with a member's name": {resized(3, 5, foreign(true, "prod-1", "http://other:2380")).Snapshot(), refusedStep},
		"removes no foreign voter":                              {resized(3, 3, foreign(false, "other", "http://other:2380"), budgeted(3)).Snapshot(), refusedStep},
		"removes nobody beside a foreign voter":                 {resized(3, 1, foreign(false, "prod-9", "http://other:2380"), budgeted(3)).Snapshot(), refusedStep},

		// Removing.
		"removes a silent voter first":                            {resized(5, 3, failing("prod-1")).Snapshot(), step("remove prod-1 (a1) by prod-0")},
		"removes a follower, not the leader, whatever its number": {resized(3, 1, leads("prod-2")).Snapshot(), step("remove prod-1 (a1) by prod-2")},
		"removes one from the fullest node": {
			resized(5, 3, func(s *cluster.Snapshot) {
				for i, node := range []string{"a", "b", "b", "c", "d"} {
					s.Members[i].Pod.Node = node
				}
			}).Snapshot(), step("remove prod-2 (a2) by prod-0"),
		},
		"removes one from the fullest zone where the nodes are equally full": {
			resized(5, 3, func(s *cluster.Snapshot) {
				for i, zone := range []string{"a", "b", "b", "c", "d"} {
					s.Members[i].Pod.Node, s.Members[i].Pod.Zone = s.Members[i].Name, zone
				}
			}).Snapshot(), step("remove prod-2 (a2) by prod-0"),
		},
		"removes one from the fullest node before one from the fullest zone": {
			resized(5, 3, func(s *cluster.Snapshot) {
				for i, zone := range []string{"a", "b", "b", "c", "c"} {
					s.Members[i].Pod.Node, s.Members[i].Pod.Zone = s.Members[i].Name, zone
				}
				s.Members[2].Pod.Node = "prod-1"
			}).Snapshot(), step("remove prod-2 (a2) by prod-0"),
		},
		"moves the leader before it removes it": {
			shrinking(3, 1, "prod-0"), claimed("move the leader from prod-0 to prod-1 (a1) for RemoveMember"),
		},
		"moves the leader to the follower that has applied most": {
			shrinking(3, 1, "prod-0", func(s *cluster.Snapshot) { s.Member("prod-2").Probe.AppliedIndex = 3 }),
			claimed("move the leader from prod-0 to prod-2 (a2) for RemoveMember"),
		},
		"moves no leader to a follower that lags": {
			shrinking(3, 1, "prod-0", func(s *cluster.Snapshot) { s.Leader().Probe.CommittedIndex = 2 * maxLag }), claimed(""),
		},
		"removes no voter where the others have no quorum": {resized(3, 1, failing("prod-1"), failing("prod-2")).Snapshot(), says{Rule: RuleScale, Reason: "QuorumAtRisk"}},
		"removes none under an alarm":                      {resized(3, 1, alarm).Snapshot(), refusedStep},
		"abandons a removal that is not wanted any more":   {shrinking(3, 3, "prod-2"), ended("UpToDate")},
		"abandons a removal that is refused":               {shrinking(3, 1, "prod-2", alarm), ended("MembersNotHealthy")},
		"completes a removal that is not wanted any more":  {shrinking(3, 3, "prod-2", removed("prod-2")), claimed("", "retire data-prod-2")},
		"retires the volume":                               {shrinking(3, 2, "prod-2", removed("prod-2")), claimed("", "retire data-prod-2")},
		"then deletes the StatefulSet": {
			shrinking(3, 2, "prod-2", removed("prod-2"), left("prod-2", retire)), claimed("", "delete prod-2"),
		},
		"is done then": {
			shrinking(3, 2, "prod-2", removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod)), ended("UpToDate"),
		},
		"is not done while the pod ends": {
			shrinking(3, 2, "prod-2", removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod), func(s *cluster.Snapshot) {
				s.ForeignObjects = []cluster.ForeignObject{{Kind: "Pod", Name: "prod-2-0", Terminating: true}}
			}), claimed(""),
		},
		"deletes the volume where the spec says so": {
			shrinking(3, 2, "prod-2", deletesScaled, removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod), left("prod-2", remembered)),
			claimed("", "delete data-prod-2"),
		},
		"is done once the volume is being deleted": {
			shrinking(3, 2, "prod-2", deletesScaled, removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod),
				left("prod-2", remembered), left("prod-2", func(m *cluster.Member) { m.Volume.Deleting = true })), ended("UpToDate"),
		},
		"keeps a claim that was made again under its name": {
			shrinking(3, 2, "prod-2", deletesScaled, removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod), left("prod-2", remembered),
				left("prod-2", func(m *cluster.Member) { m.Volume.UID = "another" })), ended("UpToDate"),
		},
		"keeps the volume of a member that is replaced": {
			shrinking(3, 2, "prod-2", deletesScaled, removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod), left("prod-2", remembered), replacesLeft),
			ended("UpToDate"),
		},
		"deletes the volume of a member that is replaced where the spec says so": {
			shrinking(3, 2, "prod-2", deletesReplaced, removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod), left("prod-2", remembered), replacesLeft),
			says{Rule: RuleOperation, Reason: v1beta1.ReasonReplacingMember, Progressing: true, Upkeep: []string{"delete data-prod-2"}},
		},
		"but not one on which the operator never saw it healthy": {
			shrinking(3, 2, "prod-2", deletesReplaced, removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod), left("prod-2", remembered), replacesLeft,
				func(s *cluster.Snapshot) { s.Cluster.Status.Operation.VolumeUID = "" }), ended("UpToDate"),
		},
		"deletes no volume that no operation is for": {
			resized(3, 2, deletesScaled, removed("prod-2"), left("prod-2", retire), left("prod-2", withoutPod), left("prod-2", remembered)).Snapshot(), says{Reason: "UpToDate"},
		},
		"leaves what a user removed, and reports it":          {resized(3, 2, removed("prod-2")).Snapshot(), says{Reason: "UpToDate"}},
		"deletes the StatefulSet of a volume that is retired": {resized(3, 2, removed("prod-2"), left("prod-2", retire)).Snapshot(), says{Reason: "UpToDate", Upkeep: []string{"delete prod-2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(c.snapshot)
			if diff := cmp.Diff(c.want, sayOf(d)); diff != "" {
				t.Errorf("wanted -, got +:\n%s\n%s\nabandoned: %s", diff, d.Message, d.Abandoned)
			}
			if strings.Contains(d.Message, "%!") || d.Message == "" {
				t.Errorf("bad message %q", d.Message)
			}
		})
	}
}

func retire(m *cluster.Member) { m.Volume.Retired = true }

func withoutPod(m *cluster.Member) { m.Workload, m.Pod = nil, nil }

func remembered(m *cluster.Member) {
	m.Volume.UID = "claim-2"
	m.Volume.Remembered = cluster.VolumeIdentity{Claim: "claim-2", Name: "pv-2"}
	m.Volume.Identity = m.Volume.Remembered
}

// A new member must find and trust the others, whatever the spec says since.
func TestANewMemberSharesWithTheOthersWhatTheyNeedToFindEachOther(t *testing.T) {
	s := resized(3, 5, func(s *cluster.Snapshot) {
		spec := &s.Cluster.Spec
		spec.Version, spec.ClusterDomain, spec.TLS, spec.Image.Tag = "3.7.0", "other.example", nil, "of-3.7.0"
		spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"a": "b"}}}
	}).Snapshot()
	running, intent := s.Members[0].Workload.Intent, joinerIntent(&s)
	want := running
	want.Labels = map[string]string{"a": "b"}
	if paths := intent.Differences(want); len(paths) > 0 {
		t.Errorf("the intent of a new member differs in %v", paths)
	}
}

func TestALearnerThatNeverStartedCountsForNoQuorumOnceNobodyAnswers(t *testing.T) {
	s := growing3(registered, listed)
	s.Membership = nil
	if voters := s.Outlook().Voters; voters != 3 {
		t.Errorf("%d voters are remembered, want 3", voters)
	}
	s = growing3(joined)
	s.Membership = nil
	if voters := s.Outlook().Voters; voters != 4 {
		t.Errorf("%d voters are remembered, want 4: the learner may have been promoted", voters)
	}
}

func TestVolumesOfACutOffGrowthAreTakenBack(t *testing.T) {
	s := MakeCluster("prod").Replicas(1).Objects().Kept(nil, "prod-0").Snapshot()
	v := s.RetainedVolumes[0]
	v.Name, v.Member, v.PeerURL = "data-prod-1", "prod-1", "http://prod-1-0.prod.shop.svc:2380"
	v.ClusterID, v.MemberID, v.Founders, v.Members, v.Phase = 0, 0, nil, nil, corev1.ClaimPending
	s.RetainedVolumes = append(s.RetainedVolumes, v)
	if d := Next(s); sayOf(d).Action != "take back prod-0, prod-1" {
		t.Errorf("got %+v: %s", sayOf(d), d.Message)
	}
}

func TestARemovedMemberNeverComesBackWhileNobodyAnswers(t *testing.T) {
	s := shrinking(3, 2, "prod-2", removed("prod-2"), left("prod-2", retire))
	s.Membership = nil
	s.SortMembers()
	if s.Member("prod-2") != nil || s.Find("prod-2") == nil {
		t.Errorf("a retired volume's member is one of %d", len(s.Members))
	}
}

func TestAMembershipOfManyEntriesIsRefusedAndNotTouched(t *testing.T) {
	s := resized(3, 5).Snapshot()
	for n := range 65 {
		s.Membership.Members = append(s.Membership.Members, cluster.EtcdMember{
			ID: cluster.ID(0x1000 + n), Name: strings.Repeat("x", 1<<10), PeerURLs: []string{fmt.Sprintf("http://%d\n:2380", n)},
		})
	}
	s.SortMembers()
	d := Next(s)
	if d.Action != nil || d.Reason != v1beta1.ReasonMembersNotHealthy || len(d.Message) > 1<<10 || strings.Contains(d.Message, "\n") {
		t.Errorf("got %+v: %s", sayOf(d), d.Message)
	}
}

func TestAGrowthDoesNotKeepARestartFromCuring(t *testing.T) {
	s := rotating(time.Minute).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }).Later(func(s *cluster.Snapshot) {
		s.Cluster.Status.Operation = nil
		failing("prod-1")(s)
		s.Member("prod-1").Pod.FailureReason = v1beta1.ReasonCrashLooping
	}).Snapshot()
	if d := Next(s); d.Rule != RuleAuthorities || d.Action == nil {
		t.Errorf("got %+v: %s", sayOf(d), d.Message)
	}
}

func TestOnlyAServiceThatIsMadeAgainGetsTheNextMembersNumber(t *testing.T) {
	for name, c := range map[string]struct {
		s    cluster.Snapshot
		want string
	}{
		"of a new cluster":                    {MakeCluster("prod").Snapshot(), ""},
		"made again beside members":           {growing3(madeVolume, func(s *cluster.Snapshot) { s.PeerService = nil }), "4"},
		"that stands, and has another number": {growing3(noted("9")), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if have := peerService(&c.s).Annotations[cluster.AnnotationNextMember]; have != c.want {
				t.Errorf("the Service notes %q, not %q", have, c.want)
			}
		})
	}
}

func TestAPeerURLThatWasChangedByHandIsTold(t *testing.T) {
	s := healthy(3).Snapshot()
	if d := Next(s); len(d.Problems) > 0 {
		t.Fatalf("told without a cause: %+v", d.Problems)
	}
	changed := *s.Membership
	changed.Members = slices.Clone(changed.Members)
	changed.Members[1].PeerURLs = []string{"http://1.2.3.5:2380"}
	s.Membership = &changed
	d := Next(s)
	want := "etcd's member list has prod-1 with the peer URL http://1.2.3.5:2380, and it is reached at http://prod-1-0.prod.shop.svc:2380. " +
		"Once a connection to it is lost, the other members do not find it again. Set it back with: " +
		"etcdctl member update a1 --peer-urls=http://prod-1-0.prod.shop.svc:2380"
	if len(d.Problems) != 1 || d.Problems[0].Reason != v1beta1.ReasonPeerURLChanged || d.Problems[0].Message != want {
		t.Errorf("told %+v", d.Problems)
	}
}

func TestALearnerThatNeverStartedTakesACorrectedSpec(t *testing.T) {
	spec := func(s *cluster.Snapshot) {
		s.Cluster.Spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"team": "a"}}}
	}
	pod := func(change func(*cluster.Pod)) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { change(s.Member("prod-3").Pod) }
	}
	crashes := pod(func(p *cluster.Pod) { p.FailureReason = v1beta1.ReasonCrashLooping })
	isNew := pod(func(p *cluster.Pod) { p.CreatedAt = Now.Add(-time.Second) })
	isOld := pod(func(p *cluster.Pod) { p.CreatedAt = Now.Add(-failureGrace) })
	unclaimed := func(s *cluster.Snapshot) { s.Cluster.Status.Operation = nil }
	for name, c := range map[string]struct {
		s         cluster.Snapshot
		corrected bool
	}{
		"its pod fails":                            {growing3(created, isNew, crashes, spec), true},
		"its pod fails, and its operation ended":   {growing3(created, isNew, crashes, spec, unclaimed), true},
		"etcd stays silent past the deadline":      {growing3(created, isOld, spec, unclaimed), true},
		"etcd is silent before the deadline":       {growing3(created, isOld, spec), false},
		"its pod was just created":                 {growing3(created, isNew, spec), false},
		"its pod fails, and the spec is as it was": {growing3(created, isNew, crashes), false},
		"its pod fails, and the spec has a bad option": {growing3(created, isNew, crashes, spec, func(s *cluster.Snapshot) {
			s.Cluster.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"max-txn-ops": "many"}}
		}), false},
		"it runs already": {growing3(joined, isOld, spec), false},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(c.s)
			action, ok := d.Action.(plan.RestartMember)
			if ok != c.corrected {
				t.Fatalf("got %T: %s", d.Action, d.Message)
			}
			if ok && (action.Name != "prod-3" || action.For != v1beta1.OperationAddMember || d.Claim.Type != v1beta1.OperationAddMember || action.Evict ||
				action.StatefulSet.Spec.Template.Labels["team"] != "a") {
				t.Errorf("got %+v with the claim %+v", action, d.Claim)
			}
		})
	}
}

// A spec that cures the only member must not wait for it.
func TestTheOnlyMemberThatIsSilentIsRestartedForTheSpec(t *testing.T) {
	silent := func(s *cluster.Snapshot) {
		s.Membership = nil
		for i := range s.Members {
			failing(s.Members[i].Name)(s)
		}
		s.Cluster.Spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"team": "a"}}}
	}
	for size, restarts := range map[int32]bool{1: true, 3: false} {
		d := Next(resized(size, size, silent).Snapshot())
		if _, ok := d.Action.(plan.RestartMember); ok != restarts {
			t.Errorf("of %d: got %T: %s", size, d.Action, d.Message)
		}
	}
}

// Nobody else runs: one that was to join has no pod yet.
func TestTheOnlyVoterThatIsSilentIsRestartedForTheSpecBesideOneThatWasToJoin(t *testing.T) {
	s := resized(1, 3).Snapshot()
	s.Membership = nil
	failing("prod-0")(&s)
	s.Cluster.Spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"team": "a"}}}
	s.Members = append(s.Members, cluster.Member{Name: "prod-1", Volume: &cluster.Volume{Name: "data-prod-1", Member: "prod-1", JoinedCluster: "prod-0=x"}})
	if d := Next(s); d.Action == nil {
		t.Errorf("nothing is done: %s", d.Message)
	}
	s.Members[1].Pod = &cluster.Pod{Name: "prod-1-0", Phase: corev1.PodRunning}
	if d := Next(s); d.Action != nil {
		t.Errorf("%+v, although another one runs: %s", d.Action, d.Message)
	}
}

// A founder that hangs with its first spec has never started. The spec that cures it must not wait for it.
func TestAFounderThatHangsIsRestartedForTheSpec(t *testing.T) {
	s := resized(3, 3).Snapshot()
	m := s.Member("prod-1")
	failing("prod-1")(&s)
	m.Workload.StartsEmpty = true
	s.Cluster.Spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"team": "a"}}}
	if a, ok := Next(s).Action.(plan.RestartMember); !ok || a.Name != "prod-1" {
		t.Errorf("%s: %s", actionText(Next(s).Action), Next(s).Message)
	}
	serve(&s, "prod-1")
	if a, ok := Next(s).Action.(plan.RestartMember); ok {
		t.Errorf("%s is restarted while prod-1 may start on an empty volume", a.Name)
	}
}

func TestACorrectedLearnerStartsInItsOwnForm(t *testing.T) {
	for name, c := range map[string]struct {
		snapshot cluster.Snapshot
		empty    bool
	}{
		"not started yet": {growing3(created, cannotStart, relabelled), true},
		"started":         {growing3(joined, cannotStart, relabelled), false},
	} {
		action, ok := Next(c.snapshot).Action.(plan.RestartMember)
		if !ok {
			t.Fatalf("%s: nothing is restarted", name)
		}
		template := action.StatefulSet.Spec.Template
		if template.Labels["team"] != "a" || render.StartsEmpty(template.Annotations) != c.empty || action.Evict || action.For != v1beta1.OperationAddMember {
			t.Errorf("%s: the learner restarts with %v, starts empty: %v", name, template.Labels, render.StartsEmpty(template.Annotations))
		}
	}
}
