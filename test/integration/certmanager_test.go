//go:build integration

package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/pki"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// issuedBy has cert-manager issue all certificates.
func issuedBy(issuer string) func(*v1beta1.EtcdCluster) {
	return func(c *v1beta1.EtcdCluster) {
		from := &v1beta1.CertManagerTLS{IssuerRef: v1beta1.IssuerRef{Name: issuer}}
		c.Spec.TLS = &v1beta1.TLS{Client: &v1beta1.ClientTLS{CertManager: from}, Peer: &v1beta1.PeerTLS{CertManager: from}}
	}
}

// TestCertManagerIssuesTheCertificates runs cert-manager's own controllers beside the operator.
// It is one test, because all tests of the API server share the CustomResourceDefinitions.
func TestCertManagerIssuesTheCertificates(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.create(3, issuedBy("authority"))
	l.settle()
	absent := expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonCertificateNotReady)
	if !strings.Contains(absent.Message, "cert-manager is not installed") || !strings.Contains(absent.Message, "Install cert-manager") {
		t.Errorf("without cert-manager: %s", absent.Message)
	}

	l.installCertManager()
	l.settle()
	waiting := expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonCertificateNotReady)
	if !strings.Contains(waiting.Message, "cert-manager has not issued Secret prod-peer-tls yet") {
		t.Errorf("without an issuer: %s", waiting.Message)
	}
	if len(l.get().Status.Members) > 0 {
		t.Error("members were made without certificates")
	}

	l.runCertManager()
	l.createAuthority("authority")
	l.createIssuer("authority")
	l.eventually("the cluster is available, and at rest", func(c *v1beta1.EtcdCluster) bool {
		return meta.IsStatusConditionTrue(c.Status.Conditions, v1beta1.ConditionAvailable) && c.Status.Operation == nil && c.Status.ReadyReplicas == 3
	})
	l.put("key", "value")
	if name := l.get().Status.ClientSecretName; name != "prod-client-tls" {
		t.Errorf("status.clientSecretName is %q", name)
	}
	operator, err := pki.TLSKeys.Material(l.secret("prod-operator-tls").Data)
	must(t, err)
	if _, err := pki.Check(operator, pki.Client, nil, time.Now()); err != nil {
		t.Errorf("the operator's certificate: %v", err)
	}
	pods := l.podUIDs()

	before := l.secret("prod-server-tls").Data["tls.crt"]
	l.delete(&corev1.Secret{}, "prod-server-tls")
	l.eventually("cert-manager issues the deleted certificate again", func(*v1beta1.EtcdCluster) bool {
		secret := &corev1.Secret{}
		err := admin.Get(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: "prod-server-tls"}, secret)
		return err == nil && len(secret.Data["tls.crt"]) > 0 && !bytes.Equal(secret.Data["tls.crt"], before)
	})
	l.later(2 * time.Hour) // the Secrets are read once an hour
	l.expectSame(pods)
	expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonUpToDate)

	l.delete(&corev1.Secret{}, "authority")
	l.createAuthority("authority") // another one, all at once
	old := l.secret("prod-peer-tls").Data["ca.crt"]
	l.delete(&corev1.Secret{}, "prod-peer-tls")
	l.eventually("cert-manager issues from the other authority", func(*v1beta1.EtcdCluster) bool {
		secret := &corev1.Secret{}
		err := admin.Get(t.Context(), client.ObjectKey{Namespace: l.namespace, Name: "prod-peer-tls"}, secret)
		return err == nil && len(secret.Data["ca.crt"]) > 0 && !bytes.Equal(secret.Data["ca.crt"], old)
	})
	l.later(2 * time.Hour)
	refused := expectCondition(t, l.get(), v1beta1.ConditionProgressing, metav1.ConditionFalse, v1beta1.ReasonCertificateInvalid)
	if !strings.Contains(refused.Message, "does not trust") {
		t.Errorf("with another authority at once: %s", refused.Message)
	}
	l.expectSame(pods)
	l.checkData(3)

	// The Secrets outlive the cluster and its Certificates.
	// The next cluster of this name has another issuer, which does not exist yet.
	must(t, admin.Delete(t.Context(), l.newCluster(1)))
	must(t, l.kubernetes.collect(t.Context()))
	for _, kind := range []string{"Certificate", "CertificateRequest"} { // Kubernetes would collect them
		requests := &unstructured.Unstructured{}
		requests.SetGroupVersionKind(render.CertificateKind.GroupVersion().WithKind(kind))
		must(t, admin.DeleteAllOf(t.Context(), requests, client.InNamespace(l.namespace)))
	}
	l.create(3, issuedBy("late"))
	l.eventually("the Secrets that were left are told of", func(c *v1beta1.EtcdCluster) bool {
		condition := meta.FindStatusCondition(c.Status.Conditions, v1beta1.ConditionProgressing)
		return condition != nil && strings.Contains(condition.Message, "Secret prod-peer-tls exists, and cert-manager has not issued it for this cluster yet")
	})
	for _, object := range l.objectNames() {
		if strings.HasPrefix(object, "StatefulSet/") {
			t.Errorf("%s was made for certificates that another issuer had issued", object)
		}
	}
	l.createAuthority("late")
	l.createIssuer("late")
	l.eventually("the cluster is available again", func(c *v1beta1.EtcdCluster) bool {
		return meta.IsStatusConditionTrue(c.Status.Conditions, v1beta1.ConditionAvailable) && c.Status.Operation == nil && c.Status.ReadyReplicas == 3
	})
	if trusted := l.secret("prod-peer-tls").Data["ca.crt"]; !bytes.Equal(trusted, l.secret("late").Data["tls.crt"]) {
		t.Errorf("the members' certificate is of another authority: %s", trusted)
	}
	pods = l.podUIDs()
	l.later(2 * time.Hour)
	l.expectSame(pods)
	l.checkData(3)

	must(t, envtest.UninstallCRDs(adminConfig, l.certManagerCRDs()))
	for range 2 {
		l.later(2 * time.Hour)
		gone := expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonCertificateNotReady)
		if !strings.Contains(gone.Message, "Install it again") {
			t.Errorf("without cert-manager: %s", gone.Message)
		}
		expectCondition(t, l.get(), v1beta1.ConditionAvailable, metav1.ConditionTrue, v1beta1.ReasonQuorumServing)
		l.operator = l.newOperator(noHooks) // it remembers no certificate
	}
	l.expectSame(pods)
	l.checkData(3)
}

func (l *lab) expectSame(pods map[string]string) {
	l.Helper()
	for pod, uid := range l.podUIDs() {
		if pods[pod] != uid {
			l.Errorf("%s was restarted", pod)
		}
	}
}

// eventually runs the operator and Kubernetes while cert-manager works beside them, until the condition holds.
func (l *lab) eventually(what string, holds func(*v1beta1.EtcdCluster) bool) {
	l.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(l.get()); <-tick.C {
		if time.Now().After(end) {
			l.Fatalf("waiting until %s took more than %v; conditions: %s", what, patience, showAll(l.get()))
		}
		l.round()
	}
}

// installCertManager installs the CustomResourceDefinitions of cert-manager's module.
func (l *lab) installCertManager() {
	l.Helper()
	_, err := envtest.InstallCRDs(adminConfig, l.certManagerCRDs())
	must(l.T, err)
}

// certManagerCRDs are those of cert-manager's module.
func (l *lab) certManagerCRDs() envtest.CRDInstallOptions {
	l.Helper()
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager")
	list.Dir = filepath.Join(root, "hack", "tools", "cert-manager")
	list.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	folder, err := list.Output()
	must(l.T, err)
	return envtest.CRDInstallOptions{Paths: []string{filepath.Join(strings.TrimSpace(string(folder)), "deploy", "crds")}, ErrorIfPathMissing: true}
}

// runCertManager runs cert-manager's controllers in the namespace until the test ends.
func (l *lab) runCertManager() {
	l.Helper()
	script := filepath.Join(root, "hack", "build-tools.sh")
	build := exec.Command(script, "cert-manager")
	build.Stderr = os.Stderr
	must(l.T, build.Run())
	folder, err := exec.Command(script, "dir", "cert-manager").Output()
	must(l.T, err)
	command := exec.Command(filepath.Join(strings.TrimSpace(string(folder)), "cert-manager"), "-kubeconfig="+l.kubeconfig(), "-namespace="+l.namespace)
	log := &bytes.Buffer{}
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(l.T, command.Start())
	l.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended by itself
		_ = command.Wait()
		if l.Failed() {
			l.Logf("cert-manager's output:\n%s", log)
		}
	})
}

// kubeconfig writes down how the administrator reaches the API server.
func (l *lab) kubeconfig() string {
	l.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: adminConfig.Host, CertificateAuthorityData: adminConfig.CAData}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: adminConfig.CertData, ClientKeyData: adminConfig.KeyData}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	file := filepath.Join(l.TempDir(), "kubeconfig")
	must(l.T, clientcmd.WriteToFile(*config, file))
	return file
}

// createAuthority makes the Secret of a CA issuer.
func (l *lab) createAuthority(name string) {
	l.Helper()
	a, err := pki.NewAuthority(name, time.Now(), lifetimes.Authority)
	must(l.T, err)
	certificate, key, err := a.PEM()
	must(l.T, err)
	must(l.T, admin.Create(l.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{"tls.crt": certificate, "tls.key": key},
	}))
}

func (l *lab) createIssuer(name string) {
	l.Helper()
	issuer := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"ca": map[string]any{"secretName": name}}}}
	issuer.SetGroupVersionKind(render.CertificateKind.GroupVersion().WithKind("Issuer"))
	issuer.SetNamespace(l.namespace)
	issuer.SetName(name)
	must(l.T, admin.Create(l.Context(), issuer))
}
