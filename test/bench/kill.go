package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/test/appendlog"
)

const (
	// killBound allows for what elections differ by themselves: followers wait for one to two election timeouts.
	killBound = 0.5
	// restartsInPlace is how often the kubelet starts a container again within seconds: its third start waits for 20 s.
	restartsInPlace = 2
)

// benchKill measures how long no write is acknowledged after the leader's process was killed: in a cluster of the
// operator, and in turn in a plain StatefulSet whose pods are like the operator's.
func (d *day2) benchKill(ctx context.Context) error {
	const plain, warden = "plain StatefulSet", "etcd-warden"
	ours, err := d.start(ctx, "kill", clusterManifest(d.lab, "kill"), 3)
	if err != nil {
		return err
	}
	twin, err := d.startTwin(ctx, ours.name, plainName)
	if err != nil {
		return err
	}
	run := 0
	gaps, err := steady(plain, relativeSpread, killBound, "ms", func() (samples, error) {
		gaps := samples{}
		for range d.pairs {
			run++
			for name, a := range map[string]*access{plain: twin, warden: ours} { // the order is random
				gap, err := d.killLeader(ctx, a, fmt.Sprintf("kill-%d", run))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				fmt.Printf("pair %2d  %-18s %7.1f ms\n", run, name, milliseconds(gap))
				gaps.add(name, milliseconds(gap))
			}
		}
		return gaps, nil
	})
	if err != nil {
		return err
	}
	d.result(leaderKill, gaps.median(warden)/gaps.median(plain), "ratio")
	return d.removeAll(ctx, func() error { return removeCluster(ctx, d.lab, ours.name) }, func() error { return removePlain(ctx, d.lab, twin.name) })
}

// killLeader kills the leader's process while writers write, and waits until all members are healthy again.
func (d *day2) killLeader(ctx context.Context, a *access, prefix string) (time.Duration, error) {
	leader, err := d.leader(ctx, a)
	if err != nil {
		return 0, err
	}
	pid, err := processOf(leader)
	if err != nil {
		return 0, err
	}
	log, err := d.pinnedLog(ctx, a, prefix)
	if err != nil {
		return 0, err
	}
	err = pause(ctx, warmUp)
	from := time.Now()
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err == nil {
		err = d.awaitRestart(ctx, a, leader)
	}
	to := time.Now()
	entries := log.Stop()
	if err != nil {
		return 0, fmt.Errorf("killing %s: %w", leader.Name, err)
	}
	if err := log.Verify(ctx, entries); err != nil {
		return 0, err
	}
	gap, _ := appendlog.LongestGap(entries, from, to)
	return gap, d.renew(ctx, a, leader)
}

func (l *lab) leader(ctx context.Context, a *access) (*corev1.Pod, error) {
	probes, err := l.probe(ctx, a.name, a.credentials)
	if err != nil {
		return nil, err
	}
	for name, probe := range probes {
		if probe.Linearizable && probe.Leader == probe.MemberID {
			pod := &corev1.Pod{}
			return pod, l.Get(ctx, client.ObjectKey{Namespace: l.namespace, Name: name}, pod)
		}
	}
	return nil, fmt.Errorf("no member of %s says that it leads", a.name)
}

// processOf finds the etcd of a pod among the processes of this machine, which runs the nodes.
func processOf(pod *corev1.Pod) (int, error) {
	mark := []byte("--initial-advertise-peer-urls=http://" + pod.Name + "." + pod.Spec.Subdomain + "." + pod.Namespace + ".svc:")
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may have ended
		if bytes.Contains(line, mark) && bytes.HasPrefix(line, []byte("/usr/local/bin/etcd\x00")) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, fmt.Errorf("no process of this machine is the etcd of pod %s: the nodes must run here", pod.Name)
}

// awaitRestart waits until the kubelet has started the killed container again, and all members serve.
func (d *day2) awaitRestart(ctx context.Context, a *access, killed *corev1.Pod) error {
	restarts := killed.Status.ContainerStatuses[0].RestartCount
	err := wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		pods, err := d.pods(ctx, a.name)
		ready := 0
		for _, pod := range pods {
			if isReady(&pod) && (pod.UID != killed.UID || pod.Status.ContainerStatuses[0].RestartCount > restarts) {
				ready++
			}
		}
		return ready == 3, err
	})
	if err != nil {
		return fmt.Errorf("waiting for pod %s to be ready again: %w", killed.Name, err)
	}
	return d.awaitVoters(ctx, a.name, 3, a.credentials)
}

// renew deletes a pod that was killed so often that the kubelet would wait before it starts it again.
func (d *day2) renew(ctx context.Context, a *access, killed *corev1.Pod) error {
	if killed.Status.ContainerStatuses[0].RestartCount+1 < restartsInPlace {
		return nil
	}
	if err := d.Delete(ctx, killed); err != nil {
		return err
	}
	err := wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		pods, err := d.pods(ctx, a.name)
		ready := 0
		for _, pod := range pods {
			if isReady(&pod) && pod.UID != killed.UID {
				ready++
			}
		}
		return ready == 3, err
	})
	if err != nil {
		return fmt.Errorf("waiting for a new pod %s: %w", killed.Name, err)
	}
	return d.awaitVoters(ctx, a.name, 3, a.credentials)
}

// startTwin makes a StatefulSet of three whose pods are those of a cluster of the operator: the same image, options,
// resources and probes. Only their names and the static list of members differ.
func (d *day2) startTwin(ctx context.Context, of, name string) (*access, error) {
	var model appsv1.StatefulSet
	if err := d.Get(ctx, client.ObjectKey{Namespace: d.namespace, Name: of + "-0"}, &model); err != nil {
		return nil, err
	}
	labels := map[string]string{benchLabel: name}
	template := model.Spec.Template
	template.ObjectMeta = metav1.ObjectMeta{Labels: labels}
	for i := range template.Spec.TopologySpreadConstraints {
		template.Spec.TopologySpreadConstraints[i].LabelSelector = &metav1.LabelSelector{MatchLabels: labels}
	}
	template.Spec.Volumes = nil
	etcd := &template.Spec.Containers[0]
	etcd.Args = twinArguments(etcd.Args, name, d.namespace)
	etcd.Env = []corev1.EnvVar{{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
	var claim corev1.PersistentVolumeClaim
	if err := d.Get(ctx, client.ObjectKey{Namespace: d.namespace, Name: cluster.VolumeName(of + "-0")}, &claim); err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{Namespace: d.namespace, Name: name}
	service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true, Selector: labels, Ports: []corev1.ServicePort{{Port: cluster.PeerPort}},
	}}
	three := int32(3)
	set := &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
		Replicas: &three, ServiceName: name, PodManagementPolicy: appsv1.ParallelPodManagement,
		Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template,
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
			ObjectMeta: metav1.ObjectMeta{Name: etcd.VolumeMounts[0].Name, Labels: labels},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: claim.Spec.AccessModes, StorageClassName: claim.Spec.StorageClassName, Resources: claim.Spec.Resources,
			},
		}},
	}}
	for _, object := range []client.Object{service, set} {
		if err := d.Create(ctx, object); err != nil {
			return nil, err
		}
	}
	if err := d.awaitVoters(ctx, name, 3, nil); err != nil {
		return nil, err
	}
	twin := &access{name: name}
	return twin, d.fill(ctx, twin)
}

// twinArguments writes the names of the twin into the options of a member, and its static list.
func twinArguments(arguments []string, name, namespace string) []string {
	own := fmt.Sprintf("http://$(POD).%s.%s.svc", name, namespace)
	var members []string
	for i := range 3 {
		pod := fmt.Sprintf("%s-%d", name, i)
		members = append(members, pod+"="+strings.ReplaceAll(own, "$(POD)", pod)+":2380")
	}
	changed := map[string]string{
		"--name":                        "$(POD)",
		"--initial-advertise-peer-urls": own + ":2380",
		"--advertise-client-urls":       own + ":2379",
		"--initial-cluster":             strings.Join(members, ","),
		"--initial-cluster-state":       "new",
	}
	var twin []string
	for _, argument := range arguments {
		option, _, _ := strings.Cut(argument, "=")
		if value, ok := changed[option]; ok {
			argument = option + "=" + value
		}
		twin = append(twin, argument)
	}
	return twin
}
