package v3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

const newPeer = "http://prod-3:2380"

// targetAt is the member that honest answers come from.
func targetAt(address string) etcd.Target {
	return etcd.Target{Endpoint: etcd.Endpoint{Address: address}, ClusterID: 0xc1, MemberID: 0xa0}
}

// changeCall is a call of the port, and the method that it sends.
type changeCall struct {
	method string
	do     func(context.Context, etcd.Target) error
}

func changeCalls() map[string]changeCall {
	return map[string]changeCall{
		"AddLearner": {methodAdd, func(ctx context.Context, to etcd.Target) error {
			_, _, err := New().AddLearner(ctx, to, newPeer)
			return err
		}},
		"Promote":      {methodPromote, func(ctx context.Context, to etcd.Target) error { return New().Promote(ctx, to, 0xa3) }},
		"RemoveMember": {methodRemove, func(ctx context.Context, to etcd.Target) error { return New().RemoveMember(ctx, to, 0xa3) }},
		"Defragment":   {methodDefragment, func(ctx context.Context, to etcd.Target) error { return New().Defragment(ctx, to) }},
		"MoveLeader":   {methodMove, func(ctx context.Context, to etcd.Target) error { return New().MoveLeader(ctx, to, 0xa1) }},
		"ValidateDowngrade": {methodVersion, func(ctx context.Context, to etcd.Target) error {
			return New().ValidateDowngrade(ctx, to, "3.5")
		}},
		"EnableDowngrade": {methodVersion, func(ctx context.Context, to etcd.Target) error { return New().EnableDowngrade(ctx, to, "3.5") }},
		"CancelDowngrade": {methodVersion, func(ctx context.Context, to etcd.Target) error { return New().CancelDowngrade(ctx, to) }},
	}
}

func statusOf(clusterID, memberID, leader uint64) func(grpc.ServerStream) error {
	header := &etcdserverpb.ResponseHeader{ClusterId: clusterID, MemberId: memberID}
	return say(&etcdserverpb.StatusResponse{Header: header, Version: "3.6.16", Leader: leader})
}

func TestSendsAChangeToTheExpectedMemberOnly(t *testing.T) {
	anyone := slices.Sorted(maps.Keys(changeCalls()))
	leaderOnly := []string{"Promote", "MoveLeader", "ValidateDowngrade", "EnableDowngrade", "CancelDowngrade"}
	wrong := func(err error) bool { var e *etcd.WrongMemberError; return errors.As(err, &e) }
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	for name, test := range map[string]struct {
		status  func(grpc.ServerStream) error
		target  func(etcd.Target) etcd.Target
		methods []string
		sent    bool
		failsAs func(error) bool
	}{
		"the leader":                 {statusOf(0xc1, 0xa0, 0xa0), nil, anyone, true, is(nil)},
		"a follower":                 {statusOf(0xc1, 0xa0, 0xa1), nil, []string{"AddLearner", "RemoveMember", "Defragment"}, true, is(nil)},
		"a follower that is to lead": {statusOf(0xc1, 0xa0, 0xa1), nil, leaderOnly, false, is(etcd.ErrNotLeader)},
		"a member without a leader":  {statusOf(0xc1, 0xa0, 0), nil, anyone, false, is(etcd.ErrNoLeader)},
		"another cluster":            {statusOf(0xc2, 0xa0, 0xa0), nil, anyone, false, wrong},
		"another member":             {statusOf(0xc1, 0xa1, 0xa1), nil, anyone, false, wrong},
		"no IDs":                     {say(&etcdserverpb.StatusResponse{Leader: 0xa0}), nil, anyone, false, wrong},
		"no IDs, and none expected": {say(&etcdserverpb.StatusResponse{Leader: 0xa0}), func(to etcd.Target) etcd.Target {
			to.ClusterID, to.MemberID = 0, 0
			return to
		}, anyone, false, wrong},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range test.methods {
				call := changeCalls()[method]
				a := honest().but(methodStatus, test.status)
				var sent atomic.Int32
				answer := a[call.method]
				address := serveGRPC(t, a.but(call.method, func(stream grpc.ServerStream) error {
					sent.Add(1)
					return answer(stream)
				}))
				to := targetAt(address)
				if test.target != nil {
					to = test.target(to)
				}
				if err := call.do(t.Context(), to); !test.failsAs(err) {
					t.Errorf("%s fails with %v", method, err)
				}
				if sent.Load() > 0 != test.sent {
					t.Errorf("%s was sent %d times", method, sent.Load())
				}
			}
		})
	}
}

func TestAChangeIsBoundedAndNeedsALeader(t *testing.T) {
	for name, call := range changeCalls() {
		a := honest()
		answer := a[call.method]
		address := serveGRPC(t, a.but(call.method, func(stream grpc.ServerStream) error {
			deadline, ok := stream.Context().Deadline()
			shortest, longest := time.Duration(0), etcd.ChangeTimeout
			if call.method == methodDefragment {
				shortest, longest = 2*etcd.ChangeTimeout, cluster.MaxDefragmentTime
			}
			if !ok || time.Until(deadline) > longest || time.Until(deadline) < shortest {
				t.Errorf("%s has the deadline %s, %v", name, time.Until(deadline), ok)
			}
			if md, _ := metadata.FromIncomingContext(stream.Context()); !slices.Equal(md.Get("hasleader"), []string{"true"}) {
				t.Errorf("%s says %v", name, md)
			}
			return answer(stream)
		}))
		if err := call.do(t.Context(), targetAt(address)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAChangeFailsWithTheErrorsThatCallersBranchOn(t *testing.T) {
	for name, call := range changeCalls() {
		for _, want := range etcd.Errors() {
			err := call.do(t.Context(), targetAt(serveError(t, call.method, codes.FailedPrecondition, want.Error())))
			if !errors.Is(err, want) || err.Error() != want.Error() {
				t.Errorf("%s fails with %v, want %v", name, err, want)
			}
		}
		for text, want := range map[string]string{
			"etcdserver: request timed out":                                "no answer",
			"etcdserver: request timed out, leader transfer took too long": "no answer",
			"etcdserver: something else":                                   "etcdserver: something else",
		} {
			err := call.do(t.Context(), targetAt(serveError(t, call.method, codes.Unknown, text)))
			if err == nil || err.Error() != want || errors.Is(err, context.DeadlineExceeded) != (want == "no answer") {
				t.Errorf("%s fails with %v, want %s", name, err, want)
			}
		}
	}
}

// etcd passes the error of its disk on as it is.
func TestADefragmentationThatFailsTellsWhy(t *testing.T) {
	for text, want := range map[string]string{
		"write /var/lib/etcd/member/snap/db.tmp.1: no space left on device": "write /var/lib/etcd/member/snap/db.tmp.1: no space left on device",
		"prod\x1b[31m": "prod [31m",
	} {
		err := New().Defragment(t.Context(), targetAt(serveError(t, methodDefragment, codes.Unknown, text)))
		var failed *etcd.DefragmentError
		if !errors.As(err, &failed) || failed.Text != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var failed *etcd.DefragmentError
	err := New().Defragment(ctx, targetAt(serveGRPC(t, honest().but(methodDefragment, hang))))
	if errors.As(err, &failed) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without an answer it fails with %v", err)
	}
}

// Two adds of one URL in one second have one ID, and etcd then names the ID and not the URL.
func TestASecondAddInOneSecondFailsAsALaterOne(t *testing.T) {
	address := serveError(t, methodAdd, codes.FailedPrecondition, "etcdserver: member ID already exist")
	_, _, err := New().AddLearner(t.Context(), targetAt(address), newPeer)
	if !errors.Is(err, etcd.ErrPeerURLExists) || err.Error() != etcd.ErrPeerURLExists.Error() {
		t.Errorf("got %v", err)
	}
}

func serveError(t *testing.T, method string, code codes.Code, text string) string {
	t.Helper()
	return serveGRPC(t, honest().but(method, func(grpc.ServerStream) error { return status.Error(code, text) }))
}

func TestBelievesTheAnswerToAnAddIfItHasTheLearner(t *testing.T) {
	learner := func() *etcdserverpb.Member {
		return &etcdserverpb.Member{ID: 0xa3, PeerURLs: []string{newPeer}, IsLearner: true}
	}
	voter := &etcdserverpb.Member{ID: 0xa0, Name: "prod-0", ClientURLs: []string{"http://prod-0:2379"}}
	with := func(change func(*etcdserverpb.Member)) *etcdserverpb.Member {
		m := learner()
		change(m)
		return m
	}
	many := []*etcdserverpb.Member{learner()}
	for range cluster.MaxMembers {
		many = append(many, voter)
	}
	for name, test := range map[string]struct {
		member *etcdserverpb.Member
		list   []*etcdserverpb.Member
		ok     bool
	}{
		"the learner":          {learner(), []*etcdserverpb.Member{learner(), voter}, true},
		"no member":            {nil, []*etcdserverpb.Member{learner(), voter}, false},
		"no list":              {learner(), nil, false},
		"a list without it":    {learner(), []*etcdserverpb.Member{voter}, false},
		"a voter of its ID":    {learner(), []*etcdserverpb.Member{with(func(m *etcdserverpb.Member) { m.IsLearner = false })}, false},
		"a learner of another": {learner(), []*etcdserverpb.Member{with(func(m *etcdserverpb.Member) { m.PeerURLs = []string{"http://x:2380"} })}, false},
		"an ID of zero":        {with(func(m *etcdserverpb.Member) { m.ID = 0 }), []*etcdserverpb.Member{with(func(m *etcdserverpb.Member) { m.ID = 0 })}, false},
		"65 members":           {learner(), many, false},
	} {
		answer := say(&etcdserverpb.MemberAddResponse{Member: test.member, Members: test.list})
		id, list, err := New().AddLearner(t.Context(), targetAt(serveGRPC(t, honest().but(methodAdd, answer))), newPeer)
		switch {
		case test.ok && (err != nil || id != 0xa3 || len(list) != 2 || list[0].ID != 0xa0 || !list[0].Started || list[1].Started):
			t.Errorf("%s: got %s, %+v, %v", name, id, list, err)
		case !test.ok && (err == nil || err.Error() != "the member does not answer as etcd does" || id != 0 || list != nil):
			t.Errorf("%s: got %s, %+v, %v", name, id, list, err)
		}
	}
}

func TestSendsNoPeerURLThatIsNone(t *testing.T) {
	for _, url := range []string{"", "prod-3:2380", "http://prod-3", "http://prod-3:2380/", "unix://prod-3:2380", "http://prod-3:2380 x", "http://" + strings.Repeat("x", 300) + ":2380"} {
		_, _, err := New().AddLearner(t.Context(), targetAt("nobody is asked"), url)
		if err == nil || err.Error() != "the peer URL is not valid" {
			t.Errorf("%q: got %v", url, err)
		}
	}
	for _, url := range []string{newPeer, "https://prod-3-0.prod.ns.svc.cluster.local:2380", "http://[::1]:2380"} {
		if !isPeerURL(url) {
			t.Errorf("%q is refused", url)
		}
	}
}

// The member ends its connection while it answers the status, so that gRPC connects again for the change.
func TestSendsNoChangeOnASecondConnection(t *testing.T) {
	for name, call := range changeCalls() {
		var connections atomic.Int32
		address := serve(t, func(conn net.Conn) {
			defer conn.Close()
			connections.Add(1)
			answerOnceAndLeave(t, conn)
		})
		err := call.do(t.Context(), targetAt(address))
		if err == nil || err.Error() != "the connection was closed" || connections.Load() != 1 {
			t.Errorf("%s fails with %v on %d connections", name, err, connections.Load())
		}
	}
	for once, want := range map[bool]error{true: errOnce, false: nil} {
		transport := &transport{once: once}
		for n, want := range []error{nil, want} {
			conn, err := transport.dial(t.Context(), serveSilence(t))
			if !errors.Is(err, want) {
				t.Errorf("once %v: connection %d fails with %v, want %v", once, n, err, want)
			}
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
}

// answerOnceAndLeave answers the first call with an honest status, after it has said that no other call is served.
func answerOnceAndLeave(t *testing.T, conn net.Conn) {
	message, err := proto.Marshal(&etcdserverpb.StatusResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: 0xc1, MemberId: 0xa0}, Leader: 0xa0})
	if err != nil || len(message) > 255 {
		t.Errorf("%d bytes, %v", len(message), err)
		return
	}
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	if framer.WriteSettings() != nil || framer.WriteSettingsAck() != nil {
		return
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		if data, ok := frame.(*http2.DataFrame); ok && data.StreamEnded() {
			break
		}
	}
	fields := func(pairs ...string) []byte {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for i := 0; i < len(pairs); i += 2 {
			_ = encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // a buffer takes everything
		}
		return block.Bytes()
	}
	body := append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
	if framer.WriteGoAway(1, http2.ErrCodeNo, nil) != nil ||
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: fields(":status", "200", "content-type", "application/grpc")}) != nil ||
		framer.WriteData(1, false, body) != nil ||
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: fields("grpc-status", "0")}) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, conn)
}

func TestAHostileMemberCostsAChangeLittleMemoryAndTime(t *testing.T) {
	emptyMembers := func(field byte) []byte { return bytes.Repeat([]byte{field<<3 | 2, 0}, (1<<20-64)/2) }
	list := map[string]byte{methodAdd: 3, methodPromote: 2, methodRemove: 2, methodMove: 1, methodVersion: 1, methodDefragment: 1}
	calls := changeCalls()
	delete(calls, "ValidateDowngrade") // the same message as EnableDowngrade
	for name, call := range calls {
		for what, a := range map[string]answers{
			"64 MiB":                 honest().but(call.method, sayBytes(megabytes(64)...)),
			"64 MiB, zipped":         honest().but(call.method, compressed(sayBytes(megabytes(64)...))),
			"a MiB of empty members": honest().but(call.method, sayBytes(mem.SliceBuffer(emptyMembers(list[call.method])))),
			"an error of half a MiB": honest().but(call.method, sayLongError),
			"silence":                honest().but(call.method, hang),
			"a status of 64 MiB":     honest().but(methodStatus, sayBytes(megabytes(64)...)),
			"silence in the status":  honest().but(methodStatus, hang),
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				to := targetAt(serveGRPC(t, a))
				costsLittle(t, liveHeap, name, func(ctx context.Context) error { return call.do(ctx, to) }, true)
			})
		}
	}
}

func TestTakesNoMoreOfAnAddedLearnersListThanTheLimits(t *testing.T) {
	text := "prod\nInjected: yes\x1b[31m" + strings.Repeat("x", 1000)
	response := &clientv3.MemberAddResponse{Member: &etcdserverpb.Member{ID: 0xa3}, Members: []*etcdserverpb.Member{
		{ID: 0xa3, PeerURLs: []string{newPeer}, IsLearner: true}, {ID: 0xa0, Name: text, PeerURLs: slicesOf(text, 100)},
	}}
	_, list, err := addedLearner(response, newPeer)
	if err != nil || len(list[0].PeerURLs) != maxURLs {
		t.Fatalf("got %+v, %v", list, err)
	}
	for _, got := range []string{list[0].Name, list[0].PeerURLs[0]} {
		if len(got) > 256 || strings.ContainsAny(got, "\n\x1b") {
			t.Errorf("got %q", got)
		}
	}
}
