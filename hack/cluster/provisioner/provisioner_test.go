package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOnlyVolumesOfThisProvisionerAreTouched(t *testing.T) {
	local := func(path string) corev1.PersistentVolumeSource {
		return corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}
	}
	for name, test := range map[string]struct {
		mark   string
		source corev1.PersistentVolumeSource
		want   bool
	}{
		"its own":                        {provisionerName, local("/volumes/node-1/pv"), true},
		"without its mark":               {"", local("/volumes/node-1/pv"), false},
		"of another provisioner":         {"other", local("/volumes/node-1/pv"), false},
		"outside its folder":             {provisionerName, local("/etc/node-1/pv"), false},
		"climbing out of its folder":     {provisionerName, local("/volumes/../pv"), false},
		"with the path of another":       {provisionerName, local("/volumes/node-1/other"), false},
		"a volume that is not local":     {provisionerName, corev1.PersistentVolumeSource{}, false},
		"deeper than a volume of a node": {provisionerName, local("/volumes/node-1/x/pv"), false},
	} {
		t.Run(name, func(t *testing.T) {
			pv := &corev1.PersistentVolume{
				ObjectMeta: metav1.ObjectMeta{Name: "pv", Annotations: map[string]string{provisionedBy: test.mark}},
				Spec:       corev1.PersistentVolumeSpec{PersistentVolumeSource: test.source},
			}
			if got := (&provisioner{root: "/volumes"}).ours(pv); got != test.want {
				t.Errorf("ours is %v, want %v", got, test.want)
			}
		})
	}
}

func TestClaimsThatCannotBeServedAreRefused(t *testing.T) {
	block, filesystem := corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem
	for name, test := range map[string]struct {
		spec   corev1.PersistentVolumeClaimSpec
		refuse bool
	}{
		"a file system":   {corev1.PersistentVolumeClaimSpec{VolumeMode: &filesystem}, false},
		"the default":     {corev1.PersistentVolumeClaimSpec{}, false},
		"a block device":  {corev1.PersistentVolumeClaimSpec{VolumeMode: &block}, true},
		"from a snapshot": {corev1.PersistentVolumeClaimSpec{DataSource: &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := servable(&corev1.PersistentVolumeClaim{Spec: test.spec})
			if (err != nil) != test.refuse {
				t.Errorf("error is %v", err)
			}
		})
	}
}
