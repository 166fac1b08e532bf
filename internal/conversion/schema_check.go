package conversion

import (
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

var (
	smallestMemory = resource.MustParse("256Mi")
	smallestQuota  = resource.MustParse("16Mi")
	largestQuota   = resource.MustParse("16Gi")
	periodic       = regexp.MustCompile(`^[1-9][0-9]*[smh]$`)
	revision       = regexp.MustCompile(`^[1-9][0-9]*$`)
	imageTag       = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	imageDigest    = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)
	optionName     = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	subdomain      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

// The limits of the schema of v1beta1.
const (
	maxName        = 253
	maxKind        = 63
	maxRetention   = 20
	maxOptions     = 64
	maxOptionName  = 100
	maxOptionValue = 1024
	maxConstraints = 16
	maxPullSecrets = 16
	maxTag         = 128
	minDeadline    = 60

	maxAfterText = 16
	minAfter     = 10 * time.Second
	maxAfter     = 24 * time.Hour

	maxDeadline = 86400

	// hack/crdbounds sets these for the types of Kubernetes.
	maxText           = 317
	maxLabelValue     = 63
	maxItems          = 64
	maxSelectorValues = 1024
)

// checker collects the paths of fields that the schema of v1beta1 would refuse.
//
// The API server checks an object by the schema of the version in which the client writes it. So it does not check the
// fields that annotations add. checker checks the fields that v1alpha1 lacks. The schema of v1alpha1 has the same
// limits for all other fields. But several names of an option in v1beta1 are one name in v1alpha1, so an annotation can
// bring in names that no client could write. Whether etcd has the options is checked later, by the operator.
type checker struct{ invalid []string }

// invalidPaths returns the paths of invalid fields.
func invalidPaths(spec *v1beta1.EtcdClusterSpec) []string {
	var c checker
	c.image(&spec.Image)
	if s := spec.Storage; s != nil && s.RetentionPolicy != nil {
		const path = "spec.storage.retentionPolicy."
		c.require(path+"whenDeleted", isOneOf(s.RetentionPolicy.WhenDeleted, v1beta1.RetentionRetain, v1beta1.RetentionDelete))
		c.require(path+"whenScaled", isOneOf(s.RetentionPolicy.WhenScaled, v1beta1.RetentionRetain, v1beta1.RetentionDelete))
		c.require(path+"whenReplaced", isOneOf(s.RetentionPolicy.WhenReplaced, v1beta1.RetentionRetain, v1beta1.RetentionDelete))
	}
	if s := spec.Storage; s != nil && s.Ephemeral != nil {
		c.require("spec.storage.ephemeral", s.Ephemeral.Medium == v1beta1.EphemeralMemory && s.Ephemeral.SizeLimit.Cmp(smallestMemory) >= 0)
	}
	if spec.TLS != nil {
		c.tls(spec.TLS)
	}
	if spec.Config != nil {
		c.config(spec.Config)
	}
	if spec.PodTemplate != nil {
		c.podTemplate(spec.PodTemplate)
	}
	if u := spec.UpdateStrategy; u != nil {
		const path = "spec.updateStrategy."
		c.require(path+"operatorUpgrade", isOneOf(u.OperatorUpgrade, v1beta1.OperatorUpgradeWait, v1beta1.OperatorUpgradeRoll))
		seconds := u.ProgressDeadlineSeconds
		c.require(path+"progressDeadlineSeconds", seconds == 0 || seconds >= minDeadline && seconds <= maxDeadline)
	}
	if r := spec.Recovery; r != nil && r.MemberReplacement != nil {
		const path = "spec.recovery.memberReplacement."
		c.require(path+"policy", isOneOf(r.MemberReplacement.Policy, v1beta1.ReplaceAutomatically, v1beta1.ReplaceManually))
		c.require(path+"after", isReplacementTime(r.MemberReplacement.After))
	}
	if spec.Maintenance != nil {
		c.require("spec.maintenance.consistencyCheck", isOneOf(spec.Maintenance.ConsistencyCheck, v1beta1.ConsistencyCheckLimited, v1beta1.ConsistencyCheckFull))
	}
	if spec.Bootstrap != nil {
		c.require("spec.bootstrap.existingVolumes", isOneOf(spec.Bootstrap.ExistingVolumes, v1beta1.ExistingVolumesTakeBack, v1beta1.ExistingVolumesIgnore))
	}
	return c.invalid
}

// require adds the path unless the field is valid.
func (c *checker) require(path string, valid bool) {
	if !valid {
		c.invalid = append(c.invalid, path)
	}
}

// isReplacementTime reports whether the text is none, or a time that memberReplacement.after may have.
func isReplacementTime(text string) bool {
	if text == "" {
		return true
	}
	after, err := time.ParseDuration(text)
	return err == nil && periodic.MatchString(text) && isShort(text, maxAfterText) && after >= minAfter && after <= maxAfter
}

// image checks the fields besides the repository, which v1alpha1 has too.
func (c *checker) image(image *v1beta1.Image) {
	const path = "spec.image."
	c.require(path+"tag", image.Tag == "" || isShort(image.Tag, maxTag) && imageTag.MatchString(image.Tag))
	c.require(path+"digest", image.Digest == "" || imageDigest.MatchString(image.Digest))
	c.require(path+"pullPolicy", isOneOf(image.PullPolicy, v1beta1.PullAlways, v1beta1.PullIfNotPresent))
}

func (c *checker) tls(tls *v1beta1.TLS) {
	if client := tls.Client; client != nil {
		const path = "spec.tls.client"
		c.source(path, client.Mode, client.CertManager, client.SecretRef != nil)
		if ref := client.SecretRef; ref != nil {
			c.require(path, isName(ref.Name) && isName(ref.OperatorName))
			c.require(path, isOneOf(ref.Format, v1beta1.SecretFormatTLS, v1beta1.SecretFormatEtcdOperator))
		}
	}
	if peer := tls.Peer; peer != nil {
		const path = "spec.tls.peer"
		c.source(path, peer.Mode, peer.CertManager, peer.SecretRef != nil)
		if ref := peer.SecretRef; ref != nil {
			c.require(path, isName(ref.Name))
			c.require(path, isOneOf(ref.Format, v1beta1.SecretFormatTLS, v1beta1.SecretFormatEtcdOperator))
		}
	}
}

// source checks the source of certificates.
func (c *checker) source(path string, mode v1beta1.TLSMode, manager *v1beta1.CertManagerTLS, secret bool) {
	c.require(path, isOneOf(mode, v1beta1.TLSManaged, v1beta1.TLSDisabled))
	c.require(path, (mode == "" || manager == nil) && (mode == "" || !secret) && (manager == nil || !secret))
	if manager != nil {
		issuer := manager.IssuerRef
		c.require(path, isName(issuer.Name) && isShort(issuer.Kind, maxKind) && isShort(issuer.Group, maxName))
	}
}

// config checks the options and the typed fields. A typed field is invalid beside the option that it sets.
func (c *checker) config(config *v1beta1.Config) {
	c.require("spec.config.extraArgs", len(config.ExtraArgs) <= maxOptions)
	for name, value := range config.ExtraArgs {
		c.require("spec.config.extraArgs", isShort(name, maxOptionName) && optionName.MatchString(name) && isShort(value, maxOptionValue))
	}
	isSet := func(option string) bool { _, set := config.ExtraArgs[option]; return set }
	options := len(config.ExtraArgs)
	if quota := config.QuotaBackendBytes; quota != nil {
		const path = "spec.config.quotaBackendBytes"
		c.require(path, quota.Cmp(smallestQuota) >= 0 && quota.Cmp(largestQuota) <= 0)
		options++
		c.require(path, !isSet(quotaOption) && options <= maxOptions)
	}
	if compaction := config.AutoCompaction; compaction != nil {
		const path = "spec.config.autoCompaction"
		form := map[v1beta1.AutoCompactionMode]*regexp.Regexp{
			v1beta1.AutoCompactionPeriodic: periodic, v1beta1.AutoCompactionRevision: revision,
		}[compaction.Mode]
		c.require(path, form != nil && form.MatchString(compaction.Retention) && isShort(compaction.Retention, maxRetention))
		options += 2
		c.require(path, !isSet(modeOption) && !isSet(retentionOption) && options <= maxOptions)
	}
}

func (c *checker) podTemplate(template *v1beta1.PodTemplate) {
	c.require("spec.podTemplate.memberAntiAffinity", isOneOf(template.MemberAntiAffinity,
		v1beta1.MemberAntiAffinityPreferred, v1beta1.MemberAntiAffinityRequired))
	pod, path := &template.Spec, "spec.podTemplate.spec."
	c.require(path+"priorityClassName", isShort(pod.PriorityClassName, maxName))
	c.require(path+"schedulerName", isShort(pod.SchedulerName, maxName))
	c.require(path+"runtimeClassName", isShort(pod.RuntimeClassName, maxName))
	c.require(path+"topologySpreadConstraints", len(pod.TopologySpreadConstraints) <= maxConstraints)
	for n := range pod.TopologySpreadConstraints {
		c.require(path+"topologySpreadConstraints", isShortConstraint(&pod.TopologySpreadConstraints[n]))
	}
	c.require(path+"imagePullSecrets", len(pod.ImagePullSecrets) <= maxPullSecrets)
	for _, ref := range pod.ImagePullSecrets {
		c.require(path+"imagePullSecrets", ref.Name != "" && isShort(ref.Name, maxName) && !strings.Contains(ref.Name, "/"))
	}
}

// isShortConstraint reports whether a constraint keeps the limits that hack/crdbounds sets.
func isShortConstraint(c *corev1.TopologySpreadConstraint) bool {
	texts := append([]string{c.TopologyKey, string(c.WhenUnsatisfiable)}, c.MatchLabelKeys...)
	if c.NodeAffinityPolicy != nil {
		texts = append(texts, string(*c.NodeAffinityPolicy))
	}
	if c.NodeTaintsPolicy != nil {
		texts = append(texts, string(*c.NodeTaintsPolicy))
	}
	return len(c.MatchLabelKeys) <= maxItems && allShort(texts, maxText) && (c.LabelSelector == nil || isShortSelector(c.LabelSelector))
}

func isShortSelector(s *metav1.LabelSelector) bool {
	for key, value := range s.MatchLabels {
		if !isShort(key, maxText) || !isShort(value, maxLabelValue) {
			return false
		}
	}
	for _, r := range s.MatchExpressions {
		if !isShort(r.Key, maxText) || !isShort(string(r.Operator), maxText) || len(r.Values) > maxSelectorValues || !allShort(r.Values, maxText) {
			return false
		}
	}
	return len(s.MatchLabels) <= maxItems && len(s.MatchExpressions) <= maxItems
}

// isOneOf reports whether a value is allowed. An empty value is allowed too: it is not encoded.
func isOneOf[T ~string](value T, allowed ...T) bool {
	return value == "" || slices.Contains(allowed, value)
}

// isName reports whether a value can be the name of a Secret or an issuer.
func isName(value string) bool { return isShort(value, maxName) && subdomain.MatchString(value) }

func isShort(value string, most int) bool { return utf8.RuneCountInString(value) <= most }

func allShort(values []string, most int) bool {
	return !slices.ContainsFunc(values, func(value string) bool { return !isShort(value, most) })
}
