package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// The figures of day two.
const (
	rollGap     = "roll-gap-over-control"
	rollGapAtIP = "roll-gap-service"
	rollThree   = "roll-three"
	rollWatched = "roll-three-watched"
	scaleUp     = "scale-1-3-5"
	scaleCached = "scale-1-3-5-cached-dns"
	leaderKill  = "leader-kill-ratio"

	upgradeMinor = "upgrade-minor-s"
	upgradeGap   = "upgrade-gap-over-control"

	replaceMember = "replace-member"
	replaceNode   = "replace-node"
	replaceGap    = "replace-gap-over-control"
)

// cleanUpWithin bounds what is removed at the end, also after an interruption.
const cleanUpWithin = 3 * time.Minute

// day2 measures what happens to a cluster that runs.
type day2 struct {
	*lab
	runs, pairs, mib, watches int
	wanted                    []string
	// results are printed last.
	results []result
}

type result struct {
	name  string
	value float64
	unit  string
}

func (d *day2) wants(figures ...string) bool {
	return slices.ContainsFunc(figures, func(f string) bool { return slices.Contains(d.wanted, f) })
}

func (d *day2) result(name string, value float64, unit string) {
	if d.wants(name) {
		d.results = append(d.results, result{name, value, unit})
	}
}

// benchDay2 measures the wanted figures. One that fails does not keep the others from being measured.
func benchDay2(ctx context.Context, l *lab) error {
	d := &day2{lab: l}
	if err := d.readOptions(); err != nil {
		return err
	}
	defer l.removeNamespace()
	var failures []error
	for _, part := range []struct {
		figures []string
		measure func(context.Context) error
	}{
		{[]string{rollGap, rollGapAtIP}, d.benchGap},
		{[]string{rollThree, rollWatched}, d.benchRoll},
		{[]string{scaleUp, scaleCached}, d.benchScale},
		{[]string{leaderKill}, d.benchKill},
		{[]string{upgradeMinor, upgradeGap}, d.benchUpgrade},
		{[]string{replaceMember, replaceGap}, d.benchReplace},
		{[]string{replaceNode}, d.benchReplaceNode},
	} {
		if !d.wants(part.figures...) || ctx.Err() != nil {
			continue
		}
		start := time.Now()
		if err := part.measure(ctx); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", strings.Join(part.figures, ", "), err))
			fmt.Fprintln(os.Stderr, failures[len(failures)-1])
			l.removeNamespace() // what was left there would disturb the next part
			if err := l.makeNamespace(ctx); err != nil {
				return errors.Join(append(failures, err)...)
			}
		}
		fmt.Printf("%s took %.0f s\n", strings.Join(part.figures, ", "), time.Since(start).Seconds())
	}
	for _, r := range d.results {
		figure(r.name, r.value, r.unit)
	}
	return errors.Join(append(failures, ctx.Err())...)
}

func (d *day2) readOptions() error {
	for name, option := range map[string]struct {
		value *int
		usual int
	}{"RUNS": {&d.runs, 5}, "PAIRS": {&d.pairs, 30}, "MIB": {&d.mib, 100}, "WATCHES": {&d.watches, 100}} {
		n, err := atLeastOne(name, option.usual)
		if err != nil {
			return err
		}
		*option.value = n
	}
	known := []string{
		rollGap, rollGapAtIP, rollThree, rollWatched, scaleUp, scaleCached, leaderKill, upgradeMinor, upgradeGap,
		replaceMember, replaceNode, replaceGap,
	}
	d.wanted = known
	if text := os.Getenv("FIGURES"); text != "" {
		d.wanted = strings.Split(text, ",")
	}
	for _, name := range d.wanted {
		if !slices.Contains(known, name) {
			return fmt.Errorf("FIGURES names %q: write some of %s", name, strings.Join(known, ","))
		}
	}
	return nil
}

// removeNamespace removes everything that was made, and waits for it.
func (l *lab) removeNamespace() {
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpWithin)
	defer cancel()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.namespace}}
	err := l.Delete(ctx, namespace)
	if err == nil {
		err = wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
			return apierrors.IsNotFound(l.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)), nil
		})
	}
	if client.IgnoreNotFound(err) != nil {
		fmt.Fprintln(os.Stderr, "cleaning up:", err)
	}
}

// wardenManifest is a cluster as the defaults make it: with certificates that the operator manages.
func wardenManifest(l *lab, name string, replicas int) string {
	return fmt.Sprintf(`apiVersion: operator.etcd-warden.io/v1beta1
kind: EtcdCluster
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: %[5]d
  version: %[3]s
  storage: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 2Gi}}}}}
  podTemplate: {metadata: {labels: {%[4]s: %[1]s}}}
`, name, l.namespace, l.version, benchLabel, replicas)
}

// start makes a cluster of the operator and fills it.
func (d *day2) start(ctx context.Context, name, manifest string, replicas int) (*access, error) {
	if err := d.apply(ctx, manifest); err != nil {
		return nil, err
	}
	if err := d.awaitUpToDate(ctx, name, replicas, nil, nil); err != nil {
		return nil, err
	}
	a, err := d.access(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := d.awaitVoters(ctx, name, replicas, a.credentials); err != nil {
		return nil, err
	}
	return a, d.fill(ctx, a)
}

// awaitUpToDate waits until the operator says that a cluster is up to date and all pods are ready, none of them one of
// those before. It calls seen, if given, with the pods of each look.
func (l *lab) awaitUpToDate(
	ctx context.Context, name string, replicas int, before map[types.UID]bool, seen func([]corev1.Pod),
) error {
	last := ""
	err := wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		var c v1beta1.EtcdCluster
		if err := l.Get(ctx, client.ObjectKey{Namespace: l.namespace, Name: name}, &c); err != nil {
			return false, err
		}
		pods, err := l.pods(ctx, name)
		if err != nil {
			return false, err
		}
		if seen != nil {
			seen(pods)
		}
		ready := 0
		for _, pod := range pods {
			if isReady(&pod) && !before[pod.UID] {
				ready++
			}
		}
		progressing := meta.FindStatusCondition(c.Status.Conditions, v1beta1.ConditionProgressing)
		if progressing == nil {
			return false, nil
		}
		last = fmt.Sprintf("%d of %d pods are ready, Progressing is %s: %s", ready, replicas, progressing.Reason, progressing.Message)
		return len(pods) == replicas && ready == replicas && progressing.Reason == v1beta1.ReasonUpToDate &&
			progressing.ObservedGeneration == c.Generation && int(c.Status.ReadyReplicas) == replicas, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for cluster %s (%s): %w", name, last, err)
	}
	return nil
}

func isReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// removeAll removes the clusters and their volumes.
func (d *day2) removeAll(ctx context.Context, removals ...func() error) error {
	for _, remove := range removals {
		if err := remove(); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return d.sweep(ctx)
}

func (l *lab) clientService(ctx context.Context, name string) (string, error) {
	var service corev1.Service
	key := client.ObjectKey{Namespace: l.namespace, Name: cluster.ClientServiceName(name)}
	if err := l.Get(ctx, key, &service); err != nil {
		return "", err
	}
	return clientAddress(service.Spec.ClusterIP), nil
}
