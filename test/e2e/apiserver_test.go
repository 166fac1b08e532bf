package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
	"github.com/etcd-warden/etcd-warden/test/apilog"
)

var _ = Describe("A Kubernetes API server whose store is the cluster", SpecPriority(20), func() {
	It("keeps every object, and its watches every event in order, while etcd is upgraded from 3.5 to 3.7, is resized and loses its leader for good", func(ctx SpecContext) {
		onLocalCluster() // the API server runs beside it, and reaches the Service
		c := create(ctx, makeCluster(newNamespace(ctx), managed, ofVersion(versionOf("3.5"))))
		kept := bury(ctx, c)
		server := startAPIServer(ctx, c)
		users := []*apiUsers{useAPI(ctx, server, "ConfigMap"), useAPI(ctx, server, uncached)}
		awaitDisruptionsAllowed(ctx, c, 1)
		for _, minor := range []string{"3.6", "3.7"} {
			toVersion(ctx, c, versionOf(minor))
			awaitVersion(ctx, c, versionOf(minor))
		}
		for _, size := range []int{5, 3} {
			scale(ctx, c, size)
			awaitSize(ctx, c, size)
		}
		kept.expectFound(ctx, c)
		loseLeader(ctx, c)
		for _, u := range users {
			u.end(ctx)
		}
	})
})

const (
	// objectsEach is how many objects one writer has.
	objectsEach = 5
	// deleteEach is after how many writes a writer deletes. It deletes each of its objects in turn.
	deleteEach = 7
	// uncached is the resource whose lists and watches the API server takes from etcd, and not from its watch cache.
	uncached = "Secret"
	// workspace is the namespace of all objects in the API server under test.
	workspace = "work"
	// apiTimeout ends a request.
	apiTimeout = 10 * time.Second
	// watchSeconds is how long one watch takes. Then the client goes on with another one.
	watchSeconds = 20
	// logShown is how many bytes of the API server's log are shown where the spec fails.
	logShown = 20_000
)

// startAPIServer starts a kube-apiserver on this machine whose store is the cluster. It returns how to reach it.
func startAPIServer(ctx context.Context, c *v1beta1.EtcdCluster) *rest.Config {
	GinkgoHelper()
	dir, port, ca := GinkgoT().TempDir(), freePort(), pkitest.NewAuthority(GinkgoTB(), "api")
	runAPIServer(ctx, dir, append(etcdFlags(ctx, c, dir), servingFlags(dir, port, ca)...))
	user := ca.Issue(GinkgoTB(), pkitest.Leaf{CommonName: "user"})
	server := &rest.Config{
		Host: "https://127.0.0.1:" + port, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: ca.PEM, CertData: user.Certificate, KeyData: user.Key},
	}
	api, err := kubernetes.NewForConfig(server)
	Expect(err).NotTo(HaveOccurred())
	Eventually(ctx, func() error { return api.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() }).Should(Succeed())
	_, err = api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: workspace}}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return server
}

// etcdFlags tell the API server what the cluster's users know: the name of the Service for clients, and what is in the
// Secret for clients. The API server compacts nothing: when it tells a watch that versions are gone, that is a fault.
func etcdFlags(ctx context.Context, c *v1beta1.EtcdCluster, dir string) []string {
	GinkgoHelper()
	secret := secretOf(ctx, c, cluster.RoleClient)
	return []string{
		fmt.Sprintf("--etcd-servers=https://%s.%s.svc.cluster.local:%d", c.Status.ServiceName, c.Namespace, cluster.ClientPort),
		"--etcd-cafile=" + writeFile(dir, "etcd-ca.crt", secret.Data["ca.crt"]),
		"--etcd-certfile=" + writeFile(dir, "etcd.crt", secret.Data["tls.crt"]),
		"--etcd-keyfile=" + writeFile(dir, "etcd.key", secret.Data["tls.key"]),
		"--etcd-compaction-interval=0", "--watch-cache-sizes=" + resourceOf(uncached).Resource + "#0",
	}
}

// servingFlags have it serve on the loopback those who have a certificate of an authority.
func servingFlags(dir, port string, ca *pkitest.Authority) []string {
	GinkgoHelper()
	serving := ca.Issue(GinkgoTB(), pkitest.Leaf{CommonName: "kube-apiserver", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	tokens := ca.Issue(GinkgoTB(), pkitest.Leaf{CommonName: "tokens"})
	return []string{
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=" + port, "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + writeFile(dir, "serving.crt", serving.Certificate),
		"--tls-private-key-file=" + writeFile(dir, "serving.key", serving.Key),
		"--client-ca-file=" + writeFile(dir, "ca.crt", ca.PEM), "--anonymous-auth=false", "--service-cluster-ip-range=10.97.0.0/24",
		"--service-account-issuer=https://api", "--service-account-key-file=" + writeFile(dir, "tokens.crt", tokens.Certificate),
		"--service-account-signing-key-file=" + writeFile(dir, "tokens.key", tokens.Key),
	}
}

// writeFile returns the path of the file.
func writeFile(dir, name string, data []byte) string {
	GinkgoHelper()
	path := filepath.Join(dir, name)
	Expect(os.WriteFile(path, data, 0o600)).To(Succeed())
	return path
}

// runAPIServer runs the process until the spec ends. It looks names up where pods do: in a mount namespace of its own
// /etc/resolv.conf names the cluster's DNS.
func runAPIServer(ctx context.Context, dir string, flags []string) {
	GinkgoHelper()
	var dns corev1.Service
	Expect(kube.Get(ctx, client.ObjectKey{Namespace: "kube-system", Name: "kube-dns"}, &dns)).To(Succeed())
	resolver := writeFile(dir, "resolv.conf", []byte("nameserver "+dns.Spec.ClusterIP+"\n"))
	log, err := os.Create(filepath.Join(dir, "log"))
	Expect(err).NotTo(HaveOccurred())
	binary := filepath.Join(filepath.Dir(settings["KUBECTL"]), "kube-apiserver")
	process := exec.Command("unshare", append([]string{"--mount", "sh", "-c",
		`mount --bind "$0" /etc/resolv.conf && exec "$@"`, resolver, binary}, flags...)...)
	process.Stdout, process.Stderr = log, log
	Expect(process.Start()).To(Succeed())
	DeferCleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait() // it was killed
		_ = log.Close()
		if CurrentSpecReport().Failed() {
			text, _ := os.ReadFile(log.Name())
			GinkgoWriter.Printf("the end of the API server's log:\n%s\n", text[max(0, len(text)-logShown):])
		}
	})
}

// freePort returns a port of the loopback that nothing uses.
func freePort() string {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// apiUsers write, list and watch one resource of an API server.
type apiUsers struct {
	kind     string
	resource dynamic.ResourceInterface
	log      *apilog.Log
	began    string // the resource version before the first write
	watches  []*apilog.Watch

	stopWriting, stopWatching context.CancelFunc
	writing, watching         sync.WaitGroup

	mu      sync.Mutex
	failed  int
	last    time.Time // when a write was acknowledged last
	longest time.Duration
}

// useAPI starts two writers with objects of their own, two watches and one client that lists.
func useAPI(ctx context.Context, server *rest.Config, kind string) *apiUsers {
	GinkgoHelper()
	api, err := dynamic.NewForConfig(server)
	Expect(err).NotTo(HaveOccurred())
	u := &apiUsers{kind: kind, resource: api.Resource(resourceOf(kind)).Namespace(workspace), log: apilog.New(), last: time.Now()}
	list, err := u.resource.List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	u.began = list.GetResourceVersion()
	writing, stopWriting := context.WithCancel(ctx)
	watching, stopWatching := context.WithCancel(ctx)
	u.stopWriting, u.stopWatching = stopWriting, stopWatching
	for n := range 2 {
		u.watch(watching, fmt.Sprintf("%d of %s", n, kind))
		u.repeat(writing, 2*writeEvery, func(i int) { u.write(ctx, fmt.Sprintf("writer-%d-%d", n, i%objectsEach), i) })
	}
	u.repeat(writing, 4*writeEvery, func(int) { u.list(ctx) })
	return u
}

func resourceOf(kind string) schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource(strings.ToLower(kind) + "s")
}

// repeat does a thing again and again, until the context ends.
func (u *apiUsers) repeat(ctx context.Context, every time.Duration, do func(i int)) {
	u.writing.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				do(i)
			}
		}
	})
}

// write reads an object, as its last write may have failed or not, and changes it.
func (u *apiUsers) write(ctx context.Context, name string, i int) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	object, err := u.resource.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		u.log.Read(name, nil)
		u.create(ctx, name, i)
	case u.fails(err):
	case i%deleteEach == 0:
		u.log.Read(name, new(versionIn(object)))
		u.delete(ctx, object)
	default:
		u.log.Read(name, new(versionIn(object)))
		u.update(ctx, object, i)
	}
}

func (u *apiUsers) create(ctx context.Context, name string, i int) {
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": u.kind}}
	object.SetName(name)
	setValue(object, i)
	write := u.log.Send(versionIn(object))
	if created, err := u.resource.Create(ctx, object, metav1.CreateOptions{}); !u.fails(err) {
		u.acknowledge(write, versionIn(created).ResourceVersion)
	}
}

func (u *apiUsers) update(ctx context.Context, object *unstructured.Unstructured, i int) {
	setValue(object, i)
	write := u.log.Send(versionIn(object))
	if updated, err := u.resource.Update(ctx, object, metav1.UpdateOptions{}); !u.fails(err) {
		u.acknowledge(write, versionIn(updated).ResourceVersion)
	}
}

func (u *apiUsers) delete(ctx context.Context, object *unstructured.Unstructured) {
	version := versionIn(object)
	version.Deleted = true
	write := u.log.Send(version)
	err := u.resource.Delete(ctx, object.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{
		UID: new(object.GetUID()), ResourceVersion: new(object.GetResourceVersion()),
	}})
	if !u.fails(err) {
		u.acknowledge(write, 0)
	}
}

// fails counts the requests that failed.
func (u *apiUsers) fails(err error) bool {
	if err == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failed++
	GinkgoWriter.Printf("%s %s: %v\n", time.Now().Format(time.TimeOnly), u.kind, err)
	return true
}

func (u *apiUsers) acknowledge(write *apilog.Write, resourceVersion uint64) {
	u.log.Acknowledge(write, resourceVersion)
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	u.longest, u.last = max(u.longest, now.Sub(u.last)), now
}

// list asks for all objects as they are now. An error is no answer.
func (u *apiUsers) list(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	asked := u.log.Highest()
	if list, err := u.resource.List(ctx, metav1.ListOptions{}); !u.fails(err) {
		u.log.List(asked, revision(list.GetResourceVersion()))
	}
}

// watch sees everything from the beginning on. As reflectors do, it goes on after the last resource version that it
// saw when a watch ends or fails. Nothing is compacted, so there is always a way on.
func (u *apiUsers) watch(ctx context.Context, name string) {
	seen := apilog.NewWatch(name, revision(u.began))
	u.watches = append(u.watches, seen)
	u.watching.Go(func() {
		for tick := time.NewTicker(writeEvery); ; {
			err := u.watchOnce(ctx, seen)
			if ctx.Err() != nil {
				return
			}
			if u.fails(err) && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)) {
				seen.Gone(err, u.log.Highest())
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

func (u *apiUsers) watchOnce(ctx context.Context, seen *apilog.Watch) error {
	changes, err := u.resource.Watch(ctx, metav1.ListOptions{
		ResourceVersion: strconv.FormatUint(seen.At(), 10), AllowWatchBookmarks: true, TimeoutSeconds: new(int64(watchSeconds)),
	})
	if err != nil {
		return err
	}
	defer changes.Stop()
	for x := range changes.ResultChan() {
		object, ok := x.Object.(*unstructured.Unstructured)
		if !ok || x.Type == watch.Error {
			return apierrors.FromObject(x.Object)
		}
		version := versionIn(object)
		version.Deleted = x.Type == watch.Deleted
		if x.Type == watch.Bookmark {
			seen.Bookmark(version.ResourceVersion)
			continue
		}
		seen.Event(version)
	}
	return nil
}

// end stops the writers, waits until the watches have seen the last write, and compares everything with what was
// acknowledged. One more watch of the uncached resource sees everything from the first write on.
func (u *apiUsers) end(ctx context.Context) {
	GinkgoHelper()
	u.stopWriting()
	u.writing.Wait()
	before, attempt := u.log.Acknowledged(), 1
	Expect(before).To(BeNumerically(">", 0))
	Eventually(ctx, func() int {
		u.write(ctx, "last", attempt)
		attempt += deleteEach // it deletes nothing
		return u.log.Acknowledged()
	}).Should(BeNumerically(">", before))
	again, stop := context.WithCancel(ctx)
	if u.kind == uncached { // the watch cache keeps the events of the last minutes only
		u.watch(again, "again of "+u.kind)
	}
	for _, w := range u.watches {
		Eventually(ctx, w.At).Should(BeNumerically(">=", u.log.Highest()))
	}
	u.stopWatching()
	stop()
	u.watching.Wait()
	list, err := u.resource.List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	var all []apilog.Version
	for i := range list.Items {
		all = append(all, versionIn(&list.Items[i]))
	}
	u.log.All(all)
	AddReportEntry("longest gap between acknowledged writes of "+u.kind, fmt.Sprintf("%s, of %d; %d requests failed", u.longest, u.log.Acknowledged(), u.failed))
	Expect(u.log.Verify(u.watches...)).To(Succeed())
}

// valueAnnotation has the number of an object's write.
const valueAnnotation = "value"

func setValue(object *unstructured.Unstructured, i int) {
	object.SetAnnotations(map[string]string{valueAnnotation: strconv.Itoa(i)})
}

func versionIn(object *unstructured.Unstructured) apilog.Version {
	return apilog.Version{
		Object: object.GetName(), Value: object.GetAnnotations()[valueAnnotation],
		ResourceVersion: revision(object.GetResourceVersion()),
	}
}

// revision reads a resource version. That of a new object is empty, and read as zero.
func revision(resourceVersion string) uint64 {
	n, _ := strconv.ParseUint(resourceVersion, 10, 64)
	return n
}
