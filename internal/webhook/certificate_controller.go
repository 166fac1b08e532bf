package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

const (
	// maxRequeueAfter bounds how late a renewal is on a machine whose clock jumped.
	maxRequeueAfter = time.Hour
	// At most 10 repairs at once, then one every 10 s, so that two writers do not overload the API server.
	repairBurst    = 10
	repairInterval = 10 * time.Second
)

// certificateController keeps three things consistent:
//
//   - the Secret with the certificate and its authorities;
//   - the CRD's spec.conversion, which says what the API server calls and trusts;
//   - the certificate that the server shows.
//
// Each replica runs one. All of them reach the same result.
type certificateController struct {
	// client reads and writes directly; reader reads the CRD from a watch.
	client client.Client
	reader client.Reader
	events events.EventRecorder
	now    func() time.Time

	crd    string
	secret client.ObjectKey
	// olmSecret says that OLM makes the Secret, so that it is only read.
	olmSecret bool
	target    apiextensionsv1.WebhookClientConfig
	names     []string

	// repairs limits successful repairs. Failed ones are limited like any error of a controller.
	repairs *rate.Limiter
	// conflictsInARow counts the writes in a row that another writer was faster than.
	conflictsInARow int
	// latest is the content of the Secret when it was last read.
	latest             *secretContent
	servingCertificate atomic.Pointer[servingCertificate]
	// caBundleInstalled is set once the CRD names the authority of the serving certificate.
	// It is never reset: while no replica is ready, the API server reaches none of them.
	caBundleInstalled atomic.Bool
}

// servingCertificate is the certificate that the server shows.
type servingCertificate struct {
	*secretContent
	pair *tls.Certificate
}

// getCertificate is for the server's TLS configuration.
func (c *certificateController) getCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if serving := c.servingCertificate.Load(); serving != nil {
		return serving.pair, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// Reconcile runs when the CRD changes and when a renewal is due.
func (c *certificateController) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := c.reader.Get(ctx, client.ObjectKey{Name: c.crd}, crd); err != nil {
		return ctrl.Result{}, fmt.Errorf("reading the CustomResourceDefinition %s: %w", c.crd, err)
	}
	if err := c.loadSecret(ctx, crd); err != nil {
		return c.requeueConflict(ctx, err)
	}
	wait, err := c.repairConversion(ctx, crd)
	if err != nil {
		return c.requeueConflict(ctx, err)
	}
	c.conflictsInARow = 0
	if wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	if err := c.updateServingCertificate(ctx, caBundleOf(crd)); err != nil {
		return ctrl.Result{}, err
	}
	if c.olmSecret {
		return ctrl.Result{RequeueAfter: maxRequeueAfter}, nil // OLM renews, and writes the new authority into the CRD
	}
	untilRenewal := max(c.latest.renewalDue.Sub(c.now()), time.Second)
	return ctrl.Result{RequeueAfter: min(untilRenewal, maxRequeueAfter)}, nil
}

// requeueConflict requeues where another writer was faster, each time a little later. It returns other errors.
func (c *certificateController) requeueConflict(ctx context.Context, err error) (ctrl.Result, error) {
	if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		return ctrl.Result{}, err
	}
	c.conflictsInARow++
	if c.conflictsInARow%repairBurst == 0 {
		log.FromContext(ctx).Info("Other writers are faster again and again", "times", c.conflictsInARow, "refused", err.Error())
	}
	return ctrl.Result{RequeueAfter: minRetryDelay << min(c.conflictsInARow-1, 4)}, nil
}

// loadSecret reads the Secret. It renews the Secret where OLM does not make it.
// It does nothing while the CRD names the authorities of the last read and no renewal is due.
// An empty caBundle, as an InstallPlan of OLM leaves it, needs no read: it is repaired from the last one at once.
func (c *certificateController) loadSecret(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) error {
	bundle := caBundleOf(crd)
	if c.latest != nil && (len(bundle) == 0 || bytes.Equal(c.latest.Authorities, bundle)) &&
		(c.olmSecret || c.now().Before(c.latest.renewalDue)) {
		return nil
	}
	secret := &corev1.Secret{}
	err := c.client.Get(ctx, c.secret, secret)
	switch {
	case apierrors.IsNotFound(err) && c.olmSecret && c.latest != nil:
		return nil // OLM is about to make another; until then the last one is still good
	case apierrors.IsNotFound(err) && !c.olmSecret:
		secret = nil
	case err != nil:
		return fmt.Errorf("reading the webhook's certificate: %w", err)
	}
	if c.olmSecret {
		keys := pki.Keys{Certificate: pki.TLSKeys.Certificate, Key: pki.TLSKeys.Key, Authorities: olmAuthority}
		return c.setLatest(secret.Data, keys)
	}
	data, err := c.ensureSecret(ctx, secret)
	if err != nil {
		return err
	}
	return c.setLatest(data, pki.TLSKeys)
}

func (c *certificateController) setLatest(data map[string][]byte, keys pki.Keys) error {
	content, err := parseSecret(data, keys, c.names, c.now())
	if err != nil {
		return fmt.Errorf("reading the webhook's certificate: Secret %s: %w", c.secret, err)
	}
	c.latest = content
	return nil
}

// ensureSecret writes the Secret if something in it is due. The write fails if another replica wrote meanwhile.
func (c *certificateController) ensureSecret(ctx context.Context, secret *corev1.Secret) (map[string][]byte, error) {
	exists := secret != nil
	if !exists {
		secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: c.secret.Namespace,
			Name:      c.secret.Name,
			Labels:    map[string]string{cluster.LabelManagedBy: cluster.ManagedByValue},
		}}
	}
	if secret.Labels[cluster.LabelManagedBy] != cluster.ManagedByValue {
		return nil, fmt.Errorf("the Secret %s is not the operator's: it lacks the label %s=%s. "+
			"Delete it, and the webhook creates its own", c.secret, cluster.LabelManagedBy, cluster.ManagedByValue)
	}
	data, done, err := renewSecretData(secret.Data, c.names, c.now())
	if err != nil || done == "" {
		return data, err
	}
	secret.Data = data
	if exists {
		err = c.client.Update(ctx, secret)
	} else {
		err = c.client.Create(ctx, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the webhook's certificate: %w", err)
	}
	log.FromContext(ctx).Info("Renewed the webhook's certificate", "secret", c.secret, "done", done)
	return data, nil
}

// repairConversion repairs the CRD's spec.conversion if it differs from the desired one, and updates crd.
// It returns how long to wait where too many repairs were needed.
func (c *certificateController) repairConversion(
	ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition,
) (wait time.Duration, err error) {
	want := desiredConversion(c.target, c.latest.Authorities)
	diff := difference(crd.Spec.Conversion, want)
	if diff == "" {
		return 0, nil
	}
	if c.repairs.TokensAt(c.now()) < 1 {
		c.sendEvent(crd, corev1.EventTypeWarning, v1beta1.EventConversionNotRepaired,
			"Another client keeps overwriting spec.conversion of CRD "+c.crd+" ("+diff+"). "+
				"v1alpha1 requests fail meanwhile. Find it in metadata.managedFields and stop it.")
		return repairInterval, nil
	}
	patch, err := conversionPatch(crd.Spec.Conversion, want)
	if err != nil {
		return 0, err
	}
	err = c.client.Patch(ctx, crd, patch)
	if isFailedTest(err) {
		err = apierrors.NewConflict(apiextensionsv1.Resource("customresourcedefinitions"), c.crd, err)
	}
	if apierrors.IsConflict(err) {
		return 0, err
	}
	if err != nil {
		c.sendEvent(crd, corev1.EventTypeWarning, v1beta1.EventConversionNotRepaired,
			"spec.conversion of CRD "+c.crd+" is wrong ("+diff+") and the repair failed: "+err.Error())
		return 0, fmt.Errorf("repairing the conversion of %s: %s: %w", c.crd, diff, err)
	}
	c.repairs.AllowN(c.now(), 1)
	log.FromContext(ctx).Info("Repaired the CRD's spec.conversion", "crd", c.crd, "difference", diff)
	c.sendEvent(crd, corev1.EventTypeNormal, v1beta1.EventConversionRepaired, "Repaired spec.conversion: "+diff+".")
	return 0, nil
}

// updateServingCertificate shows the latest certificate once the CRD's caBundle trusts it.
// Until then it keeps the one before.
func (c *certificateController) updateServingCertificate(ctx context.Context, caBundle []byte) error {
	serving, now := c.servingCertificate.Load(), c.now()
	if !c.latest.isTrustedBy(caBundle, c.names, now) {
		if serving == nil || !serving.isTrustedBy(caBundle, c.names, now) {
			return errors.New("the webhook has no certificate that the CRD's caBundle trusts")
		}
		return nil
	}
	if serving == nil || !bytes.Equal(serving.Certificate, c.latest.Certificate) {
		pair, err := c.latest.keyPair()
		if err != nil {
			return err
		}
		c.servingCertificate.Store(&servingCertificate{secretContent: c.latest, pair: pair})
		log.FromContext(ctx).Info("The webhook shows a new certificate", "expires", pair.Leaf.NotAfter)
	}
	c.caBundleInstalled.Store(true)
	return nil
}

func (c *certificateController) sendEvent(crd *apiextensionsv1.CustomResourceDefinition, kind, reason, message string) {
	c.events.Eventf(crd, nil, kind, reason, "Converting", "%.1000s", message)
}
