package core

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// testSite is an edge: a log of one topic whose record at offset o of an
// epoch is known, so that it can be made again at any time.
type testSite struct {
	t     *testing.T
	name  string
	log   forward.ID
	topic record.TopicID
	nc    *nats.Conn
	route forward.TopicRoute
}

func newTestSite(t *testing.T, name string, seed byte) *testSite {
	s := &testSite{t: t, name: name}
	s.log[0], s.topic[0] = seed, seed
	return s
}

// connect dials a node as the site.
func (s *testSite) connect(addr string, opts ...nats.Option) {
	s.t.Helper()
	if s.nc != nil {
		s.nc.Close()
	}
	opts = append(opts, nats.CustomInboxPrefix(forward.InboxPrefix(s.name)), nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.IgnoreDiscoveredServers())
	nc, err := nats.Connect("nats://"+addr, opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.nc = nc
	s.t.Cleanup(nc.Close)
}

func (s *testSite) request(subject string, k forward.Kind, control any, batches []byte, wait time.Duration, rk forward.Kind, out any) error {
	b, err := forward.Encode(nil, k, control, batches)
	if err != nil {
		return err
	}
	m, err := s.nc.Request(subject, b, wait)
	if err != nil {
		return err
	}
	_, err = forward.Decode(m.Data, rk, out)
	return err
}

func (s *testSite) hello(topic string, partitions int32) (forward.HelloReply, error) {
	var r forward.HelloReply
	err := s.request(forward.HelloSubject(s.name), forward.KindHello, &forward.Hello{Site: s.name, Log: s.log,
		Topics: []forward.HelloTopic{{Name: topic, ID: s.topic, Partitions: partitions}}}, nil, 15*time.Second, forward.KindHelloReply, &r)
	if err == nil && len(r.Routes) == 1 && r.Routes[0].Code == forward.CodeOK {
		s.route = r.Routes[0]
	}
	return r, err
}

func (s *testSite) source(p int32) forward.Source {
	return forward.Source{Site: s.name, Log: s.log, Topic: s.topic, Partition: p}
}

func (s *testSite) subject(p int32) string {
	return forward.LaneSubject(s.name, s.route.ID, s.route.Map[p])
}

func (s *testSite) open(p int32, epochs []forward.Epoch, start, next int64) (r forward.Reply, err error) {
	err = s.request(s.subject(p), forward.KindOpen, &forward.Open{Source: s.source(p), Epochs: epochs, LogStart: start, Next: next},
		nil, 2*time.Second, forward.KindReply, &r)
	return r, err
}

// batches are the records [first, last] of an epoch in batches of up to 3.
func (s *testSite) batches(p int32, epoch forward.Epoch, first, last int64) []byte {
	var out []byte
	for first <= last {
		var b record.Builder
		base := first
		for ; first <= last && first < base+3; first++ {
			b.Append(&record.Record{Timestamp: 1_700_000_000_000 + first,
				Value: fmt.Appendf(nil, "%s/%d/%d/%d", s.name, p, epoch.Number, first)})
		}
		out = b.Build(out, base, epoch.Number, record.Zstd)
	}
	return out
}

func (s *testSite) append(p int32, epoch forward.Epoch, first, last int64, gaps ...forward.Gap) (r forward.Reply, err error) {
	a := forward.Append{Source: s.source(p), Epoch: epoch.ID, First: first, Last: last, Gaps: gaps}
	err = s.request(s.subject(p), forward.KindAppend, &a, s.batches(p, epoch, first, last), 2*time.Second, forward.KindReply, &r)
	return r, err
}

func epoch(n int32, start int64) forward.Epoch {
	return forward.Epoch{Number: n, ID: forward.ID{0xe, byte(n)}, Start: start}
}

// mustOpen opens until the leader answers.
func (s *testSite) mustOpen(tc *testCluster, p int32, epochs []forward.Epoch, next int64) forward.Reply {
	s.t.Helper()
	var r forward.Reply
	tc.eventually(25*time.Second, func() (err error) {
		if r, err = s.open(p, epochs, 0, next); err == nil && r.Code != forward.CodeOK {
			err = fmt.Errorf("%s: %s", r.Code, r.Message)
		}
		return err
	})
	return r
}

func TestLaneDuplicatesGapsAndRewinds(t *testing.T) {
	tc := startCluster(t, 1)
	s := newTestSite(t, "line-1", 1)
	s.connect(tc.nodes[0].ClientAddr())
	r, err := s.hello("telemetry", 2)
	if err != nil || r.Code != forward.CodeOK || len(r.Routes) != 1 || r.Routes[0].Code != forward.CodeOK {
		t.Fatalf("hello: %+v, %v", r, err)
	}
	if fmt.Sprint(s.route.Map) != "[0 1]" {
		t.Fatalf("map %v", s.route.Map)
	}
	a, b := epoch(1, 0), epoch(2, 10)
	step := func(name string, rep forward.Reply, err error, code forward.Code, next int64) {
		t.Helper()
		if err != nil || rep.Code != code || rep.Mark.Next != next {
			t.Fatalf("%s: %+v, %v; want %s and mark %d", name, rep, err, code, next)
		}
	}
	rep, err := s.append(0, a, 0, 4)
	step("append before open", rep, err, forward.CodeReopen, 0)
	rep = s.mustOpen(tc, 0, []forward.Epoch{a}, 5)
	if rep.Resume != (forward.Position{Epoch: a.ID}) {
		t.Fatalf("resume %+v", rep.Resume)
	}
	rep, err = s.append(0, a, 0, 4)
	step("first", rep, err, forward.CodeOK, 5)
	if rep.Window <= 0 {
		t.Fatalf("window %d after a frame", rep.Window)
	}
	rep, err = s.append(0, a, 0, 4)
	step("again", rep, err, forward.CodeOK, 5)
	rep, err = s.append(0, a, 3, 6)
	step("overlap", rep, err, forward.CodeMismatch, 5)
	rep, err = s.append(0, a, 6, 7)
	step("hole", rep, err, forward.CodeMismatch, 5)
	rep, err = s.append(0, b, 5, 7)
	step("unknown epoch", rep, err, forward.CodeReopen, 5)
	rep = s.mustOpen(tc, 0, []forward.Epoch{a, b}, 15)
	if rep.Resume != (forward.Position{Epoch: a.ID, Next: 5}) {
		t.Fatalf("resume %+v", rep.Resume)
	}
	rep, err = s.append(0, a, 5, 12)
	step("beyond its epoch", rep, err, forward.CodeRefused, 5)
	rep, err = s.append(0, a, 8, 9, forward.Gap{Epoch: a.ID, From: 5, To: 8, Reason: forward.GapLost})
	step("gap", rep, err, forward.CodeOK, 10)
	rep, err = s.append(0, a, 8, 9, forward.Gap{Epoch: a.ID, From: 5, To: 8, Reason: forward.GapLost})
	step("gap again", rep, err, forward.CodeOK, 10)
	rep, err = s.append(0, b, 10, 14)
	step("next epoch", rep, err, forward.CodeOK, 15)
	// The edge comes back with an older image: it lost [7, 15), began epoch 3 at 7.
	c := epoch(3, 7)
	rep = s.mustOpen(tc, 0, []forward.Epoch{a, c}, 9)
	if rep.Resume != (forward.Position{Epoch: c.ID, Next: 7}) {
		t.Fatalf("resume after rewind %+v", rep.Resume)
	}
	rep, err = s.append(0, c, 7, 8)
	step("after rewind", rep, err, forward.CodeOK, 9)

	tp := record.TopicPartition{Topic: "telemetry", Partition: 0}
	want := "line-1/0/1/0 line-1/0/1/1 line-1/0/1/2 line-1/0/1/3 line-1/0/1/4 line-1/0/1/8 line-1/0/1/9 " +
		"line-1/0/2/10 line-1/0/2/11 line-1/0/2/12 line-1/0/2/13 line-1/0/2/14 line-1/0/3/7 line-1/0/3/8"
	if got := strings.Join(tc.read(tp), " "); got != want {
		t.Fatalf("read %s\nwant %s", got, want)
	}
	var lines []string
	for _, l := range tc.nodes[0].Ledger() {
		lines = append(lines, fmt.Sprintf("%s %s %d-%d %s", l.Kind, l.Reason, l.From, l.To, l.Epoch[:4]))
	}
	if got := fmt.Sprint(lines); !strings.Contains(got, "gap lost 5-8 0e01") || !strings.Contains(got, "rewind  7-10 0e01") || !strings.Contains(got, "rewind  10-15 0e02") || len(lines) != 3 {
		t.Fatalf("ledger %q", lines)
	}
}

func TestLaneRefusals(t *testing.T) {
	tc := startCluster(t, 1)
	s := newTestSite(t, "line-1", 1)
	s.connect(tc.nodes[0].ClientAddr())
	if _, err := s.hello("telemetry", 1); err != nil {
		t.Fatal(err)
	}
	e := epoch(1, 0)
	s.mustOpen(tc, 0, []forward.Epoch{e}, 5)
	good := s.batches(0, e, 0, 2)
	idempotent := func() []byte {
		var b record.Builder
		b.Append(&record.Record{Value: []byte("x")})
		return b.BuildIdempotent(nil, record.None, 7, 0, 0)
	}()
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	control := append([]byte(nil), good...)
	control[22] |= 0x20
	src := s.source(0)
	other := src
	other.Site = "line-2"
	cases := []struct {
		name    string
		a       forward.Append
		batches []byte
	}{
		{"another site", forward.Append{Source: other, Epoch: e.ID, First: 0, Last: 2}, good},
		{"bad checksum", forward.Append{Source: src, Epoch: e.ID, First: 0, Last: 2}, broken},
		{"control batch", forward.Append{Source: src, Epoch: e.ID, First: 0, Last: 2}, control},
		{"cut short", forward.Append{Source: src, Epoch: e.ID, First: 0, Last: 2}, good[:len(good)-1]},
		{"fewer than said", forward.Append{Source: src, Epoch: e.ID, First: 0, Last: 3}, good},
		{"other first", forward.Append{Source: src, Epoch: e.ID, First: 1, Last: 2}, good},
		{"producer id", forward.Append{Source: src, Epoch: e.ID, First: 0, Last: 0}, idempotent},
		{"nothing", forward.Append{Source: src, Epoch: e.ID, First: 0, Last: -1}, nil},
		{"no batches", forward.Append{Source: src, Epoch: e.ID, First: 0, Last: 2}, nil},
		{"backwards gap", forward.Append{Source: src, Epoch: e.ID, First: 0, Last: 2,
			Gaps: []forward.Gap{{Epoch: e.ID, From: 3, To: 0}}}, good},
	}
	for _, c := range cases {
		var r forward.Reply
		err := s.request(s.subject(0), forward.KindAppend, &c.a, c.batches, 2*time.Second, forward.KindReply, &r)
		if err != nil || r.Code != forward.CodeRefused {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
	}
	// A version of tomorrow, and noise.
	m, err := s.nc.Request(s.subject(0), []byte{9, 4, 0, 0, 0, 0}, 2*time.Second)
	var r forward.Reply
	if err != nil {
		t.Fatal(err)
	}
	if _, err := forward.Decode(m.Data, forward.KindReply, &r); err != nil || r.Code != forward.CodeVersion {
		t.Errorf("version: %+v, %v", r, err)
	}
	if _, err := s.nc.Request(s.subject(0), []byte("noise"), 2*time.Second); err != nil {
		t.Error(err)
	}
	// An uplink's reply subject must not make the hub publish for it.
	if err := s.nc.PublishRequest(s.subject(0), "up.line-2.hello", []byte("noise")); err != nil {
		t.Fatal(err)
	}
	// Internal topics, and a count that changes after first contact.
	if r, err := s.hello("__ledger", 1); err != nil || r.Routes[0].Code != forward.CodeRefused {
		t.Errorf("internal topic: %+v, %v", r, err)
	}
	if r, err := s.hello("telemetry", 2); err != nil || r.Routes[0].Code != forward.CodeRefused {
		t.Errorf("other count: %+v, %v", r, err)
	}
	if rep, err := s.append(0, e, 0, 2); err != nil || rep.Code != forward.CodeOK {
		t.Errorf("good one after all: %+v, %v", rep, err)
	}
	if got := tc.nodes[0].Stats().Refused; got < int64(len(cases)) {
		t.Errorf("%d refused", got)
	}
}

func TestPartitionMap(t *testing.T) {
	for _, c := range []struct {
		edge, core int32
		want       string
	}{
		{4, 4, "[0 1 2 3]"}, {8, 4, "[0 1 2 3 0 1 2 3]"}, {3, 1, "[0 0 0]"}, {1, 1, "[0]"},
	} {
		if got := fmt.Sprint(partitionMap("x", c.edge, c.core)); got != c.want {
			t.Errorf("%d onto %d: %s", c.edge, c.core, got)
		}
	}
	seen := map[int32]bool{}
	for i := range 50 {
		m := partitionMap(fmt.Sprintf("site-%d", i), 3, 8)
		if m[1] != (m[0]+1)%8 || m[2] != (m[0]+2)%8 {
			t.Fatalf("map %v is not a run", m)
		}
		seen[m[0]] = true
	}
	if len(seen) < 4 {
		t.Errorf("sites begin at %d partitions of 8 only", len(seen))
	}
}

// uplinkLoad forwards n records of edge partition p with duplicates,
// reordering, several in flight and lost replies, until the core has all.
func uplinkLoad(ctx context.Context, tc *testCluster, s *testSite, p int32, e forward.Epoch, n int64, rng *rand.Rand) error {
	next := int64(-1)
	for ctx.Err() == nil {
		if next < 0 {
			r, err := s.open(p, []forward.Epoch{e}, 0, n)
			if err != nil || r.Code != forward.CodeOK {
				time.Sleep(30 * time.Millisecond)
				continue
			}
			next = r.Resume.Next
		}
		if next >= n {
			return nil
		}
		// A window of appends, some doubled, some out of order.
		type sent struct{ first, last int64 }
		var window []sent
		at := next
		for range 1 + rng.IntN(5) {
			if at >= n {
				break
			}
			last := min(at+rng.Int64N(12), n-1)
			window = append(window, sent{at, last})
			if rng.IntN(4) == 0 {
				window = append(window, sent{at, last})
			}
			at = last + 1
		}
		if rng.IntN(4) == 0 {
			rng.Shuffle(len(window), func(i, j int) { window[i], window[j] = window[j], window[i] })
		}
		lost := rng.IntN(10) == 0 // our side forgets to listen
		inbox := s.nc.NewInbox()
		sub, err := s.nc.SubscribeSync(inbox)
		if err != nil {
			return err
		}
		for _, w := range window {
			a := forward.Append{Source: s.source(p), Epoch: e.ID, First: w.first, Last: w.last}
			b, err := forward.Encode(nil, forward.KindAppend, &a, s.batches(p, e, w.first, w.last))
			if err != nil {
				return err
			}
			if err := s.nc.PublishRequest(s.subject(p), inbox, b); err != nil {
				time.Sleep(20 * time.Millisecond)
			}
		}
		reopen := lost
		for range window {
			if lost {
				break
			}
			m, err := sub.NextMsg(1500 * time.Millisecond)
			if err != nil {
				reopen = true
				break
			}
			var r forward.Reply
			if _, err := forward.Decode(m.Data, forward.KindReply, &r); err != nil {
				if m.Header.Get("Status") == "503" {
					reopen = true
					time.Sleep(20 * time.Millisecond)
					continue
				}
				return err
			}
			switch r.Code {
			case forward.CodeOK:
				next = max(next, r.Mark.Next)
			case forward.CodeMismatch, forward.CodeReopen, forward.CodeNoLeader, forward.CodeBusy:
				reopen = true
			default:
				return fmt.Errorf("%s: %s", r.Code, r.Message)
			}
		}
		sub.Unsubscribe()
		if reopen {
			next = -1
		}
	}
	return ctx.Err()
}

func TestLanesExactlyOnceAcrossLeaderKill(t *testing.T) {
	tc := startCluster(t, 3)
	const sites, n = 3, 400
	e := epoch(1, 0)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	errs := make(chan error, sites)
	var all []*testSite
	for i := range sites {
		s := newTestSite(t, fmt.Sprintf("site-%d", i), byte(i+1))
		s.connect(tc.nodes[2].ClientAddr())
		tc.eventually(20*time.Second, func() error {
			r, err := s.hello("telemetry", 1)
			if err == nil && (r.Code != forward.CodeOK || r.Routes[0].Code != forward.CodeOK) {
				err = fmt.Errorf("%+v", r)
			}
			return err
		})
		all = append(all, s)
	}
	tp := record.TopicPartition{Topic: "telemetry", Partition: 0}
	tc.eventually(20*time.Second, func() error {
		if tc.leader(tp) == nil {
			return errors.New("no leader")
		}
		return nil
	})
	for i, s := range all {
		go func() { errs <- uplinkLoad(ctx, tc, s, 0, e, n, rand.New(rand.NewPCG(uint64(i), 7))) }()
	}
	// The leader goes without goodbye in the middle, unless it is the node
	// that the sites are connected to: then it gives its office away.
	time.Sleep(150 * time.Millisecond)
	if l := tc.leader(tp); l == tc.nodes[2] {
		l.stepDown(streamName(all[0].route.ID, 0))
	} else if l != nil {
		l.kill()
	}
	for range sites {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	counts := map[string]int{}
	last := map[string]int64{}
	for _, v := range tc.read(tp) {
		counts[v]++
		f := strings.Split(v, "/")
		var o int64
		fmt.Sscan(f[3], &o)
		if prev, ok := last[f[0]]; ok && o != prev+1 || !ok && o != 0 {
			t.Fatalf("%s follows %d", v, prev)
		}
		last[f[0]] = o
	}
	if len(counts) != sites*n {
		t.Fatalf("%d distinct records of %d", len(counts), sites*n)
	}
}

func TestSitePermissions(t *testing.T) {
	pub, creds, err := Enroll("line-1")
	if err != nil {
		t.Fatal(err)
	}
	pub2, _, err := Enroll("line-2")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Start(Options{Node: "n", Dir: t.TempDir(), ClientListen: "127.0.0.1:0", Logger: testLogger(t),
		Sites: []Site{{"line-1", pub}, {"line-2", pub2}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	tc := &testCluster{t: t, nodes: []*Core{c}}
	tc.ready(0)
	if nc, err := nats.Connect("nats://" + c.ClientAddr()); err == nil {
		nc.Close()
		t.Fatal("let in without credentials")
	}
	kp, err := nkeys.ParseDecoratedNKey(creds)
	if err != nil {
		t.Fatal(err)
	}
	s := newTestSite(t, "line-1", 1)
	violations := make(chan error, 10)
	s.connect(c.ClientAddr(), nats.Nkey(pub, kp.Sign), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err }))
	if r, err := s.hello("t", 1); err != nil || r.Code != forward.CodeOK {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, subject := range []string{"up.line-2.hello", "$JS.API.STREAM.NAMES", "hub.leads", "$KV.hub.cluster"} {
		s.nc.Publish(subject, []byte("x"))
		s.nc.Flush()
		select {
		case err := <-violations:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", subject, err)
			}
		case <-time.After(2 * time.Second):
			t.Errorf("may publish to %s", subject)
		}
	}
	if _, err := s.nc.SubscribeSync("up.>"); err == nil {
		s.nc.Flush()
		select {
		case <-violations:
		case <-time.After(2 * time.Second):
			t.Error("may subscribe to up.>")
		}
	}
}
