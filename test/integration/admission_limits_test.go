//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// The largest values that Kubernetes accepts in a pod.
var (
	largestDomain = strings.Repeat(strings.Repeat("d", 62)+".", 4) + "d"               // 253 characters
	largestKey    = largestDomain + "/" + strings.Repeat("k", 63)                      // of a label
	largestValue  = strings.Repeat("v", 63)                                            // of a label
	manyNodes     = strings.TrimSuffix(strings.Repeat(largestDomain+", ", 1000), ", ") // names of nodes
)

// largePods are fields of pods that are as large as Kubernetes accepts, or larger than any pod needs.
var largePods = map[string]string{
	"a node selector": fmt.Sprintf("nodeSelector: {%s: %s}", largestKey, largestValue),
	"a toleration":    fmt.Sprintf("tolerations: [{key: %s, operator: Equal, value: %s, effect: NoExecute}]", largestKey, largestValue),
	"a node affinity": fmt.Sprintf(`affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
		{matchExpressions: [{key: %s, operator: NotIn, values: [%s]}]}, {matchFields: [{key: metadata.name, operator: In, values: [%s]}]}]}}}`, largestKey, manyNodes, largestDomain),
	"a pod affinity": fmt.Sprintf(`affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: %s, namespaces: [%s],
		matchLabelKeys: [%s], labelSelector: {matchLabels: {%s: %s}}, namespaceSelector: {matchExpressions: [{key: %s, operator: In, values: [%s]}]}}]}}`,
		largestKey, largestValue, largestKey, largestKey, largestValue, largestKey, largestValue),
	"a security context": fmt.Sprintf(`securityContext: {supplementalGroups: [%s1], sysctls: [{name: net.ipv4.ip_local_reserved_ports, value: "%s"}],
		seccompProfile: {type: Localhost, localhostProfile: %s}, seLinuxOptions: {level: "s0:c123,c456"}}`, strings.Repeat("1, ", 63), strings.Repeat("8080,", 500), strings.Repeat("p", 4000)),
}

func TestTheLimitsAcceptWhatKubernetesAccepts(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	for version, format := range map[string]string{
		"v1alpha1": "{size: 3, pod: {labels: {%s: %s}, annotations: {%s: %s}, %s}}",
		"v1beta1":  "{replicas: 3, podTemplate: {metadata: {labels: {%s: %s}, annotations: {%s: %s}}, spec: {%s}}}",
	} {
		for what, field := range largePods {
			t.Run(version+" "+what, func(t *testing.T) {
				t.Parallel()
				spec := fmt.Sprintf(format, largestKey, largestValue, largestKey, strings.Repeat("a", 60_000), field)
				must(t, admin.Create(t.Context(), decode(t, version, namespace, spec), client.DryRunAll))
			})
		}
	}
}

func TestTheLimitsAcceptTheLargestStatus(t *testing.T) {
	t.Parallel()
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: name}, Spec: v1beta1.EtcdClusterSpec{Replicas: 3}}
	must(t, admin.Create(t.Context(), c))
	long := strings.Repeat("x", 253)
	c.Status = v1beta1.EtcdClusterStatus{
		ClusterID: "ffffffffffffffff", Version: long, TargetVersion: long, Selector: strings.Repeat("s", 1024), Leader: long, ServiceName: long, ClientSecretName: long,
		Ready:     "2147483647/2147483647",
		Operation: &v1beta1.Operation{Type: "RollMember", Member: long, StartedAt: metav1.Now(), Reason: long, WaitingFor: strings.Repeat("w", 1024)},
	}
	for n := range 64 {
		c.Status.Members = append(c.Status.Members, v1beta1.MemberStatus{
			Name: fmt.Sprintf("%s-%d", strings.Repeat("n", 46), n), ID: "ffffffffffffffff", Role: v1beta1.RoleVoter, Version: long, Reason: long,
		})
	}
	for n := range 32 {
		c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{
			Type: fmt.Sprintf("Type%d", n), Status: metav1.ConditionTrue, Reason: "Reason", Message: strings.Repeat("m", 8<<10), LastTransitionTime: metav1.Now(),
		})
	}
	must(t, admin.Status().Update(t.Context(), c))
	read(t, "v1alpha1", decode(t, "v1alpha1", c.Namespace, "{}")) // and v1alpha1 reads it
	c.Status.Members = append(c.Status.Members, v1beta1.MemberStatus{Name: "one-more", Role: v1beta1.RoleVoter})
	if err := admin.Status().Update(t.Context(), c); !apierrors.IsInvalid(err) {
		t.Errorf("error = %v, want the refusal of 65 members", err)
	}
}

func TestTheLimitsRefuseWhatIsLarger(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	for _, spec := range []string{
		"podTemplate: {metadata: {labels: {a: " + strings.Repeat("v", 64) + "}}}",
		"podTemplate: {metadata: {annotations: {a: " + strings.Repeat("a", 64<<10+1) + "}}}",
		"podTemplate: {spec: {nodeSelector: {a: " + strings.Repeat("v", 64) + "}}}",
		"podTemplate: {spec: {tolerations: [{key: " + strings.Repeat("k", 318) + "}]}}",
		"podTemplate: {spec: {tolerations: [" + strings.Repeat("{operator: Exists}, ", 32) + "{operator: Exists}]}}",
		"config: {extraArgs: {cors: " + strings.Repeat("x", 1025) + "}}",
		"resources: {limits: {cpu: \"" + strings.Repeat("0", 64) + "1\"}}",
		"image: {tag: " + strings.Repeat("t", 129) + "}",
		"image: {pullPolicy: Never}",
		"storage: {retentionPolicy: {whenScaled: Recycle}}",
		"storage: {retentionPolicy: {whenReplaced: Recycle}}",
		"storage: {ephemeral: {medium: Disk, sizeLimit: 1Gi}}",
		"storage: {ephemeral: {sizeLimit: 1Gi}}",
		"storage: {ephemeral: {medium: Memory}}",
		"recovery: {memberReplacement: {policy: Never}}",
		"maintenance: {consistencyCheck: Never}",
		"updateStrategy: {operatorUpgrade: Now}",
		"updateStrategy: {progressDeadlineSeconds: 0}",
		"updateStrategy: {progressDeadlineSeconds: 59}",
		"updateStrategy: {progressDeadlineSeconds: 86401}",
		"updateStrategy: {progressDeadlineSeconds: -60}",
		// No client can decode these numbers, so one object that is stored with them would stop the operator.
		"podTemplate: {spec: {topologySpreadConstraints: [{maxSkew: 3000000000, topologyKey: a, whenUnsatisfiable: DoNotSchedule}]}}",
		"podTemplate: {spec: {topologySpreadConstraints: [{maxSkew: 1, minDomains: -3000000000, topologyKey: a, whenUnsatisfiable: DoNotSchedule}]}}",
		"podTemplate: {spec: {affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 3000000000, podAffinityTerm: {topologyKey: a}}]}}}}",
	} {
		object := decode(t, "v1beta1", namespace, "{replicas: 3, "+spec+"}")
		if err := admin.Create(t.Context(), object, client.DryRunAll); !apierrors.IsInvalid(err) {
			t.Errorf("error = %v, want a refusal of %.80s", err, spec)
		}
	}
}
