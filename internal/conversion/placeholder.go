// Package conversion converts EtcdClusters between the API's versions.
package conversion

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/conversion"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/api/v1beta1"
)

type placeholder struct{}

// Converter converts the number of members and the version.
func Converter(*runtime.Scheme) (conversion.Converter, error) { return placeholder{}, nil }

func (placeholder) ConvertObject(_ context.Context, src, dst runtime.Object) error {
	switch src := src.(type) {
	case *v1alpha1.EtcdCluster:
		d, ok := dst.(*v1beta1.EtcdCluster)
		if !ok {
			return fmt.Errorf("no such conversion")
		}
		d.ObjectMeta = src.ObjectMeta
		d.Spec.Replicas, d.Spec.Version = src.Spec.Size, src.Spec.Version
		return nil
	case *v1beta1.EtcdCluster:
		d, ok := dst.(*v1alpha1.EtcdCluster)
		if !ok {
			return fmt.Errorf("no such conversion")
		}
		d.ObjectMeta = src.ObjectMeta
		d.Spec.Size, d.Spec.Version = src.Spec.Replicas, src.Spec.Version
		return nil
	}
	return fmt.Errorf("no such conversion")
}
