package analyse

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// writesOf tells the writes to Secrets.
func writesOf(d plan.Decision) []string {
	var list []string
	for _, u := range d.Upkeep {
		if writesSecrets([]plan.Upkeep{u}) {
			list = append(list, upkeepText(u))
		}
	}
	return list
}

// strangerSecret makes a Secret of a cluster somebody else's: what is in it is not known any more.
func strangerSecret(s *cluster.Snapshot, name string) {
	s.ForeignObjects = append(s.ForeignObjects, cluster.ForeignObject{Kind: "Secret", Name: name, Owner: "has no owner", LacksOwnerReference: true})
	for _, traffic := range traffics {
		trust := s.Trust(traffic)
		if trust.Authority.Name == name {
			trust.Authority = cluster.Authority{ObjectVersion: cluster.ObjectVersion{Name: name}}
		}
		for i := range trust.Certificates {
			if c := &trust.Certificates[i]; c.Name == name {
				*c = cluster.Certificate{ObjectVersion: cluster.ObjectVersion{Name: name}, Role: c.Role}
			}
		}
	}
}

func withoutPods(s *cluster.Snapshot) {
	for i := range s.Members {
		s.Members[i].Pod = nil
	}
}

var allRenewed = func(peer, client string) []string {
	return []string{
		fmt.Sprintf("peer by %s, renewed true", peer), fmt.Sprintf("server by %s, renewed true", client),
		fmt.Sprintf("operator by %s, renewed true", client), fmt.Sprintf("client by %s, renewed true", client),
	}
}

func TestSecretsAreWrittenWhenTheyAreDue(t *testing.T) {
	prod := func() *Builder { return MakeCluster("prod").Managed().Objects().Members(Healthy) }
	trusts := func(change func(*cluster.Trust)) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { change(&s.PeerTrust); change(&s.ClientTrust) }
	}
	certificates := func(change func(*cluster.Certificate)) func(*cluster.Snapshot) {
		return trusts(func(t *cluster.Trust) {
			for i := range t.Certificates {
				change(&t.Certificates[i])
			}
		})
	}
	strange := func(name string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) { strangerSecret(s, name) }
	}
	nobodyIssues := trusts(func(t *cluster.Trust) { t.Authority.Previous = "" })
	gone := func(roles ...cluster.Role) func(*cluster.Snapshot) {
		return certificates(func(c *cluster.Certificate) {
			if slices.Contains(roles, c.Role) {
				*c = cluster.Certificate{Role: c.Role, ObjectVersion: cluster.ObjectVersion{Name: c.Name}}
			}
		})
	}
	for name, c := range map[string]struct {
		cluster *Builder
		want    []string
	}{
		"nothing, where nothing is due": {cluster: prod()},
		"everything, for a cluster that is to be founded": {
			MakeCluster("prod").Managed().Later(func(s *cluster.Snapshot) {
				for _, traffic := range traffics {
					empty := cluster.Trust{Source: cluster.SourceManaged}
					for _, role := range traffic.Roles() {
						empty.Certificates = append(empty.Certificates, cluster.Certificate{Role: role})
					}
					*s.Trust(traffic) = empty
				}
			}),
			append(append([]string{"Make peer authority: "}, allRenewed("", "")[0], "Make client authority: "), allRenewed("", "")[1:]...),
		},
		"certificates that are due": {
			prod().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })), allRenewed("p1", "c1"),
		},
		"no certificate that a renewal would not make last longer": {
			cluster: prod().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).
				Later(trusts(func(t *cluster.Trust) {
					t.Authority.NotAfter, t.Authority.RenewalDue = t.Certificates[0].NotAfter, Now.Add(time.Hour)
				})),
		},
		"certificates that are due, although the cluster is paused": {
			prod().Paused().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })), allRenewed("p1", "c1"),
		},
		"certificates that are due, beside a cluster-ID conflict": {
			prod().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).
				Later(func(s *cluster.Snapshot) { s.Members[1].Volume.ClusterID = 0xc2 }), allRenewed("p1", "c1"),
		},
		"nothing else beside a cluster-ID conflict": {
			cluster: prod().Annotated(v1beta1.RotateAuthoritiesAnnotation, "now").Later(gone(cluster.RoleClient)).
				Later(func(s *cluster.Snapshot) { s.Members[1].Volume.ClusterID = 0xc2 }),
		},
		"certificates that are due, beside an operation that this release does not know": {
			prod().Claim("Teleport").Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })), allRenewed("p1", "c1"),
		},
		"certificates that are due, where every volume is gone": {
			MakeCluster("prod").Managed().Objects().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).
				Later(func(s *cluster.Snapshot) { s.Cluster.Status.ClusterID = "c1" }), allRenewed("p1", "c1"),
		},
		"certificates that are due, beside a Secret that is somebody else's": {
			prod().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).Later(strange("prod-client-tls")), allRenewed("p1", "c1")[:3],
		},
		"certificates that are due, beside a Secret that is somebody else's, although the cluster is paused": {
			prod().Paused().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).Later(strange("prod-client-tls")), allRenewed("p1", "c1")[:3],
		},
		"certificates of the other traffic, beside an authority that is somebody else's": {
			prod().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).Later(strange("prod-peer-ca")), allRenewed("p1", "c1")[1:],
		},
		"no rotation while the cluster is paused": {cluster: prod().Paused().Annotated(v1beta1.RotateAuthoritiesAnnotation, "now")},
		"no Secret of a cluster that is deleted":  {cluster: prod().Deleted().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now }))},
		"a certificate that does not fit": {
			prod().Later(func(s *cluster.Snapshot) { s.ClientTrust.Certificates[0].Broken = "it does not fit prod-9" }), []string{"server by c1, renewed true"},
		},
		"a certificate that is gone": {
			prod().Later(func(s *cluster.Snapshot) {
				s.ClientTrust.Certificates[2] = cluster.Certificate{Role: cluster.RoleClient}
			}), []string{"client by c1, renewed true"},
		},
		"an old authority": {
			prod().Later(func(s *cluster.Snapshot) { s.PeerTrust.Authority.RenewalDue = Now }), []string{"Rotate peer authority: Announced"},
		},
		"authorities that the user wants rotated": {
			prod().Annotated(v1beta1.RotateAuthoritiesAnnotation, "now"), []string{"Rotate peer authority: Announced", "Rotate client authority: Announced"},
		},
		"none for a wish that was taken up": {
			cluster: prod().Annotated(v1beta1.RotateAuthoritiesAnnotation, "now").Later(trusts(func(t *cluster.Trust) { t.Authority.RotationRequest = "now" })),
		},
		"an authority that is gone, beside the one that members trust": {
			prod().Later(func(s *cluster.Snapshot) { s.PeerTrust.Authority = cluster.Authority{} }), []string{"Make peer authority: Announced"},
		},
		"an authority that came back from a backup is announced, and issues nothing": {
			prod().Later(func(s *cluster.Snapshot) {
				s.PeerTrust.Authority.Current, s.PeerTrust.Authority.Bundle = "p0", []string{"p0"}
			}),
			[]string{"Announce peer authority: Announced"},
		},
		"an authority that came back with all that is trusted, and that no member was started with": {
			prod().Later(func(s *cluster.Snapshot) {
				s.ClientTrust.Authority.Current, s.ClientTrust.Authority.Bundle = "c0", []string{"c0", "c1"}
			}), []string{"Announce client authority: Announced"},
		},
		"an authority that came back in the middle of a rotation": {
			prod().Announced(time.Hour).Later(certificates(func(c *cluster.Certificate) { c.Issuers, c.Bundle = []string{"x"}, []string{"x"} })),
			[]string{"Announce peer authority: Announced", "Announce client authority: Announced"},
		},
		"no due certificate of an authority that came back, although the cluster is paused": {
			cluster: prod().Paused().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).
				Later(trusts(func(t *cluster.Trust) { t.Authority.Current, t.Authority.Bundle = "x", []string{"x"} })),
		},
		"no due certificate of an authority that no client knows, although the cluster is paused and no member runs": {
			cluster: prod().Paused().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).Later(withoutPods).
				Later(trusts(func(t *cluster.Trust) { t.Authority.Current, t.Authority.Bundle = "x", []string{"x"} })),
		},
		"expired certificates by an authority that no client knows, where the cluster is paused and no member runs": {
			prod().Paused().Later(certificates(func(c *cluster.Certificate) { c.RenewalDue, c.NotAfter = Now, Now })).Later(withoutPods).
				Later(trusts(func(t *cluster.Trust) { t.Authority.Current, t.Authority.Bundle = "x", []string{"x"} })), allRenewed("x", "x"),
		},
		"the new authority at once, where certificates have ended and the old authority with them": {
			prod().Announced(time.Minute).Later(certificates(func(c *cluster.Certificate) { c.NotAfter = Now })).
				Later(trusts(func(t *cluster.Trust) { t.Authority.PreviousNotAfter = Now })),
			[]string{"Issue peer authority: Issuing", "Issue client authority: Issuing"},
		},
		"no due certificate that the old authority would not make last longer": {
			cluster: prod().Announced(time.Minute).Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).
				Later(trusts(func(t *cluster.Trust) { t.Authority.PreviousNotAfter = t.Certificates[0].NotAfter })),
		},
		"no certificate of an old authority that has expired": {
			cluster: prod().Announced(time.Minute).Later(certificates(func(c *cluster.Certificate) { c.Broken = "it does not fit" })).
				Later(trusts(func(t *cluster.Trust) { t.Authority.PreviousNotAfter = Now })),
		},
		"another authority, where the new one expired before it issued": {
			prod().Announced(time.Minute).Later(trusts(func(t *cluster.Trust) { t.Authority.NotAfter = Now })),
			[]string{"Make peer authority: Announced", "Make client authority: Announced"},
		},
		"the mark again, where it was made in a time to come": {
			prod().Announced(-time.Hour), []string{"Mark peer authority: Announced", "Mark client authority: Announced"},
		},
		"no certificate of an authority whose time has not come": {
			cluster: prod().Later(certificates(func(c *cluster.Certificate) { c.Broken = "it is not valid yet" })).
				Later(trusts(func(t *cluster.Trust) { t.Authority.NotBefore = Now.Add(time.Second) })),
		},
		"no missing certificate of an authority whose time has not come": {
			cluster: prod().Later(gone(cluster.RolePeer)).Later(trusts(func(t *cluster.Trust) { t.Authority.NotBefore = Now.Add(time.Second) })),
		},
		"no new authority whose time has not come": {
			cluster: prod().Announced(time.Hour).Template().Restarted("prod-0", "prod-1", "prod-2").
				Later(trusts(func(t *cluster.Trust) { t.Authority.NotBefore = Now.Add(time.Second) })),
		},
		"the new authority at once, where the time of certificates has not come": {
			prod().Announced(time.Minute).Later(nobodyIssues).Later(certificates(func(c *cluster.Certificate) { c.NotBefore = Now.Add(time.Second) })),
			[]string{"Issue peer authority: Issuing", "Issue client authority: Issuing"},
		},
		"no missing certificate of an authority that members who run do not trust": {
			cluster: prod().Announced(time.Minute).Later(nobodyIssues).Template().Restarted("prod-0", "prod-1").Later(gone(cluster.RolePeer, cluster.RoleOperator, cluster.RoleClient)),
		},
		"a missing certificate that only clients check": {
			prod().Announced(time.Minute).Later(nobodyIssues).Template().Restarted("prod-0", "prod-1").Later(gone(cluster.RoleServer)), []string{"server by c2, renewed true"},
		},
		"not even that, where members who run know no authority of today's": {
			cluster: prod().Announced(time.Minute).Later(nobodyIssues).Later(func(s *cluster.Snapshot) {
				for _, traffic := range traffics {
					s.Trust(traffic).Authority.Bundle = []string{s.Trust(traffic).Authority.Current}
				}
			}).Later(gone(cluster.RolePeer, cluster.RoleServer, cluster.RoleOperator, cluster.RoleClient)).Template(),
		},
		"missing certificates of an authority that all who run trust": {
			prod().Announced(time.Minute).Later(nobodyIssues).Template().Restarted("prod-0", "prod-1").
				Later(func(s *cluster.Snapshot) { s.Member("prod-2").Pod = nil }).Later(gone(cluster.RolePeer, cluster.RoleOperator)),
			[]string{"peer by p2, renewed true", "operator by c2, renewed true"},
		},
		"no missing certificate before the templates name its authorities": {
			cluster: prod().Announced(time.Minute).Later(gone(cluster.RolePeer)),
		},
		"none where nobody knows what the members trust": {
			cluster: prod().Later(func(s *cluster.Snapshot) {
				s.PeerTrust = cluster.Trust{Source: cluster.SourceManaged}
			}),
		},
		"the bundle alone, once a new authority is announced": {
			prod().Announced(0).Later(certificates(func(c *cluster.Certificate) { c.Bundle = c.Bundle[:1] })),
			strings.Split(strings.ReplaceAll(strings.Join(allRenewed("p1", "c1"), "\n"), "renewed true", "renewed false"), "\n"),
		},
		"the mark, once every Secret has the bundle": {
			prod().Announced(0).Later(trusts(func(t *cluster.Trust) { t.Authority.Since = time.Time{} })), []string{"Mark peer authority: Announced", "Mark client authority: Announced"},
		},
		"nothing before every member trusts the new authority": {cluster: prod().Announced(2*time.Hour).Template().Restarted("prod-0", "prod-1")},
		"nothing before clients had the time to":               {cluster: prod().Announced(time.Minute).Template().Restarted("prod-0", "prod-1", "prod-2")},
		"the new authority, once all trust it": {
			prod().Announced(time.Hour).Template().Restarted("prod-0", "prod-1", "prod-2"), []string{"Issue peer authority: Issuing", "Issue client authority: Issuing"},
		},
		"a due certificate by the old authority, while the new one is announced": {
			prod().Announced(time.Minute).Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })), allRenewed("p1", "c1"),
		},
		"no due certificate while nobody can issue whom the members trust": {
			cluster: prod().Announced(time.Minute).Later(certificates(func(c *cluster.Certificate) { c.RenewalDue = Now })).
				Later(trusts(func(t *cluster.Trust) { t.Authority.Previous = "" })),
		},
		"certificates of the new authority, once it issues": {
			prod().Announced(0).Template().Restarted("prod-0", "prod-1", "prod-2").
				Later(trusts(func(t *cluster.Trust) {
					t.Authority.Phase, t.Authority.Previous, t.Authority.Since = cluster.PhaseIssuing, "", time.Time{}
				})), allRenewed("p2", "c2"),
		},
		"the end of the old authority": {
			prod().Announced(time.Hour).Template().Restarted("prod-0", "prod-1", "prod-2").Later(trusts(func(t *cluster.Trust) {
				t.Authority.Phase, t.Authority.Previous = cluster.PhaseIssuing, ""
				for i := range t.Certificates {
					t.Certificates[i].Issuers = []string{t.Authority.Current}
				}
			})), []string{"Forget peer authority: ", "Forget client authority: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(c.cluster.Snapshot())
			if diff := cmp.Diff(c.want, writesOf(d)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if d.InvalidatesSecrets != (len(c.want) > 0) {
				t.Errorf("WritesSecrets is %v", d.InvalidatesSecrets)
			}
		})
	}
}

func TestMembersTakeAuthoritiesUpOneByOneAndTheLeaderLast(t *testing.T) {
	prod := func() *Builder {
		return MakeCluster("prod").Managed().Objects().Members(Healthy).Announced(time.Minute)
	}
	rolling := func(action string) says {
		return says{Rule: RuleAuthorities, Reason: "RotatingAuthorities", Progressing: true, Action: action}
	}
	claimed := func(b *Builder, member string) *Builder {
		return b.Later(func(s *cluster.Snapshot) {
			s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationRollMember, Member: member, StartedAt: metav1.NewTime(Now)}
		})
	}
	down := func(b *Builder, member string) *Builder {
		return b.Later(func(s *cluster.Snapshot) {
			m := s.Member(member)
			m.Pod.Ready, m.Probe = false, &cluster.Probe{Error: "connection refused"}
		})
	}
	cutOff := func(b *Builder, member string) *Builder {
		return b.Later(func(s *cluster.Snapshot) {
			m := s.Member(member)
			m.Pod.Ready, m.Probe.Linearizable, m.Probe.Leader = false, false, 0
		})
	}
	inTrouble := func(b *Builder, member string) *Builder {
		return down(b, member).Later(func(s *cluster.Snapshot) { s.Member(member).Pod.FailureReason = "CrashLooping" })
	}
	for name, c := range map[string]struct {
		cluster *Builder
		want    says
	}{
		"templates come first": {prod(), func() says {
			s := rolling("")
			s.Upkeep = []string{"correct prod-0 started=true", "correct prod-1 started=true", "correct prod-2 started=true"}
			return s
		}()},
		"then a follower":                   {prod().Template(), rolling("roll prod-1 (pod-prod-1)")},
		"then the other":                    {prod().Template().Restarted("prod-1"), rolling("roll prod-2 (pod-prod-2)")},
		"the leader last, which hands over": {prod().Template().Restarted("prod-1", "prod-2"), rolling("move the leader from prod-0 to prod-1 (a1) for RollMember")},
		"a dead one before":                 {inTrouble(prod().Template(), "prod-2"), rolling("roll prod-2 (pod-prod-2)")},
		"one that is cut off before":        {cutOff(prod().Template(), "prod-2"), rolling("roll prod-2 (pod-prod-2)")},
		"one that was claimed and is cut off": {
			claimed(cutOff(prod().Template(), "prod-2"), "prod-2"), says{Rule: RuleOperation, Reason: "RotatingAuthorities", Progressing: true, Action: "roll prod-2 (pod-prod-2)"},
		},
		"nobody, where the one that is cut off is needed for the quorum": {
			cutOff(cutOff(prod().Template(), "prod-1"), "prod-2"), says{Rule: RuleAuthorities, Reason: "MembersNotHealthy"},
		},
		"those whose clients' certificate is of another authority": {
			prod().Template().Later(func(s *cluster.Snapshot) { s.ClientTrust.Certificate(cluster.RoleServer).Issuers = []string{"c2"} }), rolling("roll prod-1 (pod-prod-1)"),
		},
		"nobody beside a down": {down(prod().Template().Restarted("prod-1"), "prod-1"), says{Rule: RuleAuthorities, Reason: "MembersNotHealthy"}},
		"nobody while one that the operator alone cannot reach is ready": {
			down(prod().Template(), "prod-2").Later(func(s *cluster.Snapshot) { s.Member("prod-2").Pod.Ready = true }), says{Rule: RuleAuthorities, Reason: "MembersNotHealthy"},
		},
		"nobody while a claim waits": {
			claimed(down(prod().Template().Restarted("prod-1"), "prod-1"), "prod-1"), says{Rule: RuleOperation, Reason: "RotatingAuthorities", Progressing: true},
		},
		"the claimed one again, where its pod was not deleted": {
			claimed(prod().Template(), "prod-2"), says{Rule: RuleOperation, Reason: "RotatingAuthorities", Progressing: true, Action: "roll prod-2 (pod-prod-2)"},
		},
		"a claim ends, and the next begins in another pass": {
			claimed(prod().Template().Restarted("prod-1"), "prod-1"), func() says { s := rolling(""); s.Finished = true; return s }(),
		},
		"nobody, where it is an only member": {
			MakeCluster("prod").Replicas(1).Managed().Objects().Members(Healthy).Announced(time.Minute).Template(), says{Rule: RuleAuthorities, Reason: "QuorumAtRisk"},
		},
		"before changes that are not supported": {
			prod().Template().LaterSpec(func(s *v1beta1.EtcdClusterSpec) { s.Replicas = 5 }), rolling("roll prod-1 (pod-prod-1)"),
		},
		"while the spec asks for what is refused": {
			prod().Template().LaterSpec(option("data-dir", "/tmp")), rolling("roll prod-1 (pod-prod-1)"),
		},
		"nobody while the Secret is missing that its pod would mount": {
			prod().Template().Later(func(s *cluster.Snapshot) { s.PeerTrust.Certificates[0] = cluster.Certificate{Role: cluster.RolePeer} }), func() says {
				s := rolling("")
				s.Upkeep = []string{"peer by p1, renewed true"}
				return s
			}(),
		},
		"and then it is told what is waited for": {
			prod().Template().Restarted("prod-0", "prod-1", "prod-2"), says{Rule: RuleMaintenance, Reason: "RotatingAuthorities", Progressing: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(c.cluster.Snapshot())
			if diff := cmp.Diff(c.want, sayOf(d)); diff != "" {
				t.Errorf("-want +got:\n%s\n%s", diff, d.Message)
			}
		})
	}
}

func TestOnlyWhatCertManagerIssuedForThisClusterIsStartedWith(t *testing.T) {
	issued := func() *Builder { return MakeCluster("prod").CertManager(true).Objects() }
	left := func() *Builder { return MakeCluster("prod").CertManager(false).Objects() }
	for name, c := range map[string]struct {
		cluster *Builder
		want    says
	}{
		"founded with what was issued": {
			issued(),
			says{Rule: RuleBootstrap, Reason: "Bootstrapping", Progressing: true, Action: "found prod-0+volume+workload prod-1+volume+workload prod-2+volume+workload with " + newToken},
		},
		"not founded with what was left":     {left(), says{Rule: RuleBootstrap, Reason: "CertificateNotReady"}},
		"nor resumed with it":                {left().Members(Volume, Recorded), says{Rule: RuleResume, Reason: "CertificateNotReady"}},
		"a member beside others that run is": {left().Members(Healthy).Member("prod-1", Volume, Recorded), says{Rule: RuleResume, Reason: "Resuming", Progressing: true, Action: "resume prod-1"}},
		"nothing is done to those that run":  {left().Members(Healthy), says{Reason: "UpToDate"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := Next(c.cluster.Snapshot())
			if diff := cmp.Diff(c.want, sayOf(d)); diff != "" {
				t.Errorf("-want +got:\n%s\n%s", diff, d.Message)
			}
		})
	}
}

func TestNobodyIsAskedForCertificatesWhereCertManagerIsNotInstalled(t *testing.T) {
	for _, uninstalled := range []bool{false, true} {
		s := MakeCluster("prod").CertManager(true).Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
			for _, traffic := range traffics {
				trust := s.Trust(traffic)
				trust.CertManagerMissing = uninstalled
				for i := range trust.Certificates {
					trust.Certificates[i].CertManagerCertificate, trust.Certificates[i].Issued = nil, false
				}
			}
		}).Snapshot()
		if writes := writesOf(Next(s)); (len(writes) == 0) != uninstalled {
			t.Errorf("uninstalled %v: %v", uninstalled, writes)
		}
	}
}

func TestCertManagerIsNotAskedToWriteToWhatIsSomebodyElses(t *testing.T) {
	for _, kind := range []string{"Secret", "Certificate"} {
		s := MakeCluster("prod").CertManager(true).Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
			for i := range s.ClientTrust.Certificates {
				s.ClientTrust.Certificates[i].CertManagerCertificate = nil
			}
		}).Stranger(kind, "prod-client-tls", false).Snapshot()
		if diff := cmp.Diff([]string{"request server", "request operator"}, writesOf(Next(s))); diff != "" {
			t.Errorf("%s: -want +got:\n%s", kind, diff)
		}
	}
}

func TestAuthoritiesOfTheOriginalOperatorsSecretsAreNotFollowed(t *testing.T) {
	s := MakeCluster("prod").TLS().Objects().Members(Healthy).Later(func(s *cluster.Snapshot) {
		s.PeerTrust.Certificates = []cluster.Certificate{{Role: cluster.RolePeer, Bundle: []string{"new"}}}
	}).Snapshot()
	if d := Next(s); d.Action != nil || len(d.Upkeep) > 0 || d.Reason != v1beta1.ReasonUpToDate {
		t.Errorf("got %+v", d)
	}
}
