//go:build failpoints

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/failpoint"
)

// One variable names the failpoint, such as before:create:StatefulSet:prod-1 or
// after:update-status:EtcdCluster:prod#2.
// The other names a file, which is created when the failpoint is used. The next process finds the file and goes on.
const (
	failpointVariable = "ETCD_WARDEN_FAILPOINT"
	markerVariable    = "ETCD_WARDEN_FAILPOINT_MARKER"
	killed            = 137 // the exit code after SIGKILL
)

// instrument makes the process exit once, before or after the write that the environment names.
func instrument(c client.Client) client.Client {
	when, write, _ := strings.Cut(os.Getenv(failpointVariable), ":")
	if write == "" {
		return c
	}
	dieAt := func(moment string, w failpoint.Write) {
		if moment == when && w.String() == write && claimMarker() {
			os.Exit(killed)
		}
	}
	if _, err := os.Stat(os.Getenv(markerVariable)); err == nil {
		fmt.Fprintf(os.Stderr, "etcd-warden: starting again after failpoint %s:%s\n", when, write)
	}
	return failpoint.Wrap(c, failpoint.Hooks{
		Before: func(w failpoint.Write) error { dieAt("before", w); return nil },
		After:  func(w failpoint.Write, err error) error { dieAt("after", w); return err },
	})
}

// claimMarker reports whether this process is the first to reach the failpoint.
func claimMarker() bool {
	file, err := os.OpenFile(os.Getenv(markerVariable), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "etcd-warden: %s: %v\n", markerVariable, err)
		os.Exit(2)
	}
	return file.Close() == nil
}
