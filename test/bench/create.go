package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	pairs = 10
	// spreadBound is how far apart the quarters of the reference's own times may lie, in parts of their median.
	spreadBound = 0.25
	attempts    = 3
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
	for attempt := 1; ; attempt++ {
		times := map[string][]float64{}
		for round := range pairs {
			for _, c := range []contender{reference, operator} {
				took, err := measure(ctx, l, c, fmt.Sprintf("r%d-%d", attempt, round))
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				fmt.Printf("round %2d  %-18s %6.2f s\n", round+1, c.name, took.Seconds())
				times[c.name] = append(times[c.name], took.Seconds())
			}
		}
		for _, c := range []contender{reference, operator} {
			t := times[c.name]
			fmt.Printf("%-18s median %.2f s, quarters %.2f to %.2f, all %.2f to %.2f\n", c.name, quantile(t, 0.5), quantile(t, 0.25), quantile(t, 0.75), slices.Min(t), slices.Max(t))
		}
		r := times[reference.name]
		spread := (quantile(r, 0.75) - quantile(r, 0.25)) / quantile(r, 0.5)
		fmt.Printf("spread of the reference: %.2f of its median (bound %.2f)\n", spread, spreadBound)
		if spread > spreadBound && attempt < attempts {
			fmt.Println("the machine was too noisy: measuring again")
			continue
		}
		if spread > spreadBound {
			return fmt.Errorf("the reference's spread exceeds the bound in %d attempts: the machine is too noisy for a figure", attempts)
		}
		figure("create-plain", quantile(r, 0.5), "s")
		figure("create-warden", quantile(times[operator.name], 0.5), "s")
		figure("create-ratio", quantile(times[operator.name], 0.5)/quantile(r, 0.5), "ratio")
		return nil
	}
}

// measure takes the time from kubectl apply until each of three voters serves a linearizable read.
func measure(ctx context.Context, l *lab, c contender, name string) (time.Duration, error) {
	manifest := c.manifest(l, name)
	start := time.Now()
	if err := l.apply(ctx, manifest); err != nil {
		return 0, err
	}
	if err := l.awaitThreeVoters(ctx, name); err != nil {
		return 0, err
	}
	took := time.Since(start)
	if err := c.remove(ctx, l, name); err != nil {
		return 0, err
	}
	return took, l.sweep(ctx)
}

// quantile interpolates between the two nearest values.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (sorted[high]-sorted[low])*(at-float64(low))
}
