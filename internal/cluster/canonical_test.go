package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// specOf returns a cluster with a spec in YAML. Fields that it does not have get the defaults of the schema.
func specOf(t *testing.T, spec string) *v1beta1.EtcdCluster {
	t.Helper()
	c := &v1beta1.EtcdCluster{}
	c.Name = "prod"
	c.Spec = v1beta1.EtcdClusterSpec{Replicas: 3, Version: "3.6.16", Image: v1beta1.Image{Repository: "gcr.io/etcd-development/etcd"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &c.Spec); err != nil {
		t.Fatal(err)
	}
	return c
}

func hashOf(t *testing.T, spec string) string {
	t.Helper()
	_, hash := IntentOf(specOf(t, spec)).Encode()
	return hash
}

const (
	digestA = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	digestB = "sha256:aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff0000"
)

// pod is a spec with fields of the pods.
func pod(fields string) string { return "{podTemplate: {spec: {" + fields + "}}}" }

// args is a spec with options of etcd.
func args(options string) string { return "{config: {extraArgs: {" + options + "}}}" }

// limits is a spec with limits.
func limits(fields string) string { return "{resources: {limits: {" + fields + "}}}" }

// Each pair is one meaning in two spellings.
var samePods = map[string][2]string{
	"a cpu in thousandths":                       {limits(`cpu: 1000m`), limits(`cpu: 1`)},
	"a cpu with a fraction":                      {limits(`cpu: "0.5"`), limits(`cpu: 500m`)},
	"a cpu with an exponent":                     {limits(`cpu: 1e3`), limits(`cpu: 1k`)},
	"memory in Mi and Gi":                        {limits(`memory: 1024Mi`), limits(`memory: 1Gi`)},
	"memory in bytes and Gi":                     {limits(`memory: "1073741824"`), limits(`memory: 1Gi`)},
	"memory in M and bytes":                      {limits(`memory: 500M`), limits(`memory: "500000000"`)},
	"memory with a fraction":                     {limits(`memory: 1.5Gi`), limits(`memory: 1536Mi`)},
	"no resources and empty resources":           {`{}`, `{resources: {limits: {}, requests: {}}}`},
	"no pod template and an empty one":           {`{}`, `{podTemplate: {}}`},
	"no labels and empty labels":                 {`{}`, `{podTemplate: {metadata: {labels: {}, annotations: {}}, spec: {nodeSelector: {}}}}`},
	"no tolerations and an empty list":           {`{}`, pod(`tolerations: [], topologySpreadConstraints: [], imagePullSecrets: []`)},
	"no security context and an empty one":       {`{}`, pod(`securityContext: {}`)},
	"a security context of empty lists":          {`{}`, pod(`securityContext: {supplementalGroups: [], sysctls: []}`)},
	"runAsNonRoot, which is always true":         {`{}`, pod(`securityContext: {runAsNonRoot: true}`)},
	"the default scheduler":                      {`{}`, pod(`schedulerName: default-scheduler`)},
	"the default anti-affinity":                  {`{}`, `{podTemplate: {memberAntiAffinity: Preferred}}`},
	"an empty node affinity":                     {pod(`affinity: {}`), pod(`affinity: {nodeAffinity: {}, podAffinity: {}, podAntiAffinity: {}}`)},
	"no options and empty options":               {`{}`, `{config: {extraArgs: {}}}`},
	"no TLS and the default source":              {`{}`, `{tls: {client: {mode: Managed}, peer: {}}}`},
	"an issuer with and without its kind":        {`{tls: {peer: {certManager: {issuerRef: {name: ca}}}}}`, `{tls: {peer: {certManager: {issuerRef: {name: ca, kind: Issuer, group: cert-manager.io}}}}}`},
	"no storage and the default size":            {`{}`, `{storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 8192Mi}}}}}}`},
	"the default quota":                          {`{}`, `{config: {quotaBackendBytes: 2Gi}}`},
	"a quota as a typed field and as an option":  {`{config: {quotaBackendBytes: 1Gi}}`, args(`quota-backend-bytes: "1073741824"`)},
	"compaction as a typed field and as options": {`{config: {autoCompaction: {mode: Periodic, retention: 1h}}}`, args(`auto-compaction-retention: "1"`)},
	"compaction in minutes and hours":            {`{config: {autoCompaction: {mode: Periodic, retention: 120m}}}`, `{config: {autoCompaction: {mode: Periodic, retention: 2h}}}`},
	"compaction of revisions":                    {`{config: {autoCompaction: {mode: Revision, retention: "1000"}}}`, args(`auto-compaction-mode: revision, auto-compaction-retention: "1000"`)},
	"no compaction":                              {args(`auto-compaction-retention: "0"`), args(`auto-compaction-retention: "00", auto-compaction-mode: periodic`)},
	"a number that etcd reads as hexadecimal":    {args(`heartbeat-interval: "0x64"`), args(`heartbeat-interval: "100"`)},
	"a number that etcd reads as octal":          {args(`election-timeout: "01750"`), args(`election-timeout: "1000"`)},
	"a duration in seconds and minutes":          {args(`grpc-keepalive-interval: 7200s`), args(`grpc-keepalive-interval: 2h`)},
	"an option of etcd 3.5":                      {args(`experimental-corrupt-check-time: 60s`), args(`experimental-corrupt-check-time: 1m`)},
	"a boolean":                                  {args(`pre-vote: "T"`), args(`pre-vote: "true"`)},
	"the tag of the version":                     {`{}`, `{image: {repository: gcr.io/etcd-development/etcd, tag: v3.6.16}}`},
	"the default pull policy":                    {`{}`, `{image: {repository: gcr.io/etcd-development/etcd, pullPolicy: IfNotPresent}}`},
	"empty strings of the image":                 {`{}`, `{image: {repository: gcr.io/etcd-development/etcd, tag: "", digest: ""}}`},
	"tolerations in another order":               {pod(`tolerations: [{key: a, operator: Exists}, {key: b, operator: Exists}]`), pod(`tolerations: [{key: b, operator: Exists}, {key: a, operator: Exists}]`)},
	"a toleration that is there twice":           {pod(`tolerations: [{key: a, operator: Exists}, {key: a, operator: Exists}]`), pod(`tolerations: [{key: a, operator: Exists}]`)},
	"the default operator of a toleration":       {pod(`tolerations: [{key: a, operator: Equal, value: b}]`), pod(`tolerations: [{key: a, value: b}]`)},
	"values of a node affinity in another order": {nodesNamed(`a, b`), nodesNamed(`b, a`)},
	"spread constraints in another order":        {pod(`topologySpreadConstraints: [` + spread("zone") + `, ` + spread("host") + `]`), pod(`topologySpreadConstraints: [` + spread("host") + `, ` + spread("zone") + `]`)},
	"expressions of a spread constraint":         {pod(`topologySpreadConstraints: [` + constraintOf("a", "b") + `]`), pod(`topologySpreadConstraints: [` + constraintOf("b", "a") + `]`)},
	"the defaults of a spread constraint":        {pod(`topologySpreadConstraints: [` + spread("zone") + `]`), pod(`topologySpreadConstraints: [` + spread("zone, minDomains: 1, nodeAffinityPolicy: Honor, nodeTaintsPolicy: Ignore") + `]`)},
	"what no pod depends on":                     {`{}`, `{replicas: 5, paused: true, updateStrategy: {operatorUpgrade: Roll, progressDeadlineSeconds: 60}, storage: {retentionPolicy: {whenDeleted: Delete, whenScaled: Delete, whenReplaced: Delete}}, recovery: {memberReplacement: {policy: Manual, after: 1m}}, maintenance: {consistencyCheck: Full}}`},
	"the operator's client Secret":               {`{tls: {client: {secretRef: {name: s, operatorName: a}}}}`, `{tls: {client: {secretRef: {name: s, operatorName: b, format: TLS}}}}`},
	"a selector that matches all, in two orders": {podsIn(`{key: a, operator: Exists}, {key: b, operator: Exists}`), podsIn(`{key: b, operator: Exists}, {key: a, operator: Exists}`)},
	"preferred nodes in another order":           {preferred(`a`, `b`), preferred(`b`, `a`)},
}

// Each pair has two meanings.
var otherPods = map[string][2]string{
	"another cpu":                                {limits(`cpu: 1`), limits(`cpu: 1001m`)},
	"MB and MiB":                                 {limits(`memory: 1G`), limits(`memory: 1Gi`)},
	"a byte more":                                {limits(`memory: "1073741825"`), limits(`memory: 1Gi`)},
	"no limit and a limit of zero":               {`{}`, limits(`cpu: 0`)},
	"limits and requests":                        {limits(`cpu: 1`), `{resources: {requests: {cpu: 1}}}`},
	"another version":                            {`{}`, `{version: 3.6.17}`},
	"another repository":                         {`{}`, `{image: {repository: etcd}}`},
	"another tag":                                {`{}`, `{image: {repository: gcr.io/etcd-development/etcd, tag: v3.6.16-1}}`},
	"a tag with another version":                 {`{image: {tag: v3.6.16}}`, `{image: {tag: v3.6.16}, version: 3.6.17}`},
	"a digest":                                   {`{}`, `{image: {digest: "` + digestA + `"}}`},
	"another digest":                             {`{image: {digest: "` + digestA + `"}}`, `{image: {digest: "` + digestB + `"}}`},
	"another pull policy":                        {`{}`, `{image: {pullPolicy: Always}}`},
	"an affinity that replaces the default":      {`{}`, pod(`affinity: {}`)},
	"required anti-affinity":                     {`{}`, `{podTemplate: {memberAntiAffinity: Required}}`},
	"a selector that is empty, and none":         {podsWith(``), podsWith(`labelSelector: {}`)},
	"namespaces that are all, and the pod's own": {podsWith(``), podsWith(`namespaceSelector: {}`)},
	"required and preferred nodes":               {nodesNamed(`a`), preferred(`a`, `a`)},
	"one preference and the same twice":          {pod(preference(`a`)), preferred(`a`, `a`)},
	"another toleration":                         {pod(`tolerations: [{key: a, operator: Exists}]`), pod(`tolerations: [{key: a, operator: Exists, effect: NoSchedule}]`)},
	"another value of a toleration":              {pod(`tolerations: [{key: a, value: b}]`), pod(`tolerations: [{key: a, value: c}]`)},
	"pull Secrets in another order, which is that of the tries": {pod(`imagePullSecrets: [{name: a}, {name: b}]`), pod(`imagePullSecrets: [{name: b}, {name: a}]`)},
	"a spread constraint and the default":                       {`{}`, pod(`topologySpreadConstraints: [` + spread("zone") + `]`)},
	"a skew":                                                    {pod(`topologySpreadConstraints: [` + spread("zone") + `]`), pod(`topologySpreadConstraints: [` + spread("zone, minDomains: 2") + `]`)},
	"a user":                                                    {`{}`, pod(`securityContext: {runAsUser: 65532}`)},
	"another scheduler":                                         {`{}`, pod(`schedulerName: mine`)},
	"a label":                                                   {`{}`, `{podTemplate: {metadata: {labels: {a: ""}}}}`},
	"a label and an annotation":                                 {`{podTemplate: {metadata: {labels: {a: b}}}}`, `{podTemplate: {metadata: {annotations: {a: b}}}}`},
	"another quota":                                             {`{}`, args(`quota-backend-bytes: "2147483649"`)},
	"a number that only looks alike":                            {args(`heartbeat-interval: "0100"`), args(`heartbeat-interval: "100"`)},
	"a number that etcd cannot read":                            {args(`heartbeat-interval: "08"`), args(`heartbeat-interval: "8"`)},
	"an option and its default":                                 {`{}`, args(`heartbeat-interval: "100"`)},
	"another heartbeat":                                         {args(`heartbeat-interval: "100"`), args(`heartbeat-interval: "200"`)},
	"hours and revisions":                                       {args(`auto-compaction-retention: "1"`), args(`auto-compaction-retention: "1", auto-compaction-mode: revision`)},
	"a text that looks like a number":                           {args(`log-level: "010"`), args(`log-level: "8"`)},
	"an option under its old name":                              {args(`corrupt-check-time: 1m`), args(`experimental-corrupt-check-time: 1m`)},
	"no TLS":                                                    {`{}`, `{tls: {client: {mode: Disabled}}}`},
	"another kind of issuer":                                    {`{tls: {peer: {certManager: {issuerRef: {name: ca}}}}}`, `{tls: {peer: {certManager: {issuerRef: {name: ca, kind: ClusterIssuer}}}}}`},
	"another format of a Secret":                                {`{tls: {peer: {secretRef: {name: p}}}}`, `{tls: {peer: {secretRef: {name: p, format: EtcdOperator}}}}`},
	"another domain":                                            {`{}`, `{clusterDomain: cluster.local}`},
}

func spread(key string) string {
	return "{maxSkew: 1, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}, topologyKey: " + key + "}"
}

// constraintOf is a spread constraint on pods with labels of two keys.
func constraintOf(one, other string) string {
	return "{maxSkew: 1, whenUnsatisfiable: DoNotSchedule, topologyKey: zone, labelSelector: {matchExpressions: [{key: " + one +
		", operator: Exists}, {key: " + other + ", operator: Exists}]}}"
}

func nodesNamed(names string) string {
	return pod(`affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [
		{key: name, operator: In, values: [` + names + `]}]}]}}}`)
}

func preference(keys ...string) string {
	terms := make([]string, len(keys))
	for n, key := range keys {
		terms[n] = "{weight: 1, preference: {matchExpressions: [{key: " + key + ", operator: Exists}]}}"
	}
	return "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [" + strings.Join(terms, ", ") + "]}}"
}

func preferred(keys ...string) string { return pod(preference(keys...)) }

func podsWith(field string) string {
	if field != "" {
		field = ", " + field
	}
	return pod(`affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone` + field + `}]}}`)
}

func podsIn(expressions string) string {
	return podsWith(`labelSelector: {matchExpressions: [` + expressions + `]}`)
}

func TestASpecOfTheSameMeaningHasTheSameHash(t *testing.T) {
	for name, specs := range samePods {
		a, b := IntentOf(specOf(t, specs[0])), IntentOf(specOf(t, specs[1]))
		if hashOf(t, specs[0]) != hashOf(t, specs[1]) || !a.SameAs(b) || len(a.Differences(b)) > 0 {
			t.Errorf("%s: the hashes differ, and so do %v", name, a.Differences(b))
		}
	}
}

func TestASpecOfAnotherMeaningHasAnotherHash(t *testing.T) {
	for name, specs := range otherPods {
		a, b := IntentOf(specOf(t, specs[0])), IntentOf(specOf(t, specs[1]))
		if hashOf(t, specs[0]) == hashOf(t, specs[1]) || a.SameAs(b) || len(a.Differences(b)) == 0 {
			t.Errorf("%s: the hashes are the same, or no difference is told", name)
		}
	}
}

func TestTheCanonicalFormIsItsOwn(t *testing.T) {
	for _, pairs := range []map[string][2]string{samePods, otherPods} {
		for name, specs := range pairs {
			for _, spec := range specs {
				intent := IntentOf(specOf(t, spec))
				once, _ := intent.Encode()
				stored, err := DecodeIntent(once)
				if err != nil {
					t.Fatal(err)
				}
				if again, _ := stored.Canonical().Encode(); again != once {
					t.Errorf("%s: %s became %s", name, once, again)
				}
			}
		}
	}
}

func TestEqualQuantitiesHaveOneText(t *testing.T) {
	spellings := []string{
		"0", "0m", "0Ki", "1n", "1000n", "1u", "1m", "0.001", "1e-3", "500m", "0.5", "0.5Ki", "512", "1", "1000m", "1000", "1k", "1e3", "1E3", "1023", "1024", "1Ki",
		"1.5Gi", "1536Mi", "1610612736", "1G", "1000M", "1e9", "8G", "7812500Ki", "2000Mi", "2097152000", "16Ei", "100000000000000000000Ki", "-1", "-1000m",
	}
	for _, one := range spellings {
		a := resource.MustParse(one)
		canonical := canonicalQuantity(a)
		if canonical.Cmp(a) != 0 {
			t.Errorf("%s became %s", one, canonical.String())
		}
		for _, other := range spellings {
			b := resource.MustParse(other)
			again := canonicalQuantity(b)
			if same := a.Cmp(b) == 0; same != (canonical.String() == again.String()) {
				t.Errorf("%s became %s, and %s became %s", one, canonical.String(), other, again.String())
			}
		}
	}
}

func TestTheCanonicalFormLeavesTheSpecAlone(t *testing.T) {
	for name, specs := range samePods {
		for _, spec := range specs {
			c := specOf(t, spec)
			IntentOf(c)
			if before, after := jsonOf(specOf(t, spec).Spec), jsonOf(c.Spec); before != after {
				t.Errorf("%s: %s became %s", name, before, after)
			}
		}
	}
}

// The hashes are what 0.3.0 wrote. A pod with such a hash must not restart because a later release reads its intent.
var release030 = map[string]string{"minimal": "9a589d5082016897", "full": "33bcd0e86a235ec8"}

const fullSpec = `
image: {repository: registry.example.com/etcd}
clusterDomain: cluster.local
storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 4Gi}}}}}
tls:
  client: {certManager: {issuerRef: {name: ca, kind: ClusterIssuer, group: cert-manager.io}}}
  peer: {secretRef: {name: peers, format: EtcdOperator}}
config:
  quotaBackendBytes: 1Gi
  autoCompaction: {mode: Periodic, retention: 1h}
  extraArgs: {heartbeat-interval: "200", election-timeout: "2000", log-level: warn}
resources:
  requests: {cpu: 100m, memory: 256Mi}
  limits: {cpu: "2", memory: 1Gi}
podTemplate:
  metadata: {labels: {team: platform}, annotations: {example.com/owner: a}}
  memberAntiAffinity: Required
  spec:
    nodeSelector: {disk: ssd}
    affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]}}}
    tolerations: [{key: etcd, operator: Exists, effect: NoSchedule}]
    topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {a: b}}}]
    priorityClassName: high
    schedulerName: mine
    runtimeClassName: gvisor
    imagePullSecrets: [{name: pull}]
    securityContext: {runAsUser: 1000, fsGroup: 2000}
`

func storedBy030(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "intent-0.3.0-"+name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func TestAnIntentWithoutNewFieldsIsThatOfRelease030(t *testing.T) {
	for name, spec := range map[string]string{"minimal": `{}`, "full": fullSpec} {
		text, hash := IntentOf(specOf(t, spec)).Encode()
		if want := storedBy030(t, name); text != want || hash != release030[name] {
			t.Errorf("%s: the hash is %s and the intent\n%s, want\n%s", name, hash, text, want)
		}
		stored, err := DecodeIntent(text)
		if err != nil {
			t.Fatal(err)
		}
		if again, hash := stored.Encode(); again != text || hash != release030[name] {
			t.Errorf("%s: the stored intent is encoded as %s", name, again)
		}
	}
}

// 0.3.0 stored quantities and options as they were written.
func TestAStoredIntentInAnotherFormIsNoChange(t *testing.T) {
	const old = `{"version":"3.6.16","repository":"gcr.io/etcd-development/etcd","options":{"ETCD_HEARTBEAT_INTERVAL":"0x64",` +
		`"ETCD_QUOTA_BACKEND_BYTES":"1073741824"},"peerSecret":"prod-peer-tls","serverSecret":"prod-server-tls","operatorSecret":"prod-operator-tls",` +
		`"tolerations":[{"key":"b","operator":"Equal"},{"key":"a","operator":"Equal"}],"limits":{"memory":"1073741824"},"securityContext":{},` +
		`"peerCertificates":"Managed","serverCertificates":"Managed"}`
	stored, err := DecodeIntent(old)
	if err != nil {
		t.Fatal(err)
	}
	want := IntentOf(specOf(t, `{resources: {limits: {memory: 1Gi}}, podTemplate: {spec: {tolerations: [{key: a}, {key: b}]}},
		config: {quotaBackendBytes: 1Gi, extraArgs: {heartbeat-interval: "100"}}}`))
	if !stored.SameAs(want) || !want.SameAs(stored) || len(stored.Differences(want)) > 0 {
		t.Errorf("it differs in %v", stored.Differences(want))
	}
	if text, _ := stored.Encode(); text != old {
		t.Errorf("it is encoded as %s", text)
	}
}

func TestEachValueOfTheRestartAnnotationIsAnotherIntent(t *testing.T) {
	of := func(value string) Intent {
		c := specOf(t, `{}`)
		if value != "" {
			c.Annotations = map[string]string{v1beta1.RestartAnnotation: value}
		}
		return IntentOf(c)
	}
	long := strings.Repeat("x", v1beta1.MaxRestartValue)
	for name, test := range map[string]struct {
		have, want string
		same       bool
	}{
		"the first value":                    {"", "a", false},
		"another value":                      {"a", "b", false},
		"the same value":                     {"a", "a", true},
		"the annotation is removed":          {"a", "", true},
		"a value that differs after its end": {long + "a", long + "b", true},
		"a value that differs at its end":    {long[1:] + "a", long[1:] + "b", false},
		"a value that is cut in a letter":    {long[1:] + "ä", long[1:], true},
	} {
		have := of(test.have)
		if got := of(test.want).WithRestartOf(have).SameAs(have); got != test.same {
			t.Errorf("%s: the intent is the same: %v", name, got)
		}
		if text, _ := have.Encode(); len(have.RestartedFor) > v1beta1.MaxRestartValue || !strings.Contains(text, `"restartedFor"`) == (test.have != "") {
			t.Errorf("%s: the intent is stored as %s", name, text)
		}
	}
	if paths := of("a").Differences(of("b")); len(paths) != 1 || paths[0] != "metadata.annotations["+v1beta1.RestartAnnotation+"]" {
		t.Errorf("the difference is told as %v", paths)
	}
}

func TestTheImageHasATagOrADigest(t *testing.T) {
	const repository = "gcr.io/etcd-development/etcd"
	for image, want := range map[string]string{
		`{}`:                                     repository + ":v3.6.16",
		`{tag: latest}`:                          repository + ":latest",
		`{digest: "` + digestA + `"}`:            repository + "@" + digestA,
		`{digest: "` + digestA + `", tag: mine}`: repository + ":mine@" + digestA,
		`{repository: "localhost:5000/etcd", tag: v3.6.16}`: "localhost:5000/etcd:v3.6.16",
	} {
		if got := IntentOf(specOf(t, "{image: "+image+"}")).Image(); got != want {
			t.Errorf("%s is the image %s, want %s", image, got, want)
		}
	}
}
