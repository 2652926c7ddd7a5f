package core

import (
	"fmt"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// request waits in a partition's queue for its leader. Exactly one of
// produce, append and open is meant, by kind. done is called once, by the
// leader's goroutine, and must not block.
type request struct {
	kind    requestKind
	size    int      // bytes of batches
	batches [][]byte // produced: one
	heads   []record.Header
	append  *forward.Append
	open    *forward.Open
	done    func(outcome)
}

type requestKind uint8

const (
	produceRequest requestKind = iota
	appendRequest
	openRequest
)

// outcome answers a request. base, logStart and duplicate are of a produced
// batch; reply of a lane's message.
type outcome struct {
	err       error
	base      int64
	logStart  int64
	duplicate bool
	reply     forward.Reply
}

// draft is a frame built from queued requests against a state, with what to
// answer once the frame counts. It changes nothing until it is settled.
type draft struct {
	f        frame
	requests []*request
	outcomes []outcome
	cursors  map[forward.Source]int64 // of the lanes it takes further
	sources  map[forward.Source]*source
}

// empty says that there is nothing to store: the outcomes hold as they are.
func (d *draft) empty() bool { return d.f.Count == 0 && len(d.f.Marks) == 0 }

// build makes a draft of the first requests of the queue that fit one
// frame: up to frameTarget bytes, or one larger request alone. Requests are
// judged against the state and what the draft admitted before them. Batches
// are copied and stamped.
func build(s *state, lanes map[forward.Source]*lane, queue []*request, maxMessage int32, writer, number uint64, now int64) *draft {
	d := &draft{
		f: frame{frameHeader: frameHeader{
			Base: s.next, Epoch: s.epoch, Writer: writer, Number: number, Prev: s.seq, Keyframe: s.keyframe,
			MaxTime: s.maxTime, Time: max(now, s.time), Bytes: s.bytes,
		}},
		cursors: map[forward.Source]int64{},
		sources: map[forward.Source]*source{},
	}
	producers := map[int64]*producer{}
	size := 0
	for _, r := range queue {
		if size > 0 && size+r.size > frameTarget {
			break
		}
		if r.kind == openRequest {
			break // answered between frames, from durable state alone
		}
		var o outcome
		switch r.kind {
		case produceRequest:
			o = d.produce(s, producers, r, maxMessage)
		case appendRequest:
			o = d.append(s, lanes, r)
		}
		d.requests = append(d.requests, r)
		d.outcomes = append(d.outcomes, o)
		size = len(d.f.Batches)
	}
	return d
}

// produce admits one produced batch.
func (d *draft) produce(s *state, producers map[int64]*producer, r *request, maxMessage int32) outcome {
	h := r.heads[0]
	if h.Size() > int(maxMessage) || h.Size() > maxFrameBatches {
		return outcome{err: fmt.Errorf("%w: %d bytes, at most %d", record.ErrTooLarge, h.Size(), min(int(maxMessage), maxFrameBatches))}
	}
	if h.Idempotent() {
		p, ok := producers[h.ProducerID]
		if !ok {
			p = s.producers[h.ProducerID].clone()
		}
		base, dup, err := p.check(&h)
		if err != nil || dup {
			return outcome{err: err, base: base, duplicate: dup}
		}
		producers[h.ProducerID] = p.take(&h, d.f.next(), d.f.Time)
	}
	return outcome{base: d.add(r)}
}

// append admits the Append of a lane.
func (d *draft) append(s *state, lanes map[forward.Source]*lane, r *request) outcome {
	key := r.append.Source
	src := d.sources[key]
	if src == nil {
		src = s.sources[key].clone()
		if len(src.spans) == 0 && len(s.sources)+len(d.sources) >= maxSources {
			return outcome{reply: forward.Reply{Code: forward.CodeRefused,
				Message: fmt.Sprintf("the partition has %d sources already", maxSources)}}
		}
	}
	var ln *lane
	if l := lanes[key]; l != nil {
		c := *l
		if at, ok := d.cursors[key]; ok {
			c.cursor = at
		}
		ln = &c
	}
	v := admit(src, ln, r.append)
	if v.code != forward.CodeOK || len(v.spans) == 0 {
		// A duplicate's mark may be of this very draft: it leaves with it.
		return outcome{reply: forward.Reply{Code: v.code, Message: v.message, Mark: src.mark()}}
	}
	for _, sp := range v.spans {
		src.advance(sp, spanLimit(len(s.sources)+len(d.sources)+1))
	}
	d.sources[key] = src
	d.cursors[key] = v.cursor
	d.f.Marks = append(d.f.Marks, sourceSpans{Source: key, Spans: v.spans})
	for _, g := range r.append.Gaps {
		d.f.Gaps = append(d.f.Gaps, sourceGap{Source: key, Gap: g})
	}
	d.add(r)
	return outcome{reply: forward.Reply{Code: forward.CodeOK, Mark: src.mark()}}
}

// add stamps r's batches behind those of the draft and returns the first
// one's offset.
func (d *draft) add(r *request) int64 {
	base := d.f.next()
	for i, b := range r.batches {
		h := &r.heads[i]
		at := len(d.f.Batches)
		d.f.Batches = append(d.f.Batches, b...)
		record.Stamp(d.f.Batches[at:], d.f.next(), d.f.Epoch)
		d.f.Count += int64(h.LastOffsetDelta) + 1
		d.f.MaxTime = max(d.f.MaxTime, h.MaxTimestamp)
		d.f.Bytes += int64(len(b))
	}
	return base
}
