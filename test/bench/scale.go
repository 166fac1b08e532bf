package main

import (
	"context"
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// cachedRuns is how often the growth with a DNS cache is measured at most. It takes minutes, and has no limit.
const cachedRuns = 3

// benchScale measures the growth to three and to five members, with names that are always fresh and with a DNS cache,
// in turn with the creation of a plain StatefulSet.
func (d *day2) benchScale(ctx context.Context) error {
	const plain, fresh, cached = "creation of a plain set", "growth", "growth, DNS cache"
	times, err := steady(plain, relativeSpread, spreadBound, "s", func() (samples, error) {
		times := samples{}
		for run := range d.runs {
			took, err := measure(ctx, d.lab, contender{plain, plainManifest, removePlain}, plainName)
			if err != nil {
				return nil, err
			}
			fmt.Printf("creation of a plain StatefulSet: %.2f s\n", took.Seconds())
			times.add(plain, took.Seconds())
			if d.wants(scaleUp) {
				if took, err = d.grow(ctx, "grow"); err != nil {
					return nil, err
				}
				times.add(fresh, took.Seconds())
			}
			if d.wants(scaleCached) && run < cachedRuns {
				if err = d.withCachedNames(ctx, func() error { took, err = d.grow(ctx, "grow"); return err }); err != nil {
					return nil, fmt.Errorf("with a DNS cache: %w", err)
				}
				times.add(cached, took.Seconds())
			}
		}
		return times, nil
	})
	if err != nil {
		return err
	}
	if d.wants(scaleUp) {
		d.result(scaleUp, times.median(fresh), "s")
	}
	if d.wants(scaleCached) {
		d.result(scaleCached, times.median(cached), "s")
	}
	return nil
}

// grow scales a cluster of one to three and to five. It returns the time of both, without that between them.
func (d *day2) grow(ctx context.Context, name string) (time.Duration, error) {
	a, err := d.start(ctx, name, wardenManifest(d.lab, name, 1), 1)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, size := range []int{3, 5} {
		seen := timeline{start: time.Now(), text: map[string]string{}}
		if seen.before, err = d.uids(ctx, name); err != nil {
			return 0, err
		}
		c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: d.namespace, Name: name}}
		wish := &autoscalingv1.Scale{ObjectMeta: c.ObjectMeta, Spec: autoscalingv1.ScaleSpec{Replicas: int32(size)}}
		if err := d.SubResource("scale").Update(ctx, c, client.WithSubResourceBody(wish)); err != nil {
			return 0, err
		}
		if err := d.awaitUpToDate(ctx, name, size, nil, seen.look); err != nil {
			return 0, err
		}
		if err := d.awaitVoters(ctx, name, size, a.credentials); err != nil {
			return 0, err
		}
		took := time.Since(seen.start)
		sum += took
		fmt.Printf("growth to %d: %.2f s%s\n", size, took.Seconds(), seen.String())
	}
	return sum, d.removeAll(ctx, func() error { return removeCluster(ctx, d.lab, name) })
}
