package render

import (
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// Environment variables that the arguments of a container refer to that may start on an empty volume.
// They must not begin with ETCD_: etcd reads such variables itself.
const (
	envInitialCluster      = "INITIAL_CLUSTER"
	envInitialClusterState = "INITIAL_CLUSTER_STATE"
)

// PeerURL returns the URL by which a member's peers know it.
func PeerURL(c *v1beta1.EtcdCluster, name string, i cluster.Intent) string {
	return memberURL(c, name, i, i.PeerSecret, cluster.PeerPort)
}

// InitialCluster returns etcd's initial-cluster for members of the given names, in their order.
func InitialCluster(c *v1beta1.EtcdCluster, names []string, i cluster.Intent) string {
	entries := make([]string, len(names))
	for n, name := range names {
		entries[n] = name + "=" + PeerURL(c, name, i)
	}
	return strings.Join(entries, ",")
}

func memberURL(c *v1beta1.EtcdCluster, name string, i cluster.Intent, secret string, port int) string {
	return urlOf(secret, cluster.MemberHost(c.Namespace, c.Name, name, i.ClusterDomain), port)
}

func bindURL(in MemberInput, secret string, port int) string {
	address := "0.0.0.0"
	if in.IPv6 {
		address = "[::]"
	}
	return urlOf(secret, address, port)
}

// BindsIPv6 reports whether a member's StatefulSet listens on IPv6.
func BindsIPv6(set *appsv1.StatefulSet) bool {
	return slices.ContainsFunc(set.Spec.Template.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Args, func(arg string) bool {
			return strings.HasPrefix(arg, "--listen-peer-urls=") && strings.Contains(arg, "[::]")
		})
	})
}

// urlOf returns a URL of a host; it is encrypted where there is a Secret with certificates.
func urlOf(secret, host string, port int) string {
	scheme := "http://"
	if secret != "" {
		scheme = "https://"
	}
	return scheme + host + ":" + strconv.Itoa(port)
}

// etcdFlag is one option of etcd. The value may refer to an environment variable only if verbatim is set.
type etcdFlag struct {
	name, value string
	verbatim    bool
}

// args returns the arguments of etcd: the operator's in a fixed order, then the user's sorted by name.
func args(in MemberInput) []string {
	flags := slices.Concat(identityFlags(in), initialFlags(in), tlsFlags(in.Intent), integrityFlags(in.Intent),
		quotaFlags(in.Intent), userFlags(in.Intent))
	rendered := make([]string, len(flags))
	for n, f := range flags {
		rendered[n] = "--" + f.name + "=" + f.argument()
	}
	return rendered
}

// argument escapes the value for Kubernetes, which expands $(NAME) in arguments: "$$" stands for "$".
func (f etcdFlag) argument() string {
	if f.verbatim {
		return f.value
	}
	return strings.ReplaceAll(f.value, "$", "$$")
}

func identityFlags(in MemberInput) []etcdFlag {
	peer, server := in.Intent.PeerSecret, in.Intent.ServerSecret
	return []etcdFlag{
		{name: "name", value: in.Name},
		{name: "data-dir", value: dataDir},
		{name: "listen-peer-urls", value: bindURL(in, peer, cluster.PeerPort)},
		{name: "listen-client-urls", value: bindURL(in, server, cluster.ClientPort)},
		{name: "listen-metrics-urls", value: bindURL(in, "", cluster.MetricsPort)},
		{name: "initial-advertise-peer-urls", value: PeerURL(in.Cluster, in.Name, in.Intent)},
		{name: "advertise-client-urls", value: memberURL(in.Cluster, in.Name, in.Intent, server, cluster.ClientPort)},
	}
}

// initialFlags decides what etcd does on an empty volume.
func initialFlags(in MemberInput) []etcdFlag {
	if in.Start.state == "" {
		form := existing(in)
		return []etcdFlag{{name: "initial-cluster", value: form.initialCluster}, {name: "initial-cluster-state", value: form.state}}
	}
	flags := []etcdFlag{
		{name: "initial-cluster", value: "$(" + envInitialCluster + ")", verbatim: true},
		{name: "initial-cluster-state", value: "$(" + envInitialClusterState + ")", verbatim: true},
	}
	if in.Start.token != "" {
		flags = append(flags, etcdFlag{name: "initial-cluster-token", value: in.Start.token})
	}
	return flags
}

// startEnv reads what etcd does on an empty volume from the pod's annotations.
func startEnv(s Start) []corev1.EnvVar {
	if s.state == "" {
		return nil
	}
	return []corev1.EnvVar{
		fromAnnotation(envInitialCluster, cluster.AnnotationInitialCluster),
		fromAnnotation(envInitialClusterState, cluster.AnnotationInitialClusterState),
	}
}

func fromAnnotation(name, annotation string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.annotations['" + annotation + "']"},
	}}
}

func tlsFlags(i cluster.Intent) []etcdFlag {
	var flags []etcdFlag
	if i.PeerSecret != "" {
		keys := keysOf(i.PeerCertificates, pki.PeerKeys)
		flags = append(flags,
			etcdFlag{name: "peer-cert-file", value: peerTLSMount + "/" + keys.Certificate},
			etcdFlag{name: "peer-key-file", value: peerTLSMount + "/" + keys.Key},
			etcdFlag{name: "peer-trusted-ca-file", value: peerTLSMount + "/" + keys.Authorities},
			etcdFlag{name: "peer-client-cert-auth", value: "true"},
		)
	}
	if i.ServerSecret != "" {
		keys := keysOf(i.ServerCertificates, pki.ServerKeys)
		flags = append(flags,
			etcdFlag{name: "cert-file", value: serverTLSMount + "/" + keys.Certificate},
			etcdFlag{name: "key-file", value: serverTLSMount + "/" + keys.Key},
			etcdFlag{name: "trusted-ca-file", value: serverTLSMount + "/" + keys.Authorities},
			etcdFlag{name: "client-cert-auth", value: "true"},
		)
	}
	return flags
}

// quotaFlags has the quota of the typed field, or its default.
func quotaFlags(i cluster.Intent) []etcdFlag {
	if i.QuotaBackendBytes == 0 {
		return nil
	}
	return []etcdFlag{{name: "quota-backend-bytes", value: strconv.FormatInt(i.QuotaBackendBytes, 10)}}
}

// keysOf returns the keys of a Secret.
func keysOf(source cluster.Source, original pki.Keys) pki.Keys {
	if source == cluster.SourceEtcdOperator {
		return original
	}
	return pki.TLSKeys
}

// integrityFlags turn on etcd's comparison of data between members: at the start, and after compactions.
// The check at the start takes time. A member with data asks each peer in turn before it serves, for up to 7 s each.
// So a start takes up to 7 s a peer longer when peers do not answer.
func integrityFlags(i cluster.Intent) []etcdFlag {
	if minorOf(i.Version) <= lastWithout36Names {
		return []etcdFlag{
			{name: "experimental-initial-corrupt-check", value: "true"},
			{name: "experimental-compact-hash-check-enabled", value: "true"},
		}
	}
	return []etcdFlag{{name: "feature-gates", value: "InitialCorruptCheck=true,CompactHashCheck=true"}}
}
