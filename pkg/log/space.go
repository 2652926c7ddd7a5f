package log

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"syscall"

	"edgehub/pkg/log/record"
)

// What is kept free on the file system (P8). KeepFree is the high-water mark:
// with less free than that, the oldest segments go, of topics of low priority
// first. Where nothing is left to go, the log takes records until less than
// the floor is free, or a write fails, and refuses then.
const (
	keepShare = 20       // 1/20 of the file system,
	keepLeast = 32 << 20 // at least,
	keepMost  = 1 << 30  // at most,
	keepBound = 8        // and never more than 1/8 of the file system

	floorMost   = 32 << 20 // a quarter of KeepFree, at most
	ballastMost = 8 << 20  // 1/64 of the file system, at most

	ballastFile = "ballast"
)

// space watches the file system. The flusher owns it, but for the atomics.
//
// The ballast is a file of zeros. It goes when a write finds the disk full and
// nothing can be evicted at once, so that what is in memory and what the
// ledger says can still be written; it comes back when there is room.
type space struct {
	l       *Log
	total   int64
	mark    int64
	floor   int64
	ballast int64 // size that is wanted; 0: none

	low      bool                 // less than the floor is free, and nothing can go
	looked   uint64               // bytes written to segments when last looked
	evicting map[*Partition]int64 // log starts on their way, whose files are still there

	blocked atomic.Bool // a write found the disk full; no flush has passed since
	held    atomic.Bool // the ballast is there
	free    atomic.Int64
	refusal atomic.Pointer[error] // nil: records are taken
}

// isFull says that a write failed for want of space: nothing is wrong with the
// device.
func isFull(err error) bool {
	var s *syncError
	return !errors.As(err, &s) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// syncError is a failed sync. Whatever its cause, the state of the bytes is
// unknown: it poisons the log, also where the cause is a full disk.
type syncError struct{ err error }

func (e *syncError) Error() string { return e.err.Error() }
func (e *syncError) Unwrap() error { return e.err }

func syncFailed(err error) error {
	if err == nil {
		return nil
	}
	return &syncError{err}
}

// init measures the file system. An unknown size means that only failed writes
// tell.
func (s *space) init(l *Log) {
	s.l, s.evicting = l, map[*Partition]int64{}
	free, total, err := l.fs.Space(l.opt.Dir)
	if err != nil || total <= 0 {
		return
	}
	s.free.Store(free)
	s.total = total
	s.mark = l.opt.KeepFree
	if s.mark == 0 {
		s.mark = min(max(total/keepShare, keepLeast), keepMost)
	}
	s.mark = min(s.mark, total/keepBound)
	s.floor = min(s.mark/4, floorMost)
	s.ballast = min(total/64, ballastMost) &^ (minBlock - 1)
	if n := l.opt.ballastBytes; n != 0 {
		s.ballast = max(n, 0)
	}
	if e, err := l.fs.Stat(l.path(ballastFile)); err == nil {
		s.held.Store(true)
		if free < s.floor || e.Size < s.ballast {
			s.dropBallast() // recovery may need it
		}
	}
}

// segLimit bounds segments on a small file system, so that there are some to
// evict.
func (s *space) segLimit() int64 {
	if s.total == 0 {
		return maxSegment
	}
	return max(s.total/64, minSegment)
}

// refused is the error with which records are refused now, or nil.
func (l *Log) refused() error {
	if e := l.space.refusal.Load(); e != nil {
		l.stat.refused.Add(1)
		return *e
	}
	return nil
}

// look compares what is free with the marks. It evicts if that is needed, and
// refuses if it does not help.
func (s *space) look() {
	free, _, err := s.l.fs.Space(s.l.opt.Dir)
	if err != nil || s.total == 0 {
		return
	}
	s.free.Store(free)
	s.looked = s.l.stat.segmentWritten.Load()
	going := s.going()
	if free < s.mark && !going {
		going = s.evict(s.mark+s.mark/4-free) > 0
	}
	floor := s.floor
	if s.low {
		floor += floor / 2
	}
	if !s.held.Load() {
		floor += s.ballast // what its going has freed is not for new records
	}
	s.low = free < floor && !going
	s.judge()
	if !s.held.Load() && s.ballast > 0 && !s.blocked.Load() && free > s.mark+2*s.ballast {
		s.makeBallast()
	}
}

// lookSoon looks if much has been written since the last time.
func (s *space) lookSoon() {
	if s.total > 0 && s.l.stat.segmentWritten.Load()-s.looked > uint64(s.mark/8) {
		s.look()
	}
}

// full is told that a write found the disk full. It returns true if it is
// worth to try again at once.
func (s *space) full() (again bool) {
	s.blocked.Store(true)
	if free, _, err := s.l.fs.Space(s.l.opt.Dir); err == nil {
		s.free.Store(free)
	}
	if !s.going() && s.evict(max(s.mark+s.mark/4-s.free.Load(), maxSegment)) > 0 {
		return false // as soon as the files are gone
	}
	// Nothing can go, or what goes waits for a commit that waits for a flush.
	s.refuse()
	return s.dropBallast()
}

// passed is told that the flusher has written all that was due.
func (s *space) passed() {
	if s.blocked.CompareAndSwap(true, false) {
		s.look()
		s.judge()
	}
}

// judge begins or ends the refusal.
func (s *space) judge() {
	switch old := s.refusal.Load(); {
	case s.low || s.blocked.Load() && old != nil:
		s.refuse()
	case old != nil:
		s.refusal.Store(nil)
		s.l.log.Info("the disk has room again; records are taken", "dir", s.l.opt.Dir, "free", s.free.Load())
	}
}

func (s *space) refuse() {
	if s.refusal.Load() != nil {
		return
	}
	err := fmt.Errorf("%w: disk full: %d bytes free of %d, and no segment can go: free some space, or keep less",
		record.ErrStorage, s.free.Load(), s.total)
	s.refusal.Store(&err)
	s.l.log.Error("the disk is full: records are refused until there is room", "dir", s.l.opt.Dir,
		"free", s.free.Load(), "floor", s.floor)
	s.l.wakePending()
}

// going says that evicted files are still to be unlinked.
func (s *space) going() bool {
	for p, to := range s.evicting {
		p.mu.Lock()
		done := p.gone || len(p.segs) == 0 || p.segs[0].stats.next > to
		p.mu.Unlock()
		if done {
			delete(s.evicting, p)
		}
	}
	return len(s.evicting) > 0
}

// evictOrder is which topics go first.
var evictOrder = [...]record.Priority{record.PriorityLow, record.PriorityNormal, record.PriorityHigh}

// evict moves log starts so that at least need bytes of sealed segments go, if
// there are as many: the oldest of topics of the lowest priority first, those
// of internal topics never. Log starts and ledger entries are one journal
// entry; the files go once it is durable (J7). It returns the bytes that will
// be freed.
func (s *space) evict(need int64) (freed int64) {
	l := s.l
	type victim struct {
		p    *Partition
		key  int64 // ingest, never less than that of an older segment of p
		next int64
		size int64
		n    int64
	}
	type range_ struct{ to, count, bytes int64 }
	for _, prio := range evictOrder {
		var list []victim
		for _, p := range l.partitions() {
			if p.topic.internal || p.topic.cfg.Load().Priority != prio {
				continue
			}
			p.mu.Lock()
			start, key := max(p.start, p.startAsked), int64(0)
			for _, sg := range p.segs {
				if !sg.sealed || p.gone {
					break
				}
				if sg.stats.next <= start {
					continue
				}
				key = max(key, sg.stats.lastIngest)
				list = append(list, victim{p, key, sg.stats.next, sg.size, min(sg.stats.records, sg.stats.next-max(start, sg.base()))})
			}
			p.mu.Unlock()
		}
		slices.SortStableFunc(list, func(a, b victim) int { return cmp.Compare(a.key, b.key) })
		var parts []*Partition
		moves := map[*Partition]*range_{}
		for _, v := range list {
			if freed >= need {
				break
			}
			m := moves[v.p]
			if m == nil {
				m = &range_{}
				moves[v.p] = m
				parts = append(parts, v.p)
			}
			m.to, m.count, m.bytes = v.next, m.count+v.n, m.bytes+v.size
			freed += v.size
		}
		for _, p := range parts {
			m := moves[p]
			if err := p.evictTo(m.to, m.count, m.bytes); err != nil {
				return freed // closing, or failed
			}
			s.evicting[p] = m.to
		}
		if freed >= need {
			break
		}
	}
	return freed
}

// evictTo moves the log start for want of space, and enters it in the ledger.
func (p *Partition) evictTo(to, count, bytes int64) error {
	p.mu.Lock()
	from := max(p.start, p.startAsked)
	p.startAsked = max(p.startAsked, to)
	p.mu.Unlock()
	l := p.log
	e := p.ledgerEntry(from, to, count, bytes, LedgerDiskFull, "")
	_, err := l.enterLedger(&e, appendLogStart(nil, p.topic.id, p.index, to), func(uint64) { p.startMoved(to) })
	if err != nil {
		return err
	}
	l.hurry()
	l.stat.evicted(count, bytes)
	l.log.Warn("the disk is full: the oldest records make room", "topic", p.topic.name, "partition", p.index,
		"from", from, "to", to, "records", count, "bytes", bytes)
	return nil
}

// makeBallast writes the ballast.
func (s *space) makeBallast() {
	l := s.l
	name := l.path(ballastFile)
	if err := l.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	f, err := l.fs.Create(name)
	if err != nil {
		return
	}
	buf := make([]byte, min(s.ballast, 256<<10))
	for pos := int64(0); pos < s.ballast && err == nil; pos += int64(len(buf)) {
		_, err = f.WriteAt(buf[:min(int64(len(buf)), s.ballast-pos)], pos)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	s.held.Store(true)
	if err != nil {
		l.log.Warn("no ballast for a full disk", "file", name, "err", err)
		s.dropBallast()
	}
}

// dropBallast gives the ballast's space away; false if there was none.
func (s *space) dropBallast() bool {
	if !s.held.CompareAndSwap(true, false) {
		return false
	}
	if err := s.l.fs.Remove(s.l.path(ballastFile)); err != nil {
		s.l.log.Warn("the ballast stays", "err", err)
		return false
	}
	return true
}
