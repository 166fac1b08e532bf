//go:build integration

package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
)

// entries are more than etcd lets a member lag behind before it refuses requests (maxGapBetweenApplyAndCommitIndex).
const entries = 5100

// value makes the snapshot large. The learner hangs if its first request to publish itself is lost meanwhile.
var value = strings.Repeat("x", 4<<10)

// TestALearnerThatCopiedTheDataOfAnIdleClusterServesFromTheNextEntryOn needs a leader whose log no longer has its
// first entries, so that the learner gets a snapshot.
func TestALearnerThatCopiedTheDataOfAnIdleClusterServesFromTheNextEntryOn(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		catchUp := "--snapshot-catchup-entries=10"
		if l.minor == "3.5" {
			catchUp = "--experimental-snapshot-catchup-entries=10"
		}
		l.serverArguments = []string{"--snapshot-count=100", catchUp}
		l.found(t, "prod-0")
		var writers sync.WaitGroup
		for w := range 20 {
			writers.Go(func() {
				err := l.do(t, "prod-0", func(ctx context.Context, client *clientv3.Client) error {
					for n := range entries / 20 {
						if _, err := client.Put(ctx, fmt.Sprint(w, n), value); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		writers.Wait()
		to := l.target(t, "prod-0")
		if _, _, err := l.Changer().AddLearner(t.Context(), to, l.peerURL("prod-1")); err != nil {
			t.Fatal(err)
		}
		if err := l.Start(t, "prod-1", rules.Initial{State: "existing", Members: []string{"prod-0", "prod-1"}}); err != nil {
			t.Fatal(err)
		}
		hangs := false
		until(t, "the learner answers, or hangs with all data", func() error {
			hangs = l.running["prod-1"].output.has("etcdserver: too many requests")
			if _, err := l.Probe(t, "prod-1"); err != nil && !hangs {
				return errors.New("it does neither")
			}
			return nil
		})
		t.Logf("hangs: %t", hangs)
		if err := l.Changer().AppendEntry(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		until(t, "the learner answers", func() error {
			_, err := l.Probe(t, "prod-1")
			return err
		})
		if err := l.Changer().AppendEntry(context.Background(), to); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}
