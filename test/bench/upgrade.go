package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// benchUpgrade measures a minor step of three members, and the longest gap between acknowledged writes in it, in turn
// with that of equal rest. Between two runs the cluster goes down again.
func (d *day2) benchUpgrade(ctx context.Context) error {
	from, to := cluster.TestedVersion("3.6"), cluster.TestedVersion("3.7")
	a, err := d.start(ctx, "upgrade", wardenManifest(d.lab, "upgrade", 3), 3)
	if err != nil {
		return err
	}
	run, times := 0, samples{}
	gaps, err := steady("control, pinned", quarters, gapBound, "ms", func() (samples, error) {
		gaps := samples{}
		for range d.runs {
			run++
			took, err := d.gapDuring(ctx, a, fmt.Sprintf("upgrade-%d", run), gaps, "upgrade", func() error {
				took, err := d.bringTo(ctx, a.name, to)
				times.add("upgrade", took.Seconds())
				return err
			})
			if err != nil {
				return nil, err
			}
			if _, err := d.gapDuring(ctx, a, fmt.Sprintf("control-%d", run), gaps, "control", func() error { return pause(ctx, took) }); err != nil {
				return nil, err
			}
			if _, err := d.bringTo(ctx, a.name, from); err != nil {
				return nil, err
			}
		}
		return gaps, nil
	})
	if err != nil {
		return err
	}
	d.result(upgradeMinor, times.median("upgrade"), "s")
	d.result(upgradeGap, gaps.median("upgrade, pinned")-gaps.median("control, pinned"), "ms")
	return d.removeAll(ctx, func() error { return removeCluster(ctx, d.lab, a.name) })
}

// bringTo asks for a version, and waits until every member runs it.
func (l *lab) bringTo(ctx context.Context, name, version string) (time.Duration, error) {
	before, err := l.uids(ctx, name)
	if err != nil {
		return 0, err
	}
	seen := timeline{start: time.Now(), before: before, text: map[string]string{}}
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name}}
	patch := fmt.Sprintf(`{"spec":{"version":%q}}`, version)
	if err := l.Patch(ctx, c, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		return 0, err
	}
	err = l.awaitUpToDate(ctx, name, len(before), before, seen.look)
	took := time.Since(seen.start)
	fmt.Printf("%s goes to %s: %.2f s%s\n", name, version, took.Seconds(), seen.String())
	return took, err
}
