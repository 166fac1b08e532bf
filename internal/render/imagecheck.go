package render

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

const (
	checkVolume = "check"
	checkMount  = "/check"
	// checkBinary is the operator's binary, where the image to look at runs it.
	checkBinary = checkMount + "/etcd-warden"
	// imageCheckSeconds is how long the pod may take, once it is on a node.
	imageCheckSeconds = 120
)

// ImageCheckPodToDelete returns what identifies the pod that looked at an image. It has no data: it goes at once, also
// where its node does not answer.
func ImageCheckPodToDelete(c *v1beta1.EtcdCluster, uid types.UID) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: cluster.ImageCheckPodName(c.Name), UID: uid, DeletionGracePeriodSeconds: new(int64(0))},
	}
}

// ImageCheckPod builds the pod that looks at the image of an intent before a member runs it. It is secured and limited
// like a member's pod, and scheduled on the nodes where members may run. But it runs beside the members, so it asks for
// little, and keeps away from no pod. It has no data, no Secret and no token, and no label by which Services or budgets
// select members.
func ImageCheckPod(c *v1beta1.EtcdCluster, intent cluster.Intent, operatorImage string) *corev1.Pod {
	etcd := container(MemberInput{Cluster: c, Name: c.Name, Intent: intent})
	check := func(name, image string, command ...string) corev1.Container {
		return corev1.Container{
			Name: name, Image: image, ImagePullPolicy: etcd.ImagePullPolicy, Command: command,
			Resources: checkResources(etcd.Resources), SecurityContext: etcd.SecurityContext,
			VolumeMounts: []corev1.VolumeMount{{Name: checkVolume, MountPath: checkMount}},
		}
	}
	copied := check("copy", operatorImage, "/etcd-warden", "image-check", "copy", checkBinary)
	copied.ImagePullPolicy = corev1.PullIfNotPresent
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.Namespace, Name: cluster.ImageCheckPodName(c.Name), OwnerReferences: ownedBy(c),
			Labels:      map[string]string{cluster.LabelManagedBy: cluster.ManagedByValue, cluster.LabelImageCheck: c.Name},
			Annotations: map[string]string{cluster.AnnotationImageTarget: cluster.ImageTarget(intent)},
		},
		Spec: corev1.PodSpec{
			InitContainers:               []corev1.Container{copied},
			Containers:                   []corev1.Container{check(ContainerName, etcd.Image, checkBinary, "image-check", "run")},
			Volumes:                      []corev1.Volume{{Name: checkVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
			RestartPolicy:                corev1.RestartPolicyNever,
			ActiveDeadlineSeconds:        new(int64(imageCheckSeconds)),
			NodeSelector:                 intent.NodeSelector,
			Affinity:                     nodeAffinity(intent.Affinity),
			Tolerations:                  intent.Tolerations,
			PriorityClassName:            intent.PriorityClassName,
			SchedulerName:                intent.SchedulerName,
			RuntimeClassName:             nilIfEmpty(intent.RuntimeClassName),
			ImagePullSecrets:             intent.ImagePullSecrets,
			SecurityContext:              podSecurity(intent.SecurityContext),
			AutomountServiceAccountToken: new(false),
			EnableServiceLinks:           new(false),
		},
	}
}

// checkResources returns the member's limits, and small requests: no room is kept free for another member.
func checkResources(member corev1.ResourceRequirements) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
	}}
	for name := range r.Requests {
		limit, isLimited := member.Limits[name]
		if !isLimited {
			continue
		}
		if r.Limits == nil {
			r.Limits = corev1.ResourceList{}
		}
		r.Limits[name] = limit
		if limit.Cmp(r.Requests[name]) < 0 {
			r.Requests[name] = limit
		}
	}
	return r
}

func nodeAffinity(a *corev1.Affinity) *corev1.Affinity {
	if a == nil || a.NodeAffinity == nil {
		return nil
	}
	return &corev1.Affinity{NodeAffinity: a.NodeAffinity}
}
