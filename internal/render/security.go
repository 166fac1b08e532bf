package render

import corev1 "k8s.io/api/core/v1"

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
