package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// awaitThreeVoters asks the pods by their addresses until three
// different voters of one cluster serve linearizable reads.
func (l *lab) awaitThreeVoters(ctx context.Context, name string) error {
	return wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		if err := l.List(ctx, &pods, client.InNamespace(l.namespace), client.MatchingLabels{benchLabel: name}); err != nil {
			return false, err
		}
		voters := map[string]bool{}
		for _, pod := range pods.Items {
			if pod.Status.PodIP == "" {
				return false, nil
			}
			bounded, cancel := context.WithTimeout(ctx, time.Second)
			probe, err := etcdv3.New().Probe(bounded, etcd.Endpoint{Address: net.JoinHostPort(pod.Status.PodIP, "2379")})
			cancel()
			if err != nil || !probe.Linearizable || probe.Learner {
				return false, nil
			}
			voters[fmt.Sprint(probe.ClusterID, probe.MemberID)] = true
		}
		return len(voters) == 3, nil
	})
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
