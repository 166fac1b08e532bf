//go:build integration

package etcd

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
	"github.com/etcd-warden/etcd-warden/test/appendlog"
)

// addresses are those of the members that run.
func (l *lab) addresses(context.Context) (map[string]string, error) {
	found := map[string]string{}
	for _, name := range []string{"prod-0", "prod-1", "prod-2"} {
		found[name] = l.address(name)
	}
	return found, nil
}

// appendDuring writes entries while a fault is injected.
func appendDuring(t *testing.T, l *lab, prefix string, fault func()) (*appendlog.Log, []appendlog.Entry) {
	t.Helper()
	log, err := appendlog.Start(t.Context(), appendlog.Options{Members: l.addresses, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	fault()
	entries := log.Stop()
	if appendlog.Acknowledged(entries) == 0 {
		t.Fatalf("none of %d entries was acknowledged", len(entries))
	}
	return log, entries
}

// awaitWrites waits until a member accepts writes.
func awaitWrites(t *testing.T, l *lab, name string) {
	t.Helper()
	end := time.Now().Add(patience)
	for l.Put(t, name, "ready", "yes") != nil {
		if time.Now().After(end) {
			t.Fatalf("%s accepts no write", name)
		}
	}
}

func TestAPausedAppendLogWritesNothing(t *testing.T) {
	l := newLab(t, "3.6")
	if err := l.Start(t, "prod-0", rules.Initial{State: "new", Members: []string{"prod-0"}, Token: "log"}); err != nil {
		t.Fatal(err)
	}
	awaitWrites(t, l, "prod-0")
	log, err := appendlog.Start(t.Context(), appendlog.Options{Prefix: "log", Members: func(context.Context) (map[string]string, error) {
		return map[string]string{"prod-0": l.address("prod-0")}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	awaitMore := func(than int) {
		t.Helper()
		for end := time.Now().Add(patience); len(log.Entries()) <= than; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it writes nothing")
			}
		}
	}
	awaitMore(0)
	resume := log.Pause()
	paused := len(log.Entries())
	time.Sleep(time.Second) // in which it would write a hundred entries
	if n := len(log.Entries()); n != paused {
		t.Errorf("%d entries were written in a pause", n-paused)
	}
	resume()
	awaitMore(paused)
	if err := log.Verify(t.Context(), log.Stop()); err != nil {
		t.Error(err)
	}
}

func TestTheAppendLogKeepsEveryAcknowledgedEntryThroughALostLeader(t *testing.T) {
	l := newLab(t, "3.6")
	members := []string{"prod-0", "prod-1", "prod-2"}
	for _, name := range members {
		if err := l.Start(t, name, rules.Initial{State: "new", Members: members, Token: "log"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range members {
		awaitWrites(t, l, name)
	}
	began := time.Now()
	log, entries := appendDuring(t, l, "log", func() {
		for range 50 {
			awaitWrites(t, l, "prod-1")
		}
		for _, name := range members { // one of them leads
			l.Stop(t, name)
			if err := l.Start(t, name, rules.Initial{State: "existing", Members: []string{name}}); err != nil {
				t.Fatal(err)
			}
			awaitWrites(t, l, name)
		}
	})
	if err := log.Verify(t.Context(), entries); err != nil {
		t.Error(err)
	}
	if gap, _ := appendlog.LongestGap(entries, began, time.Now()); gap <= 0 {
		t.Errorf("the longest gap is %s", gap)
	}
	if slices.IndexFunc(entries, func(e appendlog.Entry) bool { return e.Err != nil }) < 0 {
		t.Error("no attempt failed, although each member was stopped")
	}
	proveFaultsAreFound(t, l, log, entries)
}

// proveFaultsAreFound damages a log that is right.
func proveFaultsAreFound(t *testing.T, l *lab, log *appendlog.Log, entries []appendlog.Entry) {
	t.Helper()
	at := slices.IndexFunc(entries, func(e appendlog.Entry) bool { return e.Err == nil })
	for _, fault := range []struct {
		name, text string
		inject     func([]appendlog.Entry)
	}{
		{"another revision", "stands at", func(e []appendlog.Entry) { e[at].Revision++ }},
		{"an entry of another log", "is lost", func(e []appendlog.Entry) { e[at].Key += "-other" }},
		{"an entry that was acknowledged before an earlier one was sent", "was acknowledged", func(e []appendlog.Entry) {
			last := slices.IndexFunc(e, func(o appendlog.Entry) bool { return o.Revision > e[at].Revision })
			e[last].Acknowledged, e[last].Sent = e[at].Sent.Add(-time.Second), e[at].Sent.Add(-2*time.Second)
		}},
	} {
		damaged := slices.Clone(entries)
		fault.inject(damaged)
		if err := log.Verify(t.Context(), damaged); err == nil || !strings.Contains(err.Error(), fault.text) {
			t.Errorf("%s is not found: %v", fault.name, err)
		}
	}
	if err := l.Put(t, "prod-0", entries[at].Key, "again"); err != nil {
		t.Fatal(err)
	}
	if err := log.Verify(t.Context(), entries); err == nil || !strings.Contains(err.Error(), "was written 2 times") {
		t.Errorf("a second write is not found: %v", err)
	}
}
