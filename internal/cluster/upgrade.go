package cluster

import "k8s.io/apimachinery/pkg/util/version"

// MinorSteps returns how many minor versions lie between two versions of etcd 3: positive for an upgrade, negative for
// a downgrade. It returns 0 where one of them is no version.
func MinorSteps(from, to string) int {
	x, errX := version.ParseGeneric(from)
	y, errY := version.ParseGeneric(to)
	if errX != nil || errY != nil {
		return 0
	}
	return int(y.Minor()) - int(x.Minor())
}

// Minor returns the minor version, 0 for what is no version.
func Minor(v string) int {
	parsed, err := version.ParseGeneric(v)
	if err != nil {
		return 0
	}
	return int(parsed.Minor())
}
