//go:build integration

// Package etcd tests the port and the model against real etcd processes of every supported minor version.
package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
	v3 "github.com/etcd-warden/etcd-warden/internal/etcd/v3"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

const (
	// patience is how long a condition may take on a busy machine.
	patience = 2 * time.Minute
	// callTime bounds one call, as a pass of the operator does.
	callTime = 10 * time.Second
)

// TestMain runs more tests beside each other than there are processors: they wait for etcd most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(max(6, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// minors are the minor versions that the operator supports.
var minors = []string{"3.5", "3.6", "3.7"}

// binaries returns the folders of etcd's programs by version, and that of the newest patch by minor version.
// They come from ETCD_WARDEN_ETCD_DIRS, a list like PATH, or from the cache that hack/build-tools.sh fills;
// a version that is missing is a failure of the suite.
var binaries = sync.OnceValues(func() (map[string]string, error) {
	dirs := filepath.SplitList(os.Getenv("ETCD_WARDEN_ETCD_DIRS"))
	if len(dirs) == 0 {
		cache := os.Getenv("ETCD_WARDEN_CACHE")
		if cache == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, err
			}
			cache = filepath.Join(home, ".cache", "etcd-warden")
		}
		var err error
		if dirs, err = filepath.Glob(filepath.Join(cache, "etcd-3.*")); err != nil {
			return nil, err
		}
	}
	found := map[string]string{}
	for _, dir := range dirs {
		output, err := exec.Command(filepath.Join(dir, "etcd"), "--version").Output()
		if err != nil {
			continue // a folder that is being built, or something else
		}
		found[strings.Fields(string(output))[2]] = dir
	}
	newest := map[string]string{}
	for v := range found {
		if minor := cluster.MinorOf(v); newest[minor] == "" || version.MustParseSemantic(newest[minor]).LessThan(version.MustParseSemantic(v)) {
			newest[minor] = v
		}
	}
	for minor, v := range newest {
		found[minor] = found[v]
	}
	return found, nil
})

// binary returns the program of a version, x.y.z or x.y.
func binary(t *testing.T, version string) string {
	t.Helper()
	found, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir, ok := found[version]
	if !ok {
		t.Fatalf("etcd %s is missing: run hack/build-tools.sh etcd-%s, or name its folder in ETCD_WARDEN_ETCD_DIRS", version, version)
	}
	return filepath.Join(dir, "etcd")
}

// eachMinor runs a test for each supported minor version.
func eachMinor(t *testing.T, test func(t *testing.T, l *lab)) {
	t.Helper()
	for _, minor := range minors {
		t.Run("etcd "+minor, func(t *testing.T) { test(t, newLab(t, minor)) })
	}
}

// networks numbers the laboratories: each has a part of 127.0.0.0/8 to itself, so that its ports are never taken.
var networks atomic.Int32

// lab runs etcd processes on loopback addresses.
type lab struct {
	minor   string
	binary  string
	dir     string
	network int32
	port    etcd.Port
	running map[string]*process

	// serverArguments are added to every member's, in the order given.
	serverArguments []string
	scheme          string
	peerScheme      string
	peers           *http.Client // what asks the members' peer ports
	// credentials of the operator, and the name that certificates are checked for.
	credentials *etcd.Credentials
	serverName  string
}

type process struct {
	command *exec.Cmd
	output  *output
	done    chan struct{}
}

func newLab(t *testing.T, minor string) *lab {
	t.Helper()
	number := networks.Add(1)
	l := &lab{minor: minor, binary: binary(t, minor), dir: t.TempDir(), network: number, port: v3.New(), running: map[string]*process{}, scheme: "http", peerScheme: "http", peers: http.DefaultClient}
	t.Cleanup(func() {
		for _, name := range slices.Collect(maps.Keys(l.running)) {
			if t.Failed() {
				t.Logf("the last output of %s:\n%s", name, l.running[name].output.tail())
			}
			l.Stop(t, name)
		}
	})
	return l
}

// host gives each member its own loopback address.
func (l *lab) host(name string) string {
	number := name[strings.LastIndex(name, "-")+1:]
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid%128, l.network, 10+int(number[0]-'0'))
}

func (l *lab) address(name string) string { return l.host(name) + ":2379" }
func (l *lab) peerURL(name string) string { return l.peerScheme + "://" + l.host(name) + ":2380" }
func (l *lab) volume(name string) string  { return filepath.Join(l.dir, name) }

func (l *lab) endpoint(name string) etcd.Endpoint {
	return etcd.Endpoint{Address: l.address(name), ServerName: l.serverName, Credentials: l.credentials}
}

func (l *lab) Changer() etcd.Changer              { return v3.New() }
func (l *lab) Hasher() etcd.Hasher                { return v3.New() }
func (l *lab) Endpoint(name string) etcd.Endpoint { return l.endpoint(name) }
func (l *lab) PeerURL(name string) string         { return l.peerURL(name) }

func (l *lab) Patience() time.Duration { return patience }
func (l *lab) Now() time.Time          { return time.Now() }
func (l *lab) Wait()                   { <-time.After(50 * time.Millisecond) }

func (l *lab) Use(t *testing.T, version string) {
	t.Helper()
	l.binary = binary(t, version)
}

func (l *lab) Start(t *testing.T, name string, initial rules.Initial) error {
	t.Helper()
	var list []string
	for _, member := range initial.Members {
		list = append(list, member+"="+l.peerURL(member))
	}
	client := l.scheme + "://" + l.address(name)
	p := &process{output: &output{}, done: make(chan struct{})}
	p.command = exec.Command(l.binary, append([]string{
		"--name=" + name, "--data-dir=" + filepath.Join(l.volume(name), "data"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + l.peerURL(name), "--initial-advertise-peer-urls=" + l.peerURL(name),
		"--initial-cluster=" + strings.Join(list, ","), "--initial-cluster-state=" + initial.State,
		"--initial-cluster-token=" + initial.Token, "--unsafe-no-fsync", "--logger=zap", "--log-level=info",
		l.corruptCheck(),
	}, l.serverArguments...)...)
	p.command.Stdout, p.command.Stderr = p.output, p.output
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.command.Wait() // the output tells why it ended
		close(p.done)
	}()
	l.running[name] = p
	return l.up(t, name, p)
}

// up waits until the member's peers could reach it, or its process has ended. It may do so without a quorum.
func (l *lab) up(t *testing.T, name string, p *process) error {
	t.Helper()
	end := time.After(patience)
	for {
		select {
		case <-p.done:
			delete(l.running, name)
			return errors.New(p.output.tail())
		case <-end:
			t.Fatalf("%s neither runs nor ends", name)
		case <-time.After(50 * time.Millisecond):
			response, err := l.peers.Get(l.peerURL(name) + "/members")
			if err == nil {
				_ = response.Body.Close()
				if response.StatusCode == http.StatusOK {
					return nil
				}
			}
		}
	}
}

func (l *lab) AgreeOnVersion(t *testing.T, name string) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		version, err := l.clusterVersion(name)
		if err == nil && strings.HasPrefix(version, l.minor+".") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not know the cluster's version: %q, %v", name, version, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (l *lab) clusterVersion(name string) (string, error) {
	response, err := l.peers.Get(l.peerURL(name) + "/version")
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	var versions struct {
		Cluster string `json:"etcdcluster"`
	}
	err = json.NewDecoder(response.Body).Decode(&versions)
	return versions.Cluster, err
}

func (l *lab) Stop(t *testing.T, name string) {
	t.Helper()
	p := l.running[name]
	_ = p.command.Process.Kill() // it may have ended by itself
	<-p.done
	delete(l.running, name)
}

func (l *lab) End(t *testing.T, name string) {
	t.Helper()
	if err := l.running[name].command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	l.Ended(t, name)
}

func (l *lab) Ended(t *testing.T, name string) (text string) {
	t.Helper()
	p := l.running[name]
	select {
	case <-p.done:
		delete(l.running, name)
	case <-time.After(patience):
		t.Fatalf("%s does not end", name)
	}
	return p.output.tail()
}

func (l *lab) Wipe(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(l.volume(name)); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) Compact(t *testing.T, via string, revision int64) error {
	t.Helper()
	return l.do(t, via, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Compact(ctx, revision, clientv3.WithCompactPhysical())
		return err
	})
}

// Corrupt overwrites a value in the database file, once etcd has written it there. etcd maps the file into memory, so a
// running process reads what was written. A page that etcd is about to write anew may still have the old value: so the
// value must stay away for some commits, one each 100 ms.
func (l *lab) Corrupt(t *testing.T, name, value string) {
	t.Helper()
	path := filepath.Join(l.volume(name), "data", "member", "snap", "db")
	changed, away := false, 0
	for end := time.Now().Add(patience); !changed || away < 10; <-time.After(50 * time.Millisecond) {
		database, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		away++
		for at := bytes.Index(database, []byte(value)); at >= 0; at = bytes.Index(database, []byte(value)) {
			database[at] ^= 0xff
			overwrite(t, path, int64(at), database[at:at+1])
			changed, away = true, 0
		}
		if time.Now().After(end) {
			t.Fatalf("%q is not in the database of %s, or comes back", value, name)
		}
	}
}

func overwrite(t *testing.T, path string, at int64, data []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteAt(data, at)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// corruptCheck has a member compare its data with its peers' when it starts, as the operator's members do.
func (l *lab) corruptCheck() string {
	if strings.Contains(l.binary, "etcd-3.5") {
		return "--experimental-initial-corrupt-check"
	}
	return "--feature-gates=InitialCorruptCheck=true"
}

// do calls a member with the operator's credentials.
func (l *lab) do(t *testing.T, via string, call func(context.Context, *clientv3.Client) error) error {
	t.Helper()
	config := clientv3.Config{Endpoints: []string{l.scheme + "://" + l.address(via)}, Logger: zap.NewNop()}
	if l.credentials != nil {
		config.TLS = l.tlsConfig(t)
	}
	client, err := clientv3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	return call(ctx, client)
}

func (l *lab) tlsConfig(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(l.credentials.Certificate, l.credentials.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(l.credentials.Authorities)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func (l *lab) Put(t *testing.T, via, key, value string) error {
	t.Helper()
	return l.do(t, via, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Put(ctx, key, value)
		return err
	})
}

func (l *lab) Get(t *testing.T, via, key string) (value string, err error) {
	t.Helper()
	err = l.do(t, via, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Get(ctx, key)
		if err == nil && len(response.Kvs) > 0 {
			value = string(response.Kvs[0].Value)
		}
		return err
	})
	return value, err
}

func (l *lab) AddVoter(t *testing.T, via, name string) error {
	t.Helper()
	return l.do(t, via, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberAdd(ctx, []string{l.peerURL(name)})
		return err
	})
}

func (l *lab) Raise(t *testing.T, via string, alarm cluster.AlarmKind) error {
	t.Helper()
	probe, err := l.Probe(t, via)
	if err != nil {
		return err
	}
	return l.do(t, via, func(ctx context.Context, client *clientv3.Client) error {
		_, err := etcdserverpb.NewMaintenanceClient(client.ActiveConnection()).Alarm(ctx, &etcdserverpb.AlarmRequest{
			Action:   etcdserverpb.AlarmRequest_ACTIVATE,
			MemberID: uint64(probe.MemberID),
			Alarm:    etcdserverpb.AlarmType(etcdserverpb.AlarmType_value[string(alarm)]),
		})
		return err
	})
}

func (l *lab) Probe(t *testing.T, name string) (cluster.Probe, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	return l.port.Probe(ctx, l.endpoint(name))
}

func (l *lab) Membership(t *testing.T, via string) (cluster.Membership, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	return l.port.Membership(ctx, l.endpoint(via))
}

// memberName is the name that the members' certificate fits.
const memberName = "prod-0-0.prod.ns.svc"

// secure turns TLS for clients on, for prod-0 that is not started yet.
func (l *lab) secure(t *testing.T, names ...string) (authority *pkitest.Authority) {
	t.Helper()
	authority = pkitest.NewAuthority(t, "members")
	server := authority.Issue(t, pkitest.Leaf{CommonName: "server", Names: names, IPs: []net.IP{net.ParseIP(l.host("prod-0"))}})
	l.serverArguments = append(l.serverArguments,
		"--cert-file="+l.file(t, "server.crt", server.Certificate), "--key-file="+l.file(t, "server.key", server.Key),
		"--trusted-ca-file="+l.file(t, "server-ca.crt", authority.PEM), "--client-cert-auth")
	l.scheme, l.serverName = "https", names[0]
	l.credentials = credentialsOf(t, authority, authority, pkitest.Leaf{CommonName: "root", Usages: pkitest.ClientOnly})
	return authority
}

func credentialsOf(t *testing.T, issuer, trusted *pkitest.Authority, leaf pkitest.Leaf) *etcd.Credentials {
	t.Helper()
	pair := issuer.Issue(t, leaf)
	return &etcd.Credentials{Certificate: pair.Certificate, Key: pair.Key, Authorities: trusted.PEM}
}

func (l *lab) file(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serves waits until the member answers a linearizable read.
func (l *lab) serves(t *testing.T, name string) cluster.Probe {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		probe, err := l.Probe(t, name)
		if err == nil && probe.Linearizable {
			return probe
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not serve: %+v, %v", name, probe, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// found starts a cluster of the named members and waits until all serve.
func (l *lab) found(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := l.Start(t, name, rules.Initial{State: "new", Members: names, Token: "token"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		l.serves(t, name)
	}
}

// output keeps what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) has(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Contains(o.text.Bytes(), []byte(text))
}

func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.text.String()
	return text[max(0, len(text)-4000):]
}

var _ rules.Lab = (*lab)(nil)
