package core

import (
	"errors"
	"fmt"
	"sort"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// errChain is a frame that does not continue the fold (C4).
var errChain = errors.New("frames do not continue one another")

// state is the fold of a partition's frames: its last keyframe and what came
// behind it. It belongs to one goroutine.
type state struct {
	seq      uint64 // stream sequence folded last, void frames included
	next     int64  // offset that the next record gets
	epoch    int32
	keyframe uint64 // sequence of the last keyframe; 0: none yet
	keyTime  int64  // its Time
	keyBytes int64  // its Bytes
	maxTime  int64
	time     int64
	bytes    int64

	sources   map[forward.Source]*source
	producers map[int64]*producer
}

func newState() *state {
	return &state{maxTime: noTime, sources: map[forward.Source]*source{}, producers: map[int64]*producer{}}
}

// apply folds the frame stored at seq. A void frame (C1) moves seq only.
// The fold begins at a keyframe, whose tables it takes; at later ones it has
// them already.
//
// Errors: errChain; the state is then unchanged.
func (s *state) apply(seq uint64, f *frame) (void bool, err error) {
	if s.seq != 0 && seq != s.seq+1 {
		return false, fmt.Errorf("%w: sequence %d behind %d", errChain, seq, s.seq)
	}
	if f.Prev != seq-1 {
		s.seq = seq
		return true, nil
	}
	if s.keyframe == 0 {
		if !f.isKeyframe() {
			return false, fmt.Errorf("%w: sequence %d is no keyframe", errChain, seq)
		}
		s.next, s.maxTime, s.time, s.bytes = f.Base, f.MaxTime, f.Time, f.Bytes
		for _, m := range f.Marks {
			s.sources[m.Source] = &source{spans: append([]span(nil), m.Spans...)}
		}
		for _, p := range f.Producers {
			s.producers[p.ID] = &producer{epoch: p.Epoch, time: p.Time, batches: append([]seqRange(nil), p.Batches...)}
		}
	}
	switch {
	case f.Base != s.next:
		return false, fmt.Errorf("%w: base offset %d at sequence %d, due was %d", errChain, f.Base, seq, s.next)
	case f.Epoch < s.epoch:
		return false, fmt.Errorf("%w: epoch %d at sequence %d behind %d", errChain, f.Epoch, seq, s.epoch)
	case !f.isKeyframe() && f.Keyframe != s.keyframe:
		return false, fmt.Errorf("%w: keyframe %d named at sequence %d, it is %d", errChain, f.Keyframe, seq, s.keyframe)
	}
	if f.isKeyframe() {
		s.keyframe, s.keyTime, s.keyBytes = seq, f.Time, f.Bytes
	} else {
		for _, m := range f.Marks {
			src := s.sources[m.Source]
			if src == nil {
				src = &source{}
				s.sources[m.Source] = src
			}
			for _, sp := range m.Spans {
				src.advance(sp, spanLimit(len(s.sources)))
			}
		}
		if _, err := record.Batches(f.Batches, func(h record.Header, _ []byte) error {
			if h.Idempotent() {
				s.producers[h.ProducerID] = s.producers[h.ProducerID].take(&h, h.BaseOffset, f.Time)
			}
			return nil
		}); err != nil {
			return false, fmt.Errorf("%w: sequence %d: %w", errChain, seq, err)
		}
	}
	s.seq, s.next, s.epoch = seq, f.next(), f.Epoch
	s.maxTime, s.time, s.bytes = f.MaxTime, f.Time, f.Bytes
	return false, nil
}

// keyframeOf is an empty frame with the whole tables, to be stored behind
// what is folded. now is the writer's clock in ms.
func (s *state) keyframeOf(epoch int32, now int64) *frame {
	s.expire(now)
	f := &frame{frameHeader: frameHeader{
		Base: s.next, Epoch: epoch, Prev: s.seq, Keyframe: s.seq + 1,
		MaxTime: s.maxTime, Time: max(now, s.time), Bytes: s.bytes,
	}}
	limit := spanLimit(len(s.sources))
	for k, src := range s.sources {
		src.trim(limit)
		f.Marks = append(f.Marks, sourceSpans{Source: k, Spans: src.spans})
	}
	sort.Slice(f.Marks, func(i, j int) bool { return sourceLess(&f.Marks[i].Source, &f.Marks[j].Source) })
	for id, p := range s.producers {
		f.Producers = append(f.Producers, producerEntry{ID: id, Epoch: p.epoch, Time: p.time, Batches: p.batches})
	}
	sort.Slice(f.Producers, func(i, j int) bool { return f.Producers[i].ID < f.Producers[j].ID })
	return f
}

// expire forgets producers that have long been silent, and the most silent
// ones beyond maxProducers.
func (s *state) expire(now int64) {
	for id, p := range s.producers {
		if now-p.time > producerExpireMs {
			delete(s.producers, id)
		}
	}
	if len(s.producers) <= maxProducers {
		return
	}
	ids := make([]int64, 0, len(s.producers))
	for id := range s.producers {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool {
		a, b := s.producers[ids[i]], s.producers[ids[j]]
		return a.time < b.time || a.time == b.time && ids[i] < ids[j]
	})
	for _, id := range ids[:len(ids)-maxProducers] {
		delete(s.producers, id)
	}
}

func sourceLess(a, b *forward.Source) bool {
	switch {
	case a.Site != b.Site:
		return a.Site < b.Site
	case a.Log != b.Log:
		return a.Log.String() < b.Log.String()
	case a.Topic != b.Topic:
		return a.Topic.String() < b.Topic.String()
	}
	return a.Partition < b.Partition
}
