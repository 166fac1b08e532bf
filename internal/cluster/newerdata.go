package cluster

import (
	"regexp"
	"strings"
)

// LowerThanCluster is what etcd says, as its last word, if the version of the cluster in its data is newer than its
// own. Version 3.5 says nothing else; from 3.6 on, etcd says it if the version of the data is not raised yet.
// Source: MustDetectDowngrade in etcd's server/etcdserver/version/downgrade.go; in 3.5, mustDetectDowngrade in
// server/etcdserver/api/membership/downgrade.go.
const LowerThanCluster = "server version is lower than determined cluster version"

// unknownData is what etcd says from 3.6 on, as its last word, if the version of its data is newer than its own. It
// looks at that first.
// Source: schemaChangesForVersion, by way of Validate, in etcd's server/storage/schema/schema.go. bootstrapBackend in
// server/etcdserver/bootstrap.go calls it, and server/etcdmain/etcd.go adds "discovery failed".
var unknownData = regexp.MustCompile(`version "(3\.[0-9]{1,5})\.0" is not supported`)

// NewerData returns the minor version of etcd that has changed a member's data, where its etcd ended for that. The end
// is etcd's last word. Where that does not tell the version, it is taken to be the next one above the version that
// ended. It returns "" where etcd ended for another reason.
func NewerData(end, version string) string {
	if told := unknownData.FindStringSubmatch(end); told != nil {
		return told[1]
	}
	if strings.Contains(end, LowerThanCluster) {
		return NextMinor(version, 1)
	}
	return ""
}
