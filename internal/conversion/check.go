package conversion

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

var (
	smallestQuota = resource.MustParse("16Mi")
	largestQuota  = resource.MustParse("16Gi")
	periodic      = regexp.MustCompile(`^[1-9][0-9]*[smh]$`)
	revision      = regexp.MustCompile(`^[1-9][0-9]*$`)
	subdomain     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

// Limits of v1beta1's schema.
const (
	maxName        = 253
	maxKind        = 63
	maxRetention   = 20
	maxConstraints = 16
	maxPullSecrets = 16
	logReserve     = 128 << 20
)

// checker collects what v1beta1's schema would refuse in the fields that v1alpha1 cannot say. The API server checks an object by the schema
// of the version it is written in, so what a writer of v1alpha1 puts into an annotation has passed none. What v1alpha1 can say has passed
// its schema, which promises the same. Whether options are on the allow list is left to the operator, as it is for options of v1alpha1.
type checker struct{ errs field.ErrorList }

func check(spec *v1beta1.EtcdClusterSpec) field.ErrorList {
	var c checker
	root := field.NewPath("spec")
	if s := spec.Storage; s != nil && s.RetentionPolicy != nil {
		c.oneOf(root.Child("storage", "retentionPolicy", "whenDeleted"), string(s.RetentionPolicy.WhenDeleted),
			string(v1beta1.RetentionRetain), string(v1beta1.RetentionDelete))
	}
	if spec.TLS != nil {
		c.tls(root.Child("tls"), spec.TLS)
	}
	if spec.Config != nil {
		c.config(root.Child("config"), spec.Config, volumeOf(spec))
	}
	if spec.PodTemplate != nil {
		c.podTemplate(root.Child("podTemplate"), spec.PodTemplate)
	}
	if spec.Bootstrap != nil {
		c.oneOf(root.Child("bootstrap", "existingVolumes"), string(spec.Bootstrap.ExistingVolumes),
			string(v1beta1.ExistingVolumesTakeBack), string(v1beta1.ExistingVolumesIgnore))
	}
	return c.errs
}

func (c *checker) tls(path *field.Path, tls *v1beta1.TLS) {
	if client := tls.Client; client != nil {
		path := path.Child("client")
		c.source(path, client.Mode, client.CertManager, client.SecretRef != nil)
		if ref := client.SecretRef; ref != nil {
			c.secret(path.Child("secretRef"), ref.Name, ref.Format)
			c.secretName(path.Child("secretRef", "operatorName"), ref.OperatorName, ref.Format)
		}
	}
	if peer := tls.Peer; peer != nil {
		path := path.Child("peer")
		c.source(path, peer.Mode, peer.CertManager, peer.SecretRef != nil)
		if ref := peer.SecretRef; ref != nil {
			c.secret(path.Child("secretRef"), ref.Name, ref.Format)
		}
	}
}

// source checks where certificates come from.
func (c *checker) source(path *field.Path, mode v1beta1.TLSMode, manager *v1beta1.CertManagerTLS, secret bool) {
	c.oneOf(path.Child("mode"), string(mode), string(v1beta1.TLSManaged), string(v1beta1.TLSDisabled))
	if mode != "" && manager != nil || mode != "" && secret || manager != nil && secret {
		c.invalid(path, "several", "write one of mode, certManager and secretRef")
	}
	if manager != nil {
		path := path.Child("certManager", "issuerRef")
		c.name(path.Child("name"), manager.IssuerRef.Name)
		c.length(path.Child("kind"), manager.IssuerRef.Kind, 0, maxKind)
		c.length(path.Child("group"), manager.IssuerRef.Group, 0, maxName)
	}
}

func (c *checker) secret(path *field.Path, name string, format v1beta1.SecretFormat) {
	c.secretName(path.Child("name"), name, format)
	c.oneOf(path.Child("format"), string(format), string(v1beta1.SecretFormatTLS), string(v1beta1.SecretFormatEtcdOperator))
}

func (c *checker) config(path *field.Path, config *v1beta1.Config, volume int64) {
	if quota := config.QuotaBackendBytes; quota != nil {
		if quota.Cmp(smallestQuota) < 0 || quota.Cmp(largestQuota) > 0 {
			c.invalid(path.Child("quotaBackendBytes"), quota.String(), "it must be from 16Mi to 16Gi")
		}
		if quota.Value() > min(volume/5*4+volume%5*4/5, volume-logReserve) {
			c.invalid(path.Child("quotaBackendBytes"), quota.String(), "it must leave a fifth of the volume, and at least 128Mi, to the log")
		}
		c.alone(path.Child("quotaBackendBytes"), config.ExtraArgs, quotaOption)
	}
	if compaction := config.AutoCompaction; compaction != nil {
		path := path.Child("autoCompaction")
		form := map[v1beta1.AutoCompactionMode]*regexp.Regexp{
			v1beta1.AutoCompactionPeriodic: periodic, v1beta1.AutoCompactionRevision: revision,
		}[compaction.Mode]
		if form == nil || !form.MatchString(compaction.Retention) {
			c.invalid(path, fmt.Sprintf("%s of %s", compaction.Mode, compaction.Retention), "it must be Periodic with a duration or Revision with a number")
		}
		c.length(path.Child("retention"), compaction.Retention, 1, maxRetention)
		c.alone(path, config.ExtraArgs, modeOption)
		c.alone(path, config.ExtraArgs, retentionOption)
	}
}

// volumeOf returns the size in bytes that a spec asks of volumes.
func volumeOf(spec *v1beta1.EtcdClusterSpec) int64 {
	size := hubVolume
	if spec.Storage != nil && spec.Storage.VolumeClaimTemplate != nil {
		if asked, ok := spec.Storage.VolumeClaimTemplate.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
			size = asked
		}
	}
	return size.Value()
}

// alone checks that an option is not set beside the typed field that stands for it.
func (c *checker) alone(path *field.Path, args map[string]string, option string) {
	if value, set := args[option]; set {
		c.invalid(path, value, "write either this or extraArgs."+option)
	}
}

func (c *checker) podTemplate(path *field.Path, template *v1beta1.PodTemplate) {
	c.oneOf(path.Child("memberAntiAffinity"), string(template.MemberAntiAffinity),
		string(v1beta1.MemberAntiAffinityPreferred), string(v1beta1.MemberAntiAffinityRequired))
	path = path.Child("spec")
	c.length(path.Child("priorityClassName"), template.Spec.PriorityClassName, 0, maxName)
	c.length(path.Child("schedulerName"), template.Spec.SchedulerName, 0, maxName)
	c.length(path.Child("runtimeClassName"), template.Spec.RuntimeClassName, 0, maxName)
	c.count(path.Child("topologySpreadConstraints"), len(template.Spec.TopologySpreadConstraints), maxConstraints)
	c.count(path.Child("imagePullSecrets"), len(template.Spec.ImagePullSecrets), maxPullSecrets)
	for n, ref := range template.Spec.ImagePullSecrets {
		c.length(path.Child("imagePullSecrets").Index(n), ref.Name, 1, maxName)
		if strings.Contains(ref.Name, "/") {
			c.invalid(path.Child("imagePullSecrets").Index(n), ref.Name, "it must be the name of a Secret")
		}
	}
}

// oneOf takes an empty value: it is not written.
func (c *checker) oneOf(path *field.Path, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		c.errs = append(c.errs, field.NotSupported(path, value, allowed))
	}
}

// secretName checks a Secret's name. One in the original operator's format may be v1alpha1's, whose schema takes any.
func (c *checker) secretName(path *field.Path, value string, format v1beta1.SecretFormat) {
	if format == v1beta1.SecretFormatEtcdOperator {
		c.length(path, value, 1, maxName)
		return
	}
	c.name(path, value)
}

// name checks the name of a Secret or an issuer.
func (c *checker) name(path *field.Path, value string) {
	c.length(path, value, 1, maxName)
	if !subdomain.MatchString(value) {
		c.invalid(path, value, "it must be a name of lower case letters, digits, hyphens and dots")
	}
}

func (c *checker) length(path *field.Path, value string, least, most int) {
	if n := utf8.RuneCountInString(value); n < least {
		c.errs = append(c.errs, field.Required(path, ""))
	} else if n > most {
		c.errs = append(c.errs, field.TooLong(path, "", most))
	}
}

func (c *checker) count(path *field.Path, n, most int) {
	if n > most {
		c.errs = append(c.errs, field.TooMany(path, n, most))
	}
}

func (c *checker) invalid(path *field.Path, value, why string) {
	c.errs = append(c.errs, field.Invalid(path, value, why))
}
