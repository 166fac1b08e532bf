package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/conversion"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

const (
	listed   = 10000
	singles  = 500
	echoPath = "/echo"
)

// sample is a cluster of v1beta1 as it is stored in production: its spec, status and managed fields.
//
//go:embed etcdcluster.json
var sample []byte

// converter is a webhook server with our handler, and another one
// beside it that decodes the same reviews and echoes their objects.
type converter struct {
	*http.Client
	url string
}

// benchConversion measures conversions in both directions. In turn it sends the same reviews to the echo,
// so that a change of the machine's speed affects both.
func benchConversion(ctx context.Context) error {
	c, err := startConverter(ctx)
	if err != nil {
		return err
	}
	lists, err := c.lists(ctx)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		times := map[string][]float64{}
		for round := range pairs {
			for _, path := range []string{echoPath, webhook.Path} {
				for direction, review := range lists {
					p99, list, err := c.measure(ctx, path, review)
					if err != nil {
						return fmt.Errorf("%s %s: %w", path, direction, err)
					}
					fmt.Printf("round %2d  %-8s %-12s  one object %5.2f ms at the 99th percentile, %d objects %6.0f ms\n", round+1, path, direction, p99, listed, list)
					times[path+" one "+direction], times[path+" list "+direction] = append(times[path+" one "+direction], p99), append(times[path+" list "+direction], list)
				}
			}
		}
		noisy := false
		for name := range times {
			t := times[name]
			spread := (quantile(t, 0.75) - quantile(t, 0.25)) / quantile(t, 0.5)
			fmt.Printf("%-26s median %.2f ms, all %.2f to %.2f, spread %.2f\n", name, quantile(t, 0.5), slices.Min(t), slices.Max(t), spread)
			noisy = noisy || strings.HasPrefix(name, echoPath+" list") && spread > spreadBound
		}
		if noisy && attempt < attempts {
			fmt.Println("the machine was too noisy: measuring again")
			continue
		}
		if noisy {
			return fmt.Errorf("the reference's spread exceeds %.2f of its median in %d attempts: the machine is too noisy for a figure", spreadBound, attempts)
		}
		slower := func(what string) float64 {
			return max(quantile(times[what+" to v1alpha1"], 0.5), quantile(times[what+" to v1beta1"], 0.5))
		}
		figure("conversion-echo-p99", slower(echoPath+" one"), "ms")
		figure("conversion-echo-list-10000", slower(echoPath+" list"), "ms")
		figure("conversion-p99", slower(webhook.Path+" one"), "ms")
		figure("conversion-list-10000", slower(webhook.Path+" list"), "ms")
		return nil
	}
}

// review is a ConversionReview of all objects and another of the first alone, and the version that they ask for.
type review struct {
	desired  string
	list     []byte
	one      []byte
	inAnswer string
}

// lists returns reviews for both directions. Those of v1alpha1 are what the webhook makes of those of v1beta1.
func (c *converter) lists(ctx context.Context) (map[string]review, error) {
	hubs := make([][]byte, listed)
	for n := range hubs {
		hubs[n] = bytes.ReplaceAll(sample, []byte(`"name": "prod"`), fmt.Appendf(nil, `"name": "prod-%d"`, n))
	}
	down, err := newReview(v1alpha1.GroupVersion.String(), hubs)
	if err != nil {
		return nil, err
	}
	body, err := c.ask(ctx, webhook.Path, down.list)
	if err != nil {
		return nil, err
	}
	var answer apiextensionsv1.ConversionReview
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("reading the converted list: %w", err)
	}
	if answer.Response == nil || len(answer.Response.ConvertedObjects) != listed {
		return nil, fmt.Errorf("the list was not converted: %.200s", body)
	}
	var spokes [][]byte
	for _, object := range answer.Response.ConvertedObjects {
		spokes = append(spokes, object.Raw)
	}
	up, err := newReview(v1beta1.GroupVersion.String(), spokes)
	return map[string]review{"to v1alpha1": down, "to v1beta1": up}, err
}

func newReview(desired string, objects [][]byte) (review, error) {
	r := review{desired: desired, inAnswer: `"apiVersion":"` + desired + `"`}
	for _, part := range []struct {
		into    *[]byte
		objects [][]byte
	}{{&r.list, objects}, {&r.one, objects[:1]}} {
		request := &apiextensionsv1.ConversionRequest{UID: "bench", DesiredAPIVersion: desired}
		for _, object := range part.objects {
			request.Objects = append(request.Objects, runtime.RawExtension{Raw: object})
		}
		raw, err := json.Marshal(apiextensionsv1.ConversionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "ConversionReview"}, Request: request,
		})
		if err != nil {
			return review{}, fmt.Errorf("writing a review: %w", err)
		}
		*part.into = raw
	}
	return r, nil
}

// measure returns the 99th percentile of reviews of one object, and the time of one review of all, in milliseconds.
func (c *converter) measure(ctx context.Context, path string, r review) (p99, list float64, err error) {
	timed := func(body []byte, objects int) (float64, error) {
		start := time.Now()
		answer, err := c.ask(ctx, path, body)
		took := float64(time.Since(start).Microseconds()) / 1000
		if err == nil && path == webhook.Path && bytes.Count(answer, []byte(r.inAnswer+`,"kind":"EtcdCluster"`)) != objects {
			err = fmt.Errorf("not every object is converted: %.200s", answer)
		}
		return took, err
	}
	var ones []float64
	for range singles {
		took, err := timed(r.one, 1)
		if err != nil {
			return 0, 0, err
		}
		ones = append(ones, took)
	}
	list, err = timed(r.list, listed)
	return quantile(ones, 0.99), list, err
}

func (c *converter) ask(ctx context.Context, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer := bytes.NewBuffer(make([]byte, 0, max(response.ContentLength, 0)+bytes.MinRead))
	if _, err := answer.ReadFrom(response.Body); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %.200s", response.Status, answer)
	}
	return answer.Bytes(), nil
}

// startConverter serves as the manager does: controller-runtime's webhook server, with the manager's handler.
func startConverter(ctx context.Context) (*converter, error) {
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	certified.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("finding a port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		return nil, fmt.Errorf("finding a port: %w", err)
	}
	server := ctrlwebhook.NewServer(ctrlwebhook.Options{Host: "127.0.0.1", Port: port, TLSOpts: []func(*tls.Config){func(o *tls.Config) {
		o.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certified.TLS.Certificates[0], nil }
	}}})
	server.Register(webhook.Path, webhook.Limit(conversion.Handler()))
	server.Register(echoPath, http.HandlerFunc(echo))
	failed := make(chan error, 1)
	go func() { failed <- server.Start(ctx) }()
	trusted := x509.NewCertPool()
	trusted.AddCert(certified.Certificate())
	c := &converter{
		Client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}},
		url:    fmt.Sprintf("https://127.0.0.1:%d", port),
	}
	for server.StartedChecker()(nil) != nil {
		select {
		case err := <-failed:
			return nil, fmt.Errorf("serving: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return c, nil
}

// echo is the least that a webhook in Go does: it decodes a review and answers with its objects.
func echo(w http.ResponseWriter, r *http.Request) {
	var review apiextensionsv1.ConversionReview
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, &review)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, ConvertedObjects: review.Request.Objects}
	review.Request = nil
	_ = json.NewEncoder(w).Encode(review)
}
