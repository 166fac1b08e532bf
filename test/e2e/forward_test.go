package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"

	"k8s.io/client-go/tools/portforward"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// forwarded makes a pod's port reachable at an address for as long as use takes. Each use has a forwarding of its own:
// one ends for good when a member resets a connection, as it does to those without a certificate.
func forwarded(namespace, pod string, port int, use func(address string) error) error {
	request := clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward")
	dialer, err := portforward.NewSPDYOverWebsocketDialer(request.URL(), config)
	if err != nil {
		return err
	}
	stop, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.New(dialer, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	go func() { failed <- forwarder.ForwardPorts() }()
	defer close(stop)
	select {
	case <-ready:
	case err := <-failed:
		return fmt.Errorf("forwarding port %d of pod %s: %w", port, pod, err)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	return use(fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
}

// servedCertificate is what a member shows to its clients, whoever they are.
func servedCertificate(ctx context.Context, c *v1beta1.EtcdCluster, member string) (*x509.Certificate, error) {
	var served *x509.Certificate
	err := forwarded(c.Namespace, cluster.PodName(member), cluster.ClientPort, func(address string) error {
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // what it shows is looked at, not trusted
		connection, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		served = connection.(*tls.Conn).ConnectionState().PeerCertificates[0]
		_ = connection.Close() // the member may have ended it: we have no certificate of our own
		return nil
	})
	return served, err
}
