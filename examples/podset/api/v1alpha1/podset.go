// Package v1alpha1 contains the type PodSet.
// +kubebuilder:object:generate=true
// +groupName=examples.etcd-warden.io
package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of the types in this package.
var GroupVersion = schema.GroupVersion{Group: "examples.etcd-warden.io", Version: "v1alpha1"}

// AddToScheme adds the types of this package to a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &PodSet{}, &PodSetList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// PodSet keeps a number of pods running that are made from one template.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:printcolumn:name=Desired,type=integer,JSONPath=.spec.replicas
// +kubebuilder:printcolumn:name=Current,type=integer,JSONPath=.status.replicas
// +kubebuilder:printcolumn:name=Ready,type=integer,JSONPath=.status.readyReplicas
// +kubebuilder:printcolumn:name=State,type=string,JSONPath=".status.conditions[?(@.type=='Ready')].reason"
type PodSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              PodSetSpec   `json:"spec"`
	Status            PodSetStatus `json:"status,omitempty"`
}

// PodSetList is a list of PodSets.
// +kubebuilder:object:root=true
type PodSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PodSet `json:"items"`
}

// PodSetSpec is what the user wants.
// +kubebuilder:validation:XValidation:rule="self.selector == oldSelf.selector",message="the selector cannot be changed: create another PodSet"
// +kubebuilder:validation:XValidation:rule="has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0",message="set selector.matchLabels: an empty selector selects every pod"
// +kubebuilder:validation:XValidation:rule="has(self.template.spec)",message="set template.spec: what the pods run"
// +kubebuilder:validation:XValidation:rule="!has(self.template.spec) || !has(self.template.spec.restartPolicy) || self.template.spec.restartPolicy == 'Always'",message="set template.spec.restartPolicy to Always, or leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.template.spec) || !has(self.template.spec.activeDeadlineSeconds)",message="remove template.spec.activeDeadlineSeconds: the pods of a PodSet run until they are deleted"
type PodSetSpec struct {
	// Replicas is how many pods run.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`
	// Selector selects the pods of this set by their labels. The template has to have these labels.
	Selector metav1.LabelSelector `json:"selector"`
	// Template is what the pods are made from. A change replaces them one by one.
	Template corev1.PodTemplateSpec `json:"template"`
}

// PodSetStatus is what the controller saw last.
type PodSetStatus struct {
	// ObservedGeneration is the generation of the spec that this status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Replicas is how many pods exist, without those that are going away. ReadyReplicas of them are ready.
	Replicas      int32 `json:"replicas"`
	ReadyReplicas int32 `json:"readyReplicas"`
	// PodNames are their names in alphabetical order.
	PodNames []string `json:"podNames,omitempty"`
	// Selector is spec.selector as text, for the scale subresource.
	Selector string `json:"selector,omitempty"`
	// Conditions has one condition, Ready.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// The condition of a PodSet and its reasons. It is true with UpToDate only.
const (
	ConditionReady     = "Ready"
	ReasonUpToDate     = "UpToDate"
	ReasonPodsNotReady = "PodsNotReady"
	ReasonScaling      = "Scaling"
	ReasonRolling      = "Rolling"
	ReasonInvalidSpec  = "InvalidSpec"
	ReasonRefused      = "Refused"
)

// TemplateLabel is the label of a pod that tells which template it is made from.
const TemplateLabel = "examples.etcd-warden.io/template"
