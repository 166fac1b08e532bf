//go:build integration

package integration

import (
	"fmt"
	"strings"
)

// The beginnings of the messages of the schema's rules for v1beta1, where they are not those of v1alpha1.
const (
	badReplicas     = "replicas must be 1, 3, 5 or 7"
	betaDomain      = "clusterDomain must be a DNS name"
	betaFixedDomain = "clusterDomain cannot change"
	affinityBoth    = "write either memberAntiAffinity"
	oneSource       = "write only one of mode, certManager and secretRef"
	badQuota        = "quotaBackendBytes must be a quantity from 16Mi to 16Gi"
	quotaTwice      = "write either quotaBackendBytes or extraArgs.quota-backend-bytes"
	compactionTwice = "write either autoCompaction or the options auto-compaction-mode"
	replacementTime = "after must be a whole number above 0 with one of the units s, m and h, from 10s to 24h"
	memorySize      = "sizeLimit must be a quantity of at least 256Mi"
	badOption       = "a key of extraArgs must be the name of an option"
	manyOptions     = "config may set at most 64 options"
	badPeriod       = "with the mode Periodic, retention must be a whole number above 0 with one of the units"
	badRevisions    = "with the mode Revision, retention must be a whole number"
	badSecret       = "name must be the name of a Secret"
	badOperator     = "operatorName must be the name of a Secret"
	badIssuer       = "name must be the name of an issuer"
	badTag          = "tag must be the tag of an image"
	badDigest       = "digest must be sha256: and 64 hexadecimal digits"
	badPullSecret   = "each entry of imagePullSecrets must contain the name"
)

// digest256 has the form of a digest of SHA-256.
var digest256 = "sha256:" + strings.Repeat("0a", 32)

// betaCreations are specs of v1beta1.
var betaCreations = withSecurity([]creation{
	{does: "takes the shortest spec", spec: `{replicas: 3}`},
	{does: "takes 1 replica", spec: `{replicas: 1}`},
	{does: "takes 7 replicas", spec: `{replicas: 7}`},
	{does: "refuses no replicas", spec: `{replicas: 0}`, refused: []string{badReplicas}},
	{does: "refuses an even number", spec: `{replicas: 4}`, refused: []string{badReplicas}},
	{does: "refuses 9 replicas", spec: `{replicas: 9}`, refused: []string{badReplicas}},

	{does: "takes any version of the form x.y.z, which the operator checks", spec: `{replicas: 3, version: 3.4.37}`},
	{does: "takes a version of later releases", spec: `{replicas: 3, version: 4.10.100}`},
	{does: "refuses a version with a v", spec: `{replicas: 3, version: v3.6.16}`, refused: []string{badVersion}},

	{does: "takes a name of 46 characters", name: strings.Repeat("n", 46), spec: `{replicas: 3}`},
	{does: "refuses a name of 47 characters", name: strings.Repeat("n", 47), spec: `{replicas: 3}`, refused: []string{longName}},
	{does: "refuses a name that starts with a digit", name: "3prod", spec: `{replicas: 3}`, refused: []string{badName}},

	{does: "takes another repository", spec: `{replicas: 3, image: {repository: "registry.example.com:5000/mirror/etcd"}}`},
	{does: "refuses a repository with a tag", spec: `{replicas: 3, image: {repository: "gcr.io/etcd:v3.6.16"}}`, refused: []string{badRepository}},

	{does: "takes a repository without a host", spec: `{replicas: 3, image: {repository: etcd}}`},
	{does: "takes a repository of a host without a domain", spec: `{replicas: 3, image: {repository: "localhost:65535/etcd"}}`},
	{does: "refuses a number as a tag", spec: `{replicas: 3, image: {repository: "etcd:3"}}`, refused: []string{badRepository}},
	{does: "refuses a port of six digits", spec: `{replicas: 3, image: {repository: "gcr.io:655350/etcd"}}`, refused: []string{badRepository}},
	{does: "refuses a host with an empty label", spec: `{replicas: 3, image: {repository: "gcr..io/etcd"}}`, refused: []string{badRepository}},
	{does: "refuses a repository in capitals", spec: `{replicas: 3, image: {repository: "gcr.io/Etcd"}}`, refused: []string{badRepository}},

	{does: "takes a tag", spec: `{replicas: 3, image: {tag: v3.6.16-1_a.B}}`},
	{does: "takes a tag of 128 characters", spec: `{replicas: 3, image: {tag: _` + strings.Repeat("t", 127) + `}}`},
	{does: "takes an empty tag and digest as none", spec: `{replicas: 3, image: {tag: "", digest: ""}}`},
	{does: "refuses a tag with a colon", spec: `{replicas: 3, image: {tag: "a:b"}}`, refused: []string{badTag}},
	{does: "refuses a tag with a digest", spec: `{replicas: 3, image: {tag: "v3.6.16@` + digest256 + `"}}`, refused: []string{badTag}},
	{does: "refuses a tag that begins with a dot", spec: `{replicas: 3, image: {tag: .a}}`, refused: []string{badTag}},
	{does: "refuses a tag that begins with a hyphen", spec: `{replicas: 3, image: {tag: "-a"}}`, refused: []string{badTag}},
	{does: "refuses a tag with a slash", spec: `{replicas: 3, image: {tag: a/b}}`, refused: []string{badTag}},
	{does: "refuses a tag with a line break", spec: `{replicas: 3, image: {tag: "a\n"}}`, refused: []string{badTag}},
	{does: "takes a digest of SHA-256", spec: `{replicas: 3, image: {digest: "` + digest256 + `", tag: mine, pullPolicy: Always}}`},
	{does: "takes a digest of SHA-512", spec: `{replicas: 3, image: {digest: "sha512:` + strings.Repeat("0a", 64) + `", pullPolicy: IfNotPresent}}`},
	{does: "refuses a digest without its algorithm", spec: `{replicas: 3, image: {digest: "` + strings.Repeat("0a", 32) + `"}}`, refused: []string{badDigest}},
	{does: "refuses a digest that is too short", spec: `{replicas: 3, image: {digest: "` + digest256[:70] + `"}}`, refused: []string{badDigest}},
	{does: "refuses a digest that is too long", spec: `{replicas: 3, image: {digest: "` + digest256 + `a"}}`, refused: []string{badDigest}},
	{does: "refuses a digest in capitals", spec: `{replicas: 3, image: {digest: "sha256:` + strings.Repeat("0A", 32) + `"}}`, refused: []string{badDigest}},
	{does: "refuses a digest of another algorithm", spec: `{replicas: 3, image: {digest: "md5:` + strings.Repeat("0a", 16) + `"}}`, refused: []string{badDigest}},
	{does: "refuses a digest of SHA-512 with the length of SHA-256", spec: `{replicas: 3, image: {digest: "sha512:` + strings.Repeat("0a", 32) + `"}}`, refused: []string{badDigest}},
	{does: "refuses a digest with an at sign", spec: `{replicas: 3, image: {digest: "@` + digest256 + `"}}`, refused: []string{badDigest}},

	{does: "takes an update strategy", spec: `{replicas: 3, updateStrategy: {operatorUpgrade: Roll, progressDeadlineSeconds: 60}}`},
	{does: "takes a replacement of lost members", spec: `{replicas: 3, recovery: {memberReplacement: {policy: Automatic, after: 10s}}}`},
	{does: "takes a consistency check of all data", spec: `{replicas: 3, maintenance: {consistencyCheck: Full}}`},
	{does: "takes the longest time until a member is lost", spec: `{replicas: 3, recovery: {memberReplacement: {policy: Manual, after: 24h}}}`},
	{does: "refuses a time of 9 s until a member is lost", spec: `{replicas: 3, recovery: {memberReplacement: {after: "9s"}}}`, refused: []string{replacementTime}},
	{does: "refuses a time of 25 h until a member is lost", spec: `{replicas: 3, recovery: {memberReplacement: {after: "25h"}}}`, refused: []string{replacementTime}},
	{does: "refuses a time of no unit until a member is lost", spec: `{replicas: 3, recovery: {memberReplacement: {after: "300"}}}`, refused: []string{replacementTime}},
	{does: "refuses a time of two units until a member is lost", spec: `{replicas: 3, recovery: {memberReplacement: {after: "1h30m"}}}`, refused: []string{replacementTime}},
	{does: "refuses a time of a fraction until a member is lost", spec: `{replicas: 3, recovery: {memberReplacement: {after: "1.5m"}}}`, refused: []string{replacementTime}},
	{does: "refuses a time of a sign until a member is lost", spec: `{replicas: 3, recovery: {memberReplacement: {after: "-5m"}}}`, refused: []string{replacementTime}},
	{does: "refuses a time of nothing until a member is lost", spec: `{replicas: 3, recovery: {memberReplacement: {after: "0s"}}}`, refused: []string{replacementTime}},
	{does: "takes data in memory", spec: `{replicas: 3, storage: {ephemeral: {medium: Memory, sizeLimit: 256Mi}}}`},
	{does: "refuses less memory than etcd's log needs", spec: `{replicas: 3, storage: {ephemeral: {medium: Memory, sizeLimit: 255Mi}}}`, refused: []string{memorySize}},
	{does: "takes the longest deadline", spec: `{replicas: 3, updateStrategy: {operatorUpgrade: Wait, progressDeadlineSeconds: 86400}}`},
	{does: "takes an empty update strategy", spec: `{replicas: 3, updateStrategy: {}}`},

	{does: "takes quantities in all their forms", spec: `{replicas: 3, resources: {limits: {cpu: 2, memory: 1.5Gi, ephemeral-storage: 1e9}, requests: {cpu: "0.5", memory: 128974848, ephemeral-storage: "0"}}}`},
	{does: "refuses limits that are no quantities", spec: `{replicas: 3, resources: {limits: {cpu: "1e1.5"}}}`, refused: []string{badLimits}},
	{does: "refuses negative limits", spec: `{replicas: 3, resources: {limits: {cpu: -1}}}`, refused: []string{badLimits}},
	{does: "refuses requests that are no quantities", spec: `{replicas: 3, resources: {requests: {memory: "1e1.5"}}}`, refused: []string{badRequests}},

	{does: "takes a whole pod template", spec: `{replicas: 3, podTemplate: {metadata: {labels: {team: a}, annotations: {example.com/a: b}}, memberAntiAffinity: Required, spec: {priorityClassName: high,
		nodeSelector: {disk: fast}, tolerations: [{operator: Exists}], topologySpreadConstraints: [{maxSkew: 1, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}], imagePullSecrets: [{name: pull}]}}}`},
	{does: "refuses a Secret of another folder that pulls images", spec: `{replicas: 3, podTemplate: {spec: {imagePullSecrets: [{name: a/b}]}}}`, refused: []string{badPullSecret}},
	{does: "refuses a Secret without a name that pulls images", spec: `{replicas: 3, podTemplate: {spec: {imagePullSecrets: [{}]}}}`, refused: []string{badPullSecret}},
	{does: "refuses labels of the operator", spec: `{replicas: 3, podTemplate: {metadata: {labels: {operator.etcd-warden.io/cluster: other}}}}`, refused: []string{ourLabels}},
	{does: "refuses annotations of the operator", spec: `{replicas: 3, podTemplate: {metadata: {annotations: {operator.etcd-warden.io/initial-cluster-state: new}}}}`, refused: []string{ourAnnotations}},
	{does: "takes a preference beside podAntiAffinity", spec: `{replicas: 3, podTemplate: {memberAntiAffinity: Preferred, spec: {affinity: {podAntiAffinity: {}}}}}`},
	{does: "refuses Required beside podAntiAffinity", spec: `{replicas: 3, podTemplate: {memberAntiAffinity: Required, spec: {affinity: {podAntiAffinity: {}}}}}`, refused: []string{affinityBoth}},

	{does: "takes a configuration", spec: `{replicas: 3, config: {quotaBackendBytes: 4Gi, autoCompaction: {mode: Periodic, retention: 1h}, extraArgs: {snapshot-count: "1000"}}}`},
	{does: "takes a quota in bytes", spec: `{replicas: 3, config: {quotaBackendBytes: 2147483648}}`},
	{does: "refuses a quota that is too small", spec: `{replicas: 3, config: {quotaBackendBytes: 1Mi}}`, refused: []string{badQuota}},
	{does: "refuses a quota that is too large", spec: quotaOn("100Gi", "17Gi"), refused: []string{badQuota}},
	{does: "takes the largest quota of the default volume", spec: `{replicas: 3, config: {quotaBackendBytes: 6871947673}}`},
	{does: "leaves a quota beyond that to the operator", spec: `{replicas: 3, config: {quotaBackendBytes: 6871947674}}`},
	{does: "takes the largest quota of the smallest volume", spec: quotaOn("256Mi", "128Mi")},
	{does: "leaves a quota without room for the log to the operator", spec: quotaOn("256Mi", "129Mi")},
	{does: "leaves a quota beyond the volume to the operator", spec: quotaOn("256Mi", "16Gi")},
	{does: "takes an option by its name in etcd 3.5", spec: `{replicas: 3, version: 3.5.32, config: {extraArgs: {experimental-corrupt-check-time: 1m}}}`},
	{does: "takes any name of an option, which the operator checks", spec: `{replicas: 3, config: {extraArgs: {data-dir: /tmp}}}`},
	{does: "refuses an option with leading dashes", spec: `{replicas: 3, config: {extraArgs: {--cors: a}}}`, refused: []string{badOption}},
	{does: "refuses an option of 101 characters", spec: `{replicas: 3, config: {extraArgs: {` + strings.Repeat("x", 101) + `: a}}}`, refused: []string{badOption}},
	{does: "refuses an option by its environment variable", spec: `{replicas: 3, config: {extraArgs: {ETCD_SNAPSHOT_COUNT: "1000"}}}`, refused: []string{badOption}},
	{does: "takes 64 options", spec: manyArgs(61, "quotaBackendBytes: 1Gi, autoCompaction: {mode: Revision, retention: '1'}")},
	{does: "refuses 65 options", spec: manyArgs(63, "autoCompaction: {mode: Revision, retention: '1'}"), refused: []string{manyOptions}},
	{does: "refuses two quotas", spec: `{replicas: 3, config: {quotaBackendBytes: 1Gi, extraArgs: {quota-backend-bytes: "1073741824"}}}`, refused: []string{quotaTwice}},
	{does: "refuses two compactions", spec: `{replicas: 3, config: {autoCompaction: {mode: Revision, retention: "1000"}, extraArgs: {auto-compaction-retention: "1000"}}}`, refused: []string{compactionTwice}},
	{does: "refuses a number as a period", spec: `{replicas: 3, config: {autoCompaction: {mode: Periodic, retention: "1000"}}}`, refused: []string{badPeriod}},
	{does: "refuses a period as a number", spec: `{replicas: 3, config: {autoCompaction: {mode: Revision, retention: 1h}}}`, refused: []string{badRevisions}},

	{does: "takes a domain", spec: `{replicas: 3, clusterDomain: cluster.local}`},
	{does: "refuses a domain with a dot at its end", spec: `{replicas: 3, clusterDomain: cluster.local.}`, refused: []string{betaDomain}},

	{does: "takes volumes that are deleted with their members", spec: `{replicas: 3, storage: {retentionPolicy: {whenScaled: Delete}}}`},
	{does: "takes volumes that are kept explicitly", spec: `{replicas: 3, storage: {retentionPolicy: {whenDeleted: Retain, whenScaled: Retain}}}`},
	{does: "takes a volume that is deleted with its cluster", spec: `{replicas: 3, storage: {retentionPolicy: {whenDeleted: Delete}}}`},
	{does: "refuses a volume below the smallest", spec: betaVolume("255Mi"), refused: []string{smallStorage}},
	{does: "refuses a volume without a size", spec: `{replicas: 3, storage: {volumeClaimTemplate: {spec: {resources: {}}}}}`, refused: []string{noStorage}},
	{does: "refuses other requests of a volume", spec: `{replicas: 3, storage: {volumeClaimTemplate: {spec: {resources: {requests: {memory: 8Gi}}}}}}`, refused: []string{onlyStorage, noStorage}},

	{does: "takes TLS of the operator explicitly", spec: `{replicas: 3, tls: {client: {mode: Managed}, peer: {mode: Managed}}}`},
	{does: "takes no TLS explicitly", spec: `{replicas: 3, tls: {client: {mode: Disabled}, peer: {mode: Disabled}}}`},
	{does: "takes TLS of cert-manager", spec: `{replicas: 3, tls: {client: {certManager: {issuerRef: {name: ca}}}, peer: {certManager: {issuerRef: {name: ca, kind: ClusterIssuer}}}}}`},
	{does: "takes TLS of Secrets", spec: `{replicas: 3, tls: {client: {secretRef: {name: s, operatorName: o}}, peer: {secretRef: {name: p}}}}`},
	{does: "takes Secrets with dots in their names", spec: `{replicas: 3, tls: {peer: {secretRef: {name: prod.peer-1}}}}`},
	{does: "refuses a Secret of another folder for peers", spec: `{replicas: 3, tls: {peer: {secretRef: {name: ../a/b}}}}`, refused: []string{badSecret}},
	{does: "refuses Secrets of another folder for clients", spec: `{replicas: 3, tls: {client: {secretRef: {name: S, operatorName: ..}}}}`, refused: []string{badSecret, badOperator}},
	{does: "refuses an issuer of another folder", spec: `{replicas: 3, tls: {peer: {certManager: {issuerRef: {name: a/b}}}}}`, refused: []string{badIssuer}},
	{does: "refuses two sources for clients", spec: `{replicas: 3, tls: {client: {mode: Disabled, secretRef: {name: s, operatorName: o}}}}`, refused: []string{oneSource}},
	{does: "refuses two sources for peers", spec: `{replicas: 3, tls: {peer: {secretRef: {name: p}, certManager: {issuerRef: {name: ca}}}}}`, refused: []string{oneSource}},
	{does: "refuses a label of a node with a long key", spec: `{replicas: 3, podTemplate: {spec: {nodeSelector: {` + strings.Repeat("k", 318) + `: a}}}}`, refused: []string{longKey}},
}, `{replicas: 3, podTemplate: {spec: {securityContext: %s}}}`)

// betaUpdates are specs of v1beta1.
var betaUpdates = []update{
	{does: "takes other replicas", from: `{replicas: 3}`, to: `{replicas: 5}`},
	{does: "refuses an even number", from: `{replicas: 3}`, to: `{replicas: 4}`, refused: []string{badReplicas}},
	{does: "takes the same domain", from: `{replicas: 3, clusterDomain: a.b}`, to: `{replicas: 5, clusterDomain: a.b}`},
	{does: "refuses another domain", from: `{replicas: 3, clusterDomain: a.b}`, to: `{replicas: 3, clusterDomain: a.c}`, refused: []string{betaFixedDomain}},
	{does: "refuses to drop the domain", from: `{replicas: 3, clusterDomain: a.b}`, to: `{replicas: 3}`, refused: []string{betaFixedDomain}},
	{does: "refuses a domain for a cluster without", from: `{replicas: 3}`, to: `{replicas: 3, clusterDomain: a.b}`, refused: []string{betaFixedDomain}},

	{does: "takes the same memory", from: `{replicas: 3, storage: {ephemeral: {medium: Memory, sizeLimit: 1Gi}}}`, to: `{replicas: 5, storage: {ephemeral: {medium: Memory, sizeLimit: 1Gi}}}`},
	{does: "leaves more memory to the operator", from: `{replicas: 3, storage: {ephemeral: {medium: Memory, sizeLimit: 1Gi}}}`, to: `{replicas: 3, storage: {ephemeral: {medium: Memory, sizeLimit: 2Gi}}}`},

	{does: "takes a growing volume", from: betaVolume("8Gi"), to: betaVolume("9Gi")},
	{does: "takes the same size in other words", from: betaVolume("8Gi"), to: betaVolume("8192Mi")},
	{does: "leaves a shrinking volume to the operator", from: betaVolume("8Gi"), to: betaVolume("7Gi")},
	{does: "takes a volume of the default size where none was set", from: `{replicas: 3}`, to: betaVolume("8Gi")},
	{does: "leaves a volume below the default size to the operator where none was set", from: `{replicas: 3}`, to: betaVolume("7Gi")},
	{does: "leaves a dropped volume above the default size to the operator", from: betaVolume("9Gi"), to: `{replicas: 3, storage: {}}`},
	{does: "leaves another class to the operator", from: betaVolume("8Gi, class a"), to: betaVolume("8Gi, class b")},
	{does: "leaves a class where none was set to the operator", from: `{replicas: 3}`, to: betaVolume("8Gi, class b")},
	{does: "takes the default access mode explicitly", from: betaVolume("8Gi"), to: betaVolume("8Gi, mode ReadWriteOnce")},
	{does: "leaves another access mode to the operator", from: betaVolume("8Gi"), to: betaVolume("8Gi, mode ReadWriteOncePod")},
	{does: "takes another retention", from: betaVolume("8Gi"), to: `{replicas: 3, storage: {retentionPolicy: {whenDeleted: Delete}}}`},
}

// betaVolume is a spec with a volume of a size, and perhaps a class or a mode.
func betaVolume(text string) string {
	return "{replicas: 3, storage: {volumeClaimTemplate: {spec: {" + claimText(text) + "}}}}"
}

// quotaOn is a spec with a quota on volumes of a size.
func quotaOn(size, quota string) string {
	return "{replicas: 3, storage: {volumeClaimTemplate: {spec: {" + claimText(size) + "}}}, config: {quotaBackendBytes: " + quota + "}}"
}

// manyArgs is a spec with a number of options beside typed fields.
func manyArgs(number int, typed string) string {
	var args []string
	for n := range number {
		args = append(args, fmt.Sprintf(`option-%d: "1"`, n))
	}
	return "{replicas: 3, config: {" + typed + ", extraArgs: {" + strings.Join(args, ", ") + "}}}"
}
