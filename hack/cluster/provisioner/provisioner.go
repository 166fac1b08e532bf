package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

const (
	provisionerName  = "local.etcd-warden.io"
	selectedNode     = "volume.kubernetes.io/selected-node"
	provisionedBy    = "pv.kubernetes.io/provisioned-by"
	workers          = 4
	reasonMade       = "Provisioned"
	reasonRoundedUp  = "SizeRoundedUp"
	reasonFailed     = "ProvisioningFailed"
	reasonGrown      = "VolumeGrown"
	reasonGrowFailed = "VolumeGrowthFailed"
)

// key names what a worker looks at: a claim by namespace and name, a volume by name alone.
type key struct{ namespace, name string }

type provisioner struct {
	client  kubernetes.Interface
	root    string
	factory informers.SharedInformerFactory
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	queue   workqueue.TypedRateLimitingInterface[key]
	events  record.EventRecorder
}

func newProvisioner(client kubernetes.Interface, root string) *provisioner {
	factory := informers.NewSharedInformerFactory(client, 0)
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &provisioner{
		client:  client,
		root:    root,
		factory: factory,
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[key]()),
		events:  broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: provisionerName}),
	}
}

// run works until ctx ends.
func (p *provisioner) run(ctx context.Context) {
	enqueue := func(object any) {
		if m, ok := object.(metav1.Object); ok {
			p.queue.Add(key{m.GetNamespace(), m.GetName()})
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }}
	for _, informer := range []cache.SharedIndexInformer{
		p.factory.Core().V1().PersistentVolumeClaims().Informer(),
		p.factory.Core().V1().PersistentVolumes().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			log.Fatalf("watching: %v", err)
		}
	}
	p.factory.Start(ctx.Done())
	p.factory.WaitForCacheSync(ctx.Done())
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for p.work(ctx) {
			}
		})
	}
	<-ctx.Done()
	p.queue.ShutDown()
	running.Wait()
}

func (p *provisioner) work(ctx context.Context) bool {
	k, stopped := p.queue.Get()
	if stopped {
		return false
	}
	defer p.queue.Done(k)
	var err error
	if k.namespace == "" {
		err = p.reconcileVolume(ctx, k.name)
	} else {
		err = p.reconcileClaim(ctx, k)
	}
	if err != nil {
		log.Printf("%s/%s: %v", k.namespace, k.name, err)
		p.queue.AddRateLimited(k)
		return true
	}
	p.queue.Forget(k)
	return true
}

// reconcileClaim makes the volume of a claim that has found its node, or grows the one it has.
func (p *provisioner) reconcileClaim(ctx context.Context, k key) error {
	claim, err := p.claims.PersistentVolumeClaims(k.namespace).Get(k.name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || claim.DeletionTimestamp != nil {
		return err
	}
	if claim.Spec.VolumeName != "" {
		return p.grow(ctx, claim)
	}
	node := claim.Annotations[selectedNode]
	if node == "" || claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || class.Provisioner != provisionerName {
		return err
	}
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	err = p.provision(ctx, claim, node, policy)
	if err != nil {
		p.events.Eventf(claim, corev1.EventTypeWarning, reasonFailed, "Making a volume on %s: %v", node, err)
	}
	return err
}

func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim, node string, policy corev1.PersistentVolumeReclaimPolicy) error {
	name := "pvc-" + string(claim.UID)
	if _, err := p.volumes.Get(name); !apierrors.IsNotFound(err) {
		return err
	}
	if err := servable(claim); err != nil {
		return err
	}
	capacity := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if capacity.Value() < minimumSize {
		p.events.Eventf(claim, corev1.EventTypeNormal, reasonRoundedUp, "XFS cannot be smaller than %d MiB: made that instead of %s", minimumSize>>20, capacity.String())
		capacity = *resource.NewQuantity(minimumSize, resource.BinarySI)
	}
	v := volume{mountpoint: filepath.Join(p.root, node, name)}
	if err := v.create(ctx, capacity.Value()); err != nil {
		return err
	}
	filesystem := corev1.PersistentVolumeFilesystem
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              *claim.Spec.StorageClassName,
			PersistentVolumeReclaimPolicy: policy,
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    &filesystem,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: capacity},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: v.mountpoint}},
			NodeAffinity:                  onNode(node),
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
		},
	}
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the PersistentVolume: %w", err)
	}
	p.events.Eventf(claim, corev1.EventTypeNormal, reasonMade, "Made %s of %s on %s", name, capacity.String(), node)
	return nil
}

func servable(claim *corev1.PersistentVolumeClaim) error {
	if mode := claim.Spec.VolumeMode; mode != nil && *mode != corev1.PersistentVolumeFilesystem {
		return fmt.Errorf("volume mode %s is not served, only Filesystem", *mode)
	}
	if claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil {
		return errors.New("volumes made from another volume or a snapshot are not served")
	}
	return nil
}

func onNode(node string) *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{
			Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
		}},
	}}}}
}

// grow follows a raised request: first the file system, in use or not, then the volume's capacity,
// then the claim's.
func (p *provisioner) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	pv, err := p.volumes.Get(claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || !p.ours(pv) || claim.Status.Phase != corev1.ClaimBound {
		return err
	}
	wanted := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	has := pv.Spec.Capacity[corev1.ResourceStorage]
	if wanted.Cmp(has) > 0 {
		if err := p.growVolume(ctx, pv, wanted); err != nil {
			p.events.Eventf(claim, corev1.EventTypeWarning, reasonGrowFailed, "Growing %s to %s: %v", pv.Name, wanted.String(), err)
			return err
		}
		p.events.Eventf(claim, corev1.EventTypeNormal, reasonGrown, "Grew %s from %s to %s", pv.Name, has.String(), wanted.String())
		has = wanted
	}
	if reported := claim.Status.Capacity[corev1.ResourceStorage]; reported.Cmp(has) >= 0 {
		return nil
	}
	status := map[string]any{"capacity": map[string]any{"storage": has.String()}, "conditions": nil, "allocatedResources": nil, "allocatedResourceStatuses": nil}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = p.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

func (p *provisioner) growVolume(ctx context.Context, pv *corev1.PersistentVolume, size resource.Quantity) error {
	if err := (volume{mountpoint: pv.Spec.Local.Path}).grow(ctx, size.Value()); err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"spec":{"capacity":{"storage":%q}}}`, size.String())
	_, err := p.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// reconcileVolume keeps a volume mounted, and removes it with its data once its claim is gone,
// unless it is to be retained.
func (p *provisioner) reconcileVolume(ctx context.Context, name string) error {
	pv, err := p.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || !p.ours(pv) {
		return err
	}
	v := volume{mountpoint: pv.Spec.Local.Path}
	if pv.Status.Phase != corev1.VolumeReleased || pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		return v.mount(ctx)
	}
	if err := v.remove(); err != nil {
		return err
	}
	err = p.client.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pv.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// ours tells a volume of this provisioner, by its mark and by where it lies.
func (p *provisioner) ours(pv *corev1.PersistentVolume) bool {
	if pv.Annotations[provisionedBy] != provisionerName || pv.Spec.Local == nil {
		return false
	}
	path := filepath.Clean(pv.Spec.Local.Path)
	return path == pv.Spec.Local.Path && filepath.Base(path) == pv.Name && filepath.Dir(filepath.Dir(path)) == filepath.Clean(p.root)
}
