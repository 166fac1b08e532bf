package v3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-warden/etcd-warden/internal/etcd"
)

const (
	methodStatus  = "/etcdserverpb.Maintenance/Status"
	methodHash    = "/etcdserverpb.Maintenance/HashKV"
	methodAlarm   = "/etcdserverpb.Maintenance/Alarm"
	methodRange   = "/etcdserverpb.KV/Range"
	methodMembers = "/etcdserverpb.Cluster/MemberList"
	methodAdd     = "/etcdserverpb.Cluster/MemberAdd"
	methodPromote = "/etcdserverpb.Cluster/MemberPromote"
	methodRemove  = "/etcdserverpb.Cluster/MemberRemove"
	methodMove    = "/etcdserverpb.Maintenance/MoveLeader"
	methodVersion = "/etcdserverpb.Maintenance/Downgrade"

	methodDefragment = "/etcdserverpb.Maintenance/Defragment"
)

// raw is an answer that is sent as it is.
type raw struct{ mem.BufferSlice }

type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) { return v.(*raw).BufferSlice, nil }
func (rawCodec) Unmarshal(mem.BufferSlice, any) error   { return nil }
func (rawCodec) Name() string                           { return "proto" }

// answers says what a server answers to a method.
type answers map[string]func(grpc.ServerStream) error

func say(message proto.Message) func(grpc.ServerStream) error {
	data, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	return sayBytes(mem.SliceBuffer(data))
}

func sayBytes(parts ...mem.Buffer) func(grpc.ServerStream) error {
	return func(stream grpc.ServerStream) error { return stream.SendMsg(&raw{parts}) }
}

func sayLongError(grpc.ServerStream) error {
	return status.Error(codes.Unknown, "etcdserver: "+strings.Repeat("no\nleader\x1b[31m\xff", 1<<13))
}

func hang(stream grpc.ServerStream) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// honest are the answers of a leader with an alarm.
func honest() answers {
	header := &etcdserverpb.ResponseHeader{ClusterId: 0xc1, MemberId: 0xa0}
	learner := &etcdserverpb.Member{ID: 0xa3, PeerURLs: []string{newPeer}, IsLearner: true}
	return answers{
		methodStatus:  say(&etcdserverpb.StatusResponse{Header: header, Version: "3.6.16", Leader: 0xa0, Errors: []string{"memberID:160 alarm:NOSPACE "}}),
		methodRange:   say(&etcdserverpb.RangeResponse{Header: header}),
		methodHash:    say(&etcdserverpb.HashKVResponse{Header: header, Hash: 7, CompactRevision: 3}),
		methodMembers: say(&etcdserverpb.MemberListResponse{Header: header, Members: []*etcdserverpb.Member{{ID: 0xa0, Name: "prod-0"}}}),
		methodAlarm:   say(&etcdserverpb.AlarmResponse{Header: header, Alarms: []*etcdserverpb.AlarmMember{{MemberID: 0xa0, Alarm: etcdserverpb.AlarmType_NOSPACE}}}),
		methodAdd:     say(&etcdserverpb.MemberAddResponse{Header: header, Member: learner, Members: []*etcdserverpb.Member{learner}}),
		methodPromote: say(&etcdserverpb.MemberPromoteResponse{Header: header}),
		methodRemove:  say(&etcdserverpb.MemberRemoveResponse{Header: header}),
		methodMove:    say(&etcdserverpb.MoveLeaderResponse{Header: header}),
		methodVersion: say(&etcdserverpb.DowngradeResponse{Header: header, Version: "3.6"}),

		methodDefragment: say(&etcdserverpb.DefragmentResponse{Header: header}),
	}
}

// but returns the answers with one of them replaced.
func (a answers) but(method string, answer func(grpc.ServerStream) error) answers {
	a[method] = answer
	return a
}

func serveGRPC(t *testing.T, a answers) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		if err := stream.RecvMsg(&raw{}); err != nil {
			return err
		}
		return a[method](stream)
	}))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// compressed sends an answer with gzip.
func compressed(answer func(grpc.ServerStream) error) func(grpc.ServerStream) error {
	return func(stream grpc.ServerStream) error {
		if err := grpc.SetSendCompressor(stream.Context(), gzip.Name); err != nil {
			return err
		}
		return answer(stream)
	}
}

// megabytes returns so much of an answer; the server holds one of them.
func megabytes(n int) []mem.Buffer {
	one := mem.SliceBuffer(make([]byte, 1<<20))
	parts := make([]mem.Buffer, n)
	for i := range parts {
		parts[i] = one
	}
	return parts
}

// serveFrames speaks HTTP/2 as far as its settings, then writes without end, and reads no more.
func serveFrames(t *testing.T, writer func() func(*http2.Framer) error) string {
	t.Helper()
	return serve(t, func(conn net.Conn) {
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		framer := http2.NewFramer(conn, conn)
		if framer.WriteSettings() != nil || framer.WriteSettingsAck() != nil {
			return
		}
		for write := writer(); write(framer) == nil; {
		}
		_, _ = io.Copy(io.Discard, conn)
	})
}

func endless(write func(*http2.Framer) error) func() func(*http2.Framer) error {
	return func() func(*http2.Framer) error { return write }
}

// liveHeap is what is reachable now.
func liveHeap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// keptHeap is what is reachable now and was allocated before it began to collect. What is allocated meanwhile counts as
// reachable for the collector, even if it is garbage at once. In a flood on a busy machine that is megabytes.
func keptHeap() int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int64(after.HeapAlloc) - int64(after.TotalAlloc-before.TotalAlloc)
}

// peakOf returns how much the heap grows at most during a call.
func peakOf(heap func() int64, call func()) int64 {
	runtime.GC() // empties the pools of earlier calls
	base := heap()
	var peak atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			peak.Store(max(peak.Load(), heap()-base))
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	call()
	close(stop)
	<-stopped
	return peak.Load()
}

const (
	memoryLimit = 4 << 20
	callTimeout = 2 * time.Second
	timeLimit   = 5 * time.Second
)

func TestAHostileMemberCostsLittleMemoryAndTime(t *testing.T) {
	emptyMembers := bytes.Repeat([]byte{2<<3 | 2, 0}, (1<<20-64)/2)
	emptyErrors := bytes.Repeat([]byte{8<<3 | 2, 0}, (1<<20-64)/2)
	for name, address := range map[string]func(*testing.T) string{
		"a status of 64 MiB": func(t *testing.T) string { return serveGRPC(t, honest().but(methodStatus, sayBytes(megabytes(64)...))) },
		"a read of 64 MiB":   func(t *testing.T) string { return serveGRPC(t, honest().but(methodRange, sayBytes(megabytes(64)...))) },
		"a cluster version of 64 MiB": func(t *testing.T) string {
			return serveGRPC(t, honest().but(methodVersion, sayBytes(megabytes(64)...)))
		},
		"a member list of 64 MiB": func(t *testing.T) string {
			return serveGRPC(t, honest().but(methodMembers, sayBytes(megabytes(64)...)))
		},
		"alarms of 64 MiB": func(t *testing.T) string { return serveGRPC(t, honest().but(methodAlarm, sayBytes(megabytes(64)...))) },
		"a status of 64 MiB, zipped": func(t *testing.T) string {
			return serveGRPC(t, honest().but(methodStatus, compressed(sayBytes(megabytes(64)...))))
		},
		"a MiB of empty members": func(t *testing.T) string {
			return serveGRPC(t, honest().but(methodMembers, sayBytes(mem.SliceBuffer(emptyMembers))))
		},
		"a MiB of empty errors": func(t *testing.T) string {
			return serveGRPC(t, honest().but(methodStatus, sayBytes(mem.SliceBuffer(emptyErrors))))
		},
		"a MiB of version": func(t *testing.T) string {
			return serveGRPC(t, honest().but(methodStatus, say(&etcdserverpb.StatusResponse{Version: strings.Repeat("3", 1<<20-64)})))
		},
		"an error of half a MiB": func(t *testing.T) string {
			return serveGRPC(t, honest().but(methodStatus, sayLongError))
		},
		"endless headers":       func(t *testing.T) string { return serveFrames(t, endlessHeaders) },
		"silence":               serveSilence,
		"silence in the status": func(t *testing.T) string { return serveGRPC(t, honest().but(methodStatus, hang)) },
		"silence in the read":   func(t *testing.T) string { return serveGRPC(t, honest().but(methodRange, hang)) },
		"silence in the cluster version": func(t *testing.T) string {
			return serveGRPC(t, honest().but(methodVersion, hang))
		},
		"silence in the member list": func(t *testing.T) string { return serveGRPC(t, honest().but(methodMembers, hang)) },
		"silence in the alarms":      func(t *testing.T) string { return serveGRPC(t, honest().but(methodAlarm, hang)) },
	} {
		t.Run(name, func(t *testing.T) {
			readsCostLittle(t, liveHeap, address(t), false)
		})
	}
}

func TestAFloodOfFramesCostsLittleMemoryAndTime(t *testing.T) {
	frame := make([]byte, 1<<14)
	for name, write := range map[string]func(*http2.Framer) error{
		"pings":               func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) },
		"settings":            func(f *http2.Framer) error { return f.WriteSettings() },
		"frames of no stream": func(f *http2.Framer) error { return f.WriteRawFrame(0xee, 0, 7, frame) },
	} {
		t.Run(name, func(t *testing.T) {
			readsCostLittle(t, keptHeap, serveFrames(t, endless(write)), true)
		})
	}
}

// readsCostLittle makes both calls that read from a member, see costsLittle.
func readsCostLittle(t *testing.T, heap func() int64, address string, mustFail bool) {
	t.Helper()
	endpoint := etcd.Endpoint{Address: address}
	for what, call := range map[string]func(context.Context) error{
		"Probe":      func(ctx context.Context) error { _, err := New().Probe(ctx, endpoint); return err },
		"Membership": func(ctx context.Context) error { _, err := New().Membership(ctx, endpoint); return err },
	} {
		costsLittle(t, heap, what, call, mustFail)
	}
}

// costsLittle makes a call within the limits of memory, which heap measures, and of time. Its error is short, on
// one line and readable.
func costsLittle(t *testing.T, heap func() int64, what string, call func(context.Context) error, mustFail bool) {
	t.Helper()
	var took time.Duration
	peak := peakOf(heap, func() {
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		defer cancel()
		begin := time.Now()
		err := call(ctx)
		if err != nil && (len(err.Error()) > 300 || !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\n\x1b")) {
			t.Errorf("%s fails with %d bytes: %.300q", what, len(err.Error()), err)
		}
		if mustFail && err == nil {
			t.Errorf("%s succeeds", what)
		}
		took = time.Since(begin)
	})
	if peak > memoryLimit {
		t.Errorf("%s takes %d KiB of memory", what, peak>>10)
	}
	if took > timeLimit {
		t.Errorf("%s takes %s", what, took)
	}
}

// endlessHeaders answers the first call with a list of headers that does not end.
func endlessHeaders() func(*http2.Framer) error {
	var block bytes.Buffer
	if err := hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("~", 4096), Sensitive: true}); err != nil {
		panic(err)
	}
	fragment, begun := block.Bytes(), false
	return func(f *http2.Framer) error {
		if begun {
			return f.WriteContinuation(1, false, fragment)
		}
		begun = true
		for { // the headers answer a request, which is to be there
			frame, err := f.ReadFrame()
			if err != nil {
				return err
			}
			if _, ok := frame.(*http2.HeadersFrame); ok {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fragment})
			}
		}
	}
}

func TestAnHonestMemberAnswersWithinTheLimits(t *testing.T) {
	a := honest()
	list := &etcdserverpb.MemberListResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: 0xc1}}
	alarms := &etcdserverpb.AlarmResponse{}
	for n := range uint64(64) {
		host := fmt.Sprintf("%s-%d", strings.Repeat("x", 200), n)
		list.Members = append(list.Members, &etcdserverpb.Member{ID: n, Name: host, PeerURLs: []string{"https://" + host}, ClientURLs: []string{"https://" + host}})
		alarms.Alarms = append(alarms.Alarms, &etcdserverpb.AlarmMember{MemberID: n, Alarm: etcdserverpb.AlarmType_CORRUPT})
	}
	a[methodMembers], a[methodAlarm] = say(list), say(alarms)
	endpoint := etcd.Endpoint{Address: serveGRPC(t, a)}
	probe, err := New().Probe(t.Context(), endpoint)
	if err != nil || probe.Version != "3.6.16" || !probe.Linearizable || len(probe.Errors) != 1 {
		t.Errorf("got %+v, %v", probe, err)
	}
	membership, err := New().Membership(t.Context(), endpoint)
	if err != nil || len(membership.Members) != 64 || len(membership.Alarms) != 64 {
		t.Fatalf("got %d members, %d alarms, %v", len(membership.Members), len(membership.Alarms), err)
	}
	if got, want := membership.Members[7].PeerURLs[0], list.Members[7].PeerURLs[0]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRefusesMoreMembersAndAlarmsThanTheLimits(t *testing.T) {
	many := &etcdserverpb.MemberListResponse{Members: make([]*etcdserverpb.Member, 65)}
	alarms := &etcdserverpb.AlarmResponse{Alarms: make([]*etcdserverpb.AlarmMember, 65)}
	for i := range 65 {
		many.Members[i], alarms.Alarms[i] = &etcdserverpb.Member{}, &etcdserverpb.AlarmMember{}
	}
	for name, a := range map[string]answers{
		"65 members": honest().but(methodMembers, say(many)),
		"65 alarms":  honest().but(methodAlarm, say(alarms)),
	} {
		_, err := New().Membership(t.Context(), etcd.Endpoint{Address: serveGRPC(t, a)})
		if err == nil || !strings.Contains(err.Error(), "the limits are 64 and 64") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestCleansWhatAMemberSays(t *testing.T) {
	text := "3.6.16\nInjected: yes\x1b[31m" + strings.Repeat("x", 1000)
	header := &etcdserverpb.ResponseHeader{ClusterId: 0xc1, MemberId: 0xa0}
	a := honest()
	a[methodStatus] = say(&etcdserverpb.StatusResponse{Header: header, Version: text, Leader: 0xa0, Errors: slicesOf(text, 100)})
	a[methodMembers] = say(&etcdserverpb.MemberListResponse{Header: header, Members: []*etcdserverpb.Member{{Name: text, PeerURLs: slicesOf(text, 100)}}})
	endpoint := etcd.Endpoint{Address: serveGRPC(t, a)}
	probe, err := New().Probe(t.Context(), endpoint)
	if err != nil || probe.Version != "" || len(probe.Errors) != 64 {
		t.Fatalf("got version %q, %d errors, %v", probe.Version, len(probe.Errors), err)
	}
	membership, err := New().Membership(t.Context(), endpoint)
	if err != nil || len(membership.Members) != 1 || len(membership.Members[0].PeerURLs) != 16 {
		t.Fatalf("got %d members, %v", len(membership.Members), err)
	}
	for _, got := range []string{probe.Errors[0], membership.Members[0].Name, membership.Members[0].PeerURLs[0]} {
		if len(got) > 256 || strings.ContainsAny(got, "\n\x1b") {
			t.Errorf("got %q", got)
		}
	}
}

func slicesOf(text string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = text
	}
	return list
}
