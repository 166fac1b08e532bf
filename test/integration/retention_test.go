//go:build integration

package integration

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

func deleteVolumes(policy v1beta1.RetentionPolicyType) func(*v1beta1.EtcdCluster) {
	return func(c *v1beta1.EtcdCluster) {
		c.Spec.Storage = &v1beta1.Storage{RetentionPolicy: &v1beta1.RetentionPolicy{WhenDeleted: policy}}
	}
}

func TestVolumesGoWithTheClusterOnlyWhereTheUserSaysSo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		changes []v1beta1.RetentionPolicyType
		kept    int
	}{
		{name: "kept when nothing is said", kept: 3},
		{name: "kept when Retain is said", changes: []v1beta1.RetentionPolicyType{v1beta1.RetentionRetain}, kept: 3},
		{name: "deleted when Delete is said", changes: []v1beta1.RetentionPolicyType{v1beta1.RetentionDelete}},
		{name: "kept when Delete is taken back", changes: []v1beta1.RetentionPolicyType{v1beta1.RetentionDelete, v1beta1.RetentionRetain}, kept: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.createWithData()
			for _, policy := range c.changes {
				l.change(deleteVolumes(policy))
				l.settle()
				l.expectRest()
			}
			l.remove()
			var volumes corev1.PersistentVolumeClaimList
			must(t, l.kubernetes.list(t.Context(), &volumes))
			if len(volumes.Items) != c.kept {
				t.Errorf("%d volumes are left, want %d", len(volumes.Items), c.kept)
			}
		})
	}
}

func TestAReferenceOfSomebodyElseStaysOnAVolume(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	other := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: "other"}}
	must(t, admin.Create(t.Context(), other))
	v := l.volume("prod-0")
	v.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: other.Name, UID: other.UID}}
	must(t, admin.Update(t.Context(), v))
	for _, c := range []struct {
		policy v1beta1.RetentionPolicyType
		owners int
	}{{v1beta1.RetentionDelete, 2}, {v1beta1.RetentionRetain, 1}} {
		l.change(deleteVolumes(c.policy))
		l.settle()
		owners := l.volume("prod-0").OwnerReferences
		if len(owners) != c.owners || !slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == other.UID }) {
			t.Errorf("with the policy %s the owners are %v", c.policy, owners)
		}
	}
}

// TestVolumesThatGoWithADeletedClusterAreNotTakenBack delays the garbage collector.
// No member may start from a volume that it is about to delete.
func TestVolumesThatGoWithADeletedClusterAreNotTakenBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.createWithData()
	l.change(deleteVolumes(v1beta1.RetentionDelete))
	l.settle()
	must(t, admin.Delete(t.Context(), l.newCluster(1)))
	l.create(3)
	l.settle()
	expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonWaitingForDeletion)
	must(t, l.kubernetes.collect(t.Context()))
	clear(l.written)
	clear(l.memory)
	l.settleUntilAvailable()
	l.expectFounded(3)
}
