package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"edgehub/pkg/log/record"
)

// writer produces batches of an idempotent producer until told to stop, and
// keeps what was acked.
type writer struct {
	name  string
	pid   int64
	acked int
}

// run sends batch after batch; each is retried until it is acked, as Kafka
// clients do. The producer id makes retries safe.
func (w *writer) run(ctx context.Context, tc *testCluster, tp record.TopicPartition) error {
	for ctx.Err() == nil {
		var b record.Builder
		b.Append(&record.Record{Timestamp: 1_700_000_000_000, Value: fmt.Appendf(nil, "%s-%d", w.name, w.acked)})
		for {
			raw := b.BuildIdempotent(nil, record.None, w.pid, 0, int32(w.acked))
			err := errors.New("no leader")
			if c := tc.leader(tp); c != nil {
				err = c.Append(ctx, []record.Append{{TopicPartition: tp, Batch: raw}})[0].Err
			}
			if err == nil {
				w.acked++
				break
			}
			if errors.Is(err, record.ErrOutOfOrderSeq) || errors.Is(err, record.ErrProducerFenced) {
				return fmt.Errorf("%s at %d: %w", w.name, w.acked, err)
			}
			if ctx.Err() != nil {
				// What is in flight now may or may not be stored.
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// check reads all back: every acked record once, each writer's in order.
func checkWriters(t *testing.T, got []string, ws []*writer) {
	t.Helper()
	next := map[string]int{}
	for i, v := range got {
		name, num, _ := strings.Cut(v, "-")
		var n int
		fmt.Sscan(num, &n)
		if n != next[name] {
			t.Fatalf("offset %d holds %s, %s-%d was due", i, v, name, next[name])
		}
		next[name]++
	}
	for _, w := range ws {
		if n := next[w.name]; n < w.acked || n > w.acked+1 {
			t.Errorf("%s: %d stored, %d acked", w.name, n, w.acked)
		}
	}
}

func TestLeaderKillDuringAppends(t *testing.T) {
	tc := startCluster(t, 3)
	tc.create("t", 1)
	tp := record.TopicPartition{Topic: "t"}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	var ws []*writer
	var wg sync.WaitGroup
	for i := range 4 {
		pid, _, err := tc.nodes[i%3].NewProducerID(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ws = append(ws, &writer{name: fmt.Sprintf("w%d", i), pid: pid})
	}
	load, stop := context.WithCancel(ctx)
	defer stop()
	for _, w := range ws {
		wg.Go(func() {
			if err := w.run(load, tc, tp); err != nil {
				t.Error(err)
			}
		})
	}
	progress := func(above int64) {
		t.Helper()
		tc.eventually(20*time.Second, func() error {
			if l := tc.leader(tp); l != nil {
				if o, err := l.Offsets(ctx, tp); err == nil && o.HighWatermark > above {
					return nil
				}
			}
			return fmt.Errorf("no progress above %d", above)
		})
	}
	progress(100)
	killed := tc.leader(tp)
	old, err := killed.Offsets(ctx, tp)
	if err != nil {
		t.Fatal(err)
	}
	killed.kill()
	progress(old.HighWatermark + 300)
	now, err := tc.leader(tp).Offsets(ctx, tp)
	if err == nil && now.LeaderEpoch <= old.LeaderEpoch {
		t.Errorf("epoch %d after %d", now.LeaderEpoch, old.LeaderEpoch)
	}
	// Leaderships that move while writing.
	for range 3 {
		if l := tc.leader(tp); l != nil {
			o, _ := l.Offsets(ctx, tp)
			info, _ := l.Topics(ctx, []string{"t"})
			l.stepDown(streamName(info[0].ID, 0))
			progress(o.HighWatermark + 50)
		}
	}
	stop()
	wg.Wait()
	checkWriters(t, tc.read(tp), ws)
}

func TestRestartOfAllAndWipedNode(t *testing.T) {
	tc := startCluster(t, 3)
	tc.create("one", 2)
	tc.create("two", 1)
	ctx := context.Background()
	want := map[record.TopicPartition]int{{Topic: "one", Partition: 0}: 3, {Topic: "one", Partition: 1}: 5, {Topic: "two"}: 7}
	for tp, n := range want {
		for i := range n {
			tc.produce(tp, func() []byte { return batch("r", i, 1) })
		}
	}
	var coord *Core
	commit := func(o int64) {
		tc.eventually(20*time.Second, func() error {
			for _, c := range tc.nodes {
				b, err := c.Coordinator(ctx, "g")
				if err != nil {
					return err
				}
				if b.ID == c.nodeID.Load() {
					coord = c
				}
			}
			if coord == nil {
				return errors.New("no coordinator")
			}
			return coord.CommitOffsets(ctx, "g", []record.GroupOffset{
				{TopicPartition: record.TopicPartition{Topic: "one", Partition: 1}, Offset: o, LeaderEpoch: -1, Metadata: "m"},
				{TopicPartition: record.TopicPartition{Topic: "two"}, Offset: o + 1}})
		})
	}
	commit(3)
	commit(4)
	ids := map[string]int32{}
	for _, c := range tc.nodes {
		ids[c.opt.Node] = c.nodeID.Load()
		c.Close()
	}
	// One comes back without its directory.
	if err := os.RemoveAll(filepath.Join(tc.dir, "1")); err != nil {
		t.Fatal(err)
	}
	for i := range tc.nodes {
		tc.start(i)
	}
	for i := range tc.nodes {
		tc.ready(i)
	}
	for _, c := range tc.nodes {
		if got := c.nodeID.Load(); got != ids[c.opt.Node] {
			t.Errorf("%s had id %d, now %d", c.opt.Node, ids[c.opt.Node], got)
		}
	}
	for tp, n := range want {
		if got := tc.read(tp); len(got) != n {
			t.Errorf("%s: %d records, %d were acked", tp, len(got), n)
		}
	}
	tc.eventually(20*time.Second, func() error {
		for _, c := range tc.nodes {
			offs, err := c.GroupOffsets(ctx, "g")
			if errors.Is(err, record.ErrNotCoordinator) {
				continue
			}
			if len(offs) != 2 {
				return fmt.Errorf("offsets %+v, %v", offs, err)
			}
			for _, o := range offs {
				if o.Topic == "one" && (o.Offset != 4 || o.Metadata != "m" || o.LeaderEpoch != -1) || o.Topic == "two" && o.Offset != 5 {
					return fmt.Errorf("offset %+v", o)
				}
			}
			return nil
		}
		return errors.New("nobody coordinates")
	})
	for tp := range want {
		tc.produce(tp, func() []byte { return batch("again", 0, 1) })
	}
}

func TestConcurrentDeclarationAndDelete(t *testing.T) {
	tc := startCluster(t, 3)
	ctx := context.Background()
	var created atomic.Int32
	var wg sync.WaitGroup
	for i := range 6 {
		c := tc.nodes[i%3]
		wg.Go(func() {
			cfg := record.DefaultTopicConfig()
			_, err := c.CreateTopic(ctx, "same", cfg)
			if err == nil {
				created.Add(1)
			} else if !errors.Is(err, record.ErrTopicExists) {
				t.Error(err)
			}
			if err := c.EnsureTopics(ctx, map[string]record.TopicConfig{"same": cfg, "other": cfg}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if created.Load() != 1 {
		t.Fatalf("created %d times", created.Load())
	}
	tp := record.TopicPartition{Topic: "same"}
	tc.produce(tp, func() []byte { return batch("x", 0, 2) })
	before, err := tc.nodes[0].Topics(ctx, []string{"same"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tc.nodes[1].DeleteTopic(ctx, "same"); err != nil {
		t.Fatal(err)
	}
	for _, c := range tc.nodes {
		tc.eventually(5*time.Second, func() error {
			if infos, err := c.Topics(ctx, []string{"same"}); err != nil || len(infos) != 0 {
				return fmt.Errorf("%+v, %v", infos, err)
			}
			return nil
		})
	}
	if err := tc.nodes[2].DeleteTopic(ctx, "same"); !errors.Is(err, record.ErrUnknownTopic) {
		t.Errorf("second delete: %v", err)
	}
	again, err := tc.nodes[2].CreateTopic(ctx, "same", record.DefaultTopicConfig())
	if err != nil || again.ID == before[0].ID {
		t.Fatalf("%+v, %v", again, err)
	}
	if got := tc.produce(tp, func() []byte { return batch("y", 0, 1) }); got.BaseOffset != 0 {
		t.Errorf("first offset of the new topic: %d", got.BaseOffset)
	}
	for _, c := range []struct {
		name string
		cfg  record.TopicConfig
		err  error
	}{
		{"bad name", record.TopicConfig{}, record.ErrInvalidTopic},
		{"p", record.TopicConfig{Partitions: 1001}, record.ErrInvalidPartitions},
		{"p", record.TopicConfig{Partitions: -1}, record.ErrInvalidPartitions},
		{"p", record.TopicConfig{RetentionBytes: -2}, record.ErrInvalidConfig},
	} {
		if _, err := tc.nodes[0].CreateTopic(ctx, c.name, c.cfg); !errors.Is(err, c.err) {
			t.Errorf("%s %+v: %v", c.name, c.cfg, err)
		}
	}
}
