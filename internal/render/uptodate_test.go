package render

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// stored returns a StatefulSet as a client reads it back: without its kind, with the API server's defaults and status.
func stored(set *appsv1.StatefulSet) *appsv1.StatefulSet {
	live := set.DeepCopy()
	live.TypeMeta = metav1.TypeMeta{}
	storedMeta(&live.ObjectMeta)
	live.Status = appsv1.StatefulSetStatus{Replicas: 1, ReadyReplicas: 1}
	live.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
		WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
		WhenScaled:  appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
	}
	spec := &live.Spec.Template.Spec
	spec.RestartPolicy = corev1.RestartPolicyAlways
	spec.DNSPolicy = corev1.DNSClusterFirst
	spec.SchedulerName = corev1.DefaultSchedulerName
	spec.Containers[0].TerminationMessagePath = corev1.TerminationMessagePathDefault
	return live
}

func storedMeta(meta *metav1.ObjectMeta) {
	meta.UID, meta.ResourceVersion, meta.Generation = types.UID("live"), "42", 3
	meta.CreationTimestamp = metav1.Unix(1800000000, 0)
	meta.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "etcd-warden"}}
}

func TestAStatefulSetIsUpToDateUntilAFieldOfOursDiffers(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*appsv1.StatefulSet)
		want   bool
	}{
		"as it was defaulted": {func(*appsv1.StatefulSet) {}, true},
		"another owner and annotations of others": {func(s *appsv1.StatefulSet) {
			s.OwnerReferences = append([]metav1.OwnerReference{{Kind: "ConfigMap", Name: "other", UID: "other"}}, s.OwnerReferences...)
			s.Annotations["example.com/seen"] = "yes"
			s.Labels["example.com/team"] = "storage"
			s.Finalizers = []string{"example.com/wait"}
		}, true},
		"a restart asked for by kubectl": {func(s *appsv1.StatefulSet) {
			s.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] = "2027-01-01T00:00:00Z"
		}, true},
		"the intent is another":      {func(s *appsv1.StatefulSet) { s.Annotations[cluster.AnnotationIntent] = "{}" }, false},
		"the intent hash is another": {func(s *appsv1.StatefulSet) { s.Annotations[cluster.AnnotationIntentHash] = "0" }, false},
		"the render hash is another": {func(s *appsv1.StatefulSet) { s.Spec.Template.Annotations[cluster.AnnotationRenderHash] = "0" }, false},
		"the render hash is missing": {func(s *appsv1.StatefulSet) { delete(s.Spec.Template.Annotations, cluster.AnnotationRenderHash) }, false},
		"scaled to zero":             {func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(0)) }, false},
		"restarts by itself": {func(s *appsv1.StatefulSet) {
			s.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		}, false},
		"another image":        {func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "other" }, false},
		"another argument":     {func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Args[0] = "--name=other" }, false},
		"an argument more":     {func(s *appsv1.StatefulSet) { addArgument(s, "--force-new-cluster") }, false},
		"a container more":     {func(s *appsv1.StatefulSet) { addContainer(s) }, false},
		"a volume less":        {func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Volumes = nil }, false},
		"the token is mounted": {func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.AutomountServiceAccountToken = nil }, false},
		"no owner":             {func(s *appsv1.StatefulSet) { s.OwnerReferences = nil }, false},
		"a label less":         {func(s *appsv1.StatefulSet) { delete(s.Labels, cluster.LabelMember) }, false},
		"another probe": {func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.Containers[0].LivenessProbe.HTTPGet.Path = "/health"
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			desired := MemberStatefulSet(started(makeCluster(secrets("prod-peer", "prod-server"))))
			live := stored(desired)
			test.change(live)
			wantUpToDate(t, desired, live, test.want)
		})
	}
}

func addArgument(s *appsv1.StatefulSet, arg string) {
	etcd := &s.Spec.Template.Spec.Containers[0]
	etcd.Args = append(etcd.Args, arg)
}

func addContainer(s *appsv1.StatefulSet) {
	spec := &s.Spec.Template.Spec
	spec.Containers = append(spec.Containers, corev1.Container{Name: "sidecar"})
}

func TestAFoundingStatefulSetIsNotUpToDateOnceItsMemberHasStarted(t *testing.T) {
	c := makeCluster()
	wantUpToDate(t, MemberStatefulSet(started(c)), stored(MemberStatefulSet(founding(c))), false)
	wantUpToDate(t, MemberStatefulSet(founding(c)), stored(MemberStatefulSet(founding(c))), true)
}

func TestQuantitiesAreComparedAsTheAPIServerWritesThem(t *testing.T) {
	c := makeCluster(commonFields)
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(MemberStatefulSet(started(c)))
	if err != nil {
		t.Fatal(err)
	}
	var live appsv1.StatefulSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &live); err != nil {
		t.Fatal(err)
	}
	wantUpToDate(t, MemberStatefulSet(started(c)), stored(&live), true)
}

func TestAServiceIsUpToDateUntilAFieldOfOursDiffers(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*corev1.Service)
		want   bool
	}{
		"as it was defaulted":   {func(*corev1.Service) {}, true},
		"the hash is another":   {func(s *corev1.Service) { s.Annotations[cluster.AnnotationAppliedHash] = "0" }, false},
		"another selector":      {func(s *corev1.Service) { s.Spec.Selector[cluster.LabelCluster] = "other" }, false},
		"a selector more":       {func(s *corev1.Service) { s.Spec.Selector["x"] = "y" }, false},
		"a selector less":       {func(s *corev1.Service) { s.Spec.Selector = nil }, false},
		"another port":          {func(s *corev1.Service) { s.Spec.Ports[0].Port = 1 }, false},
		"a port more":           {func(s *corev1.Service) { s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: 1}) }, false},
		"another kind of owner": {func(s *corev1.Service) { s.OwnerReferences[0].UID = "other" }, false},
		"not published early":   {func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			desired := PeerService(makeCluster())
			live := desired.DeepCopy()
			live.TypeMeta = metav1.TypeMeta{}
			storedMeta(&live.ObjectMeta)
			live.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
			live.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
			live.Spec.SessionAffinity = corev1.ServiceAffinityNone
			live.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
			test.change(live)
			wantUpToDate(t, desired, live, test.want)
		})
	}
}

func TestABudgetIsUpToDateUntilTheQuorumChanges(t *testing.T) {
	live := Budget(makeCluster(), 2)
	storedMeta(&live.ObjectMeta)
	live.Status = policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 3}
	wantUpToDate(t, Budget(makeCluster(), 2), live, true)
	wantUpToDate(t, Budget(makeCluster(), 3), live, false)
	live.Spec.MinAvailable = new(intstr.FromInt32(0))
	wantUpToDate(t, Budget(makeCluster(), 2), live, false)
	live = Budget(makeCluster(), 2)
	live.Spec.Selector.MatchLabels["x"] = "y"
	wantUpToDate(t, Budget(makeCluster(), 2), live, false)
}

func TestObjectsOfDifferentTypesCannotBeCompared(t *testing.T) {
	if _, err := UpToDate(PeerService(makeCluster()), Budget(makeCluster(), 2)); err == nil {
		t.Error("a Service was compared with a PodDisruptionBudget")
	}
}

func wantUpToDate(t *testing.T, desired, live runtime.Object, want bool) {
	t.Helper()
	got, err := UpToDate(desired, live)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("up to date: %v, want %v", got, want)
	}
}
