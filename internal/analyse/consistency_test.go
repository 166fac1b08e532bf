package analyse

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	. "github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// corruptAlarm raises an alarm for a member ID.
func corruptAlarm(id cluster.ID) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		s.Membership.Alarms = append(s.Membership.Alarms, cluster.Alarm{Member: id, Kind: cluster.AlarmCorrupt})
	}
}

// answers makes a comparison for the present cause, in which the members answered these hashes. A member of hash 0 did
// not answer.
func answers(hashes ...uint32) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		c := &cluster.Comparison{Cause: causeToCompare(s), Voters: voterIDs(s), Revision: 7, Attempt: 1, Ended: s.Now}
		for i, hash := range hashes {
			m := &s.Members[i]
			if hash != 0 {
				c.Answers = append(c.Answers, cluster.Answer{Member: m.Name, ID: s.EtcdEntry(m).ID, DataHash: cluster.DataHash{Hash: hash}})
			}
		}
		s.Comparison = c
	}
}

// compactedAt is the compact revision that a member answered with.
func compactedAt(member int, revision int64) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Comparison.Answers[member].CompactRevision = revision }
}

// failedToTell has a member's answer be lost.
func failedToTell(member int) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		a := &s.Comparison.Answers[member]
		a.DataHash, a.Error = cluster.DataHash{}, "connection reset by peer"
	}
}

func wantsComparison(s *cluster.Snapshot) {
	metav1.SetMetaDataAnnotation(&s.Cluster.ObjectMeta, v1beta1.CheckConsistencyAnnotation, "now")
}

// refusesData makes a member's etcd end with last words about its data.
func refusesData(name, words string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m := s.Member(name)
		m.Probe = &cluster.Probe{Error: "connection refused"}
		m.Pod.Ready, m.Pod.PassesReadiness = false, false
		m.Pod.FailureReason, m.Pod.FailureDetail = v1beta1.ReasonCrashLooping, words
	}
}

// lostVolume takes the claim and the pod of a member away.
func lostVolume(name string) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		m := s.Member(name)
		m.Volume, m.Pod, m.Probe = nil, nil, nil
	}
}

func notReadyPod(name string, ago time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Member(name).Pod.NotReadySince = s.Now.Add(-ago) }
}

func differedLast(s *cluster.Snapshot) {
	s.Cluster.Status.Conditions = append(s.Cluster.Status.Conditions, metav1.Condition{
		Type: v1beta1.ConditionDataConsistent, Status: metav1.ConditionFalse, Reason: v1beta1.ReasonDataDiffers,
	})
}

func inUse(name string, bytes int64) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) { s.Member(name).Probe.DatabaseBytesInUse = bytes }
}

func full(s *cluster.Snapshot) {
	s.Cluster.Spec.Maintenance = &v1beta1.Maintenance{ConsistencyCheck: v1beta1.ConsistencyCheckFull}
}

func situation(size int, changes ...func(*cluster.Snapshot)) cluster.Snapshot {
	b := healthy(int32(size))
	for _, change := range append([]func(*cluster.Snapshot){NeverCompared}, changes...) {
		b = b.Later(change)
	}
	return b.Snapshot()
}

func TestDataAreComparedForACause(t *testing.T) {
	const differs = "8e9e05c52164694d found data inconsistency with peers"
	for name, test := range map[string]struct {
		changes []func(*cluster.Snapshot)
		asks    bool
	}{
		"not at rest":                                                 {nil, false},
		"after an alarm of member 0":                                  {[]func(*cluster.Snapshot){corruptAlarm(0)}, true},
		"for the annotation":                                          {[]func(*cluster.Snapshot){wantsComparison}, true},
		"not for the annotation beside a silent member":               {[]func(*cluster.Snapshot){wantsComparison, silent("prod-1")}, false},
		"after an alarm, beside a silent member":                      {[]func(*cluster.Snapshot){corruptAlarm(0), silent("prod-1")}, true},
		"not while no majority answers":                               {[]func(*cluster.Snapshot){corruptAlarm(0), silent("prod-1"), silent("prod-2")}, false},
		"beside a member that finds other data at a peer":             {[]func(*cluster.Snapshot){refusesData("prod-1", differs)}, true},
		"beside a member whose log cannot be read":                    {[]func(*cluster.Snapshot){refusesData("prod-1", "failed to read WAL, cannot be repaired")}, true},
		"beside a member whose database cannot be opened":             {[]func(*cluster.Snapshot){refusesData("prod-1", "panic: failed to open database")}, true},
		"not beside a member that may not read its disk":              {[]func(*cluster.Snapshot){refusesData("prod-1", "failed to open WAL: permission denied")}, false},
		"not beside a member that fails for something else":           {[]func(*cluster.Snapshot){refusesData("prod-1", "bind: address already in use")}, false},
		"again after a difference, once the operator forgot it":       {[]func(*cluster.Snapshot){differedLast}, true},
		"not of databases of more than 1 GiB":                         {[]func(*cluster.Snapshot){corruptAlarm(0), inUse("prod-1", cluster.ConsistencyLimit+1)}, false},
		"of databases of 1 GiB":                                       {[]func(*cluster.Snapshot){corruptAlarm(0), inUse("prod-1", cluster.ConsistencyLimit)}, true},
		"of databases of more than 1 GiB where the spec says Full":    {[]func(*cluster.Snapshot){corruptAlarm(0), inUse("prod-1", cluster.ConsistencyLimit+1), full}, true},
		"not once they are compared":                                  {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 3)}, false},
		"again after an hour":                                         {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 3), func(s *cluster.Snapshot) { s.Comparison.Ended = s.Now.Add(-time.Hour) }}, true},
		"again at another revision where compact revisions differ":    {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), compactedAt(1, 5)}, true},
		"again where a member did not tell its hash":                  {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), failedToTell(1)}, true},
		"not a third time":                                            {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), failedToTell(1), func(s *cluster.Snapshot) { s.Comparison.Attempt = failedAttempts }}, false},
		"not a sixth time":                                            {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), compactedAt(1, 5), func(s *cluster.Snapshot) { s.Comparison.Attempt = comparisonAttempts }}, false},
		"not at once where the alarm was ended for such a comparison": {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 1, 1), func(s *cluster.Snapshot) { s.Comparison.Disarmed = s.Now }}, false},
		"later where the alarm was ended for such a comparison":       {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 1, 1), func(s *cluster.Snapshot) { s.Comparison.Disarmed = s.Now.Add(-alarmPause) }}, true},
	} {
		s := situation(3, test.changes...)
		d := Next(s)
		_, asks := d.Action.(plan.HashMember)
		if asks != test.asks || asks && (d.Claim == nil || d.Claim.Type != v1beta1.OperationCheckConsistency) {
			t.Errorf("%s: %T %v: %s", name, d.Action, d.Claim, d.Message)
		}
	}
}

// The annotation may be gone before the end of the operation is stored, and the condition has the result by then.
func TestAComparisonEndsAlsoOnceItsCauseIsGone(t *testing.T) {
	begun := func(s *cluster.Snapshot) {
		s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationCheckConsistency, StartedAt: metav1.NewTime(s.Now.Add(-time.Second))}
	}
	if d := Next(situation(3, answers(1, 1, 1), begun)); !d.Finished || d.Abandoned != "" {
		t.Errorf("all have answered: finished %t, abandoned for %q", d.Finished, d.Abandoned)
	}
	if d := Next(situation(3, answers(1, 1, 1), begun, func(s *cluster.Snapshot) { s.Comparison.Ended = s.Now.Add(-time.Minute) })); d.Abandoned == "" {
		t.Errorf("an older comparison: finished %t", d.Finished)
	}
	for at := range 3 {
		hashes := []uint32{1, 1, 1}
		if hashes[at] = 0; situationMember(3, at).Leads() { // the leader is asked last, after it handed over
			continue
		}
		d := Next(situation(3, differedLast, answers(hashes...), begun, func(s *cluster.Snapshot) { s.Comparison.Cause = causeToCompare(s) }))
		if action, ok := d.Action.(plan.HashMember); d.Finished || !ok || action.Begins {
			t.Errorf("one has not answered, after a difference: finished %t, abandoned for %q, %#v", d.Finished, d.Abandoned, d.Action)
		}
	}
}

func situationMember(size, at int) *cluster.Member {
	s := situation(size)
	return &s.Members[at]
}

func TestTheOnlyMemberIsNotCompared(t *testing.T) {
	s := situation(1, corruptAlarm(0), wantsComparison)
	if d := Next(s); d.Action != nil {
		t.Errorf("%#v", d.Action)
	}
}

// The leader answers nothing while it computes its hash, so all writes wait for it.
func TestFollowersAreComparedFirstAndTheLeaderAfterItHandedOver(t *testing.T) {
	s := situation(3, corruptAlarm(0))
	leader := s.Leader().Name
	var order []string
	for range 8 {
		d := Next(s)
		if action, ok := d.Action.(plan.HashMember); ok {
			order = append(order, action.Name)
			m := s.Member(action.Name)
			c := &cluster.Comparison{Cause: action.Cause, Voters: action.Voters, Revision: action.Revision, Attempt: action.Attempt, Ended: s.Now}
			if !action.Begins {
				c.Answers = slices.Clone(s.Comparison.Answers)
			}
			c.Answers = append(c.Answers, cluster.Answer{Member: m.Name, ID: s.EtcdEntry(m).ID, DataHash: cluster.DataHash{Hash: 1}})
			s.Comparison = c
		} else if action, ok := d.Action.(plan.MoveLeader); ok {
			order = append(order, action.Name+" to "+action.To)
			for i := range s.Members {
				s.Members[i].Probe.Leader = action.ToID
			}
		}
		s.Cluster.Status.Operation = d.Claim
		if d.Finished {
			break
		}
	}
	if len(order) != 4 || order[2] != leader+" to "+order[0] && order[2] != leader+" to "+order[1] || order[3] != leader {
		t.Errorf("%s led, and the order is %v", leader, order)
	}
}

// A hash that is computed holds up every other step, and nothing asks a second member meanwhile.
func TestOneMemberIsAskedAtATime(t *testing.T) {
	s := situation(3, corruptAlarm(0), answers(1), func(s *cluster.Snapshot) { s.Comparison.Asked = "prod-1" })
	s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationCheckConsistency, StartedAt: metav1.NewTime(s.Now)}
	if d := Next(s); d.Action != nil || !strings.Contains(d.Message, "prod-1 computes the hash") || d.RequeueAfter > 2*time.Second {
		t.Errorf("%#v, %s, again after %s", d.Action, d.Message, d.RequeueAfter)
	}
}

func TestOneMemberThatDiffersFromAMajorityIsReplaced(t *testing.T) {
	joined := func(ago time.Duration) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			v := *s.Member("prod-0").Volume
			v.JoinedCluster, v.CreatedAt = "prod-0=http://x", s.Now.Add(-ago)
			s.Member("prod-0").Volume = &v
		}
	}
	cannotStart := refusesData("prod-1", "failed to read WAL, cannot be repaired")
	for name, test := range map[string]struct {
		size     int
		changes  []func(*cluster.Snapshot)
		replaced string
	}{
		"one of three":                   {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1)}, "prod-1"},
		"one of three, without an alarm": {3, []func(*cluster.Snapshot){wantsComparison, answers(1, 2, 1)}, "prod-1"},
		"one of five":                    {5, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 1, 1, 1, 2)}, "prod-4"},
		"not two of five":                {5, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 1, 1, 2, 2)}, ""},
		"not two of five that differ from each other as well":       {5, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 1, 1, 2, 3)}, ""},
		"not where all three differ":                                {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 3)}, ""},
		"not one of two that answer":                                {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2), silent("prod-2")}, ""},
		"not one of two":                                            {2, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2)}, ""},
		"not where it compacted another revision":                   {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), compactedAt(1, 5), func(s *cluster.Snapshot) { s.Comparison.Attempt = comparisonAttempts }}, ""},
		"not where nothing differs":                                 {3, []func(*cluster.Snapshot){wantsComparison, answers(1, 1, 1)}, ""},
		"not while another member is down":                          {5, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1, 1, 1), silent("prod-4")}, ""},
		"one that cannot open its data":                             {3, []func(*cluster.Snapshot){cannotStart, answers(1, 0, 1)}, "prod-1"},
		"not one that cannot open its data where the others differ": {3, []func(*cluster.Snapshot){cannotStart, answers(1, 0, 2)}, ""},
		"not one that fails for something else":                     {3, []func(*cluster.Snapshot){refusesData("prod-1", "killed"), wantsComparison, answers(1, 0, 1)}, ""},
		"not within an hour of the last new member":                 {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), joined(59 * time.Minute)}, ""},
		"while members are missing, not within half an hour of the comparison": {
			3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), missing(29 * time.Minute)}, "",
		},
		"while members are missing, after that":    {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), missing(30 * time.Minute)}, "prod-1"},
		"an hour after the last new member":        {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), joined(time.Hour)}, "prod-1"},
		"not by itself where the spec says Manual": {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), replacement(v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually})}, ""},
		"not for another alarm besides": {3, []func(*cluster.Snapshot){corruptAlarm(0), func(s *cluster.Snapshot) {
			s.Membership.Alarms = append(s.Membership.Alarms, cluster.Alarm{Kind: cluster.AlarmNoSpace})
		}, answers(1, 2, 1)}, ""},
		"a lost one, where the others agree although etcd has the alarm": {3, []func(*cluster.Snapshot){corruptAlarm(0), lostVolume("prod-1"), answers(1, 0, 1)}, "prod-1"},
		"not a lost one where the others differ":                         {3, []func(*cluster.Snapshot){corruptAlarm(0), lostVolume("prod-1"), answers(1, 0, 2)}, ""},
		"one of five, although a good one does not start beside it":      {5, []func(*cluster.Snapshot){corruptAlarm(0), refusesData("prod-2", otherData), answers(1, 2, 0, 1, 1)}, "prod-1"},
		"not in the first minute in which it cannot open its data":       {3, []func(*cluster.Snapshot){cannotStart, notReadyPod("prod-1", 59*time.Second), answers(1, 0, 1)}, ""},
		"not while fewer voters are there than the spec says":            {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = 5 }}, ""},
		"not what an old comparison found":                               {3, []func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1), func(s *cluster.Snapshot) { s.Comparison.Ended = s.Now.Add(-time.Hour) }}, ""},
	} {
		s := situation(test.size, test.changes...)
		replaced := ""
		d := Next(s)
		if action, ok := d.Action.(plan.RemoveMember); ok && action.For == v1beta1.OperationReplaceMember {
			replaced = action.Name
		}
		if replaced != test.replaced {
			t.Errorf("%s: %q is replaced: %s", name, replaced, d.Message)
		}
	}
}

func TestACorruptLeaderHandsOverBeforeItIsReplaced(t *testing.T) {
	s := situation(3, corruptAlarm(0))
	hashes := []uint32{1, 1, 1}
	leader := s.Leader()
	hashes[slices.IndexFunc(s.Members, func(m cluster.Member) bool { return m.Name == leader.Name })] = 2
	answers(hashes...)(&s)
	d := Next(s)
	move, ok := d.Action.(plan.MoveLeader)
	if !ok || move.Name != leader.Name || move.For != v1beta1.OperationReplaceMember {
		t.Fatalf("%#v: %s", d.Action, d.Message)
	}
	for i := range s.Members {
		s.Members[i].Probe.Leader = move.ToID
	}
	s.Cluster.Status.Operation = d.Claim
	if removal, ok := Next(s).Action.(plan.RemoveMember); !ok || removal.Name != leader.Name {
		t.Errorf("then %#v", Next(s).Action)
	}
}

func TestAlarmsEndOnceAllDataAgree(t *testing.T) {
	for name, test := range map[string]struct {
		changes []func(*cluster.Snapshot)
		ends    int
	}{
		"those of member 0 and of a removed member":     {[]func(*cluster.Snapshot){corruptAlarm(0), corruptAlarm(0xdead), answers(1, 1, 1)}, 2},
		"not before the comparison":                     {[]func(*cluster.Snapshot){corruptAlarm(0)}, 0},
		"not while one differs":                         {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 2, 1)}, 0},
		"not while one did not answer":                  {[]func(*cluster.Snapshot){corruptAlarm(0), silent("prod-2"), answers(1, 1)}, 0},
		"not for a comparison of before the alarm":      {[]func(*cluster.Snapshot){wantsComparison, answers(1, 1, 1), corruptAlarm(0)}, 0},
		"not for a comparison that ended alarms before": {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 1, 1), func(s *cluster.Snapshot) { s.Comparison.Disarmed = s.Now }}, 0},
		"not while the comparison is claimed still: in the next pass": {[]func(*cluster.Snapshot){corruptAlarm(0), answers(1, 1, 1), func(s *cluster.Snapshot) {
			s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationCheckConsistency, StartedAt: metav1.NewTime(s.Now)}
		}}, 0},
		"not those of no space": {[]func(*cluster.Snapshot){corruptAlarm(0), func(s *cluster.Snapshot) {
			s.Membership.Alarms = append(s.Membership.Alarms, cluster.Alarm{Kind: cluster.AlarmNoSpace})
		}, answers(1, 1, 1)}, 1},
	} {
		s := situation(3, test.changes...)
		ends := 0
		for _, u := range Next(s).Upkeep {
			if disarm, ok := u.(plan.DisarmAlarms); ok {
				ends += len(disarm.Alarms)
			}
		}
		if ends != test.ends {
			t.Errorf("%s: %d alarms end", name, ends)
		}
	}
}

func TestTheAnnotationGoesInThePassThatFinishesTheComparison(t *testing.T) {
	s := situation(3, wantsComparison, answers(1, 1, 1), func(s *cluster.Snapshot) {
		s.Cluster.Status.Operation = &v1beta1.Operation{Type: v1beta1.OperationCheckConsistency, StartedAt: metav1.NewTime(s.Now)}
	})
	d := Next(s)
	if !d.Finished || !slices.ContainsFunc(d.Upkeep, func(u plan.Upkeep) bool { _, removes := u.(plan.RemoveAnnotation); return removes }) {
		t.Errorf("finished %t, and the upkeep is %+v", d.Finished, d.Upkeep)
	}
}

func TestTheAnnotationGoesOnceTheDataAreCompared(t *testing.T) {
	removes := func(changes ...func(*cluster.Snapshot)) bool {
		return slices.ContainsFunc(Next(situation(3, changes...)).Upkeep, func(u plan.Upkeep) bool {
			r, ok := u.(plan.RemoveAnnotation)
			return ok && r.Key == v1beta1.CheckConsistencyAnnotation
		})
	}
	if !removes(wantsComparison, answers(1, 1, 1)) || removes(wantsComparison) {
		t.Errorf("compared: %t, not compared: %t", removes(wantsComparison, answers(1, 1, 1)), removes(wantsComparison))
	}
}

// What is copied, or serves alone, could be the wrong data.
func TestNothingRestartsOrJoinsWhileTheDataDiffer(t *testing.T) {
	larger := func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = 5 }
	rolls := func(s *cluster.Snapshot) {
		metav1.SetMetaDataAnnotation(&s.Cluster.ObjectMeta, v1beta1.RestartAnnotation, "1")
	}
	manual := replacement(v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually})
	for name, change := range map[string]func(*cluster.Snapshot){"a roll": rolls, "a growth": larger} {
		if d := Next(situation(3, change)); d.Action == nil {
			t.Errorf("%s at rest: %s", name, d.Message)
		}
		d := Next(situation(3, manual, wantsComparison, answers(1, 2, 1), change))
		if d.Action != nil || !slices.ContainsFunc(d.Refusals, func(r plan.Refusal) bool { return r.Guard == "dataAgree" }) {
			t.Errorf("%s while the data differ: %#v, %s", name, d.Action, d.Message)
		}
	}
	if d := Next(growing3(caughtUp, budgeted(3), manual, wantsComparison, answers(1, 2, 1))); d.Action != nil || len(d.Refusals) == 0 || d.Refusals[0].Guard != "dataAgree" {
		t.Errorf("a promotion while the data differ: %#v, %s", d.Action, d.Message)
	}
}

func TestDataAreComparedBeforeAMinorVersion(t *testing.T) {
	upgrades := func(version string, changes ...func(*cluster.Snapshot)) plan.Decision {
		b := healthy(3).LaterSpec(toVersion(version)).Later(NeverCompared)
		for _, change := range changes {
			b = b.Later(change)
		}
		return Next(b.Snapshot())
	}
	differs := func(s *cluster.Snapshot) {
		answers(1, 2, 3)(s)
		s.Comparison.Cause = causeBeforeUpgrade(s)
	}
	agree := func(s *cluster.Snapshot) { answers(1, 1, 1)(s) }
	if _, asks := upgrades("3.7.3").Action.(plan.HashMember); !asks {
		t.Error("a minor version begins without a comparison")
	}
	if d := upgrades("3.6.17"); d.Action == nil || d.Action.Operation() != v1beta1.OperationRollMember {
		t.Errorf("a patch: %#v, %s", d.Action, d.Message)
	}
	if d := upgrades("3.7.3", agree); d.Action == nil || d.Action.Operation() == v1beta1.OperationCheckConsistency {
		t.Errorf("compared: %#v, %s", d.Action, d.Message)
	}
	if d := upgrades("3.7.3", inUse("prod-0", cluster.ConsistencyLimit+1)); d.Action == nil || d.Action.Operation() == v1beta1.OperationCheckConsistency {
		t.Errorf("too large to compare: %#v, %s", d.Action, d.Message)
	}
	if d := upgrades("3.7.3", differs); d.Action != nil || !strings.Contains(d.Message, "differ") {
		t.Errorf("different data: %#v, %s", d.Action, d.Message)
	}
}

// The note outlives the operator: another one, or the same after a restart, does not compare the data again.
func TestAComparisonIsNotedAndCountsForTheNextOperator(t *testing.T) {
	noted := func(n cluster.ComparisonNote) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			s.PeerService = s.PeerService.DeepCopy()
			metav1.SetMetaDataAnnotation(&s.PeerService.ObjectMeta, cluster.AnnotationCompared, n.String())
		}
	}
	upgrade := func(version string, changes ...func(*cluster.Snapshot)) (asks bool, note string) {
		b := healthy(3).LaterSpec(toVersion(version)).Later(readySince(time.Hour)).Later(NeverCompared)
		for _, change := range changes {
			b = b.Later(change)
		}
		s := b.Snapshot()
		d := Next(s)
		_, asks = d.Action.(plan.HashMember)
		if d.Action != nil { // the note is upkeep, which comes where there is no action
			s.Hold = &cluster.Hold{ByOperator: true}
			d = Next(s)
		}
		for _, u := range d.Upkeep {
			if n, is := u.(plan.NotePeers); is {
				note = n.Notes[cluster.AnnotationCompared]
			}
		}
		return asks, note
	}
	now := cluster.ComparisonNote{Agree: true, Revision: 7, Voters: []cluster.ID{0xa0, 0xa1, 0xa2}, At: Now.UTC().Truncate(time.Second)}
	with := func(change func(*cluster.ComparisonNote)) func(*cluster.Snapshot) {
		n := now
		change(&n)
		return noted(n)
	}
	then := func(changes ...func(*cluster.Snapshot)) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			for _, change := range changes {
				change(s)
			}
		}
	}
	later := with(func(n *cluster.ComparisonNote) { n.At = n.At.Add(time.Minute) })
	earlier := with(func(n *cluster.ComparisonNote) { n.At = n.At.Add(-time.Minute) })
	const minor = "3.7.3"
	for name, c := range map[string]struct {
		version string
		change  func(*cluster.Snapshot)
		asks    bool
		note    string
	}{
		"nothing is known":                 {minor, NeverCompared, true, ""},
		"this operator compared":           {minor, answers(1, 1, 1), false, now.String()},
		"and noted it":                     {minor, then(answers(1, 1, 1), noted(now)), false, ""},
		"after another one":                {minor, then(answers(1, 1, 1), earlier), false, now.String()},
		"before another one":               {minor, then(answers(1, 1, 1), later), false, ""},
		"the data differ":                  {minor, answers(1, 1, 2), false, ""},
		"another operator noted it":        {minor, noted(now), false, ""},
		"without a result":                 {minor, with(func(n *cluster.ComparisonNote) { n.Agree = false }), false, ""},
		"it noted it long ago":             {minor, with(func(n *cluster.ComparisonNote) { n.At = n.At.Add(-comparisonLasts) }), true, ""},
		"it noted it for two of the three": {minor, with(func(n *cluster.ComparisonNote) { n.Voters = n.Voters[:2] }), true, ""},
		"a patch":                          {"3.6.17", NeverCompared, false, ""},
	} {
		if asks, note := upgrade(c.version, c.change); asks != c.asks || note != c.note {
			t.Errorf("%s: compares %t, notes %q", name, asks, note)
		}
	}
}

// What another operator found later counts: this one may have found a difference that is mended.
func TestALaterNoteOutweighsWhatTheOperatorRemembers(t *testing.T) {
	note := func(after time.Duration) func(*cluster.Snapshot) {
		return func(s *cluster.Snapshot) {
			n := cluster.ComparisonNote{Agree: true, Revision: 9, Voters: voterIDs(s), At: s.Now.Add(after)}
			s.PeerService = s.PeerService.DeepCopy()
			metav1.SetMetaDataAnnotation(&s.PeerService.ObjectMeta, cluster.AnnotationCompared, n.String())
		}
	}
	for after, want := range map[time.Duration]bool{time.Minute: true, -time.Minute: false} {
		s := situation(3, answers(1, 2, 3), note(after))
		if revision, agree := Agreed(&s); agree != want || agree && revision != 9 {
			t.Errorf("noted %s after the difference: agree %t at %d", after, agree, revision)
		}
		if refusal := dataAgree(&s); (refusal == nil) != want {
			t.Errorf("noted %s after the difference: %+v", after, refusal)
		}
	}
}

// Compact revisions that differ say nothing about the data.
func TestHashesThatCannotBeComparedHoldUpNothing(t *testing.T) {
	s := situation(3, wantsComparison, answers(1, 2, 3), compactedAt(1, 5), func(s *cluster.Snapshot) { s.Comparison.Attempt = comparisonAttempts })
	if r := dataAgree(&s); r != nil {
		t.Error(r.Message)
	}
	if len(consistencyUpkeep(&s, false)) > 0 {
		t.Error("the annotation goes without a result")
	}
}

func TestTheOnlyMemberDiffersFromNobody(t *testing.T) {
	one, three := situation(1, differedLast), situation(3, differedLast)
	if DifferedBefore(&one) || !DifferedBefore(&three) {
		t.Errorf("one: %t, three: %t", DifferedBefore(&one), DifferedBefore(&three))
	}
}

func TestASmallerSizeKeepsTheRightData(t *testing.T) {
	smaller := func(s *cluster.Snapshot) { s.Cluster.Spec.Replicas = 1 }
	manual := replacement(v1beta1.MemberReplacement{Policy: v1beta1.ReplaceManually})
	d := Next(situation(3, manual, wantsComparison, answers(1, 2, 1), smaller))
	removes, isRemoval := d.Action.(plan.RemoveMember)
	moves, isMove := d.Action.(plan.MoveLeader)
	if (!isRemoval || removes.Name != "prod-1") && (!isMove || moves.Name != "prod-1") {
		t.Errorf("one differs: %#v, %s", d.Action, d.Message)
	}
	if d := Next(situation(3, manual, wantsComparison, answers(1, 2, 3), smaller)); d.Action != nil {
		t.Errorf("all differ: %#v, %s", d.Action, d.Message)
	}
	if d := Next(situation(3, manual, wantsComparison, answers(1, 1, 1), smaller)); d.Action == nil {
		t.Errorf("all agree: %s", d.Message)
	}
}

// missing has the spec ask for more members than there are, some time after the data were compared.
func missing(since time.Duration) func(*cluster.Snapshot) {
	return func(s *cluster.Snapshot) {
		s.Cluster.Spec.Replicas += 2
		s.Comparison.Ended = s.Now.Add(-since)
	}
}
