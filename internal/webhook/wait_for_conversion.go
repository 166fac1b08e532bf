package webhook

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

const (
	// listInterval is the pause between two tries.
	// It bounds how long after the webhook's start the manager begins work.
	listInterval = 250 * time.Millisecond
	// listTimeout bounds one try.
	listTimeout = 30 * time.Second
	// logInterval is the pause between two log lines while the list fails.
	logInterval = 30 * time.Second
)

// waitingCache is a cache that watches EtcdClusters only after a list of them has succeeded.
type waitingCache struct {
	cache.Cache
	list func(context.Context) error
}

// WaitForConversion returns a cache that watches EtcdClusters only after the list has succeeded once.
// The manager starts like this because a list needs the webhook where objects are stored in an older version.
// A watch that starts too early pauses for up to 30 s between its lists, so it would begin work late.
func WaitForConversion(inner cache.Cache, list func(context.Context) error) cache.Cache {
	return waitingCache{Cache: inner, list: list}
}

// GetInformer waits for the first list where the informer is that of EtcdClusters.
func (c waitingCache) GetInformer(
	ctx context.Context, object client.Object, options ...cache.InformerGetOption,
) (cache.Informer, error) {
	if _, ok := object.(*v1beta1.EtcdCluster); ok {
		if err := c.waitForList(ctx); err != nil {
			return nil, err
		}
	}
	return c.Cache.GetInformer(ctx, object, options...)
}

// waitForList returns when the list succeeds, or with an error when the context ends.
func (c waitingCache) waitForList(ctx context.Context) error {
	var logged time.Time
	return wait.PollUntilContextCancel(ctx, listInterval, true, func(ctx context.Context) (bool, error) {
		trying, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		err := c.list(trying)
		if err != nil && ctx.Err() == nil && time.Since(logged) > logInterval {
			logged = time.Now()
			log.FromContext(ctx).Info("Cannot list EtcdClusters yet. Running etcd clusters are not affected. Trying again",
				"error", Explain(err).Error())
		}
		return err == nil, nil
	})
}

// Lister returns a function that lists the EtcdClusters of the namespaces, or all.
// It asks for metadata only. The API server converts the objects nevertheless.
func Lister(c client.Client, namespaces []string) func(context.Context) error {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	return func(ctx context.Context) error {
		for _, namespace := range namespaces {
			list := &metav1.PartialObjectMetadataList{}
			list.SetGroupVersionKind(v1beta1.GroupVersion.WithKind("EtcdClusterList"))
			// Resource version 0 lets the API server answer from its cache, as a watch's first list does.
			fromCache := &client.ListOptions{Namespace: namespace, Raw: &metav1.ListOptions{ResourceVersion: "0"}}
			if err := c.List(ctx, list, fromCache); err != nil {
				return fmt.Errorf("listing EtcdClusters: %w", err)
			}
		}
		return nil
	}
}

// Explain adds what to do to an error of the API server that comes from the conversion of an object.
func Explain(err error) error {
	if err == nil || !IsConversion(err) {
		return err
	}
	return fmt.Errorf("%w. The API server cannot convert an EtcdCluster that is stored in an older version. "+
		"Check that the pods of the Service %s are ready and that the API server reaches their port. "+
		"They repair spec.conversion of the CRD %s themselves", err, ServiceName, CRD)
}

// IsConversion reports whether an error of the API server comes from the conversion of an object.
func IsConversion(err error) bool {
	return err != nil && strings.Contains(err.Error(), "conversion webhook for ")
}
