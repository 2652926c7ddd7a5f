package process

import (
	"encoding/binary"
	"fmt"

	"edgehub/pkg/log/record"
)

// Topic is the internal topic of steps: one partition, key
// "<process>/<partition>". It is trimmed by the engine alone.
const Topic = record.InternalPrefix + "process"

// lineage names one life of a task's state: a changed definition or a topic
// created anew begins another.
type lineage struct {
	id    [16]byte // random
	spec  [16]byte // Definition.hash
	topic record.TopicID
	start int64  // offset at which it began, with no state
	first uint64 // seq of its first step
}

// step is how far a task has come, as its record in Topic says.
type step struct {
	lineage
	seq  uint64 // counts the task's steps, from 1, over all lineages
	next int64  // offset of the next input record
	// done counts the results of the event behind next (the record at next,
	// or the tick) that are out already: such an event was larger than a step.
	done int
	tick *tick // nil: none
}

// tick is a decision of the wall clock, taken when all records below
// step.next had been taken in.
type tick struct {
	again bool  // a further part of the same tick
	wall  int64 // ms since 1970
	idle  int64 // keys last heard of before this offset
}

const stepVersion = 1

func (s *step) append(dst []byte) []byte {
	dst = append(dst, stepVersion)
	dst = s.lineage.append(dst)
	dst = binary.AppendUvarint(dst, s.seq)
	dst = binary.AppendVarint(dst, s.next)
	dst = binary.AppendUvarint(dst, uint64(s.done))
	if s.tick == nil {
		return append(dst, 0)
	}
	kind := byte(1)
	if s.tick.again {
		kind = 2
	}
	dst = append(dst, kind)
	dst = binary.AppendVarint(dst, s.tick.wall)
	return binary.AppendVarint(dst, s.tick.idle)
}

func parseStep(b []byte) (step, error) {
	var s step
	if len(b) == 0 || b[0] != stepVersion {
		return s, fmt.Errorf("%w: step of an unknown version", errState)
	}
	r := reader{b: b[1:]}
	s.lineage.read(&r)
	s.seq, s.next, s.done = r.uint(), r.int(), int(r.uint())
	if kind := r.take(1); r.err == nil && kind[0] != 0 {
		if kind[0] > 2 {
			r.fail("unknown decision")
		}
		s.tick = &tick{again: kind[0] == 2, wall: r.int(), idle: r.int()}
	}
	if r.err == nil && (len(r.b) != 0 || s.next < 0 || s.seq == 0 || s.first == 0 || s.first > s.seq || s.done < 0) {
		r.fail("step")
	}
	return s, r.err
}

func (l *lineage) append(dst []byte) []byte {
	dst = append(dst, l.id[:]...)
	dst = append(dst, l.spec[:]...)
	dst = append(dst, l.topic[:]...)
	dst = binary.AppendVarint(dst, l.start)
	return binary.AppendUvarint(dst, l.first)
}

func (l *lineage) read(r *reader) {
	copy(l.id[:], r.take(16))
	copy(l.spec[:], r.take(16))
	copy(l.topic[:], r.take(16))
	l.start, l.first = r.int(), r.uint()
}

// stepAt is a step and its offset in Topic.
type stepAt struct {
	step
	offset int64
}

// history is the steps of a task that are still there, by seq. The last may
// have been appended again to keep it from being trimmed; the copy counts.
type history []stepAt

func (h *history) add(s stepAt) {
	if n := len(*h); n > 0 && (*h)[n-1].seq >= s.seq {
		if (*h)[n-1].seq == s.seq {
			(*h)[n-1].offset = s.offset
		}
		return
	}
	*h = append(*h, s)
}

// last is the newest step, nil if there is none.
func (h history) last() *stepAt {
	if len(h) == 0 {
		return nil
	}
	return &h[len(h)-1]
}

// since gives the steps behind seq, if none is missing and all are of l.
func (h history) since(seq uint64, l *lineage) (history, bool) {
	var lastSeq uint64
	if s := h.last(); s != nil {
		lastSeq = s.seq
	}
	if seq > lastSeq {
		return nil, false
	}
	n := int(lastSeq - seq)
	if n > len(h) {
		return nil, false
	}
	out := h[len(h)-n:]
	for i := range out {
		if out[i].seq != seq+1+uint64(i) || out[i].id != l.id {
			return nil, false
		}
	}
	return out, true
}
