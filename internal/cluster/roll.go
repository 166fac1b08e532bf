package cluster

import (
	"cmp"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

const (
	defaultProgressDeadline = 10 * time.Minute
	// maxFailedCause bounds what FailedIntent remembers of the cause: Kubernetes bounds all annotations of an object.
	maxFailedCause = 512
	// maxFailedIntents is how many failed intents of a member are remembered. For one spec there are at most three: its
	// version, the rest of it, and both.
	maxFailedIntents = 4
)

// ProgressDeadline returns how long one step may take.
func ProgressDeadline(c *v1beta1.EtcdCluster) time.Duration {
	if strategy := c.Spec.UpdateStrategy; strategy != nil {
		return cmp.Or(time.Duration(strategy.ProgressDeadlineSeconds)*time.Second, defaultProgressDeadline)
	}
	return defaultProgressDeadline
}

// RollsForOperatorUpgrade reports whether members restart at once when the operator renders their pods differently.
func RollsForOperatorUpgrade(c *v1beta1.EtcdCluster) bool {
	return c.Spec.UpdateStrategy != nil && c.Spec.UpdateStrategy.OperatorUpgrade == v1beta1.OperatorUpgradeRoll
}

// OperationMark is the value of AnnotationOperation: the type of the operation and when it began.
func OperationMark(t v1beta1.OperationType, startedAt time.Time) string {
	return string(t) + " " + startedAt.UTC().Format(time.RFC3339)
}

// MarkedOperation returns what OperationMark wrote, and false where there is no such mark.
func MarkedOperation(mark string) (v1beta1.OperationType, time.Time, bool) {
	name, at, _ := strings.Cut(mark, " ")
	startedAt, err := time.Parse(time.RFC3339, at)
	return v1beta1.OperationType(name), startedAt, err == nil
}

// FailedIntent is a line of AnnotationFailedIntent: the TargetHash of an intent under which the member did not become
// healthy, and the cause.
func FailedIntent(i Intent, cause string) string {
	return i.TargetHash() + " " + Shortened(cause, maxFailedCause)
}

// AddFailedIntent returns the value of AnnotationFailedIntent with one more intent, and the cause. The newest is the
// first line, and the oldest ones are forgotten. The first line alone is what earlier releases read.
func AddFailedIntent(annotation string, i Intent, cause string) string {
	lines := []string{FailedIntent(i, cause)}
	for line := range strings.Lines(annotation) {
		line = strings.TrimSuffix(line, "\n")
		if hash, _, _ := strings.Cut(line, " "); hash != i.TargetHash() && len(lines) < maxFailedIntents {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// FailedCause returns why the member did not become healthy under the intent with the TargetHash, and false where
// AnnotationFailedIntent does not have it.
func FailedCause(annotation, hash string) (cause string, failed bool) {
	for line := range strings.Lines(annotation) {
		if failedHash, cause, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); failedHash == hash {
			return cause, true
		}
	}
	return "", false
}

// WithVersionOf returns the intent with the version and the image of another one. An image goes with its version: a tag
// or a digest is that of one version.
func (i Intent) WithVersionOf(other Intent) Intent {
	i.Version, i.Repository, i.Tag, i.Digest = other.Version, other.Repository, other.Tag, other.Digest
	return i
}

// TargetHash returns the hash of what the spec asks for. The authorities are left out: they were found, not asked for.
func (i Intent) TargetHash() string {
	i = i.Canonical()
	i.PeerAuthorities, i.ServerAuthorities = nil, nil
	_, hash := i.Encode()
	return hash
}

// SetsQuota reports whether the spec says at which size the database refuses writes.
func SetsQuota(spec *v1beta1.EtcdClusterSpec) bool {
	if spec.Config == nil {
		return false
	}
	for name := range spec.Config.ExtraArgs {
		if OptionVariable(name) == quotaOption {
			return true
		}
	}
	return spec.Config.QuotaBackendBytes != nil
}

// Timings returns the heartbeat interval and the election timeout in milliseconds.
func (i Intent) Timings() (heartbeat, election int64) {
	return i.milliseconds(heartbeatOption, defaultHeartbeat), i.milliseconds(electionOption, defaultElectionTimeout)
}

// WithTimings returns the intent with other timings. One that it has already keeps its form.
func (i Intent) WithTimings(heartbeat, election int64) Intent {
	haveHeartbeat, haveElection := i.Timings()
	if heartbeat != haveHeartbeat {
		i.Options = with(i.Options, heartbeatOption, heartbeat)
	}
	if election != haveElection {
		i.Options = with(i.Options, electionOption, election)
	}
	return i
}

func (i Intent) milliseconds(option string, otherwise time.Duration) int64 {
	if n, err := OptionNumber(i.Options[option]); err == nil && n > 0 {
		return n
	}
	return otherwise.Milliseconds()
}

func with(options map[string]string, key string, value int64) map[string]string {
	changed := maps.Clone(options)
	if changed == nil {
		changed = map[string]string{}
	}
	changed[key] = strconv.FormatInt(value, 10)
	return changed
}

var heartbeatOption, electionOption = OptionVariable("heartbeat-interval"), OptionVariable("election-timeout")

// The defaults are etcd's.
const (
	defaultHeartbeat       = 100 * time.Millisecond
	defaultElectionTimeout = time.Second
)
