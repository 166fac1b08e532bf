package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/conversion"
)

const (
	// serverVariable makes this test binary serve conversions instead of testing.
	serverVariable = "ETCD_WARDEN_TEST_WEBHOOK_SERVER"
	// memoryLimit is GOMEMLIMIT of config/webhook/deployment.yaml.
	memoryLimit = "850MiB"
	// containerLimit is the memory limit there.
	containerLimit = 1 << 30
	// deadline is many times what anything here takes.
	deadline = 2 * time.Minute
)

func TestMain(m *testing.M) {
	if address := os.Getenv(serverVariable); address != "" {
		if err := serveForTests(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveForTests serves until the standard input ends.
func serveForTests(address string) error {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	certified.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	options := Options{Host: host, Port: port, Handler: conversion.Handler()}
	s := newServer(options, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certified.TLS.Certificates[0], nil })
	if timeout, err := time.ParseDuration(os.Getenv(serverVariable + "_READ_TIMEOUT")); err == nil {
		s.readTimeout = timeout
	}
	return s.Start(ctx)
}

// process is a webhook server in another process, so that its memory can be measured.
type process struct {
	*testing.T
	client  *http.Client
	address string
	pid     int
}

func startProcess(t *testing.T, environment ...string) *process {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), serverVariable+"="+address, "GOMEMLIMIT="+memoryLimit)
	command.Env = append(command.Env, environment...)
	command.Stderr = io.Discard // each cut connection is logged
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("the server ended: %v", err)
		}
	})
	p := &process{T: t, address: address, pid: command.Process.Pid, client: newClient()}
	for end := time.Now().Add(deadline); ; {
		err := p.convertOne()
		if err == nil {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("the server does not convert: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func newClient() *http.Client {
	return &http.Client{Timeout: deadline, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the attacks need no trust
	}}
}

func (p *process) url() string { return "https://" + p.address + Path }

// memory reads a line of /proc/PID/status: VmRSS is the present memory, VmHWM the largest so far.
func (p *process) memory(line string) int64 {
	p.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		p.Skipf("this system does not report the memory of a process: %v", err)
	}
	for text := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(text, line+":"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				p.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	p.Fatalf("no %s in %s", line, raw)
	return 0
}

// expectGrowthBelow fails if the process ever had more than a number of bytes more than before.
func (p *process) expectGrowthBelow(most, before int64) {
	p.Helper()
	grown := p.memory("VmHWM") - before
	p.Logf("the server grew by %d MiB", grown>>20)
	if grown >= most {
		p.Errorf("the server grew by %d MiB, want less than %d MiB", grown>>20, most>>20)
	}
}

// review is a ConversionReview to v1beta1 with these objects.
func review(objects ...string) string {
	return `{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1","request":{"uid":"1",` +
		`"desiredAPIVersion":"operator.etcd-warden.io/v1beta1","objects":[` + strings.Join(objects, ",") + `]}}`
}

const oneObject = `{"apiVersion":"operator.etcd-warden.io/v1alpha1","kind":"EtcdCluster",` +
	`"metadata":{"name":"prod","namespace":"default"},"spec":{"size":3,"version":"3.6.16"}}`

// convertOne converts one object, as the API server does.
func (p *process) convertOne() error {
	response, err := p.client.Post(p.url(), "application/json", strings.NewReader(review(oneObject)))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Response struct{ ConvertedObjects []struct{ APIVersion string } }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if n := answer.Response.ConvertedObjects; len(n) != 1 || n[0].APIVersion != "operator.etcd-warden.io/v1beta1" {
		return fmt.Errorf("%s: %v", response.Status, n)
	}
	return nil
}

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// post sends a body. A server that refuses may close the connection before the client reads the answer: then
// status is 0.
func post(client *http.Client, url string, body io.Reader, length int64) (status int) {
	request, err := http.NewRequest(http.MethodPost, url, body)
	if err != nil {
		panic(err)
	}
	request.ContentLength = length
	response, err := client.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func TestBoundsItsMemoryWhileTwoGigabytesOfZerosAreSent(t *testing.T) {
	const size, growth = 2 << 30, 200 << 20
	for name, length := range map[string]int64{"in chunks": -1, "with their length": size} {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t)
			before := p.memory("VmRSS")
			if status := post(p.client, p.url(), io.LimitReader(zeros{}, size), length); status != http.StatusRequestEntityTooLarge && status != 0 {
				t.Errorf("the answer is %d", status)
			}
			if err := p.convertOne(); err != nil {
				t.Errorf("afterwards one object is not converted: %v", err)
			}
			p.expectGrowthBelow(growth, before)
		})
	}
}

// TestConvertsOneObjectWhileLargeBodiesFillTheBudget holds large bodies open until the server refuses more.
func TestConvertsOneObjectWhileLargeBodiesFillTheBudget(t *testing.T) {
	const held, bodies, growth = 30 << 20, 20, 400 << 20
	p := startProcess(t, serverVariable+"_READ_TIMEOUT="+deadline.String())
	before := p.memory("VmRSS")
	var sent, ended sync.WaitGroup
	release := make(chan struct{})
	var mu sync.Mutex
	statuses := map[int]int{}
	for range bodies {
		sent.Add(1)
		ended.Go(func() {
			body := &heldBody{zeros: io.LimitReader(zeros{}, held), sent: sent.Done, release: release}
			status := post(newClient(), p.url(), body, -1)
			body.once.Do(sent.Done)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	sent.Wait()
	if err := p.convertOne(); err != nil {
		t.Errorf("during the attack one object is not converted: %v", err)
	}
	close(release)
	ended.Wait()
	p.expectGrowthBelow(growth, before)
	// What was held is not JSON, so 400. A refused client may miss the answer.
	if accepted := statuses[http.StatusBadRequest]; accepted < 1 || accepted > 4 || statuses[http.StatusServiceUnavailable] == 0 {
		t.Errorf("answers by status: %v, want 1 to 4 of 400, and some of 503", statuses)
	}
}

// heldBody sends zeros, then waits, then ends.
type heldBody struct {
	zeros   io.Reader
	once    sync.Once
	sent    func()
	release chan struct{}
}

func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.zeros.Read(p)
	if errors.Is(err, io.EOF) {
		b.once.Do(b.sent)
		<-b.release
	}
	return n, err
}

// TestHoldsNoMemoryForAClaimedLength opens many requests that claim 64 MiB and send one byte.
func TestHoldsNoMemoryForAClaimedLength(t *testing.T) {
	const requests, growth, addressSpace = 200, 60 << 20, 1 << 30
	p := startProcess(t)
	before, addresses := p.memory("VmRSS"), p.memory("VmSize")
	for range requests {
		p.openRequest(maxBodyBytes, "{")
	}
	if err := p.convertOne(); err != nil {
		t.Errorf("beside them one object is not converted: %v", err)
	}
	p.expectGrowthBelow(growth, before)
	// Memory that was allocated and not written to yet is only in the address space.
	if grown := p.memory("VmSize") - addresses; grown > addressSpace {
		t.Errorf("the server's address space grew by %d MiB", grown>>20)
	}
}

// openRequest sends headers and the begin of a body. The connection stays open until the test ends.
func (p *process) openRequest(length int64, body string) net.Conn {
	p.Helper()
	connection, err := tls.Dial("tcp", p.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = connection.Close() })
	if _, err := fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: webhook\r\nContent-Length: %d\r\n\r\n%s", Path, length, body); err != nil {
		p.Fatal(err)
	}
	return connection
}

func TestEndsASlowBody(t *testing.T) {
	p := startProcess(t, serverVariable+"_READ_TIMEOUT=1s")
	connection := p.openRequest(maxBodyBytes, "{")
	if err := connection.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestTimeout {
		t.Errorf("the answer is %s", response.Status)
	}
	if _, err := io.Copy(io.Discard, connection); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the connection stays open: %v", err)
	}
}

// TestBoundsItsMemoryForBodiesThatGrowWhenDecoded sends what takes many times its bytes when it is decoded or
// converted.
func TestBoundsItsMemoryForBodiesThatGrowWhenDecoded(t *testing.T) {
	const size = 60 << 20
	pod := func(list, element string, n int) string {
		return strings.Replace(oneObject, `"size":3`, `"size":3,"pod":{"`+list+`":[`+strings.Repeat(element+",", n)+element+`]}`, 1)
	}
	repeat := func(object string) func() string {
		return func() string { return review(slices.Repeat([]string{object}, size/len(object))...) }
	}
	const smallest = `{"apiVersion":"operator.etcd-warden.io/v1alpha1","kind":"EtcdCluster","metadata":{}}`
	for name, body := range map[string]func() string{
		"numbers for objects":       repeat("0"),
		"the smallest objects":      repeat(smallest),
		"one object of tolerations": func() string { return review(pod("tolerations", "{}", size/3)) },
		"objects of tolerations":    repeat(pod("tolerations", "{}", 1<<20)),
		"objects of nulls":          repeat(pod("tolerations", "null", 700_000)),
		"objects just allowed":      repeat(pod("tolerations", "{}", maxAllowed)),
		"a long version":            func() string { return strings.Replace(review(oneObject), "v1beta1", strings.Repeat("x", size), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			p, sent := startProcess(t), body()
			var ended sync.WaitGroup
			for range 4 {
				ended.Go(func() { post(newClient(), p.url(), strings.NewReader(sent), int64(len(sent))) })
			}
			ended.Wait()
			if err := p.convertOne(); err != nil {
				t.Errorf("afterwards one object is not converted: %v", err)
			}
			p.expectGrowthBelow(containerLimit, 0)
		})
	}
}

// maxAllowed is below the limit of structs in internal/conversion.
const maxAllowed = 99_000

// TestClosesConnectionsAfterTheirAnswerWhileItEnds: a client that keeps its connection is answered until the
// delay is over.
func TestClosesConnectionsAfterTheirAnswerWhileItEnds(t *testing.T) {
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	certified.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	address := free.Addr().(*net.TCPAddr)
	const delay = 2 * time.Second
	options := Options{Host: address.IP.String(), Port: address.Port, Handler: conversion.Handler(), ShutdownDelay: delay}
	s := newServer(options, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certified.TLS.Certificates[0], nil })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Start(ctx) }()
	p := &process{T: t, address: address.String(), client: newClient()}
	for end := time.Now().Add(deadline); p.convertOne() != nil; {
		if time.Now().After(end) {
			t.Fatal("the server does not convert")
		}
		time.Sleep(10 * time.Millisecond)
	}
	begin := time.Now()
	cancel()
	for closing := false; !closing; {
		response, err := p.client.Post(p.url(), "application/json", strings.NewReader(review(oneObject)))
		if err != nil {
			t.Fatalf("%v after the end began: %v", time.Since(begin), err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		closing = response.Close
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if lasted := time.Since(begin); lasted < delay {
		t.Errorf("the server ended after %v, want %v", lasted, delay)
	}
}

func TestRefusesOtherMethods(t *testing.T) {
	h := newLimitedHandler(conversion.Handler())
	for method, want := range map[string]int{
		http.MethodGet: http.StatusMethodNotAllowed, http.MethodPut: http.StatusMethodNotAllowed, http.MethodPost: http.StatusOK,
	} {
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, httptest.NewRequest(method, Path, strings.NewReader(review(oneObject))))
		if recorder.Code != want || (want != http.StatusOK) != (recorder.Header().Get("Allow") == http.MethodPost) {
			t.Errorf("%s: %d, Allow: %q", method, recorder.Code, recorder.Header().Get("Allow"))
		}
	}
}

// TestReleasesEachBudgetWithTheAnswer sends bodies of all sizes around the limits.
func TestReleasesEachBudgetWithTheAnswer(t *testing.T) {
	h := newLimitedHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, ok := r.Body.(conversion.Body)
		if !ok || int64(len(body.Bytes())) != r.ContentLength && r.ContentLength >= 0 {
			t.Errorf("the body of %d bytes is not complete", r.ContentLength)
		}
		if body.Reserve(1) != nil || body.Reserve(maxWorkBytes) == nil {
			t.Error("memory is not reserved within the limits alone")
		}
		if again, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(again, body.Bytes()) {
			t.Errorf("the body cannot be read: %v", err)
		}
	}))
	for length, want := range map[int64]int{
		0: http.StatusOK, 1: http.StatusOK, firstChunkBytes: http.StatusOK, 5<<20 + 1: http.StatusOK,
		maxBodyBytes: http.StatusOK, maxBodyBytes + 1: http.StatusRequestEntityTooLarge,
	} {
		for _, claimed := range []bool{true, false} {
			request := httptest.NewRequest(http.MethodPost, Path, io.LimitReader(zeros{}, length))
			if claimed {
				request.ContentLength = length
			}
			recorder := httptest.NewRecorder()
			h.ServeHTTP(recorder, request)
			if recorder.Code != want {
				t.Errorf("%d bytes, claimed %t: %d, want %d", length, claimed, recorder.Code, want)
			}
			if h.bodies.used != 0 || h.work.used != 0 {
				t.Fatalf("%d bytes of bodies and %d of work are still held", h.bodies.used, h.work.used)
			}
		}
	}
}

func TestKeepsPartOfTheBudgetForSmallRequests(t *testing.T) {
	b := budget{max: maxBodyBytesInFlight}
	if !b.take(maxBodyBytesInFlight-reservedForSmallBytes, smallRequestBytes) || b.take(1, smallRequestBytes) {
		t.Error("large requests take another part than theirs")
	}
	for range reservedForSmallBytes / smallRequestBytes {
		if !b.take(smallRequestBytes, 0) {
			t.Fatal("a small request is refused within the reserve")
		}
	}
	if b.take(1, 0) {
		t.Error("the budget is exceeded")
	}
	b.release(1)
	if !b.take(1, 0) {
		t.Error("what was released cannot be taken")
	}
}

func TestLimitsConnections(t *testing.T) {
	l := &connectionLimiter{byAddress: map[string]int{}}
	address := func(n int) string { return fmt.Sprintf("10.0.0.%d", n/maxConnectionsPerAddress) }
	for n := range maxConnections {
		if !l.add(address(n)) {
			t.Fatalf("connection %d is refused", n)
		}
		if n+1 == maxConnectionsPerAddress && l.add(address(n)) {
			t.Fatal("one address takes more than its share")
		}
	}
	if l.add("10.0.1.1") {
		t.Error("more connections than the limit")
	}
	l.remove(address(0))
	if !l.add("10.0.1.1") {
		t.Error("a closed connection still counts")
	}
	for range maxConnectionsPerAddress - 1 {
		l.remove(address(0))
	}
	if _, left := l.byAddress[address(0)]; left {
		t.Error("an address without connections is remembered")
	}
}

// TestClosesConnectionsAboveTheLimit opens more connections than one address may have, then closes them.
func TestClosesConnectionsAboveTheLimit(t *testing.T) {
	p := startProcess(t)
	p.client.CloseIdleConnections()
	open := make([]net.Conn, 0, maxConnectionsPerAddress)
	refused := false
	for len(open) <= maxConnectionsPerAddress && !refused {
		connection, err := tls.Dial("tcp", p.address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			refused = true
			break
		}
		open = append(open, connection)
	}
	if !refused {
		t.Errorf("%d connections are open", len(open))
	}
	for _, connection := range open {
		_ = connection.Close()
	}
	for end := time.Now().Add(deadline); p.convertOne() != nil; {
		if time.Now().After(end) {
			t.Fatal("after the connections were closed one object is not converted")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
