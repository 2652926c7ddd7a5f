package core

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"edgehub/pkg/log/record"
)

// readAhead is how many bytes of frames one read of a stream asks for.
const readAhead = 1 << 20

// bounds is a consistent look at a partition that serves.
type bounds struct {
	logStart, high int64
	first, last    uint64
	epoch          int32
	maxTime        int64
}

func (p *partition) bounds() (bounds, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bounds{p.logStart, p.high, p.firstSeq, p.lastSeq, p.epoch, p.maxTime}, p.ready()
}

// fetch appends whole batches from the one that holds offset to dst, up to
// maxBytes but at least one, all below the high watermark.
func (c *Core) fetch(ctx context.Context, p *partition, offset int64, maxBytes int, dst []byte) (record.Fetched, error) {
	b, err := p.bounds()
	out := record.Fetched{Batches: dst, HighWatermark: b.high, LogStart: b.logStart, LeaderEpoch: b.epoch}
	switch {
	case err != nil:
		return record.Fetched{}, err
	case offset < b.logStart || offset > b.high:
		return out, fmt.Errorf("%w: %d of %s, which has [%d, %d)", record.ErrOffsetOutOfRange, offset, p, b.logStart, b.high)
	case offset == b.high:
		return out, nil
	}
	seq, err := c.seek(ctx, p, b, func(e indexEntry) bool { return e.base > offset })
	if err != nil {
		return out, c.outrun(p, offset, err)
	}
	start := len(dst)
	due := int64(-1)
	for seq <= b.last && due < b.high && (len(dst) == start || len(dst)-start < maxBytes) {
		frames, err := c.frames(ctx, p, seq, b.last, min(max(maxBytes-(len(dst)-start), 1), readAhead))
		if err != nil {
			if len(dst) > start && !sickness(err) {
				break // what there is, is good
			}
			return out, c.outrun(p, offset, err)
		}
		for _, f := range frames {
			seq++
			if f == nil || f.Count == 0 {
				continue
			}
			if due < 0 && (offset < f.Base || offset >= f.next()) || due >= 0 && f.Base != due {
				return out, c.suspect(p, fmt.Errorf("%w: frame [%d, %d) at sequence %d where offset %d was due",
					errChain, f.Base, f.next(), seq-1, max(due, offset)))
			}
			due = f.next()
			full := false
			if _, err := record.Batches(f.Batches, func(h record.Header, raw []byte) error {
				if h.NextOffset() <= offset || full {
					return nil
				}
				if len(dst) > start && len(dst)-start+len(raw) > maxBytes {
					full = true
					return nil
				}
				dst = append(dst, raw...)
				return nil
			}); err != nil {
				return out, c.suspect(p, err)
			}
			if full {
				out.Batches = dst
				return out, nil
			}
		}
	}
	out.Batches = dst
	return out, nil
}

// outrun turns an error of a read that retention overtook into what it is.
func (c *Core) outrun(p *partition, offset int64, err error) error {
	if b, berr := p.bounds(); berr != nil {
		return berr
	} else if offset < b.logStart {
		return fmt.Errorf("%w: %d of %s, which begins at %d now", record.ErrOffsetOutOfRange, offset, p, b.logStart)
	}
	if errors.Is(err, errNoMessage) {
		err = fmt.Errorf("%w: %w", errChain, err)
	}
	if sickness(err) {
		return c.suspect(p, err)
	}
	return fmt.Errorf("%w: %s: %w", record.ErrUnavailable, p, err)
}

// suspect reports frames that do not add up to the partition's leader, which
// quarantines it (C4).
func (c *Core) suspect(p *partition, err error) error {
	c.stats.quarantines.Add(1)
	c.log.Error("partition quarantined: a read found frames that do not add up", "partition", p.String(), "error", err)
	p.mu.Lock()
	p.sick = err
	p.nextStart = c.now() + 60_000
	stop := p.stop
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
	c.stepDown(p.stream)
	return fmt.Errorf("%w: %s: %w", record.ErrStorage, p, err)
}

// frames reads frames from seq on, at most up to last, about maxBytes, at
// least one. A void frame is nil in the result. Those in the cache cost no
// request.
func (c *Core) frames(ctx context.Context, p *partition, seq, last uint64, maxBytes int) ([]*frame, error) {
	var out []*frame
	size := 0
	for s := seq; s <= last && size < maxBytes; s++ {
		f := c.cache.get(p.stream, s)
		if f == nil {
			break
		}
		out = append(out, f)
		size += len(f.Batches)
	}
	if len(out) > 0 {
		return out, nil
	}
	got, err := c.load(ctx, p, seq, last, maxBytes)
	if err != nil {
		return nil, err
	}
	for i, f := range got {
		at := seq + uint64(i)
		if f.Prev+1 != at {
			f = nil // void (C1)
		} else {
			p.note(at, &f.frameHeader)
			c.cache.put(p.stream, at, f)
		}
		out = append(out, f)
	}
	return out, nil
}

// load reads and verifies frames from seq on, void ones included. Any replica
// may answer; what it has damaged or lacks is asked of the leader, and only
// if that is no better it is an error: errFrame, errNoMessage.
func (c *Core) load(ctx context.Context, p *partition, seq, last uint64, maxBytes int) ([]*frame, error) {
	got, err := c.js.run(ctx, p.stream, seq, last, maxBytes)
	if err != nil {
		return nil, err
	}
	out := make([]*frame, 0, len(got))
	for _, m := range got {
		f, err := decodeFrame(m.header, m.data)
		if err != nil {
			c.stats.damaged.Add(1)
			c.log.Error("a replica answered with a damaged frame, asking the leader", "partition", p.String(), "sequence", m.seq, "error", err)
			if m, err = c.js.get(ctx, p.stream, m.seq, ""); err != nil {
				return nil, err
			}
			if f, err = decodeFrame(m.header, m.data); err != nil {
				return nil, fmt.Errorf("sequence %d: %w", m.seq, err)
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// note adds what a read has learnt to the index, sparsely.
func (p *partition) note(seq uint64, h *frameHeader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.serving && seq > p.firstSeq && seq < p.lastSeq {
		p.insert(indexEntry{seq: seq, base: h.Base, next: h.next(), maxTime: h.MaxTime})
	}
}

// seek is the last sequence, of a frame that counts, before the first one
// for which beyond is true; beyond is monotone over sequences and false for
// the first live frame.
func (c *Core) seek(ctx context.Context, p *partition, b bounds, beyond func(indexEntry) bool) (uint64, error) {
	p.mu.Lock()
	i := sort.Search(len(p.index), func(i int) bool { return beyond(p.index[i]) })
	if i == 0 {
		p.mu.Unlock()
		return 0, fmt.Errorf("%w: nothing is known at the beginning of %s", errNoMessage, p)
	}
	found, hi := p.index[i-1].seq, b.last+1
	if i < len(p.index) {
		hi = p.index[i].seq
	}
	p.mu.Unlock()
	// All up to floor are not beyond, or void; hi is beyond, or behind the last.
	for floor := found; hi-floor > 1; {
		mid := floor + (hi-floor)/2
		at := mid
		var f *frame
		for ; at > floor; at-- {
			got, err := c.frames(ctx, p, at, at, 1)
			if err != nil {
				return 0, err
			}
			if f = got[0]; f != nil {
				break
			}
		}
		switch {
		case f == nil:
			floor = mid
		case beyond(entryOf(at, &f.frameHeader)):
			hi = at
		default:
			found, floor = at, mid
		}
	}
	return found, nil
}

func entryOf(seq uint64, h *frameHeader) indexEntry {
	return indexEntry{seq: seq, base: h.Base, next: h.next(), maxTime: h.MaxTime}
}

// offsetForTime is the first record whose time is ts or later. The running
// maximum finds the frame in which it lies; where retention took the record
// that made the maximum, reading goes on from there.
func (c *Core) offsetForTime(ctx context.Context, p *partition, ts int64) (record.OffsetTime, error) {
	none := record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: -1}
	b, err := p.bounds()
	if err != nil {
		return none, err
	}
	none.LeaderEpoch = b.epoch
	if b.high == b.logStart || b.maxTime < ts {
		return none, nil
	}
	seq, err := c.seek(ctx, p, b, func(e indexEntry) bool { return e.maxTime >= ts && e.seq > b.first })
	if err != nil {
		return none, c.outrun(p, b.logStart, err)
	}
	for seq <= b.last {
		frames, err := c.frames(ctx, p, seq, b.last, readAhead)
		if err != nil {
			return none, c.outrun(p, b.logStart, err)
		}
		seq += uint64(len(frames))
		for _, f := range frames {
			if f == nil || f.Count == 0 || f.MaxTime < ts {
				continue
			}
			at, err := firstAtTime(f.Batches, ts)
			if err != nil {
				return none, c.suspect(p, err)
			}
			if at.Offset >= 0 {
				at.LeaderEpoch = b.epoch
				return at, nil
			}
		}
	}
	return none, nil
}

// errStop ends a walk early.
var errStop = errors.New("stop")

// firstAtTime is the first record of batches whose time is ts or later;
// offset -1 if there is none. A batch that cannot be decompressed is answered
// with its first offset: its producer made it so.
func firstAtTime(batches []byte, ts int64) (record.OffsetTime, error) {
	at := record.OffsetTime{Offset: -1, Timestamp: -1}
	_, err := record.Batches(batches, func(h record.Header, raw []byte) error {
		if h.MaxTimestamp < ts {
			return nil
		}
		err := record.Records(raw, func(r *record.Record) error {
			if r.Timestamp >= ts {
				at.Offset, at.Timestamp = r.Offset, r.Timestamp
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			at.Offset, at.Timestamp = h.BaseOffset, h.MaxTimestamp
			return errStop
		}
		return err
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return at, err
}

// maxTimestamp is the first record with the partition's latest time.
func (c *Core) maxTimestamp(ctx context.Context, p *partition) (record.OffsetTime, error) {
	b, err := p.bounds()
	if err != nil {
		return record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: -1}, err
	}
	return c.offsetForTime(ctx, p, b.maxTime)
}
