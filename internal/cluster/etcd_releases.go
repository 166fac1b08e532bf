package cluster

// This file holds all that is known of etcd's releases. To support a new patch of etcd, raise its tested version here
// and in hack/tools, add the security holes that it closes, and run make test.

// etcdMinor is a minor version of etcd 3 that the operator supports.
type etcdMinor struct {
	minor uint
	// firstPatch is the first supported patch. Earlier ones can lose members or bring removed members back.
	firstPatch uint
	// tested is the newest patch that the tests run. Users are told to go to it.
	tested uint
}

// etcdMinors are the supported minor versions, oldest first.
var etcdMinors = []etcdMinor{
	{minor: 5, firstPatch: 32, tested: 35},
	{minor: 6, firstPatch: 12, tested: 16},
	{minor: 7, firstPatch: 0, tested: 3},
}

// etcdAdvisories are the security holes of etcd, newest first. A minor version that is not listed never had them.
var etcdAdvisories = []etcdAdvisory{
	{
		fixedIn: map[uint]uint{5: 33, 6: 14, 7: 1}, // July 2026
		holes: "A user who may read one key can watch all keys from that key on. " +
			"A TLS handshake has no time limit, so anybody who reaches the port can use up the connections.",
	},
}

// etcdAdvisory is a set of security holes that the same releases close.
type etcdAdvisory struct {
	// fixedIn is the first patch without the holes, by minor version.
	fixedIn map[uint]uint
	// holes are sentences for the user.
	holes string
}

// What minor versions do differently, where the order of an upgrade or a downgrade depends on it.
const (
	// MinorWithoutDowngradeTarget tells neither to which version a downgrade goes, nor the version of its data.
	MinorWithoutDowngradeTarget = "3.5"
	// MinorWithOldEntries writes the attributes of members and the version of the cluster into the log as requests of
	// etcd's second API. The next minor version reads them. They are gone once a member of that one has written a
	// snapshot, which it does each 10,000 entries, and when the version of the cluster goes down.
	// Source: ClusterVersionSet in etcd's server/etcdserver/apply/apply.go (3.6).
	MinorWithOldEntries = "3.5"
	// MinorWithoutOldEntries panics over such entries. Source: Apply in etcd's server/etcdserver/apply/apply.go.
	MinorWithoutOldEntries = "3.7"
)
