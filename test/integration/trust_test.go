//go:build integration

package integration

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// mounted is what etcd reads of a Secret: the certificate anew at each handshake, the authorities once at its start.
type mounted struct {
	secret, certificateKey string
	certificate            []byte
	authorities            []byte
}

// identity is what one side of a connection shows and trusts.
type identity struct{ certificate, authorities []byte }

// accepts reports whether the member and a client accept each other.
func (m *mounted) accepts(client identity, now time.Time) error {
	if err := verify(client.certificate, m.authorities, x509.ExtKeyUsageClientAuth, now); err != nil {
		return fmt.Errorf("the member refuses the client: %w", err)
	}
	if err := verify(m.certificate, client.authorities, x509.ExtKeyUsageServerAuth, now); err != nil {
		return fmt.Errorf("the client refuses the member: %w", err)
	}
	return nil
}

func verify(certificate, authorities []byte, usage x509.ExtKeyUsage, now time.Time) error {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return errors.New("there is no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authorities)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

// mount reads the Secrets of a pod as its container finds them when it starts.
func (k *kubernetes) mount(ctx context.Context, pod *corev1.Pod) (map[cluster.Traffic]*mounted, error) {
	flags, all := flagsOf(pod), map[cluster.Traffic]*mounted{}
	for traffic, prefix := range map[cluster.Traffic]string{cluster.PeerTraffic: "peer-", cluster.ClientTraffic: ""} {
		file := flags[prefix+"trusted-ca-file"]
		if file == "" {
			continue
		}
		m := &mounted{secret: secretAt(pod, path.Dir(file)), certificateKey: path.Base(flags[prefix+"cert-file"])}
		var secret corev1.Secret
		if err := admin.Get(ctx, client.ObjectKey{Namespace: k.namespace, Name: m.secret}, &secret); err != nil {
			return nil, err
		}
		m.certificate, m.authorities = secret.Data[m.certificateKey], secret.Data[path.Base(file)]
		all[traffic] = m
	}
	return all, nil
}

func secretAt(pod *corev1.Pod, folder string) string {
	for _, mount := range pod.Spec.Containers[0].VolumeMounts {
		for _, volume := range pod.Spec.Volumes {
			if mount.MountPath == folder && mount.Name == volume.Name && volume.Secret != nil {
				return volume.Secret.SecretName
			}
		}
	}
	return ""
}

// refresh brings the current certificates into the pods, as the kubelet does.
// The files of a deleted Secret stay.
func (k *kubernetes) refresh(ctx context.Context) error {
	for _, c := range k.containers {
		for _, m := range c.tls {
			var secret corev1.Secret
			err := admin.Get(ctx, client.ObjectKey{Namespace: k.namespace, Name: m.secret}, &secret)
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			m.certificate = secret.Data[m.certificateKey]
		}
	}
	return nil
}

// trustError fails if running members do not accept each other's certificates, or a client's.
func (k *kubernetes) trustError(clients []identity) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.containers {
		if !a.running {
			continue
		}
		if server := a.tls[cluster.ClientTraffic]; server != nil && server.secret == "prod-server-tls" {
			for _, client := range clients {
				if err := server.accepts(client, k.now()); err != nil {
					return fmt.Errorf("%s and a client: %w", a.pod, err)
				}
			}
		}
		for _, b := range k.containers {
			to, from := a.tls[cluster.PeerTraffic], b.tls[cluster.PeerTraffic]
			if !b.running || to == nil || from == nil || to.secret != "prod-peer-tls" {
				continue
			}
			if err := to.accepts(identity{from.certificate, from.authorities}, k.now()); err != nil {
				return fmt.Errorf("%s and %s: %w", a.pod, b.pod, err)
			}
		}
	}
	return nil
}
