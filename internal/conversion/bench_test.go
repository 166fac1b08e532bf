package conversion

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

func samples(b *testing.B) (hub, spoke []byte) {
	sample, err := os.ReadFile(filepath.Join("..", "..", "test", "bench", "etcdcluster.json"))
	if err != nil {
		b.Fatal(err)
	}
	var h v1beta1.EtcdCluster
	if err := json.Unmarshal(sample, &h); err != nil {
		b.Fatal(err)
	}
	s := spokeOf(&h)
	s.APIVersion, s.Kind = "operator.etcd-warden.io/v1alpha1", "EtcdCluster"
	return asJSON(h), asJSON(s)
}

func BenchmarkFromHub(b *testing.B) {
	raw, _ := samples(b)
	var hub v1beta1.EtcdCluster
	_ = json.Unmarshal(raw, &hub)
	for b.Loop() {
		var spoke v1alpha1.EtcdCluster
		FromHub(&hub, &spoke)
	}
}

func BenchmarkToHub(b *testing.B) {
	_, raw := samples(b)
	var spoke v1alpha1.EtcdCluster
	_ = json.Unmarshal(raw, &spoke)
	for b.Loop() {
		var hub v1beta1.EtcdCluster
		ToHub(&spoke, &hub)
	}
}

func benchmarkHandler(b *testing.B, h http.Handler, n int, desired string) {
	object, spoke := samples(b)
	if desired == "v1beta1" {
		object = spoke
	}
	var objects [][]byte
	for range n {
		objects = append(objects, object)
	}
	body := newReview(desired, objects...)
	b.SetBytes(int64(len(body)))
	start := cpu()
	defer func() { b.ReportMetric(float64(cpu()-start)/float64(b.N)/1e6, "cpu-ms/op") }()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/convert", bytes.NewReader(body)))
		if w.Code != http.StatusOK || w.Body.Len() < len(body)/2 {
			b.Fatal(w.Code, w.Body.String())
		}
	}
}

func BenchmarkHandlerListDown(b *testing.B) { benchmarkHandler(b, Handler(), 10000, "v1alpha1") }
func BenchmarkHandlerListUp(b *testing.B)   { benchmarkHandler(b, Handler(), 10000, "v1beta1") }

func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkControllerRuntimeListDown(b *testing.B) {
	benchmarkHandler(b, reference(b), 10000, "v1alpha1")
}
