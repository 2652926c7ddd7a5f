package log

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"edgehub/pkg/log/record"
)

const readWindow = 128 << 10 // bytes read from a segment at once, at least

// windows keeps the buffers of segment readers.
var windows = sync.Pool{New: func() any { return new([]byte) }}

// view is what a reader sees of a partition at one moment. Chunks and sealed
// segments never change; of the open segment the view has the written part.
type view struct {
	start, hw int64
	segs      []*segment
	head      []chunk
	open      *segment
	openEnd   int64 // position behind the open segment's last batch
	openNext  int64
}

func (p *Partition) view() (view, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return view{}, p.errGone()
	}
	v := view{start: p.start, hw: p.hw, segs: p.segs, head: p.head, open: p.open}
	if p.open != nil {
		v.openEnd, v.openNext = p.open.stats.end, p.open.stats.next
	}
	return v, nil
}

// Offsets is the range that can be read, and the epoch in which the log writes.
func (p *Partition) Offsets() record.Offsets {
	p.mu.Lock()
	defer p.mu.Unlock()
	return record.Offsets{LogStart: p.start, HighWatermark: p.hw, LeaderEpoch: p.log.epoch}
}

// Fetch appends to dst whole batches from the one that holds offset on: as many
// as maxBytes allow, but at least one if there is any. At the high watermark
// there are none. Where offset lies in a hole, the first batch is the one
// behind it. Only durable records are returned. The caller owns the bytes.
//
// Errors: ErrOffsetOutOfRange outside [LogStart, HighWatermark], with both set
// in the answer; ErrUnknownTopic; errors of reading.
func (p *Partition) Fetch(offset int64, maxBytes int, dst []byte) (record.Fetched, error) {
	for {
		v, err := p.view()
		if err != nil {
			return record.Fetched{Batches: dst}, err
		}
		f := record.Fetched{Batches: dst, HighWatermark: v.hw, LogStart: v.start, LeaderEpoch: p.log.epoch}
		if offset < v.start || offset > v.hw {
			return f, fmt.Errorf("%w: %s: asked %d, have %d to %d", record.ErrOffsetOutOfRange, p, offset, v.start, v.hw)
		}
		f.Batches, err = p.fetch(&v, offset, maxBytes, dst)
		if errors.Is(err, errGone) {
			continue // retention took it: the log start has moved
		}
		return f, err
	}
}

// fetch reads segments first, then the head.
func (p *Partition) fetch(v *view, offset int64, maxBytes int, dst []byte) ([]byte, error) {
	have := len(dst)
	i := sort.Search(len(v.segs), func(i int) bool { return v.next(i) > offset })
	for ; i < len(v.segs); i++ {
		err := p.walkSegment(v, i, offset, func(h *record.Header, raw []byte) bool {
			if h.NextOffset() <= offset {
				return true
			}
			if len(dst) > have && len(dst)+len(raw) > have+maxBytes {
				return false
			}
			dst = append(dst, raw...)
			return len(dst) < have+maxBytes
		})
		if err != nil && !errors.Is(err, errStop) {
			if len(dst) > have {
				return dst, nil // the next fetch meets it
			}
			return dst, err
		}
		if err != nil || len(dst) >= have+maxBytes {
			return dst, nil
		}
		offset = max(offset, v.next(i))
	}
	k := sort.Search(len(v.head), func(k int) bool { return v.head[k].next > offset })
	for ; k < len(v.head); k++ {
		_, err := record.Batches(v.head[k].data, func(h record.Header, raw []byte) error {
			if h.NextOffset() <= offset {
				return nil
			}
			if len(dst) > have && len(dst)+len(raw) > have+maxBytes {
				return errStop
			}
			dst = append(dst, raw...)
			return nil
		})
		if errors.Is(err, errStop) || len(dst) >= have+maxBytes {
			break
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

var errStop = errors.New("enough")

// next is the offset behind segment i. The flusher may add to the open one, so
// the view's number counts for it.
func (v *view) next(i int) int64 {
	if v.segs[i] == v.open {
		return v.openNext
	}
	return v.segs[i].stats.next
}

// walkSegment calls f with the batches of segment i from the index entry before
// offset on; f's false ends it with errStop. A batch that fails its check is
// quarantined, and reading goes on behind it (J8).
func (p *Partition) walkSegment(v *view, i int, offset int64, f func(h *record.Header, raw []byte) bool) error {
	s := v.segs[i]
	open := s == v.open
	file, index, err := p.log.cache.acquire(s, !open)
	if err != nil {
		return err
	}
	defer p.log.cache.release(s)
	next, end := v.openNext, v.openEnd
	var from indexEntry
	var ok bool
	p.mu.Lock()
	if open {
		from, ok = lookupOffset(s.index, offset)
		if s.sealed { // since the view was taken
			from, ok = indexEntry{offset: s.base(), pos: segHeader}, true
		}
	} else {
		next, end = s.stats.next, s.stats.end
	}
	p.mu.Unlock()
	if !open {
		from, ok = lookupOffset(index, offset)
	}
	if !ok {
		from = indexEntry{offset: s.base(), pos: segHeader}
	}
	buf := windows.Get().(*[]byte)
	defer windows.Put(buf)
	w := walker{r: file, pos: from.pos, end: end, expected: from.offset, window: readWindow, buf: (*buf)[:0]}
	defer func() { *buf = w.buf[:0] }()
	for w.expected < next {
		_, h, raw, err := w.next()
		if err == nil {
			if !f(&h, raw) {
				return errStop
			}
			continue
		}
		lost := hole{w.expected, next - 1}
		switch {
		case errors.Is(err, errBadBatch):
			l, rerr := w.resync(next)
			if rerr == nil {
				lost = l
			} else if !errors.Is(rerr, io.EOF) {
				return fmt.Errorf("read %s: %w", s.path, rerr)
			} else {
				w.expected = next
			}
		case errors.Is(err, io.EOF):
			w.expected = next
		default:
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		p.quarantine(lost, s.path, "batch fails its check")
	}
	return nil
}

// quarantine remembers a range that is lost, once.
func (p *Partition) quarantine(h hole, file, reason string) {
	if h.last < h.first {
		return
	}
	p.mu.Lock()
	known := slices.ContainsFunc(p.damages, func(o hole) bool { return o.first <= h.first && h.last <= o.last })
	if !known {
		p.damages = append(p.damages, h)
	}
	p.mu.Unlock()
	if known {
		return
	}
	p.log.stat.quarantined(Damage{Topic: p.topic.name, Partition: p.index, First: h.first, Last: h.last, File: file, Reason: reason})
	p.log.log.Error("records are lost", "topic", p.topic.name, "partition", p.index,
		"first", h.first, "last", h.last, "file", file, "reason", reason)
	p.enterLost(h, file, reason)
}

// OffsetForTime finds the first offset, not below the log start, whose record
// has timestamp ts (ms since 1970) or a later one. Offset -1: there is none.
func (p *Partition) OffsetForTime(ts int64) (record.OffsetTime, error) {
	none := record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: -1}
	return p.search(none, func(maxTS int64) bool { return maxTS >= ts }, func(r *record.Record) bool { return r.Timestamp >= ts })
}

// MaxTimestamp finds the first record of the largest timestamp. Offset -1: the
// partition is empty.
func (p *Partition) MaxTimestamp() (record.OffsetTime, error) {
	none := record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: -1}
	best := int64(minTime)
	v, err := p.view()
	if err != nil {
		return none, err
	}
	p.mu.Lock()
	for _, s := range v.segs {
		if s.stats.batches > 0 && s.stats.next > v.start {
			best = max(best, s.stats.maxTS)
		}
	}
	p.mu.Unlock()
	for i := range v.head {
		best = max(best, v.head[i].maxTS)
	}
	// The largest may be of a record below the log start, or be claimed by a
	// header alone: then look at every record.
	at, err := p.OffsetForTime(best)
	if err != nil || at.Offset >= 0 || v.start == v.hw {
		return at, err
	}
	out := none
	for next := v.start; ; {
		var found *record.OffsetTime
		found, next, err = p.maxFrom(next)
		if err != nil {
			return none, err
		}
		if found == nil {
			return out, nil
		}
		if out.Offset < 0 || found.Timestamp > out.Timestamp {
			out = *found
		}
	}
}

// maxFrom is the first record of the largest timestamp in the next stretch of
// batches; nil at the end.
func (p *Partition) maxFrom(offset int64) (best *record.OffsetTime, next int64, err error) {
	f, err := p.Fetch(offset, 1<<20, nil)
	if err != nil || len(f.Batches) == 0 {
		return nil, offset, err
	}
	_, err = record.Batches(f.Batches, func(h record.Header, raw []byte) error {
		next = h.NextOffset()
		return record.Records(raw, func(r *record.Record) error {
			if r.Offset >= offset && (best == nil || r.Timestamp > best.Timestamp) {
				best = &record.OffsetTime{Offset: r.Offset, Timestamp: r.Timestamp, LeaderEpoch: h.LeaderEpoch}
			}
			return nil
		})
	})
	if best == nil {
		best = &record.OffsetTime{Offset: -1, Timestamp: minTime, LeaderEpoch: -1}
	}
	return best, next, err
}

// search finds the first record that match accepts, decoding only batches whose
// largest timestamp mayHold accepts.
func (p *Partition) search(none record.OffsetTime, mayHold func(maxTS int64) bool, match func(r *record.Record) bool) (record.OffsetTime, error) {
	for {
		v, err := p.view()
		if err != nil {
			return none, err
		}
		out, err := p.searchView(&v, none, mayHold, match)
		if !errors.Is(err, errGone) {
			return out, err
		}
	}
}

func (p *Partition) searchView(v *view, none record.OffsetTime, mayHold func(int64) bool, match func(*record.Record) bool) (record.OffsetTime, error) {
	out := none
	look := func(h *record.Header, raw []byte) (bool, error) {
		if h.NextOffset() <= v.start || !mayHold(h.MaxTimestamp) {
			return false, nil
		}
		err := record.Records(raw, func(r *record.Record) error {
			if r.Offset >= v.start && match(r) {
				out = record.OffsetTime{Offset: r.Offset, Timestamp: r.Timestamp, LeaderEpoch: h.LeaderEpoch}
				return errStop
			}
			return nil
		})
		if errors.Is(err, errStop) {
			return true, nil
		}
		return false, err
	}
	for i, s := range v.segs {
		p.mu.Lock()
		skip := !mayHold(s.stats.maxTS) || s.stats.next <= v.start
		p.mu.Unlock()
		if skip {
			continue
		}
		var inner error
		err := p.walkSegment(v, i, p.indexedFrom(v, i, mayHold), func(h *record.Header, raw []byte) bool {
			found, err := look(h, raw)
			inner = err
			return !found && err == nil
		})
		if inner != nil {
			return none, inner
		}
		if errors.Is(err, errStop) {
			return out, nil
		}
		if err != nil {
			return none, err
		}
	}
	for i := range v.head {
		if !mayHold(v.head[i].maxTS) {
			continue
		}
		found := false
		_, err := record.Batches(v.head[i].data, func(h record.Header, raw []byte) error {
			ok, err := look(&h, raw)
			if found = ok; ok {
				return errStop
			}
			return err
		})
		if found {
			return out, nil
		}
		if err != nil {
			return none, err
		}
	}
	return none, nil
}

// indexedFrom is the first offset of segment i that may be accepted, as far as
// its index tells.
func (p *Partition) indexedFrom(v *view, i int, mayHold func(int64) bool) int64 {
	s := v.segs[i]
	_, index, err := p.log.cache.acquire(s, s != v.open)
	if err != nil {
		return v.start
	}
	defer p.log.cache.release(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == v.open {
		index = s.index
	}
	for _, e := range index {
		if mayHold(e.maxTS) {
			return max(e.offset, v.start)
		}
	}
	return v.start
}

// EpochEnd answers OffsetForLeaderEpoch (KIP-101): the largest epoch that is not
// above the asked one and where it ended: the first offset of the next epoch, or
// the high watermark. An epoch that the log has not reached: -1, -1.
func (p *Partition) EpochEnd(epoch int32) (leaderEpoch int32, endOffset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch > p.log.epoch || epoch < 0 {
		return -1, -1
	}
	i := sort.Search(len(p.epochs), func(i int) bool { return p.epochs[i].epoch > epoch })
	end := p.hw
	if i < len(p.epochs) {
		end = p.epochs[i].first
	}
	if i > 0 {
		return p.epochs[i-1].epoch, end
	}
	return epoch, max(end, p.start)
}

// addEpoch says that the partition's offsets from first on are of an epoch.
// Epochs without records give way to the next. p.mu is held.
func (p *Partition) addEpoch(epoch int32, first int64) {
	for n := len(p.epochs); n > 0 && p.epochs[n-1].first >= first; n-- {
		p.epochs = p.epochs[:n-1]
	}
	p.epochs = append(p.epochs, epochFrom{epoch, first})
}

// Watch sends to wake, without waiting, whenever the high watermark or the log
// start moves, or the topic is deleted. stop ends it; it may be called again.
func (p *Partition) Watch(wake chan<- struct{}) (stop func()) {
	p.mu.Lock()
	p.watchers = append(p.watchers, wake)
	p.mu.Unlock()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if i := slices.Index(p.watchers, wake); i >= 0 {
			p.watchers = slices.Delete(p.watchers, i, i+1)
		}
	})
}
