package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// SameAs reports whether pods of the two intents are the same, however the specs were written.
// The StatefulSets of earlier releases have intents that are not in the canonical form, so hashes alone do not tell.
func (i Intent) SameAs(other Intent) bool {
	if reflect.DeepEqual(i, other) {
		return true
	}
	_, a := i.Canonical().Encode()
	_, b := other.Canonical().Encode()
	return a == b
}

// Canonical returns the intent in the one form that all intents of the same meaning share. Only values that mean the
// same to every version of etcd and Kubernetes are unified: a default that a release may change is not.
func (i Intent) Canonical() Intent {
	if i.Tag == "v"+i.Version && i.Digest == "" {
		i.Tag = ""
	}
	if i.PullPolicy == v1beta1.PullIfNotPresent {
		i.PullPolicy = ""
	}
	if i.SchedulerName == corev1.DefaultSchedulerName {
		i.SchedulerName = ""
	}
	i.Limits, i.Requests = canonicalQuantities(i.Limits), canonicalQuantities(i.Requests)
	i.PeerIssuer, i.ServerIssuer = canonicalIssuer(i.PeerIssuer), canonicalIssuer(i.ServerIssuer)
	i.SecurityContext = canonicalSecurity(i.SecurityContext)
	i.Affinity = canonicalAffinity(i.Affinity)
	i.Tolerations = canonicalTolerations(i.Tolerations)
	i.TopologySpreadConstraints = canonicalConstraints(i.TopologySpreadConstraints)
	i.Options = canonicalOptions(i.Options)
	if n, err := OptionNumber(i.Options[quotaOption]); err == nil && n > 0 && i.QuotaBackendBytes == 0 {
		i.QuotaBackendBytes = n // that of spec.config.quotaBackendBytes
		i.Options = without(i.Options, quotaOption)
	}
	return i
}

// without returns a map without a key, nil where nothing is left.
func without(all map[string]string, key string) map[string]string {
	rest := maps.Clone(all)
	delete(rest, key)
	if len(rest) == 0 {
		return nil
	}
	return rest
}

func canonicalQuantities(list corev1.ResourceList) corev1.ResourceList {
	if len(list) == 0 {
		return nil
	}
	same := make(corev1.ResourceList, len(list))
	for name, quantity := range list {
		same[name] = canonicalQuantity(quantity)
	}
	return same
}

// canonicalQuantity returns a quantity that is written in the shorter of the decimal and the binary form.
func canonicalQuantity(q resource.Quantity) resource.Quantity {
	decimal := q.DeepCopy()
	decimal.Add(resource.Quantity{}) // forgets the text that it was read from
	binary := decimal.DeepCopy()
	decimal.Format, binary.Format = resource.DecimalSI, resource.BinarySI
	if len(binary.String()) < len(decimal.String()) {
		return binary
	}
	return decimal
}

// canonicalIssuer writes the defaults of the schema, which an object that was made without an API server lacks.
func canonicalIssuer(ref *v1beta1.IssuerRef) *v1beta1.IssuerRef {
	if ref == nil {
		return nil
	}
	return &v1beta1.IssuerRef{Name: ref.Name, Kind: cmp.Or(ref.Kind, "Issuer"), Group: cmp.Or(ref.Group, "cert-manager.io")}
}

// canonicalSecurity drops an empty security context, and runAsNonRoot: true, besides which the schema accepts nothing.
// The other fields have defaults of the operator, which a release may change.
func canonicalSecurity(security *corev1.PodSecurityContext) *corev1.PodSecurityContext {
	if security == nil {
		return nil
	}
	same := security.DeepCopy()
	if same.RunAsNonRoot != nil && *same.RunAsNonRoot {
		same.RunAsNonRoot = nil
	}
	if jsonOf(same) == "{}" {
		return nil
	}
	return same
}

// canonicalAffinity drops what asks for nothing, and sorts the terms: all of them count, in any order.
// An empty affinity stays, because it replaces the operator's default.
func canonicalAffinity(affinity *corev1.Affinity) *corev1.Affinity {
	if affinity == nil {
		return nil
	}
	same := affinity.DeepCopy()
	sortLists(reflect.ValueOf(same))
	if same.NodeAffinity != nil && jsonOf(same.NodeAffinity) == "{}" {
		same.NodeAffinity = nil
	}
	if same.PodAffinity != nil && jsonOf(same.PodAffinity) == "{}" {
		same.PodAffinity = nil
	}
	if same.PodAntiAffinity != nil && jsonOf(same.PodAntiAffinity) == "{}" {
		same.PodAntiAffinity = nil
	}
	return same
}

// canonicalTolerations sorts tolerations and drops duplicates: each tolerates its taints, whatever the others are.
func canonicalTolerations(list []corev1.Toleration) []corev1.Toleration {
	if len(list) == 0 {
		return nil
	}
	same := slices.Clone(list)
	for n := range same {
		if same[n].Operator == corev1.TolerationOpEqual {
			same[n].Operator = "" // Kubernetes' default
		}
	}
	sortLists(reflect.ValueOf(same))
	return slices.CompactFunc(same, func(a, b corev1.Toleration) bool { return jsonOf(a) == jsonOf(b) })
}

// canonicalConstraints sorts constraints, which all count in any order, and drops what means the same as nothing.
// Source: the comments of TopologySpreadConstraint in k8s.io/api/core/v1.
func canonicalConstraints(list []corev1.TopologySpreadConstraint) []corev1.TopologySpreadConstraint {
	if len(list) == 0 {
		return nil
	}
	same := make([]corev1.TopologySpreadConstraint, len(list))
	for n := range list {
		list[n].DeepCopyInto(&same[n])
		dropIfEqual(&same[n].MinDomains, 1)
		dropIfEqual(&same[n].NodeAffinityPolicy, corev1.NodeInclusionPolicyHonor)
		dropIfEqual(&same[n].NodeTaintsPolicy, corev1.NodeInclusionPolicyIgnore)
	}
	sortLists(reflect.ValueOf(same))
	return same
}

func dropIfEqual[T comparable](field **T, value T) {
	if *field != nil && **field == value {
		*field = nil
	}
}

// sortLists sorts all lists in a value by their JSON, the inner ones first.
func sortLists(v reflect.Value) {
	switch kind := v.Kind(); {
	case kind == reflect.Pointer && !v.IsNil():
		sortLists(v.Elem())
	case kind == reflect.Struct:
		for n := range v.NumField() {
			sortLists(v.Field(n))
		}
	case kind == reflect.Slice:
		for n := range v.Len() {
			sortLists(v.Index(n))
		}
		sortByText(v)
	}
}

func sortByText(list reflect.Value) {
	if list.Len() < 2 {
		return
	}
	type entry struct {
		text  string
		value reflect.Value
	}
	entries := make([]entry, list.Len())
	for n := range entries {
		value := reflect.New(list.Type().Elem()).Elem()
		value.Set(list.Index(n))
		entries[n] = entry{jsonOf(value.Interface()), value}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.text, b.text) })
	for n := range entries {
		list.Index(n).Set(entries[n].value)
	}
}

func jsonOf(value any) string {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("encoding a field of a pod: %v", err)) // every field marshals
	}
	return string(raw)
}

// The options of etcd whose values can be written in several ways, by their names from etcd 3.6 on.
var (
	numberOptions = []string{
		"auth-token-ttl", "backend-batch-limit", "bcrypt-cost", "bootstrap-defrag-threshold-megabytes", "compaction-batch-limit",
		"election-timeout", "heartbeat-interval", "max-concurrent-streams", "max-request-bytes", "max-snapshots", "max-txn-ops", "max-wals",
		"quota-backend-bytes", "snapshot-catchup-entries", "snapshot-count",
	}
	durationOptions = []string{
		"backend-batch-interval", "compact-hash-check-time", "compaction-sleep-interval", "corrupt-check-time", "grpc-keepalive-interval",
		"grpc-keepalive-min-time", "grpc-keepalive-timeout", "raft-read-timeout", "raft-write-timeout", "warning-apply-duration",
		"warning-unary-request-duration", "watch-progress-notify-interval",
	}
	booleanOptions = []string{"enable-grpc-gateway", "initial-election-tick-advance", "pre-vote"}
)

// The options for which the spec has typed fields, as intents store them.
var (
	quotaOption     = OptionVariable("quota-backend-bytes")
	modeOption      = OptionVariable("auto-compaction-mode")
	retentionOption = OptionVariable("auto-compaction-retention")
)

// canonicalValues returns the canonical value of an option by the variable under which intents store it.
var canonicalValues = func() map[string]func(string) string {
	values := map[string]func(string) string{}
	add := func(names []string, canonical func(string) string) {
		for _, name := range names {
			values[OptionVariable(name)] = canonical
			values[OptionVariable("experimental-"+name)] = canonical // the name of some of them before etcd 3.6
		}
	}
	add(numberOptions, canonicalNumber)
	add(durationOptions, canonicalDuration)
	add(booleanOptions, canonicalBoolean)
	return values
}()

// canonicalOptions writes values as etcd reads them. A value that etcd cannot read stays as it is, and is refused.
func canonicalOptions(options map[string]string) map[string]string {
	if len(options) == 0 {
		return nil
	}
	same := maps.Clone(options)
	for name, value := range same {
		if canonical := canonicalValues[name]; canonical != nil {
			same[name] = canonical(value)
		}
	}
	if retention, set := same[retentionOption]; set {
		same[modeOption] = cmp.Or(same[modeOption], periodicMode) // etcd's default
		same[retentionOption] = canonicalRetention(same[modeOption], retention)
	}
	return same
}

// OptionNumber reads a number as etcd's flags do: 0x64 is 100, and 010 is 8.
func OptionNumber(value string) (int64, error) { return strconv.ParseInt(value, 0, 64) }

func canonicalNumber(value string) string {
	n, err := OptionNumber(value)
	if err != nil {
		return value
	}
	return strconv.FormatInt(n, 10)
}

func canonicalBoolean(value string) string {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return value
	}
	return strconv.FormatBool(b)
}

// canonicalDuration returns a duration without units of which there are none: 1h instead of 1h0m0s.
func canonicalDuration(value string) string {
	d, err := time.ParseDuration(value)
	if err != nil {
		return value
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// The values of etcd's auto-compaction-mode.
const (
	periodicMode = "periodic"
	revisionMode = "revision"
)

// canonicalRetention reads a retention as etcd does: a plain number is of hours, or of revisions.
// Source: parseCompactionRetention in etcd's server/embed/etcd.go.
func canonicalRetention(mode, value string) string {
	n, err := strconv.Atoi(value)
	switch {
	case err == nil && n == 0:
		return "0" // there is no compaction
	case mode == periodicMode && err == nil && n >= 0 && n <= maxHours:
		return canonicalDuration(strconv.Itoa(n) + "h")
	case mode == periodicMode && err != nil:
		return canonicalDuration(value)
	case mode == revisionMode && err == nil && n >= 0:
		return strconv.Itoa(n)
	default:
		return value
	}
}

// maxHours is about the longest duration that a program can hold.
const maxHours = 2_000_000
