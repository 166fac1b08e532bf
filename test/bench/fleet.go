package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/test/controlplane"
)

const (
	defaultClusters = 300
	fleetNamespaces = 10
	posters         = 8
	// operatorUser is who the operator is to the API server. The audit log has what this user asks for.
	operatorUser = "etcd-warden"
	// objectsPerCluster are two Services, a PodDisruptionBudget, six Secrets, three volumes and three StatefulSets.
	objectsPerCluster = 15
	// quietTime without a write ends the first wave, and a creation.
	quietTime = 15 * time.Second
	// waitingTime is how long the operator is watched while every cluster waits for its pods.
	waitingTime = time.Minute
	// runningClusters are the clusters whose members run.
	runningClusters = 3
	wavePatience    = 10 * time.Minute
)

// fleet is an API server without kubelets, and the operator beside it as a process of its own.
type fleet struct {
	client.Client
	dir      string
	audit    *auditLog
	user     *envtest.AuthenticatedUser
	operator *exec.Cmd
	// etcd is the program that the members run, of this version.
	etcd, version string
}

// benchFleet measures the creation of many clusters at once, the rest while all wait for their pods, and one pass.
func benchFleet(ctx context.Context) error {
	log.SetLogger(logr.Discard())
	clusters, err := atLeastOne("CLUSTERS", defaultClusters)
	if err != nil {
		return err
	}
	pass, err := benchPass()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "etcd-warden-fleet-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f := &fleet{dir: dir}
	stop, err := f.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	wave, err := f.firstWave(ctx, clusters)
	if err != nil {
		return fmt.Errorf("the first wave: %w; the operator's log ends with\n%s", err, f.logTail())
	}
	cpu, rss, err := f.watchWaiting(ctx)
	if err != nil {
		return err
	}
	running, err := f.createRunning(ctx)
	if err != nil {
		return fmt.Errorf("clusters that run: %w; the operator's log ends with\n%s", err, f.logTail())
	}
	figure("fleet-first-wave-per-second", wave.perSecond, "clusters/s")
	figure("fleet-waiting-cpu-percent", cpu, "%")
	figure("fleet-rss-mib", rss, "MiB")
	figure("fleet-writes-per-cluster", wave.writes, "writes")
	figure("fleet-writes-to-available", running, "writes")
	figure("pass-reference-us", pass.reference, "us")
	figure("pass-full-us", pass.full, "us")
	return nil
}

// start starts the API server, and makes what the operator needs: its user with its role, and a StorageClass.
func (f *fleet) start(ctx context.Context) (stop func(), err error) {
	environment, err := controlplane.Build(".")
	if err != nil {
		return nil, err
	}
	f.etcd = environment.ControlPlane.Etcd.Path
	if f.version, err = versionOf(f.etcd); err != nil {
		return nil, err
	}
	if f.audit, err = newAuditLog(f.dir, environment.ControlPlane.GetAPIServer()); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(f.dir, "etcd-warden"), "./cmd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building the operator: %w", err)
	}
	config, err := environment.Start()
	if err != nil {
		return nil, fmt.Errorf("starting the API server: %w", err)
	}
	stop = func() {
		f.stopOperator()
		if err := environment.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "cleaning up:", err)
		}
	}
	config.QPS = -1
	if f.Client, err = newClient(config); err == nil {
		f.user, err = environment.AddUser(envtest.User{Name: operatorUser}, &rest.Config{QPS: -1})
	}
	if err == nil {
		err = f.prepare(ctx)
	}
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

func (f *fleet) prepare(ctx context.Context) error {
	raw, err := os.ReadFile(filepath.Join("config", "rbac", "role.yaml"))
	if err != nil {
		return fmt.Errorf("reading the operator's role: %w", err)
	}
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(raw, role); err != nil {
		return fmt.Errorf("decoding the operator's role: %w", err)
	}
	objects := []client.Object{
		role,
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: operatorUser},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: operatorUser}},
		},
		&storagev1.StorageClass{
			ObjectMeta: metav1.ObjectMeta{
				Name: "standard", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
			},
			Provisioner: "example.com/none",
		},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: runningNamespace}},
	}
	for n := range fleetNamespaces {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("fleet-%d", n)}})
	}
	for _, object := range objects {
		if err := f.Create(ctx, object); err != nil {
			return fmt.Errorf("creating %s: %w", object.GetName(), err)
		}
	}
	return nil
}

// newCluster is a cluster of three with the defaults: among them certificates that the operator manages.
func (f *fleet) newCluster(namespace, name string) *v1beta1.EtcdCluster {
	return &v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1beta1.EtcdClusterSpec{Replicas: 3, Version: f.version},
	}
}

// post creates the clusters with several clients at once.
func (f *fleet) post(ctx context.Context, clusters int) error {
	numbers := make(chan int)
	failures := make([]error, posters)
	var posting sync.WaitGroup
	for i := range posters {
		posting.Go(func() {
			for n := range numbers {
				c := f.newCluster(fmt.Sprintf("fleet-%d", n%fleetNamespaces), fmt.Sprintf("fleet-%04d", n))
				failures[i] = errors.Join(failures[i], f.Create(ctx, c))
			}
		})
	}
	for n := range clusters {
		numbers <- n
	}
	close(numbers)
	posting.Wait()
	return errors.Join(failures...)
}

type waveFigures struct{ perSecond, writes float64 }

// firstWave posts the clusters, starts the operator and waits until every cluster has all its objects.
func (f *fleet) firstWave(ctx context.Context, clusters int) (waveFigures, error) {
	start := time.Now()
	if err := f.post(ctx, clusters); err != nil {
		return waveFigures{}, err
	}
	fmt.Printf("%d clusters posted in %.1f s\n", clusters, time.Since(start).Seconds())
	if err := f.startOperator(); err != nil {
		return waveFigures{}, err
	}
	requests, err := f.audit.awaitQuiet(ctx, func(r []request) bool { return len(created(r)) >= clusters*objectsPerCluster })
	if err != nil {
		return waveFigures{}, err
	}
	if err := f.checkObjects(ctx, clusters); err != nil {
		return waveFigures{}, err
	}
	objects := created(requests)
	var last time.Time
	lastOf := map[string]time.Time{}
	for _, r := range objects {
		lastOf[r.cluster()] = later(lastOf[r.cluster()], r.Ended)
		last = later(last, r.Ended)
	}
	writes := 0
	for _, r := range requests {
		if r.isWrite() && !r.Received.After(lastOf[r.cluster()]) {
			writes++
		}
	}
	took := last.Sub(startOfWork(requests)).Seconds()
	fmt.Printf("%d objects of %d clusters made in %.1f s; requests for a cluster until it waits for its pods:\n", len(objects), clusters, took)
	printRequests(requests, clusters)
	return waveFigures{perSecond: float64(clusters) / took, writes: float64(writes) / float64(clusters)}, nil
}

// startOfWork is when the operator first asked for anything of a cluster.
func startOfWork(requests []request) time.Time {
	var first time.Time
	for _, r := range requests {
		if r.cluster() != "" && (first.IsZero() || r.Received.Before(first)) {
			first = r.Received
		}
	}
	return first
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// checkObjects counts the objects in the API server: the audit log is only what was asked for.
func (f *fleet) checkObjects(ctx context.Context, clusters int) error {
	have := 0
	mine := client.MatchingLabels{cluster.LabelManagedBy: cluster.ManagedByValue}
	for _, kind := range []string{"ServiceList", "SecretList", "PersistentVolumeClaimList", "apps/StatefulSetList", "policy/PodDisruptionBudgetList"} {
		list := &metav1.PartialObjectMetadataList{}
		group, name, found := strings.Cut(kind, "/")
		if !found {
			group, name = "", kind
		}
		list.APIVersion, list.Kind = strings.TrimPrefix(group+"/v1", "/"), name
		if err := f.List(ctx, list, mine); err != nil {
			return fmt.Errorf("listing %s: %w", kind, err)
		}
		have += len(list.Items)
	}
	if want := clusters * objectsPerCluster; have != want {
		return fmt.Errorf("%d clusters have %d objects, want %d", clusters, have, want)
	}
	return nil
}

// watchWaiting returns the CPU that the operator uses while every cluster waits, in percent of one core,
// and its memory then.
func (f *fleet) watchWaiting(ctx context.Context) (cpu, rss float64, err error) {
	before, err := f.cpuTime()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := pause(ctx, waitingTime); err != nil {
		return 0, 0, err
	}
	after, err := f.cpuTime()
	if err != nil {
		return 0, 0, err
	}
	cpu = 100 * (after - before).Seconds() / time.Since(start).Seconds()
	status, err := f.proc("status")
	if err != nil {
		return 0, 0, err
	}
	kib := map[string]float64{}
	for line := range strings.Lines(status) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[2] == "kB" {
			kib[fields[0]], _ = strconv.ParseFloat(fields[1], 64)
		}
	}
	fmt.Printf("waiting for %s: %.2f %% of a core, %.1f MiB (at most %.1f MiB before)\n", waitingTime, cpu, kib["VmRSS:"]/1024, kib["VmHWM:"]/1024)
	return cpu, kib["VmRSS:"] / 1024, nil
}

// createRunning creates clusters whose members run, and returns the writes for one until it is available and at rest.
func (f *fleet) createRunning(ctx context.Context) (float64, error) {
	before, err := f.audit.read()
	if err != nil {
		return 0, err
	}
	nodes, err := f.startNodes(ctx)
	if err != nil {
		return 0, err
	}
	defer nodes.stop()
	start := time.Now()
	for n := range runningClusters {
		if err := f.Create(ctx, f.newCluster(runningNamespace, fmt.Sprintf("running-%d", n))); err != nil {
			return 0, err
		}
	}
	all, err := f.audit.awaitQuiet(ctx, func([]request) bool { return nodes.failure() != nil || f.allAtRest(ctx) })
	if err := errors.Join(err, nodes.failure()); err != nil {
		return 0, fmt.Errorf("%w; %s", err, f.describe(ctx))
	}
	var requests []request
	for _, r := range all[len(before):] {
		if strings.HasPrefix(r.cluster(), "running-") {
			requests = append(requests, r)
		}
	}
	fmt.Printf("%d clusters available and at rest after %.1f s; requests for a cluster:\n", runningClusters, (time.Since(start) - quietTime).Seconds())
	printRequests(requests, runningClusters)
	writes := 0
	for _, r := range requests {
		if r.isWrite() {
			writes++
		}
	}
	return float64(writes) / runningClusters, nil
}

func (f *fleet) allAtRest(ctx context.Context) bool {
	var list v1beta1.EtcdClusterList
	if err := f.List(ctx, &list, client.InNamespace(runningNamespace)); err != nil {
		return false
	}
	for _, c := range list.Items {
		progressing := meta.FindStatusCondition(c.Status.Conditions, v1beta1.ConditionProgressing)
		if !meta.IsStatusConditionTrue(c.Status.Conditions, v1beta1.ConditionAvailable) || c.Status.ReadyReplicas != c.Spec.Replicas ||
			c.Status.Operation != nil || progressing == nil || progressing.Reason != v1beta1.ReasonUpToDate {
			return false
		}
	}
	return true
}

func (f *fleet) describe(ctx context.Context) string {
	var list v1beta1.EtcdClusterList
	_ = f.List(ctx, &list, client.InNamespace(runningNamespace))
	var text strings.Builder
	for _, c := range list.Items {
		for _, condition := range c.Status.Conditions {
			fmt.Fprintf(&text, "\n%s: %s=%s %s: %s", c.Name, condition.Type, condition.Status, condition.Reason, condition.Message)
		}
	}
	return text.String()
}

// startOperator runs the operator as its pod does, with the defaults of its flags.
func (f *fleet) startOperator() error {
	kubeconfig, err := f.user.KubeConfig()
	if err != nil {
		return fmt.Errorf("writing the operator's kubeconfig: %w", err)
	}
	path := filepath.Join(f.dir, "kubeconfig")
	if err := os.WriteFile(path, kubeconfig, 0o600); err != nil {
		return fmt.Errorf("writing the operator's kubeconfig: %w", err)
	}
	output, err := os.Create(f.logPath())
	if err != nil {
		return fmt.Errorf("opening the operator's log: %w", err)
	}
	f.operator = exec.Command(filepath.Join(f.dir, "etcd-warden"), "manager", "--metrics-bind-address=0", "--health-probe-bind-address=0")
	f.operator.Env = append(os.Environ(), "KUBECONFIG="+path)
	f.operator.Stdout, f.operator.Stderr = output, output
	if err := f.operator.Start(); err != nil {
		return fmt.Errorf("starting the operator: %w", err)
	}
	return nil
}

func (f *fleet) stopOperator() {
	if f.operator == nil {
		return
	}
	_ = f.operator.Process.Signal(os.Interrupt)
	_ = f.operator.Wait()
}

func (f *fleet) logPath() string { return filepath.Join(f.dir, "operator.log") }

func (f *fleet) logTail() string {
	raw, _ := os.ReadFile(f.logPath())
	return string(raw[max(0, len(raw)-4000):])
}

func (f *fleet) proc(file string) (string, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(f.operator.Process.Pid), file))
	if err != nil {
		return "", fmt.Errorf("reading about the operator's process: %w; its log ends with\n%s", err, f.logTail())
	}
	return string(raw), nil
}

// cpuTime returns the CPU time that the operator has used.
func (f *fleet) cpuTime() (time.Duration, error) {
	// Linux counts in hundredths of a second for every program (man 5 proc, USER_HZ).
	const tick = 10 * time.Millisecond
	stat, err := f.proc("stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]) // the third field of the file is the first of these
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("reading %q: %w", stat, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// versionOf returns the version of an etcd program.
func versionOf(etcd string) (string, error) {
	out, err := exec.Command(etcd, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking etcd for its version: %w", err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	_, version, _ := strings.Cut(string(line), ": ")
	return version, nil
}
