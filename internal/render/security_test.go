package render

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

func TestFindsWhatTheRestrictedStandardForbids(t *testing.T) {
	const appArmor = "container.apparmor.security.beta.kubernetes.io/etcd"
	security := func(c corev1.PodSecurityContext) cluster.Intent { return cluster.Intent{SecurityContext: &c} }
	for name, c := range map[string]struct {
		intent cluster.Intent
		says   []string
	}{
		"nothing":           {cluster.Intent{}, nil},
		"an allowed sysctl": {security(corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.tcp_syncookies", Value: "1"}}}), nil},
		"other sysctls": {
			security(corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax"}, {Name: "net.ipv4.ip_forward"}}}),
			[]string{"the sysctl kernel.msgmax", "the sysctl net.ipv4.ip_forward"},
		},
		"an allowed SELinux type": {
			security(corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "container_t", Level: "s0:c1,c2"}}), nil,
		},
		"another SELinux type": {security(corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}}), []string{"spc_t"}},
		"an SELinux user":      {security(corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{User: "system_u"}}), []string{"a user or a role"}},
		"an SELinux role":      {security(corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Role: "system_r"}}), []string{"a user or a role"}},
		"an AppArmor profile":  {cluster.Intent{Annotations: map[string]string{appArmor: "runtime/default"}}, nil},
		"no AppArmor profile":  {cluster.Intent{Annotations: map[string]string{appArmor: "unconfined"}}, []string{appArmor + " is unconfined"}},
	} {
		t.Run(name, func(t *testing.T) {
			have := UnrestrictedSecurity(c.intent)
			if len(have) != len(c.says) {
				t.Fatalf("problems = %q, want %d", have, len(c.says))
			}
			for _, text := range c.says {
				if !slices.ContainsFunc(have, func(problem string) bool { return strings.Contains(problem, text) }) {
					t.Errorf("problems = %q, want %q in one", have, text)
				}
			}
		})
	}
}
