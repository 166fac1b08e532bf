package cluster

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// UnsupportedVersion says why the operator does not support a version of etcd, and what to write instead.
// It returns "" for a supported version.
func UnsupportedVersion(wanted string) string {
	v, err := version.ParseSemantic(wanted)
	if err != nil {
		return fmt.Sprintf("etcd %s is not supported, because it is no version. Write x.y.z, for example %s.", wanted, supportedVersions())
	}
	switch s := etcdMinorOf(v); {
	case s == nil:
		return fmt.Sprintf("etcd %s is not supported. Write a supported version: %s. "+
			"To move data of an older etcd, upgrade it to 3.5 first, with the tool that runs it now.", wanted, supportedVersions())
	case v.Patch() < s.firstPatch:
		return fmt.Sprintf("etcd %s is not supported, because it has bugs that can lose members or bring removed members back. "+
			"Write 3.%d.%d or a later patch.", wanted, s.minor, s.firstPatch)
	default:
		return ""
	}
}

// Supported reports whether the operator supports a version of etcd.
func Supported(wanted string) bool { return UnsupportedVersion(wanted) == "" }

// etcdMinorOf returns what is known of a version's minor version, nil where it is not supported.
func etcdMinorOf(v *version.Version) *etcdMinor {
	at := slices.IndexFunc(etcdMinors, func(s etcdMinor) bool { return v.Major() == 3 && v.Minor() == s.minor })
	if at < 0 {
		return nil
	}
	return &etcdMinors[at]
}

// supportedVersions lists the supported versions for a message.
func supportedVersions() string {
	var list []string
	for _, s := range etcdMinors {
		list = append(list, fmt.Sprintf("3.%d from 3.%d.%d on", s.minor, s.minor, s.firstPatch))
	}
	return strings.Join(list, ", ")
}

// SameMinor reports whether two versions have the same minor version.
func SameMinor(a, b string) bool {
	steps, known := MinorSteps(a, b)
	return known && steps == 0
}

// MinorSteps returns how many minor versions a change goes up; down if it is negative. It returns false where a version
// cannot be read, and for another major version.
func MinorSteps(from, to string) (int, bool) {
	a, errA := version.ParseGeneric(from)
	b, errB := version.ParseGeneric(to)
	if errA != nil || errB != nil || a.Major() != b.Major() {
		return 0, false
	}
	return int(b.Minor()) - int(a.Minor()), true
}

// VersionBetween returns the version to go to first where a change skips a minor version, up or down: the newest tested
// patch of the next one. It returns "" for a change that can be made at once, and where there is no such version.
func VersionBetween(from, to string) string {
	steps, known := MinorSteps(from, to)
	if !known || steps >= -1 && steps <= 1 {
		return ""
	}
	next, err := version.ParseGeneric(NextMinor(from, max(-1, min(steps, 1))))
	if err != nil {
		return ""
	}
	if s := etcdMinorOf(next); s != nil {
		return fmt.Sprintf("3.%d.%d", s.minor, s.tested)
	}
	return ""
}

// TestedVersion returns the newest patch of a minor version that the tests run, and "" for a minor version that is not
// supported.
func TestedVersion(minor string) string {
	v, err := version.ParseGeneric(minor)
	if err != nil {
		return ""
	}
	if s := etcdMinorOf(v); s != nil {
		return fmt.Sprintf("3.%d.%d", s.minor, s.tested)
	}
	return ""
}

// MinorOf returns the minor version of a version as etcd writes a cluster version, for example 3.6. It returns "" for
// what is no version.
func MinorOf(v string) string { return NextMinor(v, 0) }

// NextMinor returns the minor version that is some minor versions above a version, or below it, for example 3.6. It
// returns "" for what is no version, and where there is none below.
func NextMinor(v string, steps int) string {
	parsed, err := version.ParseGeneric(v)
	if err != nil || int(parsed.Minor())+steps < 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", parsed.Major(), int(parsed.Minor())+steps)
}

// Advisory is a security hole of a version of etcd.
type Advisory struct {
	// FixedIn is the first version of the same minor version without the holes that are known.
	FixedIn string
	// Holes are sentences for the user.
	Holes string
}

// AdvisoryFor returns the security holes of a version of etcd; nil where none are known, and for what is no version.
func AdvisoryFor(v string) *Advisory {
	parsed, err := version.ParseSemantic(v)
	if err != nil || parsed.Major() != 3 {
		return nil
	}
	var holes []string
	fixed := uint(0)
	for _, a := range etcdAdvisories {
		if patch, affected := a.fixedIn[parsed.Minor()]; affected && parsed.Patch() < patch {
			holes, fixed = append(holes, a.holes), max(fixed, patch)
		}
	}
	if len(holes) == 0 {
		return nil
	}
	return &Advisory{FixedIn: fmt.Sprintf("3.%d.%d", parsed.Minor(), fixed), Holes: strings.Join(holes, " ")}
}
