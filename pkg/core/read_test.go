package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"edgehub/pkg/log/record"

	"github.com/nats-io/nats.go"
)

// single starts a node alone with a topic "t" of one partition, and options
// changed by f.
func single(t *testing.T, cfg record.TopicConfig, f func(*Options)) (*testCluster, *partition) {
	t.Helper()
	tc := &testCluster{t: t, dir: t.TempDir(), nodes: make([]*Core, 1)}
	o := tc.options(0)
	if f != nil {
		f(&o)
	}
	c, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	tc.nodes[0] = c
	t.Cleanup(func() { tc.nodes[0].Close() })
	tc.ready(0)
	if _, err := c.CreateTopic(context.Background(), "t", cfg); err != nil {
		t.Fatal(err)
	}
	p, err := c.partition(context.Background(), record.TopicPartition{Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return tc, p
}

// timed is a batch of records with the times.
func timed(times ...int64) []byte {
	var b record.Builder
	for _, ms := range times {
		b.Append(&record.Record{Timestamp: ms, Value: []byte("v")})
	}
	return b.Build(nil, 0, 0, record.Zstd)
}

func TestFetchAndLookups(t *testing.T) {
	tc, p := single(t, record.DefaultTopicConfig(), nil)
	c, ctx, tp := tc.nodes[0], context.Background(), record.TopicPartition{Topic: "t"}
	// Offsets 0..11; times rise, fall, and rise.
	for _, ts := range [][]int64{{100, 110}, {90}, {300, 200, 310}, {50}, {305, 309}, {400, 390, 400}} {
		tc.produce(tp, func() []byte { return timed(ts...) })
	}
	// Voids that a server let through, between the frames and at the end.
	void := &frame{frameHeader: frameHeader{Base: 1, Prev: 1, Keyframe: 1}}
	body, err := void.encodeBody()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.js.publish(ctx, p.subject, nats.Header{frameHeaderName: {void.encode()}}, body); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		tc.produce(tp, func() []byte { return timed(1) }) // 12..14
	}
	for name, prepare := range map[string]func(){
		"warm": func() {},
		"cold": func() { // only the ends are known, nothing is cached
			c.cache = newFrameCache(1)
			p.mu.Lock()
			p.index = []indexEntry{p.index[0], p.index[len(p.index)-1]}
			p.mu.Unlock()
		},
	} {
		for o := range int64(15) {
			prepare()
			f, err := c.Fetch(ctx, tp, o, 1, []byte("dst"))
			if err != nil || string(f.Batches[:3]) != "dst" || f.HighWatermark != 15 || f.LogStart != 0 {
				t.Fatalf("%s fetch %d: %+v, %v", name, o, f, err)
			}
			h, err := record.Check(f.Batches[3:])
			if err != nil || h.BaseOffset > o || h.NextOffset() <= o || len(f.Batches) != 3+h.Size() {
				t.Fatalf("%s fetch %d: batch of %d..%d, %v", name, o, h.BaseOffset, h.LastOffset(), err)
			}
		}
		prepare()
		if f, err := c.Fetch(ctx, tp, 0, 1<<20, nil); err != nil {
			t.Fatal(err)
		} else {
			next := int64(0)
			record.Batches(f.Batches, func(h record.Header, _ []byte) error {
				if h.BaseOffset != next {
					t.Errorf("%s: batch at %d, due %d", name, h.BaseOffset, next)
				}
				next = h.NextOffset()
				return nil
			})
			if next != 15 {
				t.Errorf("%s: fetch of all ended at %d", name, next)
			}
		}
		for ts, want := range map[int64]int64{0: 0, 100: 0, 101: 1, 111: 3, 299: 3, 301: 5, 310: 5, 311: 9, 400: 9, 401: -1} {
			prepare()
			if at, err := c.OffsetForTime(ctx, tp, ts); err != nil || at.Offset != want {
				t.Errorf("%s: time %d is at %+v, %v; want %d", name, ts, at, err, want)
			}
		}
		prepare()
		if at, err := c.MaxTimestamp(ctx, tp); err != nil || at.Offset != 9 || at.Timestamp != 400 {
			t.Errorf("%s: max timestamp %+v, %v", name, at, err)
		}
	}
	for _, o := range []int64{-1, 16} {
		if _, err := c.Fetch(ctx, tp, o, 1, nil); !errors.Is(err, record.ErrOffsetOutOfRange) {
			t.Errorf("fetch %d: %v", o, err)
		}
	}
	if f, err := c.Fetch(ctx, tp, 15, 1, nil); err != nil || len(f.Batches) != 0 {
		t.Errorf("fetch at the end: %+v, %v", f, err)
	}
	if _, err := c.Fetch(ctx, record.TopicPartition{Topic: "t", Partition: 1}, 0, 1, nil); !errors.Is(err, record.ErrUnknownTopic) {
		t.Errorf("unknown partition: %v", err)
	}
	if s := c.Stats(); s.Conflicts == 0 || s.Led != 1 || s.Partitions[0].Next != 15 {
		t.Errorf("stats %+v", s)
	}
}

func TestRetention(t *testing.T) {
	cfg := record.DefaultTopicConfig()
	cfg.RetentionBytes = 2000
	tc, _ := single(t, cfg, func(o *Options) { o.RetentionInterval = 50 * time.Millisecond })
	c, ctx, tp := tc.nodes[0], context.Background(), record.TopicPartition{Topic: "t"}
	wake := make(chan struct{}, 1)
	defer c.Watch([]record.TopicPartition{tp}, wake)()
	for i := range 60 {
		tc.produce(tp, func() []byte { return batch("r", i, 1) })
	}
	var off record.Offsets
	tc.eventually(10*time.Second, func() (err error) {
		if off, err = c.Offsets(ctx, tp); err == nil && off.LogStart == 0 {
			err = errors.New("nothing is gone")
		}
		return err
	})
	if off.HighWatermark != 60 || off.LogStart >= 60 {
		t.Fatalf("%+v", off)
	}
	<-wake
	tc.eventually(10*time.Second, func() (err error) {
		if s := c.Stats().Partitions[0]; s.Bytes > 2100 || s.Bytes < 2000 {
			err = fmt.Errorf("%d bytes stay", s.Bytes)
		}
		return err
	})
	off, _ = c.Offsets(ctx, tp)
	if got := tc.read(tp); len(got) != int(60-off.LogStart) || got[0] != fmt.Sprintf("r-%d", off.LogStart) {
		t.Fatalf("%d records from %s on, log start %d", len(got), got[0], off.LogStart)
	}
	if _, err := c.Fetch(ctx, tp, off.LogStart-1, 1, nil); !errors.Is(err, record.ErrOffsetOutOfRange) {
		t.Errorf("below the log start: %v", err)
	}
	// The log start stands after a restart, from another keyframe, too.
	c.Close()
	tc.start(0)
	tc.ready(0)
	c = tc.nodes[0]
	tc.eventually(10*time.Second, func() error {
		o, err := c.Offsets(ctx, tp)
		if err == nil && (o.LogStart != off.LogStart || o.HighWatermark != 60 || o.LeaderEpoch <= off.LeaderEpoch) {
			t.Fatalf("%+v after %+v", o, off)
		}
		return err
	})
	// By time an idle partition empties.
	c.opt.RetentionInterval = 0
	c.mu.Lock()
	c.topics["t"].parts[0].mu.Lock()
	c.topics["t"].parts[0].cfg.RetentionTime = time.Millisecond
	c.topics["t"].parts[0].mu.Unlock()
	p := c.topics["t"].parts[0]
	c.mu.Unlock()
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	c.opt.RetentionInterval = 50 * time.Millisecond
	stop() // leads again, with the short interval
	tc.eventually(10*time.Second, func() error {
		o, err := c.Offsets(ctx, tp)
		if err == nil && o.LogStart != 60 {
			err = fmt.Errorf("%+v", o)
		}
		return err
	})
	if got := tc.produce(tp, func() []byte { return batch("r", 60, 1) }); got.BaseOffset != 60 {
		t.Errorf("offset %d after the log was emptied", got.BaseOffset)
	}
}

func TestForeignWriterIsNoticed(t *testing.T) {
	tc, p := single(t, record.DefaultTopicConfig(), nil)
	c, ctx, tp := tc.nodes[0], context.Background(), record.TopicPartition{Topic: "t"}
	tc.produce(tp, func() []byte { return batch("a", 0, 2) })
	before, err := c.Offsets(ctx, tp)
	if err != nil {
		t.Fatal(err)
	}
	// Another leader writes, as after an election that this node has not
	// noticed: a keyframe of a higher epoch and a frame.
	info, err := c.js.info(ctx, p.stream)
	if err != nil {
		t.Fatal(err)
	}
	last := info.State.LastSeq
	other := []*frame{
		{frameHeader: frameHeader{Base: 2, Epoch: before.LeaderEpoch + 7, Writer: 1, Prev: last, Keyframe: last + 1, MaxTime: 5}},
		dataFrame(frameHeader{Base: 2, Epoch: before.LeaderEpoch + 7, Writer: 1, Prev: last + 1, Keyframe: last + 1, MaxTime: 5}, batch("foreign", 0, 1)),
	}
	for _, f := range other {
		body, err := f.encodeBody()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.js.publish(ctx, p.subject, nats.Header{frameHeaderName: {f.frameHeader.encode()}}, body); err != nil {
			t.Fatal(err)
		}
	}
	if got := tc.produce(tp, func() []byte { return batch("b", 0, 1) }); got.BaseOffset != 3 {
		t.Errorf("offset %d", got.BaseOffset)
	}
	if got := fmt.Sprint(tc.read(tp)); got != "[a-0 a-1 foreign-0 b-0]" {
		t.Errorf("read %s", got)
	}
	if o, err := c.Offsets(ctx, tp); err != nil || o.LeaderEpoch <= before.LeaderEpoch+7 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestBrokenChainIsQuarantined(t *testing.T) {
	tc, p := single(t, record.DefaultTopicConfig(), nil)
	c, ctx, tp := tc.nodes[0], context.Background(), record.TopicPartition{Topic: "t"}
	tc.produce(tp, func() []byte { return batch("a", 0, 2) })
	info, err := c.js.info(ctx, p.stream)
	if err != nil {
		t.Fatal(err)
	}
	last := info.State.LastSeq
	f := dataFrame(frameHeader{Base: 9, Epoch: 1 << 30, Writer: 1, Prev: last, Keyframe: 1, MaxTime: 5}, batch("hole", 0, 1))
	body, err := f.encodeBody()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.publish(ctx, p.subject, nats.Header{frameHeaderName: {f.frameHeader.encode()}}, body); err != nil {
		t.Fatal(err)
	}
	got := c.Append(ctx, []record.Append{{TopicPartition: tp, Batch: batch("b", 0, 1)}})[0]
	if !errors.Is(got.Err, record.ErrNotLeader) {
		t.Errorf("append: %+v", got)
	}
	tc.eventually(5*time.Second, func() error {
		if q := c.Quarantined(); !errors.Is(q["t/0"], errChain) {
			return fmt.Errorf("quarantined: %v", q)
		}
		return nil
	})
	if _, err := c.Fetch(ctx, tp, 0, 1, nil); !errors.Is(err, record.ErrNotLeader) {
		t.Errorf("fetch: %v", err)
	}
	if c.Stats().Quarantined != 1 {
		t.Errorf("stats %+v", c.Stats())
	}
}

func TestStartRefusals(t *testing.T) {
	tc, _ := single(t, record.DefaultTopicConfig(), nil)
	busy := tc.nodes[0]
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, o := range map[string]Options{
		"no node":               {Dir: dir},
		"no dir":                {Node: "n"},
		"dir is a file":         {Node: "n", Dir: file},
		"port in use":           {Node: "n", Dir: dir, ClientListen: busy.ClientAddr()},
		"bad address":           {Node: "n", Dir: dir, ClientListen: "nowhere"},
		"wide without sites":    {Node: "n", Dir: dir, ClientListen: ":0"},
		"wide routes, no words": {Node: "n", Dir: dir, ClientListen: "127.0.0.1:0", RouteListen: "0.0.0.0:0", Routes: []string{"a:1", "b:1", "c:1"}},
		"replicas alone":        {Node: "n", Dir: dir, ClientListen: "127.0.0.1:0", Replicas: 3},
		"two replicas":          {Node: "n", Dir: dir, Replicas: 2},
		"bad site":              {Node: "n", Dir: dir, ClientListen: "127.0.0.1:0", Sites: []Site{{"a.b", "U"}}},
		"bad key":               {Node: "n", Dir: dir, ClientListen: "127.0.0.1:0", Sites: []Site{{"a", "SUA"}}},
		"bad route":             {Node: "n", Dir: dir, ClientListen: "127.0.0.1:0", RouteListen: "127.0.0.1:0", Routes: []string{"nohost"}},
	} {
		if c, err := Start(o); err == nil {
			c.Close()
			t.Errorf("%s: started", name)
		}
	}
}

func TestGroupCommitsRideTogether(t *testing.T) {
	tc, _ := single(t, record.DefaultTopicConfig(), nil)
	c, ctx := tc.nodes[0], context.Background()
	tc.eventually(10*time.Second, func() error {
		_, err := c.Coordinator(ctx, "g")
		return err
	})
	const n = 200
	errs := make(chan error, n)
	for i := range n {
		go func() {
			errs <- c.CommitOffsets(ctx, "g", []record.GroupOffset{{TopicPartition: record.TopicPartition{Topic: "t.x", Partition: int32(i)}, Offset: int64(i)}})
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.GroupOffsets(ctx, "g")
	if err != nil || len(got) != n {
		t.Fatalf("%d offsets, %v", len(got), err)
	}
	for _, o := range got {
		if o.Topic != "t.x" || o.Offset != int64(o.Partition) {
			t.Errorf("%+v", o)
		}
	}
	if w := c.Stats().OffsetWrites; w > n/2 {
		t.Errorf("%d writes for %d commits", w, n)
	}
	if got, err := c.GroupOffsets(ctx, "other"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	a, _, err := c.NewProducerID(ctx)
	b, _, err2 := c.NewProducerID(ctx)
	if err != nil || err2 != nil || a == b {
		t.Errorf("producer ids %d, %d, %v, %v", a, b, err, err2)
	}
}

func TestSetSites(t *testing.T) {
	pub, _, err := Enroll("a")
	if err != nil {
		t.Fatal(err)
	}
	pub2, _, err := Enroll("b")
	if err != nil {
		t.Fatal(err)
	}
	tc, _ := single(t, record.DefaultTopicConfig(), func(o *Options) { o.Sites = []Site{{"a", pub}} })
	c := tc.nodes[0]
	if err := c.SetSites([]Site{{"a", pub}, {"b", pub2}}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetSites(nil); err == nil {
		t.Error("the listener was opened by a reload")
	}
	if err := c.SetSites([]Site{{"a", "x"}}); err == nil {
		t.Error("a bad key was taken")
	}
	tc.produce(record.TopicPartition{Topic: "t"}, func() []byte { return batch("x", 0, 1) })
}
