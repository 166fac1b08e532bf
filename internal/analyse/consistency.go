package analyse

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
)

// askedByUser begins the cause of a comparison that the annotation asks for.
const askedByUser = "a user asks for it: "

const (
	// comparisonLasts is how long the result of a comparison counts. While its cause stands, the data are compared again
	// afterwards.
	comparisonLasts = time.Hour
	// comparisonAttempts is how often a comparison begins again at another revision, because members had compacted
	// different ones, until it ends without a result.
	comparisonAttempts = 5
	// failedAttempts is how often it begins because a member did not tell its hash: each costs every member a scan.
	failedAttempts = 2
	// alarmPause is how long an alarm that is raised again, after all data agreed, waits for the next comparison.
	alarmPause = 10 * time.Minute
	// corruptPause is how long after a member has joined no corrupt one is replaced. What makes data corrupt again and
	// again is not cured by new members.
	corruptPause = time.Hour
	// missingPause is how long after a comparison a corrupt member is replaced while there are fewer voters than the spec
	// says: the last one may not have been replaced yet. None is added beside corrupt data, so it is no reason to wait for
	// ever. It is less than the result counts.
	missingPause = comparisonLasts / 2
)

// checkConsistency compares the data of the members where there is a cause. Where that is not possible now, it has no
// opinion: the condition DataConsistent tells why.
func checkConsistency(s *cluster.Snapshot) *plan.Decision {
	cause := causeToCompare(s)
	if cause == "" || isCompared(s, cause) || len(comparisonRefusals(s, cause)) > 0 {
		return nil
	}
	return compareData(s, cause)
}

// causeToCompare returns why the data are to be compared; empty for no reason. An alarm is a reason to compare them,
// and no verdict: etcd raises it for member 0, or for a follower whose leader is the one that is wrong.
func causeToCompare(s *cluster.Snapshot) string {
	if s.Membership == nil || len(s.Membership.Members) < 2 {
		return ""
	}
	if alarms := corruptAlarms(s); len(alarms) > 0 {
		return "etcd reports an alarm for corrupt data of " + alarmedMembers(alarms)
	}
	for i := range s.Members {
		if m := &s.Members[i]; isListedVoter(s, m) && refusesItsOwnData(m) {
			return "etcd does not start with the data of " + m.Name
		}
	}
	if DifferedBefore(s) {
		return "the data differed when they were last compared"
	}
	if value := s.Cluster.Annotations[v1beta1.CheckConsistencyAnnotation]; value != "" {
		return askedByUser + cluster.ForeignText(value)
	}
	return ""
}

func corruptAlarms(s *cluster.Snapshot) []cluster.Alarm {
	var alarms []cluster.Alarm
	if s.Membership == nil {
		return nil
	}
	for _, a := range s.Membership.Alarms {
		if a.Kind == cluster.AlarmCorrupt {
			alarms = append(alarms, a)
		}
	}
	return alarms
}

// HasCorruptAlarm reports whether etcd has an alarm for corrupt data.
func HasCorruptAlarm(s *cluster.Snapshot) bool {
	return hasAlarm(s, func(kind cluster.AlarmKind) bool { return kind == cluster.AlarmCorrupt })
}

func alarmedMembers(alarms []cluster.Alarm) string {
	var ids []cluster.ID
	for _, a := range alarms {
		ids = append(ids, a.Member)
	}
	return "member " + join(ids)
}

// unusableData are the last words of an etcd that cannot open its own data, or finds other data at a peer. The latter
// does not tell whose are wrong.
// Source: etcd's embed/etcd.go and etcdserver/corrupt.go (initial check), etcdserver/bootstrap.go (log),
// storage/backend/backend.go (database) and storage/backend.go (database of a snapshot).
var unusableData = regexp.MustCompile(otherData + "|failed to read WAL, cannot be repaired|failed to open database|" +
	"failed to recover v3 backend from snapshot|failed to recover from snapshot|failed to open WAL")

// otherData is what etcd says, as its last word, if a peer's data differ from its own when it starts.
const otherData = "found data inconsistency with peers"

// passingCauses are reasons why data cannot be opened that are no fault of theirs.
var passingCauses = regexp.MustCompile("permission denied|input/output error|cannot allocate memory|no space left|too many open files|read-only file system")

// refusesItsOwnData reports whether the member's etcd ends because of its data.
func refusesItsOwnData(m *cluster.Member) bool {
	return hasFailed(m) && m.Pod != nil && unusableData.MatchString(m.Pod.FailureDetail) && !passingCauses.MatchString(m.Pod.FailureDetail)
}

// DifferedBefore reports whether the last comparison found a difference, and the present voters have not been compared
// since, or not within an hour.
func DifferedBefore(s *cluster.Snapshot) bool {
	last := meta.FindStatusCondition(s.Cluster.Status.Conditions, v1beta1.ConditionDataConsistent)
	if last == nil || last.Status != metav1.ConditionFalse || len(voterIDs(s)) < 2 {
		return false
	}
	c := Compared(s)
	return c == nil || !isRecent(s, c)
}

func isOfPresentVoters(s *cluster.Snapshot) bool {
	return s.Comparison != nil && slices.Equal(s.Comparison.Voters, voterIDs(s))
}

func voterIDs(s *cluster.Snapshot) []cluster.ID {
	var ids []cluster.ID
	if s.Membership == nil {
		return nil
	}
	for _, e := range s.Membership.Members {
		if !e.Learner {
			ids = append(ids, e.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Compared returns the last comparison, if it is one of the present voters and has ended; nil otherwise, and where
// another operator noted a later one.
func Compared(s *cluster.Snapshot) *cluster.Comparison {
	c := s.Comparison
	if !isOfPresentVoters(s) || c.Asked != "" || len(votersToAsk(s, c)) > 0 || mayBeginAgain(c) {
		return nil
	}
	if note := notedComparison(s); note != nil && note.At.After(c.Ended) {
		return nil
	}
	return c
}

// isRecent reports whether the result of a comparison still counts.
func isRecent(s *cluster.Snapshot, c *cluster.Comparison) bool {
	return s.Now.Before(c.Ended.Add(comparisonLasts))
}

// mayBeginAgain reports whether hashes cannot be compared, or a member did not tell its own where no others differ, and
// others may be asked for.
func mayBeginAgain(c *cluster.Comparison) bool {
	failed := slices.ContainsFunc(c.Answers, func(a cluster.Answer) bool { return a.Error != "" && !a.WrongRevision })
	return !c.Comparable() && c.Attempt < comparisonAttempts || failed && len(c.Groups()) < 2 && c.Attempt < failedAttempts
}

// isCompared reports whether the data were compared for the cause, and the result still counts.
func isCompared(s *cluster.Snapshot, cause string) bool {
	c := Compared(s)
	if c == nil || c.Cause != cause {
		return false
	}
	if !c.Disarmed.IsZero() {
		return s.Now.Before(c.Disarmed.Add(alarmPause))
	}
	return isRecent(s, c)
}

// votersToAsk are the voters that answer and have not told their hash, the leader last.
func votersToAsk(s *cluster.Snapshot, c *cluster.Comparison) []*cluster.Member {
	var list, leaders []*cluster.Member
	for i := range s.Members {
		m := &s.Members[i]
		e := s.EtcdEntry(m)
		switch {
		case e == nil || e.Learner || !m.Answers() || m.Probe.MemberID != e.ID || c.Of(e.ID) != nil:
		case m.Leads():
			leaders = append(leaders, m)
		default:
			list = append(list, m)
		}
	}
	return append(list, leaders...)
}

// comparisonRefusals asks the guards of a comparison. After an alarm, or beside a member that refuses its data, there
// is no better time: all that answer are asked.
func comparisonRefusals(s *cluster.Snapshot, cause string) []plan.Refusal {
	guards := []guard{
		noLargeDatabase,        // Make sure that no member answers nothing for long.
		enoughToCompare(cause), // Make sure that the answers of a majority can come.
	}
	if len(corruptAlarms(s)) == 0 && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return refusesItsOwnData(&m) }) {
		guards = append(guards, votersHealthy) // Make sure that the others have a quorum meanwhile.
	}
	return refusalsOf(s, guards...)
}

// AwaitsComparison reports whether there is a cause to compare the data, and that has not been done.
func AwaitsComparison(s *cluster.Snapshot) bool {
	cause := causeToCompare(s)
	return cause != "" && !isCompared(s, cause)
}

// ConsistencyRefusals tell why the data are not compared although there is a cause.
func ConsistencyRefusals(s *cluster.Snapshot) []plan.Refusal {
	if !AwaitsComparison(s) || s.Cluster.Status.Operation != nil {
		return nil
	}
	return comparisonRefusals(s, causeToCompare(s))
}

// votersHealthy refuses while a voter is not healthy. A learner does not matter: its promotion may wait for the result.
func votersHealthy(s *cluster.Snapshot) *plan.Refusal {
	var names []string
	for i := range s.Members {
		if m := &s.Members[i]; isListedVoter(s, m) && !m.IsHealthyVoter() {
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &plan.Refusal{
		Guard: "votersHealthy", Reason: v1beta1.ReasonNotCompared,
		Message: fmt.Sprintf("The data are compared once all voters are healthy, because each answers nothing while it computes its hash. Waiting for %s.", strings.Join(names, ", ")),
	}
}

// noLargeDatabase refuses to compare databases of which more than cluster.ConsistencyLimit is in use.
func noLargeDatabase(s *cluster.Snapshot) *plan.Refusal {
	if cluster.ComparesLargeData(s.Cluster) {
		return nil
	}
	for i := range s.Members {
		if m := &s.Members[i]; m.Answers() && m.Probe.DatabaseBytesInUse > cluster.ConsistencyLimit {
			return &plan.Refusal{
				Guard: "noLargeDatabase", Reason: v1beta1.ReasonNotCompared,
				Message: fmt.Sprintf("More than 1 GiB of the database of %s is in use. A member answers nothing while it computes the hash of its data, "+
					"so such databases are not compared. To have them compared, set spec.maintenance.consistencyCheck to Full.", m.Name),
			}
		}
	}
	return nil
}

// enoughToCompare refuses a comparison that could not end with a majority of all voters.
func enoughToCompare(cause string) guard {
	return func(s *cluster.Snapshot) *plan.Refusal {
		answering, voters := 0, len(voterIDs(s))
		for i := range s.Members {
			if m := &s.Members[i]; m.Answers() && isListedVoter(s, m) {
				answering++
			}
		}
		if answering >= cluster.Quorum(voters) {
			return nil
		}
		return &plan.Refusal{
			Guard: "enoughToCompare", Reason: v1beta1.ReasonNotCompared,
			Message: fmt.Sprintf("The data are to be compared, because %s. Only %d of %d voters answer, and no majority could agree. Bring the others back.",
				cause, answering, voters),
		}
	}
}

// compareData asks the next voter for the hash of its data. The leader comes last, once it has handed over: all writes
// wait for a leader that answers nothing.
func compareData(s *cluster.Snapshot, cause string) *plan.Decision {
	d := &plan.Decision{Progressing: true, Reason: v1beta1.ReasonCheckingConsistency}
	c, begins := s.Comparison, !goesOn(s, cause)
	if c != nil && c.Asked != "" {
		d.Message = fmt.Sprintf("%s computes the hash of its data at revision %d, and answers nothing else meanwhile. The data are compared, because %s.", c.Asked, c.Revision, c.Cause)
		d.RequeueAfter = growing(s, startingPart, requeueWhileStarting, requeueWhileWrong)
		return d
	}
	if begins {
		c = nextComparison(s, cause)
	}
	left := votersToAsk(s, c)
	if len(left) == 0 {
		d.Message = "The data of the members have been compared."
		return d
	}
	m := left[0]
	if to := followerToLead(s, m); to != nil && len(c.Groups()) == 1 && c.Of(s.EtcdEntry(to).ID) != nil {
		d.Message = fmt.Sprintf("Moving the leader from %s to %s, before %s computes the hash of its data.", m.Name, to.Name, m.Name)
		d.Action = plan.MoveLeader{Name: m.Name, For: v1beta1.OperationCheckConsistency, To: to.Name, ToID: s.EtcdEntry(to).ID}
		return d
	}
	d.Message = fmt.Sprintf("Asking %s for the hash of its data at revision %d, because %s.", m.Name, c.Revision, cause)
	d.Action = plan.HashMember{Name: m.Name, Cause: cause, Voters: c.Voters, Revision: c.Revision, Attempt: c.Attempt, Begins: begins}
	return d
}

// goesOn reports whether the last comparison is one for the cause, and still counts.
func goesOn(s *cluster.Snapshot, cause string) bool {
	c := s.Comparison
	return isOfPresentVoters(s) && c.Cause == cause && !mayBeginAgain(c) && c.Disarmed.IsZero() && isRecent(s, c)
}

// nextComparison is one that nobody has answered yet, at a revision that all voters which answer have reached.
func nextComparison(s *cluster.Snapshot, cause string) *cluster.Comparison {
	next := &cluster.Comparison{Cause: cause, Voters: voterIDs(s), Attempt: 1}
	if last := s.Comparison; isOfPresentVoters(s) && last.Cause == cause && mayBeginAgain(last) {
		next.Attempt = last.Attempt + 1
	}
	for _, m := range votersToAsk(s, next) {
		if next.Revision == 0 || m.Probe.Revision < next.Revision {
			next.Revision = m.Probe.Revision
		}
	}
	return next
}

// claimedCause is why the comparison under way was begun, as far as that still stands.
func claimedCause(s *cluster.Snapshot) string {
	if cause := causeToCompare(s); cause != "" {
		return cause
	}
	return causeBeforeUpgrade(s)
}

// comparisonIsDone reports whether the data have been compared since the operation began. Its cause may be gone by
// then: the annotation is removed, and the condition tells the result.
func comparisonIsDone(s *cluster.Snapshot, op *v1beta1.Operation) bool {
	c := Compared(s)
	return c != nil && !c.Ended.Before(op.StartedAt.Time)
}

func comparisonAbandonedFor(s *cluster.Snapshot, op *v1beta1.Operation) string {
	switch cause := claimedCause(s); {
	case s.Membership == nil, s.Comparison != nil && s.Comparison.Asked != "":
		return deadlinePassed(s, op)
	case cause == "":
		return "The cause to compare the data is gone."
	default:
		if refusals := comparisonRefusals(s, cause); len(refusals) > 0 {
			return "It was not carried out. " + refusals[0].Message
		}
		return deadlinePassed(s, op)
	}
}

func continueComparing(s *cluster.Snapshot, _ *v1beta1.Operation) *plan.Decision {
	cause := claimedCause(s)
	if s.Membership == nil || cause == "" {
		return &plan.Decision{Progressing: true, Message: "Waiting until etcd tells its members, to compare their data."}
	}
	return compareData(s, cause)
}

// causeBeforeUpgrade is the cause to compare the data before the first member runs another minor version; empty where
// none is to. Afterwards the older version may not read them any more.
func causeBeforeUpgrade(s *cluster.Snapshot) string {
	if len(voterIDs(s)) < 2 || isUnderWay(s) || versionReachable(s) != nil {
		return ""
	}
	if m := nextToUpgrade(s); m == nil || stepsLeft(s, m) == 0 {
		return ""
	}
	return "etcd " + s.Cluster.Spec.Version + " comes next"
}

// compareBeforeUpgrade compares the data before the first member runs another minor version; nil where that is done, or
// the databases are too large for it. Where they differ, or the result is not known, the guards of a restart decide.
func compareBeforeUpgrade(s *cluster.Snapshot) *plan.Decision {
	cause := causeBeforeUpgrade(s)
	if cause == "" || isComparedForUpgrade(s, cause) || len(comparisonRefusals(s, cause)) > 0 {
		return nil
	}
	return compareData(s, cause)
}

// isComparedForUpgrade reports whether the present voters were compared within an hour: this operator knows it, or one
// has noted it.
func isComparedForUpgrade(s *cluster.Snapshot, cause string) bool {
	if c := Compared(s); c != nil && isRecent(s, c) && (c.Cause == cause || c.Agrees()) {
		return true
	}
	note := notedComparison(s)
	return note != nil && s.Now.Before(note.At.Add(comparisonLasts))
}

// notedComparison is the last comparison of the present voters that was noted; nil for none.
func notedComparison(s *cluster.Snapshot) *cluster.ComparisonNote {
	note := cluster.ParseComparisonNote(peerNote(s, cluster.AnnotationCompared))
	if note == nil || !slices.Equal(note.Voters, voterIDs(s)) {
		return nil
	}
	return note
}

// missingNote is the note of the last comparison, where no data differed in it; empty where that is noted already, or a
// later one is.
func missingNote(s *cluster.Snapshot) string {
	c := Compared(s)
	if c == nil || s.Cluster.Status.Operation != nil || c.Comparable() && len(c.Groups()) > 1 {
		return ""
	}
	note, last := cluster.NoteOf(c), notedComparison(s)
	if last != nil && !note.At.After(last.At) {
		return ""
	}
	return note.String()
}

// Agreed returns the revision at which the data of all voters agreed when they were last compared, as this operator or
// another one found. It reports false where they did not agree, or nobody compared them.
func Agreed(s *cluster.Snapshot) (revision int64, is bool) {
	if c := Compared(s); c != nil {
		return c.Revision, c.Agrees()
	}
	if note := notedComparison(s); note != nil {
		return note.Revision, note.Agree
	}
	return 0, false
}

// dataAgree refuses to restart a member, to add one or to promote one while the members' data differ: what is copied,
// or serves alone, could be the wrong data.
func dataAgree(s *cluster.Snapshot) *plan.Refusal {
	c := Compared(s)
	differs := c != nil && c.Comparable() && len(c.Groups()) > 1
	if !differs && !DifferedBefore(s) && !slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return isCorrupt(s, &m) }) {
		return nil
	}
	message := "The data of the members differed when they were last compared. No member is restarted or added until they have been compared again."
	if differs {
		message = DifferenceText(s, c) + " No member is restarted or added meanwhile."
	}
	return &plan.Refusal{Guard: "dataAgree", Reason: v1beta1.ReasonDataDiffers, Message: message}
}

// DifferenceText tells the groups of members whose data agree, and what follows. It has no time that changes.
func DifferenceText(s *cluster.Snapshot, c *cluster.Comparison) string {
	var groups []string
	for _, names := range c.Groups() {
		groups = append(groups, strings.Join(names, ", "))
	}
	text := fmt.Sprintf("The data of the members differ at revision %d: %s.", c.Revision, strings.Join(groups, " / "))
	if m := s.Member(c.Corrupt()); m != nil {
		note := strings.TrimRight(ReplacementNote(s, m), ".")
		switch {
		case !isCorrupt(s, m):
			note = "That was more than an hour ago. It is replaced if it differs when the data are compared again"
		case cluster.ReplacesByItself(s.Cluster) && !isToBeReplaced(s, m):
			note = "A new member takes its place within an hour" // corruptReplacedFrom
		}
		return fmt.Sprintf("%s %s differs from a majority of all members. %s.", text, m.Name, note)
	}
	why := "No majority of all members agrees"
	if groups := c.Groups(); len(groups[0]) >= cluster.Quorum(len(c.Voters)) {
		why = "More than one member differs from the majority"
	}
	return fmt.Sprintf("%s %s, so the operator does not decide whose data are right, and replaces none. Stop the writers, save each member "+
		"with etcdctl snapshot save, and copy the keys of the one whose data you trust into a new cluster.", text, why)
}

// corruption tells why a voter's data are corrupt by comparison, in a sentence; empty where they are not. What a member
// says of itself is not enough: a majority of all voters must agree without it.
func corruption(s *cluster.Snapshot, m *cluster.Member) string {
	c := Compared(s)
	e := s.EtcdEntry(m)
	switch {
	case c == nil || e == nil || !isRecent(s, c):
		return ""
	case c.Corrupt() == m.Name:
		return fmt.Sprintf("The data of %s differ from those of a majority of all members.", m.Name)
	case refusesItsOwnData(m) && othersAgree(s, m):
		return fmt.Sprintf("etcd does not start with the data of %s, and the data of the other members agree.", m.Name)
	default:
		return ""
	}
}

// othersAgree reports whether a majority of all voters has the same data, and nobody but this member is unknown.
func othersAgree(s *cluster.Snapshot, m *cluster.Member) bool {
	c, e := Compared(s), s.EtcdEntry(m)
	return c != nil && e != nil && c.MajorityAgrees() && c.Of(e.ID) == nil && isRecent(s, c)
}

func isCorrupt(s *cluster.Snapshot, m *cluster.Member) bool { return corruption(s, m) != "" }

// corruptReplacedFrom is from when on a corrupt member may be replaced.
func corruptReplacedFrom(s *cluster.Snapshot, m *cluster.Member) time.Time {
	from := s.Now
	if !m.Answers() && m.Pod != nil { // its last words may be of a fault that passes
		from = downSince(m.Pod).Add(failureGrace)
	}
	c := Compared(s)
	if len(voterIDs(s)) < int(s.Cluster.Spec.Replicas) && c != nil && c.Ended.Add(missingPause).After(from) {
		from = c.Ended.Add(missingPause)
	}
	for i := range s.Members {
		if v := s.Members[i].Volume; v != nil && v.JoinedCluster != "" && v.CreatedAt.Add(corruptPause).After(from) {
			from = v.CreatedAt.Add(corruptPause)
		}
	}
	return from
}

// consistencyUpkeep ends the alarms once all data agree, and removes the annotation once the data were compared for it.
// In the pass that finishes an operation no alarm is ended: until its end is written, the operation stands.
func consistencyUpkeep(s *cluster.Snapshot, finishes bool) []plan.Upkeep {
	cause := causeToCompare(s)
	if cause == "" || s.Cluster.Status.Operation != nil || !isCompared(s, cause) {
		return nil
	}
	if alarms := corruptAlarms(s); len(alarms) > 0 {
		if leader := leaderTarget(s); leader != "" && !finishes && s.Comparison.Agrees() && s.Comparison.Disarmed.IsZero() && s.Now.Before(s.Comparison.Ended.Add(alarmPause)) {
			return []plan.Upkeep{plan.DisarmAlarms{Leader: leader, Alarms: alarms}}
		}
		return nil
	}
	if value := s.Cluster.Annotations[v1beta1.CheckConsistencyAnnotation]; value != "" && strings.HasPrefix(cause, askedByUser) && s.Comparison.Comparable() {
		return []plan.Upkeep{removeAnnotation(s, v1beta1.CheckConsistencyAnnotation)}
	}
	return nil
}
