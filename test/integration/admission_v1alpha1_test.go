//go:build integration

package integration

import (
	"fmt"
	"strings"
)

// The beginnings of the messages of the schema's rules for v1alpha1; the API server must answer with the whole message.
const (
	longName         = "the name of the cluster may have at most"
	badName          = "the name of the cluster must start with a lower case letter"
	domainChange     = "pod.ClusterDomain cannot change"
	domainAdded      = "pod.ClusterDomain cannot be added"
	tlsEmpty         = "TLS must contain static"
	staticEmpty      = "TLS.static must contain member.serverSecret with operatorSecret"
	serverAlone      = "TLS.static.member.serverSecret requires TLS.static.operatorSecret"
	operatorAlone    = "TLS.static.operatorSecret requires TLS.static.member.serverSecret"
	memberEmpty      = "TLS.static.member must contain peerSecret"
	badPeerSecret    = "peerSecret must be the name of a Secret"
	badServerSecret  = "serverSecret must be the name of a Secret"
	badOwnSecret     = "operatorSecret must be the name of a Secret"
	antiAffinityBoth = "write either antiAffinity"
	badDomain        = "ClusterDomain must be a DNS name"
	ourAnnotations   = "annotations must not have the prefix operator.etcd-warden.io/"
	notEtcd          = "name must be an environment variable of etcd"
	ourLabels        = "labels must not have the prefix operator.etcd-warden.io/"
	noStorage        = "resources.requests.storage is required"
	onlyStorage      = "requests of a volume may contain only the key storage"
	smallStorage     = "storage must be a quantity of at least 256Mi"
	badRepository    = "repository must be an image repository"
	badSize          = "size must be 1, 3, 5 or 7"
	badVersion       = "version must have the form x.y.z"
	badLimits        = "limits must be quantities"
	badRequests      = "requests must be quantities"
	asRoot           = "runAsUser must not be 0"
	rootAllowed      = "runAsNonRoot must not be false"
	seccompOff       = "seccompProfile.type must not be Unconfined"
	appArmorOff      = "appArmorProfile.type must not be Unconfined"
	hostProcess      = "windowsOptions.hostProcess must not be true"
	longKey          = "a key may have at most 317 characters"
)

// security lists security contexts of pods. The schemas of both versions accept and refuse the same.
var security = []creation{
	{does: "takes a security context", spec: `{runAsUser: 1000, runAsGroup: 0, runAsNonRoot: true, fsGroup: 2000, supplementalGroups: [3000], seccompProfile: {type: RuntimeDefault}, appArmorProfile: {type: RuntimeDefault}}`},
	{does: "takes profiles of the node", spec: `{seccompProfile: {type: Localhost, localhostProfile: profiles/etcd.json}, appArmorProfile: {type: Localhost, localhostProfile: etcd}}`},
	{does: "takes options of SELinux and sysctls, which the operator checks", spec: `{seLinuxOptions: {type: spc_t}, sysctls: [{name: kernel.msgmax, value: "1"}]}`},
	{does: "refuses root", spec: `{runAsUser: 0}`, refused: []string{asRoot}},
	{does: "refuses that root is allowed", spec: `{runAsNonRoot: false}`, refused: []string{rootAllowed}},
	{does: "refuses pods without seccomp", spec: `{seccompProfile: {type: Unconfined}}`, refused: []string{seccompOff}},
	{does: "refuses pods without AppArmor", spec: `{appArmorProfile: {type: Unconfined}}`, refused: []string{appArmorOff}},
	{does: "refuses processes of the host", spec: `{windowsOptions: {hostProcess: true}}`, refused: []string{hostProcess}},
}

// withSecurity adds specs with the security contexts. The format has a place for the context.
func withSecurity(creations []creation, format string) []creation {
	for _, c := range security {
		c.spec = fmt.Sprintf(format, c.spec)
		creations = append(creations, c)
	}
	return creations
}

// creations are specs of v1alpha1.
var creations = withSecurity([]creation{
	{does: "takes the shortest spec", spec: `{size: 3}`},
	{does: "takes size 1", spec: `{size: 1}`},
	{does: "takes size 5", spec: `{size: 5}`},
	{does: "takes size 7", spec: `{size: 7}`},
	{does: "refuses size 0", spec: `{size: 0}`, refused: []string{badSize}},
	{does: "refuses an even size", spec: `{size: 2}`, refused: []string{badSize}},
	{does: "refuses size 9", spec: `{size: 9}`, refused: []string{badSize}},
	{does: "refuses a negative size", spec: `{size: -1}`, refused: []string{badSize}},

	{does: "takes any version of the form x.y.z, which the operator checks", spec: `{size: 3, version: 3.4.37}`},
	{does: "takes a version of later releases", spec: `{size: 3, version: 4.10.100}`},
	{does: "refuses a version with a v", spec: `{size: 3, version: v3.6.16}`, refused: []string{badVersion}},
	{does: "refuses a version of two parts", spec: `{size: 3, version: "3.6"}`, refused: []string{badVersion}},
	{does: "refuses a version with a suffix", spec: `{size: 3, version: 3.6.16-rc.0}`, refused: []string{badVersion}},
	{does: "refuses a version with a leading zero", spec: `{size: 3, version: 3.6.016}`, refused: []string{badVersion}},
	{does: "refuses an empty version", spec: `{size: 3, version: ""}`, refused: []string{badVersion}},

	{does: "takes a name of 46 characters", name: strings.Repeat("n", 46), spec: `{size: 3}`},
	{does: "refuses a name of 47 characters", name: strings.Repeat("n", 47), spec: `{size: 3}`, refused: []string{longName}},
	{does: "refuses a name that starts with a digit", name: "3prod", spec: `{size: 3}`, refused: []string{badName}},
	{does: "refuses a name with a dot", name: "prod.east", spec: `{size: 3}`, refused: []string{badName}},

	{does: "takes a repository with a port", spec: `{size: 3, repository: "registry.example.com:5000/mirror/etcd"}`},
	{does: "takes a repository without a registry", spec: `{size: 3, repository: etcd}`},
	{does: "refuses a repository with a tag", spec: `{size: 3, repository: "gcr.io/etcd-development/etcd:v3.6.16"}`, refused: []string{badRepository}},
	{does: "refuses a number as a tag", spec: `{size: 3, repository: "etcd:3"}`, refused: []string{badRepository}},
	{does: "refuses a host with an empty label", spec: `{size: 3, repository: "gcr..io/etcd"}`, refused: []string{badRepository}},
	{does: "refuses a repository with a digest", spec: `{size: 3, repository: "gcr.io/etcd@sha256:0123456789012345678901234567890123456789012345678901234567890123"}`, refused: []string{badRepository}},
	{does: "refuses a repository with a scheme", spec: `{size: 3, repository: "https://gcr.io/etcd"}`, refused: []string{badRepository}},
	{does: "refuses a repository with a space", spec: `{size: 3, repository: "gcr.io/ etcd"}`, refused: []string{badRepository}},

	{does: "takes labels and annotations", spec: `{size: 3, pod: {labels: {team: a}, annotations: {example.com/a: b}}}`},
	{does: "refuses labels of the operator", spec: `{size: 3, pod: {labels: {operator.etcd-warden.io/cluster: other}}}`, refused: []string{ourLabels}},
	{does: "refuses the recommended labels", spec: `{size: 3, pod: {labels: {app.kubernetes.io/name: other}}}`, refused: []string{ourLabels}},
	{does: "refuses annotations of the operator", spec: `{size: 3, pod: {annotations: {operator.etcd-warden.io/initial-cluster-state: new}}}`, refused: []string{ourAnnotations}},
	{does: "takes antiAffinity", spec: `{size: 3, pod: {antiAffinity: true}}`},
	{does: "takes podAntiAffinity", spec: `{size: 3, pod: {affinity: {podAntiAffinity: {}}}}`},
	{does: "takes antiAffinity beside a nodeAffinity", spec: `{size: 3, pod: {antiAffinity: true, affinity: {nodeAffinity: {}}}}`},
	{does: "refuses antiAffinity beside podAntiAffinity", spec: `{size: 3, pod: {antiAffinity: true, affinity: {podAntiAffinity: {}}}}`, refused: []string{antiAffinityBoth}},
	{does: "takes an option of etcd", spec: `{size: 3, pod: {etcdEnv: [{name: ETCD_SNAPSHOT_COUNT, value: "1000"}]}}`},
	{does: "refuses a variable that is not etcd's", spec: `{size: 3, pod: {etcdEnv: [{name: PATH, value: /tmp}]}}`, refused: []string{notEtcd}},
	{does: "refuses a variable with two underscores", spec: `{size: 3, pod: {etcdEnv: [{name: ETCD__CORS, value: x}]}}`, refused: []string{notEtcd}},
	{does: "refuses a variable in lower case", spec: `{size: 3, pod: {etcdEnv: [{name: etcd_name, value: x}]}}`, refused: []string{notEtcd}},
	{does: "takes a domain", spec: `{size: 3, pod: {ClusterDomain: cluster.local}}`},
	{does: "refuses a domain with a dot at its end", spec: `{size: 3, pod: {ClusterDomain: cluster.local.}}`, refused: []string{badDomain}},
	{does: "refuses a domain in capitals", spec: `{size: 3, pod: {ClusterDomain: Cluster.Local}}`, refused: []string{badDomain}},
	{does: "takes and ignores the fields of the original operator", spec: `{size: 3, pod: {DNSTimeoutInSecond: 5, busyboxImage: busybox}}`},

	{does: "takes a volume", spec: `{size: 3, pod: {persistentVolumeClaimSpec: {storageClassName: fast, accessModes: [ReadWriteOncePod], resources: {requests: {storage: 8Gi}}}}}`},
	{does: "takes the smallest volume", spec: `{size: 3, pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 256Mi}}}}}`},
	{does: "takes a volume's size as a number", spec: `{size: 3, pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 1073741824}}}}}`},
	{does: "refuses a volume below the smallest", spec: `{size: 3, pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 255Mi}}}}}`, refused: []string{smallStorage}},
	{does: "refuses a volume without a size", spec: `{size: 3, pod: {persistentVolumeClaimSpec: {resources: {}}}}`, refused: []string{noStorage}},
	{does: "refuses other requests of a volume", spec: `{size: 3, pod: {persistentVolumeClaimSpec: {resources: {requests: {memory: 8Gi}}}}}`, refused: []string{onlyStorage, noStorage}},

	{does: "takes all Secrets", spec: `{size: 3, TLS: {static: {member: {peerSecret: p, serverSecret: s}, operatorSecret: o}}}`},
	{does: "takes TLS between peers alone", spec: `{size: 3, TLS: {static: {member: {peerSecret: p}}}}`},
	{does: "takes TLS for clients alone", spec: `{size: 3, TLS: {static: {member: {serverSecret: s}, operatorSecret: o}}}`},
	{does: "refuses TLS without Secrets", spec: `{size: 3, TLS: {}}`, refused: []string{tlsEmpty}},
	{does: "refuses static TLS without Secrets", spec: `{size: 3, TLS: {static: {}}}`, refused: []string{staticEmpty}},
	{does: "refuses members without Secrets", spec: `{size: 3, TLS: {static: {member: {}}}}`, refused: []string{memberEmpty}},
	{does: "refuses a server's Secret without the operator's", spec: `{size: 3, TLS: {static: {member: {serverSecret: s}}}}`, refused: []string{serverAlone}},
	{does: "refuses an operator's Secret without the server's", spec: `{size: 3, TLS: {static: {member: {peerSecret: p}, operatorSecret: o}}}`, refused: []string{operatorAlone}},
	{does: "refuses a Secret of another folder for peers", spec: `{size: 3, TLS: {static: {member: {peerSecret: ../a/b}}}}`, refused: []string{badPeerSecret}},
	{does: "refuses Secrets of another folder for clients", spec: `{size: 3, TLS: {static: {member: {serverSecret: S}, operatorSecret: ..}}}`, refused: []string{badServerSecret, badOwnSecret}},

	{does: "takes quantities in all their forms", spec: `{size: 3, pod: {resources: {limits: {cpu: 2, memory: 1.5Gi}, requests: {cpu: "0.5", memory: 128974848}}}}`},
	{does: "refuses negative limits", spec: `{size: 3, pod: {resources: {limits: {cpu: -1}}}}`, refused: []string{badLimits}},
	{does: "refuses requests that are no quantities", spec: `{size: 3, pod: {resources: {requests: {memory: "1e1.5"}}}}`, refused: []string{badRequests}},
	{does: "refuses a label of a node with a long key", spec: `{size: 3, pod: {nodeSelector: {` + strings.Repeat("k", 318) + `: a}}}`, refused: []string{longKey}},
}, `{size: 3, pod: {securityContext: %s}}`)

// updates are specs of v1alpha1.
var updates = []update{
	{does: "takes another size", from: `{size: 3}`, to: `{size: 5}`},
	{does: "refuses an even size", from: `{size: 3}`, to: `{size: 4}`, refused: []string{badSize}},
	{does: "takes another version", from: `{size: 3, version: 3.5.32}`, to: `{size: 3, version: 3.6.16}`},
	{does: "takes a version that the operator refuses", from: `{size: 3, version: 3.6.16}`, to: `{size: 3, version: 3.6.3}`},
	{does: "takes spec.paused", from: `{size: 3}`, to: `{size: 3, paused: true}`},

	{does: "takes the same domain", from: `{size: 3, pod: {ClusterDomain: a.b}}`, to: `{size: 5, pod: {ClusterDomain: a.b}}`},
	{does: "refuses another domain", from: `{size: 3, pod: {ClusterDomain: a.b}}`, to: `{size: 3, pod: {ClusterDomain: a.c}}`, refused: []string{domainChange}},
	{does: "refuses to drop the domain", from: `{size: 3, pod: {ClusterDomain: a.b}}`, to: `{size: 3, pod: {}}`, refused: []string{domainChange}},
	{does: "refuses to drop the domain with the pod policy", from: `{size: 3, pod: {ClusterDomain: a.b}}`, to: `{size: 3}`, refused: []string{domainChange}},
	{does: "refuses a domain for a cluster without", from: `{size: 3}`, to: `{size: 3, pod: {ClusterDomain: a.b}}`, refused: []string{domainAdded}},
	{does: "refuses a domain for a pod policy without", from: `{size: 3, pod: {}}`, to: `{size: 3, pod: {ClusterDomain: a.b}}`, refused: []string{domainAdded}},

	{does: "takes a growing volume", from: volume("8Gi"), to: volume("9Gi")},
	{does: "takes the same size in other words", from: volume("8Gi"), to: volume("8192Mi")},
	{does: "leaves a shrinking volume to the operator", from: volume("8Gi"), to: volume("7Gi")},
	{does: "takes a volume of the default size where none was set", from: `{size: 3}`, to: volume("2Gi")},
	{does: "leaves a volume below the default size to the operator where none was set", from: `{size: 3}`, to: volume("1Gi")},
	{does: "leaves a dropped volume above the default size to the operator", from: volume("8Gi"), to: `{size: 3}`},
	{does: "takes a dropped volume below the default size", from: volume("1Gi"), to: `{size: 3}`},
	{does: "leaves another class to the operator", from: volume("8Gi, class a"), to: volume("8Gi, class b")},
	{does: "leaves a class where none was set to the operator", from: volume("8Gi"), to: volume("8Gi, class b")},
	{does: "leaves to drop the class to the operator", from: volume("8Gi, class a"), to: volume("8Gi")},
	{does: "takes the default access mode in words", from: volume("8Gi"), to: volume("8Gi, mode ReadWriteOnce")},
	{does: "leaves another access mode to the operator", from: volume("8Gi"), to: volume("8Gi, mode ReadWriteOncePod")},
	{does: "leaves to drop an access mode to the operator", from: volume("8Gi, mode ReadWriteOncePod"), to: `{size: 3, pod: {persistentVolumeClaimSpec: {resources: {requests: {storage: 8Gi}}}}}`},

	{does: "takes TLS", from: `{size: 3}`, to: `{size: 3, TLS: {static: {member: {peerSecret: p}}}}`},
	{does: "refuses half of TLS", from: `{size: 3}`, to: `{size: 3, TLS: {static: {member: {serverSecret: s}}}}`, refused: []string{serverAlone}},
}

// volume is a spec with a volume of a size, and perhaps a class or a mode.
func volume(text string) string {
	return "{size: 3, pod: {persistentVolumeClaimSpec: {" + claimText(text) + "}}}"
}

// claimText is a volume claim of a size, and perhaps a class or a mode.
func claimText(text string) string {
	parts := strings.Split(text, ", ")
	claim := "resources: {requests: {storage: " + parts[0] + "}}"
	for _, part := range parts[1:] {
		if class, ok := strings.CutPrefix(part, "class "); ok {
			claim += ", storageClassName: " + class
		}
		if mode, ok := strings.CutPrefix(part, "mode "); ok {
			claim += ", accessModes: [" + mode + "]"
		}
	}
	return claim
}
