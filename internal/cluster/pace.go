package cluster

// Hold is what keeps voluntary steps from beginning. The restart of a member whose pod has failed is not held; the
// replacement of a lost member is.
type Hold struct {
	// ByOperator tells that the operator was started with --freeze-disruptions, ByNamespace that the namespace is
	// annotated with it.
	ByOperator, ByNamespace bool
	// Limit is the operator's --max-disruptions where so many other clusters have a step under way, zero where there is
	// room.
	Limit int
	// Replacements is the operator's --max-replacements where so many other clusters replace a lost member, zero where
	// there is room.
	Replacements int
	// StoppedRolls is what an administrator must do before rolls begin again, in a sentence. It is empty unless
	// MaxRollBacks members in a row had to go back.
	StoppedRolls string
	// Unreadable is the API server's error where the operator cannot read whether steps are held.
	Unreadable string
}

// MaxRollBacks is how many members in a row, over all clusters, have to go back before rolls stop.
const MaxRollBacks = 5
