package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	etcdv3 "github.com/etcd-warden/etcd-warden/internal/etcd/v3"
)

const (
	pollEvery = 50 * time.Millisecond
	patience  = 3 * time.Minute
)

func (l *lab) makeNamespace(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: l.namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := l.Create(ctx, namespace); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// apply is kubectl apply, as a user would.
func (l *lab) apply(ctx context.Context, manifest string) error {
	command := exec.CommandContext(ctx, "kubectl", "apply", "-f", "-")
	command.Stdin = strings.NewReader(manifest)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl apply: %w: %s", err, out)
	}
	return nil
}

// awaitVoters asks the pods by their addresses until so many
// different voters of one cluster serve linearizable reads.
func (l *lab) awaitVoters(ctx context.Context, name string, count int, credentials *etcd.Credentials) error {
	return wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		probes, err := l.probe(ctx, name, credentials)
		if err != nil {
			return false, err
		}
		clusters, voters := map[cluster.ID]bool{}, map[cluster.ID]bool{}
		for _, probe := range probes {
			if probe.Linearizable && !probe.Learner {
				clusters[probe.ClusterID], voters[probe.MemberID] = true, true
			}
		}
		return len(probes) == count && len(voters) == count && len(clusters) == 1, nil
	})
}

// probe asks each pod of a contender that has an address. The answer is empty where none came.
func (l *lab) probe(ctx context.Context, name string, credentials *etcd.Credentials) (map[string]cluster.Probe, error) {
	pods, err := l.pods(ctx, name)
	if err != nil {
		return nil, err
	}
	answers := make([]cluster.Probe, len(pods))
	var asked sync.WaitGroup
	for i, pod := range pods {
		if pod.Status.PodIP == "" {
			continue
		}
		asked.Go(func() {
			if probe, err := l.ask(ctx, name, &pod, credentials); err == nil {
				answers[i] = probe
			}
		})
	}
	asked.Wait()
	probes := map[string]cluster.Probe{}
	for i, pod := range pods {
		probes[pod.Name] = answers[i]
	}
	return probes, nil
}

// ask asks one pod of a contender.
func (l *lab) ask(ctx context.Context, name string, pod *corev1.Pod, credentials *etcd.Credentials) (cluster.Probe, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return etcdv3.New().Probe(ctx, etcd.Endpoint{
		Address: clientAddress(pod.Status.PodIP), ServerName: l.serverName(name), Credentials: credentials,
	})
}

func clientAddress(ip string) string { return net.JoinHostPort(ip, strconv.Itoa(cluster.ClientPort)) }

// serverName is a name that the certificates of all members fit.
func (l *lab) serverName(name string) string {
	return fmt.Sprintf("%s.%s.svc", cluster.ClientServiceName(name), l.namespace)
}

// pods returns the pods of one contender.
func (l *lab) pods(ctx context.Context, name string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := l.List(ctx, &pods, client.InNamespace(l.namespace), client.MatchingLabels{benchLabel: name})
	return pods.Items, err
}

// sweep deletes the volumes and waits until pods and volumes are gone,
// so that the next round starts on an idle machine.
func (l *lab) sweep(ctx context.Context) error {
	if err := l.DeleteAllOf(ctx, &corev1.PersistentVolumeClaim{}, client.InNamespace(l.namespace)); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		var claims corev1.PersistentVolumeClaimList
		var volumes corev1.PersistentVolumeList
		for _, list := range []client.ObjectList{&pods, &claims} {
			if err := l.List(ctx, list, client.InNamespace(l.namespace)); err != nil {
				return false, err
			}
		}
		if err := l.List(ctx, &volumes); err != nil {
			return false, err
		}
		left := len(pods.Items) + len(claims.Items)
		for _, v := range volumes.Items {
			if v.Spec.ClaimRef != nil && v.Spec.ClaimRef.Namespace == l.namespace {
				left++
			}
		}
		return left == 0, nil
	})
}
