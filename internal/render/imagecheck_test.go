package render

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

func TestThePodThatLooksAtAnImageIsLikeAMemberAndIsNone(t *testing.T) {
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prod", UID: "uid-1"}}
	c.Spec.Version, c.Spec.Image.Repository = "3.7.3", "example.org/etcd"
	c.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
	c.Spec.PodTemplate = &v1beta1.PodTemplate{}
	intent := cluster.IntentOf(c)
	intent.Tolerations = []corev1.Toleration{{Key: "etcd"}}
	intent.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	intent.Labels = map[string]string{"app": "etcd"}
	pod := ImageCheckPod(c, intent, "example.org/operator:v1")
	selector, err := labels.Parse(MemberSelector(c))
	if err != nil || selector.Matches(labels.Set(pod.Labels)) || pod.Labels["app"] != "" {
		t.Errorf("Services and budgets select it: %v (%v)", pod.Labels, err)
	}
	spec := pod.Spec
	if len(spec.Volumes) != 1 || spec.Volumes[0].EmptyDir == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("it has data, a Secret or a token: %+v", spec.Volumes)
	}
	if spec.RestartPolicy != corev1.RestartPolicyNever || *spec.ActiveDeadlineSeconds != 120 || len(spec.Tolerations) != 1 || len(spec.ImagePullSecrets) != 1 {
		t.Errorf("got %+v", spec)
	}
	member := podTemplate(MemberInput{Cluster: c, Name: "prod-0", Intent: intent}).Spec
	for i, one := range append(spec.InitContainers, spec.Containers...) {
		if one.Image != []string{"example.org/operator:v1", member.Containers[0].Image}[i] {
			t.Errorf("container %s has the image %s", one.Name, one.Image)
		}
		if one.Resources.Limits.Memory().Cmp(resource.MustParse("1Gi")) != 0 || one.SecurityContext == nil || !*one.SecurityContext.ReadOnlyRootFilesystem || len(one.Env) > 0 {
			t.Errorf("container %s: %+v", one.Name, one)
		}
	}
	if *spec.SecurityContext.RunAsUser != *member.SecurityContext.RunAsUser || pod.Annotations[cluster.AnnotationImageTarget] != "3.7.3 example.org/etcd:v3.7.3" {
		t.Errorf("got %+v, %v", spec.SecurityContext, pod.Annotations)
	}
}
