package main

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/status"
)

const (
	passPairs = 20
	// passBatch is how many passes one measurement takes: enough for the clock of the process's CPU time.
	passBatch = 100
	// referenceCopies are the deep copies of a StatefulSet that stand beside one pass.
	referenceCopies = 100
)

type passFigures struct{ reference, full float64 }

// benchPass measures what one pass costs that finds nothing to do, without reading and writing: the decision and its
// report. In turn it measures deep copies of a StatefulSet, so that a slow machine shows in both.
func benchPass() (passFigures, error) {
	s, err := restingCluster()
	if err != nil {
		return passFigures{}, err
	}
	full := func() {
		d := analyse.Next(*s)
		status.Of(s, &d, nil)
	}
	var copied *appsv1.StatefulSet
	reference := func() {
		for range referenceCopies {
			copied = s.Members[0].Workload.Live.DeepCopy()
		}
	}
	full()
	reference()
	for attempt := 1; ; attempt++ {
		var references, fulls []float64
		for range passPairs {
			references, fulls = append(references, cpuOf(reference)), append(fulls, cpuOf(full))
		}
		spread := (quantile(references, 0.75) - quantile(references, 0.25)) / quantile(references, 0.5)
		fmt.Printf("one pass: median %.0f us, all %.0f to %.0f; %d deep copies of StatefulSet %s: median %.0f us, all %.0f to %.0f, spread %.2f (bound %.2f)\n",
			quantile(fulls, 0.5), slices.Min(fulls), slices.Max(fulls), referenceCopies, copied.Name,
			quantile(references, 0.5), slices.Min(references), slices.Max(references), spread, spreadBound)
		if spread <= spreadBound {
			return passFigures{reference: quantile(references, 0.5), full: quantile(fulls, 0.5)}, nil
		}
		if attempt == attempts {
			return passFigures{}, fmt.Errorf("the reference's spread exceeds the bound in %d attempts: the machine is too noisy for a figure", attempts)
		}
		fmt.Println("the machine was too noisy: measuring again")
	}
}

// restingCluster is a cluster of three with managed certificates for which nothing is to be done or written.
func restingCluster() (*cluster.Snapshot, error) {
	s := clustertest.MakeCluster("prod").Managed().Objects().Members(clustertest.Healthy).Snapshot()
	first := analyse.Next(s)
	s.Cluster.Status = status.Of(&s, &first, nil).Status
	d := analyse.Next(s)
	if d.Action != nil || len(d.Upkeep) > 0 || !equality.Semantic.DeepEqual(status.Of(&s, &d, nil).Status, s.Cluster.Status) {
		return nil, fmt.Errorf("the cluster is not at rest: %s: %s, %d writes", d.Rule, d.Message, len(d.Upkeep))
	}
	return &s, nil
}

// cpuOf returns the CPU time of one call in microseconds, that of the garbage collector included.
func cpuOf(call func()) float64 {
	before := processTime()
	for range passBatch {
		call()
	}
	return float64((processTime() - before).Microseconds()) / passBatch
}

func processTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err) // the arguments are right
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
