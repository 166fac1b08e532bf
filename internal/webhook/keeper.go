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
	// longestSleep bounds how long a renewal may be overdue on a machine whose clock jumped.
	longestSleep = time.Hour
	// Whoever overwrites the stanza more often than this gets his way for a while: a fight would cost the API server more.
	repairsAtOnce = 10
	repairEvery   = 10 * time.Second
)

// keeper keeps three things in step: the Secret with the certificate, what the CRD tells the API server to call and to trust,
// and the certificate that is shown to it. Every replica runs one; all of them come to the same end.
type keeper struct {
	// client reads and writes directly; reader reads the CRD from a watch.
	client client.Client
	reader client.Reader
	events events.EventRecorder
	now    func() time.Time

	crd    string
	secret client.ObjectKey
	// olm tells that OLM makes the Secret, so that it is only read.
	olm    bool
	target apiextensionsv1.WebhookClientConfig
	names  []string

	// repairs are those that succeeded: what fails is tried again as fast as any error.
	repairs *rate.Limiter
	// late counts the writes in a row that somebody else's came before.
	late int
	// newest is what the Secret held at the last look.
	newest *material
	shown  atomic.Pointer[shown]
	// agreed is set once the API server was told to trust what is shown. It is never taken back: an unready pod would get no
	// conversions at all, and nothing gets better by that.
	agreed atomic.Bool
}

// shown is the certificate that the server shows.
type shown struct {
	*material
	pair *tls.Certificate
}

// certificate is for the server's TLS configuration.
func (k *keeper) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s := k.shown.Load(); s != nil {
		return s.pair, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// Reconcile is one look: whenever the CRD changes, and when a renewal is due.
func (k *keeper) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := k.reader.Get(ctx, client.ObjectKey{Name: k.crd}, crd); err != nil {
		return ctrl.Result{}, fmt.Errorf("reading the CustomResourceDefinition %s: %w", k.crd, err)
	}
	if err := k.lookAtSecret(ctx, crd); err != nil {
		return k.again(err)
	}
	wait, err := k.repair(ctx, crd)
	if err != nil {
		return k.again(err)
	}
	k.late = 0
	if wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	if err := k.show(ctx, bundleOf(crd)); err != nil {
		return ctrl.Result{}, err
	}
	if k.olm {
		return ctrl.Result{RequeueAfter: longestSleep}, nil // OLM renews, and writes into the CRD what it renewed
	}
	return ctrl.Result{RequeueAfter: min(max(k.newest.due.Sub(k.now()), time.Second), longestSleep)}, nil
}

// again has a write that came too late tried again without an error in the log, soon and then less often.
func (k *keeper) again(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		k.late++
		return ctrl.Result{RequeueAfter: quickestRetry << min(k.late-1, 4)}, nil
	}
	return ctrl.Result{}, err
}

// lookAtSecret reads the Secret, and writes it where that is the operator's part, unless what is known of it is in force and not due.
// A stanza that names no authority, as an InstallPlan of OLM leaves it, tells nothing new, and every moment counts.
func (k *keeper) lookAtSecret(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) error {
	bundle := bundleOf(crd)
	if k.newest != nil && (len(bundle) == 0 || bytes.Equal(k.newest.Authorities, bundle)) && (k.olm || k.now().Before(k.newest.due)) {
		return nil
	}
	secret := &corev1.Secret{}
	err := k.client.Get(ctx, k.secret, secret)
	switch {
	case apierrors.IsNotFound(err) && k.olm && k.newest != nil:
		return nil // OLM is about to make another; until then what is shown is still good
	case apierrors.IsNotFound(err) && !k.olm:
		secret = nil
	case err != nil:
		return fmt.Errorf("reading the webhook's certificate: %w", err)
	}
	if k.olm {
		return k.take(secret.Data, pki.Keys{Certificate: pki.TLSKeys.Certificate, Key: pki.TLSKeys.Key, Authorities: olmAuthority})
	}
	data, err := k.renewSecret(ctx, secret)
	if err != nil {
		return err
	}
	return k.take(data, pki.TLSKeys)
}

func (k *keeper) take(data map[string][]byte, keys pki.Keys) error {
	m, err := read(data, keys, k.names, k.now())
	if err != nil {
		return fmt.Errorf("reading the webhook's certificate: Secret %s: %w", k.secret, err)
	}
	k.newest = m
	return nil
}

// renewSecret writes the Secret if something in it is due, on condition that nobody else wrote it meanwhile.
func (k *keeper) renewSecret(ctx context.Context, secret *corev1.Secret) (map[string][]byte, error) {
	exists := secret != nil
	if !exists {
		secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: k.secret.Namespace,
			Name:      k.secret.Name,
			Labels:    map[string]string{cluster.LabelManagedBy: cluster.ManagedByValue},
		}}
	}
	if secret.Labels[cluster.LabelManagedBy] != cluster.ManagedByValue {
		return nil, fmt.Errorf("the Secret %s is somebody else's: it lacks the label %s=%s. Delete it, and the operator makes its own",
			k.secret, cluster.LabelManagedBy, cluster.ManagedByValue)
	}
	data, done, err := renew(secret.Data, k.names, k.now())
	if err != nil || done == "" {
		return data, err
	}
	secret.Data = data
	if exists {
		err = k.client.Update(ctx, secret)
	} else {
		err = k.client.Create(ctx, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the webhook's certificate: %w", err)
	}
	log.FromContext(ctx).Info("Renewed what the webhook needs", "secret", k.secret, "done", done)
	return data, nil
}

// repair puts the CRD's conversion stanza right if it differs, and crd with it. It may ask for patience instead.
func (k *keeper) repair(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) (wait time.Duration, err error) {
	want := stanza(k.target, k.newest.Authorities)
	wrong := fault(crd.Spec.Conversion, want)
	if wrong == "" {
		return 0, nil
	}
	if k.repairs.TokensAt(k.now()) < 1 {
		k.tell(crd, corev1.EventTypeWarning, v1beta1.EventConversionNotRepaired,
			"Somebody overwrites the conversion of "+k.crd+" again and again ("+wrong+"): stop them, or conversions fail from time to time")
		return repairEvery, nil
	}
	patch, err := replacement(crd.ResourceVersion, want)
	if err != nil {
		return 0, err
	}
	err = k.client.Patch(ctx, crd, patch)
	if apierrors.IsConflict(err) {
		return 0, err
	}
	if err != nil {
		k.tell(crd, corev1.EventTypeWarning, v1beta1.EventConversionNotRepaired, "The conversion of "+k.crd+" is wrong ("+wrong+") and cannot be put right: "+err.Error())
		return 0, fmt.Errorf("repairing the conversion of %s: %s: %w", k.crd, wrong, err)
	}
	k.repairs.AllowN(k.now(), 1)
	repairsTotal.Inc()
	log.FromContext(ctx).Info("Repaired the CRD's conversion", "crd", k.crd, "fault", wrong)
	k.tell(crd, corev1.EventTypeNormal, v1beta1.EventConversionRepaired, "Put the conversion right: "+wrong)
	return 0, nil
}

// show shows the newest certificate as soon as the API server was told to trust it, and until then the one before.
func (k *keeper) show(ctx context.Context, trusted []byte) error {
	have, now := k.shown.Load(), k.now()
	if !k.newest.trusted(trusted, k.names, now) {
		if have == nil || !have.trusted(trusted, k.names, now) {
			return errors.New("the webhook has no certificate that the API server was told to trust")
		}
		return nil
	}
	if have == nil || !bytes.Equal(have.Certificate, k.newest.Certificate) {
		pair, err := k.newest.pair()
		if err != nil {
			return err
		}
		k.shown.Store(&shown{material: k.newest, pair: pair})
		log.FromContext(ctx).Info("The webhook shows a new certificate", "until", pair.Leaf.NotAfter)
	}
	k.agreed.Store(true)
	return nil
}

func (k *keeper) tell(crd *apiextensionsv1.CustomResourceDefinition, kind, reason, message string) {
	k.events.Eventf(crd, nil, kind, reason, "Converting", "%.1000s", message)
}
