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
