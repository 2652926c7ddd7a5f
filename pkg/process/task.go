package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
)

// Bounds of a task's work.
const (
	fetchBytes = 128 << 10
	// stepBytes is the size of outputs from which a step is made, also in the
	// middle of an event. With one more output it stays below what the
	// smallest journal takes in one entry.
	stepBytes = 64 << 10
	// maxLate bounds a copy in the late topic, in bytes: a larger one comes
	// without value and headers.
	maxLate = 128 << 10
	// maxSnapshotWait is how long a snapshot may wait for input to be worth
	// its bytes.
	maxSnapshotWait = 15 * time.Minute
	retryWait       = time.Second
)

// headerLateProcess says in a late record which process it was late for.
const headerLateProcess = "late.process"

// errStopped ends a task because the engine closes.
var errStopped = errors.New("stopped")

// task is one process over one input partition. All but need, refresh, wake
// and stats belong to its goroutine.
type task struct {
	e         *Engine
	spec      *spec
	partition int32
	key       string // of its steps
	src       *log.Partition
	in        *input
	w         *windows
	store     store
	logger    *slog.Logger
	past      history // until restored

	lineage lineage
	seq     uint64   // of the last step
	lsn     log.LSN  // of the last step
	last    stepAt   // the last step; seq 0: none
	next    int64    // offset of the next record
	event   *tick    // the tick at work; nil: a record
	made    int      // outputs of the event at work so far
	skip    int      // of them, those that an earlier run has issued
	out     []output // not yet in a step
	bytes   int      // of out
	group   []log.GroupRecord
	err     error // of a step; ends the task
	buf     []byte

	idle     idleness
	since    int64     // input bytes since the last snapshot
	saved    time.Time // when it was
	savedLen int
	newer    int64 // offset of the first step behind the newest snapshot; -1: none
	older    int64 // behind the one before

	results topicCache
	late    topicCache

	need    atomic.Int64 // lowest offset of Topic that must stay; -1: none
	refresh chan struct{}
	wake    chan struct{}

	mu    sync.Mutex
	stats TaskStats
	work  TaskStats // the goroutine's own; copied to stats
}

// output is a record on its way to the results or the late topic.
type output struct {
	late bool
	rec  record.Record
}

// topicCache holds the partitions of an output topic.
type topicCache struct {
	parts []*log.Partition
	max   int // bytes of a record that the topic takes
}

func (t *task) run() {
	t.work = t.stats
	t.saved = t.e.o.Clock()
	err := t.restore()
	restored := err == nil
	if restored {
		stop := t.src.Watch(t.wake)
		err = t.live()
		stop()
	}
	t.work.State = "stopped"
	if err != nil && !errors.Is(err, errStopped) && !errors.Is(err, record.ErrClosed) {
		t.work.State, t.work.Error = "failed", err.Error()
		t.logger.Error("process task failed", "err", err)
	} else if restored && t.since > 0 && t.err == nil {
		t.snapshot()
	}
	t.publish()
}

// live takes in records until the engine closes.
func (t *task) live() error {
	t.w.emit = t.issue
	t.work.State, t.work.Error = "running", ""
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if t.stopping() {
			return errStopped
		}
		n, err := t.consume()
		if err != nil {
			return err
		}
		now := t.e.o.Clock()
		if n == 0 {
			t.idle.note(now, t.next, t.spec.Idle)
			if err := t.maybeTick(now); err != nil {
				return err
			}
		}
		if t.snapshotDue(now) {
			t.snapshot()
		}
		t.publish()
		if n > 0 {
			continue
		}
		t.buf = nil // idle tasks hold no buffers
		timer.Reset(t.rest(now))
		select {
		case <-t.e.stop:
		case <-t.wake:
		case <-timer.C:
		case <-t.refresh:
			t.renew()
		}
	}
}

func (t *task) stopping() bool {
	select {
	case <-t.e.stop:
		return true
	default:
		return false
	}
}

// rest is how long the task may sleep if nothing wakes it.
func (t *task) rest(now time.Time) time.Duration {
	d := time.Hour
	if t.w.open > 0 {
		d = min(max(t.spec.Idle/8, 20*time.Millisecond), 5*time.Second)
	}
	if t.since > 0 {
		left := t.e.o.SnapshotEvery - now.Sub(t.saved)
		if left <= 0 {
			left = t.e.o.SnapshotEvery
		}
		d = min(d, max(left, 10*time.Millisecond))
	}
	return d
}

// consume takes in what one fetch gives and returns its size; 0 at the high
// watermark.
func (t *task) consume() (int, error) {
	n, err := t.read(t.next, -1, func(r *record.Record) error {
		t.take(r)
		return t.err
	})
	if err == nil {
		err = t.flush(0)
	}
	t.since += int64(n)
	return n, err
}

// read calls f with the records of one fetch, from offset from on and below
// limit (-1: none), and moves t.next behind them.
func (t *task) read(from, limit int64, f func(*record.Record) error) (int, error) {
	got, err := t.src.Fetch(from, fetchBytes, t.buf[:0])
	if errors.Is(err, record.ErrOffsetOutOfRange) {
		start := t.src.Offsets().LogStart
		if start <= from {
			return 0, fmt.Errorf("fetch %s/%d at offset %d: %w", t.spec.From, t.partition, from, err)
		}
		t.work.Lost += start - from
		t.logger.Warn("retention took records before they were read", "topic", t.spec.From, "from", from, "to", start)
		t.next, t.skip = start, 0
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("fetch %s/%d at offset %d: %w", t.spec.From, t.partition, from, err)
	}
	t.buf = got.Batches
	t.work.Lag = max(got.HighWatermark-t.next, 0)
	stop := errors.New("limit")
	_, err = record.Batches(got.Batches, func(h record.Header, raw []byte) error {
		if h.NextOffset() <= t.next {
			return nil
		}
		if limit >= 0 && h.BaseOffset >= limit {
			return stop
		}
		if !h.Control() {
			err := record.Records(raw, func(r *record.Record) error {
				if r.Offset < t.next {
					return nil
				}
				if limit >= 0 && r.Offset >= limit {
					return stop
				}
				if t.skip > 0 && r.Offset != t.next {
					t.skip = 0 // the record that was cut in two is gone
				}
				t.next = r.Offset
				if err := f(r); err != nil {
					return err
				}
				t.next++
				return nil
			})
			if err != nil {
				return err
			}
		}
		t.next = h.NextOffset()
		return nil
	})
	if err == stop {
		err = nil
	}
	t.work.Offset, t.work.Lag = t.next, max(got.HighWatermark-t.next, 0)
	return len(got.Batches), err
}

// take is one event: a record.
func (t *task) take(r *record.Record) {
	t.event, t.made = nil, 0
	late := false
	samples := t.in.take(r)
	for i := range samples {
		if !t.w.add(&samples[i]) {
			late = true
		}
	}
	if late && t.w.emit != nil {
		t.push(t.lateCopy(r))
	}
	t.skip, t.made = 0, 0
}

// issue is windows.emit.
func (t *task) issue(r result) {
	t.push(output{rec: record.Record{Timestamp: r.time, Key: r.key, Value: r.json}})
}

// lateCopy is r for the late topic.
func (t *task) lateCopy(r *record.Record) output {
	c := record.Record{Timestamp: r.Timestamp, Value: append([]byte{}, r.Value...)}
	if r.Key != nil {
		c.Key = append([]byte{}, r.Key...)
	}
	for _, h := range r.Headers {
		c.Headers = append(c.Headers, record.Field{Key: h.Key, Value: append([]byte{}, h.Value...)})
	}
	c.Headers = append(c.Headers, record.Field{Key: headerLateProcess, Value: []byte(t.spec.Name)})
	if recordSize(&c) > maxLate {
		c.Value, c.Headers = nil, c.Headers[len(c.Headers)-1:]
		if len(c.Key) > maxKey {
			c.Key = nil
		}
		t.work.TooLarge++
	}
	return output{late: true, rec: c}
}

// push adds an output of the event at work, unless an earlier run has issued
// it, and makes a step if there is much.
func (t *task) push(o output) {
	t.made++
	if t.made <= t.skip || t.err != nil {
		return
	}
	t.out = append(t.out, o)
	t.bytes += recordSize(&o.rec)
	if t.bytes >= stepBytes {
		_ = t.flush(t.made) // keeps its error in t.err
	}
}

func recordSize(r *record.Record) int {
	n := len(r.Key) + len(r.Value) + 64
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value) + 16
	}
	return n
}

// flush makes a step of what is in out; done is how many outputs of the event
// at work are then out, 0 if it is complete.
func (t *task) flush(done int) error {
	if t.err != nil {
		return t.err
	}
	if len(t.out) == 0 && t.event == nil {
		return nil
	}
	s := step{lineage: t.lineage, seq: t.seq + 1, next: t.next, done: done, tick: t.event}
	if s.first == 0 {
		s.first = s.seq
	}
	offset, err := t.append(&s)
	if err != nil {
		t.err = err // the state is ahead of the log: no snapshot any more
		return err
	}
	t.lineage.first = s.first
	t.seq = s.seq
	t.last = stepAt{s, offset}
	t.noteStep(offset)
	if t.event != nil {
		again := *t.event
		again.again = true
		t.event = &again
	}
	for _, o := range t.out {
		if o.late {
			t.work.LateCopies++
		} else {
			t.work.Results++
		}
	}
	t.work.Steps++
	clear(t.out)
	t.out, t.bytes = t.out[:0], 0
	return nil
}

// append puts out and s into the log as one group, and tries again while the
// log has no room.
func (t *task) append(s *step) (offset int64, err error) {
	value := s.append(nil)
	for {
		t.group = t.group[:0]
		if err = t.address(); err == nil {
			t.group = append(t.group, log.GroupRecord{Partition: t.e.steps, Record: record.Record{
				Timestamp: t.e.o.Clock().UnixMilli(), Key: []byte(t.key), Value: value,
			}})
			var offsets []int64
			offsets, t.lsn, err = t.e.o.Log.AppendGroup(t.group)
			if err == nil {
				clear(t.group)
				t.work.Error = ""
				return offsets[len(offsets)-1], nil
			}
		}
		if errors.Is(err, record.ErrClosed) || t.e.o.Log.Err() != nil {
			return 0, fmt.Errorf("append results: %w", err)
		}
		// An output topic may have been deleted, or the disk is full.
		t.results, t.late = topicCache{}, topicCache{}
		if t.work.Error == "" {
			t.logger.Warn("results wait: the log refuses them", "topic", t.spec.To, "err", err)
		}
		t.work.Retries++
		t.work.Error = err.Error()
		t.publish()
		wait := time.NewTimer(retryWait)
		select {
		case <-t.e.stop:
			wait.Stop()
			return 0, errStopped
		case <-wait.C:
		}
	}
}

// address fills group from out. What is larger than its topic takes is left
// out and counted.
func (t *task) address() error {
	for i := range t.out {
		o := &t.out[i]
		c, name := &t.results, t.spec.To
		if o.late {
			c, name = &t.late, t.spec.To+LateSuffix
		}
		if c.parts == nil {
			if err := t.openTopic(name, c); err != nil {
				return err
			}
		}
		if recordSize(&o.rec) > c.max {
			t.work.TooLarge++
			t.logger.Warn("output larger than its topic takes: left out", "topic", name, "bytes", recordSize(&o.rec))
			continue
		}
		p := c.parts[record.PartitionOf(o.rec.Key, int32(len(c.parts)))]
		t.group = append(t.group, log.GroupRecord{Partition: p, Record: o.rec})
	}
	return nil
}

func (t *task) openTopic(name string, c *topicCache) error {
	cfg := record.DefaultTopicConfig()
	if info, err := t.e.o.Log.Topic(t.spec.From); err == nil {
		cfg.Partitions = info.Config.Partitions
	}
	info, err := t.e.ensureTopic(name, cfg)
	if err != nil {
		return err
	}
	parts := make([]*log.Partition, info.Config.Partitions)
	for i := range parts {
		if parts[i], err = t.e.o.Log.Partition(name, int32(i)); err != nil {
			return fmt.Errorf("open %s/%d: %w", name, i, err)
		}
	}
	c.parts, c.max = parts, int(info.Config.MaxMessageBytes)
	return nil
}

// maybeTick lets the wall clock close the windows of idle keys (E3).
func (t *task) maybeTick(now time.Time) error {
	if t.w.open == 0 || !t.e.o.ClockTrusted() {
		return nil
	}
	wall, idle := now.UnixMilli(), t.idle.before(now, t.spec.Idle)
	if !t.w.idle(wall, idle) {
		return nil
	}
	t.work.Ticks++
	return t.tick(&tick{wall: wall, idle: idle})
}

// tick is one event: a decision of the wall clock.
func (t *task) tick(d *tick) error {
	t.event, t.made = d, 0
	t.w.tick(d.wall, d.idle)
	err := t.flush(0)
	t.event, t.skip, t.made = nil, 0, 0
	t.since++ // worth a snapshot
	return err
}

// noteStep keeps book of which steps must stay (E4).
func (t *task) noteStep(offset int64) {
	if t.newer < 0 {
		t.newer = offset
	}
	if t.older < 0 {
		t.older = offset
	}
	t.setNeed()
}

func (t *task) setNeed() {
	need := int64(-1)
	if t.last.seq > 0 {
		need = t.last.offset
	}
	for _, o := range []int64{t.older, t.newer} {
		if o >= 0 && (need < 0 || o < need) {
			need = o
		}
	}
	t.need.Store(need)
}

func (t *task) snapshotDue(now time.Time) bool {
	if t.since == 0 {
		return false
	}
	age := now.Sub(t.saved)
	return t.since >= t.e.o.SnapshotBytes ||
		age >= t.e.o.SnapshotEvery && (t.since >= 20*int64(t.savedLen) || age >= maxSnapshotWait)
}

// snapshot saves the state (E2). An error is counted and tried again later:
// the steps are kept until then.
func (t *task) snapshot() {
	err := t.e.o.Log.Wait(context.Background(), t.lsn)
	if err == nil {
		var n int
		n, err = t.store.save(&snapshot{
			lineage: t.lineage, seq: t.seq, next: t.next, open: t.w.open, state: t.w.appendState(nil),
		})
		if n > 0 {
			t.savedLen = n
			t.work.Snapshots++
			t.work.SnapshotBytes = int64(n)
			t.since = 0
			t.older, t.newer = t.newer, -1
			t.setNeed()
			t.e.trim()
		}
	}
	t.saved = t.e.o.Clock()
	if err != nil {
		t.work.SnapshotErrors++
		t.logger.Warn("snapshot", "err", err)
	}
}

// renew makes the steps of a quiet task needless and puts its last one back at
// the end of Topic, so that the others' can be trimmed.
func (t *task) renew() {
	if t.last.seq == 0 {
		return
	}
	for range generations {
		before := t.work.Snapshots
		if t.snapshot(); t.work.Snapshots == before {
			return
		}
	}
	group := []log.GroupRecord{{Partition: t.e.steps, Record: record.Record{
		Timestamp: t.e.o.Clock().UnixMilli(), Key: []byte(t.key), Value: t.last.append(nil),
	}}}
	offsets, lsn, err := t.e.o.Log.AppendGroup(group)
	if err == nil {
		err = t.e.o.Log.Wait(context.Background(), lsn)
	}
	if err != nil {
		t.logger.Warn("renew step", "err", err)
		return
	}
	t.last.offset = offsets[0]
	t.setNeed()
}

// publish makes the counters visible.
func (t *task) publish() {
	w := &t.work
	c := t.in.counts
	w.Records, w.Malformed, w.Untimed = c.Records, c.Malformed, c.Untimed
	w.Ungrouped, w.Filtered, w.Errors = c.Ungrouped, c.Filtered, c.Errors
	if t.w != nil {
		k := t.w.counts
		w.Finals, w.Amends, w.Late = k.Finals, k.Amends, k.Late
		w.Forced, w.Forgotten, w.Dropped = k.Forced, k.Forgotten, k.Dropped
		w.Keys, w.WindowsOpen, w.WindowsClosed = int64(len(t.w.keys)), int64(t.w.open), int64(t.w.kept)
	}
	t.mu.Lock()
	t.stats = *w
	t.mu.Unlock()
}

func (t *task) snapshotStats() TaskStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Lag = max(t.src.Offsets().HighWatermark-s.Offset, 0)
	return s
}
