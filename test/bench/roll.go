package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/test/appendlog"
)

const (
	// warmUp lets the connections of the writers be made before the counting starts.
	warmUp = 2 * time.Second
	// gapBound is how far apart the quarters of the control's gaps may lie, in milliseconds: a third of what is allowed.
	gapBound = 50
	// plainName is the plain StatefulSet that shows how noisy the machine is.
	plainName = "plain"
)

// benchGap measures the longest gap between acknowledged writes of a roll, and in turn that of equal rest.
func (d *day2) benchGap(ctx context.Context) error {
	a, err := d.start(ctx, "gap", wardenManifest(d.lab, "gap", 3), 3)
	if err != nil {
		return err
	}
	run := 0
	gaps, err := steady("control, pinned", quarters, gapBound, "ms", func() (samples, error) {
		gaps := samples{}
		for range d.runs {
			run++
			took, err := d.gapDuring(ctx, a, fmt.Sprintf("roll-%d", run), gaps, "roll", func() error {
				_, err := d.roll(ctx, a.name)
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
	d.result(rollGap, gaps.median("roll, pinned")-gaps.median("control, pinned"), "ms")
	d.result(rollGapAtIP, gaps.median("roll, Service")-gaps.median("control, Service"), "ms")
	return d.removeAll(ctx, func() error { return removeCluster(ctx, d.lab, a.name) })
}

// gapDuring writes while something happens, and adds the longest gap of both kinds of writers.
// It proves that no write was lost.
func (d *day2) gapDuring(ctx context.Context, a *access, prefix string, gaps samples, kind string, happens func() error) (time.Duration, error) {
	logs := map[string]*appendlog.Log{}
	var err error
	if logs["pinned"], err = d.pinnedLog(ctx, a, "pinned-"+prefix); err != nil {
		return 0, err
	}
	if logs["Service"], err = d.serviceLog(ctx, a, "service-"+prefix); err != nil {
		return 0, errors.Join(err, stopped(logs["pinned"]))
	}
	err = pause(ctx, warmUp)
	from := time.Now()
	if err == nil {
		err = happens()
	}
	to := time.Now()
	for _, writers := range []string{"pinned", "Service"} {
		entries := logs[writers].Stop()
		if err != nil {
			continue
		}
		gap, began := appendlog.LongestGap(entries, from, to)
		gaps.add(kind+", "+writers, milliseconds(gap))
		fmt.Printf("%-11s %-8s longest gap %6.1f ms at %5.1f of %4.1f s, %d of %d writes acknowledged\n", prefix, writers,
			milliseconds(gap), began.Sub(from).Seconds(), to.Sub(from).Seconds(), appendlog.Acknowledged(entries), len(entries))
		err = logs[writers].Verify(ctx, entries)
	}
	return to.Sub(from), err
}

func stopped(l *appendlog.Log) error { l.Stop(); return nil }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// benchRoll measures a roll without watches and with many, in turn with a rolling restart of a plain StatefulSet.
func (d *day2) benchRoll(ctx context.Context) error {
	const plain, quiet, watched = "plain StatefulSet", "roll", "roll with watches"
	a, err := d.start(ctx, "roll", wardenManifest(d.lab, "roll", 3), 3)
	if err != nil {
		return err
	}
	if err := d.startPlain(ctx, plainName); err != nil {
		return err
	}
	times, err := steady(plain, relativeSpread, spreadBound, "s", func() (samples, error) {
		times := samples{}
		for range d.runs {
			took, err := d.rollPlain(ctx, plainName)
			if err != nil {
				return nil, err
			}
			times.add(plain, took.Seconds())
			if d.wants(rollThree) {
				if took, err = d.roll(ctx, a.name); err != nil {
					return nil, err
				}
				times.add(quiet, took.Seconds())
			}
			if d.wants(rollWatched) {
				if took, err = d.rollWatched(ctx, a); err != nil {
					return nil, err
				}
				times.add(watched, took.Seconds())
			}
		}
		return times, nil
	})
	if err != nil {
		return err
	}
	if d.wants(rollThree) {
		d.result(rollThree, times.median(quiet), "s")
	}
	if d.wants(rollWatched) {
		d.result(rollWatched, times.median(watched), "s")
	}
	return d.removeAll(ctx, func() error { return removeCluster(ctx, d.lab, a.name) }, func() error { return removePlain(ctx, d.lab, plainName) })
}

// roll asks for a restart of every member, and waits until the cluster is up to date.
func (l *lab) roll(ctx context.Context, name string) (time.Duration, error) {
	before, err := l.uids(ctx, name)
	if err != nil {
		return 0, err
	}
	seen := timeline{start: time.Now(), before: before, text: map[string]string{}}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1beta1.RestartAnnotation, seen.start.Format(time.RFC3339Nano))
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name}}
	if err := l.Patch(ctx, c, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		return 0, err
	}
	err = l.awaitUpToDate(ctx, name, len(before), before, seen.look)
	took := time.Since(seen.start)
	fmt.Printf("roll of %s: %.2f s%s\n", name, took.Seconds(), seen.String())
	return took, err
}

func (l *lab) uids(ctx context.Context, name string) (map[types.UID]bool, error) {
	pods, err := l.pods(ctx, name)
	if err != nil {
		return nil, err
	}
	uids := map[types.UID]bool{}
	for _, pod := range pods {
		uids[pod.UID] = true
	}
	return uids, nil
}

// timeline tells when each pod went, was made anew and became ready.
type timeline struct {
	start  time.Time
	before map[types.UID]bool
	order  []string
	text   map[string]string
}

func (t *timeline) look(pods []corev1.Pod) {
	for _, pod := range pods {
		switch {
		case t.before[pod.UID] && pod.DeletionTimestamp != nil:
			t.note(pod.Name, "going")
		case !t.before[pod.UID] && !isReady(&pod):
			t.note(pod.Name, "new")
		case !t.before[pod.UID]:
			t.note(pod.Name, "ready")
		}
	}
}

func (t *timeline) note(pod, event string) {
	if t.text[pod] == "" {
		t.order = append(t.order, pod)
	}
	if !strings.Contains(t.text[pod], event) {
		t.text[pod] += fmt.Sprintf(" %s %.1f", event, time.Since(t.start).Seconds())
	}
}

func (t *timeline) String() string {
	text := ""
	for _, pod := range t.order {
		text += "; " + pod + t.text[pod]
	}
	return text
}

// rollWatched rolls while clients behind the Service hold watches.
// Where a watch ends, etcd's client opens it again.
func (d *day2) rollWatched(ctx context.Context, a *access) (time.Duration, error) {
	address, err := d.clientService(ctx, a.name)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	opened := make(chan struct{}, 10*d.watches) // none waits, also where a watch is opened again
	var watches sync.WaitGroup
	defer watches.Wait()
	defer cancel()
	for range d.watches {
		c, err := a.etcdClient(address)
		if err != nil {
			return 0, err
		}
		watches.Go(func() {
			defer func() { _ = c.Close() }()
			for response := range c.Watch(ctx, "watched", clientv3.WithCreatedNotify()) {
				if response.Created {
					opened <- struct{}{}
				}
			}
		})
	}
	for range d.watches {
		select {
		case <-opened:
		case <-time.After(patience):
			return 0, fmt.Errorf("etcd did not open %d watches within %s", d.watches, patience)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return d.roll(ctx, a.name)
}

// rollPlain is kubectl rollout restart of a plain StatefulSet, and the wait for its end.
func (l *lab) rollPlain(ctx context.Context, name string) (time.Duration, error) {
	start := time.Now()
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, start.Format(time.RFC3339Nano))
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name}}
	if err := l.Patch(ctx, set, client.RawPatch(types.StrategicMergePatchType, []byte(patch))); err != nil {
		return 0, err
	}
	err := wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		err := l.Get(ctx, client.ObjectKeyFromObject(set), set)
		s := set.Status
		return s.ObservedGeneration == set.Generation && s.UpdateRevision == s.CurrentRevision && s.ReadyReplicas == 3, err
	})
	took := time.Since(start)
	fmt.Printf("roll of the plain StatefulSet: %.2f s\n", took.Seconds())
	return took, err
}
