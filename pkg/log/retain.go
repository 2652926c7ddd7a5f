package log

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"edgehub/pkg/log/record"
)

// retain finds what retention lets go and moves log starts accordingly; the
// files go once that is durable (J7). Nothing is deleted by a record's
// timestamp: only by size, and by the hybrid time of ingest. It goes by whole
// sealed segments. The flusher calls it; look is true about once a second.
func (l *Log) retain(look bool) error {
	if look {
		l.topicsMu.RLock()
		topics := make([]*topic, 0, len(l.topics))
		for _, t := range l.topics {
			topics = append(topics, t)
		}
		l.topicsMu.RUnlock()
		now := l.now()
		for _, t := range topics {
			l.retainTopic(t, now)
		}
	}
	for _, p := range l.partitions() {
		if err := l.unlinkBelow(p); err != nil {
			return err
		}
	}
	return nil
}

// retainTopic moves the log starts of a topic's partitions.
func (l *Log) retainTopic(t *topic, now int64) {
	cfg := t.cfg.Load()
	type old struct {
		s    *segment
		next int64
		last int64
		size int64
	}
	var list []old
	total := int64(0)
	for _, p := range t.parts {
		keep := int64(math.MaxInt64)
		if cfg.RetainUntil != "" {
			keep = l.offsets.position(cfg.RetainUntil, record.TopicPartition{Topic: t.name, Partition: p.index})
		}
		p.mu.Lock()
		start := max(p.start, p.startAsked)
		for _, s := range p.segs {
			if s.stats.next <= start {
				continue // on its way out
			}
			total += s.size
			if s.sealed && s.stats.next <= keep {
				list = append(list, old{s, s.stats.next, s.stats.lastIngest, s.size})
			} else {
				keep = -1 // only a run of oldest ones may go
			}
		}
		p.mu.Unlock()
	}
	slices.SortStableFunc(list, func(a, b old) int {
		if a.s.p == b.s.p {
			return cmp.Compare(a.s.base(), b.s.base())
		}
		return cmp.Compare(a.last, b.last)
	})
	move := map[*Partition]int64{}
	for _, o := range list {
		tooMuch := cfg.RetentionBytes > 0 && total > cfg.RetentionBytes
		tooOld := cfg.RetentionTime > 0 && now-o.last > cfg.RetentionTime.Milliseconds()
		if !tooMuch && !tooOld {
			continue
		}
		if m, ok := move[o.s.p]; ok && o.s.base() > m {
			continue // an older one of its partition stays, as its clock was ahead
		}
		move[o.s.p] = o.next
		total -= o.size
	}
	for _, p := range t.parts {
		if start, ok := move[p]; ok {
			if _, err := p.moveStart(start); err != nil {
				return // closing or failed: nothing more to do here
			}
		}
	}
}

// moveStart puts a new log start into the open generation.
func (p *Partition) moveStart(offset int64) (LSN, error) {
	p.mu.Lock()
	p.startAsked = max(p.startAsked, offset)
	p.mu.Unlock()
	return p.log.control(appendLogStart(nil, p.topic.id, p.index, offset), func(uint64) { p.startMoved(offset) })
}

// startMoved is told that a log start is durable.
func (p *Partition) startMoved(offset int64) {
	p.mu.Lock()
	if offset > p.start {
		p.start = offset
		p.wake()
	}
	p.mu.Unlock()
	p.log.flush.wake()
}

// DeleteBefore moves the log start to offset, or leaves it where it is beyond
// that already. It is durable on return; segments wholly below are unlinked
// then.
//
// Errors: ErrOffsetOutOfRange for an offset beyond the high watermark,
// ErrUnknownTopic, ErrStorage, ErrClosed.
func (p *Partition) DeleteBefore(offset int64) error {
	p.mu.Lock()
	start, hw, gone := p.start, p.hw, p.gone
	p.mu.Unlock()
	switch {
	case gone:
		return p.errGone()
	case offset > hw || offset < 0:
		return fmt.Errorf("%w: %s: log start %d, asked %d to %d", record.ErrOffsetOutOfRange, p, start, offset, hw)
	case offset <= start:
		return nil
	}
	lsn, err := p.moveStart(offset)
	if err != nil {
		return err
	}
	p.log.hurry()
	return p.log.Wait(noCtx, lsn)
}

// unlinkBelow removes the sealed segments that lie wholly below the durable log
// start. The flusher calls it.
func (l *Log) unlinkBelow(p *Partition) error {
	p.mu.Lock()
	n := 0
	for n < len(p.segs) && p.segs[n].sealed && p.segs[n].stats.next <= p.start {
		n++
	}
	if n == 0 {
		p.mu.Unlock()
		return nil
	}
	old := p.segs[:n]
	p.segs = slices.Clone(p.segs[n:])
	p.mu.Unlock()
	for _, s := range old {
		l.cache.forget(s)
		if err := l.fs.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unlink %s: %w", s.path, err)
		}
		l.stat.retired(s.size)
	}
	if l.flush.full { // there may be room now
		l.flush.full = false
		l.flush.wake()
	}
	return syncFailed(l.fs.SyncDir(p.dir))
}
