package analyse

import (
	"slices"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// Each guard of a restart refuses also where all others allow it.
func TestEveryGuardOfARestartIsAsked(t *testing.T) {
	rotation := func() *Builder {
		return MakeCluster("prod").Managed().Replicas(5).Objects().Members(Healthy).Announced(time.Minute).Template()
	}
	if d := Next(rotation().Snapshot()); d.Action == nil || d.Rule != RuleAuthorities {
		t.Fatalf("without a fault %s decides %q: %s", d.Rule, actionText(d.Action), d.Message)
	}
	for guard, fault := range map[string]func(*cluster.Snapshot){
		"previousClusterGone": func(s *cluster.Snapshot) {
			s.ForeignObjects = []cluster.ForeignObject{{Kind: "Pod", Name: "prod-9-0", Terminating: true}}
		},
		"noForeignObject": func(s *cluster.Snapshot) {
			s.ForeignObjects = []cluster.ForeignObject{{Kind: "Service", Name: "prod"}}
		},
		"noAlarm": func(s *cluster.Snapshot) {
			s.Membership.Alarms = []cluster.Alarm{{Member: 0xa1, Kind: cluster.AlarmNoSpace}}
		},
		"membersHealthy": func(s *cluster.Snapshot) { s.Member("prod-4").Pod.Deleting = true },
		"membersAcceptCertificates": func(s *cluster.Snapshot) {
			for i := range s.PeerTrust.Certificates {
				s.PeerTrust.Certificates[i].Issuers = []string{"unknown"}
			}
		},
	} {
		d := Next(rotation().Later(fault).Snapshot())
		asked := func(r plan.Refusal) bool { return r.Guard == guard }
		if d.Action != nil || len(d.Refusals) != 1 || !slices.ContainsFunc(d.Refusals, asked) {
			t.Errorf("%s: got %q, refused by %+v", guard, actionText(d.Action), d.Refusals)
		}
	}
}

func TestAFailedPodThatIsGoingIsNotDeletedAgain(t *testing.T) {
	failed := func(s *cluster.Snapshot) {
		silent("prod-1")(s)
		s.Member("prod-1").Pod.FailureReason = v1beta1.ReasonCrashLooping
	}
	if d := Next(rotating(time.Minute).Later(failed).Snapshot()); d.Action == nil {
		t.Fatalf("one that is not going is not deleted: %s", d.Message)
	}
	going := func(s *cluster.Snapshot) { s.Member("prod-1").Pod.Deleting = true }
	if d := Next(rotating(time.Minute).Later(failed).Later(going).Snapshot()); d.Action != nil {
		t.Errorf("got %s: %s", actionText(d.Action), d.Message)
	}
}

func TestARestartIsNotDoneBesideALostQuorum(t *testing.T) {
	back := func() *Builder { return rotating(time.Minute).Restarted("prod-1") }
	if d := Next(back().Later(silent("prod-2")).Snapshot()); !d.Finished {
		t.Errorf("not done beside one silent member: %s", d.Message)
	}
	if d := Next(back().Later(silent("prod-0")).Later(silent("prod-2")).Snapshot()); d.Finished {
		t.Errorf("done beside a lost quorum: %s", d.Message)
	}
}
