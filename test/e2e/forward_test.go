package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/tools/portforward"

	"github.com/etcd-steward/etcd-steward/api/v1alpha1"
	"github.com/etcd-steward/etcd-steward/internal/cluster"
)

// forward makes a pod's port reachable at the address that it returns, until the spec ends.
func forward(namespace, pod string, port int) string {
	GinkgoHelper()
	request := clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward")
	dialer, err := portforward.NewSPDYOverWebsocketDialer(request.URL(), config)
	Expect(err).NotTo(HaveOccurred())
	stop, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.New(dialer, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	Expect(err).NotTo(HaveOccurred())
	go func() { failed <- forwarder.ForwardPorts() }()
	DeferCleanup(func() { close(stop) })
	select {
	case <-ready:
	case err := <-failed:
		Fail(fmt.Sprintf("forwarding port %d of pod %s: %v", port, pod, err))
	}
	ports, err := forwarder.GetPorts()
	Expect(err).NotTo(HaveOccurred())
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local)
}

// servedCertificate is what a member shows to its clients, whoever they are.
func servedCertificate(ctx context.Context, address string) (*x509.Certificate, error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // what it shows is looked at, not trusted
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	return connection.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// forwardClients makes a member's client port reachable.
func forwardClients(c *v1alpha1.EtcdCluster, member string) string {
	GinkgoHelper()
	return forward(c.Namespace, cluster.PodName(member), cluster.ClientPort)
}
