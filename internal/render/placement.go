package render

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// affinity returns the user's affinity.
// With AntiAffinity, it also requires that each member runs on another node.
func affinity(in MemberInput) *corev1.Affinity {
	requested := in.Intent.Affinity.DeepCopy()
	if !in.Intent.AntiAffinity {
		return requested
	}
	if requested == nil {
		requested = &corev1.Affinity{}
	}
	requested.PodAntiAffinity = &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey:   corev1.LabelHostname,
			LabelSelector: &metav1.LabelSelector{MatchLabels: allMembers(in.Cluster)},
		}},
	}
	return requested
}

// spread returns the user's constraints. Without them it spreads the members over nodes and zones, as a preference.
// If the spec has any affinity, it adds no constraint.
func spread(in MemberInput) []corev1.TopologySpreadConstraint {
	if requested := in.Intent.TopologySpreadConstraints; len(requested) > 0 {
		return requested
	}
	if in.Intent.Affinity != nil || in.Intent.AntiAffinity {
		return nil
	}
	members := &metav1.LabelSelector{MatchLabels: allMembers(in.Cluster)}
	var soft []corev1.TopologySpreadConstraint
	for _, key := range []string{corev1.LabelHostname, corev1.LabelTopologyZone} {
		soft = append(soft, corev1.TopologySpreadConstraint{
			MaxSkew:           1,
			TopologyKey:       key,
			WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector:     members,
		})
	}
	return soft
}
