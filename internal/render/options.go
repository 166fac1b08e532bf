package render

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// OptionRefusal is an etcd option of the user's that is not passed on.
type OptionRefusal struct {
	// Name is the option's name without dashes.
	Name string
	// Why is a clause that says what is wrong and, where there is one, what to write instead.
	Why string
}

// option is an etcd option that users may set.
type option struct {
	// flag is the option's name from etcd 3.6 on, without its dashes.
	flag string
	// before36 is its name in etcd 3.5 where that is another one.
	before36 string
	// new36 tells that etcd 3.5 does not have it.
	new36 bool
	value valueKind
}

// options are what users may set. The list may grow. A later release removes no option from it, and refuses no value
// that an earlier release allowed and etcd starts with.
var options = []option{
	{flag: "auth-token-ttl", value: number},
	{flag: "auto-compaction-mode", value: oneOf("periodic", "revision")},
	{flag: "auto-compaction-retention", value: retention},
	{flag: "backend-batch-interval", value: duration},
	{flag: "backend-batch-limit", value: signedNumber},
	{flag: "backend-bbolt-freelist-type", value: oneOf("array", "map")},
	{flag: "bcrypt-cost", value: number},
	{flag: "bootstrap-defrag-threshold-megabytes", before36: "experimental-bootstrap-defrag-threshold-megabytes", value: number},
	{flag: "cipher-suites", value: ciphers},
	{flag: "compact-hash-check-time", before36: "experimental-compact-hash-check-time", value: period},
	{flag: "compaction-batch-limit", before36: "experimental-compaction-batch-limit", value: signedNumber},
	{flag: "compaction-sleep-interval", before36: "experimental-compaction-sleep-interval", value: duration},
	{flag: "corrupt-check-time", before36: "experimental-corrupt-check-time", value: duration},
	{flag: "cors", value: origins},
	{flag: "election-timeout", value: numberFrom(5, 50_000)},
	{flag: "enable-grpc-gateway", value: boolean},
	{flag: "grpc-keepalive-interval", value: duration},
	{flag: "grpc-keepalive-min-time", value: duration},
	{flag: "grpc-keepalive-timeout", value: duration},
	{flag: "heartbeat-interval", value: numberFrom(1, 10_000)},
	{flag: "host-whitelist", value: text},
	{flag: "initial-election-tick-advance", value: boolean},
	{flag: "log-format", new36: true, value: oneOf("json", "console")},
	{flag: "log-level", value: oneOf("debug", "info", "warn", "error", "panic", "fatal")},
	{flag: "max-concurrent-streams", value: numberFrom(0, math.MaxUint32)},
	{flag: "max-request-bytes", value: numberFrom(leastRequest, math.MaxInt64)},
	{flag: "max-snapshots", value: number},
	{flag: "max-txn-ops", value: number},
	{flag: "max-wals", value: number},
	{flag: "metrics", value: oneOf("basic", "extensive")},
	{flag: "pre-vote", value: boolean},
	{flag: "quota-backend-bytes", value: signedNumber},
	{flag: "raft-read-timeout", value: duration},
	{flag: "raft-write-timeout", value: duration},
	{flag: "snapshot-catchup-entries", before36: "experimental-snapshot-catchup-entries", value: number},
	{flag: "snapshot-count", value: number},
	{flag: "tls-max-version", value: oneOf("TLS1.2", "TLS1.3")},
	{flag: "tls-min-version", value: oneOf("TLS1.2", "TLS1.3")},
	{flag: "warning-apply-duration", before36: "experimental-warning-apply-duration", value: duration},
	{flag: "warning-unary-request-duration", new36: true, value: duration},
	{flag: "watch-progress-notify-interval", before36: "experimental-watch-progress-notify-interval", value: duration},
}

// forbiddenOptions says why some well-known options are not passed on. The first entry whose prefix fits applies.
var forbiddenOptions = []struct{ prefix, why string }{
	{"name", "etcd-warden names the members"},
	{"data-dir", "the data directory lies on the member's volume"},
	{"wal-dir", "the write-ahead log lies on the member's volume"},
	{"listen-", "etcd-warden sets the addresses"},
	{"advertise-", "etcd-warden sets the addresses"},
	{"initial-advertise-", "etcd-warden sets the addresses"},
	{"initial-cluster", "etcd-warden founds the cluster"},
	{"discovery", "etcd-warden founds the cluster"},
	{"cert-file", "certificates come from spec.tls"},
	{"key-file", "certificates come from spec.tls"},
	{"trusted-ca-file", "certificates come from spec.tls"},
	{"auto-tls", "certificates come from spec.tls"},
	{"self-signed-cert-validity", "certificates come from spec.tls"},
	{"peer-skip-client-san-verification", "it lets any holder of a certificate join as any peer"},
	{"client-cert-allowed-hostname", "it could lock etcd-warden out"},
	{"client-", "certificates come from spec.tls"},
	{"peer-", "certificates come from spec.tls"},
	{"experimental-peer-skip-client-san-verification", "it lets any holder of a certificate join as any peer"},
	{"feature-gates", "etcd-warden sets the feature gates"},
	{"experimental-initial-corrupt-check", "the check is always on"},
	{"experimental-compact-hash-check-enabled", "the check is always on"},
	{"strict-reconfig-check", "the check is always on: without it a change of members could end the quorum"},
	{"force-new-cluster", "it drops the other members"},
	{"unsafe-no-fsync", "it loses acknowledged writes"},
	{"max-learners", "etcd-warden adds one learner at a time"},
	{"experimental-max-learners", "etcd-warden adds one learner at a time"},
	{"enable-v2", "v2 data stands in the way of upgrades"},
	{"experimental-enable-v2v3", "v2 data stands in the way of upgrades"},
	{"v2-deprecation", "v2 data stands in the way of upgrades"},
	{"proxy", "a member is never a proxy"},
	{"config-file", "etcd would ignore every other option"},
	{"auth-token", "only simple tokens are supported"},
	{"memory-mlock", "it needs a capability that the pod does not have"},
	{"experimental-memory-mlock", "it needs a capability that the pod does not have"},
	{"enable-pprof", "it shows a member's memory to every client"},
	{"log-outputs", "the log goes to the container's output"},
	{"logger", "the log goes to the container's output"},
	{"enable-log-rotation", "the log goes to the container's output"},
	{"log-rotation-config-json", "the log goes to the container's output"},
}

// RefusedOptions returns the user's options that are not passed on to the intent's version of etcd, by name.
func RefusedOptions(i cluster.Intent) []OptionRefusal {
	var refused []OptionRefusal
	for _, name := range slices.Sorted(maps.Keys(i.Options)) {
		if why := refuse(name, i.Options[name], i.Version); why != "" {
			refused = append(refused, OptionRefusal{Name: flagOf(name), Why: why})
		}
	}
	if len(refused) > 0 {
		return refused
	}
	return conflictingOptions(i)
}

// conflictingOptions returns the options whose values are valid, but contradict each other.
func conflictingOptions(i cluster.Intent) (refused []OptionRefusal) {
	set := func(flag string) string { return i.Options[cluster.OptionVariable(flag)] }
	heartbeat, election := numberOr(set("heartbeat-interval"), defaultHeartbeat), numberOr(set("election-timeout"), defaultElection)
	if election < 5*heartbeat {
		refused = append(refused, OptionRefusal{Name: "election-timeout",
			Why: fmt.Sprintf("%d ms is less than five times heartbeat-interval, which is %d ms", election, heartbeat)})
	}
	least := set("tls-min-version")
	if most := set("tls-max-version"); least == "TLS1.3" && most == "TLS1.2" {
		refused = append(refused, OptionRefusal{Name: "tls-max-version", Why: "it is below tls-min-version"})
	}
	if least == "TLS1.3" && set("cipher-suites") != "" {
		refused = append(refused, OptionRefusal{Name: "cipher-suites", Why: "with the tls-min-version TLS1.3 there is nothing to choose"})
	}
	return refused
}

// etcd's own, in milliseconds.
const (
	defaultHeartbeat = 100
	defaultElection  = 1000
)

func numberOr(value string, otherwise int64) int64 {
	if n, err := cluster.OptionNumber(value); err == nil {
		return n
	}
	return otherwise
}

// refuse returns why an option is not passed on, empty if it is.
func refuse(variable, value, version string) string {
	minor, asked := minorOf(version), flagOf(variable)
	if known := find(asked); known != nil {
		return known.refuse(asked, value, minor)
	}
	for _, bad := range forbiddenOptions {
		if strings.HasPrefix(asked, bad.prefix) {
			return bad.why
		}
	}
	return fmt.Sprintf("it is not among the options that etcd-warden passes on to etcd 3.%d", minor)
}

// find returns the option of a name, nil where users may not set it.
func find(name string) *option {
	for n := range options {
		if o := &options[n]; name == o.flag || o.before36 != "" && name == o.before36 {
			return o
		}
	}
	return nil
}

// refuse returns why the option under the name asked for is not passed on to etcd 3.minor, empty if it is.
func (o option) refuse(asked, value string, minor int) string {
	switch here := o.nameIn(minor); {
	case here == "":
		return fmt.Sprintf("etcd 3.%d does not have it", minor)
	case asked != here:
		return fmt.Sprintf("etcd 3.%d calls it %s", minor, here)
	case !o.value.fits(value):
		return fmt.Sprintf("its value must be %s", o.value.wants)
	default:
		return ""
	}
}

// userFlags returns the user's options, sorted by name. It leaves out options that the version does not have:
// callers ask RefusedOptions first.
// A value is passed on as it stands: what an earlier release let in, and a member runs with, stays.
func userFlags(i cluster.Intent) []etcdFlag {
	var flags []etcdFlag
	for variable, value := range i.Options {
		name := flagOf(variable)
		if known := find(name); known != nil && name == known.nameIn(minorOf(i.Version)) {
			flags = append(flags, etcdFlag{name: name, value: value})
		}
	}
	slices.SortFunc(flags, func(a, b etcdFlag) int { return cmp.Compare(a.name, b.name) })
	return flags
}

// nameIn returns the option's name in etcd 3.minor, empty where it has none.
func (o option) nameIn(minor int) string {
	switch {
	case minor > lastWithout36Names:
		return o.flag
	case o.new36:
		return ""
	default:
		return cmp.Or(o.before36, o.flag)
	}
}

// lastWithout36Names is the last minor version before etcd 3.6.
// etcd 3.6 renamed most experimental options, and has feature gates.
const lastWithout36Names = 5

func flagOf(variable string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, "ETCD_"), "_", "-"))
}

// minorOf returns the y of a version x.y.z; admission lets nothing else in.
func minorOf(version string) int {
	parts := strings.Split(version, ".")
	if len(parts) != 3 {
		return 0
	}
	minor, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0
	}
	return minor
}

// valueKind is what an option's value must look like. etcd itself checks more; this refuses what could never start.
type valueKind struct {
	wants string
	fits  func(string) bool
}

var (
	// Only some options of etcd may begin with a plus sign.
	number       = valueKind{"a whole number that is not negative, such as 100", isUnsigned}
	signedNumber = valueKind{number.wants, isNumber}

	duration  = valueKind{"a duration, such as 30s", isDuration}
	period    = valueKind{"a duration of at least 1ms, such as 1m", func(v string) bool { return isDurationOfAtLeast(v, time.Millisecond) }}
	retention = valueKind{"a whole number or a duration of at least 1s, such as 1000 or 1h", func(v string) bool { return isDecimal(v) || isDurationOfAtLeast(v, time.Second) }}
	boolean   = valueKind{"true or false", isBoolean}
	ciphers   = valueKind{"names of cipher suites separated by commas, such as TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", areCiphers}
	origins   = valueKind{"* or origins separated by commas, such as https://example.com", isOrigins}
	text      = valueKind{"a text without control characters", isText}
)

// leastRequest is room for what a member tells its peers of itself when it starts: its name and its address.
const leastRequest = 1024

func numberFrom(least, most int64) valueKind {
	wants := fmt.Sprintf("a whole number from %d to %d", least, most)
	if most == math.MaxInt64 {
		wants = fmt.Sprintf("a whole number of at least %d", least)
	}
	return valueKind{wants, func(v string) bool {
		n, err := cluster.OptionNumber(v)
		return isUnsigned(v) && err == nil && n >= least && n <= most
	}}
}

func oneOf(allowed ...string) valueKind {
	return valueKind{"one of " + strings.Join(allowed, ", "), func(v string) bool { return slices.Contains(allowed, v) }}
}

func isNumber(value string) bool {
	n, err := cluster.OptionNumber(value)
	return err == nil && n >= 0
}

// isUnsigned reports whether a value is a number that begins with no sign.
func isUnsigned(value string) bool { return isNumber(value) && !strings.ContainsAny(value, "+-") }

// isDecimal reports whether a value is a retention's number. etcd reads it as decimal, unlike the numbers of its flags.
func isDecimal(value string) bool {
	n, err := strconv.Atoi(value)
	return err == nil && n >= 0
}

func isDuration(value string) bool {
	d, err := time.ParseDuration(value)
	return err == nil && d >= 0
}

// isDurationOfAtLeast reports whether a value is a duration that is not shorter than least.
// etcd divides some durations: a shorter one becomes zero, or ends before etcd is ready for it.
func isDurationOfAtLeast(value string, least time.Duration) bool {
	d, err := time.ParseDuration(value)
	return err == nil && d >= least
}

// areCiphers takes the names that etcd takes: Go's, and two older ones.
func areCiphers(value string) bool {
	known := []string{"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"}
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		known = append(known, suite.Name)
	}
	return !slices.ContainsFunc(strings.Split(value, ","), func(name string) bool { return !slices.Contains(known, name) })
}

func isBoolean(value string) bool {
	_, err := strconv.ParseBool(value)
	return err == nil
}

func isOrigins(value string) bool {
	return !slices.ContainsFunc(strings.Split(value, ","), func(origin string) bool {
		parsed, err := url.Parse(origin)
		return origin != "*" && (err != nil || !slices.Contains([]string{"http", "https"}, parsed.Scheme) || parsed.Host == "")
	})
}

func isText(value string) bool {
	return value != "" && !strings.ContainsFunc(value, func(r rune) bool { return !strconv.IsPrint(r) })
}
