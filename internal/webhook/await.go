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
	// askEvery is how often a list that fails is tried again: it bounds how long after the webhook can be reached work begins.
	askEvery = 250 * time.Millisecond
	// askFor bounds one try.
	askFor = 30 * time.Second
	// sayEvery is how often a list that goes on failing is logged.
	sayEvery = 30 * time.Second
)

// patient is a cache that watches no EtcdCluster before a list of them succeeds.
type patient struct {
	cache.Cache
	list func(context.Context) error
}

// Patient returns a cache that watches no EtcdCluster before the list succeeds. A watch that begins while the API server does not
// reach the webhook may rest for half a minute after the webhook can be reached: so long are the pauses between its lists in the end.
func Patient(inner cache.Cache, list func(context.Context) error) cache.Cache {
	return patient{Cache: inner, list: list}
}

// GetInformer waits, if it has to.
func (p patient) GetInformer(ctx context.Context, object client.Object, options ...cache.InformerGetOption) (cache.Informer, error) {
	if _, ok := object.(*v1beta1.EtcdCluster); ok {
		if err := p.await(ctx); err != nil {
			return nil, err
		}
	}
	return p.Cache.GetInformer(ctx, object, options...)
}

// await returns when the list succeeds, or the context ends.
func (p patient) await(ctx context.Context) error {
	var told time.Time
	return wait.PollUntilContextCancel(ctx, askEvery, true, func(ctx context.Context) (bool, error) {
		asking, cancel := context.WithTimeout(ctx, askFor)
		defer cancel()
		err := p.list(asking)
		if err != nil && ctx.Err() == nil && time.Since(told) > sayEvery {
			told = time.Now()
			log.FromContext(ctx).Info("EtcdClusters cannot be read yet; running clusters serve on, and work on them begins when it can",
				"error", Explain(err).Error())
		}
		return err == nil, nil
	})
}

// Lister asks for all EtcdClusters, or those of the namespaces, by their metadata: the API server converts them all the same.
func Lister(c client.Client, namespaces []string) func(context.Context) error {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	return func(ctx context.Context) error {
		for _, namespace := range namespaces {
			list := &metav1.PartialObjectMetadataList{}
			list.SetGroupVersionKind(v1beta1.GroupVersion.WithKind("EtcdClusterList"))
			// As a cache does, of any version that the API server has at hand.
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
	return fmt.Errorf("%w. The API server cannot convert an EtcdCluster that is stored in an older version: "+
		"see that the pods of the Service %s are ready and that the API server reaches their port; "+
		"the conversion of the CRD %s is repaired by the operator by itself", err, ServiceName, CRD)
}

// IsConversion reports whether an error of the API server comes from the conversion of an object.
func IsConversion(err error) bool {
	return err != nil && strings.Contains(err.Error(), "conversion webhook for ")
}
