package render

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// checkedImage builds the pod that looks at an image, and the template of a member with the same intent.
func checkedImage() (check *corev1.Pod, member corev1.PodTemplateSpec, selector string) {
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prod", UID: "uid-1"}}
	c.Spec.Version, c.Spec.Image.Repository = "3.7.3", "example.org/etcd"
	c.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m")}
	c.Spec.PodTemplate = &v1beta1.PodTemplate{}
	intent := cluster.IntentOf(c)
	intent.NodeSelector = map[string]string{"disk": "fast"}
	intent.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1}},
	}, PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname}},
	}}
	intent.Tolerations = []corev1.Toleration{{Key: "etcd"}}
	intent.PriorityClassName, intent.SchedulerName, intent.RuntimeClassName = "high", "bin-packer", "gvisor"
	intent.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	intent.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1234))}
	intent.Labels, intent.Annotations = map[string]string{"app": "etcd"}, map[string]string{"sidecar": "inject"}
	return ImageCheckPod(c, intent, "example.org/operator:v1"), podTemplate(MemberInput{Cluster: c, Name: "prod-0", Intent: intent}), MemberSelector(c)
}

func TestThePodThatLooksAtAnImageIsScheduledSecuredAndLimitedLikeAMember(t *testing.T) {
	check, template, _ := checkedImage()
	pod, member := check.Spec, template.Spec
	if pod.Affinity.PodAntiAffinity != nil || pod.Affinity.PodAffinity != nil {
		t.Errorf("the members that it runs beside may keep it away: %+v", pod.Affinity)
	}
	for what, pair := range map[string][2]any{
		"node selector":     {pod.NodeSelector, member.NodeSelector},
		"node affinity":     {pod.Affinity.NodeAffinity, member.Affinity.NodeAffinity},
		"tolerations":       {pod.Tolerations, member.Tolerations},
		"priority class":    {pod.PriorityClassName, member.PriorityClassName},
		"scheduler":         {pod.SchedulerName, member.SchedulerName},
		"runtime class":     {pod.RuntimeClassName, member.RuntimeClassName},
		"pull secrets":      {pod.ImagePullSecrets, member.ImagePullSecrets},
		"security context":  {pod.SecurityContext, member.SecurityContext},
		"image":             {pod.Containers[0].Image, member.Containers[0].Image},
		"pull policy":       {pod.Containers[0].ImagePullPolicy, member.Containers[0].ImagePullPolicy},
		"operator's image":  {pod.InitContainers[0].Image, "example.org/operator:v1"},
		"ends":              {pod.RestartPolicy, corev1.RestartPolicyNever},
		"ends in time":      {*pod.ActiveDeadlineSeconds, int64(120)},
		"version and image": {check.Annotations, map[string]string{cluster.AnnotationImageTarget: "3.7.3 example.org/etcd:v3.7.3"}},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s: -member +check:\n%s", what, diff)
		}
	}
	for _, one := range append(pod.InitContainers, pod.Containers...) {
		if diff := cmp.Diff(member.Containers[0].Resources.Limits, one.Resources.Limits); diff != "" {
			t.Errorf("limits of %s: -member +check:\n%s", one.Name, diff)
		}
		if requests := one.Resources.Requests; requests.Cpu().String() != "10m" || requests.Memory().String() != "16Mi" {
			t.Errorf("%s needs room beside the members: %v", one.Name, requests)
		}
		if diff := cmp.Diff(member.Containers[0].SecurityContext, one.SecurityContext); diff != "" {
			t.Errorf("security context of %s: -member +check:\n%s", one.Name, diff)
		}
	}
}

func TestThePodThatLooksAtAnImageHasNoDataSecretTokenOrLabelOfAMember(t *testing.T) {
	check, template, members := checkedImage()
	selector, err := labels.Parse(members)
	if err != nil || !selector.Matches(labels.Set(template.Labels)) || selector.Matches(labels.Set(check.Labels)) {
		t.Errorf("%s selects members, and not %v (%v)", members, check.Labels, err)
	}
	want := map[string]string{cluster.LabelManagedBy: cluster.ManagedByValue, cluster.LabelImageCheck: "prod"}
	if diff := cmp.Diff(want, check.Labels); diff != "" {
		t.Errorf("labels: -want +got:\n%s", diff)
	}
	pod := check.Spec
	if len(pod.Volumes) != 1 || pod.Volumes[0].EmptyDir == nil {
		t.Errorf("it has other volumes than an emptyDir: %+v", pod.Volumes)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.ServiceAccountName != "" {
		t.Errorf("it has the token of a service account: %+v", pod)
	}
	if pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.ShareProcessNamespace != nil {
		t.Errorf("it shares what is the node's: %+v", pod)
	}
	for _, one := range append(pod.InitContainers, pod.Containers...) {
		if len(one.VolumeMounts) != 1 || one.VolumeMounts[0].Name != pod.Volumes[0].Name || len(one.Env)+len(one.EnvFrom)+len(one.Ports) > 0 {
			t.Errorf("container %s has more than the volume with the binary: %+v", one.Name, one)
		}
		if !strings.HasPrefix(strings.Join(one.Command, " ")+" ", map[string]string{"copy": "/etcd-warden image-check copy /check/etcd-warden ",
			ContainerName: "/check/etcd-warden image-check run "}[one.Name]) || len(one.Args) > 0 {
			t.Errorf("container %s runs %v %v", one.Name, one.Command, one.Args)
		}
	}
}

func TestThePodThatLooksAtAnImageRequestsNoMoreThanItsLimits(t *testing.T) {
	small := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("8Mi")}
	for what, r := range map[string]corev1.ResourceRequirements{
		"small limits": checkResources(corev1.ResourceRequirements{Limits: small}),
		"no limits":    checkResources(corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("13Gi")}}),
	} {
		for name, limit := range r.Limits {
			if request := r.Requests[name]; request.Cmp(limit) > 0 {
				t.Errorf("%s: requests %s of %s, and the limit is %s", what, request.String(), name, limit.String())
			}
		}
		if r.Requests.Memory().Cmp(resource.MustParse("16Mi")) > 0 {
			t.Errorf("%s: requests %s", what, r.Requests.Memory())
		}
	}
}
