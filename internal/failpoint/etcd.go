package failpoint

import (
	"context"
	"sync"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

// EtcdKind is the kind of calls that change etcd. They have no name: the IDs and URLs in them differ from run to run.
const EtcdKind = "Etcd"

// WrapChanger returns a changer that calls the hooks around every change of c. ValidateDowngrade is none.
func WrapChanger(c etcd.Changer, hooks Hooks) etcd.Changer {
	return &changer{Changer: c, hooks: hooks, counts: map[string]int{}}
}

type changer struct {
	etcd.Changer
	hooks Hooks

	mu     sync.Mutex
	counts map[string]int
}

func (c *changer) do(verb string, change func() error) error {
	c.mu.Lock()
	c.counts[verb]++
	w := Write{Verb: verb, Kind: EtcdKind, Ordinal: c.counts[verb]}
	c.mu.Unlock()
	if c.hooks.Before != nil {
		if err := c.hooks.Before(w); err != nil {
			return err
		}
	}
	err := change()
	if c.hooks.After != nil {
		return c.hooks.After(w, err)
	}
	return err
}

// AddLearner calls the hooks.
func (c *changer) AddLearner(
	ctx context.Context, target etcd.Target, peerURL string,
) (id cluster.ID, list []cluster.EtcdMember, err error) {
	err = c.do("add-learner", func() error {
		var failure error
		id, list, failure = c.Changer.AddLearner(ctx, target, peerURL)
		return failure
	})
	return id, list, err
}

// Promote calls the hooks.
func (c *changer) Promote(ctx context.Context, target etcd.Target, learner cluster.ID) error {
	return c.do("promote", func() error { return c.Changer.Promote(ctx, target, learner) })
}

// RemoveMember calls the hooks.
func (c *changer) RemoveMember(ctx context.Context, target etcd.Target, id cluster.ID) error {
	return c.do("remove-member", func() error { return c.Changer.RemoveMember(ctx, target, id) })
}

// AppendEntry calls the hooks.
func (c *changer) AppendEntry(ctx context.Context, target etcd.Target) error {
	return c.do("append-entry", func() error { return c.Changer.AppendEntry(ctx, target) })
}

// MoveLeader calls the hooks.
func (c *changer) MoveLeader(ctx context.Context, target etcd.Target, to cluster.ID) error {
	return c.do("move-leader", func() error { return c.Changer.MoveLeader(ctx, target, to) })
}

// Defragment calls the hooks.
func (c *changer) Defragment(ctx context.Context, target etcd.Target) error {
	return c.do("defragment", func() error { return c.Changer.Defragment(ctx, target) })
}

// EnableDowngrade calls the hooks.
func (c *changer) EnableDowngrade(ctx context.Context, target etcd.Target, minor string) error {
	return c.do("enable-downgrade", func() error { return c.Changer.EnableDowngrade(ctx, target, minor) })
}

// Disarm calls the hooks.
func (c *changer) Disarm(ctx context.Context, target etcd.Target, alarm cluster.Alarm) error {
	return c.do("disarm", func() error { return c.Changer.Disarm(ctx, target, alarm) })
}

// CancelDowngrade calls the hooks.
func (c *changer) CancelDowngrade(ctx context.Context, target etcd.Target) error {
	return c.do("cancel-downgrade", func() error { return c.Changer.CancelDowngrade(ctx, target) })
}
