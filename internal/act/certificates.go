package act

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// Lifetimes are those of what the operator issues.
type Lifetimes struct {
	Certificate, Authority time.Duration
}

// secretWriter makes the writes of one pass to Secrets. It remembers what it wrote, so that nobody reads it again.
type secretWriter struct {
	*Actor
	written map[string]*corev1.Secret
}

// writeAuthority takes a step with an authority, on condition that its Secret is as it was found.
func (a *secretWriter) writeAuthority(ctx context.Context, s *cluster.Snapshot, item plan.WriteAuthority) error {
	desired := render.AuthoritySecret(s.Cluster, item.Traffic)
	live, err := a.secretAsKnown(ctx, s, item.Known)
	if err != nil {
		return err
	}
	var have map[string][]byte
	if live != nil {
		have = live.Data
	}
	if desired.Data, err = a.authorityData(ctx, s, item, have); err != nil {
		return err
	}
	desired.Annotations = map[string]string{v1beta1.RotateAuthoritiesAnnotation: item.RotationRequest}
	if item.Phase != "" {
		desired.Annotations[cluster.AnnotationAuthorityPhase] = string(item.Phase)
	}
	if item.PhaseReached {
		desired.Annotations[cluster.AnnotationAuthoritySince] = s.Now.UTC().Format(time.RFC3339)
	}
	log.FromContext(ctx).Info("Writing certificate authority", "secret", desired.Name, "step", item.Step)
	return a.writeSecret(ctx, s, desired, live)
}

// authorityData is what the Secret of an authority holds after the step.
func (a *secretWriter) authorityData(ctx context.Context, s *cluster.Snapshot, item plan.WriteAuthority, have map[string][]byte) (map[string][]byte, error) {
	certificate, key := have[pki.TLSKeys.Certificate], have[pki.TLSKeys.Key]
	switch item.Step {
	case plan.MarkAuthority:
		return have, nil
	case plan.IssueFromAuthority:
		return authorityData(certificate, key, have[pki.TLSKeys.Authorities]), nil
	case plan.AnnounceAuthority:
		return a.announcedData(ctx, s, item.Traffic, have)
	case plan.ForgetAuthority:
		return authorityData(certificate, key, certificate), nil
	case plan.MakeAuthority, plan.RotateAuthority:
	}
	made, err := pki.NewAuthority(fmt.Sprintf("etcd-warden %s %s", s.Cluster.Name, item.Traffic), s.Now, a.Lifetimes.Authority)
	if err != nil {
		return nil, err
	}
	newCertificate, newKey, err := made.PEM()
	if err != nil {
		return nil, err
	}
	if item.Step == plan.RotateAuthority {
		data := authorityData(newCertificate, newKey, pki.Bundle(s.Now, newCertificate, certificate, have[pki.TLSKeys.Authorities]))
		data[pki.PreviousKeys.Certificate], data[pki.PreviousKeys.Key] = certificate, key
		return data, nil
	}
	return a.announcedData(ctx, s, item.Traffic, map[string][]byte{
		pki.TLSKeys.Certificate: newCertificate, pki.TLSKeys.Key: newKey, pki.TLSKeys.Authorities: have[pki.TLSKeys.Authorities],
	})
}

// announcedData adds an authority to those that are trusted already. The old one still issues if its key is there.
func (a *secretWriter) announcedData(ctx context.Context, s *cluster.Snapshot, traffic cluster.Traffic, have map[string][]byte) (map[string][]byte, error) {
	trusted, err := a.bundles(ctx, s, traffic)
	if err != nil {
		return nil, err
	}
	certificate := have[pki.TLSKeys.Certificate]
	data := authorityData(certificate, have[pki.TLSKeys.Key], pki.Bundle(s.Now, append([][]byte{certificate, have[pki.TLSKeys.Authorities]}, trusted...)...))
	for _, key := range []string{pki.PreviousKeys.Certificate, pki.PreviousKeys.Key} {
		if value := have[key]; len(value) > 0 {
			data[key] = value
		}
	}
	return data, nil
}

func authorityData(certificate, key, bundle []byte) map[string][]byte {
	return map[string][]byte{pki.TLSKeys.Certificate: certificate, pki.TLSKeys.Key: key, pki.TLSKeys.Authorities: bundle}
}

// bundles reads the authorities that the Secrets of a kind of traffic make members and clients trust. Where the Secret
// of the authority is gone, nothing else names them.
func (a *secretWriter) bundles(ctx context.Context, s *cluster.Snapshot, traffic cluster.Traffic) ([][]byte, error) {
	if s.JustCreated {
		return nil, nil
	}
	var all [][]byte
	for _, role := range traffic.Roles() {
		secret, err := a.secret(ctx, s, cluster.CertificateName(s.Cluster.Name, role))
		if err != nil {
			return nil, err
		}
		if secret != nil && cluster.Owns(s.Cluster, secret) {
			all = append(all, secret.Data[pki.TLSKeys.Authorities])
		}
	}
	return all, nil
}

// writeCertificate issues a certificate, or writes only the bundle beside it. Its Secret must be as it was read.
func (a *secretWriter) writeCertificate(ctx context.Context, s *cluster.Snapshot, item plan.WriteCertificate) error {
	name := cluster.AuthorityName(s.Cluster.Name, item.Traffic)
	authority, err := a.secret(ctx, s, name)
	if err != nil {
		return err
	}
	if authority == nil || !cluster.Owns(s.Cluster, authority) {
		return conflict("Secret", name, "it is gone, or somebody else's")
	}
	live, err := a.secretAsKnown(ctx, s, item.Known)
	if err != nil {
		return err
	}
	desired := render.CertificateSecret(s.Cluster, item.Role)
	if desired.Data, err = a.certificateData(s, item, authority, live); err != nil {
		return err
	}
	log.FromContext(ctx).Info("Writing certificate", "secret", desired.Name, "renewed", item.Renew)
	return a.writeSecret(ctx, s, desired, live)
}

func (a *Actor) certificateData(s *cluster.Snapshot, item plan.WriteCertificate, authority, live *corev1.Secret) (map[string][]byte, error) {
	data := map[string][]byte{pki.TLSKeys.Authorities: authority.Data[pki.TLSKeys.Authorities]}
	if !item.Renew && live != nil {
		data[pki.TLSKeys.Certificate], data[pki.TLSKeys.Key] = live.Data[pki.TLSKeys.Certificate], live.Data[pki.TLSKeys.Key]
		return data, nil
	}
	issuer, err := issuerOf(authority, item.Issuer)
	if err != nil {
		return nil, err
	}
	material, err := issuer.Issue(render.CertificateTemplate(s.Cluster, item.Role, item.Domain), s.Now, a.Lifetimes.Certificate)
	if err != nil {
		return nil, fmt.Errorf("writing Secret %s: %w", cluster.CertificateName(s.Cluster.Name, item.Role), err)
	}
	data[pki.TLSKeys.Certificate], data[pki.TLSKeys.Key] = material.Certificate, material.Key
	return data, nil
}

// issuerOf reads the authority of a fingerprint from its Secret. Without a fingerprint it is the newest one, which was
// made in this pass.
func issuerOf(authority *corev1.Secret, fingerprint string) (*pki.Authority, error) {
	for _, keys := range []pki.Keys{pki.TLSKeys, pki.PreviousKeys} {
		list, err := pki.Identities(authority.Data[keys.Certificate])
		if err != nil || fingerprint != "" && list[0].Fingerprint != fingerprint {
			continue
		}
		return pki.ReadAuthority(authority.Data[keys.Certificate], authority.Data[keys.Key])
	}
	return nil, conflict("Secret", authority.Name, "it holds another authority")
}

// secret reads a Secret, nil where there is none.
func (a *secretWriter) secret(ctx context.Context, s *cluster.Snapshot, name string) (*corev1.Secret, error) {
	if secret := a.written[name]; secret != nil {
		return secret, nil
	}
	var secret corev1.Secret
	err := a.Live.Get(ctx, client.ObjectKey{Namespace: s.Cluster.Namespace, Name: name}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	return &secret, nil
}

// secretAsKnown reads a Secret that nobody wrote since it was found, nil where there was none.
func (a *secretWriter) secretAsKnown(ctx context.Context, s *cluster.Snapshot, known cluster.ObjectVersion) (*corev1.Secret, error) {
	if !known.Exists() {
		return nil, nil
	}
	secret, err := a.secret(ctx, s, known.Name)
	if err != nil {
		return nil, err
	}
	if secret == nil || secret.UID != known.UID || secret.ResourceVersion != known.ResourceVersion {
		return nil, conflict("Secret", known.Name, "it was written since it was read")
	}
	return secret, nil
}

// writeSecret creates a Secret, or puts the desired content into the live one.
func (a *secretWriter) writeSecret(ctx context.Context, s *cluster.Snapshot, desired, live *corev1.Secret) error {
	if live == nil {
		if err := a.create(ctx, s, desired, ownedBy(s)); err != nil {
			return err
		}
		if desired.UID == "" { // it exists, and is the cluster's own, but holds something else
			return conflict("Secret", desired.Name, "it was created since it was looked for")
		}
		a.written[desired.Name] = desired
		return nil
	}
	updated := live.DeepCopy()
	for key, value := range desired.Labels {
		metav1.SetMetaDataLabel(&updated.ObjectMeta, key, value)
	}
	for _, key := range []string{cluster.AnnotationAuthorityPhase, cluster.AnnotationAuthoritySince} {
		delete(updated.Annotations, key)
	}
	for key, value := range desired.Annotations {
		metav1.SetMetaDataAnnotation(&updated.ObjectMeta, key, value)
	}
	updated.Data = desired.Data
	if err := a.Client.Update(ctx, updated, fieldOwner); err != nil {
		return writeError("updating", "Secret", desired.Name, err)
	}
	a.written[desired.Name] = updated
	return nil
}

// conflict is the conflict of a decision with what was written since.
func conflict(kind, name, how string) error {
	return apierrors.NewConflict(schema.GroupResource{Resource: kind}, name, errors.New(how))
}
