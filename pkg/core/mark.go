package core

import (
	"errors"
	"fmt"
	"math"

	"edgehub/pkg/forward"
)

// maxSources bounds the sources of a partition: their table must fit a
// keyframe.
const maxSources = 8192

// source is what a partition durably holds of one edge partition: a span per
// epoch, in the order of last use. Spans are never cut back: an edge that
// returns to an image with an older epoch must still find how far it got.
//
// S1: no two spans have one epoch. S2: the last span is the mark's.
type source struct {
	spans []span
}

// mark is the Position behind the last record; zero if there is none.
func (s *source) mark() forward.Position {
	if s == nil || len(s.spans) == 0 {
		return forward.Position{}
	}
	l := s.spans[len(s.spans)-1]
	return forward.Position{Epoch: l.Epoch, Next: l.Next}
}

func (s *source) find(epoch forward.ID) (span, bool) {
	if s != nil {
		for i := len(s.spans) - 1; i >= 0; i-- {
			if s.spans[i].Epoch == epoch {
				return s.spans[i], true
			}
		}
	}
	return span{}, false
}

func (s *source) clone() *source {
	if s == nil {
		return &source{}
	}
	return &source{spans: append([]span(nil), s.spans...)}
}

// advance takes the source further by sp, and makes its epoch the last one.
// limit bounds the spans kept: the longest unused go.
func (s *source) advance(sp span, limit int) {
	for i, old := range s.spans {
		if old.Epoch != sp.Epoch {
			continue
		}
		sp.Start = min(sp.Start, old.Start)
		sp.Next = max(sp.Next, old.Next)
		s.spans = append(s.spans[:i], s.spans[i+1:]...)
		break
	}
	s.spans = append(s.spans, sp)
	s.trim(limit)
}

// trim keeps the limit spans used last.
func (s *source) trim(limit int) {
	if n := len(s.spans) - limit; n > 0 {
		s.spans = append(s.spans[:0], s.spans[n:]...)
	}
}

// spanLimit is how many spans a source keeps where a partition has n of
// them, so that a keyframe's table stays below its limit.
func spanLimit(n int) int {
	return min(max(65_536/max(n, 1), 8), forward.MaxEpochs)
}

// lane is an open lane: the epochs of the source as its Open told them, and
// the edge's offset that is due next.
type lane struct {
	epochs []forward.Epoch // oldest first, Start ascending
	cursor int64
}

// end is the offset behind epoch i.
func (l *lane) end(i int) int64 {
	if i+1 < len(l.epochs) {
		return l.epochs[i+1].Start
	}
	return math.MaxInt64
}

func (l *lane) find(id forward.ID) int {
	for i := len(l.epochs) - 1; i >= 0; i-- {
		if l.epochs[i].ID == id {
			return i
		}
	}
	return -1
}

// epochAt is the epoch in which offset was or will be given: the last that
// starts at or before it; the first for an offset before all.
func (l *lane) epochAt(offset int64) int {
	for i := len(l.epochs) - 1; i > 0; i-- {
		if l.epochs[i].Start <= offset {
			return i
		}
	}
	return 0
}

var errOpen = errors.New("open is not possible")

func checkOpen(o *forward.Open) error {
	switch {
	case len(o.Epochs) == 0 || len(o.Epochs) > forward.MaxEpochs:
		return fmt.Errorf("%w: %d epochs, 1 to %d are allowed", errOpen, len(o.Epochs), forward.MaxEpochs)
	case o.LogStart < 0 || o.Next < o.LogStart || o.Source.Partition < 0:
		return fmt.Errorf("%w: range [%d, %d) of partition %d", errOpen, o.LogStart, o.Next, o.Source.Partition)
	}
	seen := make(map[forward.ID]bool, len(o.Epochs))
	last := int64(0)
	for i, e := range o.Epochs {
		if e.Start < last || seen[e.ID] {
			return fmt.Errorf("%w: epoch %d of %d (%s) starts at %d behind %d, or is there twice",
				errOpen, i, len(o.Epochs), e.ID, e.Start, last)
		}
		last = e.Start
		seen[e.ID] = true
	}
	return nil
}

// openLane finds the last epoch and offset that edge and core share and opens
// the lane there. lost are the edge's offsets that the core has and the edge
// has no more: its log was restored from an older image, or lost its tail.
// They stay at the core; what the edge sends now is new.
//
// The search runs over the edge's epochs, newest first: the newest of which
// the core holds something is the last one shared, since the edge's epochs are
// its own present history.
func openLane(src *source, o *forward.Open) (ln *lane, lost []span, err error) {
	if err := checkOpen(o); err != nil {
		return nil, nil, err
	}
	ln = &lane{epochs: append([]forward.Epoch(nil), o.Epochs...)}
	if src == nil || len(src.spans) == 0 {
		// First contact: the edge declares what lies below its log start.
		ln.cursor = o.Epochs[0].Start
		return ln, nil, nil
	}
	for i := len(o.Epochs) - 1; i >= 0; i-- {
		sp, ok := src.find(o.Epochs[i].ID)
		if !ok {
			continue
		}
		ln.cursor = sp.Next
		if end := ln.end(i); sp.Next > end {
			ln.cursor = end
			lost = append(lost, span{Epoch: sp.Epoch, Start: end, Next: sp.Next})
		}
		// What was taken after the shared epoch, of epochs that the edge no
		// longer has.
		for j := len(src.spans) - 1; src.spans[j].Epoch != sp.Epoch; j-- {
			if ln.find(src.spans[j].Epoch) < 0 {
				lost = append(lost, src.spans[j])
			}
		}
		return ln, lost, nil
	}
	ln.cursor = o.Epochs[0].Start
	return ln, append(lost, src.spans...), nil
}

// resume is the Position at which the lane goes on.
func (l *lane) resume() forward.Position {
	return forward.Position{Epoch: l.epochs[l.epochAt(l.cursor)].ID, Next: l.cursor}
}

// verdict is what admit decides about an Append. With CodeOK and no spans it
// is a duplicate.
type verdict struct {
	code    forward.Code
	message string
	spans   []span // by which the source goes further
	cursor  int64  // of the lane then
}

// admit decides whether a continues the lane (C5). src is the source with all
// that was admitted before, durable or not. It changes nothing.
func admit(src *source, ln *lane, a *forward.Append) verdict {
	if ln == nil {
		return verdict{code: forward.CodeReopen, message: "the lane is not open at this leader"}
	}
	i := ln.find(a.Epoch)
	if i < 0 {
		return verdict{code: forward.CodeReopen, message: fmt.Sprintf("epoch %s is not in the lane's Open", a.Epoch)}
	}
	if duplicate(src, a) {
		return verdict{code: forward.CodeOK, cursor: ln.cursor}
	}
	v := verdict{cursor: ln.cursor}
	for _, g := range a.Gaps {
		j := ln.find(g.Epoch)
		switch {
		case j < 0:
			return verdict{code: forward.CodeReopen, message: fmt.Sprintf("epoch %s of a gap is not in the lane's Open", g.Epoch)}
		case g.From >= g.To || g.From < ln.epochs[j].Start || g.To > ln.end(j):
			return verdict{code: forward.CodeRefused, message: fmt.Sprintf("gap [%d, %d) is not inside its epoch", g.From, g.To)}
		case g.From != v.cursor:
			return verdict{code: forward.CodeMismatch, message: fmt.Sprintf("gap from %d, due was %d", g.From, v.cursor)}
		}
		v.spans = append(v.spans, span{Epoch: g.Epoch, Start: g.From, Next: g.To})
		v.cursor = g.To
	}
	if a.First != v.cursor {
		return verdict{code: forward.CodeMismatch, message: fmt.Sprintf("offset %d, due was %d", a.First, v.cursor)}
	}
	if a.Last >= a.First {
		if a.First < ln.epochs[i].Start || a.Last >= ln.end(i) {
			return verdict{code: forward.CodeRefused, message: fmt.Sprintf("offsets %d to %d are not inside epoch %s", a.First, a.Last, a.Epoch)}
		}
		v.spans = append(v.spans, span{Epoch: a.Epoch, Start: a.First, Next: a.Last + 1})
		v.cursor = a.Last + 1
	}
	return v
}

// duplicate says whether the core has all of a.
func duplicate(src *source, a *forward.Append) bool {
	if a.Last >= a.First {
		sp, ok := src.find(a.Epoch)
		return ok && sp.Start <= a.First && a.Last < sp.Next
	}
	for _, g := range a.Gaps {
		if sp, ok := src.find(g.Epoch); !ok || g.From < sp.Start || g.To > sp.Next {
			return false
		}
	}
	return true
}
