package log

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

var update = flag.Bool("update", false, "write golden files")

// TestGoldenCommit pins the order of system calls: a commit is one write and
// one sync; a flush syncs segment and directories before the tail moves.
func TestGoldenCommit(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem(), nil)
	l := mustOpen(t, testOptions(fault))
	mustCreate(t, l, "a", 1)
	p := mustPartition(t, l, "a", 0)
	var out strings.Builder
	stage := func(name string, do func()) {
		fault.StartTrace()
		do()
		fmt.Fprintf(&out, "# %s\n%s\n", name, strings.Join(fault.StopTrace(), "\n"))
	}
	stage("commit", func() { mustAppend(t, p, "one") })
	stage("commit", func() { mustAppend(t, p, "two") })
	stage("flush and sync of a new segment", func() {
		p.mu.Lock()
		seq := p.head[0].seq
		p.mu.Unlock()
		if err := l.flush.through(seq); err != nil {
			t.Fatal(err)
		}
	})
	stage("commit", func() { mustAppend(t, p, "three") })
	stage("log start", func() {
		if err := p.DeleteBefore(1); err != nil {
			t.Fatal(err)
		}
	})
	stage("create topic", func() { mustCreate(t, l, "b", 1) })
	stage("delete topic", func() {
		if err := l.DeleteTopic("a"); err != nil {
			t.Fatal(err)
		}
	})
	stage("close", func() { mustClose(t, l) })
	have := regexp.MustCompile(`-[0-9a-f]{16}\.seg`).ReplaceAllString(out.String(), "-ID.seg")
	// The epoch record's bytes are random, so their compressed length is.
	have = regexp.MustCompile(`(__epochs/0/\S+) \d+@512`).ReplaceAllString(have, "$1 N@512")
	have = regexp.MustCompile(`(__epochs/0/\S+) \d+@\d+`).ReplaceAllString(have, "$1 N@N")
	have = regexp.MustCompile(`(meta.json.tmp) \d+@0`).ReplaceAllString(have, "$1 N@0")
	golden := filepath.Join("testdata", "syscalls.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(have), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if have != string(want) {
		t.Fatalf("system calls differ from %s:\n%s", golden, have)
	}
}

// TestAppendDoesNotAllocate says that a record costs no allocation; batches do,
// once per commit.
func TestAppendDoesNotAllocate(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.slotBytes, o.CommitInterval = 8<<20, 10*time.Second
	l := mustOpen(t, o)
	defer mustClose(t, l)
	mustCreate(t, l, "a", 1)
	p := mustPartition(t, l, "a", 0)
	rec := record.Record{Timestamp: 1, Key: []byte("key"), Value: make([]byte, 100), Headers: []record.Field{{Key: "site", Value: []byte("x")}}}
	for range 3 * builderRecords { // buffers grow
		if _, _, err := p.Append(&rec); err != nil {
			t.Fatal(err)
		}
	}
	l.hurry()
	mustAppendHurried(t, p)
	n := testing.AllocsPerRun(builderRecords/2, func() {
		if _, _, err := p.Append(&rec); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Fatalf("%v allocations per record", n)
	}
}

func mustAppendHurried(t *testing.T, p *Partition) {
	_, lsn, err := p.Append(&record.Record{Value: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	p.log.hurry()
	mustWait(t, p.log, lsn)
}

// TestFailedSync poisons the log: nothing is acknowledged after it, what was is
// still served, and the next Open has it.
func TestFailedSync(t *testing.T) {
	for _, kind := range []vfs.Kind{vfs.OpSync, vfs.OpWrite} {
		t.Run(kind.String(), func(t *testing.T) {
			mem := vfs.NewMem()
			fault := vfs.NewFault(mem, nil)
			l := mustOpen(t, testOptions(fault))
			mustCreate(t, l, "a", 1)
			p := mustPartition(t, l, "a", 0)
			mustAppend(t, p, "kept")
			fault.SetRule(vfs.OnPath("journal", vfs.FailNth(1, syscall.EIO, kind)))
			_, lsn, err := p.Append(&record.Record{Value: []byte("lost")})
			if err != nil {
				t.Fatal(err)
			}
			told := make(chan error, 1)
			l.Notify(lsn, notifierFunc(func(_ LSN, err error) { told <- err }))
			if err := l.Wait(t.Context(), lsn); !errors.Is(err, record.ErrStorage) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("wait: %v", err)
			}
			if err := <-told; !errors.Is(err, record.ErrStorage) {
				t.Fatalf("notify: %v", err)
			}
			<-l.Failed()
			if _, _, err := p.Append(&record.Record{}); !errors.Is(err, record.ErrStorage) {
				t.Fatalf("append: %v", err)
			}
			if _, err := l.CreateTopic("b", record.TopicConfig{}); !errors.Is(err, record.ErrStorage) {
				t.Fatalf("create: %v", err)
			}
			if g := mustReadAll(t, p); len(g) != 1 {
				t.Fatalf("reads %v", g)
			}
			if err := l.Close(); !errors.Is(err, record.ErrStorage) {
				t.Fatalf("close: %v", err)
			}
			l = mustOpen(t, testOptions(mem.CrashClone(vfs.CrashConfig{})))
			defer mustClose(t, l)
			if g := mustReadAll(t, mustPartition(t, l, "a", 0)); len(g) < 1 || g[0].value != "kept" {
				t.Fatalf("after reopen %v", g)
			}
		})
	}
}

type notifierFunc func(LSN, error)

func (f notifierFunc) LogDurable(n LSN, err error) { f(n, err) }

// TestRingWithoutFlush fills the journal many times over while one partition
// holds a single old record: the ring flushes what pins it and goes on.
func TestRingWithoutFlush(t *testing.T) {
	mem := vfs.NewMem()
	l := mustOpen(t, testOptions(mem))
	mustCreate(t, l, "a", 2)
	quiet, busy := mustPartition(t, l, "a", 0), mustPartition(t, l, "a", 1)
	mustAppend(t, quiet, "old")
	for i := range 200 {
		mustAppend(t, busy, fmt.Sprint(i))
	}
	s := l.Stats()
	if s.SegmentSyncs > 60 {
		t.Fatalf("%d segment syncs in %d commits", s.SegmentSyncs, s.Commits)
	}
	clone := mem.CrashClone(vfs.CrashConfig{})
	mustClose(t, l)
	l = mustOpen(t, testOptions(clone))
	defer mustClose(t, l)
	if g := mustReadAll(t, mustPartition(t, l, "a", 0)); len(g) != 1 || g[0].value != "old" {
		t.Fatalf("quiet partition: %v", g)
	}
	if g := mustReadAll(t, mustPartition(t, l, "a", 1)); len(g) != 200 {
		t.Fatalf("busy partition: %d records", len(g))
	}
}

// TestRetention drops whole segments by size and by time of ingest, never by
// the record's timestamp, and not what a group still has to read.
func TestRetention(t *testing.T) {
	clock := newManual()
	tick := make(chan time.Time)
	o := testOptions(vfs.NewMem())
	o.Clock, o.ticks, o.segBytes = clock.now, tick, 8<<10
	l := mustOpen(t, o)
	defer mustClose(t, l)
	add := func(topic string, cfg record.TopicConfig, n int) *Partition {
		cfg.Compression, cfg.MaxMessageBytes = record.None, 16<<10
		if _, err := l.CreateTopic(topic, cfg); err != nil {
			t.Fatal(err)
		}
		p := mustPartition(t, l, topic, 0)
		for i := range n {
			// Their timestamp is of 1970: it does not count.
			mustAppend(t, p, strings.Repeat("x", 1000))
			if i%6 != 5 {
				continue
			}
			if err := l.flush.through(l.flush.committed.Load()); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}
	settle := func() {
		for range 3 { // find, make durable, unlink
			tick <- time.Time{}
			mustAppend(t, mustPartition(t, l, "tick", 0), "x")
		}
		tick <- time.Time{}
		tick <- time.Time{}
	}
	add("tick", record.TopicConfig{}, 0)
	size := add("size", record.TopicConfig{RetentionBytes: 20 << 10, RetentionTime: -1}, 60)
	age := add("age", record.TopicConfig{RetentionBytes: -1, RetentionTime: time.Hour}, 30)
	held := add("held", record.TopicConfig{RetentionBytes: 20 << 10, RetentionTime: time.Hour, RetainUntil: "uplink"}, 60)
	settle()
	if s := size.Offsets(); s.LogStart < 30 || s.HighWatermark != 60 {
		t.Fatalf("by size: %+v", s)
	}
	if s := age.Offsets(); s.LogStart != 0 {
		t.Fatalf("by time, too early: %+v", s)
	}
	if s := held.Offsets(); s.LogStart != 0 {
		t.Fatalf("held: %+v", s)
	}
	lsn, err := l.CommitOffsets("uplink", []record.GroupOffset{{TopicPartition: record.TopicPartition{Topic: "held"}, Offset: 20}})
	if err != nil {
		t.Fatal(err)
	}
	mustWait(t, l, lsn)
	clock.ms.Add(2 * time.Hour.Milliseconds())
	settle()
	if s := held.Offsets(); s.LogStart == 0 || s.LogStart > 20 {
		t.Fatalf("held to 20: %+v", s)
	}
	if s := age.Offsets(); s.LogStart != 30 {
		t.Fatalf("by time: %+v", s)
	}
	if g := mustReadAll(t, size); g[0].offset != size.Offsets().LogStart {
		t.Fatalf("first record %d", g[0].offset)
	}
	if _, err := size.Fetch(0, 100, nil); !errors.Is(err, record.ErrOffsetOutOfRange) {
		t.Fatalf("below the log start: %v", err)
	}
	for _, e := range files(t, o.FS, "data/topics/age/0") {
		t.Fatalf("%s is still there", e.Name)
	}
}

// TestLookups compares look-ups by time with a walk over all records.
func TestLookups(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.segBytes = 8 << 10
	l := mustOpen(t, o)
	defer mustClose(t, l)
	mustCreate(t, l, "a", 1)
	p := mustPartition(t, l, "a", 0)
	if at, err := p.OffsetForTime(0); err != nil || at.Offset != -1 {
		t.Fatalf("empty: %+v %v", at, err)
	}
	if at, err := p.MaxTimestamp(); err != nil || at.Offset != -1 {
		t.Fatalf("empty: %+v %v", at, err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var times []int64
	for i := range 600 {
		ts := int64(1000 + i*10 + rng.IntN(500))
		times = append(times, ts)
		_, lsn, err := p.Append(&record.Record{Timestamp: ts, Value: make([]byte, 80)})
		if err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			mustWait(t, l, lsn)
		}
		if i%150 == 149 {
			mustWait(t, l, lsn)
			if err := l.flush.through(l.flush.committed.Load()); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustAppend(t, p, "last") // timestamp 1000
	times = append(times, 1000)
	for _, start := range []int64{0, 77, 555} {
		if err := p.DeleteBefore(start); err != nil {
			t.Fatal(err)
		}
		for ts := int64(900); ts < 8000; ts += 37 {
			want := int64(-1)
			for i := start; i < int64(len(times)); i++ {
				if times[i] >= ts {
					want = i
					break
				}
			}
			at, err := p.OffsetForTime(ts)
			if err != nil || at.Offset != want || want >= 0 && at.Timestamp != times[want] {
				t.Fatalf("from %d: time %d: got %+v %v, want %d", start, ts, at, err, want)
			}
		}
		want := start
		for i := start; i < int64(len(times)); i++ {
			if times[i] > times[want] {
				want = i
			}
		}
		if at, err := p.MaxTimestamp(); err != nil || at.Offset != want {
			t.Fatalf("from %d: largest: got %+v %v, want %d", start, at, err, want)
		}
	}
}

// TestFetchLimits: at least one batch, whole batches, the high watermark, the
// range.
func TestFetchLimits(t *testing.T) {
	l := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	mustCreate(t, l, "a", 1)
	p := mustPartition(t, l, "a", 0)
	for range 3 {
		mustAppend(t, p, strings.Repeat("v", 500))
	}
	for _, c := range []struct {
		offset int64
		max    int
		n      int
		err    error
	}{
		{0, 1, 1, nil}, {0, 0, 1, nil}, {0, 1200, 2, nil}, {1, 1 << 20, 2, nil}, {3, 100, 0, nil},
		{4, 100, 0, record.ErrOffsetOutOfRange}, {-1, 100, 0, record.ErrOffsetOutOfRange},
	} {
		prefix := []byte("prefix")
		f, err := p.Fetch(c.offset, c.max, prefix)
		if !errors.Is(err, c.err) || !bytes.HasPrefix(f.Batches, prefix) || f.HighWatermark != 3 {
			t.Fatalf("fetch %d: %v %+v", c.offset, err, f)
		}
		n := 0
		record.Batches(f.Batches[len(prefix):], func(record.Header, []byte) error { n++; return nil })
		if n != c.n {
			t.Fatalf("fetch %d of %d bytes: %d batches, want %d", c.offset, c.max, n, c.n)
		}
	}
}

// TestConcurrent runs appenders, readers, watchers, group commits, flushes and
// topic changes at once; the race detector watches.
func TestConcurrent(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.slotBytes, o.ticks, o.segBytes, o.HeadBytes, o.PendingBytes = 256<<10, nil, 32<<10, 256<<10, 32<<10
	l := mustOpen(t, o)
	mustCreate(t, l, "a", 3)
	const each = 3000
	var wg sync.WaitGroup
	for i := range int32(3) {
		p := mustPartition(t, l, "a", i)
		wg.Go(func() {
			for n := range each {
				if _, _, err := p.Append(&record.Record{Timestamp: int64(n), Value: fmt.Appendf(nil, "%d %060d", n, n)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			wake := make(chan struct{}, 1)
			stop := p.Watch(wake)
			defer stop()
			var dst []byte
			for next := int64(0); next < each; {
				f, err := p.Fetch(next, 10_000, dst[:0])
				if err != nil {
					t.Error(err)
					return
				}
				if dst = f.Batches; len(dst) == 0 {
					<-wake
					continue
				}
				record.Batches(dst, func(h record.Header, raw []byte) error {
					if h.BaseOffset > next {
						t.Errorf("read %d, want %d", h.BaseOffset, next)
					}
					next = h.NextOffset()
					return nil
				})
				if _, err := p.OffsetForTime(next / 2); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for n := range 200 {
			lsn, err := l.CommitOffsets("g", []record.GroupOffset{{TopicPartition: record.TopicPartition{Topic: "a"}, Offset: int64(n)}})
			if err == nil && n%10 == 0 {
				err = l.Wait(context.Background(), lsn)
			}
			if err != nil {
				t.Error(err)
			}
			l.Stats()
			l.GroupOffsets("g")
		}
	})
	wg.Go(func() {
		for n := range 10 {
			name := fmt.Sprintf("b%d", n)
			cfg := record.DefaultTopicConfig()
			cfg.MaxMessageBytes = 16 << 10
			if _, err := l.CreateTopic(name, cfg); err != nil {
				t.Error(err)
				return
			}
			p, _ := l.Partition(name, 0)
			for range 20 {
				if _, _, err := p.Append(&record.Record{Value: make([]byte, 500)}); err != nil {
					t.Error(err)
				}
			}
			if err := l.DeleteTopic(name); err != nil {
				t.Error(err)
			}
			if _, _, err := p.Append(&record.Record{}); !errors.Is(err, record.ErrUnknownTopic) {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if s := l.Stats(); s.PendingBytes < 0 || s.HeadBytes < 0 {
		t.Fatalf("%+v", s)
	}
	mustClose(t, l)
	if s := l.Stats(); s.PendingBytes != 0 || s.HeadBytes != 0 {
		t.Fatalf("after close: pending %d, heads %d", s.PendingBytes, s.HeadBytes)
	}
	l = mustOpen(t, o)
	defer mustClose(t, l)
	for i := range int32(3) {
		if g := mustReadAll(t, mustPartition(t, l, "a", i)); len(g) != each {
			t.Fatalf("partition %d: %d records", i, len(g))
		}
	}
}

// TestOffsetsCompaction commits often: the topic stays small and the last
// positions survive.
func TestOffsetsCompaction(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.slotBytes = 256 << 10
	l := mustOpen(t, o)
	var lsn LSN
	for n := range compactAfter + 500 {
		var err error
		lsn, err = l.CommitOffsets(fmt.Sprintf("g%d", n%3), []record.GroupOffset{{
			TopicPartition: record.TopicPartition{Topic: "t", Partition: int32(n % 5)}, Offset: int64(n), LeaderEpoch: -1, Metadata: "m",
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	mustWait(t, l, lsn)
	p := mustPartition(t, l, OffsetsTopic, 0)
	if s := p.Offsets(); s.LogStart < compactAfter {
		t.Fatalf("not compacted: %+v", s)
	}
	want := fmt.Sprint(l.Groups(), l.GroupOffsets("g0"), l.GroupOffsets("g1"), l.GroupOffsets("g2"))
	clone := mem.CrashClone(vfs.CrashConfig{})
	mustClose(t, l)
	l = mustOpen(t, testOptions(clone))
	defer mustClose(t, l)
	if g := fmt.Sprint(l.Groups(), l.GroupOffsets("g0"), l.GroupOffsets("g1"), l.GroupOffsets("g2")); g != want {
		t.Fatalf("got %s\nwant %s", g, want)
	}
	if len(l.GroupOffsets("g0")) != 5 || l.GroupOffsets("g0")[0].LeaderEpoch != -1 {
		t.Fatalf("%v", l.GroupOffsets("g0"))
	}
}

func TestLockAndValidation(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, slotBytes: 1 << 20, slots: 4, preallocAll: true}
	l := mustOpen(t, o)
	if _, err := Open(o); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("second open: %v", err)
	}
	if _, err := Verify(dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("verify of an open log: %v", err)
	}
	for _, c := range []struct {
		name string
		cfg  record.TopicConfig
		err  error
	}{
		{"no/slash", record.TopicConfig{}, record.ErrInvalidTopic},
		{"..", record.TopicConfig{}, record.ErrInvalidTopic},
		{"a", record.TopicConfig{Partitions: -1}, record.ErrInvalidPartitions},
		{"a", record.TopicConfig{Partitions: 1001}, record.ErrInvalidPartitions},
		{"a", record.TopicConfig{RetentionBytes: -2}, record.ErrInvalidConfig},
		{"a", record.TopicConfig{MaxMessageBytes: 1 << 30}, record.ErrInvalidConfig},
		{record.EpochsTopic, record.TopicConfig{MaxMessageBytes: 4096}, record.ErrTopicExists},
	} {
		if c.cfg.MaxMessageBytes == 0 {
			c.cfg.MaxMessageBytes = 4096
		}
		if _, err := l.CreateTopic(c.name, c.cfg); !errors.Is(err, c.err) {
			t.Fatalf("create %q %+v: %v", c.name, c.cfg, err)
		}
	}
	if _, err := l.Partition("none", 0); !errors.Is(err, record.ErrUnknownTopic) {
		t.Fatal(err)
	}
	mustClose(t, l)
	mustClose(t, l)
	if _, err := l.CreateTopic("late", record.TopicConfig{MaxMessageBytes: 4096}); !errors.Is(err, record.ErrClosed) {
		t.Fatalf("create after close: %v", err)
	}
	if err := l.Wait(t.Context(), 1<<40); !errors.Is(err, record.ErrClosed) {
		t.Fatalf("wait after close: %v", err)
	}
	if _, err := Verify(t.TempDir()); err == nil {
		t.Fatal("verify of an empty directory passes")
	}
}

// TestDiskFull: segments cannot grow; the journal goes on as long as it has
// room, and when space comes back, so do they.
func TestDiskFull(t *testing.T) {
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem, nil)
	tick := make(chan time.Time)
	o := testOptions(fault)
	o.ticks = tick
	l := mustOpen(t, o)
	mustCreate(t, l, "a", 1)
	p := mustPartition(t, l, "a", 0)
	fault.SetRule(vfs.OnPath("topics", vfs.FailFrom(1, syscall.ENOSPC, vfs.OpWrite, vfs.OpCreate)))
	for i := range 20 {
		mustAppend(t, p, fmt.Sprint(i))
	}
	l.flush.mu.Lock()
	l.flush.urgent = l.flush.committed.Load() // nothing is carried
	l.flush.mu.Unlock()
	l.flush.ask(l.flush.committed.Load())
	tick <- time.Time{}
	tick <- time.Time{}
	if err := l.Err(); err != nil || l.Stats().FlushErrors == 0 {
		t.Fatalf("%v, %d flush errors", err, l.Stats().FlushErrors)
	}
	if _, _, err := p.Append(&record.Record{}); !errors.Is(err, record.ErrStorage) || !l.Stats().Refusing {
		t.Fatalf("append to a full disk: %v", err)
	}
	fault.SetRule(nil)
	tick <- time.Time{}
	tick <- time.Time{} // the first is done
	mustAppend(t, p, "more")
	mustClose(t, l)
	l = mustOpen(t, o)
	defer mustClose(t, l)
	if g := mustReadAll(t, mustPartition(t, l, "a", 0)); len(g) != 21 {
		t.Fatalf("%d records", len(g))
	}
}

func TestEpochEnd(t *testing.T) {
	o := testOptions(vfs.NewMem())
	for range 4 { // epochs 1 to 4; 3 appends nothing
		l := mustOpen(t, o)
		if l.Epoch() == 1 {
			mustCreate(t, l, "a", 1)
		}
		p := mustPartition(t, l, "a", 0)
		if l.Epoch() != 3 {
			mustAppend(t, p, "x")
			mustAppend(t, p, "y")
		}
		if l.Epoch() == 4 {
			var have []string
			for e := int32(0); e <= 5; e++ {
				a, b := p.EpochEnd(e)
				have = append(have, fmt.Sprintf("%d:%d,%d", e, a, b))
			}
			want := []string{"0:0,0", "1:1,2", "2:2,4", "3:2,4", "4:4,6", "5:-1,-1"}
			if !slices.Equal(have, want) {
				t.Fatalf("got %v, want %v", have, want)
			}
		}
		mustClose(t, l)
	}
}

// TestCommitInterval: a commit gathers for the interval and no longer, less if
// half of what may be pending is there.
func TestCommitInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(vfs.NewMem())
		o.ticks, o.CommitInterval, o.PendingBytes = make(chan time.Time), 100*time.Millisecond, 8<<10
		l := mustOpen(t, o)
		defer mustClose(t, l)
		mustCreate(t, l, "a", 1)
		p := mustPartition(t, l, "a", 0)
		synctest.Wait()
		began, commits := time.Now(), l.Stats().Commits
		for range 10 {
			if _, _, err := p.Append(&record.Record{Value: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		mustAppend(t, p, "last")
		if d := time.Since(began); d != 100*time.Millisecond || l.Stats().Commits != commits+1 {
			t.Fatalf("%v, %d commits", d, l.Stats().Commits-commits)
		}
		began = time.Now()
		var lsn LSN
		for range 20 {
			var err error
			if _, lsn, err = p.Append(&record.Record{Value: make([]byte, 300)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Wait(t.Context(), lsn-1); err != nil || time.Since(began) > 50*time.Millisecond {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		mustWait(t, l, lsn)
	})
}
