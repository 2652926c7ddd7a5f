package core

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/google/go-cmp/cmp"
)

// idem is one batch of n records of an idempotent producer.
func idem(pid int64, epoch int16, seq int32, n int) []byte {
	var b record.Builder
	for range n {
		b.Append(&record.Record{Timestamp: 1})
	}
	return b.BuildIdempotent(nil, record.None, pid, epoch, seq)
}

func header(t *testing.T, raw []byte) record.Header {
	t.Helper()
	h, err := record.Check(raw)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestProducerRule(t *testing.T) {
	type step struct {
		epoch   int16
		seq     int32
		n       int
		base    int64 // expected, of a duplicate
		dup     bool
		err     error
		advance bool
	}
	ok := func(epoch int16, seq int32, n int) step { return step{epoch: epoch, seq: seq, n: n, advance: true} }
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"in order", []step{ok(0, 0, 3), ok(0, 3, 1), ok(0, 4, 2)}},
		{"unknown producer begins anywhere", []step{ok(0, 77, 3), ok(0, 80, 1)}},
		{"duplicate of the last", []step{ok(0, 0, 3), {epoch: 0, seq: 0, n: 3, base: 100, dup: true}}},
		{"duplicate of the fifth last", []step{ok(0, 0, 1), ok(0, 1, 1), ok(0, 2, 1), ok(0, 3, 1), ok(0, 4, 1),
			{seq: 0, n: 1, base: 100, dup: true}, {seq: 4, n: 1, base: 104, dup: true}}},
		{"the sixth last is forgotten", []step{ok(0, 0, 1), ok(0, 1, 1), ok(0, 2, 1), ok(0, 3, 1), ok(0, 4, 1), ok(0, 5, 1),
			{seq: 0, n: 1, err: record.ErrOutOfOrderSeq}}},
		{"other length is no duplicate", []step{ok(0, 0, 3), {seq: 0, n: 2, err: record.ErrOutOfOrderSeq}}},
		{"hole", []step{ok(0, 0, 3), {seq: 4, n: 1, err: record.ErrOutOfOrderSeq}}},
		{"new epoch begins at 0", []step{ok(0, 0, 3), {epoch: 1, seq: 3, n: 1, err: record.ErrOutOfOrderSeq}, ok(1, 0, 1)}},
		{"old epoch is fenced", []step{ok(1, 0, 3), {epoch: 0, seq: 3, n: 1, err: record.ErrProducerFenced}}},
		{"wraps behind MaxInt32", []step{ok(0, math.MaxInt32-1, 2), ok(0, 0, 1)}},
		{"wraps within a batch", []step{ok(0, math.MaxInt32-1, 4), ok(0, 2, 1),
			{seq: math.MaxInt32 - 1, n: 4, base: 100, dup: true}}},
	} {
		var p *producer
		next := int64(100)
		for i, s := range c.steps {
			h := header(t, idem(9, s.epoch, s.seq, s.n))
			base, dup, err := p.check(&h)
			if !errors.Is(err, s.err) || dup != s.dup || dup && base != s.base {
				t.Errorf("%s, step %d: base %d dup %v err %v", c.name, i, base, dup, err)
			}
			if s.advance {
				p = p.take(&h, next, 1)
				next += int64(s.n)
			}
		}
	}
}

// chain stores frames into a fake stream through a state, as a leader does.
type chain struct {
	t      *testing.T
	st     *state
	stored []*frame // by sequence, from 1
}

func newChain(t *testing.T) *chain {
	c := &chain{t: t, st: newState()}
	c.put(c.st.keyframeOf(1, 10))
	return c
}

func (c *chain) put(f *frame) {
	c.t.Helper()
	body, err := f.encodeBody()
	if err != nil {
		c.t.Fatal(err)
	}
	back, err := decodeFrame(f.frameHeader.encode(), body)
	if err != nil {
		c.t.Fatal(err)
	}
	c.stored = append(c.stored, back)
	if _, err := c.st.apply(uint64(len(c.stored)), back); err != nil {
		c.t.Fatal(err)
	}
}

// data makes the next frame of the batches.
func (c *chain) data(batches ...[]byte) *frame {
	return dataFrame(frameHeader{Base: c.st.next, Epoch: c.st.epoch, Prev: c.st.seq, Keyframe: c.st.keyframe,
		MaxTime: c.st.maxTime, Time: c.st.time + 1, Bytes: c.st.bytes}, batches...)
}

func (c *chain) mark(f *frame, site string, sp ...string) *frame {
	m := sourceSpans{Source: forward.Source{Site: site}}
	for _, s := range sp {
		m.Spans = append(m.Spans, spans(s)...)
	}
	f.Marks = append(f.Marks, m)
	return f
}

// refold folds the stream from a keyframe on.
func (c *chain) refold(from uint64) *state {
	c.t.Helper()
	st := newState()
	for i := from; i <= uint64(len(c.stored)); i++ {
		if _, err := st.apply(i, c.stored[i-1]); err != nil {
			c.t.Fatalf("sequence %d: %v", i, err)
		}
	}
	return st
}

func TestFoldFromAnyKeyframeIsTheSame(t *testing.T) {
	c := newChain(t)
	c.put(c.mark(c.data(batch("a", 0, 3)), "s1", "A0-3"))
	c.put(c.data(idem(5, 0, 0, 2), idem(5, 0, 2, 1)))
	c.put(c.st.keyframeOf(c.st.epoch, 20))
	second := uint64(len(c.stored))
	c.put(c.mark(c.mark(c.data(batch("b", 0, 1)), "s1", "A3-4", "B4-5"), "s2", "Q0-1"))
	c.put(c.data(idem(5, 0, 3, 1), idem(6, 2, 9, 1)))
	c.put(c.st.keyframeOf(raiseEpoch(c.st.epoch, 0), 30))
	third := uint64(len(c.stored))
	c.put(c.data(batch("z", 0, 2)))
	opt := cmp.AllowUnexported(state{}, source{}, producer{})
	for _, from := range []uint64{1, second, third} {
		if d := cmp.Diff(c.st, c.refold(from), opt); d != "" {
			t.Errorf("folded from %d: %s", from, d)
		}
	}
	if c.st.next != 11 || c.st.epoch != 2 {
		t.Errorf("next %d, epoch %d", c.st.next, c.st.epoch)
	}
	if got := spansString(c.st.sources[forward.Source{Site: "s1"}].spans); got != "A0-4 B4-5" {
		t.Errorf("spans %s", got)
	}
}

func TestFoldSkipsVoidFramesAndFindsBrokenChains(t *testing.T) {
	c := newChain(t)
	c.put(c.data(batch("a", 0, 3)))
	late := c.data(batch("late", 0, 1)) // written behind the same frame as the next
	c.put(c.data(batch("b", 0, 1)))
	before := c.st.next
	c.put(late) // the server let it through at sequence 4
	if c.st.next != before || c.st.seq != 4 {
		t.Fatalf("a void frame counted: next %d, seq %d", c.st.next, c.st.seq)
	}
	c.put(c.data(batch("c", 0, 1)))
	if c.st.next != before+1 {
		t.Fatalf("next %d", c.st.next)
	}
	if got := c.refold(1); got.next != c.st.next {
		t.Fatalf("refold: %d", got.next)
	}
	for name, change := range map[string]func(f *frame){
		"base too high":    func(f *frame) { f.Base++ },
		"base too low":     func(f *frame) { f.Base-- },
		"older epoch":      func(f *frame) { f.Epoch-- },
		"another keyframe": func(f *frame) { f.Keyframe = 2 },
	} {
		f := c.data(batch("x", 0, 1))
		change(f)
		seq, next := c.st.seq, c.st.next
		if _, err := c.st.apply(c.st.seq+1, f); !errors.Is(err, errChain) {
			t.Errorf("%s: %v", name, err)
		}
		if c.st.seq != seq || c.st.next != next {
			t.Errorf("%s changed the state", name)
		}
	}
	if _, err := c.st.apply(c.st.seq+2, c.data(batch("x", 0, 1))); !errors.Is(err, errChain) {
		t.Errorf("hole in sequences: %v", err)
	}
	if _, err := newState().apply(2, c.stored[1]); !errors.Is(err, errChain) {
		t.Errorf("fold from a data frame: %v", err)
	}
}

func TestRaiseEpoch(t *testing.T) {
	const y2026 = 1_767_225_600_000
	for _, c := range []struct {
		epoch int32
		now   int64
		want  int32
	}{
		{0, 0, 1}, {5, -1, 6}, {0, y2026, 3_156_480}, {3_156_480, y2026, 3_156_481}, {9_000_000, y2026, 9_000_001},
		{1, math.MaxInt64, math.MaxInt32 / 2},
	} {
		if got := raiseEpoch(c.epoch, c.now); got != c.want {
			t.Errorf("raise %d at %d: %d, want %d", c.epoch, c.now, got, c.want)
		}
	}
}

func TestBuildGathersAndJudges(t *testing.T) {
	c := newChain(t)
	src := forward.Source{Site: "s"}
	lanes := map[forward.Source]*lane{src: {epochs: epochs("A0"), cursor: 0}}
	produced := func(raw []byte) *request {
		return &request{kind: produceRequest, size: len(raw), batches: [][]byte{raw}, heads: []record.Header{header(t, raw)}}
	}
	s := &testSite{name: "s"}
	appended := func(first, last int64) *request {
		raw := s.batches(0, forward.Epoch{ID: id("A")}, first, last)
		a := &forward.Append{Source: src, Epoch: id("A"), First: first, Last: last}
		raws, heads, err := checkBatches(a, raw)
		if err != nil {
			t.Fatal(err)
		}
		return &request{kind: appendRequest, size: len(raw), append: a, batches: raws, heads: heads}
	}
	queue := []*request{
		produced(batch("x", 0, 2)),   // 0, 1
		appended(0, 3),               // 2..5, in two batches
		appended(4, 4),               // 6
		appended(0, 3),               // duplicate of this very frame
		appended(9, 9),               // mismatch
		produced(idem(3, 0, 0, 2)),   // 7, 8
		produced(idem(3, 0, 0, 2)),   // duplicate
		produced(idem(3, 0, 5, 1)),   // out of order
		produced(idem(3, 0, 2, 1)),   // 9
		produced(batch("big", 0, 9)), // too large
	}
	d := build(c.st, lanes, queue, 150, 7, 1, 99)
	want := []string{"0 false", "ok A4", "ok A5", "ok A5", "mismatch A5", "7 false", "7 true", record.ErrOutOfOrderSeq.Error(), "9 false", record.ErrTooLarge.Error()}
	for i, o := range d.outcomes {
		got := fmt.Sprintf("%d %v", o.base, o.duplicate)
		if queue[i].kind == appendRequest {
			got = fmt.Sprintf("%s %s", o.reply.Code, position(o.reply.Mark))
		} else if o.err != nil {
			got = errors.Unwrap(o.err).Error()
		}
		if got != want[i] {
			t.Errorf("request %d: %s (%v), want %s", i, got, o.err, want[i])
		}
	}
	if c.st.next != 0 || len(c.st.sources) != 0 || len(c.st.producers) != 0 || lanes[src].cursor != 0 {
		t.Error("a draft changed the state")
	}
	c.put(&d.f)
	if c.st.next != 10 || spansString(c.st.sources[src].spans) != "A0-5" || d.cursors[src] != 5 {
		t.Errorf("next %d, spans %s, cursor %d", c.st.next, spansString(c.st.sources[src].spans), d.cursors[src])
	}
	// One larger batch goes alone; frames end before the target.
	big := batch(string(make([]byte, 40_000)), 0, 9)
	queue = []*request{produced(big), produced(big), produced(batch("x", 0, 1))}
	if d := build(c.st, lanes, queue, math.MaxInt32, 7, 2, 99); len(d.requests) != 1 {
		t.Errorf("%d requests in a frame of %d bytes", len(d.requests), len(d.f.Batches))
	}
}

func TestProducersExpire(t *testing.T) {
	s := newState()
	for i := range int64(maxProducers + 10) {
		s.producers[i] = &producer{time: i}
	}
	s.producers[-1] = &producer{time: -producerExpireMs - 5}
	s.expire(0)
	if len(s.producers) != maxProducers || s.producers[9] != nil || s.producers[10] == nil || s.producers[-1] != nil {
		t.Errorf("%d producers", len(s.producers))
	}
}
