package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	// hashValue is the size of a key's value: about that of a Kubernetes object. hashBatch is how many keys are written
	// in one transaction.
	hashValue, hashBatch = 4 << 10, 100
	// hashKeys is how many keys are written, one after the other: the rest are written again and again, as objects are.
	hashKeys = 1 << 20
	// hashSpread bounds how far apart the quarters of the pauses without a hash may lie.
	hashSpread = 50.0
)

// benchHash measures how long a member answers nothing while it computes the hash of its data, with 1 and 2 GiB in use,
// in turn with the longest pause in equal time without. It starts an etcd of its own: the program that ETCD names, with
// its data in DIR, or in a folder for temporary files.
func benchHash(ctx context.Context) (err error) {
	program := os.Getenv("ETCD")
	if program == "" {
		return errors.New("ETCD is not set: run hack/bench.sh")
	}
	runs, err := atLeastOne("RUNS", 5)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(os.Getenv("DIR"), "bench-hash-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c, stop, err := startEtcd(program, dir)
	if err != nil {
		return err
	}
	defer stop()
	var stalls []float64
	for gib := 1; gib <= 2; gib++ {
		if err := fill(ctx, c, gib); err != nil {
			return err
		}
		pauses, err := steady("without a hash", quarters, hashSpread, "ms", func() (samples, error) {
			pauses := samples{}
			for range runs {
				var took time.Duration
				stalled, err := longestPause(ctx, c, func(ctx context.Context) error {
					begun := time.Now()
					_, err := c.HashKV(ctx, c.Endpoints()[0], 0)
					took = time.Since(begun)
					return err
				})
				if err != nil {
					return nil, err
				}
				pauses.add("hash", float64(stalled.Milliseconds()))
				rest, err := longestPause(ctx, c, func(ctx context.Context) error { return pause(ctx, took) })
				if err != nil {
					return nil, err
				}
				pauses.add("without a hash", float64(rest.Milliseconds()))
				fmt.Printf("%d GiB: the hash took %.2f s, the longest pause was %.2f s, without a hash %.3f s\n", gib, took.Seconds(), stalled.Seconds(), rest.Seconds())
			}
			return pauses, nil
		})
		if err != nil {
			return err
		}
		stalls = append(stalls, pauses.median("hash"))
	}
	for i, stall := range stalls {
		figure(fmt.Sprintf("hash-stall-%dgib", i+1), stall, "ms")
	}
	return nil
}

// startEtcd starts one member, and returns a client of it.
func startEtcd(program, dir string) (_ *clientv3.Client, stop func(), err error) {
	var urls [2]string
	for i := range urls {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		urls[i] = "http://" + listener.Addr().String()
		if err := listener.Close(); err != nil {
			return nil, nil, err
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, nil, err
	}
	etcd := exec.Command(program, "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
		"--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1], "--initial-cluster", "default="+urls[1],
		"--quota-backend-bytes", strconv.Itoa(8<<30))
	etcd.Stdout, etcd.Stderr = log, log
	if err := etcd.Start(); err != nil {
		return nil, nil, err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{urls[0]}, DialTimeout: patience, Logger: zap.NewNop()})
	stop = func() {
		if c != nil {
			_ = c.Close()
		}
		_ = etcd.Process.Kill()
		_ = etcd.Wait()
		_ = log.Close()
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return c, stop, nil
}

// fill writes until so many GiB of the database are in use.
func fill(ctx context.Context, c *clientv3.Client, gib int) error {
	value := make([]byte, hashValue)
	if _, err := rand.Read(value); err != nil {
		return err
	}
	for n := 0; ; n++ {
		if n%100 == 0 {
			status, err := c.Status(ctx, c.Endpoints()[0])
			if err != nil {
				return err
			}
			if status.DbSizeInUse >= int64(gib)<<30 {
				fmt.Printf("%.2f GiB in use, at revision %d\n", float64(status.DbSizeInUse)/(1<<30), status.Header.Revision)
				return nil
			}
		}
		puts := make([]clientv3.Op, hashBatch)
		for i := range puts {
			puts[i] = clientv3.OpPut(fmt.Sprintf("/registry/pods/%07d", (n*hashBatch+i)%hashKeys), string(value))
		}
		if _, err := c.Txn(ctx).Then(puts...).Commit(); err != nil {
			return err
		}
	}
}

// longestPause returns the longest time between two answered reads, and between two acknowledged writes, while
// something is done.
func longestPause(ctx context.Context, c *clientv3.Client, do func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := make(chan struct{})
	calls := []func() error{
		func() error { _, err := c.Put(ctx, "writer", strings.Repeat("x", 100)); return err },
		func() error { _, err := c.Get(ctx, "writer", clientv3.WithSerializable()); return err },
	}
	pauses, failures := make([]time.Duration, len(calls)), make([]error, len(calls))
	var clients sync.WaitGroup
	for i, call := range calls {
		clients.Go(func() {
			last := time.Now()
			for isOver := false; !isOver; {
				select {
				case <-done:
					isOver = true // one more answer ends the last pause
				default:
				}
				if failures[i] = call(); failures[i] != nil {
					return
				}
				pauses[i], last = max(pauses[i], time.Since(last)), time.Now()
			}
		})
	}
	err := do(ctx)
	close(done)
	clients.Wait()
	return max(pauses[0], pauses[1]), errors.Join(append(failures, err)...)
}
