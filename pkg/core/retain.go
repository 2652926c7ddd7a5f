package core

import (
	"context"
	"fmt"
	"time"
)

// retain removes what the topic's retention says, by ingest time and bytes (as
// in Kafka, no less than the bytes stays), never past the last keyframe (C6).
// If more than that would go, a fresh keyframe is stored first, so that an
// idle partition empties, too.
func (l *leader) retain(ctx context.Context) error {
	l.p.mu.Lock()
	cfg := l.p.cfg
	first, last, high, start := l.p.firstSeq, l.p.lastSeq, l.p.high, l.p.logStart
	drop := l.p.bytes - l.p.bytesAt
	before := l.p.bytesAt
	l.p.mu.Unlock()
	if high == start || last == 0 {
		return nil
	}
	var oldest int64 // ingest time below which frames go
	if cfg.RetentionTime > 0 {
		oldest = l.c.now() - cfg.RetentionTime.Milliseconds()
	}
	if cfg.RetentionBytes > 0 {
		drop -= cfg.RetentionBytes / int64(max(cfg.Partitions, 1))
	} else {
		drop = 0
	}
	goes := func(f *frame) bool {
		return f.Time < oldest || f.Bytes-before <= drop
	}
	if seq, err := l.firstStaying(ctx, first, last, goes); err != nil {
		return err
	} else if seq <= first {
		return nil
	} else if seq > l.st.keyframe {
		// Time and Bytes only grow, so it is the whole head that goes.
		if err := l.storeKeyframe(ctx, l.c.now()); err != nil {
			return err
		}
		return l.purge(ctx, min(seq, l.st.keyframe))
	} else {
		return l.purge(ctx, seq)
	}
}

// firstStaying is the first sequence in (first, last+1] whose frame stays;
// goes is monotone over sequences.
func (l *leader) firstStaying(ctx context.Context, first, last uint64, goes func(*frame) bool) (uint64, error) {
	lo, hi := first, last+1 // all below lo go; hi stays
	for lo < hi {
		mid := lo + (hi-lo)/2
		at := mid
		var f *frame
		for ; at >= lo; at-- {
			got, err := l.c.frames(ctx, l.p, at, at, 1)
			if err != nil {
				return 0, err
			}
			if f = got[0]; f != nil {
				break
			}
		}
		if f == nil || goes(f) {
			lo = mid + 1
		} else {
			hi = at
		}
	}
	return lo, nil
}

// purge removes the frames below seq and moves the log start.
func (l *leader) purge(ctx context.Context, seq uint64) error {
	l.p.mu.Lock()
	from := l.p.logStart
	l.p.mu.Unlock()
	// Readers are told before the frames go, so that none is taken by surprise.
	if err := l.findStart(ctx, seq); err != nil {
		return err
	}
	if err := l.c.js.purgeBelow(ctx, l.p.stream, seq); err != nil {
		return fmt.Errorf("purge %s below sequence %d: %w", l.p, seq, err)
	}
	l.p.mu.Lock()
	to := l.p.logStart
	l.p.mu.Unlock()
	l.c.stats.retained.Add(to - from)
	l.log.Info("retention", "from", from, "to", to, "at", time.UnixMilli(l.c.now()).UTC())
	return nil
}
