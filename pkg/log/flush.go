package log

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// flushBytes of a partition's head are worth a write to its segment.
	flushBytes = 256 << 10
	// ageFlushBytes of a head are written when its oldest record is flushAge
	// old; less than that waits in the journal until its slot is needed.
	ageFlushBytes = 16 << 10
	flushAge      = 60 * time.Second

	// tickEvery is how often ages and retention are looked at.
	tickEvery = time.Second
)

// flusher writes heads to segments, syncs and seals them, moves the tail of the
// journal, retires segments. One goroutine does all of it; it never waits for
// the committer, so the committer may wait for it.
type flusher struct {
	l *Log

	// tail is the lowest journal sequence not yet wholly in synced segments.
	tail atomic.Uint64
	// committed is the last sequence that is published.
	committed atomic.Uint64

	mu     sync.Mutex
	moved  *sync.Cond // tail or heads changed, or the log failed
	queue  []*Partition
	target uint64 // everything up to this sequence is to leave its entries
	urgent uint64 // up to this the committer waits: nothing can be carried
	trees  []doomed
	pins   map[uint64]int // sequences of deletions that are under way

	wakeCh chan struct{}
	full   bool // the disk was full: no flush before the next tick
	ended  bool // the goroutine has ended; Close does the rest
	budget carryBudget
	w      segWriter
}

// doomed is a deleted topic whose files are to go.
type doomed struct {
	t    *topic
	seq  uint64
	done chan<- error
}

func (f *flusher) init(l *Log) {
	f.l = l
	f.moved = sync.NewCond(&f.mu)
	f.pins = map[uint64]int{}
	f.wakeCh = make(chan struct{}, 1)
	f.w.l = l
}

// wake makes the flusher look, and those who wait for it look again.
func (f *flusher) wake() {
	f.mu.Lock()
	f.moved.Broadcast()
	f.mu.Unlock()
	select {
	case f.wakeCh <- struct{}{}:
	default:
	}
}

// enqueue asks for a partition to be flushed; its queued is set.
func (f *flusher) enqueue(p *Partition) {
	f.mu.Lock()
	f.queue = append(f.queue, p)
	f.mu.Unlock()
	f.wake()
}

// ask wants everything up to seq in synced segments.
func (f *flusher) ask(seq uint64) {
	f.mu.Lock()
	more := seq > f.target
	f.target = max(f.target, seq)
	f.mu.Unlock()
	if more {
		f.wake()
	}
}

// through waits until the tail is beyond seq.
func (f *flusher) through(seq uint64) error {
	if f.ended { // Close writes the last entry
		return f.sync(seq, time.Time{})
	}
	f.mu.Lock()
	f.target, f.urgent = max(f.target, seq), max(f.urgent, seq)
	f.mu.Unlock()
	f.wake()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.tail.Load() <= seq {
		if err := f.hopeless(); err != nil {
			return err
		}
		f.moved.Wait()
	}
	return nil
}

// errFullClosing ends a commit that waits for room on a full disk, at Close.
var errFullClosing = fmt.Errorf("closed while the disk is full: %w", syscall.ENOSPC)

// hopeless is why the committer should not wait for the flusher any more.
func (f *flusher) hopeless() error {
	if f.l.isFailed() {
		return f.l.Err()
	}
	select {
	case <-f.l.closeCh:
		if f.l.space.blocked.Load() && f.l.space.refusal.Load() != nil {
			return errFullClosing
		}
	default:
	}
	return nil
}

// lookAhead frees the slots that the committer will need soon, so that it need
// not wait. It asks once per slot, not per commit.
func (f *flusher) lookAhead() {
	j := f.l.j
	j.mu.Lock()
	n := len(j.slots)
	ahead := max(n/4, 1)
	seq := uint64(0)
	for i := 1; i <= ahead && i < n; i++ {
		s := j.slots[(j.cur+i)%n]
		if s.last != 0 && s.last >= j.durableTail {
			seq = max(seq, s.last)
		}
	}
	j.mu.Unlock()
	if seq > 0 {
		f.ask(seq)
	}
}

// checkHeads asks for a flush when the heads take more than half of what they
// may.
func (f *flusher) checkHeads() {
	if f.l.headBytes.Load() > f.l.opt.HeadBytes/2 {
		select {
		case f.wakeCh <- struct{}{}:
		default:
		}
	}
}

// waitHeads holds the committer while the heads are full.
func (f *flusher) waitHeads() error {
	if f.l.headBytes.Load() <= f.l.opt.HeadBytes {
		return nil
	}
	f.wake()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.l.headBytes.Load() > f.l.opt.HeadBytes {
		if err := f.hopeless(); err != nil {
			return err
		}
		f.moved.Wait()
	}
	return nil
}

// pin keeps the tail from passing the entry of a deletion before the files are
// gone.
func (f *flusher) pin(seq uint64) {
	f.mu.Lock()
	f.pins[seq]++
	f.mu.Unlock()
}

// unlink takes the files of a deleted topic away; seq is the deletion's entry,
// which is pinned.
func (f *flusher) unlink(t *topic, seq uint64, done chan<- error) {
	f.mu.Lock()
	f.trees = append(f.trees, doomed{t, seq, done})
	f.mu.Unlock()
	f.wake()
}

// loop is the flusher's goroutine. It ends when the committer has.
func (f *flusher) loop() {
	tick := f.l.opt.ticks
	if tick == nil {
		t := time.NewTicker(tickEvery)
		defer t.Stop()
		tick = t.C
	}
	for {
		aged := false
		select {
		case <-f.wakeCh:
		case <-tick:
			aged = true
		case <-f.l.stopped:
			return
		}
		if f.l.isFailed() {
			<-f.l.stopped
			return
		}
		f.guard(f.pass(aged))
	}
}

// guard turns an error of a pass into what it means: a full disk is waited out,
// anything else poisons the log.
func (f *flusher) guard(err error) {
	switch {
	case err == nil:
	case isFull(err):
		if !f.l.space.blocked.Load() {
			f.l.log.Warn("disk full: segments wait, the journal goes on while it has room", "err", err)
		}
		f.l.stat.flushErrors.Add(1)
		if f.full = !f.l.space.full(); !f.full {
			f.wake()
		}
	default:
		f.l.fail(err)
	}
	f.mu.Lock()
	f.moved.Broadcast()
	f.mu.Unlock()
}

// pass does what is due.
func (f *flusher) pass(aged bool) error {
	l := f.l
	if err := f.removeTrees(); err != nil {
		return err
	}
	if aged {
		f.full = false
		l.space.look()
	} else {
		l.space.lookSoon()
	}
	if f.full {
		return l.retain(aged)
	}
	f.mu.Lock()
	queue, target := f.queue, f.target
	f.queue = nil
	f.mu.Unlock()
	for i, p := range queue {
		p.mu.Lock()
		p.queued = false
		p.mu.Unlock()
		if err := f.partition(p); err != nil {
			f.requeue(queue[i:])
			return err
		}
	}
	if l.headBytes.Load() > l.opt.HeadBytes/2 {
		if err := f.largest(l.opt.HeadBytes / 4); err != nil {
			return err
		}
	}
	if aged {
		if err := f.aged(); err != nil {
			return err
		}
	}
	if target >= f.tail.Load() {
		if err := f.sync(target, time.Time{}); err != nil {
			return err
		}
	}
	l.space.passed()
	return l.retain(aged)
}

func (f *flusher) requeue(ps []*Partition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range ps {
		p.mu.Lock()
		p.queued = true
		p.mu.Unlock()
	}
	f.queue = append(f.queue, ps...)
}

// partition writes the head of p to its segment.
func (f *flusher) partition(p *Partition) error {
	if err := f.w.flush(p); err != nil {
		f.w.reset()
		return fmt.Errorf("flush %s: %w", p, err)
	}
	f.mu.Lock()
	f.moved.Broadcast() // heads went down
	f.mu.Unlock()
	return nil
}

// largest flushes the largest heads until all together take no more than want.
func (f *flusher) largest(want int64) error {
	type size struct {
		p *Partition
		n int64
	}
	var list []size
	for _, p := range f.l.partitions() {
		p.mu.Lock()
		if p.headBytes > 0 {
			list = append(list, size{p, p.headBytes})
		}
		p.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b size) int { return cmp.Compare(b.n, a.n) })
	for _, s := range list {
		if f.l.headBytes.Load() <= want {
			break
		}
		if err := f.partition(s.p); err != nil {
			return err
		}
	}
	return nil
}

// aged flushes heads that are old and worth it, and seals segments that are
// old.
func (f *flusher) aged() error {
	now := f.l.now()
	for _, p := range f.l.partitions() {
		p.mu.Lock()
		due := len(p.head) > 0 && p.headBytes >= ageFlushBytes && now-p.head[0].time >= flushAge.Milliseconds()
		old := p.open != nil && p.open.stats.batches > 0 && p.open.tooOld(now)
		p.mu.Unlock()
		if due || old {
			if err := f.partition(p); err != nil {
				return err
			}
		}
		if old {
			if err := f.w.sealOld(p, now); err != nil {
				f.w.reset()
				return err
			}
		}
	}
	return nil
}

// sync brings every record of entries up to seq into synced segments, one
// partition at a time, or has it carried into the next entry, and moves the
// tail. A deadline that is not zero ends it
// early.
func (f *flusher) sync(seq uint64, deadline time.Time) error {
	f.mu.Lock()
	urgent := f.urgent
	f.mu.Unlock()
	now := f.l.now()
	for _, p := range f.l.partitions() {
		if !deadline.IsZero() && time.Now().After(deadline) {
			break
		}
		p.mu.Lock()
		pinned := len(p.head) > 0 && p.head[0].seq <= seq
		carry := pinned && !f.ended && p.head[0].seq > urgent && p.mayCarry(now)
		carrying, size := p.carrying, p.headBytes
		p.mu.Unlock()
		if carry && (carrying || f.carry(p, size)) {
			continue
		}
		if pinned {
			if err := f.partition(p); err != nil {
				return err
			}
		}
		p.mu.Lock()
		s := p.open
		unsynced := s != nil && s.pin != 0 && s.pin <= seq
		p.mu.Unlock()
		if unsynced {
			if err := f.w.syncOpen(s); err != nil {
				return err
			}
		}
	}
	f.moveTail()
	return nil
}

// moveTail finds the lowest sequence that segments do not hold yet (J4).
func (f *flusher) moveTail() {
	// Read first: what is published later is of a higher sequence.
	tail := f.committed.Load() + 1
	for _, p := range f.l.partitions() {
		p.mu.Lock()
		if len(p.head) > 0 {
			tail = min(tail, p.head[0].seq)
		}
		if p.open != nil && p.open.pin != 0 {
			tail = min(tail, p.open.pin)
		}
		p.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for seq := range f.pins {
		tail = min(tail, seq)
	}
	if tail > f.tail.Load() {
		f.tail.Store(tail)
	}
	f.moved.Broadcast()
}

// removeTrees unlinks deleted topics.
func (f *flusher) removeTrees() error {
	f.mu.Lock()
	trees := f.trees
	f.trees = nil
	f.mu.Unlock()
	for _, d := range trees {
		err := f.removeTopic(d.t)
		d.done <- err
		f.mu.Lock()
		if f.pins[d.seq]--; f.pins[d.seq] == 0 {
			delete(f.pins, d.seq)
		}
		f.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *flusher) removeTopic(t *topic) error {
	l := f.l
	for _, p := range t.parts {
		p.mu.Lock()
		segs, open := p.segs, p.open
		l.headBytes.Add(-p.headBytes)
		p.segs, p.open, p.head, p.headBytes = nil, nil, nil, 0
		p.dropped = true
		p.mu.Unlock()
		for _, s := range segs {
			l.cache.forget(s)
			l.stat.retired(s.size)
		}
		if open != nil && open.w != nil {
			open.w.Close()
			open.w = nil
		}
	}
	l.removeParts(t)
	dir := l.path(topicsDir, t.name)
	if err := l.removeTree(dir); err != nil {
		return fmt.Errorf("unlink %s: %w", dir, err)
	}
	return l.fs.SyncDir(l.path(topicsDir))
}

// last flushes what it can before the deadline, at Close. The goroutine has
// ended.
func (f *flusher) last(deadline time.Time) {
	f.ended = true
	err := f.removeTrees()
	if err == nil {
		err = f.sync(f.committed.Load(), deadline)
	}
	if err != nil && !isFull(err) {
		f.l.fail(err)
	}
}
