package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

const (
	// replaceAfter is spec.recovery.memberReplacement.after of the cluster that loses a node.
	replaceAfter = 10 * time.Second
	// nodeRuns is how often the loss of a node is measured at most. Each takes more than a minute.
	nodeRuns = 3
	// clusterScript cuts the power of a node, and starts it again.
	clusterScript = "hack/cluster/cluster.sh"
)

// benchReplace measures the replacement of a follower whose volume was deleted, and the longest gap between
// acknowledged writes in it, in turn with that of equal rest.
func (d *day2) benchReplace(ctx context.Context) error {
	a, err := d.start(ctx, "replace", wardenManifest(d.lab, "replace", 3), 3)
	if err != nil {
		return err
	}
	run, times := 0, samples{}
	gaps, err := steady("control, pinned", quarters, gapBound, "ms", func() (samples, error) {
		gaps := samples{}
		for range d.runs {
			run++
			took, err := d.gapDuring(ctx, a, fmt.Sprintf("replace-%d", run), gaps, "replacement", func() error {
				took, err := d.loseVolume(ctx, a)
				times.add("replacement", took.Seconds())
				return err
			})
			if err != nil {
				return nil, err
			}
			if _, err := d.gapDuring(ctx, a, fmt.Sprintf("control-%d", run), gaps, "control", func() error { return pause(ctx, took) }); err != nil {
				return nil, err
			}
		}
		return gaps, nil
	})
	if err != nil {
		return err
	}
	d.result(replaceMember, times.median("replacement"), "s")
	d.result(replaceGap, gaps.median("replacement, pinned")-gaps.median("control, pinned"), "ms")
	return d.removeAll(ctx, func() error { return removeCluster(ctx, d.lab, a.name) })
}

// loseVolume deletes the volume of a follower behind the operator's back, and waits until all is well again. It returns
// the time from the moment in which the operator calls the member lost until the new member is a voter.
func (d *day2) loseVolume(ctx context.Context, a *access) (time.Duration, error) {
	leader, err := d.leader(ctx, a)
	if err != nil {
		return 0, err
	}
	pods, err := d.pods(ctx, a.name)
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(pods, func(pod corev1.Pod) bool { return pod.UID != leader.UID })
	if i < 0 {
		return 0, fmt.Errorf("%s has no follower", a.name)
	}
	lost := pods[i].Labels[cluster.LabelMember]
	seen, names, err := d.watchPods(ctx, a.name)
	if err != nil {
		return 0, err
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: d.namespace, Name: cluster.VolumeName(lost)}}
	if err := d.Delete(ctx, claim); err != nil {
		return 0, err
	}
	if err := d.Delete(ctx, &pods[i], client.GracePeriodSeconds(0)); err != nil {
		return 0, err
	}
	declared, err := d.awaitLoss(ctx, a.name, lost)
	if err != nil {
		return 0, err
	}
	promoted, err := d.awaitNewVoter(ctx, a, names, seen)
	if err != nil {
		return 0, err
	}
	err = d.awaitUpToDate(ctx, a.name, 3, nil, seen.look)
	fmt.Printf("%s lost its volume: told after %.2f s, replaced %.2f s later%s\n", lost, declared.Sub(seen.start).Seconds(),
		promoted.Sub(declared).Seconds(), seen.String())
	return promoted.Sub(declared), err
}

// watchPods notes the pods of now, by UID and by name.
func (d *day2) watchPods(ctx context.Context, name string) (*timeline, map[string]bool, error) {
	pods, err := d.pods(ctx, name)
	seen, names := &timeline{start: time.Now(), before: map[types.UID]bool{}, text: map[string]string{}}, map[string]bool{}
	for i := range pods {
		seen.before[pods[i].UID], names[pods[i].Name] = true, true
	}
	return seen, names, err
}

// awaitLoss waits until the operator replaces a member, and returns when.
func (d *day2) awaitLoss(ctx context.Context, name, lost string) (time.Time, error) {
	err := wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		var c v1beta1.EtcdCluster
		err := d.Get(ctx, client.ObjectKey{Namespace: d.namespace, Name: name}, &c)
		op := c.Status.Operation
		isGone := !slices.ContainsFunc(c.Status.Members, func(m v1beta1.MemberStatus) bool { return m.Name == lost })
		return isGone || op != nil && op.Type == v1beta1.OperationReplaceMember && op.Member == lost, err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("waiting until the operator replaces %s: %w", lost, err)
	}
	return time.Now(), nil
}

// awaitNewVoter waits until a member with another name than those before is a voter that serves, and returns when.
func (d *day2) awaitNewVoter(ctx context.Context, a *access, names map[string]bool, seen *timeline) (time.Time, error) {
	err := wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		pods, err := d.pods(ctx, a.name)
		if err != nil {
			return false, err
		}
		seen.look(pods)
		for i := range pods {
			if pod := &pods[i]; !names[pod.Name] && pod.Status.PodIP != "" {
				probe, err := d.ask(ctx, a.name, pod, a.credentials)
				return err == nil && probe.Linearizable && !probe.Learner, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("waiting until %s has a new voter: %w", a.name, err)
	}
	return time.Now(), nil
}

// benchReplaceNode measures the replacement of a member whose node was cut off, in turn with the creation of a plain
// StatefulSet. Each run has a cluster of its own, whose members are on different nodes.
func (d *day2) benchReplaceNode(ctx context.Context) error {
	const plain, replaced = "creation of a plain set", "replacement"
	run := 0
	times, err := steady(plain, relativeSpread, spreadBound, "s", func() (samples, error) {
		times := samples{}
		for range min(d.runs, nodeRuns) {
			run++
			took, err := measure(ctx, d.lab, contender{plain, plainManifest, removePlain}, plainName)
			if err != nil {
				return nil, err
			}
			fmt.Printf("creation of a plain StatefulSet: %.2f s\n", took.Seconds())
			times.add(plain, took.Seconds())
			if took, err = d.loseNode(ctx, fmt.Sprintf("node-%d", run)); err != nil {
				return nil, err
			}
			times.add(replaced, took.Seconds())
		}
		return times, nil
	})
	if err != nil {
		return err
	}
	d.result(replaceNode, times.median(replaced), "s")
	return nil
}

// loseNode cuts the node of a member off. It returns the time from the end of replaceAfter, which begins when
// Kubernetes calls the node not ready, until the new member is a voter. It starts the node again and removes the
// cluster.
func (d *day2) loseNode(ctx context.Context, name string) (took time.Duration, err error) {
	manifest := wardenManifest(d.lab, name, 3) + fmt.Sprintf("  recovery: {memberReplacement: {after: %s}}\n", replaceAfter)
	a, err := d.start(ctx, name, manifest, 3)
	if err != nil {
		return 0, err
	}
	node, err := d.nodeOfOne(ctx, name)
	if err != nil {
		return 0, err
	}
	seen, names, err := d.watchPods(ctx, name)
	if err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpWithin)
		defer cancel()
		if started := d.power(ctx, "node-start", node); started != nil || err != nil {
			err = errors.Join(err, started)
			return
		}
		if _, err = d.awaitNode(ctx, node, corev1.ConditionTrue); err == nil {
			err = d.removeAll(ctx, func() error { return removeCluster(ctx, d.lab, name) })
		}
	}()
	if err := d.power(ctx, "node-stop", node); err != nil {
		return 0, err
	}
	since, err := d.awaitNode(ctx, node, corev1.ConditionUnknown)
	if err != nil {
		return 0, err
	}
	promoted, err := d.awaitNewVoter(ctx, a, names, seen)
	if err != nil {
		return 0, err
	}
	due := since.Add(replaceAfter)
	fmt.Printf("%s was cut off: not ready after %.1f s, replaced %.2f s after it was due%s\n", node, since.Sub(seen.start).Seconds(),
		promoted.Sub(due).Seconds(), seen.String())
	return promoted.Sub(due), nil
}

// nodeOfOne returns a node with one member, and without the operator.
func (d *day2) nodeOfOne(ctx context.Context, name string) (string, error) {
	var operators corev1.PodList
	if err := d.List(ctx, &operators, client.InNamespace("etcd-warden-system"), client.MatchingLabels{"control-plane": "controller-manager"}); err != nil {
		return "", err
	}
	pods, err := d.pods(ctx, name)
	if err != nil {
		return "", err
	}
	members := map[string]int{}
	for _, pod := range pods {
		members[pod.Spec.NodeName]++
	}
	for _, pod := range operators.Items {
		delete(members, pod.Spec.NodeName)
	}
	for node, count := range members {
		if count == 1 {
			return node, nil
		}
	}
	return "", fmt.Errorf("no node has one member of %s and not the operator: three nodes are needed", name)
}

// power runs the script of the local cluster for a node.
func (d *day2) power(ctx context.Context, verb, node string) error {
	if !strings.HasPrefix(os.Getenv("KUBECONFIG"), "/var/tmp/etcd-warden-cluster/") {
		return fmt.Errorf("only nodes of the local cluster can be cut off: leave out the figure %s", replaceNode)
	}
	if out, err := exec.CommandContext(ctx, clusterScript, verb, strings.TrimPrefix(node, "node-")).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", verb, node, err, out)
	}
	return nil
}

// awaitNode waits until a node's condition Ready has a status, and returns since when.
func (d *day2) awaitNode(ctx context.Context, name string, status corev1.ConditionStatus) (since time.Time, err error) {
	err = wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		var node corev1.Node
		if err := d.Get(ctx, types.NamespacedName{Name: name}, &node); err != nil {
			return false, err
		}
		i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
		if i < 0 || node.Status.Conditions[i].Status != status {
			return false, nil
		}
		since = node.Status.Conditions[i].LastTransitionTime.Time
		return true, nil
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("waiting until node %s has Ready %s: %w", name, status, err)
	}
	return since, nil
}
