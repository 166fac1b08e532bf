package analyse

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

var emptyStart = func(b *Builder) *Builder { return b.Annotated(v1beta1.BootstrapAnnotation, v1beta1.BootstrapEmpty) }

// says is what a test compares of a decision.
type says struct {
	Rule, Reason string
	Progressing  bool
	Action       string
	Upkeep       []string
	Finished     bool
}

func sayOf(d plan.Decision) says {
	s := says{Rule: d.Rule, Reason: d.Reason, Progressing: d.Progressing, Finished: d.Finished, Action: actionText(d.Action)}
	for _, u := range d.Upkeep {
		s.Upkeep = append(s.Upkeep, upkeepText(u))
	}
	return s
}

func actionText(a plan.Action) string {
	switch a := a.(type) {
	case nil:
		return ""
	case plan.CreateFounders:
		var parts []string
		token := ""
		for _, name := range a.Members {
			part := name
			for _, v := range a.Volumes {
				if v.GetLabels()[cluster.LabelMember] == name {
					part, token = part+"+volume", v.GetAnnotations()[cluster.AnnotationClusterToken]
				}
			}
			for _, set := range a.StatefulSets {
				if set.Name == name {
					part, token = part+"+workload", argument(set, "--initial-cluster-token")
				}
			}
			parts = append(parts, part)
		}
		return fmt.Sprintf("found %s with %s", strings.Join(parts, " "), token)
	case plan.TakeBackVolumes:
		return "take back " + memberNames(a.Volumes)
	case plan.StartMembers:
		return "resume " + strings.Join(namesOf(a.StatefulSets), " ")
	case plan.RestartMember:
		return fmt.Sprintf("roll %s (%s)", a.Name, a.UID)
	case plan.AddMember:
		part := a.Name
		if a.Volume != nil {
			part += "+volume"
		}
		return fmt.Sprintf("add %s by %s, next %d", part, a.Leader, a.NextNumber)
	case plan.StartLearner:
		return fmt.Sprintf("start %s with %s", a.Name, a.StatefulSet.Spec.Template.Annotations[cluster.AnnotationInitialCluster])
	case plan.PromoteMember:
		return fmt.Sprintf("promote %s (%s) by %s", a.Name, a.Learner, a.Leader)
	case plan.HashMember:
		return "hash " + a.Name
	case plan.RemoveMember:
		if a.Lost != nil {
			return fmt.Sprintf("replace %s (%s) by %s", a.Name, a.ID, a.Leader)
		}
		return fmt.Sprintf("remove %s (%s) by %s", a.Name, a.ID, a.Leader)
	case plan.ChangeDowngrade:
		if a.Target == "" {
			return "cancel the downgrade by " + a.Leader
		}
		return fmt.Sprintf("downgrade to %s by %s", a.Target, a.Leader)
	case plan.Defragment:
		return fmt.Sprintf("defragment %s within %s, then %q", a.Name, a.Timeout, a.Note)
	case plan.MoveLeader:
		return fmt.Sprintf("move the leader from %s to %s (%s) for %s", a.Name, a.To, a.ToID, a.For)
	}
	return fmt.Sprintf("%T", a)
}

func namesOf(sets []*appsv1.StatefulSet) []string {
	var names []string
	for _, set := range sets {
		names = append(names, set.Name)
	}
	return names
}

// argument returns the value of an option of etcd.
func argument(set *appsv1.StatefulSet, flag string) string {
	for _, arg := range set.Spec.Template.Spec.Containers[0].Args {
		if value, ok := strings.CutPrefix(arg, flag+"="); ok {
			return value
		}
	}
	return ""
}

func upkeepText(u plan.Upkeep) string {
	name := u.Writes()
	switch u := u.(type) {
	case plan.DisarmAlarms:
		return fmt.Sprintf("disarm %d alarms", len(u.Alarms))
	case plan.Apply:
		switch object := u.Desired.(type) {
		case *policyv1.PodDisruptionBudget:
			return fmt.Sprintf("budget %d", object.Spec.MinAvailable.IntValue())
		case *corev1.Service:
			if name.Name == cluster.PeerServiceName("prod") {
				return "peer service"
			}
			return "client service"
		default:
			return fmt.Sprintf("request %s", strings.TrimSuffix(strings.TrimPrefix(name.Name, "prod-"), "-tls"))
		}
	case plan.Delete:
		if name.Kind != "PodDisruptionBudget" {
			return "delete " + name.Name
		}
		return "no budget"
	case plan.RecordMember:
		switch {
		case u.Annotations[cluster.AnnotationMembership] != "":
			return "retire " + u.Volume
		case u.Annotations[cluster.AnnotationJoinedCluster] != "":
			return fmt.Sprintf("list of %s: %s", u.Member, u.Annotations[cluster.AnnotationJoinedCluster])
		case u.Annotations[cluster.AnnotationClusterID] != "":
		case u.Annotations[cluster.AnnotationStarted] != "":
			return fmt.Sprintf("start %s %s", u.Member, u.Annotations[cluster.AnnotationStarted])
		case u.Annotations[cluster.AnnotationMembers] != "":
			return fmt.Sprintf("members of %s: %s", u.Member, u.Annotations[cluster.AnnotationMembers])
		case u.Annotations[cluster.AnnotationVolume] != "":
			return fmt.Sprintf("accept %s for %s", u.Annotations[cluster.AnnotationVolume], u.Member)
		}
		return fmt.Sprintf("record %s %s/%s %s", u.Member, u.Annotations[cluster.AnnotationClusterID],
			u.Annotations[cluster.AnnotationMemberID], u.Annotations[cluster.AnnotationEtcdVersion])
	case plan.UpdateStatefulSet:
		started := u.Desired.Spec.Template.Annotations[cluster.AnnotationInitialClusterState] == ""
		if *u.Desired.Spec.Replicas == 0 {
			return "stop " + u.Desired.Name
		}
		return fmt.Sprintf("correct %s started=%t", u.Desired.Name, started)
	case plan.AnnotatePod:
		return "seal " + u.Pod
	case plan.AdmitPod:
		return "admit " + u.Pod
	case plan.ResizePod:
		return "resize " + u.Pod
	case plan.NotePeers:
		return fmt.Sprintf("note %v", u.Notes)
	case plan.RemoveAnnotation:
		return "remove " + u.Key
	case plan.AppendEntry:
		return fmt.Sprintf("append an entry for %s by %s", u.Learner, u.Leader)
	case plan.WriteAuthority:
		return fmt.Sprintf("%s %s authority: %s", u.Step, u.Traffic, u.Phase)
	case plan.WriteCertificate:
		return fmt.Sprintf("%s by %s, renewed %v", u.Role, u.Issuer, u.Renew)
	case plan.SetRetention:
		return fmt.Sprintf("%s deleted with its cluster=%t", u.Volume, u.DeletedWithCluster)
	}
	return fmt.Sprintf("%T", u)
}

func deleteVolumes(s *v1beta1.EtcdClusterSpec) {
	s.Storage = &v1beta1.Storage{RetentionPolicy: &v1beta1.RetentionPolicy{WhenDeleted: v1beta1.RetentionDelete}}
}

// replaced gives a member's claim another volume than the one that the member started on.
var replaced = Changed(func(m *cluster.Member) {
	m.Volume.Remembered = cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}
	m.Volume.Identity = cluster.VolumeIdentity{Claim: "claim-2", Name: "pv-2"}
})

// pending makes a volume one that no member started on, and that was never bound.
func pending(v *cluster.Volume) {
	v.ClusterID, v.MemberID, v.Version, v.Members, v.Phase = 0, 0, "", nil, corev1.ClaimPending
}

const (
	newToken = "shop/prod/uid-1"
	oldToken = "shop/prod/uid-0"
)

func TestNext(t *testing.T) {
	prod := func() *Builder { return MakeCluster("prod") }
	objects := []string{"peer service", "client service", "budget 2"}
	for name, c := range map[string]struct {
		cluster *Builder
		want    says
	}{
		"makes the Services before the first member": {
			prod(),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Upkeep: objects},
		},
		"starts all founding members at once": {
			prod().Objects(),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0+volume+workload prod-1+volume+workload prod-2+volume+workload with " + newToken},
		},
		"gives one member no budget": {
			prod().Replicas(1),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Upkeep: objects[:2]},
		},
		"makes the volumes that a crash left out": {
			prod().Objects().Member("prod-0", Volume).Member("prod-1").Member("prod-2"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0+workload prod-1+volume+workload prod-2+volume+workload with " + newToken},
		},
		"makes the StatefulSets that a crash left out": {
			prod().Objects().Members(Volume).Member("prod-0", Volume, Founding).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0 prod-1+workload prod-2+workload with " + newToken},
		},
		"makes no volume again once a StatefulSet exists": {
			prod().Objects().Member("prod-0", Volume, Founding).Member("prod-1", Volume).Member("prod-2").Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0 prod-1+workload prod-2 with " + newToken},
		},
		"makes no volume again once a member was recorded": {
			prod().Objects().Member("prod-0", Volume, Recorded).Member("prod-1").Member("prod-2"),
			says{Rule: RuleResume, Reason: "Resuming", Progressing: true, Action: "resume prod-0"},
		},
		"makes no volume again once a member answered": {
			prod().Objects().Member("prod-0").Member("prod-1", Volume).Member("prod-2", Volume).Later(func(s *cluster.Snapshot) { s.Cluster.Status.ClusterID = "c1" }),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0 prod-1+workload prod-2+workload with " + newToken},
		},
		"keeps the founding list when the size changes in between": {
			prod().Objects().Member("prod-0", Volume).Member("prod-1").Member("prod-2").LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0+workload prod-1+volume+workload prod-2+volume+workload with " + newToken},
		},
		"waits for founding members": {
			prod().Objects().Members(Volume, Founding, FoundingPod).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true},
		},
		"records what etcd names, then has templates and pods fail closed, before anything else": {
			prod().Members(Volume, Founding, FoundingPod).Member("prod-1", Volume, Founding, FoundingPod, Serving).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Upkeep: append([]string{
				"record prod-1 c1/a1 3.6.16", "correct prod-1 started=true", "seal prod-1-0",
			}, objects...)},
		},
		"seals a recorded member whose template and pod a crash left open": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Founding, FoundingPod, Silent("no answer")).Claim("Bootstrap"),
			says{Reason: "UpToDate", Finished: true, Upkeep: []string{"correct prod-1 started=true", "seal prod-1-0"}},
		},
		"seals a member whose volume was lost, so that an empty one of its name fails closed": {
			prod().Objects().Members(Healthy).Member("prod-1", Founding, FoundingPod),
			says{Reason: "UpToDate", Upkeep: []string{"correct prod-1 started=true", "seal prod-1-0"}},
		},
		"records and seals a member whose volume is going": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Founding, FoundingPod, Serving, Changed(func(m *cluster.Member) { m.Volume.Deleting = true })).Claim("Bootstrap"),
			says{Reason: "UpToDate", Finished: true, Upkeep: []string{"record prod-1 c1/a1 3.6.16", "correct prod-1 started=true", "seal prod-1-0"}},
		},
		"records the version that a member was updated to": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, Pod, Serving, Changed(func(m *cluster.Member) { m.Volume.Version = "3.6.15" })),
			says{Reason: "UpToDate", Upkeep: []string{"record prod-1 c1/a1 3.6.16"}},
		},
		"does not record another cluster's pod at a member's address": {
			prod().Objects().Members(Volume, Founding, FoundingPod).Claim("Bootstrap").Later(func(s *cluster.Snapshot) {
				s.Members[0].Probe = &cluster.Probe{ClusterID: 0xee, MemberID: 0xe1, Version: Version, Linearizable: true}
				s.Membership = &cluster.Membership{ClusterID: 0xee, Members: []cluster.EtcdMember{{ID: 0xe1, Name: "test-0", PeerURLs: []string{"http://test-0"}}}}
			}),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true},
		},
		"does not record a member under an ID that the member list does not have": {
			prod().Objects().Members(Volume, Founding, FoundingPod, Serving).Claim("Bootstrap").Later(func(s *cluster.Snapshot) {
				for i := range s.Members {
					s.Members[i].Pod.PassesReadiness = false
					s.Members[i].Probe.MemberID = 0xbad
				}
			}),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true},
		},
		"does not record without the word of a voter": {
			prod().Objects().Members(Volume, Founding, FoundingPod, Leaderless).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true},
		},
		"ends the claim when every member is sealed and a quorum serves": {
			prod().Objects().Members(Healthy).Member("prod-2", Volume, Recorded, Sealed, Pod, Silent("no answer")).Claim("Bootstrap"),
			says{Reason: "UpToDate", Finished: true},
		},
		"keeps the claim while pods could still start empty": {
			prod().Objects().Members(Volume, Recorded, Sealed, FoundingPod, Serving).Member("prod-2", Healthy).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Upkeep: []string{"seal prod-0-0", "seal prod-1-0"}},
		},
		"keeps the claim without a quorum": {
			prod().Objects().Members(Volume, Recorded, Sealed, Pod, Leaderless).Claim("Resume"),
			says{Rule: RuleOperation, Reason: "Resuming", Progressing: true},
		},
		"rests": {prod().Objects().Members(Healthy), says{Reason: "UpToDate"}},
		"removes the budget of a single member": {
			prod().Replicas(1).Objects().Members(Healthy).Later(func(s *cluster.Snapshot) { s.Budget = render.Budget(s.Cluster, 2) }),
			says{Reason: "UpToDate", Upkeep: []string{"no budget"}},
		},
		"counts the quorum of five": {
			prod().Replicas(5).Objects().Members(Healthy).Later(func(s *cluster.Snapshot) { s.Budget = nil }),
			says{Reason: "UpToDate", Upkeep: []string{"budget 3"}},
		},
		"leaves a budget by members, not by what answers": {
			prod().Objects().Members(Volume, Recorded, Sealed, Pod, Silent("no answer")),
			says{Reason: "UpToDate"},
		},
		"corrects a Service that somebody changed": {
			prod().Objects().Members(Healthy).Later(func(s *cluster.Snapshot) { s.PeerService.Spec.PublishNotReadyAddresses = false }),
			says{Reason: "UpToDate", Upkeep: []string{"peer service"}},
		},
		"has volumes go with the cluster where the user says so": {
			prod().Objects().Members(Healthy).LaterSpec(deleteVolumes),
			says{Reason: "UpToDate", Upkeep: []string{"data-prod-0 deleted with its cluster=true", "data-prod-1 deleted with its cluster=true", "data-prod-2 deleted with its cluster=true"}},
		},
		"keeps volumes again where the user no longer says so": {
			prod().Objects().Members(Healthy).Member("prod-1", Healthy, Changed(func(m *cluster.Member) { m.Volume.DeletedWith = UID })),
			says{Reason: "UpToDate", Upkeep: []string{"data-prod-1 deleted with its cluster=false"}},
		},
		"leaves the retention of a volume alone that is going": {
			prod().Objects().Members(Healthy).Member("prod-1", Healthy, Changed(func(m *cluster.Member) { m.Volume.Deleting, m.Volume.DeletedWith = true, UID })),
			says{Reason: "UpToDate"},
		},
		"lets no volume of a paused cluster go with it": {
			prod().Paused().Objects().Members(Healthy).LaterSpec(deleteVolumes),
			says{Rule: RulePaused, Reason: "Paused"},
		},
		"keeps the volumes of a paused cluster where the user no longer says that they go": {
			prod().Paused().Objects().Members(Healthy).Member("prod-1", Healthy, Changed(func(m *cluster.Member) { m.Volume.DeletedWith = UID })),
			says{Rule: RulePaused, Reason: "Paused", Upkeep: []string{"data-prod-1 deleted with its cluster=false"}},
		},
		"keeps the volumes of removed members where the user no longer says that they go": {
			prod().Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
				s.LeftOvers = []cluster.Member{{Name: "prod-3", Volume: &cluster.Volume{Name: "data-prod-3", Retired: true, DeletedWith: UID}}}
			}),
			says{Reason: "UpToDate", Upkeep: []string{"data-prod-3 deleted with its cluster=false"}},
		},
		"changes no retention of a cluster that is being deleted": {
			prod().Deleted().Objects().Members(Healthy).LaterSpec(deleteVolumes),
			says{Rule: RuleDeletion, Reason: "Deleting"},
		},

		"gives deleted StatefulSets back": {
			prod().Objects().Members(Volume, Recorded).Member("prod-1", Healthy),
			says{Rule: RuleResume, Reason: "Resuming", Progressing: true, Action: "resume prod-0 prod-2"},
		},
		"finishes a resume that was cut short": {
			prod().Objects().Members(Healthy).Member("prod-2", Volume, Recorded).Claim("Resume"),
			says{Rule: RuleResume, Reason: "Resuming", Progressing: true, Action: "resume prod-2"},
		},
		"gives a StatefulSet back while a founding waits for another member": {
			prod().Replicas(5).Objects().Members(Volume, Founding, FoundingPod).Member("prod-0", Volume, Recorded).Member("prod-1", Healthy).Claim("Bootstrap"),
			says{Rule: RuleResume, Reason: "Bootstrapping", Progressing: true, Action: "resume prod-0"},
		},
		"does not resume over a volume that is going": {
			prod().Objects().Members(Healthy).Member("prod-2", Volume, Recorded, Changed(func(m *cluster.Member) { m.Volume.Deleting = true })),
			says{Rule: RuleRepair, Reason: "ReplacingMember", Progressing: true, Action: "replace prod-2 (a2) by prod-0"},
		},
		"refuses to resume all members with another minor version": {
			prod().Objects().Members(Volume, Recorded).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.7.0" }),
			says{Rule: RuleResume, Reason: "VersionMismatch"},
		},
		"refuses to resume all members under other peer URLs": {
			prod().Objects().Members(Volume, Recorded).Later(func(s *cluster.Snapshot) {
				s.Cluster.Spec.TLS.Peer = &v1beta1.PeerTLS{SecretRef: &v1beta1.PeerSecretRef{Name: "peer"}}
			}),
			says{Rule: RuleResume, Reason: "PeerURLMismatch"},
		},
		"resumes one member as the others run, whatever the spec says now": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded).LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
				s.Version = "3.7.0"
				s.Config = &v1beta1.Config{ExtraArgs: map[string]string{"no-such": ""}}
			}),
			says{Rule: RuleResume, Reason: "Resuming", Progressing: true, Action: "resume prod-1"},
		},

		"takes all kept volumes back": {
			prod().Objects().Kept(nil, "prod-0", "prod-1", "prod-2"),
			says{Rule: RuleBootstrap, Reason: "TakingBack", Progressing: true, Action: "take back prod-0, prod-1, prod-2"},
		},
		"takes a quorum of kept volumes back": {
			prod().Objects().Kept(nil, "prod-0", "prod-2"),
			says{Rule: RuleBootstrap, Reason: "TakingBack", Progressing: true, Action: "take back prod-0, prod-2"},
		},
		"refuses to take back fewer than a quorum": {
			prod().Objects().Kept(nil, "prod-1"),
			says{Rule: RuleBootstrap, Reason: "VolumesBelowQuorum"},
		},
		"refuses volumes of two clusters": {
			prod().Objects().Kept(nil, "prod-0", "prod-1", "prod-2").Kept(func(v *cluster.Volume) { v.Token = "shop/prod/older" }, "prod-3"),
			says{Rule: RuleBootstrap, Reason: "AmbiguousVolumes"},
		},
		"ignores retired volumes": {
			prod().Objects().Kept(nil, "prod-0", "prod-1", "prod-2").Kept(func(v *cluster.Volume) { v.Token, v.Retired = "shop/prod/older", true }, "prod-3"),
			says{Rule: RuleBootstrap, Reason: "TakingBack", Progressing: true, Action: "take back prod-0, prod-1, prod-2"},
		},
		"numbers above retired volumes": {
			prod().Replicas(1).Objects().Kept(func(v *cluster.Volume) { v.Retired = true }, "prod-0", "prod-6"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-7+volume+workload with " + newToken},
		},
		"refuses volumes of a higher minor version": {
			prod().Objects().Kept(func(v *cluster.Volume) { v.Version = "3.7.0" }, "prod-0", "prod-1"),
			says{Rule: RuleBootstrap, Reason: "VersionMismatch"},
		},
		"refuses volumes of a lower minor version": {
			prod().Objects().Kept(func(v *cluster.Volume) { v.Version = "3.5.32" }, "prod-0", "prod-1"),
			says{Rule: RuleBootstrap, Reason: "VersionMismatch"},
		},
		"takes the volumes of an upgrade that had begun back": {
			prod().Replicas(3).Objects().Kept(func(v *cluster.Volume) {
				if v.Version = "3.5.32"; v.Member == "prod-0" {
					v.Version = "3.6.16"
				}
			}, "prod-0", "prod-1", "prod-2"),
			says{Rule: RuleBootstrap, Reason: "TakingBack", Progressing: true, Action: "take back prod-0, prod-1, prod-2"},
		},
		"refuses the volumes of an upgrade that had begun with the older minor version": {
			prod().Objects().Kept(func(v *cluster.Volume) {
				if v.Member == "prod-0" {
					v.Version = "3.7.0"
				}
			}, "prod-0", "prod-1", "prod-2"),
			says{Rule: RuleBootstrap, Reason: "VersionMismatch"},
		},
		"takes volumes of another patch back": {
			prod().Replicas(1).Objects().Kept(func(v *cluster.Volume) { v.Version = "3.6.12" }, "prod-0"),
			says{Rule: RuleBootstrap, Reason: "TakingBack", Progressing: true, Action: "take back prod-0"},
		},
		"refuses volumes that know their peers by other URLs": {
			prod().Objects().Kept(func(v *cluster.Volume) { v.PeerURL = strings.Replace(v.PeerURL, "http:", "https:", 1) }, "prod-0", "prod-1"),
			says{Rule: RuleBootstrap, Reason: "PeerURLMismatch"},
		},
		"starts empty above every kept name where asked to": {
			emptyStart(prod()).Objects().Kept(nil, "prod-0", "prod-1", "prod-4"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-5+volume+workload prod-6+volume+workload prod-7+volume+workload with " + newToken},
		},
		"does not read the annotation once there are volumes of its own": {
			emptyStart(prod()).Objects().Kept(nil, "prod-1", "prod-2").Member("prod-0", TakenBack).Member("prod-1").Member("prod-2").Claim("TakeBack"),
			says{Rule: RuleBootstrap, Reason: "TakingBack", Progressing: true, Action: "take back prod-1, prod-2"},
		},
		"finishes a taking back that was cut short": {
			prod().Objects().Kept(nil, "prod-2").Members(TakenBack).Member("prod-2").Claim("TakeBack"),
			says{Rule: RuleBootstrap, Reason: "TakingBack", Progressing: true, Action: "take back prod-2"},
		},
		"finishes it without the claim, too": {
			prod().Objects().Kept(nil, "prod-2").Members(TakenBack).Member("prod-2"),
			says{Rule: RuleBootstrap, Reason: "TakingBack", Progressing: true, Action: "take back prod-2"},
		},
		"leaves kept volumes of other clusters alone while it runs": {
			emptyStart(prod()).Objects().Members(Healthy).Kept(nil, "prod-4", "prod-5"),
			says{Reason: "UpToDate"},
		},
		"starts the members of volumes that it took back": {
			prod().Objects().Members(TakenBack).Claim("TakeBack"),
			says{Rule: RuleResume, Reason: "TakingBack", Progressing: true, Action: "resume prod-0 prod-1 prod-2"},
		},
		"refuses to start part of them with another minor version": {
			prod().Objects().Member("prod-0", TakenBack).Member("prod-1", TakenBack).Member("prod-2").Claim("TakeBack").
				LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.5.32" }),
			says{Rule: RuleResume, Reason: "VersionMismatch"},
		},
		"founds on kept volumes that never started, with their own token": {
			prod().Objects().Members(TakenBack, Changed(func(m *cluster.Member) { m.Volume.ClusterID, m.Volume.MemberID = 0, 0 })).Claim("TakeBack"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0+workload prod-1+workload prod-2+workload with " + oldToken},
		},
		"founds nothing anew in the place of a cluster whose volumes are all gone": {
			prod().Objects().Later(func(s *cluster.Snapshot) { s.Cluster.Status.ClusterID = "c1" }),
			says{Rule: RuleBootstrap, Reason: "VolumeLost"},
		},

		"waits for the previous cluster's objects": {
			prod().Stranger("StatefulSet", "prod-0", true),
			says{Rule: RuleBootstrap, Reason: "WaitingForDeletion"},
		},
		"refuses a foreign object": {
			prod().Stranger("Service", "prod", false),
			says{Rule: RuleBootstrap, Reason: "ForeignObject"},
		},
		"leaves a foreign object alone, and sees to all others of a cluster that runs": {
			prod().Members(Healthy).Member("prod-0", Volume, Founding, FoundingPod, Serving).Stranger("Service", "prod", false).Claim("Bootstrap"),
			says{Reason: "UpToDate", Finished: true, Upkeep: []string{"record prod-0 c1/a0 3.6.16", "correct prod-0 started=true", "seal prod-0-0", "client service", "budget 2"}},
		},
		"refuses a spec that names what is not there": {
			prod().Missing("peer"),
			says{Rule: RuleBootstrap, Reason: "SecretNotFound"},
		},
		"refuses an option that the version does not have": {
			prod().LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
				s.Config = &v1beta1.Config{ExtraArgs: map[string]string{"no-such-option": "1"}}
			}),
			says{Rule: RuleBootstrap, Reason: "UnsupportedOption"},
		},
		"refuses to go on with a founding whose peer URLs have changed": {
			prod().Objects().Members(Volume).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.ClusterDomain = "example.org" }),
			says{Rule: RuleBootstrap, Reason: "PeerURLMismatch"},
		},
		"stops everything at two recorded cluster IDs": {
			prod().Members(Healthy).Member("prod-1", Volume, Recorded, Changed(func(m *cluster.Member) { m.Volume.ClusterID = 0xc2 })),
			says{Rule: RuleBootstrap, Reason: "ClusterIDConflict"},
		},
		"goes on when a pod of another cluster answers at a member's address": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Founding, FoundingPod, Serving, Changed(func(m *cluster.Member) { m.Probe.ClusterID = 0xc2 })),
			says{Reason: "UpToDate", Upkeep: []string{"start prod-1 Readiness", "correct prod-1 started=true", "seal prod-1-0"}},
		},
		"stops everything when members that were never recorded answer with two cluster IDs": {
			prod().Members(Volume, Founding, FoundingPod, Serving).Member("prod-1", Volume, Founding, FoundingPod, Serving, Changed(func(m *cluster.Member) { m.Probe.ClusterID = 0xc2 })),
			says{Rule: RuleBootstrap, Reason: "ClusterIDConflict"},
		},
		"does not touch what another release has begun": {
			prod().Member("prod-0", Volume).Member("prod-1", Volume, Recorded, Founding, FoundingPod).Member("prod-2").Claim("Teleport"),
			says{Rule: RuleBootstrap, Reason: "UnknownOperation"},
		},

		"does nothing to a cluster that is being deleted": {
			prod().Deleted().Paused().Members(Volume).Claim("Bootstrap"),
			says{Rule: RuleDeletion, Reason: "Deleting"},
		},
		"only records and switches the members of a paused cluster that started": {
			prod().Paused().Members(Volume, Founding, FoundingPod).Member("prod-0", Volume, Founding, FoundingPod, Serving).Claim("Bootstrap").LaterSpec(deleteVolumes),
			says{Rule: RulePaused, Reason: "Paused", Upkeep: []string{"record prod-0 c1/a0 3.6.16", "correct prod-0 started=true", "seal prod-0-0"}},
		},
		"corrects no other template of a paused cluster": {
			prod().Paused().Objects().Members(Healthy).Member("prod-1", Healthy, Changed(func(m *cluster.Member) { m.Workload.Live.Spec.Template.Labels = nil })),
			says{Rule: RulePaused, Reason: "Paused"},
		},
		"switches nothing in a paused cluster with two cluster IDs": {
			prod().Paused().Members(Volume, Founding, FoundingPod, Serving).Member("prod-1", Volume, Founding, FoundingPod, Serving, Changed(func(m *cluster.Member) { m.Probe.ClusterID = 0xc2 })),
			says{Rule: RulePaused, Reason: "Paused"},
		},

		"adds a member for a larger size": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }),
			says{Rule: RuleScale, Reason: "Scaling", Progressing: true, Action: "add prod-3+volume by prod-0, next 4"},
		},
		"removes a member for a smaller size": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 1 }),
			says{Rule: RuleScale, Reason: "Scaling", Progressing: true, Action: "remove prod-2 (a2) by prod-0"},
		},
		"rolls a change of version": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.7.0" }),
			says{Rule: RuleUpgrade, Reason: "RenewingLog", Progressing: true, Action: "downgrade to 3.5 by prod-0"},
		},
		"rolls a change of the template": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
				s.PodTemplate = &v1beta1.PodTemplate{MemberAntiAffinity: v1beta1.MemberAntiAffinityRequired}
			}),
			says{Rule: RuleConfiguration, Reason: "RollingMembers", Progressing: true, Action: "roll prod-1 (pod-prod-1)"},
		},
		"reports a change of TLS": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.TLS = nil }),
			says{Rule: RuleConfiguration, Reason: "NotYetSupported"},
		},
		"refuses a version that is not supported before anything is made": {
			prod().Version("3.4.37"), says{Rule: RuleBootstrap, Reason: "UnsupportedVersion"},
		},
		"refuses a change to a version that is not supported": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.8.0" }),
			says{Rule: RuleUpgrade, Reason: "UnsupportedVersion"},
		},
		"refuses a change to an option that is not supported": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
				s.Config = &v1beta1.Config{ExtraArgs: map[string]string{"data-dir": "/tmp"}}
			}),
			says{Rule: RuleConfiguration, Reason: "UnsupportedOption"},
		},
		"refuses a change to a security context that is not restricted": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
				s.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{SecurityContext: &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}}}}
			}),
			says{Rule: RuleConfiguration, Reason: "SecurityNotRestricted"},
		},
		"reports larger volumes as that alone": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
				s.Storage = Gibibytes(16)
			}),
			says{Rule: RuleStorageGrowth, Reason: "NotYetSupported"},
		},
		"reports a change before any member started": {
			prod().Objects().Members(Volume, Founding, FoundingPod).Claim("Bootstrap").LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Version = "3.7.0" }),
			says{Rule: RuleBootstrap, Reason: "NotYetSupported"},
		},
		"founds no member that was added later, and does not start it with the founding list": {
			prod().Objects().Member("prod-0", Volume, Founding).Member("prod-1", Volume, Founding).
				Member("prod-2", Volume, Changed(func(m *cluster.Member) {
					m.Volume.Founders, m.Volume.JoinedCluster = nil, "prod-0=http://a,prod-2=http://b"
				})),
			says{Rule: RuleScale, Reason: "MembersNotHealthy"},
		},
		"switches members whose readiness shows that they started, while the operator cannot reach them": {
			prod().Objects().Members(Volume, Founding, FoundingPod, Silent("i/o timeout"), Changed(func(m *cluster.Member) { m.Pod.PassesReadiness = true })).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Upkeep: []string{
				"start prod-0 Readiness", "correct prod-0 started=true", "seal prod-0-0",
				"start prod-1 Readiness", "correct prod-1 started=true", "seal prod-1-0",
				"start prod-2 Readiness", "correct prod-2 started=true", "seal prod-2-0",
			}},
		},
		"ends the founding then, without an answer of etcd": {
			prod().Objects().Members(Volume, Marked(cluster.StartedByReadiness), Sealed, Pod, Silent("i/o timeout")).Claim("Bootstrap"),
			says{Reason: "UpToDate", Finished: true},
		},
		"does not believe the readiness of a pod whose claim is going": {
			prod().Objects().Members(Volume, Founding, FoundingPod, Silent("i/o timeout"), Changed(func(m *cluster.Member) {
				m.Pod.PassesReadiness, m.Volume.Deleting = true, true
			})).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true},
		},
		"marks a member that etcd's list calls started": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Founding, FoundingPod, Silent("i/o timeout")).Later(func(s *cluster.Snapshot) {
				s.Membership.Members[1].Started = true
			}),
			says{Reason: "UpToDate", Upkeep: []string{"start prod-1 MemberList", "correct prod-1 started=true", "seal prod-1-0"}},
		},
		"leaves a founder that never starts once a quorum of the others has started": {
			prod().Objects().Members(Healthy).Member("prod-2", Volume, Founding).Claim("Bootstrap"),
			says{Reason: "UpToDate", Finished: true},
		},
		"stops a member whose claim is gone and whose pod waits for one": {
			prod().Objects().Members(Healthy).Member("prod-1", Sealed, Pod, Changed(func(m *cluster.Member) { m.Pod.Phase = corev1.PodPending })),
			says{Rule: RuleRepair, Reason: "ReplacingMember", Progressing: true, Action: "replace prod-1 (a1) by prod-0", Upkeep: []string{"stop prod-1"}},
		},
		"stops no member that runs because its claim cannot be found": {
			prod().Objects().Members(Healthy).Member("prod-1", Sealed, Pod, Silent("refused")), says{Reason: "UpToDate"},
		},
		"creates the StatefulSet that a founding which was cut short lacks, beside a quorum": {
			prod().Objects().Members(Healthy).Member("prod-2", Volume).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0 prod-1 prod-2+workload with " + newToken},
		},
		"but not without the claim of the founding": {
			prod().Objects().Members(Healthy).Member("prod-2", Volume), says{Reason: "UpToDate"},
		},
		"abandons a founding whose last StatefulSet cannot be created in time": {
			prod().Objects().Members(Healthy).Member("prod-2", Volume).Claim("Bootstrap").Later(func(s *cluster.Snapshot) {
				s.Cluster.Status.Operation.StartedAt = metav1.NewTime(Now.Add(-defaultDeadline))
			}), says{Reason: "UpToDate", Finished: true},
		},
		"first gives a member that just started the time to answer": {
			prod().Objects().Members(Volume, Founding, FoundingPod).Member("prod-0", Volume, Founding, FoundingPod, Silent("refused"),
				Changed(func(m *cluster.Member) {
					m.Pod.Ready, m.Pod.PassesReadiness, m.Pod.StartedAt = true, true, Now.Add(-time.Second)
				})).
				Claim("Bootstrap"), says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true},
		},
		"does not found again with a member that is marked in the same pass": {
			prod().Objects().Members(Volume, Founding, FoundingPod).Member("prod-0", Volume).Member("prod-1", Volume, Founding, FoundingPod, Serving).
				Claim("Bootstrap").Later(func(s *cluster.Snapshot) { s.Membership.Members[0].Started = true }),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Upkeep: []string{
				"start prod-0 MemberList", "record prod-1 c1/a1 3.6.16", "correct prod-1 started=true", "seal prod-1-0",
			}},
		},
		"writes the members of etcd's list to every volume when it changes": {
			prod().Objects().Members(Healthy).Member("prod-1", Healthy, Changed(func(m *cluster.Member) { m.Volume.Members = []string{"prod-0"} })),
			says{Reason: "UpToDate", Upkeep: []string{"members of prod-1: prod-0,prod-1,prod-2"}},
		},
		"stops a member whose volume was replaced, once its pod waits to start": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, Pod, replaced, Changed(func(m *cluster.Member) { m.Pod.Phase = corev1.PodPending })),
			says{Reason: "UpToDate", Upkeep: []string{"stop prod-1"}},
		},
		"or is being deleted": {
			prod().Objects().Members(Healthy).Member("prod-1", Healthy, replaced, Changed(func(m *cluster.Member) { m.Pod.Deleting = true })),
			says{Reason: "UpToDate", Upkeep: []string{"stop prod-1"}},
		},
		"stops no member that runs because its annotations name another volume": {
			prod().Objects().Members(Healthy).Member("prod-1", Healthy, replaced).Member("prod-2", Healthy, replaced), says{Reason: "UpToDate"},
		},
		"tells that the quorum lost its volumes, long after the founding": {
			prod().Objects().Members(Sealed).Member("prod-0", Volume, Recorded, Sealed, Pod, Leaderless).Later(func(s *cluster.Snapshot) { s.Membership = nil }),
			says{Rule: RuleRepair, Reason: "VolumeLost", Upkeep: []string{"stop prod-1", "stop prod-2"}},
		},
		"tells it also where every volume is gone, and nobody saw a member start": {
			prod().Objects().Members(Founding, FoundingPod, Changed(func(m *cluster.Member) { m.Pod.Phase = corev1.PodPending })), says{Rule: RuleRepair, Reason: "VolumeLost"},
		},
		"speaks of no loss while a quorum has its volumes": {
			prod().Objects().Members(Healthy).Member("prod-1", Sealed),
			says{Rule: RuleRepair, Reason: "ReplacingMember", Progressing: true, Action: "replace prod-1 (a1) by prod-0", Upkeep: []string{"stop prod-1"}},
		},
		"waits until pending claims are gone, and uses their numbers then": {
			prod().Objects().Kept(func(v *cluster.Volume) { pending(v); v.Deleting = true }, "prod-0", "prod-1"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true},
		},
		"believes no clock that is ahead that a member just started": {
			prod().Objects().Members(Volume, Founding, FoundingPod).Member("prod-0", Volume, Founding, FoundingPod, Silent("refused"),
				Changed(func(m *cluster.Member) {
					m.Pod.Ready, m.Pod.PassesReadiness, m.Pod.StartedAt = true, true, Now.Add(time.Hour)
				})).
				Claim("Bootstrap"), says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Upkeep: []string{
				"start prod-0 Readiness", "correct prod-0 started=true", "seal prod-0-0",
			}},
		},
		"creates no StatefulSet over another volume": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, replaced),
			says{Reason: "UpToDate"},
		},
		"resumes over a volume that the user accepts, and records it with the same write": {
			prod().Objects().Members(Healthy).Member("prod-1", Volume, Recorded, replaced, Changed(func(m *cluster.Member) { m.Volume.Accepted = "claim-2/pv-2" })),
			says{Rule: RuleResume, Reason: "Resuming", Progressing: true, Action: "resume prod-1", Upkeep: []string{"accept claim-2/pv-2 for prod-1"}},
		},
		"records the volume of a member beside its IDs": {
			prod().Objects().Members(Healthy).Member("prod-1", Healthy, Changed(func(m *cluster.Member) {
				m.Volume.Identity = cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}
			})),
			says{Reason: "UpToDate", Upkeep: []string{"accept claim-1/pv-1 for prod-1"}},
		},
		"refuses to take back a volume that was replaced": {
			prod().Objects().Kept(nil, "prod-0", "prod-1").Kept(func(v *cluster.Volume) {
				v.Remembered, v.Identity = cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}, cluster.VolumeIdentity{Claim: "claim-2", Name: "pv-2"}
			}, "prod-2"),
			says{Rule: RuleBootstrap, Reason: "VolumeReplaced"},
		},
		"takes no volumes back of which one has another cluster's ID": {
			prod().Objects().Kept(nil, "prod-0", "prod-1", "prod-2").Later(func(s *cluster.Snapshot) { s.RetainedVolumes[2].ClusterID = 0xc2 }),
			says{Rule: RuleBootstrap, Reason: "AmbiguousVolumes"},
		},
		"deletes the claims that a failed attempt left pending": {
			prod().Objects().Kept(pending, "prod-0", "prod-1"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Upkeep: []string{"delete data-prod-0", "delete data-prod-1"}},
		},
		"leaves them alone where the user starts empty": {
			emptyStart(prod()).Replicas(1).Objects().Kept(pending, "prod-0"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-1+volume+workload with " + newToken},
		},
		"leaves a bound volume aside that no member is known to have started on": {
			prod().Replicas(1).Objects().Kept(func(v *cluster.Volume) { pending(v); v.Phase = corev1.ClaimBound }, "prod-0"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-1+volume+workload with " + newToken},
		},
		"deletes no pending claim of its own": {
			prod().Objects().Members(Volume, Founding, Changed(func(m *cluster.Member) { m.Volume.Phase = corev1.ClaimPending })).Claim("Bootstrap"),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true},
		},
		"a claim comes before a change": {
			prod().Objects().Members(Volume, Recorded, Sealed, Pod, Leaderless).Claim("Resume").LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }),
			says{Rule: RuleOperation, Reason: "Resuming", Progressing: true},
		},
		"repair comes before a change": {
			prod().Objects().Members(Healthy).Member("prod-2", Volume, Recorded).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }),
			says{Rule: RuleResume, Reason: "Resuming", Progressing: true, Action: "resume prod-2"},
		},
		"the size comes before the version": {
			prod().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas, s.Version = 5, "3.7.0" }),
			says{Rule: RuleScale, Reason: "Scaling", Progressing: true, Action: "add prod-3+volume by prod-0, next 4"},
		},
		"two cluster IDs come before a claim, a repair and a change": {
			prod().Members(Healthy).Member("prod-1", Volume, Recorded, Changed(func(m *cluster.Member) { m.Volume.ClusterID = 0xc2 })).
				Claim("Resume").LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }),
			says{Rule: RuleBootstrap, Reason: "ClusterIDConflict"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.cluster.Snapshot()
			before := fmt.Sprintf("%+v", s.Cluster)
			d := Next(s)
			if diff := cmp.Diff(c.want, sayOf(d)); diff != "" {
				t.Errorf("wanted -, got +:\n%s\n%s", diff, d.Message)
			}
			if diff := cmp.Diff(sayOf(d), sayOf(Next(s))); diff != "" {
				t.Errorf("decided twice, and differently:\n%s", diff)
			}
			if d.Message == "" || strings.Contains(d.Message, "%!") {
				t.Errorf("bad message %q", d.Message)
			}
			if after := fmt.Sprintf("%+v", s.Cluster); after != before {
				t.Error("the snapshot was changed")
			}
			if d.Rule != RuleDeletion && d.RequeueAfter == 0 {
				t.Error("etcd is never asked again")
			}
		})
	}
}

func TestFoundingKeepsTheSettledIntent(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Volume).Member("prod-0", Volume, Founding).Claim("Bootstrap").
		LaterSpec(func(spec *v1beta1.EtcdClusterSpec) {
			spec.Version = "3.7.0"
			spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"no-such-option": "1"}}
		}).Snapshot()
	d := Next(s)
	action, ok := d.Action.(plan.CreateFounders)
	if !ok || !strings.HasSuffix(action.StatefulSets[0].Spec.Template.Spec.Containers[0].Image, ":v"+Version) ||
		argument(action.StatefulSets[0], "--no-such-option") != "" {
		t.Errorf("wanted the founding to go on with %s and no options, got %+v: %s", Version, d.Action, d.Message)
	}
}

func TestChangesAreToldTogetherWithWhatToDo(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
		s.ClusterDomain = "example.org"
		s.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"a": "b"}}}
		s.Storage = Gibibytes(16)
	}).Snapshot()
	want := "The running cluster stays as it is, because this release does not carry out changes to it: " +
		"the pod of prod-0 was made with other values of spec.clusterDomain; " +
		"spec.storage asks for volumes of 16Gi and PersistentVolumeClaim data-prod-0 asks for 8Gi. " +
		"Set the spec back, or wait for a later release."
	if diff := cmp.Diff(want, Next(s).Message); diff != "" {
		t.Error(diff)
	}
}

func TestRefusesVolumesOfAnotherClassOrAccessMode(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*v1beta1.VolumeClaimSpec)
		says   string // empty if the change is none
	}{
		"another class":                         {func(c *v1beta1.VolumeClaimSpec) { c.StorageClassName = new("fast") }, "the StorageClass fast and PersistentVolumeClaim data-prod-0 asks for slow"},
		"the same class":                        {func(c *v1beta1.VolumeClaimSpec) { c.StorageClassName = new("slow") }, ""},
		"the default class, which is not known": {func(*v1beta1.VolumeClaimSpec) {}, ""},
		"another access mode": {func(c *v1beta1.VolumeClaimSpec) {
			c.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
		}, "the access modes [ReadWriteOncePod] and PersistentVolumeClaim data-prod-0 asks for [ReadWriteOnce]"},
		"the default access mode explicitly": {func(c *v1beta1.VolumeClaimSpec) {
			c.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := MakeCluster("prod").Objects().Members(Healthy, Changed(func(m *cluster.Member) { m.Volume.StorageClass = "slow" })).
				LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
					s.Storage = Gibibytes(8)
					test.change(&s.Storage.VolumeClaimTemplate.Spec)
				}).Snapshot()
			switch d := Next(s); {
			case d.Action != nil:
				t.Errorf("the action is %+v", d.Action)
			case test.says == "" && len(d.Refusals) > 0:
				t.Errorf("refused: %+v", d.Refusals)
			case !strings.Contains(d.Message, test.says):
				t.Errorf("the message is %q, want %q in it", d.Message, test.says)
			}
		})
	}
}

func TestChangesOfTheOperatorsOwnSecretNeedNoRestart(t *testing.T) {
	s := MakeCluster("prod").TLS().Objects().Members(Healthy).LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.TLS.Client.SecretRef.OperatorName = "other" }).Snapshot()
	if d := Next(s); d.Rule != "" || len(d.Upkeep) > 0 {
		t.Errorf("wanted rest, got %+v", sayOf(d))
	}
}

func TestIPv6StaysWhileTheServiceIsGone(t *testing.T) {
	s := MakeCluster("prod").Objects().Members(Healthy).Snapshot()
	s.PeerService.Spec.IPFamilies = []corev1.IPFamily{"IPv4", "IPv6"}
	for i := range s.Members {
		m := &s.Members[i]
		m.Workload.Live = render.MemberStatefulSet(memberInput(&s, m.Name, m.Workload.Intent, true))
	}
	s.PeerService = nil
	if diff := cmp.Diff([]string{"peer service"}, sayOf(Next(s)).Upkeep); diff != "" {
		t.Error(diff)
	}
}

func TestAVolumeThatIsMissingAmongThoseTakenBackIsNotMadeAgain(t *testing.T) {
	earlier := Changed(func(m *cluster.Member) { m.Volume.Token = "of an earlier cluster" })
	s := MakeCluster("prod").Objects().Member("prod-0").Member("prod-1", Volume, earlier).Member("prod-2", Volume, earlier).Snapshot()
	action, ok := Next(s).Action.(plan.CreateFounders)
	if !ok || len(action.Volumes) > 0 || slices.Contains(namesOf(action.StatefulSets), "prod-0") {
		t.Fatalf("its volume may have had data, got %+v", Next(s))
	}
}
