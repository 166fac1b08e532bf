package cluster

// Quorum returns how many of n voters must agree: more than half.
func Quorum(voters int) int {
	return voters/2 + 1
}
