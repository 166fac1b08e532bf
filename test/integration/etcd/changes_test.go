//go:build integration

package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

// bytesCodec passes messages on as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// losing returns an address that passes calls on to a member, and that loses the answers to all but its status.
// The channel gets a value when an answer is lost.
func (l *lab) losing(t *testing.T, name string) (string, <-chan error) {
	t.Helper()
	upstream, err := grpc.NewClient("passthrough:///"+l.address(name), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = upstream.Close() })
	listener, err := net.Listen("tcp", l.host(name)+":0")
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan error, 1)
	server := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var request, answer []byte
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		method, _ := grpc.MethodFromServerStream(stream)
		incoming, _ := metadata.FromIncomingContext(stream.Context())
		ctx := metadata.NewOutgoingContext(context.WithoutCancel(stream.Context()), incoming)
		err := upstream.Invoke(ctx, method, &request, &answer)
		if method == "/etcdserverpb.Maintenance/Status" {
			return errors.Join(err, stream.SendMsg(&answer))
		}
		lost <- err
		<-stream.Context().Done()
		return stream.Context().Err()
	}))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), lost
}

func (l *lab) target(t *testing.T, name string) etcd.Target {
	t.Helper()
	probe := l.serves(t, name)
	return etcd.Target{Endpoint: l.endpoint(name), ClusterID: probe.ClusterID, MemberID: probe.MemberID}
}

// leader returns the member that leads, and the others.
func (l *lab) leader(t *testing.T, names ...string) (leader string, followers []string) {
	t.Helper()
	id := l.serves(t, names[0]).Leader
	for _, name := range names {
		if l.serves(t, name).MemberID == id {
			leader = name
		} else {
			followers = append(followers, name)
		}
	}
	return leader, followers
}

// until makes a call until it succeeds.
func until(t *testing.T, what string, call func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		err := call()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestAChangeWhoseAnswerIsLostIsMadeOnce(t *testing.T) {
	names := []string{"prod-0", "prod-1", "prod-2"}
	eachMinor(t, func(t *testing.T, l *lab) {
		l.found(t, names...)
		leader, followers := l.leader(t, names...)
		to := l.target(t, leader)
		lossy := to
		address, lost := l.losing(t, leader)
		lossy.Endpoint.Address = address
		changer := l.Changer()

		// lose makes a call whose answer is lost, then repeats it with a member that answers.
		lose := func(what string, call func(context.Context, etcd.Target) error, want ...error) {
			t.Helper()
			until(t, what, func() error { // until etcd carries it out
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				carriedOut := make(chan error, 1)
				go func() {
					err := <-lost
					cancel()
					carriedOut <- err
				}()
				if err := call(ctx, lossy); err == nil || err.Error() != "no answer" {
					t.Fatalf("%s: got %v", what, err)
				}
				return <-carriedOut
			})
			// etcd drops a change of membership that comes before its raft has noted that the last one is applied, a moment
			// after that one was answered. Such a change gets no answer. Source: "ignoring conf change" in raft's stepLeader.
			until(t, what+" again", func() error {
				err := call(t.Context(), to)
				if err != nil && err.Error() == "no answer" {
					return err
				}
				if !slices.ContainsFunc(want, func(want error) bool { return errors.Is(err, want) }) {
					t.Fatalf("%s again: got %v, want %v", what, err, want)
				}
				return nil
			})
		}
		var id cluster.ID
		lose("adding", func(ctx context.Context, to etcd.Target) error {
			_, _, err := changer.AddLearner(ctx, to, l.peerURL("prod-3"))
			return err
		}, etcd.ErrPeerURLExists)
		list, err := l.Membership(t, leader)
		if err != nil || len(list.Members) != 4 {
			t.Fatalf("got %+v, %v", list, err)
		}
		for _, m := range list.Members {
			if m.Learner {
				id = m.ID
			}
		}
		if err := l.Start(t, "prod-3", rules.Initial{State: "existing", Members: append(names, "prod-3")}); err != nil {
			t.Fatal(err)
		}
		lose("promoting", func(ctx context.Context, to etcd.Target) error { return changer.Promote(ctx, to, id) }, etcd.ErrNotLearner)
		lose("removing", func(ctx context.Context, to etcd.Target) error { return changer.RemoveMember(ctx, to, id) }, etcd.ErrMemberNotFound)
		if l.minor != "3.5" { // it never answers
			below := cluster.NextMinor(l.minor, -1)
			l.AgreeOnVersion(t, leader)
			lose("enabling a downgrade", func(ctx context.Context, to etcd.Target) error { return changer.EnableDowngrade(ctx, to, below) },
				etcd.ErrDowngradeEnabled, etcd.ErrDowngradeTarget)
			lose("cancelling a downgrade", changer.CancelDowngrade, nil)
		}
		next := l.serves(t, followers[0]).MemberID
		lose("handing over", func(ctx context.Context, to etcd.Target) error { return changer.MoveLeader(ctx, to, next) }, etcd.ErrNotLeader)
		if probe := l.serves(t, followers[1]); probe.Leader != next {
			t.Fatalf("got %+v, want the leader %s", probe, next)
		}
	})
}

// shrinks fails unless a member's database takes less than half of the space than before.
func (l *lab) shrinks(t *testing.T, name string, before int64) {
	t.Helper()
	if probe := l.serves(t, name); probe.DatabaseBytes > before/2 || probe.DatabaseBytesInUse > probe.DatabaseBytes {
		t.Errorf("%s has %d bytes, %d of them in use, and had %d", name, probe.DatabaseBytes, probe.DatabaseBytesInUse, before)
	}
}

func TestADefragmentationShrinksTheDatabaseOfOneMemberAndKeepsItsData(t *testing.T) {
	names := []string{"prod-0", "prod-1", "prod-2"}
	eachMinor(t, func(t *testing.T, l *lab) {
		l.found(t, names...)
		leader, followers := l.leader(t, names...)
		value := strings.Repeat("x", 32<<10)
		err := l.do(t, leader, func(ctx context.Context, client *clientv3.Client) error {
			revision := int64(0)
			for range 300 {
				response, err := client.Put(ctx, "key", value)
				if err != nil {
					return err
				}
				revision = response.Header.Revision
			}
			_, err := client.Compact(ctx, revision, clientv3.WithCompactPhysical())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names { // a compaction ends later on followers, and its pages are free after the next write
			until(t, name+" frees what was compacted", func() error {
				if err := l.Put(t, name, "other", "value"); err != nil {
					return err
				}
				if probe := l.serves(t, name); probe.DatabaseBytes < 8<<20 || probe.DatabaseBytesInUse > probe.DatabaseBytes/4 {
					return fmt.Errorf("it answers %+v", probe)
				}
				return nil
			})
		}
		kept := l.serves(t, followers[1]).DatabaseBytes
		for _, name := range []string{followers[0], leader} {
			before := l.serves(t, name).DatabaseBytes
			for range 2 {
				if err := l.Changer().Defragment(t.Context(), l.target(t, name)); err != nil {
					t.Fatal(err)
				}
				l.shrinks(t, name, before)
			}
			if got, err := l.Get(t, name, "key"); err != nil || got != value {
				t.Errorf("%s reads %d bytes, %v", name, len(got), err)
			}
		}
		if probe := l.serves(t, followers[1]); probe.DatabaseBytes < kept {
			t.Errorf("%s, which nobody defragmented, has %d bytes, and had %d", followers[1], probe.DatabaseBytes, kept)
		}
		to := l.target(t, followers[1])
		address, lost := l.losing(t, followers[1])
		to.Endpoint.Address = address
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := l.Changer().Defragment(ctx, to); err == nil || err.Error() != "no answer" {
			t.Errorf("without an answer it fails with %v", err)
		}
		if err := <-lost; err != nil {
			t.Errorf("the member fails with %v", err)
		}
		l.shrinks(t, followers[1], kept)
	})
}

func TestWithAuthenticationOnRootAloneMakesChanges(t *testing.T) {
	eachMinor(t, func(t *testing.T, l *lab) {
		authority := l.secure(t, memberName, "localhost")
		l.found(t, "prod-0")
		if err := l.do(t, "prod-0", enableAuthentication); err != nil {
			t.Fatal(err)
		}
		to := l.target(t, "prod-0")
		calls := map[string]func(etcd.Target) error{
			"adding": func(to etcd.Target) error {
				_, _, err := l.Changer().AddLearner(t.Context(), to, l.peerURL("prod-1"))
				return err
			},
			"promoting":     func(to etcd.Target) error { return l.Changer().Promote(t.Context(), to, 0xbad) },
			"removing":      func(to etcd.Target) error { return l.Changer().RemoveMember(t.Context(), to, 0xbad) },
			"handing over":  func(to etcd.Target) error { return l.Changer().MoveLeader(t.Context(), to, 0xbad) },
			"defragmenting": func(to etcd.Target) error { return l.Changer().Defragment(t.Context(), to) },
		}
		if l.minor != "3.5" { // where every user may do so
			l.AgreeOnVersion(t, "prod-0")
			calls["enabling a downgrade"] = func(to etcd.Target) error { return l.Changer().EnableDowngrade(t.Context(), to, l.minor) }
		}
		reader := to
		reader.Endpoint.Credentials = credentialsOf(t, authority, authority, pkitest.Leaf{CommonName: "reader", Usages: pkitest.ClientOnly})
		for what, call := range calls {
			// 3.5 tells a defragmentation's with another prefix.
			if err := call(reader); err == nil || !strings.HasSuffix(err.Error(), ": permission denied") {
				t.Errorf("%s as a reader: got %v", what, err)
			}
		}
		want := map[string]error{"promoting": etcd.ErrMemberNotFound, "removing": etcd.ErrMemberNotFound, "handing over": etcd.ErrBadTransferee,
			"enabling a downgrade": etcd.ErrDowngradeTarget}
		for what, call := range calls {
			if err := call(to); !errors.Is(err, want[what]) {
				t.Errorf("%s as root: got %v, want %v", what, err, want[what])
			}
		}
	})
}
