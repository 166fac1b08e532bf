package analyse

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

func onTarget(g func(cluster.Intent) *plan.Refusal) guard {
	return ofTarget([]func(cluster.Intent) *plan.Refusal{g})[0]
}

func TestGuards(t *testing.T) {
	prod := func() *Builder { return MakeCluster("prod") }
	option := func(name, value string) *Builder {
		return prod().LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
			s.Config = &v1beta1.Config{ExtraArgs: map[string]string{name: value}}
		})
	}
	sysctl := func(name string) *Builder {
		return prod().LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
			s.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}}}
		})
	}
	of := func(role cluster.Role, issuers ...string) *Builder {
		return prod().Managed().Members(Healthy).Later(func(s *cluster.Snapshot) {
			for _, trust := range []*cluster.Trust{&s.PeerTrust, &s.ClientTrust} {
				if c := trust.Certificate(role); c != nil {
					c.Bundle, c.Issuers = issuers, issuers
				}
			}
		})
	}
	from := func(source cluster.Source, issuer string) *Builder {
		return of(cluster.RolePeer, issuer).Later(func(s *cluster.Snapshot) { s.PeerTrust.Source = source })
	}
	started := func(authority string, names ...string) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			for _, name := range names {
				s.Member(name).Pod.PeerAuthorities = []string{authority}
			}
		}
	}
	sized := func(volume string, quota int64) *Builder {
		return prod().LaterSpec(func(s *v1beta1.EtcdClusterSpec) {
			s.Storage = Gibibytes(1)
			s.Storage.VolumeClaimTemplate.Spec.Resources.Requests["storage"] = resource.MustParse(volume)
			s.Config = &v1beta1.Config{}
			if quota != 0 {
				s.Config.QuotaBackendBytes = resource.NewQuantity(quota, resource.BinarySI)
			}
		})
	}
	for name, c := range map[string]struct {
		guard         guard
		allow, refuse *Builder
		// says is part of the refusal's message.
		says string
	}{
		"oneClusterID": {
			oneClusterID, prod().Members(Healthy),
			prod().Members(Healthy).Member("prod-1", Volume, Recorded, Changed(func(m *cluster.Member) { m.Volume.ClusterID = 0xc2 })),
			"cluster IDs c1, c2",
		},
		"operationKnown": {operationKnown, prod().Claim("Resume"), prod().Claim("Teleport"), "operation Teleport"},
		"noForeignObject": {
			noForeignObject, prod().Stranger("StatefulSet", "prod-0", true), prod().Stranger("Service", "prod", false), "Service prod exists and has no owner",
		},
		"previousClusterGone": {
			previousClusterGone, prod().Stranger("Service", "prod", false), prod().Stranger("StatefulSet", "prod-0", true), "It is still being deleted",
		},
		"specUsable": {
			specUsable, prod(), prod().Broken("it expired", "peer").Broken("renew it", "server"),
			"Secret peer cannot be used: it expired. Secret server cannot be used: renew it.",
		},
		"optionsAllowed":              {onTarget(optionsAllowed), option("snapshot-count", "1000"), option("no-such-option", "1"), "no-such-option"},
		"versionSupported":            {onTarget(versionSupported), prod().Version("3.5.32"), prod().Version("3.5.31"), "Write 3.5.32 or a later patch"},
		"versionSupported of a minor": {onTarget(versionSupported), prod().Version("3.7.0"), prod().Version("3.8.0"), "3.7 from 3.7.0 on"},
		"securityRestricted": {
			onTarget(securityRestricted), sysctl("net.ipv4.tcp_keepalive_time"), sysctl("kernel.msgmax"), "the sysctl kernel.msgmax is not among",
		},
		"optionsAllowed with a value": {onTarget(optionsAllowed), option("heartbeat-interval", "1"), option("heartbeat-interval", "0"), "correct its value"},
		"quotaFits":                   {quotaFits, sized("10Gi", 8<<30), sized("10Gi", 8<<30+1), "at most 8589934592"},
		"quotaFits on the smallest":   {quotaFits, sized("256Mi", 128<<20), sized("256Mi", 128<<20+1), "at most 134217728"},
		"quotaFits as an option": {
			quotaFits, sized("2Gi", 0), sized("2Gi", 0).Later(func(s *cluster.Snapshot) {
				s.Cluster.Spec.Config.ExtraArgs = map[string]string{"quota-backend-bytes": "0"} // etcd's own: 2Gi
			}), "The quota of 2147483648 bytes does not fit on volumes of 2Gi",
		},
		"nothingLost": {
			nothingLost, prod(), prod().Later(func(s *cluster.Snapshot) { s.Cluster.Status.ClusterID = "c1" }), "etcd cluster c1",
		},
		"nothingLost, in memory": {
			nothingLost, prod().InMemory("1Gi"), prod().InMemory("1Gi").Later(func(s *cluster.Snapshot) { s.Cluster.Status.ClusterID = "c1" }),
			"The data of etcd cluster c1 were in memory",
		},
		"nothingLost, with a retired volume": {
			nothingLost, prod().Members(Volume), prod().Members(Volume, Recorded).Later(func(s *cluster.Snapshot) { s.LeftOvers, s.Members = s.Members, nil }),
			"etcd cluster c1",
		},
		"volumesUnambiguous": {
			volumesUnambiguous, prod().Kept(nil, "prod-0", "prod-1"),
			prod().Kept(nil, "prod-0", "prod-1").Kept(func(v *cluster.Volume) { v.Token = "older" }, "prod-7"), "(data-prod-0, data-prod-1); (data-prod-7)",
		},
		"volumesKeepQuorum": {volumesKeepQuorum, prod().Kept(nil, "prod-0", "prod-1"), prod().Kept(nil, "prod-0"), "Only 1 of the 3 volumes"},
		"volumesKeepQuorum, one of them going": {
			volumesKeepQuorum, prod().Kept(nil, "prod-0", "prod-1"),
			prod().Kept(nil, "prod-0").Kept(func(v *cluster.Volume) { v.Deleting = true }, "prod-1"), "Only 1 of the 3 volumes",
		},
		"volumesKeepQuorum of one": {volumesKeepQuorum, prod().Replicas(1).Kept(nil, "prod-0"), prod().Replicas(5).Kept(nil, "prod-0", "prod-1"), "its quorum is 3"},
		"volumesKeepQuorum, one of them never bound": {
			volumesKeepQuorum, prod().Kept(nil, "prod-0").Kept(func(v *cluster.Volume) { pending(v); v.Phase = corev1.ClaimBound }, "prod-1"),
			prod().Kept(nil, "prod-0").Kept(pending, "prod-1"), "Only 1 of the 3 volumes",
		},
		"volumesKeepQuorum, without a removed founder": {
			volumesKeepQuorum, prod().Kept(func(v *cluster.Volume) { v.Members = []string{"prod-0"} }, "prod-0"),
			prod().Kept(func(v *cluster.Volume) { v.Members = []string{"prod-0", "prod-3"} }, "prod-0"), "Only 1 of the 2 volumes",
		},
		"volumesNotReplaced": {
			volumesNotReplaced, prod().Kept(nil, "prod-0", "prod-1"), prod().Kept(func(v *cluster.Volume) {
				v.Remembered, v.Identity = cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}, cluster.VolumeIdentity{Claim: "claim-2", Name: "pv-2"}
			}, "prod-0"), "accept-volume=claim-2/pv-2",
		},
		"volumesNotReplaced, with one that the user accepts": {
			volumesNotReplaced, prod().Kept(func(v *cluster.Volume) {
				v.Remembered, v.Identity = cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}, cluster.VolumeIdentity{Claim: "claim-2", Name: "pv-2"}
				v.Accepted = "claim-2/pv-2"
			}, "prod-0"), prod().Kept(func(v *cluster.Volume) {
				v.Remembered, v.Identity = cluster.VolumeIdentity{Claim: "claim-1", Name: "pv-1"}, cluster.VolumeIdentity{Claim: "claim-2"}
				v.Accepted = "claim-2/"
			}, "prod-0"), "is not bound, and prod-0 started on volume claim-1/pv-1",
		},
		"versionSkewAllowed": {
			versionSkewAllowed, prod().Kept(func(v *cluster.Volume) { v.Version = "3.6.12" }, "prod-0"),
			prod().Kept(func(v *cluster.Volume) { v.Version = "3.5.40" }, "prod-0"), "written by etcd 3.5.40",
		},
		"versionSkewAllowed over volumes never written": {
			versionSkewAllowed, prod().Kept(func(v *cluster.Volume) { v.Version = "" }, "prod-0"),
			prod().Members(Volume, Recorded, Changed(func(m *cluster.Member) { m.Volume.Version = "3.7.1" })), "written by etcd 3.7.1",
		},
		"quorumSurvives": {
			quorumSurvivesWithout("prod-1"), prod().Members(Healthy).Member("prod-1", Volume, Recorded, Sealed, Pod, Silent("no answer")),
			prod().Members(Healthy).Member("prod-2", Volume, Recorded, Sealed, Pod, Silent("no answer")), "1 of 3 voters are healthy, and the quorum is 2",
		},
		"quorumSurvives, a ready pod that did not answer counting as lost": {
			quorumSurvivesWithout("prod-1"), prod().Members(Healthy),
			prod().Members(Healthy).Member("prod-2", Healthy, Silent("no answer")), "1 of 3 voters are healthy",
		},
		"quorumSurvives of one": {quorumSurvivesWithout("prod-0"), prod().Members(Healthy), prod().Replicas(1).Members(Healthy), "Delete pod prod-0-0 when"},
		"membersHealthy": {
			membersHealthyBut("prod-1"), prod().Members(Healthy),
			prod().Members(Healthy).Member("prod-2", Volume, Recorded, Sealed, Pod, Silent("no answer")), "Waiting for prod-2",
		},
		"membersHealthy, but for one that is cut off": {
			membersHealthyBut("prod-2"), prod().Members(Healthy).Member("prod-2", Healthy, Leaderless), prod().Members(Healthy).Member("prod-1", Healthy, Leaderless), "Waiting for prod-1",
		},
		"membersHealthy, but for one that is down, unless it is ready": {
			membersHealthyBut("prod-2"), prod().Members(Healthy).Member("prod-2", Volume, Recorded, Sealed, Pod, Silent("no answer")),
			prod().Members(Healthy).Member("prod-2", Healthy, Silent("no answer")), "Waiting for prod-2",
		},
		"membersHealthy, but for one that is cut off, unless it is a learner": {
			membersHealthyBut("prod-2"), prod().Members(Healthy).Member("prod-2", Healthy, Leaderless),
			prod().Members(Healthy).Member("prod-2", Healthy, Leaderless, Changed(func(m *cluster.Member) { m.Probe.Learner = true })), "Waiting for prod-2",
		},
		"membersHealthy, but for one that is down, unless it is a learner": {
			membersHealthyBut("prod-2"), prod().Members(Healthy).Member("prod-2", Volume, Recorded, Sealed, Pod, Silent("no answer")),
			prod().Members(Healthy).Member("prod-2", Volume, Recorded, Sealed, Pod, Silent("no answer")).Later(func(s *cluster.Snapshot) {
				s.Membership.Members[2].Learner = true
			}), "a member that is joining",
		},
		"membersHealthy with a learner": {
			membersHealthyBut("prod-1"), prod().Members(Healthy),
			prod().Members(Healthy).Member("prod-2", Healthy, Changed(func(m *cluster.Member) { m.Probe.Learner = true })), "Waiting for prod-2",
		},
		"membersHealthy with a member that was added": {
			membersHealthyBut("prod-1"), prod().Members(Healthy), prod().Members(Healthy).Later(func(s *cluster.Snapshot) {
				s.Membership.Members = append(s.Membership.Members, cluster.EtcdMember{ID: 9, Learner: true})
			}), "a member that is joining",
		},
		"noAlarm": {
			noAlarm("restarted"), prod().Members(Healthy), prod().Members(Healthy).Later(func(s *cluster.Snapshot) {
				s.Membership.Alarms = []cluster.Alarm{{Member: 0xa1, Kind: cluster.AlarmCorrupt}}
			}), "alarm CORRUPT",
		},
		"membersAcceptCertificates": {
			overlapBut("prod-1"), prod().Managed().Members(Healthy).Announced(0), of(cluster.RolePeer, "p2"),
			"Secret prod-peer-tls was issued by an authority that prod-0, which runs, does not trust: restarted one by one, the members would not find each other again. Delete all",
		},
		"membersAcceptCertificates of the operator's": {overlapBut("prod-1"), prod().Managed().Members(Healthy), of(cluster.RoleOperator, "c2"), "Secret prod-operator-tls was issued"},
		"membersAcceptCertificates of a renewed authority": {
			overlapBut("prod-1"), of(cluster.RolePeer, "p1", "p2"), of(cluster.RolePeer, "p2", "p3"), "Secret prod-peer-tls was issued",
		},
		"membersAcceptCertificates, of which clients' certificates are no part": {
			overlapBut("prod-1"), of(cluster.RoleServer, "c2"), of(cluster.RoleOperator, "c2"), "Secret prod-operator-tls was issued",
		},
		"membersAcceptCertificates, for one that is restarted itself": {
			overlapBut("prod-1"), of(cluster.RolePeer, "p2").Later(started("p2", "prod-0", "prod-2")), of(cluster.RolePeer, "p2").Later(started("p2", "prod-1", "prod-2")), "that prod-0, which runs",
		},
		"membersAcceptCertificates of cert-manager's": {
			overlapBut("prod-1"), from(cluster.SourceCertManager, "p1"), from(cluster.SourceCertManager, "p2"), "Make the issuer issue from the former authority again",
		},
		"membersAcceptCertificates of the user's": {
			overlapBut("prod-1"), from(cluster.SourceSecret, "p1"), from(cluster.SourceSecret, "p2"), "Put the former authority beside the new one into ca.crt",
		},
		"volumeStays": {
			volumeStaysOf("prod-1"), prod().Members(Healthy),
			prod().Members(Healthy).Later(func(s *cluster.Snapshot) { s.Member("prod-1").Volume.Deleting = true }), "data-prod-1 is gone, is being deleted",
		},
		"volumeStays where the claim is gone": {
			volumeStaysOf("prod-1"), prod().Members(Healthy),
			prod().Members(Healthy).Later(func(s *cluster.Snapshot) { s.Member("prod-1").Volume = nil }), "would not have its data",
		},
		"peerURLsUnchanged": {
			peerURLsUnchanged, prod().Kept(nil, "prod-0"), prod().Kept(func(v *cluster.Volume) { v.PeerURL = "https://elsewhere:2380" }, "prod-0"), "https://elsewhere:2380",
		},
	} {
		t.Run(name+" allows", func(t *testing.T) {
			s := c.allow.Snapshot()
			if r := c.guard(&s); r != nil {
				t.Errorf("refused: %s", r.Message)
			}
		})
		t.Run(name+" refuses", func(t *testing.T) {
			s := c.refuse.Snapshot()
			r := c.guard(&s)
			switch {
			case r == nil:
				t.Error("allowed")
			case !strings.HasPrefix(name, r.Guard):
				t.Errorf("the refusal names the guard %s", r.Guard)
			case r.Reason == "" || !strings.Contains(r.Message, c.says):
				t.Errorf("%s: %q does not say %q", r.Reason, r.Message, c.says)
			}
		})
	}
}

func quorumSurvivesWithout(name string) guard {
	return func(s *cluster.Snapshot) *plan.Refusal { return quorumSurvives(s.Member(name))(s) }
}

func membersHealthyBut(name string) guard {
	return func(s *cluster.Snapshot) *plan.Refusal { return membersHealthy(s.Member(name))(s) }
}

func overlapBut(name string) guard {
	return func(s *cluster.Snapshot) *plan.Refusal { return membersAcceptCertificates(s.Member(name))(s) }
}

func volumeStaysOf(name string) guard {
	return func(s *cluster.Snapshot) *plan.Refusal { return volumeStays(s.Member(name))(s) }
}

func TestAllRefusalsAreTold(t *testing.T) {
	s := MakeCluster("prod").Stranger("Service", "prod", false).Missing("peer").Snapshot()
	if d := Next(s); len(d.Refusals) != 2 || d.Refusals[0].Guard != "noForeignObject" || d.Refusals[1].Guard != "specUsable" {
		t.Errorf("got %+v", d.Refusals)
	}
}
