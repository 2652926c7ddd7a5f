package core

import (
	"fmt"

	"edgehub/pkg/log/record"
)

// Bounds of a partition's producer table.
const (
	producerWindow   = 5             // batches remembered per producer, as in Kafka
	producerExpireMs = 24 * 3600_000 // producer.id.expiration.ms of Kafka, by frame time
	maxProducers     = 10_000        // oldest go first
)

// producer is what a partition remembers of an idempotent producer: its
// epoch and its last batches, newest last.
type producer struct {
	epoch   int16
	time    int64 // of the frame with its last batch, ms
	batches []seqRange
}

func (p *producer) clone() *producer {
	if p == nil {
		return nil
	}
	c := *p
	c.batches = append([]seqRange(nil), p.batches...)
	return &c
}

// seqAfter is the sequence number n behind seq: they wrap from MaxInt32 to 0.
func seqAfter(seq, n int32) int32 {
	return int32((int64(seq) + int64(n)) & 0x7fffffff)
}

// check applies Kafka's rule to the batch of header h. duplicate: base is
// the offset that the first copy got. p may be nil: an unknown producer may
// begin with any sequence, since its state may have expired.
//
// Errors: record.ErrProducerFenced, record.ErrOutOfOrderSeq.
func (p *producer) check(h *record.Header) (base int64, duplicate bool, err error) {
	if h.BaseSequence < 0 || h.ProducerEpoch < 0 {
		return 0, false, fmt.Errorf("%w: sequence %d, epoch %d", record.ErrOutOfOrderSeq, h.BaseSequence, h.ProducerEpoch)
	}
	switch {
	case p == nil:
		return 0, false, nil
	case h.ProducerEpoch < p.epoch:
		return 0, false, fmt.Errorf("%w: producer %d epoch %d, now %d", record.ErrProducerFenced, h.ProducerID, h.ProducerEpoch, p.epoch)
	case h.ProducerEpoch > p.epoch:
		if h.BaseSequence != 0 {
			return 0, false, fmt.Errorf("%w: producer %d begins epoch %d with %d", record.ErrOutOfOrderSeq, h.ProducerID, h.ProducerEpoch, h.BaseSequence)
		}
		return 0, false, nil
	case len(p.batches) == 0:
		return 0, false, nil
	}
	last := seqAfter(h.BaseSequence, h.LastOffsetDelta)
	for _, b := range p.batches {
		if b.First == h.BaseSequence && b.Last == last {
			return b.Base, true, nil
		}
	}
	if want := seqAfter(p.batches[len(p.batches)-1].Last, 1); h.BaseSequence != want {
		return 0, false, fmt.Errorf("%w: producer %d sent %d, due was %d", record.ErrOutOfOrderSeq, h.ProducerID, h.BaseSequence, want)
	}
	return 0, false, nil
}

// take remembers a batch that got offset base in a frame of time ms, and
// returns the producer (a new one for nil).
func (p *producer) take(h *record.Header, base, ms int64) *producer {
	if p == nil {
		p = &producer{}
	}
	if p.epoch != h.ProducerEpoch {
		p.epoch, p.batches = h.ProducerEpoch, p.batches[:0]
	}
	p.time = ms
	if len(p.batches) == producerWindow {
		p.batches = append(p.batches[:0], p.batches[1:]...)
	}
	p.batches = append(p.batches, seqRange{
		First: h.BaseSequence, Last: seqAfter(h.BaseSequence, h.LastOffsetDelta), Base: base})
	return p
}
