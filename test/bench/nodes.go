package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

const (
	runningNamespace = "running"
	nodeStep         = 200 * time.Millisecond
)

// nodes do in one namespace what the StatefulSet controller, the scheduler, the volume controllers and the kubelets do.
// A container is an etcd process with a loopback address and an /etc/hosts of its own.
type nodes struct {
	client.Client
	etcd, dir string
	network   int
	cancel    context.CancelFunc
	ended     chan struct{}
	processes map[types.UID]*member

	mu  sync.Mutex
	err error
}

// member is the etcd process of one pod.
type member struct {
	address string
	command *exec.Cmd
	ended   chan error
}

func (f *fleet) startNodes(ctx context.Context) (*nodes, error) {
	dir := filepath.Join(f.dir, "members")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	n := &nodes{
		Client: f.Client, etcd: f.etcd, dir: dir, network: os.Getpid() % 250, cancel: cancel,
		ended: make(chan struct{}), processes: map[types.UID]*member{},
	}
	go n.run(ctx)
	return n, nil
}

func (n *nodes) run(ctx context.Context) {
	defer close(n.ended)
	for pause(ctx, nodeStep) == nil {
		if err := n.step(ctx); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
			n.mu.Lock()
			n.err = err
			n.mu.Unlock()
			return
		}
	}
}

// failure is why the nodes ended, nil while they run.
func (n *nodes) failure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

func (n *nodes) stop() {
	n.cancel()
	<-n.ended
	for _, m := range n.processes {
		_ = m.command.Process.Kill()
		<-m.ended //nolint:errcheck // it was killed
	}
}

// step makes the pods that StatefulSets lack, and brings each pod one step on.
func (n *nodes) step(ctx context.Context) error {
	var sets appsv1.StatefulSetList
	if err := n.List(ctx, &sets, client.InNamespace(runningNamespace)); err != nil {
		return err
	}
	for i := range sets.Items {
		set := &sets.Items[i]
		pod := &corev1.Pod{}
		err := n.Get(ctx, client.ObjectKey{Namespace: set.Namespace, Name: cluster.PodName(set.Name)}, pod)
		switch {
		case apierrors.IsNotFound(err):
			err = n.Create(ctx, podOf(set))
		case err == nil:
			err = n.advance(ctx, set, pod)
		}
		if err != nil {
			return fmt.Errorf("pod of StatefulSet %s: %w", set.Name, err)
		}
	}
	return nil
}

func podOf(set *appsv1.StatefulSet) *corev1.Pod {
	template := set.Spec.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Namespace, pod.Name = set.Namespace, cluster.PodName(set.Name)
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, set.Spec.ServiceName
	return pod
}

// advance schedules a pod, starts its container and reports whether it is ready.
func (n *nodes) advance(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	if pod.Spec.NodeName == "" {
		binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "node-of-" + pod.Name}}
		return n.SubResource("binding").Create(ctx, pod, binding)
	}
	status := pod.Status.DeepCopy()
	scheduled := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}
	etcd := corev1.ContainerStatus{Name: "etcd", Image: pod.Spec.Containers[0].Image}
	m := n.processes[pod.UID]
	switch {
	// The kubelet first reports that it creates the container.
	case status.Phase != corev1.PodPending || len(status.ContainerStatuses) == 0:
	case m == nil:
		var err error
		if m, err = n.startMember(ctx, pod); err != nil {
			return err
		}
		if err := n.bindVolume(ctx, pod); err != nil {
			return err
		}
	}
	ready := corev1.ConditionFalse
	if m == nil {
		status.Phase = corev1.PodPending
		etcd.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	} else {
		select {
		case err := <-m.ended:
			m.ended <- err
			return fmt.Errorf("etcd ended: %w; see %s", err, n.logOf(pod))
		default:
		}
		status.Phase, status.PodIP, status.PodIPs = corev1.PodRunning, m.address, []corev1.PodIP{{IP: m.address}}
		etcd.State.Running = &corev1.ContainerStateRunning{}
		if m.isReady(ctx) {
			ready, etcd.Ready = corev1.ConditionTrue, true
		}
	}
	status.ContainerStatuses = []corev1.ContainerStatus{etcd}
	status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: ready},
		{Type: corev1.ContainersReady, Status: ready}, scheduled,
	}
	if !equality.Semantic.DeepEqual(*status, pod.Status) {
		pod.Status = *status
		if err := n.Status().Update(ctx, pod); err != nil {
			return err
		}
	}
	sets := appsv1.StatefulSetStatus{ObservedGeneration: set.Generation, Replicas: 1, CurrentReplicas: 1, UpdatedReplicas: 1}
	if ready == corev1.ConditionTrue {
		sets.ReadyReplicas, sets.AvailableReplicas = 1, 1
	}
	if equality.Semantic.DeepEqual(sets, set.Status) {
		return nil
	}
	set.Status = sets
	return n.Status().Update(ctx, set)
}

func (m *member) isReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/readyz", m.address, cluster.MetricsPort), nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (n *nodes) bindVolume(ctx context.Context, pod *corev1.Pod) error {
	claim := &corev1.PersistentVolumeClaim{}
	member := pod.Labels[cluster.LabelMember]
	if err := n.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: cluster.VolumeName(member)}, claim); err != nil {
		return err
	}
	claim.Status.Phase = corev1.ClaimBound
	return n.Status().Update(ctx, claim)
}

func (n *nodes) logOf(pod *corev1.Pod) string { return filepath.Join(n.dir, pod.Name+".log") }

// startMember runs etcd with the pod's arguments. Its mounts are below a folder of its own.
func (n *nodes) startMember(ctx context.Context, pod *corev1.Pod) (*member, error) {
	dir := filepath.Join(n.dir, pod.Name)
	m := &member{address: fmt.Sprintf("127.%d.%d.%d", 64+n.network%64, n.network, len(n.processes)+10), ended: make(chan error, 1)}
	arguments := make([]string, 0, len(pod.Spec.Containers[0].Args))
	for _, argument := range pod.Spec.Containers[0].Args {
		for _, variable := range pod.Spec.Containers[0].Env {
			key := strings.TrimSuffix(strings.TrimPrefix(variable.ValueFrom.FieldRef.FieldPath, "metadata.annotations['"), "']")
			argument = strings.ReplaceAll(argument, "$("+variable.Name+")", pod.Annotations[key])
		}
		argument = strings.ReplaceAll(strings.ReplaceAll(argument, "//0.0.0.0:", "//"+m.address+":"), "//[::]:", "//"+m.address+":")
		arguments = append(arguments, argument)
	}
	for _, mount := range pod.Spec.Containers[0].VolumeMounts {
		path := filepath.Join(dir, mount.MountPath)
		if err := n.mount(ctx, pod, mount.Name, path); err != nil {
			return nil, err
		}
		for i := range arguments {
			arguments[i] = strings.ReplaceAll(arguments[i], "="+mount.MountPath, "="+path)
		}
	}
	hosts := filepath.Join(n.dir, pod.Labels[cluster.LabelCluster]+".hosts")
	log, err := os.Create(n.logOf(pod))
	if err != nil {
		return nil, err
	}
	if err := n.addHost(hosts, pod, m.address); err != nil {
		return nil, err
	}
	program := []string{"--mount", "--", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts, n.etcd}
	if os.Getuid() != 0 {
		program = append([]string{"--map-root-user"}, program...)
	}
	m.command = exec.Command("unshare", append(program, arguments...)...)
	m.command.Stdout, m.command.Stderr = log, log
	if err := m.command.Start(); err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	go func() { m.ended <- m.command.Wait() }()
	n.processes[pod.UID] = m
	return m, nil
}

// mount makes a folder, with the content of the Secret that the pod mounts there.
func (n *nodes) mount(ctx context.Context, pod *corev1.Pod, volume, path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name != volume || v.Secret == nil {
			continue
		}
		secret := &corev1.Secret{}
		if err := n.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: v.Secret.SecretName}, secret); err != nil {
			return err
		}
		for key, value := range secret.Data {
			if err := os.WriteFile(filepath.Join(path, key), value, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// addHost writes the member's name into the cluster's hosts file, which its members share. A connection between
// loopback addresses comes from 127.0.0.1: etcd looks for a name of that address in the peer's certificate.
func (n *nodes) addHost(hosts string, pod *corev1.Pod, address string) error {
	domain := cluster.PeerServiceName(pod.Labels[cluster.LabelCluster]) + "." + pod.Namespace + ".svc"
	file, err := os.OpenFile(hosts, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "127.0.0.1 localhost peer.%s\n%s %s.%s\n", domain, address, pod.Name, domain)
	return errors.Join(err, file.Close())
}
