package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// Bounds of a batch that the uplink makes itself, as those of the log's flush.
const (
	mergeRecords = 512
	mergeBytes   = 256 << 10 // uncompressed, with its header
)

// errChain says that batches do not fit the epochs that the lane knows: the
// hub has begun another one, or is another one.
var errChain = errors.New("a batch does not fit the hub's epochs")

// damagedError is a batch that cannot be sent as it is.
type damagedError struct {
	offset int64
	err    error
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("batch at offset %d of the hub: %v", e.offset, e.err)
}
func (e *damagedError) Unwrap() error { return e.err }

// place is where a lane stands: the next offset, and the epoch (an index in
// the lane's chain) that gave it.
type place struct {
	epoch int
	next  int64
}

// message is one Append to be.
type message struct {
	epoch       int
	first, last int64 // last = first-1: gaps alone
	gaps        []forward.Gap
	batches     [][]byte
	bytes       int // of the batches
	records     int64
}

// cutter turns fetched batches into messages. It is pure: what it makes
// depends on its input alone. It owns its place; U1 and U2 are kept here.
type cutter struct {
	chain []forward.Epoch
	at    place
	codec record.Codec

	split   int
	gaps    []forward.Gap // declared, not yet in a message
	open    *message
	out     []*message
	merging struct {
		h       record.Header // of the first batch
		batches [][]byte
		records int32
		bytes   int
	}
	builder record.Builder
}

func newCutter(chain []forward.Epoch, at place, codec record.Codec) *cutter {
	return &cutter{chain: chain, at: at, codec: codec}
}

// end is the offset behind an epoch.
func (c *cutter) end(epoch int) int64 {
	if epoch+1 < len(c.chain) {
		return c.chain[epoch+1].Start
	}
	return 1<<63 - 1
}

// cut takes what a fetch from c.at.next returned, whole batches in ascending
// order, with the log start that came with it, and returns messages of up to
// target bytes of batches, or of one larger batch. Batches of more than twice
// split bytes are made anew as smaller ones, unless split is 0: for a slow link,
// which would carry them too long in one piece. It changes raw and the messages
// alias it. On an error the cutter is spent; what it returns beside
// it is good.
//
// Errors: errChain, a *damagedError.
func (c *cutter) cut(raw []byte, logStart int64, target, split int) ([]*message, error) {
	c.out, c.split = nil, split
	n, err := record.Batches(raw, func(h record.Header, b []byte) error {
		return c.batch(h, b, logStart, target)
	})
	if err == nil && n == 0 && len(raw) > 0 {
		err = &damagedError{c.at.next, record.ErrShort}
	}
	c.mergeEnd(target) // nothing more to merge with, nothing to wait for
	if err == nil {
		c.retired(logStart)
	}
	c.close()
	if err == nil && len(c.gaps) > 0 {
		c.out = append(c.out, &message{epoch: c.at.epoch, first: c.at.next, last: c.at.next - 1, gaps: c.gaps})
		c.gaps = nil
	}
	var d *damagedError
	if err != nil && !errors.Is(err, errChain) && !errors.As(err, &d) {
		err = &damagedError{c.at.next, err}
	}
	return c.out, err
}

// retired declares the offsets below the log start, if the place lies there.
func (c *cutter) retired(logStart int64) {
	if c.at.next < logStart {
		c.hole(logStart, logStart, forward.GapRetention)
	}
}

func (c *cutter) batch(h record.Header, b []byte, logStart int64, target int) error {
	if h.LastOffset() < c.at.next {
		return nil // the fetch began in the middle of a larger response
	}
	if _, err := record.Check(b); err != nil {
		return &damagedError{h.BaseOffset, err}
	}
	if h.Control() || h.Transactional() {
		return &damagedError{h.BaseOffset, fmt.Errorf("%w: control or transactional batch", record.ErrCorrupt)}
	}
	epoch, err := c.epochOf(h)
	if err != nil {
		return err
	}
	if h.BaseOffset > c.at.next {
		c.mergeEnd(target)
		c.hole(h.BaseOffset, logStart, forward.GapLost)
	}
	whole := h.BaseOffset == c.at.next && h.Count == h.LastOffsetDelta+1
	switch {
	case whole && h.Codec() == record.None && !h.Idempotent() && !h.LogAppendTime() && h.Size() <= mergeBytes:
		c.merge(h, b, epoch, target)
		return nil
	case whole:
		c.mergeEnd(target)
		if h.Codec() == record.None {
			b = c.compressed(b)
		}
		if c.split > 0 && len(b) > 2*c.split && h.Count > 1 {
			return c.rebuild(h, b, epoch, max(1, int(int64(h.Count)*int64(c.split)/int64(len(b)))), target)
		}
		if h.Idempotent() || h.ProducerEpoch != -1 || h.BaseSequence != -1 {
			record.ClearProducer(b)
		}
		c.add(epoch, h.BaseOffset, h.LastOffset(), b, int64(h.Count), target)
		return nil
	}
	c.mergeEnd(target)
	return c.rebuild(h, b, epoch, mergeRecords, target)
}

// epochOf finds the epoch of a batch: the one of its number that gave its
// offsets, not before the place's.
func (c *cutter) epochOf(h record.Header) (int, error) {
	for e := len(c.chain) - 1; e >= c.at.epoch; e-- {
		if c.chain[e].Number == h.LeaderEpoch && c.chain[e].Start <= h.BaseOffset {
			if h.LastOffset() >= c.end(e) {
				break
			}
			return e, nil
		}
	}
	return 0, fmt.Errorf("%w: offsets %d to %d in epoch %d", errChain, h.BaseOffset, h.LastOffset(), h.LeaderEpoch)
}

// hole declares [c.at.next, to) gone and goes behind it: what lies below the
// log start by retention, the rest for the reason given. A gap lies in one
// epoch, so a hole over several is several gaps.
func (c *cutter) hole(to, logStart int64, reason string) {
	c.close()
	for c.at.next < to {
		for c.end(c.at.epoch) <= c.at.next {
			c.at.epoch++
		}
		g := forward.Gap{Epoch: c.chain[c.at.epoch].ID, From: c.at.next, To: min(to, c.end(c.at.epoch)), Reason: reason}
		if g.From < logStart {
			g.To, g.Reason = min(g.To, logStart), forward.GapRetention
		}
		if n := len(c.gaps); n > 0 && c.gaps[n-1].Epoch == g.Epoch && c.gaps[n-1].Reason == g.Reason && c.gaps[n-1].To == g.From {
			c.gaps[n-1].To = g.To
		} else {
			c.gaps = append(c.gaps, g)
		}
		c.at.next = g.To
	}
}

// merge keeps a small uncompressed batch for the batch that its neighbours
// and it become.
func (c *cutter) merge(h record.Header, b []byte, epoch, target int) {
	m := &c.merging
	limit := min(mergeBytes, max(8<<10, 4*target)) // compressed it is about a quarter
	if len(m.batches) > 0 && (epoch != c.at.epoch || m.records+h.Count > mergeRecords || m.bytes+h.Size() > limit) {
		c.mergeEnd(target)
	}
	if len(m.batches) == 0 {
		m.h = h
	}
	m.batches = append(m.batches, b)
	m.records += h.Count
	m.bytes += h.Size()
	c.at = place{epoch, h.NextOffset()}
}

// mergeEnd makes one batch of those kept, if there are any. A batch alone
// that compression does not make smaller stays as it is.
func (c *cutter) mergeEnd(target int) {
	m := &c.merging
	if len(m.batches) == 0 {
		return
	}
	first, last := m.h.BaseOffset, c.at.next-1
	raw := m.batches[0]
	c.builder.Reset()
	err := error(nil)
	for _, b := range m.batches {
		err = record.Records(b, func(r *record.Record) error {
			c.builder.Append(r)
			return nil
		})
		if err != nil {
			break
		}
	}
	// Batches whose records do not decode go as they came: their CRC is good
	// and it is not for us to judge what a producer meant.
	if err != nil || c.builder.Count() != int(m.records) {
		for _, b := range m.batches {
			h, _ := record.PeekHeader(b)
			c.add(c.at.epoch, h.BaseOffset, h.LastOffset(), b, int64(h.Count), target)
		}
	} else {
		built := c.builder.Build(nil, first, m.h.LeaderEpoch, c.codec)
		if len(m.batches) > 1 || len(built) < len(raw) {
			raw = built
		}
		c.add(c.at.epoch, first, last, raw, int64(m.records), target)
	}
	clear(m.batches)
	m.batches, m.records, m.bytes = m.batches[:0], 0, 0
}

// compressed is a batch that came uncompressed as the link should carry it:
// the same records, bit for bit, behind the codec, unless that saves nothing.
func (c *cutter) compressed(b []byte) []byte {
	if c.codec == record.None {
		return b
	}
	out := append(make([]byte, 0, len(b)/2), b[:record.HeaderSize]...)
	out, err := record.Compress(c.codec, out, b[record.HeaderSize:])
	if err != nil || len(out) >= len(b) {
		return b
	}
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	out[22] |= byte(c.codec)  // attributes; no codec so far
	record.ClearProducer(out) // and the checksum
	return out
}

// rebuild makes new batches of the records from c.at.next on: of a batch that
// begins before it, that compaction left with holes, or that is too large for
// the link. They have at most most records.
func (c *cutter) rebuild(h record.Header, b []byte, epoch, most, target int) error {
	c.builder.Reset()
	first := c.at.next
	flush := func() {
		if n := int64(c.builder.Count()); n > 0 {
			c.add(epoch, first, first+n-1, c.builder.Build(nil, first, h.LeaderEpoch, c.codec), n, target)
			c.builder.Reset()
		}
	}
	err := record.Records(b, func(r *record.Record) error {
		next := first + int64(c.builder.Count())
		if r.Offset < next {
			if r.Offset >= first && c.builder.Count() > 0 {
				return fmt.Errorf("%w: offset %d comes twice or out of order", record.ErrCorrupt, r.Offset)
			}
			return nil
		}
		if r.Offset > next || c.builder.Count() >= min(most, mergeRecords) || c.builder.Size() >= mergeBytes {
			flush()
			if r.Offset > next {
				c.at = place{max(epoch, c.at.epoch), next}
				c.hole(r.Offset, 0, forward.GapCompacted)
			}
			first = r.Offset
		}
		c.builder.Append(r)
		return nil
	})
	if err != nil {
		return &damagedError{h.BaseOffset, err}
	}
	flush()
	if c.at.next < h.NextOffset() { // the last records are gone
		c.at.epoch = max(epoch, c.at.epoch)
		c.hole(h.NextOffset(), 0, forward.GapCompacted)
	}
	return nil
}

// add puts a batch into the open message, or into a new one if it is of
// another epoch, lies behind a gap, or would make the message too large.
func (c *cutter) add(epoch int, first, last int64, b []byte, records int64, target int) {
	if m := c.open; m != nil && (m.epoch != epoch || len(c.gaps) > 0 || m.bytes+len(b) > target) {
		c.close()
	}
	if c.open == nil {
		c.open = &message{epoch: epoch, first: first, gaps: c.gaps}
		c.gaps = nil
	}
	m := c.open
	m.batches = append(m.batches, b)
	m.bytes += len(b)
	m.records += records
	m.last = last
	c.at = place{epoch, last + 1}
}

func (c *cutter) close() {
	if c.open != nil {
		c.out = append(c.out, c.open)
		c.open = nil
	}
}
