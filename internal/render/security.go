package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// nonRoot is the user and group that etcd runs as.
const nonRoot = 65532

// podSecurity returns the security context of the user. Fields that it does not set get the values that the restricted
// Pod Security Standard requires and that etcd needs to run without root.
func podSecurity(asked *corev1.PodSecurityContext) *corev1.PodSecurityContext {
	security := asked.DeepCopy()
	if security == nil {
		security = &corev1.PodSecurityContext{}
	}
	setDefault(&security.RunAsNonRoot, true)
	setDefault(&security.RunAsUser, int64(nonRoot))
	setDefault(&security.RunAsGroup, int64(nonRoot))
	setDefault(&security.FSGroup, int64(nonRoot))
	setDefault(&security.FSGroupChangePolicy, corev1.FSGroupChangeOnRootMismatch)
	setDefault(&security.SeccompProfile, corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault})
	return security
}

func containerSecurity() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

// setDefault fills a field that is not set.
func setDefault[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// The lists of the restricted Pod Security Standard, as of Kubernetes 1.32.
// They grow with Kubernetes, so they are not in the schema.
// Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
var (
	restrictedSysctls = []string{
		"kernel.shm_rmid_forced",
		"net.ipv4.ip_local_port_range",
		"net.ipv4.ip_local_reserved_ports",
		"net.ipv4.ip_unprivileged_port_start",
		"net.ipv4.ping_group_range",
		"net.ipv4.tcp_fin_timeout",
		"net.ipv4.tcp_keepalive_intvl",
		"net.ipv4.tcp_keepalive_probes",
		"net.ipv4.tcp_keepalive_time",
		"net.ipv4.tcp_rmem",
		"net.ipv4.tcp_syncookies",
		"net.ipv4.tcp_wmem",
	}
	restrictedSELinuxTypes = []string{"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
)

// appArmorAnnotation is the prefix of annotations that set the AppArmor profile of a container.
// The API server copies them into the field.
const appArmorAnnotation = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix

// UnrestrictedSecurity says what of the intent the restricted Pod Security Standard forbids and the schema accepts:
// the schema has only the rules that do not change with Kubernetes.
func UnrestrictedSecurity(i cluster.Intent) (problems []string) {
	for _, key := range slices.Sorted(maps.Keys(i.Annotations)) {
		if strings.HasPrefix(key, appArmorAnnotation) && i.Annotations[key] == corev1.DeprecatedAppArmorBetaProfileNameUnconfined {
			problems = append(problems, fmt.Sprintf("the annotation %s is %s", key, i.Annotations[key]))
		}
	}
	security := i.SecurityContext
	if security == nil {
		return problems
	}
	for _, s := range security.Sysctls {
		if !slices.Contains(restrictedSysctls, s.Name) {
			problems = append(problems, fmt.Sprintf("the sysctl %s is not among %s", s.Name, strings.Join(restrictedSysctls, ", ")))
		}
	}
	if selinux := security.SELinuxOptions; selinux != nil {
		if !slices.Contains(restrictedSELinuxTypes, selinux.Type) {
			problems = append(problems, fmt.Sprintf("seLinuxOptions.type %s is not among %s", selinux.Type, strings.Join(restrictedSELinuxTypes[1:], ", ")))
		}
		if selinux.User != "" || selinux.Role != "" {
			problems = append(problems, "seLinuxOptions sets a user or a role")
		}
	}
	return problems
}
