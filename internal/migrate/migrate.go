// Package migrate rewrites what the API server stores in an older version of the API, and then has the CRD say that nothing of it
// is left: only then may a later release drop the version.
package migrate

import (
	"context"
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// pageSize is how many objects are held in memory at once.
const pageSize = 500

// Migration brings all objects of a CRD to one version.
type Migration struct {
	Client client.Client
	// Live reads directly. Its scheme knows CustomResourceDefinitions.
	Live client.Reader
	// CRD is the name of the CustomResourceDefinition.
	CRD string
	// Version of the objects in the end, with their kind. It has to be the CRD's storage version.
	Version schema.GroupVersionKind
}

// NeedLeaderElection has one replica do it.
func (*Migration) NeedLeaderElection() bool { return true }

// Start migrates, and tries again until it succeeds or the context ends.
func (m *Migration) Start(ctx context.Context) error {
	pauses := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.1, Steps: 9, Cap: 5 * time.Minute}
	for {
		err := m.Run(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		log.FromContext(ctx).Error(err, "Stored objects were not migrated; it will be tried again", "crd", m.CRD)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pauses.Step()):
		}
	}
}

// Run migrates once. If it is interrupted, the next run begins anew; what is migrated already is not written again.
func (m *Migration) Run(ctx context.Context) error {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := m.Live.Get(ctx, client.ObjectKey{Name: m.CRD}, crd); err != nil {
		return fmt.Errorf("reading the CustomResourceDefinition %s: %w", m.CRD, err)
	}
	if storage := storageVersion(crd); storage != m.Version.Version {
		return fmt.Errorf("the CustomResourceDefinition %s stores %s, not %s: install the CRD of this release", m.CRD, storage, m.Version.Version)
	}
	if slices.Equal(crd.Status.StoredVersions, []string{m.Version.Version}) {
		return nil
	}
	rewritten, err := m.rewriteAll(ctx)
	if err != nil {
		return err
	}
	// The update is refused if the CRD changed since it was read: another version might have been stored meanwhile.
	crd.Status.StoredVersions = []string{m.Version.Version}
	if err := m.Client.Status().Update(ctx, crd); err != nil {
		return fmt.Errorf("noting in the CustomResourceDefinition %s that all objects are stored as %s: %w", m.CRD, m.Version.Version, err)
	}
	log.FromContext(ctx).Info("All stored objects are of one version", "crd", m.CRD, "version", m.Version.Version, "objects", rewritten)
	return nil
}

// rewriteAll has the API server write every object. It writes what changes in the store only.
func (m *Migration) rewriteAll(ctx context.Context) (count int, err error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(m.Version.GroupVersion().WithKind(m.Version.Kind + "List"))
	for {
		if err := m.Live.List(ctx, list, client.Limit(pageSize), client.Continue(list.Continue)); err != nil {
			return count, fmt.Errorf("listing the objects of %s: %w", m.CRD, err)
		}
		for i := range list.Items {
			if err := m.rewrite(ctx, &list.Items[i]); err != nil {
				return count, err
			}
			count++
		}
		if list.Continue == "" {
			return count, nil
		}
	}
}

// rewrite sends a patch that changes nothing: the API server applies it to whatever is stored by then, so that there is no conflict.
func (m *Migration) rewrite(ctx context.Context, object *metav1.PartialObjectMetadata) error {
	object.SetGroupVersionKind(m.Version)
	err := m.Client.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte("{}")))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("rewriting %s %s/%s: %w", m.Version.Kind, object.Namespace, object.Name, err)
	}
	return nil
}

func storageVersion(crd *apiextensionsv1.CustomResourceDefinition) string {
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			return v.Name
		}
	}
	return ""
}
