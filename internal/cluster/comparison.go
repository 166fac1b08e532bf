package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// DataHash is what a member answers when it is asked for the hash of its data.
type DataHash struct {
	// Hash is of all keys at the revision that was asked for, from CompactRevision on. Hashes of different compact
	// revisions cannot be compared.
	Hash            uint32
	CompactRevision int64
}

// Comparison is what became of a comparison of the members' data. It is kept in memory, and a ComparisonNote of it on
// the Service of the peers.
type Comparison struct {
	// Cause is why the data are compared, and Voters are the IDs of all voters at that time, sorted. With other voters,
	// or for another cause, it is another comparison.
	Cause  string
	Voters []ID
	// Revision is the one at which the data are compared.
	Revision int64
	// Attempt counts how often it began, from 1 on. It begins again where compact revisions differ.
	Attempt int
	// Asked is the member that computes its hash; empty for none.
	Asked string
	// Answers are the hashes so far.
	Answers []Answer
	// Ended is when the last answer came.
	Ended time.Time
	// Disarmed is when alarms were disarmed because all data agreed; zero while none was.
	Disarmed time.Time
}

// Answer is one member's answer in a comparison.
type Answer struct {
	Member string
	ID     ID
	DataHash
	// Error is why the member did not tell its hash; empty if it did.
	Error string
	// WrongRevision tells that it does not have the revision, or not any more. The others are asked at another one.
	WrongRevision bool
}

// Of returns the answer of a member, nil while it has not answered.
func (c *Comparison) Of(id ID) *Answer {
	if c == nil {
		return nil
	}
	i := slices.IndexFunc(c.Answers, func(a Answer) bool { return a.ID == id })
	if i < 0 {
		return nil
	}
	return &c.Answers[i]
}

// Comparable reports whether no two hashes are of different compact revisions, and each member had the revision.
func (c *Comparison) Comparable() bool {
	var first *Answer
	for i := range c.Answers {
		a := &c.Answers[i]
		switch {
		case a.WrongRevision:
			return false
		case a.Error != "":
		case first == nil:
			first = a
		case a.CompactRevision != first.CompactRevision:
			return false
		}
	}
	return true
}

// Groups returns the names of the members whose data agree, the largest group first. Members that did not tell their
// hash are in none.
func (c *Comparison) Groups() [][]string {
	members := map[uint32][]string{}
	for _, a := range c.Answers {
		if a.Error == "" {
			members[a.Hash] = append(members[a.Hash], a.Member)
		}
	}
	var groups [][]string
	for _, names := range members {
		slices.Sort(names)
		groups = append(groups, names)
	}
	slices.SortFunc(groups, func(a, b []string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a[0], b[0])
	})
	return groups
}

// Agrees reports whether all voters have told their hash, and the hashes are the same.
func (c *Comparison) Agrees() bool {
	groups := c.Groups()
	return c.Comparable() && len(groups) == 1 && len(groups[0]) == len(c.Voters)
}

// Corrupt returns the one voter whose data differ from those of a majority of all voters, while no other one differs;
// empty for none. What a member says of itself never makes another one corrupt: the majority must agree.
func (c *Comparison) Corrupt() string {
	groups := c.Groups()
	if !c.Comparable() || len(groups) != 2 || len(groups[1]) != 1 || !c.hasMajority() {
		return ""
	}
	return groups[1][0]
}

// MajorityAgrees reports whether a majority of all voters have the same data, and no voter that was asked differs.
func (c *Comparison) MajorityAgrees() bool {
	return c.Comparable() && len(c.Groups()) == 1 && c.hasMajority()
}

func (c *Comparison) hasMajority() bool { return len(c.Groups()[0]) >= Quorum(len(c.Voters)) }

// ConsistencyLimit is how much of a database may be in use for its data to be compared, unless the spec says Full. A
// member answers nothing while it computes the hash: see docs/consistency.md for how long that takes.
const ConsistencyLimit = 1 << 30

// ComparesLargeData reports whether the data are compared whatever their size.
func ComparesLargeData(c *v1beta1.EtcdCluster) bool {
	return c.Spec.Maintenance != nil && c.Spec.Maintenance.ConsistencyCheck == v1beta1.ConsistencyCheckFull
}

// ComparisonNote is what the operator keeps of a comparison in which no data differed. It outlives the operator:
// another one does not compare the data again at once, and tells the same.
type ComparisonNote struct {
	// Agree tells that the data of all voters agree. Otherwise the result is not known.
	Agree    bool
	Revision int64
	Voters   []ID
	// At is when the comparison ended, in whole seconds.
	At time.Time
}

const comparisonAgree, comparisonUnknown = "Agree", "Unknown"

// NoteOf returns what is kept of a comparison.
func NoteOf(c *Comparison) ComparisonNote {
	return ComparisonNote{Agree: c.Agrees(), Revision: c.Revision, Voters: c.Voters, At: c.Ended.UTC().Truncate(time.Second)}
}

// String writes the note as ParseComparisonNote reads it.
func (n ComparisonNote) String() string {
	verdict, ids := comparisonUnknown, make([]string, len(n.Voters))
	if n.Agree {
		verdict = comparisonAgree
	}
	for i, id := range n.Voters {
		ids[i] = id.String()
	}
	return fmt.Sprintf("%s %d %s %s", verdict, n.Revision, strings.Join(ids, ","), n.At.Format(time.RFC3339))
}

// ParseComparisonNote reads a note; nil where the text is none.
func ParseComparisonNote(text string) *ComparisonNote {
	var n ComparisonNote
	var verdict, ids, at string
	if _, err := fmt.Sscan(text, &verdict, &n.Revision, &ids, &at); err != nil {
		return nil
	}
	for id := range strings.SplitSeq(ids, ",") {
		n.Voters = append(n.Voters, ParseID(id))
	}
	n.Agree = verdict == comparisonAgree
	var err error
	if n.At, err = time.Parse(time.RFC3339, at); err != nil || n.String() != text {
		return nil
	}
	return &n
}
