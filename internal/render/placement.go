package render

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// affinity returns the user's affinity, with one member a node where that is asked for.
func affinity(in MemberInput) *corev1.Affinity {
	asked := in.Intent.Affinity.DeepCopy()
	if !in.Intent.AntiAffinity {
		return asked
	}
	if asked == nil {
		asked = &corev1.Affinity{}
	}
	asked.PodAntiAffinity = &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey:   corev1.LabelHostname,
			LabelSelector: &metav1.LabelSelector{MatchLabels: allMembers(in.Cluster)},
		}},
	}
	return asked
}

// spread returns the user's constraints, or spreads members over nodes and zones where the scheduler can.
// A user who says anything about affinity decides alone.
func spread(in MemberInput) []corev1.TopologySpreadConstraint {
	if asked := in.Intent.TopologySpreadConstraints; len(asked) > 0 {
		return asked
	}
	if in.Intent.Affinity != nil || in.Intent.AntiAffinity {
		return nil
	}
	var soft []corev1.TopologySpreadConstraint
	for _, key := range []string{corev1.LabelHostname, corev1.LabelTopologyZone} {
		soft = append(soft, corev1.TopologySpreadConstraint{
			MaxSkew:           1,
			TopologyKey:       key,
			WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector:     &metav1.LabelSelector{MatchLabels: allMembers(in.Cluster)},
		})
	}
	return soft
}
