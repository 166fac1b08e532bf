package main

import (
	"context"
	"fmt"
	"time"
)

const (
	pairs = 10
	// spreadBound is how far apart the quarters of the reference's own times may lie, in parts of their median.
	spreadBound = 0.25
)

// contender makes three members one way, and removes them.
type contender struct {
	name     string
	manifest func(l *lab, name string) string
	remove   func(ctx context.Context, l *lab, name string) error
}

// benchCreate measures both ways in turn, so that a change of the machine's speed hits both.
func benchCreate(ctx context.Context, l *lab) error {
	reference := contender{"plain StatefulSet", plainManifest, removePlain}
	operator := contender{"etcd-warden", clusterManifest, removeCluster}
	attempt := 0
	times, err := steady(reference.name, relativeSpread, spreadBound, "s", func() (samples, error) {
		attempt++
		times := samples{}
		for round := range pairs {
			for _, c := range []contender{reference, operator} {
				took, err := measure(ctx, l, c, fmt.Sprintf("r%d-%d", attempt, round))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
				fmt.Printf("round %2d  %-18s %6.2f s\n", round+1, c.name, took.Seconds())
				times.add(c.name, took.Seconds())
			}
		}
		return times, nil
	})
	if err != nil {
		return err
	}
	figure("create-plain", times.median(reference.name), "s")
	figure("create-warden", times.median(operator.name), "s")
	figure("create-ratio", times.median(operator.name)/times.median(reference.name), "ratio")
	return nil
}

// measure takes the time from kubectl apply until each of three voters serves a linearizable read.
func measure(ctx context.Context, l *lab, c contender, name string) (time.Duration, error) {
	manifest := c.manifest(l, name)
	start := time.Now()
	if err := l.apply(ctx, manifest); err != nil {
		return 0, err
	}
	if err := l.awaitVoters(ctx, name, 3, nil); err != nil {
		return 0, err
	}
	took := time.Since(start)
	if err := c.remove(ctx, l, name); err != nil {
		return 0, err
	}
	return took, l.sweep(ctx)
}
