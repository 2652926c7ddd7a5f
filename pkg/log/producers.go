package log

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"edgehub/pkg/log/record"
)

const (
	// producerWindow is how many batches of a producer are remembered, as in
	// Kafka (ProducerStateEntry.NUM_BATCHES_TO_RETAIN).
	producerWindow = 5
	// producerExpiry is how long a producer is remembered after its last batch
	// (producer.id.expiration.ms).
	producerExpiry = 24 * time.Hour
	// maxProducers bounds the producers of a partition; the one that has been
	// quiet the longest goes.
	maxProducers = 1000
)

// producer is the state of one idempotent producer in a partition.
type producer struct {
	id    int64
	epoch int16
	last  int64 // hybrid ms of its last batch
	n     int   // batches in window
	// window holds its last batches, oldest first.
	window [producerWindow]producedBatch
}

type producedBatch struct {
	first, last int32 // sequence numbers
	base        int64 // offset
}

// encode appends p: id i64, epoch i16, last uvarint, count u8, and of each
// batch first and last sequence i32 and base offset uvarint.
func (p *producer) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.id))
	b = binary.BigEndian.AppendUint16(b, uint16(p.epoch))
	b = binary.AppendUvarint(b, uint64(p.last))
	b = append(b, byte(p.n))
	for _, w := range p.window[:p.n] {
		b = binary.BigEndian.AppendUint32(b, uint32(w.first))
		b = binary.BigEndian.AppendUint32(b, uint32(w.last))
		b = binary.AppendUvarint(b, uint64(w.base))
	}
	return b
}

func parseProducer(c *cursor) *producer {
	p := &producer{id: int64(c.u64())}
	if v := c.take(2); v != nil {
		p.epoch = int16(binary.BigEndian.Uint16(v))
	}
	p.last = c.offset()
	n := int(c.u8())
	if n > producerWindow {
		c.bad, c.b = true, nil
		return p
	}
	for i := range n {
		p.window[i] = producedBatch{int32(c.u32()), int32(c.u32()), c.offset()}
	}
	p.n = n
	return p
}

// producers are the idempotent producers of a partition by id.
type producers map[int64]*producer

// lastSequence is the sequence number of a batch's last record; after MaxInt32
// comes 0 (DefaultRecordBatch.incrementSequence).
func lastSequence(h *record.Header) int32 {
	if d := h.Count - 1; h.BaseSequence > math.MaxInt32-d {
		return d - (math.MaxInt32 - h.BaseSequence) - 1
	}
	return h.BaseSequence + h.Count - 1
}

// check applies Kafka's rule (ProducerAppendInfo, ProducerStateManager) to a
// batch at the hybrid time now. dup says that it is there already, at offset
// base.
//
// Errors: ErrOutOfOrderSeq, ErrProducerFenced.
func (ps producers) check(h *record.Header, now int64) (base int64, dup bool, err error) {
	p := ps[h.ProducerID]
	if p == nil || now-p.last > producerExpiry.Milliseconds() {
		return 0, false, nil // its state may have expired: any sequence will do
	}
	switch {
	case h.ProducerEpoch < p.epoch:
		return 0, false, fmt.Errorf("%w: producer %d has epoch %d, got %d", record.ErrProducerFenced, p.id, p.epoch, h.ProducerEpoch)
	case h.ProducerEpoch > p.epoch:
		if h.BaseSequence != 0 {
			return 0, false, fmt.Errorf("%w: producer %d begins epoch %d with sequence %d", record.ErrOutOfOrderSeq, p.id, h.ProducerEpoch, h.BaseSequence)
		}
		return 0, false, nil
	}
	last := lastSequence(h)
	for _, w := range p.window[:p.n] {
		if w.first == h.BaseSequence && w.last == last {
			return w.base, true, nil
		}
	}
	if p.n == 0 {
		return 0, false, nil
	}
	want := p.window[p.n-1].last
	if want == math.MaxInt32 {
		want = 0
	} else {
		want++
	}
	if h.BaseSequence != want {
		return 0, false, fmt.Errorf("%w: producer %d sent %d, expected %d", record.ErrOutOfOrderSeq, p.id, h.BaseSequence, want)
	}
	return 0, false, nil
}

// add remembers a batch that has been appended at offset base. It is
// idempotent for batches in offset order, as recovery repeats them.
func (ps producers) add(h *record.Header, base, now int64) {
	p := ps[h.ProducerID]
	if p == nil {
		if len(ps) >= maxProducers {
			ps.evict()
		}
		p = &producer{id: h.ProducerID, epoch: h.ProducerEpoch}
		ps[p.id] = p
	}
	if p.n > 0 && base <= p.window[p.n-1].base {
		return // known
	}
	if p.epoch != h.ProducerEpoch || now-p.last > producerExpiry.Milliseconds() {
		p.epoch, p.n = h.ProducerEpoch, 0
	}
	p.last = max(now, p.last)
	if p.n == producerWindow {
		copy(p.window[:], p.window[1:])
		p.n--
	}
	p.window[p.n] = producedBatch{h.BaseSequence, lastSequence(h), base}
	p.n++
}

// put takes a producer from a footer.
func (ps producers) put(p *producer) {
	if old := ps[p.id]; old == nil || p.n > 0 && (old.n == 0 || p.window[p.n-1].base > old.window[old.n-1].base) {
		ps[p.id] = p
	}
}

func (ps producers) evict() {
	var oldest *producer
	for _, p := range ps {
		if oldest == nil || p.last < oldest.last || p.last == oldest.last && p.id < oldest.id {
			oldest = p
		}
	}
	delete(ps, oldest.id)
}

// below is a copy of the states as they were before offset next: batches at or
// behind it are left out, since they may still be lost.
func (ps producers) below(next, now int64) []*producer {
	var out []*producer
	for _, p := range ps {
		c := *p
		for c.n > 0 && c.window[c.n-1].base >= next {
			c.n--
		}
		if c.n > 0 && now-c.last <= producerExpiry.Milliseconds() {
			out = append(out, &c)
		}
	}
	slices.SortFunc(out, func(a, b *producer) int {
		switch {
		case a.id < b.id:
			return -1
		case a.id > b.id:
			return 1
		}
		return 0
	})
	return out
}
