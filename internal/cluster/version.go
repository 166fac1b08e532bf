package cluster

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
)

// supportedMinors are the minor versions of etcd 3 that the operator supports, in order, each with its first supported
// patch.
var supportedMinors = []struct{ minor, firstPatch uint }{{5, 32}, {6, 12}, {7, 0}}

// UnsupportedVersion says why the operator does not support a version of etcd, and what to write instead.
// It returns "" for a supported version.
func UnsupportedVersion(wanted string) string {
	v, err := version.ParseSemantic(wanted)
	if err != nil {
		return fmt.Sprintf("etcd %s is not supported, because it is no version. Write x.y.z, for example %s.", wanted, supportedVersions())
	}
	if v.Major() == 3 {
		for _, s := range supportedMinors {
			if v.Minor() == s.minor && v.Patch() < s.firstPatch {
				return fmt.Sprintf("etcd %s is not supported, because it has bugs that can lose members or bring removed members back. "+
					"Write 3.%d.%d or a later patch.", wanted, s.minor, s.firstPatch)
			}
			if v.Minor() == s.minor {
				return ""
			}
		}
	}
	return fmt.Sprintf("etcd %s is not supported. Write a supported version: %s. "+
		"To move data of an older etcd, upgrade it to 3.5 first, with the tool that runs it now.", wanted, supportedVersions())
}

// supportedVersions lists the supported versions for a message.
func supportedVersions() string {
	list := ""
	for i, s := range supportedMinors {
		if i > 0 {
			list += ", "
		}
		list += fmt.Sprintf("3.%d from 3.%d.%d on", s.minor, s.minor, s.firstPatch)
	}
	return list
}

// SameMinor reports whether two versions have the same minor version.
func SameMinor(a, b string) bool {
	x, errX := version.ParseGeneric(a)
	y, errY := version.ParseGeneric(b)
	return errX == nil && errY == nil && x.Major() == y.Major() && x.Minor() == y.Minor()
}
